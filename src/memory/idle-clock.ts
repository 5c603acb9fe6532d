/**
 * When to look for memory that nobody used for a while: one timer for all files of a thread.
 *
 * Guarantees: the timer keeps no process alive, and runs only while somebody has something to give back; one file's look never waits for another's.
 * Leaves to others: what is idle, and giving it back (`cell-use.ts`, `frame-cache.ts`).
 */
import { performance } from 'node:perf_hooks';
// Imported, so that timers which a test has faked later do not stop it.
import { clearTimeout, setTimeout } from 'node:timers';

/** Whoever may have something to give back. */
export interface IdleOwner {
  /** Looks once, for a fraction of a millisecond at most. Answers in how many milliseconds to look again; Infinity when there is nothing to give back. */
  look(): number;
}

/** Looks in the time that something has to be unused. */
const LOOKS = 4;
/** Below this looking would be work in itself. */
const PERIOD_MS_MIN = 10;
/** What was used in one epoch was unused for all of that time once so many epochs have begun after it. */
export const EPOCHS_UNUSED = LOOKS + 1;

/** Milliseconds between two looks for what was not used for `idleMs`. */
export function lookPeriodMs(idleMs: number): number {
  return Math.max(PERIOD_MS_MIN, idleMs / LOOKS);
}

const due = new Map<IdleOwner, number>();
let timer: NodeJS.Timeout | undefined;
let timerDue = Number.POSITIVE_INFINITY;

/** Looks in `afterMs` milliseconds, and as often as `look` says. An owner that is watched already stays as it is. */
export function watchIdle(owner: IdleOwner, afterMs: number): void {
  if (afterMs === Number.POSITIVE_INFINITY || due.has(owner)) return;
  const at = performance.now() + afterMs;
  due.set(owner, at);
  if (at < timerDue) schedule(at);
}

/** No look after this. */
export function unwatchIdle(owner: IdleOwner): void {
  due.delete(owner);
  if (due.size === 0) stop();
}

function schedule(at: number): void {
  stop();
  timerDue = at;
  timer = setTimeout(lookAround, Math.max(1, at - performance.now()));
  timer.unref();
}

function stop(): void {
  if (timer !== undefined) clearTimeout(timer);
  timer = undefined;
  timerDue = Number.POSITIVE_INFINITY;
}

function lookAround(): void {
  stop();
  const now = performance.now();
  let next = Number.POSITIVE_INFINITY;
  for (const [owner, at] of due) {
    let again = at;
    // Timers may fire a millisecond early.
    if (at <= now + 1) {
      again = now + owner.look();
      if (again === Number.POSITIVE_INFINITY) due.delete(owner);
      else due.set(owner, again);
    }
    next = Math.min(next, again);
  }
  if (next < Number.POSITIVE_INFINITY) schedule(next);
}
