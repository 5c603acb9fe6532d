/**
 * The interface of the npm package mmap-io (1.1.7) over guarded mappings: the same functions, arguments, defaults and constants, so that its users change one import.
 *
 * ```js
 * import mmap from 'sectorwise/mmap-io'; // or: const mmap = require('sectorwise/mmap-io')
 *
 * const buffer = mmap.map(size, mmap.PROT_READ, mmap.MAP_SHARED, fd, 0, mmap.MADV_RANDOM);
 * ```
 *
 * What is different, and why, is in the guide "Moving from mmap-io". In short: a touch of bytes that are gone, or a store into a map that is not for writing, does not end the process;
 * sizes and offsets are not cut to 32 bits; it works in worker threads; errors have codes; and there are `unmap` and `check`.
 *
 * @module sectorwise/mmap-io
 * @category API
 */
import { Buffer, constants } from 'node:buffer';
import { isUint8Array } from 'node:util/types';
import { invalidType, invalidValue, outOfRange, SectorwiseError } from '../errors.js';
import { MAP_NONBLOCK, MAP_POPULATE, MAP_PRIVATE, MAP_SHARED, MappedRegion, PROT_READ, PROT_WRITE, pageBytes } from '../memory/region.js';
import { checkBytes, checkEnd } from '../options.js';

export { MAP_NONBLOCK, MAP_POPULATE, MAP_PRIVATE, MAP_SHARED, PROT_READ, PROT_WRITE };

/** Taken, and changes nothing: every map can be read. From asm-generic/mman-common.h, as all of these. */
export const PROT_NONE = 0;
/** Taken, and changes nothing: JavaScript runs no code in a buffer. */
export const PROT_EXEC = 4;
/** The kernel's usual read-ahead around a page that is touched. */
export const MADV_NORMAL = 0;
/** Only the page that is touched is read. */
export const MADV_RANDOM = 1;
/** Much is read ahead. */
export const MADV_SEQUENTIAL = 2;
/** Begins to read the range in. */
export const MADV_WILLNEED = 3;
/** Takes the range out of the page table. Of a map that is not shared for writing, what was stored is gone. */
export const MADV_DONTNEED = 4;
/** Of msync(2): begins to write. mmap-io has no name for it. */
export const MS_ASYNC = 1;
/** Of msync(2): other mappings see it at once, which on Linux they do anyway. mmap-io has no name for it. */
export const MS_INVALIDATE = 2;
/** Of msync(2): writes, and waits until all is on stable storage. mmap-io has no name for it. */
export const MS_SYNC = 4;
/** Bytes of a page: offsets are multiples of it. */
export const PAGESIZE: number = pageBytes();

const PROT_ALL = PROT_READ | PROT_WRITE | PROT_EXEC;
/** MAP_SHARED and MAP_PRIVATE together are MAP_SHARED_VALIDATE. */
const MAP_ALL = MAP_SHARED | MAP_PRIVATE | MAP_POPULATE | MAP_NONBLOCK;
/** From MADV_HWPOISON (100) on it is no advice: memory is made to fail, or touching it ends the process. */
const ADVICE_MAX = 99;

/** By the memory of its buffer. In the thread that mapped it alone: a map is never sent to another. */
const regions = new WeakMap<ArrayBufferLike, MappedRegion>();

/**
 * Maps `size` bytes of a file. The file may be closed afterwards; the map keeps a descriptor of its own, until it is unmapped or collected.
 *
 * With PROT_WRITE and MAP_SHARED what is stored into the buffer is the file's at once, seen by everybody who reads it, and durable after a blocking `sync`. With MAP_PRIVATE, or without
 * PROT_WRITE, it stays in this process. The map may reach past the end of the file: what lies beyond the end's page reads as zeros, and what is stored there is lost.
 *
 * Waits for no device; touching the buffer does, while JavaScript stands still (`window` of `BlockFile` does not).
 *
 * @param size - bytes, at least 1. At most `buffer.constants.MAX_LENGTH`: 4 GiB on Node 20.
 * @param protection - PROT_WRITE, which needs a descriptor that is open for reading and writing, or the others, which need one that is open for reading.
 * @param flags - MAP_SHARED or MAP_PRIVATE; with them MAP_POPULATE reads everything in before it returns. Others are refused.
 * @param fd - of an open file, block device or character device.
 * @param offset - first byte in the file, a multiple of PAGESIZE. Default 0.
 * @param advise - MADV_…, for all of it. Default 0: none.
 * @returns a Buffer of `size` bytes; safe to touch for ever, whatever becomes of the file.
 * @throws EACCES where the descriptor does not allow it; EBADF; EINVAL for a size of 0, an offset that is no multiple of PAGESIZE, or flags that say neither of shared and private; ENODEV where it
 * cannot be mapped; ENOMEM; EMFILE; ERR_OUT_OF_RANGE, ERR_INVALID_ARG_TYPE and ERR_INVALID_ARG_VALUE; ERR_SECTORWISE_UNSUPPORTED for files of huge pages (hugetlbfs), and where the
 * runtime takes no memory but its own (Electron); ERR_SECTORWISE_SIGNAL_BLOCKED where this thread blocks SIGBUS; ERR_SECTORWISE_PAGE_SIZE where PAGESIZE is not 4096; ERR_SECTORWISE_NATIVE where the addon cannot be loaded.
 */
