/** What errors look like: those of system calls as node:fs has them, those of the library with code, path and range. */
import { execFileSync, spawnSync } from 'node:child_process';
import * as fs from 'node:fs';
import { chmodSync, existsSync, readdirSync, readFileSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, describe, expect, it } from 'vitest';
import { abortError, assertionError, invalidType, SectorwiseError as MadeHere, outOfRange, systemError } from '../../src/errors.js';
import { type Caching, open, openSync, SectorwiseError } from '../../src/index.js';
import { note, Places } from '../fixtures/places.js';
import { isRoot, noLoopDevices } from '../geometry/loop-devices.js';

const lab = new Places();
const folder = lab.folder();
const path = join(folder, 'file');
writeFileSync(path, Buffer.alloc(10_000, 1));
afterAll(() => lab.dispose());

const cachings: Caching[] = ['page-cache', 'direct'];

function thrownBy(run: () => unknown): NodeJS.ErrnoException {
  try {
    run();
  } catch (error) {
    return error as NodeJS.ErrnoException;
  }
  throw new Error('nothing was thrown');
}

/** What a system error says. */
const said = ({ name, code, errno, syscall, path, message }: NodeJS.ErrnoException): object => ({ name, code, errno, syscall, path, message });

describe('a system error', () => {
  it.each([
    ['a missing file', () => join(folder, 'missing')],
    ['a file in a missing folder', () => join(folder, 'missing', 'file')],
    ['a file below a file', () => join(path, 'file')],
    ['a name that is too long', () => join(folder, 'x'.repeat(300))],
    [
      'a link to itself',
      () => {
        const link = join(folder, 'loop');
        if (!readdirSync(folder).includes('loop')) symlinkSync(link, link);
        return link;
      },
    ],
  ])('of %s is what node:fs throws', async (_name, make) => {
    const wanted = make();
    const expected = said(thrownBy(() => fs.openSync(wanted, 'r')));
    for (const caching of cachings) {
      expect(said(thrownBy(() => openSync(wanted, { caching })))).toEqual(expected);
      expect(said(await open(wanted, { caching }).catch((error) => error))).toEqual(expected);
    }
  });

  it('of a directory is EISDIR, and creates nothing', async () => {
    for (const access of ['read', 'read-write'] as const) {
      await expect(open(folder, { access })).rejects.toMatchObject({ code: 'EISDIR', errno: -21, syscall: 'open', path: folder });
      await expect(open(folder, { access, caching: 'direct' })).rejects.toMatchObject({ code: 'EISDIR' });
    }
    await expect(open(folder, { access: 'read-write', create: true })).rejects.toMatchObject({ code: 'EISDIR' });
  });

  it('of a range names it, in the message too', () => {
    const error = systemError(-5, 'read', { path: '/x', offset: 4096, length: 512 });
    expect(error).toMatchObject({ code: 'EIO', errno: -5, syscall: 'read', path: '/x', offset: 4096, length: 512 });
    expect(error.message).toBe("EIO: i/o error, read '/x' (offset 4096, length 512)");
    expect(systemError(-4000, 'read').code).toBe('E4000');
  });

  const notRoot = isRoot ? undefined : 'needs root, to become somebody else';
  it.skipIf(notRoot !== undefined)(`of no permission is EACCES, for who has none${note(notRoot)}`, () => {
    chmodSync(path, 0o600);
    chmodSync(folder, 0o755);
    const library = fileURLToPath(new URL('../../dist/src/index.js', import.meta.url));
    const code = `
      import { open } from ${JSON.stringify(library)};
      import fs from 'node:fs';
      let expected; try { fs.openSync(process.argv[1]); } catch (error) { expected = error; }
      process.setgid(65534); process.setuid(65534);
      for (const caching of ['page-cache', 'direct']) {
        const error = await open(process.argv[1], { caching }).catch((error) => error);
        console.log(error.code, error.errno, error.syscall, error.path === process.argv[1]);
      }
      const error = await open(process.argv[1] + '-new', { access: 'read-write', create: true }).catch((error) => error);
      console.log(error.code, error.syscall);
    `;
    const { stdout, stderr } = spawnSync(process.execPath, ['--input-type=module', '-e', code, path], { encoding: 'utf8' });
    chmodSync(path, 0o644);
    expect(stderr).toBe('');
    expect(stdout).toBe('EACCES -13 open true\nEACCES -13 open true\nEACCES open\n');
  });
});

