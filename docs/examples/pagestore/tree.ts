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
  pointerOf,
  ROOM_BYTES,
  separator,
  sumOf,
} from './page.js';
import { Space } from './space.js';

/** Two blocks for the meta pages. */
const FIRST_PAGE = 2;
/** The file grows by so much: a size that changes costs a commit of the file system's journal with the flush. */
const GROWTH_BYTES = 4 << 20;
/** Less than this is put together with what follows it, so that removals leave no small pages. */
const SPARSE_BYTES = ROOM_BYTES >>> 2;
/** Pages after which others have their turn in the event loop. */
const TURN_PAGES = 32;
/** Leaves that are asked for before they are needed. */
const AHEAD_PAGES = 32;
const NO_KEY: Uint8Array = new Uint8Array(0);

/** A branch: the view of its page is taken once, and is good for as long as its window is held and the file is not lost. */
interface Branch {
  readonly pointer: Pointer;
  readonly level: number;
  readonly window: Window;
  readonly bytes: Uint8Array;
  /** None at level 1: leaves are not held. */
  readonly children: readonly Branch[] | undefined;
}

/** What a parent has of a page: its lowest key and its pointer, and the branch if it is one. */
class Child extends Cell {
  readonly branch: Branch | undefined;

  constructor(cell: Cell, branch: Branch | undefined) {
    super(cell.bytes, cell.at);
    this.branch = branch;
  }
}

interface Used {
  pointer: Pointer;
  branch?: Branch | undefined;
}

/** One state of the tree. */
export interface Version {
  readonly root: Branch;
  readers: number;
  /** What the next version does not have: free once nobody reads this one. */
  replaced: Used[];
}

/** A new version in the making: its pages, and those of the current one that it does without. */
export interface Draft {
  root: Branch | undefined;
  written: Used[];
  replaced: Used[];
}

export interface Leaf {
  window: Window;
  /** The keys that it is responsible for: from `low` up to the one before `high`. */
  low: Uint8Array;
  high: Uint8Array | undefined;
}

export class Tree {
  readonly #file: BlockFile;
  readonly #space = new Space(FIRST_PAGE);
  /** Oldest first; the last one is the one that counts. */
  readonly #versions: Version[] = [];
  /** 1 for each page that was compared with its checksum since it came to memory, or that was written from here. */
  #checked = new Uint8Array(1024);
  #written = 0;

  constructor(file: BlockFile) {
    this.#file = file;
  }

  /** The version that counts. */
  get current(): Version {
    return this.#versions[this.#versions.length - 1];
  }

  /** Reads the branches of a tree that is there, and learns from them which pages are in use. */
  async load(root: Pointer): Promise<void> {
    this.#claim(root);
    this.#versions.push({ root: await this.#loadBranch(root), readers: 0, replaced: [] });
  }

