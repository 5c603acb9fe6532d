/** The tour as a process: what it prints, what it leaves behind, and how it ends. Needs the built project (npm run build). */
import { spawn, spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';

const tourScript = join(dirname(fileURLToPath(import.meta.url)), '..', '..', 'dist', 'tools', 'tour.js');
let folder: string;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'tour-test-'));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

function tour(...args: string[]) {
  return spawnSync(process.execPath, [tourScript, ...args], { encoding: 'utf8', env: { ...process.env, TMPDIR: folder }, cwd: folder });
}

describe('npm start', () => {
  it('makes a file, compares every byte of it, and removes it', () => {
    const { status, stdout, stderr } = tour('--size', '4M', '--seconds', '1');
    expect(stderr).toBe('');
    expect(stdout).toContain('All bytes of');
    expect(stdout).not.toContain('MISMATCH');
    for (const line of stdout.split('\n').filter((text) => !text.includes(folder))) expect(line.length).toBeLessThanOrEqual(80);
    expect(status).toBe(0);
    expect(readdirSync(folder)).toEqual([]);
  });

  it('reads a file that ends at an odd byte, and leaves it alone', () => {
    writeFileSync(join(folder, 'odd'), Buffer.alloc(10_007, 5));
    const { status, stdout } = tour('odd', '--seconds', '1');
    expect(stdout).toContain('All bytes of');
    expect(status).toBe(0);
    expect(readdirSync(folder)).toEqual(['odd']);
  });

  it('removes its file when it is interrupted', async () => {
    const child = spawn(process.execPath, [tourScript, '--size', '64M', '--seconds', '60'], { env: { ...process.env, TMPDIR: folder } });
    const ended = new Promise((resolve) => child.on('exit', resolve));
    await new Promise<void>((resolve) => {
      child.stdout.on('data', (text: Buffer) => {
        if (text.includes('random')) resolve();
      });
    });
    child.kill('SIGINT');
    expect(await ended).toBe(130);
    expect(readdirSync(folder)).toEqual([]);
  });

  it.each([
    [['missing'], 'missing does not exist'],
    [['.'], 'is a directory'],
    [['/dev/null'], 'neither a regular file nor a block device'],
    [['empty'], 'is empty'],
    [['empty/below'], 'does not exist'],
    [['a', 'b'], 'one file or device at a time'],
    [['--size', 'big'], "--size takes bytes such as 64M or 1G, not 'big'"],
    [['--size', '3T'], '--size is at most 2 GiB'],
    [['--seconds', '0'], '--seconds takes a number above 0'],
    [['--deep'], "Unknown option '--deep'"],
  ])('answers %j with one line and exit code 2', (args, message) => {
    writeFileSync(join(folder, 'empty'), '');
    const { status, stderr } = tour(...args);
    expect(stderr).toContain(message);
    expect(stderr.trimEnd().split('\n')).toHaveLength(1);
    expect(status).toBe(2);
  });

  it('says that it may not read a file that belongs to somebody else (needs root, to become an ordinary user)', (context) => {
    if (process.getuid?.() !== 0) return context.skip('only root can become another user');
    mkdirSync(join(folder, 'open'), { mode: 0o755 });
    const path = join(folder, 'open', 'secret');
    writeFileSync(path, 'x', { mode: 0o600 });
    spawnSync('chmod', ['755', folder]);
    const readable = spawnSync(process.execPath, ['-e', 'fs.readFileSync(process.argv[1])', tourScript], { uid: 65534, gid: 65534, cwd: '/' });
    if (readable.status !== 0) return context.skip('the project lies where an ordinary user cannot read it');
    const { status, stderr } = spawnSync(process.execPath, [tourScript, path], { encoding: 'utf8', uid: 65534, gid: 65534, cwd: '/' });
    expect(stderr).toContain('no permission to read');
    expect(status).toBe(2);
  });

  it('answers an engine that does not exist with one line and exit code 2', () => {
    const { status, stderr } = spawnSync(process.execPath, [tourScript, '--size', '1M'], {
      encoding: 'utf8',
      env: { ...process.env, TMPDIR: folder, SECTORWISE_ENGINE: 'steam' },
    });
    expect(stderr.trimEnd().split('\n')).toHaveLength(1);
    expect(stderr).toContain("must be 'threads' or 'io_uring'");
    expect(status).toBe(2);
    expect(readdirSync(folder)).toEqual([]);
  });

  it('tells how it is used', () => {
    const { status, stdout } = tour('--help');
    expect(stdout).toContain('Usage: npm start');
    expect(status).toBe(0);
  });
});
