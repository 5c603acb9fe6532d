/**
 * Builds the addon for each architecture that is published, into prebuilds/: `node dist/tools/release/prebuild.js [x64|arm64 …]`, all of them where none is named.
 *
 * Another architecture than this machine's is built by Debian's cross compiler. Guarantees: a binary that needs a symbol newer than glibc 2.28 is not put there; what is missing is named with the package
 * that brings it.
 */
import { execFileSync } from 'node:child_process';
import { copyFileSync, existsSync, mkdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

export const architectures = ['x64', 'arm64'] as const;
export type Architecture = (typeof architectures)[number];

/** The newest version of glibc whose symbols a published binary may need: RHEL 8, Debian 10, Ubuntu 18.10. */
export const glibcMost = '2.28';

interface Toolchain {
  /** What its tools' names begin with. */
  prefix: string;
  processor: string;
  package: string;
}

const toolchains: Record<Architecture, Toolchain> = {
  x64: { prefix: 'x86_64-linux-gnu-', processor: 'x86_64', package: 'g++-x86-64-linux-gnu' },
  arm64: { prefix: 'aarch64-linux-gnu-', processor: 'aarch64', package: 'g++-aarch64-linux-gnu' },
};

const root = fileURLToPath(new URL('../../..', import.meta.url));

export function prebuiltPath(architecture: Architecture): string {
  return join(root, 'prebuilds', `linux-${architecture}`, 'sectorwise.glibc.node');
}

/** Why it cannot be built here, undefined where it can. */
export function prebuildRefusal(architecture: Architecture): string | undefined {
  if (architecture === process.arch) return undefined;
  const { prefix, package: name } = toolchains[architecture];
  try {
    execFileSync(`${prefix}g++`, ['--version'], { stdio: 'ignore' });
    return undefined;
  } catch {
    return `no ${prefix}g++: apt-get install ${name}`;
  }
}

export function prebuild(architecture: Architecture): string {
  const refused = prebuildRefusal(architecture);
  if (refused !== undefined) throw new Error(refused);
  const { prefix, processor } = toolchains[architecture];
  const cross = architecture === process.arch ? '' : prefix;
  const out = join(root, 'build', `prebuild-${architecture}`);
  const flags = cross === '' ? [] : [`--CDCMAKE_CXX_COMPILER=${cross}g++`, '--CDCMAKE_SYSTEM_NAME=Linux', `--CDCMAKE_SYSTEM_PROCESSOR=${processor}`];
  execFileSync(join(root, 'node_modules', '.bin', 'cmake-js'), ['compile', '--out', out, '--arch', architecture, ...flags], {
    cwd: root,
    stdio: ['ignore', 'ignore', 'inherit'],
  });
  const path = prebuiltPath(architecture);
  mkdirSync(join(path, '..'), { recursive: true });
  copyFileSync(join(out, 'Release', 'sectorwise.node'), path);
  execFileSync(`${cross}strip`, ['--strip-unneeded', path]);
  const newer = newerSymbols(path, `${cross}objdump`);
  if (newer.length > 0) throw new Error(`${path} needs more than glibc ${glibcMost}: ${newer.join(', ')} (native/old_glibc.cc is where they are answered)`);
  return path;
}

/** Symbols of a binary that came after glibc `glibcMost`, each as `name@version`. */
export function newerSymbols(path: string, objdump = 'objdump'): string[] {
  const newer: string[] = [];
  for (const line of execFileSync(objdump, ['-T', path], { encoding: 'utf8' }).split('\n')) {
    const [, version, name] = /\*UND\*.*\(?GLIBC_([\d.]+)\)?\s+(\S+)$/.exec(line) ?? [];
    if (version !== undefined && isNewer(version, glibcMost)) newer.push(`${name}@GLIBC_${version}`);
  }
  return newer;
}

function isNewer(version: string, than: string): boolean {
  const [major, minor = 0] = version.split('.').map(Number);
  const [otherMajor, otherMinor] = than.split('.').map(Number);
  return major !== otherMajor ? major > otherMajor : minor > otherMinor;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const named = process.argv.slice(2);
  const wrong = named.find((name) => !architectures.includes(name as Architecture));
  if (wrong !== undefined) {
    console.error(`'${wrong}' is none of ${architectures.join(', ')}`);
    process.exit(64);
  }
  for (const architecture of named.length > 0 ? (named as Architecture[]) : architectures) {
    const path = prebuild(architecture);
    if (existsSync(path)) console.log(`${path.slice(root.length)}: ${Math.round(statSync(path).size / 1024)} KiB, glibc ${glibcMost} or newer`);
  }
}
