/** The arithmetic behind the tables of the tour and the benchmarks. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { bytesText, figure, LINE_COLUMNS, parseBytes, tableLines, wrap } from '../../tools/bench/format.js';
import { Latencies, median, percentile } from '../../tools/bench/latencies.js';
import { seededBytes, seededOrder } from '../../tools/bench/pattern.js';
import { plot } from '../../tools/bench/plot.js';
import {
  bestPeer,
  CannotRun,
  type Contender,
  compared,
  comparedWithBest,
  interleave,
  interleaveMany,
  isMet,
  medianOf,
  type Report,
  ratio,
  reportLines,
  type Section,
  type Unit,
} from '../../tools/bench/report.js';

describe('percentile', () => {
  it('is the smallest value that enough of the others do not exceed', () => {
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 0, max: 1000 }), { minLength: 1 }), fc.integer({ min: 1, max: 100 }), (values, percent) => {
        const sorted = values.sort((a, b) => a - b);
        const found = percentile(sorted, percent);
        const notAbove = (bound: number): number => values.filter((value) => value <= bound).length;
        expect(values).toContain(found);
        expect(notAbove(found) * 100).toBeGreaterThanOrEqual(percent * values.length);
        const below = sorted.filter((value) => value < found).at(-1);
        if (below !== undefined) expect(notAbove(below) * 100).toBeLessThan(percent * values.length);
      }),
    );
  });

  it('of nothing is not a number', () => {
    expect(percentile([], 50)).toBeNaN();
    expect(median([])).toBeNaN();
  });
});

describe('Latencies', () => {
  it('keeps every value beyond its first room', () => {
    const latencies = new Latencies();
    for (let index = 40_000; index > 0; index--) latencies.record(index);
    expect(latencies.count).toBe(40_000);
    expect(percentile(latencies.sorted(), 50)).toBe(20_000);
  });
});

describe('seeded patterns', () => {
  it('visit each block once, in an order that only depends on the seed', () => {
    const order = seededOrder(1000, 7);
    expect(seededOrder(1000, 7)).toEqual(order);
    expect(seededOrder(1000, 8)).not.toEqual(order);
    expect([...order].sort((a, b) => a - b)).toEqual(Array.from({ length: 1000 }, (_, index) => index));
  });

  it('give the same bytes in whatever pieces they are asked for', () => {
    const whole = seededBytes(3)(10_000);
    const next = seededBytes(3);
    expect(Buffer.concat([next(1), next(4095), next(5904)])).toEqual(whole);
  });
});

describe('text', () => {
  it.each([
    ['4096', 4096],
    ['64M', 64 * 1024 ** 2],
    ['1.5 GiB', 1.5 * 1024 ** 3],
    ['2k', 2048],
    ['0', undefined],
    ['-1', undefined],
    ['many', undefined],
    ['0.3', undefined],
    ['', undefined],
  ])('reads %j as %s bytes', (text, bytes) => {
    expect(parseBytes(text)).toBe(bytes);
  });

  it('writes numbers with three digits that count', () => {
    expect([0.5, 12.34, 1234.5, Number.NaN].map(figure)).toEqual(['0.50', '12.3', '1,235', '-']);
    expect([512, 4096, 1.5 * 1024 ** 3].map(bytesText)).toEqual(['512 bytes', '4 KiB', '1.5 GiB']);
  });

  it('wraps at 80 columns without losing a word', () => {
    fc.assert(
      fc.property(
        fc.array(fc.string({ minLength: 1, maxLength: 30, unit: fc.constantFrom('a', 'b') }), { minLength: 1 }),
        fc.integer({ min: 0, max: 20 }),
        (words, indent) => {
          const lines = wrap(`  ${words.join(' ')}`, indent);
          expect(lines.join(' ').split(/\s+/).filter(Boolean)).toEqual(words);
          for (const line of lines) expect(line.length).toBeLessThanOrEqual(LINE_COLUMNS);
          for (const line of lines.slice(1)) expect(line.search(/\S/)).toBe(indent);
        },
      ),
    );
  });

  it('keeps a word that is wider than the page in one piece', () => {
    const word = 'w'.repeat(100);
    expect(wrap(`a ${word} b`, 2)).toEqual(['a', `  ${word}`, '  b']);
  });

  it('sets the first column of a table to the left and the others to the right', () => {
    expect(
      tableLines([
        ['name', 'value'],
        ['a', '1'],
      ]),
    ).toEqual(['name  value', 'a         1']);
  });
});

describe('a report', () => {
  const turns: string[] = [];
  const contender = (name: string, values: number[], own = false): Contender => {
    let round = 0;
    return {
      name,
      own,
      run: async () => {
        turns.push(name);
        return { value: values[round++], p99: 5 };
      },
    };
  };
  const settings = { folder: '/', rounds: 3, seconds: 1, log: () => {} };

  it('takes turns, backwards in every other round, and its ratios are those of rounds', async () => {
    turns.length = 0;
    const section = await interleave('depth 1', 'op/s', [contender('peer', [10, 20, 40]), contender('ours', [20, 20, 120], true)], settings);
    expect(turns).toEqual(['peer', 'ours', 'ours', 'peer', 'peer', 'ours']);
    expect(ratio(section.rows[1], section.rows[0])).toBe(2);
  });

  it('keeps one run for each of the sections that it says something for', async () => {
    const both = async (): Promise<Array<{ value: number }>> => [{ value: 100 }, { value: 7 }];
    const heads = [
      { title: 'speed', unit: 'MiB/s' as const },
      { title: 'cost', unit: 'ms' as const },
    ];
    const [speed, cost] = await interleaveMany(heads, [{ name: 'ours', run: both }], settings);
    expect([medianOf(speed, 'ours'), medianOf(cost, 'ours')]).toEqual([100, 7]);
    expect(cost.rows[0].rounds).toHaveLength(3);
  });

  it('names what could not be run, with the reason, and measures no target by it', async () => {
    let runs = 0;
    const contenders: Contender[] = [
      contender('ours', [20, 20, 20], true),
      { ...contender('absent', []), missing: 'not installed' },
      {
        name: 'late',
        run: async () => {
          if (++runs === 1) return { value: 1 };
          throw new CannotRun('it went away');
        },
      },
    ];
    const said: string[] = [];
    const section = await interleave('depth 1', 'ms', contenders, { ...settings, log: (line) => said.push(line) });
    expect(section.rows.map((row) => row.name)).toEqual(['ours']);
    expect(section.skipped).toEqual([
      { name: 'absent', reason: 'not installed' },
      { name: 'late', reason: 'it went away' },
    ]);
    expect(runs).toBe(2);
    expect(said).toContain('  skipped: late: it went away');
    const machine = { cpu: 'c', cpus: 1, memory: '1 GiB', arch: 'x64', kernel: '6', node: 'v20', fileSystem: 'ext4', device: 'd' };
    const targets = [{ text: 'beside the absent', measured: compared(section, 'ours', 'absent'), unit: 'times', atLeast: 2 }];
    const report: Report = { group: 'g', title: 'Title', date: '2026-01-01T00:00:00Z', machine, sections: [section], targets };
    const text = reportLines(report).join('\n');
    expect(text).toContain('skipped: absent: not installed');
    expect(text).toMatch(/skipped +beside the absent/);
    expect(plot(report)).toContain('skipped: late: it went away');
  });

  describe.each<[Unit, string, number]>([
    ['op/s', 'fast', 1.5],
    ['ns', 'slow', 3],
  ])('in %s', (unit, best, times) => {
    const rows = (): Promise<Section> =>
      interleave(
        'cases',
        unit,
        [
          { ...contender('slow', [10, 10, 10]), peer: 'fio', case: 'one' },
          { ...contender('fast', [20, 20, 20]), peer: 'fio', case: 'one' },
          { ...contender('other', [1000, 1000, 1000]), peer: 'fio', case: 'two' },
          { ...contender('ours', [30, 30, 30], true), case: 'one' },
        ],
        settings,
        'frames empty',
      );

    it('compares with the best peer of the same case', async () => {
      const section = await rows();
      expect(bestPeer(section, 'fio', 'one')?.name).toBe(best);
      expect(comparedWithBest(section, 'ours', 'fio')).toBe(times);
      expect(comparedWithBest(section, 'ours', 'node')).toBeNaN();
    });

    it('shows the same figures in the table and in the plot, and what state they were taken in', async () => {
      const machine = { cpu: 'c', cpus: 1, memory: '1 GiB', arch: 'x64', kernel: '6', node: 'v20', fileSystem: 'ext4', device: 'd' };
      const report: Report = { group: 'g', title: 'Title', date: '2026-01-01T00:00:00Z', machine, sections: [await rows()], targets: [] };
      const text = reportLines(report).join('\n');
      expect(text).toMatch(new RegExp(`ours +30\\.0 +${times.toFixed(2)} +5\\.00`));
      expect(text).toContain('frames empty');
      const svg = plot(report);
      for (const shown of ['>to fio<', '>p99<', `>${times.toFixed(2)}<`, '>frames empty<', 'g.json']) expect(svg).toContain(shown);
    });
  });

  it('says of each target whether it was met, and draws each row', async () => {
    const section = await interleave('depth <1>', 'op/s', [contender('peer', [10, 20, 40]), contender('ours', [20, 20, 120], true)], settings);
    const machine = { cpu: 'c', cpus: 1, memory: '1 GiB', arch: 'x64', kernel: '6', node: 'v20', fileSystem: 'ext4', device: 'd' };
    const targets = [
      { text: 'fast', measured: 2, unit: 'times', atLeast: 1.5 },
      { text: 'cheap', measured: 200, unit: 'ns', atMost: 150 },
    ];
    expect(targets.map(isMet)).toEqual([true, false]);
    const report: Report = { group: 'g', title: 'Title', date: '2026-01-01T00:00:00Z', machine, sections: [section], targets };
    const text = reportLines(report).join('\n');
    expect(text).toMatch(/met +fast: 2\.00 times \(at least 1\.50\)/);
    expect(text).toMatch(/NOT MET +cheap: 200 ns \(at most 150\)/);
    const svg = plot(report);
    expect(svg.match(/<rect /g)).toHaveLength(3);
    expect(svg).toContain('depth &lt;1&gt;');
  });
});
