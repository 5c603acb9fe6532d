/**
 * `sectorwise extents`: where a file lies on its device.
 *
 * Guarantees: only places that the kernel really named (FIEMAP, what was dirty written back first); on a file system whose addresses are its own (btrfs) or that has none
 * (tmpfs, network), it says so and ends with 3.
 * Leaves to others: what follows from it for pages (`sectorwise align <file>`).
 */

import { closeSync, constants, openSync, writeFileSync } from 'node:fs';
import {
  FIEMAP_EXTENT_DATA_ENCRYPTED,
  FIEMAP_EXTENT_DATA_INLINE,
  FIEMAP_EXTENT_DATA_TAIL,
  FIEMAP_EXTENT_DELALLOC,
  FIEMAP_EXTENT_ENCODED,
  FIEMAP_EXTENT_NOT_ALIGNED,
  FIEMAP_EXTENT_SHARED,
  FIEMAP_EXTENT_UNKNOWN,
  FIEMAP_EXTENT_UNWRITTEN,
  FIEMAP_NOT_IN_PLACE,
  readRawExtents,
} from '../geometry/extents.js';
import { readGeometry } from '../geometry/geometry.js';
import type { ExitCode } from '../layout/model.js';
import { version } from '../layout/version.js';
import { columnLines } from './columns.js';
import { type Command, textOf, UsageError } from './command.js';
import { sizeText } from './sizes.js';
import { cutOf, stripLines, stripSvg } from './strip.js';
import { groundOf } from './subject.js';
import { shown, type Terminal } from './terminal.js';

const PAGE = 4096;
/** What is listed unless all is asked for. */
const LISTED = 24;

/** Their names in the kernel's documentation (Documentation/filesystems/fiemap.rst), shortened as filefrag does. */
const FLAGS: Array<[number, string]> = [
  [FIEMAP_EXTENT_UNKNOWN, 'unknown'],
  [FIEMAP_EXTENT_DELALLOC, 'delalloc'],
  [FIEMAP_EXTENT_ENCODED, 'encoded'],
  [FIEMAP_EXTENT_DATA_ENCRYPTED, 'encrypted'],
  [FIEMAP_EXTENT_NOT_ALIGNED, 'not_aligned'],
  [FIEMAP_EXTENT_DATA_INLINE, 'inline'],
  [FIEMAP_EXTENT_DATA_TAIL, 'tail'],
  [FIEMAP_EXTENT_UNWRITTEN, 'unwritten'],
  [FIEMAP_EXTENT_SHARED, 'shared'],
];

const MEANINGS = [
  ['=', 'goes on where the last range ended'],
  ['|', 'another place begins here'],
  ['%', 'several places'],
  ['!', 'not on a page of the device'],
  ['~', 'allocated, never written'],
  ['?', 'no place of its own (inline, encoded, not yet allocated)'],
  ['.', 'hole'],
] as const;
const FILLS = { '=': '#9cc5a1', '|': '#2e7d32', '%': '#7fb2dc', '!': '#c62828', '~': '#d8c690', '?': '#b39ddb', '.': '#f0f2f5' };

const HELP = `Usage: sectorwise extents [options] <file>

Where a file lies on its device: every run of it that lies in one piece, by byte,
on the file system's device and on the disk that this is a part of. What the
kernel has not written yet is written first.

  --json         as JSON
  --svg FILE     the picture as an SVG
  --all          list every extent, not only the first ${LISTED}
  --no-color     no colours on a terminal
  --help         this text

Exit code: 0 told, 3 the file system names no places on a device, 4 could not
read, 64 usage. Whether pages of the file can be mapped: sectorwise align <file>
`;

interface Run {
  offset: number;
  length: number;
  /** On the device of the file system. */
  physical: number;
  /** On the disk. */
  absolute: number;
  flags: number;
}

