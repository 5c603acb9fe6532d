/**
 * What runs in the guest: takes orders over the port, runs each scenario in a process of its own, and passes on what it says.
 *
 * Guarantees: a scenario that crashes is reported with its signal; one that came to its end but keeps its process alive is a failure (a closed file must not hold the loop).
 */
import { type ChildProcess, fork } from 'node:child_process';
import { createReadStream, openSync, readdirSync, readFileSync, writeSync } from 'node:fs';
import { release } from 'node:os';
import { join } from 'node:path';
import { lineReader, type Settings, type ToGuest, type ToHost } from '../messages.js';
import { answered, connect } from './guest.js';
import { runScenario } from './scenarios.js';

/** How long a process may live on after its scenario said that it is done. */
const LINGER_MS = 10_000;

function portPath(): string {
  const folder = '/sys/class/virtio-ports';
  const name = readdirSync(folder).find((port) => readFileSync(join(folder, port, 'name'), 'utf8').trim() === 'sectorwise.lab');
  if (name === undefined) throw new Error('the machine has no port named sectorwise.lab');
  return `/dev/${name}`;
}

const path = portPath();
// The driver lets a port be opened once, so both directions share a descriptor. A read of it blocks a thread of the pool for good, which is why this process does nothing else.
const port = openSync(path, 'r+');

function say(message: ToHost): void {
  writeSync(port, `${JSON.stringify(message)}\n`);
}

let running: ChildProcess | undefined;

function run(scenario: string, settings: Settings): void {
  const child = fork(new URL('./run.js', import.meta.url), [scenario, JSON.stringify(settings)], { stdio: 'inherit' });
  running = child;
  let done = false;
  let lingers: NodeJS.Timeout | undefined;
  child.on('message', (message: ToHost | { say: 'done' }) => {
    if (message.say !== 'done') return say(message);
    done = true;
    lingers = setTimeout(() => child.kill('SIGKILL'), LINGER_MS);
  });
  child.on('exit', (code, signal) => {
    running = undefined;
    clearTimeout(lingers);
    if (done && code === 0) say({ say: 'ended' });
    else if (done)
      say({
        say: 'ended',
        how: `the scenario was done, but its process did not end by itself within ${LINGER_MS / 1000} s: something still holds its event loop`,
      });
    else say({ say: 'ended', how: `the process of the scenario died: ${signal ?? `exit code ${code}`}` });
  });
}

/** Without a second start of node, which takes seconds under emulation. A crash takes the agent along, and with it the machine. */
async function runInside(scenario: string, settings: Settings): Promise<void> {
  connect(async (message) => say(message));
  try {
    await runScenario(scenario, settings);
    say({ say: 'ended' });
  } catch (error) {
    say({ say: 'ended', how: (error as Error).stack ?? String(error) });
  }
}

createReadStream('', { fd: port, autoClose: false }).on(
  'data',
  lineReader<ToGuest>((message) => {
    if (message.do === 'run' && message.inside) void runInside(message.scenario, message.settings);
    else if (message.do === 'run') run(message.scenario, message.settings);
    else if (running !== undefined) running.send(message);
    else answered(message);
  }),
);

say({ say: 'ready', kernel: release(), node: process.version, uptime: Number(readFileSync('/proc/uptime', 'utf8').split(' ')[0]) });
