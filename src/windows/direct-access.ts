/**
 * Direct mode: windows are views of the file's own frames, which the device fills.
 *
 * Guarantees: a window's frames are pinned while it has a reference; read windows show the private mapping of a slab, writable ones the shared; a
 * window over neighbouring frames is one view, else it is gathered once when somebody wants it in one piece.
 * Leaves to others: getting blocks into frames (`requests/`), what changes the file (`direct-writes.ts`).
 */
import { SectorwiseError } from '../errors.js';
import type { Feature } from '../io/engine.js';
import { ABSENT, ALL_SECTORS, BLOCK_BYTES, sectorMask } from '../memory/block-store.js';
import { type FrameCache, RESERVED_FRAMES } from '../memory/frame-cache.js';
import type { Staging } from '../memory/staging.js';
import type { Mutation, MutationQueue } from '../requests/mutation-queue.js';
import type { Caller, RequestManager } from '../requests/request-manager.js';
import type { Loss, Range } from '../requests/write-back.js';
import type { Access, AccessCounts, PageCounts, StoreMutation } from './access.js';
import { DirectWrites } from './direct-writes.js';
import type { Ground } from './ground.js';
import { FileWindow } from './window.js';

/** Blocks that one piece of a long read or write asks for at most. */
const PIECE_BLOCKS_MAX = 256;

export interface DirectAccessOptions {
  ground: Ground;
  manager: RequestManager;
  frames: FrameCache;
  mutations: MutationQueue;
  kind: 'file' | 'block-device';
  /** Bytes that a write begins and ends on. */
  writeAlignment: number;
  transferLimit: number;
  /** Memory that writes go out from. */
  staging: Staging;
  /** A write that is to be durable by itself is: not so where a server is told, and may not listen. */
  durableWrites: boolean;
  /** Operations that the device takes at once. */
  depth: number;
  onInvalidate: (from: number, length: number) => void;
}

export class DirectAccess implements Access {
  readonly path: string;
  readonly ground: Ground;
  readonly manager: RequestManager;
  readonly pieceBytes: number;
  readonly aheadPieceBytes: number;
  readonly #frames: FrameCache;
  readonly #staging: Staging;
  readonly #writes: DirectWrites;
  marks = 0;
  #gatheredBytes = 0;

  constructor(options: DirectAccessOptions) {
    this.path = options.ground.path;
    this.ground = options.ground;
    this.manager = options.manager;
    this.#frames = options.frames;
    this.#staging = options.staging;
    this.pieceBytes = Math.max(1, Math.min(PIECE_BLOCKS_MAX, options.frames.frames >>> 2, options.manager.blocksMax)) * BLOCK_BYTES;
    this.aheadPieceBytes = this.pieceBytes;
    this.#writes = new DirectWrites(options, this.pieceBytes);
  }

