/** Starts in order, against a sorted list, with so many of them that chunks split and merge. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { SectorOrder } from '../../src/requests/sector-order.js';

/** Sorted, and searched from the end. */
class Model {
  readonly entries = new Map<number, number>();

  lastFrom(sector: number): number {
    let best = -1;
    for (const start of this.entries.keys()) if (start <= sector && start > best) best = start;
    return best < 0 ? -1 : this.entries.get(best)!;
  }
}

function random(seed: number): (below: number) => number {
  let state = seed | 1;
  return (below) => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) % below;
  };
}

describe('the order of sectors', () => {
  it('finds the last start at or before any sector, as chunks split, fill, empty and merge', () => {
    // Phases of growing and shrinking, from any side, with starts beyond 32 bits.
    const phase = fc.record({
      count: fc.integer({ min: 1, max: 400 }),
      grow: fc.boolean(),
      way: fc.constantFrom('any', 'ascending', 'descending'),
      far: fc.boolean(),
    });
    fc.assert(
      fc.property(fc.array(phase, { minLength: 1, maxLength: 8 }), fc.integer(), (phases, seed) => {
        const order = new SectorOrder();
        const model = new Model();
        const draw = random(seed);
        let number = 0;
        for (const { count, grow, way, far } of phases) {
          const base = far ? 2 ** 40 : 0;
          const sorted = [...model.entries.keys()].sort((a, b) => a - b);
          for (let i = 0; i < count; i++) {
            if (grow) {
              const start = base + (way === 'any' ? draw(5000) : way === 'ascending' ? 2000 + i : 2000 - i);
              if (model.entries.has(start)) continue;
              order.insert(start, number);
              model.entries.set(start, number++);
            } else if (sorted.length > 0) {
              const at = way === 'any' ? draw(sorted.length) : way === 'ascending' ? 0 : sorted.length - 1;
              const [start] = sorted.splice(at, 1);
              order.remove(start, model.entries.get(start)!);
              model.entries.delete(start);
            }
          }
          for (let i = 0; i < 40; i++) {
            const sector = (i % 2 === 0 ? 0 : 2 ** 40) + draw(5100);
            expect(order.lastFrom(sector)).toBe(model.lastFrom(sector));
          }
        }
        for (const [start, value] of model.entries) {
          expect(order.lastFrom(start)).toBe(value);
          expect(order.lastFrom(start - 1)).toBe(model.lastFrom(start - 1));
        }
        for (const [start, value] of model.entries) order.remove(start, value);
        expect(order.lastFrom(Number.MAX_SAFE_INTEGER)).toBe(-1);
      }),
      { numRuns: 150 },
    );
  });

  it('keeps a hundred thousand, put in and taken out in any order', () => {
    const order = new SectorOrder();
    const count = 100_000;
    const draw = random(99);
    const starts = Float64Array.from({ length: count }, (_, i) => i * 8);
    const shuffle = (): void => {
      for (let i = count - 1; i > 0; i--) {
        const other = draw(i + 1);
        [starts[i], starts[other]] = [starts[other], starts[i]];
      }
    };
    shuffle();
    for (const start of starts) order.insert(start, start / 8);
    for (let i = 0; i < count; i++) if (order.lastFrom(i * 8 + 7) !== i) throw new Error(`${i} was not found`);
    shuffle();
    for (const [i, start] of starts.entries()) {
      order.remove(start, start / 8);
      if (i % 1000 === 0 && order.lastFrom(start) === start / 8) throw new Error(`${start} is still there`);
    }
    expect(order.lastFrom(count * 8)).toBe(-1);
  });

  it('throws when what is to be removed is not there, or has another number', () => {
    const order = new SectorOrder();
    expect(() => order.remove(0, 1)).toThrow(/not in order/);
    order.insert(8, 1);
    expect(() => order.remove(8, 2)).toThrow(/not in order/);
    expect(() => order.remove(0, 1)).toThrow(/not in order/);
    order.remove(8, 1);
    expect(order.lastFrom(8)).toBe(-1);
  });
});
