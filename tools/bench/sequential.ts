/**
 * One scan of a file in steps of 1 MiB: `windows()` beside fio and node:fs, past the page cache, and through it when it is cold and when it is warm.
 */
import { makeBenchFile } from './bench-file.js';
import { fioRefusal, runFio } from './fio.js';
import { setCache } from './page-cache.js';
import { runReader } from './peers.js';
import type { ReaderJob } from './reader.js';
import { type Contender, type Figures, type Group, interleave } from './report.js';

const size = 1024 ** 3;

async function figuresOf(job: ReaderJob): Promise<Figures> {
  const { bytes, seconds, p50, p99 } = await runReader(job);
  return { value: bytes / 1024 ** 2 / seconds, p50, p99 };
}

export const sequential: Group = {
  name: 'sequential',
  title: 'Scan of a 1 GiB file in steps of 1 MiB',
  async run(settings) {
    const path = await makeBenchFile(settings.folder, size);
    const refusal = await fioRefusal();
    if (refusal) settings.log(refusal);
    const fio = { filename: path, size, rw: 'read', bs: '1m' };
    const whenFio = (contender: Contender): Contender[] => (refusal ? [] : [contender]);
    const psync = async (cache: 'cold' | 'warm'): Promise<Figures> => {
      await setCache(cache, path, size);
      return runFio({ ...fio, ioengine: 'psync', invalidate: 0 }, 'MiB/s');
    };
    const through = (cache: 'cold' | 'warm'): Contender[] => {
      const job = { path, size, direct: false, cache };
      return [
        { name: 'fs.createReadStream', run: () => figuresOf({ ...job, kind: 'scan-stream' }) },
        { name: 'fs.read', run: () => figuresOf({ ...job, kind: 'scan-callbacks' }) },
        ...whenFio({ name: 'fio psync', run: () => psync(cache) }),
        { name: 'sectorwise windows()', own: true, run: () => figuresOf({ ...job, kind: 'scan-windows' }) },
      ];
    };
    const past: Contender[] = [
      ...whenFio({ name: 'fio io_uring, depth 8', run: () => runFio({ ...fio, ioengine: 'io_uring', iodepth: 8, direct: 1 }, 'MiB/s') }),
      { name: 'sectorwise windows()', own: true, run: () => figuresOf({ path, size, direct: true, kind: 'scan-windows' }) },
    ];
    return {
      sections: [
        await interleave('past the page cache', 'MiB/s', past, settings),
        await interleave('page cache, cold', 'MiB/s', through('cold'), settings),
        await interleave('page cache, warm', 'MiB/s', through('warm'), settings),
      ],
      targets: [],
    };
  },
};
