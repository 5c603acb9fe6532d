/**
 * A file's standing mapping for page-cache mode, in segments, and what is known about which of its pages are in memory.
 *
 *   file       0 ................ 4 GiB - 64 MiB ................ 8 GiB - 128 MiB
 *   segment 0  [===========================|room]
 *   segment 1                     [===========================|room]
 *                                  64 MiB shared by both: a window begins in one segment and never reaches past its end
 *
 *   segment    [ unit 0 | unit 1 | … ]      64 KiB each: until when its pages count as resident without asking
 *
 * A mapping per access never pays; a view of a standing one costs nanoseconds. A segment is made when it is first asked for and has room behind the end of
 * the file, so that appending does not map anew. The pages behind the end are mapped, but never shown: touching one would be SIGBUS.
 *
 * Guarantees: `resident` is true only if every page of the range was in memory less than 100 ms ago, as far as the kernel says so truthfully; pages of a
 * private mapping that JavaScript stored into are the file's again after a proof. A segment's buffer stays safe to touch for ever.
 * What the guard put zero pages under stays dead until `mend`, and is reported once.
 * Leaves to others: bringing pages in, and remembering which windows lay beyond a cut or over what was mended.
 */

import { readFileSync } from 'node:fs';
import { performance } from 'node:perf_hooks';
import { assertionError, type ErrorPlace, SectorwiseError, systemError } from '../errors.js';
import { type NativeSegment, native } from '../io/native.js';
import { type PageHold, PageLocks } from './page-locks.js';
import { CAUSE_CLOSE, CAUSE_FAULT, CAUSE_NONE, CAUSE_TRUNCATE, causeError, causeOf, firstDeadPage, invalidate, revalidate, validity } from './validity.js';

/** A cell of the arena: what one word of the validity table speaks for. */
export const CELL_BYTES = 2 * 1024 * 1024;
/** The largest window, and how far segments overlap. */
export const WINDOW_BYTES_MAX = 64 * 1024 * 1024;
/** What one ArrayBuffer takes on Node 20. */
export const SEGMENT_BYTES_MAX = 4 * 1024 ** 3;
/** From the start of one segment to the start of the next. */
export const SEGMENT_STRIDE = SEGMENT_BYTES_MAX - WINDOW_BYTES_MAX;

const PAGE_BYTES = 4096;
const UNIT_BYTES = 65536;
const UNIT_SHIFT = 16;
/** How long a proof is believed. Reclaim within that time is the stated exception. */
const KNOWN_MS = 100;
/** Proofs within one cell and that time, before the question is put for all of it. */
const CELL_PROOFS = 8;
const UNITS_IN_CELL_SHIFT = 5;

/**
 * Bound once: monotonic, as cheap as Date.now (about 40 ns), and out of reach of fake timers, which would make every mark last for ever.
 */
const monotonicMs = performance.now.bind(performance);

/** Room for mincore's answer over the largest window, rounded out to units. */
const coreMap = new Uint8Array((WINDOW_BYTES_MAX + 2 * UNIT_BYTES) / PAGE_BYTES);

const noMarks = new Float64Array(0);

const CELL_SHIFT = 21;
const PAGE_SHIFT = 12;

/** Which segment an ArrayBuffer of ours belongs to. */
const segmentOf = new WeakMap<ArrayBufferLike, MappedSegment>();

/** Something of a file that the guard found gone: bytes of the file. */
export interface Damage {
  /** CAUSE_FAULT: it could not be read. CAUSE_TRUNCATE: it lay beyond the end of the file when it was touched. */
  cause: number;
  /** First byte that is zeros instead. */
  offset: number;
  /** Bytes up to the end of the cell. */
  length: number;
}

/** Why [place, place+length) of a segment's buffer is gone, by the words of its cells; 0 if it is not. A range that ends before the dead part of a cell is not concerned. */
export function segmentCause(words: Int32Array, segment: Pick<Segment, 'firstCell'>, place: number, length: number): number {
  const last = segment.firstCell + ((place + length - 1) >>> CELL_SHIFT);
  for (let cell = segment.firstCell + (place >>> CELL_SHIFT); cell <= last; cell++) {
    if (words[cell] !== CAUSE_NONE) return deadCause(words, cell, last, place + length - 1);
  }
  return CAUSE_NONE;
}

