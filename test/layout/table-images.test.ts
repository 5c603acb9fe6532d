/**
 * Partition tables made by sfdisk, sgdisk and parted, against what the two others say of them.
 *
 * Truth is never our own: `sfdisk -J`, `parted -m unit s print`, `sgdisk -i`. Where the tools keep silent about damage, the damage itself was done here.
 */
import { execFile, execFileSync, spawnSync } from 'node:child_process';
import { accessSync, closeSync, constants, copyFileSync, mkdtempSync, openSync, readSync, rmSync, truncateSync, writeFileSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Table } from '../../src/layout/model.js';
import { openSource } from '../../src/layout/source.js';
import { readTable } from '../../src/layout/table.js';
import { note } from '../fixtures/places.js';
import { LoopDevices, noLoopDevices } from '../geometry/loop-devices.js';
import { tool, without } from './debian-tools.js';

const MIB = 1 << 20;
/** In memory where that can be: the tools wait for the disk after each write. */
const folder = mkdtempSync(join(isWritable('/dev/shm') ? '/dev/shm' : tmpdir(), 'sectorwise-tables-'));
const loops = noLoopDevices === undefined ? new LoopDevices() : undefined;
afterAll(() => {
  loops?.dispose();
  rmSync(folder, { recursive: true, force: true });
});

/** Made before the tests and all at once, since sgdisk waits for a second after each write. */
const sgdiskImages = {
  low: ['-a1', '-n1:34:2047', '-t1:ef02', '-n2:2048:+8M', '-t2:0c01', '-n3:0:0', '-t3:8e00'],
  apple: ['-a1', '-n1:40:+1M', '-t1:af00', '-c1:Apple'],
  entries8: ['-S8', '-a8', '-n1:64:+1M'],
  entries256: ['-S256', '-a1', ...Array.from({ length: 130 }, (_, index) => `-n${index + 1}:${2048 + index * 8}:+7`)],
  entries4096: ['-S4096', '-a1', '-n4096:2048:+2M'],
  hybrid: ['-n1:2048:+8M', '-n2:0:+8M', '-n3:0:+8M', '-h', '1:3'],
  whole: ['-n1:2048:+8M', '-n2:0:+8M'],
};
const sgdiskPaths = new Map<string, string>();

function isWritable(path: string): boolean {
  try {
    accessSync(path, constants.W_OK);
    return true;
  } catch {
    return false;
  }
}

const noTools = without('sfdisk', 'sgdisk', 'parted');

function run(name: string, args: string[], input?: string): string {
  return execFileSync(tool(name)!, args, { encoding: 'utf8', input, stdio: ['pipe', 'pipe', 'pipe'] });
}

let count = 0;

function image(bytes = 64 * MIB): string {
  const path = join(folder, `image-${++count}`);
  writeFileSync(path, '');
  truncateSync(path, bytes);
  return path;
}

beforeAll(async () => {
  if (noTools !== undefined) return;
  await Promise.all(
    Object.entries(sgdiskImages).map(async ([name, args]) => {
      const path = image();
      await promisify(execFile)(tool('sgdisk')!, [...args, path]);
      sgdiskPaths.set(name, path);
    }),
  );
});

/** A copy of an image that sgdisk made. */
function bySgdiskMade(name: keyof typeof sgdiskImages): string {
  const path = join(folder, `image-${++count}`);
  copyFileSync(sgdiskPaths.get(name)!, path);
  return path;
}

function sfdisk(script: string, path = image()): string {
  run('sfdisk', ['-q', path], script);
  return path;
}

function parted(args: string[], path = image()): string {
  run('parted', ['-s', path, ...args]);
  return path;
}

function patch(path: string, offset: number, bytes: Uint8Array): string {
  const fd = openSync(path, 'r+');
  writeSync(fd, bytes, 0, bytes.length, offset);
  closeSync(fd);
  return path;
}

function bytesAt(path: string, offset: number, length: number): Buffer {
  const bytes = Buffer.alloc(length);
  const fd = openSync(path, 'r');
  readSync(fd, bytes, 0, length, offset);
  closeSync(fd);
  return bytes;
}

/** One bit, which no CRC overlooks. */
function flip(path: string, offset: number): string {
  const bytes = bytesAt(path, offset, 1);
  bytes[0] ^= 1;
  return patch(path, offset, bytes);
}

