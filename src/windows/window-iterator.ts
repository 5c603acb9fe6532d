/**
 * Consecutive windows, asked for ahead of the one that is being looked at.
 *
 * Guarantees: each window begins where the one before it ended; each is released once, when the next is asked for or the loop ends; at the end of the loop, and
 * when the signal fires, nothing that was asked for ahead stays pinned.
 */
import { abortError } from '../errors.js';
import type { Window } from './window.js';

/** Windows asked for ahead at most, however small the steps. */
const AHEAD_MAX = 64;

export interface WindowSteps {
  start: number;
  /** Undefined: to the end of the file, wherever it is by then. */
  end: number | undefined;
  step: number;
  /** Windows asked for ahead. */
  ahead: number;
  signal: AbortSignal | undefined;
  /** The window if it is in memory: asked before a promise is made. Only looked at without `ahead`. */
  now?: (offset: number, length: number) => Window | undefined;
  /** Called before the first window is asked for, and once after that when the loop is over. */
  began?: () => void;
  ended?: () => void;
}

interface Asked {
  /** Where it ends, unless the file does before. */
  end: number;
  window: Promise<Window>;
  /** Gives it up, so that what is not wanted any more does not make the device work. */
  control: AbortController;
}

export class WindowIterator implements AsyncIterableIterator<Window>, AsyncDisposable {
  readonly #ask: (offset: number, length: number, signal: AbortSignal) => Promise<Window>;
  readonly #steps: WindowSteps;
  #next: number;
  #asked: Asked[] = [];
  #current: Window | undefined;
  #began = false;
  #ended = false;
  /** Calls of `next` that have not answered. */
  #waiting = 0;
  /** Calls of `next` that overlap take their turns: each owns the window that it answers with until the following one. */
  #turn: Promise<unknown> = Promise.resolve();
  readonly #onAbort = (): void => this.#giveUp((this.#steps.signal as AbortSignal).reason);

  constructor(ask: (offset: number, length: number, signal: AbortSignal) => Promise<Window>, steps: WindowSteps) {
    this.#ask = ask;
    this.#steps = steps;
    this.#next = steps.start;
    // One listener for the whole loop.
    steps.signal?.addEventListener('abort', this.#onAbort, { once: true });
  }

  next(): Promise<IteratorResult<Window>> {
    if (this.#waiting === 0) {
      try {
        const window = this.#immediate();
        if (window !== undefined) return Promise.resolve({ done: false, value: window });
      } catch (error) {
        this.#end();
        return Promise.reject(error);
      }
    }
    this.#waiting++;
    const result = this.#turn.then(() => this.#step());
    const answered = (): void => {
      this.#waiting--;
    };
    this.#turn = result.then(answered, answered);
    return result;
  }

  /** The next window, if it can be had without waiting. */
  #immediate(): Window | undefined {
    const { end = Number.MAX_SAFE_INTEGER, step, ahead, now, signal } = this.#steps;
    if (now === undefined || ahead > 0 || this.#asked.length > 0 || this.#ended || this.#next >= end || signal?.aborted) return undefined;
    this.#drop();
    this.#begin();
    const window = now(this.#next, Math.min(step, end - this.#next));
    if (window === undefined) return undefined;
    if (window.length === 0) {
      window.release();
      return undefined;
    }
    this.#current = window;
    this.#next = window.offset + window.length;
    return window;
  }

  #begin(): void {
    if (this.#began) return;
    this.#began = true;
    this.#steps.began?.();
  }

  async #step(): Promise<IteratorResult<Window>> {
    this.#drop();
    if (this.#ended) return { done: true, value: undefined };
    const { signal } = this.#steps;
    if (signal?.aborted) {
      this.#end();
      throw abortError(signal);
    }
    this.#begin();
    // What comes behind the first is asked for before it is waited for.
    this.#askAhead();
    const first = this.#asked[0];
    if (first === undefined) return this.return();
    let window: Window;
    try {
      window = await first.window;
    } catch (error) {
      // Given up because the loop ended: that is no failure.
      if (this.#ended) return { done: true, value: undefined };
      this.#end();
      throw error;
    }
    // Whoever ended the loop meanwhile, or aborted it, has released this one.
    if (this.#ended) return { done: true, value: undefined };
    if (this.#asked[0] !== first) {
      this.#end();
      throw abortError(signal as AbortSignal);
    }
    if (window.length === 0) return this.return();
    this.#asked.shift();
    this.#current = window;
    const end = window.offset + window.length;
    if (end < first.end) {
      // The end of the file as it was when this one was asked for. If there is more by now, it begins here.
      this.#giveUp(undefined);
      this.#next = end;
    }
    return { done: false, value: window };
  }

  async return(): Promise<IteratorResult<Window>> {
    this.#end();
    return { done: true, value: undefined };
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#end();
  }

  #askAhead(): void {
    const { end = Number.MAX_SAFE_INTEGER, step, ahead } = this.#steps;
    const most = 1 + Math.min(ahead, AHEAD_MAX);
    while (this.#asked.length < most && this.#next < end) {
      const control = new AbortController();
      const length = Math.min(step, end - this.#next);
      const window = this.#ask(this.#next, length, control.signal);
      // Seen when its turn comes; until then it must not count as unhandled.
      window.catch(() => undefined);
      this.#next += length;
      this.#asked.push({ end: this.#next, window, control });
    }
  }

  /** What was asked for ahead is not wanted any more. Its errors are nobody's to see, unless it is waited for. */
  #giveUp(reason: unknown): void {
    const asked = this.#asked;
    this.#asked = [];
    for (const { window, control } of asked) {
      window.then(
        (unwanted) => unwanted.release(),
        () => undefined,
      );
      control.abort(reason);
    }
  }

  #end(): void {
    if (this.#ended) return;
    this.#ended = true;
    if (this.#began) this.#steps.ended?.();
    this.#steps.signal?.removeEventListener('abort', this.#onAbort);
    this.#drop();
    this.#giveUp(undefined);
  }

  #drop(): void {
    this.#current?.release();
    this.#current = undefined;
  }
}
