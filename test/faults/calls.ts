/**
 * Node's own calls over a window's memory, always some of them running: while a fault happens their threads hold raw pointers into it.
 *
 * Guarantees: each kind has a call in flight from `start` until `stop`; calls run in Node's pool where they can.
 * Leaves to others: what is in the memory. A write may be short or EFAULT when it is gone (the kernel reads it, and gets no signal); everything else must go on.
 */
import { createHash, scrypt, webcrypto } from 'node:crypto';
import { type FileHandle, open } from 'node:fs/promises';
import { promisify } from 'node:util';
import { deflate } from 'node:zlib';

export type CallKind = 'write' | 'deflate' | 'hash' | 'digest' | 'scrypt';

/** Of one kind of call. */
export interface CallsSeen {
  kind: CallKind;
  /** That ended before and after `mark`. */
  before: number;
  after: number;
  /** Codes of those that failed. */
  errors: string[];
  /** Writes that took less than they were given. */
  short: number;
}

export class Calls {
  readonly #seen: CallsSeen[] = [];
  readonly #loops: Array<Promise<void>> = [];
  #output: FileHandle | undefined;
  #marked = false;
  #stopping = false;

  /** Resolves once each kind has ended a call over each of the views. What is written goes to `path`. */
  async start(views: readonly Uint8Array[], path: string): Promise<void> {
    const output = await open(path, 'w');
    this.#output = output;
    const compress = promisify(deflate);
    const derive = promisify<Uint8Array, string, number, { N: number }, Buffer>(scrypt);
    this.#repeat('write', views, async (view, seen) => {
      const { bytesWritten } = await output.write(view, 0, view.length, 0);
      if (bytesWritten < view.length) seen.short++;
    });
    this.#repeat('deflate', views, (view) => compress(view, { level: 1 }));
    this.#repeat('hash', views, async (view) => createHash('sha1').update(view).digest());
    this.#repeat('digest', views, (view) => webcrypto.subtle.digest('SHA-256', view as Uint8Array<ArrayBuffer>));
    this.#repeat('scrypt', views, (view) => derive(view, 'salt', 16, { N: 1024 }));
    while (this.#seen.some(({ before }) => before < views.length)) await new Promise((resolve) => setTimeout(resolve, 5));
  }

  /** It has happened. */
  mark(): void {
    this.#marked = true;
  }

  /** Lets each kind go over all views once more, and ends. */
  async stop(): Promise<CallsSeen[]> {
    this.#marked = true;
    this.#stopping = true;
    await Promise.all(this.#loops);
    await this.#output?.close();
    return this.#seen;
  }

  #repeat(kind: CallKind, views: readonly Uint8Array[], call: (view: Uint8Array, seen: CallsSeen) => Promise<unknown>): void {
    const seen: CallsSeen = { kind, before: 0, after: 0, errors: [], short: 0 };
    this.#seen.push(seen);
    const loop = async (): Promise<void> => {
      for (let last = false; ; ) {
        if (last) return;
        // Decided before the round, so that a whole one follows.
        last = this.#stopping;
        for (const view of views) {
          try {
            await call(view, seen);
          } catch (error) {
            seen.errors.push((error as NodeJS.ErrnoException).code ?? String(error));
          }
          if (this.#marked) seen.after++;
          else seen.before++;
          await new Promise((resolve) => setImmediate(resolve));
        }
      }
    };
    this.#loops.push(loop());
  }
}
