/**
 * Sizes as people write and read them.
 *
 * Guarantees: a size alone is exact (`1.5 GiB` only where it is that); what one digit after the point does not say exactly stands beside it in bytes.
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

/** `64 GiB`, `1.5 GiB`; `1 MiB (1098240 bytes)` where no unit says it exactly with one digit after the point. */
export function sizeText(bytes: bigint): string {
  if (bytes < 1024n) return bytes === 1n ? '1 byte' : `${bytes} bytes`;
  let power = 1;
  while (power < UNITS.length - 1 && bytes >= 1n << BigInt(10 * (power + 1))) power++;
  const unit = 1n << BigInt(10 * power);
  return (bytes * 10n) % unit === 0n ? `${decimal((bytes * 10n) / unit)} ${UNITS[power]}` : `${roundSizeText(bytes)} (${bytes} bytes)`;
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
