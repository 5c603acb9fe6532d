/**
 * Whether a file system or a layer begins at a place: enough to tell a sector size (R0) and a superfloppy, and no more.
 *
 * Guarantees: reads at most two blocks of 4096 bytes; a FAT boot sector is told from an MBR, which ends in the same 55 AA, by its BPB.
 * Leaves to others: reading the volume (`volume.ts`).
 */
import { hasText, u16, u32 } from './little-endian.js';
import type { ImageSource } from './model.js';

export type BootSectorKind = 'fat' | 'ntfs' | 'exfat' | 'ext' | 'xfs' | 'luks' | 'lvm' | 'md' | 'swap' | 'btrfs';

const xfsMagic = 'XFSB';
const luksMagic = 'LUKS\xba\xbe';
const mdMagic = 0xa92b4efc;
const extMagic = 0xef53;
const btrfsSuperblock = 65536n;

/** What begins at byte `offset`; undefined where nothing known does. */
export function bootSectorAt(source: ImageSource, offset: bigint): BootSectorKind | undefined {
  const bytes = source.read(offset, 4096 + 64);
  if (bytes.length < 512) return undefined;
  const first = firstSectorKind(bytes);
  if (first !== undefined) return first;
  if (hasText(bytes, 0, xfsMagic)) return 'xfs';
  if (hasText(bytes, 0, luksMagic)) return 'luks';
  // Copies of an ext superblock carry the number of their group; the one of the volume is in group 0.
  if (u16(bytes, 1024 + 56) === extMagic && u16(bytes, 1024 + 90) === 0) return 'ext';
  for (let sector = 0; sector < 4; sector++) if (hasText(bytes, sector * 512, 'LABELONE') && hasText(bytes, sector * 512 + 24, 'LVM2 001')) return 'lvm';
  if (u32(bytes, 0) === mdMagic || u32(bytes, 4096) === mdMagic) return 'md';
  if (hasText(bytes, 4086, 'SWAPSPACE2')) return 'swap';
  return hasText(source.read(offset + btrfsSuperblock, 72), 64, '_BHRfS_M') ? 'btrfs' : undefined;
}

/** A boot sector with a BPB, or exFAT's, which has none but a name. */
export function firstSectorKind(sector: Uint8Array): 'fat' | 'ntfs' | 'exfat' | undefined {
  if (sector.length < 512 || u16(sector, 510) !== 0xaa55) return undefined;
  if (hasText(sector, 3, 'NTFS    ')) return 'ntfs';
  if (hasText(sector, 3, 'EXFAT   ')) return 'exfat';
  return hasFatBpb(sector) ? 'fat' : undefined;
}

/** Each field of the BPB that has few lawful values has one of them. Boot code of an MBR has none of this in its place. */
function hasFatBpb(sector: Uint8Array): boolean {
  const bytesPerSector = u16(sector, 11);
  const sectorsPerCluster = sector[13];
  const media = sector[21];
  const jump = (sector[0] === 0xeb && sector[1] >= 0x1e) || sector[0] === 0xe9;
  const sectors = u16(sector, 19) !== 0 ? u16(sector, 19) : u32(sector, 32);
  const fatSectors = u16(sector, 22) !== 0 ? u16(sector, 22) : u32(sector, 36);
  return (
    jump &&
    [512, 1024, 2048, 4096].includes(bytesPerSector) &&
    sectorsPerCluster !== 0 &&
    (sectorsPerCluster & (sectorsPerCluster - 1)) === 0 &&
    u16(sector, 14) !== 0 &&
    (sector[16] === 1 || sector[16] === 2) &&
    (media === 0xf0 || media >= 0xf8) &&
    sectors !== 0 &&
    fatSectors !== 0
  );
}
