/**
 * btrfs, from its superblock at 64 KiB, or the copy at 64 MiB where that one is torn (btrfs-progs, kernel-shared/uapi/btrfs_tree.h).
 *
 * Chunks begin at multiples of 64 KiB of the device and files are given sectors of them, so the data area begins with the volume. Its FIEMAP speaks of
 * addresses of its own: where a file lies, only the chunk tree tells.
 *
 * Guarantees: CRC-32C and SHA-256 are checked; of the other sums `details.checksum` says that they were not.
 */
import { createHash } from 'node:crypto';
import { crc32c } from '../crc32c.js';
import { beyond, both, hex, holds, isPowerOfTwo, type Recognised, text, uuid, type VolumeView } from './view.js';

const PLACES = [64n << 10n, 64n << 20n];
const SUPERBLOCK_BYTES = 4096;
const SUM_BYTES = 32;
const SUM_NAMES = ['crc32c', 'xxhash64', 'sha256', 'blake2b'];

export function recogniseBtrfs(view: VolumeView): Recognised | null {
  const first = recogniseAt(view, PLACES[0]);
  if (first !== null && first.damaged === undefined) return first;
  const copy = recogniseAt(view, PLACES[1]);
  if (copy === null || copy.damaged !== undefined) return first;
  // The kernel mounts by the first only; so a copy alone is a volume, but a damaged one.
  const why = first?.damaged ?? 'no superblock at 64 KiB';
  return { ...copy, damaged: `${why}; read from the copy at 64 MiB` };
}

function recogniseAt(view: VolumeView, at: bigint): Recognised | null {
  const data = view.data(at, SUPERBLOCK_BYTES);
  // Each copy names its own place: an image of btrfs inside a file of something else has it elsewhere.
  if (data === undefined || !holds(data, 64, '_BHRfS_M') || data.getBigUint64(48, true) !== at) return null;
  const sectorSize = data.getUint32(144, true);
  const nodeSize = data.getUint32(148, true);
  if (!isPowerOfTwo(sectorSize) || sectorSize < 4096 || sectorSize > 65536 || !isPowerOfTwo(nodeSize) || nodeSize < sectorSize || nodeSize > 65536) return null;
  const devices = data.getBigUint64(136, true);
  const size = data.getBigUint64(209, true);
  const type = data.getUint16(196, true);
  return {
    kind: 'btrfs',
    size,
    dataOffset: 0n,
    unit: sectorSize,
    label: text(data, 299, 256),
    uuid: uuid(data, 32),
    damaged: both(checksum(data, type), beyond(view, size)),
    details: {
      sectorSize,
      nodeSize,
      devices,
      deviceId: data.getBigUint64(201, true),
      totalBytes: data.getBigUint64(112, true),
      generation: data.getBigUint64(72, true),
      ...(type === 1 || type === 3 ? { checksum: `${SUM_NAMES[type]}, not checked` } : { checksum: SUM_NAMES[type] ?? `type ${type}` }),
    },
  };
}

/** Over all that follows the field of the sum. */
function checksum(data: DataView, type: number): string | undefined {
  const covered = new Uint8Array(data.buffer, data.byteOffset + SUM_BYTES, SUPERBLOCK_BYTES - SUM_BYTES);
  if (type === 0) {
    const sum = crc32c(covered);
    const stored = data.getUint32(0, true);
    return stored === sum ? undefined : `superblock checksum ${hex(stored)} where ${hex(sum)} belongs`;
  }
  if (type === 2) {
    const stored = Buffer.from(data.buffer, data.byteOffset, SUM_BYTES);
    return createHash('sha256').update(covered).digest().equals(stored) ? undefined : 'superblock checksum (sha256) is wrong';
  }
  return type > 3 ? `checksum of unknown type ${type}` : undefined;
}
