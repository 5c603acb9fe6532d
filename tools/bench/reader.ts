/**
 * One measured run in a process of its own: `node reader.js '<job as JSON>'` prints its result as one line of JSON.
 *
 * Warms up its code first, on other blocks than it measures, and empties or fills the page cache where the job is about that.
 * Guarantees: a run that did not begin in the state that it is about, or whose windows showed other bytes than node:fs reads, is an error.
 */
import { closeSync, constants, openSync, readSync } from 'node:fs';
import { open as openHandle } from 'node:fs/promises';
import { type BlockFile, open } from '../../src/index.js';
import { alignedBuffers } from './aligned-buffers.js';
import { measureRun, type RunResult, runResult, type Taken } from './measured-run.js';
import { setCache } from './page-cache.js';
import { seededOrder } from './pattern.js';
import {
  type Measured,
  RANDOM_BYTES,
  type RandomPlan,
  randomCallbacks,
  randomPromises,
  randomSync,
  randomWindows,
  SCAN_BYTES,
  scanCallbacks,
  scanStream,
  scanWindows,
} from './workloads.js';

export interface ReaderJob {
  kind: 'random-windows' | 'random-callbacks' | 'random-promises' | 'random-sync' | 'scan-windows' | 'scan-callbacks' | 'scan-stream';
  path: string;
  size: number;
  /** Past the page cache, by O_DIRECT; else through it. */
  direct: boolean;
  /** Through the page cache: what it holds of the file when the run begins. */
  cache?: 'cold' | 'warm';
  /** Scans: look at one byte of each page. */
  touch?: boolean;
  /** Random reads; of scans by callbacks, how many steps are on their way at once. */
  depth?: number;
  seconds?: number;
  /** Bytes of a random read; 4096 unless said. */
  bytes?: number;
  /** Random windows: what is looked at. The first byte unless said. */
  look?: 'byte' | 'length';
  /** Windows: read-ahead off. */
  noReadAhead?: boolean;
  /** Whose aligned buffers node:fs reads into: our stand-in unless said. */
  buffers?: 'ronomon';
  /** The counts of a device that nobody else uses, if it lies on one. */
  statPath?: string;
}

/** Random runs warm up with so many reads, of no more than so many bytes, and not for longer than this: there is more to compile of ours than of what calls fs.read. */
const warmUpReads = 30_000;
const warmUpBytes = 64 << 20;
const warmUpSeconds = { own: 1, node: 0.3 };
/** Blocks that are compared with node:fs before a run of windows, but no more than so many bytes. */
const provedBlocks = 256;
const provedBytes = 16 << 20;
/** Of the bytes that direct reads showed, the device has to have moved as much as this. */
const movedLeast = 0.98;

/** Are the bytes of windows those that node:fs reads? Past the page cache where the windows are, so that nothing is left in it. */
async function proveBytes(file: BlockFile, { path, size, direct, bytes = RANDOM_BYTES }: ReaderJob): Promise<void> {
  const fd = openSync(path, constants.O_RDONLY | (direct ? constants.O_DIRECT : 0));
  try {
    const [expected] = alignedBuffers(1, bytes);
    for (const block of seededOrder(Math.floor(size / bytes), 4).subarray(0, Math.min(provedBlocks, provedBytes / bytes))) {
      readSync(fd, expected, 0, bytes, block * bytes);
      const window = await file.window(block * bytes, bytes);
      if (Buffer.compare(window.bytes, expected) !== 0) throw new Error(`the ${bytes} bytes at ${block * bytes} are not what node:fs reads`);
      window.release();
    }
  } finally {
    closeSync(fd);
  }
}

/** One measured run of windows that begins with empty frames: all that it shows has to come from the device meanwhile. */
async function fromDevice(file: BlockFile, run: () => Promise<Measured>): Promise<Measured> {
  await file.evict(0, file.size);
  const before = file.stats.deviceReadBytes;
  const measured = await run();
  const read = file.stats.deviceReadBytes - before;
  if (read < measured.bytes) throw new Error(`${measured.bytes} bytes were shown, but only ${read} read from the device`);
  return measured;
}

