/** Memory that no window used for `idleMs` goes back to the system; what a window is over stays. */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, afterEach, describe, expect, it } from 'vitest';
import { type BlockFile, type OpenOptions, open, openSync, type Window } from '../../src/index.js';
import { note, Places } from '../fixtures/places.js';

const PAGE = 4096;
const MIB = 1 << 20;
const CELL = 2 * MIB;
const BYTES = 64 * MIB;

const lab = new Places();
const path = join(lab.folder(), 'file');
writeFileSync(path, Buffer.alloc(BYTES, 7));
const opened: BlockFile[] = [];
afterEach(async () => {
  for (const file of opened.splice(0)) await file.close();
});
afterAll(() => lab.dispose());

async function opening(options: OpenOptions): Promise<BlockFile> {
  const file = await open(path, options);
  opened.push(file);
  return file;
}

interface Memory {
  rss: number;
  anonymous: number;
  shared: number;
  pss: number;
}

/**
 * Bytes of this process's mappings of the file and of frames, and of no other memory, so that neither V8's heap nor the C library's comes and goes in it: in memory,
 * in memory that only they have (copies that stores made), in the frames themselves, and in pages divided by who shares them.
 */
function memory(): Memory {
  const sum: Memory = { rss: 0, anonymous: 0, shared: 0, pss: 0 };
  let named: 'file' | 'frames' | undefined;
  let resident = 0;
  for (const line of readFileSync('/proc/self/smaps', 'utf8').split('\n')) {
    const field = /^(\w+):\s+(\d+) kB$/.exec(line);
    if (field === null) {
      if (/^[0-9a-f]+-[0-9a-f]+ /.test(line)) named = line.endsWith(path) ? 'file' : line.includes('/memfd:sectorwise-slab') ? 'frames' : undefined;
    } else if (named !== undefined) {
      const bytes = Number(field[2]) * 1024;
      if (field[1] === 'Rss') {
        resident = bytes;
        sum.rss += bytes;
      } else if (field[1] === 'Pss') sum.pss += bytes;
      else if (field[1] === 'Anonymous') {
        sum.anonymous += bytes;
        if (named === 'frames') sum.shared += resident - bytes;
      }
    }
  }
  return sum;
}

/** Not bounded by itself: how long memory takes to go depends on `idleMs`. */
async function until(done: () => boolean): Promise<void> {
  while (!done()) await new Promise((resolve) => setTimeout(resolve, 10));
}

/**
 * Opens a file and uses it, within less than its `idleMs`, so that nothing was given back by then: where a busy machine takes longer, another file has four times as long.
 */
async function usedInTime(options: OpenOptions, use: (file: BlockFile) => Promise<void>): Promise<{ file: BlockFile; before: Memory; used: Memory }> {
  for (let idleMs = 400; ; idleMs *= 4) {
    const file = await opening({ ...options, idleMs });
    const before = memory();
    const begun = performance.now();
    await use(file);
    const used = memory();
    if (performance.now() - begun < idleMs) return { file, before, used };
    await file.close();
    await until(() => memory().rss < used.rss - 0.4 * BYTES || memory().shared <= before.shared);
  }
}

/** Touches every page, and stores into every second one. */
async function scribble(file: BlockFile, from = 0, to = BYTES): Promise<void> {
  for (let at = from; at < to; at += CELL) {
    using window = await file.window(at, Math.min(CELL, to - at));
    const { bytes } = window;
    for (let page = 0; page < bytes.length; page += PAGE) {
      if (bytes[page] !== 7) throw new Error(`${bytes[page]} at ${at + page}`);
      if ((page / PAGE) % 2 === 1) bytes[page] = 9;
    }
  }
}

describe('idle memory in page-cache mode', () => {
  it('leaves the process: pages of the file, and copies that stores made of them', async () => {
    const { file, before, used } = await usedInTime({}, (opened) => scribble(opened));
    expect(used.rss - before.rss).toBeGreaterThan(0.9 * BYTES);
    expect(used.anonymous - before.anonymous).toBeGreaterThan(0.4 * BYTES);
    await until(() => memory().rss < used.rss - 0.8 * BYTES && memory().anonymous < used.anonymous - 0.4 * BYTES);
    const after = memory();
    expect(after.pss).toBeLessThan(used.pss - 0.4 * BYTES);
    process.stdout.write(`Pss ${used.pss >> 20} -> ${after.pss >> 20} MiB, RssAnon ${used.anonymous >> 20} -> ${after.anonymous >> 20} MiB\n`);
    // And it is the file again, in memory still.
    await scribble(file);
  });

  it('is not taken from under a window, nor what was stored into it', async () => {
    let held: Window[] = [];
    const { before, used } = await usedInTime({}, async (file) => {
      for (const window of held) window.release();
      held = [];
      for (const at of [0, 5 * CELL - 100, 20 * CELL + 5]) held.push(await file.window(at, 200));
      for (const window of held) window.bytes.fill(3);
      await scribble(file, 6 * CELL, 18 * CELL);
    });
    expect(used.anonymous - before.anonymous).toBeGreaterThan(0.4 * 12 * CELL);
    await until(() => memory().anonymous < used.anonymous - 0.4 * 12 * CELL);
    for (const window of held) {
      expect(window.bytes.every((byte) => byte === 3)).toBe(true);
      window.release();
    }
  });

  it('that went back shows the file to views of before', async () => {
    const file = await opening({ idleMs: 20 });
    const window = await file.window(100, 50);
    const { bytes } = window;
    bytes.fill(5);
    window.release();
    await until(() => bytes[0] === 7);
    expect(bytes.every((byte) => byte === 7)).toBe(true);
  });

  it('stays for ever with Infinity', async () => {
    const file = await opening({ idleMs: Number.POSITIVE_INFINITY });
    const quick = await opening({ idleMs: 20 });
    const views: Uint8Array[] = [];
    for (const each of [file, quick]) {
      using window = await each.window(0, 10);
      views.push(window.bytes);
      window.bytes.fill(5);
    }
    await until(() => views[1][0] === 7);
    expect(views[0][0]).toBe(5);
  });

  it('lets a file be closed at any time', async () => {
    for (let round = 0; round < 20; round++) {
      const file = await opening({ idleMs: 1 });
      await scribble(file, 0, 3 * CELL);
      await new Promise((resolve) => setTimeout(resolve, round * 3));
      await file.close();
    }
  });
});

