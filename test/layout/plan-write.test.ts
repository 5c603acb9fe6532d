/** Writing a plan: what it refuses, what it leaves as it was, what a stop at any point leaves, and that nothing of an old table survives. */
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, describe, expect, it } from 'vitest';
import { gptRegions } from '../../src/layout/gpt-writer.js';
import { type Plan, type PlanOptions, planLayout } from '../../src/layout/plan.js';
import { bufferSource } from '../../src/layout/source.js';
import { readTable } from '../../src/layout/table.js';
import { type PlanTarget, verifyTable, wipeRanges, writePlan, writeTable } from '../../src/layout/write-plan.js';
import { note, Places } from '../fixtures/places.js';
import { noFileSystem, noLoopDevices } from '../geometry/loop-devices.js';
import { tool, without } from './debian-tools.js';

const MEBIBYTE = 1 << 20;
const lab = new Places();
afterAll(() => lab.dispose());
const folder = lab.folder();
let count = 0;

function plan(mebibytes: number, options: Partial<PlanOptions> = {}): Plan {
  return planLayout({
    size: BigInt(mebibytes) * BigInt(MEBIBYTE),
    parts: [{ type: 'esp', name: 'efi', size: BigInt(MEBIBYTE) }, { type: 'linux' }],
    ...options,
  });
}

/** A path where nothing is yet. */
function path(): string {
  return join(folder, `image-${++count}`);
}

/** A sparse image with `bytes` at `offset`. */
function image(mebibytes: number, bytes = Buffer.alloc(0), offset = 0): string {
  const made = path();
  const whole = Buffer.alloc(mebibytes * MEBIBYTE);
  bytes.copy(whole, offset);
  writeFileSync(made, whole);
  return made;
}

function failure(act: () => unknown): { code: string; message: string } {
  try {
    act();
  } catch (error) {
    return { code: (error as { code: string }).code, message: (error as Error).message };
  }
  return { code: 'none', message: 'nothing was thrown' };
}

function run(name: string, ...args: string[]): string {
  return execFileSync(tool(name)!, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });
}

describe('writing a plan', () => {
  it('changes nothing unless told to, and says what it would write', () => {
    const target = path();
    const dry = writePlan(plan(8), target);
    expect([dry.dryRun, dry.created, dry.verified, existsSync(target)]).toEqual([true, true, undefined, false]);
    expect(writePlan(plan(8), target, { dryRun: false }).ranges).toEqual(dry.ranges);
  });

  it('leaves an empty image empty unless told otherwise', () => {
    const target = image(8);
    expect(writePlan(plan(8), target).ranges).toHaveLength(5);
    expect(readFileSync(target).every((byte) => byte === 0)).toBe(true);
  });

  it('makes a sparse image of the planned size, reads it back, and the table is the plan', () => {
    const target = path();
    const planned = plan(4096);
    const report = writePlan(planned, target, { dryRun: false });
    expect([report.created, report.isDevice, report.next]).toEqual([true, false, []]);
    expect(report.verified).toMatch(/^(direct|page-cache)$/);
    const { size, blocks } = statSync(target);
    expect([size, blocks * 512 < MEBIBYTE]).toEqual([4096 * MEBIBYTE, true]);
  });

  it('fills an empty file', () => {
    const target = path();
    writeFileSync(target, '');
    expect(writePlan(plan(8), target, { dryRun: false }).created).toBe(true);
    expect(statSync(target).size).toBe(8 * MEBIBYTE);
  });

  it('writes the backup first, each header behind its entries, the primary header last, and syncs between', () => {
    const order: string[] = [];
    const planned = plan(8);
    const names = new Map(gptRegions(planned).map(({ name, offset }) => [offset, name]));
    writeTable(
      { size: planned.size, read: () => new Uint8Array(0), write: (offset) => order.push(names.get(offset)!), sync: () => order.push('sync') },
      planned,
    );
    expect(order).toEqual(['backup-entries', 'backup-header', 'sync', 'protective-mbr', 'primary-entries', 'sync', 'primary-header', 'sync']);
  });

  it('is refused for an image of another size, with that size', () => {
    expect(failure(() => writePlan(plan(8), image(9), { dryRun: false, force: true }))).toMatchObject({
      code: 'ERR_SECTORWISE_MISMATCH',
      message: expect.stringContaining('size=9437184'),
    });
  });

  it('is refused for other sectors than the plan has', () => {
    expect(failure(() => writePlan(plan(8), path(), { sectorSize: 4096 }))).toMatchObject({
      code: 'ERR_SECTORWISE_MISMATCH',
      message: expect.stringContaining('sectorSize=4096'),
    });
  });

  it('is refused for what is neither a file nor a block device', () => {
    const made = path();
    mkdirSync(made);
    for (const target of [made, '/dev/null']) expect(failure(() => writePlan(plan(8), target)).code).toBe('ERR_SECTORWISE_FILE_TYPE');
  });

  it('refuses options that it does not know', () => {
    expect(failure(() => writePlan(plan(8), path(), { dryrun: false } as never))).toMatchObject({
      code: 'ERR_INVALID_ARG_VALUE',
      message: expect.stringContaining("did you mean 'dryRun'?"),
    });
    expect(failure(() => writePlan(plan(8), path(), { dryRun: 0 } as never)).code).toBe('ERR_INVALID_ARG_TYPE');
    expect(failure(() => writePlan(plan(8), '')).code).toBe('ERR_INVALID_ARG_TYPE');
  });

  it('leaves no file behind that it could not make', () => {
    const target = path();
    const huge = planLayout({ size: 1n << 52n, parts: [{ type: 'linux' }] });
    // ext4 holds no file of 4 PiB; others may.
    const { code } = failure(() => writePlan(huge, target, { dryRun: false }));
    expect(code).toMatch(/^(EFBIG|EINVAL|ENOSPC|none)$/);
    expect(existsSync(target)).toBe(code === 'none');
  });

  it('is refused for a plan beyond the numbers that places are given by', () => {
    expect(failure(() => writePlan(planLayout({ size: 1n << 60n, parts: [{ type: 'linux' }] }), path())).code).toBe('ERR_OUT_OF_RANGE');
  });

  it('reports the first byte that reads back as something else', () => {
    const planned = plan(8);
    const bytes = new Uint8Array(8 * MEBIBYTE);
    for (const { offset, bytes: region } of gptRegions(planned)) bytes.set(region, Number(offset));
    verifyTable(planned, bufferSource(bytes), 'disk');
    bytes[1024 + 700] ^= 1;
    expect(failure(() => verifyTable(planned, bufferSource(bytes), 'disk'))).toMatchObject({
      code: 'ERR_SECTORWISE_VERIFY',
      message: expect.stringContaining(`primary-entries, first at byte ${1024 + 700}`),
    });
  });
});

