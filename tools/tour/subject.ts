/**
 * What the tour reads: the file or device that was named, or one of its own.
 *
 * Guarantees: a named one is never opened for writing; our own is gone when the process ends, however it ends short of SIGKILL.
 * Anything that cannot be toured is refused here, with one line that says why.
 */
import { accessSync, constants, mkdtempSync, rmSync, statSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { bytesText } from '../bench/format.js';
import { seededBytes } from '../bench/pattern.js';
import { BadInput } from './arguments.js';

/** Any number would do; with this one everybody reads the same bytes. */
const seed = 0x5ec7;

/** The path that was named, once it is known to be something that can be read. */
export function namedSubject(path: string): string {
  const full = resolve(path);
  try {
    const stats = statSync(full);
    if (stats.isDirectory()) throw new BadInput(`${path} is a directory; name a file or a block device`);
    if (!stats.isFile() && !stats.isBlockDevice()) throw new BadInput(`${path} is neither a regular file nor a block device`);
    accessSync(full, constants.R_OK);
  } catch (error) {
    throw asBadInput(path, error);
  }
  return full;
}

function asBadInput(path: string, error: unknown): unknown {
  switch ((error as NodeJS.ErrnoException).code) {
    case 'ENOENT':
      return new BadInput(`${path} does not exist`);
    case 'ENOTDIR':
      return new BadInput(`${path} does not exist: a part of it is not a directory`);
    case 'EACCES':
    case 'EPERM':
      return new BadInput(`no permission to read ${path}; try it as its owner or as root`);
    case 'ELOOP':
      return new BadInput(`${path} is a symbolic link that leads to itself`);
    default:
      return error;
  }
}

let folder: string | undefined;

/** A folder for what the tour makes. */
export function temporaryFolder(): string {
  if (folder === undefined) {
    const made = mkdtempSync(join(tmpdir(), 'sectorwise-tour-'));
    process.on('exit', () => rmSync(made, { recursive: true, force: true }));
    folder = made;
  }
  return folder;
}

/** A file of `size` seeded bytes in the temp folder. It is on the device when this returns, so that its pages can be dropped. */
export async function makeSubject(size: number, onProgress: (fraction: number) => void): Promise<string> {
  const path = join(temporaryFolder(), 'bytes');
  const next = seededBytes(seed);
  const handle = await open(path, 'wx');
  try {
    for (let position = 0; position < size; ) {
      const piece = next(Math.min(1 << 20, size - position));
      position += (await handle.write(piece)).bytesWritten;
      onProgress(position / size);
    }
    await handle.sync();
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOSPC') throw new BadInput(`no room for ${bytesText(size)} in ${tmpdir()}; use --size or set TMPDIR`);
    throw error;
  } finally {
    await handle.close();
  }
  return path;
}
