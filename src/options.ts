/**
 * What `open` takes, and what it means: checked before any system call.
 *
 * Guarantees: a misspelled name is an error that offers the right one; every value is in range, with its default filled in.
 */

import { fileURLToPath } from 'node:url';
import { isUint8Array } from 'node:util/types';
import { invalidType, invalidValue, outOfRange, SectorwiseError } from './errors.js';
import type { EngineName } from './io/engine.js';
import { WINDOW_BYTES_MAX } from './memory/mapping.js';
import { checkNames } from './option-names.js';

export type { EngineName } from './io/engine.js';
export { checkNames } from './option-names.js';

/** How a file's bytes come to memory: through the kernel's page cache, or by direct I/O into the file's own frames. */
export type Caching = 'page-cache' | 'direct';

/** Options of `open` and `openSync`. Sizes in bytes. A name that is not listed here throws ERR_INVALID_ARG_VALUE. */
export interface OpenOptions {
  /** Default 'read'. */
  access?: 'read' | 'read-write';
  /** Create the file if it is missing (needs 'read-write'); its directory entry is durable once `open` resolves. Default false. */
  create?: boolean;
  /** With `create`: the bytes to allocate for a file that was missing (not a sparse hole). */
  size?: number;
  /**
   * 'page-cache' (default): windows are mappings of the kernel's page cache.
   * 'direct': O_DIRECT; windows are views of this file's own frames, filled by device DMA.
   */
  caching?: Caching;
  /** direct: bytes of frames, rounded up to 4096. Default 64 MiB; at least 64 KiB. */
  cacheSize?: number;
  /** Device operations in flight at most, 1 to 4096. Default 128, lowered to what the device's queue takes. */
  queueDepth?: number;
  /** Default 'auto': io_uring where a probe of it works, else threads. The environment variable SECTORWISE_ENGINE overrides it. */
  engine?: 'auto' | EngineName;
  /**
   * Sequential read-ahead, in bytes. Default `{ initial: 128 KiB, max: 8 MiB }`; false for none. Readers that go through the file in order, forward or backward, several at once and among random
   * access, are found and read ahead of: as little as keeps them from waiting. All of them together are ahead by 64 MiB at most, in direct mode by no more than half of `cacheSize`.
   */
  readAhead?:
    | false
    | {
        /** Bytes of the first piece (two steps of the reader where these are longer); a stream that waits doubles it, one that leaves its bytes unused halves it. */
        initial?: number;
        /** Bytes that one stream is ahead at most. 0 is as false. */
        max?: number;
      };
  /** direct: neighbouring reads of one turn become one operation up to `mergeLimit` (default 1 MiB), reading over gaps up to `gapLimit` (default 16 KiB, on rotating disks 128 KiB). */
  coalesce?: {
    /** Bytes of one operation at most. */
    mergeLimit?: number;
    /** Bytes that are read over at most, so that two reads become one. */
    gapLimit?: number;
  };
  /**
   * direct: every range that is written is read back from the device, by a second direct read, and compared before the write counts as done. Default false. In page-cache mode it is refused
   * (ERR_SECTORWISE_UNSUPPORTED): what is written there is the kernel's and everybody's, and may have changed again, rightly, before it can be compared.
   *
   * What it finds: writes that the device, or anything between it and the kernel's block layer, reports as done and that were lost, done in part, changed, or done elsewhere. Such a range is dirty again,
   * readable as it was written, and written again by the next flush; `flush` rejects and names it (`ranges`, each with an ERR_SECTORWISE_VERIFY that says which byte differs first) until `acknowledgeLoss`. Nothing is
   * tried again in silence: a device that lies once is worth knowing about. What is cached of it is given up only after it was compared, so a file never reads back its own lost writes. `flush` makes durable what was compared: it is
   * written, read back, compared, and then synced.
   *
   * What it does not show: that the bytes are on the medium. A second direct read goes past the kernel's page cache, but a device may answer it from a cache of its own, and what is lost when the power fails is the matter of the
   * sync that follows; file systems that serve direct reads from memory (tmpfs, some of FUSE) prove nothing. Nor whom a misdirected write has hit: what was to be written is found to be missing; what the same flush wrote before is
   * written once more by the next, in case it was hit, and what else it overwrote is not looked at. Nor what rots later. For those, keep check sums.
   *
   * What it costs: a device read for each device write, of the same bytes, and one more wait for the device before a flush can sync; 2 MiB of memory. `stats.deviceReads` counts the reads.
   */
  verifyWrites?: boolean;
  /** Advisory lock (flock) on the whole file until close; taken or refused at once (EAGAIN). Default none. */
  lock?: 'shared' | 'exclusive';
  /**
   * Milliseconds after which memory that no window used is given back, to a quarter more: in page-cache mode areas of 2 MiB leave the page table, so that what JavaScript
   * stored into them is freed and the kernel may reclaim the rest; the next window over them costs a minor fault for each page. In direct mode areas of 4 MiB of frames, none of
   * which is pinned, dirty or under an operation, go back to the system, and their blocks are read again when they are asked for. Default 5000, at least 1; Infinity: never.
   */
  idleMs?: number;
  /** Aborts the opening. */
  signal?: AbortSignal;
}

