/**
 * A file on a mounted file system: which of its pages can be mapped as pages of the disk (rule R7), and if not all, which layer spoils it.
 *
 *   pages of the file ── FIEMAP ──> bytes of the file system's device ── + start of the partition ──> bytes of the disk
 *
 * Where the partition begins, sysfs says. Only if pages lie wrong, or the file system names no places, the disk itself is read (where this user may), so that the layer at fault gets
 * its name.
 *
 * Guarantees: what is not written yet is written first (FIEMAP_FLAG_SYNC), nothing else is changed; a file system that names no places on a device is exit code 3, never 0.
 * Leaves to others: rule R7 itself (`src/layout/file-pages.ts`).
 */
import { closeSync, constants, openSync, statfsSync } from 'node:fs';
import { fileSystemName } from '../geometry/direct-io.js';
import { type RawExtents, readRawExtents } from '../geometry/extents.js';
import { checkLayout } from '../layout/check.js';
import { type FileExtent, filePages, isInPlace } from '../layout/file-pages.js';
import type { ExitCode, FilePages, FileReport, Finding, Report, Volume } from '../layout/model.js';
import { version } from '../layout/version.js';
import type { AlignOptions, Judged } from './align.js';
import { placeFindings, reading } from './disk-check.js';
import { flat } from './report-json.js';
import { findingLine, pageLines, topologyText, verdictLine } from './report-text.js';
import { sizeText } from './sizes.js';
import { type Ground, groundOf, type Subject } from './subject.js';
import { shown, type Terminal } from './terminal.js';

/** File systems whose FIEMAP gives addresses of their own, and those that lie on several devices or on none that st_dev names. */
const OWN_ADDRESSES = new Set(['btrfs', 'bcachefs', 'zfs']);

/** What lies under a directory or file. */
export interface Under {
  fileSystem: string;
  ground: Ground | undefined;
  /** Where the file system's device begins on the disk. */
  base: bigint;
  /** Of the device and the partition; of the volume, too, once the disk was read. */
  findings: Finding[];
  /** The volume that the files lie in, once the disk was read. */
  volume: Volume | undefined;
  /** Why no place of a file can be named here. */
  unknown: string | undefined;
}

/** Looks at what the file system lies on. `subject` names any file or folder on it. */
export function underOf(subject: Subject, options: AlignOptions): Under {
  const fileSystem = fileSystemName(statfsSync(subject.path).type);
  const ground = groundOf(subject.numbers);
  const none = { fileSystem, ground, base: 0n, findings: [], volume: undefined };
  if (OWN_ADDRESSES.has(fileSystem)) return { ...none, unknown: `the addresses that ${fileSystem} tells are its own, not places on a device` };
  if (ground === undefined) return { ...none, unknown: `${fileSystem} lies on no block device that can be named` };
  const base = BigInt(ground.device.startBytes);
  return { fileSystem, ground, base, findings: placeFindings(ground, options), volume: undefined, unknown: undefined };
}

/** The same after reading the disk; unchanged where this user may not, or where it says nothing about this file system. */
export function withDisk(under: Under, options: AlignOptions): Under {
  const onDisk = under.ground === undefined ? undefined : readDisk(under.ground, options);
  return onDisk === undefined ? under : { ...under, ...onDisk };
}

/** The layers under the file as the disk itself shows them; undefined where this user may not read it. */
function readDisk({ device, topology }: Ground, { pages, physical, strict }: AlignOptions): { findings: Finding[]; volume: Volume | undefined } | undefined {
  try {
    const report = reading(`/dev/${device.disk}`, (source) => checkLayout(source, { pages, physical, strict, topology }));
    const number = device.partition ?? null;
    // A table that the kernel did not make this partition from says nothing about it.
    const same = number === null || report.table.partitions.some((each) => each.number === number && each.start === BigInt(device.startBytes));
    if (!same) return undefined;
    const findings = report.findings.filter(
      ({ layer, partition, severity }) => severity !== 'info' && layer !== 'table' && (layer === 'device' || partition === number),
    );
    return { findings, volume: report.volumes.find(({ partition }) => partition === number) };
  } catch (error) {
    if ((error as NodeJS.ErrnoException).syscall === undefined) throw error;
    return undefined;
  }
}

