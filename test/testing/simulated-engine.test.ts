/** The ring of the simulated engine: memory layout, wake-ups, time, and the rules that it watches. */
import { readFileSync } from 'node:fs';
import { constants } from 'node:os';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import * as testing from '../../src/testing/index.js';
import {
  CONTROL_ARMED,
  createHeapSlab,
  ENTRY_WORDS,
  FLAG_ASYNC,
  FLAG_DURABLE,
  OP_EVICT,
  OP_READ,
  OP_SYNC,
  OP_WRITE,
  Random,
  SimulatedDisk,
  type SimulatedDiskOptions,
} from '../../src/testing/index.js';
import { ModelFile } from '../simulation/model-file.js';
import { RingDriver } from './ring-driver.js';

const { EINVAL, ENOSPC, EOPNOTSUPP } = constants.errno;

function make(options: Partial<SimulatedDiskOptions> = {}, drive: 'automatic' | 'manual' = 'manual'): { disk: SimulatedDisk; ring: RingDriver } {
  const disk = new SimulatedDisk({ size: 64 * 1024, log: 32, ...options });
  return { disk, ring: new RingDriver(disk, { drive }) };
}

describe('a disk without faults', () => {
  const sectors = 64;
  const step = fc.oneof(
    fc.record({
      what: fc.constant('write' as const),
      sector: fc.nat(sectors),
      count: fc.integer({ min: 1, max: 20 }),
      value: fc.integer({ min: 1, max: 255 }),
    }),
    fc.record({ what: fc.constant('read' as const), sector: fc.nat(sectors), count: fc.integer({ min: 1, max: 20 }), value: fc.constant(0) }),
    fc.record({ what: fc.constant('truncate' as const), sector: fc.nat(sectors), count: fc.constant(0), value: fc.nat(511) }),
    fc.record({ what: fc.constant('allocate' as const), sector: fc.nat(sectors), count: fc.integer({ min: 1, max: 20 }), value: fc.nat(511) }),
    fc.record({ what: fc.constant('discard' as const), sector: fc.nat(sectors), count: fc.integer({ min: 1, max: 20 }), value: fc.nat(511) }),
    fc.record({ what: fc.constant('sync' as const), sector: fc.constant(0), count: fc.constant(0), value: fc.constant(0) }),
  );

  it('equals the model after any sequence of operations on a file, and what was synced survives any power cut', () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 60 }), fc.nat(100_000), fc.nat(20_000), (steps, seed, size) => {
        const disk = new SimulatedDisk({ size, seed });
        const ring = new RingDriver(disk);
        const model = new ModelFile(size);
        for (const { what, sector, count, value } of steps) {
          const offset = sector * 512;
          const length = count * 512;
          if (what === 'write') {
            const bytes = new Random(seed, value).fill(new Uint8Array(length));
            ring.memory.set(bytes);
            expect(ring.write(offset, length)).toBe(model.write(offset, bytes));
          } else if (what === 'read') {
            const result = ring.read(offset, length);
            expect(model.firstDifference(offset, length, ring.memory.subarray(0, result))).toBeUndefined();
          } else if (what === 'truncate') {
            expect(ring.truncate(offset + value)).toBe(0);
            model.truncate(offset + value);
          } else if (what === 'allocate') {
            expect(ring.allocate(offset + value, length)).toBe(0);
            model.allocate(offset + value, length);
          } else if (what === 'discard') {
            expect(ring.discard(offset + value, length)).toBe(0);
            model.discard(offset + value, length);
          } else {
            expect(ring.sync()).toBe(0);
            model.flush();
          }
          expect(disk.size).toBe(model.size);
        }
        expect(model.firstDifference(0, model.size, disk.read(0, disk.size))).toBeUndefined();
        expect(Buffer.compare(disk.snapshot('durable').read(0, 1e6), model.durable)).toBe(0);
        disk.powerCut({ drop: 'all' });
        expect(Buffer.compare(disk.read(0, 1e6), model.durable)).toBe(0);
        expect(disk.violations).toEqual([]);
      }),
      { numRuns: 300 },
    );
  });

  it('equals the model on a device, whose end does not move', () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 60 }), fc.nat(100_000), fc.constantFrom(512 as const, 4096 as const), (steps, seed, sectorSize) => {
        const size = 8 * 4096;
        const disk = new SimulatedDisk({ size, seed, sectorSize, kind: 'block-device' });
        const ring = new RingDriver(disk);
        const model = new ModelFile(size, 'block-device');
        for (const { what, sector, count, value } of steps) {
          const offset = sector * sectorSize;
          const length = count * sectorSize;
          if (what === 'write') {
            const bytes = new Uint8Array(length).fill(value);
            const result = ring.write(offset, length, value);
            const taken = model.write(offset, bytes);
            expect(result).toBe(taken === 0 ? -ENOSPC : taken);
          } else if (what === 'read') {
            const result = ring.read(offset, length);
            expect(model.firstDifference(offset, length, ring.memory.subarray(0, result))).toBeUndefined();
          } else if (what === 'truncate') {
            expect(ring.truncate(offset)).toBe(-EINVAL);
          } else if (what === 'allocate') {
            expect(ring.allocate(offset, length)).toBe(-EOPNOTSUPP);
          } else if (what === 'discard') {
            const fits = offset + length <= size;
            expect(ring.discard(offset, length)).toBe(fits ? 0 : -EINVAL);
            if (fits) model.discard(offset, length);
          } else {
            expect(ring.sync()).toBe(0);
          }
          expect(disk.size).toBe(size);
        }
        expect(model.firstDifference(0, size, disk.read(0, size))).toBeUndefined();
      }),
      { numRuns: 200 },
    );
  });

  it('holds a terabyte without holding it in memory', () => {
    const size = 2 ** 40;
    const { disk, ring } = make({ size, kind: 'block-device' });
    expect(ring.write(size - 512, 512, 9)).toBe(512);
    expect(ring.read(size - 4096, 4096)).toBe(4096);
    expect([ring.memory[0], ring.memory[4095]]).toEqual([0, 9]);
    expect(ring.discard(0, size)).toBe(0);
    expect(disk.snapshot().size).toBe(size);
  });

  it('reads the odd end of a file short, and nothing after it', () => {
    const { ring } = make({ size: 1000 });
    expect(ring.read(0, 4096)).toBe(1000);
    expect(ring.read(512, 512)).toBe(488);
    expect(ring.read(1024, 512)).toBe(0);
    expect(ring.read(0, 0)).toBe(0);
  });

  it('direct access bypasses what is not durable, and stays', () => {
    const { disk, ring } = make({ size: 1024 });
    ring.write(0, 512, 1);
    disk.write(100, new Uint8Array(1000).fill(2));
    expect(disk.size).toBe(1100);
    disk.powerCut({ drop: 'all' });
    expect([disk.read(99, 1)[0], disk.read(100, 1)[0], disk.read(1099, 5).length]).toEqual([0, 2, 1]);
    disk.resize(50);
    expect(disk.read(0, 4096).length).toBe(50);
  });
});

