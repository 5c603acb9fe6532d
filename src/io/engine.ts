/**
 * What an engine is: the ring's memory and the few calls that move it.
 *
 *   entries      [ e0 | e1 | e2 … ]        written by TypeScript, ENTRY_WORDS each, read by one `submit`
 *   completions  [ … c7 c8 c9 … ]          written by the engine, COMPLETION_WORDS each, read without a call
 *                      head   tail
 *
 * An entry names a file and a slab by index and a place in them by offset; it holds no address. Whoever executes the entry
 * checks it against what was registered, so a wrong entry comes back as a completion with -EINVAL and touches nothing.
 *
 * Guarantees asked of every engine: each entry that was submitted completes exactly once, in any order; at most `depth`
 * entries are in flight, and the caller keeps to that; the memory named by an entry belongs to the engine until then.
 * Leaves to others: what to read (`requests/`), and to whom the bytes belong (`memory/`).
 */

/** The engines of the kernel's kind. */
export type EngineName = 'io_uring' | 'threads';

/** 32-bit words of an entry. */
export const ENTRY_WORDS = 8;
/** 32-bit words of a completion: handle, 0, result (bytes or -errno), flags. The kernel's own layout of a `struct io_uring_cqe`. */
export const COMPLETION_WORDS = 4;

/** Word of an entry: operation code in the low 8 bits, entry flags above them. */
export const ENTRY_OPERATION = 0;
/** Index of the file, as `addFile` answered. */
export const ENTRY_FILE = 1;
/** Index of the slab, as `addSlab` answered. */
export const ENTRY_SLAB = 2;
/** Bytes into the slab (unsigned); for OP_ALLOCATE, OP_DISCARD and OP_EVICT the high 32 bits of the length. */
export const ENTRY_SLAB_OFFSET = 3;
/** Bytes (unsigned); the low 32 bits of the length for OP_ALLOCATE, OP_DISCARD and OP_EVICT. */
export const ENTRY_LENGTH = 4;
/** Byte position in the file, low and high 32 bits. For OP_TRUNCATE: the new size. */
export const ENTRY_POSITION_LOW = 5;
/** The high 32 bits of the position. */
export const ENTRY_POSITION_HIGH = 6;
/** Comes back in the completion. */
export const ENTRY_HANDLE = 7;

/** pread into slab memory. */
export const OP_READ = 1;
/** pwrite from slab memory. */
export const OP_WRITE = 2;
/** fdatasync. */
export const OP_SYNC = 3;
/** ftruncate to the position. */
export const OP_TRUNCATE = 4;
/** fallocate(mode 0): allocates blocks, grows the size where the range goes past it. */
export const OP_ALLOCATE = 5;
/** A hole in a file (fallocate PUNCH_HOLE|KEEP_SIZE); BLKDISCARD on a block device. */
export const OP_DISCARD = 6;
/** posix_fadvise DONTNEED. */
export const OP_EVICT = 7;
/**
 * Brings [position, length) into the page cache, on a thread that may wait for the device; names no slab. Answers with the bytes from the first on that are resident now (short at
 * the end of the file, and before a page that cannot be read), or -errno if that is none. -EINVAL for a file opened with O_DIRECT.
 */
export const OP_FILL = 8;

/** Entry flag: begin the operation in a worker, not within `submit` (a cold buffered read submits its I/O on the caller's time). */
export const FLAG_ASYNC = 1 << 8;
/**
 * Entry flag of OP_WRITE: what it wrote is on stable storage when it completes (RWF_DSYNC: a write that the device itself makes durable where it can, else a write and a flush). Says nothing about
 * other writes. -EOPNOTSUPP or -EINVAL where the file system does not know it.
 */
export const FLAG_DURABLE = 1 << 9;

/** One queue of completions as typed arrays see it. An engine has one or two. */
export interface CompletionQueue {
  /** The memory of the queue. Only read from; may be mapped read-only. */
  readonly words: Int32Array;
  /** Index in `words` of the tail (free-running, written by the engine with release order). */
  readonly tail: number;
  /** Index in `words` of completion 0. */
  readonly first: number;
  /** Entries - 1, a power of two less one. */
  readonly mask: number;
  /** Index in the engine's `control` where TypeScript publishes its free-running head. */
  readonly head: number;
}

/** A kernel feature that an engine uses or does without. */
export interface Feature {
  /** As the kernel calls it. */
  name: string;
  /** Whether it is in use. */
  used: boolean;
  /** Why, or why not. */
  reason: string;
}

/** Whoever executes the entries of a ring. */
export interface Engine {
  /** Which engine it is. */
  readonly name: EngineName | 'simulated';
  /** Entries in flight at most; `entries` has room for as many. */
  readonly depth: number;
  /** Where entries are written: entry i begins at word i * ENTRY_WORDS. */
  readonly entries: Int32Array;
  /** Words that TypeScript writes for the engine: the published heads and CONTROL_ARMED. */
  readonly control: Int32Array;
  /** Where completions appear. */
  readonly queues: readonly CompletionQueue[];

  /** Hands over entries 0…count-1. Never throws: what is refused comes back as a completion. */
  submit(count: number): void;
  /** Makes completions visible that the kernel holds back until asked. Cheap when there are none. */
  collect(): void;
  /** Blocks this thread until a completion is visible; only called with entries in flight. Runs no JavaScript. */
  wait(): void;
  /**
   * `onWake` runs once for a batch of completions, from the event loop; after it returned and microtasks ran, `onSettled`
   * runs, so that what those microtasks asked for goes out in one submission. Set once, before the first submit.
   */
  listen(onWake: () => void, onSettled: () => void): void;
  /** While referenced, the event loop stays alive for the wake-up. Starts unreferenced. */
  ref(): void;
  /** The event loop may end although a wake-up is to come. */
  unref(): void;
  /** Makes a file known; its index in entries. */
  addFile(fd: number): number;
  /** Makes a slab known; its index in entries. */
  addSlab(slab: Slab): number;
  /**
   * Gives the memory of [offset, offset+length) of a slab back to the system: both of its views read zeros until it is used again. Only with nothing in flight over it; multiples of
   * 4 MiB, or up to the end of the slab. False where that is refused, and nothing happened.
   */
  giveBack(slab: number, offset: number, length: number): boolean;
  /** Does most of the slabs' memory that was used lie in huge pages? Then a scan of all of one costs what a scan of a page does. */
  isHuge?(): boolean;
  /** Only with nothing in flight. */
  close(): void;
  /** Which kernel features are in use, and why each better one was refused. */
  features(): Feature[];
}

/** Word of `control`: 1 while TypeScript has looked at every completion and wants to be woken by the next. */
export const CONTROL_ARMED = 0;

/** A region that frames are cut from, mapped twice. */
export interface Slab {
  /** Its size, a multiple of 4096. */
  readonly bytes: number;
  /** What the engine reads into and writes from, and what writable windows show. */
  readonly shared: ArrayBuffer;
  /** The same bytes, copy-on-write: what read windows show. The same buffer as `shared` where there is no second mapping. */
  readonly private: ArrayBuffer;
  /** Restores the pages of [offset, offset+length) of `private` that JavaScript stored into; answers with how many there were. */
  repair(offset: number, length: number): number;
  /**
   * Zero pages under both buffers at once, though entries may be in flight: what they still write goes to memory that nobody sees, or where the engine names addresses to the
   * kernel anew (an operation that had not begun) to pages that `close` zeroes again. `close` follows.
   */
  retire(): void;
  /** Gives the memory back; only when no engine has an entry in flight on it. */
  close(): void;
}