  async #loadBranch(pointer: Pointer): Promise<Branch> {
    const window = await this.#page(pointer);
    const { bytes } = window;
    const pointers = cellsOf(bytes).map((_, index) => pointerOf(bytes, index));
    for (const child of pointers) this.#claim(child);
    const children = bytes[0] > 1 ? await Promise.all(pointers.map((child) => this.#loadBranch(child))) : undefined;
    return { pointer, level: bytes[0], window, bytes, children };
  }

  // Versions

  /** The version that counts now; its pages stay until it is released. */
  retain(): Version {
    this.current.readers++;
    return this.current;
  }

  release(version: Version): void {
    version.readers--;
    // An old version has pages that a later one has replaced: they become free in order.
    while (this.#versions.length > 1 && this.#versions[0].readers === 0) this.#free(this.#versions.shift()!.replaced);
  }

  /** The draft is durable: it counts from here on. */
  adopt({ root, replaced }: Draft): void {
    const before = this.#versions.at(-1);
    this.#versions.push({ root: root as Branch, readers: 0, replaced: [] });
    if (before === undefined) return;
    before.replaced = replaced;
    before.readers++;
    this.release(before);
  }

  /** Nothing on the device leads to the draft's pages. */
  abandon({ written }: Draft): void {
    this.#free(written);
  }

  // Reading

  /** The leaf where a key is or would be, if it is in memory. To be released; to be checked after the use. */
  tryLeaf(key: Uint8Array): Window | undefined {
    let branch = this.#versions[this.#versions.length - 1].root;
    while (branch.children !== undefined) branch = branch.children[childIndex(branch.bytes, key)];
    return this.#tryChild(branch.bytes, childIndex(branch.bytes, key));
  }

  async leaf({ root }: Version, key: Uint8Array): Promise<Window> {
    let branch = root;
    while (branch.children !== undefined) branch = branch.children[childIndex(branch.bytes, key)];
    return this.#page(pointerOf(branch.bytes, childIndex(branch.bytes, key)));
  }

  /** The leaves of the keys from `from` up to the one before `to`. Each is released when the next is asked for. */
  async *leaves({ root }: Version, from: Uint8Array, to: Uint8Array | undefined): AsyncGenerator<Leaf> {
    // From where the leaf before ended: the key in the branch is higher where leaves were removed.
    let low = NO_KEY;
    for (const { branch, high: end } of parents(root, from, to, undefined)) {
      const children = cellsOf(branch.bytes);
      let ahead = 0;
      for (let index = childIndex(branch.bytes, from); index < children.length; index++) {
        if (to !== undefined && compareKeys(low, to) >= 0) return;
        const high = children[index + 1]?.key ?? end;
        let window = this.#tryChild(branch.bytes, index);
        if (window === undefined) {
          ahead = Math.max(ahead, index);
          for (; ahead < Math.min(children.length, index + AHEAD_PAGES); ahead++) this.#prefetch(branch.bytes, ahead);
          window = await this.#page(pointerOf(branch.bytes, index));
        }
        try {
          yield { window, low, high };
        } finally {
          window.release();
        }
        if (high === undefined) return;
        low = high;
      }
    }
  }

  /** The immediate path to a page. Makes nothing but the window. */
  #tryChild(parent: Uint8Array, index: number): Window | undefined {
    const page = childPage(parent, index);
    const window = this.#file.tryWindow(page * BLOCK_BYTES, childBlocks(parent, index) * BLOCK_BYTES);
    if (window === undefined) this.#checked[page] = 0;
    else if (this.#checked[page] === 0) this.#check(window, pointerOf(parent, index));
    return window;
  }

  async #page(pointer: Pointer): Promise<Window> {
    const window = await this.#file.window(pointer.page * BLOCK_BYTES, pointer.blocks * BLOCK_BYTES);
    if (this.#checked[pointer.page] === 0) this.#check(window, pointer);
    return window;
  }

  #check(window: Window, { page, sum }: Pointer): void {
    if (sumOf(window.bytes) !== sum) {
      window.release();
      throw new Error(`page ${page} of ${this.#file.path} is not what was written`);
    }
    this.#checked[page] = 1;
  }

  #prefetch(parent: Uint8Array, index: number): void {
    const there = this.#tryChild(parent, index);
    if (there !== undefined) there.release();
    // What fails here is reported by the read that follows.
    else this.#file.prefetch(childPage(parent, index) * BLOCK_BYTES, childBlocks(parent, index) * BLOCK_BYTES).catch(() => {});
  }

  // Changing

  /** A tree without keys. */
  create(): Promise<Draft> {
    return this.#draft(async () => []);
  }

  /** The current version with these changes, ascending by key. If it fails, it leaves nothing behind. */
  merge(changes: readonly Cell[]): Promise<Draft> {
    const { root } = this.current;
    return this.#draft((draft) => this.#merge(root, changes, 0, changes.length, draft));
  }

