/**
 * Rule R7: which pages of a file can be mapped as pages of the device.
 *
 *   pages    |    0    |    1    |    2    |    3    |
 *   file     [ a  a  a  a  a  a  ][ b  b  b  b  b ]····      extents; the file ends within page 3
 *   device     a at 8192          b at 1024                 base added: a's pages begin on pages there, b's do not
 *   mappable      yes       no        no        no           page 1 is part a, part b; page 3 is not wholly in extents
 *
 * Guarantees: pure; time by the number of extents, whatever the size of the file. Extents may come in any order; what overlaps the one before it counts
 * from where that one ended.
 * Leaves to others: where extents come from (FIEMAP; of an image, `image-files.ts`), and what lies at `base`.
 */
import { outOfRange } from '../errors.js';
import {
  FIEMAP_EXTENT_DATA_ENCRYPTED,
  FIEMAP_EXTENT_DATA_INLINE,
  FIEMAP_EXTENT_DATA_TAIL,
  FIEMAP_EXTENT_DELALLOC,
  FIEMAP_EXTENT_ENCODED,
  FIEMAP_EXTENT_NOT_ALIGNED,
  FIEMAP_EXTENT_UNKNOWN,
  FIEMAP_EXTENT_UNWRITTEN,
} from '../geometry/fiemap.js';
import type { FilePages } from './model.js';

/** One run of a file, as FIEMAP tells it. All in bytes. */
export interface FileExtent {
  /** In the file. */
  logical: bigint;
  /** On the block device of the file system. */
  physical: bigint;
  /** Of the run. */
  length: bigint;
  /** Bits of `linux/fiemap.h`. */
  flags: number;
}

/** What forbids mapping, the word for it first that says most. An inline extent, say, also carries NOT_ALIGNED. */
const FORBIDDEN: readonly [number, string][] = [
  [FIEMAP_EXTENT_DATA_INLINE, 'lies inside metadata (inline)'],
  [FIEMAP_EXTENT_DELALLOC, 'has no place yet (delayed allocation)'],
  [FIEMAP_EXTENT_DATA_ENCRYPTED, 'is encrypted by the file system'],
  [FIEMAP_EXTENT_ENCODED, 'is compressed or otherwise encoded'],
  [FIEMAP_EXTENT_DATA_TAIL, 'shares a block with the tail of another file'],
  [FIEMAP_EXTENT_UNKNOWN, 'has no known place'],
  [FIEMAP_EXTENT_NOT_ALIGNED, 'does not lie on a block'],
  [FIEMAP_EXTENT_UNWRITTEN, 'is allocated but was never written: the device holds something else'],
];
const FORBIDDEN_FLAGS = FORBIDDEN.reduce((flags, [flag]) => flags | flag, 0);

/** May what this extent holds be read from its place on the device? */
export function isInPlace(flags: number): boolean {
  return (flags & FORBIDDEN_FLAGS) === 0;
}

/**
 * The pages of `page` bytes of a file of `size` bytes. `base` is where the file system's device begins in what is to be mapped: the partition's first byte
 * for the whole disk, 0 for the partition itself.
 *
 * @throws `ERR_OUT_OF_RANGE` if `page` is not a whole number from 1 on
 */
export function filePages(extents: readonly FileExtent[], size: bigint, page: number, base: bigint): FilePages {
  if (!Number.isSafeInteger(page) || page < 1) throw outOfRange('page', 'a whole number from 1 on', page);
  const pageBytes = BigInt(page);
  const total = size <= 0n ? 0n : (size + pageBytes - 1n) / pageBytes;
  const ordered = inOrder(extents);
  let mappable = 0n;
  let longest = { pages: 0n, offset: 0n };
  /** All pages before this one can be mapped. */
  let good = 0n;
  for (const run of runsOf(ordered)) {
    if (modulo(run.physical + base - run.logical, pageBytes) !== 0n) continue;
    const first = (run.logical + pageBytes - 1n) / pageBytes;
    const whole = (run.logical + run.length) / pageBytes;
    const end = whole < total ? whole : total;
    if (end <= first) continue;
    mappable += end - first;
    if (end - first > longest.pages) longest = { pages: end - first, offset: first * pageBytes };
    if (first === good) good = end;
  }
  const pages: FilePages = { mappable, total, longestRun: longest, tail: size <= 0n ? 0 : Number(size % pageBytes) };
  if (good < total) pages.firstFailing = { page: good, offset: good * pageBytes, cause: causeOf(ordered, good * pageBytes, pageBytes, size, base) };
  return pages;
}

