/**
 * What the request tracker costs by itself: no device, no memory that moves, no promise, no window.
 *
 * - **Completing.** A manager with 32 or 4,096 requests pending, of 64 sectors or of 64 blocks each. Timed is `RequestManager.complete` for the operations of the sixteen that were asked first, in a
 *   shuffled order (a device overtakes within the depth of its ring, 128, and not beyond): from the handle to the operation, to the waiting slot, by binary search to its blocks, `remaining` lowered, the operation out of the order of sectors, and
 *   for the last of a request its slots given back and its caller put on the list of those to be told. Telling them and asking for what is completed next happens
 *   between the batches, so each begins with cold caches. With an operation for each block there are up to 262,144 of them, which is what can be had only where nothing may be merged.
 * - **A whole request** of one block, asked for, granted, planned, sent, completed and settled, over an engine that completes within `submit` and
 *   a store that counts nothing; the callers are reused, so what the heap grows by is the tracker's.
 * - **Sorting** 512 sectors. The figure for random ones includes filling them in.
 * - **Operations in order of sectors**: one is looked up by a sector in it, taken out, and another put in elsewhere; in the chunks of typed arrays of `OperationTable`, with all that it does
 *   besides, and in a B-tree of starts alone.
 */
import BTreeModule from 'sorted-btree';
import { COMPLETION_WORDS, ENTRY_HANDLE, ENTRY_LENGTH, ENTRY_WORDS, type Engine, type Feature } from '../../src/io/engine.js';
import { Ring } from '../../src/io/ring.js';
import { ABSENT, ALL_SECTORS, BLOCK_BYTES, BLOCK_SECTORS, type BlockStore } from '../../src/memory/block-store.js';
import { KIND_READ, OperationTable } from '../../src/requests/operation-table.js';
import { type Caller, RequestManager } from '../../src/requests/request-manager.js';
import { SortScratch, sortSectors } from '../../src/requests/sector-array.js';
import { median } from './latencies.js';
import { type Batch, batchContender, heapBytesPerOperation } from './micro.js';
import { type Group, interleave, ratio, rowMedian, rowNamed, type Target } from './report.js';

const BTree = BTreeModule.default;

/** Requests are of 64 sectors, and of as many blocks. */
const requestBlocks = 8;
const longBlocks = 64;
const fewRequests = 32;
const manyRequests = 4096;
/** Requests completed in one batch. */
const batchRequests = 16;
/** Blocks from one request to the next, so that no two are neighbours. */
const requestStride = 2 * longBlocks;
const sortedSectors = 512;
const inFlightCounts = [32, 128, 1024];
const stepsTimed = 1000;
/** Steps between two looks at the heap, fifty times: a million. */
const heapSteps = 20_000;

