/**
 * Reads what was written back from the device, and compares it with the memory that it was written from.
 *
 *   write ended in full ──> line for memory ──> read of a piece ──> compare ──> next piece … ──> verdict
 *                           (in order)                                │
 *                           memory [ op 7 · · | op 9 | · · · ]         └─ differs, or cannot be read: noted by units, and it goes on
 *
 * The write stays an operation until the verdict: its frames are busy, nobody stores into them, and no other operation is on its sectors.
 *
 * Guarantees: every byte of a write is compared before the write counts; what is wrong is named by whole units of the device, the rest of the write counts; memory
 * is bounded, however much is written, and given out in order, so that a large write is not passed by for ever.
 * Leaves to others: sending the reads, trying again what a moment refused, finding out that the device is gone (`request-manager.ts`); writing again what is wrong (`write-back.ts`).
 */
import { assertionError, systemError } from '../errors.js';
import type { Engine, Slab } from '../io/engine.js';
import { BLOCK_BYTES, SECTOR_BYTES } from '../memory/block-store.js';
import { Staging } from '../memory/staging.js';
import { VerifyError } from './verify-error.js';

/** Bytes that are read back at once, of all writes of a file together. */
export const VERIFY_BYTES = 2 * 1024 * 1024;
/** Bytes of one write that are read back at once. */
const PIECE_BYTES_MAX = 512 * 1024;

const EIO = -5;

/** A part of a write and how it ended. Sectors. */
export interface VerifiedPart {
  start: number;
  sectors: number;
  /** 0 or -errno. */
  result: number;
  error: Error | undefined;
}

/** Bytes of the write, from its first on. */
interface Fault {
  from: number;
  to: number;
  /** Byte that differs first, with what was sent and what came back; -1 where it could not be read. */
  first: number;
  sent: number;
  found: number;
  /** -errno of the read. */
  result: number;
}

/** A write that is being read back. */
interface ReadBack {
  /** First sector. */
  readonly start: number;
  readonly bytes: number;
  /** Where it was written from. */
  readonly slab: number;
  readonly offset: number;
  /** Bytes that are decided. */
  at: number;
  /** Bytes of the next read, or of the one on its way. */
  length: number;
  /** Bytes into the slab of read-backs; -1 while it waits in line. */
  place: number;
  /** Bytes there. */
  room: number;
  readonly faults: Fault[];
}

export class Verification {
  /** The engine's index of the memory that is read into. */
  readonly slab: number;
  /** Told which operation has memory now, and is to be sent. */
  onReady: (operation: number) => void = () => {};
  readonly #path: string;
  readonly #unit: number;
  readonly #pieceMax: number;
  readonly #memory: Staging;
  readonly #bytes: Buffer;
  /** What writes are written from, by the engine's index. */
  readonly #sources: readonly Buffer[];
  readonly #readBacks = new Map<number, ReadBack>();
  /** Operations that wait for memory. */
  #line: number[] = [];

  /**
   * @param sources the slabs that writes come from, all that the engine has so far.
   * @param unit bytes that reads and writes begin and end on.
   * @param bytes of memory; smaller for tests. A multiple of 4096.
   */
  constructor(engine: Engine, makeSlab: (bytes: number) => Slab, sources: readonly Slab[], path: string, unit: number, bytes = VERIFY_BYTES) {
    this.#path = path;
    this.#unit = unit;
    this.#pieceMax = Math.min(PIECE_BYTES_MAX, bytes);
    this.#memory = new Staging(engine, makeSlab, bytes / BLOCK_BYTES);
    this.slab = this.#memory.index;
    if (this.slab !== sources.length) {
      this.#memory.close();
      throw assertionError('the engine has slabs of somebody else');
    }
    const { buffer, byteOffset, length } = this.#memory.bytes;
    this.#bytes = Buffer.from(buffer, byteOffset, length);
    this.#sources = sources.map(({ shared }) => Buffer.from(shared));
  }

  /** Is what the operation wrote being read back? */
  reads(operation: number): boolean {
    return this.#readBacks.has(operation);
  }

  /** The operation has written all of its bytes. It is told by `onReady` when it can be sent again, now as a read. */
  begin(operation: number, start: number, sectors: number, slab: number, offset: number): void {
    this.#readBacks.set(operation, { start, bytes: sectors * SECTOR_BYTES, slab, offset, at: 0, length: 0, place: -1, room: 0, faults: [] });
    this.#line.push(operation);
    this.#serve();
  }

  /** Byte of the file or device at which the operation's next read begins. */
  position(operation: number): number {
    const { start, at } = this.#of(operation);
    return start * SECTOR_BYTES + at;
  }

  /** Bytes of the operation's next read. */
  length(operation: number): number {
    return this.#of(operation).length;
  }

  /** Bytes into `slab` where it goes. */
  offset(operation: number): number {
    return this.#of(operation).place;
  }

