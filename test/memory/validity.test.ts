/**
 * The validity table: words that keep their first cause, are handed out zeroed, and come back when their thread ends.
 */
import { fileURLToPath } from 'node:url';
import { Worker } from 'node:worker_threads';
import { describe, expect, it } from 'vitest';
import {
  CAUSE_CLOSE,
  CAUSE_FAULT,
  CAUSE_NONE,
  CAUSE_SHUTDOWN,
  CAUSE_TRUNCATE,
  CAUSE_UNPLUG,
  causeError,
  causeOf,
  claimWord,
  firstDeadPage,
  freeWord,
  invalidate,
  revalidate,
  validity,
} from '../../src/memory/validity.js';

const addon = fileURLToPath(new URL('../../build/Release/sectorwise.node', import.meta.url));

describe('the validity table', () => {
  it('is one table with words behind the cells for files and devices', () => {
    const table = validity();
    expect(validity()).toBe(table);
    expect(table.cells).toBeGreaterThanOrEqual(4096);
    expect(table.words.length).toBe(table.cells + 65536);
  });

  it('hands out distinct words, zeroed also when used before', () => {
    const { words, cells } = validity();
    const first = claimWord();
    const second = claimWord();
    expect(first).toBeGreaterThanOrEqual(cells);
    expect(second).not.toBe(first);
    words[first] = CAUSE_UNPLUG;
    freeWord(first);
    const again = claimWord();
    expect(words[again]).toBe(CAUSE_NONE);
    freeWord(again);
    freeWord(second);
  });

  it('takes a word back once, and never one that was not claimed', () => {
    const word = claimWord();
    freeWord(word);
    freeWord(word);
    freeWord(0);
    freeWord(-1);
    const taken = [claimWord(), claimWord(), claimWord()];
    expect(new Set(taken).size).toBe(3);
    for (const each of taken) freeWord(each);
  });

  it('says what to do when every word is taken, and goes on when some are free again', () => {
    const taken: number[] = [];
    const takeAll = () => {
      for (;;) taken.push(claimWord());
    };
    expect(takeAll).toThrowError(expect.objectContaining({ code: 'ERR_SECTORWISE_TOO_MANY_OPEN', message: expect.stringContaining('Close files') }));
    expect(new Set(taken).size).toBe(taken.length);
    for (const each of taken) freeWord(each);
    const word = claimWord();
    expect(word).toBeGreaterThanOrEqual(validity().cells);
    freeWord(word);
  });

  it('keeps the first cause, and revalidates only what says the same', () => {
    const { words } = validity();
    const word = claimWord();
    invalidate(word, 1, CAUSE_UNPLUG);
    invalidate(word, 1, CAUSE_CLOSE);
    expect(words[word]).toBe(CAUSE_UNPLUG);
    revalidate(word, 1, CAUSE_TRUNCATE);
    expect(words[word]).toBe(CAUSE_UNPLUG);
    revalidate(word, 1, CAUSE_UNPLUG);
    expect(words[word]).toBe(CAUSE_NONE);
    freeWord(word);
  });

  it('lets a cause for the whole cell replace one for a part of it, and revalidates a part as it does a whole', () => {
    const { words } = validity();
    const word = claimWord();
    const part = CAUSE_TRUNCATE | (300 << 8);
    expect([causeOf(part), firstDeadPage(part), causeOf(CAUSE_FAULT), firstDeadPage(CAUSE_FAULT)]).toEqual([CAUSE_TRUNCATE, 300, CAUSE_FAULT, 0]);
    words[word] = part;
    revalidate(word, 1, CAUSE_FAULT);
    expect(words[word]).toBe(part);
    revalidate(word, 1, CAUSE_TRUNCATE);
    expect(words[word]).toBe(CAUSE_NONE);
    words[word] = part;
    invalidate(word, 1, CAUSE_UNPLUG);
    expect(words[word]).toBe(CAUSE_UNPLUG);
    words[word] = CAUSE_TRUNCATE;
    invalidate(word, 1, CAUSE_UNPLUG);
    expect(words[word]).toBe(CAUSE_TRUNCATE);
    freeWord(word);
  });

  it('is the same memory in a worker, and gets back what a worker never freed', async () => {
    const { words } = validity();
    const word = claimWord();
    const code = `
      const { parentPort, workerData } = require('node:worker_threads');
      const native = require(workerData.addon);
      new Int32Array(native.validity().buffer)[workerData.word] = 3;
      const taken = [];
      for (let index = native.claimWord(); index >= 0; index = native.claimWord()) taken.push(index);
      parentPort.postMessage({ count: taken.length, stolen: taken.includes(workerData.word) });`;
    const run = () =>
      new Promise<{ count: number; stolen: boolean }>((resolve, reject) => {
        const worker = new Worker(code, { eval: true, workerData: { addon, word } });
        let answer: { count: number; stolen: boolean };
        worker.on('message', (message) => {
          answer = message;
        });
        worker.on('error', reject);
        worker.on('exit', () => resolve(answer));
      });
    const first = await run();
    const second = await run();
    expect(words[word]).toBe(CAUSE_UNPLUG);
    expect(first).toEqual({ count: 65535, stolen: false });
    expect(second).toEqual(first);
    freeWord(word);
  });
});

describe('the error of a cause', () => {
  it.each([
    [CAUSE_CLOSE, 'ERR_SECTORWISE_CLOSED', 'Open it again'],
    [CAUSE_TRUNCATE, 'ERR_SECTORWISE_TRUNCATED', 'Ask for its size'],
    [CAUSE_UNPLUG, 'ERR_SECTORWISE_UNPLUGGED', 'when the device is back'],
    [CAUSE_SHUTDOWN, 'ERR_SECTORWISE_SHUTDOWN', 'mount the file system'],
    [CAUSE_FAULT, 'ERR_SECTORWISE_FAULT', 'Read the range'],
  ])('%i is %s with its range and a remedy', (cause, code, remedy) => {
    const error = causeError(cause, { path: '/data/table', offset: 4096, length: 8192 });
    expect(error).toMatchObject({ code, path: '/data/table', offset: 4096, length: 8192 });
    expect(error.message).toContain(remedy);
    expect(error.message).toContain("'/data/table'");
    expect(causeError(cause).message).toContain(remedy);
  });
});