function read(path: string): Table {
  using source = openSource(path);
  return readTable(source);
}

/** In sectors, as the tools say it. */
interface Told {
  number: number;
  start: number;
  sectors: number;
  type?: string;
  uuid?: string;
  name?: string;
}

function ours(table: Table): Told[] {
  const unit = BigInt(table.sectorSize.value);
  return table.partitions.map(({ number, start, size, type, uuid, name }) => {
    const told: Told = { number, start: Number(start / unit), sectors: Number(size / unit), type };
    if (uuid !== undefined) told.uuid = uuid;
    if (name) told.name = name;
    return told;
  });
}

/** With the extended partitions, which hold the logical ones. */
function allBySfdisk(path: string): (Told & { extended: boolean })[] {
  const { partitiontable } = JSON.parse(run('sfdisk', ['-J', path])) as {
    partitiontable: { label: string; partitions?: { node: string; start: number; size: number; type: string; uuid?: string; name?: string }[] };
  };
  const isGpt = partitiontable.label === 'gpt';
  return (partitiontable.partitions ?? []).map(({ node, start, size, type, uuid, name }) => ({
    number: Number(/(\d+)$/.exec(node.slice(path.length))![1]),
    start,
    sectors: size,
    type: isGpt ? type.toLowerCase() : `0x${type.padStart(2, '0')}`,
    ...(isGpt && uuid !== undefined ? { uuid: uuid.toLowerCase() } : {}),
    ...(isGpt && name ? { name } : {}),
    extended: ['5', 'f', '85'].includes(type),
  }));
}

function bySfdisk(path: string): Told[] {
  return allBySfdisk(path).flatMap(({ extended, ...told }) => (extended ? [] : [told]));
}

function byParted(path: string): Told[] {
  // Parted complains about what it would mend and prints all the same.
  const { stdout } = spawnSync(tool('parted')!, ['-s', '-m', path, 'unit', 's', 'print'], { encoding: 'utf8' });
  const rows = stdout
    .split('\n')
    .slice(2)
    .filter((line) => /^\d+:/.test(line));
  const told = rows.map((line) => {
    const [number, start, , sectors] = line.split(':');
    return { number: Number(number), start: Number.parseInt(start, 10), sectors: Number.parseInt(sectors, 10) };
  });
  // It does not say which one is extended.
  const extended = allBySfdisk(path).filter((each) => each.extended);
  return told.filter(({ number }) => !extended.some((each) => each.number === number));
}

function bySgdisk(path: string, number: number): Told {
  const text = run('sgdisk', ['-i', String(number), path]);
  const field = (pattern: RegExp) => pattern.exec(text)![1];
  const told: Told = {
    number,
    start: Number(field(/First sector: (\d+)/)),
    sectors: Number(field(/Partition size: (\d+)/)),
    type: field(/Partition GUID code: (\S+)/).toLowerCase(),
    uuid: field(/unique GUID: (\S+)/).toLowerCase(),
  };
  const name = field(/Partition name: '(.*)'/);
  if (name) told.name = name;
  return told;
}

const bare = ({ number, start, sectors }: Told): Told => ({ number, start, sectors });

/** What three tools say of a GPT, two of an MBR. */
function expectTruth(path: string, kind: 'gpt' | 'mbr', partitions: number): Table {
  const table = read(path);
  expect(table.kind).toBe(kind);
  const told = ours(table);
  expect(told).toHaveLength(partitions);
  expect(told).toEqual(bySfdisk(path));
  expect(told.map(bare)).toEqual(byParted(path));
  if (kind === 'gpt') expect(told).toEqual(told.map(({ number }) => bySgdisk(path, number)));
  return table;
}

const codes = (table: Table) => table.findings.map(({ severity, code }) => `${severity} ${code}`);

