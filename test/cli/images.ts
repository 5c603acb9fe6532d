/**
 * Images on disk for tests of the command, from bytes that were built by hand.
 *
 * Guarantees: an image of any size takes the room of what was written to it.
 */
import { closeSync, ftruncateSync, mkdtempSync, openSync, rmSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll } from 'vitest';
import type { Command } from '../../src/cli/command.js';
import { parse } from '../../src/cli/command.js';
import type { Terminal } from '../../src/cli/terminal.js';
import { SparseImage, writeGpt, writeMbr } from '../layout/corpus.js';
import { ext, fat } from '../layout/superblocks.js';

export const MIB = 1 << 20;
/** Removed when the tests of the file end. */
export const folder = mkdtempSync(join(tmpdir(), 'sectorwise-cli-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

export function saved(name: string, image: SparseImage): string {
  const path = join(folder, name);
  const fd = openSync(path, 'w');
  ftruncateSync(fd, Number(image.size));
  for (const block of image.written()) {
    const bytes = image.read(BigInt(block) * 4096n, 4096);
    writeSync(fd, bytes, 0, bytes.length, block * 4096);
  }
  closeSync(fd);
  return path;
}

/** A GPT with an ext4 on LBA 2048: nothing to complain of. */
export function good(size: bigint | number = 64 * MIB): SparseImage {
  const image = writeGpt(new SparseImage(size), { partitions: [{ first: 2048, last: 67583, name: 'root' }] });
  return image.write(2048 * 512, ext('ext4'));
}

/** An MBR as it was made until 2009: a FAT16 on LBA 63. */
export function old(): SparseImage {
  const image = writeMbr(new SparseImage(32 * MIB), [{ type: 6, start: 63, sectors: 64000 }]);
  return image.write(63 * 512, fat({ sectorsPerFat: 64, totalSectors: 64000, sectorsPerCluster: 8, reserved: 8 }));
}

export interface Ran {
  exit: number;
  out: string;
  err: string;
}

/** A command in this process, on a terminal of `columns` characters; `marked` shows colours as `<error>text</>`. */
export async function ran(command: Command, args: readonly string[], columns = 80, marked = false): Promise<Ran> {
  const { values, operands } = parse(args, command.options);
  const texts = { out: '', err: '' };
  const terminal: Terminal = {
    out(text) {
      texts.out += text;
    },
    err(text) {
      texts.err += text;
    },
    columns,
    paint: (colour, text) => (marked ? `<${colour}>${text}</>` : text),
  };
  const exit = await command.run(values, operands, terminal);
  // `align` sets it for whoever ends the process early.
  process.exitCode = undefined;
  return { exit, ...texts };
}
