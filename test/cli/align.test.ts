/** `sectorwise align`: exit codes, text, JSON against its schema, files and directories. */
import { execFileSync, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import {
  chmodSync,
  closeSync,
  fsyncSync,
  ftruncateSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  statfsSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { createRequire } from 'node:module';
import { basename, join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { command } from '../../src/cli/align.js';
import { reportObject } from '../../src/cli/report-json.js';
import { checkLayout } from '../../src/layout/check.js';
import { note } from '../fixtures/places.js';
import { isRoot, LoopDevices, noFileSystem, noLoopDevices } from '../geometry/loop-devices.js';
import { SparseImage, writeGpt, writeMbr } from '../layout/corpus.js';
import { tool, without } from '../layout/debian-tools.js';
import { ext, fat, luks2, superblocks } from '../layout/superblocks.js';
import { folder, good, MIB, old, ran, saved } from './images.js';
import { program, sectorwise } from './sectorwise.js';

const Ajv = createRequire(import.meta.url)('ajv/dist/2020').default;
const schema = JSON.parse(readFileSync(new URL('../../docs/schemas/align-1.json', import.meta.url), 'utf8'));
const validates = new Ajv({ allErrors: true, allowUnionTypes: true }).compile(schema);
const notExt4 = statfsSync(folder).type === 0xef53 ? undefined : 'the temp folder is not on ext4';

/** What the command wrote: the schema says what is in it. */
// biome-ignore lint/suspicious/noExplicitAny: checked against the schema before it is used
type Told = any;

/** JSON of the command, checked against the schema. */
async function json(args: readonly string[]): Promise<{ exit: number; value: Told }> {
  const { exit, out } = await ran(command, ['--json', ...args]);
  const value = JSON.parse(out);
  expect(validates(value), JSON.stringify(validates.errors)).toBe(true);
  return { exit, value };
}

function stored(name: string, bytes: number): string {
  const path = join(folder, name);
  const fd = openSync(path, 'w');
  writeSync(fd, Buffer.alloc(bytes, 9));
  fsyncSync(fd);
  closeSync(fd);
  return path;
}

const goodPath = saved('good.img', good());
const oldPath = saved('old.img', old());

describe('exit codes of sectorwise align, as the process ends with them', () => {
  const bad = good();
  // One bit in either array: both CRCs are wrong.
  bad.write(1024, Uint8Array.of(1)).write(64 * MIB - 33 * 512, Uint8Array.of(1));
  const cases: Array<[string, string[], number]> = [
    ['0 for an aligned image', [goodPath], 0],
    ['1 for one that is not', [oldPath], 1],
    ['2 for a table of which both copies are bad', [saved('bad.img', bad)], 2],
    ['3 for an image with nothing in it', [saved('blank.img', new SparseImage(MIB))], 3],
    ['4 for what is not there', [join(folder, 'missing')], 4],
    ['64 for an option that does not exist', ['--strickt', goodPath], 64],
    ['64 for no target', [], 64],
    ['64 for a page size that is no power of two', ['--page', '5000', goodPath], 64],
    ['64 for a sector size that is none', ['--sector-size', '520', goodPath], 64],
  ];
  it.each(cases)('%s', async (_, args, status) => {
    const ended = await sectorwise(['align', ...args]);
    expect(ended).toMatchObject({ status });
    expect(ended.stderr === '').toBe(status < 4);
  });

  it('takes the first of 4, 2, 3, 1, 0 over all targets, and judges the others all the same', async () => {
    const [blank, broken, missing] = ['blank.img', 'bad.img', 'missing'].map((name) => join(folder, name));
    expect((await ran(command, [goodPath, oldPath])).exit).toBe(1);
    expect((await ran(command, [oldPath, blank])).exit).toBe(3);
    expect((await ran(command, [blank, broken, oldPath])).exit).toBe(2);
    const { exit, out, err } = await ran(command, [missing, broken, goodPath]);
    expect(exit).toBe(4);
    expect(err).toContain('ENOENT');
    expect(out.match(/^verdict: /gm)).toHaveLength(2);
  });

  it('is 1 for warnings with --strict, and 0 without', async () => {
    const image = writeGpt(new SparseImage(64 * MIB), { partitions: [{ first: 2048, last: 4096 }] });
    const path = saved('warned.img', image);
    expect((await ran(command, [path])).exit).toBe(0);
    expect((await ran(command, ['--strict', path])).exit).toBe(1);
  });

  it(`is 4 for a file that this user may not read${note(isRoot ? 'root may read everything' : undefined)}`, async (context) => {
    if (isRoot) return context.skip('root may read everything');
    const path = stored('secret', 4096);
    chmodSync(path, 0);
    expect((await ran(command, [path])).exit).toBe(4);
  });

  it('says what was meant by a misspelled option or command', async () => {
    expect((await sectorwise(['align', '--strickt', goodPath])).stderr).toContain('did you mean --strict?');
    expect((await sectorwise(['algin', goodPath])).stderr).toContain('did you mean align?');
    expect((await sectorwise(['align', '--help'])).stdout).toContain('Exit code: 0 aligned');
  });
});

describe('the text of sectorwise align', () => {
  it('has one line for each finding: severity, code, place, what, the division, the fix', async () => {
    const { out } = await ran(command, [oldPath]);
    expect(out).toMatch(/^error E_START p1: starts at byte 32256 \(LBA 63\), 32256 % 4096 = 3584; move to LBA 2048$/m);
    expect(out).toMatch(/^verdict: Not laid out for pages of 4096 bytes: the partition layer spoils it/m);
    expect(out).toContain('image (a partition table lies in it');
  });

  it('draws no line of the map longer than the terminal, marks the misaligned edge and numbers the partition', async () => {
    for (const columns of [40, 80, 200]) {
      const { out } = await ran(command, [oldPath], columns);
      const bar = out.split('\n').find((line) => /^#.*\|$/.test(line))!;
      expect(bar).toHaveLength(columns);
      expect(bar).toMatch(/!1=/);
      expect(out).toContain('! misaligned edge');
    }
  });

  it('has colours on a terminal only, and not there with NO_COLOR or --no-color', async (context) => {
    const script = tool('script');
    if (script === undefined) return context.skip('needs script');
    const main = await program();
    const onTerminal = (environment: NodeJS.ProcessEnv, ...args: string[]): string => {
      const { NO_COLOR, COLUMNS, ...env } = process.env;
      const line = [process.execPath, main, 'align', ...args, oldPath].map((word) => `'${word}'`).join(' ');
      return spawnSync(script, ['-qec', line, '/dev/null'], { encoding: 'utf8', env: { ...env, TERM: 'xterm', ...environment } }).stdout;
    };
    expect((await sectorwise(['align', oldPath])).stdout).not.toContain('\x1b[');
    expect(onTerminal({})).toContain('\x1b[31merror\x1b[0m E_START');
    expect(onTerminal({ NO_COLOR: '1' })).not.toContain('\x1b[');
    expect(onTerminal({}, '--no-color')).not.toContain('\x1b[');
    expect(onTerminal({ TERM: 'dumb' })).not.toContain('\x1b[');
  });

  it('shows no control characters of a name on the medium', async () => {
    const image = writeGpt(new SparseImage(64 * MIB), { partitions: [{ first: 2048, last: 4095, name: '\x1b[2Jx\n' }] });
    const { out } = await ran(command, [saved('names.img', image)]);
    expect(out).not.toContain('\x1b');
    expect(out).toContain('[2Jx');
  });

  it('says nothing but errors and warnings with --quiet', async () => {
    expect((await ran(command, ['--quiet', goodPath])).out).toBe('');
    const { out } = await ran(command, ['--quiet', oldPath, goodPath]);
    expect(out.trimEnd().split('\n').length).toBeGreaterThan(0);
    for (const line of out.trimEnd().split('\n')) expect(line).toMatch(/old\.img: (error|warn) [EW]_[A-Z_]+ p1: /);
  });

  it('ends quietly, with its exit code, when nobody reads any more', async () => {
    const child = spawn(process.execPath, [await program(), 'align', ...Array.from({ length: 200 }, () => oldPath)], { stdio: ['ignore', 'pipe', 'pipe'] });
    let errors = '';
    child.stderr.on('data', (data) => (errors += data));
    child.stdout.once('data', () => child.stdout.destroy());
    const [status] = await once(child, 'close');
    expect(errors).toBe('');
    expect(status).toBe(1);
  });
});

describe('the JSON of sectorwise align', () => {
  it('is as its schema says, for images with every kind of table and volume', async () => {
    const images: Array<[string, SparseImage]> = superblocks.map(({ name, bytes }) => [name, good(80 * MIB).write(2048 * 512, bytes)]);
    images.push(['mbr', old()]);
    images.push(['pmbr only', writeMbr(new SparseImage(MIB), [{ type: 0xee, start: 1, sectors: 2047 }])]);
    images.push(['superfloppy', new SparseImage(32 * MIB).write(0, fat({ sectorsPerFat: 64, totalSectors: 65536 }))]);
    images.push([
      'overlap',
      writeGpt(new SparseImage(64 * MIB), {
        partitions: [
          { first: 2048, last: 9000 },
          { first: 8192, last: 9999 },
        ],
      }),
    ]);
    images.push(['no backup', writeGpt(new SparseImage(64 * MIB), { partitions: [{ first: 2048, last: 9000 }], without: 'backup' })]);
    for (const [name, image] of images) {
      const value = JSON.parse(JSON.stringify(reportObject(checkLayout(image, { target: name, pages: [4096, 65536] }))));
      expect(validates(value), `${name}: ${JSON.stringify(validates.errors)}`).toBe(true);
    }
  });

  it('is one report for one target and an array for several, unreadable ones included', async () => {
    const { exit, value } = await json([oldPath]);
    expect(exit).toBe(1);
    expect(value).toMatchObject({ schemaVersion: 1, tool: 'sectorwise', target: oldPath, summary: { worst: 'error', exit: 1 } });
    expect(value.findings[0]).toMatchObject({
      severity: 'error',
      code: 'E_START',
      layer: 'partition',
      partition: 1,
      value: 32256,
      modulus: 4096,
      remainder: 3584,
    });
    const { exit: all, value: several } = await json([goodPath, join(folder, 'missing')]);
    expect(all).toBe(4);
    expect(several.map(({ summary }: Told) => summary.exit)).toEqual([0, 4]);
  });

  it('writes sizes above 2^53 as decimal strings', () => {
    const image = writeGpt(new SparseImage(1n << 62n), { partitions: [{ first: 2048, last: (1n << 52n) - 1n }] });
    const { partitions, table } = reportObject(checkLayout(image)) as Told;
    expect(partitions[0]).toMatchObject({ start: 1048576, size: String((1n << 61n) - 1048576n) });
    expect(table.backup.header).toBe(String((1n << 62n) - 512n));
  });

  it('lists volumes inside of others after the one that holds them', async () => {
    const bytes = superblocks.find(({ name }) => name === 'LVM with ext4 in a logical volume')!.bytes;
    const { value } = await json([saved('lvm.img', good().write(2048 * 512, bytes))]);
    expect(value.volumes.map(({ kind }: Told) => kind)).toEqual(['lvm2', 'ext4']);
    expect(value.volumes.map(({ partition }: Told) => partition)).toEqual([1, 1]);
  });
});

describe('what a regular file is taken for', () => {
  it('is an image if something known lies in it, and a file with --as file', async () => {
    expect((await json([goodPath])).value.table.kind).toBe('gpt');
    const asFile = await json(['--as', 'file', goodPath]);
    expect(asFile.value.table.kind).toBe('none');
    if (notExt4 === undefined) expect(asFile.value.file.fileSystem).toBe('ext4');
  });

  it('is a file if nothing known lies in it, unless its name or emptiness says that it is to be an image', async () => {
    const data = stored('data', 8192);
    const { out } = await ran(command, [data]);
    expect(out).toContain('file (nothing in it is known');
    expect((await ran(command, ['--as', 'image', data])).exit).toBe(3);
    const blank = join(folder, 'blank-without-ending');
    writeFileSync(blank, '');
    truncateSync(blank, MIB);
    expect(await ran(command, [blank])).toMatchObject({ exit: 3, out: expect.stringContaining('image (nothing has been written into it') });
  });

  it('is judged for a sector size and physical size that are told', async () => {
    const image = new SparseImage(64 * MIB);
    writeMbr(image, [{ type: 0x83, start: 2049, sectors: 8192 }]);
    const path = saved('told.img', image);
    expect((await json([path])).exit).toBe(1);
    expect((await json(['--sector-size', '4096', path])).value.partitions[0].start).toBe(2049 * 4096);
    const { value } = await json(['--physical', '65536', goodPath]);
    expect(value.topology).toMatchObject({ physical: 65536, source: 'option' });
  });
});

describe('--inside', () => {
  const missing = without('mkfs.fat', 'mcopy');
  it(`judges a file in an image that nobody mounted, and names the volume's clusters as what spoils it${note(missing)}`, async (context) => {
    if (missing) return context.skip(missing);
    const payload = stored('payload', 100_000);
    for (const [name, args, mappable] of [
      ['default.img', [], 0],
      ['aligned.img', ['-s', '8', '-R', '8'], 25],
    ] as Array<[string, string[], number]>) {
      const path = saved(name, new SparseImage(8 * MIB));
      expect(spawnSync(tool('mkfs.fat')!, [...args, path]).status).toBe(0);
      expect(spawnSync(tool('mcopy')!, ['-i', path, payload, '::/DATA.MDB'], { env: { ...process.env, MTOOLS_SKIP_CHECK: '1' } }).status).toBe(0);
      const { exit, value } = await json(['--inside', '/data.mdb', path]);
      expect(value.file).toMatchObject({ path: '/data.mdb', size: 100_000, pages: { 4096: { total: 25 } } });
      expect([name, value.file.pages['4096'].mappable]).toEqual([name, mappable]);
      expect(exit).toBe(mappable === 0 ? 1 : 0);
    }
  });

  it('ends with 4 where there is no such file, with 3 where it cannot be followed, with 64 for what is no path', async () => {
    const crypt = saved('crypt.img', good().write(2048 * 512, luks2()));
    expect((await ran(command, ['--inside', '/x', crypt])).exit).toBe(3);
    expect((await ran(command, ['--inside', '2:/x', crypt])).exit).toBe(4);
    await expect(ran(command, ['--inside', 'x', crypt])).rejects.toThrow('--inside takes a path');
    await expect(ran(command, ['--inside', '/x', '--as', 'file', crypt])).rejects.toThrow('--inside looks into an image');
  });
});

describe('files on a mounted file system', () => {
  it(`counts every page of a file on ext4 as mappable, and tells its tail${note(notExt4)}`, async (context) => {
    if (notExt4) return context.skip(notExt4);
    const { exit, value } = await json([stored('whole', 10_000)]);
    expect(exit).toBe(0);
    expect(value.file).toMatchObject({ fileSystem: 'ext4', pages: { 4096: { mappable: 3, total: 3, firstFailing: null, tail: 10_000 % 4096 } } });
    expect(value.findings.map(({ code }: Told) => code)).toEqual(['I_TAIL']);
  });

  it(`warns of holes, and has nothing to judge where there is nothing else${note(notExt4)}`, async (context) => {
    if (notExt4) return context.skip(notExt4);
    const path = stored('holey', 4096);
    truncateSync(path, 5 * 4096);
    const { exit, value } = await json([path]);
    expect(exit).toBe(0);
    expect(value.file.pages['4096']).toMatchObject({ mappable: 1, total: 5, firstFailing: { page: 1, cause: 'byte 4096 is in a hole' } });
    expect(value.summary.worst).toBe('warning');
    const empty = stored('empty', 0);
    expect((await json([empty])).exit).toBe(3);
  });

  it('cannot say where files in memory lie, and ends with 3', async (context) => {
    const { existsSync, mkdtempSync, rmSync } = await import('node:fs');
    if (!existsSync('/dev/shm')) return context.skip('needs /dev/shm');
    let shm: string;
    try {
      shm = mkdtempSync('/dev/shm/sectorwise-cli-');
    } catch {
      return context.skip('needs a writable /dev/shm');
    }
    try {
      writeFileSync(join(shm, 'x'), Buffer.alloc(4096, 1));
      expect((await json([join(shm, 'x')])).exit).toBe(3);
      expect((await json([shm])).exit).toBe(3);
    } finally {
      rmSync(shm, { recursive: true });
    }
  });

  it(`sums up a directory: the worst first, links not followed, what is empty or special counted${note(notExt4)}`, async (context) => {
    if (notExt4) return context.skip(notExt4);
    const root = join(folder, 'tree');
    mkdirSync(join(root, 'deep'), { recursive: true });
    for (let i = 0; i < 300; i++) writeFileSync(join(root, 'deep', `f${i}`), Buffer.alloc(100 + i * 40, 1));
    writeFileSync(join(root, 'empty'), '');
    symlinkSync(oldPath, join(root, 'link'));
    const sparse = openSync(join(root, 'sparse'), 'w');
    ftruncateSync(sparse, 8192);
    closeSync(sparse);
    const { exit, value } = await json([root]);
    expect(exit).toBe(0);
    expect(value.directory).toMatchObject({ files: 302, aligned: 300, misaligned: 0, unplaced: 1, empty: 1, unreadable: 0, skipped: { symbolicLinks: 1 } });
    expect(value.directory.worst[0]).toMatchObject({ path: join(root, 'sparse'), mappable: 0, total: 2 });
    const { out } = await ran(command, [root]);
    expect(out).toMatch(/^300 +with every page mappable$/m);
  });

  it(`counts what may not be read, goes on, and ends with 4${note(isRoot ? 'root may read everything' : notExt4)}`, async (context) => {
    if (isRoot) return context.skip('root may read everything');
    if (notExt4) return context.skip(notExt4);
    const root = join(folder, 'locked');
    mkdirSync(root);
    writeFileSync(join(root, 'a'), 'a');
    writeFileSync(join(root, 'b'), 'b', { mode: 0 });
    const { exit, value } = await json([root]);
    expect(exit).toBe(4);
    expect(value.directory).toMatchObject({ aligned: 1, unreadable: 1, errors: [{ path: join(root, 'b'), code: 'EACCES' }] });
  });
});

/** Attaches an image without the partitions that whoever had the device before may have left on it. */
function attached(loops: LoopDevices, image: string): string {
  const device = loops.attach(image, 512);
  const name = basename(device);
  for (const entry of readdirSync(`/sys/block/${name}`)) if (entry.startsWith(`${name}p`)) execFileSync('delpart', [device, entry.slice(name.length + 1)]);
  return device;
}

describe('devices, and what lies on them', () => {
  const loops = noLoopDevices === undefined ? new LoopDevices() : undefined;
  afterAll(() => loops?.dispose());

  it(`reads the limits of the device itself${note(noLoopDevices)}`, async (context) => {
    if (loops === undefined) return context.skip(noLoopDevices);
    const device = loops.attach(saved('device.img', good()), 512);
    const { exit, value } = await json([device]);
    expect(exit).toBe(0);
    expect(value).toMatchObject({ sectorSize: { value: 512 }, topology: { source: 'device', logical: 512 }, partitions: [{ number: 1, start: MIB }] });
    expect((await ran(command, [device])).out).toContain('block device');
  });

  it(`judges where a partition begins by sysfs, and what is in it from its own node${note(noLoopDevices)}`, async (context) => {
    if (loops === undefined) return context.skip(noLoopDevices);
    const device = attached(loops, saved('crooked.img', new SparseImage(32 * MIB).write(63 * 512, ext('ext4'))));
    const node = loops.partition(device, 1, 63, 40_000);
    const { exit, value } = await json(['--physical', '4096', node]);
    expect(exit).toBe(1);
    expect(value.findings[0]).toMatchObject({ code: 'E_START', layer: 'partition', partition: 1, value: 32256, remainder: 3584 });
    expect(value.volumes[0]).toMatchObject({ kind: 'ext4', partition: null });
  });

  const noExt4 = noFileSystem('mke2fs');
  it(`names the partition as what spoils a file on it, and says where the pages lie${note(noExt4)}`, async (context) => {
    if (loops === undefined || noExt4) return context.skip(noExt4);
    const image = new SparseImage(32 * MIB);
    const device = attached(loops, saved('mounted.img', image));
    const node = loops.partition(device, 1, 63, 60_000);
    // Written when the partition is there: on some machines the kernel would have made one from it.
    writeMbr(image, [{ type: 0x83, start: 63, sectors: 60_000 }]);
    writeFileSync(device, image.read(0n, 512), { flag: 'r+' });
    expect(spawnSync(tool('mke2fs')!, ['-q', '-t', 'ext4', '-b', '4096', node]).status).toBe(0);
    const mounted = loops.mount(node);
    const path = join(mounted, 'file');
    writeFileSync(path, Buffer.alloc(8 * 4096, 1));
    const { exit, value } = await json([path]);
    expect(exit).toBe(1);
    expect(value.file.pages['4096']).toMatchObject({ mappable: 0, total: 8 });
    expect(value.file.pages['4096'].firstFailing.cause).toMatch(/% 4096 = 3584$/);
    expect(value.findings.map(({ code }: Told) => code)).toEqual(expect.arrayContaining(['E_START', 'E_PAGES']));
    const { out } = await ran(command, [path]);
    expect(out).toContain('the partition layer spoils it');
    const tree = await json([mounted]);
    expect(tree.value.directory).toMatchObject({ misaligned: 1 });
    expect(tree.exit).toBe(1);
  });

  it(`does not enter other file systems${note(noExt4)}`, async (context) => {
    if (loops === undefined || noExt4 || notExt4) return context.skip(noExt4 ?? notExt4);
    const { folder: mounted } = loops.fileSystem(16 * MIB, 'mke2fs', '-q', '-t', 'ext4');
    writeFileSync(join(mounted, 'other'), 'other');
    writeFileSync(join(loops.folder, 'own'), 'own');
    const { value } = await json([loops.folder]);
    expect(value.directory.skipped.otherFileSystems).toBeGreaterThanOrEqual(1);
    expect(value.directory.worst.map(({ path }: Told) => path)).not.toContain(join(mounted, 'other'));
  });
});

describe('--svg', () => {
  let svg = '';
  beforeAll(async () => {
    const image = writeGpt(new SparseImage(1n << 40n), {
      partitions: [
        ...Array.from({ length: 12 }, (_, index) => ({ first: 2048 + index * 2048, last: 4095 + index * 2048, name: `<tiny & "${index}">` })),
        { first: 100_001, last: 1_000_000_000, name: 'crooked' },
        { first: 1_000_001_536, last: 1_100_000_000, name: 'secret' },
      ],
    });
    image.write(2048 * 512, fat({ sectorsPerFat: 64, totalSectors: 65536 })).write(1_000_001_536n * 512n, luks2());
    const path = join(folder, 'map.svg');
    await ran(command, ['--svg', path, saved('many.img', image)]);
    svg = readFileSync(path, 'utf8');
  });

  it('is well-formed XML whatever the names are', (context) => {
    expect(svg).toContain('&lt;tiny &amp; &quot;3&quot;&gt;');
    const xmllint = tool('xmllint');
    if (xmllint === undefined) {
      const missing = without('xmllint');
      expect(svg.replace(/<(\w+)( [\w:-]+="[^"<&]*(&\w+;[^"<&]*)*")*\/?>|<\/\w+>/g, '')).not.toMatch(/[<>]/);
      return context.skip(missing);
    }
    expect(spawnSync(xmllint, ['--noout', '-'], { input: svg, encoding: 'utf8' }).stderr).toBe('');
  });

  it('lets no text of the disk run into another, however thin the partitions are', () => {
    const texts = [...svg.matchAll(/<text x="(\d+)" y="(\d+)"[^>]*?( text-anchor="(\w+)")?[^>]*>([^<]*)</g)].map((match) => {
      const [x, y, content] = [Number(match[1]), Number(match[2]), match[5].replace(/&\w+;/g, '&')];
      const anchor = /text-anchor="(\w+)"/.exec(match[0])?.[1];
      const width = content.length * 6.8;
      const left = anchor === 'end' ? x - width : anchor === 'middle' ? x - width / 2 : x;
      return { y, left, right: left + width, content };
    });
    expect(texts.length).toBeGreaterThan(30);
    for (const [index, a] of texts.entries()) {
      for (const b of texts.slice(index + 1)) {
        // Bold titles are wider than counted; numbers below the bar stand a little closer than a whole character.
        if (Math.abs(a.y - b.y) < 9) expect(a.left < b.right - 2 && b.left < a.right - 2, `${a.content} | ${b.content}`).toBe(false);
      }
    }
  });

  it('marks misaligned edges and shows each partition with its layers', () => {
    expect(svg.match(/<rect [^>]*width="3"[^>]*fill="#c62828"/g)!.length).toBeGreaterThanOrEqual(2);
    expect(svg).toContain('luks2: encrypted, what is inside cannot be seen');
    expect(svg).toContain('start misaligned');
  });

  it('is for one device or image', async () => {
    await expect(ran(command, ['--svg', join(folder, 'x.svg'), goodPath, oldPath])).rejects.toThrow('one device or image at a time');
    await expect(ran(command, ['--svg', join(folder, 'x.svg'), '--as', 'file', stored('no-map', 4096)])).rejects.toThrow('draws devices and images');
  });
});
