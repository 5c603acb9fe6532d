/** What the kernel says of the machine's memory. */
import { readFileSync } from 'node:fs';

/** Bytes that can be had without swapping (MemAvailable). */
export function availableBytes(): number {
  return Number(/^MemAvailable:\s+(\d+) kB$/m.exec(readFileSync('/proc/meminfo', 'utf8'))?.[1] ?? 0) * 1024;
}
