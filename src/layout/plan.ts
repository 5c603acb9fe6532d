/**
 * A partition layout planned from scratch: where each partition begins so that every layer can be mapped page by page, and the file systems in them.
 *
 *   sector 0   the table   G          2G ...
 *   |          |           |          |                           |
 *   [PMBR][GPT][entries]...[ part 1  ][ part 2 ...     ][ rest  ]...[entries][GPT]
 *                          start on the grain G (rule R3)      ends on G too, before the backup
 *
 * Guarantees: pure: no system call, no clock; random only where no disk GUID was given. What is returned fits, every start is a multiple of what pages and
 * sectors require (rule R1), and nothing slips down to the first usable sector: what does not fit is refused, naming the option, its value and the remedy.
 * Leaves to others: FAT's reserved sectors (`fat-plan.ts`), what a file system becomes in its partition and the commands (`mkfs.ts`), the table's bytes (`gpt-writer.ts`),
 * writing them (`write-plan.ts`).
 */
import type { Finding, Tiers, Topology, VolumeKind } from './model.js';

/** What the medium is: `disk` asks for nothing more, `flash` for a grain of 4 MiB at least, `sd` for the boundary units of the SD specification. */
export type PlannedMedia = 'disk' | 'flash' | 'sd';

/** What a partition can be planned to hold. md arrays have more than one device and are not planned. */
export type PlannedFileSystem = Exclude<VolumeKind, 'md'>;

/** A partition asked for. */
export interface PlannedPart {
  /** Its name in the table, at most 36 UTF-16 units. Default: none. */
  name?: string;
  /** Short name (`esp`, `linux`, `swap`, ...) or a GUID. */
  type: string;
  /** Bytes; rounded up so that the end is a whole page of 4096 (rule R4). Absent: all that is left; of one partition at most. */
  size?: bigint;
  /** Its GUID. Default: derived from `diskId` where that is given, else random. */
  uuid?: string;
  /** Default: none, and no command is made for it. */
  fs?: PlannedFileSystem;
  /** Bytes of a cluster or block, a power of two. Default: what the file system's tool would take, but a page at least. */
  cluster?: number;
  /** Bytes, a power of two: the partition's start and the first cluster (LUKS, LVM: the payload) are multiples of it. Default: 1 MiB or the medium's unit, less in small volumes. */
  boundary?: number;
}

/** What to plan. Sizes in bytes. A name that is not listed here throws ERR_INVALID_ARG_VALUE. */
export interface PlanOptions {
  /** Of the whole disk or image. */
  size: bigint;
  /** Logical sectors: 512 (default), 1024, 2048 or 4096. */
  sectorSize?: number;
  /** Physical sectors. Default 4096. */
  physical?: number;
  /** Page sizes to be mappable with, powers of two. Default `[4096]`. */
  pages?: readonly number[];
  /** optimal_io_size as the device reports it; where it is not usable (rule R2) it is ignored with a note. */
  optimalIo?: number;
  /** minimum_io_size. */
  minimumIo?: number;
  /** A grain to add: the one used is a multiple of it. */
  grain?: number;
  /** Of a zoned device: a hard boundary for starts and ends. */
  zone?: number;
  /** Default 'disk'. */
  media?: PlannedMedia;
  /** Disk GUID; makes the partitions' GUIDs follow from it, so that the same options give the same bytes. Default: random, all of them. */
  diskId?: string;
  /** In the order in which they lie; 1 to 128. */
  parts: readonly PlannedPart[];
}

/** A file system in its partition, as its tool will make it. */
export interface PlannedVolume {
  kind: PlannedFileSystem;
  /** First byte of the cluster, block or payload space, from the partition's start. */
  dataOffset: bigint;
  /** The same from the disk's start. */
  dataOffsetAbsolute: bigint;
  /** Cluster, block or extent size in bytes. */
  unit: number;
  /** Clusters of FAT and exFAT, blocks of ext; undefined where the tool decides. */
  clusters?: bigint;
  /** By page size as a decimal string (rule R6). */
  tiers: Record<string, Tiers>;
  /** Shell lines that make it on the partition's node, `$PART`. */
  device: string[];
  /** Shell lines that make it within an image file, `$IMAGE`; those that need root or a loop device say so in `imageNeeds`. */
  image: string[];
  imageNeeds?: 'root';
  /** The kind's own numbers: reserved sectors, FAT sectors, stride, ... */
  details: Record<string, number | bigint | string>;
}

/** A partition with its place. */
export interface PlanPartition {
  /** From 1 on, in the order of `parts`. */
  number: number;
  /** Empty where none was given. */
  name: string;
  /** GUID in lower case. */
  type: string;
  /** The short name, where the type has one. */
  typeName?: string;
  /** GUID in lower case. */
  uuid: string;
  /** Bytes from the disk's start. */
  start: bigint;
  /** Bytes. */
  size: bigint;
  /** What its start is a multiple of: the plan's grain, or less where the partition is smaller than that (rule R3). */
  grain: number;
  volume?: PlannedVolume;
}

/** A layout that fits. Sizes in bytes; plain data. */
export interface Plan {
  size: bigint;
  sectorSize: number;
  topology: Topology;
  pages: number[];
  media: PlannedMedia;
  /** Rule R1: what every start must be a multiple of. */
  required: number;
  /** Rule R3: what starts are multiples of. */
  grain: number;
  /** Where that number comes from, the least common multiple spelled out. */
  grainReason: string;
  /** GUID in lower case. */
  diskId: string;
  /** First and last sector that a partition may use. */
  firstUsable: bigint;
  lastUsable: bigint;
  partitions: PlanPartition[];
  /** What was decided that was not asked for: an optimal_io_size ignored, a size rounded, a smaller grain. All of severity `info`. */
  notes: Finding[];
}
