/**
 * The partition table of an image: which there is, in which sector size, and whether it can be believed.
 *
 *   sector size (R0) ─> GPT: primary, backup, protective and hybrid MBR
 *                    ─> MBR: four entries, chains of logical partitions
 *                    ─> a volume without a table (superfloppy), nothing
 *   then, of whatever was found: overlaps, what lies beyond the end
 *
 * Guarantees: reads the first and last sectors, both arrays of a GPT (1 MiB each at most) and one block for each EBR (256 at most); a damaged copy is named and the other one
 * read on; what contradicts itself is an error of layer `table`. Throws only what the source throws, and for options that mean nothing.
 * Leaves to others: whether partitions are aligned (`check.ts`), what they hold (`volume.ts`).
 */
import { invalidValue } from '../errors.js';
import { bootSectorAt, firstSectorKind } from './boot-sector.js';
import { byteAndLba, FindingList, roundSize } from './findings.js';
import { type GptRead, gptEntries, gptEntriesMax, holdsHeader, readGpt } from './gpt.js';
import { arePlausible, isProtective, isUsed, type MbrEntry, type MbrPartition, mbrEntries, readChain } from './mbr.js';
import type { Finding, GptCopy, ImageSource, Partition, SectorSize, Table, TableKind, TableState } from './model.js';
import { limitedSource } from './source.js';
import { exemptType, isExtendedType, typeNameOf } from './types.js';

/** The sector sizes that a table is looked for in. */
export const sectorSizes: readonly number[] = [512, 1024, 2048, 4096];

const sectorSizeAssumed = 512;
/** Holds both headers and arrays of 128 entries in every sector size: one read at either end instead of several. */
const endBytes = 36 * 1024;
const lbaMax = 0xffffffffn;
/** Of a chain, to tell the sector size by it. */
const probedLinks = 8;

/** How to read a table. */
export interface TableOptions {
  /** The caller knows it (`--sector-size`). */
  sectorSize?: number;
  /** The device knows it. */
  deviceSectorSize?: number;
}

/** What is collected on the way. */
interface Reading {
  source: ImageSource;
  sectorSize: SectorSize;
  states: Set<TableState>;
  findings: FindingList;
}

/**
 * Reads the partition table of `source`.
 *
 * @throws TypeError `ERR_INVALID_ARG_VALUE` for a sector size that is none of 512, 1024, 2048, 4096
 * @throws what `source.read` throws
 */
export function readTable(unlimited: ImageSource, options: TableOptions = {}): Table {
  for (const name of ['sectorSize', 'deviceSectorSize'] as const) {
    const value = options[name];
    if (value !== undefined && !sectorSizes.includes(value)) throw invalidValue(`options.${name}`, 'must be 512, 1024, 2048 or 4096', value);
  }
  const source = limitedSource(unlimited);
  const { size } = source;
  source.read(0n, endBytes);
  if (size > BigInt(endBytes)) source.read(size - BigInt(endBytes), endBytes);

  const sector = source.read(0n, 512);
  const entries = mbrEntries(sector);
  // Some protective entries say that they have no sectors.
  const used = entries !== undefined && arePlausible(entries) ? entries.filter((entry) => isUsed(entry) || isProtective(entry)) : [];
  const isProtected = used.some(isProtective);
  const others = used.filter((entry) => !isProtective(entry));

  const findings = new FindingList();
  const states = new Set<TableState>();
  const given = options.sectorSize ?? options.deviceSectorSize;
  const headers = findHeaders(source, used);
  // A partitioned disk or a volume that took the place of a GPT leaves its backup, and sometimes its primary: without a protective entry they are remains.
  const primaries = headers.filter(({ isPrimary }) => isPrimary);
  const isGpt = headers.length > 0 && (isProtected || (others.length === 0 && (primaries.length > 0 || bootSectorAt(source, 0n) === undefined)));

  let sectorSize: SectorSize;
  if (given !== undefined) sectorSize = { value: given, source: options.sectorSize !== undefined ? 'option' : 'device' };
  else if (isGpt) sectorSize = sizeOfHeaders(source, headers, states, findings);
  else if (others.length > 0) sectorSize = sizeOfEntries(source, others, states, findings);
  else sectorSize = { value: sizeOfSignature(source) ?? sectorSizeAssumed, source: 'assumed' };
  const reading: Reading = { source, sectorSize, states, findings };

  let table: Table;
  const hasGpt = headers.some((header) => header.sectorSize === sectorSize.value);
  if (isGpt && hasGpt) table = readGptTable(reading, used);
  else {
    if (isGpt) sayOtherSectorSize(reading, headers[0].sectorSize);
    else if (headers.length > 0) {
      findings.add(
        about(
          'warning',
          'W_GPT_REMAINS',
          `a GPT header lies at byte ${headers[0].offset}, but no MBR protects it: it is what is left of an earlier table`,
          'wipefs tells it and removes it',
        ),
      );
    }
    table = readOtherTable(reading, sector, used, isProtected);
  }

  checkEnds(table, reading);
  checkOverlaps(table, reading);
  table.findings = findings.all();
  if (states.size === 0 && !table.findings.some(({ severity }) => severity === 'error') && table.kind !== 'none') states.add('ok');
  table.state = [...states];
  return table;
}