describe('each entry completes exactly once', () => {
  it('makes durable what a durable write wrote, the end that it moved too, and nothing else', () => {
    const { disk, ring } = make({ size: 4096 });
    ring.write(0, 512, 1);
    ring.memory.fill(2);
    expect(ring.finish(ring.queue(OP_WRITE | FLAG_DURABLE, 4096, 1024))).toBe(1024);
    ring.write(8192, 512, 3);
    expect([disk.unsyncedSectors, disk.snapshot('durable').size]).toEqual([2, 5120]);
    disk.powerCut({ drop: 'all' });
    expect([disk.size, disk.read(0, 1)[0], disk.read(4096, 1)[0], disk.read(5119, 1)[0]]).toEqual([5120, 0, 2, 2]);
  });

  it('with any depth, latency, reordering and honest faults, however it is driven', async () => {
    const entries = fc.array(
      fc.record({ code: fc.constantFrom(OP_READ, OP_WRITE, OP_SYNC, OP_EVICT), sector: fc.nat(100), count: fc.integer({ min: 0, max: 8 }) }),
      { maxLength: 80 },
    );
    await fc.assert(
      fc.asyncProperty(
        entries,
        fc.nat(1e9),
        fc.boolean(),
        fc.integer({ min: 0, max: 50 }),
        fc.integer({ min: 1, max: 12 }),
        async (list, seed, reorder, max, batch) => {
          const rate = 0.1;
          const faults = {
            again: rate,
            interrupted: rate,
            noMemory: rate,
            readError: rate,
            writeError: rate,
            tornWrite: rate,
            shortRead: rate,
            shortWrite: rate,
            slow: rate,
          };
          const disk = new SimulatedDisk({ size: 32 * 1024, seed, reorder, latency: { min: 0, max }, faults });
          const ring = new RingDriver(disk, { depth: batch });
          const handles: number[] = [];
          for (let start = 0; start < list.length; start += batch) {
            list.slice(start, start + batch).forEach(({ code, sector, count }, index) => {
              handles.push(ring.queue(code, sector * 512, code === OP_READ || code === OP_WRITE ? count * 512 : 0, index * 4096));
            });
            ring.submit();
            while (ring.engine.inFlight > 0) {
              if (batch % 2 === 0) await ring.engine.step();
              else ring.engine.wait();
              ring.take();
            }
            ring.engine.collect();
            ring.take();
          }
          expect(ring.completions.map(({ handle }) => handle).sort((left, right) => left - right)).toEqual(handles);
          if (!reorder) expect(ring.completions.map(({ handle }) => handle)).toEqual(handles);
          expect(disk.inFlight).toBe(0);
        },
      ),
      { numRuns: 150 },
    );
  });

  it('reorders where it may', () => {
    const orders = new Set<string>();
    for (let seed = 0; seed < 20; seed++) {
      const { ring } = make({ seed });
      const handles = Array.from({ length: 6 }, (_, index) => ring.queue(OP_READ, index * 512, 512, index * 512));
      for (const handle of handles) ring.finish(handle);
      orders.add(ring.completions.map(({ handle }) => handle).join());
    }
    expect(orders.size).toBeGreaterThan(10);
  });

  it('holds completions back while the queue is full, and loses none', () => {
    const disk = new SimulatedDisk({ size: 4096 });
    const ring = new RingDriver(disk, { depth: 4 });
    const other = new RingDriver(disk);
    expect(ring.engine.queues[0].mask).toBe(7);
    for (let round = 0; round < 3; round++) {
      for (let index = 0; index < 4; index++) ring.queue(OP_READ, 0, 512, index * 512);
      ring.submit();
      // Time moves by what another engine waits for, so that nobody takes anything from this one's queue.
      while (ring.engine.inFlight > 0) other.read(0, 512);
    }
    expect(ring.take()).toHaveLength(8);
    ring.engine.collect();
    expect(ring.take()).toHaveLength(4);
  });
});

