/** Where bytes come from: in memory, from files and devices, through a cache with a limit. */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, describe, expect, it } from 'vitest';
import { bufferSource, limitedSource, openSource } from '../../src/layout/source.js';
import { note } from '../fixtures/places.js';
import { LoopDevices, noLoopDevices } from '../geometry/loop-devices.js';
import { SparseImage } from './corpus.js';

const folder = mkdtempSync(join(tmpdir(), 'sectorwise-source-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
const random = Uint8Array.from({ length: 40_000 }, (_, index) => (index * 7919 + (index >> 8)) & 0xff);
const path = join(folder, 'image');
writeFileSync(path, random);

describe('a source', () => {
  it('answers with what is there, fewer bytes at the end and none beyond, whether memory, file or cache', () => {
    using file = openSource(path);
    const sources = [bufferSource(random), file, limitedSource(bufferSource(random)), limitedSource(file)];
    fc.assert(
      fc.property(fc.integer({ min: -5000, max: 45_000 }), fc.integer({ min: 0, max: 20_000 }), (offset, length) => {
        const expected = offset < 0 ? new Uint8Array(0) : random.subarray(offset, offset + length);
        for (const source of sources) expect(Buffer.compare(source.read(BigInt(offset), length), expected)).toBe(0);
      }),
    );
  });

  it('of a file knows its size, and is not a device', () => {
    using file = openSource(path);
    expect([file.size, file.isDevice, file.path]).toEqual([40_000n, false, path]);
    file.close();
  });

  it('of a file that shrank since is short, and does not wait for what is gone', () => {
    const shrinking = join(folder, 'shrinking');
    writeFileSync(shrinking, random);
    using file = openSource(shrinking);
    const cached = limitedSource(file);
    truncateSync(shrinking, 5000);
    expect(cached.read(0n, 20_000).length).toBe(5000);
    expect(cached.read(8192n, 100).length).toBe(0);
  });

  it('says what a path is that holds no layout', () => {
    expect(() => openSource(join(folder, 'missing'))).toThrow(expect.objectContaining({ code: 'ENOENT', syscall: 'open', path: join(folder, 'missing') }));
    expect(() => openSource(folder)).toThrow(expect.objectContaining({ code: 'EISDIR', path: folder }));
    expect(() => openSource('/dev/null')).toThrow(expect.objectContaining({ code: 'ERR_SECTORWISE_FILE_TYPE' }));
    const pipe = join(folder, 'pipe');
    execFileSync('mkfifo', [pipe]);
    expect(() => openSource(pipe)).toThrow(expect.objectContaining({ code: 'ERR_SECTORWISE_FILE_TYPE' }));
  });

  it.skipIf(noLoopDevices !== undefined)(`of a block device knows its size${note(noLoopDevices)}`, () => {
    const loops = new LoopDevices();
    try {
      const image = loops.image(3 * 4096 + 512);
      writeFileSync(image, random.subarray(0, 12_800));
      using device = openSource(loops.attach(image));
      expect([device.size, device.isDevice]).toEqual([12_800n, true]);
      expect(Buffer.compare(device.read(0n, 20_000), readFileSync(image))).toBe(0);
    } finally {
      loops.dispose();
    }
  });
});

describe('a limited source', () => {
  it('reads each block once, neighbours in one read', () => {
    const image = new SparseImage(1n << 50n);
    const cached = limitedSource(image);
    cached.read(0n, 16_384);
    cached.read(5n, 4096);
    cached.read(8000n, 300);
    expect([image.reads, image.bytesRead]).toEqual([1, 16_384]);
    cached.read(12_288n, 8192);
    expect([image.reads, image.bytesRead]).toEqual([2, 20_480]);
  });

  it('never reads more than its limit, and says that it withheld something', () => {
    fc.assert(
      fc.property(fc.array(fc.tuple(fc.bigInt({ min: 0n, max: 1n << 22n }), fc.integer({ min: 0, max: 70_000 })), { maxLength: 60 }), (ranges) => {
        const image = new SparseImage(1n << 22n);
        const cached = limitedSource(image, 1 << 18);
        for (const [offset, length] of ranges) {
          const bytes = cached.read(offset, length);
          const there = offset >= image.size ? 0 : Math.min(length, Number(image.size - offset));
          if (bytes.length < there) expect(cached.exhausted).toBe(true);
        }
        expect(image.bytesRead).toBeLessThanOrEqual(1 << 18);
      }),
    );
  });

  it('also limits what is looked at again and again', () => {
    const image = new SparseImage(1n << 22n);
    const cached = limitedSource(image, 1 << 18, 1 << 20);
    for (let round = 0; round < 100 && !cached.exhausted; round++) cached.read(0n, 1 << 16);
    expect(cached.exhausted).toBe(true);
    expect(image.reads).toBe(1);
  });

  it('finds its blocks again at the very end of the largest image', () => {
    const image = new SparseImage((1n << 64n) - 1n);
    const at = image.size - 3000n;
    image.write(at, random.subarray(0, 3000));
    const cached = limitedSource(image);
    for (const [offset, length] of [
      [0, 3000],
      [1, 5000],
      [2999, 1],
      [1500, 700],
    ]) {
      expect(Buffer.compare(cached.read(at + BigInt(offset), length), random.subarray(offset, Math.min(3000, offset + length)))).toBe(0);
    }
    expect(image.reads).toBe(1);
  });

  it('is not limited twice', () => {
    const cached = limitedSource(new SparseImage(4096));
    expect(limitedSource(cached)).toBe(cached);
  });
});
