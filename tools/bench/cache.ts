/**
 * Which blocks a cache keeps: hit rates of the frame cache and of other policies over the same traces, and what a hit and a miss cost each.
 *
 *   zipf               points by popularity: the k-th most popular block in proportion to 1/k^skew
 *   scan and points    half of the accesses are points by popularity in one half of the blocks, the others go through the other half again and again
 *   records            the same, but the scan asks for each of its blocks eight times, as a reader of records does
 *   loop               round and round over slightly more than fits
 *
 * The frame cache is asked as the library asks it: `tryPin`, else `take`, pinned while it is read. The others are as plain as they are described (`cache-policies.ts`), over the same block table.
 * Guarantees: hit rates are counted, after a first quarter of the trace, and are the same on every machine; what costs nanoseconds is measured in turns.
 */
import type { Engine, Slab } from '../../src/io/engine.js';
import { BLOCK_BYTES, BLOCK_SECTORS } from '../../src/memory/block-store.js';
import { BlockTable } from '../../src/memory/block-table.js';
import { FrameCache } from '../../src/memory/frame-cache.js';
import { FRAME_WORDS } from '../../src/memory/frame-record.js';
import { type Policy, policies } from './cache-policies.js';
import { loop, scanMixed, seeded, type Trace, zipf } from './cache-traces.js';
import { type Batch, batchContender } from './micro.js';
import { type Group, interleave, type Section, type Settings, type Target } from './report.js';

const footprint = 50_000;
const length = 500_000;
const seed = 1;
const built = 'FrameCache';
/** Operations of a batch, and frames of the caches whose misses are timed. */
const batchOperations = 1 << 12;
const missFrames = 1 << 14;
const hitMiB = [1, 64, 1024, 8192];
const framesPerMiB = 2 ** 20 / BLOCK_BYTES;
const allSectors = 0xff;

/** Something that is asked for blocks. */
interface Asked {
  /** Was it there? */
  ask(block: number): boolean;
}

/** Only its bookkeeping is asked for: there need be no memory. */
function noSlab(bytes: number): Slab {
  const nothing = new ArrayBuffer(BLOCK_BYTES);
  return { bytes, shared: nothing, private: nothing, repair: () => 0, retire: () => {}, close: () => {} };
}

function frameCache(frames: number): FrameCache {
  let slabs = 0;
  return new FrameCache({ addSlab: () => slabs++, giveBack: () => false } as unknown as Engine, noSlab, frames * BLOCK_BYTES);
}

class Built implements Asked {
  readonly cache: FrameCache;

  constructor(frames: number) {
    this.cache = frameCache(frames);
  }

  ask(block: number): boolean {
    const { cache } = this;
    const frame = cache.tryPin(block, allSectors, false);
    if (frame >= 0) {
      cache.unpinFrame(frame);
      return true;
    }
    cache.take(block, 1);
    cache.pin(block);
    cache.began(block * BLOCK_SECTORS, BLOCK_SECTORS, false);
    cache.ended(block * BLOCK_SECTORS, BLOCK_SECTORS, false, true);
    cache.unpin(block);
    return false;
  }
}

class Plain implements Asked {
  readonly #table: BlockTable;
  readonly #policy: Policy;
  readonly #blocks: Uint32Array;
  #filled = 0;

  constructor(frames: number, make: (frames: number) => Policy) {
    this.#table = new BlockTable(new Int32Array(frames * FRAME_WORDS));
    this.#policy = make(frames);
    this.#blocks = new Uint32Array(frames);
  }

  ask(block: number): boolean {
    const table = this.#table;
    const found = table.find(block);
    if (found >= 0) {
      this.#policy.hit(found);
      return true;
    }
    let frame = this.#filled;
    if (frame < this.#blocks.length) {
      this.#filled++;
    } else {
      frame = this.#policy.victim();
      this.#policy.left(frame, this.#blocks[frame]);
      table.remove(frame);
    }
    table.insert(frame, block);
    this.#blocks[frame] = block;
    this.#policy.entered(frame, block);
    return false;
  }
}

const contenders: ReadonlyArray<{ name: string; own?: boolean; make: (frames: number) => Asked }> = [
  { name: built, own: true, make: (frames) => new Built(frames) },
  ...policies.map(({ name, make }) => ({ name, make: (frames: number) => new Plain(frames, make) })),
];

