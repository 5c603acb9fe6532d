/**
 * A B+tree whose pages are never changed: a change makes new pages from the leaves up to a new root, and the old root goes on showing the old tree.
 *
 *   Version ─> root (branch) ─> branch … ─> leaf        the branches stand in memory, as windows that are held: a lookup asks the file for one page, the leaf
 *
 * Guarantees: no page is written over that the version on the device, or one that somebody reads, leads to; each page is compared with its checksum when it comes to memory.
 * Leaves to others: what makes a new version durable, and when it counts (`store.ts`).
 */
import { setImmediate as nextTurn } from 'node:timers/promises';
import type { BlockFile, Window } from 'sectorwise';
import {
  BLOCK_BYTES,
  Cell,
  cellsOf,
  childBlocks,
  childIndex,
  childPage,
  compareKeys,
  encodeChild,
  encodePage,
  type Pointer,
  placeOf,
  pointerOf,
  ROOM_BYTES,
  separator,
  sumOf,
} from './page.js';
import { Space } from './space.js';

/** The first two blocks are for the meta pages. */
const FIRST_PAGE = 2;
/** The file grows by so much: a size that changes costs a commit of the file system's journal with the flush. */
const GROWTH_BYTES = 4 << 20;
/** Less than this is put together with what follows it, so that removals leave no small pages. */
const SPARSE_BYTES = ROOM_BYTES >>> 2;
/** Pages after which others have their turn in the event loop. */
const TURN_PAGES = 32;
/** Leaves that a scan asks for before it needs them. */
const AHEAD_PAGES = 32;
export const NO_KEY: Uint8Array = new Uint8Array(0);

/** The view of a branch's page is taken once: it is good for as long as its window is held and the file is not lost. */
interface Branch {
  level: number;
  window: Window;
  bytes: Uint8Array;
  /** None at level 1: leaves are not held. */
  children: Page[] | undefined;
}

/** What a parent has of a page: its lowest key and its pointer, and the branch if it is one. */
class Page extends Cell {
  branch: Branch | undefined;

  get pointer(): Pointer {
    return pointerOf(this.bytes, this.at);
  }
}

/** One state of the tree. `replaced` is what the next one does without: free once nobody reads this one. */
export interface Version {
  root: Page;
  readers: number;
  replaced: Page[];
}

/** A new version in the making: its root and all pages that were written for it, and those of the current version that it does without. */
export interface Draft {
  root: Page | undefined;
  written: Page[];
  replaced: Page[];
}

export class Tree {
  readonly #file: BlockFile;
  readonly #space = new Space(FIRST_PAGE);
  /** Oldest first; the last one is the one that counts. */
  readonly #versions: Version[] = [];

  constructor(file: BlockFile) {
    this.#file = file;
  }

  /** Reads the branches of a tree that is there, and learns from them which pages are in use. */
  async load(root: Pointer): Promise<void> {
    this.#versions.push({ root: await this.#loaded(encodePointer(NO_KEY, root), true), readers: 0, replaced: [] });
  }

