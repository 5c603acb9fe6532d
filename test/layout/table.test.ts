/** Partition tables that no tool makes: built by hand, then made to lie. */
import { describe, expect, it } from 'vitest';
import { findingsOfOneCodeMax } from '../../src/layout/findings.js';
import type { Table } from '../../src/layout/model.js';
import { bufferSource } from '../../src/layout/source.js';
import { readTable } from '../../src/layout/table.js';
import { MEBIBYTE, SparseImage, sealHeader, writeChain, writeGpt, writeMbr } from './corpus.js';
import { ext, fat, ntfs } from './superblocks.js';

const codes = (table: Table) => table.findings.map(({ severity, code }) => `${severity} ${code}`);
const starts = (table: Table) => table.partitions.map(({ number, start }) => [number, start]);
const two = [
  { first: 2048, last: 4095, name: 'first' },
  { first: 4096, last: 10_000 },
];

describe('a GPT', () => {
  for (const sectorSize of [512, 1024, 2048, 4096]) {
    it(`in sectors of ${sectorSize} bytes is found, by its backup alone as well`, () => {
      const unit = BigInt(sectorSize);
      for (const without of [undefined, 'primary', 'backup'] as const) {
        const image = writeGpt(new SparseImage(256 * MEBIBYTE), { sectorSize, partitions: two, without });
        const table = readTable(image);
        expect(table.sectorSize).toEqual({ value: sectorSize, source: without === 'primary' ? 'gpt-backup' : 'gpt-primary' });
        expect(starts(table)).toEqual([
          [1, 2048n * unit],
          [2, 4096n * unit],
        ]);
        expect(table.partitions[0]).toMatchObject({ size: 2048n * unit, name: 'first', exempt: false, aligned: false });
        expect(table.state).toEqual([{ primary: 'primary-bad', backup: 'backup-missing', none: 'ok' }[without ?? 'none']]);
      }
    });
  }

  it('may have entries of any multiple of 8 bytes from 128 on', () => {
    for (const entryBytes of [128, 136, 192, 256, 512, 4096]) {
      const table = readTable(
        writeGpt(new SparseImage(64 * MEBIBYTE), { entryBytes, entryCount: 128, partitions: [...two, { number: 128, first: 20_000, last: 20_007 }] }),
      );
      expect([entryBytes, table.state, starts(table)[2]]).toEqual([entryBytes, ['ok'], [128, 20_000n * 512n]]);
      expect(codes(table)).toEqual(entryBytes === 128 ? [] : ['info I_GPT_ENTRY_SIZE']);
    }
    for (const entryBytes of [0, 64, 120, 132]) {
      const image = writeGpt(new SparseImage(64 * MEBIBYTE), { entryBytes: 128, partitions: two, without: 'backup' });
      const header = image.read(512n, 512);
      new DataView(header.buffer).setUint32(84, entryBytes, true);
      sealHeader(header);
      const table = readTable(image.write(512, header));
      expect(table.primary?.reason).toContain(`entries of ${entryBytes} bytes`);
      expect(table.state).toContain('no-valid-table');
    }
  });

  it('with more entries than are listed says so', () => {
    const table = readTable(
      writeGpt(new SparseImage(64 * MEBIBYTE), {
        entryCount: 8192,
        partitions: [
          { first: 4096, last: 8191 },
          { number: 8000, first: 20_000, last: 20_007 },
        ],
      }),
    );
    expect(table.partitions).toHaveLength(1);
    expect(codes(table)).toEqual(['warning W_GPT_ENTRIES']);
    expect(table.findings[0].message).toContain('8192 entries of 128 bytes; only the first 4096');
  });

  it('with a larger array than is read is not believed, and its array not read', () => {
    const image = writeGpt(new SparseImage(64 * MEBIBYTE), { entryCount: 9000, partitions: two });
    const table = readTable(image);
    expect(table.state).toContain('no-valid-table');
    expect(table.primary?.reason).toBe('9000 entries of 128 bytes are more than the 1048576 bytes that are read of an array');
    expect(image.bytesRead).toBeLessThan(200_000);
  });

  it('whose copies are whole but differ is a contradiction', () => {
    const image = new SparseImage(64 * MEBIBYTE);
    writeGpt(image, { partitions: two, without: 'primary' });
    writeGpt(image, { partitions: [{ first: 2048, last: 6000 }], without: 'backup' });
    const table = readTable(image);
    expect(starts(table)).toEqual([[1, 2048n * 512n]]);
    expect(codes(table)).toEqual(['error E_COPIES_DIFFER']);
  });

  it('with partitions that overlap names both, the shared bytes and the table itself', () => {
    const table = readTable(
      writeGpt(new SparseImage(64 * MEBIBYTE), {
        partitions: [
          { first: 2048, last: 4096 },
          { first: 4096, last: 8191 },
          { first: 20, last: 100 },
        ],
      }),
    );
    expect(table.state).toEqual(['overlap']);
    expect(codes(table)).toEqual(['error E_OVERLAP', 'error E_OVERLAP']);
    expect(table.findings.map(({ partition, message }) => [partition, message])).toEqual([
      [3, 'from byte 10240 (LBA 20) to byte 51712 it lies over the GPT entries at byte 1024 (LBA 2)'],
      [2, 'begins at byte 2097152 (LBA 4096), before the end of partition 1 at byte 2097664: they share 512 bytes'],
    ]);
  });

  it('has names that cannot move the cursor of a terminal', () => {
    const name = 'a\u001b[2J\u202eb';
    expect(readTable(writeGpt(new SparseImage(64 * MEBIBYTE), { partitions: [{ first: 2048, last: 4095, name }] })).partitions[0].name).toBe('a?[2J?b');
  });

  it('with entries that end before they begin, or beyond 2^64, is damaged and they are left out or told', () => {
    const image = new SparseImage(64 * MEBIBYTE);
    writeGpt(image, {
      partitions: [
        { first: 4096, last: 2048 },
        { first: 8192, last: (1n << 64n) - 1n },
      ],
    });
    const table = readTable(image);
    expect(codes(table)).toEqual(['error E_PARTITION_RANGE', 'error E_OVERLAP', 'error E_BEYOND_END']);
    expect(table.partitions).toEqual([expect.objectContaining({ number: 2, size: ((1n << 64n) - 8192n) * 512n })]);
  });

  it('outside of its own usable range is a warning', () => {
    const image = writeGpt(new SparseImage(64 * MEBIBYTE), { partitions: [{ first: 34, last: 50 }], without: 'backup' });
    const header = image.read(512n, 512);
    new DataView(header.buffer).setBigUint64(40, 40n, true);
    sealHeader(header);
    expect(codes(readTable(image.write(512, header)))).toEqual(['warning W_BACKUP_MISSING', 'warning W_OUTSIDE_USABLE']);
  });

  it('says of thousands of findings of one kind how many more there are', () => {
    const partitions = Array.from({ length: 1000 }, (_, index) => ({ first: 100_000, last: 100_000 + index }));
    const table = readTable(writeGpt(new SparseImage(256 * MEBIBYTE), { entryCount: 1024, partitions }));
    expect(table.findings).toHaveLength(findingsOfOneCodeMax + 1);
    expect(table.findings.at(-1)).toMatchObject({ code: 'E_OVERLAP', message: `and ${999 - findingsOfOneCodeMax} more of the same` });
  });

  it('accepts a protective entry of no sectors or of all ones, and mentions any other size', () => {
    for (const [sectors, expected] of [
      [0xffffffff, []],
      [131071, []],
      [0, ['info I_PMBR_SIZE']],
      [4711, ['info I_PMBR_SIZE']],
    ] as const) {
      const image = writeGpt(new SparseImage(64 * MEBIBYTE), { partitions: two });
      expect(codes(readTable(writeMbr(image, [{ type: 0xee, start: 1, sectors }])))).toEqual(expected);
    }
  });
});

