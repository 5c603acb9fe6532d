/**
 * The storage beside random-access-file 4: the same calls of both, and what comes of them; then under hypercore 10 and hyperbee 2, which are written for that one.
 */
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { RandomAccessBlockFile, type RandomAccessOptions } from '../../src/random-access/index.js';
import { installed } from '../fixtures/installed.js';
import { note } from '../fixtures/places.js';

const { missing, require } = installed('random-access', { 'random-access-file': '4.1.2', hypercore: '10.38.2', hyperbee: '2.27.3' });
const folder = mkdtempSync(join(tmpdir(), 'sectorwise-random-access-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

type Storage = RandomAccessBlockFile;
type Make = new (filename: string, options?: RandomAccessOptions) => Storage;
let made = 0;

/** What a call comes to: its value, or code and message of its error (as far as they do not name the place). */
function call(begin: (callback: (error: Error | null, value?: unknown) => void) => void): Promise<unknown> {
  return new Promise((resolve) => {
    let calls = 0;
    begin((error, value) => {
      if (++calls > 1) throw new Error('called back twice');
      const { code, offset, size, message } = (error ?? {}) as NodeJS.ErrnoException & { offset?: number; size?: number };
      if (error === null || error === undefined)
        resolve(value instanceof Uint8Array ? Buffer.from(value).toString('latin1') : (value as { size?: number })?.size);
      else resolve(code === 'EPARTIALREAD' ? { code, message, offset, size } : { code: code ?? message });
    });
  });
}

const read = (s: Storage, offset: number, size: number): Promise<unknown> => call((done) => s.read(offset, size, done));
const write = (s: Storage, offset: number, text: string): Promise<unknown> => call((done) => s.write(offset, Buffer.from(text), done));
const del = (s: Storage, offset: number, size: number): Promise<unknown> => call((done) => s.del(offset, size, done));
const truncate = (s: Storage, offset: number): Promise<unknown> => call((done) => s.truncate(offset, done));
const stat = (s: Storage): Promise<unknown> => call((done) => s.stat(done));
const simple = (s: Storage, name: 'open' | 'suspend' | 'close' | 'unlink'): Promise<unknown> => call((done) => s[name](done));

interface Scenario {
  name: string;
  options?: RandomAccessOptions;
  /** What is in the file before; undefined: it is not there. */
  before?: string;
  run(storage: Storage, path: string, Make: Make): Promise<unknown>;
}

const scenarios: Scenario[] = [
  { name: 'write, then read', run: async (s) => [await write(s, 10, 'hello'), await read(s, 10, 5), await stat(s)] },
  { name: 'read of a hole', run: async (s) => [await write(s, 10, 'hello'), await read(s, 0, 15)] },
  { name: 'read of a file that is not there', run: async (s) => [await read(s, 0, 1), await simple(s, 'close')] },
  { name: 'stat of a file that is not there', run: async (s) => [await stat(s)] },
  { name: 'read first, then write, which creates', run: async (s) => [await read(s, 0, 1), await write(s, 0, 'a'), await read(s, 0, 1)] },
  {
    name: 'read past the end',
    before: 'ten bytes.',
    run: async (s) => [await read(s, 5, 10), await read(s, 10, 1), await read(s, 100, 7), await read(s, 0, 10)],
  },
  { name: 'read of nothing', before: 'x', run: async (s) => [await read(s, 0, 0), await read(s, 100, 0)] },
  { name: 'write of nothing', run: async (s) => [await write(s, 5, ''), await stat(s)] },
  {
    name: 'many calls at once',
    run: (s) => Promise.all([write(s, 0, 'one'), write(s, 3, 'two'), write(s, 6, 'three'), stat(s).then(() => 0), simple(s, 'open')]),
  },
  { name: 'writes behind one another', run: async (s) => [await write(s, 0, 'aaaa'), await write(s, 2, 'bbbb'), await read(s, 0, 6)] },
  { name: 'a long write over many blocks', run: async (s) => [await write(s, 4095, 'x'.repeat(100_000)), await read(s, 4090, 100_005), await stat(s)] },
  { name: 'del in the middle', before: 'abcdefghij', run: async (s) => [await del(s, 2, 3), await read(s, 0, 10), await stat(s)] },
  { name: 'del past the end', before: 'abcdefghij', run: async (s) => [await del(s, 20, 3), await del(s, 8, 100), await read(s, 0, 10), await stat(s)] },
  { name: 'del of all the rest', before: 'abcdefghij', run: async (s) => [await del(s, 4, Number.POSITIVE_INFINITY), await stat(s), await read(s, 0, 5)] },
  { name: 'del of a file that is not there', run: async (s) => [await del(s, 0, 10), await stat(s)] },
  {
    name: 'truncate, shorter and longer',
    before: 'abcdefghij',
    run: async (s) => [await truncate(s, 4), await stat(s), await truncate(s, 8), await read(s, 0, 8)],
  },
  { name: 'truncate of a file that is not there', run: async (s, path) => [await truncate(s, 7), await stat(s), existsSync(path)] },
  { name: 'the option truncate', before: 'abc', options: { truncate: true }, run: async (s) => [await stat(s), await write(s, 0, 'z'), await stat(s)] },
  { name: 'the option size', options: { size: 100 }, run: async (s) => [await stat(s), await read(s, 0, 2)] },
  {
    name: 'a file that is not writable',
    before: 'abc',
    options: { writable: false },
    run: async (s) => [await read(s, 0, 3), await write(s, 0, 'x'), await read(s, 0, 3)],
  },
  { name: 'a file that is not readable', before: 'abc', options: { readable: false }, run: async (s) => [await write(s, 0, 'x'), await read(s, 0, 3)] },
  { name: 'folders that are not there', run: async (_, path, Make) => [await write(new Make(join(path, 'a', 'b', 'c')), 0, 'deep')] },
  {
    name: 'folders that are not there, for reading, which makes none',
    run: async (_, path, Make) => [await read(new Make(join(path, 'a', 'b')), 0, 1), existsSync(path)],
  },
  { name: 'a folder in place of a file', run: async (s, path) => [mkdirSync(path), await write(s, 0, 'x'), await read(s, 0, 1)] },
  {
    name: 'open twice, close twice',
    before: 'abc',
    run: async (s) => [await simple(s, 'open'), await simple(s, 'open'), await simple(s, 'close'), await simple(s, 'close')],
  },
  {
    name: 'calls after close',
    before: 'abc',
    run: async (s) => [await simple(s, 'open'), await simple(s, 'close'), await read(s, 0, 1), await write(s, 0, 'x'), await stat(s)],
  },
  { name: 'close of one that was never opened', run: async (s, path) => [await simple(s, 'close'), await read(s, 0, 1), existsSync(path)] },
  { name: 'close behind calls that were not awaited', run: (s) => Promise.all([write(s, 0, 'abc'), read(s, 0, 0), simple(s, 'close'), read(s, 0, 1)]) },
  {
    name: 'suspend and go on',
    run: async (s) => [
      await write(s, 0, 'abc'),
      await simple(s, 'suspend'),
      s.suspended,
      await read(s, 0, 3),
      s.suspended,
      await write(s, 3, 'd'),
      await read(s, 0, 4),
    ],
  },
  {
    name: 'suspend in between',
    run: (s) => Promise.all([write(s, 0, 'abc'), simple(s, 'suspend'), write(s, 3, 'def'), simple(s, 'suspend'), simple(s, 'close')]),
  },
  {
    name: 'suspend, then close',
    run: async (s) => [await write(s, 0, 'abc'), await simple(s, 'suspend'), await simple(s, 'close'), s.closed, await read(s, 0, 1)],
  },
  {
    name: 'unlink',
    run: async (s, path) => [await write(s, 0, 'abc'), await simple(s, 'unlink'), existsSync(path), s.closed, s.unlinked, await simple(s, 'unlink')],
  },
  { name: 'unlink of a file that is not there', run: async (s) => [await simple(s, 'unlink')] },
  {
    name: 'a file again, by another object',
    run: async (s, path, Make) => [await write(s, 0, 'abc'), await simple(s, 'close'), await read(new Make(path), 0, 3)],
  },
  {
    name: 'the option directory, which is not led out of',
    run: async (_, path, Make) => {
      const s = new Make('../../out', { directory: path });
      return [await write(s, 0, 'x'), await simple(s, 'close'), readdirSync(path)];
    },
  },
  {
    name: 'the option rmdir',
    run: async (_, path, Make) => {
      const s = new Make('a/b/c', { directory: path, rmdir: true });
      return [await write(s, 0, 'x'), await simple(s, 'unlink'), readdirSync(path)];
    },
  },
  {
    name: 'the option lock, by one that writes and another',
    run: async (s, path, Make) => {
      const first = new Make(path, { lock: true });
      const answers = [
        await write(first, 0, 'x'),
        await write(new Make(path, { lock: true }), 0, 'y'),
        await read(new Make(path, { lock: true, writable: false }), 0, 1),
        await read(s, 0, 1),
      ];
      return [...answers, await simple(first, 'close'), await read(new Make(path, { lock: true }), 0, 1)];
    },
  },
  {
    name: 'what is emitted',
    run: async (s) => {
      const emitted: string[] = [];
      for (const event of ['open', 'suspend', 'unsuspend', 'close', 'unlink'] as const) s.on(event, () => emitted.push(event));
      await write(s, 0, 'a');
      await simple(s, 'suspend');
      await read(s, 0, 1);
      await simple(s, 'close');
      await simple(s, 'unlink');
      return emitted;
    },
  },
  {
    name: 'what it says of itself',
    run: async (s) => {
      const state = (): unknown => [
        s.opened,
        s.closed,
        s.suspended,
        s.unlinked,
        s.writing,
        s.readable,
        s.writable,
        s.deletable,
        s.truncatable,
        s.statable,
        s.directory,
      ];
      const before = state();
      await write(s, 0, 'a');
      return [before, state()];
    },
  },
];

async function outcome(Make: Make, { before, options, run }: Scenario): Promise<unknown> {
  const path = join(folder, String(made++));
  if (before !== undefined) writeFileSync(path, before);
  const storage = new Make(path, options);
  const found = await run(storage, path, Make).catch((error: NodeJS.ErrnoException) => ({ thrown: error.code ?? error.message }));
  await simple(storage, 'close');
  return { found, content: existsSync(path) && statSync(path).isFile() ? readFileSync(path, 'latin1') : undefined };
}

describe.skipIf(missing !== undefined)(`what random-access-file does${note(missing)}`, () => {
  for (const scenario of scenarios) {
    it(`does alike: ${scenario.name}`, async () => {
      const expected = await outcome(require('random-access-file') as Make, scenario);
      expect(await outcome(RandomAccessBlockFile, scenario)).toEqual(expected);
    });
  }
});

interface Hypercore {
  readonly length: number;
  readonly key: Buffer;
  ready(): Promise<void>;
  append(blocks: Buffer[]): Promise<unknown>;
  get(index: number): Promise<Buffer>;
  truncate(length: number): Promise<void>;
  clear(start: number, end: number): Promise<unknown>;
  has(index: number): Promise<boolean>;
  close(): Promise<void>;
}

interface Hyperbee {
  put(key: string, value: string): Promise<void>;
  get(key: string): Promise<{ value: string } | null>;
  del(key: string): Promise<void>;
  batch(): { put(key: string, value: string): Promise<void>; flush(): Promise<void> };
  createReadStream(range?: { gte?: string; lt?: string }): AsyncIterable<{ key: string; value: string }>;
  close(): Promise<void>;
}

describe.skipIf(missing !== undefined)(`under hypercore${note(missing)}`, () => {
  const core = (at: string, options: RandomAccessOptions): Hypercore => {
    const Hypercore = require('hypercore') as new (storage: (name: string) => Storage) => Hypercore;
    return new Hypercore((name) => new RandomAccessBlockFile(name, { directory: at, ...options }));
  };
  const block = (i: number): Buffer => Buffer.alloc(1 + ((i * 37) % 5000), i % 251);
  const direct: RandomAccessOptions = { caching: 'direct', cacheSize: 1 << 20 };

  for (const [mode, options] of [
    ['page-cache', {}],
    ['direct', direct],
    ['a pool of two files', { pool: RandomAccessBlockFile.createPool(2) }],
  ] as Array<[string, RandomAccessOptions]>) {
    it(`keeps a log of blocks over a reopen, with what was cleared and cut off: ${mode}`, async () => {
      const at = join(folder, `core-${made++}`);
      const first = core(at, options);
      await first.ready();
      const { key } = first;
      for (let i = 0; i < 120; i += 30) await first.append(Array.from({ length: 30 }, (_, j) => block(i + j)));
      await first.truncate(100);
      await first.append([block(1000)]);
      await first.clear(10, 20);
      for (const i of [0, 5, 9, 20, 99]) expect(block(i).equals(await first.get(i))).toBe(true);
      await first.close();

      const again = core(at, options);
      await again.ready();
      expect(again.key).toEqual(key);
      expect(again.length).toBe(101);
      for (let i = 0; i < 100; i++) {
        if (i >= 10 && i < 20) expect(await again.has(i)).toBe(false);
        else expect(block(i).equals(await again.get(i))).toBe(true);
      }
      expect(block(1000).equals(await again.get(100))).toBe(true);
      await again.close();
    });
  }

  it('is read by random-access-file afterwards', async () => {
    const at = join(folder, `core-${made++}`);
    const first = core(at, {});
    await first.append([block(1), block(2)]);
    await first.close();
    const Hypercore = require('hypercore') as new (storage: (name: string) => Storage) => Hypercore;
    const RandomAccessFile = require('random-access-file') as Make;
    const again = new Hypercore((name) => new RandomAccessFile(name, { directory: at }));
    await again.ready();
    expect(again.length).toBe(2);
    expect(await again.get(1)).toEqual(block(2));
    await again.close();
  });

  it('carries a hyperbee: ordered keys, deletions and batches, over a reopen', async () => {
    const at = join(folder, `bee-${made++}`);
    const Bee = require('hyperbee') as new (core: Hypercore, options: object) => Hyperbee;
    const open = (): Hyperbee => new Bee(core(at, {}), { keyEncoding: 'utf-8', valueEncoding: 'utf-8' });
    const name = (i: number): string => `key ${String(i).padStart(4, '0')}`;
    const bee = open();
    const batch = bee.batch();
    for (let i = 0; i < 300; i++) await batch.put(name((i * 7) % 300), `value ${i}`);
    await batch.flush();
    for (let i = 0; i < 300; i += 10) await bee.del(name(i));
    await bee.put(name(5), 'changed');
    await bee.close();

    const again = open();
    const keys: string[] = [];
    for await (const { key } of again.createReadStream()) keys.push(key);
    expect(keys).toEqual(
      Array.from({ length: 300 }, (_, i) => i)
        .filter((i) => i % 10 !== 0)
        .map(name),
    );
    expect((await again.get(name(5)))?.value).toBe('changed');
    expect(await again.get(name(10))).toBeNull();
    await again.close();
  });
});
