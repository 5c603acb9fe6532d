/**
 * The sizes and alignments that a file's device asks for.
 *
 *   st_dev / st_rdev ──> sysfs: the very partition (start, alignment) and its disk (queue limits)
 *   statx, statfs, BLK… ──────> what the file itself says          ──> Geometry, and the facts that the opener needs
 *
 * Guarantees: values of the very partition where the partition has its own, of its disk where only the disk has them; a value that means nothing is
 * replaced by the documented fallback, never handed on; nothing here writes, and a device is read at most for a few hundred bytes.
 * Leaves to others: where the bytes of a file lie (`extents.ts`), the engine's own features (`io/`).
 */
import { SectorwiseError, systemError } from '../errors.js';
import type { Feature } from '../io/engine.js';
import type { NativeProbe } from '../io/native.js';
import { native } from '../io/native.js';
import type { Alignment, DirectSupport } from './direct-io.js';
import { fileSystemName, isServed, judgeDirect } from './direct-io.js';
import type { BlockDevice, QueueLimits } from './sysfs.js';
import { blockDevice, btrfsDevices } from './sysfs.js';

/** What the device under a file asks for. All sizes are bytes. Sources are named by statx field, ioctl (linux/fs.h) and sysfs attribute. */
export interface Geometry {
  /** What was opened. */
  kind: 'file' | 'block-device';
  /**
   * The block device that holds the bytes, as under /dev, e.g. `nvme0n1p2`; from st_rdev of a device, st_dev of a file, and for btrfs the device
   * under /sys/fs/btrfs. Undefined where none can be named: tmpfs, network and FUSE file systems, overlayfs, a btrfs on several devices, an XFS
   * realtime file.
   */
  device: string | undefined;
  /** The smallest unit that the device reads or writes: queue/logical_block_size, BLKSSZGET. 4096 where unknown. */
  logicalSectorSize: number;
  /** The unit that it stores without read-modify-write: queue/physical_block_size, BLKPBSZGET. 4096 where unknown, never below the logical size. */
  physicalSectorSize: number;
  /** Alignment of memory under O_DIRECT: statx stx_dio_mem_align, else as `writeAlignment`; 0 where the file cannot do O_DIRECT. */
  memoryAlignment: number;
  /** Alignment of position and length of direct reads: statx stx_dio_read_offset_align, else stx_dio_offset_align, else as `writeAlignment`; 0 where impossible. */
  readAlignment: number;
  /** The same for direct writes: statx stx_dio_offset_align, else the device's logical sector size (btrfs: its own sector size), else 4096; 0 where impossible. */
  writeAlignment: number;
  /** The smallest request that is not a loss: queue/minimum_io_size, BLKIOMIN. The physical sector size where unknown. */
  minimumIoSize: number;
  /** What it likes to get at once: queue/optimal_io_size, BLKIOOPT. 0 where the device reports none, or a value that is no real I/O size (see `usableOptimalIoSize`). */
  optimalIoSize: number;
  /**
   * Bytes by which the device's start is off a physical sector: alignment_offset of the very partition (not of its disk, where the attribute means
   * something else), BLKALIGNOFF. -1 where the stack cannot be aligned; 0 where unknown.
   */
  alignmentOffset: number;
  /**
   * The longest single request: queue/max_sectors_kb (BLKSECTGET), but no more than queue/max_segments pages of 4096, because the frames of one request
   * may lie anywhere in memory and each then takes a segment of its own. A multiple of 4096 between 4096 and 4 MiB: above that nothing gets faster and
   * every wait gets longer. 1 MiB where unknown.
   */
  maxTransferSize: number;
  /** A disk with heads: queue/rotational, BLKROTATIONAL. False where unknown. Virtual disks often say true and are none. */
  rotational: boolean;
  /**
   * Which disk it is, among all that the kernel ever saw: BLKGETDISKSEQ of a device, the diskseq attribute of the disk under a file (Linux 5.15). Grows with
   * each disk that appears, so one that was unplugged and came back has another. Undefined where `device` is, and on older kernels.
   */
  diskSequence: number | undefined;
}

