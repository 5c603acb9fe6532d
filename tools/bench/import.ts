/**
 * What loading the package costs: `import` of each entry, and the first opening after it, in processes that are new each time.
 *
 *   node -e program ── import ── first opening ── the second ──> what each took, as JSON
 *
 * Everybody is asked for by name, as a program would: from the package's own folder, or from the one that peers are installed in; so looking for the files is part of it. The files themselves are in the page cache.
 * Guarantees: one process of each contender at a time, in turns, each turn backwards from the one before; each figure of a round is the median of its processes.
 */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { runChild } from './children.js';
import { median, percentile } from './latencies.js';
import { peerPackages, peersFolder } from './peer-packages.js';
import { type Figures, type Group, medianOf, type Row, rowIfAny, type Section, type Settings, type Skipped } from './report.js';

/** This module runs from dist/tools/bench. */
const root = fileURLToPath(new URL('../../../', import.meta.url));
const atMost = 15;
const passesLeast = 3;
const fileBytes = 4096;

/** What a process says of itself, in ms. */
interface Took {
  imported?: number;
  opened?: number;
  openedAgain?: number;
  /** Processor time, of all threads, from the process's start. */
  cpu: number;
}

/** What is measured of a process: its whole life, parts of it, and import and first opening together. */
type Span = 'life' | 'imported' | 'opened' | 'openedAgain' | 'ready';

/** A kind of process. */
interface Contender {
  /** Of the rows that it has: how it is called where importing is measured, where opening is, and where its whole life is. */
  life: string;
  imports?: string;
  opens?: string;
  readies?: string;
  opensAgain?: string;
  own: boolean;
  peer: boolean;
  missing?: string | undefined;
  folder: string;
  /** JavaScript: what is loaded, and what opens and closes once it is. `made` is the module, `path` what there is to open. */
  specifier?: string;
  open?: string;
  close?: string;
  path?: string;
}

/** Nothing but what is measured: what this needs itself is there in any process. */
function programOf({ specifier, open, close, path }: Contender): string {
  const opening = (name: string): string =>
    open === undefined
      ? ''
      : `{
        const begun = performance.now();
        const opened = ${open};
        took.${name} = performance.now() - begun;
        ${close};
      }`;
  return `
    const took = {};
    const path = ${JSON.stringify(path ?? '')};
    ${specifier === undefined ? '' : `const begun = performance.now(); const made = await import(${JSON.stringify(specifier)}); took.imported = performance.now() - begun;`}
    ${opening('opened')}
    ${opening('openedAgain')}
    const { user, system } = process.cpuUsage();
    took.cpu = (user + system) / 1000;
    process.stdout.write(JSON.stringify(took));
  `;
}

/** The processes of one contender in one round. */
class Samples {
  readonly #lives: number[] = [];
  readonly #took: Took[] = [];

  add(life: number, took: Took): void {
    this.#lives.push(life);
    this.#took.push(took);
  }

  figures(of: Span): Figures {
    const values = this.#values(of);
    const sorted = Float64Array.from(values).sort();
    const value = median(values);
    const notes: Record<string, number> = { processes: sorted.length, lowest: sorted[0], p10: percentile(sorted, 10), p90: percentile(sorted, 90) };
    if (of === 'life') notes.processorTime = median(this.#took.map(({ cpu }) => cpu));
    return { value, p50: value * 1000, p99: percentile(sorted, 99) * 1000, notes };
  }

  #values(of: Span): number[] {
    if (of === 'life') return this.#lives;
    const none = Number.NaN;
    return this.#took.map(({ imported = none, opened = none, openedAgain = none }) => ({ imported, opened, openedAgain, ready: imported + opened })[of]);
  }
}

async function runOne(contender: Contender): Promise<{ life: number; took: Took }> {
  const begun = performance.now();
  const said = await runChild(process.execPath, ['--input-type=module', '-e', programOf(contender)], process.env, contender.folder);
  return { life: performance.now() - begun, took: JSON.parse(said) };
}

/** One round: processes in turns for as long as all of them together may take. */
async function round(contenders: readonly Contender[], seconds: number): Promise<Map<Contender, Samples>> {
  const samples = new Map(contenders.map((contender) => [contender, new Samples()]));
  const end = performance.now() + contenders.length * seconds * 1000;
  for (let pass = 0; pass < passesLeast || performance.now() < end; pass++) {
    for (const contender of pass % 2 === 0 ? contenders : [...contenders].reverse()) {
      const { life, took } = await runOne(contender);
      samples.get(contender)?.add(life, took);
    }
  }
  return samples;
}

