/**
 * A window: a refcounted view of a range of a file.
 *
 *   offset                                                   offset + length
 *     |  head   |  block  |  block  |  …  |  block  |  tail  |
 *               ^ first multiple of 4096            ^ last
 *
 * Guarantees: `bytes` of a window that is released or no longer the file's throws; a view taken earlier is memory-safe for ever; `byteOffset` ≡ `offset`
 * modulo 4096. Views are made when they are first asked for, so that a window that is only passed on costs one object.
 * Leaves to others: where the bytes are and who keeps them there (`WindowOwner`).
 */
import { inspect } from 'node:util';
import { invalidType, outOfRange, SectorwiseError } from '../errors.js';
import { BLOCK_BYTES } from '../memory/block-store.js';
import type { Segment } from '../memory/mapping.js';
import { unreleased } from './unreleased.js';

/** A refcounted, zero-copy view of a range of a file. Made with one reference; `using` or `release` drops it. */
export interface Window extends Disposable {
  /** First byte, as an offset of the file. */
  readonly offset: number;
  /** Valid bytes; less than asked for only at the end of the file. */
  readonly length: number;
  /**
   * The bytes, not a copy (but see `areas`), `length` of them, with `byteOffset` ≡ `offset` modulo 4096.
   *
   * Lifetime: until the last `release`, or until the window is invalidated; a view taken earlier stays safe to touch for ever, reads as zeros after an invalidation
   * (until that range is mapped again after growth), and shows unspecified bytes of the same file after release. Stores into the view of a read window stay private, may
   * vanish, and never reach the file; stores through a released writable view may corrupt it.
   *
   * `bytes.buffer` is shared by many windows: never `postMessage` or `structuredClone` it, `slice()` instead.
   *
   * Throws ERR_SECTORWISE_RELEASED, ERR_SECTORWISE_CLOSED, ERR_SECTORWISE_TRUNCATED, ERR_SECTORWISE_UNPLUGGED, ERR_SECTORWISE_SHUTDOWN or ERR_SECTORWISE_FAULT once
   * they are not the file's.
   */
  readonly bytes: Uint8Array;
  /**
   * The same bytes in their contiguous areas, in order. More than one only where a direct window lies over frames that are apart: then `bytes` (and what of `head`,
   * `blocks` and `tail` crosses frames) is gathered once into a snapshot, counted in `stats.gatheredBytes`. Throws as `bytes` does.
   */
  readonly areas: readonly Uint8Array[];
  /** The bytes before the first whole block (0–4095 bytes); everything, where there is no whole block. Throws as `bytes` does. */
  readonly head: Uint8Array;
  /** The whole blocks of 4096 bytes, aligned to 4096 in the file and in memory. Throws as `bytes` does. */
  readonly blocks: Uint8Array;
  /** The bytes after the last whole block (0–4095 bytes). Throws as `bytes` does. */
  readonly tail: Uint8Array;
  /** Stores reach the file once marked. A writable window is always one area, never a copy. */
  readonly writable: boolean;
  /** Not released, and the bytes are the file's. */
  readonly valid: boolean;
  /** Throws as `bytes` does. Called after a use, it proves that what was read was the file's. */
  check(): void;
  /** References held. For tests and diagnostics. */
  readonly refs: number;
  /** One reference more. Throws ERR_SECTORWISE_RELEASED if there is none left. */
  retain(): this;
  /** Drops one reference. At none left it does nothing; never throws, also after invalidation or close. */
  release(): void;
  /**
   * These bytes (relative to the window; default all) go to the device with the next flush. Stores may reach the device earlier (page-cache mode:
   * whenever the kernel likes), and are lost if never marked (direct mode). Mark again after later stores. Marks survive `release`.
   *
   * Throws ERR_SECTORWISE_NOT_WRITABLE on a read window, ERR_OUT_OF_RANGE beyond the window, and as `bytes` does.
   */
  markDirty(start?: number, end?: number): void;
}

/** Where a window's bytes are, and who keeps them there. */
export interface WindowOwner {
  readonly path: string;
  /** Throws if the bytes of the window are not the file's any more. */
  check(window: FileWindow): void;
  isValid(window: FileWindow): boolean;
  /** The window's bytes in one view: the memory itself, or a gathered snapshot. */
  view(window: FileWindow): Uint8Array;
  /** The window's areas; `[view]` where there is one. */
  areas(window: FileWindow): readonly Uint8Array[];
  mark(window: FileWindow, start: number, end: number): void;
  /** The last reference is gone. */
  dropped(window: FileWindow): void;
}

const noBytes = new Uint8Array(0);