export function map(size: number | bigint, protection: number, flags: number, fd: number, offset?: number | bigint | null, advise?: number | null): Buffer {
  const bytes = checkBytes('size', size);
  if (bytes > constants.MAX_LENGTH) throw outOfRange('size', `<= ${constants.MAX_LENGTH}`, size);
  checkInteger('protection', protection, PROT_ALL);
  checkInteger('flags', flags, 2 ** 31 - 1);
  if ((flags & ~MAP_ALL) !== 0) throw invalidValue('flags', 'may have MAP_SHARED, MAP_PRIVATE, MAP_POPULATE and MAP_NONBLOCK alone', flags);
  checkInteger('fd', fd, 2 ** 31 - 1);
  const start = checkBytes('offset', offset ?? 0);
  checkEnd(start, bytes);
  const advice = checkAdvice(advise ?? MADV_NORMAL);
  const region = new MappedRegion(fd, start, bytes, protection, flags);
  if (advice !== MADV_NORMAL) {
    try {
      region.advise(0, bytes, advice);
    } catch (error) {
      region.close();
      throw error;
    }
  }
  regions.set(region.buffer, region);
  return Buffer.from(region.buffer, 0, bytes);
}

/**
 * Tells the kernel how a map will be used: madvise(2).
 *
 * @param buffer - of `map`, or a part of one.
 * @param advice - MADV_…; numbers that have no constant here go to the kernel as they are, up to 99.
 * @throws EINVAL for an advice that the kernel does not know, or a range that does not begin at a page; ERR_INVALID_ARG_VALUE for a buffer that is no map of this thread;
 * ERR_SECTORWISE_RELEASED after `unmap`.
 */
export function advise(buffer: Uint8Array, advice: number): void;
/**
 * The same for a part.
 *
 * @param offset - first byte within the buffer.
 * @param length - bytes; may reach to the end of the map's last page, ENOMEM beyond.
 */
export function advise(buffer: Uint8Array, offset: number, length: number, advice: number): void;
export function advise(buffer: Uint8Array, ...rest: number[]): void {
  const { region, place } = regionOf(buffer);
  if (rest.length !== 1 && rest.length !== 3) throw invalidValue('arguments', 'of advise() are (buffer, advice) or (buffer, offset, length, advice)', rest);
  const [offset, length] = rest.length === 1 ? [0, buffer.length] : [checkBytes('offset', rest[0]), checkBytes('length', rest[1])];
  region.advise(place + offset, length, checkAdvice(rest[rest.length - 1]));
}

/**
 * How much of a map is in memory: mincore(2). Of a file that this process may neither write to nor owns the kernel says that everything is.
 *
 * @returns pages that are not in memory, and pages that are.
 * @throws as `advise`.
 */
export function incore(buffer: Uint8Array): [unmapped: number, mapped: number] {
  const { region, place } = regionOf(buffer);
  const mapped = region.inCore(place, buffer.length);
  return [Math.ceil(buffer.length / PAGESIZE) - mapped, mapped];
}

/**
 * Writes what was stored into a shared map to its file: msync(2).
 *
 * @param blocking - wait until it is on stable storage (MS_SYNC). Default false (MS_ASYNC): which on Linux does nothing, the kernel writes when it sees fit.
 * @param invalidate - MS_INVALIDATE. Default false.
 * @throws EIO, ENOSPC and others where it could not be written; EINVAL for a range that does not begin at a page; ENOMEM for one that goes beyond the map's last page;
 * ERR_SECTORWISE_TRUNCATED and ERR_SECTORWISE_FAULT where pages of the range had to be replaced, so that what was stored there since then is lost (`check`); as `advise`.
 */
