/** Who is settled when, with what, and who never: failures, the line, giving up, blocking calls. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { OP_DISCARD, OP_SYNC, OP_WRITE } from '../../src/io/engine.js';
import { BLOCK_BYTES } from '../../src/memory/block-store.js';
import { type Caller, RETRIES_MAX } from '../../src/requests/request-manager.js';
import { type Asked, KIB, type Need, Rig } from './manager-rig.js';
import { type Sent, turn } from './manual-engine.js';

const EIO = -5;
const EAGAIN = -11;
const ENODEV = -19;

function done(...callers: Asked[]): void {
  for (const caller of callers) expect([caller.settled, caller.error]).toEqual([1, undefined]);
}

function failed(caller: Asked, code: string): void {
  expect([caller.settled, (caller.error as NodeJS.ErrnoException | undefined)?.code]).toEqual([1, code]);
}

function releaseAll(rig: Rig, callers: readonly Asked[]): void {
  for (const caller of callers) if (caller.settled === 1 && caller.error === undefined) rig.release(caller);
}

/** A medium where these sectors cannot be read. */
function badAt(...sectors: number[]): (entry: Sent) => number {
  return ({ position, length }) => (sectors.some((sector) => sector * 512 >= position && sector * 512 < position + length) ? EIO : length);
}

describe('an operation that fails', () => {
  for (const alignment of [512, 4096]) {
    it(`fails only who needs the bad sector, where the device reads ${alignment} bytes at least`, async () => {
      const rig = new Rig({ alignment });
      const bad = 8 * 5 + 3;
      const callers = Array.from({ length: 12 }, (_, block) => rig.ask(block));
      const over = rig.ask(2, 8);
      await rig.run(badAt(bad));
      failed(over, 'EIO');
      for (const [block, caller] of callers.entries()) {
        if (block === 5) failed(caller, 'EIO');
        else done(caller);
      }
      expect(rig.engine.history.every(({ length }) => length % alignment === 0)).toBe(true);
      releaseAll(rig, [...callers, over]);
      expect(rig.leak).toBeUndefined();
    });
  }

  it('is asked down to the sector, so that the good part of a bad block can be had', async () => {
    const rig = new Rig({ alignment: 512 });
    const bad = 8 + 3;
    const [low, high, whole] = [
      rig.ask(1, 1, { needFirst: 0b00000111, needLast: 0b00000111 }),
      rig.ask(1, 1, { needFirst: 0b11110000, needLast: 0b11110000 }),
      rig.ask(0, 3),
    ];
    await rig.run(badAt(bad));
    done(low, high);
    failed(whole, 'EIO');
    const error = whole.error as unknown as { offset: number; length: number; path: string };
    expect([error.path, error.offset, error.length]).toEqual(['/a/file', bad * 512, 512]);
    expect(rig.frames.validOf(rig.frames.find(1))).toBe(0b11110111);
  });

  it('finds any set of bad sectors, whoever asks for what', async () => {
    const range = fc.record({
      first: fc.nat({ max: 40 }),
      count: fc.integer({ min: 1, max: 12 }),
      needFirst: fc.integer({ min: 1, max: 255 }),
      needLast: fc.integer({ min: 1, max: 255 }),
      direct: fc.boolean(),
    });
    await fc.assert(
      fc.asyncProperty(
        fc.array(range, { minLength: 1, maxLength: 10 }),
        fc.uniqueArray(fc.nat({ max: 55 * 8 }), { maxLength: 6 }),
        fc.constantFrom(512, 4096),
        fc.boolean(),
        async (ranges, bad, alignment, atOnce) => {
          const rig = new Rig({ alignment, gapLimit: 16 * KIB, slotBlocks: 5, transferLimit: 64 * KIB });
          const callers: Asked[] = [];
          for (const { first, count, needFirst, needLast, direct } of ranges) {
            // Of one block both ends are the same sectors.
            callers.push(rig.ask(first, count, { needFirst, needLast: count === 1 ? needFirst : needLast, direct }));
            if (!atOnce) await turn();
          }
          await rig.run(badAt(...bad));
          const unit = alignment / 512;
          const spoilt = new Set(bad.flatMap((sector) => Array.from({ length: unit }, (_, i) => sector - (sector % unit) + i)));
          for (const [place, caller] of callers.entries()) {
            let hit = false;
            for (let i = 0; i < caller.count; i++) {
              const need = i === 0 ? caller.needFirst : i === caller.count - 1 ? caller.needLast : 0xff;
              for (let bit = 0; bit < 8; bit++) if (need & (1 << bit) && spoilt.has((caller.first + i) * 8 + bit)) hit = true;
            }
            expect([caller.settled, caller.error !== undefined], `caller ${place}`).toEqual([1, hit]);
          }
          releaseAll(rig, callers);
          expect(rig.leak).toBeUndefined();
        },
      ),
      { numRuns: 150 },
    );
  });

  it('is not asked again in pieces where the whole device is gone', async () => {
    const rig = new Rig();
    const callers = [rig.ask(0, 4), rig.ask(2, 4)];
    await rig.run(() => ENODEV);
    for (const caller of callers) failed(caller, 'ENODEV');
    expect(rig.engine.history.length).toBe(1);
    expect(rig.leak).toBeUndefined();
  });

  it('can be read again later', async () => {
    const rig = new Rig();
    const first = rig.ask(0, 2);
    await rig.run(() => EIO);
    failed(first, 'EIO');
    const second = rig.ask(0, 2);
    await rig.run();
    done(second);
    expect(rig.holdsContent(second)).toBe(true);
  });

  it('is sent again after EAGAIN, ENOMEM, EINTR and EBUSY, so often and no more', async () => {
    for (const [code, name] of [
      [EAGAIN, 'EAGAIN'],
      [-12, 'ENOMEM'],
      [-4, 'EINTR'],
      [-16, 'EBUSY'],
    ] as const) {
      const rig = new Rig();
      let left = RETRIES_MAX;
      const patient = rig.ask(0);
      await rig.run((entry) => (left-- > 0 ? code : entry.length));
      done(patient);
      expect(rig.engine.history.length).toBe(RETRIES_MAX + 1);
      const hopeless = rig.ask(1);
      await rig.run(() => code);
      failed(hopeless, name);
      expect(rig.engine.history.length).toBe(2 * (RETRIES_MAX + 1));
    }
  });

  it('may stand still so often only, but as often again after each step', async () => {
    const rig = new Rig();
    let calls = 0;
    const caller = rig.ask(0, 2);
    await rig.run((entry) => (++calls % RETRIES_MAX === 0 ? Math.min(512, entry.length) : 0));
    done(caller);
    expect(rig.engine.history.length).toBe(16 * RETRIES_MAX);
    const stuck = rig.ask(9);
    await rig.run(() => 0);
    failed(stuck, 'EIO');
  });

  it('leaves the handles of its earlier tries behind', async () => {
    const rig = new Rig();
    const caller = await rig.askNow(0, 2);
    const [first] = rig.engine.sent;
    await rig.complete([first], EAGAIN);
    rig.engine.post(first.handle, 8192);
    await rig.engine.wake();
    expect([caller.settled, rig.engine.sent.length]).toEqual([0, 1]);
    await rig.complete();
    done(caller);
    rig.engine.post(first.handle, EIO);
    await rig.engine.wake();
    rig.release(caller);
    expect(rig.leak).toBeUndefined();
  });

  it('splits a write too, and tells its owner which part did not go', async () => {
    const rig = new Rig();
    const caller = rig.ask(0, 8);
    await rig.run();
    const frame = rig.frames.find(0);
    const ends: [number, number, number][] = [];
    let pending = 1;
    rig.manager.write(0, 64, rig.frames.slabOf(frame), rig.frames.offsetOf(frame), {
      operationSplit: () => {
        pending++;
      },
      operationEnded: (start, sectors, result) => {
        ends.push([start, sectors, result]);
        pending--;
      },
    });
    await rig.run(badAt(19));
    expect(pending).toBe(0);
    expect(ends.filter(([, , result]) => result < 0)).toEqual([[19, 1, EIO]]);
    expect(ends.reduce((sum, [, sectors]) => sum + sectors, 0)).toBe(64);
    rig.release(caller);
    expect(rig.leak).toBeUndefined();
  });
});

