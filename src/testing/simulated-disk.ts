/**
 * The simulated disk as a test sees it: the medium, its faults, and the switches for pulling the plug.
 *
 * Guarantees: no real time, no real device and no native code; one seed and the same calls give the same outcome, always.
 * Leaves to others: the work (`device.ts`), the ring (`simulated-engine.ts`).
 */
import { invalidValue, outOfRange } from '../errors.js';
import { Device, type DeviceSettings, type DiskCounts, type DiskEvent, type DiskWatcher, type UnplugAnswer } from './device.js';
import type { FailSectorsOptions, FaultKind, FaultRates, PlantOptions } from './faults.js';
import type { DiskSnapshot, PowerCutReport } from './medium.js';
import { SimulatedEngine, type SimulatedEngineOptions } from './simulated-engine.js';
import type { Violation } from './violation.js';

/** How long an operation takes, in virtual microseconds. */
export interface LatencyRange {
  /** At least; 0 or more. */
  min: number;
  /** At most. */
  max: number;
}

/** How a simulated disk is made. All but `size` may be left out. */
export interface SimulatedDiskOptions {
  /** In bytes. Of a block device a multiple of `sectorSize`, of a file any number. Only what is written takes memory: 1 TiB is fine. */
  size: number;
  /** Bytes of a sector: the unit of alignment, of tearing and of short counts. Default 512. */
  sectorSize?: 512 | 4096;
  /**
   * 'file' (default): writes past the end and truncation change the size; allocation and holes as in a Linux file system.
   * 'block-device': the size is fixed. Reads stop at the end, writes that cross it are short, writes at or past it fail with ENOSPC,
   * OP_TRUNCATE with EINVAL, OP_ALLOCATE with EOPNOTSUPP; each discarded sector may afterwards be as it was, zeros or garbage.
   */
  kind?: 'file' | 'block-device';
  /** All chance comes from it: any safe integer. Default 0. */
  seed?: number;
  /** Virtual microseconds that an operation takes, evenly spread. Default { min: 20, max: 200 }. Outliers: the fault `slow`. */
  latency?: LatencyRange;
  /** Operations may overtake each other, in effect and in completion. Default true. */
  reorder?: boolean;
  /** The probability of each fault. Default 0 for all. See {@link FaultKind}. */
  faults?: Partial<FaultRates>;
  /** Where a short read or write may end: after a whole 'sector' (default) as on a device, or after any 'byte', as in some file systems (files only). */
  shortUnit?: 'sector' | 'byte';
  /**
   * What happens to unsynced bytes when a sync fails.
   * 'keep' (default): they stay and the next sync may save them.
   * 'forget': they stay readable, but no later sync makes them durable, as pages that a kernel marked clean; writing them again does.
   * 'drop': they are gone at once; reads see what was durable.
   */
  afterSyncError?: 'keep' | 'forget' | 'drop';
  /** Files: bytes at and past this offset find no space (ENOSPC, or a short count up to it). Default none. */
  capacity?: number;
  /**
   * Watch the memory of entries in flight: writes whose bytes change, stores into the target of a read, and memory used twice are reported, and the
   * target of a read holds garbage until it completes, as under a DMA half done (for good where the read fails or is short). Default true.
   */
  checkMemory?: boolean;
  /** Also report entries in flight that overlap on the disk where one is a write, truncation or discard. Default false. */
  checkOrdering?: boolean;
  /**
   * 'throw' (default): a broken rule is thrown from the engine's call that notices (from the event loop if it drives itself), and kept in `violations`.
   * 'collect': only kept. Alignment and bad entries are never thrown: they complete with EINVAL.
   */
  onViolation?: 'throw' | 'collect';
  /** How many of the latest events `log` keeps. Default 0: none. */
  log?: number;
}

const defaults: Omit<DeviceSettings, 'size'> = {
  sectorSize: 512,
  kind: 'file',
  seed: 0,
  latency: { min: 20, max: 200 },
  reorder: true,
  faults: {},
  shortUnit: 'sector',
  afterSyncError: 'keep',
  capacity: Infinity,
  checkMemory: true,
  checkOrdering: false,
  onViolation: 'throw',
  log: 0,
};

