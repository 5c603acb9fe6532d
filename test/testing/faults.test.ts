/** Every fault of the simulated disk: planted, and seen exactly as its documentation says. */
import { constants } from 'node:os';
import { describe, expect, it } from 'vitest';
import { type FaultKind, faultKinds, OP_READ, OP_SYNC, OP_WRITE, SimulatedDisk, type SimulatedDiskOptions } from '../../src/testing/index.js';
import { RingDriver } from './ring-driver.js';

const { EAGAIN, ECANCELED, EINTR, EIO, ENODEV, ENOMEM, ENOSPC } = constants.errno;
const seeds = Array.from({ length: 40 }, (_, seed) => seed);

function make(options: Partial<SimulatedDiskOptions> = {}): { disk: SimulatedDisk; ring: RingDriver } {
  const disk = new SimulatedDisk({ size: 64 * 1024, log: 32, ...options });
  return { disk, ring: new RingDriver(disk) };
}

/** Which sectors of [0, count) of 512 bytes hold nothing but `value`. */
function sectorsOf(disk: SimulatedDisk, count: number, value: number): boolean[] {
  return Array.from({ length: count }, (_, sector) => disk.read(sector * 512, 512).every((byte) => byte === value));
}

describe('faults before the device', () => {
  const refusals: Array<[FaultKind, number]> = [
    ['again', EAGAIN],
    ['noMemory', ENOMEM],
    ['interrupted', EINTR],
  ];
  for (const [kind, errno] of refusals) {
    it(`${kind} refuses any operation once, and nothing happens to the medium`, () => {
      const { disk, ring } = make();
      disk.plant(kind, { times: 3 });
      expect(ring.write(0, 512, 1)).toBe(-errno);
      expect(ring.read(0, 512)).toBe(-errno);
      expect(ring.sync()).toBe(-errno);
      expect(disk.read(0, 512).every((byte) => byte === 0)).toBe(true);
      expect(ring.write(0, 512, 1)).toBe(512);
      expect(disk.counts.faults[kind]).toBe(3);
    });
  }
});

