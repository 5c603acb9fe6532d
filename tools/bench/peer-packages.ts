/**
 * Packages to compare with (lmdb, mmap-io): installed into build/peers when they are first asked for, from peers/package.json.
 *
 * Guarantees: they never become dependencies of sectorwise; these versions and no others; one that cannot be had comes with the reason, and does not keep the other away.
 */
import { execFile } from 'node:child_process';
import { copyFileSync, existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

const execute = promisify(execFile);
/** This module runs from dist/tools/bench. */
const root = fileURLToPath(new URL('../../../', import.meta.url));
const manifest = join(root, 'tools', 'bench', 'peers', 'package.json');
const folder = join(root, 'build', 'peers');
const installMs = 300_000;

/** What is used of mmap-io. */
export interface MmapIo {
  map(size: number, protection: number, flags: number, fd: number, offset?: number, advise?: number): Buffer;
  readonly PROT_READ: number;
  readonly MAP_SHARED: number;
  readonly MADV_NORMAL: number;
  readonly MADV_RANDOM: number;
}

/** What is used of lmdb. */
export interface Lmdb {
  open(path: string, options: Record<string, unknown>): LmdbDatabase;
}

export interface LmdbDatabase {
  putSync(key: number, value: Uint8Array): void;
  transactionSync(run: () => void): void;
  /** A copy in a Buffer of its own. */
  getBinary(key: number): Buffer | undefined;
  /** A copy in one buffer that the next call overwrites. */
  getBinaryFast(key: number): Buffer | undefined;
  flushed: Promise<unknown>;
  close(): Promise<void>;
}

export interface Peers {
  lmdb: Lmdb | undefined;
  mmapIo: MmapIo | undefined;
  /** Why a package is undefined, by its name. */
  refusals: { lmdb?: string; 'mmap-io'?: string };
}

/** The end of what a failed command said. */
function lastWords(error: unknown): string {
  const { stderr, message } = error as { stderr?: string; message: string };
  const lines = `${stderr ?? ''}`
    .split('\n')
    .filter((line) => /err|fail/i.test(line) && !/A complete log|error code|gyp ERR! (System|cwd|node|command|stack)|npm (error|ERR!)$/.test(line.trim()));
  return (lines[0] ?? message.split('\n')[0]).replace(/^npm (error|ERR!) ?/, '').trim();
}

async function npm(args: string[]): Promise<void> {
  // mmap-io asks for C++11, which the headers of Node since 18 are beyond; CXXFLAGS come after what its binding.gyp says.
  await execute('npm', [...args, '--no-audit', '--no-fund'], { cwd: folder, timeout: installMs, env: { ...process.env, CXXFLAGS: '-std=c++17' } });
}

/** What is installed, and for which Node.js. */
function stamp(): string {
  return `${process.version} ${process.arch}\n${readFileSync(manifest, 'utf8')}`;
}

type Refusals = Peers['refusals'];

/** Installs what is not installed yet; answers with why that failed. What failed is tried again the next time. */
async function install(log: (line: string) => void): Promise<Refusals> {
  const stampPath = join(folder, 'installed');
  if (existsSync(stampPath) && readFileSync(stampPath, 'utf8') === stamp()) return {};
  log('  installing lmdb and mmap-io, to compare with, into build/peers (once; needs the npm registry, and a C++ compiler for mmap-io) …');
  try {
    mkdirSync(folder, { recursive: true });
    copyFileSync(manifest, join(folder, 'package.json'));
    await npm(['install', '--ignore-scripts']);
  } catch (error) {
    const reason = `npm install in build/peers failed: ${lastWords(error)}`;
    return { lmdb: reason, 'mmap-io': reason };
  }
  const refusals: Refusals = {};
  for (const name of ['lmdb', 'mmap-io'] as const) {
    try {
      await npm(['rebuild', name]);
    } catch (error) {
      refusals[name] = `npm rebuild ${name} in build/peers failed: ${lastWords(error)}`;
    }
  }
  if (Object.keys(refusals).length === 0) writeFileSync(stampPath, stamp());
  return refusals;
}

/** The packages as they are installed, but for those of `failed`; for the processes that a group starts. */
export function loadPeers(failed: Refusals = {}): Peers {
  const require = createRequire(join(folder, 'package.json'));
  const refusals = { ...failed };
  const load = (name: keyof Refusals): unknown => {
    if (refusals[name] !== undefined) return undefined;
    try {
      return require(name);
    } catch (error) {
      refusals[name] = `${name} cannot be loaded: ${(error as Error).message.split('\n')[0]}; remove build/peers to have it installed anew`;
      return undefined;
    }
  };
  return { lmdb: load('lmdb') as Lmdb | undefined, mmapIo: load('mmap-io') as MmapIo | undefined, refusals };
}

/** The packages, installed first where they are not. */
export async function peerPackages(log: (line: string) => void): Promise<Peers> {
  return loadPeers(await install(log));
}
