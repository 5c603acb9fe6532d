/** A file system whose server is late, fails, hangs, changes files or goes away, under windows and under requests. */
import { truncateSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { note } from '../fixtures/places.js';
import { isMounted, patternFile } from '../rigs/failing-places.js';
import type { ServerOptions } from '../rigs/fuse/behaviour.js';
import { type FuseServer, noFuse } from '../rigs/fuse-server.js';
import type { Holder } from './holder.js';
import {
  ALL,
  cachings,
  clearStage,
  expectAlive,
  expectDead,
  expectNothing,
  expectSome,
  Holders,
  holders,
  lab,
  MEBIBYTE,
  SEED,
  SIZE,
  serve,
  until,
  WINDOWS,
} from './stage.js';

clearStage();

const PAGE = 4096;
/** What no window lies over, so that it is in memory for nobody. */
const COLD = { offset: 5 * MEBIBYTE, length: 3 * PAGE };
const FAR = 1_000_000_000;

describe.skipIf(noFuse !== undefined).each(cachings)(`on FUSE, %s${note(noFuse)}`, (caching) => {
  async function hold(holder: Holder = 'main', options: Partial<ServerOptions> = {}): Promise<{ server: FuseServer; held: Holders }> {
    const server = await serve({ files: [{ name: 'file', size: SIZE, seed: SEED }], ...options });
    return { server, held: await Holders.start(holder, { path: server.path('file'), caching }) };
  }

  const waiting = (server: FuseServer): Promise<void> => until(async () => (await server.counts()).waiting > 0, 'a request waits at the server');

  it.each(['window', 'read', 'batch', 'prefetch'] as const)('the event loop turns while reads are late (%s)', async (what) => {
    const { server, held } = await hold();
    await server.behave({ delayMs: 400 });
    const { reads } = await server.counts();
    const [{ turns, delayed, immediate }] = await held.turnsDuring(what, COLD);
    expect((await server.counts()).reads).toBeGreaterThan(reads);
    expect({ delayed, immediate }).toEqual({ delayed: true, immediate: false });
    // A loop that waited for the device would have turned a handful of times.
    expect(turns).toBeGreaterThan(100);
    await server.behave({});
    for (const seen of await held.observe()) for (const i of ALL) expectAlive(seen, i);
    await held.finish();
  });

  it.each(holders)('a request over a read that hangs waits, and has its bytes when it ends (held %s)', async (_name, holder) => {
    const { server, held } = await hold(holder);
    await server.behave({ hang: 'reads' });
    await held.ask('window', COLD);
    await held.ask('read', COLD);
    await waiting(server);
    // Windows that are there stay so, and their holder goes on.
    await held.touch(0, 0);
    await server.behave({});
    for (const seen of await held.observe()) {
      expect(seen.pending).toEqual([
        { length: COLD.length, intact: COLD.length },
        { length: COLD.length, intact: COLD.length },
      ]);
      for (const i of ALL) expectAlive(seen, i);
      expect(seen).toMatchObject({ events: [], generation: 0 });
    }
    await held.finish();
  });

  it('a request over a page that fails rejects with EIO and its range, others do not, and it is asked again when it is asked for again', async () => {
    const { server, held } = await hold();
    await server.behave({ failPages: [COLD.offset / PAGE + 1] });
    const bad = { offset: COLD.offset + PAGE, length: PAGE };
    await held.ask('window', bad);
    await held.ask('read', { offset: bad.offset + 10, length: 10 });
    await held.ask('window', { offset: COLD.offset, length: PAGE });
    await held.ask('read', { offset: COLD.offset + 2 * PAGE, length: PAGE });
    const [[window, read, before, after]] = await held.answers();
    for (const { error } of [window, read]) {
      expect(error).toMatchObject({ code: 'EIO', syscall: 'read' });
      expect(error?.offset).toBeLessThanOrEqual(bad.offset + 10);
      expect((error?.offset ?? 0) + (error?.length ?? 0)).toBeGreaterThanOrEqual(bad.offset + 20);
    }
    for (const outcome of [before, after]) expect(outcome).toEqual({ length: PAGE, intact: PAGE });
    await server.behave({});
    await held.ask('window', bad);
    expect((await held.answers())[0][4]).toEqual({ length: PAGE, intact: PAGE });
    for (const seen of await held.observe()) for (const i of ALL) expectAlive(seen, i);
    await held.finish();
  });

  if (caching === 'page-cache') {
    it.each(holders)(
      'a page that the kernel dropped and cannot bring back ends the windows of its cell, and a new window has the right bytes later (held %s)',
      async (_name, holder) => {
        const { server, held } = await hold(holder);
        // Window 2 lies in the second cell, as does the first half of window 3.
        await server.behave({ failPages: [WINDOWS[2].offset / PAGE + 2] });
        await server.forget('file', WINDOWS[2].offset, WINDOWS[2].length);
        await held.touch(2, 3 * PAGE);
        await held.touch(2, 2 * PAGE + 5);
        await held.notice([2], false);
        await server.behave({});
        for (const seen of await held.observe()) {
          expectDead(seen, 2, 'ERR_SECTORWISE_FAULT');
          for (const i of [0, 1, 4]) expectAlive(seen, i);
          expect(seen.faults).toBeGreaterThan(0);
          expect(seen.generation).toBeGreaterThanOrEqual(1);
          for (const i of ALL) expectSome(seen, i, WINDOWS[i].length);
        }
        // What was seen dead stays dead, also after others were made over the same bytes.
        for (const seen of await held.observe()) expect(seen.windows[2]).toMatchObject({ valid: false, bytes: { code: 'ERR_SECTORWISE_FAULT' } });
        await held.finish();
      },
    );
  }

  if (caching === 'direct') {
    it('a page that the kernel dropped is nothing to a window over frames', async () => {
      const { server, held } = await hold();
      await server.behave({ failPages: [WINDOWS[2].offset / PAGE + 2] });
      await server.forget('file', 0, 0);
      for (const seen of await held.observe()) {
        for (const i of ALL) {
          expectAlive(seen, i);
          expectSome(seen, i, WINDOWS[i].length);
        }
        expect(seen).toMatchObject({ faults: 0, events: [] });
      }
      await held.finish();
    });
  }

  it.each(holders)(
    'a connection that is aborted ends every window, and the file system can be unmounted before the file is closed (held %s)',
    async (_name, holder) => {
      const { server, held } = await hold(holder);
      server.abort();
      await held.notice(ALL);
      for (const seen of await held.observe()) {
        const code = seen.windows[0].bytes?.code ?? '';
        // Nobody can say whether the server or the medium went.
        expect(['ERR_SECTORWISE_UNPLUGGED', 'ERR_SECTORWISE_SHUTDOWN']).toContain(code);
        for (const i of ALL) {
          expectDead(seen, i, code);
          expectNothing(seen, i, code);
        }
        expect(seen.events).toEqual([{ cause: code === 'ERR_SECTORWISE_UNPLUGGED' ? 'unplug' : 'shutdown', offset: 0, length: SIZE }]);
      }
      await until(() => {
        try {
          server.unmount();
          return true;
        } catch {
          return false;
        }
      }, 'umount succeeds');
      expect(isMounted(server.folder)).toBe(false);
      await held.finish();
    },
  );

  it('a connection that is aborted ends what waits for it', async () => {
    // Attributes are believed for ever, so that only the reads themselves can tell.
    const { server, held } = await hold('main', { validMs: FAR });
    await server.behave({ hang: 'reads' });
    await held.ask('window', COLD);
    await held.ask('read', { offset: COLD.offset, length: 100 });
    await waiting(server);
    server.abort();
    const [answers] = await held.answers();
    // Its own error while nobody knows what it means, and the state of the file once that is known.
    for (const { error } of answers) expect(error?.code).toMatch(/^(ERR_SECTORWISE_(UNPLUGGED|SHUTDOWN)|ECONNABORTED|ENOTCONN|EIO)$/);
    await held.notice(ALL);
    await held.finish();
  });

  it.each(holders)('a file that shrinks at the server loses what is behind the cut, and only that (held %s)', async (_name, holder) => {
    const size = 3 * MEBIBYTE + 32_768;
    const { server, held } = await hold(holder);
    await server.resize('file', size);
    await held.notice([2, 3, 4]);
    for (const seen of await held.observe()) {
      WINDOWS.forEach(({ offset, length }, i) => {
        const left = Math.max(0, Math.min(length, size - offset));
        if (left === length) expectAlive(seen, i);
        else expectDead(seen, i, 'ERR_SECTORWISE_TRUNCATED', left);
        expectSome(seen, i, left);
      });
      expect(seen.events).toEqual([{ cause: 'truncate', offset: size, length: SIZE - size }]);
      expect(seen.size).toBe(size);
    }
    await held.finish();
  });

  if (caching === 'direct') {
    it('who waits for bytes that are cut meanwhile is told, although the read still hangs', async () => {
      const { server, held } = await hold();
      await server.behave({ hang: 'reads' });
      await held.ask('window', COLD);
      await held.ask('read', COLD);
      await waiting(server);
      await server.resize('file', 3 * MEBIBYTE);
      const [answers] = await held.answers();
      for (const outcome of answers) expect(outcome).toMatchObject({ error: { code: 'ERR_SECTORWISE_TRUNCATED' } });
      await server.behave({});
      await held.finish();
    });
  }

  it('a file system that hangs keeps no other file from being noticed', async () => {
    const server = await serve({ files: [{ name: 'file', size: SIZE, seed: SEED }] });
    const path = patternFile(join(lab().folder(), 'file'), SIZE, SEED);
    const held = await Holders.startApart({ path: server.path('file'), caching }, { path, caching });
    await server.behave({ hang: 'all' });
    await waiting(server);
    truncateSync(path, 0);
    expect(await held.of(1, 'noticed', ALL)).toBe(true);
    await server.behave({});
    await held.finish();
  });
});