describe('the line', () => {
  it('is served in order, and nobody overtakes, however little he wants', async () => {
    const rig = new Rig({ frames: 8 });
    rig.pressure = true;
    const first = await rig.askNow(0, 6);
    const large = rig.ask(10, 4);
    const small = rig.ask(20, 1);
    const smaller = rig.ask(30, 1, { needFirst: 1, needLast: 1 });
    await turn();
    expect([rig.inFlight, rig.manager.waiting]).toEqual([['0+6'], 3]);
    await rig.complete();
    done(first);
    expect(rig.manager.waiting).toBe(3);
    // What the first has is still held, so the large one has no room yet, and those behind it wait although they had.
    rig.release(first);
    await turn();
    expect(rig.inFlight).toEqual(['10+4', '20+1', '30+1']);
    await rig.run();
    done(large, small, smaller);
  });

  it('pins nothing of the room that was promised to blocks without memory yet', async () => {
    const rig = new Rig({ frames: 4 });
    const known = rig.ask(0);
    await rig.run();
    rig.release(known);
    // The three take what is free and the one frame that is idle; the fourth wants that very one to stay.
    const [large, hit] = [rig.ask(10, 4), rig.ask(0)];
    rig.pressure = true;
    await rig.run();
    done(large);
    rig.release(large);
    await rig.run();
    done(hit);
  });

  it('waits while there is hope, and refuses by name when there is none', async () => {
    const rig = new Rig({ frames: 4 });
    const holder = rig.ask(0, 3);
    await rig.run();
    rig.pressure = true;
    const waiting = await rig.askNow(10, 2);
    expect([waiting.settled, rig.manager.waiting]).toEqual([0, 1]);
    rig.pressure = false;
    rig.manager.schedule();
    await turn();
    failed(waiting, 'ERR_SECTORWISE_CACHE_FULL');
    rig.release(holder);
    const again = rig.ask(10, 2);
    await rig.run();
    done(again);
  });

  it('holds nothing for who waits, so that two who need more than half do not block each other', async () => {
    const rig = new Rig({ frames: 8, slots: 4, slotBlocks: 2 });
    const [a, b] = [rig.ask(0, 6), rig.ask(100, 6)];
    await turn();
    expect([rig.inFlight, rig.manager.waiting]).toEqual([['0+6'], 1]);
    expect(rig.frames.census().pinned).toBe(6);
    rig.pressure = true;
    await rig.complete();
    done(a);
    rig.release(a);
    await rig.run();
    done(b);
    rig.release(b);
    expect(rig.leak).toBeUndefined();
  });

  it('waits for slots too: a request takes as many as it needs or none', async () => {
    const rig = new Rig({ slots: 3, slotBlocks: 4, mergeLimit: 16 * KIB });
    const long = await rig.askNow(0, 12);
    const { slots } = rig.manager;
    expect(slots.slots - slots.freeCount).toBe(3);
    const next = await rig.askNow(50, 5);
    expect([rig.manager.waiting, slots.slots - slots.freeCount]).toEqual([1, 3]);
    await rig.complete([rig.engine.sent[0], rig.engine.sent[1]]);
    // Slots of one request come back together.
    expect([long.settled, slots.slots - slots.freeCount]).toEqual([0, 3]);
    await rig.complete([rig.engine.sent[0]]);
    done(long);
    await rig.run();
    done(next);
    releaseAll(rig, [long, next]);
    expect(rig.leak).toBeUndefined();
  });

  it('serves blocks that are in memory in their turn, without slots', async () => {
    const rig = new Rig({ slots: 1 });
    const first = rig.ask(0, 4);
    await rig.run();
    const again = rig.ask(1, 2);
    expect(again.settled).toBe(0);
    await turn();
    done(first, again);
    expect(rig.engine.history.length).toBe(1);
  });

  it('empties in order, whatever the sizes, and leaves nothing behind', async () => {
    const wish = fc.tuple(fc.nat({ max: 30 }), fc.integer({ min: 1, max: 8 }), fc.boolean());
    await fc.assert(
      fc.asyncProperty(
        fc.array(wish, { minLength: 2, maxLength: 30 }),
        fc.integer({ min: 2, max: 6 }),
        fc.integer({ min: 8, max: 20 }),
        async (wishes, slots, frames) => {
          const rig = new Rig({ slots, slotBlocks: 4, frames, depth: 2, gapLimit: 8 * KIB });
          rig.pressure = true;
          const granted: Asked[] = [];
          const callers = wishes.map(([first, count, store]) => {
            const caller = rig.ask(first, count, { store, direct: first % 2 === 0 });
            const settle = caller.settle;
            // Who is served gives its pins back at once, or nobody else would ever be.
            caller.settle = function (this: Caller, error) {
              settle.call(caller, error);
              granted.push(caller);
              if (error === undefined) rig.release(caller);
            };
            return caller;
          });
          await rig.run();
          done(...callers);
          expect(granted.length).toBe(callers.length);
          expect(rig.leak).toBeUndefined();
        },
      ),
      { numRuns: 100 },
    );
  });

  it('can be sent away', async () => {
    const rig = new Rig({ frames: 4 });
    const served = await rig.askNow(0, 4);
    const waiting = [rig.ask(10, 2), rig.ask(20, 2)];
    await turn();
    rig.manager.refuseLine(() => Object.assign(new Error('closed'), { code: 'CLOSED' }));
    expect(waiting.map((caller) => caller.settled)).toEqual([0, 0]);
    await rig.run();
    done(served);
    for (const caller of waiting) failed(caller, 'CLOSED');
  });
});

