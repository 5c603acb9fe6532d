/**
 * Page-cache mode: windows are views of the file's standing mapping.
 *
 *   read windows      a private mapping: stores stay in this process and vanish when residency is next proved
 *   writable windows  a shared mapping, over blocks that were allocated before: a store into a hole on a full disk is SIGBUS
 *
 * Guarantees: a window is answered only for pages that are in memory; missing ones are read in by the ring (never by a fault of the event loop); a cell under a
 * window is not unmapped by `evict`, and one that no window was over for `idleMs` leaves the page table. Bytes that the guard replaced are never answered as the file's: windows over
 * them are refused, copies of them are made again.
 * Leaves to others: residency (`memory/mapping.ts`), filling (`requests/` over `memory/fill-store.ts`).
 */
import { readSync } from 'node:fs';
import { assertionError, systemError } from '../errors.js';
import { type Engine, type Feature, FLAG_ASYNC, OP_ALLOCATE, OP_DISCARD, OP_EVICT, OP_SYNC, OP_TRUNCATE, OP_WRITE, type Slab } from '../io/engine.js';
import { native } from '../io/native.js';
import { ALL_SECTORS, BLOCK_BYTES } from '../memory/block-store.js';
import { CellUse } from '../memory/cell-use.js';
import { FILL_BYTES_MAX, FillStore, SCRATCH_BYTES } from '../memory/fill-store.js';
import { CELL_BYTES, causeOfFault, type Damage, FileMapping, type Segment, segmentCause } from '../memory/mapping.js';
import type { PageHold } from '../memory/page-locks.js';
import { PageCounter } from '../memory/residency.js';
import { createSlab } from '../memory/slab.js';
import { CAUSE_FAULT, CAUSE_NONE, CAUSE_TRUNCATE, causeError, validity } from '../memory/validity.js';
import { GroupCommit } from '../requests/group-commit.js';
import type { Mutation } from '../requests/mutation-queue.js';
import type { Caller, RequestManager } from '../requests/request-manager.js';
import type { Loss, Range } from '../requests/write-back.js';
import type { Access, AccessCounts, PageCounts, StoreMutation } from './access.js';
import { control } from './control.js';
import { blocksOver } from './direct-access.js';
import { flushFailed } from './flush-failed.js';
import type { Ground } from './ground.js';
import { FileWindow } from './window.js';

/** Bytes of the slab that writes are copied into. */
const WRITE_BYTES = 1 << 20;
/** Bytes that `evict` goes forward at once: what it takes out of the page table holds up the event loop for a fraction of a millisecond. */
const EVICT_BYTES = 16 * CELL_BYTES;
const EOPNOTSUPP = -95;
const ENOSYS = -38;
/** Times that a copy is made again because a page of it was gone by then. */
const COPIES_MAX = 4;

export interface MappedAccessOptions {
  fd: number;
  ground: Ground;
  engine: Engine;
  kind: 'file' | 'block-device';
  /** Bytes of the least that the device discards. */
  sectorBytes: number;
  trustMincore: boolean;
  /** The size as the file system or device says now. */
  sizeNow: () => number;
  /** Numbers of the file system's device, or of the device that was opened. */
  device: string;
  /** Cells that no window used for so long leave the page table. */
  idleMs: number;
  onInvalidate: (from: number, length: number) => void;
}

