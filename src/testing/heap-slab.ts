/**
 * A slab of ordinary memory, for engines that run without the native part.
 *
 * There is one buffer: what a read window shows is what the device writes. A stray store into it therefore is not kept out of
 * the cache as a real slab's private mapping does it, and shows up as wrong bytes, which is what a test wants.
 */
import { outOfRange } from '../errors.js';
import type { Slab } from '../io/engine.js';

const PAGE_BYTES = 4096;
/** What a closed slab reads as, so that a use after close is seen. */
const closedByte = 0xdb;

/**
 * A slab on the JavaScript heap, zeroed. `shared` and `private` are one buffer and `repair` always answers 0.
 * After `close` its bytes are 0xdb; 0 if it was retired before.
 *
 * @param bytes - its size: a multiple of 4096, more than 0.
 * @throws RangeError ERR_OUT_OF_RANGE for another size.
 */
export function createHeapSlab(bytes: number): Slab {
  if (!Number.isSafeInteger(bytes) || bytes <= 0 || bytes % PAGE_BYTES !== 0) throw outOfRange('bytes', `a multiple of ${PAGE_BYTES} greater than 0`, bytes);
  const buffer = new ArrayBuffer(bytes);
  let closed = closedByte;
  return {
    bytes,
    shared: buffer,
    private: buffer,
    repair: () => 0,
    retire: () => {
      // Memory of the heap cannot be pointed elsewhere, and storing into it would be seen by what is in flight: it is zeroed when that has ended.
      closed = 0;
    },
    close: () => {
      new Uint8Array(buffer).fill(closed);
    },
  };
}
