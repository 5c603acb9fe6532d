/**
 * A device that says "written" and has not done it: in parts of it dm-flakey drops writes or changes bytes, so that a write across the border is done in part. With verifyWrites every sector that is wrong is found, without it
 * all is believed.
 *
 *   library ──> dm [ well | lost | well | changed | well | changed by chance | well | unreadable ] ──> null_blk      what is wrong is asked of the device below, which is never wrong
 *
 * All lies are one table: under emulation each change of it costs more than what it shows.
 */
import { existsSync } from 'node:fs';
import { type BlockFile, type EngineName, type FlushError, open } from '../../../src/index.js';
import { Random } from '../../../src/testing/random.js';
import { check, codeOf, command, modprobe, tally, until } from './guest.js';
import { nullDevice, table } from './zoo.js';

const SECTOR = 512;
const BYTES = 1 << 20;
const PART = 256;
const WRITES = 40;
const UNREADABLE = 'not to be read back (error_reads)';

/** What the parts of the device do, PART sectors each; undefined for those that are well. */
const parts: ReadonlyArray<{ name: string; features: string } | undefined> = [
  undefined,
  { name: 'lost (drop_writes)', features: 'drop_writes' },
  undefined,
  { name: 'changed in one byte (corrupt_bio_byte)', features: 'corrupt_bio_byte 300 w 170 0' },
  undefined,
  { name: 'changed by chance (random_write_corrupt)', features: 'random_write_corrupt 700000000' },
  undefined,
  { name: UNREADABLE, features: 'error_reads' },
];

const lying = (under: string): string =>
  parts
    .map((part, index) => {
      const place = `${index * PART} ${PART}`;
      if (part === undefined) return `${place} linear ${under} ${index * PART}`;
      // Up for 0 seconds, down for 100.
      return `${place} flakey ${under} ${index * PART} 0 100 ${part.features.split(' ').length} ${part.features}`;
    })
    .join('\n');

const nameOf = (sector: number): string => parts[Math.floor(sector / PART)]?.name ?? 'well';

/** Writes ranges that do not touch, many of them across the border of a part; the sectors of each. */
async function scatter(file: BlockFile, model: Buffer, random: Random): Promise<number[][]> {
  const share = BYTES / WRITES;
  const writes: number[][] = [];
  for (let index = 0; index < WRITES; index++) {
    const sectors = random.between(1, 40);
    const first = Math.min(BYTES / SECTOR - sectors, Math.ceil((index * share) / SECTOR) + random.below(8));
    const bytes = random.fill(Buffer.alloc(sectors * SECTOR));
    await file.write(bytes, first * SECTOR);
    model.set(bytes, first * SECTOR);
    writes.push(Array.from({ length: sectors }, (_, i) => first + i));
  }
  return writes;
}

/** Sectors in which the device below does not have what it should. */
async function wrongOn(path: string, model: Buffer): Promise<number[]> {
  const file = await open(path, { caching: 'direct' });
  const held = Buffer.alloc(BYTES);
  await file.read(held, 0);
  await file.close();
  return Array.from({ length: BYTES / SECTOR }, (_, sector) => sector).filter(
    (sector) => held.compare(model, sector * SECTOR, (sector + 1) * SECTOR, sector * SECTOR, (sector + 1) * SECTOR) !== 0,
  );
}

function flushed(file: BlockFile): Promise<FlushError | undefined> {
  return file.flush().then(
    () => undefined,
    (error: FlushError) => error,
  );
}

async function run(engine: EngineName, verifyWrites: boolean, path: string, under: string): Promise<void> {
  const well = `0 ${BYTES / SECTOR} linear ${under} 0`;
  // Dirty at most a half of the cache: nothing is written before the flush.
  const file = await open(path, { caching: 'direct', engine, access: 'read-write', cacheSize: 4 * BYTES, verifyWrites, readAhead: false });
  const model = Buffer.alloc(BYTES);
  await file.read(model, 0);
  await table('liar', lying(under));
  const writes = await scatter(file, model, new Random(engine === 'threads' ? 1 : 2, verifyWrites ? 1 : 2));
  const failure = await flushed(file);
  const wrong = new Set(await wrongOn(under, model));
  await table('liar', well);
  const kinds = tally([...wrong].map(nameOf));
  if (!verifyWrites) {
    check(failure === undefined && wrong.size > 0, `${engine}: without verifyWrites the flush resolves, and is wrong: ${kinds}`, `${failure?.code}, ${kinds}`);
    await file.close();
    return;
  }
  const ranges = failure?.ranges ?? [];
  const codes = tally(new Set(ranges.map(({ error }) => codeOf(error))));
  const named = new Set(ranges.flatMap(({ offset, length }) => Array.from({ length: length / SECTOR }, (_, i) => offset / SECTOR + i)));
  const found = [...wrong].filter((sector) => named.has(sector)).length;
  const liars = new Set([...wrong].map(nameOf));
  check(
    liars.size === 3 && found === wrong.size && codes === '1 × ERR_SECTORWISE_VERIFY',
    `${engine}: of ${wrong.size} sectors that are wrong on the device below, verifyWrites names ${found}: ${kinds}`,
    `${found} of ${wrong.size} named: ${kinds}; ${codes}`,
  );
  const torn = writes.filter((sectors) => sectors.some((sector) => wrong.has(sector)) && !sectors.every((sector) => wrong.has(sector)));
  check(torn.length > 0, `${engine}: ${torn.length} of ${WRITES} writes were done in part, and only the part that was not is named`);
  const unread = writes.flat().filter((sector) => nameOf(sector) === UNREADABLE);
  const besides = [...named].filter((sector) => !wrong.has(sector) && nameOf(sector) !== UNREADABLE);
  check(
    unread.length > 0 && unread.every((sector) => named.has(sector)) && besides.length === 0,
    `${engine}: the ${unread.length} sectors that cannot be read back are named too, and no other`,
    `${unread.filter((sector) => named.has(sector)).length} of ${unread.length}, and ${besides.length} that are right`,
  );
  const again = await flushed(file);
  file.acknowledgeLoss();
  await file.flush();
  await file.close();
  const left = await wrongOn(under, model);
  check(
    again?.code === 'ERR_SECTORWISE_FLUSH_FAILED' && left.length === 0,
    `${engine}: all of it was written again once the device was well, and stayed named until it was acknowledged`,
    `${again?.code}; ${left.length} sectors are still wrong`,
  );
}

export async function verifiedWrites(): Promise<void> {
  const under = `/dev/${await nullDevice('lying-ground', { blocksize: '512', size: String(BYTES >> 20) })}`;
  await modprobe('dm-flakey');
  await command('dmsetup', 'create', 'liar', '--noudevsync', '--table', `0 ${BYTES / SECTOR} linear ${under} 0`);
  const path = '/dev/mapper/liar';
  if (!existsSync(path)) await command('dmsetup', 'mknodes');
  await until(10_000, path, () => existsSync(path));
  for (const engine of ['io_uring', 'threads'] as const) for (const verifyWrites of [true, false]) await run(engine, verifyWrites, path, under);
  await command('dmsetup', 'remove', '--noudevsync', 'liar');
}
