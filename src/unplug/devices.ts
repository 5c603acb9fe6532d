/**
 * Which block devices the bytes of a file depend on, and how.
 *
 *   a file on ext4 on nvme0n1p2      own: nvme0n1p2    disk: nvme0n1
 *   a file on dm-0 over sda1, sdb1   own: dm-0         members: sda1, sdb1
 *   a btrfs on sda1 and sdb1                           members: sda1, sdb1
 *
 * The loss of `own` or its `disk` is the loss of the file. The loss of a member is a reason to look: a mirror survives it.
 * Guarantees: never throws; no device twice. Leaves to others: noticing a loss (the addon's watcher).
 */
import { fileSystemName, isServed } from '../geometry/direct-io.js';
import { type BlockDevice, blockDevice, btrfsDevices, diskOf, slavesOf } from '../geometry/sysfs.js';
import { type NativeProbe, type NativeWatchedDevice, ROLE_DISK, ROLE_MEMBER, ROLE_OWN } from '../io/native.js';

const TYPE_MASK = 0o170000;
const BLOCK_DEVICE = 0o060000;

/** What a file depends on, and why no more is known. */
export interface Dependence {
  isDevice: boolean;
  /** Somebody else (FUSE, a server) has the bytes. */
  remote: boolean;
  devices: NativeWatchedDevice[];
  /** The device that holds all bytes of a regular file; undefined where it is not exactly one. */
  holder: BlockDevice | undefined;
  /** DISKSEQ of the disk that holds the bytes, -1 where unknown. */
  sequence: number;
  /** Files with the same one are on the same device. */
  group: string;
  /** In words, for `explain()`. */
  reason: string;
}

/** `probe` is the addon's answer about the open file. */
export function dependenceOf(probe: NativeProbe, sysfs = '/sys'): Dependence {
  const isDevice = (probe.mode & TYPE_MASK) === BLOCK_DEVICE;
  const numbers = isDevice ? probe.rdev : probe.dev;
  const name = isDevice ? 'block device' : fileSystemName(probe.fsType);
  const none = { isDevice, remote: !isDevice && isServed(probe.fsType), devices: [], holder: undefined, group: numbers };

  if (!isDevice && probe.fsid !== '') return overMembers(btrfsDevices(probe.fsid, sysfs), none);
  // Major 0 is the kernel's sign for a file system without a device of its own.
  const device = numbers.startsWith('0:') ? undefined : blockDevice(numbers, sysfs);
  if (device === undefined) {
    const reason = numbers.startsWith('0:')
      ? `${name} names no block device; ${none.remote ? 'whoever serves it is asked' : 'its own answers are watched'}`
      : `${sysfs} does not know the device ${numbers}; its own answers are watched`;
    return { ...none, sequence: positive(probe.diskSeq), reason };
  }
  // The bytes of a realtime inode (XFS) lie elsewhere, but the file system is lost with this device all the same.
  const dependence = over(device, none, !probe.realtime);
  return probe.diskSeq > 0 ? { ...dependence, sequence: probe.diskSeq } : dependence;
}

type None = Pick<Dependence, 'isDevice' | 'remote' | 'group'>;

function over(device: BlockDevice, none: None, holdsBytes: boolean): Dependence {
  const devices = [watched(device, holdsBytes ? ROLE_OWN : ROLE_DISK)];
  const disk = diskOf(device);
  if (disk !== undefined) devices.push(watched(disk, ROLE_DISK));
  addMembers(device, devices);
  const under = devices.filter(({ role }) => role === ROLE_MEMBER).length;
  const place = device.disk === device.name ? device.name : `${device.name} on ${device.disk}`;
  return {
    ...none,
    devices,
    holder: holdsBytes ? device : undefined,
    sequence: device.diskSequence ?? -1,
    reason: under === 0 ? place : `${place}, with ${under} below it`,
  };
}

function overMembers(members: BlockDevice[], none: None): Dependence {
  if (members.length === 1) return over(members[0], none, true);
  const devices: NativeWatchedDevice[] = [];
  for (const member of members) {
    devices.push(watched(member, ROLE_MEMBER));
    addMembers(member, devices);
  }
  const names = members.map((member) => member.name).join(', ');
  const reason =
    members.length === 0 ? 'btrfs whose devices sysfs does not name; its own answers are watched' : `btrfs on ${names}: it may survive the loss of one`;
  return { ...none, devices, holder: undefined, sequence: -1, reason };
}

function addMembers(device: BlockDevice, devices: NativeWatchedDevice[]): void {
  for (const slave of slavesOf(device)) {
    if (devices.some(({ folder }) => folder === slave.folder)) continue;
    devices.push(watched(slave, ROLE_MEMBER));
    addMembers(slave, devices);
  }
}

function watched(device: BlockDevice, role: number): NativeWatchedDevice {
  return { folder: device.folder, numbers: device.numbers, sequence: device.diskSequence ?? -1, role };
}

function positive(value: number): number {
  return value > 0 ? value : -1;
}