describe('giving up', () => {
  it('in line leaves the line to the others', async () => {
    const rig = new Rig({ frames: 4 });
    rig.pressure = true;
    const first = await rig.askNow(0, 4);
    const [gone, next] = [rig.ask(10, 4), rig.ask(20, 1)];
    await turn();
    rig.manager.abandon(gone);
    rig.manager.abandon(gone);
    await rig.complete();
    rig.release(first);
    await rig.run();
    expect(gone.settled).toBe(0);
    done(next);
    rig.release(next);
    expect([rig.leak, rig.manager.waiting]).toEqual([undefined, 0]);
  });

  it('before anything was sent sends nothing', async () => {
    const rig = new Rig();
    rig.manager.abandon(rig.ask(0, 4));
    await turn();
    expect([rig.engine.history.length, rig.leak]).toEqual([0, undefined]);
  });

  it('on the way frees slots at once, and memory when the device has let go of it', async () => {
    const rig = new Rig({ frames: 4, slots: 1 });
    const gone = await rig.askNow(0, 4);
    const frames = [0, 1, 2, 3].map((block) => rig.frames.find(block));
    rig.manager.abandon(gone);
    expect(rig.manager.slots.freeCount).toBe(2);
    expect(rig.frames.census()).toMatchObject({ pinned: 0, busy: 4, room: 0 });
    const next = await rig.askNow(10, 2);
    // Its slot is there, the memory is not: it belongs to the device still.
    expect([rig.inFlight, rig.manager.waiting]).toEqual([['0+4'], 1]);
    for (const [block, frame] of frames.entries()) expect(rig.frames.find(block)).toBe(frame);
    await rig.complete();
    expect(gone.settled).toBe(0);
    expect(rig.inFlight).toEqual(['10+2']);
    await rig.complete();
    done(next);
    rig.release(next);
    expect(rig.leak).toBeUndefined();
  });

  it('leaves those alone who joined', async () => {
    const rig = new Rig();
    const gone = await rig.askNow(0, 4);
    const joined = await rig.askNow(2, 4);
    rig.manager.abandon(gone);
    const again = await rig.askNow(0, 4);
    expect(rig.inFlight).toEqual(['0+4', '4+2']);
    await rig.run();
    done(joined, again);
    expect(gone.settled).toBe(0);
    expect(rig.holdsContent(again)).toBe(true);
    releaseAll(rig, [joined, again]);
    expect(rig.leak).toBeUndefined();
  });

  it('is not mistaken for whoever has the slot next', async () => {
    const rig = new Rig({ slots: 1 });
    const gone = await rig.askNow(0, 2);
    const [old] = rig.engine.sent;
    rig.manager.abandon(gone);
    const next = await rig.askNow(50, 2);
    await rig.complete([old]);
    expect([gone.settled, next.settled]).toEqual([0, 0]);
    await rig.complete();
    done(next);
  });

  it('while its operation is being split, or sent again, changes nothing for the others', async () => {
    for (const result of [EIO, EAGAIN, 4096]) {
      const rig = new Rig();
      const [gone, other] = [rig.ask(0, 4), rig.ask(3, 4)];
      await turn();
      await rig.complete(undefined, result);
      rig.manager.abandon(gone);
      await rig.run();
      done(other);
      expect(gone.settled).toBe(0);
      rig.release(other);
      expect(rig.leak).toBeUndefined();
    }
  });

  it('by the decision of another who is told first in the same turn is not told any more', async () => {
    for (const result of [undefined, ENODEV]) {
      const rig = new Rig();
      const callers = [rig.ask(0, 2), rig.ask(2, 2), rig.ask(1, 2)];
      // Whoever comes first gives the others up, as a read of several pieces does when one fails.
      for (const caller of callers) {
        const settle = caller.settle;
        caller.settle = (error) => {
          settle.call(caller, error);
          for (const other of callers) if (other !== caller) rig.manager.abandon(other);
        };
      }
      await turn();
      await rig.complete(undefined, result);
      expect(callers.reduce((sum, caller) => sum + caller.settled, 0)).toBe(1);
      releaseAll(rig, callers);
      expect(rig.leak).toBeUndefined();
    }
  });

  it('after it was settled does nothing', async () => {
    const rig = new Rig();
    const caller = rig.ask(0);
    await rig.run();
    rig.manager.abandon(caller);
    expect(rig.frames.census().pinned).toBe(1);
    rig.release(caller);
    expect(rig.leak).toBeUndefined();
  });

  it('at any moment, with any results, ends every other request once and leaks nothing', async () => {
    const step = fc.oneof(
      {
        weight: 4,
        arbitrary: fc.record({
          kind: fc.constant('ask' as const),
          first: fc.nat({ max: 30 }),
          count: fc.integer({ min: 1, max: 7 }),
          store: fc.boolean(),
          which: fc.nat(),
        }),
      },
      { weight: 2, arbitrary: fc.record({ kind: fc.constant('abandon' as const), which: fc.nat() }) },
      {
        weight: 4,
        arbitrary: fc.record({
          kind: fc.constant('complete' as const),
          which: fc.nat(),
          result: fc.constantFrom<'all' | 'part' | number>('all', 'part', EIO, EAGAIN, ENODEV),
        }),
      },
      { weight: 1, arbitrary: fc.record({ kind: fc.constant('late' as const), which: fc.nat() }) },
      { weight: 2, arbitrary: fc.record({ kind: fc.constant('turn' as const) }) },
    );
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 60 }), fc.constantFrom(512, 4096), async (steps, alignment) => {
        const rig = new Rig({ frames: 24, slots: 6, slotBlocks: 3, depth: 4, gapLimit: 8 * KIB, transferLimit: 20 * KIB, alignment });
        rig.pressure = true;
        const asked: Asked[] = [];
        const abandoned = new Set<Asked>();
        const completedHandles: number[] = [];
        for (const each of steps) {
          if (each.kind === 'ask') {
            const need: Need = each.store
              ? { store: true, needFirst: each.which % 256, needMiddle: 0, needLast: each.which % 256 }
              : { direct: each.which % 2 === 0 };
            const caller = rig.ask(each.first, each.count, need);
            const settle = caller.settle;
            caller.settle = (error) => {
              settle.call(caller, error);
              // A frame under the device must not be anybody's who was told that it is ready for a store.
              if (error !== undefined) return;
              if (each.store) for (let i = 0; i < caller.count; i++) expect(rig.frames.isBusy(rig.frames.find(caller.first + i))).toBe(false);
              rig.release(caller);
            };
            asked.push(caller);
          } else if (each.kind === 'abandon' && asked.length > 0) {
            const caller = asked[each.which % asked.length];
            if (caller.direct) continue;
            if (caller.settled === 0) abandoned.add(caller);
            rig.manager.abandon(caller);
          } else if (each.kind === 'complete' && rig.engine.sent.length > 0) {
            const entry = rig.engine.sent[each.which % rig.engine.sent.length];
            completedHandles.push(entry.handle);
            const result = each.result === 'all' ? entry.length : each.result === 'part' ? each.which % entry.length : each.result;
            await rig.complete([entry], result);
          } else if (each.kind === 'late' && completedHandles.length > 0) {
            const handle = completedHandles[each.which % completedHandles.length];
            if (rig.engine.sent.some((entry) => entry.handle === handle)) continue;
            rig.engine.post(handle, 4096);
            await rig.engine.wake();
          } else {
            await turn();
          }
          // What is in flight keeps its frames: never two operations on one piece of memory, and each piece under the block that it is read for.
          for (const { position, offset, slab } of rig.engine.sent) {
            const frame = rig.frames.find(Math.floor(position / BLOCK_BYTES));
            expect([rig.frames.slabOf(frame), rig.frames.offsetOf(frame) + (position % BLOCK_BYTES)]).toEqual([slab, offset]);
          }
        }
        await rig.run();
        for (const caller of asked) expect(caller.settled).toBe(abandoned.has(caller) ? 0 : 1);
        expect(rig.leak).toBeUndefined();
      }),
      { numRuns: 300 },
    );
  });
});

