/** A file whose device, file system or end goes away under it: who is told what, and what is left. Over a simulated disk; real ones go away in the conformance tests. */
import { describe, expect, it } from 'vitest';
import type { BlockFile, FlushError, InvalidateReason } from '../../src/index.js';
import { openSimulated, SimulatedDisk, type SimulatedDiskOptions, type SimulatedEngine, type SimulatedOpenOptions } from '../../src/testing/index.js';
import { openSimulatedParts, type SimulatedParts } from '../../src/testing/open.js';
import { settled, turn } from '../rigs/moved-by-hand.js';

const BLOCK_BYTES = 4096;
const SIZE = 10 * BLOCK_BYTES + 100;

const withCode = (code: string): unknown => expect.objectContaining({ code });
const unplugged = withCode('ERR_SECTORWISE_UNPLUGGED');
const shutDown = withCode('ERR_SECTORWISE_SHUTDOWN');
const truncated = withCode('ERR_SECTORWISE_TRUNCATED');

interface Scene extends SimulatedParts {
  disk: SimulatedDisk;
  engine: SimulatedEngine;
  events: InvalidateReason[];
}

/** A file of ones on a disk that moves by hand. */
function scene(options: SimulatedOpenOptions = {}, disk: Partial<SimulatedDiskOptions> = {}): Scene {
  const simulated = new SimulatedDisk({ size: SIZE, seed: 1, ...disk });
  simulated.write(0, new Uint8Array(simulated.size).fill(1));
  const parts = openSimulatedParts(simulated, {
    access: 'read-write',
    cacheSize: 64 * BLOCK_BYTES,
    engine: simulated.engine({ depth: 8, drive: 'manual' }),
    ...options,
  });
  const events: InvalidateReason[] = [];
  parts.file.on('invalidate', (reason) => events.push(reason));
  return { ...parts, disk: simulated, events };
}

function rangesOf(error: unknown): [number, number][] {
  return (error as FlushError).ranges.map(({ offset, length }) => [offset, length]);
}

async function reason(promise: Promise<unknown>): Promise<unknown> {
  return promise.then(
    () => undefined,
    (error) => error,
  );
}

function everything(file: BlockFile): (() => unknown)[] {
  const bytes = new Uint8Array(10);
  return [
    () => file.tryRead(bytes, 0),
    () => file.tryWindow(0, 1),
    () => file.readSync(bytes, 0),
    () => file.writeSync(bytes, 0),
    () => file.resizeSync(1),
    () => file.residency(),
    () => file.windows(),
    () => file.batch(() => {}),
    () => file.read(bytes, 0),
    () => file.window(0, 1),
    () => file.write(bytes, 0),
    () => file.resize(1),
    () => file.allocate(0, 1),
    () => file.discard(0, 1),
    () => file.prefetch(0, 1),
    () => file.evict(0, 1),
    () => file.extents(),
  ];
}

async function allRefuse(file: BlockFile, code: string): Promise<void> {
  for (const call of everything(file)) {
    const problem = await reason((async () => call())());
    expect([call.toString(), (problem as { code?: string } | undefined)?.code]).toEqual([call.toString(), code]);
  }
}

