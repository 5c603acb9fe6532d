/**
 * A workload for an ordered store of which every state is known: change n is a group of puts and removals that follows from n and from the life of the process that made it, and says so under one key.
 *
 * So a store that was recovered says which change was its last, and has to be, key for key, what all changes up to that one make.
 */
export type Change = readonly [key: Buffer, value: Buffer | undefined];

/** Under this key the last change names itself. */
export const lastKey = Buffer.from('\x80 last');
const keysMax = 90;

const keyOf = (number: number): Buffer => Buffer.from(`${'common/'.repeat(number % 3)}${number.toString(36)}`);

/** Some are removals, and now and then there is a value as long as the store takes. */
export function changeOf(number: number, life: number): Change[] {
  const changes: Change[] = [[lastKey, Buffer.from(`${number} ${life}`)]];
  let seed = Math.imul(number * 2 + 1, 0x9e3779b1) ^ life;
  for (let i = 0; i <= number % 4; i++) {
    seed = Math.imul(seed ^ (seed >>> 15), 0x2c1b3c6d);
    const chosen = seed >>> 8;
    const length = i === 0 && chosen % 9 === 0 ? 924 + (chosen % 101) : chosen % 400;
    changes.push([keyOf(chosen % keysMax), chosen % 5 === 0 ? undefined : Buffer.alloc(length, `${number}/${life};`)]);
  }
  return changes;
}

/** What the changes of these lives make, in the order of keys; `lives[n - 1]` made change n. */
export function stateAfter(lives: readonly number[]): Array<[key: string, value: string]> {
  const state = new Map<string, string>();
  for (const [index, life] of lives.entries()) {
    for (const [key, value] of changeOf(index + 1, life)) {
      if (value === undefined) state.delete(key.toString('latin1'));
      else state.set(key.toString('latin1'), value.toString('latin1'));
    }
  }
  return [...state].sort(([a], [b]) => (a < b ? -1 : 1));
}
