/**
 * A disk with a few sectors that cannot be read, and one that cannot be written: only who needs them fails.
 */
import { type EngineName, open } from '../../../src/index.js';
import { firstDifference } from '../content.js';
import { badRead, badWrite, seed } from '../faults.js';
import type { Settings } from '../messages.js';
import { check, codeOf, disk, note, tally } from './guest.js';

const BLOCK = 4096;
/** What the kernel makes of a medium error: direct reads get the block layer's ENODATA, the page cache makes EIO of everything. */
const mediumErrors = ['EIO', 'ENODATA'];

const blockOf = (sector: number): number => Math.floor((sector * 512) / BLOCK);

async function reads(path: string, title: string, options: { caching: 'direct'; engine: EngineName } | { caching: 'page-cache' }): Promise<void> {
  const file = await open(path, { ...options, readAhead: false });
  const bad = new Set(badRead.map(blockOf));
  const first = Math.min(...bad) - 8;
  const blocks = Array.from({ length: Math.max(...bad) + 9 - first }, (_, index) => first + index);
  const before = file.stats.deviceReads;
  // All in one turn: they merge into a few operations, and the bad sector is in the middle of one.
  const outcomes = await Promise.all(
    blocks.map((block) =>
      file.window(block * BLOCK, BLOCK).then(
        (window) => {
          const right = firstDifference(window.bytes, window.offset, seed) === undefined;
          window.release();
          return { block, end: right ? 'right' : 'wrong bytes' };
        },
        (error) => ({ block, end: codeOf(error) }),
      ),
    ),
  );
  const operations = file.stats.deviceReads - before;
  const ofBad = outcomes.filter(({ block }) => bad.has(block)).map(({ end }) => end);
  const ofGood = outcomes.filter(({ block }) => !bad.has(block)).map(({ end }) => end);
  const seen = `bad: ${tally(ofBad)}; good: ${tally(ofGood)}; ${operations} operations`;
  check(
    ofBad.every((end) => mediumErrors.includes(end)) && ofGood.every((end) => end === 'right'),
    `${title}: ${blocks.length} neighbouring blocks asked for at once: the ${ofBad.length} with a bad sector failed (${tally(ofBad)}), the ${ofGood.length} others are right (${operations} operations)`,
    seen,
  );
  const window = await file.window((first - 16) * BLOCK, BLOCK);
  check(window.valid && firstDifference(window.bytes, window.offset, seed) === undefined, `${title}: the file goes on being read`);
  window.release();
  await file.close();
}

async function writes(path: string, engine: EngineName): Promise<void> {
  const title = `direct, ${engine}`;
  const file = await open(path, { caching: 'direct', engine, access: 'read-write' });
  const bad = blockOf(badWrite);
  const start = (bad - 8) * BLOCK;
  const length = 16 * BLOCK;
  const content = Buffer.alloc(length, engine === 'io_uring' ? 0xa5 : 0x5a);
  await file.write(content, start);
  const failed = await file.flush().then(
    () => undefined,
    (error: { code: string; ranges: Array<{ offset: number; length: number }> }) => error,
  );
  const named = failed?.ranges?.map(({ offset, length: bytes }) => `${bytes} at ${offset}`) ?? [];
  const fine =
    failed?.code === 'ERR_SECTORWISE_FLUSH_FAILED' &&
    failed.ranges.length > 0 &&
    failed.ranges.every((range) => range.offset >= bad * BLOCK && range.offset + range.length <= (bad + 1) * BLOCK);
  check(
    fine,
    `${title}: a flush over a sector that cannot be written rejects and names it (${tally(named)})`,
    failed === undefined ? 'it resolved' : `${failed.code}, ${tally(named)}`,
  );
  const readable = Buffer.alloc(length);
  await file.read(readable, start);
  check(readable.equals(content), `${title}: what could not be written stays readable`);
  const lost = file.acknowledgeLoss();
  await file.flush();
  check(lost.length > 0, `${title}: acknowledgeLoss gives it up, and the next flush resolves`);
  await file.close();

  const again = await open(path, { caching: 'direct', engine });
  await again.read(readable, start);
  const block = (index: number): Buffer => readable.subarray(index * BLOCK, (index + 1) * BLOCK);
  const others = Array.from({ length: 16 }, (_, index) => index).filter((index) => index !== 8);
  check(
    others.every((index) => block(index).equals(content.subarray(0, BLOCK))),
    `${title}: the 15 neighbouring blocks of that flush are on the disk`,
    `wrong: ${others.filter((index) => !block(index).equals(content.subarray(0, BLOCK))).join(', ')}`,
  );
  await again.close();
}

export async function badSectors(settings: Settings): Promise<void> {
  const name = await disk(String(settings.disk));
  const path = `/dev/${name}`;
  note(`/dev/${name}: sectors ${badRead.join(', ')} cannot be read, ${badWrite} cannot be written`);
  for (const engine of ['io_uring', 'threads'] as const) await reads(path, `direct, ${engine}`, { caching: 'direct', engine });
  await reads(path, 'page cache', { caching: 'page-cache' });
  for (const engine of ['io_uring', 'threads'] as const) await writes(path, engine);
}
