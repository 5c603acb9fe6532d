/**
 * An ordered key-value store on two files: a log, and a copy-on-write B+tree.
 *
 *   put ─> group ─> log, flush ─> memory (ordered) ··checkpoint··> tree, flush ─> meta page, flush ─> that half of the log is free
 *   get ─> memory ─> memory that is being merged ─> tree
 *
 * Guarantees: a put that resolved is there after every crash; groups are whole or not there; a reader never sees a page change, however long it reads. Keys are in the order of their bytes.
 * Leaves to others: opening the files (both with `lock: 'exclusive'`), and room in the cache of the first for all branches, about a hundredth of the store.
 */
import { crc32 } from 'node:zlib';
import type { BlockFile, Window } from 'sectorwise';
import module from 'sorted-btree';
import { Log } from './log.js';
import { below, type Cell, cellsOf, encodeCell, find, overlay, PAGE_BYTES, type Pointer, textOf, valueCopy } from './page.js';
import { NO_KEY, Tree } from './tree.js';

const BTree = module.default;
/** Changes that are durable in the log and not in the tree. Keys are strings of their bytes, which compare as these do. */
type Memory = InstanceType<typeof BTree<string, Cell>>;

/** Puts that wait become one group up to so much. */
const GROUP_BYTES_MAX = 256 << 10;

/** The state that the store comes back to: a root, and the first epoch of the log that the root does not have. */
interface Meta {
  generation: number;
  root: Pointer;
  logBytes: number;
  epoch: number;
}

/** Changes that become durable together. */
interface Group {
  cells: Cell[];
  bytes: number;
  done: Promise<void>;
}

export class Store {
  readonly #pages: BlockFile;
  readonly #logFile: BlockFile;
  readonly #tree: Tree;
  readonly #generation: number;
  #log!: Log;
  #meta!: Meta;
  /** What is durable in the log, and not in the tree. */
  #memory = newMemory();
  /** The part of it that a checkpoint is merging, or has failed to. */
  #frozen: Memory | undefined;
  /** What is put joins this one until its turn comes. */
  #group: Group | undefined;
  /** The log's last turn: it has one user at a time. Never rejects. */
  #last: Promise<void> = Promise.resolve();
  #merging: Promise<void> | undefined;
  /** Why the log takes no more. */
  #failed: unknown;

  private constructor(pages: BlockFile, logFile: BlockFile) {
    this.#pages = pages;
    this.#logFile = logFile;
    this.#tree = new Tree(pages);
    this.#generation = pages.generation;
  }

  /** Recovers what is there, or makes a new store where nothing is. The files are the store's from then on. `logBytes`: of a new one, in whole 8 KiB. */
  static async open(pages: BlockFile, logFile: BlockFile, { logBytes = 32 << 20 }: { logBytes?: number } = {}): Promise<Store> {
    const store = new Store(pages, logFile);
    const meta = await readMeta(pages);
    // As for the log: what was found has to be durable before anything is built on it.
    await pages.flush();
    store.#log = new Log(logFile, meta?.logBytes ?? logBytes);
    if (meta !== undefined) {
      store.#meta = meta;
      await store.#tree.load(meta.root);
      for (const epoch of [meta.epoch, meta.epoch + 1]) await store.#log.replay(epoch, (cell) => store.#memory.set(cell.text, cell));
    } else {
      await store.#log.clear();
      const root = await store.#tree.merge([]);
      await store.#point({ generation: 1, root, logBytes, epoch: 0 });
      store.#tree.adopt(root);
    }
    // What was found goes into the tree, and the log begins a new epoch.
    await store.checkpoint();
    return store;
  }

  /** The value, a copy; at once where the page is in memory, else a promise of it. `await` takes both. */
  get(key: Uint8Array): Uint8Array | undefined | Promise<Uint8Array | undefined> {
    const text = this.#memory.size > 0 || this.#frozen !== undefined ? textOf(key) : '';
    const change = this.#memory.get(text) ?? this.#frozen?.get(text);
    if (change !== undefined) return change.value?.slice();
    const leaf = this.#tree.tryLeaf(key);
    return leaf === undefined ? this.#getLater(key) : this.#take(leaf, key);
  }

