/**
 * Cells and pages: a key with its value as bytes, and many of them in order, as they lie in memory, in the log and on the device.
 *
 *   cell   | key length u16 | value length u32 | key | value |              value length 0xffffffff: the key was removed
 *   page   | level u8 | 0 | count u16 | prefix u16 | 0 0 | head u32 … | place u16 … | cell … | zeros up to whole blocks |
 *   child  a cell of a branch: its value is | page u32 | blocks u16 | CRC-32 of the page u32 |
 *
 * The first `prefix` bytes are the same in all keys of a page; `head` is the four bytes behind them. A search goes through the heads, which lie side by side, and looks at one cell: the fewer cache
 * lines, the faster. A page is one block, or as many as its only cell needs. Its checksum is in the pointer to it, so that an old page in the right place is found out too, not only a torn one.
 */
import { crc32 } from 'node:zlib';

export const BLOCK_BYTES = 4096;
export const KEY_BYTES_MAX = 512;
export const VALUE_BYTES_MAX = 1 << 20;
const CELL_HEADER_BYTES = 6;
const PAGE_HEADER_BYTES = 8;
const SLOT_BYTES = 6;
const CHILD_BYTES = 10;
const REMOVED = 0xffffffff;
/** What cells and their slots may take of a page of one block. */
export const ROOM_BYTES = BLOCK_BYTES - PAGE_HEADER_BYTES;

/** Where a page is, and what it has to be. */
export interface Pointer {
  readonly page: number;
  readonly blocks: number;
  readonly sum: number;
}

/** A key and its value in place: in a page, a record of the log, or bytes of its own. Views are made when they are asked for. */
export class Cell {
  readonly bytes: Uint8Array;
  readonly at: number;

  constructor(bytes: Uint8Array, at: number) {
    this.bytes = bytes;
    this.at = at;
  }

  get key(): Uint8Array {
    const start = this.at + CELL_HEADER_BYTES;
    return this.bytes.subarray(start, start + u16(this.bytes, this.at));
  }

  /** Undefined where the key was removed. */
  get value(): Uint8Array | undefined {
    if (this.removed) return undefined;
    const start = valueStart(this.bytes, this.at);
    return this.bytes.subarray(start, start + u32(this.bytes, this.at + 2));
  }

  get removed(): boolean {
    return u32(this.bytes, this.at + 2) === REMOVED;
  }

  /** Bytes of the cell. */
  get size(): number {
    return CELL_HEADER_BYTES + u16(this.bytes, this.at) + (this.removed ? 0 : u32(this.bytes, this.at + 2));
  }

  /** Bytes that it takes in a page. */
  get room(): number {
    return this.size + SLOT_BYTES;
  }
}

function valueStart(bytes: Uint8Array, at: number): number {
  return at + CELL_HEADER_BYTES + u16(bytes, at);
}

function u16(bytes: Uint8Array, at: number): number {
  return bytes[at] | (bytes[at + 1] << 8);
}

function u32(bytes: Uint8Array, at: number): number {
  return (bytes[at] | (bytes[at + 1] << 8) | (bytes[at + 2] << 16) | (bytes[at + 3] << 24)) >>> 0;
}

export function encodeCell(key: Uint8Array, value: Uint8Array | undefined): Cell {
  if (key.length > KEY_BYTES_MAX) throw new RangeError(`a key has at most ${KEY_BYTES_MAX} bytes`);
  if (value !== undefined && value.length > VALUE_BYTES_MAX) throw new RangeError(`a value has at most ${VALUE_BYTES_MAX} bytes`);
  const bytes = Buffer.allocUnsafe(CELL_HEADER_BYTES + key.length + (value?.length ?? 0));
  bytes.writeUInt16LE(key.length, 0);
  bytes.writeUInt32LE(value?.length ?? REMOVED, 2);
  bytes.set(key, CELL_HEADER_BYTES);
  if (value !== undefined) bytes.set(value, CELL_HEADER_BYTES + key.length);
  return new Cell(bytes, 0);
}

export function encodeChild(key: Uint8Array, { page, blocks, sum }: Pointer): Cell {
  const value = Buffer.allocUnsafe(CHILD_BYTES);
  value.writeUInt32LE(page, 0);
  value.writeUInt16LE(blocks, 4);
  value.writeUInt32LE(sum, 6);
  return encodeCell(key, value);
}

export function compareKeys(a: Uint8Array, b: Uint8Array): number {
  const length = Math.min(a.length, b.length);
  for (let i = 0; i < length; i++) if (a[i] !== b[i]) return a[i] - b[i];
  return a.length - b.length;
}

/** The shortest key that is above `low` and not above `high`. */
export function separator(low: Uint8Array, high: Uint8Array): Uint8Array {
  return high.slice(0, sharedLength(low, high) + 1);
}

function sharedLength(a: Uint8Array, b: Uint8Array): number {
  let length = 0;
  while (length < a.length && length < b.length && a[length] === b[length]) length++;
  return length;
}