/** What the opener needs to know besides. */
export interface GeometryFacts {
  readonly geometry: Geometry;
  /** For `explain()`: whether O_DIRECT is used and real, where the sizes come from. */
  readonly features: Feature[];
  readonly isDevice: boolean;
  /** Bytes of the file or device, as of now. */
  readonly size: number;
  /** Device numbers, `major:minor`, of what holds the bytes as the kernel names it: st_rdev of a device, st_dev of a file. */
  readonly deviceNumbers: string;
  /** Names the inode in this machine, for `claimInode`; all nodes of one block device have one. */
  readonly inodeKey: string;
  /** BLKROGET, or the `ro` attribute: writes would fail with EPERM or EROFS whatever the descriptor's mode. */
  readonly readOnlyDevice: boolean;
  /** mincore tells the truth: it pretends that all is resident to whoever neither owns the inode nor may write to it (Linux 5.2). */
  readonly trustMincore: boolean;
  readonly fsName: string;
  /** A FUSE or network file system. */
  readonly isServed: boolean;
  /** What direct I/O must keep to; 512 each where O_DIRECT is impossible and nothing needs to be kept. */
  readonly transfer: Alignment;
  /** I/O that keeps to `transfer` goes to the device past the page cache. */
  readonly directIsReal: boolean;
  /** Requests that the device's queue holds (queue/nr_requests); undefined where there is no such number. */
  readonly queueRequests: number | undefined;
  /** FIEMAP's addresses are bytes of `geometry.device`. */
  readonly extentsAreOnDevice: boolean;
  /** Bytes of `geometry.device`, 0 where it is not known. */
  readonly deviceSize: number;
}

const PAGE = 4096;
const MEBIBYTE = 1 << 20;
const SECTOR = 512;
/** The most that the page cache keeps in one piece: what one entry of a page middle directory maps. */
const FOLIO_MAX = 2 * MEBIBYTE;

/** Where the device says nothing. */
const UNKNOWN_SECTOR_SIZE = 4096;
const UNKNOWN_TRANSFER_SIZE = MEBIBYTE;
const TRANSFER_SIZE_MAX = 4 * MEBIBYTE;
/** A stripe that does not fit so often into this is no unit of I/O. */
const OPTIMAL_IO_CAP = 64 * MEBIBYTE;

const TYPE_MASK = 0o170000;
const REGULAR = 0o100000;
const BLOCK_DEVICE = 0o060000;
const DIRECTORY = 0o040000;

const EISDIR = 21;

/**
 * What the kernel says about an open regular file or block device. `direct` says that the descriptor has O_DIRECT set and is meant to be used so.
 *
 * @throws a system error (`EBADF`) for a bad descriptor, `EISDIR` for a directory
 * @throws SectorwiseError `ERR_SECTORWISE_FILE_TYPE` for a pipe, socket or character device
 */
export function readGeometry(fd: number, options: { direct: boolean }): GeometryFacts {
  const { probe, devices, direct } = ask(fd, options.direct);
  const facts = geometryFrom(probe, devices, direct, options.direct);
  return { ...facts, trustMincore: mincoreTellsTruth(fd, facts.size) };
}

/**
 * What O_DIRECT does on the file behind `fd`. `opened` says that the descriptor has O_DIRECT set: only then can a file system that does not report be
 * tried, which costs a short read or two.
 *
 * @throws as `readGeometry` does
 */
export function directSupport(fd: number, opened: boolean): DirectSupport {
  return ask(fd, opened).direct;
}

function ask(fd: number, opened: boolean): { probe: NativeProbe; devices: BlockDevice[]; direct: DirectSupport } {
  const binding = native();
  const probe = binding.probe(fd);
  if (probe.mode < 0) throw systemError(probe.mode, 'fstat');
  const type = probe.mode & TYPE_MASK;
  if (type === DIRECTORY) throw systemError(-EISDIR, 'open');
  if (type !== REGULAR && type !== BLOCK_DEVICE) {
    throw new SectorwiseError(
      'ERR_SECTORWISE_FILE_TYPE',
      'Only regular files and block devices can be opened; this is neither. Copy its bytes into a file first.',
    );
  }
  const isDevice = type === BLOCK_DEVICE;
  const devices = devicesUnder(probe, isDevice);
  const tryRead = opened ? (length: number) => binding.probeDirect(fd, length, length) : undefined;
  return { probe, devices, direct: judgeDirect(probe, isDevice, limitsOf(devices), tryRead) };
}

