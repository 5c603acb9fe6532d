/** `sectorwise residency` and `sectorwise extents`: against what the page cache and filefrag say. */
import { spawnSync } from 'node:child_process';
import { chmodSync, closeSync, fsyncSync, mkdtempSync, openSync, readFileSync, rmSync, statfsSync, truncateSync, writeFileSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { dropPages } from '../fixtures/cold.js';
import { note } from '../fixtures/places.js';
import { hasCommand, isRoot } from '../geometry/loop-devices.js';
import { program, sectorwise } from './sectorwise.js';

const MIB = 1 << 20;
const folder = mkdtempSync(join(tmpdir(), 'sectorwise-cli-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const notExt4 = statfsSync(folder).type === 0xef53 ? undefined : 'the temp folder is not on ext4';
const noFilefrag = notExt4 ?? (hasCommand('filefrag') ? undefined : 'needs filefrag');

function written(name: string, bytes: number): string {
  const path = join(folder, name);
  const fd = openSync(path, 'w');
  for (let at = 0; at < bytes; at += MIB) writeSync(fd, Buffer.alloc(Math.min(MIB, bytes - at), 5));
  fsyncSync(fd);
  closeSync(fd);
  return path;
}

describe('sectorwise residency', () => {
  it('counts every page of a file that was just read', async () => {
    const path = written('warm', MIB + 100);
    readFileSync(path);
    const { status, stdout } = await sectorwise(['residency', '--json', path]);
    const told = JSON.parse(stdout);
    expect(status).toBe(0);
    expect(told).toMatchObject({ schemaVersion: 1, tool: 'sectorwise', target: path, size: MIB + 100, pages: 257, cached: 257 });
    expect(told.ranges.reduce((sum: number, { cached }: { cached: number }) => sum + cached, 0)).toBe(257);
  });

  it(`sees none of a file that was dropped, and its own look brings none in${note(notExt4)}`, async (context) => {
    if (notExt4) return context.skip(notExt4);
    const path = written('cold', 2 * MIB);
    dropPages(path);
    for (let look = 0; look < 2; look++) {
      const { stdout } = await sectorwise(['residency', path]);
      expect(stdout).toContain('0 in memory (0 %)');
      expect(stdout).toContain('. nothing');
    }
  });

  it('draws one character for each range and as many ranges as the file has, in lines no longer than COLUMNS', async () => {
    const path = written('drawn', 3 * MIB);
    const { stdout } = await sectorwise(['residency', path], { env: { COLUMNS: '60' } });
    const lines = stdout.split('\n');
    const strip = lines.filter((line) => /^ *[\d.]+ (bytes|KiB|MiB) {2}[#+.-]+$/.test(line)).map((line) => line.trim().split(/ {2}/)[1]);
    expect(strip.join('')).toHaveLength(256);
    for (const line of strip) expect(line.length).toBeLessThanOrEqual(46);
    expect(stdout).toContain('one character is 12 KiB');
  });

  it(`tells a stranger that the kernel hides the answer, instead of what it pretends${note(isRoot ? undefined : 'needs root')}`, async (context) => {
    if (!isRoot) return context.skip('needs root');
    const path = written('foreign', MIB);
    chmodSync(path, 0o644);
    chmodSync(folder, 0o755);
    expect((await sectorwise(['residency', path])).status).toBe(0);
    // What is emitted may lie in a folder of root's alone: the process becomes somebody else when all of it is loaded.
    const source = dirname(dirname(await program()));
    const script = `
      const { command } = await import(${JSON.stringify(join(source, 'cli', 'residency.js'))});
      const { native } = await import(${JSON.stringify(join(source, 'io', 'native.js'))});
      native();
      process.setgroups([]); process.setgid(65534); process.setuid(65534);
      const terminal = { out: (text) => process.stdout.write(text), err: (text) => process.stderr.write(text), columns: 80, paint: (_, text) => text };
      process.exitCode = await command.run({}, [${JSON.stringify(path)}], terminal);`;
    const { status, stdout, stderr } = spawnSync(process.execPath, ['--input-type=module', '-e', script], { encoding: 'utf8', timeout: 100_000 });
    expect({ status, stdout }).toEqual({ status: 3, stdout: '' });
    expect(stderr).toContain('only to those who own the file or may write to it');
  });
});

describe('sectorwise extents', () => {
  it(`names the places that filefrag names${note(noFilefrag)}`, async (context) => {
    if (noFilefrag) return context.skip(noFilefrag);
    const path = join(folder, 'holes');
    const fd = openSync(path, 'w');
    writeSync(fd, Buffer.alloc(8192, 1), 0, 8192, 0);
    writeSync(fd, Buffer.alloc(8192, 2), 0, 8192, MIB);
    fsyncSync(fd);
    closeSync(fd);
    truncateSync(path, 2 * MIB);
    const { status, stdout } = await sectorwise(['extents', '--json', path]);
    const told = JSON.parse(stdout);
    expect(status).toBe(0);
    expect(told.holes).toBe(2 * MIB - 16384);
    const frag = spawnSync('filefrag', ['-b4096', '-v', path], {
      encoding: 'utf8',
      env: { ...process.env, PATH: `${process.env.PATH}:/usr/sbin:/sbin` },
    }).stdout;
    const expected = [...frag.matchAll(/^ *\d+: +(\d+)\.\. +\d+: +(\d+)\.\. +\d+: +(\d+):/gm)].map((match) =>
      match.slice(1, 4).map((each) => Number(each) * 4096),
    );
    expect(expected).toHaveLength(2);
    expect(told.extents.map(({ offset, physical, length }: Record<string, number>) => [offset, physical, length])).toEqual(expected);
  });

  it(`writes what is dirty first, so that it has a place${note(notExt4)}`, async (context) => {
    if (notExt4) return context.skip(notExt4);
    const path = join(folder, 'dirty');
    writeFileSync(path, Buffer.alloc(MIB, 3));
    const { extents } = JSON.parse((await sectorwise(['extents', '--json', path])).stdout);
    for (const { physical, flags } of extents) {
      expect(physical).toBeGreaterThan(0);
      expect(flags).not.toContain('delalloc');
    }
  });

  it('says that files in memory lie on no device, and ends with 3', async (context) => {
    let shm: string;
    try {
      shm = mkdtempSync('/dev/shm/sectorwise-cli-');
    } catch {
      return context.skip('needs a writable /dev/shm');
    }
    try {
      writeFileSync(join(shm, 'x'), 'x');
      const { status, stderr } = await sectorwise(['extents', join(shm, 'x')]);
      expect(stderr).toContain('no FIEMAP');
      expect(status).toBe(3);
    } finally {
      rmSync(shm, { recursive: true });
    }
  });

  it('draws holes, runs and breaks as an SVG that is well-formed', async () => {
    const path = written('a & <b>', MIB);
    const svg = join(folder, 'x.svg');
    const { status } = await sectorwise(['extents', '--svg', svg, path]);
    if (notExt4 === undefined) {
      expect(status).toBe(0);
      const content = readFileSync(svg, 'utf8');
      expect(content).toContain('a &amp; &lt;b&gt;');
      expect(content.match(/<rect /g)!.length).toBe(content.match(/<rect [^<>]*\/>/g)!.length);
    }
  });
});
