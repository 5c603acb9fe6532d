/** Which frames get another block: never a held one, always one that may, and in an order that a scan cannot spoil. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { BlockTable } from '../../src/memory/block-table.js';
import { Eviction } from '../../src/memory/eviction.js';
import { FrameLists } from '../../src/memory/frame-lists.js';
import { AHEAD, BLOCK_HIGH, EPOCH, FRAME_WORDS, NO_BLOCK, PINS, STATE, WRITE } from '../../src/memory/frame-record.js';
import { GhostTable } from '../../src/memory/ghost-table.js';
import { loop, scanMixed, seeded, zipf } from '../../tools/bench/cache-traces.js';

/** What the frame cache does around an eviction, and nothing else. */
class Blocks {
  readonly words: Int32Array;
  readonly table: BlockTable;
  readonly eviction: Eviction;
  readonly frames: number;
  hits = 0;
  misses = 0;

  constructor(frames: number, slabFrames = frames) {
    this.frames = frames;
    this.words = new Int32Array(frames * FRAME_WORDS);
    this.table = new BlockTable(this.words);
    this.eviction = new Eviction(this.words, frames, slabFrames);
  }

  holdsBlock(frame: number): boolean {
    return this.words[frame * FRAME_WORDS + BLOCK_HIGH] !== NO_BLOCK;
  }

  isHeld(frame: number): boolean {
    return this.words[frame * FRAME_WORDS + PINS] !== 0 || (this.words[frame * FRAME_WORDS + STATE] & (0xff00 | WRITE)) !== 0;
  }

  use(frame: number): void {
    if (((this.words[frame * FRAME_WORDS + STATE] ^ this.eviction.epoch) & (EPOCH | AHEAD)) !== 0) this.eviction.used(frame);
  }

  leave(frame: number, remember: boolean): void {
    this.eviction.leaves(frame, remember);
    this.table.remove(frame);
  }

  take(first: number, run: number, block: number, ahead = false): void {
    for (let i = 0; i < run; i++) {
      if (this.holdsBlock(first + i)) this.leave(first + i, true);
      else this.eviction.taken(first + i);
      this.table.insert(first + i, block + i);
    }
    this.eviction.entered(first, run, ahead);
  }

  ask(block: number): void {
    const frame = this.table.find(block);
    if (frame >= 0) {
      this.hits++;
      this.use(frame);
    } else {
      this.misses++;
      this.take(this.eviction.find(1), 1, block);
    }
  }
}

