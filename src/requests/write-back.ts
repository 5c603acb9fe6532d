/**
 * Dirty blocks on their way to the device, in its order.
 *
 *   dirty   { 3: · · 7: · 8: · … }     a sorted map of the blocks whose frames differ from the device's
 *           ── run ──> operations: neighbours in the file go out as one, from a copy (`memory/staging.ts`), or straight from their frames where they are many and lie together
 *
 *   unsynced ── sync begins ──> syncing ── it succeeded ──> gone          what is written while a sync is under way waits for the next
 *                                  └────── it failed ─────> dirty again, and named
 *
 * A run has few operations on their way at once, so that a read never stands behind more than those.
 *
 * Guarantees: what could not be written stays dirty, readable, and is tried again by the next run; nothing changes under the device, and only a store into a block that is written straight from its frame has to wait, for that write;
 * what of a frame that somebody may store into is written is what it held when it was copied; every range that failed is remembered until `acknowledge`.
 * Leaves to others: when to run (`direct-writes.ts`), making it durable (the sync that follows a run, unless its writes were durable themselves).
 */
import BTreeModule from 'sorted-btree';
import { assertionError, systemError } from '../errors.js';
import { BLOCK_BYTES, BLOCK_SECTORS, SECTOR_BYTES } from '../memory/block-store.js';
import type { FrameCache } from '../memory/frame-cache.js';
import type { Staging } from '../memory/staging.js';
import { KIND_WRITE } from './operation-table.js';
import { type OperationOwner, type RequestManager, WRITE_DURABLE, WRITE_STAGED } from './request-manager.js';
import { REGION_SECTORS } from './sector-array.js';

const BTree = BTreeModule.default;

/** From here on what lies together in memory is not copied: the device takes longer over it than a store into it would wait without noticing. */
const STRAIGHT_BYTES = 256 * 1024;
/** Bytes on their way at once, so that a read waits for milliseconds at most behind them; devices are busy with less. */
const FLIGHT_BYTES_MAX = 4 << 20;
/** Writes of one run that are made durable one by one: each may cost the device a flush of its own. docs/decisions.md has the measurement. */
const DURABLE_WRITES_MAX = 1;

const EINVAL = -22;
const EOPNOTSUPP = -95;

/** A range that did not reach stable storage, and why. */
export interface Loss {
  offset: number;
  length: number;
  error: Error;
}

/** Bytes of the file. */
export interface Range {
  offset: number;
  length: number;
}

/** The bytes of a block as a flush found them, for when its turn comes. */
export interface BlockCopy {
  readonly bytes: Uint8Array;
  /** Sectors to be written. */
  mask: number;
  /** Sectors marked since: they stay dirty after the copy was written. */
  later: number;
}

/** The copies that flushes in the queue wait to write, the oldest of each block. */
export interface BlockCopies {
  get(block: number): BlockCopy | undefined;
}

/** How a run goes about it. */
export interface RunOptions {
  /** Frames stay in memory until `synced`. */
  keep?: boolean;
  /** What is written of a block instead of what its frame holds by now, once. */
  copies?: BlockCopies;
  /** Each write is durable when it ended, where they are few and the file system can: `durable` says whether that was so. */
  durable?: boolean;
  /** Only blocks below this one. */
  before?: number;
  /** Called once all that the run writes is fixed: later stores are none of it. */
  taken?: () => void;
}

export class WriteBack {
  /** The ranges that a flush could not make durable, until they are acknowledged. */
  losses: Loss[] = [];
  /** Told what the device has, after each write; `durable`: for good. Sectors. */
  onWritten: (start: number, sectors: number, durable: boolean) => void = () => {};
  /** Told where a write will end, before it is sent: one that fails may have moved the end of the file all the same. */
  onWriting: (end: number) => void = () => {};
  /** Told when an operation or a run ended. */
  onEnded: () => void = () => {};
  /** Everything that the last run wrote is durable. */
  durable = false;
  readonly #frames: FrameCache;
  readonly #staging: Staging;
  readonly #manager: RequestManager;
  readonly #path: string;
  readonly #transferLimit: number;
  /** Operations on their way at once: with nobody else at the device, and with others. */
  readonly #mostAlone: number;
  readonly #mostBeside: number;
  readonly #dirty = new BTree<number, number>();
  /** Written since the last sync began: block → sectors. */
  #unsynced = new Map<number, number>();
  /** Written before the sync that is under way. */
  #syncing = new Map<number, number>();
  /** Blocks that are kept in memory until they are durable. */
  readonly #held = new Set<number>();
  /** Ranges punched, cut off, added or allocated since the last sync: a sync that fails says nothing about them either. */
  #reshaped: Range[] = [];
  #reshapedSyncing: Range[] = [];
  /** Sectors that could not be made durable and were not stored into since: block → mask. */
  readonly #lost = new Map<number, number>();
  #failedRun = false;
  /** What was not durable is named; how writes end that are still on their way adds nothing. */
  #gone = false;

