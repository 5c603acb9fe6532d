/**
 * A physical volume of LVM2: the label in one of the first four sectors, the header behind it, and the text that says which extents make which logical volume.
 *
 *   [ · | label, header | · · | metadata, a ring … | pe_start: extent 0 | extent 1 | … ]
 *
 * Guarantees: the label's CRC and the text's are checked; the text is read up to `TEXT_MAX`. A visible logical volume whose segments are linear and follow
 * each other on this device is told as a run; of others `details.logicalVolumes` says why they were not followed.
 */
import { crc32 } from 'node:zlib';
import { both, type Content, hex, holds, isPowerOfTwo, printable, type Recognised, VIEW_READ_MAX, type VolumeView } from './view.js';

const SECTOR = 512;
const LABEL_SECTORS = 4;
const ID_BYTES = 32;
/** Start of every checksum of LVM (lib/misc/crc.h). */
const CRC_START = 0xf597a6cf;
const METADATA_MAGIC = ' LVM2 x[5A%r0N*>';
/** Header of a metadata area; the ring of text lies behind it. */
const AREA_HEADER = 512;
const AREAS_MAX = 16;
const TEXT_MAX = VIEW_READ_MAX >> 1;
const NESTING_MAX = 16;
/** Logical volumes that are named in details. */
const NAMED_MAX = 64;
const IGNORED = 1;
/** An extent is a power of two of sectors, or (since lvm2) any multiple of 128 KiB; more than this is nonsense. */
const EXTENT_MAX = 2 ** 36;
/** What LVM takes where the text does not say. */
const EXTENT_DEFAULT = 4 << 20;

export function recogniseLvm(view: VolumeView): Recognised | null {
  for (let sector = 0; sector < LABEL_SECTORS; sector++) {
    const at = BigInt(sector * SECTOR);
    const data = view.data(at, SECTOR);
    if (data === undefined) return null;
    if (!holds(data, 0, 'LABELONE') || !holds(data, 24, 'LVM2 001') || data.getBigUint64(8, true) !== BigInt(sector)) continue;
    const found = recognisePv(view, data, sector);
    if (found !== null) return found;
  }
  return null;
}

function recognisePv(view: VolumeView, data: DataView, sector: number): Recognised | null {
  const at = data.getUint32(20, true);
  if (at < 32 || at + ID_BYTES + 8 > SECTOR) return null;
  const header = readHeader(data, at);
  const metadata = readMetadata(view, header.areas);
  const pv = metadata.tree === undefined ? undefined : physicalVolume(metadata.tree, header.id);
  const dataOffset = pv?.start ?? header.data[0]?.offset ?? 0n;
  const unit = pv?.extentBytes ?? EXTENT_DEFAULT;
  const { contents, told } = pv === undefined ? { contents: [], told: '' } : logicalVolumes(pv);
  const sum = checksum(new Uint8Array(data.buffer, data.byteOffset + 20, SECTOR - 20));
  const stored = data.getUint32(16, true);
  return {
    kind: 'lvm2',
    size: header.size === 0n ? undefined : header.size,
    dataOffset,
    unit,
    uuid: dashed(header.id),
    label: pv?.group,
    damaged: both(
      stored === sum ? undefined : `label checksum ${hex(stored)} where ${hex(sum)} belongs`,
      metadata.damaged,
      header.size > view.size ? `claims ${header.size} bytes, ${header.size - view.size} more than there are` : undefined,
    ),
    contents,
    details: {
      labelSector: sector,
      peStart: dataOffset,
      extentSize: unit,
      ...(pv === undefined ? { metadata: metadata.why ?? 'does not name this device' } : { extents: pv.extents, volumeGroup: pv.group }),
      ...(told === '' ? {} : { logicalVolumes: told }),
    },
  };
}

interface Area {
  offset: bigint;
  size: bigint;
}

