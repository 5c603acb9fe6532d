/**
 * How many pages of a file are in memory, as far as this process is told the truth.
 *
 *   who asks                         cached                    dirty, writeback, evicted
 *   owner, writer, CAP_FOWNER        mincore                   cachestat where it counts (not on overlayfs), else 0
 *   anybody else                     what this process has     0: cachestat refuses with EPERM
 *                                    in its own page table
 *
 * cachestat alone would count pages that are still being read, and counts nothing at all on overlayfs; mincore pretends to strangers that all is resident (Linux 5.2). Neither is
 * judged by version or user id but by what it does: mincore is asked about a page beyond the end of the file (`geometry/`), and cachestat is believed to count once it
 * counted something on a device, and taken for one that does not once mincore found pages where it twice saw none. What is learnt holds for the device (st_dev) in this environment.
 *
 * Guarantees: starts no I/O; counts 256 MiB exactly, and more for as long as that takes no more than 2 ms; then estimates the rest from samples spread over it, so that no range
 * holds up the event loop; a stranger's count is never too high.
 * Leaves to others: whether a range can be touched now (`mapping.ts`): a count is stale at once.
 */
import { performance } from 'node:perf_hooks';
import { systemError } from '../errors.js';
import type { Feature } from '../io/engine.js';
import { native } from '../io/native.js';
import type { FileMapping } from './mapping.js';

/** Pages of 4096 bytes. */
export interface PageStates {
  cached: number;
  dirty: number;
  writeback: number;
  evicted: number;
}

/** Adds the pages of [offset, offset+length) to `sums`; false, and nothing added, where that would take long: ask for less at once. Both numbers are multiples of 4096. */
export type CountPiece = (offset: number, length: number, sums: PageStates) => boolean;

const PAGE_BYTES = 4096;
const MEBIBYTE = 1 << 20;
/** Never too long: 2048 pages at 16 ns each for mincore. */
const PIECE_BYTES = 8 * MEBIBYTE;
/** What is cold is passed over in steps of this: cachestat takes at most 2 ms to find that it is not (15 µs for 2 MiB of single pages). */
const PIECE_BYTES_MAX = 256 * MEBIBYTE;
/** Counted exactly whatever the time: at most 4 ms. */
const EXACT_BYTES = 256 * MEBIBYTE;
/** Beyond that, exact for so long. One piece may go beyond it. */
const EXACT_MS = 2;
/** What is left then is estimated from so many samples of so many bytes: some 2 ms, and a standard error of 3 % of its pages at most. */
const SAMPLES = 256;
const SAMPLE_BYTES = 32 * PAGE_BYTES;
/** Places within each stride, spread evenly without a period that a file's layout could have too. */
const GOLDEN_RATIO = 0.6180339887498949;

/** Counts in pieces until time is up, then by samples. `offset` and `length` are multiples of 4096. `now` in milliseconds. */
export function countPages(count: CountPiece, offset: number, length: number, now: () => number): PageStates {
  const sums = { cached: 0, dirty: 0, writeback: 0, evicted: 0 };
  const end = offset + length;
  const deadline = now() + EXACT_MS;
  let piece = PIECE_BYTES;
  let at = offset;
  while (at < end) {
    const bytes = Math.min(piece, end - at);
    const before = sums.cached;
    if (!count(at, bytes, sums)) {
      piece = PIECE_BYTES;
    } else {
      at += bytes;
      piece = sums.cached === before ? Math.min(2 * piece, PIECE_BYTES_MAX) : PIECE_BYTES;
    }
    if (end - at > EXACT_BYTES && now() >= deadline) return estimateRest(count, at, end, sums);
  }
  return sums;
}

function estimateRest(count: CountPiece, from: number, end: number, sums: PageStates): PageStates {
  const seen = { cached: 0, dirty: 0, writeback: 0, evicted: 0 };
  const stride = (end - from) / SAMPLES;
  for (let i = 0; i < SAMPLES; i++) {
    const place = from + i * stride + ((i * GOLDEN_RATIO) % 1) * (stride - SAMPLE_BYTES);
    count(place - (place % PAGE_BYTES), SAMPLE_BYTES, seen);
  }
  const scale = (end - from) / (SAMPLES * SAMPLE_BYTES);
  for (const state of ['cached', 'dirty', 'writeback', 'evicted'] as const) sums[state] += Math.round(seen[state] * scale);
  return sums;
}

/** Does cachestat count on the device? By st_dev or, for a device that was opened, st_rdev; missing while no page decided it. */
const cachestatCounts = new Map<string, boolean>();