describe('what is neither file nor block device', () => {
  it.each([
    ['a pipe', (at: string): unknown => execFileSync('mkfifo', [at])],
    ['a character device', (at: string): unknown => symlinkSync('/dev/null', at)],
    ['a socket', (at: string): unknown => new Promise<void>((resolve) => createServer().listen(at, resolve).unref())],
  ])('is refused by name: %s', async (name, make) => {
    const at = join(folder, name.replaceAll(' ', '-'));
    await make(at);
    for (const caching of cachings) {
      await expect(open(at, { caching })).rejects.toMatchObject({ code: 'ERR_SECTORWISE_FILE_TYPE', path: at, message: expect.stringContaining(name) });
      expect(thrownBy(() => openSync(at, { caching, access: 'read-write' })).code).toBe('ERR_SECTORWISE_FILE_TYPE');
    }
  });
});

describe('opening', () => {
  it('a file of no bytes works', async () => {
    const empty = join(folder, 'empty');
    writeFileSync(empty, '');
    for (const caching of cachings) {
      const file = await open(empty, { caching, access: 'read-write' });
      using window = await file.window(0, 4096);
      expect(window.length).toBe(0);
      expect(await file.extents()).toEqual([]);
      expect(file.residency().pages).toBe(0);
      await file.write(Buffer.from('x'), 5);
      await file.close();
      expect(readFileSync(empty).toString()).toBe('\0\0\0\0\0x');
      fs.truncateSync(empty);
    }
  });

  it('creates a file with its blocks, once', async () => {
    for (const caching of cachings) {
      const made = join(folder, `made-${caching}`);
      const racing = await Promise.all(
        Array.from({ length: 5 }, () => open(made, { caching: 'page-cache', access: 'read-write', create: true, size: 1_000_001 })),
      );
      for (const file of racing) {
        expect([0, 1_000_001]).toContain(file.size);
        await file.close();
      }
      const { size, blocks } = statSync(made);
      expect(size).toBe(1_000_001);
      expect(blocks * 512).toBeGreaterThanOrEqual(1_000_001);
      const file = openSync(made, { caching, access: 'read-write', create: true, size: 5 });
      expect(file.size).toBe(1_000_001);
      expect(file.tryRead(new Uint8Array(1), 2_000_000)).toBe(0);
      file.closeSync();
      await expect(open(join(folder, 'missing', 'x'), { caching, access: 'read-write', create: true })).rejects.toMatchObject({
        code: 'ENOENT',
        syscall: 'open',
      });
    }
  });

  it('through a link to nothing ends, also with create', async () => {
    const link = join(folder, 'dangling');
    symlinkSync(join(folder, 'nowhere'), link);
    await expect(open(link)).rejects.toMatchObject({ code: 'ENOENT', path: link });
    await expect(open(link, { access: 'read-write', create: true })).rejects.toMatchObject({ code: 'EEXIST', path: link });
    expect(thrownBy(() => openSync(link, { access: 'read-write', create: true })).code).toBe('EEXIST');
  });

  it('that cannot allocate what it creates leaves no file', async () => {
    const made = join(folder, 'huge');
    await expect(open(made, { access: 'read-write', create: true, size: Number.MAX_SAFE_INTEGER })).rejects.toMatchObject({ syscall: 'fallocate', path: made });
    expect(existsSync(made)).toBe(false);
  });

  it('with a lock that is taken is EAGAIN', async () => {
    const holder = await open(path, { access: 'read-write', lock: 'exclusive' });
    for (const lock of ['shared', 'exclusive'] as const) {
      await expect(open(path, { lock })).rejects.toMatchObject({ code: 'EAGAIN', errno: -11, syscall: 'flock', path });
    }
    await (await open(path)).close();
    await holder.close();
    const shared = [await open(path, { lock: 'shared' }), openSync(path, { lock: 'shared' })];
    await expect(open(path, { lock: 'exclusive' })).rejects.toMatchObject({ code: 'EAGAIN' });
    for (const file of shared) await file.close();
    await (await open(path, { lock: 'exclusive' })).close();
  });

  it('for direct reading and writing is refused a second time, and only that', async () => {
    const first = await open(path, { caching: 'direct', access: 'read-write' });
    const link = join(folder, 'hard-link');
    fs.linkSync(path, link);
    for (const again of [path, link]) {
      await expect(open(again, { caching: 'direct', access: 'read-write' })).rejects.toMatchObject({
        code: 'ERR_SECTORWISE_ALREADY_OPEN',
        path: again,
        message: expect.stringContaining("access: 'read'"),
      });
    }
    for (const options of [{ caching: 'direct' }, { access: 'read-write' }] as const) await (await open(path, options)).close();
    await first.close();
    await (await open(path, { caching: 'direct', access: 'read-write' })).close();
  });

  it('for direct I/O is refused where the file system has none', async () => {
    // Files of /proc are regular files without O_DIRECT, on every machine.
    await expect(open('/proc/version', { caching: 'direct' })).rejects.toMatchObject({
      code: 'ERR_SECTORWISE_NO_DIRECT',
      path: '/proc/version',
      message: expect.stringContaining("caching: 'page-cache'"),
    });
    expect(thrownBy(() => openSync('/proc/version', { caching: 'direct' })).code).toBe('ERR_SECTORWISE_NO_DIRECT');
  });

  it.skipIf(noLoopDevices !== undefined)(`a device that is write-protected for writing is refused${note(noLoopDevices)}`, async () => {
    const device = lab.loops.attach(lab.loops.image(1 << 20));
    lab.loops.protect(device);
    for (const caching of cachings) {
      const error = await open(device, { caching, access: 'read-write' }).catch((thrown) => thrown);
      expect(['ERR_SECTORWISE_READ_ONLY_DEVICE', 'EACCES', 'EROFS']).toContain(error.code);
      expect(error.code).toBe('ERR_SECTORWISE_READ_ONLY_DEVICE');
      expect(error).toMatchObject({ path: device, message: expect.stringContaining("access: 'read'") });
      const file = await open(device, { caching });
      expect(file.readSync(new Uint8Array(10), 0)).toBe(10);
      await file.close();
    }
  });
});

