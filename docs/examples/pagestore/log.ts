/**
 * A log that goes round in a file of fixed size: groups of cells in order, each durable before anybody is told so.
 *
 *   record   | sum u32 | length u32 | life u32 | cell … | zeros up to whole sectors |
 *
 * `sum` is the CRC-32 of what follows it, begun with the sum of the record before, so a record is valid only behind the very records that it was written behind. `life` is drawn when the log is opened: a
 * record that is written again, the same in every byte, in the place of one that was lost must not make valid what an earlier life had written behind that one.
 *
 * Guarantees: a record never shares a sector with another, so that what was acknowledged is not written again; nothing from `head` to the end is written over. All of the file was written before: a flush
 * has no size and no new blocks to make durable, and one record is one write of the device.
 */
import { randomInt } from 'node:crypto';
import { crc32 } from 'node:zlib';
import type { BlockFile } from 'sectorwise';
import { Cell } from './page.js';

const HEADER_BYTES = 12;
const PIECE_BYTES = 1 << 20;

/** Between two records: where the next one begins, and the sum that it goes on from. */
export interface Place {
  readonly offset: number;
  readonly sum: number;
}

export class Log {
  readonly #file: BlockFile;
  readonly #size: number;
  readonly #sector: number;
  readonly #life = randomInt(2 ** 32);
  /** What is from here to the end is needed. */
  #head: number;
  #end: Place;

  private constructor(file: BlockFile, size: number, from: Place) {
    this.#file = file;
    this.#size = size;
    const { logicalSectorSize, physicalSectorSize } = file.geometry;
    this.#sector = Math.max(512, logicalSectorSize, physicalSectorSize);
    this.#head = from.offset;
    this.#end = from;
  }

  /** Writes zeros through a log that is new, so that later writes find all of it written. */
  static async prepare(file: BlockFile, size: number): Promise<void> {
    const zeros = new Uint8Array(Math.min(PIECE_BYTES, size));
    for (let at = file.size; at < size; at += zeros.length) await file.write(zeros.subarray(0, Math.min(zeros.length, size - at)), at);
    await file.flush();
  }

  /** Hands over the cells of every record from `from` on, up to the first that is none, and goes on behind it. */
  static async open(file: BlockFile, size: number, from: Place, onCell: (cell: Cell) => void): Promise<Log> {
    const log = new Log(file, size, from);
    const ring = Buffer.alloc(size);
    await file.read(ring, 0);
    for (let at = log.#find(ring); at !== undefined; at = log.#find(ring)) {
      const past = at + HEADER_BYTES + ring.readUInt32LE(at + 4);
      for (let cell = new Cell(ring, at + HEADER_BYTES); cell.at < past; cell = new Cell(ring, cell.at + cell.size)) onCell(cell);
      log.#end = { offset: log.#whole(past), sum: ring.readUInt32LE(at) };
    }
    // What can be read need not be durable: the process before may have died without a flush, and the power is still to fail.
    await file.flush();
    return log;
  }

  get end(): Place {
    return this.#end;
  }

  /** How full it is, from 0 to 1. */
  get used(): number {
    return ((this.#end.offset - this.#head + this.#size) % this.#size) / this.#size;
  }

  /** Bytes of cells in one record at most: so few that an empty log has room for it, wherever that begins. */
  get cellBytesMax(): number {
    return this.#size / 4 - HEADER_BYTES - this.#sector;
  }

  hasRoom(cellBytes: number): boolean {
    return this.#place(this.#whole(HEADER_BYTES + cellBytes)) !== undefined;
  }

  /** The log is not needed any more before this place. */
  free(before: Place): void {
    this.#head = before.offset;
  }

  /** Resolves when the record is durable. One at a time: whoever waits goes along with the next. If it fails, the record may be there or not: no other may follow it. */
  async append(cells: readonly Cell[], cellBytes: number): Promise<void> {
    const length = this.#whole(HEADER_BYTES + cellBytes);
    const record = Buffer.allocUnsafe(length).fill(0, HEADER_BYTES + cellBytes);
    record.writeUInt32LE(cellBytes, 4);
    record.writeUInt32LE(this.#life, 8);
    let at = HEADER_BYTES;
    for (const { bytes } of cells) {
      record.set(bytes, at);
      at += bytes.length;
    }
    record.writeUInt32LE(sumOf(record, at, this.#end.sum), 0);
    const offset = this.#place(length) as number;
    await Promise.all([this.#file.write(record, offset), this.#file.flush()]);
    this.#end = { offset: offset + length, sum: record.readUInt32LE(0) };
  }

  /** Where the record behind the end is, if there is one: there, or at the front, because it did not fit. */
  #find(ring: Buffer): number | undefined {
    const { offset, sum } = this.#end;
    for (const at of [offset, 0]) {
      if (at + HEADER_BYTES > ring.length) continue;
      const past = at + HEADER_BYTES + ring.readUInt32LE(at + 4);
      if (past > at + HEADER_BYTES && past <= ring.length && ring.readUInt32LE(at) === sumOf(ring.subarray(at, past), past - at, sum)) return at;
    }
    return undefined;
  }

  #place(length: number): number | undefined {
    const { offset } = this.#end;
    // The end never comes to the head from behind: that would be an empty log.
    if (offset < this.#head) return offset + length < this.#head ? offset : undefined;
    if (offset + length <= this.#size) return offset;
    return length < this.#head ? 0 : undefined;
  }

  #whole(bytes: number): number {
    return Math.ceil(bytes / this.#sector) * this.#sector;
  }
}

function sumOf(record: Buffer, length: number, before: number): number {
  return crc32(record.subarray(4, length), before);
}
