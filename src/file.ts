/**
 * A file or block device: what its methods promise, and how they come together.
 *
 *   tryWindow ─> access: in memory? ─────────────────────────────> Window
 *   window    ─> the same, else ─> mutations: one before me? ─> manager: slots, operations, ring ─> access ─> Window
 *   write     ─> access: at once? else ─> mutations, in order ─> access
 *
 * Guarantees: arguments are checked before anything else happens; a read begins after every change accepted before it that
 * touches its bytes; nothing of the user's runs inside a call, `Batch.get` excepted; after `close` everything is given back.
 * Leaves to others: where bytes come from (`windows/`), what is sent (`requests/`), how it was opened (`open.ts`).
 */
import { EventEmitter } from 'node:events';
import type { Readable, Writable } from 'node:stream';
import { abortError, outOfRange, SectorwiseError, systemError } from './errors.js';
import type { Extent } from './geometry/extents.js';
import type { Geometry } from './geometry/geometry.js';
import type { Engine, EngineName, Feature } from './io/engine.js';
import { BLOCK_BYTES } from './memory/block-store.js';
import { CAUSE_NONE, CAUSE_SHUTDOWN, CAUSE_TRUNCATE, causeError, validity } from './memory/validity.js';
import {
  type Caching,
  checkBytes,
  checkBytesArray,
  checkEnd,
  checkFunction,
  checkNames,
  checkSignalOption,
  checkWindowLength,
  checkWindowOptions,
  type WindowOptions,
} from './options.js';
import type { Mutation, MutationQueue } from './requests/mutation-queue.js';
import type { RequestManager } from './requests/request-manager.js';
import type { Loss } from './requests/write-back.js';
import { type BlobOptions, blobOf, type FileBlob } from './streams/blob.js';
import { checkStreamOptions, type StreamOptions } from './streams/range.js';
import { readableOf } from './streams/readable.js';
import { sendTo } from './streams/send.js';
import { webStreamOf } from './streams/web.js';
import { debug, flushChannel, type InvalidateMessage, invalidateChannel, type Latencies, makeLatencies, readChannel, traced, writeChannel } from './tracing.js';
import { type FileLink, forgetUnclosed, type Remains, watchUnclosed } from './unclosed.js';
import type { GroundListener, GroundWatch } from './unplug/ground-watch.js';
import { onAbort } from './windows/abort-listeners.js';
import type { Access, StoreMutation } from './windows/access.js';
import { AheadReader } from './windows/ahead-reader.js';
import { type Batch, FileBatch } from './windows/batch.js';
import { flushFailed } from './windows/flush-failed.js';
import type { Ground } from './windows/ground.js';
import { ReadJob } from './windows/read-job.js';
import { unreleased } from './windows/unreleased.js';
import type { FileWindow, Window } from './windows/window.js';
import { WindowIterator } from './windows/window-iterator.js';
import { WindowRequest } from './windows/window-request.js';

/** A hint, stale at once. Pages of 4096 bytes in the range, and how many of them are where. */
export interface Residency {
  /** Pages that the range touches. */
  pages: number;
  /** In memory, with their bytes. */
  cached: number;
  /** Changed and not yet written (page-cache mode: where cachestat tells; else 0, as on tmpfs, overlayfs and for those who may not write). */
  dirty: number;
  /** Being written (page-cache mode: as `dirty`). */
  writeback: number;
  /** Were in memory and were reclaimed (page-cache mode: as `dirty`; else 0). */
  evicted: number;
}

/** Why windows are gone, and which. Bytes of the file. */
export interface InvalidateReason {
  /** The device is gone; the file was made shorter; its file system was shut down; the file was closed. */
  cause: 'unplug' | 'truncate' | 'shutdown' | 'close';
  /** First byte of the range that is gone. */
  offset: number;
  /** Its length. */
  length: number;
}

/** Counts since the file was opened. */
export interface Stats {
  /** Requests answered from memory, within the call. */
  immediate: number;
  /** Requests that waited. */
  delayed: number;
  /** Times that a request joined an operation that was on its way already. */
  joined: number;
  /** Read operations that the device or file did. */
  deviceReads: number;
  /** Their bytes, those of gaps that were read over included. */
  deviceReadBytes: number;
  /** Write operations that the device or file did. */
  deviceWrites: number;
  /** Their bytes, padding included. */
  deviceWriteBytes: number;
  /** Bytes asked of the device ahead of need. */
  readAheadBytes: number;
  /** Those of them that nobody used: in direct mode evicted before use, in page-cache mode ahead of a reader that went no further. */
  readAheadUnused: number;
  /** Bytes copied because a window lay over frames that are apart. */
  gatheredBytes: number;
  /** Frames that got another block. */
  evictions: number;
  /** Pieces of 2 MiB of this file's mappings that could not be read, or were no longer there, when they were touched (page-cache mode). */
  faults: number;
  /** Times that windows were invalidated. */
  invalidations: number;
}

/** Which engine and which kernel features are in use. */
export interface Explanation {
  /** What carries operations to the kernel. */
  engine: EngineName;
  /** What was tried, best first. */
  features: Array<{
    /** In words, e.g. 'registered buffers'. */
    name: string;
    /** It is in use. */
    used: boolean;
    /** How it is used, or why not. */
    reason: string;
  }>;
}

/**
 * An open file or block device. Made by `open` and `openSync`; belongs to the thread that opened it.
 *
 * Keep it for as long as you use anything of it, listeners included, and close it. One that is collected unclosed is warned of (`SECTORWISE_UNCLOSED_FILE`) and closed once no window of it has references;
 * its listeners hear nothing any more. With SECTORWISE_DEBUG=1 in the environment each window that is collected unreleased is warned of too (`SECTORWISE_UNRELEASED_WINDOW`), with the stack that asked for it.
 *
 * Errors of every method: ERR_SECTORWISE_CLOSED after `close`; ERR_OUT_OF_RANGE and ERR_INVALID_ARG_TYPE for offsets and lengths that are not integers from 0
 * to 2^53−1 (numbers or bigints); methods that return promises reject, all others throw.
 */
