/**
 * An engine that does nothing until the test says what happened: entries are kept as they were submitted, and each is completed by hand, with any result, in any
 * order, twice or late if that is what the test is about.
 *
 * Reads that are completed well fill their memory with `contentAt`; writes that are completed well are kept in `written`.
 */
import { COMPLETION_WORDS, CONTROL_ARMED, ENTRY_WORDS, type Engine, FLAG_DURABLE, OP_READ, OP_WRITE, type Slab } from '../../src/io/engine.js';

const QUEUE_ENTRIES = 4096;
const TAIL = 0;
const FIRST = 4;
const HEAD = 1;

/** What the device holds at a byte position: the same for a whole sector, so that a byte says which sector it came from. */
export function contentAt(position: number): number {
  return (Math.floor(position / 512) % 251) + 1;
}

export interface Sent {
  opcode: number;
  slab: number;
  offset: number;
  length: number;
  position: number;
  handle: number;
  durable: boolean;
}

export class ManualEngine implements Engine {
  readonly name = 'simulated';
  readonly depth: number;
  readonly entries: Int32Array;
  readonly control = new Int32Array(2);
  readonly queues;
  /** Submitted and not completed, in the order of submission. */
  readonly sent: Sent[] = [];
  /** Everything that was ever submitted. */
  readonly history: Sent[] = [];
  readonly written: { position: number; bytes: Uint8Array }[] = [];
  readonly slabs: Slab[] = [];
  submissions = 0;
  referenced = false;
  /** Instead of standing still, `wait` lets the test act. */
  onWait: () => void = () => {
    throw new Error('a blocking wait that this test did not expect');
  };
  readonly #words = new Int32Array(FIRST + QUEUE_ENTRIES * COMPLETION_WORDS);
  #tail = 0;
  #onWake: () => void = () => {};
  #onSettled: () => void = () => {};

  constructor(depth = 64) {
    this.depth = depth;
    this.entries = new Int32Array(depth * ENTRY_WORDS);
    this.queues = [{ words: this.#words, tail: TAIL, first: FIRST, mask: QUEUE_ENTRIES - 1, head: HEAD }];
  }

  submit(count: number): void {
    this.submissions++;
    for (let i = 0; i < count; i++) {
      const [operation, , slab, offset, length, low, high, handle] = this.entries.subarray(i * ENTRY_WORDS, (i + 1) * ENTRY_WORDS);
      const entry = {
        opcode: operation & 0xff,
        slab,
        offset: offset >>> 0,
        length: length >>> 0,
        position: (high >>> 0) * 2 ** 32 + (low >>> 0),
        handle: handle >>> 0,
        durable: (operation & FLAG_DURABLE) !== 0,
      };
      this.sent.push(entry);
      this.history.push(entry);
    }
    if (this.sent.length > this.depth) throw new Error('more in flight than the ring has entries');
  }

  collect(): void {}

  wait(): void {
    this.onWait();
  }

  listen(onWake: () => void, onSettled: () => void): void {
    this.#onWake = onWake;
    this.#onSettled = onSettled;
  }

  ref(): void {
    this.referenced = true;
  }

  unref(): void {
    this.referenced = false;
  }

  addFile(): number {
    return 0;
  }

  addSlab(slab: Slab): number {
    return this.slabs.push(slab) - 1;
  }

  giveBack(): boolean {
    return false;
  }

  close(): void {}

  features(): [] {
    return [];
  }

  /** The entry ends with `result`; by default with all of it done. Its bytes move now. */
  complete(entry: Sent, result = entry.length): void {
    const place = this.sent.indexOf(entry);
    if (place < 0) throw new Error('not in flight');
    this.sent.splice(place, 1);
    if (entry.opcode === OP_READ && result > 0) {
      const bytes = new Uint8Array(this.slabs[entry.slab].shared, entry.offset, result);
      for (let i = 0; i < result; i++) bytes[i] = contentAt(entry.position + i);
    } else if (entry.opcode === OP_WRITE && result > 0) {
      this.written.push({ position: entry.position, bytes: new Uint8Array(this.slabs[entry.slab].shared, entry.offset, result).slice() });
    }
    this.post(entry.handle, result);
  }

  /** A completion appears in the queue, asked for or not. */
  post(handle: number, result: number): void {
    const at = FIRST + (this.#tail & (QUEUE_ENTRIES - 1)) * COMPLETION_WORDS;
    this.#words[at] = handle;
    this.#words[at + 2] = result;
    this.#tail = (this.#tail + 1) | 0;
    Atomics.store(this.#words, TAIL, this.#tail);
  }

  /** As the event loop would: wakes whoever armed it, lets microtasks run, says so. */
  async wake(): Promise<void> {
    if (this.control[CONTROL_ARMED] !== 0) {
      this.control[CONTROL_ARMED] = 0;
      this.#onWake();
      await turn();
      this.#onSettled();
    }
    await turn();
  }
}

/** Lets everything run that is due: microtasks, and what they put off to the next turn. */
export function turn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}
