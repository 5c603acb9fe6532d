/** What a window says of its range, over memory that is a plain array. */
import { inspect } from 'node:util';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { blocksOver, needOf } from '../../src/windows/direct-access.js';
import { FileWindow, type WindowOwner } from '../../src/windows/window.js';

const BLOCK = 4096;

/** The bytes of the file at an offset, everywhere. */
function fill(bytes: Uint8Array, offset: number): Uint8Array {
  for (let i = 0; i < bytes.length; i++) bytes[i] = (offset + i) * 31 + ((offset + i) >> 8);
  return bytes;
}

class Ground implements WindowOwner {
  readonly path = '/a/file';
  gone = false;
  drops = 0;
  views = 0;
  readonly marks: [number, number][] = [];
  /** Blocks from the window's first on before which its areas are cut. */
  cuts: number[] = [];

  check(): void {
    if (this.gone) throw Object.assign(new Error('gone'), { code: 'GONE' });
  }

  isValid(): boolean {
    return !this.gone;
  }

  dropped(): void {
    this.drops++;
  }

  mark(_window: FileWindow, start: number, end: number): void {
    this.marks.push([start, end]);
  }

  view({ offset, length }: FileWindow): Uint8Array {
    this.views++;
    const within = offset % BLOCK;
    return fill(new Uint8Array(new ArrayBuffer(within + length), within, length), offset);
  }

  areas(window: FileWindow): readonly Uint8Array[] {
    const first = Math.floor(window.offset / BLOCK);
    const ends = [...new Set(this.cuts.map((cut) => (first + cut) * BLOCK))].filter((end) => end > window.offset && end < window.offset + window.length);
    let from = window.offset;
    return [...ends.sort((a, b) => a - b), window.offset + window.length].map((to) => {
      const within = from % BLOCK;
      const area = fill(new Uint8Array(new ArrayBuffer(within + to - from), within, to - from), from);
      from = to;
      return area;
    });
  }
}

function make(
  offset: number,
  length: number,
  options: { ground?: Ground; writable?: boolean; scattered?: boolean } = {},
): { window: FileWindow; ground: Ground } {
  const ground = options.ground ?? new Ground();
  const scattered = options.scattered ? new Int32Array(1) : undefined;
  return { window: new FileWindow(ground, offset, length, options.writable ?? false, 0, 0, scattered, undefined), ground };
}

const range = fc.record({
  offset: fc.oneof(
    fc.nat({ max: 20_000 }),
    fc.nat({ max: 5 }).map((i) => i * BLOCK),
  ),
  length: fc.oneof(
    fc.nat({ max: 20_000 }),
    fc.nat({ max: 4 }).map((i) => i * BLOCK),
  ),
});

