/**
 * Running scenarios on machines: boots what is needed, passes on what the guest says, does what it asks for, counts.
 *
 * Guarantees: a scenario that hangs, crashes or takes its machine along fails, and the next one gets a new machine; nothing is left running.
 */
import { join } from 'node:path';
import { type Disk, Machine, type MachineFiles, type MachineOptions, timeout } from './machine.js';
import type { HostRequest, Settings, ToHost } from './messages.js';
import type { MachinePlan } from './scenarios.js';

export interface Tally {
  proofs: number;
  failures: number;
  boots: number;
  bootMs: number;
}

/** How long the guest may take to let go of a device that it was asked for. */
const UNPLUG_MS = 60_000;
/** Lines of the kernel's messages that are shown when a scenario fails. */
const CONSOLE_LINES = 12;

export class Session {
  readonly tally: Tally = { proofs: 0, failures: 0, boots: 0, bootMs: 0 };
  readonly folder: string;
  readonly #files: MachineFiles;
  readonly #accelerator: 'tcg' | 'kvm';
  readonly print: (line: string) => void;
  #machine: Machine | undefined;
  #plan: MachinePlan | undefined;
  readonly #booted = new Set<Machine>();

  constructor(files: MachineFiles, accelerator: 'tcg' | 'kvm', print: (line: string) => void) {
    this.folder = files.folder;
    this.#files = files;
    this.#accelerator = accelerator;
    this.print = print;
  }

  prove(text: string): void {
    this.tally.proofs++;
    this.print(`  ok      ${text}`);
  }

  fail(text: string): void {
    this.tally.failures++;
    this.print(`  FAILED  ${text}`);
  }

  note(text: string): void {
    this.print(`          ${text}`);
  }

  async boot(disks: readonly Disk[], options: MachineOptions = {}): Promise<Machine> {
    const began = performance.now();
    const machine = await Machine.boot(this.#files, disks, this.#accelerator, options);
    this.#booted.add(machine);
    machine.gone.catch(() => this.#booted.delete(machine));
    this.tally.boots++;
    this.tally.bootMs += performance.now() - began;
    return machine;
  }

  /** The machine of this plan: the one that runs, or a new one. */
  async machineOf(plan: MachinePlan): Promise<Machine> {
    if (this.#machine !== undefined && this.#plan === plan) return this.#machine;
    await this.end();
    this.#machine = await this.boot(plan.disks(this.folder));
    this.#plan = plan;
    return this.#machine;
  }

  /** Runs a scenario of the guest to its end. False if the machine is not fit for another one. */
  async run(machine: Machine, scenario: string, settings: Settings, limitMs: number): Promise<boolean> {
    const consoleBefore = machine.console().length;
    const failuresBefore = this.tally.failures;
    let fit = true;
    const ended = new Promise<string | undefined>((resolve) => machine.listen((message) => this.#onMessage(machine, message, resolve)));
    machine.send({ do: 'run', scenario, settings });
    try {
      const how = await Promise.race([ended, machine.gone, timeout(limitMs, `not over after ${limitMs / 1000} s`)]);
      if (how !== undefined) this.fail(how);
    } catch (error) {
      this.fail((error as Error).message);
      fit = false;
    }
    if (this.tally.failures > failuresBefore) {
      const lines = machine.console().slice(consoleBefore - 1);
      if (lines.length > CONSOLE_LINES)
        this.note(`(${lines.length - CONSOLE_LINES} more lines of the guest's console in ${join(this.folder, 'console-*.log')}, with --keep)`);
      for (const line of lines.slice(-CONSOLE_LINES)) this.note(`| ${line}`);
    }
    return fit;
  }

  async end(): Promise<void> {
    await Promise.all([...this.#booted].map((machine) => machine.end()));
    this.#machine = undefined;
  }

  #onMessage(machine: Machine, message: ToHost, end: (how: string | undefined) => void): void {
    if (message.say === 'proved') this.prove(message.text);
    else if (message.say === 'failed') this.fail(`${message.text}: ${message.seen}`);
    else if (message.say === 'note') this.note(message.text);
    else if (message.say === 'ended') end(message.how);
    else if (message.say === 'ask') {
      this.#do(machine, message.request).then(
        (answer) => machine.send({ do: 'answer', answer }),
        (error: Error) => machine.send({ do: 'answer', error: error.message }),
      );
    }
  }

  async #do(machine: Machine, request: HostRequest): Promise<string> {
    if (request.what === 'unplug') return machine.unplug(request.device, UNPLUG_MS);
    if (request.what === 'plug') return machine.plug(request.device);
    if (request.what === 'throttle') return machine.throttle(request.device, request.iops);
    throw new Error(`nobody waits for '${request.what}' here`);
  }
}
