/**
 * Slabs on the real kernel: two mappings of one memory, scribbles found exactly, views that outlive it.
 */
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { native } from '../../src/io/native.js';
import { createSlab } from '../../src/memory/slab.js';

const PAGE = 4096;
const addon = fileURLToPath(new URL('../../build/Release/sectorwise.node', import.meta.url));
const scanRefused = native().pagemapScan() < 0;
const needsScan = scanRefused ? ' (skipped: PAGEMAP_SCAN is refused here)' : '';

/** Runs JavaScript in a process of its own with `gc()` and the addon as `native`; what it printed. */
function inChild(code: string): string {
  const prelude = `const native = require(${JSON.stringify(addon)}); const turn = () => new Promise((resolve) => setImmediate(resolve));
    const collect = async () => { for (let round = 0; round < 5; round++) { gc(); await turn(); } };`;
  const child = spawnSync(
    process.execPath,
    ['--expose-gc', '-e', `${prelude}(async () => { ${code} })().catch((error) => { console.error(error); process.exit(9); });`],
    {
      encoding: 'utf8',
    },
  );
  expect({ status: child.status, signal: child.signal, stderr: child.stderr }).toEqual({ status: 0, signal: null, stderr: '' });
  return child.stdout.trim();
}

function random(seed: number): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}

