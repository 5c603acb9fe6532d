/** Watching files: what is told and what is not, and that nothing of a watch outlives it. What needs root is in losses.test.ts. */
import { spawnSync } from 'node:child_process';
import { closeSync, fstatSync, ftruncateSync, openSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Worker } from 'node:worker_threads';
import { afterAll, afterEach, describe, expect, it } from 'vitest';
import { native } from '../../src/io/native.js';
import { CAUSE_CLOSE, claimWord, freeWord, validity } from '../../src/memory/validity.js';
import { dependenceOf } from '../../src/unplug/devices.js';
import { HEALTH_PERIOD_MS, PRESENCE_PERIOD_MS, SETTLE_MS, type WatchedFile, watchFile } from '../../src/unplug/watcher.js';
import { Places } from '../fixtures/places.js';
import { until } from './until.js';

const EIO = 5;
const addon = fileURLToPath(new URL('../../build/Release/sectorwise.node', import.meta.url));
const lab = new Places();
const undo: Array<() => void> = [];
afterEach(() => {
  for (const step of undo.splice(0).reverse()) step();
});
afterAll(() => lab.dispose());

function watchedFile(bytes = 10_000): { fd: number; word: number; watched: WatchedFile; told: unknown[] } {
  const path = join(lab.folder(), 'file');
  writeFileSync(path, Buffer.alloc(bytes, 1));
  const fd = openSync(path, 'r+');
  const word = claimWord();
  const told: unknown[] = [];
  const watched = watchFile(
    { fd, word, size: bytes },
    { lost: (cause) => told.push(['lost', cause]), sizeChanged: () => told.push('size'), faulted: () => told.push('fault') },
  );
  undo.push(() => {
    watched.unwatch();
    freeWord(word);
    closeSync(fd);
  });
  return { fd, word, watched, told };
}

function descriptors(): number {
  return readdirSync('/proc/self/fd').length;
}

const settled = (watched: WatchedFile, errno: number): Promise<number> => new Promise((resolve) => watched.suspect(errno, resolve));

