/**
 * How long does the event loop stand still while 10,000 random cold blocks of 4 KiB arrive from a device that does 2,000 reads a second?
 *
 * `window()` has 64 outstanding. An engine over mmap-io has no way to wait but to touch the byte: once as one touch in each turn of the loop, once as all of a turn's 64, which is what the same
 * requests come to. "nothing" is the same loop without any reading: what the machine itself takes away.
 *
 * Each run is a process of its own (stall-run.ts) that measures by `perf_hooks.monitorEventLoopDelay` and by the gaps of a `setImmediate` that is always pending.
 * Guarantees: the file is cold before each run (less than 2 % in memory, asked of the kernel); the device's own counts show that the blocks were read from it, and at no more than that rate.
 */
import { peerPackages } from './peer-packages.js';
import { runModule } from './peers.js';
import { type Group, interleaveMany, type ManyContender, medianOf } from './report.js';
import type { StallJob, StallResult } from './stall-run.js';
import { makeThrottledFile, Undo } from './throttled-device.js';

const size = 1024 ** 3;
const blocks = 10_000;
const depth = 64;
const iops = 2000;
/** The kernel hands out operations in slices of time, so that a run may end a little early. */
const rateMax = 1.1;

const names = {
  nothing: 'nothing',
  window: 'window(), page cache',
  direct: 'window(), direct',
  mappedOne: 'mmap-io, one touch a turn',
  mappedAll: `mmap-io, ${depth} touches a turn`,
};

export const stall: Group = {
  name: 'stall',
  title: `Event loop while ${blocks.toLocaleString('en-US')} cold 4 KiB blocks arrive at ${iops.toLocaleString('en-US')} a second`,
  async run(settings) {
    const { refusals } = await peerPackages(settings.log);
    const undo = new Undo();
    try {
      const made = await makeThrottledFile(settings.folder, size, iops, undo);
      const missing = typeof made === 'string' ? made : undefined;
      const contender = (name: string, kind: StallJob['kind'], own: boolean, refusal?: string): ManyContender => ({
        name,
        own,
        ...(kind.startsWith('mapped') && { peer: 'node' as const }),
        missing: missing ?? refusal,
        run: async () => {
          if (typeof made === 'string') throw new Error(made);
          const job: StallJob = { ...made, kind, size, blocks, depth };
          const result = await runModule<StallResult>('stall-run', job);
          const { seconds, deviceReads, deviceReadBytes } = result;
          if (kind !== 'nothing') {
            if (deviceReadBytes < blocks * 4096 * 0.98) throw new Error(`${name}: only ${deviceReadBytes} bytes came from the device`);
            if (deviceReads / seconds > iops * rateMax) throw new Error(`${name}: ${deviceReads / seconds} reads a second: the device is not slowed down`);
          }
          const notes = { deviceReads, readsPerSecond: deviceReads / seconds, gapsAbove2ms: result.gapsAbove2ms, p99: result.delayP99 };
          return [
            { value: result.delayMax, notes },
            { value: result.gapMax, notes: { p99: result.gapP99 } },
            { value: blocks / seconds, p50: result.p50, p99: result.p99 },
          ];
        },
      });
      const contenders = [
        contender(names.nothing, 'nothing', false),
        contender(names.window, 'windows', true),
        contender(names.direct, 'direct-windows', true),
        contender(names.mappedOne, 'mapped-one', false, refusals['mmap-io']),
        contender(names.mappedAll, 'mapped-all', false, refusals['mmap-io']),
      ];
      const heads = [
        { title: 'longest delay, perf_hooks', unit: 'ms' as const },
        { title: 'longest gap between two turns', unit: 'ms' as const },
        { title: 'how fast they arrived', unit: 'op/s' as const },
      ];
      const sections = await interleaveMany(heads, contenders, settings);
      const [delays, gaps, rates] = sections;
      rates.rows = rates.rows.filter((row) => row.name !== names.nothing);
      return {
        sections,
        targets: [
          { text: 'window() through the page cache, longest delay by perf_hooks', measured: medianOf(delays, names.window), unit: 'ms', atMost: 2 },
          { text: 'window() through the page cache, longest gap between two turns', measured: medianOf(gaps, names.window), unit: 'ms', atMost: 2 },
        ],
      };
    } finally {
      undo.run();
    }
  },
};