describe('the sector size', () => {
  it('is ambiguous where headers for two sizes lie, and nothing is to be trusted then', () => {
    const image = writeGpt(new SparseImage(64 * MEBIBYTE), { sectorSize: 4096, partitions: [{ first: 256, last: 511 }] });
    const other = writeGpt(new SparseImage(64 * MEBIBYTE), { partitions: two, without: 'backup' });
    image.write(512, other.read(512n, 512));
    const table = readTable(image);
    expect(table.state).toContain('ambiguous-sector-size');
    expect(table.findings[0]).toMatchObject({ severity: 'error', code: 'E_SECTOR_AMBIGUOUS', layer: 'table' });
    expect(table.findings[0].message).toContain('byte 512, byte 4096, byte 67104768: sectors of 512 and 4096 bytes are both possible');
    // The one whose array is whole as well.
    expect(table.sectorSize).toEqual({ value: 4096, source: 'gpt-primary' });
    expect(readTable(image, { sectorSize: 4096 }).state).toEqual(['ok']);
  });

  it('is not ambiguous because a backup that is not at the end lies where that of other sectors would', () => {
    const image = writeGpt(new SparseImage(64 * MEBIBYTE), { partitions: two });
    image.size += 7n * 512n;
    const table = readTable(image);
    expect([table.sectorSize.value, table.state]).toEqual([512, ['backup-not-at-end']]);
  });

  it('of the device or the caller goes before what the table says, and a table for other sectors is said to be one', () => {
    const image = writeGpt(new SparseImage(64 * MEBIBYTE), { partitions: two });
    for (const options of [{ sectorSize: 4096 }, { deviceSectorSize: 4096 }]) {
      const table = readTable(image, options);
      expect(table.sectorSize).toEqual({ value: 4096, source: options.sectorSize ? 'option' : 'device' });
      expect([table.kind, table.partitions]).toEqual(['pmbr-only', []]);
      expect(table.state).toEqual(['no-valid-table', 'protective-mbr-without-gpt']);
      expect(table.findings[0]).toMatchObject({ code: 'E_SECTOR_MISMATCH', message: expect.stringContaining('off by a factor of 8') });
    }
    expect(() => readTable(image, { sectorSize: 520 })).toThrow(expect.objectContaining({ code: 'ERR_INVALID_ARG_VALUE' }));
  });

  for (const sectorSize of [512, 1024, 2048, 4096]) {
    it(`of an MBR is that in which its partitions begin with a volume: ${sectorSize}`, () => {
      const image = writeMbr(new SparseImage(256 * MEBIBYTE), [
        { type: 0x83, start: 256, sectors: 2048 },
        { type: 7, start: 2304, sectors: 2048 },
      ]);
      image.write(256 * sectorSize, ext('ext4')).write(2304 * sectorSize, ntfs());
      const table = readTable(image);
      expect([table.sectorSize, table.state]).toEqual([{ value: sectorSize, source: 'boot-sector' }, ['ok']]);
      expect(starts(table)).toEqual([
        [1, 256n * BigInt(sectorSize)],
        [2, 2304n * BigInt(sectorSize)],
      ]);
    });
  }

  it('of an MBR is not mistaken because one partition lies where another would in larger sectors', () => {
    const image = writeMbr(new SparseImage(64 * MEBIBYTE), [
      { type: 0x83, start: 2048, sectors: 8192 },
      { type: 0x83, start: 16384, sectors: 8192 },
    ]);
    image.write(2048 * 512, ext('ext4')).write(16384 * 512, ext('ext4'));
    expect(readTable(image).sectorSize).toEqual({ value: 512, source: 'boot-sector' });
    image.write(2048 * 512, new Uint8Array(4096));
    expect(readTable(image).sectorSize).toEqual({ value: 512, source: 'boot-sector' });
  });

  it('of an MBR that fits two sizes equally well is ambiguous; of one with no known volume it is assumed', () => {
    const image = writeMbr(new SparseImage(256 * MEBIBYTE), [{ type: 0x83, start: 2048, sectors: 8192 }]);
    expect(readTable(image)).toMatchObject({ state: ['ok'], sectorSize: { value: 512, source: 'assumed' } });
    image.write(2048 * 512, ext('ext4')).write(2048 * 4096, fat({ sectorsPerFat: 64, totalSectors: 65536 }));
    const table = readTable(image);
    expect(table.state).toEqual(['ambiguous-sector-size']);
    expect(codes(table)).toEqual(['error E_SECTOR_AMBIGUOUS']);
  });
});

