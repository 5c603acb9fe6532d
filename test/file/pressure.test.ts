/** Direct mode with a small cache: who waits, who is refused with numbers, and that blocking calls always find room. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, afterEach, describe, expect, it } from 'vitest';
import { type BlockFile, type OpenOptions, open, type Window } from '../../src/index.js';
import { Random } from '../../src/testing/random.js';
import { Places } from '../fixtures/places.js';

const BYTES = 4 * 2 ** 20;
const CACHE = 64 * 1024;
const FRAMES = CACHE / 4096;

const lab = new Places();
const path = join(lab.folder(), 'file');
const model = Buffer.from(new Random(5).fill(new Uint8Array(BYTES)));
writeFileSync(path, model);
afterAll(() => lab.dispose());

const opened: BlockFile[] = [];
afterEach(async () => {
  for (const file of opened.splice(0)) await file.close();
  writeFileSync(path, model);
});

async function opening(options: OpenOptions = {}): Promise<BlockFile> {
  const file = await open(path, { caching: 'direct', cacheSize: CACHE, access: 'read-write', ...options });
  opened.push(file);
  return file;
}

/** A window over each frame there is. */
async function pinAll(file: BlockFile): Promise<Window[]> {
  const windows: Window[] = [];
  for (let i = 0; i < FRAMES; i++) windows.push(await file.window(i * 8192, 4096));
  return windows;
}

describe('with every frame pinned by windows', () => {
  it('a window is refused with the numbers', async () => {
    const file = await opening();
    const windows = await pinAll(file);
    const error = await file.window(BYTES / 2, 4096).catch((thrown) => thrown);
    expect(error).toMatchObject({ name: 'SectorwiseError', code: 'ERR_SECTORWISE_CACHE_FULL', path, offset: BYTES / 2, length: 4096 });
    expect(error.message).toMatch(new RegExp(`1 blocks.*of ${FRAMES} frames ${FRAMES} are pinned.*cacheSize`));
    await expect(file.read(new Uint8Array(10), BYTES / 2)).rejects.toMatchObject({ code: 'ERR_SECTORWISE_CACHE_FULL' });
    await expect(file.write(new Uint8Array(10), BYTES / 2)).rejects.toMatchObject({ code: 'ERR_SECTORWISE_CACHE_FULL' });
    expect(file.tryWindow(BYTES / 2, 4096)).toBeUndefined();
    windows[3].release();
    (await file.window(BYTES / 2, 4096)).release();
    for (const window of windows) window.release();
  });

  it('readSync, writeSync and flushSync still work', async () => {
    const file = await opening();
    const windows = await pinAll(file);
    const target = Buffer.alloc(200_000);
    expect(file.readSync(target, BYTES / 2 + 7)).toBe(target.length);
    expect(Buffer.compare(target, model.subarray(BYTES / 2 + 7, BYTES / 2 + 7 + target.length))).toBe(0);
    for (const window of windows) {
      expect(Buffer.compare(window.bytes, model.subarray(window.offset, window.offset + 4096))).toBe(0);
      window.release();
    }
    file.flushSync();
  });

  it('a release during the wait lets the waiting go on', async () => {
    const file = await opening();
    const windows: Window[] = [];
    // More than fit, asked for at once: those that find room come, and releasing them serves the others.
    const asked = Array.from({ length: 200 }, (_, i) =>
      file.window(i * 4096, 4096).then((window) => {
        expect(window.bytes[0]).toBe(model[i * 4096]);
        windows.push(window);
        setImmediate(() => window.release());
      }),
    );
    const outcomes = await Promise.allSettled(asked);
    const refused = outcomes.filter(({ status }) => status === 'rejected') as PromiseRejectedResult[];
    for (const { reason } of refused) expect(reason.code).toBe('ERR_SECTORWISE_CACHE_FULL');
    expect(windows.length).toBeGreaterThanOrEqual(FRAMES);
  });

  it('windows that are released when they come are all served, in a line', async () => {
    const file = await opening();
    const asked = Array.from({ length: 1000 }, (_, i) =>
      file.window((i * 12_345) % (BYTES - 9000), 9000).then((window) => {
        const equal = Buffer.compare(window.bytes, model.subarray(window.offset, window.offset + 9000)) === 0;
        window.release();
        return equal;
      }),
    );
    expect((await Promise.all(asked)).every(Boolean)).toBe(true);
  });
});

it('a blocking call does not make those fail who only wait for their turn', async () => {
  const file = await opening();
  const asked = Array.from({ length: 100 }, (_, i) => file.window(i * 20_000, 9000).then((window) => window.release()));
  const target = Buffer.alloc(1_000_000);
  expect(file.readSync(target, 2_000_000)).toBe(target.length);
  expect(Buffer.compare(target, model.subarray(2_000_000, 3_000_000))).toBe(0);
  await Promise.all(asked);
});