  /** Branches over what `make` makes, up to one root. */
  async #draft(make: (draft: Draft) => Promise<Child[]>): Promise<Draft> {
    const draft: Draft = { root: undefined, written: [], replaced: [] };
    try {
      let pages = await make(draft);
      if (pages.length === 0) pages = [await this.#write(0, NO_KEY, [], draft)];
      for (let level = (pages[0].branch?.level ?? 0) + 1; pages.length > 1 || pages[0].branch === undefined; level++) {
        const packer = new Packer(level, (key, cells) => this.#write(level, key, cells, draft));
        packer.add(NO_KEY, pages);
        pages = await packer.end();
      }
      draft.root = pages[0].branch;
      for (; draft.root?.children?.length === 1; draft.root = draft.root.children[0]) draft.replaced.push({ pointer: draft.root.pointer, branch: draft.root });
      return draft;
    } catch (error) {
      this.abandon(draft);
      throw error;
    }
  }

  /** What stands below a branch after the changes from `from` up to the one before `to`: children that none of them is about as they are, and new pages for the others. */
  async #merge(branch: Branch, changes: readonly Cell[], from: number, to: number, draft: Draft): Promise<Child[]> {
    const { bytes, level, children, pointer } = branch;
    draft.replaced.push({ pointer, branch });
    const packer = new Packer(level - 1, (key, cells) => this.#write(level - 1, key, cells, draft));
    const cells = cellsOf(bytes);
    const ends = cells.map((_, index) => {
      const high = cells[index + 1]?.key;
      const begin = from;
      while (from < to && (high === undefined || compareKeys(changes[from].key, high) < 0)) from++;
      if (from > begin && level === 1) this.#prefetch(bytes, index);
      return { begin, end: from };
    });
    for (const [index, { begin, end }] of ends.entries()) {
      const child = new Child(cells[index], children?.[index]);
      if (begin === end && packer.isEmpty) packer.pages.push(child);
      else if (child.branch !== undefined) packer.add(child.key, await this.#merge(child.branch, changes, begin, end, draft));
      else {
        const leaf = pointerOf(bytes, index);
        const window = await this.#page(leaf);
        try {
          draft.replaced.push({ pointer: leaf });
          packer.add(child.key, overlay(cellsOf(window.bytes), changes.slice(begin, end)));
          await packer.drain(false);
        } finally {
          window.release();
        }
      }
      await packer.drain(false);
    }
    return packer.end();
  }

  async #write(level: number, key: Uint8Array, cells: readonly Cell[], draft: Draft): Promise<Child> {
    const file = this.#file;
    const bytes = encodePage(level, cells);
    const blocks = bytes.length / BLOCK_BYTES;
    const pointer = { page: this.#space.take(blocks), blocks, sum: sumOf(bytes) };
    const used: Used = { pointer };
    draft.written.push(used);
    this.#mark(pointer, 1);
    const offset = pointer.page * BLOCK_BYTES;
    const lacking = offset + bytes.length - file.size;
    if (lacking > 0 && file.geometry.kind === 'file') await file.allocate(file.size, Math.max(GROWTH_BYTES, lacking));
    await file.write(bytes, offset);
    if (level > 0) {
      const window = await file.window(offset, bytes.length);
      const children = level > 1 ? cells.map((cell) => (cell as Child).branch as Branch) : undefined;
      used.branch = { pointer, level, window, bytes: window.bytes, children };
    }
    if (++this.#written % TURN_PAGES === 0) await nextTurn();
    return new Child(encodeChild(key, pointer), used.branch);
  }

  #claim(pointer: Pointer): void {
    this.#space.claim(pointer.page, pointer.blocks);
    this.#mark(pointer, 0);
  }

  #mark({ page }: Pointer, checked: number): void {
    if (page >= this.#checked.length) {
      const larger = new Uint8Array(page * 2);
      larger.set(this.#checked);
      this.#checked = larger;
    }
    this.#checked[page] = checked;
  }

  #free(pages: readonly Used[]): void {
    for (const { pointer, branch } of pages) {
      branch?.window.release();
      this.#space.give(pointer.page, pointer.blocks);
    }
  }
}

/** Cells of one level on their way into pages: cut so that all are about equally full. */
class Packer {
  readonly pages: Child[] = [];
  readonly #level: number;
  readonly #write: (key: Uint8Array, cells: readonly Cell[]) => Promise<Child>;
  #cells: Cell[] = [];
  #bytes = 0;
  #low = NO_KEY;