export interface BlockFile
  extends EventEmitter<{
      /** Windows over `reason`'s range are no longer valid. Runs from the event loop, after the windows were marked. */
      invalidate: [reason: InvalidateReason];
    }>,
    AsyncDisposable {
  /** As it was opened. */
  readonly path: string;
  /** Bytes, as last seen; a request that reaches past it asks the file again, so growth by others is seen. Accepted writes count at once. */
  readonly size: number;
  /** The mode it was opened in. */
  readonly caching: Caching;
  /** Sizes and alignments of the device and the file system, as they were at `open`. */
  readonly geometry: Geometry;
  /** Grows by one each time that windows were invalidated. */
  readonly generation: number;

  /**
   * The immediate path: the window if its bytes are in memory now, else undefined. Never waits for the device, never calls back, makes no promise.
   * At or past the end of the file the window is short or empty.
   *
   * @param length bytes, at most 64 MiB (ERR_OUT_OF_RANGE).
   * @throws ERR_SECTORWISE_READ_ONLY for a writable window of a file opened for reading; ERR_SECTORWISE_SCATTERED (direct mode) where the frames of a writable window
   * are apart and held by others; ERR_SECTORWISE_CACHE_TOO_SMALL (direct mode) where it could never fit; ERR_SECTORWISE_LOCK_LIMIT (page-cache mode) with `lock` beyond what the
   * process may lock.
   */
  tryWindow(offset: number, length: number, options?: Omit<WindowOptions, 'signal'>): Window | undefined;
  /**
   * The delayed path: resolves when every byte is in memory, so that touching them does not wait for the device (short of eviction by the kernel in between, in page-cache
   * mode: `lock` rules that out). Windows are no snapshots: later writes show through. Lifetime: until `release`.
   *
   * Rejects as `tryWindow` throws, with the system error of a failed read (EIO and others, naming the range), with ERR_SECTORWISE_CACHE_FULL when every frame is
   * pinned or dirty and nothing is on its way that could free one, and with an AbortError.
   */
  window(offset: number, length: number, options?: WindowOptions): Promise<Window>;
  /**
   * Consecutive windows of `step` bytes (default 1 MiB, at most 64 MiB) from `start` (default 0) to `end` (default the end of the file), read ahead. The iterator owns each
   * window and releases it once, when the next is asked for or the loop ends: do not `release` it or declare it with `using`; `retain` to keep it.
   */
  windows(options?: { start?: number; end?: number; step?: number; signal?: AbortSignal }): AsyncIterableIterator<Window> & AsyncDisposable;
  /**
   * Many requests as one: what is in memory is handed over during `get`, the rest later (`delayed` is true). The window is released when `onWindow` returns or throws;
   * `retain` to keep it. A throw during `get` comes out of `get`, a later one makes `end` reject; without `onError`, `end` rejects with the first error. A `get` inside
   * a callback is handed over after that callback returned.
   */
  batch<T>(
    onWindow: (window: Window, context: T, delayed: boolean) => void,
    onError?: (error: Error, context: T) => void,
    options?: { signal?: AbortSignal },
  ): Batch<T>;

  /**
   * The range as a stream of `node:stream`. Each chunk is a Buffer of its own, copied out of a window: it may be kept and changed, and nothing stays pinned while the consumer is slow. A failed read, a file
   * that is closed or lost, and an abort destroy the stream with the error of `read`. For no copy: `sendTo`, or `windows`.
   */
  readable(options?: StreamOptions): Readable;
  /**
   * The range as a byte stream of the web platform. A reader with memory of its own (`getReader({ mode: 'byob' })`) has it filled straight from windows, whatever its size; others get chunks of `step` bytes.
   * Fails as `readable` does.
   */
  stream(options?: StreamOptions): ReadableStream<Uint8Array>;
  /** The range with the methods of a Blob, read only when they are called. Not an instance of `Blob`. */
  blob(options?: BlobOptions): FileBlob;
  /**
   * Writes the range to `target` without copying it: windows of `step` bytes (default 1 MiB), one at a time, each held until `target` has called back for it. Resolves with the count of bytes; does not end
   * `target`. On failure and abort it rejects and destroys `target`, as `stream.pipeline` does.
   *
   * For sockets, responses, files, compressors and whatever else is done with a chunk when it calls back. Not for a target that keeps chunks after that (`PassThrough`, one that collects them): pipe `readable()` there.
   */
  sendTo(target: Writable, options?: StreamOptions): Promise<number>;

  /**
   * Copies into `target`, any length; resolves with the count, short only at the end of the file. If `target` was detached meanwhile it rejects with
   * ERR_SECTORWISE_DETACHED and nothing is written. After a rejection the target is not touched.
   */
  read(target: Uint8Array, offset: number, options?: { signal?: AbortSignal }): Promise<number>;
  /** As `read`, from memory alone; undefined where a byte is missing. */
  tryRead(target: Uint8Array, offset: number): number | undefined;
  /**
   * Takes its place in order during the call: later reads and flushes include it. Resolves when the library needs `source` no longer (leave it unchanged until then),
   * with all of it taken, never short; `flush` makes it durable. It can be aborted only before its bytes were taken; then nothing of it is written. Grows a file when it goes past
   * its end; on a device that is ENOSPC.
   *
   * In direct mode the bytes are copied into frames, as a rule within this call, also while a flush is under way; small writes are collected there, and each block goes to the device once. It waits
   * for what must be read first (a sector, or block of a 4096-byte device, that it covers in part), and for write-back when half of the cache is dirty. Before any flush bytes may reach the device at any
   * time, in any order: write-back begins when a quarter of the cache is dirty. In page-cache mode it resolves when the kernel has the bytes.
   *
   * Rejects with ERR_SECTORWISE_READ_ONLY, with the error of a read that an unaligned edge needed, with ERR_SECTORWISE_CACHE_FULL, and in page-cache mode with the error of the write.
   */
  write(source: Uint8Array, offset: number, options?: { signal?: AbortSignal }): Promise<number>;
  /**
   * Everything accepted before this call (write, markDirty, resize, allocate, discard) is on stable storage; marked bytes are taken as they are when it is called. The first flush
   * after `open` always reaches the device, even with no writes of our own.
   *
   * Calls share: those that come while one is under way become one, so many callers who each write and flush cost the device hardly more than one. Reads and writes go on meanwhile; what is written
   * after the call may or may not be made durable with it. `resize`, `allocate` and `discard` wait for the flushes before them. Cheapest (direct mode): the file is as long as it will be (`size` at
   * `open`, `allocate`, `resize`), and what changed since the last flush is one run of sectors: then it is one write that is durable by itself (RWF_DSYNC). An end within a sector costs a truncation
   * as well, each time.
   *
   * On failure it rejects with ERR_SECTORWISE_FLUSH_FAILED, naming the ranges (`error.ranges`), and keeps rejecting until `acknowledgeLoss`; what it could not write stays readable
   * and is tried again. Of a file that is lost (unplugged, shut down) it rejects in the same way, naming everything that was accepted and is not known to be on stable storage, or resolves if that is nothing.
   */
  flush(): Promise<void>;
  /** Gives up what a failed flush could not write; answers with those ranges, in bytes. */
  acknowledgeLoss(): Array<{
    /** First byte of the range. */
    offset: number;
    /** Its bytes. */
    length: number;
    /** Why it could not be made durable. */
    error: Error;
  }>;

  /** As `read`, blocking. Ordered after every asynchronous call made before; waits for those it must and runs no callback meanwhile. Works inside callbacks. */
  readSync(target: Uint8Array, offset: number): number;
  /** As `write`, blocking. */
  writeSync(source: Uint8Array, offset: number): number;
  /** As `flush`, blocking. */
  flushSync(): void;
  /** As `resize`, blocking. */
  resizeSync(size: number): void;
  /** As `close`, blocking. */
  closeSync(): void;

  /** Sets the size of a file; durable with the next flush. Shrinking invalidates the windows beyond the new end; growing none. ERR_SECTORWISE_FIXED_SIZE on a device. */
  resize(size: number): Promise<void>;
  /** Allocates blocks, growing the size where the range goes past it; existing bytes stay. ENOSPC where there is no space, EOPNOTSUPP where the file system cannot. */
  allocate(offset: number, length: number): Promise<void>;
  /** Punches a hole (reads as zeros afterwards), or discards the whole sectors of the range on a device (undefined afterwards). Windows stay valid. */
  discard(offset: number, length: number): Promise<void>;
  /** Resolves when the range is resident (in direct mode: as much of it as half of the cache takes); read errors are reported by the later read, not here. */
  prefetch(offset: number, length: number): Promise<void>;
  /**
   * Drops what it may of the range from memory: not what is pinned (page-cache mode: the 2 MiB around a window), dirty or on its way. In page-cache mode the kernel passes over
   * pages that it has in its hands at that moment, to move them or to see whether they are used: who needs all of it gone asks `residency`, and again.
   */
  evict(offset: number, length: number): Promise<void>;
  /**
   * How much of the range (default: from `offset` 0 to the end) is in memory. A hint, stale at once: exact up to 256 MiB, and beyond for what can be counted in some 2 ms;
   * the rest of a longer range is estimated from samples spread over it. Starts no I/O. To a process that may neither write to the file nor owns it the kernel says
   * little (page-cache mode): only what the process has mapped counts then. `explain()` says what is asked.
   */
  residency(offset?: number, length?: number): Residency;
  /** Where the range (default: all of it) lies on the device, in order and without gaps. May be stale, and is never an identity. */
  extents(offset?: number, length?: number): Promise<Extent[]>;

  /** Which engine and which kernel features are in use, and why each better one was refused. */
  explain(): Explanation;
  /** Counts since it was opened; live. */
  readonly stats: Readonly<Stats>;

  /**
   * Histograms of durations in nanoseconds, in the form of `perf_hooks`. They count what is asked after the first call of this method, and are the same ones each time. What is answered from memory within a call is not in them.
   */
  latencies(): Latencies;
  /** Flushes, waits for what is in flight, invalidates every window. Always frees everything; rejects if the flush failed. Later calls return the same promise. */
  close(): Promise<void>;
}