describe('a caller that is never abandoned, for one absent block', () => {
  it('waits without a slot of its own, but counts as one that has it', async () => {
    const rig = new Rig({ slots: 2 });
    const callers = [rig.ask(0, 1, { direct: true }), rig.ask(8, 1, { direct: true }), rig.ask(16, 1, { direct: true }), rig.ask(24)];
    await turn();
    expect([rig.inFlight, rig.manager.waiting, rig.manager.slots.freeCount]).toEqual([['0+1', '8+1'], 2, 1]);
    expect(callers.map(({ handle }) => handle)).toEqual([0, 0, 0, 0]);
    await rig.run();
    done(...callers);
    for (const caller of callers) expect(rig.holdsContent(caller)).toBe(true);
    releaseAll(rig, callers);
    expect(rig.leak).toBeUndefined();
  });

  it('shares an operation with its neighbours and with those who join it later', async () => {
    const rig = new Rig();
    const callers = [
      rig.ask(3, 1, { direct: true }),
      rig.ask(5, 1, { direct: true }),
      rig.ask(4, 1, { direct: true }),
      rig.ask(5, 1, { direct: true }),
      rig.ask(9, 1, { direct: true }),
    ];
    await turn();
    callers.push(rig.ask(9, 1, { direct: true }), rig.ask(8, 3));
    await turn();
    expect(rig.inFlight).toEqual(['3+3', '9+1', '8+1', '10+1']);
    expect(rig.manager.counts.joined).toBe(2);
    await rig.run();
    done(...callers);
    releaseAll(rig, callers);
    expect(rig.leak).toBeUndefined();
  });

  it('fails by the sectors that it needs, and by those alone', async () => {
    const rig = new Rig();
    const [needs, doesNot] = [
      rig.ask(1, 1, { needFirst: 0b100, needLast: 0b100, direct: true }),
      rig.ask(7, 1, { needFirst: 0b1, needLast: 0b1, direct: true }),
    ];
    await rig.run(badAt(8 + 2, 56 + 2));
    failed(needs, 'EIO');
    done(doesNot);
    rig.release(doesNot);
    expect(rig.leak).toBeUndefined();
  });

  it('is told when the ground is gone, whether its operation was sent or not', async () => {
    const rig = new Rig({ depth: 1 });
    const callers = [rig.ask(0, 1, { direct: true }), rig.ask(8, 1, { direct: true, end: 9 * 4096 }), rig.ask(16, 1, { direct: true })];
    await turn();
    rig.manager.failBehind(8 * 4096, () => Object.assign(new Error('behind'), { code: 'BEHIND' }));
    await turn();
    expect(callers.map(({ settled }) => settled)).toEqual([0, 1, 0]);
    failed(callers[1], 'BEHIND');
    rig.manager.fail(() => Object.assign(new Error('gone'), { code: 'GONE' }));
    await turn();
    for (const caller of [callers[0], callers[2]]) failed(caller, 'GONE');
    await rig.run();
    expect(rig.leak).toBeUndefined();
  });
});

