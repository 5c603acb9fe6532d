/** What `appender.ts` writes, by number: so that who looks afterwards can say what must be there. */

export const pagesMax = 8;
const PAGE_BYTES = 512;

/** Before the number in each record; in no other place of one. */
export const recordMark = Buffer.from('\0record\0');

/** Payload of a record: mark, number, and bytes of its own; of odd lengths, so that records begin and end anywhere. */
export function recordOf(number: number): Buffer {
  const record = Buffer.alloc(12 + ((Math.imul(number, 0x9e3779b1) >>> 8) % 5000), 1 + (number % 255));
  recordMark.copy(record);
  record.writeUInt32LE(number, 8);
  return record;
}

/** A sector that says which page and version it is all over. */
export function pageOf(page: number, version: number): Uint8Array {
  const words = new Uint32Array(PAGE_BYTES / 4);
  words[0] = version;
  for (let i = 1; i < words.length; i++) words[i] = Math.imul(version + i, 0x85ebca6b) ^ page;
  return new Uint8Array(words.buffer);
}
