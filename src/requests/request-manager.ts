/**
 * Who waits for which sectors, and what is sent to the device for them.
 *
 *   caller ──grant──> slots (pool) ──plan──> operations (disjoint, in order) ──submit──> ring ──drain──> slots ──> caller
 *            waits in line,           sorted sectors become                       each operation's waiters find
 *            holding nothing          few large operations                        their sectors by binary search
 *
 * A caller asks for a range of blocks, and in the first and last for the sectors that it needs. It gets all its slots and memory at
 * once, or waits in line holding none. Blocks already on their way are joined, also in part. What is absent is planned: the sectors of everything granted in one
 * turn are sorted together, neighbours and small gaps become one operation.
 *
 * Guarantees: each caller is settled exactly once, never inside the call that asked and never inside the completion loop; operations are disjoint; an operation that
 * fails is cut at request boundaries and then down to single sectors, so that only who needs a bad sector fails;
 * memory under an operation is nobody else's until its completion came, abandoned or not; a completion with an old handle changes nothing.
 * Leaves to others: whose memory (`memory/`), the order among writes (`mutation-queue.ts`), what a caller does with its blocks (`windows/`).
 */
import { assertionError, systemError } from '../errors.js';
import { FLAG_ASYNC, FLAG_DURABLE, OP_FILL, OP_READ, OP_WRITE } from '../io/engine.js';
import type { CompletionConsumer, Ring } from '../io/ring.js';
import { ABSENT, ALL_SECTORS, BLOCK_BYTES, BLOCK_SECTORS, type BlockStore, HELD, PRESENT, SECTOR_BYTES } from '../memory/block-store.js';
import { KIND_CONTROL, KIND_READ, KIND_WRITE, OperationTable } from './operation-table.js';
import { lowerBound, REGION_SECTORS, regionOf, SortScratch, sortSectors } from './sector-array.js';
import { SLOT_FAILED, SLOT_READY, SlotPool } from './slot-pool.js';
import type { Verification, VerifiedPart } from './verification.js';

/** A write from a copy: the memory of its blocks is anybody's meanwhile, and whoever sends it keeps them in memory until it ended. */
export const WRITE_STAGED = 1;
/** A write that is on stable storage when it ended. */
export const WRITE_DURABLE = 2;

/** Slots that only blocking calls may take. */
const RESERVED_SLOTS = 1;
/** Times that an operation is sent again after EAGAIN, ENOMEM, EINTR, or a transfer that did not move. */
export const RETRIES_MAX = 64;
/** Completions told in one turn, at least and at most; between, an eighth of what is in flight: few, so that the device is not idle while a burst is worked off; docs/decisions.md has the measurement. */
const BURST_LEAST = 4;
const BURST_MOST = 32;
/** Operations of one turn that are put in the order of their places. */
const ORDERED_MAX = 512;
/** Turns before the event loop gets its own. */
const TURNS_MAX = 64;

const EINTR = -4;
const EIO = -5;
const ENXIO = -6;
const EAGAIN = -11;
const ENOMEM = -12;
const EBUSY = -16;
const ENODEV = -19;
/** What operations on a device or file system that is gone end with (an aborted FUSE connection: ENOTCONN, ECONNABORTED; a shut-down file system also EROFS and, xfs, EUCLEAN): worth asking whether it is. */
const LOSS_ERRORS = new Set([EIO, ENXIO, ENODEV, -30, -103, -107, -108, -110, -117]);
/** Errors of a place on the medium, not of the device as a whole: worth asking sector by sector. EIO, ENODATA, EILSEQ, EREMOTEIO (the block layer's MEDIUM, PROTECTION and TARGET). */
const MEDIUM_ERRORS = new Set([EIO, -61, -84, -121]);

/** One who waits. Filled in by whoever asks; `settle` is called once. */
export interface Caller {
  /** First block and number of blocks. */
  readonly first: number;
  readonly count: number;
  /** Sectors needed of the first block, the last (of the one block: both), and those between. A block of which nothing is needed gets memory without being read. */
  readonly needFirst: number;
  readonly needMiddle: number;
  readonly needLast: number;
  /** The blocks are about to be stored into: waits for every operation on them. */
  readonly store: boolean;
  /** Behind the last byte that was asked for; undefined for who asks for no bytes of the file, but for the memory to store some into. */
  readonly end?: number;
  /** Blocking: may take the reserved slot. */
  readonly blocking: boolean;
  /** It is never abandoned. One that asks for a single absent block then waits on its operation itself, without a slot, unless something out of the ordinary happens to that. */
  readonly direct?: boolean;
  /** Handle of the request's first slot; 0 while it waits in line or holds none. The manager's. */
  handle: number;
  /** Waits in line. The manager's. */
  waiting: boolean;
  /** Without an error every block is in memory and pinned for the caller. With one, nothing is pinned. */
  settle(error: Error | undefined): void;
}

/** One who sent a write or a control operation. */
export interface OperationOwner {
  /** The operation over these sectors ended with `result` 0 or -errno; for controls, what the call returned. `error` where there is more to say than an errno does. */
  operationEnded(start: number, sectors: number, result: number, error?: Error): void;
  /** The operation goes on as two: one more end will come. */
  operationSplit(): void;
}

/** Truncate, sync, allocate, discard, evict; and the buffered write of any bytes, which alone names memory. */
export interface ControlArguments {
  opcode: number;
  position: number;
  length: number;
  slab?: number;
  offset?: number;
}

/** What the manager needs to know of the file. Bytes. */
export interface RequestSource {
  readonly path: string;
  /** Where the device has bytes up to: reads beyond are zeros and are not sent. */
  readonly committedSize: number;
  /** A transfer stopped short of `committedSize`: asks the file again; answers with what is so now. */
  sizeNow(): number;
  /** Not enough memory for whoever is first in line. True if something is under way that will free some. */
  pressure(): boolean;
  /** The error for a caller that can never be served, in numbers. */
  cacheFull(caller: Caller): Error;
  /**
   * An operation ended with `result` (0: it moved nothing inside the file), as it would if the device were gone. True if that is looked into: `settled` is called once, from the event loop, when
   * it is known; until then nobody is told. If the device is gone, `fail` is called before.
   */
  suspect(result: number, settled: () => void): boolean;
  /** The same for a blocking call, which cannot wait for the event loop: looks at what can be seen at once. */
  look(): void;
}

export interface RequestLimits {
  slots?: number;
  slotBlocks?: number;
  /** Bytes in one operation at most: what the device takes. */
  transferLimit: number;
  /** Bytes that neighbours are merged up to, within the transfer limit. */
  mergeLimit: number;
  /** Bytes between two neighbours that are read over rather than sending a second operation. */
  gapLimit: number;
  /** Bytes that a transfer begins and ends on: an operation is never cut finer. */
  alignment: number;
  /** Reads and writes are begun in a worker: a buffered one would submit its I/O, one of a file system in user space wait for its server, on the event loop's time. */
  asyncTransfers: boolean;
  /** Reads of so many bytes or more only bring pages into the page cache (`OP_FILL`), and shorter ones all read into the first bytes of their slab: nobody looks at the memory. Unset: reads are for their memory. */
  fillFrom?: number;
  /** Bytes of one operation that `requestSpare` makes, within the transfer limit; the `mergeLimit` where it is not set. */
  spareLimit?: number;
}