describe('determinism', () => {
  const rates = {
    shortRead: 0.2,
    tornWrite: 0.1,
    silentTornWrite: 0.1,
    misdirectedWrite: 0.1,
    corruptedWrite: 0.1,
    again: 0.1,
    syncError: 0.2,
    slow: 0.1,
    duplicateCompletion: 0.1,
    strayCompletion: 0.1,
  };

  async function history(seed: number): Promise<string> {
    const disk = new SimulatedDisk({ size: 64 * 1024, seed, faults: rates, log: 10_000 });
    const ring = new RingDriver(disk);
    const plan = new Random(99);
    for (let round = 0; round < 30; round++) {
      for (let index = 0; index < 8; index++) ring.queue(plan.below(2) === 0 ? OP_READ : OP_WRITE, plan.below(100) * 512, 4096, index * 4096);
      ring.queue(OP_SYNC, 0, 0);
      ring.submit();
      await ring.engine.run();
      ring.take();
    }
    disk.powerCut();
    return JSON.stringify([ring.completions, disk.log, disk.counts, [...disk.read(0, disk.size)]]);
  }

  it('the same seed and submissions give the same completions, events, counts and bytes', async () => {
    expect(await history(5)).toBe(await history(5));
    expect(await history(5)).not.toBe(await history(6));
  });

  it('a random sequence is the same everywhere, and streams differ', () => {
    const first = new Random(1);
    expect([first.next(), first.next(), first.next()]).toEqual(
      Array.from(
        { length: 3 },
        (
          (repeat) => () =>
            repeat.next()
        )(new Random(1)),
      ),
    );
    expect(new Random(1, 1).next()).not.toBe(new Random(1, 2).next());
    expect(new Random(1).next()).not.toBe(new Random(2 ** 32 + 1).next());
    const random = new Random(4);
    const draws = Array.from({ length: 6000 }, () => random.between(2, 7));
    for (let value = 2; value <= 7; value++) expect(draws.filter((draw) => draw === value).length).toBeGreaterThan(800);
    expect(Math.max(...draws)).toBe(7);
    expect(random.below(1)).toBe(0);
  });
});

