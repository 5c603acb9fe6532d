/**
 * A log on one file or device: records in order, many writers, one flush for all who wait.
 *
 *   | length u32 | sum u32 | sequence u48 | 0 | life u64 | payload … | length | sum | …
 *
 * `sum` is the CRC-32 of everything but itself, begun with the sum of the record before. So a record is valid only behind the very
 * records that it was written behind: what an earlier life of the log left over can never pass for what follows. Not even behind a
 * lost record that is appended again with the same bytes: `life` is a random number of each opening.
 */
import { randomBytes } from 'node:crypto';
import { crc32 } from 'node:zlib';
import type { BlockFile } from 'sectorwise';

export const HEADER_BYTES = 24;
const PAYLOAD_BYTES_MAX = 1 << 20;
/** Space is allocated so much at a time: a size that changes with each record would cost a journal commit with each flush. */
const GROWTH_BYTES = 4 << 20;

export class Log {
  readonly #file: BlockFile;
  readonly #life = randomBytes(8);
  #end = 0;
  #sum = 0;
  #sequence = 0;
  /** Written, and not yet acknowledged by a flush: what to write again after one that failed. */
  readonly #open = new Map<number, { at: number; record: Uint8Array }>();
  #failure: unknown;

  private constructor(file: BlockFile) {
    this.#file = file;
  }

  /** Reads what is there, up to the first record that is none, and goes on behind it. */
  static async open(file: BlockFile, onRecord: (sequence: number, payload: Uint8Array) => void = () => {}): Promise<Log> {
    const log = new Log(file);
    let rest = Buffer.alloc(0);
    for await (const window of file.windows()) {
      const bytes = Buffer.concat([rest, window.bytes]);
      const { taken, over } = log.#scan(bytes, onRecord);
      if (over) break;
      rest = bytes.subarray(taken);
    }
    // What can be read need not be durable: the process before may have died without a flush, and the power is still to fail.
    await file.flush();
    return log;
  }

  /** Takes the records at the front of `bytes`; `over` when what follows them is none, however much more came behind it. */
  #scan(bytes: Buffer, onRecord: (sequence: number, payload: Uint8Array) => void): { taken: number; over: boolean } {
    let taken = 0;
    while (taken + HEADER_BYTES <= bytes.length) {
      const length = bytes.readUInt32LE(taken);
      if (length === 0 || length > PAYLOAD_BYTES_MAX) return { taken, over: true };
      const record = bytes.subarray(taken, taken + HEADER_BYTES + length);
      if (record.length < HEADER_BYTES + length) break;
      const sequence = record.readUIntLE(8, 6);
      const follows = this.#sequence === 0 || sequence === this.#sequence + 1;
      if (!follows || record.readUInt32LE(4) !== this.#sumOf(record)) return { taken, over: true };
      this.#took(record, sequence);
      onRecord(sequence, record.subarray(HEADER_BYTES));
      taken += record.length;
    }
    return { taken, over: false };
  }

  #sumOf(record: Buffer): number {
    return crc32(record.subarray(8), crc32(record.subarray(0, 4), this.#sum));
  }

  #took(record: Buffer, sequence: number): void {
    this.#sum = record.readUInt32LE(4);
    this.#sequence = sequence;
    this.#end += record.length;
  }

  /** Resolves with the record's sequence number once it is durable. Do not wait for one before the next: those that wait at once share a flush. */
  async append(payload: Uint8Array): Promise<number> {
    if (this.#failure !== undefined) throw this.#failure;
    if (payload.length === 0 || payload.length > PAYLOAD_BYTES_MAX) throw new RangeError('a record has 1 to 1048576 bytes');
    const record = Buffer.alloc(HEADER_BYTES + payload.length);
    const at = this.#end;
    const sequence = this.#sequence + 1;
    record.writeUInt32LE(payload.length, 0);
    record.writeUIntLE(sequence, 8, 6);
    record.set(this.#life, 16);
    record.set(payload, HEADER_BYTES);
    record.writeUInt32LE(this.#sumOf(record), 4);
    // From here to `flush` nothing is awaited: the order of these calls is the order of the log.
    this.#took(record, sequence);
    this.#open.set(sequence, { at, record });
    const file = this.#file;
    const room = at + record.length <= file.size ? undefined : file.allocate(file.size, Math.max(GROWTH_BYTES, record.length));
    try {
      await Promise.all([room, file.write(record, at), file.flush()]);
    } catch (error) {
      // Behind a record that is missing none can be found: no more of them until this one is there.
      this.#failure = error;
      throw error;
    }
    this.#open.delete(sequence);
    return sequence;
  }

  /**
   * After an `append` that failed, once its cause is gone: writes again all that was not acknowledged.
   * Those records are in the log then, although their callers were told that they failed.
   */
  async repair(): Promise<void> {
    this.#file.acknowledgeLoss();
    const again = [...this.#open];
    await Promise.all(again.map(([, { at, record }]) => this.#file.write(record, at)));
    await this.#file.flush();
    for (const [sequence] of again) this.#open.delete(sequence);
    this.#failure = undefined;
  }

  /** Everything in the log is in its place by now, and durable there: begins at the front again. */
  async truncate(): Promise<void> {
    await this.#file.resize(0);
    await this.#file.flush();
    this.#end = 0;
    this.#sum = 0;
  }
}