describe('an MBR', () => {
  const container = { type: 5, start: 10_000, sectors: 50_000 };
  const extended = () => writeMbr(new SparseImage(64 * MEBIBYTE), [{ type: 0x83, start: 2048, sectors: 4096 }, container]);

  it('with a chain of logical partitions numbers them from 5 on', () => {
    const image = writeChain(extended(), 10_000, [
      { ebr: 10_000, gap: 63, sectors: 1000 },
      { ebr: 30_000, gap: 2048, sectors: 1000 },
      { ebr: 20_000, gap: 1, sectors: 1000 },
    ]);
    const table = readTable(image);
    expect(starts(table).map(([number, start]) => [number, Number(start) / 512])).toEqual([
      [1, 2048],
      [5, 10_063],
      [6, 32_048],
      [7, 20_001],
    ]);
    expect([table.state, table.extended]).toEqual([['ok'], [{ start: 5_120_000n, size: 25_600_000n }]]);
  });

  for (const [what, ebrs] of [
    ['to itself', [10_000, 10_000]],
    ['back to the first', [10_000, 12_000, 14_000, 10_000]],
    ['to one in the middle', [10_000, 12_000, 14_000, 12_000]],
  ] as const) {
    it(`whose chain leads ${what} is caught, with what was read before`, () => {
      const image = extended();
      for (const [index, ebr] of ebrs.slice(0, -1).entries()) {
        writeMbr(
          image,
          [
            { type: 0x83, start: 10, sectors: 100 },
            { type: 5, start: ebrs[index + 1] - 10_000, sectors: 200 },
          ],
          BigInt(ebr) * 512n,
        );
      }
      const table = readTable(image);
      expect(table.state).toEqual(['ebr-loop']);
      expect(codes(table)).toEqual(['error E_EBR_LOOP']);
      expect(table.partitions).toHaveLength(ebrs.length);
    });
  }

  it('whose chain never ends is followed for 256 links, and that is said', () => {
    const image = writeChain(
      extended(),
      10_000,
      Array.from({ length: 300 }, (_, index) => ({ ebr: 10_000 + index * 16, gap: 1, sectors: 8 })),
    );
    const table = readTable(image);
    expect(table.partitions).toHaveLength(257);
    expect(codes(table)).toEqual(['error E_EBR']);
    expect(image.bytesRead).toBeLessThan(2 * MEBIBYTE);
  });

  it('whose chain leads out of the image, or to a sector that is no EBR, is damaged', () => {
    for (const [link, message] of [
      [4_000_000, 'is beyond the end of the image'],
      [5000, 'does not end in 55 AA'],
    ] as const) {
      const image = extended();
      writeMbr(
        image,
        [
          { type: 0x83, start: 10, sectors: 100 },
          { type: 5, start: link, sectors: 200 },
        ],
        10_000n * 512n,
      );
      const table = readTable(image);
      expect(codes(table)).toEqual(['error E_EBR']);
      expect(table.findings[0].message).toContain(message);
      expect(table.partitions).toHaveLength(2);
      expect(table.state).toEqual([]);
    }
  });

  it('with a logical partition outside of the extended one is damaged', () => {
    const image = writeChain(extended(), 10_000, [{ ebr: 10_000, gap: 45_000, sectors: 10_000 }]);
    expect(codes(readTable(image))).toEqual(['error E_LOGICAL_OUTSIDE']);
  });

  it('with several extended partitions follows each', () => {
    const image = writeMbr(new SparseImage(64 * MEBIBYTE), [
      { type: 5, start: 2048, sectors: 4096 },
      { type: 0x0f, start: 8192, sectors: 4096 },
    ]);
    writeChain(image, 2048, [{ ebr: 2048, gap: 1, sectors: 100 }]);
    writeChain(image, 8192, [{ ebr: 8192, gap: 1, sectors: 100 }]);
    expect(starts(readTable(image))).toEqual([
      [5, 2049n * 512n],
      [6, 8193n * 512n],
    ]);
  });

  it('with overlapping partitions, one of them extended, says so', () => {
    const image = writeMbr(new SparseImage(64 * MEBIBYTE), [{ type: 0x83, start: 2048, sectors: 9000 }, container]);
    const table = readTable(image);
    expect(table.state).toEqual(['overlap']);
    expect(table.findings[0].message).toBe(
      'the extended partition begins at byte 5120000 (LBA 10000), before the end of partition 1 at byte 5656576: they share 536576 bytes',
    );
  });

  it('that reaches beyond the end is damaged', () => {
    const table = readTable(writeMbr(new SparseImage(64 * MEBIBYTE), [{ type: 0x83, start: 2048, sectors: 0xffffffff }]));
    expect(table.state).toEqual(['partition-beyond-end']);
    expect(table.findings[0]).toMatchObject({ code: 'E_BEYOND_END', partition: 1, value: (2048n + 0xffffffffn) * 512n });
  });

  it('is none where entries have flags that no table has', () => {
    const image = writeMbr(new SparseImage(64 * MEBIBYTE), [{ type: 0x83, start: 2048, sectors: 9000, status: 0x42 }]);
    expect(readTable(image)).toMatchObject({ kind: 'none', partitions: [], findings: [{ code: 'I_NO_TABLE' }] });
  });
});

