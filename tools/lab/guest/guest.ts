/**
 * What every scenario in the guest uses: saying what was proved, asking the host, finding disks by their serial number, waiting with a limit.
 *
 * Guarantees: everything that waits has a limit, and says what it waited for when that is over.
 */
import { execFile } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import type { HostRequest, ToGuest, ToHost } from '../messages.js';

let send: ((message: ToHost) => Promise<void>) | undefined;

/** How messages leave: through the agent, or straight into the port where this is the agent's own process. */
export function connect(way: (message: ToHost) => Promise<void>): void {
  send = way;
}

function say(message: ToHost): Promise<void> {
  return send!(message);
}

const waiting: Array<{ resolve(answer: string): void; reject(error: Error): void }> = [];

/** Takes what the host answered. */
export function answered(message: ToGuest): void {
  if (message.do !== 'answer') return;
  const next = waiting.shift();
  if (message.error === undefined) next?.resolve(message.answer ?? '');
  else next?.reject(new Error(message.error));
}

/** Says whether `text` holds; `seen` is what there was instead. */
export function check(holds: boolean, text: string, seen = 'it does not'): void {
  void say(holds ? { say: 'proved', text } : { say: 'failed', text, seen });
}

export function note(text: string): void {
  void say({ say: 'note', text });
}

/** Has the host do something to the machine. */
export async function ask(request: HostRequest): Promise<string> {
  const answer = new Promise<string>((resolve, reject) => waiting.push({ resolve, reject }));
  await say({ say: 'ask', request });
  return answer;
}

/** `promise` if it settles in time, else an error that names it. */
export async function within<T>(ms: number, what: string, promise: Promise<T>): Promise<T> {
  const over = new AbortController();
  try {
    return await Promise.race([
      promise,
      sleep(ms, undefined, { signal: over.signal }).then(() => {
        throw new Error(`${what}: not within ${ms / 1000} s`);
      }),
    ]);
  } finally {
    over.abort();
  }
}

/** Waits until `probe` answers with something. */
export async function until<T>(ms: number, what: string, probe: () => T | undefined | false | Promise<T | undefined | false>): Promise<T> {
  const end = performance.now() + ms;
  for (;;) {
    const found = await probe();
    if (found !== undefined && found !== false) return found;
    if (performance.now() > end) throw new Error(`${what}: not within ${ms / 1000} s`);
    await sleep(20);
  }
}

/** Whether it becomes true in time. */
export async function becomes(ms: number, probe: () => boolean): Promise<boolean> {
  try {
    await until(ms, '', probe);
    return true;
  } catch {
    return false;
  }
}

const execute = promisify(execFile);

/** Runs a command of the host's root; its output. */
export async function command(name: string, ...args: string[]): Promise<string> {
  try {
    return (await execute(name, args, { timeout: 60_000 })).stdout.trim();
  } catch (error) {
    const { stderr, message } = error as { stderr?: string; message: string };
    throw new Error(`${name} ${args.join(' ')}: ${(stderr || message).trim()}`);
  }
}

/** Loads a module, and what it needs, from the kernel's own folder on the share. */
export function modprobe(name: string, ...options: string[]): Promise<string> {
  return command('modprobe', '-d', process.env.LAB_KERNEL!, name, ...options);
}

/** Writes to a file of sysfs or configfs. */
export function tell(path: string, value: string): Promise<void> {
  return writeFile(path, value);
}

export function attribute(path: string): string {
  return readFileSync(path, 'utf8').trim();
}

/** Name of the whole disk with this serial number, e.g. `nvme0n1`; undefined while there is none. */
export function findDisk(serial: string): string | undefined {
  for (const name of readdirSync('/sys/block')) {
    try {
      if (name.startsWith('nvme') && attribute(`/sys/block/${name}/device/serial`) === serial) return name;
      // Page 0x80 of the vital product data of a SCSI disk: four bytes, then the serial number.
      if (name.startsWith('sd') && readFileSync(`/sys/block/${name}/device/vpd_pg80`).subarray(4).toString('latin1').trim() === serial) return name;
    } catch {
      // It has no such attribute, or went away while we looked.
    }
  }
  return undefined;
}

export function disk(serial: string, ms = 20_000): Promise<string> {
  return until(ms, `a disk with the serial number ${serial}`, () => findDisk(serial));
}

/** Address of the PCI function behind a disk, and of the port it is plugged into. */
export function pciPath(name: string): { device: string; port: string } {
  const addresses = readlinkSync(`/sys/block/${name}`).match(/[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-9a-f]/g)!;
  return { device: addresses.at(-1)!, port: addresses.at(-2) ?? '' };
}

/** An empty folder to mount something on. */
export function mountPoint(name: string): string {
  const path = `/dev/shm/${name}`;
  if (!existsSync(path)) mkdirSync(path);
  return path;
}

/** Descriptors of this process by what they are open on. */
export function openDescriptors(): string[] {
  const targets: string[] = [];
  for (const fd of readdirSync('/proc/self/fd')) {
    try {
      targets.push(readlinkSync(`/proc/self/fd/${fd}`));
    } catch {
      // The one that lists the folder.
    }
  }
  return targets;
}

/** Code of a rejection, or what it is if it has none. */
export function codeOf(error: unknown): string {
  return (error as { code?: string }).code ?? String(error);
}

/** `12 × EIO, 3 × ENODEV` */
export function tally(values: Iterable<string>): string {
  const counts = new Map<string, number>();
  for (const value of values) counts.set(value, (counts.get(value) ?? 0) + 1);
  return (
    [...counts]
      .sort((a, b) => b[1] - a[1])
      .map(([value, count]) => `${count} × ${value}`)
      .join(', ') || 'nothing'
  );
}
