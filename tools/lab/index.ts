/**
 * `npm run lab`: the library on real disks that are pulled, break and lose their power, in a machine that QEMU makes.
 *
 *   npm run lab                      every scenario; exit code 0 only if all ran and all was proved
 *   npm run lab -- nvme-pull         some of them
 *   npm run lab -- --list            their names
 *   npm run lab -- shell             the machine by hand, with this checkout and this node in it
 *
 *   this machine                                            the guest: stock Debian kernel, emulated
 *   ┌──────────────────────────────────┐  9p, read-only    ┌──────────────────────────────────────┐
 *   │ / with node and the checkout     │ ────────────────> │ / ── node dist/tools/lab/guest/…     │
 *   │ index ─ session ─ machine ─ QEMU │ <── JSON lines ── │      agent ─ run ─ removal, zoo, …   │
 *   │ images ──────────────────────────│ ── NVMe, AHCI ──> │ /dev/nvme0n1, /dev/sda               │
 *   └──────────────────────────────────┘                   └──────────────────────────────────────┘
 *
 * Needs root and apt: it installs QEMU and a few tools, and fetches a kernel package into build/lab, which it unpacks and does not install. docs/lab.md says what each scenario proves.
 *
 * Guarantees: no proof is skipped in silence: what could not run fails; images and processes are gone when it ends (images stay with --keep).
 */
