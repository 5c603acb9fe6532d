/**
 * Bytes that say where they belong: every 4 bytes are a hash of the disk's seed and their place, so that a block from elsewhere, a zeroed one or a torn one is seen.
 */

/** Fills `target` as what stands at `offset` (a multiple of 4) of the content of `seed`. */
export function fillContent(target: Uint8Array, offset: number, seed: number): void {
  const words = new Uint32Array(target.buffer, target.byteOffset, target.length >> 2);
  for (let index = 0, place = offset >>> 2; index < words.length; index++, place++) words[index] = wordAt(place, seed);
}

/** Offset within `bytes` of the first that differs; undefined where all are right. */
export function firstDifference(bytes: Uint8Array, offset: number, seed: number): number | undefined {
  const words = new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.length >> 2);
  for (let index = 0, place = offset >>> 2; index < words.length; index++, place++) if (words[index] !== wordAt(place, seed)) return index * 4;
  return undefined;
}

function wordAt(place: number, seed: number): number {
  let word = Math.imul(place ^ (seed * 0x9e3779b1), 0x85ebca6b);
  word = Math.imul(word ^ (word >>> 13), 0xc2b2ae35);
  // Never 0: that is what lost memory reads as.
  return ((word ^ (word >>> 16)) | 1) >>> 0;
}
