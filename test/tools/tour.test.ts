/**
 * The tour as a process: what it prints, into a pipe and to a terminal (a pseudo-terminal by `script` of util-linux), what it leaves behind, and how it ends. Needs the built
 * project (npm run build).
 */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { BadInput, parseTourArguments } from '../../tools/tour/arguments.js';

const tourScript = join(dirname(fileURLToPath(import.meta.url)), '..', '..', 'dist', 'tools', 'tour.js');
let folder: string;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'tour-test-'));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

function tour(...args: string[]) {
  return spawnSync(process.execPath, [tourScript, ...args], { encoding: 'utf8', env: { ...process.env, TMPDIR: folder }, cwd: folder });
}

/** Everything that was shown is no wider than 80 columns; lines with a path may be. */
function expectNarrow(text: string): void {
  for (const line of text.split('\n').filter((each) => !each.includes(folder))) expect([...line].length, line).toBeLessThanOrEqual(80);
}

/** Control sequences (ECMA-48 §5.4) that end with such a letter. */
function sequences(kind: string): RegExp {
  return new RegExp(`\\x1b\\[[0-9;?]*${kind}`, 'g');
}

function codes(text: string, kind: string): string[] {
  return text.match(sequences(kind)) ?? [];
}

const hide = '\x1b[?25l';
const show = '\x1b[?25h';
const scriptWorks = spawnSync('script', ['-qec', 'exit 7', '/dev/null'], { stdio: ['ignore', 'ignore', 'ignore'] }).status === 7;

/** The tour on a terminal of 80 columns and 24 lines; `onText` sees what it has written so far, and may type. */
async function onTerminal(
  args: string,
  env: NodeJS.ProcessEnv,
  onText?: (text: string, child: ChildProcess) => void,
): Promise<{ text: string; status: number | null }> {
  const child = spawn('script', ['-qec', `stty cols 80 rows 24; '${process.execPath}' '${tourScript}' ${args}`, '/dev/null'], {
    env: { ...process.env, TMPDIR: folder, TERM: 'xterm', LC_ALL: 'C.UTF-8', NO_COLOR: '', ...env },
    cwd: folder,
  });
  let text = '';
  child.stdout.setEncoding('utf8').on('data', (more: string) => {
    text += more;
    onText?.(text, child);
  });
  const status = await new Promise<number | null>((resolve) => child.on('close', resolve));
  return { text, status };
}

