/** Operations in flight, against a plain list of intervals. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { KIND_CONTROL, KIND_READ, KIND_WRITE, OperationTable } from '../../src/requests/operation-table.js';

interface Interval {
  operation: number;
  start: number;
  end: number;
}

const assertion = expect.objectContaining({ code: 'ERR_SECTORWISE_ASSERTION' });

describe('the table of operations', () => {
  it('knows for each sector which operation covers it, and for each range whether one touches it', () => {
    // Far up as well, where a sector is no 32-bit number.
    const base = fc.constantFrom(0, 2 ** 32 - 40, 2 ** 43);
    const step = fc.record({ add: fc.integer({ min: 0, max: 3 }), start: fc.nat({ max: 80 }), sectors: fc.integer({ min: 1, max: 24 }), which: fc.nat() });
    fc.assert(
      fc.property(base, fc.array(step, { maxLength: 80 }), (at, steps) => {
        const table = new OperationTable();
        const model: Interval[] = [];
        for (const { add, start, sectors, which } of steps) {
          if (add > 0) {
            const from = at + start;
            const end = from + sectors;
            const overlaps = model.some((other) => other.start < end && other.end > from);
            expect(table.touches(from, sectors)).toBe(overlaps);
            if (overlaps) continue;
            const operation = table.create(add === 1 ? KIND_WRITE : KIND_READ, from, sectors, 0, 0);
            expect(model.some((other) => other.operation === operation)).toBe(false);
            model.push({ operation, start: from, end });
          } else if (model.length > 0) {
            const [gone] = model.splice(which % model.length, 1);
            table.destroy(gone.operation);
          }
          expect(table.count).toBe(model.length);
        }
        for (let sector = at - 2; sector < at + 110; sector++) {
          if (sector < 0) continue;
          expect(table.at(sector)).toBe(model.find(({ start, end }) => start <= sector && sector < end)?.operation ?? -1);
        }
      }),
      { numRuns: 300 },
    );
  });

  it('throws when an operation overlaps another, whichever way', () => {
    for (const [start, sectors] of [
      [8, 8],
      [0, 9],
      [15, 1],
      [15, 100],
      [0, 100],
      [9, 2],
    ]) {
      const table = new OperationTable();
      table.create(KIND_READ, 8, 8, 0, 0);
      expect(() => table.create(KIND_WRITE, start, sectors, 0, 0), `${start}+${sectors}`).toThrow(assertion);
    }
    const table = new OperationTable();
    table.create(KIND_READ, 8, 8, 0, 0);
    table.create(KIND_READ, 0, 8, 0, 0);
    table.create(KIND_READ, 16, 8, 0, 0);
    expect([7, 8, 15, 16].map((sector) => table.start[table.at(sector)])).toEqual([0, 8, 8, 16]);
  });

  it('has no sectors for control operations', () => {
    const table = new OperationTable();
    const first = table.create(KIND_CONTROL, 0, 0, 0, 0);
    const second = table.create(KIND_CONTROL, 0, 0, 0, 0);
    expect(table.at(0)).toBe(-1);
    expect(table.touches(0, 1000)).toBe(false);
    table.destroy(first);
    expect([table.resolve(table.handle(second)), table.count]).toEqual([second, 1]);
  });

  it('throws when an operation ends twice', () => {
    const table = new OperationTable();
    const operation = table.create(KIND_READ, 0, 8, 0, 0);
    table.destroy(operation);
    expect(() => table.destroy(operation)).toThrow(assertion);
    expect(table.count).toBe(0);
  });

  it('refuses the handle of an operation that ended, and of one that was sent again', () => {
    const table = new OperationTable();
    const operation = table.create(KIND_READ, 0, 8, 0, 0);
    const first = table.handle(operation);
    table.renew(operation);
    const second = table.handle(operation);
    expect([table.resolve(first), table.resolve(second)]).toEqual([-1, operation]);
    table.destroy(operation);
    expect(table.resolve(second)).toBe(-1);
    const reused = table.create(KIND_READ, 0, 8, 0, 0);
    expect(reused).toBe(operation);
    expect([table.resolve(first), table.resolve(second), table.resolve(table.handle(reused))]).toEqual([-1, -1, operation]);
    expect([0, 5, 0xffffffff, 2 ** 18 - 1].map((wrong) => table.resolve(wrong))).toEqual([-1, -1, -1, -1]);
  });

  it('gives no handle 0, however often an operation is sent again', () => {
    const table = new OperationTable();
    const operation = table.create(KIND_READ, 0, 8, 0, 0);
    const first = table.handle(operation);
    for (let round = 1; round < 2 ** 14 - 1; round++) {
      table.renew(operation);
      expect(table.handle(operation)).not.toBe(0);
      expect(table.resolve(first)).toBe(-1);
    }
    table.renew(operation);
    expect(table.handle(operation)).toBe(first);
  });

  it('keeps everything when there are more operations, and more waiters, than it had room for', () => {
    const table = new OperationTable();
    const count = 3000;
    const operations = Array.from({ length: count }, (_, i) => {
      // From the outside in, so that insertions come at both ends and in the middle.
      const place = i % 2 === 0 ? i / 2 : count - (i + 1) / 2;
      const operation = table.create(KIND_READ, place * 8, 8, 1, place * 4096);
      table.link(operation, place + 1);
      table.link(operation, place + 100_000);
      return { operation, place, handle: table.handle(operation) };
    });
    expect(table.count).toBe(count);
    for (const { operation, place, handle } of operations) {
      expect(table.at(place * 8 + 5)).toBe(operation);
      expect(table.resolve(handle)).toBe(operation);
      expect([table.start[operation], table.sectors[operation], table.slab[operation], table.offset[operation]]).toEqual([place * 8, 8, 1, place * 4096]);
      expect(waitersOf(table, operation).sort((a, b) => a - b)).toEqual([place + 1, place + 100_000]);
    }
    for (const { operation } of operations) table.destroy(operation);
    expect(table.count).toBe(0);
    expect(table.touches(0, count * 8)).toBe(false);
  });

  it('keeps the waiters of each operation apart, also after links were used again', () => {
    const change = fc.record({ operation: fc.nat({ max: 5 }), link: fc.boolean() });
    fc.assert(
      fc.property(fc.array(change, { maxLength: 100 }), (changes) => {
        const table = new OperationTable();
        const create = (i: number): number => table.create(KIND_READ, i * 8, 8, 0, 0);
        const operations = Array.from({ length: 6 }, (_, i) => ({ operation: create(i), waiters: [] as number[] }));
        let next = 1;
        for (const { operation: i, link } of changes) {
          const entry = operations[i];
          if (link) {
            table.link(entry.operation, next);
            entry.waiters.push(next++);
          } else {
            table.destroy(entry.operation);
            operations[i] = { operation: create(i), waiters: [] };
          }
        }
        for (const { operation, waiters } of operations) expect(waitersOf(table, operation).reverse()).toEqual(waiters);
      }),
    );
  });
});

function waitersOf(table: OperationTable, operation: number): number[] {
  const handles: number[] = [];
  for (let link = table.waiters[operation]; link >= 0; link = table.linkNext(link)) handles.push(table.linkSlot(link));
  return handles;
}
