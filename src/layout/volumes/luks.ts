/**
 * LUKS 1 and 2: where the encrypted payload begins. What is in it cannot be seen, so none of it can be mapped.
 *
 *   LUKS1   [ header | key slots … | payload … ]
 *   LUKS2   [ header + JSON | copy of both | key slots … | payload: segments["0"].offset ]
 *
 * Guarantees: of LUKS2 the copy is read where the first is torn (the newer where both are whole), and named if it is the only one. JSON is read up to
 * `HEADER_READ_MAX` per copy; the checksum of a header that is longer is said to be unchecked.
 * Leaves to others: whether the sector size divides the partition's end (rule R4); `details.deviceSize` says where it does not.
 */
import { createHash } from 'node:crypto';
import { beyond, both, holds, isPowerOfTwo, type Recognised, text, type VolumeView } from './view.js';

const MAGIC = 'LUKS\xba\xbe';
const MAGIC_COPY = 'SKUL\xba\xbe';
const SECTOR = 512;
const BINARY_BYTES = 4096;
const HEADER_READ_MAX = 64 << 10;
/** Where a copy may lie: the sizes that a header may have. */
const HEADER_SIZES = [16, 32, 64, 128, 256, 512, 1024, 2048, 4096].map((kibibytes) => kibibytes << 10);
const SUM_AT = 448;
const SUM_BYTES = 64;
const SUMS = new Set(['sha1', 'sha224', 'sha256', 'sha384', 'sha512']);

export function recogniseLuks(view: VolumeView): Recognised | null {
  const data = view.data(0n, BINARY_BYTES);
  if (data === undefined || !holds(data, 0, MAGIC)) return null;
  return data.getUint16(6) === 1 ? recogniseLuks1(view, data) : recogniseLuks2(view, readHeader(view, 0n, MAGIC));
}

/** A volume of which only the second header is left. It may lie at nine places, so this is for where nothing else is found. */
export function recogniseLuksCopy(view: VolumeView): Recognised | null {
  return recogniseLuks2(view, undefined);
}

function recogniseLuks1(view: VolumeView, data: DataView): Recognised {
  const dataOffset = BigInt(data.getUint32(104)) * BigInt(SECTOR);
  return {
    kind: 'luks1',
    dataOffset,
    unit: SECTOR,
    opaque: true,
    uuid: text(data, 168, 40),
    damaged: dataOffset > view.size ? `its payload begins at byte ${dataOffset}, beyond the end` : undefined,
    details: { cipher: [text(data, 8, 32), text(data, 40, 32)].join('-'), sectorSize: SECTOR, keyBytes: data.getUint32(108) },
  };
}

interface Header {
  at: bigint;
  size: number;
  sequence: bigint;
  label?: string;
  uuid?: string;
  segment?: Segment;
  damaged?: string;
  unchecked: boolean;
}

interface Segment {
  type: string;
  offset: bigint;
  /** Undefined where it reaches to the end. */
  size?: bigint;
  sectorSize: number;
  encryption: string;
}

function recogniseLuks2(view: VolumeView, primary: Header | undefined): Recognised | null {
  const copy = primary === undefined ? findCopy(view) : readHeader(view, BigInt(primary.size), MAGIC_COPY);
  const header = chosen(primary, copy);
  if (header === undefined) return null;
  const { segment } = header;
  const dataOffset = segment?.offset ?? 0n;
  const unit = segment?.sectorSize ?? SECTOR;
  const payload = segment?.size ?? view.size - dataOffset;
  const remainder = payload % BigInt(unit);
  const states: string[] = [];
  if (primary === undefined) states.push('first header missing');
  else if (primary.damaged !== undefined) states.push(`first header: ${primary.damaged}`);
  if (copy === undefined) states.push('second header missing');
  else if (copy.damaged !== undefined) states.push(`second header: ${copy.damaged}`);
  return {
    kind: 'luks2',
    size: segment?.size === undefined ? undefined : dataOffset + segment.size,
    dataOffset,
    unit,
    opaque: true,
    label: header.label,
    uuid: header.uuid,
    damaged: both(
      header.damaged,
      segment === undefined && header.damaged === undefined ? 'no data segment in its JSON' : undefined,
      segment?.size === undefined ? undefined : beyond(view, dataOffset + segment.size),
      dataOffset > view.size ? `its payload begins at byte ${dataOffset}, beyond the end` : undefined,
    ),
    details: {
      headerSize: header.size,
      sequence: header.sequence,
      ...(segment === undefined ? {} : { cipher: segment.encryption, segment: segment.type, sectorSize: unit }),
      ...(states.length === 0 ? {} : { headers: states.join('; ') }),
      ...(header.unchecked ? { checksum: `not checked: the header has ${header.size} bytes` } : {}),
      ...(remainder > 0n ? { deviceSize: `payload of ${payload} bytes % ${unit}-byte sectors = ${remainder}: cryptsetup refuses to open it` } : {}),
    },
  };
}

