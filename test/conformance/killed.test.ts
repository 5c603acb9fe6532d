/** `kill -9` at any moment: what a flush had acknowledged is there, in order and once, and the next process goes on behind it. */
import { spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, describe, expect, it } from 'vitest';
import { HEADER_BYTES, Log } from '../../docs/examples/log.js';
import { type BlockFile, type Caching, open } from '../../src/index.js';
import { Random } from '../../src/testing/random.js';
import { Places } from '../fixtures/places.js';
import { pageOf, pagesMax, recordMark, recordOf } from '../rigs/appended.js';
import { emitted } from '../rigs/emitted.js';

const ROUNDS = 8;
/** What the log allocates at a time, and what several writers may have on their way. */
const GROWTH_BYTES = 4 << 20;
const ON_ITS_WAY_BYTES = 64 << 10;

const lab = new Places();
afterAll(() => lab.dispose());

interface Acknowledged {
  record: number;
  /** The version of each page. */
  pages: number[];
}

/** Runs the program until so many things were acknowledged, kills it, and adds to what is known to be durable by then. */
async function killedAfter(count: number, args: string[], known: Acknowledged): Promise<void> {
  const folder = await emitted();
  const child = spawn(process.execPath, [join(folder, 'test/rigs/appender.js'), ...args], { cwd: folder, stdio: ['ignore', 'pipe', 'pipe'] });
  let out = '';
  let problem = '';
  child.stdout.on('data', (data) => {
    out += data;
    if (out.split('\n').length > count) child.kill('SIGKILL');
  });
  child.stderr.on('data', (data) => (problem += data));
  const signal = await new Promise((resolve) => child.on('close', (_, by) => resolve(by)));
  expect([signal, problem]).toEqual(['SIGKILL', '']);
  for (const [what, first, second] of out.split('\n').map((line) => line.split(' '))) {
    if (what === 'a') known.record = Math.max(known.record, Number(first));
    else if (what === 'p') known.pages[Number(first)] = Number(second);
  }
}

/** What the killed process had on its way in the kernel ends some time later; its lock is free then. */
async function openUnlocked(path: string, caching: Caching): Promise<BlockFile> {
  for (;;) {
    try {
      return await open(path, { caching, access: 'read-write', lock: 'exclusive' });
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EAGAIN') throw error;
      await sleep(5);
    }
  }
}

/** The last record of the log, each of which is checked. */
async function checkLog(path: string, caching: Caching): Promise<number> {
  const file = await openUnlocked(path, caching);
  let last = 0;
  let end = 0;
  await Log.open(file, (number, payload) => {
    expect(number).toBe(last + 1);
    expect(Buffer.compare(payload, recordOf(number))).toBe(0);
    last = number;
    end += HEADER_BYTES + payload.length;
  });
  expect(file.size).toBeGreaterThanOrEqual(end);
  expect(file.size).toBeLessThanOrEqual(end + GROWTH_BYTES + ON_ITS_WAY_BYTES);
  await file.close();
  // Each is there once; what lies behind the last are later ones, which were never acknowledged.
  const content = readFileSync(path);
  let found = 0;
  for (let at = content.indexOf(recordMark); at >= 0; at = content.indexOf(recordMark, at + 1)) {
    const number = content.readUInt32LE(at + recordMark.length);
    if (at < end) expect(number).toBe(++found);
    else expect(number).toBeGreaterThan(last);
  }
  expect(found).toBe(last);
  return last;
}

async function checkPages(path: string, caching: Caching, known: readonly number[]): Promise<void> {
  const file = await openUnlocked(path, caching);
  for (const page of Array(pagesMax).keys()) {
    using window = await file.window(page * 512, 512);
    const version = window.length === 512 ? new Uint32Array(window.bytes.slice().buffer)[0] : 0;
    expect(version).toBeGreaterThanOrEqual(known[page]);
    if (version > 0) expect(Buffer.compare(window.bytes, pageOf(page, version))).toBe(0);
  }
  await file.close();
}

describe.each<Caching>(['page-cache', 'direct'])('a process that is killed while it appends (%s)', (caching) => {
  it.each([1, 6])('leaves every record that was acknowledged, in order, each once, and a log to go on with (writers: %i)', async (writers) => {
    const folder = lab.folder();
    const paths = [join(folder, 'log'), join(folder, 'pages')];
    const random = new Random(writers + caching.length);
    const known: Acknowledged = { record: 0, pages: Array(pagesMax).fill(0) };
    for (let round = 0; round < ROUNDS / 2; round++) {
      await killedAfter(1 + random.below(60), [...paths, caching, String(writers)], known);
      expect(await checkLog(paths[0], caching)).toBeGreaterThanOrEqual(known.record);
      await checkPages(paths[1], caching, known.pages);
    }
    expect(known.record).toBeGreaterThan(0);
  });
});