describe('wake-ups', () => {
  it('an automatic engine wakes its listener, runs microtasks, then onSettled, until nothing is in flight', async () => {
    const { ring } = make({}, 'automatic');
    const events: string[] = [];
    let rounds = 0;
    await new Promise<void>((resolve) => {
      ring.engine.ref();
      ring.engine.listen(
        () => {
          events.push('wake');
          ring.take();
          Promise.resolve()
            .then(() => Promise.resolve())
            .then(() => events.push('microtask'));
          process.nextTick(() => events.push('tick'));
        },
        () => {
          events.push('settled');
          rounds++;
          if (rounds < 3) {
            ring.queue(OP_READ, 0, 512);
            ring.submit();
          } else {
            resolve();
          }
        },
      );
      ring.queue(OP_READ, 0, 512);
      ring.submit();
      expect(events).toEqual([]);
    });
    expect(events).toEqual(Array.from({ length: 3 }, () => ['wake', 'tick', 'microtask', 'settled']).flat());
  });

  it('nobody is woken unless armed', async () => {
    const { ring } = make();
    let woken = 0;
    ring.engine.listen(
      () => woken++,
      () => {},
    );
    ring.engine.control[CONTROL_ARMED] = 0;
    ring.queue(OP_READ, 0, 512);
    ring.submit();
    expect(await ring.engine.run()).toBe(1);
    expect(woken).toBe(0);
    expect(ring.take()).toHaveLength(1);
    ring.engine.control[CONTROL_ARMED] = 1;
    ring.queue(OP_READ, 0, 512);
    ring.submit();
    await ring.engine.run();
    expect(woken).toBe(1);
  });

  it('wait moves time and calls nobody back; a wake-up comes from the event loop only for what is left unread', async () => {
    for (const unread of [0, 1]) {
      const { ring } = make({}, 'automatic');
      let woken = 0;
      ring.engine.listen(
        () => woken++,
        () => {},
      );
      ring.queue(OP_READ, 0, 512);
      ring.submit();
      ring.engine.wait();
      expect(woken).toBe(0);
      if (unread === 0) expect(ring.take()).toHaveLength(1);
      await new Promise((resolve) => setTimeout(resolve, 1));
      expect(woken).toBe(unread);
      expect(ring.engine.control[CONTROL_ARMED]).toBe(1 - unread);
    }
  });

  it('a wake-up uses up the arming: whoever does not arm again is not woken again', async () => {
    const { ring } = make();
    let woken = 0;
    ring.engine.listen(
      () => woken++,
      () => {},
    );
    for (let round = 0; round < 3; round++) {
      ring.queue(OP_READ, 0, 512);
      ring.submit();
      await ring.engine.run();
    }
    expect(woken).toBe(1);
  });

  it('keeps the event loop alive while referenced, and not otherwise', async () => {
    const immediates = (): number => process.getActiveResourcesInfo().filter((name) => name === 'Immediate').length;
    const { ring } = make({}, 'automatic');
    const before = immediates();
    const settled = new Promise<void>((resolve) => ring.engine.listen(() => ring.take(), resolve));
    ring.queue(OP_READ, 0, 512);
    ring.submit();
    expect(immediates()).toBe(before);
    ring.engine.ref();
    expect(immediates()).toBeGreaterThan(before);
    ring.engine.unref();
    expect(immediates()).toBe(before);
    ring.engine.ref();
    await settled;
    expect(immediates()).toBe(before);
  });

  it('a violation seen while the engine drives itself is thrown into the event loop, and the engine goes on', async () => {
    const listeners = process.listeners('uncaughtException');
    process.removeAllListeners('uncaughtException');
    try {
      const thrown = new Promise<Error>((resolve) => process.once('uncaughtException', resolve));
      const { ring } = make({}, 'automatic');
      ring.engine.ref();
      const settled = new Promise<void>((resolve) => ring.engine.listen(() => ring.take(), resolve));
      const handle = ring.queue(OP_WRITE, 0, 512);
      ring.submit();
      ring.memory[0] = 1;
      expect(await thrown).toMatchObject({ kind: 'unstable-write', handle });
      await settled;
      expect(ring.completions).toEqual([{ handle, result: 512 }]);
    } finally {
      for (const listener of listeners) process.on('uncaughtException', listener);
    }
  });

  it('waiting for nothing throws instead of hanging', () => {
    expect(() => make().ring.engine.wait()).toThrow(expect.objectContaining({ code: 'ERR_SECTORWISE_SIMULATION' }));
  });

  it('an automatic engine refuses to be stepped', async () => {
    await expect(make({}, 'automatic').ring.engine.step()).rejects.toMatchObject({ code: 'ERR_SECTORWISE_SIMULATION' });
  });

  it('step delivers batches of several sizes, and at least one completion each time', async () => {
    const sizes: number[] = [];
    for (let seed = 0; seed < 10; seed++) {
      const { ring } = make({ seed });
      for (let index = 0; index < 16; index++) ring.queue(OP_READ, 0, 512, index * 512);
      ring.submit();
      while (ring.engine.inFlight > 0) {
        sizes.push(await ring.engine.step());
        ring.take();
      }
      expect(await ring.engine.step()).toBe(0);
    }
    expect(Math.min(...sizes)).toBe(1);
    expect(Math.max(...sizes)).toBeGreaterThan(3);
  });

  it('two engines share the disk and its time', async () => {
    const { disk, ring } = make();
    const other = new RingDriver(disk, { drive: 'manual' });
    ring.memory.fill(4);
    const written = ring.queue(OP_WRITE, 0, 512);
    ring.submit();
    expect(ring.finish(written)).toBe(512);
    expect(other.read(0, 512)).toBe(512);
    expect(other.memory[0]).toBe(4);
  });

  it('nothing is delivered after close', async () => {
    const { disk, ring } = make({ onViolation: 'collect' });
    ring.queue(OP_READ, 0, 512);
    ring.submit();
    ring.engine.close();
    ring.engine.close();
    expect(disk.violations.map(({ kind }) => kind)).toEqual(['closed-busy']);
    ring.queue(OP_READ, 0, 512);
    ring.submit();
    await ring.engine.run();
    expect(ring.take()).toEqual([]);
    expect(disk.violations).toHaveLength(2);
  });
});

