/**
 * The guard on the real kernel: mappings whose bytes are gone read zeros and say why, in every thread and kind of code; everybody else's SIGBUS stays theirs.
 *
 * What could end a process runs in one of its own, so that it is a failed test.
 */
import { execFileSync, spawnSync } from 'node:child_process';
import { closeSync, constants, copyFileSync, ftruncateSync, mkdtempSync, openSync, readFileSync, rmSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, describe, expect, it } from 'vitest';
import { type NativeSegment, native } from '../../src/io/native.js';
import { CELL_BYTES, type Damage, FileMapping } from '../../src/memory/mapping.js';
import { CAUSE_FAULT, CAUSE_NONE, CAUSE_TRUNCATE, causeOf, firstDeadPage, validity } from '../../src/memory/validity.js';
import { note, Places } from '../fixtures/places.js';
import { hasCommand, isRoot, noFileSystem } from '../geometry/loop-devices.js';

const PAGE = 4096;
const MIB = 1024 * 1024;
const addon = fileURLToPath(new URL('../../build/Release/sectorwise.node', import.meta.url));
const folder = mkdtempSync(join(tmpdir(), 'sectorwise-guard-'));
const lab = new Places();
const long = process.env.SECTORWISE_LONG === '1';
const needsCompiler = hasCommand('cc') ? undefined : 'needs a C compiler';

afterAll(() => {
  lab.dispose();
  rmSync(folder, { recursive: true, force: true });
});

let files = 0;

/** A file of `size` bytes, each 7. */
function sevens(size: number): string {
  const path = join(folder, `file-${files++}`);
  writeFileSync(path, Buffer.alloc(size, 7));
  return path;
}

interface Outcome {
  status: number | null;
  signal: string | null;
  out: string;
}

/** Runs `code` in a process of its own, with the addon as `native`, a file of 16 MiB as `path` and `fd`, and its mapping as `segment`, `view` and `words`. */
function child(code: string, env: NodeJS.ProcessEnv = {}): Outcome {
  const path = sevens(16 * MIB);
  const prelude = `const fs = require('node:fs'); const native = require(${JSON.stringify(addon)}); const path = ${JSON.stringify(path)}; const fd = fs.openSync(path, 'r+');
    const MIB = 2 ** 20; const segment = native.mapSegment(fd, 0, 16 * MIB, false); const view = new Uint8Array(segment.buffer);
    const words = new Int32Array(native.validity().buffer).subarray(segment.firstCell, segment.firstCell + segment.cells);
    const zeros = (from, to) => { for (let at = from; at < to; at += 4096) if (view[at] !== 0) return false; return true; };
    const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));`;
  const script = `${prelude} (async () => { ${code} })().catch((error) => { console.error(error); process.exit(9); });`;
  const ran = spawnSync(process.execPath, ['-e', script], { encoding: 'utf8', env: { ...process.env, ...env }, timeout: 110_000 });
  rmSync(path);
  return { status: ran.status, signal: ran.signal, out: ran.stdout + ran.stderr };
}

const well = (out: string): Outcome => ({ status: 0, signal: null, out: `${out}\n` });

