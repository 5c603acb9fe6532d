/**
 * The guide for log writers: its code is the code of docs/examples/log.ts, and that log keeps its promises: in both modes on a real file, and on a simulated disk of which the power fails at every step.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, describe, expect, it } from 'vitest';
import { Log } from '../../docs/examples/log.js';
import { type BlockFile, type Caching, open } from '../../src/index.js';
import { openSimulated, SimulatedDisk, type SimulatedEngine } from '../../src/testing/index.js';
import { Places } from '../fixtures/places.js';

const root = fileURLToPath(new URL('../../', import.meta.url));
const guide = readFileSync(join(root, 'docs/guides/writing-a-log.md'), 'utf8');
const lab = new Places();
afterAll(() => lab.dispose());

/** The payload of a record: its length and its bytes follow from its number, and from the life of the process that wrote it. */
function payload(sequence: number, life = 0): Uint8Array {
  const bytes = new Uint8Array(1 + ((sequence * 397 + life * 61) % 1900)).fill((sequence + 1) % 251);
  bytes[0] = life;
  return bytes;
}

/** Opens the log and compares what it finds with what was written; the number of the last record. What a life did not overwrite never follows what it wrote. */
async function recover(file: BlockFile): Promise<{ log: Log; last: number }> {
  let last = 0;
  let life = 0;
  const log = await Log.open(file, (sequence, bytes) => {
    expect(sequence).toBe(last + 1);
    expect(bytes[0]).toBeGreaterThanOrEqual(life);
    life = bytes[0];
    expect(Buffer.compare(bytes, payload(sequence, life))).toBe(0);
    last = sequence;
  });
  return { log, last };
}

describe('the guide for log writers', () => {
  it('shows the code that is tested here', () => {
    const code = /```ts\n(\/\*\*\n \* A log on one file[\s\S]*?)```/.exec(guide)?.[1];
    expect(code).toBe(readFileSync(join(root, 'docs/examples/log.ts'), 'utf8'));
  });

  it('names methods that exist, and every one that changes a file', () => {
    const source = readFileSync(join(root, 'src/file.ts'), 'utf8') + readFileSync(join(root, 'src/windows/window.ts'), 'utf8');
    const table = guide.slice(guide.indexOf('\n## What each call promises'), guide.indexOf('\n## Order'));
    const named = [...table.matchAll(/^\| `(\w+)[`(]/gm)].map((match) => match[1]);
    expect(named).toEqual(expect.arrayContaining(['write', 'markDirty', 'flush', 'resize', 'allocate', 'discard', 'acknowledgeLoss', 'close', 'open']));
    for (const name of named) if (name !== 'open') expect(source).toMatch(new RegExp(`^  ${name}\\(`, 'm'));
  });
});

describe.each<Caching>(['page-cache', 'direct'])('the log of the guide, on a file (%s)', (caching) => {
  it('finds after each opening all that was appended, by one and by many writers, and goes on behind it', async () => {
    const path = join(lab.folder(), 'log');
    let expected = 0;
    for (let round = 0; round < 3; round++) {
      const file = await open(path, { caching, access: 'read-write', create: true, lock: 'exclusive', cacheSize: 1 << 20 });
      const { log, last } = await recover(file);
      expect(last).toBe(expected);
      for (let i = 0; i < 5; i++) expect(await log.append(payload(++expected))).toBe(expected);
      const sequences = await Promise.all(Array.from({ length: 40 }, () => log.append(payload(++expected))));
      expect(sequences.at(-1)).toBe(expected);
      await file.close();
    }
  });

  it('never takes what an earlier opening left for what follows, though the record before it was appended again with the same bytes', async () => {
    const path = join(lab.folder(), 'log');
    const options = { caching, access: 'read-write', create: true } as const;
    const first = await open(path, options);
    const { log } = await recover(first);
    await log.append(payload(1));
    await log.append(payload(2));
    // The first record is lost, as an unsynced sector may be.
    await first.write(Buffer.alloc(8), 0);
    await first.close();
    const second = await open(path, options);
    expect(await (await recover(second)).log.append(payload(1))).toBe(1);
    await second.close();
    const third = await open(path, options);
    expect((await recover(third)).last).toBe(1);
    await third.close();
  });

  it('is empty after it was truncated, and counts on', async () => {
    const path = join(lab.folder(), 'log');
    const file = await open(path, { caching, access: 'read-write', create: true });
    const { log } = await recover(file);
    for (let sequence = 1; sequence <= 10; sequence++) await log.append(payload(sequence));
    await log.truncate();
    expect(await log.append(payload(11))).toBe(11);
    await file.close();
    const again = await open(path, { caching, access: 'read-write' });
    const found: number[] = [];
    await Log.open(again, (sequence) => found.push(sequence));
    expect(found).toEqual([11]);
    await again.close();
  });
});

