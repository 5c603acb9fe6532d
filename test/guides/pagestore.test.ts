/** The page store of docs/examples: what it has to be for any changes, on simulated disks of which the power fails at every step, and when they fail otherwise. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { Store } from '../../docs/examples/pagestore/store.js';
import type { BlockFile } from '../../src/index.js';
import { openSimulated, SimulatedDisk, type SimulatedEngine } from '../../src/testing/index.js';
import { checkState, contentOf, text } from '../rigs/store-checks.js';
import { changeOf, lastKey } from '../rigs/store-history.js';

const root = fileURLToPath(new URL('../../', import.meta.url));
/** So little that the workload goes round in it. */
const logBytes = 48 << 10;

it('the getting-started guide shows code that is there', () => {
  const sources = ['first-store.ts', ...['page.ts', 'tree.ts', 'log.ts', 'store.ts'].map((name) => `pagestore/${name}`)];
  const code = sources.map((name) => readFileSync(join(root, 'docs/examples', name), 'utf8')).join('\n');
  const blocks = [...readFileSync(join(root, 'docs/guides/getting-started.md'), 'utf8').matchAll(/```ts\n([\s\S]*?)```/g)].map((match) => match[1]);
  expect(blocks.length).toBeGreaterThan(5);
  for (const block of blocks) expect(code).toContain(block);
});

/** Closes a store whose disk failed, lost its power or is gone: that may be said once more, and nothing else. */
async function closeBroken(store: Store): Promise<void> {
  await store.close().catch((error) => expect(['ERR_SECTORWISE_FLUSH_FAILED', 'ERR_SECTORWISE_UNPLUGGED', 'EIO']).toContain(error.code));
}

