/**
 * exFAT, from its boot sector (exFAT specification §3.1) and the checksum over the eleven sectors of the boot region (§3.4).
 *
 * Guarantees: a boot region whose checksum is wrong is told as damaged, with what its copy says of itself.
 */
import { beyond, both, hex, holds, type Recognised, serial, text16, type VolumeView } from './view.js';

/** Bytes of a directory entry, and the type of the one that names the volume. */
const ENTRY = 32;
const LABEL = 0x83;
const LABEL_LETTERS = 11;
/** Sectors of a boot region; the last one holds the checksum of those before it. */
const REGION_SECTORS = 12;
/** Bytes of the boot sector that change while mounted (flags, percent in use) and stand outside the checksum. */
const VOLATILE = new Set([106, 107, 112]);

export interface ExfatGeometry {
  bytesPerSector: number;
  clusterBytes: number;
  fatOffset: number;
  fatLength: number;
  heapOffset: number;
  clusters: number;
  rootCluster: number;
  totalSectors: bigint;
  fats: number;
}

export function exfatGeometry(data: DataView): ExfatGeometry | null {
  if (!holds(data, 3, 'EXFAT   ') || !holds(data, 510, '\x55\xaa')) return null;
  const sectorShift = data.getUint8(108);
  const clusterShift = data.getUint8(109);
  const fats = data.getUint8(110);
  if (sectorShift < 9 || sectorShift > 12 || clusterShift > 25 - sectorShift || fats < 1 || fats > 2) return null;
  const heapOffset = data.getUint32(88, true);
  const clusters = data.getUint32(92, true);
  if (heapOffset === 0 || clusters === 0) return null;
  return {
    bytesPerSector: 1 << sectorShift,
    clusterBytes: 1 << (sectorShift + clusterShift),
    fatOffset: data.getUint32(80, true),
    fatLength: data.getUint32(84, true),
    heapOffset,
    clusters,
    rootCluster: data.getUint32(96, true),
    totalSectors: data.getBigUint64(72, true),
    fats,
  };
}

export function recogniseExfat(view: VolumeView): Recognised | null {
  const data = view.data(0n, 512);
  if (data === undefined) return null;
  const exfat = exfatGeometry(data);
  if (exfat === null) return null;
  const { bytesPerSector, heapOffset, clusters } = exfat;
  const size = exfat.totalSectors * BigInt(bytesPerSector);
  const revision = data.getUint16(104, true);
  const overlong = BigInt(heapOffset) + (BigInt(clusters) * BigInt(exfat.clusterBytes)) / BigInt(bytesPerSector) > exfat.totalSectors;
  return {
    kind: 'exfat',
    size,
    dataOffset: BigInt(heapOffset) * BigInt(bytesPerSector),
    unit: exfat.clusterBytes,
    label: rootLabel(view, exfat),
    uuid: serial(data.getUint32(100, true)),
    damaged: both(checksum(view, bytesPerSector), beyond(view, size), overlong ? 'its clusters reach beyond its end' : undefined),
    details: {
      bytesPerSector,
      sectorsPerCluster: exfat.clusterBytes / bytesPerSector,
      fatOffset: exfat.fatOffset,
      fatLength: exfat.fatLength,
      clusterHeapOffset: heapOffset,
      fats: exfat.fats,
      totalSectors: exfat.totalSectors,
      clusters,
      partitionOffset: data.getBigUint64(64, true),
      revision: `${revision >> 8}.${revision & 0xff}`,
    },
  };
}

/** The entry of the volume's label in the root directory, where it comes first or nearly. */
function rootLabel(view: VolumeView, exfat: ExfatGeometry): string | undefined {
  if (exfat.rootCluster < 2) return undefined;
  const root = BigInt(exfat.heapOffset) * BigInt(exfat.bytesPerSector) + BigInt(exfat.rootCluster - 2) * BigInt(exfat.clusterBytes);
  const sector = view.data(root, 512);
  if (sector === undefined) return undefined;
  for (let at = 0; at < sector.byteLength && sector.getUint8(at) !== 0; at += ENTRY) {
    if (sector.getUint8(at) === LABEL) return text16(sector, at + 2, Math.min(sector.getUint8(at + 1), LABEL_LETTERS));
  }
  return undefined;
}

function checksum(view: VolumeView, sector: number): string | undefined {
  const main = regionState(view, 0n, sector);
  if (main === undefined) return undefined;
  const copy = regionState(view, BigInt(REGION_SECTORS * sector), sector);
  return `boot region: ${main}; its copy at sector ${REGION_SECTORS}: ${copy ?? 'whole'}`;
}

/** Why the boot region at `at` is not whole; undefined if it is. */
function regionState(view: VolumeView, at: bigint, sector: number): string | undefined {
  const bytes = view.bytes(at, REGION_SECTORS * sector);
  if (bytes === undefined) return 'not all there';
  const covered = (REGION_SECTORS - 1) * sector;
  let sum = 0;
  for (let i = 0; i < covered; i++) {
    if (!VOLATILE.has(i)) sum = (((sum << 31) | (sum >>> 1)) + bytes[i]) >>> 0;
  }
  const stored = new DataView(bytes.buffer, bytes.byteOffset + covered, 4).getUint32(0, true);
  return stored === sum ? undefined : `checksum ${hex(stored)} where ${hex(sum)} belongs`;
}
