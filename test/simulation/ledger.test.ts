/** Seeds of the ledgers, always the same ones. `npm run simulate -- --ledgers` is for many more. */
import { describe, expect, it } from 'vitest';
import { type LedgerCounts, simulateLedger } from './ledger.js';

const seeds = Number(process.env.SECTORWISE_LEDGERS ?? 30);
const from = Number(process.env.SECTORWISE_FROM ?? 1);

describe('writers that number what they write, on a disk that fails', () => {
  it(`lose nothing that a flush acknowledged, and nothing of theirs is written twice or out of order: seeds ${from} to ${from + seeds - 1}`, async () => {
    const counts: LedgerCounts = { operations: 0, acknowledged: 0, failedFlushes: 0, losses: 0, rejected: {} };
    for (let seed = from; seed < from + seeds; seed++) {
      const { operations, acknowledged, failedFlushes, losses } = await simulateLedger(seed);
      counts.operations += operations;
      counts.acknowledged += acknowledged;
      counts.failedFlushes += failedFlushes;
      counts.losses += losses;
    }
    // Else the seeds would show nothing.
    expect(counts.operations).toBeGreaterThan(seeds * 50);
    expect(counts.acknowledged).toBeGreaterThan(seeds);
    if (seeds >= 20) expect(Math.min(counts.failedFlushes, counts.losses)).toBeGreaterThan(0);
  });

  it('do the same again when a seed is run again', async () => {
    expect(await simulateLedger(from)).toEqual(await simulateLedger(from));
  });

  // 42: the end of the file could not be set, and the flush named only what lies before it. 75, 420: a sync failed, and what was written while it was under way was left to the next.
  it('are told of every range that a failed flush did not make durable: seeds that found a fault once', async () => {
    for (const seed of [42, 75, 420]) expect((await simulateLedger(seed)).operations).toBeGreaterThan(0);
  });

  // 823: a hole over a block that was evicted, of which a flush in the queue had a copy.
  it('never see again what a hole took: seeds that found a fault once', async () => {
    for (const seed of [823]) expect((await simulateLedger(seed)).operations).toBeGreaterThan(0);
  });
});