/** What a counter is made of. */
export interface PageCounterOptions {
  /** Open for as long as the counter is used. */
  fd: number;
  /** Names the file system or device in this machine: `major:minor`. */
  device: string;
  /** mincore tells this process the truth about the file. */
  trustMincore: boolean;
  /** The standing mapping through which the file is read. */
  mapping: Pick<FileMapping, 'covers' | 'present'>;
}

/** Counts the pages of one file. */
export class PageCounter {
  readonly #fd: number;
  readonly #device: string;
  readonly #trustMincore: boolean;
  readonly #mapping: PageCounterOptions['mapping'];
  /** -errno of cachestat, 0 where it answers. */
  readonly #refused: number;
  /** nr_cache, nr_dirty, nr_writeback, nr_evicted, nr_recently_evicted of `struct cachestat` (linux/mman.h). */
  readonly #seen = new Float64Array(5);
  readonly #count: CountPiece = (offset, length, sums) => this.#countPiece(offset, length, sums);

  constructor(options: PageCounterOptions) {
    this.#fd = options.fd;
    this.#device = options.device;
    this.#trustMincore = options.trustMincore;
    this.#mapping = options.mapping;
    this.#refused = native().cachestat(options.fd, 0, PAGE_BYTES, this.#seen);
    // The start of the file is where something is cached if anything is.
    if (this.#refused === 0 && this.#trustMincore) this.#countPiece(0, SAMPLE_BYTES, { cached: 0, dirty: 0, writeback: 0, evicted: 0 });
  }

  /** Whole pages of [offset, offset+length), which lies within the file. */
  count(offset: number, length: number): PageStates {
    const from = offset - (offset % PAGE_BYTES);
    const bytes = Math.ceil((offset + length - from) / PAGE_BYTES) * PAGE_BYTES;
    return countPages(this.#count, from, bytes, now);
  }

  /** For `explain()`, as known now. */
  features(): Feature[] {
    return [
      {
        name: 'mincore',
        used: this.#trustMincore,
        reason: this.#trustMincore
          ? 'tells the truth about this file'
          : 'pretends that every page is resident to who neither owns the file nor may write to it; only what this process has mapped counts as resident',
      },
      { name: 'cachestat', used: this.#asksCachestat, reason: this.#cachestatReason() },
    ];
  }

  get #asksCachestat(): boolean {
    return this.#trustMincore && this.#refused === 0 && cachestatCounts.get(this.#device) !== false;
  }

  #cachestatReason(): string {
    if (this.#refused !== 0) {
      const { code } = systemError(this.#refused, 'cachestat');
      const why = code === 'EPERM' ? 'for owners and writers of the file only' : 'it came with Linux 6.5, and containers may forbid it';
      return `refused with ${code} (${why}); dirty and evicted pages are not counted`;
    }
    if (!this.#trustMincore) return 'not asked: nothing tells whether it counts here';
    const counts = cachestatCounts.get(this.#device);
    if (counts === undefined) return 'answers; whether it counts on this file system shows with the first page in memory';
    return counts ? 'counts dirty and evicted pages' : 'counts nothing on this file system (overlayfs does that); dirty and evicted pages are not counted';
  }

  #countPiece(offset: number, length: number, sums: PageStates): boolean {
    if (!this.#trustMincore) {
      if (length > PIECE_BYTES && this.#mapping.covers(offset, length)) return false;
      sums.cached += this.#mapping.present(offset, length);
      return true;
    }
    const seen = this.#seen;
    const answered = this.#asksCachestat && native().cachestat(this.#fd, offset, length, seen) === 0;
    const cold = answered && seen[0] === 0;
    if (!cold || cachestatCounts.get(this.#device) !== true) {
      if (length > PIECE_BYTES) return false;
      const resident = native().countResident(this.#fd, offset, length);
      if (answered) this.#learn(offset, length, resident);
      sums.cached += Math.max(0, resident);
    }
    if (answered) {
      sums.dirty += seen[1];
      sums.writeback += seen[2];
      sums.evicted += seen[3];
    }
    return true;
  }

  /** Takes what cachestat and mincore say about the same pages for a proof of what cachestat does on this device. */
  #learn(offset: number, length: number, resident: number): void {
    if (cachestatCounts.has(this.#device)) return;
    if (this.#seen[0] > 0) {
      cachestatCounts.set(this.#device, true);
    } else if (resident > 0 && native().cachestat(this.#fd, offset, length, this.#seen) === 0) {
      // The pages may have come between the two questions; then it sees them now.
      cachestatCounts.set(this.#device, this.#seen[0] > 0);
    }
  }
}

const now = performance.now.bind(performance);