/** What `open.ts` puts together. */
export interface FileParts {
  path: string;
  caching: Caching;
  writable: boolean;
  geometry: Geometry;
  features: Feature[];
  engine: Engine;
  ground: Ground;
  manager: RequestManager;
  mutations: MutationQueue;
  access: Access;
  /** Bytes of the first piece of a sequential reader, and that it is ahead at most; a `max` of 0 for no read-ahead. */
  readAhead: { initial: number; max: number };
  /** Bytes that memory holds at once. */
  capacity: number;
  /** The size as the file system or device says now. */
  sizeNow(): number;
  /** How the other parts reach the file, which they must not keep. */
  self: FileLink<OpenFile>;
  /** A file that is collected unclosed is warned of, and closed. Not where files are dropped on purpose: a simulated disk holds nothing of the system. */
  collectable?: boolean;
  /** Starts watching the ground of the file. */
  watch(listener: GroundListener): GroundWatch;
  extents(offset: number, length: number): Promise<Extent[]>;
  /** Gives descriptor, lock and words back. */
  dispose(): void;
}

interface FlushState {
  /** Somebody waits for it. */
  waits: boolean;
  promise: Promise<void>;
  sequence: number;
  marks: number;
}

/** The settlers of the promise made last: one executor for all of them, where a closure for each would be one more object for each window. */
let resolveLast: (window: Window) => void;
let rejectLast: (error: unknown) => void;
/** A settler that stayed would keep the window, which could not be collected then. */
const letGo = (): void => {};
const takeSettlers = (resolve: (window: Window) => void, reject: (error: unknown) => void): void => {
  resolveLast = resolve;
  rejectLast = reject;
};

export class OpenFile extends EventEmitter<{ invalidate: [reason: InvalidateReason] }> implements BlockFile {
  readonly path: string;
  readonly caching: Caching;
  readonly geometry: Geometry;
  readonly #parts: FileParts;
  readonly #access: Access;
  readonly #ground: Ground;
  readonly #manager: RequestManager;
  readonly #mutations: MutationQueue;
  readonly #ahead: AheadReader;
  #latencies: Latencies | undefined;
  #immediate = 0;
  #delayed = 0;
  #closing: Promise<void> | undefined;
  #disposed = false;
  #flushing: FlushState | undefined;
  /** Counts what a flush would have to include. */
  #sequence = 0;
  readonly #watch: GroundWatch;
  /** Why all of it is gone, once `lose` has seen to it. */
  #lost = CAUSE_NONE;
  /** The mutation that is to look at the end of the file, which somebody else moved, until it does; reads from `from` on wait for it. */
  #shrinking: { from: number } | undefined;

  constructor(parts: FileParts) {
    super();
    this.#parts = parts;
    this.path = parts.path;
    this.caching = parts.caching;
    this.geometry = parts.geometry;
    this.#access = parts.access;
    this.#ground = parts.ground;
    this.#manager = parts.manager;
    this.#mutations = parts.mutations;
    this.#ahead = new AheadReader({ access: parts.access, manager: parts.manager, limits: parts.readAhead, capacity: parts.capacity });
    parts.self.file = this;
    this.#watch = parts.watch(OpenFile.#listener(parts));
    if (parts.collectable === true) watchUnclosed(this, remainsOf(parts));
    if (unreleased !== undefined) unreleased.follow(this);
    if (debug.enabled) debug('%s: opened, %s, engine %s, %d bytes', this.path, this.caching, parts.engine.name, parts.ground.logical);
    const { liveWord } = this.#watch;
    if (liveWord !== undefined) this.#ground.tellAlive(validity().words, liveWord);
  }

