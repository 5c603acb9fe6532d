/**
 * The ring as TypeScript drives it: entries are written into the engine's memory and handed over in one call, completions are read
 * from its queues without one.
 *
 * Guarantees: never more than `depth` entries in flight; each completion is handed to the consumer once; the published head moves only
 * after the completions before it were read.
 * Leaves to others: what a handle means (`requests/`).
 */
import { assertionError } from '../errors.js';
import {
  CONTROL_ARMED,
  type CompletionQueue,
  ENTRY_FILE,
  ENTRY_HANDLE,
  ENTRY_LENGTH,
  ENTRY_OPERATION,
  ENTRY_POSITION_HIGH,
  ENTRY_POSITION_LOW,
  ENTRY_SLAB,
  ENTRY_SLAB_OFFSET,
  ENTRY_WORDS,
  type Engine,
} from './engine.js';

const TWO_32 = 2 ** 32;

/** Whoever sent the entries: gets each completion. */
export interface CompletionConsumer {
  /** `result` is what the operation's system call returned: bytes or -errno. */
  complete(handle: number, result: number): void;
}

export class Ring {
  readonly engine: Engine;
  /** Entries handed over and not completed. */
  inFlight = 0;
  #filled = 0;
  readonly #heads: Int32Array;
  readonly #entries: Int32Array;
  readonly #depth: number;
  #first: CompletionQueue;
  #second: CompletionQueue | undefined;
  #referenced = false;

  constructor(engine: Engine) {
    this.engine = engine;
    this.#entries = engine.entries;
    this.#depth = engine.depth;
    this.#first = engine.queues[0];
    this.#second = engine.queues[1];
    this.#heads = new Int32Array(engine.queues.length);
  }

  /** Entries that could be pushed now. */
  get space(): number {
    return this.#depth - this.inFlight - this.#filled;
  }

  /** Writes an entry. `position` and `length` are bytes. Only with `space`. */
  push(operation: number, file: number, slab: number, slabOffset: number, length: number, position: number, handle: number): void {
    if (this.space <= 0) throw assertionError('an entry beyond the depth of the ring');
    const at = this.#filled++ * ENTRY_WORDS;
    const entries = this.#entries;
    entries[at + ENTRY_OPERATION] = operation;
    entries[at + ENTRY_FILE] = file;
    entries[at + ENTRY_SLAB] = slab;
    entries[at + ENTRY_SLAB_OFFSET] = slabOffset;
    entries[at + ENTRY_LENGTH] = length;
    entries[at + ENTRY_POSITION_LOW] = position;
    entries[at + ENTRY_POSITION_HIGH] = position / TWO_32;
    entries[at + ENTRY_HANDLE] = handle;
  }

  /** Hands over what was pushed. */
  flush(): void {
    const count = this.#filled;
    if (count === 0) return;
    this.#filled = 0;
    this.inFlight += count;
    this.engine.submit(count);
  }

  /** Gives visible completions to the consumer, `limit` of each queue at most; answers with how many there were. */
  drain(consumer: CompletionConsumer, limit: number): number {
    let seen = this.#drainQueue(this.#first, 0, consumer, limit);
    if (this.#second !== undefined) seen += this.#drainQueue(this.#second, 1, consumer, limit);
    return seen;
  }

  /** From now on the next completion wakes the event loop. Answers false if one is there already. */
  arm(): boolean {
    Atomics.store(this.engine.control, CONTROL_ARMED, 1);
    return !this.#pending(this.#first, 0) && (this.#second === undefined || !this.#pending(this.#second, 1));
  }

  /** The event loop stays alive for the ring while `busy`. */
  hold(busy: boolean): void {
    if (busy === this.#referenced) return;
    this.#referenced = busy;
    if (busy) this.engine.ref();
    else this.engine.unref();
  }

  #pending(queue: CompletionQueue, index: number): boolean {
    return Atomics.load(queue.words, queue.tail) !== this.#heads[index];
  }

  #drainQueue(queue: CompletionQueue, index: number, consumer: CompletionConsumer, limit: number): number {
    const words = queue.words;
    const tail = Atomics.load(words, queue.tail);
    let head = this.#heads[index];
    if (head === tail) return 0;
    let seen = 0;
    while (head !== tail && seen < limit) {
      const at = queue.first + ((head & queue.mask) << 2);
      const handle = words[at];
      const result = words[at + 2];
      head = (head + 1) | 0;
      seen++;
      this.#heads[index] = head;
      consumer.complete(handle, result);
    }
    Atomics.store(this.engine.control, queue.head, head);
    return seen;
  }
}
