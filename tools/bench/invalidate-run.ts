/**
 * One run of the group `invalidate` in a process of its own: `node invalidate-run.js '<job as JSON>'` prints its result as one line of JSON.
 *
 * The clock stops when the listener is called. It asks every window there and then, with nothing in between: one that is still valid is an error. A loss that nobody
 * noticed for some seconds is no figure either, but said.
 */
import { setTimeout as pause } from 'node:timers/promises';
import type { Window } from '../../src/index.js';
import { losses } from './losses.js';
import { Undo } from './throttled-device.js';

export interface InvalidateJob {
  loss: string;
  folder: string;
  windows: number;
}

export interface InvalidateResult {
  /** Why there is no figure. */
  cannot?: string;
  /** ms until the listener was called, and every window was invalid. */
  told: number;
  /** ms of it in the call itself, where the loss is declared by one. */
  calling: number;
  /** ms that asking 100,000 windows took afterwards. */
  asking: number;
}

const blockBytes = 4096;
const unnoticedMs = 5000;

async function measure({ loss: name, folder, windows: count }: InvalidateJob): Promise<InvalidateResult> {
  const loss = losses.find((candidate) => candidate.name === name);
  if (!loss) throw new Error(`there is no loss '${name}'`);
  const undo = new Undo();
  const { file, lose } = await loss.make(folder, undo);
  try {
    const live: Window[] = [];
    const depth = 64;
    while (live.length < count) {
      const first = live.length;
      const asked = Array.from({ length: Math.min(depth, count - first) }, (_, index) => {
        const offset = (first + index) * blockBytes;
        return file.tryWindow(offset, blockBytes) ?? file.window(offset, blockBytes);
      });
      live.push(...(await Promise.all(asked)));
    }
    // Bytes are looked at, so that views exist too.
    for (const window of live) if (window.bytes.length !== blockBytes) throw new Error(`the window at ${window.offset} is short`);
    const event = new Promise<{ at: number; asked: number; valid: number; cause: string }>((resolve) => {
      file.once('invalidate', ({ cause }) => {
        const at = performance.now();
        let valid = 0;
        for (const window of live) if (window.valid) valid++;
        resolve({ at, asked: performance.now(), valid, cause });
      });
    });
    const called = performance.now();
    const lost = lose();
    const returned = performance.now();
    const begun = loss.outside ? returned : called;
    const limit = new AbortController();
    const told = await Promise.race([event, pause(unnoticedMs, undefined, { signal: limit.signal }).catch(() => undefined)]);
    limit.abort();
    if (told === undefined) return { cannot: `nobody noticed within ${unnoticedMs / 1000} s`, told: 0, calling: 0, asking: 0 };
    const { at, asked, valid, cause } = told;
    if (valid > 0) throw new Error(`${valid} of ${count} windows were still valid when listeners were told of '${cause}'`);
    await lost;
    for (const window of live) window.release();
    return { told: at - begun, calling: returned - begun, asking: asked - at };
  } finally {
    // After a loss closing may fail, and may have been the loss itself.
    await file.close().catch(() => undefined);
    undo.run();
  }
}

process.stdout.write(`${JSON.stringify(await measure(JSON.parse(process.argv[2])))}\n`);
