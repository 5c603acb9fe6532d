/**
 * Where the bytes of a file lie on its block device.
 *
 *   file     [ a a a a | . . . . | b b b | c c c ]        offsets, holes included
 *   FIEMAP     0 → 800             8 → 804  11 → 900      logical → physical, holes left out
 *   extents  [ 800     | hole    | 804   | 900   ]        cover the range, in order, no gap, no overlap
 *
 * Extents are stale at once: holes have no place, delayed allocation has none yet, copy-on-write moves them, reflinks share them. They answer
 * `extents()` and put submissions in order; they never identify data.
 * Guarantees: extents cover exactly the asked range up to the end of the file; a sector is only named where the device holds just these bytes there.
 * Leaves to others: which device that is, and whether FIEMAP speaks of it (`geometry.ts`).
 */
import { fstatSync } from 'node:fs';
import { systemError } from '../errors.js';
import { native } from '../io/native.js';
import { FIEMAP_EXTENT_DATA_INLINE, FIEMAP_EXTENT_DELALLOC, FIEMAP_EXTENT_UNKNOWN, FIEMAP_EXTENT_UNWRITTEN, FIEMAP_NOT_IN_PLACE } from './fiemap.js';
import type { GeometryFacts } from './geometry.js';

/** One run of a file on its block device. */
export interface Extent {
  /** First byte, in the file. */
  offset: number;
  /** Bytes. */
  length: number;
  /**
   * The 512-byte sector of `geometry.device` (of the partition, not of its disk) that holds the first byte. Undefined for a hole, and where the bytes
   * have no place of their own: delayed allocation, inline or encoded data, btrfs (its FIEMAP gives addresses of its own), no block device, no FIEMAP.
   */
  sector: number | undefined;
  /** The range can be read straight from the device. False without a sector, and for allocated blocks that were never written: they read as zeros, the device holds something else. */
  mappable: boolean;
}

export * from './fiemap.js';

/** fe_physical says nothing at all, not even roughly. */
const NOWHERE = FIEMAP_EXTENT_UNKNOWN | FIEMAP_EXTENT_DELALLOC | FIEMAP_EXTENT_DATA_INLINE;

const SECTOR = 512;
/** Words of one extent in what the addon answers: logical, physical, length, flags. */
const WORDS = 4;
/** The file system has no FIEMAP: EOPNOTSUPP (tmpfs, FUSE, devices), ENOTTY (old or unusual ones), ENOSYS (forbidden by a sandbox). */
const NO_FIEMAP = new Set([-95, -25, -38]);

/**
 * The extents of [offset, offset+length), cut at the end of the file. A block device is one extent, itself; a file whose bytes have no known place is
 * one extent without a sector. Fresh bytes that the kernel has not allocated yet are not mappable: flush first.
 *
 * @throws a system error (`EIO`, …) naming the range if FIEMAP fails for another reason than not being there
 */
export async function readExtents(fd: number, facts: GeometryFacts, offset: number, length: number): Promise<Extent[]> {
  const size = facts.isDevice ? facts.size : fstatSync(fd).size;
  const end = Math.min(offset + length, size);
  if (end <= offset) return [];
  if (facts.isDevice) return [{ offset, length: end - offset, sector: Math.floor(offset / SECTOR), mappable: true }];
  if (!facts.extentsAreOnDevice) return [{ offset, length: end - offset, sector: undefined, mappable: false }];
  return extentsFromFiemap(await fiemap(fd, offset, end), offset, end, facts.deviceSize);
}

/**
 * How to order submissions to this file by place on the device. Also works where the device is not known (overlayfs, btrfs): places compare among
 * themselves all the same. A file without FIEMAP keeps its own order.
 *
 * @throws as `readExtents` does
 */
export async function readExtentOrder(fd: number, facts: GeometryFacts): Promise<ExtentOrder> {
  if (facts.isDevice) return new ExtentOrder(new Float64Array(0));
  return new ExtentOrder(await fiemap(fd, 0, Math.max(fstatSync(fd).size, 1)));
}

/** FIEMAP's own answer, for those who judge flags themselves. */
export interface RawExtents {
  /** The file system has FIEMAP. */
  supported: boolean;
  /** Four numbers for each extent, ascending: logical, physical, length (bytes), flags (`FIEMAP_EXTENT_…`). Holes are left out. */
  values: Float64Array;
}

/**
 * All extents of [0, `end`) of an open regular file. `sync` writes back first what has no place yet (FIEMAP_FLAG_SYNC), which may wait for the device; without it such
 * bytes come as `FIEMAP_EXTENT_DELALLOC`.
 *
 * @throws a system error if FIEMAP fails for another reason than not being there
 */
export function readRawExtents(fd: number, end: number, sync: boolean): RawExtents {
  const parts: Float64Array[] = [];
  for (let from = 0; from < end; ) {
    const { status, values, complete } = native().fiemap(fd, from, end - from, sync && from === 0);
    const reached = takeAnswer(parts, status, values, complete, from, end);
    if (reached === undefined) return { supported: false, values: new Float64Array(0) };
    from = reached;
  }
  return { supported: true, values: joinParts(parts) };
}

