/** `sectorwise plan`: its words, what it refuses, what it writes and what it leaves alone. */
import { spawnSync } from 'node:child_process';
import { existsSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { command as align } from '../../src/cli/align.js';
import { command, parsePart } from '../../src/cli/plan.js';
import { bytesOf, note } from '../fixtures/places.js';
import { tool, without } from '../layout/debian-tools.js';
import { folder, MIB, ran } from './images.js';
import { sectorwise } from './sectorwise.js';

const parts = ['--part', 'name=efi,type=esp,size=64M,fs=fat16', '--part', 'name=root,type=linux,fs=ext4'];
const diskId = ['--disk-id', '01234567-89ab-4def-8123-456789abcdef'];

describe('sectorwise plan', () => {
  it('prints the map, the table, the script for sfdisk and the lines that make the file systems, and touches nothing', async () => {
    const { exit, out } = await ran(command, ['--size', '1G', ...parts]);
    expect(exit).toBe(0);
    expect(out).toMatch(/^#\.?\|1.*2 root=+.*\|$/m);
    expect(out).toMatch(/^p1 +efi +1048576 \(LBA 2048\) +64 MiB +EFI system +fat16/m);
    expect(out).toMatch(/^1 : start=2048, size=131072, type=c12a7328-/m);
    expect(out).toMatch(/^mkfs\.fat -F 16 -s \d+ .* -R \d+ /m);
    expect(out).toMatch(/^mke2fs .*-b 4096/m);
    for (const line of out.split('\n').slice(0, 6)) expect(line.length).toBeLessThanOrEqual(120);
  });

  it('says the same as JSON, offsets as numbers, with the script and the lines in it', async () => {
    const { out } = await ran(command, ['--json', '--size', '1G', ...parts, ...diskId]);
    const told = JSON.parse(out);
    expect(told).toMatchObject({
      schemaVersion: 1,
      tool: 'sectorwise',
      size: 2 ** 30,
      grain: MIB,
      partitions: [{ start: MIB, size: 64 * MIB }, { number: 2 }],
    });
    expect(told.partitions[0].volume.dataOffsetAbsolute % 4096).toBe(0);
    expect(told.sfdisk).toContain('label-id: 01234567-89ab-4def-8123-456789abcdef');
    expect(told.mkfs.join('\n')).toContain('mkfs.fat');
  });

  it('gives the same plan again with --disk-id, and only what is to be piped with --only', async () => {
    const twice = [0, 1].map(() => ran(command, ['--only', 'sfdisk', '--size', '1G', ...parts, ...diskId]));
    const [a, b] = await Promise.all(twice);
    expect(a.out).toBe(b.out);
    expect(a.out).toMatch(/^label: gpt\n/);
    expect((await ran(command, ['--only', 'mkfs', '--size', '1G', ...parts])).out).not.toContain('label:');
  });

  it('takes sizes in units, and commas within values', () => {
    expect(parsePart('name=a\\,b,size=1.5G,fs=fat32,cluster=4K')).toEqual({ name: 'a,b', size: 3n << 29n, fs: 'fat32', cluster: 4096, type: 'data' });
    expect(parsePart('fs=swap')).toEqual({ fs: 'swap', type: 'swap' });
  });

  const refusals: Array<[string, string[], string]> = [
    ['no partition', ['--size', '1G'], 'Give --part'],
    ['no size', parts, 'Give --size'],
    ['a size that is none', ['--size', '1X', ...parts], "not '1X'"],
    ['a misspelled key', ['--size', '1G', '--part', 'nmae=x'], 'did you mean name?'],
    ['a key twice', ['--size', '1G', '--part', 'name=x,name=y'], 'given twice'],
    ['an unknown type', ['--size', '1G', '--part', 'type=esb'], '--part 1: type'],
    ['an unknown file system', ['--size', '1G', '--part', 'fs=ext5'], '--part 1: fs'],
    ['what does not fit', ['--size', '1G', '--part', 'size=2G'], '--part 1:'],
    ['an unknown medium', ['--size', '1G', '--media', 'tape', ...parts], '--media'],
    ['--force without --write', ['--size', '1G', '--force', ...parts], '--force goes with --write'],
    ['an operand', ['--size', '1G', ...parts, 'disk.img'], "'disk.img' was given"],
  ];
  it.each(refusals)('refuses %s, in the words of the command line, before anything is written', async (_, args, words) => {
    await expect(ran(command, args)).rejects.toMatchObject({ name: 'UsageError', message: expect.stringContaining(words) });
  });

  it('ends with 64 for these', async () => {
    const { status, stderr } = await sectorwise(['plan', '--size', '1G', '--part', 'size=2G']);
    expect(status).toBe(64);
    expect(stderr).not.toContain('    at ');
  });

  it('takes the boundary units of an SD card', async () => {
    const { out } = await ran(command, ['--json', '--size', '64G', '--media', 'sd', '--part', 'type=data,fs=exfat']);
    expect(JSON.parse(out).partitions[0].start).toBe(16 * MIB);
  });
});

describe('sectorwise plan --write', () => {
  it('makes an image that align finds no fault with, and that is not written over', async () => {
    const path = join(folder, 'written.img');
    const first = await ran(command, ['--size', '2G', ...parts, '--write', path]);
    expect(first.out).toContain(`written to ${path} (made sparse)`);
    expect(statSync(path).size).toBe(2 ** 31);
    expect((await ran(align, [path])).exit).toBe(0);

    const before = bytesOf(path, MIB);
    const again = await sectorwise(['plan', ...parts, '--write', path]);
    expect(again).toMatchObject({ status: 4, stderr: expect.stringContaining('--force') });
    expect(bytesOf(path, MIB)).toEqual(before);

    // Its size is taken from what is there.
    const forced = await ran(command, ['--part', 'name=only,fs=xfs', '--write', path, '--force']);
    expect(forced.exit).toBe(0);
    expect(JSON.parse((await ran(align, ['--json', path])).out).partitions).toMatchObject([{ name: 'only' }]);
  });

  it('only says what it would do with --dry-run', async () => {
    const path = join(folder, 'not-written.img');
    const { exit, out } = await ran(command, ['--size', '2G', ...parts, '--write', path, '--dry-run']);
    expect(exit).toBe(0);
    expect(out).toContain(`would be written to ${path}`);
    expect(existsSync(path)).toBe(false);
  });

  const missing = without('mkfs.fat', 'mke2fs', 'sgdisk');
  it(`prints lines that make file systems where it said${note(missing)}`, async (context) => {
    if (missing) return context.skip(missing);
    const path = join(folder, 'whole.img');
    await ran(command, ['--size', '200M', ...parts, ...diskId, '--write', path]);
    const { out } = await ran(command, ['--json', '--size', '200M', ...parts, ...diskId, '--write', path, '--dry-run', '--force']);
    const told = JSON.parse(out);
    const { status, stderr } = spawnSync('sh', ['-e'], {
      input: told.mkfs.join('\n'),
      encoding: 'utf8',
      env: { ...process.env, PATH: `${process.env.PATH}:/usr/sbin:/sbin` },
    });
    expect(status, stderr).toBe(0);
    expect(spawnSync(tool('sgdisk')!, ['-v', path], { encoding: 'utf8' }).stdout).toContain('No problems found');
    const judged = JSON.parse((await ran(align, ['--json', path])).out);
    expect(judged.summary.exit).toBe(0);
    expect(judged.volumes.map(({ kind, dataOffsetAbsolute }: Record<string, unknown>) => [kind, dataOffsetAbsolute])).toEqual(
      told.partitions.map(({ volume }: { volume: Record<string, unknown> }) => [volume.kind, volume.dataOffsetAbsolute]),
    );
  });
});
