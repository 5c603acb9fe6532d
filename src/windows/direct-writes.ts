/**
 * Direct mode: what changes a file. Bytes are copied into frames when a write is accepted, and go to the device with the next flush (or before, when dirty
 * frames fill a quarter of the cache; writes wait for that when they fill half of it).
 *
 *   write ──copy──> frames (dirty) ──flush──> device ──truncate to the logical size──> sync
 *                                       └──> one durable write, where that is all
 *
 * A flush takes its place among the changes, and is over there at once: what it makes durable is fixed when its round begins (`requests/group-commit.ts`), and writes go on meanwhile. Only what must not
 * have a round beside it (a resize, an allocation, a hole) waits for the round, and the changes behind it with it.
 *
 * Guarantees: a sector that a write covers only in part is read before (once), unless nothing of the file was in it; bytes under a
 * device write do not change; the file never keeps padding past a flush; nothing is forgotten because a write of it failed; write-back that failed in the background is tried again by the next flush, or
 * once as much again is dirty, never over and over.
 * Leaves to others: order among changes (`mutation-queue.ts`), the writing itself (`write-back.ts`).
 */
import { systemError } from '../errors.js';
import { OP_ALLOCATE, OP_DISCARD, OP_SYNC, OP_TRUNCATE } from '../io/engine.js';
import { ABSENT, ALL_SECTORS, BLOCK_BYTES, BLOCK_SECTORS, HELD, SECTOR_BYTES } from '../memory/block-store.js';
import type { FrameCache } from '../memory/frame-cache.js';
import { CAUSE_TRUNCATE, causeError } from '../memory/validity.js';
import { GroupCommit } from '../requests/group-commit.js';
import type { Mutation } from '../requests/mutation-queue.js';
import type { Caller, RequestManager } from '../requests/request-manager.js';
import { type BlockCopies, type BlockCopy, type Loss, type Range, WriteBack } from '../requests/write-back.js';
import type { StoreMutation } from './access.js';
import { control } from './control.js';
import { blocksOver, type DirectAccessOptions } from './direct-access.js';
import { flushFailed } from './flush-failed.js';
import type { Ground } from './ground.js';

/** Share of the cache that may be dirty before writes wait for write-back. */
const DIRTY_SHARE = 0.5;
/** Share of the cache from which on dirty frames are written in the background: early enough that a steady writer never waits, late enough that a page that changes often is written once. */
const BEHIND_SHARE = 0.25;
/** Share of the cache that may be dirty or kept for a sync before writes wait for it: the rest is for reading. */
const OCCUPIED_SHARE = 0.75;

