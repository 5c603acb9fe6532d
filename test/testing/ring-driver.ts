/**
 * A small driver of an engine's ring, for tests: submits entries, collects completions, keeps who has which handle.
 */
import {
  COMPLETION_WORDS,
  CONTROL_ARMED,
  createHeapSlab,
  ENTRY_WORDS,
  OP_ALLOCATE,
  OP_DISCARD,
  OP_READ,
  OP_SYNC,
  OP_TRUNCATE,
  OP_WRITE,
  type SimulatedDisk,
  type SimulatedEngine,
} from '../../src/testing/index.js';

export interface Completion {
  handle: number;
  result: number;
}

export class RingDriver {
  readonly engine: SimulatedEngine;
  readonly memory: Uint8Array;
  readonly slab: number;
  readonly completions: Completion[] = [];
  file: number;
  #handle = 0;
  #queued = 0;

  constructor(disk: SimulatedDisk, options: { depth?: number; drive?: 'automatic' | 'manual'; slabBytes?: number } = {}) {
    const { depth = 32, drive = 'manual', slabBytes = 1 << 20 } = options;
    this.engine = disk.engine({ depth, drive });
    this.file = this.engine.addFile(0);
    const slab = createHeapSlab(slabBytes);
    this.slab = this.engine.addSlab(slab);
    this.memory = new Uint8Array(slab.shared);
    this.engine.control[CONTROL_ARMED] = 1;
  }

  /** Puts an entry into the ring; it goes out with `submit`. Answers with its handle. */
  queue(operation: number, position: number, length: number, slabOffset = 0): number {
    const handle = ++this.#handle;
    const entry = [operation, this.file, this.slab, slabOffset, length, position % 2 ** 32, Math.floor(position / 2 ** 32), handle];
    this.engine.entries.set(entry, this.#queued * ENTRY_WORDS);
    this.#queued++;
    return handle;
  }

  submit(): void {
    const count = this.#queued;
    this.#queued = 0;
    this.engine.submit(count);
  }

  /** Takes what is visible in the queue, and arms the next wake-up. */
  take(): Completion[] {
    const [queue] = this.engine.queues;
    const taken: Completion[] = [];
    for (let head = this.engine.control[queue.head]; head !== queue.words[queue.tail]; head = (head + 1) | 0) {
      const at = queue.first + (head & queue.mask) * COMPLETION_WORDS;
      taken.push({ handle: queue.words[at], result: queue.words[at + 2] });
      this.engine.control[queue.head] = (head + 1) | 0;
    }
    this.engine.control[CONTROL_ARMED] = 1;
    this.completions.push(...taken);
    return taken;
  }

  /** Submits what is queued and waits, blocking, until the entry with this handle completed; its result. */
  finish(handle: number): number {
    this.submit();
    for (;;) {
      const found = this.completions.find((completion) => completion.handle === handle) ?? this.take().find((completion) => completion.handle === handle);
      if (found !== undefined) return found.result;
      this.engine.wait();
    }
  }

  read(position: number, length: number, slabOffset = 0): number {
    return this.finish(this.queue(OP_READ, position, length, slabOffset));
  }

  /** Writes bytes of the value `fill`, or what is in the slab. */
  write(position: number, length: number, fill?: number, slabOffset = 0): number {
    if (fill !== undefined) this.memory.fill(fill, slabOffset, slabOffset + length);
    return this.finish(this.queue(OP_WRITE, position, length, slabOffset));
  }

  sync(): number {
    return this.finish(this.queue(OP_SYNC, 0, 0));
  }

  truncate(size: number): number {
    return this.finish(this.queue(OP_TRUNCATE, size, 0));
  }

  allocate(position: number, length: number): number {
    return this.finish(this.queue(OP_ALLOCATE, position, length % 2 ** 32, Math.floor(length / 2 ** 32)));
  }

  discard(position: number, length: number): number {
    return this.finish(this.queue(OP_DISCARD, position, length % 2 ** 32, Math.floor(length / 2 ** 32)));
  }
}
