/**
 * `npm test`: the whole suite with each engine, and what an engine or the kernel's answers matter to once more as an ordinary user with little memory to lock.
 *
 *   root:            io_uring, then threads      one after the other: only these make devices and mounts
 *   ordinary user:   io_uring, then threads      one after the other: both share what this user may lock; beside those of root
 *
 * Guarantees: what no run ran is named with the reason; a run's output is shown when it has ended, in one piece; the last line is `N passed, N failed, N skipped`,
 * summed over all runs; the exit code is 0 only if nothing failed and something passed.
 * Leaves to others: which files which run leaves out (test/scope.ts), single tests and watching (`npx vitest`).
 */
import { type SpawnOptions, spawn, spawnSync } from 'node:child_process';
import { chownSync, closeSync, cpSync, existsSync, mkdtempSync, openSync as openWithFs, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { availableParallelism, tmpdir } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { openSync } from '../src/index.js';
import { engineless, missingFrom, once, pure } from './test/scope.js';
import { addTally, emptyTally, type Tally, tallyLine } from './test/tally.js';

const root = join(dirname(fileURLToPath(import.meta.url)), '..', '..');
/** nobody, nogroup. */
const ordinaryUser = 65534;
/** The default limit of locked memory on many systems: too little to register every slab. */
const ordinaryMemlockBytes = 8 * 1024 * 1024;
/** Half of the machine for each of the two lanes: on two processors one file at a time. */
const workers = Math.max(1, Math.floor(availableParallelism() / 2));

const sum = emptyTally();
const scratch = mkdtempSync(join(tmpdir(), 'sectorwise-test-'));

interface Run {
  name: string;
  engine: 'io_uring' | 'threads' | undefined;
  without?: string[];
  /** Another run has the same tests, with another engine or user: what neither matters to need not vary as much (SECTORWISE_REPEATED=1). */
  repeated?: boolean;
  /** Where an ordinary user can read the project: makes the run his. */
  ordinaryRoot?: string;
}

/** Undefined if io_uring works here, else why not. */
function ioUringRefusal(): string | undefined {
  const path = join(scratch, 'probe');
  writeFileSync(path, Buffer.alloc(4096));
  const forced = process.env.SECTORWISE_ENGINE;
  try {
    delete process.env.SECTORWISE_ENGINE;
    const file = openSync(path, { caching: 'direct', engine: 'auto' });
    const { engine, features } = file.explain();
    file.closeSync();
    if (engine === 'io_uring') return undefined;
    const refused = features.filter(({ used, reason }) => !used && reason).map(({ name, reason }) => `${name}: ${reason}`);
    return `io_uring does not work here (${refused.join('; ') || 'no reason given'})`;
  } catch (error) {
    // The suite says better what is wrong: it runs, with threads.
    return `no file can be opened to find out (${(error as Error).message})`;
  } finally {
    if (forced !== undefined) process.env.SECTORWISE_ENGINE = forced;
  }
}

function skipRun(name: string, reason: string): void {
  sum.skipped.push({ name, reason });
}

function failRun(name: string, reason: string): void {
  process.stdout.write(`FAILED: ${name}: ${reason}\n`);
  sum.failed++;
}

/** A folder that an ordinary user can read the project in: this one, or a copy if it lies in somebody's private folder. */
function readableRoot(): string {
  const readable =
    spawnSync(process.execPath, ['-e', 'fs.readdirSync(process.argv[1])', root], { uid: ordinaryUser, gid: ordinaryUser, cwd: '/' }).status === 0;
  if (readable) return root;
  const copy = join(mkdtempSync(join(tmpdir(), 'sectorwise-copy-')), 'sectorwise');
  cpSync(root, copy, { recursive: true, filter: (source) => !['.git', 'coverage'].includes(basename(source)) });
  chownTree(dirname(copy));
  process.on('exit', () => rmSync(dirname(copy), { recursive: true, force: true }));
  return copy;
}

function chownTree(folder: string): void {
  spawnSync('chown', ['-R', `${ordinaryUser}:${ordinaryUser}`, folder]);
}

async function run({ name, engine, without = [], repeated = false, ordinaryRoot }: Run): Promise<void> {
  const begun = performance.now();
  process.stdout.write(`-- ${name}: begun\n`);
  const temp = mkdtempSync(join(scratch, 'run-'));
  const tallyPath = join(temp, 'tally.json');
  const env: NodeJS.ProcessEnv = { ...process.env };
  if (engine === undefined) delete env.SECTORWISE_ENGINE;
  else env.SECTORWISE_ENGINE = engine;
  if (repeated) env.SECTORWISE_REPEATED = '1';
  else delete env.SECTORWISE_REPEATED;
  const home = ordinaryRoot ?? root;
  const script = [join(home, 'dist', 'tools', 'test', 'run.js'), tallyPath, without.join(','), String(workers)];
  const outputPath = join(scratch, `${basename(temp)}.log`);
  const output = openWithFs(outputPath, 'w');
  const options: SpawnOptions = { cwd: home, env, stdio: ['ignore', output, output] };
  if (ordinaryRoot) {
    chownSync(temp, ordinaryUser, ordinaryUser);
    Object.assign(env, { TMPDIR: temp, HOME: temp });
    Object.assign(options, { uid: ordinaryUser, gid: ordinaryUser });
  }
  const [command, args] = ordinaryRoot ? ['prlimit', [`--memlock=${ordinaryMemlockBytes}`, process.execPath, ...script]] : [process.execPath, script];
  const status = await new Promise<number | string | null>((resolve) => {
    const child = spawn(command, args, options);
    child.on('error', (error) => resolve(error.message));
    child.on('close', (code, signal) => resolve(code ?? signal));
  });
  closeSync(output);
  process.stdout.write(`\n== ${name} (${Math.round((performance.now() - begun) / 1000)} s)\n${readFileSync(outputPath, 'utf8')}`);
  if (!existsSync(tallyPath)) {
    failRun(name, `ended without a result (${status})`);
    return;
  }
  const tally: Tally = JSON.parse(readFileSync(tallyPath, 'utf8'));
  if (tally.passed + tally.failed + tally.skipped.length === 0) failRun(name, 'found no tests');
  addTally(sum, tally);
}

/** One after the other. */
async function lane(runs: Run[]): Promise<void> {
  for (const each of runs) await run(each);
}

for (const path of missingFrom(root)) failRun('which file runs where', `${path} is not there`);
const refusal = ioUringRefusal();
if (refusal) skipRun('the suite with engine io_uring', refusal);
const ordinaryName = 'ordinary user, 8 MiB of lockable memory';
if (process.getuid?.() !== 0) {
  skipRun(ordinaryName, 'only root can change to another user; this run was by an ordinary one already');
  if (refusal) await lane([{ name: 'threads', engine: 'threads' }]);
  else {
    await lane([
      { name: 'io_uring', engine: undefined },
      { name: 'threads', engine: 'threads', without: [...pure, ...once, ...engineless], repeated: true },
    ]);
  }
} else {
  // scratch itself is ours alone: the ordinary user must be able to pass through it.
  chownTree(scratch);
  const ordinaryRoot = readableRoot();
  const ordinaryUring = `${ordinaryName}, io_uring`;
  const ordinaryThreads = `${ordinaryName}, threads`;
  // What is pure runs with the ordinary user, who has less to do.
  if (refusal) {
    await Promise.all([
      lane([{ name: 'threads', engine: 'threads', without: pure }]),
      lane([{ name: ordinaryThreads, engine: 'threads', without: once, repeated: true, ordinaryRoot }]),
    ]);
  } else {
    await Promise.all([
      lane([
        { name: 'io_uring', engine: undefined, without: pure },
        { name: 'threads', engine: 'threads', without: [...pure, ...once, ...engineless], repeated: true },
      ]),
      lane([
        { name: ordinaryUring, engine: undefined, without: once, repeated: true, ordinaryRoot },
        { name: ordinaryThreads, engine: 'threads', without: [...pure, ...once, ...engineless], repeated: true, ordinaryRoot },
      ]),
    ]);
  }
}

rmSync(scratch, { recursive: true, force: true });
if (sum.skipped.length > 0) process.stdout.write(`\nSkipped:\n${sum.skipped.map(({ name, reason }) => `  ${name}: ${reason}`).join('\n')}\n`);
if (sum.passed === 0) process.stdout.write('\nNo test ran: that counts as a failure.\n');
process.stdout.write(`\n${tallyLine(sum)}\n`);
process.exitCode = sum.failed > 0 || sum.passed === 0 ? 1 : 0;