/** Apart from the loop that finds nothing, which stays small enough to be inlined wherever a window is looked at. `end` is the range's last byte. */
function deadCause(words: Int32Array, first: number, last: number, end: number): number {
  for (let cell = first; cell <= last; cell++) {
    const word = words[cell];
    if (word !== CAUSE_NONE && (cell < last || (end & (CELL_BYTES - 1)) >>> PAGE_SHIFT >= firstDeadPage(word))) return causeOf(word);
  }
  return CAUSE_NONE;
}

/**
 * What EFAULT of a system call that was to write to `target` means: why the target's bytes are gone, if it is a window's; else CAUSE_NONE.
 * The kernel gives system calls an error and no signal, so each page is stored into here, unchanged, for the guard to see.
 */
export function causeOfFault(target: Uint8Array): number {
  const segment = segmentOf.get(target.buffer);
  if (segment === undefined || target.length === 0) return CAUSE_NONE;
  for (let at = 0; at < target.length; at += PAGE_BYTES) Atomics.or(target, at, 0);
  Atomics.or(target, target.length - 1, 0);
  return segmentCause(validity().words, segment, target.byteOffset, target.length);
}

/** A stretch of a file in one ArrayBuffer. */
export interface Segment {
  /** Valid to touch for ever: the file's bytes, or zero pages once it was closed or cut. */
  readonly buffer: ArrayBuffer;
  /** File offset of the buffer's first byte, a multiple of 2 MiB. */
  readonly start: number;
  /** Bytes in the buffer. */
  readonly length: number;
  /** File offset behind the buffer's last byte. */
  readonly end: number;
  /** Cell of the buffer's first byte: the index of its word in the validity table. */
  readonly firstCell: number;
  /** Cells in the buffer. */
  readonly cells: number;
}

class MappedSegment implements Segment {
  readonly buffer: ArrayBuffer;
  readonly start: number;
  readonly length: number;
  readonly end: number;
  readonly firstCell: number;
  readonly cells: number;
  readonly native: NativeSegment;
  /** Words of cells as they were when their damage was reported. */
  readonly reported = new Map<number, number>();
  /** For each unit the time until which it counts as resident; made with the first mark. */
  until: Float64Array = noMarks;
  /** Made with the first lock. */
  locks: PageLocks | undefined = undefined;
  /** For each cell: since when proofs are counted, and how many there were; made with the first one. */
  #countedSince: Float64Array = noMarks;
  #proofs = new Uint8Array(0);

  constructor(mapped: NativeSegment, start: number, length: number) {
    this.buffer = mapped.buffer;
    this.start = start;
    this.length = length;
    this.end = start + length;
    this.firstCell = mapped.firstCell;
    this.cells = mapped.cells;
    this.native = mapped;
    segmentOf.set(mapped.buffer, this);
  }

  /**
   * Notes that a unit which is not known was asked about. True if that had not been for as long as a proof is believed: a reader that jumps around never comes back to
   * it, one that does will find all of it proved.
   */
  visit(unit: number, now: number): boolean {
    if (this.until.length === 0) this.until = new Float64Array(this.length / UNIT_BYTES);
    const seldom = this.until[unit] >= 0 || now + this.until[unit] > KNOWN_MS;
    // A visit is a negative time: never later than now, so never taken for a proof.
    this.until[unit] = -now;
    return seldom;
  }

  /** Pages of [begin, end) that are in the page table or in units which count as resident. */
  present(begin: number, end: number): number {
    const now = monotonicMs();
    const known = (at: number): boolean => this.until.length > 0 && this.until[at >>> UNIT_SHIFT] > now;
    let pages = 0;
    for (let at = begin; at < end; ) {
      const from = at;
      const state = known(at);
      do at = Math.min(end, ((at >>> UNIT_SHIFT) + 1) * UNIT_BYTES);
      while (at < end && known(at) === state);
      pages += state ? Math.ceil((at - from) / PAGE_BYTES) : Math.max(0, this.native.present(from, at - from));
    }
    return pages;
  }

  /** Counts a proof within a cell. True, once in as long as a proof is believed, when there were so many that one for the whole cell costs less than those to come. */
  crowded(cell: number, now: number): boolean {
    if (this.#proofs.length === 0) {
      this.#countedSince = new Float64Array(this.cells);
      this.#proofs = new Uint8Array(this.cells);
    }
    if (now - this.#countedSince[cell] > KNOWN_MS) {
      this.#countedSince[cell] = now;
      this.#proofs[cell] = 0;
    }
    // Stops at 255, so that it passes the mark once.
    return this.#proofs[cell] < 255 && ++this.#proofs[cell] === CELL_PROOFS;
  }