async function run(values: Record<string, unknown>, operands: string[], terminal: Terminal): Promise<ExitCode> {
  const [path] = operands;
  if (operands.length !== 1) throw new UsageError(operands.length === 0 ? 'extents of which file?' : 'one file at a time');
  const svg = textOf(values as never, 'svg');
  const fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  let facts: ReturnType<typeof readGeometry>;
  let raw: ReturnType<typeof readRawExtents>;
  try {
    facts = readGeometry(fd, { direct: false });
    if (facts.isDevice) throw new UsageError(`${path} is a block device: it lies on itself. Its layout: sectorwise align ${path}`);
    raw = readRawExtents(fd, facts.size, true);
  } finally {
    closeSync(fd);
  }
  if (!raw.supported || !facts.extentsAreOnDevice) {
    const why = !raw.supported
      ? `${facts.fsName} does not tell where its files lie (no FIEMAP)`
      : `the addresses that ${facts.fsName} tells are its own, not places on a device`;
    terminal.err(`sectorwise: ${shown(path)}: ${why}\n`);
    return 3;
  }
  const ground = groundOf(facts.deviceNumbers);
  const device = ground?.device.name ?? facts.geometry.device ?? '?';
  const disk = ground?.device.disk ?? device;
  const start = ground?.device.startBytes ?? 0;
  const runs = runsOf(raw.values, start);
  const placed = runs.filter(({ flags }) => (flags & FIEMAP_NOT_IN_PLACE) === 0);
  const bytes = placed.reduce((sum, each) => sum + each.length, 0);
  const longest = placed.reduce((most, each) => Math.max(most, each.length), 0);
  const holes = holeBytes(runs, facts.size);
  const cut = cutOf(facts.size, PAGE, terminal.columns);
  const signs = signsOf(runs, facts.size, cut.rangeBytes);
  const on = disk === device ? device : `${device}, which begins at byte ${start} of ${disk}`;
  const summary = [
    `${sizeText(BigInt(facts.size))} on ${facts.fsName}, device ${on}`,
    `${runs.length} extent${runs.length === 1 ? '' : 's'}, ${sizeText(BigInt(bytes))} on the device, the longest run ${sizeText(BigInt(longest))}${holes > 0 ? `; holes of ${sizeText(BigInt(holes))}` : ''}`,
  ];
  if (svg !== undefined) writeFileSync(svg, stripSvg(`Where ${path} lies`, summary, signs, cut.rangeBytes, MEANINGS, FILLS));
  if (values.json === true) {
    terminal.out(
      `${JSON.stringify(
        {
          schemaVersion: 1,
          tool: 'sectorwise',
          version,
          target: path,
          size: facts.size,
          fileSystem: facts.fsName,
          device,
          disk,
          deviceStart: start,
          placed: bytes,
          holes,
          longestRun: longest,
          extents: runs.map(({ offset, length, physical, absolute, flags }) => {
            const here = (flags & FIEMAP_NOT_IN_PLACE) === 0;
            return { offset, length, physical: here ? physical : null, absolute: here ? absolute : null, flags: flagNames(flags) };
          }),
        },
        null,
        2,
      )}\n`,
    );
    return 0;
  }
  const lines = [terminal.paint('bold', `${shown(path)}: ${summary[0]}`), summary[1]];
  if (facts.size > 0) lines.push('', ...stripLines(signs, cut, MEANINGS));
  if (runs.length > 0) {
    const listed = values.all === true ? runs : runs.slice(0, LISTED);
    const rows = listed.map(({ offset, length, physical, absolute, flags }) => {
      const here = (flags & FIEMAP_NOT_IN_PLACE) === 0;
      return [
        String(offset),
        String(length),
        here ? String(physical) : '-',
        here && disk !== device ? String(absolute) : '',
        here ? `${absolute % PAGE}` : '-',
        flagNames(flags).join(','),
      ];
    });
    lines.push('', ...columnLines([['offset', 'length', `on ${device}`, `on ${disk}`, `% ${PAGE}`, 'flags'], ...rows]));
    if (listed.length < runs.length) lines.push(`... and ${runs.length - listed.length} more (--all lists them)`);
  }
  terminal.out(`${lines.join('\n')}\n`);
  return 0;
}

/** Neighbours that lie together and are of one kind are one: an extent of ext4 ends after 128 MiB whatever follows. */
function runsOf(values: Float64Array, start: number): Run[] {
  /** FIEMAP_EXTENT_LAST and FIEMAP_EXTENT_MERGED say nothing about the place. */
  const kind = FLAGS.reduce((all, [flag]) => all | flag, 0);
  const runs: Run[] = [];
  for (let i = 0; i + 4 <= values.length; i += 4) {
    const [offset, physical, length] = values.subarray(i, i + 3);
    const flags = values[i + 3] & kind;
    const last = runs.at(-1);
    if (
      last !== undefined &&
      last.flags === flags &&
      last.offset + last.length === offset &&
      last.physical + last.length === physical &&
      (flags & FIEMAP_NOT_IN_PLACE) === 0
    ) {
      last.length += length;
    } else runs.push({ offset, length, physical, absolute: start + physical, flags });
  }
  return runs;
}

/** Bytes within the file that no extent covers. */
function holeBytes(runs: readonly Run[], size: number): number {
  let holes = 0;
  let reached = 0;
  for (const { offset, length } of runs) {
    if (offset >= size) break;
    holes += Math.max(0, offset - reached);
    reached = Math.max(reached, offset + length);
  }
  return holes + Math.max(0, size - reached);
}

/** A sign for each range: the worst of what lies in it. */
function signsOf(runs: readonly Run[], size: number, rangeBytes: number): string {
  const signs: string[] = [];
  let next = 0;
  for (let from = 0; from < size; from += rangeBytes) {
    const to = Math.min(from + rangeBytes, size);
    while (next < runs.length && runs[next].offset + runs[next].length <= from) next++;
    const here: Run[] = [];
    for (let i = next; i < runs.length && runs[i].offset < to; i++) here.push(runs[i]);
    signs.push(signOf(here, from));
  }
  return signs.join('');
}

function signOf(here: readonly Run[], from: number): string {
  if (here.length === 0) return '.';
  if (here.some(({ flags }) => (flags & FIEMAP_NOT_IN_PLACE) !== 0)) return '?';
  if (here.some(({ offset, absolute }) => (absolute - offset) % PAGE !== 0)) return '!';
  if (here.some(({ flags }) => (flags & FIEMAP_EXTENT_UNWRITTEN) !== 0)) return '~';
  if (here.length > 1) return '%';
  return here[0].offset >= from ? '|' : '=';
}

function flagNames(flags: number): string[] {
  return FLAGS.filter(([flag]) => (flags & flag) !== 0).map(([, name]) => name);
}

export const command: Command = { help: HELP, options: { json: { type: 'boolean' }, svg: { type: 'string' }, all: { type: 'boolean' } }, run };
