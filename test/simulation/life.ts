/**
 * One opened file in a simulation, from `openSimulated` until nothing of it is left: what callers ask of it, what they get, and what becomes of it when the disk goes away under it.
 *
 *   open ──calls──> [ lost: everybody is told, windows are dead, views read zeros ] ──> buried: what it names as lost is compared with the medium
 *                └> [ cut by others: windows behind are dead, waiters are told ] ──> goes on
 *
 * Guarantees: each answer is compared with what the order of acceptance allows (`file-history.ts`); each call is settled once.
 * Leaves to others: when something happens to the disk, and which file is in use (`driver.ts`).
 */
import assert from 'node:assert';
import { getEventListeners } from 'node:events';
import type { InvalidateReason, OpenFile } from '../../src/file.js';
import type { FlushError, VerifyError } from '../../src/index.js';
import { CAUSE_SHUTDOWN } from '../../src/memory/validity.js';
import { KIND_WRITE } from '../../src/requests/operation-table.js';
import type { DiskSnapshot, FaultKind, Random, SimulatedDisk, SimulatedEngine } from '../../src/testing/index.js';
import { openSimulatedParts, type SimulatedParts } from '../../src/testing/open.js';
import type { Batch } from '../../src/windows/batch.js';
import type { Window } from '../../src/windows/window.js';
import { type Configuration, lies } from './configuration.js';
import { type Accepted, type Change, FileHistory, type Observation } from './file-history.js';

const BLOCK_BYTES = 4096;
const SECTOR_BYTES = 512;
/** Turns without anything on the disk after which whoever still waits will wait for ever. */
export const idleTurnsMax = 60;
/** Turns in which a lost file has to give up its engine: its last operations may take some. */
const dyingTurnsMax = 2000;
const sentinel = 0xee;

/** What all files of a seed share. */
export interface World {
  readonly seed: number;
  readonly random: Random;
  readonly configuration: Configuration;
  readonly disk: SimulatedDisk;
  readonly problems: unknown[];
  readonly counts: SimulationCounts;
  /** A call of the library is under way. */
  inside: number;
  note(text: string): void;
  checkRules(): void;
  /** One step of the disk, for every file; did anything happen? */
  step(): Promise<boolean>;
  /** The library looks for completions: something may happen to the disk now. */
  look(): void;
}

/** What a run did, to see that the seeds cover what they should. */
export interface SimulationCounts {
  operations: number;
  rejected: Record<string, number>;
  /** Files that were lost, and cut by others. */
  losses: number;
  cuts: number;
  /** Writes that landed elsewhere, and all of which the disk said that they were done. */
  strays: number;
  lies: number;
}

export function messageOf(error: unknown): string {
  return error instanceof Error ? (error.stack ?? error.message) : String(error);
}

function codeOf(error: unknown): string {
  return String((error as { code?: unknown }).code ?? (error as Error).name);
}

/** Lets everything run that is waiting to. */
export function turn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

/** Bytes of the file. */
interface Range {
  offset: number;
  length: number;
}

interface Held {
  window: Window;
  /** A view that was taken while it was valid; undefined where it would be a copy. */
  view: Uint8Array | undefined;
  /** The history's clock when it was asked for, and when it was had. */
  asked: number;
  had: number;
  blocks: number;
}

interface Running {
  what: string;
  abort: (() => void) | undefined;
}

/** The moment when a file found out that its disk is gone. */
interface Noticed {
  /** What everybody gets from then on. */
  code: string;
  /** What was settled before has been told: from here on nothing succeeds. */
  over: boolean;
  /** Operations that had moved bytes. */
  transfers: number;
  /** The file as everybody was told that it is. */
  state: { bytes: Uint8Array; unknown: Uint8Array; least: number; most: number };
  /** Changes that were accepted and had not ended. */
  pending: Accepted[];
  /** Changes of which nobody can say whether they were accepted. */
  unsure: Accepted[];
  flushedAt: number;
  size: number;
}

/** How a change of the history is told its end. */
interface Ending {
  done: () => void;
  failed: (error: Error, signal?: AbortSignal) => void;
}

class Thrown extends Error {}

/** Faults that a disk admits to, and all that can keep something from being written. */
const admitted: readonly FaultKind[] = ['readError', 'writeError', 'tornWrite', 'syncError'];
const failing: readonly FaultKind[] = [...admitted, ...lies];

export class Life {
  readonly parts: SimulatedParts;
  readonly file: OpenFile;
  readonly engine: SimulatedEngine;
  readonly history: FileHistory;
  readonly held: Held[] = [];
  callersBusy = 0;
  closing: Promise<void> | undefined;
  /** The disk went away under it. */
  gone: 'unplug' | 'shutdown' | undefined;
  /** The file noticed that. */
  noticed: Noticed | undefined;
  engineClosed = false;
  /** Where the readers in order have come to. */
  readonly #walkers = [0, 0, 0];
  readonly #world: World;
  readonly #running = new Set<Running>();
  readonly #truncations: Accepted[] = [];
  /** Cuts by others; `end` is where the file said that it ends then. */
  readonly #cuts: { accepted: Accepted; end: number }[] = [];
  /** Cuts that the file is about to have seen. */
  #taking: { accepted: Accepted; end: number; seen: number }[] = [];
  readonly #signals: { signal: AbortSignal; call: number }[] = [];
  /** Targets of reads that were aborted, and what was in them at that moment. */
  readonly #abandoned: { target: Uint8Array; copy: Uint8Array }[] = [];
  /** What listeners were told, and what they must be told. */
  readonly #events: InvalidateReason[] = [];
  readonly #expectedEvents: { cause: string; offset: number }[] = [];
  /** What the medium held for good when the disk went away. */
  #durable: DiskSnapshot | undefined;
  /** The change that a blocking call is about. */
  #blockingChange: Accepted | undefined;
  /** Changes that failed or were taken back for a reason of their own. */
  readonly #excused = new Set<Accepted>();
  #buried = false;
  #flushFailed = false;
  #everFailed = false;
  /** Bytes at the end were given up: until a flush succeeds the device may have fewer, and the file may find that out at any time. */
  #endLost = false;
  #endWasLost = false;
  /** Something was cut off or punched: that is not tried again. */
  #removed = false;
  #several = 0;
  #number = 0;

  constructor(world: World) {
    this.#world = world;
    const { disk, configuration } = world;
    this.history = new FileHistory(Math.max(configuration.sizeMax, disk.size), disk.read(0, disk.size), configuration.sectorSize);
    this.engine = disk.engine({ depth: configuration.queueDepth, drive: 'manual' });
    const collect = this.engine.collect.bind(this.engine);
    this.engine.collect = (): void => {
      world.look();
      collect();
    };
    const closeEngine = this.engine.close.bind(this.engine);
    this.engine.close = (): void => {
      closeEngine();
      this.engineClosed = true;
      this.#checkFrames();
    };
    this.parts = openSimulatedParts(disk, {
      access: configuration.access,
      cacheSize: configuration.frames * BLOCK_BYTES,
      coalesce: { mergeLimit: configuration.mergeLimit, gapLimit: configuration.gapLimit },
      readAhead: configuration.aheadBytes === 0 ? false : { initial: configuration.aheadInitial, max: configuration.aheadBytes },
      slots: configuration.slots,
      slotBlocks: configuration.slotBlocks,
      maxTransferSize: configuration.maxTransferSize,
      notice: configuration.notice,
      engine: this.engine,
      verifyWrites: configuration.verifyWrites,
    });
    this.file = this.parts.file;
    this.file.on('invalidate', (reason) => {
      if (world.inside > 0) world.problems.push(new Error('a listener was told within a call'));
      this.#events.push(reason);
    });
    this.#follow();
  }