describe('bad entries', () => {
  it('come back with EINVAL, touch nothing and are recorded, not thrown', () => {
    const { disk, ring } = make();
    expect(ring.finish(ring.queue(99, 0, 512))).toBe(-EINVAL);
    expect(ring.finish(ring.queue(0, 0, 512))).toBe(-EINVAL);
    expect(ring.read(0, 512, ring.memory.length)).toBe(-EINVAL);
    expect(ring.read(2 ** 60, 512)).toBe(-EINVAL);
    ring.file = 7;
    expect(ring.read(0, 512)).toBe(-EINVAL);
    ring.file = 0;
    ring.engine.entries[2] = 5;
    const handle = ring.queue(OP_READ, 0, 512);
    ring.engine.entries[2] = 5;
    expect(ring.finish(handle)).toBe(-EINVAL);
    expect(disk.violations.map(({ kind }) => kind)).toEqual(Array(6).fill('bad-entry'));
  });

  it('misaligned positions, lengths and slab offsets too', () => {
    for (const sectorSize of [512, 4096] as const) {
      const { disk, ring } = make({ sectorSize });
      expect(ring.read(sectorSize / 2, sectorSize)).toBe(-EINVAL);
      expect(ring.read(0, sectorSize / 2)).toBe(-EINVAL);
      expect(ring.write(0, sectorSize, 1, 256)).toBe(-EINVAL);
      expect(disk.read(0, 512).every((byte) => byte === 0)).toBe(true);
      expect(disk.violations.map(({ kind }) => kind)).toEqual(['alignment', 'alignment', 'alignment']);
    }
  });

  it('entry flags above the operation change nothing', () => {
    const { ring } = make();
    expect(ring.finish(ring.queue(OP_READ | FLAG_ASYNC, 0, 512))).toBe(512);
  });

  it('anything but a write that is to be durable by itself', () => {
    const { disk, ring } = make({ onViolation: 'collect' });
    expect(ring.finish(ring.queue(OP_READ | FLAG_DURABLE, 0, 512))).toBe(-EINVAL);
    expect(ring.finish(ring.queue(OP_SYNC | FLAG_DURABLE, 0, 0))).toBe(-EINVAL);
    expect(disk.violations.length).toBe(2);
  });

  it('what a file system refuses', () => {
    const { ring } = make();
    expect(ring.allocate(0, 0)).toBe(-EINVAL);
    expect(ring.discard(0, 0)).toBe(-EINVAL);
    expect(ring.allocate(0, 2 ** 33)).toBe(0);
  });
});

