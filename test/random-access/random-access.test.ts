/** What the storage has that random-access-file has not: `sync`, direct mode, devices, a pool that knows whom to suspend, and what becomes of flushes that fail. */
import { existsSync, readFileSync, unlinkSync, writeFileSync } from 'node:fs';
import { afterAll, describe, expect, it, vi } from 'vitest';
import { systemError } from '../../src/errors.js';
import { RandomAccessBlockFile, type RandomAccessOptions } from '../../src/random-access/index.js';
import { note, Places, places, tempPlace } from '../fixtures/places.js';

const lab = new Places();
afterAll(() => lab.dispose());
const EIO = -5;

type Name = 'open' | 'sync' | 'suspend' | 'close' | 'unlink';
const call = (storage: RandomAccessBlockFile, name: Name): Promise<void> =>
  new Promise((resolve, reject) => storage[name]((error) => (error === null || error === undefined ? resolve() : reject(error))));
const write = (storage: RandomAccessBlockFile, offset: number, data: Uint8Array): Promise<void> =>
  new Promise((resolve, reject) => storage.write(offset, data, (error) => (error === null || error === undefined ? resolve() : reject(error))));
const read = (storage: RandomAccessBlockFile, offset: number, size: number): Promise<string> =>
  new Promise((resolve, reject) => storage.read(offset, size, (error, data) => (data === undefined ? reject(error) : resolve(data.toString('latin1')))));
const sizeOf = (storage: RandomAccessBlockFile): Promise<number> =>
  new Promise((resolve, reject) => storage.stat((error, stat) => (stat === undefined ? reject(error) : resolve(stat.size))));

function fresh(options?: RandomAccessOptions): RandomAccessBlockFile {
  return new RandomAccessBlockFile(tempPlace.make(lab), options);
}

describe('sync', () => {
  it('is a flush of all that was called before it, awaited or not', async () => {
    const storage = fresh({ caching: 'direct' });
    await call(storage, 'open').catch(() => undefined);
    await write(storage, 0, Buffer.from('first'));
    const before = storage.file?.stats.deviceWrites;
    storage.write(5, Buffer.from(' second'));
    await call(storage, 'sync');
    expect(storage.file?.stats.deviceWrites).toBeGreaterThan(before ?? 0);
    expect(readFileSync(storage.filename, 'latin1')).toBe('first second');
    await call(storage, 'close');
  });

  it('is waited for by a close that is called behind it', async () => {
    const storage = fresh();
    await write(storage, 0, Buffer.from('x'));
    const ends: string[] = [];
    await Promise.all([call(storage, 'sync').then(() => ends.push('sync')), call(storage, 'close').then(() => ends.push('close'))]);
    expect(ends).toEqual(['sync', 'close']);
  });

  it('has the error of the flush', async () => {
    const storage = fresh();
    await write(storage, 0, Buffer.from('x'));
    const error = systemError(EIO, 'fsync');
    vi.spyOn(storage.file!, 'flush').mockRejectedValueOnce(error);
    await expect(call(storage, 'sync')).rejects.toBe(error);
    await call(storage, 'close');
  });
});

describe('a flush that fails', () => {
  it('leaves a file that was to be suspended open, and usable', async () => {
    const storage = fresh();
    await write(storage, 0, Buffer.from('abc'));
    const error = systemError(EIO, 'fsync');
    vi.spyOn(storage.file!, 'flush').mockRejectedValueOnce(error);
    await expect(call(storage, 'suspend')).rejects.toBe(error);
    expect(storage.suspended).toBe(false);
    expect(await read(storage, 0, 3)).toBe('abc');
    await call(storage, 'suspend');
    expect(storage.suspended).toBe(true);
    await call(storage, 'close');
  });

  it('is told by close, which gives everything back all the same', async () => {
    const storage = fresh();
    await write(storage, 0, Buffer.from('abc'));
    const { file } = storage;
    const error = systemError(EIO, 'fsync');
    vi.spyOn(file!, 'close').mockRejectedValueOnce(error);
    await expect(call(storage, 'close')).rejects.toBe(error);
    expect(storage.file).toBeUndefined();
    await expect(read(storage, 0, 3)).rejects.toThrow('Closed');
    await call(storage, 'close');
    expect(storage.closed).toBe(true);
    vi.restoreAllMocks();
    await file?.close();
  });
});