describe('a touch of bytes that the file no longer has', () => {
  it('reads zeros from the first page beyond the end, and the words name that page', () => {
    const code = `
      fs.ftruncateSync(fd, 3 * MIB + 5000);
      const seen = [view[3 * MIB + 8192], view[3 * MIB + 8191], view[3 * MIB + 4999], view[3 * MIB], view[2 * MIB], view[9 * MIB]];
      console.log(seen.join(), [...words].join(), native.guardFaults());`;
    expect(child(code)).toEqual(well(`0,0,7,7,7,0 0,${CAUSE_TRUNCATE | (258 << 8)},0,0,${CAUSE_TRUNCATE},0,0,0 2`));
  });

  it('widens the dead part of a cell when the file shrinks further, and never narrows it', () => {
    const code = `
      const page = () => words[1] >>> 8;
      const seen = [];
      for (const size of [3 * MIB, 2 * MIB + 4096, 2 * MIB]) {
        fs.ftruncateSync(fd, size);
        view[Math.max(size, 2 * MIB)];
        seen.push(page());
      }
      fs.ftruncateSync(fd, 4 * MIB);
      segment.restore(2 * MIB, 2 * MIB, fd);
      fs.ftruncateSync(fd, 3 * MIB);
      seen.push(view[3 * MIB], page(), words[1] & 255);
      console.log(seen.join());`;
    expect(child(code)).toEqual(well(`256,1,0,0,0,${CAUSE_TRUNCATE}`));
  });

  it('makes a descriptor readable that whoever watches can wait for', () => {
    const code = `
      const events = () => fs.readdirSync('/proc/self/fdinfo').map((name) => { try { return /eventfd-count: +([0-9a-f]+)/.exec(fs.readFileSync('/proc/self/fdinfo/' + name, 'utf8'))?.[1]; } catch {} });
      const before = events().filter((count) => count === '5').length;
      fs.ftruncateSync(fd, 0);
      for (let cell = 0; cell < 5; cell++) view[cell * 2 * MIB];
      console.log(events().filter((count) => count === '5').length - before);`;
    expect(child(code)).toEqual(well('1'));
  });

  it('survives optimized loops, views, atomics, copies and decoders', () => {
    const code = `
      const sum = (bytes) => { let total = 0; for (let at = 0; at < bytes.length; at += 64) total += bytes[at]; return total; };
      for (let round = 0; round < 50; round++) sum(view);
      const wide = new Int32Array(segment.buffer);
      const uses = [
        () => sum(view),
        () => new DataView(segment.buffer).getFloat64(MIB),
        () => Atomics.load(wide, MIB),
        () => Atomics.add(wide, MIB, 0),
        () => view.slice(MIB, 5 * MIB).length && view[MIB],
        () => Buffer.from(segment.buffer).toString('latin1', MIB, 3 * MIB).charCodeAt(0),
        () => Buffer.from(segment.buffer).indexOf('x') + 1,
        () => structuredClone(view.subarray(MIB, MIB + 10)).length && view[MIB],
        () => new TextDecoder().decode(view.subarray(MIB, 3 * MIB)).charCodeAt(0),
        () => Buffer.compare(view.subarray(0, MIB), view.subarray(MIB, 2 * MIB)),
        () => { view.fill(9, MIB, 5 * MIB); return view[MIB] - 9; },
        () => { view.copyWithin(0, MIB, 5 * MIB); return view[0]; },
      ];
      const answers = [];
      for (const use of uses) {
        fs.ftruncateSync(fd, 0); fs.ftruncateSync(fd, 16 * MIB); segment.restore(0, 16 * MIB, fd); words.fill(0); fs.ftruncateSync(fd, 0);
        answers.push(use());
        if (!words.some((word) => word === ${CAUSE_TRUNCATE})) throw new Error('no fault in ' + use);
      }
      console.log(answers.join());`;
    expect(child(code)).toEqual(well(Array(12).fill(0).join()));
  });

  it('survives in the main thread and two workers that fault at the same pages at once', () => {
    const code = `
      const { Worker } = require('node:worker_threads');
      const work = \`
        const { parentPort, workerData } = require('node:worker_threads');
        const fs = require('node:fs');
        const native = require(workerData.addon);
        const fd = fs.openSync(workerData.path, 'r');
        const segment = native.mapSegment(fd, 0, 16 * 2 ** 20, false);
        const view = new Uint8Array(segment.buffer);
        const words = new Int32Array(native.validity().buffer).subarray(segment.firstCell, segment.firstCell + segment.cells);
        parentPort.postMessage('mapped');
        for (let told = false; !told; ) for (let at = 0; at < view.length; at += 4096) if (view[at] === 0) told = true;
        let sum = 0;
        for (let at = 0; at < view.length; at += 64) sum += view[at];
        parentPort.postMessage(sum + ' ' + words.join());\`;
      const answers = [];
      const workers = [0, 1].map(() => new Worker(work, { eval: true, workerData: { addon: ${JSON.stringify(addon)}, path } }));
      let mapped = 0;
      await Promise.all(workers.map((worker) => new Promise((resolve, reject) => {
        worker.on('error', reject);
        worker.on('exit', resolve);
        worker.on('message', (message) => {
          if (message !== 'mapped') answers.push(message);
          else if (++mapped === 2) { fs.ftruncateSync(fd, 0); zeros(0, 16 * MIB); }
        });
      })));
      console.log(answers.join(' | '), words.join());`;
    const words = Array(8).fill(CAUSE_TRUNCATE).join();
    expect(child(code)).toEqual(well(`0 ${words} | 0 ${words} ${words}`));
  });

  it('survives in the threads of asynchronous zlib and crypto calls that run while the file shrinks', () => {
    const code = `
      const zlib = require('node:zlib'); const crypto = require('node:crypto'); const { promisify } = require('node:util');
      for (let round = 0; round < 6; round++) {
        fs.ftruncateSync(fd, 16 * MIB); segment.restore(0, 16 * MIB, fd); words.fill(0);
        const jobs = [
          promisify(zlib.deflate)(view, { level: 1 }),
          promisify(zlib.gzip)(view.subarray(5 * MIB), { level: 1 }),
          crypto.webcrypto.subtle.digest('SHA-256', view.subarray(MIB, 9 * MIB)),
          promisify(crypto.pbkdf2)(view.subarray(3 * MIB, 4 * MIB), view.subarray(11 * MIB, 12 * MIB), 1, 32, 'sha256'),
        ];
        if (round > 0) await sleep(round);
        fs.ftruncateSync(fd, round % 2 === 0 ? 0 : 7 * MIB);
        await Promise.all(jobs);
        crypto.createHash('sha1').update(view).digest();
        if (!zeros(7 * MIB, 16 * MIB)) throw new Error('not zeros');
      }
      console.log('survived', native.guardFaults() >= 6);`;
    expect(child(code)).toEqual(well('survived true'));
  });

  it('is an error or a short count of system calls, and no signal: the guard learns of it from a touch', () => {
    const code = `
      const { promisify } = require('node:util');
      const out = fs.openSync(path + '-out', 'w');
      fs.unlinkSync(path + '-out');
      fs.ftruncateSync(fd, 4096);
      const write = promisify(fs.write);
      const dead = await write(out, view, MIB, 8192, 0).catch((error) => error.code);
      const half = (await write(out, view, 0, 8192, 0)).bytesWritten;
      console.log(dead, half, words.every((word) => word === 0), view[MIB], words[0] >>> 8, (await write(out, view, MIB, 8192, 0)).bytesWritten);`;
    expect(child(code)).toEqual(well('EFAULT 4096 true 0 1 8192'));
  });
});

