/**
 * What lies on a disk already, so that a new table does not silently take its place.
 *
 * Guarantees: reads only both ends and what tables and superblocks point to (4 MiB at most); names what it found. A disk counts as empty only if nothing is recognised *and* the
 * sectors that a table takes are all zero: data of a kind that nobody knows is data too.
 * Leaves to others: the decision (`write-plan.ts`).
 */
import { byteAndLba } from './findings.js';
import { hasText } from './little-endian.js';
import type { ImageSource, Table } from './model.js';
import { limitedSource } from './source.js';
import { readTable, sectorSizes } from './table.js';
import { readVolume } from './volume.js';

/** PMBR, header and 128 entries in the largest sectors: 1 + 1 + 4 of 4096. */
const TABLE_BYTES = 6 * 4096;

export interface Occupant {
  /** `a GPT with 3 partitions`. */
  what: string;
  /** Where else copies of the old table lie: ranges that would be recognised again. */
  remains: { offset: bigint; length: bigint }[];
}

/** Undefined for an empty disk. */
export function occupantOf(unlimited: ImageSource): Occupant | undefined {
  const source = limitedSource(unlimited);
  const table = readTable(source);
  const remains = staleHeaders(source, table);
  const whole = readVolume(source, { offset: 0n, size: source.size, partition: null, pages: [4096] });
  if (table.kind === 'gpt' || table.kind === 'mbr') {
    const count = table.partitions.length;
    return {
      what: `${table.kind === 'gpt' ? 'a GPT' : 'an MBR'} with ${count} partition${count === 1 ? '' : 's'} (sectors of ${table.sectorSize.value})`,
      remains,
    };
  }
  if (whole !== null) return { what: `a volume of kind ${whole.kind}`, remains };
  if (table.kind === 'superfloppy') return { what: 'a file system without a table', remains };
  if (table.kind === 'pmbr-only') return { what: 'a protective MBR whose GPT is damaged', remains };
  if (remains.length > 0) return { what: `what is left of a GPT, at byte ${remains[0].offset}`, remains };
  const data = firstData(source);
  return data === undefined ? undefined : { what: `data of no known kind where the table goes, first at ${byteAndLba(data, 512)}`, remains };
}

/** Sectors that begin as a header of GPT does, wherever a table of any sector size has or had one. */
function staleHeaders(source: ImageSource, { primary, backup }: Table): Occupant['remains'] {
  const places = new Set<bigint>();
  for (const size of sectorSizes) places.add(BigInt(size)).add(source.size - BigInt(size));
  for (const copy of [primary, backup]) if (copy !== undefined) places.add(copy.header);
  return [...places].filter((offset) => offset >= 0n && hasText(source.read(offset, 8), 0, 'EFI PART')).map((offset) => ({ offset, length: 512n }));
}

/** The first byte that is not zero among those that a table takes. */
function firstData(source: ImageSource): bigint | undefined {
  const tail = source.size > BigInt(TABLE_BYTES) ? source.size - BigInt(TABLE_BYTES) : 0n;
  for (const offset of [0n, tail]) {
    const found = source.read(offset, TABLE_BYTES).findIndex((byte) => byte !== 0);
    if (found !== -1) return offset + BigInt(found);
  }
  return undefined;
}
