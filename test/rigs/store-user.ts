/**
 * A program that changes a page store for ever, several changes at once and with checkpoints, says on its standard output what was acknowledged as durable, and is killed in the middle.
 *
 *   a <number>   this change is durable, and all before it
 *
 * Usage: store-user <folder> <caching> <first change> <life> <writers>
 */
import { writeSync } from 'node:fs';
import { join } from 'node:path';
import { Store } from '../../docs/examples/pagestore/store.js';
import { type Caching, open } from '../../src/index.js';
import { changeOf } from './store-history.js';

const [folder, caching, first, life, writers] = process.argv.slice(2);
const options = { caching: caching as Caching, access: 'read-write', create: true, lock: 'exclusive', readAhead: false } as const;
const files = [await open(join(folder, 'pages'), options), await open(join(folder, 'log'), options)];
const store = await Store.open(files[0], files[1], { logBytes: 256 << 10 });
let number = Number(first);

async function change(): Promise<never> {
  for (;;) {
    const mine = number++;
    await store.write(changeOf(mine, Number(life)));
    writeSync(1, `a ${mine}\n`);
    if (mine % 20 === 0) await store.checkpoint();
  }
}

await Promise.all(Array.from({ length: Number(writers) }, change));