/** Two lists of areas, each ended by one of zeros: of data, of metadata. */
function readHeader(data: DataView, at: number): { id: string; size: bigint; data: Area[]; areas: Area[] } {
  const id = printable(String.fromCharCode(...new Uint8Array(data.buffer, data.byteOffset + at, ID_BYTES))) ?? '';
  const lists: Area[][] = [[], []];
  let list = 0;
  for (let next = at + ID_BYTES + 8, n = 0; list < 2 && n < AREAS_MAX && next + 16 <= SECTOR; next += 16, n++) {
    const area = { offset: data.getBigUint64(next, true), size: data.getBigUint64(next + 8, true) };
    if (area.offset === 0n) list++;
    else lists[list].push(area);
  }
  return { id, size: data.getBigUint64(at + ID_BYTES, true), data: lists[0], areas: lists[1] };
}

interface Metadata {
  tree?: Section;
  /** Why there is none. */
  why?: string;
  damaged?: string;
}

/** The newest text of the first area that has a whole one. */
function readMetadata(view: VolumeView, areas: Area[]): Metadata {
  let last: Metadata = { why: areas.length === 0 ? 'kept on other devices' : 'none yet' };
  for (const area of areas) {
    const found = readArea(view, area);
    if (found.tree !== undefined) return found;
    if (found.why !== undefined) last = found;
  }
  return last;
}

function readArea(view: VolumeView, area: Area): Metadata {
  const header = view.data(area.offset, AREA_HEADER);
  if (header === undefined) return { why: `area at byte ${area.offset} not there` };
  if (!holds(header, 4, METADATA_MAGIC)) return { why: `no area at byte ${area.offset}`, damaged: `no metadata area at byte ${area.offset}` };
  const stored = header.getUint32(0, true);
  const sum = checksum(new Uint8Array(header.buffer, header.byteOffset + 4, AREA_HEADER - 4));
  if (stored !== sum) return { why: 'damaged', damaged: `metadata area checksum ${hex(stored)} where ${hex(sum)} belongs` };
  const size = header.getBigUint64(32, true);
  const offset = header.getBigUint64(40, true);
  const length = header.getBigUint64(48, true);
  if (offset === 0n || length === 0n || (header.getUint32(60, true) & IGNORED) !== 0) return {};
  if (length > BigInt(TEXT_MAX)) return { why: `${length} bytes, more than are read` };
  if (offset < BigInt(AREA_HEADER) || offset >= size || length > size - BigInt(AREA_HEADER))
    return { why: 'damaged', damaged: 'metadata reaches beyond its area' };
  const bytes = readRing(view, area.offset, size, offset, Number(length));
  if (bytes === undefined) return { why: 'not all there' };
  if (checksum(bytes) !== header.getUint32(56, true)) return { why: 'damaged', damaged: 'metadata checksum is wrong' };
  const tree = parse(new TextDecoder().decode(bytes));
  return tree === undefined ? { why: 'damaged', damaged: 'metadata is no text of LVM' } : { tree };
}

/** The text goes on behind the area's header where it reaches the end. */
function readRing(view: VolumeView, start: bigint, size: bigint, offset: bigint, length: number): Uint8Array | undefined {
  const straight = size - offset < BigInt(length) ? Number(size - offset) : length;
  const first = view.bytes(start + offset, straight);
  if (first === undefined || straight === length) return first;
  const rest = view.bytes(start + BigInt(AREA_HEADER), length - straight);
  return rest === undefined ? undefined : Buffer.concat([first, rest]);
}

/** CRC-32 begun with a number of LVM's own, not inverted at either end. */
function checksum(bytes: Uint8Array): number {
  return ~crc32(bytes, ~CRC_START >>> 0) >>> 0;
}

interface PhysicalVolume {
  name: string;
  group: string;
  start: bigint;
  extents: bigint;
  extentBytes: number;
  logical: Section;
}

