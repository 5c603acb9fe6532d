/**
 * A device or an image on the command line: what is read, and what a partition's node adds.
 *
 *   /dev/sda1   the node shows bytes from the partition's start on: what lies in it is judged from there, as who maps the node sees it;
 *               where the partition itself lies on its disk, only sysfs says, and that is judged here (rule R1)
 *
 * Guarantees: opens for reading alone; loads no native code.
 * Leaves to others: judging what is read (`src/layout/check.ts`).
 */
import { checkLayout } from '../layout/check.js';
import { byteAndLba } from '../layout/findings.js';
import type { Finding, ImageSource, Report, Topology } from '../layout/model.js';
import { endModulus, grain, grainFor, lcm, remainder, requiredAlignment, roundDown, roundUp } from '../layout/rules.js';
import { type FileSource, openSource } from '../layout/source.js';
import type { AlignOptions, Judged } from './align.js';
import { reportLines } from './report-text.js';
import { type Ground, groundOf, type Subject } from './subject.js';

export async function checkDevice(subject: Subject, options: AlignOptions): Promise<Judged> {
  const ground = groundOf(subject.numbers);
  return readingUntil(subject.path, async (source) => {
    if (ground === undefined) return judged(await check(source, subject.path, options, undefined), source.size, 'block device that sysfs does not know');
    const { device, topology } = ground;
    // The disk's offset counts from the disk's start, which a partition's node does not show.
    const seen = device.partition === undefined || topology.alignmentOffset < 0 ? topology : { ...topology, alignmentOffset: 0 };
    const report = await check(source, subject.path, options, seen);
    const what =
      device.partition === undefined ? 'block device' : `partition ${device.partition} of ${device.disk}, where it begins at byte ${device.startBytes}`;
    return judged(withFindings(report, placeFindings(ground, options), options), source.size, what);
  });
}

export async function checkImage(subject: Subject, options: AlignOptions, why: string): Promise<Judged> {
  return readingUntil(subject.path, async (source) => judged(await check(source, subject.path, options, undefined), source.size, `image (${why})`));
}

/** Opens `path` for as long as `read` takes. */
export function reading<T>(path: string, read: (source: FileSource) => T): T {
  const source = openSource(path);
  try {
    return read(source);
  } finally {
    source.close();
  }
}

async function readingUntil<T>(path: string, read: (source: FileSource) => Promise<T>): Promise<T> {
  const source = openSource(path);
  try {
    return await read(source);
  } finally {
    source.close();
  }
}

async function check(source: ImageSource, target: string, options: AlignOptions, topology: Topology | undefined): Promise<Report> {
  const { pages, sectorSize, physical, strict, inside } = options;
  const report = checkLayout(source, { pages, sectorSize, physical, strict, target, topology });
  if (inside === undefined) return report;
  const { withInside } = await import('./inside-check.js');
  return withInside(report, source, inside, options);
}

function judged(report: Report, size: bigint, what: string): Judged {
  return { report, what, size, lines: (terminal) => reportLines(report, size, what, terminal) };
}

/** Where a partition lies on its disk, by sysfs: rules R1 and R4. Empty for a whole device. */
export function placeFindings({ device, topology }: Ground, { pages, physical }: Pick<AlignOptions, 'pages' | 'physical'>): Finding[] {
  const { partition, startBytes, sizeBytes, disk } = device;
  if (partition === undefined) return [];
  const findings: Finding[] = [];
  const asked = { ...topology, physical: physical ?? topology.physical };
  const required = requiredAlignment(asked, pages);
  const offset = BigInt(Math.max(0, topology.alignmentOffset));
  const start = BigInt(startBytes);
  const size = BigInt(sizeBytes);
  const sector = topology.logical;
  const rest = remainder(start - offset, required);
  const shown = offset === 0n ? `${start}` : `(${start} - alignment_offset ${offset})`;
  if (rest !== 0n) {
    const wanted = lcm(grainFor(size, grain(asked), required), required);
    findings.push({
      severity: 'error',
      code: 'E_START',
      layer: 'partition',
      partition,
      value: start - offset,
      modulus: required,
      remainder: rest,
      message: `starts at ${byteAndLba(start, sector)} of ${disk}, ${shown} % ${required} = ${rest}`,
      fix: `move to LBA ${(roundUp(start - offset, wanted) + offset) / BigInt(sector)}`,
    });
  } else if (device.alignmentOffset !== undefined && device.alignmentOffset !== 0 && topology.alignmentOffset >= 0) {
    findings.push({
      severity: 'warning',
      code: 'W_ALIGNMENT_OFFSET',
      layer: 'partition',
      partition,
      value: BigInt(device.alignmentOffset),
      modulus: required,
      remainder: remainder(BigInt(device.alignmentOffset), required),
      message: `starts at ${byteAndLba(start, sector)} of ${disk}, ${shown} % ${required} = 0, but the kernel reports alignment_offset ${device.alignmentOffset} of it`,
      fix: `look at /sys/block/${disk}/alignment_offset: one of the two is wrong`,
    });
  }
  const modulus = endModulus(sector);
  const end = start + size;
  if (end % modulus !== 0n) {
    findings.push({
      severity: 'warning',
      code: 'W_END',
      layer: 'partition',
      partition,
      value: end,
      modulus,
      remainder: end % modulus,
      message: `ends at ${byteAndLba(end, sector)} of ${disk}, ${end} % ${modulus} = ${end % modulus}: LUKS2 and others refuse it`,
      fix: `make it ${(roundDown(end, modulus) - start) / BigInt(sector)} sectors long`,
    });
  }
  return findings;
}

/** The report with findings of outer layers put before its own, or with `place` those of inner ones behind. */
export function withFindings(
  report: Report,
  findings: readonly Finding[],
  { strict, pages }: Pick<AlignOptions, 'strict' | 'pages'>,
  place: 'before' | 'behind' = 'before',
): Report {
  if (findings.length === 0) return report;
  const spoils = findings.find(({ severity }) => severity === 'error') ?? (strict ? findings.find(({ severity }) => severity === 'warning') : undefined);
  const all = place === 'before' ? [...findings, ...report.findings] : [...report.findings, ...findings];
  const worst = (['error', 'warning', 'info'] as const).find((each) => all.some(({ severity }) => severity === each)) ?? null;
  const { exit, verdict } = report.summary;
  if (spoils === undefined || exit === 4 || exit === 2 || (exit === 1 && place === 'behind'))
    return { ...report, findings: all, summary: { worst, exit, verdict } };
  const where = spoils.partition === null ? '' : `partition ${spoils.partition}: `;
  return {
    ...report,
    findings: all,
    summary: {
      worst,
      exit: 1,
      verdict: `Not laid out for pages of ${pages.join(', ')} bytes: the ${spoils.layer} layer spoils it: ${where}${spoils.message}.`,
    },
  };
}
