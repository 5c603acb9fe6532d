/** Memory of tables: what its arrays are, and that a child inherits none of it. */
import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { ownMemory, Tables } from '../../src/memory/tables.js';

const MIB = 2 ** 20;

/** KiB in memory of mappings without a name that are at least so large and that fork leaves out. */
function leftOut(least: number): number[] {
  const found: number[] = [];
  let resident = 0;
  let named = false;
  for (const line of readFileSync('/proc/self/smaps', 'utf8').split('\n')) {
    if (/^[0-9a-f]+-[0-9a-f]+ /.test(line)) named = line.split(/\s+/).length > 5 && line.split(/\s+/)[5] !== '';
    if (line.startsWith('Rss:')) resident = Number(line.split(/\s+/)[1]);
    if (line.startsWith('VmFlags:') && !named && resident >= least && / dc( |$)/.test(line)) found.push(resident);
  }
  return found;
}

describe('tables', () => {
  it('are zeroed arrays beside each other, each at a line of its own', () => {
    const tables = new Tables(4096);
    const all = [tables.uint8(3), tables.float64(5), tables.uint16(7), tables.int32(9), tables.uint32(1)];
    expect(all.map(({ length }) => length)).toEqual([3, 5, 7, 9, 1]);
    expect(all.map(({ byteOffset }) => byteOffset % 64)).toEqual([0, 0, 0, 0, 0]);
    for (const [index, array] of all.entries()) {
      expect(array.every((value) => value === 0)).toBe(true);
      array.fill(index + 1);
    }
    for (const [index, array] of all.entries()) expect(array.every((value) => value === index + 1)).toBe(true);
  });

  it('refuse more than there is room for', () => {
    const tables = new Tables(128);
    tables.uint8(65);
    expect(() => tables.uint8(1)).toThrow(/beyond 128/);
  });

  it('of a large cache are in memory that fork leaves out, and no more of it than was used', () => {
    expect(leftOut(8 * 1024)).toEqual([]);
    const tables = new Tables(64 * MIB, ownMemory);
    tables.float64(MIB).fill(-1);
    const [kilobytes, ...more] = leftOut(8 * 1024);
    expect(more).toEqual([]);
    expect(kilobytes).toBeLessThanOrEqual(10 * 1024);
    expect(tables.uint8(1)[0]).toBe(0);
  });
});
