/**
 * Tables and images built by hand, of any size, without a tool: what tests patch and the fuzzer mutates.
 *
 * Guarantees: what is built is whole (CRCs right) until somebody changes it; an image of any size takes the memory of what was written to it.
 * Leaves to others: superblocks (`superblocks.ts`).
 */
import { crc32 } from 'node:zlib';
import type { ImageSource } from '../../src/layout/model.js';
import { TYPE_GUIDS } from '../../src/layout/types.js';

const blockBytes = 4096;
const zeros = new Uint8Array(128 * 1024);
export const MEBIBYTE = 1 << 20;

/** An image in memory of which only what was written exists; the rest reads as zeros. Counts what is read of it. */
export class SparseImage implements ImageSource {
  size: bigint;
  reads = 0;
  bytesRead = 0;
  readonly #blocks = new Map<number, Uint8Array>();
  /** Those of them that no copy has as well. */
  readonly #own = new Set<number>();
  #written: number[] | undefined;

  constructor(size: bigint | number) {
    this.size = BigInt(size);
  }

  read(offset: bigint, length: number): Uint8Array {
    this.reads++;
    if (offset < 0n || offset >= this.size || length <= 0) return new Uint8Array(0);
    const wanted = Number(this.size - offset < BigInt(length) ? this.size - offset : BigInt(length));
    this.bytesRead += wanted;
    let bytes: Uint8Array | undefined;
    this.#each(offset, wanted, (block, from, at, count) => {
      const held = this.#blocks.get(block);
      if (held === undefined) return;
      bytes ??= new Uint8Array(wanted);
      bytes.set(held.subarray(from, from + count), at);
    });
    return bytes ?? (wanted <= zeros.length ? zeros.subarray(0, wanted) : new Uint8Array(wanted));
  }

  write(offset: bigint | number, bytes: Uint8Array): this {
    this.#each(BigInt(offset), bytes.length, (block, from, at, count) => {
      let held = this.#blocks.get(block);
      if (held === undefined) {
        held = new Uint8Array(blockBytes);
        this.#blocks.set(block, held);
        this.#own.add(block);
        this.#written = undefined;
      } else if (!this.#own.has(block)) {
        held = held.slice();
        this.#blocks.set(block, held);
        this.#own.add(block);
      }
      held.set(bytes.subarray(at, at + count), from);
    });
    return this;
  }

  /** Numbers of the blocks of 4096 bytes that hold something, ascending. */
  written(): readonly number[] {
    this.#written ??= [...this.#blocks.keys()].sort((a, b) => a - b);
    return this.#written;
  }

  copy(): SparseImage {
    const image = new SparseImage(this.size);
    // Blocks are shared until one of both changes them.
    for (const [block, bytes] of this.#blocks) image.#blocks.set(block, bytes);
    this.#own.clear();
    image.#written = this.#written;
    return image;
  }

  #each(offset: bigint, length: number, act: (block: number, from: number, at: number, count: number) => void): void {
    let block = Number(offset / BigInt(blockBytes));
    let from = Number(offset % BigInt(blockBytes));
    for (let at = 0; at < length; block++, from = 0) {
      const count = Math.min(blockBytes - from, length - at);
      act(block, from, at, count);
      at += count;
    }
  }
}

/** LBAs, the last one included, as in the entry itself. */
export interface GptPartitionShape {
  /** From 1 on; else as it stands in the list. */
  number?: number;
  first: number | bigint;
  last: number | bigint;
  type?: string;
  name?: string;
}

export interface GptShape {
  sectorSize?: number;
  entryBytes?: number;
  entryCount?: number;
  partitions: GptPartitionShape[];
  /** LBA of the backup header; the last one where not given. */
  backupLba?: bigint;
  without?: 'backup' | 'primary' | 'protective';
}

const diskId = '11223344-5566-7788-99aa-bbccddeeff00';

