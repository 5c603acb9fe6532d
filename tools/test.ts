/**
 * `npm test`: the whole suite with each engine, and what an engine or the kernel's answers matter to once more as an ordinary user with little memory to lock.
 *
 * Guarantees: what no run ran is named with the reason; the last line is `N passed, N failed, N skipped`, summed over all runs;
 * the exit code is 0 only if nothing failed and something passed.
 * Leaves to others: single tests and watching (`npx vitest`).
 */
import { spawnSync } from 'node:child_process';
import { chownSync, cpSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { openSync } from '../src/index.js';
import { addTally, emptyTally, type Tally, tallyLine } from './test/tally.js';

const root = join(dirname(fileURLToPath(import.meta.url)), '..', '..');
/** nobody, nogroup. */
const ordinaryUser = 65534;
/** The default limit of locked memory on many systems: too little to register every slab. */
const ordinaryMemlockBytes = 8 * 1024 * 1024;
/** What runs on no kernel at all: once is enough. */
const pureFolders = ['test/requests', 'test/simulation', 'test/testing', 'test/layout', 'test/tools'];
/** What runs under no engine. */
const enginelessFolders = [...pureFolders, 'test/geometry', 'test/rigs', 'test/unplug'];

const sum = emptyTally();
const scratch = mkdtempSync(join(tmpdir(), 'sectorwise-test-'));

interface Run {
  name: string;
  engine: 'io_uring' | 'threads' | undefined;
  without?: string[];
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

function run({ name, engine, without = [], ordinaryRoot }: Run): void {
  process.stdout.write(`\n== ${name}\n`);
  const temp = mkdtempSync(join(scratch, 'run-'));
  const tallyPath = join(temp, 'tally.json');
  const env: NodeJS.ProcessEnv = { ...process.env };
  if (engine === undefined) delete env.SECTORWISE_ENGINE;
  else env.SECTORWISE_ENGINE = engine;
  const home = ordinaryRoot ?? root;
  const script = [join(home, 'dist', 'tools', 'test', 'run.js'), tallyPath, without.join(',')];
  let status: number | null;
  if (ordinaryRoot) {
    chownSync(temp, ordinaryUser, ordinaryUser);
    Object.assign(env, { TMPDIR: temp, HOME: temp });
    const limited = [`--memlock=${ordinaryMemlockBytes}`, process.execPath, ...script];
    ({ status } = spawnSync('prlimit', limited, { cwd: home, env, stdio: 'inherit', uid: ordinaryUser, gid: ordinaryUser }));
  } else {
    ({ status } = spawnSync(process.execPath, script, { cwd: home, env, stdio: 'inherit' }));
  }
  if (!existsSync(tallyPath)) {
    failRun(name, `ended without a result (exit code ${status})`);
    return;
  }
  const tally: Tally = JSON.parse(readFileSync(tallyPath, 'utf8'));
  if (tally.passed + tally.failed + tally.skipped.length === 0) failRun(name, 'found no tests');
  addTally(sum, tally);
}

const refusal = ioUringRefusal();
if (refusal) skipRun('the suite with engine io_uring', refusal);
else run({ name: 'io_uring', engine: undefined });
run({ name: 'threads', engine: 'threads', without: refusal ? [] : enginelessFolders });

const ordinaryName = 'ordinary user, 8 MiB of lockable memory';
if (process.getuid?.() !== 0) {
  skipRun(ordinaryName, 'only root can change to another user; this run was by an ordinary one already');
} else {
  // scratch itself is ours alone: the ordinary user must be able to pass through it.
  chownTree(scratch);
  const ordinaryRoot = readableRoot();
  if (!refusal) run({ name: `${ordinaryName}, io_uring`, engine: undefined, without: pureFolders, ordinaryRoot });
  run({ name: `${ordinaryName}, threads`, engine: 'threads', without: refusal ? pureFolders : enginelessFolders, ordinaryRoot });
}

rmSync(scratch, { recursive: true, force: true });
if (sum.skipped.length > 0) process.stdout.write(`\nSkipped:\n${sum.skipped.map(({ name, reason }) => `  ${name}: ${reason}`).join('\n')}\n`);
if (sum.passed === 0) process.stdout.write('\nNo test ran: that counts as a failure.\n');
process.stdout.write(`\n${tallyLine(sum)}\n`);
process.exitCode = sum.failed > 0 || sum.passed === 0 ? 1 : 0;