  /** Not made in the constructor: a closure there holds the file. */
  static #listener({ self, sizeNow }: FileParts): GroundListener {
    return {
      lost: (cause) => self.file?.lose(cause),
      sizeChanged: () => {
        const { file } = self;
        if (file !== undefined && !file.#isGone()) file.noticeSize(sizeNow());
      },
      faulted: () => {
        const { file } = self;
        if (file !== undefined && !file.#isGone()) file.#access.absorbFaults();
      },
    };
  }

  get size(): number {
    return this.#mutations.length === 0 ? this.#ground.logical : this.#mutations.sizeAfter(this.#ground.logical);
  }

  get generation(): number {
    return this.#ground.generation;
  }

  get stats(): Readonly<Stats> {
    const { joined, deviceReads, deviceReadBytes, deviceWrites, deviceWriteBytes } = this.#manager.counts;
    return {
      immediate: this.#immediate,
      delayed: this.#delayed,
      joined,
      deviceReads,
      deviceReadBytes,
      deviceWrites,
      deviceWriteBytes,
      ...this.#access.counts,
      readAheadBytes: this.#ahead.bytes,
      // Frames know which of them were never used; of the kernel's pages only the readers tell.
      readAheadUnused: this.caching === 'direct' ? this.#access.counts.readAheadUnused : this.#ahead.unused,
      invalidations: this.#ground.invalidations,
    };
  }

  latencies(): Latencies {
    this.#latencies ??= makeLatencies();
    return this.#latencies;
  }

  explain(): Explanation {
    return {
      engine: this.#parts.engine.name as EngineName,
      features: [...this.#parts.engine.features(), ...this.#parts.features, ...this.#access.features(), ...this.#watch.features()],
    };
  }

  // Windows

  tryWindow(offset: number, length: number, options?: Omit<WindowOptions, 'signal'>): Window | undefined {
    this.#checkOpen();
    const at = typeof offset === 'number' && Number.isSafeInteger(offset) && offset >= 0 ? offset : checkBytes('offset', offset);
    const asked = typeof length === 'number' && Number.isSafeInteger(length) && length >= 0 ? length : checkBytes('length', length);
    checkWindowLength(asked);
    let writable = false;
    let lock = false;
    if (options !== undefined) {
      checkWindowOptions(options);
      writable = this.#checkWritable(options.writable);
      lock = options.lock === true;
    }
    const window = this.#immediateWindow(at, asked, writable, lock);
    if (window === undefined) return undefined;
    this.#immediate++;
    this.#noteHit(at, asked);
    return window;
  }

  window(offset: number, length: number, options?: WindowOptions): Promise<Window> {
    try {
      this.#checkOpen();
      const at = checkBytes('offset', offset);
      const asked = checkBytes('length', length);
      checkWindowLength(asked);
      const { signal, writable, lock = false } = checkWindowOptions(options);
      const forWriting = this.#checkWritable(writable);
      if (signal?.aborted) return Promise.reject(abortError(signal));
      const window = this.#immediateWindow(at, asked, forWriting, lock);
      if (window !== undefined) {
        this.#immediate++;
        this.#noteHit(at, asked);
        return Promise.resolve(window);
      }
      this.#delayed++;
      this.#ahead.miss(at, asked);
      if (signal === undefined && !forWriting && !lock && asked > 0 && this.#mutations.length === 0 && at + asked <= this.#ground.logical) {
        const promise = new Promise<Window>(takeSettlers);
        this.#manager.request(new WindowRequest(this.#access, at, asked, resolveLast, rejectLast));
        resolveLast = rejectLast = letGo;
        return readChannel.hasSubscribers || this.#latencies !== undefined ? traced(promise, this.#latencies, this.path, 'window', at, asked) : promise;
      }
      const promise = new Promise<Window>((resolve, reject) => {
        withSignal(signal, reject, (settled) =>
          this.#later(
            at,
            asked,
            forWriting,
            lock,
            (ready) => {
              settled();
              resolve(ready);
            },
            (error) => {
              settled();
              reject(error);
            },
          ),
        );
      });
      return readChannel.hasSubscribers || this.#latencies !== undefined ? traced(promise, this.#latencies, this.path, 'window', at, asked) : promise;
    } catch (error) {
      return Promise.reject(error);
    }
  }

  windows(options?: { start?: number; end?: number; step?: number; signal?: AbortSignal }): AsyncIterableIterator<Window> & AsyncDisposable {
    this.#checkOpen();
    const given = checkNames('options', options, ['start', 'end', 'step', 'signal']) as { start?: number; end?: number; step?: number; signal?: AbortSignal };
    const start = given.start === undefined ? 0 : checkBytes('options.start', given.start);
    const end = given.end === undefined ? undefined : checkBytes('options.end', given.end);
    const step = given.step === undefined ? 2 ** 20 : checkBytes('options.step', given.step);
    if (step === 0 || step > 2 ** 26) throw outOfRange('options.step', '>= 1 && <= 67108864', step);
    if (end !== undefined && end < start) throw outOfRange('options.end', `>= options.start (${start})`, end);
    const signal = checkSignalOption(given.signal === undefined ? undefined : { signal: given.signal });
    let stream = 0;
    return new WindowIterator((at, length, given) => this.window(at, length, { signal: given }), {
      start,
      end,
      step,
      // Read-ahead keeps the bytes ready without holding them, and only the window that is wanted is asked for.
      ahead: 0,
      signal,
      now: (at, length) => this.tryWindow(at, length),
      began: () => {
        stream = this.#ahead.declare(start, end ?? Number.MAX_SAFE_INTEGER);
      },
      ended: () => this.#ahead.undeclare(stream),
    });
  }

  batch<T>(
    onWindow: (window: Window, context: T, delayed: boolean) => void,
    onError?: (error: Error, context: T) => void,
    options?: { signal?: AbortSignal },
  ): Batch<T> {
    this.#checkOpen();
    checkFunction('onWindow', onWindow);
    if (onError !== undefined) checkFunction('onError', onError);
    const source = {
      path: this.path,
      tryWindow: (offset: number, length: number): Window | undefined => this.tryWindow(offset, length),
      later: (offset: number, length: number, ready: (window: Window) => void, failed: (error: Error) => void): (() => void) => {
        this.#delayed++;
        this.#ahead.miss(offset, length);
        return this.#later(checkBytes('offset', offset), checkBytes('length', length), false, false, ready, failed);
      },
      handover: (run: () => void): void => this.#manager.handover(run),
    };
    return new FileBatch(source, onWindow, onError, checkSignalOption(options));
  }

  readable(options?: StreamOptions): Readable {
    this.#checkOpen();
    return readableOf(this, checkStreamOptions(options));
  }

  stream(options?: StreamOptions): ReadableStream<Uint8Array> {
    this.#checkOpen();
    return webStreamOf(this, checkStreamOptions(options));
  }

  blob(options?: BlobOptions): FileBlob {
    this.#checkOpen();
    return blobOf(this, options);
  }

  async sendTo(target: Writable, options?: StreamOptions): Promise<number> {
    return sendTo(target, this.windows(options), options?.signal);
  }

  /** For read-ahead: two stores, unless somebody is being read ahead for. Answers whether there is something to send. */
  #noteHit(offset: number, length: number): boolean {
    const ahead = this.#ahead;
    ahead.last[0] = offset;
    ahead.last[1] = offset + length;
    return ahead.active !== 0 && ahead.hit(offset, length);
  }

