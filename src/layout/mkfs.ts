/**
 * What a planned file system becomes in its partition, and the commands that make it so.
 *
 * For each kind: where its first cluster, block or payload byte will lie (rule R6's heap), in what units, and the exact lines for a partition's node (`$PART`) and for an image
 * file (`$IMAGE`). Of an image there are three forms, the first that the tool allows:
 *
 *   offset     the tool writes at an offset in the image itself: mkfs.fat --offset, mke2fs -E offset
 *   cut-out    the tool makes the volume in a file of the partition's size, which is then copied to its place; needs no root
 *   loop       only a block device will do (LVM), or the tool asks the device for its sector size (exFAT on 4096): losetup, as root
 *
 * Guarantees: pure; no line writes over a file system that its tool would rather ask about; what a tool would refuse or make differently from what is predicted is refused here, naming option, value and remedy.
 * Sources: the tools' own arithmetic (mkfs.fat 4.2, exfatprogs 1.2.0), checked by test/layout/plan-mkfs.test.ts against what they really make.
 * Leaves to others: FAT's fixed point (`fat-plan.ts`), where the partition lies (`plan.ts`), running the commands.
 */
import { outOfRange } from '../errors.js';
import { type FatBits, planFat, refused } from './fat-plan.js';
import type { Topology } from './model.js';
import type { Plan, PlannedFileSystem, PlannedPart, PlannedVolume } from './plan.js';
import { roundUp, usableMinimumIo, usableOptimalIo } from './rules.js';
import type { SdCardProfile } from './sd-card.js';
import { tiersOf } from './tier.js';

const KIBIBYTE = 1024;
const MEBIBYTE = 1024 * KIBIBYTE;
const GIBIBYTE = 1024 * MEBIBYTE;
/** No part of a volume that only alignment asks for is more than this share of it, unless the caller insists. */
const OVERHEAD_SHARE = 16n;
/** exFAT: boot region and its backup, 12 sectors each; the FAT lies behind them. */
const EXFAT_BOOT_SECTORS = 24;
const EXFAT_CLUSTER_MAX = 32 * MEBIBYTE;
const LUKS2_DATA_OFFSET = 16 * MEBIBYTE;
const LUKS1_DATA_OFFSET = 2 * MEBIBYTE;

/** A file system asked for, in the partition that is planned for it. */
export interface VolumeRequest {
  /** 1 on. */
  number: number;
  part: PlannedPart & { fs: PlannedFileSystem };
  start: bigint;
  size: bigint;
  sectorSize: number;
  topology: Topology;
  pages: readonly number[];
  /** Where the caller gave none: 1 MiB, or the medium's unit. */
  boundary: number;
  /** Of an SD card. */
  card?: SdCardProfile;
  /** The option that asked, for messages: `parts[0]`. */
  option: string;
}

interface Made {
  dataOffset: bigint;
  unit: number;
  clusters?: bigint;
  opaque?: boolean;
  device: string[];
  image: string[];
  imageNeeds?: 'root';
  details: PlannedVolume['details'];
}

/** Throws ERR_SECTORWISE_PLAN where the file system cannot be had in this partition, ERR_OUT_OF_RANGE for a cluster or boundary that it never has. */
export function planVolume(request: VolumeRequest): PlannedVolume {
  const { part, start, pages } = request;
  const made = makers[part.fs](request);
  const { dataOffset, unit, opaque = false } = made;
  if (dataOffset + BigInt(unit) > request.size) throw tooSmall(request, dataOffset + BigInt(unit), 'nothing is left behind its header');
  return {
    kind: part.fs,
    dataOffset,
    dataOffsetAbsolute: start + dataOffset,
    unit,
    ...(made.clusters === undefined ? {} : { clusters: made.clusters }),
    tiers: tiersOf({ offset: start, dataOffset, unit, opaque }, pages),
    opaque,
    device: made.device,
    image: made.image,
    ...(made.imageNeeds === undefined ? {} : { imageNeeds: made.imageNeeds }),
    details: made.details,
  };
}

