/**
 * `sectorwise plan`: an aligned layout as a table, a script for sfdisk, the lines that make the file systems, and with `--write` the table itself in an image or on a device.
 *
 * Guarantees: without `--write` nothing is opened for writing; with it, what holds a table or a file system is refused unless `--force` is given.
 * Leaves to others: planning (`src/layout/plan.ts`), writing (`src/layout/write-plan.ts`).
 */
import { existsSync, writeFileSync } from 'node:fs';
import { sfdiskScript } from '../layout/gpt-writer.js';
import { mkfsLines } from '../layout/mkfs.js';
import type { ExitCode, Report, Volume } from '../layout/model.js';
import { type Plan, type PlannedMedia, type PlannedPart, type PlanOptions, type PlanPartition, planLayout } from '../layout/plan.js';
import { exemptType } from '../layout/types.js';
import { version } from '../layout/version.js';
import { type WriteReport, writePlan } from '../layout/write-plan.js';
import { columnLines } from './columns.js';
import { type Command, nearest, powerOfTwo, sectorSizeOf, sizeOf, textOf, UsageError, type Values } from './command.js';
import { reading } from './disk-check.js';
import { mapLines } from './map.js';
import { piecesOf } from './pieces.js';
import { exact } from './report-json.js';
import { findingLine } from './report-text.js';
import { parseSize, roundSizeText, sizeText } from './sizes.js';
import { groundOf, subjectOf } from './subject.js';
import { shown, type Terminal } from './terminal.js';

const PART_KEYS = ['name', 'type', 'size', 'fs', 'cluster', 'boundary', 'uuid'];

/** The type of a partition of which only the file system was named. */
const TYPE_OF: Record<string, string> = { fat12: 'data', fat16: 'data', fat32: 'data', exfat: 'data', ntfs: 'data', swap: 'swap', lvm2: 'lvm' };

const HELP = `Usage: sectorwise plan --size SIZE --part KEY=VALUE,... [--part ...] [options]

Lays partitions out so that every page of every file can be mapped: starts on
the grain (1 MiB, or what the device asks for), ends on whole pages, FAT's
reserved sectors solved so that its clusters begin on a boundary. Prints the
table, the script for sfdisk, and the lines that make the file systems.
Nothing is written unless --write says where.

  --size SIZE        of the whole disk or image (with --write: that of what is there)
  --part KEYS        one partition, in the order in which they lie:
      name=TEXT      its name in the table
      type=TYPE      esp, linux, swap, data, lvm, home, bios, ... or a GUID
                     (default: what suits the file system)
      size=SIZE      without it, all that is left (of one partition)
      fs=KIND        fat12 fat16 fat32 exfat ext2 ext3 ext4 xfs ntfs btrfs luks1
                     luks2 lvm2 swap
      cluster=SIZE   of a cluster or block
      boundary=SIZE  start and first cluster are multiples of it
      uuid=GUID      its GUID
  --sector-size N    logical sectors: 512 (default), 1024, 2048, 4096
  --physical N       physical sectors (default 4096)
  --page LIST        page sizes to be mappable with (default 4096)
  --grain SIZE       starts are multiples of this, too
  --media KIND       disk (default), flash (grain of 4 MiB at least), sd (boundary
                     units of the SD specification)
  --optimal-io SIZE  optimal_io_size of the device; ignored where it is none
  --minimum-io SIZE  minimum_io_size
  --disk-id GUID     makes the same plan again: the partitions' GUIDs follow from it
  --write PATH       writes the table into an image (made if missing) or onto a
                     device that nobody uses; a device's own limits are taken
  --force            with --write: also over a table or file system that is there
  --dry-run          with --write: only say what would be written
  --only WHAT        sfdisk or mkfs: that alone, to be piped
  --json             the plan as JSON
  --svg FILE         the map as an SVG
  --no-color         no colours on a terminal
  --help             this text

Sizes: 512M, 64G (powers of 1024), 2048s (sectors of 512), bytes. A comma within
a value is written \\, .
Exit code: 0 planned (and written), 4 refused by the system or because something
is there, 64 usage, or a plan that does not fit.

Example:
  sectorwise plan --size 64G --part name=efi,type=esp,size=512M,fs=fat32 \\
                  --part name=root,type=linux,fs=ext4
`;