describe('the watcher', () => {
  it('keeps the periods that are documented', () => {
    const periods = native().watcherPeriods;
    expect(periods).toMatchObject({ health: HEALTH_PERIOD_MS, presence: PRESENCE_PERIOD_MS });
    expect(periods.grace).toBeLessThan(periods.settle);
    expect(periods.settle).toBeLessThanOrEqual(SETTLE_MS);
  });

  it('tells that a file was made shorter, and longer, by others', async () => {
    const { fd, watched, told, word } = watchedFile();
    watched.setLive(1);
    ftruncateSync(fd, 5000);
    await until(() => told.length === 1);
    ftruncateSync(fd, 50_000);
    await until(() => told.length === 2);
    expect(told).toEqual(['size', 'size']);
    expect(validity().words[word]).toBe(0);
  });

  it('tells of a size that was another one before the watching began', async () => {
    const path = join(lab.folder(), 'file');
    writeFileSync(path, Buffer.alloc(100));
    const fd = openSync(path, 'r');
    const word = claimWord();
    const told: string[] = [];
    const watched = watchFile({ fd, word, size: 200 }, { lost: () => {}, sizeChanged: () => told.push('size'), faulted: () => {} });
    closeSync(fd);
    undo.push(() => {
      watched.unwatch();
      freeWord(word);
    });
    // Inside the call nobody is told.
    expect(told).toEqual([]);
    await until(() => told.length === 1);
  });

  it('does not ask after a file without live windows, and does when somebody has a suspicion', async () => {
    const asked = watchedFile();
    const quiet = watchedFile();
    asked.watched.setLive(1);
    ftruncateSync(quiet.fd, 5000);
    ftruncateSync(asked.fd, 5000);
    // By then a round over all files has gone by.
    await until(() => asked.told.length === 1);
    expect(quiet.told).toEqual([]);
    expect(await settled(quiet.watched, EIO)).toBe(0);
    await until(() => quiet.told.length === 1);
  });

  it('finds nothing wrong with a file that is well, and says so', async () => {
    const { watched, told, word } = watchedFile();
    expect(watched.check()).toBe(0);
    expect(await settled(watched, EIO)).toBe(0);
    expect(await settled(watched, 0)).toBe(0);
    expect(watched.suspectSync(EIO)).toBe(0);
    expect(told).toEqual([]);
    expect(validity().words[word]).toBe(0);
  });

  it('answers every suspicion once, in their order, from the event loop', async () => {
    const { watched } = watchedFile();
    const answers: number[] = [];
    for (let i = 0; i < 100; i++) watched.suspect(EIO, () => answers.push(i));
    expect(watched.suspectSync(EIO)).toBe(0);
    expect(answers).toEqual([]);
    await until(() => answers.length === 100);
    watched.suspect(EIO, () => watched.suspect(EIO, () => answers.push(100)));
    await until(() => answers.length === 101);
    expect(answers).toEqual(Array.from({ length: 101 }, (_, index) => index));
  });

  it('answers also what is asked of a file that is unwatched meanwhile, or was', async () => {
    const { watched } = watchedFile();
    const answers: string[] = [];
    watched.suspect(EIO, (cause) => answers.push(`during ${cause}`));
    watched.unwatch();
    watched.suspect(EIO, (cause) => answers.push(`after ${cause}`));
    expect(answers).toEqual([]);
    await until(() => answers.length === 2);
    expect(answers).toEqual(['during 0', 'after 0']);
    expect(watched.suspectSync(EIO)).toBe(0);
    expect(watched.check()).toBe(0);
    expect(watched.unwatch()).toBe(true);
  });

  it('tells nothing after the file is unwatched', async () => {
    const first = watchedFile();
    const second = watchedFile();
    for (const { fd, watched } of [first, second]) {
      watched.setLive(1);
      ftruncateSync(fd, 1);
    }
    // Both have been seen by now, and nobody was told yet: this is one turn of the event loop.
    expect(first.watched.check() + second.watched.check()).toBe(0);
    first.watched.unwatch();
    await until(() => second.told.length === 1);
    expect(first.told).toEqual([]);
  });

  it('tells the others when one listener throws', async () => {
    const path = join(lab.folder(), 'file');
    writeFileSync(path, 'content');
    const fd = openSync(path, 'r+');
    const word = claimWord();
    const thrown: unknown[] = [];
    const catcher = (error: unknown) => thrown.push(error);
    const before = process.listeners('uncaughtException');
    process.removeAllListeners('uncaughtException');
    process.on('uncaughtException', catcher);
    const problem = new Error('of a listener');
    const bad = watchFile(
      { fd, word, size: 1 },
      {
        lost: () => {},
        sizeChanged: () => {
          throw problem;
        },
        faulted: () => {},
      },
    );
    const good = watchedFile();
    good.watched.setLive(1);
    ftruncateSync(good.fd, 1);
    await until(() => good.told.length === 1 && thrown.length === 1);
    expect(thrown).toEqual([problem]);
    process.removeListener('uncaughtException', catcher);
    for (const listener of before) process.on('uncaughtException', listener);
    bad.unwatch();
    freeWord(word);
    closeSync(fd);
  });

  it('keeps the cause that the file ended with before', async () => {
    const { watched, word } = watchedFile();
    validity().words[word] = CAUSE_CLOSE;
    expect(await settled(watched, EIO)).toBe(0);
    expect(validity().words[word]).toBe(CAUSE_CLOSE);
  });

  it('says what it listens to, and why to no more', () => {
    const { watched } = watchedFile();
    const features = watched.features();
    expect(features.map(({ name }) => name)).toEqual(['watched device', 'uevents', 'sysfs attributes', 'mount table']);
    for (const { reason } of features) expect(reason.length).toBeGreaterThan(0);
  });

  it('leaves no descriptor and no word behind after 10,000 watches', async () => {
    const { fd } = watchedFile();
    const listener = { lost: () => {}, sizeChanged: () => {}, faulted: () => {} };
    const dependence = dependenceOf(native().probe(fd));
    const [word, signal, live] = [claimWord(), claimWord(), claimWord()];
    const before = descriptors();
    const free = freeWords();
    let late = 0;
    for (let i = 0; i < 1000; i++) {
      const watched = watchFile({ fd, word, size: 10_000 }, listener);
      if (i % 3 === 0) watched.setLive(1);
      if (i % 5 === 0) watched.suspect(EIO, () => {});
      if (i % 7 === 0) watched.suspectSync(EIO);
      late += watched.unwatch() ? 0 : 1;
    }
    for (let i = 0; i < 9000; i++) {
      const id = native().watch({ ...dependence, fd, word, signal, live, size: 10_000, node: '', nodeMajor: 0, nodeMinor: 0 });
      if (i % 5 === 0) native().suspect(id, EIO);
      late += native().unwatch(id) ? 0 : 1;
    }
    // On a busy machine a read may take longer than `unwatch` waits for it: then its descriptor is closed when it ends.
    expect(late).toBeLessThan(5000);
    for (let i = 0; i < 1000 && descriptors() > before; i++) await new Promise((resolve) => setTimeout(resolve, 10));
    expect(descriptors()).toBe(before);
    expect(freeWords()).toBe(free);
    for (const each of [word, signal, live]) freeWord(each);
  });

  it('watches a thousand files at once', async () => {
    const { fd } = watchedFile();
    const listener = { lost: () => {}, sizeChanged: () => count++, faulted: () => {} };
    let count = 0;
    const word = claimWord();
    const all = Array.from({ length: 1000 }, () => watchFile({ fd, word, size: 10_000 }, listener));
    for (const watched of all) watched.setLive(1);
    ftruncateSync(fd, 9000);
    await until(() => count === 1000);
    for (const watched of all) watched.unwatch();
    freeWord(word);
    expect(fstatSync(fd).size).toBe(9000);
  });
});

