/** Tables of text: columns two spaces apart, nothing trailing. */

/** The lines; the first row is the head. A column that is empty in all others is left out. */
export function columnLines(rows: readonly string[][]): string[] {
  const width = (column: number): number => Math.max(...rows.map((row) => [...(row[column] ?? '')].length));
  const used = rows[0].map((_, column) => column).filter((column) => column === 0 || rows.slice(1).some((row) => (row[column] ?? '') !== ''));
  const widths = used.map(width);
  return rows.map((row) =>
    used
      .map((column, index) => (row[column] ?? '') + ' '.repeat(widths[index] - [...(row[column] ?? '')].length))
      .join('  ')
      .trimEnd(),
  );
}
