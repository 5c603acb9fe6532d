/**
 * A file over a simulated disk: the whole library above the ring, as it runs in production, on a disk that fails on demand.
 *
 * Guarantees: no native code, no real device, no real time; what happens depends on the seed of the disk and on the calls that are made.
 * Leaves to others: what fails and when (`simulated-disk.ts`), the file itself (`direct-file.ts`).
 */
import { directFile } from '../direct-file.js';
import { invalidType, invalidValue, outOfRange } from '../errors.js';
import type { BlockFile, OpenFile } from '../file.js';
import type { Geometry } from '../geometry/geometry.js';
import type { FrameCache } from '../memory/frame-cache.js';
import { CAUSE_NONE, CAUSE_SHUTDOWN, CAUSE_UNPLUG } from '../memory/validity.js';
import type { RequestManager } from '../requests/request-manager.js';
import type { GroundListener, GroundWatch } from '../unplug/ground-watch.js';
import type { DirectAccess } from '../windows/direct-access.js';
import { Ground } from '../windows/ground.js';
import { createHeapSlab } from './heap-slab.js';
import type { SimulatedDisk } from './simulated-disk.js';
import type { SimulatedEngine } from './simulated-engine.js';

const BLOCK_BYTES = 4096;
/** Turns of the event loop until a late answer comes, one less at most. */
const LATE_TURNS_MAX = 4;
/** What goes back to the system at once: little, so that it happens in small caches too. */
const AREA_FRAMES = 4;
/** What is read back at once: little, so that writes wait for it. */
const VERIFY_BYTES = 32 * 1024;

/** Options of {@link openSimulated}. As those of `open` where they have the same name, but without its lower limits, so that a test can make everything scarce. */
export interface SimulatedOpenOptions {
  /** Default 'read'. */
  access?: 'read' | 'read-write';
  /** Bytes of frames, rounded up to whole blocks of 4096. From one block up; a request that needs more at once fails. Default 1 MiB. */
  cacheSize?: number;
  /** Device operations in flight at most. Default 128; not with `engine`, which has its own. */
  queueDepth?: number;
  /** Neighbouring reads of one turn become one operation up to `mergeLimit` bytes (default 1 MiB), reading over gaps up to `gapLimit` bytes (default 16 KiB). */
  coalesce?: {
    /** Bytes of one operation at most. */
    mergeLimit?: number;
    /** Bytes that are read over at most, so that two reads become one. */
    gapLimit?: number;
  };
  /** Sequential read-ahead, in bytes. Default { initial: 128 KiB, max: 8 MiB }, all streams together never more than half of the cache. */
  readAhead?:
    | false
    | {
        /** Bytes of the first piece. */
        initial?: number;
        /** Bytes that one stream is ahead at most. */
        max?: number;
      };
  /** Every written range is read back and compared before the write counts, as `open` does with it; finds the lies of {@link FaultKind}. Default false. */
  verifyWrites?: boolean;
  /**
   * How the file finds out that the disk is lost or was resized.
   * - 'event' (default): within the call that does it, as from the kernel's events.
   * - 'error': only when an operation fails or stops short, or a request reaches past the end, as where no event comes. What is in memory stays readable until then.
   * - 'late': as 'error', but it takes some turns of the event loop to find out that the disk is lost, as asking the kernel does. A blocking call cannot wait for that: it ends with the device's
   *   own error, and the file is lost some time later.
   */
  notice?: 'event' | 'error' | 'late';
  /** Requests that can be on their way at once; the rest wait in line. Default 256. */
  slots?: number;
  /** Blocks in one slot; a longer request takes several slots. Default 512. */
  slotBlocks?: number;
  /** Bytes of one device operation at most. Default 1 MiB. */
  maxTransferSize?: number;
  /** An engine of this disk that has no slabs yet, to move time by hand (`drive: 'manual'`). Default: one that drives itself. */
  engine?: SimulatedEngine;
}

/** What a file over a simulated disk consists of. For tests of the library itself. */
export interface SimulatedParts {
  file: OpenFile;
  engine: SimulatedEngine;
  manager: RequestManager;
  frames: FrameCache;
  access: DirectAccess;
  ground: Ground;
}

