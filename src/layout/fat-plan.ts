/**
 * FAT with its first cluster on a boundary: the reserved sectors that bring it there, and what mkfs.fat makes of them.
 *
 *   sector 0          reserved                reserved + 2 × fat       heap                       sectors
 *   | boot, reserved  | FAT | FAT |           | root (FAT12, FAT16)    | cluster 2 | cluster 3 |  |
 *                                                                      heap × bps is a multiple of the boundary
 *
 * The FAT's own length depends on how many clusters there are, hence on how much is reserved: more reserved sectors, fewer clusters, a shorter FAT. So the number of
 * reserved sectors is a fixed point (rule R9): r = roundup(r + FATs + root, boundary) − FATs − root. r only grows and the heap stays put, so it is reached in a few passes.
 *
 * mkfs.fat 4.2 computes the FAT's length from the estimate of clusters below (two FATs, in whole sectors with -a); the same arithmetic predicts its heap and its clusters.
 *
 * Guarantees: pure; the plan returned is one that `mkfs.fat -a` makes as predicted, within the type's own band of cluster counts; what cannot be is refused with a remedy.
 * Leaves to others: where the partition lies, the command's other words (`mkfs.ts`).
 */
import { SectorwiseError } from '../errors.js';

export type FatBits = 12 | 16 | 32;

/** The header has 16 bits for the number of reserved sectors. */
export const RESERVED_SECTORS_MAX = 65_535;
/** Entries of the root directory of FAT12 and FAT16: 32 bytes each. */
export const ROOT_ENTRIES = 512;
const FATS = 2;
/** The header has 32 bits for the number of sectors. */
const SECTORS_MAX = 2 ** 32 - 1;
const SECTORS_PER_CLUSTER_MAX = 128;
const CLUSTER_MAX = 65_536;
/** r grows with each pass, and each pass but the last shortens the FAT; more than four were never needed. */
const PASSES_MAX = 64;

/**
 * Clusters that a FAT of each type can have. Readers know the type by nothing else (Microsoft's specification of 2000, section 3.5; mtools), and mkfs.fat keeps a few clusters
 * away from the thresholds, where readers differ by one or two. Of a FAT12 with hardly any clusters it makes none.
 */
export const CLUSTER_BANDS: Record<FatBits, { min: number; max: number }> = {
  12: { min: 16, max: 4084 },
  16: { min: 4087, max: 65_524 },
  32: { min: 65_529, max: 268_435_446 },
};

export interface FatRequest {
  bits: FatBits;
  /** Bytes of the partition. */
  size: bigint;
  /** Logical sectors of the device; FAT's own are the same. */
  sectorSize: number;
  /** Bytes; chosen where absent. */
  cluster?: number;
  /** Where a cluster is chosen, tried before the others. */
  clusterFirst?: number;
  /** No cluster chosen here is smaller: the largest page to be mapped with. */
  clusterMin: number;
  /** Bytes, a power of two: where the heap must be. */
  boundary: number;
  /** Tried where `boundary` itself needs too many reserved sectors or too much of the volume: halves of it, down to this. Equal to `boundary` where the caller insists. */
  boundaryMin: number;
  /** The option that asked, for messages: `parts[0]`. */
  option: string;
}

/** All in FAT's own sectors where the name does not say otherwise. */
export interface FatPlan {
  bits: FatBits;
  sectors: number;
  reserved: number;
  /** Of one FAT. */
  fat: number;
  root: number;
  heap: number;
  sectorsPerCluster: number;
  clusters: number;
  /** Bytes. */
  cluster: number;
  /** Bytes: what the heap is a multiple of. */
  boundary: number;
  /** How often the fixed point was computed. */
  passes: number;
}

