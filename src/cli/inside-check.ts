/**
 * A file inside of an image or device that is not mounted: `--inside [N:]/path`, where N is the partition.
 *
 *   image ── volume (found by `checkLayout`) ── metadata of its file system ──> extents ──> pages (rule R7)
 *
 * Guarantees: reads metadata only; where several volumes could hold the file, the first that does is taken.
 * Leaves to others: walking file systems (`src/layout/image-files.ts`).
 */
import { systemError } from '../errors.js';
import { imageExtents } from '../layout/image-files.js';
import type { FileReport, ImageSource, Report, Volume } from '../layout/model.js';
import type { AlignOptions } from './align.js';
import { UsageError } from './command.js';
import { withFindings } from './disk-check.js';
import { type FileTally, fileFindings, good, tallyOf } from './file-check.js';
import { flat } from './report-json.js';

const ENOENT = -2;
/** Layers and swap hold no files of their own. */
const NO_FILES = new Set(['lvm2', 'md', 'swap']);

/** What `--inside` says. @throws UsageError for what is no path from a volume's root */
export function insideOf(text: string): { partition: number | undefined; path: string } {
  const match = /^(?:(\d{1,5}):)?(\/.*)$/s.exec(text);
  if (match === null) throw new UsageError(`--inside takes a path from the root of the file system such as /boot/vmlinuz or 2:/boot/vmlinuz, not '${text}'`);
  return { partition: match[1] === undefined ? undefined : Number(match[1]), path: match[2] };
}

/** The report of the image with the file's pages added, and what of them is wrong. @throws ENOENT where no volume has the file, and what a file system's walk throws */
export function withInside(report: Report, source: ImageSource, inside: string, options: AlignOptions): Report {
  const { partition, path } = insideOf(inside);
  const volumes = flat(report.volumes).filter((volume) => !NO_FILES.has(volume.kind) && (partition === undefined || volume.partition === partition));
  let missing: unknown;
  for (const volume of volumes) {
    try {
      return judged(report, source, volume, path, options);
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if (code === 'ERR_SECTORWISE_UNSUPPORTED') return unsupported(report, error as Error);
      if (code !== 'ENOENT' && code !== 'ENOTDIR') throw error;
      missing = error;
    }
  }
  throw missing ?? systemError(ENOENT, 'open', { path: inside });
}

function judged(report: Report, source: ImageSource, volume: Volume, path: string, options: AlignOptions): Report {
  const { size, extents } = imageExtents(source, volume, path);
  const tallies = new Map<number, FileTally>(options.pages.map((page) => [page, tallyOf(extents, size, page, volume.offset)]));
  const file: FileReport = { path, size, fileSystem: volume.kind, pages: Object.fromEntries([...tallies].map(([page, { pages }]) => [String(page), pages])) };
  const findings = fileFindings(tallies, size, volume, report.findings).map((finding) => ({
    ...finding,
    partition: volume.partition,
    message: `${path}: ${finding.message}`,
  }));
  const { summary, ...rest } = withFindings({ ...report, file }, findings, options, 'behind');
  const own = summary.exit === 0 ? `${summary.verdict} Of ${path}, ${good(tallies)}` : summary.verdict;
  return { ...rest, summary: { ...summary, verdict: own } };
}

function unsupported(report: Report, error: Error): Report {
  const finding = { severity: 'info' as const, code: 'I_UNKNOWN', layer: 'file' as const, partition: null, message: error.message, fix: '' };
  const { worst, exit } = report.summary;
  return {
    ...report,
    findings: [...report.findings, finding],
    summary: { worst: worst ?? 'info', exit: exit === 4 || exit === 2 ? exit : 3, verdict: `Nothing to judge: ${error.message}` },
  };
}
