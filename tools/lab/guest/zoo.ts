/**
 * Devices that the kernel makes up: what no real disk does on request.
 *
 * scsi_debug: a physical sector that begins in the middle, medium errors that can be switched off again.
 * dm-flakey: a device that fails every read, every write, or drops writes in silence, from one moment to the next.
 * null_blk: sectors of 4096 bytes in memory, bad blocks by list.
 */
import { existsSync, mkdirSync, readdirSync } from 'node:fs';
import { type EngineName, open } from '../../../src/index.js';
import { fillContent, firstDifference } from '../content.js';
import { attribute, check, codeOf, command, modprobe, tally, tell, until } from './guest.js';

const BLOCK = 4096;
const MEBIBYTE = 1 << 20;
const engines: readonly EngineName[] = ['io_uring', 'threads'];
const mediumErrors = ['EIO', 'ENODATA'];

async function fill(path: string, bytes: number, seed: number): Promise<void> {
  const file = await open(path, { caching: 'direct', access: 'read-write' });
  const content = Buffer.alloc(bytes);
  fillContent(content, 0, seed);
  await file.write(content, 0);
  await file.flush();
  await file.close();
}

/** Ends of reading so many blocks, asked for at once. */
async function readBlocks(path: string, engine: EngineName, first: number, count: number, seed: number): Promise<Array<{ block: number; end: string }>> {
  const file = await open(path, { caching: 'direct', engine, readAhead: false });
  const ends = await Promise.all(
    Array.from({ length: count }, (_, index) => first + index).map((block) =>
      file.window(block * BLOCK, BLOCK).then(
        (window) => {
          const end = firstDifference(window.bytes, window.offset, seed) === undefined ? 'right' : 'wrong bytes';
          window.release();
          return { block, end };
        },
        (error) => ({ block, end: codeOf(error) }),
      ),
    ),
  );
  await file.close();
  return ends;
}

function checkEnds(title: string, ends: Array<{ block: number; end: string }>, isBad: (block: number) => boolean): void {
  const bad = ends.filter(({ block }) => isBad(block)).map(({ end }) => end);
  const good = ends.filter(({ block }) => !isBad(block)).map(({ end }) => end);
  check(
    bad.every((end) => mediumErrors.includes(end)) && good.every((end) => end === 'right'),
    bad.length === 0
      ? `${title}: ${good.length} blocks are right`
      : `${title}: the ${bad.length} bad blocks fail (${tally(bad)}), the ${good.length} around them are right`,
    `bad: ${tally(bad)}; good: ${tally(good)}`,
  );
}

export async function scsiDebug(): Promise<void> {
  const SEED = 11;
  const bytes = 8 * MEBIBYTE;
  const before = new Set(readdirSync('/sys/block'));
  // Sectors of 512 bytes, eight of them in a physical one, of which the first begins at sector 7.
  await modprobe(
    'scsi_debug',
    'dev_size_mb=8',
    'sector_size=512',
    'physblk_exp=3',
    'lowest_aligned=7',
    'medium_error_start=4660',
    'medium_error_count=4',
    'delay=0',
  );
  const name = await until(20_000, 'the disk of scsi_debug', () => readdirSync('/sys/block').find((found) => found.startsWith('sd') && !before.has(found)));
  const path = `/dev/${name}`;
  await until(10_000, path, () => existsSync(path));
  await fill(path, bytes, SEED);
  const file = await open(path, { caching: 'direct' });
  const { geometry } = file;
  const seen = `logical ${geometry.logicalSectorSize}, physical ${geometry.physicalSectorSize}, alignmentOffset ${geometry.alignmentOffset}`;
  const expected = Number(attribute(`/sys/block/${name}/alignment_offset`));
  check(
    geometry.logicalSectorSize === 512 && geometry.physicalSectorSize === 4096 && geometry.alignmentOffset === expected && expected === 3584,
    `geometry is the odd disk's (${seen})`,
    `${seen}; sysfs says ${expected}`,
  );
  await file.close();

  const opts = '/sys/bus/pseudo/drivers/scsi_debug/opts';
  const inject = '2';
  const isBad = (block: number): boolean => block === Math.floor(4660 / 8) || block === Math.floor(4663 / 8);
  for (const engine of engines) {
    await tell(opts, inject);
    checkEnds(`medium errors, ${engine}`, await readBlocks(path, engine, 560, 48, SEED), isBad);
    await tell(opts, '0');
    checkEnds(`the same once the medium is well again, ${engine}`, await readBlocks(path, engine, 560, 48, SEED), () => false);
  }
}

/** Replaces the table of a device-mapper device while it is open. */
export async function table(name: string, text: string): Promise<void> {
  // Without a flush of what is open on it: what is dirty is the point.
  await command('dmsetup', 'suspend', '--noflush', '--nolockfs', name);
  await command('dmsetup', 'load', name, '--table', text);
  await command('dmsetup', 'resume', '--noudevsync', name);
}

export async function nullDevice(name: string, attributes: Readonly<Record<string, string>>): Promise<string> {
  await modprobe('null_blk', 'nr_devices=0');
  const configuration = '/sys/kernel/config';
  if (!existsSync(`${configuration}/nullb`)) await command('mount', '-t', 'configfs', 'none', configuration);
  const folder = `${configuration}/nullb/${name}`;
  mkdirSync(folder);
  for (const [key, value] of Object.entries({ size: '16', memory_backed: '1', ...attributes })) await tell(`${folder}/${key}`, value);
  await tell(`${folder}/power`, '1');
  const device = existsSync(`/sys/block/${name}`) ? name : `nullb${attribute(`${folder}/index`)}`;
  await until(10_000, `/dev/${device}`, () => existsSync(`/dev/${device}`));
  return device;
}

