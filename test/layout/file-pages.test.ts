/** Rule R7 against a page-by-page reference, and the words for why a page cannot be mapped. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  FIEMAP_EXTENT_DATA_INLINE,
  FIEMAP_EXTENT_DELALLOC,
  FIEMAP_EXTENT_ENCODED,
  FIEMAP_EXTENT_LAST,
  FIEMAP_EXTENT_NOT_ALIGNED,
  FIEMAP_EXTENT_SHARED,
  FIEMAP_EXTENT_UNKNOWN,
  FIEMAP_EXTENT_UNWRITTEN,
} from '../../src/geometry/fiemap.js';
import { type FileExtent, filePages } from '../../src/layout/file-pages.js';

const FORBIDDEN = 0x2 | 0x4 | 0x8 | 0x80 | 0x100 | 0x200 | 0x400 | 0x800;

function extent(logical: number, physical: number, length: number, flags = 0): FileExtent {
  return { logical: BigInt(logical), physical: BigInt(physical), length: BigInt(length), flags };
}

const BLOCK = 512;
const files = fc.record({
  extents: fc
    .array(
      fc.record({
        gap: fc.constantFrom(0, 0, 0, 1, 8),
        blocks: fc.integer({ min: 1, max: 24 }),
        place: fc.option(fc.integer({ min: 0, max: 64 }), { nil: undefined }),
        flags: fc.constantFrom(0, 0, 0, 0, FIEMAP_EXTENT_SHARED, FIEMAP_EXTENT_LAST, FIEMAP_EXTENT_UNWRITTEN, FIEMAP_EXTENT_ENCODED, FIEMAP_EXTENT_UNKNOWN),
      }),
      { maxLength: 12 },
    )
    .map((parts) => {
      const extents: FileExtent[] = [];
      let logical = 0;
      let physical = 8 * BLOCK;
      for (const { gap, blocks, place, flags } of parts) {
        logical += gap * BLOCK;
        if (place !== undefined) physical = place * BLOCK;
        extents.push(extent(logical, physical, blocks * BLOCK, flags));
        logical += blocks * BLOCK;
        physical += blocks * BLOCK;
      }
      return extents;
    }),
  size: fc.integer({ min: 0, max: 160 * BLOCK }),
  page: fc.constantFrom(1024, 4096, 16384),
  base: fc.constantFrom(0, 512, 4096, 32256, 1 << 20),
});

/** Byte by byte of blocks: where each page begins, and whether all of it follows. */
function byPage(extents: readonly FileExtent[], size: number, page: number, base: number): boolean[] {
  const places = new Map<number, number>();
  for (const one of extents) {
    if ((one.flags & FORBIDDEN) !== 0) continue;
    for (let at = 0; at < Number(one.length); at += BLOCK) places.set(Number(one.logical) + at, Number(one.physical) + at + base);
  }
  return Array.from({ length: Math.ceil(size / page) }, (_, i) => {
    const first = places.get(i * page);
    if (first === undefined || first % page !== 0) return false;
    for (let at = 0; at < page; at += BLOCK) if (places.get(i * page + at) !== first + at) return false;
    return true;
  });
}

