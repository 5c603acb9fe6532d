/**
 * Traces of blocks that a cache is asked for: always the same for the same arguments.
 *
 * Guarantees: block numbers are below `footprint`; which of them are asked for often says nothing about where they lie.
 */
import { seededOrder } from './pattern.js';

export interface Trace {
  name: string;
  /** Different blocks in it. */
  footprint: number;
  blocks: Uint32Array;
}

/** Small, fast and always the same (mulberry32). */
export function seeded(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** The next block by popularity: the k-th most popular of `count` is asked for in proportion to 1/k^skew. */
function zipfSource(count: number, skew: number, seed: number): () => number {
  const random = seeded(seed);
  const order = seededOrder(count, seed);
  const sums = new Float64Array(count);
  let sum = 0;
  for (let rank = 0; rank < count; rank++) {
    sum += (rank + 1) ** -skew;
    sums[rank] = sum;
  }
  return () => {
    const point = random() * sum;
    let low = 0;
    let high = count - 1;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (sums[middle] < point) low = middle + 1;
      else high = middle;
    }
    return order[low];
  };
}

export function zipf(footprint: number, length: number, skew: number, seed: number): Trace {
  const next = zipfSource(footprint, skew, seed);
  return { name: `zipf ${skew}`, footprint, blocks: Uint32Array.from({ length }, next) };
}

/**
 * Point reads of one half of the blocks by popularity, and one reader that goes through the other half again and again, asking for each block `touches` times: as many accesses are its as there are of
 * points.
 */
export function scanMixed(footprint: number, length: number, skew: number, touches: number, seed: number): Trace {
  const half = footprint >>> 1;
  const next = zipfSource(half, skew, seed);
  const random = seeded(seed + 1);
  const blocks = new Uint32Array(length);
  let scanned = 0;
  for (let at = 0; at < length; at++) blocks[at] = random() < 0.5 ? next() : half + (Math.floor(scanned++ / touches) % (footprint - half));
  return { name: touches === 1 ? 'scan and points' : `scan and points, ${touches} records a block`, footprint, blocks };
}

/** Round and round. */
export function loop(footprint: number, length: number): Trace {
  return { name: 'loop', footprint, blocks: Uint32Array.from({ length }, (_, at) => at % footprint) };
}