/**
 * A disk in memory that does what disks do: it takes its time, changes the order, fails, lies, loses power and disappears, all by seed.
 *
 * Writes go to a volatile cache, which reads see; an OP_SYNC makes them durable. Everything else that it does is a fault that was asked for,
 * by rate ({@link SimulatedDisk.faults}) or by place ({@link SimulatedDisk.plant}, {@link SimulatedDisk.failSectors}).
 *
 * The outcome depends on the seed, on the order of submissions and on when completions are taken; not on real time. A storage engine that is itself
 * deterministic therefore fails the same way each time that a seed is run. It uses the disk through an {@link Engine}: the ring that the native
 * engines have, with the same rules, which the disk checks.
 *
 * @example
 * ```ts
 * import { createHeapSlab, ENTRY_WORDS, OP_SYNC, OP_WRITE, SimulatedDisk } from 'sectorwise/testing';
 *
 * const disk = new SimulatedDisk({ size: 1024 * 1024, seed: 7 });
 * const engine = disk.engine({ depth: 8, drive: 'manual' });
 * const file = engine.addFile(0);
 * const slab = createHeapSlab(4096);
 * const memory = engine.addSlab(slab);
 *
 * async function run(operation: number, length: number, position: number): Promise<void> {
 *   // operation, file, slab, place in the slab, length, position (low, high), handle
 *   engine.entries.set([operation, file, memory, 0, length, position, 0, 1].slice(0, ENTRY_WORDS));
 *   engine.submit(1);
 *   await engine.run();
 * }
 *
 * new Uint8Array(slab.shared).fill(1);
 * await run(OP_WRITE, 4096, 0);
 * await run(OP_SYNC, 0, 0);
 * new Uint8Array(slab.shared).fill(2);
 * await run(OP_WRITE, 4096, 0);
 *
 * console.log(disk.read(0, 1)); // Uint8Array [ 2 ]: visible,
 * disk.powerCut({ drop: 'all' });
 * console.log(disk.read(0, 1)); // Uint8Array [ 1 ]: but never synced
 * ```
 */
export class SimulatedDisk {
  readonly #device: Device;

  /**
   * @throws TypeError ERR_INVALID_ARG_VALUE for an unknown option or value; RangeError ERR_OUT_OF_RANGE for a number that cannot be.
   */
  constructor(options: SimulatedDiskOptions) {
    this.#device = new Device(checkOptions(options));
  }

  /** In bytes, as reads see it. */
  get size(): number {
    return this.#device.medium.size;
  }

  /** Bytes of a sector: the unit of alignment and of tearing. */
  get sectorSize(): 512 | 4096 {
    return this.#device.settings.sectorSize;
  }

  /** A file that grows, or a device of fixed size. */
  get kind(): 'file' | 'block-device' {
    return this.#device.settings.kind;
  }

  /** What all chance comes from; print it when a test fails. */
  get seed(): number {
    return this.#device.settings.seed;
  }

  /** The probability of each fault, 0 to 1. May be changed at any time, for operations submitted from then on. */
  get faults(): FaultRates {
    return this.#device.faults.rates;
  }

  /** Files: the offset at which space ends, in bytes. May be changed at any time. */
  get capacity(): number {
    return this.#device.capacity;
  }

  /** Operations that are in flight see it too. */
  set capacity(bytes: number) {
    this.#device.capacity = bytes;
  }

  /** Grows by one with each replug and power cut; a file added to an engine belongs to the generation of that time. */
  get generation(): number {
    return this.#device.generation;
  }

  /** False between `unplug` and `replug`. */
  get present(): boolean {
    return this.#device.present;
  }

  /** Virtual microseconds since the disk was made. */
  get now(): number {
    return this.#device.timeline.now;
  }

  /** Entries of all engines that have not completed. */
  get inFlight(): number {
    return this.#device.inFlight.size;
  }

  /** Sectors that a power cut could lose. */
  get unsyncedSectors(): number {
    return this.#device.medium.unsyncedSectors;
  }

  /** What was done and which faults happened. The object is live. */
  get counts(): Readonly<DiskCounts> {
    return this.#device.counts;
  }

  /** The latest events, oldest first; as many as the option `log` says. */
  get log(): readonly DiskEvent[] {
    return this.#device.events;
  }