// Sector size (R0)

interface FoundHeader {
  sectorSize: number;
  isPrimary: boolean;
  offset: bigint;
}

/** Every place where a whole header lies that says it lies there: the second sector, the last one, and the last one when the protective entry was written. */
function findHeaders(source: ImageSource, mbr: readonly MbrEntry[]): FoundHeader[] {
  const found: FoundHeader[] = [];
  const protective = mbr.find(isProtective);
  for (const isPrimary of [true, false]) {
    for (const sectorSize of sectorSizes) {
      const unit = BigInt(sectorSize);
      const places = isPrimary ? [unit] : [lastSector(source.size, sectorSize)];
      if (!isPrimary && protective !== undefined) places.push(protectedEnd(protective) * unit);
      for (const offset of new Set(places)) {
        if ((isPrimary || offset > unit) && holdsHeader(source, offset, sectorSize)) found.push({ sectorSize, isPrimary, offset });
      }
    }
  }
  return found;
}

/** LBA of the last sector that a protective entry covers. */
function protectedEnd(protective: MbrEntry): bigint {
  return BigInt(protective.start) + BigInt(protective.sectors) - 1n;
}

function sizeOfHeaders(source: ImageSource, headers: FoundHeader[], states: Set<TableState>, findings: FindingList): SectorSize {
  const values = [...new Set(headers.map(({ sectorSize }) => sectorSize))];
  // Primaries come first. Of several the one with a whole array is the likelier.
  const chosen = headers.find(({ offset, sectorSize }) => readGpt(source, offset, sectorSize).copy.valid) ?? headers[0];
  if (values.length > 1)
    sayAmbiguous(
      values,
      chosen.sectorSize,
      'GPT headers with valid CRCs lie at',
      headers.map(({ offset }) => offset),
      states,
      findings,
    );
  return { value: chosen.sectorSize, source: chosen.isPrimary ? 'gpt-primary' : 'gpt-backup' };
}

function sayAmbiguous(values: number[], chosen: number, what: string, places: bigint[], states: Set<TableState>, findings: FindingList): void {
  states.add('ambiguous-sector-size');
  findings.add(
    about(
      'error',
      'E_SECTOR_AMBIGUOUS',
      `${what} ${places.map((place) => `byte ${place}`).join(', ')}: sectors of ${values.join(' and ')} bytes are both possible; ${chosen} is taken, and its numbers are not to be trusted`,
      'say which with --sector-size, and remove the remains of the other table',
    ),
  );
}

