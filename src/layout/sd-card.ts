/**
 * What the SD Association's file system specification (Part 2, version 3.00) lays down for a card of a given capacity.
 *
 * A card's controller erases and moves data in units far above a page; the specification names one for each range of capacities, the boundary unit (BU): the partition
 * begins on one, and so does the first cluster. exFAT's allocation table lies at half a unit, the first cluster at a whole one.
 *
 * Guarantees: one row for every capacity; beyond the table (SDUC, above 2 TiB) the last row, which `exact` tells.
 * Leaves to others: the master boot record that the specification asks for; plans are GPT.
 */

const KIBIBYTE = 1024;
const MEBIBYTE = 1024 * KIBIBYTE;
const GIBIBYTE = 1024 * MEBIBYTE;

/** A row of the table. */
export interface SdCardProfile {
  /** SDSC to 2 GiB, SDHC to 32 GiB, SDXC to 2 TiB, SDUC above. */
  family: 'SDSC' | 'SDHC' | 'SDXC' | 'SDUC';
  /** Bytes that the partition's start and the first cluster are multiples of. */
  boundaryUnit: number;
  /** Bytes of a cluster. */
  cluster: number;
  /** What the specification formats such a card with. */
  fs: 'fat12' | 'fat16' | 'fat32' | 'exfat';
  /** The table has a row for this capacity; false above 2 TiB. */
  exact: boolean;
}

type Row = Omit<SdCardProfile, 'exact'> & { capacityMax: number };

const rows: Row[] = [
  { capacityMax: 8 * MEBIBYTE, family: 'SDSC', fs: 'fat12', cluster: 8 * KIBIBYTE, boundaryUnit: 8 * KIBIBYTE },
  { capacityMax: 64 * MEBIBYTE, family: 'SDSC', fs: 'fat12', cluster: 16 * KIBIBYTE, boundaryUnit: 16 * KIBIBYTE },
  { capacityMax: 256 * MEBIBYTE, family: 'SDSC', fs: 'fat16', cluster: 16 * KIBIBYTE, boundaryUnit: 32 * KIBIBYTE },
  { capacityMax: GIBIBYTE, family: 'SDSC', fs: 'fat16', cluster: 16 * KIBIBYTE, boundaryUnit: 64 * KIBIBYTE },
  { capacityMax: 2 * GIBIBYTE, family: 'SDSC', fs: 'fat16', cluster: 32 * KIBIBYTE, boundaryUnit: 64 * KIBIBYTE },
  { capacityMax: 32 * GIBIBYTE, family: 'SDHC', fs: 'fat32', cluster: 32 * KIBIBYTE, boundaryUnit: 4 * MEBIBYTE },
  { capacityMax: 128 * GIBIBYTE, family: 'SDXC', fs: 'exfat', cluster: 128 * KIBIBYTE, boundaryUnit: 16 * MEBIBYTE },
  { capacityMax: 512 * GIBIBYTE, family: 'SDXC', fs: 'exfat', cluster: 256 * KIBIBYTE, boundaryUnit: 32 * MEBIBYTE },
  { capacityMax: 2048 * GIBIBYTE, family: 'SDXC', fs: 'exfat', cluster: 512 * KIBIBYTE, boundaryUnit: 64 * MEBIBYTE },
];

/** What a card of so many bytes is to be laid out by. */
export function sdCardProfile(size: bigint): SdCardProfile {
  const { capacityMax: _, ...row } = rows.find(({ capacityMax }) => size <= BigInt(capacityMax)) ?? { ...rows[rows.length - 1]!, family: 'SDUC' as const };
  return { ...row, exact: row.family !== 'SDUC' };
}
