/** Dirty blocks on their way to the device: in order, neighbours together, and nothing forgotten that failed. */
import { beforeEach, describe, expect, it } from 'vitest';
import { OP_READ } from '../../src/io/engine.js';
import { BLOCK_BYTES, BLOCK_SECTORS } from '../../src/memory/block-store.js';
import { Staging } from '../../src/memory/staging.js';
import { type RunOptions, WriteBack } from '../../src/requests/write-back.js';
import { createHeapSlab } from '../../src/testing/heap-slab.js';
import { KIB, Rig, type RigOptions } from './manager-rig.js';
import { type Sent, turn } from './manual-engine.js';

const EIO = -5;

let rig: Rig;
let staging: Staging;
let back: WriteBack;
let ended: number;

function setUp(options: RigOptions & { staging?: number } = {}): void {
  rig = new Rig({ transferLimit: 64 * KIB, ...options });
  staging = new Staging(rig.engine, createHeapSlab, options.staging);
  back = new WriteBack(rig.frames, staging, rig.manager, '/a/file', options.transferLimit ?? 64 * KIB, rig.engine.depth);
  ended = 0;
}

beforeEach(() => setUp());

/** Brings blocks into frames, one run, and gives the pins back. */
async function load(first: number, count = 1): Promise<void> {
  const caller = rig.ask(first, count);
  await rig.run();
  expect(caller.error).toBeUndefined();
  rig.release(caller);
}

/** Sectors of the block changed in memory: every byte of it is `value` from now on. */
function change(block: number, value: number, mask = 0xff): void {
  const frame = rig.frames.find(block);
  for (let sector = 0; sector < BLOCK_SECTORS; sector++) {
    if (mask & (1 << sector)) rig.frames.bytesOf(frame).fill(value, sector * 512, (sector + 1) * 512);
  }
  back.mark(block, frame, mask);
}

async function begin(options: RunOptions = {}): Promise<void> {
  back.run(options, () => ended++);
  await turn();
}

/** What is left when everything has ended. */
function leak(): string | undefined {
  return staging.free === staging.blocks ? rig.leak : `${staging.blocks - staging.free} blocks to write from`;
}

/** Writes in flight: first sector and sectors. */
function writes(): [number, number][] {
  return rig.engine.sent.map(({ position, length }) => [position / 512, length / 512]);
}

/** What is dirty now, by block. */
function dirtyBlocks(): Record<number, number> {
  const found: Record<number, number> = {};
  for (let frame = 0; frame < rig.frames.frames; frame++) if (rig.frames.dirtyOf(frame) !== 0) found[rig.frames.blockAt(frame)] = rig.frames.dirtyOf(frame);
  return found;
}

/** The byte that was written there last. */
function bytesAt(at: number): number {
  const write = rig.engine.written.findLast(({ position, bytes }) => position <= at && position + bytes.length > at)!;
  return write.bytes[at - write.position];
}

function bytesWritten(position: number): number[] {
  const { bytes } = rig.engine.written.findLast((write) => write.position <= position && write.position + write.bytes.length > position)!;
  return [...new Set(bytes)];
}