describe('faults of the device', () => {
  it('readError fails a read and no write', () => {
    const { disk, ring } = make();
    disk.plant('readError');
    expect(ring.write(0, 512, 1)).toBe(512);
    expect(ring.read(0, 512)).toBe(-EIO);
    expect(ring.read(0, 512)).toBe(512);
  });

  it('writeError fails a write and lands nothing', () => {
    const { disk, ring } = make();
    disk.plant('writeError');
    expect(ring.write(0, 1024, 1)).toBe(-EIO);
    expect(disk.read(0, 1024).every((byte) => byte === 0)).toBe(true);
  });

  for (const kind of ['tornWrite', 'silentTornWrite'] as const) {
    it(`${kind} lands some whole sectors and not others, and reports ${kind === 'tornWrite' ? 'EIO' : 'success'}`, () => {
      const patterns = new Set<string>();
      for (const seed of seeds) {
        const { disk, ring } = make({ seed });
        disk.plant(kind);
        disk.write(0, new Uint8Array(512).fill(9));
        expect(ring.write(0, 4096, 1)).toBe(kind === 'tornWrite' ? -EIO : 4096);
        const landed = sectorsOf(disk, 8, 1);
        const kept = sectorsOf(disk, 8, 0).map((zero, sector) => zero || (sector === 0 && disk.read(0, 512).every((byte) => byte === 9)));
        expect(landed.every((yes, sector) => yes !== kept[sector])).toBe(true);
        expect(landed).toContain(true);
        expect(landed).toContain(false);
        expect(disk.counts.faults[kind]).toBe(1);
        patterns.add(landed.join());
      }
      expect(patterns.size).toBeGreaterThan(10);
    });
  }

  it('a write of a single sector cannot be torn: the planted fault waits for a longer one', () => {
    const { disk, ring } = make();
    disk.plant('tornWrite');
    expect(ring.write(0, 512, 1)).toBe(512);
    expect(disk.counts.faults.tornWrite).toBe(0);
    expect(ring.write(0, 1024, 1)).toBe(-EIO);
  });

  it('lostWrite reports success, grows the file and lands nothing', () => {
    const { disk, ring } = make({ size: 0 });
    disk.plant('lostWrite');
    expect(ring.write(4096, 512, 1)).toBe(512);
    expect(disk.size).toBe(4608);
    expect(disk.read(4096, 512).every((byte) => byte === 0)).toBe(true);
  });

  it('misdirectedWrite lands all of it at another aligned place', () => {
    for (const seed of seeds) {
      const { disk, ring } = make({ seed });
      disk.plant('misdirectedWrite');
      expect(ring.write(8192, 1024, 7)).toBe(1024);
      const hits = sectorsOf(disk, 128, 7).flatMap((hit, sector) => (hit ? [sector] : []));
      expect(hits).toHaveLength(2);
      expect(hits[1]).toBe(hits[0] + 1);
      expect(hits[0]).not.toBe(16);
    }
  });

  it('misdirectedWrite is lost where the disk has no other place', () => {
    const { disk, ring } = make({ size: 512 });
    disk.plant('misdirectedWrite');
    expect(ring.write(0, 512, 7)).toBe(512);
    expect(disk.read(0, 512).every((byte) => byte === 0)).toBe(true);
  });

  it('corruptedWrite turns exactly one bit', () => {
    for (const seed of seeds) {
      const { disk, ring } = make({ seed });
      disk.plant('corruptedWrite');
      expect(ring.write(0, 4096, 0)).toBe(4096);
      const set = [...disk.read(0, 4096)].filter((byte) => byte !== 0);
      expect(set).toHaveLength(1);
      expect(Math.log2(set[0]) % 1).toBe(0);
    }
  });

  it('failSectors fails whole operations that touch a bad sector, reads or writes, for ever or so many times', () => {
    const { disk, ring } = make();
    disk.failSectors(9, 1, { writes: false, times: 2 });
    disk.failSectors(32, 2, { reads: false });
    expect(ring.write(4096, 1024, 1)).toBe(1024);
    expect(ring.read(4096, 512)).toBe(512);
    expect(ring.read(4096, 4096)).toBe(-EIO);
    expect(ring.read(4608, 512)).toBe(-EIO);
    expect(ring.read(4096, 4096)).toBe(4096);
    for (let times = 0; times < 5; times++) expect(ring.write(16 * 1024, 1024, 1)).toBe(-EIO);
    expect(disk.read(16 * 1024, 512).every((byte) => byte === 0)).toBe(true);
    expect(ring.read(16 * 1024, 1024)).toBe(1024);
    expect(disk.counts.badSector).toBe(7);
    disk.heal();
    expect(ring.write(16 * 1024, 1024, 1)).toBe(1024);
  });

  it('an operation that was refused before the device does not use up a bad sector', () => {
    const { disk, ring } = make();
    disk.failSectors(0, 1, { times: 1 });
    disk.plant('again');
    expect(ring.read(0, 512)).toBe(-EAGAIN);
    expect(ring.read(0, 512)).toBe(-EIO);
    expect(ring.read(0, 512)).toBe(512);
  });
});

describe('short counts', () => {
  it('shortRead brings a whole number of sectors, less than asked, and only those', () => {
    for (const seed of seeds) {
      const { disk, ring } = make({ seed });
      disk.write(0, new Uint8Array(4096).fill(5));
      disk.plant('shortRead');
      const count = ring.read(0, 4096);
      expect(count).toBeGreaterThanOrEqual(512);
      expect(count).toBeLessThan(4096);
      expect(count % 512).toBe(0);
      expect(ring.memory.subarray(0, count).every((byte) => byte === 5)).toBe(true);
      expect(ring.memory.subarray(count, count + 512).every((byte) => byte === 5)).toBe(false);
    }
  });

  it('shortWrite lands the first sectors and answers with how many bytes', () => {
    for (const seed of seeds) {
      const { disk, ring } = make({ seed });
      disk.plant('shortWrite');
      const count = ring.write(0, 4096, 5);
      expect(count).toBeGreaterThanOrEqual(512);
      expect(count).toBeLessThan(4096);
      expect(count % 512).toBe(0);
      expect(sectorsOf(disk, 8, 5)).toEqual(Array.from({ length: 8 }, (_, sector) => sector * 512 < count));
    }
  });

  it('both end at any byte where shortUnit says so', () => {
    const counts = seeds.map((seed) => {
      const { disk, ring } = make({ seed, shortUnit: 'byte' });
      disk.plant('shortRead');
      disk.plant('shortWrite');
      const written = ring.write(0, 512, 5);
      expect(disk.read(0, 512).filter((byte) => byte === 5)).toHaveLength(written);
      return [written, ring.read(0, 512)];
    });
    expect(counts.flat().some((count) => count % 512 !== 0)).toBe(true);
    expect(counts.flat().every((count) => count > 0 && count < 512)).toBe(true);
  });
});

