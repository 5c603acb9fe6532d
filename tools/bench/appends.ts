/**
 * Appends that are durable: 4 KiB by 1, 8 and 32 writers, each of which waits until its own bytes are on the device, and 100 bytes a million times with a flush after every thousand.
 *
 *   growing file     made anew for each run; each append makes it longer, so that its size has to become durable too
 *   written before   a log that was filled beforehand and is written over: nothing but data and the device's own flush
 *   zram             a device by itself, whose flush costs nothing: what is left is the software
 *
 * fio cannot have several writers append to one end: its jobs, as many as there are writers, write to places of their own in one file, each with fdatasync after each write
 * (direct=1, one request at a time). Its latencies are those of the fdatasync alone. "shared fdatasync" is node:fs with the least of what a log does: one sync for all who wait.
 * lmdb: put, and waiting for `flushed`. classic-level: put with sync. Both keep more than a log does (an order of keys), and only stand on the growing file.
 */
import { rmSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { type OpenOptions, open } from '../../src/index.js';
import type { AppendJob } from './append-run.js';
import { atPlaces, type Place } from './devices.js';
import { type FioOptions, fioRefusal, runFio } from './fio.js';
import type { RunResult } from './measured-run.js';
import { type Peers, peerPackages } from './peer-packages.js';
import { runFigures, runModule, withThreads } from './peers.js';
import {
  type Contender,
  compared,
  comparedWithBest,
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
const block = 4096;
const roundsMax = 3;
const secondsMax = 0.5;
const writerCounts = [1, 8, 32];
const small = { bytes: 100, flushEvery: 1000, count: 1_000_000 };
const quickCount = 20_000;
/** Of blocks written to blocks touched. */
const amplificationMax = 1.2;

interface Bench {
  settings: Settings;
  refusal: string | undefined;
  refusals: Peers['refusals'];
  verifyRefusal: string | undefined;
}

type Kind = 'growing' | 'before' | 'device';

function caseName(writers: number): string {
  return writers === 1 ? '1 writer' : `${writers} writers`;
}

function ownName(writers: number): string {
  return `${caseName(writers)}: write, flush`;
}

async function appendOnce(job: AppendJob, threads?: number): Promise<RunResult> {
  const result = await runModule<RunResult>('append-run', job, withThreads(threads));
  if (result.mismatches > 0) throw new Error(`${job.kind}: ${result.mismatches} blocks are not what was appended`);
  return result;
}

async function figuresOf(job: AppendJob, threads?: number): Promise<Figures> {
  const result = await appendOnce(job, threads);
  const figures = runFigures(result, 'op/s');
  return { ...figures, notes: { ...figures.notes, ...result.notes } };
}

/** What `open` says to verifyWrites; undefined where it is taken. */
async function refusalOfVerify(place: Place): Promise<string | undefined> {
  try {
    await (await open(place.path, { access: 'read-write', caching: 'direct', verifyWrites: true } as OpenOptions)).close();
    return undefined;
  } catch (error) {
    return (error as Error).message;
  }
}

function contendersFor(bench: Bench, place: Place, kind: Kind, writers: number): Contender[] {
  const { settings, refusal, refusals, verifyRefusal } = bench;
  const folder = dirname(place.path);
  const fresh = kind === 'growing';
  const path = fresh ? join(folder, 'log') : place.path;
  const of = caseName(writers);
  const base = { path, fresh, size: place.size, writers, seconds: settings.seconds, statPath: place.statPath };
  /** Bytes for each of fio's jobs: more than it can fill in the time. */
  const room = Math.floor(place.size / 2 / writers / block) * block;
  const fio = (engine: string): Contender => ({
    name: `${of}: fio ${engine}`,
    peer: 'fio',
    case: of,
    missing: refusal,
    run: async () => {
      const options: FioOptions = {
        filename: path,
        rw: 'write',
        bs: block,
        ioengine: engine,
        direct: 1,
        fdatasync: 1,
        fallocate: 'none',
        size: room,
        offset_increment: room,
        numjobs: writers,
        runtime: `${Math.round(settings.seconds * 1000)}ms`,
        time_based: 1,
      };
      if (fresh) rmSync(path, { force: true });
      try {
        return await runFio(engine === 'io_uring' ? { ...options, registerfiles: 1 } : options, 'op/s', { statPath: place.statPath, latencyOf: 'sync' });
      } finally {
        if (fresh) rmSync(path, { force: true });
      }
    },
  });
  const node = (name: string, run: AppendJob['kind'], threads?: number, missing?: string): Contender => ({
    name: `${of}: ${name}`,
    peer: 'node',
    case: of,
    missing,
    run: () => figuresOf({ ...base, kind: run, ...(run === 'lmdb' || run === 'level' ? { path: join(folder, run), fresh: true } : {}) }, threads),
  });
  const own: Contender = { name: ownName(writers), own: true, case: of, run: () => figuresOf({ ...base, kind: 'own' }) };
  const verified: Contender = {
    ...own,
    name: `${ownName(writers)}, verifyWrites`,
    missing: verifyRefusal,
    run: () => figuresOf({ ...base, kind: 'own', verify: true }),
  };
  const many = writers > 1 ? 32 : undefined;
  const threads = many ? ', 32 threads' : '';
  return [
    fio('psync'),
    fio('io_uring'),
    own,
    verified,
    node(`fs.write, fs.fdatasync${threads}`, 'callbacks', many),
    ...(writers > 1 ? [node('fs.write, shared fdatasync', 'shared')] : [node('fs.writeSync, fdatasyncSync', 'sync')]),
    node(`fs.write, O_DIRECT, O_DSYNC${threads}`, 'dsync', many),
    ...(fresh
      ? [node('lmdb put, flushed', 'lmdb', undefined, refusals.lmdb), node(`classic-level put, sync${threads}`, 'level', many, refusals['classic-level'])]
      : []),
  ];
}

async function blocks(bench: Bench, place: Place, kind: Kind, counts: readonly number[]): Promise<Section> {
  const titles = { growing: `${place.name}: 4 KiB, growing file`, before: `${place.name}: 4 KiB, log written before`, device: `${place.name}: 4 KiB` };
  const state =
    `${place.detail}. Written with O_DIRECT by fio, by us and where it says so, else through the page cache, and durable when an append counts; ` +
    'each append carries its number, and all were compared afterwards, past the page cache.';
  const contenders = counts.flatMap((writers) => contendersFor(bench, place, kind, writers));
  return interleave(titles[kind], 'op/s', contenders, bench.settings, state);
}

const smallNames = { own: 'write, flush', verified: 'write, flush, verifyWrites', cached: 'write, flush, page cache' };

async function smallAppends(bench: Bench, place: Place): Promise<Section[]> {
  const { settings, refusal, refusals, verifyRefusal } = bench;
  const onFile = place.kind === 'file';
  const folder = dirname(place.path);
  const path = onFile ? join(folder, 'log') : place.path;
  const plan = { ...small, count: settings.quick ? quickCount : small.count };
  const base = { path, fresh: onFile, size: place.size, writers: 1, seconds: 0, small: plan, statPath: place.statPath };
  const run = async (job: AppendJob): Promise<Figures[]> => {
    const result = await appendOnce(job);
    const { touchedBlocks = Number.NaN, writtenBlocks = Number.NaN } = result.notes ?? {};
    const figures = runFigures(result, 'op/s');
    return [{ ...figures, notes: { ...figures.notes, ...result.notes } }, { value: writtenBlocks / touchedBlocks }];
  };
  const node = (name: string, kind: AppendJob['kind'], missing?: string): ManyContender => ({
    name,
    peer: 'node',
    missing,
    run: () => run({ ...base, kind, ...(kind === 'lmdb' || kind === 'level' ? { path: join(folder, kind), fresh: true } : {}) }),
  });
  const fio = async (): Promise<Figures[]> => {
    if (onFile) rmSync(path, { force: true });
    const options = {
      filename: path,
      rw: 'write',
      bs: plan.bytes,
      ioengine: 'psync',
      fdatasync: plan.flushEvery,
      fallocate: 'none',
      size: plan.count * plan.bytes,
    };
    const figures = await runFio(options, 'op/s', { statPath: place.statPath, latencyOf: 'sync' });
    if (onFile) rmSync(path, { force: true });
    // As many blocks as are touched by a thousand appends, on average.
    const touched = (plan.count / plan.flushEvery) * ((plan.flushEvery * plan.bytes) / block + 1 - plan.bytes / block);
    return [figures, { value: (figures.notes?.deviceWritten ?? Number.NaN) / block / touched }];
  };
  const contenders: ManyContender[] = [
    { name: 'fio psync, page cache, fdatasync', peer: 'fio', missing: refusal, run: fio },
    { name: smallNames.own, own: true, run: () => run({ ...base, kind: 'own' }) },
    { name: smallNames.verified, own: true, missing: verifyRefusal, run: () => run({ ...base, kind: 'own', verify: true }) },
    { name: smallNames.cached, own: true, run: () => run({ ...base, kind: 'own', caching: 'page-cache' }) },
    node('fs.writeSync, fdatasyncSync', 'sync'),
    node('fs.writev of 1,000, fs.fdatasync', 'gathered'),
    ...(onFile ? [node('lmdb put, flushed', 'lmdb', refusals.lmdb), node('classic-level batch, sync', 'level', refusals['classic-level'])] : []),
  ];
  const count = plan.count.toLocaleString('en-US');
  const state = `${place.detail}. Durable after every ${plan.flushEvery.toLocaleString('en-US')}; latencies are those of so many and their flush. All bytes were compared afterwards.`;
  const proof = place.statPath
    ? "By the device's own counts."
    : 'Ours by stats.deviceWriteBytes; the others by what the kernel charged to the process: the journal, and whatever its own threads write, is not in it.';
  const heads = [
    { title: `${place.name}: ${count} appends of ${plan.bytes} bytes`, unit: 'op/s' as const, state },
    { title: `${place.name}: blocks written for each that a flush touched`, unit: 'blocks' as const, state: proof },
  ];
  return interleaveMany(heads, contenders, { ...settings, rounds: Math.min(settings.rounds, 2) });
}

function smallTargets(place: Place, [, amplification]: Section[]): Target[] {
  return [smallNames.own, smallNames.verified].map((name) => ({
    text: `${place.name}, appends of ${small.bytes} bytes, ${name}: blocks written for each that a flush touched`,
    measured: medianOf(amplification, name),
    unit: 'blocks',
    atMost: amplificationMax,
  }));
}

async function measurePlace(bench: Bench, place: Place): Promise<{ sections: Section[]; targets: Target[] }> {
  const onFile = place.kind === 'file';
  const plain = await blocks(bench, place, onFile ? 'growing' : 'device', onFile ? writerCounts : [1, 32]);
  const sections = [plain];
  const targets: Target[] = [];
  if (onFile) {
    const before = await blocks(bench, place, 'before', [1]);
    sections.push(before);
    const one = { unit: 'times', atLeast: 0.95 };
    targets.push(
      { ...one, text: `${place.name}, growing, 1 writer: write, flush to fio`, measured: comparedWithBest(plain, ownName(1), 'fio') },
      { ...one, text: `${place.name}, written before, 1 writer: write, flush to fio`, measured: comparedWithBest(before, ownName(1), 'fio') },
      { text: `${place.name}, growing: 32 writers to one`, measured: compared(plain, ownName(32), ownName(1)), unit: 'times', atLeast: 8 },
    );
  }
  const some = await smallAppends(bench, place);
  return { sections: [...sections, ...some], targets: [...targets, ...smallTargets(place, some)] };
}

export const appends: Group = {
  name: 'appends',
  title: 'Durable appends',
  async run(all) {
    const settings = { ...all, rounds: Math.min(all.rounds, roundsMax), seconds: Math.min(all.seconds, secondsMax) };
    const refusal = await fioRefusal();
    const { refusals } = await peerPackages(settings.log);
    return atPlaces(['file', 'zram'], settings.quick ? size / 4 : size, settings, async (place) =>
      measurePlace({ settings, refusal, refusals, verifyRefusal: await refusalOfVerify(place) }, place),
    );
  },
};
