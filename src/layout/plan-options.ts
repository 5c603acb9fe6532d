/**
 * What `planLayout` takes, and what it means: every value checked before anything is computed from it.
 *
 * Guarantees: a misspelled name, type or file system is an error that offers the right one; what is returned has every default filled in, GUIDs in lower case, and sizes within
 * what the arithmetic of the plan can hold.
 * Leaves to others: whether it fits (`plan.ts`), whether a file system can have these clusters (`mkfs.ts`).
 */
import { invalidType, invalidValue, outOfRange } from '../errors.js';
import { checkNames } from '../option-names.js';
import { refused } from './fat-plan.js';
import { plannedFileSystems } from './mkfs.js';
import type { Topology } from './model.js';
import type { PlannedMedia, PlannedPart, PlanOptions } from './plan.js';
import { TYPE_GUIDS } from './types.js';

const KIBIBYTE = 1024;
const MEBIBYTE = 1024 * KIBIBYTE;
const GIBIBYTE = 1024 * MEBIBYTE;
/** A file's offsets are signed 64-bit numbers: no image or device is larger. */
const SIZE_MAX = (1n << 63n) - 1n;
const SECTOR_SIZES = [512, 1024, 2048, 4096];
/** Entries of the table that `gpt-writer.ts` writes. */
const PARTS_MAX = 128;
/** UTF-16 units of a name in a GPT entry (UEFI 2.10 table 5.6). */
const NAME_UNITS_MAX = 36;
/** Beyond this a boundary only costs room: no medium has units as large. */
const BOUNDARY_MAX = GIBIBYTE;
/** Pages and physical sectors up to the customary grain: larger ones would be no multiple of where every tool begins. */
const UNIT_MAX = MEBIBYTE;
const GRAIN_MAX = 1024 * GIBIBYTE;
const MEDIA: readonly PlannedMedia[] = ['disk', 'flash', 'sd'];
const GUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/;
const GUID_ZERO = '00000000-0000-0000-0000-000000000000';

const OPTION_NAMES = [
  'size',
  'sectorSize',
  'physical',
  'pages',
  'optimalIo',
  'minimumIo',
  'grain',
  'zone',
  'media',
  'diskId',
  'parts',
] as const satisfies (keyof PlanOptions)[];
const PART_NAMES = ['name', 'type', 'size', 'uuid', 'fs', 'cluster', 'boundary'] as const satisfies (keyof PlannedPart)[];

export interface CheckedPart extends Omit<PlannedPart, 'type' | 'name'> {
  name: string;
  /** GUID in lower case. */
  type: string;
}

export interface CheckedPlan {
  size: bigint;
  sectorSize: number;
  topology: Topology;
  pages: number[];
  /** 0 where none was asked for. */
  grain: number;
  media: PlannedMedia;
  diskId?: string;
  parts: CheckedPart[];
}

/** @throws ERR_INVALID_ARG_TYPE, ERR_INVALID_ARG_VALUE, ERR_OUT_OF_RANGE; ERR_SECTORWISE_PLAN for a size that is no whole number of sectors */
export function checkPlanOptions(options: PlanOptions): CheckedPlan {
  if (options === undefined) throw invalidType('options', 'of type object', options);
  const given = checkNames('options', options, OPTION_NAMES) as Partial<PlanOptions>;
  const sectorSize = given.sectorSize === undefined ? 512 : given.sectorSize;
  if (!SECTOR_SIZES.includes(sectorSize)) throw invalidValue('options.sectorSize', `must be one of: ${SECTOR_SIZES.join(', ')}`, sectorSize);
  const size = bytes('options.size', given.size);
  if (size % BigInt(sectorSize) !== 0n) {
    throw refused(
      'size',
      size,
      `${size} % ${sectorSize} = ${size % BigInt(sectorSize)}: it is no whole number of sectors`,
      `give ${size - (size % BigInt(sectorSize))} bytes`,
    );
  }
  const physical = powerOfTwo('options.physical', given.physical, sectorSize, UNIT_MAX) ?? Math.max(4096, sectorSize);
  const pages = given.pages === undefined ? [4096] : checkPages(given.pages);
  const minimumIo = integer('options.minimumIo', given.minimumIo, 0, Number.MAX_SAFE_INTEGER) ?? 0;
  const optimalIo = integer('options.optimalIo', given.optimalIo, 0, Number.MAX_SAFE_INTEGER) ?? 0;
  const zone = multiple('options.zone', given.zone, 4096);
  const media = given.media ?? 'disk';
  if (!MEDIA.includes(media)) throw invalidValue('options.media', `must be one of: ${MEDIA.map((each) => `'${each}'`).join(', ')}`, media);
  const told = [given.physical, given.minimumIo, given.optimalIo, given.zone].some((each) => each !== undefined);
  return {
    size,
    sectorSize,
    topology: { logical: sectorSize, physical, minimumIo, optimalIo, alignmentOffset: 0, zone, chunk: zone, source: told ? 'option' : 'assumed' },
    pages,
    grain: multiple('options.grain', given.grain, sectorSize),
    media,
    ...(given.diskId === undefined ? {} : { diskId: guid('options.diskId', given.diskId) }),
    parts: checkParts(given.parts, pages, sectorSize),
  };
}