/** The same off the main thread. */
export async function readRawExtentsAsync(fd: number, end: number, sync: boolean): Promise<RawExtents> {
  const parts: Float64Array[] = [];
  for (let from = 0; from < end; ) {
    const { status, values, complete } = await native().fiemapAsync(fd, from, end - from, sync && from === 0);
    const reached = takeAnswer(parts, status, values, complete, from, end);
    if (reached === undefined) return { supported: false, values: new Float64Array(0) };
    from = reached;
  }
  return { supported: true, values: joinParts(parts) };
}

/** All of the range, in as many calls as it takes: one call of the addon ends after a million extents. Empty where there is no FIEMAP. */
async function fiemap(fd: number, offset: number, end: number): Promise<Float64Array> {
  const parts: Float64Array[] = [];
  for (let from = offset; from < end; ) {
    const { status, values, complete } = await native().fiemapAsync(fd, from, end - from, false);
    from = takeAnswer(parts, status, values, complete, from, end) ?? end;
  }
  return joinParts(parts);
}

/** Keeps one answer of the addon; where the next question begins, `end` when there is none, undefined where there is no FIEMAP. */
function takeAnswer(parts: Float64Array[], status: number, values: Float64Array, complete: boolean, from: number, end: number): number | undefined {
  if (NO_FIEMAP.has(status)) return undefined;
  if (status < 0) throw systemError(status, 'ioctl(FS_IOC_FIEMAP)', { offset: from, length: end - from });
  if (values.length === 0) return end;
  parts.push(values);
  const reached = values[values.length - WORDS] + values[values.length - WORDS + 2];
  return complete || reached <= from ? end : reached;
}

function joinParts(parts: readonly Float64Array[]): Float64Array {
  if (parts.length === 1) return parts[0];
  const all = new Float64Array(parts.reduce((words, part) => words + part.length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}

/**
 * FIEMAP's answer (logical, physical, length, flags for each extent, in bytes, ascending) as extents that cover [offset, end) exactly. Neighbours that
 * lie together and are of one kind become one. What reaches past `deviceSize` (0: not known) is on another device and gets no sector.
 * An extent that overlaps the one before it, as happens when the file changes between two calls, counts from where that one ended.
 */
export function extentsFromFiemap(values: Float64Array, offset: number, end: number, deviceSize: number): Extent[] {
  const extents: Extent[] = [];
  let last: Extent | undefined;
  /** Where on the device the last extent ends, in bytes; NaN if it has no place. */
  let lastPlace = Number.NaN;
  let position = offset;

  const add = (to: number, place: number, mappable: boolean): void => {
    const length = to - position;
    const placed = !Number.isNaN(place);
    if (last !== undefined && last.mappable === mappable && (placed ? place === lastPlace : last.sector === undefined)) {
      last.length += length;
    } else {
      last = { offset: position, length, sector: placed ? Math.floor(place / SECTOR) : undefined, mappable };
      extents.push(last);
    }
    lastPlace = place + length;
    position = to;
  };

  for (let i = 0; i + WORDS <= values.length && position < end; i += WORDS) {
    const logical = values[i];
    const physical = values[i + 1];
    const flags = values[i + 3];
    const extentEnd = logical + values[i + 2];
    const from = Math.max(logical, position);
    const to = Math.min(extentEnd, end);
    if (to <= from) continue;
    if (from > position) add(from, Number.NaN, false);
    const start = physical + (from - logical);
    const inPlace = (flags & FIEMAP_NOT_IN_PLACE) === 0 && (physical - logical) % SECTOR === 0 && (deviceSize === 0 || physical + values[i + 2] <= deviceSize);
    add(to, inPlace ? start : Number.NaN, inPlace && (flags & FIEMAP_EXTENT_UNWRITTEN) === 0);
  }
  if (position < end) add(end, Number.NaN, false);
  return extents;
}

/**
 * Where a sector of the file comes in the order of the device: sort submissions by `place`.
 *
 *   start   [ 0    | 8   | 11  ]     first sector in the file of each run that has a place
 *   shift   [ +800 | +796 | +889 ]   what to add; a sector without a place adds what the run before it does
 *
 * So holes, inline data and blocks that are not allocated yet follow the run before them in file order, and a file without any known place keeps its own.
 */
export class ExtentOrder {
  readonly #start: Float64Array;
  readonly #shift: Float64Array;

  /** `values` as FIEMAP's answer: logical, physical, length, flags for each extent, ascending. */
  constructor(values: Float64Array) {
    const start = new Float64Array(values.length / WORDS);
    const shift = new Float64Array(values.length / WORDS);
    let runs = 0;
    for (let i = 0; i + WORDS <= values.length; i += WORDS) {
      if ((values[i + 3] & NOWHERE) !== 0) continue;
      const first = Math.floor(values[i] / SECTOR);
      const add = Math.floor(values[i + 1] / SECTOR) - first;
      if (runs > 0 && (shift[runs - 1] === add || first <= start[runs - 1])) continue;
      start[runs] = first;
      shift[runs] = add;
      runs++;
    }
    this.#start = start.slice(0, runs);
    this.#shift = shift.slice(0, runs);
  }

  /** Runs that lie apart on the device; 0 where file order is all there is. */
  get runs(): number {
    return this.#start.length;
  }

  /** The place of a 512-byte sector of the file. Allocates nothing; log2(runs) steps. */
  place(sector: number): number {
    const start = this.#start;
    let low = 0;
    let high = start.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (start[middle] <= sector) low = middle + 1;
      else high = middle;
    }
    return low === 0 ? sector : sector + this.#shift[low - 1];
  }
}
