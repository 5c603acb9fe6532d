/**
 * Numbers, tables and lines as the tour and the benchmarks print them. Nothing is wider than 80 columns unless a single word is.
 */

/** Columns of everything that is printed. */
export const LINE_COLUMNS = 80;

/** Three significant digits, thousands grouped, `-` for what was not measured. */
export function figure(value: number): string {
  if (!Number.isFinite(value)) return '-';
  const magnitude = Math.abs(value);
  if (magnitude >= 100) return Math.round(value).toLocaleString('en-US');
  return value.toFixed(magnitude >= 10 ? 1 : 2);
}

/** Bytes in the largest binary unit that keeps them readable: 4 KiB, 1.5 GiB. */
export function bytesText(bytes: number): string {
  const units = ['bytes', 'KiB', 'MiB', 'GiB', 'TiB'];
  let value = bytes;
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit++;
  }
  return `${Number.isInteger(value) ? value : value.toFixed(1)} ${units[unit]}`;
}

/** `256M`, `1g`, `4096`: bytes with a binary suffix, undefined if it is none or not a whole number of bytes above 0. */
export function parseBytes(text: string): number | undefined {
  const match = /^(\d+(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?$/i.exec(text.trim());
  if (!match) return undefined;
  const bytes = Number(match[1]) * 1024 ** ['', 'k', 'm', 'g', 't'].indexOf(match[2].toLowerCase());
  return Number.isSafeInteger(bytes) && bytes > 0 ? bytes : undefined;
}

/** Rows of cells as lines: the first column to the left, the others to the right, each as wide as its widest cell. */
export function tableLines(rows: ReadonlyArray<readonly string[]>): string[] {
  const widths: number[] = [];
  for (const row of rows) {
    for (const [column, cell] of row.entries()) widths[column] = Math.max(widths[column] ?? 0, cell.length);
  }
  return rows.map((row) =>
    row
      .map((cell, column) => (column === 0 ? cell.padEnd(widths[0]) : cell.padStart(widths[column])))
      .join('  ')
      .trimEnd(),
  );
}

/** Breaks `text` at spaces; lines after the first begin with `indent` spaces. */
export function wrap(text: string, indent: number, columns = LINE_COLUMNS): string[] {
  const lines: string[] = [];
  let rest = text;
  while (rest.length > columns) {
    const wordStart = rest.search(/\S/);
    let cut = rest.lastIndexOf(' ', columns);
    if (cut <= wordStart) cut = rest.indexOf(' ', columns);
    if (cut < 0) break;
    lines.push(rest.slice(0, cut).trimEnd());
    rest = ' '.repeat(indent) + rest.slice(cut + 1).trimStart();
  }
  lines.push(rest);
  return lines;
}
