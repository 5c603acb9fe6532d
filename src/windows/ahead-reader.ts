/**
 * Reads ahead for a file: asks the detector what is due, and the request manager for it when nobody else is waiting.
 *
 * Guarantees: read-ahead takes slots and memory only after everybody in line was served, holds no memory once it is there, and is told to nobody, its errors included: the later read
 * says what is wrong.
 * Leaves to others: what is due (`requests/read-ahead.ts`), memory and its reserves (the two `Access`).
 */
import { BLOCK_BYTES, SECTOR_BYTES } from '../memory/block-store.js';
import { type Piece, ReadAhead } from '../requests/read-ahead.js';
import type { Caller, RequestManager } from '../requests/request-manager.js';
import type { Access } from './access.js';
import { WindowRequest } from './window-request.js';

/** Bytes that all streams of a file together are ahead at most; in direct mode also no more than half of the frames. */
export const AHEAD_BYTES_MAX = 64 * 1024 * 1024;

const nothing = (): void => {};

export interface AheadOptions {
  access: Access;
  manager: RequestManager;
  /** As `OpenOptions.readAhead`; a `max` of 0 for none. */
  limits: { initial: number; max: number };
  /** Bytes that memory holds at once. */
  capacity: number;
}

export class AheadReader {
  /** Bytes that were asked of the device ahead of need. */
  bytes = 0;
  /** Begin and end of the last hit, for whoever answers it to write. */
  readonly last: Float64Array;
  readonly #access: Access;
  readonly #manager: RequestManager;
  readonly #detector: ReadAhead;
  readonly #piece: Piece = { offset: 0, length: 0 };
  readonly #callers = new Set<Caller>();
  /** The last piece found no room: hits do not try again, turns do. */
  #short = false;
  #stopped = false;

  constructor({ access, manager, limits, capacity }: AheadOptions) {
    this.#access = access;
    this.#manager = manager;
    this.#detector = new ReadAhead({ ...limits, budget: Math.min(AHEAD_BYTES_MAX, Math.floor(capacity / 2)) });
    this.last = this.#detector.last;
    if (!this.#detector.enabled) return;
    manager.whenSpare = () => this.#issue();
    access.onAheadLost = (offset) => this.#detector.lost(offset);
  }

  /** Streams that are followed. While it is 0 hits need not be reported. */
  get active(): number {
    return this.#detector.active;
  }

  /** Bytes that streams were ahead of their readers when they ended. */
  get unused(): number {
    return this.#detector.unused;
  }

  /** Asked for, and in memory. Answers whether the next turn has something to send for it. */
  hit(offset: number, length: number): boolean {
    this.#detector.hit(offset, length);
    if (!this.#detector.due || this.#short) return false;
    this.#manager.schedule();
    return true;
  }

  /** Asked for, and not in memory; before it is asked of the manager. */
  miss(offset: number, length: number): void {
    if (!this.#detector.enabled || length === 0) return;
    // Whether it is on its way matters to streams alone.
    let coming = false;
    if (this.#detector.active > 0) {
      const first = Math.floor(offset / SECTOR_BYTES);
      coming = this.#manager.operations.touches(first, Math.ceil((offset + length) / SECTOR_BYTES) - first);
    }
    this.#detector.miss(offset, length, coming);
  }

  /** Somebody will read in order from `offset` to `end`; the name is for `undeclare`. */
  declare(offset: number, end: number): number {
    return this.#stopped ? 0 : this.#detector.declare(offset, end);
  }

  undeclare(name: number): void {
    this.#detector.undeclare(name);
  }

  /** The range is leaving memory, or the file. What is on its way there is nobody's concern any more. */
  drop(offset: number, length: number): void {
    this.#detector.drop(offset, length);
    for (const caller of this.#callers) {
      const from = caller.first * BLOCK_BYTES;
      if (from < offset + length && from + caller.count * BLOCK_BYTES > offset) this.#abandon(caller);
    }
  }

  /** Nothing is read ahead any more. */
  stop(): void {
    if (this.#stopped) return;
    this.#stopped = true;
    this.#manager.whenSpare = undefined;
    this.#detector.dropAll();
    for (const caller of this.#callers) this.#abandon(caller);
  }

  /** Within a turn of the manager, after everybody in line was served. */
  #issue(): void {
    this.#short = false;
    const detector = this.#detector;
    const piece = this.#piece;
    while (detector.next(piece, this.#access.aheadPieceBytes, this.#access.ground.logical)) {
      const { offset, length } = piece;
      const caller = new WindowRequest(this.#access, offset, length, nothing, nothing, (error) => {
        this.#callers.delete(caller);
        if (error !== undefined) detector.failed((error as { offset?: number }).offset ?? offset);
      });
      const bytes = this.#access.askAhead(caller);
      if (bytes < 0) {
        this.#short = true;
        return;
      }
      this.#callers.add(caller);
      this.bytes += bytes;
      detector.taken(piece, bytes);
    }
  }

  #abandon(caller: Caller): void {
    this.#callers.delete(caller);
    this.#manager.abandon(caller);
  }
}
