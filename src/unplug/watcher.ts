/**
 * Being told that a file is gone: one registry for each thread, over the one watcher of the process (native/watcher.h).
 *
 *   word     the file's cause (claimed by whoever opened it)     written by the watcher's thread, before anything else is told
 *   signal   what there is to tell                               bits set by that thread, taken by `takeSignals`
 *   live     windows that are open                               written here; at 0 the file is not asked after
 *
 * With live windows, size and file system are asked after every `HEALTH_PERIOD_MS`, and one file of each device is read past all caches every
 * `PRESENCE_PERIOD_MS`. Without, only what the kernel announces by itself is noticed: the removal of the device, and whatever a mount or unmount
 * made worth a look.
 *
 * Guarantees: a listener is called from the event loop, never inside a call of the library, and not after `unwatch`; `lost` once. A suspicion is
 * answered once. Watching keeps no process alive, an unanswered suspicion does.
 * Leaves to others: what happens to windows and requests (`file.ts`).
 */
import { systemError } from '../errors.js';
import type { Feature } from '../io/engine.js';
import { native, SIGNAL_FAULT, SIGNAL_LOST, SIGNAL_SETTLED, SIGNAL_SIZE } from '../io/native.js';
import { claimWord, freeWord, validity } from '../memory/validity.js';
import { dependenceOf } from './devices.js';

/** How often files with live windows are asked for their size and whether their file system still answers. */
export const HEALTH_PERIOD_MS = 250;
/** How often one file of each device that has files with live windows is read past all caches. */
export const PRESENCE_PERIOD_MS = 2000;
/** A suspicion is answered within this. */
export const SETTLE_MS = 200;

/** What there is to tell about a watched file. */
export interface WatchListener {
  /** CAUSE_UNPLUG or CAUSE_SHUTDOWN, which the file's word says already. Nothing is told after it. */
  lost(cause: number): void;
  /** The file has another size than was last known, by whatever hand, this library's own included. */
  sizeChanged(): void;
  /** A page of some file of this process could not be brought in when it was touched; whose is not known here. */
  faulted(): void;
}

/** A file that is watched. */
export interface WatchedFile {
  /** Index of the word to write the number of live windows to, where a call of `setLive` is too much. */
  readonly liveWord: number;
  /** For `explain()`: what is watched, and why no more is. */
  features(): Feature[];
  setLive(windows: number): void;
  /**
   * An operation on the file failed with an errno that may mean loss (`EIO`, `ENODEV`, `ENXIO`, …; 0 for no bytes inside the size): looks at once, and
   * calls `settled` within `SETTLE_MS`, from the event loop, with the cause, or 0 if nothing was found. Also when unwatched meanwhile.
   */
  suspect(errno: number, settled: (cause: number) => void): void;
  /** The same for a blocking call: waits, and answers with the cause or 0. The listener hears of it later. */
  suspectSync(errno: number): number;
  /** The cause, or 0, by what can be asked without waiting for a device. A file system that was shut down is found 100 ms later only. */
  check(): number;
  /** Ends it; before the file's word is freed. False where a direct read of the watcher hangs in the device: it keeps its descriptor until it ends. */
  unwatch(): boolean;
}

/** What `watchFile` is to be told about the file. */
export interface WatchOptions {
  /** Duplicated; may be closed at any time. */
  fd: number;
  /** The file's word in the validity table. */
  word: number;
  /** Bytes as its opener knows them. */
  size: number;
}

const watched = new Set<Watched>();
let suspicions = 0;

/**
 * Watches an open file or block device until `unwatch`.
 *
 * @throws a system error (EMFILE, EAGAIN) where descriptors or threads are used up; ERR_SECTORWISE_TOO_MANY_OPEN where words are.
 */
export function watchFile(options: WatchOptions, listener: WatchListener): WatchedFile {
  const binding = native();
  const started = binding.startWatching(takeSignals);
  if (started < 0) throw systemError(started, 'epoll_create1');
  const file = new Watched(options, listener);
  watched.add(file);
  return file;
}

