/**
 * Arrays of sectors: sorted once, searched for ever after.
 *
 *   sectors  [ 24  8 16 | … ]   low 32 bits of each sector; everything in one array lies in one region of 2^32 sectors (2 TiB)
 *   origin   [  0  1  2 | … ]   where each stood before the sort
 *          ── sort ──>
 *   sectors  [  8 16 24 | … ]
 *   origin   [  1  2  0 | … ]
 *
 * Guarantees: stable; always linear, and with next to no work when the input is sorted or nearly so; never more than 6n comparisons; nothing is
 * allocated (the caller brings the scratch memory).
 * Leaves to others: what a sector means (`request-manager.ts`), which region an array is in (`slot-pool.ts`).
 */

/** Sectors in a region: what 32 bits can tell apart. */
export const REGION_SECTORS = 2 ** 32;

/** Which region of 2^32 sectors a sector lies in. */
export function regionOf(sector: number): number {
  return Math.floor(sector / REGION_SECTORS);
}

/** Moves that insertion may spend for each element before it is given up: enough for "nearly sorted", and for the few sectors of a small request. */
const INSERTION_BUDGET = 4;
/** Then sectors are distributed by one byte after the other: a branch that depends on the data costs more than these passes do. */
const BYTE_VALUES = 256;
const BYTES = 4;

/** Memory for sorting up to `capacity` sectors at once. Reused for ever. */
export class SortScratch {
  readonly sectors: Uint32Array;
  readonly origin: Uint32Array;
  /** For each byte of a sector and each value of it: how many there are, then where the next one goes. */
  readonly places = new Uint32Array(BYTES * BYTE_VALUES);

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
  distribute(sectors, origin, from, count, scratch);
  return comparisons;
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

/** Sorts by the lowest byte, then by the next, …: each pass keeps the order of the one before among equals. */
function distribute(sectors: Uint32Array, origin: Uint32Array, from: number, count: number, scratch: SortScratch): void {
  const places = scratch.places.fill(0);
  for (let at = from; at < from + count; at++) {
    const sector = sectors[at];
    places[sector & 0xff]++;
    places[BYTE_VALUES + ((sector >>> 8) & 0xff)]++;
    places[2 * BYTE_VALUES + ((sector >>> 16) & 0xff)]++;
    places[3 * BYTE_VALUES + (sector >>> 24)]++;
  }
  let inSectors = sectors;
  let inOrigin = origin;
  let inFrom = from;
  let outSectors = scratch.sectors;
  let outOrigin = scratch.origin;
  let outFrom = 0;
  for (let byte = 0; byte < BYTES; byte++) {
    const table = byte * BYTE_VALUES;
    const shift = 8 * byte;
    // All have the same value here, as neighbours mostly have in the high bytes.
    if (places[table + ((inSectors[inFrom] >>> shift) & 0xff)] === count) continue;
    let next = outFrom;
    for (let value = table; value < table + BYTE_VALUES; value++) {
      const here = places[value];
      places[value] = next;
      next += here;
    }
    for (let at = inFrom; at < inFrom + count; at++) {
      const sector = inSectors[at];
      const place = places[table + ((sector >>> shift) & 0xff)]++;
      outSectors[place] = sector;
      outOrigin[place] = inOrigin[at];
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
  if (inSectors === sectors) return;
  for (let i = 0; i < count; i++) {
    sectors[from + i] = inSectors[inFrom + i];
    origin[from + i] = inOrigin[inFrom + i];
  }
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