describe('what is there', () => {
  const noTools = without('sfdisk', 'mke2fs', 'mkfs.fat', 'mkfs.xfs', 'sgdisk', 'wipefs');
  const makers: [string, RegExp, (target: string) => unknown][] = [
    ['a GPT', /a GPT with 2 partitions/, (target) => writePlan(plan(8), target, { dryRun: false })],
    [
      'a GPT in sectors of 4096',
      /a GPT with 2 partitions \(sectors of 4096\)/,
      (target) => writePlan(plan(8, { sectorSize: 4096 }), target, { dryRun: false }),
    ],
    ['an MBR', /an MBR with 1 partition/, (target) => execFileSync(tool('sfdisk')!, ['-q', target], { input: 'label: dos\n2048,4096,83\n' })],
    ['ext4 without a table', /a volume of kind ext4/, (target) => run('mke2fs', '-q', '-t', 'ext4', '-F', target)],
    ['FAT without a table', /a volume of kind fat1[26]/, (target) => run('mkfs.fat', target)],
    [
      'a GPT of which only the backup is left',
      /a GPT with 2 partitions/,
      (target) => {
        writePlan(plan(8), target, { dryRun: false });
        const bytes = readFileSync(target);
        bytes.fill(0, 0, MEBIBYTE / 2);
        writeFileSync(target, bytes);
      },
    ],
    [
      'data of no known kind',
      /data of no known kind .* first at byte 700 \(in LBA 1\)/,
      (target) => writeFileSync(target, Buffer.alloc(8 * MEBIBYTE).fill('x', 700, 710)),
    ],
    [
      'data at the end',
      /data of no known kind .* first at byte 8388606/,
      (target) => writeFileSync(target, Buffer.alloc(8 * MEBIBYTE).fill('x', 8 * MEBIBYTE - 2)),
    ],
  ];
  for (const [what, expected, make] of makers) {
    it.skipIf(noTools)(`is not written over without force, and wholly replaced with it: ${what}${note(noTools)}`, () => {
      const target = image(8);
      make(target);
      const before = readFileSync(target);
      for (const dryRun of [true, false]) {
        expect(failure(() => writePlan(plan(8), target, { dryRun }))).toMatchObject({
          code: 'ERR_SECTORWISE_OCCUPIED',
          message: expect.stringMatching(expected),
        });
      }
      expect(writePlan(plan(8), target, { force: true }).replaced).toMatch(expected);
      expect(readFileSync(target).equals(before)).toBe(true);
      const planned = plan(8);
      expect(writePlan(planned, target, { dryRun: false, force: true }).replaced).toMatch(expected);
      // wipefs knows more kinds than we do: nothing else than the new table is to be recognised.
      expect(run('wipefs', '--noheadings', '--output', 'TYPE', target).split(/\s+/).filter(Boolean).sort()).toEqual(['PMBR', 'gpt', 'gpt']);
      expect(run('sgdisk', '-v', target)).toContain('No problems found');
      expect(readTable(bufferSource(readFileSync(target)))).toMatchObject({ kind: 'gpt', state: ['ok'], diskId: planned.diskId, findings: [] });
    });
  }

  it.skipIf(noTools)(`is gone also where a grown image has its old backup in the middle${note(noTools)}`, () => {
    const target = image(8);
    writePlan(plan(8), target, { dryRun: false });
    truncateSync(target, 16 * MEBIBYTE);
    writePlan(plan(16), target, { dryRun: false, force: true });
    const bytes = readFileSync(target);
    expect([...bytes.toString('latin1').matchAll(/EFI PART/g)].map(({ index }) => index)).toEqual([512, 16 * MEBIBYTE - 512]);
  });
});

