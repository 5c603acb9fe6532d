/**
 * A file of the tour's own, cut by node:fs while windows over it are open and in use.
 *
 * Guarantees: touches nothing but a file that it made itself; each line says what was seen, not what should be; answers whether that is what the library promises.
 */
import { truncateSync, writeFileSync } from 'node:fs';
import { setTimeout as wait } from 'node:timers/promises';
import { type InvalidateReason, open } from '../../src/index.js';
import { bytesText } from '../bench/format.js';

const size = 1 << 20;
const cut = size / 4;
const length = 64 << 10;
/** What the file is filled with. */
const filling = 0x5e;

/** The event comes on a later turn of the loop; it is not waited for longer than this. */
const eventMs = 2000;

export async function truncateUnderWindows(path: string): Promise<{ lines: string[]; kept: boolean }> {
  writeFileSync(path, Buffer.alloc(size, filling), { flag: 'wx' });
  const file = await open(path);
  try {
    const lost = await file.window(size / 2, length);
    const stays = await file.window(0, length);
    const older = lost.bytes;
    let event: InvalidateReason | undefined;
    file.once('invalidate', (reason) => {
      event = reason;
    });
    const before = older[0];
    truncateSync(path, cut);
    // Here a program over a bare mmap gets its SIGBUS.
    const after = older[0];
    let code = 'nothing is thrown';
    try {
      lost.check();
    } catch (error) {
      code = (error as NodeJS.ErrnoException).code ?? String(error);
    }
    for (let waited = 0; event === undefined && waited < eventMs; waited += 10) await wait(10);
    const intact = stays.valid && stays.bytes.every((byte) => byte === filling);
    const lines = [
      `fs.truncateSync() cuts it from ${bytesText(size)} to ${bytesText(cut)}; windows are open at ${bytesText(size / 2)} and at 0.`,
      `The bytes taken from the first window before: the first was ${before} and is ${after} now. The process lives.`,
      `That window: valid is ${lost.valid}, check() throws ${code}.`,
      event ? `The event 'invalidate': cause '${event.cause}', offset ${event.offset}, length ${event.length}.` : "The event 'invalidate' did not come.",
      `The window at 0: valid is ${stays.valid}, its ${bytesText(length)} are ${intact ? 'all there' : 'NOT what they were'}.`,
    ];
    const kept = after === 0 && !lost.valid && code === 'ERR_SECTORWISE_TRUNCATED' && event?.cause === 'truncate' && intact;
    lost.release();
    stays.release();
    return { lines, kept };
  } finally {
    await file.close();
  }
}
