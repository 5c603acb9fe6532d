/**
 * The words in which a layout is told: what was read of an image (table, partitions, volumes), what was found about it, and the report that holds both.
 *
 * Guarantees: plain data, no behaviour. Offsets and sizes are bytes and bigint, because a partition table can hold 2^64 sectors; sector sizes, page sizes and
 * cluster sizes are numbers. The names of kinds, states, tiers, severities and codes are those of the JSON output, and a promise.
 * Leaves to others: reading (`table.ts`, `volume.ts`), judging (`check.ts`), showing (`src/cli`).
 */

/** Where the bytes of an image come from: a Buffer, an image file, a block device. */
export interface ImageSource {
  /** Bytes in all. */
  readonly size: bigint;
  /**
   * The `length` bytes from `offset` on; fewer where the image ends earlier, none beyond it. Throws where they cannot be read (the system call's error).
   * The answer stays as it is: nobody changes it later.
   */
  read(offset: bigint, length: number): Uint8Array;
}

/** A sector size and how it became known. */
export interface SectorSize {
  /** Bytes: 512, 1024, 2048 or 4096. */
  value: number;
  /** `option`: the caller said so; `device`: the device did; `gpt-primary`, `gpt-backup`: a header with a valid CRC lies there; `boot-sector`: a partition's boot sector does; `assumed`: nothing told. */
  source: 'option' | 'device' | 'gpt-primary' | 'gpt-backup' | 'boot-sector' | 'assumed';
}

/** What the device under a layout asks for; of an image, what is assumed of it. All in bytes. */
export interface Topology {
  /** Logical sector size. */
  logical: number;
  /** 4096 where nobody told. */
  physical: number;
  /** minimum_io_size; 0 where unknown. */
  minimumIo: number;
  /** optimal_io_size as reported, usable or not; 0 where unknown. */
  optimalIo: number;
  /** Of the whole device: bytes from its start to the first naturally aligned place; -1 where the stack cannot be aligned. */
  alignmentOffset: number;
  /** Bytes of a zone of a zoned device, else 0. */
  zone: number;
  /** chunk_sectors in bytes (stripe segment or zone), 0 where there is none. */
  chunk: number;
  /** Who said so. */
  source: 'device' | 'option' | 'assumed';
}

/** Which partition table: `superfloppy` is one file system without a table, `pmbr-only` a protective MBR whose GPT is missing. */
export type TableKind = 'gpt' | 'mbr' | 'superfloppy' | 'pmbr-only' | 'none';

/** What is to be said of a table. */
export type TableState =
  | 'ok'
  | 'primary-bad'
  | 'backup-bad'
  | 'backup-missing'
  | 'backup-not-at-end'
  | 'no-valid-table'
  | 'overlap'
  | 'partition-beyond-end'
  | 'ebr-loop'
  | 'hybrid-mbr'
  | 'protective-mbr-without-gpt'
  | 'ambiguous-sector-size';

/** A partition as the table has it. */
export interface Partition {
  /** As the kernel numbers it: GPT by entry, MBR 1 to 4, logical partitions 5 and up. */
  number: number;
  /** First byte. */
  start: bigint;
  /** Bytes. */
  size: bigint;
  /** GPT: the type's GUID in lower case; MBR: `0x83`. */
  type: string;
  /** What that type is called, where it is known. */
  typeName?: string;
  /** GPT: the partition's own name. */
  name?: string;
  /** GPT: the partition's own GUID, lower case. */
  uuid?: string;
  /** Never holds a file system's data (BIOS boot, MSR, PReP, protective): findings about it are information. */
  exempt: boolean;
  /** Its start satisfies rule R1 for every page size asked about. Filled in by the check; `false` before it. */
  aligned: boolean;
}

/** A partition table as it was read. */
export interface Table {
  /** Which table it is. */
  kind: TableKind;
  /** What is to be said of it; `ok` alone where nothing is wrong. */
  state: TableState[];
  /** What its LBAs are counted in. */
  sectorSize: SectorSize;
  /** In the order of their numbers. */
  partitions: Partition[];
  /** GPT: disk GUID, lower case. */
  diskId?: string;
  /** GPT: where the copies lie, and whether each is whole. */
  primary?: GptCopy;
  /** The copy at the end of the disk. */
  backup?: GptCopy;
  /** Containers of logical partitions, for pictures; not partitions of their own. */
  extended: {
    /** First byte. */
    start: bigint;
    /** Bytes. */
    size: bigint;
  }[];
  /** What went wrong on the way, already as findings. */
  findings: Finding[];
}

/** One of the two copies of a GPT. */
export interface GptCopy {
  /** Byte of the header. */
  header: bigint;
  /** Byte of the entry array. */
  entries: bigint;
  /** Entries in the array. */
  entryCount: number;
  /** Bytes of one entry. */
  entryBytes: number;
  /** First byte that a partition may use. */
  firstUsable: bigint;
  /** Byte of the last usable sector. */
  lastUsable: bigint;
  /** Header and array are whole: signature, place, both CRCs. */
  valid: boolean;
  /** Why it is not, in words. */
  reason?: string;
}

/** Which file system or layer a volume is. */
export type VolumeKind =
  | 'fat12'
  | 'fat16'
  | 'fat32'
  | 'exfat'
  | 'ext2'
  | 'ext3'
  | 'ext4'
  | 'xfs'
  | 'ntfs'
  | 'btrfs'
  | 'luks1'
  | 'luks2'
  | 'lvm2'
  | 'md'
  | 'swap';

