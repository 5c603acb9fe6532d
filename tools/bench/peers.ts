/**
 * Contenders that are Node.js processes of their own: one for each run of a reader (reader.ts) or of another module of this folder.
 *
 * A process for each run keeps one contender's garbage, compiled code and thread pool away from the next one.
 */
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { runChild } from './children.js';
import type { RunResult } from './measured-run.js';
import type { ReaderJob } from './reader.js';
import type { Figures } from './report.js';

/** Runs a module of this folder to its end, in a Node.js process of its own: a job as JSON goes in, one line of JSON comes out. */
export async function runModule<Result>(name: string, job: unknown, env: NodeJS.ProcessEnv = process.env): Promise<Result> {
  const module = join(dirname(fileURLToPath(import.meta.url)), `${name}.js`);
  return JSON.parse(await runChild(process.execPath, [module, JSON.stringify(job)], env)) as Result;
}

/** The environment of a run. `threads` is its UV_THREADPOOL_SIZE; Node's default is 4. */
export function withThreads(threads?: number): NodeJS.ProcessEnv {
  const env = { ...process.env };
  if (threads === undefined) delete env.UV_THREADPOOL_SIZE;
  else env.UV_THREADPOOL_SIZE = String(threads);
  return env;
}

/** Runs one reader to its end. */
export async function runReader(job: ReaderJob, threads?: number): Promise<RunResult> {
  const result = await runModule<RunResult>('reader', job, withThreads(threads));
  if (result.mismatches > 0) throw new Error(`${job.kind}: ${result.mismatches} reads had the wrong length`);
  return result;
}

/** What a run says, as figures of a row. */
export function runFigures({ operations, bytes, seconds, p50, p99, p999, cpu, moved }: RunResult, unit: 'op/s' | 'MiB/s'): Figures {
  return {
    value: unit === 'op/s' ? operations / seconds : bytes / 1024 ** 2 / seconds,
    p50,
    p99,
    p999,
    cpu: ((cpu.user + cpu.system) / operations) * 1e6,
    ...(moved && { moved: (moved.read + moved.written) / operations }),
    notes: { seconds, cores: (cpu.user + cpu.system) / seconds },
  };
}
