/**
 * What windows stand on: the sizes of a file, and whether its bytes can still be had.
 *
 *   logical    what readers see: every accepted write counts
 *   committed  where the device has bytes up to; behind while a grown end is not written yet, ahead by the padding of a direct write until the flush
 *
 * Guarantees: a window is refused from the moment that its range was cut, its file closed or its device lost; windows before a cut stay good.
 * Leaves to others: finding out (`unplug/`), re-pointing the memory (`memory/`).
 */
import { CAUSE_CLOSE, CAUSE_NONE, causeError } from '../memory/validity.js';
import { Cuts } from './cuts.js';
import type { FileWindow } from './window.js';

export class Ground {
  readonly path: string;
  logical: number;
  committed: number;
  /** Where the device had bytes up to for certain; undefined where `committed` says it. That counts writes as they are sent, and one that fails may have moved the end or not. */
  certain: number | undefined;
  /** The least size that was seen since somebody else cut the file and nobody looked into it. */
  fallen = Number.POSITIVE_INFINITY;
  /** A truncation of our own is under way: what the size is seen to be may be its doing. */
  sizing = false;
  /** Grows by one each time that windows were invalidated. */
  generation = 0;
  /** Windows that have references. */
  live = 0;
  invalidations = 0;
  /** The file's word in the validity table: not 0 once the whole of it is gone. */
  readonly #words: Int32Array;
  readonly #word: number;
  readonly #cuts = new Cuts();
  closed = false;
  /** Why the whole of it is gone, other than by `close`. */
  #lost = CAUSE_NONE;

  /** Where a watcher reads whether windows are alive. */
  #alive: Int32Array = new Int32Array(1);
  #aliveWord = 0;

  constructor(path: string, size: number, words: Int32Array, word: number) {
    this.path = path;
    this.logical = size;
    this.committed = size;
    this.#words = words;
    this.#word = word;
  }

  /** Fewer bytes than these, and somebody else cut the file. */
  get seen(): number {
    return this.certain ?? this.committed;
  }

  /** Something of ours, or a look at the file, says that the device has bytes up to `end`. */
  reached(end: number): void {
    if (this.certain !== undefined && end > this.certain) this.certain = end;
  }

  /** We set the size. */
  sized(size: number): void {
    this.committed = size;
    if (this.certain !== undefined) this.certain = size;
    // What was cut before is cut again by this.
    if (size <= this.fallen) this.fallen = Number.POSITIVE_INFINITY;
  }

  /** Why the window's bytes are not the file's any more; 0 if they are. */
  causeOf(window: FileWindow): number {
    const whole = this.gone;
    if (whole !== CAUSE_NONE) return whole;
    if (window.generation === this.generation) return 0;
    return this.#cuts.causeFor(window.generation, window.offset, window.offset + window.length);
  }

  check(window: FileWindow): void {
    const cause = this.causeOf(window);
    if (cause !== 0) throw causeError(cause, { path: this.path, offset: window.offset, length: window.length });
  }

  /** Why the whole file is gone, as far as anybody has found out: the word may be set by another thread before this one is told. */
  get gone(): number {
    if (this.#lost !== CAUSE_NONE) return this.#lost;
    return this.closed ? CAUSE_CLOSE : this.#words[this.#word];
  }

  /** All of it is gone, for good. Keeps the cause that the word may have already; answers with it. */
  lose(cause: number): number {
    const known = Atomics.compareExchange(this.#words, this.#word, CAUSE_NONE, cause);
    this.#lost = known === CAUSE_NONE ? cause : known;
    this.generation++;
    this.invalidations++;
    return this.#lost;
  }

  /** The bytes from `from` on are gone, for every window made so far. */
  cut(from: number, cause: number): void {
    this.generation++;
    this.invalidations++;
    if (this.live > 0) this.#cuts.add(this.generation, from, cause);
  }

  /** The bytes [from, to) are gone for every window made so far; a window made from now on may have them again. */
  loseRange(from: number, to: number, cause: number): void {
    this.generation++;
    this.invalidations++;
    if (this.live > 0) this.#cuts.addLoss(this.generation, from, to, cause);
  }

  /** For good. The word can be given to another file after this. */
  close(): void {
    this.closed = true;
    this.tellAlive(new Int32Array(1), 0);
    // What was lost was invalidated then.
    if (this.#lost !== CAUSE_NONE) return;
    this.generation++;
    this.invalidations++;
  }

  /** From now on `words[word]` is not 0 while windows are alive. */
  tellAlive(words: Int32Array, word: number): void {
    this.#alive = words;
    this.#aliveWord = word;
    words[word] = this.live;
  }

  windowMade(): void {
    if (this.live++ === 0) this.#alive[this.#aliveWord] = 1;
  }

  windowDropped(): void {
    if (--this.live !== 0) return;
    this.#alive[this.#aliveWord] = 0;
    this.#cuts.clear();
  }
}