const makers: Record<PlannedFileSystem, (request: VolumeRequest) => Made> = {
  fat12: (request) => fat(request, 12),
  fat16: (request) => fat(request, 16),
  fat32: (request) => fat(request, 32),
  exfat,
  ext2: ext,
  ext3: ext,
  ext4: ext,
  xfs,
  ntfs,
  btrfs,
  luks1: luks,
  luks2: luks,
  lvm2,
  swap,
};

export const plannedFileSystems = Object.keys(makers) as PlannedFileSystem[];

function fat(request: VolumeRequest, bits: FatBits): Made {
  const { part, start, size, sectorSize, card, option } = request;
  const boundary = boundaryOf(request, Math.max(sectorSize, ...request.pages));
  const plan = planFat({
    bits,
    size,
    sectorSize,
    ...(part.cluster === undefined ? {} : { cluster: part.cluster }),
    ...(card?.fs === part.fs ? { clusterFirst: card.cluster } : {}),
    clusterMin: Math.max(...request.pages),
    boundary,
    boundaryMin: part.boundary === undefined ? Math.min(boundary, Math.max(sectorSize, ...request.pages)) : boundary,
    option,
  });
  const hidden = start / BigInt(sectorSize);
  const words = ['mkfs.fat', '-F', bits, '-s', plan.sectorsPerCluster, '-S', sectorSize, '-a', '-R', plan.reserved, '-f', 2];
  if (bits !== 32) words.push('-r', 512);
  // The header has 32 bits for the sectors before it; beyond 2 TiB nobody can boot from there anyway.
  if (hidden < 1n << 32n) words.push('-h', String(hidden));
  return {
    dataOffset: BigInt(plan.heap) * BigInt(sectorSize),
    unit: plan.cluster,
    clusters: BigInt(plan.clusters),
    device: [[...words, '"$PART"'].join(' ')],
    image: [[...words, `--offset=${hidden}`, '"$IMAGE"', String(size / 1024n)].join(' ')],
    details: {
      bytesPerSector: sectorSize,
      sectorsPerCluster: plan.sectorsPerCluster,
      reserved: plan.reserved,
      fats: 2,
      fatSectors: plan.fat,
      rootSectors: plan.root,
      heapSector: plan.heap,
      boundary: plan.boundary,
      passes: plan.passes,
    },
  };
}

function exfat(request: VolumeRequest): Made {
  const { part, size, sectorSize, card, option } = request;
  const gibibytes = Number(size) / GIBIBYTE;
  const preferred = gibibytes <= 0.25 ? 4 * KIBIBYTE : gibibytes <= 32 ? 32 * KIBIBYTE : 128 * KIBIBYTE;
  const cluster = part.cluster ?? (card?.fs === 'exfat' ? card.cluster : Math.max(preferred, sectorSize, ...request.pages));
  if (cluster < sectorSize || cluster > EXFAT_CLUSTER_MAX)
    throw outOfRange(`${option}.cluster`, `>= ${sectorSize} and <= ${EXFAT_CLUSTER_MAX} for exfat`, cluster);
  const heapBoundary = boundaryOf(request, Math.max(sectorSize, ...request.pages));
  // An SD card has its FAT at half a boundary unit and its heap at one: with half a unit for both, the FAT, shorter than that, ends before the unit does.
  const boundary = card?.fs === 'exfat' && part.boundary === undefined && heapBoundary >= 2 * MEBIBYTE ? heapBoundary / 2 : heapBoundary;
  const fatOffset = roundUp(BigInt(EXFAT_BOOT_SECTORS * sectorSize), BigInt(boundary));
  const fatBytes = roundUp((size / BigInt(cluster)) * 4n, BigInt(cluster));
  const heap = roundUp(fatOffset + fatBytes, BigInt(boundary));
  const clusters = (size - heap) / BigInt(cluster);
  // Bitmap, upcase table and root directory take at least one cluster each.
  if (heap >= size || clusters < 16n)
    throw tooSmall(request, heap + 16n * BigInt(cluster), `exFAT with boundary ${boundary} and clusters of ${cluster} has its first cluster at byte ${heap}`);
  if (clusters > 0xffff_fff5n)
    throw refused(`${option}.cluster`, cluster, `exFAT has at most 4294967285 clusters, ${size} bytes hold ${clusters}`, `give cluster=${cluster * 2} or more`);
  const command = `mkfs.exfat -c ${cluster} -b ${boundary}`;
  // mkfs.exfat asks the device for its sector size and takes 512 of a file.
  const image: Pick<Made, 'image' | 'imageNeeds'> =
    sectorSize === 512 ? { image: cutOut(request, command) } : { image: loop(request, command), imageNeeds: 'root' };
  return {
    dataOffset: heap,
    unit: cluster,
    clusters,
    device: [`${command} "$PART"`],
    ...image,
    details: { fatOffset, fatBytes, boundary },
  };
}

