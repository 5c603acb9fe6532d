/** Flushes beside everything else: what they share, what goes on meanwhile, what they cost the device. Over a simulated disk. */
import { describe, expect, it } from 'vitest';
import type { BlockFile, FlushError } from '../../src/index.js';
import { SimulatedDisk, type SimulatedDiskOptions, type SimulatedEngine, type SimulatedOpenOptions } from '../../src/testing/index.js';
import { openSimulatedParts, type SimulatedParts } from '../../src/testing/open.js';
import { settled, turn } from '../rigs/moved-by-hand.js';

const BLOCK_BYTES = 4096;
const SIZE = 64 * BLOCK_BYTES;

interface Scene extends SimulatedParts {
  disk: SimulatedDisk;
  engine: SimulatedEngine;
  /** Operations since the last question. */
  did(): { writes: number; syncs: number; truncates: number };
}

/** A file of ones whose first flush is over, on a disk that moves by hand. */
async function scene(options: SimulatedOpenOptions = {}, disk: Partial<SimulatedDiskOptions> = {}): Promise<Scene> {
  const simulated = new SimulatedDisk({ size: SIZE, seed: 1, checkOrdering: true, ...disk });
  simulated.write(0, new Uint8Array(simulated.size).fill(1));
  const parts = openSimulatedParts(simulated, {
    access: 'read-write',
    cacheSize: 64 * BLOCK_BYTES,
    engine: simulated.engine({ depth: 8, drive: 'manual' }),
    ...options,
  });
  let before = { writes: 0, syncs: 0, truncates: 0 };
  const did = (): typeof before => {
    const { writes, syncs, truncates } = simulated.counts;
    const since = { writes: writes - before.writes, syncs: syncs - before.syncs, truncates: truncates - before.truncates };
    before = { writes, syncs, truncates };
    return since;
  };
  const made = { ...parts, disk: simulated, did };
  await settled(made, parts.file.flush());
  did();
  return made;
}

/** Is it settled although the disk does not move? */
async function isSettled(promise: Promise<unknown>): Promise<boolean> {
  let over = false;
  promise.then(
    () => (over = true),
    () => (over = true),
  );
  await turn();
  return over;
}

/** Moves the disk until a sync is on its way. */
async function untilSync({ engine, disk }: Scene): Promise<void> {
  const { syncs } = disk.counts;
  for (let turns = 0; disk.counts.syncs === syncs; turns++) {
    if (turns > 100) throw new Error('no sync comes');
    await engine.step();
  }
}

const block = (value: number, count = 1): Uint8Array => new Uint8Array(count * BLOCK_BYTES).fill(value);

/** What a power cut would leave at the beginning of each of these blocks. */
function durable({ disk }: Scene, ...blocks: number[]): number[] {
  const snapshot = disk.snapshot('durable');
  return blocks.map((each) => snapshot.read(each * BLOCK_BYTES, 1)[0]);
}

async function failure(promise: Promise<unknown>): Promise<FlushError> {
  return promise.then(
    () => {
      throw new Error('it did not fail');
    },
    (error) => error,
  );
}

describe('a flush', () => {
  it('of one run of blocks is one write that is durable itself', async () => {
    const its = await scene();
    await its.file.write(block(2, 3), 4 * BLOCK_BYTES);
    await settled(its, its.file.flush());
    expect([its.did(), durable(its, 4, 6, 7)]).toEqual([{ writes: 1, syncs: 0, truncates: 0 }, [2, 2, 1]]);
    await its.file.write(block(3), SIZE);
    await settled(its, its.file.flush());
    expect([its.did(), durable(its, 64), its.disk.snapshot('durable').size]).toEqual([{ writes: 1, syncs: 0, truncates: 0 }, [3], SIZE + BLOCK_BYTES]);
    await settled(its, its.file.close());
  });

  it('of several runs, or beside something else that is not durable, is writes and a sync', async () => {
    const its = await scene();
    await its.file.write(block(2), 0);
    await its.file.write(block(2), 8 * BLOCK_BYTES);
    await settled(its, its.file.flush());
    expect([its.did(), durable(its, 0, 8)]).toEqual([{ writes: 2, syncs: 1, truncates: 0 }, [2, 2]]);
    await settled(its, its.file.allocate(0, 100));
    await its.file.write(block(3), 0);
    await settled(its, its.file.flush());
    expect([its.did(), durable(its, 0)]).toEqual([{ writes: 1, syncs: 1, truncates: 0 }, [3]]);
    await settled(its, its.file.close());
  });

  it('cuts off the padding of an end within a sector', async () => {
    const its = await scene();
    await its.file.write(new Uint8Array(100).fill(2), SIZE);
    await settled(its, its.file.flush());
    expect([its.did(), its.disk.size, its.disk.snapshot('durable').size]).toEqual([{ writes: 1, syncs: 1, truncates: 1 }, SIZE + 100, SIZE + 100]);
    await settled(its, its.file.close());
  });

  it('writes small appends as the blocks that they touch, once', async () => {
    const its = await scene();
    const line = new Uint8Array(100).fill(7);
    await settled(its, its.file.resize(0));
    await settled(its, its.file.flush());
    its.did();
    for (let round = 0; round < 5; round++) {
      for (let i = 0; i < 300; i++) await its.file.write(line, (round * 300 + i) * line.length);
      await settled(its, its.file.flush());
    }
    expect(its.did()).toEqual({ writes: 5, syncs: 5, truncates: 5 });
    // 30,000 bytes touch nine blocks at most.
    expect(its.disk.counts.bytesWritten).toBeLessThanOrEqual(1.2 * 5 * 9 * BLOCK_BYTES);
    await settled(its, its.file.close());
  });
});

