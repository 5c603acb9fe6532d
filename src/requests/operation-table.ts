/**
 * Reads and writes on their way: disjoint intervals of sectors, kept in order, and who waits on each.
 *
 *   order    0‥8 | 64‥72 | 1024‥3072 | …         no two overlap, so "last start ≤ sector" finds the only candidate (`sector-order.ts`)
 *   waiters  op ─> link ─> link ─> …              slot handles; a handle whose slot was given back is skipped, never followed
 *
 * Guarantees: inserting an interval that overlaps another throws; a handle of a finished operation is refused; nothing is
 * allocated after construction, except that the pools double when more operations exist than ever before.
 * Leaves to others: what to do when one ends (`request-manager.ts`).
 */
import { assertionError } from '../errors.js';
import { SectorOrder, widen } from './sector-order.js';

export const KIND_READ = 0;
export const KIND_WRITE = 1;
/** Truncate, sync and the like: no sectors, not in the order. */
export const KIND_CONTROL = 2;

const INDEX_BITS = 18;
const INDEX_MASK = (1 << INDEX_BITS) - 1;
const GENERATION_MASK = (1 << (32 - INDEX_BITS)) - 1;

/** Operations that can exist at once, queued or in flight: what fits in a handle's index. */
export const OPERATIONS_MAX = 1 << INDEX_BITS;
const OPERATIONS_INITIAL = 1024;

export class OperationTable {
  /** First sector. */
  start = new Float64Array(OPERATIONS_INITIAL);
  /** Sectors. */
  sectors = new Int32Array(OPERATIONS_INITIAL);
  kind = new Uint8Array(OPERATIONS_INITIAL);
  slab = new Int32Array(OPERATIONS_INITIAL);
  /** Bytes into the slab where the first sector's bytes are. */
  offset = new Float64Array(OPERATIONS_INITIAL);
  /** Bytes already transferred, a multiple of the alignment: a short transfer goes on from there. */
  done = new Float64Array(OPERATIONS_INITIAL);
  /** 1: a neighbour was sent in the same batch, and the kernel may have made one request of both. */
  neighboured = new Uint8Array(OPERATIONS_INITIAL);
  /** Of a write, how it is done: the flags of `RequestManager.write`. */
  flags = new Uint8Array(OPERATIONS_INITIAL);
  /** Times that it was sent again without having moved. */
  attempts = new Uint8Array(OPERATIONS_INITIAL);
  /** Next in whichever list it is in: the queue to be sent, or the free list. */
  next = new Int32Array(OPERATIONS_INITIAL);
  /** First link of its waiters, -1 for none. */
  waiters = new Int32Array(OPERATIONS_INITIAL).fill(-1);
  #generation = new Uint16Array(OPERATIONS_INITIAL).fill(1);
  #live = new Uint8Array(OPERATIONS_INITIAL);
  #capacity = OPERATIONS_INITIAL;
  #freeHead = -1;
  #count = 0;

  #linkSlot = new Int32Array(OPERATIONS_INITIAL);
  #linkNext = new Int32Array(OPERATIONS_INITIAL);
  #linkFree = -1;

  readonly #order = new SectorOrder();

  constructor() {
    this.#threadFree(0);
    this.#threadLinks(0);
  }

  /** Operations that exist. */
  get count(): number {
    return this.#count;
  }