/** What `--part` says. */
export function parsePart(text: string): PlannedPart {
  const part: Record<string, unknown> = {};
  for (const item of text.split(/(?<!\\),/)) {
    const at = item.indexOf('=');
    const key = item.slice(0, at < 0 ? undefined : at).trim();
    const value = at < 0 ? '' : item.slice(at + 1).replaceAll('\\,', ',');
    if (!PART_KEYS.includes(key)) {
      const near = nearest(key, PART_KEYS);
      throw new UsageError(`--part ${text}: there is no '${key}'${near === undefined ? `; there are ${PART_KEYS.join(', ')}` : `; did you mean ${near}?`}`);
    }
    if (value === '') throw new UsageError(`--part ${text}: ${key}=... needs a value`);
    if (key in part) throw new UsageError(`--part ${text}: ${key} is given twice`);
    if (key === 'size' || key === 'cluster' || key === 'boundary') {
      const bytes = parseSize(value);
      if (bytes === undefined || bytes === 0n) throw new UsageError(`--part ${text}: ${key} takes bytes such as 512M, not '${value}'`);
      part[key] = key === 'size' ? bytes : Number(bytes);
    } else part[key] = value;
  }
  part.type ??= TYPE_OF[String(part.fs)] ?? 'linux';
  return part as unknown as PlannedPart;
}

function optionsOf(values: Values): PlanOptions {
  const parts = values.part as string[] | undefined;
  if (parts === undefined) throw new UsageError('plan what? Give --part for each partition, for example --part name=root,type=linux,fs=ext4');
  const media = textOf(values, 'media');
  const physical = textOf(values, 'physical');
  const number = (name: string): number | undefined => {
    const bytes = sizeOf(values, name);
    return bytes === undefined ? undefined : Number(bytes);
  };
  const options: Record<string, unknown> = {
    size: sizeOf(values, 'size'),
    sectorSize: sectorSizeOf(values, 'sector-size'),
    physical: physical === undefined ? undefined : powerOfTwo(physical, 'physical', 512, 1 << 20),
    pages: textOf(values, 'page')
      ?.split(',')
      .map((text) => powerOfTwo(text, 'page', 512, 1 << 20)),
    grain: number('grain'),
    optimalIo: number('optimal-io'),
    minimumIo: number('minimum-io'),
    media: media as PlannedMedia | undefined,
    diskId: textOf(values, 'disk-id'),
    parts: parts.map(parsePart),
  };
  for (const [name, value] of Object.entries(options)) if (value === undefined) delete options[name];
  return options as unknown as PlanOptions;
}

/** What the target of `--write` says of itself, where the caller did not: its size, and of a device its limits. */
function targetOptions(options: PlanOptions, path: string): PlanOptions {
  if (!existsSync(path)) return options;
  const subject = subjectOf(path);
  const bytes = reading(path, ({ size }) => size);
  const size = bytes > 0n ? bytes : undefined;
  const known = options.size === undefined && size !== undefined ? { ...options, size } : options;
  const ground = subject.kind === 'device' ? groundOf(subject.numbers) : undefined;
  if (ground === undefined) return known;
  const { topology } = ground;
  if (topology.alignmentOffset !== 0) {
    const why = topology.alignmentOffset < 0 ? 'the devices under it do not line up' : `its first natural boundary is at byte ${topology.alignmentOffset}`;
    throw new UsageError(`${path}: ${why} (alignment_offset ${topology.alignmentOffset}); no plan from byte 0 on is aligned there`);
  }
  return {
    sectorSize: topology.logical,
    physical: topology.physical,
    ...(topology.minimumIo > 0 ? { minimumIo: topology.minimumIo } : {}),
    ...(topology.optimalIo > 0 ? { optimalIo: topology.optimalIo } : {}),
    ...(topology.zone > 0 ? { zone: topology.zone } : {}),
    ...known,
  };
}