describe('completions of nobody', () => {
  it('are dropped: late ones, doubled ones, and such as were never asked for', async () => {
    const rig = new Rig();
    const caller = await rig.askNow(0, 2);
    const [entry] = rig.engine.sent;
    rig.engine.post(0, 0);
    rig.engine.post(0xffffffff, 8192);
    rig.engine.post(entry.handle ^ (1 << 20), 8192);
    await rig.engine.wake();
    expect(caller.settled).toBe(0);
    rig.engine.complete(entry);
    rig.engine.post(entry.handle, 8192);
    await rig.engine.wake();
    done(caller);
    const next = await rig.askNow(10, 2);
    rig.engine.post(entry.handle, EIO);
    await rig.engine.wake();
    expect(next.settled).toBe(0);
    await rig.complete();
    done(next);
    releaseAll(rig, [caller, next]);
    expect(rig.leak).toBeUndefined();
  });
});

describe('settling', () => {
  it('never happens within the call that asks, nor within the submission that answers', async () => {
    const rig = new Rig({ size: 0 });
    const caller = rig.ask(0, 3);
    expect(caller.settled).toBe(0);
    await turn();
    done(caller);
    const again = rig.ask(0, 3);
    expect(again.settled).toBe(0);
    await turn();
    done(again);
  });

  it('lets who is told ask again at once', async () => {
    const rig = new Rig();
    let rounds = 0;
    const again = (): void => {
      const caller = rig.ask(rounds);
      const settle = caller.settle;
      caller.settle = (error) => {
        settle.call(caller, error);
        if (++rounds < 50) again();
      };
    };
    again();
    await rig.run();
    expect([rounds, rig.order.length]).toEqual([50, 50]);
  });

  it('keeps the process alive only while something is in flight', async () => {
    const rig = new Rig();
    expect(rig.engine.referenced).toBe(false);
    await rig.askNow(0);
    expect(rig.engine.referenced).toBe(true);
    await rig.complete();
    expect(rig.engine.referenced).toBe(false);
  });

  it('says when nothing is on its way any more', async () => {
    const rig = new Rig();
    let idle = 0;
    rig.manager.whenIdle(() => idle++);
    expect(idle).toBe(1);
    await rig.askNow(0);
    rig.manager.whenIdle(() => idle++);
    await turn();
    expect(idle).toBe(1);
    await rig.complete();
    expect(idle).toBe(2);
  });
});

