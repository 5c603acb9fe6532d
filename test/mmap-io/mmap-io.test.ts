/** What the interface of mmap-io has here and mmap-io has not: maps that nothing ends the process through, sizes beyond 32 bits, worker threads, `unmap`, `check`, errors with codes. */
import { execFileSync } from 'node:child_process';
import {
  closeSync,
  ftruncateSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { open } from '../../src/index.js';
import mmap, { check, MADV_RANDOM, map, sync, unmap } from '../../src/mmap-io/index.js';
import { note } from '../fixtures/places.js';
import { isRoot } from '../geometry/loop-devices.js';
import { emitted } from '../rigs/emitted.js';
import { holeWithoutSpace, noTmpfs } from '../rigs/failing-places.js';

const PAGE = 4096;
const MIB = 1024 * 1024;
const { PROT_READ, PROT_WRITE, PROT_NONE, MAP_SHARED, MAP_PRIVATE } = mmap;
const folder = mkdtempSync(join(tmpdir(), 'sectorwise-mmap-io-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
let made = 0;

function fresh(bytes: number, fill = 7): string {
  const path = join(folder, String(made++));
  writeFileSync(path, Buffer.alloc(bytes, fill));
  return path;
}

/** Maps and closes, as most do. */
function mapped(path: string, protection: number, flags: number, bytes: number, offset = 0): Buffer {
  const fd = openSync(path, protection === PROT_READ || flags === MAP_PRIVATE ? 'r' : 'r+');
  try {
    return map(bytes, protection, flags, fd, offset);
  } finally {
    closeSync(fd);
  }
}

function leadsTo(fd: string, path: string): boolean {
  try {
    return readlinkSync(`/proc/self/fd/${fd}`) === path;
  } catch {
    // The one that the folder was read by.
    return false;
  }
}

describe('a map of which the bytes are gone', () => {
  for (const [kind, protection, flags] of [
    ['for reading', PROT_READ, MAP_SHARED],
    ['for writing, shared', PROT_WRITE, MAP_SHARED],
    ['for writing, private', PROT_WRITE, MAP_PRIVATE],
  ] as const) {
    it(`reads as zeros behind a cut, and says so: ${kind}`, () => {
      const path = fresh(4 * PAGE);
      const buffer = mapped(path, protection, flags, 4 * PAGE);
      truncateSync(path, PAGE + 1);
      expect(buffer[3 * PAGE]).toBe(0);
      expect(buffer[0]).toBe(7);
      expect(() => check(buffer)).toThrow(expect.objectContaining({ code: 'ERR_SECTORWISE_TRUNCATED', offset: 0, length: 4 * PAGE }));
      check(buffer.subarray(0, 2 * PAGE));
    });
  }

  it('takes stores behind the end, and sync says that they are lost', () => {
    const path = fresh(PAGE);
    const buffer = mapped(path, PROT_WRITE, MAP_SHARED, 3 * PAGE);
    buffer.write('here', 0);
    buffer.write('nowhere', 2 * PAGE);
    expect(() => sync(buffer, true)).toThrow(expect.objectContaining({ code: 'ERR_SECTORWISE_TRUNCATED' }));
    sync(buffer, 0, PAGE, true);
    expect(readFileSync(path).length).toBe(PAGE);
    expect(readFileSync(path, 'latin1').slice(0, 4)).toBe('here');
  });

  it('shows what a file grows by later, where it was not touched before', () => {
    const path = fresh(PAGE);
    const buffer = mapped(path, PROT_READ, MAP_SHARED, 3 * PAGE);
    writeFileSync(path, Buffer.alloc(3 * PAGE, 9));
    expect(buffer[3 * PAGE - 1]).toBe(9);
    check(buffer);
  });
});

describe('a map that is not for writing', () => {
  it('takes a store without ending the process, and keeps it from the file', () => {
    const path = fresh(2 * PAGE);
    const buffer = mapped(path, PROT_READ, MAP_SHARED, 2 * PAGE);
    buffer[0] = 1;
    expect(buffer[0]).toBe(1);
    sync(buffer, true);
    expect(readFileSync(path)[0]).toBe(7);
  });

  it('can be read when nothing was asked for', () => {
    expect(mapped(fresh(PAGE), PROT_NONE, MAP_PRIVATE, PAGE)[5]).toBe(7);
  });

  it('is not copied by being populated: what others write shows through', () => {
    const path = fresh(PAGE);
    const fd = openSync(path, 'r+');
    const buffer = map(PAGE, PROT_READ, MAP_SHARED | mmap.MAP_POPULATE, fd);
    writeSync(fd, Buffer.from([42]), 0, 1, 0);
    closeSync(fd);
    expect(buffer[0]).toBe(42);
  });
});

describe('offsets and sizes', () => {
  it('reach beyond 32 bits, as numbers and as bigints', () => {
    const path = fresh(1);
    const at = 5 * 1024 * MIB;
    const fd = openSync(path, 'r+');
    ftruncateSync(fd, at);
    writeSync(fd, Buffer.from('far'), 0, 3, at);
    expect(map(3, PROT_READ, MAP_SHARED, fd, at).toString()).toBe('far');
    expect(map(3n, PROT_READ, MAP_SHARED, fd, BigInt(at)).toString()).toBe('far');
    const long = map(3 * 1024 * MIB, PROT_READ, MAP_SHARED, fd, at - 2 * 1024 * MIB);
    expect(long.toString('latin1', 2 * 1024 * MIB, 2 * 1024 * MIB + 3)).toBe('far');
    closeSync(fd);
  });

  it('are refused where they are no bytes of a file', () => {
    const fd = openSync(fresh(PAGE), 'r');
    const refuse = (code: string, call: () => unknown): void => expect(call).toThrow(expect.objectContaining({ code }));
    refuse('ERR_OUT_OF_RANGE', () => map(-1, PROT_READ, MAP_SHARED, fd));
    refuse('ERR_OUT_OF_RANGE', () => map(1.5, PROT_READ, MAP_SHARED, fd));
    refuse('ERR_OUT_OF_RANGE', () => map(2 ** 53, PROT_READ, MAP_SHARED, fd));
    refuse('ERR_OUT_OF_RANGE', () => map(1, 8, MAP_SHARED, fd));
    refuse('ERR_OUT_OF_RANGE', () => map(1, PROT_READ, MAP_SHARED, -1));
    refuse('ERR_OUT_OF_RANGE', () => map(1, PROT_READ, MAP_SHARED, fd, 0, 100));
    refuse('ERR_INVALID_ARG_TYPE', () => map('1' as never, PROT_READ, MAP_SHARED, fd));
    refuse('ERR_INVALID_ARG_TYPE', () => sync(map(1, PROT_READ, MAP_SHARED, fd), 0, 0, 1 as never));
    refuse('ERR_INVALID_ARG_VALUE', () => map(1, PROT_READ, MAP_SHARED | 0x10, fd));
    refuse('ERR_INVALID_ARG_VALUE', () => mmap.advise(Buffer.alloc(PAGE), MADV_RANDOM));
    refuse('EINVAL', () => map(1, PROT_READ, MAP_SHARED, fd, 1));
    refuse('ENOMEM', () => mmap.advise(map(1, PROT_READ, MAP_SHARED, fd), PAGE, 1, MADV_RANDOM));
    closeSync(fd);
  });

  it('never reach the map that lies next to one', () => {
    const path = fresh(2 * MIB);
    const buffers = [0, 1].map(() => mapped(path, PROT_WRITE, MAP_SHARED, 2 * MIB));
    expect(() => sync(buffers[0], 0, 2 * MIB + 1)).toThrow(expect.objectContaining({ code: 'ENOMEM' }));
    expect(() => mmap.advise(buffers[0], 2 * MIB, PAGE, mmap.MADV_DONTNEED)).toThrow(expect.objectContaining({ code: 'ENOMEM', syscall: 'madvise' }));
  });
});

describe('unmap', () => {
  it('gives the file back at once: its descriptor and its place in /proc/self/maps', () => {
    const path = fresh(2 * PAGE);
    const buffer = mapped(path, PROT_READ, MAP_SHARED, 2 * PAGE);
    const held = (): [boolean, number] => [
      readFileSync('/proc/self/maps', 'utf8').includes(path),
      readdirSync('/proc/self/fd').filter((fd) => leadsTo(fd, path)).length,
    ];
    expect(held()).toEqual([true, 1]);
    unmap(buffer);
    expect(held()).toEqual([false, 0]);
  });

  it('leaves zeros, in parts of the buffer too, and what was stored in the file', () => {
    const path = fresh(PAGE);
    const buffer = mapped(path, PROT_WRITE, MAP_SHARED, PAGE);
    const part = buffer.subarray(10, 20);
    part.fill(8);
    unmap(part);
    expect([...part]).toEqual(new Array(10).fill(0));
    part[0] = 3;
    expect([...readFileSync(path).subarray(9, 21)]).toEqual([7, ...new Array(10).fill(8), 7]);
  });

  it('makes every other use an error with a name, but for a second unmap', () => {
    const buffer = mapped(fresh(PAGE), PROT_READ, MAP_SHARED, PAGE);
    unmap(buffer);
    unmap(buffer);
    const released = expect.objectContaining({ code: 'ERR_SECTORWISE_RELEASED' });
    expect(() => check(buffer)).toThrow(released);
    expect(() => sync(buffer)).toThrow(released);
    expect(() => mmap.incore(buffer)).toThrow(released);
    expect(() => mmap.advise(buffer, MADV_RANDOM)).toThrow(released);
    expect(() => unmap(Buffer.alloc(1))).toThrow(expect.objectContaining({ code: 'ERR_INVALID_ARG_VALUE' }));
  });
});

describe('beside the rest of the library', () => {
  it('shows what a BlockFile in page-cache mode writes, and the other way round', async () => {
    const path = fresh(2 * PAGE);
    const buffer = mapped(path, PROT_WRITE, MAP_SHARED, 2 * PAGE);
    await using file = await open(path, { access: 'read-write' });
    await file.write(Buffer.from('by the file'), 100);
    expect(buffer.toString('latin1', 100, 111)).toBe('by the file');
    buffer.write('by the map', 200);
    const target = Buffer.alloc(10);
    await file.read(target, 200);
    expect(target.toString()).toBe('by the map');
  });
});

describe('in processes of their own', () => {
  async function run(code: string): Promise<string> {
    const home = await emitted();
    const prelude = `import mmap from ${JSON.stringify(join(home, 'src/mmap-io/index.js'))}; import fs from 'node:fs'; import { Worker } from 'node:worker_threads';\n`;
    return execFileSync(process.execPath, ['--expose-gc', '--input-type=module', '-e', prelude + code], { encoding: 'utf8', cwd: home });
  }

  it('gives back the descriptor and the address space of a map that was collected', async () => {
    const path = fresh(PAGE);
    const found = await run(`
      const fd = fs.openSync(${JSON.stringify(path)}, 'r');
      const maps = () => fs.readFileSync('/proc/self/maps', 'utf8').split(${JSON.stringify(path)}).length - 1;
      const make = () => { for (let i = 0; i < 20; i++) mmap.map(4096, mmap.PROT_READ, mmap.MAP_SHARED, fd); return maps(); };
      const before = make();
      for (let i = 0; i < 50 && maps() > 0; i++) { gc(); await new Promise((done) => setTimeout(done, 2)); }
      console.log(before >= 1, maps(), fs.readdirSync('/proc/self/fd').filter((name) => { try { return fs.readlinkSync('/proc/self/fd/' + name) === ${JSON.stringify(path)}; } catch { return false; } }).length);
    `);
    expect(found.trim()).toBe('true 0 1');
  });

  it('works in several worker threads, one of which is ended under its maps', async () => {
    const path = fresh(8 * PAGE);
    const found = await run(`
      const [file] = [${JSON.stringify(path)}];
      const worker = (code) => new Worker('import mmap from "' + process.cwd() + '/src/mmap-io/index.js"; import fs from "fs"; import { parentPort } from "worker_threads";' +
        'const fd = fs.openSync(' + JSON.stringify(file) + ', "r+"); const map = mmap.map(8 * 4096, mmap.PROT_WRITE, mmap.MAP_SHARED, fd);' + code, { eval: true });
      const own = mmap.map(8 * 4096, mmap.PROT_READ, mmap.MAP_SHARED, fs.openSync(file, 'r'));
      const ended = worker('parentPort.postMessage(0); setInterval(() => map.fill(1, 0, 4096), 1)');
      await new Promise((done) => ended.once('message', done));
      const writers = [1, 2].map((n) => worker('map.fill(' + n + ', ' + n + ' * 4096, ' + (n + 1) + ' * 4096); mmap.sync(map, true); mmap.unmap(map); parentPort.postMessage(0)'));
      await Promise.all(writers.map((each) => new Promise((done, failed) => { each.once('exit', done); each.once('error', failed); })));
      await ended.terminate();
      fs.truncateSync(file, 3 * 4096);
      console.log(own[4096], own[2 * 4096], own[7 * 4096]);
    `);
    expect(found.trim()).toBe('1 2 0');
  });

  it('is had by require, as mmap-io is', async () => {
    const home = await emitted();
    const code = `const mmap = require('./src/mmap-io/index.js'); console.log(typeof mmap.map, mmap.PROT_READ, mmap.PAGESIZE, mmap.default.map === mmap.map)`;
    const found = execFileSync(process.execPath, ['-e', code], { encoding: 'utf8', cwd: home, stdio: ['ignore', 'pipe', 'ignore'] });
    expect(found.trim()).toBe('function 1 4096 true');
  });
});

describe('a full disk', () => {
  it.skipIf(noTmpfs !== undefined)(`costs what is stored into a hole, and check and sync say so${note(noTmpfs)}`, () => {
    const place = join(folder, 'full');
    mkdirSync(place);
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=1m', 'none', place]);
    try {
      const buffer = mapped(holeWithoutSpace(place, 4 * PAGE), PROT_WRITE, MAP_SHARED, 4 * PAGE);
      buffer.write('lost', PAGE);
      const fault = expect.objectContaining({ code: 'ERR_SECTORWISE_FAULT' });
      expect(() => check(buffer)).toThrow(fault);
      expect(() => sync(buffer, true)).toThrow(fault);
      unmap(buffer);
    } finally {
      execFileSync('umount', [place]);
    }
  });
});

describe('a file of huge pages', () => {
  const missing = !isRoot ? 'needs root' : readFileSync('/proc/filesystems', 'utf8').includes('\thugetlbfs\n') ? undefined : 'needs hugetlbfs';
  it.skipIf(missing !== undefined)(`is refused: a part of one cannot be replaced${note(missing)}`, () => {
    const place = join(folder, 'huge');
    mkdirSync(place);
    execFileSync('mount', ['-t', 'hugetlbfs', 'none', place]);
    const fd = openSync(join(place, 'file'), 'w+');
    try {
      expect(() => map(PAGE, PROT_READ, MAP_SHARED, fd)).toThrow(expect.objectContaining({ code: 'ERR_SECTORWISE_UNSUPPORTED' }));
    } finally {
      closeSync(fd);
      execFileSync('umount', [place]);
    }
  });
});
