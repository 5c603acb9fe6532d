/**
 * What a file must contain: the plainest possible one, an array of bytes, to compare everything else with.
 *
 * Guarantees: bytes past the end do not exist, and are zeros when the size grows over them again. After a discard on a block device
 * the bytes are unknown until they are written, and equal anything.
 * Leaves to the driver: the order. Each call happens at once and as a whole; call in the order in which the library accepted.
 */

/** A file of known content. */
export class ModelFile {
  readonly kind: 'file' | 'block-device';
  #bytes: Uint8Array;
  /** 1 where the byte may be anything. */
  #unknown: Uint8Array;
  #durable: Uint8Array;

  constructor(size: number, kind: 'file' | 'block-device' = 'file') {
    this.kind = kind;
    this.#bytes = new Uint8Array(size);
    this.#unknown = new Uint8Array(size);
    this.#durable = new Uint8Array(size);
  }

  get size(): number {
    return this.#bytes.length;
  }

  /** The content at the last `flush` (at first: zeros of the first size). A power cut may lose nothing of it that was not written again. */
  get durable(): Uint8Array {
    return this.#durable;
  }

  /** Grows a file where it goes past its end; of a device only the part before its end is taken. Answers with the bytes taken. */
  write(offset: number, source: Uint8Array): number {
    const taken = this.kind === 'file' ? source : source.subarray(0, Math.max(0, this.size - offset));
    if (taken.length === 0) return 0;
    this.#grow(offset + taken.length);
    this.#bytes.set(taken, offset);
    this.#unknown.fill(0, offset, offset + taken.length);
    return taken.length;
  }

  truncate(size: number): void {
    if (size > this.size) {
      this.#grow(size);
      return;
    }
    this.#bytes = this.#bytes.slice(0, size);
    this.#unknown = this.#unknown.slice(0, size);
  }

  allocate(offset: number, length: number): void {
    this.#grow(offset + length);
  }

  discard(offset: number, length: number): void {
    const end = Math.min(this.size, offset + length);
    if (offset >= end) return;
    if (this.kind === 'file') this.#bytes.fill(0, offset, end);
    else this.#unknown.fill(1, offset, end);
  }

  flush(): void {
    this.#durable = this.#bytes.slice();
  }

  /** What a read must give: a copy, short or empty at the end. */
  expectRead(offset: number, length: number): Uint8Array {
    return this.#bytes.slice(offset, offset + length);
  }

  /** Where `actual` (what a read of `length` bytes at `offset` gave) first differs, as an offset of the file; undefined if it is right. */
  firstDifference(offset: number, length: number, actual: Uint8Array): number | undefined {
    const expected = this.expectRead(offset, length);
    const shared = Math.min(expected.length, actual.length);
    for (let index = 0; index < shared; index++) {
      if (expected[index] !== actual[index] && this.#unknown[offset + index] === 0) return offset + index;
    }
    return expected.length === actual.length ? undefined : offset + shared;
  }

  #grow(size: number): void {
    if (size <= this.size) return;
    const bytes = new Uint8Array(size);
    bytes.set(this.#bytes);
    this.#bytes = bytes;
    const unknown = new Uint8Array(size);
    unknown.set(this.#unknown);
    this.#unknown = unknown;
  }
}