describe('syncs that fail', () => {
  it('keep: the bytes stay and the next sync saves them', () => {
    const { disk, ring } = make();
    disk.plant('syncError');
    ring.write(0, 512, 1);
    expect(ring.sync()).toBe(-EIO);
    expect(disk.read(0, 1)[0]).toBe(1);
    expect(ring.sync()).toBe(0);
    disk.powerCut({ drop: 'all' });
    expect(disk.read(0, 1)[0]).toBe(1);
  });

  it('forget: the bytes stay readable and no later sync saves them, until they are written again', () => {
    const { disk, ring } = make({ afterSyncError: 'forget' });
    disk.plant('syncError');
    ring.write(0, 512, 1);
    ring.write(512, 512, 1);
    expect(ring.sync()).toBe(-EIO);
    ring.write(512, 512, 2);
    expect(ring.sync()).toBe(0);
    expect([disk.read(0, 1)[0], disk.read(512, 1)[0]]).toEqual([1, 2]);
    expect(disk.snapshot('durable').read(0, 1)[0]).toBe(0);
    disk.powerCut({ drop: 'none' });
    expect([disk.read(0, 1)[0], disk.read(512, 1)[0]]).toEqual([0, 2]);
  });

  it('drop: reads see what was durable', () => {
    const { disk, ring } = make({ afterSyncError: 'drop' });
    ring.write(0, 512, 1);
    ring.sync();
    ring.write(0, 512, 2);
    disk.plant('syncError');
    expect(ring.sync()).toBe(-EIO);
    expect(ring.read(0, 512)).toBe(512);
    expect(ring.memory[0]).toBe(1);
  });
});

describe('faults of the queue and of time', () => {
  it('slow takes fifty times as long', () => {
    const { disk, ring } = make({ latency: { min: 10, max: 10 } });
    disk.plant('slow');
    ring.read(0, 512);
    expect(disk.now).toBe(500);
    ring.read(0, 512);
    expect(disk.now).toBe(510);
    expect(disk.counts.faults.slow).toBe(1);
  });

  it('duplicateCompletion completes a handle a second time, after the first, with the same result', async () => {
    const { disk, ring } = make();
    disk.plant('duplicateCompletion');
    const handle = ring.queue(OP_READ, 0, 512);
    ring.submit();
    await ring.engine.run();
    expect(ring.take()).toEqual([
      { handle, result: 512 },
      { handle, result: 512 },
    ]);
    expect(disk.counts.faults.duplicateCompletion).toBe(1);
  });

  it('strayCompletion brings ECANCELED for a handle that completed before', async () => {
    const { disk, ring } = make();
    const stale = ring.queue(OP_READ, 0, 512);
    ring.finish(stale);
    disk.plant('strayCompletion');
    const handle = ring.queue(OP_READ, 0, 512);
    ring.submit();
    await ring.engine.run();
    expect(ring.take()).toEqual([
      { handle, result: 512 },
      { handle: stale, result: -ECANCELED },
    ]);
  });

  it('an extra completion is dropped while an entry with its handle is in flight', async () => {
    const { disk, ring } = make({ latency: { min: 10, max: 10 } });
    disk.plant('duplicateCompletion');
    disk.plant('slow', { skip: 1 });
    const handle = ring.queue(OP_READ, 0, 512);
    ring.finish(handle);
    ring.engine.entries[7] = handle;
    ring.engine.submit(1);
    await ring.engine.run();
    expect(ring.take()).toEqual([{ handle, result: 512 }]);
    expect(disk.counts.faults.duplicateCompletion).toBe(0);
  });
});