const names = ['access', 'cacheSize', 'queueDepth', 'coalesce', 'readAhead', 'slots', 'slotBlocks', 'maxTransferSize', 'notice', 'engine', 'verifyWrites'];

/**
 * Opens a simulated disk in direct mode. The {@link BlockFile} is the one that `open` gives: cache, request manager, windows and flushes are the real ones; only
 * the device, and the memory under the windows, are simulated. So a storage engine that takes a `BlockFile` runs on it unchanged, and can be shown torn writes, failing syncs and a pulled plug.
 *
 * What differs from a real file: `explain().engine` is 'simulated'; stores into a read window are not kept out of the cache; `extents()` is one run.
 *
 * @param disk - may be opened again after a power cut or a replug; two files open at once do not see each other's cache.
 * @returns the file; to be closed.
 * @throws TypeError ERR_INVALID_ARG_VALUE for an unknown option, RangeError ERR_OUT_OF_RANGE for a number that cannot be.
 *
 * @example A log that must not lose what it acknowledged
 * ```ts
 * import assert from 'node:assert';
 * import { openSimulated, SimulatedDisk } from 'sectorwise/testing';
 *
 * for (let seed = 1; seed <= 100; seed++) {
 *   const disk = new SimulatedDisk({ size: 0, seed, faults: { shortWrite: 0.1, again: 0.1 } });
 *   const log = openSimulated(disk, { access: 'read-write', cacheSize: 64 * 1024 });
 *   const record = new TextEncoder().encode(`record of seed ${seed}\n`);
 *   await log.write(record, 0);
 *   await log.flush();
 *   await log.write(record, record.length); // never flushed
 *
 *   disk.powerCut(); // each unsynced sector survives or not, by seed
 *   await log.close().catch((error) => console.log(`gone with the power: ${error.message}`)); // that file is dead
 *
 *   const reopened = openSimulated(disk);
 *   const found = new Uint8Array(record.length);
 *   await reopened.read(found, 0);
 *   assert.deepEqual(found, record, `seed ${seed} lost what was flushed`);
 *   await reopened.close();
 * }
 * ```
 */
export function openSimulated(disk: SimulatedDisk, options: SimulatedOpenOptions = {}): BlockFile {
  return openSimulatedParts(disk, options).file;
}

/** As `openSimulated`, with access to what leak checks look at. */
export function openSimulatedParts(disk: SimulatedDisk, options: SimulatedOpenOptions = {}): SimulatedParts {
  for (const name of Object.keys(options)) {
    if (!names.includes(name))
      throw invalidValue(`options.${name}`, `is unknown; the options are ${names.join(', ')}`, options[name as keyof SimulatedOpenOptions]);
  }
  const { access = 'read', cacheSize = 1024 * 1024, coalesce = {}, readAhead, maxTransferSize = 1024 * 1024 } = options;
  if (access !== 'read' && access !== 'read-write') throw invalidValue('options.access', 'must be one of: read, read-write', access);
  if (options.engine !== undefined && options.queueDepth !== undefined) {
    throw invalidValue('options.queueDepth', 'cannot be set for an engine that exists; make the engine with { depth }', options.queueDepth);
  }
  checkInteger('options.cacheSize', cacheSize, BLOCK_BYTES);
  checkInteger('options.maxTransferSize', maxTransferSize, BLOCK_BYTES);
  if (options.slots !== undefined) checkInteger('options.slots', options.slots, 1);
  if (options.slotBlocks !== undefined) checkInteger('options.slotBlocks', options.slotBlocks, 1);
  const { verifyWrites = false } = options;
  if (typeof verifyWrites !== 'boolean') throw invalidType('options.verifyWrites', 'of type boolean', verifyWrites);
  const engine = options.engine ?? disk.engine({ depth: options.queueDepth });
  const path = `simulated disk of seed ${disk.seed}`;
  const { notice = 'event' } = options;
  if (notice !== 'event' && notice !== 'error' && notice !== 'late') throw invalidValue('options.notice', "must be one of: 'event', 'error', 'late'", notice);
  // A word that nobody else sets: there is no other thread here.
  const ground = new Ground(path, disk.size, new Int32Array(1), 0);
  const {
    file,
    manager,
    frames,
    access: direct,
  } = directFile({
    path,
    writable: access === 'read-write',
    geometry: geometryOf(disk, maxTransferSize),
    features: [],
    engine,
    file: engine.addFile(0),
    ground,
    sizeNow: () => disk.size,
    watch: (listener) => watchDisk(disk, listener, notice),
    readAhead: readAheadOf(readAhead),
    extents: async (offset, length) => [{ offset, length, sector: Math.floor(offset / 512), mappable: true }],
    dispose: () => {},
    cacheSize,
    // No real time.
    idleMs: Number.POSITIVE_INFINITY,
    areaFrames: AREA_FRAMES,
    verifyWrites,
    verifyBytes: VERIFY_BYTES,
    makeSlab: createHeapSlab,
    transfer: { memory: disk.sectorSize, read: disk.sectorSize, write: disk.sectorSize },
    mergeLimit: coalesce.mergeLimit ?? 1024 * 1024,
    gapLimit: coalesce.gapLimit ?? 16 * 1024,
    slots: options.slots,
    slotBlocks: options.slotBlocks,
  });
  return { file, engine, manager, frames, access: direct, ground };
}

