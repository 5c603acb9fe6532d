/**
 * A disk with other sectors than 512 bytes: geometry, reads and writes of every alignment, and what is on the disk afterwards as another open sees it.
 */
import { readFileSync } from 'node:fs';
import { type BlockFile, open } from '../../../src/index.js';
import { fillContent } from '../content.js';
import type { Settings } from '../messages.js';
import { attribute, check, disk, tally } from './guest.js';

const SEED = 7;
const BYTES = 4 << 20;

/** Offsets and lengths that start and end within sectors, at their bounds, and across them. */
const ranges: ReadonlyArray<readonly [offset: number, length: number]> = [
  [0, 512],
  [512, 512],
  [511, 2],
  [4095, 2],
  [3584, 1024],
  [4096, 4096],
  [512, 8192],
  [12_345, 54_321],
  [1 << 20, 1 << 20],
  [(2 << 20) - 1, 3],
];

/** Compares ranges with the model; names those that differ. */
async function differing(file: BlockFile, model: Buffer): Promise<string[]> {
  const wrong: string[] = [];
  for (const [offset, length] of ranges) {
    const window = await file.window(offset, length);
    if (Buffer.compare(window.bytes, model.subarray(offset, offset + length)) !== 0) wrong.push(`${length} at ${offset}`);
    window.release();
  }
  return wrong;
}

export async function sectorSizes(settings: Settings): Promise<void> {
  const name = await disk(String(settings.disk));
  const path = `/dev/${name}`;
  const logical = Number(settings.logical);
  const physical = Number(settings.physical);
  const model = Buffer.alloc(BYTES);
  fillContent(model, 0, SEED);

  for (const engine of ['io_uring', 'threads'] as const) {
    const file = await open(path, { caching: 'direct', engine, access: 'read-write' });
    const { geometry } = file;
    const sizes = `logical ${geometry.logicalSectorSize}, physical ${geometry.physicalSectorSize}, memory ${geometry.memoryAlignment}, read ${geometry.readAlignment}, write ${geometry.writeAlignment}`;
    const sysfs = `/sys/block/${name}/queue`;
    check(
      geometry.logicalSectorSize === logical &&
        geometry.physicalSectorSize === physical &&
        geometry.readAlignment === logical &&
        geometry.writeAlignment === logical,
      `${engine}: geometry is the disk's (${sizes})`,
      `${sizes}; sysfs: logical ${attribute(`${sysfs}/logical_block_size`)}, physical ${attribute(`${sysfs}/physical_block_size`)}`,
    );
    await file.write(model, 0);
    // Pieces that begin and end within a sector: the rest of it has to be read before.
    const piece = Buffer.from(`written by ${engine} into the middle of a sector`);
    for (const offset of [100, 511, 4090, 70_000, BYTES - 5000]) {
      await file.write(piece, offset);
      piece.copy(model, offset);
    }
    await file.flush();
    await file.evict(0, BYTES);
    const wrong = await differing(file, model);
    check(wrong.length === 0, `${engine}: ${ranges.length} ranges of all alignments are read right after writing, flushing and evicting`, tally(wrong));
    await file.close();

    const again = await open(path, { caching: 'direct', engine });
    const wrongAgain = await differing(again, model);
    check(wrongAgain.length === 0, `${engine}: the same after opening again`, tally(wrongAgain));
    await again.close();
  }

  const cached = await open(path);
  const wrong = await differing(cached, model);
  check(wrong.length === 0, 'page-cache mode reads the same', tally(wrong));
  await cached.close();
  check(readFileSync(path).subarray(0, BYTES).equals(model), 'node:fs reads the same');
}
