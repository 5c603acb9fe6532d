/** Batches, over a source that answers when the test says so. */
import { execFileSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type BatchSource, FileBatch } from '../../src/windows/batch.js';
import type { FileWindow, Window } from '../../src/windows/window.js';
import { note } from '../fixtures/places.js';

const child = fileURLToPath(new URL('./fixtures/batch-heap.mjs', import.meta.url));

const notBuilt = existsSync(new URL('../../dist/src/windows/batch.js', import.meta.url)) ? undefined : 'needs the built package: npm run build';

/** What of a window a batch and its callbacks touch. */
function fakeWindow(offset: number, length: number): FileWindow {
  const window = {
    offset,
    length,
    refs: 1,
    retain: () => {
      window.refs++;
      return window;
    },
    release: () => {
      window.refs--;
    },
  };
  return window as unknown as FileWindow;
}

class Source implements BatchSource {
  readonly path = '/a/file';
  /** Offsets that are in memory. */
  readonly known = new Set<number>();
  readonly windows: FileWindow[] = [];
  readonly asked: { offset: number; ready: (window: Window) => void; failed: (error: Error) => void; given: boolean }[] = [];
  readonly #handovers: (() => void)[] = [];

  tryWindow(offset: number, length: number): Window | undefined {
    return this.known.has(offset) ? this.#make(offset, length) : undefined;
  }

