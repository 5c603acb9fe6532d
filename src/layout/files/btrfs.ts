/**
 * Files of btrfs, and what its addresses mean (btrfs-progs, kernel-shared/uapi/btrfs_tree.h).
 *
 *   file → address of btrfs → chunk → device
 *
 * All trees lie at addresses of btrfs; a few chunks are named in the superblock, which lead to the tree of all chunks. FIEMAP tells such addresses too
 * (as fe_physical), so `translate` also serves files of a mounted file system.
 *
 * Guarantees: a place is told where one device holds the bytes in a row (single, DUP, RAID1 of any number of copies); of striped chunks, and of those on other
 * devices, the place is unknown. Every node is visited at most once for one search.
 * Does not: replay a log that a crash has left; resolve symbolic links.
 */
import {
  FIEMAP_EXTENT_DATA_INLINE,
  FIEMAP_EXTENT_ENCODED,
  FIEMAP_EXTENT_LAST,
  FIEMAP_EXTENT_NOT_ALIGNED,
  FIEMAP_EXTENT_UNKNOWN,
  FIEMAP_EXTENT_UNWRITTEN,
} from '../../geometry/fiemap.js';
import { crc32c } from '../crc32c.js';
import type { FileExtent } from '../file-pages.js';
import { holds } from '../volumes/view.js';
import { type FoundFile, type ImageReader, namesOf, Runs } from './reader.js';

const SUPERBLOCKS = [64n << 10n, 64n << 20n];
const SUPERBLOCK_BYTES = 4096;
/** Keys and chunks of the chunk tree itself. */
const SYSTEM_CHUNKS_AT = 811;
const SYSTEM_CHUNKS_BYTES = 2048;
const KEY_BYTES = 17;
const NODE_HEADER = 101;
const ITEM_BYTES = 25;
const POINTER_BYTES = 33;
const LEVEL_MAX = 7;
const CHUNKS_MAX = 1 << 20;
/** Pieces of extents that are looked up; they need not become extents, since neighbours become one. */
const PIECES_MAX = 1 << 21;

/** Types of keys. */
const INODE = 1;
const DIRECTORY_ITEM = 84;
const EXTENT = 108;
const ROOT = 132;
const CHUNK = 228;
/** Object of the tree of files; of the first folder in any of them; of all chunks. */
const FILES = 5n;
const FIRST_FOLDER = 256n;
const CHUNKS = 256n;

/** Bits of a chunk's type whose bytes lie in a row: mirrored, duplicated. Striped: RAID0, RAID10, RAID5, RAID6. */
const STRIPED = 0x8n | 0x40n | 0x80n | 0x100n;
const FORMAT = 0xf000;
const FOLDER = 0x4000;
const REGULAR = 0x8000;
const INLINE = 0;
const PREALLOCATED = 2;

interface Key {
  object: bigint;
  type: number;
  offset: bigint;
}

interface Item {
  key: Key;
  data: DataView;
}

interface Chunk {
  start: bigint;
  length: bigint;
  /** Where it lies on this device; undefined where that cannot be said. */
  place: bigint | undefined;
}

interface Root {
  at: bigint;
  level: number;
}

export function findBtrfsFile(reader: ImageReader): FoundFile {
  const btrfs = new Btrfs(reader);
  let root = btrfs.treeOf(FILES);
  let inode = FIRST_FOLDER;
  for (const name of namesOf(reader.path)) {
    if ((btrfs.modeOf(root, inode) & FORMAT) !== FOLDER) throw reader.noFolder();
    const found = btrfs.lookUp(root, inode, name);
    // A subvolume is a tree of its own.
    if (found.type === ROOT) {
      root = btrfs.treeOf(found.object);
      inode = FIRST_FOLDER;
    } else {
      inode = found.object;
    }
  }
  const mode = btrfs.modeOf(root, inode);
  if ((mode & FORMAT) === FOLDER) throw reader.isFolder();
  if ((mode & FORMAT) !== REGULAR) throw reader.noFile('no regular file');
  return { size: btrfs.sizeOf(root, inode), extents: btrfs.extents(root, inode).extents };
}

/** Extents whose `physical` is an address of btrfs, as FIEMAP tells them, with the place on this device instead. */
export function translateBtrfs(reader: ImageReader, extents: readonly FileExtent[]): FileExtent[] {
  const btrfs = new Btrfs(reader);
  const runs = new Runs(reader);
  for (const extent of extents) btrfs.add(runs, extent);
  return runs.extents;
}

class Btrfs {
  readonly #reader: ImageReader;
  readonly #nodeBytes: number;
  readonly #device: bigint;
  readonly #trees: Root;
  /** Ascending. */
  #chunks: Chunk[];
  #pieces = 0;