/** Per cent of the accesses after the first quarter that found their block. */
function hitRate({ blocks }: Trace, asked: Asked): number {
  const from = blocks.length >>> 2;
  let hits = 0;
  for (let at = 0; at < blocks.length; at++) if (asked.ask(blocks[at]) && at >= from) hits++;
  return (100 * hits) / (blocks.length - from);
}

function rates(trace: Trace, share: number, { log }: Settings): Section {
  const frames = Math.round(trace.footprint * share);
  const title = `hits, ${trace.name}, room for ${Math.round(100 * share)} % of it`;
  const rows = contenders.map(({ name, own = false, make }) => ({ name, own, rounds: [{ value: hitRate(trace, make(frames)) }] }));
  log(`  ${title}: ${rows.map(({ name, rounds }) => `${name} ${rounds[0].value.toFixed(1)}`).join(', ')}`);
  return { title, unit: '%', rows };
}

function randomBlocks(count: number, below: number): Uint32Array {
  const random = seeded(seed);
  return Uint32Array.from({ length: count }, () => Math.floor(random() * below));
}

/** Each batch goes on where the last one ended: the same few blocks would be in the processor's caches. */
function asking(name: string, own: boolean, order: Uint32Array, asked: Asked): Batch {
  let first = 0;
  return {
    name,
    own,
    operations: batchOperations,
    run: () => {
      for (let at = first; at < first + batchOperations; at++) asked.ask(order[at]);
      first = (first + batchOperations) % order.length;
    },
  };
}

function hitName(mib: number): string {
  return `${built}, ${mib < 1024 ? `${mib} MiB` : `${mib / 1024} GiB`}`;
}

/** `tryPin` and `unpinFrame` of a random block of a cache that is full. */
function hitBatch(mib: number): Batch {
  const cache = new Built(mib * framesPerMiB);
  const blocks = mib * framesPerMiB;
  for (let block = 0; block < blocks; block++) cache.ask(block);
  return asking(hitName(mib), true, randomBlocks(1 << 20, blocks), cache);
}

async function costs(settings: Settings): Promise<Section[]> {
  const seconds = settings.seconds / 10;
  const run = (batches: Batch[]) => batches.map((batch) => batchContender(batch, seconds));
  const hits = contenders.map(({ name, own = false, make }) => {
    const asked = make(missFrames);
    for (let block = 0; block < missFrames; block++) asked.ask(block);
    return asking(name, own, randomBlocks(1 << 18, missFrames), asked);
  });
  // Few of these blocks are there when they are asked for.
  const misses = contenders.map(({ name, own = false, make }) => asking(name, own, randomBlocks(1 << 20, 1 << 24), make(missFrames)));
  return [
    await interleave('a hit, 64 MiB', 'ns', run(hits), settings),
    await interleave('a miss, and what it evicts, 64 MiB', 'ns', run(misses), settings),
    await interleave('a hit, by size of the cache', 'ns', run(hitMiB.map(hitBatch)), settings),
  ];
}

export const cache: Group = {
  name: 'cache',
  title: 'Which blocks stay in memory: hit rates and costs of ways to evict',
  async run(settings) {
    const points = zipf(footprint, length, 0.9, seed);
    const scan = scanMixed(footprint, length, 0.9, 1, seed);
    const records = scanMixed(footprint, 2 * length, 0.9, 8, seed);
    const round = loop(footprint, 2 * length);
    const sections = [
      rates(zipf(footprint, length, 0.7, seed), 0.1, settings),
      rates(points, 0.02, settings),
      rates(points, 0.1, settings),
      rates(points, 0.3, settings),
      rates(zipf(footprint, length, 1.1, seed), 0.1, settings),
      rates(scan, 0.02, settings),
      rates(scan, 0.1, settings),
      rates(scan, 0.3, settings),
      rates(records, 0.02, settings),
      rates(records, 0.1, settings),
      rates(records, 0.3, settings),
      rates(round, 0.5, settings),
      rates(round, 0.8, settings),
      rates(round, 0.91, settings),
    ];
    const counted = sections.length;
    sections.push(...(await costs(settings)));
    const margins = sections.slice(0, counted).map(({ rows }) => rows[0].rounds[0].value - rows[1].rounds[0].value);
    const targets: Target[] = [
      { text: 'hits more than CLOCK has, in the trace where it is least', measured: Math.min(...margins), unit: '% of accesses', atLeast: 0 },
    ];
    return { sections, targets };
  },
};