/** Small, fast and always the same (mulberry32). */
function seeded(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

function shuffle(values: Int32Array, random: () => number): void {
  for (let i = values.length - 1; i > 0; i--) {
    const other = Math.floor(random() * (i + 1));
    const value = values[i];
    values[i] = values[other];
    values[other] = value;
  }
}

/** Memory that is always absent, always there for the taking, and never touched. */
const boundless: BlockStore = {
  slab: 0,
  offset: 0,
  begin: () => {},
  state: () => ABSENT,
  room: () => Number.MAX_SAFE_INTEGER,
  idle: () => false,
  pin: () => {},
  unpin: () => {},
  take: (_block, count) => count,
  locate: () => 0,
  began: () => {},
  ended: () => {},
  zero: () => {},
};

/** Keeps what was submitted, or completes it at once. */
class FreeEngine implements Engine {
  readonly name = 'simulated';
  readonly depth: number;
  readonly entries: Int32Array;
  readonly control = new Int32Array(2);
  readonly queues;
  /** Handles of what was submitted since `count` was last set to 0. */
  readonly handles: Int32Array;
  count = 0;
  readonly #completes: boolean;
  readonly #words: Int32Array;
  readonly #mask: number;

  /** `depth` is a power of two. */
  constructor(depth: number, completes: boolean) {
    this.depth = depth;
    this.entries = new Int32Array(depth * ENTRY_WORDS);
    this.handles = new Int32Array(depth);
    this.#completes = completes;
    this.#mask = depth - 1;
    this.#words = new Int32Array(1 + depth * COMPLETION_WORDS);
    this.queues = [{ words: this.#words, tail: 0, first: 1, mask: this.#mask, head: 1 }];
  }

  submit(count: number): void {
    const { entries } = this;
    for (let i = 0; i < count; i++) {
      const at = i * ENTRY_WORDS;
      if (!this.#completes) {
        this.handles[this.count++] = entries[at + ENTRY_HANDLE];
        continue;
      }
      const completion = 1 + (this.#words[0] & this.#mask) * COMPLETION_WORDS;
      this.#words[completion] = entries[at + ENTRY_HANDLE];
      this.#words[completion + 2] = entries[at + ENTRY_LENGTH];
      Atomics.add(this.#words, 0, 1);
    }
  }

  collect(): void {}
  wait(): void {}
  listen(): void {}
  ref(): void {}
  unref(): void {}
  addFile(): number {
    return 0;
  }
  addSlab(): number {
    return 0;
  }
  giveBack(): boolean {
    return false;
  }
  close(): void {}
  features(): Feature[] {
    return [];
  }
}

/** A caller that is used again and again. */
interface Turn extends Caller {
  first: number;
}

function turn(first: number, count: number, settle: () => void): Turn {
  return {
    first,
    count,
    needFirst: ALL_SECTORS,
    needMiddle: ALL_SECTORS,
    needLast: ALL_SECTORS,
    store: false,
    blocking: true,
    handle: 0,
    waiting: false,
    settle,
  };
}

function managerOver(engine: FreeEngine, slots: number, slotBlocks: number, mergeBlocks: number): RequestManager {
  const size = Number.MAX_SAFE_INTEGER;
  const source = {
    path: '',
    committedSize: size,
    sizeNow: () => size,
    pressure: () => false,
    suspect: () => false,
    look: () => {},
    cacheFull: () => new Error('the store of this benchmark is never full'),
  };
  const limit = mergeBlocks * BLOCK_BYTES;
  const limits = { slots, slotBlocks, transferLimit: limit, mergeLimit: limit, gapLimit: 0, alignment: BLOCK_BYTES, asyncTransfers: false };
  return new RequestManager(new Ring(engine), boundless, source, 0, limits);
}

function completing(name: string, requests: number, blocks: number, mergeBlocks: number): Batch {
  const operationsEach = blocks / mergeBlocks;
  const engine = new FreeEngine(requests * operationsEach, false);
  const manager = managerOver(engine, requests, blocks, mergeBlocks);
  const random = seeded(requests);
  const callers = Array.from({ length: requests }, (_, i) => turn(i * requestStride, blocks, () => {}));
  /** Handles of each request's operations. */
  const handles: Int32Array[] = [];
  const ask = (which: number): void => {
    engine.count = 0;
    if (!manager.requestNow(callers[which]) || engine.count !== operationsEach) throw new Error('a request was not sent as it should be');
    handles[which] = engine.handles.slice(0, operationsEach);
  };
  for (let which = 0; which < requests; which++) ask(which);
  const order = new Int32Array(batchRequests * operationsEach);
  const length = mergeBlocks * BLOCK_BYTES;
  let next = 0;
  return {
    name,
    own: true,
    operations: order.length,
    prepare: () => {
      // A batch may be prepared twice, or tried before it was prepared.
      if (order[0] !== 0 && manager.operations.resolve(order[0]) < 0) {
        manager.progress();
        for (let i = 0; i < batchRequests; i++) ask((next + i) % requests);
        next = (next + batchRequests) % requests;
      }
      for (let i = 0; i < batchRequests; i++) order.set(handles[(next + i) % requests], i * operationsEach);
      shuffle(order, random);
    },
    run: () => {
      for (let i = 0; i < order.length; i++) manager.complete(order[i], length);
    },
  };
}

/** Requests of one block, each through everything. */
function wholeRequests(requests: number): () => void {
  const engine = new FreeEngine(64, true);
  const manager = managerOver(engine, 64, 1, 1);
  let settled = 0;
  const caller = turn(0, 1, () => {
    settled++;
  });
  return () => {
    const until = settled + requests;
    while (settled < until) {
      caller.first = (caller.first + 7919) & 0xfffff;
      if (!manager.requestNow(caller)) throw new Error('no slot in a manager that has nothing else to do');
      manager.progress();
    }
  };
}

function sorting(name: string, list: (random: () => number) => Uint32Array): Batch {
  const random = seeded(7);
  // Different ones in turn, or the processor learns the one by heart.
  const lists = Array.from({ length: 64 }, () => list(random));
  const sectors = new Uint32Array(sortedSectors);
  const origin = Uint32Array.from(sectors, (_, i) => i);
  const scratch = new SortScratch(sortedSectors);
  return {
    name,
    own: true,
    operations: lists.length,
    run: () => {
      for (const one of lists) {
        sectors.set(one);
        sortSectors(sectors, origin, 0, sortedSectors, scratch);
      }
    },
  };
}

/** One step: look up by a sector within, take out, put another in. */
function orderedArrays(inFlight: number): () => void {
  const table = new OperationTable();
  const places = freePlaces(inFlight);
  for (let i = 0; i < inFlight; i++) table.create(KIND_READ, places.next(), BLOCK_SECTORS, 0, 0);
  return () => {
    const operation = table.at(places.oldest() + 5);
    table.destroy(operation);
    table.create(KIND_READ, places.next(), BLOCK_SECTORS, 0, 0);
  };
}

function orderedTree(inFlight: number): () => void {
  const tree = new BTree<number, number>();
  const places = freePlaces(inFlight);
  for (let i = 0; i < inFlight; i++) tree.set(places.next(), i);
  return () => {
    const pair = tree.getPairOrNextLower(places.oldest() + 5);
    if (pair === undefined) throw new Error('what is in flight was not found');
    tree.delete(pair[0]);
    tree.set(places.next(), pair[1]);
  };
}

/** Starts of operations, eight times as many places as are taken at once, none taken twice at a time; they end in the order in which they began. */
function freePlaces(inFlight: number): { next(): number; oldest(): number } {
  const starts = Int32Array.from({ length: 8 * inFlight }, (_, i) => i * 2 * BLOCK_SECTORS);
  shuffle(starts, seeded(inFlight));
  let begun = 0;
  let ended = 0;
  return {
    next: () => starts[begun++ % starts.length],
    oldest: () => starts[ended++ % starts.length],
  };
}

function repeated(name: string, own: boolean, step: () => void, steps = stepsTimed): Batch {
  return {
    name,
    own,
    operations: steps,
    run: () => {
      for (let i = 0; i < steps; i++) step();
    },
  };
}

/** The middle of fifty: a collection in between makes one too small, the measurement itself adds some hundred bytes to each. */
function heapBytes(operations: number, run: () => void): number {
  return median(Array.from({ length: 50 }, () => heapBytesPerOperation(operations, run)));
}

export const tracker: Group = {
  name: 'tracker',
  title: 'The request tracker alone, without a device',
  async run(settings) {
    const contenders = (batches: Batch[]) => batches.map((batch) => batchContender(batch, settings.seconds));
    const few = `${fewRequests} of 64 sectors, an operation for each block`;
    const many = `${manyRequests.toLocaleString('en-US')} of 64 sectors, an operation for each block`;
    const completions = await interleave(
      'an operation completed, of so many requests',
      'ns',
      contenders([
        completing(few, fewRequests, requestBlocks, 1),
        completing(many, manyRequests, requestBlocks, 1),
        completing(`${fewRequests} of 64 blocks, an operation for each block`, fewRequests, longBlocks, 1),
        completing(`${manyRequests.toLocaleString('en-US')} of 64 blocks, an operation for each block`, manyRequests, longBlocks, 1),
        completing(`${fewRequests} of 64 blocks, one operation each`, fewRequests, longBlocks, longBlocks),
        completing(`${manyRequests.toLocaleString('en-US')} of 64 blocks, one operation each`, manyRequests, longBlocks, longBlocks),
      ]),
      settings,
    );
    const whole = wholeRequests(stepsTimed);
    const requests = await interleave(
      'a request of one block, all of it',
      'ns',
      contenders([{ name: 'ask, grant, plan, send, complete, settle', own: true, operations: stepsTimed, run: whole }]),
      settings,
    );
    const presorted = 'sorted already';
    const random = 'random';
    const sorts = await interleave(
      `${sortedSectors} sectors sorted`,
      'ns',
      contenders([
        sorting(presorted, () => Uint32Array.from({ length: sortedSectors }, (_, i) => i * BLOCK_SECTORS)),
        sorting('sorted but for 8 of them', (next) => {
          const list = Uint32Array.from({ length: sortedSectors }, (_, i) => i * BLOCK_SECTORS);
          for (let i = 0; i < 8; i++) list[Math.floor(next() * sortedSectors)] = Math.floor(next() * sortedSectors) * BLOCK_SECTORS;
          return list;
        }),
        sorting(random, (next) => Uint32Array.from({ length: sortedSectors }, () => Math.floor(next() * 2 ** 32))),
      ]),
      settings,
    );
    const orders = [];
    const bytes: Target[] = [];
    for (const inFlight of inFlightCounts) {
      const arrays = orderedArrays(inFlight);
      const tree = orderedTree(inFlight);
      orders.push(
        await interleave(
          `found, out, another in: ${inFlight.toLocaleString('en-US')} in order`,
          'ns',
          contenders([repeated('B-tree of starts (sorted-btree)', false, tree), repeated('OperationTable: chunks of typed arrays', true, arrays)]),
          settings,
        ),
      );
      settings.log(`  heap for each step with ${inFlight} in order: B-tree ${heapBytes(stepsTimed, repeated('', false, tree).run).toFixed(1)} bytes`);
      bytes.push({
        text: `heap for each operation in and out of order, ${inFlight} in it`,
        measured: heapBytes(heapSteps, repeated('', true, arrays, heapSteps).run),
        unit: 'bytes',
        atMost: 0.05,
      });
    }
    return {
      sections: [completions, requests, sorts, ...orders],
      targets: [
        { text: `an operation completed, ${many}`, measured: rowMedian(rowNamed(completions, many)), unit: 'ns', atMost: 300 },
        {
          text: `the same, times the cost with ${fewRequests} pending`,
          measured: ratio(rowNamed(completions, many), rowNamed(completions, few)),
          unit: 'times',
          atMost: 2,
        },
        { text: `${sortedSectors} sectors, sorted already`, measured: rowMedian(rowNamed(sorts, presorted)), unit: 'ns', atMost: 2000 },
        { text: `${sortedSectors} sectors, random`, measured: rowMedian(rowNamed(sorts, random)), unit: 'ns', atMost: 30_000 },
        { text: 'heap for each request', measured: heapBytes(heapSteps, wholeRequests(heapSteps)), unit: 'bytes', atMost: 0.05 },
        ...bytes,
      ],
    };
  },
};