  constructor(reader: ImageReader) {
    this.#reader = reader;
    const data = this.#superblock();
    this.#nodeBytes = data.getUint32(148, true);
    this.#device = data.getBigUint64(201, true);
    this.#trees = { at: data.getBigUint64(80, true), level: data.getUint8(198) };
    this.#chunks = ascending(this.#systemChunks(data));
    const found: Chunk[] = [];
    for (const { key, data: item } of this.#items({ at: data.getBigUint64(88, true), level: data.getUint8(199) }, { object: CHUNKS, type: CHUNK })) {
      if (found.length === CHUNKS_MAX) throw reader.unsupported(`more than ${CHUNKS_MAX} chunks`);
      found.push(this.#chunk(key.offset, item));
    }
    this.#chunks = ascending(found);
  }

  #superblock(): DataView {
    for (const at of SUPERBLOCKS) {
      const data = this.#reader.data(at, SUPERBLOCK_BYTES);
      const nodeBytes = data.getUint32(148, true);
      if (holds(data, 64, '_BHRfS_M') && data.getBigUint64(48, true) === at && nodeBytes >= 4096 && nodeBytes <= 65536) return data;
    }
    throw this.#reader.damaged('its superblock is none any more');
  }

  #systemChunks(data: DataView): Chunk[] {
    const chunks: Chunk[] = [];
    const end = SYSTEM_CHUNKS_AT + Math.min(data.getUint32(160, true), SYSTEM_CHUNKS_BYTES);
    for (let at = SYSTEM_CHUNKS_AT; at + KEY_BYTES + 48 <= end; ) {
      const item = new DataView(data.buffer, data.byteOffset + at + KEY_BYTES, end - at - KEY_BYTES);
      chunks.push(this.#chunk(data.getBigUint64(at + 9, true), item));
      at += KEY_BYTES + 48 + 32 * item.getUint16(44, true);
    }
    return chunks;
  }

  /** Length, owner, stripe length, type, …, stripes: of each the device and the byte there. */
  #chunk(start: bigint, item: DataView): Chunk {
    if (item.byteLength < 48) throw this.#reader.damaged('a chunk is too short');
    const stripes = item.getUint16(44, true);
    if (48 + 32 * stripes > item.byteLength) throw this.#reader.damaged(`a chunk of ${stripes} stripes is too short`);
    const isStriped = (item.getBigUint64(24, true) & STRIPED) !== 0n && stripes > 1;
    let place: bigint | undefined;
    for (let i = stripes - 1; i >= 0 && !isStriped; i--) {
      if (item.getBigUint64(48 + 32 * i, true) === this.#device) place = item.getBigUint64(56 + 32 * i, true);
    }
    return { start, length: item.getBigUint64(0, true), place };
  }