/** Of an MBR: in which size volumes lie where its partitions begin. */
function sizeOfEntries(source: ImageSource, entries: readonly MbrEntry[], states: Set<TableState>, findings: FindingList): SectorSize {
  const votes = sectorSizes.map((value) => {
    const unit = BigInt(value);
    let count = 0;
    const places: bigint[] = [];
    for (const entry of entries) {
      const start = BigInt(entry.start) * unit;
      if (start === 0n || start >= source.size) continue;
      const explains = isExtendedType(entry.type) ? logicalsAt(source, entry, value) : bootSectorAt(source, start) === undefined ? 0 : 1;
      count += explains;
      if (explains > 0) places.push(start);
    }
    const fits = entries.every((entry) => (BigInt(entry.start) + BigInt(entry.sectors)) * unit <= source.size);
    return { value, count, fits, places };
  });
  let best = votes.filter(({ count }) => count > 0);
  if (best.length === 0) return { value: sectorSizeAssumed, source: 'assumed' };
  // By chance a partition's LBA in one size may be another's in the other size: the size that explains more partitions, and then all of the table, is the right one.
  const most = Math.max(...best.map(({ count }) => count));
  best = best.filter(({ count }) => count === most);
  if (best.some(({ fits }) => fits)) best = best.filter(({ fits }) => fits);
  if (best.length > 1) {
    const places = best.flatMap((vote) => vote.places);
    sayAmbiguous(
      best.map(({ value }) => value),
      best[0].value,
      'partitions begin with a volume at',
      places,
      states,
      findings,
    );
  }
  return { value: best[0].value, source: 'boot-sector' };
}

/** Logical partitions at the beginning of a chain, which in the wrong size is none or leads astray. */
function logicalsAt(source: ImageSource, { number, start, sectors, type }: MbrEntry, sectorSize: number): number {
  const unit = BigInt(sectorSize);
  const container = { number, start: BigInt(start) * unit, size: BigInt(sectors) * unit, type };
  const { partitions } = readChain(source, container, sectorSize, 5, new FindingList(), probedLinks);
  return partitions.filter((logical) => logical.start + logical.size <= container.start + container.size).length;
}

/** A damaged header has its signature still. */
function sizeOfSignature(source: ImageSource): number | undefined {
  return (
    sectorSizes.find((value) => readGpt(source, BigInt(value), value).signature) ??
    sectorSizes.find((value) => readGpt(source, lastSector(source.size, value), value).signature)
  );
}

function sayOtherSectorSize({ sectorSize, findings, states }: Reading, other: number): void {
  states.add('no-valid-table');
  findings.add(
    about(
      'error',
      'E_SECTOR_MISMATCH',
      `the GPT was written for sectors of ${other} bytes, but this is read in sectors of ${sectorSize.value}: every LBA in it is off by a factor of ${
        Math.max(other, sectorSize.value) / Math.min(other, sectorSize.value)
      }`,
      `read it with --sector-size ${other}, or on a device with such sectors; or write the table anew for ${sectorSize.value}`,
    ),
  );
}

// GPT

