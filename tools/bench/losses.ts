/**
 * Ways to lose the ground under windows, each with the file that loses it: what the group `invalidate` pulls.
 *
 * A loss is the library's own call (then time counts from that call), or something that happens outside and has to be noticed (then from the moment that it has happened).
 * Leaves to others: the windows, the clock and the proof that none is valid any more (invalidate-run.ts).
 */
import { mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { OpenFile } from '../../src/file.js';
import { type BlockFile, type OpenOptions, open } from '../../src/index.js';
import { CAUSE_UNPLUG } from '../../src/memory/validity.js';
import { openSimulated, SimulatedDisk } from '../../src/testing/index.js';
import { loopRefusal, makeFileSystem, tool, type Undo } from './throttled-device.js';

/** Bytes of the file: room for 100,000 blocks of 4 KiB. */
export const lossFileBytes = 448 * 1024 ** 2;
/** Room for a file system's own blocks, its log above all. */
const overheadBytes = 256 * 1024 ** 2;

export interface Doomed {
  file: BlockFile;
  /** Pulls. */
  lose(): void | Promise<void>;
}

export interface Loss {
  name: string;
  /** It happens outside: the library has to notice. */
  outside: boolean;
  /** Why it cannot be had here. */
  refusal(): string | undefined;
  make(folder: string, undo: Undo): Promise<Doomed>;
}

/** Declares an unplug for an open file, as the watcher does when it has found out. */
function declareUnplug(file: BlockFile): void {
  (file as OpenFile).lose(CAUSE_UNPLUG);
}

const always = (): undefined => undefined;

/** A file of zeros, which takes no space. */
async function openZerosIn(folder: string, options: OpenOptions): Promise<{ path: string; file: BlockFile }> {
  const path = join(folder, 'zeros');
  writeFileSync(path, '');
  truncateSync(path, lossFileBytes);
  return { path, file: await open(path, { cacheSize: lossFileBytes, ...options }) };
}

/** The same in a folder of its own, that is removed afterwards. */
async function openZeros(folder: string, undo: Undo, options: OpenOptions): Promise<{ path: string; file: BlockFile }> {
  const own = mkdtempSync(join(folder, 'sectorwise-bench-'));
  undo.add(() => rmSync(own, { recursive: true, force: true }));
  return openZerosIn(own, options);
}

function closing(name: string, caching: 'page-cache' | 'direct'): Loss {
  return {
    name,
    outside: false,
    refusal: always,
    make: async (folder, undo) => {
      const { file } = await openZeros(folder, undo, { caching });
      return { file, lose: () => file.close() };
    },
  };
}

function declaring(name: string, caching: 'page-cache' | 'direct'): Loss {
  return {
    name,
    outside: false,
    refusal: always,
    make: async (folder, undo) => {
      const { file } = await openZeros(folder, undo, { caching });
      return { file, lose: () => declareUnplug(file) };
    },
  };
}

/** A file system that refuses everything from one moment on, as it does when its device is gone; cached pages stay readable. */
function shuttingDown(name: string, ...make: string[]): Loss {
  return {
    name,
    outside: true,
    refusal: () => loopRefusal(make[0], 'xfs_io'),
    make: async (base, undo) => {
      const { folder } = makeFileSystem(base, lossFileBytes + overheadBytes, make, undo);
      // Nothing can be removed from it afterwards; the image goes as a whole.
      const { file } = await openZerosIn(folder, { caching: 'page-cache' });
      return { file, lose: () => void tool('xfs_io', '-x', '-c', 'shutdown', folder) };
    },
  };
}

export const losses: readonly Loss[] = [
  declaring('unplug, page cache', 'page-cache'),
  declaring('unplug, direct', 'direct'),
  {
    name: 'unplug of the simulated disk',
    outside: true,
    refusal: always,
    make: async () => {
      const disk = new SimulatedDisk({ size: lossFileBytes, kind: 'block-device', seed: 1, latency: { min: 1, max: 1 }, checkMemory: false });
      const file = openSimulated(disk, { cacheSize: lossFileBytes });
      return {
        file,
        lose: () => disk.unplug(),
      };
    },
  },
  shuttingDown('ext4 shut down', 'mkfs.ext4', '-q'),
  shuttingDown('xfs shut down', 'mkfs.xfs', '-q'),
  {
    name: 'truncated by somebody else',
    outside: true,
    refusal: always,
    make: async (folder, undo) => {
      const { path, file } = await openZeros(folder, undo, { caching: 'page-cache' });
      return { file, lose: () => truncateSync(path, 0) };
    },
  },
  {
    name: 'resize(0), page cache',
    outside: false,
    refusal: always,
    make: async (folder, undo) => {
      const { file } = await openZeros(folder, undo, { caching: 'page-cache', access: 'read-write' });
      return { file, lose: () => file.resize(0) };
    },
  },
  closing('close(), page cache', 'page-cache'),
  closing('close(), direct', 'direct'),
];
