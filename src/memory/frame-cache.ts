/**
 * Frames: blocks of memory that the device fills and windows show, and which block is in which.
 *
 *   slab 0  [ f0 f1 f2 … ]  slab 1  [ … ]      up to 1 GiB each; a run of frames never straddles two
 *   words   [ low high state pins | low … ]   a record of 16 bytes for each frame, so that a hit touches one line of it; low and high: its block (`block-table.ts`)
 *   state     valid: sectors whose bytes are the file's; dirty: those that the device does not have yet; operations on it now; what eviction wants to know
 *   pins      windows and requests that hold the frame
 *   reserve                                      the last frames: for the blocking twins alone, never evicted
 *   area 0 [ f0 … f1023 ]  area 1 [ … ]          4 MiB each, what an engine registers at once: memory goes back to the system by these
 *
 * A frame is free (no block), idle (a block, nothing holds it) or held (pinned, dirty or busy). Only free and idle frames are taken; which of them, `eviction.ts` says: whole runs where it can, so that
 * a window over several blocks is one area where possible.
 *
 * Guarantees: a pinned, dirty or busy frame is never taken; `room` counts exactly what could be; a page that JavaScript stored
 * into through a read window is restored before its frame gets another block; the memory of an area goes back to the system once every frame of it was free or idle
 * for `idleMs`, never that of the reserve.
 * Leaves to others: who goes (`eviction.ts`), what to read and write (`requests/`), what a window is (`windows/`).
 */
import { assertionError } from '../errors.js';
import type { Engine, Slab } from '../io/engine.js';
import { ABSENT, BLOCK_BYTES, HELD as BLOCK_HELD, BLOCK_SECTORS, type BlockStore, PRESENT } from './block-store.js';
import { BlockTable } from './block-table.js';
import { Eviction } from './eviction.js';
import * as layout from './frame-record.js';
import { IdleAreas } from './idle-areas.js';
import { type MakeMemory, Tables } from './tables.js';

/** Taken into this module: V8 knows a constant of the module that it compiles, and reads one of another module from memory each time. */
const { AHEAD, BLOCK_HIGH, BLOCK_LOW, DIRTY, DIRTY_SHIFT, EPOCH, EXPOSED, FRAME_WORDS, HELD_BITS, NO_BLOCK, PINS, READ, READS, STATE, VALID, WRITE, WRITES } =
  layout;

/** Bytes of a slab at most: what io_uring takes as one registered region. */
export const SLAB_BYTES_MAX = 2 ** 30;
const SLAB_FRAMES = SLAB_BYTES_MAX / BLOCK_BYTES;
/** Frames kept back for `readSync` and the writing back of frames that someone may store into. */
export const RESERVED_FRAMES = 64;
/** Frames looked at by one scan for stray stores. */
const REPAIR_FRAMES = 256;
const REPAIR_SHIFT = 8;
/** Fewer of them that may have been stored into, and only the one that is needed is looked at. */
const REPAIR_LEAST = 48;
/** Frames of a huge page: the kernel looks at all of them in one step. */
const HUGE_FRAMES = 512;
/** Scans between two questions whether frames lie in huge pages. */
const HUGE_ASKED_EACH = 256;

/** Frames of an area: 4 MiB, as native/ring.cc registers them (kChunkBytes); an area lies in one slab. */
const AREA_FRAMES = 1024;

/** Bytes of all tables for each frame, and for each cache, generously: what is not used is address space alone. */
const TABLE_BYTES = 64;
const TABLE_BYTES_MORE = 4096;

/** How far from the block that was found last a neighbour is looked for without a search. */
const SEEK_BLOCKS = 1024;

const BUSY = READS | WRITES;
const NEW_USE = EPOCH | AHEAD;
/** Bits that a frame's number moves up by to be the place of its record. Written out: the result of a function would not be known when V8 compiles. */
const RECORD_SHIFT = 2;

export class FrameCache implements BlockStore {
  /** Frames that blocks can be in. */
  readonly frames: number;
  readonly #all: number;
  readonly slabs: readonly Slab[];
  /** Typed arrays over `slabs[i].shared`. */
  readonly shared: readonly Uint8Array[];
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
  /** Records, as frame-record.ts says. */
  readonly #words: Int32Array;
  /** Frames of each neighbourhood of REPAIR_FRAMES that may have been stored into. */
  readonly #exposed: Uint16Array;
  #isHuge = false;
  #scans = 0;
  readonly #table: BlockTable;
  readonly #eviction: Eviction;
  /** A block that was looked for, and the frame that it was in: where the search for its neighbours begins. */
  #soughtBlock = 0;
  #soughtFrame = 0;
  #room: number;
  #reservedFree: number[] = [];
  readonly #engine: Engine;
  readonly #areas: IdleAreas;
  readonly #touched: Uint8Array;
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
    this.#touched = this.#areas.touched;
    this.#all = all;
    this.writers = tables.uint16(all);
    this.#words = tables.int32(all * FRAME_WORDS);
    this.#exposed = tables.uint16((all >>> REPAIR_SHIFT) + 1);
    this.#table = new BlockTable(this.#words, tables);
    this.#eviction = new Eviction(this.#words, this.frames, SLAB_FRAMES, tables);
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

