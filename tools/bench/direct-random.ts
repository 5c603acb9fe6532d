/**
 * Random 4 KiB reads past the page cache: `window()` beside fio on the same file, and beside node:fs.
 *
 * The first row is the device as fio drives it: fixed buffers, registered file. node:fs reads with O_DIRECT into aligned memory, which
 * plain Buffers do not allow, and once more as it is mostly used, through a page cache that holds nothing of the file.
 */
import { makeBenchFile } from './bench-file.js';
import { fioRefusal, runFio, runReader } from './peers.js';
import type { ReaderJob } from './reader.js';
import { type Contender, type Figures, type Group, interleave, ratio, rowNamed, type Section, type Target } from './report.js';

const size = 1024 ** 3;
const depths = [32, 128];

const own = 'sectorwise window()';
const fixed = 'fio io_uring, fixed buffers and file';
const callbacks = 'fs.read, O_DIRECT';
const callbacksMore = 'fs.read, O_DIRECT, 32 threads';
const cached = 'fs.read, page cache, cold';

async function figuresOf(job: ReaderJob, threads?: number): Promise<Figures> {
  const { operations, seconds, p50, p99 } = await runReader(job, threads);
  return { value: operations / seconds, p50, p99 };
}

function targetsOf(section: Section): Target[] {
  const window = rowNamed(section, own);
  const faster = [callbacks, callbacksMore, cached].map((name) => rowNamed(section, name)).map((row) => ratio(window, row));
  const targets: Target[] = [
    { text: 'depth 32, window() to fs.read (the fastest of its three rows)', measured: Math.min(...faster), unit: 'times', atLeast: 1.5 },
  ];
  if (section.rows.some((row) => row.name === fixed)) {
    targets.unshift({
      text: 'depth 32, window() to fio with fixed buffers and file',
      measured: ratio(window, rowNamed(section, fixed)),
      unit: 'times',
      atLeast: 0.8,
    });
  }
  return targets;
}

export const directRandom: Group = {
  name: 'direct-random',
  title: 'Random 4 KiB direct reads of a 1 GiB file',
  async run(settings) {
    const { folder, seconds, log } = settings;
    const path = await makeBenchFile(folder, size);
    const refusal = await fioRefusal();
    if (refusal) log(refusal);
    const sections: Section[] = [];
    for (const depth of depths) {
      const job = { path, size, depth, seconds, direct: true };
      const fio = { filename: path, size, rw: 'randread', bs: '4k', iodepth: depth, ioengine: 'io_uring', direct: 1, runtime: seconds, time_based: 1 };
      const fios: Contender[] = [
        { name: fixed, run: () => runFio({ ...fio, fixedbufs: 1, registerfiles: 1 }, 'op/s') },
        { name: 'fio io_uring', run: () => runFio(fio, 'op/s') },
      ];
      const contenders: Contender[] = [
        ...(refusal ? [] : fios),
        { name: own, own: true, run: () => figuresOf({ ...job, kind: 'random-windows' }) },
        { name: callbacks, run: () => figuresOf({ ...job, kind: 'random-callbacks' }) },
        { name: callbacksMore, run: () => figuresOf({ ...job, kind: 'random-callbacks' }, 32) },
        { name: 'fs.promises, O_DIRECT', run: () => figuresOf({ ...job, kind: 'random-promises' }) },
        { name: cached, run: () => figuresOf({ ...job, kind: 'random-callbacks', direct: false, cache: 'cold' }) },
      ];
      sections.push(await interleave(`depth ${depth}`, 'op/s', contenders, settings));
    }
    return { sections, targets: targetsOf(sections[0]) };
  },
};