/** How the pages of one file stand; `wrong`, `short`, `unplaced` and `pages.mappable` are together all of them. */
export interface FileTally {
  pages: FilePages;
  /** The file's bytes in the page have their place on the device, but not as one page of it. */
  wrong: bigint;
  /** The last page begins as it should, but the file's blocks end before the page does. 0 or 1. */
  short: bigint;
  /** Some of the file's bytes in the page have no place: holes, inline, never written. */
  unplaced: bigint;
}

/** What FIEMAP said, for `filePages`. */
export function extentsOf({ values }: RawExtents): FileExtent[] {
  const extents: FileExtent[] = [];
  for (let i = 0; i + 4 <= values.length; i += 4) {
    extents.push({ logical: BigInt(values[i]), physical: BigInt(values[i + 1]), length: BigInt(values[i + 2]), flags: values[i + 3] });
  }
  return extents;
}

export function tallyOf(extents: readonly FileExtent[], size: bigint, page: number, base: bigint): FileTally {
  const pages = filePages(extents, size, page, base);
  // As if the file's blocks went on to the end of its last page: what is still wrong then is not because they end.
  const bytes = BigInt(page);
  const end = size + ((bytes - (size % bytes)) % bytes);
  const last = extents.at(-1);
  const reaches = last !== undefined && last.logical < size && last.logical + last.length >= size && last.logical + last.length < end;
  const longer = reaches ? [...extents.slice(0, -1), { ...last, length: end - last.logical }] : extents;
  const mappable = reaches ? filePages(longer, size, page, base).mappable : pages.mappable;
  const placed = placedPages(longer, size, bytes);
  return { pages, wrong: placed - mappable, short: mappable - pages.mappable, unplaced: pages.total - placed };
}

/**
 * Where the file system names no places (FAT and exFAT have no FIEMAP), the volume under it still says what holds for every file: clusters of whole pages that begin on pages, or that
 * begin where no page can. Undefined where it depends on the file, or where the volume could not be read.
 */
export function tallyFromTier(volume: Volume | undefined, size: bigint, page: number): FileTally | undefined {
  if (volume === undefined || !['fat12', 'fat16', 'fat32', 'exfat'].includes(volume.kind)) return undefined;
  const tier = volume.tiers[String(page)]?.absolute;
  if (tier === undefined || tier === 'per-file') return undefined;
  const total = (size + BigInt(page) - 1n) / BigInt(page);
  const tail = Number(size % BigInt(page));
  const others = { short: 0n, unplaced: 0n };
  if (tier === 'guaranteed') return { pages: { mappable: total, total, longestRun: { pages: total > 0n ? 1n : 0n, offset: 0n }, tail }, wrong: 0n, ...others };
  const heap = volume.dataOffsetAbsolute;
  const cause = `the clusters of this ${volume.kind} begin at byte ${heap}, ${heap} % ${page} = ${heap % BigInt(page)}`;
  return {
    pages: { mappable: 0n, total, longestRun: { pages: 0n, offset: 0n }, firstFailing: { page: 0n, offset: 0n, cause }, tail },
    wrong: total,
    ...others,
  };
}

function placedPages(extents: readonly FileExtent[], size: bigint, page: bigint): bigint {
  const total = (size + page - 1n) / page;
  let placed = 0n;
  let from = 0n;
  let to = 0n;
  const count = (): void => {
    const first = (from + page - 1n) / page;
    const end = to / page < total ? to / page : total;
    if (end > first) placed += end - first;
  };
  for (const { logical, length, flags } of extents) {
    if (!isInPlace(flags)) continue;
    if (logical === to) to += length;
    else {
      count();
      [from, to] = [logical, logical + length];
    }
  }
  count();
  return placed;
}

