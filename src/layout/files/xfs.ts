/**
 * Files of XFS, versions 4 and 5 (fs/xfs/libxfs/xfs_format.h, xfs_da_format.h): inodes by number, forks as lists or trees of extents, directories inside the
 * inode or in blocks. A directory's hashes are not used: its data blocks are read from end to end.
 *
 * Guarantees: trees are followed to the depth their root names, each level below the one before.
 * Does not: resolve symbolic links; follow files on a realtime device.
 */
import { FIEMAP_EXTENT_UNWRITTEN } from '../../geometry/fiemap.js';
import { holds } from '../volumes/view.js';
import { type XfsGeometry, xfsGeometry } from '../volumes/xfs.js';
import { type FoundFile, type ImageReader, namesOf, Runs } from './reader.js';

const FORMAT = 0xf000;
const FOLDER = 0x4000;
const REGULAR = 0x8000;
/** Formats of a fork. */
const LOCAL = 1;
const EXTENTS = 2;
const TREE = 3;
const RECORD = 16;
/** XFS_BM_MAXLEVELS is below this for any block size. */
const DEPTH_MAX = 12;
const IS_REALTIME = 1;
/** di_flags2: counts of extents have 64 bits. */
const BIG_COUNTS = 0x10;
/** Directory entries name the type of what they name. */
const INCOMPAT_TYPE = 1;
const FEATURES2_TYPE = 0x200;
/** Directory blocks from here on hold hashes, not names. */
const LEAVES_AT = 1n << 35n;
const UNUSED = 0xffff;

interface Inode {
  data: DataView;
  mode: number;
  size: bigint;
  format: number;
  /** The fork: where it begins in the inode, and its bytes. */
  forkAt: number;
  forkBytes: number;
  extents: bigint;
}

export function findXfsFile(reader: ImageReader): FoundFile {
  const xfs = xfsGeometry(reader.data(0n, 512));
  if (xfs === null) throw reader.damaged('its superblock is none any more');
  const tree = new Xfs(reader, xfs);
  let inode = tree.inode(xfs.rootInode);
  for (const name of namesOf(reader.path)) {
    if ((inode.mode & FORMAT) !== FOLDER) throw reader.noFolder();
    inode = tree.inode(tree.lookUp(inode, name));
  }
  if ((inode.mode & FORMAT) === FOLDER) throw reader.isFolder();
  if ((inode.mode & FORMAT) !== REGULAR) throw reader.noFile('no regular file');
  if ((inode.data.getUint16(90) & IS_REALTIME) !== 0) throw reader.unsupported('it is kept on a realtime device');
  return { size: inode.size, extents: tree.extents(inode).extents };
}

class Xfs {
  readonly #reader: ImageReader;
  readonly #xfs: XfsGeometry;
  readonly #hasType: boolean;

  constructor(reader: ImageReader, xfs: XfsGeometry) {
    this.#reader = reader;
    this.#xfs = xfs;
    this.#hasType = xfs.version === 5 ? (xfs.incompat & INCOMPAT_TYPE) !== 0 : (xfs.features2 & FEATURES2_TYPE) !== 0;
    if (2 ** xfs.agBlockLog < xfs.agBlocks || xfs.agBlockLog > 31 || 2 ** xfs.inodesPerBlockLog * xfs.inodeBytes !== xfs.blockBytes) {
      throw reader.damaged('the logarithms of its superblock do not fit its sizes');
    }
  }