describe('a run', () => {
  it('writes neighbours as one operation, in the order of the device', async () => {
    await load(0, 12);
    for (const block of [9, 2, 4, 3, 8]) change(block, block);
    await begin();
    expect(writes()).toEqual([
      [16, 24],
      [64, 16],
    ]);
    expect([back.running, ended]).toEqual([true, 0]);
    await rig.complete();
    expect([back.running, ended, dirtyBlocks()]).toEqual([false, 1, {}]);
    expect(rig.engine.written.map(({ bytes }) => [bytes[0], bytes.at(-1)])).toEqual([
      [2, 4],
      [8, 9],
    ]);
    expect(leak()).toBeUndefined();
  });

  it('joins neighbours that are apart in memory, up to one transfer', async () => {
    setUp({ transferLimit: 16 * KIB });
    await load(1);
    await load(0);
    await load(2, 10);
    for (let block = 0; block < 12; block++) change(block, block + 1);
    await begin();
    expect(writes()).toEqual([
      [0, 32],
      [32, 32],
      [64, 32],
    ]);
    await rig.complete();
    for (let block = 0; block < 12; block++) expect(bytesAt(block * BLOCK_BYTES)).toBe(block + 1);
    expect(leak()).toBeUndefined();
  });

  it('copies what it writes, so that nobody has to wait with a store; what is long and lies together goes straight from its frames', async () => {
    setUp({ transferLimit: 1024 * KIB, mergeLimit: 1024 * KIB });
    await load(0, 64);
    await load(100, 8);
    for (let block = 0; block < 64; block++) change(block, 1);
    for (let block = 100; block < 108; block++) change(block, 1);
    await begin();
    expect(writes()).toEqual([
      [0, 512],
      [800, 64],
    ]);
    expect([rig.frames.isBusy(rig.frames.find(5)), rig.frames.isBusy(rig.frames.find(105)), back.isWriting(5), back.isWriting(105)]).toEqual([
      true,
      false,
      true,
      true,
    ]);
    expect(staging.blocks - staging.free).toBe(8);
    change(105, 2);
    const store = await rig.askNow(105, 1, { needFirst: 0, needLast: 0, store: true });
    expect(store.settled).toBe(1);
    const later = await rig.askNow(5, 1, { needFirst: 0, needLast: 0, store: true });
    expect(later.settled).toBe(0);
    await rig.complete();
    expect([later.settled, bytesAt(105 * BLOCK_BYTES), dirtyBlocks()]).toEqual([1, 1, { 105: 0xff }]);
    rig.release(store);
    rig.release(later);
    await begin();
    await rig.complete();
    expect([bytesAt(105 * BLOCK_BYTES), leak()]).toEqual([2, undefined]);
  });

  it('has few writes on their way at once, and fewer beside those of others', async () => {
    setUp({ depth: 8 });
    await load(0, 40);
    for (let block = 0; block < 40; block += 2) change(block, 1);
    await begin();
    expect(rig.engine.sent.length).toBe(4);
    const reader = await rig.askNow(200);
    await rig.complete(rig.engine.sent.slice(0, 3));
    expect(rig.engine.sent.map(({ opcode }) => opcode === OP_READ)).toEqual([false, true, false]);
    await rig.run();
    expect([ended, dirtyBlocks()]).toEqual([1, {}]);
    rig.release(reader);
    expect(leak()).toBeUndefined();
  });

  it('waits for memory to copy to', async () => {
    setUp({ staging: 3 });
    await load(0, 40);
    for (const block of [0, 1, 2, 3, 4, 10, 12, 20]) change(block, block + 1);
    await begin();
    expect(writes()).toEqual([[0, 24]]);
    await rig.run();
    expect([ended, dirtyBlocks(), leak()]).toEqual([1, {}, undefined]);
    for (const block of [0, 1, 2, 3, 4, 10, 12, 20]) expect(bytesAt(block * BLOCK_BYTES)).toBe(block + 1);
  });

  it('says when all that it writes is fixed, and leaves what lies behind a block', async () => {
    setUp({ depth: 2 });
    await load(0, 10);
    for (const block of [0, 2, 4, 6]) change(block, 1);
    let taken = 0;
    await begin({ before: 5, taken: () => taken++ });
    expect([rig.engine.sent.length, taken]).toEqual([1, 0]);
    await rig.complete();
    await rig.complete();
    expect([rig.engine.sent.length, taken, ended]).toEqual([1, 1, 0]);
    await rig.complete();
    expect([taken, ended, dirtyBlocks()]).toEqual([1, 1, { 6: 0xff }]);
  });

  it('writes the changed sectors alone, and joins those that touch across blocks', async () => {
    await load(0, 4);
    change(0, 1, 0b11000000);
    change(1, 2, 0xff);
    change(2, 3, 0b00000111);
    change(3, 4, 0b01000010);
    await begin();
    expect(writes()).toEqual([
      [6, 13],
      [25, 1],
      [30, 1],
    ]);
    await rig.complete();
    expect(dirtyBlocks()).toEqual({});
    expect(leak()).toBeUndefined();
  });

  it('keeps both sides of a 2 TiB border apart', async () => {
    const border = 2 ** 32 / BLOCK_SECTORS;
    setUp({ gapLimit: 0 });
    // Neighbours in memory too: the first frames are taken one after the other.
    await load(border - 1);
    await load(border);
    change(border - 1, 1);
    change(border, 2);
    await begin();
    expect(writes()).toEqual([
      [2 ** 32 - 8, 8],
      [2 ** 32, 8],
    ]);
    await rig.complete();
    expect(leak()).toBeUndefined();
  });

  it('takes what changes meanwhile with the next run', async () => {
    await load(0);
    change(0, 1);
    await begin();
    back.mark(0, rig.frames.find(0), 0b1);
    back.run({}, () => ended++);
    await rig.complete();
    expect([ended, dirtyBlocks(), back.hopeful]).toEqual([2, { 0: 1 }, true]);
    await begin();
    await rig.complete();
    expect([ended, dirtyBlocks(), back.hopeful]).toEqual([3, {}, false]);
  });

  it('with nothing to write ends at once', async () => {
    back.run({ keep: true }, () => ended++);
    expect([ended, back.running]).toEqual([1, false]);
  });

  it('writes beside a read of other sectors of the block', async () => {
    const memory = rig.ask(0, 1, { needFirst: 0, needLast: 0, store: true });
    await turn();
    rig.frames.markValid(rig.frames.find(0), 0b1111);
    change(0, 9, 0b1111);
    rig.release(memory);
    const reader = await rig.askNow(0);
    await begin();
    expect(writes()).toEqual([
      [4, 4],
      [0, 4],
    ]);
    await rig.complete();
    expect([reader.settled, ended, dirtyBlocks(), bytesWritten(0)]).toEqual([1, 1, {}, [9]]);
    rig.release(reader);
    expect(leak()).toBeUndefined();
  });

  it('waits where somebody else is on the very sectors', async () => {
    await load(0, 3);
    for (const block of [0, 1, 2]) change(block, 9);
    let others = 0;
    rig.manager.write(8, 8, 0, 0, { operationEnded: () => others++, operationSplit: () => {} });
    let taken = 0;
    await begin({ taken: () => taken++ });
    expect(writes()).toEqual([
      [8, 8],
      [0, 8],
      [16, 8],
    ]);
    expect(taken).toBe(0);
    await rig.complete();
    await turn();
    expect([others, taken, writes(), ended]).toEqual([1, 1, [[8, 8]], 0]);
    await rig.complete();
    expect([ended, dirtyBlocks(), leak()]).toEqual([1, {}, undefined]);
  });

  it('tells which sectors the device has', async () => {
    const written: [number, number][] = [];
    back.onWritten = (start, sectors) => written.push([start, sectors]);
    await load(0, 4);
    change(1, 1);
    change(3, 1, 0b11);
    await begin();
    await rig.complete();
    expect(written).toEqual([
      [8, 8],
      [24, 2],
    ]);
  });

  it('names, once the device is gone, what is dirty, on its way, written and not synced, and what of the file was reshaped; in order, each once', async () => {
    await load(0, 8);
    change(1, 1);
    change(2, 1, 0b11);
    await begin();
    await rig.complete();
    change(2, 1, 0b110);
    change(5, 1);
    back.reshaped(100, 50);
    expect(back.dirtyEnd).toBe(6 * BLOCK_BYTES);
    const gone = new Error('gone');
    back.losses.push({ offset: 5 * BLOCK_BYTES, length: BLOCK_BYTES, error: new Error('named before') });
    back.loseAll(gone, [{ offset: 3 * BLOCK_BYTES, length: 10 }]);
    expect(back.losses.slice(1)).toEqual([
      { offset: 100, length: 50, error: gone },
      { offset: BLOCK_BYTES, length: BLOCK_BYTES + 3 * 512, error: gone },
      { offset: 3 * BLOCK_BYTES, length: 10, error: gone },
    ]);
    expect(back.unsyncedCount).toBe(0);
    expect(back.acknowledge().length).toBe(4);
    expect(back.losses).toEqual([]);
  });
});

