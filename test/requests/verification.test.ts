/** Reading back what was written: when a write counts, what is said to be wrong with it, and that everything ends once whatever happens meanwhile. */
import { describe, expect, it } from 'vitest';
import { OP_READ, OP_WRITE } from '../../src/io/engine.js';
import { BLOCK_BYTES, SECTOR_BYTES } from '../../src/memory/block-store.js';
import type { OperationOwner } from '../../src/requests/request-manager.js';
import type { VerifyError } from '../../src/requests/verify-error.js';
import { Rig, type RigOptions } from './manager-rig.js';
import { contentAt, type Sent, turn } from './manual-engine.js';

const KIB = 1024;
const EIO = -5;
const EAGAIN = -11;
const EPERM = -1;
const ENODEV = -19;

/** An owner that keeps how its write ended. */
class Writer implements OperationOwner {
  readonly ends: { start: number; sectors: number; result: number; error?: Error }[] = [];
  pending = 1;

  operationEnded(start: number, sectors: number, result: number, error?: Error): void {
    this.ends.push(error === undefined ? { start, sectors, result } : { start, sectors, result, error });
    this.pending--;
  }

  operationSplit(): void {
    this.pending++;
  }
}

/** A rig whose frames hold the blocks [first, first+count): what the engine reads back of them is the same, until a test changes a frame. */
async function rigWith(first: number, count: number, options: RigOptions = {}): Promise<Rig> {
  const rig = new Rig({ verifyBytes: 64 * KIB, ...options });
  const caller = rig.ask(first, count);
  await rig.run();
  rig.release(caller);
  rig.engine.history.length = 0;
  return rig;
}

function write(rig: Rig, block: number, blocks: number): Writer {
  const writer = new Writer();
  const frame = rig.frames.find(block);
  rig.manager.write(block * 8, blocks * 8, rig.frames.slabOf(frame), rig.frames.offsetOf(frame), writer);
  return writer;
}

/** What was sent, as `write first+count` in blocks. */
function told(entries: readonly Sent[]): string[] {
  const name = (opcode: number): string => (opcode === OP_WRITE ? 'write' : opcode === OP_READ ? 'read' : String(opcode));
  return entries.map(({ opcode, position, length }) => `${name(opcode)} ${position / BLOCK_BYTES}+${length / BLOCK_BYTES}`);
}

/** The byte of a block's frame differs from what the engine reads back from here on. */
function change(rig: Rig, block: number, at: number): void {
  rig.frames.bytesOf(rig.frames.find(block))[at] ^= 0x10;
}

