/**
 * `npm run bench -- [group…]`: measures, prints a table with the targets, and writes docs/benchmarks/<group>.json and .svg.
 *
 * Guarantees: the JSON holds every round's figures and the machine they were taken on; exit code 0 says that everything ran, not that targets were met.
 */
import { mkdirSync, realpathSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { directRandom } from './direct-random.js';
import { hits } from './hits.js';
import { invalidate } from './invalidate.js';
import { memory } from './memory.js';
import { plot } from './plot.js';
import { type Group, machineFacts, type Report, reportLines } from './report.js';
import { scan } from './scan.js';
import { sequential } from './sequential.js';
import { spawn } from './spawn.js';
import { stall } from './stall.js';
import { tracker } from './tracker.js';

const groups: readonly Group[] = [directRandom, sequential, scan, hits, stall, invalidate, memory, spawn, tracker];

const usage = `Usage: npm run bench -- [options] [group…]

Groups (default: all):
${groups.map(({ name, title }) => `  ${name.padEnd(16)} ${title}`).join('\n')}

  --folder PATH    where the files to read are made (default: the temp folder)
  --rounds N       how often each contender has its turn (default 5)
  --seconds N      how long one run of it is (default 2)
  --out PATH       where <group>.json and <group>.svg go (default docs/benchmarks)
  --help           this text`;

function fail(message: string): never {
  process.stderr.write(`sectorwise bench: ${message}\n`);
  process.exit(2);
}

function asked(): ReturnType<typeof parse> {
  try {
    return parse();
  } catch (error) {
    return fail(`${(error as Error).message.split(/\.?\n|\. /)[0]}; --help lists the options`);
  }
}

function parse() {
  return parseArgs({
    allowPositionals: true,
    options: {
      folder: { type: 'string', default: tmpdir() },
      rounds: { type: 'string', default: '5' },
      seconds: { type: 'string', default: '2' },
      out: { type: 'string', default: join('docs', 'benchmarks') },
      help: { type: 'boolean', short: 'h', default: false },
    },
  });
}

function say(...lines: string[]): void {
  process.stdout.write(`${lines.join('\n')}\n`);
}

async function measure(group: Group, folder: string, rounds: number, seconds: number, out: string): Promise<void> {
  say(`\n== ${group.name}: ${group.title}`);
  const { sections, targets } = await group.run({ folder, rounds, seconds, log: say });
  const report: Report = { group: group.name, title: group.title, date: new Date().toISOString(), machine: machineFacts(folder), sections, targets };
  writeFileSync(join(out, `${group.name}.json`), `${JSON.stringify(report, undefined, 1)}\n`);
  writeFileSync(join(out, `${group.name}.svg`), plot(report));
  say('', ...reportLines(report));
}

// An 'exit' listener removes the file that is read; a signal's default action would not run it.
process.on('SIGINT', () => process.exit(130));
process.on('SIGTERM', () => process.exit(143));

const { values, positionals } = asked();
if (values.help) {
  say(usage);
} else {
  const rounds = Number(values.rounds);
  const seconds = Number(values.seconds);
  if (!Number.isSafeInteger(rounds) || rounds < 1) fail(`--rounds takes a whole number above 0, not '${values.rounds}'`);
  if (!(seconds > 0)) fail(`--seconds takes a number above 0, not '${values.seconds}'`);
  if (!statSync(values.folder, { throwIfNoEntry: false })?.isDirectory()) fail(`--folder: ${values.folder} is not a directory`);
  const chosen = positionals.map((name) => groups.find((group) => group.name === name) ?? fail(`there is no group '${name}'; --help lists them`));
  mkdirSync(values.out, { recursive: true });
  for (const group of chosen.length > 0 ? chosen : groups) await measure(group, realpathSync(resolve(values.folder)), rounds, seconds, values.out);
}
