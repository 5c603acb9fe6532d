/**
 * The one door to the addon: what it exports, typed, and where its binary is looked for.
 *
 * The addon checks no arguments, builds no errors and keeps no policy: it answers with numbers, a negative one is -errno.
 * Guarantees: loading fails with one ERR_SECTORWISE_NATIVE that lists every place tried, the platform, the C library and how to build.
 * Imported by io/, memory/, geometry/ and unplug/ alone.
 */
import { existsSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { SectorwiseError } from '../errors.js';
import type { CompletionQueue, EngineName, Feature, Slab } from './engine.js';
import { libcOf } from './libc.js';

/** A ring in the addon. Methods as `Engine` has them, but calls that can fail answer with -errno. */
export interface NativeRing {
  readonly engine: EngineName;
  readonly depth: number;
  readonly entries: ArrayBuffer;
  readonly control: ArrayBuffer;
  readonly queues: ReadonlyArray<Omit<CompletionQueue, 'words'> & { buffer: ArrayBuffer }>;
  submit(count: number): number;
  collect(): number;
  wait(): number;
  listen(onWake: () => void, onSettled: () => void): void;
  ref(): void;
  unref(): void;
  addFile(fd: number): number;
  addSlab(slab: NativeSlab): number;
  /** 0 or -errno. */
  giveBack(slab: number, offset: number, length: number): number;
  /** 1 if most of the slabs' memory that was used lies in huge pages, else 0. */
  isHuge(): number;
  close(): void;
  features(): Feature[];
}

/** A slab in the addon: a sealed memfd mapped shared and private. */
export type NativeSlab = Slab;

/** A part of a file mapped into the arena. */
export interface NativeSegment {
  readonly buffer: ArrayBuffer;
  /** Index of the first 2 MiB cell; the words of the validity table have the same index. */
  readonly firstCell: number;
  readonly cells: number;
  /**
   * Is every page of [offset, offset+length) present in the page table? Restores pages that JavaScript stored into on the way (private mappings only).
   * Answers with the byte offset (within the segment) of the first page that is missing, -1 if none is, or less than -1: -errno - 1 where PAGEMAP_SCAN does not work.
   */
  scan(offset: number, length: number): number;
  /** mincore into `target` (a byte for each page). 0 or -errno. */
  mincore(offset: number, length: number, target: Uint8Array): number;
  /** Puts zero pages under [offset, offset+length) (rounded out to pages), in one step. 0 or -errno. */
  repoint(offset: number, length: number): number;
  /** Maps the file's bytes there again after `repoint`, at the same place. 0 or -errno. */
  restore(offset: number, length: number, fd: number): number;
  /** Empties the page table over [offset, offset+length); what JavaScript stored into private pages is gone. 0 or -errno: EINVAL where a page of it is locked. */
  drop(offset: number, length: number): number;
  /** Locks the pages of [offset, offset+length), none of which is locked, those that are missing when they come in. 0 or -errno: ENOMEM, EPERM, EAGAIN beyond a limit. */
  lock(offset: number, length: number): number;
  /** Undoes `lock` for pages all of which are locked. 0. */
  unlock(offset: number, length: number): number;
  /** Brings the pages into the page table for reading, waiting for the device if need be. 0 or -errno: EFAULT where a touch would be SIGBUS. */
  populate(offset: number, length: number): number;
  /** Pages of [offset, offset+length) that are in the page table, or -errno. */
  present(offset: number, length: number): number;
  /** Re-points everything and gives the address space back once the buffer was collected. */
  close(): void;
}

/** A part of a file mapped into the arena as the caller wants it: any protection, shared or private, a buffer of any length. Ranges may end with the last page, behind the buffer. */
export interface NativeRegion extends Pick<NativeSegment, 'buffer' | 'firstCell' | 'cells' | 'populate' | 'close'> {
  /** madvise: 0 or -errno. */
  advise(offset: number, length: number, advice: number): number;
  /** msync: 0 or -errno. */
  sync(offset: number, length: number, flags: number): number;
  /** Pages of [offset, offset+length) that mincore calls resident, or -errno. */
  inCore(offset: number, length: number): number;
}

/** The addon's answer about an open file. Sizes in bytes, -1 or 0 where the kernel did not say. */
export interface NativeProbe {
  /** st_mode, or -errno if the descriptor cannot be asked at all. */
  mode: number;
  size: number;
  /** Device numbers as decimal strings: st_dev and st_rdev, `major:minor`. */
  dev: string;
  rdev: string;
  ino: string;
  /** statfs f_type. */
  fsType: number;
  /** statfs f_bsize: on btrfs its sector size. */
  fsBlockSize: number;
  /** btrfs: the name of its folder under /sys/fs/btrfs; '' for everything else. */
  fsid: string;
  /** XFS: the data lies on the realtime device, which st_dev does not name. */
  realtime: boolean;
  /** statx: 0 where not reported. */
  dioMemAlign: number;
  dioOffsetAlign: number;
  dioReadOffsetAlign: number;
  /** Whether the kernel reported STATX_DIOALIGN at all, and STATX_DIO_READ_ALIGN. */
  dioReported: boolean;
  dioReadReported: boolean;
  /** Block devices: BLKSSZGET, BLKPBSZGET, BLKIOMIN, BLKIOOPT, BLKALIGNOFF, BLKGETSIZE64, BLKROTATIONAL, BLKSECTGET (in 512-byte units), BLKROGET, BLKGETDISKSEQ; -errno where refused. */
  logical: number;
  physical: number;
  ioMin: number;
  ioOpt: number;
  alignOff: number;
  deviceSize: number;
  rotational: number;
  maxSectors: number;
  readOnly: number;
  diskSeq: number;
}

export interface NativeExtents {
  /** -errno, or 0. */
  status: number;
  /** logical, physical, length, flags for each extent, in bytes. */
  values: Float64Array;
  /** The last extent of the file is among them. */
  complete: boolean;
}

/** How the loss of a device concerns a file: it holds the bytes; it is the disk of that; it is one of several below, whose loss the file may survive. */
export const ROLE_OWN = 0;
export const ROLE_DISK = 1;
export const ROLE_MEMBER = 2;

/** A device whose loss concerns a watched file. */
export interface NativeWatchedDevice {
  /** In sysfs; its attribute `size` is kept open. */
  folder: string;
  /** `major:minor`. */
  numbers: string;
  /** DISKSEQ, -1 where unknown. */
  sequence: number;
  /** ROLE_… */
  role: number;
}

/** What is to be watched. Words are indices in the validity table; none may be freed before `unwatch`. */
export interface NativeWatchRequest {
  /** Duplicated; -1 to watch the devices alone. */
  fd: number;
  /** Gets the cause (CAUSE_UNPLUG, CAUSE_SHUTDOWN) by compare-exchange from 0, on the watcher's thread. */
  word: number;
  /** Bits are set in it: SIGNAL_… */
  signal: number;
  /** Holds the number of live windows; 0 is not asked after. */
  live: number;
  isDevice: boolean;
  /** Served by somebody else (FUSE, network): asked after on the prober's thread alone. */
  remote: boolean;
  /** Bytes as they are known; any other size is signalled. */
  size: number;
  /** DISKSEQ of the disk that holds the bytes, -1 where unknown. */
  sequence: number;
  /** Files with the same one are on the same device: they are read from it in turn. */
  group: string;
  /** Node of the device that holds the bytes of a regular file, '' for none; opened for reading when the file's own reads fail, where allowed. */
  node: string;
  nodeMajor: number;
  nodeMinor: number;
  devices: NativeWatchedDevice[];
}

/** The file has another size than was known. */
export const SIGNAL_SIZE = 1;
/** The cause is in the file's word. */
export const SIGNAL_LOST = 2;
/** A page of some file could not be brought in. */
export const SIGNAL_FAULT = 4;
/** The suspicion was looked into, whether or not something was found. */
export const SIGNAL_SETTLED = 8;

export interface NativeBinding {
  createRing(options: { engine: 'auto' | EngineName; depth: number }): NativeRing | { error: number; features: Feature[] };
  /** 0 < bytes, a multiple of 4096. A negative number is -errno. */
  createSlab(bytes: number): NativeSlab | number;
  /** Zeroed memory that no child of this process inherits, a multiple of 4096 bytes; it goes back when the buffer was collected. A negative number is -errno. */
  createTables(bytes: number): ArrayBuffer | number;
  /** Maps [position, position+length) of fd into the arena; position and length multiples of 4096. */
  mapSegment(fd: number, position: number, length: number, shared: boolean): NativeSegment | number;
  /** As mmap, but for the place; `length` is also the buffer's. A range of the arena or -errno: ENOMEM without room in it, EOPNOTSUPP for files of huge pages and where the runtime takes no such buffer. */
  mapRegion(fd: number, position: number, length: number, protection: number, flags: number): NativeRegion | number;
  /** The validity table: one word for each cell of the arena, then `validityExtra` words for files and devices. One for the process. */
  validity(): { buffer: ArrayBuffer; cells: number; extra: number };
  /** Takes a free word among the extra ones (zeroed), -1 if none is left; and gives it back. */
  claimWord(): number;
  freeWord(index: number): void;
  /** Installs the SIGBUS handler: 0, 1 if somebody had replaced it, -EPERM where this thread blocks the signal, or -errno. */
  guardArm(): number;
  /** Cells that the SIGBUS handler replaced so far in this process. */
  guardFaults(): number;
  pageSize(): number;
  /** Bytes that the process may lock into memory (RLIMIT_MEMLOCK; Infinity with CAP_IPC_LOCK), and that segments of it have locked. */
  memoryLocks(): { limit: number; locked: number };
  /** Can PAGEMAP_SCAN be used in this process? 0 or -errno. */
  pagemapScan(): number;
  probe(fd: number): NativeProbe;
  /** Pages of [offset, offset+length) that mincore calls resident, or -errno; the offset is a multiple of 4096. It may reach beyond the end of the file. */
  countResident(fd: number, offset: number, length: number): number;
  /** cachestat(2): [cached, dirty, writeback, evicted, recently_evicted] pages into target, 0 or -errno. */
  cachestat(fd: number, offset: number, length: number, target: Float64Array): number;
  /** Non-blocking one-byte preadv2(RWF_NOWAIT): 1, 0 or -errno. */
  probeNowait(fd: number, offset: number): number;
  fiemap(fd: number, offset: number, length: number, sync: boolean): NativeExtents;
  /** A short direct read into scratch memory at a position that is aligned to `alignment` but not to more: bytes or -errno. */
  probeDirect(fd: number, position: number, length: number): number;
  /** flock(2), non-blocking: 0 or -errno. */
  lock(fd: number, exclusive: boolean): number;
  /** Ends it at once, also where others have descriptors of the same opening. */
  unlock(fd: number): void;
  /** Claims the inode for one read-write direct open in this process: true if it was free. Process-wide, also across copies in threads. */
  claimInode(key: string): boolean;
  freeInode(key: string): void;
  /** Runs off the main thread: 'allocate' | 'sync' | 'extents' …; resolves with 0 or -errno. */
  allocateAsync(fd: number, offset: number, length: number): Promise<number>;
  fiemapAsync(fd: number, offset: number, length: number, sync: boolean): Promise<NativeExtents>;
  fallocate(fd: number, offset: number, length: number): number;
  /** Once for each environment: `onSignal` is called from the event loop after signal words of its watches changed, once for many. 0 or -errno. */
  startWatching(onSignal: () => void): number;
  /** The number of the watch, or -errno. Starts the process's watcher thread with the first. */
  watch(request: NativeWatchRequest): number;
  /**
   * No word of the watch is written after this. Waits for the watcher's lock, and at most 10 ms for a direct read that is running: true if every descriptor
   * of the watch is closed, false where that read hangs (it is closed when the read ends).
   */
  unwatch(id: number): boolean;
  /**
   * Somebody's own operation failed with `errno` (EIO, ENODEV, …; 0 for no bytes inside the size): look at once. Answers with the number of the round, which
   * those that come while it runs share. SIGNAL_SETTLED follows when it ends, within `watcherPeriods.settle`.
   */
  suspect(id: number, errno: number): number;
  /** The last round that ended. */
  settledRound(id: number): number;
  /** The same, waiting for the answer: 0 or the cause. */
  suspectSync(id: number, errno: number): number;
  /** 0 or the cause, by what cannot block: sysfs, size, non-blocking read. A shutdown is told after its grace only. */
  checkNow(id: number): number;
  /** Whether signals to come keep the event loop alive; they do not unless asked. */
  refWatcher(held: boolean): void;
  watcherFeatures(): Feature[];
  /** Milliseconds; native/watcher.h says what of. */
  readonly watcherPeriods: { health: number; presence: number; grace: number; settle: number };
  /** The verdict alone, from places asked and failed, presence of the device (0 unknown, 1 there, 2 dead), a file system that refuses, and an errno that was reported. */
  judgePresence(isDevice: boolean, asked: number, failed: number, raw: number, refused: boolean, reported: number): { cause: number; wholeDevice: boolean };
}

let binding: NativeBinding | undefined;

/** The addon, loaded on first use. */
export function native(): NativeBinding {
  binding ??= load();
  return binding;
}

function packageRoot(): string {
  let folder = dirname(fileURLToPath(import.meta.url));
  for (;;) {
    const manifest = join(folder, 'package.json');
    if (existsSync(manifest) && JSON.parse(readFileSync(manifest, 'utf8')).name === 'sectorwise') return folder;
    const parent = dirname(folder);
    if (parent === folder) return dirname(fileURLToPath(import.meta.url));
    folder = parent;
  }
}

function load(): NativeBinding {
  const root = packageRoot();
  const require = createRequire(import.meta.url);
  const libc = libcOf(process.execPath);
  const places = [join(root, 'build', 'Release', 'sectorwise.node'), join(root, 'prebuilds', `${process.platform}-${process.arch}`, `sectorwise.${libc}.node`)];
  const tried: string[] = [];
  let cause: unknown;
  for (const place of places) {
    if (!existsSync(place)) {
      tried.push(`${place}: not there`);
      continue;
    }
    try {
      return require(place) as NativeBinding;
    } catch (error) {
      cause = error;
      tried.push(`${place}: ${(error as Error).message}`);
    }
  }
  throw new SectorwiseError(
    'ERR_SECTORWISE_NATIVE',
    `The native part of sectorwise could not be loaded on ${process.platform}-${process.arch} (${libc}), Node ${process.version}. Tried:\n  ${tried.join('\n  ')}\n` +
      `${libc === 'musl' ? 'The package has no binary for musl. ' : ''}Build it from source with a C++17 compiler and cmake: cd ${root} && npm install cmake-js && npx cmake-js compile`,
    { cause },
  );
}