describe('eviction', () => {
  it('names frames that nobody holds, as long as there are any, whatever happens', () => {
    const step = fc.record({
      kind: fc.constantFrom('take', 'ahead', 'use', 'hold', 'let go', 'drop', 'anyhow'),
      which: fc.nat(),
      run: fc.integer({ min: 1, max: 5 }),
    });
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 14 }), fc.integer({ min: 1, max: 8 }), fc.array(step, { maxLength: 150 }), (size, slabFrames, steps) => {
        const blocks = new Blocks(size, slabFrames);
        let next = 0;
        for (const { kind, which, run } of steps) {
          const frame = which % size;
          const room = Array.from({ length: size }, (_, at) => at).filter((at) => !blocks.isHeld(at)).length;
          if (kind === 'take' || kind === 'ahead' || kind === 'anyhow') {
            const first = kind === 'anyhow' ? blocks.eviction.findAnyhow(run) : blocks.eviction.find(run);
            if (run === 1) expect(first >= 0).toBe(room > 0);
            if (first < 0) continue;
            expect(Math.floor(first / slabFrames)).toBe(Math.floor((first + run - 1) / slabFrames));
            expect(first + run).toBeLessThanOrEqual(size);
            for (let at = first; at < first + run; at++) expect(blocks.isHeld(at)).toBe(false);
            // Some blocks come back, so that some are remembered.
            let block = which % 3 === 0 ? which % 40 : 1000 + next;
            while (Array.from({ length: run }, (_, i) => block + i).some((one) => blocks.table.find(one) >= 0)) block = 1000 + next++;
            next += run;
            blocks.take(first, run, block, kind === 'ahead');
          } else if (kind === 'use' && blocks.holdsBlock(frame)) {
            blocks.use(frame);
          } else if (kind === 'hold' && blocks.holdsBlock(frame)) {
            if (which % 2 === 0) blocks.words[frame * FRAME_WORDS + PINS] = 1;
            else blocks.words[frame * FRAME_WORDS + STATE] |= WRITE;
          } else if (kind === 'let go') {
            blocks.words[frame * FRAME_WORDS + PINS] = 0;
            blocks.words[frame * FRAME_WORDS + STATE] &= ~WRITE;
          } else if (kind === 'drop' && blocks.holdsBlock(frame) && !blocks.isHeld(frame)) {
            blocks.leave(frame, false);
            blocks.eviction.freed(frame);
          }
        }
        // All that is left can be had, one after the other, and each once.
        const left = Array.from({ length: size }, (_, at) => at).filter((at) => !blocks.isHeld(at));
        const named: number[] = [];
        for (let i = 0; i < left.length; i++) {
          const first = blocks.eviction.find(1);
          named.push(first);
          blocks.take(first, 1, 2 ** 35 + i);
          blocks.words[first * FRAME_WORDS + PINS] = 1;
        }
        expect(named.sort((a, b) => a - b)).toEqual(left);
        expect(blocks.eviction.find(1)).toBe(-1);
      }),
      { numRuns: 150 },
    );
  });

  it('keeps what is asked for again beside a scan, which a clock does not', () => {
    const trace = scanMixed(8000, 60_000, 0.9, 1, 1);
    const blocks = new Blocks(1600);
    for (const block of trace.blocks) blocks.ask(block);
    expect(blocks.hits).toBeGreaterThan(21_000);
    expect(clockHits(trace.blocks, 1600)).toBeLessThan(18_500);
  });

  it('counts the records that a scan reads of one block as one use', () => {
    // The block that is read eight times in a row is no better than the one that is read once.
    const blocks = new Blocks(1000);
    for (let block = 0; block < 500; block++) for (let point = 0; point < 3; point++) for (let epoch = 0; epoch < 2; epoch++) blocks.ask(block);
    for (let block = 10_000; block < 20_000; block++) for (let record = 0; record < 8; record++) blocks.ask(block);
    expect(countIn(blocks, 10_000, 20_000)).toBeGreaterThan(400);
    const points = new Blocks(1000);
    for (let round = 0; round < 8; round++) for (let block = 0; block < 90; block++) points.ask(block);
    for (let round = 0; round < 8; round++) {
      for (let block = 0; block < 90; block++) points.ask(block);
      for (let block = 0; block < 1000; block++) for (let record = 0; record < 8; record++) points.ask(10_000 + round * 1000 + block);
    }
    expect(countIn(points, 0, 90)).toBe(90);
  });

  it('answers a part of a loop that is longer than the cache', () => {
    const blocks = new Blocks(1000);
    for (const block of loop(1100, 22_000).blocks) blocks.ask(block);
    expect(blocks.hits).toBeGreaterThan(11_000);
  });

  it('has the hit rates of S3-FIFO for random accesses', () => {
    const blocks = new Blocks(500);
    for (const block of zipf(5000, 50_000, 0.9, 1).blocks) blocks.ask(block);
    expect(blocks.hits).toBeGreaterThan(26_000);
  });

  it('keeps what is read ahead until as many blocks came as there are frames, then takes it first', () => {
    const blocks = new Blocks(100);
    for (let block = 0; block < 50; block++) blocks.ask(block);
    blocks.take(blocks.eviction.find(40), 40, 5000, true);
    for (let block = 100; block < 159; block++) blocks.ask(block);
    expect(countIn(blocks, 5000, 5040)).toBe(40);
    for (let block = 200; block < 241; block++) blocks.ask(block);
    expect(countIn(blocks, 5000, 5040)).toBe(0);
  });

  it('finds the run that came in together when it is the oldest, without looking far', () => {
    const blocks = new Blocks(1024);
    const firsts: number[] = [];
    for (let run = 0; run < 64; run++) {
      const first = blocks.eviction.find(64);
      firsts.push(first);
      blocks.take(first, 64, run * 1000);
    }
    // Sixteen runs fill the frames, and each of them is taken again whole and in its turn.
    for (let run = 16; run < 64; run++) expect(firsts[run]).toBe(firsts[run - 16]);
  });

  it('finds runs among single blocks', () => {
    const blocks = new Blocks(512);
    const random = seeded(3);
    let whole = 0;
    for (let i = 0; i < 4000; i++) {
      if (i % 8 !== 0) {
        blocks.ask(Math.floor(random() * 2000));
        continue;
      }
      let run = 16;
      let first = blocks.eviction.find(run);
      while (first < 0) {
        run >>>= 1;
        first = blocks.eviction.find(run);
      }
      if (run === 16) whole++;
      blocks.take(first, run, 10_000 + i * 16);
    }
    expect(whole).toBeGreaterThan(450);
  });
});

