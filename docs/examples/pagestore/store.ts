/**
 * An ordered key-value store on two files: a log, and a copy-on-write B+tree.
 *
 *   put ─> group ─> log, flush ─> memory (ordered) ··checkpoint··> tree, flush ─> meta page, flush ─> the log is free up to there
 *   get ─> memory ─> memory that is being merged ─> tree
 *
 * Guarantees: a put that resolved is there after every crash; groups are whole or not there; a reader never sees a page change, however long it reads. Keys are in the order of their bytes.
 * Leaves to others: opening the files (both with `lock: 'exclusive'`), and room in the cache of the first for all branches, about a hundredth of the store.
 */
import { crc32 } from 'node:zlib';
import type { BlockFile, InvalidateReason, Window } from 'sectorwise';
import module from 'sorted-btree';
import { Log, type Place } from './log.js';
import { BLOCK_BYTES, type Cell, cellsOf, compareKeys, encodeCell, find, type Pointer, valueCopy } from './page.js';
import { NO_KEY, overlay, Tree } from './tree.js';

const BTree = module.default;
type Ordered = InstanceType<typeof BTree<Uint8Array, Cell>>;

const MAGIC = 'swpages1';
const LOG_BYTES = 32 << 20;
/** Puts that wait become one group up to so much. */
const GROUP_BYTES_MAX = 256 << 10;

/** The state that the store comes back to: a root, and the place in the log behind which everything is that the root does not have. */
interface Meta {
  generation: number;
  root: Pointer;
  logBytes: number;
  log: Place;
}

/** Changes that become durable together. */
interface Group {
  cells: Cell[];
  bytes: number;
  done: Promise<void>;
  resolve(): void;
  reject(error: unknown): void;
}

export class Store {
  readonly #pages: BlockFile;
  readonly #logFile: BlockFile;
  readonly #tree: Tree;
  readonly #generation: number;
  #log!: Log;
  #meta!: Meta;
  /** What is durable in the log, and not in the tree. */
  #memory = new Memory();
  /** The part of it that a checkpoint is merging. */
  #frozen: { memory: Memory; end: Place } | undefined;
  #waiting: Group[] = [];
  #committing: Promise<void> | undefined;
  #merging: Promise<void> | undefined;
  /** Why the log takes no more. */
  #failed: unknown;
  #lost: InvalidateReason | undefined;

  private constructor(pages: BlockFile, logFile: BlockFile) {
    this.#pages = pages;
    this.#logFile = logFile;
    this.#tree = new Tree(pages);
    this.#generation = pages.generation;
    pages.on('invalidate', (reason) => {
      this.#lost ??= reason;
    });
  }

  /** Recovers what is there, or makes a new store where nothing is. The files are the store's from then on. */
  static async open(pages: BlockFile, logFile: BlockFile, { logBytes = LOG_BYTES }: { logBytes?: number } = {}): Promise<Store> {
    const store = new Store(pages, logFile);
    const meta = await readMeta(pages);
    // As for the log: what was found has to be durable before anything is built on it.
    await pages.flush();
    if (meta !== undefined) {
      store.#meta = meta;
      await store.#tree.load(meta.root);
    } else {
      await Log.prepare(logFile, logBytes);
      const draft = await store.#tree.create();
      await pages.flush();
      // What an older store left in the log begins with another sum.
      await store.#point({ generation: 1, root: draft.root!.pointer, logBytes, log: { offset: 0, sum: crc32(`${Date.now()}`) } });
      store.#tree.adopt(draft);
    }
    store.#log = await Log.open(logFile, store.#meta.logBytes, store.#meta.log, (cell) => store.#memory.set(cell));
    return store;
  }