  report(): string {
    const { frames, manager } = this.parts;
    return (
      `${this.gone ?? 'there'}${this.noticed === undefined ? '' : ', noticed'}${this.engineClosed ? ', closed' : ''}, size ${this.file.size}, must be ${this.history.leastSize} to ${this.history.size}; ` +
      `${JSON.stringify(frames.census())}, ${manager.operations.count} operations, ${manager.waiting} in line, ${manager.slots.freeCount} of ${manager.slots.slots} slots free; ` +
      `waiting: ${[...this.#running].map(({ what }) => what).join('; ') || 'nobody'}`
    );
  }

  /** `room` is counted up and down in many places; it must be what a count of the frames gives. */
  checkRoom(): void {
    const { frames } = this.parts;
    let room = 0;
    for (let frame = 0; frame < frames.frames; frame++) if (frames.pinsOf(frame) === 0 && frames.dirtyOf(frame) === 0 && !frames.isBusy(frame)) room++;
    const counted = frames.census().room;
    if (counted !== room) throw new Error(`the cache counts room for ${counted} frames, and ${room} could be taken`);
  }

  get running(): number {
    return this.#running.size;
  }

  get buried(): boolean {
    return this.#buried;
  }

  /** Learns at once what the file does about the ground under it. */
  #follow(): void {
    const { ground, manager } = this.parts;
    const lose = ground.lose.bind(ground);
    ground.lose = (cause) => {
      this.#world.note(`(lost: ${cause === CAUSE_SHUTDOWN ? 'shutdown' : 'unplug'})`);
      this.#expectedEvents.push({ cause: cause === CAUSE_SHUTDOWN ? 'shutdown' : 'unplug', offset: 0 });
      const noticed = this.#take(cause === CAUSE_SHUTDOWN ? 'ERR_SECTORWISE_SHUTDOWN' : 'ERR_SECTORWISE_UNPLUGGED');
      this.noticed = noticed;
      // The reactions to what was settled before are queued before this.
      queueMicrotask(() => {
        noticed.over = true;
      });
      return lose(cause);
    };
    const cut = ground.cut.bind(ground);
    ground.cut = (from, cause) => {
      this.#expectedEvents.push({ cause: 'truncate', offset: from });
      cut(from, cause);
    };
    const failBehind = manager.failBehind.bind(manager);
    manager.failBehind = (end, make) => {
      this.#world.note(`(ends at ${end})`);
      for (const each of this.#cuts) if (each.accepted.state === 'pending') this.#taking.push({ ...each, end, seen: ground.committed });
      failBehind(end, make);
    };
    const readmit = manager.readmit.bind(manager);
    manager.readmit = () => {
      readmit();
      for (const { accepted, end, seen } of this.#taking.splice(0)) {
        if (accepted.state !== 'pending') continue;
        this.history.taken(accepted, seen);
        for (const each of this.#cuts) if (each.accepted === accepted) each.end = end;
      }
    };
  }

  /** All that the file has been told so far, and the medium as it is for good. */
  #take(code: string): Noticed {
    const pending = this.history.pending.filter(({ state, change, unmarked }) => state === 'pending' && change.kind !== 'cut' && !unmarked);
    const unsure = this.history.pending.filter(({ unmarked }) => unmarked);
    const blocking = this.#blockingChange;
    if (blocking !== undefined) unsure.push(blocking);
    return {
      code,
      over: false,
      transfers: this.#transfers,
      state: this.history.state,
      pending: pending.filter((accepted) => accepted !== blocking),
      unsure,
      flushedAt: this.history.flushedAt,
      size: this.parts.ground.logical,
    };
  }

  /** The disk is gone. */
  diskLost(how: 'unplug' | 'shutdown'): void {
    if (this.gone !== undefined || this.engineClosed) return;
    this.gone = how;
    this.#durable = this.#world.disk.snapshot('durable');
  }

  /** A write landed where nobody sent it: what is there now is nobody's to know until it is written again. */
  strayed(position: number, length: number): void {
    if (this.gone !== undefined || this.engineClosed) return;
    this.#world.note(`a write strayed to ${position}+${length}`);
    const bytes = Math.min(length, this.history.capacity - position);
    if (bytes > 0) this.history.end(this.history.accept({ kind: 'forget', from: position, length: bytes }));
  }

