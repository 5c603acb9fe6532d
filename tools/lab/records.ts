/**
 * What the writers of the power cuts write, so that what is left of it can be judged: numbered records one after the other, as a log of a storage engine has them, and cells that are changed in place.
 *
 *   0      4       8      12      16        20
 *   | magic | number | round | length | CRC-32 | payload … |
 *
 * The round grows with every start of the writer. What lies behind the last record may be a torn one or records of an earlier round; neither passes for a next one: numbers go up by one, rounds never go down,
 * and the check sum covers everything but itself.
 *
 * A cell is a sector, which is whole or not there after any cut. It says which version of which lane of writers it is; which cell a version goes to follows from the version, so that the last version that was flushed says
 * what each cell of the lane must hold at least.
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

export const CELL_BYTES = 512;
export const CELLS = 32;

/** The cell of its lane that a version goes to: often one that was written a moment ago, or its neighbour. */
export function cellOf(version: number): number {
  return (Math.imul(version >> 1, 0x9e3779b1) >>> 13) % CELLS;
}

/** The bytes of a cell. */
export function makeCell(lane: number, version: number): Buffer {
  const cell = Buffer.alloc(CELL_BYTES, version & 255);
  cell.writeUInt32LE(MAGIC, 0);
  cell.writeUInt32LE(lane, 4);
  cell.writeUInt32LE(version, 8);
  cell.writeUInt32LE(crc32(cell.subarray(16), crc32(cell.subarray(0, 12))), 12);
  return cell;
}

/** The version in a cell: 0 where nothing was ever written, undefined for what nobody wrote there. */
export function versionOf(cell: Buffer, lane: number): number | undefined {
  if (cell.length < CELL_BYTES || cell.every((byte) => byte === 0)) return 0;
  const version = cell.readUInt32LE(8);
  return cell.equals(makeCell(lane, version)) ? version : undefined;
}

/** What is wrong with the cells of a lane of which `flushed` was the last version that was acknowledged; undefined if nothing is. */
export function faultOfCells(cells: Buffer, lane: number, flushed: number): string | undefined {
  const least = new Array<number>(CELLS).fill(0);
  for (let version = 1; version <= flushed; version++) least[cellOf(version)] = version;
  for (const [cell, floor] of least.entries()) {
    const version = versionOf(cells.subarray(cell * CELL_BYTES, (cell + 1) * CELL_BYTES), lane);
    if (version === undefined) return `cell ${cell} of lane ${lane} holds what nobody wrote`;
    if (version < floor) return `cell ${cell} of lane ${lane} is at version ${version}, and ${floor} was flushed`;
    if (version > 0 && cellOf(version) !== cell) return `cell ${cell} of lane ${lane} holds version ${version}, which belongs elsewhere`;
  }
  return undefined;
}
