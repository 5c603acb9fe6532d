/** What a process that measures one run hands back: operations, latencies, processor time, and what the device moved meanwhile. */
import { type CpuSeconds, measureCpu } from './cpu-time.js';
import { type MovedBytes, measureMoved } from './devices.js';
import { percentile } from './latencies.js';
import type { Measured } from './workloads.js';

export interface RunResult {
  operations: number;
  bytes: number;
  seconds: number;
  /** µs */
  p50: number;
  p99: number;
  p999: number;
  /** Operations whose bytes were not the expected ones, or were too few. */
  mismatches: number;
  /** What all threads of the process took meanwhile. */
  cpu: CpuSeconds;
  /** What the device moved meanwhile. */
  moved?: MovedBytes;
  /** What else is known of the run. */
  notes?: Record<string, number>;
}

/** What a run took. */
export interface Taken {
  cpu: CpuSeconds;
  moved?: MovedBytes;
}

/** `statPath`: the counts of a device that nobody else uses, if the run is on one. */
export async function measureRun<Result>(statPath: string | undefined, run: () => Promise<Result>): Promise<{ measured: Result; taken: Taken }> {
  const movedEnded = measureMoved(statPath);
  const cpuEnded = measureCpu();
  const measured = await run();
  const cpu = cpuEnded();
  const moved = movedEnded();
  return { measured, taken: { cpu, ...(moved && { moved }) } };
}

export function runResult({ operations, bytes, seconds, latencies, mismatches }: Measured, taken: Taken, notes?: Record<string, number>): RunResult {
  const sorted = latencies.sorted();
  const [p50, p99, p999] = [50, 99, 99.9].map((percent) => percentile(sorted, percent));
  return { operations, bytes, seconds, p50, p99, p999, mismatches, ...taken, ...(notes && { notes }) };
}
