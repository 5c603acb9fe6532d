/** Streams and blobs of a file: what they show, how fast they go, how they end, what they leave behind. */
import { appendFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { PassThrough, Writable } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import { afterAll, afterEach, describe, expect, it } from 'vitest';
import { type BlockFile, type Caching, type OpenOptions, open } from '../../src/index.js';
import { openSimulatedParts } from '../../src/testing/open.js';
import { Random } from '../../src/testing/random.js';
import { SimulatedDisk } from '../../src/testing/simulated-disk.js';
import { Places } from '../fixtures/places.js';

const BYTES = 300_777;
const STEP = 10_000;
const model = Buffer.from(new Random(9).fill(new Uint8Array(BYTES)));
const lab = new Places();
const path = join(lab.folder(), 'file');
writeFileSync(path, model);
const opened: BlockFile[] = [];
afterEach(async () => {
  for (const file of opened.splice(0)) await file.close().catch(() => undefined);
});
afterAll(() => lab.dispose());

async function opening(options: OpenOptions = {}, of = path): Promise<BlockFile> {
  const file = await open(of, options);
  opened.push(file);
  return file;
}

const coded = (code: string): unknown => expect.objectContaining({ code });
const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

/** A target that keeps a copy of each chunk, and calls back when it is told to. */
class Slow extends Writable {
  readonly chunks: Buffer[] = [];
  /** The bytes that it was given, not copied. */
  given: Uint8Array | undefined;
  done: ((error?: Error) => void) | undefined;

  constructor() {
    super({ highWaterMark: 1 });
  }

  override _write(chunk: Buffer, _encoding: string, done: (error?: Error) => void): void {
    this.given = chunk;
    this.chunks.push(Buffer.from(chunk));
    this.done = done;
  }

  /** Waits for a chunk that was not called back for. */
  async chunk(): Promise<(error?: Error) => void> {
    while (this.done === undefined) await turn();
    const { done } = this;
    this.done = undefined;
    return done;
  }
}

describe.each<Caching>(['page-cache', 'direct'])('%s', (caching) => {
  describe('readable', () => {
    it('shows the file in chunks of step bytes', async () => {
      const file = await opening({ caching });
      const chunks: Buffer[] = [];
      for await (const chunk of file.readable({ step: STEP })) chunks.push(chunk);
      expect(Buffer.concat(chunks).equals(model)).toBe(true);
      expect(chunks.slice(0, -1).every(({ length }) => length === STEP)).toBe(true);
    });

    it.each([
      [0, 0],
      [5, 5],
      [4095, 4097],
      [100, BYTES],
      [BYTES - 1, BYTES + 100],
      [BYTES + 1, BYTES + 2],
    ])('shows the range from %i to %i', async (start, end) => {
      const file = await opening({ caching });
      expect((await buffer(file.readable({ start, end, step: 4096 }))).equals(model.subarray(start, end))).toBe(true);
    });

    it('gives chunks that stay as they are when the file changes and is closed', async () => {
      const changing = join(lab.folder(), 'changing');
      writeFileSync(changing, model);
      const file = await opening({ caching, access: 'read-write' }, changing);
      const chunks = await file.readable().toArray();
      await file.write(Buffer.alloc(BYTES), 0);
      await file.close();
      expect(Buffer.concat(chunks).equals(model)).toBe(true);
    });

    it('ends with ERR_SECTORWISE_CLOSED when the file is closed under it', async () => {
      const file = await opening({ caching });
      const stream = file.readable({ step: STEP });
      const ended = expect(
        (async () => {
          for await (const _ of stream) await file.close();
        })(),
      ).rejects.toEqual(coded('ERR_SECTORWISE_CLOSED'));
      await ended;
      expect(stream.destroyed).toBe(true);
    });
  });

  describe('stream', () => {
    it('fills the memory that its reader brings, as much as it brings', async () => {
      const file = await opening({ caching });
      const reader = file.stream({ start: 7 }).getReader({ mode: 'byob' });
      let at = 7;
      let memory = new ArrayBuffer(50_000);
      for (;;) {
        const { done, value } = await reader.read(new Uint8Array(memory));
        if (done) break;
        expect(value.length).toBe(Math.min(50_000, BYTES - at));
        expect(model.subarray(at, at + value.length).equals(value)).toBe(true);
        at += value.length;
        memory = value.buffer as ArrayBuffer;
      }
      expect(at).toBe(BYTES);
    });

    it('gives chunks to a reader that brings nothing', async () => {
      const file = await opening({ caching });
      expect(Buffer.from(await new Response(file.stream({ start: 3, end: 200_000, step: STEP })).arrayBuffer()).equals(model.subarray(3, 200_000))).toBe(true);
    });

    it('fails with ERR_SECTORWISE_CLOSED when the file is closed under it', async () => {
      const file = await opening({ caching });
      const reader = file.stream({ step: STEP }).getReader();
      await reader.read();
      await file.close();
      await expect(reader.read()).rejects.toEqual(coded('ERR_SECTORWISE_CLOSED'));
    });
  });

  describe('blob', () => {
    it('has the methods of a Blob, and answers as one does', async () => {
      const file = await opening({ caching });
      const blob = file.blob({ type: 'Application/X' });
      const real = new Blob([model], { type: 'Application/X' });
      expect([blob.size, blob.type]).toEqual([real.size, real.type]);
      expect(Buffer.from(await blob.arrayBuffer()).equals(model)).toBe(true);
      for (const [start, end] of [[], [10], [-10], [-20, -10], [5, 3], [0, 1e9], [-1e9, 7]] as [number?, number?][]) {
        const [part, same] = [blob.slice(start, end), real.slice(start, end)];
        expect(part.size).toBe(same.size);
        expect(Buffer.from(await part.bytes()).equals(Buffer.from(await same.arrayBuffer()))).toBe(true);
      }
      // Node's own ends the process here.
      expect([blob.slice(1.9, 10.9).size, blob.slice(Number.NaN, 4).size]).toEqual([9, 4]);
      expect(await blob.slice(100, 200).slice(-50, -40).text()).toBe(await real.slice(150, 160).text());
      expect(Buffer.from(await new Response(blob.slice(9).stream()).arrayBuffer()).equals(model.subarray(9))).toBe(true);
      expect([file.blob({ start: BYTES + 5 }).size, file.blob({ start: 10, end: 20 }).size]).toEqual([0, 10]);
    });

    it('is an error, not fewer bytes, once the file is shorter', async () => {
      const short = join(lab.folder(), 'short');
      writeFileSync(short, model);
      const file = await opening({ caching, access: 'read-write' }, short);
      const blob = file.blob();
      await file.resize(1000);
      await expect(blob.bytes()).rejects.toEqual(coded('ERR_SECTORWISE_TRUNCATED'));
      await expect(new Response(blob.stream()).arrayBuffer()).rejects.toEqual(coded('ERR_SECTORWISE_TRUNCATED'));
      expect((await blob.slice(0, 1000).bytes()).length).toBe(1000);
    });
  });

  describe('sendTo', () => {
    it('writes the range, and leaves the target open', async () => {
      const target = new PassThrough();
      const received = buffer(target);
      const file = await opening({ caching });
      expect(await file.sendTo(target, { start: 11, end: 250_000, step: STEP })).toBe(250_000 - 11);
      target.end();
      expect((await received).equals(model.subarray(11, 250_000))).toBe(true);
    });

    it('lends the window itself, one at a time, for as long as the target takes', async () => {
      const file = await opening({ caching });
      const target = new Slow();
      const sent = file.sendTo(target, { end: 3 * STEP, step: STEP });
      const first = await target.chunk();
      using same = file.tryWindow(0, STEP);
      if (same?.areas.length === 1) expect(target.given?.buffer).toBe(same.bytes.buffer);
      for (let i = 0; i < 5; i++) await turn();
      expect(target.chunks.length).toBe(1);
      first();
      (await target.chunk())();
      (await target.chunk())();
      expect(await sent).toBe(3 * STEP);
      expect(Buffer.concat(target.chunks).equals(model.subarray(0, 3 * STEP))).toBe(true);
    });

    it('rejects and destroys the target when the bytes were cut while it had them', async () => {
      const cut = join(lab.folder(), 'cut');
      writeFileSync(cut, model);
      const file = await opening({ caching, access: 'read-write' }, cut);
      const target = new Slow();
      const sent = expect(file.sendTo(target, { step: STEP })).rejects.toEqual(coded('ERR_SECTORWISE_TRUNCATED'));
      const done = await target.chunk();
      await file.resize(100);
      done();
      await sent;
      expect(target.destroyed).toBe(true);
    });
  });
});

describe('the end of a stream without an end', () => {
  it('is that of the file by then, also if others append meanwhile', async () => {
    const growing = join(lab.folder(), 'growing');
    writeFileSync(growing, model.subarray(0, STEP));
    const reader = (await opening({}, growing)).stream({ step: STEP }).getReader();
    const chunks = [(await reader.read()).value as Uint8Array];
    appendFileSync(growing, model.subarray(STEP));
    for (let next = await reader.read(); !next.done; next = await reader.read()) chunks.push(next.value);
    expect(Buffer.concat(chunks).equals(model)).toBe(true);
  });

  it('is where the file was made shorter', async () => {
    const cut = join(lab.folder(), 'cut');
    writeFileSync(cut, model);
    const file = await opening({ access: 'read-write' }, cut);
    const reader = file.stream({ step: 4096 }).getReader();
    await reader.read();
    await file.resize(4096);
    expect((await reader.read()).done).toBe(true);
  });
});

describe('arguments', () => {
  it('are checked in the call', async () => {
    const file = await opening();
    for (const options of [{ begin: 1 }, { start: 2, end: 1 }, { step: 0 }, { step: 2 ** 27 }, { start: -1 }] as object[]) {
      const code = coded('begin' in options ? 'ERR_INVALID_ARG_VALUE' : 'ERR_OUT_OF_RANGE');
      expect(() => file.readable(options)).toThrow(code);
      expect(() => file.stream(options)).toThrow(code);
    }
    expect(() => file.blob({ typ: 'x' } as object)).toThrow(coded('ERR_INVALID_ARG_VALUE'));
    await expect(file.sendTo(new PassThrough(), { step: 0 })).rejects.toEqual(coded('ERR_OUT_OF_RANGE'));
    await file.close();
    for (const make of [() => file.readable(), () => file.stream(), () => file.blob()]) expect(make).toThrow(coded('ERR_SECTORWISE_CLOSED'));
  });
});

describe('nothing stays behind', () => {
  const disk = (): ReturnType<typeof openSimulatedParts> => {
    const parts = openSimulatedParts(new SimulatedDisk({ size: 1 << 20, seed: 3 }), { readAhead: false });
    opened.push(parts.file);
    return parts;
  };

  it('pins nothing while the consumer of a stream is slow, and reads no more than it wants', async () => {
    const { file, ground } = disk();
    const stream = file.readable({ step: 4096 });
    await new Promise((resolve) => stream.once('readable', resolve));
    const { deviceReadBytes } = file.stats;
    for (let i = 0; i < 20; i++) await turn();
    expect(file.stats.deviceReadBytes).toBe(deviceReadBytes);
    expect(deviceReadBytes).toBeLessThanOrEqual(3 * 4096);
    expect(ground.live).toBe(0);
    stream.destroy();
    const reader = file.stream({ step: 4096 }).getReader();
    await reader.read();
    expect(ground.live).toBe(0);
    await reader.cancel();
  });

  it('gives up what is on its way when a stream is destroyed, cancelled or aborted', async () => {
    const { file, ground, manager } = disk();
    const stream = file.readable();
    stream.resume();
    await turn();
    stream.destroy();
    const reader = file.stream().getReader();
    const read = reader.read();
    await reader.cancel();
    expect((await read).done).toBe(true);
    const why = new Error('enough');
    const signal = AbortSignal.abort(why);
    await expect(file.readable({ signal }).toArray()).rejects.toMatchObject({ name: 'AbortError', cause: why });
    await expect(file.stream({ signal }).getReader().read()).rejects.toMatchObject({ name: 'AbortError', cause: why });
    const given = new AbortController();
    const later = file.stream({ signal: given.signal }).getReader().read();
    const same = file.readable({ signal: given.signal }).toArray();
    given.abort(why);
    await expect(later).rejects.toMatchObject({ name: 'AbortError', cause: why });
    await expect(same).rejects.toMatchObject({ name: 'AbortError', cause: why });
    while (!manager.idle) await turn();
    expect(ground.live).toBe(0);
  });

  it('holds a window that was sent until the target has called back, also after an abort', async () => {
    const { file, ground } = disk();
    const target = new Slow();
    const given = new AbortController();
    const sent = file.sendTo(target, { step: 4096, signal: given.signal });
    const done = await target.chunk();
    expect(ground.live).toBe(1);
    given.abort();
    await expect(sent).rejects.toMatchObject({ name: 'AbortError' });
    expect(target.destroyed).toBe(true);
    expect(ground.live).toBe(1);
    done();
    while (ground.live > 0) await turn();
  });

  it('releases the window when the target fails, and rejects with its error', async () => {
    const { file, ground } = disk();
    const target = new Slow();
    const full = new Error('full');
    const sent = expect(file.sendTo(target, { step: 4096 })).rejects.toBe(full);
    (await target.chunk())(full);
    await sent;
    expect(ground.live).toBe(0);
  });
});
