/**
 * The names in an object of options: a misspelled one is an error that offers the right one.
 *
 * Guarantees: pure; imports nothing native, so that what only computes can check its options too (`layout/`).
 * Leaves to others: the values (`options.ts`, `layout/plan-options.ts`).
 */
import { invalidType, invalidValue } from './errors.js';

/** An object without unknown names. */
export function checkNames(name: string, value: unknown, known: readonly string[]): object {
  if (value === undefined) return {};
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw invalidType(name, 'of type object', value);
  for (const given of Object.keys(value)) {
    if (known.includes(given)) continue;
    const meant = known.map((option) => ({ option, distance: editDistance(given, option) })).sort((a, b) => a.distance - b.distance)[0];
    const hint = meant.distance <= Math.max(2, given.length / 3) ? `did you mean '${meant.option}'?` : `known are ${known.join(', ')}`;
    throw invalidValue(`${name}.${given}`, `is not known; ${hint}`, (value as Record<string, unknown>)[given]);
  }
  return value;
}

/** Letters to change, add, drop or swap with their neighbour. */
function editDistance(from: string, to: string): number {
  let before: number[] = [];
  let row = Array.from({ length: to.length + 1 }, (_, i) => i);
  for (let i = 1; i <= from.length; i++) {
    const next = [i];
    for (let j = 1; j <= to.length; j++) {
      const same = from[i - 1].toLowerCase() === to[j - 1].toLowerCase() ? 0 : 1;
      next[j] = Math.min(next[j - 1] + 1, row[j] + 1, row[j - 1] + same);
      if (i > 1 && j > 1 && from[i - 1] === to[j - 2] && from[i - 2] === to[j - 1]) next[j] = Math.min(next[j], before[j - 2] + 1);
    }
    before = row;
    row = next;
  }
  return row[to.length];
}
