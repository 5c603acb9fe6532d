/**
 * Which windows a truncation, an unplug or a close took the ground from.
 *
 *   cut      generation 3 from 8192   generation 7 from 65536       ascending in both
 *   window   made in generation 5, [0, 70000)  ─> later than cut 3, earlier than cut 7, reaches past 65536: gone
 *
 * Validity is by range: a window that ends before every cut made since it was opened is still good. A cut at a lower place makes an
 * earlier one at a higher place superfluous, and with no window alive none is kept.
 */
export class Cuts {
  #generations: number[] = [];
  #from: number[] = [];
  #causes: number[] = [];

  add(generation: number, from: number, cause: number): void {
    while (this.#from.length > 0 && (this.#from[this.#from.length - 1] as number) >= from) {
      this.#generations.pop();
      this.#from.pop();
      this.#causes.pop();
    }
    this.#generations.push(generation);
    this.#from.push(from);
    this.#causes.push(cause);
  }

  /** Why a window that was made in `generation` and ends at `end` is gone; 0 if it is not. */
  causeFor(generation: number, end: number): number {
    for (let i = 0; i < this.#from.length; i++) {
      if (this.#generations[i] > generation && this.#from[i] < end) return this.#causes[i];
    }
    return 0;
  }

  /** No window is alive that a cut could concern. */
  clear(): void {
    if (this.#from.length === 0) return;
    this.#generations.length = 0;
    this.#from.length = 0;
    this.#causes.length = 0;
  }
}
