/**
 * A file on a device that does so many reads a second and no more: ext4 on a loop device, for processes of one control group.
 *
 * The kernel's block throttling (cgroup v2 `io.max`, or v1 `blkio.throttle.read_iops_device`) delays the reads that processes of the group send to that device, whoever of their threads sends
 * them: JavaScript, Node's pool, workers of io_uring, page faults. Direct reads of the loop device go past the page cache of the file system below.
 * Guarantees: what was made is taken down when the process ends, in reverse order; the machine's own disks and groups are left as they are.
 * Leaves to others: proving the rate, by the counts of the device that `statPath` names.
 */
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmdirSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { makeBenchFile } from './bench-file.js';

/** Room for ext4's own blocks beside the file. */
const overheadBytes = 256 * 1024 ** 2;

export interface ThrottledFile {
  path: string;
  /** A process that writes its id into this is slowed down. */
  groupPath: string;
  /** The device's counts, as /sys/block/…/stat has them. */
  statPath: string;
}

/** Takes down what was made, in reverse order, at the latest when the process ends. */
export class Undo {
  /** Those with something to take down; one listener serves all of them. */
  static readonly #pending = new Set<Undo>();
  readonly #steps: Array<() => void> = [];

  static {
    process.on('exit', () => {
      for (const undo of [...Undo.#pending].reverse()) undo.run();
    });
  }

  add(step: () => void): void {
    Undo.#pending.add(this);
    this.#steps.push(step);
  }

  run(): void {
    Undo.#pending.delete(this);
    for (const step of this.#steps.splice(0).reverse()) {
      try {
        step();
      } catch (error) {
        // What lies below cannot be taken away either: a folder with something mounted in it would be emptied instead.
        process.stderr.write(`could not be taken down: ${(error as Error).message}\n`);
        return;
      }
    }
  }
}

/** The kernel gives back the files of an io_uring some time after its process has ended: what they keep busy is asked again, for five seconds. */
export function patiently(act: () => void): void {
  for (let tries = 1; ; tries++) {
    try {
      act();
      return;
    } catch (error) {
      if (tries === 50) throw error;
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 100);
    }
  }
}

/** Runs a system tool; where it is looked for does not depend on the shell. */
export function tool(command: string, ...args: string[]): string {
  const path = `${process.env.PATH ?? ''}:/usr/sbin:/sbin`;
  return execFileSync(command, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'], env: { ...process.env, PATH: path } }).trim();
}

function hasTool(name: string): boolean {
  return ['/usr/sbin', '/sbin', '/usr/bin', '/bin'].some((folder) => existsSync(join(folder, name)));
}

/** Undefined if file systems on loop devices can be made here, else why not. */
export function loopRefusal(...tools: string[]): string | undefined {
  if (process.geteuid?.() !== 0) return 'needs root (for a loop device)';
  const absent = ['losetup', 'mount', ...tools].find((name) => !hasTool(name));
  if (absent) return `needs ${absent}`;
  return existsSync('/dev/loop-control') ? undefined : 'needs loop devices';
}

/** A file system of `bytes` on a loop device, in a new folder of `base`. */
export function makeFileSystem(base: string, bytes: number, make: readonly string[], undo: Undo): { device: string; folder: string } {
  const own = mkdtempSync(join(base, 'sectorwise-bench-'));
  undo.add(() => rmSync(own, { recursive: true, force: true }));
  const image = join(own, 'image');
  const folder = join(own, 'mount');
  writeFileSync(image, '');
  truncateSync(image, bytes);
  const device = tool('losetup', '--find', '--show', '--direct-io=on', image);
  undo.add(() => tool('losetup', '--detach', device));
  tool(make[0], ...make.slice(1), device);
  mkdirSync(folder);
  tool('mount', device, folder);
  undo.add(() => patiently(() => tool('umount', folder)));
  return { device, folder };
}

/** Where control groups can limit what devices do: the folder, the file to write and the line that goes into it. */
interface Control {
  folder: string;
  file: string;
  line(device: string, iops: number): string;
}

function controls(): Control[] {
  const found: Control[] = [];
  for (const line of readFileSync('/proc/self/mounts', 'utf8').split('\n')) {
    const [, folder, type, options] = line.split(' ');
    if (type === 'cgroup2') found.push({ folder, file: 'io.max', line: (device, iops) => `${device} riops=${iops}` });
    if (type === 'cgroup' && options.split(',').includes('blkio')) {
      found.push({ folder, file: 'blkio.throttle.read_iops_device', line: (device, iops) => `${device} ${iops}` });
    }
  }
  return found;
}

/** Makes a group for the device in the first place that allows it; undefined if none does. */
function makeGroup(device: string, iops: number, undo: Undo): string | undefined {
  const number = readFileSync(`/sys/class/block/${basename(device)}/dev`, 'utf8').trim();
  for (const { folder, file, line } of controls()) {
    const group = join(folder, `sectorwise-bench-${process.pid}`);
    try {
      mkdirSync(group);
    } catch {
      continue;
    }
    try {
      // In v2 the file is there only where the root hands the controller on; that is the machine's to decide.
      writeFileSync(join(group, file), line(number, iops), { flag: 'r+' });
      undo.add(() => rmdirSync(group));
      return join(group, 'cgroup.procs');
    } catch {
      rmdirSync(group);
    }
  }
  return undefined;
}

/** A file of seeded bytes on a device that does `iops` reads a second; or why there is none. */
export async function makeThrottledFile(base: string, size: number, iops: number, undo: Undo): Promise<ThrottledFile | string> {
  const refusal = loopRefusal('mkfs.ext4');
  if (refusal !== undefined) return refusal;
  // Tables that are written later, in the background, would be somebody else's operations on the device.
  const make = ['mkfs.ext4', '-q', '-E', 'lazy_itable_init=0,lazy_journal_init=0'];
  const { device, folder } = makeFileSystem(base, size + overheadBytes, make, undo);
  const path = await makeBenchFile(folder, size);
  const groupPath = makeGroup(device, iops, undo);
  if (groupPath === undefined) return 'needs a control group that limits operations (cgroup v2 with the io controller handed on, or v1 with blkio)';
  return { path, groupPath, statPath: `/sys/class/block/${basename(device)}/stat` };
}
