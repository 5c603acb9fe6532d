/**
 * Frames: blocks of memory that the device fills and windows show, and which block is in which.
 *
 *   slab 0  [ f0 f1 f2 … ]  slab 1  [ … ]      up to 1 GiB each; a run of frames never straddles two
 *   valid   [ ff 0f 00 … ]                      sectors whose bytes are the file's
 *   dirty   [ 00 02 00 … ]                      sectors that the device does not have yet
 *   pins    [  1  0  2 … ]                      windows and requests that hold the frame
 *   busy    [  0  1  0 … ]                      operations on it now
 *   reserve                                      the last frames: for the blocking twins alone, outside the clock
 *   area 0 [ f0 … f1023 ]  area 1 [ … ]          4 MiB each, what an engine registers at once: memory goes back to the system by these
 *
 * A frame is free (no block), idle (a block, nothing holds it) or held (pinned, dirty or busy). Only free and idle frames are
 * taken: the clock's hand gives an idle frame that was used since its last round one more, passes by what was read ahead and not used while fewer blocks were taken since than there are frames, unless there is nothing else, and looks for whole runs first, so that a window over several
 * blocks is one area where possible.
 *
 * Guarantees: a pinned, dirty or busy frame is never taken; `room` counts exactly what could be; a page that JavaScript stored
 * into through a read window is restored before its frame gets another block; the memory of an area goes back to the system once every frame of it was free or idle
 * for `idleMs`, never that of the reserve.
 * Leaves to others: what to read and write (`requests/`), what a window is (`windows/`).
 */
import { assertionError } from '../errors.js';
import type { Engine, Slab } from '../io/engine.js';
import { ABSENT, BLOCK_BYTES, BLOCK_SECTORS, type BlockStore, HELD, PRESENT } from './block-store.js';
import { BlockTable } from './block-table.js';
import { IdleAreas } from './idle-areas.js';
import { type MakeMemory, Tables } from './tables.js';

/** Bytes of a slab at most: what io_uring takes as one registered region. */
export const SLAB_BYTES_MAX = 2 ** 30;
const SLAB_FRAMES = SLAB_BYTES_MAX / BLOCK_BYTES;
/** Frames kept back for `readSync` and the writing back of frames that someone may store into. */
export const RESERVED_FRAMES = 64;
/** Frames looked at by one scan for stray stores. */
const REPAIR_FRAMES = 256;
/** Steps that the hand goes, beyond the run's own length, before a run is given up for a shorter one. */
const RUN_SEARCH_FRAMES = 8192;

/** Frames of an area: 4 MiB, as native/ring.cc registers them (kChunkBytes); an area lies in one slab. */
const AREA_FRAMES = 1024;

/** Bytes of all tables for each frame, and for each cache, generously: what is not used is address space alone. */
const TABLE_BYTES = 64;
const TABLE_BYTES_MORE = 4096;

/** busy: reads on the frame count 1 each, a write counts WRITE_BUSY. */
const WRITE_BUSY = 0x100;

/** used: the hand passes it by once more; read ahead, and not used since. */
const SECOND_CHANCE = 1;
const AHEAD = 2;

export class FrameCache implements BlockStore {
  /** Frames that blocks can be in. */
  readonly frames: number;
  readonly slabs: readonly Slab[];
  /** Typed arrays over `slabs[i].shared`. */
  readonly shared: readonly Uint8Array[];
  /** Which block a frame holds, -1 none. */
  readonly blockOf: Float64Array;
  readonly valid: Uint8Array;
  readonly dirty: Uint8Array;
  readonly pins: Int32Array;
  /** Writable windows over the frame. */
  readonly writers: Uint16Array;
  slab = 0;
  offset = 0;
  evictions = 0;
  /** Frames with dirty sectors. */
  dirtyCount = 0;
  /** A blocking call is taking memory: the reserve counts too. */
  useReserve = false;
  /** What is taken and pinned is read ahead: for nobody yet. */
  readingAhead = false;
  /** Frames that were read ahead and evicted before anybody used them. */
  aheadUnused = 0;
  /** Told their blocks. */
  onAheadLost: ((block: number) => void) | undefined;
  readonly #table: BlockTable;
  readonly #busy: Uint16Array;
  readonly #used: Uint8Array;
  /** Blocks that were given frames so far, and how many those were when a frame got its own; both modulo 2^32. */
  readonly #stamp: Uint32Array;
  #assigned = 0;
  /** A view over the frame's private page was handed out since the page was last known to be clean. */
  readonly #exposed: Uint8Array;
  #hand = 0;
  #room: number;
  #reservedFree: number[] = [];
  readonly #engine: Engine;
  readonly #areas: IdleAreas;
  readonly #areaFrames: number;
  readonly #areaShift: number;

