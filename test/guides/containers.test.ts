/**
 * What the guide "Containers" says of places that hide a part of the system, by hiding it: a mount namespace without /proc or /sys, a read-only file system, an overlayfs.
 *
 * Leaves to others: io_uring refused by seccomp and RLIMIT_MEMLOCK (`test/io/native-engine.test.ts`), files of somebody else (`test/memory/residency.test.ts`).
 */
import { execFile } from 'node:child_process';
import { mkdirSync, readFileSync, statfsSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { afterAll, describe, expect, it } from 'vitest';
import { type BlockFile, type Geometry, open } from '../../src/index.js';
import { hasCommand, LoopDevices, noLoopDevices } from '../geometry/loop-devices.js';

const run = promisify(execFile);
const library = fileURLToPath(new URL('../../dist/lib/index.js', import.meta.url));
const lab = new LoopDevices();
afterAll(() => lab.dispose());

const BLOCK = 4096;
const path = join(lab.folder, 'file');
writeFileSync(path, Buffer.alloc(16 * BLOCK, 'a'));

const program = `
const { open } = await import(${JSON.stringify(library)});
const [path, options] = JSON.parse(process.argv[1]);
try {
  const file = await open(path, options);
  const window = await file.window(0, 4096);
  const byte = window.bytes[0];
  const again = file.tryWindow(0, 4096)?.length;
  window.release();
  const { cached } = file.residency();
  const { features } = file.explain();
  console.log(JSON.stringify({ byte, again, cached, geometry: file.geometry, features: Object.fromEntries(features.map(({ name, used, reason }) => [name, (used ? '+ ' : '- ') + reason])) }));
  await file.close();
} catch ({ code, message }) {
  console.log(JSON.stringify({ code, message }));
}
`;

interface Seen {
  byte: number;
  again: number;
  cached: number;
  geometry: Geometry;
  features: Record<string, string>;
}

/** What a process sees that runs after the given commands, in a mount namespace of its own. */
async function hidden(commands: string, options: object): Promise<Seen> {
  const script = `${commands} && exec "$0" "$@"`;
  const args = ['-m', 'sh', '-c', script, process.execPath, '--input-type=module', '-e', program, JSON.stringify([path, options])];
  return JSON.parse((await run('unshare', args)).stdout);
}

const noNamespace = process.geteuid?.() !== 0 ? 'needs root' : hasCommand('unshare') ? undefined : 'needs unshare';
const note = (reason: string | undefined): string => (reason === undefined ? '' : ` (${reason})`);

describe.skipIf(noNamespace)(`a container that hides a part of the system, with the built project${note(noNamespace)}`, () => {
  it.each(['page-cache', 'direct'])('is worked in without /proc, and explain() says what could not be opened: %s', async (caching) => {
    const seen = await hidden('mount -t tmpfs none /proc', { caching });
    expect(seen).toMatchObject({ byte: 97, again: BLOCK });
    expect(seen.cached).toBeGreaterThan(0);
    expect(seen.features['mount table']).toMatch(/^- refused with .*; files are looked at every 250 ms as always/);
    if (caching === 'page-cache') {
      expect(seen.features.PAGEMAP_SCAN).toMatch(/^- refused with ENOENT \(\/proc\/self\/pagemap cannot be opened\); residency is asked of mincore/);
    }
  });

  it('is worked in with a /proc whose pagemap is masked', async () => {
    const seen = await hidden('mount --bind /dev/null /proc/$$/pagemap', { caching: 'page-cache' });
    expect(seen).toMatchObject({ byte: 97, again: BLOCK });
    expect(seen.features.PAGEMAP_SCAN).toMatch(/^- refused with ENOTTY \(it came with Linux 6.7, and containers may forbid it\)/);
  });

  it.each(['page-cache', 'direct'])('is worked in without /sys, with sectors of 4096 bytes: %s', async (caching) => {
    const seen = await hidden('mount -t tmpfs none /sys', { caching });
    expect(seen).toMatchObject({ byte: 97, again: BLOCK, geometry: { logicalSectorSize: 4096, physicalSectorSize: 4096 } });
    expect(seen.geometry.device).toBeUndefined();
    expect(seen.features['device limits']).toMatch(/no block device can be named; sectors of 4096 bytes and transfers of 1 MiB are assumed/);
    expect(seen.features['watched device']).toMatch(/^- /);
  });

  it('refuses to write on a read-only file system with EROFS, and reads and locks there', async () => {
    const readOnly = `mount --bind ${lab.folder} ${lab.folder} && mount -o remount,bind,ro ${lab.folder}`;
    expect(await hidden(readOnly, { caching: 'direct' })).toMatchObject({ byte: 97 });
    expect(await hidden(readOnly, { lock: 'exclusive' })).toMatchObject({ byte: 97 });
    expect(await hidden(readOnly, { access: 'read-write' })).toMatchObject({ code: 'EROFS' });
  });
});

const EXT4_MAGIC = 0xef53;
const noOverlay =
  noLoopDevices ??
  (!readFileSync('/proc/filesystems', 'latin1').includes('overlay')
    ? 'needs overlayfs'
    : statfsSync(tmpdir()).type !== EXT4_MAGIC
      ? 'the temp folder is not on ext4'
      : undefined);

describe.skipIf(noOverlay)(`a file of a lower layer of an overlayfs${note(noOverlay)}`, () => {
  let count = 0;
  /** A file of 16 blocks of 'a' in the lower layer: its path, and that of the copy which a change makes. */
  function layered(): { path: string; copy: string } {
    const base = join(lab.folder, `overlay-${++count}`);
    mkdirSync(base);
    const [lower, upper, work] = ['lower', 'upper', 'work'].map((name) => join(base, name));
    for (const folder of [lower, upper, work]) mkdirSync(folder);
    writeFileSync(join(lower, 'file'), Buffer.alloc(16 * BLOCK, 'a'));
    return {
      path: join(lab.mount('overlay', '-t', 'overlay', '-o', `lowerdir=${lower},upperdir=${upper},workdir=${work}`), 'file'),
      copy: join(upper, 'file'),
    };
  }

  async function first(file: BlockFile): Promise<string> {
    using window = await file.window(0, BLOCK);
    return String.fromCharCode(window.bytes[0]);
  }

  it('is copied as soon as it is opened for writing', async () => {
    const { path, copy } = layered();
    await using file = await open(path, { access: 'read-write' });
    expect(readFileSync(copy).equals(Buffer.alloc(16 * BLOCK, 'a'))).toBe(true);
    await file.write(Buffer.from('b'), 0);
    expect(await first(file)).toBe('b');
  });

  it('stays what it was for who opened it through the page cache before the copy, and is the copy for who opens it later', async () => {
    const { path } = layered();
    await using reader = await open(path);
    expect(await first(reader)).toBe('a');
    await using writer = await open(path, { access: 'read-write' });
    await writer.write(Buffer.from('b'), 0);
    await writer.flush();
    await reader.evict(0, BLOCK);
    expect(await first(reader)).toBe('a');
    await using later = await open(path);
    expect(await first(later)).toBe('b');
  });

  it('is read from the copy in direct mode, once the frames are given up', async () => {
    const { path } = layered();
    await using reader = await open(path, { caching: 'direct' });
    expect(await first(reader)).toBe('a');
    await using writer = await open(path, { access: 'read-write' });
    await writer.write(Buffer.from('b'), 0);
    await writer.flush();
    expect(await first(reader)).toBe('a');
    await reader.evict(0, BLOCK);
    expect(await first(reader)).toBe('b');
  });

  it('tells a live window in either mode that the copy was cut', async () => {
    for (const caching of ['page-cache', 'direct'] as const) {
      const { path } = layered();
      await using reader = await open(path, { caching });
      using window = await reader.window(8 * BLOCK, BLOCK);
      const told = new Promise((resolve) => reader.once('invalidate', resolve));
      truncateSync(path, BLOCK);
      expect(await told).toMatchObject({ cause: 'truncate', offset: BLOCK });
      expect(() => window.bytes).toThrow(expect.objectContaining({ code: 'ERR_SECTORWISE_TRUNCATED' }));
    }
  });
});
