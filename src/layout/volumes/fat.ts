/**
 * FAT12, FAT16 and FAT32, from the BIOS parameter block in the first sector.
 *
 *   [ boot … reserved ][ FAT ][ FAT ][ root directory ][ cluster 2 ][ cluster 3 ] …
 *                                    (FAT12/16 only)    ^ heap
 *
 * Which FAT it is, the kernel tells by the 16-bit FAT length being 0 (fs/fat/inode.c), the specification by the number of clusters; mtools and Windows
 * obey that one. Where they disagree, `details.bySpecification` says so: such a volume mounts here and is misread there.
 *
 * Guarantees: accepts what the kernel mounts, provided it also carries a FAT's signature; a partition table whose boot code happens to look like parameters
 * has no FAT length and is refused.
 */
import { beyond, both, hex, holds, isPowerOfTwo, type Recognised, serial, text, type VolumeView } from './view.js';

/** MAX_FAT12 and MAX_FAT16 of linux/msdos_fs.h: the most clusters of each. */
const FAT12_CLUSTERS_MAX = 0xff4;
const FAT16_CLUSTERS_MAX = 0xfff4;
const FAT32_CLUSTERS_MAX = 0x0ffffff6;
/** Bytes of a directory entry. */
const ENTRY = 32;
const DELETED = 0xe5;
/** Of the attributes: a volume's label, but no part of a long name nor a folder. */
const IS_LABEL = 0x08;
const LABEL_MASK = 0x1e;
/** Extended boot signature: number and label follow. */
const EXTENDED = 0x29;

/** What the parameter block says, checked as the kernel does. */
export interface FatGeometry {
  kind: 'fat12' | 'fat16' | 'fat32';
  bytesPerSector: number;
  sectorsPerCluster: number;
  reservedSectors: number;
  fats: number;
  sectorsPerFat: number;
  rootEntries: number;
  totalSectors: number;
  clusters: number;
  /** First sector of cluster 2. */
  heapSector: number;
  /** FAT32: cluster of the root directory. */
  rootCluster: number;
}

export function fatGeometry(data: DataView): FatGeometry | null {
  const bytesPerSector = data.getUint16(11, true);
  const sectorsPerCluster = data.getUint8(13);
  const reservedSectors = data.getUint16(14, true);
  const fats = data.getUint8(16);
  const rootEntries = data.getUint16(17, true);
  const media = data.getUint8(21);
  const short = data.getUint16(22, true);
  if (!isPowerOfTwo(bytesPerSector) || bytesPerSector < 512 || bytesPerSector > 4096) return null;
  if (!isPowerOfTwo(sectorsPerCluster) || reservedSectors === 0 || fats === 0) return null;
  if (media !== 0xf0 && media < 0xf8) return null;
  const is32 = short === 0;
  const sectorsPerFat = is32 ? data.getUint32(36, true) : short;
  const totalSectors = data.getUint16(19, true) || data.getUint32(32, true);
  if (sectorsPerFat === 0 || totalSectors === 0) return null;
  const heapSector = reservedSectors + fats * sectorsPerFat + Math.ceil((rootEntries * ENTRY) / bytesPerSector);
  const clusters = Math.floor((totalSectors - heapSector) / sectorsPerCluster);
  if (clusters < 1 || clusters > (is32 ? FAT32_CLUSTERS_MAX : FAT16_CLUSTERS_MAX)) return null;
  const kind = is32 ? 'fat32' : clusters > FAT12_CLUSTERS_MAX ? 'fat16' : 'fat12';
  const rootCluster = is32 ? data.getUint32(44, true) : 0;
  return { kind, bytesPerSector, sectorsPerCluster, reservedSectors, fats, sectorsPerFat, rootEntries, totalSectors, clusters, heapSector, rootCluster };
}

export function recogniseFat(view: VolumeView): Recognised | null {
  const data = view.data(0n, 512);
  if (data === undefined || !isSigned(data)) return null;
  const fat = fatGeometry(data);
  if (fat === null) return null;
  const { kind, bytesPerSector, clusters } = fat;
  const size = BigInt(fat.totalSectors) * BigInt(bytesPerSector);
  const is32 = kind === 'fat32';
  const extended = is32 ? 66 : 38;
  const isNamed = data.getUint8(extended) === EXTENDED;
  const label = rootLabel(view, fat) ?? (isNamed ? text(data, extended + 5, 11) : undefined);
  const bySpecification = clusters > FAT16_CLUSTERS_MAX ? 'fat32' : clusters > FAT12_CLUSTERS_MAX ? 'fat16' : 'fat12';
  const perFat = kind === 'fat12' ? 1.5 : kind === 'fat16' ? 2 : 4;
  const isShort = fat.sectorsPerFat * bytesPerSector < Math.ceil((clusters + 2) * perFat);
  return {
    kind,
    size,
    dataOffset: BigInt(fat.heapSector) * BigInt(bytesPerSector),
    unit: bytesPerSector * fat.sectorsPerCluster,
    label: label === 'NO NAME' ? undefined : label,
    uuid: isNamed ? serial(data.getUint32(extended + 1, true)) : undefined,
    damaged: both(beyond(view, size), isShort ? `the FAT is too short for ${clusters} clusters` : undefined),
    details: {
      bytesPerSector,
      sectorsPerCluster: fat.sectorsPerCluster,
      reservedSectors: fat.reservedSectors,
      fats: fat.fats,
      sectorsPerFat: fat.sectorsPerFat,
      rootEntries: fat.rootEntries,
      totalSectors: fat.totalSectors,
      clusters,
      hiddenSectors: data.getUint32(28, true),
      ...(bySpecification === kind ? {} : { bySpecification: `${clusters} clusters: ${bySpecification} to mtools and Windows, ${kind} to Linux` }),
      ...(is32 && fat.rootCluster < 2 ? { rootCluster: `${hex(fat.rootCluster)} is none` } : {}),
    },
  };
}

/** The volume's entry in the root directory: tools that rename a volume change that one, and leave the boot sector as it was. It comes first, or nearly. */
function rootLabel(view: VolumeView, fat: FatGeometry): string | undefined {
  const root = fat.kind === 'fat32' ? fat.heapSector + (fat.rootCluster - 2) * fat.sectorsPerCluster : fat.reservedSectors + fat.fats * fat.sectorsPerFat;
  const sector = root < 0 ? undefined : view.data(BigInt(root) * BigInt(fat.bytesPerSector), 512);
  if (sector === undefined) return undefined;
  for (let at = 0; at < sector.byteLength && sector.getUint8(at) !== 0; at += ENTRY) {
    const attributes = sector.getUint8(at + 11);
    if (sector.getUint8(at) !== DELETED && (attributes & LABEL_MASK) === IS_LABEL) return text(sector, at, 11);
  }
  return undefined;
}

/** What libblkid asks for: a FAT's name in the block, or the signature of a boot sector under something that is not OS/2's pseudo block. */
function isSigned(data: DataView): boolean {
  if (holds(data, 54, 'FAT12   ') || holds(data, 54, 'FAT16   ') || holds(data, 54, 'FAT     ') || holds(data, 54, 'MSDOS')) return true;
  if (holds(data, 82, 'FAT32   ') || holds(data, 82, 'MSWIN')) return true;
  if (!holds(data, 510, '\x55\xaa')) return false;
  return !holds(data, 54, 'JFS     ') && !holds(data, 54, 'HPFS    ') && !holds(data, 3, 'NTFS    ') && !holds(data, 3, 'EXFAT   ');
}
