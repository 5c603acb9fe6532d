/** The whole library on each place of `fixtures/places.ts` and in both caching modes, byte by byte against node:fs and a model in memory. */
import { closeSync, openSync as openWithFs, readSync, statSync, writeFileSync, writeSync } from 'node:fs';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { type BlockFile, type Caching, type OpenOptions, open } from '../../src/index.js';
import { Random } from '../../src/testing/random.js';
import { note, Places, places } from '../fixtures/places.js';

const ODD_BYTES = 3 * 2 ** 20 + 1234;

const lab = new Places();
afterAll(() => lab.dispose());

function equal(actual: Uint8Array, expected: Uint8Array): void {
  // `toEqual` on megabytes takes seconds.
  if (Buffer.compare(actual, expected) === 0) return;
  let at = 0;
  while (actual[at] === expected[at]) at++;
  expect.fail(`${actual.length} and ${expected.length} bytes differ from ${at} on: ${actual[at]} instead of ${expected[at]}`);
}

for (const place of places) {
  describe.skipIf(place.missing !== undefined)(`${place.name}${note(place.missing)}`, () => {
    let path: string;
    beforeAll(() => {
      path = place.make(lab);
    });

    describe.each<Caching>(['page-cache', 'direct'])('%s', (caching) => {
      /** What the file is to hold. */
      let model: Buffer;
      const opened: BlockFile[] = [];

      beforeEach(() => {
        const random = new Random(7);
        if (place.kind === 'file') {
          model = Buffer.from(random.fill(new Uint8Array(ODD_BYTES)));
          writeFileSync(path, model);
          return;
        }
        const fd = openWithFs(path, 'r+');
        model = Buffer.alloc(deviceBytes(fd));
        random.fill(model);
        writeSync(fd, model, 0, model.length, 0);
        closeSync(fd);
      });
      afterEach(async () => {
        for (const file of opened.splice(0)) await file.close();
      });

      async function opening(options: OpenOptions = {}): Promise<BlockFile> {
        const file = await open(path, { caching, ...options });
        opened.push(file);
        return file;
      }

      /** What node:fs reads from it now. */
      function onDisk(): Buffer {
        const size = place.kind === 'file' ? statSync(path).size : model.length;
        const bytes = Buffer.alloc(size);
        const fd = openWithFs(path, 'r');
        let done = 0;
        while (done < size) done += readSync(fd, bytes, done, size - done, done);
        closeSync(fd);
        return bytes;
      }

      it('says what it is', async () => {
        const file = await opening();
        expect(file.path).toBe(path);
        expect(file.caching).toBe(caching);
        expect(file.size).toBe(model.length);
        expect(file.generation).toBe(0);
        expect(file.geometry.kind).toBe(place.kind);
        expect(file.geometry.logicalSectorSize).toBeGreaterThan(0);
        const { engine, features } = file.explain();
        expect(engine).toBe(process.env.SECTORWISE_ENGINE === 'threads' ? 'threads' : engine);
        expect(features.length).toBeGreaterThan(0);
        for (const feature of features) expect(feature.reason, feature.name).not.toBe('');
        const extents = await file.extents();
        expect(extents.reduce((sum, { length }) => sum + length, 0)).toBe(model.length);
      });

      it('shows in windows of random ranges what node:fs reads', async () => {
        const file = await opening({ cacheSize: 1 << 20 });
        const expected = onDisk();
        const random = new Random(11);
        for (let i = 0; i < 150; i++) {
          const length = random.chance(0.3) ? random.below(200_000) : random.below(9000);
          const offset = random.below(model.length);
          const window = await file.window(offset, length);
          expect(window.offset).toBe(offset);
          expect(window.length).toBe(Math.min(length, model.length - offset));
          expect(window.bytes.byteOffset % 4096).toBe(offset % 4096);
          const wanted = expected.subarray(offset, offset + window.length);
          equal(window.bytes, wanted);
          equal(Buffer.concat([window.head, window.blocks, window.tail]), wanted);
          equal(Buffer.concat(window.areas), wanted);
          if (window.blocks.length > 0) expect((offset + window.head.length) % 4096).toBe(0);
          expect(window.blocks.length % 4096).toBe(0);
          window.release();
        }
      });

      it('gives short and empty windows at and past the end', async () => {
        const file = await opening();
        const end = model.length;
        using short = await file.window(end - 10, 4096);
        equal(short.bytes, model.subarray(end - 10));
        for (const [offset, length] of [
          [end, 100],
          [end + 1, 100],
          [end + 10 ** 9, 1],
          [0, 0],
          [77, 0],
          [end, 0],
          [Number.MAX_SAFE_INTEGER, 67108864],
        ]) {
          for (const window of [file.tryWindow(offset, length), await file.window(offset, length)]) {
            expect(window?.length).toBe(0);
            expect(window?.bytes.length).toBe(0);
            expect(window?.areas.reduce((sum, area) => sum + area.length, 0)).toBe(0);
            expect(window?.head.length).toBe(0);
            expect(window?.valid).toBe(true);
            expect(window?.bytes.byteOffset).toBe(offset % 4096);
            window?.release();
          }
        }
        expect(await file.read(new Uint8Array(10), end)).toBe(0);
        expect(file.tryRead(new Uint8Array(10), end + 5)).toBe(0);
        expect(file.readSync(new Uint8Array(10), end + 5)).toBe(0);
        expect(await file.read(new Uint8Array(0), 0)).toBe(0);
      });

      it('answers at once what is in memory, and not what is not', async () => {
        const file = await opening();
        await file.evict(0, model.length);
        if (caching === 'direct') expect(file.tryWindow(8192, 100)).toBeUndefined();
        (await file.window(8192, 100)).release();
        using window = file.tryWindow(8192, 100);
        equal(window!.bytes, model.subarray(8192, 8292));
        expect(file.stats.immediate).toBeGreaterThanOrEqual(1);
        const target = new Uint8Array(100);
        expect(file.tryRead(target, 8192)).toBe(100);
        equal(target, model.subarray(8192, 8292));
      });

      it('reads any length into any part of memory', async () => {
        const file = await opening({ cacheSize: 256 * 1024 });
        const random = new Random(13);
        const space = new Uint8Array(model.length + 100);
        for (let i = 0; i < 60; i++) {
          const offset = random.below(model.length);
          const length = random.chance(0.1) ? model.length : random.below(50_000);
          const target = space.subarray(i, Math.min(space.length, i + length));
          const wanted = model.subarray(offset, offset + target.length);
          target.fill(0);
          const count = i % 2 === 0 ? await file.read(target, offset) : file.readSync(target, offset);
          expect(count).toBe(wanted.length);
          equal(target.subarray(0, count), wanted);
          expect(target.subarray(count).every((byte) => byte === 0)).toBe(true);
        }
      });

      it('passes over the whole of it in steps', async () => {
        const file = await opening({ cacheSize: 4 << 20 });
        for (const step of [65536, 100_001, 1 << 20]) {
          let at = 0;
          for await (const window of file.windows({ step })) {
            expect(window.offset).toBe(at);
            expect(window.length).toBe(Math.min(step, model.length - at));
            equal(window.bytes, model.subarray(at, at + window.length));
            at += window.length;
          }
          expect(at).toBe(model.length);
        }
      });

      it('keeps the neighbours of unaligned writes, before the flush and after it', async () => {
        const file = await opening({ access: 'read-write', cacheSize: 512 * 1024 });
        const random = new Random(17);
        for (let i = 0; i < 200; i++) {
          const length = random.chance(0.1) ? random.below(300_000) : random.below(3000);
          const offset = random.below(model.length - length);
          const source = random.fill(new Uint8Array(length));
          model.set(source, offset);
          if (i % 3 === 0) file.writeSync(source, offset);
          else expect(await file.write(source, offset)).toBe(length);
          if (i % 20 === 0) {
            using window = await file.window(Math.max(0, offset - 100), length + 200);
            equal(window.bytes, model.subarray(window.offset, window.offset + window.length));
          }
          if (i % 50 === 0) await file.flush();
        }
        await file.flush();
        equal(onDisk(), model);
        const back = new Uint8Array(model.length);
        expect(file.readSync(back, 0)).toBe(model.length);
        equal(back, model);
      });

      it('takes many writes at once, in the order of the calls', async () => {
        const file = await opening({ access: 'read-write', cacheSize: 512 * 1024 });
        const random = new Random(19);
        const writes = Array.from({ length: 100 }, () => {
          const offset = random.below(100_000);
          const source = random.fill(new Uint8Array(1 + random.below(20_000)));
          model.set(source, offset);
          return file.write(source, offset);
        });
        const flushed = file.flush();
        const back = new Uint8Array(120_000);
        expect(file.readSync(back, 0)).toBe(back.length);
        equal(back, model.subarray(0, back.length));
        await Promise.all(writes);
        await flushed;
        equal(onDisk(), model);
      });

      it('writes what was stored through a writable window and marked', async () => {
        const file = await opening({ access: 'read-write' });
        const window = await file.window(5000, 10_000, { writable: true });
        expect(window.writable).toBe(true);
        expect(window.areas.length).toBe(1);
        equal(window.bytes, model.subarray(5000, 15_000));
        window.bytes.fill(0x5a, 1000, 2000);
        window.markDirty(1000, 2000);
        window.release();
        model.fill(0x5a, 6000, 7000);
        await file.flush();
        equal(onDisk(), model);
        const again = new Uint8Array(20_000);
        await file.read(again, 0);
        equal(again, model.subarray(0, 20_000));
      });

      it('counts what is resident', async () => {
        const file = await opening();
        await file.prefetch(0, 100_000);
        const { pages, cached } = file.residency(0, 100_000);
        expect(pages).toBe(25);
        expect(cached).toBe(25);
        await file.evict(0, model.length);
        if (caching === 'direct') expect(file.residency(0, 100_000).cached).toBe(0);
        expect(file.residency(0, 0)).toEqual({ pages: 0, cached: 0, dirty: 0, writeback: 0, evicted: 0 });
        expect(file.residency(model.length, 10).pages).toBe(0);
      });

      it('keeps windows over what is discarded', async () => {
        const file = await opening({ access: 'read-write' });
        const window = await file.window(4000, 100_000);
        equal(window.bytes, model.subarray(4000, 104_000));
        await file.discard(10_001, 50_000);
        expect(window.valid).toBe(true);
        if (place.kind === 'file') {
          model.fill(0, 10_001, 60_001);
          const back = new Uint8Array(100_000);
          await file.read(back, 4000);
          equal(back, model.subarray(4000, 104_000));
          equal((await file.window(4000, 100_000)).bytes, model.subarray(4000, 104_000));
        } else {
          // What lies in sectors that were discarded in part stays.
          using before = await file.window(8000, 2001);
          equal(before.bytes, model.subarray(8000, 10_001));
          using after = await file.window(60_001, 2000);
          equal(after.bytes, model.subarray(60_001, 62_001));
        }
        window.release();
        await file.flush();
        if (place.kind === 'file') equal(onDisk(), model);
      });

      if (place.kind === 'file') changesItsSize();
      else hasAFixedSize();

      function changesItsSize(): void {
        it('has exactly the written size and bytes on disk after each flush', async () => {
          const file = await opening({ access: 'read-write' });
          const random = new Random(23);
          for (let i = 0; i < 12; i++) {
            const source = random.fill(new Uint8Array(1 + random.below(10_000)));
            const offset = model.length + (i % 3 === 0 ? random.below(100_000) : 0);
            model = Buffer.concat([model, Buffer.alloc(offset - model.length), source]);
            if (i % 2 === 0) await file.write(source, offset);
            else file.writeSync(source, offset);
            expect(file.size).toBe(model.length);
            using window = await file.window(model.length - 20_000, 30_000);
            equal(window.bytes, model.subarray(-20_000));
            if (i % 2 === 0) await file.flush();
            else file.flushSync();
            expect(statSync(path).size).toBe(model.length);
            equal(onDisk(), model);
          }
        });

        it('loses by shrinking what is beyond, and only that, and reads zeros there after growth', async () => {
          const file = await opening({ access: 'read-write' });
          const reasons: unknown[] = [];
          file.on('invalidate', (reason) => reasons.push(reason));
          const before = await file.window(0, 50_000);
          const across = await file.window(99_000, 2000);
          const beyond = await file.window(200_000, 10);
          const acrossBytes = across.bytes;
          await file.resize(100_000);
          expect(file.size).toBe(100_000);
          expect(statSync(path).size).toBe(100_000);
          expect(file.generation).toBe(1);
          expect(before.valid).toBe(true);
          equal(before.bytes, model.subarray(0, 50_000));
          for (const window of [across, beyond]) {
            expect(window.valid).toBe(false);
            expect(() => window.bytes).toThrow(expect.objectContaining({ code: 'ERR_SECTORWISE_TRUNCATED', path, offset: window.offset }));
            expect(() => window.check()).toThrow(expect.objectContaining({ code: 'ERR_SECTORWISE_TRUNCATED' }));
          }
          expect(acrossBytes[1999]).toBe(0);
          await new Promise((resolve) => setImmediate(resolve));
          expect(reasons).toEqual([{ cause: 'truncate', offset: 100_000, length: model.length - 100_000 }]);
          await file.resize(300_000);
          expect(file.generation).toBe(1);
          const grown = Buffer.concat([model.subarray(0, 100_000), Buffer.alloc(200_000)]);
          equal((await file.window(90_000, 210_000)).bytes, grown.subarray(90_000));
          expect(across.valid).toBe(false);
          file.resizeSync(70_001);
          await file.write(Buffer.from('end'), 80_000);
          await file.flush();
          equal(onDisk(), Buffer.concat([model.subarray(0, 70_001), Buffer.alloc(9999), Buffer.from('end')]));
          for (const window of [before, across, beyond]) window.release();
        });

        it('allocates without touching bytes', async () => {
          const file = await opening({ access: 'read-write' });
          await file.allocate(model.length - 100, 500_000);
          expect(file.size).toBe(model.length + 499_900);
          await file.allocate(0, 100);
          await file.flush();
          equal(onDisk(), Buffer.concat([model, Buffer.alloc(499_900)]));
          equal((await file.window(file.size - 1000, 1000)).bytes, Buffer.alloc(1000));
        });

        it('sees growth by others without being opened again', async () => {
          const file = await opening();
          expect((await file.window(model.length, 100)).length).toBe(0);
          const more = Buffer.from(new Random(3).fill(new Uint8Array(10_000)));
          writeFileSync(path, more, { flag: 'a' });
          equal((await file.window(model.length - 5000, 20_000)).bytes, Buffer.concat([model.subarray(-5000), more]));
          expect(file.size).toBe(model.length + 10_000);
          const target = new Uint8Array(20_000);
          expect(file.readSync(target, model.length)).toBe(10_000);
        });
      }

      function hasAFixedSize(): void {
        it('refuses to change its size, and writes past its end', async () => {
          const file = await opening({ access: 'read-write' });
          await expect(file.resize(4096)).rejects.toMatchObject({ code: 'ERR_SECTORWISE_FIXED_SIZE', path });
          expect(() => file.resizeSync(4096)).toThrow(expect.objectContaining({ code: 'ERR_SECTORWISE_FIXED_SIZE' }));
          const source = new Uint8Array(100);
          await expect(file.write(source, model.length - 50)).rejects.toMatchObject({ code: 'ENOSPC', syscall: 'write', path });
          expect(() => file.writeSync(source, model.length)).toThrow(expect.objectContaining({ code: 'ENOSPC' }));
          await expect(file.allocate(model.length, 1)).rejects.toMatchObject({ code: 'ENOSPC' });
          await file.allocate(0, 4096);
        });
      }
    });
  });
}

function deviceBytes(fd: number): number {
  // The size of a device is where reading it ends.
  let least = 0;
  let most = 2 ** 34;
  const byte = new Uint8Array(1);
  while (least < most) {
    const middle = Math.floor((least + most) / 2);
    if (readSync(fd, byte, 0, 1, middle) === 1) least = middle + 1;
    else most = middle;
  }
  return least;
}
