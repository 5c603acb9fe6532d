/**
 * A log in two halves: one takes records, while what is in the other is merged into the tree.
 *
 *   half    0: | record of epoch 6 | record | …       1: | record of epoch 7 | record | …       an epoch is one use of a half
 *   record  | sum u32 | length u32 | cell … | zeros up to whole sectors |
 *
 * `sum` is the CRC-32 of what follows it, begun with the sum of the record before, or with the epoch: so a record is valid only behind the very records that it was written behind. An epoch is never used
 * by two openings of the store.
 *
 * Guarantees: a record never shares a sector with another, so that what was acknowledged is not written again. All of the file was written before: a flush has no size and no new blocks to make durable,
 * and one record is one write of the device.
 */
import { crc32 } from 'node:zlib';
import type { BlockFile } from 'sectorwise';
import { Cell } from './page.js';

const HEADER_BYTES = 8;

export class Log {
  /** Bytes of cells in one record at most. */
  readonly cellBytesMax: number;
  readonly #file: BlockFile;
  readonly #half: number;
  readonly #sector: number;
  epoch = 0;
  /** Of the half that takes records, and of what is in it; within the half. */
  #start = 0;
  #end = 0;
  #sum = 0;

  constructor(file: BlockFile, bytes: number) {
    this.#file = file;
    this.#sector = Math.max(512, file.geometry.logicalSectorSize, file.geometry.physicalSectorSize);
    this.#half = bytes / 2;
    this.cellBytesMax = this.#half - HEADER_BYTES;
  }

  /** Writes zeros over all of it: whatever another store left there is gone, and later writes find every block allocated. */
  async clear(): Promise<void> {
    await this.#file.write(new Uint8Array(this.#half * 2), 0);
    await this.#file.flush();
  }

  /** Goes on in the other half, which is not needed any more. */
  begin(epoch: number): void {
    this.epoch = epoch;
    this.#start = (epoch % 2) * this.#half;
    this.#end = 0;
    this.#sum = crc32(`epoch ${epoch}`);
  }

  /** Hands over the cells of every record of an epoch, up to the first that is none, and stands behind it. */
  async replay(epoch: number, onCell: (cell: Cell) => void): Promise<void> {
    this.begin(epoch);
    const half = Buffer.alloc(this.#half);
    await this.#file.read(half, this.#start);
    for (let at = 0; at + HEADER_BYTES < half.length; at = this.#end) {
      const past = at + HEADER_BYTES + half.readUInt32LE(at + 4);
      if (past === at + HEADER_BYTES || past > half.length || half.readUInt32LE(at) !== crc32(half.subarray(at + 4, past), this.#sum)) break;
      for (let cell = new Cell(half, at + HEADER_BYTES); cell.at < past; cell = new Cell(half, cell.at + cell.size)) onCell(cell);
      this.#sum = half.readUInt32LE(at);
      this.#end += this.#whole(past - at);
    }
    // What can be read need not be durable: the process before may have died without a flush, and the power is still to fail.
    await this.#file.flush();
  }

  hasRoom(cellBytes: number): boolean {
    return this.#end + this.#whole(HEADER_BYTES + cellBytes) <= this.#half;
  }

  /** Resolves when the record is durable. One at a time: whoever waits goes along with the next. If it fails, the record may be there or not: no other may follow it. */
  async append(cells: readonly Cell[], cellBytes: number): Promise<void> {
    const past = HEADER_BYTES + cellBytes;
    const record = Buffer.allocUnsafe(this.#whole(past)).fill(0, past);
    record.writeUInt32LE(cellBytes, 4);
    let at = HEADER_BYTES;
    for (const { bytes } of cells) {
      record.set(bytes, at);
      at += bytes.length;
    }
    this.#sum = crc32(record.subarray(4, past), this.#sum);
    record.writeUInt32LE(this.#sum, 0);
    const offset = this.#start + this.#end;
    this.#end += record.length;
    await Promise.all([this.#file.write(record, offset), this.#file.flush()]);
  }

  #whole(bytes: number): number {
    return Math.ceil(bytes / this.#sector) * this.#sector;
  }
}
