/**
 * Dirty blocks on their way to the device, in its order.
 *
 *   dirty   { 3: · · 7: · 8: · … }     a sorted map of the blocks whose frames differ from the device's
 *           ── run ──>  operations: neighbours in the file and in memory go out as one
 *
 * Guarantees: what could not be written stays dirty, readable, and is tried again by the next run; a frame that somebody may store into is
 * copied when the run begins, and the copy is what is written; every range that failed is remembered until `acknowledge`.
 * Leaves to others: when to run (`direct-access.ts`), making it durable (the sync that follows a run).
 */
import BTreeModule from 'sorted-btree';
import { systemError } from '../errors.js';
import { BLOCK_BYTES, BLOCK_SECTORS, SECTOR_BYTES } from '../memory/block-store.js';
import type { FrameCache } from '../memory/frame-cache.js';
import type { OperationOwner, RequestManager } from './request-manager.js';
import { REGION_SECTORS } from './sector-array.js';

const BTree = BTreeModule.default;

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

export class WriteBack {
  /** The ranges that a flush could not make durable, until they are acknowledged. */
  losses: Loss[] = [];
  /** Told what the device has, after each write. Sectors. */
  onWritten: (start: number, sectors: number) => void = () => {};
  /** Told where a write will end, before it is sent: one that fails may have moved the end of the file all the same. */
  onWriting: (end: number) => void = () => {};
  readonly #frames: FrameCache;
  readonly #manager: RequestManager;
  readonly #path: string;
  readonly #transferLimit: number;
  readonly #dirty = new BTree<number, number>();
  /** Written since the last sync: block → sectors. Pinned where `#held` says so. */
  readonly #unsynced = new Map<number, number>();
  readonly #held = new Set<number>();
  /** Ranges punched, cut off, added or allocated since the last sync: a sync that fails says nothing about them either. */
  #reshaped: Range[] = [];
  /** Sectors that could not be made durable and were not stored into since: block → mask. */
  readonly #lost = new Map<number, number>();
  #running = false;
  #outstanding = 0;
  #failedRun = false;
  /** What was not durable is named; how writes end that are still on their way adds nothing. */
  #gone = false;
  #done: (() => void)[] = [];
  /** Copies of writable frames' bytes that wait for memory to be written from. */
  #copies: { block: number; mask: number; bytes: Uint8Array }[] = [];

  constructor(frames: FrameCache, manager: RequestManager, path: string, transferLimit: number) {
    this.#frames = frames;
    this.#manager = manager;
    this.#path = path;
    this.#transferLimit = transferLimit;
  }

  get running(): boolean {
    return this.#running;
  }

  /** Something could be written that was not refused by the last run. */
  get hopeful(): boolean {
    return this.#dirty.size > 0 && !this.#failedRun;
  }

  get unsyncedCount(): number {
    return this.#unsynced.size;
  }

