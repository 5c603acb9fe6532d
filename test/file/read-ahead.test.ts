/** Read-ahead of open files: who is read ahead for, that nobody pays for it but who reads in order, and that it gives way to everybody. */
import { truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, afterEach, describe, expect, it } from 'vitest';
import { type BlockFile, type Caching, type OpenOptions, open, type Window } from '../../src/index.js';
import type { EngineName } from '../../src/io/engine.js';
import { openNativeEngine } from '../../src/io/native-engine.js';
import { openSimulated, SimulatedDisk } from '../../src/testing/index.js';
import { Random } from '../../src/testing/random.js';
import { note, Places } from '../fixtures/places.js';
import { LoopDevices, noLoopDevices } from '../geometry/loop-devices.js';

const KIB = 1024;
const MIB = 1024 * KIB;
const BYTES = 16 * MIB + 777;
const STEP = 64 * KIB;

const lab = new Places();
const path = join(lab.folder(), 'file');
const model = Buffer.from(new Random(11).fill(new Uint8Array(BYTES)));
writeFileSync(path, model);
afterAll(() => lab.dispose());

const opened: BlockFile[] = [];
afterEach(async () => {
  for (const file of opened.splice(0)) await file.close();
});

const tick = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

function refusal(engine: EngineName): string | undefined {
  const forced = process.env.SECTORWISE_ENGINE;
  if (forced !== undefined && forced !== '' && forced !== engine) return `SECTORWISE_ENGINE is ${forced}`;
  try {
    openNativeEngine({ engine, depth: 1 }).close();
    return undefined;
  } catch {
    return `no ${engine} here`;
  }
}

/** Nothing of the file is in memory, as far as the kernel lets us. */
async function cold(options: OpenOptions): Promise<BlockFile> {
  for (const file of opened.splice(0)) await file.close();
  const file = await open(path, { access: 'read-write', ...options });
  opened.push(file);
  await file.flush();
  await file.evict(0, BYTES);
  return file;
}

/** Windows one after the other: in memory, or waited for. Answers with how many were waited for. */
async function walk(file: BlockFile, from: number, to: number, step: number, bytes: Uint8Array = model): Promise<number> {
  let waited = 0;
  const ahead = Math.sign(to - from) * step;
  for (let at = from; ahead > 0 ? at < to : at > to; at += ahead) {
    const offset = ahead > 0 ? at : at - step;
    let window: Window | undefined = file.tryWindow(offset, step);
    if (window === undefined) waited++;
    window ??= await file.window(offset, step);
    expect(Buffer.compare(window.bytes, bytes.subarray(offset, offset + window.length))).toBe(0);
    window.release();
  }
  return waited;
}

async function jump(file: BlockFile, count: number): Promise<void> {
  for (let i = 0; i < count; i++) {
    // Far apart, and never next to one that was read before.
    const offset = ((Math.imul(i + 1, 2654435761) >>> 0) % 2000) * 8192;
    (await file.window(offset, 4096)).release();
  }
}