describe('the log of the guide, on a disk of which the power fails', () => {
  const rounds = [1, 4, 2];

  /** Appends in rounds of several at once; `acknowledged` is told of each that is durable. */
  async function append(log: Log, from: number, life: number, acknowledged: (sequence: number) => void): Promise<void> {
    let sequence = from;
    for (const count of rounds) {
      await Promise.all(Array.from({ length: count }, () => log.append(payload(++sequence, life)).then(acknowledged)));
    }
  }

  function opened(disk: SimulatedDisk): { file: BlockFile; engine: SimulatedEngine } {
    const engine = disk.engine({ depth: 8, drive: 'manual' });
    return { file: openSimulated(disk, { access: 'read-write', cacheSize: 2 << 20, readAhead: false, engine }), engine };
  }

  /** Moves the disk until the promise has settled, or `steps` completions came; did it settle? */
  async function drive(engine: SimulatedEngine, promise: Promise<unknown>, steps = Number.POSITIVE_INFINITY): Promise<boolean> {
    let settled = false;
    const end = (): void => {
      settled = true;
    };
    promise.then(end, end);
    for (let taken = 0; !settled && taken < steps; ) {
      if ((await engine.step()) > 0) taken++;
      await new Promise((resolve) => setImmediate(resolve));
    }
    return settled;
  }

  it.each([
    ['file', 'keep'],
    ['block-device', 'keep'],
    ['file', 'drop'],
  ] as const)('keeps every record that it acknowledged, wherever it fails: a %s, unsynced bytes %s', async (kind, fate) => {
    const total = rounds.reduce((sum, count) => sum + count, 0);
    for (let cut = 0, over = false; !over; cut++) {
      const disk = new SimulatedDisk({ size: kind === 'file' ? 0 : 256 * 1024, kind, seed: cut, faults: { shortWrite: 0.1 } });
      let known = 0;
      // Twice: what the first life leaves behind must not pass for the second's.
      for (let life = 0; life < 2; life++) {
        const { file, engine } = opened(disk);
        const recovering = recover(file);
        await drive(engine, recovering);
        const { log, last } = await recovering;
        expect(last).toBeGreaterThanOrEqual(known);
        known = last;
        const appending = append(log, last, life, (sequence) => {
          known = Math.max(known, sequence);
        });
        const finished = await drive(engine, appending, cut);
        if (life === 0 && finished) {
          over = true;
          expect(known).toBe(total);
        }
        disk.powerCut({ drop: fate === 'drop' ? 'all' : 'some' });
        await drive(engine, file.close());
      }
      const { file, engine } = opened(disk);
      const recovering = recover(file);
      await drive(engine, recovering);
      expect((await recovering).last).toBeGreaterThanOrEqual(known);
      await drive(engine, file.close());
    }
  });

  it('fails as a whole when a write fails, and has all of it after the repair', async () => {
    const disk = new SimulatedDisk({ size: 0, seed: 7 });
    const { file, engine } = opened(disk);
    const recovering = recover(file);
    await drive(engine, recovering);
    const { log } = await recovering;
    const first = append(log, 0, 0, () => {});
    await drive(engine, first);
    await first;
    disk.plant('writeError', { times: 5 });
    const failing = log.append(payload(8));
    const behind = log.append(payload(9));
    const told = Promise.allSettled([failing, behind]);
    await drive(engine, told);
    expect((await told).map(({ status }) => status)).toEqual(['rejected', 'rejected']);
    await expect(log.append(payload(10))).rejects.toMatchObject({ code: 'ERR_SECTORWISE_FLUSH_FAILED' });
    disk.heal();
    const repairing = log.repair();
    await drive(engine, repairing);
    await repairing;
    const next = log.append(payload(10));
    await drive(engine, next);
    expect(await next).toBe(10);
    disk.powerCut({ drop: 'all' });
    await drive(engine, file.close());
    const again = opened(disk);
    const found = recover(again.file);
    await drive(again.engine, found);
    expect((await found).last).toBe(10);
    await drive(again.engine, again.file.close());
  });
});
