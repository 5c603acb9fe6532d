/**
 * What a group of benchmarks leaves behind: figures of every round, their medians, and whether the targets were met.
 *
 * Guarantees: contenders run in turns, each round in the opposite order of the one before, so that a drift of the machine
 * meets all of them; a ratio is the median of the rounds' ratios, not a ratio of medians.
 */
import { readFileSync, statfsSync } from 'node:fs';
import { arch, cpus, release, totalmem } from 'node:os';
import { bytesText, figure, tableLines, wrap } from './format.js';
import { median } from './latencies.js';

/** Rates and shares, which are better when they are higher; durations and memory, which are better when they are lower. */
export type Unit = 'op/s' | 'MiB/s' | '%' | 'ns' | 'ms' | 'MiB' | 'blocks';

/** One run's figures: the rate or duration itself, and percentiles of latency where they were measured: in µs, in a section of ns in ns. */
export interface Figures {
  value: number;
  p50?: number;
  p99?: number;
  p999?: number;
  /** Seconds of processor time, of all threads, user and system, for a million operations. */
  cpu?: number;
  /** The same as a share of one core, where that is asked about. */
  cores?: number;
  /** Bytes that the device moved for one operation. */
  moved?: number;
  /** What else is known of the run, for the JSON alone. */
  notes?: Record<string, number>;
}

/** Whom rows are compared with: fio, and what else there is for Node.js. */
export type Peer = 'fio' | 'node';

/** Those that are numbers. */
type FigureName = Exclude<keyof Figures, 'notes'>;

/** What one run says, for one section or for several that are measured at once. */
export interface ManyContender {
  name: string;
  /** This library's, told apart in the plot. */
  own?: boolean;
  /** Others are compared with the best of each kind of peer. */
  peer?: Peer;
  /** Rows of a section that are about different things are compared within their own case. */
  case?: string;
  /** Why it cannot run here: its row is missing then, and the report says so. */
  missing?: string;
  run(): Promise<Figures[]>;
}

export interface Contender extends Omit<ManyContender, 'run'> {
  run(): Promise<Figures>;
}

/** Thrown by a run that finds out only then that it cannot be: its row is left out of all rounds, and the report says why. */
export class CannotRun extends Error {}

export interface Skipped {
  name: string;
  reason: string;
}

export interface Row {
  name: string;
  own: boolean;
  peer?: Peer;
  case?: string;
  rounds: Figures[];
}

/** Rows that can be compared with each other. */
export interface Section {
  title: string;
  unit: Unit;
  /** What was in which cache, and what proves it. */
  state?: string;
  rows: Row[];
  /** Rows that could not be had here. */
  skipped?: Skipped[];
}

export interface Target {
  text: string;
  /** NaN where the row could not be had. */
  measured: number;
  unit: string;
  /** The bound that `measured` has to keep to: at least this, or at most. */
  atLeast?: number;
  atMost?: number;
}

export interface Report {
  group: string;
  title: string;
  date: string;
  machine: Machine;
  sections: Section[];
  targets: Target[];
}

export interface Machine {
  cpu: string;
  cpus: number;
  memory: string;
  arch: string;
  kernel: string;
  node: string;
  fileSystem: string;
  device: string;
}

/** Where a group puts its file, and how long it may take. */
export interface Settings {
  folder: string;
  rounds: number;
  seconds: number;
  /** One short round over little: whether everything runs, not how fast it is. */
  quick: boolean;
  log(line: string): void;
}

export interface Group {
  name: string;
  title: string;
  run(settings: Settings): Promise<{ sections: Section[]; targets: Target[] }>;
}

/** Magic numbers of statfs(2), linux/magic.h. */
const fileSystems = new Map([
  [0xef53, 'ext4'],
  [0x58465342, 'xfs'],
  [0x9123683e, 'btrfs'],
  [0x01021994, 'tmpfs'],
  [0x794c7630, 'overlayfs'],
]);