function readGptTable(reading: Reading, mbr: readonly MbrEntry[]): Table {
  const { source, sectorSize, states, findings } = reading;
  const value = sectorSize.value;
  const last = lastSector(source.size, value);
  const primary = readGpt(source, BigInt(value), value);
  const backup = findBackup(source, primary, mbr, value, last);
  const best = primary.copy.valid ? primary : backup?.copy.valid ? backup : undefined;
  judgeCopies(reading, primary, backup, last);

  const table = emptyTable('gpt', reading);
  table.primary = primary.copy;
  if (backup !== undefined) table.backup = backup.copy;
  judgeMbr(reading, mbr, best);
  if (best === undefined) {
    states.add('no-valid-table');
    findings.add(
      about(
        'error',
        'E_NO_VALID_TABLE',
        `neither copy of the GPT is whole: ${primary.copy.reason}; ${backup?.copy.reason ?? 'no backup'}`,
        'restore it from a backup (sgdisk --load-backup), or find the partitions with testdisk',
      ),
    );
    if (mbr.some(isProtective)) states.add('protective-mbr-without-gpt');
    return table;
  }
  table.diskId = best.diskId;
  const { entries, cut } = gptEntries(best);
  const unit = BigInt(value);
  if (cut) {
    const { entryCount, entryBytes } = best.copy;
    findings.add(
      about(
        'warning',
        'W_GPT_ENTRIES',
        `the array has room for ${entryCount} entries of ${entryBytes} bytes; only the first ${gptEntriesMax} are looked at`,
        '',
      ),
    );
  }
  if (best.copy.entryBytes !== 128) {
    findings.add(
      about('info', 'I_GPT_ENTRY_SIZE', `entries have ${best.copy.entryBytes} bytes: UEFI allows it, but Linux reads only tables with entries of 128`, ''),
    );
  }
  for (const entry of entries) {
    const start = entry.firstLba * unit;
    if (entry.lastLba < entry.firstLba) {
      states.add('partition-beyond-end');
      findings.add({
        severity: 'error',
        code: 'E_PARTITION_RANGE',
        layer: 'table',
        partition: entry.number,
        value: start,
        message: `ends before it begins: from ${byteAndLba(start, value)} to LBA ${entry.lastLba}; it is left out`,
        fix: 'delete the entry, or restore its numbers from the other copy',
      });
      continue;
    }
    const partition: Partition = {
      number: entry.number,
      start,
      size: (entry.lastLba - entry.firstLba + 1n) * unit,
      type: entry.type,
      name: entry.name,
      uuid: entry.uuid,
      exempt: exemptType(entry.type),
      aligned: false,
    };
    const typeName = typeNameOf(entry.type);
    if (typeName !== undefined) partition.typeName = typeName;
    table.partitions.push(partition);
  }
  checkUsable(
    reading,
    table,
    best,
    [primary, backup].flatMap((each) => (each?.copy.valid ? [each.copy] : [])),
  );
  return table;
}

/** Where a backup may be: at the end; where the primary says; where the disk ended when the protective entry was written. */
function findBackup(source: ImageSource, primary: GptRead, mbr: readonly MbrEntry[], sectorSize: number, last: bigint): GptRead | undefined {
  const unit = BigInt(sectorSize);
  const places = [last];
  if (primary.headerValid) places.push(primary.alternate);
  const protective = mbr.find(isProtective);
  if (protective !== undefined) places.push(protectedEnd(protective) * unit);
  let signed: GptRead | undefined;
  for (const place of new Set(places)) {
    if (place <= unit || place >= source.size) continue;
    const read = readGpt(source, place, sectorSize);
    if (read.copy.valid) return read;
    if (read.signature) signed ??= read;
  }
  return signed;
}

