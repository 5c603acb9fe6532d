/**
 * One run of durable appends in a process of its own: `node append-run.js '<job as JSON>'` prints its result as one line of JSON.
 *
 *   4096 bytes   so many writers, each of which waits until what it appended is durable, and then appends the next; all of them to one end
 *   small        one writer, which waits only after every so many appends
 *
 * Guarantees: each append carries its number, and what is on the device afterwards is compared with it, read past the page cache where that can be (databases are left to themselves).
 * Leaves to others: making the file's place (devices.ts), and removing it.
 */
import { closeSync, constants, fdatasync, fdatasyncSync, mkdirSync, openSync, readSync, rmSync, statSync, write, writeSync, writev } from 'node:fs';
import { promisify } from 'node:util';
import { type BlockFile, type OpenOptions, open } from '../../src/index.js';
import { alignedBuffers } from './aligned-buffers.js';
import { Latencies } from './latencies.js';
import { measureRun, runResult } from './measured-run.js';
import { seededBytes } from './pattern.js';
import { loadPeers } from './peer-packages.js';
import type { Measured } from './workloads.js';

export interface AppendJob {
  kind: 'own' | 'callbacks' | 'shared' | 'dsync' | 'sync' | 'gathered' | 'lmdb' | 'level';
  /** A file, a device, or for databases a folder to be made. */
  path: string;
  /** Removed and made anew, growing with each append; else written over from its beginning. */
  fresh: boolean;
  /** Bytes that there is room for. */
  size: number;
  writers: number;
  seconds: number;
  /** One writer of `bytes` that waits after each `flushEvery` appends, `count` appends in all. */
  small?: { bytes: number; flushEvery: number; count: number };
  /** Own: through the page cache, or direct (the default) and perhaps verified. */
  caching?: 'page-cache';
  verify?: boolean;
  statPath?: string;
}

const blockBytes = 4096;
/** Before the measured ones, in the same way, up to so many and for so long: a new process runs ours at half its speed until V8 has compiled it, and there is more to compile of ours than of what calls fs. */
const warmUpAppends = 8000;
const warmUpSeconds = { own: 2.5, others: 0.5 };
const datasync = promisify(fdatasync);

/** How one contender appends: `append` resolves once the bytes at an offset are durable, `small` once the many are. */
interface Appender {
  append?(writer: number, bytes: Uint8Array, offset: number): Promise<unknown>;
  /** Without waiting for the loop. */
  appendNow?(bytes: Uint8Array, offset: number): void;
  /** `bytes` is the same all the time. */
  many?(bytes: Uint8Array, offset: number, count: number): Promise<unknown>;
  notes?(): Record<string, number>;
  close(): Promise<unknown>;
}

async function ownAppender({ path, fresh, caching, verify }: AppendJob): Promise<Appender> {
  const options: OpenOptions = { access: 'read-write', create: fresh, caching: caching ?? 'direct', idleMs: Number.POSITIVE_INFINITY };
  const file: BlockFile = await open(path, verify ? { ...options, verifyWrites: true } : options);
  return {
    append: async (_, bytes, offset) => {
      await file.write(bytes, offset);
      await file.flush();
    },
    many: async (bytes, offset, count) => {
      const written: Promise<number>[] = [];
      for (let index = 0; index < count; index++) written.push(file.write(bytes, offset + index * bytes.length));
      await Promise.all(written);
      await file.flush();
    },
    notes: () => ({ deviceWrites: file.stats.deviceWrites, deviceWriteBytes: file.stats.deviceWriteBytes, deviceReads: file.stats.deviceReads }),
    close: () => file.close(),
  };
}

function callbackWrite(fd: number, bytes: Uint8Array, offset: number): Promise<void> {
  return new Promise((resolve, reject) =>
    write(fd, bytes, 0, bytes.length, offset, (error, count) => {
      if (error) reject(error);
      else if (count !== bytes.length) reject(new Error('a short write'));
      else resolve();
    }),
  );
}

/** One fdatasync for all that were written when it began: what a careful writer of a log does with node:fs. */
class SharedSync {
  readonly #fd: number;
  #running: Promise<void> | undefined;
  #next: Promise<void> | undefined;

  constructor(fd: number) {
    this.#fd = fd;
  }

  /** Resolves when what was written before the call is durable. */
  sync(): Promise<void> {
    if (!this.#running) return this.#start();
    this.#next ??= this.#running.then(() => {
      this.#next = undefined;
      return this.#start();
    });
    return this.#next;
  }

  #start(): Promise<void> {
    const running = datasync(this.#fd).finally(() => {
      if (this.#running === running) this.#running = undefined;
    });
    this.#running = running;
    return running;
  }
}

