/** What a child process gets of open files: nothing, whoever starts it and however, and nothing of theirs stays in use because it lives. */
import { type ChildProcess, fork, spawn } from 'node:child_process';
import { readdirSync, readFileSync, readlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Worker } from 'node:worker_threads';
import { afterAll, afterEach, describe, expect, it } from 'vitest';
import { type BlockFile, type EngineName, open } from '../../src/index.js';
import { note, Places } from '../fixtures/places.js';
import { noFileSystem } from '../geometry/loop-devices.js';

const MIB = 2 ** 20;
/** fcntl.h, as /proc shows it, in octal. */
const O_CLOEXEC = 0o2000000;

const lab = new Places();
const folder = lab.folder();
/** A Node.js program that lives until its parent lets go of it. */
const idle = join(folder, 'idle.cjs');
writeFileSync(idle, "process.on('message', () => {}); process.send('ready');");

const children: ChildProcess[] = [];
const files: BlockFile[] = [];
afterEach(async () => {
  for (const child of children.splice(0)) child.kill('SIGKILL');
  for (const file of files.splice(0)) await file.close();
});
afterAll(() => lab.dispose());

/** Files in both modes with everything in use: windows of both kinds, a lock, dirty bytes, reads on their way. */
async function useEverything(engine: EngineName | 'auto'): Promise<() => Promise<unknown>> {
  const reads: Promise<unknown>[] = [];
  for (const caching of ['page-cache', 'direct'] as const) {
    const path = join(folder, `${caching}-${engine}`);
    writeFileSync(path, Buffer.alloc(4 * MIB, 7));
    const file = await open(path, { caching, engine, access: 'read-write', lock: 'exclusive', cacheSize: 2 * MIB });
    files.push(file);
    await file.window(0, 100_000);
    const writable = await file.window(MIB, 8192, { writable: true });
    writable.bytes.fill(9);
    writable.markDirty();
    await file.write(Buffer.alloc(5000, 3), 2 * MIB + 77);
    for (let i = 0; i < 32; i++) reads.push(file.read(new Uint8Array(30_000), 3 * MIB + i * 30_000));
  }
  return () => Promise.all(reads);
}

/** A child that copies its input to its output until that ends. It has answered when this resolves: its program is loaded, and opens nothing any more. */
async function start(command = 'cat', args: string[] = [], more: number[] = []): Promise<number> {
  const child: ChildProcess = spawn(command, args, { stdio: ['pipe', 'pipe', 'ignore', ...more] });
  children.push(child);
  await new Promise((resolve, reject) => {
    child.once('error', reject);
    child.once('exit', () => reject(new Error(`${command} ended`)));
    child.stdout?.once('data', resolve);
    child.stdin?.write('?');
  });
  return child.pid as number;
}

async function forkNode(): Promise<ChildProcess> {
  const child = fork(idle, { stdio: ['ignore', 'ignore', 'ignore', 'ipc'], execArgv: [] });
  children.push(child);
  await new Promise((resolve, reject) => {
    child.once('message', resolve);
    child.once('exit', () => reject(new Error('the child ended')));
  });
  return child;
}

/** The process id of a child that a worker thread started. */
async function startInWorker(): Promise<number> {
  const worker = new Worker(
    `const { spawn } = require('node:child_process');
     const { parentPort } = require('node:worker_threads');
     const child = spawn('cat', { stdio: ['pipe', 'pipe', 'ignore'] });
     child.stdout.once('data', () => parentPort.postMessage(child.pid));
     child.stdin.write('?');
     parentPort.once('message', () => process.exit());`,
    { eval: true },
  );
  workers.push(worker);
  return new Promise((resolve, reject) => {
    worker.once('message', resolve);
    worker.once('error', reject);
  });
}
const workers: Worker[] = [];
// With its worker the child's input ends, and so does the child.
afterEach(async () => {
  for (const worker of workers.splice(0)) await worker.terminate();
});

/** Descriptors of a process, and what they are; sockets and pipes without their numbers. */
function descriptorsOf(pid: number | 'self'): Map<string, string> {
  const found = new Map<string, string>();
  for (const fd of readdirSync(`/proc/${pid}/fd`)) {
    try {
      found.set(fd, readlinkSync(`/proc/${pid}/fd/${fd}`).replace(/:\[\d+\]$/, ''));
    } catch {
      // The one that lists.
    }
  }
  return found;
}

const kindsOf = (pid: number): string[] => [...descriptorsOf(pid).values()].sort();

/** Mappings of files and of what has a name; none of them says where it is. */
function namesMapped(pid: number): Set<string> {
  const lines = readFileSync(`/proc/${pid}/maps`, 'utf8').trimEnd().split('\n');
  return new Set(lines.map((line) => line.split(/\s+/).slice(5).join(' ')).filter((name) => name !== ''));
}

