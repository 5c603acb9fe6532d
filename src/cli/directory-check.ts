/**
 * All files of a directory, as a summary with the worst of them.
 *
 *   walk ─> open, fstat, FIEMAP, close: four system calls a file        what has no place yet is put aside, because flushing waits for the device
 *   many aside ─> sync -f, once, and again without a flush               flushing each by itself took 28 s for 100,000 files of a few bytes, this one
 *   few aside ─> FIEMAP with a flush, a few at once
 *
 * Guarantees: symbolic links are not followed and other file systems not entered (they are counted); a file that cannot be read is counted, named and makes the exit code 4;
 * memory grows with the directories and the files put aside, not with the files.
 * Leaves to others: judging one file (`file-check.ts`).
 */
import { spawnSync } from 'node:child_process';
import { closeSync, constants, type Dirent, fstatSync, lstatSync, openSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { type RawExtents, readRawExtents, readRawExtentsAsync } from '../geometry/extents.js';
import { FIEMAP_EXTENT_DELALLOC, FIEMAP_EXTENT_UNKNOWN, FIEMAP_EXTENT_UNWRITTEN } from '../geometry/fiemap.js';
import type { Finding } from '../layout/model.js';
import type { AlignOptions, Judged } from './align.js';
import { columnLines } from './columns.js';
import { extentsOf, type FileTally, fileReport, groundLines, tallyFromTier, tallyOf, type Under, underOf, unknownFinding, withDisk } from './file-check.js';
import { findingLine, verdictLine } from './report-text.js';
import { roundSizeText } from './sizes.js';
import type { Subject } from './subject.js';
import { shown, type Terminal } from './terminal.js';

/** A file of which some page cannot be mapped; of several page sizes, the one with most such pages. */
export interface WorstFile {
  path: string;
  page: number;
  mappable: bigint;
  total: bigint;
  /** Pages that lie wrong, and that have no place. */
  wrong: bigint;
  unplaced: bigint;
  cause: string;
}

export interface DirectoryReport {
  path: string;
  fileSystem: string;
  /** Regular files looked at, those that could not be read included. */
  files: number;
  bytes: bigint;
  /** Every page can be mapped. */
  aligned: number;
  /** Every page but the last can be mapped, and the blocks of the file end before that does. */
  short: number;
  /** Some page lies where it cannot be mapped. */
  misaligned: number;
  /** Some page has no place of its own, and none lies wrong. */
  unplaced: number;
  empty: number;
  unreadable: number;
  skipped: { symbolicLinks: number; otherFileSystems: number; special: number };
  pages: Record<string, { mappable: bigint; total: bigint }>;
  worst: WorstFile[];
  /** The first of those that could not be read. */
  errors: Array<{ path: string; code: string }>;
}

const WORST_MAX = 10;
const ERRORS_MAX = 10;
/** Flushes under way at once: as many as libuv has threads. */
const FLUSHES_MAX = 4;
/** From so many files put aside on, the whole file system is flushed once instead. */
const FLUSH_ALL_FROM = 256;
/** Its place may change by writing back what is dirty. */
const UNSETTLED = FIEMAP_EXTENT_DELALLOC | FIEMAP_EXTENT_UNKNOWN | FIEMAP_EXTENT_UNWRITTEN;

export async function checkDirectory(subject: Subject, options: AlignOptions): Promise<Judged> {
  let under = underOf(subject, options);
  const report: DirectoryReport = {
    path: subject.path,
    fileSystem: under.fileSystem,
    files: 0,
    bytes: 0n,
    aligned: 0,
    short: 0,
    misaligned: 0,
    unplaced: 0,
    empty: 0,
    unreadable: 0,
    skipped: { symbolicLinks: 0, otherFileSystems: 0, special: 0 },
    pages: Object.fromEntries(options.pages.map((page) => [String(page), { mappable: 0n, total: 0n }])),
    worst: [],
    errors: [],
  };
  const walk = new Walk(report, under, options);
  if (under.unknown === undefined) await walk.run(subject.path);
  const unknown = under.unknown ?? walk.unknown;
  under = report.misaligned > 0 && walk.under.volume === undefined ? withDisk(walk.under, options) : walk.under;
  const judged = judgedFiles(report);
  const some = report.misaligned > 0 || Object.values(report.pages).some(({ mappable }) => mappable > 0n);
  const nothing = unknown ?? (judged === 0 ? 'there is no file with bytes in it' : some ? undefined : 'no page of any file has a whole page on the device');
  const findings = [...under.findings, ...directoryFindings(report, unknown)];
  const well = `every page of ${report.aligned} of ${judged} files can be mapped, and no page lies wrong.`;
  const whole = fileReport(subject.path, under, findings, nothing, options, well);
  return { report: whole, what: 'directory', directory: report, lines: (terminal) => directoryLines(whole, report, under, terminal) };
}

class Walk {
  /** Why nothing can be said after all. */
  unknown: string | undefined;
  readonly #report: DirectoryReport;
  /** What lies under the files; with the disk read, once a file did not say where it lies. */
  under: Under;
  readonly #options: AlignOptions;
  readonly #aside: string[] = [];
  #diskRead = false;

  constructor(report: DirectoryReport, under: Under, options: AlignOptions) {
    this.#report = report;
    this.under = under;
    this.#options = options;
  }

  async run(root: string): Promise<void> {
    const { dev } = lstatSync(`${root}/.`, { bigint: true });
    const left = [root];
    for (let folder = left.pop(); folder !== undefined && this.unknown === undefined; folder = left.pop()) {
      let entries: Dirent[];
      try {
        if (folder !== root && lstatSync(folder, { bigint: true }).dev !== dev) {
          this.#report.skipped.otherFileSystems++;
          continue;
        }
        entries = readdirSync(folder, { withFileTypes: true });
      } catch (error) {
        this.#fail(folder, error);
        continue;
      }
      for (const entry of entries) {
        const path = join(folder, entry.name);
        if (entry.isFile()) {
          this.#report.files++;
          this.#look(path);
        } else if (entry.isDirectory()) left.push(path);
        else if (entry.isSymbolicLink()) this.#report.skipped.symbolicLinks++;
        else this.#report.skipped.special++;
      }
    }
    if (this.#aside.length >= FLUSH_ALL_FROM && this.unknown === undefined) {
      // Node has no syncfs; where there is no such command, each is flushed by itself.
      spawnSync('sync', ['-f', '--', root], { stdio: 'ignore' });
      for (const path of this.#aside.splice(0)) this.#look(path);
    }
    await Promise.all(Array.from({ length: FLUSHES_MAX }, () => this.#settle()));
  }

  #look(path: string): void {
    if (this.unknown !== undefined) return;
    let fd = -1;
    try {
      fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK | constants.O_NOFOLLOW);
      const { size } = fstatSync(fd);
      const raw = size === 0 ? undefined : readRawExtents(fd, size, false);
      if (raw !== undefined && isUnsettled(raw)) this.#aside.push(path);
      else this.#count(path, size, raw);
    } catch (error) {
      this.#fail(path, error);
    } finally {
      if (fd >= 0) closeSync(fd);
    }
  }

  async #settle(): Promise<void> {
    for (let path = this.#aside.pop(); path !== undefined; path = this.#aside.pop()) {
      let fd = -1;
      try {
        fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK | constants.O_NOFOLLOW);
        const { size } = fstatSync(fd);
        this.#count(path, size, size === 0 ? undefined : await readRawExtentsAsync(fd, size, true));
      } catch (error) {
        this.#fail(path, error);
      } finally {
        if (fd >= 0) closeSync(fd);
      }
    }
  }

  #count(path: string, bytes: number, raw: RawExtents | undefined): void {
    const report = this.#report;
    const size = BigInt(bytes);
    report.bytes += size;
    if (raw === undefined) {
      report.empty++;
      return;
    }
    const extents = raw.supported ? extentsOf(raw) : undefined;
    if (extents === undefined && !this.#diskRead) {
      this.#diskRead = true;
      this.under = withDisk(this.under, this.#options);
    }
    let worst: WorstFile | undefined;
    for (const page of this.#options.pages) {
      const tally: FileTally | undefined = extents === undefined ? tallyFromTier(this.under.volume, size, page) : tallyOf(extents, size, page, this.under.base);
      if (tally === undefined) {
        this.unknown = `${this.under.fileSystem} does not tell where its files lie (no FIEMAP)`;
        return;
      }
      const { mappable, total, firstFailing } = tally.pages;
      const sum = report.pages[String(page)];
      sum.mappable += mappable;
      sum.total += total;
      if (firstFailing === undefined) continue;
      const each = { path, page, mappable, total, wrong: tally.wrong, unplaced: tally.unplaced, cause: `page ${firstFailing.page}: ${firstFailing.cause}` };
      if (worst === undefined || isWorse(each, worst)) worst = each;
    }
    if (worst === undefined) report.aligned++;
    else {
      if (worst.wrong > 0n) report.misaligned++;
      else if (worst.unplaced > 0n) report.unplaced++;
      else report.short++;
      this.#keep(worst);
    }
  }

  #keep(file: WorstFile): void {
    const { worst } = this.#report;
    const place = worst.findIndex((other) => isWorse(file, other));
    if (place >= 0) worst.splice(place, 0, file);
    else worst.push(file);
    if (worst.length > WORST_MAX) worst.pop();
  }

  #fail(path: string, error: unknown): void {
    const { code } = error as NodeJS.ErrnoException;
    if (code === undefined) throw error;
    this.#report.unreadable++;
    if (this.#report.errors.length < ERRORS_MAX) this.#report.errors.push({ path, code });
  }
}

