/**
 * The disk as one line of characters, to scale, with what its edges and fillings mean.
 *
 *   #|1 efi|2 root================================================!3 data======.#
 *    1 MiB  513 MiB                                               48 GiB
 *
 * Guarantees: no line is longer than asked for; every partition has its number in the picture as long as all of them fit, and is never thinner than that.
 */
import { joined, type Piece, shares } from './pieces.js';
import { roundSizeText } from './sizes.js';
import { shown } from './terminal.js';

const MEANINGS: Array<[string, string]> = [
  ['|', 'partition begins'],
  ['!', 'misaligned edge'],
  ['<', 'begins before the last one ends'],
  ['=', 'partition'],
  ['*', 'several'],
  ['.', 'unused'],
  ['#', 'partition table'],
];

/** The lines of the picture. `paintEdge` colours what is wrong. */
export function mapLines(pieces: readonly Piece[], columns: number, paintEdge: (text: string) => string): string[] {
  if (pieces.length === 0) return [];
  let drawn = [...pieces];
  const numbered = (piece: Piece): number => (piece.partition === undefined ? 1 : 1 + String(piece.partition.number).length + (piece.endMisaligned ? 1 : 0));
  let widths = shares(drawn, columns - 1, numbered) ?? shares(drawn, columns - 1, () => 1);
  if (widths === undefined) {
    drawn = joined(drawn, columns - 1);
    widths = shares(drawn, columns - 1, () => 1) as number[];
  }
  const bar = drawn.map((piece, index) => fill(piece, widths[index])).join('') + '|';
  const total = drawn[drawn.length - 1].end;
  const perColumn = total / BigInt(columns - 1);
  const widened = drawn.some((piece, index) => BigInt(widths[index]) * perColumn > (piece.end - piece.start) * 2n + perColumn);
  return [
    bar.replace(/[!<]/g, paintEdge),
    edgeLine(drawn, widths, columns, total),
    legend(bar, [`one column is ${roundSizeText(perColumn)}`, ...(widened ? ['what is smaller is widened'] : [])], columns),
  ].flat();
}

function fill(piece: Piece, width: number): string {
  if (piece.kind === 'table') return '#'.repeat(width);
  if (piece.kind === 'unused') return '.'.repeat(width);
  const edge = piece.overlaps ? '<' : piece.startMisaligned ? '!' : '|';
  if (piece.kind === 'several' || piece.partition === undefined) return (piece.startMisaligned || piece.overlaps ? edge : '*') + '*'.repeat(width - 1);
  const { number, name } = piece.partition;
  const end = piece.endMisaligned && width > 1 ? '!' : '';
  const room = width - 1 - end.length;
  const full = name === undefined ? String(number) : `${number} ${plain(name)}`;
  const label = [...full].length <= room ? full : String(number).length <= room ? String(number) : '';
  return edge + label + '='.repeat(room - [...label].length) + end;
}

/** Without what means something in the picture, or would not be one column wide. */
function plain(name: string): string {
  return shown(name)
    .replace(/[^\x20-\x7e]/g, '?')
    .replace(/[!<|#*=]/g, '_');
}

/** Where partitions begin, under their edges, as far as there is room. */
function edgeLine(pieces: readonly Piece[], widths: readonly number[], columns: number, total: bigint): string {
  const end = roundSizeText(total);
  let line = '';
  let at = 0;
  for (const [index, piece] of pieces.entries()) {
    const text = roundSizeText(piece.start);
    const free = line.length === 0 ? at >= 0 : line.length < at;
    if (piece.kind !== 'table' && piece.kind !== 'unused' && free && at + text.length + 1 + end.length < columns) line = line.padEnd(at) + text;
    at += widths[index];
  }
  return line.padEnd(columns - end.length) + end;
}

function legend(bar: string, scale: readonly string[], columns: number): string[] {
  const parts = [
    ...MEANINGS.filter(([sign]) => bar.includes(sign) && (sign !== '|' || bar.indexOf('|') < bar.length - 1)).map(([sign, text]) => `${sign} ${text}`),
    ...scale,
  ];
  const lines = [''];
  for (const part of parts) {
    const last = lines[lines.length - 1];
    if (last === '') lines[lines.length - 1] = part;
    else if (last.length + 3 + part.length <= columns) lines[lines.length - 1] = `${last}   ${part}`;
    else lines.push(part);
  }
  return lines;
}
