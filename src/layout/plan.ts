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
import { createHash, randomUUID } from 'node:crypto';
import { refused } from './fat-plan.js';
import { byteAndLba, roundSize } from './findings.js';
import { planVolume } from './mkfs.js';
import type { Finding, Tiers, Topology, VolumeKind } from './model.js';
import { type CheckedPlan, checkPlanOptions } from './plan-options.js';
import { endModulus, grainFor, grain as grainOf, lcm, requiredAlignment, roundDown, roundUp, usableMinimumIo, usableOptimalIo } from './rules.js';
import { type SdCardProfile, sdCardProfile } from './sd-card.js';
import { typeNameOf } from './types.js';

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
  /** Which file system or layer. */
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
  /** The lines in `image` need root (a loop device). */
  imageNeeds?: 'root';
  /** Holds ciphertext: no file of it can be mapped, whatever its place. */
  opaque: boolean;
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
  /** What that type is called, where it is known. */
  typeName?: string;
  /** GUID in lower case. */
  uuid: string;
  /** Bytes from the disk's start. */
  start: bigint;
  /** Bytes. */
  size: bigint;
  /** What its start is a multiple of: the plan's grain, or less where the partition is smaller than that (rule R3). */
  grain: number;
  /** What will be made in it. */
  volume?: PlannedVolume;
}

/** A layout that fits. Sizes in bytes; plain data. */
export interface Plan {
  /** Of the whole disk. */
  size: bigint;
  /** Logical sectors. */
  sectorSize: number;
  /** What was planned for. */
  topology: Topology;
  /** Page sizes that it can be mapped with. */
  pages: number[];
  /** What the medium is. */
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
  /** Last sector that a partition may use. */
  lastUsable: bigint;
  /** In the order in which they lie. */
  partitions: PlanPartition[];
  /** What was decided that was not asked for: an optimal_io_size ignored, a size rounded, a smaller grain. All of severity `info`. */
  notes: Finding[];
}

/** GPT as this library writes it: 128 entries of 128 bytes. */
export const GPT_ENTRIES_BYTES = 128 * 128;

const MEBIBYTE = 1n << 20n;
const GRAIN_MAX = 1n << 40n;

/**
 * Plans a layout: GPT, starts on the grain, ends on whole pages, file systems with their data where it can be mapped.
 *
 * @throws ERR_SECTORWISE_PLAN if it cannot be: the message names the option, its value, why, and what to give instead;
 *   ERR_INVALID_ARG_TYPE, ERR_INVALID_ARG_VALUE, ERR_OUT_OF_RANGE for a value that means nothing
 */
export function planLayout(options: PlanOptions): Plan {
  const checked = checkPlanOptions(options);
  const { size, sectorSize, topology, pages, media, parts } = checked;
  const sector = BigInt(sectorSize);
  const sectors = size / sector;
  const arraySectors = (BigInt(GPT_ENTRIES_BYTES) + sector - 1n) / sector;
  const firstUsable = 2n + arraySectors;
  const lastUsable = sectors - 2n - arraySectors;
  const notes: Finding[] = [];
  const card = media === 'sd' ? sdCardProfile(size) : undefined;
  const { whole, reason } = chooseGrain(checked, card, notes);
  const ground: Ground = {
    checked,
    first: firstUsable * sector,
    end: (lastUsable + 1n) * sector,
    behind: (arraySectors + 1n) * sector,
    whole,
    required: requiredAlignment(topology, pages),
    endUnit: topology.zone > 0 ? lcm(endModulus(sectorSize), BigInt(topology.zone)) : endModulus(sectorSize),
  };
  const places = place(ground);
  const random = checked.diskId === undefined;
  const diskId = checked.diskId ?? randomUUID();
  const partitions = parts.map((part, index): PlanPartition => {
    const { start, end, grain } = places[index];
    const number = index + 1;
    if (grain !== whole) notes.push(smallGrain(number, start, end - start, grain, whole, sectorSize));
    if (part.size !== undefined && end - start !== part.size) notes.push(rounded(number, part.size, end - start, ground.endUnit));
    const typeName = typeNameOf(part.type);
    const { fs } = part;
    const volume =
      fs === undefined
        ? undefined
        : planVolume({
            number,
            part: { ...part, fs },
            start,
            size: end - start,
            sectorSize,
            topology,
            pages,
            boundary: boundaryFor(media, card),
            ...(card === undefined ? {} : { card }),
            option: `parts[${index}]`,
          });
    return {
      number,
      name: part.name,
      type: part.type,
      ...(typeName === undefined ? {} : { typeName }),
      uuid: part.uuid ?? (random ? randomUUID() : derivedUuid(diskId, number)),
      start,
      size: end - start,
      grain: Number(grain),
      ...(volume === undefined ? {} : { volume }),
    };
  });
  for (const { number, volume } of partitions) if (volume !== undefined) notes.push(...tierNotes(number, volume));
  if (card !== undefined) notes.push(...cardNotes(card, partitions));
  return {
    size,
    sectorSize,
    topology,
    pages,
    media,
    required: Number(ground.required),
    grain: Number(whole),
    grainReason: reason,
    diskId,
    firstUsable,
    lastUsable,
    partitions,
    notes,
  };
}