describe.skipIf(noTools !== undefined)(`tables that the tools make${note(noTools)}`, () => {
  it('GPT by sfdisk, starts and names as it says', () => {
    const path = sfdisk('label: gpt\nsize=8MiB, type=U, name="efi ü"\nsize=16MiB, type=S\ntype=L, name=root\n');
    const table = expectTruth(path, 'gpt', 3);
    expect(table.state).toEqual(['ok']);
    expect(table.sectorSize).toEqual({ value: 512, source: 'gpt-primary' });
    expect(table.partitions.map(({ typeName }) => typeName)).toEqual(['EFI system', 'Linux swap', 'Linux data']);
    expect(table.diskId).toBe((JSON.parse(run('sfdisk', ['-J', path])) as { partitiontable: { id: string } }).partitiontable.id.toLowerCase());
  });

  it('GPT by sfdisk, starts off any grain, numbers with gaps', () => {
    expectTruth(sfdisk('label: gpt\n1: start=2051, size=1000\n3: start=4097, size=9\n7: start=63000, size=4096\n'), 'gpt', 3);
  });

  it('GPT by sgdisk with the first partition at LBA 34 or 40, exempt by its type', () => {
    const table = expectTruth(bySgdiskMade('low'), 'gpt', 3);
    expect(table.partitions.map(({ exempt }) => exempt)).toEqual([true, true, false]);
    expectTruth(bySgdiskMade('apple'), 'gpt', 1);
  });

  it('GPT by sgdisk with room for 8 to 4096 entries, all used', () => {
    expectTruth(bySgdiskMade('entries8'), 'gpt', 1);
    expect(read(bySgdiskMade('entries256')).partitions).toHaveLength(130);
    const table = expectTruth(bySgdiskMade('entries4096'), 'gpt', 1);
    expect(table.partitions[0].number).toBe(4096);
  });

  it('GPT by parted', () => {
    const path = parted(['mklabel', 'gpt', 'mkpart', 'boot', 'fat32', '1MiB', '10MiB', 'mkpart', 'odd', 'ext4', '20481s', '40000s', 'set', '1', 'esp', 'on']);
    expect(expectTruth(path, 'gpt', 2).partitions[0].typeName).toBe('EFI system');
  });

  it('MBR by parted, primary and logical', () => {
    const path = parted([
      'mklabel',
      'msdos',
      'mkpart',
      'primary',
      '1MiB',
      '8MiB',
      'mkpart',
      'extended',
      '8MiB',
      '60MiB',
      'mkpart',
      'logical',
      '9MiB',
      '20MiB',
      'mkpart',
      'logical',
      '21MiB',
      '40MiB',
    ]);
    const table = expectTruth(path, 'mbr', 3);
    expect(table.extended).toEqual([{ start: 8n << 20n, size: 52n << 20n }]);
    expect(table.partitions.map(({ number }) => number)).toEqual([1, 5, 6]);
  });

  it('MBR by sfdisk with a chain of twenty logical partitions', () => {
    const logical = Array.from({ length: 20 }, (_, index) => `${index + 5}: size=2MiB, type=83`).join('\n');
    expectTruth(sfdisk(`label: dos\n1: size=4MiB, type=c, bootable\n2: start=6MiB, type=f\n${logical}\n`, image(96 * MIB)), 'mbr', 21);
  });

  it('MBR as DOS laid it out: 63 sectors before every partition, logical ones included', () => {
    const script =
      'label: dos\ngrain: 512\n1: start=63, size=16002, type=6\n2: start=16065, size=64260, type=5\n5: start=16128, size=16002, type=6\n6: start=32193, size=48132, type=83\n';
    const table = expectTruth(sfdisk(script), 'mbr', 3);
    expect(table.state).toEqual(['ok']);
  });

  it('MBR whose extended partition is empty, or that is empty itself', () => {
    expect(expectTruth(sfdisk('label: dos\nsize=4MiB\nsize=8MiB, type=5\n'), 'mbr', 1).findings).toEqual([]);
    expect(expectTruth(sfdisk('label: dos\n'), 'mbr', 0).state).toEqual(['ok']);
    expect(expectTruth(sfdisk('label: gpt\n'), 'gpt', 0).state).toEqual(['ok']);
  });

  it('hybrid MBR by sgdisk, which is said with the entries it has', () => {
    const path = bySgdiskMade('hybrid');
    const table = expectTruth(path, 'gpt', 3);
    expect(table.state).toEqual(['hybrid-mbr']);
    expect(codes(table)).toEqual(['warning W_HYBRID_MBR']);
    expect(table.findings[0].message).toMatch(/entry 2 \(0x83, byte 1048576 \(LBA 2048\)\) is GPT partition 1, entry 3 .* is GPT partition 3/);
  });

  it.skipIf(noLoopDevices !== undefined)(`GPT and MBR in sectors of 4096 bytes by all three tools, found without being told${note(noLoopDevices)}`, () => {
    const making: [string, (device: string) => void, 'gpt' | 'mbr', number][] = [
      ['sfdisk', (device) => sfdisk('label: gpt\nsize=8MiB\nstart=5003,size=700\n', device), 'gpt', 2],
      ['sgdisk', (device) => run('sgdisk', ['-n1:256:+8M', '-n2:0:0', device]), 'gpt', 2],
      ['parted', (device) => parted(['mklabel', 'gpt', 'mkpart', 'a', '1MiB', '9MiB'], device), 'gpt', 1],
      ['sfdisk', (device) => sfdisk('label: dos\nstart=256,size=2048,type=c\nstart=4096,type=5\nstart=4352,size=512\n', device), 'mbr', 2],
    ];
    for (const [by, make, kind, partitions] of making) {
      const path = image();
      const device = loops!.attach(path, 4096);
      make(device);
      const told = bySfdisk(device);
      const table = read(path);
      expect([by, table.kind, table.sectorSize]).toEqual([by, kind, { value: 4096, source: kind === 'gpt' ? 'gpt-primary' : 'boot-sector' }]);
      expect(ours(table)).toEqual(told);
      expect(told).toHaveLength(partitions);
      expect(table.state).toEqual(['ok']);
    }
  });
});

