/**
 * A real engine on windows: the page store of docs/examples beside lmdb and classic-level. Gets and a scan of what is in memory, and puts that are durable by 1 and 32 writers.
 *
 *   get    own: a copy, as of lmdb's getBinary and classic-level's getSync. All with the same keys of 16 bytes, as bytes
 *   scan   own: windows over each leaf, of which a value is looked at; lmdb: getRange; classic-level: values, a thousand at a time. For each record
 *   put    durable when it counts: own: put; lmdb: put, and waiting for `flushed`; classic-level: put with sync, with 32 threads where there are 32 writers
 *
 * Guarantees: each run in a process and a new folder of its own; every value looked at was compared with its key.
 */
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import type { RunResult } from './measured-run.js';
import type { StoreJob, StoreKind } from './pagestore-run.js';
import { type Peers, peerPackages } from './peer-packages.js';
import { runFigures, runModule, withThreads } from './peers.js';
import { type Contender, compared, type Figures, fileSystemOf, type Group, interleave, interleaveMany, type ManyContender, type Settings } from './report.js';
import { Undo } from './throttled-device.js';

/** 1 GiB of records of 128 bytes, as ours lie in their pages. */
const records = 8_000_000;
const quickRecords = 200_000;
const writerCounts = [1, 32];
/** Filling classic-level takes minutes. */
const readRoundsMax = 2;
const secondsMax = 1;

const readNames: Record<StoreKind, string> = { own: 'page store', lmdb: 'lmdb', level: 'classic-level' };
const kinds: readonly StoreKind[] = ['lmdb', 'level', 'own'];

function putName(kind: StoreKind, writers: number): string {
  const threads = kind === 'level' && writers > 1 ? ', 32 threads' : '';
  return `${writers === 1 ? '1 writer' : `${writers} writers`}: ${readNames[kind]}${threads}`;
}

function refusalOf(kind: StoreKind, { refusals }: Peers): string | undefined {
  return kind === 'own' ? undefined : refusals[kind === 'lmdb' ? 'lmdb' : 'classic-level'];
}

/** In a folder of its own, that is removed afterwards. */
async function inFolder<Result>(settings: Settings, run: (folder: string) => Promise<Result>): Promise<Result> {
  const undo = new Undo();
  const own = mkdtempSync(join(settings.folder, 'sectorwise-bench-'));
  undo.add(() => rmSync(own, { recursive: true, force: true }));
  const folder = join(own, 'store');
  mkdirSync(folder);
  try {
    return await run(folder);
  } finally {
    undo.run();
  }
}

export const pagestore: Group = {
  name: 'pagestore',
  title: 'A key-value store on windows: keys of 16 bytes, values of 100',
  async run(all) {
    const settings = { ...all, seconds: Math.min(all.seconds, secondsMax) };
    const peers = await peerPackages(settings.log);
    const count = settings.quick ? quickRecords : records;
    const run = <Result>(job: Omit<StoreJob, 'folder' | 'seconds'>, threads?: number): Promise<Result> =>
      inFolder(settings, (folder) =>
        runModule<Result>('pagestore-run', { ...job, folder, seconds: settings.seconds } satisfies StoreJob, withThreads(threads)),
      );

    const readers = kinds.map(
      (kind): ManyContender => ({
        name: readNames[kind],
        own: kind === 'own',
        ...(kind === 'own' ? {} : { peer: 'node' as const }),
        missing: refusalOf(kind, peers),
        run: () => run<Figures[]>({ kind, what: 'reads', records: count, writers: 0 }),
      }),
    );
    const state = `${count.toLocaleString('en-US')} records in memory: ours in frames, lmdb's in the page cache and mapped, classic-level's in its cache and the page cache.`;
    const heads = [
      { title: 'get at random', unit: 'ns' as const, state },
      { title: 'scan, for each record', unit: 'ns' as const, state },
    ];
    const [gets, scans] = await interleaveMany(heads, readers, { ...settings, rounds: Math.min(settings.rounds, readRoundsMax) });

    const writers = writerCounts.flatMap((many) =>
      kinds.map(
        (kind): Contender => ({
          name: putName(kind, many),
          own: kind === 'own',
          ...(kind === 'own' ? {} : { peer: 'node' as const }),
          case: String(many),
          missing: refusalOf(kind, peers),
          run: async () => {
            const result = await run<RunResult>({ kind, what: 'puts', records: 0, writers: many }, kind === 'level' && many > 1 ? 32 : undefined);
            const figures = runFigures(result, 'op/s');
            return { ...figures, notes: { ...figures.notes, ...result.notes } };
          },
        }),
      ),
    );
    const name = fileSystemOf(settings.folder);
    const puts = await interleave(`durable puts on ${name}`, 'op/s', writers, settings, 'Each is durable when it counts.');
    return {
      sections: [gets, scans, puts],
      targets: [
        { text: "get: lmdb's time to ours", measured: compared(gets, readNames.lmdb, readNames.own), unit: 'times', atLeast: 1 },
        { text: '32 writers: ours to classic-level', measured: compared(puts, putName('own', 32), putName('level', 32)), unit: 'times', atLeast: 3 },
      ],
    };
  },
};