const ours = (name: string): boolean => name.includes(folder) || name.includes('sectorwise') || name.includes('io_uring');

describe.each(['auto', 'threads'] as const)('with files in use (engine %s)', (engine) => {
  it('gives a child the descriptors that were asked for, and no mapping, from the main thread, a shell and a worker', async () => {
    const before = await start();
    const settle = await useEverything(engine);
    for (const pid of [await start(), await start('/bin/sh', ['-c', 'exec cat']), await startInWorker()]) {
      expect(descriptorsOf(pid)).toEqual(descriptorsOf(before));
      expect([...namesMapped(pid)].filter(ours)).toEqual([]);
    }
    await settle();
  });

  it('gives a forked Node.js what it gave one before there were files', async () => {
    const before = await forkNode();
    const settle = await useEverything(engine);
    const after = await forkNode();
    expect(kindsOf(after.pid as number)).toEqual(kindsOf(before.pid as number));
    expect([...namesMapped(after.pid as number)].filter((name) => name.includes(folder) || name.includes('sectorwise'))).toEqual([]);
    await settle();
  });

  it('opens no descriptor that a program could inherit, and maps nothing that a fork would copy', async () => {
    const before = descriptorsOf('self');
    const settle = await useEverything(engine);
    // While it is open: those that only last for a moment are seen by chance, the others always.
    const added = [...descriptorsOf('self')].filter(([fd, name]) => before.get(fd) !== name);
    const inheritable = added.filter(([fd]) => {
      const flags = /^flags:\s+([0-7]+)$/m.exec(readFileSync(`/proc/self/fdinfo/${fd}`, 'utf8'));
      return (Number.parseInt(flags?.[1] ?? '0', 8) & O_CLOEXEC) === 0;
    });
    expect(inheritable).toEqual([]);
    const names = added.map(([, name]) => name);
    expect(names.some((name) => name.includes('sectorwise-slab'))).toBe(true);
    expect(names.filter((name) => name.startsWith(folder)).length).toBeGreaterThanOrEqual(2);

    const copied: string[] = [];
    const left = new Set<string>();
    let name = '';
    for (const line of readFileSync('/proc/self/smaps', 'utf8').split('\n')) {
      if (/^[0-9a-f]+-[0-9a-f]+ /.test(line)) name = line.split(/\s+/).slice(5).join(' ');
      // The addon itself is a program's file.
      if (!line.startsWith('VmFlags:') || !ours(name) || name.endsWith('.node')) continue;
      if (/ dc( |$)/.test(line)) left.add(name.replace(/^.*\//, ''));
      else copied.push(name);
    }
    expect(copied).toEqual([]);
    expect([...left]).toEqual(expect.arrayContaining([`page-cache-${engine}`, expect.stringContaining('sectorwise-slab')]));
    if (files[0].explain().engine === 'io_uring') expect([...left]).toContainEqual(expect.stringContaining('io_uring'));
    await settle();
  });
});

describe('a child that lives on', () => {
  it.each(['page-cache', 'direct'] as const)('keeps no lock of a file that was closed (%s)', async (caching) => {
    const path = join(folder, `locked-${caching}`);
    writeFileSync(path, Buffer.alloc(MIB, 7));
    const options = { caching, access: 'read-write', lock: 'exclusive' } as const;
    const file = await open(path, options);
    await file.window(0, 8192);
    await start();
    // As a process has it that was forked and has not yet begun its program: a copy of the descriptor.
    const [fd] = [...descriptorsOf('self')].find(([, name]) => name === path) as [string, string];
    const keeper = await start('cat', [], [Number(fd)]);
    await expect(open(path, options)).rejects.toMatchObject({ code: 'EAGAIN' });
    await file.close();
    expect(kindsOf(keeper)).toContain(path);
    await (await open(path, { ...options, caching: 'page-cache' })).close();
  });

  const missing = noFileSystem('mkfs.ext4');
  it.skipIf(missing)(`keeps no file system mounted${note(missing)}`, async () => {
    const { folder: mounted } = lab.loops.fileSystem(64 * MIB, 'mkfs.ext4', '-q');
    const path = join(mounted, 'file');
    writeFileSync(path, Buffer.alloc(MIB, 7));
    const opened = await Promise.all((['page-cache', 'direct'] as const).map((caching) => open(path, { caching })));
    for (const file of opened) await file.window(0, 8192);
    await start();
    await forkNode();
    for (const file of opened) await file.close();
    lab.loops.unmount(mounted);
  });
});