export function checkFile(subject: Subject, options: AlignOptions): Judged {
  let under = underOf(subject, options);
  const fd = openSync(subject.path, constants.O_RDONLY | constants.O_NONBLOCK);
  let raw: RawExtents;
  try {
    raw = under.unknown === undefined ? readRawExtents(fd, Number(subject.size), true) : { supported: false, values: new Float64Array(0) };
  } finally {
    closeSync(fd);
  }
  const tallies = new Map<number, FileTally>();
  const extents = raw.supported ? extentsOf(raw) : undefined;
  if (extents === undefined && under.unknown === undefined) under = withDisk(under, options);
  for (const page of options.pages) {
    const tally = extents === undefined ? tallyFromTier(under.volume, subject.size, page) : tallyOf(extents, subject.size, page, under.base);
    if (tally !== undefined) tallies.set(page, tally);
  }
  if (extents !== undefined && [...tallies.values()].some(({ wrong }) => wrong > 0n)) under = withDisk(under, options);
  const unknown = under.unknown ?? (tallies.size === options.pages.length ? undefined : `${under.fileSystem} does not tell where its files lie (no FIEMAP)`);
  const findings = [
    ...under.findings,
    ...(unknown === undefined ? [] : [unknownFinding(unknown)]),
    ...fileFindings(tallies, subject.size, under.volume, under.findings),
  ];
  const file: FileReport = {
    path: subject.path,
    size: subject.size,
    fileSystem: under.fileSystem,
    pages: Object.fromEntries([...tallies].map(([page, { pages }]) => [String(page), pages])),
  };
  const some = [...tallies.values()].some(({ pages, wrong }) => pages.mappable + wrong > 0n);
  const nothing = unknown ?? (subject.size === 0n ? 'the file is empty' : some ? undefined : 'no page of the file has a whole page on the device');
  const report = fileReport(subject.path, under, findings, nothing, options, subject.size > 0n ? good(tallies) : '');
  report.file = file;
  const what = `file (nothing in it is known as a table or a file system${options.as === 'file' ? ', or --as file' : ''})`;
  return { report, what: 'file', lines: (terminal) => fileLines(report, file, under, what, terminal) };
}

export function good(tallies: ReadonlyMap<number, FileTally>): string {
  const text = [...tallies].map(([page, { pages }]) => `${pages.mappable} of ${pages.total} pages of ${page}`).join(', ');
  return `${text} can be mapped.`;
}

/** What of the file itself is wrong, for each page size. `under` are the findings about the layers below it. */
export function fileFindings(tallies: ReadonlyMap<number, FileTally>, size: bigint, volume: Volume | undefined, under: readonly Finding[]): Finding[] {
  const findings: Finding[] = [];
  const say = (
    severity: Finding['severity'],
    code: string,
    message: string,
    fix: string,
    numbers: Pick<Finding, 'value' | 'modulus' | 'remainder'> = {},
  ): void => {
    findings.push({ severity, code, layer: 'file', partition: null, ...numbers, message, fix });
  };
  for (const [page, { pages, wrong, short, unplaced }] of tallies) {
    const { total, firstFailing, tail } = pages;
    const first = firstFailing === undefined ? '' : `: page ${firstFailing.page}: ${firstFailing.cause}`;
    if (wrong > 0n) {
      const tier = volume === undefined ? undefined : flat([volume]).at(-1)?.tiers[String(page)]?.absolute;
      const fix =
        under.some(({ severity }) => severity === 'error') || tier === 'impossible'
          ? 'mend the layer under it first, then copy the file anew'
          : `use a file system whose blocks are ${page} bytes or more, or copy the file anew and check again`;
      say('error', 'E_PAGES', `${wrong} of ${total} pages of ${page} cannot be mapped because of where they lie${first}`, fix, { value: wrong });
    }
    if (unplaced > 0n) {
      const message = `${unplaced} of ${total} pages of ${page} have no whole page on the device${wrong > 0n ? '' : first}`;
      say(
        'warning',
        'W_PAGES',
        message,
        'write the file whole (holes and reserved blocks hold nothing), on a file system that neither packs nor compresses it',
      );
    }
    if (short > 0n) say('info', 'I_LAST_PAGE', `the last page of ${page} cannot be mapped: the blocks of the file end before it does`, '');
    if (tail > 0)
      say('info', 'I_TAIL', `the last page of ${page} holds ${tail} bytes of the file (${size} % ${page} = ${tail}); the rest of it is not the file's`, '', {
        value: size,
        modulus: BigInt(page),
        remainder: BigInt(tail),
      });
  }
  return findings;
}