/** The four bytes of a key from `at` on, as a signed number that is in the same order as they are; zeros behind its end. */
function headOf(key: Uint8Array, at: number): number {
  if (at + 4 <= key.length) return ((key[at] ^ 0x80) << 24) | (key[at + 1] << 16) | (key[at + 2] << 8) | key[at + 3];
  return (((key[at] ?? 0) ^ 0x80) << 24) | ((key[at + 1] ?? 0) << 16) | ((key[at + 2] ?? 0) << 8);
}

/** Cells in ascending order, all of which fit, or one of any size. */
export function encodePage(level: number, cells: readonly Cell[]): Uint8Array {
  const length = cells.reduce((sum, cell) => sum + cell.room, PAGE_HEADER_BYTES);
  const page = Buffer.alloc(Math.ceil(length / BLOCK_BYTES) * BLOCK_BYTES);
  const prefix = cells.length === 0 ? 0 : sharedLength(cells[0].key, cells[cells.length - 1].key);
  page[0] = level;
  page.writeUInt16LE(cells.length, 2);
  page.writeUInt16LE(prefix, 4);
  let at = PAGE_HEADER_BYTES + cells.length * SLOT_BYTES;
  for (const [index, cell] of cells.entries()) {
    page.writeInt32BE(headOf(cell.key, prefix) ^ 0x80000000, PAGE_HEADER_BYTES + index * 4);
    page.writeUInt16LE(at, PAGE_HEADER_BYTES + cells.length * 4 + index * 2);
    const { size } = cell;
    page.set(cell.bytes.subarray(cell.at, cell.at + size), at);
    at += size;
  }
  return page;
}

export function sumOf(page: Uint8Array): number {
  return crc32(page);
}

/** Where the cell of an index begins. */
export function placeOf(page: Uint8Array, index: number): number {
  return u16(page, PAGE_HEADER_BYTES + u16(page, 2) * 4 + index * 2);
}

export function cellsOf(page: Uint8Array): Cell[] {
  return Array.from({ length: u16(page, 2) }, (_, index) => new Cell(page, placeOf(page, index)));
}

/** The index of a key, or, as its complement, where it would be. Allocates nothing: it runs once for each level of each get. */
export function find(page: Uint8Array, key: Uint8Array): number {
  const count = u16(page, 2);
  const prefix = u16(page, 4);
  const order = prefix === 0 ? 0 : compareBytes(page, placeOf(page, 0) + CELL_HEADER_BYTES, prefix, key, 0, prefix);
  if (order !== 0) return order < 0 ? ~0 : ~count;
  const head = headOf(key, prefix);
  let low = 0;
  let high = count;
  while (low < high) {
    const middle = (low + high) >>> 1;
    const at = PAGE_HEADER_BYTES + middle * 4;
    const other = ((page[at] ^ 0x80) << 24) | (page[at + 1] << 16) | (page[at + 2] << 8) | page[at + 3];
    // Not the difference: that of two signed numbers can be too large for one.
    let order = head < other ? -1 : 1;
    if (head === other) {
      const cell = placeOf(page, middle);
      order = compareBytes(page, cell + CELL_HEADER_BYTES, u16(page, cell), key, prefix, KEY_BYTES_MAX);
      if (order === 0) return middle;
    }
    if (order < 0) high = middle;
    else low = middle + 1;
  }
  return ~low;
}

/** The child of a branch that a key belongs to: the last one whose key is not above it. */
export function childIndex(branch: Uint8Array, key: Uint8Array): number {
  const found = find(branch, key);
  return found >= 0 ? found : Math.max(0, ~found - 1);
}

/** A key and one of `length` bytes at `at`, from the one byte to the other; whichever ends before that is below. */
function compareBytes(page: Uint8Array, at: number, length: number, key: Uint8Array, from: number, to: number): number {
  const past = Math.min(length, key.length, to);
  for (let i = from; i < past; i++) if (key[i] !== page[at + i]) return key[i] - page[at + i];
  return Math.min(key.length, to) - Math.min(length, to);
}

/** A copy of the value at an index. */
export function valueCopy(page: Uint8Array, index: number): Uint8Array {
  const cell = placeOf(page, index);
  const start = valueStart(page, cell);
  const copy = Buffer.allocUnsafe(u32(page, cell + 2));
  copy.set(page.subarray(start, start + copy.length));
  return copy;
}

/** Number and blocks of a child's page, without making an object. */
export function childPage(branch: Uint8Array, index: number): number {
  return u32(branch, valueStart(branch, placeOf(branch, index)));
}

export function childBlocks(branch: Uint8Array, index: number): number {
  return u16(branch, valueStart(branch, placeOf(branch, index)) + 4);
}

/** Of the cell at a place of a branch. */
export function pointerOf(bytes: Uint8Array, cell: number): Pointer {
  const at = valueStart(bytes, cell);
  return { page: u32(bytes, at), blocks: u16(bytes, at + 4), sum: u32(bytes, at + 6) };
}
