/**
 * What is on the medium: the bytes that reads see, and which of them would survive a loss of power.
 *
 *   pages      4 KiB each, only where something was written            what reads see (durable + volatile cache)
 *   unsynced   sector -> [ durable bytes | version | version … ]       what each sector was before each write since the last sync
 *
 * Guarantees: bytes at and past `size` are zero; after `sync` nothing is unsynced that was not forgotten; a power cut leaves each
 * sector whole, as one of its versions. Leaves to others: what an operation does and whether it fails (`device.ts`).
 */
import type { Random } from './random.js';

const PAGE_BYTES = 4096;
/** Versions kept for a sector that is written again and again without a sync; the durable one always is, of the others the newest. */
const versionsMax = 8;

interface UnsyncedSector {
  /** The sector before each write since the last sync, oldest first: [0] is what is durable. */
  versions: Uint8Array[];
  /** A failed sync gave it up: no later sync makes it durable, unless it is written again. */
  forgotten: boolean;
}

/** How many sectors that were not yet durable a power cut kept or dropped. */
export interface PowerCutReport {
  /** Unsynced sectors that hold their newest bytes. */
  kept: number;
  /** Unsynced sectors that hold older bytes. */
  dropped: number;
}

/** An unchanging copy of a disk's content. */
export interface DiskSnapshot {
  /** In bytes. */
  readonly size: number;
  /** A copy of the bytes of [offset, offset + length), short at the end. */
  read(offset: number, length: number): Uint8Array;
}

/** The content of one simulated disk. */
export class Medium {
  readonly sectorSize: number;
  #size: number;
  #durableSize: number;
  #pages = new Map<number, Uint8Array>();
  readonly #unsynced = new Map<number, UnsyncedSector>();

  constructor(size: number, sectorSize: number) {
    this.#size = size;
    this.#durableSize = size;
    this.sectorSize = sectorSize;
  }

  get size(): number {
    return this.#size;
  }

  get unsyncedSectors(): number {
    return this.#unsynced.size;
  }

