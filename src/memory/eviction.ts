/**
 * Which frames get another block: S3-FIFO, over frames that lie side by side.
 *
 *   free     no block
 *   ahead    read ahead and not used yet: kept while fewer blocks were taken since than there are frames, unless there is nothing else
 *   small    new ones, a tenth of the frames: oldest first. Who was used twice goes on to main, the others leave, and are remembered
 *   main     who proved to be asked for again: used twice while in small, or asked for while remembered. A hand goes round over the frames, and takes one use away each time before it takes the frame
 *
 * So blocks that are asked for once (a scan) pass through a tenth of the memory. Uses within an epoch, a quarter of the time that a block spends in small, count once: a reader
 * of the ten records in a block uses it once.
 *
 * Runs of neighbouring frames are wanted, because a window over several blocks should be one area: what came in as a run is old together, so the neighbours of the oldest are looked at first, and
 * then the hand looks for a whole run.
 *
 * Guarantees: a held frame (pinned, dirty or busy) is never named; typed arrays alone, and a hit that is not the first in its epoch changes none of them; a frame is named as long as one is
 * neither held nor protected, and a protected one if there is no other.
 * Leaves to others: what blocks are in (`block-table.ts`), who holds a frame and what room there is (`frame-cache.ts`).
 */
import { FrameLists } from './frame-lists.js';
import * as layout from './frame-record.js';
import { GhostTable } from './ghost-table.js';
import type { Tables } from './tables.js';

/** Taken into this module: V8 knows a constant of the module that it compiles, and reads one of another module from memory each time. */
const { AHEAD, BLOCK_HIGH, BLOCK_LOW, EPOCH, EPOCH_SHIFT, FRAME_WORDS, HELD_BITS, MAIN, NO_BLOCK, PINS, STATE, USE, USES } = layout;

/** Lists. Frames of main are in none. */
const SMALL = 0;
const AHEAD_LIST = 1;
const FREE = 2;
const LISTS = 3;

/** Share of the frames that new blocks pass through. */
const SMALL_SHARE = 0.1;
/** Uses in `small` that make a block stay. */
const PROVEN = 2 * USE;
/** Epochs that a block spends in `small`. */
const SMALL_EPOCHS = 4;
/** What the hand may do before it has taken every use away and comes round to a frame again. */
const ROUNDS = USES / USE + 1;
/** Frames looked at, beyond the run's own length, before a run is given up for a shorter one. */
const RUN_SEARCH_FRAMES = 8192;

export class Eviction {
  /** The epoch, where the state has it. Its other bits are 0. */
  epoch = 0;
  readonly #words: Int32Array;
  readonly #frames: number;
  readonly #slabFrames: number;
  readonly #lists: FrameLists;
  readonly #ghosts: GhostTable;
  readonly #smallMost: number;
  readonly #epochBlocks: number;
  /** Frames from here on never held a block, and are in no list. */
  #fresh = 0;
  #mainCount = 0;
  #hand = 0;
  /** Blocks that were given frames so far, and for those read ahead how many those were when they got theirs; both modulo 2^32. */
  #entered = 0;
  readonly #stamp: Uint32Array;
  #inEpoch = 0;

  /** For the frames 0 to `frames`-1, whose records are in `words`. Runs straddle no multiple of `slabFrames`. */
  constructor(words: Int32Array, frames: number, slabFrames: number, tables?: Tables) {
    this.#words = words;
    this.#frames = frames;
    this.#slabFrames = slabFrames;
    this.#lists = new FrameLists(frames, LISTS, tables);
    this.#ghosts = new GhostTable(frames, tables);
    this.#smallMost = Math.max(1, Math.round(frames * SMALL_SHARE));
    this.#epochBlocks = Math.max(1, Math.floor(this.#smallMost / SMALL_EPOCHS));
    this.#stamp = tables?.uint32(frames) ?? new Uint32Array(frames);
  }

  /** The first of `run` neighbouring frames that are free or may lose their blocks; -1 where there are none, though perhaps fewer. For a run of 1 only where every frame is held. */
  find(run: number): number {
    if (run === 1) return this.#findOne();
    const free = this.#findFree(run);
    if (free >= 0) return free;
    const steps = run + RUN_SEARCH_FRAMES;
    if (this.#lists.lengths[SMALL] < this.#smallMost) {
      const swept = this.#sweep(run, steps);
      return swept >= 0 ? swept : this.#findNear(run);
    }
    const near = this.#findNear(run);
    return near >= 0 ? near : this.#sweep(run, steps);
  }

  /** As `find`, however long it takes. */
  findAnyhow(run: number): number {
    const found = this.#sweep(run, ROUNDS * this.#frames + run);
    return found >= 0 ? found : this.#sweep(run, ROUNDS * this.#frames + run, false);
  }

