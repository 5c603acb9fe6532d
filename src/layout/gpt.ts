/**
 * One copy of a GPT: the header and the array of entries (UEFI 2.10 §5.3).
 *
 * Guarantees: a copy is `valid` only if the header's CRC, its own LBA, its sizes and the array's CRC hold, all that in bounds of the image; at most 1 MiB of an array is read
 * and at most 4096 entries are listed, whatever a header says.
 * Leaves to others: which copy to believe, and what it means when they differ (`table.ts`).
 */
import { crc32 } from 'node:zlib';
import { guidAt, hasText, u32, u64 } from './little-endian.js';
import type { GptCopy, ImageSource } from './model.js';

/** Of an array, at most so much is read: room for 8192 entries of the usual 128 bytes, where tools make 128 of them. */
export const gptArrayBytesMax = 1024 * 1024;
/** And so many entries are listed. */
export const gptEntriesMax = 4096;

const headerBytesMin = 92;
const entryBytesMin = 128;
const nameBytes = 72;

/** A copy as it was read. */
export interface GptRead {
  copy: GptCopy;
  /** `EFI PART` is there. */
  signature: boolean;
  /** The header is whole; the array need not be. */
  headerValid: boolean;
  sectorSize: number;
  diskId: string;
  /** Byte of the other copy's header, by this one's word. */
  alternate: bigint;
  arrayCrc: number;
  /** The array, where it was read. */
  array?: Uint8Array;
}

export interface GptEntry {
  /** From 1 on, as the kernel numbers them. */
  number: number;
  firstLba: bigint;
  lastLba: bigint;
  type: string;
  uuid: string;
  name: string;
}

/** Whether a whole header lies at `offset` that says it does: what tells a sector size (R0). */
export function holdsHeader(source: ImageSource, offset: bigint, sectorSize: number): boolean {
  return headerFault(source.read(offset, sectorSize), offset, sectorSize) === undefined;
}

/** The copy whose header is at byte `offset`. */
export function readGpt(source: ImageSource, offset: bigint, sectorSize: number): GptRead {
  const header = source.read(offset, sectorSize);
  const unit = BigInt(sectorSize);
  const copy: GptCopy = {
    header: offset,
    entries: u64(header, 72) * unit,
    entryCount: u32(header, 80),
    entryBytes: u32(header, 84),
    firstUsable: u64(header, 40) * unit,
    lastUsable: u64(header, 48) * unit,
    valid: false,
  };
  const read: GptRead = {
    copy,
    signature: hasText(header, 0, 'EFI PART'),
    headerValid: false,
    sectorSize,
    diskId: guidAt(header, 56),
    alternate: u64(header, 32) * unit,
    arrayCrc: u32(header, 88),
  };
  copy.reason = headerFault(header, offset, sectorSize);
  if (copy.reason !== undefined) return read;
  read.headerValid = true;
  copy.reason = arrayFault(source, read);
  if (copy.reason === undefined) {
    delete copy.reason;
    copy.valid = true;
  }
  return read;
}

function headerFault(header: Uint8Array, offset: bigint, sectorSize: number): string | undefined {
  if (header.length < sectorSize) return 'the image ends before it';
  if (!hasText(header, 0, 'EFI PART')) return 'no signature "EFI PART"';
  const size = u32(header, 12);
  if (size < headerBytesMin || size > sectorSize) return `header of ${size} bytes, where ${headerBytesMin} to ${sectorSize} are allowed`;
  // A copy: `slice` of a Buffer would be the image itself.
  const zeroed = new Uint8Array(header.subarray(0, size));
  zeroed.fill(0, 16, 20);
  const found = crc32(zeroed);
  const stored = u32(header, 16);
  if (found !== stored) return `header CRC is ${hex(found)}, stored is ${hex(stored)}`;
  const own = u64(header, 24) * BigInt(sectorSize);
  if (own !== offset) return `the header says that it lies at byte ${own}, not at ${offset}`;
  return undefined;
}

function arrayFault(source: ImageSource, read: GptRead): string | undefined {
  const { copy, sectorSize } = read;
  if (copy.entryBytes < entryBytesMin || copy.entryBytes % 8 !== 0)
    return `entries of ${copy.entryBytes} bytes, where a multiple of 8 from ${entryBytesMin} on is allowed`;
  if (copy.entryCount < 1) return 'no room for an entry';
  const bytes = copy.entryCount * copy.entryBytes;
  if (bytes > gptArrayBytesMax)
    return `${copy.entryCount} entries of ${copy.entryBytes} bytes are more than the ${gptArrayBytesMax} bytes that are read of an array`;
  if (copy.entries < 2n * BigInt(sectorSize) || copy.entries + BigInt(bytes) > source.size) return `the array at byte ${copy.entries} is not within the image`;
  const array = source.read(copy.entries, bytes);
  if (array.length < bytes) return `the array at byte ${copy.entries} is not within the image`;
  const found = crc32(array);
  if (found !== read.arrayCrc) return `CRC of the entries is ${hex(found)}, stored is ${hex(read.arrayCrc)}`;
  read.array = array;
  return undefined;
}

/** The used entries of a valid copy, at most `gptEntriesMax` of all; `cut` says that there is room for more. */
export function gptEntries({ copy, array }: GptRead): { entries: GptEntry[]; cut: boolean } {
  const entries: GptEntry[] = [];
  if (array === undefined) return { entries, cut: false };
  const count = Math.min(copy.entryCount, gptEntriesMax);
  for (let index = 0; index < count; index++) {
    const at = index * copy.entryBytes;
    // The type is zero in an entry that is not used: seen without making a text of it, since nearly all are.
    if (u32(array, at) === 0 && u32(array, at + 4) === 0 && u32(array, at + 8) === 0 && u32(array, at + 12) === 0) continue;
    entries.push({
      number: index + 1,
      firstLba: u64(array, at + 32),
      lastLba: u64(array, at + 40),
      type: guidAt(array, at),
      uuid: guidAt(array, at + 16),
      name: nameOf(array.subarray(at + 56, at + 56 + nameBytes)),
    });
  }
  return { entries, cut: copy.entryCount > count };
}

/** UTF-16, little-endian, up to the first zero. What would move a terminal's cursor or turn its text becomes `?`. */
function nameOf(bytes: Uint8Array): string {
  let end = 0;
  while (end + 1 < bytes.length && (bytes[end] !== 0 || bytes[end + 1] !== 0)) end += 2;
  return new TextDecoder('utf-16le').decode(bytes.subarray(0, end)).replace(/[\p{Cc}\u2028-\u202e\u2066-\u2069]/gu, '?');
}

function hex(value: number): string {
  return `0x${value.toString(16).padStart(8, '0')}`;
}
