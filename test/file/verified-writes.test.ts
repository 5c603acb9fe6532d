/** verifyWrites through the kernel: on files and devices that are honest, and on a file system whose server lies about what it wrote. */
import { writeFileSync } from 'node:fs';
import { afterAll, afterEach, describe, expect, it } from 'vitest';
import { type BlockFile, type FlushError, open, openSync, type VerifyError } from '../../src/index.js';
import { Random } from '../../src/testing/random.js';
import { bytesOf, note, Places, places, tempPlace } from '../fixtures/places.js';
import { FuseServer, noFuse } from '../rigs/fuse-server.js';
import { fillPattern } from '../rigs/pattern.js';

const KIB = 1024;
const PAGE = 4096;
const BYTES = 3 * 1024 * KIB;

const lab = new Places();
afterAll(() => lab.dispose());

const grounds = [tempPlace, ...places.filter(({ name }) => name.startsWith('a loop device'))];

describe.each(grounds)('verified writes on $name', ({ kind, missing, make }) => {
  it.skipIf(missing !== undefined)(`are read back, each byte once, and leave what writes leave${note(missing)}`, async () => {
    const path = make(lab);
    const random = new Random(11);
    const model = random.fill(Buffer.alloc(BYTES));
    if (kind === 'file') writeFileSync(path, model);
    const options = { caching: 'direct', access: 'read-write', cacheSize: 2 * BYTES, verifyWrites: true, readAhead: false } as const;
    const file = await open(path, options);
    if (kind === 'block-device') await file.write(model, 0);
    await file.flush();
    for (let round = 0; round < 20; round++) {
      for (let count = random.between(1, 12); count > 0; count--) {
        const offset = random.below(BYTES - 200_000);
        const bytes = random.fill(Buffer.alloc(1 + random.below(random.chance(0.2) ? 200_000 : 3000)));
        await file.write(bytes, offset);
        model.set(bytes, offset);
      }
      // Stored into by whoever holds the window: what is written, and compared, is a copy.
      const window = await file.window(random.below(200) * PAGE, PAGE, { writable: true });
      random.fill(window.bytes.subarray(100, 200));
      window.markDirty(100, 200);
      model.set(window.bytes, window.offset);
      const { deviceReadBytes, deviceWriteBytes } = file.stats;
      if (round % 3 === 0) file.flushSync();
      else await file.flush();
      const after = file.stats;
      expect(after.deviceWriteBytes).toBeGreaterThan(deviceWriteBytes);
      expect(after.deviceReadBytes - deviceReadBytes).toBe(after.deviceWriteBytes - deviceWriteBytes);
      window.release();
    }
    await file.close();
    expect(Buffer.compare(bytesOf(path, BYTES), model)).toBe(0);
  });
});

describe('verified writes of a file that grows', () => {
  it('are read back with their padding, which is cut off then', async () => {
    const path = tempPlace.make(lab);
    const file = openSync(path, { caching: 'direct', access: 'read-write', create: true, verifyWrites: true });
    const model = Buffer.alloc(40_000);
    for (let at = 0; at < 40_000; at += 1000) {
      model.fill(at / 1000 + 1, at, at + 1000);
      file.writeSync(model.subarray(at, at + 1000), at);
      if (at % 3000 === 0) file.flushSync();
    }
    await file.resize(39_500);
    await file.flush();
    expect(Buffer.compare(bytesOf(path, 39_500), model.subarray(0, 39_500))).toBe(0);
    await file.close();
  });

  it('cost nothing where nothing can be written', async () => {
    const path = tempPlace.make(lab);
    writeFileSync(path, Buffer.alloc(PAGE, 3));
    const file = await open(path, { caching: 'direct', verifyWrites: true });
    using window = await file.window(0, 10);
    expect(window.bytes[0]).toBe(3);
    await file.close();
  });
});

