/**
 * A report as bars: one SVG, a panel for each section, this library's bars in another colour than the others'.
 *
 * Guarantees: bars of a panel begin at zero and share one scale; the figures stand in columns of their own beside them, so that no two texts overlap; whiskers show the lowest and highest round.
 */
import { type Column, lowerIsBetter, machineText, type Report, type Row, rowMedian, type Section, sectionColumns, skippedTexts } from './report.js';

const barsWidth = 280;
/** Letters on average: bold at 12 px, plain at 12 and at 11. Names and columns take as much room as the longest needs. */
const boldWidth = 7.3;
const plainWidth = 7;
const smallWidth = 6.1;
const columnGap = 14;
const rowHeight = 24;
const barHeight = 15;
const lineHeight = 15;
const panelHead = 30;
/** Between rows of different cases. */
const caseGap = 8;
const head = 46;
const margin = 20;

const ink = '#1f2430';
const faint = '#6b7280';
const ownColour = '#1d6fb8';
const otherColour = '#b9c0cb';
const small = `font-size="11" fill="${faint}"`;

function escaped(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;');
}

function text(x: number, y: number, content: string, attributes = ''): string {
  return `<text x="${x}" y="${y}" ${attributes}>${escaped(content)}</text>`;
}

/** Words in lines of so many letters. */
function linesOf(content: string, letters: number): string[] {
  const lines = [''];
  for (const word of content.split(' ')) {
    const last = lines[lines.length - 1];
    if (last === '') lines[lines.length - 1] = word;
    else if (last.length + 1 + word.length <= letters) lines[lines.length - 1] = `${last} ${word}`;
    else lines.push(word);
  }
  return lines;
}

/** Where a column of figures ends, which is where its texts do. */
interface PlacedColumn extends Column {
  end: number;
}

function placed(columns: readonly Column[], rows: readonly Row[], start: number): PlacedColumn[] {
  let end = start + 6;
  return columns.map((column) => {
    const letters = Math.max(column.head.length, ...rows.map((row) => column.cell(row).length));
    end += Math.ceil(letters * plainWidth) + columnGap;
    return { ...column, end };
  });
}

function rowParts(row: Row, columns: readonly PlacedColumn[], top: number, barsStart: number, scale: number): string[] {
  const value = rowMedian(row);
  const values = row.rounds.map((figures) => figures.value);
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const middle = top + rowHeight / 2;
  const at = (amount: number): number => Math.round((barsStart + amount * scale) * 10) / 10;
  return [
    text(barsStart - 10, middle + 4, row.name, `text-anchor="end" fill="${ink}"${row.own ? ' font-weight="600"' : ''}`),
    `<rect x="${at(0)}" y="${middle - barHeight / 2}" width="${Math.max(1, Math.round(value * scale * 10) / 10)}" height="${barHeight}" rx="2" fill="${row.own ? ownColour : otherColour}"/>`,
    `<path d="M${at(low)} ${middle}H${at(high)}M${at(low)} ${middle - 4}v8M${at(high)} ${middle - 4}v8" stroke="${ink}" stroke-width="1" opacity="0.55" fill="none"/>`,
    ...columns.map(({ cell, end }, index) => text(end, middle + 4, cell(row), `text-anchor="end" fill="${index === 0 ? ink : faint}"`)),
  ];
}

/** A panel whose top is at `top`; where the next one begins. */
function panel(section: Section, columns: readonly PlacedColumn[], top: number, barsStart: number, letters: number, parts: string[]): number {
  const { rows, state } = section;
  const largest = Math.max(Number.MIN_VALUE, ...rows.flatMap((row) => row.rounds.map((figures) => figures.value)));
  let at = top;
  const note = (content: string): void => {
    for (const line of linesOf(content, letters)) {
      parts.push(text(margin, at + 11, line, small));
      at += lineHeight;
    }
  };
  parts.push(text(margin, at + 18, section.title, `font-size="14" font-weight="600" fill="${ink}"`));
  at += panelHead;
  if (state !== undefined) note(state);
  // Above the first row: what the bars and the columns are.
  parts.push(text(barsStart, at + 12, lowerIsBetter(section.unit) ? 'shorter is better' : 'longer is better', small));
  for (const { head: title, end } of columns) parts.push(text(end, at + 12, title, `text-anchor="end" ${small}`));
  at += lineHeight + 2;
  let last: string | undefined;
  for (const [index, row] of rows.entries()) {
    if (index > 0 && row.case !== last) at += caseGap;
    last = row.case;
    parts.push(...rowParts(row, columns, at, barsStart, barsWidth / largest));
    at += rowHeight;
  }
  const left = skippedTexts(section);
  if (left.length > 0) at += 3;
  for (const line of left) note(line);
  return at + 14;
}

/** The plot as the text of an SVG file. */
export function plot(report: Report): string {
  const { sections } = report;
  const barsStart = margin + 10 + Math.ceil(boldWidth * Math.max(0, ...sections.flatMap(({ rows }) => rows.map((row) => row.name.length))));
  const columns = sections.map((section) => placed(section.rows.length > 0 ? sectionColumns(section) : [], section.rows, barsStart + barsWidth));
  const titleWidth = Math.ceil(report.title.length * 10.2);
  const width = margin + Math.max(640, margin + titleWidth, ...columns.flatMap((some) => some.map(({ end }) => end)));
  const letters = Math.floor((width - 2 * margin) / smallWidth);
  const parts: string[] = [];
  let top = head;
  for (const line of linesOf(machineText(report.machine), letters)) {
    parts.push(text(margin, top, line, small));
    top += lineHeight;
  }
  for (const [index, section] of sections.entries()) top = panel(section, columns[index], top, barsStart, letters, parts);
  const roundCount = Math.max(0, ...sections.flatMap(({ rows }) => rows.map((row) => row.rounds.length)));
  const explained = [
    roundCount === 1 ? 'One round.' : `Medians of ${roundCount} rounds, taken in turns; whiskers: lowest and highest round.`,
    `${report.date.slice(0, 10)}, ${report.group}.json.`,
    ...(columns.some((some) => some.some((column) => column.head === 'ratio')) ? ['ratio: to the first row.'] : []),
    ...(sections.some(({ rows }) => rows.some(({ peer }) => peer)) ? ['to fio, to Node: how many times the best of those in the same section or case.'] : []),
    ...(sections.some(({ rows }) => rows.some((row) => !Number.isNaN(rowMedian(row, 'cpu'))))
      ? ['CPU s/M: seconds of all threads for a million operations.']
      : []),
    ...(sections.some(({ rows }) => rows.some((row) => !Number.isNaN(rowMedian(row, 'cores')))) ? ['cores: the same as a share of one.'] : []),
    ...(sections.some(({ rows }) => rows.some((row) => !Number.isNaN(rowMedian(row, 'moved')))) ? ['device B: bytes that it moved for one operation.'] : []),
  ];
  for (const line of linesOf(explained.join(' '), letters)) {
    parts.push(text(margin, top + 11, line, small));
    top += lineHeight;
  }
  const height = Math.ceil(top + margin / 2);
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}" viewBox="0 0 ${width} ${height}" font-family="system-ui, 'DejaVu Sans', Helvetica, Arial, sans-serif" font-size="12">`,
    `<rect width="${width}" height="${height}" fill="#ffffff"/>`,
    text(margin, 28, report.title, `font-size="18" font-weight="700" fill="${ink}"`),
    ...parts,
    '</svg>',
    '',
  ].join('\n');
}
