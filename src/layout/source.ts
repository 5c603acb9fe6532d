/**
 * Where the bytes of an image come from, and how few of them a check may read.
 *
 *   bufferSource   bytes in memory
 *   openSource     an image file or a block device, by node:fs
 *   limitedSource  any of them behind a cache of blocks and a limit, so that one check reads at most 4 MiB of an image of any size
 *
 * Guarantees: a read answers with what is there and never more than was asked for; a range that begins outside is empty; what was answered never changes; one block is
 * asked for once.
 * Leaves to others: what the bytes mean (`table.ts`, `volume.ts`), what the device asks for (`Topology`, from src/geometry).
 */
import { closeSync, constants, fstatSync, openSync, readFileSync, readSync } from 'node:fs';
import { getSystemErrorMap } from 'node:util';
import { SectorwiseError, systemError } from '../errors.js';
import type { ImageSource } from './model.js';

/** What one check reads of an image, whatever its size. */
export const checkBytesMax = 4 * 1024 * 1024;
/** What one check may look at, counting again what comes from the cache: bounds the work that a hostile table can ask for. */
export const checkServedMax = 16 * checkBytesMax;

/**
 * The unit of the cache. With pages as the unit, the signatures that lie far apart would use up the limit on a disk of 128 partitions; with less than this, the number of
 * a block near 2^64 would be no exact number any more.
 */
const blockBytes = 2048;
/** Beyond it nothing is looked at: no file or device is as large. */
const sizeMax = 1n << 64n;

const EISDIR = 21;

/** An open file or block device; whoever opened it closes it. */
export interface FileSource extends ImageSource, Disposable {
  /** As it was opened. */
  readonly path: string;
  /** A block device, not an image file. */
  readonly isDevice: boolean;
  /** What system calls have read so far, and how many there were. */
  readonly bytesRead: number;
  /** System calls that read. */
  readonly reads: number;
  /** Closes the descriptor; nothing can be read afterwards. */
  close(): void;
}

/** A source behind a cache and a limit. */
export interface LimitedSource extends ImageSource {
  /** Bytes read from the source below, and in how many reads. */
  readonly bytesRead: number;
  /** Reads from the source below. */
  readonly reads: number;
  /** What may be read of the source below. */
  readonly bytesMax: number;
  /** A read was answered with less than there is, because the limit is reached: what follows from it means nothing. */
  readonly exhausted: boolean;
}

/** Bytes in memory. They are not copied: whoever changes them changes the image. */
export function bufferSource(bytes: Uint8Array): ImageSource {
  return {
    size: BigInt(bytes.length),
    read(offset, length) {
      if (offset < 0n || offset >= BigInt(bytes.length) || length <= 0) return new Uint8Array(0);
      const from = Number(offset);
      return bytes.subarray(from, Math.min(from + length, bytes.length));
    },
  };
}

/**
 * Opens an image file or a block device for reading. No lock is taken and nothing is changed.
 *
 * @throws the system error of the open (`ENOENT`, `EACCES`, `EISDIR` for a directory, ...), and of each later read
 * @throws SectorwiseError `ERR_SECTORWISE_FILE_TYPE` for a pipe, socket or character device
 */
export function openSource(path: string): FileSource {
  // Without O_NONBLOCK the open of a pipe waits for a writer, perhaps for ever.
  const fd = calling('open', { path }, () => openSync(path, constants.O_RDONLY | constants.O_NONBLOCK));
  try {
    const stat = calling('fstat', { path }, () => fstatSync(fd, { bigint: true }));
    if (stat.isDirectory()) throw systemError(-EISDIR, 'open', { path });
    if (!stat.isFile() && !stat.isBlockDevice()) {
      throw new SectorwiseError('ERR_SECTORWISE_FILE_TYPE', 'This is neither a regular file nor a block device: it has no layout to look at.', { path });
    }
    const isDevice = stat.isBlockDevice();
    return new OpenFile(fd, path, isDevice, isDevice ? deviceSize(stat.rdev, path) : stat.size);
  } catch (error) {
    closeSync(fd);
    throw error;
  }
}

class OpenFile implements FileSource {
  readonly path: string;
  readonly isDevice: boolean;
  readonly size: bigint;
  bytesRead = 0;
  reads = 0;
  #fd: number;

  constructor(fd: number, path: string, isDevice: boolean, size: bigint) {
    this.#fd = fd;
    this.path = path;
    this.isDevice = isDevice;
    this.size = size;
  }