describe('what somebody may store into', () => {
  it('is copied when the run begins, and the copy is what is written', async () => {
    await load(0, 3);
    for (const block of [0, 1, 2]) change(block, 5);
    const frame = rig.frames.find(1);
    rig.frames.pinFrame(frame);
    rig.frames.writers[frame]++;
    await begin();
    rig.frames.bytesOf(frame).fill(77);
    expect(rig.frames.isBusy(frame)).toBe(false);
    await rig.complete();
    expect(bytesWritten(BLOCK_BYTES)).toEqual([5]);
    expect(ended).toBe(1);
    rig.frames.writers[frame]--;
    rig.frames.unpinFrame(frame);
    expect(leak()).toBeUndefined();
  });

  it('is written as it was when the snapshot was made, even if the run begins later', async () => {
    await load(0, 2);
    change(0, 1);
    change(1, 1);
    const frame = rig.frames.find(1);
    rig.frames.pinFrame(frame);
    rig.frames.writers[frame]++;
    const copies = back.snapshot();
    expect([...copies.keys()]).toEqual([1]);
    rig.frames.bytesOf(frame).fill(77);
    await begin({ keep: true, copies });
    await rig.complete();
    expect([bytesWritten(0), bytesWritten(BLOCK_BYTES)]).toEqual([[1], [1]]);
  });

  it('may be more than there is memory for copies: the rest follows', async () => {
    setUp({ staging: 16 });
    const count = 26;
    await load(0, count);
    for (let block = 0; block < count; block++) {
      change(block, (block % 250) + 1);
      rig.frames.pin(block);
      rig.frames.writers[rig.frames.find(block)]++;
    }
    await begin({ copies: back.snapshot() });
    for (let block = 0; block < count; block++) rig.frames.bytesOf(rig.frames.find(block)).fill(255);
    await rig.run();
    expect([ended, dirtyBlocks()]).toEqual([1, {}]);
    for (let block = 0; block < count; block++) expect(bytesAt(block * BLOCK_BYTES)).toBe((block % 250) + 1);
    for (let block = 0; block < count; block++) {
      rig.frames.writers[rig.frames.find(block)]--;
      rig.frames.unpin(block);
    }
    expect(leak()).toBeUndefined();
  });
});

