/**
 * The two ways to a file's bytes, as `file.ts` sees them: `direct-access.ts` (own frames) and `mapped-access.ts` (the kernel's page cache).
 *
 * Offsets and lengths are checked and clipped to the file before they come here; a length is never 0.
 */
import type { Feature } from '../io/engine.js';
import type { Mutation } from '../requests/mutation-queue.js';
import type { Caller, RequestManager } from '../requests/request-manager.js';
import type { Loss, Range } from '../requests/write-back.js';
import type { Ground } from './ground.js';
import type { FileWindow, WindowOwner } from './window.js';

/** A mutation that can be taken back while nothing of it has happened. */
export interface StoreMutation extends Mutation {
  /** True if it was taken back: nothing of it is written, and `done` was called with `error`. */
  abort(error: Error): boolean;
}

export interface PageCounts {
  pages: number;
  cached: number;
  dirty: number;
  writeback: number;
  evicted: number;
}

export interface AccessCounts {
  /** Bytes that were read ahead and left memory before anybody used them, as far as this memory knows. */
  readAheadUnused: number;
  gatheredBytes: number;
  evictions: number;
  /** Cells that the guard replaced. */
  faults: number;
}

export interface Access extends WindowOwner {
  readonly manager: RequestManager;
  readonly ground: Ground;
  /** Bytes that `read`, `prefetch` and `write` ask for at once at most. */
  readonly pieceBytes: number;
  readonly counts: AccessCounts;

  /** The window, if its bytes are in memory; with `lock`, if they can be kept there without reading. */
  tryWindow(offset: number, length: number, writable: boolean, lock: boolean): FileWindow | undefined;
  /** What has to be asked of the manager for a range; `settle` as in `Caller`. */
  caller(offset: number, length: number, writable: boolean, blocking: boolean, settle: (error: Error | undefined) => void): Caller;
  /** Throws for a range that memory could never hold at once, or that may not be locked now. */
  checkRoom(offset: number, length: number, writable: boolean, lock: boolean): void;
  /** After the caller of this very range was settled well: takes its pins over, clipped to what the file has by now. */
  windowFrom(offset: number, length: number, writable: boolean, lock: boolean): FileWindow;
  /** What has to happen before a writable window over the range can be made, if anything. */
  prepare(offset: number, length: number, settle: (error: Error | undefined) => void): Mutation | undefined;
  /** Copies to `target` if all of it is in memory. */
  tryCopy(target: Uint8Array, offset: number): boolean;
  /** After a caller of the range was settled well: copies what the file has by now and gives the pins back. Answers with the bytes copied. */
  copyFrom(target: Uint8Array, offset: number): number;
  /** After a caller of the range was settled well: gives the pins back. */
  giveBack(offset: number, length: number): void;
  /** Reads with the calling thread waiting; everything accepted before was done. */
  readBlocking(target: Uint8Array, offset: number): number;

  /** Bytes that read-ahead asks for at once at most. */
  readonly aheadPieceBytes: number;
  /** Reads for a caller that nobody waits for, unless slots or memory are short: then the answer is -1, and it is not settled. Else the bytes that are asked of the device for it. */
  askAhead(caller: Caller): number;
  /** Told the offset of a block that was read ahead and is gone before anybody used it. Set by whoever reads ahead. */
  onAheadLost: ((offset: number) => void) | undefined;

  /** Takes the bytes at once, if nothing has to be waited for. */
  tryStore(source: Uint8Array, offset: number): boolean;
  store(source: Uint8Array, offset: number, settle: (error: Error | undefined) => void): StoreMutation;
  /** Is over as a mutation as soon as its turn comes; `settle` is called once everything accepted before is durable, or not to be made so. `urgent`: a blocking call waits for it. */
  flush(settle: (error: Error | undefined) => void, urgent: boolean): Mutation;
  /** Calls `go` once every flush that was accepted is answered, perhaps within this call. */
  whenFlushed(go: () => void): void;
  resize(size: number, settle: (error: Error | undefined) => void): Mutation;
  allocate(offset: number, length: number, settle: (error: Error | undefined) => void): Mutation;
  discard(offset: number, length: number, settle: (error: Error | undefined) => void): Mutation;
  /** There is something that a flush would have to make durable, or a flush that is not over. */
  readonly unflushed: boolean;
  /** Counts calls of `markDirty`. */
  readonly marks: number;
  acknowledge(): Loss[];

  evict(offset: number, length: number): Promise<void>;
  residency(offset: number, length: number): PageCounts;
  /** Kernel features that this way uses or does without, as known now. */
  features(): Feature[];
  /** The file grew, by us or by others. */
  grown(size: number): void;
  /**
   * Somebody else cut the file. Once no write of ours is on its way, asks `sizeNow` where it ended, and calls `cut` with where the file ends now: there, or behind the last change of our own that is
   * still to be written, which makes it longer again (what lies between, and is not ours, reads as zeros). From then on windows that reach beyond are invalid; `done` once the memory is in order.
   */
  shrunk(sizeNow: () => number, cut: (end: number) => void, done: () => void): void;
  /** Somewhere in the process a touch of a window faulted: windows of this file over what the guard replaced are invalid from here on. */
  absorbFaults(): void;
  /**
   * The file is gone for good: zero pages under everything. Operations may still be in flight. What was not durable, `pending` changes included, is named by `losses` and `acknowledge`, with `error`.
   */
  lose(cause: number, error: Error, pending: readonly Range[]): void;
  /** What a flush could not make durable and nobody acknowledged. */
  readonly losses: readonly Loss[];
  /** Nobody gets memory any more: is something under way that will free some? */
  pressure(): boolean;
  cacheFull(caller: Caller): Error;
  /** Puts zero pages under everything and frees it. Nothing is in flight. */
  close(): void;
}
