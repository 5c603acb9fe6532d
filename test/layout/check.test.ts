/** The judge: findings, exit codes and the one sentence, on images built by hand. */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, describe, expect, it } from 'vitest';
import { systemError } from '../../src/errors.js';
import { checkLayout, combinedExit } from '../../src/layout/check.js';
import type { CheckOptions, ImageSource, Report, Topology } from '../../src/layout/model.js';
import { requiredAlignment } from '../../src/layout/rules.js';
import { checkBytesMax, openSource } from '../../src/layout/source.js';
import { TYPE_GUIDS } from '../../src/layout/types.js';
import { version } from '../../src/layout/version.js';
import { note } from '../fixtures/places.js';
import { type GptPartitionShape, MEBIBYTE, SparseImage, writeGpt, writeMbr } from './corpus.js';
import { tool, without } from './debian-tools.js';
import { ext, fat, luks1, luks2, lvm, lvmText, md, ntfs, superblocks, swap } from './superblocks.js';

const device: Topology = { logical: 512, physical: 4096, minimumIo: 4096, optimalIo: 0, alignmentOffset: 0, zone: 0, chunk: 0, source: 'device' };

/** An image of 256 MiB with these partitions, and content at LBAs. */
function gpt(partitions: GptPartitionShape[], content: [number, Uint8Array][] = []): SparseImage {
  const image = writeGpt(new SparseImage(256 * MEBIBYTE), { partitions });
  for (const [lba, bytes] of content) image.write(lba * 512, bytes);
  return image;
}

/** `error E_START p1: starts at ...; move to ...` */
function lines(report: Report): string[] {
  return report.findings.map(
    ({ severity, code, partition, message, fix }) =>
      `${severity} ${code}${partition === null ? '' : ` p${partition}`}: ${message}${fix === '' ? '' : `; ${fix}`}`,
  );
}

const codes = (report: Report) => report.findings.map(({ severity, code }) => `${severity} ${code}`);

