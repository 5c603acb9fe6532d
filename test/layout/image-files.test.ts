/**
 * Files in images that nobody mounted: what lies at the extents told must be the file, byte for byte, with zeros for holes and for what was never written.
 * The images are filled by tools or by the kernel, never by what is tested; of exFAT, which has no such tool, by hand.
 */
import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { closeSync, fstatSync, mkdirSync, mkdtempSync, openSync, readFileSync, readSync, rmSync, truncateSync, writeFileSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, describe, expect, it } from 'vitest';
import { FIEMAP_EXTENT_DATA_INLINE, FIEMAP_EXTENT_UNKNOWN, FIEMAP_EXTENT_UNWRITTEN } from '../../src/geometry/fiemap.js';
import { btrfsExtents, type ImageFile, imageExtents, imageFile } from '../../src/layout/image-files.js';
import type { ImageSource, Volume } from '../../src/layout/model.js';
import { readVolume } from '../../src/layout/volume.js';
import { note } from '../fixtures/places.js';
import { isRoot, LoopDevices, noLoopDevices } from '../geometry/loop-devices.js';
import { tool, without } from './debian-tools.js';
import { luks2, swap } from './superblocks.js';

const KIB = 1 << 10;
const MIB = 1 << 20;
const PAGE = 4096;
const folder = mkdtempSync(join(tmpdir(), 'sectorwise-files-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const ENV = { ...process.env, TEST_DIR: '1', TEST_DEV: '1', QA_CHECK_FS: '1', MTOOLS_SKIP_CHECK: '1', LC_ALL: 'C', TZ: 'UTC' };

function run(name: string, args: string[], input = ''): string {
  return execFileSync(tool(name) ?? name, args, { encoding: 'utf8', input, env: ENV, stdio: ['pipe', 'pipe', 'pipe'], timeout: 60_000 });
}

function image(name: string, size: number): string {
  const path = join(folder, name);
  writeFileSync(path, '');
  truncateSync(path, size);
  return path;
}

/** debugfs goes on after an error and ends well: what it should have made is looked at instead. */
function debugfs(path: string, ...commands: string[]): void {
  const script = join(folder, 'commands');
  writeFileSync(script, commands.join('\n') + '\n');
  run('debugfs', ['-w', '-f', script, path]);
}

let files = 0;

/** Bytes that occur nowhere else: every 64 of them say whose they are, and where. */
function content(bytes: number): Buffer {
  const seed = `file ${++files}`;
  const all = Buffer.alloc(bytes);
  for (let at = 0; at < bytes; at += 64) all.write(`${seed} at ${at} `.padEnd(64, '.'), at, Math.min(64, bytes - at), 'latin1');
  return all;
}

function file(bytes: Buffer): string {
  const path = join(folder, 'source');
  writeFileSync(path, bytes);
  return path;
}

interface Opened extends ImageSource {
  volume: Volume;
  fd: number;
  bytesRead: number;
}

function opened(path: string, offset = 0n): Opened {
  const fd = openSync(path, 'r');
  const source = {
    size: BigInt(fstatSync(fd).size),
    fd,
    bytesRead: 0,
    read(at: bigint, length: number) {
      const bytes = Buffer.alloc(length);
      const got = readSync(fd, bytes, 0, length, Number(at));
      this.bytesRead += got;
      return bytes.subarray(0, got);
    },
  };
  const volume = readVolume(source, { offset, size: source.size - offset, partition: null, pages: [PAGE] });
  if (volume === null) throw new Error(`nothing recognised in ${path}`);
  return Object.assign(source, { volume });
}

/** The file as its extents have it in the image. */
function bytesAt({ fd, volume }: Opened, { size, extents }: ImageFile): Buffer {
  const all = Buffer.alloc(Number(size));
  for (const { logical, physical, length, flags } of extents) {
    if ((flags & FIEMAP_EXTENT_UNWRITTEN) !== 0 || logical >= size) continue;
    const there = logical + length > size ? size - logical : length;
    readSync(fd, all, Number(logical), Number(there), Number(volume.offset + physical));
  }
  return all;
}

function expectFile(source: Opened, path: string, bytes: Buffer): ImageFile {
  const found = imageExtents(source, source.volume, path);
  expect(Number(found.size)).toBe(bytes.length);
  // Not toEqual: a difference of megabytes is not to be printed.
  expect(bytesAt(source, found).equals(bytes)).toBe(true);
  return found;
}

function using(path: string, test: (source: Opened) => void, offset = 0n): void {
  const source = opened(path, offset);
  try {
    test(source);
  } finally {
    closeSync(source.fd);
  }
}

/** FAT32 remembers where free clusters begin; without that, the first gap is taken. */
function forgetNextFree(path: string): void {
  const fd = openSync(path, 'r+');
  writeSync(fd, Buffer.alloc(8, 0xff), 0, 8, 512 + 488);
  closeSync(fd);
}

describe('A file in FAT', () => {
  const missing = without('mkfs.fat', 'mcopy', 'mmd', 'mdel');
  for (const [bits, size, cluster] of [
    [12, 4 * MIB, 4],
    [16, 16 * MIB, 4],
    [32, 40 * MIB, 1],
  ] as const) {
    it.skipIf(missing !== undefined)(`of ${bits} bits is found through folders, long names and scattered clusters${note(missing)}`, () => {
      const path = image(`fat${bits}`, size);
      run('mkfs.fat', ['-F', String(bits), '-s', String(cluster), '-a', path]);
      const put = (bytes: Buffer, to: string): void => void run('mcopy', ['-i', path, file(bytes), `::${to}`]);
      /** Several at once, by their names in a folder of ours. */
      const putAll = (names: string[], bytes: number, to: string): void => {
        for (const name of names) writeFileSync(join(folder, name), content(bytes));
        run('mcopy', ['-i', path, ...names.map((name) => join(folder, name)), `::${to}`]);
      };
      const gaps = Array.from({ length: 24 }, (_, i) => `gap${i}.bin`);
      putAll(gaps, 3000, '/');
      run('mdel', ['-i', path, ...gaps.filter((_, i) => i % 2 === 0).map((name) => `::/${name}`)]);
      if (bits === 32) forgetNextFree(path);
      run('mmd', ['-i', path, '::/Folder with a long name']);
      run('mmd', ['-i', path, '::/Folder with a long name/deep']);
      const torn = content(100_000);
      put(torn, '/torn.bin');
      const long = content(70_001);
      put(long, '/Folder with a long name/deep/A rather long name, twice as long as an entry.data');
      putAll(
        Array.from({ length: 40 }, (_, i) => `file number ${i} of many.txt`),
        10,
        '/Folder with a long name/deep/',
      );
      using(path, (source) => {
        expect(source.volume.kind).toBe(`fat${bits}`);
        expect(expectFile(source, '/torn.bin', torn).extents.length).toBeGreaterThan(5);
        expectFile(source, '/folder WITH a long name/DEEP/a rather long name, twice as long as an entry.data', long);
        expectFile(source, 'FOLDER~1/deep/../deep/ARATHE~1.DAT', long);
        expect(() => imageExtents(source, source.volume, '/gap2.bin')).toThrowError(expect.objectContaining({ code: 'ENOENT' }));
        expect(() => imageExtents(source, source.volume, '/torn.bin/x')).toThrowError(expect.objectContaining({ code: 'ENOTDIR' }));
        expect(() => imageExtents(source, source.volume, '/Folder with a long name')).toThrowError(expect.objectContaining({ code: 'EISDIR' }));
      });
    });
  }

  it.skipIf(missing !== undefined)(`has as many pages that can be mapped as lie on pages of the image${note(missing)}`, () => {
    const path = image('fat-pages', 17 * MIB);
    // A partition at LBA 63, and clusters of 4 KiB whose heap mkfs.fat was told not to align.
    run('mkfs.fat', ['-F', '16', '-s', '8', '-a', '-R', '6', '--offset', '63', path, String((16 * MIB) / KIB)]);
    const bytes = content(50 * PAGE);
    run('mcopy', ['-i', `${path}@@32256`, file(bytes), '::/data']);
    using(
      path,
      (source) => {
        const all = readFileSync(path);
        const onPages = Array.from({ length: 50 }, (_, i) => all.indexOf(bytes.subarray(i * PAGE, (i + 1) * PAGE)) % PAGE === 0);
        const { pages } = imageFile(source, source.volume, '/data');
        expect(pages['4096']).toMatchObject({ mappable: BigInt(onPages.filter(Boolean).length), total: 50n, tail: 0 });
        expect(source.volume.tiers['4096'].absolute).toBe(onPages[0] ? 'guaranteed' : 'impossible');
        if (!onPages[0]) expect(pages['4096'].firstFailing?.cause).toMatch(/^byte 0 lies at byte \d+, \d+ % 4096 = \d+$/);
      },
      32256n,
    );
  });
});

describe('A file in exFAT', () => {
  const missing = without('mkfs.exfat');
  it.skipIf(missing !== undefined)(`is found in a row or by its chain, and what lies behind what was written is told${note(missing)}`, () => {
    const path = image('exfat', 16 * MIB);
    run('mkfs.exfat', ['-c', '4096', path]);
    const boot = readFileSync(path).subarray(0, 512);
    const heap = boot.readUInt32LE(88) * 512;
    const fat = boot.readUInt32LE(80) * 512;
    const root = boot.readUInt32LE(96);
    const at = (cluster: number): number => heap + (cluster - 2) * PAGE;
    const fd = openSync(path, 'r+');
    const row = content(3 * PAGE);
    const chained = content(2 * PAGE + 100);
    let entry = at(root) + 3 * 32;
    /** A folder's entries for a name: what it is, where it is, what it is called. */
    const add = (name: string, cluster: number, size: number, written: number, isRow: boolean): void => {
      const letters = Math.ceil(name.length / 15);
      const set = Buffer.alloc(32 * (2 + letters));
      set.writeUInt8(0x85, 0);
      set.writeUInt8(1 + letters, 1);
      set.writeUInt8(0xc0, 32);
      set.writeUInt8(isRow ? 3 : 1, 33);
      set.writeUInt8(name.length, 35);
      set.writeBigUInt64LE(BigInt(written), 40);
      set.writeUInt32LE(cluster, 52);
      set.writeBigUInt64LE(BigInt(size), 56);
      for (let i = 0; i < letters; i++) {
        set.writeUInt8(0xc1, 64 + 32 * i);
        set.write(name.slice(15 * i, 15 * i + 15), 66 + 32 * i, 'utf16le');
      }
      writeSync(fd, set, 0, set.length, entry);
      entry += set.length;
    };
    add('In a row, with a long name.bin', 100, row.length, row.length, true);
    writeSync(fd, row, 0, row.length, at(100));
    add('chained', 200, chained.length, chained.length, false);
    const links = Buffer.alloc(4);
    for (const [cluster, next, i] of [
      [200, 300, 0],
      [300, 250, 1],
      [250, 0xffffffff, 2],
    ]) {
      links.writeUInt32LE(next);
      writeSync(fd, links, 0, 4, fat + 4 * cluster);
      const part = chained.subarray(i * PAGE, (i + 1) * PAGE);
      writeSync(fd, part, 0, part.length, at(cluster));
    }
    add('half', 400, 4 * PAGE, 6000, true);
    writeSync(fd, row, 0, 6000, at(400));
    closeSync(fd);
    using(path, (source) => {
      expect(expectFile(source, '/in a ROW, with a long name.bin', row).extents).toHaveLength(1);
      expect(expectFile(source, '/chained', chained).extents).toHaveLength(3);
      expectFile(source, '/half', Buffer.concat([row.subarray(0, 6000), Buffer.alloc(4 * PAGE - 6000)]));
      expect(imageFile(source, source.volume, '/half').pages['4096']).toMatchObject({ mappable: 1n, total: 4n, firstFailing: { page: 1n } });
    });
  });
});

describe('A file in ext', () => {
  const missing = without('mke2fs', 'debugfs', 'e2fsck');
  const shapes: [string, string[]][] = [
    ['ext2 with maps of blocks', ['-t', 'ext2', '-b', '1024']],
    ['ext4 with extents', ['-t', 'ext4', '-b', '4096']],
    ['ext4 with small groups and meta_bg', ['-t', 'ext4', '-b', '1024', '-g', '1024', '-N', '1024', '-O', 'meta_bg,^resize_inode']],
    ['ext4 with bigalloc', ['-t', 'ext4', '-b', '1024', '-O', 'bigalloc', '-C', '16384']],
    ['ext4 with inline data', ['-t', 'ext4', '-b', '4096', '-O', 'inline_data', '-I', '256']],
  ];
  for (const [name, args] of shapes) {
    it.skipIf(missing !== undefined)(`(${name}) is found, with its holes and what was never written${note(missing)}`, () => {
      const path = image(`ext-${args.join('')}`.replaceAll(/\W/g, ''), 64 * MIB);
      run('mke2fs', ['-q', '-F', ...args, path]);
      const plain = content(600 * KIB);
      const deep = content(5000);
      const commands = [`write ${join(folder, 'plain')} plain`];
      writeFileSync(join(folder, 'plain'), plain);
      writeFileSync(join(folder, 'deep'), deep);
      // Far enough for all three layers of a map of 1 KiB blocks.
      const sparse = Buffer.alloc(70 * MIB);
      const ends = [content(8192), content(8192), content(8192)];
      const sparsePath = join(folder, 'sparse');
      const fd = openSync(sparsePath, 'w');
      [0, 300 * KIB, sparse.length - 8192].forEach((at, i) => {
        ends[i].copy(sparse, at);
        writeSync(fd, ends[i], 0, 8192, at);
      });
      closeSync(fd);
      commands.push(`write ${sparsePath} sparse`, 'mkdir one', 'cd one', 'mkdir two', 'cd two', `write ${join(folder, 'deep')} deep`);
      // More names than fit one block: e2fsck then builds an index of them.
      writeFileSync(join(folder, 'tiny'), 'tiny');
      for (let i = 0; i < 120; i++) commands.push(`write ${join(folder, 'tiny')} a-name-that-takes-some-room-${i}`);
      commands.push('cd /', 'symlink link plain');
      debugfs(path, ...commands);
      if (args.includes('ext4') && !args.includes('inline_data')) debugfs(path, 'write /dev/null empty', 'fallocate empty 0 9', 'sif empty size 10240');
      try {
        run('e2fsck', ['-f', '-y', '-D', path]);
      } catch (error) {
        // 1: what it was asked to rebuild was rebuilt.
        if ((error as { status?: number }).status !== 1) throw error;
      }
      using(path, (source) => {
        expectFile(source, '/plain', plain);
        expect(expectFile(source, '/sparse', sparse).extents.reduce((sum, extent) => sum + extent.length, 0n)).toBeLessThan(BigInt(MIB));
        expectFile(source, '/one/two/deep', deep);
        const tiny = imageExtents(source, source.volume, '/one/two/a-name-that-takes-some-room-119');
        expect(tiny.size).toBe(4n);
        const [extent] = tiny.extents;
        if (args.includes('inline_data')) expect(extent.flags & FIEMAP_EXTENT_DATA_INLINE).not.toBe(0);
        else expect(source.read(extent.physical, 4).toString()).toBe('tiny');
        expect(() => imageExtents(source, source.volume, '/link')).toThrowError(expect.objectContaining({ code: 'ERR_SECTORWISE_FILE_TYPE' }));
        expect(() => imageExtents(source, source.volume, '/one/two/none')).toThrowError(expect.objectContaining({ code: 'ENOENT' }));
        if (args.includes('ext4') && !args.includes('inline_data')) {
          const empty = imageExtents(source, source.volume, '/empty');
          expect(empty.extents.every(({ flags }) => (flags & FIEMAP_EXTENT_UNWRITTEN) !== 0)).toBe(true);
          expect(imageFile(source, source.volume, '/empty').pages['4096']).toMatchObject({ mappable: 0n, total: 3n });
        }
      });
    });
  }
});

describe('A file in XFS', () => {
  const missing = without('mkfs.xfs');
  for (const args of [
    ['-b', 'size=4096'],
    ['-b', 'size=1024', '-n', 'size=4096'],
    ['-m', 'crc=0', '-n', 'ftype=0'],
  ]) {
    it.skipIf(missing !== undefined)(`(${args.join(' ')}) is found through folders of every form${note(missing)}`, () => {
      const path = image('xfs', 32 * MIB);
      const plain = content(300_001);
      writeFileSync(join(folder, 'plain'), plain);
      writeFileSync(join(folder, 'tiny'), 'tiny');
      const many = (count: number): string =>
        Array.from({ length: count }, (_, i) => `a-name-that-takes-some-room-${i} ---644 0 0 ${join(folder, 'tiny')}`).join('\n');
      const proto = join(folder, 'proto');
      writeFileSync(
        proto,
        `nothing\n0 0\nd--755 0 0\nplain ---644 0 0 ${join(folder, 'plain')}\nblock d--755 0 0\n${many(20)}\n$\nleaf d--755 0 0\n${many(400)}\n$\nlink l--777 0 0 plain\n$\n`,
      );
      run('mkfs.xfs', ['-q', '-f', ...args, '-p', proto, path]);
      using(path, (source) => {
        expectFile(source, '/plain', plain);
        for (const name of ['block/a-name-that-takes-some-room-19', 'leaf/a-name-that-takes-some-room-0', 'leaf/a-name-that-takes-some-room-399']) {
          expectFile(source, name, Buffer.from('tiny'));
        }
        expect(() => imageExtents(source, source.volume, '/leaf/none')).toThrowError(expect.objectContaining({ code: 'ENOENT' }));
        expect(() => imageExtents(source, source.volume, '/link')).toThrowError(expect.objectContaining({ code: 'ERR_SECTORWISE_FILE_TYPE' }));
      });
    });
  }
});

describe('A file in NTFS', () => {
  const missing = without('mkntfs', 'ntfscp');
  it.skipIf(missing !== undefined)(`is found in a folder with more names than its record holds, and may lie in its record${note(missing)}`, () => {
    const path = image('ntfs', 16 * MIB);
    run('mkntfs', ['-q', '-F', '-Q', '-c', '1024', path]);
    const plain = content(200_000);
    run('ntfscp', ['-q', '-f', path, file(plain), 'Plain file.bin']);
    run('ntfscp', ['-q', '-f', path, file(Buffer.from('tiny')), 'tiny']);
    for (let i = 0; i < 30; i++) run('ntfscp', ['-q', '-f', path, join(folder, 'source'), `a name that takes some room in an index, number ${i}`]);
    using(path, (source) => {
      expectFile(source, '/plain FILE.bin', plain);
      expect(imageExtents(source, source.volume, '/tiny')).toMatchObject({ size: 4n, extents: [{ length: 4n }] });
      expect(imageFile(source, source.volume, '/tiny').pages['4096'].firstFailing?.cause).toBe('byte 0 lies inside metadata (inline)');
      expect(imageExtents(source, source.volume, '/a name that takes some room in an index, number 29').size).toBe(4n);
      expect(() => imageExtents(source, source.volume, '/none')).toThrowError(expect.objectContaining({ code: 'ENOENT' }));
      expect(() => imageExtents(source, source.volume, '/$Extend')).toThrowError(expect.objectContaining({ code: 'EISDIR' }));
    });
  });
});

describe('A file in btrfs', () => {
  const missing = without('mkfs.btrfs') ?? (isRoot ? undefined : 'mkfs.btrfs needs root');
  it.skipIf(missing !== undefined)(`is found by way of its chunks${note(missing)}`, () => {
    const path = image('btrfs', 128 * MIB);
    const root = mkdtempSync(join(folder, 'root-'));
    const plain = content(900_000);
    mkdirSync(join(root, 'one', 'two'), { recursive: true });
    writeFileSync(join(root, 'one', 'two', 'plain'), plain);
    writeFileSync(join(root, 'tiny'), 'tiny');
    for (let i = 0; i < 300; i++) writeFileSync(join(root, `one of many files in a folder, ${i}`), '');
    run('mkfs.btrfs', ['-q', '--rootdir', root, path]);
    using(path, (source) => {
      expectFile(source, '/one/two/plain', plain);
      expect(imageExtents(source, source.volume, '/tiny').extents[0].flags & FIEMAP_EXTENT_DATA_INLINE).not.toBe(0);
      expect(imageExtents(source, source.volume, '/one of many files in a folder, 299')).toEqual({ size: 0n, extents: [] });
      expect(() => imageExtents(source, source.volume, '/one/none')).toThrowError(expect.objectContaining({ code: 'ENOENT' }));
      expect(() => imageExtents(source, source.volume, '/tiny/x')).toThrowError(expect.objectContaining({ code: 'ENOTDIR' }));
    });
  });

  const noMount = noLoopDevices ?? without('mkfs.btrfs', 'btrfs', 'filefrag');
  it.skipIf(noMount !== undefined)(`is where FIEMAP says, once its addresses are translated; compressed bytes and subvolumes are told${note(noMount)}`, () => {
    const loops = new LoopDevices();
    try {
      const path = loops.image(300 * MIB);
      const device = loops.attach(path);
      run('mkfs.btrfs', ['-q', device]);
      const mounted = loops.mount(device, '-o', 'compress=zlib');
      run('btrfs', ['subvolume', 'create', join(mounted, 'sub')]);
      writeFileSync(join(mounted, 'compressed'), Buffer.alloc(MIB, 'x'));
      // Nothing of it can be made smaller.
      const bytes = randomBytes(2 * MIB);
      writeFileSync(join(mounted, 'sub', 'file'), bytes);
      run('sync', ['-f', mounted]);
      const line = /^\s*0:\s*0\.\.\s*(\d+):\s*(\d+)\.\.\s*\d+:/m.exec(run('filefrag', ['-v', '-b4096', join(mounted, 'sub', 'file')]));
      loops.unmount(mounted);
      loops.detach(device);
      using(path, (source) => {
        const found = expectFile(source, '/sub/file', bytes);
        const [, last, address] = line?.map(Number) ?? [];
        const told = { logical: 0n, physical: BigInt(address) * 4096n, length: (BigInt(last) + 1n) * 4096n, flags: 0 };
        const [translated] = btrfsExtents(source, source.volume, [told]);
        expect(translated.physical).toBe(found.extents[0].physical);
        expect(translated.physical).not.toBe(told.physical);
        expect(imageFile(source, source.volume, '/sub/file').pages['4096']).toMatchObject({ mappable: 512n, total: 512n });
        expect(imageFile(source, source.volume, '/compressed').pages['4096']).toMatchObject({
          ...{ mappable: 0n, total: 256n, firstFailing: { cause: 'byte 0 is compressed or otherwise encoded' } },
        });
        expect(btrfsExtents(source, source.volume, [{ ...told, physical: 1n << 60n }])).toMatchObject([{ flags: FIEMAP_EXTENT_UNKNOWN }]);
      });
    } finally {
      loops.dispose();
    }
  });
});

describe('A file that the kernel scattered', () => {
  for (const [make, ...options] of [
    ['mkfs.btrfs', '-q', '-n', '4096'],
    ['mkfs.ext4', '-q', '-b', '4096'],
    ['mkfs.ext4', '-q', '-b', '1024', '-O', '^extents,^64bit'],
    ['mkfs.xfs', '-q'],
  ]) {
    const missing = noLoopDevices ?? without(make);
    it.skipIf(missing !== undefined)(`over a thousand places is found (${[make, ...options].join(' ')})${note(missing)}`, () => {
      const loops = new LoopDevices();
      try {
        const path = loops.image(make === 'mkfs.ext4' ? 64 * MIB : 300 * MIB);
        const device = loops.attach(path);
        run(make, [...options, device]);
        const mounted = loops.mount(device);
        mkdirSync(join(mounted, 'folder'));
        for (let i = 0; i < 300; i++) writeFileSync(join(mounted, 'folder', `one of many files in a folder, ${i}`), '');
        // Every other block: nothing can be merged.
        const bytes = Buffer.alloc(2000 * PAGE);
        const fd = openSync(join(mounted, 'folder', 'scattered'), 'w');
        for (let at = PAGE; at < bytes.length; at += 2 * PAGE) {
          content(PAGE).copy(bytes, at);
          writeSync(fd, bytes, at, PAGE, at);
        }
        closeSync(fd);
        loops.unmount(mounted);
        loops.detach(device);
        using(path, (source) => {
          const before = source.bytesRead;
          expect(expectFile(source, '/folder/scattered', bytes).extents.length).toBeGreaterThanOrEqual(1000);
          expect(source.bytesRead - before).toBeLessThan(2 * MIB);
          expect(imageExtents(source, source.volume, '/folder/one of many files in a folder, 299')).toEqual({ size: 0n, extents: [] });
          const { mappable, total } = imageFile(source, source.volume, '/folder/scattered').pages['4096'];
          expect(total).toBe(2000n);
          if (!options.includes('1024')) expect(mappable).toBe(1000n);
        });
      } finally {
        loops.dispose();
      }
    });
  }
});

describe('What cannot be followed', () => {
  it('is refused by name', () => {
    for (const [bytes, why] of [
      [luks2(), 'it is encrypted'],
      [swap(), 'it holds no files'],
    ] as const) {
      const source: ImageSource = { size: 1n << 30n, read: (at, length) => Uint8Array.from({ length }, (_, i) => bytes[Number(at) + i] ?? 0) };
      const volume = readVolume(source, { offset: 0n, size: source.size, partition: null, pages: [PAGE] });
      expect(() => imageFile(source, volume!, '/x')).toThrowError(
        expect.objectContaining({ code: 'ERR_SECTORWISE_UNSUPPORTED', message: expect.stringContaining(why) }),
      );
    }
  });
});

describe('Metadata with any bytes in it', () => {
  const CODES = /^(ENOENT|ENOTDIR|EISDIR|ERR_SECTORWISE_(FILE_TYPE|UNSUPPORTED|DAMAGED))$/;
  const makers: [string, string[], (path: string) => void][] = [
    [
      'FAT16',
      ['mkfs.fat', 'mcopy', 'mmd'],
      (path) => {
        run('mkfs.fat', ['-F', '16', '-s', '2', path]);
        run('mmd', ['-i', path, '::/d']);
        run('mcopy', ['-i', path, file(content(50_000)), '::/d/f']);
      },
    ],
    [
      'ext2',
      ['mke2fs', 'debugfs'],
      (path) => {
        run('mke2fs', ['-q', '-F', '-t', 'ext2', path]);
        debugfs(path, 'mkdir d', 'cd d', `write ${file(content(500_000))} f`);
      },
    ],
    [
      'ext4',
      ['mke2fs', 'debugfs'],
      (path) => {
        run('mke2fs', ['-q', '-F', '-t', 'ext4', path]);
        debugfs(path, 'mkdir d', 'cd d', `write ${file(content(500_000))} f`);
      },
    ],
    [
      'XFS',
      ['mkfs.xfs'],
      (path) => {
        writeFileSync(join(folder, 'proto'), `nothing\n0 0\nd--755 0 0\nd d--755 0 0\nf ---644 0 0 ${file(content(50_000))}\n$\n$\n`);
        run('mkfs.xfs', ['-q', '-f', '-p', join(folder, 'proto'), path]);
      },
    ],
    [
      'btrfs',
      ['mkfs.btrfs'],
      (path) => {
        const root = mkdtempSync(join(folder, 'root-'));
        mkdirSync(join(root, 'd'));
        writeFileSync(join(root, 'd', 'f'), content(50_000));
        run('mkfs.btrfs', ['-q', '--rootdir', root, path]);
      },
    ],
    [
      'NTFS',
      ['mkntfs', 'ntfscp'],
      (path) => {
        run('mkntfs', ['-q', '-F', '-Q', path]);
        run('ntfscp', ['-q', '-f', path, file(content(50_000)), 'f']);
      },
    ],
  ];
  for (const [name, needs, make] of makers) {
    const missing = without(...needs) ?? (name === 'btrfs' && !isRoot ? 'mkfs.btrfs needs root' : undefined);
    it.skipIf(missing !== undefined)(`(${name}) throws nothing but errors with a code${note(missing)}`, () => {
      const path = image(`mutated-${name}`, name === 'btrfs' ? 112 * MIB : name === 'XFS' ? 32 * MIB : 8 * MIB);
      make(path);
      const all = readFileSync(path);
      const target = name === 'NTFS' ? '/f' : '/d/f';
      const volume = (() => {
        const source: ImageSource = { size: BigInt(all.length), read: (at, length) => all.subarray(Number(at), Number(at) + length) };
        return readVolume(source, { offset: 0n, size: source.size, partition: null, pages: [PAGE] })!;
      })();
      /** Places that the walk looks at. */
      const read = new Set<number>();
      let isWatching = true;
      const watched: ImageSource = {
        size: BigInt(all.length),
        read(at, length) {
          if (isWatching) for (let i = Number(at); i < Number(at) + length; i++) if (all[i] !== 0) read.add(i);
          return all.subarray(Number(at), Number(at) + length);
        },
      };
      expect(imageExtents(watched, volume, target).extents.length).toBeGreaterThan(0);
      isWatching = false;
      const places = [...read];
      fc.assert(
        fc.property(fc.array(fc.tuple(fc.nat(places.length - 1), fc.nat(255)), { minLength: 1, maxLength: 30 }), (changes) => {
          const saved = changes.map(([i]) => all[places[i]]);
          for (const [i, value] of changes) all[places[i]] = value;
          try {
            imageExtents(watched, volume, target);
          } catch (error) {
            expect((error as { code?: string }).code).toMatch(CODES);
          } finally {
            for (let i = changes.length - 1; i >= 0; i--) all[places[changes[i][0]]] = saved[i];
          }
        }),
        { numRuns: 100 },
      );
    });
  }
});