export class MappedAccess implements Access {
  readonly path: string;
  readonly ground: Ground;
  readonly pieceBytes = WRITE_BYTES;
  readonly aheadPieceBytes = FILL_BYTES_MAX;
  onAheadLost: ((offset: number) => void) | undefined;
  readonly fillStore: FillStore;
  #manager: RequestManager | undefined;
  readonly #fd: number;
  readonly #kind: 'file' | 'block-device';
  readonly #sectorBytes: number;
  readonly #trustMincore: boolean;
  readonly #sizeNow: () => number;
  readonly #counter: PageCounter;
  readonly #onInvalidate: (from: number, length: number) => void;
  readonly #mapping: FileMapping;
  readonly #scratch: Slab;
  readonly #outgoing: Slab;
  readonly #outgoingBytes: Uint8Array;
  readonly #outgoingSlab: number;
  readonly #words = validity().words;
  /** For writable windows; made with the first. */
  #shared: FileMapping | undefined;
  /** Cells whose blocks are allocated up to the size of the file then. */
  readonly #allocated = new Set<number>();
  /** What windows keep locked. */
  readonly #holds = new Map<FileWindow, PageHold>();
  /** Which cells of the file windows are over. */
  readonly #cells: CellUse;
  /** A view of the private mapping was handed out: JavaScript may have stored into it. */
  #exposed = false;
  marks = 0;
  readonly #group = new GroupCommit((take, end) => this.#sync(take, end));
  /** A flush has to reach the device; true at first, for what others wrote before. */
  #unsynced = true;
  /** Changes of our own, counted. */
  #changes = 0;
  /** How many of them are durable. */
  #durable = 0;
  /** The file is lost: what was not durable was named then. */
  #gone = false;
  #losses: Loss[] = [];
  #faults = 0;
  /** The guard's count when this file's cells were last looked at. */
  #faultsSeen = native().guardFaults();
  /** Damage that nobody asked about yet, by cause and place. */
  readonly #damage = new Map<string, Damage>();

