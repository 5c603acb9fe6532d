/**
 * The engines of the addon against real files: every operation, bad entries, both ways to wait, and the ends of rings, workers and processes.
 */
import assert from 'node:assert/strict';
import { execFile, execFileSync, spawnSync } from 'node:child_process';
import {
  chmodSync,
  closeSync,
  constants,
  copyFileSync,
  fstatSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  rmSync,
  statSync,
  truncateSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  CONTROL_ARMED,
  ENTRY_WORDS,
  type Engine,
  type EngineName,
  FLAG_ASYNC,
  FLAG_DURABLE,
  OP_ALLOCATE,
  OP_DISCARD,
  OP_EVICT,
  OP_FILL,
  OP_READ,
  OP_SYNC,
  OP_TRUNCATE,
  OP_WRITE,
  type Slab,
} from '../../src/io/engine.js';
import { native } from '../../src/io/native.js';
import { openNativeEngine } from '../../src/io/native-engine.js';
import { note } from '../fixtures/places.js';
import { LoopDevices, noLoopDevices } from '../geometry/loop-devices.js';
import { until } from '../unplug/until.js';

const here = dirname(fileURLToPath(import.meta.url));
const run = promisify(execFile);
const EINVAL = -22;
const MIB = 1 << 20;
const FILE_BYTES = 16 * MIB;

const forced = process.env.SECTORWISE_ENGINE;
delete process.env.SECTORWISE_ENGINE;
const folder = mkdtempSync(join(tmpdir(), 'sectorwise-engine-'));
const path = join(folder, 'data');
const addon = join(folder, 'sectorwise.node');
const child = join(folder, 'child.mjs');
const root = process.getuid?.() === 0;

function refusal(engine: EngineName): string | undefined {
  try {
    openNativeEngine({ engine, depth: 1 }).close();
    return undefined;
  } catch (error) {
    return (error as Error).message;
  }
}

function has(command: string): boolean {
  return spawnSync(command, ['--version']).error === undefined;
}

beforeAll(() => {
  const fd = openSync(path, 'w');
  const block = Buffer.alloc(MIB);
  for (let position = 0; position < FILE_BYTES; position += MIB) {
    for (let at = 0; at < MIB; at += 4) block.writeUInt32LE(Math.imul((position + at) >>> 2, 2654435761) >>> 0, at);
    writeSync(fd, block);
  }
  closeSync(fd);
  // Children may run as somebody who may not read where this package lies.
  copyFileSync(join(here, '../../build/Release/sectorwise.node'), addon);
  copyFileSync(join(here, 'fixtures/child.mjs'), child);
  chmodSync(folder, 0o755);
});

afterAll(() => {
  rmSync(folder, { recursive: true });
  if (forced !== undefined) process.env.SECTORWISE_ENGINE = forced;
});

interface Completion {
  handle: number;
  result: number;
}

/** Bytes of shared memory that this process has in memory: slabs. */
function sharedMemory(): number {
  return Number(/^RssShmem:\s+(\d+) kB/m.exec(readFileSync('/proc/self/status', 'utf8'))![1]) * 1024;
}

/** A ring with one file and one slab, and the least of a driver. */
class Bench {
  readonly engine: Engine;
  readonly fd: number;
  readonly slab: Slab;
  readonly bytes: Uint8Array;
  readonly file: number;
  readonly slabIndex: number;
  readonly #heads: number[];

  constructor(name: EngineName, { depth = 64, flags = constants.O_RDONLY, file = path, slabBytes = MIB } = {}) {
    this.engine = openNativeEngine({ engine: name, depth });
    this.fd = openSync(file, flags, 0o644);
    const slab = native().createSlab(slabBytes);
    if (typeof slab === 'number') throw new Error(`createSlab: ${slab}`);
    this.slab = slab;
    this.bytes = new Uint8Array(slab.shared);
    this.file = this.engine.addFile(this.fd);
    this.slabIndex = this.engine.addSlab(slab);
    this.#heads = this.engine.queues.map(() => 0);
  }

  fill(at: number, operation: number, handle: number, { slabOffset = 0, length = 0, position = 0, file = this.file, slab = this.slabIndex } = {}): void {
    this.engine.entries.set([operation, file, slab, slabOffset, length, position, Math.floor(position / 2 ** 32), handle], at * ENTRY_WORDS);
  }

