/**
 * Who races: each way of reading, as turns of a limited time.
 *
 *   random 4 KiB   fs.read | window() page cache | window() direct      from the disk, 32 at a time
 *                  fs.readSync | tryWindow()                            from memory, one after the other
 *   1 MiB steps    fs.createReadStream | fs.read | windows() in both modes        from the disk
 *                  fs.readSync | windows()                                        from memory
 *
 * Guarantees: in one round all begin at the same block and follow the same order, with as many reads outstanding; all look at one byte of each 512 of what they read, by the same
 * function, and check the sum; a turn ends with nothing of its own still on its way (read-ahead excepted).
 * Leaves to others: what is in memory when a turn begins (`race.ts`).
 */
import { createReadStream, read, readSync } from 'node:fs';
import type { BlockFile } from '../../src/index.js';
import type { Latencies } from '../bench/latencies.js';
import { BLOCK_BYTES, LOOK_BYTES, lookAt } from './compare.js';

/** Reads that are outstanding, of 4 KiB. */
export const depth = 32;
/** Steps of a scan that fs.read has outstanding, for what windows() reads ahead. */
export const stepsAhead = 8;
const stepBytes = 1 << 20;
/** Of reads from memory one in so many is timed by itself: a look at the clock takes as long as a third of one. */
const sampled = 16;

/** What all read. */
export interface Material {
  path: string;
  fd: number;
  size: number;
  sums: Uint16Array;
  /** The numbers of all blocks in random order. */
  order: Uint32Array;
}

export interface Turn {
  operations: number;
  bytes: number;
  seconds: number;
  /** Processor time of the whole process, its threads included. */
  cpuMicros: number;
  /** Operations whose bytes were not as many as there should be, or not those that node:fs read. */
  wrong: number;
}

export interface Contender {
  name: string;
  /** One turn of so many milliseconds, from the block at this place of the order. Durations in microseconds go to `latencies`. */
  turn(ms: number, place: number, latencies: Latencies): Promise<Turn>;
}

/** What is common to all turns: the end, and what was counted. */
class Lap {
  readonly latencies: Latencies;
  operations = 0;
  bytes = 0;
  wrong = 0;
  readonly #material: Material;
  readonly #cpu = process.cpuUsage();
  readonly #start = performance.now();
  readonly #end: number;
  #place: number;
  #left: number;

  constructor(material: Material, ms: number, place: number, latencies: Latencies) {
    this.#material = material;
    this.latencies = latencies;
    this.#end = this.#start + ms;
    this.#place = place;
    this.#left = material.order.length;
  }

  over(now: number): boolean {
    return now >= this.#end;
  }

  /** The next block of the order, each once; -1 after the last. */
  once(): number {
    return this.#left-- > 0 ? this.again() : -1;
  }

