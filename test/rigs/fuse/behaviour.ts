/** What a test tells the FUSE server to be, in one place for both processes. */

export interface ServedFile {
  name: string;
  size: number;
  /** Its content: see pattern.ts. */
  seed: number;
}

export interface ServerOptions {
  files: ServedFile[];
  /** Reads go past the page cache (FOPEN_DIRECT_IO). */
  directIo?: boolean;
  /** What is in the page cache stays when the file is opened again (FOPEN_KEEP_CACHE). Default true. */
  keepCache?: boolean;
  /** For how long the kernel believes names and attributes. Default 0: each fstat asks the server. */
  validMs?: number;
  /** Most that the kernel reads ahead. Default 0: only what was asked for. */
  readAheadBytes?: number;
}

/** Until it is changed again. */
export interface Behaviour {
  /** Each READ is answered so much later. */
  delayMs: number;
  /** A READ that covers one of these pages (of 4096 bytes) of any file fails with EIO. */
  failPages: number[];
  /** These requests wait until the behaviour is changed to none. */
  hang: 'none' | 'reads' | 'all';
  /** What becomes of a WRITE, which is answered as done in any case: nothing, only its first page, all but one bit, or all of it at another place (the page `strayTo`). */
  writes: 'done' | 'lost' | 'torn' | 'changed' | 'elsewhere';
  strayTo: number;
}

export const normalBehaviour: Behaviour = { delayMs: 0, failPages: [], hang: 'none', writes: 'done', strayTo: 0 };

/** What the server saw so far. */
export interface Counts {
  reads: number;
  readBytes: number;
  writes: number;
  failed: number;
  interrupts: number;
  /** Requests that wait now: hung or delayed. */
  waiting: number;
}