function physicalVolume(tree: Section, id: string): PhysicalVolume | undefined {
  for (const [group, value] of tree) {
    if (!(value instanceof Map)) continue;
    const devices = value.get('physical_volumes');
    const sectors = value.get('extent_size');
    if (!(devices instanceof Map) || typeof sectors !== 'bigint') continue;
    const extentBytes = Number(sectors) * SECTOR;
    if (extentBytes < SECTOR || extentBytes > EXTENT_MAX || !(isPowerOfTwo(extentBytes) || extentBytes % (128 << 10) === 0)) continue;
    const logical = value.get('logical_volumes');
    for (const [name, device] of devices) {
      if (!(device instanceof Map) || dashless(device.get('id')) !== id) continue;
      const start = device.get('pe_start');
      const extents = device.get('pe_count');
      if (typeof start !== 'bigint' || typeof extents !== 'bigint') return undefined;
      return {
        name,
        group: printable(group) ?? '',
        start: start * BigInt(SECTOR),
        extents,
        extentBytes,
        logical: logical instanceof Map ? logical : new Map(),
      };
    }
  }
  return undefined;
}

function logicalVolumes(pv: PhysicalVolume): { contents: Content[]; told: string } {
  const contents: Content[] = [];
  const told: string[] = [];
  for (const [key, volume] of pv.logical) {
    const name = printable(key) ?? '';
    if (!(volume instanceof Map)) continue;
    const status = volume.get('status');
    if (!Array.isArray(status) || !status.includes('VISIBLE')) continue;
    const run = runOf(pv, volume);
    if (typeof run !== 'string') contents.push({ ...run, name });
    if (told.length < NAMED_MAX) told.push(typeof run === 'string' ? `${name}: not followed, ${run}` : `${name}: ${run.size} bytes at ${run.offset}`);
    else if (told.length === NAMED_MAX) told.push('…');
  }
  return { contents, told: told.join('; ') };
}

/** Where the logical volume lies on this device in one piece; in words why it does not. */
function runOf(pv: PhysicalVolume, volume: Section): { offset: bigint; size: bigint } | string {
  const segments: { start: bigint; count: bigint; section: Section }[] = [];
  for (const value of volume.values()) {
    if (!(value instanceof Map)) continue;
    const start = value.get('start_extent');
    const count = value.get('extent_count');
    if (typeof start === 'bigint' && typeof count === 'bigint' && count > 0n) segments.push({ start, count, section: value });
  }
  if (segments.length === 0) return 'no segments';
  segments.sort((a, b) => (a.start < b.start ? -1 : a.start > b.start ? 1 : 0));
  let first = 0n;
  let extents = 0n;
  for (const { start, count, section } of segments) {
    const type = section.get('type');
    if (type !== 'striped' && type !== 'linear') return `type ${typeof type === 'string' ? printable(type) : 'unknown'}`;
    const stripes = section.get('stripes');
    if (!Array.isArray(stripes) || stripes.length !== 2) return 'striped';
    const [device, extent] = stripes;
    if (device !== pv.name) return extents === 0n ? 'on another device' : 'goes on on another device';
    if (typeof extent !== 'bigint' || start !== extents) return 'its segments do not follow each other';
    if (extents === 0n) first = extent;
    else if (extent !== first + extents) return 'in pieces';
    extents += count;
  }
  if (first + extents > pv.extents) return 'reaches beyond the device';
  const bytes = BigInt(pv.extentBytes);
  return { offset: pv.start + first * bytes, size: extents * bytes };
}

type Value = bigint | string | (bigint | string)[] | Section;
type Section = Map<string, Value>;

