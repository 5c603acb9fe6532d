/**
 * Writers that number what they write, on a disk that fails: what reaches the medium is judged by the numbers alone.
 *
 *   cell      [ number of its write | the rest follows from number and place ]     cells never cross a sector, so that a tear leaves each whole
 *   its past    zeros ── 17 ── 42 (failed: perhaps) ── 57 ── 80                    in the order in which writes were accepted
 *                        ^ floor: a flush that was called later was acknowledged
 *
 * Nobody waits for a write or a flush before the next; meanwhile writes and syncs fail, are torn, find no space, the file is cut and grows, and the power fails.
 *
 * Guarantees: a seed that passes has shown that
 * - nothing acknowledged is lost: after each flush, and after each loss of the disk, every cell of the medium is at its floor or later, and never a thing that nobody wrote; the size too;
 * - what a failed flush does not name is as durable as after one that succeeded;
 * - nothing is applied twice or out of order: what is sent to a sector never goes back to an earlier write of it, also not when writes are tried again, and once all is flushed nothing is sent any more;
 * - readers see the last write that was accepted before they asked, or a later one.
 * Leaves to others: windows, callers that abort, cuts by others, what a lost file says (`life.ts`).
 */
import type { OpenFile } from '../../src/file.js';
import {
  ENTRY_LENGTH,
  ENTRY_OPERATION,
  ENTRY_POSITION_HIGH,
  ENTRY_POSITION_LOW,
  ENTRY_SLAB,
  ENTRY_SLAB_OFFSET,
  ENTRY_WORDS,
  OP_WRITE,
  type Slab,
} from '../../src/io/engine.js';
import { type FaultKind, type FaultRates, Random, SimulatedDisk, type SimulatedEngine } from '../../src/testing/index.js';
import { openSimulatedParts } from '../../src/testing/open.js';

const BLOCK_BYTES = 4096;
const CELL_STREAM = 3;
/** Turns without anything on the disk after which whoever still waits will wait for ever. */
const IDLE_TURNS_MAX = 60;
/** Failures that a write, resize or allocation may end with while the disk is there. */
const refusals = ['ENOSPC', 'ENOMEM', 'ERR_SECTORWISE_CACHE_FULL', 'EIO'];
const lossCodes = ['ERR_SECTORWISE_UNPLUGGED', 'ERR_SECTORWISE_SHUTDOWN'];

export interface LedgerCounts {
  operations: number;
  acknowledged: number;
  failedFlushes: number;
  losses: number;
  rejected: Record<string, number>;
}

interface LedgerConfiguration {
  kind: 'file' | 'block-device';
  sectorSize: 512 | 4096;
  cellBytes: number;
  cells: number;
  frames: number;
  queueDepth: number;
  maxTransferSize: number;
  reorder: boolean;
  latency: { min: number; max: number };
  afterSyncError: 'keep' | 'forget' | 'drop';
  faults: Partial<FaultRates>;
  writers: number;
  operations: number;
  runMax: number;
  losses: number;
  full: number;
  blocking: boolean;
}

function pick<T>(random: Random, choices: readonly T[]): T {
  return choices[random.below(choices.length)];
}

function drawLedger(random: Random): LedgerConfiguration {
  const kind = random.chance(0.7) ? 'file' : 'block-device';
  const sectorSize = random.chance(0.7) ? 512 : 4096;
  const cellBytes = pick(random, [64, 128, 512]);
  const blocks = random.between(2, 24);
  const faults: Partial<FaultRates> = {};
  if (random.chance(0.8)) {
    const kinds: FaultKind[] = [
      'writeError',
      'tornWrite',
      'syncError',
      'shortWrite',
      'again',
      'noMemory',
      'interrupted',
      'slow',
      'duplicateCompletion',
      'strayCompletion',
    ];
    for (const fault of kinds) if (random.chance(0.5)) faults[fault] = pick(random, [0.01, 0.05, 0.15]);
  }
  return {
    kind,
    sectorSize,
    cellBytes,
    cells: (blocks * BLOCK_BYTES) / cellBytes,
    frames: pick(random, [8, 16, 16, 24, 64]),
    queueDepth: pick(random, [1, 2, 4, 16, 32]),
    maxTransferSize: pick(random, [BLOCK_BYTES, 4 * BLOCK_BYTES, 1024 * 1024]),
    reorder: random.chance(0.85),
    latency: pick(random, [
      { min: 20, max: 200 },
      { min: 0, max: 0 },
      { min: 1, max: 5000 },
    ]),
    afterSyncError: pick(random, ['keep', 'forget', 'forget', 'drop'] as const),
    faults,
    writers: random.between(1, 12),
    operations: random.between(60, 400),
    runMax: pick(random, [1, 4, 4, 40, 200]),
    losses: pick(random, [0, 1, 3]),
    full: kind === 'file' && random.chance(0.3) ? 0.02 : 0,
    blocking: random.chance(0.4),
  };
}