describe('a start', () => {
  it('at sector 63 is an error with the division and the LBA to move to', () => {
    const image = writeMbr(new SparseImage(64 * MEBIBYTE), [{ type: 0x83, start: 63, sectors: 65473 }]);
    const report = checkLayout(image);
    expect(lines(report)).toEqual(['error E_START p1: starts at byte 32256 (LBA 63), 32256 % 4096 = 3584; move to LBA 2048']);
    expect(report.findings[0]).toMatchObject({ layer: 'partition', partition: 1, value: 32256n, modulus: 4096n, remainder: 3584n });
    expect(report.table.partitions[0].aligned).toBe(false);
    expect(report.summary).toEqual({
      worst: 'error',
      exit: 1,
      verdict: 'Not laid out for pages of 4096 bytes: the partition layer spoils it: partition 1: starts at byte 32256 (LBA 63), 32256 % 4096 = 3584.',
    });
  });

  it('at LBA 40 is aligned, with a note that it is not on the grain', () => {
    const report = checkLayout(gpt([{ first: 40, last: 409_639 }]));
    expect(lines(report)).toEqual(['info I_GRAIN p1: starts at byte 20480 (LBA 40): on 4096, but 20480 % 1048576 = 20480; that is allowed']);
    expect([report.summary.exit, report.table.partitions[0].aligned]).toEqual([0, true]);
  });

  it('of a type that never holds data is information only, and so is its end', () => {
    for (const type of ['bios', 'msr', 'prep'] as const) {
      const report = checkLayout(gpt([{ first: 34, last: 2046, type: TYPE_GUIDS[type] }]));
      expect([codes(report), report.summary.exit, report.summary.worst]).toEqual([['info I_START'], 0, 'info']);
    }
  });

  it('good for 4096 but not for the largest page that was asked about is an error that says so', () => {
    const image = gpt([{ first: 2056, last: 10_247 }]);
    expect(checkLayout(image).summary.exit).toBe(0);
    const report = checkLayout(image, { pages: [65536, 4096, 16384] });
    expect(lines(report)).toEqual([
      'error E_START p1: starts at byte 1052672 (LBA 2056), 1052672 % 65536 = 4096 (pages of 65536 ask for it; good for pages of 4096); move to LBA 4096',
    ]);
    expect(report.summary.verdict).toContain('pages of 4096, 16384, 65536 bytes');
  });

  it('must suit minimum_io_size and the physical sector, whichever is larger', () => {
    const image = gpt([{ first: 2056, last: 10_247 }]);
    expect(lines(checkLayout(image, { topology: { ...device, minimumIo: 65536 } }))[0]).toContain(
      '1052672 % 65536 = 4096 (minimum_io_size asks for it; good for pages of 4096)',
    );
    expect(lines(checkLayout(image, { physical: 16384 }))[0]).toContain('1052672 % 16384 = 4096 (the physical sectors ask for it; good for pages of 4096)');
    expect(codes(checkLayout(image, { topology: { ...device, minimumIo: 3 * 65536 } }))).toEqual(['info I_MIN_IGNORED', 'info I_GRAIN']);
  });

  it('is counted from alignment_offset', () => {
    const topology = { ...device, alignmentOffset: 3584 };
    const report = checkLayout(gpt([{ first: 2048, last: 10_246 }]), { topology });
    expect(lines(report)[0]).toBe('error E_START p1: starts at byte 1048576 (LBA 2048), (1048576 - alignment_offset 3584) % 4096 = 512; move to LBA 2055');
    expect(codes(checkLayout(gpt([{ first: 2055, last: 10_239 }]), { topology }))).toEqual([]);
  });

  it('is never right on a stack that cannot be aligned', () => {
    const report = checkLayout(gpt([{ first: 2048, last: 10_239 }]), { topology: { ...device, alignmentOffset: -1 } });
    expect(codes(report)).toEqual(['error E_STACK_MISALIGNED']);
    expect([report.summary.exit, report.table.partitions[0].aligned, report.findings[0].layer]).toEqual([1, false, 'device']);
    expect(report.summary.verdict).toMatch(/the device layer spoils it/);
  });

  it('follows a usable stripe, and ignores a placeholder with the reason', () => {
    const image = gpt([{ first: 2048, last: 206_847 }]);
    const stripe = checkLayout(image, { topology: { ...device, minimumIo: 65536, optimalIo: 196608 } });
    expect(lines(stripe)).toEqual(['info I_GRAIN p1: starts at byte 1048576 (LBA 2048): on 65536, but 1048576 % 3145728 = 1048576; that is allowed']);
    const placeholder = checkLayout(image, { topology: { ...device, optimalIo: 33553920 } });
    expect(lines(placeholder)).toEqual(['info I_OPT_IGNORED: optimal_io_size 33553920 = 65535 × 512, a placeholder; using 1 MiB']);
    expect(placeholder.summary.exit).toBe(0);
  });

  it('and size must be whole zones of a zoned device', () => {
    const topology = { ...device, zone: 64 * MEBIBYTE, chunk: 64 * MEBIBYTE };
    expect(codes(checkLayout(gpt([{ first: 131_072, last: 262_143 }]), { topology }))).toEqual([]);
    const report = checkLayout(gpt([{ first: 2048, last: 10_239 }]), { topology });
    expect(codes(report)).toEqual(['error E_ZONE', 'error E_ZONE']);
    expect(lines(report).find((line) => line.includes('E_ZONE'))).toContain('1048576 % 67108864 = 1048576: not where a zone begins; move to LBA 131072');
  });

  it('is aligned, and judged so, exactly where rule R1 says', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 34, max: 100_000 }),
        fc.integer({ min: 1, max: 50_000 }),
        fc.subarray([4096, 8192, 16384, 65536], { minLength: 1 }),
        fc.constantFrom(512, 4096, 8192),
        fc.constantFrom(0, 512, 3584),
        (start, sectors, pages, physical, alignmentOffset) => {
          const topology = { ...device, physical, alignmentOffset };
          const report = checkLayout(gpt([{ first: start, last: start + sectors - 1 }]), { topology, pages });
          const aligned = (BigInt(start) * 512n - BigInt(alignmentOffset)) % requiredAlignment(topology, pages) === 0n;
          expect(report.table.partitions[0].aligned).toBe(aligned);
          expect(report.findings.some(({ code }) => code === 'E_START')).toBe(!aligned);
          expect(report.findings.some(({ code }) => code === 'W_END')).toBe(((start + sectors) * 512) % 4096 !== 0);
          expect(report.summary.exit).toBe(aligned ? 0 : 1);
        },
      ),
      { numRuns: 60 },
    );
  });
});