describe('a caller that is going to store', () => {
  it('waits also for what others began on its blocks after it was granted', async () => {
    const rig = new Rig();
    // The middle needs no reading: it is stored over. A read that comes later does not know.
    const store = await rig.askNow(0, 3, { needFirst: 1, needMiddle: 0, needLast: 1, store: true });
    const reader = await rig.askNow(1);
    expect(rig.inFlight).toEqual(['0+1', '2+1', '1+1']);
    await rig.complete(rig.engine.sent.slice(0, 2));
    expect([store.settled, reader.settled]).toEqual([0, 0]);
    await rig.complete();
    done(store, reader);
    releaseAll(rig, [store, reader]);
    expect(rig.leak).toBeUndefined();
  });

  it('gives up as well while it waits once more', async () => {
    const rig = new Rig();
    const store = await rig.askNow(0, 3, { needFirst: 1, needMiddle: 0, needLast: 1, store: true });
    const reader = await rig.askNow(1);
    await rig.complete(rig.engine.sent.slice(0, 2));
    rig.manager.abandon(store);
    await rig.run();
    expect(store.settled).toBe(0);
    done(reader);
    rig.release(reader);
    expect(rig.leak).toBeUndefined();
  });
});

describe('excluding a range', () => {
  it('waits for what is on its way there, and begins nothing until it is readmitted', async () => {
    const rig = new Rig();
    const before = await rig.askNow(4, 4);
    const log: string[] = [];
    rig.manager.exclude(40, 48, () => {
      log.push('clear');
      const operationEnded = (): void => {
        log.push('punched');
        rig.manager.readmit();
      };
      rig.manager.control({ opcode: OP_DISCARD, position: 20480, length: 4096 }, { operationEnded, operationSplit: () => {} });
    });
    const [inside, outside] = [rig.ask(5, 4), rig.ask(20)];
    await turn();
    expect([log, inside.settled, rig.inFlight]).toEqual([[], 0, ['4+4']]);
    await rig.complete();
    expect([log, before.settled, inside.settled]).toEqual([['clear'], 1, 0]);
    expect(rig.engine.sent.map(({ opcode }) => opcode)).toEqual([OP_DISCARD]);
    // Memory of the block before it is still there; the rest of what it asked for is read only now.
    await rig.complete();
    expect([log, rig.inFlight]).toEqual([
      ['clear', 'punched'],
      ['8+1', '20+1'],
    ]);
    await rig.run();
    done(before, inside, outside);
  });
});

describe('control operations', () => {
  it('carry their arguments, beyond 32 bits too, and end with what the call returned', async () => {
    const rig = new Rig();
    const results: number[] = [];
    const owner = { operationEnded: (_start: number, _sectors: number, result: number) => results.push(result), operationSplit: () => {} };
    rig.manager.control({ opcode: OP_SYNC, position: 5 * 2 ** 32 + 7, length: 3 * 2 ** 32 + 9 }, owner);
    await turn();
    expect(rig.engine.sent).toMatchObject([{ opcode: OP_SYNC, position: 5 * 2 ** 32 + 7, length: 9, offset: 3 }]);
    await rig.complete(undefined, EAGAIN);
    expect([results, rig.engine.sent.length]).toEqual([[], 1]);
    await rig.complete(undefined, EIO);
    expect(results).toEqual([EIO]);
    expect(rig.leak).toBeUndefined();
  });
});

describe('blocking calls', () => {
  it('have a slot of their own when all others are taken', async () => {
    const rig = new Rig({ slots: 1 });
    const first = await rig.askNow(0, 4);
    const waiting = await rig.askNow(50);
    expect(rig.manager.waiting).toBe(1);
    const blocking = rig.caller(100, 1, { blocking: true });
    expect(rig.manager.requestNow(blocking)).toBe(true);
    rig.engine.onWait = () => rig.engine.complete(rig.engine.sent.find(({ position }) => position === 100 * BLOCK_BYTES)!);
    while (blocking.settled === 0) rig.manager.progress();
    done(blocking);
    expect([first.settled, waiting.settled]).toEqual([0, 0]);
    await rig.run();
    done(first, waiting);
  });

  it('join what is on its way', async () => {
    const rig = new Rig();
    const first = await rig.askNow(0, 4);
    const blocking = rig.caller(2, 4, { blocking: true });
    expect(rig.manager.requestNow(blocking)).toBe(true);
    expect(rig.inFlight).toEqual(['0+4', '4+2']);
    rig.engine.onWait = () => rig.engine.complete(rig.engine.sent[0]);
    while (blocking.settled === 0) rig.manager.progress();
    done(first, blocking);
  });

  it('see their bytes when the reserve is all the memory that is left', async () => {
    const rig = new Rig({ frames: 4 });
    const holder = rig.ask(0, 4);
    await rig.run();
    rig.frames.useReserve = true;
    const blocking = rig.caller(100, 8, { blocking: true });
    expect(rig.manager.requestNow(blocking)).toBe(true);
    rig.frames.useReserve = false;
    rig.engine.onWait = () => rig.engine.complete(rig.engine.sent[0]);
    while (blocking.settled === 0) rig.manager.progress();
    done(blocking);
    expect(rig.holdsContent(blocking)).toBe(true);
    releaseAll(rig, [holder, blocking]);
    expect(rig.leak).toBeUndefined();
  });

  it('throw rather than wait for nothing', () => {
    const rig = new Rig();
    expect(() => rig.manager.progress()).toThrow(expect.objectContaining({ code: 'ERR_SECTORWISE_ASSERTION' }));
  });
});

