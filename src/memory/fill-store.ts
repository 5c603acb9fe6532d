/**
 * The block store of page-cache mode: reads go through it only to have the kernel bring its pages in; the bytes are thrown away.
 *
 *   mapping [ · · x x · … ]   resident pages need nothing; a few absent ones are read into the scratch slab, all into the same bytes, many are filled (`OP_FILL`), which names no memory
 *
 * Guarantees: takes no memory, so nobody ever waits for room; a block is resident once its operation ended well, unless pages were dropped meanwhile.
 * Leaves to others: what is resident (`mapping.ts`).
 */
import type { OperationTable } from '../requests/operation-table.js';
import { ABSENT, BLOCK_BYTES, BLOCK_SECTORS, type BlockStore, HELD, PRESENT, SECTOR_BYTES } from './block-store.js';
import type { FileMapping } from './mapping.js';

/** Bytes of the scratch slab. */
export const SCRATCH_BYTES = 64 * 1024;
/** Reads from so many bytes on are fills; docs/decisions.md has the measurement. */
export const FILL_BYTES_MIN = SCRATCH_BYTES;
/** Bytes of one fill at most. */
export const FILL_BYTES_MAX = 4 * 1024 * 1024;

export class FillStore implements BlockStore {
  slab: number;
  offset = 0;
  operations: OperationTable | undefined;
  readonly #mapping: FileMapping;
  /** Absent blocks of the range being looked at: pairs of offset and length, in bytes. */
  #runs = new Float64Array(64);
  #runCount = 0;
  #run = 0;
  /** For each operation, how often pages had been dropped when it began. */
  #began = new Float64Array(64);
  /** Where `state` was asked about last. */
  #asked = 0;

  constructor(mapping: FileMapping, slab: number) {
    this.#mapping = mapping;
    this.slab = slab;
  }

  begin(first: number, count: number): void {
    if (this.#runs.length < 2 * count + 2) this.#runs = new Float64Array(2 * count + 2);
    this.#runCount = this.#mapping.missing(first * BLOCK_BYTES, count * BLOCK_BYTES, this.#runs);
    this.#run = 0;
    this.#asked = 0;
  }

  /** Blocks are asked about in ascending order, perhaps several times over. */
  state(block: number): number {
    const at = block * BLOCK_BYTES;
    if (at < this.#asked) this.#run = 0;
    this.#asked = at;
    while (this.#run < this.#runCount && at >= this.#runs[2 * this.#run] + this.#runs[2 * this.#run + 1]) this.#run++;
    if (this.#run === this.#runCount || at < this.#runs[2 * this.#run]) return PRESENT;
    return this.operations !== undefined && this.operations.at(block * BLOCK_SECTORS) >= 0 ? HELD : ABSENT;
  }

  room(): number {
    return Number.MAX_SAFE_INTEGER;
  }

  idle(): boolean {
    return false;
  }

  pin(): void {}

  unpin(): void {}

  take(_block: number, count: number): number {
    this.offset = 0;
    return Math.min(count, FILL_BYTES_MAX / BLOCK_BYTES);
  }

  locate(): number {
    this.offset = 0;
    return 0;
  }

  began(start: number): void {
    const operation = this.operations?.at(start) ?? -1;
    if (operation < 0) return;
    if (operation >= this.#began.length) {
      const more = new Float64Array(2 * (operation + 1));
      more.set(this.#began);
      this.#began = more;
    }
    this.#began[operation] = this.#mapping.drops;
  }

  ended(start: number, sectors: number, write: boolean, ok: boolean): void {
    if (write || !ok) return;
    // What was dropped since the operation began may have been what it brought in: the next question is put to the kernel.
    const operation = this.operations?.at(start) ?? -1;
    if (operation >= 0 && this.#began[operation] !== this.#mapping.drops) return;
    this.#mapping.markResident(start * SECTOR_BYTES, sectors * SECTOR_BYTES);
  }

  zero(): void {}
}
