/**
 * What a recogniser may see of a volume, and what it answers.
 *
 * Guarantees: reads end at the volume's end and at the image's; at most `VIEW_READ_MAX` bytes of one volume are read, the first `HEAD` of them once for all
 * recognisers. What is not wholly there is `undefined`, and never throws; errors of the source itself pass through.
 * Leaves to others: which recogniser is right (`volume.ts`).
 */
import type { ImageSource, Volume, VolumeKind } from '../model.js';

/** Where a volume lies. */
export interface Place {
  /** First byte in the image. */
  offset: bigint;
  /** Bytes that the partition (or the layer around it) gives it. */
  size: bigint;
  /** Its partition, null for a whole image. */
  partition: number | null;
  /** Page sizes to tell tiers for. */
  pages: readonly number[];
}

/** What a recogniser knows of a volume; the rest follows from its place. */
export interface Recognised {
  kind: VolumeKind;
  /** Bytes by its own account. */
  size?: bigint;
  dataOffset: bigint;
  unit: number;
  opaque?: boolean;
  label?: string;
  uuid?: string;
  details: Volume['details'];
  /** In words, why its numbers are not to be trusted. */
  damaged?: string;
  /** Runs of the volume that may hold volumes themselves. */
  contents?: Content[];
}

/** A run of a volume that another volume may lie in. */
export interface Content {
  /** From the start of the volume around it. */
  offset: bigint;
  size: bigint;
  name?: string;
}

export type Recogniser = (view: VolumeView) => Recognised | null;

/** Reaches past all superblocks near the start. Not farther: a disk may have 128 partitions, and a check is to read little of it. */
const HEAD = 8 * 1024;
/** Bytes read of one volume, whatever its superblock asks for. */
export const VIEW_READ_MAX = 256 * 1024;

export class VolumeView {
  readonly place: Place;
  /** Bytes of the volume that the image really holds. */
  readonly there: bigint;
  readonly #source: ImageSource;
  #head: Uint8Array | undefined;
  #left = VIEW_READ_MAX;

  constructor(source: ImageSource, place: Place) {
    this.#source = source;
    this.place = place;
    const rest = source.size - place.offset;
    this.there = place.offset < 0n || rest < 0n ? 0n : rest < place.size ? rest : place.size;
  }

  /** Bytes that the place says the volume has. */
  get size(): bigint {
    return this.place.size;
  }

  /** The `length` bytes at `at`, from the volume's start; undefined unless all of them can be had. */
  bytes(at: bigint, length: number): Uint8Array | undefined {
    if (at < 0n || length < 0 || at + BigInt(length) > this.there) return undefined;
    const end = at + BigInt(length);
    if (end <= BigInt(HEAD)) {
      this.#head ??= this.#read(0n, this.there < BigInt(HEAD) ? Number(this.there) : HEAD);
      return this.#head !== undefined && end <= BigInt(this.#head.length) ? this.#head.subarray(Number(at), Number(end)) : undefined;
    }
    const bytes = this.#read(at, length);
    return bytes?.length === length ? bytes : undefined;
  }

  /** The same as numbers. */
  data(at: bigint, length: number): DataView | undefined {
    const bytes = this.bytes(at, length);
    return bytes === undefined ? undefined : new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  #read(at: bigint, length: number): Uint8Array | undefined {
    if (length > this.#left) return undefined;
    this.#left -= length;
    return this.#source.read(this.place.offset + at, length);
  }
}

/** Is `text` at byte `at`? Latin 1, so that any byte can be said. */
export function holds(data: DataView, at: number, text: string): boolean {
  if (at + text.length > data.byteLength) return false;
  for (let i = 0; i < text.length; i++) if (data.getUint8(at + i) !== text.charCodeAt(i)) return false;
  return true;
}

/** A field of text up to its first NUL, without blanks at its end; undefined where nothing is left. What would move a cursor becomes `?`. */
export function text(data: DataView, at: number, length: number): string | undefined {
  const bytes = new Uint8Array(data.buffer, data.byteOffset + at, length);
  const nul = bytes.indexOf(0);
  return printable(new TextDecoder().decode(nul === -1 ? bytes : bytes.subarray(0, nul)));
}

/** The same for UTF-16, as NTFS and exFAT have it. */
export function text16(data: DataView, at: number, units: number): string | undefined {
  let found = '';
  for (let i = 0; i < units; i++) {
    const unit = data.getUint16(at + 2 * i, true);
    if (unit === 0) break;
    found += String.fromCharCode(unit);
  }
  return printable(found);
}

/** Fit for a terminal: control characters, also those that turn the direction of text, become `?`. */
export function printable(text: string): string | undefined {
  const shown = text.replace(/[\p{Cc}\p{Cs}\u2028-\u202e\u2066-\u2069]/gu, '?').trimEnd();
  return shown === '' ? undefined : shown;
}

/** Sixteen bytes as most tools write a UUID; undefined where all are 0. */
export function uuid(data: DataView, at: number): string | undefined {
  let digits = '';
  for (let i = 0; i < 16; i++)
    digits += data
      .getUint8(at + i)
      .toString(16)
      .padStart(2, '0');
  if (/^0+$/.test(digits)) return undefined;
  return `${digits.slice(0, 8)}-${digits.slice(8, 12)}-${digits.slice(12, 16)}-${digits.slice(16, 20)}-${digits.slice(20)}`;
}

/** A volume number of DOS: `1234-ABCD`. */
export function serial(number: number): string {
  const digits = number.toString(16).toUpperCase().padStart(8, '0');
  return `${digits.slice(0, 4)}-${digits.slice(4)}`;
}

export function isPowerOfTwo(value: number): boolean {
  return value > 0 && Number.isInteger(Math.log2(value));
}

export function hex(value: number): string {
  return `0x${(value >>> 0).toString(16).padStart(8, '0')}`;
}

/** What to say of a volume whose superblock claims more than there is; undefined where it fits. */
export function beyond(view: VolumeView, size: bigint): string | undefined {
  return size > view.size ? `claims ${size} bytes, ${size - view.size} more than there are` : undefined;
}

/** Two reasons as one; undefined where there is none. */
export function both(...reasons: (string | undefined)[]): string | undefined {
  const told = reasons.filter((reason) => reason !== undefined);
  return told.length === 0 ? undefined : told.join('; ');
}
