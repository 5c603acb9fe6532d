/**
 * The calls of a random-access-storage, carried out on a `BlockFile`.
 *
 *   read, write, del, truncate, stat, sync    begun in the order of the calls, many at once: the file keeps their order where they overlap
 *   open, suspend, close, unlink              alone: those before them have ended, those behind them wait (random-access-storage sees to that)
 *
 * Guarantees: each request is answered once, with an error that has a `code`, but for 'Closed' and 'Not opened', which are random-access-storage's own.
 * Leaves to others: the queue (random-access-storage), the public types (`index.ts`).
 */
import fs from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import RandomAccessStorage, { type Request } from 'random-access-storage';
import { invalidType, invalidValue, outOfRange, systemError } from '../errors.js';
import type { BlockFile } from '../file.js';
import { open } from '../open.js';
import { checkBytes, checkFunction, checkNames, checkOpenOptions, checkPath, type OpenOptions } from '../options.js';
import type { RandomAccessCallback, RandomAccessOptions, RandomAccessPool, RandomAccessStat } from './index.js';

const EBADF = -9;

/** Names of options that are handed on to `open`. */
const OPEN_NAMES = ['caching', 'cacheSize', 'queueDepth', 'engine', 'readAhead', 'verifyWrites', 'idleMs'] as const;
const BOOLEAN_NAMES = ['truncate', 'readable', 'writable', 'lock', 'sparse', 'rmdir'] as const;
const NAMES = [...BOOLEAN_NAMES, 'size', 'directory', 'alloc', 'pool', ...OPEN_NAMES];

/** In place of an offset: the read is a `sync`. So it takes its place in the queue as every other call. */
const SYNC = Symbol('sync') as unknown as number;

/** The files of one pool that are open, the one that was opened first in front. */
class Pool implements RandomAccessPool {
  readonly maxSize: number;
  readonly #open = new Set<BlockFileStorage>();
  /** Those of them that wait for their calls to end, to be suspended. */
  readonly #leaving = new Set<BlockFileStorage>();

  constructor(maxSize: number) {
    this.maxSize = maxSize;
  }

  get active(): number {
    return this.#open.size;
  }

