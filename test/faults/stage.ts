/**
 * What the fault tests share: the place where something happens, the program that holds windows there, and what it must have seen.
 *
 * Guarantees: after each test its programs have ended and its places are taken down, whatever became of it.
 */
import { join } from 'node:path';
import { afterEach, expect } from 'vitest';
import type { Caching } from '../../src/index.js';
import { Places } from '../fixtures/places.js';
import type { ServerOptions } from '../rigs/fuse/behaviour.js';
import { FuseServer } from '../rigs/fuse-server.js';
import { endPrograms, Program } from '../rigs/program.js';
import type { CallsSeen } from './calls.js';
import type { Holder } from './holder.js';
import type { HoldOptions, Observation, Outcome, Range, Thrown } from './holding.js';

export const MEBIBYTE = 2 ** 20;
export const cachings: Caching[] = ['page-cache', 'direct'];
/**
 * How the windows are held. Which engine filled them and whose process it is matters to none of these more than to the others: a run that only changes
 * that (see tools/test.ts) has the first alone.
 */
export const holders: Array<[string, Holder]> = (
  [
    ['on the main thread', 'main'],
    ['in two workers', 'workers'],
    ['inside running calls of Node', 'calls'],
  ] as Array<[string, Holder]>
).slice(0, process.env.SECTORWISE_REPEATED === '1' ? 1 : undefined);

/** Three cells of 2 MiB and a bit, whose end is not a whole page. */
export const SIZE = 6 * MEBIBYTE + 777;
/** Within a page, over pages, over an edge of cells, and up to the end. */
export const WINDOWS: Range[] = [
  { offset: 100, length: 1000 },
  { offset: MEBIBYTE + 300, length: 100_000 },
  { offset: 3 * MEBIBYTE, length: 65_536 },
  { offset: 4 * MEBIBYTE - 8192, length: 16_384 },
  { offset: SIZE - 70_000, length: 70_000 },
];
export const ALL = WINDOWS.map((_window, i) => i);
export const SEED = 7;

/** As long as what is noticed may take to have its effect. */
const PATIENCE_MS = 30_000;

let places: Places | undefined;
const servers: FuseServer[] = [];

/** Each test its own, made when it is first asked for. */
export function lab(): Places {
  places ??= new Places();
  return places;
}

export async function serve(options: ServerOptions): Promise<FuseServer> {
  const server = await FuseServer.start(options);
  servers.push(server);
  return server;
}

export function clearStage(): void {
  afterEach(async () => {
    // In this order: programs that hang in a file system end when it is aborted, and what they hold is free after that.
    for (const server of servers.splice(0)) server.dispose();
    await endPrograms();
    const used = places;
    places = undefined;
    used?.dispose();
  });
}