describe('The pages of a file', () => {
  it('are those that a look at every page finds, in any order of extents', () => {
    fc.assert(
      fc.property(files, fc.boolean(), ({ extents, size, page, base }, isReversed) => {
        const expected = byPage(extents, size, page, base);
        const pages = filePages(isReversed ? [...extents].reverse() : extents, BigInt(size), page, BigInt(base));
        expect(Number(pages.total)).toBe(expected.length);
        expect(Number(pages.mappable)).toBe(expected.filter(Boolean).length);
        expect(pages.firstFailing === undefined ? -1 : Number(pages.firstFailing.page)).toBe(expected.indexOf(false));
        expect(pages.tail).toBe(size % page);
        const from = Number(pages.longestRun.offset) / page;
        const run = expected.slice(from, from + Number(pages.longestRun.pages));
        expect(run.every(Boolean)).toBe(true);
        expect(run.length === 0).toBe(!expected.includes(true));
      }),
      { numRuns: 400 },
    );
  });

  it('count the longest run across extents that follow each other on the device, not across those that do not', () => {
    const together = filePages([extent(0, 8192, 8192), extent(8192, 16384, 8192)], 16384n, 4096, 0n);
    expect(together.longestRun).toEqual({ pages: 4n, offset: 0n });
    const apart = filePages([extent(0, 8192, 4096), extent(4096, 65536, 12288)], 16384n, 4096, 0n);
    expect(apart).toMatchObject({ mappable: 4n, longestRun: { pages: 3n, offset: 4096n } });
  });

  it('of a file of a pebibyte in one extent are counted at once', () => {
    const pages = filePages([{ logical: 0n, physical: 1n << 20n, length: 1n << 50n, flags: 0 }], 1n << 50n, 4096, 0n);
    expect(pages).toEqual({ mappable: 1n << 38n, total: 1n << 38n, longestRun: { pages: 1n << 38n, offset: 0n }, tail: 0 });
  });

  it('of an empty file are none', () => {
    expect(filePages([], 0n, 4096, 0n)).toEqual({ mappable: 0n, total: 0n, longestRun: { pages: 0n, offset: 0n }, tail: 0 });
  });

  it('hold with the partition under them what they do not hold without it', () => {
    const file = [extent(0, 512, 8192)];
    expect(filePages(file, 8192n, 4096, 0n).mappable).toBe(0n);
    expect(filePages(file, 8192n, 4096, 3584n).mappable).toBe(2n);
  });

  it('refuse a page of no bytes', () => {
    expect(() => filePages([], 1n, 0, 0n)).toThrowError(expect.objectContaining({ code: 'ERR_OUT_OF_RANGE' }));
  });
});

describe('The first page that cannot be mapped', () => {
  const cases: [string, FileExtent[], number, { page: bigint; cause: string }][] = [
    [
      'with the division where it lies beside a page',
      [extent(0, 1_098_240, 8192)],
      8192,
      { page: 0n, cause: 'byte 0 lies at byte 1098240, 1098240 % 4096 = 512' },
    ],
    ['as a hole', [extent(0, 8192, 4096), extent(12288, 20480, 4096)], 16384, { page: 1n, cause: 'byte 4096 is in a hole' }],
    [
      'as torn in two',
      [extent(0, 8192, 4096), extent(4096, 12288, 2048), extent(6144, 65536, 2048)],
      8192,
      { page: 1n, cause: 'not contiguous: byte 6144 lies at byte 65536, what is before it ends at byte 14336' },
    ],
    ['as one that the blocks do not fill', [extent(0, 8192, 5120)], 5000, { page: 1n, cause: "the file's blocks end at byte 5120, 3072 before the page does" }],
    [
      'as inline, not as misaligned, where it is both',
      [extent(0, 0, 100, FIEMAP_EXTENT_DATA_INLINE | FIEMAP_EXTENT_NOT_ALIGNED | FIEMAP_EXTENT_LAST)],
      100,
      { page: 0n, cause: 'byte 0 lies inside metadata (inline)' },
    ],
    [
      'as not allocated yet, where its place is unknown because of that',
      [extent(0, 8192, 4096), extent(4096, 0, 4096, FIEMAP_EXTENT_DELALLOC | FIEMAP_EXTENT_UNKNOWN)],
      8192,
      { page: 1n, cause: 'byte 4096 has no place yet (delayed allocation)' },
    ],
    [
      'as never written',
      [extent(0, 8192, 4096, FIEMAP_EXTENT_UNWRITTEN)],
      4096,
      { page: 0n, cause: 'byte 0 is allocated but was never written: the device holds something else' },
    ],
  ];
  for (const [name, extents, size, expected] of cases) {
    it(`is told ${name}`, () => {
      expect(filePages(extents, BigInt(size), 4096, 0n).firstFailing).toMatchObject(expected);
    });
  }
});
