/**
 * One value that is replaced as a whole, on one file or device: after a crash it is the old or the new one, never a mixture.
 *
 *   slot 0, 4096 bytes   | sum u32 | length u32 | sequence u48 | 0 | value … |
 *   slot 1, 4096 bytes   the same: the slots take turns
 *
 * A slot is valid if `sum`, the CRC-32 of everything behind it, is right; of two valid ones the later counts.
 */
import { crc32 } from 'node:zlib';
import type { BlockFile } from 'sectorwise';

const SLOT_BYTES = 4096;
const HEADER_BYTES = 16;

export class Cell {
  readonly #file: BlockFile;
  #sequence = 0;
  #value: Uint8Array = new Uint8Array(0);
  #last: Promise<unknown> = Promise.resolve();

  private constructor(file: BlockFile) {
    this.#file = file;
  }

  /** The value that is there; empty where there is none yet. */
  static async open(file: BlockFile): Promise<Cell> {
    const cell = new Cell(file);
    for (const at of [0, SLOT_BYTES]) {
      const window = await file.window(at, SLOT_BYTES);
      cell.#take(Buffer.from(window.bytes));
      window.release();
    }
    // What can be read need not be durable yet, and the other slot is about to be written over.
    await file.flush();
    return cell;
  }

  #take(slot: Buffer): void {
    if (slot.length < HEADER_BYTES) return;
    const length = slot.readUInt32LE(4);
    const sequence = slot.readUIntLE(8, 6);
    if (length > slot.length - HEADER_BYTES || sequence <= this.#sequence) return;
    if (crc32(slot.subarray(4, HEADER_BYTES + length)) !== slot.readUInt32LE(0)) return;
    this.#sequence = sequence;
    this.#value = slot.subarray(HEADER_BYTES, HEADER_BYTES + length);
  }

  get value(): Uint8Array {
    return this.#value;
  }

  /** Resolves once the new value is durable. If it rejects, either of the two may be found after a crash. */
  replace(value: Uint8Array): Promise<void> {
    if (value.length > SLOT_BYTES - HEADER_BYTES) throw new RangeError('a value has at most 4080 bytes');
    // One after the other: the slot that holds the value of now must not be written before the other one is durable.
    const done = this.#last.then(() => this.#replace(value));
    // Its failure is told to who asked for it; the next one only waits for its end.
    this.#last = done.catch(() => {});
    return done;
  }

  async #replace(value: Uint8Array): Promise<void> {
    const sequence = this.#sequence + 1;
    const slot = Buffer.alloc(SLOT_BYTES);
    slot.writeUInt32LE(value.length, 4);
    slot.writeUIntLE(sequence, 8, 6);
    slot.set(value, HEADER_BYTES);
    slot.writeUInt32LE(crc32(slot.subarray(4, HEADER_BYTES + value.length)), 0);
    // After a flush that failed: its slot is the one that is written now.
    this.#file.acknowledgeLoss();
    await this.#file.write(slot, (sequence % 2) * SLOT_BYTES);
    await this.#file.flush();
    this.#sequence = sequence;
    this.#value = slot.subarray(HEADER_BYTES, HEADER_BYTES + value.length);
  }
}