  constructor(level: number, write: (key: Uint8Array, cells: readonly Cell[]) => Promise<Child>) {
    this.#level = level;
    this.#write = write;
  }

  get isEmpty(): boolean {
    return this.#cells.length === 0;
  }

  /** `low` is the lowest key that the page they begin is responsible for. */
  add(low: Uint8Array, cells: readonly Cell[]): void {
    if (this.isEmpty) this.#low = low;
    for (const cell of cells) {
      this.#cells.push(cell);
      this.#bytes += cell.room;
    }
  }

  /** Writes what is there; if that is little and more is to come, it waits for that, as bytes of its own. */
  async drain(last: boolean): Promise<void> {
    const cells = this.#cells;
    if (cells.length === 0) return;
    if (!last && this.#bytes < SPARSE_BYTES) {
      this.#cells = cells.map((cell) => (cell instanceof Child ? cell : new Cell(cell.bytes.slice(cell.at, cell.at + cell.size), 0)));
      return;
    }
    const share = this.#bytes / Math.ceil(this.#bytes / ROOM_BYTES);
    let start = 0;
    let filled = 0;
    for (let index = 0, sum = 0, due = share; index <= cells.length; index++) {
      const room = cells[index]?.room ?? Number.POSITIVE_INFINITY;
      if (index > start && (filled + room > ROOM_BYTES || sum + room / 2 > due)) {
        // Between leaves the shortest key will do. That of a branch is what the leaves below it were cut by.
        const key = start === 0 ? this.#low : this.#level > 0 ? cells[start].key : separator(cells[start - 1].key, cells[start].key);
        this.pages.push(await this.#write(key, cells.slice(start, index)));
        start = index;
        filled = 0;
        due += share;
      }
      filled += room;
      sum += room;
    }
    this.#cells = [];
    this.#bytes = 0;
  }

  async end(): Promise<Child[]> {
    await this.drain(true);
    return this.pages;
  }
}

/** Two ascending lists as one: of the same key the change counts, and what it removes is left out. */
export function overlay(cells: readonly Cell[], changes: readonly Cell[]): Cell[] {
  if (changes.length === 0) return cells as Cell[];
  const merged: Cell[] = [];
  let next = 0;
  const take = (): void => {
    const change = changes[next++];
    if (!change.removed) merged.push(change);
  };
  for (const cell of cells) {
    const { key } = cell;
    while (next < changes.length && compareKeys(changes[next].key, key) < 0) take();
    if (next < changes.length && compareKeys(changes[next].key, key) === 0) take();
    else merged.push(cell);
  }
  while (next < changes.length) take();
  return merged;
}

/** The branches of level 1 for the keys from `from` up to the one before `to`, each with the key that ends it. */
function* parents(
  branch: Branch,
  from: Uint8Array,
  to: Uint8Array | undefined,
  high: Uint8Array | undefined,
): Generator<{ branch: Branch; high: Uint8Array | undefined }> {
  const { children, bytes } = branch;
  if (children === undefined) {
    yield { branch, high };
    return;
  }
  const cells = cellsOf(bytes);
  const first = childIndex(bytes, from);
  for (let index = first; index < cells.length; index++) {
    if (index > first && to !== undefined && compareKeys(cells[index].key, to) >= 0) return;
    yield* parents(children[index], from, to, cells[index + 1]?.key ?? high);
  }
}
