/**
 * Which pages of a segment are locked into memory, and by how many windows: mlock does not nest, so the kernel is told of the first and of the last.
 *
 *   cell 0 → [ 1 1 2 2 1 0 … | 5 ]     windows that hold each page, and how many pages are held; a cell without any has no counts
 *
 * Guarantees: the kernel holds exactly the pages that somebody holds here; what fails halfway is undone.
 * Leaves to others: that the pages are in memory when they are locked (`mapping.ts`).
 */
import type { NativeSegment } from '../io/native.js';

const PAGE_BYTES = 4096;
const CELL_PAGES = 512;

/** Pages [first, end) of a segment, held once. A cut makes it shorter. */
export interface PageHold {
  readonly locks: PageLocks;
  first: number;
  end: number;
}

export class PageLocks {
  readonly #segment: Pick<NativeSegment, 'lock' | 'unlock'>;
  readonly #cells = new Map<number, Uint32Array>();
  readonly #holds = new Set<PageHold>();
  /** Cells some pages of which may have left the page table although they are locked: a hole was punched, the file was cut. */
  readonly #stale = new Set<number>();

  constructor(segment: Pick<NativeSegment, 'lock' | 'unlock'>) {
    this.#segment = segment;
  }

  /** How many of pages [first, end) nobody holds. */
  free(first: number, end: number): number {
    let free = 0;
    for (let page = first; page < end; page++) if (this.#countOf(page) === 0) free++;
    return free;
  }

  /** Holds pages [first, end). The hold, or -errno. */
  take(first: number, end: number): PageHold | number {
    for (let page = first; page < end; ) {
      const from = page;
      const held = this.#countOf(page) > 0;
      while (page < end && this.#countOf(page) > 0 === held) page++;
      const result = held ? 0 : this.#segment.lock(from * PAGE_BYTES, (page - from) * PAGE_BYTES);
      if (result < 0) {
        this.#drop(first, from);
        return result;
      }
      this.#add(from, page);
    }
    const hold = { locks: this, first, end };
    this.#holds.add(hold);
    return hold;
  }

  /** Gives a hold up, once. */
  give(hold: PageHold): void {
    if (!this.#holds.delete(hold)) return;
    this.#drop(hold.first, hold.end);
  }

  /** Is somebody holding each of pages [first, end), and have none of them left the page table since? */
  known(first: number, end: number): boolean {
    for (let page = first; page < end; page++) {
      if (this.#countOf(page) === 0) return false;
    }
    for (let cell = Math.floor(first / CELL_PAGES); cell * CELL_PAGES < end; cell++) if (this.#stale.has(cell)) return false;
    return true;
  }

  /** Locked pages of [first, end) may not be in the page table any more. */
  forget(first: number, end: number): void {
    if (this.#cells.size === 0) return;
    for (const cell of this.#cells.keys()) if (cell * CELL_PAGES < end && (cell + 1) * CELL_PAGES > first) this.#stale.add(cell);
  }

  /** Nobody holds pages from `first` on any more. */
  cut(first: number): void {
    for (const hold of this.#holds) {
      if (hold.end <= first) continue;
      const from = Math.max(hold.first, first);
      this.#drop(from, hold.end);
      hold.end = from;
    }
  }

  #countOf(page: number): number {
    return this.#cells.get(Math.floor(page / CELL_PAGES))?.[page % CELL_PAGES] ?? 0;
  }

  #add(first: number, end: number): void {
    for (let page = first; page < end; page++) {
      const cell = Math.floor(page / CELL_PAGES);
      let counts = this.#cells.get(cell);
      if (counts === undefined) {
        counts = new Uint32Array(CELL_PAGES + 1);
        this.#cells.set(cell, counts);
      }
      if (counts[page % CELL_PAGES]++ === 0) counts[CELL_PAGES]++;
    }
  }

  #drop(first: number, end: number): void {
    let from = -1;
    for (let page = first; page < end; page++) {
      const cell = Math.floor(page / CELL_PAGES);
      const counts = this.#cells.get(cell) as Uint32Array;
      if (--counts[page % CELL_PAGES] > 0) {
        if (from >= 0) this.#segment.unlock(from * PAGE_BYTES, (page - from) * PAGE_BYTES);
        from = -1;
        continue;
      }
      if (from < 0) from = page;
      if (--counts[CELL_PAGES] > 0) continue;
      this.#cells.delete(cell);
      this.#stale.delete(cell);
    }
    if (from >= 0) this.#segment.unlock(from * PAGE_BYTES, (end - from) * PAGE_BYTES);
  }
}