/** The block devices that the bytes of the file lie on, none where none can be named. */
function devicesUnder(probe: NativeProbe, isDevice: boolean): BlockDevice[] {
  if (probe.fsid !== '' && !isDevice) return btrfsDevices(probe.fsid);
  if (probe.realtime) return [];
  const numbers = isDevice ? probe.rdev : probe.dev;
  // Major 0 is the kernel's sign for a file system without a device of its own.
  if (numbers.startsWith('0:')) return [];
  const device = blockDevice(numbers);
  return device === undefined ? [] : [device];
}

/** One set of limits that suits all of them: the largest units, the smallest capacities. */
function limitsOf(devices: readonly BlockDevice[]): QueueLimits | undefined {
  if (devices.length < 2) return devices[0]?.limits;
  const pick = (choose: (...values: number[]) => number, name: Exclude<keyof QueueLimits, 'rotational'>): number | undefined => {
    const values = devices.map((device) => device.limits[name]).filter((value) => value !== undefined);
    return values.length === 0 ? undefined : choose(...values);
  };
  return {
    logicalBlockSize: pick(Math.max, 'logicalBlockSize'),
    physicalBlockSize: pick(Math.max, 'physicalBlockSize'),
    minimumIoSize: pick(Math.max, 'minimumIoSize'),
    // One member's stripe is not the file system's.
    optimalIoSize: 0,
    maxBytes: pick(Math.min, 'maxBytes'),
    maxHardwareBytes: pick(Math.min, 'maxHardwareBytes'),
    maxSegments: pick(Math.min, 'maxSegments'),
    maxSegmentSize: pick(Math.min, 'maxSegmentSize'),
    requests: pick(Math.min, 'requests'),
    dmaAlignmentMask: pick(Math.max, 'dmaAlignmentMask'),
    rotational: devices.some((device) => device.limits.rotational === true),
  };
}

/** The judgement alone, from what was read: `readGeometry` without the kernel. */
export function geometryFrom(
  probe: NativeProbe,
  devices: readonly BlockDevice[],
  direct: DirectSupport,
  directWanted: boolean,
): Omit<GeometryFacts, 'trustMincore'> {
  const isDevice = (probe.mode & TYPE_MASK) === BLOCK_DEVICE;
  const device = devices.length === 1 ? devices[0] : undefined;
  const limits = limitsOf(devices);
  const numbers = isDevice ? probe.rdev : probe.dev;
  const fsName = isDevice ? 'block device' : fileSystemName(probe.fsType);

  const logical = positive(limits?.logicalBlockSize) ?? positive(probe.logical) ?? UNKNOWN_SECTOR_SIZE;
  const physical = Math.max(logical, positive(limits?.physicalBlockSize) ?? positive(probe.physical) ?? UNKNOWN_SECTOR_SIZE);
  const minimum = positive(limits?.minimumIoSize) ?? positive(probe.ioMin) ?? physical;
  const optimal = limits?.optimalIoSize ?? positive(probe.ioOpt) ?? 0;
  const maxBytes = positive(limits?.maxBytes) ?? (probe.maxSectors > 0 ? probe.maxSectors * SECTOR : undefined);
  // Only the ioctl's -1 is an answer; other negative ones are its refusals (a file refuses with ENOTTY).
  const alignmentOffset = device?.alignmentOffset ?? (isDevice && probe.alignOff >= -1 ? probe.alignOff : 0);

  const geometry: Geometry = {
    kind: isDevice ? 'block-device' : 'file',
    device: device?.name,
    logicalSectorSize: logical,
    physicalSectorSize: physical,
    memoryAlignment: direct.alignment.memory,
    readAlignment: direct.alignment.read,
    writeAlignment: direct.alignment.write,
    minimumIoSize: minimum,
    optimalIoSize: usableOptimalIoSize(optimal, minimum, physical, logical),
    alignmentOffset,
    maxTransferSize: transferSize(maxBytes, limits?.maxSegments),
    rotational: limits?.rotational ?? probe.rotational === 1,
    diskSequence: probe.diskSeq >= 0 ? probe.diskSeq : device?.diskSequence,
  };
  const features: Feature[] = [
    {
      name: 'O_DIRECT',
      used: directWanted && direct.real,
      reason: directWanted ? direct.reason : 'not asked for: page-cache mode reads through the page cache',
    },
    {
      name: 'device limits',
      used: limits !== undefined,
      reason: limitsReason(fsName, devices),
    },
  ];
  if (optimal > 0 && geometry.optimalIoSize === 0) {
    features.push({ name: 'optimal I/O size', used: false, reason: `the device reports ${optimal}, which is no real I/O size` });
  }

  return {
    geometry,
    features,
    isDevice,
    size: isDevice ? Math.max(0, probe.deviceSize) : probe.size,
    deviceNumbers: numbers,
    inodeKey: isDevice ? `device ${probe.rdev}` : `inode ${probe.dev} ${probe.ino}`,
    readOnlyDevice: probe.readOnly === 1 || (device?.readOnly ?? false),
    fsName,
    isServed: !isDevice && isServed(probe.fsType),
    transfer: direct.alignment.write === 0 ? { memory: SECTOR, read: SECTOR, write: SECTOR } : direct.alignment,
    directIsReal: direct.real,
    queueRequests: positive(limits?.requests),
    // What FIEMAP calls physical is an address of the file system's own on btrfs.
    extentsAreOnDevice: isDevice || (device !== undefined && probe.fsid === ''),
    deviceSize: device?.sizeBytes ?? (isDevice ? Math.max(0, probe.deviceSize) : 0),
  };
}

