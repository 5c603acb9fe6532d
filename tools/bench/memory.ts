/**
 * Does opening and releasing windows leave memory behind? RssAnon while a million of them come and go, page-cache and direct, looked at and not.
 *
 * Each run is a process of its own (memory-run.ts). Nothing is collected by hand, so the garbage of the windows counts until V8 takes it.
 */
import { makeBenchFile } from './bench-file.js';
import type { MemoryJob, MemoryResult } from './memory-run.js';
import { runModule } from './peers.js';
import { type Contender, type Group, interleave, medianOf } from './report.js';

const size = 1024 ** 3;
const windows = 1_000_000;
/** What is asked of memory varies little from run to run. */
const roundsMax = 3;
const growthMax = 32;
const mebibyte = 1024 ** 2;

export const memory: Group = {
  name: 'memory',
  title: '1,000,000 windows of 4 KiB, opened and released',
  async run(settings) {
    const path = await makeBenchFile(settings.folder, size);
    const contender = (name: string, job: Omit<MemoryJob, 'path' | 'size' | 'windows'>): Contender => ({
      name,
      own: true,
      run: async () => {
        const result = await runModule<MemoryResult>('memory-run', { ...job, path, size, windows });
        const notes: Record<string, number> = { atTheEnd: result.endBytes / mebibyte, before: result.beforeBytes / mebibyte, seconds: result.seconds };
        return { value: result.peakBytes / mebibyte, notes };
      },
    });
    const names = {
      cached: 'page cache, released unseen',
      cachedTouched: 'page cache, every page looked at',
      direct: 'direct, released unseen',
      directTouched: 'direct, every page looked at',
    };
    const contenders: Contender[] = [
      contender(names.cached, { direct: false, touch: false }),
      contender(names.cachedTouched, { direct: false, touch: true }),
      contender(names.direct, { direct: true, touch: false }),
      contender(names.directTouched, { direct: true, touch: true }),
    ];
    const section = await interleave('most growth of RssAnon', 'MiB', contenders, { ...settings, rounds: Math.min(settings.rounds, roundsMax) });
    const targets = Object.values(names).map((name) => ({
      text: `${name}: growth of RssAnon`,
      measured: medianOf(section, name),
      unit: 'MiB',
      atMost: growthMax,
    }));
    return { sections: [section], targets };
  },
};