describe.skipIf(noTools !== undefined)(`damage that the tools keep silent about${note(noTools)}`, () => {
  const whole = () => bySgdiskMade('whole');
  /** Of the image before it was damaged. */
  let truth: Told[] = [];
  beforeAll(() => {
    truth = bySfdisk(whole());
  });
  const end = 64 * MIB;

  it('reads on with the primary of an image that was truncated, and says how much is missing', () => {
    const path = whole();
    truncateSync(path, 32 * MIB);
    const table = read(path);
    expect(ours(table)).toEqual(truth);
    expect([table.kind, table.state]).toEqual(['gpt', ['backup-missing']]);
    expect(codes(table)).toEqual(['warning W_BACKUP_MISSING', 'info I_PMBR_SIZE']);
    expect(table.findings[0].message).toContain(`${32 * MIB} bytes are missing`);
  });

  it('calls a table damaged whose partitions are cut off with the image', () => {
    const path = whole();
    truncateSync(path, 12 * MIB);
    const table = read(path);
    expect(table.state).toEqual(['backup-missing', 'partition-beyond-end']);
    expect(codes(table)).toContain('error E_BEYOND_END');
    expect(table.partitions).toHaveLength(2);
  });

  it('finds the backup of an image that grew where it was, not at the end', () => {
    const path = whole();
    truncateSync(path, 96 * MIB);
    const table = expectTruth(path, 'gpt', 2);
    expect(table.state).toEqual(['backup-not-at-end']);
    expect(table.backup).toMatchObject({ header: BigInt(end - 512), valid: true });
    expect(table.findings[0].message).toContain('grew by 32 MiB');
  });

  it('also where the primary is damaged: the protective entry tells', () => {
    const path = whole();
    truncateSync(path, 96 * MIB);
    flip(path, 512 + 60);
    const table = read(path);
    expect([table.kind, table.state]).toEqual(['gpt', ['primary-bad', 'backup-not-at-end']]);
    expect(ours(table)).toEqual(truth);
  });

  for (const [what, offset] of [
    ['header', 512 + 60],
    ['signature', 512],
    ['CRC', 512 + 16],
    ['entry', 1024 + 40],
    ['unused entry', 1024 + 100 * 128],
  ] as const) {
    it(`reads the backup where a bit of the primary's ${what} flipped`, () => {
      const path = whole();
      const table = read(flip(path, offset));
      expect(ours(table)).toEqual(truth);
      expect([table.state, table.primary?.valid, table.backup?.valid]).toEqual([['primary-bad'], false, true]);
      expect(codes(table)).toEqual(['warning W_PRIMARY_BAD']);
    });
  }

  for (const [what, offset] of [
    ['header', end - 512 + 60],
    ['entry', end - 33 * 512 + 40],
  ] as const) {
    it(`says that the backup is bad where a bit of its ${what} flipped`, () => {
      const path = whole();
      const table = read(flip(path, offset));
      expect(ours(table)).toEqual(truth);
      expect([table.state, table.primary?.valid, table.backup?.valid]).toEqual([['backup-bad'], true, false]);
      expect(codes(table)).toEqual(['warning W_BACKUP_BAD']);
    });
  }

  it('does not take a disk with both copies damaged for a DOS disk, as sfdisk does', () => {
    const path = flip(flip(whole(), 512 + 60), end - 512 + 60);
    expect(bySfdisk(path).map(({ type }) => type)).toEqual(['0xee']);
    const table = read(path);
    expect([table.kind, table.partitions]).toEqual(['gpt', []]);
    expect(table.state).toEqual(['primary-bad', 'backup-bad', 'no-valid-table', 'protective-mbr-without-gpt']);
    expect(codes(table)).toEqual(['error E_NO_VALID_TABLE']);
  });

  it('nor one of which only the protective MBR is left', () => {
    const path = patch(patch(whole(), 512, new Uint8Array(33 * 512)), end - 33 * 512, new Uint8Array(33 * 512));
    const table = read(path);
    expect([table.kind, table.partitions, table.state]).toEqual(['pmbr-only', [], ['no-valid-table', 'protective-mbr-without-gpt']]);
  });

  it('reads a GPT without a protective MBR, with a warning', () => {
    const path = whole();
    const table = read(patch(path, 0, new Uint8Array(512)));
    expect(ours(table)).toEqual(truth);
    expect(codes(table)).toEqual(['warning W_PMBR_MISSING']);
  });

  it('reads the MBR, not the remains of a GPT, of a disk that was partitioned anew without clearing it', () => {
    const path = whole();
    const remains = [bytesAt(path, 512, 33 * 512), bytesAt(path, end - 33 * 512, 33 * 512)];
    sfdisk('label: dos\nsize=8MiB\n', path);
    patch(patch(path, 512, remains[0]), end - 33 * 512, remains[1]);
    const table = read(path);
    expect([table.kind, ours(table).map(bare)]).toEqual(['mbr', [{ number: 1, start: 2048, sectors: 16384 }]]);
    expect(codes(table)).toEqual(['warning W_GPT_REMAINS']);
  });
});

