/**
 * What the lab shows, and on which machine. Scenarios of one machine share its boot; each has disks of its own, so that one cannot hurt the other.
 */
import { execFileSync } from 'node:child_process';
import { closeSync, copyFileSync, mkdirSync, openSync, rmSync, truncateSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { fillContent } from './content.js';
import { blkdebug, bytes as faultBytes, seed as faultSeed } from './faults.js';
import { diskBytes, fileSystem, raw } from './layout.js';
import type { Disk } from './machine.js';
import type { Settings } from './messages.js';
import { searchPath } from './preparation.js';

const MEBIBYTE = 1 << 20;

export interface Scenario {
  name: string;
  title: string;
  /** Name of the machine that it runs on. */
  machine: string;
  /** What of guest/run.ts it is, and with which settings. Undefined for those that switch machines on and off themselves. */
  guest: { scenario: string; settings: Settings } | undefined;
  limitMs: number;
}

export interface MachinePlan {
  name: string;
  disks(folder: string): Disk[];
}

/** Two primary partitions, as UEFI 2.10 §5.2.1 lays a legacy MBR out. */
function partitionTable(): Buffer {
  const sector = Buffer.alloc(512);
  for (const [index, { start, bytes }] of [raw, fileSystem].entries()) {
    const entry = 446 + index * 16;
    sector[entry + 4] = 0x83;
    sector.writeUInt32LE(start / 512, entry + 8);
    sector.writeUInt32LE(bytes / 512, entry + 12);
  }
  sector.writeUInt16LE(0xaa55, 510);
  return sector;
}

function content(bytes: number, seed: number): Buffer {
  const made = Buffer.alloc(bytes);
  fillContent(made, 0, seed);
  return made;
}

function sparse(path: string, bytes: number): string {
  writeFileSync(path, '');
  truncateSync(path, bytes);
  return path;
}

function writeAt(path: string, bytes: Buffer, position: number): void {
  const fd = openSync(path, 'r+');
  writeSync(fd, bytes, 0, bytes.length, position);
  closeSync(fd);
}

/** Makes an ext4 in an image, with the files of `source` in it. */
export function makeExt4(image: string, offset: number, bytes: number, source?: string): void {
  const from = source === undefined ? [] : ['-d', source];
  execFileSync('mke2fs', ['-q', '-F', '-t', 'ext4', '-b', '4096', '-E', `offset=${offset},root_owner=0:0`, ...from, image, `${bytes / 1024}k`], {
    env: { ...process.env, PATH: searchPath },
    stdio: ['ignore', 'ignore', 'pipe'],
  });
}

/** A disk as `layout.ts` says; made once, and copied. */
function removalImage(folder: string, id: string): string {
  const path = join(folder, `${id}.img`);
  const template = join(folder, 'template.img');
  try {
    copyFileSync(template, path);
    return path;
  } catch {
    // The first one.
  }
  sparse(template, diskBytes);
  const files = join(folder, 'template');
  mkdirSync(files);
  writeFileSync(join(files, fileSystem.file), content(fileSystem.fileBytes, fileSystem.seed));
  makeExt4(template, fileSystem.start, fileSystem.bytes, files);
  rmSync(files, { recursive: true });
  writeAt(template, partitionTable(), 0);
  writeAt(template, content(raw.bytes, raw.seed), raw.start);
  copyFileSync(template, path);
  return path;
}

export const machines: readonly MachinePlan[] = [
  {
    name: 'removal',
    disks: (folder) => [
      ...['nvme-remove', 'nvme-pull', 'nvme-eject'].map((id): Disk => ({ id, kind: 'nvme', image: removalImage(folder, id), throttled: true })),
      { id: 'sata-delete', kind: 'sata', image: removalImage(folder, 'sata-delete'), throttled: true },
    ],
  },
  {
    name: 'faults',
    disks: (folder) => {
      const faulty = (id: string): string => {
        const path = join(folder, `${id}.img`);
        writeFileSync(path, content(faultBytes, faultSeed));
        return path;
      };
      return [
        { id: 'nvme-4kn', kind: 'nvme', image: sparse(join(folder, '4kn.img'), 16 * MEBIBYTE), properties: 'logical_block_size=4096,physical_block_size=4096' },
        {
          id: 'sata-512e',
          kind: 'sata',
          image: sparse(join(folder, '512e.img'), 16 * MEBIBYTE),
          properties: 'logical_block_size=512,physical_block_size=4096',
        },
        { id: 'nvme-bad', kind: 'nvme', image: faulty('nvme-bad'), filter: blkdebug },
        { id: 'sata-bad', kind: 'sata', image: faulty('sata-bad'), filter: blkdebug },
      ];
    },
  },
];

const MINUTE = 60_000;

export const scenarios: readonly Scenario[] = [
  ...(
    [
      ['nvme-remove', 'remove', 'NVMe, removed in order under load (PCI remove), plugged again'],
      ['nvme-eject', 'eject', 'NVMe, removed in order under load (device_del), plugged again'],
      ['nvme-pull', 'pull', 'NVMe, pulled under load: the controller stops answering; plugged again'],
      ['sata-delete', 'delete', 'AHCI disk, removed under load (SCSI delete), found again by a scan'],
    ] as const
  ).map(
    ([name, how, title]): Scenario => ({ name, title, machine: 'removal', guest: { scenario: 'removal', settings: { disk: name, how } }, limitMs: 4 * MINUTE }),
  ),
  {
    name: 'sectors-4kn',
    title: 'NVMe with sectors of 4096 bytes',
    machine: 'faults',
    guest: { scenario: 'sectorSizes', settings: { disk: 'nvme-4kn', logical: 4096, physical: 4096 } },
    limitMs: 2 * MINUTE,
  },
  {
    name: 'sectors-512e',
    title: 'AHCI disk with sectors of 512 bytes on physical ones of 4096',
    machine: 'faults',
    guest: { scenario: 'sectorSizes', settings: { disk: 'sata-512e', logical: 512, physical: 4096 } },
    limitMs: 2 * MINUTE,
  },
  {
    name: 'bad-sectors-nvme',
    title: 'NVMe with bad sectors (blkdebug)',
    machine: 'faults',
    guest: { scenario: 'badSectors', settings: { disk: 'nvme-bad' } },
    limitMs: 2 * MINUTE,
  },
  {
    name: 'bad-sectors-sata',
    title: 'AHCI disk with bad sectors (blkdebug)',
    machine: 'faults',
    guest: { scenario: 'badSectors', settings: { disk: 'sata-bad' } },
    limitMs: 2 * MINUTE,
  },
  {
    name: 'scsi-debug',
    title: 'scsi_debug: odd alignment, medium errors that heal',
    machine: 'faults',
    guest: { scenario: 'scsiDebug', settings: {} },
    limitMs: 2 * MINUTE,
  },
  {
    name: 'dm-flakey',
    title: 'dm-flakey: reads, writes, or the truth fail for a while',
    machine: 'faults',
    guest: { scenario: 'dmFlakey', settings: {} },
    limitMs: 2 * MINUTE,
  },
  {
    name: 'null-blk',
    title: 'null_blk: sectors of 4096 bytes, bad blocks by list',
    machine: 'faults',
    guest: { scenario: 'nullBlk', settings: {} },
    limitMs: 2 * MINUTE,
  },
  {
    name: 'verified-writes',
    title: 'dm-flakey: writes are lost, torn and changed without a word; verifyWrites finds each',
    machine: 'faults',
    guest: { scenario: 'verifiedWrites', settings: {} },
    limitMs: 4 * MINUTE,
  },
  { name: 'power-cut', title: 'the power fails while records are appended and flushed', machine: 'power-cut', guest: undefined, limitMs: 9 * MINUTE },
];