describe('writes', () => {
  it('go out as they were asked for, from where they lie', async () => {
    const rig = new Rig();
    const caller = rig.ask(2 ** 30, 2);
    await rig.run();
    const frame = rig.frames.find(2 ** 30);
    rig.frames.bytesOf(frame, 2).fill(7);
    const ends: number[][] = [];
    rig.manager.write(2 ** 33 + 1, 12, rig.frames.slabOf(frame), rig.frames.offsetOf(frame) + 512, {
      operationEnded: (start, sectors, result) => ends.push([start, sectors, result]),
      operationSplit: () => {},
    });
    await turn();
    expect(rig.engine.sent).toMatchObject([{ opcode: OP_WRITE, position: 2 ** 42 + 512, length: 6144 }]);
    await rig.complete(undefined, 1000);
    expect(rig.engine.sent).toMatchObject([{ opcode: OP_WRITE, position: 2 ** 42 + 1024, length: 5632 }]);
    await rig.complete();
    expect(ends).toEqual([[2 ** 33 + 1, 12, 0]]);
    expect(rig.engine.written.at(-1)!.bytes.every((byte) => byte === 7)).toBe(true);
    rig.release(caller);
    expect(rig.leak).toBeUndefined();
  });
});

describe('when the ground is gone', () => {
  const gone = (caller: Caller): Error => Object.assign(new Error(`no block ${caller.first}`), { code: 'GONE' });

  it('tells who waits for an operation, who stands in line, who was served and not told, and whoever asks from then on', async () => {
    const rig = new Rig({ frames: 4, depth: 1 });
    const [flying, queued] = [rig.ask(0, 2), rig.ask(8)];
    await turn();
    const line = rig.ask(20, 4);
    await turn();
    rig.engine.complete(rig.engine.sent[0]);
    rig.manager.progress();
    done(flying);
    const served = rig.caller(0);
    rig.manager.request(served);
    rig.manager.fail(gone);
    const late = rig.ask(30);
    expect([queued.settled, line.settled, served.settled, late.settled]).toEqual([0, 0, 0, 0]);
    await turn();
    for (const caller of [queued, line, served, late]) failed(caller, 'GONE');
    rig.release(flying);
    await rig.run();
    expect(rig.leak).toBe(undefined);
  });

  it('gives pins and slots back at once, and the memory under an operation when its completion comes, which nobody hears of', async () => {
    const rig = new Rig();
    const callers = [rig.ask(0, 3), rig.ask(2, 3), rig.ask(40, 2, { store: true })];
    await turn();
    const settled: Asked[] = [];
    rig.manager.fail((caller) => {
      settled.push(caller as Asked);
      return gone(caller);
    });
    expect(settled).toEqual(callers);
    expect(rig.frames.census()).toMatchObject({ pinned: 0 });
    expect(rig.manager.slots.freeCount).toBe(rig.manager.slots.slots);
    expect(rig.frames.census().busy).toBeGreaterThan(0);
    expect(rig.manager.idle).toBe(false);
    await turn();
    for (const caller of callers) failed(caller, 'GONE');
    await rig.complete();
    for (const caller of callers) failed(caller, 'GONE');
    expect(rig.manager.counts.deviceReads).toBe(0);
    for (let frame = 0; frame < rig.frames.frames; frame++) expect(rig.frames.validOf(frame)).toBe(0);
    expect(rig.leak).toBe(undefined);
  });

  it('unpins who was decided and not told yet', () => {
    const rig = new Rig();
    const first = rig.caller(0);
    expect(rig.manager.requestNow(first)).toBe(true);
    rig.engine.complete(rig.engine.sent[0]);
    rig.manager.progress();
    done(first);
    const second = rig.caller(0);
    expect(rig.manager.requestNow(second)).toBe(true);
    rig.manager.fail(gone);
    rig.release(first);
    expect(rig.leak).toBe('the manager is not idle');
    rig.manager.progress();
    failed(second, 'GONE');
    expect(rig.leak).toBe(undefined);
  });

  it('ends what was not sent with ENODEV, and tells a blocking call so', () => {
    const rig = new Rig({ depth: 1 });
    const ends: number[] = [];
    const owner = { operationEnded: (_start: number, _sectors: number, result: number) => ends.push(result), operationSplit: () => {} };
    for (let i = 0; i < 3; i++) rig.manager.control({ opcode: OP_SYNC, position: 0, length: 0 }, owner);
    rig.manager.fail(gone);
    const caller = rig.caller(0);
    expect(rig.manager.requestNow(caller)).toBe(true);
    while (!rig.manager.idle) rig.manager.progress();
    expect(ends).toEqual([ENODEV, ENODEV, ENODEV]);
    failed(caller, 'GONE');
    expect(rig.engine.history).toEqual([]);
  });

  it('counts what ends without having been sent as progress: a blocking call may have waited for that alone', () => {
    const rig = new Rig();
    let ended = false;
    rig.manager.control({ opcode: OP_SYNC, position: 0, length: 0 }, { operationEnded: () => (ended = true), operationSplit: () => {} });
    rig.manager.fail(gone);
    while (!rig.manager.idle) rig.manager.progress();
    expect(ended).toBe(true);
  });

  it('calls those that wait until it is idle once the last completion came', async () => {
    const rig = new Rig();
    rig.ask(0);
    await turn();
    let idle = 0;
    rig.manager.fail(gone);
    rig.manager.whenIdle(() => idle++);
    await turn();
    expect(idle).toBe(0);
    await rig.complete();
    expect(idle).toBe(1);
  });
});