/** LVM's text: sections of `key = value`, where a value is a number, a string or a list of these. Undefined if it is none. */
function parse(text: string): Section | undefined {
  const tokens = new Tokens(text);
  const root: Section = new Map();
  const open: Section[] = [root];
  for (let token = tokens.next(); token !== undefined; token = tokens.next()) {
    if (token.kind === 'end') return open.length === 1 ? root : undefined;
    if (token.kind === 'mark' && token.text === '}') {
      if (open.length === 1) return undefined;
      open.pop();
      continue;
    }
    if (token.kind !== 'word') return undefined;
    const mark = tokens.next();
    if (mark?.kind !== 'mark') return undefined;
    if (mark.text === '{') {
      if (open.length >= NESTING_MAX) return undefined;
      const inner: Section = new Map();
      open[open.length - 1].set(token.text, inner);
      open.push(inner);
    } else {
      const value = mark.text === '=' ? parseValue(tokens) : undefined;
      if (value === undefined) return undefined;
      open[open.length - 1].set(token.text, value);
    }
  }
  return undefined;
}

function parseValue(tokens: Tokens): Value | undefined {
  const token = tokens.next();
  if (token?.kind !== 'mark') return scalar(token);
  if (token.text !== '[') return undefined;
  const list: (bigint | string)[] = [];
  for (let item = tokens.next(); item !== undefined && item.kind !== 'end'; item = tokens.next()) {
    if (item.kind === 'mark' && item.text === ']') return list;
    if (item.kind === 'mark' && item.text === ',') continue;
    const value = scalar(item);
    if (value === undefined) return undefined;
    list.push(value);
  }
  return undefined;
}

function scalar(token: Token | undefined): bigint | string | undefined {
  if (token === undefined || token.kind === 'end' || token.kind === 'mark') return undefined;
  // No number of a layout has more digits; longer ones (and fractions) stay words.
  return token.kind === 'word' && /^\d{1,19}$/.test(token.text) ? BigInt(token.text) : token.text;
}

interface Token {
  kind: 'string' | 'mark' | 'word' | 'end';
  text: string;
}

const MARKS = '{}[]=,';

/** The words of the text, its strings, and { } [ ] = , one after the other. By hand: each character is looked at once, whatever they are. */
class Tokens {
  readonly #text: string;
  #at = 0;

  constructor(text: string) {
    this.#text = text;
  }

  /** Undefined where a string does not end. */
  next(): Token | undefined {
    const text = this.#text;
    this.#skipBlanks();
    if (this.#at >= text.length) return { kind: 'end', text: '' };
    const first = text[this.#at];
    if (MARKS.includes(first)) {
      this.#at++;
      return { kind: 'mark', text: first };
    }
    if (first === '"') return this.#string();
    const start = this.#at;
    while (this.#at < text.length && text[this.#at] > ' ' && text[this.#at] !== '"' && text[this.#at] !== '#' && !MARKS.includes(text[this.#at])) this.#at++;
    return { kind: 'word', text: text.slice(start, this.#at) };
  }

  #skipBlanks(): void {
    const text = this.#text;
    while (this.#at < text.length && (text[this.#at] <= ' ' || text[this.#at] === '#')) {
      if (text[this.#at] === '#') {
        const end = text.indexOf('\n', this.#at);
        this.#at = end === -1 ? text.length : end;
      } else {
        this.#at++;
      }
    }
  }

  #string(): Token | undefined {
    const start = this.#at + 1;
    for (let at = start; at < this.#text.length; at++) {
      if (this.#text[at] === '\\') at++;
      else if (this.#text[at] === '"') {
        this.#at = at + 1;
        return { kind: 'string', text: this.#text.slice(start, at) };
      }
    }
    return undefined;
  }
}

/** As the label holds it: 32 letters. The text has dashes in it. */
function dashless(value: Value | undefined): string | undefined {
  return typeof value === 'string' ? value.replaceAll('-', '') : undefined;
}

function dashed(id: string): string | undefined {
  return /^[A-Za-z0-9]{32}$/.test(id) ? id.replace(/^(.{6})(.{4})(.{4})(.{4})(.{4})(.{4})(.{6})$/, '$1-$2-$3-$4-$5-$6-$7') : undefined;
}
