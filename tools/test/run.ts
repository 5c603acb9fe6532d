/**
 * One run of the test suite, in a process of its own so that it can have another user, limits and engine.
 *
 *   node run.js <file for the tally> <folders and files to leave out, comma separated> <files at once>
 *
 * Guarantees: the tally (JSON) is written however the tests went; only if this process dies is there none.
 */
import { writeFileSync } from 'node:fs';
import { startVitest } from 'vitest/node';
import { emptyTally, tallyReporter } from './tally.js';

const [tallyPath, leftOut, workers] = process.argv.slice(2);
const tally = emptyTally();
const exclude = leftOut.split(',').filter(Boolean);
const vitest = await startVitest('test', [], {
  watch: false,
  reporters: ['default', tallyReporter(tally)],
  exclude: ['**/node_modules/**', ...exclude.map((path) => (path.endsWith('.ts') ? path : `${path}/**`))],
  maxWorkers: Number(workers),
  // Neither results nor a bundled configuration are written into the checkout: the user of this run may only be allowed to read it.
  cache: false,
  configLoader: 'runner',
});
await vitest.close();
writeFileSync(tallyPath, JSON.stringify(tally));
