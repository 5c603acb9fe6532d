/**
 * Seeded patterns: the bytes that a file is filled with, and the order in which its blocks are visited.
 *
 * Guarantees: the same seed gives the same bytes and the same order on every machine; an order visits each block once, so that no
 * contender is ever answered from what it read before.
 */
import { createCipheriv } from 'node:crypto';

const zeros = Buffer.alloc(1 << 20);

/** An endless source of pseudo-random bytes, in pieces of at most 1 MiB: AES in counter mode, which is faster than any disk here. */
export function seededBytes(seed: number): (length: number) => Buffer {
  const key = Buffer.alloc(16);
  key.writeUInt32LE(seed >>> 0);
  const cipher = createCipheriv('aes-128-ctr', key, Buffer.alloc(16));
  return (length) => cipher.update(length === zeros.length ? zeros : zeros.subarray(0, length));
}

/** The numbers 0…count-1 in a seeded random order (Fisher-Yates over mulberry32). */
export function seededOrder(count: number, seed: number): Uint32Array {
  const order = new Uint32Array(count);
  for (let index = 0; index < count; index++) order[index] = index;
  let state = seed >>> 0;
  for (let index = count - 1; index > 0; index--) {
    state = (state + 0x6d2b79f5) >>> 0;
    let bits = Math.imul(state ^ (state >>> 15), state | 1);
    bits = (bits + Math.imul(bits ^ (bits >>> 7), bits | 61)) ^ bits;
    const other = Math.floor((((bits ^ (bits >>> 14)) >>> 0) / 2 ** 32) * (index + 1));
    const held = order[index];
    order[index] = order[other];
    order[other] = held;
  }
  return order;
}
