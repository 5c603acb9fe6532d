/**
 * Operations of some nanoseconds, in this process: measured in batches by tinybench, so that the clock is read once for many of them.
 *
 * The figure of a run is the median over its batches; p99 is that of batches too, and so hides a single slow operation within one.
 */
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { Bench } from 'tinybench';
import type { Contender } from './report.js';

/** Measured time, as that of a run: what is between batches takes as long again and more. */
const warmUpMs = 200;

export interface Batch {
  name: string;
  own?: boolean;
  /** Operations that one call of `run` does. */
  operations: number;
  run: () => void;
  /** Before each batch, outside the measured time. */
  prepare?: () => void | Promise<void>;
}

/** The batch as a contender; `seconds` is how long a run of it goes on. */
export function batchContender({ name, own, operations, run, prepare }: Batch, seconds: number): Contender {
  return {
    name,
    own,
    async run() {
      const bench = new Bench({ time: seconds * 1000, warmupTime: Math.min(warmUpMs, seconds * 100) });
      bench.add(name, run, prepare ? { beforeEach: prepare } : {});
      const [task] = await bench.run();
      const { result } = task;
      if (result.state === 'errored') throw result.error;
      if (result.state !== 'completed') throw new Error(`${name}: ${result.state}`);
      const nanoseconds = 1e6 / operations;
      return { value: result.latency.p50 * nanoseconds, p99: result.latency.p99 * nanoseconds };
    },
  };
}

/**
 * Bytes of the JavaScript heap that each of `operations` calls leaves behind, garbage included. Collects before it, and needs so few
 * operations that nothing is collected meanwhile; below some hundredths of a byte it is the measurement itself.
 */
export function heapBytesPerOperation(operations: number, run: () => void): number {
  setFlagsFromString('--expose-gc');
  const collect: () => void = runInNewContext('gc');
  run();
  collect();
  const before = process.memoryUsage().heapUsed;
  run();
  return (process.memoryUsage().heapUsed - before) / operations;
}