  /** A read brought `count` bytes: compares them. Answers with how many of them are decided: whole units. */
  compare(operation: number, count: number): number {
    const readBack = this.#of(operation);
    const whole = Math.min(count - (count % this.#unit), readBack.length);
    if (whole > 0) this.#look(readBack, whole);
    this.#moveOn(readBack, whole);
    return whole;
  }

  /** A read failed. `narrow`: parts of it may be good, and are asked for one by one; else nothing of the rest can be read. */
  failed(operation: number, result: number, narrow: boolean): void {
    const readBack = this.#of(operation);
    const { at, length, bytes } = readBack;
    if (narrow && length > this.#unit) {
      readBack.length = Math.max(this.#unit, Math.floor(length / 2 / this.#unit) * this.#unit);
      return;
    }
    const to = narrow ? at + length : bytes;
    this.#note(readBack, { from: at, to, first: -1, sent: 0, found: 0, result });
    this.#moveOn(readBack, to - at);
  }

  /** Is nothing left to be read? */
  isDone(operation: number): boolean {
    const { at, bytes } = this.#of(operation);
    return at === bytes;
  }

  /** The operation is over. Answers with its parts if it was read back and something is wrong with some of them; undefined where `result` stands for all of it. */
  end(operation: number, result: number): VerifiedPart[] | undefined {
    const readBack = this.#readBacks.get(operation);
    if (readBack === undefined) return undefined;
    this.#readBacks.delete(operation);
    // Without memory it was given up, and is in no line any more.
    if (readBack.place >= 0) this.#memory.give(readBack.place / BLOCK_BYTES, readBack.room / BLOCK_BYTES);
    this.#serve();
    return result < 0 || readBack.faults.length === 0 ? undefined : this.#partsOf(readBack);
  }

  /** The device is gone: whoever waits for memory is told to go on without, and will be refused. */
  giveUp(): void {
    const line = this.#line;
    this.#line = [];
    for (const operation of line) this.onReady(operation);
  }

  /** Only with nothing in flight. */
  close(): void {
    this.#memory.close();
  }

  #of(operation: number): ReadBack {
    const readBack = this.#readBacks.get(operation);
    if (readBack === undefined) throw assertionError('an operation is read back that was not written');
    return readBack;
  }

  /** Gives memory to whoever is first in line, as long as there is enough: who comes later never takes what the first one waits for. */
  #serve(): void {
    while (this.#line.length > 0) {
      const operation = this.#line[0];
      const readBack = this.#of(operation);
      const room = Math.min(Math.ceil(readBack.bytes / BLOCK_BYTES) * BLOCK_BYTES, this.#pieceMax);
      const place = this.#memory.take(room / BLOCK_BYTES);
      if (place < 0) return;
      if (this.#memory.got * BLOCK_BYTES < room) {
        this.#memory.give(place, this.#memory.got);
        return;
      }
      readBack.place = place * BLOCK_BYTES;
      readBack.room = room;
      readBack.length = Math.min(readBack.bytes, room);
      this.#line.shift();
      this.onReady(operation);
    }
  }

  #look(readBack: ReadBack, count: number): void {
    const { place, at } = readBack;
    const source = this.#sources[readBack.slab];
    const base = readBack.offset + at;
    // Without a view over either: one call compares all of it where it lies.
    if (source.compare(this.#bytes, place, place + count, base, base + count) === 0) return;
    for (let unit = 0; unit < count; unit += this.#unit) {
      const from = place + unit;
      if (source.compare(this.#bytes, from, from + this.#unit, base + unit, base + unit + this.#unit) === 0) continue;
      let byte = unit;
      while (source[base + byte] === this.#bytes[place + byte]) byte++;
      const fault = { from: at + unit, to: at + unit + this.#unit, first: at + byte, sent: source[base + byte], found: this.#bytes[place + byte], result: EIO };
      this.#note(readBack, fault);
    }
  }

  /** Neighbours of one kind are one. */
  #note({ faults }: ReadBack, fault: Fault): void {
    const last = faults[faults.length - 1];
    if (last !== undefined && last.to === fault.from && last.first < 0 === fault.first < 0 && last.result === fault.result) last.to = fault.to;
    else faults.push(fault);
  }

  #moveOn(readBack: ReadBack, count: number): void {
    if (count === 0) return;
    const { bytes, room } = readBack;
    readBack.at += count;
    // Behind a bad place the reads grow again.
    readBack.length = Math.min(bytes - readBack.at, room, 2 * readBack.length);
  }

  #partsOf(readBack: ReadBack): VerifiedPart[] {
    const parts: VerifiedPart[] = [];
    const add = (from: number, to: number, fault: Fault | undefined): void => {
      if (from === to) return;
      const start = readBack.start + from / SECTOR_BYTES;
      const error = fault === undefined ? undefined : this.#errorOf(readBack.start * SECTOR_BYTES, fault);
      parts.push({ start, sectors: (to - from) / SECTOR_BYTES, result: fault === undefined ? 0 : EIO, error });
    };
    let at = 0;
    for (const fault of readBack.faults) {
      add(at, fault.from, undefined);
      add(fault.from, fault.to, fault);
      at = fault.to;
    }
    add(at, readBack.bytes, undefined);
    return parts;
  }

  #errorOf(position: number, fault: Fault): VerifyError {
    const offset = position + fault.from;
    const length = fault.to - fault.from;
    const place = { path: this.#path, offset, length };
    const range = `[${offset}, ${offset + length})`;
    const advice = 'Check the device; the next flush writes it again.';
    if (fault.first < 0) {
      const cause = systemError(fault.result, 'read', place);
      return new VerifyError(`${range} was written and cannot be read back (${cause.code}). ${advice}`, { ...place, cause });
    }
    const differsAt = position + fault.first;
    const sector = Math.floor(differsAt / SECTOR_BYTES);
    const bytes = `${hex(fault.sent)} was written and ${hex(fault.found)} is there`;
    return new VerifyError(
      `${range} was written and reads back as something else, first at byte ${differsAt} (sector ${sector}): ${bytes}. ${advice}`,
      place,
      differsAt,
    );
  }
}

function hex(byte: number): string {
  return `0x${byte.toString(16).padStart(2, '0')}`;
}
