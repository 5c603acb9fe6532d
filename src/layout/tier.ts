/**
 * Rule R6: can a page of a file be mapped as one page of what lies under it?
 *
 *   X     0        4096      8192          first byte of the cluster space, seen from where pages are counted
 *   c     [cluster][cluster][cluster]      every file begins at one of them
 *   page  |--------|---------|-------
 *
 * A cluster space that begins on a page, with clusters that are whole pages, holds every file on pages. With smaller clusters a file begins on a page by
 * luck, if the space begins on a multiple of what cluster and page have in common. Otherwise no file can.
 *
 * Guarantees: pure.
 * Leaves to others: where X is (`volumes/`), and what a given file does with it (`file-pages.ts`).
 */
import { outOfRange } from '../errors.js';
import type { Tier, Tiers } from './model.js';

/**
 * The tier for a cluster space that begins at byte `x`, of clusters of `unit` bytes, for pages of `page` bytes.
 *
 * @throws `ERR_OUT_OF_RANGE` if `unit` or `page` is not a whole number from 1 on
 */
export function tierOf(x: bigint, unit: number, page: number): Tier {
  if (!Number.isSafeInteger(unit) || unit < 1) throw outOfRange('unit', 'a whole number from 1 on', unit);
  if (!Number.isSafeInteger(page) || page < 1) throw outOfRange('page', 'a whole number from 1 on', page);
  if (unit % page === 0) return x % BigInt(page) === 0n ? 'guaranteed' : 'impossible';
  return x % BigInt(greatestCommonDivisor(unit, page)) === 0n ? 'per-file' : 'impossible';
}

/**
 * The tiers of a volume at byte `offset`, whose cluster space begins `dataOffset` bytes into it, by page size. What is opaque holds no file that could be
 * mapped, wherever it lies.
 */
export function tiersOf(place: { offset: bigint; dataOffset: bigint; unit: number; opaque: boolean }, pages: readonly number[]): Record<string, Tiers> {
  const tiers: Record<string, Tiers> = {};
  for (const page of pages) {
    tiers[String(page)] = place.opaque
      ? { absolute: 'impossible', relative: 'impossible' }
      : { absolute: tierOf(place.offset + place.dataOffset, place.unit, page), relative: tierOf(place.dataOffset, place.unit, page) };
  }
  return tiers;
}

function greatestCommonDivisor(a: number, b: number): number {
  while (b !== 0) [a, b] = [b, a % b];
  return a;
}
