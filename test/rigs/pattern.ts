/**
 * The content of test files: each byte follows from its place and a seed, so that every process can say what must be there without having the file.
 *
 * Guarantees: no byte is 0, so that zero pages are never mistaken for content; neighbouring pages differ.
 */

/** Fills `target` with what lies at `offset` of a file with this seed. */
export function fillPattern<T extends Uint8Array>(target: T, offset: number, seed: number): T {
  for (let i = 0; i < target.length; i++) {
    const at = offset + i;
    target[i] = 1 + ((at + (at >>> 8) * 31 + (at >>> 12) * 97 + seed * 57) % 255);
  }
  return target;
}

/** How many bytes of `bytes`, from the first, are what lies at `offset`; all of them if it is intact. */
export function intactBytes(bytes: Uint8Array, offset: number, seed: number): number {
  const wanted = fillPattern(new Uint8Array(bytes.length), offset, seed);
  if (Buffer.compare(bytes, wanted) === 0) return bytes.length;
  return bytes.findIndex((byte, i) => byte !== wanted[i]);
}

/** How many bytes of `bytes`, from the last backwards, are 0. */
export function zeroTail(bytes: Uint8Array): number {
  let count = 0;
  while (count < bytes.length && bytes[bytes.length - 1 - count] === 0) count++;
  return count;
}