describe.skipIf(without('mkfs.fat', 'mkfs.exfat', 'mkntfs', 'mke2fs') !== undefined)(
  `volumes without a table${note(without('mkfs.fat', 'mkfs.exfat', 'mkntfs', 'mke2fs'))}`,
  () => {
    const made: [string, string, string[]][] = [
      ['FAT12', 'mkfs.fat', ['-F12']],
      ['FAT16', 'mkfs.fat', ['-F16']],
      ['FAT32', 'mkfs.fat', ['-F32']],
      ['FAT of 4096-byte sectors', 'mkfs.fat', ['-S4096']],
      ['exFAT', 'mkfs.exfat', []],
      ['NTFS', 'mkntfs', ['-F', '-Q', '-q']],
      ['ext4', 'mke2fs', ['-q', '-t', 'ext4']],
    ];
    for (const [name, maker, args] of made) {
      it(`${name} is a superfloppy, not an MBR`, () => {
        const path = image(name === 'FAT12' ? 4 * MIB : 40 * MIB);
        run(maker, [...args, path]);
        const table = read(path);
        expect([table.kind, table.partitions, table.state]).toEqual(['superfloppy', [], ['ok']]);
      });
    }

    it('a table beside the parameters of an old FAT is a table, with a warning', () => {
      const path = image(40 * MIB);
      run('mkfs.fat', [path]);
      run('sfdisk', ['-q', '--wipe', 'never', path], 'label: dos\nsize=8MiB\n');
      const table = read(path);
      expect([table.kind, ours(table).map(bare)]).toEqual(['mbr', [{ number: 1, start: 2048, sectors: 16384 }]]);
      expect(codes(table)).toEqual(['warning W_BOOT_SECTOR_AND_TABLE']);
    });
  },
);