  /** The sectors of the block in `frame` differ from the device's from now on. */
  mark(block: number, frame: number, mask: number): void {
    this.#frames.markDirty(frame, mask);
    this.#dirty.set(block, frame);
    this.#failedRun = false;
    this.#regain(block, mask);
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

  /** The block's bytes are not wanted on the device any more. Not while a write of it is on its way. */
  forget(block: number): void {
    this.#dirty.delete(block);
    this.#unsynced.delete(block);
    this.#lost.delete(block);
    if (this.#held.delete(block)) this.#frames.unpin(block);
  }

  /** What was written of the block, in these sectors, is written once more, if it is still in memory. */
  again(block: number, mask: number): void {
    const frame = this.#frames.find(block);
    if (frame >= 0 && mask !== 0 && (this.#frames.valid[frame] & mask) === mask) this.mark(block, frame, mask);
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

  /** The bytes, as they are now, of dirty frames that somebody may store into: what a flush called now has to write. */
  snapshot(): Map<number, BlockCopy> {
    const copies = new Map<number, BlockCopy>();
    for (const [block, frame] of this.#dirty.entries()) {
      if (this.#frames.writers[frame] > 0) copies.set(block, { bytes: this.#frames.bytesOf(frame).slice(), mask: this.#frames.dirty[frame], later: 0 });
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
   * `keep`: frames stay in memory until `synced`. `copies`: what is written of a block instead of what its frame holds by now, once.
   * False if there was nothing that could be written: what changed since a copy was made waits for the flush of that copy.
   */
  run(keep: boolean, copies: BlockCopies | undefined, done: () => void): boolean {
    this.#done.push(done);
    if (this.#running) return true;
    this.#running = true;
    this.#failedRun = false;
    this.#outstanding = 1;
    const blocks: number[] = [];
    for (const block of this.#dirty.keys()) blocks.push(block);
    for (let i = 0; i < blocks.length; ) i += this.#send(blocks, i, keep, copies);
    const wrote = this.#outstanding > 1;
    this.#release();
    return wrote;
  }

  /** The range was punched, cut off, added or allocated; the next sync makes that durable. */
  reshaped(offset: number, length: number): void {
    this.#reshaped.push({ offset, length });
  }

  /** A sync succeeded: what was written before it is durable. */
  synced(): void {
    this.#reshaped = [];
    for (const block of this.#held) this.#frames.unpin(block);
    this.#held.clear();
    this.#unsynced.clear();
  }

  /** The end of the file could not be set, so there is no sync: all of it is named, and what was punched, cut off, added or allocated since the last one. */
  sizeFailed(error: Error, size: number): void {
    for (const { offset, length } of [{ offset: 0, length: size }, ...this.#reshaped]) this.#lose({ offset, length, error });
  }

  /** A sync failed: nothing written since the last one can be relied on. What is still in memory is dirty again, the rest is lost; all of it is named. */
  syncFailed(result: number, size: number): void {
    const place = { path: this.#path };
    for (const { offset, length } of this.#reshaped) this.#lose({ offset, length, error: systemError(result, 'fdatasync', place) });
    this.#reshaped = [];
    if (this.#unsynced.size === 0) this.#lose({ offset: 0, length: size, error: systemError(result, 'fdatasync', place) });
    for (const [block, mask] of this.#unsynced) {
      const frame = this.#frames.find(block);
      if (frame >= 0 && (this.#frames.valid[frame] & mask) === mask) {
        this.mark(block, frame, mask);
        this.#lost.set(block, (this.#lost.get(block) ?? 0) | mask);
      }
      this.#loseBlock(block, mask, systemError(result, 'fdatasync', place));
    }
    for (const block of this.#held) this.#frames.unpin(block);
    this.#held.clear();
    this.#unsynced.clear();
  }

  /** Gives up what is on the list: frames of it are dropped, or stay as they are while windows hold them. */
  acknowledge(): Loss[] {
    const losses = this.losses;
    this.losses = [];
    const frames = this.#frames;
    for (const [block, mask] of this.#lost) {
      const frame = frames.find(block);
      const given = frame < 0 ? 0 : mask & frames.dirty[frame];
      if (given === 0) continue;
      frames.markClean(frame, given);
      const clean = frames.dirty[frame] === 0;
      if (clean) this.#dirty.delete(block);
      if (frames.pins[frame] !== 0 || frames.isBusy(frame)) continue;
      if (clean) frames.drop(frame);
      else frames.valid[frame] &= ~given;
    }
    this.#lost.clear();
    this.#failedRun = false;
    return losses;
  }

  /** The device is gone: whatever was not made durable never will be, and is named; `pending` are changes that were accepted and had not come as far as this. */
  loseAll(error: Error, pending: readonly Range[]): void {
    this.#name([...this.#unsure(0), ...this.#reshaped, ...pending], error);
    this.#reshaped = [];
    for (const block of this.#held) this.#frames.unpin(block);
    this.#held.clear();
    this.#unsynced.clear();
    this.#gone = true;
  }

  /** A device that ends at `offset` now: what was to be written behind never will be, and is named. */
  loseBehind(offset: number, error: Error): void {
    this.#name(this.#unsure(offset), error);
  }

  /** The end of the last dirty sector, 0 if there is none. */
  get dirtyEnd(): number {
    const last = this.#dirty.maxKey();
    return last === undefined ? 0 : last * BLOCK_BYTES + (32 - Math.clz32(this.#frames.dirty[this.#dirty.get(last) as number])) * SECTOR_BYTES;
  }

  /** The sectors from `offset` on that are dirty, or written and not synced. */
  #unsure(offset: number): Range[] {
    const masks = new Map(this.#unsynced);
    for (const [block, frame] of this.#dirty.entries()) masks.set(block, (masks.get(block) ?? 0) | this.#frames.dirty[frame]);
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

  /** Sends the run of blocks that begins at `blocks[i]`; answers with how many blocks it took. */
  #send(blocks: number[], i: number, keep: boolean, copies: BlockCopies | undefined): number {
    const frames = this.#frames;
    const first = blocks[i];
    const frame = this.#dirty.get(first) as number;
    const mask = frames.dirty[frame];
    if (frames.isBusy(frame)) {
      this.#sendLater(first, keep, copies);
      return 1;
    }
    let copy = copies?.get(first);
    if (copy === undefined && frames.writers[frame] > 0) copy = { bytes: frames.bytesOf(frame).slice(), mask, later: 0 };
    if (copy !== undefined) {
      // What was marked after the copy was made stays dirty; what became clean since then was written as it was, or is gone.
      const sent = copy.mask & mask;
      if (sent === 0) return 1;
      copy.mask &= ~sent;
      this.#outstanding++;
      // Clean before it is busy: the pin keeps the frame until its write is on its way.
      frames.pinFrame(frame);
      this.#tookBlock(first, frame, sent, copy.later, keep);
      this.#sendCopy({ block: first, mask: sent, bytes: copy.bytes }, keep);
      return 1;
    }
    const from = lowestBit(mask);
    let end = firstGap(mask, from);
    let took = 1;
    if ((mask & ~runMask(from, end)) === 0) {
      let last = frame;
      while (end === took * BLOCK_SECTORS && i + took < blocks.length && blocks[i + took] === first + took) {
        const next = this.#dirty.get(first + took) as number;
        const nextMask = frames.dirty[next];
        const reach = firstGap(nextMask, 0);
        if (!frames.adjacent(last, next) || frames.isBusy(next) || frames.writers[next] > 0 || copies?.get(first + took) !== undefined) break;
        if (reach === 0 || (nextMask & ~runMask(0, reach)) !== 0) break;
        if ((end - from + reach) * SECTOR_BYTES > this.#transferLimit || ((first + took) * BLOCK_SECTORS) % REGION_SECTORS === 0) break;
        end += reach;
        last = next;
        took++;
      }
      this.#write(first * BLOCK_SECTORS + from, end - from, frame, keep);
      return took;
    }
    // Dirty sectors with gaps between them: the gaps may not be valid, so each run is a write of its own.
    for (let at = from; at < BLOCK_SECTORS; ) {
      end = firstGap(mask, at);
      this.#write(first * BLOCK_SECTORS + at, end - at, frame, keep);
      at = end;
      while (at < BLOCK_SECTORS && (mask & (1 << at)) === 0) at++;
    }
    return 1;
  }

  /** Writes sectors straight from their frames; `frame` is that of the first sector's block. */
  #write(start: number, sectors: number, frame: number, keep: boolean): void {
    const frames = this.#frames;
    const within = start % BLOCK_SECTORS;
    this.#outstanding++;
    this.onWriting((start + sectors) * SECTOR_BYTES);
    this.#manager.write(start, sectors, frames.slabOf(frame), frames.offsetOf(frame) + within * SECTOR_BYTES, this.#owner(undefined));
    this.#took(start, sectors, keep);
  }

  /** The sectors are on their way: not dirty any more unless the write fails or they change again. */
  #took(start: number, sectors: number, keep: boolean): void {
    const frames = this.#frames;
    const end = start + sectors;
    for (let block = Math.floor(start / BLOCK_SECTORS); block * BLOCK_SECTORS < end; block++) {
      this.#tookBlock(block, frames.find(block), maskOf(block, start, end), 0, keep);
    }
  }

  /** `stay`: sectors that stay dirty, because they changed after what is being written. */
  #tookBlock(block: number, frame: number, mask: number, stay: number, keep: boolean): void {
    const frames = this.#frames;
    frames.markClean(frame, mask & ~stay);
    if (frames.dirty[frame] === 0) this.#dirty.delete(block);
    this.#unsynced.set(block, (this.#unsynced.get(block) ?? 0) | mask);
    if (keep && !this.#gone && !this.#held.has(block)) {
      frames.pinFrame(frame);
      this.#held.add(block);
    }
  }

  /** An operation is on the block: writes it when that ended. It stays dirty, and so in memory, until then. */
  #sendLater(block: number, keep: boolean, copies: BlockCopies | undefined): void {
    this.#outstanding++;
    this.#manager.afterOperations(block * BLOCK_SECTORS, (block + 1) * BLOCK_SECTORS, () => {
      if (this.#dirty.has(block)) this.#send([block], 0, keep, copies);
      this.#release();
    });
  }

  #sendCopy(copy: { block: number; mask: number; bytes: Uint8Array }, keep: boolean): void {
    const frames = this.#frames;
    const scratch = frames.takeScratch();
    if (scratch < 0) {
      this.#copies.push(copy);
      return;
    }
    frames.bytesOf(scratch).set(copy.bytes);
    let left = 0;
    for (let at = lowestBit(copy.mask); at < BLOCK_SECTORS; ) {
      const end = firstGap(copy.mask, at);
      left++;
      this.#outstanding++;
      const start = copy.block * BLOCK_SECTORS + at;
      this.onWriting((copy.block * BLOCK_SECTORS + end) * SECTOR_BYTES);
      this.#manager.write(
        start,
        end - at,
        frames.slabOf(scratch),
        frames.offsetOf(scratch) + at * SECTOR_BYTES,
        this.#owner(() => {
          if (--left !== 0) return;
          frames.giveScratch(scratch);
          const next = this.#copies.shift();
          if (next !== undefined) this.#sendCopy(next, keep);
        }),
      );
      at = end;
      while (at < BLOCK_SECTORS && (copy.mask & (1 << at)) === 0) at++;
    }
    frames.unpin(copy.block);
    this.#release();
  }

  /** One write's ends: it may be split into several. */
  #owner(afterwards: (() => void) | undefined): OperationOwner {
    let pending = 1;
    return {
      operationSplit: () => {
        pending++;
      },
      operationEnded: (start, sectors, result, error) => {
        if (result < 0) this.#failed(start, sectors, result, error);
        else this.onWritten(start, sectors);
        if (--pending !== 0) return;
        afterwards?.();
        this.#release();
      },
    };
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
      else {
        this.#unsynced.delete(block);
        if (this.#held.delete(block)) this.#frames.unpinFrame(frame);
      }
    }
    const offset = start * SECTOR_BYTES;
    const length = sectors * SECTOR_BYTES;
    this.#lose({ offset, length, error: error ?? systemError(result, 'write', { path: this.#path, offset, length }) });
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
    if (--this.#outstanding !== 0) return;
    this.#running = false;
    const done = this.#done;
    this.#done = [];
    for (const tell of done) tell();
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