function ext(request: VolumeRequest): Made {
  const { part, start, size, topology, option } = request;
  const block = part.cluster ?? 4096;
  if (block < 1024 || block > 65_536) throw outOfRange(`${option}.cluster`, '>= 1024 and <= 65536 for ext', block);
  // Below 2048 blocks mke2fs leaves the journal out, and ext3 is ext2.
  const blocks = part.fs === 'ext2' ? 128 : 2048;
  if (size < BigInt(block * blocks)) throw tooSmall(request, BigInt(block * blocks), `it needs ${blocks} blocks of ${block} bytes`);
  const { stride, width } = stripe(topology, block);
  const geometry = [...(stride > 0 ? [`stride=${stride}`] : []), ...(width > 0 ? [`stripe_width=${width}`] : [])];
  const words = (extended: string[]) => [`mke2fs -q -t ${part.fs} -b ${block}`, ...(extended.length > 0 ? [`-E ${extended.join(',')}`] : [])].join(' ');
  return {
    dataOffset: 0n,
    unit: block,
    device: [`${words(geometry)} "$PART"`],
    // Without -F it would ask, because it sees the table at the image's start.
    image: [`${words([`offset=${start}`, ...geometry])} -F "$IMAGE" ${size / 1024n}k`],
    details: { blockSize: block, stride, stripeWidth: width },
  };
}

function xfs(request: VolumeRequest): Made {
  const { part, size, topology, sectorSize, option } = request;
  const block = part.cluster ?? 4096;
  if (block < Math.max(512, sectorSize) || block > 65_536) throw outOfRange(`${option}.cluster`, `>= ${Math.max(512, sectorSize)} and <= 65536 for xfs`, block);
  // xfsprogs 5.19 on.
  if (size < 300n * BigInt(MEBIBYTE)) throw tooSmall(request, 300n * BigInt(MEBIBYTE), 'mkfs.xfs makes none below 300 MiB');
  const { stride, width } = stripe(topology, block);
  // swidth must be a whole number of sunits, or the kernel refuses to mount it; so both or none.
  // A striped volume gets eight allocation groups at least, and one must hold the log of 64 MiB.
  const striped = stride > 0 && width > 0 && width % stride === 0 && size >= BigInt(GIBIBYTE);
  const sector = Math.min(block, Math.max(sectorSize, Math.min(topology.physical, 4096)));
  const geometry = striped ? `su=${stride * block},sw=${width / stride}` : 'noalign';
  const command = `mkfs.xfs -q -b size=${block} -s size=${sector} -d ${geometry}`;
  return {
    dataOffset: 0n,
    unit: block,
    device: [`${command} "$PART"`],
    image: cutOut(request, command),
    details: { blockSize: block, sectorSize: sector, stripeUnit: striped ? stride * block : 0, stripeWidth: striped ? width * block : 0 },
  };
}