/** By taking them all. */
function freeWords(): number {
  const taken: number[] = [];
  for (let word = native().claimWord(); word >= 0; word = native().claimWord()) taken.push(word);
  for (const word of taken) freeWord(word);
  return taken.length;
}

/** A watch by the addon alone, which runs in a worker and in a process of its own without the sources being built. */
const watchIt = (path: string): string => `
  const native = require(${JSON.stringify(addon)});
  const { openSync, fstatSync } = require('node:fs');
  native.startWatching(() => {});
  const fd = openSync(${JSON.stringify(path)}, 'r+');
  const { buffer } = native.validity();
  const words = new Int32Array(buffer);
  const [word, signal, live] = [native.claimWord(), native.claimWord(), native.claimWord()];
  words[live] = 1;
  const id = native.watch({ fd, word, signal, live, isDevice: false, remote: false, size: fstatSync(fd).size, sequence: -1, group: 'g', node: '', nodeMajor: 0, nodeMinor: 0, devices: [] });
  if (id < 0) throw new Error('refused: ' + id);
`;

describe('the end of a thread or process', () => {
  it('of a worker that is terminated takes its watches, words and descriptors along, again and again', async () => {
    // Starts what stays: the thread, its sockets.
    const { watched, told, fd } = watchedFile();
    watched.setLive(1);
    const path = join(lab.folder(), 'file');
    writeFileSync(path, 'content');
    const free = freeWords();
    const before = descriptors();
    for (let i = 0; i < 10; i++) {
      const worker = new Worker(
        `${watchIt(path)}
        for (let i = 0; i < 50; i++) native.watch({ fd, word, signal, live, isDevice: false, remote: false, size: i, sequence: -1, group: 'g', node: '', nodeMajor: 0, nodeMinor: 0, devices: [] });
        native.suspect(id, 5);
        require('node:worker_threads').parentPort.postMessage('watching');
        setInterval(() => {}, 1000);`,
        { eval: true },
      );
      await new Promise((resolve, reject) => {
        worker.once('message', resolve);
        worker.once('error', reject);
      });
      await worker.terminate();
    }
    // The descriptor that the worker opened by node:fs is closed with it; eventfds when libuv let go.
    await until(() => descriptors() <= before);
    expect(freeWords()).toBe(free);
    ftruncateSync(fd, 1);
    await until(() => told.length === 1);
  });

  it('of a process is not kept back by watches', () => {
    const path = join(lab.folder(), 'file');
    writeFileSync(path, 'content');
    const { status, stderr } = spawnSync(process.execPath, ['-e', `${watchIt(path)}; process.exitCode = 7;`], { encoding: 'utf8', timeout: 60_000 });
    expect(stderr).toBe('');
    expect(status).toBe(7);
  });

  it('of a process waits for a suspicion that is held', () => {
    const path = join(lab.folder(), 'file');
    writeFileSync(path, 'content');
    const code = `${watchIt(path).replace('startWatching(() => {})', 'startWatching(() => { if (words[signal] & 8) { native.refWatcher(false); process.exitCode = 8; } })')}
      native.refWatcher(true); native.suspect(id, 5);`;
    const { status, stderr } = spawnSync(process.execPath, ['-e', code], { encoding: 'utf8', timeout: 60_000 });
    expect(stderr).toBe('');
    expect(status).toBe(8);
  });

  it('by process.exit is clean in the middle of everything', () => {
    const path = join(lab.folder(), 'file');
    writeFileSync(path, 'content');
    const code = `${watchIt(path)}; for (let i = 0; i < 100; i++) native.suspect(id, 5); setTimeout(() => process.exit(9), 300);`;
    const { status, stderr, signal } = spawnSync(process.execPath, ['-e', code], { encoding: 'utf8', timeout: 60_000 });
    expect({ stderr, status, signal }).toEqual({ stderr: '', status: 9, signal: null });
  });
});
