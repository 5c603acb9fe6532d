/**
 * Files of ext2, ext3 and ext4: inodes by number, their blocks as trees of extents or as maps of pointers, directories read from end to end (the index of a
 * large one is built so that it looks like empty entries).
 *
 * Guarantees: trees are followed to the depth that the kernel allows, each node within its bounds.
 * Does not: resolve symbolic links; decrypt names.
 */
import {
  FIEMAP_EXTENT_DATA_ENCRYPTED,
  FIEMAP_EXTENT_DATA_INLINE,
  FIEMAP_EXTENT_ENCODED,
  FIEMAP_EXTENT_LAST,
  FIEMAP_EXTENT_NOT_ALIGNED,
  FIEMAP_EXTENT_UNWRITTEN,
} from '../../geometry/fiemap.js';
import { EXT_SUPERBLOCK, EXT_SUPERBLOCK_BYTES, type ExtGeometry, extGeometry, INCOMPAT } from '../volumes/ext.js';
import { type FoundFile, type ImageReader, namesOf, Runs } from './reader.js';

const ROOT = 2;
const FORMAT = 0xf000;
const FOLDER = 0x4000;
const REGULAR = 0x8000;
const ENCRYPTED = 0x800;
const IS_EXTENTS = 0x80000;
const IS_INLINE = 0x10000000;
/** i_block: twelve blocks, then pointers to one, two and three layers of them; or the root of a tree; or the bytes themselves. */
const MAP_AT = 40;
const MAP_BYTES = 60;
const DIRECT = 12;
const EXTENT_MAGIC = 0xf30a;
const DEPTH_MAX = 5;
/** An extent longer than this was never written, and is that much shorter. */
const INITIALISED_MAX = 32768;
const SPARSE_SUPER = 0x1;
const SPARSE_SUPER_2 = 0x200;
/** Where an inode keeps more of what did not fit: index 7 (`system.`), name `data`. */
const XATTR_MAGIC = 0xea020000;

interface Inode {
  data: DataView;
  mode: number;
  size: bigint;
  flags: number;
}

export function findExtFile(reader: ImageReader): FoundFile {
  const ext = extGeometry(reader.data(BigInt(EXT_SUPERBLOCK), EXT_SUPERBLOCK_BYTES));
  if (ext === null) throw reader.damaged('its superblock is none any more');
  const tree = new Ext(reader, ext);
  let inode = tree.inode(ROOT);
  for (const name of namesOf(reader.path)) {
    if ((inode.mode & FORMAT) !== FOLDER) throw reader.noFolder();
    inode = tree.inode(tree.lookUp(inode, name));
  }
  if ((inode.mode & FORMAT) === FOLDER) throw reader.isFolder();
  if ((inode.mode & FORMAT) !== REGULAR) throw reader.noFile('no regular file');
  if ((inode.flags & IS_INLINE) !== 0) {
    const flags = FIEMAP_EXTENT_DATA_INLINE | FIEMAP_EXTENT_NOT_ALIGNED | FIEMAP_EXTENT_LAST;
    return { size: inode.size, extents: inode.size === 0n ? [] : [{ logical: 0n, physical: 0n, length: inode.size, flags }] };
  }
  return { size: inode.size, extents: tree.extents(inode).extents };
}

/** A file's map of pointers. Numbers hold it: three layers of the largest tables are 2^42 blocks. */
interface BlockMap {
  /** Blocks of the file. */
  blocks: number;
  /** Pointers of a table. */
  pointers: number;
  flags: number;
}

class Ext {
  readonly #reader: ImageReader;
  readonly #ext: ExtGeometry;

  constructor(reader: ImageReader, ext: ExtGeometry) {
    this.#reader = reader;
    this.#ext = ext;
  }

  inode(number: number): Inode {
    const { inodes, inodesPerGroup, inodeBytes, descriptorBytes } = this.#ext;
    if (number < 1 || number > inodes) throw this.#reader.damaged(`inode ${number} of ${inodes} is named`);
    const group = Math.floor((number - 1) / inodesPerGroup);
    const descriptor = this.#descriptor(group);
    const high = descriptorBytes >= 64 ? BigInt(descriptor.getUint32(40, true)) << 32n : 0n;
    const table = this.#byteOf(high | BigInt(descriptor.getUint32(8, true)), 1n);
    const data = this.#reader.data(table + BigInt(((number - 1) % inodesPerGroup) * inodeBytes), inodeBytes);
    const size = BigInt(data.getUint32(4, true)) | (BigInt(data.getUint32(108, true)) << 32n);
    return { data, mode: data.getUint16(0, true), size, flags: data.getUint32(32, true) };
  }