describe('an end', () => {
  it('off 4096 bytes is a warning with the size that would do, and an error only by --strict', () => {
    const image = gpt([{ first: 2048, last: 10_244 }]);
    const report = checkLayout(image);
    expect(lines(report)).toEqual([
      'warning W_END p1: ends at byte 5245440 (LBA 10245), 5245440 % 4096 = 2560: LUKS2 and others refuse it; make it 8192 sectors (4194304 bytes) long',
    ]);
    expect([report.summary.exit, checkLayout(image, { strict: true }).summary.exit]).toEqual([0, 1]);
  });
});

describe('a volume', () => {
  const partition = { first: 2048, last: 206_847 };
  const heap512 = fat({ sectorsPerFat: 64, totalSectors: 65536, sectorsPerCluster: 8, reserved: 1, rootEntries: 512 });

  it('of FAT whose heap is off the page is an error that names the heap, not the partition', () => {
    const report = checkLayout(gpt([partition], [[2048, heap512]]));
    // (1 + 2 × 64 + 32) × 512 = 82432 from the partition's start at 1 MiB.
    expect(lines(report)).toEqual([
      'error E_HEAP p1: FAT16 cluster heap at byte 1131008, % 4096 = 512 with 4 KiB clusters: no file page can be mapped (LBA 2209); reformat: mkfs.fat -s 8 -F 16',
    ]);
    expect(report.findings[0].layer).toBe('volume');
    expect(report.summary).toMatchObject({ exit: 1, verdict: expect.stringContaining('the volume layer spoils it: partition 1: FAT16 cluster heap') });
    expect(report.volumes[0].tiers).toEqual({ '4096': { absolute: 'impossible', relative: 'impossible' } });
  });

  it('that a misaligned start spoils says that within its own node it is right', () => {
    const report = checkLayout(gpt([{ first: 2049, last: 206_847 }], [[2049, ext('ext4')]]));
    expect(codes(report)).toEqual(['error E_START', 'error E_HEAP']);
    expect(report.findings[1]).toMatchObject({ layer: 'partition', fix: 'move the partition to a multiple of 1 MiB' });
    expect(report.findings[1].message).toContain('though within its own device node it is guaranteed (byte 0)');
    expect(report.summary.verdict).toContain('the partition layer spoils it: partition 1: starts at byte');
  });

  it('that lies right only because two faults cancel is a warning', () => {
    // The partition begins 3584 off, the heap 512: together they make a page.
    const report = checkLayout(gpt([{ first: 2055, last: 206_847 }], [[2055, heap512]]));
    expect(codes(report)).toEqual(['error E_START', 'warning W_RELATIVE']);
    expect(report.findings[1].message).toMatch(
      /guaranteed on the whole device \(byte 1134592\), but impossible from its own device node: byte 82432, % 4096 = 512/,
    );
  });

  it('of blocks smaller than a page maps some files only, by luck', () => {
    const report = checkLayout(gpt([partition], [[2048, ext('ext2', { logBlock: 0 })]]));
    expect(lines(report)).toEqual([
      'warning W_PERFILE p1: ext2 has 1 KiB blocks: a file page of 4096 can be mapped only where its blocks happen to lie together on a boundary; reformat: mke2fs -b 4096',
    ]);
    expect([report.summary.exit, checkLayout(gpt([partition], [[2048, ext('ext2', { logBlock: 0 })]]), { strict: true }).summary.exit]).toEqual([0, 1]);
    expect(checkLayout(gpt([partition], [[2048, ntfs({ clusterByte: 1, hidden: 2048 })]])).findings[0]).toMatchObject({
      code: 'W_PERFILE',
      fix: 'reformat: mkntfs -c 4096',
    });
  });

  it('of NTFS that does not know its own place is told so', () => {
    const report = checkLayout(gpt([partition], [[2048, ntfs()]]));
    expect(lines(report)).toEqual([
      'info I_HIDDEN_SECTORS p1: NTFS says that 0 sectors lie before it, where there are 2048: Windows does not boot from it; mkntfs -p 2048',
    ]);
    expect(codes(checkLayout(gpt([partition], [[2048, ntfs({ hidden: 2048 })]])))).toEqual([]);
  });

  it('is judged for every page size that was asked about', () => {
    const report = checkLayout(gpt([partition], [[2048, ext('ext4')]]), { pages: [4096, 16384] });
    expect(codes(report)).toEqual(['warning W_PERFILE']);
    expect(report.volumes[0].tiers).toEqual({
      '4096': { absolute: 'guaranteed', relative: 'guaranteed' },
      '16384': { absolute: 'per-file', relative: 'per-file' },
    });
  });

  it('that is encrypted is opaque: information, and said in the verdict', () => {
    const report = checkLayout(gpt([partition], [[2048, luks2()]]));
    expect(codes(report)).toEqual(['info I_OPAQUE']);
    expect(report.summary).toMatchObject({ exit: 0, verdict: 'Aligned for pages of 4096 bytes: 1 partition, 1 volume; encrypted content cannot be judged.' });
    expect(codes(checkLayout(gpt([partition], [[2048, luks1(2049)]])))).toEqual(['info I_OPAQUE', 'warning W_PAYLOAD']);
  });

  it('inside of LVM is found, its offsets added up, and the layer that spoils it named', () => {
    const inner = fat({ sectorsPerFat: 64, totalSectors: 32768, sectorsPerCluster: 8, reserved: 1 });
    const report = checkLayout(
      gpt(
        [partition],
        [
          [2048, lvm()],
          [2048 + 2048, inner],
        ],
      ),
    );
    expect(report.volumes[0]).toMatchObject({ kind: 'lvm2', inside: [{ kind: 'fat12', name: 'root', offset: 2n << 20n }] });
    const heap = report.findings.find(({ code }) => code === 'E_HEAP');
    expect(heap?.message).toMatch(/^FAT12 in root cluster heap at byte 2179584, % 4096 = 512/);
    const low = lvm(lvmText([{ name: 'root', segments: [['pv0', 0, 4]] }], { start: 2049 }));
    const spoilt = checkLayout(
      gpt(
        [partition],
        [
          [2048, low],
          [2048 + 2049, ext('ext4')],
        ],
      ),
    );
    const layers = spoilt.findings.filter(({ code }) => code === 'E_HEAP').map(({ message }) => message);
    expect(layers[0]).toMatch(/^LVM data area at byte 2097664, % 4096 = 512/);
    expect(layers[1]).toMatch(/^ext4 in root blocks at byte 2097664, % 4096 = 512 .* though within the LVM around it it is guaranteed/);
  });

  it('of swap holds no files, so that its tier does not matter', () => {
    expect(checkLayout(gpt([partition], [[2048, swap()]]))).toMatchObject({ findings: [], volumes: [{ kind: 'swap' }], summary: { exit: 0 } });
  });

  it('of every kind is found in a partition and without one', () => {
    for (const { kind, bytes } of superblocks) {
      const size = (kind === 'md' ? BigInt(bytes.length) : 200n << 20n) / 512n;
      const inPartition = checkLayout(gpt([{ first: 2048n, last: 2048n + size - 1n }], [[2048, bytes]]));
      expect([kind, inPartition.volumes.map((volume) => volume.kind)]).toEqual([kind, [kind]]);
      const whole = new SparseImage(kind === 'md' ? bytes.length : 200 * MEBIBYTE).write(0, bytes);
      const alone = checkLayout(whole);
      expect([kind, alone.table.kind, alone.volumes[0]?.kind, alone.volumes[0]?.partition, alone.table.state]).toEqual([
        kind,
        'superfloppy',
        kind,
        null,
        ['ok'],
      ]);
      expect([0, 1]).toContain(alone.summary.exit);
    }
  });

  it('of which md says where it ends is found by its superblock at the end', () => {
    const bytes = md({ version: '1.0' });
    expect(checkLayout(new SparseImage(bytes.length).write(0, bytes)).volumes[0]).toMatchObject({ kind: 'md' });
  });

  it('on a whole device that begins off its own boundaries cannot be right', () => {
    const image = new SparseImage(64 * MEBIBYTE).write(0, ext('ext4'));
    const report = checkLayout(image, { topology: { ...device, alignmentOffset: 3584 } });
    expect(report.findings[0]).toMatchObject({
      code: 'E_START',
      layer: 'device',
      partition: null,
      message: 'ext4 starts at byte 0, (0 - alignment_offset 3584) % 4096 = 512',
    });
    expect(report.summary.exit).toBe(1);
  });

  it('that cannot be read is exit code 4, whatever else is wrong', () => {
    const image = gpt([partition, { first: 300_001, last: 310_000 }], [[2048, ext('ext4')]]);
    const broken: ImageSource = {
      size: image.size,
      read: (offset, length) => {
        if (offset >= 1n << 20n && offset < 2n << 20n) throw systemError(-5, 'read', { path: '/dev/sdz', offset: Number(offset), length });
        return image.read(offset, length);
      },
    };
    const report = checkLayout(broken);
    expect(codes(report)).toEqual(['error E_START', 'warning W_END', 'error E_READ']);
    expect(report.summary).toMatchObject({ exit: 4, verdict: expect.stringMatching(/^Not all of it could be read: partition 1: could not be read: EIO/) });
    expect(() =>
      checkLayout({
        size: 4096n,
        read: () => {
          throw systemError(-5, 'read');
        },
      }),
    ).toThrow(expect.objectContaining({ code: 'EIO' }));
  });
});

