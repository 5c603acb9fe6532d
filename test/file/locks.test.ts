/** Windows with `lock: true`, as the kernel counts them: VmLck of the process, and what smaps says of the file's mappings. */
import { execFileSync } from 'node:child_process';
import { chmodSync, closeSync, copyFileSync, existsSync, openSync, readFileSync, readSync, writeFileSync, writeSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Worker } from 'node:worker_threads';
import { afterAll, afterEach, describe, expect, it } from 'vitest';
import { type BlockFile, type OpenOptions, open, type Window } from '../../src/index.js';
import { type NativeBinding, type NativeSegment, native } from '../../src/io/native.js';
import { FileMapping } from '../../src/memory/mapping.js';
import { evicted } from '../fixtures/cold.js';
import { note, Places, places } from '../fixtures/places.js';
import { hasCommand, isRoot } from '../geometry/loop-devices.js';

const PAGE = 4096;
const MIB = 1 << 20;
const BYTES = 12 * MIB;

const lab = new Places();
const ext4 = places.find(({ name }) => name === 'an ext4 file')!;
const path = join(lab.folder(), 'file');
writeFileSync(path, Buffer.alloc(BYTES, 7));
chmodSync(dirname(path), 0o755);
const opened: BlockFile[] = [];
afterEach(async () => {
  for (const file of opened.splice(0)) await file.close();
});
afterAll(() => lab.dispose());

async function opening(options: OpenOptions = {}, name = path): Promise<BlockFile> {
  const file = await open(name, options);
  opened.push(file);
  return file;
}

/** Pages that the process has locked, by the kernel's count, and those of them that are this library's by its own. */
function locked(): { process: number; ours: number } {
  const kilobytes = Number(/^VmLck:\s+(\d+) kB/m.exec(readFileSync('/proc/self/status', 'utf8'))![1]);
  return { process: kilobytes / 4, ours: native().memoryLocks().locked / PAGE };
}

/** Pages that are locked and in memory, and that are copies, in the mappings of a file. */
function mapped(name: string): { locked: number; copies: number } {
  const sums = { locked: 0, copies: 0 };
  let ours = false;
  for (const line of readFileSync('/proc/self/smaps', 'utf8').split('\n')) {
    if (/^[0-9a-f]+-[0-9a-f]+ /.test(line)) ours = line.endsWith(name);
    const [, field, kilobytes] = /^(Locked|Anonymous):\s+(\d+) kB/.exec(line) ?? [];
    if (ours && field === 'Locked') sums.locked += Number(kilobytes) / 4;
    if (ours && field === 'Anonymous') sums.copies += Number(kilobytes) / 4;
  }
  return sums;
}

