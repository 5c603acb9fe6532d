/**
 * A program that appends to a log and changes pages in place for ever, says on its standard output what was acknowledged as durable, and is killed in the middle.
 *
 *   a <number>          this record of the log is durable, and all before it
 *   p <page> <version>  this page is at least at that version
 *
 * Usage: appender <log> <pages> <caching> <writers>
 */
import { writeSync } from 'node:fs';
import { Log } from '../../docs/examples/log.js';
import { type BlockFile, type Caching, open } from '../../src/index.js';
import { pageOf, pagesMax, recordOf } from './appended.js';

const [logPath, pagesPath, caching, writers] = process.argv.slice(2);

const openFile = (path: string): Promise<BlockFile> =>
  open(path, { caching: caching as Caching, access: 'read-write', create: true, lock: 'exclusive', cacheSize: 1 << 20 });

const logFile = await openFile(logPath);
const pages = await openFile(pagesPath);
let sequence = 0;
const log = await Log.open(logFile, (number) => {
  sequence = number;
});

async function append(): Promise<never> {
  for (;;) {
    sequence++;
    const number = await log.append(recordOf(sequence));
    writeSync(1, `a ${number}\n`);
  }
}

async function change(): Promise<never> {
  const found = new Uint8Array(pageOf(0, 0).length * pagesMax);
  await pages.read(found, 0);
  const words = new Uint32Array(found.buffer);
  let version = Math.max(...Array.from({ length: pagesMax }, (_, page) => words[(page * words.length) / pagesMax]));
  for (;;) {
    version++;
    const page = version % pagesMax;
    const bytes = pageOf(page, version);
    await Promise.all([pages.write(bytes, page * bytes.length), pages.flush()]);
    writeSync(1, `p ${page} ${version}\n`);
  }
}

await Promise.all([change(), ...Array.from({ length: Number(writers) }, append)]);