  /** Somebody else gives the file another size: a smaller one, or none that it has not. */
  cutByOthers(size: number): void {
    this.#removed = true;
    const accepted = this.history.cut(size, this.#world.configuration.notice !== 'event' && this.#mayFail());
    this.#cuts.push({ accepted, end: Infinity });
    this.#world.counts.cuts++;
    this.#world.note(`cut by others to ${size}`);
    this.#world.disk.resize(size);
  }

  // Beginning something

  begin(): void {
    const random = this.#world.random;
    const { access, blocking } = this.#world.configuration;
    const readers: [number, () => void][] = [
      [14, () => this.#read()],
      [14, () => this.#window()],
      [5, () => this.#tryRead()],
      [6, () => this.#tryWindow()],
      [4, () => this.#batch()],
      [2, () => this.#windows()],
      [3, () => this.#prefetch()],
      [4, () => this.#evict()],
      [4, () => this.#idle()],
      [1, () => this.#look()],
      [blocking ? 4 : 0, () => this.#readSync()],
    ];
    const writers: [number, () => void][] = [
      [20, () => this.#write()],
      [7, () => this.#writableWindow()],
      [6, () => this.#flush()],
      [2, () => this.#burst()],
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

  /** The next range of one of a few readers that go through the file in order, forward or backward. */
  #walk(most: number, size: number): { offset: number; length: number } {
    const random = this.#world.random;
    const walker = random.below(this.#walkers.length);
    const length = random.chance(0.7) ? Math.min(most, 2 * BLOCK_BYTES) : random.between(1, Math.max(1, most));
    const backward = walker === 2;
    let at = this.#walkers[walker];
    if (backward ? at <= 0 : at >= size) at = backward ? size : 0;
    const offset = backward ? Math.max(0, at - length) : at;
    this.#walkers[walker] = backward ? offset : offset + length;
    return { offset, length: backward ? at - offset : length };
  }

  /** A range near what others ask for: collisions are what is looked for. */
  #range(most = this.#world.configuration.requestMax): { offset: number; length: number } {
    const random = this.#world.random;
    const size = Math.max(1, this.file.size);
    if (random.chance(this.#world.configuration.walks)) return this.#walk(most, size);
    let offset = random.chance(0.4) ? random.below(Math.min(size, 8 * BLOCK_BYTES)) : random.below(size + (random.chance(0.1) ? 3000 : 0));
    if (random.chance(0.35)) offset -= offset % BLOCK_BYTES;
    else if (random.chance(0.4)) offset -= offset % SECTOR_BYTES;
    let length = random.chance(0.5) ? random.below(Math.min(most, 2 * BLOCK_BYTES)) : random.below(most + 1);
    if (random.chance(0.3)) length = Math.max(BLOCK_BYTES, length - (length % BLOCK_BYTES));
    if (random.chance(0.1)) length = Math.max(0, this.file.size - offset);
    return { offset, length: Math.min(length, most) };
  }

  #signal(): { options: { signal: AbortSignal } | undefined; abort: (() => void) | undefined; signal: AbortSignal | undefined } {
    if (!this.#world.random.chance(this.#world.configuration.signals)) return { options: undefined, abort: undefined, signal: undefined };
    const controller = new AbortController();
    this.#signals.push({ signal: controller.signal, call: this.#number + 1 });
    if (this.#world.random.chance(0.05)) controller.abort(new Error('too late'));
    return { options: { signal: controller.signal }, abort: () => controller.abort(new Error('not wanted any more')), signal: controller.signal };
  }

  fireSignal(): void {
    const candidates = [...this.#running].filter(({ abort }) => abort !== undefined);
    if (candidates.length === 0) return;
    const chosen = candidates[this.#world.random.below(candidates.length)];
    this.#world.note(`abort ${chosen.what}`);
    chosen.abort?.();
    chosen.abort = undefined;
  }

  spoil(): void {
    const random = this.#world.random;
    const sectors = Math.ceil(this.#world.disk.size / SECTOR_BYTES) + 8;
    const first = random.below(sectors);
    const count = random.chance(0.7) ? 1 : random.between(1, 20);
    const which = random.below(3);
    const options = { reads: which !== 1, writes: which !== 2, times: random.chance(0.7) ? random.between(1, 6) : Infinity };
    this.#world.note(`spoil ${first}+${count} ${JSON.stringify(options)}`);
    this.#world.disk.failSectors(first, count, options);
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
    this.#world.note(name);
    const running: Running = { what: name, abort };
    this.#running.add(running);
    this.callersBusy++;
    let settled = 0;
    const finished = (): void => {
      this.#running.delete(running);
      this.callersBusy--;
    };
    const guard = (error: unknown): void => {
      this.#world.problems.push(new Error(`in ${name}: ${messageOf(error)}`));
      finished();
    };
    started().then(
      async (value) => {
        try {
          if (++settled !== 1) throw new Error('settled twice');
          this.#world.note(`  ${name}: done`);
          if (this.noticed?.over && /^(read|window|writable|write|resize|allocate|discard) /.test(what))
            throw new Error('it succeeded although the file was lost before');
          await ended(value);
          finished();
        } catch (error) {
          guard(error);
        }
      },
      (error) => {
        try {
          if (++settled !== 1) throw new Error('settled twice');
          this.#world.note(`  ${name}: ${codeOf(error)}`);
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
    this.#world.counts.rejected[code] = (this.#world.counts.rejected[code] ?? 0) + 1;
  }

  /** May a request fail like this? */
  #expectError(error: Error, allowed: { signal?: AbortSignal; writable?: boolean; blocks?: number; codes?: string[]; end?: number; blocking?: boolean }): void {
    const code = codeOf(error);
    if (code === 'ABORT_ERR' && allowed.signal?.aborted) {
      assert.strictEqual((error as Error).cause, allowed.signal.reason);
      return;
    }
    if (allowed.codes?.includes(code)) return;
    if (code === 'ERR_SECTORWISE_CLOSED' && this.closing !== undefined) return;
    if (code === 'ERR_SECTORWISE_READ_ONLY' && this.#world.configuration.access === 'read') return;
    if (code === 'ERR_SECTORWISE_SCATTERED' && allowed.writable) return;
    if (code === 'ERR_SECTORWISE_CACHE_TOO_SMALL' && allowed.blocks !== undefined) {
      const { frames, slots, slotBlocks } = this.#world.configuration;
      if (allowed.blocks > Math.min(frames, slots * slotBlocks)) return;
    }
    if (code === 'ERR_SECTORWISE_CACHE_FULL' && !this.#hasRoomFor(allowed.blocks ?? 1)) return;
    if (code === this.noticed?.code) return;
    const { end = Infinity } = allowed;
    if (code === 'ERR_SECTORWISE_TRUNCATED' && (this.#endWasLost || this.#cameBackShorter(end) || this.#cuts.some(({ accepted }) => accepted.from < end)))
      return;
    if ((code === 'EIO' || code === 'ENODEV') && (this.#mayFail(admitted) || this.#seesPlainErrors)) return;
    throw error;
  }

  /** A power cut took back a size that was not flushed, and the file sees that before it sees that the disk is another one. */
  #cameBackShorter(end: number): boolean {
    return this.gone !== undefined && this.#world.configuration.notice !== 'event' && this.#world.disk.size < end;
  }

  /** A blocking call cannot wait until it is known that the disk is gone, nor can those that it decides for. */
  get #seesPlainErrors(): boolean {
    const { notice, blocking } = this.#world.configuration;
    return this.gone !== undefined && notice === 'late' && blocking;
  }

  /** Lies are found when they are read back, and fail a flush and nothing else. */
  #mayFail(kinds: readonly FaultKind[] = failing): boolean {
    const { faults, badSectors } = this.#world.configuration;
    return badSectors > 0 || kinds.some((kind) => (faults[kind] ?? 0) > 0);
  }

  /** Even with everything that anybody may have in hand, so many blocks fit: to be refused for want of room is wrong. */
  #hasRoomFor(blocks: number): boolean {
    const { blocking, frames, callers, requestMax } = this.#world.configuration;
    // During a blocking call nobody can give back what was handed over just before it; batches and iterators have several windows each.
    if (blocking || this.#several > 0 || this.#mayFail() || this.gone !== undefined || this.closing !== undefined) return false;
    const held = this.held.reduce((sum, each) => sum + each.blocks, 0) + this.#inHand;
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
    const { offset, length } = this.#range(this.#world.random.chance(0.1) ? this.#world.configuration.sizeMax : undefined);
    const { options, abort, signal } = this.#signal();
    const target = new Uint8Array(length).fill(sentinel);
    const observation = this.history.observe(offset, length);
    this.#watch(
      `read ${offset}+${length}`,
      abort,
      () => this.file.read(target, offset, options),
      (count) => {
        // Pieces may have been copied before the file was cut under the others.
        const cut = observation.leastSize !== observation.mostSize;
        for (let at = count; at < length && !cut; at++) if (target[at] !== sentinel) throw new Error(`read stored at ${at}, behind its count of ${count}`);
        return this.#expectSeen(observation, target.slice(0, count), 'read');
      },
      (error) => {
        observation.close();
        this.#expectError(error, { signal, end: offset + length, blocks: Math.min(blocksOver(offset, length), this.#world.configuration.frames >>> 2) });
        this.#abandoned.push({ target, copy: target.slice() });
      },
    );
  }

  #tryRead(): void {
    const { offset, length } = this.#range();
    const target = new Uint8Array(length).fill(sentinel);
    const observation = this.history.observe(offset, length);
    this.#now(`tryRead ${offset}+${length}`, {}, async () => {
      const count = this.file.tryRead(target, offset);
      if (count !== undefined) await this.#expectSeen(observation, target.slice(0, count), 'tryRead');
      observation.close();
    });
  }

  #readSync(): void {
    const { offset, length } = this.#range();
    const target = new Uint8Array(length);
    const observation = this.history.observe(offset, length);
    this.#now(`readSync ${offset}+${length}`, { blocks: blocksOver(offset, length), end: offset + length }, async () => {
      const before = this.noticed;
      const count = this.file.readSync(target, offset);
      if (this.noticed !== before) throw new Error('it succeeded although the file was lost under it');
      await this.#expectSeen(observation, target.slice(0, count), 'readSync');
    });
  }

  /** Within the call, and until its first wait, nobody may be told anything. */
  #inside<T>(act: () => Promise<T>): Promise<T> {
    this.#world.inside++;
    try {
      return act();
    } finally {
      this.#world.inside--;
    }
  }

  /** A blocking call: its outcome is there at once, its checks come a turn later. */
  #now(what: string, allowed: { blocks?: number; writable?: boolean; codes?: string[]; end?: number }, act: () => Promise<void>): void {
    this.#watch(
      what,
      undefined,
      () => this.#inside(act),
      () => undefined,
      (error) => this.#expectError(error, allowed),
    );
  }

  #window(): void {
    const { offset, length } = this.#range();
    const { options, abort, signal } = this.#signal();
    const observation = this.history.observe(offset, length);
    const asked = this.history.clock;
    let fired = false;
    this.#watch(
      `window ${offset}+${length}`,
      abort === undefined
        ? undefined
        : () => {
            fired = true;
            abort();
          },
      () => this.file.window(offset, length, options),
      async (window) => {
        if (fired && signal?.aborted) this.#world.note('  (it was there before the abort)');
        await this.#useWindow(window, observation, asked);
      },
      (error) => {
        observation.close();
        this.#expectError(error, { signal, end: offset + length, blocks: blocksOver(offset, length) });
      },
    );
  }

  #tryWindow(): void {
    const { offset, length } = this.#range();
    const observation = this.history.observe(offset, length);
    const asked = this.history.clock;
    this.#now(`tryWindow ${offset}+${length}`, { blocks: blocksOver(offset, length) }, async () => {
      const window = this.file.tryWindow(offset, length);
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
    const holding = this.held.reduce((sum, each) => sum + each.blocks, 0);
    if (blocks > 0 && holding + blocks <= this.#world.configuration.holdMax && this.#world.random.chance(0.6)) {
      if (this.#world.random.chance(0.2)) {
        window.retain();
        assert.strictEqual(window.refs, 2);
        window.release();
      }
      this.held.push({ window, view: viewOf(window), asked, had: this.history.clock, blocks });
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
    if (this.closing !== undefined || this.noticed !== undefined) return true;
    const end = window.offset + window.length;
    // What was given up at the end of a file may turn out not to be there.
    if (this.#endWasLost && end > this.history.leastSize) return true;
    if (this.#cameBackShorter(end)) return true;
    const cuts = [...this.#truncations, ...this.#cuts.map(({ accepted }) => accepted)];
    return cuts.some(({ change, endedAt }) => (change as { size: number }).size < end && endedAt > asked);
  }

  lookAtHeld(): void {
    for (let i = this.held.length - 1; i >= 0; i--) {
      if (this.#world.random.chance(0.5)) this.#lookAt(this.held[i]);
      if (this.#world.random.chance(0.15)) this.release(i);
    }
  }

  #lookAt({ window, asked, had }: Held): void {
    const { offset, length } = window;
    if (!window.valid) {
      if (!this.#mayBeInvalid(window, asked)) throw new Error(`a held window over [${offset}, ${offset + length}) is invalid without a reason`);
      const codes = ['ERR_SECTORWISE_CLOSED', 'ERR_SECTORWISE_TRUNCATED'];
      assert.throws(
        () => window.bytes,
        (error) => (this.noticed === undefined ? codes.includes(codeOf(error)) : codeOf(error) === this.noticed.code),
      );
      return;
    }
    for (const { acceptedAt, state, change } of this.#truncations) {
      if (acceptedAt > had && state === 'ended' && (change as { size: number }).size < offset + length)
        throw new Error(`a window over [${offset}, ${offset + length}) is valid after the file was cut to ${(change as { size: number }).size}`);
    }
    for (const { accepted, end } of this.#cuts) {
      if (accepted.acceptedAt > had && end < offset + length)
        throw new Error(`a window over [${offset}, ${offset + length}) is valid after others cut the file to ${end}`);
    }
    if (this.noticed !== undefined) throw new Error('a window is valid although the file is lost');
    if (this.history.isUnsettled(offset, offset + length)) return;
    const observation = this.history.observe(offset, length);
    observation.freeze();
    const copy = copyOf(window, true);
    // A failure that is not told yet may still explain what is seen.
    setImmediate(() => {
      const fault = observation.faultOfBytes(copy);
      observation.close();
      if (fault !== undefined) this.#world.problems.push(new Error(`held window: ${fault}`));
    });
  }

  release(i: number): void {
    const [{ window }] = this.held.splice(i, 1);
    this.#world.note(`release ${window.offset}+${window.length}`);
    window.release();
  }

  releaseAll(): void {
    while (this.held.length > 0) this.release(0);
  }

  #batch(): void {
    const { options, abort, signal } = this.#signal();
    const random = this.#world.random;
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
        observation: this.history.observe(offset, length),
        number: this.history.clock,
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
      if (inside) this.#world.problems.push(new Error('a callback of a batch ran inside another'));
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
        if (!ended && this.closing === undefined && random.chance(0.3) && asked.length < 12) get();
        if (random.chance(0.1) && window.length > 0 && this.#world.configuration.holdMax > item.blocks) {
          this.held.push({ window: window.retain(), view: viewOf(window), asked: item.number, had: this.history.clock, blocks: item.blocks });
        }
        if (calls++ === throwsAt) {
          threw = true;
          throw new Thrown('from a callback');
        }
      } catch (error) {
        if (!(error instanceof Thrown)) this.#world.problems.push(error);
        throw error;
      } finally {
        inside = false;
      }
    };
    const onError = (error: Error, item: Asked): void => {
      if (inside) this.#world.problems.push(new Error('a callback of a batch ran inside another'));
      if (++item.calls !== 1) this.#world.problems.push(new Error('a request of a batch was handed over twice'));
      item.observation.close();
      this.#count(error);
      try {
        this.#expectError(error, { signal, blocks: item.blocks });
      } catch (problem) {
        this.#world.problems.push(problem);
      }
    };
    this.#watch(
      'batch',
      abort,
      async () => {
        batch = this.file.batch<Asked>(onWindow, withErrors ? onError : undefined, options);
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
        if (withErrors && error.name !== 'AbortError') this.#expectError(error, { signal, codes: this.closing === undefined ? [] : ['ERR_SECTORWISE_CLOSED'] });
        else this.#expectError(error, { signal, blocks: this.#world.configuration.frames });
      },
    );
  }

  #windows(): void {
    const { options, abort, signal } = this.#signal();
    const random = this.#world.random;
    const start = random.chance(0.5) ? 0 : this.#range().offset;
    const step = random.chance(0.5) ? BLOCK_BYTES : random.between(1000, Math.max(1000, this.#world.configuration.requestMax));
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
        for await (const window of this.file.windows({ start, end, step, ...options })) {
          if (window.offset !== at) throw new Error(`windows() came to ${window.offset}, not ${at}`);
          if (window.valid) {
            const observation = this.history.observe(window.offset, window.length);
            observation.freeze();
            const copy = copyOf(window);
            // It was asked for ahead, but later writes show through: it must be as the file is now.
            if (!this.history.isUnsettled(window.offset, window.offset + window.length)) {
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
        this.#expectError(error, { signal, blocks: this.#world.configuration.frames });
        this.#several--;
      },
    );
  }

  #prefetch(): void {
    const { offset, length } = this.#range(this.#world.configuration.sizeMax);
    this.#watch(
      `prefetch ${offset}+${length}`,
      undefined,
      () => this.file.prefetch(offset, length),
      () => undefined,
      (error) => this.#expectError(error, {}),
    );
  }

  /** Time goes by for the cache: memory that nobody holds and that was not used for five looks goes back to the system. */
  #idle(): void {
    for (let looks = this.#world.random.below(8); looks >= 0; looks--) this.parts.frames.lookForIdle();
  }

  #evict(): void {
    const { offset, length } = this.#world.random.chance(0.3) ? { offset: 0, length: this.#world.configuration.sizeMax } : this.#range();
    this.#watch(
      `evict ${offset}+${length}`,
      undefined,
      () => this.file.evict(offset, length),
      () => undefined,
      (error) => this.#expectError(error, {}),
    );
  }

  #look(): void {
    this.#now('residency and stats', {}, async () => {
      const { pages, cached, dirty } = this.file.residency();
      if (cached > pages || dirty > pages) throw new Error(`${cached} cached and ${dirty} dirty of ${pages} pages`);
      const { size } = this.file;
      if (size < this.history.leastSize || size > this.history.size) {
        // A failure that the driver has not been told yet may explain it.
        await turn();
        if (this.file.size < this.history.leastSize || this.file.size > this.history.size)
          throw new Error(`size is ${this.file.size}, and must be ${this.history.leastSize} to ${this.history.size}`);
      }
    });
  }

  // Changing

  #writeRange(): { offset: number; length: number } {
    const { kind, sizeMax } = this.#world.configuration;
    const { offset, length } = this.#range();
    const end = kind === 'file' && this.#world.random.chance(0.15) ? sizeMax : Math.min(sizeMax, this.file.size + (kind === 'file' ? 3000 : 0));
    const at = Math.min(offset + (kind === 'file' && this.#world.random.chance(0.05) ? 20_000 : 0), Math.max(0, end - 1));
    return { offset: at, length: Math.max(0, Math.min(length, end - at)) };
  }

  #lastChange: Accepted | undefined;

  /** Accepts a change of the history, and says how to tell its end. */
  #change(change: Change): Ending {
    const accepted = this.history.accept(change);
    this.#lastChange = accepted;
    if (change.kind === 'truncate') this.#truncations.push(accepted);
    if (change.kind === 'truncate' || change.kind === 'zero' || change.kind === 'forget') this.#removed = true;
    return {
      done: () => {
        this.history.end(accepted);
        this.#confirmSize();
      },
      failed: (error, signal) => {
        if (codeOf(error) !== this.noticed?.code) this.#excused.add(accepted);
        if (codeOf(error) === 'ABORT_ERR' && signal?.aborted) this.history.withdraw(accepted);
        else this.history.fail(accepted);
        this.#confirmSize();
      },
    };
  }

  #confirmSize(): void {
    if (!this.history.settled || this.history.leastSize === this.history.size || this.#endLost || this.gone !== undefined) return;
    // With everything ended, the file knows.
    if (!this.history.confirmSize(this.file.size)) throw new Error(`size is ${this.file.size}, and must be ${this.history.leastSize} to ${this.history.size}`);
  }

  #write(): void {
    const { offset, length } = this.#writeRange();
    const { options, abort, signal } = this.#signal();
    const source = this.#world.random.fill(new Uint8Array(length));
    if (this.closing !== undefined || (signal?.aborted ?? false) || this.#world.configuration.access === 'read') return;
    let change: Ending | undefined;
    this.#watch(
      `write ${offset}+${length}`,
      abort,
      () => {
        const promise = this.file.write(source, offset, options);
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
    const source = this.#world.random.fill(new Uint8Array(length));
    if (this.closing !== undefined) return;
    this.#changeSync(`writeSync ${offset}+${length}`, length === 0 ? undefined : { kind: 'write', from: offset, bytes: source.slice() }, () => {
      assert.strictEqual(this.file.writeSync(source, offset), length);
      source.fill(0xdd);
    });
  }

  #resizeSync(): void {
    if (this.#world.configuration.kind !== 'file' || this.closing !== undefined) return;
    const size = this.#newSize();
    this.#changeSync(`resizeSync ${size}`, { kind: 'truncate', size }, () => this.file.resizeSync(size));
  }

  #changeSync(what: string, change: Change | undefined, act: () => void): void {
    this.#now(what, { codes: ['ENOMEM'], blocks: 64 }, async () => {
      const accepted = change === undefined ? undefined : this.#change(change);
      this.#blockingChange = accepted === undefined ? undefined : this.#lastChange;
      const before = this.noticed;
      try {
        act();
        if (this.noticed !== before) throw new Error('it succeeded although the file was lost under it');
      } catch (error) {
        accepted?.failed(error as Error);
        throw error;
      } finally {
        this.#blockingChange = undefined;
      }
      accepted?.done();
    });
  }

  #writableWindow(): void {
    const { offset, length } = this.#range(Math.min(this.#world.configuration.requestMax, 6 * BLOCK_BYTES));
    const { options, abort, signal } = this.#signal();
    const observation = this.history.observe(offset, length);
    const asked = this.history.clock;
    this.#watch(
      `writable window ${offset}+${length}`,
      abort,
      () => this.file.window(offset, length, { writable: true, ...options }),
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
        const times = this.#world.random.between(0, 3);
        for (let i = 0; i < times; i++) {
          if (window.valid) this.#storeInto(window);
          if (window.valid && window.refs > 0 && this.#world.random.chance(0.4)) await this.#storeAndMarkLater(window);
          if (this.#world.random.chance(0.7)) await turn();
        }
        if (this.#world.random.chance(0.5) && window.length > 0) this.held.push({ window, view: viewOf(window), asked, had: this.history.clock, blocks });
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
    if (this.closing !== undefined || window.length === 0) return;
    const from = this.#world.random.below(window.length);
    const to = Math.min(window.length, from + 1 + this.#world.random.below(2000));
    const at = window.offset + from;
    if (this.history.isUnsettled(at, window.offset + to)) return;
    this.#world.note(`store into ${at}+${to - from}`);
    const part = window.bytes.subarray(from, to);
    this.#world.random.fill(part);
    window.markDirty(from, to);
    this.history.end(this.history.accept({ kind: 'write', from: at, bytes: part.slice() }));
  }

  /** A flush that fails for what happened before it has tried everything again: on a disk that is well by now, all that stayed in memory is durable. */
  async #expectRetried(failure: Error): Promise<void> {
    if (this.file.stats.evictions > 0 || this.#removed) return;
    const observation = this.history.observe(0, this.history.capacity, true);
    await this.#drive(this.file.flush(), 'a flush tried again').then(
      () => {
        throw new Error(`a flush succeeded although nobody acknowledged: ${failure.message}`);
      },
      (error) => this.#expectFlushError(error),
    );
    await this.#expectDurable(observation);
  }

  /** Has a flush wait, stores again over what it found, and marks that only some turns later: no flush that was called before may write it. */
  async #storeAndMarkLater(window: Window): Promise<void> {
    const { sectorSize } = this.#world.configuration;
    const { offset, length } = window;
    const from = Math.ceil(offset / sectorSize) * sectorSize;
    const to = Math.floor((offset + length) / sectorSize) * sectorSize;
    const at = from + this.#world.random.below((to - from) / sectorSize) * sectorSize;
    const end = at + sectorSize;
    if (this.closing !== undefined || from >= to || this.history.isUnsettled(at, end)) return;
    const part = window.bytes.subarray(at - offset, end - offset);
    this.#world.note(`store into ${at}+${sectorSize}, flush, store again`);
    this.#world.random.fill(part);
    window.markDirty(at - offset, end - offset);
    this.history.end(this.history.accept({ kind: 'write', from: at, bytes: part.slice() }));
    this.#flush();
    this.#world.random.fill(part);
    const accepted = this.history.accept({ kind: 'write', from: at, bytes: part.slice() }, true);
    const turns = this.#world.random.between(1, 12);
    window.retain();
    for (let i = 0; i < turns; i++) await turn();
    if (window.valid) {
      window.markDirty(at - offset, end - offset);
      this.history.mark(accepted);
    } else {
      this.history.fail(accepted);
    }
    window.release();
  }

  #newSize(): number {
    const { sizeMax } = this.#world.configuration;
    const random = this.#world.random;
    const near = this.file.size + random.between(-5000, 5000);
    let size = random.chance(0.6) ? near : random.below(sizeMax);
    if (random.chance(0.2)) size -= size % BLOCK_BYTES;
    return Math.max(0, Math.min(sizeMax, size));
  }

  #resize(): void {
    if (this.#world.configuration.kind !== 'file' || this.closing !== undefined) return;
    const size = this.#newSize();
    this.#changeLater(`resize ${size}`, { kind: 'truncate', size }, () => this.file.resize(size));
  }

  #allocate(): void {
    if (this.#world.configuration.kind !== 'file' || this.closing !== undefined) return;
    const { offset, length } = this.#writeRange();
    this.#changeLater(`allocate ${offset}+${length}`, length === 0 ? undefined : { kind: 'allocate', from: offset, length }, () =>
      this.file.allocate(offset, length),
    );
  }

  #discard(): void {
    if (this.closing !== undefined) return;
    const { offset, length } = this.#range();
    const bytes = Math.max(0, Math.min(length, this.file.size - offset));
    const kind = this.#world.configuration.kind === 'file' ? 'zero' : 'forget';
    this.#changeLater(`discard ${offset}+${length}`, bytes === 0 ? undefined : { kind, from: offset, length: bytes }, () => this.file.discard(offset, length));
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
    if (this.closing !== undefined) return;
    const observation = this.history.observe(0, this.history.capacity, true);
    const at = this.history.clock;
    this.#watch(
      'flush',
      undefined,
      () => this.file.flush(),
      () => this.#flushed(at, observation),
      (error) => {
        observation.close();
        this.#expectFlushError(error);
      },
    );
  }

  /** Several callers who each write and flush, all within one turn, and none of whom waits: what they ask for meets while rounds are under way. */
  #burst(): void {
    const before = new Set(this.#running);
    for (let left = this.#world.random.between(2, 6); left > 0; left--) {
      this.#write();
      if (this.#world.random.chance(0.7)) this.#flush();
    }
    // More than the callers that frames are counted for.
    const asked = [...this.#running].filter((running) => !before.has(running));
    this.#several++;
    const watch = async (): Promise<void> => {
      while (asked.some((running) => this.#running.has(running))) await turn();
      this.#several--;
    };
    void watch();
  }

  #flushSync(): void {
    if (this.closing !== undefined) return;
    const observation = this.history.observe(0, this.history.capacity, true);
    const at = this.history.clock;
    this.#watch(
      'flushSync',
      undefined,
      () => this.#inside(async () => this.file.flushSync()),
      () => this.#flushed(at, observation),
      (error) => {
        observation.close();
        this.#expectFlushError(error);
      },
    );
  }

  /** A flush that was called at `at` succeeded. Of a lost file it says that nothing was lost: that is looked at when it is buried. */
  async #flushed(at: number, observation: Observation): Promise<void> {
    if (this.gone !== undefined) {
      observation.close();
      return;
    }
    this.history.flushedAt = Math.max(this.history.flushedAt, at);
    await this.#expectDurable(observation);
  }

  /** All that was accepted before the flush would survive the loss of power. */
  async #expectDurable(observation: Observation): Promise<void> {
    const durable = this.#world.disk.snapshot('durable');
    this.#endLost = false;
    this.#confirmSize();
    observation.freeze();
    // Between the end of the flush and this moment a blocking call may have written more, and a lie about that has changed bytes of the same sectors: what is named by now was named since.
    if (this.#world.configuration.verifyWrites) {
      for (const { offset, length } of this.parts.access.losses) observation.excuse(offset, offset + length);
      // What was sent after this flush was called goes out in whole sectors, and is not yet read back: a lie about it shows in the bytes beside its own.
      const { counts } = this.#world.disk;
      if (lies.some((lie) => counts.faults[lie] > 0)) this.#excuseWritesUnderWay(observation);
    }
    await turn();
    observation.close();
    if (durable.size < observation.leastSize || durable.size > observation.mostSize)
      throw new Error(`after a flush the durable size is ${durable.size}, and must be ${observation.leastSize} to ${observation.mostSize}`);
    const fault = observation.faultOfBytes(durable.read(0, durable.size));
    if (fault !== undefined) throw new Error(`durable after a flush: ${fault}`);
  }

  #excuseWritesUnderWay(observation: Observation): void {
    const { operations } = this.parts.manager;
    for (let sector = 0; sector * SECTOR_BYTES < this.history.capacity; sector++) {
      const operation = operations.at(sector);
      if (operation >= 0 && operations.kind[operation] === KIND_WRITE) observation.excuse(sector * SECTOR_BYTES, (sector + 1) * SECTOR_BYTES);
    }
  }

  #expectFlushError(error: Error): void {
    const code = codeOf(error);
    if (code === 'ERR_SECTORWISE_CLOSED' && this.closing !== undefined) return;
    if (code !== 'ERR_SECTORWISE_FLUSH_FAILED') throw error;
    this.#flushFailed = true;
    if (this.noticed === undefined) this.#everFailed = true;
    const { faults, verifyWrites } = this.#world.configuration;
    // What was cut off while it was being read back, and is zeros because something was written behind it, is not what was written.
    const overtaken = verifyWrites && this.#cuts.length > 0;
    if (!this.#mayFail() && !overtaken && this.gone === undefined && (faults.noMemory ?? 0) === 0) throw error;
    const { ranges } = error as FlushError;
    if (ranges.length === 0) throw new Error('a failed flush names no range');
    const { counts } = this.#world.disk;
    const differs = ranges.find(({ error: why }) => (why as Partial<VerifyError>).differsAt !== undefined);
    if (differs !== undefined && !overtaken && lies.every((lie) => counts.faults[lie] === 0)) throw differs.error;
  }

  /** From here on nobody knows whether the ranges are as they were before. */
  #acknowledge(): void {
    if (this.closing !== undefined) return;
    this.#world.note('acknowledgeLoss');
    this.#flushFailed = false;
    // What a lost file has lost is looked at when it is buried.
    if (this.gone !== undefined) return;
    const device = this.#world.configuration.kind === 'block-device';
    for (const { offset, length } of this.file.acknowledgeLoss()) {
      const to = Math.min(this.history.capacity, offset + length);
      if (!device && to >= this.history.leastSize) {
        this.#endLost = true;
        this.#endWasLost = true;
      }
      if (to > offset) this.history.end(this.history.accept({ kind: device ? 'forget' : 'lose', from: offset, length: to - offset }));
    }
  }

  // The end

  close(): void {
    this.#world.note('close');
    this.closing = this.#world.configuration.blocking && this.#world.random.chance(0.3) ? this.#closeSync() : this.file.close();
    this.#watch(
      'close',
      undefined,
      () => this.closing as Promise<void>,
      () => {
        if (this.gone !== undefined) this.#checkLoss([]);
      },
      (error) => {
        this.#expectFlushError(error);
        if (this.gone !== undefined) this.#checkLoss(rangesOf(error));
      },
    );
  }

  #closeSync(): Promise<void> {
    this.closing = Promise.resolve();
    return this.#inside(async () => this.file.closeSync());
  }

  /** Everybody is done: heals the disk, makes everything durable, compares all of it. */
  async finish(): Promise<void> {
    this.#world.note('the end: heal, flush, compare');
    this.#world.disk.heal();
    // What was decided for entries in flight stays decided.
    for (let turns = 0; this.parts.manager.operations.count > 0; turns++) {
      if (await this.#world.step()) turns = 0;
      if (turns > idleTurnsMax) throw new Error('operations are left that never end');
    }
    if (this.#world.configuration.access === 'read-write') {
      for (let tries = 0; ; tries++) {
        const observation = this.history.observe(0, this.history.capacity, true);
        try {
          await this.#drive(this.file.flush(), 'the last flush');
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
    await this.#readAll().catch((error) => {
      // Only now does the file find out that others cut it.
      this.#expectError(error, {});
      return this.#readAll();
    });
    const { pinned, dirty, busy, room, reserved } = this.parts.frames.census();
    assert.deepStrictEqual({ pinned, dirty, busy, room, reserved }, { pinned: 0, dirty: 0, busy: 0, room: this.#world.configuration.frames, reserved: 64 });
    this.closing = this.file.close();
    await this.#drive(this.closing, 'close');
  }

  // Loss

  /** The disk went away under it: looks at what is left once everybody has been told, and puts it away. */
  bury(): void {
    this.#buried = true;
    this.#watch(
      'bury',
      undefined,
      () => this.#bury(),
      () => undefined,
      (error) => {
        throw error;
      },
    );
  }

  async #bury(): Promise<void> {
    const { random } = this.#world;
    while (this.#running.size > 1) await turn();
    if (random.chance(0.5)) this.releaseAll();
    if (this.closing !== undefined) return;
    if (this.noticed !== undefined) {
      for (let turns = 0; !this.engineClosed; turns++) {
        if (turns > dyingTurnsMax) throw new Error('a lost file never gives up its engine');
        await turn();
      }
      await turn();
      await this.#checkDead(this.noticed);
    }
    let named: Range[] | undefined;
    const ended = async (what: string, act: () => Promise<void>): Promise<void> => {
      const before = named;
      named = [];
      try {
        await act();
      } catch (error) {
        this.#expectFlushError(error as Error);
        named = rangesOf(error);
      }
      if (before !== undefined) assert.deepStrictEqual(named, before, `${what} names something else than was named before`);
    };
    const taken = this.noticed ?? this.#take('');
    if (this.noticed !== undefined && this.#world.configuration.access === 'read-write') {
      if (random.chance(0.5)) await ended('flush', () => this.#inside(async () => (random.chance(0.5) ? this.file.flush() : this.file.flushSync())));
      if (random.chance(0.3)) {
        const given = this.file.acknowledgeLoss().map(({ offset, length }) => ({ offset, length }));
        if (named !== undefined) assert.deepStrictEqual(given, named);
        await this.file.flush();
        await this.file.close();
        this.closing = Promise.resolve();
        this.#checkLoss(given, taken);
        return;
      }
    }
    const blocking = this.#world.configuration.blocking && random.chance(0.3);
    await ended('close', () => {
      this.closing = blocking ? this.#closeSync() : this.file.close();
      return this.closing;
    });
    this.#checkLoss(named ?? [], taken);
  }

  get #transfers(): number {
    const { deviceReads, deviceWrites } = this.file.stats;
    return deviceReads + deviceWrites;
  }

  /** Nothing of a lost file can be read, changed, or taken for valid. */
  async #checkDead({ code, size, transfers }: Noticed): Promise<void> {
    const { file } = this;
    assert.strictEqual(this.#transfers, transfers, 'a completion that came late was counted');
    const is = (error: unknown): boolean => codeOf(error) === code;
    const bytes = new Uint8Array(10).fill(sentinel);
    assert.throws(() => file.tryRead(bytes, 0), is);
    assert.throws(() => file.tryWindow(0, 10), is);
    assert.throws(() => file.readSync(bytes, 0), is);
    assert.throws(() => file.writeSync(bytes, 0), is);
    assert.throws(() => file.resizeSync(1), is);
    assert.throws(() => file.residency(), is);
    assert.throws(() => file.windows(), is);
    assert.throws(() => file.batch(() => undefined), is);
    await assert.rejects(file.read(bytes, 0), is);
    await assert.rejects(file.window(0, 10), is);
    await assert.rejects(file.write(bytes, 0), is);
    await assert.rejects(file.resize(1), is);
    await assert.rejects(file.allocate(0, 1), is);
    await assert.rejects(file.discard(0, 1), is);
    await assert.rejects(file.prefetch(0, 1), is);
    await assert.rejects(file.evict(0, 1), is);
    await assert.rejects(file.extents(), is);
    assert.ok(bytes.every((byte) => byte === sentinel));
    for (const { window, view } of this.held) {
      assert.strictEqual(window.valid, false);
      assert.throws(() => window.bytes, is);
      assert.throws(() => window.areas, is);
      if (window.writable) assert.throws(() => window.markDirty(), is);
      if (view?.some((byte) => byte !== 0)) throw new Error('an older view of a lost file shows something else than zeros');
    }
    const losses = this.#events.filter(({ cause }) => cause === 'unplug' || cause === 'shutdown');
    assert.deepStrictEqual(losses, [{ cause: this.gone, offset: 0, length: size }], 'what listeners were told of the loss');
    this.#checkEvents();
  }

  #checkEvents(): void {
    assert.deepStrictEqual(
      this.#events.map(({ cause, offset }) => ({ cause, offset })),
      this.#expectedEvents,
      'what listeners were told',
    );
    const { generation, stats } = this.file;
    const closed = this.closing !== undefined && this.noticed === undefined ? 1 : 0;
    const cuts = this.#expectedEvents.filter(({ cause }) => cause !== 'close').length;
    assert.deepStrictEqual({ generation, invalidations: stats.invalidations }, { generation: cuts + closed, invalidations: cuts + closed });
  }

  /** What is not named must be on the medium, for good; what is named must have changed since the last flush. */
  #checkLoss(named: Range[], taken: Noticed = this.noticed ?? this.#take('')): void {
    const durable = this.#durable as DiskSnapshot;
    const { state } = taken;
    const capacity = Math.min(this.history.capacity, Math.max(state.most, durable.size) + SECTOR_BYTES);
    const covered = new Uint8Array(capacity);
    for (const { offset, length } of named) covered.fill(1, offset, Math.min(capacity, offset + length));
    const unsure = new Uint8Array(capacity);
    const doubt = ({ change, from, to }: Accepted): void => {
      const { size } = durable;
      unsure.fill(1, change.kind === 'truncate' ? Math.min(from, size) : from, to);
      // What makes the file longer adds what lies before it too.
      if (to > size) unsure.fill(1, size, to);
    };
    for (const accepted of taken.unsure) doubt(accepted);
    for (const accepted of taken.pending) {
      const { change, from, to } = accepted;
      if (this.#excused.has(accepted)) {
        doubt(accepted);
        continue;
      }
      const behind = change.kind === 'truncate' ? from : to;
      for (let at = from; at < Math.min(behind, capacity) && accepted.state === 'failed'; at++)
        if (covered[at] === 0) throw new Error(`a ${change.kind} of [${from}, ${to}) was accepted and refused because of the loss, and ${at} is not named`);
    }
    const held = durable.read(0, durable.size);
    const lastNamed = Math.max(0, ...named.map(({ offset, length }) => offset + length));
    for (let at = 0; at < capacity; at++) {
      if (covered[at] === 1 || unsure[at] === 1 || (at >= state.least && at < state.most)) continue;
      const inFile = at < state.least;
      // Nobody wrote between the old end and what was written behind it, which is named.
      if (inFile && at >= durable.size && at < lastNamed && (state.bytes[at] === 0 || state.unknown[at] === 1)) continue;
      // A cut that was given up leaves the end open too.
      if (inFile !== at < durable.size && state.unknown[at] === 0)
        throw new Error(`the file ended at ${state.most}, and on the medium at ${durable.size}: ${at} was not named as lost`);
      if (inFile && at < durable.size && state.unknown[at] === 0 && held[at] !== state.bytes[at])
        throw new Error(`byte ${at} was accepted as ${state.bytes[at]} and is not named as lost, and the medium has ${held[at]}`);
    }
    if (taken.code === '' || this.#removed || this.#everFailed || this.#truncations.length > 0) return;
    const unit = this.#world.configuration.sectorSize;
    for (let at = 0; at < capacity; at += unit) {
      if (covered[at] === 1 && unsure[at] === 0 && this.history.changedAt(at) <= taken.flushedAt)
        throw new Error(`${at} is named as lost, but a flush has made it durable`);
    }
  }

  /** With the last operation over, memory is held by windows alone. */
  #checkFrames(): void {
    const { frames, ground, manager } = this.parts;
    const { pinned, busy, reserved } = frames.census();
    const problem = (what: string): void => {
      this.#world.problems.push(new Error(`when the engine was given up, ${what}`));
    };
    if (busy !== 0) problem(`${busy} frames were busy`);
    if (manager.slots.freeCount !== manager.slots.slots) problem('slots were taken');
    if (this.noticed === undefined) return;
    if (ground.live === 0 && pinned !== 0) problem(`${pinned} frames of a lost file were pinned by nobody`);
    if (ground.live === 0 && reserved !== 64) problem(`${reserved} of 64 frames of the reserve were there`);
  }

  async #readAll(): Promise<void> {
    const { size } = this.file;
    const observation = this.history.observe(0, size);
    const all = new Uint8Array(size);
    try {
      const count = await this.#drive(this.file.read(all, 0), 'the last read');
      await this.#expectSeen(observation, all.subarray(0, count), 'the last read');
    } finally {
      observation.close();
    }
  }

  async #drive<T>(promise: Promise<T>, what: string): Promise<T> {
    let settled = false;
    const mark = (): void => {
      settled = true;
    };
    promise.then(mark, mark);
    for (let idle = 0; !settled; idle++) {
      if (await this.#world.step()) idle = 0;
      this.#world.checkRules();
      if (idle > idleTurnsMax) throw new Error(`${what} never ends`);
    }
    return promise;
  }

  /** Once all is over. */
  async checkNothingLeft(): Promise<void> {
    for (let i = 0; i < 3; i++) await turn();
    this.releaseAll();
    if (!this.engineClosed) throw new Error('the engine was not closed');
    const { manager, ground } = this.parts;
    assert.strictEqual(manager.slots.freeCount, manager.slots.slots, 'slots are still taken');
    assert.strictEqual(manager.operations.count, 0, 'operations are left');
    assert.strictEqual(manager.waiting, 0, 'somebody waits in line');
    assert.strictEqual(ground.live, 0, 'windows are alive');
    assert.strictEqual(this.engine.inFlight, 0, 'entries are in flight');
    const closes = this.#events.filter(({ cause }) => cause === 'close');
    if (closes.length > 0) this.#expectedEvents.push({ cause: 'close', offset: 0 });
    this.#checkEvents();
    for (const { signal, call } of this.#signals)
      assert.strictEqual(getEventListeners(signal, 'abort').length, 0, `the signal of call ${call} still has a listener`);
    for (const { target, copy } of this.#abandoned) if (Buffer.compare(target, copy) !== 0) throw new Error('the target of a rejected read was stored into');
    this.#world.checkRules();
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

/** A view of what the window shows; undefined where that is a copy, or it shows nothing. */
function viewOf(window: Window): Uint8Array | undefined {
  return window.valid && window.length > 0 && window.areas.length === 1 ? window.bytes : undefined;
}

function rangesOf(error: unknown): Range[] {
  return (error as { ranges: Range[] }).ranges.map(({ offset, length }) => ({ offset, length }));
}