function judgeCopies({ source, sectorSize, states, findings }: Reading, primary: GptRead, backup: GptRead | undefined, last: bigint): void {
  const { value } = sectorSize;
  if (!primary.copy.valid) {
    states.add('primary-bad');
    if (backup?.copy.valid) {
      const fix = 'write it anew from the backup: sgdisk --load-backup, or gdisk: r, b, w; do not let sfdisk or fdisk write, they may see a DOS disk';
      findings.add(
        about(
          'warning',
          'W_PRIMARY_BAD',
          `the primary GPT at ${byteAndLba(primary.copy.header, value)} is damaged: ${primary.copy.reason}; the backup is read instead`,
          fix,
        ),
      );
    }
  }
  if (backup === undefined) {
    states.add('backup-missing');
    const truncated = primary.headerValid && primary.alternate >= source.size;
    const where = truncated
      ? `it should be at ${byteAndLba(primary.alternate, value)}, and the image ends at byte ${source.size}: ${primary.alternate + BigInt(value) - source.size} bytes are missing`
      : `there is none at ${byteAndLba(last, value)}, the last sector`;
    const fix = truncated ? 'the image is truncated: copy it again; or, if nothing is missing, sgdisk --move-second-header' : 'sgdisk --move-second-header';
    findings.add(about('warning', 'W_BACKUP_MISSING', `no backup of the GPT: ${where}`, fix));
    return;
  }
  if (!backup.copy.valid) {
    states.add('backup-bad');
    if (primary.copy.valid) {
      findings.add(
        about(
          'warning',
          'W_BACKUP_BAD',
          `the backup GPT at ${byteAndLba(backup.copy.header, value)} is damaged: ${backup.copy.reason}; the primary is read`,
          'write it anew from the primary: sgdisk --move-second-header',
        ),
      );
    }
  }
  if (backup.copy.header !== last) {
    states.add('backup-not-at-end');
    findings.add({
      ...about(
        'warning',
        'W_BACKUP_NOT_AT_END',
        `the backup GPT is at ${byteAndLba(backup.copy.header, value)}, the last sector at ${byteAndLba(last, value)}: the disk grew by ${roundSize(last - backup.copy.header)} after the table was written`,
        'sgdisk --move-second-header',
      ),
      value: backup.copy.header,
    });
  }
  if (primary.copy.valid && backup.copy.valid) {
    const differ = primary.diskId !== backup.diskId || primary.arrayCrc !== backup.arrayCrc || primary.copy.entryBytes !== backup.copy.entryBytes;
    if (differ) {
      states.add('backup-bad');
      findings.add(
        about(
          'error',
          'E_COPIES_DIFFER',
          'both copies of the GPT are whole but do not say the same: one of them is of another time or disk; the primary is read',
          'compare them (sgdisk --verify), then write both from the right one',
        ),
      );
    } else if (primary.alternate !== backup.copy.header) {
      const message = `the primary GPT says that its backup is at ${byteAndLba(primary.alternate, value)}, but it is at ${byteAndLba(backup.copy.header, value)}`;
      findings.add(about('warning', 'W_BACKUP_POINTER', message, 'sgdisk --move-second-header'));
    }
  }
}

/** The MBR beside a GPT: should protect all of the disk and say nothing else. */
function judgeMbr({ source, sectorSize, states, findings }: Reading, mbr: readonly MbrEntry[], best: GptRead | undefined): void {
  const unit = BigInt(sectorSize.value);
  const protective = mbr.find(isProtective);
  if (protective === undefined) {
    findings.add(
      about(
        'warning',
        'W_PMBR_MISSING',
        'no protective MBR: Linux and most firmware do not see this GPT, and other tools see an empty disk',
        'sgdisk writes one with any change',
      ),
    );
    return;
  }
  const others = mbr.filter((entry) => !isProtective(entry));
  if (others.length > 0) {
    states.add('hybrid-mbr');
    const listed = others.map((entry) => {
      const start = BigInt(entry.start) * unit;
      const same = gptEntryAt(best, BigInt(entry.start), BigInt(entry.sectors));
      return `entry ${entry.number} (0x${entry.type.toString(16).padStart(2, '0')}, ${byteAndLba(start, sectorSize.value)}) ${same === undefined ? 'is no partition of the GPT' : `is GPT partition ${same}`}`;
    });
    findings.add(
      about(
        'warning',
        'W_HYBRID_MBR',
        `a hybrid MBR: what reads the MBR and what reads the GPT see two different disks: ${listed.join(', ')}`,
        'keep it only where something needs it; else write a protective MBR (gdisk: x, n, w)',
      ),
    );
    return;
  }
  const whole = source.size / unit - 1n;
  const expected = whole < lbaMax ? whole : lbaMax;
  const found = BigInt(protective.sectors);
  if (protective.start !== 1 || (found !== expected && found !== lbaMax)) {
    findings.add(
      about(
        'info',
        'I_PMBR_SIZE',
        `the protective entry covers ${found} sectors from LBA ${protective.start} on; ${expected} from LBA 1 on would be the whole disk`,
        'any tool that writes the table corrects it',
      ),
    );
  }
}

