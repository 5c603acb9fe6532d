/** The end of a file, and of what was asked of it: closing with work on its way, use after it, aborts. */
import { existsSync, readdirSync, readFileSync, readlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, afterEach, beforeEach, describe, expect, it } from 'vitest';
import { type BlockFile, type Caching, type OpenOptions, open } from '../../src/index.js';
import { Random } from '../../src/testing/random.js';
import { Places } from '../fixtures/places.js';
import { until } from '../unplug/until.js';

const BYTES = 4 * 2 ** 20 + 1;

const lab = new Places();
const path = join(lab.folder(), 'file');
const model = Buffer.from(new Random(5).fill(new Uint8Array(BYTES)));
afterAll(() => lab.dispose());

const tick = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
const closed = expect.objectContaining({ name: 'SectorwiseError', code: 'ERR_SECTORWISE_CLOSED', path });

/** Descriptors of this process that are of the file. */
function descriptors(): number {
  return readdirSync('/proc/self/fd').filter((fd) => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`) === path;
    } catch {
      return false;
    }
  }).length;
}

describe.each<Caching>(['page-cache', 'direct'])('%s', (caching) => {
  const opened: BlockFile[] = [];
  beforeEach(() => writeFileSync(path, model));
  // So that a test that fails does not make those after it fail too.
  afterEach(async () => {
    for (const file of opened.splice(0)) await file.close();
  });

  async function opening(options: OpenOptions = {}): Promise<BlockFile> {
    const file = await open(path, { caching, access: 'read-write', cacheSize: 512 * 1024, ...options });
    opened.push(file);
    return file;
  }

  async function cold(): Promise<BlockFile> {
    const file = await opening();
    await file.flush();
    await file.evict(0, BYTES);
    return file;
  }

  describe('close', () => {
    it('is the same promise each time, and closeSync after it does no harm', async () => {
      const file = await opening();
      const first = file.close();
      expect(file.close()).toBe(first);
      await first;
      file.closeSync();
      file.closeSync();
      expect(file.close()).toBe(first);
      await file[Symbol.asyncDispose]();
      expect(descriptors()).toBe(0);
    });

    it('after closeSync resolves', async () => {
      const file = await opening();
      file.closeSync();
      expect(descriptors()).toBe(0);
      await file.close();
    });

    it('settles everything that was asked before', async () => {
      for (const blocking of [false, true]) {
        const file = await cold();
        const asked: Promise<unknown>[] = [];
        for (let i = 0; i < 50; i++) {
          asked.push(file.window(i * 80_000, 10_000).then((window) => window.release()));
          asked.push(file.read(Buffer.alloc(9000), i * 70_000));
          if (i % 5 === 0) asked.push(file.write(Buffer.alloc(3000, i), i * 60_000 + 5));
        }
        asked.push(file.flush(), file.prefetch(0, BYTES), file.evict(0, BYTES), file.extents());
        asked.push(file.window(3_000_000, 10, { writable: true }).then((window) => window.release()));
        if (blocking) file.closeSync();
        else await file.close();
        for (const outcome of await Promise.allSettled(asked)) {
          if (outcome.status === 'fulfilled') continue;
          // Windows that came during the blocking call cannot be released before it ends: who needs their frames is refused.
          if (blocking && outcome.reason.code === 'ERR_SECTORWISE_CACHE_FULL') continue;
          expect(outcome.reason).toEqual(closed);
        }
        expect(descriptors()).toBe(0);
        const written = readFileSync(path);
        for (let i = 0; i < 50; i += 5) expect(written[i * 60_000 + 5]).toBe(i);
      }
    });

    it('goes on blocking where it was begun without', async () => {
      const file = await cold();
      const write = file.write(Buffer.alloc(2_000_000, 1), 100);
      const reads = Array.from({ length: 20 }, (_, i) => file.read(Buffer.alloc(9000), 2_500_000 + i * 70_000).catch((error) => expect(error).toEqual(closed)));
      const closing = file.close();
      file.closeSync();
      expect(descriptors()).toBe(0);
      await closing;
      await write;
      await Promise.all(reads);
      expect(readFileSync(path)[2_000_099]).toBe(1);
    });

    it('takes the ground from windows, whose views then read zeros', async () => {
      const file = await opening();
      const seen: unknown[] = [];
      file.on('invalidate', (reason) => seen.push(reason));
      const window = await file.window(100, 10_000);
      const { bytes } = window;
      const writable = await file.window(20_000, 10, { writable: true });
      await file.close();
      expect(window.valid).toBe(false);
      expect(() => window.bytes).toThrow(closed);
      expect(() => window.check()).toThrow(closed);
      expect(() => writable.markDirty()).toThrow(closed);
      expect(bytes.every((byte) => byte === 0)).toBe(true);
      bytes.fill(1);
      await tick();
      expect(seen).toEqual([{ cause: 'close', offset: 0, length: BYTES }]);
      window.release();
      window.release();
      writable.release();
      expect(window.refs).toBe(0);
      expect(() => window.bytes).toThrow(expect.objectContaining({ code: 'ERR_SECTORWISE_RELEASED' }));
      expect(readFileSync(path).equals(model)).toBe(true);
    });

    it('is left by await using', async () => {
      let seen: BlockFile;
      {
        await using file = await opening();
        seen = file;
        await file.write(Buffer.from('x'), 0);
      }
      expect(readFileSync(path)[0]).toBe('x'.charCodeAt(0));
      expect(() => seen.tryWindow(0, 1)).toThrow(closed);
    });

    it('makes every later use an error that says so', async () => {
      const file = await opening();
      await file.close();
      const bytes = new Uint8Array(10);
      for (const call of [
        () => file.window(0, 1),
        () => file.read(bytes, 0),
        () => file.write(bytes, 0),
        () => file.flush(),
        () => file.resize(1),
        () => file.allocate(0, 1),
        () => file.discard(0, 1),
        () => file.prefetch(0, 1),
        () => file.evict(0, 1),
        () => file.extents(),
      ]) {
        await expect(call(), String(call)).rejects.toEqual(closed);
      }
      for (const call of [
        () => file.tryWindow(0, 1),
        () => file.tryRead(bytes, 0),
        () => file.readSync(bytes, 0),
        () => file.writeSync(bytes, 0),
        () => file.flushSync(),
        () => file.resizeSync(1),
        () => file.residency(),
        () => file.windows(),
        () => file.batch(() => {}),
        () => file.acknowledgeLoss(),
      ]) {
        expect(call, String(call)).toThrow(closed);
      }
      // What is known stays known.
      expect(file.path).toBe(path);
      expect(file.size).toBe(BYTES);
      expect(file.geometry.kind).toBe('file');
      expect(file.stats.deviceReads).toBeGreaterThanOrEqual(0);
      expect(file.explain().engine).toMatch(/^(io_uring|threads)$/);
    });

    it('leaves nothing behind after many openings', async () => {
      for (let i = 0; i < 120; i++) {
        const file = await opening({ cacheSize: 64 * 1024 });
        const window = await file.window(i, 100);
        expect(window.bytes[0]).toBe(model[i]);
        if (i % 2 === 0) window.release();
        if (i % 3 === 0) file.closeSync();
        else await file.close();
      }
      expect(descriptors()).toBe(0);
    });
  });

  describe('abort', () => {
    const reason = new Error('enough');
    const aborted = expect.objectContaining({ name: 'AbortError', code: 'ABORT_ERR', cause: reason });

    it('of an opening rejects, and leaves no descriptor', async () => {
      await expect(opening({ signal: AbortSignal.abort(reason) })).rejects.toEqual(aborted);
      const control = new AbortController();
      const opened = opening({ signal: control.signal });
      control.abort(reason);
      await expect(opened).rejects.toEqual(aborted);
      // Opened or not, in its own time.
      await until(() => descriptors() === 0);
    });

    it('of a creation leaves no file', async () => {
      const control = new AbortController();
      const missing = join(lab.folder(), 'missing');
      const opened = open(missing, { caching, access: 'read-write', create: true, size: 50_000_000, signal: control.signal });
      setImmediate(() => control.abort(reason));
      await expect(opened).rejects.toEqual(aborted);
      await until(() => !existsSync(missing));
    });

    it('after the opening has no effect', async () => {
      const control = new AbortController();
      const file = await opening({ signal: control.signal });
      control.abort();
      expect(file.readSync(new Uint8Array(1), 0)).toBe(1);
      await file.close();
    });

    it('of windows and reads rejects at once, and the target is not touched after', async () => {
      const file = await cold();
      const control = new AbortController();
      const targets = Array.from({ length: 40 }, () => new Uint8Array(300_000));
      const refused: Uint8Array[] = [];
      const outcomes: string[] = [];
      const asked: Promise<unknown>[] = [];
      for (const [i, target] of targets.entries()) {
        // The first are on their way when the signal fires, the others wait.
        if (i === 20) await tick();
        asked.push(
          file.read(target, i * 90_000, { signal: control.signal }).then(
            () => outcomes.push('read'),
            (error) => {
              expect(error).toEqual(aborted);
              outcomes.push('aborted');
              target.fill(0xaa);
              refused.push(target);
            },
          ),
        );
        asked.push(
          file.window(i * 100_000, 200_000, { signal: control.signal }).then(
            (window) => window.release(),
            (error) => expect(error).toEqual(aborted),
          ),
        );
      }
      control.abort(reason);
      await Promise.all(asked);
      expect(outcomes.length).toBe(40);
      // Page-cache mode: what the kernel would not evict is answered at once.
      if (caching === 'direct') expect(outcomes).toContain('aborted');
      await file.read(new Uint8Array(BYTES), 0);
      await tick();
      for (const target of refused) expect(target.every((byte) => byte === 0xaa)).toBe(true);
      const later = await file.window(5, 5, { signal: new AbortController().signal });
      later.release();
      await expect(file.window(5, 5, { signal: control.signal })).rejects.toEqual(aborted);
      await expect(file.read(new Uint8Array(1), 5, { signal: control.signal })).rejects.toEqual(aborted);
      await file.close();
    });

    it('of a window that waits for a change to end gives it up', async () => {
      const file = await cold();
      const control = new AbortController();
      const resized = file.resize(1_000_000);
      const asked = file.window(500_000, 600_000, { signal: control.signal });
      const writable = file.window(500_000, 100_000, { writable: true, signal: control.signal });
      control.abort(reason);
      await expect(asked).rejects.toEqual(aborted);
      await expect(writable).rejects.toEqual(aborted);
      await resized;
      await file.close();
    });

    it('with one signal for hundreds of requests makes Node warn of nothing', async () => {
      const warnings: Error[] = [];
      const listener = (warning: Error): number => warnings.push(warning);
      process.on('warning', listener);
      const file = await cold();
      const { signal } = new AbortController();
      await Promise.all(Array.from({ length: 200 }, (_, i) => file.read(new Uint8Array(100), i * 9000, { signal })));
      await tick();
      process.off('warning', listener);
      expect(warnings).toEqual([]);
      await file.close();
    });
  });

  it('a target that is detached during a read makes it reject', async () => {
    const file = await cold();
    const target = new Uint8Array(2_000_000);
    const read = file.read(target, 100);
    structuredClone(target.buffer, { transfer: [target.buffer] });
    await expect(read).rejects.toMatchObject({ code: 'ERR_SECTORWISE_DETACHED' });
    await file.close();
  });

  it('a source that is detached before a write makes no difference, or is refused', async () => {
    const file = await opening();
    const source = new Uint8Array(100).fill(1);
    structuredClone(source.buffer, { transfer: [source.buffer] });
    expect(await file.write(source, 0)).toBe(0);
    await file.close();
  });
});
