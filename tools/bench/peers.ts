/**
 * Contenders that are processes of their own: fio, and one Node.js process for each run of a reader (reader.ts).
 *
 * A process for each run keeps one contender's garbage, compiled code and thread pool away from the next one.
 */
import { execFile } from 'node:child_process';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import type { ReaderJob, ReaderResult } from './reader.js';
import type { Figures } from './report.js';

const execute = promisify(execFile);

/** Runs a module of this folder to its end, in a Node.js process of its own: a job as JSON goes in, one line of JSON comes out. */
export async function runModule<Result>(name: string, job: unknown, env: NodeJS.ProcessEnv = process.env): Promise<Result> {
  const module = join(dirname(fileURLToPath(import.meta.url)), `${name}.js`);
  const { stdout } = await execute(process.execPath, [module, JSON.stringify(job)], { env, maxBuffer: 1 << 20 });
  return JSON.parse(stdout) as Result;
}

/** Runs one reader to its end. `threads` is its UV_THREADPOOL_SIZE; Node's default is 4. */
export async function runReader(job: ReaderJob, threads?: number): Promise<ReaderResult> {
  const env = { ...process.env };
  if (threads === undefined) delete env.UV_THREADPOOL_SIZE;
  else env.UV_THREADPOOL_SIZE = String(threads);
  const result = await runModule<ReaderResult>('reader', job, env);
  if (result.mismatches > 0) throw new Error(`${job.kind}: ${result.mismatches} reads had the wrong length`);
  return result;
}

/** Undefined if fio can be run, else why not. */
export async function fioRefusal(): Promise<string | undefined> {
  try {
    await execute('fio', ['--version']);
    return undefined;
  } catch (error) {
    return `fio is not installed (${(error as NodeJS.ErrnoException).code}); its rows are missing, and the targets that need it`;
  }
}

/** What is read of fio's JSON: rates, and percentiles of whole latencies (from the call to the completion) in ns. */
interface FioOutput {
  jobs: Array<{ error: number; read: { iops: number; bw_bytes: number; lat_ns: { percentile: Record<string, number> } } }>;
}

export async function runFio(options: Record<string, string | number>, unit: 'op/s' | 'MiB/s'): Promise<Figures> {
  const all = { name: 'reader', readonly: 1, lat_percentiles: 1, clat_percentiles: 0, randrepeat: 0, 'output-format': 'json', ...options };
  const flags = Object.entries(all).map(([name, value]) => (name === 'readonly' ? '--readonly' : `--${name}=${value}`));
  const { stdout } = await execute('fio', flags, { maxBuffer: 1 << 24 });
  // fio writes notes before the JSON when it is unhappy with an option.
  const output: FioOutput = JSON.parse(stdout.slice(stdout.indexOf('{')));
  const [{ error, read }] = output.jobs;
  if (error !== 0) throw new Error(`fio failed with error ${error}`);
  const { percentile } = read.lat_ns;
  return { value: unit === 'op/s' ? read.iops : read.bw_bytes / 1024 ** 2, p50: percentile['50.000000'] / 1000, p99: percentile['99.000000'] / 1000 };
}
