/**
 * The disk as an SVG: the whole to scale above, and below it each partition with the layers inside of it.
 *
 *   0          16 GiB       32 GiB       48 GiB      64 GiB
 *   |1|2================|3===========|..............|        the disk
 *   1  efi   1 MiB … 513 MiB, 512 MiB
 *      [fat32 tables | clusters of 4096: guaranteed       ]  each layer a bar; what is before its data is widened to be seen
 *
 * Guarantees: well-formed whatever the names on the medium are; no text runs into another: what does not fit into a bar stands in the row of its partition, which every partition has.
 * Leaves to others: where the file goes (`align.ts`).
 */
import type { Report, Tier, Volume } from '../layout/model.js';
import { type Drawn, type Piece, piecesOf, shares } from './pieces.js';
import { roundSizeText, sizeText } from './sizes.js';
import { escaped } from './strip.js';
import { shown } from './terminal.js';

const WIDTH = 960;
const MARGIN = 24;
const INNER = WIDTH - 2 * MARGIN;
const BAR_TOP = 84;
const BAR_HEIGHT = 44;
const LAYER_HEIGHT = 24;
/** An average character of the font at 12 pixels; wide ones are taken account of by a reserve. */
const CHARACTER = 6.8;

/** Dark enough for white to be read on them only where white is used: text stands on the light ones. */
const FILL: Record<Tier | 'table' | 'unused' | 'partition' | 'head' | 'opaque' | 'exempt', string> = {
  guaranteed: '#cdebd0',
  'per-file': '#fdeab6',
  impossible: '#f8cdc8',
  table: '#5f6b7a',
  unused: '#f2f4f7',
  partition: '#d5e3f5',
  head: '#b9c2cf',
  opaque: '#ddd6ec',
  exempt: '#e3e6ea',
};
const WRONG = '#c62828';
const INK = '#1b2430';
const PALE = '#5a6676';

const MEANING: Record<Tier, string> = {
  guaranteed: 'every page of a file can be mapped',
  'per-file': 'some files can be mapped',
  impossible: 'no page of a file can be mapped',
};

/** The picture of a report about a disk or an image of `size` bytes; `page` is the page size that its colours are about. */
export function svgOf(report: Drawn & Pick<Report, 'target' | 'volumes' | 'summary'>, size: bigint, page: string): string {
  const out: string[] = [];
  const pieces = piecesOf(report, size);
  const total = pieces.at(-1)?.end ?? size;
  text(out, MARGIN, 30, cut(shown(report.target), INNER * 0.66, 9), { size: 17, weight: 600 });
  text(out, WIDTH - MARGIN, 30, sizeText(size), { anchor: 'end', fill: PALE });
  text(out, MARGIN, 52, cut(shown(report.summary.verdict), INNER, CHARACTER), { fill: report.summary.exit === 0 ? PALE : WRONG });

  drawDisk(out, pieces, total);
  let y = BAR_TOP + BAR_HEIGHT + 62;
  for (const piece of pieces) {
    if (piece.partition === undefined) continue;
    y = drawRow(out, report, piece, page, y);
  }
  for (const volume of report.volumes) if (volume.partition === null) y = drawWhole(out, volume, page, y);
  y = drawKey(out, report, page, y);
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" width="${WIDTH}" height="${y}" viewBox="0 0 ${WIDTH} ${y}" font-family="system-ui, 'DejaVu Sans', sans-serif" font-size="12">`,
    `<title>${escaped(`Layout of ${shown(report.target)}`)}</title>`,
    `<rect width="${WIDTH}" height="${y}" fill="#ffffff"/>`,
    ...out,
    '</svg>',
    '',
  ].join('\n');
}

