/** Sorting and searching arrays of sectors, against the plainest model. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { lowerBound, REGION_SECTORS, regionOf, SortScratch, sortSectors } from '../../src/requests/sector-array.js';

const top = 2 ** 32 - 1;
const sector = fc.oneof(fc.nat({ max: 40 }), fc.nat({ max: top }), fc.constantFrom(0, 7, 8, 2 ** 31 - 1, 2 ** 31, top - 7, top));
const sectorList = fc.oneof(fc.array(sector, { maxLength: 600 }), fc.array(fc.nat({ max: 20 }), { maxLength: 300 }));

interface Sorted {
  sectors: number[];
  origin: number[];
  comparisons: number;
}

/** Sorts in the middle of a larger array, and sees to it that nothing around it moved. */
function sorted(input: readonly number[], from = 3): Sorted {
  const sectors = new Uint32Array(from + input.length + 5).fill(123);
  const origin = new Uint32Array(sectors.length).fill(456);
  sectors.set(input, from);
  for (let i = 0; i < input.length; i++) origin[from + i] = i;
  const comparisons = sortSectors(sectors, origin, from, input.length, new SortScratch(input.length));
  for (let i = 0; i < sectors.length; i++) {
    if (i < from || i >= from + input.length) expect([sectors[i], origin[i]]).toEqual([123, 456]);
  }
  return { sectors: [...sectors.subarray(from, from + input.length)], origin: [...origin.subarray(from, from + input.length)], comparisons };
}

const bound = (n: number): number => Math.max(1, 6 * n);

describe('sorting sectors', () => {
  it('sorts, keeps the permutation, and keeps equal sectors in the order they came in', () => {
    fc.assert(
      fc.property(sectorList, fc.nat({ max: 9 }), (input, from) => {
        const expected = input.map((value, place) => ({ value, place })).sort((a, b) => a.value - b.value || a.place - b.place);
        const { sectors, origin } = sorted(input, from);
        expect(sectors).toEqual(expected.map(({ value }) => value));
        expect(origin).toEqual(expected.map(({ place }) => place));
      }),
      { numRuns: 500 },
    );
  });

  it('takes no more comparisons than there are sectors when they are sorted already', () => {
    fc.assert(
      fc.property(fc.array(sector, { minLength: 1, maxLength: 600 }), (input) => {
        input.sort((a, b) => a - b);
        expect(sorted(input).comparisons).toBeLessThanOrEqual(input.length);
      }),
    );
  });

  it('stays linear when a few sectors are a short way from their places', () => {
    fc.assert(
      fc.property(fc.integer({ min: 64, max: 1000 }), fc.array(fc.tuple(fc.nat(), fc.integer({ min: 1, max: 16 })), { maxLength: 8 }), (n, displaced) => {
        const input = Array.from({ length: n }, (_, i) => i * 8);
        for (const [which, distance] of displaced) {
          const from = which % n;
          const to = Math.max(0, from - distance);
          input.splice(to, 0, ...input.splice(from, 1));
        }
        const { sectors, comparisons } = sorted(input);
        expect(sectors).toEqual([...input].sort((a, b) => a - b));
        // Once through, and for each of the displaced what it was displaced by.
        expect(comparisons).toBeLessThanOrEqual(n + 8 + 16 * 16 + 16);
      }),
    );
  });

  it('stays linear when one sector is as far from its place as can be', () => {
    const n = 512;
    const input = Array.from({ length: n }, (_, i) => (i + 1) * 8);
    expect(sorted([...input.slice(0, -1), 0]).comparisons).toBeLessThanOrEqual(2 * n + 1);
    expect(sorted([n * 8, ...input.slice(0, -1)]).comparisons).toBeLessThanOrEqual(2 * n + 1);
  });

  it('never takes more comparisons than documented', () => {
    fc.assert(
      fc.property(sectorList, (input) => {
        expect(sorted(input).comparisons).toBeLessThanOrEqual(bound(input.length));
      }),
      { numRuns: 500 },
    );
  });

  it('keeps to the bound for the inputs that cost insertion most', () => {
    for (const n of [2, 3, 11, 12, 13, 24, 25, 100, 192, 193, 512, 513, 3000]) {
      const descending = Array.from({ length: n }, (_, i) => (n - i) * 8);
      const interleaved = Array.from({ length: n }, (_, i) => (i % 2 === 0 ? i : 2 * n - i));
      const sawtooth = Array.from({ length: n }, (_, i) => (i % 12) * -100 + 100_000 + ((i * 7919) % 97));
      const late = Array.from({ length: n }, (_, i) => (i < n / 2 ? i + n : n - i));
      for (const input of [descending, interleaved, sawtooth, late]) {
        const { sectors, comparisons } = sorted(input);
        expect(sectors).toEqual([...input].sort((a, b) => a - b));
        expect(comparisons, `${n} sectors`).toBeLessThanOrEqual(bound(n));
      }
    }
  });

  it('orders the last sectors of a region as numbers, not as signed words', () => {
    expect(sorted([top, 0, 2 ** 31, 2 ** 31 - 1, top - 7]).sectors).toEqual([0, 2 ** 31 - 1, 2 ** 31, top - 7, top]);
  });
});

describe('searching sectors', () => {
  it('finds the first that is not below the one asked for', () => {
    fc.assert(
      fc.property(fc.array(sector, { maxLength: 200 }), fc.oneof(sector, fc.constant(REGION_SECTORS)), fc.nat({ max: 5 }), (list, asked, from) => {
        list.sort((a, b) => a - b);
        // What stands around the part that is searched must not matter.
        const sectors = new Uint32Array(from + list.length + 4).fill(top);
        sectors.fill(asked === REGION_SECTORS ? top : asked, 0, from);
        sectors.set(list, from);
        const expected = list.findIndex((value) => value >= asked);
        expect(lowerBound(sectors, from, list.length, asked)).toBe(from + (expected < 0 ? list.length : expected));
      }),
      { numRuns: 500 },
    );
  });

  it('finds the first of equal sectors', () => {
    expect(lowerBound(Uint32Array.of(8, 16, 16, 16, 24), 0, 5, 16)).toBe(1);
  });
});

describe('regions', () => {
  it('change every 2^32 sectors', () => {
    expect([0, 2 ** 32 - 1, 2 ** 32, 3 * 2 ** 32 - 1, 2 ** 44].map(regionOf)).toEqual([0, 0, 1, 2, 4096]);
  });
});
