/**
 * Seeds of the simulation, always the same ones: SECTORWISE_SEEDS says how many, SECTORWISE_FROM which is the first. `npm run simulate` is for many more.
 */
import { describe, expect, it } from 'vitest';
import { simulate } from './driver.js';

const seeds = Number(process.env.SECTORWISE_SEEDS ?? 2000);
const from = Number(process.env.SECTORWISE_FROM ?? 1);
/** Seeds in one test: a report says roughly where, the failure exactly. */
const together = 250;

describe('several callers on a disk that fails', () => {
  for (let first = from; first < from + seeds; first += together) {
    const last = Math.min(first + together, from + seeds) - 1;
    it(`get what the order of their calls allows, and leave nothing behind: seeds ${first} to ${last}`, async () => {
      let operations = 0;
      for (let seed = first; seed <= last; seed++) operations += (await simulate(seed)).operations;
      expect(operations).toBeGreaterThan(last - first);
    });
  }

  // What is left of a cut that was given up: a later resize is about it too, and names it when it is lost.
  it('are told of everything that is lost: seeds that found a fault once', async () => {
    for (const seed of [40115]) expect((await simulate(seed)).operations).toBeGreaterThan(0);
  });

  it('do the same again when a seed is run again', async () => {
    for (let seed = from; seed < from + 10; seed++) expect(await simulate(seed)).toEqual(await simulate(seed));
  });
});