  #immediateWindow(offset: number, asked: number, writable: boolean, lock: boolean): FileWindow | undefined {
    let length = asked;
    if (this.#mutations.length > 0) {
      if (this.#mutations.lastTouching(offset, offset + Math.max(1, length), this.#ground.logical) !== undefined) return undefined;
    }
    if (offset + length > this.#ground.logical) length = this.#clip(offset, length);
    if (length === 0) return this.#access.windowFrom(offset, 0, writable, false);
    const window = this.#access.tryWindow(offset, length, writable, lock);
    if (window === undefined) this.#access.checkRoom(offset, length, writable, lock);
    return window;
  }

  /** Asks for a window, after what stands before it. Exactly one of the two is called, later; answers with how to give up. */
  #later(offset: number, asked: number, writable: boolean, lock: boolean, ready: (window: FileWindow) => void, failed: (error: Error) => void): () => void {
    let given = false;
    let cancel = (): void => {};
    const begin = (): void => {
      if (given) return;
      if (this.#isLost()) {
        // What it waited for failed with the file, and memory shows nothing of it any more.
        failed(this.#lossOf(offset, asked));
        return;
      }
      const before = this.#mutations.lastTouching(offset, offset + Math.max(1, asked), this.#ground.logical);
      if (before !== undefined) {
        this.#mutations.follow(before, begin);
        return;
      }
      // What happens now may be within a call of the user: a window that is ready at once is handed over later.
      const length = this.#clip(offset, asked);
      if (length === 0) {
        queueMicrotask(() => {
          if (given) return;
          if (this.#isLost()) failed(this.#lossOf(offset, asked));
          else ready(this.#access.windowFrom(offset, 0, writable, false));
        });
        return;
      }
      if (writable) {
        let problem: Error | undefined;
        const preparation = this.#access.prepare(offset, length, (error) => {
          problem = error;
          if (error !== undefined && !given) failed(error);
        });
        if (preparation !== undefined) {
          this.#mutations.push(preparation);
          const go = (): void => {
            if (problem === undefined) begin();
          };
          if (preparation.ended) queueMicrotask(go);
          else this.#mutations.follow(preparation, go);
          return;
        }
      }
      try {
        // Whoever had to wait for a change is looked at here for the first time.
        this.#access.checkRoom(offset, length, writable, lock);
      } catch (error) {
        failed(error as Error);
        return;
      }
      const caller = this.#access.caller(offset, length, writable, false, (error) => {
        if (error !== undefined) {
          failed(error);
          return;
        }
        let window: FileWindow;
        try {
          window = this.#access.windowFrom(offset, length, writable, lock);
        } catch (thrown) {
          failed(thrown as Error);
          return;
        }
        ready(window);
      });
      cancel = () => this.#manager.abandon(caller);
      this.#manager.request(caller);
    };
    begin();
    return () => {
      given = true;
      cancel();
    };
  }

  // Read

  read(target: Uint8Array, offset: number, options?: { signal?: AbortSignal }): Promise<number> {
    try {
      this.#checkOpen();
      checkBytesArray('target', target);
      const at = checkBytes('offset', offset);
      checkEnd(at, target.length);
      const signal = checkSignalOption(options);
      if (signal?.aborted) return Promise.reject(abortError(signal));
      const now = this.#tryRead(target, at);
      if (now !== undefined) {
        this.#immediate++;
        this.#noteHit(at, now);
        return Promise.resolve(now);
      }
      this.#delayed++;
      this.#ahead.miss(at, target.length);
      const promise = new Promise<number>((resolve, reject) => {
        withSignal(signal, reject, (settled) => {
          let job: ReadJob | undefined;
          let given = false;
          const done = (error: Error | undefined, count: number): void => {
            settled();
            if (error === undefined) resolve(count);
            else reject(error);
          };
          const begin = (): void => {
            if (given) return;
            if (this.#isLost()) {
              done(this.#lossOf(at, target.length), 0);
              return;
            }
            const before = this.#mutations.lastTouching(at, at + target.length, this.#ground.logical);
            if (before !== undefined) {
              this.#mutations.follow(before, begin);
              return;
            }
            const length = this.#clip(at, target.length);
            if (length === 0) done(undefined, 0);
            else job = new ReadJob(this.#access, (from, bytes, settle) => this.#askPiece(from, bytes, settle), target, at, length, done);
          };
          begin();
          return () => {
            given = true;
            job?.giveUp();
          };
        });
      });
      return readChannel.hasSubscribers || this.#latencies !== undefined ? traced(promise, this.#latencies, this.path, 'read', at, target.length) : promise;
    } catch (error) {
      return Promise.reject(error);
    }
  }

  tryRead(target: Uint8Array, offset: number): number | undefined {
    this.#checkOpen();
    checkBytesArray('target', target);
    const at = checkBytes('offset', offset);
    checkEnd(at, target.length);
    const count = this.#tryRead(target, at);
    if (count === undefined) return undefined;
    this.#immediate++;
    this.#noteHit(at, count);
    return count;
  }

  readSync(target: Uint8Array, offset: number): number {
    this.#checkOpen();
    checkBytesArray('target', target);
    const at = checkBytes('offset', offset);
    checkEnd(at, target.length);
    this.#awaitMutations();
    const length = this.#clip(at, target.length);
    // What was waited for may have ended because the file is lost.
    this.#checkOpen();
    if (length === 0) return 0;
    if (this.caching === 'page-cache') return this.#access.readBlocking(target.subarray(0, length), at);
    // The kernel reads ahead for its own reads; here nobody else does. A caller that never returns to the event loop would never send it, so it is sent from here.
    if (this.#access.tryCopy(target.subarray(0, length), at)) {
      if (this.#noteHit(at, length)) this.#manager.sendNow();
      return length;
    }
    this.#ahead.miss(at, length);
    return this.#access.readBlocking(target.subarray(0, length), at);
  }

  #tryRead(target: Uint8Array, offset: number): number | undefined {
    if (this.#mutations.length > 0 && this.#mutations.lastTouching(offset, offset + Math.max(1, target.length), this.#ground.logical) !== undefined)
      return undefined;
    const length = this.#clip(offset, target.length);
    if (length === 0) return 0;
    return this.#access.tryCopy(length === target.length ? target : target.subarray(0, length), offset) ? length : undefined;
  }

  #askPiece(offset: number, length: number, settle: (error: Error | undefined) => void): () => void {
    const caller = this.#access.caller(offset, length, false, false, settle);
    this.#manager.request(caller);
    return () => this.#manager.abandon(caller);
  }

  // Change

  write(source: Uint8Array, offset: number, options?: { signal?: AbortSignal }): Promise<number> {
    try {
      const at = this.#checkWrite(source, offset);
      const signal = checkSignalOption(options);
      if (signal?.aborted) return Promise.reject(abortError(signal));
      if (source.length === 0) return Promise.resolve(0);
      this.#sequence++;
      if (this.#mutations.length === 0 && this.#access.tryStore(source, at)) return Promise.resolve(source.length);
      const promise = new Promise<number>((resolve, reject) => {
        let settled = (): void => {};
        const mutation: StoreMutation = this.#access.store(source, at, (error) => {
          settled();
          if (error === undefined) resolve(source.length);
          else reject(error);
        });
        if (signal !== undefined) {
          settled = onAbort(signal, () => {
            const error = abortError(signal);
            if (this.#mutations.remove(mutation)) reject(error);
            else mutation.abort(error);
          });
        }
        this.#mutations.push(mutation);
      });
      return writeChannel.hasSubscribers || this.#latencies !== undefined ? traced(promise, this.#latencies, this.path, 'write', at, source.length) : promise;
    } catch (error) {
      return Promise.reject(error);
    }
  }

  writeSync(source: Uint8Array, offset: number): number {
    const at = this.#checkWrite(source, offset);
    if (source.length === 0) return 0;
    this.#sequence++;
    this.#awaitMutations();
    this.#checkOpen();
    if (!this.#access.tryStore(source, at)) this.#mutateSync((settle) => this.#access.store(source, at, settle));
    return source.length;
  }

  flush(): Promise<void> {
    if (this.#closing !== undefined) return Promise.reject(this.#closedError());
    const promise = this.#flush();
    return flushChannel.hasSubscribers || this.#latencies !== undefined ? traced(promise, this.#latencies, this.path, 'flush', 0, 0) : promise;
  }

  #flush(): Promise<void> {
    if (this.#isLost()) {
      const problem = this.#whatWasLost();
      return problem === undefined ? Promise.resolve() : Promise.reject(problem);
    }
    const running = this.#flushing;
    if (running?.waits && running.sequence === this.#sequence && running.marks === this.#access.marks) return running.promise;
    let resolve!: () => void;
    let reject!: (error: Error) => void;
    const promise = new Promise<void>((yes, no) => {
      resolve = yes;
      reject = no;
    });
    const state: FlushState = { waits: true, promise, sequence: this.#sequence, marks: this.#access.marks };
    this.#flushing = state;
    const mutation = this.#access.flush((error) => {
      state.waits = false;
      const problem = this.#lost === CAUSE_NONE ? error : this.#whatWasLost();
      if (problem === undefined) resolve();
      else reject(problem);
    }, false);
    this.#mutations.push(mutation);
    return promise;
  }

  flushSync(): void {
    if (this.#closing !== undefined) throw this.#closedError();
    this.#awaitMutations();
    if (!this.#isLost()) this.#makeDurableNow();
    const problem = this.#isLost() ? this.#whatWasLost() : undefined;
    if (problem !== undefined) throw problem;
  }

  /** With the thread waiting, and the queue of changes empty. */
  #makeDurableNow(): void {
    let answered = false;
    let problem: Error | undefined;
    const mutation = this.#access.flush((error) => {
      answered = true;
      problem = this.#lost === CAUSE_NONE ? error : undefined;
    }, true);
    this.#mutations.push(mutation);
    while (!answered) this.#manager.progress();
    if (problem !== undefined) throw problem;
  }

  acknowledgeLoss(): Array<{ offset: number; length: number; error: Error }> {
    // Also of a file that is lost: these ranges are what is left to know of it.
    if (this.#closing !== undefined) throw this.#closedError();
    return this.#access.acknowledge().map((loss: Loss) => ({ ...loss }));
  }

  resize(size: number): Promise<void> {
    try {
      const bytes = this.#checkResize(size);
      this.#ahead.drop(bytes, Number.MAX_SAFE_INTEGER);
      return this.#mutate((settle) => this.#access.resize(bytes, settle));
    } catch (error) {
      return Promise.reject(error);
    }
  }

  resizeSync(size: number): void {
    const bytes = this.#checkResize(size);
    this.#ahead.drop(bytes, Number.MAX_SAFE_INTEGER);
    this.#sequence++;
    this.#awaitMutations();
    this.#mutateSync((settle) => this.#access.resize(bytes, settle));
  }

  allocate(offset: number, length: number): Promise<void> {
    try {
      const [at, bytes] = this.#checkRange(offset, length);
      this.#checkAccess();
      if (this.geometry.kind === 'block-device' && at + bytes > this.size)
        throw systemError(ENOSPC, 'fallocate', { path: this.path, offset: at, length: bytes });
      if (bytes === 0 || this.geometry.kind === 'block-device') return Promise.resolve();
      return this.#mutate((settle) => this.#access.allocate(at, bytes, settle));
    } catch (error) {
      return Promise.reject(error);
    }
  }

  discard(offset: number, length: number): Promise<void> {
    try {
      const [at, asked] = this.#checkRange(offset, length);
      this.#checkAccess();
      const bytes = Math.max(0, Math.min(asked, this.size - at));
      if (bytes === 0) return Promise.resolve();
      return this.#mutate((settle) => this.#access.discard(at, bytes, settle));
    } catch (error) {
      return Promise.reject(error);
    }
  }

  // Memory

  async prefetch(offset: number, length: number): Promise<void> {
    const [at, asked] = this.#checkRange(offset, length);
    const end = at + Math.min(this.#clip(at, asked), this.#parts.capacity / 2);
    const step = this.#access.pieceBytes;
    const piece = (from: number): Promise<void> =>
      new Promise((resolve) => {
        const bytes = Math.min(end - from, step - (from % step));
        this.#askPiece(from, bytes, (error) => {
          // The later read says what is wrong.
          if (error === undefined) this.#access.giveBack(from, bytes);
          resolve();
        });
      });
    let last: Promise<void>[] = [];
    for (let from = at; from < end; from += step - (from % step)) {
      last.push(piece(from));
      if (last.length < PREFETCH_AT_ONCE) continue;
      await Promise.all(last);
      last = [];
      // What is in memory already is found so within microtasks: the event loop gets its turn all the same.
      await new Promise(setImmediate);
      if (this.#isGone()) return;
    }
    await Promise.all(last);
  }

  async evict(offset: number, length: number): Promise<void> {
    const [at, asked] = this.#checkRange(offset, length);
    const bytes = this.#clip(at, asked);
    if (bytes === 0) return;
    this.#ahead.drop(at, bytes);
    await this.#access.evict(at, bytes);
  }

  residency(offset = 0, length?: number): Residency {
    const at = checkBytes('offset', offset);
    const [, asked] = this.#checkRange(at, length === undefined ? Math.max(0, this.size - at) : length);
    return this.#access.residency(at, this.#clip(at, asked));
  }

  async extents(offset = 0, length?: number): Promise<Extent[]> {
    const at = checkBytes('offset', offset);
    const [, asked] = this.#checkRange(at, length === undefined ? Math.max(0, this.size - at) : length);
    const bytes = this.#clip(at, asked);
    if (bytes === 0) return [];
    try {
      return await this.#parts.extents(at, bytes);
    } catch (error) {
      // A worker asks, and may come to it when the descriptor was given back.
      if (this.#closing !== undefined) throw this.#closedError();
      throw error;
    }
  }

  // Close

  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  closeSync(): void {
    this.#ahead.stop();
    if (this.#closing !== undefined) {
      if (!this.#disposed) {
        this.#awaitMutations();
        this.#awaitFlushes();
        while (!this.#manager.idle) this.#manager.progress();
        this.#dispose();
      }
      return;
    }
    let problem: Error | undefined;
    // The promise of a later `close()` tells the same.
    this.#closing = Promise.resolve();
    try {
      this.#awaitMutations();
      if (this.#parts.writable && this.#access.unflushed && !this.#isLost()) this.#makeDurableNow();
    } catch (error) {
      problem = error as Error;
    }
    this.#refuseLine();
    this.#awaitFlushes();
    while (!this.#manager.idle) this.#manager.progress();
    if (this.#isLost()) problem = this.#whatWasLost();
    this.#dispose();
    if (problem !== undefined) {
      this.#closing = Promise.reject(problem);
      this.#closing.catch(() => undefined);
    }
    if (problem !== undefined) throw problem;
  }

  async #close(): Promise<void> {
    this.#ahead.stop();
    let problem: unknown;
    try {
      // A change that is still in the queue has not marked anything yet.
      if (this.#parts.writable && (this.#mutations.length > 0 || this.#access.unflushed) && !this.#isLost()) await this.#flush();
    } catch (error) {
      problem = error;
    }
    await new Promise<void>((resolve) => this.#mutations.whenEmpty(resolve));
    await new Promise<void>((resolve) => this.#access.whenFlushed(resolve));
    this.#refuseLine();
    await new Promise<void>((resolve) => this.#manager.whenIdle(resolve));
    if (this.#isLost()) problem = this.#whatWasLost();
    this.#dispose();
    debug('%s: closed%s', this.path, problem === undefined ? '' : `, and what was written is not all durable: ${problem}`);
    if (problem !== undefined) throw problem;
  }

  #refuseLine(): void {
    this.#manager.refuseLine(() => this.#closedError());
  }

  #dispose(): void {
    if (this.#disposed) return;
    this.#disposed = true;
    forgetUnclosed(this);
    const live = this.#ground.live;
    this.#watch.close();
    this.#manager.close();
    this.#parts.engine.close();
    this.#access.close();
    this.#parts.dispose();
    if (live > 0 && this.#lost === CAUSE_NONE) this.invalidated('close', 0, this.#ground.logical);
  }

  // Loss

  /**
   * All of the file is gone, for good: the one way that every such loss goes. Windows are invalid before anything else; waiters and changes fail with the typed error; zero pages come under every
   * view; listeners are told. When the last operation has come back, ring and descriptor are given up, so that the file system can be unmounted although nobody closed the file.
   */
  lose(found: number): void {
    if (this.#lost !== CAUSE_NONE || this.#disposed) return;
    const cause = this.#ground.lose(found);
    this.#lost = cause;
    const { path } = this;
    const error = causeError(cause, { path });
    this.#ahead.stop();
    this.#access.lose(cause, error, this.#mutations.pending(this.#ground.logical));
    this.#mutations.fail(error);
    this.#manager.fail(({ first, count }) => causeError(cause, { path, offset: first * BLOCK_BYTES, length: count * BLOCK_BYTES }));
    this.invalidated(cause === CAUSE_SHUTDOWN ? 'shutdown' : 'unplug', 0, this.#ground.logical);
    this.#manager.whenIdle(() => queueMicrotask(() => this.#dispose()));
  }

  /** An operation failed as on a lost device; as `RequestSource.suspect`. */
  suspect(result: number, settled: () => void): boolean {
    if (this.look()) return true;
    return this.#watch.suspect(result, settled);
  }

  /** Sees to a loss that can be seen at once; true if there is one. */
  look(): boolean {
    return this.#isLost() || this.#found(this.#watch.check());
  }

  /** As `suspect`, for a blocking call. */
  lookHard(): void {
    if (!this.look()) this.#found(this.#watch.suspectNow(EIO));
  }

  #found(cause: number): boolean {
    if (cause !== CAUSE_NONE) this.lose(cause);
    return cause !== CAUSE_NONE;
  }

  /**
   * The file system says that the file ends at `size`. If that is nearer than it was, somebody else cut it: whoever waits for bytes behind is told, once the changes that were accepted before are done;
   * what of them is still to be written makes the file longer again.
   */
  noticeSize(size: number): void {
    const ground = this.#ground;
    if (size >= ground.seen || this.#isGone()) return;
    // Of several cuts the nearest counts: what it left may have grown again since, and is not what it was.
    if (!ground.sizing) ground.fallen = Math.min(ground.fallen, size);
    const noticed = this.#shrinking;
    if (noticed !== undefined) {
      noticed.from = Math.min(noticed.from, size);
      return;
    }
    const shrinking = {
      from: size,
      to: Number.MAX_SAFE_INTEGER,
      sizeAfter: (before: number) => before,
      start: (done: () => void) => {
        try {
          this.#access.shrunk(
            () => {
              // A cut that is noticed from here on is another one.
              this.#shrinking = undefined;
              const least = Math.min(ground.fallen, this.#parts.sizeNow());
              ground.fallen = Number.POSITIVE_INFINITY;
              return least;
            },
            (end) => this.#endsAt(end),
            done,
          );
        } catch {
          // Zero pages could not be mapped: the windows are invalid, and a touch is caught by the guard.
          this.#endsAt(this.#ground.logical);
          done();
        }
      },
      settle: () => {
        if (this.#shrinking === shrinking) this.#shrinking = undefined;
      },
    };
    this.#shrinking = shrinking;
    this.#mutations.push(shrinking);
  }

  /** Somebody else made the file end at `end`: whoever waits for what was behind is told. It may be longer again by now. */
  #endsAt(end: number): void {
    this.#ahead.drop(end, Number.MAX_SAFE_INTEGER);
    this.#manager.failBehind(end, ({ first, count }) =>
      causeError(CAUSE_TRUNCATE, { path: this.path, offset: first * BLOCK_BYTES, length: count * BLOCK_BYTES }),
    );
    this.#grown(this.#parts.sizeNow());
  }

  /** Lost, whether or not this thread was told yet. */
  #isLost(): boolean {
    if (this.#lost === CAUSE_NONE && !this.#disposed) {
      const cause = this.#ground.gone;
      if (cause !== CAUSE_NONE) this.lose(cause);
    }
    return this.#lost !== CAUSE_NONE;
  }

  #isGone(): boolean {
    return this.#closing !== undefined || this.#isLost();
  }

  /** The error for a request over [offset, offset+length) of a file that is lost. */
  #lossOf(offset: number, length: number): Error {
    return causeError(this.#lost, { path: this.path, offset, length });
  }

  /** What `close` of a lost file rejects with, if anything was not durable. */
  #whatWasLost(): Error | undefined {
    return this.#access.losses.length > 0 ? flushFailed(this.path, this.#access.losses) : undefined;
  }

  /** Tells listeners, outside any call. Called by whoever cut the ground. */
  invalidated(cause: InvalidateReason['cause'], offset: number, length: number): void {
    debug('%s: [%d, +%d) is gone: %s', this.path, offset, length, cause);
    if (invalidateChannel.hasSubscribers) {
      const message: InvalidateMessage = { path: this.path, cause, offset, length };
      process.nextTick(() => invalidateChannel.publish(message));
    }
    process.nextTick(() => this.emit('invalidate', { cause, offset, length }));
  }

  // Checks

  #checkOpen(): void {
    if (this.#closing !== undefined || this.#ground.gone !== CAUSE_NONE) this.#refuse();
  }

  #refuse(): never {
    if (this.#closing === undefined && this.#isLost()) throw causeError(this.#lost, { path: this.path });
    throw this.#closedError();
  }

  #closedError(): SectorwiseError {
    return new SectorwiseError('ERR_SECTORWISE_CLOSED', 'The file was closed; open it again.', { path: this.path });
  }

  #checkRange(offset: unknown, length: unknown): [number, number] {
    this.#checkOpen();
    const at = checkBytes('offset', offset);
    const bytes = checkBytes('length', length);
    checkEnd(at, bytes);
    return [at, bytes];
  }

  #checkAccess(): void {
    if (this.#parts.writable) return;
    throw new SectorwiseError('ERR_SECTORWISE_READ_ONLY', "The file was opened for reading; open it with { access: 'read-write' } to change it.", {
      path: this.path,
    });
  }

  #checkWritable(writable: boolean | undefined): boolean {
    if (writable !== true) return false;
    this.#checkAccess();
    return true;
  }

  #checkWrite(source: unknown, offset: unknown): number {
    this.#checkOpen();
    const { length } = checkBytesArray('source', source);
    const at = checkBytes('offset', offset);
    checkEnd(at, length);
    this.#checkAccess();
    if (this.geometry.kind === 'block-device' && at + length > this.size) throw systemError(ENOSPC, 'write', { path: this.path, offset: at, length });
    return at;
  }

  #checkResize(size: unknown): number {
    this.#checkOpen();
    const bytes = checkBytes('size', size);
    this.#checkAccess();
    if (this.geometry.kind === 'block-device') {
      throw new SectorwiseError('ERR_SECTORWISE_FIXED_SIZE', 'A block device has the size it has; resize is for files.', { path: this.path });
    }
    return bytes;
  }

  /** Bytes of the range that are in the file; asks the file again where it reaches past what is known. */
  #clip(offset: number, length: number): number {
    if (offset + length > this.#ground.logical && this.#mutations.length === 0) this.#look();
    return Math.max(0, Math.min(length, this.#ground.logical - offset));
  }

  #look(): void {
    if (this.#isGone()) return;
    const size = this.#parts.sizeNow();
    if (size < this.#ground.seen) this.noticeSize(size);
    this.#grown(size);
  }

  #grown(size: number): void {
    this.#ground.reached(size);
    if (size <= this.#ground.committed) return;
    this.#ground.committed = size;
    if (size > this.#ground.logical) {
      this.#access.grown(size);
      this.#ground.logical = size;
    }
  }

  #mutate(make: (settle: (error: Error | undefined) => void) => Mutation): Promise<void> {
    this.#sequence++;
    return new Promise((resolve, reject) => {
      this.#mutations.push(
        make((error) => {
          if (error === undefined) resolve();
          else reject(error);
        }),
      );
    });
  }

  #mutateSync(make: (settle: (error: Error | undefined) => void) => Mutation): void {
    let problem: Error | undefined;
    const mutation = make((error) => {
      problem = error;
    });
    this.#mutations.push(mutation);
    while (!mutation.ended) this.#manager.progress();
    if (problem !== undefined) throw problem;
  }

  #awaitMutations(): void {
    while (this.#mutations.length > 0) this.#manager.progress();
  }

  #awaitFlushes(): void {
    let idle = false;
    this.#access.whenFlushed(() => {
      idle = true;
    });
    while (!idle && !this.#isLost()) this.#manager.progress();
  }
}

const EIO = -5;
const ENOSPC = -28;
/** Pieces that `prefetch` has on their way at once. */
const PREFETCH_AT_ONCE = 8;

/** What stays of a file that was collected. Not made in the constructor: a closure there holds the file. */
function remainsOf(parts: FileParts): Remains {
  const { path, manager, mutations, ground, access } = parts;
  return {
    path,
    adopt: () => {
      const file = new OpenFile(parts);
      // What was told while there was nobody to hear it.
      if (!file.look()) {
        file.noticeSize(parts.sizeNow());
        access.absorbFaults();
      }
      return { inUse: () => ground.live > 0 || mutations.length > 0 || !manager.idle, close: () => file.close() };
    },
  };
}

/** Runs `begin`, which answers with how to give up; gives up and rejects when the signal fires before `settled` was called. */
function withSignal(signal: AbortSignal | undefined, reject: (error: Error) => void, begin: (settled: () => void) => () => void): void {
  if (signal === undefined) {
    begin(() => {});
    return;
  }
  let giveUp = (): void => {};
  const settled = onAbort(signal, () => {
    giveUp();
    reject(abortError(signal));
  });
  giveUp = begin(settled);
}
