/**
 * What a file needs to know of the ground it stands on: whoever finds out that the device, the file system or the end of the file is gone says so here.
 *
 * Guarantees asked of every watch: listeners run from the event loop or from a call of the file's own, never twice for one loss; `close` ends it.
 * Leaves to others: finding out (`watcher.ts` for real files, the simulated disk for itself), and what follows (`file.ts`).
 */

/** Told what happened. */
export interface GroundListener {
  /** All of the file is gone, for good: CAUSE_UNPLUG or CAUSE_SHUTDOWN. */
  lost(cause: number): void;
  /** The file has another size than before, by others. */
  sizeChanged(): void;
  /** A touch of a window faulted and was caught: some cell has another word than before. */
  faulted(): void;
}

/** Watches one open file. */
export interface GroundWatch {
  /**
   * An operation ended with `result` (-errno, or 0 where it moved nothing inside the file), as it would on a lost device. True if that is looked into: `settled` is called once, from the event loop,
   * when it is known, after `lost` where it is so. False if there is nothing to find out beyond `check`.
   */
  suspect(result: number, settled: () => void): boolean;
  /** What can be seen at once, without waiting: CAUSE_NONE, CAUSE_UNPLUG or CAUSE_SHUTDOWN. */
  check(): number;
  /** Ends it; no listener is called any more. */
  close(): void;
}

/** Where nobody watches. */
export const noWatch: GroundWatch = { suspect: () => false, check: () => 0, close: () => {} };
