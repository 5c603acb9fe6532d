/**
 * A report for people: what was looked at, the map, the partitions, one line for each finding, the verdict.
 *
 *   error E_START p1: starts at byte 32256 (LBA 63), 32256 % 4096 = 3584; move to LBA 2048
 *   severity code where: what, with the division; what mends it
 *
 * Guarantees: a finding is one line whatever the terminal's width, so that it can be searched for; what came from the medium is shown without its control characters.
 */
import { basename } from 'node:path';
import type { FileReport, Finding, Partition, Report, Severity, Topology, Volume } from '../layout/model.js';
import { columnLines } from './columns.js';
import { mapLines } from './map.js';
import { piecesOf } from './pieces.js';
import { flat } from './report-json.js';
import { roundSizeText, sizeText } from './sizes.js';
import { type Colour, shown, type Terminal } from './terminal.js';

const SHORT: Record<Severity, string> = { error: 'error', warning: 'warn', info: 'info' };

const SECTOR_SOURCES: Record<Report['sectorSize']['source'], string> = {
  option: 'as told',
  device: 'the device says so',
  'gpt-primary': 'a GPT header with a valid CRC lies there',
  'gpt-backup': 'the backup GPT header with a valid CRC lies there',
  'boot-sector': 'a boot sector lies where the table says',
  assumed: 'assumed, nothing tells',
};

const TABLES: Record<Report['table']['kind'], string> = {
  gpt: 'GPT',
  mbr: 'MBR',
  superfloppy: 'none: one file system fills it',
  'pmbr-only': 'a protective MBR without a GPT',
  none: 'none',
};

/** The name that findings about no partition carry: `sda`, `disk.img`. */
export function findingLine(finding: Finding, target: string, terminal: Terminal): string {
  const where = finding.partition === null ? shown(basename(target)) : `p${finding.partition}`;
  const severity = terminal.paint(finding.severity as Colour, SHORT[finding.severity]);
  return `${severity} ${finding.code} ${where}: ${shown(finding.message)}${finding.fix === '' ? '' : `; ${shown(finding.fix)}`}`;
}

export function verdictLine(report: Report, terminal: Terminal): string {
  const { worst, exit, verdict } = report.summary;
  const colour: Colour = exit !== 0 ? 'error' : worst === 'warning' ? 'warning' : 'good';
  return terminal.paint(colour, `verdict: ${shown(verdict)}`);
}

/** Of a disk or an image of `size` bytes. `what` says what it is and why it was taken for that. */
export function reportLines(report: Report, size: bigint, what: string, terminal: Terminal): string[] {
  const { table, topology } = report;
  const lines = [
    terminal.paint('bold', `${shown(report.target)}: ${what}`),
    `${sizeText(size)}; sectors of ${report.sectorSize.value} bytes (${SECTOR_SOURCES[report.sectorSize.source]}); ${topologyText(topology)}`,
    `table: ${TABLES[table.kind]}${table.state.length === 0 ? '' : `, ${table.state.join(', ')}`}`,
  ];
  const pieces = piecesOf(report, size);
  if (table.partitions.length > 0) lines.push('', ...mapLines(pieces, terminal.columns, (text) => terminal.paint('error', text)));
  const rows = contentLines(report);
  if (rows.length > 0) lines.push('', ...rows);
  if (report.file !== undefined) lines.push('', `${shown(report.file.path)} in it: ${sizeText(report.file.size)}`, ...pageLines(report.file));
  if (report.findings.length > 0) lines.push('', ...report.findings.map((finding) => findingLine(finding, report.target, terminal)));
  lines.push('', verdictLine(report, terminal));
  return lines;
}

/** How many pages of a file can be mapped, a line for each page size. */
export function pageLines(file: FileReport): string[] {
  return Object.entries(file.pages).map(
    ([page, { mappable, total, longestRun }]) =>
      `pages of ${page}: ${mappable} of ${total} can be mapped, the longest run ${longestRun.pages}${longestRun.pages > 0n ? ` at byte ${longestRun.offset}` : ''}`,
  );
}

export function topologyText({ physical, minimumIo, optimalIo, alignmentOffset, zone, source }: Topology): string {
  const parts = [`physical ${physical}`];
  if (minimumIo > 0 && source === 'device') parts.push(`minimum I/O ${minimumIo}`);
  if (optimalIo > 0) parts.push(`optimal I/O ${optimalIo}`);
  if (alignmentOffset !== 0) parts.push(`alignment offset ${alignmentOffset}`);
  if (zone > 0) parts.push(`zones of ${sizeText(BigInt(zone))}`);
  const sources = { device: 'by the device', option: 'as told', assumed: 'assumed: an image does not tell' };
  return `${parts.join(', ')} (${sources[source]})`;
}

/** Partitions and what is in them, a line each; volumes inside of others below those. */
function contentLines(report: Report): string[] {
  const pages = pageSizes(report.volumes);
  const head = ['', 'start', 'size', 'type', 'holds', 'data begins', 'unit', ...pages.map((page) => `pages of ${page}`)];
  const rows: string[][] = [];
  const sector = BigInt(report.sectorSize.value);
  for (const partition of report.table.partitions) {
    const own = report.volumes.filter((volume) => volume.partition === partition.number);
    const [first, ...more] = flat(own);
    rows.push([
      `p${partition.number}`,
      `${partition.start} (LBA ${partition.start / sector})`,
      roundSizeText(partition.size),
      shown(typeText(partition)),
      ...volumeCells(first, pages, false),
    ]);
    for (const volume of more) rows.push(['', '', '', '', ...volumeCells(volume, pages, !own.includes(volume))]);
  }
  for (const volume of flat(report.volumes.filter(({ partition }) => partition === null))) {
    rows.push([
      '',
      `${volume.offset} (LBA ${volume.offset / sector})`,
      volume.size === undefined ? '' : roundSizeText(volume.size),
      '',
      ...volumeCells(volume, pages, false),
    ]);
  }
  return rows.length === 0 ? [] : columnLines([head, ...rows]);
}

export function pageSizes(volumes: readonly Volume[]): string[] {
  return [...new Set(flat(volumes).flatMap(({ tiers }) => Object.keys(tiers)))].sort((a, b) => Number(a) - Number(b));
}

function volumeCells(volume: Volume | undefined, pages: readonly string[], nested: boolean): string[] {
  if (volume === undefined) return ['', '', '', ...pages.map(() => '')];
  const name = volume.name === undefined ? '' : ` ${volume.name}`;
  return [
    `${nested ? '> ' : ''}${volume.kind}${shown(name)}`,
    volume.kind === 'swap' ? '' : sizeText(volume.dataOffset),
    sizeText(BigInt(volume.unit)),
    ...pages.map((page) => (volume.kind === 'swap' ? '' : volume.opaque ? 'encrypted' : (volume.tiers[page]?.absolute ?? ''))),
  ];
}

function typeText({ type, typeName, name }: Partition): string {
  const kind = typeName ?? type;
  return name === undefined || name === '' ? kind : `${kind} "${name}"`;
}
