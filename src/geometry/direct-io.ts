/**
 * Whether O_DIRECT on a file is what it says, and which alignments keep it so.
 *
 * That open(2) took the flag proves nothing: tmpfs takes it and fills the page cache, btrfs takes it and silently buffers what is misaligned, a FUSE
 * server may do anything. So the answer comes, in this order, from what the kernel reports (statx STATX_DIOALIGN, Linux 6.1), from what the file
 * system is known to do, and from what it does when a misaligned read is tried: one that really goes to the device refuses it.
 *
 * Guarantees: alignments that keep direct I/O direct are at least those that the kernel asks for; a doubt is told, never hidden.
 * Leaves to others: asking the kernel (`geometry.ts`), the limits of the device (`sysfs.ts`).
 */
import type { NativeProbe } from '../io/native.js';
import type { QueueLimits } from './sysfs.js';

/** Bytes; 0 where O_DIRECT is impossible. */
export interface Alignment {
  memory: number;
  read: number;
  write: number;
}

/** What O_DIRECT does on a file. */
export interface DirectSupport {
  /** I/O that keeps to `alignment` goes to the device past the page cache, as far as can be known. */
  real: boolean;
  /** In words, for `explain()`. */
  reason: string;
  alignment: Alignment;
}

/** What is taken where nothing is known: the smallest unit that every device in use accepts. */
const UNKNOWN_ALIGNMENT = 4096;
/** Aligned to less than any sector: what goes to a device must refuse it. */
const MISALIGNED = 256;

/** statfs f_type (linux/magic.h and the file systems' own headers). */
const NAMES = new Map<number, string>([
  [0xef53, 'ext4'],
  [0x58465342, 'xfs'],
  [0x9123683e, 'btrfs'],
  [0x01021994, 'tmpfs'],
  [0x858458f6, 'ramfs'],
  [0x958458f6, 'hugetlbfs'],
  [0x794c7630, 'overlay'],
  [0x65735546, 'fuse'],
  [0x6969, 'nfs'],
  [0xff534d42, 'cifs'],
  [0xfe534d42, 'smb2'],
  [0x01021997, '9p'],
  [0x00c36400, 'ceph'],
  [0xf2f52010, 'f2fs'],
  [0xca451a4e, 'bcachefs'],
  [0x2fc12fc1, 'zfs'],
  [0x4d44, 'vfat'],
  [0x2011bab0, 'exfat'],
  [0x7366746e, 'ntfs3'],
  [0x73717368, 'squashfs'],
  [0xe0f5e1e2, 'erofs'],
  [0x3434, 'nilfs2'],
  [0x3153464a, 'jfs'],
]);

/** Their files are the page cache: there is no device to go to. */
const IN_MEMORY = new Set(['tmpfs', 'ramfs', 'hugetlbfs']);
/** Somebody else reads and writes for us, and how cannot be seen from here. */
const SERVED = new Set(['fuse', 'nfs', 'cifs', 'smb2', '9p', 'ceph']);

/** The file system's name for people; its number where it has none here. */
export function fileSystemName(fsType: number): string {
  return NAMES.get(fsType) ?? `0x${fsType.toString(16)}`;
}

/** A FUSE or network file system: every question goes to somebody who may not answer. */
export function isServed(fsType: number): boolean {
  return SERVED.has(fileSystemName(fsType));
}

/**
 * The judgement. `limits` are those of the device under the file, undefined where none can be named. `tryRead` reads `length` bytes at a position
 * and into memory aligned to `length` and to no more; it answers with bytes or -errno.
 */
export function judgeDirect(
  probe: NativeProbe,
  isDevice: boolean,
  limits: QueueLimits | undefined,
  tryRead: ((length: number) => number) | undefined,
): DirectSupport {
  const impossible = (reason: string): DirectSupport => ({ real: false, reason, alignment: { memory: 0, read: 0, write: 0 } });
  const every = (real: boolean, alignment: number, reason: string): DirectSupport => ({
    real,
    reason,
    alignment: { memory: alignment, read: alignment, write: alignment },
  });

  if (probe.dioReported) {
    const { dioMemAlign: memory, dioOffsetAlign: write } = probe;
    if (write === 0) return impossible('the kernel reports that this file cannot do direct I/O: the page cache would be used');
    const read = probe.dioReadReported && probe.dioReadOffsetAlign > 0 ? probe.dioReadOffsetAlign : write;
    return {
      real: true,
      reason: `reported by the kernel (statx DIOALIGN): memory ${memory}, reads ${read}, writes ${write} bytes`,
      alignment: { memory, read, write },
    };
  }

  const logical = limits?.logicalBlockSize ?? (probe.logical > 0 ? probe.logical : UNKNOWN_ALIGNMENT);
  if (isDevice) return every(true, Math.max(logical, dmaAlignment(limits)), `a block device; alignment from its sector size, ${logical} bytes`);

  const name = fileSystemName(probe.fsType);
  if (IN_MEMORY.has(name)) return impossible(`${name} takes the flag, but its files are the page cache: there is no device to go to`);
  if (SERVED.has(name)) {
    return every(
      false,
      UNKNOWN_ALIGNMENT,
      `${name} takes the flag, and what whoever serves it does with it cannot be seen from here; aligned to ${UNKNOWN_ALIGNMENT}`,
    );
  }
  if (name === 'btrfs') {
    // btrfs compares position, length and address with its own sector size, whatever the device's, and buffers what does not fit instead of refusing it.
    const sector = Math.max(probe.fsBlockSize, logical);
    return every(
      true,
      sector,
      `btrfs silently buffers what is not aligned to its sector size, so everything is aligned to ${sector}; compressed files, and on some kernels writes of checksummed ones, still pass through the page cache`,
    );
  }

  const alignment = Math.max(logical, dmaAlignment(limits));
  if (tryRead === undefined) {
    return limits === undefined
      ? every(false, UNKNOWN_ALIGNMENT, `${name} does not report its direct I/O, and no block device under it can be named`)
      : every(true, alignment, `${name} does not report its direct I/O; alignment from the device's sector size, ${logical} bytes`);
  }
  const misaligned = tryRead(MISALIGNED);
  if (misaligned !== -EINVAL) {
    return every(false, alignment, `${name} took a misaligned read under O_DIRECT, so it may go through the page cache; aligned to ${alignment}`);
  }
  for (let size = alignment; size <= UNKNOWN_ALIGNMENT; size *= 2) {
    if (tryRead(size) !== -EINVAL) return every(true, size, `${name} refuses a misaligned direct read and takes one aligned to ${size}`);
  }
  return impossible(`${name} refuses direct reads, also those aligned to ${UNKNOWN_ALIGNMENT}`);
}

const EINVAL = 22;

function dmaAlignment(limits: QueueLimits | undefined): number {
  return (limits?.dmaAlignmentMask ?? 0) + 1;
}