describe('exit codes', () => {
  const partition = { first: 2049, last: 206_847 };

  it('are 2 for a table that contradicts itself, though partitions are misaligned too', () => {
    for (const [image, code] of [
      [gpt([partition, { first: 4096, last: 8191 }]), 'E_OVERLAP'],
      [gpt([{ first: 2049, last: 10_000_000 }]), 'E_BEYOND_END'],
      [writeMbr(new SparseImage(64 * MEBIBYTE), [{ type: 0xee, start: 1, sectors: 131071 }]), 'E_NO_VALID_TABLE'],
    ] as const) {
      const report = checkLayout(image);
      expect(report.summary.exit).toBe(2);
      expect(codes(report)).toContain(`error ${code}`);
      expect(report.summary.verdict).toMatch(/^The partition table is not to be trusted: /);
    }
  });

  it('count many findings of one kind once, those of the table and those of the partitions', () => {
    const partitions = Array.from({ length: 1000 }, (_, index) => ({ first: 100_001, last: 100_001 + index }));
    const report = checkLayout(writeGpt(new SparseImage(256 * MEBIBYTE), { entryCount: 1024, partitions }));
    const of = (code: string) => report.findings.filter((finding) => finding.code === code).map(({ message }) => message);
    expect(of('E_OVERLAP')).toHaveLength(129);
    expect(of('E_OVERLAP').at(-1)).toBe('and 871 more of the same');
    expect(of('E_START')).toHaveLength(129);
    expect(of('E_START').at(-1)).toBe('and 872 more of the same');
  });

  it('are those of the partitions where only one copy is bad', () => {
    for (const without of ['primary', 'backup'] as const) {
      const image = writeGpt(new SparseImage(256 * MEBIBYTE), { partitions: [{ first: 2048, last: 206_847 }], without });
      expect([checkLayout(image).summary.exit, checkLayout(image, { strict: true }).summary.exit]).toEqual([0, 1]);
      const misaligned = writeGpt(new SparseImage(256 * MEBIBYTE), { partitions: [partition], without });
      expect(checkLayout(misaligned).summary.exit).toBe(1);
    }
  });

  it('are 3 where there is nothing to judge', () => {
    expect(checkLayout(new SparseImage(MEBIBYTE)).summary).toEqual({
      worst: null,
      exit: 3,
      verdict: 'Nothing to judge: there is no partition table and no known file system.',
    });
    expect(checkLayout(gpt([])).summary).toMatchObject({ exit: 3, verdict: 'Nothing to judge: the partition table is empty.' });
  });

  it('are 0 where all is aligned, with what was judged', () => {
    const report = checkLayout(
      gpt(
        [
          { first: 2048, last: 206_847 },
          { first: 206_848, last: 409_599 },
        ],
        [[2048, ext('ext4')]],
      ),
      { target: 'disk.img' },
    );
    expect(report).toMatchObject({
      schemaVersion: 1,
      tool: 'sectorwise',
      target: 'disk.img',
      sectorSize: { value: 512, source: 'gpt-primary' },
      topology: { logical: 512, physical: 4096, source: 'assumed' },
      findings: [],
      summary: { worst: null, exit: 0, verdict: 'Aligned for pages of 4096 bytes: 2 partitions, 1 volume.' },
    });
    expect(report.version).toBe((JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8')) as { version: string }).version);
    expect(report.version).toBe(version);
  });

  it('of several targets are the one of highest precedence', () => {
    expect(combinedExit([0, 1, 3])).toBe(3);
    expect(combinedExit([1, 3, 2])).toBe(2);
    expect(combinedExit([2, 4, 1])).toBe(4);
    expect(combinedExit([64, 4])).toBe(64);
    expect(combinedExit([0, 1])).toBe(1);
    expect(combinedExit([])).toBe(0);
  });
});

describe('options', () => {
  for (const [options, code] of [
    [{ pages: [] }, 'ERR_INVALID_ARG_VALUE'],
    [{ pages: [3000] }, 'ERR_INVALID_ARG_VALUE'],
    [{ pages: ['4096'] }, 'ERR_INVALID_ARG_TYPE'],
    [{ pages: 4096 }, 'ERR_INVALID_ARG_TYPE'],
    [{ sectorSize: 8192 }, 'ERR_INVALID_ARG_VALUE'],
    [{ physical: 520 }, 'ERR_INVALID_ARG_VALUE'],
  ] as const) {
    it(`${JSON.stringify(options)} are refused`, () => {
      expect(() => checkLayout(new SparseImage(4096), options as unknown as CheckOptions)).toThrow(expect.objectContaining({ code }));
    });
  }
});

describe('what a check reads', () => {
  const folder = mkdtempSync(join(tmpdir(), 'sectorwise-check-'));
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  it('is at most 4 MiB, whatever the table holds, and what was not looked at is said', () => {
    const partitions = Array.from({ length: 300 }, (_, index) => ({ first: 2048 + index * 1024, last: 2048 + index * 1024 + 1023 }));
    const image = writeGpt(new SparseImage(512 * MEBIBYTE), {
      entryCount: 4096,
      partitions: partitions.map((each) => ({ first: each.first + 4096, last: each.last + 4096 })),
    });
    const report = checkLayout(image);
    expect(image.bytesRead).toBeLessThanOrEqual(checkBytesMax);
    expect(report.findings.find(({ code }) => code === 'W_NOT_READ')?.message).toMatch(
      /^what lies in \d+ of 300 partitions was not looked at: a check reads no more than 4 MiB$/,
    );
    expect(report.table.partitions).toHaveLength(300);
  });

  const missing = without('sgdisk');
  it.skipIf(missing !== undefined)(`is little of the largest image that the file system takes (16 TiB), by few system calls${note(missing)}`, () => {
    const path = join(folder, 'large');
    writeFileSync(path, '');
    // The most that ext4 lets a file have is a page less than 16 TiB; others may allow less.
    for (const bytes of [16 * 2 ** 40 - 4096, 2 ** 40, 2 ** 35]) {
      try {
        truncateSync(path, bytes);
        break;
      } catch {
        // The next one is smaller.
      }
    }
    execFileSync(tool('sgdisk')!, ['-n1:2048:+512M', '-n2:0:+2G', '-n3:0:0', path]);
    using source = openSource(path);
    const report = checkLayout(source);
    expect(report.table.partitions.map(({ number }) => number)).toEqual([1, 2, 3]);
    expect([source.bytesRead < 512 * 1024, source.reads < 64]).toEqual([true, true]);
  });

  it('is enough to look into all partitions of a table of 128', () => {
    const step = 131_072;
    const partitions = Array.from({ length: 128 }, (_, index) => ({ first: 2048 + index * step, last: 2047 + (index + 1) * step }));
    const image = writeGpt(new SparseImage(130n * BigInt(step) * 512n), { partitions });
    for (const { first } of partitions) image.write(first * 512, ext('ext4'));
    const report = checkLayout(image);
    expect([report.volumes.length, report.findings, report.summary.exit]).toEqual([128, [], 0]);
    expect(image.bytesRead).toBeLessThan(checkBytesMax);
  });

  it('does not grow with the image: 16 TiB and 8 EiB like 64 MiB', () => {
    const read = [64n << 20n, 16n << 40n, 8n << 60n].map((size) => {
      const image = writeGpt(new SparseImage(size), {
        partitions: [
          { first: 2048, last: 10_239 },
          { first: 10_240, last: size / 512n - 100n },
        ],
      });
      const report = checkLayout(image);
      expect(report.summary.exit).toBe(0);
      return image.bytesRead;
    });
    expect(Math.max(...read)).toBeLessThan(Math.min(...read) + 512 * 1024);
    expect(Math.max(...read)).toBeLessThan(MEBIBYTE);
  });
});
