/**
 * fio as a contender: one run of it, and its flags.
 *
 * Its processor time is that of its jobs, as its JSON has it (usr_cpu and sys_cpu of the runtime), workers of the kernel for its ring included; starting and reporting are left out, as they are for the readers.
 * The bytes that the device moved are those of the device's own counts, or what the kernel charged to this process for children that ended.
 */
import { runChild } from './children.js';
import { measureMoved, type Place } from './devices.js';
import type { Contender, Figures } from './report.js';

export type FioOptions = Record<string, string | number>;

/** Undefined if fio can be run, else why not. */
export async function fioRefusal(): Promise<string | undefined> {
  try {
    await runChild('fio', ['--version']);
    return undefined;
  } catch (error) {
    return `fio cannot be run (${(error as NodeJS.ErrnoException).code ?? (error as Error).message})`;
  }
}

interface Direction {
  total_ios: number;
  io_bytes: number;
  /** Whole latencies, from the call to the completion. */
  lat_ns: { mean: number; percentile?: Record<string, number> };
}

/** What is read of fio's JSON. */
interface FioOutput {
  jobs: Array<{ error: number; job_runtime: number; usr_cpu: number; sys_cpu: number; read: Direction; write: Direction; sync: Direction }>;
}

export interface FioView {
  /** The counts of a device that nobody else uses. */
  statPath?: string;
  /** Whose latencies are wanted; the slower of reads and writes unless said. */
  latencyOf?: 'read' | 'sync';
}

/** One run. Jobs, where there are several, are reported as one. */
export async function runFio(options: FioOptions, unit: 'op/s' | 'MiB/s', { statPath, latencyOf }: FioView = {}): Promise<Figures> {
  const writes = String(options.rw ?? 'read') !== 'read' && String(options.rw) !== 'randread';
  const all: FioOptions = {
    name: 'peer',
    lat_percentiles: 1,
    clat_percentiles: 0,
    percentile_list: '50:99:99.9',
    randrepeat: 0,
    group_reporting: 1,
    'output-format': 'json',
    ...options,
  };
  const flags = Object.entries(all).map(([name, value]) => `--${name}=${value}`);
  const moved = measureMoved(statPath);
  const stdout = await runChild('fio', writes ? flags : ['--readonly', ...flags]);
  const device = moved();
  // fio writes notes before the JSON when it is unhappy with an option.
  const [job] = (JSON.parse(stdout.slice(stdout.indexOf('{'))) as FioOutput).jobs;
  if (job.error !== 0) throw new Error(`fio failed with error ${job.error}`);
  const { read, write, usr_cpu: user, sys_cpu: system } = job;
  // The sum of the runtimes of all jobs.
  const jobSeconds = job.job_runtime / 1000;
  const seconds = jobSeconds / Number(options.numjobs ?? 1);
  const operations = read.total_ios + write.total_ios;
  const directions = latencyOf === undefined ? [read, write] : [job[latencyOf]];
  const percentile = (which: string): number => Math.max(...directions.map(({ lat_ns }) => lat_ns.percentile?.[which] ?? 0)) / 1000;
  return {
    value: unit === 'op/s' ? operations / seconds : (read.io_bytes + write.io_bytes) / 1024 ** 2 / seconds,
    p50: percentile('50.000000'),
    p99: percentile('99.000000'),
    p999: percentile('99.900000'),
    cpu: ((((user + system) / 100) * jobSeconds) / operations) * 1e6,
    ...(device && { moved: (device.read + device.written) / operations }),
    notes: { seconds, cores: ((user + system) / 100) * (jobSeconds / seconds), ...(device && { deviceRead: device.read, deviceWritten: device.written }) },
  };
}

/** Flags of fio's io_uring for a place, and what they are called. */
export interface FioFlags {
  name: string;
  options: FioOptions;
}

/** The flags that may make it faster on a place: whoever compares with fio runs all of them, and takes the best; a thread that polls for a few large pieces only slows them down. Sending in batches is no flag of the ring. */
export function fioFlags(place: Place, { pollingThread = true } = {}): FioFlags[] {
  const fixed = { fixedbufs: 1, registerfiles: 1 };
  return [
    { name: 'fixed buffers and file', options: fixed },
    { name: 'no flags', options: {} },
    ...(pollingThread ? [{ name: 'fixed, SQPOLL', options: { ...fixed, sqthread_poll: 1 } }] : []),
    ...(place.polls ? [{ name: 'fixed, polled', options: { ...fixed, hipri: 1 } }] : []),
  ];
}

/** A row for each of the flags. */
export function fioRows(flags: readonly FioFlags[], refusal: string | undefined, run: (options: FioOptions) => Promise<Figures>): Contender[] {
  return flags.map(({ name, options }) => ({ name: `fio, ${name}`, peer: 'fio', missing: refusal, run: () => run(options) }));
}
