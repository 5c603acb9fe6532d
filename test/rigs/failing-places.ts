/**
 * Places that fail on demand: devices that die, file systems that are shut down, and those that are full.
 *
 *   dying:  file ─> upper file system ─> loop device ─> image on an xfs, which is shut down: from then on every I/O of the loop device is EIO
 *
 * Guarantees: what is made is taken down with the `LoopDevices` that it was made with.
 * Leaves to others: FUSE (fuse-server.ts), devices that vanish from the bus (tools/lab).
 */
import { execFileSync } from 'node:child_process';
import { closeSync, fsyncSync, openSync, readFileSync, truncateSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { hasCommand, isRoot, type LoopDevices, noFileSystem } from '../geometry/loop-devices.js';
import { fillPattern } from './pattern.js';

const MEBIBYTE = 2 ** 20;

export type UpperFileSystem = 'ext4' | 'xfs';

const noXfsIo = hasCommand('xfs_io') ? undefined : 'needs xfs_io, to shut a file system down';

/** Why a file system cannot be shut down here; undefined where it can. */
export function noShutdown(kind: UpperFileSystem): string | undefined {
  return noFileSystem(`mkfs.${kind}`) ?? noXfsIo;
}

/** Why a device cannot be made to die here; undefined where it can. */
export const noDyingDevice = noShutdown('xfs');
export const noTmpfs = isRoot ? undefined : 'needs root, to mount a small tmpfs';

/** From now on every call that needs the file system gives EIO; also what it had not written is lost. */
export function shutDown(folder: string): void {
  execFileSync('xfs_io', ['-x', '-c', 'shutdown', folder], { stdio: ['ignore', 'ignore', 'pipe'] });
}

export interface DyingDevice {
  device: string;
  kill: () => void;
}

/** A loop device with this content (a whole number of sectors). */
export function dyingDevice(loops: LoopDevices, content: Uint8Array): DyingDevice {
  const { folder } = loops.fileSystem(Math.max(400 * MEBIBYTE, content.length + 100 * MEBIBYTE), 'mkfs.xfs', '-q');
  const image = join(folder, 'image');
  writeFileSync(image, content);
  return { device: loops.attach(image), kill: () => shutDown(folder) };
}

/** Smallest that mkfs makes without being asked twice. */
const UPPER_BYTES: Record<UpperFileSystem, number> = { ext4: 64 * MEBIBYTE, xfs: 320 * MEBIBYTE };

/** A file system on a device that dies. */
export function dyingFileSystem(loops: LoopDevices, kind: UpperFileSystem): DyingDevice & { folder: string } {
  const { folder: below } = loops.fileSystem(Math.max(400 * MEBIBYTE, UPPER_BYTES[kind] + 100 * MEBIBYTE), 'mkfs.xfs', '-q');
  const image = join(below, 'image');
  writeFileSync(image, '');
  truncateSync(image, UPPER_BYTES[kind]);
  const device = loops.attach(image);
  execFileSync(`mkfs.${kind}`, ['-q', device], { stdio: 'ignore' });
  return { device, folder: loops.mount(device), kill: () => shutDown(below) };
}

/** A file with the content of `seed`, on stable storage. */
export function patternFile(path: string, bytes: number, seed: number): string {
  const fd = openSync(path, 'w');
  const piece = new Uint8Array(MEBIBYTE);
  for (let at = 0; at < bytes; at += piece.length) writeSync(fd, fillPattern(piece, at, seed), 0, Math.min(piece.length, bytes - at), at);
  fsyncSync(fd);
  closeSync(fd);
  return path;
}

/** A file of `bytes` without blocks, in a folder whose file system has no space left. */
export function holeWithoutSpace(folder: string, bytes: number): string {
  const path = join(folder, 'hole');
  writeFileSync(path, '');
  truncateSync(path, bytes);
  const filler = openSync(join(folder, 'filler'), 'w');
  try {
    for (let size = MEBIBYTE; size >= 512; ) {
      try {
        writeSync(filler, Buffer.alloc(size, 1));
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== 'ENOSPC') throw error;
        size /= 2;
      }
    }
    fsyncSync(filler);
  } finally {
    closeSync(filler);
  }
  return path;
}

/** Whether something is mounted there. */
export function isMounted(folder: string): boolean {
  return readFileSync('/proc/self/mountinfo', 'utf8').includes(` ${folder} `);
}
