/**
 * A long `read` in pieces: a few are on their way at once, and each is copied when it has come.
 *
 * Guarantees: the target is touched neither after a rejection nor after it was detached; the count is that of the bytes from the first on.
 */
import { SectorwiseError } from '../errors.js';
import type { Access } from './access.js';

/** Pieces on their way at once. */
const PIECES_AT_ONCE = 4;

/** Asks for a piece; `settle` once its blocks are pinned. Answers with how to give up. */
export type AskPiece = (offset: number, length: number, settle: (error: Error | undefined) => void) => () => void;

export class ReadJob {
  readonly #access: Access;
  readonly #ask: AskPiece;
  readonly #target: Uint8Array;
  readonly #offset: number;
  readonly #length: number;
  readonly #done: (error: Error | undefined, count: number) => void;
  readonly #cancels = new Set<() => void>();
  #next = 0;
  #running = 0;
  #end: number;
  #over = false;

  /** `length` is what of the target lies in the file, not 0. `done` is called once, unless the job is given up. */
  constructor(access: Access, ask: AskPiece, target: Uint8Array, offset: number, length: number, done: (error: Error | undefined, count: number) => void) {
    this.#access = access;
    this.#ask = ask;
    this.#target = target;
    this.#offset = offset;
    this.#length = length;
    this.#end = length;
    this.#done = done;
    this.#advance();
  }

  giveUp(): void {
    this.#over = true;
    for (const cancel of this.#cancels) cancel();
    this.#cancels.clear();
  }

  #advance(): void {
    while (!this.#over && this.#running < PIECES_AT_ONCE && this.#next < this.#end) {
      const from = this.#next;
      const at = this.#offset + from;
      const bytes = Math.min(this.#length - from, this.#access.pieceBytes - (at % this.#access.pieceBytes));
      this.#next += bytes;
      if (this.#access.tryCopy(this.#target.subarray(from, from + bytes), at)) continue;
      this.#running++;
      const cancel = this.#ask(at, bytes, (error) => {
        this.#running--;
        this.#cancels.delete(cancel);
        this.#arrived(from, bytes, error);
      });
      this.#cancels.add(cancel);
    }
    if (!this.#over && this.#running === 0) {
      this.#over = true;
      this.#done(undefined, this.#end);
    }
  }

  #arrived(from: number, bytes: number, error: Error | undefined): void {
    const at = this.#offset + from;
    if (error !== undefined) {
      this.#fail(error);
      return;
    }
    if (this.#target.length < this.#length) {
      this.#access.giveBack(at, bytes);
      this.#fail(
        new SectorwiseError('ERR_SECTORWISE_DETACHED', 'The target was detached or shrank while it was being read into; keep it until the read has settled.'),
      );
      return;
    }
    let copied: number;
    try {
      copied = this.#access.copyFrom(this.#target.subarray(from, from + bytes), at);
    } catch (thrown) {
      this.#fail(thrown as Error);
      return;
    }
    if (copied < bytes) this.#end = Math.min(this.#end, from + copied);
    this.#advance();
  }

  #fail(error: Error): void {
    if (this.#over) return;
    this.giveUp();
    this.#done(error, 0);
  }
}