describe('a write that is read back', () => {
  it('counts once the same bytes came back, and is busy until then', async () => {
    const rig = await rigWith(10, 2);
    const writer = write(rig, 10, 2);
    await turn();
    expect(told(rig.engine.sent)).toEqual(['write 10+2']);
    await rig.complete();
    expect(told(rig.engine.sent)).toEqual(['read 10+2']);
    expect(rig.engine.sent[0].slab).toBe(rig.verification?.slab);
    expect(writer.ends).toEqual([]);
    expect(rig.frames.isBusy(rig.frames.find(10))).toBe(true);
    const store = rig.ask(11, 1, { store: true });
    await turn();
    expect(store.settled).toBe(0);
    await rig.complete();
    expect(writer.ends).toEqual([{ start: 80, sectors: 16, result: 0 }]);
    expect(store.settled).toBe(1);
    expect(rig.manager.counts).toMatchObject({ deviceWrites: 1, deviceWriteBytes: 8 * KIB, deviceReads: 2, deviceReadBytes: 16 * KIB });
    rig.release(store);
    expect(rig.leak).toBeUndefined();
  });

  it('is not one that failed', async () => {
    const rig = await rigWith(10, 1);
    const writer = write(rig, 10, 1);
    await rig.run(() => EPERM);
    expect(told(rig.engine.history)).toEqual(['write 10+1']);
    expect(writer.ends).toEqual([{ start: 80, sectors: 8, result: EPERM }]);
  });

  it('is read back in pieces where it is large, in order of the ends of writes where many are, within the memory that there is', async () => {
    const rig = await rigWith(0, 100, { verifyBytes: 64 * KIB });
    const large = write(rig, 0, 40);
    const others = [write(rig, 50, 4), write(rig, 60, 4), write(rig, 70, 4)];
    await turn();
    await rig.complete();
    // All of the memory is the first's.
    expect(told(rig.engine.sent)).toEqual(['read 0+16']);
    await rig.complete();
    expect(told(rig.engine.sent)).toEqual(['read 16+16']);
    await rig.complete();
    expect(told(rig.engine.sent)).toEqual(['read 32+8']);
    await rig.complete();
    expect(told(rig.engine.sent)).toEqual(['read 50+4', 'read 60+4', 'read 70+4']);
    expect(new Set(rig.engine.sent.map(({ offset }) => offset)).size).toBe(3);
    await rig.complete();
    for (const { ends, pending } of [large, ...others]) expect({ pending, results: ends.map(({ result }) => result) }).toEqual({ pending: 0, results: [0] });
    expect(rig.leak).toBeUndefined();
  });

  it('that goes on from short transfers and refusals of the moment counts all the same', async () => {
    const rig = await rigWith(10, 4);
    const writer = write(rig, 10, 4);
    let step = 0;
    await rig.run((entry) => [EAGAIN, 5000, entry.length, EAGAIN, 700, 0, 4096, entry.length][step++] ?? entry.length);
    expect(writer.ends).toEqual([{ start: 80, sectors: 32, result: 0 }]);
    const reads = rig.engine.history.filter(({ opcode }) => opcode === OP_READ).map(({ position, length }) => [position - 10 * BLOCK_BYTES, length]);
    expect(reads).toEqual([
      [0, 16 * KIB],
      [0, 16 * KIB],
      [512, 16 * KIB - 512],
      [512, 16 * KIB - 512],
      [4608, 16 * KIB - 4608],
    ]);
  });

  it('is not taken for done by a second completion of the write', async () => {
    const rig = await rigWith(10, 1);
    const writer = write(rig, 10, 1);
    await turn();
    const [sent] = rig.engine.sent;
    await rig.complete([sent]);
    rig.engine.post(sent.handle, sent.length);
    await rig.engine.wake();
    expect(writer.ends).toEqual([]);
    await rig.complete();
    expect(writer.ends).toEqual([{ start: 80, sectors: 8, result: 0 }]);
  });

  it('counts up to where somebody else cut the file', async () => {
    const rig = await rigWith(10, 4);
    const writer = write(rig, 10, 4);
    await turn();
    await rig.complete();
    rig.committedSize = 11 * BLOCK_BYTES;
    await rig.complete(undefined, BLOCK_BYTES);
    await rig.complete(undefined, 0);
    expect(writer.ends).toEqual([{ start: 80, sectors: 32, result: 0 }]);
  });

  it('is waited for by a blocking call', async () => {
    const rig = await rigWith(10, 20, { verifyBytes: 16 * KIB });
    const writer = write(rig, 10, 20);
    rig.engine.onWait = () => {
      for (const entry of [...rig.engine.sent]) rig.engine.complete(entry);
    };
    for (let step = 0; writer.pending > 0 && step < 100; step++) rig.manager.progress();
    expect(writer.ends).toEqual([{ start: 80, sectors: 160, result: 0 }]);
    await turn();
    expect(rig.leak).toBeUndefined();
  });
});

describe('what differs', () => {
  it('is named by units with its first byte, and the rest of the write counts', async () => {
    const rig = await rigWith(10, 4);
    change(rig, 11, 700);
    change(rig, 11, 1300);
    change(rig, 13, 4095);
    const writer = write(rig, 10, 4);
    await rig.run();
    expect(writer.pending).toBe(0);
    expect(writer.ends.map(({ start, sectors, result }) => [start, sectors, result])).toEqual([
      [80, 9, 0],
      [89, 2, EIO],
      [91, 20, 0],
      [111, 1, EIO],
    ]);
    const [, first, , second] = writer.ends.map(({ error }) => error as VerifyError);
    expect(first).toMatchObject({ code: 'ERR_SECTORWISE_VERIFY', path: '/a/file', offset: 89 * 512, length: 1024, differsAt: 11 * BLOCK_BYTES + 700 });
    const there = contentAt(11 * BLOCK_BYTES + 700).toString(16);
    expect(first.message).toContain(`first at byte ${11 * BLOCK_BYTES + 700} (sector 89)`);
    expect(first.message).toContain(`0x${there.padStart(2, '0')} is there`);
    expect(second).toMatchObject({ offset: 111 * 512, length: 512, differsAt: 14 * BLOCK_BYTES - 1 });
    expect(rig.leak).toBeUndefined();
  });

  it('is named by whole units of the device', async () => {
    const rig = await rigWith(10, 4, { alignment: 4096 });
    change(rig, 12, 700);
    const writer = write(rig, 10, 4);
    await rig.run();
    expect(writer.ends.map(({ start, sectors, result }) => [start, sectors, result])).toEqual([
      [80, 16, 0],
      [96, 8, EIO],
      [104, 8, 0],
    ]);
  });

  it('is found in every piece of a write', async () => {
    const rig = await rigWith(0, 64, { verifyBytes: 16 * KIB });
    for (const block of [0, 3, 4, 17, 63]) change(rig, block, 0);
    const writer = write(rig, 0, 64);
    await rig.run();
    expect(writer.ends.filter(({ result }) => result !== 0).map(({ start }) => start)).toEqual([0, 24, 32, 136, 504]);
    expect(writer.ends.reduce((sum, { sectors }) => sum + sectors, 0)).toBe(512);
  });
});

