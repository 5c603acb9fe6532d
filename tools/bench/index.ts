/**
 * `npm run bench -- [group…]`: measures, prints a table with the targets, and writes docs/benchmarks/<group>.json and .svg.
 *
 * Guarantees: the JSON holds every round's figures and the machine they were taken on; exit code 0 says that everything ran, not that targets were met.
 */
import { existsSync, mkdirSync, readFileSync, realpathSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { appends } from './appends.js';
import { cache } from './cache.js';
import { hits } from './hits.js';
import { imports } from './import.js';
import { invalidate } from './invalidate.js';
import { memory } from './memory.js';
import { mixed } from './mixed.js';
import { pagestore } from './pagestore.js';
import { plot } from './plot.js';
import { random } from './random.js';
import { type Group, machineFacts, type Report, reportLines, type Settings } from './report.js';
import { scan } from './scan.js';
import { sequential } from './sequential.js';
import { spawn } from './spawn.js';
import { stall } from './stall.js';
import { tracker } from './tracker.js';

/** One line each: they are added to. */
const groups: readonly Group[] = [
  random,
  sequential,
  scan,
  appends,
  mixed,
  hits,
  stall,
  invalidate,
  memory,
  spawn,
  tracker,
  cache,
  pagestore,
  imports,
  //
];
/** What groups were called before. */
const formerNames = new Map([['direct-random', 'random']]);

const fullRounds = 3;
const fullSeconds = 2;
const quickSeconds = 0.3;

const usage = `Usage: npm run bench -- [options] [group…]

Groups (default: all):
${groups.map(({ name, title }) => `  ${name.padEnd(16)} ${title}`).join('\n')}

  --folder PATH    where the files to read are made (default: the temp folder)
  --rounds N       how often each contender has its turn (default ${fullRounds})
  --seconds N      how long one run of it is (default ${fullSeconds})
  --quick          one round of ${quickSeconds} s over less: does everything run? Results go to
                   the temp folder, not to the docs, unless --out is given
  --plot           make the plots of the JSON files anew, and measure nothing
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
      rounds: { type: 'string' },
      seconds: { type: 'string' },
      quick: { type: 'boolean', default: false },
      plot: { type: 'boolean', default: false },
      out: { type: 'string' },
      help: { type: 'boolean', short: 'h', default: false },
    },
  });
}

function say(...lines: string[]): void {
  process.stdout.write(`${lines.join('\n')}\n`);
}

async function measure(group: Group, settings: Settings, out: string): Promise<void> {
  say(`\n== ${group.name}: ${group.title}`);
  const begun = performance.now();
  const { sections, targets } = await group.run(settings);
  const machine = machineFacts(settings.folder);
  const report: Report = { group: group.name, title: group.title, date: new Date().toISOString(), machine, sections, targets };
  writeFileSync(join(out, `${group.name}.json`), `${JSON.stringify(report, undefined, 1)}\n`);
  writeFileSync(join(out, `${group.name}.svg`), plot(report));
  say('', ...reportLines(report), '', `${group.name} took ${Math.round((performance.now() - begun) / 1000)} s; ${join(out, `${group.name}.json`)}`);
}

/** The plots of what was measured before. */
function plotAnew(chosen: readonly Group[], out: string): void {
  for (const { name } of chosen) {
    const path = join(out, `${name}.json`);
    if (!existsSync(path)) continue;
    writeFileSync(join(out, `${name}.svg`), plot(JSON.parse(readFileSync(path, 'utf8')) as Report));
    say(join(out, `${name}.svg`));
  }
}

// An 'exit' listener takes down what was made and ends what was started; a signal's default action would not run it.
process.on('SIGINT', () => process.exit(130));
process.on('SIGHUP', () => process.exit(129));
process.on('SIGTERM', () => process.exit(143));

const { values, positionals } = asked();
if (values.help) {
  say(usage);
} else {
  const { quick } = values;
  const rounds = Number(values.rounds ?? (quick ? 1 : fullRounds));
  const seconds = Number(values.seconds ?? (quick ? quickSeconds : fullSeconds));
  const out = values.out ?? (quick ? join(tmpdir(), 'sectorwise-bench-quick') : join('docs', 'benchmarks'));
  if (!Number.isSafeInteger(rounds) || rounds < 1) fail(`--rounds takes a whole number above 0, not '${values.rounds}'`);
  if (!(seconds > 0)) fail(`--seconds takes a number above 0, not '${values.seconds}'`);
  if (!statSync(values.folder, { throwIfNoEntry: false })?.isDirectory()) fail(`--folder: ${values.folder} is not a directory`);
  const named = positionals.map((given) => {
    const name = formerNames.get(given) ?? given;
    return groups.find((group) => group.name === name) ?? fail(`there is no group '${name}'; --help lists them`);
  });
  const chosen = named.length > 0 ? named : groups;
  mkdirSync(out, { recursive: true });
  if (values.plot) plotAnew(chosen, out);
  else {
    const settings = { folder: realpathSync(resolve(values.folder)), rounds, seconds, quick, log: say };
    for (const group of chosen) await measure(group, settings, out);
    say('', `${chosen.length} of ${groups.length} groups took ${(performance.now() / 60_000).toFixed(1)} minutes`);
  }
}