type Certainty = 'pending' | 'sure' | 'perhaps';

/** One thing that a cell was or may have been: written by a numbered write, or made zeros. */
interface State {
  readonly number: number;
  readonly zero: boolean;
  /** Into a window, with flushes waiting that took their copy of it before: those write what was there before once more. */
  readonly stored: boolean;
  certainty: Certainty;
}

interface Cell {
  states: State[];
  /** What the medium holds is this state or a later one. */
  floor: number;
  /** The latest that was sent to the device. */
  sent: number;
}

interface SizeChange {
  readonly number: number;
  readonly kind: 'extend' | 'set';
  readonly size: number;
  certainty: Certainty;
}

interface Change {
  number: number;
  settle: (certainty: Certainty) => void;
}

/** What is on the medium by numbers, as far as it was promised. */
class Ledger {
  readonly cells: Cell[];
  readonly #cellBytes: number;
  readonly #sectorSize: number;
  /** A sync that fails takes the disk back to what was there before, and what is read of it then is sent again before anybody is told of the failure. */
  readonly #drops: boolean;
  /** Cells with more than one state. */
  readonly #touched = new Set<number>();
  #sizes: SizeChange[] = [];
  #base: { least: number; most: number };
  number = 0;
  /** Readers that may still be answered with states before the floor. */
  readers = 0;

  constructor({ cells, cellBytes, sectorSize, afterSyncError }: LedgerConfiguration, size: number) {
    this.cells = Array.from({ length: cells }, () => ({ states: [{ number: 0, zero: true, stored: false, certainty: 'sure' as const }], floor: 0, sent: 0 }));
    this.#cellBytes = cellBytes;
    this.#drops = afterSyncError === 'drop';
    this.#sectorSize = sectorSize;
    this.#base = { least: size, most: size };
  }

  /** The bytes of cell `at` as write `number` wrote it. */
  stamp(target: Uint8Array, at: number, number: number): void {
    const words = new Uint32Array(this.#cellBytes / 4);
    words[0] = number;
    for (let i = 1; i < words.length; i++) words[i] = Math.imul(number ^ (at << 16) ^ (i * 0x9e3779b1), 0x85ebca6b) ^ (number + i);
    target.set(new Uint8Array(words.buffer));
  }

  /** The number in the bytes of a cell: 0 for zeros, -1 for what nobody wrote. */
  #read(bytes: Uint8Array, at: number): number {
    const words = new Uint32Array(bytes.slice().buffer);
    const number = words[0];
    if (number === 0) return words.every((word) => word === 0) ? 0 : -1;
    for (let i = 1; i < words.length; i++) {
      if (words[i] !== (Math.imul(number ^ (at << 16) ^ (i * 0x9e3779b1), 0x85ebca6b) ^ (number + i)) >>> 0) return -1;
    }
    return number;
  }