  #running = false;
  #done: (() => void)[] = [];
  /** Blocks of the run, and how far it has come. */
  #blocks: number[] = [];
  #next = 0;
  /** Sectors before this one were sent, or are none of the run: what fails is for the next. */
  #reached = 0;
  /** Operations of the run that have not ended, blocks that wait, and the run itself while it begins. */
  #outstanding = 0;
  /** Operations on their way, and their bytes. */
  #flying = 0;
  #flyingBytes = 0;
  /** Blocks that wait for an operation of somebody else. */
  #later = 0;
  #wrote = false;
  #keep = false;
  #copies: BlockCopies | undefined;
  #taken: (() => void) | undefined;
  #pumping = false;
  /** The file system does not know durable writes. */
  #refused = false;

  constructor(frames: FrameCache, staging: Staging, manager: RequestManager, path: string, transferLimit: number, depth: number) {
    this.#frames = frames;
    this.#staging = staging;
    this.#manager = manager;
    this.#path = path;
    this.#transferLimit = transferLimit;
    this.#mostAlone = Math.max(1, depth >>> 1);
    this.#mostBeside = Math.max(1, depth >>> 2);
  }

  get running(): boolean {
    return this.#running;
  }

  /** Something could be written that was not refused by the last run. */
  get hopeful(): boolean {
    return this.#dirty.size > 0 && !this.#failedRun;
  }

  /** The last run failed, and nothing was changed since. */
  get failed(): boolean {
    return this.#failedRun;
  }

  get unsyncedCount(): number {
    return this.#unsynced.size;
  }

  /** Blocks kept in memory until they are durable. */
  get heldCount(): number {
    return this.#held.size;
  }