describe('a locked window', () => {
  it('keeps its pages in memory until its last reference is gone', async () => {
    const file = await opening();
    const before = locked();
    const window = await file.window(5 * PAGE + 100, 10 * PAGE, { lock: true });
    expect(locked()).toEqual({ process: before.process + 11, ours: before.ours + 11 });
    expect(window.bytes.every((byte) => byte === 7)).toBe(true);
    window.retain().release();
    expect(locked().process).toBe(before.process + 11);
    window.release();
    expect(locked()).toEqual(before);
  });

  it('has its pages in the page table at once, as pages of the file and not as copies', async () => {
    const file = await opening({ access: 'read-write' });
    const reading = await file.window(0, 8 * MIB - 1, { lock: true }).catch((error) => error);
    // With a limit of 8 MiB for the process a little less has to do.
    const window = reading instanceof Error ? await file.window(0, 4 * MIB, { lock: true }) : (reading as Window);
    const pages = Math.ceil(window.length / PAGE);
    expect(mapped(path)).toEqual({ locked: pages, copies: 0 });
    window.bytes[17] = 9;
    expect(mapped(path).copies).toBe(1);
    window.release();
    const writing = await file.window(PAGE, 100 * PAGE, { lock: true, writable: true });
    expect(mapped(path).locked).toBe(100);
    writing.bytes[0] = 8;
    const back = Buffer.alloc(1);
    const fd = openSync(path, 'r');
    readSync(fd, back, 0, 1, PAGE);
    closeSync(fd);
    expect(back[0]).toBe(8);
    writing.bytes[0] = 7;
    writing.release();
    expect(locked().process).toBe(0);
  });

  it('shares its pages with others that overlap it: the last one unlocks each', async () => {
    const file = await opening();
    const before = locked().process;
    const windows = [];
    for (const [offset, length] of [
      [0, 4],
      [2, 4],
      [3, 1],
      [600, 2],
    ]) {
      windows.push(await file.window(offset * PAGE, length * PAGE, { lock: true }));
    }
    const seen = [];
    for (const at of [1, 0, 2, 3]) {
      seen.push(locked().process - before);
      windows[at].release();
    }
    expect(seen).toEqual([8, 6, 3, 2]);
    expect(locked().process).toBe(before);
  });

  it(`is answered by tryWindow only where nothing has to be read${note(ext4.missing)}`, { skip: ext4.missing !== undefined }, async () => {
    const cold = ext4.make(lab);
    writeFileSync(cold, Buffer.alloc(MIB, 7));
    const file = await opening({}, cold);
    await file.flush();
    await evicted(file, 0, MIB);
    const before = locked();
    expect(file.tryWindow(0, PAGE, { lock: true })).toBeUndefined();
    expect(locked()).toEqual(before);
    (await file.window(0, PAGE)).release();
    const window = file.tryWindow(0, PAGE, { lock: true })!;
    expect(window.bytes[5]).toBe(7);
    expect(locked().process).toBe(before.process + 1);
    window.release();
  });

  it('is the file again where JavaScript had stored into it', async () => {
    const file = await opening();
    {
      using window = await file.window(0, 3 * PAGE);
      window.bytes[PAGE] = 9;
    }
    using window = await file.window(0, 3 * PAGE, { lock: true });
    expect(window.bytes[PAGE]).toBe(7);
    expect(mapped(path)).toEqual({ locked: 3, copies: 0 });
  });

  it('lets go of what a truncation took, and of nothing else later', async () => {
    const name = join(lab.folder(), 'cut');
    writeFileSync(name, Buffer.alloc(100 * PAGE, 7));
    const file = await opening({ access: 'read-write' }, name);
    const before = locked().process;
    const window = await file.window(10 * PAGE, 20 * PAGE, { lock: true });
    await file.resize(15 * PAGE + 3);
    expect(locked().process).toBe(before + 6);
    await file.resize(100 * PAGE);
    const again = await file.window(15 * PAGE, 4 * PAGE, { lock: true });
    expect(locked().process).toBe(before + 9);
    window.release();
    expect(locked().process).toBe(before + 4);
    again.release();
    expect(locked().process).toBe(before);
  });

  it('shows the hole that was punched under it', async () => {
    const name = join(lab.folder(), 'hole');
    writeFileSync(name, Buffer.alloc(100 * PAGE, 7));
    const file = await opening({ access: 'read-write' }, name);
    using window = await file.window(0, 10 * PAGE, { lock: true });
    await file.discard(2 * PAGE, 3 * PAGE);
    expect([window.bytes[PAGE], window.bytes[2 * PAGE], window.bytes[5 * PAGE]]).toEqual([7, 0, 7]);
  });

  it('is unlocked by close, and its release after that does nothing', async () => {
    const before = locked();
    const file = await open(path);
    const window = await file.window(0, 10 * PAGE, { lock: true });
    await file.close();
    expect(locked()).toEqual(before);
    window.release();
    expect(locked()).toEqual(before);
  });

  it('in direct mode is any window', async () => {
    const before = locked();
    const file = await opening({ caching: 'direct' });
    using window = await file.window(0, 10 * PAGE, { lock: true });
    expect(window.bytes[0]).toBe(7);
    using immediate = file.tryWindow(0, PAGE, { lock: true })!;
    expect(immediate.length).toBe(PAGE);
    expect(locked().ours).toBe(before.ours);
  });

  it('may be empty', async () => {
    const file = await opening();
    expect((await file.window(BYTES, 10, { lock: true })).length).toBe(0);
    expect(file.tryWindow(BYTES + 5, 10, { lock: true })!.length).toBe(0);
  });
});

describe('a locked range', () => {
  it('counts as resident for as long as it is locked, without asking again', () => {
    const fd = openSync(path, 'r');
    const mapping = new FileMapping({ fd, path, size: BYTES, shared: false, trustMincore: true });
    try {
      const hold = mapping.lock(5 * PAGE, 3 * PAGE, true)!;
      const segment = mapping.at(0, 1) as unknown as { native: NativeSegment; until: Float64Array };
      const real = segment.native;
      let questions = 0;
      segment.native = {
        ...real,
        scan: (offset: number, length: number) => {
          questions++;
          return real.scan(offset, length);
        },
        mincore: (offset: number, length: number, target: Uint8Array) => {
          questions++;
          return real.mincore(offset, length, target);
        },
      };
      // Whatever was proved meanwhile is too old.
      segment.until = new Float64Array(segment.until.length);
      expect(mapping.resident(5 * PAGE + 1, 3 * PAGE - 1)).toBe(true);
      expect(questions).toBe(0);
      mapping.resident(4 * PAGE, 2 * PAGE);
      expect(questions).toBeGreaterThan(0);
      questions = 0;
      mapping.forget(0, BYTES);
      mapping.resident(5 * PAGE, PAGE);
      expect(questions).toBeGreaterThan(0);
      hold.locks.give(hold);
      segment.native = real;
    } finally {
      mapping.close();
      closeSync(fd);
    }
  });
});

