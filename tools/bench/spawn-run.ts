/**
 * A process of the group `spawn` that starts others: `node spawn-run.js '<job as JSON>'`, forked. It fills its memory, says what it holds, and then starts children whenever it is told to.
 *
 *   spawn.ts ── { seconds } ─> here ── Starts ─> spawn.ts
 *
 * It lives through all rounds: filling gigabytes takes much longer than starting a child, and both kinds of process have to take turns.
 * Guarantees: what it says to hold was asked of the kernel after filling: pages in the page table of this process.
 */
import { type ChildProcess, fork, spawn, spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import type { BlockFile } from '../../src/index.js';
import { Latencies, percentile } from './latencies.js';

export interface SpawnJob {
  /** What it holds besides Node: nothing; frames and mappings over `bytes` of both files; or Buffers of `bytes`. */
  holds: 'nothing' | 'windows' | 'buffers';
  bytes: number;
  /** How often it looks through both files: as much garbage and compiled code, whatever their size. */
  times: number;
  /** Sparse files of `bytes`: one to read directly, one through the page cache. */
  direct: string;
  mapped: string;
}

/** Bytes in the page table of this process: of frames (each is mapped twice), of the mapped file, and of everything. */
export interface Held {
  frames: number;
  mapped: number;
  all: number;
}

/** What starting children took, in ms. */
export interface Starts {
  /** spawnSync until it returned. */
  sync: Took;
  /** spawn: the call alone, during which the event loop stands still, and until 'exit'. */
  call: Took;
  exit: Took;
  /** fork of a Node.js program that does nothing, until 'exit'. */
  node: Took;
}

export interface Took {
  median: number;
  p99: number;
  count: number;
}

const program = '/bin/true';
const pageBytes = 4096;
/** Not measured: the first ones after a pause, or of all. */
const warmups = 3;
/** A child that is Node.js takes tens of milliseconds by itself. */
const nodesMin = 3;

/** Kept until the process ends. */
const kept: unknown[] = [];

/** Every block of the file, and a byte of each looked at. */
async function lookThrough(file: BlockFile, times: number): Promise<void> {
  let seen = 0;
  for (let time = 0; time < times; time++) {
    for await (const window of file.windows()) {
      const { bytes } = window;
      for (let at = 0; at < bytes.length; at += pageBytes) seen += bytes[at];
    }
  }
  if (seen !== 0) throw new Error('a sparse file is zeros');
  kept.push(file);
}

async function fill({ holds, bytes, times, direct, mapped }: SpawnJob): Promise<void> {
  if (holds === 'buffers') {
    const each = 64 * 1024 ** 2;
    for (let made = 0; made < bytes; made += each) kept.push(Buffer.alloc(each, 1));
  }
  if (holds !== 'windows') return;
  // Only here: the other processes are Node.js and nothing else.
  const { open } = await import('../../src/index.js');
  // For ever: nothing goes back to the system meanwhile.
  const idleMs = Number.POSITIVE_INFINITY;
  await lookThrough(await open(direct, { caching: 'direct', cacheSize: bytes, idleMs }), times);
  await lookThrough(await open(mapped, { idleMs }), times);
}

function held({ mapped }: SpawnJob): Held {
  const sum: Held = { frames: 0, mapped: 0, all: 0 };
  let of: 'frames' | 'mapped' | undefined;
  for (const line of readFileSync('/proc/self/smaps', 'utf8').split('\n')) {
    const resident = /^Rss:\s+(\d+) kB$/.exec(line);
    if (resident) {
      const bytes = Number(resident[1]) * 1024;
      sum.all += bytes;
      if (of !== undefined) sum[of] += bytes;
    } else if (/^[0-9a-f]+-[0-9a-f]+ /.test(line)) {
      of = line.includes('memfd:sectorwise-slab') ? 'frames' : line.endsWith(mapped) ? 'mapped' : undefined;
    }
  }
  return sum;
}

function ended(child: ChildProcess): Promise<number> {
  return new Promise((resolve, reject) => {
    child.once('error', reject);
    child.once('exit', (code, signal) => {
      if (code === 0) resolve(performance.now());
      else reject(new Error(`a child ended with ${code ?? signal}`));
    });
  });
}

function took(latencies: Latencies): Took {
  const sorted = latencies.sorted();
  return { median: percentile(sorted, 50), p99: percentile(sorted, 99), count: sorted.length };
}

/** Calls `start` for that long, and some times before. */
async function repeat(seconds: number, least: number, start: (measured: boolean) => void | Promise<void>): Promise<void> {
  for (let index = 0; index < Math.min(warmups, least); index++) await start(false);
  const end = performance.now() + seconds * 1000;
  for (let count = 0; count < least || performance.now() < end; count++) await start(true);
}

async function startChildren(seconds: number): Promise<Starts> {
  const [sync, call, exit, node] = Array.from({ length: 4 }, () => new Latencies());
  await repeat(seconds / 3, 10, (measured) => {
    const begun = performance.now();
    const { status } = spawnSync(program);
    if (status !== 0) throw new Error(`${program} ended with ${status}`);
    if (measured) sync.record(performance.now() - begun);
  });
  await repeat(seconds / 3, 10, async (measured) => {
    const begun = performance.now();
    const child = spawn(program, { stdio: 'ignore' });
    const called = performance.now();
    const over = await ended(child);
    if (!measured) return;
    call.record(called - begun);
    exit.record(over - begun);
  });
  await repeat(seconds / 3, nodesMin, async (measured) => {
    const begun = performance.now();
    const over = await ended(fork(fileURLToPath(new URL('./spawn-nothing.js', import.meta.url)), { stdio: 'ignore' }));
    if (measured) node.record(over - begun);
  });
  return { sync: took(sync), call: took(call), exit: took(exit), node: took(node) };
}

const job: SpawnJob = JSON.parse(process.argv[2]);
await fill(job);
process.on('message', ({ seconds }: { seconds: number }) => {
  startChildren(seconds).then((starts) => process.send?.(starts));
});
process.send?.(held(job));