function contendersIn(folder: string, refusals: Partial<Record<string, string>>): Contender[] {
  const path = join(folder, 'file');
  writeFileSync(path, Buffer.alloc(fileBytes));
  const entry = (name: string): Contender => ({ life: `import '${name}'`, imports: `import '${name}'`, own: true, peer: false, folder: root, specifier: name });
  const opened = (caching: string): Contender => ({
    life: `import 'sectorwise', openSync, ${caching}`,
    opens: `the first openSync, ${caching}`,
    readies: `import 'sectorwise', openSync, ${caching}`,
    opensAgain: `another openSync, ${caching}`,
    own: true,
    peer: false,
    folder: root,
    specifier: 'sectorwise',
    open: `made.openSync(path, { caching: '${caching}' })`,
    close: 'opened.closeSync()',
    path,
  });
  const peer = (name: string, open: string): Contender => {
    const database = join(folder, name);
    mkdirSync(database);
    return {
      life: `import '${name}', open a database`,
      imports: `import '${name}'`,
      opens: `the first database, ${name}`,
      readies: `import '${name}', open a database`,
      own: false,
      peer: true,
      missing: refusals[name],
      folder: peersFolder,
      specifier: name,
      open,
      close: 'await opened.close()',
      path: database,
    };
  };
  const other = { own: false, peer: false, folder: root };
  return [
    { ...other, life: 'nothing' },
    { ...other, life: "import 'node:fs'", imports: "import 'node:fs'", specifier: 'node:fs' },
    entry('sectorwise'),
    ...['layout', 'testing', 'mmap-io', 'random-access'].map((name) => entry(`sectorwise/${name}`)),
    opened('page-cache'),
    opened('direct'),
    peer('lmdb', 'made.open({ path })'),
    // Its constructor begins to open by itself.
    peer('classic-level', 'await (async () => { const database = new made.ClassicLevel(path); await database.open(); return database; })()'),
  ];
}

/** A section of the rows that `name` has a name for. */
function section(
  head: Pick<Section, 'title' | 'state'>,
  of: Span,
  name: (contender: Contender) => string | undefined,
  contenders: readonly Contender[],
  rounds: ReadonlyArray<Map<Contender, Samples>>,
): Section {
  const rows: Row[] = [];
  const skipped: Skipped[] = [];
  for (const contender of contenders) {
    const called = name(contender);
    if (called === undefined) continue;
    if (contender.missing !== undefined) {
      skipped.push({ name: called, reason: contender.missing });
      continue;
    }
    const figures = rounds.flatMap((samples) => samples.get(contender)?.figures(of) ?? []);
    // Who loads when differs: only both together can be compared.
    rows.push({ name: called, own: contender.own, ...(contender.peer && of === 'ready' ? { peer: 'node' as const } : {}), rounds: figures });
  }
  return { ...head, unit: 'ms', rows, ...(skipped.length > 0 ? { skipped } : {}) };
}

/** How much longer a process lives than one that does nothing, in the middle of the rounds; NaN where there is none. */
function beyondNothing(lives: Section, name: string): number {
  const nothing = rowIfAny(lives, 'nothing');
  const row = rowIfAny(lives, name);
  return row && nothing ? median(row.rounds.map(({ value }, at) => value - nothing.rounds[at].value)) : Number.NaN;
}

async function measured(contenders: readonly Contender[], { rounds, seconds, log }: Settings): Promise<Array<Map<Contender, Samples>>> {
  const there = contenders.filter(({ missing }) => missing === undefined);
  for (const { life, missing } of contenders) if (missing !== undefined) log(`  skipped: ${life}: ${missing}`);
  // Into the page cache, and databases made: not measured.
  for (const contender of there) await runOne(contender);
  const all: Array<Map<Contender, Samples>> = [];
  for (let at = 0; at < rounds; at++) {
    const samples = await round(there, seconds);
    for (const [{ life }, some] of samples) log(`  round ${at + 1}/${rounds}: ${life}: ${some.figures('life').value.toFixed(1)} ms`);
    all.push(samples);
  }
  return all;
}

export const imports: Group = {
  name: 'import',
  title: 'loading the package in a new process',
  async run(settings) {
    const { refusals } = await peerPackages(settings.log);
    const folder = mkdtempSync(join(settings.folder, 'sectorwise-bench-'));
    const release = (): void => rmSync(folder, { recursive: true, force: true });
    process.on('exit', release);
    try {
      const contenders = contendersIn(folder, refusals);
      const rounds = await measured(contenders, settings);
      const state = 'a new process for each; the files are in the page cache';
      const importing = section({ title: 'import, asked within the process', state }, 'imported', ({ imports }) => imports, contenders, rounds);
      const opening = section({ title: 'the first opening after it', state }, 'opened', ({ opens }) => opens, contenders, rounds);
      const ready = section({ title: 'both: import and the first opening', state }, 'ready', ({ readies }) => readies, contenders, rounds);
      const again = section({ title: 'another opening after that', state }, 'openedAgain', ({ opensAgain }) => opensAgain, contenders, rounds);
      const lives = section({ title: 'the whole process, from its start to its end', state }, 'life', ({ life }) => life, contenders, rounds);
      return {
        sections: [importing, opening, ready, again, lives],
        targets: [
          { text: "import 'sectorwise', within the process", measured: medianOf(importing, "import 'sectorwise'"), unit: 'ms', atMost },
          { text: "import 'sectorwise', beyond a process that does nothing", measured: beyondNothing(lives, "import 'sectorwise'"), unit: 'ms', atMost },
        ],
      };
    } finally {
      process.off('exit', release);
      release();
    }
  },
};
