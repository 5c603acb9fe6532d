/**
 * Orders of frames, oldest first; a frame stands in one of them at most.
 *
 *   next, previous   [ f0 f1 … | end of list 0 | end of list 1 | … ]    a ring through each list's end
 *
 * Guarantees: putting in, taking out and asking for the oldest cost the same whatever is in them; nothing is allocated after construction, and no memory touched for frames that
 * never stood in any.
 */
import type { Tables } from './tables.js';

export class FrameLists {
  /** Frames in each list. */
  readonly lengths: Int32Array;
  readonly #next: Int32Array;
  readonly #previous: Int32Array;
  readonly #frames: number;

  constructor(frames: number, lists: number, tables?: Tables) {
    this.lengths = new Int32Array(lists);
    this.#next = tables?.int32(frames + lists) ?? new Int32Array(frames + lists);
    this.#previous = tables?.int32(frames + lists) ?? new Int32Array(frames + lists);
    this.#frames = frames;
    for (let end = frames; end < frames + lists; end++) {
      this.#next[end] = end;
      this.#previous[end] = end;
    }
  }

  /** The frame becomes the list's youngest. */
  push(list: number, frame: number): void {
    const end = this.#frames + list;
    const youngest = this.#previous[end];
    this.#next[youngest] = frame;
    this.#previous[frame] = youngest;
    this.#next[frame] = end;
    this.#previous[end] = frame;
    this.lengths[list]++;
  }

  /** The frame, which is in the list, is in none any more. */
  remove(list: number, frame: number): void {
    const next = this.#next[frame];
    const previous = this.#previous[frame];
    this.#next[previous] = next;
    this.#previous[next] = previous;
    this.lengths[list]--;
  }

  /** -1 if the list is empty. */
  oldest(list: number): number {
    return this.#frameAt(this.#next[this.#frames + list]);
  }

  /** The next one after it; -1 behind the youngest. */
  younger(frame: number): number {
    return this.#frameAt(this.#next[frame]);
  }

  #frameAt(place: number): number {
    return place < this.#frames ? place : -1;
  }
}