describe('npm start', () => {
  it('shows all of it in plain lines of 80 columns where there is no terminal, and removes the file that it made', () => {
    const { status, stdout, stderr } = tour('--size', '9M', '--seconds', '0.05');
    expect(stderr).toBe('');
    expect(status).toBe(0);
    expectNarrow(stdout);
    expect(stdout).not.toContain('\x1b');
    expect(stdout).not.toContain('\r');
    const parts = [
      'only read',
      'Where it lies',
      'How it is read here',
      'What of it is in the page cache',
      'as found',
      'Reads racing node:fs',
      'SIGBUS',
      'The races',
      'Next',
    ];
    let from = 0;
    for (const part of parts) {
      const at = stdout.indexOf(part, from);
      expect(at, part).toBeGreaterThan(from - 1);
      from = at;
    }
    expect(stdout).toContain('ERR_SECTORWISE_TRUNCATED');
    expect(stdout).toMatch(/tryWindow\(\), page cache .*\d x\n/);
    expect(stdout).toContain('9,437,184 bytes front to end in both');
    expect(stdout).toContain('All bytes were those that node:fs reads');
    expect(stdout).not.toMatch(/MISMATCH|DIFFERENCES|NOT what/);
    expect(readdirSync(folder)).toEqual([]);
  });

  it.each([
    ['ends at an odd byte', 10_007],
    ['has one byte', 1],
  ])('reads a read-only file that %s, and leaves it alone', (_, size) => {
    const path = join(folder, 'odd');
    const bytes = Buffer.alloc(size, 5);
    writeFileSync(path, bytes, { mode: 0o444 });
    const before = statSync(path);
    const { status, stdout } = tour('odd', '--seconds', '0.05');
    expect(stdout).toContain('All bytes were those that node:fs reads');
    expect(stdout).toContain('No scans');
    expect(status).toBe(0);
    expectNarrow(stdout);
    expect(readdirSync(folder)).toEqual(['odd']);
    expect(readFileSync(path)).toEqual(bytes);
    const after = statSync(path);
    expect([after.mtimeMs, after.ctimeMs, after.ino, after.mode]).toEqual([before.mtimeMs, before.ctimeMs, before.ino, before.mode]);
  });

  it('says of an empty file what can be said, and with --explain every feature', () => {
    writeFileSync(join(folder, 'empty'), '');
    const { status, stdout } = tour('empty', '--explain');
    expect(stdout).toContain('It is empty');
    expect(stdout).toContain('It is a file of 0 bytes');
    expect(stdout).toContain('ERR_SECTORWISE_TRUNCATED');
    expect(stdout).not.toContain('The races');
    expect(stdout).toMatch(/^ {4}[+-] watched device/m);
    expectNarrow(stdout);
    expect(status).toBe(0);
  });

  it('ends with exit code 1 and says where, if a byte is not the one that node:fs reads', () => {
    writeFileSync(join(folder, 'file'), 'abc');
    writeFileSync(join(folder, 'liar.cjs'), 'Buffer.compare = () => 1;');
    const { status, stdout } = spawnSync(process.execPath, ['-r', join(folder, 'liar.cjs'), tourScript, 'file', '--seconds', '0.01'], {
      encoding: 'utf8',
      env: { ...process.env, TMPDIR: folder },
      cwd: folder,
    });
    expect(stdout).toContain('MISMATCH: page-cache mode: the 3 bytes at 0 differ from node:fs');
    expect(stdout).not.toContain('All bytes were those');
    expect(status).toBe(1);
  });

  it('removes its file when it is interrupted', async () => {
    const child = spawn(process.execPath, [tourScript, '--size', '1M', '--seconds', '60'], { env: { ...process.env, TMPDIR: folder } });
    const ended = new Promise((resolve) => child.on('exit', resolve));
    await new Promise<void>((resolve) => {
      child.stdout.on('data', (text: Buffer) => {
        if (text.includes('Compared')) resolve();
      });
    });
    child.kill('SIGINT');
    expect(await ended).toBe(130);
    expect(readdirSync(folder)).toEqual([]);
  });

  it('ends quietly when nobody reads on', async () => {
    const child = spawn(process.execPath, [tourScript, '--size', '1M', '--seconds', '0.05'], { env: { ...process.env, TMPDIR: folder } });
    let complaint = '';
    child.stderr.on('data', (text: Buffer) => {
      complaint += text;
    });
    child.stdout.once('data', () => child.stdout.destroy());
    expect(await new Promise((resolve) => child.on('close', resolve))).toBe(0);
    expect(complaint).toBe('');
    expect(readdirSync(folder)).toEqual([]);
  });

  describe('on a terminal', () => {
    it.skipIf(!scriptWorks)('draws bars in place, none wider than it, and gives the cursor back (needs script of util-linux)', async () => {
      const { text, status } = await onTerminal('--size 1M --seconds 0.05', {});
      expect(status).toBe(0);
      expect(codes(text, 'A').length).toBeGreaterThan(0);
      expect(text).toContain('█');
      expect(text.lastIndexOf(show)).toBeGreaterThan(text.lastIndexOf(hide));
      expect(codes(text, 'm').length).toBeGreaterThan(0);
      expectNarrow(text.replace(sequences('[A-Za-z]'), '').replaceAll('\r', ''));
      expect(text).toContain('All bytes were those that node:fs reads');
    });

    it.skipIf(!scriptWorks)(
      'gives the cursor back at Ctrl-C in the middle of a race, and has no colours with NO_COLOR (needs script of util-linux)',
      async () => {
        let typed = false;
        const { text, status } = await onTerminal('--size 1M --seconds 60', { NO_COLOR: '1' }, (soFar, child) => {
          if (typed || !soFar.includes('warming up')) return;
          typed = true;
          child.stdin?.write('\x03');
        });
        expect(status).toBe(130);
        expect(text).toContain(hide);
        expect(text.lastIndexOf(show)).toBeGreaterThan(text.lastIndexOf(hide));
        expect(codes(text, 'm')).toEqual([]);
        expect(readdirSync(folder)).toEqual([]);
      },
    );

    it.skipIf(!scriptWorks)('writes no escape code to a dumb one (needs script of util-linux)', async () => {
      writeFileSync(join(folder, 'file'), 'abc');
      const { text, status } = await onTerminal('file --seconds 0.01', { TERM: 'dumb' });
      expect(status).toBe(0);
      expect(text).toContain('All bytes were those');
      expect(text).not.toContain('\x1b');
    });
  });

  it.each([
    ['missing', 'missing does not exist'],
    ['.', 'is a directory'],
    ['/dev/null', 'neither a regular file nor a block device'],
    ['file/below', 'does not exist'],
  ])('answers %j with one line and exit code 2', (path, message) => {
    writeFileSync(join(folder, 'file'), '');
    const { status, stderr } = tour(path);
    expect(stderr).toContain(message);
    expect(stderr.trimEnd().split('\n')).toHaveLength(1);
    expect(status).toBe(2);
  });

  it.each([
    [['a', 'b'], 'one file or device at a time'],
    [['--size', 'big'], "--size takes bytes such as 64M or 1G, not 'big'"],
    [['--size', '3T'], '--size is at most 16 GiB'],
    [['--seconds', '0'], '--seconds takes a number above 0'],
    [['--deep'], "Unknown option '--deep'"],
  ])('refuses the arguments %j', (args, message) => {
    expect(() => parseTourArguments(args)).toThrow(message);
    expect(() => parseTourArguments(args)).toThrow(BadInput);
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

  it('does not pretend to know what is in memory of a file that belongs to somebody else (needs root, to become an ordinary user)', (context) => {
    if (process.getuid?.() !== 0) return context.skip('only root can become another user');
    spawnSync('chmod', ['755', folder]);
    mkdirSync(join(folder, 'temp'));
    spawnSync('chmod', ['777', join(folder, 'temp')]);
    const path = join(folder, 'readable');
    writeFileSync(path, Buffer.alloc(9000, 1), { mode: 0o644 });
    const other = { encoding: 'utf8', uid: 65534, gid: 65534, cwd: '/', env: { ...process.env, TMPDIR: join(folder, 'temp') } } as const;
    if (spawnSync(process.execPath, ['-e', 'fs.readFileSync(process.argv[1])', tourScript], other).status !== 0) {
      return context.skip('the project lies where an ordinary user cannot read it');
    }
    const { status, stdout } = spawnSync(process.execPath, [tourScript, path, '--seconds', '0.01'], other);
    expect(stdout).toContain('The kernel tells this only to those who own the file');
    expect(stdout).toContain('(page cache not told)');
    expect(status).toBe(0);
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
