/** Plans as pure functions: where partitions come to lie, what is refused, FAT's fixed point, the SD table, the bytes of the table. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { CLUSTER_BANDS, planFat } from '../../src/layout/fat-plan.js';
import { gptRegions, sfdiskScript } from '../../src/layout/gpt-writer.js';
import { mkfsLines, partitionNode, plannedFileSystems } from '../../src/layout/mkfs.js';
import type { Plan, PlannedPart, PlanOptions } from '../../src/layout/plan.js';
import { planLayout } from '../../src/layout/plan.js';
import { sdCardProfile } from '../../src/layout/sd-card.js';
import { bufferSource } from '../../src/layout/source.js';
import { readTable } from '../../src/layout/table.js';
import { planOptions } from './plans.js';

const KIBIBYTE = 1024n;
const MEBIBYTE = 1024n * KIBIBYTE;
const GIBIBYTE = 1024n * MEBIBYTE;

function plan(size: bigint, parts: PlannedPart[], options: Partial<PlanOptions> = {}): Plan {
  return planLayout({ size, parts, ...options });
}

function message(act: () => unknown): string {
  try {
    act();
  } catch (error) {
    return `${(error as { code: string }).code}: ${(error as Error).message}`;
  }
  return 'nothing was thrown';
}

/** Null where it is refused for a reason of its own. */
function tryPlan(options: PlanOptions): Plan | null {
  try {
    return planLayout(options);
  } catch (error) {
    if ((error as { code: string }).code !== 'ERR_SECTORWISE_PLAN') throw error;
    return null;
  }
}

describe('the grain of a plan', () => {
  const grainOf = (options: Partial<PlanOptions>) => plan(64n * GIBIBYTE, [{ type: 'linux' }], options);

  it('is 1 MiB where nothing asks for more', () => {
    expect(grainOf({}).grain).toBe(1 << 20);
    expect(grainOf({}).partitions[0].start).toBe(MEBIBYTE);
  });

  it('is the least common multiple with a stripe, not the stripe alone', () => {
    const { grain, grainReason } = grainOf({ minimumIo: 65_536, optimalIo: 196_608 });
    expect(grain).toBe(3 << 20);
    expect(grainReason).toContain('optimal_io_size 192 KiB');
  });

  it.each([33_553_920, 268_431_360, 16_776_704, 4_294_963_200, 256 << 20])(
    'stays 1 MiB for an optimal_io_size of %d, with a note that says why',
    (optimalIo) => {
      const { grain, notes } = grainOf({ optimalIo });
      expect(grain).toBe(1 << 20);
      expect(notes.map(({ code }) => code)).toContain('I_OPT_IGNORED');
      expect(notes[0].message).toContain(String(optimalIo));
    },
  );

  it('is 4 MiB at least for flash', () => {
    expect(grainOf({ media: 'flash' }).grain).toBe(4 << 20);
    expect(grainOf({ media: 'flash', grain: 3 << 20 }).grain).toBe(12 << 20);
  });

  it('is a multiple of zones, which are kept at the end too, however small the partition', () => {
    const { partitions } = plan(8n * GIBIBYTE, [{ type: 'linux', size: MEBIBYTE }, { type: 'linux' }], { zone: 256 << 20 });
    for (const { start, size } of partitions) expect([start % (256n * MEBIBYTE), size % (256n * MEBIBYTE)]).toEqual([0n, 0n]);
  });

  it('gives way to what is required for a partition that is smaller, with a note', () => {
    const { partitions, notes } = plan(1n * MEBIBYTE, [{ type: 'linux' }]);
    expect(partitions[0].start).toBe(20_480n);
    expect(partitions[0].grain).toBe(4096);
    expect(notes.map(({ code, severity }) => `${severity} ${code}`)).toEqual(['info I_SMALL_GRAIN']);
  });

  it('never slips to the first usable sector', () => {
    expect(message(() => plan(2n * MEBIBYTE, [{ type: 'linux', size: 2n * MEBIBYTE - 34n * 512n - 33n * 512n }]))).toMatch(
      /^ERR_SECTORWISE_PLAN: The plan's 'size' cannot be 2097152: parts\[0\] of 2062848 bytes has no room: .* make the disk at least 3145728 bytes/,
    );
  });
});