  async #loaded(found: Page, isBranch: boolean): Promise<Page> {
    // With bytes of its own: it can outlive the branch that it was found in.
    const page = isBranch ? encodePointer(found.key, found.pointer) : found;
    this.#space.claim(page.pointer.page, page.pointer.blocks);
    if (isBranch) {
      const window = await this.#window(page.pointer);
      const { bytes } = window;
      const children = await Promise.all(pagesOf(bytes).map((child) => this.#loaded(child, bytes[0] > 1)));
      page.branch = { level: bytes[0], window, bytes, children: bytes[0] > 1 ? children : undefined };
    }
    return page;
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
    // What a later version replaced can be in an earlier one too: pages become free in the order of versions.
    while (this.#versions.length > 1 && this.#versions[0].readers === 0) this.#free(this.#versions.shift()!.replaced);
  }

  /** The draft is durable: it counts from here on. */
  adopt({ root, replaced }: Draft): void {
    const before = this.#versions.length > 0 ? this.retain() : undefined;
    this.#versions.push({ root: root!, readers: 0, replaced: [] });
    if (before === undefined) return;
    before.replaced = replaced;
    this.release(before);
  }

  /** Nothing on the device leads to the draft's pages. */
  abandon({ written }: Draft): void {
    this.#free(written);
  }

  #free(pages: readonly Page[]): void {
    for (const { pointer } of pages) this.#space.give(pointer.page, pointer.blocks);
    for (const { branch } of pages) branch?.window.release();
  }

  // Reading

  /** The leaf where a key is or would be, if it is in memory. To be released, and to be checked after the use. */
  tryLeaf(key: Uint8Array): Window | undefined {
    const { bytes } = lowestBranch(this.#versions[this.#versions.length - 1], key);
    return this.#tryChild(bytes, childIndex(bytes, key));
  }

  /** The same, whatever it takes. */
  async leaf(version: Version, key: Uint8Array): Promise<Window> {
    const { bytes } = lowestBranch(version, key);
    return this.#window(pointerOf(bytes, placeOf(bytes, childIndex(bytes, key))));
  }

  /** The leaves of the keys from `from` up to the one before `to`, each with the keys `low` to the one before `high` that it is responsible for. Released when the next is asked for. */
  async *leaves(
    { root }: Version,
    from: Uint8Array,
    to: Uint8Array | undefined,
  ): AsyncGenerator<{ window: Window; low: Uint8Array; high: Uint8Array | undefined }> {
    // From where the leaf before ended: the key in the branch is above that where leaves were removed.
    let low = NO_KEY;
    for (const { branch, high: end } of lowestBranches(root.branch!, from, undefined)) {
      const pages = pagesOf(branch.bytes);
      for (let index = childIndex(branch.bytes, from), asked = 0; index < pages.length; index++) {
        if (to !== undefined && compareKeys(low, to) >= 0) return;
        const high = pages[index + 1]?.key ?? end;
        let window = this.#tryChild(branch.bytes, index);
        if (window === undefined) {
          for (asked = Math.max(asked, index); asked < Math.min(pages.length, index + AHEAD_PAGES); asked++) this.#prefetch(branch.bytes, asked);
          window = await this.#window(pages[index].pointer);
        }
        try {
          yield { window, low, high };
        } finally {
          window.release();
        }
        if (high !== undefined) low = high;
      }
    }
  }

  /** The immediate path to a page. Makes nothing but the window. */
  #tryChild(branch: Uint8Array, index: number): Window | undefined {
    const page = childPage(branch, index);
    const window = this.#file.tryWindow(page * BLOCK_BYTES, childBlocks(branch, index) * BLOCK_BYTES);
    if (window === undefined) this.#space.setChecked(page, false);
    else if (!this.#space.isChecked(page)) this.#check(window, pointerOf(branch, placeOf(branch, index)));
    return window;
  }

  async #window(pointer: Pointer): Promise<Window> {
    const window = await this.#file.window(pointer.page * BLOCK_BYTES, pointer.blocks * BLOCK_BYTES);
    if (!this.#space.isChecked(pointer.page)) this.#check(window, pointer);
    return window;
  }

  #check(window: Window, { page, sum }: Pointer): void {
    if (sumOf(window.bytes) !== sum) {
      window.release();
      throw new Error(`page ${page} of ${this.#file.path} is not what was written`);
    }
    this.#space.setChecked(page, true);
  }

  #prefetch(branch: Uint8Array, index: number): void {
    const there = this.#tryChild(branch, index);
    if (there !== undefined) there.release();
    // What fails here is reported by the read that follows.
    else this.#file.prefetch(childPage(branch, index) * BLOCK_BYTES, childBlocks(branch, index) * BLOCK_BYTES).catch(() => {});
  }

  // Changing

  /** A tree without keys. */
  create(): Promise<Draft> {
    return this.#draft(async () => []);
  }

  /** The current version with these changes, ascending by key. If it fails, it leaves nothing behind. */
  merge(changes: readonly Cell[]): Promise<Draft> {
    const { root } = this.#versions[this.#versions.length - 1];
    return this.#draft((draft) => this.#merge(root, changes, 0, changes.length, draft));
  }

  /** Branches over what `make` makes, up to one root. */
  async #draft(make: (draft: Draft) => Promise<Page[]>): Promise<Draft> {
    const draft: Draft = { root: undefined, written: [], replaced: [] };
    try {
      let pages = await make(draft);
      if (pages.length === 0) pages = [await this.#write(0, NO_KEY, [], draft)];
      while (pages.length > 1 || pages[0].branch === undefined) pages = await this.#pack((pages[0].branch?.level ?? 0) + 1, NO_KEY, pages, draft);
      draft.root = pages[0];
      for (; draft.root.branch?.children?.length === 1; draft.root = draft.root.branch.children[0]) draft.replaced.push(draft.root);
      return draft;
    } catch (error) {
      this.abandon(draft);
      throw error;
    }
  }

