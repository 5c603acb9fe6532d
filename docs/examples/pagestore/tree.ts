/**
 * A B+tree whose pages are never changed: a change makes new pages from the leaves up to a new root, and the old root goes on showing the old tree.
 *
 *   Version ─> root (branch) ─> branch … ─> leaf        windows of the branches are held: a lookup asks the file for one page, the leaf
 *
 * Guarantees: no page is written over that the version on the device, or one that somebody reads, leads to; each page is compared with its checksum when it comes to memory.
 * Leaves to others: what makes a new version durable, and when it counts (`store.ts`).
 */
import { setImmediate as nextTurn } from 'node:timers/promises';
import { crc32 } from 'node:zlib';
import type { BlockFile, Window } from 'sectorwise';
import { type Cell, cellsOf, childAt, childIndex, encodeChild, encodePage, overlay, PAGE_BYTES, type Pointer, pointerOf, ROOM_BYTES } from './page.js';

/** The first two are the meta pages. */
const FIRST_PAGE = 2;
/** What a page is: in use, or in use and compared with its checksum since it came to memory. */
const FREE = 0;
const USED = 1;
const CHECKED = 2;
/** A store has 64 GiB at most. Bytes of the table that were never touched take no memory. */
const PAGES_MAX = 1 << 24;
/** The file grows by so much: a size that changes costs a commit of the file system's journal with the flush. */
const GROWTH_BYTES = 4 << 20;
/** Pages after which others have their turn in the event loop. */
const TURN_PAGES = 32;
/** Leaves that a scan asks for before it needs them. */
const AHEAD_PAGES = 32;
export const NO_KEY: Uint8Array = new Uint8Array(0);

/** One state of the tree. `replaced` is what the next one does without: free once nobody reads this one. */
interface Version {
  root: Pointer;
  readers: number;
  replaced: number[];
}

export class Tree {
  readonly #file: BlockFile;
  /** What each page is. */
  readonly #states = new Uint8Array(PAGES_MAX).fill(USED, 0, FIRST_PAGE);
  /** No page below this one is free. */
  #lowestFree = FIRST_PAGE;
  /** Those of all versions, by page. */
  readonly #branches = new Map<number, Window>();
  /** Oldest first; the last one is the one that counts. */
  readonly #versions: Version[] = [];
  /** Of the next version, which is being made: the pages that were written for it, and those of the current one that it does without. */
  #written: number[] = [];
  #replaced: number[] = [];

  constructor(file: BlockFile) {
    this.#file = file;
  }

  /** Reads the branches of a tree that is there, and learns from them which pages are in use. */
  async load(root: Pointer): Promise<void> {
    const claim = async (pointer: Pointer): Promise<void> => {
      this.#states[pointer.page] = USED;
      this.#branches.set(pointer.page, await this.#window(pointer));
      const { level, children } = this.#branch(pointer.page);
      if (level > 1) await Promise.all(children.map((child) => claim(pointerOf(child))));
      else for (const leaf of children) this.#states[pointerOf(leaf).page] = USED;
    };
    await claim(root);
    this.#versions.push({ root, readers: 0, replaced: [] });
  }

