/**
 * Random numbers that come again: everything the simulated disk leaves to chance is drawn here.
 *
 * The generator is sfc32 (128 bits of state, from Chris Doty-Humphrey's PractRand), seeded through a 32-bit mixer.
 * Guarantees: the same seed and stream give the same numbers on every machine; two streams of one seed are unrelated, so that
 * each operation can have its own and a draw more in one does not shift the draws of the next.
 * Not for secrets.
 */

const TWO_POW_32 = 0x1_0000_0000;
/** Outputs thrown away after seeding, until every bit of the seed has reached every bit of the state. */
const warmUpDraws = 12;

/** A seeded source of random numbers. */
export class Random {
  #a: number;
  #b: number;
  #c: number;
  #counter = 1;

  /**
   * @param seed - any safe integer.
   * @param stream - which of the seed's unrelated sequences; any safe integer. Default 0.
   */
  constructor(seed: number, stream = 0) {
    this.#a = mix(seed | 0, 0x9e3779b9) ^ mix(Math.floor(seed / TWO_POW_32) | 0, 0x85ebca6b);
    this.#b = mix(stream | 0, 0xc2b2ae35);
    this.#c = mix(Math.floor(stream / TWO_POW_32) | 0, 0x27d4eb2f);
    for (let draw = 0; draw < warmUpDraws; draw++) this.next();
  }

  /** An integer from 0 to 2^32 - 1. */
  next(): number {
    const out = (this.#a + this.#b + this.#counter) | 0;
    this.#counter = (this.#counter + 1) | 0;
    this.#a = this.#b ^ (this.#b >>> 9);
    this.#b = (this.#c + (this.#c << 3)) | 0;
    this.#c = (((this.#c << 21) | (this.#c >>> 11)) + out) | 0;
    return out >>> 0;
  }

  /** A number from 0 up to but not including 1. */
  fraction(): number {
    return this.next() / TWO_POW_32;
  }

  /** An integer from 0 to `limit` - 1; 0 where `limit` is 1 or less. */
  below(limit: number): number {
    return limit <= 1 ? 0 : Math.floor(((this.next() >>> 5) * 0x400_0000 + (this.next() >>> 6)) * 2 ** -53 * limit);
  }

  /** An integer from `least` to `most`, both included. */
  between(least: number, most: number): number {
    return least + this.below(most - least + 1);
  }

  /** True with this probability: never at 0, always at 1. */
  chance(probability: number): boolean {
    return this.fraction() < probability;
  }

  /** Fills `target` with random bytes and answers with it. */
  fill(target: Uint8Array): Uint8Array {
    let index = 0;
    for (; index + 4 <= target.length; index += 4) {
      const word = this.next();
      target[index] = word;
      target[index + 1] = word >>> 8;
      target[index + 2] = word >>> 16;
      target[index + 3] = word >>> 24;
    }
    for (; index < target.length; index++) target[index] = this.next();
    return target;
  }
}

/** Spreads each bit of `value` over all 32 (the finisher of MurmurHash3). */
function mix(value: number, salt: number): number {
  let hash = Math.imul(value ^ salt, 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
  return (hash ^ (hash >>> 16) ^ salt) | 0;
}