  /** Units first…last of this segment are resident. */
  mark(first: number, last: number, now: number): void {
    if (last < first) return;
    if (this.until.length === 0) this.until = new Float64Array(this.length / UNIT_BYTES);
    this.until.fill(now + KNOWN_MS, first, last + 1);
  }
}

/** What a mapping is made of. */
export interface FileMappingOptions {
  /** Stays its owner's; must be open for as long as the mapping is. */
  fd: number;
  path: string;
  /** Bytes in the file now. */
  size: number;
  /** MAP_SHARED: stores reach the file. Else they stay in this process, and vanish at the next proof. */
  shared: boolean;
  /** Does mincore tell this process the truth? It does to owners and to those who may write; to others everything is resident. */
  trustMincore: boolean;
}

/** The standing mapping of one file. Offsets and lengths are bytes of the file; no range is longer than 64 MiB unless it says so. */
export class FileMapping {
  /** Times that pages were dropped: by `unmap`, or as `dropped` was told. */
  drops = 0;
  readonly #fd: number;
  readonly #path: string;
  readonly #shared: boolean;
  readonly #trustMincore: boolean;
  readonly #words = validity().words;
  #size: number;
  /** Up to where a cut put zero pages, from the page behind `#size`; 0 without one. */
  #cutEnd = 0;
  #closed = false;
  readonly #segments: Array<MappedSegment | undefined> = [];
  /** Those that a longer one took the place of; windows over them are still in use. Each is at most half as long as the next. */
  readonly #replaced: MappedSegment[] = [];

  constructor(options: FileMappingOptions) {
    this.#fd = options.fd;
    this.#path = options.path;
    this.#size = options.size;
    this.#shared = options.shared;
    this.#trustMincore = options.trustMincore;
  }

  /** The end of the file, as this mapping was told. */
  get size(): number {
    return this.#size;
  }

  /**
   * The segment that holds all of [offset, offset+length).
   *
   * @throws SectorwiseError ERR_SECTORWISE_CLOSED after `close`; the error of `mmap` where a segment cannot be made: ENOMEM, ENODEV (the file system maps nothing), EACCES.
   */
  at(offset: number, length: number): Segment {
    return this.#at(offset, length);
  }

  /**
   * Is every page of the range in memory, so that touching it waits for no device? Starts no I/O. A range longer than nothing must lie within the file.
   */
  resident(offset: number, length: number): boolean {
    if (length === 0) return true;
    const segment = this.#at(offset, length);
    const { until } = segment;
    const begin = offset - segment.start;
    const last = (begin + length - 1) >>> UNIT_SHIFT;
    let unit = begin >>> UNIT_SHIFT;
    const now = monotonicMs();
    if (until.length > 0) {
      while (unit <= last && until[unit] > now) unit++;
      if (unit > last) return true;
    }
    if (segment.locks?.known(Math.floor(begin / PAGE_BYTES), Math.ceil((begin + length) / PAGE_BYTES))) return true;
    if (segment.crowded(unit >>> UNITS_IN_CELL_SHIFT, now)) {
      this.#proveCell(segment, unit >>> UNITS_IN_CELL_SHIFT, now);
      while (unit <= last && segment.until[unit] > now) unit++;
      if (unit > last) return true;
    }
    if (unit === last && segment.visit(unit, now)) {
      // The first question about a unit for some time: only what was asked about is proved, at a fraction of the cost of sixteen pages.
      const first = pagesDown(begin);
      if (segment.native.scan(first, pagesUp(begin + length) - first) === -1) return true;
    }
    return this.#prove(segment, begin, begin + length, unit, last, now);
  }

