/**
 * Sizes as people write and read them.
 *
 * Guarantees: what is shown beside a size is exact (`1.5 GiB` only where it is that); what cannot be said in one digit after the point is said in bytes.
 */

const UNITS = ['bytes', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB', 'EiB'];
/** `K` and `KiB` are 1024, `KB` is 1000, as sfdisk has it; `s` are sectors of 512 bytes, as parted has it. */
const FACTORS: Record<string, bigint> = { '': 1n, b: 1n, s: 512n };
for (const [index, letter] of ['k', 'm', 'g', 't', 'p', 'e'].entries()) {
  const binary = 1n << BigInt(10 * (index + 1));
  FACTORS[letter] = binary;
  FACTORS[`${letter}ib`] = binary;
  FACTORS[`${letter}b`] = 1000n ** BigInt(index + 1);
}

/** `512M`, `64G`, `1.5GiB`, `4096`, `2048s` in bytes; undefined for what is none, is not whole, or is beyond 2^64. */
export function parseSize(text: string): bigint | undefined {
  const match = /^(\d{1,20})(?:\.(\d{1,9}))?\s*([a-z]*)$/i.exec(text.trim());
  if (match === null) return undefined;
  const factor = FACTORS[match[3].toLowerCase()];
  if (factor === undefined) return undefined;
  const fraction = match[2] ?? '';
  const scale = 10n ** BigInt(fraction.length);
  const scaled = BigInt(match[1] + fraction) * factor;
  if (scaled % scale !== 0n) return undefined;
  const bytes = scaled / scale;
  return bytes < 1n << 64n ? bytes : undefined;
}

/** `64 GiB`, `1.5 GiB`, `1098240 bytes`: the largest unit that says it exactly with one digit after the point. */
export function sizeText(bytes: bigint): string {
  for (let power = UNITS.length - 1; power > 0; power--) {
    const unit = 1n << BigInt(10 * power);
    if (bytes < unit) continue;
    const tenths = bytes * 10n;
    if (tenths % unit !== 0n) continue;
    return `${decimal(tenths / unit)} ${UNITS[power]}`;
  }
  return bytes === 1n ? '1 byte' : `${bytes} bytes`;
}

/** The same rounded, for tables and pictures: never longer than `1023.9 MiB`. */
export function roundSizeText(bytes: bigint): string {
  let power = 0;
  while (power < UNITS.length - 1 && bytes >= 1n << BigInt(10 * (power + 1))) power++;
  if (power === 0) return sizeText(bytes);
  const unit = 1n << BigInt(10 * power);
  const tenths = (bytes * 20n + unit) / (unit * 2n);
  return tenths >= 10240n && power < UNITS.length - 1 ? `1 ${UNITS[power + 1]}` : `${decimal(tenths)} ${UNITS[power]}`;
}

function decimal(tenths: bigint): string {
  return tenths % 10n === 0n ? `${tenths / 10n}` : `${tenths / 10n}.${tenths % 10n}`;
}
