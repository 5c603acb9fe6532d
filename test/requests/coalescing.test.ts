/** What the request manager sends to the device: which blocks become one operation, who joins whom, and how transfers go on. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { OP_READ, OP_WRITE } from '../../src/io/engine.js';
import { BLOCK_BYTES, BLOCK_SECTORS } from '../../src/memory/block-store.js';
import { type Asked, KIB, Rig } from './manager-rig.js';
import { turn } from './manual-engine.js';

const TERA_BLOCK = 2 ** 32 / BLOCK_SECTORS;

function done(...callers: Asked[]): void {
  for (const caller of callers) expect([caller.settled, caller.error]).toEqual([1, undefined]);
}

describe('neighbours', () => {
  it('of one turn become one operation, in whatever order they were asked for', async () => {
    const rig = new Rig();
    const callers = [7, 5, 6, 4, 20].map((block) => rig.ask(block));
    await turn();
    expect(rig.inFlight).toEqual(['4+4', '20+1']);
    await rig.complete();
    done(...callers);
    for (const caller of callers) expect(rig.holdsContent(caller)).toBe(true);
    for (const caller of callers) rig.release(caller);
    expect(rig.leak).toBeUndefined();
  });

  it('are merged up to the merge limit', async () => {
    const rig = new Rig({ mergeLimit: 16 * KIB, transferLimit: 64 * KIB });
    for (let block = 0; block < 10; block++) rig.ask(block);
    await turn();
    expect(rig.inFlight).toEqual(['0+4', '4+4', '8+2']);
  });

  it('are merged up to the transfer limit where that is lower, and a long range is split there', async () => {
    const rig = new Rig({ mergeLimit: 64 * KIB, transferLimit: 16 * KIB });
    const caller = await rig.askNow(3, 10);
    expect(rig.inFlight).toEqual(['3+4', '7+4', '11+2']);
    await rig.complete([rig.engine.sent[1]]);
    expect(caller.settled).toBe(0);
    await rig.complete([rig.engine.sent[1]]);
    expect(caller.settled).toBe(0);
    await rig.complete();
    done(caller);
    expect(rig.holdsContent(caller)).toBe(true);
  });

  it('are one block each where the limits are below a block', async () => {
    const rig = new Rig({ mergeLimit: 0, transferLimit: 4 * KIB });
    await rig.askNow(0, 3);
    expect(rig.inFlight).toEqual(['0+1', '1+1', '2+1']);
  });

  it('on both sides of a 2 TiB border stay apart', async () => {
    const rig = new Rig();
    const caller = rig.ask(TERA_BLOCK - 2, 5);
    const other = rig.ask(2 * TERA_BLOCK + 1, 1);
    const low = rig.ask(1, 1);
    await turn();
    expect(rig.inFlight.sort()).toEqual(['1+1', `${TERA_BLOCK - 2}+2`, `${TERA_BLOCK}+3`, `${2 * TERA_BLOCK + 1}+1`].sort());
    await rig.complete([rig.engine.sent.find(({ position }) => position === TERA_BLOCK * BLOCK_BYTES)!]);
    expect(caller.settled).toBe(0);
    await rig.complete();
    done(caller, other, low);
    for (const each of [caller, other, low]) {
      expect(rig.holdsContent(each)).toBe(true);
      rig.release(each);
    }
    expect(rig.leak).toBeUndefined();
  });

  it('of the same low 32 bits in different regions are not taken for each other', async () => {
    const rig = new Rig();
    const low = rig.ask(5);
    const high = rig.ask(5 + TERA_BLOCK);
    const higher = rig.ask(5 + 3 * TERA_BLOCK);
    await turn();
    const [entry] = rig.engine.sent.filter(({ position }) => position === (5 + TERA_BLOCK) * BLOCK_BYTES);
    await rig.complete([entry]);
    expect([low.settled, high.settled, higher.settled]).toEqual([0, 1, 0]);
  });

  it('are sent by their place on the device where that is known', async () => {
    const rig = new Rig();
    rig.manager.placeOf = (sector) => -sector;
    for (const block of [0, 10, 20, 30]) rig.ask(block);
    await turn();
    expect(rig.inFlight).toEqual(['30+1', '20+1', '10+1', '0+1']);
    await rig.complete();
    rig.manager.placeOf = () => Number.NaN;
    for (const block of [60, 50, 40]) rig.ask(block);
    await turn();
    expect(rig.inFlight).toEqual(['40+1', '50+1', '60+1']);
  });
});

describe('gaps', () => {
  it('up to the gap limit are read over', async () => {
    const rig = new Rig({ gapLimit: 8 * KIB });
    for (const block of [0, 3, 7]) rig.ask(block);
    await turn();
    expect(rig.inFlight).toEqual(['0+4', '7+1']);
    await rig.complete();
    expect(rig.frames.state(1, 0xff, false)).toBe(0);
  });

  it('are not read over blocks that are in memory', async () => {
    const rig = new Rig({ gapLimit: 64 * KIB });
    rig.ask(2);
    await rig.run();
    const [before, after] = [rig.ask(0), rig.ask(4)];
    await turn();
    expect(rig.inFlight).toEqual(['0+1', '4+1']);
    await rig.complete();
    done(before, after);
  });

  it('are not read over blocks that are on their way', async () => {
    const rig = new Rig({ gapLimit: 64 * KIB });
    await rig.askNow(2);
    rig.ask(0);
    rig.ask(4);
    await turn();
    expect(rig.inFlight).toEqual(['2+1', '0+1', '4+1']);
  });

  it('are not read over what must not be touched now', async () => {
    const rig = new Rig({ gapLimit: 64 * KIB });
    let clear = false;
    rig.manager.exclude(16, 24, () => {
      clear = true;
    });
    expect(clear).toBe(true);
    rig.ask(0);
    rig.ask(4);
    await turn();
    expect(rig.inFlight).toEqual(['0+1', '4+1']);
  });

  it('take no memory that somebody who waits for a block needs', async () => {
    const rig = new Rig({ gapLimit: 64 * KIB, frames: 3 });
    const callers = [0, 3, 9].map((block) => rig.ask(block));
    await rig.run();
    done(...callers);
    expect(rig.engine.history.map(({ length }) => length)).toEqual([4096, 4096, 4096]);
  });
});

describe('joins', () => {
  it('wait for what is on its way instead of reading it again', async () => {
    const rig = new Rig();
    const first = await rig.askNow(0, 4);
    const inside = await rig.askNow(1, 2);
    const same = await rig.askNow(0, 4);
    expect(rig.inFlight).toEqual(['0+4']);
    expect(rig.manager.counts.joined).toBeGreaterThan(0);
    expect([first, inside, same].map((caller) => caller.settled)).toEqual([0, 0, 0]);
    await rig.complete();
    done(first, inside, same);
    expect(rig.engine.history.length).toBe(1);
    for (const caller of [first, inside, same]) {
      expect(rig.holdsContent(caller)).toBe(true);
      rig.release(caller);
    }
    expect(rig.leak).toBeUndefined();
  });

  it('in part read the rest alone', async () => {
    const rig = new Rig();
    const first = await rig.askNow(4, 4);
    const over = await rig.askNow(2, 4);
    const around = await rig.askNow(0, 12);
    expect(rig.inFlight).toEqual(['4+4', '2+2', '0+2', '8+4']);
    await rig.complete([rig.engine.sent[1]]);
    expect([first, over, around].map((caller) => caller.settled)).toEqual([0, 0, 0]);
    await rig.complete([rig.engine.sent[0]]);
    expect([first, over, around].map((caller) => caller.settled)).toEqual([1, 1, 0]);
    await rig.complete();
    done(first, over, around);
    expect(rig.holdsContent(around)).toBe(true);
  });

  it('of one turn share their operation too', async () => {
    const rig = new Rig();
    const callers = [rig.ask(0, 3), rig.ask(1, 4), rig.ask(2, 1)];
    await turn();
    expect(rig.inFlight).toEqual(['0+5']);
    await rig.complete();
    done(...callers);
    for (const caller of callers) rig.release(caller);
    expect(rig.leak).toBeUndefined();
  });

  it('read only the sectors that are missing from a block that is partly valid', async () => {
    const rig = new Rig();
    // Memory without a read, then one sector made valid, as a write of that sector does.
    const store = rig.ask(0, 1, { needFirst: 0, needLast: 0, store: true });
    await rig.run();
    done(store);
    rig.frames.markValid(rig.frames.find(0), 0b00000100);
    rig.release(store);
    const [whole, known] = [rig.ask(0), rig.ask(0, 1, { needFirst: 0b100, needLast: 0b100 })];
    await turn();
    expect(known.settled).toBe(1);
    expect(rig.engine.sent.map(({ position, length }) => [position / 512, length / 512])).toEqual([
      [0, 2],
      [3, 5],
    ]);
    const last = await rig.askNow(0, 1, { needFirst: 0b10000000, needLast: 0b10000000 });
    expect(rig.engine.sent.length).toBe(2);
    await rig.complete([rig.engine.sent[1]]);
    expect([whole.settled, last.settled]).toEqual([0, 1]);
    await rig.complete();
    done(whole, known, last);
  });

  it('that are going to store wait for every operation on their blocks', async () => {
    const rig = new Rig();
    const reader = await rig.askNow(0, 2);
    const writer = await rig.askNow(1, 1, { needFirst: 0, needLast: 0, store: true });
    expect(writer.settled).toBe(0);
    expect(rig.inFlight).toEqual(['0+2']);
    await rig.complete();
    done(reader, writer);
    const frame = rig.frames.find(1);
    rig.manager.write(8, 8, rig.frames.slabOf(frame), rig.frames.offsetOf(frame), { operationEnded: () => {}, operationSplit: () => {} });
    const again = await rig.askNow(1, 1, { needFirst: 0, needLast: 0, store: true });
    const readsThrough = await rig.askNow(1);
    expect([rig.engine.sent[0].opcode, again.settled, readsThrough.settled]).toEqual([OP_WRITE, 0, 1]);
    await rig.complete();
    done(again, readsThrough);
    for (const caller of [reader, writer, again, readsThrough]) rig.release(caller);
    expect(rig.leak).toBeUndefined();
  });
});

describe('transfers', () => {
  for (const alignment of [512, 4096]) {
    it(`that stop short go on at the last multiple of ${alignment}`, async () => {
      const rig = new Rig({ alignment });
      const caller = await rig.askNow(0, 4);
      await rig.complete(undefined, 5000);
      const resumed = alignment === 512 ? 4608 : 4096;
      expect(rig.engine.sent.map(({ position, length }) => [position, length])).toEqual([[resumed, 16384 - resumed]]);
      await rig.complete(undefined, 16384 - resumed - alignment);
      expect(rig.engine.sent.map(({ position, length }) => [position, length])).toEqual([[16384 - alignment, alignment]]);
      expect(caller.settled).toBe(0);
      await rig.complete();
      done(caller);
      expect(rig.holdsContent(caller)).toBe(true);
    });
  }

  it('of any lengths, in any order, end with the device’s bytes', async () => {
    const range = fc.tuple(fc.nat({ max: 60 }), fc.integer({ min: 1, max: 20 }));
    await fc.assert(
      fc.asyncProperty(
        fc.array(range, { minLength: 1, maxLength: 12 }),
        fc.infiniteStream(fc.nat()),
        fc.constantFrom(512, 4096),
        async (ranges, numbers, alignment) => {
          const rig = new Rig({
            alignment,
            gapLimit: 8 * KIB,
            transferLimit: 32 * KIB,
            mergeLimit: 32 * KIB,
            slotBlocks: 4,
            depth: 5,
            size: 70 * BLOCK_BYTES - 700,
          });
          const draw = (below: number): number => numbers.next().value % below;
          const callers: Asked[] = [];
          for (const [first, count] of ranges) {
            callers.push(rig.ask(first, Math.min(count, 70 - first)));
            if (draw(2) === 0) await turn();
            if (rig.engine.sent.length > 0 && draw(2) === 0) {
              const entry = rig.engine.sent[draw(rig.engine.sent.length)];
              const readable = Math.min(entry.length, rig.committedSize - entry.position);
              await rig.complete([entry], draw(2) === 0 ? readable : draw(readable));
            }
            // Disjoint, always.
            const spans = rig.engine.sent.map(({ position, length }) => [position, position + length]).sort((a, b) => a[0] - b[0]);
            for (let i = 1; i < spans.length; i++) expect(spans[i][0]).toBeGreaterThanOrEqual(spans[i - 1][1]);
          }
          await rig.run(({ position, length }) => Math.min(length, rig.committedSize - position));
          done(...callers);
          for (const caller of callers) expect(rig.holdsContent(caller)).toBe(true);
          for (const caller of callers) rig.release(caller);
          expect(rig.leak).toBeUndefined();
          for (const { length, position } of rig.engine.history) {
            expect(length).toBeLessThanOrEqual(32 * KIB);
            expect([length % alignment, position % alignment]).toEqual([0, 0]);
          }
        },
      ),
      { numRuns: 150 },
    );
  });

  it('end at the end of the file, and what lies beyond is zeros', async () => {
    const rig = new Rig({ size: 5000 });
    const caller = rig.ask(0, 3);
    // What was in the frames before must not be seen.
    for (const bytes of rig.frames.shared) bytes.fill(0xee);
    await turn();
    expect(rig.engine.sent.map(({ position, length }) => [position, length])).toEqual([[0, 5120]]);
    await rig.complete(undefined, 5000);
    done(caller);
    const second = rig.frames.bytesOf(rig.frames.find(1));
    expect(second[5000 - 4096 - 1]).not.toBe(0);
    expect(second.subarray(5000 - 4096).every((byte) => byte === 0)).toBe(true);
    expect(rig.frames.bytesOf(rig.frames.find(2)).every((byte) => byte === 0)).toBe(true);
  });

  it('wholly beyond the end of the file are not sent', async () => {
    const rig = new Rig({ size: 4096 });
    const caller = await rig.askNow(1, 4);
    await turn();
    done(caller);
    expect(rig.engine.history).toEqual([]);
    expect(rig.frames.bytesOf(rig.frames.find(3)).every((byte) => byte === 0)).toBe(true);
  });

  it('that stop where the file ends by now are done', async () => {
    const rig = new Rig({ size: 16384 });
    const caller = await rig.askNow(0, 4);
    rig.committedSize = 6000;
    await rig.complete(undefined, 6000);
    done(caller);
    expect(rig.frames.bytesOf(rig.frames.find(3)).every((byte) => byte === 0)).toBe(true);
  });

  it('never outnumber the entries of the ring', async () => {
    const rig = new Rig({ depth: 3, mergeLimit: 4096 });
    const caller = await rig.askNow(0, 20);
    expect(rig.inFlight).toEqual(['0+1', '1+1', '2+1']);
    await rig.complete([rig.engine.sent[1]]);
    expect(rig.inFlight).toEqual(['0+1', '2+1', '3+1']);
    await rig.run();
    done(caller);
    expect(rig.engine.history.every(({ opcode }) => opcode === OP_READ)).toBe(true);
  });
});
