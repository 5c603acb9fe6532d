/**
 * Where a file lies in an image that is not mounted, and which of its pages could be mapped (rule R7 without FIEMAP).
 *
 *   image      [ partition [ LVM [ ext4: /var/db ] ] ]
 *   volume                         ^ from `readVolume`, at any depth
 *   extents    from the volume's start, as FIEMAP tells them from the device's
 *   pages      from the image's start: what mapping the whole disk sees
 *
 * Guarantees: reads metadata only, at most 64 MiB of it; no bytes make it hang or throw anything but what is named below and what the source throws.
 * Leaves to others: finding the volume (`volume.ts`). Encrypted volumes, layers and swap hold no file that could be followed.
 */
import { SectorwiseError } from '../errors.js';
import { type FileExtent, filePages } from './file-pages.js';
import { findBtrfsFile, translateBtrfs } from './files/btrfs.js';
import { findExtFile } from './files/ext.js';
import { findExfatFile, findFatFile } from './files/fat.js';
import { findNtfsFile } from './files/ntfs.js';
import { type FoundFile, ImageReader } from './files/reader.js';
import { findXfsFile } from './files/xfs.js';
import type { FilePages, FileReport, ImageSource, Volume, VolumeKind } from './model.js';

/** How each kind is walked, and what the kernel calls it. */
const WALKS: Partial<Record<VolumeKind, { find: (reader: ImageReader) => FoundFile; name: string }>> = {
  fat12: { find: findFatFile, name: 'vfat' },
  fat16: { find: findFatFile, name: 'vfat' },
  fat32: { find: findFatFile, name: 'vfat' },
  exfat: { find: findExfatFile, name: 'exfat' },
  ext2: { find: findExtFile, name: 'ext2' },
  ext3: { find: findExtFile, name: 'ext3' },
  ext4: { find: findExtFile, name: 'ext4' },
  xfs: { find: findXfsFile, name: 'xfs' },
  ntfs: { find: findNtfsFile, name: 'ntfs' },
  btrfs: { find: findBtrfsFile, name: 'btrfs' },
};

const NOT_WALKED: Partial<Record<VolumeKind, string>> = {
  luks1: 'it is encrypted',
  luks2: 'it is encrypted',
  lvm2: 'it holds volumes, not files: ask one of those inside',
  md: 'it holds a volume, not files: ask the one inside',
  swap: 'it holds no files',
};

/** A file in an image. */
export interface ImageFile {
  /** Bytes. */
  size: bigint;
  /** In ascending order; holes are left out. `physical` is counted from the volume's start. */
  extents: FileExtent[];
}

/**
 * The extents of the file at `path` in a volume of the image; `/` separates names and leads from the volume's root, `.` and `..` are resolved by name alone.
 * Names of FAT, exFAT and NTFS match whatever their case.
 *
 * @throws system errors `ENOENT`, `ENOTDIR`, `EISDIR`, as a mounted file system would
 * @throws SectorwiseError ERR_SECTORWISE_FILE_TYPE for a symbolic link, device, pipe, socket or reparse point
 * @throws SectorwiseError ERR_SECTORWISE_UNSUPPORTED where this kind, or this feature of it, is not followed
 * @throws SectorwiseError ERR_SECTORWISE_DAMAGED where what is in the image contradicts itself
 */
export function imageExtents(source: ImageSource, volume: Volume, path: string): ImageFile {
  const walk = WALKS[volume.kind];
  if (walk === undefined) throw notWalked(volume.kind, path);
  const { size, extents } = walk.find(new ImageReader(source, volume, path));
  return { size, extents };
}

/**
 * Which pages of the file at `path` could be mapped as pages of the image, for each of `pages` (those that the volume's tiers are told for where not given).
 *
 * @throws as `imageExtents`
 */
export function imageFile(source: ImageSource, volume: Volume, path: string, pages: readonly number[] = Object.keys(volume.tiers).map(Number)): FileReport {
  const { size, extents } = imageExtents(source, volume, path);
  const byPage: Record<string, FilePages> = {};
  for (const page of pages) byPage[String(page)] = filePages(extents, size, page, volume.offset);
  return { path, size, fileSystem: WALKS[volume.kind]?.name ?? volume.kind, pages: byPage };
}

/**
 * FIEMAP of btrfs tells addresses of btrfs, not of a device: these extents with their places on the device that `volume` was read of. Where the bytes are
 * striped, or on another device, the place stays unknown (FIEMAP_EXTENT_UNKNOWN).
 *
 * @throws as `imageExtents`; ERR_SECTORWISE_UNSUPPORTED if the volume is no btrfs
 */
export function btrfsExtents(source: ImageSource, volume: Volume, extents: readonly FileExtent[]): FileExtent[] {
  if (volume.kind !== 'btrfs') throw notWalked(volume.kind, '/');
  return translateBtrfs(new ImageReader(source, volume, '/'), extents);
}

function notWalked(kind: VolumeKind, path: string): SectorwiseError {
  const why = NOT_WALKED[kind] ?? 'this kind is not followed';
  return new SectorwiseError('ERR_SECTORWISE_UNSUPPORTED', `Where '${path}' lies cannot be told from the ${kind} in this image: ${why}.`, { path });
}