/** Whether a page of a file can be mapped as one page of the device: of every file, of some, of none (rule R6). */
export type Tier = 'guaranteed' | 'per-file' | 'impossible';

/** A tier seen from the start of the device and from the start of the volume (a partition node, a loop device over it). */
export interface Tiers {
  /** From the start of the device or image. */
  absolute: Tier;
  /** From the start of the volume. */
  relative: Tier;
}

/** A file system, or a layer that holds others. */
export interface Volume {
  /** The partition it lies in; null where it is the whole image. */
  partition: number | null;
  /** Which file system or layer. */
  kind: VolumeKind;
  /** Its first byte in the image. */
  offset: bigint;
  /** Its bytes, by its own account; undefined where it does not tell. */
  size?: bigint;
  /** First byte of the cluster, block or payload space, from the volume's start. */
  dataOffset: bigint;
  /** The same from the start of the image. */
  dataOffsetAbsolute: bigint;
  /** Cluster or block size in bytes; of a layer, its grain (LVM: extent; LUKS: sector; md: chunk). */
  unit: number;
  /** By page size as a decimal string. */
  tiers: Record<string, Tiers>;
  /** Holds ciphertext: what is inside cannot be seen. */
  opaque: boolean;
  /** Volumes found inside (LVM's logical volumes, md's array), their offsets added up. */
  inside: Volume[];
  /** As the file system has it. */
  label?: string;
  /** As the file system has it. */
  uuid?: string;
  /** The kind's own numbers that a user may want to see (reserved sectors, FAT length, stride, ...). */
  details: Record<string, number | bigint | string>;
  /** For a logical volume or an array: its name. */
  name?: string;
  /** Why its numbers are not to be trusted (a checksum that is wrong, a size beyond the end), in words. */
  damaged?: string;
}

/** An error spoils what was asked for; a warning does so with `strict`; information never does. */
export type Severity = 'error' | 'warning' | 'info';

/** One thing found, with the division that shows it and what mends it. */
export interface Finding {
  /** How bad: an error keeps pages from being mapped or the table from being believed. */
  severity: Severity;
  /** `E_...`, `W_...` or `I_...`: a promise. */
  code: string;
  /** Which layer spoils it. */
  layer: 'device' | 'table' | 'partition' | 'volume' | 'file';
  /** Partition it is about, else null. */
  partition: number | null;
  /** The number judged, where there is one: `value % modulus = remainder`. */
  value?: bigint;
  /** What the value was divided by. */
  modulus?: bigint;
  /** What was left. */
  remainder?: bigint;
  /** What, with bytes and LBA, arithmetic included: never only "not aligned". */
  message: string;
  /** What to do; empty where nothing needs doing. */
  fix: string;
}

/** 0 aligned; 1 alignment error; 2 table damaged or contradictory; 3 nothing to judge; 4 could not read; 64 usage. */
export type ExitCode = 0 | 1 | 2 | 3 | 4 | 64;

/** What a file's extents say (rule R7), by page size. */
export interface FileReport {
  /** As it was given. */
  path: string;
  /** Bytes. */
  size: bigint;
  /** The file system's kind as the kernel names it (`ext4`, `vfat`, ...). */
  fileSystem: string;
  /** By page size as a decimal string. */
  pages: Record<string, FilePages>;
}

/** How many pages of a file can be mapped, for one page size. */
export interface FilePages {
  /** Pages that can be mapped as pages of the device. */
  mappable: bigint;
  /** Pages of the file, the last one included that may be partly filled. */
  total: bigint;
  /** Pages of the longest run that is contiguous on the device, and where in the file it begins. */
  longestRun: {
    /** How many. */
    pages: bigint;
    /** Byte of the file where it begins. */
    offset: bigint;
  };
  /** The first page that cannot be mapped, and why. */
  firstFailing?: {
    /** Its number, from 0 on. */
    page: bigint;
    /** Its first byte in the file. */
    offset: bigint;
    /** In words, with the division where there is one. */
    cause: string;
  };
  /** `size % page`: the last page holds that many bytes of the file. */
  tail: number;
}

/** What a check found. */
export interface Report {
  /** Of the JSON output (docs/schemas). */
  schemaVersion: 1;
  /** Always `sectorwise`. */
  tool: 'sectorwise';
  /** Of this package. */
  version: string;
  /** What was looked at, as the caller named it. */
  target: string;
  /** Logical sectors that the table was read in. */
  sectorSize: SectorSize;
  /** What was judged by. */
  topology: Topology;
  /** What the partition table says. */
  table: Table;
  /** What lies in the partitions, or in the whole image, in their order. */
  volumes: Volume[];
  /** Of a file check: which of its pages can be mapped. */
  file?: FileReport;
  /** All that was found, outermost layer first. */
  findings: Finding[];
  /** What follows from the findings. */
  summary: {
    /** Of the findings; null where there are none. */
    worst: Severity | null;
    /** What the command ends with. */
    exit: ExitCode;
    /** One sentence, naming the layer that spoils it. */
    verdict: string;
  };
}

/** What to judge by. */
export interface CheckOptions {
  /** Page sizes in bytes, powers of two; `[4096]` where not given. */
  pages?: readonly number[];
  /** Logical sector size, where the caller knows it: 512, 1024, 2048 or 4096. */
  sectorSize?: number;
  /** Physical sector size to judge by, a power of two; else the topology's, else 4096. */
  physical?: number;
  /** Of the device, where it is one. */
  topology?: Topology;
  /** Warnings count as errors for the exit code. */
  strict?: boolean;
  /** What the report says was looked at. */
  target?: string;
}