export class FileWindow implements Window {
  readonly offset: number;
  readonly length: number;
  readonly writable: boolean;
  /** Where the owner has it: the frame of its first block, or the offset of its first byte in the segment. Only the owner reads it. */
  readonly place: number;
  /** The file's generation when it was made. */
  readonly generation: number;
  /** The frames of each block where they are not neighbours. */
  readonly scattered: Int32Array | undefined;
  /** In page-cache mode: what maps its bytes. */
  readonly segment: Segment | undefined;
  refs = 1;
  readonly #owner: WindowOwner;
  #view: Uint8Array | undefined;
  #areas: readonly Uint8Array[] | undefined;

  constructor(
    owner: WindowOwner,
    offset: number,
    length: number,
    writable: boolean,
    place: number,
    generation: number,
    scattered: Int32Array | undefined,
    segment: Segment | undefined,
  ) {
    this.#owner = owner;
    this.offset = offset;
    this.length = length;
    this.writable = writable;
    this.place = place;
    this.generation = generation;
    this.scattered = scattered;
    this.segment = segment;
    if (unreleased !== undefined) unreleased.made(this, owner.path);
  }

  get bytes(): Uint8Array {
    if (this.refs === 0) throw this.#released();
    this.#owner.check(this);
    if (this.#view === undefined) this.#view = this.#owner.view(this);
    return this.#view;
  }

  get areas(): readonly Uint8Array[] {
    this.check();
    if (this.#areas === undefined) this.#areas = this.scattered === undefined ? [this.bytes] : this.#owner.areas(this);
    return this.#areas;
  }

  get head(): Uint8Array {
    return this.#part(0, this.#headEnd());
  }

  get blocks(): Uint8Array {
    const from = this.#headEnd();
    return this.#part(from, from + this.#blockBytes(from));
  }

  get tail(): Uint8Array {
    const from = this.#headEnd();
    return this.#part(from + this.#blockBytes(from), this.length);
  }

  get valid(): boolean {
    return this.refs > 0 && this.#owner.isValid(this);
  }

  check(): void {
    if (this.refs === 0) throw this.#released();
    this.#owner.check(this);
  }

  retain(): this {
    if (this.refs === 0) throw this.#released();
    this.refs++;
    return this;
  }

  release(): void {
    if (this.refs === 0 || --this.refs > 0) return;
    this.#view = undefined;
    this.#areas = undefined;
    if (unreleased !== undefined) unreleased.released(this);
    this.#owner.dropped(this);
  }

  [Symbol.dispose](): void {
    this.release();
  }

  markDirty(start = 0, end = this.length): void {
    this.check();
    if (!this.writable) {
      throw new SectorwiseError('ERR_SECTORWISE_NOT_WRITABLE', 'The window is for reading; ask for it with { writable: true } to change the file.', {
        path: this.#owner.path,
        offset: this.offset,
        length: this.length,
      });
    }
    checkPlace('start', start, 0, this.length);
    checkPlace('end', end, start, this.length);
    if (end > start) this.#owner.mark(this, start, end);
  }

  [inspect.custom](): string {
    const state = this.refs === 0 ? 'released' : this.valid ? `refs ${this.refs}` : 'invalid';
    return `Window { offset: ${this.offset}, length: ${this.length}, ${this.writable ? 'writable, ' : ''}${state} }`;
  }

  /** Bytes before the first whole block; all of them where there is none. */
  #headEnd(): number {
    const head = (BLOCK_BYTES - (this.offset % BLOCK_BYTES)) % BLOCK_BYTES;
    return this.length - head < BLOCK_BYTES ? this.length : head;
  }

  #blockBytes(head: number): number {
    return Math.floor((this.length - head) / BLOCK_BYTES) * BLOCK_BYTES;
  }

  #part(from: number, to: number): Uint8Array {
    if (this.scattered === undefined || this.#view !== undefined) return this.bytes.subarray(from, to);
    let at = 0;
    for (const area of this.areas) {
      if (from >= at && to <= at + area.length) return area.subarray(from - at, to - at);
      at += area.length;
    }
    return from === to ? noBytes : this.bytes.subarray(from, to);
  }

  #released(): SectorwiseError {
    return new SectorwiseError(
      'ERR_SECTORWISE_RELEASED',
      'The window was released; retain() it before handing it on, and use it only until release() or the end of the `using` block.',
      { path: this.#owner.path, offset: this.offset, length: this.length },
    );
  }
}

function checkPlace(name: string, value: unknown, least: number, most: number): void {
  if (typeof value !== 'number') throw invalidType(name, 'of type number', value);
  if (!Number.isInteger(value) || value < least || value > most) throw outOfRange(name, `an integer >= ${least} && <= ${most}`, value);
}