function nodeAppender(job: AppendJob): Appender {
  const { kind, path, fresh } = job;
  const direct = kind === 'dsync' ? constants.O_DIRECT | constants.O_DSYNC : 0;
  const fd = openSync(path, constants.O_RDWR | (fresh ? constants.O_CREAT : 0) | direct);
  const shared = new SharedSync(fd);
  const appends: Record<string, Appender['append']> = {
    callbacks: async (_, bytes, offset) => {
      await callbackWrite(fd, bytes, offset);
      await datasync(fd);
    },
    shared: async (_, bytes, offset) => {
      await callbackWrite(fd, bytes, offset);
      await shared.sync();
    },
    dsync: (_, bytes, offset) => callbackWrite(fd, bytes, offset),
  };
  return {
    append: appends[kind],
    ...(kind === 'sync' && {
      appendNow: (bytes: Uint8Array, offset: number) => {
        writeSync(fd, bytes, 0, bytes.length, offset);
        fdatasyncSync(fd);
      },
    }),
    many: async (bytes, offset, count) => {
      if (kind === 'gathered') {
        const pieces = Array.from({ length: count }, () => bytes);
        await new Promise<void>((resolve, reject) => writev(fd, pieces, offset, (error) => (error ? reject(error) : resolve())));
        await datasync(fd);
        return;
      }
      for (let index = 0; index < count; index++) writeSync(fd, bytes, 0, bytes.length, offset + index * bytes.length);
      fdatasyncSync(fd);
    },
    close: async () => closeSync(fd),
  };
}

async function databaseAppender({ kind, path }: AppendJob): Promise<Appender> {
  const { lmdb, classicLevel, refusals } = loadPeers();
  mkdirSync(path);
  if (kind === 'lmdb') {
    if (!lmdb) throw new Error(refusals.lmdb);
    const database = lmdb.open(path, { encoding: 'binary', keyEncoding: 'uint32', mapSize: 8 * 1024 ** 3, maxDbs: 1 });
    return {
      append: async (_, bytes, offset) => {
        await database.put(offset / bytes.length, bytes);
        await database.flushed;
      },
      many: async (bytes, offset, count) => {
        const first = offset / bytes.length;
        for (let index = 0; index < count; index++) database.put(first + index, bytes);
        await database.put(first + count, bytes);
        await database.flushed;
      },
      close: () => database.close(),
    };
  }
  if (!classicLevel) throw new Error(refusals['classic-level']);
  const database = new classicLevel.ClassicLevel(path, { keyEncoding: 'view', valueEncoding: 'view', compression: false });
  await database.open();
  const keyOf = (number: number): Uint8Array => {
    const key = Buffer.alloc(4);
    key.writeUInt32BE(number);
    return key;
  };
  return {
    append: (_, bytes, offset) => database.put(keyOf(offset / bytes.length), bytes, { sync: true }),
    many: (bytes, offset, count) => {
      const first = offset / bytes.length;
      const operations = Array.from({ length: count }, (__, index) => ({ type: 'put' as const, key: keyOf(first + index), value: bytes }));
      return database.batch(operations, { sync: true });
    },
    close: () => database.close(),
  };
}

/** Appends from `first` on until the time is over, there is no more room, or the count is reached; where they end. */
async function appendBlocks(appender: Appender, job: AppendJob, first: number, seconds: number, count: number, latencies: Latencies): Promise<number> {
  const { writers, size } = job;
  const buffers = alignedBuffers(writers, blockBytes);
  const next = seededBytes(1);
  for (const buffer of buffers) buffer.set(next(blockBytes));
  const start = performance.now();
  let tail = first;
  const most = Math.min(size, first + count * blockBytes);
  const lane = async (writer: number): Promise<void> => {
    const bytes = buffers[writer];
    const view = new DataView(bytes.buffer, bytes.byteOffset, 4);
    for (let begun = performance.now(); tail + blockBytes <= most && begun - start < seconds * 1000; ) {
      const offset = tail;
      tail += blockBytes;
      view.setUint32(0, offset / blockBytes, true);
      if (appender.appendNow) appender.appendNow(bytes, offset);
      else await appender.append?.(writer, bytes, offset);
      const now = performance.now();
      latencies.record((now - begun) * 1000);
      begun = now;
    }
  };
  await Promise.all(buffers.map((_, writer) => lane(writer)));
  return tail;
}

/** Is each block on the device what was appended? Answers with how many are not. */
function provedBlocks(path: string, first: number, end: number): number {
  const fd = openSync(path, constants.O_RDONLY | constants.O_DIRECT);
  const step = 1 << 20;
  const [buffer] = alignedBuffers(1, step);
  const view = new DataView(buffer.buffer, buffer.byteOffset, step);
  let wrong = 0;
  try {
    for (let position = first; position < end; position += step) {
      const length = Math.min(step, end - position);
      if (readSync(fd, buffer, 0, step, position) < length) wrong++;
      for (let at = 0; at < length; at += blockBytes) if (view.getUint32(at, true) !== (position + at) / blockBytes) wrong++;
    }
  } finally {
    closeSync(fd);
  }
  return wrong;
}

