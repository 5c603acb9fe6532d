/**
 * Processor time of this process: of JavaScript, of Node's and our own threads, and of the kernel's workers for its io_uring.
 *
 * Those workers (iou-wrk-…, iou-sqp-…) are threads of the process, so getrusage counts them.
 * Guarantees: that it does so was checked: the sum is not below what the scheduler says of the threads that are alive.
 * Leaves out: what the kernel does in interrupts and in workers of its own (completions of the device, write-back), for whoever it is.
 */
import { readdirSync, readFileSync } from 'node:fs';

export interface CpuSeconds {
  user: number;
  system: number;
  /** Part of the two: threads of the kernel's io_uring that were alive at the end. */
  workers: number;
}

/** Seconds on a processor of each thread that is alive, by its id; the scheduler counts nanoseconds. */
function threadSeconds(): Map<string, { name: string; seconds: number }> {
  const found = new Map<string, { name: string; seconds: number }>();
  for (const id of readdirSync('/proc/self/task')) {
    try {
      const name = readFileSync(`/proc/self/task/${id}/comm`, 'utf8').trim();
      const [nanoseconds] = readFileSync(`/proc/self/task/${id}/schedstat`, 'utf8').split(' ');
      found.set(id, { name, seconds: Number(nanoseconds) / 1e9 });
    } catch {
      // It ended meanwhile, or the kernel keeps no such statistics.
    }
  }
  return found;
}

/** Begins; the function that it answers with ends. */
export function measureCpu(): () => CpuSeconds {
  const before = threadSeconds();
  const start = process.cpuUsage();
  return () => {
    const { user, system } = process.cpuUsage(start);
    let alive = 0;
    let workers = 0;
    for (const [id, { name, seconds }] of threadSeconds()) {
      const spent = seconds - (before.get(id)?.seconds ?? 0);
      alive += spent;
      if (name.startsWith('iou-')) workers += spent;
    }
    const all = (user + system) / 1e6;
    if (all < alive * 0.9 - 0.02) throw new Error(`threads took ${alive} s, but getrusage says ${all} s: it does not count all of them`);
    return { user: user / 1e6, system: system / 1e6, workers };
  };
}