describe('a page that could not be had although the file has it', () => {
  const noTmpfs = isRoot ? undefined : 'needs root';
  const noExt4 = noFileSystem('mkfs.ext4');
  // A hole is allocated when it is stored into; on a full disk that is SIGBUS.
  const code = (where: string) => `
    const full = fs.openSync(${JSON.stringify(where)} + '/sparse', 'w+');
    fs.ftruncateSync(full, 8 * MIB);
    const shared = native.mapSegment(full, 0, 8 * MIB, true);
    const stores = new Uint8Array(shared.buffer);
    const own = new Int32Array(native.validity().buffer).subarray(shared.firstCell, shared.firstCell + shared.cells);
    const filler = fs.openSync(${JSON.stringify(where)} + '/filler', 'w');
    for (const bytes of [MIB, 4096]) { try { for (;;) fs.writeSync(filler, Buffer.alloc(bytes, 1)); } catch (error) { if (error.code !== 'ENOSPC') throw error; } }
    try { fs.fsyncSync(filler); } catch {}
    for (let at = 0; at < 8 * MIB; at += 4096) stores[at] = 9;
    const faulted = own.every((word) => word === ${CAUSE_FAULT});
    fs.closeSync(filler);
    fs.unlinkSync(${JSON.stringify(where)} + '/filler');
    shared.restore(0, 8 * MIB, full);
    stores[5 * MIB] = 3;
    const back = Buffer.alloc(1);
    fs.readSync(full, back, 0, 1, 5 * MIB);
    shared.close();
    fs.closeSync(full);
    console.log(faulted, back[0]);`;

  it.skipIf(noTmpfs !== undefined)(`replaces the whole cell and says CAUSE_FAULT: a hole on a full tmpfs${note(noTmpfs)}`, () => {
    expect(child(code(lab.loops.mount('tmpfs', '-t', 'tmpfs', '-o', 'size=12m')))).toEqual(well('true 3'));
  });

  it.skipIf(noExt4 !== undefined)(`and a hole on a full ext4${note(noExt4)}`, () => {
    const made = lab.loops.fileSystem(32 * MIB, 'mkfs.ext4', '-q', '-m', '0');
    expect(child(code(made.folder))).toEqual(well('true 3'));
  });
});