/** Options of `window` and `tryWindow`. */
export interface WindowOptions {
  /** Needs access 'read-write'. Default false: stores into the window stay private, may vanish, and never reach the file. */
  writable?: boolean;
  /**
   * Keep the window's pages in memory until its last `release` (page-cache mode: mlock; in direct mode windows are in memory anyway, and nothing is done), so that touching them
   * never waits for the device, not even after the kernel was short of memory. Default false.
   *
   * Locked pages count against the process's RLIMIT_MEMLOCK (often 8 MiB), each once for reading and once for writing windows however many lie over it; beyond it, and without
   * CAP_IPC_LOCK, asking throws ERR_SECTORWISE_LOCK_LIMIT. Locking takes a lock of the address space and some microseconds: meant for windows that are kept, not for each access.
   * An invalidation unlocks; `discard` takes the bytes whatever is locked.
   */
  lock?: boolean;
  /** `window` only: aborting rejects at once with an AbortError. */
  signal?: AbortSignal;
}

export interface CheckedOptions {
  access: 'read' | 'read-write';
  create: boolean;
  size: number | undefined;
  caching: Caching;
  cacheSize: number;
  queueDepth: number;
  engine: 'auto' | EngineName;
  /** A `max` of 0: none. */
  readAhead: { initial: number; max: number };
  mergeLimit: number;
  gapLimit: number | undefined;
  verifyWrites: boolean;
  lock: 'shared' | 'exclusive' | undefined;
  idleMs: number;
  signal: AbortSignal | undefined;
}

/** Bytes of frames unless `cacheSize` says otherwise. */
const CACHE_BYTES = 64 * 1024 * 1024;
/** Sixteen blocks: enough for one operation of each kind at once. */
const CACHE_BYTES_MIN = 64 * 1024;
const QUEUE_DEPTH = 128;
const QUEUE_DEPTH_MAX = 4096;
const READ_AHEAD_INITIAL = 128 * 1024;
const READ_AHEAD_MAX = 8 * 1024 * 1024;
const IDLE_MS = 5000;
/** Bytes that neighbouring requests of one turn are merged up to. */
export const MERGE_BYTES = 1024 * 1024;

const OPEN_NAMES = [
  'access',
  'create',
  'size',
  'caching',
  'cacheSize',
  'queueDepth',
  'engine',
  'readAhead',
  'coalesce',
  'verifyWrites',
  'lock',
  'idleMs',
  'signal',
];

export function checkOpenOptions(options: OpenOptions | undefined): CheckedOptions {
  const given = checkNames('options', options, OPEN_NAMES) as OpenOptions;
  const access = oneOf('options.access', given.access, ['read', 'read-write'] as const) ?? 'read';
  const create = boolean('options.create', given.create);
  if (create && access !== 'read-write') throw invalidValue('options.create', "needs options.access 'read-write'", create);
  const size = given.size === undefined ? undefined : integer('options.size', given.size, 0, Number.MAX_SAFE_INTEGER);
  if (size !== undefined && !create) throw invalidValue('options.size', 'needs options.create; use resize() or allocate() on a file that exists', size);
  const caching = oneOf('options.caching', given.caching, ['page-cache', 'direct'] as const) ?? 'page-cache';
  const cacheSize = given.cacheSize === undefined ? CACHE_BYTES : integer('options.cacheSize', given.cacheSize, CACHE_BYTES_MIN, 2 ** 42);
  const queueDepth = given.queueDepth === undefined ? QUEUE_DEPTH : integer('options.queueDepth', given.queueDepth, 1, QUEUE_DEPTH_MAX);
  const engine = oneOf('options.engine', given.engine, ['auto', 'io_uring', 'threads'] as const) ?? 'auto';
  const coalesce = checkNames('options.coalesce', given.coalesce, ['mergeLimit', 'gapLimit']) as NonNullable<OpenOptions['coalesce']>;
  const verifyWrites = boolean('options.verifyWrites', given.verifyWrites);
  if (verifyWrites && caching === 'page-cache') {
    throw new SectorwiseError(
      'ERR_SECTORWISE_UNSUPPORTED',
      "verifyWrites compares frames with the device, and in page-cache mode bytes are everybody's and may change before they can be compared; open the file with { caching: 'direct' }, or leave verifyWrites out.",
    );
  }
  const idleMs = given.idleMs === undefined ? IDLE_MS : given.idleMs;
  if (idleMs !== Number.POSITIVE_INFINITY) integer('options.idleMs', idleMs, 1, 2 ** 31 - 1);
  return {
    access,
    create,
    size,
    caching,
    cacheSize,
    queueDepth,
    engine,
    readAhead: readAhead(given.readAhead),
    mergeLimit: coalesce.mergeLimit === undefined ? MERGE_BYTES : integer('options.coalesce.mergeLimit', coalesce.mergeLimit, 4096, 2 ** 30),
    gapLimit: coalesce.gapLimit === undefined ? undefined : integer('options.coalesce.gapLimit', coalesce.gapLimit, 0, 2 ** 30),
    verifyWrites,
    lock: oneOf('options.lock', given.lock, ['shared', 'exclusive'] as const),
    idleMs,
    signal: checkSignal('options.signal', given.signal),
  };
}

