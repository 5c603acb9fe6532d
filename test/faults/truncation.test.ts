/** A file that another process makes shorter or longer, under windows: what is gone says so, what is there stays good. Needs no rights. */
import { appendFileSync, truncateSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import type { Caching } from '../../src/index.js';
import { note, places } from '../fixtures/places.js';
import { patternFile } from '../rigs/failing-places.js';
import { fillPattern } from '../rigs/pattern.js';
import type { Holder } from './holder.js';
import type { Observation } from './holding.js';
import { cachings, clearStage, expectAlive, expectDead, expectSome, Holders, holders, lab, MEBIBYTE, SEED, SIZE, WINDOWS } from './stage.js';

clearStage();

const pastCut = (size: number): number[] => WINDOWS.flatMap(({ offset, length }, i) => (offset + length > size ? [i] : []));

function expectCut(seen: Observation, size: number): void {
  WINDOWS.forEach(({ offset, length }, i) => {
    const left = Math.max(0, Math.min(length, size - offset));
    if (left === length) expectAlive(seen, i);
    else expectDead(seen, i, 'ERR_SECTORWISE_TRUNCATED', left);
    expectSome(seen, i, left);
  });
  expect(seen.events).toEqual([{ cause: 'truncate', offset: size, length: SIZE - size }]);
  expect(seen.generation).toBeGreaterThanOrEqual(1);
  expect(seen.size).toBe(size);
}

async function cut(path: string, caching: Caching, holder: Holder, size: number): Promise<void> {
  const held = await Holders.start(holder, { path: patternFile(path, SIZE, SEED), caching });
  truncateSync(path, size);
  await held.notice(pastCut(size));
  for (const seen of await held.observe()) expectCut(seen, size);
  await held.finish();
}

const somewhere = (): string => join(lab().folder(), 'file');

describe.each(cachings)('a file that is cut, %s', (caching) => {
  describe.each(holders)('held %s', (_name, holder) => {
    it('loses everything when it is cut to nothing', async () => {
      await cut(somewhere(), caching, holder, 0);
    });

    it('loses what is behind a cut in the middle of a page, and only that', async () => {
      await cut(somewhere(), caching, holder, MEBIBYTE + 50_001);
    });

    it('loses what is behind a cut in the middle of a cell, and only that', async () => {
      await cut(somewhere(), caching, holder, 3 * MEBIBYTE + 32_768);
    });

    it('loses what is behind a cut at the edge of a cell, and only that', async () => {
      await cut(somewhere(), caching, holder, 4 * MEBIBYTE);
    });

    it('is cut twice, and each time loses what is behind', async () => {
      const path = patternFile(somewhere(), SIZE, SEED);
      const held = await Holders.start(holder, { path, caching });
      truncateSync(path, 5 * MEBIBYTE);
      await held.notice([4]);
      for (const seen of await held.observe()) {
        for (const i of [0, 1, 2, 3]) expectAlive(seen, i);
        expectDead(seen, 4, 'ERR_SECTORWISE_TRUNCATED');
      }
      truncateSync(path, 2 * MEBIBYTE);
      await held.notice([2, 3, 4]);
      for (const seen of await held.observe()) {
        for (const i of [0, 1]) expectAlive(seen, i);
        for (const i of [2, 3, 4]) expectDead(seen, i, 'ERR_SECTORWISE_TRUNCATED');
        expect(seen.events).toEqual([
          { cause: 'truncate', offset: 5 * MEBIBYTE, length: SIZE - 5 * MEBIBYTE },
          { cause: 'truncate', offset: 2 * MEBIBYTE, length: 3 * MEBIBYTE },
        ]);
        expect(seen.generation).toBeGreaterThanOrEqual(2);
      }
      await held.finish();
    });

    it('is read on when it grew again, and its old windows stay dead', async () => {
      const path = patternFile(somewhere(), SIZE, SEED);
      const held = await Holders.start(holder, { path, caching });
      truncateSync(path, 2 * MEBIBYTE);
      await held.notice([2, 3, 4]);
      appendFileSync(path, fillPattern(new Uint8Array(SIZE - 2 * MEBIBYTE), 2 * MEBIBYTE, SEED));
      for (const seen of await held.observe()) {
        WINDOWS.forEach(({ length }, i) => {
          // The same bytes are there again, but nobody promised them to who held a window over the old ones.
          if (i < 2) expectAlive(seen, i);
          else expect(seen.windows[i]).toMatchObject({ valid: false, bytes: { code: 'ERR_SECTORWISE_TRUNCATED' } });
          for (const kind of ['window', 'read'] as const) expect(seen[kind][i], `${kind} ${i}`).toEqual({ length, intact: length });
        });
        expect(seen.size).toBe(SIZE);
        expect(seen.events.length).toBe(1);
      }
      await held.finish();
    });
  });

  it('does not kill who touches a lost byte before anything was noticed', async () => {
    const path = patternFile(somewhere(), SIZE, SEED);
    const held = await Holders.start('main', { path, caching });
    truncateSync(path, MEBIBYTE + 50_001);
    await held.touch(4, 60_000);
    await held.touch(3, 9000, 5);
    await held.touch(1, 99_999);
    await held.notice(pastCut(MEBIBYTE + 50_001));
    for (const seen of await held.observe()) {
      expectAlive(seen, 0);
      for (const i of [1, 2, 4]) expectDead(seen, i, 'ERR_SECTORWISE_TRUNCATED', i === 1 ? 49_701 : 0);
      expect(seen.windows[3]).toMatchObject({ valid: false, bytes: { code: 'ERR_SECTORWISE_TRUNCATED' } });
    }
    await held.finish();
  });

  for (const place of places.filter(({ kind }) => kind === 'file')) {
    it.skipIf(place.missing !== undefined)(`is noticed on ${place.name}${note(place.missing)}`, async () => {
      await cut(place.make(lab()), caching, 'main', 3 * MEBIBYTE + 32_768);
    });
  }
});

describe.each(cachings)('a file that grows, %s', (caching) => {
  it.each(holders)('is read on without being opened again, and keeps its windows (held %s)', async (_name, holder) => {
    const path = patternFile(somewhere(), MEBIBYTE + 50_001, SEED);
    const inside = [
      { offset: 100, length: 1000 },
      { offset: MEBIBYTE, length: 50_001 },
    ];
    const held = await Holders.start(holder, { path, caching, windows: inside });
    appendFileSync(path, fillPattern(new Uint8Array(SIZE - MEBIBYTE - 50_001), MEBIBYTE + 50_001, SEED));
    await held.ask('window', { offset: MEBIBYTE + 50_000, length: 2 * MEBIBYTE });
    await held.ask('read', { offset: SIZE - 10, length: 100 });
    for (const seen of await held.observe()) {
      for (const i of inside.keys()) expectAlive(seen, i);
      expect(seen.pending).toEqual([
        { length: 2 * MEBIBYTE, intact: 2 * MEBIBYTE },
        { length: 10, intact: 10 },
      ]);
      expect(seen).toMatchObject({ size: SIZE, events: [], generation: 0 });
    }
    await held.finish();
  });
});