describe('the disk goes away', () => {
  it('unplug fails what is in flight and all later operations, and replug needs the file added again', () => {
    const { disk, ring } = make();
    const handles = [ring.queue(OP_READ, 0, 512), ring.queue(OP_WRITE, 512, 512, 4096), ring.queue(OP_SYNC, 0, 0)];
    ring.submit();
    disk.unplug();
    expect(disk.present).toBe(false);
    for (const handle of handles) expect(ring.finish(handle)).toBe(-ENODEV);
    expect(ring.read(0, 512)).toBe(-ENODEV);
    disk.replug();
    expect(disk.generation).toBe(2);
    expect(ring.read(0, 512)).toBe(-ENODEV);
    ring.file = ring.engine.addFile(0);
    expect(ring.read(0, 512)).toBe(512);
    expect(disk.counts.unplugged).toBe(5);
  });

  it('unplugged with EIO, or as an end of file', () => {
    const { disk, ring } = make();
    disk.unplug('EIO');
    expect(ring.read(0, 512)).toBe(-EIO);
    disk.replug();
    ring.file = ring.engine.addFile(0);
    const handle = ring.queue(OP_READ, 0, 512);
    ring.submit();
    disk.unplug('end-of-file');
    expect(ring.finish(handle)).toBe(-EIO);
    expect(ring.read(0, 512)).toBe(0);
    expect(ring.write(0, 512, 1)).toBe(-EIO);
    expect(ring.sync()).toBe(-EIO);
  });

  it('unplugAfter lets that many operations complete', () => {
    const { disk, ring } = make();
    disk.unplugAfter(3);
    const results = Array.from({ length: 5 }, () => ring.read(0, 512));
    expect(results).toEqual([512, 512, 512, -ENODEV, -ENODEV]);
  });

  it('unplugAt comes at its moment of virtual time', () => {
    const { disk, ring } = make({ latency: { min: 10, max: 10 } });
    disk.unplugAt(25);
    expect([ring.read(0, 512), ring.read(0, 512), ring.read(0, 512)]).toEqual([512, 512, -ENODEV]);
  });

  it('what had landed before an unplug is there after the replug', () => {
    const { disk, ring } = make();
    ring.write(0, 512, 3);
    disk.unplug();
    disk.replug();
    expect(disk.read(0, 1)[0]).toBe(3);
  });
});

describe('power cuts', () => {
  it('drop all: what was not synced is gone, the size too', () => {
    const { disk, ring } = make({ size: 1024 });
    ring.write(0, 512, 1);
    ring.sync();
    ring.write(0, 2048, 2);
    expect(disk.size).toBe(2048);
    expect(disk.powerCut({ drop: 'all' })).toEqual({ kept: 0, dropped: 4 });
    expect(disk.size).toBe(1024);
    expect([disk.read(0, 1)[0], disk.read(512, 1)[0]]).toEqual([1, 0]);
  });

  it('drop all: a truncation that was not synced is undone', () => {
    const { disk, ring } = make({ size: 0 });
    ring.write(0, 4096, 1);
    ring.sync();
    ring.truncate(100);
    disk.powerCut({ drop: 'all' });
    expect(disk.size).toBe(4096);
    expect(disk.read(0, 4096).every((byte) => byte === 1)).toBe(true);
  });

  it('drop none: all survives that had landed', () => {
    const { disk, ring } = make();
    ring.write(0, 4096, 1);
    expect(disk.powerCut({ drop: 'none' })).toEqual({ kept: 8, dropped: 0 });
    expect(disk.read(0, 4096).every((byte) => byte === 1)).toBe(true);
  });

  it('drop some: each sector is whole and one of its versions since the sync', () => {
    const seen = new Set<number>();
    for (const seed of seeds) {
      const { disk, ring } = make({ seed });
      ring.write(0, 4096, 1);
      ring.sync();
      for (const value of [2, 3, 4]) ring.write(0, 4096, value);
      disk.powerCut();
      for (let sector = 0; sector < 8; sector++) {
        const bytes = disk.read(sector * 512, 512);
        expect(bytes.every((byte) => byte === bytes[0])).toBe(true);
        seen.add(bytes[0]);
      }
    }
    expect([...seen].sort()).toEqual([1, 2, 3, 4]);
  });

  it('a size that fell back leaves nothing behind its end', () => {
    let fellBack = 0;
    for (const seed of seeds) {
      const { disk, ring } = make({ seed, size: 100 });
      ring.write(0, 8192, 5);
      disk.powerCut();
      if (disk.size !== 100) continue;
      fellBack++;
      disk.resize(8192);
      expect(disk.read(100, 8092).every((byte) => byte === 0)).toBe(true);
    }
    expect(fellBack).toBeGreaterThan(5);
  });

  it('what somebody else cut off is gone for good, whatever a failed sync forgot', () => {
    const { disk, ring } = make({ afterSyncError: 'forget', size: 8192 });
    disk.write(0, new Uint8Array(8192).fill(3));
    ring.write(4096, 4096, 5);
    disk.resize(1000);
    disk.plant('syncError');
    ring.sync();
    disk.resize(8192);
    ring.sync();
    const durable = disk.snapshot('durable').read(0, 8192);
    expect([durable.subarray(0, 1000).every((byte) => byte === 3), durable.subarray(1000).every((byte) => byte === 0)]).toEqual([true, true]);
  });

  it('on sectors of 4096 bytes a block is never torn', () => {
    for (const seed of seeds) {
      const { disk, ring } = make({ seed, sectorSize: 4096 });
      ring.write(0, 16384, 1);
      disk.powerCut();
      for (let block = 0; block < 4; block++) {
        const bytes = disk.read(block * 4096, 4096);
        expect(bytes.every((byte) => byte === bytes[0])).toBe(true);
      }
    }
  });

  it('fails what is in flight and every file that was open, and lands some of a write under way', () => {
    let partly = 0;
    for (const seed of seeds) {
      const { disk, ring } = make({ seed, latency: { min: 1000, max: 1000 } });
      ring.memory.fill(6);
      const handle = ring.queue(OP_WRITE, 0, 4096);
      ring.submit();
      disk.powerCut({ drop: 'none' });
      const landed = sectorsOf(disk, 8, 6);
      if (landed.includes(true) && landed.includes(false)) partly++;
      expect(ring.finish(handle)).toBe(-ENODEV);
      expect(ring.read(0, 512)).toBe(-ENODEV);
    }
    expect(partly).toBeGreaterThan(5);
  });

  it('never grows a device by a write under way past its end', () => {
    for (const seed of seeds) {
      const { disk, ring } = make({ seed, kind: 'block-device', size: 4096 });
      ring.queue(OP_WRITE, 2048, 8192);
      ring.submit();
      disk.powerCut({ drop: 'none' });
      expect(disk.size).toBe(4096);
    }
  });
});