/** Two runs: the first, short and over other blocks, compiles the code. */
async function twice(job: ReaderJob, run: (plan: RandomPlan) => Promise<Measured>, refresh: () => Promise<void>): Promise<Measured> {
  const { kind, size, depth = 32, seconds = 2, bytes = RANDOM_BYTES, look } = job;
  const blocks = Math.floor(size / bytes);
  const first = seededOrder(blocks, 2).subarray(0, Math.min(warmUpReads, (8 * warmUpBytes) / bytes));
  await run({ bytes, look, order: first, size, depth, seconds: warmUpSeconds[kind === 'random-windows' ? 'own' : 'node'] });
  await refresh();
  // Each block once: a second visit might be answered by what the first one read.
  const order = seededOrder(blocks, 3);
  return counted(job, () => run({ bytes, look, order, size, depth, seconds }));
}

/** What the run that was measured took. */
let taken: Taken | undefined;

/** The measured run: what it took, and that direct reads came from the device. */
async function counted({ direct, statPath }: ReaderJob, run: () => Promise<Measured>): Promise<Measured> {
  const done = await measureRun(statPath, run);
  taken = done.taken;
  const { measured } = done;
  const { moved } = taken;
  if (direct && moved && moved.read < measured.bytes * movedLeast) {
    throw new Error(`${measured.bytes} bytes were shown, but only ${moved.read} came from the device`);
  }
  return measured;
}

async function measure(job: ReaderJob): Promise<Measured> {
  const { kind, path, size, direct, touch, depth = 32, bytes = RANDOM_BYTES, buffers } = job;
  const refresh = (): Promise<void> => setCache(job.cache, path, size);
  const flags = constants.O_RDONLY | (direct ? constants.O_DIRECT : 0);
  const scan = { size, touch };
  const warmUp = { ...scan, size: Math.min(size, warmUpBytes) };
  switch (kind) {
    case 'random-windows':
    case 'scan-windows': {
      const options = { queueDepth: Math.max(128, depth), ...(job.noReadAhead ? { readAhead: false as const } : {}) };
      const file = await open(path, direct ? { ...options, caching: 'direct', idleMs: Number.POSITIVE_INFINITY } : options);
      const fresh = (run: () => Promise<Measured>): Promise<Measured> => (direct ? fromDevice(file, run) : run());
      try {
        await proveBytes(file, job);
        if (kind === 'random-windows') {
          return await twice(
            job,
            (plan) => fresh(() => randomWindows(file, plan)),
            () => setCache(job.cache, path, size, file),
          );
        }
        await scanWindows(file, warmUp);
        await setCache(job.cache, path, size, file);
        return await fresh(() => counted(job, () => scanWindows(file, scan)));
      } finally {
        await file.close();
      }
    }
    case 'random-promises': {
      const handle = await openHandle(path, flags);
      try {
        return await twice(job, (plan) => randomPromises(handle, plan, alignedBuffers(depth, bytes, buffers)), refresh);
      } finally {
        await handle.close();
      }
    }
    case 'random-callbacks':
    case 'random-sync':
    case 'scan-callbacks': {
      const fd = openSync(path, flags);
      try {
        if (kind === 'random-callbacks') return await twice(job, (plan) => randomCallbacks(fd, plan, alignedBuffers(depth, bytes, buffers)), refresh);
        if (kind === 'random-sync') return await twice(job, (plan) => randomSync(fd, plan, alignedBuffers(1, bytes, buffers)[0]), refresh);
        const steps = alignedBuffers(job.depth ?? 1, SCAN_BYTES, buffers);
        await scanCallbacks(fd, warmUp, steps);
        await refresh();
        return await counted(job, () => scanCallbacks(fd, scan, steps));
      } finally {
        closeSync(fd);
      }
    }
    case 'scan-stream':
      await scanStream(path, warmUp);
      await refresh();
      return counted(job, () => scanStream(path, scan));
  }
}

const measured = await measure(JSON.parse(process.argv[2]));
if (!taken) throw new Error('the run was not measured');
const result: RunResult = runResult(measured, taken);
process.stdout.write(`${JSON.stringify(result)}\n`);
