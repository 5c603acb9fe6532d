/**
 * Cells and pages: a key with its value as bytes, and many of them in order, as they lie in memory, in the log and on the device.
 *
 *   cell   | key length u16 | value length u16 | key | value |              value length 0xffff: the key was removed
 *   page   | level u8 | 0 | count u16 | place u16 … | cell … | zeros |
 *   child  a cell of a branch: its value is | page u32 | CRC-32 of the page u32 |
 *
 * A page's checksum is in the pointer to it, so that an old page in the right place is found out too, not only a torn one.
 */
export const PAGE_BYTES = 4096;
export const KEY_BYTES_MAX = 255;
/** Three of the largest cells fit a page. */
export const VALUE_BYTES_MAX = 1024;
const CELL_HEADER_BYTES = 4;
const PAGE_HEADER_BYTES = 4;
const SLOT_BYTES = 2;
const REMOVED = 0xffff;
/** What cells and their slots may take of a page. */
export const ROOM_BYTES = PAGE_BYTES - PAGE_HEADER_BYTES;

/** Where a page is, and what it has to be. */
export interface Pointer {
  readonly page: number;
  readonly sum: number;
}

/** A key and its value in place: in a page, a record of the log, or bytes of its own. Views are made when they are asked for. */
export class Cell {
  readonly bytes: Uint8Array;
  readonly at: number;

  constructor(bytes: Uint8Array, at = 0) {
    this.bytes = bytes;
    this.at = at;
  }

  get key(): Uint8Array {
    return this.bytes.subarray(this.at + CELL_HEADER_BYTES, valueAt(this.bytes, this.at));
  }

  get text(): string {
    return textOf(this.bytes, this.at + CELL_HEADER_BYTES, valueAt(this.bytes, this.at));
  }

  /** Undefined where the key was removed. */
  get value(): Uint8Array | undefined {
    return u16(this.bytes, this.at + 2) === REMOVED ? undefined : this.bytes.subarray(valueAt(this.bytes, this.at), this.at + this.size);
  }

  /** Bytes of the cell. */
  get size(): number {
    const length = u16(this.bytes, this.at + 2);
    return CELL_HEADER_BYTES + u16(this.bytes, this.at) + (length === REMOVED ? 0 : length);
  }

  /** Bytes that it takes in a page. */
  get room(): number {
    return this.size + SLOT_BYTES;
  }
}

/** A key as a string of its bytes, which compares as they do. */
export function textOf(bytes: Uint8Array, start = 0, end = bytes.length): string {
  return (Buffer.isBuffer(bytes) ? bytes : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length)).toString('latin1', start, end);
}

function valueAt(bytes: Uint8Array, cell: number): number {
  return cell + CELL_HEADER_BYTES + u16(bytes, cell);
}

function u16(bytes: Uint8Array, at: number): number {
  return bytes[at] | (bytes[at + 1] << 8);
}

function u32(bytes: Uint8Array, at: number): number {
  return (u16(bytes, at) | (u16(bytes, at + 2) << 16)) >>> 0;
}

export function encodeCell(key: Uint8Array, value: Uint8Array | undefined): Cell {
  const length = value?.length ?? 0;
  if (key.length > KEY_BYTES_MAX || length > VALUE_BYTES_MAX)
    throw new RangeError(`a key has at most ${KEY_BYTES_MAX} bytes and a value ${VALUE_BYTES_MAX}, not ${key.length} and ${length}`);
  const bytes = Buffer.allocUnsafe(CELL_HEADER_BYTES + key.length + length);
  bytes.writeUInt16LE(key.length, 0);
  bytes.writeUInt16LE(value?.length ?? REMOVED, 2);
  bytes.set(key, CELL_HEADER_BYTES);
  if (value !== undefined) bytes.set(value, CELL_HEADER_BYTES + key.length);
  return new Cell(bytes);
}

export function encodeChild(key: Uint8Array, { page, sum }: Pointer): Cell {
  return encodeCell(key, new Uint8Array(Uint32Array.of(page, sum).buffer));
}

/** Cells in ascending order, all of which fit. */
export function encodePage(level: number, cells: readonly Cell[]): Uint8Array {
  const page = Buffer.alloc(PAGE_BYTES);
  page[0] = level;
  page.writeUInt16LE(cells.length, 2);
  let at = PAGE_HEADER_BYTES + cells.length * SLOT_BYTES;
  for (const [index, { bytes, at: from, size }] of cells.entries()) {
    page.writeUInt16LE(at, PAGE_HEADER_BYTES + index * SLOT_BYTES);
    page.set(bytes.subarray(from, from + size), at);
    at += size;
  }
  return page;
}

/** Where the cell of an index begins. */
function placeOf(page: Uint8Array, index: number): number {
  return u16(page, PAGE_HEADER_BYTES + index * SLOT_BYTES);
}

export function cellsOf(page: Uint8Array): Cell[] {
  return Array.from({ length: u16(page, 2) }, (_, index) => new Cell(page, placeOf(page, index)));
}

/** The index of a key, or, as its complement, where it would be. Allocates nothing: it runs once for each level of each get. */
export function find(page: Uint8Array, key: Uint8Array): number {
  let low = 0;
  let high = u16(page, 2);
  while (low < high) {
    const middle = (low + high) >>> 1;
    const cell = placeOf(page, middle);
    const length = u16(page, cell);
    const past = Math.min(length, key.length);
    let i = 0;
    while (i < past && key[i] === page[cell + CELL_HEADER_BYTES + i]) i++;
    const order = i < past ? key[i] - page[cell + CELL_HEADER_BYTES + i] : key.length - length;
    if (order === 0) return middle;
    if (order < 0) high = middle;
    else low = middle + 1;
  }
  return ~low;
}

/** A copy of the value at an index. */
export function valueCopy(page: Uint8Array, index: number): Uint8Array {
  const cell = placeOf(page, index);
  const copy = Buffer.allocUnsafe(u16(page, cell + 2));
  copy.set(page.subarray(valueAt(page, cell), valueAt(page, cell) + copy.length));
  return copy;
}

/** How many of a page's keys are below a key. */
export function below(page: Uint8Array, key: Uint8Array): number {
  const index = find(page, key);
  return index < 0 ? ~index : index;
}

/** The child of a branch that a key belongs to: the last one whose key is not above it. */
export function childIndex(branch: Uint8Array, key: Uint8Array): number {
  const index = find(branch, key);
  return index < 0 ? Math.max(0, ~index - 1) : index;
}

export function childAt(branch: Uint8Array, index: number): Pointer {
  const at = valueAt(branch, placeOf(branch, index));
  return { page: u32(branch, at), sum: u32(branch, at + 4) };
}

export function pointerOf({ value }: Cell): Pointer {
  return { page: u32(value!, 0), sum: u32(value!, 4) };
}

/** Two ascending lists as one: of the same key the change counts, and what it removes is left out. */
export function overlay(cells: readonly Cell[], changes: readonly Cell[]): Cell[] {
  const merged: Cell[] = [];
  let next = 0;
  for (const cell of cells) {
    let order = -1;
    for (const { key } = cell; next < changes.length; next++) {
      order = Buffer.compare(changes[next].key, key);
      if (order >= 0) break;
      merged.push(changes[next]);
    }
    if (next === changes.length || order !== 0) merged.push(cell);
  }
  return merged.concat(changes.slice(next)).filter(({ value }) => value !== undefined);
}