describe('a window', () => {
  it('is its head, its whole blocks and its tail, and the blocks are aligned', () => {
    fc.assert(
      fc.property(range, fc.boolean(), fc.array(fc.nat({ max: 6 }), { maxLength: 3 }), ({ offset, length }, scattered, cuts) => {
        const { window, ground } = make(offset, length, { scattered });
        ground.cuts = cuts;
        const { head, blocks, tail } = window;
        expect(head.length + blocks.length + tail.length).toBe(length);
        expect(Buffer.concat([head, blocks, tail]).equals(fill(new Uint8Array(length), offset))).toBe(true);
        expect([blocks.length % BLOCK, (offset + head.length) % BLOCK]).toEqual([0, blocks.length > 0 ? 0 : (offset + head.length) % BLOCK]);
        // Whole blocks there are as many as fit.
        const first = Math.ceil(offset / BLOCK) * BLOCK;
        const fitting = Math.max(0, Math.floor((offset + length - first) / BLOCK));
        expect(blocks.length / BLOCK).toBe(fitting);
        if (fitting > 0) expect([head.length < BLOCK, tail.length < BLOCK]).toEqual([true, true]);
        else expect([head.length, tail.length]).toEqual([length, 0]);
        if (length > 0) {
          expect(window.bytes.byteOffset % BLOCK).toBe(offset % BLOCK);
          for (const part of [head, blocks, tail])
            if (part.length > 0)
              expect(part.byteOffset % BLOCK).toBe((offset + (part === head ? 0 : part === blocks ? head.length : head.length + blocks.length)) % BLOCK);
        }
        expect(Buffer.concat(window.areas).equals(Buffer.from(window.bytes))).toBe(true);
        if (!scattered) expect(window.areas.length).toBe(1);
      }),
      { numRuns: 400 },
    );
  });

  it('takes parts that lie in one area from there, without gathering anything', () => {
    const { window, ground } = make(100, 4 * BLOCK, { scattered: true });
    ground.cuts = [1, 4];
    expect([window.head.length, window.blocks.length, window.tail.length]).toEqual([BLOCK - 100, 3 * BLOCK, 100]);
    expect(ground.views).toBe(0);
    ground.cuts = [2];
    const other = make(100, 4 * BLOCK, { ground, scattered: true }).window;
    expect(other.blocks.length).toBe(3 * BLOCK);
    expect(ground.views).toBe(1);
  });

  it('makes its views when they are first asked for, and once', () => {
    const { window, ground } = make(10, 100);
    expect(ground.views).toBe(0);
    expect(window.bytes).toBe(window.bytes);
    expect([window.head.length, window.areas[0] === window.bytes, ground.views]).toEqual([100, true, 1]);
  });

  it('of length 0 has empty parts', () => {
    const { window } = make(5000, 0);
    expect([window.bytes, window.head, window.blocks, window.tail].map(({ length }) => length)).toEqual([0, 0, 0, 0]);
  });

  it('counts its references, and is dropped with the last', () => {
    const { window, ground } = make(0, 10);
    expect(window.retain()).toBe(window);
    window.release();
    expect([window.refs, window.valid, ground.drops]).toEqual([1, true, 0]);
    window[Symbol.dispose]();
    window.release();
    window.release();
    expect([window.refs, window.valid, ground.drops]).toEqual([0, false, 1]);
  });

  it('that is released throws at every use but another release', () => {
    const { window } = make(0, 10, { writable: true });
    window.release();
    const uses = [
      () => window.bytes,
      () => window.areas,
      () => window.head,
      () => window.blocks,
      () => window.tail,
      () => window.check(),
      () => window.retain(),
      () => window.markDirty(),
    ];
    for (const use of uses) expect(use).toThrow(expect.objectContaining({ code: 'ERR_SECTORWISE_RELEASED', path: '/a/file', offset: 0, length: 10 }));
  });

  it('that lost its ground throws as its owner says, also for views that it has made', () => {
    const { window, ground } = make(0, 10, { writable: true });
    expect(window.bytes.length).toBe(10);
    ground.gone = true;
    for (const use of [() => window.bytes, () => window.areas, () => window.head, () => window.check(), () => window.markDirty()]) {
      expect(use).toThrow(expect.objectContaining({ code: 'GONE' }));
    }
    expect(window.valid).toBe(false);
    window.release();
    expect(ground.drops).toBe(1);
  });

  it('marks what is asked for within it, and nothing for nothing', () => {
    const { window, ground } = make(100, 50, { writable: true });
    window.markDirty();
    window.markDirty(10);
    window.markDirty(10, 20);
    window.markDirty(50, 50);
    expect(ground.marks).toEqual([
      [0, 50],
      [10, 50],
      [10, 20],
    ]);
    for (const [start, end] of [
      [-1, 5],
      [0, 51],
      [20, 10],
      [0.5, 3],
      [51, 51],
    ]) {
      expect(() => window.markDirty(start, end)).toThrow(expect.objectContaining({ code: 'ERR_OUT_OF_RANGE' }));
    }
    expect(() => window.markDirty('1' as unknown as number)).toThrow(expect.objectContaining({ code: 'ERR_INVALID_ARG_TYPE' }));
    expect(() => make(0, 10).window.markDirty()).toThrow(expect.objectContaining({ code: 'ERR_SECTORWISE_NOT_WRITABLE' }));
  });

  it('says what it is when it is printed', () => {
    const { window, ground } = make(512, 10, { writable: true });
    expect(inspect(window)).toBe('Window { offset: 512, length: 10, writable, refs 1 }');
    ground.gone = true;
    expect(inspect(window)).toContain('invalid');
    window.release();
    expect(inspect(window)).toContain('released');
  });
});

describe('ranges', () => {
  it('touch blocks and sectors as counting byte by byte says', () => {
    const place = fc.oneof(
      fc.nat({ max: 9000 }),
      fc.nat({ max: 9000 }).map((i) => 2 ** 45 + i),
    );
    fc.assert(
      fc.property(place, fc.integer({ min: 1, max: 9000 }), (offset, length) => {
        const sectors = new Set<number>();
        for (let at = offset; at < offset + length; at += 100) sectors.add(Math.floor(at / 512));
        sectors.add(Math.floor((offset + length - 1) / 512));
        const blocks = [...new Set([...sectors].map((sector) => Math.floor(sector / 8)))].sort((a, b) => a - b);
        expect(blocksOver(offset, length)).toBe(blocks.length);
        for (const [i, block] of blocks.entries()) {
          let mask = 0;
          for (let bit = 0; bit < 8; bit++) if (sectors.has(block * 8 + bit)) mask |= 1 << bit;
          expect(needOf(i, offset, length)).toBe(mask);
        }
      }),
      { numRuns: 300 },
    );
  });
});
