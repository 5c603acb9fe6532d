/**
 * The device behind a simulated disk: decides what becomes of each operation, and does it to the medium.
 *
 *   accept ──────────> perform ──────────> finish          one operation, in virtual time
 *   faults drawn,      bytes move           result is final,
 *   memory noted       (once, or never)     memory checked and given back
 *
 * Guarantees: what happens depends on the seed, the order of submissions and what was planted, on nothing else; an operation in flight
 * when the disk goes away fails, whatever was decided for it before; at most one of its data faults happens and is counted when it does.
 * Leaves to others: the ring and who is woken (`simulated-engine.ts`), the public switches (`simulated-disk.ts`).
 */
import { constants } from 'node:os';
import { OP_ALLOCATE, OP_DISCARD, OP_EVICT, OP_READ, OP_SYNC, OP_TRUNCATE, OP_WRITE } from '../io/engine.js';
import { type DrawnFaults, type FaultKind, FaultPlan, type FaultRates, faultKinds } from './faults.js';
import { Medium, type PowerCutReport } from './medium.js';
import { Random } from './random.js';
import { Timeline } from './timeline.js';
import { Violation, type ViolationKind } from './violation.js';

const { EAGAIN, EINTR, EINVAL, EIO, ENODEV, ENOMEM, ENOSPC, EOPNOTSUPP } = constants.errno;

/** How much longer an operation takes that drew `slow`. */
const slowFactor = 50;
/** Streams of the seed that belong to no operation; those of operations are their sequence numbers, from 1. */
const powerCutStream = -1;
export const batchStream = -1_000_000;

/** Who wants to know what happens to the whole disk. */
export interface DiskWatcher {
  /** Every file opened so far is dead: the disk was unplugged or lost its power, or its file system was shut down. */
  lost(how: 'unplug' | 'shutdown'): void;
  /** Somebody set another size. */
  resized(): void;
  /** A `misdirectedWrite` landed on these bytes, where nobody sent it: what was there is gone, and reading back what was written elsewhere cannot show it. */
  strayed?(position: number, length: number): void;
}

/** What a disk that is gone says to operations. */
export type UnplugAnswer = 'ENODEV' | 'EIO' | 'end-of-file';

/** The settings of a device, complete and checked. */
export interface DeviceSettings {
  size: number;
  sectorSize: 512 | 4096;
  kind: 'file' | 'block-device';
  seed: number;
  latency: { min: number; max: number };
  reorder: boolean;
  faults: Partial<FaultRates>;
  shortUnit: 'sector' | 'byte';
  afterSyncError: 'keep' | 'forget' | 'drop';
  capacity: number;
  checkMemory: boolean;
  checkOrdering: boolean;
  onViolation: 'throw' | 'collect';
  log: number;
}

/** What a disk has done since it was made. Operations are counted when submitted, bytes and faults when they happen. */
export interface DiskCounts {
  /** OP_READ. */
  reads: number;
  /** OP_WRITE. */
  writes: number;
  /** OP_SYNC. */
  syncs: number;
  /** OP_TRUNCATE. */
  truncates: number;
  /** OP_ALLOCATE. */
  allocates: number;
  /** OP_DISCARD. */
  discards: number;
  /** OP_EVICT. */
  evicts: number;
  /** Bytes brought into memory. */
  bytesRead: number;
  /** Bytes that writes reported as taken. */
  bytesWritten: number;
  /** Operations that met a sector of `failSectors`. */
  badSector: number;
  /** Writes and allocations cut short or refused for want of space. */
  noSpace: number;
  /** Operations that failed because the disk was gone. */
  unplugged: number;
  /** Each fault, by its name. */
  faults: Record<FaultKind, number>;
}

/** Something that happened, for a failure report. */
export interface DiskEvent {
  /** Virtual microseconds. */
  time: number;
  /** What kind of event. */
  what: 'submit' | 'complete' | 'extra-completion' | 'fault' | 'unplug' | 'replug' | 'shutdown' | 'power-cut' | 'violation';
  /** Number of the operation since the disk was made, from 1; 0 where none is concerned. */
  sequence: number;
  /** The operation, e.g. `read`, or what the event is about. */
  detail: string;
  /** First byte on the disk. */
  position: number;
  /** Bytes. */
  length: number;
  /** The entry's handle. */
  handle: number;
  /** Bytes or -errno; 0 before the completion. */
  result: number;
}