export function sync(buffer: Uint8Array, blocking: boolean, invalidate?: boolean | null): void;
/**
 * The same for a part.
 *
 * @param offset - first byte within the buffer, at a page. Default 0.
 * @param length - bytes. Default, and for 0: as far as the buffer goes.
 */
export function sync(buffer: Uint8Array, offset?: number | null, length?: number | null, blocking?: boolean | null, invalidate?: boolean | null): void;
export function sync(buffer: Uint8Array, ...rest: Array<number | boolean | null | undefined>): void {
  const { region, place } = regionOf(buffer);
  const whole = typeof rest[0] === 'boolean';
  const [blocking, invalidate] = whole ? rest : rest.slice(2);
  const offset = whole ? 0 : checkBytes('offset', rest[0] ?? 0);
  const length = whole ? 0 : checkBytes('length', rest[1] ?? 0);
  const flags = (checkBoolean('blocking', blocking) ? MS_SYNC : MS_ASYNC) | (checkBoolean('invalidate', invalidate) ? MS_INVALIDATE : 0);
  region.sync(place + offset, length === 0 ? Math.max(0, buffer.length - offset) : length, flags);
}

/**
 * Gives the file back at once, instead of when the buffer is collected. The buffer, and every part of it, reads as zeros from then on; what was stored into a shared map before reaches the
 * file all the same. A second time does nothing. mmap-io has no such function.
 *
 * @throws ERR_INVALID_ARG_VALUE for a buffer that is no map of this thread.
 */
export function unmap(buffer: Uint8Array): void {
  regionAt(buffer).close();
}

/**
 * Called after a use, it proves that what was read was the file's, and that what was stored was stored there. mmap-io has no such function: where this one throws, mmap-io has ended the process.
 *
 * @param buffer - of `map`, or a part of one.
 * @throws ERR_SECTORWISE_TRUNCATED where the file was shorter when it was touched, ERR_SECTORWISE_FAULT where it could not be read or written (a bad sector, a device that is gone, a full disk
 * under a hole): up to 2 MiB around are zeros since then, and what is stored there is lost. Map it again. As `advise` in all else.
 */
export function check(buffer: Uint8Array): void {
  const { region, place } = regionOf(buffer);
  region.check(place, buffer.length);
}

/** What mmap-io exports, and what is new: for who imports it by one name. */
const mmap = Object.freeze({
  PROT_READ,
  PROT_WRITE,
  PROT_EXEC,
  PROT_NONE,
  MAP_SHARED,
  MAP_PRIVATE,
  MAP_NONBLOCK,
  MAP_POPULATE,
  MADV_NORMAL,
  MADV_RANDOM,
  MADV_SEQUENTIAL,
  MADV_WILLNEED,
  MADV_DONTNEED,
  MS_ASYNC,
  MS_INVALIDATE,
  MS_SYNC,
  PAGESIZE,
  /** The function of that name. */
  map,
  /** The function of that name. */
  advise,
  /** The function of that name. */
  incore,
  /** The function of that name. */
  sync,
  /** The function of that name. */
  unmap,
  /** The function of that name. */
  check,
});

// A default, against the custom here: mmap-io has one.
export default mmap;

/** The map that a buffer lies in, mapped or not any more. */
function regionAt(buffer: unknown): MappedRegion {
  if (!isUint8Array(buffer)) throw invalidType('buffer', 'an instance of Buffer or Uint8Array', buffer);
  const region = regions.get(buffer.buffer);
  if (region === undefined) throw invalidValue('buffer', 'must be one that map() has returned in this thread, or a part of one', buffer);
  return region;
}

/** The same with where it begins in there; refused after `unmap`. */
function regionOf(buffer: Uint8Array): { region: MappedRegion; place: number } {
  const region = regionAt(buffer);
  if (region.closed) throw new SectorwiseError('ERR_SECTORWISE_RELEASED', 'The map was given back by unmap(); map() the file again.');
  return { region, place: buffer.byteOffset };
}

function checkAdvice(value: number): number {
  return checkInteger('advise', value, ADVICE_MAX);
}

function checkInteger(name: string, value: unknown, most: number): number {
  if (typeof value !== 'number') throw invalidType(name, 'of type number', value);
  if (!Number.isInteger(value) || value < 0 || value > most) throw outOfRange(name, `an integer >= 0 && <= ${most}`, value);
  return value;
}

function checkBoolean(name: string, value: unknown): boolean {
  if (value === undefined || value === null) return false;
  if (typeof value !== 'boolean') throw invalidType(name, 'of type boolean', value);
  return value;
}
