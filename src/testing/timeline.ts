/**
 * Virtual time: what happens when, on one simulated disk.
 *
 *   now    events   [ t=120 #4 | t=120 #7 | t=310 #5 | … ]   ascending by time, then by the order in which they were added
 *
 * Guarantees: an event runs once, never before an earlier one, and `now` never goes back. No real time passes.
 */

interface TimedEvent {
  readonly time: number;
  readonly run: () => void;
}

/** A queue of events in virtual microseconds. */
export class Timeline {
  /** Virtual microseconds since the disk was made. */
  now = 0;
  readonly #events: TimedEvent[] = [];

  /** Adds an event; a time that has passed counts as now. */
  at(time: number, run: () => void): void {
    const due = Math.max(time, this.now);
    let low = 0;
    let high = this.#events.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.#events[middle].time <= due) low = middle + 1;
      else high = middle;
    }
    this.#events.splice(low, 0, { time: due, run });
  }

  /** Moves to the next event and runs it; false where there is none. */
  runNext(): boolean {
    const event = this.#events.shift();
    if (event === undefined) return false;
    this.now = event.time;
    event.run();
    return true;
  }

  /** Runs all that is due until `time` and moves there. */
  runUntil(time: number): void {
    while (this.#events.length > 0 && this.#events[0].time <= time) this.runNext();
    this.now = Math.max(this.now, time);
  }
}
