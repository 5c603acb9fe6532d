/**
 * verifyWrites against every lie that the simulated disk knows: each planted one is found, named where it is, and nothing else is.
 */
import { describe, expect, it } from 'vitest';
import { FlushError, VerifyError } from '../../src/index.js';
import { type FaultKind, type FaultRates, openSimulated, Random, SimulatedDisk } from '../../src/testing/index.js';

const lies: FaultKind[] = ['lostWrite', 'silentTornWrite', 'corruptedWrite', 'misdirectedWrite'];
const BYTES = 64 * 1024;
const ROUNDS = 110;

async function outcomeOf(flush: Promise<void>): Promise<FlushError | undefined> {
  return flush.then(
    () => undefined,
    (error: FlushError) => {
      expect(error).toBeInstanceOf(FlushError);
      return error;
    },
  );
}

/** First bytes of the units of [from, to) in which the disk does not have what it should. */
function wrongUnits(disk: SimulatedDisk, model: Uint8Array, from: number, to: number): number[] {
  const unit = disk.sectorSize;
  const start = from - (from % unit);
  const held = disk.read(start, Math.ceil((to - start) / unit) * unit);
  const units: number[] = [];
  for (let at = 0; at < held.length; at += unit) {
    if (Buffer.compare(held.subarray(at, at + unit), model.subarray(start + at, start + at + unit)) !== 0) units.push(start + at);
  }
  return units;
}

function unitsOf(ranges: FlushError['ranges'], unit: number): number[] {
  return ranges.flatMap(({ offset, length }) => Array.from({ length: length / unit }, (_, i) => offset + i * unit)).sort((a, b) => a - b);
}

describe.each(lies)('a planted %s', (kind) => {
  it.each([
    ['file', 512, 1024 * 1024],
    ['file', 4096, 8 * 1024],
    ['block-device', 512, 12 * 1024],
    ['block-device', 4096, 1024 * 1024],
  ] as const)('is found and named by every flush: %s, sectors of %d, transfers of %d', async (what, sectorSize, maxTransferSize) => {
    const seed = lies.indexOf(kind) * 10 + sectorSize;
    const random = new Random(seed, 1);
    const disk = new SimulatedDisk({ size: BYTES, kind: what, sectorSize, seed, latency: { min: 0, max: 0 } });
    const model = random.fill(new Uint8Array(BYTES));
    disk.write(0, model);
    const file = openSimulated(disk, { access: 'read-write', verifyWrites: true, maxTransferSize, cacheSize: BYTES });
    const seen = { found: 0, harmless: 0, honest: 0 };
    for (let round = 0; round < ROUNDS; round++) {
      const offset = random.below(BYTES - 1);
      const length = Math.min(BYTES - offset, random.chance(0.5) ? 1 + random.below(3 * sectorSize) : 1 + random.below(16_000));
      const bytes = model.slice(offset, offset + length);
      // The same bytes again, all or most of them: a write that is lost then may leave nothing to be found.
      if (random.chance(0.2)) bytes[random.below(length)] ^= random.below(2);
      else random.fill(bytes);
      await file.write(bytes, offset);
      model.set(bytes, offset);
      const plant = random.chance(0.9);
      const before = disk.counts.faults[kind];
      if (plant) disk.plant(kind);
      const failure = await outcomeOf(file.flush());
      disk.heal();
      const planted = disk.counts.faults[kind] - before;
      const wrong = wrongUnits(disk, model, offset, offset + length);
      expect(planted).toBeLessThanOrEqual(1);
      if (failure === undefined) {
        // Nothing is wrong where it was written.
        expect(wrong).toEqual([]);
        if (planted === 1) seen.harmless++;
        else seen.honest++;
      } else {
        expect(planted).toBe(1);
        seen.found++;
        if (kind !== 'misdirectedWrite') expect(unitsOf(failure.ranges, sectorSize)).toEqual(wrong);
        for (const { offset: from, length: bytesNamed, error } of failure.ranges) {
          expect(error).toBeInstanceOf(VerifyError);
          const { differsAt = -1, code } = error as VerifyError;
          expect(code).toBe('ERR_SECTORWISE_VERIFY');
          expect(differsAt).toBeGreaterThanOrEqual(from);
          expect(differsAt).toBeLessThan(from + bytesNamed);
        }
        // Readable as it was accepted, and written again by the next.
        const target = new Uint8Array(length);
        expect(await file.read(target, offset)).toBe(length);
        expect(Buffer.compare(target, bytes)).toBe(0);
        expect(await outcomeOf(file.flush())).toMatchObject({ code: 'ERR_SECTORWISE_FLUSH_FAILED' });
        expect(file.acknowledgeLoss().length).toBe(failure.ranges.length);
        expect(wrongUnits(disk, model, offset, offset + length)).toEqual([]);
      }
      // Whom a misdirected write has hit is nobody's to find: put right from outside.
      if (kind === 'misdirectedWrite') disk.write(0, model);
    }
    await file.close();
    expect(seen.found).toBeGreaterThan(25);
    expect(seen.honest).toBeGreaterThan(3);
    if (kind === 'lostWrite') expect(seen.harmless).toBeGreaterThan(2);
  });
});

