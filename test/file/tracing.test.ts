/** What can be watched from outside: channels, histograms, NODE_DEBUG. */
import { execFileSync } from 'node:child_process';
import { channel } from 'node:diagnostics_channel';
import { truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, afterEach, describe, expect, it } from 'vitest';
import { type BlockFile, type InvalidateMessage, type OpenOptions, open, type TraceMessage } from '../../src/index.js';
import { Places } from '../fixtures/places.js';
import { emitted } from '../rigs/emitted.js';

const PAGE = 4096;
const MIB = 1 << 20;
const lab = new Places();
const path = join(lab.folder(), 'file');
writeFileSync(path, Buffer.alloc(4 * MIB, 7));
const opened: BlockFile[] = [];
const unsubscribe: (() => void)[] = [];
afterEach(async () => {
  for (const stop of unsubscribe.splice(0)) stop();
  for (const file of opened.splice(0)) await file.close();
});
afterAll(() => lab.dispose());

async function opening(options: OpenOptions = {}): Promise<BlockFile> {
  const file = await open(path, options);
  opened.push(file);
  return file;
}

function listen<T>(name: string): T[] {
  const heard: T[] = [];
  const listener = (message: unknown): void => {
    heard.push(message as T);
  };
  channel(name).subscribe(listener);
  unsubscribe.push(() => channel(name).unsubscribe(listener));
  return heard;
}

describe('diagnostics channels', () => {
  it('tell of reads that had to wait, with their range and duration, and not of what was in memory', async () => {
    const heard = listen<TraceMessage>('sectorwise:read');
    const file = await opening({ caching: 'direct', readAhead: false });
    (await file.window(3 * PAGE, 100)).release();
    (await file.window(3 * PAGE, 100)).release();
    file.tryWindow(3 * PAGE, 10)?.release();
    const target = new Uint8Array(2 * PAGE);
    expect(await file.read(target, 20 * PAGE)).toBe(target.length);
    expect(heard.map(({ path: of, operation, offset, length, error }) => ({ of, operation, offset, length, error }))).toEqual([
      { of: path, operation: 'window', offset: 3 * PAGE, length: 100, error: undefined },
      { of: path, operation: 'read', offset: 20 * PAGE, length: 2 * PAGE, error: undefined },
    ]);
    for (const { duration } of heard) expect(duration).toBeGreaterThan(0);
  });

  it('tell of writes that had to wait and of flushes, also of what failed', async () => {
    const writes = listen<TraceMessage>('sectorwise:write');
    const flushes = listen<TraceMessage>('sectorwise:flush');
    const file = await opening({ access: 'read-write' });
    await file.write(Buffer.alloc(PAGE, 7), PAGE);
    await file.flush();
    expect(writes).toMatchObject([{ path, operation: 'write', offset: PAGE, length: PAGE, error: undefined }]);
    expect(flushes).toMatchObject([{ path, operation: 'flush', offset: 0, length: 0, error: undefined }]);
    const reads = listen<TraceMessage>('sectorwise:read');
    const given = new AbortController();
    const direct = await opening({ caching: 'direct', readAhead: false });
    const asked = direct.window(30 * PAGE, PAGE, { signal: given.signal });
    given.abort();
    await expect(asked).rejects.toThrow();
    expect(reads.map(({ error }) => error?.name)).toEqual(['AbortError']);
  });

  it('tell of windows that are gone', async () => {
    const heard = listen<InvalidateMessage>('sectorwise:invalidate');
    const short = join(lab.folder(), 'short');
    writeFileSync(short, Buffer.alloc(4 * PAGE, 1));
    const file = await open(short);
    opened.push(file);
    const event = new Promise((resolve) => file.once('invalidate', resolve));
    const window = await file.window(2 * PAGE, PAGE);
    truncateSync(short, PAGE);
    await event;
    window.release();
    expect(heard[0]).toMatchObject({ path: short, cause: 'truncate', offset: PAGE });
  });
});

describe('latencies', () => {
  it('are counted from the first question on, each kind by itself', async () => {
    const file = await opening({ caching: 'direct', access: 'read-write', readAhead: false });
    (await file.window(40 * PAGE, PAGE)).release();
    const { read, write, flush } = file.latencies();
    expect([read.count, write.count, flush.count]).toEqual([0, 0, 0]);
    (await file.window(50 * PAGE, PAGE)).release();
    (await file.window(50 * PAGE, PAGE)).release();
    await file.flush();
    expect([read.count, write.count, flush.count]).toEqual([1, 0, 1]);
    expect(read.min).toBeGreaterThan(1000);
    expect(file.latencies().read).toBe(read);
  });
});

describe('NODE_DEBUG=sectorwise', () => {
  it('writes lines when a file is opened and closed, and none without', async () => {
    const script = `import { open } from ${JSON.stringify(join(await emitted(), 'src/index.js'))}; const file = await open(${JSON.stringify(path)}); await file.close();`;
    const said = (debug: string): string =>
      execFileSync('sh', ['-c', '"$0" --input-type=module -e "$1" 2>&1', process.execPath, script], {
        encoding: 'utf8',
        env: { ...process.env, NODE_DEBUG: debug },
      });
    expect(said('sectorwise')).toMatch(
      /SECTORWISE \d+: .*file: opened, page-cache, engine (io_uring|threads), 4194304 bytes\nSECTORWISE \d+: .*file: closed\n/,
    );
    expect(said('')).toBe('');
  });
});