async function run(values: Values, operands: string[], terminal: Terminal): Promise<ExitCode> {
  if (operands.length > 0) throw new UsageError(`plan takes no operands, but '${operands[0]}' was given; --write says where to write`);
  const only = textOf(values, 'only');
  if (only !== undefined && only !== 'sfdisk' && only !== 'mkfs') throw new UsageError(`--only is sfdisk or mkfs, not '${only}'`);
  const path = textOf(values, 'write');
  if (path === undefined) for (const name of ['force', 'dry-run']) if (values[name] === true) throw new UsageError(`--${name} goes with --write`);
  const asked = optionsOf(values);
  const options = path === undefined ? asked : targetOptions(asked, path);
  if (options.size === undefined) throw new UsageError('how large? Give --size, for example --size 64G');
  const plan = planned(options);
  const written = path === undefined ? undefined : writePlan(plan, path, { dryRun: values['dry-run'] === true, force: values.force === true });
  const svg = textOf(values, 'svg');
  if (svg !== undefined) {
    const { svgOf } = await import('./svg.js');
    writeFileSync(svg, svgOf(asReport(plan, path ?? 'plan'), plan.size, String(plan.pages[0])));
  }
  const target = path === undefined ? {} : written?.isDevice ? { device: path } : { image: path };
  if (only === 'sfdisk') terminal.out(sfdiskScript(plan));
  else if (only === 'mkfs') terminal.out(`${mkfsLines(plan, target).join('\n')}\n`);
  else if (values.json === true)
    terminal.out(`${JSON.stringify(planObject(plan, target, written), (_, value) => (typeof value === 'bigint' ? exact(value) : value), 2)}\n`);
  else terminal.out(`${planLines(plan, target, written, terminal).join('\n')}\n`);
  return 0;
}

/** Refusals of the planner are mistakes in the arguments, told in the words of the command line. */
function planned(options: PlanOptions): Plan {
  try {
    return planLayout(options);
  } catch (error) {
    const { code, message } = error as Error & { code?: string };
    if (code === undefined || !(/^ERR_(INVALID_ARG|OUT_OF_RANGE)/.test(code) || code === 'ERR_SECTORWISE_PLAN')) throw error;
    const words = message
      .replace(/(?:options\.)?parts\[(\d+)\]\.?/g, (_, index: string) => `--part ${Number(index) + 1}: `)
      .replace(/options\.(\w+)/g, (_, name: string) => `--${name === 'pages' ? 'page' : name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`);
    throw new UsageError(
      words
        .replace(/^The (?:property|argument) '([^']*)'/, '$1')
        .replace(/^The value of "([^"]*)"/, '$1')
        .replace(/^The plan's '([^']*)'/, '$1'),
    );
  }
}

function planObject(plan: Plan, target: Parameters<typeof mkfsLines>[1], written: WriteReport | undefined): Record<string, unknown> {
  return {
    schemaVersion: 1,
    tool: 'sectorwise',
    version,
    ...plan,
    sfdisk: sfdiskScript(plan),
    mkfs: mkfsLines(plan, target),
    ...(written === undefined ? {} : { written }),
  };
}

function planLines(plan: Plan, target: Parameters<typeof mkfsLines>[1], written: WriteReport | undefined, terminal: Terminal): string[] {
  const pages = plan.pages.map(String);
  const sector = BigInt(plan.sectorSize);
  const row = ({ number, name, type, typeName, start, size, volume }: PlanPartition): string[] => [
    `p${number}`,
    shown(name),
    `${start} (LBA ${start / sector})`,
    roundSizeText(size),
    typeName ?? type,
    volume?.kind ?? '',
    volume === undefined || volume.kind === 'swap' ? '' : `${volume.dataOffsetAbsolute} (${sizeText(volume.dataOffset)} in)`,
    volume === undefined ? '' : roundSizeText(BigInt(volume.unit)),
    ...pages.map((page) =>
      volume === undefined || volume.kind === 'swap' ? '' : volume.kind.startsWith('luks') ? 'encrypted' : (volume.tiers[page]?.absolute ?? ''),
    ),
  ];
  const head = ['', 'name', 'start', 'size', 'type', 'fs', 'data begins at', 'unit', ...pages.map((page) => `pages of ${page}`)];
  const drawn = asReport(plan, '');
  const lines = [
    `${sizeText(plan.size)}; sectors of ${plan.sectorSize} bytes; starts are multiples of ${sizeText(BigInt(plan.grain))} (${plan.grainReason})`,
    '',
    ...mapLines(piecesOf(drawn, plan.size), terminal.columns, (text) => terminal.paint('error', text)),
    '',
    ...columnLines([head, ...plan.partitions.map(row)]),
  ];
  if (plan.notes.length > 0) lines.push('', ...plan.notes.map((note) => findingLine(note, 'plan', terminal)));
  lines.push('', terminal.paint('dim', '# the table: sfdisk DISK < this (or --only sfdisk | sfdisk DISK, or --write DISK)'), sfdiskScript(plan).trimEnd());
  const mkfs = mkfsLines(plan, target);
  if (mkfs.length > 0) lines.push('', terminal.paint('dim', '# the file systems'), ...mkfs);
  if (written !== undefined) lines.push('', ...writtenLines(written, terminal));
  return lines;
}

