/** Reading volumes: what is recognised by hand-built superblocks, nested layers, ambiguity, damage, and bounds against hostile bytes. */
import { describe, expect, it } from 'vitest';
import type { ImageSource, Volume } from '../../src/layout/model.js';
import { readVolume } from '../../src/layout/volume.js';
import { VIEW_READ_MAX } from '../../src/layout/volumes/view.js';
import { superblocks } from './superblocks.js';

const GIB = 1n << 30n;

/** Bytes, followed by zeros up to `size`, counting what is read. */
function source(bytes: Uint8Array, size = 64n * GIB): ImageSource & { bytesRead: number; reads: number } {
  return {
    size,
    bytesRead: 0,
    reads: 0,
    read(offset, length) {
      const there = offset >= this.size ? 0 : Number(this.size - offset < BigInt(length) ? this.size - offset : BigInt(length));
      this.bytesRead += there;
      this.reads++;
      const answer = new Uint8Array(there);
      if (offset < BigInt(bytes.length)) answer.set(bytes.subarray(Number(offset), Math.min(bytes.length, Number(offset) + there)));
      return answer;
    },
  };
}

function volumeOf(bytes: Uint8Array, size?: bigint): Volume | null {
  const image = source(bytes, size);
  return readVolume(image, { offset: 0n, size: image.size, partition: null, pages: [4096] });
}

describe('A hand-built superblock', () => {
  for (const { name, kind, bytes } of superblocks) {
    it(`of ${name} is recognised as ${kind}, whole`, () => {
      const isAtEnd = name === 'md 0.90' || name === 'md 1.0';
      const volume = volumeOf(bytes, isAtEnd ? BigInt(bytes.length) : undefined);
      expect(volume?.kind).toBe(kind);
      expect(volume?.damaged).toBeUndefined();
      expect(volume?.details.alsoFound).toBeUndefined();
    });

    it(`of ${name} is read within ${VIEW_READ_MAX / 1024} KiB a volume`, () => {
      const image = source(bytes);
      const volume = readVolume(image, { offset: 0n, size: image.size, partition: null, pages: [4096] });
      expect(image.bytesRead).toBeLessThanOrEqual(VIEW_READ_MAX * (1 + (volume?.inside.length ?? 0)));
    });
  }
});