describe('SIGBUS of others', () => {
  it('ends the process when it was sent and nobody listens', () => {
    expect(child(`process.kill(process.pid, 'SIGBUS'); await sleep(5000); console.log('still here');`)).toEqual({ status: null, signal: 'SIGBUS', out: '' });
  });

  const dist = JSON.stringify(new URL('../../dist/src/index.js', import.meta.url).href);

  it('reaches listeners that come and go, while faults keep being caught without anybody mapping or watching', () => {
    const code = `
      const { open } = await import(${dist});
      const file = await open(path);
      let heard = 0;
      const listener = () => heard++;
      const results = [];
      const hears = async () => {
        for (const before = heard; heard === before; ) await sleep(5);
        results.push(heard);
      };
      const shrink = async (size) => {
        const window = await file.window(size, 4096);
        fs.truncateSync(path, size);
        results.push(window.bytes[0], window.valid);
        window.release();
      };
      process.on('SIGBUS', listener);
      await shrink(14 * MIB);
      process.kill(process.pid, 'SIGBUS');
      await hears();
      process.on('SIGBUS', () => {});
      process.removeAllListeners('SIGBUS');
      await shrink(10 * MIB);
      process.once('SIGBUS', listener);
      process.kill(process.pid, 'SIGBUS');
      await hears();
      await shrink(6 * MIB);
      console.log(results.join());
      process.kill(process.pid, 'SIGBUS');
      await sleep(5000);`;
    expect(child(code)).toEqual({ status: null, signal: 'SIGBUS', out: '0,false,1,0,false,2,0,false\n' });
  });

  describe.skipIf(needsCompiler !== undefined)(`with native code that handles it too${note(needsCompiler)}`, () => {
    const library = join(folder, 'signals.so');
    const build = (): NodeJS.ProcessEnv => {
      execFileSync('cc', ['-shared', '-fPIC', '-o', library, fileURLToPath(new URL('./fixtures/signals.c', import.meta.url))]);
      return { LD_PRELOAD: library };
    };
    const fault = `process.kill(process.pid, 'SIGUSR2'); await sleep(20);`;

    it('ends the process for a fault in a mapping that is not ours', () => {
      const outcome = child(`fs.ftruncateSync(fd, 0); if (view[0] !== 0) throw new Error(); ${fault} console.log('went past');`, build());
      expect(outcome).toEqual({ status: null, signal: 'SIGBUS', out: '' });
    });

    it('reaches the handler that was there before, which gets none of our faults', () => {
      const code = `fs.ftruncateSync(fd, 0); if (view[0] !== 0) throw new Error(); ${fault} process.kill(process.pid, 'SIGBUS'); await sleep(20); console.log('end');`;
      expect(child(code, { ...build(), SIGNALS_FIRST: '1' })).toEqual(well('first: fault\nwent on\nfirst: sent\nend'));
    });

    it('reaches a handler that replaced ours when we are armed again, and one that calls us back ends the process instead of going round', () => {
      const replaced = `process.kill(process.pid, 40); const again = native.guardArm(); fs.ftruncateSync(fd, 0); if (view[0] !== 0) throw new Error(); console.log(again);`;
      expect(child(`${replaced} ${fault} console.log('went past');`, build())).toEqual({ status: null, signal: 'SIGBUS', out: '1\nbefore\n' });
      const sent = `process.kill(process.pid, 'SIGBUS'); await sleep(5000);`;
      expect(child(`${replaced} ${sent}`, build())).toEqual({ status: null, signal: 'SIGBUS', out: '1\nbefore\n' });
    });

    it('still ends in our handler when another one stands before it and calls it', () => {
      const code = `process.kill(process.pid, 40); fs.ftruncateSync(fd, 0); console.log(view[0], words[0]);`;
      expect(child(code, build())).toEqual(well(`before\n0 ${CAUSE_TRUNCATE}`));
    });

    it('stays ignored when it was ignored, except for a fault, which nobody can ignore', () => {
      const code = `process.kill(process.pid, 42); console.log(native.guardArm()); process.kill(process.pid, 'SIGBUS'); await sleep(20); fs.ftruncateSync(fd, 0); console.log(view[0]);`;
      expect(child(code, build())).toEqual(well('1\n0'));
      expect(child(`${code} ${fault} console.log('went past');`, build())).toEqual({ status: null, signal: 'SIGBUS', out: '1\n0\n' });
    });

    it('that is blocked in the thread refuses page-cache mode with ERR_SECTORWISE_SIGNAL_BLOCKED', () => {
      const code = `
        const { open, openSync } = await import(${dist});
        process.kill(process.pid, 41);
        const refused = await open(path).catch((error) => error.code);
        let sync;
        try { openSync(path); } catch (error) { sync = error.code; }
        console.log(native.guardArm(), refused, sync);`;
      expect(child(code, build())).toEqual(well('-1 ERR_SECTORWISE_SIGNAL_BLOCKED ERR_SECTORWISE_SIGNAL_BLOCKED'));
    });
  });

  it('is handled once for two copies of the addon, each of which keeps its own mappings alive', () => {
    const copy = join(folder, 'copy.node');
    copyFileSync(addon, copy);
    const code = `
      const other = require(${JSON.stringify(copy)});
      if (other === native) throw new Error('the same');
      const theirs = other.mapSegment(fd, 0, 16 * MIB, false);
      const arms = [native.guardArm(), other.guardArm(), native.guardArm()];
      const seen = new Uint8Array(theirs.buffer);
      const listener = () => {};
      process.on('SIGBUS', listener);
      arms.push(other.guardArm(), native.guardArm());
      process.removeListener('SIGBUS', listener);
      arms.push(native.guardArm(), other.guardArm());
      fs.ftruncateSync(fd, 0);
      const word = new Int32Array(other.validity().buffer)[theirs.firstCell];
      console.log(arms.join(), view[MIB], seen[MIB], words[0], word, new Int32Array(other.validity().buffer)[theirs.firstCell], native.guardFaults(), other.guardFaults());
      process.kill(process.pid, 'SIGBUS');
      await sleep(5000);`;
    expect(child(code)).toEqual({ status: null, signal: 'SIGBUS', out: `0,0,0,1,0,1,0 0 0 ${CAUSE_TRUNCATE} 0 ${CAUSE_TRUNCATE} 1 1\n` });
  });
});

