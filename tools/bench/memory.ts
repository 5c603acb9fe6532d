/**
 * Does opening and releasing windows leave memory behind? RssAnon while a million of them come and go, page-cache and direct, looked at and not.
 *
 * And what a program takes beyond Node.js and its cache, while it does twenty million operations of all kinds (operations-run.ts).
 *
 * Each run is a process of its own (memory-run.ts). Nothing is collected by hand, so the garbage of the windows counts until V8 takes it.
 */
import { makeBenchFile } from './bench-file.js';
import type { MemoryJob, MemoryResult } from './memory-run.js';
import type { OperationsJob, OperationsResult } from './operations-run.js';
import { runModule } from './peers.js';
import { type Contender, type Group, interleave, medianOf, type Section, type Settings, type Target } from './report.js';

const size = 1024 ** 3;
const windows = 1_000_000;
/** What is asked of memory varies little from run to run. */
const roundsMax = 3;
const growthMax = 32;
const mebibyte = 1024 ** 2;
const operations = 20_000_000;
const operationsFileBytes = 256 * mebibyte;
const operationsCacheBytes = 64 * mebibyte;
const beyondMax = 64;

export const memory: Group = {
  name: 'memory',
  title: '1,000,000 windows of 4 KiB, opened and released; 20,000,000 operations',
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
    const mixed = await measureOperations(settings);
    return { sections: [section, mixed.section], targets: [...targets, ...mixed.targets] };
  },
};

async function measureOperations(settings: Settings): Promise<{ section: Section; targets: Target[] }> {
  const path = await makeBenchFile(settings.folder, operationsFileBytes);
  const contender = (name: string, direct: boolean): Contender => ({
    name,
    own: true,
    run: async () => {
      const job: OperationsJob = { path, size: operationsFileBytes, direct, cacheBytes: operationsCacheBytes, operations };
      const { idleBytes, endBytes, peakBytes, samples, ...notes } = await runModule<OperationsResult>('operations-run', job);
      const sampled = Object.fromEntries(samples.map((bytes, index) => [`sample${index + 1}`, bytes / mebibyte]));
      return { value: peakBytes / mebibyte, notes: { atTheEnd: endBytes / mebibyte, idleNode: idleBytes / mebibyte, ...notes, ...sampled } };
    },
  });
  const names = { direct: `direct, ${operationsCacheBytes / mebibyte} MiB of cache`, cached: 'page cache' };
  const section = await interleave('most of Pss beyond an idle Node.js and the cache', 'MiB', [contender(names.direct, true), contender(names.cached, false)], {
    ...settings,
    rounds: 1,
  });
  const targets = Object.values(names).map((name) => ({
    text: `${name}: Pss beyond an idle Node.js and the cache, during ${operations.toLocaleString('en')} operations`,
    measured: medianOf(section, name),
    unit: 'MiB',
    atMost: beyondMax,
  }));
  return { section, targets };
}