describe('what cannot be read back', () => {
  const bad = (entry: Sent, sector: number): boolean =>
    entry.opcode === OP_READ && entry.position <= sector * SECTOR_BYTES && entry.position + entry.length > sector * SECTOR_BYTES;

  it('is named down to the unit, asked for by itself before it is believed', async () => {
    const rig = await rigWith(10, 16);
    const writer = write(rig, 10, 16);
    let together = 0;
    await rig.run((entry) => {
      if (bad(entry, 100)) together = Math.max(together, rig.engine.sent.length);
      return bad(entry, 100) ? EIO : entry.length;
    });
    expect(writer.ends.map(({ start, sectors, result }) => [start, sectors, result])).toEqual([
      [80, 20, 0],
      [100, 1, EIO],
      [101, 107, 0],
    ]);
    const error = writer.ends[1].error as VerifyError;
    expect(error).toMatchObject({ code: 'ERR_SECTORWISE_VERIFY', offset: 51200, length: 512, differsAt: undefined, cause: { code: 'EIO', syscall: 'read' } });
    expect(together).toBe(1);
    // Halved down to the sector, doubled again behind it; nothing is written twice.
    expect(rig.engine.history.filter(({ opcode }) => opcode === OP_WRITE).length).toBe(1);
    expect(rig.engine.history.length).toBeLessThan(30);
  });

  it('is asked for once more where a neighbour’s fault may have been its own', async () => {
    const rig = await rigWith(10, 8);
    const writers = [write(rig, 10, 4), write(rig, 14, 4)];
    await turn();
    await rig.complete();
    expect(told(rig.engine.sent)).toEqual(['read 10+4', 'read 14+4']);
    // The kernel made one request of both, and failed both.
    await rig.complete(undefined, EIO);
    await rig.run((entry) => (bad(entry, 80) ? EIO : entry.length));
    expect(writers[1].ends).toEqual([{ start: 112, sectors: 32, result: 0 }]);
    expect(writers[0].ends.map(({ start, sectors, result }) => [start, sectors, result])).toEqual([
      [80, 1, EIO],
      [81, 31, 0],
    ]);
  });

  it('is all of the rest where smaller pieces would get the same answer', async () => {
    const rig = await rigWith(10, 8, { verifyBytes: 16 * KIB });
    const writer = write(rig, 10, 8);
    await rig.run((entry) => (entry.opcode === OP_READ && entry.position > 10 * BLOCK_BYTES ? EPERM : entry.length));
    expect(writer.ends.map(({ start, sectors, result }) => [start, sectors, result])).toEqual([
      [80, 32, 0],
      [112, 32, EIO],
    ]);
    expect(writer.ends[1].error).toMatchObject({ cause: { code: 'EPERM' } });
  });
});

describe('a device that goes away meanwhile', () => {
  const gone = (): Error => Object.assign(new Error('gone'), { code: 'ERR_SECTORWISE_UNPLUGGED' });

  it('ends each write once: those that are read back when their reads do, those in line at once', async () => {
    const rig = await rigWith(0, 64, { verifyBytes: 32 * KIB });
    const writers = [write(rig, 0, 8), write(rig, 8, 8), write(rig, 16, 8), write(rig, 24, 8)];
    await turn();
    await rig.complete();
    expect(told(rig.engine.sent)).toEqual(['read 0+8']);
    const late = [...rig.engine.sent];
    rig.manager.fail(gone);
    await turn();
    expect(writers.map(({ ends }) => ends.map(({ result }) => result))).toEqual([[], [ENODEV], [ENODEV], [ENODEV]]);
    await rig.complete(late);
    await turn();
    expect(writers.map(({ ends }) => ends.map(({ result }) => result))).toEqual([[ENODEV], [ENODEV], [ENODEV], [ENODEV]]);
    expect(rig.engine.sent).toEqual([]);
    expect(rig.leak).toBeUndefined();
  });

  it('is asked about when a read-back fails, and nobody is told before', async () => {
    const rig = await rigWith(10, 1);
    let known: (() => void) | undefined;
    rig.suspect = (_result, settled) => {
      known = settled;
      return true;
    };
    const writer = write(rig, 10, 1);
    await turn();
    await rig.complete();
    await rig.complete(undefined, EIO);
    expect(writer.ends).toEqual([]);
    // It was not: the sector is looked for.
    rig.suspect = () => false;
    known?.();
    await rig.run();
    expect(writer.ends).toEqual([{ start: 80, sectors: 8, result: 0 }]);
  });

  it('is found by reads that bring nothing', async () => {
    const rig = await rigWith(10, 1);
    let asked = 0;
    rig.suspect = () => {
      asked++;
      return false;
    };
    const writer = write(rig, 10, 1);
    await rig.run((entry) => (entry.opcode === OP_READ ? 0 : entry.length));
    expect(asked).toBe(2);
    expect(writer.ends).toEqual([{ start: 80, sectors: 8, result: EIO }]);
    expect(rig.leak).toBeUndefined();
  });
});