function ntfs(request: VolumeRequest): Made {
  const { part, start, size, sectorSize, option } = request;
  const cluster = part.cluster ?? Math.min(65_536, Math.max(4096, ...request.pages));
  if (cluster < sectorSize || cluster > 65_536) throw outOfRange(`${option}.cluster`, `>= ${sectorSize} and <= 65536 for ntfs`, cluster);
  if (size < 2n * BigInt(MEBIBYTE)) throw tooSmall(request, 2n * BigInt(MEBIBYTE), 'mkntfs has no room for its own files below 2 MiB');
  const hidden = start / BigInt(sectorSize);
  // Of a file mkntfs cannot learn where the volume will begin, and Windows boots from none that does not say so. It takes 32 bits of it, and the geometry only for BIOSes.
  const place = hidden < 1n << 32n ? ` -p ${hidden} -H 255 -S 63` : '';
  const command = `mkntfs -q -Q -c ${cluster} -s ${sectorSize}${place}`;
  return {
    dataOffset: 0n,
    unit: cluster,
    device: [`${command} "$PART"`],
    // -F, because a file is no block device.
    image: cutOut(request, `${command} -F`),
    details: { hiddenSectors: hidden },
  };
}

function btrfs(request: VolumeRequest): Made {
  const { part, size, option } = request;
  const sector = part.cluster ?? 4096;
  if (sector < 4096 || sector > 65_536) throw outOfRange(`${option}.cluster`, '>= 4096 and <= 65536 for btrfs', sector);
  // The least for separate groups of data and metadata, both copies of the latter: btrfs-progs' own message names 109 MiB.
  const least = 109n * BigInt(MEBIBYTE);
  if (size < least) throw tooSmall(request, least, 'mkfs.btrfs makes none below that');
  const command = `mkfs.btrfs -q -s ${sector}`;
  return { dataOffset: 0n, unit: sector, device: [`${command} "$PART"`], image: cutOut(request, command), details: { sectorSize: sector } };
}

function luks(request: VolumeRequest): Made {
  const { part, size } = request;
  noCluster(request);
  const version = part.fs === 'luks1' ? 1 : 2;
  const header = BigInt(version === 1 ? LUKS1_DATA_OFFSET : LUKS2_DATA_OFFSET);
  const offset = roundUp(header, BigInt(boundaryOf(request, 4096)));
  if (offset * 2n > size) throw tooSmall(request, offset * 2n, `LUKS${version} has its payload at byte ${offset}`);
  // LUKS1 knows sectors of 512 only.
  const unit = version === 1 ? 512 : 4096;
  // --offset counts sectors of 512 whatever the device's are.
  const command = `cryptsetup luksFormat --type luks${version} --offset ${offset / 512n}${version === 1 ? '' : ` --sector-size ${unit}`}`;
  return {
    dataOffset: offset,
    unit,
    opaque: true,
    device: [`${command} "$PART"`],
    image: cutOut(request, command),
    details: { offsetSectors: offset / 512n },
  };
}

function lvm2(request: VolumeRequest): Made {
  const { size } = request;
  noCluster(request);
  const alignment = roundUp(BigInt(MEBIBYTE), BigInt(Math.max(MEBIBYTE, boundaryOf(request, 4096))));
  if (alignment + 4n * BigInt(MEBIBYTE) > size) throw tooSmall(request, alignment + 4n * BigInt(MEBIBYTE), 'an LVM volume needs room for one extent of 4 MiB');
  const command = `pvcreate --dataalignment ${alignment / 1024n}k`;
  // The extents' size is the group's, chosen by vgcreate: 4 MiB unless told otherwise.
  return {
    dataOffset: alignment,
    unit: 4 * MEBIBYTE,
    device: [`${command} "$PART"`],
    image: loop(request, command),
    imageNeeds: 'root',
    details: { dataAlignment: alignment },
  };
}

function swap(request: VolumeRequest): Made {
  noCluster(request);
  // mkswap takes ten pages at least; the first is the header.
  if (request.size < 40_960n) throw tooSmall(request, 40_960n, 'mkswap makes none below ten pages');
  const command = 'mkswap -p 4096';
  return { dataOffset: 4096n, unit: 4096, device: [`${command} "$PART"`], image: cutOut(request, command), details: {} };
}