function limitsReason(fsName: string, devices: readonly BlockDevice[]): string {
  if (devices.length === 0) return `${fsName}: no block device can be named; sectors of ${UNKNOWN_SECTOR_SIZE} bytes and transfers of 1 MiB are assumed`;
  const names = devices.map((device) => (device.disk === device.name ? device.name : `${device.name} on ${device.disk}`));
  return names.length === 1 ? `of ${names[0]}` : `the strictest of ${names.join(', ')}`;
}

/**
 * The reported optimal I/O size if it is a real one, else 0. Many devices report placeholders: 0xFFFF sectors (USB bridges), 32767 sectors, a
 * saturated 32-bit multiple. Real is what is a multiple of the smaller units and of a page, is no block count of all ones, and has a
 * common multiple with 1 MiB that still fits into 64 MiB.
 */
export function usableOptimalIoSize(optimal: number, minimum: number, physical: number, logical: number): number {
  if (optimal <= 0 || optimal >= 2 ** 32 - 65536) return 0;
  if (optimal % Math.max(physical, minimum, PAGE) !== 0) return 0;
  const blocks = Math.floor(optimal / logical);
  if (blocks >= 0x7fff && (blocks & (blocks + 1)) === 0) return 0;
  return (optimal / commonDivisor(optimal, MEBIBYTE)) * MEBIBYTE <= OPTIMAL_IO_CAP ? optimal : 0;
}

function commonDivisor(a: number, b: number): number {
  return b === 0 ? a : commonDivisor(b, a % b);
}

function transferSize(maxBytes: number | undefined, maxSegments: number | undefined): number {
  const scattered = maxSegments !== undefined && maxSegments > 0 ? maxSegments * PAGE : Number.POSITIVE_INFINITY;
  const limit = Math.min(maxBytes ?? UNKNOWN_TRANSFER_SIZE, scattered, TRANSFER_SIZE_MAX);
  return Math.max(PAGE, limit - (limit % PAGE));
}

/**
 * mincore's can_do_mincore() lets the inode's owner, CAP_FOWNER and who may write to it see; to others every page is resident, also one beyond the end of the file,
 * which nothing can have brought into memory. That one is asked about: user ids alone know nothing of access lists, capabilities and user namespaces.
 */
function mincoreTellsTruth(fd: number, size: number): boolean {
  // The last folio may reach beyond the end, but not beyond its 2 MiB.
  const beyond = (Math.ceil(size / FOLIO_MAX) + 1) * FOLIO_MAX;
  return native().countResident(fd, beyond, PAGE) === 0;
}

function positive(value: number | undefined): number | undefined {
  return value !== undefined && value > 0 ? value : undefined;
}
