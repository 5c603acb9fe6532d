/**
 * What is in memory already: one byte of a random 4 KiB block of a resident 1 GiB file, by `tryWindow`, `bytes[0]` and `release`, beside `fs.readSync`, lmdb and mmap-io.
 *
 *   known     every unit of 64 KiB was proved resident less than 100 ms ago: each batch begins with a proof of the whole file; those that end too late are counted
 *   proved    nothing is known: each batch asks about blocks in different units, so few in each cell of 2 MiB that each needs a proof of its own, and waits beforehand until what was
 *             known of them is too old
 *   as asked  a reader that never stops and never waits: what it asked about lately is known, the rest is proved
 *   direct    the same of the file's own frames, each size of cache in a process of its own (hits-run.ts); 8 GiB over a file that is one hole, which direct reads fill frames with zeros from
 *   memory    the same bytes by one view that was made beforehand, each read after the one before it has arrived: what the machine takes for a byte that is in no cache
 *
 * Pages are in the page table before a batch, as a reader's would be. Some machines take pages away that nobody touched for a while (DAMON): such misses are counted, brought back
 * outside the measured time, and an error once they are more than a few, as are batches that ended too late. mmap-io and lmdb prove nothing: a page that is missing stops the event loop until the device has it.
 * Guarantees: the file and lmdb's are more than 98 % in memory before and after the rounds; 256 blocks of each contender were compared with what node:fs reads.
 */
