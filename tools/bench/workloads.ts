/**
 * The work that is measured: random blocks with many outstanding, and one scan from front to end, by each contender.
 *
 * Every contender visits the same blocks in the same order, notes each operation's duration by the same clock, and looks at the
 * bytes in the same way.
 * Leaves to others: what is in the page cache when a run begins.
 */
import { createReadStream, type PathLike, read, readSync } from 'node:fs';
import type { FileHandle } from 'node:fs/promises';
import { setImmediate as nextTurn } from 'node:timers/promises';
import type { BlockFile } from '../../src/index.js';
import { Latencies } from './latencies.js';

/** Bytes of a random read. */
export const RANDOM_BYTES = 4096;
/** Bytes of a step of a scan. */
export const SCAN_BYTES = 1 << 20;
/** A run that is answered from memory never returns to the event loop by itself: it does after this long, so that a signal is heard. */
const turnMs = 50;

export interface Measured {
  operations: number;
  bytes: number;
  seconds: number;
  latencies: Latencies;
  /** Operations whose bytes were not the expected ones, or were too few. */
  mismatches: number;
}

export interface RandomPlan {
  /** Bytes of a block. Default RANDOM_BYTES. */
  bytes?: number;
  /** Blocks in the order to visit; the run ends with them. */
  order: Uint32Array;
  /** Bytes of the file that blocks are taken from. */
  size: number;
  depth: number;
  /** The run ends after this long. */
  seconds: number;
  /** Look at the first byte (the default), or at no more than how many there are. */
  look?: 'byte' | 'length';
}

/** What is handed to a run's course: a window, or bytes. */
interface Shown {
  readonly length: number;
  readonly bytes: Uint8Array;
}

/** `fs` reads into the same buffer all the time: what it shows is made once, and says what the last read got. */
class ReadBuffer implements Shown {
  readonly buffer: Uint8Array;
  length = 0;

  constructor(buffer: Uint8Array) {
    this.buffer = buffer;
  }

  get bytes(): Uint8Array {
    return this.length === this.buffer.length ? this.buffer : this.buffer.subarray(0, this.length);
  }

  got(count: number): this {
    this.length = count;
    return this;
  }
}

export interface ScanPlan {
  size: number;
  /** Look at one byte of each page of 4096: what is mapped comes into the page table by that. */
  touch?: boolean;
}

/** One random run's course: which block is next, when to end, what was seen. */
class Course {
  readonly latencies = new Latencies();
  readonly #plan: RandomPlan;
  readonly #blockBytes: number;
  readonly #look: boolean;
  readonly #start = performance.now();
  #turned = this.#start;
  #next = 0;
  #bytes = 0;
  #mismatches = 0;
  #sum = 0;

  constructor(plan: RandomPlan) {
    this.#plan = plan;
    this.#blockBytes = plan.bytes ?? RANDOM_BYTES;
    this.#look = plan.look !== 'length';
  }