/** From the event loop, once for however many words changed. */
function takeSignals(): void {
  for (const file of watched) file.takeSignal();
}

/** What one of them throws is uncaught, and the others are told all the same. */
function tell(call: () => void): void {
  try {
    call();
  } catch (error) {
    queueMicrotask(() => {
      throw error;
    });
  }
}

function holdLoop(change: 1 | -1): void {
  const before = suspicions;
  suspicions += change;
  if (before === 0 || suspicions === 0) native().refWatcher(suspicions > 0);
}

class Watched implements WatchedFile {
  readonly liveWord: number;
  readonly #words: Int32Array;
  readonly #signal: number;
  readonly #id: number;
  readonly #listener: WatchListener;
  readonly #feature: Feature;
  /** In the order of their rounds. */
  readonly #settling: Array<{ round: number; settled: (cause: number) => void }> = [];
  #lost = 0;
  #ended = false;

  constructor({ fd, word, size }: WatchOptions, listener: WatchListener) {
    const binding = native();
    const { holder, reason, ...dependence } = dependenceOf(binding.probe(fd));
    const [nodeMajor, nodeMinor] = (holder?.numbers ?? '0:0').split(':').map(Number);
    this.#words = validity().words;
    this.#listener = listener;
    this.#feature = { name: 'watched device', used: dependence.devices.length > 0, reason };
    this.#signal = claimWord();
    try {
      this.liveWord = claimWord();
    } catch (error) {
      freeWord(this.#signal);
      throw error;
    }
    const node = holder === undefined || dependence.isDevice ? '' : `/dev/${holder.name}`;
    this.#id = binding.watch({ ...dependence, fd, word, size, signal: this.#signal, live: this.liveWord, node, nodeMajor, nodeMinor });
    if (this.#id < 0) {
      freeWord(this.#signal);
      freeWord(this.liveWord);
      throw systemError(this.#id, 'dup');
    }
  }

  features(): Feature[] {
    return [this.#feature, ...native().watcherFeatures()];
  }

  setLive(windows: number): void {
    if (!this.#ended) this.#words[this.liveWord] = windows;
  }

  suspect(errno: number, settled: (cause: number) => void): void {
    if (this.#ended) {
      setImmediate(settled, this.#lost);
      return;
    }
    holdLoop(1);
    this.#settling.push({ round: native().suspect(this.#id, errno), settled });
  }

  suspectSync(errno: number): number {
    return this.#ended ? this.#lost : native().suspectSync(this.#id, errno);
  }

  check(): number {
    return this.#ended ? this.#lost : native().checkNow(this.#id);
  }

  unwatch(): boolean {
    if (this.#ended) return true;
    this.#lost = native().checkNow(this.#id);
    this.#ended = true;
    watched.delete(this);
    const closed = native().unwatch(this.#id);
    freeWord(this.#signal);
    freeWord(this.liveWord);
    for (const { settled } of this.#settling.splice(0)) {
      holdLoop(-1);
      setImmediate(settled, this.#lost);
    }
    return closed;
  }

  takeSignal(): void {
    const bits = Atomics.exchange(this.#words, this.#signal, 0);
    if (bits === 0) return;
    // The loss first: whoever is told of a settled suspicion finds the file as it will stay. A listener may unwatch.
    if ((bits & SIGNAL_LOST) !== 0) {
      this.#lost = native().checkNow(this.#id);
      tell(() => this.#listener.lost(this.#lost));
    } else {
      if ((bits & SIGNAL_SIZE) !== 0) tell(() => this.#listener.sizeChanged());
      if ((bits & SIGNAL_FAULT) !== 0 && !this.#ended) tell(() => this.#listener.faulted());
    }
    if ((bits & SIGNAL_SETTLED) !== 0 && !this.#ended) this.#answer();
  }

  #answer(): void {
    const last = native().settledRound(this.#id);
    while (this.#settling.length > 0 && this.#settling[0].round <= last) {
      const { settled } = this.#settling.shift()!;
      holdLoop(-1);
      tell(() => settled(this.#lost));
    }
  }
}
