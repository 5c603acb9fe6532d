/**
 * Packages to compare with (lmdb, mmap-io, @ronomon/direct-io, classic-level): installed into build/peers when they are first asked for, from peers/package.json.
 *
 * Guarantees: they never become dependencies of sectorwise; these versions and no others; one that cannot be had comes with the reason, and does not keep the others away.
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
/** Where programs are that import peers by their names. */
export const peersFolder = folder;
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
  put(key: number | Uint8Array, value: Uint8Array): Promise<boolean>;
  putSync(key: number | Uint8Array, value: Uint8Array): void;
  transactionSync(run: () => void): void;
  /** A copy in a Buffer of its own. */
  getBinary(key: number | Uint8Array): Buffer | undefined;
  /** A copy in one buffer that the next call overwrites. */
  getBinaryFast(key: number | Uint8Array): Buffer | undefined;
  /** In the order of keys. */
  getRange(options: Record<string, unknown>): Iterable<{ key: Buffer; value: Buffer }>;
  /** Everything that was committed is on the device. */
  readonly flushed: Promise<unknown>;
  close(): Promise<void>;
}

/** What is used of @ronomon/direct-io. */
export interface DirectIo {
  getAlignedBuffer(size: number, alignment: number): Buffer;
}

/** What is used of classic-level. */
export interface ClassicLevel {
  ClassicLevel: new (path: string, options: Record<string, unknown>) => LevelDatabase;
}

export interface LevelDatabase {
  open(): Promise<void>;
  getSync(key: Uint8Array): Uint8Array | undefined;
  values(): { nextv(count: number): Promise<Uint8Array[]>; close(): Promise<void> };
  put(key: Uint8Array, value: Uint8Array, options: { sync: boolean }): Promise<void>;
  batch(operations: Array<{ type: 'put'; key: Uint8Array; value: Uint8Array }>, options: { sync: boolean }): Promise<void>;
  close(): Promise<void>;
}

const packages = ['lmdb', 'mmap-io', '@ronomon/direct-io', 'classic-level'] as const;
type PackageName = (typeof packages)[number];

export interface Peers {
  lmdb: Lmdb | undefined;
  mmapIo: MmapIo | undefined;
  directIo: DirectIo | undefined;
  classicLevel: ClassicLevel | undefined;
  /** Why a package is undefined, by its name. */
  refusals: Partial<Record<PackageName, string>>;
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
  log(`  installing ${packages.join(', ')}, to compare with, into build/peers (once; needs the npm registry, and a C++ compiler) …`);
  try {
    mkdirSync(folder, { recursive: true });
    copyFileSync(manifest, join(folder, 'package.json'));
    await npm(['install', '--ignore-scripts']);
  } catch (error) {
    const reason = `npm install in build/peers failed: ${lastWords(error)}`;
    return Object.fromEntries(packages.map((name) => [name, reason]));
  }
  const refusals: Refusals = {};
  for (const name of packages) {
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
  return {
    lmdb: load('lmdb') as Lmdb | undefined,
    mmapIo: load('mmap-io') as MmapIo | undefined,
    directIo: load('@ronomon/direct-io') as DirectIo | undefined,
    classicLevel: load('classic-level') as ClassicLevel | undefined,
    refusals,
  };
}

/** The packages, installed first where they are not. */
export async function peerPackages(log: (line: string) => void): Promise<Peers> {
  return loadPeers(await install(log));
}
