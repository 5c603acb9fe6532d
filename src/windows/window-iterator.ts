/**
 * Consecutive windows, asked for ahead of the one that is being looked at.
 *
 * Guarantees: each window is released once, when the next is asked for or the loop ends; at the end of the loop nothing that was asked for ahead stays pinned.
 */
import type { Window } from './window.js';

export interface WindowSteps {
  start: number;
  /** Undefined: to the end of the file, wherever it is by then. */
  end: number | undefined;
  step: number;
  /** Windows asked for ahead. */
  ahead: number;
}

export class WindowIterator implements AsyncIterableIterator<Window>, AsyncDisposable {
  readonly #ask: (offset: number, length: number) => Promise<Window>;
  readonly #steps: WindowSteps;
  #next: number;
  #asked: Promise<Window>[] = [];
  #current: Window | undefined;
  #ended = false;

  constructor(ask: (offset: number, length: number) => Promise<Window>, steps: WindowSteps) {
    this.#ask = ask;
    this.#steps = steps;
    this.#next = steps.start;
  }

  async next(): Promise<IteratorResult<Window>> {
    this.#drop();
    if (this.#ended) return { done: true, value: undefined };
    this.#askAhead();
    const first = this.#asked.shift();
    if (first === undefined) return this.return();
    // The place of the one taken is filled before it is waited for.
    this.#askAhead();
    let window: Window;
    try {
      window = await first;
    } catch (error) {
      await this.return();
      throw error;
    }
    if (this.#ended || window.length === 0) {
      window.release();
      return this.return();
    }
    this.#current = window;
    return { done: false, value: window };
  }

  async return(): Promise<IteratorResult<Window>> {
    this.#ended = true;
    this.#drop();
    const asked = this.#asked;
    this.#asked = [];
    for (const promise of asked) {
      // Their errors were never anybody's to see: the loop ended before it came to them.
      promise.then(
        (window) => window.release(),
        () => undefined,
      );
    }
    return { done: true, value: undefined };
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.return();
  }

  #askAhead(): void {
    const { end, step, ahead } = this.#steps;
    while (this.#asked.length <= ahead && (end === undefined || this.#next < end)) {
      const promise = this.#ask(this.#next, Math.min(step, (end ?? Number.MAX_SAFE_INTEGER) - this.#next));
      // Seen when its turn comes; until then it must not count as unhandled.
      promise.catch(() => undefined);
      this.#asked.push(promise);
      this.#next += step;
      if (this.#asked.length === 1 && ahead === 0) break;
    }
  }

  #drop(): void {
    this.#current?.release();
    this.#current = undefined;
  }
}