describe('memory in flight', () => {
  it('a write whose bytes change before it completes is reported with its sector and handle', () => {
    const { disk, ring } = make();
    const handle = ring.queue(OP_WRITE, 4096, 2048);
    ring.submit();
    ring.memory[1030] = 1;
    expect(() => ring.finish(handle)).toThrow(/unstable-write.*handle 1, sector 10/);
    expect(disk.violations).toMatchObject([{ kind: 'unstable-write', handle, sector: 10, code: 'ERR_SECTORWISE_VIOLATION' }]);
  });

  it('a write whose bytes change after the device took them is reported too', () => {
    let late = 0;
    for (let seed = 0; seed < 20; seed++) {
      const { disk, ring } = make({ seed, latency: { min: 1000, max: 1000 } });
      ring.memory.fill(1, 0, 512);
      disk.plant('slow');
      const handle = ring.queue(OP_WRITE, 0, 512);
      for (let round = 0; round < 40; round++) ring.read(4096, 512, 4096);
      if (disk.read(0, 1)[0] !== 1) continue;
      late++;
      ring.memory[0] = 2;
      expect(() => ring.finish(handle)).toThrow(/unstable-write/);
    }
    expect(late).toBeGreaterThan(5);
  });

  it('the target of a read holds garbage until it completes', () => {
    const { ring } = make();
    const handle = ring.queue(OP_READ, 0, 4096);
    ring.submit();
    expect(ring.memory.subarray(0, 4096).filter((byte) => byte !== 0).length).toBeGreaterThan(3000);
    expect(ring.memory[4096]).toBe(0);
    expect(ring.finish(handle)).toBe(4096);
    expect(ring.memory.subarray(0, 4096).every((byte) => byte === 0)).toBe(true);
  });

  it('a store into the target of a read is reported, before and after the bytes arrived', () => {
    for (let seed = 0; seed < 10; seed++) {
      const { ring } = make({ seed });
      const handle = ring.queue(OP_READ, 0, 1024);
      ring.submit();
      ring.memory[700] ^= 1;
      expect(() => ring.finish(handle)).toThrow(/store-under-read.*sector 1\)/);
    }
  });

  it('memory used by a read in flight may be used by nobody else, that of a write by other writes', () => {
    const { disk, ring } = make({ onViolation: 'collect' });
    ring.queue(OP_WRITE, 0, 1024);
    ring.queue(OP_WRITE, 4096, 1024, 512);
    ring.submit();
    expect(disk.violations).toEqual([]);
    ring.queue(OP_READ, 8192, 512, 512);
    ring.submit();
    expect(disk.violations.filter(({ kind }) => kind === 'memory-reused')).toHaveLength(2);
    expect(make({ checkMemory: false }).disk.violations).toEqual([]);
  });

  it('submit throws the violation after it took every entry', () => {
    const { ring } = make();
    const handles = [ring.queue(OP_READ, 0, 512), ring.queue(OP_READ, 512, 512), ring.queue(OP_READ, 1024, 512, 4096)];
    expect(() => ring.submit()).toThrow(/memory-reused/);
    expect(ring.engine.inFlight).toBe(handles.length);
  });

  it('without checkMemory the memory is left alone', () => {
    const { disk, ring } = make({ checkMemory: false });
    ring.memory.fill(7);
    const handle = ring.queue(OP_READ, 0, 512);
    ring.submit();
    expect(ring.memory[0]).toBe(7);
    ring.finish(handle);
    expect(disk.violations).toEqual([]);
  });

  it('more entries than the depth are reported', () => {
    const disk = new SimulatedDisk({ size: 4096 });
    const ring = new RingDriver(disk, { depth: 1 });
    ring.queue(OP_READ, 0, 512);
    ring.submit();
    ring.queue(OP_READ, 0, 512, 512);
    expect(() => ring.submit()).toThrow(/depth/);
  });

  it('checkOrdering reports entries in flight that overlap a change on the disk', () => {
    const { disk, ring } = make({ checkOrdering: true, onViolation: 'collect' });
    ring.queue(OP_READ, 0, 1024);
    ring.queue(OP_READ, 512, 1024, 4096);
    ring.queue(OP_SYNC, 0, 0);
    ring.queue(OP_WRITE, 1536, 512, 8192);
    ring.submit();
    expect(disk.violations).toEqual([]);
    ring.queue(OP_WRITE, 512, 512, 12288);
    ring.submit();
    expect(disk.violations.map(({ kind }) => kind)).toEqual(['ordering', 'ordering']);
  });
});

