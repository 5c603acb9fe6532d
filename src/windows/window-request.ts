/**
 * The caller that a plain `window()` is: nothing stands before it, nobody may abort it. One object where the general way needs a handful of closures.
 * Read-ahead is the same class: a second kind of object would make V8 compile the request manager again, for both kinds.
 */
import { ALL_SECTORS, BLOCK_BYTES } from '../memory/block-store.js';
import type { Caller } from '../requests/request-manager.js';
import type { Access } from './access.js';
import { blocksOver, needOf } from './direct-access.js';
import type { Window } from './window.js';

export class WindowRequest implements Caller {
  readonly first: number;
  readonly count: number;
  readonly needFirst: number;
  readonly needLast: number;
  readonly end: number;
  handle = 0;
  waiting = false;
  readonly #access: Access;
  readonly #offset: number;
  readonly #length: number;
  readonly #resolve: (window: Window) => void;
  readonly #reject: (error: unknown) => void;

  /** With `ended` no window is made: it is told instead, and the blocks are given back. */
  readonly #ended: ((error: Error | undefined) => void) | undefined;

  constructor(
    access: Access,
    offset: number,
    length: number,
    resolve: (window: Window) => void,
    reject: (error: unknown) => void,
    ended?: (error: Error | undefined) => void,
  ) {
    this.#access = access;
    this.#offset = offset;
    this.#length = length;
    this.#resolve = resolve;
    this.#reject = reject;
    this.#ended = ended;
    this.first = Math.floor(offset / BLOCK_BYTES);
    this.count = blocksOver(offset, length);
    this.end = offset + length;
    this.needFirst = needOf(0, offset, length);
    this.needLast = needOf(this.count - 1, offset, length);
  }

  // What is the same for all of them takes no memory in each.
  get needMiddle(): number {
    return ALL_SECTORS;
  }

  get store(): boolean {
    return false;
  }

  get blocking(): boolean {
    return false;
  }

  get direct(): boolean {
    return this.#ended === undefined;
  }

  settle(error: Error | undefined): void {
    if (this.#ended !== undefined) {
      if (error === undefined) this.#access.giveBack(this.#offset, this.#length);
      this.#ended(error);
      return;
    }
    if (error !== undefined) {
      this.#reject(error);
      return;
    }
    try {
      this.#resolve(this.#access.windowFrom(this.#offset, this.#length, false, false));
    } catch (thrown) {
      this.#reject(thrown);
    }
  }
}
