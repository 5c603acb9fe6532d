/**
 * Files of NTFS: records of the master file table, their attributes as runs of clusters or inside the record, directories as trees of names.
 *
 * Guarantees: names match whatever their case; every node of a directory is visited at most once.
 * Does not: follow reparse points (links, files compressed by Windows' overlay filter), or a master file table that itself needs a list of attributes that is
 * not in its record.
 */
import {
  FIEMAP_EXTENT_DATA_ENCRYPTED,
  FIEMAP_EXTENT_DATA_INLINE,
  FIEMAP_EXTENT_ENCODED,
  FIEMAP_EXTENT_LAST,
  FIEMAP_EXTENT_NOT_ALIGNED,
  FIEMAP_EXTENT_UNWRITTEN,
} from '../../geometry/fiemap.js';
import { type FileExtent, firstBehind } from '../file-pages.js';
import { mendRecord, type NtfsGeometry, ntfsGeometry } from '../volumes/ntfs.js';
import { type FoundFile, type ImageReader, namesOf, Runs } from './reader.js';

const MFT = 0n;
const ROOT = 5n;
const ATTRIBUTE_LIST = 0x20;
const DATA = 0x80;
const INDEX_ROOT = 0x90;
const INDEX_ALLOCATION = 0xa0;
const REPARSE_POINT = 0xc0;
const END = 0xffffffff;
const COMPRESSED = 0x00ff;
const ENCRYPTED = 0x4000;
const FOLDER_INDEX = '$I30';
const IN_USE = 1;
const IS_FOLDER = 2;
const RECORD_NUMBER = (1n << 48n) - 1n;
const HAS_CHILD = 1;
const IS_LAST = 2;
/** Attributes of one record, and bytes of a list of those in others. */
const ATTRIBUTES_MAX = 256;
const LIST_MAX = 256 << 10;
const RECORD_BYTES_MAX = 64 << 10;

/** A part of an attribute in one record. */
interface Attribute {
  type: number;
  name: string;
  data: DataView;
  isResident: boolean;
  flags: number;
}

/** An attribute as a whole. */
interface Stream {
  size: bigint;
  written: bigint;
  flags: number;
  resident?: DataView;
  extents: FileExtent[];
}

export function findNtfsFile(reader: ImageReader): FoundFile {
  const ntfs = ntfsGeometry(reader.data(0n, 512));
  if (ntfs === null) throw reader.damaged('its boot sector is none any more');
  const tree = new Ntfs(reader, ntfs);
  let record = ROOT;
  for (const name of namesOf(reader.path)) {
    if (!tree.isFolder(record)) throw reader.noFolder();
    record = tree.lookUp(record, name);
  }
  if (tree.isFolder(record)) throw reader.isFolder();
  const attributes = tree.attributes(record);
  if (attributes.some(({ type }) => type === REPARSE_POINT)) throw reader.noFile('a reparse point (a link, or a file that a filter of Windows keeps)');
  const stream = tree.stream(attributes, DATA, '');
  if (stream === undefined) throw reader.damaged('it has no data attribute');
  if (stream.resident !== undefined) {
    const flags = FIEMAP_EXTENT_DATA_INLINE | FIEMAP_EXTENT_NOT_ALIGNED | FIEMAP_EXTENT_LAST;
    return { size: stream.size, extents: stream.size === 0n ? [] : [{ logical: 0n, physical: 0n, length: stream.size, flags }] };
  }
  return { size: stream.size, extents: stream.extents };
}

class Ntfs {
  readonly #reader: ImageReader;
  readonly #ntfs: NtfsGeometry;
  #table: FileExtent[] = [];

