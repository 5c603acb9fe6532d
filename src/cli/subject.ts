/**
 * What a path on the command line is, and what the device under it asks for.
 *
 *   /dev/sda          block device   its own limits from sysfs
 *   /dev/sda1         partition      its disk's limits, its own start
 *   disk.img          image          nothing is known: physical sectors of 4096 bytes are assumed
 *   data.mdb          file           the limits of the device that its file system lies on
 *
 * Guarantees: opens nothing for writing; loads no native code.
 * Leaves to others: whether a regular file is an image (`align.ts` looks inside).
 */
import { readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { systemError } from '../errors.js';
import { type BlockDevice, blockDevice, diskOf } from '../geometry/sysfs.js';
import type { Topology } from '../layout/model.js';

export interface Subject {
  path: string;
  kind: 'device' | 'regular' | 'directory';
  /** Bytes of a regular file. */
  size: bigint;
  /** Bytes that a regular file takes up on its device. */
  allocated: bigint;
  /** `major:minor` of what holds the bytes. */
  numbers: string;
}

const SECTOR = 512;
const ENOTSUP = 95;

/** @throws the system's error where the path cannot be looked at, ENOTSUP for pipes, sockets and character devices */
export function subjectOf(path: string): Subject {
  const stat = statSync(path, { bigint: true });
  const kind = stat.isBlockDevice() ? 'device' : stat.isFile() ? 'regular' : stat.isDirectory() ? 'directory' : undefined;
  if (kind === undefined) throw systemError(-ENOTSUP, 'open', { path });
  return { path, kind, size: stat.size, allocated: stat.blocks * 512n, numbers: numbersOf(kind === 'device' ? stat.rdev : stat.dev) };
}

/** As glibc packs them (sys/sysmacros.h: gnu_dev_major, gnu_dev_minor). */
export function numbersOf(device: bigint): string {
  const major = ((device >> 8n) & 0xfffn) | ((device >> 32n) & ~0xfffn);
  const minor = (device & 0xffn) | ((device >> 12n) & ~0xffn);
  return `${major}:${minor}`;
}

/** A device and where it lies on its disk. */
export interface Ground {
  device: BlockDevice;
  /** Of the disk; of the device itself where it is no partition. */
  topology: Topology;
}

/** Undefined where no single block device holds the bytes: memory, network, several devices. */
export function groundOf(numbers: string): Ground | undefined {
  // Major 0 is the kernel's sign for a file system without a device of its own.
  if (numbers.startsWith('0:')) return undefined;
  const device = blockDevice(numbers);
  if (device === undefined) return undefined;
  return { device, topology: topologyOf(device) };
}

function topologyOf(device: BlockDevice): Topology {
  const disk = diskOf(device) ?? device;
  const { logicalBlockSize, physicalBlockSize, minimumIoSize, optimalIoSize } = device.limits;
  const logical = logicalBlockSize ?? SECTOR;
  const zoned = attribute(device.diskFolder, 'zoned');
  const chunk = Number(attribute(device.diskFolder, 'chunk_sectors') ?? 0) * SECTOR;
  return {
    logical,
    physical: Math.max(logical, physicalBlockSize ?? 4096),
    minimumIo: minimumIoSize ?? 0,
    optimalIo: optimalIoSize ?? 0,
    alignmentOffset: disk.alignmentOffset ?? 0,
    zone: zoned === 'host-managed' || zoned === 'host-aware' ? chunk : 0,
    chunk,
    source: 'device',
  };
}

function attribute(diskFolder: string, name: string): string | undefined {
  try {
    return readFileSync(join(diskFolder, 'queue', name), 'latin1').trim();
  } catch {
    return undefined;
  }
}