  /** The value, a copy; at once where the page is in memory, else a promise of it. `await` takes both. */
  get(key: Uint8Array): Uint8Array | undefined | Promise<Uint8Array | undefined> {
    const change = this.#memory.get(key) ?? this.#frozen?.memory.get(key);
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
    if (this.#pages.generation !== this.#generation) throw new Error(`${this.#pages.path} is not whole any more: ${this.#lost?.cause ?? 'invalidated'}`);
  }

  /** The keys from `from` up to the one before `to`, as they are now, in runs. A run is yours until the next is asked for. */
  async *scan(from: Uint8Array = NO_KEY, to?: Uint8Array): AsyncGenerator<Cell[]> {
    const version = this.#tree.retain();
    const layers = [this.#frozen?.memory, this.#memory].flatMap((memory) => (memory?.ordered.size ? [memory.ordered.clone()] : []));
    try {
      for await (const { window, low, high } of this.#tree.leaves(version, from, to)) {
        let cells = layers.reduce((below, layer) => overlay(below, between(layer, low, high)), cellsOf(window.bytes));
        const isEdge = compareKeys(low, from) < 0 || (to !== undefined && (high === undefined || compareKeys(high, to) > 0));
        if (isEdge) cells = cells.filter(({ key }) => compareKeys(key, from) >= 0 && (to === undefined || compareKeys(key, to) < 0));
        this.#check(window);
        if (cells.length > 0) yield cells;
      }
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
    if (this.#failed !== undefined) throw this.#failed;
    if (bytes === 0) return;
    let group = this.#waiting.at(-1);
    if (group === undefined || group.bytes + bytes > Math.min(GROUP_BYTES_MAX, this.#log.cellBytesMax)) {
      group = newGroup();
      this.#waiting.push(group);
    }
    for (const cell of cells) group.cells.push(cell);
    group.bytes += bytes;
    this.#committing ??= this.#commit();
    return group.done;
  }

  async #commit(): Promise<void> {
    // Behind all promises that were resolved just now: whoever waited for the last group and puts again goes along.
    await new Promise<void>((resolve) => process.nextTick(resolve));
    for (let group = this.#waiting.shift(); group !== undefined; group = this.#waiting.shift()) {
      try {
        while (!this.#log.hasRoom(group.bytes)) await this.#merge();
      } catch (error) {
        // Nothing of it was written: the caller can try again.
        group.reject(error);
        continue;
      }
      try {
        await this.#log.append(group.cells, group.bytes);
      } catch (error) {
        // Whether it is in the log is not known. Nothing may follow it, and whoever opens the store again finds out.
        this.#failed = error;
        for (const failed of [group, ...this.#waiting.splice(0)]) failed.reject(error);
        break;
      }
      for (const cell of group.cells) this.#memory.set(cell);
      group.resolve();
      // What goes wrong with it is told to the first put that finds no room.
      if (this.#log.used > 0.5) this.#merge().catch(() => {});
      await new Promise<void>((resolve) => process.nextTick(resolve));
    }
    this.#committing = undefined;
  }

  /** Resolves when all that was put before is in the tree, and the log empty up to there. Puts and gets go on meanwhile. */
  async checkpoint(): Promise<void> {
    if (this.#merging !== undefined) await this.#merging;
    await this.#merge();
  }

  #merge(): Promise<void> {
    this.#merging ??= this.#mergeMemory().finally(() => {
      this.#merging = undefined;
    });
    return this.#merging;
  }

  async #mergeMemory(): Promise<void> {
    // One that is there already is of an attempt that failed.
    if (this.#frozen === undefined) {
      this.#frozen = { memory: this.#memory, end: this.#log.end };
      this.#memory = new Memory();
    }
    const { memory, end } = this.#frozen;
    if (memory.ordered.size > 0) {
      // What an attempt before could not make durable is part of no tree, and is written anew.
      this.#pages.acknowledgeLoss();
      const draft = await this.#tree.merge(memory.ordered.valuesArray());
      try {
        await this.#pages.flush();
      } catch (error) {
        this.#tree.abandon(draft);
        throw error;
      }
      // If this fails, the new meta page may be on the device or not. So nothing of either tree is given back, and the next attempt writes over the same one of the two.
      await this.#point({ ...this.#meta, generation: this.#meta.generation + 1, root: draft.root!.pointer, log: end });
      this.#tree.adopt(draft);
      this.#log.free(end);
    }
    this.#frozen = undefined;
  }

  async #point(meta: Meta): Promise<void> {
    await this.#pages.write(encodeMeta(meta), (meta.generation % 2) * BLOCK_BYTES);
    await this.#pages.flush();
    this.#meta = meta;
  }

  /** Ends what is under way, and closes both files. What is not in the tree is in the log. */
  async close(): Promise<void> {
    await this.#committing;
    await this.#merging?.catch(() => {});
    this.#pages.acknowledgeLoss();
    const ends = await Promise.allSettled([this.#pages.close(), this.#logFile.close()]);
    for (const end of ends) if (end.status === 'rejected') throw end.reason;
  }
}

/** What is durable in the log and not in the tree: in order, and by key, since most gets ask for what is not here. */
class Memory {
  readonly ordered: Ordered = new BTree<Uint8Array, Cell>(undefined, compareKeys);
  readonly #byKey = new Map<string, Cell>();

  set(cell: Cell): void {
    const { key } = cell;
    this.ordered.set(key, cell);
    this.#byKey.set(textOf(key), cell);
  }

  get(key: Uint8Array): Cell | undefined {
    return this.#byKey.size === 0 ? undefined : this.#byKey.get(textOf(key));
  }
}

function textOf(key: Uint8Array): string {
  return (Buffer.isBuffer(key) ? key : Buffer.from(key.buffer, key.byteOffset, key.length)).toString('latin1');
}

function newGroup(): Group {
  const group = { cells: [], bytes: 0 } as unknown as Group;
  group.done = new Promise((resolve, reject) => {
    group.resolve = resolve;
    group.reject = reject;
  });
  return group;
}

/** The changes of these keys, ascending. */
function between(layer: Ordered, low: Uint8Array, high: Uint8Array | undefined): Cell[] {
  const cells: Cell[] = [];
  layer.forRange(low, high ?? (layer.maxKey() as Uint8Array), high === undefined, (_, cell) => {
    cells.push(cell);
  });
  return cells;
}

/** The later of the two meta pages that are whole; undefined of a file in which there never was one. */
async function readMeta(file: BlockFile): Promise<Meta | undefined> {
  const bytes = Buffer.alloc(2 * BLOCK_BYTES);
  await file.read(bytes, 0);
  const found = [0, 1].map((slot) => decodeMeta(bytes.toString('latin1', slot * BLOCK_BYTES, (slot + 1) * BLOCK_BYTES))).filter((meta) => meta !== undefined);
  if (found.length === 0 && bytes.some((byte) => byte !== 0)) throw new Error(`${file.path} is no store, or both of its meta pages are damaged`);
  return found.sort((a, b) => b.generation - a.generation)[0];
}

/** A line of JSON behind its checksum, which fits one sector, so that it is there or not; the rest of the block is zeros. */
function encodeMeta(meta: Meta): Uint8Array {
  const text = JSON.stringify(meta);
  const bytes = Buffer.alloc(BLOCK_BYTES);
  bytes.write(`${MAGIC} ${crc32(text)} ${text}\n`, 'latin1');
  return bytes;
}

function decodeMeta(block: string): Meta | undefined {
  const [magic, sum, text] = block.split('\n', 1)[0].split(' ');
  return magic === MAGIC && Number(sum) === crc32(text) ? JSON.parse(text) : undefined;
}
