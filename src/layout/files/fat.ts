/**
 * Files of FAT12, FAT16, FAT32 and exFAT: directories of 32-byte entries, clusters linked by the FAT; exFAT's may also lie in a row without it.
 *
 * Guarantees: names match whatever their case, as both do; a chain that loops or leaves the volume is an error.
 */
import { FIEMAP_EXTENT_UNWRITTEN } from '../../geometry/fiemap.js';
import { exfatGeometry } from '../volumes/exfat.js';
import { fatGeometry } from '../volumes/fat.js';
import { type FoundFile, type ImageReader, namesOf, Runs } from './reader.js';

const ENTRY = 32;
/** Entries of a directory: 2 MiB in FAT, 256 MiB in exFAT; nobody has as many as the latter. */
const ENTRIES_MAX = 1 << 20;
const IS_FOLDER = 0x10;
const IS_LABEL = 0x08;
const LONG_NAME = 0x0f;
/** Places of the 13 letters in an entry of a long name. */
const LETTERS = [1, 3, 5, 7, 9, 14, 16, 18, 20, 22, 24, 28, 30];
/** The bit of the stream entry that says: in a row, the FAT is not to be asked. */
const NO_FAT_CHAIN = 2;

/** Where clusters are, and which comes after which. */
interface Clusters {
  bytes: number;
  count: number;
  /** First byte of cluster 2. */
  heap: bigint;
  /** First byte of the FAT that counts, and the bits of its entries. */
  fat: bigint;
  bits: 12 | 16 | 32;
}

interface Entry {
  name: string;
  /** The 8.3 name too, in FAT. */
  short?: string;
  isFolder: boolean;
  cluster: number;
  size: bigint;
  /** exFAT: what was written of it. */
  written?: bigint;
  inRow: boolean;
}

export function findFatFile(reader: ImageReader): FoundFile {
  const boot = reader.data(0n, 512);
  const fat = fatGeometry(boot);
  if (fat === null) throw reader.damaged('its boot sector is none any more');
  const sector = BigInt(fat.bytesPerSector);
  const bits = fat.kind === 'fat12' ? 12 : fat.kind === 'fat16' ? 16 : 32;
  // FAT32 can keep one copy alone up to date: then bit 7 is set, and the low ones say which.
  const flags = bits === 32 ? boot.getUint16(40, true) : 0;
  const active = (flags & 0x80) !== 0 ? flags & 0xf : 0;
  if (active >= fat.fats) throw reader.damaged(`FAT ${active} of ${fat.fats} is to be used`);
  const clusters: Clusters = {
    bytes: fat.bytesPerSector * fat.sectorsPerCluster,
    count: fat.clusters,
    heap: BigInt(fat.heapSector) * sector,
    fat: BigInt(fat.reservedSectors + active * fat.sectorsPerFat) * sector,
    bits,
  };
  const rootAt = BigInt(fat.reservedSectors + fat.fats * fat.sectorsPerFat) * sector;
  const root = bits === 32 ? piecesOf(reader, clusters, folderAt(fat.rootCluster)) : inPieces(rootAt, fat.rootEntries * ENTRY);
  return walk(reader, clusters, root, fatEntries);
}

export function findExfatFile(reader: ImageReader): FoundFile {
  const exfat = exfatGeometry(reader.data(0n, 512));
  if (exfat === null) throw reader.damaged('its boot sector is none any more');
  const sector = BigInt(exfat.bytesPerSector);
  const clusters: Clusters = {
    bytes: exfat.clusterBytes,
    count: exfat.clusters,
    heap: BigInt(exfat.heapOffset) * sector,
    fat: BigInt(exfat.fatOffset) * sector,
    bits: 32,
  };
  return walk(reader, clusters, piecesOf(reader, clusters, folderAt(exfat.rootCluster)), exfatEntries);
}

function folderAt(cluster: number): Entry {
  return { name: '/', isFolder: true, cluster, size: 0n, inRow: false };
}

type Pieces = Iterable<{ at: bigint; length: number }>;

