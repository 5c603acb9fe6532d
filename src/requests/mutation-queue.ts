/**
 * The order among everything that changes a file: writes, resizes, allocations, holes, flushes.
 *
 *   accepted ──> [ M1 | M2 | M3 ]      one runs at a time, in the order of the calls
 *                   └── readers of M1's bytes wait here until it ended
 *
 * Guarantees: a mutation takes its place during the call that made it; a read that touches the bytes of a mutation accepted before it begins after that
 * one ended; a failed mutation does not stop the ones behind it; nothing here is a promise, so that a blocking call can move the queue
 * without running anybody's JavaScript.
 * Leaves to others: what a mutation does (`direct-writes.ts`, `mapped-writes.ts`).
 */

/** One change of the file. */
export interface Mutation {
  /** Bytes [from, to) that later reads have to wait for; empty for a flush. */
  readonly from: number;
  readonly to: number;
  /** Size of the file after it, given the size before. */
  sizeAfter(size: number): number;
  /** Begins; calls `done` once, perhaps within this call. */
  start(done: (error?: Error) => void): void;
  /** Told after `done`, once the queue has moved on. */
  settle(error: Error | undefined): void;
  /** Set by the queue. */
  ended?: boolean;
}

export class MutationQueue {
  #queue: Mutation[] = [];
  #running = false;
  #looping = false;
  #followers: { after: Mutation; resume: () => void }[] = [];
  #draining: (() => void)[] = [];
  #refusal: Error | undefined;

  get length(): number {
    return this.#queue.length;
  }

  /** The last mutation accepted, undefined if all ended. */
  get last(): Mutation | undefined {
    return this.#queue[this.#queue.length - 1];
  }

  /** The size of the file once everything accepted was done. */
  sizeAfter(size: number): number {
    let after = size;
    for (const mutation of this.#queue) after = mutation.sizeAfter(after);
    return after;
  }

  push(mutation: Mutation): void {
    if (this.#refusal !== undefined) {
      mutation.ended = true;
      mutation.settle(this.#refusal);
      return;
    }
    this.#queue.push(mutation);
    this.#run();
  }

  /** The bytes that the mutations in the queue change, of a file of `size` bytes now; one that moves the end changes what lies between the two ends. */
  pending(size: number): { offset: number; length: number }[] {
    const ranges: { offset: number; length: number }[] = [];
    let before = size;
    for (const mutation of this.#queue) {
      const after = mutation.sizeAfter(before);
      if (mutation.to < Number.MAX_SAFE_INTEGER) ranges.push({ offset: mutation.from, length: mutation.to - mutation.from });
      else ranges.push({ offset: Math.min(before, after), length: Math.abs(after - before) });
      before = after;
    }
    return ranges.filter(({ length }) => length > 0);
  }

  /** The ground is gone: everything accepted and not ended fails with `error`, and so does whatever comes. What a running one still does is nobody's business any more. */
  fail(error: Error): void {
    this.#refusal = error;
    const failed = this.#queue;
    this.#queue = [];
    this.#running = false;
    for (const mutation of failed) {
      mutation.ended = true;
      mutation.settle(error);
    }
    this.#release();
  }

  /** Takes back a mutation that did not start. False if it did. */
  remove(mutation: Mutation): boolean {
    const place = this.#queue.indexOf(mutation);
    if (place < 0 || (place === 0 && this.#running)) return false;
    this.#queue.splice(place, 1);
    mutation.ended = true;
    this.#release();
    return true;
  }

  /** The last mutation accepted that touches bytes [from, to) of a file of `size` bytes now; one that moves the end touches everything between the two ends. */
  lastTouching(from: number, to: number, size: number): Mutation | undefined {
    let last: Mutation | undefined;
    let before = size;
    for (const mutation of this.#queue) {
      const after = mutation.sizeAfter(before);
      if ((mutation.from < to && mutation.to > from) || (after !== before && Math.min(before, after) < to && Math.max(before, after) > from)) last = mutation;
      before = after;
    }
    return last;
  }

  /** Runs `resume` once `mutation` ended. */
  follow(mutation: Mutation, resume: () => void): void {
    this.#followers.push({ after: mutation, resume });
  }

  /** Runs `resume` once the queue is empty; at once if it is. */
  whenEmpty(resume: () => void): void {
    if (this.#queue.length === 0) resume();
    else this.#draining.push(resume);
  }

  #run(): void {
    // A loop and not a recursion: a thousand mutations that end within `start` must not be a thousand frames deep.
    if (this.#looping) return;
    this.#looping = true;
    while (!this.#running && this.#queue.length > 0) {
      this.#running = true;
      const mutation = this.#queue[0];
      mutation.start((error) => {
        if (mutation.ended) return;
        this.#running = false;
        this.#queue.shift();
        mutation.ended = true;
        mutation.settle(error);
        this.#release();
        this.#run();
      });
    }
    this.#looping = false;
  }

  #release(): void {
    if (this.#followers.length > 0) {
      const ready = this.#followers.filter((follower) => follower.after.ended);
      this.#followers = this.#followers.filter((follower) => !follower.after.ended);
      for (const { resume } of ready) resume();
    }
    if (this.#queue.length === 0 && this.#draining.length > 0) {
      const draining = this.#draining;
      this.#draining = [];
      for (const resume of draining) resume();
    }
  }
}