  #chunkOf(address: bigint): Chunk | undefined {
    let low = 0;
    let high = this.#chunks.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.#chunks[middle].start <= address) low = middle + 1;
      else high = middle;
    }
    const chunk = low === 0 ? undefined : this.#chunks[low - 1];
    return chunk !== undefined && address < chunk.start + chunk.length ? chunk : undefined;
  }

  /** One run of addresses, in as many pieces as it has chunks. */
  add(runs: Runs, { logical, physical, length, flags }: FileExtent): void {
    for (let done = 0n; done < length; ) {
      if (++this.#pieces > PIECES_MAX) throw this.#reader.unsupported(`it lies in more than ${PIECES_MAX} pieces of chunks`);
      const chunk = this.#chunkOf(physical + done);
      const left = chunk === undefined ? length - done : chunk.start + chunk.length - (physical + done);
      const part = left < length - done ? left : length - done;
      const place = chunk?.place;
      if (chunk === undefined || place === undefined) runs.add(logical + done, 0n, part, flags | FIEMAP_EXTENT_UNKNOWN);
      else runs.add(logical + done, place + physical + done - chunk.start, part, flags);
      done += part;
    }
  }

  #node(address: bigint, level: number): DataView {
    const chunk = this.#chunkOf(address);
    if (chunk?.place === undefined) throw this.#reader.unsupported(`address ${address} of its trees lies in stripes, or on another device`);
    const node = this.#reader.data(chunk.place + address - chunk.start, this.#nodeBytes);
    if (node.getBigUint64(48, true) !== address || node.getUint8(100) !== level) throw this.#reader.damaged(`no node of level ${level} at address ${address}`);
    const count = node.getUint32(96, true);
    if (NODE_HEADER + count * (level === 0 ? ITEM_BYTES : POINTER_BYTES) > this.#nodeBytes) throw this.#reader.damaged(`a node of ${count} items`);
    return node;
  }

  /** The items of an object and a type, ascending; from `offset` on, or with just that one. */
  *#items(root: Root, wanted: { object: bigint; type: number; offset?: bigint }, seen = new Set<bigint>()): Generator<Item> {
    if (root.level > LEVEL_MAX) throw this.#reader.damaged(`a tree of ${root.level} levels`);
    if (seen.has(root.at)) throw this.#reader.damaged('a tree goes round in a loop');
    seen.add(root.at);
    const node = this.#node(root.at, root.level);
    const count = node.getUint32(96, true);
    if (root.level > 0) {
      for (let i = 0; i < count; i++) {
        const at = NODE_HEADER + POINTER_BYTES * i;
        // Behind what is wanted, or wholly before it: the next one begins no later.
        if (compare(keyAt(node, at), wanted) > 0) return;
        if (i + 1 < count && compare(keyAt(node, at + POINTER_BYTES), wanted) < 0) continue;
        yield* this.#items({ at: node.getBigUint64(at + KEY_BYTES, true), level: root.level - 1 }, wanted, seen);
      }
      return;
    }
    for (let i = 0; i < count; i++) {
      const at = NODE_HEADER + ITEM_BYTES * i;
      const key = keyAt(node, at);
      const order = compare(key, wanted);
      if (order > 0) return;
      if (order < 0) continue;
      const dataAt = NODE_HEADER + node.getUint32(at + KEY_BYTES, true);
      const length = node.getUint32(at + KEY_BYTES + 4, true);
      if (dataAt + length > this.#nodeBytes) throw this.#reader.damaged('an item reaches out of its node');
      yield { key, data: new DataView(node.buffer, node.byteOffset + dataAt, length) };
    }
  }

  treeOf(object: bigint): Root {
    let last: Root | undefined;
    // Of several, the last one holds.
    for (const { data } of this.#items(this.#trees, { object, type: ROOT })) {
      if (data.byteLength >= 239) last = { at: data.getBigUint64(176, true), level: data.getUint8(238) };
    }
    if (last === undefined) throw this.#reader.damaged(`no tree ${object}`);
    return last;
  }

  #inode(root: Root, number: bigint): DataView {
    for (const { data } of this.#items(root, { object: number, type: INODE })) if (data.byteLength >= 160) return data;
    throw this.#reader.damaged(`no inode ${number}`);
  }

  modeOf(root: Root, inode: bigint): number {
    return this.#inode(root, inode).getUint32(52, true);
  }

  sizeOf(root: Root, inode: bigint): bigint {
    return this.#inode(root, inode).getBigUint64(16, true);
  }

  /** Names that share a hash share an item. */
  lookUp(root: Root, folder: bigint, name: string): Key {
    const wanted = Buffer.from(name);
    const hash = ~crc32c(wanted, 1) >>> 0;
    for (const { data } of this.#items(root, { object: folder, type: DIRECTORY_ITEM, offset: BigInt(hash) })) {
      for (let at = 0; at + 30 <= data.byteLength; ) {
        const nameBytes = data.getUint16(at + 27, true);
        const end = at + 30 + nameBytes;
        if (end > data.byteLength) break;
        if (wanted.equals(new Uint8Array(data.buffer, data.byteOffset + at + 30, nameBytes))) return keyAt(data, at);
        at = end + data.getUint16(at + 25, true);
      }
    }
    throw this.#reader.missing();
  }

  extents(root: Root, inode: bigint): Runs {
    const runs = new Runs(this.#reader);
    for (const { key, data } of this.#items(root, { object: inode, type: EXTENT })) {
      if (data.byteLength < 21) throw this.#reader.damaged('an extent is too short');
      const encoded = data.getUint8(16) !== 0 || data.getUint8(17) !== 0 || data.getUint16(18, true) !== 0 ? FIEMAP_EXTENT_ENCODED : 0;
      const type = data.getUint8(20);
      if (type === INLINE) {
        const flags = FIEMAP_EXTENT_DATA_INLINE | FIEMAP_EXTENT_NOT_ALIGNED | FIEMAP_EXTENT_LAST | encoded;
        runs.add(key.offset, 0n, data.getBigUint64(8, true), flags);
        continue;
      }
      if (data.byteLength < 53) throw this.#reader.damaged('an extent is too short');
      const address = data.getBigUint64(21, true);
      // No address: a hole.
      if (address === 0n) continue;
      const flags = encoded | (type === PREALLOCATED ? FIEMAP_EXTENT_UNWRITTEN : 0);
      // Of what is encoded, the offset counts in the decoded bytes: only where the whole lies can be said.
      const physical = encoded === 0 ? address + data.getBigUint64(37, true) : address;
      this.add(runs, { logical: key.offset, physical, length: data.getBigUint64(45, true), flags });
    }
    return runs;
  }
}

function ascending(chunks: Chunk[]): Chunk[] {
  return chunks.sort((a, b) => (a.start < b.start ? -1 : a.start > b.start ? 1 : 0));
}

/** Object, type, offset. */
function keyAt(data: DataView, at: number): Key {
  return { object: data.getBigUint64(at, true), type: data.getUint8(at + 8), offset: data.getBigUint64(at + 9, true) };
}

/** Order of a key against all that are wanted: by object, type, and offset if one is wanted. */
function compare(key: Key, wanted: { object: bigint; type: number; offset?: bigint }): number {
  if (key.object !== wanted.object) return key.object < wanted.object ? -1 : 1;
  if (key.type !== wanted.type) return key.type - wanted.type;
  if (wanted.offset === undefined || key.offset === wanted.offset) return 0;
  return key.offset < wanted.offset ? -1 : 1;
}