  inode(number: bigint): Inode {
    const { agBlockLog, inodesPerBlockLog, inodeBytes, version } = this.#xfs;
    const block = number >> BigInt(inodesPerBlockLog);
    const slot = number & ((1n << BigInt(inodesPerBlockLog)) - 1n);
    const at = this.#byteOf(block >> BigInt(agBlockLog), block & ((1n << BigInt(agBlockLog)) - 1n), 1n) + slot * BigInt(inodeBytes);
    const data = this.#reader.data(at, inodeBytes);
    if (!holds(data, 0, 'IN')) throw this.#reader.damaged(`no inode ${number} at byte ${at}`);
    const isLarge = data.getUint8(4) >= 3;
    const forkAt = isLarge ? 176 : 100;
    const split = data.getUint8(82) * 8;
    const forkBytes = split === 0 ? inodeBytes - forkAt : split;
    if (forkAt + forkBytes > inodeBytes) throw this.#reader.damaged(`inode ${number} is longer than inodes are`);
    const big = version === 5 && isLarge && (data.getBigUint64(120) & BigInt(BIG_COUNTS)) !== 0n;
    const extents = big ? data.getBigUint64(24) : BigInt(data.getUint32(76));
    return { data, mode: data.getUint16(2), size: data.getBigUint64(56), format: data.getUint8(5), forkAt, forkBytes, extents };
  }

  extents(inode: Inode): Runs {
    const runs = new Runs(this.#reader);
    const fork = new DataView(inode.data.buffer, inode.data.byteOffset + inode.forkAt, inode.forkBytes);
    if (inode.format === EXTENTS) {
      if (inode.extents * BigInt(RECORD) > BigInt(inode.forkBytes)) throw this.#reader.damaged(`${inode.extents} extents in an inode`);
      this.#addRecords(runs, fork, 0, Number(inode.extents));
    } else if (inode.format === TREE) {
      const level = fork.getUint16(0);
      const records = fork.getUint16(2);
      const room = Math.floor((inode.forkBytes - 4) / RECORD);
      if (level === 0 || level > DEPTH_MAX || records > room) throw this.#reader.damaged('the root of its extents is none');
      for (let i = 0; i < records; i++) this.#addTree(runs, fork.getBigUint64(4 + 8 * room + 8 * i), level - 1);
    } else {
      throw this.#reader.damaged(`a fork of format ${inode.format}`);
    }
    return runs;
  }

  #addTree(runs: Runs, block: bigint, level: number): void {
    const { blockBytes, version } = this.#xfs;
    const node = this.#reader.data(this.#byteOfBlock(block, 1n), blockBytes);
    const header = version === 5 ? 72 : 24;
    const records = node.getUint16(6);
    const room = Math.floor((blockBytes - header) / RECORD);
    if (!holds(node, 0, version === 5 ? 'BMA3' : 'BMAP') || node.getUint16(4) !== level || records > room) {
      throw this.#reader.damaged(`block ${block} is no node of its extents`);
    }
    if (level === 0) {
      this.#addRecords(runs, node, header, records);
      return;
    }
    for (let i = 0; i < records; i++) this.#addTree(runs, node.getBigUint64(header + 8 * room + 8 * i), level - 1);
  }