/** Throws ERR_SECTORWISE_PLAN where no such file system can be. */
export function planFat(request: FatRequest): FatPlan {
  const { bits, size, sectorSize, option } = request;
  if (size / BigInt(sectorSize) > BigInt(SECTORS_MAX)) {
    throw refused(
      `${option}.size`,
      size,
      `FAT counts its sectors in 32 bits: ${size} bytes are ${size / BigInt(sectorSize)} sectors of ${sectorSize}`,
      `make it ${BigInt(SECTORS_MAX) * BigInt(sectorSize)} bytes at most, or use exfat`,
    );
  }
  const sectors = Number(size / BigInt(sectorSize));
  const clusters = request.cluster === undefined ? clusterChoices(request, sectors) : [explicitCluster(request, request.cluster)];
  let worst: SectorwiseError | undefined;
  for (let boundary = request.boundary; boundary >= request.boundaryMin; boundary /= 2) {
    for (const cluster of clusters) {
      const plan = solve(bits, sectors, sectorSize, cluster, boundary);
      const error = judge(plan, request);
      if (error === undefined) return plan;
      worst ??= error;
    }
  }
  throw worst!;
}

/** `length` of one FAT in sectors and the `clusters` that remain, as mkfs.fat 4.2 computes them with `-a`. */
export function fatLength(
  bits: FatBits,
  sectors: number,
  reserved: number,
  root: number,
  sectorsPerCluster: number,
  sectorSize: number,
): { length: number; clusters: number } {
  // Bytes that an entry and its cluster take together; for FAT12 twice that, an entry being 12 bits.
  const twice = bits === 12 ? 2 : 1;
  const entryBytes = bits === 12 ? 3 : bits / 8;
  const space = sectors - reserved - root;
  if (space <= 0) return { length: 0, clusters: 0 };
  const estimate = Math.floor(
    (twice * (space * sectorSize + FATS * (bits === 12 ? 3 : 2 * entryBytes))) / (twice * sectorsPerCluster * sectorSize + FATS * entryBytes),
  );
  const bytes = bits === 12 ? Math.floor(((estimate + 2) * 3 + 1) / 2) : (estimate + 2) * entryBytes;
  const length = Math.ceil(bytes / sectorSize);
  return { length, clusters: Math.max(0, Math.floor((space - FATS * length) / sectorsPerCluster)) };
}

function solve(bits: FatBits, sectors: number, sectorSize: number, cluster: number, boundary: number): FatPlan {
  const sectorsPerCluster = cluster / sectorSize;
  const root = bits === 32 ? 0 : Math.ceil((ROOT_ENTRIES * 32) / sectorSize);
  const step = boundary / sectorSize;
  // mkfs.fat's own minima: FAT32 has its boot sectors' copies within these.
  let reserved = bits === 32 ? 32 : 1;
  for (let passes = 1; passes <= PASSES_MAX; passes++) {
    const { length: fat, clusters } = fatLength(bits, sectors, reserved, root, sectorsPerCluster, sectorSize);
    const heap = reserved + FATS * fat + root;
    const remainder = heap % step;
    const plan = { bits, sectors, reserved, fat, root, heap, sectorsPerCluster, clusters, cluster, boundary, passes };
    if (remainder === 0 || heap >= sectors) return plan;
    reserved += step - remainder;
  }
  // Not reached for any size tried; refused rather than half right.
  return { bits, sectors, reserved: RESERVED_SECTORS_MAX + 1, fat: 0, root, heap: 0, sectorsPerCluster, clusters: 0, cluster, boundary, passes: PASSES_MAX };
}

function judge(plan: FatPlan, request: FatRequest): SectorwiseError | undefined {
  const { bits, option, size } = request;
  const kind = `FAT${bits}`;
  if (plan.reserved > RESERVED_SECTORS_MAX) {
    return refused(
      `${option}.boundary`,
      plan.boundary,
      `${kind} would need ${plan.reserved} reserved sectors of ${request.sectorSize} to bring its first cluster to a multiple of ${plan.boundary} bytes, and its header holds ${RESERVED_SECTORS_MAX} at most`,
      `give boundary=${plan.boundary / 2} or less, or use exfat`,
    );
  }
  const band = CLUSTER_BANDS[bits];
  const of = `${plan.clusters} clusters of ${plan.cluster} bytes`;
  if (plan.clusters < band.min) {
    const remedies = [`make it at least ${sizeFor(plan, request)} bytes`];
    const smaller = smallerCluster(plan, request);
    if (smaller !== undefined) remedies.push(`give cluster=${smaller} (smaller than a page: only some pages of files can then be mapped)`);
    if (bits !== 12) remedies.push(`use ${bits === 32 ? 'fat16' : 'fat12'}`);
    return refused(
      `${option}.size`,
      size,
      `${kind} needs at least ${band.min} clusters${bits === 12 ? '' : `, or it is read as FAT${bits === 32 ? 16 : 12}`}; ${size} bytes hold ${of}`,
      remedies.join(', or '),
    );
  }
  if (plan.clusters > band.max) {
    const larger = plan.cluster * 2 <= clusterLimit(request.sectorSize) ? `give cluster=${plan.cluster * 2} or more, or ` : '';
    return refused(
      `${option}.size`,
      size,
      `${kind} has at most ${band.max} clusters; ${size} bytes hold ${of}`,
      `${larger}use ${bits === 12 ? 'fat16' : bits === 16 ? 'fat32' : 'exfat'}`,
    );
  }
  return undefined;
}