  /** As `find`, for who goes through neighbouring blocks: what came in together lies side by side, and the records say so without a search. */
  seek(block: number): number {
    const distance = block - this.#soughtBlock;
    if (distance >= -SEEK_BLOCKS && distance <= SEEK_BLOCKS) {
      const frame = this.#soughtFrame + distance;
      const record = frame << RECORD_SHIFT;
      if (
        frame >= 0 &&
        frame < this.#all &&
        this.#words[record + BLOCK_LOW] === (block | 0) &&
        this.#words[record + BLOCK_HIGH] === ((block * 2 ** -32) | 0) + 1
      ) {
        return frame;
      }
    }
    const found = this.#table.find(block);
    if (found >= 0) {
      this.#soughtBlock = block;
      this.#soughtFrame = found;
    }
    return found;
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

  /** The block that a frame holds, -1 none. */
  blockAt(frame: number): number {
    const record = frame * FRAME_WORDS;
    const high = this.#words[record + BLOCK_HIGH];
    return high === NO_BLOCK ? -1 : (high - 1) * 2 ** 32 + (this.#words[record + BLOCK_LOW] >>> 0);
  }

  /** Sectors whose bytes are the file's. */
  validOf(frame: number): number {
    return this.#words[frame * FRAME_WORDS + STATE] & VALID;
  }

  /** Sectors that the device does not have yet. */
  dirtyOf(frame: number): number {
    return (this.#words[frame * FRAME_WORDS + STATE] & DIRTY) >> DIRTY_SHIFT;
  }

  /** Windows and requests that hold the frame. */
  pinsOf(frame: number): number {
    return this.#words[frame * FRAME_WORDS + PINS];
  }

  /** For the immediate path: pins the block's frame if the sectors are there; answers with the frame or -1. */
  tryPin(block: number, need: number, store: boolean): number {
    return this.tryPinFrame(this.#table.find(block), need, store);
  }

  /** As `tryPin`, of a block that was looked for already. */
  tryPinFrame(frame: number, need: number, store: boolean): number {
    if (frame < 0) return -1;
    const words = this.#words;
    const record = frame << RECORD_SHIFT;
    const state = words[record + STATE];
    // A read on its way over other sectors of the block (a partial block being completed) leaves the valid ones alone.
    if ((state & need) !== need || (store && (state & BUSY) !== 0)) return -1;
    if (words[record + PINS]++ === 0 && (state & HELD_BITS) === 0 && frame < this.frames) this.#room--;
    if (((state ^ this.#eviction.epoch) & NEW_USE) !== 0) this.#used(frame);
    this.#touched[frame >> this.#areaShift] = this.#areas.epoch;
    return frame;
  }

  pinFrame(frame: number): void {
    const words = this.#words;
    const record = frame << RECORD_SHIFT;
    if (words[record + PINS]++ === 0 && (words[record + STATE] & HELD_BITS) === 0 && frame < this.frames) this.#room--;
    this.touch(frame);
  }

  /** The frame, which holds a block, is being used, perhaps without having been pinned for it: its area is not idle. */
  touch(frame: number): void {
    if (((this.#words[(frame << RECORD_SHIFT) + STATE] ^ this.#eviction.epoch) & NEW_USE) !== 0) this.#used(frame);
    this.#touched[frame >> this.#areaShift] = this.#areas.epoch;
  }

  unpinFrame(frame: number): void {
    const words = this.#words;
    const record = frame << RECORD_SHIFT;
    const pins = words[record + PINS] - 1;
    words[record + PINS] = pins;
    if (pins !== 0 || (words[record + STATE] & HELD_BITS) !== 0) return;
    if (frame < this.frames && words[record + BLOCK_HIGH] !== NO_BLOCK) this.#room++;
    else this.#released(frame);
  }

  expose(frame: number, count: number): void {
    const words = this.#words;
    for (let at = frame; at < frame + count; at++) {
      const state = words[at * FRAME_WORDS + STATE];
      if ((state & EXPOSED) !== 0) continue;
      words[at * FRAME_WORDS + STATE] = state | EXPOSED;
      this.#exposed[at >>> REPAIR_SHIFT]++;
    }
  }

  // BlockStore

  begin(): void {}

  state(block: number, need: number, store: boolean): number {
    const frame = this.seek(block);
    if (frame < 0) return ABSENT;
    const state = this.#words[frame * FRAME_WORDS + STATE];
    if (store && (state & BUSY) !== 0) return BLOCK_HELD;
    return (state & need) === need ? PRESENT : BLOCK_HELD;
  }

  room(): number {
    return this.useReserve ? this.#room + this.#reservedFree.length : this.#room;
  }

  idle(block: number): boolean {
    const frame = this.seek(block);
    return frame >= 0 && frame < this.frames && !this.#isHeld(frame);
  }

  pin(block: number): void {
    this.pinFrame(this.seek(block));
  }

  unpin(block: number): void {
    this.unpinFrame(this.seek(block));
  }

  take(block: number, count: number): number {
    let run = Math.min(count, this.#room);
    if (run === 0) return this.useReserve ? this.#takeReserved(block) : 0;
    let frame = this.#eviction.find(run);
    while (frame < 0 && run > 1) {
      run >>>= 1;
      frame = this.#eviction.find(run);
    }
    if (frame < 0) throw assertionError('no frame can be taken, though there is room');
    // Idle until an operation begins on it or somebody pins it, which comes next and lowers `room`.
    this.#assign(frame, run, block);
    return run;
  }

  locate(block: number): number {
    const frame = this.seek(block);
    this.slab = this.slabOf(frame);
    this.offset = this.offsetOf(frame);
    return this.validOf(frame);
  }

  began(start: number, sectors: number, write: boolean): void {
    const last = Math.floor((start + sectors - 1) / BLOCK_SECTORS);
    for (let block = Math.floor(start / BLOCK_SECTORS); block <= last; block++) {
      const frame = this.seek(block);
      if (frame < this.frames && !this.#isHeld(frame)) this.#room--;
      const at = frame * FRAME_WORDS + STATE;
      const field = write ? WRITES : READS;
      if ((this.#words[at] & field) === field) throw assertionError('more operations on a frame than it has sectors');
      this.#words[at] += write ? WRITE : READ;
    }
  }

  ended(start: number, sectors: number, write: boolean, ok: boolean): void {
    const end = start + sectors;
    for (let block = Math.floor(start / BLOCK_SECTORS); block * BLOCK_SECTORS < end; block++) {
      const frame = this.seek(block);
      const at = frame * FRAME_WORDS + STATE;
      if (write) {
        this.#words[at] -= WRITE;
      } else {
        const first = Math.max(0, start - block * BLOCK_SECTORS);
        const past = Math.min(BLOCK_SECTORS, end - block * BLOCK_SECTORS);
        if (ok) this.#words[at] |= ((1 << past) - 1) & ~((1 << first) - 1);
        this.#words[at] -= READ;
      }
      if (!this.#isHeld(frame)) this.#released(frame);
    }
  }

  zero(slab: number, from: number, to: number): void {
    this.shared[slab].fill(0, from, to);
  }

  // Writing

  markValid(frame: number, mask: number): void {
    this.#words[frame * FRAME_WORDS + STATE] |= mask;
  }

  /** The sectors have to be read again before anybody is shown them. */
  markInvalid(frame: number, mask: number): void {
    this.#words[frame * FRAME_WORDS + STATE] &= ~(mask & VALID);
  }

  /** The sectors differ from the device's from now on. */
  markDirty(frame: number, mask: number): void {
    const at = frame * FRAME_WORDS + STATE;
    if ((this.#words[at] & DIRTY) === 0 && mask !== 0) {
      if (frame < this.frames && !this.#isHeld(frame)) this.#room--;
      this.dirtyCount++;
    }
    this.#words[at] |= mask << DIRTY_SHIFT;
  }

  markClean(frame: number, mask: number): void {
    const at = frame * FRAME_WORDS + STATE;
    if ((this.#words[at] & DIRTY) === 0) return;
    this.#words[at] &= ~(mask << DIRTY_SHIFT);
    if ((this.#words[at] & DIRTY) !== 0) return;
    this.dirtyCount--;
    if (!this.#isHeld(frame)) this.#released(frame);
  }

  isBusy(frame: number): boolean {
    return (this.#words[frame * FRAME_WORDS + STATE] & BUSY) !== 0;
  }

  /** Takes the block out of memory, whoever holds the frame: it becomes free when the last pin goes. Not while an operation is on it. */
  drop(frame: number): void {
    const record = frame * FRAME_WORDS;
    // A frame of the reserve is free already if what held it let go of it on the way here.
    if (this.#words[record + BLOCK_HIGH] === NO_BLOCK) return;
    const wasRoom = frame < this.frames && !this.#isHeld(frame);
    if ((this.#words[record + STATE] & DIRTY) !== 0) this.dirtyCount--;
    this.#forget(frame, false);
    if (this.#words[record + PINS] !== 0) return;
    if (frame >= this.frames) {
      this.#reservedFree.push(frame);
      return;
    }
    this.#eviction.freed(frame);
    if (!wasRoom) this.#room++;
  }

  /**
   * Moves the blocks [block, block+count) into one run of frames, so that a writable window over them is one area. Each is pinned once, by the caller.
   * Answers with the first frame, or -1 where another holder or want of room prevents it.
   */
  gather(block: number, count: number): number {
    for (let i = 0; i < count; i++) {
      const frame = this.#table.find(block + i);
      if (this.pinsOf(frame) !== 1 || this.isBusy(frame)) return -1;
    }
    if (this.#room < count) return -1;
    const target = this.#eviction.findAnyhow(count);
    if (target < 0) return -1;
    for (let to = target; to < target + count; to++) this.#empty(to);
    this.#fillAreas(target, count);
    const words = this.#words;
    for (let i = 0; i < count; i++) {
      const from = this.#table.find(block + i);
      const to = target + i;
      if ((words[to * FRAME_WORDS + STATE] & EXPOSED) !== 0) this.#repairAround(to);
      this.bytesOf(to).set(this.bytesOf(from));
      this.#table.remove(from);
      this.#table.insert(to, block + i);
      words[to * FRAME_WORDS + STATE] =
        (words[from * FRAME_WORDS + STATE] & (VALID | DIRTY)) | (words[to * FRAME_WORDS + STATE] & EXPOSED) | this.#eviction.epoch;
      words[to * FRAME_WORDS + PINS] = words[from * FRAME_WORDS + PINS];
      this.writers[to] = this.writers[from];
      if (from < this.frames) this.#eviction.moved(from, to);
      else this.#eviction.entered(to, 1, false);
      words[from * FRAME_WORDS + STATE] &= ~(VALID | DIRTY);
      words[from * FRAME_WORDS + PINS] = 0;
      this.writers[from] = 0;
      // The old frame became free, the new one is held: room stays as it is, unless the old one was of the reserve.
      if (from >= this.frames) {
        this.#reservedFree.push(from);
        this.#room--;
      } else {
        this.#eviction.freed(from);
      }
    }
    return target;
  }

  /** Drops what is idle among the blocks [first, first+count). Work is bounded by the cache, not by the range. */
  evictRange(first: number, count: number): void {
    const drop = (frame: number): void => {
      if (this.#isHeld(frame)) return;
      this.#evict(frame, false);
      this.#eviction.freed(frame);
    };
    if (count < this.frames) {
      for (let block = first; block < first + count; block++) {
        const frame = this.#table.find(block);
        if (frame >= 0 && frame < this.frames) drop(frame);
      }
    } else {
      this.forEachIn(first, first + count, (frame) => {
        if (frame < this.frames) drop(frame);
      });
    }
  }

  /** Calls `visit` for each frame that holds a block of [first, end). For resize and close: proportional to the cache. */
  forEachIn(first: number, end: number, visit: (frame: number) => void): void {
    for (let frame = 0; frame < this.#all; frame++) {
      const block = this.blockAt(frame);
      if (block >= 0 && block >= first && block < end) visit(frame);
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
    for (let frame = 0; frame < this.#all; frame++) {
      if (this.pinsOf(frame) !== 0) pinned++;
      if (this.isBusy(frame)) busy++;
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

  #isHeld(frame: number): boolean {
    return this.#words[frame * FRAME_WORDS + PINS] !== 0 || (this.#words[frame * FRAME_WORDS + STATE] & HELD_BITS) !== 0;
  }

  /** Its first use in this epoch, or since it was read ahead. To be on its way is no use yet; frames of the reserve come and go by their own rule. */
  #used(frame: number): void {
    if (frame < this.frames && !this.readingAhead) this.#eviction.used(frame);
  }

  /** Nobody holds the frame any more. */
  #released(frame: number): void {
    if (frame >= this.frames) {
      this.#freeReserved(frame);
      return;
    }
    if (this.#words[frame * FRAME_WORDS + BLOCK_HIGH] === NO_BLOCK) this.#eviction.freed(frame);
    this.#room++;
  }

  /** As `take`, from the frames kept back for blocking calls: they leave the cache with their last pin. */
  #takeReserved(block: number): number {
    const frame = this.#reservedFree.pop();
    if (frame === undefined) return 0;
    this.#assign(frame, 1, block);
    return 1;
  }

  #freeReserved(frame: number): void {
    if (this.#words[frame * FRAME_WORDS + BLOCK_HIGH] !== NO_BLOCK) this.#forget(frame, false);
    this.#reservedFree.push(frame);
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
    for (let frame = first; frame < end; frame++) if (this.#isHeld(frame)) return false;
    if (!this.#engine.giveBack(this.slabOf(first), this.offsetOf(first), (end - first) * BLOCK_BYTES)) return false;
    for (let frame = first; frame < end; frame++) {
      if (this.#words[frame * FRAME_WORDS + BLOCK_HIGH] !== NO_BLOCK) {
        this.#forget(frame, false);
        this.#eviction.freed(frame);
      }
      this.#cover(frame);
    }
    return true;
  }

  /** Takes a frame's block out; nobody waits for it to be written. */
  #forget(frame: number, remember: boolean): void {
    const state = frame * FRAME_WORDS + STATE;
    if (frame < this.frames) this.#eviction.leaves(frame, remember);
    this.#table.remove(frame);
    this.#words[state] &= ~(VALID | DIRTY);
  }

  #evict(frame: number, remember: boolean): void {
    const ahead = (this.#words[frame * FRAME_WORDS + STATE] & AHEAD) !== 0;
    const block = ahead ? this.blockAt(frame) : -1;
    this.#forget(frame, remember);
    this.evictions++;
    if (!ahead) return;
    this.aheadUnused++;
    this.onAheadLost?.(block);
  }

  /** A frame that eviction named holds nothing, and is in none of its lists, from here on. */
  #empty(frame: number): void {
    if (this.#words[frame * FRAME_WORDS + BLOCK_HIGH] !== NO_BLOCK) this.#evict(frame, true);
    else this.#eviction.taken(frame);
  }

  /** Gives the blocks [block, block+run) to the frames from `frame` on. */
  #assign(frame: number, run: number, block: number): void {
    const inReserve = frame >= this.frames;
    // From the last to the first: an entry of the table that goes makes those behind it move up, and they are about to go too.
    if (!inReserve) for (let at = frame + run - 1; at >= frame; at--) this.#empty(at);
    for (let i = 0; i < run; i++) {
      const at = frame + i;
      if ((this.#words[at * FRAME_WORDS + STATE] & EXPOSED) !== 0) this.#repairAround(at);
      this.#table.insert(at, block + i);
    }
    if (!inReserve) this.#eviction.entered(frame, run, this.readingAhead);
    this.#fillAreas(frame, run);
    this.slab = this.slabOf(frame);
    this.offset = this.offsetOf(frame);
  }

  /**
   * Finds and restores stray stores into a frame, and where many of its neighbours may have been stored into too, into those, with one scan for all of it: the kernel looks at each small page of a scan, so where
   * few of them matter a scan of the one page is cheaper; of a huge page all of it is looked at. Frames that someone still holds stay marked: they may be stored into again.
   */
  #repairAround(frame: number): void {
    const slab = this.slabOf(frame);
    let first = frame;
    let end = frame + 1;
    if (this.#scans++ % HUGE_ASKED_EACH === 0) this.#isHuge = this.#engine.isHuge?.() ?? false;
    const width = this.#isHuge ? HUGE_FRAMES : this.#exposed[frame >>> REPAIR_SHIFT] >= REPAIR_LEAST ? REPAIR_FRAMES : 1;
    if (width > 1) {
      first = frame - (frame % width);
      end = Math.min(first + width, (slab + 1) * SLAB_FRAMES, this.#all);
    }
    this.slabs[slab].repair(this.offsetOf(first), (end - first) * BLOCK_BYTES);
    for (let at = first; at < end; at++) if (this.pinsOf(at) === 0) this.#cover(at);
  }

  /** Nothing that was stored into the frame's private page is there any more. */
  #cover(frame: number): void {
    const at = frame * FRAME_WORDS + STATE;
    if ((this.#words[at] & EXPOSED) === 0) return;
    this.#words[at] &= ~EXPOSED;
    this.#exposed[frame >>> REPAIR_SHIFT]--;
  }
}
