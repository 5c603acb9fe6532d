/**
 * A range of a file in the shape of a Blob, read when it is asked for.
 *
 * It is no instance of `Blob`: that class has no way to be given bytes later (`fs.openAsBlob` uses one that is Node's own), so a real one is a copy of all of it: `new Blob([await blob.bytes()])`.
 *
 * Guarantees: size and range are those it was made with; a file that is shorter by then is an error, never fewer bytes.
 */
import { invalidType } from '../errors.js';
import { CAUSE_TRUNCATE, causeError } from '../memory/validity.js';
import { checkNames } from '../options.js';
import { checkStreamOptions, type StreamSource } from './range.js';
import { webStreamOf } from './web.js';

/** Options of `BlockFile.blob`. */
export interface BlobOptions {
  /** First byte. Default 0. */
  start?: number;
  /** The byte after the last one. Default, and at most: the end of the file as it is now. */
  end?: number;
  /** Media type, as of a Blob: lower-cased, and empty where it has letters outside of U+0020 to U+007E. Default ''. */
  type?: string;
}

/**
 * A range of a file with the methods of a Blob. Holds the file, no memory; each call reads anew, so it is no snapshot: later writes show through. Every method that reads rejects (a stream fails) with
 * ERR_SECTORWISE_TRUNCATED where the file has become shorter than the range, and as `BlockFile.read` does.
 *
 * Not an instance of `Blob`, so what insists on one refuses it; give `stream()` to a `Response`.
 */
export interface FileBlob {
  /** Bytes, fixed when it was made. */
  readonly size: number;
  /** Media type, or ''. */
  readonly type: string;
  /** A part of it, as `Blob.slice`: negative numbers count from the end, numbers beyond it are the end. Reads nothing. */
  slice(start?: number, end?: number, type?: string): FileBlob;
  /** A copy of all bytes. */
  arrayBuffer(): Promise<ArrayBuffer>;
  /** A copy of all bytes. */
  bytes(): Promise<Uint8Array<ArrayBuffer>>;
  /** All bytes, decoded as UTF-8. */
  text(): Promise<string>;
  /** As `BlockFile.stream`. */
  stream(): ReadableStream<Uint8Array>;
}

export function blobOf(file: StreamSource, options: BlobOptions | undefined): FileBlob {
  const { type = '', ...range } = checkNames('options', options, ['start', 'end', 'type']) as BlobOptions;
  if (typeof type !== 'string') throw invalidType('options.type', 'of type string', type);
  const { start, end } = checkStreamOptions(range);
  const first = Math.min(start, file.size);
  return new RangeBlob(file, first, Math.min(end, file.size) - first, type);
}

class RangeBlob implements FileBlob {
  readonly size: number;
  readonly type: string;
  readonly #file: StreamSource;
  readonly #start: number;

  constructor(file: StreamSource, start: number, size: number, type: string) {
    this.#file = file;
    this.#start = start;
    this.size = size;
    this.type = /^[\x20-\x7e]*$/.test(type) ? type.toLowerCase() : '';
  }

  get [Symbol.toStringTag](): string {
    return 'Blob';
  }

  slice(start = 0, end = this.size, type = ''): FileBlob {
    const from = this.#within(start);
    return new RangeBlob(this.#file, this.#start + from, Math.max(0, this.#within(end) - from), type);
  }

  async bytes(): Promise<Uint8Array<ArrayBuffer>> {
    const bytes = new Uint8Array(this.size);
    const count = await this.#file.read(bytes, this.#start);
    if (count < this.size) throw this.#short(this.#start + count);
    return bytes;
  }

  async arrayBuffer(): Promise<ArrayBuffer> {
    return (await this.bytes()).buffer;
  }

  async text(): Promise<string> {
    return new TextDecoder().decode(await this.bytes());
  }

  stream(): ReadableStream<Uint8Array> {
    return webStreamOf(this.#file, checkStreamOptions({ start: this.#start, end: this.#start + this.size }), (at) => this.#short(at));
  }

  #within(place: number): number {
    const whole = Math.trunc(place) || 0;
    return whole < 0 ? Math.max(0, this.size + whole) : Math.min(whole, this.size);
  }

  #short(at: number): Error {
    return causeError(CAUSE_TRUNCATE, { path: this.#file.path, offset: at, length: this.#start + this.size - at });
  }
}