describe('a misdirected write', () => {
  it('that hits what the same flush wrote before it is made good by the next flush, though nobody can say what it hit', async () => {
    let hit = 0;
    for (let seed = 1; seed <= 40; seed++) {
      const random = new Random(seed, 3);
      const disk = new SimulatedDisk({
        size: BYTES / 2,
        seed,
        latency: { min: 1, max: 50_000 },
        faults: { misdirectedWrite: 0.2, slow: 0.1 },
        kind: seed % 2 === 0 ? 'file' : 'block-device',
      });
      // All of it is written by the flush: what was written for want of clean frames is not kept for a second time.
      const file = openSimulated(disk, { access: 'read-write', verifyWrites: true, maxTransferSize: 4096, cacheSize: 16 * BYTES, queueDepth: 16 });
      const model = random.fill(new Uint8Array(BYTES / 2));
      await file.write(model, 0);
      const failure = await outcomeOf(file.flush());
      disk.heal();
      const named = unitsOf(failure?.ranges ?? [], 512);
      // Beyond what is named: it was right when it was compared.
      const wrong = wrongUnits(disk, model, 0, BYTES / 2).filter((at) => !named.includes(at));
      hit += wrong.length;
      if (failure === undefined) expect(wrong).toEqual([]);
      else expect(await outcomeOf(file.flush())).toBeInstanceOf(FlushError);
      file.acknowledgeLoss();
      await file.flush();
      expect(wrongUnits(disk, model, 0, BYTES / 2)).toEqual([]);
      expect(await outcomeOf(file.flush())).toBeUndefined();
      await file.close();
    }
    expect(hit).toBeGreaterThan(5);
  });
});

describe('many lies at once', () => {
  it.each([1, 2, 3, 4])('and errors, short transfers and retries among them: exactly what is wrong on the disk is named, seed %d', async (seed) => {
    const faults = {
      lostWrite: 0.06,
      silentTornWrite: 0.06,
      corruptedWrite: 0.06,
      tornWrite: 0.03,
      writeError: 0.03,
      again: 0.05,
      shortRead: 0.1,
      shortWrite: 0.1,
      slow: 0.1,
    };
    const rates: Partial<FaultRates> = seed % 2 === 0 ? faults : { ...faults, readError: 0.05, duplicateCompletion: 0.1, strayCompletion: 0.05 };
    const random = new Random(seed, 2);
    let named = 0;
    let written = 0;
    for (let round = 0; round < 25; round++) {
      const disk = new SimulatedDisk({ size: BYTES, sectorSize: seed > 2 ? 4096 : 512, seed: seed * 1000 + round, faults: rates });
      const model = new Uint8Array(BYTES);
      // Less than a quarter of the cache is dirty: what is written before the flush, and found to be wrong, the flush would put right.
      const file = openSimulated(disk, { access: 'read-write', verifyWrites: true, maxTransferSize: 16 * 1024, cacheSize: 8 * BYTES, readAhead: false });
      for (let at = 0; at < BYTES; ) {
        const length = Math.min(BYTES - at, 512 * (1 + random.below(20)));
        const bytes = random.fill(new Uint8Array(length));
        // Read faults may refuse what of a block has to be read before it is written.
        const taken = await file.write(bytes, at).then(
          () => true,
          () => false,
        );
        if (taken) model.set(bytes, at);
        else model.set(disk.read(at, length), at);
        at += length;
      }
      const failure = await outcomeOf(file.flush());
      written += disk.counts.writes;
      disk.heal();
      const wrong = wrongUnits(disk, model, 0, BYTES);
      if (failure === undefined) expect(wrong).toEqual([]);
      else {
        const units = unitsOf(failure.ranges, disk.sectorSize);
        // What could not be read back, or was refused, may have landed all the same.
        const sure = unitsOf(
          failure.ranges.filter(({ error }) => (error as Partial<VerifyError>).differsAt !== undefined),
          disk.sectorSize,
        );
        named += units.length;
        expect(wrong.filter((at) => !units.includes(at))).toEqual([]);
        if (seed % 2 === 0) expect(sure.filter((at) => !wrong.includes(at))).toEqual([]);
        expect(await outcomeOf(file.flush())).toBeInstanceOf(FlushError);
        file.acknowledgeLoss();
        await file.flush();
      }
      expect(wrongUnits(disk, model, 0, BYTES)).toEqual([]);
      await file.close();
    }
    expect(written).toBeGreaterThan(80);
    expect(named).toBeGreaterThan(10);
  });
});
