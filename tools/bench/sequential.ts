/**
 * From front to end in pieces of 1 MiB, beside fio and node:fs: reading past the page cache, writing with one flush at the end, and reading through a page cache that holds everything (`scan` has the
 * cold one).
 *
 * fio has 8 pieces on their way at once, with the best of its flags, each of which is a row. Nobody looks at the bytes past the page cache: `windows()` and fs.read get what fio gets.
 * Cores: the processor time of all threads in the time that the run took.
 */
import { atPlaces, type Place, placeKinds } from './devices.js';
import { type FioOptions, fioFlags, fioRefusal, fioRows, runFio } from './fio.js';
import type { RunResult } from './measured-run.js';
import { setCache } from './page-cache.js';
import { runFigures, runModule, runReader, withThreads } from './peers.js';
import type { ReaderJob } from './reader.js';
import { type Contender, comparedWithBest, type Figures, type Group, interleave, medianOf, type Section, type Settings, type Target } from './report.js';
import type { WriteJob } from './write-run.js';

const size = 1024 ** 3;
const quickSize = 128 * 1024 ** 2;
const depth = 8;
const roundsMax = 3;
/** Where there are no targets. */
const otherRoundsMax = 2;

const own = 'windows()';
const ownWrite = 'write, one at a time, and flush';

/** With the share of a core, which all of them have noted. */
function withCores(figures: Figures): Figures {
  return { ...figures, cores: figures.notes?.cores };
}

async function reading(job: ReaderJob, threads?: number): Promise<Figures> {
  return withCores(runFigures(await runReader(job, threads), 'MiB/s'));
}

async function writing(job: WriteJob, threads?: number): Promise<Figures> {
  const result = await runModule<RunResult>('write-run', job, withThreads(threads));
  if (result.mismatches > 0) throw new Error(`${job.kind}: ${result.mismatches} pieces are not what was written`);
  return withCores(runFigures(result, 'MiB/s'));
}

interface Bench {
  settings: Settings;
  refusal: string | undefined;
}

function fioPieces({ refusal }: Bench, place: Place, options: FioOptions): Contender[] {
  const all: FioOptions = { filename: place.path, size: place.size, bs: '1m', iodepth: depth, ioengine: 'io_uring', direct: 1, ...options };
  const run = async (flags: FioOptions): Promise<Figures> => withCores(await runFio({ ...all, ...flags }, 'MiB/s', { statPath: place.statPath }));
  return fioRows(fioFlags(place, { pollingThread: false }), refusal, run);
}

function readingPast(bench: Bench, place: Place): Promise<Section> {
  const job = { path: place.path, size: place.size, direct: true, statPath: place.statPath };
  const contenders: Contender[] = [
    ...fioPieces(bench, place, { rw: 'read' }),
    { name: own, own: true, run: () => reading({ ...job, kind: 'scan-windows' }) },
    { name: 'fs.read, one at a time', peer: 'node', run: () => reading({ ...job, kind: 'scan-callbacks' }) },
    { name: `fs.read, ${depth} at a time, 32 threads`, peer: 'node', run: () => reading({ ...job, kind: 'scan-callbacks', depth }, 32) },
  ];
  const state = `${place.detail}. O_DIRECT; frames empty when a run begins; the device moved what was shown (an error otherwise).`;
  return interleave(`${place.name}: reading past the page cache`, 'MiB/s', contenders, bench.settings, state);
}

function writingTo(bench: Bench, place: Place): Promise<Section> {
  const job = { path: place.path, size: place.size, statPath: place.statPath };
  const contenders: Contender[] = [
    ...fioPieces(bench, place, { rw: 'write', end_fsync: 1 }),
    { name: ownWrite, own: true, run: () => writing({ ...job, kind: 'own', depth: 1 }) },
    { name: `write, ${depth} at a time, and flush`, own: true, run: () => writing({ ...job, kind: 'own', depth }) },
    { name: `fs.write, O_DIRECT, ${depth} at a time, 32 threads`, peer: 'node', run: () => writing({ ...job, kind: 'direct', depth }, 32) },
    { name: 'fs.write, page cache, one at a time', peer: 'node', run: () => writing({ ...job, kind: 'cached', depth: 1 }) },
  ];
  const state = `${place.detail}, which was written before. Everyone ends with a flush; what was written was read back past the page cache and compared (not fio's).`;
  return interleave(`${place.name}: writing`, 'MiB/s', contenders, bench.settings, state);
}

async function throughWarm({ settings, refusal }: Bench, { path, size: bytes, detail }: Place): Promise<Section> {
  const job = { path, size: bytes, direct: false, touch: true, cache: 'warm' as const };
  const psync = async (): Promise<Figures> => {
    await setCache('warm', path, bytes);
    return withCores(await runFio({ filename: path, size: bytes, rw: 'read', bs: '1m', ioengine: 'psync', invalidate: 0 }, 'MiB/s'));
  };
  const contenders: Contender[] = [
    { name: 'fio psync', peer: 'fio', missing: refusal, run: psync },
    { name: own, own: true, run: () => reading({ ...job, kind: 'scan-windows' }) },
    { name: 'fs.read', peer: 'node', run: () => reading({ ...job, kind: 'scan-callbacks' }) },
    { name: 'fs.createReadStream', peer: 'node', run: () => reading({ ...job, kind: 'scan-stream' }) },
  ];
  const state = `${detail}. Page cache warm before each run: more than 98 % of the file, by the kernel's word. One byte of each page is looked at (not by fio).`;
  return interleave('reading through the page cache, warm', 'MiB/s', contenders, settings, state);
}

async function measurePlace(bench: Bench, place: Place): Promise<{ sections: Section[]; targets: Target[] }> {
  const past = await readingPast(bench, place);
  const warm = place.kind === 'file' ? [await throughWarm(bench, place)] : [];
  const written = await writingTo(bench, place);
  const targets: Target[] =
    place.kind === 'file'
      ? [
          { text: `${place.name}: windows() past the page cache to fio`, measured: comparedWithBest(past, own, 'fio'), unit: 'times', atLeast: 0.95 },
          { text: `${place.name}: windows() past the page cache, processor`, measured: medianOf(past, own, 'cores'), unit: 'cores', atMost: 0.3 },
        ]
      : [];
  return { sections: [past, ...warm, written], targets };
}

export const sequential: Group = {
  name: 'sequential',
  title: '1 GiB from front to end, in pieces of 1 MiB',
  async run(settings) {
    const bench = { settings, refusal: await fioRefusal() };
    return atPlaces(placeKinds, settings.quick ? quickSize : size, settings, (place) => {
      const rounds = Math.min(settings.rounds, place.kind === 'file' ? roundsMax : otherRoundsMax);
      return measurePlace({ ...bench, settings: { ...settings, rounds } }, place);
    });
  },
};
