/**
 * Slabs: the memory that frames are cut from, mapped twice.
 *
 *   shared    [ frame | frame | frame | … ]    the device's and the writer's view
 *   private   [ frame | frame | frame | … ]    the same pages until JavaScript stores into one; then that page is a copy of its own
 *
 * Guarantees: what is stored into `private` never reaches `shared`, and is found and undone exactly by `repair`; views of a closed slab read zeros and
 * never fault. Its memory goes back to the system with `close` (or with the last operation that an engine still holds on it), its addresses when both buffers were collected.
 * Leaves to others: which frame is whose (`frame-cache.ts`).
 */
import { systemError } from '../errors.js';
import type { Slab } from '../io/engine.js';
import { native } from '../io/native.js';

/**
 * A slab in a sealed memfd, zeroed. Close it only with nothing in flight.
 *
 * @param bytes - its size: a multiple of 4096, more than 0, at most 4 GiB.
 * @throws the error of `memfd_create`: ENOMEM, EMFILE, ENFILE; EINVAL for another size; EOPNOTSUPP where the runtime allows no memory but its own in an ArrayBuffer.
 */
export function createSlab(bytes: number): Slab {
  const slab = native().createSlab(bytes);
  if (typeof slab === 'number') throw systemError(slab, 'memfd_create');
  return slab;
}
