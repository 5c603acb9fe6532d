/**
 * Findings as they are collected, and the numbers in their messages.
 *
 * Guarantees: no more than `findingsOfOneCodeMax` of one code are kept, whatever a table says; the rest is one finding that counts them.
 * Leaves to others: what is a finding (`table.ts`, `check.ts`), how it is shown (`src/cli`).
 */
import type { Finding } from './model.js';

/** As many partitions as an ordinary GPT has room for: only a table that lies has more to say. */
export const findingsOfOneCodeMax = 128;

export class FindingList {
  readonly #kept: Finding[] = [];
  readonly #byCode = new Map<string, { first: Finding; count: number }>();

  add(finding: Finding): void {
    const seen = this.#byCode.get(finding.code);
    if (seen === undefined) this.#byCode.set(finding.code, { first: finding, count: 1 });
    else seen.count++;
    if ((seen?.count ?? 1) <= findingsOfOneCodeMax) this.#kept.push(finding);
  }

  has(code: string): boolean {
    return this.#byCode.has(code);
  }

  /** All that were kept, in the order in which they were added, and for each code with more than that one that counts the others. */
  all(): Finding[] {
    const more: Finding[] = [];
    for (const [code, { first, count }] of this.#byCode) {
      const others = count - findingsOfOneCodeMax;
      if (others <= 0) continue;
      const { severity, layer } = first;
      more.push({ severity, code, layer, partition: null, message: `and ${others} more of the same`, fix: first.fix === '' ? '' : 'as above' });
    }
    return [...this.#kept, ...more];
  }
}

/** `byte 32256 (LBA 63)`; a byte within a sector is named by the sector that holds it. */
export function byteAndLba(byte: bigint, sectorSize: number): string {
  const size = BigInt(sectorSize);
  return `byte ${byte} (${byte % size === 0n ? '' : 'in '}LBA ${byte / size})`;
}

/** `4 KiB`, `1 MiB`, or `2560 bytes` where no unit divides it. */
export function roundSize(bytes: bigint | number): string {
  let value = BigInt(bytes);
  for (const unit of ['bytes', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB', 'EiB']) {
    if (value < 1024n || value % 1024n !== 0n) return `${value} ${unit}`;
    value /= 1024n;
  }
  return `${bytes} bytes`;
}
