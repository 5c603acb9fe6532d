/** The package random-access-storage 3, which has no types: what is used of it. Not emitted, so no public type may name it. */
declare module 'random-access-storage' {
  import { EventEmitter } from 'node:events';

  /** One call: what was asked, and how it is answered. */
  export interface Request {
    readonly offset: number;
    readonly size: number;
    readonly data: Uint8Array | null;
    callback(error: Error | null, value?: unknown): void;
  }

  export default class RandomAccessStorage extends EventEmitter {
    /** Something was or is to be written: the file may be created. */
    readonly writing: boolean;
    readonly opened: boolean;
    readonly closed: boolean;
    readonly suspended: boolean;
    readonly unlinked: boolean;
    read(offset: number, size: number, callback: (error: Error | null, data?: Buffer) => void): void;
    suspend(callback?: (error: Error | null) => void): void;
  }
}