  opened(storage: BlockFileStorage): void {
    this.#open.add(storage);
    if (this.#open.size - this.#leaving.size <= this.maxSize) return;
    for (const first of this.#open) {
      if (this.#leaving.has(first)) continue;
      this.#leaving.add(first);
      // One that cannot be flushed stays open, and has its turn again.
      first.suspend(() => this.#leaving.delete(first));
      return;
    }
  }

  closed(storage: BlockFileStorage): void {
    this.#open.delete(storage);
    this.#leaving.delete(storage);
  }
}

export class BlockFileStorage extends RandomAccessStorage {
  readonly filename: string;
  readonly directory: string | null;
  file: BlockFile | undefined = undefined;
  declare readonly readable: boolean;
  declare readonly writable: boolean;
  declare readonly deletable: boolean;
  declare readonly truncatable: boolean;
  declare readonly statable: boolean;
  // Each one is there: the prototype of random-access-storage has them.
  declare open: (callback?: RandomAccessCallback) => void;
  declare write: (offset: number, data: Uint8Array, callback?: RandomAccessCallback) => void;
  declare del: (offset: number, size: number, callback?: RandomAccessCallback) => void;
  declare truncate: (offset: number, callback?: RandomAccessCallback) => void;
  declare stat: (callback: (error: Error | null, stat?: RandomAccessStat) => void) => void;
  declare close: (callback?: RandomAccessCallback) => void;
  declare unlink: (callback?: RandomAccessCallback) => void;
  readonly #openOptions: OpenOptions;
  readonly #mayRead: boolean;
  readonly #mayWrite: boolean;
  readonly #rmdir: boolean;
  readonly #alloc: (size: number) => Buffer;
  readonly #pool: Pool | undefined;
  /** To set when it is opened first. */
  #size: number | undefined;

  constructor(filename: string, options?: RandomAccessOptions) {
    super();
    const given = checkNames('options', options, NAMES) as RandomAccessOptions;
    for (const name of BOOLEAN_NAMES) {
      if (given[name] !== undefined && typeof given[name] !== 'boolean') throw invalidType(`options.${name}`, 'of type boolean', given[name]);
    }
    const { directory, pool, readable = true, writable = true } = given;
    if (given.alloc !== undefined) checkFunction('options.alloc', given.alloc);
    if (pool !== undefined && !(pool instanceof Pool)) throw invalidValue('options.pool', 'must be one that RandomAccessBlockFile.createPool() has made', pool);
    this.filename = directory === undefined ? checkPath(filename) : join(checkPath(directory), resolve('/', checkPath(filename)));
    this.directory = directory ?? null;
    this.#mayRead = readable;
    this.#mayWrite = writable;
    this.#rmdir = given.rmdir === true;
    this.#alloc = given.alloc ?? Buffer.allocUnsafe;
    this.#pool = pool;
    this.#size = given.size !== undefined ? checkBytes('options.size', given.size) : given.truncate === true ? 0 : undefined;
    this.#openOptions = Object.fromEntries(OPEN_NAMES.filter((name) => given[name] !== undefined).map((name) => [name, given[name]]));
    this.#openOptions.access = writable ? 'read-write' : 'read';
    if (given.lock === true) this.#openOptions.lock = writable ? 'exclusive' : 'shared';
    checkOpenOptions(this.#openOptions);
  }

  static createPool(maxSize: number): RandomAccessPool {
    if (checkBytes('maxSize', maxSize) === 0) throw outOfRange('maxSize', 'an integer >= 1', maxSize);
    return new Pool(maxSize);
  }

  sync(callback: RandomAccessCallback = () => {}): void {
    this.read(SYNC, 0, (error) => callback(error));
  }

  _open(request: Request): void {
    done(request, this.#open());
  }

  async #open(): Promise<void> {
    const create = this.#mayWrite && (this.writing || this.#size !== undefined);
    if (create) await fs.mkdir(dirname(this.filename), { recursive: true });
    const file = await open(this.filename, { ...this.#openOptions, create }).catch((error: NodeJS.ErrnoException) => {
      throw error.syscall === 'flock' ? lockedError(this.filename, error) : error;
    });
    try {
      if (this.#size !== undefined && this.#mayWrite) await file.resize(this.#size);
    } catch (error) {
      await file.close().catch(() => undefined);
      throw error;
    }
    this.#size = undefined;
    this.file = file;
    this.#pool?.opened(this);
  }

  _read(request: Request): void {
    const file = this.#use(request);
    if (file === undefined) return;
    const { offset, size } = request;
    if (offset === SYNC) {
      done(request, file.flush());
      return;
    }
    if (!this.#mayRead) {
      request.callback(systemError(EBADF, 'read', { path: this.filename, offset, length: size }));
      return;
    }
    let data: Buffer;
    let count: number | undefined;
    try {
      data = this.#alloc(size);
      if (data.length > size) data = data.subarray(0, size);
      count = file.tryRead(data, offset);
    } catch (error) {
      request.callback(error as Error);
      return;
    }
    if (count === size) request.callback(null, data);
    // Where bytes are missing in memory, and behind the end of the file as far as it is known.
    else
      answer(
        request,
        file.read(data, offset).then((read) => this.#complete(data, offset, read)),
      );
  }

  #complete(data: Buffer, offset: number, read: number): Buffer {
    if (read < data.length) throw partialReadError(this.filename, offset + read, data.length - read);
    return data;
  }

  _write(request: Request): void {
    const file = this.#use(request);
    if (file !== undefined && this.#checkWritable(request, 'write')) done(request, file.write(request.data as Uint8Array, request.offset));
  }

  _del(request: Request): void {
    if (request.size === Number.POSITIVE_INFINITY) {
      this._truncate(request);
      return;
    }
    const file = this.#use(request);
    if (file !== undefined && this.#checkWritable(request, 'fallocate')) done(request, file.discard(request.offset, request.size));
  }

  _truncate(request: Request): void {
    const file = this.#use(request);
    if (file !== undefined && this.#checkWritable(request, 'ftruncate')) done(request, file.resize(request.offset));
  }

  _stat(request: Request): void {
    const file = this.#use(request);
    if (file !== undefined) answer(request, this.#stat(file));
  }

  async #stat(file: BlockFile): Promise<RandomAccessStat> {
    const stat = await fs.stat(this.filename).catch(() => undefined);
    // What was accepted in direct mode is not in the file system yet; in page-cache mode the file system knows of others' writes too.
    if (stat === undefined || file.caching === 'direct' || !stat.isFile()) return Object.assign(stat ?? {}, { size: file.size });
    return stat;
  }

  _suspend(request: Request): void {
    const { file } = this;
    // Closing gives everything up whatever happens; who only suspends wants to go on.
    done(request, file === undefined || !this.writing ? this.#close() : file.flush().then(() => this.#close()));
  }

  _close(request: Request): void {
    done(request, this.#close());
  }

  async #close(): Promise<void> {
    const { file } = this;
    this.file = undefined;
    this.#pool?.closed(this);
    await file?.close();
  }

  _unlink(request: Request): void {
    done(request, this.#unlink());
  }

  async #unlink(): Promise<void> {
    await fs.rm(this.filename, { force: true });
    if (!this.#rmdir || this.directory === null) return;
    const root = resolve(this.directory);
    try {
      for (let folder = resolve(dirname(this.filename)); folder !== root; folder = dirname(folder)) await fs.rmdir(folder);
    } catch {
      // Not empty, or not ours: it stays.
    }
  }

  /** The open file; answers the request where a `close` that failed has given it up. */
  #use(request: Request): BlockFile | undefined {
    if (this.file === undefined) request.callback(new Error('Closed'));
    return this.file;
  }

  #checkWritable(request: Request, syscall: string): boolean {
    if (this.#mayWrite) return true;
    request.callback(systemError(EBADF, syscall, { path: this.filename, offset: request.offset, length: request.size }));
    return false;
  }
}

/** The callback is the user's: what it throws is not the promise's. */
function answer(request: Request, result: Promise<unknown>): void {
  result.then(
    (value) => process.nextTick(() => request.callback(null, value)),
    (error) => process.nextTick(() => request.callback(error)),
  );
}

/** The same for calls that have no answer but that they are done. */
function done(request: Request, result: Promise<unknown>): void {
  answer(
    request,
    result.then(() => undefined),
  );
}

/** In the words of random-access-file. */
function partialReadError(path: string, offset: number, size: number): Error {
  return Object.assign(new Error('EPARTIALREAD: Could not satisfy length'), { code: 'EPARTIALREAD', path, offset, size });
}

function lockedError(path: string, cause: Error): Error {
  return Object.assign(new Error('ELOCKED: File is locked', { cause }), { code: 'ELOCKED', path });
}