  /**
   * The runs of absent pages in a range of any length, as [offset, length] pairs in `into`, ascending, whole pages; answers with how many.
   * Where mincore does not tell the truth everything from the first page that is not known to be there is one run. When `into` is full the last run reaches to the last absent page.
   */
  missing(offset: number, length: number, into: Float64Array): number {
    const end = pagesUp(offset + length);
    let runs = 0;
    for (let position = pagesDown(offset); position < end; ) {
      const segment = this.#cover(position, Math.min(WINDOW_BYTES_MAX, end - position));
      const stop = Math.min(position + WINDOW_BYTES_MAX, end);
      const begin = position - segment.start;
      if (segmentCause(this.#words, segment, begin, stop - position) !== CAUSE_NONE) {
        // Zero pages are in memory, and the file's are not known to be.
        runs = appendRun(into, runs, position, stop - position);
        position = stop;
        continue;
      }
      // Asked first even though mincore follows: it undoes stores into private pages, which mincore takes for resident.
      const found = segment.native.scan(begin, stop - position);
      if (found !== -1) runs = this.#absentRuns(segment, found < 0 ? begin : begin + found, stop - segment.start, into, runs);
      position = stop;
    }
    return runs;
  }

  /**
   * Pages of a range of any length that are known to be in memory without anybody's leave: in the page table of this process, or proved or read a moment ago. Never too
   * many. Maps nothing.
   */
  present(offset: number, length: number): number {
    const end = offset + length;
    let pages = 0;
    for (let position = offset; position < end; ) {
      const index = Math.floor(position / SEGMENT_STRIDE);
      const stop = Math.min(end, (index + 1) * SEGMENT_STRIDE);
      const segment = this.#segments[index];
      if (segment !== undefined && position < segment.end) pages += segment.present(position - segment.start, Math.min(stop, segment.end) - segment.start);
      position = stop;
    }
    return pages;
  }

  /** Is any of the range mapped? */
  covers(offset: number, length: number): boolean {
    return this.#segments.some((segment) => segment !== undefined && segment.start < offset + length && segment.end > offset);
  }

  /** The range was just read: its units count as resident. A unit of which only a part was read does not, except at the end of the file. Any length. Segments not made yet learn nothing. */
  markResident(offset: number, length: number): void {
    const end = Math.min(offset + length, this.#size);
    const whole = end === this.#size ? Math.ceil : Math.floor;
    const now = monotonicMs();
    for (const segment of this.#segments) {
      if (segment === undefined || segment.end <= offset || segment.start >= end) continue;
      const first = Math.ceil(Math.max(0, offset - segment.start) / UNIT_BYTES);
      segment.mark(first, whole((Math.min(end, segment.end) - segment.start) / UNIT_BYTES) - 1, now);
    }
  }

  /** The kernel dropped pages of the range, or is about to. Any length. */
  dropped(offset: number, length: number): void {
    this.drops++;
    this.forget(offset, length);
  }

  /** Nothing in the range counts as resident any longer; the next question is put to the kernel. Any length. */
  forget(offset: number, length: number): void {
    const end = offset + length;
    for (const segment of this.#all()) segment.locks?.forget(Math.floor((offset - segment.start) / PAGE_BYTES), Math.ceil((end - segment.start) / PAGE_BYTES));
    for (const segment of this.#segments) {
      if (segment === undefined || segment.until.length === 0 || segment.end <= offset || segment.start >= end) continue;
      const first = Math.max(0, Math.floor((offset - segment.start) / UNIT_BYTES));
      segment.until.fill(0, first, Math.ceil((end - segment.start) / UNIT_BYTES));
    }
  }

  /**
   * The file ends at `size` now; a size below what is known is ignored, shrinking is `cut`. Bytes that an earlier cut took are mapped again.
   *
   * @throws as `regrow`.
   */
  grow(size: number): void {
    if (size <= this.#size) return;
    const from = this.#size;
    // What was proved about the last unit was proved up to the old end.
    this.forget(from, 1);
    if (from < this.#cutEnd) this.regrow(from, size);
    this.#size = size;
  }

  /**
   * Before the file is made shorter: whole pages beyond `newSize` become zero pages, and cells wholly beyond it say CAUSE_TRUNCATE.
   * If the file then stays as it was, `regrow(newSize, oldSize)` undoes it.
   *
   * @throws the error of `mmap`, ENOMEM; the cells are marked then, and it can be called again.
   */
  cut(oldSize: number, newSize: number): void {
    const from = pagesUp(newSize);
    const to = pagesUp(Math.max(oldSize, newSize, this.#size));
    this.forget(newSize, to - newSize);
    this.#size = newSize;
    this.#cutEnd = Math.max(this.#cutEnd, to);
    for (const segment of this.#all()) {
      const begin = Math.max(0, from - segment.start);
      const end = Math.min(segment.length, to - segment.start);
      if (begin >= end) continue;
      const firstCell = Math.ceil(Math.max(0, newSize - segment.start) / CELL_BYTES);
      const cells = Math.ceil(end / CELL_BYTES) - firstCell;
      segment.locks?.cut(begin / PAGE_BYTES);
      // Before the bytes change: who reads zeros and asks then, learns why.
      invalidate(segment.firstCell + firstCell, cells, CAUSE_TRUNCATE);
      const result = segment.native.repoint(begin, end - begin);
      if (result < 0) throw systemError(result, 'mmap', { path: this.#path, offset: segment.start + begin, length: end - begin });
    }
  }

  /**
   * After the file became longer again: the pages between the two ends are the file's, and their cells are valid unless something else befell them.
   *
   * @throws the error of `mmap`, ENOMEM; the pages stay zero pages and their cells invalid then, and it can be called again.
   */
  regrow(fromSize: number, toSize: number): void {
    const from = pagesUp(fromSize);
    const to = Math.min(pagesUp(toSize), this.#cutEnd);
    this.forget(fromSize, Math.max(0, toSize - fromSize));
    for (const segment of this.#all()) {
      const begin = Math.max(0, from - segment.start);
      const end = Math.min(segment.length, to - segment.start);
      if (begin >= end) continue;
      this.#regrowSegment(segment, begin, end);
    }
    if (toSize >= this.#cutEnd) this.#cutEnd = 0;
    this.#size = Math.max(this.#size, toSize);
  }

  /**
   * What the guard found since it was last asked, each once. Looks at every cell: to be called when there was a fault.
   * What lies beyond the known end of the file is nobody's and not told.
   */
  damage(found: (damage: Damage) => void): void {
    for (const segment of this.#all()) {
      for (let cell = 0; cell < segment.cells; cell++) {
        if (this.#words[segment.firstCell + cell] !== CAUSE_NONE) this.#report(segment, cell, found);
      }
    }
  }

  /**
   * Maps the file again under what the guard replaced in the cells of the range, which must lie within the file. `found` as for `damage`; `lost` is called for everything
   * before it is mapped: windows that were made before must stay dead.
   *
   * @throws the error of `mmap`, ENOMEM; the cells stay as they were then, and it can be called again.
   */
  mend(offset: number, length: number, found: (damage: Damage) => void, lost: (damage: Damage) => void): void {
    const segment = this.#at(offset, length);
    const last = (offset + length - 1 - segment.start) >>> CELL_SHIFT;
    for (let cell = (offset - segment.start) >>> CELL_SHIFT; cell <= last; cell++) {
      for (let word = this.#words[segment.firstCell + cell]; isDamage(word); word = this.#words[segment.firstCell + cell]) {
        this.#report(segment, cell, found);
        const damage = damageOf(segment, cell, word);
        lost(damage);
        // Valid again while there are zero pages and nobody has a window: set after the file is mapped it could hide a fault that came in between.
        if (Atomics.compareExchange(this.#words, segment.firstCell + cell, word, CAUSE_NONE) !== word) continue;
        segment.reported.delete(cell);
        this.#remap(segment, cell, word, damage);
      }
    }
  }

  #remap(segment: MappedSegment, cell: number, word: number, { offset, length }: Damage): void {
    // Pages that a cut took stay zero pages, until the file grows over them.
    const end = this.#cutEnd > 0 ? Math.min(offset + length, Math.max(offset, pagesUp(this.#size))) : offset + length;
    if (end < offset + length) this.#cutEnd = Math.max(this.#cutEnd, offset + length);
    if (end === offset) return;
    const result = segment.native.restore(offset - segment.start, end - offset, this.#fd);
    if (result === 0) return;
    Atomics.compareExchange(this.#words, segment.firstCell + cell, CAUSE_NONE, word);
    throw systemError(result, 'mmap', { path: this.#path, offset, length: end - offset });
  }

  #report(segment: MappedSegment, cell: number, found: (damage: Damage) => void): void {
    const word = this.#words[segment.firstCell + cell];
    if (!isDamage(word) || segment.reported.get(cell) === word) return;
    const damage = damageOf(segment, cell, word);
    if (damage.offset >= this.#size) return;
    segment.reported.set(cell, word);
    this.forget(damage.offset, damage.length);
    found(damage);
  }

  /** Valid before the file is mapped: as in `mend`. */
  #regrowSegment(segment: MappedSegment, begin: number, end: number): void {
    const firstCell = begin >>> CELL_SHIFT;
    const cells = Math.ceil(end / CELL_BYTES) - firstCell;
    const before = this.#words.slice(segment.firstCell + firstCell, segment.firstCell + firstCell + cells);
    // The guard may have found less of the file than whoever cut it.
    const from = causeOf(before[0]) === CAUSE_TRUNCATE ? Math.min(begin, firstCell * CELL_BYTES + firstDeadPage(before[0]) * PAGE_BYTES) : begin;
    revalidate(segment.firstCell + firstCell, cells, CAUSE_TRUNCATE);
    for (let cell = firstCell; cell < firstCell + cells; cell++) segment.reported.delete(cell);
    const result = segment.native.restore(from, end - from, this.#fd);
    if (result >= 0) return;
    for (let cell = 0; cell < cells; cell++) Atomics.compareExchange(this.#words, segment.firstCell + firstCell + cell, CAUSE_NONE, before[cell]);
    throw systemError(result, 'mmap', { path: this.#path, offset: segment.start + from, length: end - from });
  }

  /**
   * Takes the pages of a range out of the page table, so that the kernel may drop them: the next touch asks for each anew. What was stored into private ones is gone,
   * and their memory free. Any length; one call of the kernel for each segment, which takes some 30 ns for each page that was there and next to nothing for others.
   */
  unmap(offset: number, length: number): void {
    this.dropped(offset, length);
    for (const segment of this.#all()) {
      const begin = Math.max(0, pagesDown(offset) - segment.start);
      const end = Math.min(segment.length, pagesUp(offset + length) - segment.start);
      if (begin >= end) continue;
      const result = segment.native.drop(begin, end - begin);
      if (result < 0) throw assertionError(`madvise of [${begin}, ${end}) of a segment of ${segment.length} failed with ${result}`);
    }
  }

  /**
   * Would locking the range go beyond what this process may lock? Asks for the limit, locks nothing.
   *
   * @throws SectorwiseError ERR_SECTORWISE_LOCK_LIMIT if it would.
   */
  checkLock(offset: number, length: number): void {
    const segment = this.#at(offset, length);
    const { first, end } = pagesOf(offset - segment.start, length);
    const fresh = (segment.locks?.free(first, end) ?? end - first) * PAGE_BYTES;
    const { limit, locked } = native().memoryLocks();
    if (fresh > 0 && locked + fresh > limit) throw lockLimit(fresh, limit, locked, { path: this.#path, offset, length });
  }

  /**
   * Locks the pages of a range that is resident, so that reclaim cannot take them until the hold is given up (`hold.locks.give(hold)`). `filled`: they were just read in, and one that has left memory since
   * is waited for; else the answer is undefined then, and nothing is locked.
   *
   * @throws SectorwiseError ERR_SECTORWISE_LOCK_LIMIT beyond what the process may lock, ERR_SECTORWISE_FAULT where a page cannot be had; the error of `mlock2`.
   */
  lock(offset: number, length: number, filled: boolean): PageHold | undefined {
    this.checkLock(offset, length);
    const segment = this.#at(offset, length);
    segment.locks ??= new PageLocks(segment.native);
    const { first, end } = pagesOf(offset - segment.start, length);
    const fresh = segment.locks.free(first, end) * PAGE_BYTES;
    const hold = segment.locks.take(first, end);
    if (typeof hold === 'number') throw lockRefused(hold, fresh, { path: this.#path, offset, length });
    // Locked is what is in the page table; what is only in the page cache has to come there, which is a minor fault.
    const begin = first * PAGE_BYTES;
    const bytes = (end - first) * PAGE_BYTES;
    if (segment.native.scan(begin, bytes) === -1) return hold;
    if (!filled && !(this.#trustMincore && segment.native.mincore(begin, bytes, coreMap) === 0 && inCore(0, end - first))) {
      segment.locks.give(hold);
      return undefined;
    }
    const result = segment.native.populate(begin, bytes);
    if (result === 0) return hold;
    segment.locks.give(hold);
    throw causeError(CAUSE_FAULT, { path: this.#path, offset, length, cause: systemError(result, 'madvise') });
  }

  /** Views of every segment read zeros from here on, and their cells say `cause`. The file is not in use by this mapping any more; the descriptor stays open. */
  close(cause = CAUSE_CLOSE): void {
    if (this.#closed) return;
    this.#closed = true;
    for (const segment of this.#all()) {
      invalidate(segment.firstCell, segment.cells, cause);
      segment.native.close();
    }
    this.#segments.length = 0;
    this.#replaced.length = 0;
  }

  #at(offset: number, length: number): MappedSegment {
    const end = offset + length;
    if (end > this.#size) this.grow(end);
    return this.#cover(offset, length);
  }

  #cover(offset: number, length: number): MappedSegment {
    const index = Math.floor(offset / SEGMENT_STRIDE);
    const segment = this.#segments[index];
    if (segment !== undefined && offset + length <= segment.end) return segment;
    return this.#map(index, offset + length);
  }

  #map(index: number, end: number): MappedSegment {
    if (this.#closed) throw causeError(CAUSE_CLOSE, { path: this.#path });
    const start = index * SEGMENT_STRIDE;
    if (end - start > SEGMENT_BYTES_MAX) throw assertionError(`a range up to ${end} does not fit the segment at ${start}`);
    const before = this.#segments[index];
    const wanted = Math.max(this.#size, end) - start + WINDOW_BYTES_MAX;
    const length = Math.min(SEGMENT_BYTES_MAX, Math.ceil(Math.max(wanted, before === undefined ? 0 : 2 * before.length) / CELL_BYTES) * CELL_BYTES);
    const mapped = native().mapSegment(this.#fd, start, length, this.#shared);
    if (typeof mapped === 'number') throw systemError(mapped, 'mmap', { path: this.#path, offset: start, length });
    const segment = new MappedSegment(mapped, start, length);
    if (before !== undefined) this.#replaced.push(before);
    this.#segments[index] = segment;
    return segment;
  }

  *#all(): Generator<MappedSegment> {
    for (const segment of this.#segments) if (segment !== undefined) yield segment;
    yield* this.#replaced;
  }

  /** Asks the kernel about a whole cell, and marks its units up to the first page that is missing. */
  #proveCell(segment: MappedSegment, cell: number, now: number): void {
    const begin = cell * CELL_BYTES;
    const end = Math.min(begin + CELL_BYTES, segment.length, pagesUp(this.#size - segment.start));
    if (end <= begin) return;
    const found = segment.native.scan(begin, end - begin);
    // The last unit of the file counts as whole.
    const whole = found === -1 ? Math.ceil(end / UNIT_BYTES) : found < 0 ? 0 : Math.floor((begin + found) / UNIT_BYTES);
    segment.mark(begin / UNIT_BYTES, whole - 1, now);
  }

  /**
   * Asks the kernel about [begin, end) of a segment, of which the units before `unit` are known. The question is put for whole units, so that one answer
   * serves the neighbours too; a page that is missing outside the range only costs the mark.
   */
  #prove(segment: MappedSegment, begin: number, end: number, unit: number, last: number, now: number): boolean {
    const whole = Math.min((last + 1) * UNIT_BYTES, Math.min(segment.length, pagesUp(this.#size - segment.start)));
    const first = Math.max(pagesDown(begin), unit * UNIT_BYTES);
    const behind = pagesUp(end);
    const asked = unit * UNIT_BYTES;
    let found = segment.native.scan(asked, whole - asked);
    let proved = unit;
    if (found >= 0 && asked + found < first) {
      // Missing before the range: the unit that both lie in stays unproved.
      found = segment.native.scan(first, whole - first);
      if (found >= 0) found += first - asked;
      proved = unit + 1;
    }
    if (found === -1 || (found >= 0 && asked + found >= behind)) {
      segment.mark(proved, found === -1 ? last : ((asked + found) >>> UNIT_SHIFT) - 1, now);
      return true;
    }
    // Not in the page table, but perhaps in the page cache: then touching costs a minor fault, and no device.
    return this.#trustMincore && this.#proveByMincore(segment, asked, whole, first, behind, now);
  }

  /** As `#prove`, for [asked, whole) of a segment, whole units; the range is [first, behind). */
  #proveByMincore(segment: MappedSegment, asked: number, whole: number, first: number, behind: number, now: number): boolean {
    if (segment.native.mincore(asked, whole - asked, coreMap) < 0) return false;
    for (let page = (first - asked) / PAGE_BYTES; page < (behind - asked) / PAGE_BYTES; page++) {
      if ((coreMap[page] & 1) === 0) return false;
    }
    // Only the first and the last unit can have pages outside the range.
    const firstUnit = asked >>> UNIT_SHIFT;
    const lastUnit = (whole - 1) >>> UNIT_SHIFT;
    const proved = inCore(0, (first - asked) / PAGE_BYTES) ? firstUnit : firstUnit + 1;
    segment.mark(proved, inCore((behind - asked) / PAGE_BYTES, (whole - asked) / PAGE_BYTES) ? lastUnit : lastUnit - 1, now);
    return true;
  }

  /** Appends what is absent of [begin, end) of a segment to the first `runs` runs of `into`. */
  #absentRuns(segment: MappedSegment, begin: number, end: number, into: Float64Array, runs: number): number {
    if (!this.#trustMincore || segment.native.mincore(begin, end - begin, coreMap) < 0) return appendRun(into, runs, segment.start + begin, end - begin);
    const pages = (end - begin) / PAGE_BYTES;
    let count = runs;
    for (let page = 0; page < pages; ) {
      if ((coreMap[page] & 1) !== 0) {
        page++;
        continue;
      }
      const from = page;
      while (page < pages && (coreMap[page] & 1) === 0) page++;
      count = appendRun(into, count, segment.start + begin + from * PAGE_BYTES, (page - from) * PAGE_BYTES);
    }
    return count;
  }
}

/** The word of a cell that the guard replaced; the others speak for a file that is gone or closed. */
function isDamage(word: number): boolean {
  const cause = causeOf(word);
  return cause === CAUSE_FAULT || cause === CAUSE_TRUNCATE;
}

function damageOf(segment: Segment, cell: number, word: number): Damage {
  const begin = cell * CELL_BYTES + firstDeadPage(word) * PAGE_BYTES;
  return { cause: causeOf(word), offset: segment.start + begin, length: Math.min((cell + 1) * CELL_BYTES, segment.length) - begin };
}

function appendRun(into: Float64Array, runs: number, offset: number, length: number): number {
  const previous = 2 * (runs - 1);
  const full = 2 * runs + 1 >= into.length;
  if (runs > 0 && (full || into[previous] + into[previous + 1] === offset)) {
    into[previous + 1] = offset + length - into[previous];
    return runs;
  }
  into[2 * runs] = offset;
  into[2 * runs + 1] = length;
  return runs + 1;
}

function inCore(fromPage: number, toPage: number): boolean {
  for (let page = fromPage; page < toPage; page++) if ((coreMap[page] & 1) === 0) return false;
  return true;
}

function pagesOf(begin: number, length: number): { first: number; end: number } {
  return { first: Math.floor(begin / PAGE_BYTES), end: Math.ceil((begin + length) / PAGE_BYTES) };
}

function lockLimit(fresh: number, limit: number, locked: number, place: ErrorPlace): SectorwiseError {
  return new SectorwiseError(
    'ERR_SECTORWISE_LOCK_LIMIT',
    `Locking ${fresh} bytes more would go beyond the limit of this process: it may lock ${limit} bytes, and ${locked} are locked now. Release locked windows, raise the limit ` +
      '(ulimit -l, prlimit --memlock, LimitMEMLOCK= of systemd), or give the process CAP_IPC_LOCK.',
    place,
  );
}

/** What `mlock2` refused: beyond the limit because somebody else in the process locks memory too, or for another reason. */
function lockRefused(result: number, fresh: number, place: ErrorPlace): Error {
  const { limit } = native().memoryLocks();
  const locked = Number(/^VmLck:\s+(\d+) kB/m.exec(readFileSync('/proc/self/status', 'utf8'))?.[1] ?? 0) * 1024;
  const cause = systemError(result, 'mlock2', place);
  if (locked + fresh <= limit) return cause;
  return lockLimit(fresh, limit, locked, { ...place, cause });
}

function pagesDown(offset: number): number {
  return offset - (offset % PAGE_BYTES);
}

function pagesUp(offset: number): number {
  return Math.ceil(offset / PAGE_BYTES) * PAGE_BYTES;
}