/** Ascending, without overlaps and without what is empty. */
function inOrder(extents: readonly FileExtent[]): FileExtent[] {
  const sorted = isAscending(extents) ? extents : [...extents].sort((a, b) => (a.logical < b.logical ? -1 : a.logical > b.logical ? 1 : 0));
  const ordered: FileExtent[] = [];
  let end = 0n;
  for (const extent of sorted) {
    const skip = extent.logical < end ? end - extent.logical : 0n;
    if (extent.length <= skip) continue;
    ordered.push(skip === 0n ? extent : { ...extent, logical: end, physical: extent.physical + skip, length: extent.length - skip });
    end = extent.logical + extent.length;
  }
  return ordered;
}

function isAscending(extents: readonly FileExtent[]): boolean {
  for (let i = 1; i < extents.length; i++) if (extents[i].logical < extents[i - 1].logical) return false;
  return true;
}

/** What may be mapped, neighbours that lie together on the device as one. */
function* runsOf(ordered: readonly FileExtent[]): Generator<FileExtent> {
  let run: FileExtent | undefined;
  for (const extent of ordered) {
    if (!isInPlace(extent.flags)) continue;
    if (run !== undefined && follows(run, extent)) {
      run = { ...run, length: run.length + extent.length };
    } else {
      if (run !== undefined) yield run;
      run = extent;
    }
  }
  if (run !== undefined) yield run;
}

function follows(run: FileExtent, extent: FileExtent): boolean {
  return run.logical + run.length === extent.logical && run.physical + run.length === extent.physical;
}

/** Why the page at byte `start` of the file cannot be mapped: the first thing that spoils it. */
function causeOf(ordered: readonly FileExtent[], start: bigint, page: bigint, size: bigint, base: bigint): string {
  const end = start + page;
  let at = start;
  let before: FileExtent | undefined;
  for (let i = firstBehind(ordered, start); i < ordered.length && ordered[i].logical < end; i++) {
    const extent = ordered[i];
    if (extent.logical > at) break;
    if (!isInPlace(extent.flags)) return `byte ${at} ${wordFor(extent.flags)}`;
    const place = extent.physical + (at - extent.logical) + base;
    if (before === undefined) {
      if (modulo(place, page) !== 0n) return `byte ${at} lies at byte ${place}, ${place} % ${page} = ${modulo(place, page)}`;
    } else if (!follows(before, extent)) {
      return `not contiguous: byte ${at} lies at byte ${place}, what is before it ends at byte ${before.physical + before.length + base}`;
    }
    before = extent;
    at = extent.logical + extent.length;
  }
  if (at < size) return `byte ${at} is in a hole`;
  return `the file's blocks end at byte ${at}, ${end - at} before the page does`;
}

/** Index of the first of these ascending extents that ends behind byte `at` of the file. */
export function firstBehind(ordered: readonly FileExtent[], at: bigint): number {
  let low = 0;
  let high = ordered.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (ordered[middle].logical + ordered[middle].length <= at) low = middle + 1;
    else high = middle;
  }
  return low;
}

function wordFor(flags: number): string {
  return FORBIDDEN.find(([flag]) => (flags & flag) !== 0)?.[1] ?? 'cannot be mapped';
}

/** Not negative, whatever the sign of `value`. */
function modulo(value: bigint, by: bigint): bigint {
  const rest = value % by;
  return rest < 0n ? rest + by : rest;
}