  get counts(): AccessCounts {
    const { aheadUnused, evictions } = this.#frames;
    return { readAheadUnused: aheadUnused * BLOCK_BYTES, gatheredBytes: this.#gatheredBytes, evictions, faults: 0 };
  }

  tryWindow(offset: number, length: number, writable: boolean): FileWindow | undefined {
    const first = Math.floor(offset / BLOCK_BYTES);
    const within = offset - first * BLOCK_BYTES;
    // What is not needed in nearly every call is elsewhere: V8 makes one piece of machine code of the way of a hit while it is short.
    if (writable || within + length > BLOCK_BYTES) return this.#tryLong(offset, length, writable);
    const frame = this.#frames.tryPin(first, sectorMask(within, within + length), false);
    if (frame < 0) return undefined;
    this.ground.windowMade();
    return new FileWindow(this, offset, length, false, frame, this.ground.generation, undefined, undefined);
  }

  caller(offset: number, length: number, writable: boolean, blocking: boolean, settle: (error: Error | undefined) => void): Caller {
    const count = blocksOver(offset, length);
    return {
      first: Math.floor(offset / BLOCK_BYTES),
      count,
      needFirst: writable ? ALL_SECTORS : needOf(0, offset, length),
      needMiddle: ALL_SECTORS,
      needLast: writable ? ALL_SECTORS : needOf(count - 1, offset, length),
      store: writable,
      end: offset + length,
      blocking,
      handle: 0,
      waiting: false,
      settle,
    };
  }

  checkRoom(offset: number, length: number): void {
    const count = blocksOver(offset, length);
    if (count <= this.#frames.frames && count <= this.manager.blocksMax) return;
    throw new SectorwiseError(
      'ERR_SECTORWISE_CACHE_TOO_SMALL',
      `A window of ${length} bytes at ${offset} lies over ${count} blocks, but the cache has ${this.#frames.frames}; open the file with a larger cacheSize, or ask for less at once.`,
      { path: this.path, offset, length },
    );
  }

  prepare(): undefined {
    return undefined;
  }

  windowFrom(offset: number, length: number, writable: boolean): FileWindow {
    if (!writable && length > 0 && offset + length <= this.ground.logical) {
      // Within one block, as most are.
      const block = Math.floor(offset / BLOCK_BYTES);
      if (offset + length <= (block + 1) * BLOCK_BYTES) {
        this.ground.windowMade();
        return new FileWindow(this, offset, length, false, this.#frames.find(block), this.ground.generation, undefined, undefined);
      }
    }
    const now = Math.max(0, Math.min(length, this.ground.logical - offset));
    const asked = length === 0 ? 0 : blocksOver(offset, length);
    const kept = now === 0 ? 0 : blocksOver(offset, now);
    const first = Math.floor(offset / BLOCK_BYTES);
    for (let i = kept; i < asked; i++) this.#unpinIfThere(first + i);
    if (now === 0) return this.#empty(offset, writable);
    return this.#make(offset, now, writable);
  }

  tryCopy(target: Uint8Array, offset: number): boolean {
    const length = target.length;
    const first = Math.floor(offset / BLOCK_BYTES);
    const count = blocksOver(offset, length);
    for (let i = 0; i < count; i++) {
      const frame = this.#frames.seek(first + i);
      const need = needOf(i, offset, length);
      if (frame < 0 || (this.#frames.validOf(frame) & need) !== need) return false;
    }
    this.#copy(target, offset, length);
    return true;
  }

  copyFrom(target: Uint8Array, offset: number): number {
    const length = Math.max(0, Math.min(target.length, this.ground.logical - offset));
    if (length > 0) this.#copy(target, offset, length);
    this.giveBack(offset, target.length);
    return length;
  }

  giveBack(offset: number, length: number): void {
    const first = Math.floor(offset / BLOCK_BYTES);
    const count = blocksOver(offset, length);
    for (let i = 0; i < count; i++) this.#unpinIfThere(first + i);
    if (this.manager.waiting > 0) this.manager.schedule();
  }

  askAhead(caller: Caller): number {
    const frames = this.#frames;
    // A quarter of the frames stays for who comes while it is on its way; the reserve is for blocking calls alone.
    if (frames.useReserve || frames.room() - caller.count < frames.frames >>> 2) return -1;
    frames.readingAhead = true;
    try {
      const blocks = this.manager.requestSpare(caller);
      return blocks < 0 ? -1 : blocks * BLOCK_BYTES;
    } finally {
      frames.readingAhead = false;
    }
  }

  set onAheadLost(lost: ((offset: number) => void) | undefined) {
    this.#frames.onAheadLost = lost === undefined ? undefined : (block) => lost(block * BLOCK_BYTES);
  }

  readBlocking(target: Uint8Array, offset: number): number {
    let done = 0;
    while (done < target.length) {
      const at = offset + done;
      // Within the reserve, so that a cache full of pinned frames does not stand in the way.
      const most = Math.min(this.pieceBytes, RESERVED_FRAMES * BLOCK_BYTES) - (at % BLOCK_BYTES);
      const piece = target.subarray(done, done + Math.min(target.length - done, Math.max(most, BLOCK_BYTES - (at % BLOCK_BYTES))));
      if (!this.tryCopy(piece, at)) {
        let outcome: { error: Error | undefined } | undefined;
        const caller = this.caller(at, piece.length, false, true, (error) => {
          outcome = { error };
        });
        this.#frames.useReserve = true;
        try {
          while (!this.manager.requestNow(caller)) this.manager.progress();
        } finally {
          this.#frames.useReserve = false;
        }
        while (outcome === undefined) this.manager.progress();
        if (outcome.error !== undefined) throw outcome.error;
        const copied = this.copyFrom(piece, at);
        done += copied;
        if (copied < piece.length) break;
        continue;
      }
      done += piece.length;
    }
    return done;
  }

  // WindowOwner

  check(window: FileWindow): void {
    this.ground.check(window);
  }

  isValid(window: FileWindow): boolean {
    return this.ground.causeOf(window) === 0;
  }

  view(window: FileWindow): Uint8Array {
    const { offset, length, place, writable } = window;
    if (window.scattered !== undefined) return this.#gathered(window);
    const within = offset % BLOCK_BYTES;
    if (length === 0) return new Uint8Array(new ArrayBuffer(BLOCK_BYTES), within, 0);
    const slab = this.#frames.slabs[this.#frames.slabOf(place)];
    if (!writable) this.#frames.expose(place, blocksOver(offset, length));
    return new Uint8Array(writable ? slab.shared : slab.private, this.#frames.offsetOf(place) + within, length);
  }

  areas(window: FileWindow): readonly Uint8Array[] {
    const frames = window.scattered as Int32Array;
    const areas: Uint8Array[] = [];
    const end = window.offset + window.length;
    let at = window.offset;
    for (let i = 0; i < frames.length; ) {
      let next = i + 1;
      while (next < frames.length && this.#frames.adjacent(frames[next - 1], frames[next])) next++;
      const frame = frames[i];
      const within = at % BLOCK_BYTES;
      const length = Math.min(end - at, (next - i) * BLOCK_BYTES - within);
      this.#frames.expose(frame, next - i);
      areas.push(new Uint8Array(this.#frames.slabs[this.#frames.slabOf(frame)].private, this.#frames.offsetOf(frame) + within, length));
      at += length;
      i = next;
    }
    return areas;
  }

  mark(window: FileWindow, start: number, end: number): void {
    this.marks++;
    this.#writes.mark(window.place, window.offset, start, end);
  }

  dropped(window: FileWindow): void {
    this.ground.windowDropped();
    if (window.length === 0 || this.ground.closed) return;
    if (window.scattered === undefined && !window.writable && (window.offset % BLOCK_BYTES) + window.length <= BLOCK_BYTES)
      this.#frames.unpinFrame(window.place);
    else this.#unpinLong(window);
    if (this.manager.waiting > 0) this.manager.schedule();
  }

  #unpinLong(window: FileWindow): void {
    const frames = this.#frames;
    if (window.writable) this.#writes.dropped();
    if (window.scattered !== undefined) {
      for (const frame of window.scattered) frames.unpinFrame(frame);
    } else {
      const past = window.place + blocksOver(window.offset, window.length);
      for (let frame = window.place; frame < past; frame++) {
        if (window.writable) frames.writers[frame]--;
        frames.unpinFrame(frame);
      }
    }
  }

  // Changes

  get unflushed(): boolean {
    return this.#writes.unflushed;
  }

  tryStore(source: Uint8Array, offset: number): boolean {
    return this.#writes.tryStore(source, offset);
  }

  store(source: Uint8Array, offset: number, settle: (error: Error | undefined) => void): StoreMutation {
    return this.#writes.store(source, offset, settle);
  }

  flush(settle: (error: Error | undefined) => void, urgent: boolean): Mutation {
    return this.#writes.flush(settle, urgent);
  }

  whenFlushed(go: () => void): void {
    this.#writes.whenFlushed(go);
  }

  resize(size: number, settle: (error: Error | undefined) => void): Mutation {
    return this.#writes.resize(size, settle);
  }

  allocate(offset: number, length: number, settle: (error: Error | undefined) => void): Mutation {
    return this.#writes.allocate(offset, length, settle);
  }

  discard(offset: number, length: number, settle: (error: Error | undefined) => void): Mutation {
    return this.#writes.discard(offset, length, settle);
  }

  acknowledge(): Loss[] {
    return this.#writes.acknowledge();
  }

  pressure(): boolean {
    return this.#writes.pressure();
  }

  cacheFull(caller: Caller): SectorwiseError {
    const { frames, pinned, dirty, room } = this.#frames.census();
    return new SectorwiseError(
      'ERR_SECTORWISE_CACHE_FULL',
      `${caller.count} blocks are needed, but of ${frames} frames ${pinned} are pinned by windows, ${dirty} wait to be written and ${room} can be taken; ` +
        'release windows, flush, or open the file with a larger cacheSize.',
      { path: this.path, offset: caller.first * BLOCK_BYTES, length: caller.count * BLOCK_BYTES },
    );
  }

  async evict(offset: number, length: number): Promise<void> {
    const first = Math.ceil(offset / BLOCK_BYTES);
    // The last block goes even where the range ends within it because the file does.
    const end = offset + length >= this.ground.logical ? Math.ceil((offset + length) / BLOCK_BYTES) : Math.floor((offset + length) / BLOCK_BYTES);
    if (end > first) this.#frames.evictRange(first, end - first);
  }

  residency(offset: number, length: number): PageCounts {
    const first = Math.floor(offset / BLOCK_BYTES);
    const pages = length === 0 ? 0 : blocksOver(offset, length);
    const counts = { pages, cached: 0, dirty: 0, writeback: 0, evicted: 0 };
    const look = (frame: number): void => {
      if (this.#frames.validOf(frame) !== 0) counts.cached++;
      if (this.#frames.dirtyOf(frame) !== 0) counts.dirty++;
      if (this.#writes.isWriting(this.#frames.blockAt(frame))) counts.writeback++;
    };
    if (pages > this.#frames.frames) this.#frames.forEachIn(first, first + pages, look);
    else {
      for (let block = first; block < first + pages; block++) {
        const frame = this.#frames.find(block);
        if (frame >= 0) look(frame);
      }
    }
    return counts;
  }

  features(): Feature[] {
    return [];
  }

  grown(): void {
    this.#writes.grown();
  }

  shrunk(sizeNow: () => number, cut: (end: number) => void, done: () => void): void {
    this.#writes.shrunk(sizeNow, cut, done);
  }

  /** Frames are memory of this process. */
  absorbFaults(): void {}

  get losses(): readonly Loss[] {
    return this.#writes.losses;
  }

  lose(_cause: number, error: Error, pending: readonly Range[]): void {
    this.#writes.lose(error, pending);
    this.#frames.retire();
  }

  close(): void {
    this.ground.close();
    this.#frames.close();
    this.#staging.close();
  }

  #tryLong(offset: number, length: number, writable: boolean): FileWindow | undefined {
    const first = Math.floor(offset / BLOCK_BYTES);
    const count = blocksOver(offset, length);
    for (let i = 0; i < count; i++) {
      if (this.#frames.tryPinFrame(this.#frames.seek(first + i), writable ? ALL_SECTORS : needOf(i, offset, length), writable) >= 0) continue;
      for (let pinned = 0; pinned < i; pinned++) this.#frames.unpin(first + pinned);
      return undefined;
    }
    return this.#make(offset, length, writable);
  }

  /** The blocks are pinned; makes the window over them. */
  #make(offset: number, length: number, writable: boolean): FileWindow {
    const frames = this.#frames;
    const first = Math.floor(offset / BLOCK_BYTES);
    const count = blocksOver(offset, length);
    let place = frames.seek(first);
    let scattered: Int32Array | undefined;
    for (let i = 1, frame = place; i < count; i++) {
      const next = frames.seek(first + i);
      if (!frames.adjacent(frame, next)) {
        scattered = new Int32Array(count);
        for (let j = 0; j < count; j++) scattered[j] = frames.seek(first + j);
        break;
      }
      frame = next;
    }
    if (writable) {
      if (scattered !== undefined) {
        place = frames.gather(first, count);
        if (place < 0) {
          for (let i = 0; i < count; i++) frames.unpin(first + i);
          throw new SectorwiseError(
            'ERR_SECTORWISE_SCATTERED',
            'The frames under a writable window are apart and cannot be moved together while others hold them; release the other windows over this range first.',
            { path: this.path, offset, length },
          );
        }
        scattered = undefined;
        this.#writes.moved(first, count, place);
      }
      for (let i = 0; i < count; i++) frames.writers[place + i]++;
      this.#writes.opened(first, count);
    }
    this.ground.windowMade();
    return new FileWindow(this, offset, length, writable, place, this.ground.generation, scattered, undefined);
  }

  #empty(offset: number, writable: boolean): FileWindow {
    this.ground.windowMade();
    return new FileWindow(this, offset, 0, writable, -1, this.ground.generation, undefined, undefined);
  }

  #gathered(window: FileWindow): Uint8Array {
    const within = window.offset % BLOCK_BYTES;
    const snapshot = new Uint8Array(new ArrayBuffer(within + window.length), within, window.length);
    let at = 0;
    for (const area of window.areas) {
      snapshot.set(area, at);
      at += area.length;
    }
    this.#gatheredBytes += window.length;
    return snapshot;
  }

  #copy(target: Uint8Array, offset: number, length: number): void {
    for (let done = 0; done < length; ) {
      const at = offset + done;
      const block = Math.floor(at / BLOCK_BYTES);
      const within = at - block * BLOCK_BYTES;
      const bytes = Math.min(BLOCK_BYTES - within, length - done);
      const frame = this.#frames.seek(block);
      const from = this.#frames.offsetOf(frame) + within;
      this.#frames.touch(frame);
      target.set(this.#frames.shared[this.#frames.slabOf(frame)].subarray(from, from + bytes), done);
      done += bytes;
    }
  }

  /** A shrunken file may have lost the block under its pin. */
  #unpinIfThere(block: number): void {
    if (this.#frames.state(block, 0, false) !== ABSENT) this.#frames.unpin(block);
  }
}

/** Blocks that [offset, offset+length) touches; length is not 0. */
export function blocksOver(offset: number, length: number): number {
  return Math.floor((offset + length - 1) / BLOCK_BYTES) - Math.floor(offset / BLOCK_BYTES) + 1;
}

/** Sectors of the range's i-th block that [offset, offset+length) touches. */
export function needOf(i: number, offset: number, length: number): number {
  const start = (Math.floor(offset / BLOCK_BYTES) + i) * BLOCK_BYTES;
  return sectorMask(Math.max(0, offset - start), Math.min(BLOCK_BYTES, offset + length - start));
}
