/**
 * Typed arrays cut from one piece of memory that no child of the process inherits.
 *
 * Starting a child copies the page table of what malloc handed out, the memory of every typed array included: the tables of a cache of 4 GiB are 40 MiB, and cost each start a millisecond or two.
 * Guarantees: arrays are zeroed and do not overlap; address space that no array takes costs no memory.
 * Leaves to others: what the numbers mean.
 */
import { assertionError } from '../errors.js';
import { native } from '../io/native.js';

/** Arrays begin at a line of the processor's cache. */
const LINE_BYTES = 64;
/** Less than this is malloc's: a mapping costs more than it saves. */
const OWN_BYTES_MIN = 128 * 1024;
const PAGE_BYTES = 4096;

/** Makes memory of at least so many bytes, zeroed. */
export type MakeMemory = (bytes: number) => ArrayBuffer;

/** Memory that a child does not inherit; ordinary memory where it is little, or where the system refuses. */
export function ownMemory(bytes: number): ArrayBuffer {
  if (bytes < OWN_BYTES_MIN) return new ArrayBuffer(bytes);
  const made = native().createTables(Math.ceil(bytes / PAGE_BYTES) * PAGE_BYTES);
  return typeof made === 'number' ? new ArrayBuffer(bytes) : made;
}

export class Tables {
  readonly #memory: ArrayBuffer;
  #used = 0;

  /** `bytes` is room for all that will be asked for. */
  constructor(bytes: number, makeMemory: MakeMemory = (count) => new ArrayBuffer(count)) {
    this.#memory = makeMemory(bytes);
  }

  uint8(length: number): Uint8Array {
    return new Uint8Array(this.#memory, this.#take(length), length);
  }

  uint16(length: number): Uint16Array {
    return new Uint16Array(this.#memory, this.#take(2 * length), length);
  }

  int32(length: number): Int32Array {
    return new Int32Array(this.#memory, this.#take(4 * length), length);
  }

  uint32(length: number): Uint32Array {
    return new Uint32Array(this.#memory, this.#take(4 * length), length);
  }

  float64(length: number): Float64Array {
    return new Float64Array(this.#memory, this.#take(8 * length), length);
  }

  #take(bytes: number): number {
    const at = this.#used;
    this.#used = Math.ceil((at + bytes) / LINE_BYTES) * LINE_BYTES;
    if (at + bytes > this.#memory.byteLength) throw assertionError(`${bytes} bytes of tables were asked for beyond ${this.#memory.byteLength}`);
    return at;
  }
}
