/**
 * Every byte through the library beside the same byte through node:fs, outside of all measuring.
 *
 * Guarantees: all bytes of the range are compared in each mode, front to end, and ranges that begin and end anywhere besides; what node:fs read is kept as one small sum for each
 * block, by which the timed reads are checked.
 * Leaves to others: what is in the page cache afterwards.
 */
import { readSync } from 'node:fs';
import type { FileHandle } from 'node:fs/promises';
import type { BlockFile, Window } from '../../src/index.js';
import { BadInput } from './arguments.js';

export const BLOCK_BYTES = 4096;
/** What a timed read looks at: one byte of so many. */
export const LOOK_BYTES = 512;
const stepBytes = 1 << 20;
/** Ranges that begin and end anywhere: at most for so long in each mode, so many, and of so many bytes. */
const anywhereMs = 200;
const anywhereMax = 4096;
const anywhereBytes = 20_000;

export interface Mode {
  name: string;
  file: BlockFile;
}

export interface Compared {
  /** Of each block, the sum of one byte in each `LOOK_BYTES`. */
  sums: Uint16Array;
  /** Bytes that were compared, over all modes. */
  bytes: number;
  /** Ranges that begin and end anywhere, among them. */
  ranges: number;
  differences: string[];
}

/** The sum of one byte of each `LOOK_BYTES`: what everybody who is timed does with the bytes. */
export function lookAt(bytes: Uint8Array, from: number, to: number): number {
  let sum = 0;
  for (let at = from; at < to; at += LOOK_BYTES) sum += bytes[at];
  return sum;
}

export async function compareAll(
  handle: FileHandle,
  path: string,
  size: number,
  modes: readonly Mode[],
  onProgress: (fraction: number) => void,
): Promise<Compared> {
  const sums = new Uint16Array(Math.ceil(size / BLOCK_BYTES));
  const differences: string[] = [];
  const buffer = Buffer.allocUnsafeSlow(Math.min(size, stepBytes));
  let bytes = 0;
  for (let position = 0; position < size; position += stepBytes) {
    onProgress(position / size);
    const length = Math.min(stepBytes, size - position);
    for (let got = 0; got < length; ) {
      const { bytesRead } = await handle.read(buffer, got, length - got, position + got);
      if (bytesRead === 0) throw new BadInput(`${path} became shorter while it was read`);
      got += bytesRead;
    }
    for (let at = 0; at < length; at += BLOCK_BYTES) sums[(position + at) / BLOCK_BYTES] = lookAt(buffer, at, Math.min(length, at + BLOCK_BYTES));
    for (const { name, file } of modes) {
      const window = await file.window(position, length);
      if (!same(window, buffer.subarray(0, length))) differences.push(`${name}: the ${length} bytes at ${position}`);
      window.release();
      bytes += length;
    }
  }

  let ranges = 0;
  for (const { name, file } of modes) {
    const end = performance.now() + anywhereMs;
    for (let round = 0; round < Math.min(anywhereMax, size) && performance.now() < end; round++) {
      const offset = Math.floor(Math.random() * size);
      const length = 1 + Math.floor(Math.random() * Math.min(anywhereBytes, buffer.length, size - offset));
      const window = file.tryWindow(offset, length) ?? (await file.window(offset, length));
      const count = readSync(handle.fd, buffer, 0, length, offset);
      if (!same(window, buffer.subarray(0, count))) differences.push(`${name}: the ${length} bytes at ${offset}`);
      window.release();
      bytes += length;
      ranges++;
    }
  }
  return { sums, bytes, ranges, differences };
}

/** Areas are compared, not `bytes`, so that frames that are apart need no copy. */
function same(window: Window, expected: Uint8Array): boolean {
  let position = 0;
  for (const area of window.areas) {
    if (Buffer.compare(area, expected.subarray(position, position + area.length)) !== 0) return false;
    position += area.length;
  }
  return position === expected.length;
}