  constructor(options: MappedAccessOptions) {
    this.path = options.ground.path;
    this.ground = options.ground;
    this.#fd = options.fd;
    this.#kind = options.kind;
    this.#sectorBytes = options.sectorBytes;
    this.#trustMincore = options.trustMincore;
    this.#sizeNow = options.sizeNow;
    this.#onInvalidate = options.onInvalidate;
    this.#mapping = this.#map(false);
    this.#cells = new CellUse(options.idleMs, (first, count) => this.#unmap(first * CELL_BYTES, count * CELL_BYTES));
    this.#counter = new PageCounter({ fd: options.fd, device: options.device, trustMincore: options.trustMincore, mapping: this.#mapping });
    this.#scratch = createSlab(SCRATCH_BYTES);
    this.#outgoing = createSlab(WRITE_BYTES);
    this.#outgoingBytes = new Uint8Array(this.#outgoing.shared);
    this.fillStore = new FillStore(this.#mapping, options.engine.addSlab(this.#scratch));
    this.#outgoingSlab = options.engine.addSlab(this.#outgoing);
  }

  /** The manager fills through this object's store, so it is made after it. */
  attach(manager: RequestManager): void {
    this.#manager = manager;
    this.fillStore.operations = manager.operations;
  }

  get manager(): RequestManager {
    if (this.#manager === undefined) throw assertionError('used before it was attached');
    return this.#manager;
  }

  get counts(): AccessCounts {
    this.#lookForDamage();
    return { readAheadUnused: 0, gatheredBytes: 0, evictions: 0, faults: this.#faults };
  }

  tryWindow(offset: number, length: number, writable: boolean, lock: boolean): FileWindow | undefined {
    if (writable && !this.#isAllocated(offset, length)) return undefined;
    const mapping = writable ? this.#sharedMapping() : this.#mapping;
    if (!mapping.resident(offset, length)) return undefined;
    const segment = mapping.at(offset, length);
    // What is gone has to be asked of the device again.
    if (segmentCause(this.#words, segment, offset - segment.start, length) !== CAUSE_NONE) return undefined;
    return lock ? this.#makeLocked(mapping, segment, offset, length, writable, false) : this.#make(segment, offset, length, writable);
  }

  caller(offset: number, length: number, _writable: boolean, blocking: boolean, settle: (error: Error | undefined) => void): Caller {
    return {
      first: Math.floor(offset / BLOCK_BYTES),
      count: blocksOver(offset, length),
      needFirst: ALL_SECTORS,
      needMiddle: ALL_SECTORS,
      needLast: ALL_SECTORS,
      store: false,
      end: offset + length,
      blocking,
      handle: 0,
      waiting: false,
      settle,
    };
  }

  checkRoom(offset: number, length: number, writable: boolean, lock: boolean): void {
    if (lock) (writable ? this.#sharedMapping() : this.#mapping).checkLock(offset, length);
  }

  windowFrom(offset: number, length: number, writable: boolean, lock: boolean): FileWindow {
    const asked = Math.max(0, Math.min(length, this.ground.logical - offset));
    if (asked === 0) return this.#make(undefined, offset, 0, writable);
    const mapping = writable ? this.#sharedMapping() : this.#mapping;
    const bytes = this.#mend(mapping, offset, asked);
    const segment = bytes === 0 ? undefined : mapping.at(offset, bytes);
    if (lock && segment !== undefined) return this.#makeLocked(mapping, segment, offset, bytes, writable, true) as FileWindow;
    return this.#make(segment, offset, bytes, writable);
  }

  tryCopy(target: Uint8Array, offset: number): boolean {
    if (!this.#mapping.resident(offset, target.length)) return false;
    return this.#copy(target, offset);
  }

  copyFrom(target: Uint8Array, offset: number): number {
    for (let attempt = 1; ; attempt++) {
      const asked = Math.max(0, Math.min(target.length, this.ground.logical - offset));
      const length = asked === 0 ? 0 : this.#mend(this.#mapping, offset, asked);
      if (length === 0 || this.#copy(target.subarray(0, length), offset)) return length;
      if (attempt === COPIES_MAX) throw causeError(CAUSE_FAULT, { path: this.path, offset, length });
    }
  }

  giveBack(): void {}

  askAhead(caller: Caller): number {
    const blocks = this.manager.requestSpare(caller);
    return blocks < 0 ? -1 : blocks * BLOCK_BYTES;
  }

  readBlocking(target: Uint8Array, offset: number): number {
    let done = 0;
    while (done < target.length) {
      const count = this.#readSome(target.subarray(done), offset + done);
      if (count === 0) break;
      done += count;
    }
    return done;
  }

  #readSome(target: Uint8Array, offset: number): number {
    try {
      return readSync(this.#fd, target, 0, target.length, offset);
    } catch (error) {
      // The target's own pages are gone: of a window, ours or another file's.
      const cause = (error as NodeJS.ErrnoException).code === 'EFAULT' ? causeOfFault(target) : CAUSE_NONE;
      throw cause === CAUSE_NONE ? error : causeError(cause, { cause: error });
    }
  }

  /**
   * What the guard found gone in this file's mappings since it was last asked, in bytes of the file. Windows over what could not be read (CAUSE_FAULT) are refused for good; of what lay
   * beyond the end (CAUSE_TRUNCATE) the size of the file decides: see `shrunk`. To be called when the guard's event tells of a fault; costs a look at each cell of the file then.
   */
  absorbFaults(): Damage[] {
    this.#lookForDamage();
    const found = [...this.#damage.values()];
    this.#damage.clear();
    return found;
  }

  #lookForDamage(): void {
    const faults = native().guardFaults();
    if (faults === this.#faultsSeen) return;
    // Taken before the look: what comes meanwhile is looked for again.
    this.#faultsSeen = faults;
    this.#mapping.damage(this.#found);
    this.#shared?.damage(this.#found);
  }

  readonly #found = (damage: Damage): void => {
    const { cause, offset, length } = damage;
    this.#faults++;
    this.#damage.set(`${cause} ${offset}`, damage);
    if (cause === CAUSE_FAULT) this.ground.loseRange(offset, offset + length, cause);
  };

  /** Those made before the bytes were mapped again keep saying why they died. A fault was noted when it was found. */
  readonly #lost = ({ cause, offset, length }: Damage): void => {
    if (cause !== CAUSE_FAULT) this.ground.loseRange(offset, offset + length, cause);
  };

  /** After the range was read in: maps the file again where the guard had replaced it. Answers with how much of the range the file has by now. */
  #mend(mapping: FileMapping, offset: number, length: number): number {
    const segment = mapping.at(offset, length);
    const cause = segmentCause(this.#words, segment, offset - segment.start, length);
    if (cause === CAUSE_NONE) return length;
    if (cause !== CAUSE_FAULT && cause !== CAUSE_TRUNCATE) throw causeError(cause, { path: this.path, offset, length });
    if (cause === CAUSE_TRUNCATE) {
      const size = this.#sizeNow();
      // A device that is gone has no size; that is for whoever watches devices to say.
      if (size < 0 || (size === 0 && this.#kind === 'block-device')) throw causeError(CAUSE_FAULT, { path: this.path, offset, length });
      if (size < this.ground.logical) this.#cutAt(size);
    }
    const bytes = Math.max(0, Math.min(length, this.ground.logical - offset));
    if (bytes > 0) mapping.mend(offset, bytes, this.#found, this.#lost);
    return bytes;
  }

  // WindowOwner

  check(window: FileWindow): void {
    this.ground.check(window);
    const cause = this.#cellCause(window);
    if (cause !== 0) throw causeError(cause, { path: this.path, offset: window.offset, length: window.length });
  }

  isValid(window: FileWindow): boolean {
    return this.ground.causeOf(window) === 0 && this.#cellCause(window) === 0;
  }

  view(window: FileWindow): Uint8Array {
    if (window.segment === undefined) return new Uint8Array(new ArrayBuffer(BLOCK_BYTES), window.offset % BLOCK_BYTES, 0);
    if (!window.writable) this.#exposed = true;
    return new Uint8Array(window.segment.buffer, window.place, window.length);
  }

  areas(window: FileWindow): readonly Uint8Array[] {
    return [window.bytes];
  }

  mark(): void {
    this.marks++;
    // The kernel knows which pages of a shared mapping were stored into.
    this.#touched();
  }

  dropped(window: FileWindow): void {
    this.ground.windowDropped();
    if (this.#holds.size > 0) this.#unlock(window);
    if (window.segment !== undefined) this.#cells.end(Math.floor(window.offset / CELL_BYTES), Math.floor((window.offset + window.length - 1) / CELL_BYTES));
  }

  // Changes

  get unflushed(): boolean {
    return this.#isUnflushed || this.#group.busy;
  }

  get #isUnflushed(): boolean {
    return this.#unsynced || this.#losses.length > 0;
  }

  /** Any buffered write can wait for the device or for dirty pages to be written: never on the event loop. */
  tryStore(): boolean {
    return false;
  }

  store(source: Uint8Array, offset: number, settle: (error: Error | undefined) => void): StoreMutation {
    const length = source.length;
    let written = 0;
    const step = (done: (error?: Error) => void): void => {
      if (written === length) {
        done();
        return;
      }
      const bytes = Math.min(length - written, WRITE_BYTES);
      this.#outgoingBytes.set(source.subarray(written, written + bytes));
      this.#writeOut(offset + written, bytes, (error) => {
        if (error !== undefined) {
          done(error);
          return;
        }
        written += bytes;
        step(done);
      });
    };
    return {
      from: offset,
      to: offset + length,
      sizeAfter: (size) => Math.max(size, offset + length),
      start: (done) => {
        this.#touched();
        step(done);
      },
      settle,
      // Begun means that the first bytes were taken.
      abort: () => false,
    };
  }

  /** Writes the first `bytes` of the outgoing slab. */
  #writeOut(position: number, bytes: number, ended: (error?: Error) => void, from = 0): void {
    const command = { opcode: OP_WRITE | FLAG_ASYNC, position: position + from, length: bytes - from, slab: this.#outgoingSlab, offset: from };
    control(this.manager, command, (result) => {
      if (result <= 0) {
        ended(systemError(result === 0 ? -5 : result, 'write', { path: this.path, offset: position + from, length: bytes - from }));
        return;
      }
      this.manager.counts.deviceWrites++;
      this.manager.counts.deviceWriteBytes += result;
      this.#reached(position + from + result);
      if (from + result < bytes) this.#writeOut(position, bytes, ended, from + result);
      else ended();
    });
  }

  flush(settle: (error: Error | undefined) => void, urgent: boolean): Mutation {
    return {
      from: 0,
      to: 0,
      sizeAfter: (size) => size,
      start: (done) => {
        this.#group.join(settle, urgent);
        done();
      },
      settle: (error) => {
        // It never began: the file is gone.
        if (error !== undefined) settle(error);
      },
    };
  }

  /** What the flushes that wait share: one sync. Changes go on beside it, and are for the next. */
  #sync(take: () => void, end: (error?: Error) => void): void {
    take();
    if (!this.#isUnflushed) {
      end();
      return;
    }
    this.#unsynced = false;
    const changes = this.#changes;
    control(this.manager, { opcode: OP_SYNC, position: 0, length: 0 }, (result) => {
      if (this.#gone) return;
      if (result >= 0) this.#durable = changes;
      else {
        this.#unsynced = true;
        const error = systemError(result, 'fdatasync', { path: this.path });
        if (this.#losses.length === 0) this.#losses.push({ offset: 0, length: this.ground.logical, error });
      }
      end(this.#losses.length > 0 ? flushFailed(this.path, this.#losses) : undefined);
    });
  }

  whenFlushed(go: () => void): void {
    this.#group.whenIdle(go);
  }

  acknowledge(): Loss[] {
    const losses = this.#losses;
    this.#losses = [];
    // Given up, with whatever of it may be durable.
    if (losses.length > 0) this.#durable = this.#changes;
    return losses;
  }

  resize(size: number, settle: (error: Error | undefined) => void): Mutation {
    const ground = this.ground;
    return {
      from: Math.min(size, ground.logical),
      to: Number.MAX_SAFE_INTEGER,
      sizeAfter: () => size,
      start: (done) => {
        this.#touched();
        const before = ground.logical;
        if (size < before) {
          try {
            // Before the file shrinks: a touch behind its end would be SIGBUS.
            this.#mapping.cut(before, size);
            this.#shared?.cut(before, size);
          } catch (error) {
            done(error as Error);
            return;
          }
          ground.cut(size, CAUSE_TRUNCATE);
          ground.logical = size;
          this.#forgetAllocated(size, before);
        }
        control(this.manager, { opcode: OP_TRUNCATE, position: size, length: 0 }, (result) => {
          if (result < 0) {
            if (size < before) {
              this.#mapping.regrow(size, before);
              this.#shared?.regrow(size, before);
              ground.logical = before;
            }
            done(systemError(result, 'ftruncate', { path: this.path, offset: size }));
            return;
          }
          ground.logical = size;
          ground.committed = size;
          if (size < before) this.#onInvalidate(size, before - size);
          else this.grown(size);
          done();
        });
      },
      settle,
    };
  }

  allocate(offset: number, length: number, settle: (error: Error | undefined) => void): Mutation {
    return {
      from: offset,
      to: offset + length,
      sizeAfter: (size) => Math.max(size, offset + length),
      start: (done) => {
        this.#touched();
        control(this.manager, { opcode: OP_ALLOCATE, position: offset, length }, (result) => {
          if (result < 0) {
            done(systemError(result, 'fallocate', { path: this.path, offset, length }));
            return;
          }
          this.#reached(offset + length);
          done();
        });
      },
      settle,
    };
  }

  discard(offset: number, length: number, settle: (error: Error | undefined) => void): Mutation {
    const device = this.#kind === 'block-device';
    // A device discards whole sectors only (else EINVAL); what of the range lies in others stays.
    const unit = device ? this.#sectorBytes : 1;
    const from = Math.ceil(offset / unit) * unit;
    const bytes = Math.floor((offset + length) / unit) * unit - from;
    return {
      from: offset,
      to: offset + length,
      sizeAfter: (size) => size,
      start: (done) => {
        if (bytes <= 0) {
          done();
          return;
        }
        this.#touched();
        this.#forgetAllocated(from, from + bytes);
        control(this.manager, { opcode: OP_DISCARD, position: from, length: bytes }, (result) => {
          this.#mapping.forget(from, bytes);
          this.#shared?.forget(from, bytes);
          if (result < 0) done(systemError(result, device ? 'BLKDISCARD' : 'fallocate', { path: this.path, offset: from, length: bytes }));
          else done();
        });
      },
      settle,
    };
  }

  prepare(offset: number, length: number, settle: (error: Error | undefined) => void): Mutation | undefined {
    if (this.#isAllocated(offset, length)) return undefined;
    return {
      from: offset,
      to: offset + length,
      sizeAfter: (size) => size,
      start: (done) => {
        const first = Math.floor(offset / CELL_BYTES);
        const end = Math.min(Math.ceil((offset + length) / CELL_BYTES) * CELL_BYTES, this.ground.logical);
        if (end <= first * CELL_BYTES) {
          done();
          return;
        }
        control(this.manager, { opcode: OP_ALLOCATE, position: first * CELL_BYTES, length: end - first * CELL_BYTES }, (result) => {
          // A file system that cannot allocate is taken as it is.
          if (result < 0 && result !== EOPNOTSUPP && result !== ENOSYS) {
            done(systemError(result, 'fallocate', { path: this.path, offset, length }));
            return;
          }
          for (let cell = first; cell * CELL_BYTES < end; cell++) this.#allocated.add(cell);
          done();
        });
      },
      settle,
    };
  }

  async evict(offset: number, length: number): Promise<void> {
    const end = offset + length;
    const used = (at: number): boolean => this.#cells.used(Math.floor(at / CELL_BYTES));
    for (let at = offset; at < end && !this.ground.closed; ) {
      const from = at;
      const most = Math.min(end, (Math.floor(at / EVICT_BYTES) + 1) * EVICT_BYTES);
      while (at < most && !used(at)) at = Math.min(most, (Math.floor(at / CELL_BYTES) + 1) * CELL_BYTES);
      if (at > from) await this.#evictUnused(from, at - from);
      else at = Math.min(end, (Math.floor(at / CELL_BYTES) + 1) * CELL_BYTES);
    }
  }

  async #evictUnused(position: number, length: number): Promise<void> {
    // Pages that are mapped are not dropped, so they leave the page table first.
    this.#unmap(position, length);
    const result = await new Promise<number>((resolve) => control(this.manager, { opcode: OP_EVICT, position, length }, resolve));
    // What was filled or proved between the two may be gone again.
    this.#mapping.dropped(position, length);
    this.#shared?.dropped(position, length);
    if (result < 0) throw systemError(result, 'fadvise', { path: this.path, offset: position, length });
  }

  #unmap(offset: number, length: number): void {
    this.#mapping.unmap(offset, length);
    this.#shared?.unmap(offset, length);
  }

  residency(offset: number, length: number): PageCounts {
    if (length === 0) return { pages: 0, cached: 0, dirty: 0, writeback: 0, evicted: 0 };
    return { pages: blocksOver(offset, length), ...this.#counter.count(offset, length) };
  }

  features(): Feature[] {
    return this.#counter.features();
  }

  grown(size: number): void {
    if (this.ground.logical > 0) this.#allocated.delete(Math.floor((this.#mapping.size - 1) / CELL_BYTES));
    this.#mapping.grow(size);
    this.#shared?.grow(size);
  }

  shrunk(sizeNow: () => number, cut: (end: number) => void, done: () => void): void {
    const size = sizeNow();
    if (size < this.ground.logical) {
      this.#cutAt(size);
      cut(size);
    }
    done();
  }

  /** Somebody else made the file end at `size`, below what was known. */
  #cutAt(size: number): void {
    const before = this.ground.logical;
    // Windows first: who reads zeros below and asks then, learns why.
    this.ground.cut(size, CAUSE_TRUNCATE);
    this.ground.logical = size;
    this.ground.committed = size;
    this.#mapping.cut(before, size);
    this.#shared?.cut(before, size);
    this.#forgetAllocated(size, before);
    this.#onInvalidate(size, before - size);
  }

  get losses(): readonly Loss[] {
    return this.#losses;
  }

  lose(cause: number, error: Error, pending: readonly Range[]): void {
    this.#gone = true;
    // The kernel does not say which pages were not written yet.
    if ((this.#changes > this.#durable || pending.length > 0) && this.#losses.length === 0)
      this.#losses.push({ offset: 0, length: this.ground.logical, error });
    this.#group.fail(undefined);
    this.#mapping.close(cause);
    this.#shared?.close(cause);
  }

  pressure(): boolean {
    return false;
  }

  cacheFull(): Error {
    return assertionError('a fill waits for memory, but needs none');
  }

  close(): void {
    this.ground.close();
    this.#cells.close();
    this.#holds.clear();
    this.#mapping.close();
    this.#shared?.close();
    this.#scratch.close();
    this.#outgoing.close();
  }

  #map(shared: boolean): FileMapping {
    return new FileMapping({ fd: this.#fd, path: this.path, size: this.ground.logical, shared, trustMincore: this.#trustMincore });
  }

  #sharedMapping(): FileMapping {
    this.#shared ??= this.#map(true);
    return this.#shared;
  }

  /** Something was changed that the next flush has to make durable. */
  #touched(): void {
    this.#unsynced = true;
    this.#changes++;
  }

  /** The file reaches up to `end` at least. */
  #reached(end: number): void {
    if (end > this.ground.committed) this.ground.committed = end;
    if (end <= this.ground.logical) return;
    this.grown(end);
    this.ground.logical = end;
  }

  /** `segment` holds the range; undefined for no bytes. */
  #make(segment: Segment | undefined, offset: number, length: number, writable: boolean): FileWindow {
    this.ground.windowMade();
    const generation = this.ground.generation;
    if (segment === undefined) return new FileWindow(this, offset, 0, writable, -1, generation, undefined, undefined);
    const window = new FileWindow(this, offset, length, writable, offset - segment.start, generation, undefined, segment);
    this.#cells.begin(Math.floor(offset / CELL_BYTES), Math.floor((offset + length - 1) / CELL_BYTES));
    return window;
  }

  /** As `#make`, with its pages locked; undefined if they were not all in memory any more, unless they were just `filled`. */
  #makeLocked(mapping: FileMapping, segment: Segment, offset: number, length: number, writable: boolean, filled: boolean): FileWindow | undefined {
    const hold = mapping.lock(offset, length, filled);
    if (hold === undefined) return undefined;
    const window = this.#make(segment, offset, length, writable);
    this.#holds.set(window, hold);
    return window;
  }

  #unlock(window: FileWindow): void {
    const hold = this.#holds.get(window);
    if (hold === undefined) return;
    this.#holds.delete(window);
    hold.locks.give(hold);
  }

  #cellCause(window: FileWindow): number {
    return window.segment === undefined ? CAUSE_NONE : segmentCause(this.#words, window.segment, window.place, window.length);
  }

  /** Never shows what JavaScript stored into a read window: those pages are restored first. False if bytes were gone when they were copied. */
  #copy(target: Uint8Array, offset: number): boolean {
    this.#cells.touch(Math.floor(offset / CELL_BYTES), Math.floor((offset + target.length - 1) / CELL_BYTES));
    if (this.#exposed) {
      this.#mapping.forget(offset, target.length);
      this.#mapping.resident(offset, target.length);
    }
    for (let done = 0; done < target.length; ) {
      const bytes = Math.min(target.length - done, WRITE_BYTES);
      const segment = this.#mapping.at(offset + done, bytes);
      target.set(new Uint8Array(segment.buffer, offset + done - segment.start, bytes), done);
      // Asked afterwards: a page that went during the copy was copied as zeros.
      if (segmentCause(this.#words, segment, offset + done - segment.start, bytes) !== CAUSE_NONE) return false;
      done += bytes;
    }
    return true;
  }

  #isAllocated(offset: number, length: number): boolean {
    if (this.#kind === 'block-device') return true;
    const last = Math.floor((offset + length - 1) / CELL_BYTES);
    for (let cell = Math.floor(offset / CELL_BYTES); cell <= last; cell++) if (!this.#allocated.has(cell)) return false;
    return true;
  }

  #forgetAllocated(from: number, to: number): void {
    for (const cell of this.#allocated) if (cell * CELL_BYTES < to && (cell + 1) * CELL_BYTES > from) this.#allocated.delete(cell);
  }
}
