/**
 * Many requests as one: what is in memory is handed over during `get`, the rest later, in the order it arrives.
 *
 * Guarantees: `onWindow` or `onError` runs once for each `get` that did not throw; never one inside another; the window is released when `onWindow` returns or throws.
 */
import { abortError, SectorwiseError } from '../errors.js';
import type { Window } from './window.js';

/** Many requests as one, made by `BlockFile.batch`. */
export interface Batch<T> {
  /**
   * Asks for a window of `length` bytes at `offset`; `context` comes back with it. Queues without limit; watch `pending`.
   *
   * Throws as `tryWindow` does, what `onWindow` threw during it, and ERR_SECTORWISE_BATCH_ENDED after `end`.
   */
  get(offset: number, length: number, context: T): void;
  /** Requests that were neither handed over nor failed so far. */
  readonly pending: number;
  /** Resolves when every request has been handed over or failed; how many were answered at once, later, and with an error. No `get` after it. */
  end(): Promise<{
    /** Windows that were handed over during `get`. */
    immediate: number;
    /** Windows that were handed over later. */
    delayed: number;
    /** Requests that got an error instead. */
    failed: number;
  }>;
}

/** What a batch needs of its file. */
export interface BatchSource {
  readonly path: string;
  tryWindow(offset: number, length: number): Window | undefined;
  /** Asks for the window later; answers with how to give up. Exactly one of the two is called, unless given up. */
  later(offset: number, length: number, ready: (window: Window) => void, failed: (error: Error) => void): () => void;
  /** Runs from the event loop, outside any call of the library. */
  handover(run: () => void): void;
}

export class FileBatch<T> implements Batch<T> {
  readonly #source: BatchSource;
  readonly #onWindow: (window: Window, context: T, delayed: boolean) => void;
  readonly #onError: ((error: Error, context: T) => void) | undefined;
  readonly #signal: AbortSignal | undefined;
  readonly #waiting = new Set<{ cancel: () => void; context: T }>();
  readonly #nested: { window: Window; context: T }[] = [];
  #inCallback = false;
  #pending = 0;
  #immediate = 0;
  #delayed = 0;
  #failed = 0;
  #firstError: Error | undefined;
  #hasError = false;
  #ended: { resolve: (counts: { immediate: number; delayed: number; failed: number }) => void; reject: (error: Error) => void } | undefined;
  #endPromise: Promise<{ immediate: number; delayed: number; failed: number }> | undefined;
  readonly #onAbort = (): void => this.#abort();

  constructor(
    source: BatchSource,
    onWindow: (window: Window, context: T, delayed: boolean) => void,
    onError: ((error: Error, context: T) => void) | undefined,
    signal: AbortSignal | undefined,
  ) {
    this.#source = source;
    this.#onWindow = onWindow;
    this.#onError = onError;
    this.#signal = signal;
    signal?.addEventListener('abort', this.#onAbort, { once: true });
  }

  get pending(): number {
    return this.#pending;
  }

  get(offset: number, length: number, context: T): void {
    if (this.#endPromise !== undefined) {
      throw new SectorwiseError('ERR_SECTORWISE_BATCH_ENDED', 'The batch was ended; make another with file.batch().', { path: this.#source.path });
    }
    const aborted = this.#signal?.aborted === true;
    const window = aborted ? undefined : this.#source.tryWindow(offset, length);
    this.#pending++;
    if (aborted) {
      this.#source.handover(() => this.#fail(abortError(this.#signal as AbortSignal), context));
    } else if (window === undefined) {
      this.#ask(offset, length, context);
    } else if (this.#inCallback) {
      this.#nested.push({ window, context });
    } else {
      this.#giveNow(window, context);
    }
  }

  end(): Promise<{ immediate: number; delayed: number; failed: number }> {
    this.#endPromise ??= new Promise((resolve, reject) => {
      this.#ended = { resolve, reject };
      this.#finish();
    });
    return this.#endPromise;
  }

  #ask(offset: number, length: number, context: T): void {
    const entry = { cancel: (): void => {}, context };
    this.#waiting.add(entry);
    entry.cancel = this.#source.later(
      offset,
      length,
      (window) => {
        this.#waiting.delete(entry);
        this.#source.handover(() => this.#deliver(window, context));
      },
      (error) => {
        this.#waiting.delete(entry);
        this.#source.handover(() => this.#fail(error, context));
      },
    );
  }

  /** Throws what `onWindow` throws. */
  #give(window: Window, context: T, delayed: boolean): void {
    this.#pending--;
    if (delayed) this.#delayed++;
    else this.#immediate++;
    this.#inCallback = true;
    try {
      this.#onWindow(window, context, delayed);
    } finally {
      this.#inCallback = false;
      window.release();
    }
  }

  /** During `get`. What is thrown first comes out of it, but not before those who asked in the callback were answered. */
  #giveNow(window: Window, context: T): void {
    let problem: { thrown: unknown } | undefined;
    try {
      this.#give(window, context, false);
    } catch (thrown) {
      problem = { thrown };
    }
    if (this.#nested.length > 0) {
      this.#giveRest((thrown) => {
        if (problem === undefined) problem = { thrown };
        else this.#keep(thrown);
      });
    }
    if (problem !== undefined) throw problem.thrown;
  }

  /** What was asked for in a callback and was in memory. */
  #giveRest(onThrow: (thrown: unknown) => void): void {
    for (let next = this.#nested.shift(); next !== undefined; next = this.#nested.shift()) {
      try {
        this.#give(next.window, next.context, false);
      } catch (thrown) {
        onThrow(thrown);
      }
    }
    this.#finish();
  }

  #deliver(window: Window, context: T): void {
    if (this.#signal?.aborted) {
      // It came between the abort and its turn.
      window.release();
      this.#fail(abortError(this.#signal), context);
      return;
    }
    try {
      this.#give(window, context, true);
    } catch (error) {
      this.#keep(error);
    }
    this.#giveRest((thrown) => this.#keep(thrown));
  }

  #fail(error: Error, context: T): void {
    this.#pending--;
    this.#failed++;
    if (this.#onError === undefined) this.#keep(error);
    else {
      this.#inCallback = true;
      try {
        this.#onError(error, context);
      } catch (thrown) {
        this.#keep(thrown);
      } finally {
        this.#inCallback = false;
      }
    }
    this.#giveRest((thrown) => this.#keep(thrown));
  }

  #keep(error: unknown): void {
    if (this.#hasError) return;
    this.#hasError = true;
    this.#firstError = error as Error;
  }

  #abort(): void {
    const error = abortError(this.#signal as AbortSignal);
    for (const { cancel, context } of this.#waiting) {
      cancel();
      this.#source.handover(() => this.#fail(error, context));
    }
    this.#waiting.clear();
  }

  #finish(): void {
    if (this.#ended === undefined || this.#pending > 0) return;
    const { resolve, reject } = this.#ended;
    this.#ended = undefined;
    this.#signal?.removeEventListener('abort', this.#onAbort);
    if (this.#hasError) reject(this.#firstError as Error);
    else resolve({ immediate: this.#immediate, delayed: this.#delayed, failed: this.#failed });
  }
}
