/**
 * Figures in the guides are those that were measured.
 *
 * A row of a table whose last cell is `[<group>.json](../benchmarks/<group>.json): <section>` holds figures of docs/benchmarks: its second cell is the row's name there, and the cell before the last
 * one or more figures, each the median of the rounds to three digits: the row's value in the section's unit, or `cores`, or `s/M` (seconds of processor time for a million operations).
 *
 * After the benchmarks were run again: `SECTORWISE_FIGURES=write npx vitest run test/docs/figures.test.ts` writes the new ones into the guides; read the sentences around them then.
 */
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';

const guides = fileURLToPath(new URL('../../docs/guides/', import.meta.url));
const benchmarks = fileURLToPath(new URL('../../docs/benchmarks/', import.meta.url));

interface Round {
  value: number;
  cpu?: number;
  notes?: { cores?: number };
}
interface Section {
  title: string;
  unit: string;
  rows: { name: string; rounds?: Round[] }[];
}

function median(values: number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

/** Three digits, thousands apart: 61,100; 904; 13.0. */
function written(value: number): string {
  const rounded = Number(value.toPrecision(3));
  const decimals = rounded === 0 ? 0 : Math.max(0, 2 - Math.floor(Math.log10(Math.abs(rounded))));
  return rounded.toLocaleString('en-US', { minimumFractionDigits: decimals, maximumFractionDigits: decimals });
}

/** The figure in `unit` of a row. */
function measured(group: string, section: string, name: string, unit: string): string {
  const { sections } = JSON.parse(readFileSync(join(benchmarks, `${group}.json`), 'utf8')) as { sections: Section[] };
  const found = sections.find(({ title }) => title === section);
  const rounds = found?.rows.find((row) => row.name === name)?.rounds;
  if (found === undefined || rounds === undefined) throw new Error(`${group}.json has no figures for '${name}' in '${section}'`);
  const figures = rounds.map((round) => {
    if (unit === found.unit) return round.value;
    if (unit === 'cores') return round.notes?.cores;
    return unit === 's/M' ? round.cpu : undefined;
  });
  if (figures.some((figure) => figure === undefined)) throw new Error(`${group}.json has no ${unit} for '${name}' in '${section}'`);
  return written(median(figures as number[]));
}

const ROW = /^(\|[^|]*\| ([^|]+) \|(?:[^|\n]*\|)*? )([^|\n]+)( \| \[(\w+)\.json\]\(\.\.\/benchmarks\/(\w+)\.json\): ([^|\n]+) \|)$/gm;

/** The guide with the figures that are in the files. */
function corrected(text: string, seen: () => void): string {
  return text.replace(ROW, (_, before: string, name: string, figures: string, after: string, group: string, linked: string, section: string) => {
    expect(linked).toBe(group);
    const now = figures.replace(/([\d.,]*\d) (op\/s|MiB\/s|MiB|ms|ns|cores|s\/M|blocks)/g, (_figure, _number, unit: string) => {
      seen();
      return `${measured(group, section, name, unit)} ${unit}`;
    });
    return before + now + after;
  });
}

describe('figures in the guides', () => {
  let count = 0;
  for (const file of readdirSync(guides).filter((name) => name.endsWith('.md'))) {
    const text = readFileSync(join(guides, file), 'utf8');
    if (!ROW.test(text)) continue;
    ROW.lastIndex = 0;
    it(`are the medians that docs/benchmarks has: ${file}`, () => {
      const now = corrected(text, () => count++);
      if (process.env.SECTORWISE_FIGURES === 'write') writeFileSync(join(guides, file), now);
      else expect(text).toBe(now);
    });
  }

  it('are found by this test', () => {
    expect(count).toBeGreaterThan(20);
  });
});
