/**
 * The bytes of a plan's partition table (rule R8), and the same table as a script for sfdisk.
 *
 *   sector 0    1         2 …                  first usable …  last usable    …            n−1
 *   [PMBR]      [header]  [128 entries of 128]  partitions                    [128 entries] [header]
 *                 └ array's CRC, own CRC          backup ┘ the same entries, its header with the two places swapped
 *
 * Guarantees: pure; the order of the regions is that in which they are to be written, the primary header last, so that a table counts only once all of it is there. All fields are
 * little endian (UEFI 2.10 chapter 5); a GUID's first three groups are so too.
 * Leaves to others: writing and syncing (`write-plan.ts`), reading (`table.ts`).
 */
import { crc32 } from 'node:zlib';
import { GPT_ENTRIES_BYTES, type Plan } from './plan.js';

const ENTRY_BYTES = 128;
const ENTRIES = GPT_ENTRIES_BYTES / ENTRY_BYTES;
const HEADER_BYTES = 92;
const REVISION = 0x0001_0000;
const NAME_OFFSET = 56;
const NAME_UNITS_MAX = 36;
const MBR_ENTRY = 446;
const PROTECTIVE = 0xee;

/** A piece of the table and where it goes. */
export interface PlanRegion {
  /** Which part of the table it is. */
  name: 'backup-entries' | 'backup-header' | 'protective-mbr' | 'primary-entries' | 'primary-header';
  /** Byte on the disk. */
  offset: bigint;
  /** A whole number of sectors. */
  bytes: Uint8Array;
}

/** The table's five regions, in the order in which they are to be written. */
export function gptRegions(plan: Plan): PlanRegion[] {
  const { sectorSize, size } = plan;
  const sector = BigInt(sectorSize);
  const last = size / sector - 1n;
  const entries = entryArray(plan);
  const backupEntries = last - BigInt(entries.length / sectorSize);
  const primary = header(plan, { own: 1n, other: last, entries: 2n, checksum: crc32(entries.subarray(0, GPT_ENTRIES_BYTES)) });
  const backup = header(plan, { own: last, other: 1n, entries: backupEntries, checksum: crc32(entries.subarray(0, GPT_ENTRIES_BYTES)) });
  return [
    { name: 'backup-entries', offset: backupEntries * sector, bytes: entries },
    { name: 'backup-header', offset: last * sector, bytes: backup },
    { name: 'protective-mbr', offset: 0n, bytes: protectiveMbr(plan) },
    { name: 'primary-entries', offset: 2n * sector, bytes: entries },
    { name: 'primary-header', offset: sector, bytes: primary },
  ];
}

function entryArray({ sectorSize, partitions }: Plan): Uint8Array {
  const bytes = new Uint8Array(Math.ceil(GPT_ENTRIES_BYTES / sectorSize) * sectorSize);
  const view = new DataView(bytes.buffer);
  const sector = BigInt(sectorSize);
  for (const { number, type, uuid, start, size, name } of partitions) {
    const at = (number - 1) * ENTRY_BYTES;
    bytes.set(guidBytes(type), at);
    bytes.set(guidBytes(uuid), at + 16);
    view.setBigUint64(at + 32, start / sector, true);
    view.setBigUint64(at + 40, (start + size) / sector - 1n, true);
    for (let unit = 0; unit < Math.min(name.length, NAME_UNITS_MAX); unit++) view.setUint16(at + NAME_OFFSET + 2 * unit, name.charCodeAt(unit), true);
  }
  return bytes;
}

function header(plan: Plan, place: { own: bigint; other: bigint; entries: bigint; checksum: number }): Uint8Array {
  const bytes = new Uint8Array(plan.sectorSize);
  const view = new DataView(bytes.buffer);
  bytes.set(Buffer.from('EFI PART', 'latin1'));
  view.setUint32(8, REVISION, true);
  view.setUint32(12, HEADER_BYTES, true);
  view.setBigUint64(24, place.own, true);
  view.setBigUint64(32, place.other, true);
  view.setBigUint64(40, plan.firstUsable, true);
  view.setBigUint64(48, plan.lastUsable, true);
  bytes.set(guidBytes(plan.diskId), 56);
  view.setBigUint64(72, place.entries, true);
  view.setUint32(80, ENTRIES, true);
  view.setUint32(84, ENTRY_BYTES, true);
  view.setUint32(88, place.checksum, true);
  // Its own checksum is computed with its own field zero.
  view.setUint32(16, crc32(bytes.subarray(0, HEADER_BYTES)), true);
  return bytes;
}

/** One partition of type ee over everything behind itself, as UEFI 2.10 table 5.4 has it: cylinders, heads and sectors say nothing any more. */
function protectiveMbr({ sectorSize, size }: Plan): Uint8Array {
  const bytes = new Uint8Array(sectorSize);
  const view = new DataView(bytes.buffer);
  const behind = size / BigInt(sectorSize) - 1n;
  bytes.set([0x00, 0x00, 0x02, 0x00, PROTECTIVE, 0xff, 0xff, 0xff], MBR_ENTRY);
  view.setUint32(MBR_ENTRY + 8, 1, true);
  view.setUint32(MBR_ENTRY + 12, behind > 0xffff_ffffn ? 0xffff_ffff : Number(behind), true);
  bytes.set([0x55, 0xaa], 510);
  return bytes;
}

/** As in memory on disk: time_low, time_mid and time_hi little endian, the rest as printed. */
function guidBytes(guid: string): Uint8Array {
  const bytes = Buffer.from(guid.replaceAll('-', ''), 'hex');
  bytes.subarray(0, 4).reverse();
  bytes.subarray(4, 6).reverse();
  bytes.subarray(6, 8).reverse();
  return bytes;
}

/**
 * The table for `sfdisk DISK < script`, which writes the same bytes. Starts and sizes are explicit and in sectors: the only form that sfdisk takes as it is, without aligning it by
 * rules of its own; so no `grain` either. sfdisk before 2.39 ignores `sector-size`: for an image with other sectors than 512 it then needs a loop device that has them.
 */
export function sfdiskScript(plan: Plan): string {
  const { sectorSize, diskId, firstUsable, lastUsable, partitions } = plan;
  const sector = BigInt(sectorSize);
  const lines = [
    'label: gpt',
    `label-id: ${diskId}`,
    'unit: sectors',
    `first-lba: ${firstUsable}`,
    `last-lba: ${lastUsable}`,
    `table-length: ${ENTRIES}`,
    `sector-size: ${sectorSize}`,
    '',
  ];
  for (const { number, start, size, type, uuid, name } of partitions) {
    const label = name === '' ? '' : `, name="${scriptText(name)}"`;
    lines.push(`${number} : start=${start / sector}, size=${size / sector}, type=${type}, uuid=${uuid}${label}`);
  }
  return `${lines.join('\n')}\n`;
}

/** sfdisk knows `\xNN` within quotes, byte by byte of UTF-8, and no other escapes. */
function scriptText(name: string): string {
  return [...Buffer.from(name)]
    .map((byte) => (/[\w .,:@+-]/.test(String.fromCharCode(byte)) && byte < 0x80 ? String.fromCharCode(byte) : `\\x${byte.toString(16).padStart(2, '0')}`))
    .join('');
}
