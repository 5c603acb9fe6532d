/**
 * One run of the group `memory` in a process of its own: `node memory-run.js '<job as JSON>'` prints its result as one line of JSON.
 *
 * Random blocks of a file of which the page cache holds everything, or which is read from the device (frames take 64 MiB of it, so that most windows of a direct run are).
 * RssAnon is taken as `Anonymous` of /proc/self/smaps_rollup: the same pages, counted one by one, where the counter of /proc/self/status may be
 * behind by some hundred pages for each processor.
 */
import { readFileSync } from 'node:fs';
import { type BlockFile, open } from '../../src/index.js';
import { setCache } from './page-cache.js';
import { seededOrder } from './pattern.js';

export interface MemoryJob {
  path: string;
  size: number;
  windows: number;
  direct: boolean;
  /** Look at a byte of each window. */
  touch: boolean;
}

export interface MemoryResult {
  beforeBytes: number;
  /** Above `before`, at the end. */
  endBytes: number;
  /** Above `before`, the most of what was seen on the way. */
  peakBytes: number;
  seconds: number;
}

const blockBytes = 4096;
/** Asked for at once, where they have to wait. */
const depth = 64;
const samples = 50;

let seen = 0;

function anonymousBytes(): number {
  const line = /^Anonymous:\s+(\d+) kB$/m.exec(readFileSync('/proc/self/smaps_rollup', 'utf8'));
  if (!line) throw new Error('/proc/self/smaps_rollup does not say what is anonymous');
  return Number(line[1]) * 1024;
}

/** Opens and releases `count` windows over `order`, beginning at `first`. */
async function openAndRelease(file: BlockFile, order: Uint32Array, first: number, count: number, touch: boolean): Promise<void> {
  let next = first;
  const end = first + count;
  const lane = async (): Promise<void> => {
    while (next < end) {
      const offset = order[next++ % order.length] * blockBytes;
      const window = file.tryWindow(offset, blockBytes) ?? (await file.window(offset, blockBytes));
      if (touch) seen += window.bytes[0];
      window.release();
    }
  };
  await Promise.all(Array.from({ length: depth }, lane));
}

async function measure({ path, size, windows, direct, touch }: MemoryJob): Promise<MemoryResult> {
  const file = await open(path, { caching: direct ? 'direct' : 'page-cache' });
  try {
    if (!direct) await setCache('warm', path, size, file);
    const order = seededOrder(size / blockBytes, 3);
    const beforeBytes = anonymousBytes();
    const begun = performance.now();
    let peakBytes = 0;
    let endBytes = 0;
    const step = windows / samples;
    for (let done = 0; done < windows; done += step) {
      await openAndRelease(file, order, done, step, touch);
      endBytes = anonymousBytes() - beforeBytes;
      peakBytes = Math.max(peakBytes, endBytes);
    }
    const { immediate, delayed } = file.stats;
    if (immediate + delayed < windows) throw new Error(`${windows} windows were to be opened, but only ${immediate + delayed} were`);
    if (seen < 0) throw new Error('bytes are never negative');
    return { beforeBytes, endBytes, peakBytes, seconds: (performance.now() - begun) / 1000 };
  } finally {
    await file.close();
  }
}

process.stdout.write(`${JSON.stringify(await measure(JSON.parse(process.argv[2])))}\n`);