for (const engine of ['threads', 'io_uring'] as const) {
  const missing = refusal(engine);
  describe.skipIf(missing !== undefined)(`read-ahead by ${engine}${note(missing)}`, () => {
    describe.each<Caching>(['page-cache', 'direct'])('%s', (caching) => {
      it('keeps most windows of a reader in order from waiting, forward and backward', async () => {
        for (const [from, to] of [
          [0, BYTES],
          [BYTES - 777, 0],
        ]) {
          const file = await cold({ caching, engine });
          expect(await walk(file, from, to, STEP)).toBeLessThan(128);
          // In page-cache mode the kernel reads ahead too, and may have been first.
          if (caching === 'direct') expect(file.stats.readAheadBytes).toBeGreaterThan(12 * MIB);
        }
      });

      it('reads nothing ahead for one who jumps around', async () => {
        const file = await cold({ caching, engine });
        await jump(file, 200);
        expect([file.stats.readAheadBytes, file.stats.readAheadUnused]).toEqual([0, 0]);
      });

      it('reads nothing ahead where it is switched off, for windows() neither', async () => {
        for (const readAhead of [false, { max: 0 }] as const) {
          const file = await cold({ caching, engine, readAhead });
          await walk(file, 0, MIB, STEP);
          for await (const window of file.windows({ end: MIB })) expect(window.length).toBe(MIB);
          expect(file.stats.readAheadBytes).toBe(0);
        }
      });

      it('is ahead of windows(), reads nothing twice, and counts what a loop that was left leaves behind', async () => {
        const file = await cold({ caching, engine });
        const warm = file.residency().cached;
        let at = 0;
        for await (const window of file.windows({ end: 8 * MIB, step: 256 * KIB })) {
          expect(Buffer.compare(window.bytes, model.subarray(at, at + window.length))).toBe(0);
          at += window.length;
        }
        expect(at).toBe(8 * MIB);
        expect(file.stats.deviceReadBytes).toBeLessThanOrEqual(8 * MIB);
        expect(file.stats.readAheadUnused).toBe(0);
        // Where the kernel would not give its pages up there was nothing to read.
        if (warm === 0) expect(file.stats.readAheadBytes).toBeGreaterThan(4 * MIB);
        await file.evict(0, BYTES);
        const left = file.residency().cached;
        for await (const window of file.windows({ start: MIB, step: 256 * KIB })) if (window.offset >= MIB) break;
        // What is on its way cannot be evicted before it has come.
        for (let i = 0; i < 500 && left === 0 && file.stats.readAheadUnused === 0; i++) {
          await file.evict(0, BYTES);
          await sleep(10);
        }
        // Nor was there where it held on to them the second time.
        if (left === 0) expect(file.stats.readAheadUnused).toBeGreaterThan(0);
        expect(file.stats.readAheadUnused).toBeLessThanOrEqual(file.stats.readAheadBytes);
      });

      it('ends with the file that is closed, evicted or made shorter under it', async () => {
        const other = join(lab.folder(), 'other');
        writeFileSync(other, model);
        for (let round = 0; round < 6; round++) {
          const file = await open(other, { caching, engine, access: 'read-write' });
          await file.flush();
          await file.evict(0, BYTES);
          await walk(file, 0, MIB, STEP);
          if (round % 3 === 0) await file.evict(0, BYTES);
          if (round % 3 === 1) {
            await file.resize(MIB + 100);
            expect((await file.window(MIB, STEP)).length).toBe(100);
            await file.resize(BYTES);
            const window = await file.window(2 * MIB, STEP);
            expect(window.bytes.every((byte) => byte === 0)).toBe(true);
            await file.resize(0);
            writeFileSync(other, model);
          } else expect(await walk(file, 2 * MIB, 3 * MIB, STEP)).toBeLessThanOrEqual(16);
          if (round < 3) await file.close();
          else file.closeSync();
        }
      });
    });

    it('reads ahead for blocking reads of direct files, though the event loop never gets a turn', async () => {
      const file = await cold({ caching: 'direct', engine });
      const target = new Uint8Array(STEP);
      for (let at = 0; at + STEP <= BYTES; at += STEP) {
        expect(file.readSync(target, at)).toBe(STEP);
        expect(Buffer.compare(target, model.subarray(at, at + STEP))).toBe(0);
      }
      expect(file.stats.readAheadBytes).toBeGreaterThan(12 * MIB);
      expect(file.stats.deviceReadBytes).toBeLessThanOrEqual(BYTES + 4096);
    });

    it('never gets further ahead than its most, and begins with what it was told', async () => {
      const file = await cold({ caching: 'direct', engine, readAhead: { initial: 32 * KIB, max: STEP } });
      for (const end of [MIB, 3 * MIB, 8 * MIB]) {
        await walk(file, end - MIB, end, 16 * KIB);
        while (file.residency(end, MIB).writeback > 0) await tick();
        expect(file.residency(end, 4 * MIB).cached).toBeLessThanOrEqual(16);
      }
      expect(file.stats.readAheadBytes).toBeGreaterThan(2 * MIB);
    });

    it('gives way to everybody in a cache that is small and pinned: no request fails or is refused because of it', async () => {
      const file = await cold({ caching: 'direct', engine, cacheSize: 64 * KIB });
      for (let round = 0; round < 4; round++) {
        const held: Window[] = [];
        for (let i = 0; i < 8 + round; i++) held.push(await file.window(12 * MIB + i * 8192, 4096));
        await walk(file, round * MIB, (round + 1) * MIB, 4096);
        // The rest of the frames at once, while something may be on its way ahead.
        const rest = 16 - held.length;
        const most = await Promise.all(Array.from({ length: rest }, (_, i) => file.window((round + 1) * MIB + i * 4096, 4096)));
        for (const window of [...held, ...most]) window.release();
      }
      expect(file.stats.readAheadBytes).toBeGreaterThan(0);
    });

    it('counts frames that were read ahead and pushed out unused', async () => {
      const file = await cold({ caching: 'direct', engine, cacheSize: MIB });
      await walk(file, 0, 4 * MIB, 32 * KIB);
      expect(file.stats.readAheadUnused).toBe(0);
      for (let i = 0; i < 500; i++) (await file.window(8 * MIB + ((i * 211) % 509) * 16384, 4096)).release();
      expect(file.stats.readAheadUnused).toBeGreaterThan(0);
      expect(file.stats.readAheadUnused).toBeLessThanOrEqual(512 * KIB);
    });
  });
}