export function writeGpt(image: SparseImage, shape: GptShape): SparseImage {
  const { sectorSize = 512, entryBytes = 128, entryCount = 128, without } = shape;
  const unit = BigInt(sectorSize);
  const sectors = image.size / unit;
  const last = shape.backupLba ?? sectors - 1n;
  const arraySectors = BigInt(Math.ceil((entryCount * entryBytes) / sectorSize));
  const array = new Uint8Array(entryCount * entryBytes);
  for (const [index, partition] of shape.partitions.entries()) {
    const at = ((partition.number ?? index + 1) - 1) * entryBytes;
    const view = new DataView(array.buffer, at, entryBytes);
    array.set(guidBytes(partition.type ?? TYPE_GUIDS.linux), at);
    array.set(guidBytes(diskId), at + 16);
    array[at + 16] = index + 1;
    view.setBigUint64(32, BigInt(partition.first), true);
    view.setBigUint64(40, BigInt(partition.last), true);
    for (const [unitIndex, char] of [...(partition.name ?? '')].entries()) view.setUint16(56 + 2 * unitIndex, char.charCodeAt(0), true);
  }
  const header = (own: bigint, alternate: bigint, entries: bigint) => {
    const bytes = new Uint8Array(sectorSize);
    const view = new DataView(bytes.buffer);
    bytes.set(Buffer.from('EFI PART', 'latin1'));
    view.setUint32(8, 0x10000, true);
    view.setUint32(12, 92, true);
    view.setBigUint64(24, own, true);
    view.setBigUint64(32, alternate, true);
    view.setBigUint64(40, 2n + arraySectors, true);
    view.setBigUint64(48, last - 1n - arraySectors, true);
    bytes.set(guidBytes(diskId), 56);
    view.setBigUint64(72, entries, true);
    view.setUint32(80, entryCount, true);
    view.setUint32(84, entryBytes, true);
    view.setUint32(88, crc32(array), true);
    sealHeader(bytes);
    return bytes;
  };
  if (without !== 'protective') writeMbr(image, [{ type: 0xee, start: 1, sectors: Number(sectors - 1n < 0xffffffffn ? sectors - 1n : 0xffffffffn) }]);
  if (without !== 'primary') image.write(unit, header(1n, last, 2n)).write(2n * unit, array);
  if (without !== 'backup') image.write(last * unit, header(last, 1n, last - arraySectors)).write((last - arraySectors) * unit, array);
  return image;
}

/** Sets the CRC of the header that `sector` begins with. */
export function sealHeader(sector: Uint8Array): void {
  const view = new DataView(sector.buffer, sector.byteOffset, sector.byteLength);
  const size = Math.min(Math.max(view.getUint32(12, true), 92), sector.length);
  view.setUint32(16, 0, true);
  view.setUint32(16, crc32(sector.subarray(0, size)), true);
}

export interface MbrEntryShape {
  type: number;
  start: number;
  sectors: number;
  status?: number;
}

/** Writes the four entries and 55 AA of an MBR or EBR; boot code, if any, stays. */
export function writeMbr(image: SparseImage, entries: (MbrEntryShape | undefined)[], at = 0n): SparseImage {
  const bytes = new Uint8Array(66);
  const view = new DataView(bytes.buffer);
  for (const [index, entry] of entries.entries()) {
    if (entry === undefined) continue;
    bytes[index * 16] = entry.status ?? 0;
    bytes[index * 16 + 4] = entry.type;
    view.setUint32(index * 16 + 8, entry.start, true);
    view.setUint32(index * 16 + 12, entry.sectors, true);
  }
  view.setUint16(64, 0xaa55, true);
  return image.write(at + 446n, bytes);
}

/** A chain of logical partitions, each `gap` sectors behind its EBR, in a container that begins at LBA `container`. */
export function writeChain(image: SparseImage, container: number, logicals: { ebr: number; gap: number; sectors: number }[], sectorSize = 512): SparseImage {
  for (const [index, { ebr, gap, sectors }] of logicals.entries()) {
    const next = logicals[index + 1];
    const link = next === undefined ? undefined : { type: 5, start: next.ebr - container, sectors: next.gap + next.sectors };
    writeMbr(image, [{ type: 0x83, start: gap, sectors }, link], BigInt(ebr) * BigInt(sectorSize));
  }
  return image;
}

export function guidBytes(guid: string): Uint8Array {
  const hex = Buffer.from(guid.replaceAll('-', ''), 'hex');
  return Uint8Array.of(...hex.subarray(0, 4).reverse(), ...hex.subarray(4, 6).reverse(), ...hex.subarray(6, 8).reverse(), ...hex.subarray(8));
}
