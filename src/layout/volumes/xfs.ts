/**
 * XFS, from the superblock in its first sector (fs/xfs/libxfs/xfs_format.h). Big-endian, except for the CRC.
 *
 * Files are given blocks, which are counted from the volume's start within each allocation group; groups begin at multiples of a block too. So the data
 * area begins with the volume.
 *
 * Guarantees: of version 5 the superblock's CRC is checked. Files on a realtime device are elsewhere, which `details.realtime` tells.
 */
import { crc32c } from '../crc32c.js';
import { beyond, both, hex, holds, isPowerOfTwo, type Recognised, text, uuid, type VolumeView } from './view.js';

const CRC_AT = 224;
const SUPERBLOCK_BYTES = 264;

export interface XfsGeometry {
  blockBytes: number;
  blockLog: number;
  sectorBytes: number;
  blocks: bigint;
  agBlocks: number;
  agBlockLog: number;
  agCount: number;
  inodeBytes: number;
  inodesPerBlockLog: number;
  rootInode: bigint;
  version: number;
  directoryBlockLog: number;
  /** Version 5: features a reader must know. Version 4: features2. */
  incompat: number;
  features2: number;
}

export function xfsGeometry(data: DataView): XfsGeometry | null {
  if (!holds(data, 0, 'XFSB')) return null;
  const blockBytes = data.getUint32(4);
  const sectorBytes = data.getUint16(102);
  const inodeBytes = data.getUint16(104);
  const blockLog = data.getUint8(120);
  const agBlocks = data.getUint32(84);
  const agCount = data.getUint32(88);
  const version = data.getUint16(100) & 0xf;
  const blocks = data.getBigUint64(8);
  if (blockBytes < 512 || blockBytes > 65536 || blockBytes !== 2 ** blockLog) return null;
  if (!isPowerOfTwo(sectorBytes) || sectorBytes < 512 || sectorBytes > 32768 || sectorBytes !== 2 ** data.getUint8(121)) return null;
  if (!isPowerOfTwo(inodeBytes) || inodeBytes < 256 || inodeBytes > 2048 || inodeBytes > blockBytes) return null;
  if (version < 1 || version > 5 || agCount === 0 || agBlocks === 0 || blocks === 0n) return null;
  // The last group may be shorter, none may lie beyond the end.
  if (blocks > BigInt(agBlocks) * BigInt(agCount) || blocks <= BigInt(agBlocks) * BigInt(agCount - 1)) return null;
  return {
    blockBytes,
    blockLog,
    sectorBytes,
    blocks,
    agBlocks,
    agBlockLog: data.getUint8(124),
    agCount,
    inodeBytes,
    inodesPerBlockLog: data.getUint8(123),
    rootInode: data.getBigUint64(56),
    version,
    directoryBlockLog: data.getUint8(192),
    incompat: version === 5 ? data.getUint32(216) : 0,
    features2: data.getUint32(200),
  };
}

export function recogniseXfs(view: VolumeView): Recognised | null {
  const data = view.data(0n, 512);
  if (data === undefined) return null;
  const xfs = xfsGeometry(data);
  if (xfs === null) return null;
  const { blockBytes } = xfs;
  const size = xfs.blocks * BigInt(blockBytes);
  const stripeUnit = data.getUint32(184) * blockBytes;
  const stripeWidth = data.getUint32(188) * blockBytes;
  const realtime = data.getBigUint64(16) > 0n;
  return {
    kind: 'xfs',
    size,
    dataOffset: 0n,
    unit: blockBytes,
    label: text(data, 108, 12),
    uuid: uuid(data, 32),
    damaged: both(
      xfs.version === 5 ? checksum(view, xfs.sectorBytes) : undefined,
      data.getUint8(126) !== 0 ? 'mkfs.xfs has not finished' : undefined,
      beyond(view, size),
    ),
    details: {
      version: xfs.version,
      blockSize: blockBytes,
      sectorSize: xfs.sectorBytes,
      blocks: xfs.blocks,
      allocationGroups: xfs.agCount,
      allocationGroupBlocks: xfs.agBlocks,
      stripeUnit,
      stripeWidth,
      ...(realtime ? { realtime: 'realtime files lie on another device' } : {}),
    },
  };
}

/** Over the whole first sector with the field itself as 0, stored in little-endian order. */
function checksum(view: VolumeView, sectorBytes: number): string | undefined {
  const sector = view.bytes(0n, sectorBytes);
  if (sector === undefined || sectorBytes < SUPERBLOCK_BYTES) return 'superblock not all there';
  let crc = crc32c(sector.subarray(0, CRC_AT));
  crc = crc32c(new Uint8Array(4), crc);
  crc = crc32c(sector.subarray(CRC_AT + 4), crc);
  const stored = new DataView(sector.buffer, sector.byteOffset + CRC_AT, 4).getUint32(0, true);
  return stored === crc ? undefined : `superblock checksum ${hex(stored)} where ${hex(crc)} belongs`;
}
