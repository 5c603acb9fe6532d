/**
 * Writes a file or device once from front to end in pieces of 1 MiB, in a process of its own: `node write-run.js '<job as JSON>'` prints its result as one line of JSON.
 *
 * The run ends with one flush, in the measured time. Guarantees: what is on the device afterwards is compared with what was written, past the page cache, one block of each piece.
 */
import { closeSync, constants, fdatasync, openSync, readSync, write } from 'node:fs';
import { promisify } from 'node:util';
import { open } from '../../src/index.js';
import { alignedBuffers } from './aligned-buffers.js';
import { Latencies } from './latencies.js';
import { measureRun, runResult } from './measured-run.js';
import { seededBytes } from './pattern.js';
import { type Measured, SCAN_BYTES } from './workloads.js';

export interface WriteJob {
  kind: 'own' | 'direct' | 'cached';
  path: string;
  size: number;
  /** Pieces on their way at once. */
  depth: number;
  statPath?: string;
}

const warmUpBytes = 64 << 20;

interface Target {
  write(piece: Uint8Array, offset: number): Promise<unknown>;
  flush(): Promise<unknown>;
  close(): Promise<unknown>;
}

async function targetOf({ kind, path }: WriteJob): Promise<Target> {
  if (kind === 'own') {
    const file = await open(path, { access: 'read-write', caching: 'direct', idleMs: Number.POSITIVE_INFINITY });
    return { write: (piece, offset) => file.write(piece, offset), flush: () => file.flush(), close: () => file.close() };
  }
  const fd = openSync(path, constants.O_RDWR | (kind === 'direct' ? constants.O_DIRECT : 0));
  return {
    write: (piece, offset) =>
      new Promise<void>((resolve, reject) =>
        write(fd, piece, 0, piece.length, offset, (error, count) => (error || count < piece.length ? reject(error ?? new Error('short')) : resolve())),
      ),
    flush: () => promisify(fdatasync)(fd),
    close: async () => closeSync(fd),
  };
}

/** Pieces begin with their numbers, and a mark of the run, so that what was there before is not taken for what was written. */
async function writeAll(target: Target, { depth }: WriteJob, size: number, mark: number): Promise<Measured> {
  const pieces = alignedBuffers(depth, SCAN_BYTES);
  const next = seededBytes(5);
  for (const piece of pieces) piece.set(next(SCAN_BYTES));
  const latencies = new Latencies();
  const start = performance.now();
  let at = 0;
  const lane = async (piece: Uint8Array): Promise<void> => {
    const view = new DataView(piece.buffer, piece.byteOffset, 8);
    for (let begun = performance.now(); at + SCAN_BYTES <= size; ) {
      const offset = at;
      at += SCAN_BYTES;
      view.setUint32(0, offset / SCAN_BYTES, true);
      view.setUint32(4, mark, true);
      await target.write(piece, offset);
      const now = performance.now();
      latencies.record((now - begun) * 1000);
      begun = now;
    }
  };
  await Promise.all(pieces.map(lane));
  await target.flush();
  return { operations: latencies.count, bytes: at, seconds: (performance.now() - start) / 1000, latencies, mismatches: 0 };
}

function wrongPieces(path: string, size: number, mark: number): number {
  const fd = openSync(path, constants.O_RDONLY | constants.O_DIRECT);
  const [block] = alignedBuffers(1, 4096);
  const view = new DataView(block.buffer, block.byteOffset, 8);
  let wrong = 0;
  try {
    for (let offset = 0; offset + SCAN_BYTES <= size; offset += SCAN_BYTES) {
      readSync(fd, block, 0, 4096, offset);
      if (view.getUint32(0, true) !== offset / SCAN_BYTES || view.getUint32(4, true) !== mark) wrong++;
    }
  } finally {
    closeSync(fd);
  }
  return wrong;
}

const job = JSON.parse(process.argv[2]) as WriteJob;
const target = await targetOf(job);
await writeAll(target, job, Math.min(job.size, warmUpBytes), 0);
const mark = process.pid;
const { measured, taken } = await measureRun(job.statPath, () => writeAll(target, job, job.size, mark));
await target.close();
process.stdout.write(`${JSON.stringify(runResult({ ...measured, mismatches: wrongPieces(job.path, job.size, mark) }, taken))}\n`);