  /** The next block of the order, from the beginning again after the last. */
  again(): number {
    const { order } = this.#material;
    if (this.#place >= order.length) this.#place = 0;
    return order[this.#place++];
  }

  /** Bytes that there are of a block. */
  lengthOf(block: number): number {
    return Math.min(BLOCK_BYTES, this.#material.size - block * BLOCK_BYTES);
  }

  look(block: number, bytes: Uint8Array, length: number): void {
    this.operations++;
    this.bytes += length;
    if (length !== this.lengthOf(block) || lookAt(bytes, 0, length) !== this.#material.sums[block]) this.wrong++;
  }

  finish(): Turn {
    const seconds = (performance.now() - this.#start) / 1000;
    const { user, system } = process.cpuUsage(this.#cpu);
    return { operations: this.operations, bytes: this.bytes, seconds, cpuMicros: user + system, wrong: this.wrong };
  }
}

/** `fs.read` with callbacks into buffers made beforehand: node:fs at its fastest. */
export function randomCallbacks(material: Material): Contender {
  const buffers = Array.from({ length: depth }, () => Buffer.allocUnsafeSlow(BLOCK_BYTES));
  return {
    name: 'fs.read',
    turn: (ms, place, latencies) =>
      new Promise((resolve, reject) => {
        const lap = new Lap(material, ms, place, latencies);
        let running = depth;
        const lane = (buffer: Buffer, begun: number): void => {
          const block = lap.over(begun) ? -1 : lap.once();
          if (block < 0) {
            if (--running === 0) resolve(lap.finish());
            return;
          }
          read(material.fd, buffer, 0, lap.lengthOf(block), block * BLOCK_BYTES, (error, count) => {
            if (error) {
              reject(error);
              return;
            }
            const now = performance.now();
            latencies.record((now - begun) * 1000);
            lap.look(block, buffer, count);
            lane(buffer, now);
          });
        };
        for (const buffer of buffers) lane(buffer, performance.now());
      }),
  };
}

export function randomWindows(name: string, file: BlockFile, material: Material): Contender {
  return {
    name,
    turn: async (ms, place, latencies) => {
      const lap = new Lap(material, ms, place, latencies);
      const lane = async (): Promise<void> => {
        let begun = performance.now();
        for (let block = lap.once(); block >= 0 && !lap.over(begun); block = lap.once()) {
          const window = await file.window(block * BLOCK_BYTES, lap.lengthOf(block));
          const now = performance.now();
          latencies.record((now - begun) * 1000);
          lap.look(block, window.bytes, window.length);
          window.release();
          begun = now;
        }
      };
      await Promise.all(Array.from({ length: depth }, lane));
      return lap.finish();
    },
  };
}

export function randomSync(material: Material): Contender {
  const buffer = Buffer.allocUnsafeSlow(BLOCK_BYTES);
  return {
    name: 'fs.readSync',
    turn: async (ms, place, latencies) => {
      const lap = new Lap(material, ms, place, latencies);
      let begun = 0;
      for (let turn = 0; ; turn++) {
        const timed = turn % sampled === 0;
        if (timed) {
          begun = performance.now();
          if (lap.over(begun)) break;
        }
        const block = lap.again();
        const count = readSync(material.fd, buffer, 0, lap.lengthOf(block), block * BLOCK_BYTES);
        lap.look(block, buffer, count);
        if (timed) latencies.record((performance.now() - begun) * 1000);
      }
      return lap.finish();
    },
  };
}

/** `tryWindow()`, and `window()` where it has no answer. */
export function randomTryWindows(file: BlockFile, material: Material): Contender {
  return {
    name: 'tryWindow(), page cache',
    turn: async (ms, place, latencies) => {
      const lap = new Lap(material, ms, place, latencies);
      let begun = 0;
      for (let turn = 0; ; turn++) {
        const timed = turn % sampled === 0;
        if (timed) {
          begun = performance.now();
          if (lap.over(begun)) break;
        }
        const block = lap.again();
        const offset = block * BLOCK_BYTES;
        const length = lap.lengthOf(block);
        const window = file.tryWindow(offset, length) ?? (await file.window(offset, length));
        lap.look(block, window.bytes, window.length);
        window.release();
        if (timed) latencies.record((performance.now() - begun) * 1000);
      }
      return lap.finish();
    },
  };
}

/** A scan from the front, to the end of the range or of the time. */
class Scan {
  readonly #material: Material;
  readonly #lap: Lap;
  #position = 0;
  #sum = 0;
  #asked = performance.now();

  constructor(material: Material, ms: number, latencies: Latencies) {
    this.#material = material;
    this.#lap = new Lap(material, ms, 0, latencies);
  }

  /** Bytes have come, in order. */
  take(bytes: Uint8Array): void {
    // The same bytes are looked at wherever a piece begins.
    this.#sum += lookAt(bytes, -this.#position & (LOOK_BYTES - 1), bytes.length);
    this.#position += bytes.length;
    this.#lap.bytes += bytes.length;
  }

  /** A step is complete; true if it was the last one. */
  stepped(): boolean {
    const now = performance.now();
    this.#lap.latencies.record((now - this.#asked) * 1000);
    this.#lap.operations++;
    this.#asked = now;
    return this.#lap.over(now) || this.#position >= this.#material.size;
  }

  finish(): Turn {
    const turn = this.#lap.finish();
    // Checked as a whole: what was looked at up to here is the sum of these blocks.
    let expected = 0;
    const blocks = Math.ceil(this.#position / BLOCK_BYTES);
    for (let block = 0; block < blocks; block++) expected += this.#material.sums[block];
    return this.#sum === expected ? turn : { ...turn, wrong: 1 };
  }
}

export function scanStream(material: Material): Contender {
  return {
    name: 'fs.createReadStream',
    turn: async (ms, _, latencies) => {
      const scan = new Scan(material, ms, latencies);
      for await (const chunk of createReadStream(material.path, { highWaterMark: stepBytes, end: material.size - 1 })) {
        scan.take(chunk as Buffer);
        if (scan.stepped()) break;
      }
      return scan.finish();
    },
  };
}

/** `fs.read` into buffers made beforehand, several on their way, taken in order. */
export function scanCallbacks(material: Material): Contender {
  const { fd, size } = material;
  const buffers = Array.from({ length: stepsAhead }, () => Buffer.allocUnsafeSlow(stepBytes));
  return {
    name: 'fs.read',
    turn: async (ms, _, latencies) => {
      const scan = new Scan(material, ms, latencies);
      let asked = 0;
      const ask = (buffer: Buffer): Promise<number> => {
        const position = asked;
        const length = Math.min(stepBytes, size - position);
        asked += length;
        if (length === 0) return Promise.resolve(0);
        return new Promise((resolve, reject) => read(fd, buffer, 0, length, position, (error, count) => (error ? reject(error) : resolve(count))));
      };
      const ahead = buffers.map(ask);
      for (let step = 0; ; step = (step + 1) % stepsAhead) {
        const count = await ahead[step];
        if (count === 0) break;
        scan.take(buffers[step].subarray(0, count));
        if (scan.stepped()) break;
        ahead[step] = ask(buffers[step]);
      }
      const turn = scan.finish();
      await Promise.all(ahead);
      return turn;
    },
  };
}

export function scanWindows(name: string, file: BlockFile, material: Material): Contender {
  return {
    name,
    turn: async (ms, _, latencies) => {
      const scan = new Scan(material, ms, latencies);
      for await (const window of file.windows({ end: material.size, step: stepBytes })) {
        // Not `bytes`: where frames are apart that would be a copy.
        for (const area of window.areas) scan.take(area);
        if (scan.stepped()) break;
      }
      return scan.finish();
    },
  };
}

export function scanSync(material: Material): Contender {
  const buffer = Buffer.allocUnsafeSlow(stepBytes);
  return {
    name: 'fs.readSync',
    turn: async (ms, _, latencies) => {
      const scan = new Scan(material, ms, latencies);
      for (let position = 0; ; ) {
        const count = readSync(material.fd, buffer, 0, Math.min(stepBytes, material.size - position), position);
        if (count === 0) break;
        position += count;
        scan.take(buffer.subarray(0, count));
        if (scan.stepped()) break;
      }
      return scan.finish();
    },
  };
}