describe('a page store', () => {
  const bytes = (maxLength: number) => fc.uint8Array({ maxLength });
  // Few bytes that differ, so that keys are prefixes of each other and there is something to remove.
  const key = fc.array(fc.constantFrom(0, 1, 97, 98, 255), { maxLength: 6 }).map((all) => Uint8Array.from(all));
  const value = fc.oneof(
    { weight: 9, arbitrary: bytes(300) },
    { weight: 1, arbitrary: fc.integer({ min: 0, max: 1024 }).map((length) => new Uint8Array(length).fill(length)) },
  );
  const step = fc.oneof(
    { weight: 12, arbitrary: fc.record({ what: fc.constant('put' as const), key, value }) },
    { weight: 4, arbitrary: fc.record({ what: fc.constant('delete' as const), key }) },
    { weight: 2, arbitrary: fc.record({ what: fc.constantFrom('checkpoint' as const, 'reopen' as const) }) },
    { weight: 1, arbitrary: fc.record({ what: fc.constant('scan' as const), from: key, to: key }) },
  );

  it('is a map that is in order, whatever is put, removed, merged and opened again', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(step, { minLength: 60, maxLength: 160 }), async (steps) => {
        const disks = [new SimulatedDisk({ size: 0 }), new SimulatedDisk({ size: 0 })];
        const reopen = (): Promise<Store> => {
          const [pages, log] = disks.map((disk) => openSimulated(disk, { access: 'read-write', cacheSize: 256 << 10, readAhead: false }));
          return Store.open(pages, log, { logBytes });
        };
        let store = await reopen();
        const model = new Map<string, string>();
        const inOrder = (from = '', to?: string): Array<[string, string]> =>
          [...model].filter(([name]) => name >= from && (to === undefined || name < to)).sort(([a], [b]) => (a < b ? -1 : 1));
        const unsettled: Promise<unknown>[] = [];
        for (const one of steps) {
          if (one.what === 'put') {
            unsettled.push(store.put(one.key, one.value));
            model.set(text(one.key), text(one.value));
          } else if (one.what === 'delete') {
            unsettled.push(store.delete(one.key));
            model.delete(text(one.key));
          } else {
            await Promise.all(unsettled.splice(0));
            if (one.what === 'checkpoint') await store.checkpoint();
            else if (one.what === 'scan') expect(await contentOf(store, one.from, one.to)).toEqual(inOrder(text(one.from), text(one.to)));
            else {
              await store.close();
              store = await reopen();
            }
          }
        }
        await Promise.all(unsettled);
        expect(await contentOf(store)).toEqual(inOrder());
        for (const [name, content] of model) expect(text((await store.get(Buffer.from(name, 'latin1')))!)).toBe(content);
        await store.checkpoint();
        expect(await contentOf(store)).toEqual(inOrder());
        expect(await store.get(Buffer.from('nowhere'))).toBeUndefined();
        await store.close();
      }),
      { numRuns: 8 },
    );
  });

  it('shows a scan what was there when it began, while everything is changed and the pages of old versions are used again', async () => {
    const disks = [new SimulatedDisk({ size: 0 }), new SimulatedDisk({ size: 0 })];
    const [pages, log] = disks.map((disk) => openSimulated(disk, { access: 'read-write', readAhead: false }));
    const store = await Store.open(pages, log, { logBytes });
    const keys = Array.from({ length: 400 }, (_, index) => Buffer.from(`key ${index}`));
    const putAll = (content: string): Promise<unknown> => Promise.all(keys.map((key) => store.put(key, Buffer.from(content.repeat(10)))));
    await putAll('old');
    await store.checkpoint();
    const scan = store.scan();
    const begun = await scan.next();
    const seen: string[][] = (begun.done ? [] : begun.value).map(({ key, value }) => [text(key), text(value!)]);
    for (let round = 0; round < 4; round++) {
      await putAll(`new ${round}`);
      await store.checkpoint();
    }
    const sizeInUse = pages.size;
    for await (const run of scan) seen.push(...run.map(({ key, value }) => [text(key), text(value!)]));
    expect(seen).toEqual(keys.map((key) => [text(key), 'old'.repeat(10)]).sort(([a], [b]) => (a < b ? -1 : 1)));
    for (let round = 0; round < 8; round++) {
      await putAll(`newer ${round}`);
      await store.checkpoint();
    }
    expect(pages.size).toBe(sizeInUse);
    await store.close();
  });

  it('answers at once where the page is in memory, else later, and finds out a page that is not what was written', async () => {
    const disks = [new SimulatedDisk({ size: 0 }), new SimulatedDisk({ size: 0 })];
    const files = (): BlockFile[] => disks.map((disk) => openSimulated(disk, { access: 'read-write', readAhead: false }));
    let [pages, log] = files();
    let store = await Store.open(pages, log, { logBytes });
    await store.put(Buffer.from('a'), Buffer.from('content'));
    await store.checkpoint();
    expect(store.get(Buffer.from('a'))).toEqual(Buffer.from('content'));
    await store.close();
    [pages, log] = files();
    store = await Store.open(pages, log);
    const later = store.get(Buffer.from('a'));
    expect(later).toBeInstanceOf(Promise);
    expect(await later).toEqual(Buffer.from('content'));
    expect(store.get(Buffer.from('a'))).toEqual(Buffer.from('content'));
    await store.close();
    const at = text(disks[0].read(0, disks[0].size)).indexOf('content');
    expect(at).toBeGreaterThan(0);
    for (let page = at; page >= 0; page = text(disks[0].read(0, disks[0].size)).indexOf('content')) disks[0].write(page, Buffer.from('c0nten'));
    [pages, log] = files();
    store = await Store.open(pages, log);
    await expect(store.get(Buffer.from('a'))).rejects.toThrow(/is not what was written/);
    await store.close();
  });

  it.each(['merge', 'scan'] as const)('finds out a page that went bad while it was not in memory: %s', async (what) => {
    const disks = [new SimulatedDisk({ size: 0 }), new SimulatedDisk({ size: 0 })];
    const [pages, log] = disks.map((disk) => openSimulated(disk, { access: 'read-write', readAhead: false }));
    const store = await Store.open(pages, log, { logBytes });
    const keys = Array.from({ length: 100 }, (_, index) => Buffer.from(`key ${index}`));
    await Promise.all(keys.map((key) => store.put(key, Buffer.from('content '.repeat(20)))));
    await store.checkpoint();
    expect(await contentOf(store)).toHaveLength(100);
    await pages.evict(0, pages.size);
    // All but the first leaf, so that a scan meets the others as pages that it had asked for ahead.
    const device = text(disks[0].read(0, disks[0].size));
    const first = device.indexOf('key 0content');
    for (let at = device.indexOf('content '); at >= 0; at = device.indexOf('content ', at + 1))
      if (at >> 12 !== first >> 12) disks[0].write(at, Buffer.from('c0ntent '));
    if (what === 'scan') await expect(contentOf(store)).rejects.toThrow(/is not what was written/);
    else {
      await Promise.all(keys.map((key) => store.put(key, Buffer.from('new'))));
      await expect(store.checkpoint()).rejects.toThrow(/is not what was written/);
    }
    await store.close();
  });
});

