/**
 * What the lab needs from Debian: programs, and a stock kernel with its modules, unpacked below build/lab and never installed.
 *
 * Guarantees: nothing is fetched that is there already; what cannot be had is one error that says what and why.
 * Leaves to others: what goes into the guest's memory (`initramfs.ts`), running it (`machine.ts`).
 */
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { type ModuleTables, newestKernel } from './modules.js';

/** The lab cannot run here. */
export class CannotRun extends Error {}

export interface Kernel {
  /** As `uname -r` says in the guest. */
  release: string;
  image: string;
  /** lib/modules/<release>. */
  modules: string;
  /** What has lib/modules in it, for `modprobe -d`. */
  root: string;
  tables: ModuleTables;
}

/** By the command that shows that it is there. */
const packages: ReadonlyArray<readonly [command: string, name: string]> = [
  ['qemu-system-x86_64', 'qemu-system-x86'],
  ['depmod', 'kmod'],
  ['xz', 'xz-utils'],
  ['cpio', 'cpio'],
  ['mke2fs', 'e2fsprogs'],
  ['dmsetup', 'dmsetup'],
];
/** Dynamic busybox would need its libraries in the initramfs, so the command alone shows nothing. */
const busyboxPackage = 'busybox-static';

/** Administrators' programs are not on everybody's PATH. */
export const searchPath = `${process.env.PATH ?? ''}:/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin`;

const root = process.geteuid?.() === 0;

function run(command: string, args: readonly string[], cwd?: string): string {
  const env = { ...process.env, PATH: searchPath, DEBIAN_FRONTEND: 'noninteractive', LC_ALL: 'C' };
  try {
    return execFileSync(command, args, { encoding: 'utf8', cwd, env, stdio: ['ignore', 'pipe', 'pipe'], maxBuffer: 1 << 28 });
  } catch (error) {
    const { stderr, message } = error as { stderr?: string; message: string };
    throw new CannotRun(`${command} ${args.join(' ')} failed: ${(stderr || message).trim().split('\n').slice(-5).join(' | ')}`);
  }
}

function hasCommand(name: string): boolean {
  return searchPath.split(':').some((folder) => folder !== '' && existsSync(join(folder, name)));
}

function isInstalled(name: string): boolean {
  try {
    return /^Status: install ok installed$/m.test(run('dpkg-query', ['-s', name]));
  } catch {
    return false;
  }
}

function installPrograms(say: (line: string) => void): void {
  const missing = packages.filter(([command]) => !hasCommand(command)).map(([, name]) => name);
  if (!isInstalled(busyboxPackage)) missing.push(busyboxPackage);
  if (missing.length === 0) return;
  say(`installing ${missing.join(', ')}`);
  run('apt-get', ['update']);
  run('apt-get', ['install', '-y', '--no-install-recommends', ...missing]);
}

function fetchKernel(folder: string, say: (line: string) => void): void {
  run('apt-get', ['update']);
  const known = run('apt-cache', ['search', '--names-only', '^linux-image-[0-9].*-amd64$']);
  const name = newestKernel(known.split('\n').map((line) => line.split(' ')[0]));
  if (name === undefined) throw new CannotRun('apt knows no linux-image-…-amd64; the lab needs a stock Debian kernel');
  say(`fetching ${name}`);
  const work = join(folder, 'unpacking');
  rmSync(work, { recursive: true, force: true });
  mkdirSync(work, { recursive: true });
  run('apt-get', ['download', name], work);
  const archive = readdirSync(work).find((file) => file.endsWith('.deb'));
  if (archive === undefined) throw new CannotRun(`apt-get download ${name} left no package`);
  run('dpkg-deb', ['-x', archive, 'kernel'], work);
  rmSync(join(work, archive));
  const release = releaseIn(join(work, 'kernel'));
  // A package brings no tables of its modules: they are made when it is installed.
  run('depmod', ['-b', join(work, 'kernel'), release]);
  // Last, by renaming: what has this name is whole.
  renameSync(join(work, 'kernel'), join(folder, 'kernel'));
  rmSync(work, { recursive: true });
}

function releaseIn(kernel: string): string {
  return readdirSync(join(kernel, 'lib/modules'))[0];
}

/** Fetches what is missing. `checkout` is the folder of package.json. */
export function prepare(checkout: string, say: (line: string) => void): Kernel {
  if (process.platform !== 'linux' || process.arch !== 'x64')
    throw new CannotRun(`the lab's machine is a PC under Linux; this is ${process.platform} on ${process.arch}`);
  if (!root) throw new CannotRun('needs root: it installs Debian packages, and shares the root folder of this machine with its guest');
  if (!hasCommand('apt-get')) throw new CannotRun('needs apt-get: its kernel comes as a Debian package');
  installPrograms(say);
  const folder = join(checkout, 'build/lab');
  const kernel = join(folder, 'kernel');
  if (!existsSync(kernel)) {
    mkdirSync(folder, { recursive: true });
    fetchKernel(folder, say);
  }
  const release = releaseIn(kernel);
  const modules = join(kernel, 'lib/modules', release);
  const table = (name: string): string => readFileSync(join(modules, `modules.${name}`), 'utf8');
  return {
    release,
    image: join(kernel, 'boot', `vmlinuz-${release}`),
    modules,
    root: kernel,
    tables: { dep: table('dep'), softdep: table('softdep'), alias: table('alias'), builtin: table('builtin') },
  };
}
