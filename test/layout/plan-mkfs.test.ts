/**
 * The commands of a plan, run: each file system is made by its own tool, within an image and on a partition's node, and another tool says where its data lies.
 *
 * The lines are those that `mkfsLines` prints, given to a shell; only cryptsetup gets a passphrase and a cheap key derivation. SECTORWISE_PLANS (100) is how much is tried at random.
 */
import { execFileSync } from 'node:child_process';
import { readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, describe, expect, it } from 'vitest';
import { mkfsLines, partitionNode } from '../../src/layout/mkfs.js';
import { type Plan, type PlannedFileSystem, type PlannedPart, type PlanPartition, planLayout } from '../../src/layout/plan.js';
import { openSource } from '../../src/layout/source.js';
import { readVolume } from '../../src/layout/volume.js';
import { writePlan } from '../../src/layout/write-plan.js';
import { note, Places } from '../fixtures/places.js';
import { hasCommand, isRoot, noLoopDevices } from '../geometry/loop-devices.js';
import { tool, without } from './debian-tools.js';
import { memoryFolder } from './plans.js';

const plans = Number(process.env.SECTORWISE_PLANS ?? 100);
const MEBIBYTE = 1n << 20n;
const lab = new Places();
afterAll(() => lab.dispose());
const folder = memoryFolder(lab);
const environment = { ...process.env, LC_ALL: 'C', PATH: `${process.env.PATH}:/usr/sbin:/sbin` };

/** Its output, what it complains about included. */
function shell(script: string): string {
  return execFileSync('sh', ['-e', '-c', `exec 2>&1\n${script}`], { encoding: 'utf8', env: environment });
}

function number(text: string, pattern: RegExp): bigint {
  const found = pattern.exec(text);
  if (found === null) throw new Error(`${pattern} is not in: ${text}`);
  return BigInt(found[1]);
}

/** Where the data of a file system begins, and its units, by a tool other than the one that made it. */
interface Truth {
  tools: string[];
  /** `path` holds the volume and nothing else. */
  ask(path: string): { dataOffset: bigint; unit: bigint; clusters?: bigint };
}

const fatTruth: Truth = {
  tools: ['mkfs.fat', 'fsck.fat'],
  ask(path) {
    const told = shell(`fsck.fat -v -n '${path}'`);
    return {
      dataOffset: number(told, /Data area starts at byte (\d+)/),
      unit: number(told, /(\d+) bytes per cluster/),
      clusters: number(told, /(\d+) data clusters/),
    };
  },
};

const extTruth: Truth = {
  tools: ['mke2fs', 'dumpe2fs', 'e2fsck', 'debugfs'],
  ask(path) {
    shell(`e2fsck -f -n '${path}'`);
    const told = shell(`dumpe2fs -h '${path}'`);
    const unit = number(told, /Block size: +(\d+)/);
    // Where a file's block really lies.
    const mark = markInExt(path);
    return { dataOffset: BigInt(readFileSync(path).indexOf(mark)) % unit, unit };
  },
};