describe('lists of frames', () => {
  it('keep the order of arrays', () => {
    const step = fc.record({ list: fc.nat({ max: 2 }), frame: fc.nat({ max: 9 }) });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 80 }), (steps) => {
        const lists = new FrameLists(10, 3);
        const model: number[][] = [[], [], []];
        for (const { list, frame } of steps) {
          const where = model.findIndex((frames) => frames.includes(frame));
          if (where >= 0) {
            lists.remove(where, frame);
            model[where].splice(model[where].indexOf(frame), 1);
          } else {
            lists.push(list, frame);
            model[list].push(frame);
          }
          for (const [one, frames] of model.entries()) {
            const found: number[] = [];
            for (let at = lists.oldest(one); at >= 0; at = lists.younger(at)) found.push(at);
            expect(found).toEqual(frames);
            expect(lists.lengths[one]).toBe(frames.length);
          }
        }
      }),
    );
  });
});

describe('the table of those that left', () => {
  it('knows the last ones, each once', () => {
    const ghosts = new GhostTable(1000);
    for (let block = 0; block < 400; block++) ghosts.add(block, 1);
    let known = 0;
    for (let block = 0; block < 400; block++) if (ghosts.take(block, 1)) known++;
    expect(known).toBeGreaterThan(390);
    for (let block = 0; block < 400; block++) if (ghosts.take(block, 1)) known++;
    expect(known).toBeLessThanOrEqual(400);
  });

  it('is bounded, and forgets what left long ago', () => {
    const ghosts = new GhostTable(1000);
    for (let block = 0; block < 100_000; block++) ghosts.add(block, 1);
    expect(ghosts.used).toBeLessThanOrEqual(1024);
    let known = 0;
    for (let block = 0; block < 98_500; block++) if (ghosts.take(block, 1)) known++;
    // One of another block can be taken for it.
    expect(known).toBeLessThan(20);
  });

  it('tells blocks apart that are alike in their low words', () => {
    const ghosts = new GhostTable(64);
    ghosts.add(7, 1);
    expect([ghosts.take(7, 2), ghosts.take(7, 1), ghosts.take(7, 1)]).toEqual([false, true, false]);
  });
});

function countIn(blocks: Blocks, from: number, to: number): number {
  let count = 0;
  for (let block = from; block < to; block++) if (blocks.table.find(block) >= 0) count++;
  return count;
}

/** Hits of a clock with one bit, as naively as it can be written. */
function clockHits(trace: Uint32Array, frames: number): number {
  const where = new Map<number, number>();
  const block = new Int32Array(frames).fill(-1);
  const used = new Uint8Array(frames);
  let hand = 0;
  let hits = 0;
  for (const one of trace) {
    const frame = where.get(one);
    if (frame !== undefined) {
      hits++;
      used[frame] = 1;
      continue;
    }
    for (; used[hand] !== 0; hand = (hand + 1) % frames) used[hand] = 0;
    where.delete(block[hand]);
    block[hand] = one;
    where.set(one, hand);
    hand = (hand + 1) % frames;
  }
  return hits;
}