/** Where partitions may lie, and on what. */
interface Ground {
  checked: CheckedPlan;
  /** First byte that a partition may use, first byte behind the last. */
  first: bigint;
  end: bigint;
  /** Bytes of the backup behind that. */
  behind: bigint;
  whole: bigint;
  required: bigint;
  endUnit: bigint;
}

interface Place {
  start: bigint;
  end: bigint;
  grain: bigint;
}

/** R3, with the least common multiple spelled out. */
function chooseGrain({ topology, grain: wished, media }: CheckedPlan, card: SdCardProfile | undefined, notes: Finding[]): { whole: bigint; reason: string } {
  const optimal = usableOptimalIo(topology);
  if (optimal.reason !== undefined)
    notes.push({ severity: 'info', code: 'I_OPT_IGNORED', layer: 'device', partition: null, message: `${optimal.reason}; it is ignored`, fix: '' });
  const minimum = usableMinimumIo(topology);
  if (minimum.reason !== undefined)
    notes.push({ severity: 'info', code: 'I_MIN_IGNORED', layer: 'device', partition: null, message: `${minimum.reason}; it is ignored`, fix: '' });
  const unit = card === undefined ? 0n : BigInt(card.boundaryUnit);
  const whole = lcm(grainOf(topology, { grain: BigInt(wished), flash: media === 'flash' }), unit > 0n ? unit : 1n);
  const terms = ['1 MiB'];
  if (optimal.value > 0n) terms.push(`optimal_io_size ${roundSize(optimal.value)}`);
  if (wished > 0) terms.push(`the grain asked for, ${roundSize(wished)}`);
  if (topology.zone > 0) terms.push(`zones of ${roundSize(topology.zone)}`);
  if (media === 'flash') terms.push('4 MiB for flash');
  if (card !== undefined) terms.push(`the boundary unit of ${card.family} cards of this capacity, ${roundSize(unit)}`);
  const reason = terms.length === 1 ? '1 MiB, as every tool aligns since 2009' : `least common multiple of ${terms.join(', ')} = ${roundSize(whole)}`;
  if (whole > GRAIN_MAX) {
    const option = wished > 0 ? 'grain' : 'zone';
    throw refused(
      option,
      option === 'grain' ? wished : topology.zone,
      `the ${reason}, more than any disk has use for`,
      'give a smaller one, a multiple or a divisor of the others',
    );
  }
  return { whole, reason };
}

/** The first cluster's boundary where the caller gives none. */
function boundaryFor(media: PlannedMedia, card: SdCardProfile | undefined): number {
  return card !== undefined ? card.boundaryUnit : media === 'flash' ? 4 << 20 : 1 << 20;
}

/**
 * The partitions before the open one from the front, those behind it from the end, the open one in between.
 *
 *   |front|  front  |        open         | behind |  behind |
 */
function place(ground: Ground): Place[] {
  const { checked, first, end, endUnit } = ground;
  const { parts } = checked;
  const places: Place[] = [];
  const open = parts.findIndex(({ size }) => size === undefined);
  const front = open === -1 ? parts.length : open;
  let from = first;
  for (let index = 0; index < front; index++) {
    const size = roundUp(parts[index].size!, endUnit);
    const grain = startGrain(ground, index, size);
    const start = roundUp(from, grain.start);
    places[index] = { start, end: roundUp(start + size, endUnit), grain: grain.told };
    from = places[index].end;
    if (from > end) throw doesNotFit(ground, index);
  }
  if (open === -1) return places;
  let until = end;
  for (let index = parts.length - 1; index > open; index--) {
    const size = roundUp(parts[index].size!, endUnit);
    const grain = startGrain(ground, index, size);
    const start = roundDown(roundDown(until, endUnit) - size, grain.start);
    if (start < from) throw doesNotFit(ground, index);
    places[index] = { start, end: roundUp(start + size, endUnit), grain: grain.told };
    until = start;
  }
  places[open] = placeOpen(ground, open, from, until);
  return places;
}

/** On the grain at both ends where that leaves anything, else on the smaller ones of R3. */
function placeOpen(ground: Ground, index: number, from: bigint, until: bigint): Place {
  for (const [size, endUnit] of [
    [ground.whole, ground.whole],
    [MEBIBYTE, ground.endUnit],
    [0n, ground.endUnit],
  ]) {
    const grain = startGrain(ground, index, size);
    const start = roundUp(from, grain.start);
    const end = roundDown(until, endUnit);
    if (end > start) return { start, end, grain: grain.told };
  }
  throw doesNotFit(ground, index);
}

/** What the start of this partition is rounded to (with the boundary asked for), and which grain that is called. Zones are hard: no partition is too small for them. */
function startGrain({ checked, whole, required }: Ground, index: number, size: bigint): { start: bigint; told: bigint } {
  const told = checked.topology.zone > 0 ? whole : grainFor(size, whole, required);
  return { start: lcm(told, BigInt(checked.parts[index].boundary ?? 1)), told };
}