  read(offset: bigint, length: number): Uint8Array {
    if (offset < 0n || offset >= this.size || length <= 0) return new Uint8Array(0);
    const wanted = Number(BigInt(length) < this.size - offset ? BigInt(length) : this.size - offset);
    const bytes = new Uint8Array(wanted);
    let done = 0;
    // A read may end early (a signal, the end of a file that shrank); only 0 says that nothing more is there.
    while (done < wanted) {
      const place = { path: this.path, offset: Number(offset) + done, length: wanted - done };
      const count = calling('read', place, () => readSync(this.#fd, bytes, done, wanted - done, offset + BigInt(done)));
      this.reads++;
      if (count === 0) break;
      done += count;
      this.bytesRead += count;
    }
    return done === wanted ? bytes : bytes.subarray(0, done);
  }

  close(): void {
    if (this.#fd < 0) return;
    closeSync(this.#fd);
    this.#fd = -1;
  }

  [Symbol.dispose](): void {
    this.close();
  }
}

/**
 * `source`, of which at most `bytesMax` are read, each block once. Once the limit is reached every read that needs more is empty and `exhausted` is set.
 * A source that is limited already is not limited again.
 */
export function limitedSource(source: ImageSource, bytesMax = checkBytesMax, servedMax = checkServedMax): LimitedSource {
  return source instanceof CachedBlocks ? source : new CachedBlocks(source, bytesMax, servedMax);
}

const nothing = new Uint8Array(0);

class CachedBlocks implements LimitedSource {
  readonly size: bigint;
  bytesRead = 0;
  reads = 0;
  exhausted = false;
  #served = 0;
  readonly #source: ImageSource;
  readonly bytesMax: number;
  readonly #servedMax: number;
  /** The run that each block was read with, by the block's number. */
  readonly #runs = new Map<number, Run>();

  constructor(source: ImageSource, bytesMax: number, servedMax: number) {
    this.#source = source;
    this.size = source.size < sizeMax ? source.size : sizeMax;
    this.bytesMax = bytesMax;
    this.#servedMax = servedMax;
  }

  read(offset: bigint, length: number): Uint8Array {
    if (offset < 0n || offset >= this.size || length <= 0) return nothing;
    const wanted = Number(BigInt(length) < this.size - offset ? BigInt(length) : this.size - offset);
    this.#served += wanted;
    const first = Number(offset / BigInt(blockBytes));
    const skip = Number(offset % BigInt(blockBytes));
    const last = first + Math.floor((skip + wanted - 1) / blockBytes);
    if (this.#served > this.#servedMax || !this.#fill(first, last)) {
      this.exhausted = true;
      return nothing;
    }
    const run = this.#runs.get(first)!;
    // Mostly what is asked for was read at once, and need not be copied.
    if (last < run.first + run.blocks) return partOf(run, first, skip, wanted);
    const bytes = new Uint8Array(wanted);
    let done = 0;
    for (let block = first; block <= last; block++) {
      const from = block === first ? skip : 0;
      const expected = Math.min(blockBytes - from, wanted - done);
      const part = partOf(this.#runs.get(block)!, block, from, expected);
      bytes.set(part, done);
      done += part.length;
      // A file that shrank since: what follows is not there either.
      if (part.length < expected) break;
    }
    return done === wanted ? bytes : bytes.subarray(0, done);
  }

  /** Reads the blocks that are missing, neighbours at once. False, and nothing read, where that is more than may be. */
  #fill(first: number, last: number): boolean {
    let missing = 0;
    for (let block = first; block <= last; block++) if (!this.#runs.has(block)) missing++;
    if (this.bytesRead + missing * blockBytes > this.bytesMax) return false;
    for (let block = first; block <= last; block++) {
      if (this.#runs.has(block)) continue;
      let end = block + 1;
      while (end <= last && !this.#runs.has(end)) end++;
      const bytes = this.#source.read(BigInt(block) * BigInt(blockBytes), (end - block) * blockBytes);
      this.reads++;
      this.bytesRead += bytes.length;
      const run: Run = { first: block, blocks: end - block, bytes };
      for (let at = block; at < end; at++) this.#runs.set(at, run);
    }
    return true;
  }
}

/** Blocks that were read at once; fewer bytes than their number says where the image ends. */
interface Run {
  first: number;
  blocks: number;
  bytes: Uint8Array;
}

function partOf(run: Run, block: number, skip: number, length: number): Uint8Array {
  const from = (block - run.first) * blockBytes + skip;
  return run.bytes.subarray(from, from + length);
}

/** A device's length is not in its stat; sysfs has it in units of 512 bytes whatever its sectors are. */
function deviceSize(rdev: bigint, path: string): bigint {
  // As glibc's gnu_dev_major and gnu_dev_minor take them apart.
  const major = ((rdev >> 8n) & 0xfffn) | ((rdev >> 32n) & ~0xfffn);
  const minor = (rdev & 0xffn) | ((rdev >> 12n) & ~0xffn);
  const attribute = `/sys/dev/block/${major}:${minor}/size`;
  const text = calling('read', { path }, () => readFileSync(attribute, 'latin1')).trim();
  if (!/^\d+$/.test(text)) throw new SectorwiseError('ERR_SECTORWISE_FILE_TYPE', `The kernel does not say how long this device is (${attribute}).`, { path });
  return BigInt(text) * 512n;
}

/** Node's errors of node:fs, as all others of this library: with the path and the range. */
function calling<T>(syscall: string, place: { path: string; offset?: number; length?: number }, call: () => T): T {
  try {
    return call();
  } catch (error) {
    const { errno } = error as NodeJS.ErrnoException;
    if (typeof errno === 'number' && getSystemErrorMap().has(errno)) throw systemError(errno, syscall, { ...place, cause: error });
    throw error;
  }
}
