/**
 * openSimulated: what a storage engine's own tests are written with.
 */
import { describe, expect, it } from 'vitest';
import { openSimulated, SimulatedDisk } from '../../src/testing/index.js';

describe('openSimulated', () => {
  it('gives the file that open gives: windows, writes and flushes over the simulated medium', async () => {
    const disk = new SimulatedDisk({ size: 10_000, seed: 1 });
    disk.write(5000, new Uint8Array(100).fill(7));
    const file = openSimulated(disk, { access: 'read-write' });
    expect(file.size).toBe(10_000);
    expect(file.caching).toBe('direct');
    expect(file.explain().engine).toBe('simulated');
    const window = await file.window(4990, 20);
    expect([...window.bytes]).toEqual([...new Uint8Array(10), ...new Uint8Array(10).fill(7)]);
    window.release();
    await file.write(new Uint8Array(3).fill(9), 9_999);
    expect(disk.size).toBe(10_000);
    await file.flush();
    expect(disk.size).toBe(10_002);
    expect([...disk.snapshot('durable').read(9_998, 10)]).toEqual([0, 9, 9, 9]);
    await file.close();
  });

  it('shows an engine what a loss of power leaves: all that was flushed', async () => {
    for (let seed = 1; seed <= 30; seed++) {
      const disk = new SimulatedDisk({ size: 0, seed, faults: { shortWrite: 0.1, again: 0.1 } });
      const log = openSimulated(disk, { access: 'read-write', cacheSize: 64 * 1024 });
      const record = new TextEncoder().encode(`record of seed ${seed}\n`);
      await log.write(record, 0);
      await log.flush();
      await log.write(record, record.length);
      disk.powerCut();
      await log.close().catch(() => undefined);
      const reopened = openSimulated(disk);
      const found = new Uint8Array(record.length);
      expect(await reopened.read(found, 0)).toBe(record.length);
      expect(found).toEqual(record);
      await reopened.close();
    }
  });

  it('waits without an event loop in the blocking calls', () => {
    const disk = new SimulatedDisk({ size: 8192, seed: 2, kind: 'block-device', sectorSize: 4096 });
    const file = openSimulated(disk, { access: 'read-write', cacheSize: 4096, slots: 1, slotBlocks: 1, queueDepth: 1 });
    file.writeSync(new Uint8Array(10).fill(1), 4090);
    file.flushSync();
    const target = new Uint8Array(12);
    expect(file.readSync(target, 4089)).toBe(12);
    expect([...target]).toEqual([0, ...new Uint8Array(10).fill(1), 0]);
    file.closeSync();
    expect(disk.read(4089, 3)).toEqual(new Uint8Array([0, 1, 1]));
  });

  it('lets time be moved by hand, with an engine of one’s own', async () => {
    const disk = new SimulatedDisk({ size: 4096, seed: 3 });
    const engine = disk.engine({ depth: 4, drive: 'manual' });
    const file = openSimulated(disk, { engine });
    let arrived = false;
    const reading = file.window(0, 10).then((window) => {
      arrived = true;
      window.release();
    });
    await new Promise((resolve) => setImmediate(resolve));
    expect(disk.inFlight).toBe(1);
    expect(arrived).toBe(false);
    await engine.run();
    await reading;
    await file.close();
  });

  it('refuses what it does not know', () => {
    const disk = new SimulatedDisk({ size: 0 });
    expect(() => openSimulated(disk, { cachesize: 1 } as object)).toThrow(expect.objectContaining({ code: 'ERR_INVALID_ARG_VALUE' }));
    expect(() => openSimulated(disk, { cacheSize: 100 })).toThrow(expect.objectContaining({ code: 'ERR_OUT_OF_RANGE' }));
    expect(() => openSimulated(disk, { queueDepth: 2, engine: disk.engine() })).toThrow(expect.objectContaining({ code: 'ERR_INVALID_ARG_VALUE' }));
  });
});