  /** 128 bits each: 1 unwritten, 54 place in the file, 52 block, 21 length. */
  #addRecords(runs: Runs, data: DataView, from: number, count: number): void {
    const blockBytes = BigInt(this.#xfs.blockBytes);
    for (let at = from; at < from + RECORD * count; at += RECORD) {
      const high = data.getBigUint64(at);
      const low = data.getBigUint64(at + 8);
      const logical = (high >> 9n) & ((1n << 54n) - 1n);
      const block = ((high & 0x1ffn) << 43n) | (low >> 21n);
      const length = low & ((1n << 21n) - 1n);
      runs.add(logical * blockBytes, this.#byteOfBlock(block, length), length * blockBytes, high >> 63n === 1n ? FIEMAP_EXTENT_UNWRITTEN : 0);
    }
  }

  lookUp(folder: Inode, name: string): bigint {
    const wanted = Buffer.from(name);
    const found = folder.format === LOCAL ? this.#inShortFolder(folder, wanted) : this.#inBlocks(folder, wanted);
    if (found === undefined) throw this.#reader.missing();
    return found;
  }

  /** Count, count of 8-byte numbers, parent; then length, 2 bytes of an order, name, type, number. */
  #inShortFolder(folder: Inode, wanted: Uint8Array): bigint | undefined {
    const { data, forkAt } = folder;
    const end = forkAt + folder.forkBytes;
    const wide = data.getUint8(forkAt + 1) > 0;
    const count = wide ? data.getUint8(forkAt + 1) : data.getUint8(forkAt);
    const numberBytes = wide ? 8 : 4;
    let at = forkAt + 2 + numberBytes;
    for (let i = 0; i < count && at + 3 <= end; i++) {
      const nameBytes = data.getUint8(at);
      const numberAt = at + 3 + nameBytes + (this.#hasType ? 1 : 0);
      if (numberAt + numberBytes > end) return undefined;
      if (isName(data, at + 3, nameBytes, wanted)) return wide ? data.getBigUint64(numberAt) : BigInt(data.getUint32(numberAt));
      at = numberAt + numberBytes;
    }
    return undefined;
  }

  #inBlocks(folder: Inode, wanted: Uint8Array): bigint | undefined {
    const size = this.#xfs.blockBytes * 2 ** this.#xfs.directoryBlockLog;
    if (size > 65536) throw this.#reader.damaged(`directory blocks of ${size} bytes`);
    /** Pieces of the directory block that is being put together: it may be of several blocks, apart on the device. */
    let pieces: { at: bigint; length: number }[] = [];
    let gathered = 0;
    for (const extent of this.extents(folder).extents) {
      if (extent.logical >= LEAVES_AT) return undefined;
      for (let done = 0n; done < extent.length; ) {
        const left = extent.length - done;
        const length = left < BigInt(size - gathered) ? Number(left) : size - gathered;
        pieces.push({ at: extent.physical + done, length });
        gathered += length;
        done += BigInt(length);
        if (gathered < size) continue;
        const found = this.#inBlock(this.#reader.joined(pieces), wanted);
        if (found !== undefined) return found;
        pieces = [];
        gathered = 0;
      }
    }
    return undefined;
  }

  /** A header; entries of number, length, name, type, tag, each a multiple of 8 bytes; of the only block, also the hashes at its end. */
  #inBlock(block: DataView, wanted: Uint8Array): bigint | undefined {
    const isOnly = holds(block, 0, 'XD2B') || holds(block, 0, 'XDB3');
    if (!isOnly && !holds(block, 0, 'XD2D') && !holds(block, 0, 'XDD3')) throw this.#reader.damaged('a block of a folder is none');
    const end = isOnly ? block.byteLength - 8 - 8 * block.getUint32(block.byteLength - 8) : block.byteLength;
    for (let at = this.#xfs.version === 5 ? 64 : 16; at + 16 <= end; ) {
      if (block.getUint16(at) === UNUSED) {
        const length = block.getUint16(at + 2);
        if (length < 8) return undefined;
        at += length;
        continue;
      }
      const nameBytes = block.getUint8(at + 8);
      if (at + 9 + nameBytes > end) return undefined;
      if (isName(block, at + 9, nameBytes, wanted)) return block.getBigUint64(at);
      at += (9 + nameBytes + (this.#hasType ? 1 : 0) + 2 + 7) & ~7;
    }
    return undefined;
  }

  /** A number of a block holds that of its allocation group in its upper bits. */
  #byteOfBlock(block: bigint, count: bigint): bigint {
    const log = BigInt(this.#xfs.agBlockLog);
    return this.#byteOf(block >> log, block & ((1n << log) - 1n), count);
  }

  #byteOf(group: bigint, block: bigint, count: bigint): bigint {
    const { agBlocks, agCount, blocks, blockBytes } = this.#xfs;
    const linear = group * BigInt(agBlocks) + block;
    if (group >= BigInt(agCount) || block + count > BigInt(agBlocks) || linear + count > blocks) {
      throw this.#reader.damaged(`block ${block} of allocation group ${group} is named`);
    }
    return linear * BigInt(blockBytes);
  }
}

function isName(data: DataView, at: number, length: number, wanted: Uint8Array): boolean {
  if (length !== wanted.length || at + length > data.byteLength) return false;
  for (let i = 0; i < length; i++) if (data.getUint8(at + i) !== wanted[i]) return false;
  return true;
}
