/**
 * What lies in a partition, or in a whole image: a file system, or a layer with others inside.
 *
 *   partition   [ md 1.2 | [ LVM | [ root: ext4 … ][ home: xfs … ] ] ]      each layer's offset is added to that of what is inside
 *
 * All recognisers look; where several see something, a layer that holds others comes before a file system, as in libblkid, and what is whole before what is
 * damaged. The rest is named in `details.alsoFound`, since a stale superblock is how data is lost.
 *
 * Guarantees: no bytes make it throw or run long: at most `VIEW_READ_MAX` bytes are read of each volume, at most `VOLUMES_MAX` volumes are looked at,
 * `DEPTH_MAX` inside each other. Errors of the source pass through.
 * Leaves to others: which partitions there are (`table.ts`), what to think of the numbers (`check.ts`).
 */
import type { ImageSource, Volume } from './model.js';
import { tiersOf } from './tier.js';
import { recogniseBtrfs } from './volumes/btrfs.js';
import { recogniseExfat } from './volumes/exfat.js';
import { recogniseExt } from './volumes/ext.js';
import { recogniseFat } from './volumes/fat.js';
import { recogniseLuks, recogniseLuksCopy } from './volumes/luks.js';
import { recogniseLvm } from './volumes/lvm.js';
import { recogniseMd } from './volumes/md.js';
import { recogniseNtfs } from './volumes/ntfs.js';
import { recogniseSwap } from './volumes/swap.js';
import { type Place, type Recognised, type Recogniser, VolumeView } from './volumes/view.js';
import { recogniseXfs } from './volumes/xfs.js';

/** In libblkid's order. */
const RECOGNISERS: readonly Recogniser[] = [
  recogniseMd,
  recogniseLvm,
  recogniseLuks,
  recogniseFat,
  recogniseSwap,
  recogniseXfs,
  recogniseExt,
  recogniseNtfs,
  recogniseBtrfs,
  recogniseExfat,
];

/** Layers inside each other that are followed. */
const DEPTH_MAX = 8;
/** Places that are looked at for one call, those inside included. */
const VOLUMES_MAX = 32;

/**
 * The volume in a place, with what is inside it; null where nothing is recognised. Of a place that reaches beyond the image, as much is looked at as there is.
 *
 * @throws what `source.read` throws, and nothing else
 */
export function readVolume(source: ImageSource, place: Place): Volume | null {
  return readAt(source, place, 1, { left: VOLUMES_MAX });
}

function readAt(source: ImageSource, place: Place, depth: number, budget: { left: number }): Volume | null {
  budget.left--;
  const view = new VolumeView(source, place);
  const found: Recognised[] = [];
  for (const recognise of RECOGNISERS) {
    const one = recognise(view);
    if (one !== null) found.push(one);
  }
  if (found.length === 0) {
    const copy = recogniseLuksCopy(view);
    if (copy !== null) found.push(copy);
  }
  const best = found.find((one) => one.damaged === undefined) ?? found[0];
  if (best === undefined) return null;

  const inside: Volume[] = [];
  let unread = 0;
  for (const content of best.contents ?? []) {
    const room = place.size - content.offset;
    if (room <= 0n || content.size <= 0n) continue;
    if (depth === DEPTH_MAX || budget.left === 0) {
      unread++;
      continue;
    }
    const size = content.size < room ? content.size : room;
    const volume = readAt(source, { ...place, offset: place.offset + content.offset, size }, depth + 1, budget);
    if (volume === null) continue;
    if (content.name !== undefined) volume.name = content.name;
    inside.push(volume);
  }

  // An array without an offset of its own shows its contents at its own first byte: the same volume, not a second one.
  const others = found.filter((one) => one !== best && !inside.some((volume) => volume.offset === place.offset && volume.kind === one.kind));
  const { kind, size, dataOffset, unit, label, uuid, damaged, opaque = false } = best;
  return {
    partition: place.partition,
    kind,
    offset: place.offset,
    size,
    dataOffset,
    dataOffsetAbsolute: place.offset + dataOffset,
    unit,
    tiers: tiersOf({ offset: place.offset, dataOffset, unit, opaque }, place.pages),
    opaque,
    inside,
    label,
    uuid,
    details: {
      ...best.details,
      ...(others.length === 0 ? {} : { alsoFound: others.map(toldAside).join(', ') }),
      ...(unread === 0 ? {} : { unread: `${unread} volumes inside were not looked at` }),
    },
    damaged,
  };
}

function toldAside(other: Recognised): string {
  return other.damaged === undefined ? other.kind : `${other.kind} (damaged: ${other.damaged})`;
}