export interface RequestCounts {
  joined: number;
  deviceReads: number;
  deviceReadBytes: number;
  deviceWrites: number;
  deviceWriteBytes: number;
}

/** Place on the device of a file's sector, for the order of submissions alone; NaN where it is not known. */
export type PlaceOf = (sector: number) => number;

export class RequestManager implements CompletionConsumer {
  readonly operations = new OperationTable();
  readonly slots: SlotPool;
  readonly counts: RequestCounts = { joined: 0, deviceReads: 0, deviceReadBytes: 0, deviceWrites: 0, deviceWriteBytes: 0 };
  /** Orders what is sent in one turn, where set. */
  placeOf: PlaceOf | undefined;
  /** Called within a turn after everybody in line was served: may ask for more by `requestSpare`. */
  whenSpare: (() => void) | undefined;
  readonly #ring: Ring;
  readonly #store: BlockStore;
  readonly #source: RequestSource;
  readonly #file: number;
  readonly #limits: RequestLimits;
  /** Reads back what was written, where that is asked for. */
  readonly #verification: Verification | undefined;
  readonly #unitSectors: number;
  /** Operation codes with the flags of this file. */
  readonly #read: number;
  readonly #write: number;

  /** Callers in line. */
  #line: (Caller | undefined)[] = [];
  #lineHead = 0;
  #callers: (Caller | undefined)[];
  #errors: (Error | undefined)[];
  /** Handle of the operation that a slot was last linked to, 0 for none: links are unique for each pair. */
  #lastLink: Int32Array;

  #plannedSectors: Uint32Array;
  #plannedOrigin: Uint32Array;
  #plannedSlot: Int32Array;
  /** The direct caller that a block was planned for, where there is no slot: then `#plannedSlot` is -1. */
  #plannedCaller: (Caller | undefined)[];
  #planned = 0;
  #plannedRegion = -1;
  #scratch: SortScratch;

  #queueHead = -1;
  #queueTail = -1;
  #owners: (OperationOwner | undefined)[] = [];
  /** By operation: the caller that waits on it without a slot. One slot is promised to each. */
  #direct: (Caller | undefined)[] = [];
  #controls: (ControlArguments | undefined)[] = [];
  /** Callers to be told, and with what; arrays that stay, so that telling allocates nothing. */
  #settledCallers: (Caller | undefined)[] = [];
  #settledErrors: (Error | undefined)[] = [];
  #settledCount = 0;
  #watchers: { from: number; to: number; requests: boolean; clear: () => void }[] = [];
  #handovers: (() => void)[] = [];
  #idlers: (() => void)[] = [];
  #places = new Float64Array(ORDERED_MAX);
  /** Sectors [from, to) that no new operation may touch: a hole is being punched there. */
  #excludedFrom = 0;
  #excludedTo = 0;
  #scheduled = false;
  /** Turns since the event loop had its own. */
  #turns = 0;
  readonly #turn = (): void => this.#runTurn();
  #pumping = false;
  /** A blocking call is moving things on. */
  #patient = false;
  /** Operations that ended so far. */
  #finished = 0;
  #closed = false;
  /** Set once the ground is gone: makes what each caller gets instead of its blocks. */
  #lost: ((caller: Caller) => Error) | undefined;
  /** Operations that ended as they would on a lost device, until it is known whether it is: they are not on the ring any more. */
  #suspects: { operation: number; result: number }[] = [];
  /** Operations that are looked into after an error: sent one at a time, each in a batch of its own. */
  #solitary: number[] = [];
  /** The one of them that is on its way, -1 for none. */
  #alone = -1;

