/**
 * The kinds of place that the groups measure on, each filled with seeded bytes, which no device can compress:
 *
 *   file   a file in the folder that was given, on whatever file system that is
 *   loop   a loop device over a file in a tmpfs of its own: the block layer and the loop driver's workers, and no device below
 *   zram   a RAM disk that compresses each page of 4 KiB (lzo-rle); what cannot be compressed, as here, it keeps as it is
 *
 * Guarantees: only devices that were free or are new are used, none that somebody has; the pages that filling left in the page cache are dropped, which is proved of
 * a file; everything is taken down by `undo`, at the latest when the process ends. A process that is killed (SIGKILL) takes down nothing.
 */
import { closeSync, constants, existsSync, mkdirSync, mkdtempSync, openSync, readFileSync, rmSync, statfsSync, statSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { openSync as openBlockFile } from '../../src/index.js';
import { fillFile } from './bench-file.js';
import { availableBytes } from './memory-info.js';
import { setCache } from './page-cache.js';
import { deviceOf, fileSystemOf, type Section, type Settings, type Target } from './report.js';
import { loopRefusal, patiently, tool, Undo } from './throttled-device.js';

export type PlaceKind = 'file' | 'loop' | 'zram';
export const placeKinds: readonly PlaceKind[] = ['file', 'loop', 'zram'];

export interface Place {
  kind: PlaceKind;
  /** As sections are titled by it: ext4, loop on tmpfs, zram. */
  name: string;
  /** What it is made of, and its flags. */
  detail: string;
  path: string;
  size: number;
  logicalSectorSize: number;
  /** Can it be polled for completions? */
  polls: boolean;
  /** The counts of a device that nobody else uses; undefined where the device is shared. */
  statPath: string | undefined;
}

/** What may be taken besides the place's own bytes. */
const spareBytes = 2 * 1024 ** 3;

function queueValue(device: string, name: string): number {
  try {
    return Number(readFileSync(`/sys/class/block/${device}/queue/${name}`, 'utf8'));
  } catch {
    // Nothing to be polled, and the sector size that every device has had.
    return name === 'logical_block_size' ? 512 : 0;
  }
}

/** The whole disk that a partition or a mount's source belongs to. */
function diskOf(device: string): string {
  return existsSync(`/sys/class/block/${device}/partition`) ? basename(join(tool('readlink', '-f', `/sys/class/block/${device}`), '..')) : device;
}

async function makeFile(folder: string, size: number, undo: Undo): Promise<Place | string> {
  const { bavail, bsize } = statfsSync(folder);
  if (bavail * bsize < size + spareBytes) return `needs ${size + spareBytes} bytes free in ${folder}`;
  const own = mkdtempSync(join(folder, 'sectorwise-bench-'));
  undo.add(() => rmSync(own, { recursive: true, force: true }));
  const path = join(own, 'bytes');
  await fillFile(path, size);
  await setCache('cold', path, size);
  const disk = diskOf(basename(deviceOf(folder)));
  const file = openBlockFile(path);
  const { readAlignment } = file.geometry;
  await file.close();
  const name = fileSystemOf(folder);
  return {
    kind: 'file',
    name,
    detail: `a file on ${name}, ${disk}, which others use too`,
    path,
    size,
    logicalSectorSize: readAlignment || queueValue(disk, 'logical_block_size'),
    polls: queueValue(disk, 'io_poll') === 1,
    statPath: undefined,
  };
}

function placeOn(kind: PlaceKind, name: string, detail: string, path: string, size: number): Place {
  const device = basename(path);
  return {
    kind,
    name,
    detail,
    path,
    size,
    logicalSectorSize: queueValue(device, 'logical_block_size'),
    polls: queueValue(device, 'io_poll') === 1,
    statPath: `/sys/class/block/${device}/stat`,
  };
}

async function makeLoop(folder: string, size: number, undo: Undo): Promise<Place | string> {
  const refusal = loopRefusal();
  if (refusal !== undefined) return refusal;
  const own = mkdtempSync(join(folder, 'sectorwise-bench-'));
  undo.add(() => rmSync(own, { recursive: true, force: true }));
  const mounted = join(own, 'tmpfs');
  mkdirSync(mounted);
  tool('mount', '-t', 'tmpfs', '-o', `size=${size + (16 << 20)}`, 'tmpfs', mounted);
  undo.add(() => patiently(() => tool('umount', mounted)));
  const image = join(mounted, 'image');
  await fillFile(image, size);
  // The kernel names a free one and attaches it in one step: nobody else's can be taken.
  const device = tool('losetup', '--find', '--show', '--nooverlap', image);
  undo.add(() => tool('losetup', '--detach', device));
  const direct = readFileSync(`/sys/class/block/${basename(device)}/loop/dio`, 'utf8').trim() === '1';
  return placeOn(
    'loop',
    'loop on tmpfs',
    `a loop device over a file in tmpfs (losetup without flags; direct I/O ${direct ? 'on' : 'off, tmpfs is memory already'})`,
    device,
    size,
  );
}

const zramControl = '/sys/class/zram-control';

async function makeZram(size: number, undo: Undo): Promise<Place | string> {
  if (process.geteuid?.() !== 0) return 'needs root (for a zram device)';
  if (!existsSync(zramControl)) {
    try {
      tool('modprobe', 'zram', 'num_devices=0');
    } catch {
      // Said below.
    }
  }
  if (!existsSync(join(zramControl, 'hot_add'))) return 'needs the kernel module zram';
  // Reading makes a new device and names it: one that exists already is never touched.
  const number = readFileSync(join(zramControl, 'hot_add'), 'utf8').trim();
  const device = `zram${number}`;
  undo.add(() => patiently(() => writeFileSync(join(zramControl, 'hot_remove'), number)));
  const system = `/sys/class/block/${device}`;
  if (readFileSync(join(system, 'disksize'), 'utf8').trim() !== '0') return `${device} should be new, but has a size`;
  writeFileSync(join(system, 'disksize'), String(size));
  undo.add(() => patiently(() => writeFileSync(join(system, 'reset'), '1')));
  const path = join('/dev', device);
  patiently(() => statSync(path));
  // Exclusive: fails if anybody has mounted it or swaps to it meanwhile.
  const claim = openSync(path, constants.O_RDWR | constants.O_EXCL);
  closeSync(claim);
  await fillFile(path, size);
  tool('blockdev', '--flushbufs', path);
  const algorithm = /\[([^\]]+)\]/.exec(readFileSync(join(system, 'comp_algorithm'), 'utf8'))?.[1] ?? 'unknown';
  const [original, compressed] = readFileSync(join(system, 'mm_stat'), 'utf8').trim().split(/\s+/).map(Number);
  return placeOn('zram', 'zram', `zram, ${algorithm}, of bytes that cannot be compressed (to ${Math.round((100 * compressed) / original)} %)`, path, size);
}