describe('a file opened for reading', () => {
  it.each(cachings)('refuses every change (%s)', async (caching) => {
    const file = await open(path, { caching });
    const refused = { name: 'SectorwiseError', code: 'ERR_SECTORWISE_READ_ONLY', path, message: expect.stringContaining("'read-write'") };
    const source = new Uint8Array(1);
    for (const call of [
      () => file.write(source, 0),
      () => file.resize(1),
      () => file.allocate(0, 1),
      () => file.discard(0, 1),
      () => file.window(0, 1, { writable: true }),
    ]) {
      await expect(call()).rejects.toMatchObject(refused);
    }
    for (const call of [() => file.writeSync(source, 0), () => file.resizeSync(1), () => file.tryWindow(0, 1, { writable: true })]) {
      expect(thrownBy(call)).toMatchObject(refused);
    }
    await file.close();
    expect(readFileSync(path).equals(Buffer.alloc(10_000, 1))).toBe(true);
  });
});

describe('an error of the library', () => {
  it('has a code, a path and a range, and the name of its class', () => {
    const error = new SectorwiseError('ERR_SECTORWISE_FAULT', 'text', { path: '/x', offset: 1, length: 2, cause: 'why' });
    expect(error).toBeInstanceOf(Error);
    expect(MadeHere).toBe(SectorwiseError);
    expect({ ...error, name: error.name, message: error.message, cause: error.cause }).toEqual({
      code: 'ERR_SECTORWISE_FAULT',
      path: '/x',
      offset: 1,
      length: 2,
      name: 'SectorwiseError',
      message: 'text',
      cause: 'why',
    });
    expect(error.stack).toContain('SectorwiseError');
    expect(Object.keys(new SectorwiseError('ERR_SECTORWISE_FAULT', 'text'))).toEqual(['code']);
    expect(assertionError('x').code).toBe('ERR_SECTORWISE_ASSERTION');
  });

  it('about an argument reads as those of Node do', () => {
    const theirs = thrownBy(() => fs.readSync(0, Buffer.alloc(1), 0, 2, 0));
    expect(outOfRange('length', '<= 1', 2)).toMatchObject({ name: theirs.name, code: theirs.code });
    expect(theirs.message.startsWith('The value of "length" is out of range. It must be <= 1. Received 2')).toBe(true);
    expect(outOfRange('length', '<= 1', 2).message).toBe('The value of "length" is out of range. It must be <= 1. Received 2');
    const type = thrownBy(() => fs.closeSync('x' as never));
    expect(invalidType('fd', 'of type number', 'x')).toMatchObject({ name: type.name, code: type.code, message: type.message });
  });

  it('of an abort is the one that Node makes', async () => {
    const signal = AbortSignal.abort(new Error('why'));
    const theirs = await fs.promises.readFile(path, { signal }).catch((error) => error);
    const { name, code, message, cause } = abortError(signal) as Error & { code: string };
    expect({ name, code, message, cause }).toEqual({ name: theirs.name, code: theirs.code, message: theirs.message, cause: theirs.cause });
  });
});