/** The newer of those that are whole; else the first. */
function chosen(primary: Header | undefined, copy: Header | undefined): Header | undefined {
  if (primary === undefined || copy === undefined) return primary ?? copy;
  if (primary.damaged !== undefined) return copy.damaged === undefined ? copy : primary;
  return copy.damaged === undefined && copy.sequence > primary.sequence ? copy : primary;
}

function findCopy(view: VolumeView): Header | undefined {
  for (const size of HEADER_SIZES) {
    const magic = view.data(BigInt(size), MAGIC_COPY.length);
    if (magic === undefined) return undefined;
    const header = holds(magic, 0, MAGIC_COPY) ? readHeader(view, BigInt(size), MAGIC_COPY) : undefined;
    if (header !== undefined) return header;
  }
  return undefined;
}

function readHeader(view: VolumeView, at: bigint, magic: string): Header | undefined {
  const data = view.data(at, BINARY_BYTES);
  if (data === undefined || !holds(data, 0, magic) || data.getUint16(6) !== 2) return undefined;
  const bytes = data.getBigUint64(8);
  if (data.getBigUint64(256) !== at || !HEADER_SIZES.includes(Number(bytes))) return undefined;
  const size = Number(bytes);
  const all = view.bytes(at, Math.min(size, HEADER_READ_MAX));
  const unchecked = size > HEADER_READ_MAX;
  const header = { at, size, sequence: data.getBigUint64(16), label: text(data, 24, 48), uuid: text(data, 168, 40), unchecked };
  if (all === undefined) return { ...header, damaged: 'not all there' };
  const damaged = unchecked ? undefined : checksum(data, all);
  return { ...header, damaged, segment: segmentOf(all.subarray(BINARY_BYTES)) };
}

/** Over the header and its JSON with the field of the sum as zeros. */
function checksum(data: DataView, all: Uint8Array): string | undefined {
  const name = text(data, 72, 32)?.toLowerCase() ?? '';
  if (!SUMS.has(name)) return `checksum of unknown type '${name}'`;
  const hash = createHash(name).update(all.subarray(0, SUM_AT)).update(new Uint8Array(SUM_BYTES));
  const sum = hash.update(all.subarray(SUM_AT + SUM_BYTES)).digest();
  return sum.equals(all.subarray(SUM_AT, SUM_AT + sum.length)) ? undefined : `checksum (${name}) is wrong`;
}

/** Segment 0 of the JSON text; undefined where that is not to be had. */
function segmentOf(area: Uint8Array): Segment | undefined {
  const end = area.indexOf(0);
  const json = new TextDecoder().decode(end === -1 ? area : area.subarray(0, end));
  let segment: unknown;
  try {
    segment = member(member(JSON.parse(json), 'segments'), '0');
  } catch {
    // Not JSON.
    return undefined;
  }
  const offset = decimal(member(segment, 'offset'));
  const size = member(segment, 'size');
  const sectorSize = member(segment, 'sector_size') ?? SECTOR;
  if (offset === undefined || typeof sectorSize !== 'number' || !isPowerOfTwo(sectorSize) || sectorSize < SECTOR || sectorSize > 4096) return undefined;
  const bytes = size === 'dynamic' ? undefined : decimal(size);
  if (bytes === undefined && size !== 'dynamic') return undefined;
  return { type: word(member(segment, 'type')), offset, size: bytes, sectorSize, encryption: word(member(segment, 'encryption')) };
}

function member(value: unknown, key: string): unknown {
  return typeof value === 'object' && value !== null && Object.hasOwn(value, key) ? (value as Record<string, unknown>)[key] : undefined;
}

function decimal(value: unknown): bigint | undefined {
  return typeof value === 'string' && /^\d{1,19}$/.test(value) ? BigInt(value) : undefined;
}

function word(value: unknown): string {
  return typeof value === 'string' && /^[\w:.-]{1,64}$/.test(value) ? value : 'unknown';
}
