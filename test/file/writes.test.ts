/** What writing promises: order, durability, sizes, windows that are marked, and the blocking twins between asynchronous calls. */
import { readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, afterEach, beforeEach, describe, expect, it } from 'vitest';
import { type BlockFile, type Caching, type OpenOptions, open } from '../../src/index.js';
import { Random } from '../../src/testing/random.js';
import { Places } from '../fixtures/places.js';

const BYTES = 1_000_001;

const lab = new Places();
const path = join(lab.folder(), 'file');
const start = Buffer.from(new Random(5).fill(new Uint8Array(BYTES)));
afterAll(() => lab.dispose());

describe.each<Caching>(['page-cache', 'direct'])('%s', (caching) => {
  const opened: BlockFile[] = [];
  let model: Buffer;
  beforeEach(() => {
    model = Buffer.from(start);
    writeFileSync(path, model);
  });
  afterEach(async () => {
    for (const file of opened.splice(0)) await file.close();
  });

  async function opening(options: OpenOptions = {}): Promise<BlockFile> {
    const file = await open(path, { caching, access: 'read-write', ...options });
    opened.push(file);
    return file;
  }
  const same = (actual: Uint8Array, expected: Uint8Array): void => expect(Buffer.compare(actual, expected)).toBe(0);

  describe('writes', () => {
    it('are in the file after close, without a flush of the user', async () => {
      const file = await opening();
      await file.write(Buffer.from('hello'), 999_999);
      await file.close();
      same(readFileSync(path), Buffer.concat([model.subarray(0, 999_999), Buffer.from('hello')]));
    });

    it('leave zeros in a gap before them', async () => {
      const file = await opening();
      await file.write(Buffer.from('end'), BYTES + 100_000);
      const expected = Buffer.concat([model, Buffer.alloc(100_000), Buffer.from('end')]);
      const target = Buffer.alloc(expected.length);
      expect(await file.read(target, 0)).toBe(expected.length);
      same(target, expected);
      await file.flush();
      same(readFileSync(path), expected);
    });

    it('of nothing change nothing', async () => {
      const file = await opening();
      expect(await file.write(new Uint8Array(0), BYTES + 5)).toBe(0);
      expect(file.writeSync(new Uint8Array(0), BYTES + 5)).toBe(0);
      await file.flush();
      expect(statSync(path).size).toBe(BYTES);
      expect(file.size).toBe(BYTES);
    });

    it('larger than the cache are taken whole', async () => {
      const file = await opening({ cacheSize: 64 * 1024 });
      const source = new Random(31).fill(new Uint8Array(3_000_003));
      expect(await file.write(source, 13)).toBe(source.length);
      expect(file.writeSync(source.subarray(0, 700_000), 2_000_000)).toBe(700_000);
      const expected = Buffer.concat([model.subarray(0, 13), source]);
      expected.set(source.subarray(0, 700_000), 2_000_000);
      await file.flush();
      same(readFileSync(path), expected);
    });

    it('count in the size at once', async () => {
      const file = await opening();
      const write = file.write(Buffer.alloc(10), 2_000_000);
      expect(file.size).toBe(2_000_010);
      await write;
      expect(file.size).toBe(2_000_010);
    });

    it('from a source that lies anywhere in memory arrive as they are', async () => {
      const file = await opening();
      const space = new Random(37).fill(new Uint8Array(10_000));
      for (let shift = 0; shift < 9; shift++) {
        const source = space.subarray(shift, shift + 4096 + shift);
        await file.write(source, 8192 * shift + 3 * shift);
        model.set(source, 8192 * shift + 3 * shift);
      }
      const shared = new Uint8Array(new SharedArrayBuffer(100)).fill(9);
      await file.write(shared, 0);
      model.set(shared, 0);
      await file.flush();
      same(readFileSync(path), model);
    });

    it('that overlap a thousand times end as in the order of the calls', async () => {
      const file = await opening({ cacheSize: 128 * 1024 });
      const random = new Random(41);
      const all: Promise<unknown>[] = [];
      for (let i = 0; i < 1000; i++) {
        const source = new Uint8Array(1 + random.below(6000)).fill(i);
        const offset = random.below(300_000);
        model.set(source, offset);
        all.push(file.write(source, offset));
        if (i % 100 === 50) all.push(file.flush());
      }
      await Promise.all(all);
      await file.close();
      same(readFileSync(path), model);
    });

    it('are aborted whole or not at all', async () => {
      const file = await opening();
      const control = new AbortController();
      const results = Array.from({ length: 20 }, (_, i) =>
        file.write(new Uint8Array(5000).fill(i), i * 5000 + 7, { signal: control.signal }).then(
          () => 'written',
          (error) => error.name,
        ),
      );
      control.abort();
      const outcomes = await Promise.all(results);
      for (const [i, outcome] of outcomes.entries()) {
        expect(['written', 'AbortError']).toContain(outcome);
        if (outcome === 'written') model.fill(i, i * 5000 + 7, (i + 1) * 5000 + 7);
      }
      await file.flush();
      same(readFileSync(path), model);
      await expect(file.write(new Uint8Array(1), 0, { signal: AbortSignal.abort('why') })).rejects.toMatchObject({ name: 'AbortError', cause: 'why' });
    });
  });

  describe('flush', () => {
    it('is one for concurrent calls, and another one after a change', async () => {
      const file = await opening();
      await file.write(Buffer.from('a'), 0);
      const first = file.flush();
      const second = file.flush();
      const write = file.write(Buffer.from('b'), 1);
      const third = file.flush();
      expect(second).toBe(first);
      expect(third).not.toBe(first);
      await Promise.all([first, write, third]);
      using window = await file.window(100, 10, { writable: true });
      const fourth = file.flush();
      window.bytes[0] = 1;
      window.markDirty(0, 1);
      const fifth = file.flush();
      expect(fifth).not.toBe(fourth);
      await Promise.all([fourth, fifth]);
      model.set(Buffer.from('ab'), 0);
      model[100] = 1;
      same(readFileSync(path), model);
    });

    it('goes on beside the writes of many callers, and each finds its bytes in the file when its own is over', async () => {
      const file = await opening();
      const writer = async (number: number): Promise<void> => {
        for (let i = 0; i < 4; i++) {
          const at = number * 20_000 + i * 1500 + 7;
          const source = new Uint8Array(1500).fill(number * 4 + i);
          model.set(source, at);
          if (i % 2 === 0) await file.write(source, at);
          else void file.write(source, at);
          await file.flush();
          same(readFileSync(path).subarray(at, at + 1500), source);
        }
      };
      await Promise.all(Array.from({ length: 32 }, (_, number) => writer(number)));
      same(readFileSync(path), model);
      // Cut and made longer between flushes that nobody waits for.
      const all = [file.flush(), file.resize(700_000), file.flush(), file.write(Buffer.from('after'), 700_000), file.flush(), file.flush()];
      file.writeSync(Buffer.from('sync'), 0);
      file.flushSync();
      await Promise.all(all);
      model.set(Buffer.from('sync'), 0);
      same(readFileSync(path), Buffer.concat([model.subarray(0, 700_000), Buffer.from('after')]));
    });

    it('takes marked bytes as they are when it is called', async () => {
      const file = await opening();
      using window = await file.window(8192, 4096, { writable: true });
      window.bytes.fill(1);
      window.markDirty();
      const flushed = file.flush();
      if (caching === 'direct') window.bytes.fill(2);
      await flushed;
      if (caching === 'direct') {
        model.fill(1, 8192, 12288);
        same(readFileSync(path), model);
        // Stored after the flush and not marked again: the device has not to know.
        await file.flush();
        same(readFileSync(path), model);
      }
    });

    it('does not write direct stores that were never marked', async () => {
      if (caching !== 'direct') return;
      const file = await opening();
      using window = await file.window(8192, 4096, { writable: true });
      window.bytes.fill(1);
      await file.flush();
      same(readFileSync(path), model);
    });

    it('with nothing to do resolves', async () => {
      const file = await opening();
      await file.flush();
      await file.flush();
      file.flushSync();
      const reading = await open(path, { caching });
      await reading.flush();
      reading.flushSync();
      await reading.close();
    });
  });

  describe('sizes', () => {
    it('follow resizes in the order of the calls', async () => {
      const file = await opening();
      const all = [file.resize(500), file.write(Buffer.from('x'), 700), file.resize(10_000), file.resize(9000), file.flush()];
      expect(file.size).toBe(9000);
      const target = Buffer.alloc(20_000);
      expect(file.readSync(target, 0)).toBe(9000);
      const expected = Buffer.concat([model.subarray(0, 500), Buffer.alloc(200), Buffer.from('x'), Buffer.alloc(8299)]);
      same(target.subarray(0, 9000), expected);
      await Promise.all(all);
      same(readFileSync(path), expected);
    });

    it('shrunk with unflushed bytes behind the new end forget them', async () => {
      const file = await opening();
      await file.write(Buffer.alloc(100_000, 1), 900_000);
      await file.write(Buffer.alloc(100_000, 1), 100_000);
      const resized = file.resize(120_000);
      const flushed = file.flush();
      await Promise.all([resized, flushed]);
      model = Buffer.concat([model.subarray(0, 100_000), Buffer.alloc(20_000, 1)]);
      same(readFileSync(path), model);
      await file.resize(950_000);
      await file.flush();
      same(readFileSync(path), Buffer.concat([model, Buffer.alloc(830_000)]));
    });

    it('of zero and back work', async () => {
      const file = await opening();
      file.resizeSync(0);
      expect(file.size).toBe(0);
      expect(file.readSync(new Uint8Array(10), 0)).toBe(0);
      await file.write(Buffer.from('new'), 0);
      await file.flush();
      same(readFileSync(path), Buffer.from('new'));
      await file.resize(BYTES);
      await file.flush();
      expect(statSync(path).size).toBe(BYTES);
    });

    it('that the file system cannot give are its error', async () => {
      const file = await opening();
      await expect(file.resize(Number.MAX_SAFE_INTEGER)).rejects.toMatchObject({ code: 'EFBIG', syscall: 'ftruncate', path });
      expect(file.size).toBe(BYTES);
      const target = Buffer.alloc(BYTES);
      await file.read(target, 0);
      same(target, model);
    });

    it('shrink the ground of windows even between their blocks', async () => {
      const file = await opening();
      const inside = await file.window(0, 5000);
      const touching = await file.window(4000, 1001);
      await file.resize(5000);
      expect(inside.valid).toBe(true);
      expect(touching.valid).toBe(false);
      const again = await file.window(4000, 1001);
      expect(again.length).toBe(1000);
      same(again.bytes, model.subarray(4000, 5000));
      await file.resize(6000);
      expect(touching.valid).toBe(false);
      expect(again.valid).toBe(true);
      for (const window of [inside, touching, again]) window.release();
    });

    it('shrunk under a marked writable window lose the marks beyond', async () => {
      const file = await opening();
      const window = await file.window(8000, 2000, { writable: true });
      window.bytes.fill(5);
      window.markDirty();
      await file.resize(9000);
      expect(() => window.markDirty()).toThrow(expect.objectContaining({ code: 'ERR_SECTORWISE_TRUNCATED' }));
      window.release();
      await file.flush();
      expect(statSync(path).size).toBe(9000);
      model.fill(5, 8000, 9000);
      same(readFileSync(path), model.subarray(0, 9000));
    });
  });

  describe('blocking twins', () => {
    it('see what was accepted before and not awaited', async () => {
      const file = await opening({ cacheSize: 128 * 1024 });
      const target = Buffer.alloc(5000);
      const pending: Promise<unknown>[] = [];
      for (let i = 1; i < 40; i++) {
        pending.push(file.write(Buffer.alloc(5000, i), 4000));
        if (i % 3 === 0) pending.push(file.flush());
        expect(file.readSync(target, 4000)).toBe(5000);
        expect(target.every((byte) => byte === i)).toBe(true);
        file.writeSync(Buffer.alloc(100, i + 100), 4000);
        expect(file.readSync(target, 4000)).toBe(5000);
        expect(target[0]).toBe(i + 100);
      }
      pending.push(file.resize(6000));
      expect(file.readSync(target, 4000)).toBe(2000);
      pending.push(file.allocate(0, 8000));
      expect(file.readSync(target, 4000)).toBe(4000);
      pending.push(file.discard(4000, 1000));
      expect(file.readSync(target, 4000)).toBe(4000);
      expect(target[0]).toBe(0);
      pending.push(file.write(Buffer.from('z'), 8000));
      file.resizeSync(7000);
      pending.push(file.write(Buffer.from('z'), 0));
      file.flushSync();
      expect(statSync(path).size).toBe(7000);
      expect(readFileSync(path)[0]).toBe('z'.charCodeAt(0));
      await Promise.all(pending);
    });

    it('work inside callbacks, and run none', async () => {
      const file = await opening({ cacheSize: 128 * 1024 });
      await file.flush();
      await file.evict(0, BYTES);
      let inside = false;
      let calls = 0;
      const target = Buffer.alloc(100);
      const batch = file.batch<number>((window, offset) => {
        expect(inside).toBe(false);
        inside = true;
        calls++;
        const far = (offset + 500_000) % 900_000;
        expect(file.readSync(target, far)).toBe(100);
        same(target, model.subarray(far, far + 100));
        file.writeSync(window.bytes, offset);
        if (calls % 10 === 0) file.flushSync();
        inside = false;
      });
      for (let i = 0; i < 100; i++) batch.get(i * 8192, 3000, i * 8192);
      await batch.end();
      expect(calls).toBe(100);
      await file.flush();
      same(readFileSync(path), model);
    });

    it('work in a listener of invalidate', async () => {
      const file = await opening();
      const window = await file.window(0, 100);
      const seen = new Promise<number>((resolve) => file.on('invalidate', () => resolve(file.readSync(new Uint8Array(100), 0))));
      await file.resize(50);
      expect(await seen).toBe(50);
      window.release();
    });

    it('read while reads of the same bytes are on their way', async () => {
      const file = await opening({ cacheSize: 128 * 1024 });
      await file.flush();
      await file.evict(0, BYTES);
      const reads = Array.from({ length: 30 }, (_, i) => {
        const target = Buffer.alloc(40_000);
        return file.read(target, i * 10_000).then((count) => same(target.subarray(0, count), model.subarray(i * 10_000, i * 10_000 + count)));
      });
      const target = Buffer.alloc(300_000);
      expect(file.readSync(target, 0)).toBe(300_000);
      same(target, model.subarray(0, 300_000));
      await Promise.all(reads);
    });
  });

  describe('discard and allocate', () => {
    it('of ranges at and past the end, and of nothing, do no harm', async () => {
      const file = await opening();
      await file.discard(BYTES, 100);
      await file.discard(BYTES - 10, 100);
      await file.discard(5, 0);
      await file.allocate(5, 0);
      model.fill(0, BYTES - 10);
      await file.flush();
      expect(file.size).toBe(BYTES);
      same(readFileSync(path), model);
    });

    it('in the order of the calls, with writes between', async () => {
      const file = await opening();
      const all = [
        file.write(Buffer.alloc(20_000, 1), 0),
        file.discard(5000, 10_000),
        file.write(Buffer.alloc(10, 2), 6000),
        file.flush(),
        file.discard(0, 100),
      ];
      model.fill(1, 0, 20_000).fill(0, 5000, 15_000).fill(2, 6000, 6010).fill(0, 0, 100);
      const target = Buffer.alloc(BYTES);
      file.readSync(target, 0);
      same(target, model);
      await Promise.all(all);
      await file.flush();
      same(readFileSync(path), model);
    });
  });
});
