/**
 * Block number → frame, by open addressing over one typed array.
 *
 *   table   [ 0 | f+1 | f+1 | 0 | … ]    at most half full; the key stays where it is, in the frame's own `blockOf`
 *
 * Blocks of one run of eight hash side by side, so that a sequential reader walks memory forward.
 * Guarantees: no allocation, no hashing of objects, a lookup touches one or two cache lines.
 */
import type { Tables } from './tables.js';

const RUN_BITS = 3;

export class BlockTable {
  readonly #table: Int32Array;
  readonly #mask: number;
  readonly #shift: number;
  readonly #blockOf: Float64Array;

  constructor(blockOf: Float64Array, tables?: Tables) {
    const bits = Math.max(6, Math.ceil(Math.log2(blockOf.length * 2)));
    this.#table = tables?.int32(1 << bits) ?? new Int32Array(1 << bits);
    this.#mask = (1 << bits) - 1;
    this.#shift = 32 - (bits - RUN_BITS);
    this.#blockOf = blockOf;
  }

  #home(block: number): number {
    const low = block | 0;
    return ((Math.imul(low >>> RUN_BITS, 0x9e3779b1) >>> this.#shift) << RUN_BITS) | (low & ((1 << RUN_BITS) - 1));
  }

  /** The frame that holds the block, -1 if none does. */
  find(block: number): number {
    const table = this.#table;
    const mask = this.#mask;
    for (let i = this.#home(block) & mask; ; i = (i + 1) & mask) {
      const frame = table[i] - 1;
      if (frame < 0) return -1;
      if (this.#blockOf[frame] === block) return frame;
    }
  }

  /** The frame's `blockOf` is already set, and no other frame holds that block. */
  insert(frame: number): void {
    let i = this.#home(this.#blockOf[frame]) & this.#mask;
    while (this.#table[i] !== 0) i = (i + 1) & this.#mask;
    this.#table[i] = frame + 1;
  }

  /** Takes the frame out while its `blockOf` is still set. */
  remove(frame: number): void {
    const table = this.#table;
    const mask = this.#mask;
    let hole = this.#home(this.#blockOf[frame]) & mask;
    while (table[hole] !== frame + 1) hole = (hole + 1) & mask;
    // Entries behind the hole move up unless that would take them before their home.
    for (let i = (hole + 1) & mask; table[i] !== 0; i = (i + 1) & mask) {
      const home = this.#home(this.#blockOf[table[i] - 1]) & mask;
      if (((i - home) & mask) >= ((i - hole) & mask)) {
        table[hole] = table[i];
        hole = i;
      }
    }
    table[hole] = 0;
  }
}