describe('the moment of an effect', () => {
  it('a read and a write in flight at one place may come in either order', () => {
    const seen = new Set<number>();
    for (let seed = 0; seed < 30; seed++) {
      const { ring } = make({ seed });
      ring.memory.fill(3, 0, 512);
      ring.queue(OP_WRITE, 0, 512);
      const read = ring.queue(OP_READ, 0, 512, 4096);
      ring.finish(read);
      seen.add(ring.memory[4096]);
    }
    expect([...seen].sort()).toEqual([0, 3]);
  });

  it('a write takes its bytes, and a sync what has landed, somewhere between submission and completion', () => {
    const taken = new Set<number>();
    const synced = new Set<number>();
    for (let seed = 0; seed < 60; seed++) {
      const { disk, ring } = make({ seed, checkMemory: false, latency: { min: 1000, max: 1000 } });
      ring.memory.fill(1);
      const write = ring.queue(OP_WRITE, 0, 512);
      const sync = ring.queue(OP_SYNC, 0, 0);
      ring.submit();
      disk.unplugAt(500);
      expect(ring.finish(write)).toBeLessThan(0);
      expect(ring.finish(sync)).toBeLessThan(0);
      taken.add(disk.read(0, 1)[0]);
      synced.add(disk.snapshot('durable').read(0, 1)[0]);
    }
    expect([...taken].sort()).toEqual([0, 1]);
    expect([...synced].sort()).toEqual([0, 1]);
  });

  it('in order, without reordering: a read sees the write before it and not the one after it', () => {
    for (let seed = 0; seed < 30; seed++) {
      const { ring } = make({ seed, reorder: false });
      ring.memory.fill(3, 0, 512);
      ring.memory.fill(4, 512, 1024);
      ring.queue(OP_WRITE, 0, 512);
      const read = ring.queue(OP_READ, 0, 512, 4096);
      const last = ring.queue(OP_WRITE, 0, 512, 512);
      ring.finish(last);
      expect(ring.finish(read)).toBe(512);
      expect(ring.memory[4096]).toBe(3);
    }
  });
});

