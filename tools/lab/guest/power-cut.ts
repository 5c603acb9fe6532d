/**
 * Writers that append records, keep a checkpoint of them, and change cells in place, all with flushes that they share, for ever, on a device and in a file of an ext4; the power fails in the middle. Each start first looks at what the
 * last one left.
 *
 *   | checkpoint | lane 1 | lane 2 | … | log …
 */
import { closeSync, existsSync, fstatSync, openSync, readFileSync, readSync } from 'node:fs';
import { type BlockFile, type Caching, type OpenOptions, open } from '../../../src/index.js';
import type { Settings } from '../messages.js';
import { CELL_BYTES, cellOf, faultOfCells, makeCell, makeRecord, scanRecords, versionOf } from '../records.js';
import { ask, check, codeOf, command, disk, mountPoint, note } from './guest.js';

/** A megabyte of records is room for all rounds. */
const LOG_BYTES = 16 << 20;

/** In front of the log lie the checkpoint and the cells of the lanes. */
const LOG_START = 1 << 20;
const LANES = 4;
const LANE_STRIDE = 64 << 10;
/** The lane of the checkpoint, which is one cell. */
const CHECKPOINT = 0;

interface Target {
  title: 'device' | 'ext4';
  file: BlockFile;
  number: number;
  offset: number;
}

interface Found {
  log: ReturnType<typeof scanRecords>;
  front: Buffer;
}

function look(path: string): Found {
  // By node:fs: what is on the disk, not what the library makes of it.
  const fd = openSync(path, 'r');
  try {
    const bytes = Buffer.alloc(Math.min(LOG_BYTES, fstatSync(fd).isBlockDevice() ? LOG_BYTES : fstatSync(fd).size));
    const read = bytes.subarray(0, readSync(fd, bytes, 0, bytes.length, 0));
    return { log: scanRecords(read.subarray(LOG_START)), front: read.subarray(0, LOG_START) };
  } finally {
    closeSync(fd);
  }
}

const nothing: Found = { log: { last: 0, round: 0, end: 0 }, front: Buffer.alloc(0) };

/** Lane 0 is the checkpoint. */
function lanePlace(lane: number): number {
  return lane * LANE_STRIDE;
}

/** Is every flushed version of every lane there, and does the checkpoint know of nothing that the log has not? */
function checkFront(title: string, { log, front }: Found, flushed: (lane: number) => number): void {
  const checkpoint = versionOf(front.subarray(0, CELL_BYTES), CHECKPOINT);
  const known = checkpoint === undefined ? 'it holds what nobody wrote' : `it knows of record ${checkpoint}, and the log ends with ${log.last}`;
  check(
    checkpoint !== undefined && checkpoint <= log.last,
    `${title}: the checkpoint, which was written after a flush of the log, knows of nothing that is not there`,
    known,
  );
  const faults = Array.from({ length: LANES }, (_, i) => faultOfCells(front.subarray(lanePlace(i + 1), lanePlace(i + 2)), i + 1, flushed(i + 1))).filter(
    (fault) => fault !== undefined,
  );
  check(faults.length === 0, `${title}: every cell that was changed in place is at the version that was flushed, or later`, faults.join('; '));
}

async function append(target: Target, round: number): Promise<void> {
  const record = makeRecord(target.number + 1, round);
  await target.file.write(record, target.offset);
  target.offset += record.length;
  target.number++;
}

/** Appends one to three records at a time; what was flushed is told to the host before anything else happens to this target. */
async function appendForEver(target: Target, round: number): Promise<void> {
  for (;;) {
    for (let count = 1 + ((target.number * 5 + round) % 3); count > 0; count--) await append(target, round);
    const flushed = target.number;
    const flush = target.file.flush();
    // More of the same log is written while the flush is under way: that it does not have to keep.
    await append(target, round);
    await flush;
    await ask({ what: 'flushed', target: target.title, record: flushed });
    // Goes along with the next flush, whoever asks for it.
    await target.file.write(makeCell(CHECKPOINT, flushed), lanePlace(CHECKPOINT));
  }
}

/** Changes cells in place, some at a time, beside all other lanes and the log; the flushes are everybody's. */
async function changeForEver({ title, file }: Target, lane: number, from: number): Promise<void> {
  for (let version = from; ; ) {
    const writes: Promise<number>[] = [];
    for (let count = 1 + ((version * 7 + lane) % 4); count > 0; count--) {
      version++;
      writes.push(file.write(makeCell(lane, version), lanePlace(lane) + cellOf(version) * CELL_BYTES));
    }
    const flushed = version;
    await Promise.all([...writes, file.flush()]);
    await ask({ what: 'flushed', target: title, lane, record: flushed });
  }
}

/** Where this release refuses to verify what it writes, it writes without. */
async function opened(path: string, options: OpenOptions): Promise<BlockFile> {
  try {
    return await open(path, options);
  } catch (error) {
    if (!options.verifyWrites || codeOf(error) !== 'ERR_SECTORWISE_UNSUPPORTED') throw error;
    note('skipped: verifyWrites, which this release refuses');
    return open(path, { ...options, verifyWrites: false });
  }
}

export async function powerCut(settings: Settings): Promise<void> {
  const round = Number(settings.round);
  const device = `/dev/${await disk('cut-device')}`;
  const mounted = mountPoint('cut');
  await command('mount', '-t', 'ext4', `/dev/${await disk('cut-ext4')}`, mounted);
  const path = `${mounted}/log`;
  const found = { device: look(device), ext4: existsSync(path) ? look(path) : nothing };
  for (const title of ['device', 'ext4'] as const) {
    const promised = Number(settings[title]);
    const { last } = found[title].log;
    checkFront(title, found[title], (lane) => Number(settings[`${title}-${lane}`] ?? 0));
    check(last >= promised, `${title}: record ${promised} was flushed, ${last} are there`, `${last} are there, ${promised} were flushed`);
  }
  const dirty =
    readFileSync('/proc/mounts', 'utf8')
      .split('\n')
      .find((line) => line.includes(mounted)) ?? '';
  if (!dirty.includes('rw')) check(false, 'the ext4 can be mounted for writing', dirty);
  if (settings.last) {
    await command('umount', mounted);
    return;
  }

  // Rounds take turns: both modes on the file, both engines everywhere, and with what is written read back or not.
  const caching: Caching = round % 2 === 0 ? 'page-cache' : 'direct';
  const engine = round % 4 < 2 ? 'io_uring' : 'threads';
  const verifyWrites = round % 8 >= 4;
  const common: OpenOptions = { engine, access: 'read-write', create: false };
  const target = (title: Target['title'], file: BlockFile): Target => ({
    title,
    file,
    number: found[title].log.last,
    offset: LOG_START + found[title].log.end,
  });
  const targets: Target[] = [
    target('device', await opened(device, { ...common, caching: 'direct', verifyWrites })),
    target('ext4', await opened(path, { ...common, caching, create: true, verifyWrites: verifyWrites && caching === 'direct' })),
  ];
  note(`round ${round}: ${engine}, ext4 by ${caching}${verifyWrites ? ', verified' : ''}`);
  const lanes = targets.flatMap((each) => Array.from({ length: LANES }, (_, i) => changeForEver(each, i + 1, Number(settings[`${each.title}-${i + 1}`] ?? 0))));
  // Ends when the machine does.
  await Promise.all([...targets.map((each) => appendForEver(each, round)), ...lanes]);
}
