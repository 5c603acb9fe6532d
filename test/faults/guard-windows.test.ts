/**
 * Windows and reads over bytes that went away under them: what they answer, and that nobody takes zeros for the file.
 *
 * The scenarios with threads run in processes of their own; the others touch dead memory in this one, which would end it without the guard.
 */
import { execFile, execFileSync, spawnSync } from 'node:child_process';
import {
  appendFileSync,
  closeSync,
  existsSync,
  fstatSync,
  openSync as openDescriptor,
  rmSync,
  truncateSync,
  unlinkSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { afterAll, afterEach, describe, expect, it } from 'vitest';
import { type BlockFile, open } from '../../src/index.js';
import { native } from '../../src/io/native.js';
import { openNativeEngine } from '../../src/io/native-engine.js';
import { CAUSE_FAULT, CAUSE_TRUNCATE, claimWord, freeWord, validity } from '../../src/memory/validity.js';
import { Ground } from '../../src/windows/ground.js';
import { MappedAccess } from '../../src/windows/mapped-access.js';
import { note, Places } from '../fixtures/places.js';
import { hasCommand, isRoot } from '../geometry/loop-devices.js';

const PAGE = 4096;
const MIB = 2 ** 20;
const root = fileURLToPath(new URL('../../', import.meta.url));
const long = process.env.SECTORWISE_LONG === '1';
const notBuilt = existsSync(join(root, 'dist/src/index.js')) ? undefined : 'needs the built package: npm run build';

const lab = new Places();
const files: BlockFile[] = [];
let paths = 0;

afterEach(async () => {
  for (const file of files.splice(0)) await file.close().catch(() => undefined);
});
afterAll(() => lab.dispose());

/** A file of `size` bytes, each 7. */
function sevens(size: number, folder = lab.folder()): string {
  const path = join(folder, `file-${paths++}`);
  writeFileSync(path, Buffer.alloc(size, 7));
  return path;
}

async function opened(path: string, access: 'read' | 'read-write' = 'read'): Promise<BlockFile> {
  const file = await open(path, { access });
  files.push(file);
  return file;
}

const code = (run: () => unknown): string | undefined => {
  try {
    run();
    return undefined;
  } catch (error) {
    return (error as { code?: string }).code;
  }
};

describe('a window over a file that others made shorter', () => {
  it('says so once its bytes were touched, and the windows before the end go on, in the same cell too', async () => {
    const path = sevens(16 * MIB);
    const file = await opened(path);
    const before = await file.window(2 * MIB, MIB);
    const across = await file.window(3 * MIB - PAGE, 2 * PAGE);
    const beyond = await file.window(3 * MIB + PAGE, 100);
    const untouched = await file.window(10 * MIB, 100);
    const view = beyond.bytes;
    truncateSync(path, 3 * MIB);
    expect(view.every((byte) => byte === 0)).toBe(true);
    expect([before, across, beyond, untouched].map(({ valid }) => valid)).toEqual([true, false, false, true]);
    expect(code(() => beyond.check())).toBe('ERR_SECTORWISE_TRUNCATED');
    expect(code(() => beyond.bytes)).toBe('ERR_SECTORWISE_TRUNCATED');
    expect(before.bytes[MIB - 1]).toBe(7);
    expect(untouched.bytes[0]).toBe(0);
    expect(untouched.valid).toBe(false);
    expect(file.stats.faults).toBe(2);
    view.fill(5);
    expect(fstatSync(openOnce(path)).size).toBe(3 * MIB);
  });

  it('is answered short when it is asked for anew, with the file its new size and an event', async () => {
    const path = sevens(16 * MIB);
    const file = await opened(path);
    const old = await file.window(5 * MIB, PAGE);
    truncateSync(path, 3 * MIB + 10);
    expect(old.bytes[0]).toBe(0);
    expect(file.tryWindow(5 * MIB, PAGE)).toBe(undefined);
    const event = new Promise((resolve) => file.once('invalidate', resolve));
    // Who waits when it is found out is told; who asks then gets what there is.
    await expect(file.window(5 * MIB, PAGE)).rejects.toMatchObject({ code: 'ERR_SECTORWISE_TRUNCATED', offset: 5 * MIB });
    expect((await file.window(5 * MIB, PAGE)).length).toBe(0);
    expect(await event).toEqual({ cause: 'truncate', offset: 3 * MIB + 10, length: 13 * MIB - 10 });
    expect(file.size).toBe(3 * MIB + 10);
    expect((await file.window(3 * MIB, PAGE)).length).toBe(10);
    expect(code(() => old.check())).toBe('ERR_SECTORWISE_TRUNCATED');
  });

  it('stays dead when the file grows again, and a new one has the new bytes', async () => {
    const path = sevens(16 * MIB);
    const file = await opened(path);
    const old = await file.window(5 * MIB, PAGE);
    const generation = file.generation;
    truncateSync(path, 3 * MIB);
    expect(old.bytes[0]).toBe(0);
    truncateSync(path, 16 * MIB);
    appendFileSync(path, Buffer.alloc(MIB, 9));
    const now = await file.window(5 * MIB, PAGE);
    const end = await file.window(16 * MIB, PAGE);
    expect([now.bytes[0], now.valid, end.bytes[0]]).toEqual([0, true, 9]);
    // Mapped again: the file's bytes show through.
    const fd = openOnce(path, 'r+');
    writeSync(fd, Buffer.from([3]), 0, 1, 5 * MIB);
    expect(now.bytes[0]).toBe(3);
    expect(code(() => old.check())).toBe('ERR_SECTORWISE_TRUNCATED');
    expect(file.generation).toBeGreaterThan(generation);
    expect(file.tryWindow(5 * MIB, PAGE)?.bytes[0]).toBe(3);
  });

  it('keeps reads honest: they count what the file has, also when its pages were known to be in memory', async () => {
    const path = sevens(16 * MIB);
    const file = await opened(path);
    const target = Buffer.alloc(100_000);
    expect(await file.read(target, 5 * MIB)).toBe(100_000);
    expect(file.tryRead(target, 5 * MIB)).toBe(100_000);
    truncateSync(path, 5 * MIB + 50_000);
    // Who waits when it is found out is told; who asks then gets what there is.
    const again = (): Promise<number> =>
      file.read(target, 5 * MIB).catch((error) => (error.code === 'ERR_SECTORWISE_TRUNCATED' ? file.read(target, 5 * MIB) : Promise.reject(error)));
    const count = await again();
    expect([count, file.size]).toEqual([50_000, 5 * MIB + 50_000]);
    expect(target.subarray(0, count).every((byte) => byte === 7)).toBe(true);
    truncateSync(path, MIB);
    expect(await again()).toBe(0);
    expect(file.readSync(target, MIB - 10)).toBe(10);
  });

  it('as the target of a blocking read gives its own error instead of EFAULT', async () => {
    const path = sevens(4 * MIB);
    const source = await opened(sevens(MIB));
    const file = await opened(path);
    const window = await file.window(2 * MIB, 10_000);
    const view = window.bytes;
    truncateSync(path, MIB);
    expect(code(() => source.readSync(view, 0))).toBe('ERR_SECTORWISE_TRUNCATED');
    expect(window.valid).toBe(false);
    // Zero pages are memory like any other.
    expect([source.readSync(view, 0), view[0]]).toEqual([10_000, 7]);
  });

  it('can be the source of a write and of other calls: what is gone reads as zeros', async () => {
    const path = sevens(4 * MIB);
    const file = await opened(path);
    const other = await opened(sevens(MIB), 'read-write');
    const view = (await file.window(2 * MIB, 2 * PAGE)).bytes;
    truncateSync(path, 2 * MIB + PAGE);
    await other.write(view, 0);
    const back = Buffer.alloc(2 * PAGE);
    await other.read(back, 0);
    expect(back.equals(Buffer.concat([Buffer.alloc(PAGE, 7), Buffer.alloc(PAGE)]))).toBe(true);
  });
});

describe('a window over a page that could not be had', () => {
  const missing = isRoot ? (hasCommand('fallocate') ? undefined : 'needs fallocate') : 'needs root';

  it.skipIf(missing !== undefined)(`dies of a fault, and a new one works when the page can be had again${note(missing)}`, async () => {
    const folder = lab.loops.mount('tmpfs', '-t', 'tmpfs', '-o', 'size=16m');
    const path = sevens(8 * MIB, folder);
    const file = await opened(path, 'read-write');
    const window = await file.window(5 * MIB, PAGE, { writable: true });
    const neighbour = await file.window(4 * MIB, PAGE, { writable: true });
    const elsewhere = await file.window(0, PAGE, { writable: true });
    // Its blocks were allocated when it was made; somebody else takes them, and the disk is full.
    execFileSync('fallocate', ['-p', '-o', String(4 * MIB), '-l', String(2 * MIB), path]);
    const filler = join(folder, 'filler');
    const fd = openDescriptor(filler, 'w');
    expect(code(() => writeFileSync(fd, Buffer.alloc(16 * MIB)))).toBe('ENOSPC');
    closeSync(fd);
    const view = window.bytes;
    view[0] = 1;
    expect([window, neighbour, elsewhere].map(({ valid }) => valid)).toEqual([false, false, true]);
    expect(code(() => window.check())).toBe('ERR_SECTORWISE_FAULT');
    expect(file.tryWindow(5 * MIB, PAGE, { writable: true })).toBe(undefined);
    expect(file.stats.faults).toBe(1);
    rmSync(filler);
    const again = await file.window(5 * MIB, PAGE, { writable: true });
    again.bytes[1] = 6;
    expect([again.valid, window.valid, neighbour.valid, elsewhere.valid]).toEqual([true, false, false, true]);
    expect(code(() => window.bytes)).toBe('ERR_SECTORWISE_FAULT');
    const back = Buffer.alloc(2);
    file.readSync(back, 5 * MIB);
    expect([...back]).toEqual([0, 6]);
    expect(file.stats.faults).toBe(1);
    await file.close();
    unlinkSync(path);
  });
});

describe('absorbFaults', () => {
  it('tells what was found once, with the loss on record, and finds nothing where nothing happened', () => {
    const path = sevens(8 * MIB);
    const fd = openDescriptor(path, 'r+');
    const engine = openNativeEngine({ engine: 'auto', depth: 8 });
    const word = claimWord();
    const ground = new Ground(path, 8 * MIB, validity().words, word);
    const access = new MappedAccess({
      fd,
      ground,
      engine,
      kind: 'file',
      sectorBytes: 512,
      trustMincore: true,
      device: '0:0',
      idleMs: 5000,
      sizeNow: () => fstatSync(fd).size,
      onInvalidate: () => {},
    });
    try {
      const faulted = access.windowFrom(2 * MIB, 100, false, false);
      const truncated = access.windowFrom(7 * MIB, 100, false, false);
      expect(access.absorbFaults()).toEqual([]);
      const { segment } = faulted as unknown as { segment: { firstCell: number; native: { repoint(offset: number, length: number): number } } };
      truncateSync(path, 5 * MIB);
      expect(truncated.bytes[0]).toBe(0);
      // As the guard leaves a page that could not be read; the fault above made the count go up.
      validity().words[segment.firstCell + 1] = CAUSE_FAULT;
      segment.native.repoint(2 * MIB, 2 * MIB);
      expect(native().guardFaults()).toBeGreaterThan(0);
      expect(access.absorbFaults()).toEqual([
        { cause: CAUSE_FAULT, offset: 2 * MIB, length: 2 * MIB },
        { cause: CAUSE_TRUNCATE, offset: 6 * MIB, length: 2 * MIB },
      ]);
      expect([access.counts.faults, ground.generation, ground.logical]).toEqual([2, 1, 8 * MIB]);
      expect(access.absorbFaults()).toEqual([]);
      access.shrunk(
        () => 5 * MIB,
        () => {},
        () => {},
      );
      expect([ground.logical, ground.committed, ground.causeOf(truncated), ground.causeOf(faulted)]).toEqual([5 * MIB, 5 * MIB, CAUSE_TRUNCATE, CAUSE_FAULT]);
      const again = access.windowFrom(2 * MIB, 100, false, false);
      expect([again.bytes[0], again.valid, faulted.valid]).toEqual([7, true, false]);
    } finally {
      engine.close();
      access.close();
      freeWord(word);
      closeSync(fd);
    }
  });
});

describe.skipIf(notBuilt !== undefined)(`in threads and asynchronous calls${note(notBuilt)}`, () => {
  const dist = JSON.stringify(new URL('../../dist/src/index.js', import.meta.url).href);

  it('windows of the main thread and of two workers survive fs, zlib and crypto while the file shrinks, and each says why it died', () => {
    const path = sevens(16 * MIB);
    const worker = `
      const fs = require('node:fs'); const zlib = require('node:zlib'); const crypto = require('node:crypto');
      const { promisify } = require('node:util');
      const { parentPort, workerData, isMainThread } = require('node:worker_threads');
      const path = workerData ?? ${JSON.stringify(path)};
      module.exports = async (ready) => {
        const { open } = await import(${dist});
        const file = await open(path);
        const window = await file.window(0, 16 * 2 ** 20);
        const kept = await file.window(0, 4096);
        const { bytes } = window;
        const out = fs.openSync('/dev/null', 'w');
        const jobs = [
          promisify(zlib.deflate)(bytes, { level: 1 }),
          promisify(fs.write)(out, bytes, 0, bytes.length, 0).catch(() => undefined),
          promisify(crypto.pbkdf2)(bytes.subarray(2 ** 20, 2 ** 21), 'salt', 1, 32, 'sha256'),
          crypto.webcrypto.subtle.digest('SHA-256', bytes),
        ];
        await ready();
        crypto.createHash('sha1').update(bytes).digest();
        await Promise.all(jobs);
        let sum = 0;
        for (let at = 4096; at < bytes.length; at += 64) sum += bytes[at];
        let code;
        try { window.check(); } catch (error) { code = error.code; }
        // The watcher may have seen the new end before anybody touched what is behind it.
        const answer = [sum, code, kept.valid, kept.bytes[0]].join();
        await file.close();
        return answer;
      };
      if (!isMainThread) module.exports(() => new Promise((resolve) => { parentPort.once('message', resolve); parentPort.postMessage('ready'); })).then((answer) => { parentPort.postMessage(answer); parentPort.close(); });`;
    const main = `
      const { Worker } = require('node:worker_threads');
      ${worker}
      const work = module.exports;
      (async () => {
        const answers = [];
        let ready = 0;
        let shrunk;
        const allReady = new Promise((resolve) => { shrunk = resolve; });
        const workers = [0, 1].map(() => new Worker(${JSON.stringify(worker)}, { eval: true, workerData: path }));
        const note = () => { if (++ready === 3) { fs.truncateSync(path, 4096); shrunk(); for (const each of workers) each.postMessage('go'); } };
        const ends = workers.map((each) => new Promise((resolve, reject) => {
          each.on('error', reject);
          each.on('exit', resolve);
          each.on('message', (message) => (message === 'ready' ? note() : answers.push(message)));
        }));
        answers.push(await work(() => { note(); return allReady; }));
        await Promise.all(ends);
        console.log(answers.join(' '));
      })();`;
    const ran = spawnSync(process.execPath, ['-e', main], { encoding: 'utf8', timeout: 110_000 });
    const answer = '0,ERR_SECTORWISE_TRUNCATED,true,7';
    expect({ status: ran.status, signal: ran.signal, out: ran.stdout + ran.stderr }).toEqual({
      status: 0,
      signal: null,
      out: `${answer} ${answer} ${answer}\n`,
    });
  });

  // Opening costs V8 some garbage collections each time, so that 10,000 take minutes: those with SECTORWISE_LONG=1.
  const cycles = long ? 10_000 : 400;
  it(`survives ${cycles} random cycles of open, window, truncate and close in four workers`, { timeout: 1_800_000 }, async () => {
    const seed = String(Date.now() % 100_000);
    const args = [join(root, 'test/faults/cycles.mjs'), root, lab.folder(), seed, String(cycles / 4)];
    const { stdout } = await promisify(execFile)(process.execPath, args).catch((error) => {
      throw new Error(`seed ${seed}: ${error.signal ?? error.code}: ${error.stderr}`);
    });
    const made = JSON.parse(stdout);
    expect(made.cycles).toBe(cycles);
    expect(made.faults).toBeGreaterThan(0);
  });
});

const descriptors: number[] = [];
afterAll(() => {
  for (const fd of descriptors) closeSync(fd);
});

function openOnce(path: string, flags = 'r'): number {
  const fd = openDescriptor(path, flags);
  descriptors.push(fd);
  return fd;
}
