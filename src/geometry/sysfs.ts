/**
 * Block devices as sysfs describes them.
 *
 *   /sys/dev/block/259:1 → …/nvme0n1/nvme0n1p1/   start, size, alignment_offset, ro, partition: of the very partition
 *                          …/nvme0n1/queue/       the limits of the queue: a partition has none, they are its disk's
 *
 * Guarantees: never throws; what sysfs does not say is undefined (no /sys in a container, an older kernel, a bio-based device without tags).
 * Leaves to others: whether a value is to be believed (`geometry.ts`).
 */
import { readdirSync, readFileSync, realpathSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';

/** Attributes of `queue/` (Documentation/ABI/stable/sysfs-block), in bytes where the name does not say otherwise. */
export interface QueueLimits {
  logicalBlockSize: number | undefined;
  physicalBlockSize: number | undefined;
  minimumIoSize: number | undefined;
  optimalIoSize: number | undefined;
  /** What the kernel sends in one request (max_sectors_kb), and what the hardware could take (max_hw_sectors_kb). */
  maxBytes: number | undefined;
  maxHardwareBytes: number | undefined;
  maxSegments: number | undefined;
  maxSegmentSize: number | undefined;
  /** Requests that the queue holds for each direction (nr_requests). */
  requests: number | undefined;
  /** Mask of address bits that must be clear (dma_alignment), Linux 6.0 on. */
  dmaAlignmentMask: number | undefined;
  rotational: boolean | undefined;
}

/** A disk, a partition, or a stacked device. */
export interface BlockDevice {
  /** As under /dev: `nvme0n1p2`, `dm-0`, `cciss/c0d0`. */
  name: string;
  /** The disk that the partition is of; the name itself for everything else. */
  disk: string;
  /** `major:minor`. */
  numbers: string;
  /** Number of the partition, undefined for a whole device. */
  partition: number | undefined;
  /** Where it begins on its disk; 0 for a whole device. */
  startBytes: number;
  sizeBytes: number;
  /** Attribute alignment_offset; -1 where the stack cannot be aligned. */
  alignmentOffset: number | undefined;
  readOnly: boolean;
  /** Of the disk: grows with each one that the kernel ever saw (Linux 5.15). */
  diskSequence: number | undefined;
  /** Its own folder in sysfs, and its disk's; both without symbolic links. */
  folder: string;
  diskFolder: string;
  limits: QueueLimits;
}

/** sysfs gives starts and sizes in units of 512 bytes whatever the device's sectors are. */
const SECTOR = 512;

/** The device with these numbers (`major:minor`), or undefined if sysfs knows none. */
export function blockDevice(numbers: string, sysfs = '/sys'): BlockDevice | undefined {
  return describe(join(sysfs, 'dev', 'block', numbers));
}

/** The devices that a btrfs file system lies on: its files' st_dev is an anonymous number that names none of them. */
export function btrfsDevices(fsid: string, sysfs = '/sys'): BlockDevice[] {
  return devicesIn(join(sysfs, 'fs', 'btrfs', fsid, 'devices'));
}

/** The disk that a partition is of; undefined for everything else. */
export function diskOf(device: BlockDevice): BlockDevice | undefined {
  return device.diskFolder === device.folder ? undefined : describe(device.diskFolder);
}

/** The devices that a stacked one (device mapper, md, bcache) is made of, one level down. */
export function slavesOf(device: BlockDevice): BlockDevice[] {
  return devicesIn(join(device.folder, 'slaves'));
}

function devicesIn(folder: string): BlockDevice[] {
  let names: string[];
  try {
    names = readdirSync(folder);
  } catch {
    return [];
  }
  return names.map((name) => describe(join(folder, name))).filter((device) => device !== undefined);
}

function describe(link: string): BlockDevice | undefined {
  let folder: string;
  try {
    folder = realpathSync.native(link);
  } catch {
    return undefined;
  }
  const numbers = text(folder, 'dev');
  if (numbers === undefined) return undefined;
  const partition = number(folder, 'partition');
  const disk = partition === undefined ? folder : dirname(folder);
  let limits: QueueLimits | undefined;
  return {
    name: nodeName(folder),
    disk: nodeName(disk),
    numbers,
    partition,
    startBytes: (number(folder, 'start') ?? 0) * SECTOR,
    sizeBytes: (number(folder, 'size') ?? 0) * SECTOR,
    alignmentOffset: number(folder, 'alignment_offset'),
    readOnly: number(folder, 'ro') === 1,
    diskSequence: number(disk, 'diskseq'),
    folder,
    diskFolder: disk,
    // A dozen files, which who only wants to know the device does not need.
    get limits() {
      limits ??= queueLimits(join(disk, 'queue'));
      return limits;
    },
  };
}

function queueLimits(queue: string): QueueLimits {
  const kilobytes = (name: string): number | undefined => {
    const value = number(queue, name);
    return value === undefined ? undefined : value * 1024;
  };
  const rotational = number(queue, 'rotational');
  return {
    logicalBlockSize: number(queue, 'logical_block_size'),
    physicalBlockSize: number(queue, 'physical_block_size'),
    minimumIoSize: number(queue, 'minimum_io_size'),
    optimalIoSize: number(queue, 'optimal_io_size'),
    maxBytes: kilobytes('max_sectors_kb'),
    maxHardwareBytes: kilobytes('max_hw_sectors_kb'),
    maxSegments: number(queue, 'max_segments'),
    maxSegmentSize: number(queue, 'max_segment_size'),
    requests: number(queue, 'nr_requests'),
    dmaAlignmentMask: number(queue, 'dma_alignment'),
    rotational: rotational === undefined ? undefined : rotational === 1,
  };
}

/** sysfs cannot have a slash in a name and writes `!` for it. */
function nodeName(folder: string): string {
  return basename(folder).replaceAll('!', '/');
}

function text(folder: string, name: string): string | undefined {
  try {
    return readFileSync(join(folder, name), 'latin1').trim();
  } catch {
    // Missing on this kernel, or refused (nr_requests of a bio-based device is EINVAL).
    return undefined;
  }
}

function number(folder: string, name: string): number | undefined {
  const value = text(folder, name);
  return value !== undefined && /^-?\d+$/.test(value) ? Number(value) : undefined;
}
