/**
 * Memory that is lent to one operation at a time: what writes go out from, when not from the frames themselves, and what is read back of them.
 *
 *   blocks  [ 0 0 0 | 1 1 | · · · | 2 · · ]      one slab; an operation has neighbouring blocks of it until it ends
 *
 * A copy of what is written costs a fraction of a microsecond for each block, and buys three things: dirty blocks whose frames are apart go out as one operation, nothing can change under the device, and nobody has to
 * wait with a store into a block that is being written.
 *
 * Guarantees: a block is lent to one operation at a time. Leaves to others: what it is for, and when it is given back (`requests/write-back.ts`, `requests/verification.ts`).
 */
import type { Engine, Slab } from '../io/engine.js';
import { BLOCK_BYTES } from './block-store.js';

/** 2 MiB: copies on their way at once. More would only wait in the queue of the device. */
export const STAGING_BLOCKS = 512;

export class Staging {
  /** The engine's index of the slab; -1 where there is none. */
  readonly index: number = -1;
  readonly bytes: Uint8Array;
  /** The memory itself; undefined where there is none. */
  readonly slab: Slab | undefined;
  /** How many blocks the last `take` got. */
  got = 0;
  readonly #taken: Uint8Array;
  #free: number;
  /** Where the next search begins: what was given back last is taken last. */
  #next = 0;

  /** `blocks` of 0 for a file that nobody may write to. */
  constructor(engine: Engine, makeSlab: (bytes: number) => Slab, blocks = STAGING_BLOCKS) {
    const slab = blocks === 0 ? undefined : makeSlab(blocks * BLOCK_BYTES);
    this.slab = slab;
    try {
      if (slab !== undefined) this.index = engine.addSlab(slab);
    } catch (error) {
      slab?.close();
      throw error;
    }
    this.bytes = slab === undefined ? new Uint8Array(0) : new Uint8Array(slab.shared);
    this.#taken = new Uint8Array(blocks);
    this.#free = blocks;
  }

  get blocks(): number {
    return this.#taken.length;
  }

  /** Blocks that nobody has. */
  get free(): number {
    return this.#free;
  }

  /** Lends `count` neighbouring blocks, or as many as there are together: answers with the first and sets `got`; -1 if there is none. */
  take(count: number): number {
    this.got = 0;
    if (this.#free === 0) return -1;
    const taken = this.#taken;
    let best = -1;
    let from = this.#next;
    // Each look goes at most one block beyond what it looked at, and one round may be cut in two at the end.
    for (let looked = 0; looked < taken.length + 2 && this.got < count; ) {
      if (from === taken.length) from = 0;
      let run = 0;
      while (run < count && from + run < taken.length && taken[from + run] === 0) run++;
      if (run > this.got) {
        this.got = run;
        best = from;
      }
      from += run + 1;
      looked += run + 1;
      if (from > taken.length) from = 0;
    }
    taken.fill(1, best, best + this.got);
    this.#free -= this.got;
    this.#next = best + this.got;
    return best;
  }

  /** The operation that had [first, first+count) ended. */
  give(first: number, count: number): void {
    this.#taken.fill(0, first, first + count);
    this.#free += count;
    // What is warm in the processor's cache is used again, while nothing else is out.
    if (this.#free === this.#taken.length) this.#next = 0;
  }

  /** Nothing is in flight. */
  close(): void {
    this.slab?.close();
  }
}
