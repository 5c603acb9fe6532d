/**
 * Random direct reads by `window()`, on each kind of place: 4 KiB at depths of 1 to 256, and 512 bytes to 1 MiB at depth 32, beside fio; at depths 32 and 128 beside everything else there is for Node.js.
 *
 * "fio" is fio's io_uring with the best of its flags, each of which is a row; other depths and sizes take those that were the best at the nearest depth. fio sends one request with each system
 * call unless it is told otherwise; fio in batches of 16 is a row too, but not one that ratios are to. node:fs reads with O_DIRECT into aligned memory, which plain Buffers do not allow, and on the file once more as it is
 * mostly used: through a page cache that holds nothing of the file.
 * Guarantees: every byte that was shown came from the device during the run, by the device's own counts, or by what the kernel charged to the process where others use the device too.
 */
import { atPlaces, type Place, placeKinds } from './devices.js';
import { type FioFlags, fioFlags, fioRefusal, fioRows, runFio } from './fio.js';
import { bytesText } from './format.js';
import { peerPackages } from './peer-packages.js';
import { runFigures, runReader } from './peers.js';
import type { ReaderJob } from './reader.js';
import { bestPeer, type Contender, comparedWithBest, type Figures, type Group, interleave, type Section, type Settings, type Target } from './report.js';

const size = 1024 ** 3;
const quickSize = 256 * 1024 ** 2;
const block = 4096;
/** Everyone takes part in these. */
const fullDepths = [32, 128];
/** Ways to open and to look that hardly matter, on the file at one of them. */
const variantsDepth = 32;
const otherDepths = [1, 8, 256];
const sizesDepth = 32;
const otherSizes = [512, 64 * 1024, 1024 * 1024];
/** So many sections in the time that there is: fewer rounds, and shorter ones. */
const roundsMax = 3;
const secondsMax = 0.7;
/** Depths and sizes beside fio alone, which no target is about. */
const pairRoundsMax = 2;
const pairSecondsMax = 0.5;
const moreThreads = 32;

const own = 'window()';

interface Run {
  place: Place;
  settings: Settings;
  refusal: string | undefined;
  ronomonRefusal: string | undefined;
}

function jobOf({ place, settings }: Run, depth: number, bytes: number): Omit<ReaderJob, 'kind'> {
  return { path: place.path, size: place.size, direct: true, depth, bytes, seconds: settings.seconds, statPath: place.statPath };
}

async function read(job: ReaderJob, unit: 'op/s' | 'MiB/s', threads?: number): Promise<Figures> {
  return runFigures(await runReader(job, threads), unit);
}

function fioOptions({ place, settings }: Run, depth: number, bytes: number): Record<string, string | number> {
  const runtime = `${Math.round(settings.seconds * 1000)}ms`;
  return { filename: place.path, size: place.size, rw: 'randread', bs: bytes, iodepth: depth, ioengine: 'io_uring', direct: 1, runtime, time_based: 1 };
}

async function everyone(run: Run, depth: number): Promise<Section> {
  const { place, settings, refusal, ronomonRefusal } = run;
  const job = jobOf(run, depth, block);
  const fio = fioOptions(run, depth, block);
  const node = (name: string, kind: ReaderJob['kind'], threads?: number, more: Partial<ReaderJob> = {}): Contender => ({
    name,
    peer: 'node',
    run: () => read({ ...job, kind, ...more }, 'op/s', threads),
  });
  const variants: Contender[] = [
    { name: 'window(), readAhead: false', own: true, run: () => read({ ...job, kind: 'random-windows', noReadAhead: true }, 'op/s') },
    { name: 'window(), nothing looked at', own: true, run: () => read({ ...job, kind: 'random-windows', look: 'length' }, 'op/s') },
  ];
  const batches = { fixedbufs: 1, registerfiles: 1, iodepth_batch_submit: 16, iodepth_batch_complete_min: 1, iodepth_batch_complete_max: 16 };
  const contenders: Contender[] = [
    ...fioRows(fioFlags(place), refusal, (flags) => runFio({ ...fio, ...flags }, 'op/s', place)),
    { name: 'fio, fixed, batches of 16', missing: refusal, run: () => runFio({ ...fio, ...batches }, 'op/s', place) },
    { name: own, own: true, run: () => read({ ...job, kind: 'random-windows' }, 'op/s') },
    ...(place.kind === 'file' && depth === variantsDepth ? variants : []),
    node('fs.read', 'random-callbacks'),
    node('fs.read, 32 threads', 'random-callbacks', moreThreads),
    node('fs.promises', 'random-promises'),
    node('fs.promises, 32 threads', 'random-promises', moreThreads),
    node('fs.readSync, one at a time', 'random-sync'),
    { ...node('@ronomon/direct-io, fs.read, 32 threads', 'random-callbacks', moreThreads, { buffers: 'ronomon' }), missing: ronomonRefusal },
  ];
  if (place.kind === 'file') contenders.push(node('fs.read, 32 threads, page cache', 'random-callbacks', moreThreads, { direct: false, cache: 'cold' }));
  const state =
    `${place.detail}. O_DIRECT${place.kind === 'file' ? ', but for the last row, whose page cache was proved to be empty' : ''}; ` +
    `frames empty when a run begins; each block once; the device moved what was shown (an error otherwise).`;
  return interleave(`${place.name}: 4 KiB, depth ${depth}`, 'op/s', contenders, settings, state);
}