  /** The frame, which held nothing, is about to get a block. */
  taken(frame: number): void {
    if (frame < this.#fresh) {
      this.#lists.remove(FREE, frame);
      return;
    }
    for (; this.#fresh < frame; this.#fresh++) this.#lists.push(FREE, this.#fresh);
    this.#fresh++;
  }

  /** The frames have new blocks from now on. */
  entered(frame: number, count: number, ahead: boolean): void {
    for (let at = frame; at < frame + count; at++) {
      if (ahead) {
        this.#words[at * FRAME_WORDS + STATE] |= AHEAD;
        this.#stamp[at] = this.#entered;
        this.#lists.push(AHEAD_LIST, at);
      } else {
        this.#place(at);
      }
      this.#entered = (this.#entered + 1) >>> 0;
    }
    this.#inEpoch += count;
    if (this.#inEpoch >= this.#epochBlocks) {
      this.epoch = (this.epoch + (Math.floor(this.#inEpoch / this.#epochBlocks) << EPOCH_SHIFT)) & EPOCH;
      this.#inEpoch %= this.#epochBlocks;
      // Whoever pins what it just took has not come back to it.
      for (let at = frame; at < frame + count; at++) {
        const state = at * FRAME_WORDS + STATE;
        this.#words[state] = (this.#words[state] & ~EPOCH) | this.epoch;
      }
    }
  }

  /** The frame's block was used in an epoch that is not its last use's, or for the first time since it was read ahead. */
  used(frame: number): void {
    const at = frame * FRAME_WORDS + STATE;
    const state = this.#words[at];
    if ((state & AHEAD) !== 0) {
      this.#words[at] = state & ~AHEAD;
      this.#lists.remove(AHEAD_LIST, frame);
      this.#place(frame);
      return;
    }
    this.#words[at] = ((state & ~EPOCH) | this.epoch) + ((state & USES) === USES ? 0 : USE);
  }

  /** The frame is about to lose its block. `remember`: for want of room. */
  leaves(frame: number, remember: boolean): void {
    const at = frame * FRAME_WORDS;
    const state = this.#words[at + STATE];
    if ((state & MAIN) !== 0) {
      this.#mainCount--;
    } else if ((state & AHEAD) !== 0) {
      this.#lists.remove(AHEAD_LIST, frame);
    } else {
      this.#lists.remove(SMALL, frame);
      if (remember) this.#ghosts.add(this.#words[at + BLOCK_LOW], this.#words[at + BLOCK_HIGH]);
    }
    this.#words[at + STATE] = state & ~(MAIN | AHEAD | USES);
  }

  /** The frame holds no block, and nobody holds it. */
  freed(frame: number): void {
    this.#lists.push(FREE, frame);
  }

  /** The block moved from one frame to another, which holds it now. */
  moved(from: number, to: number): void {
    const main = this.#words[from * FRAME_WORDS + STATE] & MAIN;
    this.leaves(from, false);
    this.#words[to * FRAME_WORDS + STATE] |= main;
    if (main !== 0) this.#mainCount++;
    else this.#lists.push(SMALL, to);
  }

  /** Where does a block that is asked for begin? */
  #place(frame: number): void {
    const at = frame * FRAME_WORDS;
    const known = this.#ghosts.take(this.#words[at + BLOCK_LOW], this.#words[at + BLOCK_HIGH]);
    this.#words[at + STATE] = (this.#words[at + STATE] & ~(EPOCH | USES)) | this.epoch | (known ? MAIN : 0);
    if (known) this.#mainCount++;
    else this.#lists.push(SMALL, frame);
  }

  #isHeld(frame: number): boolean {
    return this.#words[frame * FRAME_WORDS + PINS] !== 0 || (this.#words[frame * FRAME_WORDS + STATE] & HELD_BITS) !== 0;
  }

  #isFree(frame: number): boolean {
    return this.#words[frame * FRAME_WORDS + BLOCK_HIGH] === NO_BLOCK && this.#words[frame * FRAME_WORDS + PINS] === 0;
  }

  /** Of what was read ahead: may it go? */
  #isOverdue(frame: number): boolean {
    return (this.#entered - this.#stamp[frame]) >>> 0 >= this.#frames;
  }

  #findOne(): number {
    const free = this.#lists.oldest(FREE);
    if (free >= 0) return free;
    if (this.#fresh < this.#frames) return this.#fresh;
    const ahead = this.#lists.oldest(AHEAD_LIST);
    if (ahead >= 0 && this.#isOverdue(ahead)) {
      if (!this.#isHeld(ahead)) return ahead;
      this.#lists.remove(AHEAD_LIST, ahead);
      this.#lists.push(AHEAD_LIST, ahead);
      this.#stamp[ahead] = this.#entered;
    }
    let found = this.#lists.lengths[SMALL] >= this.#smallMost ? this.#fromSmall() : -1;
    if (found < 0) found = this.#fromMain();
    if (found < 0) found = this.#fromSmall();
    // The last step may have found nothing because it moved it on.
    if (found < 0) found = this.#fromMain();
    for (let at = this.#lists.oldest(AHEAD_LIST); found < 0 && at >= 0; at = this.#lists.younger(at)) if (!this.#isHeld(at)) found = at;
    return found;
  }

  /** Whoever is held when its turn comes is in use: it goes on as the proven do, so that nobody passes by it again. */
  #fromSmall(): number {
    for (let frame = this.#lists.oldest(SMALL); frame >= 0; frame = this.#lists.oldest(SMALL)) {
      const at = frame * FRAME_WORDS + STATE;
      const state = this.#words[at];
      if ((state & USES) < PROVEN && !this.#isHeld(frame)) return frame;
      this.#lists.remove(SMALL, frame);
      this.#mainCount++;
      this.#words[at] = (state & ~USES) | MAIN;
    }
    return -1;
  }

  #fromMain(): number {
    if (this.#mainCount === 0) return -1;
    for (let step = ROUNDS * this.#frames; step >= 0; step--) {
      if (this.#hand === this.#frames) this.#hand = 0;
      const frame = this.#hand++;
      const at = frame * FRAME_WORDS + STATE;
      const state = this.#words[at];
      if ((state & MAIN) === 0 || this.#isHeld(frame)) continue;
      if ((state & USES) === 0) return frame;
      this.#words[at] = state - USE;
    }
    return -1;
  }

  /** A whole run of free frames, if one lies near the oldest of them or at the end of what was ever used. */
  #findFree(run: number): number {
    let left = RUN_SEARCH_FRAMES;
    for (let seed = this.#lists.oldest(FREE); seed >= 0 && left > 0; seed = this.#lists.younger(seed)) {
      const start = this.#slabStart(seed);
      const end = this.#slabEnd(seed);
      let past = seed + 1;
      while (past < end && past - seed < run && this.#isFree(past)) past++;
      let first = seed;
      while (first > start && past - first < run && this.#isFree(first - 1)) first--;
      if (past - first >= run) return first;
      left -= past - first + 1;
    }
    if (this.#fresh === this.#frames) return -1;
    if (this.#fresh + run <= this.#slabEnd(this.#fresh)) return this.#fresh;
    const next = this.#slabEnd(this.#fresh);
    return next + run <= Math.min(this.#frames, next + this.#slabFrames) ? next : -1;
  }

  /** A whole run that may go, around one of the oldest of small. */
  #findNear(run: number): number {
    let left = RUN_SEARCH_FRAMES;
    for (let seed = this.#lists.oldest(SMALL); seed >= 0 && left > 0; seed = this.#lists.younger(seed)) {
      left--;
      if (!this.#isCold(seed)) continue;
      const start = this.#slabStart(seed);
      const end = this.#slabEnd(seed);
      // What lies behind the oldest came in after it, what lies before it may be the newest.
      let past = seed + 1;
      while (past < end && past - seed < run && this.#isCold(past)) past++;
      let first = seed;
      while (first > start && past - first < run && this.#isCold(first - 1)) first--;
      if (past - first >= run) return first;
      left -= past - first;
    }
    return -1;
  }

  /** May it go before any of main does? */
  #isCold(frame: number): boolean {
    if (this.#isHeld(frame)) return false;
    const state = this.#words[frame * FRAME_WORDS + STATE];
    if ((state & AHEAD) !== 0) return this.#isOverdue(frame);
    return (state & MAIN) === 0 && (state & USES) < PROVEN;
  }

  /** The hand looks for a whole run, for so many steps. `spare`: not what is protected. */
  #sweep(run: number, steps: number, spare = true): number {
    let length = 0;
    for (let step = 0; step < steps; step++) {
      if (this.#hand === this.#frames) this.#hand = 0;
      const frame = this.#hand++;
      if (frame % this.#slabFrames === 0) length = 0;
      const at = frame * FRAME_WORDS + STATE;
      const state = this.#words[at];
      if (this.#isHeld(frame) || (spare && (state & AHEAD) !== 0 && !this.#isOverdue(frame))) {
        length = 0;
      } else if ((state & USES) !== 0 && this.#words[frame * FRAME_WORDS + BLOCK_HIGH] !== NO_BLOCK) {
        this.#words[at] = state - USE;
        length = 0;
      } else if (++length === run) {
        return frame - run + 1;
      }
    }
    return -1;
  }

  #slabStart(frame: number): number {
    return frame - (frame % this.#slabFrames);
  }

  #slabEnd(frame: number): number {
    return Math.min(this.#frames, frame - (frame % this.#slabFrames) + this.#slabFrames);
  }
}