describe('re-pointing beside faults', () => {
  it(`never loses a mapping to a handler that was on its way: ${long ? '10' : '2'} s of faults, re-points, closes and neighbours`, () => {
    const code = `
      const { Worker } = require('node:worker_threads');
      // Faults wherever it looks, in memory that its own thread and the thread pool share.
      const faulting = \`
        const { parentPort, workerData } = require('node:worker_threads');
        const fs = require('node:fs'); const zlib = require('node:zlib');
        const native = require(workerData.addon);
        const MIB = 2 ** 20;
        const path = workerData.path + '-' + workerData.index;
        fs.writeFileSync(path, Buffer.alloc(4 * MIB, 7));
        const fd = fs.openSync(path, 'r+');
        const until = Date.now() + workerData.ms;
        let rounds = 0, wrong = 0;
        (async () => {
          while (Date.now() < until) {
            const segment = native.mapSegment(fd, 0, 4 * MIB, rounds % 2 === 1);
            const view = new Uint8Array(segment.buffer);
            const jobs = [0, 1, 2].map((index) => new Promise((resolve) => zlib.deflate(view.subarray(index * MIB), { level: 1 }, resolve)));
            for (let turn = 0; turn < 40; turn++) {
              fs.ftruncateSync(fd, 0);
              if (view[(turn * 37 % 1024) * 4096] !== 0) wrong++;
              fs.ftruncateSync(fd, 4 * MIB);
              if (turn % 3 === 0) segment.repoint((turn % 16) * 65536, 65536);
              segment.restore(0, 4 * MIB, fd);
            }
            fs.ftruncateSync(fd, 0);
            segment.close();
            view.fill(5);
            await Promise.all(jobs);
            // What was stored after the close stays: nobody puts fresh pages over it.
            if (view.some((byte) => byte !== 5)) wrong++;
            fs.writeFileSync(fd, ''); fs.writeSync(fd, Buffer.alloc(4 * MIB, 7), 0, 4 * MIB, 0);
            rounds++;
          }
          parentPort.postMessage({ rounds, wrong });
        })();\`;
      // Segments come and go between theirs, and must keep their bytes for as long as they are mapped.
      const neighbour = \`
        const { parentPort, workerData } = require('node:worker_threads');
        const fs = require('node:fs');
        const native = require(workerData.addon);
        const fd = fs.openSync(workerData.path, 'r');
        const until = Date.now() + workerData.ms;
        let rounds = 0, wrong = 0;
        const held = [];
        while (Date.now() < until) {
          const segment = native.mapSegment(fd, 0, 2 * 2 ** 20, false);
          held.push(segment);
          for (const each of held) { const view = new Uint8Array(each.buffer); for (let at = 0; at < view.length; at += 4096) if (view[at] !== 7) wrong++; }
          if (held.length > 8) held.shift().close();
          rounds++;
        }
        parentPort.postMessage({ rounds, wrong });\`;
      const start = (code, index) => new Promise((resolve, reject) => {
        const worker = new Worker(code, { eval: true, workerData: { addon: ${JSON.stringify(addon)}, path, index, ms: ${long ? 10_000 : 2000} } });
        worker.on('error', reject);
        worker.on('message', resolve);
      });
      const done = await Promise.all([start(faulting, 1), start(faulting, 2), start(faulting, 3), start(neighbour, 0)]);
      for (const index of [1, 2, 3]) fs.unlinkSync(path + '-' + index);
      console.log(done.every(({ rounds }) => rounds > 0), done.map(({ wrong }) => wrong).join(), native.guardFaults() > 100);`;
    expect(child(code)).toEqual(well('true 0,0,0,0 true'));
  });

  const mappingsMax = Number(readFileSync('/proc/sys/vm/max_map_count', 'utf8'));
  const tooMany = mappingsMax > 100_000 ? 'vm.max_map_count is too large to be reached' : undefined;
  it.skipIf(tooMany !== undefined)(`gives up the whole segment where the process may have no more mappings${note(tooMany)}`, () => {
    const code = `
      const big = path + '-big';
      const wide = fs.openSync(big, 'w+');
      fs.unlinkSync(big);
      fs.ftruncateSync(wide, 512 * MIB);
      zeros(0, MIB); fs.ftruncateSync(fd, 0);
      // Every other page is a mapping of its own, until the kernel says no.
      const shredded = native.mapSegment(wide, 0, 512 * MIB, false);
      let refused = 0;
      for (let at = 0; at < 512 * MIB && refused === 0; at += 8192) refused = shredded.repoint(at, 4096);
      const byte = view[5 * MIB];
      // V8 needs mappings too.
      shredded.close();
      console.log(refused, byte, zeros(0, 16 * MIB), words.join());`;
    expect(child(code)).toEqual(well(`-12 0 true ${[5, 5, CAUSE_TRUNCATE, 5, 5, 5, 5, 5].join()}`));
  });
});