/** Bytes of `minimum_io_size` and of `optimal_io_size` in blocks, each 0 where it says nothing about stripes. */
function stripe(topology: Topology, block: number): { stride: number; width: number } {
  const least = Number(usableMinimumIo(topology).value);
  const best = Number(usableOptimalIo(topology).value);
  const stride = least > block && least > topology.physical ? least / block : 0;
  const width = stride > 0 && best > least && best % block === 0 ? best / block : 0;
  return { stride, width };
}

/** What the caller gave, else the plan's own, halved until it costs no more than a sixteenth of the volume. */
function boundaryOf({ part, size, boundary }: VolumeRequest, least: number): number {
  if (part.boundary !== undefined) return part.boundary;
  let own = boundary;
  while (own > least && BigInt(own) * OVERHEAD_SHARE > size) own /= 2;
  return Math.max(own, least);
}

function noCluster({ part, option }: VolumeRequest): void {
  if (part.cluster !== undefined) throw refused(`${option}.cluster`, part.cluster, `${part.fs} has no clusters`, 'leave it out');
}

/** `needed` in whole MiB, so that it can be given as it is. */
function tooSmall({ option, size, part }: VolumeRequest, needed: bigint, why: string): Error {
  return refused(
    `${option}.size`,
    size,
    `${part.fs} does not fit: ${why}`,
    `make it at least ${roundUp(needed, BigInt(MEBIBYTE))} bytes, or choose another file system`,
  );
}

/** Holes first, because `conv=sparse` writes no zeros over what was there. */
function cutOut({ number, start, size }: VolumeRequest, command: string): string[] {
  const file = `"$IMAGE.part${number}"`;
  return [
    `truncate -s ${size} ${file}`,
    `${command} ${file}`,
    `fallocate --punch-hole --offset ${start} --length ${size} "$IMAGE"`,
    `dd if=${file} of="$IMAGE" bs=1M oflag=seek_bytes seek=${start} conv=notrunc,sparse status=none`,
    `rm ${file}`,
  ];
}

function loop({ start, size, sectorSize }: VolumeRequest, command: string): string[] {
  return [
    `LOOP=$(losetup --find --show --sector-size ${sectorSize} --offset ${start} --sizelimit ${size} "$IMAGE")`,
    `${command} "$LOOP"`,
    'losetup --detach "$LOOP"',
  ];
}

/** What the commands are made for: the disk's node or an image file. */
export interface MkfsTarget {
  /** `/dev/sda`: the partitions are `/dev/sda1`, ... */
  device?: string;
  /** The path of an image file. */
  image?: string;
}

/**
 * The shell lines that make the plan's file systems, in the partitions of a device or within an image file; comments say what each will become.
 *
 * Without a target they are for `/dev/DISK`. Lines of one partition belong together; run them with `sh -e`.
 */
export function mkfsLines(plan: Plan, target: MkfsTarget = {}): string[] {
  return plan.partitions.flatMap(({ number, name, volume }) => {
    if (volume === undefined) return [];
    const { kind, dataOffset, dataOffsetAbsolute, unit, clusters } = volume;
    const count = clusters === undefined ? '' : `, ${clusters} of them`;
    const title = `# partition ${number}${name === '' ? '' : ` (${name})`}: ${kind}, data at byte ${dataOffset} of it, byte ${dataOffsetAbsolute} of the disk, units of ${unit} bytes${count}`;
    if (target.image === undefined)
      return [title, ...volume.device.map((line) => line.replaceAll('"$PART"', quote(partitionNode(target.device ?? '/dev/DISK', number))))];
    const image = target.image;
    const root = volume.imageNeeds === 'root' ? ['# needs root: only a block device will do'] : [];
    return [title, ...root, ...volume.image.map((line) => line.replaceAll(/"\$IMAGE([^"]*)"/g, (_, suffix: string) => quote(image + suffix)))];
  });
}

/** As the kernel names it: a `p` between where the disk's name ends in a digit. */
export function partitionNode(device: string, number: number): string {
  return `${device}${/\d$/.test(device) ? 'p' : ''}${number}`;
}

function quote(word: string): string {
  return /^[\w./,:=@%+-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`;
}
