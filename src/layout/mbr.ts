/**
 * The partition table of an MBR and its chains of logical partitions.
 *
 *   sector 0   code … | 446: four entries of 16 bytes | 55 AA
 *   EBR        the same form: entry 0 is the logical partition (from this EBR on), one of type 05/0F/85 links to the next (from the first EBR on)
 *
 * Guarantees: a chain is followed for at most 256 links (more partitions Linux gives no numbers to), never to an EBR that was read already; entries that mean nothing are no
 * partitions. Read as Linux does (block/partitions/msdos.c).
 * Leaves to others: whether it is an MBR at all and not a file system's boot sector (`table.ts`), whether what it says is possible.
 */
import { byteAndLba, type FindingList } from './findings.js';
import { u16, u32 } from './little-endian.js';
import type { ImageSource } from './model.js';
import { isExtendedType } from './types.js';

export const chainLinksMax = 256;

const entriesAt = 446;
const entryBytes = 16;
const protectiveType = 0xee;

/** One of the four entries, used or not. LBAs as they stand there: in sectors, from what they count from. */
export interface MbrEntry {
  /** 1 to 4. */
  number: number;
  status: number;
  type: number;
  start: number;
  sectors: number;
}

export interface MbrPartition {
  number: number;
  start: bigint;
  size: bigint;
  type: number;
}

/** The entries of a sector that ends in 55 AA; undefined of any other. */
export function mbrEntries(sector: Uint8Array): MbrEntry[] | undefined {
  if (sector.length < 512 || u16(sector, 510) !== 0xaa55) return undefined;
  return [0, 1, 2, 3].map((index) => {
    const at = entriesAt + index * entryBytes;
    return { number: index + 1, status: sector[at], type: sector[at + 4], start: u32(sector, at + 8), sectors: u32(sector, at + 12) };
  });
}

export function isUsed(entry: MbrEntry): boolean {
  return entry.type !== 0 && entry.sectors !== 0;
}

export function isProtective(entry: MbrEntry): boolean {
  return entry.type === protectiveType;
}

/** Could be a table: a boot flag is 00 or 80 and nothing else (Linux asks for the same), where code or text would have anything. */
export function arePlausible(entries: readonly MbrEntry[]): boolean {
  return entries.every(({ status }) => status === 0 || status === 0x80);
}

/** What a chain holds, numbered from `firstNumber` on. */
export interface Chain {
  partitions: MbrPartition[];
  loop: boolean;
}

/** Follows the chain of the extended partition at `container`, whose first EBR is its first sector. */
export function readChain(
  source: ImageSource,
  container: MbrPartition,
  sectorSize: number,
  firstNumber: number,
  findings: FindingList,
  linksMax = chainLinksMax,
): Chain {
  const unit = BigInt(sectorSize);
  const partitions: MbrPartition[] = [];
  const seen = new Set<bigint>();
  let loop = false;
  let number = firstNumber;
  let at = container.start;
  const fault = (message: string, code = 'E_EBR') =>
    findings.add({
      severity: 'error',
      code,
      layer: 'table',
      partition: container.number,
      message,
      fix: 'do not write to the logical partitions behind it; restore the chain from a backup, or find them with testdisk',
    });
  for (;;) {
    if (seen.has(at)) {
      loop = true;
      fault(`the chain of logical partitions comes back to the EBR at ${byteAndLba(at, sectorSize)} after ${seen.size} links`, 'E_EBR_LOOP');
      break;
    }
    if (seen.size === linksMax) {
      fault(`the chain of logical partitions has more than ${linksMax} links; what follows the EBR at ${byteAndLba(at, sectorSize)} is not looked at`);
      break;
    }
    seen.add(at);
    const sector = source.read(at, 512);
    const entries = mbrEntries(sector);
    if (entries === undefined) {
      // An extended partition that never held a logical one may have no EBR yet.
      if (seen.size === 1 && sector.length === 512 && sector.every((byte) => byte === 0)) break;
      const why = sector.length < 512 ? `is beyond the end of the image at byte ${source.size}` : 'does not end in 55 AA';
      fault(`the EBR at ${byteAndLba(at, sectorSize)} ${why}: logical partitions from ${number} on cannot be found`);
      break;
    }
    for (const entry of entries) {
      if (!isUsed(entry) || isExtendedType(entry.type)) continue;
      const start = at + BigInt(entry.start) * unit;
      const size = BigInt(entry.sectors) * unit;
      // Entries 2 and 3 are rarely used and often rubbish: they count only within the container.
      if (entry.number > 2 && (start < container.start || start + size > container.start + container.size)) continue;
      partitions.push({ number: number++, start, size, type: entry.type });
    }
    const link = entries.find((entry) => isUsed(entry) && isExtendedType(entry.type));
    if (link === undefined) break;
    at = container.start + BigInt(link.start) * unit;
  }
  return { partitions, loop };
}
