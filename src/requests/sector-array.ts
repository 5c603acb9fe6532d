/**
 * Arrays of sectors: sorted once, searched for ever after.
 *
 *   sectors  [ 24  8 16 | … ]   low 32 bits of each sector; everything in one array lies in one region of 2^32 sectors (2 TiB)
 *   origin   [  0  1  2 | … ]   where each stood before the sort
 *          ── sort ──>
 *   sectors  [  8 16 24 | … ]
 *   origin   [  1  2  0 | … ]
 *
 * Guarantees: stable; linear when the input is sorted or nearly so; never more than n·log2(n) + 9n comparisons; nothing is
 * allocated (the caller brings the scratch memory).
 * Leaves to others: what a sector means (`request-manager.ts`), which region an array is in (`slot-pool.ts`).
 */

/** Sectors in a region: what 32 bits can tell apart. */
export const REGION_SECTORS = 2 ** 32;

/** Which region of 2^32 sectors a sector lies in. */
export function regionOf(sector: number): number {
  return Math.floor(sector / REGION_SECTORS);
}

/** Moves that insertion may spend for each element before merging takes over; what makes "nearly sorted" linear. */
const INSERTION_BUDGET = 4;
/** Runs of this length are sorted by insertion before merging begins. */
const RUN = 12;

/** Memory for sorting up to `capacity` sectors at once. Reused for ever. */
export class SortScratch {
  readonly sectors: Uint32Array;
  readonly origin: Uint32Array;

  constructor(capacity: number) {
    this.sectors = new Uint32Array(capacity);
    this.origin = new Uint32Array(capacity);
  }
}

/** Sorts `sectors[from … from+count)` ascending, moving `origin` along. Answers with the comparisons that it took. */
export function sortSectors(sectors: Uint32Array, origin: Uint32Array, from: number, count: number, scratch: SortScratch): number {
  const end = from + count;
  let sorted = from + 1;
  while (sorted < end && sectors[sorted - 1] <= sectors[sorted]) sorted++;
  let comparisons = sorted - from;
  if (sorted >= end) return comparisons;

  let budget = count * INSERTION_BUDGET;
  while (sorted < end && budget >= 0) {
    const cost = insert(sectors, origin, from, sorted, budget);
    comparisons += cost;
    budget -= cost;
    sorted++;
  }
  if (budget >= 0) return comparisons;
  return comparisons + mergeSort(sectors, origin, from, count, scratch);
}

/** Moves element `at` down to its place in the sorted run before it. With a budget spent it stops early, order among equals kept. */
function insert(sectors: Uint32Array, origin: Uint32Array, from: number, at: number, budget: number): number {
  const sector = sectors[at];
  const place = origin[at];
  const floor = Math.max(from, at - budget - 1);
  let hole = at;
  while (hole > floor && sectors[hole - 1] > sector) {
    sectors[hole] = sectors[hole - 1];
    origin[hole] = origin[hole - 1];
    hole--;
  }
  sectors[hole] = sector;
  origin[hole] = place;
  return at - hole + 1;
}

function mergeSort(sectors: Uint32Array, origin: Uint32Array, from: number, count: number, scratch: SortScratch): number {
  const end = from + count;
  let comparisons = 0;
  for (let run = from; run < end; run += RUN) {
    const stop = Math.min(run + RUN, end);
    for (let at = run + 1; at < stop; at++) comparisons += insert(sectors, origin, run, at, RUN);
  }
  let inSectors = sectors;
  let inOrigin = origin;
  let inFrom = from;
  let outSectors = scratch.sectors;
  let outOrigin = scratch.origin;
  let outFrom = 0;
  for (let width = RUN; width < count; width *= 2) {
    for (let low = 0; low < count; low += 2 * width) {
      const middle = Math.min(low + width, count);
      const high = Math.min(low + 2 * width, count);
      let left = inFrom + low;
      let right = inFrom + middle;
      const leftEnd = right;
      const rightEnd = inFrom + high;
      let out = outFrom + low;
      while (left < leftEnd && right < rightEnd) {
        comparisons++;
        // `<=` keeps equal sectors in the order they came in.
        if (inSectors[left] <= inSectors[right]) {
          outSectors[out] = inSectors[left];
          outOrigin[out++] = inOrigin[left++];
        } else {
          outSectors[out] = inSectors[right];
          outOrigin[out++] = inOrigin[right++];
        }
      }
      while (left < leftEnd) {
        outSectors[out] = inSectors[left];
        outOrigin[out++] = inOrigin[left++];
      }
      while (right < rightEnd) {
        outSectors[out] = inSectors[right];
        outOrigin[out++] = inOrigin[right++];
      }
    }
    const sectorsBefore = inSectors;
    const originBefore = inOrigin;
    const fromBefore = inFrom;
    inSectors = outSectors;
    inOrigin = outOrigin;
    inFrom = outFrom;
    outSectors = sectorsBefore;
    outOrigin = originBefore;
    outFrom = fromBefore;
  }
  if (inSectors !== sectors) {
    for (let i = 0; i < count; i++) {
      sectors[from + i] = inSectors[inFrom + i];
      origin[from + i] = inOrigin[inFrom + i];
    }
  }
  return comparisons;
}

/** Index (from … from+count) of the first sector that is not below `sector`. */
export function lowerBound(sectors: Uint32Array, from: number, count: number, sector: number): number {
  let low = from;
  let high = from + count;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (sectors[middle] < sector) low = middle + 1;
    else high = middle;
  }
  return low;
}