function readAhead(value: OpenOptions['readAhead']): CheckedOptions['readAhead'] {
  if (value === false) return { initial: 0, max: 0 };
  const { initial, max } = checkNames('options.readAhead', value, ['initial', 'max']) as { initial?: number; max?: number };
  const most = max === undefined ? READ_AHEAD_MAX : integer('options.readAhead.max', max, 0, 2 ** 30);
  if (initial !== undefined) integer('options.readAhead.initial', initial, 0, 2 ** 30);
  const least = initial ?? Math.min(READ_AHEAD_INITIAL, most);
  if (least > most) throw outOfRange('options.readAhead.initial', `<= options.readAhead.max (${most})`, least);
  return { initial: least, max: most };
}

export function checkWindowOptions(options: WindowOptions | undefined): WindowOptions {
  if (options === undefined) return noOptions;
  const given = checkNames('options', options, ['writable', 'lock', 'signal']) as WindowOptions;
  boolean('options.writable', given.writable);
  boolean('options.lock', given.lock);
  checkSignal('options.signal', given.signal);
  return given;
}

export function checkSignalOption(options: { signal?: AbortSignal } | undefined): AbortSignal | undefined {
  if (options === undefined) return undefined;
  return checkSignal('options.signal', (checkNames('options', options, ['signal']) as { signal?: AbortSignal }).signal);
}

const noOptions: WindowOptions = {};

/** An offset or length: a safe integer ≥ 0, or a bigint in that range. */
export function checkBytes(name: string, value: unknown): number {
  if (typeof value === 'number') {
    if (!Number.isSafeInteger(value) || value < 0) throw outOfRange(name, 'an integer >= 0 && <= 9007199254740991', value);
    return value;
  }
  if (typeof value === 'bigint') {
    if (value < 0n || value > 9007199254740991n) throw outOfRange(name, 'an integer >= 0 && <= 9007199254740991', value);
    return Number(value);
  }
  throw invalidType(name, 'of type number or bigint', value);
}

/** A range whose end is a safe integer too. */
export function checkEnd(offset: number, length: number): void {
  if (offset + length > Number.MAX_SAFE_INTEGER) throw outOfRange('length', `such that offset + length <= 9007199254740991 (offset is ${offset})`, length);
}

export function checkWindowLength(length: number): void {
  if (length > WINDOW_BYTES_MAX) throw outOfRange('length', `<= ${WINDOW_BYTES_MAX} for a window; use windows() or several`, length);
}

export function checkBytesArray(name: string, value: unknown): Uint8Array {
  if (!isUint8Array(value)) throw invalidType(name, 'an instance of Uint8Array or Buffer', value);
  return value;
}

export function checkPath(path: unknown): string {
  if (path instanceof URL) return fileURLToPath(path);
  if (typeof path !== 'string') throw invalidType('path', 'of type string or an instance of URL', path);
  if (path.length === 0 || path.includes('\0')) throw invalidValue('path', 'must be a non-empty string without null bytes', path);
  return path;
}

export function checkFunction(name: string, value: unknown): void {
  if (typeof value !== 'function') throw invalidType(name, 'of type function', value);
}

function integer(name: string, value: unknown, least: number, most: number): number {
  if (typeof value !== 'number') throw invalidType(name, 'of type number', value);
  if (!Number.isInteger(value) || value < least || value > most) throw outOfRange(name, `an integer >= ${least} && <= ${most}`, value);
  return value;
}

function boolean(name: string, value: unknown): boolean {
  if (value === undefined) return false;
  if (typeof value !== 'boolean') throw invalidType(name, 'of type boolean', value);
  return value;
}

function oneOf<T extends string>(name: string, value: unknown, known: readonly T[]): T | undefined {
  if (value === undefined) return undefined;
  if (!known.includes(value as T)) throw invalidValue(name, `must be one of: ${known.map((option) => `'${option}'`).join(', ')}`, value);
  return value as T;
}

function checkSignal(name: string, value: unknown): AbortSignal | undefined {
  if (value === undefined) return undefined;
  if (!(value instanceof AbortSignal)) throw invalidType(name, 'an instance of AbortSignal', value);
  return value;
}
