/**
 * One run of the group `stall` in a process of its own: `node stall-run.js '<job as JSON>'` prints its result as one line of JSON.
 *
 * Joins the control group that is slowed down, warms up on other blocks than it measures, empties the page cache and proves it, and watches the event loop in two ways at once.
 */
import { closeSync, openSync, readFileSync, writeFileSync } from 'node:fs';
import { createHistogram, monitorEventLoopDelay } from 'node:perf_hooks';
import { setImmediate as nextTurn, setTimeout as pause } from 'node:timers/promises';
import { type BlockFile, open } from '../../src/index.js';
import { Latencies, percentile } from './latencies.js';
import { setCache } from './page-cache.js';
import { seededOrder } from './pattern.js';
import { loadPeers } from './peer-packages.js';
import type { ThrottledFile } from './throttled-device.js';

export interface StallJob extends ThrottledFile {
  kind: 'nothing' | 'windows' | 'direct-windows' | 'mapped-one' | 'mapped-all';
  size: number;
  blocks: number;
  depth: number;
}

export interface StallResult {
  seconds: number;
  /** ms beyond the resolution, by perf_hooks. */
  delayMax: number;
  delayP99: number;
  /** ms between two turns of the loop. */
  gapMax: number;
  gapP99: number;
  gapsAbove2ms: number;
  /** µs from asking to having. */
  p50: number;
  p99: number;
  deviceReads: number;
  deviceReadBytes: number;
}

const blockBytes = 4096;
const warmUpBlocks = 1000;
/** Of a loop that has nothing to do. */
const nothingMs = 2000;
const resolutionMs = 1;

let seen = 0;

/** Touches or asks for each of the blocks, and notes how long each took. */
type Work = (order: Uint32Array, latencies: Latencies) => Promise<void>;

function windowsOf(file: BlockFile, depth: number): Work {
  return async (order, latencies) => {
    let next = 0;
    const lane = async (): Promise<void> => {
      while (next < order.length) {
        const asked = performance.now();
        const window = await file.window(order[next++] * blockBytes, blockBytes);
        seen += window.bytes[0];
        latencies.record((performance.now() - asked) * 1000);
        window.release();
      }
    };
    await Promise.all(Array.from({ length: depth }, lane));
  };
}

function touchesOf(view: Buffer, perTurn: number): Work {
  return async (order, latencies) => {
    for (let index = 0; index < order.length; index++) {
      const asked = performance.now();
      seen += view[order[index] * blockBytes];
      latencies.record((performance.now() - asked) * 1000);
      if (index % perTurn === perTurn - 1) await nextTurn();
    }
  };
}

/** Calls itself in every turn; what lies between two calls is a turn of the loop, whatever took it. */
function recordGaps(): () => { max: number; p99: number; above2ms: number } {
  const histogram = createHistogram();
  let above2ms = 0;
  let running = true;
  let last = performance.now();
  const turn = (): void => {
    const now = performance.now();
    const gap = now - last;
    last = now;
    // Whole microseconds from 1.
    histogram.record(Math.max(1, Math.round(gap * 1000)));
    if (gap > 2) above2ms++;
    if (running) setImmediate(turn);
  };
  setImmediate(turn);
  return () => {
    running = false;
    return { max: histogram.max / 1000, p99: histogram.percentile(99) / 1000, above2ms };
  };
}

/** Reads that the device did, and their bytes: the first and third figures of its `stat` (Documentation/block/stat.rst), the latter in sectors of 512. */
function deviceCounts(statPath: string): [number, number] {
  const [reads, , sectors] = readFileSync(statPath, 'utf8').trim().split(/\s+/).map(Number);
  return [reads, sectors * 512];
}

async function watch(job: StallJob, work: Work, order: Uint32Array): Promise<StallResult> {
  const latencies = new Latencies();
  const delays = monitorEventLoopDelay({ resolution: resolutionMs });
  // Both have run for some turns before anything counts.
  delays.enable();
  const stopWarmUp = recordGaps();
  await pause(50);
  stopWarmUp();
  await nextTurn();
  delays.reset();
  const [readsBefore, bytesBefore] = deviceCounts(job.statPath);
  const stop = recordGaps();
  const begun = performance.now();
  await work(order, latencies);
  const seconds = (performance.now() - begun) / 1000;
  // The turn that is running now belongs to it.
  await nextTurn();
  const gaps = stop();
  delays.disable();
  const [reads, bytes] = deviceCounts(job.statPath);
  const sorted = latencies.sorted();
  return {
    seconds,
    delayMax: Math.max(0, delays.max / 1e6 - resolutionMs),
    delayP99: Math.max(0, delays.percentile(99) / 1e6 - resolutionMs),
    gapMax: gaps.max,
    gapP99: gaps.p99,
    gapsAbove2ms: gaps.above2ms,
    p50: percentile(sorted, 50),
    p99: percentile(sorted, 99),
    deviceReads: reads - readsBefore,
    deviceReadBytes: bytes - bytesBefore,
  };
}

async function measure(job: StallJob): Promise<StallResult> {
  const { kind, path, size, blocks, depth } = job;
  writeFileSync(job.groupPath, String(process.pid));
  const order = seededOrder(size / blockBytes, 7);
  const measured = order.subarray(0, blocks);
  const others = order.subarray(blocks, blocks + warmUpBlocks);
  switch (kind) {
    case 'nothing':
      return watch(job, async () => void (await pause(nothingMs)), measured);
    case 'windows':
    case 'direct-windows': {
      const file = await open(path, { caching: kind === 'windows' ? 'page-cache' : 'direct' });
      try {
        const work = windowsOf(file, depth);
        await work(others, new Latencies());
        if (kind === 'windows') await setCache('cold', path, size, file);
        return await watch(job, work, measured);
      } finally {
        await file.close();
      }
    }
    case 'mapped-one':
    case 'mapped-all': {
      const { mmapIo, refusals } = loadPeers();
      if (!mmapIo) throw new Error(refusals['mmap-io']);
      const fd = openSync(path, 'r');
      try {
        // Before it is mapped: the kernel drops no page that is. Without MADV_RANDOM each touch would read what lies around it, too.
        await setCache('cold', path, size);
        const view = mmapIo.map(size, mmapIo.PROT_READ, mmapIo.MAP_SHARED, fd, 0, mmapIo.MADV_RANDOM);
        const work = touchesOf(view, kind === 'mapped-one' ? 1 : depth);
        await work(others, new Latencies());
        return await watch(job, work, measured);
      } finally {
        closeSync(fd);
      }
    }
  }
}

const result = await measure(JSON.parse(process.argv[2]));
if (seen < 0) throw new Error('bytes are never negative');
process.stdout.write(`${JSON.stringify(result)}\n`);
