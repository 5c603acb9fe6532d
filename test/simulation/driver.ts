/**
 * Several callers, one file, one disk that fails: everything the library can be asked, at random, with every answer checked.
 *
 *   turn   [ some callers begin something | a signal fires | sectors go bad | a held window is looked at | the disk moves one step ]
 *
 * One thread, no clock, no chance but the seed's: a seed that fails fails again in the same way, and `simulate` runs it once more to tell what happened.
 *
 * Guarantees: each answer is compared with what the order of acceptance allows (`file-history.ts`); each call is settled once, or named as hanging; at the end nothing is held,
 * and what a flush acknowledged is on the medium.
 * Leaves to others: faults and broken rules of the ring (the simulated disk finds those itself), the plan (`configuration.ts`).
 */
import assert from 'node:assert';
import { getEventListeners } from 'node:events';
import type { OpenFile } from '../../src/file.js';
import { Random, SimulatedDisk, type SimulatedEngine } from '../../src/testing/index.js';
import { openSimulatedParts, type SimulatedParts } from '../../src/testing/open.js';
import type { Batch } from '../../src/windows/batch.js';
import type { Window } from '../../src/windows/window.js';
import { type Configuration, drawConfiguration } from './configuration.js';
import { type Accepted, type Change, FileHistory, type Observation } from './file-history.js';

/** What a run did, to see that the seeds cover what they should. */
export interface SimulationCounts {
  operations: number;
  rejected: Record<string, number>;
}

/** A seed that failed, with all that is needed to look at it. */
export class SimulationFailure extends Error {
  readonly seed: number;

  constructor(seed: number, message: string, cause: unknown) {
    super(message, { cause });
    this.name = 'SimulationFailure';
    this.seed = seed;
  }
}

const BLOCK_BYTES = 4096;
const SECTOR_BYTES = 512;
/** Turns without anything on the disk after which whoever still waits will wait for ever. */
const idleTurnsMax = 60;
/** Looks for completions in one turn of the driver: blocking calls on a disk that is gone need many. */
const looksMax = 500_000;
/** Turns of the driver in one seed; a usual one has some hundreds. */
const turnsMax = 100_000;
const traceLength = 60;
const driverStream = 1;
const sentinel = 0xee;

/** Runs one seed. A failure is run again with a log, and told with it. */
export async function simulate(seed: number): Promise<SimulationCounts> {
  const first = await new Simulation(seed, false).guardedRun();
  if (first.error === undefined) return first.counts;
  const again = new Simulation(seed, true);
  const second = await again.guardedRun();
  const problem = second.error ?? new Error(`did not fail again (the first time: ${messageOf(first.error)}): something depends on more than the seed`);
  throw new SimulationFailure(seed, `${messageOf(problem)}\n\n${again.report()}\n\nReplay: npm run simulate -- --seeds 1 --from ${seed}`, problem);
}

function messageOf(error: unknown): string {
  return error instanceof Error ? (error.stack ?? error.message) : String(error);
}

function codeOf(error: unknown): string {
  return String((error as { code?: unknown }).code ?? (error as Error).name);
}

/** Lets everything run that is waiting to. */
function turn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

interface Held {
  window: Window;
  /** The history's clock when it was asked for, and when it was had. */
  asked: number;
  had: number;
  blocks: number;
}

interface Running {
  what: string;
  abort: (() => void) | undefined;
}

/** How a change of the history is told its end. */
interface Ending {
  done: () => void;
  failed: (error: Error, signal?: AbortSignal) => void;
}

class Thrown extends Error {}

class Simulation {
  readonly seed: number;
  readonly #random: Random;
  readonly #configuration: Configuration;
  readonly #disk: SimulatedDisk;
  readonly #engine: SimulatedEngine;
  readonly #parts: SimulatedParts;
  readonly #file: OpenFile;
  readonly #history: FileHistory;
  readonly #running = new Set<Running>();
  readonly #held: Held[] = [];
  readonly #truncations: Accepted[] = [];
  readonly #signals: { signal: AbortSignal; call: number }[] = [];
  /** Targets of reads that were aborted, and what was in them at that moment. */
  readonly #abandoned: { target: Uint8Array; copy: Uint8Array }[] = [];
  readonly #problems: unknown[] = [];
  readonly #trace: string[] | undefined;
  readonly counts: SimulationCounts = { operations: 0, rejected: {} };
  #callersBusy = 0;
  #unplugged = false;
  #closing: Promise<void> | undefined;
  #flushFailed = false;
  /** Bytes at the end were given up: until a flush succeeds the device may have fewer, and the file may find that out at any time. */
  #endLost = false;
  #endWasLost = false;
  /** Something was cut off or punched: that is not tried again. */
  #removed = false;
  #several = 0;
  #number = 0;

