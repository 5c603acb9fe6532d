/** Which pages of the file hold nothing that anybody could still need. Knows nothing of why: whoever gives pages back has seen to it that neither a reader nor the meta page on the device leads to them. */
import module from 'sorted-btree';

const BTree = module.default;

export class Space {
  /** First page of each free run, and how many there are; no two runs touch. */
  readonly #runs = new BTree<number, number>();

  constructor(first: number) {
    this.#runs.set(first, Number.MAX_SAFE_INTEGER - first);
  }

  /** The lowest pages that are free and side by side: the file grows only when none within it do. */
  take(count: number): number {
    for (const [first, length] of this.#runs.entries()) {
      if (length < count) continue;
      this.#runs.delete(first);
      if (length > count) this.#runs.set(first + count, length - count);
      return first;
    }
    throw new Error('the last run has no end');
  }

  /** These pages are in use: found when the store is opened. */
  claim(first: number, count: number): void {
    const [start, length] = this.#runs.getPairOrNextLower(first) ?? [0, 0];
    if (start + length < first + count) throw new Error(`two pages lie at ${first}: the store is damaged`);
    this.#runs.delete(start);
    if (first > start) this.#runs.set(start, first - start);
    if (start + length > first + count) this.#runs.set(first + count, start + length - first - count);
  }

  give(first: number, count: number): void {
    let [start, end] = [first, first + count];
    const before = this.#runs.nextLowerPair(first);
    if (before !== undefined && before[0] + before[1] === first) {
      start = before[0];
      this.#runs.delete(start);
    }
    const after = this.#runs.get(end);
    if (after !== undefined) {
      this.#runs.delete(end);
      end += after;
    }
    this.#runs.set(start, end - start);
  }
}