describe('what it is opened with', () => {
  it('is refused where it is misspelt or of the wrong kind, before anything is opened', () => {
    const refuse = (code: string, options: unknown): void =>
      expect(() => new RandomAccessBlockFile('x', options as RandomAccessOptions)).toThrow(expect.objectContaining({ code }));
    refuse('ERR_INVALID_ARG_VALUE', { writeable: false });
    refuse('ERR_INVALID_ARG_TYPE', { lock: 'yes' });
    refuse('ERR_INVALID_ARG_VALUE', { pool: {} });
    refuse('ERR_OUT_OF_RANGE', { size: -1 });
    refuse('ERR_INVALID_ARG_VALUE', { caching: 'some' });
    expect(() => new RandomAccessBlockFile(7 as never)).toThrow(expect.objectContaining({ code: 'ERR_INVALID_ARG_TYPE' }));
    expect(() => RandomAccessBlockFile.createPool(0)).toThrow(expect.objectContaining({ code: 'ERR_OUT_OF_RANGE' }));
  });

  it('makes buffers by `alloc`, and takes longer ones', async () => {
    const sizes: number[] = [];
    const alloc = (size: number): Buffer => {
      sizes.push(size);
      return Buffer.alloc(size + 8);
    };
    const storage = fresh({ alloc });
    await write(storage, 0, Buffer.from('abcdef'));
    expect(await read(storage, 2, 3)).toBe('cde');
    expect(sizes).toEqual([3]);
    await call(storage, 'close');
  });

  it('sets the size once, and not again when it comes back from being suspended', async () => {
    const storage = fresh({ size: 10 });
    await write(storage, 20, Buffer.from('x'));
    await call(storage, 'suspend');
    expect(await sizeOf(storage)).toBe(21);
    await call(storage, 'close');
  });

  it('says the size of what was written and is in no file system yet', async () => {
    const storage = fresh({ caching: 'direct' });
    await write(storage, 0, Buffer.alloc(10_000));
    expect(await sizeOf(storage)).toBe(10_000);
    await call(storage, 'close');
    expect(readFileSync(storage.filename).length).toBe(10_000);
  });
});

describe('a pool', () => {
  it('keeps so many files open and no more, and gives each its turn', async () => {
    const pool = RandomAccessBlockFile.createPool(2);
    const storages = Array.from({ length: 5 }, () => fresh({ pool }));
    for (const [i, storage] of storages.entries()) await write(storage, 0, Buffer.from(`file ${i}`));
    const texts = await Promise.all(storages.map((storage) => read(storage, 0, 6)));
    expect(texts).toEqual(storages.map((_, i) => `file ${i}`));
    for (const storage of storages) expect(await read(storage, 0, 4)).toBe('file');
    await vi.waitFor(() => expect(pool.active).toBe(2), { timeout: 30_000 });
    await Promise.all(storages.map((storage) => call(storage, 'close')));
    expect(pool.active).toBe(0);
  });
});

describe('a file that is in use elsewhere', () => {
  it('is locked: ELOCKED, with the reason', async () => {
    const first = fresh({ lock: true });
    await write(first, 0, Buffer.from('x'));
    const second = new RandomAccessBlockFile(first.filename, { lock: true });
    await expect(write(second, 0, Buffer.from('y'))).rejects.toMatchObject({
      code: 'ELOCKED',
      message: 'ELOCKED: File is locked',
      path: first.filename,
      cause: { code: 'EAGAIN' },
    });
    await call(first, 'close');
    const third = new RandomAccessBlockFile(first.filename, { lock: true });
    await write(third, 0, Buffer.from('z'));
    await call(third, 'close');
  });

  it('is seen to grow by what others write', async () => {
    const storage = fresh();
    await write(storage, 0, Buffer.from('abc'));
    writeFileSync(storage.filename, 'def', { flag: 'a' });
    expect(await sizeOf(storage)).toBe(6);
    expect(await read(storage, 0, 6)).toBe('abcdef');
    await call(storage, 'close');
  });

  it('has its size when its name is gone', async () => {
    const storage = fresh();
    await write(storage, 0, Buffer.from('abc'));
    unlinkSync(storage.filename);
    expect(await sizeOf(storage)).toBe(3);
    await call(storage, 'close');
    expect(existsSync(storage.filename)).toBe(false);
  });
});

const device = places.find((place) => place.name.startsWith('a loop device with sectors of 512'))!;
describe(`on ${device.name}`, () => {
  it.skipIf(device.missing !== undefined)(`reads and writes within it, and cannot grow${note(device.missing)}`, async () => {
    const storage = new RandomAccessBlockFile(device.make(lab));
    const size = await sizeOf(storage);
    expect(size).toBe((8 << 20) + 1536);
    await write(storage, size - 3, Buffer.from('end'));
    expect(await read(storage, size - 3, 3)).toBe('end');
    await expect(write(storage, size - 1, Buffer.from('end'))).rejects.toMatchObject({ code: 'ENOSPC' });
    await expect(read(storage, size - 1, 3)).rejects.toMatchObject({ code: 'EPARTIALREAD', offset: size, size: 2 });
    await call(storage, 'close');
  });
});
