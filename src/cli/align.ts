/**
 * `sectorwise align`: judges each path on its command line through every layer, and ends with one exit code for all.
 *
 *   device ───────────> limits from sysfs, table and volumes on it             disk-check.ts
 *   image  ───────────> table and volumes in it                                disk-check.ts
 *   file   ───────────> its extents, the partition and volume under it         file-check.ts
 *   directory ────────> the same for every file, as a summary                  directory-check.ts
 *
 * Guarantees: a regular file is an image if a table or a known volume lies in it or its name or emptiness says that it is to be one, else a file; the output says which and why.
 * Of several exit codes the one that comes first in 64, 4, 2, 3, 1, 0 wins.
 * Leaves to others: judging (`src/layout/check.ts`), showing (`report-text.ts`, `report-json.ts`, `svg.ts`).
 */
import { writeFileSync } from 'node:fs';
import { extname } from 'node:path';
import { combinedExit } from '../layout/check.js';
import type { ExitCode, Report } from '../layout/model.js';
import { version } from '../layout/version.js';
import { type Command, powerOfTwo, sectorSizeOf, textOf, UsageError, type Values } from './command.js';
import type { DirectoryReport } from './directory-check.js';
import { checkDevice, checkImage } from './disk-check.js';
import { reportObject } from './report-json.js';
import { findingLine, pageSizes, reportLines } from './report-text.js';
import { type Subject, subjectOf } from './subject.js';
import { shown, type Terminal } from './terminal.js';

/** File names that say what is meant, where nothing that is known lies in the file. */
const IMAGE_ENDINGS = new Set(['.img', '.image', '.raw', '.dd', '.disk', '.iso', '.hddimg', '.wic', '.rootfs']);

/** What a target is that could not be looked at. */
const UNREADABLE = 'unreadable';

const PAGES_MAX = 8;
const PAGE_MIN = 512;
const PAGE_MAX = 1 << 30;

const HELP = `Usage: sectorwise align [options] <device | image | file | directory>...

Is it laid out so that it can be mapped page by page, and if not, which layer
spoils it and what mends it? Looks at the partition table (both copies), starts
and ends of partitions against sectors, pages and I/O sizes, the first byte of
every file system's data, and for files where each page of them lies. Only reads.

  device      /dev/sda, /dev/sda1: with the limits that the kernel reports of it
  image       a regular file with a table or a file system in it; needs no root
              and no loop device; physical sectors of 4096 are assumed
  file        any other regular file: the extents of it, and what lies under them
  directory   all files in it, on the same file system: a summary, the worst first

  --page LIST        page sizes to be mappable with (default 4096; for example
                     4096,16384,65536)
  --physical N       physical sector size of an image's disk (default 4096)
  --sector-size N    logical sector size of an image (default: what lies in it tells)
  --as image|file    what a regular file is taken for
  --inside [N:]PATH  also judges a file in it that nobody mounted, on partition N
                     (FAT, exFAT, ext2/3/4, XFS, NTFS)
  --strict           warnings count as errors
  --json             reports as JSON (docs/schemas/align-1.json); several targets
                     give an array of them
  --quiet            nothing but errors and warnings, one line each
  --svg FILE         the map as an SVG (one device or image)
  --no-color         no colours on a terminal; NO_COLOR does the same
  --help             this text

Exit code: 0 aligned; 1 alignment error; 2 table damaged or contradictory; 3 there
is nothing to judge; 4 could not read; 64 usage. Of several the first of 64, 4,
2, 3, 1, 0. Sizes are bytes; K, M, G are powers of 1024.
`;

/** What to judge by, and how to show it. */
export interface AlignOptions {
  pages: number[];
  sectorSize: number | undefined;
  physical: number | undefined;
  as: 'image' | 'file' | undefined;
  /** A file in an image or device that is not mounted: `[N:]/path`. */
  inside: string | undefined;
  strict: boolean;
  json: boolean;
  quiet: boolean;
  svg: string | undefined;
}

/** One target's outcome. */
export interface Judged {
  report: Report;
  /** What it is, and why it was taken for that. */
  what: string;
  /** Lines for people. */
  lines(terminal: Terminal): string[];
  directory?: DirectoryReport;
  /** Bytes of the disk or image; undefined of files and directories. */
  size?: bigint;
}

function optionsOf(values: Values): AlignOptions {
  const as = textOf(values, 'as');
  if (as !== undefined && as !== 'image' && as !== 'file') throw new UsageError(`--as is image or file, not '${as}'`);
  const physical = textOf(values, 'physical');
  const inside = textOf(values, 'inside');
  if (inside !== undefined && as === 'file') throw new UsageError('--inside looks into an image, --as file does not');
  const pages = (textOf(values, 'page') ?? '4096').split(',').map((text) => powerOfTwo(text, 'page', PAGE_MIN, PAGE_MAX));
  const distinct = [...new Set(pages)].sort((a, b) => a - b);
  if (distinct.length > PAGES_MAX) throw new UsageError(`--page takes at most ${PAGES_MAX} sizes`);
  return {
    pages: distinct,
    sectorSize: sectorSizeOf(values, 'sector-size'),
    physical: physical === undefined ? undefined : powerOfTwo(physical, 'physical', 512, 1 << 20),
    as: inside === undefined ? as : 'image',
    inside,
    strict: values.strict === true,
    json: values.json === true,
    quiet: values.quiet === true,
    svg: textOf(values, 'svg'),
  };
}

