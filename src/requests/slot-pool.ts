/**
 * Which requests are waiting for which sectors.
 *
 *   slot        0 1 2 3 …                fixed, allocated once
 *   sectors     [ 8 16 24 | 8 … ]        each slot's share, ascending, all in one region of 2^32 sectors
 *   need        [ ff ff 03 | ff … ]      which of the block's 8 sectors the request asked for
 *   remaining   [ 3 | 1 | … ]            blocks still to come; falls to 0 exactly once
 *   head, next                           a request of several slots is a chain; its head counts the slots still waiting
 *
 * Guarantees: a handle (index and generation) of a reused slot is refused; states change only free → waiting → ready | failed →
 * free, and anything else throws; nothing is allocated after construction.
 * Leaves to others: operations and who waits on them (`operation-table.ts`), when to take and give slots (`request-manager.ts`).
 */
import { assertionError } from '../errors.js';

export const SLOT_FREE = 0;
export const SLOT_WAITING = 1;
export const SLOT_READY = 2;
export const SLOT_FAILED = 3;

const STATE_NAMES = ['free', 'waiting', 'ready', 'failed'];
/** Allowed next states, a bit each. */
const NEXT = [1 << SLOT_WAITING, (1 << SLOT_READY) | (1 << SLOT_FAILED) | (1 << SLOT_FREE), 1 << SLOT_FREE, 1 << SLOT_FREE];

/** Requests that can have slots at once. */
export const REQUEST_SLOTS = 256;
/** Blocks in a slot. */
export const SLOT_BLOCKS = 512;

const INDEX_BITS = 16;
const INDEX_MASK = (1 << INDEX_BITS) - 1;
const GENERATION_MASK = 0xffff;

export class SlotPool {
  readonly slots: number;
  readonly blocksPerSlot: number;
  readonly sectors: Uint32Array;
  readonly need: Uint8Array;
  /** Blocks entered into the slot. */
  readonly count: Int32Array;
  readonly remaining: Int32Array;
  /** The region of 2^32 sectors that the slot's sectors lie in. */
  readonly region: Float64Array;
  /** First slot of the request that this one belongs to. */
  readonly head: Int32Array;
  /** Next slot of the same request, -1 at the end. */
  readonly next: Int32Array;
  /** In the head: slots of the request that still wait. */
  readonly pending: Int32Array;
  readonly #state: Uint8Array;
  readonly #generation: Uint16Array;
  /** A set bit is a free slot. */
  readonly #free: Uint32Array;
  #freeCount: number;
  #promised = 0;
  #hint = 0;

  constructor(slots = REQUEST_SLOTS, blocksPerSlot = SLOT_BLOCKS) {
    this.slots = slots;
    this.blocksPerSlot = blocksPerSlot;
    this.sectors = new Uint32Array(slots * blocksPerSlot);
    this.need = new Uint8Array(slots * blocksPerSlot);
    this.count = new Int32Array(slots);
    this.remaining = new Int32Array(slots);
    this.region = new Float64Array(slots);
    this.head = new Int32Array(slots).fill(-1);
    this.next = new Int32Array(slots).fill(-1);
    this.pending = new Int32Array(slots);
    this.#state = new Uint8Array(slots);
    this.#generation = new Uint16Array(slots).fill(1);
    this.#free = new Uint32Array(Math.ceil(slots / 32));
    for (let slot = 0; slot < slots; slot++) this.#free[slot >>> 5] |= 1 << (slot & 31);
    this.#freeCount = slots;
  }

  /** Slots that are free and not promised. */
  get freeCount(): number {
    return this.#freeCount - this.#promised;
  }

  /** Keeps one slot free for who may need it later; `forgo` gives that up, before `take` or instead of it. Not beyond `freeCount`. */
  promise(): void {
    if (this.freeCount === 0) throw assertionError('a slot was promised that is not there');
    this.#promised++;
  }

  forgo(): void {
    this.#promised--;
  }

  /** A free slot, now waiting with no blocks entered; -1 if there is none. */
  take(): number {
    if (this.freeCount === 0) return -1;
    let word = this.#hint;
    while (this.#free[word] === 0) word = word + 1 === this.#free.length ? 0 : word + 1;
    this.#hint = word;
    const bits = this.#free[word];
    const bit = 31 - Math.clz32(bits & -bits);
    const slot = (word << 5) | bit;
    this.#free[word] = bits & (bits - 1);
    this.#freeCount--;
    this.move(slot, SLOT_WAITING);
    this.count[slot] = 0;
    this.remaining[slot] = 0;
    this.head[slot] = slot;
    this.next[slot] = -1;
    this.pending[slot] = 1;
    return slot;
  }

  /** Gives a slot back; its handle is refused from now on. */
  give(slot: number): void {
    this.move(slot, SLOT_FREE);
    const generation = (this.#generation[slot] + 1) & GENERATION_MASK;
    // Generation 0 never exists, so that 0 is never a handle.
    this.#generation[slot] = generation === 0 ? 1 : generation;
    this.#free[slot >>> 5] |= 1 << (slot & 31);
    this.#freeCount++;
  }

  state(slot: number): number {
    return this.#state[slot];
  }

  /** The only way that a state changes. */
  move(slot: number, to: number): void {
    const from = this.#state[slot];
    if ((NEXT[from] & (1 << to)) === 0) throw assertionError(`slot ${slot} cannot go from ${STATE_NAMES[from]} to ${STATE_NAMES[to]}`);
    this.#state[slot] = to;
  }

  /** A signed number, so that V8 keeps it in a caller's field without a heap object. */
  handle(slot: number): number {
    return (this.#generation[slot] << INDEX_BITS) | slot;
  }

  /** The slot of a handle, or -1 if it was given back since. */
  resolve(handle: number): number {
    const slot = handle & INDEX_MASK;
    return this.#generation[slot] === handle >>> INDEX_BITS && this.#state[slot] !== SLOT_FREE ? slot : -1;
  }
}