  /** Copies what is there into all of `target`; zeros past the end. */
  read(offset: number, target: Uint8Array): void {
    copyOut(this.#pages, offset, target);
  }

  /** Puts bytes into the volatile cache. Does not change the size: `extend` first. */
  write(offset: number, bytes: Uint8Array): void {
    this.#remember(offset, bytes.length);
    this.#store(offset, bytes);
  }

  /** Puts bytes on the medium as if they had always been there, below whatever is not yet durable. */
  writeThrough(offset: number, bytes: Uint8Array): void {
    this.#store(offset, bytes);
    for (let sector = Math.floor(offset / this.sectorSize); sector * this.sectorSize < offset + bytes.length; sector++) {
      const start = sector * this.sectorSize;
      for (const version of this.#unsynced.get(sector)?.versions ?? []) {
        const from = Math.max(offset, start);
        version.set(bytes.subarray(from - offset, Math.min(offset + bytes.length, start + this.sectorSize) - offset), from - start);
      }
    }
  }

  /** Grows to `size` at least, by zeros. */
  extend(size: number): void {
    this.#size = Math.max(this.#size, size);
  }

  /** Sets the size; what is cut off reads as zeros if the size grows again. */
  resize(size: number): void {
    // Everything behind, also what a failed sync forgot when an earlier end was cut: no later growth brings it back.
    if (size < this.#size) this.zero(size, Number.MAX_SAFE_INTEGER - size);
    this.#size = size;
  }

  /** Sets the size for good, as if it had always been this. */
  resizeThrough(size: number): void {
    this.resize(size);
    this.#durableSize = size;
    for (const [sector, { versions }] of this.#unsynced) {
      const start = sector * this.sectorSize;
      if (start >= size) this.#unsynced.delete(sector);
      else if (start + this.sectorSize > size) for (const version of versions) version.fill(0, size - start);
    }
  }

  zero(offset: number, length: number): void {
    for (const { start, end } of this.#sectorsStored(offset, length)) {
      this.#remember(start, end - start);
      this.#store(start, new Uint8Array(end - start));
    }
  }

  /** What a device may make of a discarded range: each sector that held something is kept, zeroed or garbage. */
  discard(offset: number, length: number, random: Random): void {
    for (const { start, end } of this.#sectorsStored(offset, length)) {
      const choice = random.below(3);
      if (choice === 0) continue;
      const bytes = new Uint8Array(end - start);
      this.write(start, choice === 1 ? bytes : random.fill(bytes));
    }
  }

  /** Makes durable what reads see, except what was forgotten; of a range only its own sectors, and that the file reaches up to its end. */
  sync(from = 0, to = Number.POSITIVE_INFINITY): void {
    if (to === Number.POSITIVE_INFINITY) {
      for (const [sector, entry] of this.#unsynced) if (!entry.forgotten) this.#unsynced.delete(sector);
      this.#durableSize = this.#size;
      return;
    }
    for (let sector = Math.floor(from / this.sectorSize); sector * this.sectorSize < to; sector++) {
      if (this.#unsynced.get(sector)?.forgotten === false) this.#unsynced.delete(sector);
    }
    this.#durableSize = Math.max(this.#durableSize, Math.min(to, this.#size));
  }

  /** The unsynced bytes stay readable and never become durable by a later sync, as pages that a kernel marked clean after a failed write-back. */
  forget(): void {
    for (const entry of this.#unsynced.values()) {
      entry.forgotten = true;
      entry.versions.length = 1;
    }
  }

  /** The unsynced bytes are gone: every sector reads as what was durable. The size stays, and is durable. */
  drop(): void {
    for (const [sector, entry] of this.#unsynced) this.#store(sector * this.sectorSize, entry.versions[0]);
    this.#unsynced.clear();
    this.#durableSize = this.#size;
    this.#clearPastEnd();
  }

  /** Leaves the durable bytes, and of the unsynced sectors all, none, or some as one of their versions. */
  powerCut(drop: 'all' | 'none' | 'some', random: Random): PowerCutReport {
    const survival = drop === 'all' ? 0 : drop === 'none' ? 1 : random.fraction();
    const report = { kept: 0, dropped: 0 };
    for (const [sector, entry] of this.#unsynced) {
      if (!entry.forgotten && random.chance(survival)) {
        report.kept++;
        continue;
      }
      report.dropped++;
      this.#store(sector * this.sectorSize, entry.versions[drop === 'some' ? random.below(entry.versions.length) : 0]);
    }
    this.#unsynced.clear();
    if (!random.chance(survival)) this.#size = this.#durableSize;
    this.#durableSize = this.#size;
    this.#clearPastEnd();
    return report;
  }

  /** A copy of what reads see, or of what the harshest power cut would leave. */
  snapshot(state: 'visible' | 'durable'): DiskSnapshot {
    const pages = new Map<number, Uint8Array>();
    for (const [page, bytes] of this.#pages) pages.set(page, bytes.slice());
    if (state === 'durable') {
      for (const [sector, entry] of this.#unsynced) copyIn(pages, sector * this.sectorSize, entry.versions[0]);
    }
    const size = state === 'durable' ? this.#durableSize : this.#size;
    return {
      size,
      read: (offset, length) => {
        const bytes = new Uint8Array(Math.max(0, Math.min(length, size - offset)));
        copyOut(pages, offset, bytes);
        return bytes;
      },
    };
  }

  #store(offset: number, bytes: Uint8Array): void {
    copyIn(this.#pages, offset, bytes);
  }

  /** Notes what the sectors of a range hold, before they change. */
  #remember(offset: number, length: number): void {
    for (let sector = Math.floor(offset / this.sectorSize); sector * this.sectorSize < offset + length; sector++) {
      const entry = this.#unsynced.get(sector);
      if (entry?.forgotten) {
        entry.forgotten = false;
        continue;
      }
      const before = new Uint8Array(this.sectorSize);
      copyOut(this.#pages, sector * this.sectorSize, before);
      if (entry === undefined) {
        this.#unsynced.set(sector, { versions: [before], forgotten: false });
        continue;
      }
      if (entry.versions.length === versionsMax) entry.versions.splice(1, 1);
      entry.versions.push(before);
    }
  }

  /** The parts of a range that lie on stored pages, cut at sectors: a range may be a terabyte of nothing. */
  #sectorsStored(offset: number, length: number): Array<{ start: number; end: number }> {
    const parts: Array<{ start: number; end: number }> = [];
    for (const page of this.#pagesStored(offset, length)) {
      const end = Math.min((page + 1) * PAGE_BYTES, offset + length);
      for (let start = Math.max(page * PAGE_BYTES, offset); start < end; ) {
        const next = Math.min(end, (Math.floor(start / this.sectorSize) + 1) * this.sectorSize);
        parts.push({ start, end: next });
        start = next;
      }
    }
    return parts;
  }

  #pagesStored(offset: number, length: number): number[] {
    const first = Math.floor(offset / PAGE_BYTES);
    const end = Math.ceil((offset + length) / PAGE_BYTES);
    return [...this.#pages.keys()].filter((page) => page >= first && page < end).sort((left, right) => left - right);
  }

  #clearPastEnd(): void {
    for (const page of this.#pagesStored(this.#size, Number.MAX_SAFE_INTEGER)) {
      if (page * PAGE_BYTES >= this.#size) this.#pages.delete(page);
      else this.#pages.get(page)!.fill(0, this.#size - page * PAGE_BYTES);
    }
  }
}

function copyOut(pages: ReadonlyMap<number, Uint8Array>, offset: number, target: Uint8Array): void {
  for (let done = 0; done < target.length; ) {
    const page = Math.floor((offset + done) / PAGE_BYTES);
    const start = offset + done - page * PAGE_BYTES;
    const count = Math.min(PAGE_BYTES - start, target.length - done);
    const bytes = pages.get(page);
    if (bytes === undefined) target.fill(0, done, done + count);
    else target.set(bytes.subarray(start, start + count), done);
    done += count;
  }
}

function copyIn(pages: Map<number, Uint8Array>, offset: number, source: Uint8Array): void {
  for (let done = 0; done < source.length; ) {
    const page = Math.floor((offset + done) / PAGE_BYTES);
    const start = offset + done - page * PAGE_BYTES;
    const count = Math.min(PAGE_BYTES - start, source.length - done);
    let bytes = pages.get(page);
    if (bytes === undefined) {
      bytes = new Uint8Array(PAGE_BYTES);
      pages.set(page, bytes);
    }
    bytes.set(source.subarray(done, done + count), start);
    done += count;
  }
}