describe('what could not be written', () => {
  const badSector =
    (bad: number) =>
    ({ position, length }: Sent): number =>
      bad * 512 >= position && bad * 512 < position + length ? EIO : length;

  it('stays dirty and is named, and the rest is written', async () => {
    await load(0, 4);
    for (let block = 0; block < 4; block++) change(block, 3);
    await begin();
    await rig.run(badSector(11));
    expect([ended, back.hopeful, dirtyBlocks()]).toEqual([1, false, { 1: 0b1000 }]);
    expect(back.losses.map(({ offset, length }) => [offset, length])).toEqual([[11 * 512, 512]]);
    expect((back.losses[0].error as NodeJS.ErrnoException).code).toBe('EIO');
  });

  it('is tried again by the next run, and not named twice', async () => {
    await load(0, 2);
    change(0, 3);
    for (let round = 0; round < 3; round++) {
      await begin();
      await rig.run(badSector(2));
      expect([dirtyBlocks(), back.losses.length]).toEqual([{ 0: 0b100 }, 1]);
    }
    await begin();
    await rig.run();
    expect([dirtyBlocks(), back.losses.length]).toEqual([{}, 1]);
    expect(back.acknowledge().length).toBe(1);
    expect(back.losses).toEqual([]);
    expect(leak()).toBeUndefined();
  });

  it('is given up when it is acknowledged: its frames are dropped, so that the device’s bytes are read again', async () => {
    await load(0, 2);
    change(0, 3);
    change(1, 4);
    await begin();
    await rig.run(() => EIO);
    expect(back.acknowledge().map(({ offset, length }) => [offset, length])).toEqual([[0, 2 * BLOCK_BYTES]]);
    expect([dirtyBlocks(), rig.frames.find(0), rig.frames.find(1)]).toEqual([{}, -1, -1]);
    expect(leak()).toBeUndefined();
  });

  it('stays in memory for the windows that hold it', async () => {
    await load(0);
    change(0, 3);
    rig.frames.pin(0);
    await begin();
    await rig.run(() => EIO);
    back.acknowledge();
    expect([dirtyBlocks(), rig.frames.find(0) >= 0]).toEqual([{}, true]);
    rig.frames.unpin(0);
    expect(leak()).toBeUndefined();
  });
});

