/** Who reads in order, and how far ahead to read: the detector by itself, beside a memory that the test keeps. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type Piece, ReadAhead, type ReadAheadLimits, STREAMS_MAX } from '../../src/requests/read-ahead.js';

const KIB = 1024;
const MIB = 1024 * KIB;
const GIB = 1024 * MIB;

const defaults: ReadAheadLimits = { initial: 128 * KIB, max: 8 * MIB, budget: 64 * MIB };

/** A file whose read-ahead arrives at once, or not before `arrive`. */
class Reader {
  readonly ahead: ReadAhead;
  readonly size: number;
  readonly pieces: Piece[] = [];
  /** Blocks in memory, and blocks on their way. */
  readonly memory = new Set<number>();
  readonly coming = new Set<number>();
  /** Pieces arrive before the next access. */
  quick = true;
  misses = 0;

  constructor(limits: Partial<ReadAheadLimits> = {}, size = GIB) {
    this.ahead = new ReadAhead({ ...defaults, ...limits });
    this.size = size;
  }

  access(offset: number, length: number): 'hit' | 'wait' | 'miss' {
    const blocks = over(offset, length);
    const there = blocks.every((block) => this.memory.has(block));
    const some = blocks.some((block) => this.coming.has(block));
    if (there) {
      this.ahead.last[0] = offset;
      this.ahead.last[1] = offset + length;
      if (this.ahead.active !== 0) this.ahead.hit(offset, length);
    } else {
      this.misses++;
      this.ahead.miss(offset, length, some);
      for (const block of blocks) this.memory.add(block);
    }
    this.issue();
    return there ? 'hit' : some ? 'wait' : 'miss';
  }

  issue(): void {
    const piece = { offset: 0, length: 0 };
    while (this.ahead.next(piece, 4 * MIB, this.size)) {
      this.pieces.push({ ...piece });
      for (const block of over(piece.offset, piece.length)) if (!this.memory.has(block)) this.coming.add(block);
      this.ahead.taken(piece, piece.length);
    }
    if (this.quick) this.arrive();
  }

  arrive(): void {
    for (const block of this.coming) this.memory.add(block);
    this.coming.clear();
  }

  get bytes(): number {
    return this.pieces.reduce((sum, { length }) => sum + length, 0);
  }
}

function over(offset: number, length: number): number[] {
  const first = Math.floor(offset / 4096);
  return Array.from({ length: Math.floor((offset + length - 1) / 4096) - first + 1 }, (_, i) => first + i);
}

/** As good as random, and the same in every run. */
function scatter(i: number, blocks: number): number {
  return (Math.imul(i + 1, 2654435761) >>> 0) % blocks;
}

