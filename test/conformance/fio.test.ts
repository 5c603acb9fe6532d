/** What somebody else wrote and checks: a file that fio wrote with headers to verify is read through windows, a file that the library wrote is verified by fio. */
import { execFileSync, spawnSync } from 'node:child_process';
import { appendFileSync, closeSync, openSync, statSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { type Caching, open } from '../../src/index.js';
import { Random } from '../../src/testing/random.js';
import { note, Places } from '../fixtures/places.js';
import { hasCommand } from '../geometry/loop-devices.js';

const noFio = hasCommand('fio') ? undefined : 'needs fio';
const lab = new Places();
afterAll(() => lab.dispose());
const cachings: Caching[] = ['page-cache', 'direct'];

/** Bytes behind the last block, so that the file ends within a sector. */
const ODD_BYTES = 777;

const MAGIC = 0xacca;
const CRC32C = 5;
/** fio's header of a block (verify.h), and the check sum that follows it for crc32c. */
const HEADER_BYTES = 0x28;
const HEADER_SUMMED_BYTES = 0x24;

const table = Uint32Array.from({ length: 256 }, (_, byte) => {
  let value = byte;
  for (let bit = 0; bit < 8; bit++) value = value & 1 ? (value >>> 1) ^ 0x82f63b78 : value >>> 1;
  return value;
});

/** CRC-32C as fio computes it: begun with all bits set, and not inverted at the end. */
function crc32c(bytes: Uint8Array): number {
  let sum = 0xffffffff;
  for (const byte of bytes) sum = (sum >>> 8) ^ table[(sum ^ byte) & 255];
  return sum >>> 0;
}

function fio(path: string, blockBytes: number, bytes: number, ...more: string[]): { status: number | null; output: string } {
  const common = ['--name=conformance', '--thread', '--ioengine=psync', `--filename=${path}`, `--bs=${blockBytes}`, `--size=${bytes}`];
  const { status, stdout, stderr } = spawnSync('fio', [...common, ...more], { encoding: 'utf8', cwd: lab.folder() });
  return { status, output: stdout + stderr };
}

/** What is wrong with a block that fio wrote at `offset`; undefined if nothing is. */
function faultOf(block: Uint8Array, offset: number): string | undefined {
  const view = new DataView(block.buffer, block.byteOffset, block.byteLength);
  if (view.getUint16(0, true) !== MAGIC || view.getUint16(2, true) !== CRC32C) return 'no header';
  if (view.getUint32(4, true) !== block.length) return `length ${view.getUint32(4, true)}`;
  if (Number(view.getBigUint64(0x10, true)) !== offset) return `written for ${view.getBigUint64(0x10, true)}`;
  if (view.getUint32(HEADER_SUMMED_BYTES, true) !== crc32c(block.subarray(0, HEADER_SUMMED_BYTES))) return 'check sum of the header';
  if (view.getUint32(HEADER_BYTES, true) !== crc32c(block.subarray(HEADER_BYTES + 4))) return 'check sum of the content';
  return undefined;
}

describe.skipIf(noFio !== undefined)(`a file that fio wrote${note(noFio)}`, () => {
  it.each([
    [512, 'randwrite'],
    [4096, 'randwrite'],
    [12_288, 'write'],
    [1 << 20, 'write'],
  ] as const)('shows in windows the blocks that it wrote, each in its place, and where it ends: %i bytes, %s', async (blockBytes, how) => {
    const path = join(lab.folder(), 'file');
    const blocks = Math.max(4, Math.floor((1 << 20) / blockBytes));
    const bytes = blocks * blockBytes;
    const { status, output } = fio(path, blockBytes, bytes, `--rw=${how}`, '--verify=crc32c', '--do_verify=0', '--randseed=5');
    expect([status, status === 0 ? '' : output]).toEqual([0, '']);
    appendFileSync(path, Buffer.alloc(ODD_BYTES, 7));
    const random = new Random(blockBytes);
    const order = Array.from({ length: Math.min(blocks, 200) }, () => random.below(blocks));
    for (const caching of cachings) {
      const file = await open(path, { caching, cacheSize: 8 << 20 });
      let at = 0;
      for await (const window of file.windows({ step: blockBytes })) {
        expect(window.offset).toBe(at);
        at += window.length;
        if (window.offset < bytes) expect([window.offset, faultOf(window.bytes, window.offset)]).toEqual([window.offset, undefined]);
        else expect(window.bytes.every((byte) => byte === 7)).toBe(true);
      }
      expect(at).toBe(bytes + ODD_BYTES);
      await file.evict(0, at);
      for (const block of order) {
        using window = await file.window(block * blockBytes, blockBytes);
        expect([block, faultOf(window.bytes, block * blockBytes)]).toEqual([block, undefined]);
      }
      await file.close();
    }
  });

  it('would be found out if a byte of it were another', async () => {
    const path = join(lab.folder(), 'file');
    expect(fio(path, 4096, 16_384, '--rw=write', '--verify=crc32c', '--do_verify=0').status).toBe(0);
    const fd = openSync(path, 'r+');
    writeSync(fd, Buffer.of(1, 2, 3), 0, 3, 9000);
    closeSync(fd);
    const file = await open(path);
    using window = await file.window(8192, 4096);
    expect(faultOf(window.bytes, 8192)).toBe('check sum of the content');
    await file.close();
  });
});

describe.skipIf(noFio !== undefined).each(cachings)(`a file that the library wrote (%s)${note(noFio)}`, (caching) => {
  /** As fio's pattern %o: the offset of the block, eight bytes each time. */
  function blockAt(offset: number, bytes: number): Buffer {
    const block = Buffer.alloc(bytes);
    for (let at = 0; at < bytes; at += 8) block.writeBigUInt64LE(BigInt(offset), at);
    return block;
  }

  it.each([512, 4096, 65_536, 1 << 20])('is what fio verifies: %i bytes', async (blockBytes) => {
    const path = join(lab.folder(), 'file');
    const blocks = Math.max(3, Math.floor((1 << 20) / blockBytes));
    const bytes = blocks * blockBytes;
    const file = await open(path, { caching, access: 'read-write', create: true, cacheSize: 1 << 20 });
    const random = new Random(blockBytes);
    // In no order, each in odd pieces, some of it twice: what fio sees is the last of each.
    const order = Array.from({ length: blocks }, (_, block) => block).sort(() => random.fraction() - 0.5);
    for (const block of order) {
      const offset = block * blockBytes;
      if (random.chance(0.2)) await file.write(Buffer.alloc(blockBytes, 0xee), offset);
      const content = blockAt(offset, blockBytes);
      const cut = random.below(blockBytes);
      await file.write(content.subarray(cut), offset + cut);
      await file.write(content.subarray(0, cut), offset);
      if (random.chance(0.05)) await file.flush();
    }
    await file.write(Buffer.alloc(ODD_BYTES, 7), bytes);
    await file.close();
    expect(statSync(path).size).toBe(bytes + ODD_BYTES);
    const verified = fio(path, blockBytes, bytes, '--rw=read', '--verify=pattern', '--verify_pattern=%o', '--verify_fatal=1');
    expect([verified.status, verified.status === 0 ? '' : verified.output]).toEqual([0, '']);
    if (blockBytes !== 4096) return;
    // And it would say so if it were not.
    execFileSync('dd', ['if=/dev/zero', `of=${path}`, 'bs=1', 'count=1', 'seek=8193', 'conv=notrunc'], { stdio: 'ignore' });
    expect(fio(path, blockBytes, bytes, '--rw=read', '--verify=pattern', '--verify_pattern=%o', '--verify_fatal=1').status).not.toBe(0);
  });
});