export function unknownFinding(why: string): Finding {
  return { severity: 'info', code: 'I_UNKNOWN', layer: 'file', partition: null, message: `where it lies cannot be said: ${why}`, fix: '' };
}

/** A report about what lies on a mounted file system; `nothing` says why there is nothing to judge, `well` what holds if all is well. */
export function fileReport(
  target: string,
  under: Under,
  findings: Finding[],
  nothing: string | undefined,
  { pages, physical, strict }: AlignOptions,
  well: string,
): Report {
  const topology = under.ground?.topology ?? {
    logical: 512,
    physical: 4096,
    minimumIo: 0,
    optimalIo: 0,
    alignmentOffset: 0,
    zone: 0,
    chunk: 0,
    source: 'assumed',
  };
  const sectorSize = { value: topology.logical, source: under.ground === undefined ? ('assumed' as const) : ('device' as const) };
  const error = findings.find(({ severity }) => severity === 'error') ?? (strict ? findings.find(({ severity }) => severity === 'warning') : undefined);
  const exit: ExitCode = findings.some(({ code }) => code === 'E_READ') ? 4 : nothing !== undefined ? 3 : error !== undefined ? 1 : 0;
  const worst = (['error', 'warning', 'info'] as const).find((each) => findings.some(({ severity }) => severity === each)) ?? null;
  const partition = under.ground?.device.partition;
  const where = error?.partition != null ? `partition ${error.partition}: ` : '';
  const verdicts: Partial<Record<ExitCode, string>> = {
    4: 'Not all of it could be read.',
    3: `Nothing to judge: ${nothing}.`,
    1: `Not laid out for pages of ${pages.join(', ')} bytes: the ${error?.layer} layer spoils it: ${where}${error?.message}.`,
  };
  return {
    schemaVersion: 1,
    tool: 'sectorwise',
    version,
    target,
    sectorSize,
    topology: physical === undefined ? topology : { ...topology, physical, source: 'option' },
    table: {
      kind: 'none',
      state: [],
      sectorSize,
      partitions:
        partition === undefined
          ? []
          : [
              {
                number: partition,
                start: under.base,
                size: BigInt(under.ground?.device.sizeBytes ?? 0),
                type: '',
                exempt: false,
                aligned: !under.findings.some(({ code }) => code === 'E_START'),
              },
            ],
      extended: [],
      findings: [],
    },
    volumes: under.volume === undefined ? [] : [under.volume],
    findings,
    summary: { worst, exit, verdict: verdicts[exit] ?? `Aligned: ${well}` },
  };
}

/** The first lines about a file or directory: what lies under it. */
export function groundLines(under: Under): string[] {
  if (under.ground === undefined) return [`on ${under.fileSystem}`];
  const { device, topology } = under.ground;
  const place = device.partition === undefined ? '' : `, which begins at byte ${device.startBytes} of ${device.disk}`;
  return [`on ${under.fileSystem}, device ${device.name}${place}; sectors of ${topology.logical} bytes; ${topologyText(topology)}`];
}

function fileLines(report: Report, file: FileReport, under: Under, what: string, terminal: Terminal): string[] {
  const lines = [terminal.paint('bold', `${shown(report.target)}: ${what}`), `${sizeText(file.size)} ${groundLines(under)[0]}`, ...pageLines(file)];
  if (report.findings.length > 0) lines.push('', ...report.findings.map((finding) => findingLine(finding, report.target, terminal)));
  lines.push('', verdictLine(report, terminal));
  return lines;
}
