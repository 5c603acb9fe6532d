/**
 * What a walk through a file system in an image stands on: reading metadata, gathering a file's runs, and the errors of what cannot be walked.
 *
 * Guarantees: a read that reaches outside of the volume is an error of the image, not of the caller; a walk reads at most `METADATA_MAX` bytes and gathers at
 * most `EXTENTS_MAX` runs, so loops in what is read end there at the latest.
 * Leaves to others: what the bytes mean (`fat.ts`, `ext.ts`, ...).
 */
import { SectorwiseError, systemError } from '../../errors.js';
import type { FileExtent } from '../file-pages.js';
import type { ImageSource, Volume } from '../model.js';

/** Metadata of one walk: the FAT of a file of 4 GiB in clusters of 512 bytes fits. */
const METADATA_MAX = 64 << 20;
/** The same counting again what comes from the cache: what names one block a thousand times is to end as well. */
const SERVED_MAX = METADATA_MAX;
/** As many as one call of FIEMAP gives. */
const EXTENTS_MAX = 1 << 20;
const TOO_MUCH = `more than ${METADATA_MAX >> 20} MiB of metadata would have to be read`;
/** 8 MiB: the FAT of two million clusters, so that a file scattered over all of them is followed without reading it again and again. */
const CACHE_BLOCK = 4 << 10;
const CACHE_BLOCKS = 2048;

const ENOENT = 2;
const ENOTDIR = 20;
const EISDIR = 21;

/** A file as its file system tells it. */
export interface FoundFile {
  size: bigint;
  /** Physical bytes are counted from the volume's start. */
  extents: FileExtent[];
}

export class ImageReader {
  readonly path: string;
  readonly kind: Volume['kind'];
  readonly #source: ImageSource;
  readonly #offset: bigint;
  readonly #blocks = new Map<bigint, Uint8Array>();
  #left = METADATA_MAX;
  #served = 0;

  constructor(source: ImageSource, volume: Volume, path: string) {
    this.#source = source;
    this.#offset = volume.offset;
    this.path = path;
    this.kind = volume.kind;
  }

  /** The `length` bytes at `at` from the volume's start, all of them. */
  data(at: bigint, length: number): DataView {
    if (at < 0n || length < 0) throw this.damaged(`byte ${at} is to be read`);
    this.#served += length;
    if (this.#served > SERVED_MAX) throw this.unsupported(TOO_MUCH);
    const first = at / BigInt(CACHE_BLOCK);
    const within = Number(at % BigInt(CACHE_BLOCK));
    if (within + length <= CACHE_BLOCK) {
      const block = this.#block(first);
      if (within + length > block.length) throw this.damaged(`${length} bytes at byte ${at} lie behind the end`);
      return new DataView(block.buffer, block.byteOffset + within, length);
    }
    const all = new Uint8Array(this.#charge(length));
    for (let done = 0; done < length; ) {
      const from = (within + done) % CACHE_BLOCK;
      const block = this.#block((at + BigInt(done)) / BigInt(CACHE_BLOCK));
      const part = block.subarray(from, from + length - done);
      if (part.length === 0) throw this.damaged(`${length} bytes at byte ${at} lie behind the end`);
      all.set(part, done);
      done += part.length;
    }
    return new DataView(all.buffer);
  }

  /** Several places as one run of bytes, as a block of a directory may be. */
  joined(parts: readonly { at: bigint; length: number }[]): DataView {
    if (parts.length === 1) return this.data(parts[0].at, parts[0].length);
    const all = new Uint8Array(this.#charge(parts.reduce((sum, part) => sum + part.length, 0)));
    let done = 0;
    for (const { at, length } of parts) {
      const view = this.data(at, length);
      all.set(new Uint8Array(view.buffer, view.byteOffset, length), done);
      done += length;
    }
    return new DataView(all.buffer);
  }

  #block(index: bigint): Uint8Array {
    const known = this.#blocks.get(index);
    if (known !== undefined) return known;
    this.#charge(CACHE_BLOCK);
    const at = this.#offset + index * BigInt(CACHE_BLOCK);
    // What is named by bytes of the image may lie anywhere below 2^64: a source is asked only for what it has.
    if (at >= this.#source.size) throw this.damaged(`byte ${index * BigInt(CACHE_BLOCK)} lies behind the end`);
    const bytes = this.#source.read(at, CACHE_BLOCK);
    if (this.#blocks.size === CACHE_BLOCKS) {
      const [oldest] = this.#blocks.keys();
      this.#blocks.delete(oldest);
    }
    this.#blocks.set(index, bytes);
    return bytes;
  }

  #charge(bytes: number): number {
    this.#left -= bytes;
    if (this.#left < 0) throw this.unsupported(TOO_MUCH);
    return bytes;
  }

  /** What is in the image contradicts itself. */
  damaged(what: string): SectorwiseError {
    return new SectorwiseError(
      'ERR_SECTORWISE_DAMAGED',
      `The ${this.kind} in this image cannot be followed to '${this.path}': ${what}. Check it with the file system's own tool.`,
      { path: this.path },
    );
  }

  /** The image is whole, but this is not to be had from it. */
  unsupported(what: string): SectorwiseError {
    const message = `Where '${this.path}' lies cannot be told from the ${this.kind} in this image: ${what}. Mount it, and ask for the file there.`;
    return new SectorwiseError('ERR_SECTORWISE_UNSUPPORTED', message, { path: this.path });
  }

  missing(): Error {
    return systemError(-ENOENT, 'lookup', { path: this.path });
  }

  noFolder(): Error {
    return systemError(-ENOTDIR, 'lookup', { path: this.path });
  }

  isFolder(): Error {
    return systemError(-EISDIR, 'lookup', { path: this.path });
  }

  /** A symbolic link, a device, a pipe, a socket. */
  noFile(what: string): SectorwiseError {
    return new SectorwiseError('ERR_SECTORWISE_FILE_TYPE', `'${this.path}' is ${what} in this image: name a regular file.`, { path: this.path });
  }
}

/** Runs of a file in ascending order; neighbours of one kind that lie together become one. */
export class Runs {
  readonly extents: FileExtent[] = [];
  readonly #reader: ImageReader;

  constructor(reader: ImageReader) {
    this.#reader = reader;
  }

  add(logical: bigint, physical: bigint, length: bigint, flags = 0): void {
    if (length <= 0n) return;
    const last = this.extents.at(-1);
    if (last !== undefined && last.flags === flags && last.logical + last.length === logical && last.physical + last.length === physical) {
      last.length += length;
      return;
    }
    if (this.extents.length === EXTENTS_MAX) throw this.#reader.unsupported(`it has more than ${EXTENTS_MAX} extents`);
    this.extents.push({ logical, physical, length, flags });
  }

  /** From byte `from` on, what is there was never written: file systems that keep one such line answer zeros behind it. */
  unwrittenFrom(from: bigint, flag: number): void {
    for (let i = 0; i < this.extents.length; i++) {
      const extent = this.extents[i];
      if (extent.logical + extent.length <= from) continue;
      if (extent.logical >= from) {
        extent.flags |= flag;
        continue;
      }
      const kept = from - extent.logical;
      const rest = { logical: from, physical: extent.physical + kept, length: extent.length - kept, flags: extent.flags | flag };
      extent.length = kept;
      this.extents.splice(++i, 0, rest);
    }
  }
}

/** The names on the way to a file, `.` and `..` resolved. */
export function namesOf(path: string): string[] {
  const names: string[] = [];
  for (const name of path.split('/')) {
    if (name === '..') names.pop();
    else if (name !== '' && name !== '.') names.push(name);
  }
  return names;
}
