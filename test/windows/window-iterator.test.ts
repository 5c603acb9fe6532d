/** Consecutive windows, over a file of a given size that answers when the test says so. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { FileWindow } from '../../src/windows/window.js';
import { WindowIterator } from '../../src/windows/window-iterator.js';

/** What of a window the loop looks at. */
type FakeWindow = Pick<FileWindow, 'offset' | 'length' | 'refs' | 'release'>;

class FakeFile {
  readonly windows: FileWindow[] = [];
  readonly asked: [number, number][] = [];
  readonly #size: number;
  /** Offsets that cannot be read. */
  readonly bad = new Set<number>();

  constructor(size: number) {
    this.#size = size;
  }

  readonly ask = async (offset: number, length: number): Promise<FileWindow> => {
    this.asked.push([offset, length]);
    if (this.bad.has(offset)) throw new Error(`bad at ${offset}`);
    const fake: FakeWindow = {
      offset,
      length: Math.max(0, Math.min(length, this.#size - offset)),
      refs: 1,
      release: () => {
        fake.refs--;
      },
    };
    const window = fake as FileWindow;
    this.windows.push(window);
    return window;
  };

  get held(): number {
    return this.windows.reduce((sum, { refs }) => sum + refs, 0);
  }
}

const settled = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

describe('consecutive windows', () => {
  it('cover the range without gap or overlap, holding one at a time and at most `ahead` beside it', async () => {
    const numbers = fc.record({
      size: fc.nat({ max: 100 }),
      start: fc.nat({ max: 120 }),
      length: fc.option(fc.nat({ max: 120 })),
      step: fc.integer({ min: 1, max: 30 }),
      ahead: fc.nat({ max: 4 }),
    });
    await fc.assert(
      fc.asyncProperty(numbers, async ({ size, start, length, step, ahead }) => {
        const file = new FakeFile(size);
        const end = length === null ? undefined : start + length;
        let at = start;
        for await (const window of new WindowIterator(file.ask, { start, end, step, ahead, signal: undefined })) {
          expect([window.offset, window.refs]).toEqual([at, 1]);
          expect(window.length).toBeLessThanOrEqual(step);
          at += window.length;
          await settled();
          expect(file.held).toBeLessThanOrEqual(1 + ahead);
        }
        await settled();
        expect(at).toBe(Math.max(start, Math.min(size, end ?? Number.POSITIVE_INFINITY)));
        expect(file.held).toBe(0);
        if (end !== undefined) for (const [offset, bytes] of file.asked) expect(offset + bytes).toBeLessThanOrEqual(end);
      }),
      { numRuns: 200 },
    );
  });

  it('asks for nothing before the first is wanted', () => {
    const file = new FakeFile(100);
    new WindowIterator(file.ask, { start: 0, end: 100, signal: undefined, step: 10, ahead: 2 });
    expect(file.asked).toEqual([]);
  });

  it('holds nothing after the loop was left', async () => {
    const file = new FakeFile(100);
    for await (const window of new WindowIterator(file.ask, { start: 0, end: 100, signal: undefined, step: 10, ahead: 3 })) {
      if (window.offset === 20) break;
    }
    await settled();
    expect([file.held, file.asked.length <= 6]).toEqual([0, true]);
  });

  it('throws the error in its turn, after the windows before it, and holds nothing then', async () => {
    const file = new FakeFile(100);
    file.bad.add(20);
    file.bad.add(30);
    const seen: number[] = [];
    const loop = async (): Promise<void> => {
      for await (const window of new WindowIterator(file.ask, { start: 0, end: 100, signal: undefined, step: 10, ahead: 3 })) seen.push(window.offset);
    };
    await expect(loop()).rejects.toThrow('bad at 20');
    await settled();
    expect([seen, file.held]).toEqual([[0, 10], 0]);
  });

  it('says nothing of errors that the loop never came to', async () => {
    const file = new FakeFile(100);
    file.bad.add(10);
    const iterator = new WindowIterator(file.ask, { start: 0, end: 100, signal: undefined, step: 10, ahead: 3 });
    await iterator.next();
    await iterator.return();
    await settled();
    expect(file.held).toBe(0);
    expect(await iterator.next()).toEqual({ done: true, value: undefined });
  });

  it('answers calls that overlap in their order', async () => {
    const file = new FakeFile(25);
    const iterator = new WindowIterator(file.ask, { start: 0, end: undefined, step: 10, ahead: 1, signal: undefined });
    const results = await Promise.all([iterator.next(), iterator.next(), iterator.next(), iterator.next()]);
    expect(results.map(({ done, value }) => (done ? 'end' : value.offset))).toEqual([0, 10, 20, 'end']);
    await settled();
    expect(file.held).toBe(0);
  });

  it('gives up its window with `await using`', async () => {
    const file = new FakeFile(100);
    const iterator = new WindowIterator(file.ask, { start: 0, end: 100, signal: undefined, step: 10, ahead: 2 });
    await iterator.next();
    expect(file.held).toBeGreaterThan(0);
    await iterator[Symbol.asyncDispose]();
    await settled();
    expect(file.held).toBe(0);
  });

  it('throws AbortError once its signal fires, and holds nothing then', async () => {
    const file = new FakeFile(100);
    const control = new AbortController();
    const iterator = new WindowIterator(file.ask, { start: 0, end: 100, step: 10, ahead: 2, signal: control.signal });
    await iterator.next();
    control.abort();
    await expect(iterator.next()).rejects.toThrow(expect.objectContaining({ name: 'AbortError' }));
    await settled();
    expect(file.held).toBe(0);
  });
});
