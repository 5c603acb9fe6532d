/**
 * Images that lie, by the million.
 *
 *   npm run fuzz -- layout                                1,000,000 inputs from seed 1
 *   npm run fuzz -- layout --inputs 50000 --seed 7
 *   npm run fuzz -- layout --seed 7 --from 123 --inputs 1  the one that failed
 *
 *   npm run fuzz -- plan                                  1,000 random plans, written and shown to sfdisk, sgdisk and parted; 250 FAT and 125 exFAT volumes made by their tools
 *   npm run fuzz -- plan --inputs 100
 *
 * For `layout` the work is done in a worker; this thread watches that it goes on. Ends with exit code 1 at the first input that breaks a promise, or takes longer than
 * `inputSeconds`, and names it.
 */
import { spawnSync } from 'node:child_process';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads';
import { emptyTally, fuzzOne, type Tally } from '../test/layout/fuzz.js';

interface Work {
  seed: number;
  from: number;
  inputs: number;
  /** Index of the input that is being checked. */
  progress: SharedArrayBuffer;
}

type Message = { tally: Tally } | { failed: string };

/** Of one input, which takes less than a millisecond: not a measure, but a sign of a loop. */
const inputSeconds = 60;
const usage = 'Usage: npm run fuzz -- layout [--inputs <how many>] [--seed <seed>] [--from <first input>]\n       npm run fuzz -- plan [--inputs <how many>]\n';

if (isMainThread) watch();
else work(workerData as Work);

function work({ seed, from, inputs, progress }: Work): void {
  const index = new Uint32Array(progress);
  const tally = emptyTally();
  const tell = (message: Message) => parentPort?.postMessage(message);
  try {
    for (let input = from; input < from + inputs; input++) {
      Atomics.store(index, 0, input);
      fuzzOne(seed, input, tally);
    }
    tell({ tally });
  } catch (error) {
    tell({ failed: `${(error as Error).message}\n${((error as Error).cause as Error | undefined)?.stack ?? ''}` });
  }
}

function watch(): void {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: { inputs: { type: 'string' }, seed: { type: 'string', default: '1' }, from: { type: 'string', default: '0' } },
  });
  if (positionals.join() === 'plan') process.exit(plans(values.inputs ?? '1000'));
  const [inputs, seed, from] = [values.inputs ?? '1000000', values.seed, values.from].map(Number);
  if (
    positionals.join() !== 'layout' ||
    !Number.isSafeInteger(inputs) ||
    inputs < 1 ||
    !Number.isSafeInteger(seed) ||
    !Number.isSafeInteger(from) ||
    from < 0
  ) {
    process.stderr.write(usage);
    process.exit(64);
  }
  const progress = new SharedArrayBuffer(4);
  const index = new Uint32Array(progress);
  Atomics.store(index, 0, from);
  const work: Work = { seed, from, inputs, progress };
  const worker = new Worker(new URL(import.meta.url), { workerData: work });

  const began = performance.now();
  const rate = (done: number) => {
    const seconds = (performance.now() - began) / 1000;
    return `${done} of ${inputs} inputs, ${seconds.toFixed(0)} s, ${(done / seconds).toFixed(0)} inputs/s`;
  };
  const end = (text: string, code: number) => {
    clearInterval(timer);
    process.stdout.write(`${process.stdout.isTTY ? '\r' : ''}${text}\n`);
    process.exit(code);
  };
  const again = (input: number) => `again: npm run fuzz -- layout --seed ${seed} --from ${input} --inputs 1`;
  const tickSeconds = process.stdout.isTTY ? 1 : 10;
  let last = -1;
  let still = 0;
  const timer = setInterval(() => {
    const at = Atomics.load(index, 0);
    still = at === last ? still + tickSeconds : 0;
    last = at;
    if (still >= inputSeconds) end(`input ${at} takes longer than ${inputSeconds} s\n${again(at)}`, 1);
    process.stdout.write(process.stdout.isTTY ? `\r${rate(at - from)} ` : `${rate(at - from)}\n`);
  }, tickSeconds * 1000);

  worker.on('message', (message: Message) => {
    if ('failed' in message) end(`${message.failed}\n${again(Atomics.load(index, 0))}`, 1);
    else end(`${rate(message.tally.inputs)}: no promise broken\n${told(message.tally)}`, 0);
  });
  worker.on('error', (error) => end(`the worker ended: ${error.message}\n${again(Atomics.load(index, 0))}`, 1));
}

/** The tests of plans with more of them; fast-check says the seed of one that fails. Exit code. */
function plans(inputs: string): number {
  if (!/^[1-9]\d{0,6}$/.test(inputs)) {
    process.stderr.write(usage);
    return 64;
  }
  const root = join(dirname(fileURLToPath(import.meta.url)), '..', '..');
  const hours = String(6 * 3_600_000);
  const args = [
    join(root, 'node_modules/vitest/vitest.mjs'),
    'run',
    '--testTimeout',
    hours,
    '-t',
    'random',
    'test/layout/plan-tools.test.ts',
    'test/layout/plan-mkfs.test.ts',
  ];
  return spawnSync(process.execPath, args, { cwd: root, stdio: 'inherit', env: { ...process.env, SECTORWISE_PLANS: inputs } }).status ?? 1;
}

function told(tally: Tally): string {
  const list = (counts: Record<string, number>) =>
    Object.entries(counts)
      .sort((a, b) => b[1] - a[1])
      .map(([name, count]) => `${name} ${count}`)
      .join(', ');
  return [
    `most of one input: ${tally.bytesRead} bytes in ${tally.reads} reads, ${tally.findings} findings`,
    `exit codes: ${list(tally.exits)}`,
    `tables: ${list(tally.tables)}`,
    `states: ${list(tally.states)}`,
    `volumes: ${list(tally.volumes)}`,
    `findings: ${list(tally.codes)}`,
  ].join('\n');
}