describe.skipIf(noFuse !== undefined)(`on a file system that lies${note(noFuse)}`, () => {
  const SEED = 5;
  const SIZE = 1024 * KIB;
  const STRAY = 200;
  const begun: { server: FuseServer; file: BlockFile }[] = [];
  afterEach(async () => {
    for (const { server, file } of begun.splice(0)) {
      await file.close().catch(() => undefined);
      server.dispose();
    }
  });

  async function begin(verifyWrites: boolean): Promise<{ server: FuseServer; file: BlockFile; model: Buffer }> {
    const server = await FuseServer.start({ files: [{ name: 'file', size: SIZE, seed: SEED }], directIo: true });
    const file = await open(server.path('file'), { caching: 'direct', access: 'read-write', cacheSize: 4 * SIZE, verifyWrites, readAhead: false });
    begun.push({ server, file });
    return { server, file, model: fillPattern(Buffer.alloc(SIZE), 0, SEED) };
  }

  async function wrongPages(server: FuseServer, model: Buffer): Promise<number[]> {
    const held = await server.content('file', 0, SIZE);
    const pages = Array.from({ length: SIZE / PAGE }, (_, page) => page);
    return pages.filter((page) => Buffer.compare(held.subarray(page * PAGE, (page + 1) * PAGE), model.subarray(page * PAGE, (page + 1) * PAGE)) !== 0);
  }

  async function writeSome(file: BlockFile, model: Buffer): Promise<void> {
    const random = new Random(SEED);
    for (const [page, pages] of [
      [0, 1],
      [3, 2],
      [10, 40],
      [70, 5],
      [100, 1],
    ]) {
      const bytes = random.fill(Buffer.alloc(pages * PAGE));
      await file.write(bytes, page * PAGE);
      model.set(bytes, page * PAGE);
    }
  }

  it.each(['lost', 'torn', 'changed', 'elsewhere'] as const)('a write that is %s is found, named by its pages, and written again', async (writes) => {
    const { server, file, model } = await begin(true);
    await writeSome(file, model);
    await server.behave({ writes, strayTo: STRAY });
    const failure = (await file.flush().catch((error) => error)) as FlushError;
    await server.behave({});
    expect(failure).toMatchObject({ code: 'ERR_SECTORWISE_FLUSH_FAILED' });
    const wrong = (await wrongPages(server, model)).filter((page) => page < STRAY);
    const named = new Set(
      failure.ranges.flatMap(({ offset, length }) => {
        const first = Math.floor(offset / PAGE);
        return Array.from({ length: Math.ceil((offset + length) / PAGE) - first }, (_, i) => first + i);
      }),
    );
    expect(wrong.length).toBeGreaterThan(1);
    expect([...named].sort((a, b) => a - b)).toEqual(wrong);
    for (const { offset, length, error } of failure.ranges) {
      const { code, differsAt = -1 } = error as VerifyError;
      expect(code).toBe('ERR_SECTORWISE_VERIFY');
      expect(differsAt >= offset && differsAt < offset + length).toBe(true);
    }
    const target = Buffer.alloc(SIZE / 2);
    await file.read(target, 0);
    expect(Buffer.compare(target, model.subarray(0, SIZE / 2))).toBe(0);
    await expect(file.flush()).rejects.toMatchObject({ code: 'ERR_SECTORWISE_FLUSH_FAILED' });
    expect((await wrongPages(server, model)).filter((page) => page < STRAY)).toEqual([]);
    file.acknowledgeLoss();
    await file.flush();
  });

  it('a write that cannot be read back is named for that, and only the pages that cannot', async () => {
    const { server, file, model } = await begin(true);
    await writeSome(file, model);
    await server.behave({ failPages: [4, 20] });
    const failure = (await file.flush().catch((error) => error)) as FlushError;
    expect([...failure.ranges].sort((a, b) => a.offset - b.offset)).toMatchObject([
      { offset: 4 * PAGE, length: PAGE, error: { code: 'ERR_SECTORWISE_VERIFY', cause: { code: 'EIO', syscall: 'read' } } },
      { offset: 20 * PAGE, length: PAGE, error: { code: 'ERR_SECTORWISE_VERIFY' } },
    ]);
    await server.behave({});
    file.acknowledgeLoss();
    await file.flush();
  });

  it('a blocking flush finds it too, and without verifyWrites nothing does', async () => {
    const liar = await begin(true);
    liar.file.writeSync(Buffer.alloc(PAGE, 9), PAGE);
    await liar.server.behave({ writes: 'lost' });
    expect(() => liar.file.flushSync()).toThrow(expect.objectContaining({ code: 'ERR_SECTORWISE_FLUSH_FAILED', offset: PAGE, length: PAGE }));
    liar.file.acknowledgeLoss();
    const believed = await begin(false);
    believed.file.writeSync(Buffer.alloc(PAGE, 9), PAGE);
    await believed.server.behave({ writes: 'lost' });
    believed.file.flushSync();
    believed.model.fill(9, PAGE, 2 * PAGE);
    expect(await wrongPages(believed.server, believed.model)).toEqual([1]);
  });
});