/** One operation from its submission to its completion. */
export interface Operation {
  readonly sequence: number;
  readonly code: number;
  readonly handle: number;
  readonly position: number;
  readonly length: number;
  /** The part of the slab that it reads into or writes from; empty for the others. */
  readonly memory: Uint8Array;
  /** A write that is durable when it completes. */
  readonly durable: boolean;
  readonly random: Random;
  readonly drawn: DrawnFaults;
  /** Its effect has happened, or never will: the result is known. */
  settled: boolean;
  /** The disk was gone for it: it has no place among the others any more. */
  gone: boolean;
  result: number;
  /** With `checkMemory`: what `memory` must hold. */
  image: Uint8Array | undefined;
}

/** What an engine found in an entry. */
export interface Request {
  code: number;
  handle: number;
  position: number;
  length: number;
  memory: Uint8Array;
  slabOffset: number;
  /** The generation in which the entry's file was added. */
  generation: number;
  /** A write that is durable when it completes. */
  durable: boolean;
  /** What is wrong with the entry itself, if anything. */
  invalid: string | undefined;
}

const operationNames: Record<number, string> = {
  [OP_READ]: 'read',
  [OP_WRITE]: 'write',
  [OP_SYNC]: 'sync',
  [OP_TRUNCATE]: 'truncate',
  [OP_ALLOCATE]: 'allocate',
  [OP_DISCARD]: 'discard',
  [OP_EVICT]: 'evict',
};

/** The faults that keep an operation from the medium altogether. */
const errnoOfFault: Partial<Record<FaultKind, number>> = { again: EAGAIN, noMemory: ENOMEM, interrupted: EINTR, readError: EIO, writeError: EIO };

/** The faults of an operation that never came as far as having any. */
const nothingDrawn: DrawnFaults = { data: undefined, slow: false, duplicate: false, stray: false };

/** One device. */
export class Device {
  readonly settings: DeviceSettings;
  readonly medium: Medium;
  readonly faults: FaultPlan;
  readonly timeline = new Timeline();
  readonly violations: Violation[] = [];
  readonly inFlight = new Set<Operation>();
  readonly counts: DiskCounts = {
    reads: 0,
    writes: 0,
    syncs: 0,
    truncates: 0,
    allocates: 0,
    discards: 0,
    evicts: 0,
    bytesRead: 0,
    bytesWritten: 0,
    badSector: 0,
    noSpace: 0,
    unplugged: 0,
    faults: Object.fromEntries(faultKinds.map((kind) => [kind, 0])) as Record<FaultKind, number>,
  };
  capacity: number;
  generation = 1;
  present = true;
  #answer: UnplugAnswer = 'ENODEV';
  /** Told of what happens to the whole disk, within the call that does it. */
  readonly watchers = new Set<DiskWatcher>();
  #unplugCountdown = Infinity;
  #countdownAnswer: UnplugAnswer = 'ENODEV';
  #sequence = 0;
  #powerCuts = 0;
  #lastEffect = 0;
  #lastCompletion = 0;
  #unthrown: Violation | undefined;
  #events: DiskEvent[] = [];

  constructor(settings: DeviceSettings) {
    this.settings = settings;
    this.capacity = settings.capacity;
    this.medium = new Medium(settings.size, settings.sectorSize);
    this.faults = new FaultPlan(settings.faults, settings.sectorSize, settings.shortUnit === 'byte' ? 1 : settings.sectorSize);
  }

  get events(): readonly DiskEvent[] {
    return this.#events;
  }

