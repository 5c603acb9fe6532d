/**
 * Block number → frame, by open addressing over one typed array.
 *
 *   table   [ 0 | tag f+1 | tag f+1 | 0 | … ]    at most three quarters full; the block's number itself is in its frame's record
 *
 * Blocks of one run of eight hash side by side, so that a sequential reader walks memory forward. A slot's upper bits are a tag of its block: of the frames that a
 * lookup passes by, nearly none is looked at, so that it touches one line of the table and one record.
 * Guarantees: no allocation, no hashing of objects, no division.
 */
import * as layout from './frame-record.js';
import type { Tables } from './tables.js';

/** Taken into this module: V8 knows a constant of the module that it compiles, and reads one of another module from memory each time. */
const { BLOCK_HIGH, BLOCK_LOW, FRAME_WORDS, NO_BLOCK } = layout;

/** With tags a lookup that passes by others stays within one or two lines of the table. */
const LOAD_MAX = 0.75;
const RUN_BITS = 3;
const RUN_MASK = (1 << RUN_BITS) - 1;
/** Bits that a frame's number moves up by to be the place of its record. Written out: the result of a function would not be known when V8 compiles. */
const RECORD_SHIFT = 2;

export class BlockTable {
  readonly #table: Int32Array;
  readonly #words: Int32Array;
  readonly #mask: number;
  readonly #shift: number;
  /** Of a slot: the frame and one, and above it the tag. */
  readonly #frameBits: number;
  readonly #frameMask: number;

  /** `words` holds the frames' records (`frame-record.ts`). */
  constructor(words: Int32Array, tables?: Tables) {
    const frames = words.length / FRAME_WORDS;
    const bits = Math.max(6, Math.ceil(Math.log2(frames / LOAD_MAX)));
    this.#table = tables?.int32(1 << bits) ?? new Int32Array(1 << bits);
    this.#words = words;
    this.#mask = (1 << bits) - 1;
    this.#shift = 32 - (bits - RUN_BITS);
    this.#frameBits = Math.ceil(Math.log2(frames + 1));
    this.#frameMask = (1 << this.#frameBits) - 1;
  }

  /** The frame that holds the block, -1 if none does. */
  find(block: number): number {
    const table = this.#table;
    const words = this.#words;
    const frameMask = this.#frameMask;
    const low = block | 0;
    const high = ((block * 2 ** -32) | 0) + 1;
    const hash = hashOf(low, high);
    const tag = hash << this.#frameBits;
    for (let i = ((hash >>> this.#shift) << RUN_BITS) | (low & RUN_MASK); ; i++) {
      const slot = table[i & this.#mask];
      if (slot === 0) return -1;
      if (((slot ^ tag) & ~frameMask) !== 0) continue;
      const frame = (slot & frameMask) - 1;
      const record = frame << RECORD_SHIFT;
      if (words[record + BLOCK_LOW] === low && words[record + BLOCK_HIGH] === high) return frame;
    }
  }

  /** The frame, which holds no block, holds this one from now on; no other does. */
  insert(frame: number, block: number): void {
    const low = block | 0;
    const high = ((block * 2 ** -32) | 0) + 1;
    this.#words[frame * FRAME_WORDS + BLOCK_LOW] = low;
    this.#words[frame * FRAME_WORDS + BLOCK_HIGH] = high;
    let i = this.#home(low, high);
    while (this.#table[i] !== 0) i = (i + 1) & this.#mask;
    this.#table[i] = (hashOf(low, high) << this.#frameBits) | (frame + 1);
  }

  /** The frame holds no block from now on. */
  remove(frame: number): void {
    const table = this.#table;
    const words = this.#words;
    const mask = this.#mask;
    const frameMask = this.#frameMask;
    const record = frame * FRAME_WORDS;
    let hole = this.#home(words[record + BLOCK_LOW], words[record + BLOCK_HIGH]);
    while ((table[hole] & frameMask) !== frame + 1) hole = (hole + 1) & mask;
    words[record + BLOCK_HIGH] = NO_BLOCK;
    // Entries behind the hole move up unless that would take them before their home.
    for (let i = (hole + 1) & mask; table[i] !== 0; i = (i + 1) & mask) {
      const other = ((table[i] & frameMask) - 1) * FRAME_WORDS;
      const home = this.#home(words[other + BLOCK_LOW], words[other + BLOCK_HIGH]);
      if (((i - home) & mask) >= ((i - hole) & mask)) {
        table[hole] = table[i];
        hole = i;
      }
    }
    table[hole] = 0;
  }

  #home(low: number, high: number): number {
    return ((hashOf(low, high) >>> this.#shift) << RUN_BITS) | (low & RUN_MASK);
  }
}

/** Of the run that a block is in: the upper bits say where, the lower ones are the tag. */
function hashOf(low: number, high: number): number {
  const mixed = Math.imul((low >>> RUN_BITS) ^ Math.imul(high, 0x85ebca6b), 0x9e3779b1);
  // The lower bits of a product say little by themselves; the upper ones do not change.
  return mixed ^ (mixed >>> 16);
}