it('a blocking call that waits for a write which can get no frame does not wait for ever', async () => {
  const file = await opening();
  const windows: Window[] = [];
  for (let i = 0; i < FRAMES; i++) windows.push(await file.window(i * 8192, 4096));
  const write = file.write(new Uint8Array(100), 3_000_001).catch((error) => error.code);
  expect(file.readSync(new Uint8Array(10), 3_000_000)).toBe(10);
  expect(await write).toBe('ERR_SECTORWISE_CACHE_FULL');
  for (const window of windows) window.release();
});

it('a window larger than the cache is refused at once, with what to do', async () => {
  const file = await opening();
  for (const attempt of [file.window(0, CACHE + 1), file.window(1, CACHE)]) {
    await expect(attempt).rejects.toMatchObject({ code: 'ERR_SECTORWISE_CACHE_TOO_SMALL', path, message: expect.stringContaining('cacheSize') });
  }
  expect(() => file.tryWindow(0, CACHE + 1)).toThrow(expect.objectContaining({ code: 'ERR_SECTORWISE_CACHE_TOO_SMALL' }));
  using window = await file.window(0, CACHE);
  expect(Buffer.compare(window.bytes, model.subarray(0, CACHE))).toBe(0);
});

it('dirty frames are written to make room', async () => {
  const file = await opening();
  const source = Buffer.alloc(4096, 7);
  for (let i = 0; i < 100; i++) await file.write(source, i * 4096);
  const target = Buffer.alloc(100 * 4096);
  await file.read(target, 0);
  expect(target.every((byte) => byte === 7)).toBe(true);
  (await file.window(BYTES - 8192, 8192)).release();
  await file.flush();
  expect(file.stats.deviceWriteBytes).toBeGreaterThanOrEqual(100 * 4096);
});

describe('a window over frames that are apart', () => {
  /** Every second block of [0, 32 KiB) is read first, backwards, so that no two neighbours are. */
  async function scatter(file: BlockFile): Promise<void> {
    for (const block of [6, 4, 2, 0, 7, 5, 3, 1]) (await file.window(block * 4096, 4096)).release();
  }

  it('has areas that are no copies, and gathers its bytes once', async () => {
    const file = await opening();
    await scatter(file);
    using window = await file.window(100, 32_000);
    const { areas } = window;
    expect(areas.length).toBeGreaterThan(1);
    expect(Buffer.compare(Buffer.concat(areas), model.subarray(100, 32_100))).toBe(0);
    expect(file.stats.gatheredBytes).toBe(0);
    expect(Buffer.compare(window.head, model.subarray(100, 4096))).toBe(0);
    expect(file.stats.gatheredBytes).toBe(0);
    expect(window.bytes).toBe(window.bytes);
    expect(window.bytes.byteOffset % 4096).toBe(100);
    expect(Buffer.compare(window.bytes, model.subarray(100, 32_100))).toBe(0);
    expect(file.stats.gatheredBytes).toBe(32_000);
    expect(Buffer.compare(Buffer.concat([window.head, window.blocks, window.tail]), model.subarray(100, 32_100))).toBe(0);
    expect(file.stats.gatheredBytes).toBe(32_000);
  });

  it('for writing is moved together, or refused while others hold its frames', async () => {
    const file = await opening();
    await scatter(file);
    const holder = await file.window(4096, 10);
    const error = await file.window(0, 32_768, { writable: true }).catch((thrown) => thrown);
    expect(error).toMatchObject({ code: 'ERR_SECTORWISE_SCATTERED', path, offset: 0, length: 32_768, message: expect.stringContaining('release') });
    holder.release();
    using window = await file.window(0, 32_768, { writable: true });
    expect(window.areas.length).toBe(1);
    expect(Buffer.compare(window.bytes, model.subarray(0, 32_768))).toBe(0);
    window.bytes.fill(3);
    window.markDirty();
    await file.flush();
    const target = Buffer.alloc(32_768);
    await (await opening({ access: 'read' })).read(target, 0);
    expect(target.every((byte) => byte === 3)).toBe(true);
  });
});

it('counts what it did', async () => {
  const file = await opening();
  const before = file.stats;
  (await file.window(0, 4096)).release();
  file.tryWindow(0, 4096)?.release();
  await Promise.all([file.window(100_000, 10), file.window(100_010, 10)]).then((windows) => {
    for (const window of windows) window.release();
  });
  const { immediate, delayed, deviceReads, deviceReadBytes, evictions, deviceWrites } = file.stats;
  expect(before).toMatchObject({ immediate: 0, delayed: 0, deviceReads: 0 });
  expect({ immediate, delayed, deviceWrites }).toEqual({ immediate: 1, delayed: 3, deviceWrites: 0 });
  expect(deviceReads).toBe(2);
  expect(deviceReadBytes).toBeGreaterThanOrEqual(8192);
  expect(evictions).toBe(0);
  for (let i = 0; i < 40; i++) (await file.window(i * 4096, 4096)).release();
  expect(file.stats.evictions).toBeGreaterThan(0);
});