const truths: Record<PlannedFileSystem, Truth> = {
  fat12: fatTruth,
  fat16: fatTruth,
  fat32: fatTruth,
  exfat: {
    tools: ['mkfs.exfat', 'dump.exfat'],
    ask(path) {
      const told = shell(`dump.exfat '${path}'`);
      const sector = 1n << number(told, /Sector Size Bits:\s+(\d+)/);
      return {
        dataOffset: number(told, /Cluster Heap Offset \(sector offset\):\s+(\d+)/) * sector,
        unit: sector << number(told, /Sector per Cluster bits:\s+(\d+)/),
        clusters: number(told, /Cluster Count:\s+(\d+)/),
      };
    },
  },
  ext2: extTruth,
  ext3: extTruth,
  ext4: extTruth,
  xfs: {
    tools: ['mkfs.xfs', 'xfs_db'],
    ask(path) {
      const told = shell(`xfs_db -r -c 'sb 0' -c 'print blocksize' -c 'convert fsblock 1 byte' '${path}'`);
      const unit = number(told, /blocksize = (\d+)/);
      return { dataOffset: number(told, /\((\d+)\)/) % unit, unit };
    },
  },
  ntfs: {
    tools: ['mkntfs', 'ntfsinfo'],
    ask(path) {
      const told = shell(`ntfsinfo -m '${path}'`);
      const unit = number(told, /Cluster Size: (\d+)/);
      // The file table begins with its own record, at its first cluster.
      const record = BigInt(readFileSync(path).indexOf('FILE0'));
      return { dataOffset: record - number(told, /LCN of Data Attribute for FILE_MFT: (\d+)/) * unit, unit };
    },
  },
  btrfs: {
    tools: ['mkfs.btrfs', 'btrfs'],
    ask: (path) => ({ dataOffset: 0n, unit: number(shell(`btrfs inspect-internal dump-super '${path}'`), /sectorsize\s+(\d+)/) }),
  },
  luks1: {
    tools: ['cryptsetup'],
    ask: (path) => ({ dataOffset: number(shell(`cryptsetup luksDump '${path}'`), /Payload offset:\s+(\d+)/) * 512n, unit: 512n }),
  },
  luks2: {
    tools: ['cryptsetup'],
    ask(path) {
      const told = shell(`cryptsetup luksDump '${path}'`);
      return { dataOffset: number(told, /offset: (\d+) \[bytes\]/), unit: number(told, /sector: (\d+) \[bytes\]/) };
    },
  },
  lvm2: {
    tools: ['pvcreate', 'pvck'],
    ask: (path) => ({ dataOffset: number(shell(`pvck --dump headers '${path}'`), /disk_locn\[0\]\.offset (\d+)/), unit: 4n * MEBIBYTE }),
  },
  swap: {
    tools: ['mkswap'],
    ask: (path) => ({ dataOffset: BigInt(readFileSync(path).indexOf('SWAPSPACE2') + 10), unit: 4096n }),
  },
};

/** Small enough to be quick, large enough for each tool. */
const sizes: Record<PlannedFileSystem, bigint> = {
  fat12: 8n,
  fat16: 32n,
  fat32: 264n,
  exfat: 64n,
  ext2: 16n,
  ext3: 16n,
  ext4: 32n,
  xfs: 300n,
  ntfs: 32n,
  btrfs: 128n,
  luks1: 16n,
  luks2: 64n,
  lvm2: 32n,
  swap: 8n,
};

function planned(fs: PlannedFileSystem, sectorSize: number, part: Partial<PlannedPart> = {}): Plan {
  // A partition before it, so that no offset is what it is by chance.
  return planLayout({
    size: (sizes[fs] + 9n) * MEBIBYTE,
    sectorSize,
    parts: [
      { type: 'linux', size: 3n * MEBIBYTE },
      { type: 'linux', name: fs, fs, size: sizes[fs] * MEBIBYTE, ...part },
    ],
  });
}

/** As printed, but without questions and without hours of key derivation. */
function runnable(lines: string[]): string {
  return lines.join('\n').replaceAll('cryptsetup luksFormat', 'printf secret | cryptsetup luksFormat --pbkdf pbkdf2 --pbkdf-force-iterations 1000');
}

/** The volume as a file of its own. */
function cutOut(image: string, { start, size }: PlanPartition): string {
  const path = join(folder, 'volume');
  rmSync(path, { force: true });
  execFileSync('dd', [`if=${image}`, `of=${path}`, 'bs=1M', 'iflag=skip_bytes,count_bytes', `skip=${start}`, `count=${size}`, 'conv=sparse', 'status=none']);
  truncateSync(path, Number(size));
  return path;
}

function expectAsPlanned(path: string, { volume }: PlanPartition): void {
  const { kind, dataOffset, unit, clusters } = volume!;
  const truth = truths[kind].ask(path);
  // What is not counted from a header of its own is said to begin at 0, and is whole units from there.
  expect({ dataOffset: truth.dataOffset, unit: truth.unit, clusters: truth.clusters }).toEqual({ dataOffset, unit: BigInt(unit), clusters });
}

