/**
 * What the conformance tests run in a process of its own, or in a worker of one: what ends a process, or must end with it.
 *
 * Usage: node child.mjs <folder of the package> <case> <file> [more…]. Uses the built package, as a user's program does. Prints what the test compares.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads';

const [root, name, path, ...more] = isMainThread ? process.argv.slice(2) : workerData;
const load = (folder) => import(pathToFileURL(join(folder, 'dist/src/index.js')).href);
const { open } = await load(root);
const model = readFileSync(path);

async function compares(file, seed, rounds) {
  for (let i = 0; i < rounds; i++) {
    const offset = (seed * 7919 + i * 104_729) % model.length;
    const window = await file.window(offset, 20_000);
    if (Buffer.compare(window.bytes, model.subarray(offset, offset + window.length)) !== 0) throw new Error(`differs at ${offset}`);
    window.release();
    const target = Buffer.alloc(9000);
    const count = i % 2 === 0 ? await file.read(target, offset) : file.readSync(target, offset);
    if (Buffer.compare(target.subarray(0, count), model.subarray(offset, offset + count)) !== 0) throw new Error(`read differs at ${offset}`);
  }
}

const startWorker = (what) => new Worker(fileURLToPath(import.meta.url), { workerData: [root, what, path, ...more] });
const ended = (worker) =>
  new Promise((resolve, reject) => {
    worker.on('error', reject);
    worker.on('exit', resolve);
  });

/** Windows held and operations in flight in both modes; never ends by itself. */
async function busy() {
  const held = [];
  for (const caching of ['page-cache', 'direct']) {
    const file = await open(path, { caching, cacheSize: 256 * 1024 });
    held.push(await file.window(0, 50_000));
    // By way of the event loop: reads that are answered at once would let nothing else run.
    const again = (i) => {
      file.read(new Uint8Array(30_000), (i * 50_021) % model.length).then(() => setImmediate(again, i + 1));
      if (i % 20 === 0) file.evict(0, model.length);
    };
    for (let i = 0; i < 16; i++) again(i * 100);
    const batch = file.batch((window) => window.bytes[0]);
    for (let i = 0; i < 100; i++) batch.get(i * 8192, 4096, i);
  }
  return held;
}

const cases = {
  async workers() {
    const codes = await Promise.all(Array.from({ length: 4 }, () => ended(startWorker('worker'))));
    console.log(codes.join(' '));
  },

  async worker() {
    for (const caching of ['page-cache', 'direct']) {
      const file = await open(path, { caching, cacheSize: 256 * 1024 });
      await compares(file, process.pid + caching.length, 60);
      await file.close();
    }
  },

  async terminate() {
    for (let i = 0; i < 20; i++) {
      const worker = startWorker('terminated');
      await new Promise((resolve, reject) => {
        worker.once('message', resolve);
        worker.once('error', reject);
      });
      await new Promise((resolve) => setTimeout(resolve, i));
      await worker.terminate();
    }
    // The claim of a worker that was terminated ends with it.
    const file = await open(path, { caching: 'direct', access: 'read-write' });
    await compares(file, 1, 20);
    await file.close();
    console.log('survived');
  },

  async terminated() {
    const writing = await open(path, { caching: 'direct', access: 'read-write', cacheSize: 65536 });
    const kept = [await busy(), await writing.window(0, 10, { writable: true })];
    parentPort.postMessage('busy');
    globalThis.kept = kept;
  },

  /** Ends with windows open and operations in flight. */
  async exit() {
    globalThis.kept = await busy();
    process.exit(0);
  },

  /** Nothing is asked any more: open files do not keep a process alive. */
  async idle() {
    globalThis.kept = [];
    for (const caching of ['page-cache', 'direct']) {
      const file = await open(path, { caching });
      globalThis.kept.push(await file.window(0, 50_000));
    }
    console.log('idle');
  },

  async copies() {
    const other = await load(more[0]);
    if (other.open === open) throw new Error('the same module');
    for (const caching of ['page-cache', 'direct']) {
      const files = [await open(path, { caching }), await other.open(path, { caching })];
      await Promise.all(files.map((file, i) => compares(file, i, 50)));
      for (const file of files) await file.close();
    }
    const first = await open(path, { caching: 'direct', access: 'read-write' });
    const refusal = await other.open(path, { caching: 'direct', access: 'read-write' }).catch((error) => error.code);
    await first.close();
    const second = await other.open(path, { caching: 'direct', access: 'read-write' });
    const again = await open(path, { caching: 'direct', access: 'read-write' }).catch((error) => error.code);
    await second.close();
    console.log(refusal, again);
  },

  async grow() {
    const { appendFileSync } = await import('node:fs');
    appendFileSync(path, Buffer.alloc(Number(more[0]), 7));
    console.log('grown');
  },
};

await cases[name]();