  /** Takes a request, draws its faults, and answers with the operation and when its effect and completion are due. */
  accept(request: Request): { operation: Operation; effectAt: number; completesAt: number } {
    this.#sequence++;
    const random = new Random(this.settings.seed, this.#sequence);
    const { code, handle, position, length, memory, durable } = request;
    const refusal = this.#refusal(request);
    const drawn = refusal === undefined ? this.faults.draw({ code, position, length, random }) : nothingDrawn;
    const operation: Operation = {
      code,
      handle,
      position,
      length,
      memory,
      durable,
      sequence: this.#sequence,
      random,
      drawn,
      settled: false,
      gone: !this.present || request.generation !== this.generation,
      result: 0,
      image: undefined,
    };
    this.#countSubmission(operation.code);
    this.#note('submit', operation, nameOf(operation));

    const result = refusal ?? this.#drawnFailure(operation);
    if (result !== undefined) settle(operation, result);
    this.#checkOverlaps(operation);
    this.#noteMemory(operation);
    this.inFlight.add(operation);
    return { operation, ...this.#schedule(operation) };
  }

  /** The moment at which the operation's bytes move. */
  perform(operation: Operation): void {
    if (operation.settled) return;
    this.#checkImage(operation);
    settle(operation, this.#effect(operation));
    if (operation.code === OP_READ && operation.result > 0) operation.image?.set(operation.memory.subarray(0, operation.result));
  }

  /** The operation completes: its memory is the caller's again. */
  finish(operation: Operation): void {
    this.#checkImage(operation);
    this.inFlight.delete(operation);
    if (operation.result > 0 && operation.code === OP_READ) this.counts.bytesRead += operation.result;
    if (operation.result > 0 && operation.code === OP_WRITE) this.counts.bytesWritten += operation.result;
    if (operation.drawn.slow) this.countFault('slow', operation);
    this.#note('complete', operation, nameOf(operation));
    this.#unplugCountdown--;
    if (this.#unplugCountdown === 0) this.unplug(this.#countdownAnswer);
  }

  /** The disk is gone: what is in flight fails, and so does everything until files of a later generation are used. */
  unplug(answer: UnplugAnswer): void {
    this.#unplugCountdown = Infinity;
    if (!this.present) return;
    this.present = false;
    this.#answer = answer;
    this.#failInFlight();
    this.#noteDisk('unplug', answer);
    for (const watcher of this.watchers) watcher.lost('unplug');
  }

  /** The file system is gone and the disk is not: what is in flight fails with EIO, and so do files of this generation for ever. */
  shutdown(): void {
    if (!this.present) return;
    this.#answer = 'EIO';
    this.#failInFlight();
    this.generation++;
    this.#noteDisk('shutdown', `generation ${this.generation}`);
    for (const watcher of this.watchers) watcher.lost('shutdown');
  }

  /** Goes away when this many more operations have completed. */
  unplugAfter(operations: number, answer: UnplugAnswer): void {
    this.#unplugCountdown = operations;
    this.#countdownAnswer = answer;
    if (operations === 0) this.unplug(answer);
  }

  replug(): void {
    if (this.present) return;
    this.present = true;
    this.generation++;
    this.#noteDisk('replug', `generation ${this.generation}`);
  }

  /** Power goes and comes back: writes under way land in part, unsynced sectors survive or not, open files are dead. */
  powerCut(drop: 'all' | 'none' | 'some'): PowerCutReport {
    this.#powerCuts++;
    const random = new Random(this.settings.seed, powerCutStream - this.#powerCuts);
    for (const operation of this.inFlight) {
      if (operation.settled || operation.code !== OP_WRITE || random.chance(0.5)) continue;
      this.#landSome(operation, Math.max(0, this.#room(operation.position, operation.length)), 0, random);
    }
    this.#answer = 'ENODEV';
    this.#failInFlight();
    const report = this.medium.powerCut(drop, random);
    this.present = true;
    this.generation++;
    this.#noteDisk('power-cut', `kept ${report.kept}, dropped ${report.dropped} sectors`);
    for (const watcher of this.watchers) watcher.lost('unplug');
    return report;
  }

  /** Reports a broken rule; thrown by `throwViolation`, once the engine has put its house in order. */
  violate(kind: ViolationKind, operation: Pick<Operation, 'handle' | 'position' | 'length'>, what: string): void {
    const violation = new Violation(kind, operation.handle, operation.position, operation.length, what);
    this.violations.push(violation);
    // EINVAL in the completion says it already; whoever tries what a device refuses must be able to see the refusal.
    if (this.settings.onViolation === 'throw' && kind !== 'alignment' && kind !== 'bad-entry') this.#unthrown ??= violation;
    this.#record({
      time: this.timeline.now,
      what: 'violation',
      sequence: 0,
      detail: violation.message,
      position: operation.position,
      length: operation.length,
      handle: operation.handle,
      result: 0,
    });
  }

  throwViolation(): void {
    const violation = this.#unthrown;
    this.#unthrown = undefined;
    if (violation !== undefined) throw violation;
  }

  countFault(kind: FaultKind, operation: Operation): void {
    this.counts.faults[kind]++;
    this.#note('fault', operation, kind);
  }

  /** A completion beyond the one that each entry has. */
  noteExtraCompletion(kind: 'duplicateCompletion' | 'strayCompletion', handle: number, result: number): void {
    this.counts.faults[kind]++;
    this.#record({ time: this.timeline.now, what: 'extra-completion', sequence: 0, detail: kind, position: 0, length: 0, handle, result });
  }

  /** A delay within the latency that was set. */
  latency(random: Random): number {
    return random.between(this.settings.latency.min, this.settings.latency.max);
  }

  /** What no disk would do, or one that is gone, as the operation's result; undefined where there is nothing to refuse. No fault is drawn for it then. */
  #refusal(request: Request): number | undefined {
    const { code, position, length, slabOffset } = request;
    if (request.invalid !== undefined) {
      this.violate('bad-entry', request, `${request.invalid}. Entries must name what was added to this engine`);
      return -EINVAL;
    }
    if (!this.present || request.generation !== this.generation) {
      this.counts.unplugged++;
      if (this.#answer === 'end-of-file') return code === OP_READ ? 0 : -EIO;
      return this.#answer === 'EIO' ? -EIO : -ENODEV;
    }
    const { sectorSize } = this.settings;
    if ((code === OP_READ || code === OP_WRITE) && [position, length, slabOffset].some((value) => value % sectorSize !== 0)) {
      const place = `position ${position}, length ${length}, slab offset ${slabOffset}`;
      this.violate('alignment', request, `${nameOf(request)} at ${place}. All must be multiples of ${sectorSize}`);
      return -EINVAL;
    }
    return undefined;
  }

  /** What a fault that was drawn keeps from the medium altogether, as the result. */
  #drawnFailure(operation: Operation): number | undefined {
    const kind = operation.drawn.data;
    if (kind === 'badSector') {
      this.counts.badSector++;
      this.#note('fault', operation, kind);
      return -EIO;
    }
    const errno = kind === undefined ? undefined : errnoOfFault[kind];
    if (kind === undefined || errno === undefined) return undefined;
    this.countFault(kind, operation);
    return -errno;
  }

  #schedule(operation: Operation): { effectAt: number; completesAt: number } {
    const { random } = operation;
    const { now } = this.timeline;
    let completesAt = now + this.latency(random) * (operation.drawn.slow ? slowFactor : 1);
    let effectAt = operation.code === OP_READ && random.chance(0.5) ? completesAt : random.between(now, completesAt);
    if (!this.settings.reorder) {
      // One at a time, in order: neither effects nor completions may overtake.
      completesAt = Math.max(completesAt, this.#lastCompletion);
      effectAt = Math.min(Math.max(effectAt, this.#lastEffect), completesAt);
    }
    this.#lastCompletion = completesAt;
    this.#lastEffect = effectAt;
    return { effectAt, completesAt };
  }

  #effect(operation: Operation): number {
    const { code, position, length, drawn } = operation;
    switch (code) {
      case OP_READ:
        return this.#read(operation);
      case OP_WRITE:
        return this.#madeDurable(operation, this.#write(operation));
      case OP_SYNC:
        if (drawn.data !== 'syncError') {
          this.medium.sync();
          return 0;
        }
        this.countFault('syncError', operation);
        if (this.settings.afterSyncError === 'drop') this.medium.drop();
        if (this.settings.afterSyncError === 'forget') this.medium.forget();
        return -EIO;
      case OP_TRUNCATE:
        if (this.settings.kind === 'block-device') return -EINVAL;
        this.medium.resize(position);
        return 0;
      case OP_ALLOCATE:
        return this.#allocate(position, length);
      case OP_DISCARD:
        return this.#discard(operation);
      default:
        return 0;
    }
  }

  #read(operation: Operation): number {
    const { position, length, memory, drawn } = operation;
    let count = Math.max(0, Math.min(length, this.medium.size - position));
    const short = drawn.data === 'shortRead' ? this.#shorten(count, operation.random) : count;
    if (short !== count) this.countFault('shortRead', operation);
    count = short;
    this.medium.read(position, memory.subarray(0, count));
    return count;
  }

  #write(operation: Operation): number {
    const { position, memory, drawn, random } = operation;
    const length = this.#room(position, operation.length);
    if (length < operation.length) this.counts.noSpace++;
    if (length <= 0) return operation.length === 0 ? 0 : -ENOSPC;
    const bytes = memory.subarray(0, length);
    const kind = drawn.data;
    if (kind === 'shortWrite') {
      const short = this.#shorten(length, random);
      if (short !== length) this.countFault(kind, operation);
      this.#land(position, bytes.subarray(0, short));
      return short;
    }
    if ((kind === 'tornWrite' || kind === 'silentTornWrite') && length > this.settings.sectorSize) {
      this.countFault(kind, operation);
      this.#landSome(operation, length, 1, random);
      if (kind === 'tornWrite') return -EIO;
      this.medium.extend(position + length);
      return length;
    }
    if (kind === 'lostWrite' || kind === 'misdirectedWrite') {
      this.countFault(kind, operation);
      this.medium.extend(position + length);
      const elsewhere = kind === 'misdirectedWrite' ? this.#elsewhere(position, length, random) : undefined;
      if (elsewhere !== undefined) {
        this.#land(elsewhere, bytes);
        for (const watcher of this.watchers) watcher.strayed?.(elsewhere, length);
      }
      return length;
    }
    if (kind === 'corruptedWrite') {
      this.countFault(kind, operation);
      const corrupted = bytes.slice();
      corrupted[random.below(length)] ^= 1 << random.below(8);
      this.#land(position, corrupted);
      return length;
    }
    this.#land(position, bytes);
    return length;
  }

  /** What a durable write reports as taken would survive the loss of power. What others wrote would not. */
  #madeDurable({ durable, position }: Operation, taken: number): number {
    if (durable && taken > 0) this.medium.sync(position, position + taken);
    return taken;
  }