  #add(first: number, count: number, zero: boolean, stored = false): State[] {
    const states: State[] = [];
    for (let at = first; at < first + count && at < this.cells.length; at++) {
      const state: State = { number: this.number, zero, stored, certainty: 'pending' };
      this.cells[at].states.push(state);
      this.#touched.add(at);
      states.push(state);
    }
    return states;
  }

  #change(states: State[], size: SizeChange | undefined, ended: () => void = () => {}): Change {
    if (size !== undefined) this.#sizes.push(size);
    return {
      number: this.number,
      settle: (certainty) => {
        // What was given up meanwhile stays so: a blocking flush may have taken it before its writer was told.
        for (const state of states) if (state.certainty === 'pending') state.certainty = certainty;
        if (size?.certainty === 'pending') size.certainty = certainty;
        if (certainty === 'sure') ended();
      },
    };
  }

  acceptWrite(first: number, count: number, number: number, stored = false): Change {
    this.number = number;
    return this.#change(this.#add(first, count, false, stored), { number, kind: 'extend', size: (first + count) * this.#cellBytes, certainty: 'pending' });
  }

  acceptZero(first: number, count: number): Change {
    this.number++;
    const { number } = this;
    return this.#change(this.#add(first, count, true), undefined, () => this.#passed(first, first + count, number));
  }

  /** What lies behind `before`, the end until now, is as it was: zeros, unless the cut that made it so was given up. */
  acceptSize(size: number, kind: 'extend' | 'set', before: number): Change {
    this.number++;
    const { number } = this;
    const first = size / this.#cellBytes;
    const end = kind === 'set' ? Math.min(this.cells.length, Math.ceil(before / this.#cellBytes)) : first;
    const cut = this.#add(first, end - first, true);
    return this.#change(cut, { number, kind, size, certainty: 'pending' }, () => this.#passed(first, end, number));
  }

  /** The device has zeros here since that change: what was written before may not come again. */
  #passed(first: number, end: number, number: number): void {
    for (let at = first; at < end && at < this.cells.length; at++) {
      const { states } = this.cells[at];
      this.cells[at].sent = Math.max(
        this.cells[at].sent,
        states.findIndex((state) => state.number === number),
      );
    }
  }

  /** What a reader that asked when `asked` was the last number may have got. */
  faultOfRead(bytes: Uint8Array, first: number, asked: number): string | undefined {
    for (let i = 0; i * this.#cellBytes < bytes.length; i++) {
      const cell = this.cells[first + i];
      let from = cell.states.length - 1;
      while (from > 0 && !(cell.states[from].number <= asked && cell.states[from].certainty === 'sure')) from--;
      const problem = this.#judge(bytes.subarray(i * this.#cellBytes, (i + 1) * this.#cellBytes), first + i, from);
      if (problem !== undefined) return problem;
    }
    return undefined;
  }

  /** Undefined if the bytes are a state of the cell from the one at `from` on. */
  #judge(bytes: Uint8Array, at: number, from: number): string | undefined {
    const number = this.#read(bytes, at);
    const { states } = this.cells[at];
    for (let i = from; i < states.length; i++) if (number === 0 ? states[i].zero : states[i].number === number && !states[i].zero) return undefined;
    const known = states.map((state, i) => `${i === this.cells[at].floor ? 'floor ' : ''}${state.zero ? 'zeros of ' : ''}${state.number} ${state.certainty}`);
    return `cell ${at} has ${number < 0 ? 'what nobody wrote' : number === 0 ? 'zeros' : `write ${number}`}, and must have state ${from} or later of: ${known.join(', ')}`;
  }

  /** The content of the medium: each cell is at its floor or later. */
  faultOfMedium(read: (offset: number, length: number) => Uint8Array, size: number, only?: Iterable<number>): string | undefined {
    const bytes = new Uint8Array(this.cells.length * this.#cellBytes);
    bytes.set(read(0, bytes.length));
    for (const at of only ?? this.cells.keys()) {
      const problem = this.#judge(bytes.subarray(at * this.#cellBytes, (at + 1) * this.#cellBytes), at, this.cells[at].floor);
      if (problem !== undefined) return problem;
    }
    const { least, most } = this.#sizeBounds();
    // The last write may have landed with its padding, which a flush cuts off.
    const padded = Math.ceil(most / this.#sectorSize) * this.#sectorSize;
    return size < least || size > padded ? `the size is ${size}, and must be ${least} to ${most}` : undefined;
  }

  #sizeBounds(): { least: number; most: number } {
    let { least, most } = this.#base;
    const bounds = { least, most };
    for (const change of this.#sizes) {
      ({ least, most } = after({ least, most }, change));
      bounds.least = Math.min(bounds.least, least);
      bounds.most = Math.max(bounds.most, most);
    }
    return bounds;
  }

  /** A flush that was called when `called` was the last number says that everything before is durable, outside of `but`. */
  acknowledge(called: number, but: readonly { offset: number; length: number }[]): void {
    const excepted = (at: number): boolean => but.some(({ offset, length }) => offset < (at + 1) * this.#cellBytes && offset + length > at * this.#cellBytes);
    for (const at of this.#touched) {
      if (but.length > 0 && excepted(at)) continue;
      const cell = this.cells[at];
      for (let i = cell.states.length - 1; i > cell.floor; i--) {
        if (cell.states[i].certainty === 'sure' && cell.states[i].number <= called) cell.floor = i;
      }
      if (this.readers > 0) continue;
      cell.states.splice(0, cell.floor);
      cell.sent = Math.max(0, cell.sent - cell.floor);
      cell.floor = 0;
      if (cell.states.length === 1) this.#touched.delete(at);
    }
    if (but.length > 0) return;
    while (this.#sizes.length > 0 && this.#sizes[0].number <= called && this.#sizes[0].certainty !== 'pending')
      this.#base = after(this.#base, this.#sizes.shift() as SizeChange);
  }

  get touched(): Iterable<number> {
    return this.#touched;
  }

  /** Nobody knows whether what was written there is there. */
  giveUp(ranges: readonly { offset: number; length: number }[]): void {
    for (const { offset, length } of ranges) {
      for (let at = Math.floor(offset / this.#cellBytes); at * this.#cellBytes < offset + length && at < this.cells.length; at++) {
        const cell = this.cells[at];
        for (let i = cell.floor + 1; i < cell.states.length; i++) cell.states[i].certainty = 'perhaps';
        cell.sent = Math.min(cell.sent, cell.floor);
      }
    }
    for (const change of this.#sizes) change.certainty = 'perhaps';
  }

  /** A write is sent to the device: it does not go back behind what was sent before. */
  sending(position: number, bytes: Uint8Array): string | undefined {
    const first = position / this.#cellBytes;
    for (let i = 0; i * this.#cellBytes < bytes.length && first + i < this.cells.length; i++) {
      const cell = this.cells[first + i];
      const part = bytes.subarray(i * this.#cellBytes, (i + 1) * this.#cellBytes);
      const problem = this.#judge(part, first + i, this.#drops ? cell.floor : cell.sent);
      if (problem !== undefined) return `sent to the device: ${problem}`;
      const number = this.#read(part, first + i);
      for (let at = cell.sent; at < cell.states.length; at++) {
        if (number === 0 ? !cell.states[at].zero : cell.states[at].number !== number || cell.states[at].zero) continue;
        // What was given up may be sent again, or taken back.
        if (!cell.states[at].stored && cell.states[at].certainty !== 'perhaps') cell.sent = at;
        break;
      }
    }
    return undefined;
  }

  /** The disk came back with this content, which is all that there is to know from here on. */
  beginAgain(read: (offset: number, length: number) => Uint8Array, size: number): void {
    const bytes = new Uint8Array(this.cells.length * this.#cellBytes);
    bytes.set(read(0, bytes.length));
    for (const [at, cell] of this.cells.entries()) {
      const number = this.#read(bytes.subarray(at * this.#cellBytes, (at + 1) * this.#cellBytes), at);
      cell.states = [{ number, zero: number === 0, stored: false, certainty: 'sure' }];
      cell.floor = 0;
      cell.sent = 0;
    }
    this.#touched.clear();
    this.#sizes = [];
    this.#base = { least: size, most: size };
  }
}

function after({ least, most }: { least: number; most: number }, { kind, size, certainty }: SizeChange): { least: number; most: number } {
  if (kind === 'extend') return { least: certainty === 'sure' ? Math.max(least, size) : least, most: Math.max(most, size) };
  return certainty === 'sure' ? { least: size, most: size } : { least: Math.min(least, size), most: Math.max(most, size) };
}

export function codeOf(error: unknown): string {
  return String((error as { code?: unknown }).code ?? (error as Error).name);
}

function turn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

class LedgerRun {
  readonly #random: Random;
  readonly #configuration: LedgerConfiguration;
  readonly #disk: SimulatedDisk;
  readonly #ledger: Ledger;
  readonly #trace: string[] | undefined;
  readonly counts: LedgerCounts = { operations: 0, acknowledged: 0, failedFlushes: 0, losses: 0, rejected: {} };
  #file!: OpenFile;
  #engine!: SimulatedEngine;
  /** Grows with each loss: what settles later belongs to a file that is dead. */
  #epoch = 0;
  #outstanding = 0;
  /** Changes that have not settled, of each cell: a store into a window would come before them. */
  readonly #unsettled: Uint16Array;
  #flushFailed = false;
  #problem: unknown;

  constructor(seed: number, log: boolean) {
    this.#random = new Random(seed, CELL_STREAM);
    const configuration = drawLedger(this.#random);
    this.#configuration = configuration;
    this.#trace = log ? [] : undefined;
    const { kind, cells, cellBytes, sectorSize, latency, reorder, afterSyncError, faults } = configuration;
    const size = kind === 'file' ? 0 : cells * cellBytes;
    this.#disk = new SimulatedDisk({
      size,
      kind,
      sectorSize,
      seed,
      latency,
      reorder,
      afterSyncError,
      faults,
      checkOrdering: true,
      onViolation: 'collect',
      log: log ? 60 : 0,
    });
    this.#ledger = new Ledger(configuration, size);
    this.#unsettled = new Uint16Array(cells);
    this.#open();
  }

  report(): string {
    return [JSON.stringify(this.#configuration), ...(this.#trace ?? []).slice(-60), this.#disk.report()].join('\n');
  }

  #note(text: string): void {
    this.#trace?.push(`  ${this.#disk.now} µs ${this.#ledger.number} ${text}`);
  }

  #open(): void {
    const { queueDepth, frames, maxTransferSize } = this.#configuration;
    const engine = this.#disk.engine({ depth: queueDepth, drive: 'manual' });
    this.#engine = engine;
    const slabs: Slab[] = [];
    const addSlab = engine.addSlab.bind(engine);
    engine.addSlab = (slab) => {
      slabs.push(slab);
      return addSlab(slab);
    };
    const submit = engine.submit.bind(engine);
    engine.submit = (count) => {
      for (let entry = 0; entry < count; entry++) this.#look(engine.entries.subarray(entry * ENTRY_WORDS, (entry + 1) * ENTRY_WORDS), slabs);
      submit(count);
    };
    this.#file = openSimulatedParts(this.#disk, { access: 'read-write', cacheSize: frames * BLOCK_BYTES, maxTransferSize, engine, readAhead: false }).file;
    this.#flushFailed = false;
  }

  #look(entry: Int32Array, slabs: Slab[]): void {
    if ((entry[ENTRY_OPERATION] & 0xff) !== OP_WRITE) return;
    const position = (entry[ENTRY_POSITION_LOW] >>> 0) + (entry[ENTRY_POSITION_HIGH] >>> 0) * 2 ** 32;
    const bytes = new Uint8Array(slabs[entry[ENTRY_SLAB]].shared, entry[ENTRY_SLAB_OFFSET] >>> 0, entry[ENTRY_LENGTH] >>> 0);
    const problem = this.#ledger.sending(position, bytes);
    if (problem !== undefined) this.#problem ??= new Error(problem);
  }

  async run(): Promise<void> {
    const { operations, writers, losses, full } = this.#configuration;
    const random = this.#random;
    let lossesLeft = losses;
    let idle = 0;
    while (this.counts.operations < operations || this.#outstanding > 0) {
      while (this.counts.operations < operations && this.#outstanding < writers && random.chance(0.7)) {
        this.counts.operations++;
        this.#begin();
      }
      if (random.chance(full)) {
        this.#disk.capacity = random.chance(0.5) ? Number.POSITIVE_INFINITY : random.below(this.#configuration.cells * this.#configuration.cellBytes);
        this.#note(`space up to ${this.#disk.capacity}`);
      }
      const moved = random.chance(0.8) ? await this.#engine.step() : 0;
      await turn();
      this.#check();
      idle = moved > 0 || this.#disk.inFlight > 0 || this.#outstanding < writers ? 0 : idle + 1;
      if (this.counts.operations === operations && moved === 0 && this.#disk.inFlight === 0) idle++;
      if (idle > IDLE_TURNS_MAX) throw new Error(`nothing moves any more, and ${this.#outstanding} wait`);
      if (lossesLeft > 0 && random.chance(0.01)) {
        lossesLeft--;
        await this.#lose();
      }
    }
    await this.#finish();
  }

  #check(): void {
    if (this.#problem !== undefined) throw this.#problem;
    if (this.#disk.violations.length > 0) throw this.#disk.violations[0];
  }

  #begin(): void {
    const { kind, blocking } = this.#configuration;
    const choices: [number, () => void][] = [
      [40, () => this.#write(false)],
      [blocking ? 4 : 0, () => this.#write(true)],
      [10, () => this.#store()],
      [10, () => this.#flush()],
      [blocking ? 2 : 0, () => this.#flushSync()],
      [10, () => this.#read()],
      [kind === 'file' ? 3 : 0, () => this.#resize()],
      [kind === 'file' ? 1 : 0, () => this.#allocate()],
      [kind === 'file' ? 2 : 0, () => this.#discard()],
      [2, () => this.#evict()],
      [this.#flushFailed ? 8 : 0, () => this.#giveUp()],
    ];
    let left = this.#random.below(choices.reduce((sum, [weight]) => sum + weight, 0));
    for (const [weight, act] of choices) {
      left -= weight;
      if (left >= 0) continue;
      act();
      return;
    }
  }

  #range(): { first: number; count: number } {
    const { cells, runMax, kind, cellBytes } = this.#configuration;
    const random = this.#random;
    const end = Math.floor(this.#file.size / cellBytes);
    // Appends, writers that come to the same place again and again, and anywhere.
    const first =
      kind === 'file' && random.chance(0.3)
        ? Math.min(end, cells - 1)
        : random.chance(0.4)
          ? random.below(Math.min(cells, 16))
          : random.below(kind === 'file' ? Math.min(cells, end + 8) : cells);
    return { first, count: Math.min(cells - first, random.between(1, random.chance(0.7) ? Math.min(4, runMax) : runMax)) };
  }

  /** Watches what was begun until it settles; `ended` and `failed` only while the disk is there. */
  #watch<T>(what: string, promise: Promise<T>, ended: (value: T) => void, failed: (error: unknown) => void): void {
    const epoch = this.#epoch;
    this.#note(what);
    this.#outstanding++;
    const settled = (act: () => void): void => {
      this.#outstanding--;
      try {
        act();
      } catch (error) {
        this.#problem ??= error;
      }
    };
    promise.then(
      (value) =>
        settled(() => {
          // Of a lost file a flush resolves if nothing was lost with it.
          if (epoch === this.#epoch) ended(value);
          else if (!what.startsWith('flush')) throw new Error(`${what} succeeded after the disk was lost`);
        }),
      (error) =>
        settled(() => {
          const code = codeOf(error);
          this.counts.rejected[code] = (this.counts.rejected[code] ?? 0) + 1;
          this.#note(`  ${what}: ${code}`);
          if (epoch === this.#epoch) failed(error);
          else if (!lossCodes.includes(code) && code !== 'ERR_SECTORWISE_FLUSH_FAILED') throw error;
        }),
    );
  }

  #refused(error: unknown): void {
    if (!refusals.includes(codeOf(error))) throw error;
  }

  #watchChange(what: string, promise: Promise<unknown>, change: Change, first: number, count: number): void {
    for (let at = first; at < first + count; at++) this.#unsettled[at]++;
    const settled = (certainty: Certainty): void => {
      for (let at = first; at < first + count; at++) this.#unsettled[at]--;
      change.settle(certainty);
    };
    this.#watch(
      what,
      promise,
      () => settled('sure'),
      (error) => {
        settled('perhaps');
        this.#refused(error);
      },
    );
  }

  #write(blocking: boolean): void {
    const { cellBytes } = this.#configuration;
    const { first, count } = this.#range();
    const number = this.#ledger.number + 1;
    const source = new Uint8Array(count * cellBytes);
    for (let i = 0; i < count; i++) this.#ledger.stamp(source.subarray(i * cellBytes, (i + 1) * cellBytes), first + i, number);
    const what = `write${blocking ? 'Sync' : ''} ${number}: cells ${first}+${count}`;
    if (!blocking) {
      // Its place is taken during the call, and so may be its way to the device.
      const change = this.#ledger.acceptWrite(first, count, number);
      this.#watchChange(what, this.#file.write(source, first * cellBytes), change, first, count);
      return;
    }
    this.#note(what);
    const change = this.#ledger.acceptWrite(first, count, number);
    try {
      this.#file.writeSync(source, first * cellBytes);
      change.settle('sure');
    } catch (error) {
      change.settle('perhaps');
      this.#refused(error);
    }
  }

  /** Stores into a writable window and marks at once, where nothing that was accepted before is still to come over it. */
  #store(): void {
    const { cellBytes } = this.#configuration;
    const { first } = this.#range();
    this.#watch(
      `window over ${first}`,
      this.#file.window(first * cellBytes, cellBytes, { writable: true }),
      (window) => {
        if (window.valid && window.length === cellBytes && this.#unsettled[first] === 0) {
          const number = this.#ledger.number + 1;
          this.#note(`store ${number}: cell ${first}`);
          this.#ledger.stamp(window.bytes, first, number);
          const change = this.#ledger.acceptWrite(first, 1, number, true);
          window.markDirty();
          change.settle('sure');
        }
        window.release();
      },
      (error) => this.#refused(error),
    );
  }

  #read(): void {
    const { cellBytes } = this.#configuration;
    const { first, count } = this.#range();
    const asked = this.#ledger.number;
    const target = new Uint8Array(count * cellBytes);
    this.#ledger.readers++;
    const epoch = this.#epoch;
    const ended = (): void => {
      if (epoch === this.#epoch) this.#ledger.readers--;
    };
    this.#watch(
      `read ${first}+${count}`,
      this.#file.read(target, first * cellBytes),
      (got) => {
        // What failed before this read is told by now; whole cells are what is judged.
        const problem = this.#ledger.faultOfRead(target.subarray(0, got - (got % cellBytes)), first, asked);
        ended();
        if (problem !== undefined) throw new Error(`read: ${problem}`);
      },
      (error) => {
        ended();
        this.#refused(error);
      },
    );
  }

  #flush(): void {
    const called = this.#ledger.number;
    this.#watch(
      `flush of ${called}`,
      this.#file.flush(),
      () => this.#flushed(called),
      (error) => this.#notFlushed(called, error),
    );
  }

  #flushSync(): void {
    const called = this.#ledger.number;
    this.#note(`flushSync of ${called}`);
    try {
      this.#file.flushSync();
    } catch (error) {
      this.#notFlushed(called, error);
      return;
    }
    this.#flushed(called);
  }

  #flushed(called: number): void {
    this.counts.acknowledged++;
    this.#note(`  flush of ${called}: acknowledged`);
    const touched = [...this.#ledger.touched];
    this.#ledger.acknowledge(called, []);
    this.#checkMedium(`after a flush of ${called}`, touched);
  }

  #notFlushed(called: number, error: unknown): void {
    if (codeOf(error) !== 'ERR_SECTORWISE_FLUSH_FAILED') throw error;
    this.counts.failedFlushes++;
    this.#flushFailed = true;
    const { ranges } = error as { ranges: { offset: number; length: number }[] };
    if (ranges.length === 0) throw new Error('a failed flush names no range');
    const touched = [...this.#ledger.touched];
    this.#ledger.acknowledge(called, ranges);
    // A disk that drops what it did not sync shows what was there before, where nothing of it is left in memory.
    if (this.#configuration.afterSyncError === 'drop') this.#ledger.giveUp(ranges);
    this.#checkMedium(`after a failed flush of ${called}`, touched);
  }

  #checkMedium(when: string, cells: Iterable<number>): void {
    const durable = this.#disk.snapshot('durable');
    const problem = this.#ledger.faultOfMedium((offset, length) => durable.read(offset, length), durable.size, cells);
    if (problem !== undefined) throw new Error(`${when}: ${problem}`);
  }

  #giveUp(): void {
    this.#note('acknowledgeLoss');
    this.#flushFailed = false;
    this.#ledger.giveUp(this.#file.acknowledgeLoss());
  }

  #evict(): void {
    this.#watch(
      'evict',
      this.#file.evict(0, this.#file.size),
      () => {},
      (error) => this.#refused(error),
    );
  }

  #resize(): void {
    const { cells, cellBytes } = this.#configuration;
    const end = Math.floor(this.#file.size / cellBytes);
    const random = this.#random;
    const to = Math.min(cells, Math.max(0, random.chance(0.7) ? end + random.between(-12, 12) : random.below(cells)));
    const before = this.#file.size;
    const promise = this.#file.resize(to * cellBytes);
    this.#watchChange(`resize to cell ${to}`, promise, this.#ledger.acceptSize(to * cellBytes, 'set', before), to, cells - to);
  }

  #allocate(): void {
    const { cellBytes } = this.#configuration;
    const { first, count } = this.#range();
    const promise = this.#file.allocate(first * cellBytes, count * cellBytes);
    this.#watchChange(`allocate ${first}+${count}`, promise, this.#ledger.acceptSize((first + count) * cellBytes, 'extend', 0), first, count);
  }

  #discard(): void {
    const { cellBytes } = this.#configuration;
    const { first, count } = this.#range();
    const within = Math.min(count, Math.floor(this.#file.size / cellBytes) - first);
    if (within <= 0) return;
    const promise = this.#file.discard(first * cellBytes, within * cellBytes);
    this.#watchChange(`discard ${first}+${within}`, promise, this.#ledger.acceptZero(first, within), first, within);
  }

  /** The disk goes away with all that it was doing, and comes back. */
  async #lose(): Promise<void> {
    const how = this.#random.below(5);
    this.#note(`the disk is lost: ${how < 3 ? 'power cut' : how === 3 ? 'shutdown' : 'unplug'}`);
    this.counts.losses++;
    this.#epoch++;
    this.#checkMedium('when the disk was lost', this.#ledger.cells.keys());
    const disk = this.#disk;
    if (how < 3) disk.powerCut();
    else if (how === 3) disk.shutdown();
    else disk.unplug(pick(this.#random, ['ENODEV', 'EIO', 'end-of-file'] as const));
    const problem = this.#ledger.faultOfMedium((offset, length) => disk.read(offset, length), disk.size);
    if (problem !== undefined) throw new Error(`after the disk was lost: ${problem}`);
    const closing = this.#file.close().catch((error) => {
      if (codeOf(error) !== 'ERR_SECTORWISE_FLUSH_FAILED') throw error;
    });
    await this.#drive(closing, 'close of a lost file');
    for (let turns = 0; this.#outstanding > 0; turns++) {
      if (turns > IDLE_TURNS_MAX) throw new Error(`${this.#outstanding} were not told that the disk is lost`);
      await turn();
    }
    this.#check();
    if (!disk.present) disk.replug();
    const { size } = disk;
    disk.write(0, disk.read(0, size));
    disk.resize(size);
    this.#ledger.beginAgain((offset, length) => disk.read(offset, length), size);
    this.#ledger.readers = 0;
    this.#unsettled.fill(0);
    this.#open();
  }

  async #drive<T>(promise: Promise<T>, what: string): Promise<T> {
    let over = false;
    const end = (): void => {
      over = true;
    };
    promise.then(end, end);
    for (let idle = 0; !over; idle++) {
      if ((await this.#engine.step()) > 0) idle = 0;
      await turn();
      this.#check();
      if (idle > IDLE_TURNS_MAX) throw new Error(`${what} never ends`);
    }
    return promise;
  }

  /** The disk is well again: all is made durable, read, and after that nothing is left to send. */
  async #finish(): Promise<void> {
    this.#note('the end: heal, flush, compare');
    this.#disk.heal();
    this.#disk.capacity = Number.POSITIVE_INFINITY;
    for (let tries = 0; ; tries++) {
      const called = this.#ledger.number;
      try {
        await this.#drive(this.#file.flush(), 'the last flush');
        this.#flushed(called);
        break;
      } catch (error) {
        if (tries === 3) throw error;
        this.#notFlushed(called, error);
        this.#giveUp();
      }
    }
    const { writes } = this.#disk.counts;
    await this.#drive(this.#file.flush(), 'a flush with nothing to do');
    if (this.#disk.counts.writes !== writes) throw new Error('something was written again after all of it was flushed');
    const { cells, cellBytes } = this.#configuration;
    const target = new Uint8Array(cells * cellBytes);
    const got = await this.#drive(this.#file.read(target, 0), 'the last read');
    const problem = this.#ledger.faultOfRead(target.subarray(0, got - (got % cellBytes)), 0, this.#ledger.number);
    if (problem !== undefined) throw new Error(`the last read: ${problem}`);
    await this.#drive(this.#file.close(), 'close');
    if (this.#disk.counts.writes !== writes) throw new Error('something was written again by close after all of it was flushed');
    this.#check();
  }
}

/** Runs one seed. A failure is run again with a log, and told with it. */
export async function simulateLedger(seed: number): Promise<LedgerCounts> {
  const first = new LedgerRun(seed, false);
  try {
    await first.run();
    return first.counts;
  } catch {
    const again = new LedgerRun(seed, true);
    const told = await again.run().then(
      () => 'did not fail again: something depends on more than the seed',
      (error) => (error as Error).stack,
    );
    throw new Error(`ledger of seed ${seed}: ${told}\n\n${again.report()}\n\nReplay: npm run simulate -- --ledgers --seeds 1 --from ${seed}`);
  }
}
