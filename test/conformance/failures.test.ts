/** Devices and file systems that fail: no space, a dead device below, a flush that cannot be made good; and that a sync reaches the device. */
import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, describe, expect, it } from 'vitest';
import { type BlockFile, type Caching, FlushError, open } from '../../src/index.js';
import { Random } from '../../src/testing/random.js';
import { note, Places } from '../fixtures/places.js';
import { hasCommand, noFileSystem } from '../geometry/loop-devices.js';
import { type DyingDevice, dyingDevice, noDyingDevice, noTmpfs } from '../rigs/failing-places.js';

const MEBIBYTE = 2 ** 20;
const root = fileURLToPath(new URL('../../', import.meta.url));
const lab = new Places();
afterAll(() => lab.dispose());

const cachings: Caching[] = ['page-cache', 'direct'];
const noExt4 = noFileSystem('mkfs.ext4');
const noStrace = !hasCommand('strace') ? 'needs strace' : existsSync(join(root, 'dist/src/index.js')) ? undefined : 'needs the built package: npm run build';

/** A loop device of 32 MiB that gives EIO for everything once `kill` was called. */
function mortalDevice(): DyingDevice {
  return dyingDevice(lab.loops, new Random(59).fill(new Uint8Array(32 * MEBIBYTE)));
}

describe.each(cachings)('without space (%s)', (caching) => {
  async function fillsUp(path: string): Promise<void> {
    const file = await open(path, { caching, access: 'read-write', create: true, cacheSize: 2 * MEBIBYTE });
    await file.write(Buffer.alloc(MEBIBYTE, 1), 0);
    await file.flush();
    await expect(file.allocate(0, 64 * MEBIBYTE)).rejects.toMatchObject({
      code: 'ENOSPC',
      errno: -28,
      syscall: 'fallocate',
      path,
      offset: 0,
      length: 64 * MEBIBYTE,
    });
    await expect(open(`${path}-2`, { caching, access: 'read-write', create: true, size: 64 * MEBIBYTE })).rejects.toMatchObject({
      code: 'ENOSPC',
      syscall: 'fallocate',
      path: `${path}-2`,
    });
    expect(existsSync(`${path}-2`)).toBe(false);
    // Refused when it is written (page-cache) or when it is flushed (direct); never in silence.
    let problem: NodeJS.ErrnoException | undefined;
    try {
      for (let at = MEBIBYTE; at < 64 * MEBIBYTE; at += MEBIBYTE) await file.write(Buffer.alloc(MEBIBYTE, 2), at);
      await file.flush();
    } catch (error) {
      problem = error as NodeJS.ErrnoException;
    }
    if (problem?.code === 'ERR_SECTORWISE_FLUSH_FAILED') {
      expect((problem as FlushError).ranges[0].error).toMatchObject({ code: 'ENOSPC' });
      await expect(file.flush()).rejects.toMatchObject({ code: 'ERR_SECTORWISE_FLUSH_FAILED' });
      expect(file.acknowledgeLoss().length).toBeGreaterThan(0);
    } else {
      expect(['ENOSPC', 'ERR_SECTORWISE_CACHE_FULL']).toContain(problem?.code);
    }
    // What was written before is there, and room that is made is used.
    const target = Buffer.alloc(MEBIBYTE);
    expect(file.readSync(target, 0)).toBe(MEBIBYTE);
    expect(target.every((byte) => byte === 1)).toBe(true);
    await file.close().catch((error) => expect(error.code).toBe('ERR_SECTORWISE_FLUSH_FAILED'));
    expect(readFileSync(path).subarray(0, MEBIBYTE).equals(target)).toBe(true);
  }

  it.skipIf(noTmpfs !== undefined || caching === 'direct')(
    `a tmpfs says so${note(noTmpfs ?? (caching === 'direct' ? 'a tmpfs has no direct I/O of its own' : undefined))}`,
    async () => {
      await fillsUp(join(lab.loops.mount('tmpfs', '-t', 'tmpfs', '-o', 'size=8m'), 'file'));
    },
  );

  it.skipIf(noExt4 !== undefined)(`an ext4 says so${note(noExt4)}`, async () => {
    await fillsUp(join(lab.loops.fileSystem(24 * MEBIBYTE, 'mkfs.ext4', '-q').folder, 'file'));
  });

  it.skipIf(noExt4 !== undefined)(`a writable window over a hole is refused before a store could be lost${note(noExt4)}`, async () => {
    const path = join(lab.loops.fileSystem(24 * MEBIBYTE, 'mkfs.ext4', '-q').folder, 'file');
    const file = await open(path, { caching, access: 'read-write', create: true });
    await file.resize(64 * MEBIBYTE);
    if (caching === 'page-cache') {
      await expect(file.window(0, 64 * MEBIBYTE, { writable: true })).rejects.toMatchObject({ code: 'ENOSPC', syscall: 'fallocate', path });
    }
    (await file.window(0, 8192, { writable: true }).catch(() => undefined))?.release();
    await file.close();
  });
});

/** What is told once it is known that all of the file is gone. */
const lossCodes = ['ERR_SECTORWISE_UNPLUGGED', 'ERR_SECTORWISE_SHUTDOWN'];

