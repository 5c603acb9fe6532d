/**
 * Random operations on 4 KiB, 70 of 100 reads and the others writes, 32 at a time, on each kind of place.
 *
 * Ours collects writes and sends them when it finds right; node:fs and fio write through O_DIRECT at once. Whoever it is ends with one flush (fio: end_fsync) in the measured time, so that
 * everything is durable then. A row of ours flushes every 100 ms besides. Latencies are those of the reads.
 */
import { atPlaces, type Place, placeKinds } from './devices.js';
import { type FioOptions, fioFlags, fioRefusal, fioRows, runFio } from './fio.js';
import type { RunResult } from './measured-run.js';
import type { MixedJob } from './mixed-run.js';
import { runFigures, runModule, withThreads } from './peers.js';
import { type Contender, type Figures, type Group, interleave, type Section, type Settings } from './report.js';

const size = 1024 ** 3;
const quickSize = 256 * 1024 ** 2;
const depth = 32;
const roundsMax = 3;
const secondsMax = 0.7;
const flushMs = 100;

async function figuresOf(job: MixedJob, threads?: number): Promise<Figures> {
  const result = await runModule<RunResult>('mixed-run', job, withThreads(threads));
  if (result.mismatches > 0) throw new Error(`${job.kind}: ${result.mismatches} blocks are not what was written`);
  const figures = runFigures(result, 'op/s');
  return { ...figures, notes: { ...figures.notes, ...result.notes } };
}

function measurePlace(place: Place, settings: Settings, refusal: string | undefined): Promise<Section> {
  const { path, statPath } = place;
  const { seconds } = settings;
  const job = { path, size: place.size, depth, seconds, statPath };
  const fio: FioOptions = {
    filename: path,
    size: place.size,
    rw: 'randrw',
    rwmixread: 70,
    bs: '4k',
    iodepth: depth,
    ioengine: 'io_uring',
    direct: 1,
    end_fsync: 1,
    runtime: `${Math.round(seconds * 1000)}ms`,
    time_based: 1,
  };
  const contenders: Contender[] = [
    ...fioRows(fioFlags(place), refusal, (flags) => runFio({ ...fio, ...flags }, 'op/s', { statPath, latencyOf: 'read' })),
    { name: 'window, write, one flush', own: true, run: () => figuresOf({ ...job, kind: 'own' }) },
    { name: `window, write, flush each ${flushMs} ms`, own: true, run: () => figuresOf({ ...job, kind: 'own', flushMs }) },
    { name: 'fs.read, fs.write', peer: 'node', run: () => figuresOf({ ...job, kind: 'callbacks' }) },
    { name: 'fs.read, fs.write, 32 threads', peer: 'node', run: () => figuresOf({ ...job, kind: 'callbacks' }, 32) },
  ];
  const state =
    `${place.detail}. O_DIRECT throughout; frames empty of what is visited, each block once; the device moved what was read (an error otherwise). ` +
    'What was written was read back past the page cache, 256 blocks of each run (not of fio).';
  return interleave(`${place.name}: 70/30, 4 KiB, depth ${depth}`, 'op/s', contenders, settings, state);
}

export const mixed: Group = {
  name: 'mixed',
  title: 'Random reads and writes, 70/30',
  async run(all) {
    const settings = { ...all, rounds: Math.min(all.rounds, roundsMax), seconds: Math.min(all.seconds, secondsMax) };
    const refusal = await fioRefusal();
    return atPlaces(placeKinds, settings.quick ? quickSize : size, settings, async (place) => ({
      sections: [await measurePlace(place, settings, refusal)],
      targets: [],
    }));
  },
};
