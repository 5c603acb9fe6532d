/**
 * Somebody who has a file open and windows over it while something happens to it: what he sees before, when he notices, and afterwards.
 *
 * Runs in the main thread of a program (holder.ts) and in its workers. Says what it sees and judges nothing: the tests do.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { type BlockFile, type Caching, type InvalidateReason, open, type Window } from '../../src/index.js';
import { intactBytes } from '../rigs/pattern.js';

export interface Range {
  offset: number;
  length: number;
}

export interface HoldOptions {
  path: string;
  caching: Caching;
  seed: number;
  windows: Range[];
  access?: 'read' | 'read-write';
  writable?: boolean;
  cacheSize?: number;
}

/** What was thrown, as far as messages between threads carry it. */
export interface Thrown {
  name: string;
  code?: string;
  syscall?: string;
  offset?: number;
  length?: number;
}

/** What a request over a range gave: as many bytes (intact from the first up to `intact`), nothing, or an error. */
export interface Outcome {
  length?: number;
  intact?: number;
  missing?: boolean;
  error?: Thrown;
}

export interface WindowSeen extends Range {
  valid: boolean;
  /** What `bytes` and `check` throw. */
  bytes?: Thrown;
  check?: Thrown;
  /** Of the view that was taken before it happened: each byte from `intact` on is no longer what it was. */
  intact: number;
  /** First byte of that view from which on all are 0; its length if the last is not. */
  zerosFrom: number;
}

export interface Observation {
  windows: WindowSeen[];
  events: InvalidateReason[];
  /** By how much it grew. */
  generation: number;
  size: number;
  /** New requests over the same ranges. */
  tryWindow: Outcome[];
  window: Outcome[];
  read: Outcome[];
  tryRead: Outcome[];
  batch: Outcome[];
  /** What was asked for before and had no answer yet. */
  pending: Outcome[];
  faults: number;
  invalidations: number;
  /** `explain` still answers. */
  engine: string;
}

/** As long as detection may take. */
const PATIENCE_MS = 30_000;

export function thrown(error: unknown): Thrown {
  const { name, code, syscall, offset, length } = error as Thrown;
  return { name, code, syscall, offset, length };
}

function thrownBy(act: () => unknown): Thrown | undefined {
  try {
    act();
    return undefined;
  } catch (error) {
    return thrown(error);
  }
}

export class Holding {
  readonly file: BlockFile;
  /** Of each window, from before. */
  readonly views: Uint8Array[] = [];
  readonly #options: HoldOptions;
  readonly #windows: Window[] = [];
  readonly #events: InvalidateReason[] = [];
  readonly #pending: Array<Promise<Outcome>> = [];
  readonly #generation: number;

