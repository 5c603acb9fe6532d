/** The pool of slots, against a model that remembers every handle. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { SLOT_FAILED, SLOT_FREE, SLOT_READY, SLOT_WAITING, SlotPool } from '../../src/requests/slot-pool.js';

describe('the slot pool', () => {
  it('hands out each slot once, and refuses the handles of slots that were given back', () => {
    const step = fc.record({ take: fc.boolean(), which: fc.nat() });
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 100 }), fc.array(step, { maxLength: 400 }), (slots, steps) => {
        const pool = new SlotPool(slots, 4);
        const live = new Map<number, number>();
        const dead: number[] = [];
        for (const { take, which } of steps) {
          if (take) {
            const slot = pool.take();
            if (live.size === slots) {
              expect(slot).toBe(-1);
              continue;
            }
            expect(live.has(slot)).toBe(false);
            expect(slot).toBeGreaterThanOrEqual(0);
            expect(slot).toBeLessThan(slots);
            expect([pool.state(slot), pool.head[slot], pool.next[slot], pool.count[slot], pool.remaining[slot], pool.pending[slot]]).toEqual([
              SLOT_WAITING,
              slot,
              -1,
              0,
              0,
              1,
            ]);
            live.set(slot, pool.handle(slot));
          } else if (live.size > 0) {
            const [slot, handle] = [...live][which % live.size];
            pool.give(slot);
            live.delete(slot);
            dead.push(handle);
          }
          expect(pool.freeCount).toBe(slots - live.size);
        }
        for (const [slot, handle] of live) expect(pool.resolve(handle)).toBe(slot);
        for (const handle of dead) expect(pool.resolve(handle)).toBe(-1);
      }),
      { numRuns: 300 },
    );
  });

  it('refuses a handle again and again, until the generations have gone once round', () => {
    const pool = new SlotPool(1, 1);
    const seen = new Set<number>();
    const first = pool.handle(pool.take());
    pool.give(0);
    let before = first;
    let rounds = 1;
    for (;;) {
      pool.take();
      const handle = pool.handle(0);
      expect(handle).not.toBe(0);
      if (handle === first) break;
      expect(seen.has(handle)).toBe(false);
      seen.add(handle);
      if (pool.resolve(first) !== -1 || pool.resolve(before) !== -1) throw new Error('an old handle was taken for a new one');
      before = handle;
      pool.give(0);
      rounds++;
    }
    expect(rounds).toBe(2 ** 16 - 1);
  });

  it('refuses handles that never were', () => {
    const pool = new SlotPool(4, 1);
    const handle = pool.handle(pool.take());
    for (const wrong of [0, 1, handle + 1, handle + 7, 0xffffffff, 0xffff]) expect(pool.resolve(wrong)).toBe(-1);
  });

  it('is empty after as many as it has, whether or not they fill its last word', () => {
    for (const slots of [1, 31, 32, 33, 64, 257]) {
      const pool = new SlotPool(slots, 1);
      const taken = new Set(Array.from({ length: slots }, () => pool.take()));
      expect(taken.size).toBe(slots);
      expect(taken.has(-1)).toBe(false);
      expect(pool.take()).toBe(-1);
      pool.give(slots - 1);
      expect(pool.take()).toBe(slots - 1);
      expect(pool.take()).toBe(-1);
    }
  });

  it('throws at every transition that cannot be', () => {
    const allowed = new Set(['0>1', '1>2', '1>3', '1>0', '2>0', '3>0']);
    const ways: Record<number, number[]> = { [SLOT_FREE]: [], [SLOT_WAITING]: [], [SLOT_READY]: [SLOT_READY], [SLOT_FAILED]: [SLOT_FAILED] };
    for (const from of [SLOT_FREE, SLOT_WAITING, SLOT_READY, SLOT_FAILED]) {
      for (const to of [SLOT_FREE, SLOT_WAITING, SLOT_READY, SLOT_FAILED]) {
        const pool = new SlotPool(1, 1);
        if (from !== SLOT_FREE) pool.take();
        for (const state of ways[from]) pool.move(0, state);
        const move = (): void => pool.move(0, to);
        if (allowed.has(`${from}>${to}`)) {
          move();
          expect(pool.state(0)).toBe(to);
        } else {
          expect(move).toThrow(expect.objectContaining({ code: 'ERR_SECTORWISE_ASSERTION' }));
          expect(pool.state(0)).toBe(from);
        }
      }
    }
  });

  it('throws when a slot is given back twice, and stays whole', () => {
    const pool = new SlotPool(2, 1);
    const slot = pool.take();
    pool.give(slot);
    expect(() => pool.give(slot)).toThrow(/cannot go from free to free/);
    expect(pool.freeCount).toBe(2);
  });
});