describe.each(['io_uring', 'threads'] as const)('idle memory in direct mode, with engine %s', (engine) => {
  const forced = process.env.SECTORWISE_ENGINE;
  const other = forced !== undefined && forced !== '' && forced !== engine ? `SECTORWISE_ENGINE is ${forced}` : undefined;
  const direct: OpenOptions = { caching: 'direct', engine: other === undefined ? engine : undefined, cacheSize: BYTES };
  const refused = other ?? refusal(direct);

  /** Every block in a frame, and a stray store into every second one. */
  async function fill(file: BlockFile): Promise<void> {
    for (let at = 0; at < BYTES; at += CELL) {
      using window = await file.window(at, CELL);
      for (const bytes of window.areas) {
        for (let page = 0; page < bytes.length; page += PAGE) {
          if (bytes[page] !== 7) throw new Error(`${bytes[page]} at ${at + page}`);
          if ((page / PAGE) % 2 === 1) bytes[page] = 9;
        }
      }
    }
  }

  it(`goes back to the system, and is filled anew${note(refused)}`, { skip: refused !== undefined }, async () => {
    const { file, before, used } = await usedInTime(direct, fill);
    expect(used.shared - before.shared).toBeGreaterThan(0.9 * BYTES);
    await until(() => file.residency().cached === 0 && memory().shared < used.shared - 0.9 * BYTES);
    const after = memory();
    expect(used.anonymous - after.anonymous).toBeGreaterThan(0.4 * BYTES);
    expect(used.pss - after.pss).toBeGreaterThan(0.9 * BYTES);
    process.stdout.write(
      `${engine}: Pss ${used.pss >> 20} -> ${after.pss >> 20} MiB, RssShmem ${used.shared >> 20} -> ${after.shared >> 20}, RssAnon ${used.anonymous >> 20} -> ${after.anonymous >> 20}\n`,
    );
    // Parts of it may go again meanwhile.
    await fill(file);
  });

  it(`stays where a window holds a part of it, or something waits to be written${note(refused)}`, { skip: refused !== undefined }, async () => {
    const file = await opening({ ...direct, access: 'read-write', idleMs: 20 });
    const window = await file.window(100, 200);
    await file.write(Buffer.alloc(PAGE, 8), 40 * MIB);
    for (let round = 0; round < 20; round++) await new Promise((resolve) => setTimeout(resolve, 10));
    expect(window.bytes.every((byte) => byte === 7)).toBe(true);
    using written = file.tryWindow(40 * MIB, PAGE)!;
    expect(written.bytes.every((byte) => byte === 8)).toBe(true);
    window.release();
    await file.write(Buffer.alloc(PAGE, 7), 40 * MIB);
    await file.flush();
  });

  it(`goes back while others read, and nobody reads what is not the file's${note(refused)}`, { skip: refused !== undefined }, async () => {
    const file = await opening({ ...direct, cacheSize: 16 * MIB, idleMs: 1 });
    for (let round = 0; round < 120; round++) {
      const from = (round * 7919 * PAGE) % (BYTES - MIB);
      await Promise.all(
        [0, 3, 11].map(async (at) => {
          using window = await file.window(from + at * PAGE, 40 * PAGE);
          for (const bytes of window.areas) if (bytes.some((byte) => byte !== 7)) throw new Error(`not the file's, at ${window.offset}`);
        }),
      );
      // Now and then until everything is given back, else in the middle of that.
      if (round % 30 === 29) await until(() => file.residency().cached === 0);
      else if (round % 10 === 9) await new Promise((resolve) => setTimeout(resolve, round / 10));
    }
  });
});

/** Why a file cannot be opened so here. */
function refusal(options: OpenOptions): string | undefined {
  try {
    openSync(path, options).closeSync();
    return undefined;
  } catch (error) {
    return (error as Error).message.split('\n')[0];
  }
}