describe('a segment', () => {
  const lock = (path: string): number => {
    const fd = openSync(path, 'r+');
    try {
      return native().lock(fd, true);
    } finally {
      closeSync(fd);
    }
  };

  it('keeps the file only until it is closed: its lock is free then', () => {
    const path = sevens(MIB);
    const fd = openSync(path, 'r+');
    expect(native().lock(fd, true)).toBe(0);
    const segment = native().mapSegment(fd, 0, MIB, false) as NativeSegment;
    closeSync(fd);
    expect(lock(path)).toBeLessThan(0);
    segment.close();
    expect(lock(path)).toBe(0);
  });

  const missing = noFileSystem('mkfs.ext4');
  it.skipIf(missing !== undefined)(`lets its file system be unmounted once it is closed, also after faults${note(missing)}`, () => {
    const device = lab.loops.attach(lab.loops.image(64 * MIB));
    execFileSync('mkfs.ext4', ['-q', device]);
    const where = lab.folder();
    execFileSync('mount', [device, where]);
    const path = join(where, 'file');
    writeFileSync(path, Buffer.alloc(8 * MIB, 7));
    const fd = openSync(path, 'r+');
    const segment = native().mapSegment(fd, 0, 8 * MIB, false) as NativeSegment;
    const view = new Uint8Array(segment.buffer);
    ftruncateSync(fd, 5 * MIB);
    const seen = [view[0], view[7 * MIB]];
    closeSync(fd);
    segment.close();
    execFileSync('umount', [where]);
    expect(seen).toEqual([7, 0]);
  });
});

