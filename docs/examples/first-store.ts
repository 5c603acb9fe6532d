/** The first program of the getting-started guide: opens a page store, says what it recovered, and counts its own runs. Usage: first-store <folder> */
import { join } from 'node:path';
import { open } from 'sectorwise';
import { Store } from './pagestore/store.js';

const folder = process.argv[2];
const options = { access: 'read-write', create: true, lock: 'exclusive', caching: 'direct', readAhead: false } as const;
const pages = await open(join(folder, 'pages'), { ...options, cacheSize: 256 << 20 });
const log = await open(join(folder, 'log'), options);
const store = await Store.open(pages, log);

const runs = await store.get(Buffer.from('runs'));
const before = runs === undefined ? 0 : Number(Buffer.from(runs).toString());
console.log(`this store was opened ${before} times before`);

// Each is durable when its promise resolves; all of them share a flush.
const names = ['ada', 'grace', 'edsger'];
await Promise.all(names.map((name) => store.put(Buffer.from(`name/${name}`), Buffer.from(`run ${before + 1}`))));
await store.put(Buffer.from('runs'), Buffer.from(`${before + 1}`));

for await (const run of store.scan(Buffer.from('name/'), Buffer.from('name0'))) {
  for (const { key, value } of run) console.log(`${Buffer.from(key)} = ${Buffer.from(value ?? [])}`);
}
await store.close();