/** A disk that forgets: what was not synced may have reached the medium or not, sector by sector. */
class Medium implements PlanTarget {
  readonly size: bigint;
  /** What a stop leaves. */
  readonly stable: Uint8Array;
  /** As long as it runs. */
  readonly #current: Uint8Array;
  #pending: { offset: number; bytes: Uint8Array }[] = [];
  #left: number;

  constructor(before: Uint8Array, operations: number) {
    this.size = BigInt(before.length);
    this.stable = before.slice();
    this.#current = before.slice();
    this.#left = operations;
  }

  read(offset: bigint, length: number): Uint8Array {
    return this.#current.slice(Number(offset), Number(offset) + length);
  }

  write(offset: bigint, bytes: Uint8Array): void {
    this.#spend();
    this.#current.set(bytes, Number(offset));
    this.#pending.push({ offset: Number(offset), bytes: bytes.slice() });
  }

  sync(): void {
    this.#spend();
    for (const { offset, bytes } of this.#pending.splice(0)) this.stable.set(bytes, offset);
  }

  /** Stops: of each sector that is on its way, `reaches` decides. */
  stop(reaches: () => boolean): void {
    for (const { offset, bytes } of this.#pending.splice(0)) {
      for (let at = 0; at < bytes.length; at += 512) if (reaches()) this.stable.set(bytes.subarray(at, at + 512), offset + at);
    }
  }

  #spend(): void {
    if (this.#left-- === 0) throw new Error('the power is gone');
  }
}

describe('a stop while a table is written', () => {
  const DISK = 512 * 1024;
  const small = (options: Partial<PlanOptions>) => planLayout({ size: BigInt(DISK), parts: [{ type: 'esp', size: 65_536n }, { type: 'linux' }], ...options });
  const bytesOf = (planned: Plan) => {
    const bytes = new Uint8Array(Number(planned.size));
    for (const { offset, bytes: region } of gptRegions(planned)) bytes.set(region, Number(offset));
    return bytes;
  };
  const olds: [string, Uint8Array | undefined][] = [
    ['an empty disk', undefined],
    ['an old GPT', bytesOf(small({ diskId: '11111111-1111-4111-8111-111111111111', parts: [{ type: 'swap' }] }))],
    ['an old GPT in sectors of 4096', bytesOf(small({ sectorSize: 4096, diskId: '11111111-1111-4111-8111-111111111111', parts: [{ type: 'swap' }] }))],
  ];
  for (const [what, old] of olds) {
    for (const sectorSize of [512, 4096]) {
      it(`leaves ${what} with no table, the old one or the whole new one, in sectors of ${sectorSize}, wherever it is and whatever of the last writes arrived`, () => {
        const planned = small({ sectorSize });
        const before = old ?? new Uint8Array(DISK);
        const wipes = old === undefined ? [] : wipeRanges(planned);
        const oldUuids = old === undefined ? [] : readTable(bufferSource(old)).partitions.map(({ uuid }) => uuid);
        const newUuids = planned.partitions.map(({ uuid }) => uuid);
        let news = 0;
        fc.assert(
          fc.property(fc.nat(60), fc.nat(), fc.integer({ min: 0, max: 4 }), (operations, seed, share) => {
            const medium = new Medium(before, operations);
            let stopped = false;
            try {
              writeTable(medium, planned, wipes);
            } catch {
              stopped = true;
            }
            let state = seed | 1;
            medium.stop(() => {
              state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0;
              return (state >>> 16) % 4 < share;
            });
            const table = readTable(bufferSource(medium.stable));
            const uuids = table.partitions.map(({ uuid }) => uuid);
            // Neither copy being whole is no table, and said so.
            if (table.state.includes('no-valid-table')) expect(uuids).toEqual([]);
            else if (table.kind === 'gpt') expect([oldUuids, newUuids]).toContainEqual(uuids);
            else expect(['none', 'pmbr-only', 'superfloppy']).toContain(table.kind);
            if (table.kind === 'gpt' && uuids.length === newUuids.length) news++;
            if (!stopped) expect([table.state, uuids]).toEqual([['ok'], newUuids]);
          }),
          { numRuns: 150 },
        );
        expect(news).toBeGreaterThan(20);
      });
    }
  }
});

describe('devices', () => {
  it.skipIf(noLoopDevices)(`take a table if they are empty, and say what is left to do${note(noLoopDevices)}`, () => {
    const device = lab.loops.attach(lab.loops.image(8 * MEBIBYTE), 512);
    expect(writePlan(plan(8), device, { dryRun: false })).toMatchObject({
      isDevice: true,
      created: false,
      next: [expect.stringContaining(`partprobe ${device}`)],
    });
    expect(failure(() => writePlan(plan(8), device, { dryRun: false })).code).toBe('ERR_SECTORWISE_OCCUPIED');
  });

  it.skipIf(noLoopDevices)(`are refused with other sectors or another size than planned, and so is a partition${note(noLoopDevices)}`, () => {
    const device = lab.loops.attach(lab.loops.image(8 * MEBIBYTE), 4096);
    expect(failure(() => writePlan(plan(8), device, { dryRun: false }))).toMatchObject({
      code: 'ERR_SECTORWISE_MISMATCH',
      message: expect.stringContaining('sectors of 4096'),
    });
    expect(failure(() => writePlan(plan(9, { sectorSize: 4096 }), device, { dryRun: false }))).toMatchObject({
      code: 'ERR_SECTORWISE_MISMATCH',
      message: expect.stringContaining('8388608 bytes'),
    });
    const node = lab.loops.partition(lab.loops.attach(lab.loops.image(16 * MEBIBYTE), 512), 1, 2048, 16_384);
    expect(failure(() => writePlan(plan(8), node, { dryRun: false }))).toMatchObject({
      code: 'ERR_SECTORWISE_MISMATCH',
      message: expect.stringMatching(/is a partition of loop\d+/),
    });
  });

  const noExt4 = noFileSystem('mke2fs');
  it.skipIf(noExt4)(`are refused while they are mounted, with force too, and so are images that are attached${note(noExt4)}`, () => {
    const backing = lab.loops.image(8 * MEBIBYTE);
    const device = lab.loops.attach(backing, 512);
    run('mke2fs', '-q', '-t', 'ext4', device);
    lab.loops.mount(device);
    for (const dryRun of [true, false]) {
      expect(failure(() => writePlan(plan(8), device, { dryRun, force: true }))).toMatchObject({
        code: 'ERR_SECTORWISE_OCCUPIED',
        message: expect.stringContaining('is in use'),
      });
      expect(failure(() => writePlan(plan(8), backing, { dryRun, force: true }))).toMatchObject({
        code: 'ERR_SECTORWISE_OCCUPIED',
        message: expect.stringContaining(`is attached as ${device}`),
      });
    }
  });

  it.skipIf(noExt4)(`are refused while a partition of them is mounted${note(noExt4)}`, () => {
    const device = lab.loops.attach(lab.loops.image(16 * MEBIBYTE), 512);
    const node = lab.loops.partition(device, 1, 2048, 16_384);
    run('mke2fs', '-q', '-t', 'ext4', node);
    lab.loops.mount(node);
    expect(failure(() => writePlan(plan(16), device, { dryRun: false, force: true }))).toMatchObject({
      code: 'ERR_SECTORWISE_OCCUPIED',
      message: expect.stringContaining('is in use'),
    });
  });
});