  #allocate(position: number, length: number): number {
    // blkdev_fallocate knows no mode 0; fallocate(2) refuses an empty range.
    if (this.settings.kind === 'block-device') return -EOPNOTSUPP;
    if (length === 0) return -EINVAL;
    if (position + length > this.capacity) {
      this.counts.noSpace++;
      return -ENOSPC;
    }
    this.medium.extend(position + length);
    return 0;
  }

  #discard({ position, length, random }: Operation): number {
    const { kind, sectorSize } = this.settings;
    if (length === 0) return -EINVAL;
    if (kind === 'file') {
      this.medium.zero(position, Math.max(0, Math.min(length, this.medium.size - position)));
      return 0;
    }
    if (position % sectorSize !== 0 || length % sectorSize !== 0 || position + length > this.medium.size) return -EINVAL;
    this.medium.discard(position, length, random);
    return 0;
  }

  /** How many bytes of a write there is room for: up to the end of a device, or to where a file's space ends. */
  #room(position: number, length: number): number {
    const { kind, sectorSize } = this.settings;
    if (kind === 'block-device') return Math.min(length, this.medium.size - position);
    if (position + length <= this.capacity) return length;
    return Math.floor((this.capacity - position) / sectorSize) * sectorSize;
  }

  #land(position: number, bytes: Uint8Array): void {
    this.medium.extend(position + bytes.length);
    this.medium.write(position, bytes);
  }

  /** Lands some of the write's sectors, `least` at least and never all: half of the time the first ones, else any. */
  #landSome(operation: Operation, length: number, least: number, random: Random): void {
    const { sectorSize } = this.settings;
    const sectors = Math.ceil(length / sectorSize);
    const lands = new Uint8Array(sectors);
    if (random.chance(0.5)) {
      lands.fill(1, 0, random.between(least, Math.max(least, sectors - 1)));
    } else {
      for (let sector = 0; sector < sectors; sector++) lands[sector] = random.below(2);
      if (!lands.includes(0)) lands[random.below(sectors)] = 0;
      if (!lands.includes(1) && least > 0) lands[random.below(sectors)] = 1;
    }
    for (let sector = 0; sector < sectors; sector++) {
      const start = sector * sectorSize;
      if (lands[sector] === 1) this.#land(operation.position + start, operation.memory.subarray(start, Math.min(start + sectorSize, length)));
    }
  }

  #shorten(count: number, random: Random): number {
    const unit = this.settings.shortUnit === 'byte' ? 1 : this.settings.sectorSize;
    return count <= unit ? count : unit * random.between(1, Math.ceil(count / unit) - 1);
  }

  /** Another aligned place for `length` bytes, within the size. */
  #elsewhere(position: number, length: number, random: Random): number | undefined {
    const { sectorSize } = this.settings;
    const places = Math.floor((this.medium.size - length) / sectorSize) + 1;
    if (places <= 1) return undefined;
    const place = random.below(places - 1);
    return (place < position / sectorSize ? place : place + 1) * sectorSize;
  }

  #failInFlight(): void {
    const errno = this.#answer === 'ENODEV' ? ENODEV : EIO;
    for (const operation of this.inFlight) {
      this.counts.unplugged++;
      operation.gone = true;
      settle(operation, -errno);
    }
  }

  /** With `checkMemory`: keeps what a write is to write, and leaves in a read's target what a device in the middle of its DMA would. */
  #noteMemory(operation: Operation): void {
    if (!this.settings.checkMemory || operation.memory.length === 0) return;
    if (operation.code === OP_READ && !operation.settled) new Random(this.settings.seed, -operation.sequence * 2 ** 20).fill(operation.memory);
    operation.image = operation.memory.slice();
  }

  #checkImage(operation: Operation): void {
    const { image, memory, code, position, length } = operation;
    if (image === undefined) return;
    if (Buffer.compare(image, memory) === 0) return;
    const changed = image.findIndex((byte, index) => byte !== memory[index]);
    operation.image = undefined;
    const place = { handle: operation.handle, position: position + changed, length: length - changed };
    if (code === OP_WRITE)
      this.violate('unstable-write', place, `bytes of write #${operation.sequence} changed before it completed. Write from a copy, or wait`);
    else this.violate('store-under-read', place, `somebody stored into the target of read #${operation.sequence} before it completed. Wait for the read`);
  }

  #checkOverlaps(operation: Operation): void {
    const { checkMemory, checkOrdering } = this.settings;
    for (const other of this.inFlight) {
      if (checkMemory && (operation.code === OP_READ || other.code === OP_READ) && shareMemory(operation.memory, other.memory)) {
        this.violate(
          'memory-reused',
          operation,
          `${nameOf(operation)} #${operation.sequence} uses slab memory of ${nameOf(other)} #${other.sequence}, handle ${other.handle}, which is in flight`,
        );
      }
      if (checkOrdering && !operation.gone && !other.gone && (changes(operation) || changes(other)) && shareBytes(operation, other)) {
        this.violate(
          'ordering',
          operation,
          `${nameOf(operation)} #${operation.sequence} overlaps ${nameOf(other)} #${other.sequence}, handle ${other.handle}, which is in flight`,
        );
      }
    }
  }

  #countSubmission(code: number): void {
    const { counts } = this;
    if (code === OP_READ) counts.reads++;
    else if (code === OP_WRITE) counts.writes++;
    else if (code === OP_SYNC) counts.syncs++;
    else if (code === OP_TRUNCATE) counts.truncates++;
    else if (code === OP_ALLOCATE) counts.allocates++;
    else if (code === OP_DISCARD) counts.discards++;
    else if (code === OP_EVICT) counts.evicts++;
  }

  #note(what: DiskEvent['what'], operation: Operation, detail: string): void {
    if (this.settings.log === 0) return;
    const { sequence, position, length, handle, result } = operation;
    this.#record({ time: this.timeline.now, what, sequence, detail, position, length, handle, result: what === 'complete' ? result : 0 });
  }

  #noteDisk(what: DiskEvent['what'], detail: string): void {
    this.#record({ time: this.timeline.now, what, sequence: 0, detail, position: 0, length: 0, handle: 0, result: 0 });
  }

  #record(event: DiskEvent): void {
    if (this.settings.log === 0) return;
    if (this.#events.length >= this.settings.log) this.#events.shift();
    this.#events.push(event);
  }
}

function settle(operation: Operation, result: number): void {
  operation.settled = true;
  operation.result = result;
}

function nameOf(operation: Pick<Operation, 'code'>): string {
  return operationNames[operation.code] ?? `operation ${operation.code}`;
}

function changes({ code }: Operation): boolean {
  return code === OP_WRITE || code === OP_TRUNCATE || code === OP_DISCARD;
}

function shareMemory(left: Uint8Array, right: Uint8Array): boolean {
  if (left.buffer !== right.buffer || left.length === 0 || right.length === 0) return false;
  return left.byteOffset < right.byteOffset + right.byteLength && right.byteOffset < left.byteOffset + left.byteLength;
}

function shareBytes(left: Operation, right: Operation): boolean {
  return touched(left, right.position, endOf(right)) && touched(right, left.position, endOf(left));
}

function touched(operation: Operation, start: number, end: number): boolean {
  return operation.position < end && endOf(operation) > start;
}

/** A truncation concerns all from the new size on; a sync and an eviction change no byte. */
function endOf({ code, position, length }: Operation): number {
  if (code === OP_TRUNCATE) return Infinity;
  return code === OP_SYNC || code === OP_EVICT ? position : position + length;
}