function drawDisk(out: string[], pieces: readonly Piece[], total: bigint): void {
  const widths = shares(pieces, INNER, ({ kind }) => (kind === 'partition' ? 5 : 3)) ?? shares(pieces, INNER, () => 1);
  if (widths === undefined) {
    text(out, MARGIN, BAR_TOP + 26, `${pieces.length} pieces: too many to draw`, { fill: PALE });
    return;
  }
  let x = MARGIN;
  /** Where the last label above the bar ended, and the last one below it. */
  let above = -1;
  let below = -1;
  const endText = roundSizeText(total);
  const limit = WIDTH - MARGIN - endText.length * CHARACTER - 14;
  /** Over everything else: a neighbour would cover half of them. */
  const edges: number[] = [];
  for (const [index, piece] of pieces.entries()) {
    const width = widths[index];
    const { partition } = piece;
    const fill = piece.kind === 'table' ? FILL.table : piece.kind === 'unused' ? FILL.unused : partition?.exempt ? FILL.exempt : FILL.partition;
    rect(out, x, BAR_TOP, width, BAR_HEIGHT, fill, piece.kind === 'unused' ? '#d9dee5' : '#ffffff');
    if (partition !== undefined) {
      const number = String(partition.number);
      const full = partition.name ? `${number} ${shown(partition.name)}` : number;
      const label = fits(full, width - 10) ? full : fits(number, width - 4) ? number : '';
      if (label !== '') text(out, x + width / 2, BAR_TOP + 27, label, { anchor: 'middle' });
      else {
        // Too thin for its number: below the bar, moved aside where the one before is in the way.
        const half = (number.length * CHARACTER) / 2;
        const middle = Math.max(x + width / 2, below + 4 + half);
        if (middle + half < WIDTH - MARGIN) {
          line(out, x + width / 2, BAR_TOP + BAR_HEIGHT, middle, BAR_TOP + BAR_HEIGHT + 7);
          text(out, middle, BAR_TOP + BAR_HEIGHT + 17, number, { anchor: 'middle', size: 11 });
          below = middle + half;
        }
      }
      const startText = roundSizeText(piece.start);
      if (x > above + 10 && x + startText.length * CHARACTER < limit) {
        text(out, x, BAR_TOP - 7, startText, { fill: PALE, size: 11 });
        above = x + startText.length * CHARACTER;
      }
      if (piece.startMisaligned || piece.overlaps) edges.push(x);
      if (piece.endMisaligned) edges.push(x + width);
    }
    x += width;
  }
  for (const each of edges) edge(out, each);
  text(out, WIDTH - MARGIN, BAR_TOP - 7, endText, { anchor: 'end', fill: PALE, size: 11 });
  text(out, MARGIN, BAR_TOP + BAR_HEIGHT + 36, 'The disk to scale; what is too small to be seen is widened.', { fill: PALE, size: 11 });
}

function drawRow(out: string[], report: Drawn & Pick<Report, 'volumes'>, piece: Piece, page: string, top: number): number {
  const partition = piece.partition!;
  const wrong = piece.startMisaligned || piece.overlaps || piece.endMisaligned;
  const number = String(partition.number);
  const badge = Math.max(22, number.length * 8 + 10);
  rect(out, MARGIN, top, badge, 20, partition.exempt ? FILL.exempt : FILL.partition, 'none');
  text(out, MARGIN + badge / 2, top + 14, number, { anchor: 'middle', weight: 600 });
  const type = partition.typeName ?? partition.type;
  const title = partition.name ? `${shown(partition.name)} (${type})` : type;
  const sector = BigInt(report.table.sectorSize.value);
  const place = `starts at ${partition.start} (LBA ${partition.start / sector}), ${sizeText(partition.size)}`;
  const faults = [
    ...(piece.startMisaligned ? ['start misaligned'] : []),
    ...(piece.overlaps ? ['overlaps the one before'] : []),
    ...(piece.endMisaligned ? ['end misaligned'] : []),
  ];
  const right = [place, ...faults].join(' · ');
  text(out, WIDTH - MARGIN, top + 14, right, { anchor: 'end', fill: wrong ? WRONG : PALE });
  text(out, MARGIN + badge + 10, top + 14, cut(title, INNER - badge - 30 - right.length * CHARACTER, CHARACTER), { weight: 600 });
  let y = top + 28;
  for (const volume of report.volumes) if (volume.partition === partition.number) y = drawLayers(out, volume, page, y, 0, wrong);
  return y + 16;
}

function drawWhole(out: string[], volume: Volume, page: string, top: number): number {
  text(out, MARGIN, top + 14, 'the whole image', { weight: 600 });
  return drawLayers(out, volume, page, top + 28, 0, false) + 16;
}

