/**
 * What the request manager asks of the memory that blocks are read into. Two implement it: `frame-cache.ts` (direct mode: frames
 * that stay and are what windows show) and `fill-store.ts` (page-cache mode: scratch memory, read through only to have
 * the kernel bring its pages in).
 *
 * A sector mask has a bit for each of a block's eight sectors, bit 0 the first.
 */
export const SECTOR_BYTES = 512;
export const BLOCK_BYTES = 4096;
export const BLOCK_SECTORS = 8;
export const ALL_SECTORS = 0xff;

/** Every sector asked for is in memory, and nothing stands against using it. */
export const PRESENT = 0;
/** No memory belongs to the block. */
export const ABSENT = 1;
/** Memory belongs to the block, but sectors that were asked for are missing from it, or an operation has to end first. */
export const HELD = 2;

export interface BlockStore {
  /** Called before the blocks of a range are looked at with `state`. */
  begin(first: number, count: number): void;
  /** PRESENT, ABSENT or HELD, for the sectors in `need`. `store`: the block is about to be written into, which has to wait for every operation on it. */
  state(block: number, need: number, store: boolean): number;
  /** Blocks that could be taken now. */
  room(): number;
  /** Would pinning the block lower `room`? */
  idle(block: number): boolean;
  pin(block: number): void;
  unpin(block: number): void;
  /**
   * Takes memory for the absent blocks [block, block+count), as one run, perhaps shorter: answers with how many (at least 1 where `room` said so, else 0) and sets
   * `slab` and `offset`.
   */
  take(block: number, count: number): number;
  /** For a HELD block: sets `slab` and `offset` to its memory. Answers with the mask of its valid sectors. */
  locate(block: number): number;
  slab: number;
  /** Bytes into the slab. */
  offset: number;
  /** An operation over [start, start+sectors) exists from now on. */
  began(start: number, sectors: number, write: boolean): void;
  /** It ended. For reads: `ok` says whether the sectors are valid now. */
  ended(start: number, sectors: number, write: boolean, ok: boolean): void;
  /** The bytes [from, to) of a slab are zero from now on: what lies beyond the end of a file. */
  zero(slab: number, from: number, to: number): void;
}

/** The mask of the sectors that bytes [from, to) of a block touch. */
export function sectorMask(from: number, to: number): number {
  const first = from >>> 9;
  const last = (to + 511) >>> 9;
  return ((1 << last) - 1) & ~((1 << first) - 1);
}