export class DirectWrites {
  readonly #ground: Ground;
  readonly #manager: RequestManager;
  readonly #frames: FrameCache;
  readonly #back: WriteBack;
  readonly #kind: 'file' | 'block-device';
  /** Sectors of a unit: what is dirty together, because the device takes no less. */
  readonly #unitSectors: number;
  readonly #pieceBytes: number;
  readonly #durableWrites: boolean;
  readonly #dirtyMax: number;
  readonly #occupiedMax: number;
  readonly #behindStep: number;
  /** Dirty frames from which on they are written in the background. */
  #behindFrom: number;
  readonly #onInvalidate: (from: number, length: number) => void;
  readonly #hasWaiting: () => boolean;
  readonly #group = new GroupCommit((take, end) => this.#round(take, end));
  /** Writable windows that are held. */
  #writable = 0;
  /** Flushes that wait for their turn among the changes. */
  #queued = 0;
  /** The device has something that is not durable, or may have; true at first, for what others wrote before. */
  #unsynced = true;
  /** Copies for the flushes that wait for the next round. */
  #joined: Map<number, BlockCopy> | undefined;
  /** Copies that flushes further back in the queue will write: writes accepted before them still go in. */
  readonly #copies = new Set<Map<number, BlockCopy>>();
  /** The oldest copy of a block: what a flush found may not reach the device as something that was never marked. */
  readonly #waitingCopies: BlockCopies = {
    get: (block) => {
      for (const copies of this.#copies) {
        const copy = copies.get(block);
        if (copy !== undefined) return copy;
      }
      return undefined;
    },
  };
  /** Written since others were seen to have cut the file, behind the cut: block → sectors. */
  readonly #writtenSince = new Map<number, number>();
  /** Where the padding of a write past the end of the file reached last. */
  #padded = 0;
  /** Bytes were given up that may have been to make the file longer. */
  #sizeUnsure = false;
  /** Up to where given-up losses leave it open whether the file has something on the medium: what changes the size next is about that too. */
  #givenUpEnd = 0;
  /** A cut or a hole is under way, or a flush is about to sync: no write-back may begin beside it. */
  #alone = false;
  /** A store that waits until fewer frames are dirty. */
  #thirsty: (() => void) | undefined;
  /** The device is gone: how operations end says nothing any more. */
  #lost = false;

  constructor(options: DirectAccessOptions, pieceBytes: number) {
    this.#ground = options.ground;
    this.#manager = options.manager;
    this.#frames = options.frames;
    this.#kind = options.kind;
    this.#unitSectors = Math.max(1, options.writeAlignment / SECTOR_BYTES);
    this.#pieceBytes = pieceBytes;
    this.#durableWrites = options.durableWrites;
    const { frames } = options.frames;
    this.#dirtyMax = Math.max(1, Math.floor(frames * DIRTY_SHARE));
    this.#occupiedMax = Math.max(1, Math.floor(frames * OCCUPIED_SHARE));
    this.#behindStep = Math.max(1, Math.floor(frames * BEHIND_SHARE));
    this.#behindFrom = this.#behindStep;
    this.#onInvalidate = options.onInvalidate;
    this.#hasWaiting = () => options.mutations.length > 0;
    this.#back = new WriteBack(options.frames, options.staging, options.manager, options.ground.path, options.transferLimit, options.depth);
    this.#back.onEnded = () => this.#quench();
    this.#back.onWriting = (end) => {
      // Padding behind the logical end is on the device until the flush cuts it off, and is not growth by somebody else.
      if (end > this.#ground.committed) this.#ground.committed = end;
    };
    this.#ground.certain = this.#ground.committed;
    this.#back.onWritten = (start, sectors, durable) => {
      const end = (start + sectors) * SECTOR_BYTES;
      if (!durable) this.#unsynced = true;
      this.#ground.reached(end);
      if (end > this.#ground.logical) this.#padded = end;
      if (end > this.#ground.fallen) this.#noteWritten(start, start + sectors);
    };
  }

  get unflushed(): boolean {
    return this.#isUnflushed || this.#group.busy;
  }

  get #isUnflushed(): boolean {
    return this.#unsynced || this.#frames.dirtyCount > 0 || this.#back.losses.length > 0;
  }

  /** Calls `go` once every flush that was accepted is answered. */
  whenFlushed(go: () => void): void {
    this.#group.whenIdle(go);
  }

  isWriting(block: number): boolean {
    return this.#back.isWriting(block);
  }

  /** The request manager lacks frames: starts writing dirty ones, unless that was tried and failed. */
  pressure(): boolean {
    if (this.#back.running || this.#alone) return true;
    if (this.#back.hopeful && this.#back.run({ copies: this.#waitingCopies }, () => this.#manager.schedule())) return true;
    // A sync that is under way lets go of what is kept for it.
    this.#group.hurry();
    return this.#group.active;
  }

  /** Many frames are dirty: they are written while nobody waits for it. Of a file whose end lies within a unit not the last block: it is written padded, and that only a flush makes good. */
  #writeBehind(): void {
    if (this.#back.running || this.#alone || this.#lost) return;
    const { logical } = this.#ground;
    const before = this.#kind === 'file' && logical % (this.#unitSectors * SECTOR_BYTES) !== 0 ? Math.floor(logical / BLOCK_BYTES) : Number.POSITIVE_INFINITY;
    this.#back.run({ copies: this.#waitingCopies, before }, () => {
      this.#behindFrom = this.#back.failed ? this.#frames.dirtyCount + this.#behindStep : this.#behindStep;
      this.#manager.schedule();
    });
  }

  #quench(): void {
    const thirsty = this.#thirsty;
    if (thirsty === undefined || (this.#isFull && (this.#back.running || this.#alone))) return;
    this.#thirsty = undefined;
    thirsty();
  }

  get #isFull(): boolean {
    return this.#frames.dirtyCount >= this.#dirtyMax;
  }

  get losses(): readonly Loss[] {
    return this.#back.losses;
  }

  /** The device is gone. */
  lose(error: Error, pending: readonly Range[]): void {
    this.#lost = true;
    this.#back.loseAll(error, pending);
    this.#copies.clear();
    this.#thirsty = undefined;
    this.#group.fail(undefined);
  }

  /**
   * As `Access.shrunk`. Runs as a mutation: no flush, cut or hole of our own is under way.
   *
   *   before   [ clean | dirty | clean | dirty | clean ]
   *   size          ^                        ^ end of what we have still to write: the file's end from now on
   *   after    [ cl 0 0| dirty | 0 0 0 | dirty ]             of a device: cut at its size, and what was dirty behind is lost
   */
  shrunk(sizeNow: () => number, cut: (end: number) => void, done: () => void): void {
    const ground = this.#ground;
    this.#beginAlone(done, (finished) => {
      const size = sizeNow();
      if (size >= ground.seen || this.#lost) {
        finished();
        return;
      }
      const before = ground.logical;
      const device = this.#kind === 'block-device';
      // What ended after the cut was seen landed before it or after: it is sent once more.
      for (const [block, mask] of this.#writtenSince) {
        const behind = Math.max(0, size - block * BLOCK_BYTES);
        if (!device && behind < BLOCK_BYTES) this.#back.again(block, mask & this.#units(behind, BLOCK_BYTES));
      }
      this.#writtenSince.clear();
      const end = Math.max(Math.min(size, before), device ? 0 : Math.min(before, this.#back.dirtyEnd));
      ground.sized(size);
      if (end < before) {
        if (device) this.#back.loseBehind(size, causeError(CAUSE_TRUNCATE, { path: ground.path }));
        // At once: windows beyond the end show bytes that the file has no more.
        ground.cut(end, CAUSE_TRUNCATE);
        ground.logical = end;
        this.#onInvalidate(end, before - end);
      }
      cut(end);
      // The padding of a write of ours that landed after it is nobody's growth.
      if (ground.logical > before && ground.logical === this.#padded) ground.logical = before;
      // Frames change once no operation is on them; the last block may be about to get the bytes behind the end.
      this.#manager.exclude(Math.floor(size / BLOCK_BYTES) * BLOCK_SECTORS, LAST_SECTOR, () => {
        this.#manager.readmit();
        if (end < before) this.#dropBehind(end);
        this.#forgetClean(size);
        finished();
      });
    });
  }

  #noteWritten(from: number, to: number): void {
    for (let block = Math.floor(from / BLOCK_SECTORS); block * BLOCK_SECTORS < to; block++) {
      const base = block * BLOCK_SECTORS;
      const mask = this.#units(Math.max(0, from - base) * SECTOR_BYTES, Math.min(BLOCK_SECTORS, to - base) * SECTOR_BYTES);
      this.#writtenSince.set(block, (this.#writtenSince.get(block) ?? 0) | mask);
    }
  }

  /**
   * What the device no longer has from `from` on, and is not about to get, reads as zeros. Nobody may see a read come in under a window that is still good: what is held is zeros from here on, the
   * rest is asked for again by whoever comes.
   */
  #forgetClean(from: number): void {
    const frames = this.#frames;
    frames.forEachIn(Math.floor(from / BLOCK_BYTES), Number.POSITIVE_INFINITY, (frame) => {
      const start = frames.blockAt(frame) * BLOCK_BYTES;
      const bytes = frames.bytesOf(frame);
      let behind = 0;
      for (let sector = 0; sector < BLOCK_SECTORS; sector++) {
        const at = sector * SECTOR_BYTES;
        // By whole units: what is missing of one is read as a whole.
        if (start + at - (sector % this.#unitSectors) * SECTOR_BYTES >= from) behind |= 1 << sector;
        if (start + at + SECTOR_BYTES > from && (frames.dirtyOf(frame) & (1 << sector)) === 0) bytes.fill(0, Math.max(from - start, at), at + SECTOR_BYTES);
      }
      this.#back.unwritten(frames.blockAt(frame), behind);
      if (frames.pinsOf(frame) === 0) frames.markInvalid(frame, behind & ~frames.dirtyOf(frame));
    });
  }

  /** Somebody else made the file longer: what is in memory of the block that the end was in is known up to there only. */
  grown(): void {
    const { logical } = this.#ground;
    const block = Math.floor(logical / BLOCK_BYTES);
    const within = logical - block * BLOCK_BYTES;
    const frame = within === 0 ? -1 : this.#frames.find(block);
    if (frame >= 0) this.#frames.markInvalid(frame, this.#units(within, BLOCK_BYTES) & ~this.#frames.dirtyOf(frame));
  }

  acknowledge(): Loss[] {
    const losses = this.#back.acknowledge();
    // A write that failed may have been to make the file longer: the next flush says where it ends.
    if (losses.length > 0 && !this.#lost) {
      this.#sizeUnsure = true;
      this.#unsynced = true;
      for (const { offset, length } of losses) this.#givenUpEnd = Math.max(this.#givenUpEnd, offset + length);
    }
    return losses;
  }

  moved(first: number, count: number, frame: number): void {
    for (let i = 0; i < count; i++) this.#back.moved(first + i, frame + i);
  }

  /** Bytes [start, end) of a writable window at `offset`, whose first block is in `frame`. */
  mark(frame: number, offset: number, start: number, end: number): void {
    const base = Math.floor(offset / BLOCK_BYTES);
    for (let at = offset + start; at < offset + end; ) {
      const block = Math.floor(at / BLOCK_BYTES);
      const within = at - block * BLOCK_BYTES;
      const to = Math.min(BLOCK_BYTES, offset + end - block * BLOCK_BYTES);
      const mask = this.#units(within, to);
      this.#back.mark(block, frame + (block - base), mask);
      for (const copies of this.#copies) {
        const copy = copies.get(block);
        if (copy !== undefined) copy.later |= mask;
      }
      at = (block + 1) * BLOCK_BYTES;
    }
    if (this.#frames.dirtyCount >= this.#behindFrom) this.#writeBehind();
  }

  // Write

  tryStore(source: Uint8Array, offset: number): boolean {
    const length = source.length;
    if (length > this.#pieceBytes || this.#isFull || this.#frames.dirtyCount + this.#back.heldCount >= this.#occupiedMax) return false;
    const frames = this.#frames;
    const first = Math.floor(offset / BLOCK_BYTES);
    const count = blocksOver(offset, length);
    let absent = 0;
    let idle = 0;
    for (let i = 0; i < count; i++) {
      const need = this.#needed(first + i, offset, length);
      const state = frames.state(first + i, need, true);
      if (state === HELD) return false;
      if (state !== ABSENT) {
        if (frames.idle(first + i)) idle++;
        continue;
      }
      if (need !== 0) return false;
      absent++;
    }
    if (absent > frames.room() - idle) return false;
    for (let i = 0; i < count; i++) if (frames.state(first + i, 0, true) !== ABSENT) frames.pin(first + i);
    for (let i = 0; i < count; i++) {
      if (frames.seek(first + i) >= 0) continue;
      let run = 1;
      while (i + run < count && frames.seek(first + i + run) < 0) run++;
      const got = frames.take(first + i, run);
      for (let taken = 0; taken < got; taken++) frames.pin(first + i + taken);
      i += got - 1;
    }
    this.#apply(source, offset);
    for (let i = 0; i < count; i++) frames.unpin(first + i);
    return true;
  }

  store(source: Uint8Array, offset: number, settle: (error: Error | undefined) => void): StoreMutation {
    const length = source.length;
    let finish: ((error?: Error) => void) | undefined;
    let waitingFor: Caller | undefined;
    let taken = 0;
    let relieved = false;
    const step = (): void => {
      if (taken === length) {
        finish?.();
        return;
      }
      if (!relieved) {
        // Once for each piece: there may be nothing that can be written now.
        relieved = true;
        if (this.#relieve(step)) return;
      }
      const at = offset + taken;
      const piece = source.subarray(taken, taken + Math.min(length - taken, this.#pieceBytes - (at % BLOCK_BYTES)));
      const count = blocksOver(at, piece.length);
      const block = Math.floor(at / BLOCK_BYTES);
      waitingFor = {
        first: block,
        count,
        needFirst: this.#needed(block, at, piece.length),
        needMiddle: 0,
        needLast: this.#needed(block + count - 1, at, piece.length),
        store: true,
        blocking: false,
        handle: 0,
        waiting: false,
        settle: (error) => {
          waitingFor = undefined;
          if (error !== undefined) {
            finish?.(error);
            return;
          }
          this.#apply(piece, at);
          for (let i = 0; i < count; i++) this.#frames.unpin(block + i);
          taken += piece.length;
          relieved = false;
          step();
        },
      };
      this.#manager.request(waitingFor);
    };
    return {
      from: offset,
      to: offset + length,
      sizeAfter: (size) => Math.max(size, offset + length),
      start: (done) => {
        finish = done;
        step();
      },
      settle,
      abort: (error) => {
        if (taken > 0 || waitingFor === undefined) return false;
        this.#manager.abandon(waitingFor);
        waitingFor = undefined;
        const done = finish;
        finish = undefined;
        done?.(error);
        return true;
      },
    };
  }

  /** Too much is dirty, or kept for a sync: calls `go` once there is less of it. False if there is nothing to wait for. */
  #relieve(go: () => void): boolean {
    const held = this.#back.heldCount;
    if (this.#isFull && (this.#back.hopeful || this.#back.running)) {
      this.#thirsty = go;
      // While a flush is about to sync, no write-back may begin; there will be an end of it.
      if (!this.#back.running && !this.#alone) this.#back.run({ copies: this.#waitingCopies }, () => {});
      return true;
    }
    if (!this.#group.active || held === 0 || this.#frames.dirtyCount + held < this.#occupiedMax) return false;
    this.#thirsty = go;
    return true;
  }

  /** Sectors of the block that must be read before bytes [offset, offset+length) can be stored: units covered in part that hold bytes of the file. */
  #needed(block: number, offset: number, length: number): number {
    const start = block * BLOCK_BYTES;
    const from = Math.max(0, offset - start);
    const to = Math.min(BLOCK_BYTES, offset + length - start);
    const end = this.#ground.logical - start;
    const unit = this.#unitSectors * SECTOR_BYTES;
    let need = 0;
    for (const at of [from - (from % unit), to - 1 - ((to - 1) % unit)]) {
      const inFile = Math.min(end, at + unit);
      if (inFile > at && (from > at || to < inFile)) need |= this.#units(at, at + unit);
    }
    return need;
  }

  /** The sectors of the units that bytes [from, to) of a block touch. */
  #units(from: number, to: number): number {
    const unit = this.#unitSectors;
    const first = Math.floor(from / SECTOR_BYTES / unit) * unit;
    const last = Math.ceil(to / SECTOR_BYTES / unit) * unit;
    return ((1 << last) - 1) & ~((1 << first) - 1);
  }

  /** Copies into the frames of the pinned blocks under [offset, offset+source.length), in one piece where they lie side by side. */
  #apply(source: Uint8Array, offset: number): void {
    const frames = this.#frames;
    const end = offset + source.length;
    for (let at = offset; at < end; ) {
      const first = Math.floor(at / BLOCK_BYTES);
      const frame = frames.seek(first);
      let count = 1;
      for (let last = frame; (first + count) * BLOCK_BYTES < end; count++) {
        const next = frames.seek(first + count);
        if (!frames.adjacent(last, next)) break;
        last = next;
      }
      const start = first * BLOCK_BYTES;
      const to = Math.min(end, start + count * BLOCK_BYTES);
      this.#clearAround(frame, at - start, Math.min(BLOCK_BYTES, to - start));
      if (count > 1) this.#clearAround(frame + count - 1, 0, to - start - (count - 1) * BLOCK_BYTES);
      frames.bytesOf(frame, count).set(at === offset && to === end ? source : source.subarray(at - offset, to - offset), at - start);
      for (let i = 0; i < count; i++) {
        const within = Math.max(0, at - start - i * BLOCK_BYTES);
        const past = Math.min(BLOCK_BYTES, to - start - i * BLOCK_BYTES);
        const mask = this.#units(within, past);
        for (const copies of this.#copies) {
          const copy = copies.get(first + i);
          if (copy !== undefined) this.#addTo(copy, frames.bytesOf(frame + i), within, past, mask);
        }
        frames.markValid(frame + i, mask);
        this.#back.mark(first + i, frame + i, mask);
      }
      at = to;
    }
    if (end > this.#ground.logical) this.#ground.logical = end;
    if (frames.dirtyCount >= this.#behindFrom) this.#writeBehind();
  }

  /** Bytes [from, to) of a frame are about to be stored into. What is left of their units and not valid was not in the file so far: zeros. */
  #clearAround(frame: number, from: number, to: number): void {
    const unit = this.#unitSectors * SECTOR_BYTES;
    if (from % unit === 0 && to % unit === 0) return;
    const fresh = this.#units(from, to) & ~this.#frames.validOf(frame);
    if (fresh === 0) return;
    const bytes = this.#frames.bytesOf(frame);
    for (let sector = 0; sector < BLOCK_SECTORS; sector++) {
      const at = sector * SECTOR_BYTES;
      if (fresh & (1 << sector) && (at < from || at + SECTOR_BYTES > to)) bytes.fill(0, at, at + SECTOR_BYTES);
    }
  }

  /** A write that was accepted before the flush of this copy: it goes in. */
  #addTo(copy: BlockCopy, frame: Uint8Array, from: number, to: number, mask: number): void {
    for (let sector = 0; sector < BLOCK_SECTORS; sector++) {
      const at = sector * SECTOR_BYTES;
      if (mask & ~copy.mask & (1 << sector)) copy.bytes.set(frame.subarray(at, at + SECTOR_BYTES), at);
    }
    copy.bytes.set(frame.subarray(from, to), from);
    copy.mask |= mask;
  }

  // Flush

  flush(settle: (error: Error | undefined) => void, urgent: boolean): Mutation {
    const waits = this.#hasWaiting() || this.#group.busy || this.#back.running || this.#alone;
    // With nothing before it it begins within this call, and takes the bytes as they are then.
    const now = urgent || (this.#writable > 0 && !waits);
    this.#queued++;
    const copies = this.#copies.size > 0 || (waits && this.#writable > 0) ? this.#back.snapshot(this.#waitingCopies) : undefined;
    if (copies !== undefined && copies.size > 0) this.#copies.add(copies);
    return {
      from: 0,
      to: 0,
      sizeAfter: (size) => size,
      start: (done) => {
        if (copies !== undefined) this.#join(copies);
        this.#group.join(settle, now);
        done();
      },
      settle: (error) => {
        this.#queued--;
        // It never began: the file is gone.
        if (error !== undefined) settle(error);
      },
    };
  }

  /** A writable window was made over the blocks: what flushes that were called before have to write of them is copied, as nothing that is stored now and never marked may go with it. */
  opened(first: number, count: number): void {
    this.#writable++;
    if (this.#queued === 0 && !this.#group.waiting && !(this.#group.active && this.#back.running)) return;
    const frames = this.#frames;
    for (let block = first; block < first + count; block++) {
      const frame = frames.find(block);
      if (frames.dirtyOf(frame) === 0 || this.#waitingCopies.get(block) !== undefined) continue;
      this.#joined ??= new Map();
      this.#copies.add(this.#joined);
      this.#joined.set(block, { bytes: frames.bytesOf(frame).slice(), mask: frames.dirtyOf(frame), later: 0 });
    }
  }

  /** A writable window has no reference any more. */
  dropped(): void {
    this.#writable--;
  }

  /** The copies are of a flush that will be in the next round. Of what two flushes of one round found, the later is written. */
  #join(copies: Map<number, BlockCopy>): void {
    const joined = this.#joined;
    if (joined === undefined) {
      this.#joined = copies;
      this.#copies.add(copies);
      return;
    }
    this.#copies.delete(copies);
    for (const [block, copy] of copies) joined.set(block, copy);
  }

  /** What the flushes that wait share. */
  #round(take: () => void, end: (error?: Error) => void): void {
    this.#back.whenFree(() => {
      if (this.#lost) return;
      take();
      const copies = this.#copiesOfRound();
      const finish = (error?: Error): void => {
        this.#alone = false;
        end(error);
        this.#quench();
        this.#manager.schedule();
      };
      if (!this.#isUnflushed) {
        this.#copies.delete(copies);
        finish();
        return;
      }
      this.#alone = true;
      this.#behindFrom = this.#behindStep;
      const { logical, committed } = this.#ground;
      let size = logical;
      const fits = this.#kind === 'block-device' || (!this.#sizeUnsure && Math.max(committed, this.#back.dirtyEnd) === logical);
      const options = {
        keep: true,
        copies: this.#waitingCopies,
        durable: this.#durableWrites && fits && !this.#unsynced,
        taken: () => {
          size = this.#ground.logical;
        },
      };
      this.#back.run(options, () => {
        this.#copies.delete(copies);
        if (this.#lost) return;
        if (!this.#back.durable) this.#fitSize(size, finish);
        else {
          this.#back.syncBegins();
          this.#back.synced();
          finish(this.#verdict);
        }
      });
    });
  }

  /** What the round writes of frames that somebody may store into, instead of what they hold by the time that it comes to them. */
  #copiesOfRound(): Map<number, BlockCopy> {
    const copies = this.#joined ?? new Map<number, BlockCopy>();
    this.#joined = undefined;
    if (this.#writable === 0) return copies;
    this.#copies.add(copies);
    // What a flush further back found is older than what is there now, and was marked.
    for (const [block, copy] of this.#back.snapshot()) if (this.#waitingCopies.get(block) === undefined) copies.set(block, copy);
    return copies;
  }

  /** Runs what must not have a flush or a write-back beside it: its writes would be durable or not, cut off or not, by chance. */
  #beginAlone(done: (error?: Error) => void, begin: (end: (error?: Error) => void) => void): void {
    this.#group.whenIdle(() => {
      if (this.#lost) return;
      this.#alone = true;
      this.#back.whenFree(() =>
        begin((error) => {
          this.#alone = false;
          done(error);
          this.#quench();
        }),
      );
    });
  }

  /** The file ended at `size` when what the round wrote was fixed. */
  #fitSize(size: number, done: (error?: Error) => void): void {
    const { path, committed } = this.#ground;
    if (this.#kind === 'block-device' || (size === committed && !this.#sizeUnsure)) {
      this.#sync(size, done);
      return;
    }
    // Not beside a read of the last block, which would see the padding or not.
    this.#manager.exclude(Math.floor(Math.min(size, committed) / BLOCK_BYTES) * BLOCK_SECTORS, LAST_SECTOR, () => {
      this.#ground.sizing = true;
      control(this.#manager, { opcode: OP_TRUNCATE, position: size, length: 0 }, (result) => {
        this.#ground.sizing = false;
        this.#manager.readmit();
        if (this.#lost) return;
        if (result < 0) {
          this.#back.sizeFailed(systemError(result, 'ftruncate', { path }), size);
          done(this.#verdict);
          return;
        }
        this.#ground.sized(size);
        if (size <= this.#ground.fallen) this.#writtenSince.clear();
        this.#sizeUnsure = false;
        this.#sync(size, done);
      });
    });
  }

  /** What a flush is answered with. */
  get #verdict(): Error | undefined {
    return this.#back.losses.length > 0 ? flushFailed(this.#ground.path, this.#back.losses) : undefined;
  }

  #sync(size: number, done: (error?: Error) => void): void {
    this.#unsynced = false;
    this.#back.syncBegins();
    control(this.#manager, { opcode: OP_SYNC, position: 0, length: 0 }, (result) => {
      // Every range that was not durable was named when the device was lost.
      if (this.#lost) return;
      if (result < 0) {
        this.#unsynced = true;
        this.#back.syncFailed(result, size);
      } else {
        this.#back.synced();
        this.#givenUpEnd = 0;
      }
      if (this.#back.losses.length > 0) this.#unsynced = true;
      done(this.#verdict);
    });
    // What is written from here on is for the next one.
    this.#alone = false;
    this.#quench();
  }

  // Size and space

  resize(size: number, settle: (error: Error | undefined) => void): Mutation {
    const ground = this.#ground;
    return {
      from: Math.min(size, ground.logical),
      to: Number.MAX_SAFE_INTEGER,
      sizeAfter: () => size,
      start: (finished) =>
        this.#beginAlone(finished, (done) => {
          this.#unsynced = true;
          const finish = (result: number): void => {
            ground.sizing = false;
            this.#manager.readmit();
            if (result < 0) {
              done(systemError(result, 'ftruncate', { path: ground.path, offset: size }));
              return;
            }
            const before = ground.logical;
            ground.sized(size);
            if (size <= ground.fallen) this.#writtenSince.clear();
            ground.logical = size;
            this.#sizeUnsure = false;
            if (size < before) this.#cut(size, before);
            const from = Math.min(size, before);
            this.#back.reshaped(from, Math.max(size, before, this.#givenUpEnd) - from);
            this.#givenUpEnd = 0;
            done();
          };
          const truncate = (): void => {
            ground.sizing = true;
            control(this.#manager, { opcode: OP_TRUNCATE, position: size, length: 0 }, finish);
          };
          this.#manager.exclude(Math.floor(Math.min(size, ground.logical) / BLOCK_BYTES) * BLOCK_SECTORS, LAST_SECTOR, truncate);
        }),
      settle,
    };
  }

  /** The file ends at `size` now. */
  #cut(size: number, before: number): void {
    this.#dropBehind(size);
    this.#ground.cut(size, CAUSE_TRUNCATE);
    this.#onInvalidate(size, before - size);
  }

  /** Frames behind the end of the file are dropped, older views of them read as zeros. */
  #dropBehind(size: number): void {
    const frames = this.#frames;
    const last = Math.floor(size / BLOCK_BYTES);
    const within = size - last * BLOCK_BYTES;
    frames.forEachIn(within === 0 ? last : last + 1, Number.POSITIVE_INFINITY, (frame) => {
      this.#back.forget(frames.blockAt(frame));
      if (frames.pinsOf(frame) > 0) frames.bytesOf(frame).fill(0);
      frames.drop(frame);
    });
    const tail = within === 0 ? -1 : frames.find(last);
    if (tail >= 0) frames.bytesOf(tail).fill(0, within);
    for (const copies of this.#copies) {
      for (const [block, copy] of copies) {
        if (block > last || (block === last && within === 0)) copies.delete(block);
        else if (block === last) copy.bytes.fill(0, within);
      }
    }
  }

  allocate(offset: number, length: number, settle: (error: Error | undefined) => void): Mutation {
    const ground = this.#ground;
    const end = offset + length;
    return {
      from: offset,
      to: end,
      sizeAfter: (size) => Math.max(size, end),
      start: (finished) =>
        this.#beginAlone(finished, (done) => {
          this.#unsynced = true;
          control(this.#manager, { opcode: OP_ALLOCATE, position: offset, length }, (result) => {
            if (result < 0) {
              // ext4 has made the file longer by what it found before the space was used up: the next flush says where it ends.
              if (end > ground.logical) this.#sizeUnsure = true;
              done(systemError(result, 'fallocate', { path: ground.path, offset, length }));
              return;
            }
            if (end > ground.committed) ground.committed = end;
            ground.reached(end);
            if (end > ground.logical) ground.logical = end;
            this.#back.reshaped(offset, length);
            done();
          });
        }),
      settle,
    };
  }

  discard(offset: number, length: number, settle: (error: Error | undefined) => void): Mutation {
    const ground = this.#ground;
    const device = this.#kind === 'block-device';
    // A device discards whole units only; what of the range lies in others stays.
    const unit = device ? this.#unitSectors * SECTOR_BYTES : 1;
    const from = Math.ceil(offset / unit) * unit;
    const to = Math.max(from, Math.floor((offset + length) / unit) * unit);
    const firstSector = Math.floor(from / BLOCK_BYTES) * BLOCK_SECTORS;
    const pastSector = Math.ceil(to / BLOCK_BYTES) * BLOCK_SECTORS;
    return {
      from: offset,
      to: offset + length,
      sizeAfter: (size) => size,
      start: (finished) =>
        this.#beginAlone(finished, (done) => {
          if (to === from) {
            done();
            return;
          }
          this.#unsynced = true;
          this.#manager.exclude(firstSector, pastSector, () => {
            control(this.#manager, { opcode: OP_DISCARD, position: from, length: to - from }, (result) => {
              this.#manager.readmit();
              if (result < 0) {
                done(systemError(result, device ? 'BLKDISCARD' : 'fallocate', { path: ground.path, offset: from, length: to - from }));
                return;
              }
              this.#clear(from, to, device);
              this.#back.reshaped(from, to - from);
              done();
            });
          });
        }),
      settle,
    };
  }

  /** The frames of [from, to) after a hole was punched there: zeros, and nothing to write where all of a block is in the hole. */
  #clear(from: number, to: number, device: boolean): void {
    const frames = this.#frames;
    const first = Math.floor(from / BLOCK_BYTES);
    // Also of blocks that are in no frame any more: what flushes further back have of them is older than the hole.
    for (const copies of device ? [] : this.#copies) {
      for (const [block, { bytes }] of copies) {
        const start = block * BLOCK_BYTES;
        if (start < to && start + BLOCK_BYTES > from) bytes.fill(0, Math.max(0, from - start), Math.min(BLOCK_BYTES, to - start));
      }
    }
    frames.forEachIn(first, Math.ceil(to / BLOCK_BYTES), (frame) => {
      const start = frames.blockAt(frame) * BLOCK_BYTES;
      const whole = from <= start && to >= start + BLOCK_BYTES;
      if (device) {
        // What a device answers for a discarded sector is its own affair: the frame is only forgotten, unless a window shows it.
        if (!whole) return;
        this.#back.forget(frames.blockAt(frame));
        frames.markClean(frame, ALL_SECTORS);
        if (frames.pinsOf(frame) === 0) frames.drop(frame);
        return;
      }
      frames.bytesOf(frame).fill(0, Math.max(0, from - start), Math.min(BLOCK_BYTES, to - start));
      if (!whole) return;
      this.#back.forget(frames.blockAt(frame));
      frames.markClean(frame, ALL_SECTORS);
      frames.markValid(frame, ALL_SECTORS);
    });
  }
}

/** Behind every sector that a file can have. */
const LAST_SECTOR = Number.MAX_SAFE_INTEGER / SECTOR_BYTES;