describe('after a sync', () => {
  it('that succeeded nothing is held any more', async () => {
    await load(0, 2);
    change(0, 3);
    await begin({ keep: true });
    await rig.complete();
    expect([back.unsyncedCount, rig.frames.census().pinned]).toEqual([1, 1]);
    back.syncBegins();
    back.synced();
    expect([back.unsyncedCount, leak()]).toEqual([0, undefined]);
  });

  it('that failed everything written since the last one is dirty again, and named', async () => {
    await load(0, 4);
    change(0, 3);
    change(2, 3, 0b110);
    await begin({ keep: true });
    await rig.complete();
    back.syncBegins();
    back.syncFailed(EIO, 4 * BLOCK_BYTES);
    expect([dirtyBlocks(), back.unsyncedCount, back.hopeful]).toEqual([{ 0: 0xff, 2: 0b110 }, 0, true]);
    expect(back.losses.map(({ offset, length }) => [offset, length])).toEqual([
      [0, BLOCK_BYTES],
      [2 * BLOCK_BYTES + 512, 1024],
    ]);
    await begin({ keep: true });
    await rig.complete();
    back.syncBegins();
    back.synced();
    expect([dirtyBlocks(), back.losses.length]).toEqual([{}, 2]);
    back.acknowledge();
    expect(leak()).toBeUndefined();
  });

  it('that failed may have lost what was written while it was under way too: it is named and dirty again', async () => {
    await load(0, 4);
    change(0, 3);
    change(1, 3);
    await begin({ keep: true });
    await rig.complete();
    back.syncBegins();
    change(1, 4);
    change(3, 4);
    await begin();
    await rig.complete();
    expect(back.unsyncedCount).toBe(2);
    back.syncFailed(EIO, 4 * BLOCK_BYTES);
    expect([dirtyBlocks(), back.unsyncedCount]).toEqual([{ 0: 0xff, 1: 0xff, 3: 0xff }, 0]);
    expect(back.losses.map(({ offset, length }) => [offset, length])).toEqual([
      [0, 2 * BLOCK_BYTES],
      [3 * BLOCK_BYTES, BLOCK_BYTES],
    ]);
    await begin({ keep: true });
    await rig.complete();
    back.syncBegins();
    back.synced();
    expect([bytesAt(BLOCK_BYTES), back.unsyncedCount]).toEqual([4, 0]);
    back.acknowledge();
    expect(leak()).toBeUndefined();
  });

  it('that failed with nothing written of our own names the whole file', () => {
    back.syncFailed(EIO, 12345);
    expect(back.losses.map(({ offset, length }) => [offset, length])).toEqual([[0, 12345]]);
  });

  it('a block that is forgotten is neither written nor held', async () => {
    await load(0, 2);
    change(0, 3);
    await begin({ keep: true });
    await rig.complete();
    change(1, 3);
    back.forget(0);
    back.forget(1);
    rig.frames.markClean(rig.frames.find(1), 0xff);
    expect(back.unsyncedCount).toBe(0);
    await begin({ keep: true });
    expect([ended, rig.engine.sent.length, leak()]).toEqual([2, 0, undefined]);
  });
});

describe('a durable run', () => {
  const EOPNOTSUPP = -95;

  it('is one write that is durable itself', async () => {
    const written: boolean[] = [];
    back.onWritten = (_start, _sectors, durable) => written.push(durable);
    await load(0, 4);
    change(1, 1);
    change(2, 1);
    await begin({ keep: true, durable: true });
    expect(rig.engine.sent.map(({ durable }) => durable)).toEqual([true]);
    await rig.complete();
    expect([ended, back.durable, written]).toEqual([1, true, [true]]);
  });

  it('is none where it would be several writes, or one with gaps', async () => {
    await load(0, 8);
    for (const marks of [
      [1, 3],
      [1, 2],
    ]) {
      for (const block of marks) change(block, 1, marks[1] === 3 ? 0xff : 0b101);
      await begin({ keep: true, durable: true });
      expect([back.durable, rig.engine.sent.some(({ durable }) => durable)]).toEqual([false, false]);
      await rig.complete();
    }
    back.syncBegins();
    back.synced();
    expect(leak()).toBeUndefined();
  });

  it('is written once more without, where the file system does not know it, and never asked for again', async () => {
    await load(0, 4);
    change(1, 1);
    await begin({ keep: true, durable: true });
    await rig.complete(undefined, EOPNOTSUPP);
    expect([ended, writes(), rig.engine.sent.map(({ durable }) => durable)]).toEqual([0, [[8, 8]], [false]]);
    await rig.complete();
    expect([ended, back.durable, back.losses, back.unsyncedCount]).toEqual([1, false, [], 1]);
    change(2, 1);
    await begin({ keep: true, durable: true });
    expect(rig.engine.sent.map(({ durable }) => durable)).toEqual([false]);
    await rig.complete();
    back.syncBegins();
    back.synced();
    expect(leak()).toBeUndefined();
  });

  it('that fails is tried again and named as any other', async () => {
    await load(0, 4);
    change(1, 1);
    await begin({ keep: true, durable: true });
    await rig.run(() => EIO);
    expect([ended, dirtyBlocks(), back.losses.map(({ offset, length }) => [offset, length])]).toEqual([1, { 1: 0xff }, [[4096, 4096]]]);
    expect(rig.engine.history.filter(({ opcode }) => opcode !== OP_READ).every(({ durable }) => durable)).toBe(true);
  });
});