  #branch(page: number): { bytes: Uint8Array; level: number; children: Cell[] } {
    const { bytes } = this.#branches.get(page)!;
    return { bytes, level: bytes[0], children: cellsOf(bytes) };
  }

  // Versions

  /** The version that counts now; its pages stay until it is released. */
  retain(): Version {
    const version = this.#versions[this.#versions.length - 1];
    version.readers++;
    return version;
  }

  release(version: Version): void {
    version.readers--;
    this.#freeUnread();
  }

  /** What `merge` made counts from here on: it is what the device leads to. */
  adopt(root: Pointer): void {
    const before = this.#versions.at(-1);
    if (before !== undefined) before.replaced = this.#replaced;
    this.#versions.push({ root, readers: 0, replaced: [] });
    this.#freeUnread();
  }

  /** What a later version replaced can be in an earlier one too: pages become free in the order of versions. */
  #freeUnread(): void {
    while (this.#versions.length > 1 && this.#versions[0].readers === 0) this.#free(this.#versions.shift()!.replaced);
  }

  #free(pages: readonly number[]): void {
    for (const page of pages) {
      this.#states[page] = FREE;
      this.#lowestFree = Math.min(this.#lowestFree, page);
      this.#branches.get(page)?.release();
      this.#branches.delete(page);
    }
  }

  // Reading

  /** The leaf where a key is or would be, if it is in memory. To be released, and to be checked after the use. Makes nothing but the window. */
  tryLeaf(key: Uint8Array): Window | undefined {
    const branch = this.#lowest(this.#versions[this.#versions.length - 1], key);
    return this.#tryWindow(childAt(branch, childIndex(branch, key)));
  }

  /** The same, whatever it takes. */
  leaf(version: Version, key: Uint8Array): Promise<Window> {
    const branch = this.#lowest(version, key);
    return this.#window(childAt(branch, childIndex(branch, key)));
  }

  /** The branch that has the leaf of a key below it. */
  #lowest({ root }: Version, key: Uint8Array): Uint8Array {
    let { bytes } = this.#branches.get(root.page)!;
    while (bytes[0] > 1) bytes = this.#branches.get(childAt(bytes, childIndex(bytes, key)).page)!.bytes;
    return bytes;
  }

  /** The leaves from that of a key on, in order. Each is released when the next is asked for. */
  async *leaves({ root }: Version, from: Uint8Array): AsyncGenerator<Window> {
    for (const leaves of this.#leavesBelow(root.page, from)) {
      for (let index = 0, asked = 0; index < leaves.length; index++) {
        let window = this.#tryWindow(leaves[index]);
        if (window === undefined) {
          // What fails here is reported by the read that follows.
          for (const { page } of leaves.slice(Math.max(asked, index), index + AHEAD_PAGES)) {
            this.#states[page] = USED;
            this.#file.prefetch(page * PAGE_BYTES, PAGE_BYTES).catch(() => {});
          }
          asked = index + AHEAD_PAGES;
          window = await this.#window(leaves[index]);
        }
        try {
          yield window;
        } finally {
          window.release();
        }
      }
    }
  }

  /** Of each lowest branch. */
  *#leavesBelow(page: number, from: Uint8Array): Generator<Pointer[]> {
    const { bytes, level, children } = this.#branch(page);
    const pointers = children.slice(childIndex(bytes, from)).map(pointerOf);
    if (level === 1) yield pointers;
    else for (const child of pointers) yield* this.#leavesBelow(child.page, from);
  }

  #tryWindow(pointer: Pointer): Window | undefined {
    const window = this.#file.tryWindow(pointer.page * PAGE_BYTES, PAGE_BYTES);
    if (window === undefined) this.#states[pointer.page] = USED;
    return window === undefined || this.#states[pointer.page] === CHECKED ? window : this.#checked(window, pointer);
  }

  /** From the device perhaps: compared whatever was known of the page. */
  async #window(pointer: Pointer): Promise<Window> {
    return this.#checked(await this.#file.window(pointer.page * PAGE_BYTES, PAGE_BYTES), pointer);
  }

  #checked(window: Window, { page, sum }: Pointer): Window {
    if (crc32(window.bytes) !== sum) {
      window.release();
      throw new Error(`page ${page} of ${this.#file.path} is not what was written`);
    }
    this.#states[page] = CHECKED;
    return window;
  }

  // Changing

  /** The current version, or a tree without keys, with these changes, ascending by key; all its pages are durable. If it fails, it leaves nothing behind. */
  async merge(changes: readonly Cell[]): Promise<Pointer> {
    this.#written = [];
    this.#replaced = [];
    const root = this.#versions.at(-1)?.root.page;
    try {
      let children = root === undefined ? [] : await this.#merge(root, changes);
      let level = root === undefined || children.length === 0 ? 1 : this.#branch(root).level;
      if (children.length === 0) children = [await this.#write(0, NO_KEY, [])];
      for (; level === 1 || children.length > 1; level++) children = await this.#pack(level, NO_KEY, children);
      await this.#file.flush();
      return pointerOf(children[0]);
    } catch (error) {
      this.#free(this.#written);
      throw error;
    }
  }

  /** What stands below a branch after the changes: children that none of them is about as they are, new pages for the others. */
  async #merge(page: number, changes: readonly Cell[]): Promise<Cell[]> {
    const { level, children } = this.#branch(page);
    const merged: Cell[] = [];
    let past = 0;
    this.#replaced.push(page);
    for (const [index, child] of children.entries()) {
      const first = past;
      const high = children[index + 1]?.key;
      while (past < changes.length && (high === undefined || Buffer.compare(changes[past].key, high) < 0)) past++;
      if (past === first) merged.push(child);
      else merged.push(...(await this.#pack(level - 1, child.key, await this.#mergeChild(level, pointerOf(child), changes.slice(first, past)))));
    }
    return merged;
  }

  async #mergeChild(level: number, child: Pointer, changes: readonly Cell[]): Promise<Cell[]> {
    if (level > 1) return this.#merge(child.page, changes);
    this.#replaced.push(child.page);
    const window = await this.#window(child);
    // A copy: the cells are needed until they are packed.
    const cells = cellsOf(window.bytes.slice());
    window.release();
    return overlay(cells, changes);
  }

  /** Cells in pages that are about equally full; `low` is the lowest key that the first of them is responsible for. */
  async #pack(level: number, low: Uint8Array, cells: readonly Cell[]): Promise<Cell[]> {
    const pages: Cell[] = [];
    const room = cells.reduce((sum, cell) => sum + cell.room, 0);
    const share = room / Math.ceil(room / ROOM_BYTES);
    for (let start = 0, index = 0, filled = 0; start < cells.length; index++) {
      const more = cells[index]?.room ?? Number.POSITIVE_INFINITY;
      if (index > start && (filled + more > ROOM_BYTES || filled + more / 2 > share)) {
        // Between leaves the shortest key will do. The key of a branch is what the leaves below it were cut by.
        const key = start === 0 ? low : level > 0 ? cells[start].key : separator(cells[start - 1].key, cells[start].key);
        pages.push(await this.#write(level, key, cells.slice(start, index)));
        start = index;
        filled = 0;
      }
      filled += more;
    }
    return pages;
  }

  /** Writes a page, and answers with the cell that leads to it. */
  async #write(level: number, low: Uint8Array, cells: readonly Cell[]): Promise<Cell> {
    const bytes = encodePage(level, cells);
    const page = this.#states.indexOf(FREE, this.#lowestFree);
    if (page < 0) throw new RangeError(`the store has ${PAGES_MAX} pages, and none is free`);
    const pointer = { page, sum: crc32(bytes) };
    this.#states[page] = CHECKED;
    this.#lowestFree = page + 1;
    this.#written.push(page);
    if ((page + 1) * PAGE_BYTES > this.#file.size && this.#file.geometry.kind === 'file') await this.#file.allocate(this.#file.size, GROWTH_BYTES);
    await this.#file.write(bytes, page * PAGE_BYTES);
    if (level > 0) this.#branches.set(page, await this.#window(pointer));
    if (this.#written.length % TURN_PAGES === 0) await nextTurn();
    return encodeChild(low, pointer);
  }
}

/** The shortest key that is above `low` and not above `high`. */
function separator(low: Uint8Array, high: Uint8Array): Uint8Array {
  let shared = 0;
  while (shared < low.length && low[shared] === high[shared]) shared++;
  return high.slice(0, shared + 1);
}