interface Case {
  name: string;
  depth: number;
  bytes: number;
}

/** `window()` and fio alone, for what varies. */
async function pairs(all: Run, title: string, unit: 'op/s' | 'MiB/s', cases: readonly Case[], flagsAt: (depth: number) => FioFlags): Promise<Section> {
  const { place, refusal } = all;
  const { rounds, seconds } = all.settings;
  const settings = { ...all.settings, rounds: Math.min(rounds, pairRoundsMax), seconds: Math.min(seconds, pairSecondsMax) };
  const run = { ...all, settings };
  const contenders: Contender[] = [];
  for (const { name, depth, bytes } of cases) {
    const missing = bytes < place.logicalSectorSize ? `the device's sectors are of ${place.logicalSectorSize} bytes` : undefined;
    const flags = flagsAt(depth);
    const fio = { ...fioOptions(run, depth, bytes), ...flags.options };
    contenders.push({
      name: `${name}: fio, ${flags.name}`,
      peer: 'fio',
      case: name,
      missing: missing ?? refusal,
      run: () => runFio(fio, unit, place),
    });
    contenders.push({
      name: `${name}: ${own}`,
      own: true,
      case: name,
      missing,
      run: () => read({ ...jobOf(run, depth, bytes), kind: 'random-windows' }, unit),
    });
  }
  return interleave(`${place.name}: ${title}`, unit, contenders, settings, `${place.detail}. State and proof as above.`);
}

function targetsOf(place: Place, depth: number, section: Section): Target[] {
  const toFio = { text: `${place.name}, depth ${depth}: window() to fio`, measured: comparedWithBest(section, own, 'fio'), unit: 'times' };
  if (place.kind !== 'file') return depth === 128 ? [{ ...toFio, atLeast: 0.9 }] : [];
  const toNode = { text: `${place.name}, depth ${depth}: window() to the best of node:fs`, measured: comparedWithBest(section, own, 'node'), unit: 'times' };
  return [
    { ...toFio, atLeast: 1 },
    { ...toNode, atLeast: 2 },
  ];
}

async function measurePlace(run: Run): Promise<{ sections: Section[]; targets: Target[] }> {
  const sections: Section[] = [];
  const targets: Target[] = [];
  for (const depth of fullDepths) {
    const section = await everyone(run, depth);
    sections.push(section);
    targets.push(...targetsOf(run.place, depth, section));
  }
  const flagsAt = (depth: number): FioFlags => {
    const best = bestPeer(sections[depth < 128 ? 0 : 1], 'fio')?.name;
    const flags = fioFlags(run.place);
    return flags.find(({ name }) => `fio, ${name}` === best) ?? flags[0];
  };
  const depths = otherDepths.map((depth) => ({ name: `depth ${depth}`, depth, bytes: block }));
  const sizes = otherSizes.map((bytes) => ({ name: bytesText(bytes), depth: sizesDepth, bytes }));
  sections.push(await pairs(run, '4 KiB, other depths', 'op/s', depths, flagsAt));
  sections.push(await pairs(run, `other sizes, depth ${sizesDepth}`, 'MiB/s', sizes, flagsAt));
  return { sections, targets };
}

export const random: Group = {
  name: 'random',
  title: 'Random direct reads of 1 GiB',
  async run(all) {
    const settings = { ...all, rounds: Math.min(all.rounds, roundsMax), seconds: Math.min(all.seconds, secondsMax) };
    const refusal = await fioRefusal();
    const { refusals } = await peerPackages(settings.log);
    const ronomonRefusal = refusals['@ronomon/direct-io'];
    return atPlaces(placeKinds, settings.quick ? quickSize : size, settings, (place) => measurePlace({ place, settings, refusal, ronomonRefusal }));
  },
};