function gptEntryAt(best: GptRead | undefined, start: bigint, sectors: bigint): number | undefined {
  if (best === undefined) return undefined;
  return gptEntries(best).entries.find(({ firstLba, lastLba }) => firstLba === start && lastLba - firstLba + 1n === sectors)?.number;
}

/** Partitions that lie over the table itself, or outside of what it calls usable. */
function checkUsable({ sectorSize, states, findings }: Reading, table: Table, { copy }: GptRead, copies: readonly GptCopy[]): void {
  const unit = BigInt(sectorSize.value);
  const taken = copies.flatMap(({ header, entries, entryCount, entryBytes }) => [
    { what: `the GPT header at ${byteAndLba(header, sectorSize.value)}`, start: header, end: header + unit },
    { what: `the GPT entries at ${byteAndLba(entries, sectorSize.value)}`, start: entries, end: entries + BigInt(entryCount) * BigInt(entryBytes) },
  ]);
  taken.unshift({ what: 'the protective MBR', start: 0n, end: unit });
  for (const partition of table.partitions) {
    const end = partition.start + partition.size;
    const over = taken.find((range) => partition.start < range.end && range.start < end);
    if (over !== undefined) {
      states.add('overlap');
      findings.add({
        severity: 'error',
        code: 'E_OVERLAP',
        layer: 'table',
        partition: partition.number,
        value: partition.start,
        message: `from ${byteAndLba(partition.start, sectorSize.value)} to byte ${end} it lies over ${over.what}`,
        fix: 'a write to it destroys the table, and the other way round: save its content and make it anew elsewhere',
      });
    } else if (partition.start < copy.firstUsable || end > copy.lastUsable + unit) {
      findings.add({
        severity: 'warning',
        code: 'W_OUTSIDE_USABLE',
        layer: 'table',
        partition: partition.number,
        value: partition.start,
        message: `from ${byteAndLba(partition.start, sectorSize.value)} to byte ${end} it is not within the usable range, ${byteAndLba(copy.firstUsable, sectorSize.value)} to byte ${copy.lastUsable + unit}`,
        fix: 'sgdisk --verify says what tools will refuse',
      });
    }
  }
}

// MBR, superfloppy, none

function readOtherTable(reading: Reading, sector: Uint8Array, used: readonly MbrEntry[], isProtected: boolean): Table {
  const { source, sectorSize, states, findings } = reading;
  const others = used.filter((entry) => !isProtective(entry));
  const damaged = [readGpt(source, BigInt(sectorSize.value), sectorSize.value), readGpt(source, lastSector(source.size, sectorSize.value), sectorSize.value)];
  const hasSignature = damaged.some(({ signature }) => signature);
  if (isProtected) {
    sayUnprotected(reading, damaged);
    const table = others.length > 0 ? readMbrTable(reading, used) : emptyTable(hasSignature ? 'gpt' : 'pmbr-only', reading);
    if (others.length > 0) states.add('hybrid-mbr');
    if (damaged[0].signature) table.primary = damaged[0].copy;
    if (damaged[1].signature) table.backup = damaged[1].copy;
    return table;
  }
  const kind = firstSectorKind(sector);
  // A file system's boot sector ends in 55 AA too; its code rarely makes four entries that could be a table of this disk.
  if (others.length > 0 && (kind === undefined || isWholeTable(source, sector, others, sectorSize.value))) {
    if (kind !== undefined) {
      findings.add(
        about(
          'warning',
          'W_BOOT_SECTOR_AND_TABLE',
          `sector 0 is a boot sector of ${kind} and a partition table at once: tools do not agree which; the table is read`,
          'clear the file system signature if the table is right (wipefs)',
        ),
      );
    }
    return readMbrTable(reading, used);
  }
  if (bootSectorAt(source, 0n) !== undefined) return emptyTable('superfloppy', reading);
  if (hasSignature) {
    const table = emptyTable('gpt', reading);
    states.add('no-valid-table');
    for (const [index, { signature, copy }] of damaged.entries()) {
      if (!signature) continue;
      states.add(index === 0 ? 'primary-bad' : 'backup-bad');
      table[index === 0 ? 'primary' : 'backup'] = copy;
    }
    findings.add(
      about('error', 'E_NO_VALID_TABLE', noWholeCopy(damaged), 'restore it from a backup (sgdisk --load-backup), or find the partitions with testdisk'),
    );
    return table;
  }
  const entries = mbrEntries(sector);
  const isEmpty = entries?.every(({ status, type, start, sectors }) => status === 0 && type === 0 && start === 0 && sectors === 0) === true;
  if (entries !== undefined && !isEmpty) {
    findings.add(about('info', 'I_NO_TABLE', 'sector 0 ends in 55 AA, but its four entries are no partition table, and no known file system begins there', ''));
  }
  return emptyTable(isEmpty ? 'mbr' : 'none', reading);
}

