/**
 * One measured run in a process of its own: `node reader.js '<job as JSON>'` prints its result as one line of JSON.
 *
 * Warms up its code first, on other blocks than it measures, and empties or fills the page cache where the job is about that.
 * Guarantees: a run that did not begin in the state that it is about, or whose windows showed other bytes than node:fs reads, is an error.
 */
import { closeSync, constants, openSync, readSync } from 'node:fs';
import { open as openHandle } from 'node:fs/promises';
import { type BlockFile, open } from '../../src/index.js';
import { type CpuSeconds, measureCpu } from './cpu-time.js';
import { percentile } from './latencies.js';
import { setCache } from './page-cache.js';
import { seededOrder } from './pattern.js';
import {
  type Measured,
  RANDOM_BYTES,
  type RandomPlan,
  randomCallbacks,
  randomPromises,
  randomWindows,
  scanCallbacks,
  scanStream,
  scanWindows,
} from './workloads.js';

export interface ReaderJob {
  kind: 'random-windows' | 'random-callbacks' | 'random-promises' | 'scan-windows' | 'scan-callbacks' | 'scan-stream';
  path: string;
  size: number;
  /** Past the page cache, by O_DIRECT; else through it. */
  direct: boolean;
  /** Through the page cache: what it holds of the file when the run begins. */
  cache?: 'cold' | 'warm';
  /** Scans: look at one byte of each page. */
  touch?: boolean;
  /** Random reads. */
  depth?: number;
  seconds?: number;
}

export interface ReaderResult {
  operations: number;
  bytes: number;
  seconds: number;
  /** µs */
  p50: number;
  p99: number;
  mismatches: number;
  /** Of scans: what all threads of the process took meanwhile. */
  cpu?: CpuSeconds;
}

const warmUpSeconds = 0.4;
const warmUpBytes = 64 << 20;
/** Blocks that are compared with node:fs before a run of windows. */
const provedBlocks = 256;

/** The part of the standard WebAssembly object that is used here; @types/node 20 leaves it to the browser's types. */
declare const WebAssembly: { Memory: new (limits: { initial: number }) => { readonly buffer: ArrayBuffer } };

/** Page-aligned buffers, which O_DIRECT asks for and Buffer does not give: the memory of a WebAssembly instance begins on a page. */
function alignedBuffers(count: number): Uint8Array[] {
  const memory = new WebAssembly.Memory({ initial: Math.ceil((count * RANDOM_BYTES) / 65536) });
  return Array.from({ length: count }, (_, index) => new Uint8Array(memory.buffer, index * RANDOM_BYTES, RANDOM_BYTES));
}

/** Are the bytes of windows those that node:fs reads? */
async function proveBytes(file: BlockFile, path: string, size: number): Promise<void> {
  const fd = openSync(path, 'r');
  try {
    const expected = Buffer.alloc(RANDOM_BYTES);
    for (const block of seededOrder(Math.floor(size / RANDOM_BYTES), 4).subarray(0, provedBlocks)) {
      readSync(fd, expected, 0, RANDOM_BYTES, block * RANDOM_BYTES);
      const window = await file.window(block * RANDOM_BYTES, RANDOM_BYTES);
      if (Buffer.compare(window.bytes, expected) !== 0) throw new Error(`block ${block} is not what node:fs reads`);
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
  const { size, depth = 32, seconds = 2 } = job;
  const blocks = Math.floor(size / RANDOM_BYTES);
  await run({ order: seededOrder(blocks, 2), size, depth, seconds: warmUpSeconds, repeat: true });
  await refresh();
  return run({ order: seededOrder(blocks, 3), size, depth, seconds, repeat: true });
}

/** Of the scan that was measured. */
let cpu: CpuSeconds | undefined;

async function withCpu(run: () => Promise<Measured>): Promise<Measured> {
  const ended = measureCpu();
  const measured = await run();
  cpu = ended();
  return measured;
}

async function measure(job: ReaderJob): Promise<Measured> {
  const { kind, path, size, direct, touch, depth = 32 } = job;
  const refresh = (): Promise<void> => setCache(job.cache, path, size);
  const flags = constants.O_RDONLY | (direct ? constants.O_DIRECT : 0);
  const scan = { size, touch };
  const warmUp = { ...scan, size: Math.min(size, warmUpBytes) };
  switch (kind) {
    case 'random-windows':
    case 'scan-windows': {
      const file = await open(path, { caching: direct ? 'direct' : 'page-cache' });
      const counted = (run: () => Promise<Measured>): Promise<Measured> => (direct ? fromDevice(file, run) : run());
      try {
        await proveBytes(file, path, size);
        if (kind === 'random-windows') {
          return await twice(
            job,
            (plan) => counted(() => randomWindows(file, plan)),
            () => setCache(job.cache, path, size, file),
          );
        }
        await scanWindows(file, warmUp);
        await setCache(job.cache, path, size, file);
        return await counted(() => withCpu(() => scanWindows(file, scan)));
      } finally {
        await file.close();
      }
    }
    case 'random-promises': {
      const handle = await openHandle(path, flags);
      try {
        return await twice(job, (plan) => randomPromises(handle, plan, alignedBuffers(depth)), refresh);
      } finally {
        await handle.close();
      }
    }
    case 'random-callbacks':
    case 'scan-callbacks': {
      const fd = openSync(path, flags);
      try {
        if (kind === 'random-callbacks') return await twice(job, (plan) => randomCallbacks(fd, plan, alignedBuffers(depth)), refresh);
        await scanCallbacks(fd, warmUp);
        await refresh();
        return await withCpu(() => scanCallbacks(fd, scan));
      } finally {
        closeSync(fd);
      }
    }
    case 'scan-stream':
      await scanStream(path, warmUp);
      await refresh();
      return withCpu(() => scanStream(path, scan));
  }
}

const { operations, bytes, seconds, latencies, mismatches } = await measure(JSON.parse(process.argv[2]));
const sorted = latencies.sorted();
const result: ReaderResult = { operations, bytes, seconds, p50: percentile(sorted, 50), p99: percentile(sorted, 99), mismatches, cpu };
process.stdout.write(`${JSON.stringify(result)}\n`);