describe('the places of partitions', () => {
  it('leaves the rest to the one without a size, wherever it stands', () => {
    const { partitions } = plan(64n * GIBIBYTE, [
      { type: 'esp', size: 512n * MEBIBYTE },
      { type: 'linux', name: 'open' },
      { type: 'swap', size: 2n * GIBIBYTE },
    ]);
    expect(partitions.map(({ start, size }) => [start, size])).toEqual([
      [MEBIBYTE, 512n * MEBIBYTE],
      [513n * MEBIBYTE, 61n * GIBIBYTE + 510n * MEBIBYTE],
      [62n * GIBIBYTE - MEBIBYTE, 2n * GIBIBYTE],
    ]);
  });

  it('keeps every rule for any disk: on the required alignment, on its grain, on whole pages at the end, apart, in order, between the table and its backup', () => {
    fc.assert(
      fc.property(fc.constantFrom(512, 1024, 2048, 4096).chain(planOptions), (options) => {
        const planned = tryPlan(options);
        fc.pre(planned !== null);
        const { partitions, required, sectorSize, firstUsable, lastUsable } = planned;
        let before = firstUsable * BigInt(sectorSize);
        for (const [index, { start, size, grain }] of partitions.entries()) {
          expect(start % BigInt(required)).toBe(0n);
          expect(start % BigInt(grain)).toBe(0n);
          expect((start + size) % 4096n).toBe(0n);
          expect(start).toBeGreaterThanOrEqual(before);
          expect(size).toBeGreaterThanOrEqual(options.parts[index].size ?? 1n);
          // The open one takes what there is, on the grain or not.
          if (options.parts[index].size !== undefined && size >= BigInt(planned.grain)) expect(start % BigInt(planned.grain)).toBe(0n);
          before = start + size;
        }
        expect(before).toBeLessThanOrEqual((lastUsable + 1n) * BigInt(sectorSize));
      }),
      { numRuns: 1000 },
    );
  });

  it('fits on a disk of the size that the refusal names', () => {
    let refusals = 0;
    fc.assert(
      fc.property(planOptions(), (options) => {
        const refusal = message(() => planLayout({ ...options, size: options.size / 8n < 512n ? 512n : (options.size / 8n / 512n) * 512n }));
        const needed = /make the disk at least (\d+) bytes/.exec(refusal);
        if (needed === null) return;
        refusals++;
        // An SD card's boundary unit grows with the card.
        if (options.media !== 'sd') expect(tryPlan({ ...options, size: BigInt(needed[1]) })).not.toBeNull();
      }),
      { numRuns: 500 },
    );
    expect(refusals).toBeGreaterThan(100);
  });

  it('is the same for the same disk GUID, and different without one', () => {
    const uuids = (diskId?: string) => plan(GIBIBYTE, [{ type: 'linux' }], diskId === undefined ? {} : { diskId }).partitions[0].uuid;
    const given = '01234567-89AB-CDEF-0123-456789ABCDEF';
    expect(uuids(given)).toBe(uuids(given));
    expect(uuids(given)).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-5[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
    expect(uuids()).not.toBe(uuids());
  });
});

describe('what is not planned', () => {
  const one = [{ type: 'linux' }];
  const cases: [string, unknown, RegExp][] = [
    ['a misspelled option', { sise: GIBIBYTE, parts: one }, /ERR_INVALID_ARG_VALUE: .*'options\.sise' is not known; did you mean 'size'\?/],
    ['a misspelled option of a partition', { size: GIBIBYTE, parts: [{ typ: 'linux' }] }, /'options\.parts\[0\]\.typ' is not known; did you mean 'type'\?/],
    ['a size that is a number', { size: 1e9, parts: one }, /ERR_INVALID_ARG_TYPE: The "options\.size" property must be of type bigint/],
    ['no partition', { size: GIBIBYTE, parts: [] }, /ERR_OUT_OF_RANGE: .*"options\.parts\.length"/],
    ['more than 128 partitions', { size: GIBIBYTE, parts: Array(129).fill({ type: 'linux', size: 4096n }) }, /<= 128/],
    ['half a sector', { size: GIBIBYTE + 1n, parts: one }, /ERR_SECTORWISE_PLAN: .*1073741825 % 512 = 1/],
    ['a sector of 520 bytes', { size: GIBIBYTE, sectorSize: 520, parts: one }, /must be one of: 512, 1024, 2048, 4096/],
    ['an unknown type', { size: GIBIBYTE, parts: [{ type: 'linus' }] }, /'options\.parts\[0\]\.type' must be a GUID or one of: esp, linux/],
    ['the type that means unused', { size: GIBIBYTE, parts: [{ type: '00000000-0000-0000-0000-000000000000' }] }, /ERR_INVALID_ARG_VALUE/],
    ['an unknown file system', { size: GIBIBYTE, parts: [{ type: 'linux', fs: 'fat' }] }, /must be one of: 'fat12', 'fat16'/],
    [
      'two partitions that take the rest',
      { size: GIBIBYTE, parts: [...one, ...one] },
      /ERR_SECTORWISE_PLAN: The plan's 'parts\[1\]\.size' cannot be absent: parts\[0\] takes/,
    ],
    ['a name of 37 letters', { size: GIBIBYTE, parts: [{ type: 'linux', name: 'x'.repeat(37) }] }, /<= 36 UTF-16 units/],
    ['a name with a line break', { size: GIBIBYTE, parts: [{ type: 'linux', name: 'a\nb' }] }, /no control characters/],
    ['a boundary below a page', { size: GIBIBYTE, parts: [{ type: 'linux', fs: 'fat32', boundary: 512 }] }, /an integer >= 4096 && <= 1073741824/],
    ['a cluster of 3000 bytes', { size: GIBIBYTE, parts: [{ type: 'linux', fs: 'fat32', cluster: 3000 }] }, /a power of two/],
    ['a page of 5000 bytes', { size: GIBIBYTE, parts: one, pages: [5000] }, /"options\.pages\[0\]" is out of range/],
    ['a disk GUID that is none', { size: GIBIBYTE, parts: one, diskId: 'x' }, /'options\.diskId' must be a GUID/],
    [
      'one GUID for two partitions',
      { size: GIBIBYTE, parts: ['a', 'b'].map(() => ({ type: 'linux', size: MEBIBYTE, uuid: '01234567-89ab-cdef-0123-456789abcdef' })) },
      /parts\[0\] has the same/,
    ],
    [
      'grains that meet nowhere near',
      { size: GIBIBYTE, parts: one, grain: 512 * 1_000_003, zone: 4096 * 999_983 },
      /ERR_SECTORWISE_PLAN: The plan's 'grain' cannot be 512001536: the least common multiple/,
    ],
    ['nothing at all', undefined, /ERR_INVALID_ARG_TYPE/],
  ];
  it.each(cases)('%s', (_, options, expected) => {
    expect(message(() => planLayout(options as PlanOptions))).toMatch(expected);
  });

  it('is refused with a code whatever is given', () => {
    const part = fc.oneof(
      fc.anything(),
      fc.record(
        { type: fc.oneof(fc.constant('linux'), fc.anything()), size: fc.oneof(fc.bigInt(), fc.anything()), fs: fc.anything(), cluster: fc.anything() },
        { requiredKeys: ['type'] },
      ),
    );
    const options = fc.oneof(
      fc.anything(),
      fc.record(
        {
          size: fc.oneof(fc.bigInt(), fc.constant(GIBIBYTE)),
          parts: fc.oneof(fc.array(part), fc.anything()),
          grain: fc.anything(),
          pages: fc.anything(),
          zone: fc.anything(),
          physical: fc.anything(),
          sectorSize: fc.oneof(fc.constant(512), fc.anything()),
        },
        { requiredKeys: ['size', 'parts'] },
      ),
    );
    fc.assert(
      fc.property(options, (given) => {
        expect(message(() => planLayout(given as PlanOptions))).toMatch(/^(ERR_[A-Z_]+: |nothing was thrown)/);
      }),
      { numRuns: 2000 },
    );
  });
});

describe('FAT with its heap on a boundary', () => {
  /** The numbers of the published recipes. */
  it.each([
    ['fat16', 32n * MEBIBYTE, 1 << 20, 1952, MEBIBYTE],
    ['fat32', 512n * MEBIBYTE, 1 << 20, 2054, 2n * MEBIBYTE],
    ['fat32', 2n * GIBIBYTE, 8 << 20, 8222, 8n * MEBIBYTE],
  ] as const)('%s of %d bytes with boundary %d has %d reserved sectors and its heap at %d', (fs, size, boundary, reserved, heap) => {
    const { volume } = plan(size + 64n * MEBIBYTE, [{ type: 'data', fs, size, boundary }]).partitions[0];
    expect([volume!.details.reserved, volume!.dataOffset]).toEqual([reserved, heap]);
    expect(volume!.tiers['4096']).toEqual({ absolute: 'guaranteed', relative: 'guaranteed' });
  });

  it('has its heap on the boundary and its clusters within its band, or is refused, for any size', () => {
    let planned = 0;
    fc.assert(
      fc.property(
        fc.record({
          bits: fc.constantFrom(12, 16, 32) as fc.Arbitrary<12 | 16 | 32>,
          mebibytes: fc.oneof(fc.integer({ min: 1, max: 64 }), fc.integer({ min: 64, max: 4096 }), fc.integer({ min: 4096, max: 2_000_000 })),
          sectorSize: fc.constantFrom(512, 4096),
          cluster: fc.constantFrom(undefined, 4096, 8192, 65_536),
          boundary: fc.constantFrom(4096, 65_536, 1 << 20, 4 << 20, 16 << 20),
        }),
        ({ bits, mebibytes, sectorSize, cluster, boundary }) => {
          try {
            const fat = planFat({
              bits,
              size: BigInt(mebibytes) * MEBIBYTE,
              sectorSize,
              ...(cluster === undefined ? {} : { cluster }),
              clusterMin: 4096,
              boundary,
              boundaryMin: boundary,
              option: 'parts[0]',
            });
            expect((fat.heap * sectorSize) % boundary).toBe(0);
            expect(fat.heap).toBe(fat.reserved + 2 * fat.fat + fat.root);
            expect(fat.reserved).toBeLessThanOrEqual(65_535);
            expect(fat.clusters).toBeGreaterThanOrEqual(CLUSTER_BANDS[bits].min);
            expect(fat.clusters).toBeLessThanOrEqual(CLUSTER_BANDS[bits].max);
            // Every cluster has an entry, the first two being taken.
            expect((fat.clusters + 2) * bits).toBeLessThanOrEqual(fat.fat * sectorSize * 8);
            expect(fat.heap + fat.clusters * fat.sectorsPerCluster).toBeLessThanOrEqual(fat.sectors);
            expect(fat.passes).toBeLessThanOrEqual(8);
            planned++;
          } catch (error) {
            if ((error as { code?: string }).code !== 'ERR_SECTORWISE_PLAN') throw error;
            expect((error as Error).message).toMatch(/^The plan's 'parts\[0\]\.(size|cluster|boundary)' cannot be \d+: .*To mend it, /);
          }
        },
      ),
      { numRuns: 2000 },
    );
    expect(planned).toBeGreaterThan(300);
  });

  it('refuses more reserved sectors than the header can say, and names the next boundary', () => {
    expect(message(() => plan(4n * GIBIBYTE, [{ type: 'data', fs: 'fat32', size: 2n * GIBIBYTE, boundary: 64 << 20 }]))).toMatch(
      /'parts\[0\]\.boundary' cannot be 67108864: FAT32 would need 123134 reserved sectors .* give boundary=33554432 or less/,
    );
  });

  it('refuses a volume that would be read as another type, and each remedy that it names works', () => {
    const small = (part: Partial<PlannedPart>) => plan(2n * GIBIBYTE, [{ type: 'esp', fs: 'fat32', size: 98n * MEBIBYTE, ...part }]);
    const refusal = message(() => small({}));
    const [, size, cluster, fs] = /read as FAT16.*at least (\d+) bytes.*cluster=(\d+).*use (\w+)/.exec(refusal)!;
    for (const remedy of [{ size: BigInt(size) }, { cluster: Number(cluster) }, { fs: fs as 'fat16' }])
      expect(small(remedy).partitions[0].volume).toBeDefined();
    expect(message(() => small({ size: BigInt(size) - MEBIBYTE }))).toContain('read as FAT16');
    expect(small({ cluster: Number(cluster) }).notes.map(({ code }) => code)).toEqual(['I_PERFILE']);
  });

  it('has clusters of the largest page asked for', () => {
    const { volume } = plan(16n * GIBIBYTE, [{ type: 'data', fs: 'fat32' }], { pages: [4096, 65_536] }).partitions[0];
    expect([volume!.unit, volume!.tiers['65536']]).toEqual([65_536, { absolute: 'guaranteed', relative: 'guaranteed' }]);
  });
});

describe('SD cards', () => {
  it.each([
    [4n * MEBIBYTE, 'fat12', 8192, 8192],
    [64n * MEBIBYTE, 'fat12', 16_384, 16_384],
    [256n * MEBIBYTE, 'fat16', 16_384, 32_768],
    [2n * GIBIBYTE, 'fat16', 32_768, 65_536],
    [32n * GIBIBYTE, 'fat32', 32_768, 4 << 20],
    [64n * GIBIBYTE, 'exfat', 131_072, 16 << 20],
    [256n * GIBIBYTE, 'exfat', 262_144, 32 << 20],
    [2048n * GIBIBYTE, 'exfat', 524_288, 64 << 20],
  ] as const)('of %d bytes hold %s with clusters of %d and a boundary unit of %d', (size, fs, cluster, boundaryUnit) => {
    expect(sdCardProfile(size)).toMatchObject({ fs, cluster, boundaryUnit, exact: true });
  });

  it('say so where the table ends', () => {
    expect(sdCardProfile(4096n * GIBIBYTE)).toMatchObject({ family: 'SDUC', boundaryUnit: 64 << 20, exact: false });
  });

  it('have their partition at one boundary unit, exFAT half a unit and its clusters one unit into it', () => {
    const unit = 16n * MEBIBYTE;
    const { partitions, notes } = plan(64n * GIBIBYTE, [{ type: 'data', fs: 'exfat' }], { media: 'sd' });
    expect([partitions[0].start, partitions[0].volume!.details.fatOffset, partitions[0].volume!.dataOffset]).toEqual([unit, unit / 2n, unit]);
    expect(notes.map(({ code }) => code)).toEqual(['I_SD_TABLE']);
  });

  it('have the clusters of FAT32 on a boundary unit', () => {
    const { start, volume } = plan(16n * GIBIBYTE, [{ type: 'data', fs: 'fat32' }], { media: 'sd' }).partitions[0];
    expect([start, volume!.dataOffset % (4n * MEBIBYTE), volume!.unit]).toEqual([4n * MEBIBYTE, 0n, 32_768]);
  });
});

describe('the commands of a plan', () => {
  it('are exact for each file system, on a node and in an image', () => {
    const wanted: [PlannedPart['fs'], bigint][] = [
      ['fat32', 512n],
      ['exfat', 512n],
      ['ext4', 64n],
      ['xfs', 2048n],
      ['ntfs', 64n],
      ['luks2', 64n],
    ];
    const planned = plan(
      8n * GIBIBYTE,
      wanted.map(([fs, size]) => ({ type: 'linux', fs: fs!, size: size * MEBIBYTE })),
      { minimumIo: 65_536, optimalIo: 196_608 },
    );
    expect(mkfsLines(planned, { device: '/dev/nvme0n1' }).filter((line) => !line.startsWith('#'))).toEqual([
      'mkfs.fat -F 32 -s 8 -S 512 -a -R 2054 -f 2 -h 6144 /dev/nvme0n1p1',
      'mkfs.exfat -c 32768 -b 1048576 /dev/nvme0n1p2',
      'mke2fs -q -t ext4 -b 4096 -E stride=16,stripe_width=48 /dev/nvme0n1p3',
      'mkfs.xfs -q -b size=4096 -s size=4096 -d su=65536,sw=3 /dev/nvme0n1p4',
      'mkntfs -q -Q -c 4096 -s 512 -p 6438912 -H 255 -S 63 /dev/nvme0n1p5',
      'cryptsetup luksFormat --type luks2 --offset 32768 --sector-size 4096 /dev/nvme0n1p6',
    ]);
    expect(mkfsLines(planned, { image: "it's.img" }).filter((line) => /^m(kfs\.fat|ke2fs)/.test(line))).toEqual([
      "mkfs.fat -F 32 -s 8 -S 512 -a -R 2054 -f 2 -h 6144 --offset=6144 'it'\\''s.img' 524288",
      "mke2fs -q -t ext4 -b 4096 -E offset=1078984704,stride=16,stripe_width=48 -F 'it'\\''s.img' 65536k",
    ]);
  });

  it('name partitions as the kernel does', () => {
    expect([partitionNode('/dev/sda', 1), partitionNode('/dev/mmcblk0', 2)]).toEqual(['/dev/sda1', '/dev/mmcblk0p2']);
  });

  it('refuse each file system in a partition of 16 KiB, with a size that is enough', () => {
    for (const fs of plannedFileSystems) {
      const refusal = message(() => plan(8n * GIBIBYTE, [{ type: 'linux', fs, size: 16_384n }]));
      const needed = /at least (\d+) bytes/.exec(refusal);
      expect(needed, `${fs}: ${refusal}`).not.toBeNull();
      expect(
        message(() => plan(8n * GIBIBYTE, [{ type: 'linux', fs, size: BigInt(needed![1]) }])),
        fs,
      ).toBe('nothing was thrown');
    }
  });
});

describe('the bytes of a planned table', () => {
  function image(planned: Plan): Uint8Array {
    const bytes = new Uint8Array(Number(planned.size));
    for (const { offset, bytes: region } of gptRegions(planned)) bytes.set(region, Number(offset));
    return bytes;
  }

  it.each([
    [512, 34n],
    [1024, 18n],
    [2048, 10n],
    [4096, 6n],
  ])('read back as planned in sectors of %d, the first usable one being %d', (sectorSize, firstUsable) => {
    const planned = plan(16n * MEBIBYTE, [{ type: 'esp', name: 'größe 磁盘 😀', size: 4n * MEBIBYTE }, { type: 'linux' }], { sectorSize });
    const table = readTable(bufferSource(image(planned)));
    expect(planned.firstUsable).toBe(firstUsable);
    expect([table.kind, table.state, table.sectorSize.value, table.diskId]).toEqual(['gpt', ['ok'], sectorSize, planned.diskId]);
    expect(table.partitions.map(({ number, start, size, type, name, uuid }) => ({ number, start, size, type, name: name ?? '', uuid }))).toEqual(
      planned.partitions.map(({ number, start, size, type, name, uuid }) => ({ number, start, size, type, name, uuid })),
    );
    expect([table.primary?.valid, table.backup?.valid, table.findings]).toEqual([true, true, []]);
  });

  it('has 128 partitions where as many are asked for', () => {
    const planned = plan(
      256n * MEBIBYTE,
      Array.from({ length: 128 }, (_, index) => ({ type: 'linux', name: `p${index}`, size: MEBIBYTE })),
    );
    expect(readTable(bufferSource(image(planned))).partitions.map(({ name }) => name)).toEqual(planned.partitions.map(({ name }) => name));
  });

  it('says 2^32 - 1 sectors in the protective MBR of a larger disk', () => {
    const size = (planned: Plan) => new DataView(gptRegions(planned)[2].bytes.buffer).getUint32(446 + 12, true);
    expect(size(plan(4096n * GIBIBYTE, [{ type: 'linux' }]))).toBe(0xffff_ffff);
    expect(size(plan(1n * GIBIBYTE, [{ type: 'linux' }]))).toBe(2 ** 21 - 1);
  });

  it('is told to sfdisk in explicit sectors, names escaped', () => {
    const planned = plan(64n * MEBIBYTE, [{ type: 'esp', name: 'é"x\\', size: 10n * MEBIBYTE }, { type: 'linux' }], {
      diskId: '01234567-89ab-cdef-0123-456789abcdef',
    });
    expect(sfdiskScript(planned).split('\n')).toEqual([
      'label: gpt',
      'label-id: 01234567-89ab-cdef-0123-456789abcdef',
      'unit: sectors',
      'first-lba: 34',
      'last-lba: 131038',
      'table-length: 128',
      'sector-size: 512',
      '',
      '1 : start=2048, size=20480, type=c12a7328-f81f-11d2-ba4b-00a0c93ec93b, uuid=6f75ce4e-3a1f-5d90-aaf6-88632888955a, name="\\xc3\\xa9\\x22x\\x5c"',
      '2 : start=22528, size=106496, type=0fc63daf-8483-4772-8e79-3d69d8477de4, uuid=07aafe79-73b4-5543-93ba-3c18cc57d277',
      '',
    ]);
  });
});