describe('a slab', () => {
  it('is zeroed, and shows through its private mapping what is stored into the shared one', () => {
    const slab = createSlab(64 * PAGE);
    const shared = new Uint8Array(slab.shared);
    const view = new Uint8Array(slab.private);
    expect(slab.bytes).toBe(64 * PAGE);
    expect(view.byteLength).toBe(64 * PAGE);
    expect(view.every((byte) => byte === 0)).toBe(true);
    shared[5 * PAGE + 17] = 42;
    expect(view[5 * PAGE + 17]).toBe(42);
    slab.close();
  });

  it('keeps a stray store into the private mapping away from the shared one', () => {
    const slab = createSlab(4 * PAGE);
    const shared = new Uint8Array(slab.shared).fill(1);
    new Uint8Array(slab.private)[PAGE] = 99;
    expect(shared[PAGE]).toBe(1);
    slab.close();
  });

  it(`finds one scribbled page among a thousand and restores it${needsScan}`, { skip: scanRefused }, () => {
    const slab = createSlab(1000 * PAGE);
    const shared = new Uint8Array(slab.shared).fill(7);
    const view = new Uint8Array(slab.private);
    for (let page = 0; page < 1000; page++) expect(view[page * PAGE]).toBe(7);
    expect(slab.repair(0, slab.bytes)).toBe(0);
    view[611 * PAGE + 5] = 8;
    shared[611 * PAGE + 6] = 9;
    expect(view[611 * PAGE + 6]).toBe(7);
    expect(slab.repair(0, 611 * PAGE)).toBe(0);
    expect(slab.repair(612 * PAGE, 388 * PAGE)).toBe(0);
    expect(slab.repair(0, slab.bytes)).toBe(1);
    expect([view[611 * PAGE + 5], view[611 * PAGE + 6]]).toEqual([7, 9]);
    expect(slab.repair(0, slab.bytes)).toBe(0);
    slab.close();
  });

  it(`counts exactly the pages of random sets of scribbles, in the range alone${needsScan}`, { skip: scanRefused }, () => {
    const pages = 2048;
    const slab = createSlab(pages * PAGE);
    const shared = new Uint8Array(slab.shared);
    const view = new Uint8Array(slab.private);
    for (let page = 0; page < pages; page++) shared[page * PAGE] = page % 251;
    for (let seed = 1; seed <= 40; seed++) {
      const next = random(seed);
      const density = next() ** 3;
      const scribbled = new Set<number>();
      for (let page = 0; page < pages; page++) {
        if (next() >= density) continue;
        scribbled.add(page);
        view[page * PAGE + 8] = 255;
      }
      const first = Math.floor(next() * pages);
      const count = Math.floor(next() * (pages - first));
      const inRange = [...scribbled].filter((page) => page >= first && page < first + count);
      expect(slab.repair(first * PAGE, count * PAGE)).toBe(inRange.length);
      for (const page of inRange) expect([view[page * PAGE], view[page * PAGE + 8]]).toEqual([page % 251, 0]);
      expect(slab.repair(0, slab.bytes)).toBe(scribbled.size - inRange.length);
    }
    slab.close();
  });

  it('refuses a size that is no multiple of a page, and a range outside of it', () => {
    expect(() => createSlab(100)).toThrowError(expect.objectContaining({ code: 'EINVAL', syscall: 'memfd_create' }));
    expect(() => createSlab(0)).toThrowError(expect.objectContaining({ code: 'EINVAL' }));
    const slab = createSlab(4 * PAGE);
    expect(slab.repair(0, 5 * PAGE)).toBeLessThan(0);
    expect(slab.repair(-PAGE, PAGE)).toBeLessThan(0);
    slab.close();
  });

  it('reads zeros and takes stores without effect after close, and can be closed twice', () => {
    const slab = createSlab(16 * PAGE);
    const shared = new Uint8Array(slab.shared).fill(1);
    const view = new Uint8Array(slab.private);
    expect(view[0]).toBe(1);
    slab.close();
    slab.close();
    expect([shared[0], view[0]]).toEqual([0, 0]);
    shared[0] = 5;
    view[0] = 6;
    expect([shared[0], view[0]]).toEqual([5, 6]);
    expect(slab.repair(0, PAGE)).toBe(0);
  });

  it('gives its memory back with close, while views of it are still held', () => {
    const out = inChild(`
      const resident = () => Number(/RssShmem:\\s+(\\d+)/.exec(require('node:fs').readFileSync('/proc/self/status', 'utf8'))[1]) * 1024;
      const bytes = 64 << 20;
      const slab = native.createSlab(bytes);
      const view = new Uint8Array(slab.shared).fill(3);
      const before = resident();
      slab.close();
      const zero = view[0];
      (async () => {
        // Much memory is given back by a thread of its own.
        for (let i = 0; i < 1000 && before - resident() < bytes; i++) await new Promise((resolve) => setTimeout(resolve, 10));
        console.log(before - resident() >= bytes, zero);
      })();`);
    expect(out).toBe('true 0');
  });

  it('leaves views safe after close and collection of everything else', () => {
    const out = inChild(`
      const views = [];
      (() => { for (let round = 0; round < 20; round++) {
        const slab = native.createSlab(1 << 20);
        const shared = new Uint8Array(slab.shared);
        shared.fill(round + 1);
        views.push(shared, new Uint8Array(slab.private).subarray(4096));
        slab.close();
      } })();
      await collect();
      for (let round = 0; round < 20; round++) native.createSlab(1 << 20);
      await collect();
      let sum = 0;
      for (const view of views) { for (let at = 0; at < view.length; at += 4096) sum += view[at]; view.fill(9); }
      console.log(sum);`);
    expect(out).toBe('0');
  });

  it('lives on in a view when it was dropped without close', () => {
    const out = inChild(`
      const view = (() => { const slab = native.createSlab(1 << 20); new Uint8Array(slab.shared).fill(4); return new Uint8Array(slab.private); })();
      await collect();
      console.log(view[0], view[view.length - 1]);`);
    expect(out).toBe('4 4');
  });

  it('gives its address space back once its buffers were collected', () => {
    const out = inChild(`
      const size = () => Number(/VmSize:\\s+(\\d+)/.exec(require('node:fs').readFileSync('/proc/self/status', 'utf8'))[1]) * 1024;
      native.createSlab(4096).close();
      await collect();
      const before = size();
      for (let round = 0; round < 400; round++) { native.createSlab(64 << 20).close(); if (round % 20 === 0) await collect(); }
      await collect();
      console.log(size() - before < 20 * 128 * 2 ** 20);`);
    expect(out).toBe('true');
  });

  it('is repaired wholesale where PAGEMAP_SCAN is refused (needs root: a process that changed its user)', { skip: process.getuid?.() !== 0 }, () => {
    const out = inChild(`
      process.setuid(65534);
      const slab = native.createSlab(16 * 4096);
      const shared = new Uint8Array(slab.shared).fill(2);
      const view = new Uint8Array(slab.private);
      view[5 * 4096] = 77;
      console.log(native.pagemapScan() < 0, slab.repair(0, 16 * 4096), view[5 * 4096], shared[5 * 4096]);`);
    expect(out).toBe('true 0 2 2');
  });
});
