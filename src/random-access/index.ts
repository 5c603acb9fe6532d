/**
 * A file as a random-access-storage (3.x), for hypercore and others that are made on it: what random-access-file is over node:fs, over `BlockFile`.
 *
 * ```js
 * import Hypercore from 'hypercore';
 * import { RandomAccessBlockFile } from 'sectorwise/random-access';
 *
 * const core = new Hypercore((name) => new RandomAccessBlockFile(name, { directory: './core' }));
 * ```
 *
 * @module sectorwise/random-access
 * @category API
 */
import type { EventEmitter } from 'node:events';
import type { BlockFile } from '../file.js';
import type { Caching, EngineName, OpenOptions } from '../options.js';
import { BlockFileStorage } from './storage.js';

/** Options of {@link RandomAccessBlockFile}: those of random-access-file, then those of `open`. A name that is not listed throws ERR_INVALID_ARG_VALUE. */
export interface RandomAccessOptions {
  /** Empty the file when it is opened first, and create it if need be. Default false. */
  truncate?: boolean;
  /** Make it as long as this when it is opened first, and create it if need be. (random-access-file does so each time that it comes back from being suspended.) */
  size?: number;
  /** Default true. If false, reading fails with EBADF; the file is opened for reading all the same. */
  readable?: boolean;
  /** Default true. If false, the file is opened for reading, never created, and writing fails with EBADF. */
  writable?: boolean;
  /**
   * Lock the file (flock), shared where it is not writable; ELOCKED if somebody has it. Default false. Seen by those who lock with flock, and not by random-access-file, which
   * takes locks of another kind.
   */
  lock?: boolean;
  /** Taken for the sake of random-access-file, and changes nothing: files are sparse on Linux. */
  sparse?: boolean;
  /** Names are below this folder, and cannot lead out of it. */
  directory?: string;
  /** With `directory`: `unlink` removes folders that became empty, up to that one. Default false. */
  rmdir?: boolean;
  /** Makes the buffers that `read` answers with. Default Buffer.allocUnsafe. */
  alloc?: (size: number) => Buffer;
  /** Keeps the number of files that are open at the same time small: see {@link RandomAccessPool}. */
  pool?: RandomAccessPool;
  /** As for `open`; default 'page-cache'. In 'direct' what was written is lost with the process, not only with the power, until `sync`, `suspend` or `close`. */
  caching?: Caching;
  /** As for `open`. */
  cacheSize?: number;
  /** As for `open`. */
  queueDepth?: number;
  /** As for `open`. */
  engine?: 'auto' | EngineName;
  /** As for `open`. */
  readAhead?: OpenOptions['readAhead'];
  /** As for `open`. */
  verifyWrites?: boolean;
  /** As for `open`. */
  idleMs?: number;
}

/** Files that share a limit: when one more is opened, the one that has been open for longest is suspended, and opens again when it is used. */
export interface RandomAccessPool {
  /** Files that are open at the same time. */
  readonly maxSize: number;
  /** Files of this pool that are open now. */
  readonly active: number;
}

/** What `stat` answers with: of a file all that `fs.stat` says. */
export interface RandomAccessStat {
  /** Bytes, those included that were written and are not in the file system yet. */
  size: number;
  /** Pieces of 512 bytes that it takes on the device; undefined where the file has no name any more. */
  blocks?: number;
}

/** Called when a call has ended. */
export type RandomAccessCallback = (error: Error | null) => void;

/**
 * A random-access-storage over a file or block device. It is opened by the first call that needs it; for reading it must be there then (ENOENT), for writing it is made, with its folders.
 *
 * Errors come to the callback, as `open` and `BlockFile` have them, and two of random-access-file's: EPARTIALREAD and ELOCKED. After `close` every call fails with the message 'Closed'.
 */
