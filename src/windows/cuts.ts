/**
 * Which windows a truncation, an unplug, a close or a fault took the ground from.
 *
 *   cut      generation 3 from 8192   generation 7 from 65536       ascending in both
 *   loss     generation 4 [2 MiB, 4 MiB)                            in the order they came
 *   window   made in generation 5, [0, 70000)  ─> later than cut 3, earlier than cut 7, reaches past 65536: gone
 *
 * Validity is by range: a window that lies before every cut and beside every loss since it was opened is still good. A cut at a lower place makes an
 * earlier one at a higher place superfluous, as a loss does an earlier one within it, and with no window alive none is kept.
 */
export class Cuts {
  #generations: number[] = [];
  #from: number[] = [];
  #causes: number[] = [];
  #losses: LostRange[] = [];

  /** Everything from `from` on is gone. */
  add(generation: number, from: number, cause: number): void {
    while (this.#from.length > 0 && (this.#from[this.#from.length - 1] as number) >= from) {
      this.#generations.pop();
      this.#from.pop();
      this.#causes.pop();
    }
    this.#generations.push(generation);
    this.#from.push(from);
    this.#causes.push(cause);
    this.#forgetWithin(from, Number.POSITIVE_INFINITY);
  }

  /** [from, to) is gone, also when the same bytes are there again later. */
  addLoss(generation: number, from: number, to: number, cause: number): void {
    this.#forgetWithin(from, to);
    this.#losses.push({ generation, from, to, cause });
  }

  /** Why a window [offset, end) that was made in `generation` is gone; 0 if it is not. */
  causeFor(generation: number, offset: number, end: number): number {
    for (let i = 0; i < this.#from.length; i++) {
      if (this.#generations[i] > generation && this.#from[i] < end) return this.#causes[i];
    }
    for (const loss of this.#losses) {
      if (loss.generation > generation && loss.from < end && loss.to > offset) return loss.cause;
    }
    return 0;
  }

  /** No window is alive that a cut could concern. */
  clear(): void {
    if (this.#from.length === 0 && this.#losses.length === 0) return;
    this.#generations.length = 0;
    this.#from.length = 0;
    this.#causes.length = 0;
    this.#losses.length = 0;
  }

  #forgetWithin(from: number, to: number): void {
    if (this.#losses.some((loss) => loss.from >= from && loss.to <= to)) this.#losses = this.#losses.filter((loss) => loss.from < from || loss.to > to);
  }
}

/** Bytes that are gone for windows made before `generation`. */
interface LostRange {
  generation: number;
  from: number;
  to: number;
  cause: number;
}