describe('flushes', () => {
  it('of callers who each write and flush, again and again, are one for all of them', async () => {
    const its = await scene({ cacheSize: 512 * BLOCK_BYTES });
    let next = 0;
    const writer = async (): Promise<void> => {
      for (let i = 0; i < 5; i++) {
        const at = next++ * BLOCK_BYTES;
        await its.file.write(block(at / BLOCK_BYTES + 2), at);
        await its.file.flush();
        expect(its.disk.snapshot('durable').read(at, 1)[0]).toBe((at / BLOCK_BYTES + 2) % 256);
      }
    };
    await settled(its, Promise.all(Array.from({ length: 32 }, writer)));
    expect(its.did()).toEqual({ writes: 5, syncs: 0, truncates: 0 });
    await settled(its, its.file.close());
  });

  it('that nobody awaits between writes are one', async () => {
    const its = await scene({ cacheSize: 512 * BLOCK_BYTES });
    const all: Promise<unknown>[] = [];
    for (let i = 0; i < 20; i++) all.push(its.file.write(block(i + 2), i * BLOCK_BYTES), its.file.flush());
    await settled(its, Promise.all(all));
    expect([its.did(), durable(its, 0, 19)]).toEqual([{ writes: 1, syncs: 0, truncates: 0 }, [2, 21]]);
    await settled(its, its.file.close());
  });

  it('that come while one is under way share the next, and what fails is told to all who shared', async () => {
    const its = await scene();
    await its.file.write(block(2), 0);
    const first = its.file.flush();
    await turn();
    its.disk.failSectors(8, 8, { reads: false, times: Infinity });
    const others = [1, 2, 3].map((each) => {
      void its.file.write(block(each), each * BLOCK_BYTES);
      return failure(its.file.flush());
    });
    await settled(its, first);
    for (const other of others) {
      const error = await settled(its, other);
      expect(error.code).toBe('ERR_SECTORWISE_FLUSH_FAILED');
      expect(error.ranges.map(({ offset, length }) => [offset, length])).toEqual([[BLOCK_BYTES, BLOCK_BYTES]]);
    }
    expect(durable(its, 0, 1, 2, 3)).toEqual([2, 1, 2, 3]);
    its.disk.heal();
    await settled(its, failure(its.file.flush()));
    expect(durable(its, 1)).toEqual([1]);
    its.file.acknowledgeLoss();
    await settled(its, its.file.close());
  });
});