interface Opened {
  files: BlockFile[];
  engines: SimulatedEngine[];
}

/** Moves the disks until the promise has settled, or so many operations are done; did it settle? */
async function drive({ engines }: Opened, promise: Promise<unknown>, steps = Number.POSITIVE_INFINITY): Promise<boolean> {
  let settled = false;
  const end = (): void => {
    settled = true;
  };
  promise.then(end, end);
  for (let taken = 0; !settled && taken < steps; ) {
    for (const engine of engines) if (taken < steps && (await engine.step()) > 0) taken++;
    await new Promise((resolve) => setImmediate(resolve));
  }
  return settled;
}

function openBoth(disks: SimulatedDisk[]): Opened {
  const engines = disks.map((disk) => disk.engine({ depth: 8, drive: 'manual' }));
  const files = disks.map((disk, index) => openSimulated(disk, { access: 'read-write', cacheSize: 1 << 20, readAhead: false, engine: engines[index] }));
  return { files, engines };
}

async function driven<T>(opened: Opened, promise: Promise<T>): Promise<T> {
  await drive(opened, promise);
  return promise;
}

describe('a page store on disks of which the power fails', () => {
  const rounds = [1, 6, 2, 8, 1, 6, 1, 3, 1];

  /** Several changes at once, with checkpoints beside them. */
  async function work(store: Store, lives: number[], life: number, acknowledged: (number: number) => void): Promise<void> {
    for (const [index, count] of rounds.entries()) {
      const merging = index % 2 === 1 ? store.checkpoint() : undefined;
      const writes = Array.from({ length: count }, () => {
        const number = lives.push(life);
        return store.write(changeOf(number, life)).then(() => acknowledged(number));
      });
      await Promise.all([merging, ...writes]);
    }
  }

  it.each([
    ['file', 'some', 1],
    ['file', 'all', 3],
    ['block-device', 'some', 3],
  ] as const)('has every change that it acknowledged, whole and in order, wherever it fails: a %s, unsynced bytes dropped: %s', async (kind, drop, stride) => {
    for (let cut = 0, over = false; !over; cut += stride) {
      const size = kind === 'file' ? 0 : 1 << 20;
      const disks = [cut, cut + 1].map((seed) => new SimulatedDisk({ size, kind, seed, faults: { shortWrite: 0.1 } }));
      const lives: number[] = [];
      let known = 0;
      // Twice: what the first life leaves behind must not pass for the second's.
      for (let life = 0; life < 3; life++) {
        const opened = openBoth(disks);
        const store = await driven(opened, Store.open(opened.files[0], opened.files[1], { logBytes }));
        const found = await driven(opened, checkState(store, lives));
        expect(found).toBeGreaterThanOrEqual(known);
        known = found;
        lives.length = found;
        if (life < 2) {
          const working = work(store, lives, life, (number) => {
            known = Math.max(known, number);
          });
          const finished = await drive(opened, working, cut);
          if (life === 0 && finished) {
            over = true;
            await working;
            expect(cut).toBeGreaterThan(15);
          }
          for (const disk of disks) disk.powerCut({ drop });
        }
        await drive(opened, store.close());
      }
    }
  });

  it('can lose its power while it is made', async () => {
    for (let cut = 0, over = false; !over; cut++) {
      const disks = [cut, cut + 1].map((seed) => new SimulatedDisk({ size: 0, seed }));
      const opened = openBoth(disks);
      over = await drive(opened, Store.open(opened.files[0], opened.files[1], { logBytes }), cut);
      for (const disk of disks) disk.powerCut();
      await drive(opened, Promise.allSettled(opened.files.map((file) => file.close())));
      const again = openBoth(disks);
      const store = await driven(again, Store.open(again.files[0], again.files[1], { logBytes }));
      await driven(again, store.write(changeOf(1, 0)));
      await driven(again, store.checkpoint());
      expect(await driven(again, checkState(store, [0]))).toBe(1);
      await driven(again, store.close());
    }
  });
});

