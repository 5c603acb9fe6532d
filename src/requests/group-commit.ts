/**
 * Flushes that are accepted while one is under way become one.
 *
 *   f1 ──> [ round 1: write, fit the size, sync ]
 *   f2 ─┐       ──> [ round 2 ]
 *   f3 ─┴─ wait
 *
 * Whoever was told that a round is over usually writes and flushes again at once: a round that nobody waits for begins a few microtasks after the first call for it, so that all of
 * them are in it. Without that, two groups of callers would take turns, and each sync serve half of them.
 *
 * Guarantees: a round includes everything accepted before the calls that it answers; one round at a time; each call is settled exactly once, in the order of the calls; nothing here is needed that only
 * happens once the calling thread is free, when somebody cannot wait for that (`urgent`, `whenIdle`).
 * Leaves to others: what a round does (`direct-writes.ts`, `mapped-access.ts`).
 */

type Settle = (error: Error | undefined) => void;

/** Microtasks between a call and its round: those of a caller that awaits a write and then flushes are fewer. */
const HOPS = 4;

export class GroupCommit {
  #waiting: Settle[] = [];
  #answered: Settle[] = [];
  #active = false;
  #armed = false;
  #urgent = false;
  #failed = false;
  #idlers: (() => void)[] = [];
  /** Rounds that began. */
  rounds = 0;
  readonly #round: (take: () => void, end: (error?: Error) => void) => void;

  /** `round` calls `take` once it fixes what it makes durable (who comes later is answered by the next), then `end`, each once, perhaps within the call. */
  constructor(round: (take: () => void, end: (error?: Error) => void) => void) {
    this.#round = round;
  }

  /** A round is under way. */
  get active(): boolean {
    return this.#active;
  }

  /** Somebody has not been answered. */
  get busy(): boolean {
    return !this.#failed && (this.#active || this.#waiting.length > 0);
  }

  /** Somebody waits for a round that has not begun. */
  get waiting(): boolean {
    return this.#waiting.length > 0;
  }

  /** Settled by the end of a round that takes everything accepted so far. `urgent`: the thread is blocked until then. */
  join(settle: Settle, urgent: boolean): void {
    this.#waiting.push(settle);
    if (urgent) this.hurry();
    else this.#arm();
  }

  /** The next round begins as soon as it can, without waiting for more callers. */
  hurry(): void {
    if (this.#waiting.length === 0) return;
    if (this.#active) this.#urgent = true;
    else this.#begin();
  }

  /** Calls `go` once everybody is answered, perhaps within this call. */
  whenIdle(go: () => void): void {
    if (!this.busy) {
      go();
      return;
    }
    this.#idlers.push(go);
    this.hurry();
  }

  /** The ground is gone: everybody is answered now, and how a round still ends is nobody's business. */
  fail(error: Error | undefined): void {
    this.#failed = true;
    const told = [...this.#answered, ...this.#waiting];
    this.#answered = [];
    this.#waiting = [];
    const idlers = this.#idlers;
    this.#idlers = [];
    for (const settle of told) settle(error);
    for (const go of idlers) go();
  }

  #arm(): void {
    if (this.#armed || this.#active) return;
    this.#armed = true;
    let left = HOPS;
    const hop = (): void => {
      if (left-- > 0) {
        queueMicrotask(hop);
        return;
      }
      this.#armed = false;
      this.hurry();
    };
    hop();
  }

  #begin(): void {
    this.#active = true;
    this.#urgent = false;
    this.rounds++;
    this.#round(
      () => {
        this.#answered = this.#waiting;
        this.#waiting = [];
      },
      (error) => this.#end(error),
    );
  }

  #end(error: Error | undefined): void {
    this.#active = false;
    const told = this.#answered;
    this.#answered = [];
    for (const settle of told) settle(error);
    if (this.#failed || this.#active) return;
    if (this.#waiting.length === 0) {
      const idlers = this.#idlers;
      this.#idlers = [];
      for (const go of idlers) go();
    } else if (this.#urgent || this.#idlers.length > 0) {
      this.#begin();
    } else {
      this.#arm();
    }
  }
}
