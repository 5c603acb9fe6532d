/**
 * What each page of the file is: free, in use, or in use and compared with its checksum since it came to memory. One byte each.
 *
 * Leaves to others: whether a page may be free: whoever gives it back has seen to it that neither a reader nor the meta page on the device leads to it.
 */
const FREE = 0;
const USED = 1;
const CHECKED = 2;
/** A store has 64 GiB at most. Bytes that were never touched take no memory. */
const PAGES_MAX = 1 << 24;

export class Space {
  readonly #states = new Uint8Array(PAGES_MAX);
  /** No page below this one is free. */
  #lowest: number;

  constructor(first: number) {
    this.#states.fill(USED, 0, first);
    this.#lowest = first;
  }

  /** The lowest free pages side by side, so that the file grows only when there are none within it. */
  take(count: number): number {
    let page = this.#states.indexOf(FREE, this.#lowest);
    for (let free = 1; free < count && page >= 0; free++) {
      if (this.#states[page + free] === FREE) continue;
      page = this.#states.indexOf(FREE, page + free);
      free = 0;
    }
    if (page < 0) throw new RangeError(`the store has ${PAGES_MAX} pages, and none are free`);
    this.#states.fill(USED, page, page + count);
    if (count === 1) this.#lowest = page + 1;
    return page;
  }

  give(page: number, count: number): void {
    this.#states.fill(FREE, page, page + count);
    this.#lowest = Math.min(this.#lowest, page);
  }

  /** These are in use: found when the store is opened. */
  claim(page: number, count: number): void {
    for (let at = page; at < page + count; at++) {
      if (this.#states[at] !== FREE) throw new Error(`page ${at} belongs to two: the store is damaged`);
      this.#states[at] = USED;
    }
  }

  isChecked(page: number): boolean {
    return this.#states[page] === CHECKED;
  }

  setChecked(page: number, checked: boolean): void {
    this.#states[page] = checked ? CHECKED : USED;
  }
}