  async #getLater(key: Uint8Array): Promise<Uint8Array | undefined> {
    const version = this.#tree.retain();
    try {
      return this.#take(await this.#tree.leaf(version, key), key);
    } finally {
      this.#tree.release(version);
    }
  }

  #take(leaf: Window, key: Uint8Array): Uint8Array | undefined {
    try {
      const { bytes } = leaf;
      const index = find(bytes, key);
      const value = index < 0 ? undefined : valueCopy(bytes, index);
      this.#check(leaf);
      return value;
    } finally {
      leaf.release();
    }
  }

  /** What was read was the file's: the leaf, and the branches that led to it, which show zeros once they are gone. */
  #check(leaf: Window): void {
    leaf.check();
    if (this.#pages.generation !== this.#generation) throw new Error(`${this.#pages.path} is not whole any more`);
  }

  /** The keys from `from` up to the one before `to`, as they are now, in runs. A run is yours until the next is asked for. */
  async *scan(from: Uint8Array = NO_KEY, to?: Uint8Array): AsyncGenerator<Cell[]> {
    const version = this.#tree.retain();
    const layers = [this.#frozen, this.#memory].flatMap((memory) => memory?.clone() ?? []);
    const changed = (cells: Cell[], high?: string): Cell[] => layers.reduce((below, layer) => overlay(below, between(layer, low, high)), cells);
    const end = to && textOf(to);
    let low = textOf(from);
    try {
      for await (const window of this.#tree.leaves(version, from)) {
        const cells = cellsOf(window.bytes);
        const until = to === undefined ? cells.length : below(window.bytes, to);
        const isLast = until < cells.length;
        // The first text above the leaf's last key: changes from there on are for later.
        const high = isLast ? end : cells.length > 0 ? `${cells[cells.length - 1].text}\0` : low;
        const run = changed(cells.slice(below(window.bytes, from), until), high);
        this.#check(window);
        if (run.length > 0) yield run;
        if (isLast) return;
        if (high! > low) low = high!;
      }
      const rest = changed([], end);
      if (rest.length > 0) yield rest;
    } finally {
      this.#tree.release(version);
    }
  }

  /** Resolves when it is durable. Do not wait for one before the next: those that wait at once share a flush. */
  put(key: Uint8Array, value: Uint8Array): Promise<void> {
    return this.write([[key, value]]);
  }

  delete(key: Uint8Array): Promise<void> {
    return this.write([[key, undefined]]);
  }

  /** All of them or none; undefined removes. */
  async write(changes: ReadonlyArray<readonly [key: Uint8Array, value: Uint8Array | undefined]>): Promise<void> {
    const cells = changes.map(([key, value]) => encodeCell(key, value));
    const bytes = cells.reduce((sum, cell) => sum + cell.bytes.length, 0);
    if (bytes > this.#log.cellBytesMax) throw new RangeError(`changes of ${bytes} bytes do not fit the log`);
    if (bytes === 0) return;
    if (this.#group === undefined || this.#group.bytes + bytes > Math.min(GROUP_BYTES_MAX, this.#log.cellBytesMax)) {
      const group = { cells: [], bytes: 0, done: this.#last };
      group.done = this.#inTurn(() => this.#commit(group));
      this.#group = group;
    }
    for (const cell of cells) this.#group.cells.push(cell);
    this.#group.bytes += bytes;
    return this.#group.done;
  }

  #inTurn(run: () => Promise<void>): Promise<void> {
    const done = this.#last.then(run);
    this.#last = done.catch(() => {});
    return done;
  }

  async #commit(group: Group): Promise<void> {
    // Behind all promises that the last turn resolved: whoever waited for it and puts again goes along.
    await new Promise((resolve) => process.nextTick(resolve));
    if (this.#group === group) this.#group = undefined;
    if (this.#failed !== undefined) throw this.#failed;
    if (!this.#log.hasRoom(group.bytes)) await this.#changeHalves();
    try {
      await this.#log.append(group.cells, group.bytes);
    } catch (error) {
      // Whether it is in the log is not known. Nothing may follow it, and whoever opens the store again finds out.
      this.#failed = error;
      throw error;
    }
    for (const cell of group.cells) this.#memory.set(cell.text, cell);
  }

  /** Resolves when all that was put before is in the tree. Puts and gets go on meanwhile. */
  async checkpoint(): Promise<void> {
    await this.#inTurn(() => this.#changeHalves());
    await this.#merge();
  }

  /** Goes on in the other half of the log, once what was there is in the tree, and begins to merge what is in this one. */
  async #changeHalves(): Promise<void> {
    await this.#merge();
    this.#frozen = this.#memory;
    this.#memory = newMemory();
    this.#log.begin(this.#log.epoch + 1);
    // What goes wrong with it is told to the one who needs the next half, where it is tried again.
    this.#merge().catch(() => {});
  }

  /** Resolves when nothing is left that is frozen. */
  #merge(): Promise<void> {
    this.#merging ??= this.#mergeFrozen().finally(() => {
      this.#merging = undefined;
    });
    return this.#merging;
  }

  async #mergeFrozen(): Promise<void> {
    if (this.#frozen === undefined) return;
    const { epoch } = this.#log;
    // What an attempt before could not make durable is part of no tree, and is written anew.
    this.#pages.acknowledgeLoss();
    const root = await this.#tree.merge(this.#frozen.valuesArray());
    // If this fails, the new meta page may be on the device or not. So nothing of either tree is given back, and the next attempt writes over the same one of the two.
    await this.#point({ ...this.#meta, generation: this.#meta.generation + 1, root, epoch });
    this.#tree.adopt(root);
    this.#frozen = undefined;
  }

  /** A line of JSON behind its checksum, which fits one sector, so that it is there or not. */
  async #point(meta: Meta): Promise<void> {
    const text = JSON.stringify(meta);
    const line = Buffer.from(`swpages2 ${crc32(text)} ${text}\n`.padEnd(PAGE_BYTES, '\0'));
    await this.#pages.write(line, (meta.generation % 2) * PAGE_BYTES);
    await this.#pages.flush();
    this.#meta = meta;
  }

  /** Ends what is under way, and closes both files. What is not in the tree is in the log. */
  async close(): Promise<void> {
    await this.#last;
    await this.#merging?.catch(() => {});
    this.#pages.acknowledgeLoss();
    const ends = await Promise.allSettled([this.#pages.close(), this.#logFile.close()]);
    for (const end of ends) if (end.status === 'rejected') throw end.reason;
  }
}

function newMemory(): Memory {
  return new BTree<string, Cell>(undefined, (a, b) => (a < b ? -1 : a > b ? 1 : 0), 64);
}

/** The changes from one key up to the one before another. */
function between(layer: Memory, low: string, high = `${layer.maxKey()}\0`): Cell[] {
  return layer.getRange(low, high).map(([, cell]) => cell);
}

/** The later of the two meta pages that are whole; undefined of a file in which there never was one. */
async function readMeta(file: BlockFile): Promise<Meta | undefined> {
  const bytes = Buffer.alloc(2 * PAGE_BYTES);
  await file.read(bytes, 0);
  const found = [0, PAGE_BYTES].flatMap((at): Meta[] => {
    const [, sum, text] = /^swpages2 (\d+) (.*)\n/.exec(bytes.toString('latin1', at, at + PAGE_BYTES)) ?? [];
    return text !== undefined && Number(sum) === crc32(text) ? [JSON.parse(text)] : [];
  });
  if (found.length === 0 && bytes.some((byte) => byte !== 0)) throw new Error(`${file.path} is no store, or both of its meta pages are damaged`);
  return found.sort((a, b) => b.generation - a.generation)[0];
}