  constructor(ring: Ring, store: BlockStore, source: RequestSource, file: number, limits: RequestLimits, verification?: Verification) {
    this.#ring = ring;
    this.#store = store;
    this.#source = source;
    this.#file = file;
    this.#limits = limits;
    this.#verification = verification;
    if (verification !== undefined) verification.onReady = (operation) => this.#enqueue(operation);
    this.#unitSectors = limits.alignment / SECTOR_BYTES;
    const flags = limits.asyncTransfers ? FLAG_ASYNC : 0;
    this.#read = OP_READ | flags;
    this.#write = OP_WRITE | flags;
    this.slots = new SlotPool(limits.slots === undefined ? undefined : limits.slots + RESERVED_SLOTS, limits.slotBlocks);
    const all = this.slots.slots;
    this.#callers = new Array(all).fill(undefined);
    this.#errors = new Array(all).fill(undefined);
    this.#lastLink = new Int32Array(all);
    const planned = all * this.slots.blocksPerSlot;
    this.#plannedSectors = new Uint32Array(planned);
    this.#plannedOrigin = new Uint32Array(planned);
    this.#plannedSlot = new Int32Array(planned);
    this.#plannedCaller = new Array(planned).fill(undefined);
    this.#scratch = new SortScratch(planned);
    ring.engine.listen(() => this.#wake(), this.#turn);
  }

  /** Callers that wait in line. */
  get waiting(): number {
    return this.#line.length - this.#lineHead;
  }

  /** Blocks that one caller can ask for at most. */
  get blocksMax(): number {
    return (this.slots.slots - RESERVED_SLOTS) * this.slots.blocksPerSlot;
  }

  /** Nothing on its way, nobody waiting. */
  get idle(): boolean {
    return this.operations.count === 0 && this.waiting === 0 && this.#settledCount === 0;
  }

  /** Puts the caller in line. It is settled later, never within this call. */
  request(caller: Caller): void {
    caller.waiting = true;
    this.#line.push(caller);
    this.schedule();
  }

  /** For blocking calls: past the line. False if slots or memory are lacking now. */
  requestNow(caller: Caller): boolean {
    if (this.#lost !== undefined) {
      this.#tell(caller, this.#lost(caller));
      return true;
    }
    if (!this.#grant(caller)) return false;
    this.#plan();
    this.#submit();
    return true;
  }

  /**
   * For read-ahead, within `whenSpare`: asks only if no more than half of the slots is in use. Answers with the blocks that are read for it, or -1 where slots or memory
   * are short: then it is not settled. What it asks for is in operations of its own, so that nobody waits for more than they need.
   */
  requestSpare(caller: Caller): number {
    if (2 * this.slots.freeCount < this.slots.slots) return -1;
    if (!this.#grant(caller)) return -1;
    const blocks = this.#planned;
    this.#plan(this.#limits.spareLimit);
    return blocks;
  }

  /** For blocking calls that wait for nothing: sends what is due, as the next turn would. */
  sendNow(): void {
    if (!this.#closed) this.#pump();
  }

  /**
   * The caller does not want its blocks any more; it is not settled. Its slots are free at once; memory under an operation stays the operation's until that has
   * ended.
   */
  abandon(caller: Caller): void {
    if (caller.waiting) {
      caller.waiting = false;
      const place = this.#line.indexOf(caller, this.#lineHead);
      this.#line[place] = undefined;
      this.schedule();
      return;
    }
    const head = caller.handle === 0 ? -1 : this.slots.resolve(caller.handle);
    if (head < 0) {
      // Decided, but not told yet: another caller, told before it in the same turn, gave it up.
      const place = this.#settledCallers.indexOf(caller);
      if (place < 0) return;
      this.#settledCallers[place] = undefined;
      if (this.#settledErrors[place] === undefined) this.#unpinAll(caller);
      return;
    }
    this.#giveSlots(head);
    caller.handle = 0;
    this.#unpinAll(caller);
    this.schedule();
  }

  /** Sends a write of whole sectors from slab memory. The blocks are in the store, and no operation is on the sectors. `flags`: `WRITE_STAGED`, `WRITE_DURABLE`. */
  write(start: number, sectors: number, slab: number, offset: number, owner: OperationOwner, flags = 0): void {
    const operation = this.operations.create(KIND_WRITE, start, sectors, slab, offset);
    this.operations.flags[operation] = flags;
    if ((flags & WRITE_STAGED) === 0) this.#store.began(start, sectors, true);
    this.#owners[operation] = owner;
    this.#enqueue(operation);
    this.schedule();
  }

  /** Sends a control operation: one that is not over sectors. */
  control(command: ControlArguments, owner: OperationOwner): void {
    const operation = this.operations.create(KIND_CONTROL, 0, 0, 0, 0);
    this.#owners[operation] = owner;
    this.#controls[operation] = command;
    this.#enqueue(operation);
    this.schedule();
  }

  /** Calls `clear` once no operation and no request touches [from, to) (sectors), perhaps within this call; from then on none is begun there until `readmit`. */
  exclude(from: number, to: number, clear: () => void): void {
    this.#excludedFrom = from;
    this.#excludedTo = to;
    if (this.#inUse(from, to)) this.#watchers.push({ from, to, requests: true, clear });
    else clear();
  }

  /** Calls `clear` later, once no operation touches [from, to) (sectors). Past the line: whoever stands in it may be waiting for what this leads to. */
  afterOperations(from: number, to: number, clear: () => void): void {
    this.#watchers.push({ from, to, requests: false, clear });
    this.schedule();
  }

  /** An operation is on [from, to), or somebody waits with pins on blocks there. */
  #inUse(from: number, to: number): boolean {
    const touches = (caller: Caller | undefined): boolean =>
      caller !== undefined && caller.first * BLOCK_SECTORS < to && (caller.first + caller.count) * BLOCK_SECTORS > from;
    return this.operations.touches(from, to - from) || this.#callers.some(touches) || this.#settledCallers.some(touches);
  }

  readmit(): void {
    this.#excludedFrom = 0;
    this.#excludedTo = 0;
    this.schedule();
  }

  /** Runs `handover` from the event loop, outside any call of the library. */
  handover(run: () => void): void {
    if (this.#closed) {
      queueMicrotask(run);
      return;
    }
    this.#handovers.push(run);
    this.schedule();
  }

  /** Something changed that may let whoever is first in line go on. */
  schedule(): void {
    if (this.#scheduled || this.#closed) return;
    this.#scheduled = true;
    queueMicrotask(this.#turn);
  }

  /** For blocking calls: moves everything one step, waiting for the device if nothing else is to do. No callback of anybody runs. */
  progress(): void {
    // What it leaves to be sent or handed over, a turn does once the thread is free.
    this.schedule();
    const finished = this.#finished;
    if (this.#suspects.length > 0) {
      this.#source.look();
      this.#judge(this.#suspects.length);
    }
    // Who has frames may give them back once JavaScript runs again: nobody is refused for want of memory, unless it is that or waiting for ever.
    this.#patient = true;
    this.#pump();
    this.#patient = false;
    this.#ring.engine.collect();
    const seen = this.#ring.drain(this, Number.MAX_SAFE_INTEGER);
    // What ended without having been sent, or by a judgement, may have been all that the call waited for.
    const moved = seen > 0 || this.#settledCount > 0 || this.#finished !== finished;
    this.#settle();
    if (moved || this.#suspects.length > 0) return;
    if (this.#ring.inFlight === 0) {
      this.#pump();
      if (this.#settledCount === 0 && this.#ring.inFlight === 0) throw assertionError('a blocking call waits for nothing');
      this.#settle();
      return;
    }
    this.#ring.engine.wait();
    this.#ring.drain(this, Number.MAX_SAFE_INTEGER);
    this.#settle();
  }

  /**
   * The ground is gone: everybody who waits is told, whoever asks from now on too, and what was not sent ends with ENODEV. Memory under an operation that was sent stays the
   * operation's until its completion came, which says nothing to anybody any more. Once.
   */
  fail(make: (caller: Caller) => Error): void {
    this.#plan();
    this.#lost = make;
    this.#refuseCallers(() => true, make);
    this.#judge(this.#suspects.length);
    this.#verification?.giveUp();
    this.schedule();
  }

  /** The file ends at byte `end` now: whoever waits for bytes behind it is told. */
  failBehind(end: number, make: (caller: Caller) => Error): void {
    this.#plan();
    this.#refuseCallers((caller) => caller.end !== undefined && caller.end > end, make);
    this.schedule();
  }

  #refuseCallers(concerns: (caller: Caller) => boolean, make: (caller: Caller) => Error): void {
    for (let i = 0; i < this.#settledCount; i++) {
      const caller = this.#settledCallers[i];
      if (caller === undefined || this.#settledErrors[i] !== undefined || !concerns(caller)) continue;
      this.#unpinAll(caller);
      this.#settledErrors[i] = make(caller);
    }
    for (let place = this.#lineHead; place < this.#line.length; place++) {
      const caller = this.#line[place];
      if (caller === undefined || !concerns(caller)) continue;
      caller.waiting = false;
      this.#line[place] = undefined;
      this.#tell(caller, make(caller));
    }
    for (let operation = 0; operation < this.#direct.length; operation++) {
      const caller = this.#direct[operation];
      if (caller === undefined || !concerns(caller)) continue;
      this.#direct[operation] = undefined;
      this.slots.forgo();
      this.#unpinAll(caller);
      this.#tell(caller, make(caller));
    }
    for (let head = 0; head < this.#callers.length; head++) {
      const caller = this.#callers[head];
      if (caller === undefined || !concerns(caller)) continue;
      this.#giveSlots(head);
      caller.handle = 0;
      this.#unpinAll(caller);
      this.#tell(caller, make(caller));
    }
  }

  /** Rejects everybody who waits in line; who has slots is served to the end. */
  refuseLine(make: (caller: Caller) => Error): void {
    while (this.waiting > 0) {
      const caller = this.#line[this.#lineHead];
      this.#shift();
      if (caller === undefined) continue;
      caller.waiting = false;
      this.#tell(caller, make(caller));
    }
    this.schedule();
  }

  /** Calls `resume` once nothing is on its way and nobody waits; at once if that is so. */
  whenIdle(resume: () => void): void {
    if (this.idle) resume();
    else this.#idlers.push(resume);
  }

  close(): void {
    this.#closed = true;
    this.#ring.hold(false);
    // What the close settled is still handed over. A turn that was to do it may never come: the ring does not call back once it is closed.
    queueMicrotask(() => this.#runHandovers());
  }

  // Grant

  #needOf(caller: Caller, i: number): number {
    if (i === 0) return caller.count === 1 ? caller.needFirst & caller.needLast : caller.needFirst;
    return i === caller.count - 1 ? caller.needLast : caller.needMiddle;
  }

  /** Gives the caller everything it needs, or nothing and false. */
  #grant(caller: Caller): boolean {
    // A store takes frames now; blocks that others planned to read must have theirs before.
    if (caller.store) this.#plan();
    const { first, count } = caller;
    const store = this.#store;
    const perSlot = this.slots.blocksPerSlot;
    store.begin(first, count);
    if (caller.direct === true && count === 1) {
      const need = caller.needFirst & caller.needLast;
      if (need !== 0 && store.state(first, need, false) === ABSENT) {
        if (this.#excludedTo !== 0 && this.#isExcluded(first, 1)) return false;
        if (this.slots.freeCount <= RESERVED_SLOTS || this.#planned >= store.room()) return false;
        this.slots.promise();
        const sector = first * BLOCK_SECTORS;
        const region = regionOf(sector);
        this.#planBlock(region, sector - region * REGION_SECTORS, -1, caller);
        return true;
      }
    }
    let waits = 0;
    let slotsNeeded = 0;
    let inSlot = 0;
    let region = -1;
    let absent = 0;
    let held = 0;
    for (let i = 0; i < count; i++) {
      const block = first + i;
      const need = this.#needOf(caller, i);
      const state = store.state(block, need, caller.store);
      if (state !== ABSENT && store.idle(block)) held++;
      if (state === PRESENT) continue;
      if (state === ABSENT) {
        absent++;
        if (need === 0) continue;
      }
      waits++;
      const itsRegion = regionOf(block * BLOCK_SECTORS);
      if (slotsNeeded === 0 || inSlot === perSlot || itsRegion !== region) {
        slotsNeeded++;
        inSlot = 0;
        region = itsRegion;
      }
      inSlot++;
    }
    if (this.#isExcluded(first, count)) return false;
    if (slotsNeeded > this.slots.freeCount - (caller.blocking ? 0 : RESERVED_SLOTS)) return false;
    // Pinning what is idle takes room too: from those whose blocks are planned and have no memory yet.
    if (absent + held > 0 && absent + this.#planned > store.room() - held) return false;
    this.#enter(caller, waits, absent === count);
    return true;
  }

  #isExcluded(first: number, count: number): boolean {
    return first * BLOCK_SECTORS < this.#excludedTo && (first + count) * BLOCK_SECTORS > this.#excludedFrom;
  }

  /** `unknown`: no block has memory, which need not be asked again for each. */
  #enter(caller: Caller, waits: number, unknown: boolean): void {
    const { first, count } = caller;
    const store = this.#store;
    const slots = this.slots;
    let head = -1;
    let slot = -1;
    // Pinned first, so that nothing taken below is one of the caller's own.
    for (let i = 0; i < count && !unknown; i++) {
      const block = first + i;
      if (store.state(block, this.#needOf(caller, i), caller.store) !== ABSENT) store.pin(block);
    }
    for (let i = 0; i < count; i++) {
      const block = first + i;
      const need = this.#needOf(caller, i);
      const state = unknown ? ABSENT : store.state(block, need, caller.store);
      if (state === PRESENT) continue;
      if (state === ABSENT && need === 0) {
        let run = 1;
        while (i + run < count && this.#needOf(caller, i + run) === 0 && store.state(block + run, 0, caller.store) === ABSENT) run++;
        const got = store.take(block, run);
        if (got === 0) throw assertionError('room was counted that is not there');
        for (let taken = 0; taken < got; taken++) store.pin(block + taken);
        i += got - 1;
        continue;
      }
      const sector = block * BLOCK_SECTORS;
      const region = regionOf(sector);
      if (slot < 0 || slots.count[slot] === slots.blocksPerSlot || slots.region[slot] !== region) {
        const next = slots.take();
        if (next < 0) throw assertionError('slots were counted that are not there');
        slots.region[next] = region;
        this.#lastLink[next] = 0;
        if (head < 0) head = next;
        else {
          slots.next[slot] = next;
          slots.head[next] = head;
          slots.pending[head]++;
        }
        slot = next;
      }
      const entry = slot * slots.blocksPerSlot + slots.count[slot]++;
      slots.remaining[slot]++;
      slots.sectors[entry] = sector - region * REGION_SECTORS;
      if (state === ABSENT) {
        slots.need[entry] = need;
        this.#planBlock(region, slots.sectors[entry], slot, undefined);
      } else {
        slots.need[entry] = this.#join(block, need, caller.store, slot);
      }
    }
    if (waits === 0) {
      this.#tell(caller, undefined);
      return;
    }
    caller.handle = slots.handle(head);
    this.#callers[head] = caller;
    this.#errors[head] = undefined;
  }

  /** The slot waits for what is on its way over the block; what is missing beyond that is sent for. Answers with the sectors that it waits for. */
  #join(block: number, need: number, forStore: boolean, slot: number): number {
    const operations = this.operations;
    const start = block * BLOCK_SECTORS;
    const missing = need & ~this.#store.locate(block);
    const { slab, offset } = this.#store;
    let flying = 0;
    let awaited = 0;
    for (let sector = start; sector < start + BLOCK_SECTORS; ) {
      const operation = operations.at(sector);
      if (operation < 0) {
        sector++;
        continue;
      }
      const mask = maskIn(start, operations.start[operation], operations.sectors[operation]);
      flying |= mask;
      const wanted = forStore && (operations.flags[operation] & WRITE_STAGED) === 0 ? mask : mask & missing;
      if (wanted !== 0) {
        awaited |= wanted;
        this.#link(operation, slot);
        this.counts.joined++;
      }
      sector = operations.start[operation] + operations.sectors[operation];
    }
    let rest = this.#wholeUnits(missing) & ~flying;
    while (rest !== 0) {
      const from = 31 - Math.clz32(rest & -rest);
      let to = from;
      while (rest & (1 << to)) to++;
      const run = ((1 << to) - 1) & ~((1 << from) - 1);
      rest &= ~run;
      awaited |= run;
      const operation = operations.create(KIND_READ, start + from, to - from, slab, offset + from * SECTOR_BYTES);
      this.#store.began(start + from, to - from, false);
      this.#link(operation, slot);
      this.#enqueue(operation);
    }
    return awaited;
  }

  /** The sectors of a block that a transfer over `mask` has to take along. */
  #wholeUnits(mask: number): number {
    const unit = this.#unitSectors;
    if (unit === 1) return mask;
    let whole = 0;
    for (let sector = 0; sector < BLOCK_SECTORS; sector += unit) {
      const units = ((1 << unit) - 1) << sector;
      if (mask & units) whole |= units;
    }
    return whole;
  }

  #link(operation: number, slot: number): void {
    const handle = this.operations.handle(operation);
    if (this.#lastLink[slot] === handle) return;
    this.#lastLink[slot] = handle;
    this.operations.link(operation, this.slots.handle(slot));
  }

  // Plan

  #planBlock(region: number, sector: number, slot: number, direct: Caller | undefined): void {
    if (this.#planned > 0 && this.#plannedRegion !== region) this.#plan();
    this.#plannedRegion = region;
    this.#plannedSectors[this.#planned] = sector;
    this.#plannedSlot[this.#planned] = slot;
    this.#plannedCaller[this.#planned] = direct;
    this.#plannedOrigin[this.#planned] = this.#planned;
    this.#planned++;
  }

  /** Makes operations of what was planned: sorted, neighbours merged, small gaps read over. */
  #plan(mergeLimit = this.#limits.mergeLimit): void {
    const count = this.#planned;
    if (count === 0) return;
    this.#planned = 0;
    const sectors = this.#plannedSectors;
    if (count > 1) sortSectors(sectors, this.#plannedOrigin, 0, count, this.#scratch);
    const store = this.#store;
    const base = this.#plannedRegion * REGION_SECTORS;
    const blocksMax = Math.max(1, Math.floor(Math.min(mergeLimit, this.#limits.transferLimit) / BLOCK_BYTES));
    const gapMax = Math.floor(this.#limits.gapLimit / BLOCK_BYTES);
    // Memory that is left over for gaps once every planned block has its own.
    let spare = store.room() - count;
    const batch = this.placeOf === undefined ? undefined : ([] as number[]);
    for (let from = 0; from < count; ) {
      const start = sectors[from];
      let end = start + BLOCK_SECTORS;
      let to = from + 1;
      for (; to < count; to++) {
        const next = sectors[to];
        if (next < end) continue;
        const gap = (next - end) / BLOCK_SECTORS;
        if (gap > 0 && (gap > gapMax || gap > spare || !this.#isGap(base + end, gap))) break;
        if ((next - start) / BLOCK_SECTORS + 1 > blocksMax) break;
        spare -= gap;
        end = next + BLOCK_SECTORS;
      }
      const firstBlock = (base + start) / BLOCK_SECTORS;
      const got = store.take(firstBlock, (end - start) / BLOCK_SECTORS);
      if (got === 0) throw assertionError('room was counted that is not there');
      const { slab, offset } = store;
      const reach = start + got * BLOCK_SECTORS;
      while (sectors[to - 1] >= reach) to--;
      end = Math.min(reach, sectors[to - 1] + BLOCK_SECTORS);
      const operation = this.operations.create(KIND_READ, base + start, end - start, slab, offset);
      store.began(base + start, end - start, false);
      for (let i = from; i < to; i++) {
        store.pin((base + sectors[i]) / BLOCK_SECTORS);
        const origin = this.#plannedOrigin[i];
        const slot = this.#plannedSlot[origin];
        if (slot >= 0) {
          this.#link(operation, slot);
          continue;
        }
        const caller = this.#plannedCaller[origin] as Caller;
        this.#plannedCaller[origin] = undefined;
        if (to - from === 1) this.#direct[operation] = caller;
        else this.#seat(caller, operation);
      }
      if (batch === undefined) this.#enqueue(operation);
      else batch.push(operation);
      from = to;
    }
    if (batch !== undefined) this.#enqueueByPlace(batch);
  }

  /** A direct caller that waits on the operation gets the slot that was promised to it: it shares the operation with others, or the operation is about to be cut. */
  #seat(caller: Caller, operation: number): void {
    const { slots } = this;
    slots.forgo();
    const slot = slots.take();
    if (slot < 0) throw assertionError('a slot was promised that is not there');
    const sector = caller.first * BLOCK_SECTORS;
    const region = regionOf(sector);
    const entry = slot * slots.blocksPerSlot;
    slots.region[slot] = region;
    slots.count[slot] = 1;
    slots.remaining[slot] = 1;
    slots.sectors[entry] = sector - region * REGION_SECTORS;
    slots.need[entry] = caller.needFirst & caller.needLast;
    this.#lastLink[slot] = 0;
    caller.handle = slots.handle(slot);
    this.#callers[slot] = caller;
    this.#errors[slot] = undefined;
    this.#link(operation, slot);
  }

  /** Are the blocks of a gap absent, with nothing on its way over them? */
  #isGap(start: number, blocks: number): boolean {
    for (let i = 0; i < blocks; i++) if (this.#store.state(start / BLOCK_SECTORS + i, ALL_SECTORS, true) !== ABSENT) return false;
    return !this.operations.touches(start, blocks * BLOCK_SECTORS) && !this.#isExcluded(start / BLOCK_SECTORS, blocks);
  }

  /** Insertion by place: a turn's operations are few, and already in the order of the file. An unknown place (NaN) stays behind the one before it. */
  #enqueueByPlace(batch: number[]): void {
    const placeOf = this.placeOf as PlaceOf;
    const places = this.#places;
    // A turn of more is a request over a shredded file: the file's order will do.
    const ordered = batch.length <= places.length;
    for (let i = 0; ordered && i < batch.length; i++) {
      const operation = batch[i];
      const place = placeOf(this.operations.start[operation]);
      let hole = i;
      for (; hole > 0 && places[hole - 1] > place; hole--) {
        batch[hole] = batch[hole - 1];
        places[hole] = places[hole - 1];
      }
      batch[hole] = operation;
      places[hole] = place;
    }
    for (const operation of batch) this.#enqueue(operation);
  }

  // Submit

  #enqueue(operation: number): void {
    this.operations.next[operation] = -1;
    if (this.#queueHead < 0) this.#queueHead = operation;
    else this.operations.next[this.#queueTail] = operation;
    this.#queueTail = operation;
  }

  #submit(): void {
    const { operations } = this;
    const ring = this.#ring;
    let before = -1;
    while (this.#queueHead >= 0 && ring.space > 0) {
      const operation = this.#queueHead;
      this.#queueHead = operations.next[operation];
      operations.next[operation] = -1;
      if (!this.#send(operation) || operations.kind[operation] === KIND_CONTROL) continue;
      if (before >= 0 && this.#neighbours(before, operation)) {
        operations.neighboured[before] = 1;
        operations.neighboured[operation] = 1;
      }
      before = operation;
    }
    ring.flush();
    while (this.#alone < 0 && this.#solitary.length > 0 && ring.space > 0) {
      const operation = this.#solitary.shift() as number;
      if (this.#send(operation)) this.#alone = operation;
      ring.flush();
    }
    ring.hold(ring.inFlight > 0);
  }

  #neighbours(one: number, other: number): boolean {
    const { start, sectors, kind } = this.operations;
    return kind[one] === kind[other] && (start[one] + sectors[one] === start[other] || start[other] + sectors[other] === start[one]);
  }

  /** Writes the operation's entry. False if there was nothing to send, and it is over. */
  #send(operation: number): boolean {
    const { operations } = this;
    const ring = this.#ring;
    if (this.#lost !== undefined) {
      this.#finish(operation, ENODEV);
      return false;
    }
    const kind = operations.kind[operation];
    const handle = operations.handle(operation);
    if (kind === KIND_CONTROL) {
      const control = this.#controls[operation];
      if (control === undefined) throw assertionError('a control operation without its arguments');
      const { opcode, position, length, slab, offset } = control;
      ring.push(opcode, this.#file, slab ?? 0, offset ?? Math.floor(length / 2 ** 32), length, position, handle);
      return true;
    }
    const verification = this.#verification;
    if (verification?.reads(operation)) {
      ring.push(
        this.#read,
        this.#file,
        verification.slab,
        verification.offset(operation),
        verification.length(operation),
        verification.position(operation),
        handle,
      );
      return true;
    }
    const done = operations.done[operation];
    const position = operations.start[operation] * SECTOR_BYTES + done;
    let length = operations.sectors[operation] * SECTOR_BYTES - done;
    const offset = operations.offset[operation] + done;
    if (kind === KIND_WRITE) {
      const code = operations.flags[operation] & WRITE_DURABLE ? this.#write | FLAG_DURABLE : this.#write;
      ring.push(code, this.#file, operations.slab[operation], offset, length, position, handle);
      return true;
    }
    const { alignment, fillFrom } = this.#limits;
    const readable = Math.ceil(this.#source.committedSize / alignment) * alignment;
    if (position >= readable) {
      this.#zeroRest(operation, done);
      this.#finish(operation, 0);
      return false;
    }
    length = Math.min(length, readable - position);
    if (fillFrom === undefined) ring.push(this.#read, this.#file, operations.slab[operation], offset, length, position, handle);
    else if (length >= fillFrom) ring.push(OP_FILL, this.#file, 0, 0, length, position, handle);
    else ring.push(this.#read, this.#file, operations.slab[operation], 0, length, position, handle);
    return true;
  }

  // Completion

  complete(handle: number, result: number): void {
    const { operations } = this;
    const operation = operations.resolve(handle);
    if (operation < 0) return;
    this.#ring.inFlight--;
    if (operation === this.#alone) this.#alone = -1;
    if (this.#lost !== undefined) {
      // Late: whatever it says, it says it of something that is gone.
      this.#finish(operation, ENODEV);
      return;
    }
    const kind = operations.kind[operation];
    if (kind === KIND_CONTROL) {
      if (result === EINTR || result === EAGAIN) {
        if (this.#again(operation)) return;
      }
      if (!this.#suspect(operation, result)) this.#finish(operation, result);
      return;
    }
    if (result < 0) {
      if ((result === EAGAIN || result === EINTR || result === ENOMEM || result === EBUSY) && this.#again(operation)) return;
      if (!this.#suspect(operation, result)) this.#fail(operation, result);
      return;
    }
    if (this.#verification?.reads(operation)) {
      this.#readBack(operation, result);
      return;
    }
    if (kind === KIND_READ) {
      this.counts.deviceReads++;
      this.counts.deviceReadBytes += result;
    } else {
      this.counts.deviceWrites++;
      this.counts.deviceWriteBytes += result;
    }
    const total = operations.sectors[operation] * SECTOR_BYTES;
    const reached = operations.done[operation] + result;
    if (reached >= total) {
      if (kind === KIND_WRITE && this.#verification !== undefined) this.#beginReadBack(operation);
      else this.#finish(operation, 0);
      return;
    }
    if (kind === KIND_READ && operations.start[operation] * SECTOR_BYTES + reached >= this.#source.committedSize) {
      this.#zeroRest(operation, reached);
      this.#finish(operation, 0);
      return;
    }
    this.#resume(operation, reached);
  }

  /** A transfer stopped short: goes on from the last aligned byte that it reached. */
  #resume(operation: number, reached: number): void {
    const { operations } = this;
    const { alignment } = this.#limits;
    const aligned = reached - (reached % alignment);
    if (aligned > operations.done[operation]) {
      operations.done[operation] = aligned;
      operations.attempts[operation] = 0;
      operations.renew(operation);
      this.#enqueue(operation);
      return;
    }
    if (operations.kind[operation] === KIND_READ && operations.start[operation] * SECTOR_BYTES + reached >= this.#source.sizeNow()) {
      this.#zeroRest(operation, reached);
      this.#finish(operation, 0);
      return;
    }
    this.#nothingMoved(operation);
  }

  /** It is not the end of the file either. A removed device answers buffered reads like that, without an error. */
  #nothingMoved(operation: number): void {
    const attempts = this.operations.attempts[operation];
    if ((attempts === 0 || attempts >= RETRIES_MAX) && this.#suspect(operation, 0)) return;
    this.#stuck(operation);
  }

  /** A write went out in full: it counts once the same bytes came back. The same operation, under a new handle, reads them. */
  #beginReadBack(operation: number): void {
    const { operations } = this;
    operations.attempts[operation] = 0;
    operations.neighboured[operation] = 0;
    operations.renew(operation);
    this.#verification?.begin(operation, operations.start[operation], operations.sectors[operation], operations.slab[operation], operations.offset[operation]);
  }

  /** `count` bytes of what the operation wrote came back. */
  #readBack(operation: number, count: number): void {
    const verification = this.#verification as Verification;
    this.counts.deviceReads++;
    this.counts.deviceReadBytes += count;
    const end = verification.position(operation) + count;
    const moved = verification.compare(operation, count) > 0;
    if (verification.isDone(operation)) this.#finish(operation, 0);
    else if (moved) this.#readOn(operation);
    // Somebody else cut the file: it was written, and what is gone since is their doing.
    else if (end >= this.#source.sizeNow()) this.#finish(operation, 0);
    else this.#nothingMoved(operation);
  }

  #readOn(operation: number): void {
    this.operations.attempts[operation] = 0;
    this.operations.renew(operation);
    this.#enqueue(operation);
  }

  /** What the operation wrote cannot be read back: down to single units, so that only those are said to be bad. */
  #unreadable(operation: number, result: number): void {
    const verification = this.#verification as Verification;
    verification.failed(operation, result, MEDIUM_ERRORS.has(result));
    if (verification.isDone(operation)) {
      this.#finish(operation, 0);
      return;
    }
    this.operations.attempts[operation] = 0;
    this.operations.renew(operation);
    this.#solitary.push(operation);
  }

  /** The device has an answer that we cannot use. Smaller pieces would get the same one, and there may be thousands. */
  #stuck(operation: number): void {
    if (!this.#again(operation)) this.#finish(operation, EIO);
  }

  /** True if the operation waits for what is found out about its device. */
  #suspect(operation: number, result: number): boolean {
    if (result !== 0 && !LOSS_ERRORS.has(result)) return false;
    if (result === 0 && this.operations.kind[operation] === KIND_CONTROL) return false;
    const suspect = { operation, result };
    const known = (): void => {
      const place = this.#suspects.indexOf(suspect);
      if (place < 0) return;
      // Of this one alone: the device may have gone after the answer for it was given.
      this.#suspects.splice(place, 1);
      this.#suspects.unshift(suspect);
      this.#judge(1);
    };
    if (!this.#source.suspect(result, known)) return false;
    // It may have been found out within that call.
    if (this.#lost !== undefined) {
      this.#finish(operation, ENODEV);
      return true;
    }
    // Its completion came: another one with the same handle says nothing.
    this.operations.renew(operation);
    this.#suspects.push(suspect);
    return true;
  }

  /** It is known now whether the device was gone when the first `count` suspects failed. */
  #judge(count: number): void {
    const suspects = this.#suspects.splice(0, count);
    for (const { operation, result } of suspects) {
      if (this.#lost !== undefined) this.#finish(operation, ENODEV);
      else if (result === 0) this.#stuck(operation);
      else if (this.operations.kind[operation] === KIND_CONTROL) this.#finish(operation, result);
      else this.#fail(operation, result);
    }
    if (suspects.length > 0) this.schedule();
  }

  #again(operation: number): boolean {
    if (this.operations.attempts[operation] >= RETRIES_MAX) return false;
    this.operations.attempts[operation]++;
    this.operations.renew(operation);
    this.#enqueue(operation);
    return true;
  }

  #zeroRest(operation: number, from: number): void {
    const { operations } = this;
    const offset = operations.offset[operation];
    this.#store.zero(operations.slab[operation], offset + from, offset + operations.sectors[operation] * SECTOR_BYTES);
  }

  /**
   * The kernel makes one request of neighbours that come in one batch, and if that fails, fails them all: one that had a neighbour is asked again by itself before it is believed, and what is cut in two
   * is sent one after the other.
   */
  #fail(operation: number, result: number): void {
    const { operations } = this;
    const direct = this.#direct[operation];
    if (direct !== undefined) {
      this.#direct[operation] = undefined;
      this.#seat(direct, operation);
    }
    if (MEDIUM_ERRORS.has(result) && operations.neighboured[operation] === 1) {
      operations.neighboured[operation] = 0;
      operations.renew(operation);
      this.#solitary.push(operation);
    } else if (this.#verification?.reads(operation)) this.#unreadable(operation, result);
    else if (MEDIUM_ERRORS.has(result) && operations.sectors[operation] > this.#unitSectors) this.#split(operation);
    else this.#finish(operation, result);
  }

  /** Sends a failed operation again as two: cut where one request ends and another begins, if there is such a place, else in the middle. */
  #split(operation: number): void {
    const { operations } = this;
    const kind = operations.kind[operation];
    const start = operations.start[operation];
    const sectors = operations.sectors[operation];
    const slab = operations.slab[operation];
    const offset = operations.offset[operation];
    const owner = this.#owners[operation];
    const flags = operations.flags[operation];
    const waiters: number[] = [];
    for (let link = operations.waiters[operation]; link >= 0; link = operations.linkNext(link)) waiters.push(operations.linkSlot(link));
    const cut = this.#cutOf(start, sectors, waiters);
    this.#owners[operation] = undefined;
    operations.destroy(operation);
    const halves = [
      [start, cut - start, offset],
      [cut, start + sectors - cut, offset + (cut - start) * SECTOR_BYTES],
    ];
    const made = halves.map(([at, length, place]) => operations.create(kind, at, length, slab, place));
    // The frames' share of the whole becomes two shares, and a block cut in two is under both.
    for (const half of made) operations.flags[half] = flags;
    if ((flags & WRITE_STAGED) === 0) {
      for (const half of made) this.#store.began(operations.start[half], operations.sectors[half], kind === KIND_WRITE);
      this.#store.ended(start, sectors, kind === KIND_WRITE, false);
    }
    for (const half of made) {
      for (const handle of waiters) {
        const slot = this.slots.resolve(handle);
        if (slot >= 0 && this.#waitsIn(slot, operations.start[half], operations.sectors[half])) operations.link(half, handle);
      }
      if (owner !== undefined) this.#owners[half] = owner;
      this.#solitary.push(half);
    }
    owner?.operationSplit();
  }

  #cutOf(start: number, sectors: number, waiters: number[]): number {
    const end = start + sectors;
    const middle = start + sectors / 2;
    let cut = -1;
    const consider = (sector: number): void => {
      if (sector > start && sector < end && (cut < 0 || Math.abs(sector - middle) < Math.abs(cut - middle))) cut = sector;
    };
    for (const handle of waiters) {
      const slot = this.slots.resolve(handle);
      if (slot < 0) continue;
      const base = this.slots.region[slot] * REGION_SECTORS;
      const first = slot * this.slots.blocksPerSlot;
      consider(base + this.slots.sectors[first]);
      consider(base + this.slots.sectors[first + this.slots.count[slot] - 1] + BLOCK_SECTORS);
    }
    if (cut > 0) return cut;
    const unit = sectors > BLOCK_SECTORS ? BLOCK_SECTORS : this.#unitSectors;
    return start + Math.max(unit, Math.floor(sectors / 2 / unit) * unit);
  }

  /** Does the slot still wait for a sector of [start, start+sectors)? */
  #waitsIn(slot: number, start: number, sectors: number): boolean {
    const slots = this.slots;
    const low = start - slots.region[slot] * REGION_SECTORS;
    const base = slot * slots.blocksPerSlot;
    const past = base + slots.count[slot];
    for (let entry = lowerBound(slots.sectors, base, slots.count[slot], low - (low % BLOCK_SECTORS)); entry < past; entry++) {
      if (slots.sectors[entry] >= low + sectors) return false;
      if (slots.need[entry] & maskIn(slots.sectors[entry], low, sectors)) return true;
    }
    return false;
  }

  /** The operation is over: its memory is free of the device, and everybody who waited on it is told. */
  #finish(operation: number, result: number): void {
    this.#finished++;
    const { operations } = this;
    const kind = operations.kind[operation];
    const owner = this.#owners[operation];
    const start = operations.start[operation];
    const sectors = operations.sectors[operation];
    if (kind !== KIND_CONTROL) {
      if ((operations.flags[operation] & WRITE_STAGED) === 0) this.#store.ended(start, sectors, kind === KIND_WRITE, result >= 0);
      if (operations.waiters[operation] >= 0) this.#tellWaiters(operation, start, sectors, kind === KIND_READ ? result : 0);
      const direct = this.#direct[operation];
      if (direct !== undefined) {
        this.#direct[operation] = undefined;
        this.slots.forgo();
        if (result >= 0) this.#tell(direct, undefined);
        else {
          this.#unpinAll(direct);
          this.#tell(direct, this.#readError(result, start, sectors));
        }
      }
    }
    const parts = this.#verification?.end(operation, result);
    operations.destroy(operation);
    if (owner !== undefined) {
      this.#owners[operation] = undefined;
      this.#controls[operation] = undefined;
      if (parts === undefined) owner.operationEnded(start, sectors, result);
      else this.#tellParts(owner, parts);
    }
  }

  /** Some of what was written is not on the device: only that is not. */
  #tellParts(owner: OperationOwner, parts: readonly VerifiedPart[]): void {
    for (let i = 1; i < parts.length; i++) owner.operationSplit();
    for (const { start, sectors, result, error } of parts) owner.operationEnded(start, sectors, result, error);
  }

  #tellWaiters(operation: number, start: number, sectors: number, result: number): void {
    const { operations, slots } = this;
    const region = regionOf(start);
    const low = start - region * REGION_SECTORS;
    const whole = low % BLOCK_SECTORS === 0 && sectors % BLOCK_SECTORS === 0;
    for (let link = operations.waiters[operation]; link >= 0; link = operations.linkNext(link)) {
      const slot = slots.resolve(operations.linkSlot(link));
      if (slot < 0 || slots.region[slot] !== region) continue;
      const base = slot * slots.blocksPerSlot;
      const count = slots.count[slot];
      const from = lowerBound(slots.sectors, base, count, low - (low % BLOCK_SECTORS));
      const head = slots.head[slot];
      const caller = this.#callers[head];
      let ended = 0;
      let concerned = false;
      if (whole && result >= 0) {
        // No other operation can be on these blocks: all that the slot wants of them is here.
        ended = lowerBound(slots.sectors, from, base + count - from, low + sectors) - from;
      } else {
        for (let entry = from; entry < base + count && slots.sectors[entry] < low + sectors; entry++) {
          const mask = maskIn(slots.sectors[entry], low, sectors);
          if ((slots.need[entry] & mask) === 0) continue;
          // A store waits for what is on its way over its blocks too, but the errors of that are not its own.
          if (result < 0 && caller !== undefined) {
            const block = (region * REGION_SECTORS + slots.sectors[entry]) / BLOCK_SECTORS;
            concerned ||= (this.#needOf(caller, block - caller.first) & mask) !== 0;
          }
          slots.need[entry] &= ~mask;
          if (slots.need[entry] === 0) ended++;
        }
      }
      if (result < 0 && concerned && this.#errors[head] === undefined) {
        this.#errors[head] = this.#readError(result, start, sectors);
      }
      slots.remaining[slot] -= ended;
      if (slots.remaining[slot] < 0) throw assertionError('a sector completed twice');
      if (ended > 0 && slots.remaining[slot] === 0) this.#slotDone(slot, head);
    }
  }

  #readError(result: number, start: number, sectors: number): Error {
    return systemError(result, 'read', { path: this.#source.path, offset: start * SECTOR_BYTES, length: sectors * SECTOR_BYTES });
  }

  #slotDone(slot: number, head: number): void {
    const { slots } = this;
    slots.move(slot, this.#errors[head] === undefined ? SLOT_READY : SLOT_FAILED);
    if (--slots.pending[head] !== 0) return;
    const caller = this.#callers[head];
    const error = this.#errors[head];
    if (caller === undefined) throw assertionError('a request without a caller');
    this.#giveSlots(head);
    caller.handle = 0;
    if (error !== undefined) this.#unpinAll(caller);
    this.#tell(caller, error);
  }

  #tell(caller: Caller, error: Error | undefined): void {
    this.#settledCallers[this.#settledCount] = caller;
    this.#settledErrors[this.#settledCount++] = error;
  }

  #giveSlots(head: number): void {
    this.#callers[head] = undefined;
    this.#errors[head] = undefined;
    for (let slot = head; slot >= 0; ) {
      const next = this.slots.next[slot];
      this.slots.give(slot);
      slot = next;
    }
  }

  /** Is an operation on the caller's blocks that no store may meet? One of a write from a copy is none. */
  #mustWait({ first, count }: Caller): boolean {
    if (!this.operations.touches(first * BLOCK_SECTORS, count * BLOCK_SECTORS)) return false;
    this.#store.begin(first, count);
    for (let i = 0; i < count; i++) if (this.#store.state(first + i, 0, true) === HELD) return true;
    return false;
  }

  /**
   * An operation began on a storing caller's blocks after it was granted: a read into memory that it had taken without reading, or a write. A store may not meet
   * either, so it waits once more, its memory kept.
   */
  #waitOn(caller: Caller): void {
    const granted = this.#grant(caller);
    this.#unpinAll(caller);
    if (!granted) {
      caller.waiting = true;
      this.#line.splice(this.#lineHead, 0, caller);
    }
    this.schedule();
  }

  #unpinAll(caller: Caller): void {
    for (let i = 0; i < caller.count; i++) this.#store.unpin(caller.first + i);
  }

  // The loop

  /** Serves the line, makes operations of what it asked for, sends them. */
  #pump(): void {
    if (this.#pumping) return;
    this.#pumping = true;
    try {
      this.#serveLine();
      this.#plan();
      if (this.whenSpare !== undefined && this.waiting === 0) this.whenSpare();
      this.#submit();
    } finally {
      this.#pumping = false;
    }
  }

  #serveLine(): void {
    while (this.#lineHead < this.#line.length) {
      const caller = this.#line[this.#lineHead];
      if (caller !== undefined && this.#lost !== undefined) {
        caller.waiting = false;
        this.#tell(caller, this.#lost(caller));
      } else if (caller !== undefined) {
        if (!this.#grant(caller)) {
          this.#plan();
          if (this.operations.count > 0 || this.#settledCount > 0 || this.#source.pressure() || this.#patient) return;
          caller.waiting = false;
          this.#shift();
          this.#tell(caller, this.#source.cacheFull(caller));
          continue;
        }
        caller.waiting = false;
      }
      this.#shift();
    }
  }

  #shift(): void {
    this.#line[this.#lineHead++] = undefined;
    if (this.#lineHead === this.#line.length) {
      this.#line.length = 0;
      this.#lineHead = 0;
    } else if (this.#lineHead > 1024 && this.#lineHead * 2 > this.#line.length) {
      this.#line.splice(0, this.#lineHead);
      this.#lineHead = 0;
    }
  }

  #settle(): void {
    for (let i = 0; i < this.#settledCount; i++) {
      const caller = this.#settledCallers[i];
      const error = this.#settledErrors[i];
      this.#settledCallers[i] = undefined;
      this.#settledErrors[i] = undefined;
      if (caller === undefined) continue;
      if (error === undefined && caller.store && this.#mustWait(caller)) this.#waitOn(caller);
      else caller.settle(error);
    }
    this.#settledCount = 0;
    for (let i = 0; i < this.#watchers.length; ) {
      const { from, to, requests, clear } = this.#watchers[i];
      if (requests ? this.#inUse(from, to) : this.operations.touches(from, to - from)) {
        i++;
        continue;
      }
      this.#watchers.splice(i, 1);
      clear();
    }
    if (this.#idlers.length > 0 && this.idle) {
      const idlers = this.#idlers;
      this.#idlers = [];
      for (const resume of idlers) resume();
    }
  }

  /**
   * One turn: hands over, sends what was asked for since the last, reads a few completions. While there are more, the next turn is queued behind the reactions of what
   * was settled, so that the device has the first of what they ask for while the rest of a burst is still being told.
   */
  #runTurn(): void {
    this.#scheduled = false;
    // What is handed over may close the file.
    this.#runHandovers();
    if (this.#closed) return;
    this.#pump();
    this.#ring.engine.collect();
    const seen = this.#ring.drain(this, this.#burst());
    // Who stands in line behind one that was refused is looked at again.
    const refused = this.#settledCount > 0 && this.waiting > 0;
    this.#settle();
    if (seen > 0 || refused || this.#handovers.length > 0) {
      this.#nextTurn();
      return;
    }
    this.#ring.hold(this.#ring.inFlight > 0);
    if (this.#ring.inFlight > 0 && !this.#ring.arm()) this.#nextTurn();
    else this.#turns = 0;
  }

  #nextTurn(): void {
    if (this.#scheduled) return;
    this.#scheduled = true;
    if (++this.#turns < TURNS_MAX) {
      queueMicrotask(this.#turn);
      return;
    }
    // Completions come as fast as they are read: the event loop gets its turn before the next.
    this.#turns = 0;
    setImmediate(this.#turn);
  }

  /** The event loop was woken. Microtasks run between this and `#runTurn`, and what they ask for goes out in one submission. */
  #wake(): void {
    if (this.#closed) return;
    this.#scheduled = true;
    this.#ring.engine.collect();
    this.#ring.drain(this, this.#burst());
    this.#settle();
  }

  #burst(): number {
    return Math.min(BURST_MOST, Math.max(BURST_LEAST, this.#ring.inFlight >>> 3));
  }

  #runHandovers(): void {
    if (this.#handovers.length === 0) return;
    const handovers = this.#handovers;
    this.#handovers = [];
    for (const handover of handovers) handover();
  }
}

/** The sectors of [start, start+sectors) that lie in the block at sector `block`, as a mask. */
function maskIn(block: number, start: number, sectors: number): number {
  const from = Math.max(0, start - block);
  const to = Math.min(BLOCK_SECTORS, start + sectors - block);
  return to <= from ? 0 : ((1 << to) - 1) & ~((1 << from) - 1);
}
