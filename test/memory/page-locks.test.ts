/** Locks that nest, over a kernel whose do not. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type PageHold, PageLocks } from '../../src/memory/page-locks.js';

const PAGE = 4096;
const ENOMEM = -12;

/** Throws when a page is locked or unlocked twice; refuses beyond `limit` pages. */
class Kernel {
  readonly locked = new Set<number>();
  limit = Number.POSITIVE_INFINITY;
  calls = 0;

  lock(offset: number, length: number): number {
    this.calls++;
    if (this.locked.size + length / PAGE > this.limit) return ENOMEM;
    for (let page = offset / PAGE; page < (offset + length) / PAGE; page++) {
      if (this.locked.has(page)) throw new Error(`page ${page} locked twice`);
      this.locked.add(page);
    }
    return 0;
  }

  unlock(offset: number, length: number): number {
    this.calls++;
    for (let page = offset / PAGE; page < (offset + length) / PAGE; page++) {
      if (!this.locked.delete(page)) throw new Error(`page ${page} unlocked twice`);
    }
    return 0;
  }
}

describe('page locks', () => {
  it('are exactly the pages that somebody holds, after anything', () => {
    const step = fc.oneof(
      fc.record({ do: fc.constant('take' as const), first: fc.nat(1600), count: fc.integer({ min: 1, max: 700 }) }),
      fc.record({ do: fc.constant('give' as const), first: fc.nat(), count: fc.constant(0) }),
      fc.record({ do: fc.constant('cut' as const), first: fc.nat(2400), count: fc.constant(0) }),
    );
    fc.assert(
      fc.property(fc.array(step, { maxLength: 40 }), fc.integer({ min: 300, max: 4000 }), (steps, limit) => {
        const kernel = new Kernel();
        kernel.limit = limit;
        const locks = new PageLocks(kernel);
        const holds: PageHold[] = [];
        for (const { do: what, first, count } of steps) {
          if (what === 'take') {
            const free = locks.free(first, first + count);
            const before = kernel.locked.size;
            const hold = locks.take(first, first + count);
            if (typeof hold === 'number') {
              expect(before + free).toBeGreaterThan(limit);
              expect(kernel.locked.size).toBe(before);
            } else {
              expect(kernel.locked.size).toBe(before + free);
              holds.push(hold);
            }
          } else if (what === 'give') {
            const [hold] = holds.splice(first % Math.max(1, holds.length), 1);
            if (hold !== undefined) locks.give(hold);
          } else {
            locks.cut(first);
          }
          const held = new Set<number>();
          for (const hold of holds) for (let page = hold.first; page < hold.end; page++) held.add(page);
          expect([...kernel.locked].sort((a, b) => a - b)).toEqual([...held].sort((a, b) => a - b));
          for (const hold of holds) expect(locks.known(hold.first, hold.end)).toBe(true);
        }
        for (const hold of holds) locks.give(hold);
        expect(kernel.locked.size).toBe(0);
      }),
    );
  });

  it('go to the kernel as whole runs', () => {
    const kernel = new Kernel();
    const locks = new PageLocks(kernel);
    const inner = locks.take(600, 700) as PageHold;
    const outer = locks.take(100, 2000) as PageHold;
    expect(kernel.calls).toBe(3);
    locks.give(inner);
    expect(kernel.calls).toBe(3);
    locks.give(outer);
    expect([kernel.calls, kernel.locked.size]).toEqual([4, 0]);
  });

  it('are given up once, whoever asks again', () => {
    const kernel = new Kernel();
    const locks = new PageLocks(kernel);
    const one = locks.take(0, 10) as PageHold;
    const other = locks.take(0, 10) as PageHold;
    locks.give(one);
    locks.give(one);
    expect(kernel.locked.size).toBe(10);
    locks.give(other);
    expect(kernel.locked.size).toBe(0);
  });

  it('do not vouch for pages that left memory although they were locked, until the last of their cell is given up', () => {
    const kernel = new Kernel();
    const locks = new PageLocks(kernel);
    const holds = [locks.take(0, 10) as PageHold, locks.take(5, 600) as PageHold];
    expect([locks.known(0, 600), locks.known(0, 601)]).toEqual([true, false]);
    locks.forget(3, 4);
    expect([locks.known(0, 5), locks.known(512, 600)]).toEqual([false, true]);
    for (const hold of holds) locks.give(hold);
    locks.take(0, 10);
    expect(locks.known(0, 10)).toBe(true);
  });
});
