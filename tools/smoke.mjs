/**
 * Does the built package work at all on the Node.js that runs this? `node tools/smoke.mjs`
 *
 * Imports it by its own name, as a program would, and in both modes with each engine: reads windows of a file, compares them with node:fs,
 * writes, flushes, opens again and reads that. io_uring is left out, and said to be, where the kernel or container refuses it.
 * Plain JavaScript, since it has to run without being built.
 */
import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import * as imported from 'sectorwise';

const { open, openSync } = imported;
const folder = mkdtempSync(join(tmpdir(), 'sectorwise-smoke-'));
process.on('exit', () => rmSync(folder, { recursive: true, force: true }));

/** An odd size: the last block is a short one. */
const size = 3 * 4096 + 1234;
const original = Buffer.from(Array.from({ length: size }, (_, index) => (index * 31 + (index >> 8)) & 255));

async function smoke(caching, engine) {
  const path = join(folder, `${caching}-${engine}`);
  writeFileSync(path, original);

  const file = await open(path, { caching, engine, access: 'read-write' });
  assert.equal(file.size, size);
  assert.equal(file.explain().engine, engine);
  for (const [offset, length] of [
    [0, 4096],
    [100, 5000],
    [4096, 8192],
    [size - 10, 100],
  ]) {
    const window = await file.window(offset, length);
    assert.deepEqual(Buffer.from(window.bytes), original.subarray(offset, offset + length));
    window.release();
    assert.throws(() => window.bytes, { code: 'ERR_SECTORWISE_RELEASED' });
  }
  let scanned = 0;
  for await (const window of file.windows({ step: 4096 })) scanned += window.length;
  assert.equal(scanned, size);

  const written = Buffer.from('written through sectorwise');
  assert.equal(await file.write(written, 5000), written.length);
  await file.flush();
  await file.close();
  await assert.rejects(file.window(0, 1), { code: 'ERR_SECTORWISE_CLOSED' });

  const expected = Buffer.from(original);
  written.copy(expected, 5000);
  const again = openSync(path, { caching, engine });
  const copy = Buffer.alloc(size);
  assert.equal(again.readSync(copy, 0), size);
  again.closeSync();
  assert.deepEqual(copy, expected);
  assert.deepEqual(readFileSync(path), expected);
}

function refusesIoUring() {
  const path = join(folder, 'probe');
  writeFileSync(path, Buffer.alloc(4096));
  const file = openSync(path, { caching: 'direct' });
  const { engine } = file.explain();
  file.closeSync();
  return engine !== 'io_uring';
}

const required = createRequire(import.meta.url)('sectorwise');
assert.equal(required.open, open, 'require() and import give the same library');

for (const entry of ['testing', 'layout', 'mmap-io', 'random-access']) {
  const part = await import(`sectorwise/${entry}`);
  assert.ok(Object.keys(part).length > 0, `sectorwise/${entry} exports something`);
}

const engines = refusesIoUring() ? ['threads'] : ['io_uring', 'threads'];
for (const caching of ['page-cache', 'direct']) {
  for (const engine of engines) await smoke(caching, engine);
}
console.log(
  `smoke: Node ${process.version}: page-cache and direct with ${engines.join(' and ')}: ok${engines.length === 1 ? ' (io_uring does not work here)' : ''}`,
);