function isWorse(a: WorstFile, b: WorstFile): boolean {
  if (a.wrong !== b.wrong) return a.wrong > b.wrong;
  if (a.unplaced !== b.unplaced) return a.unplaced > b.unplaced;
  return a.total - a.mappable > b.total - b.mappable;
}

function judgedFiles({ aligned, short, misaligned, unplaced }: DirectoryReport): number {
  return aligned + short + misaligned + unplaced;
}

function isUnsettled({ values }: RawExtents): boolean {
  for (let i = 3; i < values.length; i += 4) if ((values[i] & UNSETTLED) !== 0) return true;
  return false;
}

function directoryFindings(report: DirectoryReport, unknown: string | undefined): Finding[] {
  const findings: Finding[] = [];
  const say = (severity: Finding['severity'], code: string, message: string, fix: string): void => {
    findings.push({ severity, code, layer: 'file', partition: null, message, fix });
  };
  if (unknown !== undefined) findings.push(unknownFinding(unknown));
  const judged = judgedFiles(report);
  if (report.misaligned > 0) {
    const [first] = report.worst;
    say(
      'error',
      'E_PAGES',
      `${report.misaligned} of ${judged} files have pages that cannot be mapped because of where they lie, worst ${first.path}: ${first.cause}`,
      'sectorwise align <file> says for each what spoils it',
    );
  }
  if (report.unplaced > 0) {
    const first = report.worst.find(({ wrong, unplaced }) => wrong === 0n && unplaced > 0n);
    const example = first === undefined ? '' : `, for example ${first.path}: ${first.cause}`;
    say('warning', 'W_PAGES', `${report.unplaced} of ${judged} files have pages without a whole page of their own on the device${example}`, '');
  }
  if (report.short > 0) say('info', 'I_LAST_PAGE', `the last page of ${report.short} of ${judged} files cannot be mapped: their blocks end before it does`, '');
  if (report.unreadable > 0) {
    const [first] = report.errors;
    say('error', 'E_READ', `${report.unreadable} could not be read, first ${first.path}: ${first.code}`, 'ask as a user who may read them');
  }
  return findings;
}