describe('when the file ends nearer than it did', () => {
  const cut = (caller: Caller): Error => Object.assign(new Error(`no block ${caller.first}`), { code: 'CUT' });

  it('tells who waits for bytes behind the end, to the byte, and nobody else', async () => {
    const rig = new Rig({ frames: 8, depth: 1 });
    const within = rig.ask(0, 2, { end: 5000 });
    const behind = rig.ask(0, 2, { end: 5001 });
    // A block of which all is needed, to be stored into, by who asked for bytes before the end.
    const store = rig.ask(1, 1, { store: true, end: 5000 });
    const change = rig.ask(1, 1, { store: true });
    const line = rig.ask(3, 6, { end: 9 * BLOCK_BYTES });
    await turn();
    rig.manager.failBehind(5000, cut);
    await turn();
    failed(behind, 'CUT');
    failed(line, 'CUT');
    await rig.run();
    done(within, store, change);
    releaseAll(rig, [within, store, change]);
    expect(rig.leak).toBe(undefined);
  });
});

describe('an operation that ends as on a lost device', () => {
  const gone = (): Error => Object.assign(new Error('gone'), { code: 'GONE' });
  type Question = { result: number; settled: () => void };

  function asking(rig: Rig): Question[] {
    const questions: Question[] = [];
    rig.suspect = (result, settled) => {
      questions.push({ result, settled });
      return true;
    };
    return questions;
  }

  it('waits for what is found out, and fails as it did if the device is there', async () => {
    const rig = new Rig();
    const questions = asking(rig);
    const caller = await rig.askNow(0);
    await rig.complete(undefined, ENODEV);
    expect([caller.settled, questions.map(({ result }) => result)]).toEqual([0, [ENODEV]]);
    questions[0].settled();
    await turn();
    failed(caller, 'ENODEV');
    expect(rig.leak).toBe(undefined);
  });

  it('fails with what a lost file says if it is gone, and its completion is not heard twice', async () => {
    const rig = new Rig();
    const questions = asking(rig);
    const caller = await rig.askNow(0);
    const [{ handle }] = rig.engine.sent;
    await rig.complete(undefined, EIO);
    rig.engine.post(handle, EIO);
    await rig.engine.wake();
    expect(questions.length).toBe(1);
    rig.manager.fail(gone);
    questions[0].settled();
    await turn();
    failed(caller, 'GONE');
    expect(rig.leak).toBe(undefined);
  });

  it('is judged by its own answer: a later one may be asked of a device that went meanwhile', async () => {
    const rig = new Rig();
    const questions = asking(rig);
    const [first, second] = [await rig.askNow(0), await rig.askNow(10)];
    await rig.complete(undefined, ENODEV);
    questions[0].settled();
    await turn();
    expect([first.settled, second.settled]).toEqual([1, 0]);
    rig.manager.fail(gone);
    await turn();
    failed(first, 'ENODEV');
    failed(second, 'GONE');
    expect(rig.leak).toBe(undefined);
  });

  it('is asked for where a transfer moves nothing inside the file, and sent again if the device is there', async () => {
    const rig = new Rig();
    const questions = asking(rig);
    const caller = await rig.askNow(0);
    await rig.complete(undefined, 0);
    expect(questions.map(({ result }) => result)).toEqual([0]);
    questions[0].settled();
    await rig.run();
    done(caller);
    rig.release(caller);
  });

  it('is not waited for by a blocking call, which looks at what can be seen at once', async () => {
    for (const lost of [false, true]) {
      const rig = new Rig();
      const questions = asking(rig);
      let looks = 0;
      rig.look = () => {
        looks++;
        if (lost) rig.manager.fail(gone);
      };
      const other = await rig.askNow(20);
      const caller = rig.caller(0, 1, { blocking: true });
      rig.engine.onWait = () => {
        for (const entry of [...rig.engine.sent]) rig.engine.complete(entry, ENODEV);
      };
      expect(rig.manager.requestNow(caller)).toBe(true);
      while (caller.settled === 0) rig.manager.progress();
      expect(looks).toBeGreaterThan(0);
      failed(caller, lost ? 'GONE' : 'ENODEV');
      for (const { settled } of questions) settled();
      await turn();
      failed(other, lost ? 'GONE' : 'ENODEV');
      expect(rig.leak).toBe(undefined);
    }
  });

  it('is progress for a blocking call when it is judged, even where nobody but its owner is told', async () => {
    const rig = new Rig();
    asking(rig);
    let result: number | undefined;
    rig.manager.control(
      { opcode: OP_SYNC, position: 0, length: 0 },
      {
        operationEnded: (_start, _sectors, end) => {
          result = end;
        },
        operationSplit: () => {},
      },
    );
    await turn();
    await rig.complete(undefined, EIO);
    while (result === undefined) rig.manager.progress();
    expect(result).toBe(EIO);
  });
});