function walk(
  reader: ImageReader,
  clusters: Clusters,
  root: Pieces,
  entries: (reader: ImageReader, pieces: Pieces, bits: number) => Iterable<Entry>,
): FoundFile {
  let pieces = root;
  let found: Entry | undefined;
  for (const name of namesOf(reader.path)) {
    if (found !== undefined) {
      if (!found.isFolder) throw reader.noFolder();
      pieces = piecesOf(reader, clusters, found);
    }
    const wanted = name.toUpperCase();
    found = undefined;
    for (const entry of entries(reader, pieces, clusters.bits)) {
      if (entry.name.toUpperCase() !== wanted && entry.short?.toUpperCase() !== wanted) continue;
      found = entry;
      break;
    }
    if (found === undefined) throw reader.missing();
  }
  if (found === undefined || found.isFolder) throw reader.isFolder();
  const runs = new Runs(reader);
  const bytes = BigInt(clusters.bytes);
  const needed = Number((found.size + bytes - 1n) / bytes);
  let logical = 0n;
  if (found.inRow && needed > 0) {
    const end = found.cluster - 2 + needed;
    if (found.cluster < 2 || end > clusters.count) throw reader.damaged(`it lies in ${needed} clusters from ${found.cluster} on, of ${clusters.count}`);
    logical = BigInt(needed) * bytes;
    runs.add(0n, clusters.heap + BigInt(found.cluster - 2) * bytes, logical);
  } else {
    for (const cluster of chain(reader, clusters, found, needed)) {
      runs.add(logical, clusters.heap + BigInt(cluster - 2) * bytes, bytes);
      logical += bytes;
    }
  }
  if (logical < found.size) throw reader.damaged(`its clusters end at byte ${logical} of ${found.size}`);
  if (found.written !== undefined && found.written < found.size) runs.unwrittenFrom(found.written, FIEMAP_EXTENT_UNWRITTEN);
  return { size: found.size, extents: runs.extents };
}

/** Clusters one after the other, `most` of them at most. */
function* chain(reader: ImageReader, clusters: Clusters, entry: Entry, most: number): Generator<number> {
  let cluster = entry.cluster;
  for (let n = 0; n < most; n++) {
    if (n > clusters.count) throw reader.damaged('its clusters go round in a loop');
    if (cluster < 2 || cluster >= clusters.count + 2) {
      if (n > 0 || cluster === 0) return;
      throw reader.damaged(`it begins at cluster ${cluster}, which is none`);
    }
    yield cluster;
    if (entry.inRow) cluster++;
    else cluster = nextCluster(reader, clusters, cluster);
  }
}

/** What the FAT says follows; what marks the end, a bad or a free cluster is no cluster's number. */
function nextCluster(reader: ImageReader, { fat, bits }: Clusters, cluster: number): number {
  if (bits === 32) return reader.data(fat + BigInt(cluster) * 4n, 4).getUint32(0, true) & 0x0fffffff;
  if (bits === 16) return reader.data(fat + BigInt(cluster) * 2n, 2).getUint16(0, true);
  const pair = reader.data(fat + BigInt(cluster + (cluster >> 1)), 2).getUint16(0, true);
  return (cluster & 1) !== 0 ? pair >> 4 : pair & 0xfff;
}

function* piecesOf(reader: ImageReader, clusters: Clusters, folder: Entry): Pieces {
  const bytes = BigInt(clusters.bytes);
  const most = folder.inRow ? Number((folder.size + bytes - 1n) / bytes) : Number.POSITIVE_INFINITY;
  for (const cluster of chain(reader, clusters, folder, most)) yield* inPieces(clusters.heap + BigInt(cluster - 2) * bytes, clusters.bytes);
}

/** Of a size that the cache of the reader likes. */
function* inPieces(at: bigint, length: number): Pieces {
  const piece = 4096;
  for (let done = 0; done < length; done += piece) yield { at: at + BigInt(done), length: Math.min(piece, length - done) };
}

