/**
 * A file as rows of characters, one for each range of it, and the same as an SVG.
 *
 *           0  ####++..........########
 *      32 MiB  ........................
 *
 * Guarantees: at most `ROWS` rows; ranges are whole pages and of one length, the last may be shorter; a file of few pages has one character for each.
 */
import { roundSizeText, sizeText } from './sizes.js';
import { shown } from './terminal.js';

/** More than can be taken in at a glance helps nobody. */
const ROWS = 8;
const LABEL = 12;

/** How a file of `size` bytes is cut for a terminal of so many columns. */
export interface Cut {
  /** Bytes of one range, a multiple of `page`. */
  rangeBytes: number;
  ranges: number;
  perRow: number;
}

export function cutOf(size: number, page: number, columns: number): Cut {
  const perRow = Math.max(16, Math.floor((columns - LABEL - 2) / 8) * 8);
  const pages = Math.max(1, Math.ceil(size / page));
  const pagesEach = Math.ceil(pages / (perRow * ROWS));
  return { rangeBytes: pagesEach * page, ranges: Math.ceil(pages / pagesEach), perRow };
}

/** Rows of signs with the offset of each row's first range; then what the signs mean, as far as they occur. */
export function stripLines(signs: string, { rangeBytes, perRow }: Cut, meanings: ReadonlyArray<readonly [string, string]>): string[] {
  const lines: string[] = [];
  for (let at = 0; at < signs.length; at += perRow) {
    lines.push(`${roundSizeText(BigInt(at * rangeBytes)).padStart(LABEL)}  ${signs.slice(at, at + perRow)}`);
  }
  const used = meanings.filter(([sign]) => signs.includes(sign)).map(([sign, text]) => `${sign} ${text}`);
  lines.push('', `${used.join('   ')}`, `one character is ${sizeText(BigInt(rangeBytes))}`);
  return lines;
}

const WIDTH = 960;
const MARGIN = 24;
const COLUMNS = 96;
const CELL = 9.5;

/** The same as squares, row by row. `fills` gives each sign a colour. */
export function stripSvg(
  title: string,
  summary: readonly string[],
  signs: string,
  rangeBytes: number,
  meanings: ReadonlyArray<readonly [string, string]>,
  fills: Readonly<Record<string, string>>,
): string {
  const out: string[] = [];
  const text = (x: number, y: number, content: string, style = ''): void => {
    out.push(`<text x="${x}" y="${y}"${style}>${escaped(content)}</text>`);
  };
  const label = 72;
  text(MARGIN, 30, cut(shown(title), 95), ' font-size="17" font-weight="600"');
  for (const [index, line] of summary.entries()) text(MARGIN, 52 + index * 18, cut(line, 128), ' fill="#5a6676"');
  const top = 52 + summary.length * 18 + 8;
  const perRow = Math.floor((WIDTH - 2 * MARGIN - label) / CELL);
  const wide = Math.min(perRow, COLUMNS);
  let y = top;
  for (let at = 0; at < signs.length; at += wide) {
    text(MARGIN + label - 8, y + 10, roundSizeText(BigInt(at * rangeBytes)), ' text-anchor="end" font-size="10" fill="#5a6676"');
    // Neighbours of one colour are one rectangle.
    for (let from = at; from < Math.min(at + wide, signs.length); ) {
      let to = from + 1;
      while (to < Math.min(at + wide, signs.length) && signs[to] === signs[from]) to++;
      const x = MARGIN + label + (from - at) * CELL;
      out.push(`<rect x="${x}" y="${y}" width="${(to - from) * CELL - 0.5}" height="12" fill="${fills[signs[from]] ?? '#ffffff'}"/>`);
      from = to;
    }
    y += 15;
  }
  y += 12;
  let x = MARGIN;
  for (const [sign, meaning] of [...meanings.filter(([each]) => signs.includes(each)), ['', `one square is ${sizeText(BigInt(rangeBytes))}`]]) {
    const width = 19 + meaning.length * 6.8 + 20;
    if (x + width > WIDTH - MARGIN) [x, y] = [MARGIN, y + 20];
    if (sign !== '') out.push(`<rect x="${x}" y="${y}" width="12" height="12" fill="${fills[sign]}" stroke="#c9d0d9"/>`);
    text(x + (sign === '' ? 0 : 18), y + 10, meaning, ' font-size="11" fill="#5a6676"');
    x += width;
  }
  y += 36;
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" width="${WIDTH}" height="${y}" viewBox="0 0 ${WIDTH} ${y}" font-family="system-ui, 'DejaVu Sans', sans-serif" font-size="12" fill="#1b2430">`,
    `<title>${escaped(shown(title))}</title>`,
    `<rect width="${WIDTH}" height="${y}" fill="#ffffff"/>`,
    ...out,
    '</svg>',
    '',
  ].join('\n');
}

function cut(content: string, characters: number): string {
  const all = [...content];
  return all.length <= characters ? content : `${all.slice(0, characters - 1).join('')}…`;
}

/** Text of an SVG: characters that XML 1.0 (§2.2) forbids are replaced, those that mean something in it are entities. */
export function escaped(content: string): string {
  return content
    .replace(/[\p{Cc}\p{Cs}\ufffe\uffff]/gu, '\ufffd')
    .replaceAll('&', '&amp;')
    .replaceAll('<', '&lt;')
    .replaceAll('>', '&gt;')
    .replaceAll('"', '&quot;');
}