describe.skipIf(noLoopDevices !== undefined)(`over a device with sectors that cannot be read${note(noLoopDevices)}`, () => {
  it.each<Caching>(['page-cache', 'direct'])(
    '%s: everything before the first bad sector is read, and the window that needs it says why not',
    async (caching) => {
      const loops = new LoopDevices();
      try {
        const image = loops.image(8 * MIB);
        const device = loops.attach(image);
        // What the device does not find behind the end of its image is an error of the medium.
        // What the device does not find behind the end of its image is an error of the medium. At 4 MiB, because the page cache fails by folios, and no folio lies across that.
        truncateSync(image, 4 * MIB);
        const file = await open(device, { caching });
        let at = 0;
        const loop = async (): Promise<void> => {
          for await (const window of file.windows({ step: 4096 })) {
            expect(window.bytes[4095]).toBe(0);
            at = window.offset + window.length;
          }
        };
        const error = await loop().then(
          () => undefined,
          (thrown) => thrown,
        );
        expect(error).toMatchObject({ code: 'EIO', syscall: 'read' });
        // The first of the window's sectors to fail, which need not be the first of them.
        expect(Math.floor(error.offset / 4096)).toBe((4 * MIB) / 4096);
        expect(at).toBe(4 * MIB);
        await expect(file.window(3 * MIB, 2 * MIB)).rejects.toMatchObject({ code: 'EIO' });
        (await file.window(3 * MIB, MIB)).release();
        await file.close();
      } finally {
        loops.dispose();
      }
    },
  );
});

describe('over a simulated disk', () => {
  const bytes = new Random(3).fill(new Uint8Array(2 * MIB));
  const make = (seed: number): SimulatedDisk => {
    const disk = new SimulatedDisk({ size: bytes.length, seed });
    disk.write(0, bytes);
    return disk;
  };

  it('follows eight readers at once, and hands each the right bytes', async () => {
    const file = openSimulated(make(1), { cacheSize: 2 * MIB, readAhead: { initial: 16 * KIB, max: 64 * KIB } });
    const waits = await Promise.all(Array.from({ length: 8 }, (_, i) => walk(file, i * 256 * KIB, (i + 1) * 256 * KIB, 4096, bytes)));
    for (const waited of waits) expect(waited).toBeLessThan(32);
    expect(file.stats.deviceReadBytes).toBeLessThanOrEqual(bytes.length);
    await file.close();
  });

  it('tells errors to who needs the sector, not to who was merely read ahead of', async () => {
    const disk = make(2);
    const file = openSimulated(disk, { cacheSize: MIB });
    disk.failSectors(MIB / 512, 1);
    await walk(file, 512 * KIB, MIB, 8192, bytes);
    await expect(file.window(MIB, 512)).rejects.toMatchObject({ code: 'EIO', offset: MIB });
    await walk(file, MIB + 4096, 2 * MIB, 4096, bytes);
    await file.close();
  });

  it('survives a disk that fails, delays and answers twice, in a cache of sixteen frames', async () => {
    for (let seed = 1; seed <= 20; seed++) {
      const disk = new SimulatedDisk({
        size: bytes.length,
        seed,
        faults: { readError: 0.05, again: 0.1, shortRead: 0.1, slow: 0.1, duplicateCompletion: 0.1, strayCompletion: 0.1 },
      });
      disk.write(0, bytes);
      const file = openSimulated(disk, { cacheSize: 64 * KIB, slots: 4, slotBlocks: 4, readAhead: { initial: 8192, max: 32 * KIB } });
      for (let at = 0; at < 512 * KIB; at += 4096) {
        try {
          const window = await file.window(at, 4096);
          expect(Buffer.compare(window.bytes, bytes.subarray(at, at + 4096))).toBe(0);
          window.release();
        } catch (error) {
          expect(error).toMatchObject({ code: 'EIO' });
        }
      }
      await file.close();
    }
  });
});