  constructor(reader: ImageReader, ntfs: NtfsGeometry) {
    this.#reader = reader;
    this.#ntfs = ntfs;
    if (ntfs.recordBytes > RECORD_BYTES_MAX) throw reader.damaged(`records of ${ntfs.recordBytes} bytes`);
    // The first record of the table says where the table is; until then, only that record can be read.
    const at = ntfs.mftCluster * BigInt(ntfs.clusterBytes);
    const start: FileExtent = { logical: 0n, physical: at, length: BigInt(16 * ntfs.recordBytes), flags: 0 };
    this.#table = [start];
    const own = this.stream(this.#own(MFT), DATA, '');
    if (own === undefined || own.resident !== undefined) throw reader.damaged('the master file table has no data');
    this.#table = own.extents;
    this.#table = this.stream(this.attributes(MFT), DATA, '')?.extents ?? own.extents;
  }

  isFolder(record: bigint): boolean {
    return (this.#record(record).getUint16(22, true) & IS_FOLDER) !== 0;
  }

  #record(number: bigint): DataView {
    const { recordBytes } = this.#ntfs;
    const view = this.#reader.joined(this.#place(this.#table, number * BigInt(recordBytes), recordBytes));
    const record = mendRecord(new Uint8Array(view.buffer, view.byteOffset, view.byteLength), 'FILE');
    if (record === null || (record.getUint16(22, true) & IN_USE) === 0) throw this.#reader.damaged(`record ${number} is torn or free`);
    return record;
  }

  /** The attributes of a file, those in other records too. */
  attributes(number: bigint): Attribute[] {
    const own = this.#own(number);
    const list = this.stream(own, ATTRIBUTE_LIST, '');
    if (list === undefined) return own;
    if (list.size > BigInt(LIST_MAX)) throw this.#reader.unsupported(`a list of attributes of ${list.size} bytes`);
    const length = Number(list.size);
    const data = list.resident ?? this.#reader.joined(this.#place(list.extents, 0n, length));
    const all = [...own];
    const seen = new Set([number]);
    for (let at = 0; at + 26 <= Math.min(length, data.byteLength); ) {
      const entryBytes = data.getUint16(at + 4, true);
      const other = data.getBigUint64(at + 16, true) & RECORD_NUMBER;
      if (entryBytes < 26) break;
      if (!seen.has(other)) {
        seen.add(other);
        all.push(...this.#own(other));
      }
      at += entryBytes;
    }
    return all;
  }

  #own(number: bigint): Attribute[] {
    const record = this.#record(number);
    const found: Attribute[] = [];
    for (let at = record.getUint16(20, true); found.length < ATTRIBUTES_MAX && at + 16 <= record.byteLength; ) {
      const type = record.getUint32(at, true);
      const length = record.getUint32(at + 4, true);
      if (type === END) break;
      if (length < 24 || at + length > record.byteLength) throw this.#reader.damaged(`an attribute of record ${number} is ${length} bytes long`);
      const data = new DataView(record.buffer, record.byteOffset + at, length);
      const isResident = data.getUint8(8) === 0;
      if (!isResident && length < 64) throw this.#reader.damaged(`an attribute of record ${number} is ${length} bytes long`);
      found.push({ type, name: letters(data, data.getUint16(10, true), data.getUint8(9)), data, isResident, flags: data.getUint16(12, true) });
      at += length;
    }
    return found;
  }

  stream(attributes: readonly Attribute[], type: number, name: string): Stream | undefined {
    const parts = attributes.filter((attribute) => attribute.type === type && attribute.name === name);
    if (parts.length === 0) return undefined;
    const resident = parts.find((part) => part.isResident);
    if (resident !== undefined) {
      const length = resident.data.getUint32(16, true);
      const at = resident.data.getUint16(20, true);
      if (at + length > resident.data.byteLength) throw this.#reader.damaged('what is in a record reaches out of it');
      const data = new DataView(resident.data.buffer, resident.data.byteOffset + at, length);
      return { size: BigInt(length), written: BigInt(length), flags: resident.flags, resident: data, extents: [] };
    }
    parts.sort((a, b) => (a.data.getBigUint64(16, true) < b.data.getBigUint64(16, true) ? -1 : 1));
    const [first] = parts;
    const size = first.data.getBigUint64(48, true);
    const written = first.data.getBigUint64(56, true);
    const runs = new Runs(this.#reader);
    let flags = (first.flags & COMPRESSED) !== 0 ? FIEMAP_EXTENT_ENCODED : 0;
    if ((first.flags & ENCRYPTED) !== 0) flags |= FIEMAP_EXTENT_ENCODED | FIEMAP_EXTENT_DATA_ENCRYPTED;
    for (const part of parts) this.#addRuns(runs, part.data, flags);
    if (written < size) runs.unwrittenFrom(written, FIEMAP_EXTENT_UNWRITTEN);
    return { size, written, flags: first.flags, extents: runs.extents };
  }

  /** A byte says how many bytes the length and the place have; places are told from the one before. No place: a hole. */
  #addRuns(runs: Runs, data: DataView, flags: number): void {
    const cluster = BigInt(this.#ntfs.clusterBytes);
    const end = (this.#ntfs.totalSectors * BigInt(this.#ntfs.bytesPerSector)) / cluster;
    let logical = data.getBigUint64(16, true);
    let place = 0n;
    for (let at = data.getUint16(32, true); at < data.byteLength; ) {
      const head = data.getUint8(at);
      if (head === 0) return;
      const lengthBytes = head & 0xf;
      const placeBytes = head >> 4;
      if (lengthBytes === 0 || lengthBytes > 8 || placeBytes > 8 || at + 1 + lengthBytes + placeBytes > data.byteLength) {
        throw this.#reader.damaged('its runs are none');
      }
      const length = BigInt.asIntN(64, little(data, at + 1, lengthBytes));
      if (length <= 0n) throw this.#reader.damaged(`a run of ${length} clusters`);
      if (placeBytes > 0) {
        place += BigInt.asIntN(8 * placeBytes, little(data, at + 1 + lengthBytes, placeBytes));
        if (place < 0n || place + length > end) throw this.#reader.damaged(`cluster ${place + length - 1n} of ${end} is named`);
        runs.add(logical * cluster, place * cluster, length * cluster, flags);
      }
      logical += length;
      at += 1 + lengthBytes + placeBytes;
    }
  }

  /** Where `length` bytes of a stream lie. */
  #place(extents: readonly FileExtent[], from: bigint, length: number): { at: bigint; length: number }[] {
    const pieces: { at: bigint; length: number }[] = [];
    let at = from;
    const end = from + BigInt(length);
    for (let i = firstBehind(extents, from); i < extents.length && at < end && extents[i].logical <= at; i++) {
      const extent = extents[i];
      const extentEnd = extent.logical + extent.length;
      // Runs of several records may overlap where the image is damaged.
      if (extentEnd <= at) continue;
      const to = extentEnd < end ? extentEnd : end;
      pieces.push({ at: extent.physical + at - extent.logical, length: Number(to - at) });
      at = to;
    }
    if (at < end) throw this.#reader.damaged(`byte ${at} of its metadata is in no cluster`);
    return pieces;
  }

  lookUp(folder: bigint, name: string): bigint {
    const attributes = this.attributes(folder);
    const root = this.stream(attributes, INDEX_ROOT, FOLDER_INDEX)?.resident;
    if (root === undefined || root.byteLength < 32) throw this.#reader.damaged(`folder ${folder} has no index`);
    const blockBytes = root.getUint32(8, true);
    if (blockBytes < 512 || blockBytes > RECORD_BYTES_MAX) throw this.#reader.damaged(`index blocks of ${blockBytes} bytes`);
    // Blocks are numbered in clusters, or in 512 bytes where a cluster holds several.
    const unit = BigInt(this.#ntfs.clusterBytes <= blockBytes ? this.#ntfs.clusterBytes : 512);
    const allocation = this.stream(attributes, INDEX_ALLOCATION, FOLDER_INDEX);
    const wanted = name.toUpperCase();
    const open = [new DataView(root.buffer, root.byteOffset + 16, root.byteLength - 16)];
    const seen = new Set<bigint>();
    for (let node = open.pop(); node !== undefined; node = open.pop()) {
      const { found, children } = search(node, wanted);
      if (found !== undefined) return found & RECORD_NUMBER;
      for (const child of children) {
        if (seen.has(child) || allocation === undefined) continue;
        seen.add(child);
        const view = this.#reader.joined(this.#place(allocation.extents, child * unit, blockBytes));
        const block = mendRecord(new Uint8Array(view.buffer, view.byteOffset, view.byteLength), 'INDX');
        if (block === null) throw this.#reader.damaged(`an index block of folder ${folder} is torn`);
        open.push(new DataView(block.buffer, 24));
      }
    }
    throw this.#reader.missing();
  }
}

/** The entries of a node: what the name stands for, and the blocks below. */
function search(node: DataView, wanted: string): { found?: bigint; children: bigint[] } {
  const children: bigint[] = [];
  const end = Math.min(node.getUint32(4, true), node.byteLength);
  for (let at = node.getUint32(0, true); at + 16 <= end; ) {
    const length = node.getUint16(at + 8, true);
    const flags = node.getUint16(at + 12, true);
    if (length < 16 || at + length > end) break;
    if ((flags & HAS_CHILD) !== 0 && length >= 24) children.push(node.getBigUint64(at + length - 8, true));
    if ((flags & IS_LAST) !== 0) break;
    if (length >= 16 + 66 && letters(new DataView(node.buffer, node.byteOffset + at, length), 16 + 66, node.getUint8(at + 16 + 64)).toUpperCase() === wanted) {
      return { found: node.getBigUint64(at, true), children };
    }
    at += length;
  }
  return { children };
}

/** UTF-16, as far as it is there. */
function letters(data: DataView, at: number, count: number): string {
  let found = '';
  for (let i = 0; i < count && at + 2 * i + 2 <= data.byteLength; i++) found += String.fromCharCode(data.getUint16(at + 2 * i, true));
  return found;
}

function little(data: DataView, at: number, bytes: number): bigint {
  let value = 0n;
  for (let i = bytes - 1; i >= 0; i--) value = (value << 8n) | BigInt(data.getUint8(at + i));
  return value;
}
