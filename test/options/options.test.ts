/** Every argument that is wrong: refused before anything happens, with a message that names it, the value, and what would do. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { inspect } from 'node:util';
import { afterAll, afterEach, describe, expect, it } from 'vitest';
import { type BlockFile, type OpenOptions, open, openSync } from '../../src/index.js';
import { Places } from '../fixtures/places.js';

const lab = new Places();
const folder = lab.folder();
const path = join(folder, 'file');
writeFileSync(path, Buffer.alloc(10_000, 1));
afterAll(() => lab.dispose());

const OUT = 'ERR_OUT_OF_RANGE';
const TYPE = 'ERR_INVALID_ARG_TYPE';
const VALUE = 'ERR_INVALID_ARG_VALUE';

async function thrownBy(run: () => unknown): Promise<Error & { code: string }> {
  try {
    await run();
  } catch (error) {
    return error as Error & { code: string };
  }
  throw new Error('nothing was thrown');
}

describe('options of open', () => {
  it.each<[string, object | unknown, string, string[]]>([
    ['acces', { acces: 'read' }, VALUE, ['options.acces', "did you mean 'access'", "'read'"]],
    ['cachingg', { cachingg: 'direct' }, VALUE, ["did you mean 'caching'"]],
    ['cacheSzie', { cacheSzie: 1 }, VALUE, ["did you mean 'cacheSize'"]],
    ['readahead', { readahead: false }, VALUE, ["did you mean 'readAhead'"]],
    ['readAhead.maximum', { readAhead: { maximum: 1 } }, VALUE, ['options.readAhead.maximum', 'initial, max']],
    ['coalesce.mergelimit', { coalesce: { mergelimit: 1 } }, VALUE, ["did you mean 'mergeLimit'"]],
    ['nonsense', { nonsense: 1 }, VALUE, ['options.nonsense', 'known are access']],
    ['access', { access: 'write' }, VALUE, ['options.access', "'read', 'read-write'", "'write'"]],
    ['access', { access: 1 }, VALUE, ['options.access', '1']],
    ['caching', { caching: 'pagecache' }, VALUE, ['options.caching', "'page-cache', 'direct'", "'pagecache'"]],
    ['engine', { engine: 'libaio' }, VALUE, ['options.engine', "'auto', 'io_uring', 'threads'", "'libaio'"]],
    ['lock', { lock: true }, VALUE, ['options.lock', "'shared', 'exclusive'", 'true']],
    ['create', { create: 1, access: 'read-write' }, TYPE, ['options.create', 'boolean', 'number (1)']],
    ['create without access', { create: true }, VALUE, ['options.create', "'read-write'"]],
    ['size without create', { size: 4096 }, VALUE, ['options.size', 'options.create']],
    ['size', { create: true, access: 'read-write', size: -1 }, OUT, ['options.size', '>= 0', '-1']],
    ['size', { create: true, access: 'read-write', size: 1.5 }, OUT, ['options.size', 'integer', '1.5']],
    ['size', { create: true, access: 'read-write', size: '1' }, TYPE, ['options.size', 'number', "string ('1')"]],
    ['cacheSize', { cacheSize: 4096 }, OUT, ['options.cacheSize', '65536', '4_096']],
    ['cacheSize', { cacheSize: Number.NaN }, OUT, ['options.cacheSize', 'NaN']],
    ['cacheSize', { cacheSize: '64m' }, TYPE, ['options.cacheSize', "'64m'"]],
    ['cacheSize', { cacheSize: null }, TYPE, ['options.cacheSize', 'null']],
    ['queueDepth', { queueDepth: 0 }, OUT, ['options.queueDepth', '>= 1 && <= 4096', '0']],
    ['queueDepth', { queueDepth: 100_000 }, OUT, ['options.queueDepth', '100_000']],
    ['readAhead', { readAhead: true }, TYPE, ['options.readAhead', 'true']],
    ['readAhead', { readAhead: 4096 }, TYPE, ['options.readAhead', '4_096']],
    ['readAhead', { readAhead: null }, TYPE, ['options.readAhead', 'null']],
    ['readAhead.max', { readAhead: { max: -1 } }, OUT, ['options.readAhead.max', '-1']],
    ['readAhead.initial', { readAhead: { initial: 10, max: 5 } }, OUT, ['options.readAhead.initial', 'options.readAhead.max (5)', '10']],
    ['coalesce', { coalesce: 5 }, TYPE, ['options.coalesce', '5']],
    ['coalesce.mergeLimit', { coalesce: { mergeLimit: 1 } }, OUT, ['options.coalesce.mergeLimit', '4096', '1']],
    ['coalesce.gapLimit', { coalesce: { gapLimit: -1 } }, OUT, ['options.coalesce.gapLimit', '-1']],
    ['verifyWrites', { verifyWrites: 'yes' }, TYPE, ['options.verifyWrites', "'yes'"]],
    ['idleMs', { idleMs: 0 }, OUT, ['options.idleMs', '0']],
    ['signal', { signal: new EventTarget() }, TYPE, ['options.signal', 'AbortSignal', 'EventTarget']],
    ['options', 5, TYPE, ['"options"', 'object', '5']],
    ['options', null, TYPE, ['"options"', 'null']],
    ['options', [], TYPE, ['"options"', 'Array']],
  ])('refuse %s %o', async (_name, options, code, parts) => {
    for (const run of [() => open(path, options as never), () => openSync(path, options as never)]) {
      const error = await thrownBy(run);
      expect(error.code).toBe(code);
      expect(error).toBeInstanceOf(code === OUT ? RangeError : TypeError);
      for (const part of parts) expect(error.message).toContain(part);
    }
  });

  it('are taken where they are at their limits', async () => {
    for (const options of [
      {},
      { access: undefined, size: undefined, signal: undefined, readAhead: undefined },
      { cacheSize: 65536, queueDepth: 1, caching: 'direct' },
      { cacheSize: 65537, queueDepth: 4096, caching: 'direct' },
      { readAhead: { max: 0 } },
      { readAhead: { max: 4096 } },
      { readAhead: {} },
      { readAhead: false },
      { coalesce: { mergeLimit: 4096, gapLimit: 0 } },
      { idleMs: 1 },
      { idleMs: Number.POSITIVE_INFINITY },
      { verifyWrites: false },
      { lock: 'shared' },
    ] as const) {
      const file = await open(path, options);
      using window = await file.window(5, 5);
      expect(window.bytes[0]).toBe(1);
      await file.close();
    }
  });

  it('that page-cache mode cannot keep are refused by name, and say which mode can', async () => {
    await expect(open(path, { verifyWrites: true })).rejects.toMatchObject({
      code: 'ERR_SECTORWISE_UNSUPPORTED',
      message: expect.stringMatching(/^verifyWrites .*caching: 'direct'/),
    });
    expect(() => openSync(path, { verifyWrites: true, caching: 'page-cache' })).toThrow(expect.objectContaining({ code: 'ERR_SECTORWISE_UNSUPPORTED' }));
    const file = await open(path, { verifyWrites: true, caching: 'direct' });
    await file.close();
  });

  it('are overridden by an environment variable, which is checked as well', async () => {
    const before = process.env.SECTORWISE_ENGINE;
    try {
      process.env.SECTORWISE_ENGINE = 'fast';
      await expect(open(path)).rejects.toMatchObject({ code: VALUE, message: expect.stringContaining('SECTORWISE_ENGINE') });
      process.env.SECTORWISE_ENGINE = 'threads';
      const file = await open(path, { engine: 'io_uring' });
      expect(file.explain().engine).toBe('threads');
      await file.close();
    } finally {
      if (before === undefined) delete process.env.SECTORWISE_ENGINE;
      else process.env.SECTORWISE_ENGINE = before;
    }
  });
});

describe('paths', () => {
  it.each<[unknown, string]>([
    ['', VALUE],
    ['a\0b', VALUE],
    [Buffer.from(path), TYPE],
    [5, TYPE],
    [undefined, TYPE],
    [null, TYPE],
    [{}, TYPE],
  ])('refuse %o', async (given, code) => {
    for (const run of [() => open(given as never), () => openSync(given as never)]) {
      const error = await thrownBy(run);
      expect(error.code).toBe(code);
      expect(error.message).toContain('path');
    }
  });

  it('may be URLs of files, and of nothing else', async () => {
    const file = await open(pathToFileURL(path));
    expect(file.path).toBe(path);
    await file.close();
    expect((await thrownBy(() => open(new URL('https://example.org/file')))).code).toBe('ERR_INVALID_URL_SCHEME');
    expect((await thrownBy(() => open(new URL('file:///tmp/a%00b')))).code).toBe(VALUE);
  });

  it('may be long and strange', async () => {
    const strange = join(folder, `${'ä'.repeat(100)}\n'"`);
    writeFileSync(strange, 'x');
    const file = openSync(strange);
    expect(file.readSync(new Uint8Array(5), 0)).toBe(1);
    file.closeSync();
    mkdirSync(join(folder, 'x'.repeat(255)));
    expect((await thrownBy(() => open(join(folder, 'x'.repeat(256))))).code).toBe('ENAMETOOLONG');
  });
});

describe.each(['page-cache', 'direct'] as const)('offsets and lengths (%s)', (caching) => {
  const bytes = new Uint8Array(10);
  const opened: BlockFile[] = [];
  afterEach(async () => {
    for (const file of opened.splice(0)) await file.close();
  });

  async function opening(options: OpenOptions): Promise<BlockFile> {
    const file = await open(path, options);
    opened.push(file);
    return file;
  }

  it('are integers from 0 to 2^53 - 1, or bigints in that range', async () => {
    const file = await opening({ caching, access: 'read-write' });
    const wrong: Array<[unknown, string]> = [
      [-1, OUT],
      [1.5, OUT],
      [Number.NaN, OUT],
      [Number.POSITIVE_INFINITY, OUT],
      [2 ** 53, OUT],
      [-1n, OUT],
      [2n ** 53n, OUT],
      ['0', TYPE],
      [null, TYPE],
      [undefined, TYPE],
      [{}, TYPE],
      [true, TYPE],
    ];
    for (const [value, code] of wrong) {
      const at = value as number;
      const calls: Array<[string, () => unknown]> = [
        ['offset', () => file.window(at, 1)],
        ['length', () => file.window(0, at)],
        ['offset', () => file.tryWindow(at, 1)],
        ['length', () => file.tryWindow(0, at)],
        ['offset', () => file.read(bytes, at)],
        ['offset', () => file.tryRead(bytes, at)],
        ['offset', () => file.readSync(bytes, at)],
        ['offset', () => file.write(bytes, at)],
        ['offset', () => file.writeSync(bytes, at)],
        ['size', () => file.resize(at)],
        ['size', () => file.resizeSync(at)],
        ['offset', () => file.allocate(at, 1)],
        ['length', () => file.allocate(0, at)],
        ['offset', () => file.discard(at, 1)],
        ['length', () => file.discard(0, at)],
        ['offset', () => file.prefetch(at, 1)],
        ['length', () => file.prefetch(0, at)],
        ['offset', () => file.evict(at, 1)],
        ['length', () => file.evict(0, at)],
      ];
      if (value !== undefined) {
        calls.push(['offset', () => file.residency(at, 1)], ['length', () => file.residency(0, at)]);
        calls.push(['offset', () => file.extents(at, 1)], ['length', () => file.extents(0, at)]);
        calls.push(
          ['options.start', () => file.windows({ start: at })],
          ['options.end', () => file.windows({ end: at })],
          ['options.step', () => file.windows({ step: at })],
        );
      }
      for (const [name, call] of calls) {
        const error = await thrownBy(call);
        expect(error.code, `${call} ${inspect(value)}`).toBe(code);
        expect(error.message).toContain(`"${name}"`);
        expect(error.message).toContain('Received');
      }
    }
    expect(file.size).toBe(10_000);
    using window = await file.window(5n as never, 10n as never);
    expect([window.offset, window.length]).toEqual([5, 10]);
    expect(typeof window.offset).toBe('number');
    expect(await file.read(bytes, 9_995n as never)).toBe(5);
  });

  it('whose sum is beyond 2^53 - 1 are refused where bytes would be there', async () => {
    const file = await opening({ caching, access: 'read-write' });
    const most = Number.MAX_SAFE_INTEGER;
    for (const call of [() => file.read(bytes, most), () => file.write(bytes, most), () => file.evict(1, most), () => file.allocate(most, most)]) {
      expect((await thrownBy(call)).code).toBe(OUT);
    }
    expect(await file.read(bytes, most - 10)).toBe(0);
  });

  it('come with targets and sources that are Uint8Arrays', async () => {
    const file = await opening({ caching, access: 'read-write' });
    for (const value of [undefined, null, 'text', [1, 2], new ArrayBuffer(5), new DataView(new ArrayBuffer(5)), new Uint16Array(5), 5]) {
      for (const [name, call] of [
        ['target', () => file.read(value as never, 0)],
        ['target', () => file.tryRead(value as never, 0)],
        ['target', () => file.readSync(value as never, 0)],
        ['source', () => file.write(value as never, 0)],
        ['source', () => file.writeSync(value as never, 0)],
      ] as const) {
        const error = await thrownBy(call);
        expect(error.code).toBe(TYPE);
        expect(error.message).toContain(`"${name}"`);
      }
    }
  });

  it('come with options whose names are known', async () => {
    const file = await opening({ caching, access: 'read-write' });
    for (const [call, code, part] of [
      [() => file.window(0, 1, { writeable: true } as never), VALUE, "did you mean 'writable'"],
      [() => file.tryWindow(0, 1, { writable: 1 } as never), TYPE, 'options.writable'],
      [() => file.tryWindow(0, 1, { lock: 'yes' } as never), TYPE, 'options.lock'],
      [() => file.window(0, 1, { signal: {} } as never), TYPE, 'options.signal'],
      [() => file.read(bytes, 0, { sginal: 1 } as never), VALUE, "did you mean 'signal'"],
      [() => file.write(bytes, 0, { signal: 1 } as never), TYPE, 'options.signal'],
      [() => file.windows({ stepp: 1 } as never), VALUE, "did you mean 'step'"],
      [() => file.windows({ step: 0 }), OUT, 'options.step'],
      [() => file.windows({ step: 2 ** 26 + 1 }), OUT, 'options.step'],
      [() => file.windows({ start: 5, end: 4 }), OUT, 'options.end'],
      [() => file.batch(undefined as never), TYPE, 'onWindow'],
      [() => file.batch(() => {}, 5 as never), TYPE, 'onError'],
      [() => file.batch(() => {}, undefined, { signals: 1 } as never), VALUE, "did you mean 'signal'"],
    ] as const) {
      const error = await thrownBy(call);
      expect(error.code, String(call)).toBe(code);
      expect(error.message).toContain(part);
    }
  });

  it('never surface as EINVAL, whatever memory and place they have', async () => {
    const file = await opening({ caching, access: 'read-write' });
    const space = new Uint8Array(20_000);
    for (let i = 0; i < 200; i++) {
      const target = space.subarray(i, i + 1 + i * 37);
      expect(await file.read(target, i * 13)).toBe(Math.min(target.length, file.size - i * 13));
      file.readSync(target, i * 13);
      await file.write(target.subarray(0, 100).fill(1), i * 31);
    }
    await file.flush();
  });
});