describe('while a flush is under way', () => {
  it('writes are taken at once, also into the blocks that it writes; it makes durable what was there before, and the next the rest', async () => {
    const its = await scene();
    for (const each of [0, 5, 9]) await its.file.write(block(2), each * BLOCK_BYTES);
    const flush = its.file.flush();
    await turn();
    expect([its.disk.inFlight, await isSettled(its.file.write(block(3), 0)), await isSettled(its.file.write(block(3), 7 * BLOCK_BYTES))]).toEqual([
      3,
      true,
      true,
    ]);
    await untilSync(its);
    expect(await isSettled(its.file.write(block(4), 5 * BLOCK_BYTES))).toBe(true);
    expect(await isSettled(its.file.write(new Uint8Array(700).fill(4), 9 * BLOCK_BYTES + 11))).toBe(true);
    await settled(its, flush);
    expect(durable(its, 0, 5, 7, 9)).toEqual([2, 2, 1, 2]);
    const target = new Uint8Array(1);
    expect([its.file.tryRead(target, 5 * BLOCK_BYTES), target[0]]).toEqual([1, 4]);
    await settled(its, its.file.flush());
    expect(durable(its, 0, 5, 7)).toEqual([3, 4, 3]);
    expect(its.disk.snapshot('durable').read(9 * BLOCK_BYTES + 10, 2)).toEqual(new Uint8Array([2, 4]));
    await settled(its, its.file.close());
  });

  it('the file grows: the flush leaves it as long as it was when it began', async () => {
    const its = await scene();
    await its.file.write(new Uint8Array(100).fill(2), SIZE);
    const flush = its.file.flush();
    await turn();
    await its.file.write(new Uint8Array(1000).fill(3), SIZE + 100);
    await settled(its, flush);
    expect([its.disk.snapshot('durable').size, its.file.size]).toEqual([SIZE + 100, SIZE + 1100]);
    await settled(its, its.file.flush());
    expect([its.disk.snapshot('durable').size, its.disk.snapshot('durable').read(SIZE, 1100)]).toEqual([
      SIZE + 1100,
      new Uint8Array(1100).fill(2, 0, 100).fill(3, 100),
    ]);
    await settled(its, its.file.close());
  });

  it('a sync that fails names what was written before it, and what changed since is dirty as ever', async () => {
    const its = await scene();
    for (const each of [0, 5]) await its.file.write(block(2), each * BLOCK_BYTES);
    its.disk.plant('syncError');
    const flush = its.file.flush();
    await untilSync(its);
    await its.file.write(block(3), 5 * BLOCK_BYTES);
    await its.file.write(block(3), 8 * BLOCK_BYTES);
    const error = await settled(its, failure(flush));
    expect(error.ranges.map(({ offset, length }) => [offset, length])).toEqual([
      [0, BLOCK_BYTES],
      [5 * BLOCK_BYTES, BLOCK_BYTES],
    ]);
    its.file.acknowledgeLoss();
    await settled(its, its.file.flush());
    expect(durable(its, 8)).toEqual([3]);
    await settled(its, its.file.close());
  });

  it('a resize waits for it, and for those that were called before; a blocking flush and a close wait for their own', async () => {
    const its = await scene();
    await its.file.write(block(2), 0);
    const order: string[] = [];
    const all = [its.file.flush().then(() => order.push('flush'))];
    await turn();
    await its.file.write(block(3), 5 * BLOCK_BYTES);
    all.push(its.file.flush().then(() => order.push('second')));
    all.push(its.file.resize(BLOCK_BYTES).then(() => order.push('resize')));
    all.push(its.file.write(block(4), BLOCK_BYTES).then(() => order.push('write')));
    await settled(its, Promise.all(all));
    expect(order).toEqual(['flush', 'second', 'resize', 'write']);
    void its.file.write(block(5), 0);
    const flush = its.file.flush();
    void its.file.write(block(5), 9 * BLOCK_BYTES);
    its.file.flushSync();
    expect([durable(its, 0, 9), await isSettled(flush)]).toEqual([[5, 5], true]);
    void its.file.write(block(6), 0);
    const last = its.file.flush();
    await settled(its, its.file.close());
    expect([durable(its, 0), await isSettled(last)]).toEqual([[6], true]);
  });

  it('and after it was called, what is stored into a window and never marked does not go with it', async () => {
    const its = await scene();
    await its.file.write(block(2), 0);
    await its.file.write(block(2), 3 * BLOCK_BYTES);
    const flush = its.file.flush();
    const window = its.file.tryWindow(0, BLOCK_BYTES, { writable: true });
    window?.bytes.fill(9);
    await settled(its, flush);
    expect(durable(its, 0, 3)).toEqual([2, 2]);
    window?.markDirty();
    window?.release();
    await settled(its, its.file.flush());
    expect(durable(its, 0)).toEqual([9]);
    await settled(its, its.file.close());
  });

  it('marks are for the next, of windows that it found too; the next takes them with it', async () => {
    const its = await scene();
    const window = await settled(its, its.file.window(0, BLOCK_BYTES, { writable: true }));
    const store = (value: number): void => {
      window.bytes.fill(value);
      window.markDirty();
    };
    store(2);
    const first = its.file.flush();
    store(3);
    const second = its.file.flush();
    store(4);
    const third = its.file.flush();
    window.bytes.fill(5);
    window.release();
    await settled(its, first);
    expect(durable(its, 0)).toEqual([2]);
    await settled(its, Promise.all([second, third]));
    expect(durable(its, 0)).toEqual([4]);
    await settled(its, its.file.close());
  });
});