/** Writes a file of one block by debugfs, which nobody has mounted, and gives its bytes. */
function markInExt(path: string): Buffer {
  const mark = Buffer.alloc(4096, `mark of ${path} `);
  const file = join(folder, 'mark');
  writeFileSync(file, mark);
  shell(`debugfs -w -R 'write ${file} mark' '${path}'`);
  return mark;
}

/** LVM takes block devices only; mkfs.btrfs refuses a file unless it may look into every loop device whether that is the file. */
function rooted(fs: PlannedFileSystem): string | undefined {
  return fs === 'lvm2' ? noLoopDevices : fs === 'btrfs' && !isRoot ? 'needs root' : undefined;
}

const kinds = Object.keys(truths) as PlannedFileSystem[];

describe('the lines of a plan for an image', () => {
  for (const fs of kinds) {
    const missing = without(...truths[fs].tools, 'dd', 'fallocate') ?? rooted(fs);
    it.skipIf(missing)(`make ${fs} with its data where it is predicted, and leave the table as it is${note(missing)}`, () => {
      const plan = planned(fs, 512);
      const image = join(folder, `image of ${fs}`);
      writePlan(plan, image, { dryRun: false });
      shell(runnable(mkfsLines(plan, { image })));
      const path = cutOut(image, plan.partitions[1]);
      expectAsPlanned(path, plan.partitions[1]);
      expect(shell(`sfdisk -V '${image}'`)).toContain('No errors detected');
      // The library reads the same as it planned.
      using source = openSource(path);
      const volume = readVolume(source, { offset: 0n, size: plan.partitions[1].size, partition: 2, pages: [4096] });
      expect([volume?.kind, volume?.dataOffset]).toEqual([fs, plan.partitions[1].volume!.dataOffset]);
      rmSync(image);
    });
  }
});

describe('the smallest partition that a refusal names', () => {
  for (const fs of kinds) {
    const missing = without(...truths[fs].tools, 'dd', 'fallocate') ?? rooted(fs);
    it.skipIf(missing)(`is enough for ${fs}${note(missing)}`, () => {
      const parts = (size: bigint) => ({ size: 512n * MEBIBYTE, parts: [{ type: 'linux', fs, size }] });
      let needed = 0n;
      try {
        planLayout(parts(16_384n));
      } catch (error) {
        needed = number((error as Error).message, /at least (\d+) bytes/);
      }
      const plan = planLayout(parts(needed));
      const image = join(folder, `least of ${fs}`);
      writePlan(plan, image, { dryRun: false });
      shell(runnable(mkfsLines(plan, { image })));
      expectAsPlanned(cutOut(image, plan.partitions[0]), plan.partitions[0]);
      rmSync(image);
    });
  }
});

describe('the lines of a plan for a device with sectors of 4096', () => {
  for (const fs of kinds) {
    const missing = noLoopDevices ?? (hasCommand('addpart') ? undefined : 'needs addpart') ?? without(...truths[fs].tools);
    it.skipIf(missing)(`make ${fs} with its data where it is predicted${note(missing)}`, () => {
      const plan = planned(fs, 4096);
      const image = lab.loops.image(Number(plan.size));
      const device = lab.loops.attach(image, 4096);
      writePlan(plan, device, { dryRun: false });
      const { number, start, size } = plan.partitions[1];
      // addpart counts in 512 whatever the device's sectors are.
      expect(lab.loops.partition(device, number, Number(start / 512n), Number(size / 512n))).toBe(partitionNode(device, number));
      shell(runnable(mkfsLines(plan, { device })));
      execFileSync('sync', [image]);
      expectAsPlanned(cutOut(image, plan.partitions[1]), plan.partitions[1]);
    });
  }
});

