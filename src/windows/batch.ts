/**
 * Many requests as one: what is in memory is handed over during `get`, the rest later, in the order it arrives.
 *
 * Guarantees: `onWindow` or `onError` runs once for each `get` that did not throw; never one inside another; the window is released when `onWindow` returns or throws.
 * A request that is answered at once costs no allocation besides its window, whatever tier V8 runs this in: methods on that way hold no closures (a closure
 * makes V8 allocate a context for the whole method that it is in, wherever in it), and their queue keeps its memory.
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

/** Places for requests within a callback, at first. A power of two. */
const NESTED = 8;

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
  /** Asked for in a callback and in memory: rings of one length, a power of two. */
  #nestedWindows: (Window | undefined)[] = new Array(NESTED).fill(undefined);
  #nestedContexts: (T | undefined)[] = new Array(NESTED).fill(undefined);
  #nestedHead = 0;
  #nested = 0;
  #inCallback = false;
  /** What a callback threw first during the `get` that is under way. */
  #hasThrown = false;
  #thrown: unknown;
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
    if (this.#signal?.aborted === true) {
      this.#refuse(context);
      return;
    }
    const window = this.#source.tryWindow(offset, length);
    this.#pending++;
    if (window === undefined) {
      this.#ask(offset, length, context);
    } else if (this.#inCallback) {
      this.#giveLater(window, context);
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

  /** Aborted already: says so from the event loop. */
  #refuse(context: T): void {
    this.#pending++;
    this.#source.handover(() => this.#fail(abortError(this.#signal as AbortSignal), context));
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

  /** A callback is running: after it. */
  #giveLater(window: Window, context: T): void {
    if (this.#nested === this.#nestedWindows.length) {
      this.#nestedWindows = inOrder(this.#nestedWindows, this.#nestedHead);
      this.#nestedContexts = inOrder(this.#nestedContexts, this.#nestedHead);
      this.#nestedHead = 0;
    }
    const at = (this.#nestedHead + this.#nested++) & (this.#nestedWindows.length - 1);
    this.#nestedWindows[at] = window;
    this.#nestedContexts[at] = context;
  }

  /** During `get`. What is thrown first comes out of it, but not before those who asked in the callback were answered. */
  #giveNow(window: Window, context: T): void {
    try {
      this.#give(window, context, false);
    } catch (thrown) {
      this.#hasThrown = true;
      this.#thrown = thrown;
    }
    if (this.#nested > 0) this.#giveRest(true);
    if (!this.#hasThrown) return;
    const thrown = this.#thrown;
    this.#hasThrown = false;
    this.#thrown = undefined;
    throw thrown;
  }

  /** What was asked for in a callback and was in memory. `within` a `get`, the first that is thrown is kept for that; what else is thrown is the batch's. */
  #giveRest(within: boolean): void {
    while (this.#nested > 0) {
      const at = this.#nestedHead;
      const window = this.#nestedWindows[at] as Window;
      const context = this.#nestedContexts[at] as T;
      this.#nestedWindows[at] = undefined;
      this.#nestedContexts[at] = undefined;
      this.#nestedHead = (at + 1) & (this.#nestedWindows.length - 1);
      this.#nested--;
      try {
        this.#give(window, context, false);
      } catch (thrown) {
        if (within && !this.#hasThrown) {
          this.#hasThrown = true;
          this.#thrown = thrown;
        } else {
          this.#keep(thrown);
        }
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
    this.#giveRest(false);
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
    this.#giveRest(false);
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

/** A ring that is full, begun at its head, with as many free places. */
function inOrder<E>(ring: (E | undefined)[], head: number): (E | undefined)[] {
  return [...ring.slice(head), ...ring.slice(0, head), ...new Array<undefined>(ring.length).fill(undefined)];
}
