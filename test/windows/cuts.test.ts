/** Which windows lost their ground, against a list of every cut. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { Cuts } from '../../src/windows/cuts.js';

describe('cuts', () => {
  it('and losses concern the windows made before them that reach into them, and no others', () => {
    const length = fc.oneof(fc.integer({ min: 1, max: 12 }), fc.constant(Number.POSITIVE_INFINITY));
    const lost = fc.array(fc.record({ from: fc.nat({ max: 50 }), length }), { maxLength: 20 });
    const window = fc.record({ generation: fc.nat({ max: 22 }), offset: fc.nat({ max: 50 }), length: fc.integer({ min: 1, max: 15 }) });
    fc.assert(
      fc.property(lost, fc.array(window, { maxLength: 30 }), (places, windows) => {
        const cuts = new Cuts();
        const every = places.map((place, i) => ({ generation: i + 1, from: place.from, to: place.from + place.length, cause: 2 + (i % 4) }));
        for (const { generation, from, to, cause } of every) {
          if (to === Number.POSITIVE_INFINITY) cuts.add(generation, from, cause);
          else cuts.addLoss(generation, from, to, cause);
        }
        for (const { generation, offset, length: bytes } of windows) {
          const end = offset + bytes;
          const concerned = every.filter((cut) => cut.generation > generation && cut.from < end && cut.to > offset);
          const cause = cuts.causeFor(generation, offset, end);
          expect(cause !== 0).toBe(concerned.length > 0);
          if (cause !== 0) expect(concerned.map((cut) => cut.cause)).toContain(cause);
        }
        cuts.clear();
        for (const { generation, offset } of windows) expect(cuts.causeFor(generation, offset, offset + 9)).toBe(0);
      }),
      { numRuns: 500 },
    );
  });

  it('leave a window alone that ends where they begin', () => {
    const cuts = new Cuts();
    cuts.add(1, 4096, 2);
    expect([cuts.causeFor(0, 0, 4096), cuts.causeFor(0, 0, 4097), cuts.causeFor(1, 0, 9999)]).toEqual([0, 2, 0]);
  });

  it('leave a window alone that lies beside a loss, and one that was made after it', () => {
    const cuts = new Cuts();
    cuts.addLoss(1, 4096, 8192, 5);
    expect([cuts.causeFor(0, 0, 4096), cuts.causeFor(0, 8192, 9000), cuts.causeFor(0, 8191, 8192), cuts.causeFor(1, 4096, 8192)]).toEqual([0, 0, 5, 0]);
  });

  it('keep the cause of a higher cut that a lower one does not reach', () => {
    const cuts = new Cuts();
    cuts.add(3, 8192, 2);
    cuts.add(7, 65536, 3);
    expect([cuts.causeFor(5, 0, 70000), cuts.causeFor(2, 0, 9000), cuts.causeFor(2, 0, 70000), cuts.causeFor(5, 0, 60000)]).toEqual([3, 2, 2, 0]);
  });
});
