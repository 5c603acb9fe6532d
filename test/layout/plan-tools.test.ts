/**
 * What `writePlan` writes, judged by the tools that everybody has: sfdisk, sgdisk and parted accept random plans and read the same partitions from them; sfdisk with the plan's own script
 * writes the same bytes.
 *
 * SECTORWISE_PLANS is how many random plans are asked about (100): `SECTORWISE_PLANS=1000 npx vitest run test/layout/plan-tools.test.ts` for more.
 */
import { execFile, execFileSync } from 'node:child_process';
import { closeSync, openSync, readSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import fc from 'fast-check';
import { afterAll, describe, expect, it } from 'vitest';
import { gptRegions, sfdiskScript } from '../../src/layout/gpt-writer.js';
import { type Plan, type PlanOptions, planLayout } from '../../src/layout/plan.js';
import { writePlan } from '../../src/layout/write-plan.js';
import { note, Places } from '../fixtures/places.js';
import { noLoopDevices } from '../geometry/loop-devices.js';
import { tool, without } from './debian-tools.js';
import { memoryFolder, planOptions } from './plans.js';

const plans = Number(process.env.SECTORWISE_PLANS ?? 100);
/** ext4 and tmpfs hold files of this size, sparse, and so do their tools' numbers. */
const SIZE_MAX = 1n << 43n;
const lab = new Places();
afterAll(() => lab.dispose());
/** In memory where that can be had: every image is synced several times, by us and by sfdisk. */
const folder = memoryFolder(lab);
const run = promisify(execFile);

function tryPlan(options: PlanOptions): Plan | null {
  try {
    return planLayout(options);
  } catch {
    return null;
  }
}

interface Listed {
  partitiontable: { id: string; sectorsize: number; partitions: { start: number; size: number; type: string; uuid: string; name?: string }[] };
}

/** The three tools' opinions of an image or device that holds the plan. */
async function opinions(path: string, plan: Plan): Promise<void> {
  // parted's optimal alignment is 1 MiB; partitions too small for that are asked about only what is required.
  const aligned = plan.partitions.flatMap(({ number, grain }) => ['align-check', grain % (1 << 20) === 0 ? 'optimal' : 'minimal', String(number)]);
  const options = { env: { ...process.env, LC_ALL: 'C.UTF-8' } };
  const asked = [
    ['sfdisk', '-V', path],
    ['sfdisk', '-J', path],
    ['sgdisk', '-v', path],
    ['parted', '-s', path, ...aligned],
  ].map(([name, ...args]) => run(tool(name)!, args, options));
  const [verified, listed, checked, judged] = (await Promise.all(asked)).map(({ stdout }) => stdout);
  expect(verified).toContain('No errors detected');
  const { partitiontable } = JSON.parse(listed) as Listed;
  expect(checked).toContain('No problems found');
  // It also cautions about ends that are whole pages but no whole MiB: sizes that were asked for.
  expect(checked).not.toMatch(/doesn't begin|warning|problem:/i);
  // It says nothing where all is aligned, and exits with 1 otherwise.
  expect(judged.trim()).toBe('');
  const sector = BigInt(plan.sectorSize);
  expect(partitiontable.id.toLowerCase()).toBe(plan.diskId);
  expect(
    partitiontable.partitions.map(({ start, size, type, uuid, name }) => ({
      start: BigInt(start) * sector,
      size: BigInt(size) * sector,
      type: type.toLowerCase(),
      uuid: uuid.toLowerCase(),
      name: name ?? '',
    })),
  ).toEqual(plan.partitions.map(({ start, size, type, uuid, name }) => ({ start, size, type, uuid, name })));
}

describe('a written plan', () => {
  const missing = without('sfdisk', 'sgdisk', 'parted');

  it.skipIf(missing)(`is accepted by sfdisk, sgdisk and parted, which read the same partitions: ${plans} random ones${note(missing)}`, async () => {
    let image = 0;
    await fc.assert(
      fc.asyncProperty(planOptions(), async (options) => {
        const plan = tryPlan(options);
        fc.pre(plan !== null && plan.size <= SIZE_MAX);
        const path = join(folder, `random-${image++}`);
        try {
          expect(writePlan(plan, path, { dryRun: false }).created).toBe(true);
          await opinions(path, plan);
        } finally {
          rmSync(path, { force: true });
        }
      }),
      { numRuns: plans },
    );
  });

  it.skipIf(missing)(`is what sfdisk writes by the plan's script, byte for byte${note(missing)}`, () => {
    fc.assert(
      fc.property(planOptions(), (options) => {
        const plan = tryPlan(options);
        fc.pre(plan !== null && plan.size <= SIZE_MAX);
        const path = join(folder, 'by-sfdisk');
        try {
          writeFileSync(path, '');
          truncateSync(path, Number(plan.size));
          execFileSync(tool('sfdisk')!, ['-q', '--no-reread', '--no-tell-kernel', path], { input: sfdiskScript(plan), stdio: ['pipe', 'ignore', 'pipe'] });
          for (const { name, offset, bytes } of gptRegions(plan)) expect(bytesAt(path, offset, bytes.length), name).toEqual(Buffer.from(bytes));
        } finally {
          rmSync(path, { force: true });
        }
      }),
      { numRuns: Math.ceil(plans / 20) },
    );
  });

  const noLoops = missing ?? noLoopDevices;
  it.skipIf(noLoops)(`is accepted on a device with sectors of 4096, and sfdisk writes the same there${note(noLoops)}`, async () => {
    const size = 64n << 20n;
    const device = lab.loops.attach(lab.loops.image(Number(size)), 4096);
    let written = 0;
    for (const options of fc.sample(planOptions(4096), { numRuns: 8, seed: 5 })) {
      const parts = options.parts.map((part) => (part.size === undefined ? part : { ...part, size: 1n + (part.size % (size / 32n)) }));
      const plan = tryPlan({ ...options, zone: 0, size, parts });
      if (plan === null) continue;
      expect(writePlan(plan, device, { dryRun: false, force: true }).isDevice).toBe(true);
      await opinions(device, plan);
      const ours = gptRegions(plan).map(({ offset, bytes }) => bytesAt(device, offset, bytes.length));
      execFileSync(tool('sfdisk')!, ['-q', '--no-reread', '--no-tell-kernel', '--wipe', 'always', device], {
        input: sfdiskScript(plan),
        stdio: ['pipe', 'ignore', 'pipe'],
      });
      expect(gptRegions(plan).map(({ offset, bytes }) => bytesAt(device, offset, bytes.length))).toEqual(ours);
      written++;
    }
    expect(written).toBeGreaterThan(2);
  });
});

function bytesAt(path: string, offset: bigint, length: number): Buffer {
  const bytes = Buffer.alloc(length);
  const fd = openSync(path, 'r');
  try {
    readSync(fd, bytes, 0, length, offset);
  } finally {
    closeSync(fd);
  }
  return bytes;
}
