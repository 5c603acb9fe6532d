/**
 * `sectorwise residency`: what of a file is in the page cache.
 *
 * Guarantees: reads nothing of the file, so that it does not change what it looks at; says so where the kernel hides the answer (mincore and cachestat tell the truth to those
 * who own the file or may write to it, Linux 5.2) instead of showing what they pretend.
 */

import { closeSync, constants, openSync, writeFileSync } from 'node:fs';
import { readGeometry } from '../geometry/geometry.js';
import type { ExitCode } from '../layout/model.js';
import { version } from '../layout/version.js';
import { PageCounter, type PageStates } from '../memory/residency.js';
import { type Command, textOf, UsageError } from './command.js';
import { sizeText } from './sizes.js';
import { cutOf, stripLines, stripSvg } from './strip.js';
import { shown, type Terminal } from './terminal.js';

const PAGE = 4096;
/** What the counter counts exactly, whatever the time. */
const PIECE = 256 * 1024 * 1024;

const MEANINGS = [
  ['#', 'all of it is in memory'],
  ['+', 'half or more'],
  ['-', 'less than half'],
  ['.', 'nothing'],
] as const;
const FILLS = { '#': '#1f6fb2', '+': '#7fb2dc', '-': '#cfe2f2', '.': '#f0f2f5' };

const HELP = `Usage: sectorwise residency [options] <file or device>

What of a file is in the page cache: numbers, and a picture with one character
for each range of it. Reads nothing of the file, so looking changes nothing.

  --json         the numbers of every range as JSON
  --svg FILE     the picture as an SVG
  --no-color     no colours on a terminal
  --help         this text

The kernel tells this only to those who own the file, may write to it, or are
root; to others it pretends that everything is in memory. Then this says so.

Exit code: 0 told, 3 the kernel does not tell, 4 could not read, 64 usage.
`;

async function run(values: Record<string, unknown>, operands: string[], terminal: Terminal): Promise<ExitCode> {
  const [path] = operands;
  if (operands.length !== 1) throw new UsageError(operands.length === 0 ? 'residency of which file?' : 'one file at a time');
  const svg = textOf(values as never, 'svg');
  const fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  try {
    const facts = readGeometry(fd, { direct: false });
    if (!facts.trustMincore) {
      terminal.err(
        `sectorwise: ${shown(path)}: the kernel tells what is in memory only to those who own the file or may write to it, and pretends to others that all of it is. Ask as its owner or as root.\n`,
      );
      return 3;
    }
    const mapping = { covers: () => false, present: () => 0 };
    const counter = new PageCounter({ fd, device: facts.deviceNumbers, trustMincore: true, mapping });
    const size = facts.size;
    const pages = Math.ceil(size / PAGE);
    const cut = cutOf(size, PAGE, terminal.columns);
    const ranges: Array<{ offset: number; length: number } & PageStates> = [];
    const total: PageStates = { cached: 0, dirty: 0, writeback: 0, evicted: 0 };
    for (let offset = 0; offset < size; offset += cut.rangeBytes) {
      const length = Math.min(cut.rangeBytes, size - offset);
      const states = countRange(counter, offset, length);
      for (const state of ['cached', 'dirty', 'writeback', 'evicted'] as const) total[state] += states[state];
      ranges.push({ offset, length, ...states });
    }
    const detailed = counter.features().some(({ name, used }) => name === 'cachestat' && used);
    const signs = ranges.map(({ length, cached }) => signOf(cached, Math.ceil(length / PAGE))).join('');
    const rest = detailed
      ? `${total.dirty} dirty, ${total.writeback} being written, ${total.evicted} evicted lately`
      : 'dirty and evicted pages are not told here';
    const summary = [
      `${sizeText(BigInt(size))} on ${facts.fsName}, ${pages} pages of ${PAGE} bytes`,
      `${total.cached} in memory${pages === 0 ? '' : ` (${percent(total.cached, pages)})`}; ${rest}`,
    ];
    if (svg !== undefined) writeFileSync(svg, stripSvg(`What of ${path} is in memory`, summary, signs, cut.rangeBytes, MEANINGS, FILLS));
    if (values.json === true) {
      const more = ({ dirty, writeback, evicted }: PageStates): object =>
        detailed ? { dirty, writeback, evicted } : { dirty: null, writeback: null, evicted: null };
      const object = {
        schemaVersion: 1,
        tool: 'sectorwise',
        version,
        target: path,
        size,
        fileSystem: facts.fsName,
        pageSize: PAGE,
        pages,
        cached: total.cached,
        ...more(total),
        ranges: ranges.map(({ offset, length, cached, ...states }) => ({ offset, length, cached, ...more({ cached, ...states }) })),
      };
      terminal.out(`${JSON.stringify(object, null, 2)}\n`);
      return 0;
    }
    const lines = [terminal.paint('bold', `${shown(path)}: ${summary[0]}`), summary[1]];
    if (size > 0) lines.push('', ...stripLines(signs, cut, MEANINGS));
    terminal.out(`${lines.join('\n')}\n`);
    return 0;
  } finally {
    closeSync(fd);
  }
}

function countRange(counter: PageCounter, offset: number, length: number): PageStates {
  const sum: PageStates = { cached: 0, dirty: 0, writeback: 0, evicted: 0 };
  for (let at = offset; at < offset + length; at += PIECE) {
    const states = counter.count(at, Math.min(PIECE, offset + length - at));
    for (const state of ['cached', 'dirty', 'writeback', 'evicted'] as const) sum[state] += states[state];
  }
  return sum;
}

function signOf(cached: number, pages: number): string {
  if (cached === 0) return '.';
  if (cached >= pages) return '#';
  return cached * 2 >= pages ? '+' : '-';
}

/** Never rounded to nothing or to all. */
function percent(part: number, whole: number): string {
  const exactly = (100 * part) / whole;
  const text = exactly.toFixed(1).replace(/\.0$/, '');
  return part > 0 && text === '0' ? 'less than 0.1 %' : part < whole && text === '100' ? 'more than 99.9 %' : `${text} %`;
}

export const command: Command = { help: HELP, options: { json: { type: 'boolean' }, svg: { type: 'string' } }, run };