  /** Areas that nothing used for `idleMs` are given back to the system; Infinity: none by themselves. `areaFrames` is a power of two, smaller for tests. */
  constructor(
    engine: Engine,
    makeSlab: (bytes: number) => Slab,
    cacheBytes: number,
    idleMs = Number.POSITIVE_INFINITY,
    areaFrames = AREA_FRAMES,
    makeMemory?: MakeMemory,
  ) {
    this.#engine = engine;
    this.#areaFrames = areaFrames;
    this.#areaShift = Math.log2(areaFrames);
    this.frames = Math.ceil(cacheBytes / BLOCK_BYTES);
    const all = this.frames + RESERVED_FRAMES;
    this.#areas = new IdleAreas(Math.ceil(all / areaFrames), idleMs, (area) => this.#giveBack(area));
    const tables = new Tables(all * TABLE_BYTES + TABLE_BYTES_MORE, makeMemory);
    this.blockOf = tables.float64(all).fill(-1);
    this.valid = tables.uint8(all);
    this.dirty = tables.uint8(all);
    this.pins = tables.int32(all);
    this.writers = tables.uint16(all);
    this.#busy = tables.uint16(all);
    this.#used = tables.uint8(all);
    this.#stamp = tables.uint32(all);
    this.#exposed = tables.uint8(all);
    this.#table = new BlockTable(this.blockOf, tables);
    this.#room = this.frames;
    for (let frame = all - 1; frame >= this.frames; frame--) this.#reservedFree.push(frame);
    const slabs: Slab[] = [];
    try {
      for (let frame = 0; frame < all; frame += SLAB_FRAMES) slabs.push(makeSlab(Math.min(all - frame, SLAB_FRAMES) * BLOCK_BYTES));
      // The engine is this file's alone, so its index of a slab is ours.
      slabs.forEach((slab, index) => {
        if (engine.addSlab(slab) !== index) throw assertionError('the engine has slabs of somebody else');
      });
    } catch (error) {
      for (const slab of slabs) slab.close();
      throw error;
    }
    this.slabs = slabs;
    this.shared = slabs.map((slab) => new Uint8Array(slab.shared));
  }

  /** The frame that holds the block, -1 if none does. */
  find(block: number): number {
    return this.#table.find(block);
  }

  /** The bytes of a frame, as the device and writable windows see them. */
  bytesOf(frame: number, count = 1): Uint8Array {
    const at = (frame % SLAB_FRAMES) * BLOCK_BYTES;
    return this.shared[Math.floor(frame / SLAB_FRAMES)].subarray(at, at + count * BLOCK_BYTES);
  }

  slabOf(frame: number): number {
    return Math.floor(frame / SLAB_FRAMES);
  }

  /** Bytes into its slab. */
  offsetOf(frame: number): number {
    return (frame % SLAB_FRAMES) * BLOCK_BYTES;
  }

  /** Are the frames one after the other in memory? */
  adjacent(frame: number, next: number): boolean {
    return next === frame + 1 && next % SLAB_FRAMES !== 0 && (next < this.frames || frame >= this.frames);
  }

