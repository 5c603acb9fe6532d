/**
 * One measured run in a process of its own: `node reader.js '<job as JSON>'` prints its result as one line of JSON.
 *
 * Warms up its code first, on other blocks than it measures, and empties or fills the page cache where the job is about that.
 */
import { closeSync, constants, openSync } from 'node:fs';
import { open as openHandle } from 'node:fs/promises';
import { open } from '../../src/index.js';
import { percentile } from './latencies.js';
import { dropCached, dropUnopened, readThrough } from './page-cache.js';
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
}

const warmUpSeconds = 0.4;
const warmUpBytes = 64 << 20;

/** The part of the standard WebAssembly object that is used here; @types/node 20 leaves it to the browser's types. */
declare const WebAssembly: { Memory: new (limits: { initial: number }) => { readonly buffer: ArrayBuffer } };

/** Page-aligned buffers, which O_DIRECT asks for and Buffer does not give: the memory of a WebAssembly instance begins on a page. */
function alignedBuffers(count: number): Uint8Array[] {
  const memory = new WebAssembly.Memory({ initial: Math.ceil((count * RANDOM_BYTES) / 65536) });
  return Array.from({ length: count }, (_, index) => new Uint8Array(memory.buffer, index * RANDOM_BYTES, RANDOM_BYTES));
}

async function setCache(job: ReaderJob): Promise<void> {
  if (job.cache === 'cold') await dropUnopened(job.path, job.size);
  if (job.cache === 'warm') await readThrough(job.path, job.size);
}

/** Two runs: the first, short and over other blocks, compiles the code. */
async function twice(job: ReaderJob, run: (plan: RandomPlan) => Promise<Measured>, refresh: () => Promise<void>): Promise<Measured> {
  const { size, depth = 32, seconds = 2 } = job;
  const blocks = Math.floor(size / RANDOM_BYTES);
  await run({ order: seededOrder(blocks, 2), size, depth, seconds: warmUpSeconds, repeat: true });
  await refresh();
  return run({ order: seededOrder(blocks, 3), size, depth, seconds, repeat: true });
}

async function measure(job: ReaderJob): Promise<Measured> {
  const { kind, path, size, direct, depth = 32 } = job;
  const refresh = (): Promise<void> => setCache(job);
  const flags = constants.O_RDONLY | (direct ? constants.O_DIRECT : 0);
  const warmUp = { size: Math.min(size, warmUpBytes) };
  switch (kind) {
    case 'random-windows':
    case 'scan-windows': {
      const file = await open(path, { caching: direct ? 'direct' : 'page-cache' });
      try {
        const refreshOpened = async (): Promise<void> => {
          if (job.cache === 'cold') await dropCached(file, path, size);
          else await setCache(job);
        };
        if (kind === 'random-windows') return await twice(job, (plan) => randomWindows(file, plan), refreshOpened);
        await scanWindows(file, warmUp);
        if (direct) await file.evict(0, size);
        await refreshOpened();
        return await scanWindows(file, { size });
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
        return await scanCallbacks(fd, { size });
      } finally {
        closeSync(fd);
      }
    }
    case 'scan-stream':
      await scanStream(path, warmUp);
      await refresh();
      return scanStream(path, { size });
  }
}

const { operations, bytes, seconds, latencies, mismatches } = await measure(JSON.parse(process.argv[2]));
const sorted = latencies.sorted();
const result: ReaderResult = { operations, bytes, seconds, p50: percentile(sorted, 50), p99: percentile(sorted, 99), mismatches };
process.stdout.write(`${JSON.stringify(result)}\n`);