describe('a disk that is unplugged', () => {
  it('fails who waits, at once, by name; tells listeners once, and not within the call', async () => {
    const { file, disk, events, ground } = scene();
    const reading = [file.read(new Uint8Array(100), 0), file.window(BLOCK_BYTES, 5000), file.window(0, 100, { writable: true })];
    await turn();
    const changing = [file.write(new Uint8Array(10), 5), file.resize(5), file.allocate(0, SIZE + 1), file.discard(0, 9000)];
    disk.unplug();
    expect(events).toEqual([]);
    for (const call of [...reading, ...changing]) await expect(call).rejects.toEqual(unplugged);
    await turn();
    expect(events).toEqual([{ cause: 'unplug', offset: 0, length: SIZE }]);
    expect([file.generation, file.stats.invalidations, ground.live]).toEqual([1, 1, 0]);
  });

  it('makes windows invalid at once, and their older views zeros once nothing is in flight', async () => {
    const parts = scene();
    const { file, disk, engine } = parts;
    const window = await settled(parts, file.window(100, 9000));
    const writable = await settled(parts, file.window(20_000, 100, { writable: true }));
    const view = window.bytes;
    const reading = file.read(new Uint8Array(10), 8 * BLOCK_BYTES);
    await turn();
    expect(disk.inFlight).toBeGreaterThan(0);
    disk.unplug();
    expect([window.valid, writable.valid]).toEqual([false, false]);
    expect(() => window.bytes).toThrow(unplugged as Error);
    expect(() => window.check()).toThrow(unplugged as Error);
    expect(() => writable.markDirty()).toThrow(unplugged as Error);
    await expect(reading).rejects.toEqual(unplugged);
    expect(view.every((byte) => byte === 1)).toBe(true);
    await engine.run();
    expect(view.every((byte) => byte === 0)).toBe(true);
    window.retain().release();
    window.release();
    writable.release();
    expect(window.valid).toBe(false);
  });

  it('gives its engine up when the last operation came back, although nobody closed the file', async () => {
    const { file, disk, engine, frames, manager } = scene();
    let closed = 0;
    const close = engine.close.bind(engine);
    engine.close = () => {
      closed++;
      close();
    };
    const reading = reason(file.read(new Uint8Array(3 * BLOCK_BYTES), 0));
    await turn();
    disk.unplug('EIO');
    await reading;
    expect([closed, frames.census().pinned]).toEqual([0, 0]);
    await engine.run();
    expect(closed).toBe(1);
    expect([manager.operations.count, frames.census().busy, disk.violations.length]).toEqual([0, 0, 0]);
    await file.close();
    expect(closed).toBe(1);
  });

  it('refuses every call from then on, before and after the file is closed', async () => {
    const { file, disk } = scene();
    disk.unplug();
    await allRefuse(file, 'ERR_SECTORWISE_UNPLUGGED');
    await turn();
    await allRefuse(file, 'ERR_SECTORWISE_UNPLUGGED');
    await file.close();
    await allRefuse(file, 'ERR_SECTORWISE_CLOSED');
    expect(() => file.acknowledgeLoss()).toThrow(withCode('ERR_SECTORWISE_CLOSED') as Error);
  });

  it('names what was accepted and is not durable, and nothing else: written, in flight, marked, waiting in the queue', async () => {
    const parts = scene();
    const { file, disk } = parts;
    await settled(parts, file.write(new Uint8Array(512).fill(2), 0));
    await settled(parts, file.flush());
    await settled(parts, file.write(new Uint8Array(1024).fill(3), BLOCK_BYTES));
    const window = await settled(parts, file.window(2 * BLOCK_BYTES, 512, { writable: true }));
    window.markDirty(0, 10);
    window.release();
    const flushing = file.flush();
    await turn();
    expect(disk.inFlight).toBeGreaterThan(0);
    const waiting = file.write(new Uint8Array(100), 5 * BLOCK_BYTES);
    const growing = file.resize(SIZE + 50);
    disk.unplug();
    const problem = await reason(flushing);
    expect(problem).toMatchObject({ code: 'ERR_SECTORWISE_FLUSH_FAILED', cause: { code: 'ERR_SECTORWISE_UNPLUGGED' } });
    const named: [number, number][] = [
      [BLOCK_BYTES, 1024],
      [2 * BLOCK_BYTES, 512],
      [5 * BLOCK_BYTES, 100],
      [SIZE, 50],
    ];
    expect(rangesOf(problem)).toEqual(named);
    for (const call of [waiting, growing]) await expect(call).rejects.toEqual(unplugged);
    expect(rangesOf(await reason(file.flush()))).toEqual(named);
    expect(() => file.flushSync()).toThrow(withCode('ERR_SECTORWISE_FLUSH_FAILED') as Error);
    await parts.engine.run();
    const closing = await reason(file.close());
    expect(rangesOf(closing)).toEqual(named);
  });

  it('names a size, a hole and an allocation that no flush made durable', async () => {
    const parts = scene();
    const { file, disk } = parts;
    await settled(parts, file.flush());
    await settled(parts, file.resize(SIZE + 1000));
    await settled(parts, file.discard(100, 200));
    await settled(parts, file.allocate(2000, 50));
    disk.unplug();
    expect(rangesOf(await reason(file.close()))).toEqual([
      [100, 200],
      [2000, 50],
      [SIZE, 1000],
    ]);
  });

  it('has lost nothing where all was flushed: flush and close resolve', async () => {
    const parts = scene();
    const { file, disk } = parts;
    await settled(parts, file.write(new Uint8Array(512).fill(2), 0));
    await settled(parts, file.flush());
    disk.unplug();
    await file.flush();
    file.flushSync();
    expect(file.acknowledgeLoss()).toEqual([]);
    await file.close();
  });

  it('forgets what is acknowledged: flush and close resolve then', async () => {
    const parts = scene();
    const { file, disk } = parts;
    await settled(parts, file.write(new Uint8Array(512).fill(2), 512));
    disk.unplug();
    expect(file.acknowledgeLoss()).toEqual([{ offset: 512, length: 512, error: unplugged }]);
    await file.flush();
    file.closeSync();
    await file.close();
  });

  it('closes in the blocking way too, and says what was lost', async () => {
    const parts = scene();
    await settled(parts, parts.file.write(new Uint8Array(512).fill(2), 512));
    const reading = reason(parts.file.read(new Uint8Array(10), 9 * BLOCK_BYTES));
    await turn();
    parts.disk.unplug();
    let problem: unknown;
    try {
      parts.file.closeSync();
    } catch (error) {
      problem = error;
    }
    expect(rangesOf(problem)).toEqual([[512, 512]]);
    expect(await reading).toEqual(unplugged);
    expect(await reason(parts.file.close())).toBe(problem);
  });

  it('that goes while the file is being closed ends the close, with what was lost', async () => {
    const parts = scene();
    const { file, disk, engine, events } = parts;
    await settled(parts, file.write(new Uint8Array(512).fill(2), 512));
    const closing = file.close();
    await turn();
    disk.unplug();
    expect(rangesOf(await settled(parts, reason(closing)))).toEqual([[512, 512]]);
    await engine.run();
    expect(events).toEqual([{ cause: 'unplug', offset: 0, length: SIZE }]);
  });

  it('ends a blocking call that it goes under, and what that call waited for', async () => {
    for (const call of ['readSync', 'writeSync', 'resizeSync'] as const) {
      const { file, disk } = scene();
      const before = reason(file.write(new Uint8Array(BLOCK_BYTES + 1), 100));
      disk.unplugAt(disk.now + 10);
      expect(() => (call === 'resizeSync' ? file.resizeSync(10) : file[call](new Uint8Array(10), 5 * BLOCK_BYTES))).toThrow(unplugged as Error);
      expect(await before).toEqual(unplugged);
      await turn();
    }
  });

  it('ends a batch and a loop over windows that wait, and an abort afterwards changes nothing', async () => {
    const parts = scene({ readAhead: { max: 0 } });
    const { file, disk, ground } = parts;
    const controller = new AbortController();
    const errors: unknown[] = [];
    const batch = file.batch<number>(
      () => {},
      (error) => errors.push(error),
      { signal: controller.signal },
    );
    for (let i = 0; i < 4; i++) batch.get(i * BLOCK_BYTES, 10, i);
    const looping = reason(
      (async () => {
        for await (const window of file.windows({ step: BLOCK_BYTES })) window.check();
      })(),
    );
    const read = reason(file.read(new Uint8Array(10), 8 * BLOCK_BYTES, { signal: controller.signal }));
    await turn();
    disk.unplug();
    await turn();
    controller.abort();
    expect(await batch.end()).toEqual({ immediate: 0, delayed: 0, failed: 4 });
    expect(errors).toEqual([unplugged, unplugged, unplugged, unplugged]);
    expect(await looping).toEqual(unplugged);
    expect(await read).toEqual(unplugged);
    await parts.engine.run();
    expect(ground.live).toBe(0);
  });

  it('does not answer who waited behind a change with what memory held', async () => {
    const parts = scene();
    const { file, disk } = parts;
    await settled(parts, file.prefetch(0, SIZE));
    const resizing = reason(file.resize(SIZE - 10));
    const target = new Uint8Array(20).fill(9);
    const waiting = [file.read(target, SIZE - 20), file.window(SIZE - 20, 20), file.read(new Uint8Array(5), SIZE + 5), file.window(SIZE + 5, 5)];
    await turn();
    disk.unplug();
    for (const call of waiting) await expect(call).rejects.toEqual(unplugged);
    expect(await resizing).toEqual(unplugged);
    expect(target.every((byte) => byte === 9)).toBe(true);
  });

  it('can be opened again when it is back: a file of its own, while the old one stays dead', async () => {
    const parts = scene();
    const { disk, file } = parts;
    const window = await settled(parts, file.window(0, 100));
    disk.unplug();
    await turn();
    disk.replug();
    disk.write(0, new Uint8Array(100).fill(7));
    const again = openSimulated(disk, { access: 'read-write' });
    expect(again.generation).toBe(0);
    const target = new Uint8Array(100);
    expect(await again.read(target, 0)).toBe(100);
    expect(target.every((byte) => byte === 7)).toBe(true);
    await again.write(new Uint8Array(10), 0);
    await again.close();
    expect(window.valid).toBe(false);
    await allRefuse(file, 'ERR_SECTORWISE_UNPLUGGED');
    window.release();
    await file.close();
  });
});