/** Says how large the disk had to be, which option is in the way, and never slips below the grain to make room. */
function doesNotFit(ground: Ground, index: number) {
  const { checked, first, end, behind, whole, endUnit } = ground;
  let from = first;
  for (const [each, { size = 1n }] of checked.parts.entries()) {
    from = roundUp(roundUp(from, startGrain(ground, each, roundUp(size, endUnit)).start) + roundUp(size, endUnit), endUnit);
  }
  const needed = roundUp(from + behind, MEBIBYTE);
  const usable = end > first ? `bytes ${first} to ${end - 1n} are usable between the table and its backup` : 'nothing is left between the table and its backup';
  const { size } = checked.parts[index];
  const what = size === undefined ? `parts[${index}], which takes what is left, gets nothing` : `parts[${index}] of ${size} bytes has no room`;
  return refused(
    'size',
    checked.size,
    `${what}: ${usable}, and starts are on ${roundSize(whole)} (smaller partitions on what they require)`,
    `make the disk at least ${needed} bytes, or its partitions smaller`,
  );
}

function smallGrain(number: number, start: bigint, size: bigint, grain: bigint, whole: bigint, sectorSize: number): Finding {
  return {
    severity: 'info',
    code: 'I_SMALL_GRAIN',
    layer: 'partition',
    partition: number,
    value: start,
    modulus: whole,
    remainder: start % whole,
    message: `${size < whole ? `smaller (${roundSize(size)}) than` : 'the disk has no room for it on'} the grain of ${roundSize(whole)}, so it starts on ${roundSize(grain)}: ${byteAndLba(start, sectorSize)}, ${start} % ${grain} = 0`,
    fix: '',
  };
}

function rounded(number: number, asked: bigint, size: bigint, unit: bigint): Finding {
  return {
    severity: 'info',
    code: 'I_SIZE_ROUNDED',
    layer: 'partition',
    partition: number,
    value: asked,
    modulus: unit,
    remainder: asked % unit,
    message: `${asked} bytes asked for, ${size} planned, so that it ends on a multiple of ${roundSize(unit)}`,
    fix: '',
  };
}

function tierNotes(number: number, { kind, dataOffset, unit, tiers, opaque }: PlannedVolume): Finding[] {
  return Object.entries(tiers).flatMap(([page, { absolute }]): Finding[] => {
    if (absolute === 'guaranteed' || opaque || kind === 'swap' || kind === 'lvm2') return [];
    const value = dataOffset;
    const modulus = BigInt(absolute === 'per-file' ? unit : page);
    return [
      {
        severity: 'info',
        code: absolute === 'per-file' ? 'I_PERFILE' : 'I_HEAP',
        layer: 'volume',
        partition: number,
        value,
        modulus,
        remainder: value % modulus,
        message:
          absolute === 'per-file'
            ? `${kind} has units of ${unit} bytes, ${unit} % ${page} = ${unit % Number(page)}: only files that happen to lie on pages of ${page} can be mapped`
            : `${kind} has its data at byte ${dataOffset}, % ${page} = ${dataOffset % BigInt(page)}: no file can be mapped with pages of ${page}`,
        fix: absolute === 'per-file' ? `give cluster=${page} where the file system and the kernel allow it` : `give boundary=${page}`,
      },
    ];
  });
}

function cardNotes(card: SdCardProfile, partitions: PlanPartition[]): Finding[] {
  const notes: Finding[] = [];
  const add = (code: string, partition: number | null, message: string, fix: string) =>
    notes.push({ severity: 'info', code, layer: partition === null ? 'table' : 'volume', partition, message, fix });
  add(
    'I_SD_TABLE',
    null,
    'the SD specification asks for a master boot record with one partition, and this is a GPT: computers read it, cameras and players may not',
    "format cards for such devices with the SD Association's formatter",
  );
  if (!card.exact)
    add('I_SD_CAPACITY', null, `the table of boundary units ends at 2 TiB; the unit of its last row, ${roundSize(card.boundaryUnit)}, is used`, '');
  for (const { number, volume } of partitions) {
    if (volume !== undefined && volume.kind !== card.fs)
      add(
        'I_SD_FS',
        number,
        `${card.family} cards of this capacity hold ${card.fs} by the specification, this one ${volume.kind}`,
        `fs=${card.fs} where a camera or player has to read it`,
      );
  }
  return notes;
}

/** RFC 9562 version 5: SHA-1 of the disk's GUID as name space and the partition's number as the name. */
function derivedUuid(diskId: string, number: number): string {
  const hash = createHash('sha1')
    .update(Buffer.from(diskId.replaceAll('-', ''), 'hex'))
    .update(`partition ${number}`)
    .digest();
  hash[6] = (hash[6] & 0x0f) | 0x50;
  hash[8] = (hash[8] & 0x3f) | 0x80;
  const hex = hash.toString('hex');
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20, 32)].join('-');
}
