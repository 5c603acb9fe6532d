/** Twenty thousand images that lie; `npm run fuzz -- layout` has a million. */
import { expect, it } from 'vitest';
import { emptyTally, fuzzOne } from './fuzz.js';

const inputs = 20_000;
const seed = 1;

it(`${inputs} mutated tables and superblocks are judged without an exception, within 4 MiB, and reach every kind and state`, () => {
  const tally = emptyTally();
  for (let index = 0; index < inputs; index++) fuzzOne(seed, index, tally);
  expect(tally.inputs).toBe(inputs);
  expect(Object.keys(tally.exits).sort()).toEqual(['0', '1', '2', '3']);
  expect(Object.keys(tally.tables).sort()).toEqual(['gpt', 'mbr', 'none', 'pmbr-only', 'superfloppy']);
  expect(Object.keys(tally.states).sort()).toEqual([
    'ambiguous-sector-size',
    'backup-bad',
    'backup-missing',
    'backup-not-at-end',
    'ebr-loop',
    'hybrid-mbr',
    'no-valid-table',
    'ok',
    'overlap',
    'partition-beyond-end',
    'primary-bad',
    'protective-mbr-without-gpt',
  ]);
  expect(Object.keys(tally.volumes).length).toBe(15);
}, 600_000);