/** The place, filled; or why there is none. */
export async function makePlace(kind: PlaceKind, folder: string, size: number, undo: Undo): Promise<Place | string> {
  if (kind === 'file') return makeFile(folder, size, undo);
  if (availableBytes() < size + spareBytes) return `needs ${size + spareBytes} bytes of memory available`;
  try {
    return await (kind === 'loop' ? makeLoop(folder, size, undo) : makeZram(size, undo));
  } catch (error) {
    return `could not be made: ${(error as Error).message.trim().split('\n').at(-1)}`;
  }
}

/** Makes each kind of place in turn, has it measured, and takes it down again; one that cannot be had is a section of its own, skipped by name. */
export async function atPlaces(
  kinds: readonly PlaceKind[],
  size: number,
  { folder, log }: Pick<Settings, 'folder' | 'log'>,
  measure: (place: Place) => Promise<{ sections: Section[]; targets: Target[] }>,
): Promise<{ sections: Section[]; targets: Target[] }> {
  const sections: Section[] = [];
  const targets: Target[] = [];
  for (const kind of kinds) {
    const undo = new Undo();
    try {
      const place = await makePlace(kind, folder, size, undo);
      if (typeof place === 'string') {
        log(`  skipped: ${kind}: ${place}`);
        sections.push({ title: kind, unit: 'op/s', rows: [], skipped: [{ name: kind, reason: place }] });
      } else {
        const measured = await measure(place);
        sections.push(...measured.sections);
        targets.push(...measured.targets);
      }
    } finally {
      undo.run();
    }
  }
  return { sections, targets };
}

/** Bytes that a device has moved since it was made. */
export interface MovedBytes {
  read: number;
  written: number;
}

/** The counts of a device of its own, in sectors of 512 bytes whatever its own are (Documentation/block/stat.rst); else what the kernel has charged this process and the children that it waited for. */
export function movedBytes(statPath: string | undefined): MovedBytes | undefined {
  try {
    if (statPath !== undefined) {
      const fields = readFileSync(statPath, 'utf8').trim().split(/\s+/).map(Number);
      return { read: fields[2] * 512, written: fields[6] * 512 };
    }
    const text = readFileSync('/proc/self/io', 'utf8');
    const value = (name: string): number => Number(new RegExp(`^${name}: (\\d+)$`, 'm').exec(text)?.[1]);
    return { read: value('read_bytes'), written: value('write_bytes') };
  } catch {
    // A kernel without accounting of I/O.
    return undefined;
  }
}

/** Begins; the function that it answers with ends. */
export function measureMoved(statPath: string | undefined): () => MovedBytes | undefined {
  const before = movedBytes(statPath);
  return () => {
    const after = movedBytes(statPath);
    return before && after && { read: after.read - before.read, written: after.written - before.written };
  };
}
