/** What `npm test` counts over several runs. */
import { describe, expect, it } from 'vitest';
import { addTally, emptyTally, tallyLine } from '../../tools/test/tally.js';

describe('a sum of test runs', () => {
  const skipped = (name: string) => ({ ...emptyTally(), passed: 1, skipped: [{ name, reason: 'needs root' }] });

  it('does not call skipped what one of the runs ran', () => {
    const sum = emptyTally();
    addTally(sum, { ...emptyTally(), passed: 2, ran: ['a.test.ts > devices > work'] });
    addTally(sum, skipped('a.test.ts > devices [skipped: needs root] > work'));
    addTally(sum, skipped('a.test.ts > devices > work (needs root, to become somebody else)'));
    expect(tallyLine(sum)).toBe('4 passed, 0 failed, 0 skipped');
  });

  it('names what none of them ran, with its reason', () => {
    const sum = emptyTally();
    addTally(sum, { ...emptyTally(), passed: 1, ran: ['a.test.ts > devices > work'] });
    addTally(sum, skipped('a.test.ts > zram [skipped: needs zram] > works'));
    expect(sum.skipped).toEqual([{ name: 'a.test.ts > zram [skipped: needs zram] > works', reason: 'needs root' }]);
  });
});