function clusterLimit(sectorSize: number): number {
  return Math.min(CLUSTER_MAX, SECTORS_PER_CLUSTER_MAX * sectorSize);
}

function explicitCluster({ sectorSize, option }: FatRequest, cluster: number): number {
  const max = clusterLimit(sectorSize);
  if (cluster < sectorSize || cluster > max)
    throw refused(
      `${option}.cluster`,
      cluster,
      `a FAT cluster is ${sectorSize} to ${max} bytes with sectors of ${sectorSize}`,
      `give cluster=${Math.max(sectorSize, Math.min(max, 4096))}`,
    );
  return cluster;
}

/** In the order in which they are tried: mkfs.fat's own default (FAT32 by size; FAT12 and FAT16 as small as will do), but never below `clusterMin`. */
function clusterChoices({ bits, sectorSize, clusterMin, clusterFirst, size, option }: FatRequest, sectors: number): number[] {
  const max = clusterLimit(sectorSize);
  if (clusterMin > max)
    throw refused(
      `${option}.fs`,
      `fat${bits}`,
      `its clusters end at ${max} bytes, below the page of ${clusterMin}`,
      `use exfat with cluster=${clusterMin}, or leave that page size out`,
    );
  const gibibytes = Number(size) / 2 ** 30;
  const wished = bits !== 32 ? sectorSize : gibibytes <= 8 ? 4096 : gibibytes <= 16 ? 8192 : gibibytes <= 32 ? 16_384 : 32_768;
  const least = Math.max(wished, clusterMin, sectorSize);
  const choices = clusterFirst === undefined || clusterFirst < least ? [] : [clusterFirst];
  for (let cluster = least; cluster <= max; cluster *= 2) {
    if (sectors / (cluster / sectorSize) <= CLUSTER_BANDS[bits].max * 1.1) choices.push(cluster);
  }
  return choices.length > 0 ? choices : [max];
}

/** Bytes of the smallest volume of this boundary and cluster that has enough clusters, in whole MiB. */
function sizeFor(plan: FatPlan, { bits, sectorSize }: FatRequest): bigint {
  const mebibyte = 1 << 20;
  let low = 1;
  let high = Math.ceil((CLUSTER_BANDS[bits].min * plan.cluster * 1.1 + 2 * plan.boundary) / mebibyte) + 4;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (solve(bits, (middle * mebibyte) / sectorSize, sectorSize, plan.cluster, plan.boundary).clusters >= CLUSTER_BANDS[bits].min) high = middle;
    else low = middle + 1;
  }
  return BigInt(low) * BigInt(mebibyte);
}

function smallerCluster(plan: FatPlan, { bits, sectorSize }: FatRequest): number | undefined {
  for (let cluster = plan.cluster / 2; cluster >= sectorSize; cluster /= 2) {
    const { clusters } = solve(bits, plan.sectors, sectorSize, cluster, plan.boundary);
    if (clusters >= CLUSTER_BANDS[bits].min && clusters <= CLUSTER_BANDS[bits].max) return cluster;
  }
  return undefined;
}

/** A plan that cannot be: which option, its value, why, and what to do instead. */
export function refused(option: string, value: unknown, why: string, remedy: string): SectorwiseError {
  return new SectorwiseError('ERR_SECTORWISE_PLAN', `The plan's '${option}' cannot be ${value}: ${why}. To mend it, ${remedy}.`);
}
