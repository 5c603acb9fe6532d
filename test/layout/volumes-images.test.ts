/**
 * Volumes made by the Debian tools, told again by a tool that did not make them: dumpe2fs, xfs_db, fsck.fat, ntfsinfo, dump.exfat, luksDump, pvck, and libblkid
 * for all. Where a file can be put in without mounting, its bytes are looked for in the image: they must begin at a multiple of a cluster from the data area.
 */
import { execFileSync } from 'node:child_process';
import { closeSync, existsSync, fstatSync, mkdtempSync, openSync, readFileSync, readSync, rmSync, truncateSync, writeFileSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import type { Volume } from '../../src/layout/model.js';
import { readVolume } from '../../src/layout/volume.js';
import { note } from '../fixtures/places.js';
import { isRoot, LoopDevices, noLoopDevices } from '../geometry/loop-devices.js';
import { tool, without } from './debian-tools.js';
import { md, within } from './superblocks.js';

const MIB = 1 << 20;
const folder = mkdtempSync(join(tmpdir(), 'sectorwise-volumes-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** Small XFS is refused unless mkfs.xfs is told that it is being tested. */
const ENV = { ...process.env, TEST_DIR: '1', TEST_DEV: '1', QA_CHECK_FS: '1', LVM_SUPPRESS_FD_WARNINGS: '1', LC_ALL: 'C', TZ: 'UTC' };

/** mkfs.btrfs refuses an image unless it may look into every loop device whether that is the image. */
function refusing(make: string): string | undefined {
  return make === 'mkfs.btrfs' && !isRoot ? 'needs root' : undefined;
}

function run(name: string, args: string[], input = ''): string {
  return execFileSync(tool(name) ?? name, args, { encoding: 'utf8', input, env: ENV, stdio: ['pipe', 'pipe', 'pipe'], timeout: 60_000 });
}

/** What one of the lines says, as a number. */
function number(text: string, line: RegExp): number {
  const found = line.exec(text);
  if (found === null) throw new Error(`nothing like ${line} in:\n${text}`);
  return Number(found[1]);
}

function image(name: string, size: number): string {
  const path = join(folder, name.replaceAll(/[^\w.-]+/g, '_'));
  writeFileSync(path, '');
  truncateSync(path, size);
  return path;
}

function volumeOf(path: string, at: { offset?: number; partition?: number | null; pages?: number[] } = {}): Volume | null {
  const fd = openSync(path, 'r');
  try {
    const size = BigInt(fstatSync(fd).size);
    const source = {
      size,
      read(offset: bigint, length: number) {
        const bytes = Buffer.alloc(length);
        return bytes.subarray(0, readSync(fd, bytes, 0, length, Number(offset)));
      },
    };
    const offset = BigInt(at.offset ?? 0);
    return readVolume(source, { offset, size: size - offset, partition: at.partition ?? null, pages: at.pages ?? [4096, 16384] });
  } finally {
    closeSync(fd);
  }
}

interface Truth {
  dataOffset: number;
  unit: number;
  details?: Volume['details'];
  label?: string;
}

interface Case {
  name: string;
  kind: Volume['kind'];
  size: number;
  /** The tool and its arguments; the path comes last. */
  make: [string, ...string[]];
  input?: string;
  /** Of the path. */
  truth: (path: string) => Truth;
  /** What `truth` runs. */
  by: string;
  tier?: Volume['tiers'];
}

function fatTruth(path: string): Truth {
  const text = run('fsck.fat', ['-v', '-n', path]);
  return {
    dataOffset: number(text, /Data area starts at byte (\d+)/),
    unit: number(text, /(\d+) bytes per cluster/),
    details: { bytesPerSector: number(text, /(\d+) bytes per logical sector/), clusters: number(text, /(\d+) data clusters/) },
  };
}

function exfatTruth(path: string): Truth {
  const text = run('dump.exfat', [path]);
  const sector = 2 ** number(text, /Sector Size Bits:\s*(\d+)/);
  return { dataOffset: number(text, /Cluster Heap Offset \(sector offset\):\s*(\d+)/) * sector, unit: number(text, /Cluster size:\s*(\d+)/) };
}

function extTruth(path: string): Truth {
  const text = run('dumpe2fs', ['-h', path]);
  const block = number(text, /Block size:\s+(\d+)/);
  return { dataOffset: 0, unit: /bigalloc/.test(text) ? number(text, /Cluster size:\s+(\d+)/) : block, details: { blockSize: block } };
}

function xfsTruth(path: string): Truth {
  const text = run('xfs_db', ['-r', '-c', 'sb 0', '-c', 'p blocksize unit width versionnum agcount', path]);
  const unit = number(text, /blocksize = (\d+)/);
  return { dataOffset: 0, unit, details: { stripeUnit: number(text, /unit = (\d+)/) * unit, stripeWidth: number(text, /width = (\d+)/) * unit } };
}

function ntfsTruth(path: string): Truth {
  const text = run('ntfsinfo', ['-f', '-m', path]);
  const name = /Volume Name: (\S+)/.exec(text)?.[1];
  return { dataOffset: 0, unit: number(text, /Cluster Size: (\d+)/), details: { mftRecord: number(text, /MFT Record Size: (\d+)/) }, label: name };
}

function btrfsTruth(path: string): Truth {
  const text = run('btrfs', ['inspect-internal', 'dump-super', path]);
  expect(text).toContain('[match]');
  return { dataOffset: 0, unit: number(text, /sectorsize\s+(\d+)/), details: { nodeSize: number(text, /nodesize\s+(\d+)/) } };
}

function luks1Truth(path: string): Truth {
  return { dataOffset: number(run('cryptsetup', ['luksDump', path]), /Payload offset:\s*(\d+)/) * 512, unit: 512 };
}

function luks2Truth(path: string): Truth {
  const text = run('cryptsetup', ['luksDump', path]);
  return { dataOffset: number(text, /offset: (\d+) \[bytes\]/), unit: number(text, /sector: (\d+) \[bytes\]/) };
}

/** The page ends where its signature does. */
function swapTruth(path: string): Truth {
  const page = readFileSync(path).indexOf('SWAPSPACE2') + 10;
  return { dataOffset: page, unit: page };
}

const luks = ['luksFormat', '--batch-mode', '--key-file=-', '--pbkdf-force-iterations', '1000'];
const guaranteed = { absolute: 'guaranteed', relative: 'guaranteed' } as const;
const perFile = { absolute: 'per-file', relative: 'per-file' } as const;
const impossible = { absolute: 'impossible', relative: 'impossible' } as const;

const fat = (name: string, kind: Volume['kind'], size: number, args: string[], tier: Volume['tiers'][string]): Case => ({
  ...{ name, kind, size, make: ['mkfs.fat', ...args], truth: fatTruth, by: 'fsck.fat', tier: { 4096: tier } },
});

const cases: Case[] = [
  // 2.1: heap % 4096 of mkfs.fat's defaults: 2560 at 4 MiB, 2048 up to 100 MiB.
  fat('FAT12 of 4 MiB by default', 'fat12', 4 * MIB, [], impossible),
  fat('FAT16 of 16 MiB by default', 'fat16', 16 * MIB, [], perFile),
  fat('FAT12 of 8 MiB with clusters of 4 KiB', 'fat12', 8 * MIB, ['-F', '12', '-s', '8', '-n', 'TWELVE'], guaranteed),
  fat('FAT16 with clusters of 4 KiB, not aligned by mkfs.fat', 'fat16', 32 * MIB, ['-F', '16', '-s', '8', '-a'], impossible),
  fat('FAT16 with its heap solved to 1 MiB', 'fat16', 32 * MIB, ['-F', '16', '-s', '8', '-a', '-R', '1952'], guaranteed),
  fat('FAT32 of 40 MiB with clusters of 512 bytes', 'fat32', 40 * MIB, ['-F', '32', '-s', '1'], perFile),
  fat('FAT32 of 300 MiB by default', 'fat32', 300 * MIB, ['-F', '32', '-n', 'THIRTYTWO'], guaranteed),
  fat('FAT32 with sectors of 4096 bytes', 'fat32', 300 * MIB, ['-F', '32', '-S', '4096'], guaranteed),
  fat('FAT32 with clusters of 64 KiB and one FAT', 'fat32', 300 * MIB, ['-F', '32', '-s', '128', '-f', '1'], guaranteed),
  ...(
    [
      [[], guaranteed],
      [['-c', '2048', '-b', '512'], perFile],
      [['-b', '4194304', '-c', '65536', '-L', 'cards'], guaranteed],
    ] as const
  ).map(
    ([args, tier]): Case => ({
      ...{ name: `exFAT ${args.join(' ') || 'by default'}`, kind: 'exfat', size: 64 * MIB, make: ['mkfs.exfat', ...args] },
      ...{ truth: exfatTruth, by: 'dump.exfat', tier: { 4096: tier } },
    }),
  ),
  ...(
    [
      ['ext2', ['-t', 'ext2', '-b', '1024', '-L', 'two'], perFile],
      ['ext3', ['-t', 'ext3', '-b', '2048'], perFile],
      ['ext4', ['-t', 'ext4', '-b', '4096', '-E', 'stride=16,stripe_width=64'], guaranteed],
      ['ext4', ['-t', 'ext4', '-b', '1024', '-O', '^metadata_csum,^64bit'], perFile],
      ['ext4', ['-t', 'ext4', '-b', '1024', '-O', 'bigalloc', '-C', '65536'], guaranteed],
      ['ext4', ['-t', 'ext4', '-b', '4096', '-O', 'inline_data', '-I', '512'], guaranteed],
      ['ext2', ['-t', 'ext2', '-r', '0', '-b', '1024', '-O', 'none'], perFile],
    ] as const
  ).map(
    ([kind, args, tier]): Case => ({
      ...{ name: args.join(' '), kind, size: 16 * MIB, make: ['mke2fs', '-q', '-F', ...args], truth: extTruth, by: 'dumpe2fs', tier: { 4096: tier } },
    }),
  ),
  ...(
    [
      [['-b', 'size=4096', '-L', 'xfs4k'], guaranteed],
      [['-b', 'size=1024', '-d', 'su=64k,sw=3'], perFile],
      [['-m', 'crc=0'], guaranteed],
      [['-s', 'size=4096', '-i', 'size=1024'], guaranteed],
    ] as const
  ).map(
    ([args, tier]): Case => ({
      ...{
        name: `XFS ${args.join(' ')}`,
        kind: 'xfs',
        size: 32 * MIB,
        make: ['mkfs.xfs', '-q', '-f', ...args],
        truth: xfsTruth,
        by: 'xfs_db',
        tier: { 4096: tier },
      },
    }),
  ),
  ...(
    [
      [512, perFile],
      [1024, perFile],
      [4096, guaranteed],
      [65536, guaranteed],
      [2 * MIB, guaranteed],
    ] as const
  ).map(
    ([cluster, tier]): Case => ({
      ...{ name: `NTFS with clusters of ${cluster} bytes`, kind: 'ntfs', size: Math.max(8 * MIB, cluster * 64) },
      ...{ make: ['mkntfs', '-q', '-F', '-Q', '-L', 'windows', '-c', String(cluster)], truth: ntfsTruth, by: 'ntfsinfo', tier: { 4096: tier } },
    }),
  ),
  ...[[], ['--csum', 'sha256', '-L', 'butter'], ['--csum', 'xxhash'], ['-n', '4096']].map(
    (args): Case => ({
      ...{ name: `btrfs ${args.join(' ') || 'by default'}`, kind: 'btrfs', size: 128 * MIB, make: ['mkfs.btrfs', '-q', ...args] },
      ...{ truth: btrfsTruth, by: 'btrfs', tier: { 4096: guaranteed, 16384: perFile } },
    }),
  ),
  ...[[], ['--align-payload', '8']].map(
    (args): Case => ({
      ...{ name: `LUKS1 ${args.join(' ') || 'by default'}`, kind: 'luks1', size: 8 * MIB, make: ['cryptsetup', ...luks, '--type', 'luks1', ...args] },
      ...{ input: 'secret', truth: luks1Truth, by: 'cryptsetup', tier: { 4096: impossible } },
    }),
  ),
  ...[[], ['--sector-size', '512', '--offset', '16384'], ['--label', 'vault', '--luks2-metadata-size', '64k', '--luks2-keyslots-size', '4m']].map(
    (args): Case => ({
      ...{ name: `LUKS2 ${args.join(' ') || 'by default'}`, kind: 'luks2', size: 32 * MIB },
      ...{ make: ['cryptsetup', ...luks, '--type', 'luks2', '--pbkdf', 'pbkdf2', ...args], input: 'secret', truth: luks2Truth, by: 'cryptsetup' },
      tier: { 4096: impossible },
    }),
  ),
  ...[4096, 65536].map(
    (page): Case => ({
      ...{ name: `swap with pages of ${page} bytes`, kind: 'swap', size: 4 * MIB, make: ['mkswap', '-p', String(page), '-L', 'swapped'] },
      ...{ truth: swapTruth, by: 'mkswap', tier: { 4096: guaranteed } },
    }),
  ),
];

/** libblkid's names of the kinds. */
const BLKID: Record<string, string> = {
  fat12: 'vfat',
  fat16: 'vfat',
  fat32: 'vfat',
  luks1: 'crypto_LUKS',
  luks2: 'crypto_LUKS',
  lvm2: 'LVM2_member',
  md: 'linux_raid_member',
};

function blkid(path: string): Record<string, string> {
  const lines = run('blkid', ['-p', '-o', 'export', path]).split('\n');
  // Escaped for a shell, which only the blanks and marks of labels need.
  return Object.fromEntries(
    lines.filter((line) => line.includes('=')).map((line) => [line.slice(0, line.indexOf('=')), line.slice(line.indexOf('=') + 1).replaceAll('\\', '')]),
  );
}

describe('A volume made by its own tool is told as another tool tells it:', () => {
  for (const { name, kind, size, make, input, truth, by, tier } of cases) {
    const missing = without(make[0], by, 'blkid') ?? refusing(make[0]);
    it.skipIf(missing !== undefined)(`${name}${note(missing)}`, () => {
      const path = image(name, size);
      run(make[0], [...make.slice(1), path], input);
      const expected = truth(path);
      const volume = volumeOf(path);
      expect(volume).toMatchObject({ kind, dataOffset: BigInt(expected.dataOffset), unit: expected.unit, details: expected.details ?? {}, tiers: tier });
      expect(volume?.damaged).toBeUndefined();
      expect(volume?.details.alsoFound).toBeUndefined();
      if (volume?.size !== undefined) expect(volume.size).toBeLessThanOrEqual(BigInt(size));
      if (expected.label !== undefined) expect(volume?.label).toBe(expected.label);
      const other = blkid(path);
      expect(other.TYPE).toBe(BLKID[kind] ?? kind);
      expect(volume?.uuid).toBe(other.UUID);
      if (kind.startsWith('fat')) expect(other.VERSION).toBe(kind.toUpperCase());
      expect(volume?.label).toBe(other.LABEL);
      rmSync(path);
    });
  }
});

const PAYLOAD = Buffer.from('sectorwise payload, to be found again | '.repeat(500));

function payloadFile(): string {
  const path = join(folder, 'payload');
  if (!existsSync(path)) writeFileSync(path, PAYLOAD);
  return path;
}

/** A file put in without mounting. */
const stores: { kind: string; needs: string[]; size: number; make: (path: string) => void; put: (path: string) => void }[] = [
  ...['12', '16', '32'].map((bits) => ({
    kind: `FAT${bits}`,
    needs: ['mkfs.fat', 'mcopy'],
    size: bits === '32' ? 40 * MIB : 8 * MIB,
    make: (path: string) => void run('mkfs.fat', ['-F', bits, '-s', bits === '32' ? '1' : bits === '16' ? '2' : '8', '-a', path]),
    put: (path: string) => void run('mcopy', ['-i', path, payloadFile(), '::payload.bin']),
  })),
  ...['1024', '4096'].map((block) => ({
    kind: `ext4 with blocks of ${block} bytes`,
    needs: ['mke2fs', 'debugfs'],
    size: 8 * MIB,
    make: (path: string) => void run('mke2fs', ['-q', '-F', '-t', 'ext4', '-b', block, path]),
    put: (path: string) => void run('debugfs', ['-w', '-R', `write ${payloadFile()} payload`, path]),
  })),
  {
    kind: 'NTFS',
    needs: ['mkntfs', 'ntfscp'],
    size: 8 * MIB,
    make: (path) => void run('mkntfs', ['-q', '-F', '-Q', '-c', '4096', path]),
    put: (path) => void run('ntfscp', ['-q', '-f', path, payloadFile(), 'payload']),
  },
  {
    kind: 'XFS',
    needs: ['mkfs.xfs'],
    size: 32 * MIB,
    make: (path) => {
      const proto = join(folder, 'proto');
      writeFileSync(proto, `nothing\n0 0\nd--755 0 0\npayload ---644 0 0 ${payloadFile()}\n$\n`);
      run('mkfs.xfs', ['-q', '-f', '-b', 'size=1024', '-p', proto, path]);
    },
    put: () => {},
  },
  {
    kind: 'btrfs',
    needs: ['mkfs.btrfs'],
    size: 128 * MIB,
    make: (path) => {
      const root = mkdtempSync(join(folder, 'root-'));
      writeFileSync(join(root, 'payload'), PAYLOAD);
      run('mkfs.btrfs', ['-q', '--rootdir', root, path]);
    },
    put: () => {},
  },
];

describe('A file lies at a multiple of a cluster from the data area in', () => {
  for (const { kind, needs, size, make, put } of stores) {
    const missing = without(...needs) ?? refusing(needs[0]);
    it.skipIf(missing !== undefined)(`${kind}${note(missing)}`, () => {
      const path = image(`payload ${kind}`, size);
      make(path);
      put(path);
      const volume = volumeOf(path);
      const at = BigInt(readFileSync(path).indexOf(PAYLOAD.subarray(0, 64)));
      expect(volume).not.toBeNull();
      // On an empty FAT12 or FAT16 it is the first thing in it.
      if (/^FAT1/.test(kind)) expect(at).toBe(volume?.dataOffset);
      expect(at).toBeGreaterThan(0n);
      expect((at - (volume?.dataOffset ?? 0n)) % BigInt(volume?.unit ?? 0)).toBe(0n);
      rmSync(path);
    });
  }
});

describe('A layer', () => {
  const noLvm = noLoopDevices ?? without('pvcreate', 'vgcreate', 'lvcreate', 'lvextend', 'lvs', 'mke2fs', 'debugfs', 'pvck');
  it.skipIf(noLvm !== undefined)(`of LVM adds its offset to the file system in a logical volume, and follows none that is in pieces${note(noLvm)}`, () => {
    const loops = new LoopDevices();
    try {
      const path = loops.image(64 * MIB);
      const device = loops.attach(path);
      const group = `sectorwise${process.pid}`;
      // Without the device mapper, and without a trace in the machine's own folders.
      const alone = ['--driverloaded', 'n', '--devices', device, '--config', 'backup{backup=0 archive=0} devices{hints="none"}'];
      run('pvcreate', [...alone, '-ff', '-y', device]);
      run('vgcreate', [...alone, '-s', '1m', group, device]);
      for (const [name, extents] of [
        ['first', '5'],
        ['second', '16'],
      ])
        run('lvcreate', [...alone, '-an', '-Zn', '-y', '-l', extents, '-n', name, group]);
      run('lvextend', [...alone, '-l', '+1', `${group}/first`]);
      const [from] =
        /:(\d+)-/
          .exec(run('lvs', [...alone, '--noheadings', '-o', 'seg_pe_ranges', `${group}/second`]))
          ?.slice(1)
          .map(Number) ?? [];
      const start = number(run('pvck', ['--driverloaded', 'n', '--dump', 'headers', path]), /disk_locn\[0\]\.offset (\d+)/);
      loops.detach(device);

      const inner = image('inner', 16 * MIB);
      run('mke2fs', ['-q', '-F', '-t', 'ext4', '-b', '4096', inner]);
      run('debugfs', ['-w', '-R', `write ${payloadFile()} payload`, inner]);
      const fd = openSync(path, 'r+');
      writeSync(fd, readFileSync(inner), 0, 16 * MIB, start + from * MIB);
      closeSync(fd);

      const volume = volumeOf(path);
      expect(volume).toMatchObject({ kind: 'lvm2', dataOffset: BigInt(start), unit: MIB, label: group });
      expect(volume?.damaged).toBeUndefined();
      expect(volume?.details.logicalVolumes).toContain('first: not followed, in pieces');
      expect(volume?.inside).toHaveLength(1);
      const [ext4] = volume?.inside ?? [];
      expect(ext4).toMatchObject({ kind: 'ext4', name: 'second', offset: BigInt(start + from * MIB) });
      expect((readFileSync(path).indexOf(PAYLOAD.subarray(0, 64)) - Number(ext4.dataOffsetAbsolute)) % ext4.unit).toBe(0);
    } finally {
      loops.dispose();
    }
  });

  const noMdadm = without('mdadm', 'mke2fs');
  for (const version of ['0.90', '1.0', '1.1', '1.2'] as const) {
    it.skipIf(noMdadm !== undefined)(`of md ${version} is told as mdadm tells it, with the file system in it${note(noMdadm)}`, () => {
      const inner = image('inner', 8 * MIB);
      run('mke2fs', ['-q', '-F', '-t', 'ext4', '-b', '4096', inner]);
      const path = join(folder, `md-${version}`);
      const dataOffset = version === '0.90' || version === '1.0' ? 0 : 2 * MIB;
      writeFileSync(path, within(md({ version, size: 12 * MIB, dataOffset }), dataOffset, readFileSync(inner)));
      const text = run('mdadm', ['-E', path]);
      expect(text).toContain('- correct');
      const told = /Data Offset : (\d+) sectors/.exec(text)?.[1] ?? '0';
      const volume = volumeOf(path);
      expect(volume).toMatchObject({ kind: 'md', dataOffset: BigInt(told) * 512n, details: { level: /Raid Level : (\S+)/.exec(text)?.[1] } });
      expect(volume?.damaged).toBeUndefined();
      expect(volume?.details.alsoFound).toBeUndefined();
      expect(volume?.inside).toMatchObject([{ kind: 'ext4', offset: BigInt(told) * 512n, size: BigInt(8 * MIB) }]);
      if (without('blkid') === undefined)
        expect(blkid(path)).toMatchObject({ TYPE: 'linux_raid_member', UUID: volume?.uuid, VERSION: version === '0.90' ? '0.90.0' : version });
      rmSync(path);
    });
  }
});