  /** What stands below a branch after the changes from `from` up to the one before `to`: children that none of them is about as they are, new pages for the others. */
  async #merge(page: Page, changes: readonly Cell[], from: number, to: number, draft: Draft): Promise<Page[]> {
    const { level, bytes, children } = page.branch!;
    const pages = children ?? pagesOf(bytes);
    const held: Window[] = [];
    const merged: Page[] = [];
    let low = NO_KEY;
    let pending: Cell[] = [];
    draft.replaced.push(page);
    try {
      for (const [index, child] of pages.entries()) {
        const high = pages[index + 1]?.key;
        const begin = from;
        while (from < to && (high === undefined || compareKeys(changes[from].key, high) < 0)) from++;
        if (from === begin && pending.length === 0) {
          merged.push(child);
          continue;
        }
        if (pending.length === 0) low = child.key;
        if (level > 1) {
          pending = pending.concat(await this.#merge(child, changes, begin, from, draft));
        } else {
          draft.replaced.push(child);
          const window = await this.#window(child.pointer);
          held.push(window);
          pending = pending.concat(overlay(cellsOf(window.bytes), changes.slice(begin, from)));
        }
        if (high !== undefined && roomOf(pending) < SPARSE_BYTES) continue;
        merged.push(...(await this.#pack(level - 1, low, pending, draft)));
        pending = [];
        for (const window of held.splice(0)) window.release();
      }
      return merged;
    } finally {
      for (const window of held) window.release();
    }
  }

  /** Cells in pages that are about equally full; `low` is the lowest key that the first of them is responsible for. */
  async #pack(level: number, low: Uint8Array, cells: readonly Cell[], draft: Draft): Promise<Page[]> {
    const pages: Page[] = [];
    const room = roomOf(cells);
    const share = room / Math.ceil(room / ROOM_BYTES);
    for (let start = 0, index = 0, filled = 0, sum = 0; start < cells.length; index++) {
      const more = cells[index]?.room ?? Number.POSITIVE_INFINITY;
      if (index > start && (filled + more > ROOM_BYTES || sum + more / 2 > share * (pages.length + 1))) {
        // Between leaves the shortest key will do. The key of a branch is what the leaves below it were cut by.
        const key = start === 0 ? low : level > 0 ? cells[start].key : separator(cells[start - 1].key, cells[start].key);
        pages.push(await this.#write(level, key, cells.slice(start, index), draft));
        start = index;
        filled = 0;
      }
      filled += more;
      sum += more;
    }
    return pages;
  }

  async #write(level: number, key: Uint8Array, cells: readonly Cell[], draft: Draft): Promise<Page> {
    const file = this.#file;
    const bytes = encodePage(level, cells);
    const blocks = bytes.length / BLOCK_BYTES;
    const page = encodePointer(key, { page: this.#space.take(blocks), blocks, sum: sumOf(bytes) });
    draft.written.push(page);
    const offset = page.pointer.page * BLOCK_BYTES;
    const lacking = offset + bytes.length - file.size;
    if (lacking > 0 && file.geometry.kind === 'file') await file.allocate(file.size, Math.max(GROWTH_BYTES, lacking));
    await file.write(bytes, offset);
    this.#space.setChecked(page.pointer.page, true);
    if (level > 0) {
      const window = await file.window(offset, bytes.length);
      page.branch = { level, window, bytes: window.bytes, children: level > 1 ? (cells as Page[]) : undefined };
    }
    if (draft.written.length % TURN_PAGES === 0) await nextTurn();
    return page;
  }
}

function encodePointer(key: Uint8Array, pointer: Pointer): Page {
  return new Page(encodeChild(key, pointer).bytes, 0);
}

function pagesOf(branch: Uint8Array): Page[] {
  return cellsOf(branch).map(({ bytes, at }) => new Page(bytes, at));
}

function roomOf(cells: readonly Cell[]): number {
  return cells.reduce((sum, cell) => sum + cell.room, 0);
}

/** The branch that has the leaf of a key below it. */
function lowestBranch({ root }: Version, key: Uint8Array): Branch {
  let branch = root.branch!;
  while (branch.children !== undefined) branch = branch.children[childIndex(branch.bytes, key)].branch!;
  return branch;
}

/** All of them from that of `from` on, each with the key that ends it. */
function* lowestBranches(branch: Branch, from: Uint8Array, high: Uint8Array | undefined): Generator<{ branch: Branch; high: Uint8Array | undefined }> {
  const { children, bytes } = branch;
  if (children === undefined) yield { branch, high };
  else
    for (let index = childIndex(bytes, from); index < children.length; index++)
      yield* lowestBranches(children[index].branch!, from, children[index + 1]?.key ?? high);
}

/** Two ascending lists as one: of the same key the change counts, and what it removes is left out. */
export function overlay(cells: readonly Cell[], changes: readonly Cell[]): Cell[] {
  const merged: Cell[] = [];
  let next = 0;
  for (const cell of cells) {
    let order = -1;
    for (const { key } = cell; next < changes.length; next++) {
      order = compareKeys(changes[next].key, key);
      if (order >= 0) break;
      merged.push(changes[next]);
    }
    if (next === changes.length || order !== 0) merged.push(cell);
  }
  return merged.concat(changes.slice(next)).filter((cell) => !cell.removed);
}