export async function until(holds: () => boolean | Promise<boolean>, what: string): Promise<void> {
  const end = Date.now() + PATIENCE_MS;
  while (!(await holds())) {
    if (Date.now() > end) throw new Error(`not within ${PATIENCE_MS / 1000} s: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

type HeldFile = Partial<HoldOptions> & { path: string; caching: Caching };

const withDefaults = (options: HeldFile): HoldOptions => ({ seed: SEED, windows: WINDOWS, cacheSize: 4 * MEBIBYTE, ...options });

/** The program that holds windows; each answer is one for each of its threads. */
export class Holders {
  readonly #program: Program;

  private constructor(program: Program) {
    this.#program = program;
  }

  static async start(holder: Holder, options: HeldFile): Promise<Holders> {
    const program = await Program.start('test/faults/holder');
    await program.ask('start', withDefaults(options), holder, join(lab().folder(), 'written'));
    return new Holders(program);
  }

  /** Two workers, each with a file of its own. */
  static async startApart(first: HeldFile, second: HeldFile): Promise<Holders> {
    const program = await Program.start('test/faults/holder');
    await program.ask('start', [withDefaults(first), withDefaults(second)], 'workers');
    return new Holders(program);
  }

  /** By one of the threads. */
  of<T>(thread: number, question: string, ...args: unknown[]): Promise<T> {
    return this.#program.ask('of', thread, question, ...args);
  }

  /** What became of what was asked. */
  answers(): Promise<Outcome[][]> {
    return this.#program.ask('answers');
  }

  ask(kind: 'window' | 'read', range: Range): Promise<unknown> {
    return this.#program.ask('ask', kind, range);
  }

  touch(index: number, at: number, value?: number): Promise<number[]> {
    return this.#program.ask('touch', index, at, value);
  }

  write(bytes: Uint8Array, offset: number): Promise<Array<Thrown | undefined>> {
    return this.#program.ask('write', bytes, offset);
  }

  turnsDuring(what: 'window' | 'read' | 'batch' | 'prefetch', range: Range): Promise<Array<{ turns: number; delayed: boolean; immediate: boolean }>> {
    return this.#program.ask('turnsDuring', what, range);
  }

  /** By every thread, without any of them touching anything. */
  async notice(gone: number[], withEvent = true): Promise<void> {
    for (const noticed of await this.#program.ask<boolean[]>('noticed', gone, withEvent)) {
      expect(noticed, `windows ${gone} are invalid within ${PATIENCE_MS / 1000} s${withEvent ? ', and an event was told' : ''}`).toBe(true);
    }
  }

  async seeSize(size: number): Promise<void> {
    for (const seen of await this.#program.ask<boolean[]>('sized', size)) expect(seen, `the file's size is seen to be ${size}`).toBe(true);
  }

  observe(): Promise<Observation[]> {
    return this.#program.ask('observe');
  }

  /** Node's own calls went on. */
  async callsEnd(): Promise<void> {
    for (const calls of await this.#program.ask<CallsSeen[][]>('stopCalls')) {
      for (const { kind, before, after, errors } of calls) {
        expect(before, kind).toBeGreaterThan(0);
        expect(after, kind).toBeGreaterThan(0);
        // The kernel reads what is written; it gets no signal, and says so.
        expect(
          errors.filter((code) => !(kind === 'write' && code === 'EFAULT')),
          kind,
        ).toEqual([]);
      }
    }
  }

  /** Releasing never throws. */
  async release(): Promise<void> {
    for (const error of await this.#program.ask<Array<Thrown | undefined>>('release')) expect(error).toBeUndefined();
  }

  close(): Promise<Array<Thrown | undefined>> {
    return this.#program.ask('close');
  }

  /** The process is alive up to its own end. */
  async end(): Promise<void> {
    await this.#program.ask('end');
    expect(await this.#program.ended).toEqual({ code: 0, signal: null, output: '' });
  }

  /** Nothing was lost that was to be written, so closing goes well. */
  async finish(): Promise<void> {
    await this.callsEnd();
    await this.release();
    for (const error of await this.close()) expect(error).toBeUndefined();
    await this.end();
  }
}

const typed = (code: string, { offset, length }: Range): object => ({ name: 'SectorwiseError', code, offset, length });

/** The window says why it died, and the view of before reads as zeros from `zerosFrom` on. */
export function expectDead({ windows }: Observation, index: number, code: string, zerosFrom = 0): void {
  const seen = windows[index];
  expect(seen.valid, `window ${index}`).toBe(false);
  expect(seen.bytes, `bytes of window ${index}`).toMatchObject(typed(code, seen));
  expect(seen.check, `check of window ${index}`).toMatchObject(typed(code, seen));
  expect(seen.zerosFrom, `the view of window ${index} has only zeros from here on`).toBeLessThanOrEqual(zerosFrom);
}

export function expectAlive({ windows }: Observation, index: number): void {
  const { valid, bytes, check, intact, length } = windows[index];
  expect({ valid, bytes, check, intact }, `window ${index}`).toEqual({ valid: true, bytes: undefined, check: undefined, intact: length });
}

/** Nothing is to be had: `window`, `read` and `batch` reject with `code`; `tryWindow` and `tryRead` throw it or have nothing. */
export function expectNothing(seen: Observation, index: number, code: string): void {
  for (const kind of ['window', 'read', 'batch'] as const) expect(seen[kind][index], `${kind} ${index}`).toMatchObject({ error: { code } });
  for (const kind of ['tryWindow', 'tryRead'] as const) {
    const outcome = seen[kind][index];
    if (outcome.missing !== true) expect(outcome, `${kind} ${index}`).toMatchObject({ error: { code } });
  }
}

/** All that the file still has of the range is to be had, and is right. */
export function expectSome(seen: Observation, index: number, length: number): void {
  const whole: Outcome = { length, intact: length };
  for (const kind of ['window', 'read', 'batch'] as const) expect(seen[kind][index], `${kind} ${index}`).toEqual(whole);
  for (const kind of ['tryWindow', 'tryRead'] as const) {
    const outcome = seen[kind][index];
    // At and past the end there is nothing that could be missing.
    if (outcome.missing !== true || length === 0) expect(outcome, `${kind} ${index}`).toEqual(whole);
  }
}

/** Everything is gone. */
export function expectLost(seen: Observation, code: string, cause: string, size = SIZE): void {
  for (const index of ALL) {
    expectDead(seen, index, code);
    expectNothing(seen, index, code);
  }
  expect(seen.events).toEqual([{ cause, offset: 0, length: size }]);
  expect(seen.generation).toBeGreaterThanOrEqual(1);
  expect(seen.invalidations).toBeGreaterThanOrEqual(1);
  for (const outcome of seen.pending) expect(outcome).toMatchObject({ error: { code } });
  expect(['io_uring', 'threads']).toContain(seen.engine);
}