describe('read-ahead', () => {
  it('reads nothing ahead for one who jumps around', () => {
    const reader = new Reader();
    for (let i = 0; i < 10_000; i++) reader.access(scatter(i, GIB / 4096) * 4096, 4096);
    expect(reader.bytes).toBeLessThanOrEqual(2 * 128 * KIB);
  });

  it('finds a forward reader after three steps, and keeps it from missing from then on', () => {
    const reader = new Reader();
    for (let at = 0; at < 64 * MIB; at += 16 * KIB) reader.access(at, 16 * KIB);
    expect(reader.misses).toBe(3);
    expect(reader.pieces[0]).toEqual({ offset: 48 * KIB, length: 128 * KIB - 48 * KIB });
  });

  it('finds one whose two steps make up a first piece, and begins with no less than two more', () => {
    const reader = new Reader();
    reader.access(5 * MIB, MIB);
    reader.access(6 * MIB, MIB);
    expect(reader.pieces).toEqual([{ offset: 7 * MIB, length: 2 * MIB }]);
  });

  it('finds a backward reader, and stops at the start of the file', () => {
    const reader = new Reader();
    for (let at = 16 * MIB - 16 * KIB; at >= 0; at -= 16 * KIB) reader.access(at, 16 * KIB);
    expect(reader.misses).toBe(3);
    expect(Math.min(...reader.pieces.map(({ offset }) => offset))).toBe(0);
    for (let i = 1; i < reader.pieces.length; i++) {
      const { offset, length } = reader.pieces[i];
      expect(offset + length).toBe(reader.pieces[i - 1].offset);
    }
  });

  it('follows eight forward and two backward readers among three times as many random accesses', () => {
    const reader = new Reader({}, 16 * GIB);
    const step = 32 * KIB;
    const found: string[] = [];
    for (let i = 0; i < 300; i++) {
      for (let stream = 0; stream < 10; stream++) {
        const at = stream < 8 ? stream * GIB + i * step : (stream + 1) * GIB - i * step;
        const how = reader.access(at, step);
        if (i >= 3 && how !== 'hit') found.push(`stream ${stream} at step ${i}: ${how}`);
        for (let j = 0; j < 3; j++) reader.access(scatter(i * 40 + stream * 3 + j, (4 * GIB) / 4096) * 4096 + 12 * GIB, 4096);
      }
    }
    expect(found).toEqual([]);
    expect(reader.ahead.active).toBe(10);
  });

  it('bears steps out of order by two, repeated and overlapping ones, and ones of other lengths', () => {
    const reader = new Reader();
    const step = 64 * KIB;
    for (let i = 0; i < 400; i += 4) {
      for (const j of [2, 0, 3, 1]) reader.access((i + j) * step, step);
      reader.access((i + 1) * step + 10_000, 20_000);
      reader.access(i * step, 2 * step);
    }
    expect(reader.ahead.active).toBe(1);
    expect(reader.misses).toBeLessThanOrEqual(10);
    const ends = reader.pieces.map(({ offset, length }) => offset + length);
    for (let i = 1; i < ends.length; i++) expect(reader.pieces[i].offset).toBeGreaterThanOrEqual(ends[i - 1]);
  });

  it('takes a miss right behind a hit for a reader whom the kernel has been serving', () => {
    const reader = new Reader();
    for (let block = 0; block < 1024; block++) reader.memory.add(block);
    for (let at = 0; at <= 4 * MIB; at += 64 * KIB) reader.access(at, 64 * KIB);
    expect(reader.pieces).toEqual([{ offset: 4 * MIB + 64 * KIB, length: 128 * KIB }]);
    expect(reader.ahead.active).toBe(1);
  });

  it('asks for the next piece when half of the window is left', () => {
    const reader = new Reader({ initial: MIB, max: MIB });
    for (let at = 0; at < 512 * KIB; at += 128 * KIB) reader.access(at, 128 * KIB);
    const first = reader.pieces.length;
    for (let at = 512 * KIB; reader.pieces.length === first; at += 128 * KIB) reader.access(at, 128 * KIB);
    const { offset } = reader.pieces[first];
    const position = reader.pieces[first].offset - 512 * KIB;
    expect(position % (128 * KIB)).toBe(0);
    expect(offset - position).toBe(512 * KIB);
  });

  it('doubles the window while the reader waits for what is on its way, once for each window, up to the most', () => {
    const reader = new Reader({ max: MIB });
    reader.quick = false;
    let furthest = 0;
    let position = 0;
    const beyond: number[] = [];
    for (let at = 0; at < 16 * MIB; at += 64 * KIB) {
      if (reader.access(at, 64 * KIB) === 'wait') reader.arrive();
      position = at + 64 * KIB;
      furthest = Math.max(furthest, ...reader.pieces.map(({ offset, length }) => offset + length));
      beyond.push(furthest - position);
    }
    expect(Math.max(...beyond.slice(0, 4))).toBeLessThanOrEqual(256 * KIB);
    expect(Math.max(...beyond)).toBeLessThanOrEqual(MIB);
    expect(Math.max(...beyond)).toBeGreaterThan(960 * KIB);
  });

  it('stays with the first window while the reader never waits', () => {
    const reader = new Reader();
    for (let at = 0; at < 32 * MIB; at += 32 * KIB) reader.access(at, 32 * KIB);
    expect(Math.max(...reader.pieces.map(({ length }) => length))).toBeLessThanOrEqual(128 * KIB);
  });

  it('halves the window when bytes went before they were used, and gives the reader up in the end', () => {
    const reader = new Reader({ initial: 128 * KIB });
    let longest: number[] = [];
    for (let at = 0; at < 8 * MIB; at += 32 * KIB) {
      const before = reader.pieces.length;
      reader.access(at, 32 * KIB);
      for (const { offset } of reader.pieces.slice(before)) {
        // Memory is so short that what is read ahead is pushed out at once.
        for (const block of over(offset, 32 * KIB)) reader.memory.delete(block);
        reader.ahead.lost(offset);
      }
      longest = longest.concat(reader.pieces.slice(before).map(({ length }) => length));
    }
    expect(longest.slice(-3).every((length) => length <= 32 * KIB)).toBe(true);
    expect(reader.bytes).toBeLessThan(8 * MIB);
  });

  it('counts what was ahead of a reader that went no further, and starts smaller for the next', () => {
    const reader = new Reader({ initial: 256 * KIB, max: 256 * KIB });
    for (let round = 0; round < 5; round++) {
      for (let i = 0; i < 4; i++) reader.access(round * 64 * MIB + i * 64 * KIB, 64 * KIB);
      reader.ahead.drop(0, GIB);
    }
    expect(reader.ahead.unused).toBeGreaterThan(256 * KIB);
    const lengths = reader.pieces.filter(({ offset }) => offset > 256 * MIB).map(({ length }) => length);
    expect(Math.max(...lengths)).toBeLessThanOrEqual(64 * KIB);
  });

  it('forgets readers that stopped, once others have missed often enough, and when others need their place', () => {
    const stale = new Reader();
    for (let i = 0; i < 4; i++) stale.access(i * 64 * KIB, 64 * KIB);
    expect(stale.ahead.active).toBe(1);
    for (let i = 0; i < 4096; i++) stale.access(scatter(i, GIB / 4096) * 4096, 512);
    expect(stale.ahead.unused).toBeGreaterThan(0);

    const crowded = new Reader({}, 64 * GIB);
    for (let stream = 0; stream < STREAMS_MAX + 4; stream++) for (let i = 0; i < 4; i++) crowded.access(stream * GIB + i * 64 * KIB, 64 * KIB);
    expect(crowded.ahead.active).toBe(STREAMS_MAX);
    expect(crowded.ahead.unused).toBeGreaterThan(0);
  });

  it('never asks for anything beyond the end of the file, and goes on once it has grown', () => {
    const ahead = new ReadAhead(defaults);
    const piece = { offset: 0, length: 0 };
    let frontier = 0;
    const issue = (size: number): void => {
      while (ahead.next(piece, MIB, size)) {
        expect(piece.offset + piece.length).toBeLessThanOrEqual(size);
        frontier = piece.offset + piece.length;
        ahead.taken(piece, piece.length);
      }
    };
    const small = 300_001;
    for (let at = 0; at < small; at += 50_000) {
      ahead.miss(at, Math.min(50_000, small - at), true);
      issue(small);
    }
    expect(frontier).toBe(small);
    ahead.hit(small - 10, 10);
    expect(ahead.due).toBe(false);
    ahead.miss(small, 50_000, false);
    issue(2 * MIB);
    expect(frontier).toBeGreaterThan(small + 50_000);
  });

  it('reads ahead of a declared reader at once, by the most, to the declared end and no further', () => {
    const reader = new Reader({}, 64 * MIB);
    const name = reader.ahead.declare(MIB, 20 * MIB);
    reader.issue();
    expect(reader.bytes).toBe(8 * MIB);
    for (let at = MIB; at < 20 * MIB; at += 256 * KIB) expect(reader.access(at, 256 * KIB)).toBe('hit');
    expect(Math.max(...reader.pieces.map(({ offset, length }) => offset + length))).toBe(20 * MIB);
    reader.ahead.undeclare(name);
    expect([reader.ahead.active, reader.ahead.unused]).toEqual([0, 0]);
    reader.ahead.undeclare(name);
  });

  it('is switched off by a most of nothing, or a budget of less than a block', () => {
    for (const limits of [{ max: 0 }, { budget: 4095 }]) {
      const reader = new Reader(limits);
      expect(reader.ahead.declare(0, MIB)).toBe(0);
      for (let at = 0; at < MIB; at += 16 * KIB) reader.access(at, 16 * KIB);
      expect([reader.ahead.enabled, reader.bytes, reader.ahead.active]).toEqual([false, 0, 0]);
    }
  });

  it('asks for nothing twice and for nothing but whole ranges of the file, is never ahead by more than the budget, and survives whatever comes', () => {
    const size = 4 * MIB;
    const range = fc.record({ offset: fc.nat({ max: size - 1 }), length: fc.integer({ min: 1, max: 200_000 }) });
    const step = fc.oneof(
      { weight: 6, arbitrary: fc.record({ kind: fc.constant('walk' as const), reader: fc.nat({ max: 9 }), length: fc.integer({ min: 1, max: 70_000 }) }) },
      { weight: 2, arbitrary: fc.record({ kind: fc.constant('jump' as const), range }) },
      { weight: 1, arbitrary: fc.record({ kind: fc.constant('drop' as const), range }) },
      { weight: 1, arbitrary: fc.record({ kind: fc.constant('lost' as const), range }) },
      { weight: 1, arbitrary: fc.record({ kind: fc.constant('failed' as const), range }) },
      { weight: 1, arbitrary: fc.record({ kind: fc.constant('declare' as const), range }) },
      { weight: 1, arbitrary: fc.record({ kind: fc.constant('arrive' as const) }) },
      { weight: 1, arbitrary: fc.record({ kind: fc.constant('refuse' as const) }) },
    );
    const limits = fc.record({
      initial: fc.integer({ min: 0, max: 300_000 }),
      max: fc.integer({ min: 0, max: 1_000_000 }),
      budget: fc.integer({ min: 0, max: 2_000_000 }),
    });
    fc.assert(
      fc.property(limits, fc.array(step, { maxLength: 300 }), (given, steps) => {
        const reader = new Reader(given, size);
        reader.quick = false;
        const { ahead } = reader;
        const piece = { offset: 0, length: 0 };
        const positions = Array.from({ length: 10 }, (_, i) => (i < 7 ? i * 500_000 : size - (i - 7) * 500_000));
        const names: number[] = [];
        for (const next of steps) {
          if (next.kind === 'walk') {
            const forward = next.reader < 7;
            const from = forward ? positions[next.reader] : Math.max(0, positions[next.reader] - next.length);
            const to = forward ? Math.min(size, from + next.length) : positions[next.reader];
            positions[next.reader] = forward ? to : from;
            if (to > from) reader.access(from, to - from);
          } else if (next.kind === 'jump') reader.access(next.range.offset, Math.min(next.range.length, size - next.range.offset));
          else if (next.kind === 'drop') ahead.drop(next.range.offset, next.range.length);
          else if (next.kind === 'lost') ahead.lost(next.range.offset);
          else if (next.kind === 'failed') ahead.failed(next.range.offset);
          else if (next.kind === 'declare') names.push(ahead.declare(next.range.offset, next.range.offset + next.range.length));
          else if (next.kind === 'arrive') reader.arrive();
          else if (ahead.next(piece, MIB, size)) continue;
          if (names.length > 3) ahead.undeclare(names.shift() as number);
          expect(ahead.active).toBeLessThanOrEqual(STREAMS_MAX);
          expect(ahead.ahead).toBeLessThanOrEqual(given.budget);
        }
        for (const { offset, length } of reader.pieces) {
          expect([Number.isInteger(offset), Number.isInteger(length)]).toEqual([true, true]);
          expect(length).toBeGreaterThan(0);
          expect(Object.is(offset, -0) || offset < 0 || offset + length > size).toBe(false);
        }
        ahead.dropAll();
        expect([ahead.active, ahead.ahead]).toEqual([0, 0]);
        expect(ahead.unused).toBeLessThanOrEqual(reader.bytes);
      }),
      { numRuns: 300 },
    );
  });
});
