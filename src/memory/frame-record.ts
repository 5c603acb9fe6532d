/**
 * What is known of each frame: 16 bytes, so that a hit touches one line of the processor's caches, with three other frames in it.
 *
 *   words   [ low high state pins | low high state pins | … ]
 *   low     lower 32 bits of the number of the block that the frame holds
 *   high    the rest of it and one; 0: no block
 *   state   valid 8 | dirty 8 | reads 4 | writes 4 | uses 2 | main | ahead | exposed | epoch 3     (from bit 0 on)
 *   pins    windows and requests that hold the frame
 *
 * All zeros is a frame that holds nothing: memory that nobody uses is never touched.
 * Leaves to others: what may follow what (`frame-cache.ts`), what uses, main, ahead and epoch mean (`eviction.ts`).
 */
export const FRAME_WORDS = 4;
export const BLOCK_LOW = 0;
export const BLOCK_HIGH = 1;
export const STATE = 2;
export const PINS = 3;

/** `BLOCK_HIGH` of a frame that holds no block. */
export const NO_BLOCK = 0;

/** Sectors whose bytes are the file's. */
export const VALID = 0xff;
/** Sectors that the device does not have yet. */
export const DIRTY_SHIFT = 8;
export const DIRTY = 0xff << DIRTY_SHIFT;
/** Operations on the frame now. Those over a block are disjoint: there are 8 at most, and one more while one is being split. */
export const READ = 1 << 16;
export const READS = 0xf * READ;
export const WRITE = 1 << 20;
export const WRITES = 0xf * WRITE;
/** Any of these, and the frame is not to be taken. */
export const HELD_BITS = DIRTY | READS | WRITES;
/** How often it was used lately, 3 at most. */
export const USE = 1 << 24;
export const USES = 3 * USE;
/** It has proved that it is asked for again. */
export const MAIN = 1 << 26;
/** Read ahead, and not used since. */
export const AHEAD = 1 << 27;
/** A view over the frame's private page was handed out since the page was last known to be clean. */
export const EXPOSED = 1 << 28;
/** When its last use was counted. */
export const EPOCH_SHIFT = 29;
export const EPOCH = 7 << EPOCH_SHIFT;
