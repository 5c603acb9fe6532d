/**
 * What can be watched from outside: diagnostics channels, histograms of latencies, and lines for `NODE_DEBUG=sectorwise`.
 *
 *   window, read, write, flush ──> is anybody interested? ── no ──> nothing
 *                                          └─ yes ──> when it is settled: a message, a duration
 *
 * Guarantees: without a subscriber, a histogram or NODE_DEBUG a call costs one or two comparisons, and allocates nothing; what is answered or taken within the call (from memory, into frames) is not
 * reported: it takes less time than telling of it.
 * Leaves to others: counts (`BlockFile.stats`).
 */
import { channel } from 'node:diagnostics_channel';
import { createHistogram, type RecordableHistogram } from 'node:perf_hooks';
import { debuglog } from 'node:util';

/** What the channels `sectorwise:read`, `sectorwise:write` and `sectorwise:flush` publish once a call is settled that was not answered at once. */
export interface TraceMessage {
  /** The file or device, as it was opened. */
  path: string;
  /** The method. */
  operation: 'window' | 'read' | 'write' | 'flush';
  /** First byte; 0 for a flush. */
  offset: number;
  /** Bytes that were asked for; 0 for a flush. */
  length: number;
  /** Milliseconds from the call to its end. */
  duration: number;
  /** What it rejected with, undefined where it did not. */
  error: Error | undefined;
}

/** What the channel `sectorwise:invalidate` publishes: an 'invalidate' event, and of which file. */
export interface InvalidateMessage {
  /** The file or device, as it was opened. */
  path: string;
  /** Why windows are gone. */
  cause: 'unplug' | 'truncate' | 'shutdown' | 'close';
  /** First byte of the range. */
  offset: number;
  /** Bytes in the range. */
  length: number;
}

/** Durations in nanoseconds, of what was asked since they were first asked for and had to wait for a device, a lock or a change before it. */
export interface Latencies {
  /** `window` and `read`. */
  read: RecordableHistogram;
  /** `write`. */
  write: RecordableHistogram;
  /** `flush`. */
  flush: RecordableHistogram;
}

export const readChannel = channel('sectorwise:read');
export const writeChannel = channel('sectorwise:write');
export const flushChannel = channel('sectorwise:flush');
export const invalidateChannel = channel('sectorwise:invalidate');

/** Writes a line to stderr if NODE_DEBUG names sectorwise. Ask `debug.enabled` before making an expensive one. */
export const debug = debuglog('sectorwise');

export function makeLatencies(): Latencies {
  return { read: createHistogram(), write: createHistogram(), flush: createHistogram() };
}

const channels = { window: readChannel, read: readChannel, write: writeChannel, flush: flushChannel };
const histograms = { window: 'read', read: 'read', write: 'write', flush: 'flush' } as const;

/** The same promise, whose end is told to whoever is interested by then. */
export function traced<T>(
  promise: Promise<T>,
  latencies: Latencies | undefined,
  path: string,
  operation: TraceMessage['operation'],
  offset: number,
  length: number,
): Promise<T> {
  const begun = performance.now();
  const ended = (error: Error | undefined): void => {
    const duration = performance.now() - begun;
    latencies?.[histograms[operation]].record(Math.max(1, Math.round(duration * 1e6)));
    const told = channels[operation];
    if (told.hasSubscribers) told.publish({ path, operation, offset, length, duration, error } satisfies TraceMessage);
  };
  promise.then(() => ended(undefined), ended);
  return promise;
}
