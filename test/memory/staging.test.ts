/** Memory that writes go out from. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { Staging } from '../../src/memory/staging.js';
import { createHeapSlab } from '../../src/testing/heap-slab.js';
import { ManualEngine } from '../requests/manual-engine.js';

describe('staging memory', () => {
  it('is lent in neighbouring blocks, fewer where there are no more together', () => {
    const staging = new Staging(new ManualEngine(), createHeapSlab, 8);
    expect([staging.take(3), staging.got]).toEqual([0, 3]);
    expect([staging.take(3), staging.got]).toEqual([3, 3]);
    staging.give(0, 3);
    expect([staging.take(4), staging.got, staging.free]).toEqual([0, 3, 2]);
    expect([staging.take(4), staging.got]).toEqual([6, 2]);
    expect([staging.take(1), staging.got]).toEqual([-1, 0]);
    staging.close();
  });

  it('is none for a file that nobody writes to', () => {
    const engine = new ManualEngine();
    const staging = new Staging(engine, createHeapSlab, 0);
    expect([staging.blocks, staging.index, staging.take(1), engine.slabs.length]).toEqual([0, -1, -1, 0]);
    staging.close();
  });

  it('lends each block to one at a time, and as many together as there are', () => {
    fc.assert(
      fc.property(fc.array(fc.tuple(fc.integer({ min: 1, max: 9 }), fc.nat({ max: 5 })), { maxLength: 60 }), (asked) => {
        const staging = new Staging(new ManualEngine(), createHeapSlab, 16);
        const lent: [number, number][] = [];
        const taken = new Uint8Array(16);
        for (const [count, choice] of asked) {
          if (choice < lent.length) {
            const [[first, got]] = lent.splice(choice, 1);
            staging.give(first, got);
            taken.fill(0, first, first + got);
            continue;
          }
          let most = 0;
          let run = 0;
          for (const each of taken) {
            run = each === 0 ? run + 1 : 0;
            most = Math.max(most, run);
          }
          const first = staging.take(count);
          expect(staging.got).toBe(Math.min(count, most));
          if (first < 0) continue;
          expect(taken.subarray(first, first + staging.got).every((each) => each === 0)).toBe(true);
          taken.fill(1, first, first + staging.got);
          lent.push([first, staging.got]);
          expect(staging.free).toBe(taken.reduce((sum, each) => sum + 1 - each, 0));
        }
      }),
    );
  });
});
