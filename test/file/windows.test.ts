/** What a window promises: its parts, its references, its memory; and the ways to get many of them. */
import { closeSync, openSync as openWithFs, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { inspect } from 'node:util';
import { afterAll, afterEach, beforeEach, describe, expect, it } from 'vitest';
import { type BlockFile, type Caching, type OpenOptions, open, openSync, type Window } from '../../src/index.js';
import { Random } from '../../src/testing/random.js';
import { Places } from '../fixtures/places.js';

const BYTES = 2 * 2 ** 20 + 777;
const MEBIBYTE = 2 ** 20;

const lab = new Places();
const path = join(lab.folder(), 'file');
const model = Buffer.from(new Random(5).fill(new Uint8Array(BYTES)));
afterAll(() => lab.dispose());

const tick = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
const coded = (code: string): unknown => expect.objectContaining({ code: `ERR_SECTORWISE_${code}` });

describe.each<Caching>(['page-cache', 'direct'])('%s', (caching) => {
  const opened: BlockFile[] = [];
  beforeEach(() => writeFileSync(path, model));
  afterEach(async () => {
    for (const file of opened.splice(0)) await file.close();
  });

  async function opening(options: OpenOptions = {}): Promise<BlockFile> {
    const file = await open(path, { caching, ...options });
    opened.push(file);
    return file;
  }

  /** Nothing of the file is in memory, as far as the kernel lets us. */
  async function cold(options: OpenOptions = {}): Promise<BlockFile> {
    const file = await opening({ access: 'read-write', ...options });
    await file.flush();
    await file.evict(0, BYTES);
    return file;
  }

  describe('a window', () => {
    it.each([
      // offset, length, head, blocks, tail
      [0, 4096, 0, 4096, 0],
      [0, 4095, 4095, 0, 0],
      [1, 4095, 4095, 0, 0],
      [1, 8191, 4095, 4096, 0],
      [1, 8190, 8190, 0, 0],
      [4095, 4098, 1, 4096, 1],
      [4096, 12288, 0, 12288, 0],
      [512, 8192, 3584, 4096, 512],
      [0, 0, 0, 0, 0],
      [100, 20_000, 3996, 12288, 3716],
    ])('of [%i, +%i) is split into %i, %i and %i bytes', async (offset, length, head, blocks, tail) => {
      using window = await (await opening()).window(offset, length);
      expect([window.head.length, window.blocks.length, window.tail.length]).toEqual([head, blocks, tail]);
      expect(Buffer.concat([window.head, window.blocks, window.tail]).equals(model.subarray(offset, offset + length))).toBe(true);
      expect(window.bytes.byteOffset % 4096).toBe(offset % 4096);
    });

    it('lives as long as it has references', async () => {
      const file = await opening();
      const window = await file.window(100, 100);
      expect(window.refs).toBe(1);
      expect(window.retain()).toBe(window);
      expect(window.refs).toBe(2);
      window.release();
      expect(window.valid).toBe(true);
      window.release();
      expect(window.refs).toBe(0);
      expect(window.valid).toBe(false);
      for (const use of [
        () => window.bytes,
        () => window.areas,
        () => window.head,
        () => window.blocks,
        () => window.tail,
        () => window.check(),
        () => window.retain(),
        () => window.markDirty(),
      ]) {
        expect(use).toThrow(coded('RELEASED'));
      }
      window.release();
      expect(window.refs).toBe(0);
      expect(window.offset).toBe(100);
    });

    it('is released at the end of a using block', async () => {
      const file = await opening();
      let seen: Window;
      {
        using window = await file.window(0, 10);
        seen = window;
      }
      expect(seen.refs).toBe(0);
    });

    it('is named when it is inspected', async () => {
      const window = await (await opening()).window(4096, 10);
      expect(inspect(window)).toBe('Window { offset: 4096, length: 10, refs 1 }');
      window.release();
      expect(inspect(window)).toBe('Window { offset: 4096, length: 10, released }');
    });

    it('shows later writes: it is no snapshot', async () => {
      const file = await opening({ access: 'read-write' });
      using window = await file.window(5000, 100);
      const { bytes } = window;
      await file.write(Buffer.alloc(100, 1), 5050);
      expect([...bytes.subarray(48, 52)]).toEqual([...model.subarray(5048, 5050), 1, 1]);
      file.writeSync(Buffer.alloc(100, 2), 5050);
      expect(bytes[50]).toBe(2);
    });

    it('for reading refuses marks, and a file opened for reading gives none for writing', async () => {
      const file = await opening();
      using window = await file.window(0, 10);
      expect(() => window.markDirty()).toThrow(expect.objectContaining({ code: 'ERR_SECTORWISE_NOT_WRITABLE', path, offset: 0, length: 10 }));
      expect(() => file.tryWindow(0, 10, { writable: true })).toThrow(coded('READ_ONLY'));
      await expect(file.window(0, 10, { writable: true })).rejects.toThrow(coded('READ_ONLY'));
    });

    it('checks where it is marked', async () => {
      const file = await opening({ access: 'read-write' });
      using window = await file.window(0, 100, { writable: true });
      for (const [start, end] of [
        [-1, 5],
        [0, 101],
        [50, 49],
        [0.5, 1],
        [0, Number.NaN],
      ]) {
        expect(() => window.markDirty(start, end)).toThrow(expect.objectContaining({ code: 'ERR_OUT_OF_RANGE' }));
      }
      expect(() => window.markDirty('1' as never)).toThrow(expect.objectContaining({ code: 'ERR_INVALID_ARG_TYPE' }));
      window.markDirty(5, 5);
    });

    it('of a range at its largest is taken, one byte more is not', async () => {
      const file = await opening();
      (await file.window(BYTES - 100, 64 * MEBIBYTE)).release();
      expect(() => file.tryWindow(0, 64 * MEBIBYTE + 1)).toThrow(
        expect.objectContaining({ code: 'ERR_OUT_OF_RANGE', message: expect.stringContaining('windows()') }),
      );
      await expect(file.window(0, 64 * MEBIBYTE + 1)).rejects.toMatchObject({ code: 'ERR_OUT_OF_RANGE' });
    });

    it('keeps stray stores from later windows, from reads and from the file', async () => {
      const file = await opening({ access: 'read-write', cacheSize: 64 * 1024 });
      for (let offset = 0; offset < BYTES - 4096; offset += 20_000) {
        using window = await file.window(offset, 8192);
        window.bytes.fill(0xee);
        for (const area of window.areas) area.fill(0xee);
        const target = Buffer.alloc(8192);
        expect(await file.read(target, offset)).toBe(8192);
        expect(target.equals(model.subarray(offset, offset + 8192))).toBe(true);
        file.readSync(target, offset);
        expect(target.equals(model.subarray(offset, offset + 8192))).toBe(true);
        const count = file.tryRead(target, offset);
        if (count !== undefined) expect(target.equals(model.subarray(offset, offset + 8192))).toBe(true);
      }
      await file.flush();
      const other = await opening();
      const all = Buffer.alloc(BYTES);
      await other.read(all, 0);
      expect(all.equals(model)).toBe(true);
      // Every frame was stored into; each that is used anew shows the file.
      await file.evict(0, BYTES);
      for (let offset = 4096; offset < BYTES; offset += 50_000) {
        using window = await file.window(offset, 4096);
        if (caching === 'direct') expect(Buffer.compare(window.bytes, model.subarray(offset, offset + 4096))).toBe(0);
      }
    });

    it('keeps a stray store out of what a neighbouring write sends to the file', async () => {
      const file = await opening({ access: 'read-write' });
      using window = await file.window(0, 8192);
      window.bytes.fill(0xee);
      await file.write(Buffer.from([1, 2, 3]), 100);
      await file.flush();
      const fd = openWithFs(path, 'r');
      closeSync(fd);
      const expected = Buffer.from(model.subarray(0, 8192));
      expected.set([1, 2, 3], 100);
      const target = Buffer.alloc(8192);
      const other = await opening();
      await other.read(target, 0);
      expect(target.equals(expected)).toBe(true);
    });

    it('for writing reaches the file by flush once marked, also after its release', async () => {
      const file = await opening({ access: 'read-write' });
      const window = await file.window(4000, 5000, { writable: true });
      window.bytes.fill(7);
      window.markDirty();
      window.release();
      await file.flush();
      const target = Buffer.alloc(5000);
      await (await opening()).read(target, 4000);
      expect(target.every((byte) => byte === 7)).toBe(true);
    });

    it('for writing shows in windows for reading, and they in it', async () => {
      const file = await opening({ access: 'read-write' });
      using writing = await file.window(0, 4096, { writable: true });
      writing.bytes[9] = 99;
      writing.markDirty(9, 10);
      using reading = await file.window(0, 4096);
      expect(reading.bytes[9]).toBe(99);
      await file.write(Buffer.from([98]), 10);
      expect(writing.bytes[10]).toBe(98);
    });
  });

  describe('windows()', () => {
    it('goes from start to end in steps, the last of them short', async () => {
      const file = await opening();
      const seen: number[][] = [];
      for await (const window of file.windows({ start: 1000, end: 10_000, step: 4000 })) {
        seen.push([window.offset, window.length]);
        expect(Buffer.compare(window.bytes, model.subarray(window.offset, window.offset + window.length))).toBe(0);
      }
      expect(seen).toEqual([
        [1000, 4000],
        [5000, 4000],
        [9000, 1000],
      ]);
    });

    it('steps by a mebibyte to the end of the file by default', async () => {
      const lengths: number[] = [];
      for await (const window of (await opening()).windows()) lengths.push(window.length);
      expect(lengths).toEqual([MEBIBYTE, MEBIBYTE, 777]);
    });

    it('releases each window once: when the next is asked for, at a break, at a throw', async () => {
      const file = await opening();
      const seen: Window[] = [];
      for await (const window of file.windows({ step: 65536 })) {
        if (seen.length > 0) expect(seen[seen.length - 1].refs).toBe(0);
        expect(window.refs).toBe(1);
        seen.push(window);
        if (seen.length === 3) break;
      }
      expect(seen[2].refs).toBe(0);
      await expect(
        (async () => {
          for await (const window of file.windows({ step: 65536 })) {
            seen.push(window);
            throw new Error('mine');
          }
        })(),
      ).rejects.toThrow('mine');
      expect(seen[3].refs).toBe(0);
      // Nothing is pinned: once what was on its way has come, all of it can go.
      while (caching === 'direct' && file.residency().cached > 0) {
        await tick();
        await file.evict(0, BYTES);
      }
    });

    it('leaves a retained window alone', async () => {
      const file = await opening();
      let kept: Window | undefined;
      for await (const window of file.windows({ step: 4096 })) {
        if (window.offset === 8192) kept = window.retain();
        if (window.offset > 8192) break;
      }
      expect(kept?.refs).toBe(1);
      expect(Buffer.compare(kept!.bytes, model.subarray(8192, 12288))).toBe(0);
      kept?.release();
    });

    it('ends with an AbortError when its signal fires', async () => {
      const file = await opening();
      const control = new AbortController();
      const reason = new Error('enough');
      let count = 0;
      await expect(
        (async () => {
          for await (const _ of file.windows({ step: 4096, signal: control.signal })) {
            if (++count === 3) control.abort(reason);
          }
        })(),
      ).rejects.toMatchObject({ name: 'AbortError', code: 'ABORT_ERR', cause: reason });
    });

    it('goes on to what the file grows by while it is at it', async () => {
      const file = await opening({ access: 'read-write', readAhead: false });
      let bytes = 0;
      for await (const window of file.windows({ step: MEBIBYTE })) {
        if (window.offset === 0) await file.write(Buffer.alloc(2 * MEBIBYTE, 3), BYTES);
        bytes += window.length;
      }
      expect(bytes).toBe(BYTES + 2 * MEBIBYTE);
    });

    it('leaves nothing out when the file grows behind a short window that was asked for ahead', async () => {
      const file = await opening({ access: 'read-write' });
      let at = 0;
      for await (const window of file.windows({ step: 100_000 })) {
        expect(window.offset).toBe(at);
        at += window.length;
        if (at === 100_000) await file.write(Buffer.alloc(500_000, 3), BYTES);
      }
      expect(at).toBe(BYTES + 500_000);
    });

    it('answers to overlapping calls of next one after the other', async () => {
      const file = await opening();
      const iterator = file.windows({ step: 65536 });
      const [first, second] = await Promise.all([iterator.next(), iterator.next()]);
      expect(first.value.offset).toBe(0);
      expect(first.value.refs).toBe(0);
      expect(second.value.offset).toBe(65536);
      expect(second.value.refs).toBe(1);
      await iterator[Symbol.asyncDispose]();
      expect(second.value.refs).toBe(0);
      expect((await iterator.next()).done).toBe(true);
    });

    it('of an empty range or file is over at once', async () => {
      const file = await opening();
      expect((await file.windows({ start: BYTES }).next()).done).toBe(true);
      expect((await file.windows({ start: 5, end: 5 }).next()).done).toBe(true);
      writeFileSync(path, '');
      expect((await (await opening()).windows().next()).done).toBe(true);
    });

    it('rejects from next what a window rejects with', async () => {
      const file = await opening();
      const iterator = file.windows({ step: 4096 });
      await iterator.next();
      await file.close();
      await iterator.return?.();
      const other = await opening();
      const late = other.windows();
      await other.close();
      await expect(late.next()).rejects.toThrow(coded('CLOSED'));
      expect(() => other.windows()).toThrow(coded('CLOSED'));
    });
  });

  describe('a batch', () => {
    it('hands over during get what is in memory, and later what is not', async () => {
      const file = await cold();
      (await file.window(0, 4096)).release();
      const seen: Array<[string, number, boolean]> = [];
      const batch = file.batch<string>((window, context, delayed) => {
        expect(window.refs).toBe(1);
        expect(Buffer.compare(window.bytes, model.subarray(window.offset, window.offset + window.length))).toBe(0);
        seen.push([context, window.offset, delayed]);
      });
      batch.get(0, 100, 'now');
      expect(seen).toEqual([['now', 0, false]]);
      expect(batch.pending).toBe(0);
      batch.get(MEBIBYTE, 100, 'later');
      batch.get(MEBIBYTE + 8192, 100, 'later');
      const { length } = seen;
      const counts = await batch.end();
      expect(seen.length).toBe(3);
      expect(counts.immediate + counts.delayed).toBe(3);
      expect(counts.failed).toBe(0);
      if (caching === 'direct') {
        expect(length).toBe(1);
        expect(counts).toEqual({ immediate: 1, delayed: 2, failed: 0 });
        expect(seen[1][2]).toBe(true);
      }
    });

    it('releases windows when the callback returns or throws, unless they are retained', async () => {
      const file = await opening();
      await file.prefetch(0, BYTES);
      const windows: Window[] = [];
      const batch = file.batch<number>((window, context) => {
        windows.push(context === 1 ? window.retain() : window);
        if (context === 2) throw new Error('mine');
      });
      batch.get(0, 10, 0);
      batch.get(0, 10, 1);
      expect(() => batch.get(0, 10, 2)).toThrow('mine');
      expect(windows.map(({ refs }) => refs)).toEqual([0, 1, 0]);
      windows[1].release();
      expect(await batch.end()).toEqual({ immediate: 3, delayed: 0, failed: 0 });
    });

    it('never runs one callback inside another', async () => {
      const file = await opening();
      await file.prefetch(0, 100_000);
      let depth = 0;
      const order: number[] = [];
      const batch = file.batch<number>((_window, context) => {
        expect(++depth).toBe(1);
        order.push(context);
        if (context < 3) {
          batch.get(context * 4096, 10, context * 2 + 10);
          batch.get(context * 4096, 10, context + 1);
        }
        depth--;
      });
      batch.get(0, 10, 0);
      expect(order).toEqual([0, 10, 1, 12, 2, 14, 3]);
      expect((await batch.end()).immediate).toBe(7);
    });

    it('answers who asked in a callback that then threw', async () => {
      const file = await opening();
      await file.prefetch(0, 100_000);
      const order: number[] = [];
      const batch = file.batch<number>((_window, context) => {
        order.push(context);
        if (context !== 0) return;
        batch.get(0, 10, 1);
        batch.get(0, 10, 2);
        throw new Error('mine');
      });
      expect(() => batch.get(0, 10, 0)).toThrow('mine');
      expect(order).toEqual([0, 1, 2]);
      expect(batch.pending).toBe(0);
      expect(await batch.end()).toEqual({ immediate: 3, delayed: 0, failed: 0 });
    });

    it('rejects its end with what a later callback threw', async () => {
      const file = await cold();
      const batch = file.batch<number>((_window, context) => {
        throw new Error(`mine ${context}`);
      });
      try {
        batch.get(MEBIBYTE, 100, 1);
      } catch {
        // In memory after all: the throw came out of `get`.
        return;
      }
      await expect(batch.end()).rejects.toThrow('mine 1');
    });

    it('is over once ended, and answers twice the same', async () => {
      const file = await opening();
      const batch = file.batch(() => {});
      const end = batch.end();
      expect(batch.end()).toBe(end);
      await end;
      expect(() => batch.get(0, 10, undefined)).toThrow(coded('BATCH_ENDED'));
    });

    it('fails what is pending when its signal fires', async () => {
      const file = await cold();
      const control = new AbortController();
      const reason = { why: 'enough' };
      const failed: unknown[] = [];
      let given = 0;
      const batch = file.batch<number>(
        () => given++,
        (error, context) => failed.push([error.name, (error as NodeJS.ErrnoException).code, error.cause, context]),
        { signal: control.signal },
      );
      for (let i = 0; i < 10; i++) batch.get(i * 100_000, 4096, i);
      const atOnce = given;
      control.abort(reason);
      expect(failed).toEqual([]);
      batch.get(5, 5, 99);
      const counts = await batch.end();
      expect(given).toBe(atOnce);
      expect(counts).toEqual({ immediate: atOnce, delayed: 0, failed: 11 - atOnce });
      expect(failed.length).toBe(11 - atOnce);
      expect(failed[0]).toEqual(['AbortError', 'ABORT_ERR', reason, expect.any(Number)]);
    });

    it('without onError rejects its end with the first error', async () => {
      const file = await cold();
      const control = new AbortController();
      const batch = file.batch(() => {}, undefined, { signal: control.signal });
      control.abort();
      batch.get(0, 100, undefined);
      batch.get(0, 100, undefined);
      await expect(batch.end()).rejects.toMatchObject({ name: 'AbortError' });
    });

    it('of which the file is closed meanwhile still ends', async () => {
      for (const blocking of [false, true]) {
        const file = await cold();
        const batch = file.batch<number>(
          () => {},
          () => {},
        );
        for (let i = 0; i < 20; i++) batch.get(i * 100_000, 4096, i);
        if (blocking) file.closeSync();
        else await file.close();
        const { immediate, delayed, failed } = await batch.end();
        expect(immediate + delayed + failed).toBe(20);
        expect(batch.pending).toBe(0);
      }
    });

    it('may close the file in its callback', async () => {
      const file = await cold();
      const batch = file.batch<number>(
        () => file.closeSync(),
        () => {},
      );
      try {
        batch.get(MEBIBYTE, 4096, 1);
        batch.get(0, 4096, 2);
        batch.get(65536, 4096, 2);
      } catch (error) {
        expect(error).toMatchObject({ code: 'ERR_SECTORWISE_CLOSED' });
      }
      const { immediate, delayed, failed } = await batch.end();
      expect(immediate + delayed + failed).toBeGreaterThan(0);
      await tick();
    });

    it('checks its arguments in get', async () => {
      const file = await opening();
      const batch = file.batch(() => {});
      expect(() => batch.get(-1, 10, undefined)).toThrow(expect.objectContaining({ code: 'ERR_OUT_OF_RANGE' }));
      expect(() => batch.get(0, 2 ** 26 + 1, undefined)).toThrow(expect.objectContaining({ code: 'ERR_OUT_OF_RANGE' }));
      expect(batch.pending).toBe(0);
      await batch.end();
    });

    it('takes ten thousand requests at once', async () => {
      const file = await cold({ cacheSize: 256 * 1024 });
      const random = new Random(29);
      let wrong = 0;
      const batch = file.batch<number>((window, context) => {
        if (window.bytes[0] !== model[context] || window.offset !== context) wrong++;
      });
      for (let i = 0; i < 10_000; i++) {
        const offset = random.below(BYTES);
        batch.get(offset, 1 + random.below(5000), offset);
      }
      const { immediate, delayed } = await batch.end();
      expect(immediate + delayed).toBe(10_000);
      expect(wrong).toBe(0);
    });
  });

  it('opens blocking just as well', () => {
    const file = openSync(path, { caching });
    using window = file.tryWindow(BYTES, 1);
    expect(window?.length).toBe(0);
    const target = Buffer.alloc(BYTES);
    expect(file.readSync(target, 0)).toBe(BYTES);
    expect(target.equals(model)).toBe(true);
    file.closeSync();
  });

  it('calls nobody within a call', async () => {
    const file = await cold();
    let called = 0;
    file.window(0, 10).then((window) => {
      called++;
      window.release();
    });
    file.read(new Uint8Array(10), 100_000).then(() => called++);
    file.write(new Uint8Array(10), 0).then(() => called++);
    file.readSync(new Uint8Array(10), 200_000);
    file.writeSync(new Uint8Array(10), 20);
    expect(called).toBe(0);
    await file.flush();
    await tick();
    expect(called).toBe(3);
  });

  it('follows a change made by a second descriptor in page-cache mode', async () => {
    if (caching === 'direct') return;
    const file = await opening();
    using window = await file.window(0, 10);
    const fd = openWithFs(path, 'r+');
    writeSync(fd, Buffer.from([42]), 0, 1, 3);
    closeSync(fd);
    expect(window.bytes[3]).toBe(42);
  });
});