function* rawEntries(reader: ImageReader, pieces: Pieces): Generator<DataView> {
  let count = 0;
  for (const { at, length } of pieces) {
    const data = reader.data(at, length);
    for (let i = 0; i + ENTRY <= length; i += ENTRY) {
      if (data.getUint8(i) === 0) return;
      if (++count > ENTRIES_MAX) throw reader.unsupported(`a folder on the way has more than ${ENTRIES_MAX} entries`);
      yield new DataView(data.buffer, data.byteOffset + i, ENTRY);
    }
  }
}

/** A long name stands before its short one, last part first, each with a checksum of the short one. */
function* fatEntries(reader: ImageReader, pieces: Pieces, bits: number): Generator<Entry> {
  let long = '';
  let sum = -1;
  for (const raw of rawEntries(reader, pieces)) {
    const first = raw.getUint8(0);
    const attributes = raw.getUint8(11);
    if (first !== 0xe5 && (attributes & 0x3f) === LONG_NAME) {
      const isLast = (first & 0x40) !== 0;
      if (isLast) sum = raw.getUint8(13);
      long = raw.getUint8(13) === sum ? letters(raw, LETTERS) + (isLast ? '' : long) : '';
      continue;
    }
    if (first !== 0xe5 && (attributes & IS_LABEL) === 0) {
      const high = bits === 32 ? raw.getUint16(20, true) : 0;
      const short = shortName(raw);
      yield {
        name: long !== '' && sum === shortSum(raw) ? long : short,
        short,
        isFolder: (attributes & IS_FOLDER) !== 0,
        cluster: high * 65536 + raw.getUint16(26, true),
        size: BigInt(raw.getUint32(28, true)),
        inRow: false,
      };
    }
    long = '';
    sum = -1;
  }
}

/** UTF-16 up to a 0 or the filling behind it. */
function letters(raw: DataView, places: readonly number[]): string {
  let found = '';
  for (const at of places) {
    const unit = raw.getUint16(at, true);
    if (unit === 0) break;
    found += String.fromCharCode(unit);
  }
  return found;
}

function shortName(raw: DataView): string {
  const bytes = Array.from({ length: 11 }, (_, i) => raw.getUint8(i));
  // A name that begins with the mark of what is deleted.
  if (bytes[0] === 0x05) bytes[0] = 0xe5;
  const text = (from: number, to: number): string => String.fromCharCode(...bytes.slice(from, to)).trimEnd();
  const extension = text(8, 11);
  return extension === '' ? text(0, 8) : `${text(0, 8)}.${extension}`;
}

function shortSum(raw: DataView): number {
  let sum = 0;
  for (let i = 0; i < 11; i++) sum = (((sum & 1) << 7) + (sum >> 1) + raw.getUint8(i)) & 0xff;
  return sum;
}

/** A set: what it is (0x85), where it is (0xc0), what it is called (0xc1, fifteen letters each). */
function* exfatEntries(reader: ImageReader, pieces: Pieces): Generator<Entry> {
  let attributes = 0;
  let left = 0;
  let entry: Entry | undefined;
  let nameLength = 0;
  for (const raw of rawEntries(reader, pieces)) {
    const type = raw.getUint8(0);
    if (type === 0x85) {
      left = raw.getUint8(1);
      attributes = raw.getUint16(4, true);
      entry = undefined;
      continue;
    }
    if (left === 0) continue;
    left--;
    if (type === 0xc0) {
      const size = raw.getBigUint64(24, true);
      const written = raw.getBigUint64(8, true);
      const inRow = (raw.getUint8(1) & NO_FAT_CHAIN) !== 0;
      nameLength = raw.getUint8(3);
      entry = { name: '', isFolder: (attributes & IS_FOLDER) !== 0, cluster: raw.getUint32(20, true), size, written, inRow };
    } else if (type === 0xc1 && entry !== undefined) {
      for (let at = 2; at < ENTRY && entry.name.length < nameLength; at += 2) entry.name += String.fromCharCode(raw.getUint16(at, true));
    } else if ((type & 0x80) === 0 || (type & 0x40) === 0) {
      // The set was cut short.
      entry = undefined;
      left = 0;
    }
    if (left === 0 && entry !== undefined) yield entry;
  }
}