/** The block device that holds `folder`, from the mount table; there is nothing of it for tmpfs or a network. */
export function deviceOf(folder: string): string {
  let best = { point: '', source: 'none' };
  for (const line of readFileSync('/proc/self/mounts', 'utf8').split('\n')) {
    const [source, point] = line.split(' ');
    if (!point) continue;
    const inside = point === '/' || folder === point || folder.startsWith(`${point}/`);
    if (inside && point.length >= best.point.length) best = { point, source };
  }
  return best.source.replace(/^\/dev\//, '');
}

export function fileSystemOf(folder: string): string {
  const { type } = statfsSync(folder);
  return fileSystems.get(type) ?? `0x${type.toString(16)}`;
}

export function machineFacts(folder: string): Machine {
  return {
    cpu: cpus()[0]?.model.trim() ?? 'unknown',
    cpus: cpus().length,
    memory: bytesText(Math.round(totalmem() / 1024 ** 3) * 1024 ** 3),
    arch: arch(),
    kernel: release(),
    node: process.version,
    fileSystem: fileSystemOf(folder),
    device: deviceOf(folder),
  };
}

/** Runs each contender once in every round. */
export async function interleave(
  title: string,
  unit: Unit,
  contenders: readonly Contender[],
  settings: Pick<Settings, 'rounds' | 'log'>,
  state?: string,
): Promise<Section> {
  const [section] = await interleaveMany(
    [{ title, unit, ...(state === undefined ? {} : { state }) }],
    contenders.map((contender) => ({ ...contender, run: async () => [await contender.run()] })),
    settings,
  );
  return section;
}

/** As `interleave`, for contenders whose one run says something for each of several sections. */
export async function interleaveMany(
  heads: ReadonlyArray<Pick<Section, 'title' | 'unit' | 'state'>>,
  contenders: readonly ManyContender[],
  { rounds, log }: Pick<Settings, 'rounds' | 'log'>,
): Promise<Section[]> {
  const skipped = new Map<string, string>();
  const skip = (name: string, reason: string): void => {
    skipped.set(name, reason);
    log(`  skipped: ${name}: ${reason}`);
  };
  for (const { name, missing } of contenders) if (missing !== undefined) skip(name, missing);
  const rows = heads.map(() =>
    contenders.map(({ name, own = false, peer, case: of }): Row => ({ name, own, ...(peer && { peer }), ...(of !== undefined && { case: of }), rounds: [] })),
  );
  const titles = heads.map(({ title }) => title).join('; ');
  for (let round = 0; round < rounds; round++) {
    const turn = contenders.map((_, index) => (round % 2 === 0 ? index : contenders.length - 1 - index));
    for (const index of turn) {
      const { name, run } = contenders[index];
      if (skipped.has(name)) continue;
      try {
        const figures = await run();
        for (const [section, one] of figures.entries()) rows[section][index].rounds.push(one);
        const texts = figures.map(({ value }, section) => `${figure(value)} ${heads[section].unit}`);
        log(`  ${titles}, round ${round + 1}/${rounds}: ${name}: ${texts.join(', ')}`);
      } catch (error) {
        if (!(error instanceof CannotRun)) throw error;
        skip(name, error.message);
      }
    }
  }
  const left = [...skipped].map(([name, reason]) => ({ name, reason }));
  return heads.map((head, section) => ({
    ...head,
    rows: rows[section].filter(({ name }) => !skipped.has(name)),
    ...(left.length > 0 ? { skipped: left } : {}),
  }));
}

export function rowMedian(row: Row, of: FigureName = 'value'): number {
  const values = row.rounds.map((figures) => figures[of]).filter((value) => value !== undefined);
  return median(values);
}

export function rowNamed(section: Section, name: string): Row {
  const row = section.rows.find((candidate) => candidate.name === name);
  if (!row) throw new Error(`'${section.title}' has no row '${name}'`);
  return row;
}

/** The row, if it could be had. */
export function rowIfAny(section: Section, name: string): Row | undefined {
  return section.rows.find((candidate) => candidate.name === name);
}

/** How many times the one row is the other, in the middle of the rounds; NaN where one of them could not be had. */
export function compared(section: Section, name: string, against: string): number {
  const row = rowIfAny(section, name);
  const other = rowIfAny(section, against);
  return row && other ? ratio(row, other) : Number.NaN;
}

/** The median of a row; NaN where it could not be had. */
export function medianOf(section: Section, name: string, of: FigureName = 'value'): number {
  const row = rowIfAny(section, name);
  return row ? rowMedian(row, of) : Number.NaN;
}

/** How many times `row` is `against`, in the middle of the rounds. */
export function ratio(row: Row, against: Row): number {
  return median(row.rounds.map((figures, round) => figures.value / against.rounds[round].value));
}

/** Is a lower figure the better one? */
export function lowerIsBetter(unit: Unit): boolean {
  return unit === 'ns' || unit === 'ms' || unit === 'MiB' || unit === 'blocks';
}

/** What a section's percentiles are in. */
function latencyUnit(section: Section): string {
  return section.unit === 'ns' ? 'ns' : 'µs';
}

/** The best row of a kind of peer, among those of a case; undefined where there is none. */
export function bestPeer(section: Section, peer: Peer, of?: string): Row | undefined {
  const peers = section.rows.filter((row) => row.peer === peer && row.case === of);
  const sign = lowerIsBetter(section.unit) ? 1 : -1;
  return peers.sort((a, b) => sign * (rowMedian(a) - rowMedian(b)))[0];
}

/** How many times the named row is the best peer of a kind in its case; NaN where one of them could not be had. */
export function comparedWithBest(section: Section, name: string, peer: Peer): number {
  const row = rowIfAny(section, name);
  const best = row && bestPeer(section, peer, row.case);
  return best ? ratio(row, best) : Number.NaN;
}

/** A column of a section beside the names of its rows: what stands above it and in it. */
export interface Column {
  head: string;
  cell(row: Row): string;
}

/** The columns that a section has something for: the figure, how it compares, latencies, and what it took. */
export function sectionColumns(section: Section): Column[] {
  const { rows, unit } = section;
  const columns: Column[] = [{ head: unit, cell: (row) => figure(rowMedian(row)) }];
  const peers = (['fio', 'node'] as const).filter((peer) => rows.some((row) => row.peer === peer));
  for (const peer of peers) {
    const cell = (row: Row): string => {
      const best = bestPeer(section, peer, row.case);
      return best ? figure(ratio(row, best)) : '-';
    };
    columns.push({ head: peer === 'fio' ? 'to fio' : 'to Node', cell });
  }
  // The first row is the 1 where nobody in particular is.
  if (peers.length === 0) columns.push({ head: 'ratio', cell: (row) => figure(ratio(row, rows[0])) });
  const measured = [
    ['p50', `p50 ${latencyUnit(section)}`],
    ['p99', 'p99'],
    ['p999', 'p99.9'],
    ['cpu', 'CPU s/M'],
    ['cores', 'cores'],
    ['moved', 'device B'],
  ] as const;
  for (const [name, head] of measured) {
    if (rows.some((row) => !Number.isNaN(rowMedian(row, name)))) columns.push({ head, cell: (row) => figure(rowMedian(row, name)) });
  }
  return columns;
}

export function isMet({ measured, atLeast = Number.NEGATIVE_INFINITY, atMost = Number.POSITIVE_INFINITY }: Target): boolean {
  return measured >= atLeast && measured <= atMost;
}

/** What was skipped, once for each reason. */
export function skippedTexts({ skipped = [] }: Section): string[] {
  const names = new Map<string, string[]>();
  for (const { name, reason } of skipped) names.set(reason, [...(names.get(reason) ?? []), name]);
  return [...names].map(([reason, all]) => `skipped: ${all.join('; ')}: ${reason}`);
}

function targetText(target: Target): string {
  const bound = target.atLeast !== undefined ? `at least ${figure(target.atLeast)}` : `at most ${figure(target.atMost ?? Number.NaN)}`;
  if (Number.isNaN(target.measured)) return `  skipped  ${target.text}: a row that it needs could not be had (${bound})`;
  return `  ${isMet(target) ? 'met    ' : 'NOT MET'}  ${target.text}: ${figure(target.measured)} ${target.unit} (${bound})`;
}

/**
 * The report as text: a table for each section, then the targets. Ratios are to the best fio and to the best of the others for Node.js, in the same case; where there is neither, to the first row.
 * Processor time is for a million operations, the device's bytes are for one.
 */
export function reportLines(report: Report): string[] {
  const lines = [report.title, ...wrap(`  ${machineText(report.machine)}`, 2)];
  for (const section of report.sections) {
    const first = section.rows[0];
    const skipped = skippedTexts(section).flatMap((line) => wrap(`  ${line}`, 4));
    if (first === undefined) {
      lines.push('', section.title, ...skipped);
      continue;
    }
    const columns = sectionColumns(section);
    lines.push(
      '',
      ...tableLines([
        [section.title, ...columns.map(({ head }) => head)],
        ...section.rows.map((row) => [`  ${row.name}`, ...columns.map(({ cell }) => cell(row))]),
      ]),
      ...(section.state === undefined ? [] : wrap(`  ${section.state}`, 2)),
      ...skipped,
    );
  }
  if (report.targets.length > 0) lines.push('', 'Targets', ...report.targets.flatMap((target) => wrap(targetText(target), 11)));
  return lines;
}

export function machineText(machine: Machine): string {
  return `${machine.cpu}, ${machine.cpus} CPUs, ${machine.memory}, Linux ${machine.kernel}, Node ${machine.node}, ${machine.fileSystem} on ${machine.device}`;
}
