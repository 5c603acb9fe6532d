/** What a page store has in it, and whether it is what the changes of store-history.ts make. */
import { expect } from 'vitest';
import type { Store } from '../../docs/examples/pagestore/store.js';
import { lastKey, stateAfter } from './store-history.js';

export const text = (bytes: Uint8Array): string => Buffer.from(bytes).toString('latin1');

/** All keys and values of a range, in order. */
export async function contentOf(store: Store, from?: Uint8Array, to?: Uint8Array): Promise<Array<[string, string]>> {
  const content: Array<[string, string]> = [];
  for await (const run of store.scan(from, to)) for (const { key, value } of run) content.push([text(key), text(value as Uint8Array)]);
  return content;
}

/** Compares the store with what the changes up to its last one make, and answers with how many these are. */
export async function checkState(store: Store, lives: readonly number[]): Promise<number> {
  const last = await store.get(lastKey);
  const [number, life] = last === undefined ? [0, 0] : text(last).split(' ').map(Number);
  if (number > 0) expect(life).toBe(lives[number - 1]);
  const expected = stateAfter(lives.slice(0, number));
  expect(await contentOf(store)).toEqual(expected);
  for (const [key, value] of expected.filter((_, index) => index % 5 === 0)) expect(text((await store.get(Buffer.from(key, 'latin1')))!)).toBe(value);
  return number;
}