  later(offset: number, length: number, ready: (window: Window) => void, failed: (error: Error) => void): () => void {
    const entry = { offset, ready: () => ready(this.#make(offset, length)), failed, given: false };
    this.asked.push(entry);
    return () => {
      entry.given = true;
    };
  }

  handover(run: () => void): void {
    this.#handovers.push(run);
  }

  arrive(offset: number, error?: Error): void {
    const entry = this.asked.find((one) => one.offset === offset && !one.given)!;
    entry.given = true;
    if (error === undefined) entry.ready(undefined as never);
    else entry.failed(error);
  }

  /** The event loop's turn. */
  turn(): void {
    for (const run of this.#handovers.splice(0)) run();
  }

  #make(offset: number, length: number): FileWindow {
    const window = fakeWindow(offset, length);
    this.windows.push(window);
    return window;
  }
}

function setUp(
  options: { onWindow?: (window: Window, context: string) => void; onError?: (error: Error, context: string) => void; signal?: AbortSignal } = {},
) {
  const source = new Source();
  const log: string[] = [];
  const batch: FileBatch<string> = new FileBatch<string>(
    source,
    (window, context, delayed) => {
      log.push(`${context} ${delayed ? 'delayed' : 'immediate'}`);
      options.onWindow?.(window, context);
    },
    options.onError,
    options.signal,
  );
  return { source, log, batch };
}

const noneHeld = (source: Source): boolean => source.windows.every(({ refs }) => refs === 0);

describe('a batch', () => {
  it('hands over at once what is in memory, the rest in the order in which it arrives', async () => {
    const { source, log, batch } = setUp();
    source.known.add(0);
    batch.get(0, 1, 'a');
    batch.get(1, 1, 'b');
    batch.get(2, 1, 'c');
    expect([log, batch.pending]).toEqual([['a immediate'], 2]);
    source.arrive(2);
    source.arrive(1);
    expect(log.length).toBe(1);
    source.turn();
    expect(log).toEqual(['a immediate', 'c delayed', 'b delayed']);
    expect(await batch.end()).toEqual({ immediate: 1, delayed: 2, failed: 0 });
    expect([batch.pending, noneHeld(source)]).toEqual([0, true]);
  });

  it('releases each window when the callback returns or throws, unless it was retained', async () => {
    const kept: Window[] = [];
    const { source, batch } = setUp({
      onWindow: (window, context) => {
        if (context === 'keep') kept.push(window.retain());
        if (context === 'throw') throw new Error('mine');
      },
    });
    for (const offset of [0, 1]) source.known.add(offset);
    batch.get(0, 1, 'keep');
    expect(() => batch.get(1, 1, 'throw')).toThrow('mine');
    batch.get(2, 1, 'throw');
    source.arrive(2);
    source.turn();
    expect(source.windows.map(({ refs }) => refs)).toEqual([1, 0, 0]);
    expect(kept).toEqual([source.windows[0]]);
    await expect(batch.end()).rejects.toThrow('mine');
  });

  it('hands over what is asked for in a callback after that callback returned', () => {
    let depth = 0;
    let deepest = 0;
    const { source, log, batch } = setUp({
      onWindow: (_window, context) => {
        deepest = Math.max(deepest, ++depth);
        if (Number(context) < 1000) batch.get(Number(context) + 1, 1, `${Number(context) + 1}`);
        depth--;
      },
    });
    for (let offset = 0; offset <= 1000; offset++) source.known.add(offset);
    batch.get(0, 1, '0');
    expect([log.length, deepest, batch.pending, noneHeld(source)]).toEqual([1001, 1, 0, true]);
  });

  it('answers those who asked in a callback, although that callback threw', async () => {
    const { source, log, batch } = setUp({
      onWindow: (_window, context) => {
        if (context !== 'outer') return;
        batch.get(1, 1, 'inner');
        throw new Error('mine');
      },
    });
    for (const offset of [0, 1]) source.known.add(offset);
    expect(() => batch.get(0, 1, 'outer')).toThrow('mine');
    expect([log, batch.pending, noneHeld(source)]).toEqual([['outer immediate', 'inner immediate'], 0, true]);
    expect(await batch.end()).toEqual({ immediate: 2, delayed: 0, failed: 0 });
  });

  it('tells errors with their context, and ends well after them', async () => {
    const errors: string[] = [];
    const { source, batch } = setUp({ onError: (error, context) => errors.push(`${context} ${error.message}`) });
    batch.get(0, 1, 'a');
    batch.get(1, 1, 'b');
    const end = batch.end();
    source.arrive(0, new Error('bad'));
    source.arrive(1);
    expect(errors).toEqual([]);
    source.turn();
    expect(errors).toEqual(['a bad']);
    expect(await end).toEqual({ immediate: 0, delayed: 1, failed: 1 });
  });

  it('without somebody to tell them rejects with the first, when all is over', async () => {
    const { source, batch } = setUp();
    for (const offset of [0, 1, 2]) batch.get(offset, 1, `${offset}`);
    let settled = false;
    const end = batch.end().finally(() => {
      settled = true;
    });
    const rejected = expect(end).rejects.toThrow('first');
    source.arrive(1, new Error('first'));
    source.arrive(0, new Error('second'));
    source.turn();
    await Promise.resolve();
    expect(settled).toBe(false);
    source.arrive(2);
    source.turn();
    await rejected;
  });

  it('that is aborted fails what is pending, once each, and gives it up', async () => {
    const control = new AbortController();
    const errors: string[] = [];
    const { source, log, batch } = setUp({ signal: control.signal, onError: (error, context) => errors.push(`${context} ${error.name}`) });
    for (const offset of [0, 1, 2]) batch.get(offset, 1, `${offset}`);
    source.arrive(1);
    control.abort();
    expect(source.asked.every(({ given }) => given)).toBe(true);
    source.turn();
    expect([errors.sort(), log]).toEqual([['0 AbortError', '1 AbortError', '2 AbortError'], []]);
    source.known.add(9);
    batch.get(9, 1, '9');
    source.turn();
    expect(errors.at(-1)).toBe('9 AbortError');
    expect(await batch.end()).toEqual({ immediate: 0, delayed: 0, failed: 4 });
    expect(noneHeld(source)).toBe(true);
  });

  it('takes nothing more after its end, which is one promise', async () => {
    const { batch } = setUp();
    const end = batch.end();
    expect(batch.end()).toBe(end);
    expect(() => batch.get(0, 1, 'a')).toThrow(expect.objectContaining({ code: 'ERR_SECTORWISE_BATCH_ENDED' }));
    expect(await end).toEqual({ immediate: 0, delayed: 0, failed: 0 });
  });

  it('hands everything over once, what had to be waited for in the order in which it became ready, whatever is asked, thrown or nested', async () => {
    const step = fc.oneof(
      fc.record({ do: fc.constant('get' as const), known: fc.boolean(), nested: fc.array(fc.boolean(), { maxLength: 12 }), throws: fc.boolean() }),
      fc.record({ do: fc.constant('arrive' as const), which: fc.nat(), fails: fc.boolean() }),
      fc.record({ do: fc.constant('turn' as const) }),
    );
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 60 }), async (steps) => {
        const source = new Source();
        const nestedOf = new Map<number, boolean[]>();
        const throwing = new Set<number>();
        const ready: number[] = [];
        const told: number[] = [];
        const immediate: number[] = [];
        const expected: number[] = [];
        let asked = 0;
        let depth = 0;
        const ask = (known: boolean, nested: boolean[], throws: boolean): void => {
          const offset = asked++;
          if (known) {
            source.known.add(offset);
            expected.push(offset);
          }
          nestedOf.set(offset, nested);
          if (throws) throwing.add(offset);
          batch.get(offset, 1, offset);
        };
        const batch = new FileBatch<number>(
          source,
          (_window, offset, delayed) => {
            expect(++depth).toBe(1);
            (delayed ? told : immediate).push(offset);
            try {
              for (const known of nestedOf.get(offset) as boolean[]) ask(known, [], false);
              if (throwing.has(offset)) throw new Error(`${offset}`);
            } finally {
              depth--;
            }
          },
          (_error, offset) => told.push(offset),
          undefined,
        );
        const arrive = (which: number, fails: boolean): void => {
          const waiting = source.asked.filter(({ given }) => !given);
          if (waiting.length === 0) return;
          const { offset } = waiting[which % waiting.length];
          ready.push(offset);
          source.arrive(offset, fails ? new Error('bad') : undefined);
        };
        for (const each of steps) {
          if (each.do === 'get') {
            const throwsNow = each.known && each.throws;
            const offset = asked;
            if (throwsNow) expect(() => ask(each.known, each.nested, true)).toThrow(`${offset}`);
            else ask(each.known, each.nested, each.throws);
          } else if (each.do === 'arrive') {
            arrive(each.which, each.fails);
          } else {
            source.turn();
          }
        }
        while (source.asked.some(({ given }) => !given) || told.length < ready.length) {
          arrive(0, false);
          source.turn();
        }
        expect(told).toEqual(ready);
        expect(immediate).toEqual(expected);
        expect([told.length + immediate.length, batch.pending, noneHeld(source)]).toEqual([asked, 0, true]);
        const end = batch.end();
        // A throw that came out of `get` is the caller's; one of a delayed window is the batch's.
        if (told.some((offset) => throwing.has(offset) && source.windows.some((window) => window.offset === offset))) await expect(end).rejects.toThrow();
        else expect((await end).immediate).toBe(immediate.length);
      }),
    );
  });

  it(`allocates nothing for what is in memory, besides its window${note(notBuilt)}`, { skip: notBuilt !== undefined }, () => {
    // In a process of its own, in which nothing else allocates, and without optimising: what V8 can do without then, it can always do without.
    for (const flag of ['--opt', '--no-opt']) {
      const bytes = execFileSync(process.execPath, ['--expose-gc', '--min-semi-space-size=64', '--max-semi-space-size=64', flag, child], { encoding: 'utf8' });
      const [plain, nested] = JSON.parse(bytes) as number[];
      expect(plain, flag).toBeLessThan(1);
      expect(nested, flag).toBeLessThan(1);
    }
  });
});
