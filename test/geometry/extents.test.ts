/** The mapping of FIEMAP's answer to extents and to an order, without a kernel. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  ExtentOrder,
  extentsFromFiemap,
  FIEMAP_EXTENT_DATA_INLINE,
  FIEMAP_EXTENT_DELALLOC,
  FIEMAP_EXTENT_ENCODED,
  FIEMAP_EXTENT_LAST,
  FIEMAP_EXTENT_NOT_ALIGNED,
  FIEMAP_EXTENT_SHARED,
  FIEMAP_EXTENT_UNKNOWN,
  FIEMAP_EXTENT_UNWRITTEN,
} from '../../src/geometry/extents.js';

interface Run {
  logical: number;
  physical: number;
  length: number;
  flags: number;
}

const BLOCK = 512;
const DEVICE_BLOCKS = 1 << 20;

/** Runs as FIEMAP gives them: ascending, apart or touching, of any kind, sometimes contiguous on the device. */
const runs: fc.Arbitrary<Run[]> = fc
  .array(
    fc.record({
      gap: fc.oneof({ weight: 2, arbitrary: fc.constant(0) }, { weight: 1, arbitrary: fc.integer({ min: 1, max: 9 }) }),
      blocks: fc.integer({ min: 1, max: 12 }),
      follows: fc.boolean(),
      place: fc.integer({ min: 0, max: 1000 }),
      flags: fc.constantFrom(
        0,
        0,
        0,
        FIEMAP_EXTENT_SHARED,
        FIEMAP_EXTENT_UNWRITTEN,
        FIEMAP_EXTENT_UNKNOWN | FIEMAP_EXTENT_DELALLOC,
        FIEMAP_EXTENT_ENCODED,
        FIEMAP_EXTENT_DATA_INLINE | FIEMAP_EXTENT_NOT_ALIGNED,
      ),
    }),
    { maxLength: 20 },
  )
  .map((parts) => {
    const out: Run[] = [];
    let logical = 0;
    let physical = 0;
    for (const part of parts) {
      logical += part.gap * BLOCK;
      const start = part.follows ? physical : part.place * BLOCK;
      out.push({ logical, physical: start, length: part.blocks * BLOCK, flags: part.flags });
      logical += part.blocks * BLOCK;
      physical = start + part.blocks * BLOCK;
    }
    return out;
  });

function words(list: Run[]): Float64Array {
  return Float64Array.from(list.flatMap((run) => [run.logical, run.physical, run.length, run.flags]));
}

/** The same question, asked byte by byte. */
function placeOfByte(list: Run[], byte: number): { place: number | undefined; mappable: boolean } {
  const run = list.find((each) => byte >= each.logical && byte < each.logical + each.length);
  const forbidden = FIEMAP_EXTENT_UNKNOWN | FIEMAP_EXTENT_DELALLOC | FIEMAP_EXTENT_ENCODED | FIEMAP_EXTENT_DATA_INLINE | FIEMAP_EXTENT_NOT_ALIGNED;
  if (run === undefined || (run.flags & forbidden) !== 0) return { place: undefined, mappable: false };
  return { place: run.physical + byte - run.logical, mappable: (run.flags & FIEMAP_EXTENT_UNWRITTEN) === 0 };
}