describe('write-back before anybody asks', () => {
  it('begins with a quarter of the frames, goes on while nobody waits, and leaves the padded end for a flush', async () => {
    const its = await scene({}, { size: SIZE + 100 });
    await settled(its, its.file.write(new Uint8Array(50).fill(2), SIZE));
    for (let i = 0; i < 14; i++) expect(await isSettled(its.file.write(block(2), i * BLOCK_BYTES))).toBe(true);
    expect(its.did().writes).toBe(0);
    for (let i = 14; i < 20; i++) expect(await isSettled(its.file.write(block(2), i * BLOCK_BYTES))).toBe(true);
    await its.engine.run();
    const { dirty, room } = its.frames.census();
    expect([its.did(), its.disk.size, dirty, room]).toEqual([{ writes: 1, syncs: 0, truncates: 0 }, SIZE + 100, 6, 58]);
    await settled(its, its.file.close());
    expect([its.disk.size, its.disk.read(SIZE, 1)[0]]).toEqual([SIZE + 100, 2]);
  });

  it('has writers wait when half of them are dirty, until some are not', async () => {
    const its = await scene();
    const writes = Array.from({ length: 60 }, (_, i) => its.file.write(block(i), i * BLOCK_BYTES));
    expect([await isSettled(writes[31]), await isSettled(writes[59])]).toEqual([true, false]);
    await settled(its, Promise.all(writes));
    await settled(its, its.file.flush());
    expect(durable(its, 5, 40, 59)).toEqual([5, 40, 59]);
    await settled(its, its.file.close());
  });

  it('that fails loses nothing, is not tried over and over, and is named by the next flush', async () => {
    const its = await scene({}, { size: 0 });
    its.disk.capacity = 4 * BLOCK_BYTES;
    const written: Promise<unknown>[] = [];
    for (let i = 0; i < 28; i++) {
      written.push(its.file.write(block(i + 1), i * BLOCK_BYTES));
      await its.engine.run();
    }
    await Promise.all(written);
    // With 16 frames dirty, and not again before 16 more are.
    expect(its.did().writes).toBeLessThanOrEqual(4);
    const target = new Uint8Array(1);
    for (let i = 0; i < 28; i++) expect([its.file.tryRead(target, i * BLOCK_BYTES), target[0]]).toEqual([1, i + 1]);
    const error = await settled(its, failure(its.file.flush()));
    expect([error.code, (error.ranges[0].error as NodeJS.ErrnoException).code]).toEqual(['ERR_SECTORWISE_FLUSH_FAILED', 'ENOSPC']);
    its.disk.capacity = Infinity;
    await settled(its, failure(its.file.flush()));
    expect(durable(its, 0, 15, 27)).toEqual([1, 16, 28]);
    expect(its.file.acknowledgeLoss().length).toBeGreaterThan(0);
    await settled(its, its.file.flush());
    await settled(its, its.file.close());
  });
});

it('callers who do not wait for each other keep what each flush acknowledged, wherever the power goes', async () => {
  for (let seed = 1; seed <= 16; seed++) {
    const disk = new SimulatedDisk({ size: SIZE, seed, checkOrdering: true, latency: { min: 1, max: 500 } });
    const { file, engine } = openSimulatedParts(disk, {
      access: 'read-write',
      cacheSize: 32 * BLOCK_BYTES,
      engine: disk.engine({ depth: 4, drive: 'manual' }),
    });
    const acknowledged = new Map<number, number>();
    const latest = new Map<number, number>();
    const calls: Promise<unknown>[] = [];
    for (let i = 1; i < 60; i++) {
      const caller = (i * 7 + seed) % 9;
      // A number of its own for each write, at a place that is not a sector's.
      const at = caller * 5000 + 123;
      latest.set(at, i);
      calls.push((file as BlockFile).write(new Uint8Array(300).fill(i), at).catch(() => undefined));
      const covers = new Map(latest);
      if ((i + seed) % 3 === 0) {
        calls.push(
          file.flush().then(
            () => {
              for (const [where, value] of covers) acknowledged.set(where, Math.max(value, acknowledged.get(where) ?? 0));
            },
            () => undefined,
          ),
        );
      }
      if ((i * seed) % 4 === 0) await engine.step();
    }
    for (let steps = seed; steps > 0; steps--) await engine.step();
    const before = new Map(acknowledged);
    disk.powerCut({ drop: 'all' });
    for (const [at, value] of before) {
      const least = Math.min(...disk.read(at, 300));
      if (least < value) throw new Error(`seed ${seed}: at ${at} the write ${value} was flushed, and ${least} is there`);
    }
    await settled({ engine }, Promise.all(calls));
    await settled({ engine }, file.close()).catch(() => undefined);
  }
});
