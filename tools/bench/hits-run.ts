/**
 * What a hit in direct frames costs, in a process of its own: `node hits-run.js '<job as JSON>'` prints two figures as one line of JSON, without and with a look at the first byte.
 *
 * The frames hold as much of the file as there is room in the cache; blocks of 4 KiB are asked for at random over all of it. A process that has no other file open is what a reader of direct windows
 * is: what V8 learns of one kind of file does not get in the way of another.
 * Guarantees: 256 blocks were compared with what node:fs reads; blocks that are missing are counted, and an error once they are more than a few.
 */
import { closeSync, constants, openSync, readSync } from 'node:fs';
import { type BlockFile, open } from '../../src/index.js';
import { alignedBuffers } from './aligned-buffers.js';
import { batchContender, heapBytesPerOperation } from './micro.js';
import { seededOrder } from './pattern.js';
import type { Figures } from './report.js';

export interface HitsJob {
  path: string;
  cacheSize: number;
  /** Of each of the two runs. */
  seconds: number;
}

const blockBytes = 4096;
const fillBytes = 1 << 20;
const batchBlocks = 1 << 13;
const provedBlocks = 256;
const missesMax = 0.001;
const heapOperations = 20_000;

let missed = 0;
let asked = 0;
/** Keeps what was read from being optimised away. */
let seen = 0;

/** Brings all of the range into the frames; what was crowded out by the rest comes again. */
async function fill(file: BlockFile, size: number): Promise<void> {
  for (let round = 0; round < 3; round++) {
    let absent = 0;
    for (let offset = 0; offset < size; offset += fillBytes) {
      const there = file.tryWindow(offset, fillBytes);
      if (!there) absent++;
      (there ?? (await file.window(offset, fillBytes))).release();
    }
    if (absent === 0) return;
  }
}

async function prove(file: BlockFile, path: string, order: Uint32Array): Promise<void> {
  const fd = openSync(path, constants.O_RDONLY | constants.O_DIRECT);
  const [expected] = alignedBuffers(1, blockBytes);
  try {
    for (const block of order.subarray(0, provedBlocks)) {
      readSync(fd, expected, 0, blockBytes, block * blockBytes);
      const window = await file.window(block * blockBytes, blockBytes);
      if (Buffer.compare(window.bytes, expected) !== 0) throw new Error(`block ${block} is not what node:fs reads`);
      window.release();
    }
  } finally {
    closeSync(fd);
  }
}

function hit(file: BlockFile, blocks: Uint32Array): void {
  for (let index = 0; index < blocks.length; index++) {
    const window = file.tryWindow(blocks[index] * blockBytes, blockBytes);
    if (window) window.release();
    else missed++;
  }
  asked += blocks.length;
}

function hitAndLook(file: BlockFile, blocks: Uint32Array): void {
  for (let index = 0; index < blocks.length; index++) {
    const window = file.tryWindow(blocks[index] * blockBytes, blockBytes);
    if (window) {
      seen += window.bytes[0];
      window.release();
    } else missed++;
  }
  asked += blocks.length;
}

async function run({ path, cacheSize, seconds }: HitsJob): Promise<Figures[]> {
  // Reading ahead of the last block that there is room for would push others out.
  const file = await open(path, { caching: 'direct', cacheSize, idleMs: Number.POSITIVE_INFINITY, readAhead: false });
  try {
    const order = seededOrder(cacheSize / blockBytes, 5);
    await fill(file, cacheSize);
    await prove(file, path, order);
    let first = 0;
    const next = (): Uint32Array => {
      const part = order.subarray(first, first + batchBlocks);
      first = (first + batchBlocks) % order.length;
      return part;
    };
    const figures: Figures[] = [];
    for (const act of [hit, hitAndLook]) {
      const batch = { name: 'hit', operations: batchBlocks, run: () => act(file, next()) };
      const measured = await batchContender(batch, seconds).run();
      const heapBytes = heapBytesPerOperation(heapOperations, () => act(file, order.subarray(0, heapOperations)));
      figures.push({ ...measured, notes: { heapBytes } });
    }
    if (missed > asked * missesMax) throw new Error(`${missed} of ${asked} blocks were not in the frames`);
    if (seen < 0) throw new Error('bytes are never negative');
    for (const { notes } of figures) if (notes) notes.missed = missed;
    return figures;
  } finally {
    await file.close();
  }
}

process.stdout.write(`${JSON.stringify(await run(JSON.parse(process.argv[2]) as HitsJob))}\n`);
