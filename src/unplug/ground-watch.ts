/**
 * What a file needs to know of the ground it stands on: whoever finds out that the device, the file system or the end of the file is gone says so here.
 *
 * Guarantees asked of every watch: listeners run from the event loop or from a call of the file's own, never twice for one loss; `close` ends it.
 * Leaves to others: finding out (`watcher.ts` for real files, the simulated disk for itself), and what follows (`file.ts`).
 */
import { performance } from 'node:perf_hooks';
import type { Feature } from '../io/engine.js';
import { CAUSE_NONE } from '../memory/validity.js';
import { type WatchOptions, watchFile } from './watcher.js';

/** Told what happened. */
export interface GroundListener {
  /** All of the file is gone, for good: CAUSE_UNPLUG or CAUSE_SHUTDOWN. */
  lost(cause: number): void;
  /** The file has another size than before, perhaps by others. */
  sizeChanged(): void;
  /** A touch of a window, perhaps of another file, faulted and was caught: some cell has another word than before. */
  faulted(): void;
}

/** Watches one open file. */
export interface GroundWatch {
  /**
   * An operation ended with `result` (-errno, or 0 where it moved nothing inside the file), as it would on a lost device. True if that is looked into: `settled` is called once, from the event loop,
   * when it is known, after `lost` where it is so. False if there is nothing to find out beyond `check`.
   */
  suspect(result: number, settled: () => void): boolean;
  /** The same for a blocking call, which waits: CAUSE_NONE, CAUSE_UNPLUG or CAUSE_SHUTDOWN. */
  suspectNow(result: number): number;
  /** What can be seen at once, without waiting, in the same form. */
  check(): number;
  /** Index in the validity table where the number of live windows is read from: without any, only what is announced is noticed. Undefined where nobody asks. */
  readonly liveWord: number | undefined;
  /** For `explain()`. */
  features(): Feature[];
  /** Ends it; no listener is called any more. */
  close(): void;
}

/** After a suspicion that came to nothing, errors are believed for so long: a run of bad sectors is one suspicion, not a thousand. */
const ACQUITTED_MS = 250;

const monotonicMs = performance.now.bind(performance);

/** Watches an open file of the system. @throws as `watchFile`. */
export function watchGround(options: WatchOptions, listener: GroundListener): GroundWatch {
  const watched = watchFile(options, listener);
  let acquittedUntil = 0;
  return {
    suspect: (result, settled) => {
      if (monotonicMs() < acquittedUntil) return false;
      watched.suspect(-result, (cause) => {
        if (cause === CAUSE_NONE) acquittedUntil = monotonicMs() + ACQUITTED_MS;
        else listener.lost(cause);
        settled();
      });
      return true;
    },
    suspectNow: (result) => (monotonicMs() < acquittedUntil ? CAUSE_NONE : watched.suspectSync(-result)),
    check: () => watched.check(),
    liveWord: watched.liveWord,
    features: () => watched.features(),
    close: () => {
      watched.unwatch();
    },
  };
}