import { closeSync, mkdirSync, openSync, readSync, truncateSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { type BlockFile, open } from '../../src/index.js';
import { makeBenchFile } from './bench-file.js';
import { bytesText } from './format.js';
import type { HitsJob } from './hits-run.js';
import { availableBytes } from './memory-info.js';
import { type Batch, batchContender } from './micro.js';
import { cachedPercent, readThrough } from './page-cache.js';
import { seededOrder } from './pattern.js';
import { type LmdbDatabase, type Peers, peerPackages } from './peer-packages.js';
import { runModule } from './peers.js';
import {
  type Contender,
  compared,
  type Figures,
  type Group,
  interleave,
  interleaveMany,
  type ManyContender,
  medianOf,
  type Section,
  type Settings,
  type Target,
} from './report.js';

const size = 1024 ** 3;
const blockBytes = 4096;
const blocks = size / blockBytes;
/** Random blocks of a batch: so few that they are asked about within 100 ms of the proof before them, also where the machine is busy. */
const batchBlocks = 1 << 13;
/** Residency is known for this much at once, and for this long. */
const unitBytes = 64 * 1024;
const knownMs = 100;
/** A whole cell is proved at once with the eighth proof in it. */
const cellBytes = 2 * 1024 * 1024;
const proofsInCell = 7;
/** The largest window: the least calls for a proof of everything. */
const windowBytesMax = 64 * 1024 * 1024;
/** Misses for each operation, and late batches for each batch, at most. */
const missesMax = 0.001;
const lateMax = 0.05;
const provedBlocks = 256;

/** Bytes of the caches whose hits are measured. */
const middleCache = 1024 ** 3;
const largestCache = 8 * 1024 ** 3;
const cacheSizes = [64 * 1024 ** 2, middleCache, largestCache];
/** Filling 8 GiB takes its time. */
const frameRoundsMax = 2;
/** What is left to others beside a cache. */
const spareBytes = 2 * 1024 ** 3;

const names = {
  readSync: 'fs.readSync, buffer[0]',
  lmdb: 'lmdb getBinary, [0]',
  lmdbFast: 'lmdb getBinaryFast, [0]',
  mapped: 'mmap-io buffer[offset]',
  mappedView: 'mmap-io subarray, [0]',
  memory: 'memory alone, one after the other',
  known: 'known: tryWindow, release',
  knownByte: 'known: tryWindow, bytes[0], release',
  asked: 'as asked: tryWindow, bytes[0], release',
  proved: 'proved: tryWindow, release',
  provedByte: 'proved: tryWindow, bytes[0], release',
};

interface Misses {
  asked: number;
  missed: number;
  batches: number;
  late: number;
}

/** Keeps what was read from being optimised away. */
let seen = 0;

/** Every page of the file is in memory and in the page table. */
async function touchAll(file: BlockFile): Promise<void> {
  for (let offset = 0; offset < size; offset += windowBytesMax) {
    const window = file.tryWindow(offset, windowBytesMax) ?? (await file.window(offset, windowBytesMax));
    const { bytes } = window;
    for (let page = 0; page < windowBytesMax; page += blockBytes) seen += bytes[page];
    window.release();
  }
}

/** Everything is known to be resident from here on, which was asked with few calls; answers with when that began. */
async function proveAll(file: BlockFile): Promise<number> {
  for (;;) {
    const begun = performance.now();
    let offset = 0;
    for (let window = file.tryWindow(0, windowBytesMax); window; window = file.tryWindow(offset, windowBytesMax)) {
      window.release();
      offset += windowBytesMax;
      if (offset === size) return begun;
    }
    await touchAll(file);
  }
}

/** Parts of an order, one after the other, round and round: the same few blocks again and again would be in the processor's caches. */
function partsOf(order: Uint32Array): () => Uint32Array {
  let first = 0;
  return () => {
    const part = order.subarray(first, first + batchBlocks);
    first = (first + batchBlocks) % order.length;
    return part;
  };
}

/** Blocks in different units, in random order. */
function fewOfEachCell(): Uint32Array {
  const proofs = new Uint8Array(size / cellBytes);
  const few = seededOrder(size / unitBytes, 6).filter((unit) => ++proofs[Math.floor((unit * unitBytes) / cellBytes)] <= proofsInCell);
  return few.map((unit, index) => (unit * unitBytes) / blockBytes + (index % (unitBytes / blockBytes)));
}

/** All of a part, one after the other. Written out, with no call for each block: that would cost as much as what is measured. */
function tryEach(file: BlockFile, part: Uint32Array, look: boolean, misses: Misses): void {
  for (let index = 0; index < part.length; index++) {
    const window = file.tryWindow(part[index] * blockBytes, blockBytes);
    if (window === undefined) {
      misses.missed++;
      continue;
    }
    if (look) seen += window.bytes[0];
    window.release();
  }
  misses.asked += part.length;
}

function ownBatches(file: BlockFile, next: () => Uint32Array, misses: Misses): Batch[] {
  const few = fewOfEachCell();
  const nothingKnown = async (): Promise<void> => {
    await proveAll(file);
    await pause(knownMs + 10);
  };
  let begun = 0;
  const allKnown = async (): Promise<void> => {
    begun = await proveAll(file);
  };
  const known = (name: string, look: boolean): Batch => ({
    name,
    own: true,
    operations: batchBlocks,
    prepare: allKnown,
    run: () => {
      tryEach(file, next(), look, misses);
      misses.batches++;
      if (performance.now() - begun > knownMs) misses.late++;
    },
  });
  const proved = (name: string, look: boolean): Batch => ({
    name,
    own: true,
    operations: few.length,
    prepare: nothingKnown,
    run: () => tryEach(file, few, look, misses),
  });
  // All of the file lies in one segment, so any window's buffer shows all of it.
  const first = file.tryWindow(0, blockBytes)!;
  const all = new Uint8Array(first.bytes.buffer, first.bytes.byteOffset, size);
  first.release();
  // Not a constant, which the compiler would fold.
  const zero = new Uint8Array(1);
  return [
    {
      name: names.memory,
      operations: batchBlocks,
      run: () => {
        const part = next();
        let byte = 0;
        // Where to read depends on what was read, though it never changes anything.
        for (let index = 0; index < part.length; index++) byte = all[part[index] * blockBytes + (byte & zero[0])];
        seen += byte;
      },
    },
    known(names.known, false),
    known(names.knownByte, true),
    { name: names.asked, own: true, operations: batchBlocks, run: () => tryEach(file, next(), true, misses) },
    proved(names.proved, false),
    proved(names.provedByte, true),
  ];
}

function cacheName(bytes: number): string {
  return `direct, ${bytesText(bytes)} of frames`;
}

/** Hits in direct frames: two sections, without and with a look at the bytes. */
async function frameSections(path: string, settings: Settings): Promise<Section[]> {
  const hole = join(dirname(path), 'hole');
  writeFileSync(hole, '');
  truncateSync(hole, largestCache);
  const contenders = cacheSizes.map((cacheSize): ManyContender => {
    const large = cacheSize > size;
    const lacking = availableBytes() < cacheSize + spareBytes ? `needs ${bytesText(cacheSize + spareBytes)} of memory available` : undefined;
    return {
      name: cacheName(cacheSize),
      own: true,
      missing: large && settings.quick ? 'takes too long with --quick' : lacking,
      run: () => runModule<Figures[]>('hits-run', { path: large ? hole : path, cacheSize, seconds: settings.seconds / 4 } satisfies HitsJob),
    };
  });
  const state = 'Every block is in the frames: misses are counted, and an error once they are more than one in a thousand. Random over all of the frames.';
  const heads = [
    { title: 'direct: tryWindow, release', unit: 'ns' as const, state },
    { title: 'direct: tryWindow, bytes[0], release', unit: 'ns' as const, state },
  ];
  return interleaveMany(heads, contenders, { ...settings, rounds: Math.min(settings.rounds, frameRoundsMax) });
}

function frameTargets([plain, looked]: readonly Section[]): Target[] {
  const [middle, largest] = [middleCache, largestCache].map(cacheName);
  return [
    { text: `${middle}: tryWindow, release`, measured: medianOf(plain, middle), unit: 'ns', atMost: 80 },
    { text: `${middle}: tryWindow, bytes[0], release`, measured: medianOf(looked, middle), unit: 'ns', atMost: 120 },
    {
      text: `${bytesText(largestCache)} of frames to ${bytesText(middleCache)}: tryWindow, release`,
      measured: compared(plain, largest, middle),
      unit: 'times',
      atMost: 1.3,
    },
    {
      text: `${bytesText(largestCache)} of frames to ${bytesText(middleCache)}: with bytes[0]`,
      measured: compared(looked, largest, middle),
      unit: 'times',
      atMost: 1.3,
    },
  ];
}

/** A database with the blocks of the file as values, keyed by their numbers; closed and removed by whoever asked for it. */
async function fillDatabase(peers: Peers, path: string, log: (line: string) => void): Promise<LmdbDatabase | undefined> {
  if (!peers.lmdb) return undefined;
  log('  filling lmdb …');
  const folder = join(dirname(path), 'lmdb');
  mkdirSync(folder);
  // Its fastest key; a value of 4 KiB does not fit a page of its own beside the header, so it lies on two.
  const database = peers.lmdb.open(folder, { encoding: 'binary', keyEncoding: 'uint32', mapSize: 4 * size, noSync: true, maxDbs: 1 });
  const step = 4096;
  const buffer = Buffer.allocUnsafeSlow(step * blockBytes);
  const fd = openSync(path, 'r');
  try {
    for (let first = 0; first < blocks; first += step) {
      readSync(fd, buffer, 0, buffer.length, first * blockBytes);
      database.transactionSync(() => {
        for (let index = 0; index < step; index++) database.putSync(first + index, buffer.subarray(index * blockBytes, (index + 1) * blockBytes));
      });
    }
  } finally {
    closeSync(fd);
  }
  await database.flushed;
  return database;
}

/** Is all of a file in memory? Read first, which costs nothing where it is. */
async function proveWarm(path: string, what: string): Promise<void> {
  const file = await open(path);
  try {
    await readThrough(path, file.size);
    const percent = cachedPercent(file, file.size);
    if (percent === undefined || percent <= 98)
      throw new Error(`${what} should be in memory, but ${percent === undefined ? 'nobody says' : `only ${percent}% of it is`}`);
  } finally {
    await file.close();
  }
}

interface Subjects {
  path: string;
  fd: number;
  file: BlockFile;
  database: LmdbDatabase | undefined;
  view: Buffer | undefined;
}

/** Does every contender show what node:fs reads? */
function proveBytes({ fd, file, database, view }: Subjects): void {
  const expected = Buffer.alloc(blockBytes);
  const prove = (name: string, block: number, bytes: Uint8Array | undefined): void => {
    readSync(fd, expected, 0, blockBytes, block * blockBytes);
    if (bytes && Buffer.compare(bytes, expected) !== 0) throw new Error(`${name}: block ${block} is not what node:fs reads`);
  };
  for (const block of seededOrder(blocks, 4).subarray(0, provedBlocks)) {
    const window = file.tryWindow(block * blockBytes, blockBytes);
    if (!window) throw new Error(`block ${block} is not in memory`);
    prove('tryWindow', block, window.bytes);
    window.release();
    prove('mmap-io', block, view?.subarray(block * blockBytes, (block + 1) * blockBytes));
    if (database) {
      prove('lmdb', block, database.getBinary(block) ?? new Uint8Array(0));
      prove('lmdb, fast', block, database.getBinaryFast(block)?.subarray(0, blockBytes) ?? new Uint8Array(0));
    }
  }
}

/** What each of the peers does with a block: a loop for each of them, since a call for each block would cost as much as what is measured. */
function peerBatches({ fd, database, view }: Subjects, next: () => Uint32Array): Array<Batch | undefined> {
  const buffer = Buffer.allocUnsafeSlow(blockBytes);
  const batch = (name: string, run: (part: Uint32Array) => void): Batch => ({ name, operations: batchBlocks, run: () => run(next()) });
  return [
    batch(names.readSync, (part) => {
      for (let index = 0; index < part.length; index++) {
        readSync(fd, buffer, 0, blockBytes, part[index] * blockBytes);
        seen += buffer[0];
      }
    }),
    database &&
      batch(names.lmdb, (part) => {
        for (let index = 0; index < part.length; index++) seen += database.getBinary(part[index])![0];
      }),
    database &&
      batch(names.lmdbFast, (part) => {
        for (let index = 0; index < part.length; index++) seen += database.getBinaryFast(part[index])![0];
      }),
    view &&
      batch(names.mapped, (part) => {
        for (let index = 0; index < part.length; index++) seen += view[part[index] * blockBytes];
      }),
    view &&
      batch(names.mappedView, (part) => {
        for (let index = 0; index < part.length; index++) {
          const offset = part[index] * blockBytes;
          seen += view.subarray(offset, offset + blockBytes)[0];
        }
      }),
  ];
}

function missing(name: string, reason: string | undefined): Contender {
  return { name, missing: reason ?? 'not installed', run: () => Promise.reject(new Error(`${name} was not to be run`)) };
}

async function measure(subjects: Subjects, peers: Peers, settings: Settings, misses: Misses): Promise<Awaited<ReturnType<Group['run']>>> {
  const next = partsOf(seededOrder(blocks, 5));
  const peerNames = [names.readSync, names.lmdb, names.lmdbFast, names.mapped, names.mappedView];
  const peerContenders = peerBatches(subjects, next).map((batch, index) => {
    const reason = peers.refusals[index === 1 || index === 2 ? 'lmdb' : 'mmap-io'];
    return { ...(batch ? batchContender(batch, settings.seconds / 4) : missing(peerNames[index], reason)), peer: 'node' as const };
  });
  // Those spend most of a run between batches, which does not count as its time.
  const own = ownBatches(subjects.file, next, misses).map((batch) => batchContender(batch, settings.seconds / (batch.prepare ? 20 : 4)));
  const state = "Page cache warm: more than 98 % of the file, and of lmdb's, by the kernel's word before and after.";
  const section = await interleave('through the page cache', 'ns', [...peerContenders, ...own], settings, state);
  return {
    sections: [section],
    targets: [
      { text: 'tryWindow, bytes[0], release, known to be resident', measured: medianOf(section, names.knownByte), unit: 'ns', atMost: 100 },
      { text: 'tryWindow, bytes[0], release, with proof', measured: medianOf(section, names.provedByte), unit: 'ns', atMost: 1200 },
      { text: 'fs.readSync to tryWindow, bytes[0], release, known', measured: compared(section, names.readSync, names.knownByte), unit: 'times', atLeast: 10 },
    ],
  };
}

export const hits: Group = {
  name: 'hits',
  title: 'What is in memory already: 4 KiB of a 1 GiB file, at random',
  async run(settings) {
    const peers = await peerPackages(settings.log);
    const path = await makeBenchFile(settings.folder, size);
    const database = await fillDatabase(peers, path, settings.log);
    const file = await open(path, { caching: 'page-cache' });
    const fd = openSync(path, 'r');
    const misses: Misses = { asked: 0, missed: 0, batches: 0, late: 0 };
    let result: Awaited<ReturnType<Group['run']>>;
    try {
      const { mmapIo } = peers;
      const view = mmapIo?.map(size, mmapIo.PROT_READ, mmapIo.MAP_SHARED, fd, 0, mmapIo.MADV_NORMAL);
      const subjects: Subjects = { path, fd, file, database, view };
      const proveState = async (): Promise<void> => {
        await proveWarm(path, 'the file');
        if (database) await proveWarm(join(dirname(path), 'lmdb', 'data.mdb'), "lmdb's file");
      };
      await proveState();
      await touchAll(file);
      if (view) for (let offset = 0; offset < size; offset += blockBytes) seen += view[offset];
      if (database) for (let block = 0; block < blocks; block++) seen += database.getBinaryFast(block)![0];
      proveBytes(subjects);
      result = await measure(subjects, peers, settings, misses);
      await proveState();
      if (misses.missed > 0) settings.log(`  ${misses.missed} of ${misses.asked} were not in memory any more: the kernel took them meanwhile`);
      if (misses.late > 0) settings.log(`  ${misses.late} of ${misses.batches} batches took so long that what was known became too old: the machine was busy`);
      if (misses.missed > misses.asked * missesMax || misses.late > misses.batches * lateMax) throw new Error('too many to call this a measurement of hits');
      if (seen < 0) throw new Error('bytes are never negative');
    } finally {
      closeSync(fd);
      await database?.close();
      await file.close();
    }
    const frames = await frameSections(path, settings);
    return { sections: [...result.sections, ...frames], targets: [...result.targets, ...frameTargets(frames)] };
  },
};