export async function dmFlakey(): Promise<void> {
  const SEED = 12;
  const under = await nullDevice('flaky-ground', { blocksize: '512' });
  await modprobe('dm-flakey');
  const sectors = attribute(`/sys/block/${under}/size`);
  const well = `0 ${sectors} linear /dev/${under} 0`;
  // Up for 0 seconds, down for 100.
  const ill = (feature: string): string => `0 ${sectors} flakey /dev/${under} 0 0 100 1 ${feature}`;
  await command('dmsetup', 'create', 'flaky', '--noudevsync', '--table', well);
  const path = '/dev/mapper/flaky';
  if (!existsSync(path)) await command('dmsetup', 'mknodes');
  await until(10_000, path, () => existsSync(path));
  await fill(path, 4 * MEBIBYTE, SEED);

  for (const engine of engines) {
    const dead = await open(path, { caching: 'direct', engine, readAhead: false });
    const held = await dead.window(0, 4 * BLOCK);
    await table('flaky', ill('error_reads'));
    const ask = (): Promise<string> =>
      dead.window(100 * BLOCK, BLOCK).then(
        () => 'a window',
        (error) => codeOf(error),
      );
    const end = await ask();
    check(end === 'ERR_SECTORWISE_UNPLUGGED', `${engine}: a device of which every read fails counts as gone, and is not called a bad sector`, end);
    check(!held.valid, `${engine}: … and windows over it say so`);
    await table('flaky', well);
    const later = await ask();
    check(later === 'ERR_SECTORWISE_UNPLUGGED', `${engine}: … for good, also when the device is well again`, later);
    held.release();
    await dead.close();
    const file = await open(path, { caching: 'direct', engine, access: 'read-write', readAhead: false });
    const after = await file.window(100 * BLOCK, BLOCK);
    check(firstDifference(after.bytes, after.offset, SEED) === undefined, `${engine}: … while a file opened anew reads right bytes`);
    after.release();

    const content = Buffer.alloc(2 * BLOCK, engine === 'io_uring' ? 1 : 2);
    const place = 200 * BLOCK;
    await file.write(content, place);
    await table('flaky', ill('error_writes'));
    const refused = await file.flush().then(
      () => 'it resolved',
      (error) => codeOf(error),
    );
    await table('flaky', well);
    const stubborn = await file.flush().then(
      () => 'it resolved',
      (error) => codeOf(error),
    );
    check(
      refused === 'ERR_SECTORWISE_FLUSH_FAILED' && stubborn === refused,
      `${engine}: while every write fails, flush rejects with ERR_SECTORWISE_FLUSH_FAILED, and goes on doing so until the loss is acknowledged`,
      `${refused}, then ${stubborn}`,
    );
    const lost = file.acknowledgeLoss();
    await file.flush();
    const target = Buffer.alloc(content.length);
    const anew = await open(path, { caching: 'direct', engine });
    await anew.read(target, place);
    await anew.close();
    check(
      lost.length > 0 && target.equals(content),
      `${engine}: … and by then the device has what was tried again (${lost.length} ranges acknowledged)`,
      `${lost.length} ranges; the device has ${target.every((byte) => byte === content[0]) ? 'all' : 'something else'}`,
    );

    const dropped = Buffer.alloc(BLOCK, 0xdd);
    await file.write(dropped, 300 * BLOCK);
    await table('flaky', ill('drop_writes'));
    await file.flush();
    await table('flaky', well);
    await file.close();
    const honest = await open(path, { caching: 'direct', engine });
    await honest.read(target.subarray(0, BLOCK), 300 * BLOCK);
    await honest.close();
    check(
      firstDifference(target.subarray(0, BLOCK), 300 * BLOCK, SEED) === undefined,
      `${engine}: a device that drops writes in silence is believed, and the old bytes are read when it is opened again`,
    );
  }
  await command('dmsetup', 'remove', '--noudevsync', 'flaky');
}

export async function nullBlk(): Promise<void> {
  const SEED = 13;
  const name = await nullDevice('bad-memory', { blocksize: '4096' });
  const path = `/dev/${name}`;
  await fill(path, 8 * MEBIBYTE, SEED);
  const file = await open(path, { caching: 'direct' });
  check(file.geometry.logicalSectorSize === 4096, 'sectors of 4096 bytes are seen', String(file.geometry.logicalSectorSize));
  await file.close();
  const list = '/sys/kernel/config/nullb/bad-memory/badblocks';
  const bad = [500, 501, 520];
  for (const engine of engines) {
    // The list counts in sectors of 512 bytes.
    for (const block of bad) await tell(list, `+${block * 8}-${block * 8 + 7}`);
    checkEnds(`bad blocks, ${engine}`, await readBlocks(path, engine, 490, 48, SEED), (block) => bad.includes(block));
    for (const block of bad) await tell(list, `-${block * 8}-${block * 8 + 7}`);
    checkEnds(`the same without the list, ${engine}`, await readBlocks(path, engine, 490, 48, SEED), () => false);
  }
}