describe('a file system that is shut down', () => {
  it('fails everything with its own error and cause', async () => {
    const { file, disk, events } = scene();
    const reading = file.read(new Uint8Array(10), 0);
    disk.shutdown();
    await expect(reading).rejects.toEqual(shutDown);
    await turn();
    expect(events).toEqual([{ cause: 'shutdown', offset: 0, length: SIZE }]);
    await allRefuse(file, 'ERR_SECTORWISE_SHUTDOWN');
    disk.unplug();
    await turn();
    expect(events.length).toBe(1);
    await file.close();
  });
});

describe('a loss that no event tells of', () => {
  for (const answer of ['ENODEV', 'EIO', 'end-of-file'] as const) {
    for (const notice of ['error', 'late'] as const) {
      it(`is found out by an operation that ends with ${answer}, ${notice === 'late' ? 'some turns later' : 'at once'}`, async () => {
        const parts = scene({ notice });
        const { file, disk, events } = parts;
        const held = await settled(parts, file.window(0, 10));
        disk.unplug(answer);
        expect(held.valid).toBe(true);
        expect(await settled(parts, reason(file.read(new Uint8Array(5000), 3 * BLOCK_BYTES)))).toEqual(unplugged);
        expect(held.valid).toBe(false);
        expect(events).toEqual([{ cause: 'unplug', offset: 0, length: SIZE }]);
        held.release();
        await file.close();
      });
    }
  }

  it('fails a flush in the same way as one that is told of', async () => {
    for (const notice of ['error', 'late'] as const) {
      const parts = scene({ notice });
      await settled(parts, parts.file.write(new Uint8Array(512).fill(2), 512));
      parts.disk.unplug();
      const problem = await settled(parts, reason(parts.file.flush()));
      expect(problem).toMatchObject({ code: 'ERR_SECTORWISE_FLUSH_FAILED', cause: { code: 'ERR_SECTORWISE_UNPLUGGED' } });
      expect(rangesOf(problem)).toEqual([[512, 512]]);
    }
  });
});

