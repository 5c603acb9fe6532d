/**
 * Intervals in order of their first sectors, for "who starts last at or before this sector?".
 *
 *   directory  [ 0 | 512 | 9000 | … ]         first start of each chunk, ascending
 *                |     └─> [ 512 640 888 … ]  a chunk: up to 64 starts, ascending, and the number that goes with each
 *                └──────> [ 0 8 64 … ]
 *
 * Two levels of typed arrays, and not a tree: an insertion or removal moves some tens of numbers within one chunk, however many intervals there are, and allocates
 * nothing, where a tree of objects leaves hundreds of bytes behind (docs/decisions.md has the measurement).
 *
 * Guarantees: nothing is allocated after construction, except that the arrays double when there are more chunks than ever before; chunks that have become
 * small are merged, so that memory follows what is in order, not what was.
 * Leaves to others: where an interval ends, and that no two overlap (`operation-table.ts`).
 */
import { assertionError } from '../errors.js';

const CHUNK = 64;
/** A chunk below this is merged with a neighbour if both together come to no more than `MERGED_MAX`: far from full, so that it is not split again at once. */
const SMALL = CHUNK / 4;
const MERGED_MAX = (CHUNK * 3) / 4;
const CHUNKS_INITIAL = 16;

export class SectorOrder {
  /** The directory: first start and chunk. */
  #first = new Float64Array(CHUNKS_INITIAL);
  #chunk = new Int32Array(CHUNKS_INITIAL);
  #chunks = 0;
  /** By chunk. */
  #length = new Int32Array(CHUNKS_INITIAL);
  #starts = new Float64Array(CHUNKS_INITIAL * CHUNK);
  #numbers = new Int32Array(CHUNKS_INITIAL * CHUNK);
  /** Chunks that are not in the directory. */
  #spare = Int32Array.from({ length: CHUNKS_INITIAL }, (_, chunk) => chunk);
  #spareCount = CHUNKS_INITIAL;
  /** After `seek`: the first start above the one that was sought; Infinity if there is none. */
  after = 0;
  #soughtEntry = 0;
  #soughtPlace = 0;

  /** The number of the last start that is not above `sector`; -1 if all are. */
  lastFrom(sector: number): number {
    const entry = this.#entryOf(sector);
    if (entry < 0) return -1;
    const chunk = this.#chunk[entry];
    return this.#numbers[this.#past(chunk, sector) - 1];
  }

