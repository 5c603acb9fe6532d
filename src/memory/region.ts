/**
 * A mapping as mmap(2) has them, for interfaces that are made of mappings (`mmap-io/`): any part of a file, shared or private, in one ArrayBuffer of the length that was asked for.
 *
 *   asked for                    mapped as
 *   PROT_WRITE, MAP_SHARED       shared, readable and writable: stores are the file's
 *   PROT_WRITE, MAP_PRIVATE      private, readable and writable
 *   no PROT_WRITE                private, readable and writable: a stray store stays in this process, where mmap would end it (SIGSEGV)
 *   a character device           as asked for
 *
 * Guarantees: a touch of a file never ends the process, not beyond the end of the file, not on a device that fails, not after `close`; `check` says then why the bytes are not the file's. The
 * address space goes back when the buffer was collected, the file at `close`, or then.
 * Leaves to others: whose buffer it is, and what was passed (`mmap-io/`). Nobody watches the file or its device: what is lost is found when it is touched.
 */
import { fstatSync } from 'node:fs';
import { SectorwiseError, systemError } from '../errors.js';
import { type NativeRegion, native } from '../io/native.js';
import { armGuard } from './guard.js';
import { segmentCause } from './mapping.js';
import { CAUSE_CLOSE, CAUSE_NONE, causeError, invalidate, validity } from './validity.js';

const PAGE_BYTES = 4096;
const EINVAL = -22;
const EOPNOTSUPP = -95;

/** Taken, and changes nothing: every map can be read. */
export const PROT_READ = 1;
/** Stores are meant. With MAP_SHARED they are the file's. */
export const PROT_WRITE = 2;
/** Stores are everybody's, with PROT_WRITE. From asm-generic/mman.h and linux/mman.h, as the following. */
export const MAP_SHARED = 1;
/** Stores stay in this process. */
export const MAP_PRIVATE = 2;
/** Bits of the flags that say which of the two. */
const MAP_TYPE = 0xf;
const MAP_NORESERVE = 0x4000;
/** Reads everything in, and waits for it. */
export const MAP_POPULATE = 0x8000;
/** Makes nothing of MAP_POPULATE, since Linux 2.6.23. */
export const MAP_NONBLOCK = 0x10000;

/** Bytes of a page, as the machine has them; 4096 where the addon cannot be loaded. */
export function pageBytes(): number {
  try {
    return native().pageSize();
  } catch {
    return PAGE_BYTES;
  }
}

/** One mapping. Offsets are bytes of its buffer. */
export class MappedRegion {
  readonly buffer: ArrayBuffer;
  readonly #native: NativeRegion;
  /** Of the file. */
  readonly #start: number;
  #closed = false;

  /**
   * `fd` may be closed afterwards: the mapping has a descriptor of its own.
   *
   * @throws the error of `mmap`; ERR_SECTORWISE_UNSUPPORTED for what cannot be guarded; ERR_SECTORWISE_PAGE_SIZE where pages are not 4096 bytes; ERR_SECTORWISE_SIGNAL_BLOCKED where this thread blocks SIGBUS.
   */
  constructor(fd: number, offset: number, length: number, protection: number, flags: number) {
    if (pageBytes() !== PAGE_BYTES) {
      throw new SectorwiseError(
        'ERR_SECTORWISE_PAGE_SIZE',
        `Guarded mappings need pages of 4096 bytes, and here they have ${pageBytes()}; read the file instead.`,
      );
    }
    armGuard();
    const writable = (protection & PROT_WRITE) !== 0;
    const kept = writable || (flags & MAP_TYPE) === 0 || isCharacterDevice(fd, offset, length);
    // A private mapping that may be written to is populated with copies, which are the file's bytes no longer.
    const asked = kept ? flags : (flags & ~(MAP_TYPE | MAP_POPULATE)) | MAP_PRIVATE | MAP_NORESERVE;
    const mapped = native().mapRegion(fd, offset, length, kept && !writable ? protection : PROT_READ | PROT_WRITE, asked);
    if (mapped === EOPNOTSUPP) {
      throw new SectorwiseError(
        'ERR_SECTORWISE_UNSUPPORTED',
        'This is a file of huge pages (hugetlbfs), of which no part could be replaced when it is lost, or a runtime that takes no memory but its own; read the file instead.',
      );
    }
    if (typeof mapped === 'number') throw systemError(mapped, 'mmap', { offset, length });
    this.#native = mapped;
    this.#start = offset;
    this.buffer = mapped.buffer;
    // As in mmap, what cannot be brought in is found by who touches it.
    if (!kept && (flags & (MAP_POPULATE | MAP_NONBLOCK)) === MAP_POPULATE) mapped.populate(0, length);
  }

  /** `close` was called. */
  get closed(): boolean {
    return this.#closed;
  }

  /** madvise(2). @throws its error, ENOMEM for a range that is not within the mapping. */
  advise(offset: number, length: number, advice: number): void {
    this.#answer('madvise', offset, length, this.#native.advise(offset, length, advice));
  }

  /** msync(2). @throws as `advise`; and as `check` does where pages of the range were replaced: what was stored there since then is nowhere. */
  sync(offset: number, length: number, flags: number): void {
    this.#answer('msync', offset, length, this.#native.sync(offset, length, flags));
    this.check(offset, length);
  }

  /** Pages of the range that mincore(2) calls resident. @throws as `advise`. */
  inCore(offset: number, length: number): number {
    return this.#answer('mincore', offset, length, this.#native.inCore(offset, length));
  }

  /** @throws ERR_SECTORWISE_TRUNCATED or ERR_SECTORWISE_FAULT where bytes of the range are no longer the file's, ERR_SECTORWISE_CLOSED after `close`. */
  check(offset: number, length: number): void {
    const cause = this.#closed ? CAUSE_CLOSE : length === 0 ? CAUSE_NONE : segmentCause(validity().words, this.#native, offset, length);
    if (cause !== CAUSE_NONE) throw causeError(cause, { offset: this.#start + offset, length });
  }

  /** Zero pages take the place of the file. What was stored into a shared mapping reaches the file all the same. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    invalidate(this.#native.firstCell, this.#native.cells, CAUSE_CLOSE);
    this.#native.close();
  }

  #answer(syscall: string, offset: number, length: number, result: number): number {
    if (result < 0) throw systemError(result, syscall, { offset: this.#start + offset, length });
    return result;
  }
}

/** Memory of a driver: it is no file's, has no end, and often cannot be mapped privately. Mapped as it was asked for. */
function isCharacterDevice(fd: number, offset: number, length: number): boolean {
  try {
    return fstatSync(fd).isCharacterDevice();
  } catch (error) {
    throw systemError((error as NodeJS.ErrnoException).errno ?? EINVAL, 'mmap', { offset, length });
  }
}