describe.skipIf(noDyingDevice !== undefined).each(cachings)(`on a device that dies (%s)${note(noDyingDevice)}`, (caching) => {
  async function losesWhatItCannotWrite(file: BlockFile, path: string, kill: () => void): Promise<void> {
    const flushed = new Random(61).fill(new Uint8Array(100_000));
    await file.write(flushed, 0);
    await file.flush();
    await file.write(Buffer.alloc(50_000, 9), 200_000);
    kill();
    const first = (await file.flush().catch((error) => error)) as FlushError;
    expect(first).toBeInstanceOf(FlushError);
    expect(first).toMatchObject({ name: 'SectorwiseError', code: 'ERR_SECTORWISE_FLUSH_FAILED', path });
    expect(first.message).toContain('acknowledgeLoss()');
    expect(first.ranges.length).toBeGreaterThan(0);
    for (const { error } of first.ranges) expect(['EIO', 'EROFS', 'ENODEV', 'ENXIO', ...lossCodes]).toContain((error as NodeJS.ErrnoException).code);
    const covered = first.ranges.some(({ offset, length }) => offset <= 200_000 && offset + length >= 249_000);
    expect(covered).toBe(true);
    // It stays so, however it is asked.
    await expect(file.flush()).rejects.toMatchObject({ code: 'ERR_SECTORWISE_FLUSH_FAILED' });
    expect(() => file.flushSync()).toThrow(expect.objectContaining({ code: 'ERR_SECTORWISE_FLUSH_FAILED' }));
    // What could not be written can still be read, unless it is known by now that all of the file is lost.
    const target = Buffer.alloc(50_000);
    const count = await file.read(target, 200_000).catch((error) => error.code);
    if (typeof count === 'string') expect(lossCodes).toContain(count);
    else expect([count, target.every((byte) => byte === 9)]).toEqual([50_000, true]);
    const losses = file.acknowledgeLoss();
    expect(losses.length).toBeGreaterThan(0);
    expect(file.acknowledgeLoss()).toEqual([]);
  }

  it('a flush of a raw device fails until the loss is acknowledged', async () => {
    const { device, kill } = mortalDevice();
    const file = await open(device, { caching, access: 'read-write' });
    await losesWhatItCannotWrite(file, device, kill);
    // Every place of the device fails, so it counts as gone, whoever found that out.
    await expect(file.read(Buffer.alloc(8192), 20 * MEBIBYTE)).rejects.toMatchObject({ code: 'ERR_SECTORWISE_UNPLUGGED', path: device });
    await expect(file.window(24 * MEBIBYTE, 4096)).rejects.toMatchObject({ code: 'ERR_SECTORWISE_UNPLUGGED', path: device });
    expect(() => file.readSync(new Uint8Array(10), 28 * MEBIBYTE)).toThrow(expect.objectContaining({ code: 'ERR_SECTORWISE_UNPLUGGED' }));
    // Nothing is left that could fail: the loss was acknowledged. Either way everything is freed.
    await file.close().catch((thrown) => expect(thrown.code).toBe('ERR_SECTORWISE_FLUSH_FAILED'));
  });

  it('closing rejects, and frees everything', async () => {
    const { device, kill } = mortalDevice();
    const file = await open(device, { caching, access: 'read-write' });
    await file.write(Buffer.alloc(50_000, 9), 200_000);
    kill();
    const closing = file.close();
    await expect(closing).rejects.toMatchObject({ code: 'ERR_SECTORWISE_FLUSH_FAILED', path: device });
    expect(file.close()).toBe(closing);
    expect(() => file.tryWindow(0, 1)).toThrow(expect.objectContaining({ code: 'ERR_SECTORWISE_CLOSED' }));
    const again = await open(device, { caching, access: 'read' }).catch((error) => error);
    await again.close?.();
  });

  it('blocking calls tell the same', async () => {
    const { device, kill } = mortalDevice();
    const file = await open(device, { caching, access: 'read-write' });
    file.flushSync();
    file.writeSync(Buffer.alloc(5000, 9), 3);
    kill();
    expect(() => file.flushSync()).toThrow(expect.objectContaining({ code: 'ERR_SECTORWISE_FLUSH_FAILED', path: device }));
    expect(() => file.closeSync()).toThrow(expect.objectContaining({ code: 'ERR_SECTORWISE_FLUSH_FAILED' }));
    await expect(file.close()).rejects.toMatchObject({ code: 'ERR_SECTORWISE_FLUSH_FAILED' });
  });
});

describe.each(cachings)('the first flush after open (%s)', (caching) => {
  it.skipIf(noStrace !== undefined)(`reaches the device, the second with nothing between does not${note(noStrace)}`, () => {
    const path = join(lab.folder(), 'file');
    writeFileSync(path, 'content');
    const code = `
      import { openSync } from ${JSON.stringify(join(root, 'dist/src/index.js'))};
      const file = openSync(${JSON.stringify(path)}, { caching: '${caching}', access: 'read-write' });
      for (let i = 0; i < 3; i++) file.flushSync();
      file.closeSync();
    `;
    // Only our threads make system calls for it: io_uring's are not to be seen by strace.
    const { stderr, status } = spawnSync('strace', ['-f', '-e', 'trace=fsync,fdatasync', process.execPath, '--input-type=module', '-e', code], {
      encoding: 'utf8',
      env: { ...process.env, SECTORWISE_ENGINE: 'threads' },
    });
    expect(status).toBe(0);
    expect([...stderr.matchAll(/f(?:data)?sync\(/g)].length).toBe(1);
    expect(statSync(path).size).toBe(7);
  });
});