  drain(): Completion[] {
    const completions: Completion[] = [];
    this.engine.queues.forEach((queue, index) => {
      const tail = Atomics.load(queue.words, queue.tail);
      for (; this.#heads[index] !== tail; this.#heads[index] = (this.#heads[index] + 1) | 0) {
        const at = queue.first + (this.#heads[index] & queue.mask) * 4;
        completions.push({ handle: queue.words[at] >>> 0, result: queue.words[at + 2] });
      }
      Atomics.store(this.engine.control, queue.head, tail);
    });
    return completions;
  }

  /** Submits what was filled and waits without the event loop. */
  finish(count: number): Completion[] {
    this.engine.submit(count);
    const completions = this.drain();
    while (completions.length < count) {
      this.engine.wait();
      completions.push(...this.drain());
    }
    return completions;
  }

  one(operation: number, options: Parameters<Bench['fill']>[3] = {}): number {
    this.fill(0, operation, 7, options);
    const [{ handle, result }] = this.finish(1);
    expect(handle).toBe(7);
    return result;
  }

  close(): void {
    this.engine.close();
    this.slab.close();
    closeSync(this.fd);
  }
}

for (const name of ['threads', 'io_uring'] as const) {
  const reason = refusal(name);
  describe.skipIf(reason !== undefined)(`engine ${name}${reason === undefined ? '' : ` (skipped: ${reason})`}`, () => {
    const scratch = join(folder, `scratch-${name}`);
    const readWrite = { flags: constants.O_RDWR | constants.O_CREAT | constants.O_TRUNC, file: scratch };

    it('reads and writes slab memory, and reports short counts as they are', () => {
      const bench = new Bench(name, readWrite);
      bench.bytes.fill(0x5a, 100, 5100);
      expect(bench.one(OP_WRITE, { slabOffset: 100, length: 5000, position: 1000 })).toBe(5000);
      expect(bench.one(OP_READ, { slabOffset: 65536, length: 8192, position: 1000 })).toBe(5000);
      expect(bench.bytes.subarray(65536, 65536 + 5000).every((byte) => byte === 0x5a)).toBe(true);
      expect(bench.bytes[65536 + 5000]).toBe(0);
      expect(bench.one(OP_READ, { length: 4096, position: 1 << 30 })).toBe(0);
      expect(bench.one(OP_READ | FLAG_ASYNC, { length: 4096, position: 0 })).toBe(4096);
      bench.close();
      expect(readFileSync(scratch).subarray(1000).equals(Buffer.alloc(5000, 0x5a))).toBe(true);
    });

    it('writes what is durable when it completes, and knows that of no other operation', () => {
      const bench = new Bench(name, readWrite);
      bench.bytes.fill(0x5a, 0, 8192);
      expect(bench.one(OP_WRITE | FLAG_DURABLE, { length: 8192, position: 512 })).toBe(8192);
      expect(bench.one(OP_WRITE | FLAG_DURABLE | FLAG_ASYNC, { length: 100, position: 8704 })).toBe(100);
      for (const operation of [OP_READ, OP_SYNC, OP_TRUNCATE]) expect(bench.one(operation | FLAG_DURABLE, { length: 512 })).toBe(EINVAL);
      bench.close();
      expect(readFileSync(scratch).subarray(512, 8704).equals(Buffer.alloc(8192, 0x5a))).toBe(true);
    });

    it('syncs, truncates, allocates, discards and evicts', () => {
      const bench = new Bench(name, readWrite);
      bench.bytes.fill(1, 0, 65536);
      expect(bench.one(OP_WRITE, { length: 65536 })).toBe(65536);
      expect(bench.one(OP_SYNC)).toBe(0);
      expect(bench.one(OP_TRUNCATE, { position: 40000 })).toBe(0);
      expect(fstatSync(bench.fd).size).toBe(40000);
      expect(bench.one(OP_ALLOCATE, { length: 4096, position: 100_000 })).toBe(0);
      expect(fstatSync(bench.fd).size).toBe(104_096);
      expect(bench.one(OP_DISCARD, { length: 8192, position: 4096 })).toBe(0);
      expect(fstatSync(bench.fd).size).toBe(104_096);
      const bytes = readFileSync(scratch);
      expect(bytes.subarray(0, 4096).every((byte) => byte === 1)).toBe(true);
      expect(bytes.subarray(4096, 12288).every((byte) => byte === 0)).toBe(true);
      expect(bytes.subarray(12288, 40000).every((byte) => byte === 1)).toBe(true);
      expect(bench.one(OP_SYNC)).toBe(0);
      expect(bench.one(OP_EVICT, { length: 65536 })).toBe(0);
      bench.close();
    });

    it('fills the page cache with a range, and says how much of it is there: short at the end of the file', () => {
      const bench = new Bench(name);
      const cached = (position: number, length: number): number => {
        const seen = new Float64Array(5);
        return native().cachestat(bench.fd, position, length, seen) === 0 ? seen[0] : 0;
      };
      // Over overlayfs cachestat sees nothing whatever is there, and before Linux 6.5 there is none.
      readFileSync(path);
      const tells = cached(0, FILE_BYTES) > 0;
      expect(bench.one(OP_EVICT, { length: FILE_BYTES })).toBe(0);
      expect(bench.one(OP_FILL, { position: 5 * MIB - 100, length: 3 * MIB + 200 })).toBe(3 * MIB + 200);
      if (tells) expect(cached(5 * MIB - 4096, 3 * MIB + 8192)).toBe(770);
      expect(bench.one(OP_FILL, { length: FILE_BYTES })).toBe(FILE_BYTES);
      expect(bench.one(OP_FILL, { position: FILE_BYTES - 100_000, length: MIB })).toBe(100_000);
      expect(bench.one(OP_FILL, { position: FILE_BYTES, length: MIB })).toBe(0);
      expect(bench.bytes.every((byte) => byte === 0)).toBe(true);
      bench.close();
    });

    it('refuses to fill through a descriptor that goes past the page cache', () => {
      let bench: Bench;
      try {
        bench = new Bench(name, { flags: constants.O_RDONLY | constants.O_DIRECT });
      } catch (error) {
        // tmpfs before Linux 6.6.
        expect(error).toMatchObject({ code: 'EINVAL' });
        return;
      }
      expect(bench.one(OP_FILL, { length: 65536 })).toBe(EINVAL);
      bench.close();
    });

    it.skipIf(noLoopDevices !== undefined)(`fills up to a sector that cannot be read, and reports that one alone${note(noLoopDevices)}`, () => {
      const loops = new LoopDevices();
      try {
        const image = loops.image(8 * MIB);
        const device = loops.attach(image);
        // What the device does not find behind the end of its image is an error of the medium.
        truncateSync(image, 5 * MIB);
        const bench = new Bench(name, { file: device });
        expect(bench.one(OP_FILL, { position: 3 * MIB, length: 4 * MIB })).toBe(2 * MIB);
        expect(bench.one(OP_FILL, { position: 5 * MIB, length: 65536 })).toBe(-5);
        expect(bench.one(OP_FILL, { position: 5 * MIB - 65536, length: 65536 })).toBe(65536);
        bench.close();
      } finally {
        loops.dispose();
      }
    });

    it('takes positions and lengths beyond 4 GiB', () => {
      const bench = new Bench(name, readWrite);
      const far = 5 * 2 ** 32 + 4096;
      expect(bench.one(OP_TRUNCATE, { position: far })).toBe(0);
      expect(fstatSync(bench.fd).size).toBe(far);
      bench.bytes.fill(9, 0, 512);
      expect(bench.one(OP_WRITE, { length: 512, position: far - 512 })).toBe(512);
      expect(bench.one(OP_READ, { slabOffset: 4096, length: 512, position: far - 512 })).toBe(512);
      expect(bench.bytes[4096 + 511]).toBe(9);
      // The high half of the length is in the word of the slab's offset.
      expect(bench.one(OP_DISCARD, { slabOffset: 5, length: 4096, position: 0 })).toBe(0);
      expect(bench.one(OP_READ, { slabOffset: 8192, length: 512, position: far - 512 })).toBe(512);
      expect(bench.bytes[8192 + 511]).toBe(0);
      bench.close();
    });

    it('reports the error of the system call', () => {
      const bench = new Bench(name);
      expect(bench.one(OP_WRITE, { length: 4096 })).toBe(-9);
      expect(bench.one(OP_ALLOCATE, { length: 4096 })).toBe(-9);
      bench.close();
    });

    it('refuses a bad entry with -EINVAL, touches nothing for it, and does the good ones beside it', () => {
      const bench = new Bench(name, readWrite);
      bench.bytes.fill(3);
      expect(bench.one(OP_WRITE, { length: 8192 })).toBe(8192);
      bench.bytes.fill(4);
      const bad: Array<[operation: number, options: Parameters<Bench['fill']>[3]]> = [
        [0, { length: 512 }],
        [9, { length: 512 }],
        [255, { length: 512 }],
        [OP_READ | (1 << 9), { length: 512 }],
        [OP_READ, { length: 512, file: 1 }],
        [OP_READ, { length: 512, file: -1 }],
        [OP_READ, { length: 512, slab: 1 }],
        [OP_READ, { length: 512, slab: -1 }],
        [OP_READ, { length: 0 }],
        [OP_READ, { length: 512, slabOffset: MIB - 511 }],
        [OP_READ, { length: 512, slabOffset: 0xffffff00 }],
        [OP_READ, { length: 0xffffffff, slabOffset: 1 }],
        [OP_READ, { length: 512, position: -(2 ** 32) }],
        [OP_READ, { length: 512, position: 2 ** 63 - 1024 + 1023 }],
        [OP_WRITE, { length: MIB + 1 }],
        [OP_WRITE, { length: 512, slabOffset: MIB }],
        [OP_SYNC, { file: 9 }],
        [OP_TRUNCATE, { position: -1 }],
        [OP_ALLOCATE, { length: 0 }],
        [OP_DISCARD, { length: 0 }],
        [OP_EVICT, { length: 1, slabOffset: -1, position: 4096 }],
        [OP_FILL, { length: 0 }],
        [OP_FILL, { length: -1 }],
        [OP_FILL, { length: 512, position: -(2 ** 32) }],
      ];
      bad.forEach(([operation, options], index) => {
        bench.fill(2 * index, operation, 100 + index, options);
        bench.fill(2 * index + 1, OP_SYNC, 200 + index);
      });
      const completions = bench.finish(2 * bad.length);
      expect(completions.filter(({ handle }) => handle < 200).sort((a, b) => a.handle - b.handle)).toEqual(
        bad.map((_, index) => ({ handle: 100 + index, result: EINVAL })),
      );
      expect(completions.filter(({ handle, result }) => handle >= 200 && result === 0)).toHaveLength(bad.length);
      expect(bench.bytes.every((byte) => byte === 4)).toBe(true);
      bench.close();
      expect(readFileSync(scratch).equals(Buffer.alloc(8192, 3))).toBe(true);
    });

    it('gives memory back to the system, and reads into what is there afterwards', () => {
      const bench = new Bench(name, { slabBytes: 12 * MIB, flags: constants.O_RDONLY | constants.O_DIRECT });
      const expected = readFileSync(path);
      const view = new Uint8Array(bench.slab.private);
      const read = (slabOffset: number): void => expect(bench.one(OP_READ, { slabOffset, length: MIB, position: slabOffset })).toBe(MIB);
      for (let at = 0; at < 12 * MIB; at += MIB) read(at);
      // A copy that a stray store made, and that is freed with the rest.
      view[5 * MIB + 9] ^= 0xff;
      const before = sharedMemory();
      expect(bench.engine.giveBack(bench.slabIndex, 4 * MIB, 4 * MIB)).toBe(true);
      expect(before - sharedMemory()).toBeGreaterThan(3.9 * MIB);
      const zeros = Buffer.alloc(4 * MIB);
      for (const bytes of [bench.bytes, view]) {
        expect(Buffer.compare(bytes.subarray(4 * MIB, 8 * MIB), zeros)).toBe(0);
        for (const at of [0, 8 * MIB]) expect(Buffer.compare(bytes.subarray(at, at + 4 * MIB), expected.subarray(at, at + 4 * MIB))).toBe(0);
      }
      // What the device writes and what is seen are the same pages again, from the first byte to the last.
      for (let at = 3 * MIB; at < 9 * MIB; at += MIB) read(at);
      for (const bytes of [bench.bytes, view]) expect(Buffer.compare(bytes, expected.subarray(0, 12 * MIB))).toBe(0);
      for (let round = 0; round < 50; round++) {
        expect(bench.engine.giveBack(bench.slabIndex, 0, 12 * MIB)).toBe(true);
        read((round % 12) * MIB);
      }
      bench.close();
    });

    it('gives back what was never used, the short end of a slab, and nothing of what does not exist', () => {
      const bench = new Bench(name, { slabBytes: 5 * MIB });
      for (const [offset, length, taken] of [
        [0, 5 * MIB, true],
        [4 * MIB, MIB, true],
        [4 * MIB, 4 * MIB, false],
        [MIB, 4 * MIB, false],
        [0, MIB, false],
        [0, 0, false],
      ] as const) {
        expect(bench.engine.giveBack(bench.slabIndex, offset, length)).toBe(taken);
      }
      expect(bench.engine.giveBack(bench.slabIndex + 1, 0, 4 * MIB)).toBe(false);
      bench.close();
      expect(bench.engine.giveBack(bench.slabIndex, 0, 4 * MIB)).toBe(false);
    });

    it('throws where a submission is larger than the ring, and takes nothing of it', () => {
      const bench = new Bench(name, { depth: 4 });
      expect(() => bench.engine.submit(5)).toThrow(expect.objectContaining({ code: 'ERR_SECTORWISE_ASSERTION' }));
      expect(bench.one(OP_SYNC)).toBe(0);
      bench.close();
      expect(() => bench.engine.submit(0)).toThrow(expect.objectContaining({ code: 'ERR_SECTORWISE_ASSERTION' }));
    });

    it('refuses a file that is not open and a slab that is none', () => {
      const bench = new Bench(name);
      expect(() => bench.engine.addFile(1 << 20)).toThrow(expect.objectContaining({ code: 'EBADF' }));
      expect(() => bench.engine.addSlab({} as Slab)).toThrow(expect.objectContaining({ code: 'EINVAL' }));
      bench.close();
    });

    it('keeps more files than the kernel registers apart', () => {
      const bench = new Bench(name, { file: path });
      const others = Array.from({ length: 12 }, (_, index) => {
        const fd = openSync(join(folder, `other-${name}-${index}`), 'w+');
        writeSync(fd, Buffer.alloc(16, 50 + index));
        return { fd, file: bench.engine.addFile(fd) };
      });
      others.forEach(({ file }, index) => {
        bench.fill(index, OP_READ, index, { file, slabOffset: index * 16, length: 16 });
      });
      for (const { result } of bench.finish(others.length)) expect(result).toBe(16);
      expect(others.map((_, index) => bench.bytes[index * 16 + 15])).toEqual(others.map((_, index) => 50 + index));
      bench.close();
      for (const { fd } of others) closeSync(fd);
    });

    it('answers 10,000 random reads as fs does, each exactly once, woken by the event loop alone', async () => {
      const depth = 64;
      const total = 10_000;
      const bench = new Bench(name, { depth, slabBytes: 9 * MIB });
      const whole = readFileSync(path);
      const frame = Math.floor((9 * MIB) / depth);
      const free = Array.from({ length: depth }, (_, index) => index);
      const pending = new Map<number, { slot: number; position: number; length: number }>();
      const wrong: string[] = [];
      let begun = 0;
      let ended = 0;
      await new Promise<void>((resolve) => {
        const begin = () => {
          let count = 0;
          while (free.length > 0 && begun < total && count < 1 + (begun % 37)) {
            const slot = free.pop() as number;
            const length = 1 + Math.floor(Math.random() * 9000);
            const position = Math.floor(Math.random() * FILE_BYTES);
            pending.set(begun, { slot, position, length });
            bench.fill(count++, begun % 11 === 0 ? OP_READ | FLAG_ASYNC : OP_READ, begun++, { slabOffset: slot * frame, length, position });
          }
          if (count > 0) bench.engine.submit(count);
          Atomics.store(bench.engine.control, CONTROL_ARMED, 1);
          take();
          if (ended === total) resolve();
          else if (free.length > 0 && begun < total) begin();
        };
        const take = () => {
          for (const { handle, result } of bench.drain()) {
            const read = pending.get(handle);
            if (read === undefined || !pending.delete(handle)) {
              wrong.push(`completion of ${handle}, which is not pending`);
              continue;
            }
            const expected = whole.subarray(read.position, read.position + read.length);
            if (!expected.equals(bench.bytes.subarray(read.slot * frame, read.slot * frame + result))) wrong.push(`bytes at ${read.position}+${read.length}`);
            free.push(read.slot);
            ended++;
          }
        };
        bench.engine.listen(() => {
          bench.engine.collect();
          take();
        }, begin);
        bench.engine.ref();
        begin();
      });
      bench.engine.unref();
      expect(wrong).toEqual([]);
      expect([begun, ended, pending.size]).toEqual([total, total, 0]);
      bench.close();
    });

    it('wakes once for a batch, and settles after the microtasks of that wake-up', async () => {
      const bench = new Bench(name);
      const order: string[] = [];
      await new Promise<void>((resolve) => {
        bench.engine.listen(
          () => {
            bench.engine.collect();
            order.push(`wake ${bench.drain().length}`);
            Promise.resolve().then(() => order.push('microtask'));
          },
          () => {
            order.push('settled');
            resolve();
          },
        );
        bench.engine.ref();
        Atomics.store(bench.engine.control, CONTROL_ARMED, 1);
        bench.fill(0, OP_TRUNCATE, 1, { position: -1 });
        bench.engine.submit(1);
      });
      expect(order).toEqual(['wake 1', 'microtask', 'settled']);
      bench.engine.unref();
      bench.close();
    });

    it('can be closed by the callback of its own wake-up', async () => {
      const bench = new Bench(name);
      let settled = 0;
      await new Promise<void>((resolve) => {
        bench.engine.listen(
          () => {
            bench.engine.collect();
            bench.drain();
            bench.close();
            setTimeout(resolve, 5);
          },
          () => settled++,
        );
        bench.engine.ref();
        Atomics.store(bench.engine.control, CONTROL_ARMED, 1);
        bench.fill(0, OP_READ, 1, { length: 4096 });
        bench.engine.submit(1);
      });
      expect(settled).toBe(0);
    });

    it('waits without the event loop for operations of every kind at once', () => {
      const bench = new Bench(name, readWrite);
      for (let round = 0; round < 300; round++) {
        bench.fill(0, OP_WRITE, 0, { length: 4096, position: round * 4096 });
        bench.fill(1, OP_ALLOCATE, 1, { length: 4096, position: (round + 1) * 4096 });
        bench.fill(2, OP_SYNC, 2);
        bench.fill(3, OP_READ | FLAG_ASYNC, 3, { slabOffset: 4096, length: 1, position: 0 });
        const handles = bench.finish(4).map(({ handle }) => handle);
        expect(handles.sort()).toEqual([0, 1, 2, 3]);
      }
      bench.close();
    });

    it('still wakes the event loop after it was waited for', async () => {
      const bench = new Bench(name, readWrite);
      let woken: (() => void) | undefined;
      bench.engine.listen(
        () => {
          bench.engine.collect();
          if (bench.drain().length > 0) woken?.();
        },
        () => Atomics.store(bench.engine.control, CONTROL_ARMED, 1),
      );
      bench.engine.ref();
      Atomics.store(bench.engine.control, CONTROL_ARMED, 1);
      for (let round = 0; round < 200; round++) {
        bench.fill(0, OP_ALLOCATE, 0, { length: 4096 });
        bench.fill(1, OP_SYNC, 1);
        bench.finish(2);
        await new Promise<void>((resolve) => {
          woken = resolve;
          Atomics.store(bench.engine.control, CONTROL_ARMED, 1);
          bench.fill(0, round % 2 === 0 ? OP_ALLOCATE : OP_SYNC, 2, { length: 4096 });
          bench.engine.submit(1);
        });
      }
      bench.engine.unref();
      bench.close();
    });

    it('leaves views of a closed ring safe to read', () => {
      const bench = new Bench(name);
      const { entries, control, queues } = bench.engine;
      bench.close();
      bench.engine.close();
      let sum = entries[0] + control[0];
      for (const { words } of queues) for (const word of words) sum += word;
      expect(Number.isInteger(sum)).toBe(true);
      expect(() => bench.engine.wait()).toThrow();
    });

    it('opens and closes 200 rings without keeping a descriptor', async () => {
      const before = readdirSync('/proc/self/fd').length;
      for (let round = 0; round < 200; round++) {
        const bench = new Bench(name);
        bench.one(OP_READ, { length: 4096 });
        bench.close();
      }
      // The event loop lets go of a closed ring in its next turn.
      await until(() => readdirSync('/proc/self/fd').length < before + 20);
    });

    it('lets the process end while it is idle and unreferenced', async () => {
      const { stdout } = await run(process.execPath, [child, addon, 'idle', name, path], { timeout: 60_000 });
      expect(stdout).toBe('4096\n');
    });

    it('reports exceptions of both callbacks as uncaught', async () => {
      const { stdout } = await run(process.execPath, [child, addon, 'exception', name, path], { timeout: 60_000 });
      expect(stdout).toBe('from onWake, from onSettled\n');
    });

    it('survives 20 workers that are terminated with 128 operations in flight', async () => {
      const { stdout } = await run(process.execPath, [child, addon, 'terminate', name, path], { timeout: 60_000 });
      expect(stdout).toBe('alive\n');
    });

    it('survives the end of the process with 128 operations in flight', async () => {
      await run(process.execPath, [child, addon, 'exit', name, path], { timeout: 60_000 });
    });

    it.skipIf(!root || !has('losetup'))('discards ranges of a block device (needs root and a loop device)', () => {
      const image = join(folder, `image-${name}`);
      copyFileSync(path, image);
      const device = execFileSync('losetup', ['--find', '--show', image], { encoding: 'utf8' }).trim();
      try {
        const bench = new Bench(name, { file: device, flags: constants.O_RDWR });
        expect(bench.one(OP_DISCARD, { length: MIB, position: MIB })).toBe(0);
        expect(bench.one(OP_READ, { length: 65536, position: MIB })).toBe(65536);
        expect(bench.bytes.subarray(0, 65536).every((byte) => byte === 0)).toBe(true);
        bench.close();
      } finally {
        execFileSync('losetup', ['--detach', device]);
      }
      expect(statSync(image).size).toBe(FILE_BYTES);
    });
  });
}

/** Bytes of frames' memory of this process that huge pages map. */
function hugeBytes(): number {
  let inFrames = false;
  let sum = 0;
  for (const line of readFileSync('/proc/self/smaps', 'utf8').split('\n')) {
    if (/^[0-9a-f]+-[0-9a-f]+ /.test(line)) inFrames = line.includes('/memfd:sectorwise-slab');
    else if (inFrames && line.startsWith('ShmemPmdMapped:')) sum += Number(line.split(/\s+/)[1]) * 1024;
  }
  return sum;
}

/** What an engine says of its huge pages: bytes that have them, of bytes that were used. */
function claimed(bench: Bench): { huge: number; used: number } {
  const reason = bench.engine.features().find(({ name }) => name === 'huge pages')?.reason as string;
  const [, huge, used] = /^under (\d+) MiB of (\d+) MiB/.exec(reason) ?? assert.fail(reason);
  return { huge: Number(huge) * MIB, used: Number(used) * MIB };
}

/** Reads into the first 4 MiB of a slab that got huge pages for them: the kernel may find none for once, or have a page of the range elsewhere for a moment. */
function withHugePages(name: EngineName, slabBytes: number, file = path): { bench: Bench; before: number } | undefined {
  for (let tries = 0; tries < 20; tries++) {
    const before = hugeBytes();
    const bench = new Bench(name, { slabBytes, file });
    bench.one(OP_READ, { length: 4096 });
    if (claimed(bench).huge > 0) return { bench, before };
    bench.close();
  }
  return undefined;
}

const probe = withHugePages('threads', 4 * MIB, fileURLToPath(import.meta.url));
probe?.bench.close();
const small = probe === undefined ? 'the kernel puts none under shared memory when asked to, as Linux 6.1 does' : undefined;

describe.each(['threads', ...(refusal('io_uring') === undefined ? ['io_uring' as const] : [])] as const)('huge pages, with engine %s', (name) => {
  const note = small === undefined ? '' : ` (skipped: ${small})`;
  const opened = (slabBytes: number): { bench: Bench; before: number } => withHugePages(name, slabBytes) ?? assert.fail('no huge pages in twenty tries');

  it.skipIf(small !== undefined)(`are under memory from its first use on, in pieces of 4 MiB${note}`, () => {
    const { bench, before } = opened(10 * MIB);
    expect(claimed(bench)).toEqual({ huge: 4 * MIB, used: 4 * MIB });
    expect(hugeBytes() - before).toBe(4 * MIB);
    bench.one(OP_READ, { slabOffset: 8 * MIB - 4096, length: 8192 });
    expect(claimed(bench).used).toBe(10 * MIB);
    expect(hugeBytes() - before).toBe(claimed(bench).huge);
    bench.close();
  });

  it.skipIf(small !== undefined)(`go with memory that is given back, which is used again afterwards${note}`, () => {
    const { bench, before } = opened(8 * MIB);
    expect(bench.engine.giveBack(bench.slabIndex, 0, 4 * MIB)).toBe(true);
    expect(hugeBytes() - before).toBe(0);
    expect(claimed(bench)).toEqual({ huge: 0, used: 0 });
    bench.one(OP_READ, { slabOffset: 4096, length: 4096 });
    expect(claimed(bench).used).toBe(4 * MIB);
    expect(hugeBytes() - before).toBe(claimed(bench).huge);
    const expected = readFileSync(path).subarray(0, 4096);
    expect(expected.equals(bench.bytes.subarray(4096, 8192))).toBe(true);
    expect(bench.bytes.subarray(0, 4096).every((byte) => byte === 0)).toBe(true);
    bench.close();
  });

  it.skipIf(small !== undefined)(`keep stray stores out page by page${note}`, () => {
    const { bench } = opened(4 * MIB);
    bench.bytes.fill(5, 3 * 4096, 4 * 4096);
    const seen = new Uint8Array(bench.slab.private);
    expect([seen[3 * 4096], seen[4 * 4096 - 1], seen[4 * 4096]]).toEqual([5, 5, 0]);
    seen[3 * 4096 + 7] = 9;
    seen[2 * MIB] = 9;
    expect([bench.bytes[3 * 4096 + 7], bench.bytes[2 * MIB]]).toEqual([5, 0]);
    bench.slab.repair(0, 4 * MIB);
    expect([seen[3 * 4096 + 7], seen[2 * MIB]]).toEqual([5, 0]);
    bench.one(OP_READ, { length: 4096, slabOffset: 2 * MIB });
    const expected = readFileSync(path).subarray(0, 4096);
    expect(expected.equals(seen.subarray(2 * MIB, 2 * MIB + 4096))).toBe(true);
    bench.close();
  });

  it.skipIf(small !== undefined)(`keep what was stored before the first use${note}`, () => {
    const bench = new Bench(name, { slabBytes: 4 * MIB });
    for (let page = 0; page < 1024; page += 3) bench.bytes.fill(page % 251, page * 4096, (page + 1) * 4096);
    bench.one(OP_READ, { slabOffset: 4096, length: 4096 });
    for (let page = 0; page < 1024; page += 3) {
      expect(bench.bytes[page * 4096]).toBe(page % 251);
      expect(bench.bytes[page * 4096 + 4095]).toBe(page % 251);
    }
    bench.close();
  });

  it('are not asked for where there is less memory than one', () => {
    const bench = new Bench(name);
    bench.one(OP_READ, { length: 4096 });
    expect(bench.engine.features()).toContainEqual({ name: 'huge pages', used: false, reason: 'there is less memory than one, 1 MiB' });
    bench.close();
  });
});

const noUring = refusal('io_uring');

describe.skipIf(noUring !== undefined)(`io_uring${noUring === undefined ? '' : ` (skipped: ${noUring})`}`, () => {
  it('says which features are in use, and for how many bytes', () => {
    const bench = new Bench('io_uring', { slabBytes: 6 * MIB });
    bench.one(OP_READ, { length: 4096 });
    const feature = bench.engine.features().find(({ name }) => name === 'registered buffers');
    expect(feature?.reason).toContain('used for 4 MiB of 6 MiB');
    bench.one(OP_READ, { slabOffset: 5 * MIB, length: 4096 });
    expect(bench.engine.features().find(({ name }) => name === 'registered buffers')?.reason).toContain('used for 6 MiB of 6 MiB');
    bench.close();
  });

  it('reads across the border of two registered buffers', () => {
    const bench = new Bench('io_uring', { slabBytes: 8 * MIB });
    bench.one(OP_READ, { length: 1 });
    bench.one(OP_READ, { slabOffset: 4 * MIB, length: 1 });
    expect(bench.one(OP_READ, { slabOffset: 4 * MIB - 4096, length: 8192, position: 8192 })).toBe(8192);
    const expected = Buffer.alloc(8192);
    readSync(bench.fd, expected, 0, 8192, 8192);
    expect(expected.equals(bench.bytes.subarray(4 * MIB - 4096, 4 * MIB + 4096))).toBe(true);
    bench.close();
  });

  it.skipIf(!has('mkfifo'))('cancels what would wait for ever when its worker is terminated (needs mkfifo)', async () => {
    const pipe = join(folder, 'pipe');
    execFileSync('mkfifo', [pipe]);
    const { stdout } = await run(process.execPath, [child, addon, 'cancel', 'io_uring', pipe], { timeout: 60_000 });
    expect(stdout).toBe('alive\n');
  });

  it.skipIf(!root || !has('prlimit'))('uses plain operations beyond a memlock limit of 8 MiB (needs root, to become somebody else)', async () => {
    const command = ['--memlock=8388608:8388608', process.execPath, child, addon, 'memlock', 'io_uring', path];
    const { stdout } = await run('prlimit', command, { uid: 65534, gid: 65534, timeout: 60_000 });
    const { results, firsts, features } = JSON.parse(stdout);
    expect(results).toEqual(Array(16).fill(4096));
    const expected = readFileSync(path);
    expect(firsts).toEqual(Array.from({ length: 16 }, (_, index) => expected[index * 4096]));
    const { used, reason } = features.find(({ name }: { name: string }) => name === 'registered buffers');
    expect(used).toBe(true);
    expect(reason).toMatch(/used for [48] MiB of 32 MiB; refused beyond because ENOMEM: memlock limit/);
  });

  it.skipIf(!has('cc'))('is replaced by threads where seccomp refuses it, with the reason (needs a C compiler)', async () => {
    const launcher = join(folder, 'refuse');
    execFileSync('cc', ['-o', launcher, join(here, 'fixtures/refuse-io-uring.c')]);
    const auto = JSON.parse((await run(launcher, [process.execPath, child, addon, 'probe', 'auto', path])).stdout);
    expect(auto.engine).toBe('threads');
    expect(auto.features).toContainEqual({ name: 'io_uring', used: false, reason: 'io_uring refused: EPERM (seccomp or kernel.io_uring_disabled)' });
    const asked = JSON.parse((await run(launcher, [process.execPath, child, addon, 'probe', 'io_uring', path])).stdout);
    expect(asked.error).toBe(-1);
    expect(asked.features[0].reason).toContain('EPERM');
  });
});

describe('SECTORWISE_ENGINE', () => {
  it('forces one engine over what was asked for', () => {
    process.env.SECTORWISE_ENGINE = 'threads';
    try {
      const engine = openNativeEngine({ engine: 'auto', depth: 1 });
      expect(engine.name).toBe('threads');
      engine.close();
    } finally {
      delete process.env.SECTORWISE_ENGINE;
    }
  });

  it('is named by the error where it has an unknown value', () => {
    process.env.SECTORWISE_ENGINE = 'uring';
    try {
      expect(() => openNativeEngine({ engine: 'auto', depth: 1 })).toThrow(
        expect.objectContaining({ code: 'ERR_INVALID_ARG_VALUE', message: expect.stringContaining("SECTORWISE_ENGINE' must be 'threads' or 'io_uring'") }),
      );
    } finally {
      delete process.env.SECTORWISE_ENGINE;
    }
  });

  it('refuses a depth that no ring has, with a remedy', () => {
    expect(() => openNativeEngine({ engine: 'threads', depth: 0 })).toThrow(expect.objectContaining({ code: 'ERR_SECTORWISE_ENGINE' }));
  });
});
