/**
 * Contenders in turns: A, B, C, then B, C, A, …, so that what the disk and the machine do meanwhile meets all alike.
 *
 * Guarantees: before every turn memory is brought into the state that the race is about, and the kernel is asked whether it is; the first round compiles and is not counted;
 * figures are medians over the rounds, ratios are medians of the ratios within each round; bars are drawn between turns, from what was measured so far.
 */
import { setTimeout as wait } from 'node:timers/promises';
import { figure } from '../bench/format.js';
import { Latencies, median, percentile } from '../bench/latencies.js';
import type { Contender, Turn } from './contenders.js';
import { barText, type Screen } from './screen.js';

const rounds = 10;
/** In scans read-ahead that nobody will take comes to an end before the next one's turn. */
const settleMs = 15;

export interface Runner extends Contender {
  /** A way of node:fs, which the others are compared to. */
  own: boolean;
  /** Brings memory into the state in which a turn begins; answers with per cent of what should be there, as the kernel counts. Undefined: it does not tell. */
  prepare(): Promise<number | undefined>;
}

export interface RaceJob {
  title: string;
  /** Short, for one line when it is done. */
  unit: 'reads/s' | 'MiB/s';
  /** From memory, not from the disk. */
  warm: boolean;
  seconds: number;
  /** Length of the order in which blocks are read. */
  places: number;
  runners: readonly Runner[];
}

export interface Result {
  name: string;
  own: boolean;
  /** In the race's unit. */
  rate: number;
  p50: number;
  p99: number;
  /** Microseconds of processor time for an operation. */
  cpu: number;
  /** Of the fastest way of node:fs. */
  ratio: number;
  operations: number;
  wrong: number;
}

export interface RaceResult {
  job: RaceJob;
  /** The least and most per cent in the page cache before the turns of those that read through it; undefined if the kernel does not tell. */
  cached: readonly [number, number] | undefined;
  results: Result[];
}

/** One runner's turns. */
class Lane {
  readonly latencies = new Latencies();
  readonly turns: Turn[] = [];
  readonly rates: number[] = [];
  /** Of the round that is not counted. */
  wrongBefore = 0;

  readonly runner: Runner;

  constructor(runner: Runner) {
    this.runner = runner;
  }

  add(turn: Turn, unit: RaceJob['unit']): void {
    this.turns.push(turn);
    this.rates.push((unit === 'reads/s' ? turn.operations : turn.bytes / 2 ** 20) / turn.seconds);
  }

  sum(key: 'operations' | 'wrong' | 'cpuMicros'): number {
    return this.turns.reduce((sum, turn) => sum + turn[key], 0);
  }
}

export async function race(job: RaceJob, screen: Screen): Promise<RaceResult> {
  const lanes = job.runners.map((runner) => new Lane(runner));
  const states: number[] = [];
  let told = true;
  screen.draw(frame(job, lanes, 0, screen), true);
  for (let round = -1; round < rounds; round++) {
    // The order in which blocks are read begins elsewhere in each round, and at the same place for all in it.
    const place = Math.floor((job.places * Math.max(0, round)) / rounds);
    for (let index = 0; index < lanes.length; index++) {
      const lane = lanes[(index + round + 1) % lanes.length];
      const state = await lane.runner.prepare();
      if (state === undefined) told = false;
      else states.push(state);
      if (!job.warm && job.unit === 'MiB/s') await wait(settleMs);
      const counted = round >= 0;
      const turn = await lane.runner.turn((job.seconds * 1000) / rounds, place, counted ? lane.latencies : new Latencies());
      if (counted) lane.add(turn, job.unit);
      else lane.wrongBefore += turn.wrong;
      screen.draw(frame(job, lanes, round + 1, screen));
      // Turns from memory never wait: here a signal is heard.
      await wait(0);
    }
  }
  screen.draw(frame(job, lanes, rounds, screen), true);
  screen.keep();

  const base = lanes.filter(({ runner }) => runner.own).reduce((best, lane) => (median(lane.rates) > median(best.rates) ? lane : best));
  const results = lanes.map((lane) => {
    const sorted = lane.latencies.sorted();
    const operations = lane.sum('operations');
    return {
      name: lane.runner.name,
      own: lane.runner.own,
      rate: median(lane.rates),
      p50: percentile(sorted, 50),
      p99: percentile(sorted, 99),
      cpu: lane.sum('cpuMicros') / operations,
      ratio: lane === base ? 1 : median(lane.rates.map((rate, round) => rate / base.rates[round])),
      operations,
      wrong: lane.sum('wrong') + lane.wrongBefore,
    };
  });
  if (!screen.live) screen.say(...frame(job, lanes, rounds, screen));
  return { job, cached: told && states.length > 0 ? [Math.min(...states), Math.max(...states)] : undefined, results };
}

/** Bars grow with the rounds; how far one is behind another is how much less it reads in a second. */
function frame(job: RaceJob, lanes: readonly Lane[], round: number, screen: Screen): string[] {
  const medians = lanes.map(({ rates }) => (rates.length === 0 ? 0 : median(rates)));
  const best = Math.max(...medians);
  const head = `  ${job.title}`;
  const progress = round === 0 ? 'warming up' : round < rounds ? `round ${round} of ${rounds}` : '';
  const bars = lanes.map(({ runner, rates }, index) => {
    const fraction = best === 0 ? 0 : (medians[index] / best) * (rates.length / rounds);
    const bar = screen.live ? barText(screen, fraction, Math.max(0, screen.columns - 50)) : '';
    return `    ${runner.name.padEnd(25)}${bar}${(rates.length === 0 ? '' : `${figure(medians[index])} ${job.unit}`).padStart(18)}`;
  });
  return [progress === '' ? head : `${head.padEnd(screen.columns - 2 - progress.length)}${progress}`, ...bars];
}
