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

export type Unit = 'op/s' | 'MiB/s' | 'ns';

/** One run's figures: the rate or duration itself, and percentiles of latency where they were measured: in µs, in a section of ns in ns. */
export interface Figures {
  value: number;
  p50?: number;
  p99?: number;
}

export interface Contender {
  name: string;
  /** This library's, told apart in the plot. */
  own?: boolean;
  run(): Promise<Figures>;
}

export interface Row {
  name: string;
  own: boolean;
  rounds: Figures[];
}

/** Rows that can be compared with each other. */
export interface Section {
  title: string;
  unit: Unit;
  rows: Row[];
}

export interface Target {
  text: string;
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
function deviceOf(folder: string): string {
  let best = { point: '', source: 'none' };
  for (const line of readFileSync('/proc/self/mounts', 'utf8').split('\n')) {
    const [source, point] = line.split(' ');
    if (!point) continue;
    const inside = point === '/' || folder === point || folder.startsWith(`${point}/`);
    if (inside && point.length >= best.point.length) best = { point, source };
  }
  return best.source.replace(/^\/dev\//, '');
}

export function machineFacts(folder: string): Machine {
  const type = statfsSync(folder).type;
  return {
    cpu: cpus()[0]?.model.trim() ?? 'unknown',
    cpus: cpus().length,
    memory: bytesText(Math.round(totalmem() / 1024 ** 3) * 1024 ** 3),
    arch: arch(),
    kernel: release(),
    node: process.version,
    fileSystem: fileSystems.get(type) ?? `0x${type.toString(16)}`,
    device: deviceOf(folder),
  };
}

/** Runs each contender once in every round. */
export async function interleave(title: string, unit: Unit, contenders: readonly Contender[], { rounds, log }: Settings): Promise<Section> {
  const rows: Row[] = contenders.map(({ name, own = false }) => ({ name, own, rounds: [] }));
  for (let round = 0; round < rounds; round++) {
    const turn = contenders.map((_, index) => (round % 2 === 0 ? index : contenders.length - 1 - index));
    for (const index of turn) {
      const figures = await contenders[index].run();
      rows[index].rounds.push(figures);
      log(`  ${title}, round ${round + 1}/${rounds}: ${contenders[index].name}: ${figure(figures.value)} ${unit}`);
    }
  }
  return { title, unit, rows };
}

export function rowMedian(row: Row, of: keyof Figures = 'value'): number {
  const values = row.rounds.map((figures) => figures[of]).filter((value) => value !== undefined);
  return median(values);
}

export function rowNamed(section: Section, name: string): Row {
  const row = section.rows.find((candidate) => candidate.name === name);
  if (!row) throw new Error(`'${section.title}' has no row '${name}'`);
  return row;
}

/** How many times `row` is `against`, in the middle of the rounds. */
export function ratio(row: Row, against: Row): number {
  return median(row.rounds.map((figures, round) => figures.value / against.rounds[round].value));
}

/** What a section's percentiles are in. */
export function latencyUnit(section: Section): string {
  return section.unit === 'ns' ? 'ns' : 'µs';
}

export function isMet({ measured, atLeast = Number.NEGATIVE_INFINITY, atMost = Number.POSITIVE_INFINITY }: Target): boolean {
  return measured >= atLeast && measured <= atMost;
}

function targetText(target: Target): string {
  const bound = target.atLeast !== undefined ? `at least ${figure(target.atLeast)}` : `at most ${figure(target.atMost ?? Number.NaN)}`;
  return `  ${isMet(target) ? 'met    ' : 'NOT MET'}  ${target.text}: ${figure(target.measured)} ${target.unit} (${bound})`;
}

/** The report as text: a table for each section, its first row being the 1 of the ratios, then the targets. */
export function reportLines(report: Report): string[] {
  const lines = [report.title, ...wrap(`  ${machineText(report.machine)}`, 2)];
  for (const section of report.sections) {
    const first = section.rows[0];
    const percentiles = (['p50', 'p99'] as const).filter((name) => section.rows.some((row) => !Number.isNaN(rowMedian(row, name))));
    lines.push(
      '',
      ...tableLines([
        [section.title, section.unit, ...percentiles.map((name) => `${name} ${latencyUnit(section)}`), 'ratio'],
        ...section.rows.map((row) => [
          `  ${row.name}`,
          figure(rowMedian(row)),
          ...percentiles.map((name) => figure(rowMedian(row, name))),
          figure(ratio(row, first)),
        ]),
      ]),
    );
  }
  if (report.targets.length > 0) lines.push('', 'Targets', ...report.targets.flatMap((target) => wrap(targetText(target), 11)));
  return lines;
}

export function machineText(machine: Machine): string {
  return `${machine.cpu}, ${machine.cpus} CPUs, ${machine.memory}, Linux ${machine.kernel}, Node ${machine.node}, ${machine.fileSystem} on ${machine.device}`;
}
