/**
 * Opens, windows, truncations and closes of files that four workers share, at random; run by guard-windows.test.ts in a process of its own, with the built package.
 *
 * Usage: node cycles.mjs <folder of the package> <folder for files> <seed> <cycles for each worker>. Prints how many cycles were made and how many faults were caught.
 */
import { closeSync, ftruncateSync, openSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads';
import { deflate } from 'node:zlib';

const MIB = 2 ** 20;
const FILES = 3;
const BYTES_MAX = 6 * MIB;
const [root, folder, seed, cycles] = isMainThread ? process.argv.slice(2) : workerData;
const pathOf = (index) => join(folder, `shared-${index}`);

/** What a window over a file that others truncate may answer with. */
const expected = new Set(['ERR_SECTORWISE_TRUNCATED', 'ERR_SECTORWISE_FAULT']);

if (isMainThread) {
  for (let index = 0; index < FILES; index++) closeSync(openSync(pathOf(index), 'w'));
  const sums = await Promise.all(
    [1, 2, 3, 4].map(
      (number) =>
        new Promise((resolve, reject) => {
          const worker = new Worker(fileURLToPath(import.meta.url), { workerData: [root, folder, Number(seed) * 10 + number, cycles] });
          let sum;
          worker.on('message', (message) => (sum = message));
          worker.on('error', reject);
          worker.on('exit', () => resolve(sum));
        }),
    ),
  );
  console.log(JSON.stringify({ cycles: sums.reduce((sum, each) => sum + each.cycles, 0), faults: sums.reduce((sum, each) => sum + each.faults, 0) }));
} else {
  const { open } = await import(pathToFileURL(join(root, 'dist/src/index.js')).href);
  let state = Number(seed);
  /** An integer below `bound`. */
  const random = (bound) => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return Math.floor((state / 2 ** 32) * bound);
  };
  const sevens = Buffer.alloc(MIB / 4, 7);
  /** Others see every size on the way. */
  const change = (path) => {
    const fd = openSync(path, 'r+');
    ftruncateSync(fd, random(BYTES_MAX));
    if (random(2) === 0) writeSync(fd, sevens, 0, 1 + random(sevens.length), random(BYTES_MAX));
    closeSync(fd);
  };
  /** A byte is the file's, or a zero of a hole or of what is gone. */
  const look = (bytes) => {
    for (let at = 0; at < bytes.length; at += 4096) if (bytes[at] !== 7 && bytes[at] !== 0) throw new Error(`${bytes[at]} at ${at}`);
  };
  let faults = 0;
  for (let cycle = 0; cycle < Number(cycles); cycle++) {
    const path = pathOf(random(FILES));
    const file = await open(path, { access: random(4) === 0 ? 'read-write' : 'read' });
    const windows = [];
    const jobs = [];
    const steps = 1 + random(12);
    for (let step = 0; step < steps; step++) {
      try {
        const kind = random(10);
        if (kind < 4) windows.push(await file.window(random(BYTES_MAX), 1 + random(200_000)));
        else if (kind < 5) look(new Uint8Array(await file.read(Buffer.alloc(50_000), random(BYTES_MAX))));
        else if (kind < 7) change(path);
        else if (windows.length > 0) {
          const window = windows[random(windows.length)];
          const { bytes } = window;
          if (kind === 9) jobs.push(new Promise((resolve, reject) => deflate(bytes, { level: 1 }, (error) => (error ? reject(error) : resolve()))));
          change(path);
          look(bytes);
          window.check();
        }
      } catch (error) {
        if (!expected.has(error.code)) throw error;
      }
      if (random(20) === 0) windows.pop()?.release();
    }
    faults += file.stats.faults;
    if (random(2) === 0) await Promise.all(jobs);
    await file.close();
    for (const window of windows) {
      if (window.valid) throw new Error('valid after close');
      window.release();
    }
    await Promise.all(jobs);
  }
  parentPort.postMessage({ cycles: Number(cycles), faults });
}