describe('a page store of which the disks fail', () => {
  async function opened(disks: SimulatedDisk[]): Promise<Store> {
    const [pages, log] = disks.map((disk) => openSimulated(disk, { access: 'read-write', readAhead: false }));
    return Store.open(pages, log, { logBytes });
  }

  it('takes nothing more once the log has failed, still answers, and is whole when it is opened again', async () => {
    const disks = [new SimulatedDisk({ size: 0, seed: 3 }), new SimulatedDisk({ size: 0, seed: 4 })];
    let store = await opened(disks);
    const lives = [0, 0, 0, 0];
    await store.write(changeOf(1, 0));
    disks[1].plant('writeError', { times: 5 });
    const told = await Promise.allSettled([store.write(changeOf(2, 0)), store.write(changeOf(3, 0))]);
    expect(told.map(({ status }) => status)).toEqual(['rejected', 'rejected']);
    await expect(store.write(changeOf(4, 0))).rejects.toMatchObject({ code: 'ERR_SECTORWISE_FLUSH_FAILED' });
    expect(await checkState(store, lives)).toBe(1);
    disks[1].heal();
    await closeBroken(store);
    store = await opened(disks);
    const found = await checkState(store, lives);
    expect([1, 3]).toContain(found);
    await store.write(changeOf(found + 1, 0));
    expect(await checkState(store, lives)).toBe(found + 1);
    await store.close();
  });

  it('goes on with its log while a checkpoint fails, at the pages or at the meta page, and succeeds with the next', async () => {
    for (const [seed, skipped] of [0, 1, 2, 3].entries()) {
      const disks = [new SimulatedDisk({ size: 0, seed }), new SimulatedDisk({ size: 0, seed: seed + 9 })];
      let store = await opened(disks);
      const lives: number[] = [];
      const change = (): Promise<void> => store.write(changeOf(lives.push(0), 0));
      for (let i = 0; i < 10; i++) await change();
      await store.checkpoint();
      await change();
      disks[0].plant('syncError', { skip: skipped });
      const failure = await store.checkpoint().then(
        () => undefined,
        (error) => error,
      );
      if (failure !== undefined) expect(failure).toMatchObject({ code: 'ERR_SECTORWISE_FLUSH_FAILED' });
      await change();
      expect(await checkState(store, lives)).toBe(12);
      disks[0].heal();
      await store.checkpoint();
      await change();
      for (const disk of disks) disk.powerCut({ drop: 'all' });
      await closeBroken(store);
      store = await opened(disks);
      expect(await checkState(store, lives)).toBe(13);
      await store.close();
    }
  });

  it('refuses puts once the log is full of what no checkpoint can bring into the tree, loses nothing, and goes on when one can', async () => {
    const disks = [new SimulatedDisk({ size: 0, seed: 5 }), new SimulatedDisk({ size: 0, seed: 6 })];
    let store = await opened(disks);
    const lives: number[] = [];
    const change = (): Promise<void> => store.write(changeOf(lives.push(0), 0));
    disks[0].plant('writeError', { times: Number.POSITIVE_INFINITY });
    let refusal: unknown;
    while (refusal === undefined && lives.length < 500) {
      refusal = await change().then(
        () => undefined,
        (error) => error,
      );
    }
    expect(refusal).toMatchObject({ code: 'ERR_SECTORWISE_FLUSH_FAILED' });
    lives.pop();
    expect(await checkState(store, lives)).toBe(lives.length);
    await closeBroken(store);
    for (const disk of disks) disk.powerCut();
    // What was recovered goes into the tree first: no store without pages.
    await expect(opened(disks)).rejects.toMatchObject({ code: 'ERR_SECTORWISE_FLUSH_FAILED' });
    disks[0].heal();
    store = await opened(disks);
    expect(await checkState(store, lives)).toBe(lives.length);
    await store.checkpoint();
    for (let i = 0; i < 100; i++) await change();
    expect(await checkState(store, lives)).toBe(lives.length);
    await store.close();
    store = await opened(disks);
    expect(await checkState(store, lives)).toBe(lives.length);
    await store.close();
  });

  it('never takes the zeros behind a lost disk for a page', async () => {
    const disks = [new SimulatedDisk({ size: 0 }), new SimulatedDisk({ size: 0 })];
    const store = await opened(disks);
    await store.write(changeOf(1, 0));
    await store.checkpoint();
    disks[0].unplug();
    expect(() => store.get(lastKey)).toThrow(expect.objectContaining({ code: 'ERR_SECTORWISE_UNPLUGGED' }));
    await closeBroken(store);
  });
});