  /** For the immediate path: pins the block's frame if the sectors are there; answers with the frame or -1. */
  tryPin(block: number, need: number, store: boolean): number {
    const frame = this.#table.find(block);
    if (frame < 0 || (this.valid[frame] & need) !== need || (store && this.#busy[frame] !== 0)) return -1;
    // A read on its way over other sectors of the block (a partial block being completed) leaves the valid ones alone.
    this.pinFrame(frame);
    return frame;
  }

  pinFrame(frame: number): void {
    if (this.pins[frame] === 0 && this.#isIdle(frame)) this.#room--;
    this.pins[frame]++;
    this.touch(frame);
  }

  /** The frame, which holds a block, is being used, perhaps without having been pinned for it: its area is not idle. */
  touch(frame: number): void {
    this.#used[frame] = SECOND_CHANCE;
    this.#areas.touched[frame >>> this.#areaShift] = this.#areas.epoch;
  }

  unpinFrame(frame: number): void {
    if (--this.pins[frame] !== 0) return;
    if (frame >= this.frames) this.#freeReserved(frame);
    else if (this.#isFreeOrIdle(frame)) this.#room++;
  }

  expose(frame: number, count: number): void {
    if (count === 1) this.#exposed[frame] = 1;
    else this.#exposed.fill(1, frame, frame + count);
  }

  // BlockStore

  begin(): void {}

  state(block: number, need: number, store: boolean): number {
    const frame = this.#table.find(block);
    if (frame < 0) return ABSENT;
    if (store && this.#busy[frame] !== 0) return HELD;
    return (this.valid[frame] & need) === need ? PRESENT : HELD;
  }

  room(): number {
    return this.useReserve ? this.#room + this.#reservedFree.length : this.#room;
  }

  idle(block: number): boolean {
    const frame = this.#table.find(block);
    return frame >= 0 && frame < this.frames && this.pins[frame] === 0 && this.#isFreeOrIdle(frame);
  }

  pin(block: number): void {
    const frame = this.#table.find(block);
    const used = this.#used[frame];
    this.pinFrame(frame);
    // To be on its way is no use yet.
    if (this.readingAhead) this.#used[frame] |= used;
  }

  unpin(block: number): void {
    this.unpinFrame(this.#table.find(block));
  }

  take(block: number, count: number): number {
    let run = Math.min(count, this.#room);
    if (run === 0) return this.useReserve ? this.#takeReserved(block) : 0;
    let frame = -1;
    for (; run > 1; run >>>= 1) {
      frame = this.#findRun(run, run + RUN_SEARCH_FRAMES);
      if (frame >= 0) break;
    }
    if (frame < 0) {
      run = 1;
      // Two rounds: the first may only take away second chances.
      frame = this.#findRun(1, 2 * this.frames + 1);
      if (frame < 0) frame = this.#findRun(1, 2 * this.frames + 1, false);
    }
    // Idle until an operation begins on it or somebody pins it, which comes next and lowers `room`.
    this.#assign(frame, run, block);
    return run;
  }

  /** A frame from the reserve that holds no block, for bytes on their way out; -1 if none is left. Give it back with `giveScratch`. */
  takeScratch(): number {
    return this.#reservedFree.pop() ?? -1;
  }

  giveScratch(frame: number): void {
    this.#reservedFree.push(frame);
  }

  locate(block: number): number {
    const frame = this.#table.find(block);
    this.slab = this.slabOf(frame);
    this.offset = this.offsetOf(frame);
    return this.valid[frame];
  }

  began(start: number, sectors: number, write: boolean): void {
    const last = Math.floor((start + sectors - 1) / BLOCK_SECTORS);
    for (let block = Math.floor(start / BLOCK_SECTORS); block <= last; block++) {
      const frame = this.#table.find(block);
      if (frame < this.frames && this.pins[frame] === 0 && this.#isIdle(frame)) this.#room--;
      this.#busy[frame] += write ? WRITE_BUSY : 1;
    }
  }

  ended(start: number, sectors: number, write: boolean, ok: boolean): void {
    const end = start + sectors;
    for (let block = Math.floor(start / BLOCK_SECTORS); block * BLOCK_SECTORS < end; block++) {
      const frame = this.#table.find(block);
      if (write) {
        this.#busy[frame] -= WRITE_BUSY;
      } else {
        const first = Math.max(0, start - block * BLOCK_SECTORS);
        const past = Math.min(BLOCK_SECTORS, end - block * BLOCK_SECTORS);
        const mask = ((1 << past) - 1) & ~((1 << first) - 1);
        if (ok) this.valid[frame] |= mask;
        this.#busy[frame]--;
      }
      if (this.#busy[frame] !== 0) continue;
      if (this.pins[frame] === 0) {
        if (frame >= this.frames) this.#freeReserved(frame);
        else if (this.#isFreeOrIdle(frame)) this.#room++;
      }
    }
  }

  zero(slab: number, from: number, to: number): void {
    this.shared[slab].fill(0, from, to);
  }

  // Writing

  markValid(frame: number, mask: number): void {
    this.valid[frame] |= mask;
  }

  /** The sectors differ from the device's from now on. */
  markDirty(frame: number, mask: number): void {
    if (this.dirty[frame] === 0 && mask !== 0) {
      if (this.pins[frame] === 0 && this.#isIdle(frame)) this.#room--;
      this.dirtyCount++;
    }
    this.dirty[frame] |= mask;
  }

  markClean(frame: number, mask: number): void {
    if (this.dirty[frame] === 0) return;
    this.dirty[frame] &= ~mask;
    if (this.dirty[frame] !== 0) return;
    this.dirtyCount--;
    if (this.pins[frame] !== 0) return;
    if (frame >= this.frames) this.#freeReserved(frame);
    else if (this.#isFreeOrIdle(frame)) this.#room++;
  }

  isBusy(frame: number): boolean {
    return this.#busy[frame] !== 0;
  }

  isWriting(frame: number): boolean {
    return this.#busy[frame] >= WRITE_BUSY;
  }

  /** Takes the block out of memory, whoever holds the frame: it becomes free when the last pin goes. Not while an operation is on it. */
  drop(frame: number): void {
    // A frame of the reserve is free already if what held it let go of it on the way here.
    if (this.blockOf[frame] < 0) return;
    const wasRoom = frame < this.frames && this.pins[frame] === 0 && this.#isFreeOrIdle(frame);
    if (this.dirty[frame] !== 0) {
      this.dirty[frame] = 0;
      this.dirtyCount--;
    }
    this.#table.remove(frame);
    this.blockOf[frame] = -1;
    this.valid[frame] = 0;
    if (this.pins[frame] !== 0) return;
    if (frame >= this.frames) this.#freeReserved(frame);
    else if (!wasRoom) this.#room++;
  }

  /**
   * Moves the blocks [block, block+count) into one run of frames, so that a writable window over them is one area. Each is pinned once, by the caller.
   * Answers with the first frame, or -1 where another holder or want of room prevents it.
   */
  gather(block: number, count: number): number {
    for (let i = 0; i < count; i++) {
      const frame = this.#table.find(block + i);
      if (this.pins[frame] !== 1 || this.#busy[frame] !== 0) return -1;
    }
    if (this.#room < count) return -1;
    let target = this.#findRun(count, 2 * this.frames + count);
    if (target < 0) target = this.#findRun(count, 2 * this.frames + count, false);
    if (target < 0) return -1;
    for (let i = 0; i < count; i++) if (this.blockOf[target + i] >= 0) this.#evict(target + i);
    this.#fillAreas(target, count);
    for (let i = 0; i < count; i++) {
      const from = this.#table.find(block + i);
      const to = target + i;
      if (this.#exposed[to] !== 0) this.#repairAround(to);
      this.bytesOf(to).set(this.bytesOf(from));
      this.#table.remove(from);
      this.blockOf[from] = -1;
      this.blockOf[to] = block + i;
      this.#table.insert(to);
      this.valid[to] = this.valid[from];
      this.dirty[to] = this.dirty[from];
      this.#used[to] = 1;
      this.pins[to] = this.pins[from];
      this.writers[to] = this.writers[from];
      this.valid[from] = 0;
      this.dirty[from] = 0;
      this.pins[from] = 0;
      this.writers[from] = 0;
      // The old frame became free, the new one is held: room stays as it is, unless the old one was of the reserve.
      if (from >= this.frames) {
        this.#reservedFree.push(from);
        this.#room--;
      }
    }
    return target;
  }

  /** Drops what is idle among the blocks [first, first+count). Work is bounded by the cache, not by the range. */
  evictRange(first: number, count: number): void {
    const drop = (frame: number): void => {
      if (this.pins[frame] === 0 && this.#isIdle(frame)) this.#evict(frame);
    };
    if (count < this.frames) {
      for (let block = first; block < first + count; block++) {
        const frame = this.#table.find(block);
        if (frame >= 0 && frame < this.frames) drop(frame);
      }
    } else {
      for (let frame = 0; frame < this.frames; frame++) if (this.blockOf[frame] >= first && this.blockOf[frame] < first + count) drop(frame);
    }
  }

  /** Calls `visit` for each frame that holds a block of [first, end). For resize and close: proportional to the cache. */
  forEachIn(first: number, end: number, visit: (frame: number) => void): void {
    for (let frame = 0; frame < this.blockOf.length; frame++) {
      const block = this.blockOf[frame];
      if (block >= first && block < end) visit(frame);
    }
  }

  /** Looks once for areas to give back, as the clock does every quarter of `idleMs`; for tests. Answers as `IdleOwner.look`. */
  lookForIdle(): number {
    return this.#areas.look();
  }

  /** What holds frames now; for error messages and leak checks. */
  census(): { frames: number; pinned: number; dirty: number; busy: number; room: number; reserved: number } {
    let pinned = 0;
    let busy = 0;
    for (let frame = 0; frame < this.blockOf.length; frame++) {
      if (this.pins[frame] !== 0) pinned++;
      if (this.#busy[frame] !== 0) busy++;
    }
    return { frames: this.frames, pinned, dirty: this.dirtyCount, busy, room: this.#room, reserved: this.#reservedFree.length };
  }

  /** Older views read zeros from here on; `close` follows once nothing is in flight. */
  retire(): void {
    for (const slab of this.slabs) slab.retire();
  }

  close(): void {
    this.#areas.close();
    for (const slab of this.slabs) slab.close();
  }

  /** Holds a block, and neither dirty nor busy; pins are the caller's to look at. */
  #isIdle(frame: number): boolean {
    return frame < this.frames && this.#busy[frame] === 0 && this.dirty[frame] === 0;
  }

  #isFreeOrIdle(frame: number): boolean {
    return this.#busy[frame] === 0 && this.dirty[frame] === 0;
  }

  /** As `take`, from the frames kept back for blocking calls: they leave the cache with their last pin. */
  #takeReserved(block: number): number {
    const frame = this.#reservedFree.pop();
    if (frame === undefined) return 0;
    this.#assign(frame, 1, block);
    return 1;
  }

  #freeReserved(frame: number): void {
    if (this.#busy[frame] !== 0 || this.dirty[frame] !== 0 || this.pins[frame] !== 0) return;
    if (this.blockOf[frame] >= 0) {
      this.#table.remove(frame);
      this.blockOf[frame] = -1;
      this.valid[frame] = 0;
    }
    this.#reservedFree.push(frame);
  }

  /** The first of `run` neighbouring frames that are free or idle and had their second chance; -1 after `steps`. `spare`: not what was read ahead lately and not used yet. */
  #findRun(run: number, steps: number, spare = true): number {
    const { frames, pins, dirty } = this;
    let length = 0;
    for (let step = 0; step < steps; step++) {
      if (this.#hand === frames) {
        this.#hand = 0;
        length = 0;
      }
      const frame = this.#hand++;
      if (frame % SLAB_FRAMES === 0) length = 0;
      if (pins[frame] !== 0 || dirty[frame] !== 0 || this.#busy[frame] !== 0) {
        length = 0;
      } else if (spare && (this.#used[frame] & AHEAD) !== 0 && (this.#assigned - this.#stamp[frame]) >>> 0 < frames) {
        length = 0;
      } else if ((this.#used[frame] & SECOND_CHANCE) !== 0 && this.blockOf[frame] >= 0) {
        this.#used[frame] &= ~SECOND_CHANCE;
        length = 0;
      } else if (++length === run) {
        return frame - run + 1;
      }
    }
    return -1;
  }

  /** Frames [frame, frame+count) are about to be stored into. */
  #fillAreas(frame: number, count: number): void {
    // The reserve is needed at once when it is needed.
    const last = Math.min(frame + count, this.frames) - 1;
    for (let area = frame >>> this.#areaShift; area <= last >>> this.#areaShift && last >= frame; area++) this.#areas.fill(area);
  }

  /**
   * Gives an area back to the system if every frame of it is free or idle: nothing that the device does is over it then, or a view of a live window. Blocks in it are
   * forgotten.
   */
  #giveBack(area: number): boolean {
    const first = area * this.#areaFrames;
    const end = first + this.#areaFrames;
    if (end > this.frames) return false;
    for (let frame = first; frame < end; frame++) if (this.pins[frame] !== 0 || !this.#isFreeOrIdle(frame)) return false;
    if (!this.#engine.giveBack(this.slabOf(first), this.offsetOf(first), (end - first) * BLOCK_BYTES)) return false;
    for (let frame = first; frame < end; frame++) {
      if (this.blockOf[frame] >= 0) this.#table.remove(frame);
      this.blockOf[frame] = -1;
      this.valid[frame] = 0;
      this.#used[frame] = 0;
    }
    this.#exposed.fill(0, first, end);
    return true;
  }

  #evict(frame: number): void {
    const block = this.blockOf[frame];
    this.#table.remove(frame);
    this.blockOf[frame] = -1;
    this.valid[frame] = 0;
    this.evictions++;
    if ((this.#used[frame] & AHEAD) === 0) return;
    this.#used[frame] = 0;
    this.aheadUnused++;
    this.onAheadLost?.(block);
  }

  /** Gives the blocks [block, block+run) to the frames from `frame` on. */
  #assign(frame: number, run: number, block: number): void {
    for (let i = 0; i < run; i++) {
      const at = frame + i;
      if (this.blockOf[at] >= 0) this.#evict(at);
      if (this.#exposed[at] !== 0) this.#repairAround(at);
      this.blockOf[at] = block + i;
      this.valid[at] = 0;
      this.#used[at] = this.readingAhead ? AHEAD : 0;
      this.#stamp[at] = this.#assigned;
      this.#assigned = (this.#assigned + 1) >>> 0;
      this.#table.insert(at);
    }
    this.#fillAreas(frame, run);
    this.slab = this.slabOf(frame);
    this.offset = this.offsetOf(frame);
  }

  /**
   * Finds and restores stray stores in the neighbourhood of a frame, with one scan for all of it. Frames that someone still holds stay marked: they may be stored
   * into again.
   */
  #repairAround(frame: number): void {
    const slab = this.slabOf(frame);
    const first = Math.max(slab * SLAB_FRAMES, frame - (frame % REPAIR_FRAMES));
    const end = Math.min(first + REPAIR_FRAMES, (slab + 1) * SLAB_FRAMES, this.blockOf.length);
    this.slabs[slab].repair(this.offsetOf(first), (end - first) * BLOCK_BYTES);
    for (let at = first; at < end; at++) if (this.pins[at] === 0) this.#exposed[at] = 0;
  }
}
