/**
 * What a disk with a volatile cache holds after its power failed.
 *
 * Killing QEMU loses nothing that the guest handed to its disk: the host's page cache has it. So QEMU logs every operation of the disk (driver blklogwrites, in the format of the kernel's dm-log-writes), and
 * the disk as it would be is made from the log:
 *
 *   | … writes … | FLUSH | … writes … | FLUSH | writes after the last flush |
 *   └──────────── all of them are there ─────┘ └ each is there, or is not, or is torn between two sectors ┘
 *
 * A write with FUA is there whatever follows. A flush is logged when it ends, so a write that ended while it was under way counts as flushed although the disk did not have to: real disks lose at least what
 * is lost here, up to those.
 *
 * Format (Linux Documentation/admin-guide/device-mapper/log-writes.rst): sector 0 is the super block; then for each operation an entry {u64 sector, u64 sectors, u64 flags, u64 bytes of inline data}, filled up
 * to a sector, and its data. Sectors are of the log's own size.
 */
import { closeSync, openSync, readSync, writeSync } from 'node:fs';

const MAGIC = 0x6a736677736872n;
const FLUSH = 1;
const FUA = 2;
const DISCARD = 4;
const MARK = 8;
/** Sector size of the log, as the machine is told. */
export const LOG_SECTOR_BYTES = 512;

export interface LoggedWrite {
  /** Place on the disk, in bytes. */
  offset: number;
  length: number;
  /** Place of the data in the log, in bytes; undefined for an operation without data. */
  data: number | undefined;
  flush: boolean;
  fua: boolean;
}

/** So much behind the last entry is looked at for entries that came after a hole. */
const HOLE_BYTES = 8 << 20;

/**
 * Operations of a log, in the order in which they ended. The super block's count is behind after a power cut, so the entries themselves say where the log ends. An operation that was being logged when QEMU was killed can
 * leave a hole; then what follows cannot be found, and the log is refused.
 */
export function readLog(read: (target: Buffer, position: number) => number): LoggedWrite[] {
  const sector = Buffer.alloc(LOG_SECTOR_BYTES);
  if (read(sector, 0) < LOG_SECTOR_BYTES || sector.readBigUInt64LE(0) !== MAGIC) throw new Error('no log of a disk: the super block is missing');
  const operations: LoggedWrite[] = [];
  let place = LOG_SECTOR_BYTES;
  while (read(sector, place) === LOG_SECTOR_BYTES) {
    const start = Number(sector.readBigUInt64LE(0));
    const sectors = Number(sector.readBigUInt64LE(8));
    const flags = Number(sector.readBigUInt64LE(16));
    const inline = Number(sector.readBigUInt64LE(24));
    // Entries are never empty; zeros are what the log has not been written to yet.
    if (sectors === 0 && flags === 0) break;
    place += LOG_SECTOR_BYTES;
    const hasData = (flags & (DISCARD | MARK)) === 0 && sectors > 0;
    operations.push({
      offset: start * LOG_SECTOR_BYTES,
      length: sectors * LOG_SECTOR_BYTES,
      data: hasData ? place : undefined,
      flush: (flags & FLUSH) !== 0,
      fua: (flags & FUA) !== 0,
    });
    if (hasData) place += sectors * LOG_SECTOR_BYTES;
    place += Math.ceil(inline / LOG_SECTOR_BYTES) * LOG_SECTOR_BYTES;
  }
  const behind = Buffer.alloc(HOLE_BYTES);
  if (behind.subarray(0, read(behind, place)).some((byte) => byte !== 0)) throw new Error('the log of the disk has a hole');
  return operations;
}

export interface Survival {
  /** Writes before the last flush, or forced. */
  kept: number;
  /** Writes after it: how many are there, lost, or torn. */
  lucky: number;
  lost: number;
  torn: number;
}

/** Decides for each operation how many of its sectors are on the disk, from the front or from the back. */
export function survivors(operations: readonly LoggedWrite[], chance: () => number): Array<{ operation: LoggedWrite; from: number; to: number }> {
  const lastFlush = operations.findLastIndex(({ flush }) => flush);
  const written: Array<{ operation: LoggedWrite; from: number; to: number }> = [];
  for (const [index, operation] of operations.entries()) {
    if (operation.data === undefined) continue;
    const whole = { operation, from: 0, to: operation.length };
    if (index <= lastFlush || operation.fua) {
      written.push(whole);
      continue;
    }
    const fate = chance();
    if (fate < 0.45) continue;
    const sectors = operation.length / LOG_SECTOR_BYTES;
    if (fate < 0.7 && sectors > 1) {
      const cut = (1 + Math.floor(chance() * (sectors - 1))) * LOG_SECTOR_BYTES;
      written.push(chance() < 0.5 ? { operation, from: 0, to: cut } : { operation, from: cut, to: operation.length });
    } else {
      written.push(whole);
    }
  }
  return written;
}

/** Brings `image`, the disk as it was when the machine was switched on, to what is on it after the cut. */
export function applyCut(image: string, log: string, chance: () => number): Survival {
  const logFd = openSync(log, 'r');
  const imageFd = openSync(image, 'r+');
  try {
    const operations = readLog((target, position) => readSync(logFd, target, 0, target.length, position));
    const written = survivors(operations, chance);
    for (const { operation, from, to } of written) {
      const bytes = Buffer.alloc(to - from);
      readSync(logFd, bytes, 0, bytes.length, operation.data! + from);
      writeSync(imageFd, bytes, 0, bytes.length, operation.offset + from);
    }
    const lastFlush = operations.findLastIndex(({ flush }) => flush);
    const writes = operations.filter(({ data }) => data !== undefined);
    const kept = operations.filter(({ data, fua }, index) => data !== undefined && (index <= lastFlush || fua)).length;
    const torn = written.filter(({ operation, from, to }) => to - from < operation.length).length;
    const lucky = written.length - kept - torn;
    return { kept, lucky, torn, lost: writes.length - kept - torn - lucky };
  } finally {
    closeSync(logFd);
    closeSync(imageFd);
  }
}
