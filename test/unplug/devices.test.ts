/** Which devices a file depends on, from made-up trees of sysfs. */
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type NativeProbe, ROLE_DISK, ROLE_MEMBER, ROLE_OWN } from '../../src/io/native.js';
import { dependenceOf } from '../../src/unplug/devices.js';

const sysfs = mkdtempSync(join(tmpdir(), 'sectorwise-sysfs-'));
const FILE = 0o100644;
const DEVICE = 0o060660;

function probe(changes: Partial<NativeProbe>): NativeProbe {
  return { mode: FILE, dev: '0:0', rdev: '0:0', fsid: '', fsType: 0xef53, realtime: false, diskSeq: -25, ...changes } as NativeProbe;
}

/** A folder of a device, as the kernel lays them out. */
function device(path: string, numbers: string, attributes: Record<string, string> = {}): void {
  const folder = join(sysfs, 'devices', path);
  mkdirSync(join(folder, 'slaves'), { recursive: true });
  mkdirSync(join(sysfs, 'dev/block'), { recursive: true });
  for (const [name, value] of Object.entries({ dev: numbers, size: '2048', ...attributes })) writeFileSync(join(folder, name), `${value}\n`);
  symlinkSync(folder, join(sysfs, 'dev/block', numbers));
}

function link(folder: string, name: string, target: string): void {
  mkdirSync(join(sysfs, folder), { recursive: true });
  symlinkSync(join(sysfs, 'devices', target), join(sysfs, folder, name));
}

beforeAll(() => {
  device('pci/sda', '8:0', { diskseq: '3' });
  device('pci/sda/sda1', '8:1', { partition: '1' });
  device('pci/sdb', '8:16', { diskseq: '4' });
  device('virtual/md0', '9:0', { diskseq: '5' });
  device('virtual/dm-0', '254:0', { diskseq: '6' });
  device('old', '7:0');
  link('devices/virtual/md0/slaves', 'sda1', 'pci/sda/sda1');
  link('devices/virtual/md0/slaves', 'sdb', 'pci/sdb');
  link('devices/virtual/dm-0/slaves', 'md0', 'virtual/md0');
  link('devices/virtual/dm-0/slaves', 'sdb', 'pci/sdb');
  link('fs/btrfs/one/devices', 'sda1', 'pci/sda/sda1');
  link('fs/btrfs/two/devices', 'sda1', 'pci/sda/sda1');
  link('fs/btrfs/two/devices', 'sdb', 'pci/sdb');
});
afterAll(() => rmSync(sysfs, { recursive: true, force: true }));

function of(changes: Partial<NativeProbe>) {
  const { devices, holder, ...rest } = dependenceOf(probe(changes), sysfs);
  const names = devices.map(({ folder, role, numbers, sequence }) => [folder.slice(folder.lastIndexOf('/') + 1), numbers, sequence, role]);
  return { names, holder: holder?.name, ...rest };
}

describe('the devices of a file', () => {
  it('are the partition and its disk', () => {
    expect(of({ dev: '8:1' })).toEqual({
      names: [
        ['sda1', '8:1', 3, ROLE_OWN],
        ['sda', '8:0', 3, ROLE_DISK],
      ],
      holder: 'sda1',
      isDevice: false,
      remote: false,
      sequence: 3,
      group: '8:1',
      reason: 'sda1 on sda',
    });
  });

  it('are a stacked device and all below it, each once', () => {
    expect(of({ dev: '254:0' })).toMatchObject({
      names: [
        ['dm-0', '254:0', 6, ROLE_OWN],
        ['md0', '9:0', 5, ROLE_MEMBER],
        ['sda1', '8:1', 3, ROLE_MEMBER],
        ['sdb', '8:16', 4, ROLE_MEMBER],
      ],
      holder: 'dm-0',
      reason: 'dm-0, with 3 below it',
    });
  });

  it('are those of the device itself where one was opened, with its own answer about the instance', () => {
    expect(of({ mode: DEVICE, dev: '0:5', rdev: '8:16', diskSeq: 44 })).toMatchObject({
      names: [['sdb', '8:16', 4, ROLE_OWN]],
      isDevice: true,
      sequence: 44,
      group: '8:16',
    });
  });

  it('are one that holds all of a btrfs, or several of which it may survive one', () => {
    expect(of({ dev: '0:40', fsid: 'one' })).toMatchObject({
      names: [
        ['sda1', '8:1', 3, ROLE_OWN],
        ['sda', '8:0', 3, ROLE_DISK],
      ],
      holder: 'sda1',
      group: '0:40',
    });
    expect(of({ dev: '0:41', fsid: 'two' })).toMatchObject({
      names: [
        ['sda1', '8:1', 3, ROLE_MEMBER],
        ['sdb', '8:16', 4, ROLE_MEMBER],
      ],
      holder: undefined,
      sequence: -1,
      reason: 'btrfs on sda1, sdb: it may survive the loss of one',
    });
    expect(of({ dev: '0:42', fsid: 'none' })).toMatchObject({ names: [], holder: undefined, reason: expect.stringContaining('sysfs does not name') });
  });

  it('never hold the bytes of a realtime file, and take the file system with them all the same', () => {
    expect(of({ dev: '8:16', realtime: true })).toMatchObject({ names: [['sdb', '8:16', 4, ROLE_DISK]], holder: undefined });
  });

  it('are none where there is none, with the reason', () => {
    expect(of({ dev: '0:30', fsType: 0x01021994 })).toMatchObject({ names: [], remote: false, reason: expect.stringContaining('tmpfs') });
    expect(of({ dev: '0:31', fsType: 0x65735546 })).toMatchObject({ names: [], remote: true, reason: expect.stringContaining('whoever serves it') });
    expect(of({ dev: '0:32', fsType: 0x794c7630 })).toMatchObject({ names: [], remote: false, reason: expect.stringContaining('overlay') });
    expect(of({ dev: '8:99' })).toMatchObject({ names: [], reason: expect.stringContaining('8:99') });
  });

  it('have no known instance before Linux 5.15', () => {
    expect(of({ dev: '7:0' })).toMatchObject({ names: [['old', '7:0', -1, ROLE_OWN]], sequence: -1 });
  });
});
