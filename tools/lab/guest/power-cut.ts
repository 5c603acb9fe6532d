/**
 * A writer that appends records and flushes, for ever, to a device and to a file of an ext4; the power fails in the middle. Each start first looks at what the last one left.
 */
import { closeSync, existsSync, fstatSync, openSync, readFileSync, readSync } from 'node:fs';
import { type BlockFile, type Caching, open } from '../../../src/index.js';
import type { Settings } from '../messages.js';
import { makeRecord, scanRecords } from '../records.js';
import { ask, check, command, disk, mountPoint, note } from './guest.js';

/** A megabyte of records is room for all rounds. */
const LOG_BYTES = 16 << 20;

interface Target {
  title: 'device' | 'ext4';
  file: BlockFile;
  number: number;
  offset: number;
}

function recordsOf(path: string): ReturnType<typeof scanRecords> {
  // By node:fs: what is on the disk, not what the library makes of it.
  const fd = openSync(path, 'r');
  try {
    const bytes = Buffer.alloc(Math.min(LOG_BYTES, fstatSync(fd).isBlockDevice() ? LOG_BYTES : fstatSync(fd).size));
    return scanRecords(bytes.subarray(0, readSync(fd, bytes, 0, bytes.length, 0)));
  } finally {
    closeSync(fd);
  }
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
  }
}

export async function powerCut(settings: Settings): Promise<void> {
  const round = Number(settings.round);
  const device = `/dev/${await disk('cut-device')}`;
  const mounted = mountPoint('cut');
  await command('mount', '-t', 'ext4', `/dev/${await disk('cut-ext4')}`, mounted);
  const path = `${mounted}/log`;
  const found = { device: recordsOf(device), ext4: existsSync(path) ? recordsOf(path) : { last: 0, round: 0, end: 0 } };
  for (const title of ['device', 'ext4'] as const) {
    const promised = Number(settings[title]);
    const { last } = found[title];
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

  // Rounds take turns: both modes on the file, both engines everywhere.
  const caching: Caching = round % 2 === 0 ? 'page-cache' : 'direct';
  const engine = round % 4 < 2 ? 'io_uring' : 'threads';
  const targets: Target[] = [
    { title: 'device', file: await open(device, { caching: 'direct', engine, access: 'read-write' }), number: found.device.last, offset: found.device.end },
    { title: 'ext4', file: await open(path, { caching, engine, access: 'read-write', create: true }), number: found.ext4.last, offset: found.ext4.end },
  ];
  note(`round ${round}: ${engine}, ext4 by ${caching}`);
  // Ends when the machine does.
  await Promise.all(targets.map((target) => appendForEver(target, round)));
}