  /** Descriptors follow the superblock, or (meta_bg) lie in the first group of those that one block of them describes. */
  #descriptor(group: number): DataView {
    const { blockBytes, descriptorBytes, firstDataBlock, blocksPerGroup, incompat, compat, roCompat, firstMetaGroup } = this.#ext;
    if (descriptorBytes < 32 || descriptorBytes > blockBytes) throw this.#reader.damaged(`group descriptors of ${descriptorBytes} bytes`);
    const perBlock = Math.floor(blockBytes / descriptorBytes);
    const index = Math.floor(group / perBlock);
    let block = BigInt(firstDataBlock + 1 + index);
    if ((incompat & INCOMPAT.metaBlockGroups) !== 0 && index >= firstMetaGroup) {
      if ((compat & SPARSE_SUPER_2) !== 0) throw this.#reader.unsupported('meta_bg together with sparse_super2');
      const first = index * perBlock;
      const hasSuperblock = (roCompat & SPARSE_SUPER) === 0 || isSparse(first);
      block = BigInt(firstDataBlock) + BigInt(first) * BigInt(blocksPerGroup) + (hasSuperblock ? 1n : 0n);
    }
    // With bigalloc groups begin at block 0, although the superblock lies in block 1.
    if (firstDataBlock === 0 && blockBytes === 1024 && block === 1n + BigInt(index)) block += 1n;
    return this.#reader.data(block * BigInt(blockBytes) + BigInt((group % perBlock) * descriptorBytes), descriptorBytes);
  }

  /** Number of the inode that `name` stands for. */
  lookUp(folder: Inode, name: string): number {
    const wanted = Buffer.from(name);
    if ((folder.flags & ENCRYPTED) !== 0) throw this.#reader.unsupported('a folder on the way is encrypted');
    if ((folder.flags & IS_INLINE) !== 0) {
      const { data } = folder;
      const inMap = find(new DataView(data.buffer, data.byteOffset + MAP_AT + 4, MAP_BYTES - 4), wanted);
      const rest = moreInline(data);
      const found = inMap ?? (rest === undefined ? undefined : find(rest, wanted));
      if (found === undefined) throw this.#reader.missing();
      return found;
    }
    const { blockBytes } = this.#ext;
    for (const extent of this.extents(folder).extents) {
      for (let at = 0n; at < extent.length && extent.logical + at < folder.size; at += BigInt(blockBytes)) {
        const found = find(this.#reader.data(extent.physical + at, blockBytes), wanted);
        if (found !== undefined) return found;
      }
    }
    throw this.#reader.missing();
  }

  extents(inode: Inode): Runs {
    const runs = new Runs(this.#reader);
    const flags = (inode.flags & ENCRYPTED) !== 0 ? FIEMAP_EXTENT_DATA_ENCRYPTED | FIEMAP_EXTENT_ENCODED : 0;
    const { data } = inode;
    if ((inode.flags & IS_EXTENTS) !== 0) {
      this.#addTree(runs, new DataView(data.buffer, data.byteOffset + MAP_AT, MAP_BYTES), undefined, flags);
      return runs;
    }
    const map: BlockMap = { blocks: Math.ceil(Number(inode.size) / this.#ext.blockBytes), pointers: this.#ext.blockBytes / 4, flags };
    let next = 0;
    for (let i = 0; i < DIRECT + 3 && next < map.blocks; i++) {
      const depth = i < DIRECT ? 0 : i - DIRECT + 1;
      next = this.#addMap(runs, map, { block: data.getUint32(MAP_AT + 4 * i, true), depth, next });
    }
    return runs;
  }

  #addTree(runs: Runs, node: DataView, depth: number | undefined, flags: number): void {
    const room = Math.floor((node.byteLength - 12) / 12);
    const entries = node.getUint16(2, true);
    const level = node.getUint16(6, true);
    if (node.getUint16(0, true) !== EXTENT_MAGIC || entries > room) throw this.#reader.damaged('a node of its extents is none');
    if (level > DEPTH_MAX || (depth !== undefined && level !== depth)) throw this.#reader.damaged(`its extents are ${level} layers deep`);
    const blockBytes = BigInt(this.#ext.blockBytes);
    for (let at = 12; at < 12 + 12 * entries; at += 12) {
      if (level > 0) {
        const child = (BigInt(node.getUint16(at + 8, true)) << 32n) | BigInt(node.getUint32(at + 4, true));
        this.#addTree(runs, this.#reader.data(this.#byteOf(child, 1n), this.#ext.blockBytes), level - 1, flags);
        continue;
      }
      const told = node.getUint16(at + 4, true);
      const isUnwritten = told > INITIALISED_MAX;
      const count = BigInt(isUnwritten ? told - INITIALISED_MAX : told);
      const start = (BigInt(node.getUint16(at + 6, true)) << 32n) | BigInt(node.getUint32(at + 8, true));
      const logical = BigInt(node.getUint32(at, true)) * blockBytes;
      runs.add(logical, this.#byteOf(start, count), count * blockBytes, isUnwritten ? flags | FIEMAP_EXTENT_UNWRITTEN : flags);
    }
  }

  /** One pointer of the map; the number of the block after what it maps. Zeros are holes, of a whole layer too. */
  #addMap(runs: Runs, map: BlockMap, { block, depth, next }: { block: number; depth: number; next: number }): number {
    if (block === 0) return next + map.pointers ** depth;
    const { blockBytes } = this.#ext;
    const at = this.#byteOf(BigInt(block), 1n);
    if (depth === 0) {
      runs.add(BigInt(next) * BigInt(blockBytes), at, BigInt(blockBytes), map.flags);
      return next + 1;
    }
    const table = this.#reader.data(at, blockBytes);
    const each = map.pointers ** (depth - 1);
    let reached = next;
    for (let i = 0; i < blockBytes && reached < map.blocks; i += 4) {
      const pointer = table.getUint32(i, true);
      // A hole; here, since a table of nothing else is read in no time.
      if (pointer === 0) reached += each;
      else reached = this.#addMap(runs, map, { block: pointer, depth: depth - 1, next: reached });
    }
    return reached;
  }

  #byteOf(block: bigint, count: bigint): bigint {
    if (block + count > this.#ext.blocks) throw this.#reader.damaged(`block ${block + count - 1n} of ${this.#ext.blocks} is named`);
    return block * BigInt(this.#ext.blockBytes);
  }
}

/** Groups with a copy of the superblock: 0, 1 and the powers of 3, 5 and 7. */
function isSparse(group: number): boolean {
  if (group <= 1) return true;
  return [3, 5, 7].some((base) => {
    let power = base;
    while (power < group) power *= base;
    return power === group;
  });
}

/** The inode of a name in a block of a directory: inode, length of the entry, length of the name, type, name. */
function find(block: DataView, wanted: Uint8Array): number | undefined {
  const bytes = new Uint8Array(block.buffer, block.byteOffset, block.byteLength);
  for (let at = 0; at + 8 <= bytes.length; ) {
    const told = block.getUint16(at + 4, true);
    // A block of 64 KiB does not fit 16 bits: then these stand for all of it.
    const length = told === 0 || told === 65535 ? bytes.length - at : told;
    if (length < 8 || at + length > bytes.length) return undefined;
    const inode = block.getUint32(at, true);
    const name = bytes.subarray(at + 8, at + 8 + Math.min(block.getUint8(at + 6), length - 8));
    if (inode !== 0 && name.length === wanted.length && name.every((byte, i) => byte === wanted[i])) return inode;
    at += length;
  }
  return undefined;
}

/** Of what is inline, that which lies behind the inode's fields as an attribute. */
function moreInline(inode: DataView): DataView | undefined {
  if (inode.byteLength <= 128) return undefined;
  const header = 128 + inode.getUint16(128, true);
  if (header + 4 > inode.byteLength || inode.getUint32(header, true) !== XATTR_MAGIC) return undefined;
  const first = header + 4;
  for (let at = first; at + 16 <= inode.byteLength; ) {
    const nameLength = inode.getUint8(at);
    const index = inode.getUint8(at + 1);
    if (nameLength === 0 && index === 0) return undefined;
    const name = Buffer.from(inode.buffer, inode.byteOffset + at + 16, Math.min(nameLength, inode.byteLength - at - 16)).toString('latin1');
    const valueAt = first + inode.getUint16(at + 2, true);
    const valueBytes = inode.getUint32(at + 8, true);
    if (index === 7 && name === 'data') {
      return valueAt + valueBytes <= inode.byteLength ? new DataView(inode.buffer, inode.byteOffset + valueAt, valueBytes) : undefined;
    }
    at += 16 + ((nameLength + 3) & ~3);
  }
  return undefined;
}
