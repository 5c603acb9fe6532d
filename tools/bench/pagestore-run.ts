/**
 * One run of a key-value store in a process of its own: `node pagestore-run.js '<job as JSON>'` prints what it measured as one line of JSON.
 *
 *   reads   fills the store, looks at all of it, which brings it into memory, and then takes values at random, and all of them in order
 *   puts    so many writers, each of which waits until its own record is durable, and then puts the next
 *
 * Keys are 16 bytes, values 100 bytes, as in LevelDB's own benchmark. Guarantees: every value looked at is compared with its number; a get that was not answered from memory is an error.
 * Leaves to others: the folder, which is new, and removing it.
 */
import { join } from 'node:path';
import { Store } from '../../docs/examples/pagestore/store.js';
import { open } from '../../src/index.js';
import { Latencies } from './latencies.js';
import { measureRun, runResult } from './measured-run.js';
import { batchContender } from './micro.js';
import { seededOrder } from './pattern.js';
import { loadPeers } from './peer-packages.js';
import type { Figures } from './report.js';
import type { Measured } from './workloads.js';

export type StoreKind = 'own' | 'lmdb' | 'level';

export interface StoreJob {
  kind: StoreKind;
  folder: string;
  what: 'reads' | 'puts';
  /** Reads: how many there are. */
  records: number;
  writers: number;
  seconds: number;
}

const valueBytes = 100;
const fillStep = 5000;
const batchGets = 1 << 13;
const sampleMax = 1 << 20;
/** Before the measured ones: a new process runs ours at half its speed until V8 has compiled it. */
const warmUpSeconds = { own: 2.5, lmdb: 0.5, level: 0.5 };

/** Keys of a store of `records`, as far apart as they can be, and in the order of their numbers, so that filling is as fast as it can be; without `records` in no order. */
function keyFor(number: number, records: number | undefined, key = Buffer.alloc(16)): Buffer {
  key.writeUInt32BE(records === undefined ? Math.imul(number, 0x9e3779b1) >>> 0 : Math.floor((number * 2 ** 32) / records), 0);
  key.writeUInt32BE(Math.imul(number ^ 0x5bd1e995, 0x85ebca6b) >>> 0, 4);
  key.writeUInt32BE(number, 8);
  return key;
}

function valueFor(number: number, value = Buffer.alloc(valueBytes, number % 251)): Buffer {
  value.writeUInt32LE(number, 0);
  return value;
}

function numberOf(value: Uint8Array): number {
  return value[0] | (value[1] << 8) | (value[2] << 16) | (value[3] << 24);
}

interface Subject {
  fill(keys: readonly Buffer[], first: number): Promise<void>;
  filled(): Promise<void>;
  /** So many keys from an index on; answers with how many values were not those of their numbers. */
  gets(keys: readonly Buffer[], numbers: Uint32Array, first: number, count: number): number;
  scan(): Promise<{ count: number; sum: number }>;
  put(key: Buffer, value: Buffer): Promise<unknown>;
  close(): Promise<unknown>;
  notes?(): Record<string, number>;
}

async function ownSubject({ folder, what, records }: StoreJob): Promise<Subject> {
  const options = { caching: 'direct', access: 'read-write', create: true, lock: 'exclusive', readAhead: false, idleMs: Number.POSITIVE_INFINITY } as const;
  // Room for two versions of the tree.
  const cacheSize = what === 'puts' ? 256 << 20 : Math.max(256 << 20, records * 300);
  const pages = await open(join(folder, 'pages'), { ...options, cacheSize });
  const log = await open(join(folder, 'log'), options);
  const store = await Store.open(pages, log);
  return {
    fill: (keys, first) => store.write(keys.map((key, index) => [key, valueFor(first + index)] as const)),
    filled: () => store.checkpoint(),
    gets: (keys, numbers, first, count) => {
      let wrong = 0;
      for (let index = first; index < first + count; index++) {
        const value = store.get(keys[index]) as Uint8Array;
        // A promise has no first byte: not in memory is wrong, too.
        if (value === undefined || numberOf(value) !== numbers[index]) wrong++;
      }
      return wrong;
    },
    scan: async () => {
      let count = 0;
      let sum = 0;
      for await (const run of store.scan()) {
        for (const cell of run) sum += numberOf(cell.value as Uint8Array);
        count += run.length;
      }
      return { count, sum };
    },
    put: (key, value) => store.put(key, value),
    close: () => store.close(),
    notes: () => ({ storeBytes: pages.size, logWrites: log.stats.deviceWrites, pageWrites: pages.stats.deviceWrites, deviceReads: pages.stats.deviceReads }),
  };
}

async function lmdbSubject({ folder, what }: StoreJob): Promise<Subject> {
  const { lmdb, refusals } = loadPeers();
  if (!lmdb) throw new Error(refusals.lmdb);
  const database = lmdb.open(join(folder, 'lmdb'), { encoding: 'binary', keyEncoding: 'binary', mapSize: 8 * 1024 ** 3, maxDbs: 1, noSync: what === 'reads' });
  return {
    fill: async (keys, first) => {
      database.transactionSync(() => {
        for (const [index, key] of keys.entries()) database.putSync(key, valueFor(first + index));
      });
    },
    filled: async () => {
      await database.flushed;
    },
    gets: (keys, numbers, first, count) => {
      let wrong = 0;
      for (let index = first; index < first + count; index++) {
        const value = database.getBinary(keys[index]);
        if (value === undefined || numberOf(value) !== numbers[index]) wrong++;
      }
      return wrong;
    },
    scan: async () => {
      let count = 0;
      let sum = 0;
      for (const { value } of database.getRange({})) {
        sum += numberOf(value);
        count++;
      }
      return { count, sum };
    },
    put: async (key, value) => {
      await database.put(key, value);
      await database.flushed;
    },
    close: () => database.close(),
  };
}

