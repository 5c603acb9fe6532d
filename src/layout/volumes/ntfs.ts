/**
 * NTFS, from its boot sector; the label from record 3 of the master file table, if that lies near.
 *
 * Cluster 0 is the boot sector, so the data area begins with the volume. The byte at 13 says how many sectors a cluster has; above 0x80 it stands for
 * 2^(256 − byte). The volume ends one sector before its partition does: the last one holds a copy of the boot sector.
 *
 * Guarantees: hidden sectors that are not the partition's place are told (`details.hiddenMismatch`): Windows cannot start from such a volume.
 */
import { beyond, holds, isPowerOfTwo, type Recognised, text16, type VolumeView } from './view.js';

/** Windows makes up to 2 MiB. */
const CLUSTER_MAX = 2 << 20;
const RECORD_MAX = 4096;
/** $Volume, and the attribute that names it. */
const VOLUME_RECORD = 3n;
const VOLUME_NAME = 0x60;
const ATTRIBUTES_END = 0xffffffff;
/** Bytes of a stride of the update sequence, whatever the sector size. */
const STRIDE = 512;

export interface NtfsGeometry {
  bytesPerSector: number;
  clusterBytes: number;
  totalSectors: bigint;
  mftCluster: bigint;
  recordBytes: number;
  indexBytes: number;
}

export function ntfsGeometry(data: DataView): NtfsGeometry | null {
  if (!holds(data, 3, 'NTFS    ')) return null;
  const bytesPerSector = data.getUint16(11, true);
  if (!isPowerOfTwo(bytesPerSector) || bytesPerSector < 256 || bytesPerSector > 4096) return null;
  const sectorsPerCluster = data.getUint8(13);
  const sectors = sectorsPerCluster > 0x80 ? 2 ** (256 - sectorsPerCluster) : sectorsPerCluster;
  const clusterBytes = bytesPerSector * sectors;
  if (!isPowerOfTwo(sectors) || clusterBytes > CLUSTER_MAX) return null;
  // What FAT has here, NTFS has as 0.
  if (data.getUint16(14, true) !== 0 || data.getUint8(16) !== 0 || data.getUint16(17, true) !== 0 || data.getUint16(22, true) !== 0) return null;
  const recordBytes = clustersOrLog(data.getInt8(64), clusterBytes);
  const indexBytes = clustersOrLog(data.getInt8(68), clusterBytes);
  const totalSectors = data.getBigUint64(40, true);
  if (totalSectors === 0n || !isPowerOfTwo(recordBytes) || recordBytes < 256) return null;
  return { bytesPerSector, clusterBytes, totalSectors, mftCluster: data.getBigUint64(48, true), recordBytes, indexBytes };
}

/** Clusters if positive, else the logarithm of bytes. */
function clustersOrLog(value: number, clusterBytes: number): number {
  return value > 0 ? value * clusterBytes : value >= -31 ? 2 ** -value : 0;
}

export function recogniseNtfs(view: VolumeView): Recognised | null {
  const data = view.data(0n, 512);
  if (data === undefined) return null;
  const ntfs = ntfsGeometry(data);
  if (ntfs === null) return null;
  const { bytesPerSector, clusterBytes } = ntfs;
  const size = ntfs.totalSectors * BigInt(bytesPerSector);
  const hiddenSectors = data.getUint32(28, true);
  const at = view.place.offset;
  const isMisplaced = view.place.partition !== null && BigInt(hiddenSectors) * BigInt(bytesPerSector) !== at;
  return {
    kind: 'ntfs',
    size,
    dataOffset: 0n,
    unit: clusterBytes,
    label: labelOf(view, ntfs),
    uuid: data.getBigUint64(72, true).toString(16).toUpperCase().padStart(16, '0'),
    damaged: beyond(view, size),
    details: {
      bytesPerSector,
      sectorsPerCluster: clusterBytes / bytesPerSector,
      clusterByte: data.getUint8(13),
      totalSectors: ntfs.totalSectors,
      mftCluster: ntfs.mftCluster,
      mftRecord: ntfs.recordBytes,
      hiddenSectors,
      ...(isMisplaced ? { hiddenMismatch: `hidden sectors say byte ${BigInt(hiddenSectors) * BigInt(bytesPerSector)}, the volume lies at byte ${at}` } : {}),
    },
  };
}

function labelOf(view: VolumeView, ntfs: NtfsGeometry): string | undefined {
  if (ntfs.recordBytes > RECORD_MAX) return undefined;
  const bytes = view.bytes(ntfs.mftCluster * BigInt(ntfs.clusterBytes) + VOLUME_RECORD * BigInt(ntfs.recordBytes), ntfs.recordBytes);
  const record = bytes === undefined ? null : mendRecord(bytes, 'FILE');
  if (record === null) return undefined;
  for (let at = record.getUint16(20, true), n = 0; n < 64 && at + 24 <= record.byteLength; n++) {
    const type = record.getUint32(at, true);
    const length = record.getUint32(at + 4, true);
    if (type === ATTRIBUTES_END || length < 24) return undefined;
    if (type === VOLUME_NAME && record.getUint8(at + 8) === 0) {
      const valueBytes = record.getUint32(at + 16, true);
      const valueAt = at + record.getUint16(at + 20, true);
      return valueAt + valueBytes <= record.byteLength ? text16(record, valueAt, valueBytes >> 1) : undefined;
    }
    at += length;
  }
  return undefined;
}

/**
 * A record of several sectors as it was before it was written: the last two bytes of each 512 are kept in the update sequence, and stand on the medium as a
 * number that tells a torn write. Null if it is torn, or no record of that kind.
 */
export function mendRecord(bytes: Uint8Array, magic: string): DataView | null {
  // A copy of its own: `slice` of a Buffer is none.
  const mended = new DataView(new Uint8Array(bytes).buffer);
  if (mended.byteLength < 48 || !holds(mended, 0, magic)) return null;
  const at = mended.getUint16(4, true);
  const count = mended.getUint16(6, true);
  if (count < 1 || at + 2 * count > mended.byteLength || (count - 1) * STRIDE > mended.byteLength) return null;
  const number = mended.getUint16(at, true);
  for (let i = 1; i < count; i++) {
    const end = i * STRIDE - 2;
    if (mended.getUint16(end, true) !== number) return null;
    mended.setUint16(end, mended.getUint16(at + 2 * i, true), true);
  }
  return mended;
}