function checkParts(parts: unknown, pages: number[], sectorSize: number): CheckedPart[] {
  if (!Array.isArray(parts)) throw invalidType('options.parts', 'an instance of Array', parts);
  if (parts.length < 1 || parts.length > PARTS_MAX) throw outOfRange('options.parts.length', `>= 1 and <= ${PARTS_MAX}`, parts.length);
  const checked = parts.map((part, index) => checkPart(`options.parts[${index}]`, part, pages, sectorSize));
  const open = checked.flatMap((part, index) => (part.size === undefined ? [index] : []));
  if (open.length > 1) {
    throw refused(
      `parts[${open[1]}].size`,
      'absent',
      `parts[${open[0]}] takes all that is left already, and only one partition can`,
      'give one of them a size',
    );
  }
  const seen = new Map<string, number>();
  for (const [index, { uuid }] of checked.entries()) {
    if (uuid === undefined) continue;
    const other = seen.get(uuid);
    if (other !== undefined) throw refused(`parts[${index}].uuid`, uuid, `parts[${other}] has the same`, 'give each partition one of its own, or none');
    seen.set(uuid, index);
  }
  return checked;
}

function checkPart(name: string, value: unknown, pages: number[], sectorSize: number): CheckedPart {
  if (value === undefined) throw invalidType(name, 'of type object', value);
  const part = checkNames(name, value, PART_NAMES) as Partial<PlannedPart>;
  const label = part.name ?? '';
  if (typeof label !== 'string') throw invalidType(`${name}.name`, 'of type string', label);
  if (label.length > NAME_UNITS_MAX) throw outOfRange(`${name}.name.length`, `<= ${NAME_UNITS_MAX} UTF-16 units`, label.length);
  if (/[\p{Cc}\p{Cs}]/u.test(label)) throw invalidValue(`${name}.name`, 'must have no control characters and no unpaired surrogates', label);
  if (part.fs !== undefined && !plannedFileSystems.includes(part.fs)) {
    throw invalidValue(`${name}.fs`, `must be one of: ${plannedFileSystems.map((each) => `'${each}'`).join(', ')}`, part.fs);
  }
  return {
    name: label,
    type: partitionType(`${name}.type`, part.type),
    ...(part.size === undefined ? {} : { size: bytes(`${name}.size`, part.size) }),
    ...(part.uuid === undefined ? {} : { uuid: guid(`${name}.uuid`, part.uuid) }),
    ...(part.fs === undefined ? {} : { fs: part.fs }),
    ...(part.cluster === undefined ? {} : { cluster: powerOfTwo(`${name}.cluster`, part.cluster, 512, BOUNDARY_MAX) }),
    ...(part.boundary === undefined ? {} : { boundary: powerOfTwo(`${name}.boundary`, part.boundary, Math.max(sectorSize, ...pages), BOUNDARY_MAX) }),
  };
}

function partitionType(name: string, value: unknown): string {
  if (typeof value !== 'string') throw invalidType(name, 'of type string', value);
  const lower = value.toLowerCase();
  if (Object.hasOwn(TYPE_GUIDS, lower)) return TYPE_GUIDS[lower as keyof typeof TYPE_GUIDS];
  if (GUID.test(lower) && lower !== GUID_ZERO) return lower;
  throw invalidValue(name, `must be a GUID or one of: ${Object.keys(TYPE_GUIDS).join(', ')}`, value);
}

function guid(name: string, value: unknown): string {
  if (typeof value !== 'string') throw invalidType(name, 'of type string', value);
  const lower = value.toLowerCase();
  if (!GUID.test(lower) || lower === GUID_ZERO) throw invalidValue(name, 'must be a GUID other than zero, as 01234567-89ab-cdef-0123-456789abcdef', value);
  return lower;
}

function checkPages(pages: unknown): number[] {
  if (!Array.isArray(pages)) throw invalidType('options.pages', 'an instance of Array', pages);
  if (pages.length < 1 || pages.length > 8) throw outOfRange('options.pages.length', '>= 1 and <= 8', pages.length);
  return pages.map((page, index) => {
    if (page === undefined) throw invalidType(`options.pages[${index}]`, 'of type number', page);
    return powerOfTwo(`options.pages[${index}]`, page, 512, UNIT_MAX)!;
  });
}

function bytes(name: string, value: unknown): bigint {
  if (typeof value !== 'bigint') throw invalidType(name, 'of type bigint', value);
  if (value < 1n || value > SIZE_MAX) throw outOfRange(name, `>= 1n and <= ${SIZE_MAX}n`, value);
  return value;
}

function integer(name: string, value: unknown, least: number, most: number): number | undefined {
  if (value === undefined) return undefined;
  if (typeof value !== 'number') throw invalidType(name, 'of type number', value);
  if (!Number.isInteger(value) || value < least || value > most) throw outOfRange(name, `an integer >= ${least} && <= ${most}`, value);
  return value;
}

function powerOfTwo(name: string, value: unknown, least: number, most: number): number | undefined {
  const checked = integer(name, value, least, most);
  if (checked !== undefined && !Number.isInteger(Math.log2(checked))) throw outOfRange(name, `a power of two >= ${least} && <= ${most}`, value);
  return checked;
}

/** 0 where it is absent. */
function multiple(name: string, value: unknown, unit: number): number {
  const checked = integer(name, value, 0, GRAIN_MAX) ?? 0;
  if (checked % unit !== 0) throw outOfRange(name, `a multiple of ${unit}`, value);
  return checked;
}
