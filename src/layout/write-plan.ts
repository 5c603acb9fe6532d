/**
 * Writes a plan's partition table into an image file or onto an empty device.
 *
 *   wipe (only with force)   sync     what was there is gone before anything new counts
 *   backup entries, header   sync     from here on the table can be recovered
 *   PMBR, primary entries    sync
 *   primary header           sync     from here on it is read as it is
 *   read back, compared               by direct reads where the file system can do them, so that it is the medium that answers
 *
 * Guarantees: `dryRun` is the default and changes nothing. What holds a table or a known file system, is mounted or otherwise in use, has another size or other sectors than the plan, is
 * refused before the first write; `force` lifts only the first of these. A stop at any point, whatever of the unsynced writes reached the medium, leaves no table or a whole one (the
 * primary, or a backup that tools recover from), never half of one that reads as good.
 * Leaves to others: telling the kernel (`partprobe`), the file systems (`mkfs.ts`).
 */
import {
  closeSync,
  constants,
  existsSync,
  fstatSync,
  fsyncSync,
  ftruncateSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  realpathSync,
  rmSync,
  statSync,
  writeSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { invalidType, outOfRange, SectorwiseError, systemError } from '../errors.js';
import { blockDevice } from '../geometry/sysfs.js';
import { checkNames } from '../option-names.js';
import { gptRegions, type PlanRegion } from './gpt-writer.js';
import type { ImageSource } from './model.js';
import { occupantOf } from './occupant.js';
import type { Plan } from './plan.js';

const MEBIBYTE = 1n << 20n;
/** Of zeros that are written at once. */
const WIPE_BYTES = 64 * 1024;
/** Direct reads: a multiple of every sector size in offset, length and address. */
const DIRECT_UNIT = 4096;
const EBUSY = -16;
const EIO = -5;

/** How a plan is written. */
export interface WriteOptions {
  /** Only say what would be done. Default true. */
  dryRun?: boolean;
  /** Write over a table or file system that is there; its remains at the disk's start and end are wiped first. Default false. */
  force?: boolean;
  /** The target's logical sector size, where sysfs does not tell (image files): it must be the plan's. */
  sectorSize?: number;
}

/** A range that is written. Bytes. */
export interface WrittenRange {
  /** Which part of the table it is, or a wipe before it. */
  name: PlanRegion['name'] | 'wipe';
  /** First byte. */
  offset: bigint;
  /** In bytes. */
  length: bigint;
}

/** What `writePlan` did, or with `dryRun` would do. */
export interface WriteReport {
  /** As it was given. */
  path: string;
  /** Nothing was written. */
  dryRun: boolean;
  /** A block device, not an image file. */
  isDevice: boolean;
  /** The image file did not exist, or was empty, and was made sparse at its full size. */
  created: boolean;
  /** What was there before and is written over with `force`; undefined where there was nothing. */
  replaced?: string;
  /** In the order of writing. */
  ranges: WrittenRange[];
  /** How it was read back; undefined with `dryRun`. */
  verified?: 'direct' | 'page-cache';
  /** What is left to do, in words: `partprobe` for a device. */
  next: string[];
}

/** Where a table is written: a file, a device, or in tests something that fails on purpose. */
export interface PlanTarget extends ImageSource {
  write(offset: bigint, bytes: Uint8Array): void;
  /** All that was written before is on stable storage when it returns. */
  sync(): void;
}

/**
 * Writes the plan's table to `path`: an image file, made if it is missing, or a block device that nobody uses.
 *
 * @throws ERR_SECTORWISE_OCCUPIED if something is there (without `force`), or it is in use; ERR_SECTORWISE_MISMATCH if its size or sectors are not the plan's;
 *   ERR_SECTORWISE_FILE_TYPE; ERR_SECTORWISE_VERIFY if it reads back as something else; ERR_OUT_OF_RANGE for a plan of more than 2^53 bytes; system errors
 */
export function writePlan(plan: Plan, path: string, options: WriteOptions = {}): WriteReport {
  const { dryRun = true, force = false, sectorSize } = checkNames('options', options, ['dryRun', 'force', 'sectorSize']) as WriteOptions;
  if (typeof path !== 'string' || path === '') throw invalidType('path', 'a non-empty string', path);
  for (const [name, value] of Object.entries({ dryRun, force })) if (typeof value !== 'boolean') throw invalidType(`options.${name}`, 'of type boolean', value);
  if (sectorSize !== undefined) checkSectors(plan, path, sectorSize);
  // node:fs takes the place of a write as a number.
  if (plan.size > BigInt(Number.MAX_SAFE_INTEGER)) throw outOfRange('plan.size', `<= ${Number.MAX_SAFE_INTEGER} to be written`, plan.size);
  const missing = !existsSync(path);
  const report: WriteReport = { path, dryRun, isDevice: false, created: missing, ranges: [], next: [] };
  if (missing && dryRun) return { ...report, ranges: ranges(gptRegions(plan), []) };

  const fd = openTarget(path, missing, dryRun);
  try {
    const target = inspect(fd, path, plan, report);
    const occupant = report.created ? undefined : occupantOf(target);
    if (occupant !== undefined && !force) {
      throw new SectorwiseError(
        'ERR_SECTORWISE_OCCUPIED',
        `'${path}' holds ${occupant.what}. Nothing was written; give force (--force) to write over it, and lose it.`,
        { path },
      );
    }
    if (occupant !== undefined) report.replaced = occupant.what;
    const wipes = occupant === undefined ? [] : wipeRanges(plan, occupant.remains);
    report.ranges = ranges(gptRegions(plan), wipes);
    if (report.isDevice) report.next.push(`partprobe ${path}   # the kernel learns of the partitions`);
    if (dryRun) return report;
    if (report.created) ftruncateSync(fd, Number(plan.size));
    writeTable(target, plan, wipes);
    if (missing) syncFolder(path);
    report.verified = verify(path, plan, target);
    return report;
  } catch (error) {
    if (missing) rmSync(path, { force: true });
    throw error;
  } finally {
    closeSync(fd);
  }
}

/** The writes and syncs in their order, on any target. `wipes` are ranges of zeros to begin with. */
export function writeTable(target: PlanTarget, plan: Plan, wipes: readonly { offset: bigint; length: bigint }[] = []): void {
  for (const { offset, length } of wipes) {
    for (let done = 0n; done < length; done += BigInt(WIPE_BYTES)) {
      const piece = length - done < BigInt(WIPE_BYTES) ? Number(length - done) : WIPE_BYTES;
      target.write(offset + done, new Uint8Array(piece));
    }
  }
  if (wipes.length > 0) target.sync();
  for (const { name, offset, bytes } of gptRegions(plan)) {
    target.write(offset, bytes);
    // The header of each copy last, and the other copy not begun before it is there.
    if (name === 'backup-header' || name === 'primary-entries' || name === 'primary-header') target.sync();
  }
}

/**
 * What else tools would recognise of the old layout: everything before the first new partition and behind the last, up to 1 MiB, and copies of the old table that lie elsewhere. The
 * partitions' own ranges are left to mkfs.
 */
export function wipeRanges(plan: Plan, remains: readonly { offset: bigint; length: bigint }[] = []): { offset: bigint; length: bigint }[] {
  const first = plan.partitions.reduce((least, { start }) => (start < least ? start : least), plan.size);
  const last = plan.partitions.reduce((most, { start, size }) => (start + size > most ? start + size : most), 0n);
  const head = first < MEBIBYTE ? first : MEBIBYTE;
  const tail = plan.size - last < MEBIBYTE ? last : plan.size - MEBIBYTE;
  const inside = remains.filter(({ offset, length }) => offset >= 0n && offset + length <= plan.size);
  return [{ offset: 0n, length: head }, { offset: tail, length: plan.size - tail }, ...inside];
}

function ranges(regions: PlanRegion[], wipes: { offset: bigint; length: bigint }[]): WrittenRange[] {
  return [
    ...wipes.map((wipe) => ({ name: 'wipe' as const, ...wipe })),
    ...regions.map(({ name, offset, bytes }) => ({ name, offset, length: BigInt(bytes.length) })),
  ];
}

function openTarget(path: string, missing: boolean, dryRun: boolean): number {
  if (missing) return openSync(path, constants.O_RDWR | constants.O_CREAT | constants.O_EXCL, 0o666);
  const access = dryRun ? constants.O_RDONLY : constants.O_RDWR;
  const kind = statSync(path);
  if (!kind.isFile() && !kind.isBlockDevice()) {
    throw new SectorwiseError('ERR_SECTORWISE_FILE_TYPE', `'${path}' is neither a regular file nor a block device. Name one of these.`, { path });
  }
  try {
    // Of a block device O_EXCL is a claim: it fails while the device or a partition of it is mounted, swapped to, or part of an array (open(2)). Of a file it means nothing here.
    return openSync(path, access | (kind.isBlockDevice() ? constants.O_EXCL : 0));
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EBUSY') throw error;
    const cause = systemError(EBUSY, 'open', { path });
    throw new SectorwiseError(
      'ERR_SECTORWISE_OCCUPIED',
      `'${path}' is in use: it, or a partition of it, is mounted or belongs to another device. Unmount or stop that first; force does not lift this.`,
      { path, cause },
    );
  }
}

/** Its kind, size and sectors against the plan's. */
function inspect(fd: number, path: string, plan: Plan, report: WriteReport): PlanTarget {
  const stat = fstatSync(fd, { bigint: true });
  let size = stat.size;
  if (stat.isBlockDevice()) {
    report.isDevice = true;
    const device = blockDevice(deviceNumbers(stat.rdev));
    if (device === undefined)
      throw new SectorwiseError(
        'ERR_SECTORWISE_MISMATCH',
        `sysfs does not know '${path}', so neither its size nor its sectors can be compared with the plan's. Mount /sys.`,
        { path },
      );
    if (device.partition !== undefined)
      throw new SectorwiseError(
        'ERR_SECTORWISE_MISMATCH',
        `'${path}' is a partition of ${device.disk}, and a table belongs on the whole disk. Name /dev/${device.disk}.`,
        { path },
      );
    size = BigInt(device.sizeBytes);
    const { logicalBlockSize } = device.limits;
    if (logicalBlockSize !== undefined) checkSectors(plan, path, logicalBlockSize);
  } else {
    refuseAttached(path);
    // An empty file is as good as none.
    if (size === 0n) report.created = true;
    if (report.created) size = plan.size;
  }
  if (size !== plan.size) {
    throw new SectorwiseError(
      'ERR_SECTORWISE_MISMATCH',
      `'${path}' has ${size} bytes, and the plan is for ${plan.size}. Plan again with size=${size}, or choose another target.`,
      { path },
    );
  }
  return {
    size,
    read(offset, length) {
      const bytes = new Uint8Array(length);
      return bytes.subarray(0, readFull(fd, bytes, offset));
    },
    write(offset, bytes) {
      for (let done = 0; done < bytes.length; ) {
        const wrote = writeSync(fd, bytes, done, bytes.length - done, Number(offset) + done);
        if (wrote <= 0) throw systemError(EIO, 'pwrite', { path, offset: Number(offset), length: bytes.length });
        done += wrote;
      }
    },
    sync: () => fsyncSync(fd),
  };
}

function checkSectors(plan: Plan, path: string, sectorSize: number): void {
  if (sectorSize === plan.sectorSize) return;
  throw new SectorwiseError(
    'ERR_SECTORWISE_MISMATCH',
    `'${path}' has sectors of ${sectorSize} bytes, and the plan is for ${plan.sectorSize}: every number in its table would be read as another place. Plan again with sectorSize=${sectorSize}.`,
    { path },
  );
}

/** A file under a loop device may be mounted there, and the kernel keeps pages of it of its own. */
function refuseAttached(path: string): void {
  let devices: string[];
  try {
    devices = readdirSync('/sys/block').filter((name) => name.startsWith('loop'));
  } catch {
    return;
  }
  const real = realpathSync(path);
  for (const name of devices) {
    let backing: string;
    try {
      backing = readFileSync(join('/sys/block', name, 'loop/backing_file'), 'utf8').trimEnd();
    } catch {
      continue;
    }
    if (backing === real)
      throw new SectorwiseError(
        'ERR_SECTORWISE_OCCUPIED',
        `'${path}' is attached as /dev/${name}. Write to that device, or detach it first (losetup -d /dev/${name}); force does not lift this.`,
        { path },
      );
  }
}

/** As glibc takes them apart (gnu_dev_major, gnu_dev_minor). */
function deviceNumbers(rdev: bigint): string {
  const major = ((rdev >> 8n) & 0xfffn) | ((rdev >> 32n) & 0xffff_f000n);
  const minor = (rdev & 0xffn) | ((rdev >> 12n) & 0xffff_ff00n);
  return `${major}:${minor}`;
}

function syncFolder(path: string): void {
  const folder = openSync(dirname(path), constants.O_RDONLY | constants.O_DIRECTORY);
  try {
    fsyncSync(folder);
  } finally {
    closeSync(folder);
  }
}

function readFull(fd: number, into: Uint8Array, offset: bigint): number {
  let done = 0;
  while (done < into.length) {
    const read = readSync(fd, into, done, into.length - done, offset + BigInt(done));
    if (read === 0) break;
    done += read;
  }
  return done;
}

/** By direct reads where they can be had: otherwise it is the page cache that answers, which only shows that the right places were written. */
function verify(path: string, plan: Plan, target: PlanTarget): 'direct' | 'page-cache' {
  const direct = directReader(path);
  try {
    verifyTable(plan, direct ?? target, path);
    return direct === undefined ? 'page-cache' : 'direct';
  } finally {
    direct?.close();
  }
}

/** Compares each region with what `source` has now; ERR_SECTORWISE_VERIFY names the first byte that differs. */
export function verifyTable(plan: Plan, source: Pick<ImageSource, 'read'>, path: string): void {
  for (const { name, offset, bytes } of gptRegions(plan)) {
    const found = source.read(offset, bytes.length);
    const differs = bytes.findIndex((byte, index) => found[index] !== byte);
    if (differs === -1) continue;
    throw new SectorwiseError(
      'ERR_SECTORWISE_VERIFY',
      `'${path}' reads back as something else than was written: ${name}, first at byte ${offset + BigInt(differs)}. The medium or what lies between is at fault; do not use it.`,
      { path, offset: Number(offset), length: bytes.length },
    );
  }
}

interface DirectReader {
  read(offset: bigint, length: number): Uint8Array;
  close(): void;
}

/** Undefined where the file system takes no direct reads (tmpfs before Linux 6.6, some FUSE). */
function directReader(path: string): DirectReader | undefined {
  const buffer = alignedBuffer();
  let fd: number;
  try {
    fd = openSync(path, constants.O_RDONLY | constants.O_DIRECT);
  } catch {
    return undefined;
  }
  const unit = BigInt(DIRECT_UNIT);
  const read = (offset: bigint, length: number) => {
    const from = offset - (offset % unit);
    const head = Number(offset - from);
    const whole = Math.ceil((head + length) / DIRECT_UNIT) * DIRECT_UNIT;
    return buffer.slice(0, readDirect(fd, buffer.subarray(0, whole), from)).subarray(head, head + length);
  };
  try {
    read(0n, DIRECT_UNIT);
  } catch {
    closeSync(fd);
    return undefined;
  }
  return { read, close: () => closeSync(fd) };
}

/** One call: after a short direct read, at the file's end, the next offset would be no multiple of anything. */
function readDirect(fd: number, into: Uint8Array, offset: bigint): number {
  return readSync(fd, into, 0, into.length, offset);
}

/** 64 KiB at an address that is a multiple of a page: V8 promises none for a Buffer, but maps a WebAssembly memory as whole pages. */
function alignedBuffer(): Uint8Array {
  const { WebAssembly } = globalThis as unknown as { WebAssembly: { Memory: new (limits: { initial: number }) => { buffer: ArrayBuffer } } };
  return new Uint8Array(new WebAssembly.Memory({ initial: 1 }).buffer);
}