describe('reports and edges', () => {
  it('the log keeps the latest events and the report names the seed and the faults', () => {
    const { disk, ring } = make({ seed: 77, log: 4 });
    disk.plant('writeError');
    for (let round = 0; round < 5; round++) ring.write(0, 512, round);
    expect(disk.log).toHaveLength(4);
    expect(disk.log.at(-1)).toMatchObject({ what: 'complete', detail: 'write', sequence: 5, result: 512 });
    expect(disk.report()).toMatch(/seed 77[\s\S]*writeError 1[\s\S]*complete #5 write/);
    expect(make({ log: 0 }).disk.log).toEqual([]);
  });

  it('counts operations and bytes', () => {
    const { disk, ring } = make();
    ring.write(0, 1024, 1);
    ring.read(0, 512);
    ring.sync();
    ring.truncate(512);
    ring.allocate(0, 4096);
    ring.discard(0, 512);
    ring.finish(ring.queue(OP_EVICT, 0, 0));
    expect(disk.counts).toMatchObject({
      reads: 1,
      writes: 1,
      syncs: 1,
      truncates: 1,
      allocates: 1,
      discards: 1,
      evicts: 1,
      bytesRead: 512,
      bytesWritten: 1024,
    });
  });

  it('a heap slab has one buffer, repairs nothing and is poisoned when closed', () => {
    const slab = createHeapSlab(8192);
    expect(slab.private).toBe(slab.shared);
    expect(slab.repair(0, 8192)).toBe(0);
    slab.close();
    expect(new Uint8Array(slab.shared).every((byte) => byte === 0xdb)).toBe(true);
    expect(() => createHeapSlab(1000)).toThrow(RangeError);
  });

  it('depth and options of an engine are checked', () => {
    expect(() => new SimulatedDisk({ size: 0 }).engine({ depth: 0 })).toThrow(RangeError);
    expect(ENTRY_WORDS).toBe(8);
    expect(make().ring.engine.features()[0].reason).toMatch(/seed/);
  });

  it('runs the example of its documentation', async () => {
    const source = readFileSync(new URL('../../src/testing/simulated-disk.ts', import.meta.url), 'utf8');
    const block = /```ts\n([\s\S]*?)```/.exec(source)![1].replace(/^ \* ?/gm, '');
    const script = block.replace(/import (\{[^}]+\}) from 'sectorwise\/testing';/, 'const $1 = testing;').replace(/: (number|Promise<void>)/g, '');
    const printed: unknown[] = [];
    const run = new Function('testing', 'console', `return (async () => {${script}})();`) as (...names: unknown[]) => Promise<void>;
    await run(testing, { log: (value: unknown) => printed.push(value) });
    expect(printed).toEqual([new Uint8Array([2]), new Uint8Array([1])]);
  });

  it('loads nothing of the native part', async () => {
    const file = testing.openSimulated(new SimulatedDisk({ size: 4096 }), { access: 'read-write' });
    await file.write(new Uint8Array(10), 0);
    await file.close();
    const { sharedObjects } = process.report.getReport() as unknown as { sharedObjects: string[] };
    expect(sharedObjects.length).toBeGreaterThan(0);
    expect(sharedObjects.filter((path) => path.includes('sectorwise.node'))).toEqual([]);
  });
});
