/** Fills, and what counts as resident after them. */
import { describe, expect, it } from 'vitest';
import { FillStore } from '../../src/memory/fill-store.js';
import type { FileMapping } from '../../src/memory/mapping.js';
import { KIND_READ, OperationTable } from '../../src/requests/operation-table.js';

function fixture(): { store: FillStore; mapping: { drops: number }; operations: OperationTable; marked: number[][] } {
  const marked: number[][] = [];
  const mapping = { drops: 0, missing: () => 0, markResident: (offset: number, length: number) => marked.push([offset, length]) };
  const store = new FillStore(mapping as unknown as FileMapping, 0);
  const operations = new OperationTable();
  store.operations = operations;
  return { store, mapping, operations, marked };
}

describe('a fill', () => {
  it('makes its range resident when it ends well', () => {
    const { store, operations, marked } = fixture();
    operations.create(KIND_READ, 128, 128, 0, 0);
    store.began(128);
    store.ended(128, 128, false, true);
    expect(marked).toEqual([[65536, 65536]]);
  });

  it('makes nothing resident where it failed', () => {
    const { store, operations, marked } = fixture();
    operations.create(KIND_READ, 128, 128, 0, 0);
    store.began(128);
    store.ended(128, 128, false, false);
    expect(marked).toEqual([]);
  });

  it('makes nothing resident if pages were dropped while it was on its way; one that begins later does', () => {
    const { store, mapping, operations, marked } = fixture();
    for (let i = 0; i < 100; i++) {
      operations.create(KIND_READ, i * 128, 128, 0, 0);
      store.began(i * 128);
    }
    mapping.drops++;
    operations.create(KIND_READ, 100_000, 128, 0, 0);
    store.began(100_000);
    for (let i = 0; i < 100; i++) store.ended(i * 128, 128, false, true);
    expect(marked).toEqual([]);
    store.ended(100_000, 128, false, true);
    expect(marked).toEqual([[51_200_000, 65536]]);
  });
});