function noWholeCopy(damaged: readonly GptRead[]): string {
  return `neither copy of the GPT is whole: primary: ${damaged[0].copy.reason}; at the end: ${damaged[1].copy.reason}`;
}

/** A protective MBR, and no GPT that it could protect: sfdisk shows such a disk as DOS with one partition of type ee, without a word. */
function sayUnprotected({ states, findings }: Reading, damaged: readonly GptRead[]): void {
  if (damaged[0].signature) states.add('primary-bad');
  if (damaged[1].signature) states.add('backup-bad');
  states.add('no-valid-table');
  states.add('protective-mbr-without-gpt');
  if (findings.has('E_SECTOR_MISMATCH')) return;
  findings.add(
    about(
      'error',
      'E_NO_VALID_TABLE',
      `a protective MBR, but ${noWholeCopy(damaged)}`,
      'restore the GPT from a backup (sgdisk --load-backup), or find the partitions with testdisk; do not write to the disk with tools that show it as DOS',
    ),
  );
}

/** Entries that a boot sector's code does not make by chance: each unused one is empty, each used one lies within the image and none over another. */
function isWholeTable(source: ImageSource, sector: Uint8Array, used: readonly MbrEntry[], sectorSize: number): boolean {
  const entries = mbrEntries(sector) ?? [];
  if (!entries.every((entry) => isUsed(entry) || (entry.type === 0 && entry.sectors === 0))) return false;
  const ranges = used.map((entry) => [BigInt(entry.start), BigInt(entry.start) + BigInt(entry.sectors)]).sort((a, b) => (a[0] < b[0] ? -1 : 1));
  return ranges.every(([start, end], index) => start > 0n && end * BigInt(sectorSize) <= source.size && (index === 0 || ranges[index - 1][1] <= start));
}

function readMbrTable(reading: Reading, used: readonly MbrEntry[]): Table {
  const { source, sectorSize, states, findings } = reading;
  const unit = BigInt(sectorSize.value);
  const table = emptyTable('mbr', reading);
  const containers: MbrPartition[] = [];
  for (const entry of used) {
    if (isProtective(entry)) continue;
    const partition = { number: entry.number, start: BigInt(entry.start) * unit, size: BigInt(entry.sectors) * unit, type: entry.type };
    if (isExtendedType(entry.type)) containers.push(partition);
    else table.partitions.push(mbrPartition(partition));
  }
  let next = 5;
  for (const container of containers) {
    table.extended.push({ start: container.start, size: container.size });
    const { partitions, loop } = readChain(source, container, sectorSize.value, next, findings);
    if (loop) states.add('ebr-loop');
    next += partitions.length;
    for (const logical of partitions) {
      table.partitions.push(mbrPartition(logical));
      if (logical.start >= container.start && logical.start + logical.size <= container.start + container.size) continue;
      findings.add({
        severity: 'error',
        code: 'E_LOGICAL_OUTSIDE',
        layer: 'table',
        partition: logical.number,
        value: logical.start,
        message: `a logical partition from ${byteAndLba(logical.start, sectorSize.value)} to byte ${logical.start + logical.size}, outside of its extended partition, which is from ${byteAndLba(
          container.start,
          sectorSize.value,
        )} to byte ${container.start + container.size}`,
        fix: 'restore the chain of logical partitions from a backup, or find them with testdisk',
      });
      states.add('overlap');
    }
  }
  return table;
}