  /** Looks up where `start` belongs, for `insertSought`: answers with the number of the last start that is not above it, -1 if all are, and sets `after`. */
  seek(start: number): number {
    const entry = this.#entryOf(start);
    this.#soughtEntry = entry < 0 ? 0 : entry;
    this.#soughtPlace = 0;
    this.after = Number.POSITIVE_INFINITY;
    if (this.#chunks === 0) return -1;
    const chunk = this.#chunk[this.#soughtEntry];
    const place = this.#past(chunk, start);
    this.#soughtPlace = place;
    if (place < chunk * CHUNK + this.#length[chunk]) this.after = this.#starts[place];
    else if (this.#soughtEntry + 1 < this.#chunks) this.after = this.#first[this.#soughtEntry + 1];
    return place > chunk * CHUNK ? this.#numbers[place - 1] : -1;
  }

  /** `start` is not there yet. */
  insert(start: number, number: number): void {
    this.seek(start);
    this.insertSought(start, number);
  }

  /** At the place that `seek(start)` found just before; `start` is not there yet. */
  insertSought(start: number, number: number): void {
    let entry = this.#soughtEntry;
    let place = this.#soughtPlace;
    if (this.#chunks === 0) {
      this.#open(0);
      place = this.#chunk[0] * CHUNK;
    }
    let chunk = this.#chunk[entry];
    if (this.#length[chunk] === CHUNK) {
      this.#open(entry + 1);
      // Behind the last of a full chunk a new one begins: starts that come in ascending order fill their chunks.
      if (place < (chunk + 1) * CHUNK) this.#move(chunk, CHUNK / 2, this.#chunk[entry + 1]);
      if (place > chunk * CHUNK + CHUNK / 2) {
        place -= chunk * CHUNK + this.#length[chunk];
        entry++;
        chunk = this.#chunk[entry];
        place += chunk * CHUNK;
      }
      this.#first[entry] = this.#starts[chunk * CHUNK];
      if (entry + 1 < this.#chunks) this.#first[entry + 1] = this.#starts[this.#chunk[entry + 1] * CHUNK];
    }
    const starts = this.#starts;
    const numbers = this.#numbers;
    for (let at = chunk * CHUNK + this.#length[chunk]; at > place; at--) {
      starts[at] = starts[at - 1];
      numbers[at] = numbers[at - 1];
    }
    starts[place] = start;
    numbers[place] = number;
    this.#length[chunk]++;
    if (place === chunk * CHUNK) this.#first[entry] = start;
  }

  remove(start: number, number: number): void {
    const entry = this.#entryOf(start);
    const chunk = entry < 0 ? -1 : this.#chunk[entry];
    const place = entry < 0 ? -1 : this.#past(chunk, start) - 1;
    if (place < 0 || this.#numbers[place] !== number) throw assertionError(`operation ${number} is not in order`);
    const starts = this.#starts;
    const numbers = this.#numbers;
    const length = --this.#length[chunk];
    const end = chunk * CHUNK + length;
    for (let at = place; at < end; at++) {
      starts[at] = starts[at + 1];
      numbers[at] = numbers[at + 1];
    }
    if (length === 0) this.#shut(entry);
    else {
      this.#first[entry] = starts[chunk * CHUNK];
      if (length < SMALL && !this.#merge(entry) && entry > 0) this.#merge(entry - 1);
    }
  }

  /** The last entry of the directory whose first start is not above `sector`; -1 if all are. */
  #entryOf(sector: number): number {
    const first = this.#first;
    let low = 0;
    let high = this.#chunks;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (first[middle] <= sector) low = middle + 1;
      else high = middle;
    }
    return low - 1;
  }

  /** Where in `#starts` the first of the chunk's starts above `sector` is. */
  #past(chunk: number, sector: number): number {
    const starts = this.#starts;
    let low = chunk * CHUNK;
    let high = low + this.#length[chunk];
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (starts[middle] <= sector) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  /** Puts an empty chunk into the directory. */
  #open(entry: number): void {
    if (this.#spareCount === 0) this.#grow();
    const chunk = this.#spare[--this.#spareCount];
    this.#length[chunk] = 0;
    this.#first.copyWithin(entry + 1, entry, this.#chunks);
    this.#chunk.copyWithin(entry + 1, entry, this.#chunks);
    this.#chunk[entry] = chunk;
    this.#chunks++;
  }

  /** Takes a chunk out of the directory. */
  #shut(entry: number): void {
    this.#spare[this.#spareCount++] = this.#chunk[entry];
    this.#first.copyWithin(entry, entry + 1, this.#chunks);
    this.#chunk.copyWithin(entry, entry + 1, this.#chunks);
    this.#chunks--;
  }

  /** Moves what is in a chunk from its `from`-th on to the end of another. */
  #move(chunk: number, from: number, to: number): void {
    const begin = chunk * CHUNK + from;
    const end = chunk * CHUNK + this.#length[chunk];
    const target = to * CHUNK + this.#length[to];
    this.#starts.copyWithin(target, begin, end);
    this.#numbers.copyWithin(target, begin, end);
    this.#length[to] += end - begin;
    this.#length[chunk] = from;
  }

  /** Makes one chunk of an entry's and the next, if both are far from full. */
  #merge(entry: number): boolean {
    if (entry + 1 >= this.#chunks) return false;
    const chunk = this.#chunk[entry];
    const next = this.#chunk[entry + 1];
    if (this.#length[chunk] + this.#length[next] > MERGED_MAX) return false;
    this.#move(next, 0, chunk);
    this.#shut(entry + 1);
    return true;
  }

  #grow(): void {
    const before = this.#length.length;
    const after = before * 2;
    this.#first = widen(this.#first, new Float64Array(after));
    this.#chunk = widen(this.#chunk, new Int32Array(after));
    this.#length = widen(this.#length, new Int32Array(after));
    this.#starts = widen(this.#starts, new Float64Array(after * CHUNK));
    this.#numbers = widen(this.#numbers, new Int32Array(after * CHUNK));
    this.#spare = new Int32Array(after);
    for (let chunk = before; chunk < after; chunk++) this.#spare[this.#spareCount++] = chunk;
  }
}

/** The longer array, with what the shorter one holds at its beginning. */
export function widen<A extends Uint8Array | Uint16Array | Int32Array | Uint32Array | Float64Array>(from: A, into: A): A {
  into.set(from);
  return into;
}
