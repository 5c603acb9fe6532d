/**
 * A report as bars: one SVG, a panel for each section, this library's bars in another colour than the others'.
 *
 * Guarantees: bars of a panel begin at zero and share one scale; each has its figure beside it; whiskers show the lowest and highest round.
 */
import { figure } from './format.js';
import { latencyUnit, lowerIsBetter, machineText, type Report, type Row, rowMedian, type Section } from './report.js';

const barsWidth = 320;
/** Room behind the longest bar for its figures. */
const figuresWidth = 250;
/** A bold letter at this size, on average; names take as much room as the longest needs. */
const letterWidth = 7.2;
const rowHeight = 26;
const barHeight = 16;
const panelHead = 46;
const head = 66;
const margin = 20;

const ink = '#1f2430';
const faint = '#6b7280';
const ownColour = '#1d6fb8';
const otherColour = '#b9c0cb';

function escaped(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;');
}

function text(x: number, y: number, content: string, attributes = ''): string {
  return `<text x="${x}" y="${y}" ${attributes}>${escaped(content)}</text>`;
}

function rowParts(row: Row, section: Section, top: number, nameWidth: number, scale: number): string[] {
  const value = rowMedian(row);
  const values = row.rounds.map((figures) => figures.value);
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const middle = top + rowHeight / 2;
  const at = (amount: number): number => Math.round((margin + nameWidth + amount * scale) * 10) / 10;
  const latencies = (['p50', 'p99'] as const).filter((name) => !Number.isNaN(rowMedian(row, name))).map((name) => `${name} ${figure(rowMedian(row, name))}`);
  const latencyText = latencies.length > 0 ? `${latencies.join(', ')} ${latencyUnit(section)}` : '';
  return [
    text(margin + nameWidth - 10, middle + 4, row.name, `text-anchor="end" fill="${ink}"${row.own ? ' font-weight="600"' : ''}`),
    `<rect x="${at(0)}" y="${middle - barHeight / 2}" width="${Math.max(1, Math.round(value * scale * 10) / 10)}" height="${barHeight}" rx="2" fill="${row.own ? ownColour : otherColour}"/>`,
    `<path d="M${at(low)} ${middle}H${at(high)}M${at(low)} ${middle - 4}v8M${at(high)} ${middle - 4}v8" stroke="${ink}" stroke-width="1" opacity="0.55" fill="none"/>`,
    `<text x="${at(high) + 8}" y="${middle + 4}" fill="${ink}">${figure(value)} ${section.unit}<tspan dx="10" fill="${faint}">${escaped(latencyText)}</tspan></text>`,
  ];
}

/** The plot as the text of an SVG file. */
export function plot(report: Report): string {
  const parts: string[] = [];
  let top = head;
  const nameWidth = Math.ceil(10 + letterWidth * Math.max(0, ...report.sections.flatMap((section) => section.rows.map((row) => row.name.length))));
  const width = margin + nameWidth + barsWidth + figuresWidth + margin;
  for (const section of report.sections) {
    const largest = Math.max(Number.MIN_VALUE, ...section.rows.flatMap((row) => row.rounds.map((figures) => figures.value)));
    const scale = barsWidth / largest;
    parts.push(text(margin, top + 22, section.title, `font-size="14" font-weight="600" fill="${ink}"`));
    parts.push(text(margin, top + 38, lowerIsBetter(section.unit) ? 'shorter is better' : 'longer is better', `font-size="11" fill="${faint}"`));
    top += panelHead;
    for (const row of section.rows) {
      parts.push(...rowParts(row, section, top, nameWidth, scale));
      top += rowHeight;
    }
    for (const { name, reason } of section.skipped ?? []) {
      parts.push(text(margin, top + 14, `skipped: ${name}: ${reason}`, `font-size="11" fill="${faint}"`));
      top += 18;
    }
    top += 12;
  }
  const height = top + margin;
  const roundCount = Math.max(0, ...report.sections.flatMap((section) => section.rows.map((row) => row.rounds.length)));
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}" viewBox="0 0 ${width} ${height}" font-family="system-ui, 'DejaVu Sans', Helvetica, Arial, sans-serif" font-size="12">`,
    `<rect width="${width}" height="${height}" fill="#ffffff"/>`,
    text(margin, 32, report.title, `font-size="18" font-weight="700" fill="${ink}"`),
    text(margin, 52, `${machineText(report.machine)}`, `font-size="11" fill="${faint}"`),
    ...parts,
    text(
      margin,
      height - 10,
      `Medians of ${roundCount} rounds, taken in turns; whiskers: lowest and highest round. ${report.date.slice(0, 10)}`,
      `font-size="11" fill="${faint}"`,
    ),
    '</svg>',
    '',
  ].join('\n');
}