  /** Is it time to let the event loop turn? */
  overdue(now: number): boolean {
    if (now - this.#turned < turnMs) return false;
    this.#turned = now;
    return true;
  }

  /** Where the next read begins, -1 if the run is over. */
  take(now: number): number {
    const { order, seconds } = this.#plan;
    if (now - this.#start >= seconds * 1000 || this.#next === order.length) return -1;
    return order[this.#next++] * this.#blockBytes;
  }

  done(offset: number, shown: Shown, begun: number, now: number): void {
    this.latencies.record((now - begun) * 1000);
    const { length } = shown;
    this.#bytes += length;
    if (length !== Math.min(this.#plan.size, offset + this.#blockBytes) - offset) this.#mismatches++;
    if (this.#look) this.#sum += shown.bytes[0];
  }

  finish(): Measured {
    return {
      operations: this.latencies.count,
      bytes: this.#bytes,
      seconds: (performance.now() - this.#start) / 1000,
      latencies: this.latencies,
      // A sum of bytes is never negative; asking keeps the looking from being optimised away.
      mismatches: this.#mismatches + (this.#sum >= 0 ? 0 : 1),
    };
  }
}

/** `window()`, `depth` at a time. */
export async function randomWindows(file: BlockFile, plan: RandomPlan): Promise<Measured> {
  const course = new Course(plan);
  const { bytes = RANDOM_BYTES } = plan;
  const lane = async (): Promise<void> => {
    let begun = performance.now();
    for (let offset = course.take(begun); offset >= 0; offset = course.take(begun)) {
      const window = await file.window(offset, bytes);
      const now = performance.now();
      course.done(offset, window, begun, now);
      window.release();
      // The next read is asked for at once: one look at the clock serves both.
      begun = now;
      if (course.overdue(now)) {
        await nextTurn();
        begun = performance.now();
      }
    }
  };
  await Promise.all(Array.from({ length: plan.depth }, lane));
  return course.finish();
}

/** `fs.read` with callbacks, `depth` outstanding, into buffers made beforehand: node:fs at its fastest. `buffers` stand in for them where the memory matters. */
export function randomCallbacks(fd: number, plan: RandomPlan, buffers?: readonly Uint8Array[]): Promise<Measured> {
  return new Promise((resolve, reject) => {
    const course = new Course(plan);
    const { bytes = RANDOM_BYTES } = plan;
    let running = plan.depth;
    const lane = (into: ReadBuffer, begun: number): void => {
      const offset = course.take(begun);
      if (offset < 0) {
        if (--running === 0) resolve(course.finish());
        return;
      }
      read(fd, into.buffer, 0, bytes, offset, (error, count) => {
        if (error) {
          reject(error);
          return;
        }
        const now = performance.now();
        course.done(offset, into.got(count), begun, now);
        lane(into, now);
      });
    };
    for (let index = 0; index < plan.depth; index++) lane(new ReadBuffer(buffers?.[index] ?? Buffer.allocUnsafeSlow(bytes)), performance.now());
  });
}

/** `FileHandle.read`, `depth` at a time. */
export async function randomPromises(handle: FileHandle, plan: RandomPlan, buffers?: readonly Uint8Array[]): Promise<Measured> {
  const course = new Course(plan);
  const { bytes = RANDOM_BYTES } = plan;
  const lane = async (_: unknown, index: number): Promise<void> => {
    const into = new ReadBuffer(buffers?.[index] ?? Buffer.allocUnsafeSlow(bytes));
    let begun = performance.now();
    for (let offset = course.take(begun); offset >= 0; offset = course.take(begun)) {
      const { bytesRead } = await handle.read(into.buffer, 0, bytes, offset);
      const now = performance.now();
      course.done(offset, into.got(bytesRead), begun, now);
      begun = now;
    }
  };
  await Promise.all(Array.from({ length: plan.depth }, lane));
  return course.finish();
}

/** `fs.readSync`, one after the other: what node:fs does fastest with bytes that are in memory. */
export async function randomSync(fd: number, plan: RandomPlan, buffer?: Uint8Array): Promise<Measured> {
  const course = new Course(plan);
  const { bytes = RANDOM_BYTES } = plan;
  const into = new ReadBuffer(buffer ?? Buffer.allocUnsafeSlow(bytes));
  let begun = performance.now();
  for (let offset = course.take(begun); offset >= 0; offset = course.take(begun)) {
    const count = readSync(fd, into.buffer, 0, bytes, offset);
    const now = performance.now();
    course.done(offset, into.got(count), begun, now);
    if (course.overdue(now)) await nextTurn();
    begun = performance.now();
  }
  return course.finish();
}

/** One scan's course: each step's duration is the time from when it was asked for until its bytes were there. */
class Scan {
  readonly #plan: ScanPlan;
  readonly #latencies = new Latencies();
  readonly #start = performance.now();
  #asked = this.#start;
  #turned = this.#start;
  #position = 0;
  #sum = 0;

  constructor(plan: ScanPlan) {
    this.#plan = plan;
  }

  /** Notes the step's duration; true if it is time to let the event loop turn. */
  arrived(): boolean {
    const now = performance.now();
    this.#latencies.record((now - this.#asked) * 1000);
    if (now - this.#turned < turnMs) return false;
    this.#turned = now;
    return true;
  }

  take(bytes: Uint8Array): void {
    if (this.#plan.touch) for (let page = 0; page < bytes.length; page += RANDOM_BYTES) this.#sum += bytes[page];
    this.#position += bytes.length;
  }

  ask(): void {
    this.#asked = performance.now();
  }

  finish(): Measured {
    return {
      operations: this.#latencies.count,
      bytes: this.#position,
      seconds: (performance.now() - this.#start) / 1000,
      latencies: this.#latencies,
      // A sum of bytes is never negative; asking keeps the looking from being optimised away.
      mismatches: this.#position === this.#plan.size && this.#sum >= 0 ? 0 : 1,
    };
  }
}

/** `windows()`; the areas are looked at, not `bytes`, so that frames that are apart need no copy. */
export async function scanWindows(file: BlockFile, plan: ScanPlan): Promise<Measured> {
  const scan = new Scan(plan);
  for await (const window of file.windows({ end: plan.size, step: SCAN_BYTES })) {
    const overdue = scan.arrived();
    for (const area of window.areas) scan.take(area);
    if (overdue) await nextTurn();
    scan.ask();
  }
  return scan.finish();
}

export async function scanStream(path: PathLike, plan: ScanPlan): Promise<Measured> {
  const scan = new Scan(plan);
  for await (const chunk of createReadStream(path, { highWaterMark: SCAN_BYTES, end: plan.size - 1 })) {
    scan.arrived();
    scan.take(chunk as Buffer);
    scan.ask();
  }
  return scan.finish();
}

/** `fs.read` in steps, one after the other into one buffer, or as many at a time as there are `buffers`: those that are ahead are waited for in order. */
export async function scanCallbacks(fd: number, plan: ScanPlan, buffers: readonly Uint8Array[] = [Buffer.allocUnsafeSlow(SCAN_BYTES)]): Promise<Measured> {
  const scan = new Scan(plan);
  let asked = 0;
  const ask = (buffer: Uint8Array): Promise<number> => {
    const position = asked;
    const length = Math.min(SCAN_BYTES, plan.size - position);
    asked += length;
    return length === 0
      ? Promise.resolve(0)
      : new Promise<number>((resolve, reject) => read(fd, buffer, 0, length, position, (error, got) => (error ? reject(error) : resolve(got))));
  };
  const ahead = buffers.map(ask);
  for (let step = 0; ; step = (step + 1) % buffers.length) {
    const count = await ahead[step];
    if (count === 0) break;
    scan.arrived();
    scan.take(buffers[step].subarray(0, count));
    ahead[step] = ask(buffers[step]);
    scan.ask();
  }
  return scan.finish();
}