async function run(values: Values, targets: string[], terminal: Terminal): Promise<ExitCode> {
  const options = optionsOf(values);
  if (targets.length === 0) throw new UsageError('align what? Name devices, images, files or directories');
  if (options.svg !== undefined && targets.length > 1) throw new UsageError('--svg draws one device or image at a time');
  if (options.quiet && options.json) throw new UsageError('--quiet and --json exclude each other');
  let exit: ExitCode = 0;
  const objects: Array<Record<string, unknown>> = [];
  for (const [index, target] of targets.entries()) {
    const judged = await judgeOrTell(target, options);
    exit = combinedExit([exit, judged.report.summary.exit]);
    // Known to whoever ends the process early: a reader that goes away.
    process.exitCode = exit;
    const { report } = judged;
    if (options.svg !== undefined && judged.what !== UNREADABLE) await drawTo(options.svg, judged, options);
    if (report.summary.exit === 4)
      for (const finding of report.findings) if (finding.code === 'E_READ') terminal.err(`sectorwise: ${shown(target)}: ${shown(finding.message)}\n`);
    if (options.json) objects.push(reportObject(report, judged.directory));
    else if (options.quiet) {
      const told = report.findings.filter(({ severity }) => severity !== 'info' && judged.what !== UNREADABLE);
      for (const finding of told) terminal.out(`${targets.length > 1 ? `${shown(target)}: ` : ''}${findingLine(finding, target, terminal)}\n`);
    } else {
      const lines = judged.lines(terminal);
      if (lines.length > 0) terminal.out(`${index > 0 ? '\n' : ''}${lines.join('\n')}\n`);
    }
  }
  if (options.json) terminal.out(`${JSON.stringify(targets.length === 1 ? objects[0] : objects, null, 2)}\n`);
  return exit;
}

async function drawTo(path: string, judged: Judged, options: AlignOptions): Promise<void> {
  if (judged.size === undefined) throw new UsageError('--svg draws devices and images; where a file lies: sectorwise extents --svg');
  const { svgOf } = await import('./svg.js');
  const page = String(options.pages[0]);
  writeFileSync(path, svgOf(judged.report, judged.size, pageSizes(judged.report.volumes).includes(page) ? page : '4096'));
}

/** What cannot be read is a report, too: exit code 4, and the others are judged all the same. */
async function judgeOrTell(target: string, options: AlignOptions): Promise<Judged> {
  try {
    return await judge(target, options);
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    if (error instanceof UsageError || code === undefined) throw error;
    return unreadable(target, message);
  }
}

async function judge(target: string, options: AlignOptions): Promise<Judged> {
  const subject = subjectOf(target);
  if (subject.kind === 'device') return checkDevice(subject, options);
  if (subject.kind === 'directory') {
    if (options.as === 'image') throw new UsageError(`${target} is a directory, not an image`);
    const { checkDirectory } = await import('./directory-check.js');
    return checkDirectory(subject, options);
  }
  if (options.as !== 'file') {
    const image = await checkImage(subject, options, options.inside === undefined ? 'as told by --as image' : 'as --inside says');
    const { table, volumes } = image.report;
    if (options.as === 'image') return image;
    if (table.kind !== 'none' || volumes.length > 0) {
      const found = table.kind === 'none' || table.kind === 'superfloppy' ? 'a file system fills it' : 'a partition table lies in it';
      return { ...image, ...imageWords(`${found}; --as file judges where the file itself lies`, image) };
    }
    const why = blankImage(subject);
    if (why !== undefined) return { ...image, ...imageWords(`${why}; --as file judges where the file itself lies`, image) };
  }
  const { checkFile } = await import('./file-check.js');
  return checkFile(subject, options);
}

/** Why a file in which nothing is known is meant to be an image all the same. */
function blankImage({ path, size, allocated }: Subject): string | undefined {
  if (IMAGE_ENDINGS.has(extname(path).toLowerCase())) return `its name ends in ${extname(path)}`;
  if (size > 0n && size % 512n === 0n && allocated === 0n) return 'nothing has been written into it';
  return undefined;
}

function imageWords(why: string, { report, size }: Judged): Pick<Judged, 'what' | 'lines'> {
  const what = `image (${why})`;
  return { what, lines: (terminal) => reportLines(report, size ?? 0n, what, terminal) };
}

function unreadable(target: string, message: string): Judged {
  const report: Report = {
    schemaVersion: 1,
    tool: 'sectorwise',
    version,
    target,
    sectorSize: { value: 512, source: 'assumed' },
    topology: { logical: 512, physical: 4096, minimumIo: 0, optimalIo: 0, alignmentOffset: 0, zone: 0, chunk: 0, source: 'assumed' },
    table: { kind: 'none', state: [], sectorSize: { value: 512, source: 'assumed' }, partitions: [], extended: [], findings: [] },
    volumes: [],
    findings: [{ severity: 'error', code: 'E_READ', layer: 'device', partition: null, message, fix: '' }],
    summary: { worst: 'error', exit: 4, verdict: 'it could not be read' },
  };
  return { report, what: UNREADABLE, lines: () => [] };
}

export const command: Command = {
  help: HELP,
  options: {
    json: { type: 'boolean' },
    strict: { type: 'boolean' },
    quiet: { type: 'boolean', short: 'q' },
    physical: { type: 'string' },
    'sector-size': { type: 'string' },
    page: { type: 'string' },
    as: { type: 'string' },
    inside: { type: 'string' },
    svg: { type: 'string' },
  },
  run,
};