  create(kind: number, start: number, sectors: number, slab: number, offset: number): number {
    if (kind !== KIND_CONTROL) {
      const before = this.#order.seek(start);
      if (this.#order.after < start + sectors || (before >= 0 && this.start[before] + this.sectors[before] > start)) {
        throw assertionError(`operations overlap at sector ${start}`);
      }
    }
    if (this.#freeHead < 0) this.#grow();
    const operation = this.#freeHead;
    this.#freeHead = this.next[operation];
    this.#live[operation] = 1;
    this.kind[operation] = kind;
    this.start[operation] = start;
    this.sectors[operation] = sectors;
    this.slab[operation] = slab;
    this.offset[operation] = offset;
    this.done[operation] = 0;
    this.attempts[operation] = 0;
    this.neighboured[operation] = 0;
    this.flags[operation] = 0;
    this.waiters[operation] = -1;
    this.next[operation] = -1;
    this.#count++;
    if (kind !== KIND_CONTROL) this.#order.insertSought(start, operation);
    return operation;
  }

  /** Frees the operation and its links; its handle is refused from now on. */
  destroy(operation: number): void {
    if (this.#live[operation] === 0) throw assertionError(`operation ${operation} ended twice`);
    if (this.kind[operation] !== KIND_CONTROL) this.#order.remove(this.start[operation], operation);
    for (let link = this.waiters[operation]; link >= 0; ) {
      const after = this.#linkNext[link];
      this.#linkNext[link] = this.#linkFree;
      this.#linkFree = link;
      link = after;
    }
    this.waiters[operation] = -1;
    this.#live[operation] = 0;
    this.renew(operation);
    this.next[operation] = this.#freeHead;
    this.#freeHead = operation;
    this.#count--;
  }

  /** Every handle given out so far is refused from now on: before the operation is sent again, so that a second completion of the first try is not taken for it. */
  renew(operation: number): void {
    const generation = (this.#generation[operation] + 1) & GENERATION_MASK;
    this.#generation[operation] = generation === 0 ? 1 : generation;
  }

  /** A signed number, so that V8 keeps it without a heap object. */
  handle(operation: number): number {
    return (this.#generation[operation] << INDEX_BITS) | operation;
  }

  /** The operation of a handle, -1 if it ended since. */
  resolve(handle: number): number {
    const operation = handle & INDEX_MASK;
    return operation < this.#capacity && this.#live[operation] === 1 && this.#generation[operation] === handle >>> INDEX_BITS ? operation : -1;
  }

  /** `slotHandle` waits on the operation from now on. */
  link(operation: number, slotHandle: number): void {
    if (this.#linkFree < 0) this.#growLinks();
    const link = this.#linkFree;
    this.#linkFree = this.#linkNext[link];
    this.#linkSlot[link] = slotHandle;
    this.#linkNext[link] = this.waiters[operation];
    this.waiters[operation] = link;
  }

  linkSlot(link: number): number {
    return this.#linkSlot[link];
  }

  linkNext(link: number): number {
    return this.#linkNext[link];
  }

  /** The operation that covers the sector, -1 if none does. */
  at(sector: number): number {
    const operation = this.#order.lastFrom(sector);
    return operation >= 0 && sector < this.start[operation] + this.sectors[operation] ? operation : -1;
  }

  /** Does any operation touch [start, start+sectors)? */
  touches(start: number, sectors: number): boolean {
    const operation = this.#order.lastFrom(start + sectors - 1);
    return operation >= 0 && this.start[operation] + this.sectors[operation] > start;
  }

  #threadFree(from: number): void {
    for (let operation = this.#capacity - 1; operation >= from; operation--) {
      this.next[operation] = this.#freeHead;
      this.#freeHead = operation;
    }
  }

  #threadLinks(from: number): void {
    for (let link = this.#linkSlot.length - 1; link >= from; link--) {
      this.#linkNext[link] = this.#linkFree;
      this.#linkFree = link;
    }
  }

  #grow(): void {
    const before = this.#capacity;
    if (before === OPERATIONS_MAX) throw assertionError(`more than ${OPERATIONS_MAX} operations`);
    this.#capacity = before * 2;
    this.start = widen(this.start, new Float64Array(this.#capacity));
    this.sectors = widen(this.sectors, new Int32Array(this.#capacity));
    this.kind = widen(this.kind, new Uint8Array(this.#capacity));
    this.slab = widen(this.slab, new Int32Array(this.#capacity));
    this.offset = widen(this.offset, new Float64Array(this.#capacity));
    this.done = widen(this.done, new Float64Array(this.#capacity));
    this.attempts = widen(this.attempts, new Uint8Array(this.#capacity));
    this.neighboured = widen(this.neighboured, new Uint8Array(this.#capacity));
    this.flags = widen(this.flags, new Uint8Array(this.#capacity));
    this.next = widen(this.next, new Int32Array(this.#capacity));
    this.waiters = widen(this.waiters, new Int32Array(this.#capacity).fill(-1));
    this.#generation = widen(this.#generation, new Uint16Array(this.#capacity).fill(1));
    this.#live = widen(this.#live, new Uint8Array(this.#capacity));
    this.#threadFree(before);
  }

  #growLinks(): void {
    const before = this.#linkSlot.length;
    this.#linkSlot = widen(this.#linkSlot, new Int32Array(before * 2));
    this.#linkNext = widen(this.#linkNext, new Int32Array(before * 2));
    this.#threadLinks(before);
  }
}
