/**
 * Blocks that left memory lately: whoever asks for one of them again is told so, and it gets a better place.
 *
 *   words   [ tag age | tag age | … ]    buckets of eight; the tag is 18 bits of the block's hash, the age the number of evictions when it left, in steps
 *
 * Guarantees: bounded: one word for each frame or two, whatever is asked for; no allocation after construction. May take one block for another (some 1 in 30,000 blocks that are not in it), and
 * may forget one early where its bucket is full: both cost a little of the hit rate and nothing else.
 */
import type { Tables } from './tables.js';

const BUCKET_BITS = 3;
const BUCKET = 1 << BUCKET_BITS;
const AGE_BITS = 14;
const AGE_MASK = (1 << AGE_BITS) - 1;
/** Steps of age that what is remembered is spread over. */
const STEPS = 1 << (AGE_BITS - 2);

export class GhostTable {
  /** Blocks that are remembered at most. */
  readonly capacity: number;
  readonly #words: Uint32Array;
  readonly #shift: number;
  /** Evictions of one step. */
  readonly #perStep: number;
  #inStep = 0;
  /** 1 to AGE_MASK, round and round; 0 is an empty word. */
  #now = 1;

  constructor(capacity: number, tables?: Tables) {
    this.capacity = capacity;
    const bits = Math.max(BUCKET_BITS + 1, Math.ceil(Math.log2(capacity)));
    this.#words = tables?.uint32(1 << bits) ?? new Uint32Array(1 << bits);
    this.#shift = 32 - (bits - BUCKET_BITS);
    this.#perStep = Math.max(1, Math.ceil(capacity / STEPS));
  }

  /** The block left memory. Its number comes in two words, as in its frame's record. */
  add(low: number, high: number): void {
    const words = this.#words;
    if (++this.#inStep >= this.#perStep) {
      this.#inStep = 0;
      this.#now = (this.#now % AGE_MASK) + 1;
    }
    const hash = hashOf(low, high);
    const first = (hash >>> this.#shift) << BUCKET_BITS;
    let place = first;
    let oldest = -1;
    for (let at = first; at < first + BUCKET; at++) {
      const age = words[at] === 0 ? AGE_MASK + 1 : this.#age(words[at]);
      if (age > oldest) {
        oldest = age;
        place = at;
      }
    }
    words[place] = ((tagOf(hash) << AGE_BITS) | this.#now) >>> 0;
  }

  /** Did the block leave lately? Forgets it. */
  take(low: number, high: number): boolean {
    const words = this.#words;
    const hash = hashOf(low, high);
    const tag = tagOf(hash);
    const first = (hash >>> this.#shift) << BUCKET_BITS;
    for (let at = first; at < first + BUCKET; at++) {
      const word = words[at];
      if (word >>> AGE_BITS !== tag || (word & AGE_MASK) === 0) continue;
      words[at] = 0;
      return this.#age(word) * this.#perStep <= this.capacity;
    }
    return false;
  }

  /** Words that remember a block; for tests. */
  get used(): number {
    let used = 0;
    for (const word of this.#words) if (word !== 0) used++;
    return used;
  }

  #age(word: number): number {
    const age = this.#now - (word & AGE_MASK);
    return age < 0 ? age + AGE_MASK : age;
  }
}

/** Its upper bits choose the bucket, its lower ones are the tag. */
function hashOf(low: number, high: number): number {
  let mixed = low ^ Math.imul(high, 0x85ebca6b);
  mixed = Math.imul(mixed ^ (mixed >>> 16), 0x7feb352d);
  mixed = Math.imul(mixed ^ (mixed >>> 15), 0x846ca68b);
  return mixed ^ (mixed >>> 16);
}

function tagOf(hash: number): number {
  return (hash & 0x3ffff) >>> 0;
}