  /** The rules that the program above broke, oldest first. */
  get violations(): readonly Violation[] {
    return this.#device.violations;
  }

  /** An engine over this disk. Several may be used at once, each with files and slabs of its own; they share the disk's clock. */
  engine(options: SimulatedEngineOptions = {}): SimulatedEngine {
    return new SimulatedEngine(this.#device, options);
  }

  /**
   * Plants a fault: the next operation that it can befall has it. Several of one kind are used up in the order in which they were planted.
   *
   * @throws TypeError ERR_INVALID_ARG_VALUE for an unknown kind.
   */
  plant(kind: FaultKind, options: PlantOptions = {}): void {
    this.#device.faults.plant(kind, options);
  }

  /**
   * Makes sectors bad: a read or write that touches any of them fails as a whole with EIO, and writes none of its bytes.
   *
   * @param first - 512-byte sector, whatever the disk's sector size.
   * @param count - how many of them.
   */
  failSectors(first: number, count: number, options: FailSectorsOptions = {}): void {
    this.#device.faults.failSectors(first, count, options);
  }

  /** From here on nothing fails: rates are 0, planted faults and bad sectors are gone. What was drawn for entries in flight stays. */
  heal(): void {
    this.#device.faults.heal();
  }

  /**
   * The disk is gone: every entry in flight and every later one fails. Bytes that had landed are kept, synced or not.
   *
   * @param answer - what operations get: 'ENODEV' (default), 'EIO', or 'end-of-file': EIO for those in flight, then reads of 0 bytes
   * without an error, as Linux gives after the removal of an NVMe disk, and EIO for the rest.
   */
  unplug(answer: UnplugAnswer = 'ENODEV'): void {
    this.#device.unplug(answer);
  }

  /** As `unplug`, when this many more operations have completed (0: now). */
  unplugAfter(operations: number, answer: UnplugAnswer = 'ENODEV'): void {
    this.#device.unplugAfter(operations, answer);
  }

  /** As `unplug`, at a moment of virtual time, in microseconds as `now` counts them. It comes only while something is in flight to move the clock. */
  unplugAt(time: number, answer: UnplugAnswer = 'ENODEV'): void {
    this.#device.timeline.at(time, () => this.#device.unplug(answer));
  }

  /**
   * The file system is shut down and the disk stays: what is in flight fails with EIO, and so does everything of the files added so far, for ever; files added after it work at once, in a new
   * generation. Bytes that had landed are kept, synced or not. Files of `openSimulated` fail with ERR_SECTORWISE_SHUTDOWN.
   */
  shutdown(): void {
    this.#device.shutdown();
  }

  /**
   * Tells the watcher, within the call that does it, when the whole disk is lost (`unplug`, `shutdown`, `powerCut`) or gets another size (`resize`), or a write strays: what a kernel's events are to a real device.
   * With `unplugAfter` and `unplugAt` that is a call that moves time on, perhaps one that waits. By then the disk is as it is said to be. `openSimulated` watches with `notice: 'event'`.
   *
   * @returns ends it.
   */
  watch(watcher: DiskWatcher): () => void {
    this.#device.watchers.add(watcher);
    return () => this.#device.watchers.delete(watcher);
  }

  /** The disk is back, in a new generation: files that engines added before stay dead; add them again. */
  replug(): void {
    this.#device.replug();
  }

  /**
   * Power fails and returns. Of the writes in flight some sectors land; then each unsynced sector keeps its newest bytes or falls back to an older version
   * of itself, never a mixture; an unsynced change of the size survives or not. What is in flight fails with ENODEV, and so do all files added before.
   *
   * @param options - `drop`: which unsynced sectors fall back: 'some' by seed (default), 'all' of them to what was durable, or 'none'.
   */
  powerCut(options: { drop?: 'all' | 'none' | 'some' } = {}): PowerCutReport {
    return this.#device.powerCut(options.drop ?? 'some');
  }

  /** A copy of the content as reads see it, or 'durable': as a power cut that drops all would leave it. */
  snapshot(state: 'visible' | 'durable' = 'visible'): DiskSnapshot {
    return this.#device.medium.snapshot(state);
  }

  /** A copy of bytes as reads see them, past all faults; short at the end. */
  read(offset: number, length: number): Uint8Array {
    const bytes = new Uint8Array(Math.max(0, Math.min(length, this.size - offset)));
    this.#device.medium.read(offset, bytes);
    return bytes;
  }

  /**
   * Puts bytes on the medium, past all faults and durable at once, at any offset: to prepare content, or as another program would change it. A file grows.
   *
   * @throws RangeError ERR_OUT_OF_RANGE past the end of a block device.
   */
  write(offset: number, bytes: Uint8Array): void {
    const end = offset + bytes.length;
    if (this.kind === 'block-device' && end > this.size) throw outOfRange('offset', `<= ${this.size - bytes.length}`, offset);
    if (end > this.size) this.#device.medium.resizeThrough(end);
    this.#device.medium.writeThrough(offset, bytes);
  }

  /** Sets the size, durable at once, as another program (or an operator, of a device) would. What is cut off is gone; what is added is zeros. */
  resize(size: number): void {
    checkSize(size, this.kind, this.sectorSize);
    this.#device.medium.resizeThrough(size);
    for (const watcher of this.#device.watchers) watcher.resized();
  }

  /** For a failure message: the seed, the faults that happened, the violations, and the log. */
  report(): string {
    const faults = Object.entries(this.counts.faults).filter(([, count]) => count > 0);
    const events = this.log.map(
      ({ time, what, sequence, detail, position, length, handle, result }) =>
        `  ${time} µs ${what} #${sequence} ${detail} position ${position} length ${length} handle ${handle} result ${result}`,
    );
    return [
      `simulated disk: seed ${this.seed}, ${this.kind} of ${this.size} bytes, sectors of ${this.sectorSize}, ${this.inFlight} in flight, at ${this.now} µs`,
      `faults: ${faults.map(([kind, count]) => `${kind} ${count}`).join(', ') || 'none'}`,
      `violations: ${this.violations.map(({ message }) => message).join('; ') || 'none'}`,
      ...events,
    ].join('\n');
  }
}

function checkOptions(options: SimulatedDiskOptions): DeviceSettings {
  for (const name of Object.keys(options)) {
    if (name !== 'size' && !Object.hasOwn(defaults, name)) {
      throw invalidValue(
        `options.${name}`,
        `is unknown; the options are size, ${Object.keys(defaults).join(', ')}`,
        options[name as keyof SimulatedDiskOptions],
      );
    }
  }
  const given = Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined));
  const settings: DeviceSettings = { ...defaults, ...(given as SimulatedDiskOptions) };
  const { sectorSize, kind, shortUnit, latency, seed } = settings;
  checkChoice('options.sectorSize', sectorSize, [512, 4096]);
  checkChoice('options.kind', kind, ['file', 'block-device']);
  checkChoice('options.shortUnit', shortUnit, kind === 'file' ? ['sector', 'byte'] : ['sector']);
  checkChoice('options.afterSyncError', settings.afterSyncError, ['keep', 'forget', 'drop']);
  checkChoice('options.onViolation', settings.onViolation, ['throw', 'collect']);
  checkSize(settings.size, kind, sectorSize);
  if (!Number.isSafeInteger(seed)) throw outOfRange('options.seed', 'a safe integer', seed);
  if (!Number.isSafeInteger(latency.min) || latency.min < 0) throw outOfRange('options.latency.min', 'an integer >= 0', latency.min);
  if (!Number.isSafeInteger(latency.max) || latency.max < latency.min) throw outOfRange('options.latency.max', `an integer >= ${latency.min}`, latency.max);
  return settings;
}

function checkSize(size: number, kind: 'file' | 'block-device', sectorSize: number): void {
  const unit = kind === 'file' ? 1 : sectorSize;
  if (!Number.isSafeInteger(size) || size < 0 || size % unit !== 0)
    throw outOfRange('size', unit === 1 ? 'a safe integer >= 0' : `a multiple of ${unit}`, size);
}

function checkChoice(name: string, value: unknown, choices: readonly unknown[]): void {
  if (!choices.includes(value)) throw invalidValue(name, `must be one of ${choices.join(', ')}`, value);
}
