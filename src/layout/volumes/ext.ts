/**
 * ext2, ext3 and ext4, from the superblock at byte 1024.
 *
 * One format, told apart by features as libblkid does: ext2 has no journal and nothing that ext2's driver does not know, ext3 has a journal and nothing
 * beyond that, whatever else is ext4. Block n lies at n × block size, so the data area begins with the volume; with bigalloc files are given clusters, which
 * are counted from block 0 as well.
 *
 * Guarantees: with metadata_csum the superblock's CRC is checked. A journal on a device of its own is no volume.
 */
import { crc32c } from '../crc32c.js';
import { beyond, both, hex, isPowerOfTwo, type Recognised, text, uuid, type VolumeView } from './view.js';

/** Byte of the superblock, and its length. */
export const EXT_SUPERBLOCK = 1024;
export const EXT_SUPERBLOCK_BYTES = 1024;
const MAGIC = 0xef53;

const HAS_JOURNAL = 0x4;

export const INCOMPAT = {
  journalDevice: 0x8,
  metaBlockGroups: 0x10,
  extents: 0x40,
  bits64: 0x80,
  flexBlockGroups: 0x200,
  inlineData: 0x8000,
  encrypt: 0x10000,
} as const;
/** filetype, and meta_bg; ext3 adds a journal to be replayed. */
const EXT2_INCOMPAT = 0x2 | INCOMPAT.metaBlockGroups;
const EXT3_INCOMPAT = EXT2_INCOMPAT | 0x4;
/** sparse_super, large_file, btree_dir. */
const EXT3_RO_COMPAT = 0x7;
export const BIGALLOC = 0x200;
const METADATA_CSUM = 0x400;
const VERITY = 0x8000;

export interface ExtGeometry {
  kind: 'ext2' | 'ext3' | 'ext4';
  blockBytes: number;
  clusterBytes: number;
  blocks: bigint;
  firstDataBlock: number;
  blocksPerGroup: number;
  inodesPerGroup: number;
  inodes: number;
  inodeBytes: number;
  descriptorBytes: number;
  compat: number;
  incompat: number;
  roCompat: number;
  /** First group whose descriptors lie in the group itself (meta_bg). */
  firstMetaGroup: number;
}

export function extGeometry(data: DataView): ExtGeometry | null {
  if (data.getUint16(56, true) !== MAGIC) return null;
  const logBlock = data.getUint32(24, true);
  const revision = data.getUint32(76, true);
  if (logBlock > 6 || revision > 1) return null;
  const blockBytes = 1024 << logBlock;
  const isDynamic = revision === 1;
  const inodeBytes = isDynamic ? data.getUint16(88, true) : 128;
  const compat = isDynamic ? data.getUint32(92, true) : 0;
  const incompat = isDynamic ? data.getUint32(96, true) : 0;
  const roCompat = isDynamic ? data.getUint32(100, true) : 0;
  if (!isPowerOfTwo(inodeBytes) || inodeBytes < 128 || inodeBytes > blockBytes) return null;
  if ((incompat & INCOMPAT.journalDevice) !== 0) return null;
  const is64 = (incompat & INCOMPAT.bits64) !== 0;
  const blocks = BigInt(data.getUint32(4, true)) | (is64 ? BigInt(data.getUint32(336, true)) << 32n : 0n);
  const blocksPerGroup = data.getUint32(32, true);
  const inodesPerGroup = data.getUint32(40, true);
  const inodes = data.getUint32(0, true);
  const firstDataBlock = data.getUint32(20, true);
  if (blocks === 0n || blocksPerGroup === 0 || inodesPerGroup === 0 || inodes === 0 || BigInt(firstDataBlock) >= blocks) return null;
  let clusterBytes = blockBytes;
  if ((roCompat & BIGALLOC) !== 0) {
    const logCluster = data.getUint32(28, true);
    // EXT4_MAX_CLUSTER_LOG_SIZE is 30; below a block it is no cluster.
    if (logCluster < logBlock || logCluster + 10 > 30) return null;
    clusterBytes = 1024 << logCluster;
  }
  const descriptorBytes = is64 ? data.getUint16(254, true) : 32;
  const firstMetaGroup = data.getUint32(260, true);
  const kind = kindOf(compat, incompat, roCompat);
  return {
    kind,
    blockBytes,
    clusterBytes,
    blocks,
    firstDataBlock,
    blocksPerGroup,
    inodesPerGroup,
    inodes,
    inodeBytes,
    descriptorBytes,
    compat,
    incompat,
    roCompat,
    firstMetaGroup,
  };
}

function kindOf(compat: number, incompat: number, roCompat: number): 'ext2' | 'ext3' | 'ext4' {
  if ((roCompat & ~EXT3_RO_COMPAT) !== 0 || (incompat & ~EXT3_INCOMPAT) !== 0) return 'ext4';
  if ((compat & HAS_JOURNAL) !== 0) return 'ext3';
  return (incompat & ~EXT2_INCOMPAT) !== 0 ? 'ext4' : 'ext2';
}

export function recogniseExt(view: VolumeView): Recognised | null {
  const data = view.data(BigInt(EXT_SUPERBLOCK), EXT_SUPERBLOCK_BYTES);
  if (data === undefined) return null;
  const ext = extGeometry(data);
  if (ext === null) return null;
  const size = ext.blocks * BigInt(ext.blockBytes);
  const stride = data.getUint16(356, true);
  const stripeWidth = data.getUint32(368, true);
  const notes: [boolean, string][] = [
    [ext.clusterBytes !== ext.blockBytes, 'bigalloc'],
    [(ext.incompat & INCOMPAT.extents) !== 0, 'extents'],
    [(ext.incompat & INCOMPAT.bits64) !== 0, '64bit'],
    [(ext.incompat & INCOMPAT.inlineData) !== 0, 'inline_data'],
    [(ext.incompat & INCOMPAT.encrypt) !== 0, 'encrypt'],
    [(ext.roCompat & METADATA_CSUM) !== 0, 'metadata_csum'],
    [(ext.roCompat & VERITY) !== 0, 'verity'],
    [(ext.compat & HAS_JOURNAL) !== 0, 'has_journal'],
  ];
  return {
    kind: ext.kind,
    size,
    dataOffset: 0n,
    unit: ext.clusterBytes,
    label: text(data, 120, 16),
    uuid: uuid(data, 104),
    damaged: both((ext.roCompat & METADATA_CSUM) !== 0 ? checksum(data) : undefined, beyond(view, size)),
    details: {
      blockSize: ext.blockBytes,
      ...(ext.clusterBytes === ext.blockBytes ? {} : { clusterSize: ext.clusterBytes }),
      blocks: ext.blocks,
      features: notes.flatMap(([has, name]) => (has ? [name] : [])).join(' '),
      ...(stride === 0 ? {} : { stride }),
      ...(stripeWidth === 0 ? {} : { stripeWidth }),
    },
  };
}

/** Over all of the superblock before the sum itself, begun with ~0 and not inverted at the end (fs/ext4/super.c). */
function checksum(data: DataView): string | undefined {
  const type = data.getUint8(373);
  if (type !== 1) return `checksum of unknown type ${type}`;
  const covered = new Uint8Array(data.buffer, data.byteOffset, EXT_SUPERBLOCK_BYTES - 4);
  const sum = ~crc32c(covered) >>> 0;
  const stored = data.getUint32(EXT_SUPERBLOCK_BYTES - 4, true);
  return stored === sum ? undefined : `superblock checksum ${hex(stored)} where ${hex(sum)} belongs`;
}
