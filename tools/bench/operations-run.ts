/**
 * One run of many operations for the group `memory`, in a process of its own: `node operations-run.js '<job as JSON>'` prints its result as one line of JSON.
 *
 *   of each 10,000   9,750 windows over a small part of the file, which stays in memory; 200 random ones over all of it, most of which have to be read and push others out;
 *                    50 writes of up to 4 KiB; then a flush, and through the page cache 4 MiB that are evicted
 *
 * Pss is that of /proc/self/smaps, without pages of the file in the page cache: those are the kernel's, which takes them when it wants. Pages of programs count in full, before and after: how many other
 * processes share Node.js itself at the moment is not this one's doing. Nothing is collected by hand.
 * Guarantees: what an idle Node.js takes is this process's own Pss before it loads the library; as many operations were done as are said.
 */
import { readFileSync } from 'node:fs';
import { seededOrder } from './pattern.js';

export interface OperationsJob {
  path: string;
  size: number;
  direct: boolean;
  cacheBytes: number;
  operations: number;
}

export interface OperationsResult {
  idleBytes: number;
  /** Pss without the idle Node's and the cache, at the end and at most. */
  endBytes: number;
  peakBytes: number;
  samples: number[];
  seconds: number;
  reads: number;
  evictions: number;
  writes: number;
  flushes: number;
}

const blockBytes = 4096;
const perRound = 10_000;
const missesInRound = 200;
const writesInRound = 50;
const hotBytes = 8 * 1024 ** 2;
const evictBytes = 4 * 1024 ** 2;
/** Callers at once. */
const depth = 64;
const samplesWanted = 40;

function pssBytes(path: string): number {
  let sum = 0;
  let counted = /^Pss:\s+(\d+) kB/;
  for (const line of readFileSync('/proc/self/smaps', 'utf8').split('\n')) {
    const [, name] = /^[0-9a-f]+-[0-9a-f]+ \S+ \S+ \S+ \S+\s*(.*)$/.exec(line) ?? [];
    if (name === path) counted = /^Anonymous:\s+(\d+) kB/;
    else if (name?.startsWith('/') && !name.startsWith('/memfd:')) counted = /^Rss:\s+(\d+) kB/;
    else if (name !== undefined) counted = /^Pss:\s+(\d+) kB/;
    const [, kilobytes] = counted.exec(line) ?? [];
    if (kilobytes !== undefined) sum += Number(kilobytes) * 1024;
  }
  return sum;
}

async function measure({ path, size, direct, cacheBytes, operations }: OperationsJob): Promise<OperationsResult> {
  const order = seededOrder(size / blockBytes, 5);
  const content = Buffer.alloc(2 * blockBytes, 0x5a);
  const idleBytes = pssBytes(path);
  const { open } = await import('../../src/index.js');
  const file = await open(path, { access: 'read-write', caching: direct ? 'direct' : 'page-cache', cacheSize: cacheBytes });
  const samples: number[] = [];
  const begun = performance.now();
  let done = 0;
  let writes = 0;
  let flushes = 0;
  let seen = 0;
  const hotBlocks = hotBytes / blockBytes;

  const lane = async (end: number): Promise<void> => {
    while (done < end) {
      const turn = done++;
      const place = turn % perRound;
      const random = order[turn % order.length];
      if (place < writesInRound) {
        writes++;
        await file.write(content.subarray(0, 1 + (random % blockBytes)), random * blockBytes + (turn % 64));
      } else {
        const missing = place < writesInRound + missesInRound;
        const offset = (missing ? random : random % hotBlocks) * blockBytes;
        const window = file.tryWindow(offset, blockBytes) ?? (await file.window(offset, blockBytes));
        seen += window.bytes[0];
        window.release();
      }
    }
  };

  try {
    const every = Math.max(perRound, Math.floor(operations / samplesWanted / perRound) * perRound);
    for (let end = perRound; end <= operations; end += perRound) {
      await Promise.all(Array.from({ length: depth }, () => lane(end)));
      await file.flush();
      flushes++;
      if (!direct) await file.evict(((end / perRound) * evictBytes) % size, evictBytes);
      if (end % every === 0) samples.push(pssBytes(path) - idleBytes - (direct ? cacheBytes : 0));
    }
    if (done < operations) throw new Error(`${operations} operations were to be done, but only ${done} were`);
    if (seen < 0) throw new Error('bytes are never negative');
    const { deviceReads, evictions } = file.stats;
    const endBytes = samples[samples.length - 1];
    const seconds = (performance.now() - begun) / 1000;
    return { idleBytes, endBytes, peakBytes: Math.max(...samples), samples, seconds, reads: deviceReads, evictions, writes, flushes };
  } finally {
    await file.close();
  }
}

process.stdout.write(`${JSON.stringify(await measure(JSON.parse(process.argv[2])))}\n`);
