/**
 * Ways to choose what leaves a cache, over frame numbers, each as plain as it is described: what `src/memory/eviction.ts` was chosen from and is measured against.
 *
 *   CLOCK     what was used since the hand's last round stays for one more
 *   LRU       the one that was used longest ago goes
 *   SIEVE     a hand goes from the oldest to the youngest; what was used stays where it is [Zhang et al., NSDI '24]
 *   2Q        new ones in a queue of a quarter; only who is asked for again after leaving it goes to the LRU of the rest [Johnson and Shasha, VLDB '94]
 *   S3-FIFO   new ones in a queue of a tenth, from which who was used goes on to the rest, a FIFO with up to three more rounds; who left the first one lately begins in the rest [Yang et al., SOSP '23]
 *
 * Guarantees: typed arrays alone, nothing allocated for an access; no frame is held by anybody, which is what `frame-cache.ts` adds to it.
 */
import { GhostTable } from '../../src/memory/ghost-table.js';

export interface Policy {
  /** The block in the frame is asked for. */
  hit(frame: number): void;
  /** All frames are full: which is the next block to have? The caller tells what was in it. */
  victim(): number;
  /** The frame that `victim` named loses this block. */
  left(frame: number, block: number): void;
  /** The frame has this block from now on. */
  entered(frame: number, block: number): void;
}

/** Frames in an order, in which each may stand once. `NIL` ends it on both sides. */
class FrameList {
  readonly #next: Int32Array;
  readonly #previous: Int32Array;
  readonly #end: number;
  length = 0;

  constructor(frames: number) {
    this.#next = new Int32Array(frames + 1).fill(frames);
    this.#previous = new Int32Array(frames + 1).fill(frames);
    this.#end = frames;
  }

  /** The one that was put in first; -1 if there is none. */
  get oldest(): number {
    const frame = this.#previous[this.#end];
    return frame === this.#end ? -1 : frame;
  }

  push(frame: number): void {
    const youngest = this.#next[this.#end];
    this.#next[frame] = youngest;
    this.#previous[youngest] = frame;
    this.#previous[frame] = this.#end;
    this.#next[this.#end] = frame;
    this.length++;
  }

  remove(frame: number): void {
    this.#next[this.#previous[frame]] = this.#next[frame];
    this.#previous[this.#next[frame]] = this.#previous[frame];
    this.length--;
  }

  /** The next younger one; -1 behind the youngest. */
  younger(frame: number): number {
    const other = this.#previous[frame];
    return other === this.#end ? -1 : other;
  }
}

class Clock implements Policy {
  readonly #used: Uint8Array;
  #hand = 0;

  constructor(frames: number) {
    this.#used = new Uint8Array(frames);
  }

  hit(frame: number): void {
    this.#used[frame] = 1;
  }

  victim(): number {
    for (;;) {
      const frame = this.#hand;
      this.#hand = frame + 1 === this.#used.length ? 0 : frame + 1;
      if (this.#used[frame] === 0) return frame;
      this.#used[frame] = 0;
    }
  }

  left(): void {}

  entered(frame: number): void {
    this.#used[frame] = 0;
  }
}

class Lru implements Policy {
  readonly #list: FrameList;

  constructor(frames: number) {
    this.#list = new FrameList(frames);
  }

  hit(frame: number): void {
    this.#list.remove(frame);
    this.#list.push(frame);
  }

  victim(): number {
    return this.#list.oldest;
  }

  left(frame: number): void {
    this.#list.remove(frame);
  }

  entered(frame: number): void {
    this.#list.push(frame);
  }
}

class Sieve implements Policy {
  readonly #list: FrameList;
  readonly #used: Uint8Array;
  #hand = -1;

  constructor(frames: number) {
    this.#list = new FrameList(frames);
    this.#used = new Uint8Array(frames);
  }

  hit(frame: number): void {
    this.#used[frame] = 1;
  }

