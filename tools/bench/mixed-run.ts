/**
 * One run of random reads and writes of 4 KiB in a process of its own: `node mixed-run.js '<job as JSON>'` prints its result as one line of JSON.
 *
 * 70 of 100 operations read, by a seeded choice; each block is visited once, so that no read is answered by what was read or written before. Writes end when their bytes were taken; the run ends with one
 * flush, in the measured time, so that everything is durable by then. Latencies are those of the reads.
 * Guarantees: what was read came from the device; the bytes of 256 of the blocks that were written are read back afterwards, past the page cache, and compared.
 */
import { closeSync, constants, fdatasync, openSync, read, readSync, write } from 'node:fs';
import { promisify } from 'node:util';
import { open } from '../../src/index.js';
import { alignedBuffers } from './aligned-buffers.js';
import { Latencies } from './latencies.js';
import { measureRun, runResult } from './measured-run.js';
import { seededBytes, seededOrder } from './pattern.js';
import type { Measured } from './workloads.js';

export interface MixedJob {
  kind: 'own' | 'callbacks';
  path: string;
  size: number;
  depth: number;
  seconds: number;
  /** Own: also a flush each time that so many milliseconds have passed. */
  flushMs?: number;
  statPath?: string;
}

const blockBytes = 4096;
const readPercent = 70;
const warmUpSeconds = { own: 1, callbacks: 0.3 };
const warmUpOperations = 30_000;
const provedBlocks = 256;
/** Of the bytes that were read, the device has to have moved as much as this. */
const movedLeast = 0.98;

/** What one contender does with a block; `index` is the lane that asks. */
interface Store {
  read(index: number, offset: number): Promise<number>;
  write(index: number, bytes: Uint8Array, offset: number): Promise<unknown>;
  flush(): Promise<unknown>;
  notes(): Record<string, number>;
  close(): Promise<unknown>;
}

async function ownStore({ path, depth }: MixedJob): Promise<Store> {
  const file = await open(path, { access: 'read-write', caching: 'direct', idleMs: Number.POSITIVE_INFINITY, queueDepth: Math.max(128, depth) });
  return {
    read: async (_, offset) => {
      const window = await file.window(offset, blockBytes);
      const byte = window.bytes[0];
      window.release();
      return byte;
    },
    write: (_, bytes, offset) => file.write(bytes, offset),
    flush: () => file.flush(),
    notes: () => ({ deviceReads: file.stats.deviceReads, deviceWrites: file.stats.deviceWrites, deviceWriteBytes: file.stats.deviceWriteBytes }),
    close: () => file.close(),
  };
}

function nodeStore({ path, depth }: MixedJob): Store {
  const fd = openSync(path, constants.O_RDWR | constants.O_DIRECT);
  const buffers = alignedBuffers(depth, blockBytes);
  return {
    read: (index, offset) =>
      new Promise((resolve, reject) => {
        const buffer = buffers[index];
        read(fd, buffer, 0, blockBytes, offset, (error) => (error ? reject(error) : resolve(buffer[0])));
      }),
    write: (_, bytes, offset) =>
      new Promise<void>((resolve, reject) => write(fd, bytes, 0, blockBytes, offset, (error) => (error ? reject(error) : resolve()))),
    flush: () => promisify(fdatasync)(fd),
    notes: () => ({}),
    close: async () => closeSync(fd),
  };
}

/** Visits the blocks of an order until it or the time is over; `written` gets those that were written. */
async function visit(store: Store, job: MixedJob, order: Uint32Array, seconds: number, latencies: Latencies, written: number[]): Promise<Measured> {
  const { depth, flushMs } = job;
  const sources = alignedBuffers(depth, blockBytes);
  const next = seededBytes(9);
  for (const source of sources) source.set(next(blockBytes));
  let state = 7;
  const isRead = (): boolean => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return (state >>> 8) % 100 < readPercent;
  };
  const start = performance.now();
  const end = start + seconds * 1000;
  let at = 0;
  let sum = 0;
  let flushing: Promise<unknown> = Promise.resolve();
  const timer = flushMs === undefined ? undefined : setInterval(() => (flushing = Promise.all([flushing, store.flush()])), flushMs);
  const lane = async (index: number): Promise<void> => {
    const source = sources[index];
    const view = new DataView(source.buffer, source.byteOffset, 4);
    for (let begun = performance.now(); at < order.length && begun < end; ) {
      const block = order[at++];
      if (isRead()) {
        sum += await store.read(index, block * blockBytes);
        const now = performance.now();
        latencies.record((now - begun) * 1000);
        begun = now;
      } else {
        view.setUint32(0, block, true);
        written.push(block);
        await store.write(index, source, block * blockBytes);
        begun = performance.now();
      }
    }
  };
  await Promise.all(sources.map((_, index) => lane(index)));
  clearInterval(timer);
  await flushing;
  await store.flush();
  return { operations: at, bytes: at * blockBytes, seconds: (performance.now() - start) / 1000, latencies, mismatches: sum >= 0 ? 0 : 1 };
}

function wrongBlocks(path: string, written: readonly number[]): number {
  const fd = openSync(path, constants.O_RDONLY | constants.O_DIRECT);
  const [buffer] = alignedBuffers(1, blockBytes);
  const view = new DataView(buffer.buffer, buffer.byteOffset, 4);
  let wrong = 0;
  try {
    for (let index = 0; index < written.length; index += Math.ceil(written.length / provedBlocks)) {
      readSync(fd, buffer, 0, blockBytes, written[index] * blockBytes);
      if (view.getUint32(0, true) !== written[index]) wrong++;
    }
  } finally {
    closeSync(fd);
  }
  return wrong;
}

const job = JSON.parse(process.argv[2]) as MixedJob;
const blocks = Math.floor(job.size / blockBytes);
const store = job.kind === 'own' ? await ownStore(job) : nodeStore(job);
const order = seededOrder(blocks, 3);
// Warming up takes from the end of the order, the measured run from its beginning: no block is visited twice.
const first = Math.max(blocks - warmUpOperations, Math.ceil(blocks / 2));
await visit(store, job, order.subarray(first), warmUpSeconds[job.kind], new Latencies(), []);
const latencies = new Latencies();
const written: number[] = [];
const { measured, taken } = await measureRun(job.statPath, () => visit(store, job, order.subarray(0, first), job.seconds, latencies, written));
const notes = { ...store.notes(), writes: written.length };
await store.close();
const { moved } = taken;
const readBytes = latencies.count * blockBytes;
if (moved && moved.read < readBytes * movedLeast) throw new Error(`${readBytes} bytes were read, but only ${moved.read} came from the device`);
const mismatches = measured.mismatches + wrongBlocks(job.path, written);
process.stdout.write(`${JSON.stringify(runResult({ ...measured, mismatches }, taken, notes))}\n`);