/** The file belongs to the generation of the disk that it was opened in; any later one is another disk to it. */
function watchDisk(disk: SimulatedDisk, listener: GroundListener, notice: 'event' | 'error' | 'late'): GroundWatch {
  const { generation } = disk;
  let cause = CAUSE_NONE;
  let asked = 0;
  let found = notice !== 'late';
  // Opened while the disk was away: there is no event for that.
  const causeNow = (): number => (cause === CAUSE_NONE && !(disk.present && disk.generation === generation) ? CAUSE_UNPLUG : cause);
  const stop = disk.watch({
    lost: (how) => {
      if (cause === CAUSE_NONE) cause = how === 'unplug' ? CAUSE_UNPLUG : CAUSE_SHUTDOWN;
      if (notice === 'event') listener.lost(cause);
    },
    resized: () => {
      if (notice === 'event') listener.sizeChanged();
    },
  });
  return {
    suspect: (_result, settled) => {
      if (found) return false;
      let turns = asked++ % LATE_TURNS_MAX;
      // The answer is of the moment when it was asked, and comes later.
      const answer = causeNow();
      const turn = (): void => {
        if (turns-- > 0) {
          setImmediate(turn);
          return;
        }
        if (answer !== CAUSE_NONE && !found) {
          found = true;
          listener.lost(answer);
        }
        settled();
      };
      setImmediate(turn);
      return true;
    },
    check: () => (found ? causeNow() : CAUSE_NONE),
    suspectNow: () => {
      const known = causeNow();
      if (known !== CAUSE_NONE) found = true;
      return known;
    },
    liveWord: undefined,
    features: () => [],
    close: stop,
  };
}

function readAheadOf(value: SimulatedOpenOptions['readAhead']): { initial: number; max: number } {
  if (value === false) return { initial: 0, max: 0 };
  const { max = 8 * 1024 * 1024, initial = Math.min(128 * 1024, max) } = value ?? {};
  return { initial, max };
}

/** A solid-state disk with sectors of the simulated size. */
function geometryOf(disk: SimulatedDisk, maxTransferSize: number): Geometry {
  const { kind, sectorSize } = disk;
  return {
    kind,
    device: kind === 'block-device' ? 'simulated' : undefined,
    logicalSectorSize: sectorSize,
    physicalSectorSize: sectorSize,
    memoryAlignment: sectorSize,
    readAlignment: sectorSize,
    writeAlignment: sectorSize,
    minimumIoSize: sectorSize,
    optimalIoSize: 0,
    alignmentOffset: 0,
    maxTransferSize,
    rotational: false,
    diskSequence: undefined,
  };
}

function checkInteger(name: string, value: number, least: number): void {
  if (!Number.isSafeInteger(value) || value < least) throw outOfRange(name, `an integer >= ${least}`, value);
}