describe('space', () => {
  it('a file is cut short at its capacity, then refused', () => {
    const { disk, ring } = make({ size: 0, capacity: 1536 });
    expect(ring.write(0, 4096, 1)).toBe(1536);
    expect(ring.write(1536, 512, 1)).toBe(-ENOSPC);
    expect(ring.allocate(0, 4096)).toBe(-ENOSPC);
    expect(disk.size).toBe(1536);
    disk.capacity = Infinity;
    expect(ring.write(1536, 512, 1)).toBe(512);
    expect(disk.counts.noSpace).toBe(3);
  });
});

describe('rates', () => {
  it('each fault happens by its rate, and never at rate 0', () => {
    for (const kind of faultKinds) {
      const { disk, ring } = make({ seed: 3, faults: { [kind]: 0.5 } });
      for (let round = 0; round < 60; round++) {
        ring.write((round % 8) * 4096, 4096, round);
        ring.read((round % 8) * 4096, 4096);
        ring.sync();
      }
      for (const other of faultKinds) {
        if (other === kind) expect(disk.counts.faults[other], other).toBeGreaterThan(8);
        else expect(disk.counts.faults[other], other).toBe(0);
      }
      disk.heal();
      const before = { ...disk.counts.faults };
      expect(ring.write(0, 4096, 1)).toBe(4096);
      expect(ring.sync()).toBe(0);
      if (kind !== 'duplicateCompletion' && kind !== 'strayCompletion') expect(disk.counts.faults).toEqual(before);
    }
  });

  it('plants strike where and when they say', () => {
    const { disk, ring } = make();
    disk.plant('writeError', { first: 8, count: 8, skip: 1, times: 2 });
    const results = [0, 4096, 4096, 8192, 4096, 4096].map((position) => ring.write(position, 4096, 1));
    expect(results).toEqual([4096, 4096, -EIO, 4096, -EIO, 4096]);
  });

  it('an operation that no disk would do uses up no planted fault', () => {
    const { disk, ring } = make();
    disk.plant('readError');
    expect(ring.read(100, 512)).toBe(-constants.errno.EINVAL);
    expect(ring.read(0, 512)).toBe(-EIO);
    disk.plant('again');
    disk.unplug();
    expect(ring.read(0, 512)).toBe(-ENODEV);
    disk.replug();
    ring.file = ring.engine.addFile(0);
    expect(ring.read(0, 512)).toBe(-EAGAIN);
  });

  it('a misspelt fault, option or value is refused with the right names', () => {
    expect(() => make({ faults: { shortReads: 1 } as never })).toThrow(/faults\.shortReads.*shortRead/);
    expect(() => make({ sectorsize: 512 } as never)).toThrow(/options\.sectorsize.*sectorSize/);
    expect(() => make({ faults: { again: 2 } })).toThrow(RangeError);
    expect(() => make().disk.plant('torn' as never)).toThrow(/tornWrite/);
    expect(() => make({ sectorSize: 520 as never })).toThrow(/512, 4096/);
    expect(() => make({ kind: 'block-device', size: 1000 })).toThrow(RangeError);
    expect(() => make({ kind: 'block-device', shortUnit: 'byte' })).toThrow(TypeError);
    expect(() => make({ latency: { min: 5, max: 1 } })).toThrow(RangeError);
    expect(() => make({ seed: 0.5 })).toThrow(RangeError);
  });
});