describe('a file that others cut', () => {
  it('tells who waits for bytes that are gone, keeps windows before the cut, and goes on', async () => {
    const parts = scene();
    const { file, disk, events } = parts;
    const end = 5 * BLOCK_BYTES + 50;
    const [before, across] = [await settled(parts, file.window(100, 5 * BLOCK_BYTES - 50)), await settled(parts, file.window(5 * BLOCK_BYTES, 51))];
    const view = across.bytes;
    const waiting = [file.window(8 * BLOCK_BYTES, 10), file.window(7 * BLOCK_BYTES, 10, { writable: true }), file.read(new Uint8Array(SIZE), 0)].map(reason);
    const within = file.read(new Uint8Array(10), 9);
    await turn();
    disk.resize(end);
    expect([before.valid, across.valid]).toEqual([true, false]);
    expect(() => across.bytes).toThrow(truncated as Error);
    for (const call of waiting) expect(await settled(parts, call)).toEqual(truncated);
    expect(await settled(parts, within)).toBe(10);
    expect(events).toEqual([{ cause: 'truncate', offset: end, length: SIZE - end }]);
    expect([file.size, file.generation, file.stats.invalidations]).toEqual([end, 1, 1]);
    expect(before.bytes.every((byte) => byte === 1)).toBe(true);
    const short = await settled(parts, file.window(5 * BLOCK_BYTES, 100));
    expect(short.length).toBe(50);
    expect([...view.subarray(50)]).toEqual([0]);
    for (const window of [before, across, short]) window.release();
    disk.resize(SIZE);
    expect(await settled(parts, file.read(new Uint8Array(100), end))).toBe(100);
    expect(file.size).toBe(SIZE);
    await settled(parts, file.close());
  });

  it('is longer again by what was written behind the cut and not flushed; the rest of what was cut off reads as zeros, also where it was in memory', async () => {
    const parts = scene();
    const { file, disk, events } = parts;
    await settled(parts, file.prefetch(0, SIZE));
    const held = await settled(parts, file.window(3 * BLOCK_BYTES, 10));
    await settled(parts, file.write(new Uint8Array(512).fill(5), 6 * BLOCK_BYTES));
    disk.resize(2 * BLOCK_BYTES + 50);
    const end = 6 * BLOCK_BYTES + 512;
    expect(file.size).toBe(end);
    await turn();
    expect(events).toEqual([{ cause: 'truncate', offset: end, length: SIZE - end }]);
    expect([held.valid, ...held.bytes]).toEqual([true, ...new Array(10).fill(0)]);
    const bytes = new Uint8Array(SIZE);
    expect(await settled(parts, file.read(bytes, 0))).toBe(end);
    const expected = new Uint8Array(end).fill(1, 0, 2 * BLOCK_BYTES + 50).fill(5, 6 * BLOCK_BYTES);
    expect(bytes.subarray(0, end)).toEqual(expected);
    await settled(parts, file.flush());
    expect(disk.read(0, SIZE)).toEqual(expected);
    held.release();
    await settled(parts, file.close());
  });

  it('reads what others cut off of a device’s sector as zeros, and never comes in again under a window that is still good', async () => {
    const parts = scene({}, { sectorSize: 4096, size: 6 * BLOCK_BYTES });
    const { file, disk } = parts;
    await settled(parts, file.prefetch(0, 6 * BLOCK_BYTES));
    await settled(parts, file.write(new Uint8Array(10).fill(5), 5 * BLOCK_BYTES));
    disk.resize(3 * BLOCK_BYTES + 1000);
    const window = file.tryWindow(3 * BLOCK_BYTES, 1000);
    const view = window?.bytes;
    const reading = file.read(new Uint8Array(2 * BLOCK_BYTES), 3 * BLOCK_BYTES);
    await turn();
    expect(view?.every((byte) => byte === 1)).toBe(true);
    await settled(parts, reading);
    expect([...(file.tryWindow(3 * BLOCK_BYTES + 999, 3)?.bytes ?? [])]).toEqual([1, 0, 0]);
    expect(view?.every((byte) => byte === 1)).toBe(true);
    window?.release();
    await settled(parts, file.close());
  });

  it('keeps what was on its way to the device when others cut it, whether that landed before or after', async () => {
    const kept = [];
    for (let seed = 1; seed <= 20; seed++) {
      const parts = scene({}, { seed });
      const { file, disk } = parts;
      await settled(parts, file.write(new Uint8Array(512).fill(5), 8 * BLOCK_BYTES));
      const window = await settled(parts, file.window(8 * BLOCK_BYTES, 512));
      const flushing = file.flush();
      await turn();
      expect(disk.inFlight).toBe(1);
      disk.resize(2 * BLOCK_BYTES);
      await settled(parts, flushing);
      const end = 8 * BLOCK_BYTES + 512;
      expect([window.valid, file.size, ...window.bytes.subarray(0, 2)]).toEqual([true, end, 5, 5]);
      window.release();
      await settled(parts, file.flush());
      expect(disk.size).toBe(end);
      kept.push(disk.snapshot('durable').read(8 * BLOCK_BYTES, 512)[0]);
      await settled(parts, file.close());
    }
    expect(kept).toEqual(new Array(20).fill(5));
  });

  it('loses the nearest of several ends, also where it grew again before that could be looked at', async () => {
    const parts = scene();
    const { file, disk } = parts;
    await settled(parts, file.prefetch(0, SIZE));
    const window = await settled(parts, file.window(5 * BLOCK_BYTES, 10));
    const flushing = file.flush();
    await turn();
    disk.resize(BLOCK_BYTES);
    disk.resize(SIZE);
    await settled(parts, flushing);
    expect(window.valid).toBe(false);
    const bytes = new Uint8Array(SIZE);
    expect(await settled(parts, file.read(bytes, 0))).toBe(SIZE);
    expect(bytes).toEqual(new Uint8Array(SIZE).fill(1, 0, BLOCK_BYTES));
    window.release();
    await settled(parts, file.close());
  });

  it('finds that out by a short read where no event tells of it', async () => {
    const parts = scene({ notice: 'error' });
    const { file, disk, events } = parts;
    const held = await settled(parts, file.window(4 * BLOCK_BYTES, 10));
    disk.resize(BLOCK_BYTES);
    expect(held.valid).toBe(true);
    expect(await settled(parts, reason(file.read(new Uint8Array(10), 8 * BLOCK_BYTES)))).toEqual(truncated);
    expect([held.valid, file.size]).toEqual([false, BLOCK_BYTES]);
    expect(events).toEqual([{ cause: 'truncate', offset: BLOCK_BYTES, length: SIZE - BLOCK_BYTES }]);
    held.release();
    await settled(parts, file.close());
  });

  it('does not take a write of its own that has not landed yet for a cut', async () => {
    const parts = scene({ notice: 'error' });
    const { file, disk, events } = parts;
    await settled(parts, file.write(new Uint8Array(3000).fill(4), SIZE));
    disk.plant('again', { times: 20 });
    const flushing = file.flush();
    await turn();
    expect(await settled(parts, file.read(new Uint8Array(10), SIZE + 5000))).toBe(0);
    await settled(parts, flushing);
    expect([file.size, disk.size, events]).toEqual([SIZE + 3000, SIZE + 3000, []]);
    await settled(parts, file.close());
  });

  it('names what was to be written behind the end of a device that became smaller', async () => {
    const parts = scene({}, { kind: 'block-device', size: 10 * BLOCK_BYTES });
    const { file, disk } = parts;
    await settled(parts, file.write(new Uint8Array(512).fill(2), 512));
    await settled(parts, file.write(new Uint8Array(1024).fill(3), 8 * BLOCK_BYTES));
    disk.resize(4 * BLOCK_BYTES);
    expect(file.size).toBe(4 * BLOCK_BYTES);
    const problem = await settled(parts, reason(file.flush()));
    expect(problem).toMatchObject({ code: 'ERR_SECTORWISE_FLUSH_FAILED', cause: { code: 'ERR_SECTORWISE_TRUNCATED' } });
    expect(rangesOf(problem)).toEqual([[8 * BLOCK_BYTES, 1024]]);
    file.acknowledgeLoss();
    await settled(parts, file.close());
    expect(disk.read(512, 1)).toEqual(new Uint8Array([2]));
  });

  it('keeps its size when the end of it was given up: the next flush sets it', async () => {
    const parts = scene();
    const { file, disk } = parts;
    await settled(parts, file.write(new Uint8Array(3 * BLOCK_BYTES).fill(4), SIZE));
    disk.plant('writeError', { times: 64 });
    await reason(settled(parts, file.flush()));
    disk.heal();
    file.acknowledgeLoss();
    await settled(parts, file.flush());
    expect([file.size, disk.size]).toEqual([SIZE + 3 * BLOCK_BYTES, SIZE + 3 * BLOCK_BYTES]);
    await settled(parts, file.close());
  });
});