function directoryLines(whole: Parameters<typeof verdictLine>[0], report: DirectoryReport, under: Under, terminal: Terminal): string[] {
  const { skipped } = report;
  const lines = [terminal.paint('bold', `${shown(report.path)}: directory, ${report.files} files, ${roundSizeText(report.bytes)}`), ...groundLines(under)];
  if (report.files > 0) {
    const rows = [
      ['files', ''],
      [String(report.aligned), 'with every page mappable'],
      [String(report.short), 'with every page mappable but the last, before whose end their blocks end'],
      [String(report.misaligned), 'with a page that lies wrong'],
      [String(report.unplaced), 'with a page that has no place of its own (hole, inline, never written)'],
      [String(report.empty), 'empty'],
      [String(report.unreadable), 'not readable'],
    ];
    lines.push('', ...columnLines(rows.filter(([count], index) => index < 2 || count !== '0')).slice(1));
  }
  for (const [page, { mappable, total }] of Object.entries(report.pages)) lines.push(`pages of ${page}: ${mappable} of ${total} can be mapped`);
  const left = [
    [skipped.symbolicLinks, 'symbolic links'],
    [skipped.otherFileSystems, 'folders of other file systems'],
    [skipped.special, 'special files'],
  ].filter(([count]) => count !== 0);
  if (left.length > 0) lines.push(`left out: ${left.map(([count, what]) => `${count} ${what}`).join(', ')}`);
  if (report.worst.length > 0) {
    const rows = report.worst.map(({ path, page, mappable, total, cause }) => [`${mappable} of ${total}`, String(page), shown(path), shown(cause)]);
    lines.push('', 'the worst:', ...columnLines([['mappable', 'pages of', 'file', 'first that is not'], ...rows]));
  }
  for (const { path, code } of report.errors) lines.push(`not readable: ${shown(path)}: ${code}`);
  if (whole.findings.length > 0) lines.push('', ...whole.findings.map((finding) => findingLine(finding, whole.target, terminal)));
  lines.push('', verdictLine(whole, terminal));
  return lines;
}