function mbrPartition({ number, start, size, type }: MbrPartition): Partition {
  const name = `0x${type.toString(16).padStart(2, '0')}`;
  const partition: Partition = { number, start, size, type: name, exempt: exemptType(name), aligned: false };
  const typeName = typeNameOf(name);
  if (typeName !== undefined) partition.typeName = typeName;
  return partition;
}

// Of every table

function checkEnds(table: Table, { source, sectorSize, states, findings }: Reading): void {
  const beyond = (number: number, what: string, end: bigint) => {
    states.add('partition-beyond-end');
    findings.add({
      severity: 'error',
      code: 'E_BEYOND_END',
      layer: 'table',
      partition: number,
      value: end,
      message: `${what}ends at ${byteAndLba(end, sectorSize.value)}, ${end - source.size} bytes beyond the end at byte ${source.size}`,
      fix: 'the image is truncated or the disk is another: copy it again; do not let a tool shrink the partition to fit before its file system was shrunk',
    });
  };
  for (const { number, start, size } of table.partitions) if (start + size > source.size) beyond(number, '', start + size);
}

function checkOverlaps(table: Table, { sectorSize, states, findings }: Reading): void {
  interface Range {
    number: number | null;
    start: bigint;
    end: bigint;
    isContainer: boolean;
  }
  const overlaps = (ranges: Range[]) => {
    ranges.sort((a, b) => (a.start < b.start ? -1 : a.start > b.start ? 1 : a.end < b.end ? -1 : 1));
    let furthest: Range | undefined;
    for (const range of ranges) {
      if (furthest !== undefined && range.start < furthest.end) {
        states.add('overlap');
        const shared = (range.end < furthest.end ? range.end : furthest.end) - range.start;
        const name = furthest.isContainer ? 'the extended partition' : `partition ${furthest.number}`;
        findings.add({
          severity: 'error',
          code: 'E_OVERLAP',
          layer: 'table',
          partition: range.number,
          value: range.start,
          message: `${range.isContainer ? 'the extended partition ' : ''}begins at ${byteAndLba(range.start, sectorSize.value)}, before the end of ${name} at byte ${furthest.end}: they share ${shared} bytes`,
          fix: 'a write to one destroys the other: find out which holds the file system (its own size tells), save it, and make the other anew',
        });
      }
      if (furthest === undefined || range.end > furthest.end) furthest = range;
    }
  };
  const range = ({ number, start, size }: Partition): Range => ({ number, start, end: start + size, isContainer: false });
  const containers = table.extended.map(({ start, size }): Range => ({ number: null, start, end: start + size, isContainer: true }));
  if (containers.length === 0) overlaps(table.partitions.map(range));
  else {
    // Logical partitions lie in a container by right: it is compared with the primary ones, and they with each other.
    overlaps([...table.partitions.filter(({ number }) => number <= 4).map(range), ...containers]);
    overlaps(table.partitions.filter(({ number }) => number > 4).map(range));
  }
}

function emptyTable(kind: TableKind, { sectorSize }: Reading): Table {
  return { kind, state: [], sectorSize, partitions: [], extended: [], findings: [] };
}

/** A finding about the table as a whole. */
function about(severity: Finding['severity'], code: string, message: string, fix: string): Finding {
  return { severity, code, layer: 'table', partition: null, message, fix };
}

/** Byte of the last whole sector; an image may end within one. */
function lastSector(size: bigint, sectorSize: number): bigint {
  const unit = BigInt(sectorSize);
  return (size / unit) * unit - unit;
}
