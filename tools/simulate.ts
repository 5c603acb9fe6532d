/**
 * More seeds of the simulation than a test run has time for.
 *
 *   npm run simulate -- --seeds 20000 --from 1
 *   npm run simulate -- --ledgers --seeds 5000       the other kind: writers that number what they write (`ledger.ts`)
 *
 * Stops at the first seed that fails, prints what it did, and ends with exit code 1.
 */
import { parseArgs } from 'node:util';
import { SimulationFailure, simulate } from '../test/simulation/driver.js';
import { simulateLedger } from '../test/simulation/ledger.js';

const { values } = parseArgs({
  options: { seeds: { type: 'string', default: '10000' }, from: { type: 'string', default: '1' }, ledgers: { type: 'boolean', default: false } },
});
const run = values.ledgers ? simulateLedger : simulate;
const seeds = Number(values.seeds);
const from = Number(values.from);
if (!Number.isSafeInteger(seeds) || seeds < 1 || !Number.isSafeInteger(from)) {
  process.stderr.write('Usage: npm run simulate -- [--seeds <how many>] [--from <first seed>] [--ledgers]\n');
  process.exit(2);
}

const progressMs = process.stdout.isTTY ? 500 : 10_000;
const began = performance.now();
let shown = began;
let operations = 0;
const rejected: Record<string, number> = {};

function line(done: number): string {
  const seconds = (performance.now() - began) / 1000;
  return `${done} of ${seeds} seeds, ${operations} calls, ${seconds.toFixed(0)} s, ${(done / seconds).toFixed(0)} seeds/s`;
}

for (let seed = from; seed < from + seeds; seed++) {
  try {
    const counts = await run(seed);
    operations += counts.operations;
    for (const [code, count] of Object.entries(counts.rejected)) rejected[code] = (rejected[code] ?? 0) + count;
  } catch (error) {
    process.stdout.write(
      `\nSeed ${seed} failed: ${error instanceof SimulationFailure ? error.message : error instanceof Error ? error.message : String(error)}\n`,
    );
    process.exit(1);
  }
  const now = performance.now();
  if (now - shown < progressMs) continue;
  shown = now;
  process.stdout.write(process.stdout.isTTY ? `\r${line(seed - from + 1)} ` : `${line(seed - from + 1)}\n`);
}
const outcomes = Object.entries(rejected)
  .sort((a, b) => b[1] - a[1])
  .map(([code, count]) => `${code} ${count}`);
process.stdout.write(`${process.stdout.isTTY ? '\r' : ''}${line(seeds)}: all passed\nrejected calls: ${outcomes.join(', ') || 'none'}\n`);
