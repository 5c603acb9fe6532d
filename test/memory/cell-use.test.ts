/** Cells that were not used for a while, by looks made by hand; and the one timer that makes them. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { CellUse } from '../../src/memory/cell-use.js';
import { EPOCHS_UNUSED, type IdleOwner, lookPeriodMs, unwatchIdle, watchIdle } from '../../src/memory/idle-clock.js';

const HOUR = 3_600_000;
const NEVER = Number.POSITIVE_INFINITY;

/** Looks come from the test alone. */
function setUp() {
  const given: Array<[number, number]> = [];
  const cells = new CellUse(HOUR, (first, count) => given.push([first, count]));
  return { cells, given };
}

/** As many looks as it takes until all that was found idle has been given back. */
function epoch(cells: CellUse): number {
  let next = cells.look();
  while (next < lookPeriodMs(HOUR)) next = cells.look();
  return next;
}

function epochs(cells: CellUse, count: number): number {
  let next = NEVER;
  for (let i = 0; i < count; i++) next = epoch(cells);
  return next;
}

describe('cells', () => {
  it('are given back once, when four whole epochs have gone by since their last use', () => {
    const { cells, given } = setUp();
    cells.touch(3, 5);
    expect(epochs(cells, EPOCHS_UNUSED - 1)).toBe(HOUR / 4);
    expect(given).toEqual([]);
    expect(epoch(cells)).toBe(NEVER);
    expect(given).toEqual([[3, 3]]);
    epochs(cells, 20);
    expect(given.length).toBe(1);
    cells.close();
  });

  it('stay while a window is over them, however long, and for the whole time after it', () => {
    const { cells, given } = setUp();
    cells.begin(7, 7);
    cells.begin(6, 8);
    cells.end(6, 8);
    epochs(cells, 600);
    expect(given).toEqual([
      [6, 1],
      [8, 1],
    ]);
    expect([cells.used(6), cells.used(7), cells.used(1_000_000)]).toEqual([false, true, false]);
    cells.end(7, 7);
    epochs(cells, EPOCHS_UNUSED - 1);
    expect(given.length).toBe(2);
    epoch(cells);
    expect(given[2]).toEqual([7, 1]);
    cells.close();
  });

  it('are given back in few runs, a bounded part at each look', () => {
    const { cells, given } = setUp();
    cells.touch(10, 109);
    cells.touch(0, 2);
    for (let i = 0; i < EPOCHS_UNUSED - 1; i++) cells.look();
    let looks = 0;
    for (let next = 0; next !== NEVER; looks++) next = cells.look();
    expect(looks).toBe(4);
    expect(given.length).toBe(5);
    expect(given.reduce((sum, [, count]) => sum + count, 0)).toBe(103);
    cells.close();
  });

  it('that are used again between being found and being given back stay', () => {
    const { cells, given } = setUp();
    cells.touch(0, 63);
    for (let i = 0; i < EPOCHS_UNUSED; i++) cells.look();
    expect(given).toEqual([[0, 32]]);
    cells.begin(40, 40);
    cells.touch(50, 50);
    epoch(cells);
    expect(given.flatMap(([first, count]) => Array.from({ length: count }, (_, i) => first + i))).toEqual(
      Array.from({ length: 64 }, (_, cell) => cell).filter((cell) => cell !== 40 && cell !== 50),
    );
    cells.close();
  });

  it('are given back exactly when nobody used them for five epochs, after anything', () => {
    const step = fc.oneof(
      fc.record({ do: fc.constant('touch' as const), first: fc.nat(80), more: fc.nat(3) }),
      fc.record({ do: fc.constant('begin' as const), first: fc.nat(80), more: fc.nat(3) }),
      fc.record({ do: fc.constant('end' as const), first: fc.nat(80), more: fc.constant(0) }),
      fc.record({ do: fc.constant('epoch' as const), first: fc.constant(0), more: fc.nat(2) }),
    );
    fc.assert(
      fc.property(fc.array(step, { maxLength: 120 }), (steps) => {
        const { cells, given } = setUp();
        const model = new Map<number, { users: number; last: number }>();
        const windows: Array<[number, number]> = [];
        let now = 0;
        const use = (first: number, last: number, users: number): void => {
          for (let cell = first; cell <= last; cell++) model.set(cell, { users: (model.get(cell)?.users ?? 0) + users, last: now });
        };
        for (const { do: what, first, more } of steps) {
          if (what === 'touch') {
            cells.touch(first, first + more);
            use(first, first + more, 0);
          } else if (what === 'begin') {
            cells.begin(first, first + more);
            use(first, first + more, 1);
            windows.push([first, first + more]);
          } else if (what === 'end') {
            const window = windows.splice(first % Math.max(1, windows.length), 1)[0];
            if (window === undefined) continue;
            cells.end(...window);
            use(...window, -1);
          } else {
            for (let i = 0; i <= more; i++) {
              epoch(cells);
              now++;
              const idle = [...model].filter(([, { users, last }]) => users === 0 && now - last >= EPOCHS_UNUSED).map(([cell]) => cell);
              for (const seen of model.values()) if (seen.users > 0) seen.last = now;
              for (const cell of idle) model.delete(cell);
              const got = given.splice(0).flatMap(([from, count]) => Array.from({ length: count }, (_, at) => from + at));
              expect(got.sort((a, b) => a - b)).toEqual(idle.sort((a, b) => a - b));
            }
          }
        }
        cells.close();
      }),
    );
  });
});

describe('the clock', () => {
  const until = async (done: () => boolean): Promise<void> => {
    while (!done()) await new Promise((resolve) => setTimeout(resolve, 1));
  };

  it('looks for each owner as often as it says, until it has nothing', async () => {
    const looks = { fast: 0, slow: 0 };
    const fast: IdleOwner = { look: () => (++looks.fast < 20 ? 1 : NEVER) };
    const slow: IdleOwner = { look: () => (++looks.slow < 3 ? 15 : NEVER) };
    watchIdle(slow, 15);
    watchIdle(fast, 1);
    watchIdle(fast, 1);
    await until(() => looks.fast === 20 && looks.slow === 3);
    await new Promise((resolve) => setTimeout(resolve, 40));
    expect(looks).toEqual({ fast: 20, slow: 3 });
    watchIdle(fast, 1);
    await until(() => looks.fast === 21);
  });

  it('does not look for who left, nor for who never gives anything back', async () => {
    let looks = 0;
    const owner: IdleOwner = { look: () => ++looks };
    watchIdle(owner, 1);
    unwatchIdle(owner);
    watchIdle(owner, NEVER);
    await new Promise((resolve) => setTimeout(resolve, 20));
    expect(looks).toBe(0);
  });

  it('keeps no process alive', () => {
    const owner: IdleOwner = { look: () => 1 };
    const before = process.getActiveResourcesInfo().filter((name) => name === 'Timeout').length;
    watchIdle(owner, 1000);
    expect(process.getActiveResourcesInfo().filter((name) => name === 'Timeout').length).toBe(before);
    unwatchIdle(owner);
  });
});
