/** Which windows lost their ground, against a list of every cut. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { Cuts } from '../../src/windows/cuts.js';

describe('cuts', () => {
  it('concern the windows made before them that reach past them, and no others', () => {
    const from = fc.array(fc.nat({ max: 50 }), { maxLength: 20 });
    const window = fc.record({ generation: fc.nat({ max: 22 }), end: fc.nat({ max: 60 }) });
    fc.assert(
      fc.property(from, fc.array(window, { maxLength: 30 }), (places, windows) => {
        const cuts = new Cuts();
        const every = places.map((place, i) => ({ generation: i + 1, from: place, cause: 2 + (i % 3) }));
        for (const cut of every) cuts.add(cut.generation, cut.from, cut.cause);
        for (const { generation, end } of windows) {
          const concerned = every.filter((cut) => cut.generation > generation && cut.from < end);
          const cause = cuts.causeFor(generation, end);
          expect(cause !== 0).toBe(concerned.length > 0);
          if (cause !== 0) expect(concerned.map((cut) => cut.cause)).toContain(cause);
        }
        cuts.clear();
        for (const { generation, end } of windows) expect(cuts.causeFor(generation, end)).toBe(0);
      }),
      { numRuns: 500 },
    );
  });

  it('leave a window alone that ends where they begin', () => {
    const cuts = new Cuts();
    cuts.add(1, 4096, 2);
    expect([cuts.causeFor(0, 4096), cuts.causeFor(0, 4097), cuts.causeFor(1, 9999)]).toEqual([0, 2, 0]);
  });

  it('keep the cause of a higher cut that a lower one does not reach', () => {
    const cuts = new Cuts();
    cuts.add(3, 8192, 2);
    cuts.add(7, 65536, 3);
    expect([cuts.causeFor(5, 70000), cuts.causeFor(2, 9000), cuts.causeFor(2, 70000), cuts.causeFor(5, 60000)]).toEqual([3, 2, 2, 0]);
  });
});