  /** The sectors of the block in `frame` differ from the device's from now on. */
  mark(block: number, frame: number, mask: number): void {
    // A block with dirty sectors is in the map already.
    if (this.#frames.dirtyOf(frame) === 0) this.#dirty.set(block, frame);
    this.#frames.markDirty(frame, mask);
    this.#failedRun = false;
    if (this.#lost.size > 0) this.#regain(block, mask);
  }

  #regain(block: number, mask: number): void {
    const lost = this.#lost.get(block);
    if (lost === undefined) return;
    if ((lost & ~mask) === 0) this.#lost.delete(block);
    else this.#lost.set(block, lost & ~mask);
  }

  /** The frame of a dirty block changed. */
  moved(block: number, frame: number): void {
    if (this.#dirty.has(block)) this.#dirty.set(block, frame);
  }

  /** The block's bytes are not wanted on the device any more. Not while a write of it is on its way, or a sync. */
  forget(block: number): void {
    this.#dirty.delete(block);
    this.#unsynced.delete(block);
    this.#lost.delete(block);
    if (this.#held.delete(block)) this.#frames.unpin(block);
  }

  /** What was written of the block, in these sectors, is written once more, if it is still in memory. */
  again(block: number, mask: number): void {
    const frame = this.#frames.find(block);
    if (frame >= 0 && mask !== 0 && (this.#frames.validOf(frame) & mask) === mask) this.mark(block, frame, mask);
  }

  /** What was written of the block, in these sectors, is not on the device any more: no sync has to make it durable. */
  unwritten(block: number, mask: number): void {
    const left = (this.#unsynced.get(block) ?? 0) & ~mask;
    if (left !== 0) {
      this.#unsynced.set(block, left);
      return;
    }
    this.#unsynced.delete(block);
    if (this.#held.delete(block)) this.#frames.unpin(block);
  }

  /**
   * The bytes, as they are now, of dirty frames that somebody may store into: what a flush called now has to write. Also of those of which `earlier` flushes have a copy that is still to be written: what
   * was marked since is not in that one.
   */
  snapshot(earlier?: BlockCopies): Map<number, BlockCopy> {
    const copies = new Map<number, BlockCopy>();
    for (const [block, frame] of this.#dirty.entries()) {
      if (this.#frames.writers[frame] === 0 && earlier?.get(block) === undefined) continue;
      copies.set(block, { bytes: this.#frames.bytesOf(frame).slice(), mask: this.#frames.dirtyOf(frame), later: 0 });
    }
    return copies;
  }

  /** Goes on once no run is under way, perhaps within this call. */
  whenFree(go: () => void): void {
    if (this.#running) this.#done.push(() => this.whenFree(go));
    else go();
  }

  /**
   * Writes everything that is dirty now; `done` when the last write ended, whether well or not. With a run under way it only waits for that one.
   * False if there was nothing that could be written: what changed since a copy was made waits for the flush of that copy.
   */
  run(options: RunOptions, done: () => void): boolean {
    this.#done.push(done);
    if (this.#running) return true;
    this.#running = true;
    this.#failedRun = false;
    this.#wrote = false;
    this.#keep = options.keep ?? false;
    this.#copies = options.copies;
    this.#taken = options.taken;
    this.#outstanding = 1;
    const blocks: number[] = [];
    const before = options.before ?? Number.POSITIVE_INFINITY;
    for (const block of this.#dirty.keys()) {
      if (block >= before) break;
      blocks.push(block);
    }
    this.#blocks = blocks;
    this.#next = 0;
    this.#reached = 0;
    this.durable = (options.durable ?? false) && !this.#refused && this.#isShort(blocks);
    this.#pump();
    const wrote = this.#wrote;
    this.#release();
    return wrote;
  }

  /** The range was punched, cut off, added or allocated; the next sync makes that durable. */
  reshaped(offset: number, length: number): void {
    this.#reshaped.push({ offset, length });
  }

  /** A sync begins: it is about what was written so far. No write is on its way. */
  syncBegins(): void {
    this.#syncing = this.#unsynced;
    this.#unsynced = new Map();
    this.#reshapedSyncing = this.#reshaped;
    this.#reshaped = [];
  }

  /** The end of the file could not be set, so there is no sync: all of it is named, and what was punched, cut off, added or allocated since the last one. */
  sizeFailed(error: Error, size: number): void {
    for (const { offset, length } of [{ offset: 0, length: size }, ...this.#reshaped]) this.#lose({ offset, length, error });
  }

  /** A sync succeeded: what was written before it began is durable. */
  synced(): void {
    this.#reshapedSyncing = [];
    this.#syncing = new Map();
    this.#letGo();
  }

  #letGo(): void {
    for (const block of this.#held) this.#frames.unpin(block);
    this.#held.clear();
  }

  /** A sync failed: nothing written since the one before can be relied on. What is still in memory is dirty again, the rest is lost; all of it is named. */
  syncFailed(result: number, size: number): void {
    const place = { path: this.#path };
    // What was written while it was under way too: whether that came before what went wrong is not known, and no later sync says so.
    for (const [block, mask] of this.#unsynced) this.#syncing.set(block, (this.#syncing.get(block) ?? 0) | mask);
    this.#unsynced = new Map();
    for (const { offset, length } of this.#reshapedSyncing) this.#lose({ offset, length, error: systemError(result, 'fdatasync', place) });
    if (this.#syncing.size === 0) this.#lose({ offset: 0, length: size, error: systemError(result, 'fdatasync', place) });
    for (const [block, mask] of this.#syncing) {
      const frame = this.#frames.find(block);
      if (frame >= 0 && (this.#frames.validOf(frame) & mask) === mask) {
        this.mark(block, frame, mask);
        this.#lost.set(block, (this.#lost.get(block) ?? 0) | mask);
      }
      this.#loseBlock(block, mask, systemError(result, 'fdatasync', place));
    }
    this.synced();
  }

  /** Gives up what is on the list: frames of it are dropped, or stay as they are while windows hold them. */
  acknowledge(): Loss[] {
    const losses = this.losses;
    this.losses = [];
    const frames = this.#frames;
    for (const [block, mask] of this.#lost) {
      const frame = frames.find(block);
      const given = frame < 0 ? 0 : mask & frames.dirtyOf(frame);
      if (given === 0) continue;
      frames.markClean(frame, given);
      const clean = frames.dirtyOf(frame) === 0;
      if (clean) this.#dirty.delete(block);
      if (frames.pinsOf(frame) !== 0 || frames.isBusy(frame)) continue;
      if (clean) frames.drop(frame);
      else frames.markInvalid(frame, given);
    }
    this.#lost.clear();
    this.#failedRun = false;
    return losses;
  }

  /** The device is gone: whatever was not made durable never will be, and is named; `pending` are changes that were accepted and had not come as far as this. */
  loseAll(error: Error, pending: readonly Range[]): void {
    this.#name([...this.#unsure(0), ...this.#reshapedSyncing, ...this.#reshaped, ...pending], error);
    this.#reshaped = [];
    this.#unsynced.clear();
    this.synced();
    this.#gone = true;
    this.#next = this.#blocks.length;
  }

  /** A device that ends at `offset` now: what was to be written behind never will be, and is named. */
  loseBehind(offset: number, error: Error): void {
    this.#name(this.#unsure(offset), error);
  }

  /** The end of the last dirty sector, 0 if there is none. */
  get dirtyEnd(): number {
    const last = this.#dirty.maxKey();
    return last === undefined ? 0 : last * BLOCK_BYTES + (32 - Math.clz32(this.#frames.dirtyOf(this.#dirty.get(last) as number))) * SECTOR_BYTES;
  }

  /** The sectors from `offset` on that are dirty, or written and not synced. */
  #unsure(offset: number): Range[] {
    const masks = new Map(this.#unsynced);
    for (const [block, mask] of this.#syncing) masks.set(block, (masks.get(block) ?? 0) | mask);
    for (const [block, frame] of this.#dirty.entries()) masks.set(block, (masks.get(block) ?? 0) | this.#frames.dirtyOf(frame));
    const ranges: Range[] = [];
    for (const [block, mask] of masks) {
      for (let sector = 0; sector < BLOCK_SECTORS; sector++) {
        const at = block * BLOCK_BYTES + sector * SECTOR_BYTES;
        if (mask & (1 << sector) && at + SECTOR_BYTES > offset) ranges.push({ offset: at, length: SECTOR_BYTES });
      }
    }
    return ranges;
  }

  /** Names the ranges, neighbours as one, less what is named already. In one pass: half of a large cache may be dirty. */
  #name(ranges: readonly Range[], error: Error): void {
    const known = joined(this.losses);
    let at = 0;
    for (const { offset, length } of joined(ranges)) {
      while (at < known.length && known[at].offset + known[at].length < offset + length) at++;
      if (at === known.length || known[at].offset > offset) this.losses.push({ offset, length, error });
    }
  }

  // The run

  /** Few enough writes to make each of them durable by itself? */
  #isShort(blocks: readonly number[]): boolean {
    let writes = 0;
    let end = -1;
    for (const block of blocks) {
      const mask = this.#sendable(block);
      if (mask === 0) continue;
      if (block * BLOCK_SECTORS !== end || (mask & 1) === 0) writes++;
      const first = lowestBit(mask);
      const past = firstGap(mask, first);
      // With gaps inside a block it is several anyway.
      if ((mask & ~runMask(first, past)) !== 0) return false;
      end = block * BLOCK_SECTORS + past;
      if (writes > DURABLE_WRITES_MAX || blocks.length * BLOCK_BYTES > Math.min(STRAIGHT_BYTES, this.#transferLimit)) return false;
    }
    return true;
  }

  /** Sends what may be on its way now. */
  #pump(): void {
    // A write that ends at once, because the device is gone, comes back here.
    if (this.#pumping) return;
    this.#pumping = true;
    while (this.#next < this.#blocks.length && this.#mayFly && this.#sendNext());
    this.#pumping = false;
    if (this.#next < this.#blocks.length || this.#later > 0 || this.#taken === undefined) return;
    const taken = this.#taken;
    this.#taken = undefined;
    taken();
  }

  get #mayFly(): boolean {
    if (this.#flying === 0) return true;
    const others = this.#manager.operations.count - this.#flying;
    return this.#flying < (others > 0 ? this.#mostBeside : this.#mostAlone) && this.#flyingBytes < FLIGHT_BYTES_MAX;
  }

  /** A write of the block is on its way. */
  isWriting(block: number): boolean {
    const { operations } = this.#manager;
    for (let sector = block * BLOCK_SECTORS; sector < (block + 1) * BLOCK_SECTORS; sector++) {
      const operation = operations.at(sector);
      if (operation >= 0 && operations.kind[operation] === KIND_WRITE) return true;
    }
    return false;
  }

  /** The sectors of a block that the run has to write. */
  #sendable(block: number): number {
    const frame = this.#frames.seek(block);
    if (frame < 0) return 0;
    let mask = this.#frames.dirtyOf(frame);
    const copy = this.#copies?.get(block);
    if (copy !== undefined) mask &= copy.mask;
    const done = this.#reached - block * BLOCK_SECTORS;
    return done <= 0 ? mask : mask & ~runMask(0, Math.min(done, BLOCK_SECTORS));
  }

  /**
   * Sends the run of sectors that is next; false if it has to wait for memory.
   *
   *   blocks   [ 7: ····xxxx | 8: xxxxxxxx | 9: xx··x··· ]
   *                 └──────────── one ───────────┘  └─ another: the cursor stays at block 9
   */
  #sendNext(): boolean {
    const frames = this.#frames;
    const blocks = this.#blocks;
    const first = blocks[this.#next];
    const mask = this.#sendable(first);
    if (mask === 0) {
      this.#next++;
      return true;
    }
    const from = lowestBit(mask);
    let end = firstGap(mask, from);
    const start = first * BLOCK_SECTORS + from;
    let sectors = end - from;
    if (this.#manager.operations.touches(start, sectors)) {
      this.#sendLater(first);
      this.#next++;
      return true;
    }
    let count = 1;
    let last = frames.seek(first);
    let together = this.#isQuiet(first, last);
    const limit = this.#transferLimit / SECTOR_BYTES;
    while (end === BLOCK_SECTORS && this.#next + count < blocks.length && blocks[this.#next + count] === first + count) {
      const block = first + count;
      const more = firstGap(this.#sendable(block), 0);
      if (more === 0 || sectors + more > limit || (block * BLOCK_SECTORS) % REGION_SECTORS === 0) break;
      if (this.#manager.operations.touches(block * BLOCK_SECTORS, more)) break;
      const frame = frames.seek(block);
      if (together && !(frames.adjacent(last, frame) && this.#isQuiet(block, frame))) {
        // What lies together so far goes by itself if it is worth it.
        if (sectors * SECTOR_BYTES >= STRAIGHT_BYTES) break;
        together = false;
      }
      if (!together && (sectors + more) * SECTOR_BYTES > STRAIGHT_BYTES) break;
      last = frame;
      sectors += more;
      end = more;
      count++;
    }
    const straight = together && sectors * SECTOR_BYTES >= Math.min(STRAIGHT_BYTES, this.#transferLimit);
    if (straight) this.#sendStraight(start, sectors);
    else {
      sectors = this.#sendCopied(start, sectors, count);
      if (sectors === 0) return false;
    }
    this.#reached = start + sectors;
    this.#wrote = true;
    // The last block may have more, behind a gap.
    while (this.#next < blocks.length && blocks[this.#next] * BLOCK_SECTORS < start + sectors && this.#sendable(blocks[this.#next]) === 0) this.#next++;
    return true;
  }

  /** Nobody can store into the frame, and nothing else is to be written of it. */
  #isQuiet(block: number, frame: number): boolean {
    return !this.#frames.isBusy(frame) && this.#frames.writers[frame] === 0 && this.#copies?.get(block) === undefined;
  }

  #sendStraight(start: number, sectors: number): void {
    const frames = this.#frames;
    const frame = this.#dirty.get(Math.floor(start / BLOCK_SECTORS)) as number;
    this.#launch(start, sectors, frames.slabOf(frame), frames.offsetOf(frame) + (start % BLOCK_SECTORS) * SECTOR_BYTES, -1);
    // Busy by now, so that it does not become anybody else's for being clean.
    this.#took(start, sectors);
  }

  /** Answers with how many sectors it sent: 0 if there is no memory to copy to. */
  #sendCopied(start: number, wanted: number, count: number): number {
    const frames = this.#frames;
    const staging = this.#staging;
    const place = staging.take(count);
    if (place < 0) return 0;
    const { got } = staging;
    const first = Math.floor(start / BLOCK_SECTORS);
    const sectors = Math.min(wanted, (first + got) * BLOCK_SECTORS - start);
    for (let i = 0; i < got; i++) {
      const block = first + i;
      const frame = frames.seek(block);
      const copy = this.#copies?.get(block);
      const from = Math.max(0, start - block * BLOCK_SECTORS) * SECTOR_BYTES;
      const to = Math.min(BLOCK_SECTORS, start + sectors - block * BLOCK_SECTORS) * SECTOR_BYTES;
      const bytes = copy === undefined ? frames.bytesOf(frame) : copy.bytes;
      staging.bytes.set(bytes.subarray(from, to), (place + i) * BLOCK_BYTES + from);
      // Stays until its write ended: a read of it has to find it here.
      frames.pinFrame(frame);
    }
    this.#took(start, sectors);
    this.#launch(start, sectors, staging.index, place * BLOCK_BYTES + (start % BLOCK_SECTORS) * SECTOR_BYTES, place, got);
    return sectors;
  }

  /** The sectors are on their way: not dirty any more unless the write fails or they change again. */
  #took(start: number, sectors: number): void {
    const frames = this.#frames;
    const end = start + sectors;
    for (let block = Math.floor(start / BLOCK_SECTORS); block * BLOCK_SECTORS < end; block++) {
      const mask = maskOf(block, start, end);
      const copy = this.#copies?.get(block);
      const frame = frames.seek(block);
      // What was marked after the copy was made stays dirty; what became clean since then was written as it was, or is gone.
      if (copy !== undefined) copy.mask &= ~mask;
      if (this.#keep && !this.#gone && !this.#held.has(block)) {
        frames.pinFrame(frame);
        this.#held.add(block);
      }
      frames.markClean(frame, mask & ~(copy?.later ?? 0));
      if (frames.dirtyOf(frame) === 0) this.#dirty.delete(block);
      this.#unsynced.set(block, (this.#unsynced.get(block) ?? 0) | mask);
    }
  }

  /** An operation is on the sectors: writes them when that ended. They stay dirty, and so in memory, until then. */
  #sendLater(block: number): void {
    this.#outstanding++;
    this.#later++;
    this.#wrote = true;
    this.#manager.afterOperations(block * BLOCK_SECTORS, (block + 1) * BLOCK_SECTORS, () => {
      this.#later--;
      if (!this.#gone) {
        this.#blocks.splice(this.#next, 0, block);
        this.#reached = block * BLOCK_SECTORS;
      }
      this.#release();
    });
  }

  /** `place` and `count`: of the staging memory that it is written from, -1 if it is the frames'. */
  #launch(start: number, sectors: number, slab: number, offset: number, place: number, count = 0): void {
    const bytes = sectors * SECTOR_BYTES;
    const flags = place < 0 ? 0 : WRITE_STAGED;
    const { durable } = this;
    this.#outstanding++;
    this.#flying++;
    this.#flyingBytes += bytes;
    // One write's ends: it may be split into several.
    let pending = 1;
    const owner: OperationOwner = {
      operationSplit: () => {
        pending++;
      },
      operationEnded: (at, length, result, error) => {
        const refused = durable && (result === EOPNOTSUPP || result === EINVAL);
        if (refused) this.#refused = true;
        if (refused && this.durable) {
          // Without: a sync follows.
          this.durable = false;
          this.#manager.write(at, length, slab, offset + (at - start) * SECTOR_BYTES, owner, flags);
          return;
        }
        if (result < 0) this.#failed(at, length, result, error);
        else this.onWritten(at, length, this.durable);
        if (--pending !== 0) return;
        if (place >= 0) {
          this.#staging.give(place, count);
          const first = Math.floor(start / BLOCK_SECTORS);
          for (let i = 0; i < count; i++) this.#frames.unpin(first + i);
        }
        this.#flying--;
        this.#flyingBytes -= bytes;
        this.#release();
        this.onEnded();
      },
    };
    this.onWriting((start + sectors) * SECTOR_BYTES);
    this.#manager.write(start, sectors, slab, offset, owner, durable ? flags | WRITE_DURABLE : flags);
  }

  #failed(start: number, sectors: number, result: number, error?: Error): void {
    this.#failedRun = true;
    const end = start + sectors;
    for (let block = Math.floor(start / BLOCK_SECTORS); block * BLOCK_SECTORS < end; block++) {
      const mask = maskOf(block, start, end);
      const unsynced = (this.#unsynced.get(block) ?? 0) & ~mask;
      const frame = this.#frames.find(block);
      this.#frames.markDirty(frame, mask);
      this.#dirty.set(block, frame);
      this.#lost.set(block, (this.#lost.get(block) ?? 0) | mask);
      if (unsynced !== 0) this.#unsynced.set(block, unsynced);
      else this.#unsynced.delete(block);
      if (unsynced === 0 && (this.#syncing.get(block) ?? 0) === 0 && this.#held.delete(block)) this.#frames.unpinFrame(frame);
    }
    const offset = start * SECTOR_BYTES;
    const length = sectors * SECTOR_BYTES;
    this.#lose({ offset, length, error: error ?? systemError(result, 'write', { path: this.#path, offset, length }) });
    if (error !== undefined) this.#doubt();
  }

  /**
   * What reads back as something else may have gone elsewhere, over what was written and compared before it: what a flush keeps in memory until its sync is written once more by the next. Whom it hit beyond that, nobody
   * can say.
   */
  #doubt(): void {
    for (const block of this.#held) this.again(block, this.#unsynced.get(block) ?? 0);
  }

  #loseBlock(block: number, mask: number, error: Error): void {
    const from = lowestBit(mask);
    const to = 32 - Math.clz32(mask);
    this.#lose({ offset: block * BLOCK_BYTES + from * SECTOR_BYTES, length: (to - from) * SECTOR_BYTES, error });
  }

  #lose(loss: Loss): void {
    if (this.#gone) return;
    const last = this.losses[this.losses.length - 1];
    if (last !== undefined && last.offset + last.length === loss.offset && (last.error as { code?: string }).code === (loss.error as { code?: string }).code) {
      last.length += loss.length;
      return;
    }
    if (!this.losses.some((known) => known.offset <= loss.offset && known.offset + known.length >= loss.offset + loss.length)) this.losses.push(loss);
  }

  #release(): void {
    this.#pump();
    if (--this.#outstanding !== 0) return;
    if (this.#next < this.#blocks.length) throw assertionError('a run that ended has blocks left');
    this.#running = false;
    this.#blocks = [];
    this.#copies = undefined;
    const done = this.#done;
    this.#done = [];
    for (const tell of done) tell();
    this.onEnded();
  }
}

/** The same bytes in ascending order, overlapping and neighbouring ranges as one. */
function joined(ranges: readonly Range[]): Range[] {
  const all: Range[] = [];
  for (const { offset, length } of [...ranges].sort((left, right) => left.offset - right.offset)) {
    const last = all[all.length - 1];
    if (length === 0) continue;
    if (last !== undefined && last.offset + last.length >= offset) last.length = Math.max(last.length, offset + length - last.offset);
    else all.push({ offset, length });
  }
  return all;
}

function lowestBit(mask: number): number {
  return 31 - Math.clz32(mask & -mask);
}

/** The first bit from `at` on that is not set. */
function firstGap(mask: number, at: number): number {
  let end = at;
  while (end < BLOCK_SECTORS && mask & (1 << end)) end++;
  return end;
}

function runMask(from: number, to: number): number {
  return ((1 << to) - 1) & ~((1 << from) - 1);
}

function maskOf(block: number, start: number, end: number): number {
  return runMask(Math.max(0, start - block * BLOCK_SECTORS), Math.min(BLOCK_SECTORS, end - block * BLOCK_SECTORS));
}