describe('predictions at random', () => {
  const noFat = without(...fatTruth.tools);
  it.skipIf(noFat)(`of FAT are what mkfs.fat makes: heap, clusters, and a volume that fsck.fat finds nothing wrong with${note(noFat)}`, () => {
    fc.assert(
      fc.property(
        fc.record({
          fs: fc.constantFrom('fat12', 'fat16', 'fat32') as fc.Arbitrary<'fat12' | 'fat16' | 'fat32'>,
          kibibytes: fc.oneof(fc.integer({ min: 200, max: 4096 }), fc.integer({ min: 4096, max: 65_536 }), fc.integer({ min: 65_536, max: 400_000 })),
          sectorSize: fc.constantFrom(512, 512, 4096),
          cluster: fc.constantFrom(undefined, undefined, 4096, 16_384, 65_536, 1024),
          boundary: fc.constantFrom(undefined, 4096, 65_536, 1 << 20, 4 << 20),
        }),
        ({ fs, kibibytes, sectorSize, cluster, boundary }) => {
          const part = {
            type: 'data',
            fs,
            size: BigInt(kibibytes) * 1024n,
            ...(cluster === undefined ? {} : { cluster }),
            ...(boundary === undefined ? {} : { boundary }),
          };
          let plan: Plan | undefined;
          try {
            plan = planLayout({ size: part.size + 16n * MEBIBYTE, sectorSize, parts: [part] });
          } catch {
            // Wrong band, or no room for that boundary: a case of its own in plan.test.ts.
          }
          fc.pre(plan !== undefined);
          const image = join(folder, 'fat');
          rmSync(image, { force: true });
          writeFileSync(image, '');
          truncateSync(image, Number(plan.size));
          shell(mkfsLines(plan, { image }).join('\n'));
          expectAsPlanned(cutOut(image, plan.partitions[0]), plan.partitions[0]);
        },
      ),
      { numRuns: Math.ceil(plans / 4) },
    );
  });

  const noExfat = without(...truths.exfat.tools);
  it.skipIf(noExfat)(`of exFAT are what mkfs.exfat makes: heap and clusters${note(noExfat)}`, () => {
    fc.assert(
      fc.property(
        fc.record({
          mebibytes: fc.integer({ min: 2, max: 600 }),
          cluster: fc.constantFrom(undefined, 4096, 32_768, 131_072),
          boundary: fc.constantFrom(undefined, 4096, 65_536, 1 << 20, 4 << 20, 16 << 20),
        }),
        ({ mebibytes, cluster, boundary }) => {
          const part = {
            type: 'data',
            fs: 'exfat' as const,
            size: BigInt(mebibytes) * MEBIBYTE,
            ...(cluster === undefined ? {} : { cluster }),
            ...(boundary === undefined ? {} : { boundary }),
          };
          let plan: Plan | undefined;
          try {
            plan = planLayout({ size: part.size + 16n * MEBIBYTE, parts: [part] });
          } catch {
            // Too small for its boundary.
          }
          fc.pre(plan !== undefined);
          const path = join(folder, 'exfat');
          rmSync(path, { force: true });
          writeFileSync(path, '');
          truncateSync(path, Number(plan.partitions[0].size));
          shell(plan.partitions[0].volume!.device.join('\n').replace('"$PART"', path));
          expectAsPlanned(path, plan.partitions[0]);
        },
      ),
      { numRuns: Math.ceil(plans / 8) },
    );
  });

  const noSd = without('mkfs.exfat', 'dump.exfat');
  it.skipIf(noSd)(`of an SD card of 64 GB have the FAT at half a boundary unit and the clusters at one${note(noSd)}`, () => {
    const plan = planLayout({ size: 59_640n * MEBIBYTE, media: 'sd', parts: [{ type: 'data', fs: 'exfat' }] });
    const path = join(folder, 'card');
    writeFileSync(path, '');
    truncateSync(path, Number(plan.partitions[0].size));
    shell(plan.partitions[0].volume!.device.join('\n').replace('"$PART"', path));
    expect(number(execFileSync(tool('dump.exfat')!, [path], { encoding: 'utf8' }), /FAT Offset\(sector offset\):\s+(\d+)/)).toBe(16_384n);
    expectAsPlanned(path, plan.partitions[0]);
  });
});