function writtenLines(written: WriteReport, terminal: Terminal): string[] {
  const name = shown(written.path);
  const ranges = written.ranges.map((range) => `  ${range.name.padEnd(15)} byte ${range.offset}, ${range.length} bytes`);
  const over = written.replaced === undefined ? '' : `, over ${written.replaced}`;
  if (written.dryRun) return [terminal.paint('bold', `would be written to ${name}${over}, in this order (--dry-run):`), ...ranges];
  const how = written.verified === 'direct' ? 'read back from the medium and compared' : 'read back and compared';
  return [terminal.paint('good', `written to ${name}${written.created ? ' (made sparse)' : ''}${over}, ${how}:`), ...ranges, ...written.next];
}

/** The plan as what a check of it would say, for the pictures. */
function asReport(plan: Plan, target: string): Pick<Report, 'table' | 'findings' | 'target' | 'volumes' | 'summary'> {
  const sector = BigInt(plan.sectorSize);
  const copy = {
    header: sector,
    entries: 2n * sector,
    entryCount: 128,
    entryBytes: 128,
    firstUsable: plan.firstUsable * sector,
    lastUsable: plan.lastUsable * sector,
    valid: true,
  };
  return {
    target,
    table: {
      kind: 'gpt',
      state: ['ok'],
      sectorSize: { value: plan.sectorSize, source: 'option' },
      partitions: plan.partitions.map(({ number, start, size, type, typeName, name, uuid }) => ({
        number,
        start,
        size,
        type,
        ...(typeName === undefined ? {} : { typeName }),
        ...(name === '' ? {} : { name }),
        uuid,
        exempt: exemptType(type),
        aligned: true,
      })),
      primary: copy,
      backup: copy,
      extended: [],
      findings: [],
    },
    volumes: plan.partitions.flatMap(({ number, start, size, volume }): Volume[] =>
      volume === undefined
        ? []
        : [
            {
              partition: number,
              kind: volume.kind,
              offset: start,
              size,
              dataOffset: volume.dataOffset,
              dataOffsetAbsolute: volume.dataOffsetAbsolute,
              unit: volume.unit,
              tiers: volume.tiers,
              opaque: volume.kind.startsWith('luks'),
              inside: [],
              details: volume.details,
            },
          ],
    ),
    findings: plan.notes,
    summary: {
      worst: plan.notes.length > 0 ? 'info' : null,
      exit: 0,
      verdict: `Planned: ${plan.partitions.length} partitions, starts on multiples of ${sizeText(BigInt(plan.grain))}`,
    },
  };
}

const text = { type: 'string' } as const;
const flag = { type: 'boolean' } as const;

export const command: Command = {
  help: HELP,
  options: {
    size: text,
    part: { type: 'string', multiple: true },
    'sector-size': text,
    physical: text,
    page: text,
    grain: text,
    media: text,
    'optimal-io': text,
    'minimum-io': text,
    'disk-id': text,
    write: text,
    force: flag,
    'dry-run': flag,
    only: text,
    json: flag,
    svg: text,
  },
  run,
};