export interface RandomAccessBlockFile
  extends EventEmitter<{
    /** It is open, for the first time. */
    open: [];
    /** It is suspended. */
    suspend: [];
    /** It is open again. */
    unsuspend: [];
    /** It is closed. */
    close: [];
    /** It is unlinked. */
    unlink: [];
  }> {
  /** Where it is. */
  readonly filename: string;
  /** The option. */
  readonly directory: string | null;
  /** The file underneath while it is open: for windows, `prefetch`, `explain` and all that a random-access-storage has not. Leave closing it to this object. */
  readonly file: BlockFile | undefined;
  /** It was opened. */
  readonly opened: boolean;
  /** It is suspended: closed for the time being. */
  readonly suspended: boolean;
  /** It was closed. */
  readonly closed: boolean;
  /** It was unlinked. */
  readonly unlinked: boolean;
  /** Something was written, or is to be. */
  readonly writing: boolean;
  /** Always true, as the four that follow. */
  readonly readable: boolean;
  /** Always true. */
  readonly writable: boolean;
  /** Always true. */
  readonly deletable: boolean;
  /** Always true. */
  readonly truncatable: boolean;
  /** Always true. */
  readonly statable: boolean;
  /** Opens it now. */
  open(callback?: RandomAccessCallback): void;
  /**
   * Reads `size` bytes, all of them: where the file ends before, the error is 'EPARTIALREAD: Could not satisfy length', with `code`, `path`, and the `offset` and `size` of what is missing.
   * What is in memory is copied within the call, and answered with in the next tick.
   */
  read(offset: number, size: number, callback: (error: Error | null, data?: Buffer) => void): void;
  /** Writes all of `data`; leave it unchanged until then. Reads and truncations that are called later see it. */
  write(offset: number, data: Uint8Array, callback?: RandomAccessCallback): void;
  /** Gives the blocks of a range back; a file reads as zeros there, and its size stays. `size` Infinity: `truncate`. */
  del(offset: number, size: number, callback?: RandomAccessCallback): void;
  /** Sets the size of the file, shorter or longer. */
  truncate(offset: number, callback?: RandomAccessCallback): void;
  /** The size, and what `fs.stat` says. */
  stat(callback: (error: Error | null, stat?: RandomAccessStat) => void): void;
  /**
   * Everything that was written, deleted or truncated before this call is on stable storage then: `flush` of `BlockFile`, with its errors. No other random-access-storage has it, and hypercore does
   * not call it: what it has written survives the end of the process (page-cache mode), and the end of the power from `sync`, `suspend` or `close` on.
   */
  sync(callback?: RandomAccessCallback): void;
  /** Flushes and closes the file for the time being; the next call opens it again. If the flush fails the file stays open, and the callback has the error. */
  suspend(callback?: RandomAccessCallback): void;
  /** Waits for what was called before, flushes and closes. The error of a flush that failed comes to the callback; everything is given back all the same, and a second `close` succeeds. */
  close(callback?: RandomAccessCallback): void;
  /** Closes it and removes the file. That it is not there is no error. */
  unlink(callback?: RandomAccessCallback): void;
}

/** Makes a {@link RandomAccessBlockFile}. Opens nothing yet. */
export interface RandomAccessBlockFileConstructor {
  /**
   * @param filename - path of a file or block device.
   * @throws ERR_INVALID_ARG_TYPE, ERR_INVALID_ARG_VALUE and ERR_OUT_OF_RANGE for options that are not as they should be.
   */
  new (filename: string, options?: RandomAccessOptions): RandomAccessBlockFile;
  /** For the option `pool`. An open file costs a ring and its memory, so that hundreds of them should share one. */
  createPool(maxSize: number): RandomAccessPool;
}

/** The class: `new RandomAccessBlockFile(filename, options)`, as `new RandomAccessFile(filename, options)`. */
export const RandomAccessBlockFile: RandomAccessBlockFileConstructor =
  BlockFileStorage satisfies StorageConstructor as unknown as RandomAccessBlockFileConstructor;

/** Its own calls are checked against what is promised; those of EventEmitter have no types in there. */
type StorageConstructor = new (filename: string, options?: RandomAccessOptions) => Omit<RandomAccessBlockFile, keyof EventEmitter>;