describe('the limit on locked memory', () => {
  const noLimit = hasCommand('prlimit') ? undefined : 'needs prlimit';

  /** Runs with so many bytes to lock, and without the right to lock more. */
  async function limited(bytes: number, run: () => Promise<void>): Promise<void> {
    const before = execFileSync('prlimit', ['--pid', `${process.pid}`, '--memlock', '--output', 'SOFT', '--noheadings', '--raw'], { encoding: 'utf8' }).trim();
    execFileSync('prlimit', ['--pid', `${process.pid}`, `--memlock=${bytes}:`]);
    if (isRoot) process.seteuid!(65534);
    try {
      await run();
    } finally {
      if (isRoot) process.seteuid!(0);
      execFileSync('prlimit', ['--pid', `${process.pid}`, `--memlock=${before}:`]);
    }
  }

  it(`is an error that names it, what is locked and what to do, and leaves nothing locked${note(noLimit)}`, { skip: noLimit !== undefined }, async () => {
    const file = await opening();
    (await file.window(0, MIB)).release();
    await limited(20 * PAGE, async () => {
      const before = locked();
      const window = await file.window(0, 15 * PAGE, { lock: true });
      const expected = {
        name: 'SectorwiseError',
        code: 'ERR_SECTORWISE_LOCK_LIMIT',
        path,
        offset: 10 * PAGE,
        length: 20 * PAGE,
        message: expect.stringMatching(
          new RegExp(`${15 * PAGE} bytes more.*may lock ${20 * PAGE} bytes, and ${15 * PAGE} are locked.*ulimit -l.*prlimit.*CAP_IPC_LOCK`),
        ),
      };
      await expect(file.window(10 * PAGE, 20 * PAGE, { lock: true })).rejects.toMatchObject(expected);
      expect(() => file.tryWindow(10 * PAGE, 20 * PAGE, { lock: true })).toThrow(expect.objectContaining({ code: expected.code }));
      expect(locked().process).toBe(before.process + 15);
      // What is locked already costs nothing more.
      const within = await file.window(3 * PAGE, 17 * PAGE, { lock: true });
      expect(locked().process).toBe(before.process + 20);
      for (const each of [window, within]) each.release();
      expect(locked()).toEqual(before);
    });
  });

  it(`counts what others in the process have locked${note(noLimit)}`, { skip: noLimit !== undefined }, async () => {
    const file = await opening();
    // Another copy of the addon: a library of its own, with a count of its own.
    const copy = join(lab.folder(), 'copy.node');
    copyFileSync(fileURLToPath(new URL('../../build/Release/sectorwise.node', import.meta.url)), copy);
    const other = createRequire(import.meta.url)(copy) as NativeBinding;
    const fd = openSync(path, 'r');
    const segment = other.mapSegment(fd, 0, BYTES, false) as NativeSegment;
    try {
      await limited(20 * PAGE, async () => {
        expect(segment.lock(0, 12 * PAGE)).toBe(0);
        await expect(file.window(0, 10 * PAGE, { lock: true })).rejects.toMatchObject({
          code: 'ERR_SECTORWISE_LOCK_LIMIT',
          message: expect.stringContaining(`${12 * PAGE} are locked`),
          cause: expect.objectContaining({ code: 'ENOMEM', syscall: 'mlock2' }),
        });
        expect(locked()).toEqual({ process: 12, ours: 0 });
      });
    } finally {
      segment.close();
      closeSync(fd);
    }
    expect(locked().process).toBe(0);
  });

  const root = fileURLToPath(new URL('../../', import.meta.url));
  const notBuilt = existsSync(join(root, 'dist/src/index.js')) ? undefined : 'needs the built package: npm run build';
  it(`is given back by a worker that is terminated${note(notBuilt)}`, { skip: notBuilt !== undefined }, async () => {
    const before = locked();
    const code = `
      import(${JSON.stringify(join(root, 'dist/src/index.js'))}).then(async ({ open }) => {
        const file = await open(${JSON.stringify(path)});
        globalThis.kept = await file.window(0, 30 * 4096, { lock: true });
        // An open file does not keep a worker alive, and this one is to be there until it is terminated.
        setInterval(() => {}, 1000);
        require('node:worker_threads').parentPort.postMessage('locked');
      });`;
    const worker = new Worker(code, { eval: true });
    await new Promise((resolve, reject) => {
      worker.once('message', resolve);
      worker.once('error', reject);
    });
    expect(locked()).toEqual({ process: before.process + 30, ours: before.ours + 30 });
    await worker.terminate();
    expect(locked()).toEqual(before);
  });
});

describe('writing beside a lock', () => {
  it('shows through', async () => {
    const file = await opening();
    using window = await file.window(7 * MIB, PAGE, { lock: true });
    const fd = openSync(path, 'r+');
    writeSync(fd, Buffer.from([5]), 0, 1, 7 * MIB + 9);
    expect(window.bytes[9]).toBe(5);
    writeSync(fd, Buffer.from([7]), 0, 1, 7 * MIB + 9);
    closeSync(fd);
  });
});
