/**
 * Numbered records one after the other, as a log of a storage engine has them.
 *
 *   0      4       8      12      16        20
 *   | magic | number | round | length | CRC-32 | payload … |
 *
 * The round grows with every start of the writer. What lies behind the last record may be a torn one or records of an earlier round; neither passes for a next one: numbers go up by one, rounds never go down,
 * and the check sum covers everything but itself.
 */
import { crc32 } from './crc32.js';

const MAGIC = 0x5ec70a15;
const HEADER_BYTES = 20;
const PAYLOAD_BYTES_MAX = 6000;

/** Bytes of a record. Lengths are odd on purpose: records begin and end anywhere in sectors and blocks. */
export function makeRecord(number: number, round: number): Buffer {
  const length = 1 + ((Math.imul(number, 0x9e3779b1) >>> 8) % PAYLOAD_BYTES_MAX);
  const record = Buffer.alloc(HEADER_BYTES + length);
  record.writeUInt32LE(MAGIC, 0);
  record.writeUInt32LE(number, 4);
  record.writeUInt32LE(round, 8);
  record.writeUInt32LE(length, 12);
  for (let index = 0; index < length; index++) record[HEADER_BYTES + index] = (number * 7 + round * 13 + index) & 255;
  record.writeUInt32LE(sumOf(record), 16);
  return record;
}

function sumOf(record: Buffer): number {
  return crc32(record.subarray(HEADER_BYTES), crc32(record.subarray(0, 16)));
}

/** Records from the start up to the first that is none: the last number (0 if there is none), its round, and where the next one goes. */
export function scanRecords(log: Buffer): { last: number; round: number; end: number } {
  let last = 0;
  let round = 0;
  let end = 0;
  while (end + HEADER_BYTES <= log.length) {
    const length = log.readUInt32LE(end + 12);
    if (log.readUInt32LE(end) !== MAGIC || length < 1 || length > PAYLOAD_BYTES_MAX || end + HEADER_BYTES + length > log.length) break;
    const record = log.subarray(end, end + HEADER_BYTES + length);
    if (record.readUInt32LE(4) !== last + 1 || record.readUInt32LE(8) < round || record.readUInt32LE(16) !== sumOf(record)) break;
    last++;
    round = record.readUInt32LE(8);
    end += record.length;
  }
  return { last, round, end };
}
