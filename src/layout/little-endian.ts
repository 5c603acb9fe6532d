/**
 * Numbers in bytes from a medium. A field beyond the end of the bytes is 0, as if the medium held nothing there: callers check lengths where that would matter.
 */
export function u16(bytes: Uint8Array, at: number): number {
  return at + 2 > bytes.length ? 0 : bytes[at] | (bytes[at + 1] << 8);
}

export function u32(bytes: Uint8Array, at: number): number {
  return at + 4 > bytes.length ? 0 : (bytes[at] | (bytes[at + 1] << 8) | (bytes[at + 2] << 16) | (bytes[at + 3] << 24)) >>> 0;
}

export function u64(bytes: Uint8Array, at: number): bigint {
  return (BigInt(u32(bytes, at + 4)) << 32n) | BigInt(u32(bytes, at));
}

/** Whether the bytes at `at` are those of `text`, one byte for each character. */
export function hasText(bytes: Uint8Array, at: number, text: string): boolean {
  if (at + text.length > bytes.length) return false;
  for (let index = 0; index < text.length; index++) if (bytes[at + index] !== text.charCodeAt(index)) return false;
  return true;
}

/** A GUID as UEFI stores it (the first three groups little-endian), in lower case. */
export function guidAt(bytes: Uint8Array, at: number): string {
  const group = (from: number, to: number, step: 1 | -1) => {
    let text = '';
    for (let index = step > 0 ? from : to - 1; index >= from && index < to; index += step) text += (bytes[at + index] ?? 0).toString(16).padStart(2, '0');
    return text;
  };
  return [group(0, 4, -1), group(4, 6, -1), group(6, 8, -1), group(8, 10, 1), group(10, 16, 1)].join('-');
}