async function levelSubject({ folder }: StoreJob): Promise<Subject> {
  const { classicLevel, refusals } = loadPeers();
  if (!classicLevel) throw new Error(refusals['classic-level']);
  const options = { keyEncoding: 'view', valueEncoding: 'view', compression: false, cacheSize: 1 << 30 };
  const database = new classicLevel.ClassicLevel(join(folder, 'level'), options);
  await database.open();
  return {
    fill: (keys, first) =>
      database.batch(
        keys.map((key, index) => ({ type: 'put' as const, key, value: valueFor(first + index) })),
        { sync: false },
      ),
    filled: async () => {},
    gets: (keys, numbers, first, count) => {
      let wrong = 0;
      for (let index = first; index < first + count; index++) {
        const value = database.getSync(keys[index]);
        if (value === undefined || numberOf(value) !== numbers[index]) wrong++;
      }
      return wrong;
    },
    scan: async () => {
      let count = 0;
      let sum = 0;
      const values = database.values();
      for (let some = await values.nextv(1000); some.length > 0; some = await values.nextv(1000)) {
        for (const value of some) sum += numberOf(value);
        count += some.length;
      }
      await values.close();
      return { count, sum };
    },
    put: (key, value) => database.put(key, value, { sync: true }),
    close: () => database.close(),
  };
}

/** Two figures: what a get takes, and what a scan takes for each record. */
async function reads(subject: Subject, { records, seconds }: StoreJob): Promise<Figures[]> {
  for (let first = 0; first < records; first += fillStep) {
    const some = Array.from({ length: Math.min(fillStep, records - first) }, (_, index) => keyFor(first + index, records));
    await subject.fill(some, first);
  }
  await subject.filled();
  // Every page comes to memory, and into the page table.
  await subject.scan();
  // So many, all over the store, that nearly every leaf is among them; more keys would be as much memory as the store.
  const numbers = seededOrder(records, 5).slice(0, sampleMax);
  const keys = Array.from(numbers, (number) => keyFor(number, records));
  let at = 0;
  let wrong = subject.gets(keys, numbers, 0, keys.length);
  const take = (): void => {
    wrong += subject.gets(keys, numbers, at, batchGets);
    at = at + 2 * batchGets > keys.length ? 0 : at + batchGets;
  };
  const got = await batchContender({ name: 'get', operations: batchGets, run: take }, seconds).run();
  const durations: number[] = [];
  for (const start = performance.now(); performance.now() - start < seconds * 1000 || durations.length < 2; ) {
    const begun = performance.now();
    const { count, sum } = await subject.scan();
    durations.push(((performance.now() - begun) * 1e6) / count);
    if (count !== records || sum !== (records * (records - 1)) / 2) throw new Error(`the scan found ${count} of ${records} records, or not their values`);
  }
  if (wrong > 0) throw new Error(`${wrong} values were not there, or not in memory`);
  const notes = subject.notes?.();
  return [{ ...got, ...(notes && { notes }) }, { value: durations.sort((a, b) => a - b)[durations.length >>> 1] }];
}

async function puts(subject: Subject, { kind, writers, seconds }: StoreJob): Promise<unknown> {
  let number = 0;
  const putFor = async (duration: number, latencies: Latencies): Promise<void> => {
    const start = performance.now();
    const lane = async (): Promise<void> => {
      // Used again once the put is durable: making them is no part of what is measured.
      const key = Buffer.alloc(16);
      const value = Buffer.alloc(valueBytes, 7);
      for (let begun = performance.now(); begun - start < duration * 1000; ) {
        const mine = number++;
        await subject.put(keyFor(mine, undefined, key), valueFor(mine, value));
        const now = performance.now();
        latencies.record((now - begun) * 1000);
        begun = now;
      }
    };
    await Promise.all(Array.from({ length: writers }, lane));
  };
  await putFor(warmUpSeconds[kind], new Latencies());
  const latencies = new Latencies();
  const before = subject.notes?.();
  const { measured, taken } = await measureRun(undefined, async (): Promise<Measured> => {
    const start = performance.now();
    await putFor(seconds, latencies);
    return { operations: latencies.count, bytes: latencies.count * (16 + valueBytes), seconds: (performance.now() - start) / 1000, latencies, mismatches: 0 };
  });
  const after = subject.notes?.();
  return runResult(measured, taken, after && before && { logWrites: after.logWrites - before.logWrites, pageWrites: after.pageWrites - before.pageWrites });
}

const job = JSON.parse(process.argv[2]) as StoreJob;
const subject = await { own: ownSubject, lmdb: lmdbSubject, level: levelSubject }[job.kind](job);
process.stdout.write(`${JSON.stringify(await (job.what === 'reads' ? reads(subject, job) : puts(subject, job)))}\n`);
await subject.close();