describe('what is no table', () => {
  it('is none, of any size, empty included', () => {
    for (const size of [0, 1, 511, 512, 1000, 4096, 5000, 65536, 1 << 20]) {
      const table = readTable(bufferSource(new Uint8Array(size)));
      expect([table.kind, table.state, table.partitions, table.findings]).toEqual(['none', [], [], []]);
    }
  });

  it('is a superfloppy with a FAT whose code looks like entries', () => {
    const boot = fat({ sectorsPerFat: 64, totalSectors: 65536 });
    for (let at = 446; at < 510; at++) boot[at] = 0x61 + (at % 20);
    expect(readTable(new SparseImage(32 * MEBIBYTE).write(0, boot))).toMatchObject({ kind: 'superfloppy', partitions: [], state: ['ok'] });
  });

  it('remembers a GPT of which only damaged headers are left', () => {
    const image = writeGpt(new SparseImage(64 * MEBIBYTE), { partitions: two, without: 'protective' });
    image.write(512 + 56, Uint8Array.of(1)).write(64 * MEBIBYTE - 512 + 56, Uint8Array.of(1));
    expect(readTable(image)).toMatchObject({ kind: 'gpt', state: ['no-valid-table', 'primary-bad', 'backup-bad'], findings: [{ code: 'E_NO_VALID_TABLE' }] });
  });
});