  private constructor(file: BlockFile, options: HoldOptions) {
    this.file = file;
    this.#options = options;
    this.#generation = file.generation;
    file.on('invalidate', (reason) => this.#events.push({ ...reason }));
  }

  /** Opens, takes the windows and looks at every byte. */
  static async open(options: HoldOptions): Promise<Holding> {
    const { path, caching, access, cacheSize } = options;
    const holding = new Holding(await open(path, { caching, access, cacheSize }), options);
    for (const { offset, length } of options.windows) {
      const window = await holding.file.window(offset, length, { writable: options.writable });
      const view = window.bytes;
      const intact = intactBytes(view, offset, options.seed);
      if (intact !== length) throw new Error(`before anything happened, only ${intact} of ${length} bytes at ${offset} are right`);
      holding.#windows.push(window);
      holding.views.push(view);
    }
    return holding;
  }

  /** Asks, and does not wait. */
  ask(kind: 'window' | 'read', { offset, length }: Range): void {
    this.#pending.push(kind === 'window' ? this.#window({ offset, length }) : this.#read({ offset, length }));
  }

  /** What became of that; `missing` for what has no answer yet, after as long as it may take. */
  async answers(): Promise<Outcome[]> {
    return await Promise.all(this.#pending.map((one) => Promise.race([one, sleep(PATIENCE_MS, { missing: true }, { ref: false })])));
  }

  /** Touches a byte of a view, with or without storing. */
  touch(index: number, at: number, value?: number): number {
    if (value !== undefined) this.views[index][at] = value;
    return this.views[index][at];
  }

  /** Waits until the windows of these indices are invalid and there was an event. Touches nothing. False if it never came to that. */
  async noticed(gone: number[], withEvent: boolean): Promise<boolean> {
    const until = Date.now() + PATIENCE_MS;
    while (gone.some((index) => this.#windows[index].valid) || (withEvent && this.#events.length === 0)) {
      if (Date.now() > until) return false;
      await sleep(10);
    }
    return true;
  }

  /** Waits until the file's size is seen to be this. */
  async sized(size: number): Promise<boolean> {
    const until = Date.now() + PATIENCE_MS;
    while (this.file.size !== size) {
      if (Date.now() > until) return false;
      await sleep(10);
    }
    return true;
  }

  async observe(): Promise<Observation> {
    const { file } = this;
    const ranges = this.#options.windows;
    const windows = this.#windows.map((window, i): WindowSeen => {
      const { offset, length } = ranges[i];
      const view = this.views[i];
      let zerosFrom = view.length;
      while (zerosFrom > 0 && view[zerosFrom - 1] === 0) zerosFrom--;
      return {
        offset,
        length,
        valid: window.valid,
        bytes: thrownBy(() => window.bytes),
        check: thrownBy(() => window.check()),
        intact: intactBytes(view, offset, this.#options.seed),
        zerosFrom,
      };
    });
    return {
      windows,
      tryWindow: ranges.map((range) => this.#tryWindow(range)),
      tryRead: ranges.map((range) => this.#tryRead(range)),
      window: await Promise.all(ranges.map((range) => this.#window(range))),
      read: await Promise.all(ranges.map((range) => this.#read(range))),
      batch: await this.#batch(ranges),
      pending: await Promise.all(this.#pending),
      // Last, so that what the calls above led to is in it.
      events: [...this.#events],
      generation: file.generation - this.#generation,
      size: file.size,
      faults: file.stats.faults,
      invalidations: file.stats.invalidations,
      engine: file.explain().engine,
    };
  }

  /** Lets every window go, twice: what that throws. */
  release(): Thrown | undefined {
    return thrownBy(() => {
      for (const window of this.#windows) {
        window.release();
        window.release();
      }
    });
  }

  async close(): Promise<Thrown | undefined> {
    const error = await this.file.close().then(() => undefined, thrown);
    return this.release() ?? error;
  }

  #seen(window: Window, offset: number): Outcome {
    const { length } = window;
    const outcome: Outcome = { length };
    try {
      outcome.intact = intactBytes(window.bytes, offset, this.#options.seed);
    } catch (error) {
      outcome.error = thrown(error);
    }
    window.release();
    return outcome;
  }

  #tryWindow({ offset, length }: Range): Outcome {
    try {
      const window = this.file.tryWindow(offset, length);
      return window === undefined ? { missing: true } : this.#seen(window, offset);
    } catch (error) {
      return { error: thrown(error) };
    }
  }

  #tryRead({ offset, length }: Range): Outcome {
    const target = new Uint8Array(length);
    try {
      const count = this.file.tryRead(target, offset);
      return count === undefined ? { missing: true } : { length: count, intact: intactBytes(target.subarray(0, count), offset, this.#options.seed) };
    } catch (error) {
      return { error: thrown(error) };
    }
  }

  #window({ offset, length }: Range): Promise<Outcome> {
    return this.file.window(offset, length).then(
      (window) => this.#seen(window, offset),
      (error) => ({ error: thrown(error) }),
    );
  }

  #read({ offset, length }: Range): Promise<Outcome> {
    const target = new Uint8Array(length);
    return this.file.read(target, offset).then(
      (count) => ({ length: count, intact: intactBytes(target.subarray(0, count), offset, this.#options.seed) }),
      (error) => ({ error: thrown(error) }),
    );
  }

  async #batch(ranges: Range[]): Promise<Outcome[]> {
    const outcomes: Outcome[] = [];
    try {
      const batch = this.file.batch<number>(
        (window, i) => {
          outcomes[i] = { length: window.length, intact: intactBytes(window.bytes, window.offset, this.#options.seed) };
        },
        (error, i) => {
          outcomes[i] = { error: thrown(error) };
        },
      );
      ranges.forEach(({ offset, length }, i) => {
        try {
          batch.get(offset, length, i);
        } catch (error) {
          outcomes[i] = { error: thrown(error) };
        }
      });
      await batch.end();
      return outcomes;
    } catch (error) {
      return ranges.map(() => ({ error: thrown(error) }));
    }
  }
}