describe('a file mapping over what the guard replaced', () => {
  function map(path: string, size: number): { mapping: FileMapping; fd: number; cell: number; bytes: Uint8Array; close: () => void } {
    const fd = openSync(path, constants.O_RDWR);
    const mapping = new FileMapping({ fd, path, size, shared: false, trustMincore: true });
    const segment = mapping.at(0, size);
    const close = (): void => {
      mapping.close();
      closeSync(fd);
    };
    return { mapping, fd, cell: segment.firstCell, bytes: new Uint8Array(segment.buffer, 0, size), close };
  }

  const damageIn = (mapping: FileMapping): Damage[] => {
    const found: Damage[] = [];
    mapping.damage((damage) => found.push(damage));
    return found;
  };

  it('tells each piece once, and again when it grew', () => {
    const path = sevens(8 * MIB);
    const { mapping, bytes, close } = map(path, 8 * MIB);
    truncateSync(path, 3 * MIB);
    expect([bytes[3 * MIB], bytes[6 * MIB]]).toEqual([0, 0]);
    expect(damageIn(mapping)).toEqual([
      { cause: CAUSE_TRUNCATE, offset: 3 * MIB, length: MIB },
      { cause: CAUSE_TRUNCATE, offset: 6 * MIB, length: 2 * MIB },
    ]);
    expect(damageIn(mapping)).toEqual([]);
    truncateSync(path, 2 * MIB + 1);
    expect(bytes[2 * MIB + PAGE]).toBe(0);
    expect(damageIn(mapping)).toEqual([{ cause: CAUSE_TRUNCATE, offset: 2 * MIB + PAGE, length: 2 * MIB - PAGE }]);
    close();
  });

  it('takes nothing of it for resident, and maps the file again when asked to', () => {
    const path = sevens(8 * MIB);
    const { mapping, bytes, cell, close } = map(path, 8 * MIB);
    const { words } = validity();
    truncateSync(path, 3 * MIB);
    expect(bytes[3 * MIB]).toBe(0);
    truncateSync(path, 8 * MIB);
    writeFileSync(path, Buffer.alloc(8 * MIB, 8));
    const runs = new Float64Array(8);
    expect(mapping.missing(3 * MIB, PAGE, runs)).toBe(1);
    expect([runs[0], runs[1]]).toEqual([3 * MIB, PAGE]);
    expect(mapping.missing(2 * MIB, PAGE, runs)).toBe(0);
    const lost: Damage[] = [];
    mapping.mend(
      3 * MIB + 100,
      10,
      () => {},
      (damage) => {
        // Before the bytes come back.
        expect(bytes[3 * MIB]).toBe(0);
        lost.push(damage);
      },
    );
    expect(lost).toEqual([{ cause: CAUSE_TRUNCATE, offset: 3 * MIB, length: MIB }]);
    expect([bytes[3 * MIB], bytes[4 * MIB - 1], words[cell + 1]]).toEqual([8, 8, CAUSE_NONE]);
    // A second time, with the same word: it is told again.
    truncateSync(path, 3 * MIB);
    expect(bytes[3 * MIB]).toBe(0);
    expect(damageIn(mapping)).toEqual(lost);
    close();
  });

  it('regrows over less of the file than a cut had left', () => {
    const path = sevens(8 * MIB);
    const { mapping, bytes, cell, close } = map(path, 8 * MIB);
    const { words } = validity();
    truncateSync(path, 2 * MIB + 5 * PAGE);
    expect(bytes[3 * MIB]).toBe(0);
    expect([causeOf(words[cell + 1]), firstDeadPage(words[cell + 1])]).toEqual([CAUSE_TRUNCATE, 5]);
    // It had grown again before anybody looked.
    writeFileSync(path, Buffer.alloc(3 * MIB, 9));
    mapping.cut(8 * MIB, 3 * MIB);
    expect(words[cell + 1]).not.toBe(CAUSE_NONE);
    writeFileSync(path, Buffer.alloc(5 * MIB, 9));
    mapping.grow(5 * MIB);
    expect([bytes[2 * MIB + 5 * PAGE], bytes[3 * MIB], bytes[5 * MIB - 1], words[cell + 1], words[cell + 2]]).toEqual([9, 9, 9, CAUSE_NONE, CAUSE_NONE]);
    expect(statSync(path).size).toBe(5 * MIB);
    close();
  });

  it('leaves the pages that a cut took as zeros when it mends a cell around them', () => {
    const path = sevens(8 * MIB);
    const { mapping, bytes, cell, fd, close } = map(path, 8 * MIB);
    const { words } = validity();
    const segment = mapping.at(0, 1) as unknown as { native: NativeSegment };
    mapping.cut(8 * MIB, 3 * MIB);
    ftruncateSync(fd, 3 * MIB);
    // As the guard leaves a page that could not be read.
    words[cell + 1] = CAUSE_FAULT;
    segment.native.repoint(2 * MIB, CELL_BYTES);
    mapping.mend(
      2 * MIB,
      10,
      () => {},
      () => {},
    );
    expect([bytes[2 * MIB], bytes[3 * MIB - 1], bytes[3 * MIB], words[cell + 1]]).toEqual([7, 7, 0, CAUSE_NONE]);
    expect(native().guardFaults()).toBeGreaterThan(0);
    const before = native().guardFaults();
    writeFileSync(path, Buffer.alloc(4 * MIB, 6));
    mapping.grow(4 * MIB);
    expect([bytes[3 * MIB], bytes[4 * MIB - 1], native().guardFaults() - before]).toEqual([6, 6, 0]);
    close();
  });
});