import { spawnSync } from 'node:child_process';
import { accessSync, constants, mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { BadInput, type LabArguments, parseLabArguments } from './arguments.js';
import { makeInitramfs } from './initramfs.js';
import { type MachineFiles, qemuArguments } from './machine.js';
import { powerCuts } from './power-cuts.js';
import { CannotRun, prepare, searchPath } from './preparation.js';
import { machines, type Scenario, scenarios } from './scenarios.js';
import { Session, type Tally } from './session.js';

const usage = `Usage: npm run lab -- [options] [scenario…]
       npm run lab -- shell

The library on disks that are pulled, break and lose their power, in a machine
that QEMU makes. Needs root (it installs Debian packages).

  --list           names of the scenarios
  --cuts N         power cuts (default 20)
  --seed N         of the moments of the cuts and what survives them (default 1)
  --accel NAME     tcg, kvm, or auto (default: kvm where it works)
  --keep           leave images and logs behind, and say where
  --help           this text

Exit code: 0 if everything ran and was proved, 1 if not, 2 for wrong options.`;

function print(line: string): void {
  process.stdout.write(`${line}\n`);
}

/** The folder of package.json, from dist/tools/lab/index.js. */
const checkout = fileURLToPath(new URL('../../../', import.meta.url)).replace(/\/$/, '');

/** Some virtual machines have a /dev/kvm that emulates instructions, and fails at the first it does not know: only where the processor itself says so is it used. */
function accelerator(asked: LabArguments['accelerator']): 'tcg' | 'kvm' {
  if (asked !== 'auto') return asked;
  try {
    accessSync('/dev/kvm', constants.R_OK | constants.W_OK);
    return /^flags\s*:.*\b(vmx|svm)\b/m.test(readFileSync('/proc/cpuinfo', 'utf8')) ? 'kvm' : 'tcg';
  } catch {
    return 'tcg';
  }
}

/** Runs scenarios one after the other. */
async function run(session: Session, chosen: readonly Scenario[], { cuts, seed }: LabArguments): Promise<void> {
  for (const { name, title, machine: machineName, guest, limitMs } of chosen) {
    const began = performance.now();
    session.print(`\n${name}: ${title}`);
    try {
      if (guest === undefined) {
        await powerCuts(session, cuts, seed);
      } else {
        const plan = machines.find((found) => found.name === machineName)!;
        const machine = await session.machineOf(plan);
        if (!(await session.run(machine, guest.scenario, guest.settings, limitMs))) await session.end();
      }
    } catch (error) {
      session.fail((error as Error).message);
      await session.end();
    }
    session.print(`          ${((performance.now() - began) / 1000).toFixed(1)} s`);
  }
  await session.end();
}

/** Joins this terminal to a machine with the disks of the removal scenarios. */
function shell(files: MachineFiles, accel: 'tcg' | 'kvm'): number {
  const disks = machines.flatMap(({ disks: make }) => make(files.folder));
  const args = qemuArguments(files, disks, accel, 'mon:stdio', { options: 'lab.shell' });
  print(`Disks: ${disks.map(({ id }) => id).join(', ')}. Ctrl-A C is QEMU's monitor (device_del nvme-remove), Ctrl-A X ends the machine.`);
  return spawnSync('qemu-system-x86_64', args, { stdio: 'inherit', env: { ...process.env, PATH: searchPath } }).status ?? 1;
}

async function main(): Promise<number> {
  let asked: LabArguments;
  try {
    asked = parseLabArguments(
      process.argv.slice(2),
      scenarios.map(({ name }) => name),
    );
  } catch (error) {
    if (!(error instanceof BadInput)) throw error;
    process.stderr.write(`sectorwise lab: ${error.message}\n`);
    return 2;
  }
  if (asked.action === 'help') {
    print(usage);
    return 0;
  }
  if (asked.action === 'list') {
    for (const { name, title } of scenarios) print(`${name.padEnd(18)} ${title}`);
    return 0;
  }
  const began = performance.now();
  let folder: string | undefined;
  const sessions: Session[] = [];
  const kept: string[][] = [];
  const endAll = async (): Promise<void> => {
    await Promise.all(sessions.map((session) => session.end()));
  };
  try {
    const kernel = prepare(checkout, print);
    folder = mkdtempSync(join(tmpdir(), 'sectorwise-lab-'));
    const made = folder;
    process.once('exit', () => {
      if (!asked.keep) rmSync(made, { recursive: true, force: true });
    });
    for (const signal of ['SIGINT', 'SIGTERM'] as const) {
      process.once(signal, () => {
        for (const line of kept.flat()) print(line);
        print(`ended by ${signal} after ${((performance.now() - began) / 1000).toFixed(0)} s`);
        void endAll().finally(() => process.exit(1));
      });
    }
    const files = { kernel: kernel.image, initramfs: makeInitramfs(folder, checkout, kernel), folder };
    const accel = accelerator(asked.accelerator);
    print(`Linux ${kernel.release}, Node.js ${process.version}, ${accel === 'kvm' ? 'virtualised' : 'emulated'}`);
    if (asked.action === 'shell') return shell(files, accel);

    // Beside each other: the power cuts are mostly boots, which are mostly one busy processor, and longer than all others together; two disks share them. Their lines are kept until the others are through.
    const chosen = scenarios.filter(({ name }) => asked.names.includes(name));
    const inGuest = chosen.filter(({ guest }) => guest !== undefined);
    const onHost = chosen.filter(({ guest }) => guest === undefined);
    const keep = (): ((line: string) => void) => {
      const lines: string[] = [];
      kept.push(lines);
      return (line) => void lines.push(line);
    };
    const half = Math.ceil(asked.cuts / 2);
    const lanes = [
      { chosen: inGuest, asked, lines: print },
      { chosen: onHost, asked: { ...asked, cuts: half }, lines: inGuest.length === 0 ? print : keep() },
      ...(asked.cuts < 2 ? [] : [{ chosen: onHost, asked: { ...asked, cuts: asked.cuts - half, seed: asked.seed + 1 }, lines: keep() }]),
    ];
    for (const [index, { lines }] of lanes.entries()) {
      const own = join(folder, `lane-${index + 1}`);
      mkdirSync(own);
      sessions.push(new Session({ ...files, folder: own }, accel, lines));
    }
    await Promise.all(lanes.map((lane, index) => run(sessions[index], lane.chosen, lane.asked)));
    for (const line of kept.flat()) print(line);

    const sum = (of: keyof Tally): number => sessions.reduce((total, { tally }) => total + tally[of], 0);
    const [proofs, failures, boots] = [sum('proofs'), sum('failures'), sum('boots')];
    const seconds = (performance.now() - began) / 1000;
    if (asked.keep) print(`\nimages and logs: ${folder}`);
    print(
      `\n${proofs} proved, ${failures} failed; ${boots} boots of ${(sum('bootMs') / Math.max(1, boots) / 1000).toFixed(1)} s, ${seconds.toFixed(0)} s in all`,
    );
    return failures === 0 && proofs > 0 ? 0 : 1;
  } catch (error) {
    await endAll();
    if (!(error instanceof CannotRun)) throw error;
    process.stderr.write(`sectorwise lab: cannot run here: ${error.message}\n`);
    return 1;
  }
}

process.exitCode = await main();
