/**
 * Starting a child from a process with gigabytes of frames and mappings, beside an empty one.
 *
 * fork(2) copies the page table of whatever it does not know to leave out, and that is what Node.js starts children with: memory that a child inherits costs each start some 10 ms for each GiB. The last row shows that, with ordinary Buffers.
 * Frames, mappings and their tables are left out (MADV_DONTFORK), as V8 leaves its heap out. What remains is what malloc gave to V8's threads for compiling and collecting, whatever they worked for: the row of a
 * process that looked through little memory as often has that too, the empty one does not.
 * Guarantees: the processes live through all rounds and take turns; what they hold was asked of the kernel: no figures if it is less than was to be held.
 */
import { type ChildProcess, fork } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { bytesText } from './format.js';
import { CannotRun, compared, type Group, interleaveMany, type ManyContender } from './report.js';
import type { Held, SpawnJob, Starts, Took } from './spawn-run.js';

const gibibyte = 1024 ** 3;
const windowBytes = 4 * gibibyte;
const littleBytes = 4 * 1024 ** 2;
const bufferBytes = gibibyte;
/** Frames, page cache, Buffers, and something for everybody else. */
const neededBytes = 2 * windowBytes + bufferBytes + 2 * gibibyte;
const atMost = 1.1;

const names = {
  nothing: 'an empty process',
  little: `${bytesText(littleBytes)} of frames and ${bytesText(littleBytes)} of mappings`,
  windows: `${bytesText(windowBytes)} of frames and ${bytesText(windowBytes)} of mappings`,
  buffers: `${bytesText(bufferBytes)} of Buffers`,
};

function availableBytes(): number {
  const line = /^MemAvailable:\s+(\d+) kB$/m.exec(readFileSync('/proc/meminfo', 'utf8'));
  return Number(line?.[1] ?? 0) * 1024;
}

/** A process that starts children, once it is filled. */
class Starter {
  held: Held | undefined;
  readonly #process: ChildProcess;

  constructor(job: SpawnJob) {
    this.#process = fork(fileURLToPath(new URL('./spawn-run.js', import.meta.url)), [JSON.stringify(job)]);
  }

  async filled(): Promise<Held> {
    this.held ??= await this.#answer<Held>();
    return this.held;
  }

  start(seconds: number): Promise<Starts> {
    const answer = this.#answer<Starts>();
    this.#process.send({ seconds });
    return answer;
  }

  end(): void {
    this.#process.kill('SIGKILL');
  }

  #answer<T>(): Promise<T> {
    return new Promise((resolve, reject) => {
      const onExit = (code: number | null, signal: string | null): void => reject(new Error(`the process that starts children ended (${code ?? signal})`));
      this.#process.once('exit', onExit);
      this.#process.once('message', (message) => {
        this.#process.off('exit', onExit);
        resolve(message as T);
      });
    });
  }
}

export const spawn: Group = {
  name: 'spawn',
  title: `starting children with ${bytesText(windowBytes)} of frames and of mappings`,
  async run(settings) {
    const folder = mkdtempSync(join(settings.folder, 'sectorwise-bench-'));
    const starters: Starter[] = [];
    const release = (): void => {
      for (const starter of starters) starter.end();
      rmSync(folder, { recursive: true, force: true });
    };
    process.on('exit', release);
    try {
      // Sparse: what counts here is memory and page tables, and those are as full as any.
      const sparse = (name: string, bytes: number): string => {
        const path = join(folder, name);
        writeFileSync(path, '');
        truncateSync(path, bytes);
        return path;
      };
      const missing = availableBytes() < neededBytes ? `needs ${bytesText(neededBytes)} of memory that is free` : undefined;
      const contender = (row: keyof typeof names, holds: SpawnJob['holds'], bytes: number, least: (held: Held) => boolean): ManyContender => {
        let starter: Starter | undefined;
        return {
          name: names[row],
          own: holds === 'windows',
          missing: bytes > littleBytes ? missing : undefined,
          run: async () => {
            if (starter === undefined) {
              const files = { direct: sparse(`${row}-direct`, bytes), mapped: sparse(`${row}-mapped`, bytes) };
              starter = new Starter({ holds, bytes, times: Math.max(1, Math.round(windowBytes / bytes)), ...files });
              starters.push(starter);
            }
            const held = await starter.filled();
            if (!least(held)) {
              const amounts = Object.entries(held).map(([of, amount]) => `${of} ${bytesText(amount)}`);
              throw new CannotRun(`holds only ${amounts.join(', ')}`);
            }
            const { sync, call, exit, node } = await starter.start(settings.seconds);
            return [sync, call, exit, node].map((took) => figuresOf(took, held));
          },
        };
      };
      // Frames are mapped twice, and both are looked at: by the device and by windows.
      const full = (bytes: number) => (held: Held) => held.frames >= 1.99 * bytes && held.mapped >= 0.99 * bytes;
      const contenders = [
        contender('nothing', 'nothing', 0, () => true),
        contender('little', 'windows', littleBytes, full(littleBytes)),
        contender('windows', 'windows', windowBytes, full(windowBytes)),
        contender('buffers', 'buffers', bufferBytes, ({ all }) => all >= bufferBytes),
      ];
      const titles = ["spawnSync('/bin/true')", "spawn('/bin/true'), the call", "spawn('/bin/true'), until 'exit'", "fork of an empty program, until 'exit'"];
      const sections = await interleaveMany(
        titles.map((title) => ({ title, unit: 'ms' as const })),
        contenders,
        settings,
      );
      return {
        sections,
        targets: sections.flatMap((section) =>
          [names.nothing, names.little].map((other) => ({
            text: `${section.title}: ${names.windows}, to ${other}`,
            measured: compared(section, names.windows, other),
            unit: 'times',
            atMost,
          })),
        ),
      };
    } finally {
      process.off('exit', release);
      release();
    }
  },
};

function figuresOf({ median, p99, count }: Took, { frames, mapped, all }: Held) {
  const notes = { starts: count, framesInPageTable: frames, mappedInPageTable: mapped, allInPageTable: all };
  return { value: median, p50: median * 1000, p99: p99 * 1000, notes };
}