  constructor(seed: number, log: boolean) {
    this.seed = seed;
    this.#random = new Random(seed, driverStream);
    const configuration = drawConfiguration(new Random(seed));
    this.#configuration = configuration;
    this.#trace = log ? [] : undefined;
    const { size, kind, sectorSize } = configuration;
    this.#disk = new SimulatedDisk({
      size,
      kind,
      sectorSize,
      seed,
      latency: configuration.latency,
      reorder: configuration.reorder,
      shortUnit: configuration.shortUnit,
      afterSyncError: configuration.afterSyncError,
      faults: configuration.faults,
      checkOrdering: true,
      onViolation: 'collect',
      log: log ? 80 : 0,
    });
    const content = this.#random.fill(new Uint8Array(size));
    if (size > 0) this.#disk.write(0, content);
    this.#history = new FileHistory(configuration.sizeMax, content, sectorSize);
    this.#engine = this.#disk.engine({ depth: configuration.queueDepth, drive: 'manual' });
    const collect = this.#engine.collect.bind(this.#engine);
    this.#engine.collect = (): void => {
      // A blocking call that never ends would end this process's patience, not its own.
      if (++this.#looks > looksMax) throw new Error('somebody looks for completions for ever');
      collect();
    };
    this.#parts = openSimulatedParts(this.#disk, {
      access: configuration.access,
      cacheSize: configuration.frames * BLOCK_BYTES,
      coalesce: { mergeLimit: configuration.mergeLimit, gapLimit: configuration.gapLimit },
      readAhead: { max: configuration.aheadBytes },
      slots: configuration.slots,
      slotBlocks: configuration.slotBlocks,
      maxTransferSize: configuration.maxTransferSize,
      engine: this.#engine,
    });
    this.#file = this.#parts.file;
  }

  /** Runs, and catches what escapes: an assertion of the library in a microtask is nobody's to catch but the process's. */
  async guardedRun(): Promise<{ error: unknown; counts: SimulationCounts }> {
    const names = ['uncaughtException', 'unhandledRejection'] as const;
    const before = names.map((name) => process.listeners(name as 'uncaughtException'));
    const catcher = (error: unknown): void => {
      this.#problems.push(error);
    };
    for (const name of names) {
      process.removeAllListeners(name);
      process.on(name, catcher);
    }
    let error: unknown;
    try {
      await this.#run();
      await turn();
      this.#checkRules();
    } catch (problem) {
      // What came first is nearer to the cause.
      error = this.#problems[0] ?? problem;
    } finally {
      names.forEach((name, i) => {
        process.removeAllListeners(name);
        for (const listener of before[i]) process.on(name as 'uncaughtException', listener);
      });
    }
    return { error, counts: this.counts };
  }

  report(): string {
    const waiting = [...this.#running].map(({ what }) => what);
    return [
      `seed ${this.seed}: ${JSON.stringify(this.#configuration)}`,
      `size ${this.#file.size}, must be ${this.#history.leastSize} to ${this.#history.size}; ${JSON.stringify(this.#parts.frames.census())}, ` +
        `${this.#parts.manager.operations.count} operations, ${this.#parts.manager.waiting} in line, ${this.#parts.manager.slots.freeCount} of ${this.#parts.manager.slots.slots} slots free`,
      `waiting: ${waiting.join('; ') || 'nobody'}`,
      ...(this.#trace ?? []).slice(-traceLength),
      this.#disk.report(),
    ].join('\n');
  }

  async #run(): Promise<void> {
    const { operations, callers, closeAfter, unplugAfter, unplugAnswer, badSectors, aborts } = this.#configuration;
    const random = this.#random;
    while (this.counts.operations < operations || this.#running.size > 0) {
      while (this.counts.operations < operations && this.#callersBusy < callers && random.chance(0.6)) {
        this.counts.operations++;
        this.#begin();
      }
      if (this.counts.operations >= unplugAfter && !this.#unplugged) {
        this.#unplugged = true;
        this.#note(`unplug: ${unplugAnswer}`);
        this.#disk.unplug(unplugAnswer);
      }
      if (this.counts.operations >= closeAfter && this.#closing === undefined) {
        this.#close();
        this.counts.operations = operations;
      }
      if (random.chance(badSectors)) this.#spoil();
      if (random.chance(aborts)) this.#fireSignal();
      this.#lookAtHeld();
      this.#checkRoom();
      await this.#move();
      if ((this.counts.operations >= operations || this.#callersBusy >= callers) && this.#running.size > 0) await this.#awaitProgress();
    }
    this.#releaseAll();
    for (let i = 0; i < 5; i++) await this.#move();
    if (this.#closing === undefined) await this.#finish();
    await this.#checkNothingLeft();
  }

  /** The disk does something, or the event loop at least turns. */
  async #move(): Promise<void> {
    this.#countTurn();
    if (this.#random.chance(0.8)) await this.#engine.step();
    else await turn();
    this.#checkRules();
  }

  /** Times that the library looked for completions since the driver's last turn. */
  #looks = 0;
  #turns = 0;
  #idleTurns = 0;
  #submissions = 0;

  #countTurn(): void {
    this.#looks = 0;
    if (++this.#turns > turnsMax) throw new Error(`it never ends, and ${this.#running.size} calls wait`);
  }

  /** One step of the disk. Did anything happen since the last? Operations that take no time come and go within a turn. */
  async #step(): Promise<boolean> {
    this.#countTurn();
    const completions = await this.#engine.step();
    if (completions === 0) await turn();
    const { reads, writes, syncs, truncates, allocates, discards, evicts } = this.#disk.counts;
    const submissions = reads + writes + syncs + truncates + allocates + discards + evicts;
    const moved = completions > 0 || this.#disk.inFlight > 0 || submissions !== this.#submissions;
    this.#submissions = submissions;
    return moved;
  }

  async #awaitProgress(): Promise<void> {
    if (await this.#step()) {
      this.#idleTurns = 0;
      return;
    }
    // Windows that stay held may be what the others wait for.
    if (this.#held.length > 0) this.#release(0);
    else if (++this.#idleTurns > idleTurnsMax) throw new Error(`nothing moves any more, and ${this.#running.size} calls wait`);
  }

  #checkRules(): void {
    if (this.#problems.length > 0) throw this.#problems[0];
    if (this.#disk.violations.length > 0) throw this.#disk.violations[0];
  }

  /** `room` is counted up and down in many places; it must be what a count of the frames gives. */
  #checkRoom(): void {
    const { frames } = this.#parts;
    let room = 0;
    for (let frame = 0; frame < frames.frames; frame++) if (frames.pins[frame] === 0 && frames.dirty[frame] === 0 && !frames.isBusy(frame)) room++;
    const counted = frames.census().room;
    if (counted !== room) throw new Error(`the cache counts room for ${counted} frames, and ${room} could be taken`);
  }

  // Beginning something

  #begin(): void {
    const random = this.#random;
    const { access, blocking } = this.#configuration;
    const readers: [number, () => void][] = [
      [14, () => this.#read()],
      [14, () => this.#window()],
      [5, () => this.#tryRead()],
      [6, () => this.#tryWindow()],
      [4, () => this.#batch()],
      [2, () => this.#windows()],
      [3, () => this.#prefetch()],
      [4, () => this.#evict()],
      [1, () => this.#look()],
      [blocking ? 4 : 0, () => this.#readSync()],
    ];
    const writers: [number, () => void][] = [
      [20, () => this.#write()],
      [7, () => this.#writableWindow()],
      [6, () => this.#flush()],
      [3, () => this.#resize()],
      [2, () => this.#allocate()],
      [3, () => this.#discard()],
      [this.#flushFailed ? 4 : 0, () => this.#acknowledge()],
      [blocking ? 3 : 0, () => this.#writeSync()],
      [blocking ? 2 : 0, () => this.#flushSync()],
      [blocking ? 1 : 0, () => this.#resizeSync()],
    ];
    const choices = access === 'read' ? readers : [...readers, ...writers];
    let left = random.below(choices.reduce((sum, [weight]) => sum + weight, 0));
    for (const [weight, act] of choices) {
      left -= weight;
      if (left < 0) {
        act();
        return;
      }
    }
  }

  /** A range near what others ask for: collisions are what is looked for. */
  #range(most = this.#configuration.requestMax): { offset: number; length: number } {
    const random = this.#random;
    const size = Math.max(1, this.#file.size);
    let offset = random.chance(0.4) ? random.below(Math.min(size, 8 * BLOCK_BYTES)) : random.below(size + (random.chance(0.1) ? 3000 : 0));
    if (random.chance(0.35)) offset -= offset % BLOCK_BYTES;
    else if (random.chance(0.4)) offset -= offset % SECTOR_BYTES;
    let length = random.chance(0.5) ? random.below(Math.min(most, 2 * BLOCK_BYTES)) : random.below(most + 1);
    if (random.chance(0.3)) length = Math.max(BLOCK_BYTES, length - (length % BLOCK_BYTES));
    if (random.chance(0.1)) length = Math.max(0, this.#file.size - offset);
    return { offset, length: Math.min(length, most) };
  }

  #signal(): { options: { signal: AbortSignal } | undefined; abort: (() => void) | undefined; signal: AbortSignal | undefined } {
    if (!this.#random.chance(this.#configuration.signals)) return { options: undefined, abort: undefined, signal: undefined };
    const controller = new AbortController();
    this.#signals.push({ signal: controller.signal, call: this.#number + 1 });
    if (this.#random.chance(0.05)) controller.abort(new Error('too late'));
    return { options: { signal: controller.signal }, abort: () => controller.abort(new Error('not wanted any more')), signal: controller.signal };
  }

  #fireSignal(): void {
    const candidates = [...this.#running].filter(({ abort }) => abort !== undefined);
    if (candidates.length === 0) return;
    const chosen = candidates[this.#random.below(candidates.length)];
    this.#note(`abort ${chosen.what}`);
    chosen.abort?.();
    chosen.abort = undefined;
  }

  #spoil(): void {
    const random = this.#random;
    const sectors = Math.ceil(this.#disk.size / SECTOR_BYTES) + 8;
    const first = random.below(sectors);
    const count = random.chance(0.7) ? 1 : random.between(1, 20);
    const which = random.below(3);
    const options = { reads: which !== 1, writes: which !== 2, times: random.chance(0.7) ? random.between(1, 6) : Infinity };
    this.#note(`spoil ${first}+${count} ${JSON.stringify(options)}`);
    this.#disk.failSectors(first, count, options);
  }

  /**
   * Watches a call: `started` is called at once, the others once it settled, directly on its promise, so that they run in the order in which the library settled.
   */
  #watch<T>(
    what: string,
    abort: (() => void) | undefined,
    started: () => Promise<T>,
    ended: (value: T) => void | Promise<void>,
    failed: (error: Error) => void,
  ): void {
    const name = `${++this.#number} ${what}`;
    this.#note(name);
    const running: Running = { what: name, abort };
    this.#running.add(running);
    this.#callersBusy++;
    let settled = 0;
    const finished = (): void => {
      this.#running.delete(running);
      this.#callersBusy--;
    };
    const guard = (error: unknown): void => {
      this.#problems.push(new Error(`in ${name}: ${messageOf(error)}`));
      finished();
    };
    started().then(
      async (value) => {
        try {
          if (++settled !== 1) throw new Error('settled twice');
          this.#note(`  ${name}: done`);
          await ended(value);
          finished();
        } catch (error) {
          guard(error);
        }
      },
      (error) => {
        try {
          if (++settled !== 1) throw new Error('settled twice');
          this.#note(`  ${name}: ${codeOf(error)}`);
          this.#count(error);
          failed(error);
          finished();
        } catch (problem) {
          guard(problem);
        }
      },
    );
  }

  #count(error: unknown): void {
    const code = codeOf(error);
    this.counts.rejected[code] = (this.counts.rejected[code] ?? 0) + 1;
  }

  #note(text: string): void {
    this.#trace?.push(`  ${this.#disk.now} µs ${text}`);
  }

  /** May a request fail like this? */
  #expectError(error: Error, allowed: { signal?: AbortSignal; writable?: boolean; blocks?: number; codes?: string[] }): void {
    const code = codeOf(error);
    if (code === 'ABORT_ERR' && allowed.signal?.aborted) {
      assert.strictEqual((error as Error).cause, allowed.signal.reason);
      return;
    }
    if (allowed.codes?.includes(code)) return;
    if (code === 'ERR_SECTORWISE_CLOSED' && this.#closing !== undefined) return;
    if (code === 'ERR_SECTORWISE_READ_ONLY' && this.#configuration.access === 'read') return;
    if (code === 'ERR_SECTORWISE_SCATTERED' && allowed.writable) return;
    if (code === 'ERR_SECTORWISE_CACHE_TOO_SMALL' && allowed.blocks !== undefined) {
      const { frames, slots, slotBlocks } = this.#configuration;
      if (allowed.blocks > Math.min(frames, slots * slotBlocks)) return;
    }
    if (code === 'ERR_SECTORWISE_CACHE_FULL' && !this.#hasRoomFor(allowed.blocks ?? 1)) return;
    if ((code === 'EIO' || code === 'ENODEV') && (this.#mayFail() || this.#unplugged)) return;
    throw error;
  }

  #mayFail(): boolean {
    const { faults, badSectors } = this.#configuration;
    return badSectors > 0 || ['readError', 'writeError', 'tornWrite', 'syncError'].some((kind) => (faults[kind as keyof typeof faults] ?? 0) > 0);
  }

  /** Even with everything that anybody may have in hand, so many blocks fit: to be refused for want of room is wrong. */
  #hasRoomFor(blocks: number): boolean {
    const { blocking, frames, callers, requestMax } = this.#configuration;
    // During a blocking call nobody can give back what was handed over just before it; batches and iterators have several windows each.
    if (blocking || this.#several > 0 || this.#mayFail() || this.#unplugged || this.#closing !== undefined) return false;
    const held = this.#held.reduce((sum, each) => sum + each.blocks, 0) + this.#inHand;
    return held + blocks + (callers - 1) * (requestMax / BLOCK_BYTES + 1) <= frames;
  }

  /** Blocks of windows that a callback or a continuation is looking at. */
  #inHand = 0;

  /** Checks what was seen, once every failure that was before it has been told. */
  async #expectSeen(observation: Observation, seen: Uint8Array, what: string): Promise<void> {
    observation.freeze();
    await turn();
    const fault = observation.fault(seen);
    observation.close();
    if (fault !== undefined) throw new Error(`${what}: ${fault}`);
  }

  // Reading

  #read(): void {
    const { offset, length } = this.#range(this.#random.chance(0.1) ? this.#configuration.sizeMax : undefined);
    const { options, abort, signal } = this.#signal();
    const target = new Uint8Array(length).fill(sentinel);
    const observation = this.#history.observe(offset, length);
    this.#watch(
      `read ${offset}+${length}`,
      abort,
      () => this.#file.read(target, offset, options),
      (count) => {
        // Pieces may have been copied before the file was cut under the others.
        const cut = observation.leastSize !== observation.mostSize;
        for (let at = count; at < length && !cut; at++) if (target[at] !== sentinel) throw new Error(`read stored at ${at}, behind its count of ${count}`);
        return this.#expectSeen(observation, target.slice(0, count), 'read');
      },
      (error) => {
        observation.close();
        this.#expectError(error, { signal, blocks: Math.min(blocksOver(offset, length), this.#configuration.frames >>> 2) });
        this.#abandoned.push({ target, copy: target.slice() });
      },
    );
  }

  #tryRead(): void {
    const { offset, length } = this.#range();
    const target = new Uint8Array(length).fill(sentinel);
    const observation = this.#history.observe(offset, length);
    this.#now(`tryRead ${offset}+${length}`, {}, async () => {
      const count = this.#file.tryRead(target, offset);
      if (count !== undefined) await this.#expectSeen(observation, target.slice(0, count), 'tryRead');
      observation.close();
    });
  }

  #readSync(): void {
    const { offset, length } = this.#range();
    const target = new Uint8Array(length);
    const observation = this.#history.observe(offset, length);
    this.#now(`readSync ${offset}+${length}`, { blocks: blocksOver(offset, length) }, async () => {
      const count = this.#file.readSync(target, offset);
      await this.#expectSeen(observation, target.slice(0, count), 'readSync');
    });
  }

  /** A blocking call: its outcome is there at once, its checks come a turn later. */
  #now(what: string, allowed: { blocks?: number; writable?: boolean; codes?: string[] }, act: () => Promise<void>): void {
    this.#watch(
      what,
      undefined,
      () => act(),
      () => undefined,
      (error) => this.#expectError(error, allowed),
    );
  }

  #window(): void {
    const { offset, length } = this.#range();
    const { options, abort, signal } = this.#signal();
    const observation = this.#history.observe(offset, length);
    const asked = this.#history.clock;
    let fired = false;
    this.#watch(
      `window ${offset}+${length}`,
      abort === undefined
        ? undefined
        : () => {
            fired = true;
            abort();
          },
      () => this.#file.window(offset, length, options),
      async (window) => {
        if (fired && signal?.aborted) this.#note('  (it was there before the abort)');
        await this.#useWindow(window, observation, asked);
      },
      (error) => {
        observation.close();
        this.#expectError(error, { signal, blocks: blocksOver(offset, length) });
      },
    );
  }

  #tryWindow(): void {
    const { offset, length } = this.#range();
    const observation = this.#history.observe(offset, length);
    const asked = this.#history.clock;
    this.#now(`tryWindow ${offset}+${length}`, { blocks: blocksOver(offset, length) }, async () => {
      const window = this.#file.tryWindow(offset, length);
      if (window === undefined) observation.close();
      else await this.#useWindow(window, observation, asked);
    });
  }

  /** Looks at a window at once, and keeps it for later or not. */
  async #useWindow(window: Window, observation: Observation, asked: number): Promise<void> {
    const blocks = blocksOver(window.offset, window.length);
    this.#inHand += blocks;
    if (!window.valid) {
      // Cut or closed between the answer and this moment.
      this.#inHand -= blocks;
      observation.close();
      if (!this.#mayBeInvalid(window, asked)) throw new Error(`a window over [${window.offset}, ${window.offset + window.length}) is invalid without a reason`);
      window.release();
      return;
    }
    const copy = copyOf(window);
    const seen = this.#expectSeen(observation, copy, 'window');
    const holding = this.#held.reduce((sum, each) => sum + each.blocks, 0);
    if (blocks > 0 && holding + blocks <= this.#configuration.holdMax && this.#random.chance(0.6)) {
      if (this.#random.chance(0.2)) {
        window.retain();
        assert.strictEqual(window.refs, 2);
        window.release();
      }
      this.#held.push({ window, asked, had: this.#history.clock, blocks });
      this.#inHand -= blocks;
      await seen;
      return;
    }
    window.release();
    this.#inHand -= blocks;
    assert.throws(() => window.bytes, { code: 'ERR_SECTORWISE_RELEASED' });
    window.release();
    await seen;
  }

  /** Was the file cut before the window's end, since it was asked for, or closed? */
  #mayBeInvalid(window: Window, asked: number): boolean {
    if (this.#closing !== undefined) return true;
    const end = window.offset + window.length;
    // What was given up at the end of a file may turn out not to be there.
    if (this.#endWasLost && end > this.#history.leastSize) return true;
    return this.#truncations.some(({ change, endedAt }) => (change as { size: number }).size < end && endedAt > asked);
  }

  #lookAtHeld(): void {
    for (let i = this.#held.length - 1; i >= 0; i--) {
      if (this.#random.chance(0.5)) this.#lookAt(this.#held[i]);
      if (this.#random.chance(0.15)) this.#release(i);
    }
  }

  #lookAt({ window, asked, had }: Held): void {
    const { offset, length } = window;
    if (!window.valid) {
      if (!this.#mayBeInvalid(window, asked)) throw new Error(`a held window over [${offset}, ${offset + length}) is invalid without a reason`);
      assert.throws(() => window.bytes, /ERR_SECTORWISE|closed|shorter/);
      return;
    }
    for (const { acceptedAt, state, change } of this.#truncations) {
      if (acceptedAt > had && state === 'ended' && (change as { size: number }).size < offset + length)
        throw new Error(`a window over [${offset}, ${offset + length}) is valid after the file was cut to ${(change as { size: number }).size}`);
    }
    if (this.#history.isUnsettled(offset, offset + length)) return;
    const observation = this.#history.observe(offset, length);
    observation.freeze();
    const copy = copyOf(window, true);
    // A failure that is not told yet may still explain what is seen.
    setImmediate(() => {
      const fault = observation.faultOfBytes(copy);
      observation.close();
      if (fault !== undefined) this.#problems.push(new Error(`held window: ${fault}`));
    });
  }

  #release(i: number): void {
    const [{ window }] = this.#held.splice(i, 1);
    this.#note(`release ${window.offset}+${window.length}`);
    window.release();
  }

  #releaseAll(): void {
    while (this.#held.length > 0) this.#release(0);
  }

  #batch(): void {
    const { options, abort, signal } = this.#signal();
    const random = this.#random;
    const withErrors = random.chance(0.7);
    const throwsAt = random.chance(0.15) ? random.below(6) : -1;
    interface Asked {
      offset: number;
      length: number;
      observation: Observation;
      number: number;
      calls: number;
      blocks: number;
    }
    const asked: Asked[] = [];
    const checks: Promise<void>[] = [];
    let inside = false;
    let threw = false;
    let ended = false;
    let refused = 0;
    let batch: Batch<Asked>;
    let calls = 0;
    this.#several++;
    const get = (): void => {
      const { offset, length } = this.#range();
      const item: Asked = {
        offset,
        length,
        observation: this.#history.observe(offset, length),
        number: this.#history.clock,
        calls: 0,
        blocks: blocksOver(offset, length),
      };
      try {
        batch.get(offset, length, item);
        asked.push(item);
      } catch (error) {
        if (error instanceof Thrown) {
          asked.push(item);
          return;
        }
        refused++;
        item.observation.close();
        this.#expectError(error as Error, { blocks: item.blocks });
      }
    };
    const onWindow = (window: Window, item: Asked, delayed: boolean): void => {
      if (inside) this.#problems.push(new Error('a callback of a batch ran inside another'));
      inside = true;
      try {
        if (++item.calls !== 1) throw new Error('a request of a batch was handed over twice');
        if (delayed && !asked.includes(item)) throw new Error('delayed, but handed over during get');
        if (window.valid) {
          checks.push(this.#expectSeen(item.observation, copyOf(window), 'batch'));
        } else {
          item.observation.close();
          if (!this.#mayBeInvalid(window, item.number)) throw new Error('a window of a batch is invalid without a reason');
        }
        if (!ended && this.#closing === undefined && random.chance(0.3) && asked.length < 12) get();
        if (random.chance(0.1) && window.length > 0 && this.#configuration.holdMax > item.blocks) {
          this.#held.push({ window: window.retain(), asked: item.number, had: this.#history.clock, blocks: item.blocks });
        }
        if (calls++ === throwsAt) {
          threw = true;
          throw new Thrown('from a callback');
        }
      } catch (error) {
        if (!(error instanceof Thrown)) this.#problems.push(error);
        throw error;
      } finally {
        inside = false;
      }
    };
    const onError = (error: Error, item: Asked): void => {
      if (inside) this.#problems.push(new Error('a callback of a batch ran inside another'));
      if (++item.calls !== 1) this.#problems.push(new Error('a request of a batch was handed over twice'));
      item.observation.close();
      this.#count(error);
      try {
        this.#expectError(error, { signal, blocks: item.blocks });
      } catch (problem) {
        this.#problems.push(problem);
      }
    };
    this.#watch(
      'batch',
      abort,
      async () => {
        batch = this.#file.batch<Asked>(onWindow, withErrors ? onError : undefined, options);
        const gets = random.between(1, 6);
        for (let i = 0; i < gets; i++) {
          get();
          if (random.chance(0.3)) await turn();
        }
        ended = true;
        return batch.end();
      },
      async ({ immediate, delayed, failed }) => {
        assert.strictEqual(batch.pending, 0);
        assert.strictEqual(
          immediate + delayed + failed,
          asked.length,
          `a batch of ${asked.length} (${refused} refused) counted ${immediate}, ${delayed}, ${failed}`,
        );
        for (const { calls: each } of asked) assert.strictEqual(each, 1);
        this.#several--;
        await Promise.all(checks);
      },
      (error) => {
        this.#several--;
        for (const { observation } of asked) observation.close();
        if (error instanceof Thrown && threw) return;
        if (withErrors && error.name !== 'AbortError')
          this.#expectError(error, { signal, codes: this.#closing === undefined ? [] : ['ERR_SECTORWISE_CLOSED'] });
        else this.#expectError(error, { signal, blocks: this.#configuration.frames });
      },
    );
  }

  #windows(): void {
    const { options, abort, signal } = this.#signal();
    const random = this.#random;
    const start = random.chance(0.5) ? 0 : this.#range().offset;
    const step = random.chance(0.5) ? BLOCK_BYTES : random.between(1000, Math.max(1000, this.#configuration.requestMax));
    const end = random.chance(0.5) ? undefined : start + random.below(6 * step);
    const stopAfter = random.between(0, 12);
    this.#several++;
    const checks: Promise<void>[] = [];
    this.#watch(
      `windows ${start} to ${end} by ${step}`,
      abort,
      async () => {
        let at = start;
        let seen = 0;
        for await (const window of this.#file.windows({ start, end, step, ...options })) {
          if (window.offset !== at) throw new Error(`windows() came to ${window.offset}, not ${at}`);
          if (window.valid) {
            const observation = this.#history.observe(window.offset, window.length);
            observation.freeze();
            const copy = copyOf(window);
            // It was asked for ahead, but later writes show through: it must be as the file is now.
            if (!this.#history.isUnsettled(window.offset, window.offset + window.length)) {
              checks.push(
                turn().then(() => {
                  const fault = observation.faultOfBytes(copy);
                  if (fault !== undefined) throw new Error(`windows(): ${fault}`);
                }),
              );
            }
          }
          // A window at the end of a file that grows meanwhile is short; the next goes on where it ended.
          at += window.length;
          if (seen++ === stopAfter) break;
          if (random.chance(0.3)) await turn();
        }
        await Promise.all(checks);
      },
      () => {
        this.#several--;
      },
      (error) => {
        this.#expectError(error, { signal, blocks: this.#configuration.frames });
        this.#several--;
      },
    );
  }

  #prefetch(): void {
    const { offset, length } = this.#range(this.#configuration.sizeMax);
    this.#watch(
      `prefetch ${offset}+${length}`,
      undefined,
      () => this.#file.prefetch(offset, length),
      () => undefined,
      (error) => this.#expectError(error, {}),
    );
  }

  #evict(): void {
    const { offset, length } = this.#random.chance(0.3) ? { offset: 0, length: this.#configuration.sizeMax } : this.#range();
    this.#watch(
      `evict ${offset}+${length}`,
      undefined,
      () => this.#file.evict(offset, length),
      () => undefined,
      (error) => this.#expectError(error, {}),
    );
  }

  #look(): void {
    this.#now('residency and stats', {}, async () => {
      const { pages, cached, dirty } = this.#file.residency();
      if (cached > pages || dirty > pages) throw new Error(`${cached} cached and ${dirty} dirty of ${pages} pages`);
      const { size } = this.#file;
      if (size < this.#history.leastSize || size > this.#history.size) {
        // A failure that the driver has not been told yet may explain it.
        await turn();
        if (this.#file.size < this.#history.leastSize || this.#file.size > this.#history.size)
          throw new Error(`size is ${this.#file.size}, and must be ${this.#history.leastSize} to ${this.#history.size}`);
      }
    });
  }

  // Changing

  #writeRange(): { offset: number; length: number } {
    const { kind, sizeMax } = this.#configuration;
    const { offset, length } = this.#range();
    const end = kind === 'file' && this.#random.chance(0.15) ? sizeMax : Math.min(sizeMax, this.#file.size + (kind === 'file' ? 3000 : 0));
    const at = Math.min(offset + (kind === 'file' && this.#random.chance(0.05) ? 20_000 : 0), Math.max(0, end - 1));
    return { offset: at, length: Math.max(0, Math.min(length, end - at)) };
  }

  /** Accepts a change of the history, and says how to tell its end. */
  #change(change: Change): Ending {
    const accepted = this.#history.accept(change);
    if (change.kind === 'truncate') this.#truncations.push(accepted);
    if (change.kind === 'truncate' || change.kind === 'zero' || change.kind === 'forget') this.#removed = true;
    return {
      done: () => {
        this.#history.end(accepted);
        this.#confirmSize();
      },
      failed: (error, signal) => {
        if (codeOf(error) === 'ABORT_ERR' && signal?.aborted) this.#history.withdraw(accepted);
        else this.#history.fail(accepted);
        this.#confirmSize();
      },
    };
  }

  #confirmSize(): void {
    if (!this.#history.settled || this.#history.leastSize === this.#history.size || this.#endLost || this.#unplugged) return;
    // With everything ended, the file knows.
    if (!this.#history.confirmSize(this.#file.size))
      throw new Error(`size is ${this.#file.size}, and must be ${this.#history.leastSize} to ${this.#history.size}`);
  }

  #write(): void {
    const { offset, length } = this.#writeRange();
    const { options, abort, signal } = this.#signal();
    const source = this.#random.fill(new Uint8Array(length));
    if (this.#closing !== undefined || (signal?.aborted ?? false) || this.#configuration.access === 'read') return;
    let change: Ending | undefined;
    this.#watch(
      `write ${offset}+${length}`,
      abort,
      () => {
        const promise = this.#file.write(source, offset, options);
        if (length > 0) change = this.#change({ kind: 'write', from: offset, bytes: source.slice() });
        return promise;
      },
      (count) => {
        assert.strictEqual(count, length);
        change?.done();
        // The library needs the source no longer.
        source.fill(0xdd);
      },
      (error) => {
        change?.failed(error, signal);
        this.#expectError(error, { signal, blocks: blocksOver(offset, length) });
      },
    );
  }

  #writeSync(): void {
    const { offset, length } = this.#writeRange();
    const source = this.#random.fill(new Uint8Array(length));
    if (this.#closing !== undefined) return;
    this.#changeSync(`writeSync ${offset}+${length}`, length === 0 ? undefined : { kind: 'write', from: offset, bytes: source.slice() }, () => {
      assert.strictEqual(this.#file.writeSync(source, offset), length);
      source.fill(0xdd);
    });
  }

  #resizeSync(): void {
    if (this.#configuration.kind !== 'file' || this.#closing !== undefined) return;
    const size = this.#newSize();
    this.#changeSync(`resizeSync ${size}`, { kind: 'truncate', size }, () => this.#file.resizeSync(size));
  }

  #changeSync(what: string, change: Change | undefined, act: () => void): void {
    const accepted = change === undefined ? undefined : this.#change(change);
    this.#now(what, { codes: ['ENOMEM'], blocks: 64 }, async () => {
      try {
        act();
      } catch (error) {
        accepted?.failed(error as Error);
        throw error;
      }
      accepted?.done();
    });
  }

  #writableWindow(): void {
    const { offset, length } = this.#range(Math.min(this.#configuration.requestMax, 6 * BLOCK_BYTES));
    const { options, abort, signal } = this.#signal();
    const observation = this.#history.observe(offset, length);
    const asked = this.#history.clock;
    this.#watch(
      `writable window ${offset}+${length}`,
      abort,
      () => this.#file.window(offset, length, { writable: true, ...options }),
      async (window) => {
        if (!window.valid) {
          observation.close();
          window.release();
          return;
        }
        if (window.areas.length !== 1) throw new Error('a writable window has more than one area');
        const blocks = blocksOver(offset, window.length);
        this.#inHand += blocks;
        await this.#expectSeenNow(observation, window);
        const times = this.#random.between(0, 3);
        for (let i = 0; i < times; i++) {
          if (window.valid) this.#storeInto(window);
          if (window.valid && window.refs > 0 && this.#random.chance(0.4)) await this.#storeAndMarkLater(window);
          if (this.#random.chance(0.7)) await turn();
        }
        if (this.#random.chance(0.5) && window.length > 0) this.#held.push({ window, asked, had: this.#history.clock, blocks });
        else window.release();
        this.#inHand -= blocks;
      },
      (error) => {
        observation.close();
        this.#expectError(error, { signal, writable: true, blocks: blocksOver(offset, length) });
      },
    );
  }

  async #expectSeenNow(observation: Observation, window: Window): Promise<void> {
    await this.#expectSeen(observation, copyOf(window), 'writable window');
  }

  /** Stores and marks at once, where nothing that was accepted before is still to come over it. */
  #storeInto(window: Window): void {
    if (this.#closing !== undefined || window.length === 0) return;
    const from = this.#random.below(window.length);
    const to = Math.min(window.length, from + 1 + this.#random.below(2000));
    const at = window.offset + from;
    if (this.#history.isUnsettled(at, window.offset + to)) return;
    this.#note(`store into ${at}+${to - from}`);
    const part = window.bytes.subarray(from, to);
    this.#random.fill(part);
    window.markDirty(from, to);
    this.#history.end(this.#history.accept({ kind: 'write', from: at, bytes: part.slice() }));
  }

  /** A flush that fails for what happened before it has tried everything again: on a disk that is well by now, all that stayed in memory is durable. */
  async #expectRetried(failure: Error): Promise<void> {
    if (this.#file.stats.evictions > 0 || this.#removed) return;
    const observation = this.#history.observe(0, this.#history.capacity, true);
    await this.#drive(this.#file.flush(), 'a flush tried again').then(
      () => {
        throw new Error(`a flush succeeded although nobody acknowledged: ${failure.message}`);
      },
      (error) => this.#expectFlushError(error),
    );
    await this.#expectDurable(observation);
  }

  /** Has a flush wait, stores again over what it found, and marks that only some turns later: no flush that was called before may write it. */
  async #storeAndMarkLater(window: Window): Promise<void> {
    const { sectorSize } = this.#configuration;
    const { offset, length } = window;
    const from = Math.ceil(offset / sectorSize) * sectorSize;
    const to = Math.floor((offset + length) / sectorSize) * sectorSize;
    const at = from + this.#random.below((to - from) / sectorSize) * sectorSize;
    const end = at + sectorSize;
    if (this.#closing !== undefined || from >= to || this.#history.isUnsettled(at, end)) return;
    const part = window.bytes.subarray(at - offset, end - offset);
    this.#note(`store into ${at}+${sectorSize}, flush, store again`);
    this.#random.fill(part);
    window.markDirty(at - offset, end - offset);
    this.#history.end(this.#history.accept({ kind: 'write', from: at, bytes: part.slice() }));
    this.#flush();
    this.#random.fill(part);
    const accepted = this.#history.accept({ kind: 'write', from: at, bytes: part.slice() }, true);
    const turns = this.#random.between(1, 12);
    window.retain();
    for (let i = 0; i < turns; i++) await turn();
    if (window.valid) {
      window.markDirty(at - offset, end - offset);
      this.#history.mark(accepted);
    } else {
      this.#history.fail(accepted);
    }
    window.release();
  }

  #newSize(): number {
    const { sizeMax } = this.#configuration;
    const random = this.#random;
    const near = this.#file.size + random.between(-5000, 5000);
    let size = random.chance(0.6) ? near : random.below(sizeMax);
    if (random.chance(0.2)) size -= size % BLOCK_BYTES;
    return Math.max(0, Math.min(sizeMax, size));
  }

  #resize(): void {
    if (this.#configuration.kind !== 'file' || this.#closing !== undefined) return;
    const size = this.#newSize();
    this.#changeLater(`resize ${size}`, { kind: 'truncate', size }, () => this.#file.resize(size));
  }

  #allocate(): void {
    if (this.#configuration.kind !== 'file' || this.#closing !== undefined) return;
    const { offset, length } = this.#writeRange();
    this.#changeLater(`allocate ${offset}+${length}`, length === 0 ? undefined : { kind: 'allocate', from: offset, length }, () =>
      this.#file.allocate(offset, length),
    );
  }

  #discard(): void {
    if (this.#closing !== undefined) return;
    const { offset, length } = this.#range();
    const bytes = Math.max(0, Math.min(length, this.#file.size - offset));
    const kind = this.#configuration.kind === 'file' ? 'zero' : 'forget';
    this.#changeLater(`discard ${offset}+${length}`, bytes === 0 ? undefined : { kind, from: offset, length: bytes }, () => this.#file.discard(offset, length));
  }

  #changeLater(what: string, change: Change | undefined, act: () => Promise<void>): void {
    let accepted: Ending | undefined;
    this.#watch(
      what,
      undefined,
      () => {
        const promise = act();
        if (change !== undefined) accepted = this.#change(change);
        return promise;
      },
      () => accepted?.done(),
      (error) => {
        accepted?.failed(error);
        this.#expectError(error, { codes: ['ENOMEM'] });
      },
    );
  }

  #flush(): void {
    if (this.#closing !== undefined) return;
    const observation = this.#history.observe(0, this.#history.capacity, true);
    this.#watch(
      'flush',
      undefined,
      () => this.#file.flush(),
      () => this.#expectDurable(observation),
      (error) => {
        observation.close();
        this.#expectFlushError(error);
      },
    );
  }

  #flushSync(): void {
    if (this.#closing !== undefined) return;
    const observation = this.#history.observe(0, this.#history.capacity, true);
    this.#watch(
      'flushSync',
      undefined,
      async () => this.#file.flushSync(),
      () => this.#expectDurable(observation),
      (error) => {
        observation.close();
        this.#expectFlushError(error);
      },
    );
  }

  /** All that was accepted before the flush would survive the loss of power. */
  async #expectDurable(observation: Observation): Promise<void> {
    const durable = this.#disk.snapshot('durable');
    this.#endLost = false;
    this.#confirmSize();
    observation.freeze();
    await turn();
    observation.close();
    if (durable.size < observation.leastSize || durable.size > observation.mostSize)
      throw new Error(`after a flush the durable size is ${durable.size}, and must be ${observation.leastSize} to ${observation.mostSize}`);
    const fault = observation.faultOfBytes(durable.read(0, durable.size));
    if (fault !== undefined) throw new Error(`durable after a flush: ${fault}`);
  }

  #expectFlushError(error: Error): void {
    const code = codeOf(error);
    if (code === 'ERR_SECTORWISE_CLOSED' && this.#closing !== undefined) return;
    if (code !== 'ERR_SECTORWISE_FLUSH_FAILED') throw error;
    this.#flushFailed = true;
    const { faults } = this.#configuration;
    if (!this.#mayFail() && !this.#unplugged && (faults.noMemory ?? 0) === 0) throw error;
    if ((error as unknown as { ranges: unknown[] }).ranges.length === 0) throw new Error('a failed flush names no range');
  }

  /** From here on nobody knows whether the ranges are as they were before. */
  #acknowledge(): void {
    if (this.#closing !== undefined) return;
    this.#note('acknowledgeLoss');
    this.#flushFailed = false;
    const device = this.#configuration.kind === 'block-device';
    for (const { offset, length } of this.#file.acknowledgeLoss()) {
      const to = Math.min(this.#history.capacity, offset + length);
      if (!device && to >= this.#history.leastSize) {
        this.#endLost = true;
        this.#endWasLost = true;
      }
      if (to > offset) this.#history.end(this.#history.accept({ kind: device ? 'forget' : 'lose', from: offset, length: to - offset }));
    }
  }

  // The end

  #close(): void {
    this.#note('close');
    this.#closing = this.#configuration.blocking && this.#random.chance(0.3) ? this.#closeSync() : this.#file.close();
    this.#watch(
      'close',
      undefined,
      () => this.#closing as Promise<void>,
      () => undefined,
      (error) => this.#expectFlushError(error),
    );
  }

  async #closeSync(): Promise<void> {
    this.#closing = Promise.resolve();
    this.#file.closeSync();
  }

  /** Everybody is done: heals the disk, makes everything durable, compares all of it. */
  async #finish(): Promise<void> {
    this.#note('the end: heal, flush, compare');
    this.#disk.heal();
    // What was decided for entries in flight stays decided.
    for (let turns = 0; this.#parts.manager.operations.count > 0; turns++) {
      if (await this.#step()) turns = 0;
      if (turns > idleTurnsMax) throw new Error('operations are left that never end');
    }
    if (this.#configuration.access === 'read-write' && !this.#unplugged) {
      for (let tries = 0; ; tries++) {
        const observation = this.#history.observe(0, this.#history.capacity, true);
        try {
          await this.#drive(this.#file.flush(), 'the last flush');
        } catch (error) {
          observation.close();
          if (tries === 3) throw error;
          this.#expectFlushError(error as Error);
          if (tries === 0) await this.#expectRetried(error as Error);
          this.#acknowledge();
          continue;
        }
        await this.#expectDurable(observation);
        break;
      }
    }
    if (!this.#unplugged) {
      const size = this.#file.size;
      const observation = this.#history.observe(0, size);
      const all = new Uint8Array(size);
      const count = await this.#drive(this.#file.read(all, 0), 'the last read');
      await this.#expectSeen(observation, all.subarray(0, count), 'the last read');
      const { pinned, dirty, busy, room, reserved } = this.#parts.frames.census();
      assert.deepStrictEqual({ pinned, dirty, busy, room, reserved }, { pinned: 0, dirty: 0, busy: 0, room: this.#configuration.frames, reserved: 64 });
    }
    this.#closing = this.#file.close();
    await this.#drive(this.#closing, 'close').catch((error) => {
      if (!this.#unplugged) throw error;
      this.#expectFlushError(error);
    });
  }

  async #drive<T>(promise: Promise<T>, what: string): Promise<T> {
    let settled = false;
    const mark = (): void => {
      settled = true;
    };
    promise.then(mark, mark);
    for (let idle = 0; !settled; idle++) {
      if (await this.#step()) idle = 0;
      this.#checkRules();
      if (idle > idleTurnsMax) throw new Error(`${what} never ends`);
    }
    return promise;
  }

  async #checkNothingLeft(): Promise<void> {
    for (let i = 0; i < 3; i++) await turn();
    this.#releaseAll();
    const { manager, ground } = this.#parts;
    assert.strictEqual(manager.slots.freeCount, manager.slots.slots, 'slots are still taken');
    assert.strictEqual(manager.operations.count, 0, 'operations are left');
    assert.strictEqual(manager.waiting, 0, 'somebody waits in line');
    assert.strictEqual(ground.live, 0, 'windows are alive');
    assert.strictEqual(this.#disk.inFlight, 0, 'entries are in flight');
    for (const { signal, call } of this.#signals)
      assert.strictEqual(getEventListeners(signal, 'abort').length, 0, `the signal of call ${call} still has a listener`);
    for (const { target, copy } of this.#abandoned) if (Buffer.compare(target, copy) !== 0) throw new Error('the target of a rejected read was stored into');
    this.#checkRules();
  }
}

function blocksOver(offset: number, length: number): number {
  return length === 0 ? 0 : Math.floor((offset + length - 1) / BLOCK_BYTES) - Math.floor(offset / BLOCK_BYTES) + 1;
}

/** What a window shows, by its areas or its parts; `live`: not from a view that may have been gathered before. */
function copyOf(window: Window, live = false): Uint8Array {
  const { offset, length, areas } = window;
  const joined = Buffer.concat(areas as Uint8Array[]);
  if (live) return joined;
  const { head, blocks, tail, bytes } = window;
  assert.strictEqual(bytes.length, length);
  assert.strictEqual(joined.length, length);
  assert.strictEqual(head.length + blocks.length + tail.length, length);
  if (blocks.length > 0) {
    assert.strictEqual((offset + head.length) % BLOCK_BYTES, 0);
    assert.strictEqual(blocks.length % BLOCK_BYTES, 0);
    assert.ok(head.length < BLOCK_BYTES && tail.length < BLOCK_BYTES);
  } else {
    assert.strictEqual(head.length, length);
  }
  assert.strictEqual(bytes.byteOffset % BLOCK_BYTES, offset % BLOCK_BYTES);
  if (Buffer.compare(joined, bytes) !== 0) throw new Error('the areas of a window are not its bytes');
  if (Buffer.compare(joined, Buffer.concat([head, blocks, tail])) !== 0) throw new Error('head, blocks and tail of a window are not its bytes');
  return joined;
}
