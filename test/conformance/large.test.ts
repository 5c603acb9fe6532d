/** Much of everything: files beyond 4 GiB, a thousand windows at once, many files. */
import { closeSync, ftruncateSync, openSync as openWithFs, rmSync, statfsSync, writeFileSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { type Caching, open } from '../../src/index.js';
import { Random } from '../../src/testing/random.js';
import { note, Places } from '../fixtures/places.js';

const GIBIBYTE = 2 ** 30;
const MEBIBYTE = 2 ** 20;
const SIZE = 5 * GIBIBYTE + 777;
const BYTES = 8 * MEBIBYTE + 99;

const lab = new Places();
const folder = lab.folder();
afterAll(() => lab.dispose());

/** Sparse files of 5 GiB take little space, but not every file system has them. */
const noSparse = statfsSync(tmpdir()).bavail * statfsSync(tmpdir()).bsize > 64 * MEBIBYTE ? undefined : 'the temp folder is full';

describe.each<Caching>(['page-cache', 'direct'])('%s', (caching) => {
  it.skipIf(noSparse !== undefined)(`a file of 5 GiB is the same around 4 GiB, around the end of a segment and at its own end${note(noSparse)}`, async () => {
    const path = join(folder, `sparse-${caching}`);
    const fd = openWithFs(path, 'w');
    ftruncateSync(fd, SIZE);
    const places = [
      0,
      4 * GIBIBYTE - 64 * MEBIBYTE,
      4 * GIBIBYTE - 64 * MEBIBYTE - 5000,
      4 * GIBIBYTE,
      4 * GIBIBYTE - 3,
      4 * GIBIBYTE + 64 * MEBIBYTE,
      SIZE - 9000,
    ];
    const random = new Random(43);
    const payloads = places.map((at) => ({ at, bytes: random.fill(new Uint8Array(9000)) }));
    const model = new Map<number, number>();
    for (const { at, bytes } of payloads) {
      writeSync(fd, bytes, 0, bytes.length, at);
      for (const [i, byte] of bytes.entries()) model.set(at + i, byte);
    }
    closeSync(fd);
    const wanted = (offset: number, length: number): Uint8Array => Uint8Array.from({ length }, (_, i) => model.get(offset + i) ?? 0);
    const file = await open(path, { caching, access: 'read-write', cacheSize: 4 * MEBIBYTE });
    expect(file.size).toBe(SIZE);
    for (const at of places) {
      for (const offset of [Math.max(0, at - 10_000), at, at + 4095]) {
        using window = await file.window(offset, 30_000);
        const expected = wanted(offset, window.length);
        expect(window.length).toBe(Math.min(30_000, SIZE - offset));
        expect(Buffer.compare(window.bytes, expected)).toBe(0);
        const target = new Uint8Array(window.length);
        expect(await file.read(target, offset)).toBe(window.length);
        expect(Buffer.compare(target, expected)).toBe(0);
        expect(file.readSync(target, offset)).toBe(window.length);
        expect(Buffer.compare(target, expected)).toBe(0);
      }
    }
    const source = random.fill(new Uint8Array(20_000));
    for (const at of [4 * GIBIBYTE - 64 * MEBIBYTE - 7777, 4 * GIBIBYTE - 7777, SIZE - 100]) {
      await file.write(source, at);
      for (const [i, byte] of source.entries()) model.set(at + i, byte);
    }
    await file.flush();
    expect(file.size).toBe(SIZE + 19_900);
    const other = await open(path, { caching: 'page-cache' });
    for (const at of [4 * GIBIBYTE - 64 * MEBIBYTE - 8000, 4 * GIBIBYTE - 8000, SIZE - 8000]) {
      using window = await other.window(at, 30_000);
      expect(Buffer.compare(window.bytes, wanted(at, window.length))).toBe(0);
    }
    await other.close();
    await file.close();
    rmSync(path);
  });

  it('a thousand overlapping windows at once show what node:fs reads', async () => {
    const path = join(folder, 'many');
    const model = Buffer.from(new Random(47).fill(new Uint8Array(BYTES)));
    writeFileSync(path, model);
    const file = await open(path, { caching, access: 'read-write', cacheSize: 64 * MEBIBYTE });
    await file.flush();
    await file.evict(0, BYTES);
    const random = new Random(53);
    const asked = Array.from({ length: 1000 }, () => {
      const offset = random.below(BYTES);
      const length = random.below(100_000);
      return file.window(offset, length).then((window) => ({ window, offset, length }));
    });
    const all = await Promise.all(asked);
    let wrong = 0;
    for (const { window, offset, length } of all) {
      if (window.length !== Math.min(length, BYTES - offset)) wrong++;
      if (Buffer.compare(window.bytes, model.subarray(offset, offset + window.length)) !== 0) wrong++;
    }
    expect(wrong).toBe(0);
    for (const { window } of all) window.release();
    const { deviceReadBytes, joined } = file.stats;
    // Overlapping or not, nothing is read twice, but for the ends of gaps.
    if (caching === 'direct') {
      expect(joined).toBeGreaterThan(0);
      expect(deviceReadBytes).toBeLessThan(1.1 * BYTES);
    }
    await file.close();
  });

  it('eight files are open at once', async () => {
    const models = Array.from({ length: 8 }, (_, i) => Buffer.from(new Random(i).fill(new Uint8Array(MEBIBYTE + i))));
    const files = await Promise.all(
      models.map((model, i) => {
        const path = join(folder, `eight-${i}`);
        writeFileSync(path, model);
        return open(path, { caching, access: 'read-write', cacheSize: MEBIBYTE });
      }),
    );
    await Promise.all(
      files.map(async (file, i) => {
        const model = models[i];
        for (let round = 0; round < 50; round++) {
          const offset = (round * 20_011) % model.length;
          const source = Buffer.alloc(100, round);
          if (offset + 100 < model.length) {
            model.set(source, offset);
            await file.write(source, offset);
          }
          using window = await file.window(Math.max(0, offset - 50), 9000);
          expect(Buffer.compare(window.bytes, model.subarray(window.offset, window.offset + window.length))).toBe(0);
        }
      }),
    );
    for (const [i, file] of files.entries()) {
      await file.close();
      const again = await open(join(folder, `eight-${i}`));
      const all = Buffer.alloc(models[i].length);
      expect(await again.read(all, 0)).toBe(all.length);
      expect(all.equals(models[i])).toBe(true);
      await again.close();
    }
  });
});