/** One layer: what lies before its data, then the data; what is inside it below, indented to where the data begins. */
function drawLayers(out: string[], volume: Volume, page: string, top: number, depth: number, wrong: boolean): number {
  const left = MARGIN + depth * 18;
  const width = INNER - depth * 18;
  const tier = volume.tiers[page]?.absolute;
  const isSwap = volume.kind === 'swap';
  const headText = `${volume.kind} ${roundSizeText(volume.dataOffset)}`;
  const head = volume.dataOffset > 0n ? Math.min(width / 3, Math.max(96, headText.length * CHARACTER + 14)) : 0;
  if (head > 0) {
    rect(out, left, top, head, LAYER_HEIGHT, FILL.head, 'none');
    text(out, left + 7, top + 16, cut(headText, head - 10, CHARACTER), {});
  }
  rect(out, left + head, top, width - head, LAYER_HEIGHT, volume.opaque ? FILL.opaque : isSwap || tier === undefined ? FILL.exempt : FILL[tier], 'none');
  if (tier === 'impossible' && !volume.opaque && !isSwap) edge(out, left + head, top, LAYER_HEIGHT);
  else if (wrong) edge(out, left, top, LAYER_HEIGHT);
  const name = volume.name === undefined ? '' : ` ${shown(volume.name)}`;
  const what = volume.opaque
    ? `${volume.kind}${name}: encrypted, what is inside cannot be seen`
    : isSwap
      ? `swap in pages of ${volume.unit}`
      : volume.inside.length > 0 || ['lvm2', 'md', 'luks1', 'luks2'].includes(volume.kind)
        ? `${volume.kind}${name}: units of ${sizeText(BigInt(volume.unit))} from byte ${volume.dataOffsetAbsolute} on`
        : `${volume.kind}${name}: ${sizeText(BigInt(volume.unit))} units from byte ${volume.dataOffsetAbsolute} on${tier === undefined ? '' : `: ${MEANING[tier]}`}`;
  text(out, left + head + 8, top + 16, cut(what, width - head - 14, CHARACTER), {});
  let y = top + LAYER_HEIGHT + 4;
  for (const inner of volume.inside) y = drawLayers(out, inner, page, y, Math.min(depth + 1, 8), wrong);
  return y;
}

function drawKey(out: string[], report: Pick<Report, 'volumes'>, page: string, top: number): number {
  const entries: Array<[string, string]> = [
    [FILL.table, 'partition table'],
    [FILL.unused, 'unused'],
    [FILL.head, 'before the data'],
    ...(report.volumes.length === 0
      ? []
      : ([
          [FILL.guaranteed, `pages of ${page}: guaranteed`],
          [FILL['per-file'], 'per file'],
          [FILL.impossible, 'impossible'],
        ] satisfies Array<[string, string]>)),
    [WRONG, 'wrong place'],
  ];
  let x = MARGIN;
  for (const [colour, label] of entries) {
    rect(out, x, top, 13, 13, colour, '#c9d0d9');
    text(out, x + 19, top + 11, label, { fill: PALE, size: 11 });
    x += 19 + label.length * 6.2 + 16;
  }
  return top + 36;
}

interface TextStyle {
  anchor?: 'middle' | 'end';
  fill?: string;
  size?: number;
  weight?: number;
}

function text(out: string[], x: number, y: number, content: string, { anchor, fill = INK, size, weight }: TextStyle): void {
  const attributes = [
    anchor === undefined ? '' : ` text-anchor="${anchor}"`,
    size === undefined ? '' : ` font-size="${size}"`,
    weight === undefined ? '' : ` font-weight="${weight}"`,
  ].join('');
  out.push(`<text x="${Math.round(x)}" y="${y}" fill="${fill}"${attributes}>${escaped(content)}</text>`);
}

function rect(out: string[], x: number, y: number, width: number, height: number, fill: string, stroke: string): void {
  out.push(`<rect x="${Math.round(x)}" y="${y}" width="${Math.max(1, Math.round(width))}" height="${height}" fill="${fill}" stroke="${stroke}"/>`);
}

function line(out: string[], x1: number, y1: number, x2: number, y2: number): void {
  out.push(`<path d="M${Math.round(x1)} ${y1}L${Math.round(x2)} ${y2}" stroke="#9aa5b3" fill="none"/>`);
}

/** Marks a misaligned edge. */
function edge(out: string[], x: number, top = BAR_TOP - 4, height = BAR_HEIGHT + 8): void {
  out.push(`<rect x="${Math.round(x) - 1}" y="${top}" width="3" height="${height}" fill="${WRONG}"/>`);
}

function fits(label: string, width: number): boolean {
  return [...label].length * CHARACTER <= width;
}

function cut(label: string, width: number, character: number): string {
  const characters = [...label];
  const room = Math.floor(width / character);
  return characters.length <= room ? label : `${characters.slice(0, Math.max(1, room - 1)).join('')}…`;
}