  victim(): number {
    let frame = this.#hand < 0 ? this.#list.oldest : this.#hand;
    while (this.#used[frame] !== 0) {
      this.#used[frame] = 0;
      frame = this.#list.younger(frame);
      if (frame < 0) frame = this.#list.oldest;
    }
    this.#hand = this.#list.younger(frame);
    return frame;
  }

  left(frame: number): void {
    this.#list.remove(frame);
  }

  entered(frame: number): void {
    this.#used[frame] = 0;
    this.#list.push(frame);
  }
}

class TwoQueues implements Policy {
  readonly #young: FrameList;
  readonly #old: FrameList;
  readonly #isOld: Uint8Array;
  readonly #youngMost: number;
  readonly #ghosts: GhostTable;

  constructor(frames: number) {
    this.#young = new FrameList(frames);
    this.#old = new FrameList(frames);
    this.#isOld = new Uint8Array(frames);
    this.#youngMost = Math.max(1, frames >>> 2);
    this.#ghosts = new GhostTable(Math.max(1, frames >>> 1));
  }

  hit(frame: number): void {
    if (this.#isOld[frame] === 0) return;
    this.#old.remove(frame);
    this.#old.push(frame);
  }

  victim(): number {
    return this.#young.length > this.#youngMost || this.#old.length === 0 ? this.#young.oldest : this.#old.oldest;
  }

  left(frame: number, block: number): void {
    if (this.#isOld[frame] !== 0) {
      this.#old.remove(frame);
    } else {
      this.#young.remove(frame);
      this.#ghosts.add(block, 0);
    }
  }

  entered(frame: number, block: number): void {
    const known = this.#ghosts.take(block, 0);
    this.#isOld[frame] = known ? 1 : 0;
    (known ? this.#old : this.#young).push(frame);
  }
}

class S3Fifo implements Policy {
  readonly #small: FrameList;
  readonly #main: FrameList;
  readonly #isMain: Uint8Array;
  readonly #uses: Uint8Array;
  readonly #smallMost: number;
  readonly #ghosts: GhostTable;

  constructor(frames: number) {
    this.#small = new FrameList(frames);
    this.#main = new FrameList(frames);
    this.#isMain = new Uint8Array(frames);
    this.#uses = new Uint8Array(frames);
    this.#smallMost = Math.max(1, Math.round(frames / 10));
    this.#ghosts = new GhostTable(frames);
  }

  hit(frame: number): void {
    if (this.#uses[frame] < 3) this.#uses[frame]++;
  }

  victim(): number {
    for (;;) {
      const frame = this.#small.length >= this.#smallMost || this.#main.length === 0 ? this.#small.oldest : this.#main.oldest;
      if (this.#isMain[frame] === 0) {
        if (this.#uses[frame] <= 1) return frame;
        this.#small.remove(frame);
        this.#isMain[frame] = 1;
        this.#uses[frame] = 0;
      } else {
        if (this.#uses[frame] === 0) return frame;
        this.#uses[frame]--;
        this.#main.remove(frame);
      }
      this.#main.push(frame);
    }
  }

  left(frame: number, block: number): void {
    if (this.#isMain[frame] !== 0) {
      this.#main.remove(frame);
    } else {
      this.#small.remove(frame);
      this.#ghosts.add(block, 0);
    }
  }

  entered(frame: number, block: number): void {
    const known = this.#ghosts.take(block, 0);
    this.#uses[frame] = 0;
    this.#isMain[frame] = known ? 1 : 0;
    (known ? this.#main : this.#small).push(frame);
  }
}

export const policies: ReadonlyArray<{ name: string; make: (frames: number) => Policy }> = [
  { name: 'CLOCK', make: (frames) => new Clock(frames) },
  { name: 'LRU', make: (frames) => new Lru(frames) },
  { name: 'SIEVE', make: (frames) => new Sieve(frames) },
  { name: '2Q', make: (frames) => new TwoQueues(frames) },
  { name: 'S3-FIFO', make: (frames) => new S3Fifo(frames) },
];
