/** Sizes as words, the shares of a picture, the map: for disks of every shape. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { nearest } from '../../src/cli/command.js';
import { mapLines } from '../../src/cli/map.js';
import { joined, type Piece, piecesOf, shares } from '../../src/cli/pieces.js';
import { parseSize, roundSizeText, sizeText } from '../../src/cli/sizes.js';
import { cutOf, stripLines } from '../../src/cli/strip.js';
import { svgOf } from '../../src/cli/svg.js';
import { checkLayout } from '../../src/layout/check.js';
import { SparseImage, writeGpt } from '../layout/corpus.js';

describe('sizes', () => {
  it('are read as people write them', () => {
    const cases: Array<[string, bigint | undefined]> = [
      ['4096', 4096n],
      ['4K', 4096n],
      ['4KiB', 4096n],
      ['4KB', 4000n],
      ['2048s', MIB],
      ['1.5G', 3n << 29n],
      ['16E', undefined],
      ['15E', 15n << 60n],
      ['0.3', undefined],
      ['-1', undefined],
      ['', undefined],
      ['1 M', MIB],
      ['1Q', undefined],
    ];
    for (const [text, bytes] of cases) expect([text, parseSize(text)]).toEqual([text, bytes]);
  });

  it('are told exactly: what is said is read back as the same number', () => {
    fc.assert(
      fc.property(fc.bigInt({ min: 0n, max: (1n << 64n) - 1n }), (bytes) => {
        const text = sizeText(bytes);
        const told = /\((\d+) bytes\)$/.exec(text)?.[1] ?? text.replace(/bytes?$/, '');
        expect(parseSize(told)).toBe(bytes);
        expect(roundSizeText(bytes).length).toBeLessThanOrEqual(11);
      }),
    );
  });
});

const MIB = 1n << 20n;

/** A disk with partitions of any sizes, some of them off by a sector. */
const disks = fc
  .array(fc.record({ gap: fc.integer({ min: 0, max: 1 << 22 }), sectors: fc.integer({ min: 1, max: 1 << 28 }), name: fc.string({ maxLength: 20 }) }), {
    maxLength: 120,
  })
  .map((shapes) => {
    let at = 2048n;
    const partitions = shapes.map(({ gap, sectors, name }) => {
      const first = at + BigInt(gap);
      at = first + BigInt(sectors);
      return { first, last: at - 1n, name: name.replace(/[^\x20-\x7e]/g, '') };
    });
    const image = new SparseImage((at + 4096n) * 512n);
    const report = checkLayout(writeGpt(image, { partitions }), { target: 'x' });
    return { report, size: image.size, count: partitions.length };
  });

describe('the map of a disk', () => {
  it('has lines of the width that was asked for, and pieces that cover the disk once', () => {
    fc.assert(
      fc.property(disks, fc.integer({ min: 40, max: 240 }), ({ report, size }, columns) => {
        const pieces = piecesOf(report, size);
        let reached = 0n;
        for (const { start, end } of pieces) {
          expect(start).toBe(reached);
          expect(end > start).toBe(true);
          reached = end;
        }
        expect(reached).toBe(size);
        const [bar, edges, ...legend] = mapLines(pieces, columns, (text) => text);
        expect(bar).toHaveLength(columns);
        expect(edges.length).toBeLessThanOrEqual(columns);
        for (const line of legend) expect(line.length).toBeLessThanOrEqual(columns);
      }),
      { numRuns: 60 },
    );
  });

  it('shows every number while all of them fit', () => {
    const image = new SparseImage(1n << 40n);
    const partitions = Array.from({ length: 20 }, (_, index) => ({ first: 2048 + index * 8, last: 2055 + index * 8 }));
    const report = checkLayout(writeGpt(image, { partitions }));
    const [bar] = mapLines(piecesOf(report, image.size), 80, (text) => text);
    for (let number = 1; number <= 20; number++) expect(bar).toContain(`|${number}`);
  });

  it('joins neighbours where there are more than columns', () => {
    const pieces: Piece[] = Array.from({ length: 300 }, (_, index) => ({
      kind: 'partition',
      start: BigInt(index),
      end: BigInt(index + 1),
      startMisaligned: index === 7,
      endMisaligned: false,
      overlaps: false,
    }));
    expect(joined(pieces, 50)).toHaveLength(50);
    expect(mapLines(pieces, 60, (text) => text)[0]).toHaveLength(60);
    expect(shares(pieces, 100, () => 1)).toBeUndefined();
  });

  it('gives every piece its least and all together just the width', () => {
    fc.assert(
      fc.property(fc.array(fc.bigInt({ min: 1n, max: 1n << 62n }), { minLength: 1, maxLength: 40 }), fc.integer({ min: 120, max: 240 }), (sizes, columns) => {
        let at = 0n;
        const pieces = sizes.map((size): Piece => {
          at += size;
          return { kind: 'partition', start: at - size, end: at, startMisaligned: false, endMisaligned: false, overlaps: false };
        });
        const widths = shares(pieces, columns, () => 3)!;
        expect(widths.reduce((sum, width) => sum + width, 0)).toBe(columns);
        expect(Math.min(...widths)).toBeGreaterThanOrEqual(3);
      }),
    );
  });

  it('becomes an SVG of balanced tags for any disk', () => {
    fc.assert(
      fc.property(disks, ({ report, size }) => {
        const svg = svgOf(report, size, '4096');
        expect(svg.match(/<text /g)!.length).toBe(svg.match(/<\/text>/g)!.length);
        expect(svg).not.toMatch(/NaN|undefined|Infinity/);
      }),
      { numRuns: 30 },
    );
  });
});

describe('one character for each range of a file', () => {
  it('covers the file with at most eight rows, and no range is less than a page', () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 2 ** 50 }), fc.integer({ min: 40, max: 240 }), (size, columns) => {
        const cut = cutOf(size, 4096, columns);
        expect(cut.rangeBytes % 4096).toBe(0);
        expect(cut.ranges * cut.rangeBytes).toBeGreaterThanOrEqual(size);
        expect((cut.ranges - 1) * cut.rangeBytes).toBeLessThan(size);
        expect(Math.ceil(cut.ranges / cut.perRow)).toBeLessThanOrEqual(8);
        const rows = stripLines('#'.repeat(cut.ranges), cut, [['#', 'all']]).filter((line) => line.includes('#') && !line.startsWith('#'));
        for (const row of rows) expect(row.length).toBeLessThanOrEqual(columns);
      }),
    );
  });
});

describe('misspellings', () => {
  it('are answered with what was meant, if it is near enough', () => {
    expect(nearest('algin', ['align', 'plan'])).toBe('align');
    expect(nearest('pln', ['align', 'plan'])).toBe('plan');
    expect(nearest('frobnicate', ['align', 'plan'])).toBeUndefined();
  });
});