async function runBlocks(appender: Appender, job: AppendJob): Promise<void> {
  const first = await appendBlocks(appender, job, 0, warmUpSeconds[job.kind === 'own' ? 'own' : 'others'], warmUpAppends, new Latencies());
  const latencies = new Latencies();
  let end = first;
  const { measured, taken } = await measureRun(job.statPath, async (): Promise<Measured> => {
    const start = performance.now();
    end = await appendBlocks(appender, job, first, job.seconds, Number.POSITIVE_INFINITY, latencies);
    return { operations: latencies.count, bytes: end - first, seconds: (performance.now() - start) / 1000, latencies, mismatches: 0 };
  });
  const notes = appender.notes?.();
  await appender.close();
  const isDatabase = job.kind === 'lmdb' || job.kind === 'level';
  const mismatches = isDatabase ? 0 : provedBlocks(job.path, 0, end);
  process.stdout.write(`${JSON.stringify(runResult({ ...measured, mismatches }, taken, notes))}\n`);
}

/** Blocks of 4096 bytes that a flush after `flushEvery` appends has something for, summed over all flushes. */
function touchedBlocks({ bytes, flushEvery, count }: NonNullable<AppendJob['small']>): number {
  let touched = 0;
  for (let start = 0; start < count * bytes; start += flushEvery * bytes) {
    touched += Math.floor((start + flushEvery * bytes - 1) / blockBytes) - Math.floor(start / blockBytes) + 1;
  }
  return touched;
}

async function runSmall(appender: Appender, job: AppendJob, small: NonNullable<AppendJob['small']>): Promise<void> {
  const { bytes, flushEvery, count } = small;
  const source = Uint8Array.from(seededBytes(2)(bytes));
  const latencies = new Latencies();
  const before = appender.notes?.();
  const { measured, taken } = await measureRun(job.statPath, async (): Promise<Measured> => {
    const start = performance.now();
    let begun = start;
    for (let done = 0; done < count; done += flushEvery) {
      await appender.many?.(source, done * bytes, flushEvery);
      const now = performance.now();
      latencies.record((now - begun) * 1000);
      begun = now;
    }
    return { operations: count, bytes: count * bytes, seconds: (performance.now() - start) / 1000, latencies, mismatches: 0 };
  });
  const after = appender.notes?.();
  await appender.close();
  const touched = touchedBlocks(small);
  const moved = taken.moved?.written ?? Number.NaN;
  // The device knows best; where others use it too, we know, and of the rest the kernel.
  const written = job.statPath === undefined && after && before ? after.deviceWriteBytes - before.deviceWriteBytes : moved;
  const notes = { ...after, touchedBlocks: touched, writtenBlocks: written / blockBytes };
  // A device keeps its size, and what was on it before behind the last append.
  const mismatches = job.fresh && job.kind !== 'lmdb' && job.kind !== 'level' && statSync(job.path).size !== count * bytes ? 1 : 0;
  process.stdout.write(`${JSON.stringify(runResult({ ...measured, mismatches: mismatches + provedSmall(job, source, count) }, taken, notes))}\n`);
}

/** Are all appends there, one after the other? */
function provedSmall({ kind, path }: AppendJob, source: Uint8Array, count: number): number {
  if (kind === 'lmdb' || kind === 'level') return 0;
  const step = 10_000;
  const expected = Buffer.concat(Array.from({ length: step }, () => source));
  const buffer = Buffer.alloc(expected.length);
  const fd = openSync(path, 'r');
  let wrong = 0;
  try {
    for (let done = 0; done < count; done += step) {
      const length = Math.min(step, count - done) * source.length;
      readSync(fd, buffer, 0, length, done * source.length);
      if (Buffer.compare(buffer.subarray(0, length), expected.subarray(0, length)) !== 0) wrong++;
    }
  } finally {
    closeSync(fd);
  }
  return wrong;
}

const job = JSON.parse(process.argv[2]) as AppendJob;
if (job.fresh) rmSync(job.path, { recursive: true, force: true });
const appender = await (job.kind === 'own' ? ownAppender(job) : job.kind === 'lmdb' || job.kind === 'level' ? databaseAppender(job) : nodeAppender(job));
if (job.small) await runSmall(appender, job, job.small);
else await runBlocks(appender, job);
if (job.fresh) rmSync(job.path, { recursive: true, force: true });