describe('extents from FIEMAP', () => {
  it('cover the range exactly: in order, no gap, no overlap, never empty, neighbours of one kind merged', () => {
    fc.assert(
      fc.property(runs, fc.nat(40 * BLOCK), fc.integer({ min: 1, max: 300 * BLOCK }), (list, offset, length) => {
        const extents = extentsFromFiemap(words(list), offset, offset + length, DEVICE_BLOCKS * BLOCK);
        let position = offset;
        for (const [i, extent] of extents.entries()) {
          expect(extent.offset).toBe(position);
          expect(extent.length).toBeGreaterThan(0);
          expect(extent.mappable && extent.sector === undefined).toBe(false);
          position += extent.length;
          const before = extents[i - 1];
          if (before !== undefined && before.mappable === extent.mappable) {
            expect(before.sector === undefined && extent.sector === undefined).toBe(false);
          }
        }
        expect(position).toBe(offset + length);
      }),
    );
  });

  it('say of every byte what its run says, merged or not', () => {
    fc.assert(
      fc.property(runs, fc.nat(20 * BLOCK), fc.integer({ min: 1, max: 60 * BLOCK }), (list, offset, length) => {
        for (const extent of extentsFromFiemap(words(list), offset, offset + length, DEVICE_BLOCKS * BLOCK)) {
          for (let byte = extent.offset; byte < extent.offset + extent.length; byte += 128 - (byte % 128)) {
            const expected = placeOfByte(list, byte);
            expect(extent.mappable).toBe(expected.mappable);
            const first = placeOfByte(list, extent.offset).place;
            expect(extent.sector).toBe(first === undefined ? undefined : Math.floor(first / 512));
            expect(expected.place).toBe(first === undefined ? undefined : first + byte - extent.offset);
          }
        }
      }),
      { numRuns: 60 },
    );
  });

  it('merge contiguous runs, and keep written and unwritten ones apart', () => {
    const list = [
      { logical: 0, physical: 8192, length: 4096, flags: 0 },
      { logical: 4096, physical: 12288, length: 4096, flags: FIEMAP_EXTENT_SHARED },
      { logical: 8192, physical: 16384, length: 4096, flags: FIEMAP_EXTENT_UNWRITTEN },
      { logical: 12288, physical: 4096, length: 4096, flags: FIEMAP_EXTENT_LAST },
    ];
    expect(extentsFromFiemap(words(list), 0, 16384, 0)).toEqual([
      { offset: 0, length: 8192, sector: 16, mappable: true },
      { offset: 8192, length: 4096, sector: 32, mappable: false },
      { offset: 12288, length: 4096, sector: 8, mappable: true },
    ]);
  });

  it('name no sector for a run that reaches past the end of the device, nor for one that is off by part of a sector', () => {
    expect(extentsFromFiemap(words([{ logical: 0, physical: 4096, length: 8192, flags: 0 }]), 0, 8192, 8192)[0]).toMatchObject({
      sector: undefined,
      mappable: false,
    });
    expect(extentsFromFiemap(words([{ logical: 0, physical: 4000, length: 8192, flags: 0 }]), 0, 8192, 0)[0]).toMatchObject({
      sector: undefined,
      mappable: false,
    });
  });

  it('still cover the range when the answer repeats or overlaps itself, as it does when the file changes between two calls', () => {
    const list = [
      { logical: 0, physical: 4096, length: 8192, flags: 0 },
      { logical: 4096, physical: 40960, length: 8192, flags: 0 },
      { logical: 4096, physical: 40960, length: 8192, flags: 0 },
    ];
    expect(extentsFromFiemap(words(list), 0, 16384, 0)).toEqual([
      { offset: 0, length: 8192, sector: 8, mappable: true },
      { offset: 8192, length: 4096, sector: 88, mappable: true },
      { offset: 12288, length: 4096, sector: undefined, mappable: false },
    ]);
  });

  it('answer one hole where FIEMAP knows nothing', () => {
    expect(extentsFromFiemap(new Float64Array(0), 100, 5000, 0)).toEqual([{ offset: 100, length: 4900, sector: undefined, mappable: false }]);
  });
});

describe('the order of extents', () => {
  it('places every sector as a naive walk over the runs does', () => {
    fc.assert(
      fc.property(runs, fc.array(fc.nat(300), { minLength: 1, maxLength: 50 }), (list, sectors) => {
        const order = new ExtentOrder(words(list));
        for (const sector of sectors) {
          let expected = sector;
          for (const run of list) {
            if ((run.flags & (FIEMAP_EXTENT_UNKNOWN | FIEMAP_EXTENT_DELALLOC | FIEMAP_EXTENT_DATA_INLINE)) !== 0) continue;
            if (run.logical / 512 <= sector) expected = sector + (run.physical - run.logical) / 512;
          }
          expect(order.place(sector)).toBe(expected);
        }
      }),
    );
  });

  it('keeps the order of the file where no place is known', () => {
    const order = new ExtentOrder(words([{ logical: 0, physical: 0, length: 4096, flags: FIEMAP_EXTENT_UNKNOWN | FIEMAP_EXTENT_DELALLOC }]));
    expect(order.runs).toBe(0);
    expect([0, 7, 2 ** 40].map((sector) => order.place(sector))).toEqual([0, 7, 2 ** 40]);
  });

  it('counts a hole on from the run before it, and one run for what lies together', () => {
    const order = new ExtentOrder(
      words([
        { logical: 0, physical: 1 << 20, length: 4096, flags: 0 },
        { logical: 4096, physical: (1 << 20) + 4096, length: 4096, flags: 0 },
        { logical: 65536, physical: 8192, length: 4096, flags: 0 },
      ]),
    );
    expect(order.runs).toBe(2);
    expect([0, 15, 16, 127, 128].map((sector) => order.place(sector))).toEqual([2048, 2063, 2064, 2175, 16]);
  });
});
