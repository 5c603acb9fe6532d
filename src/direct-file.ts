/**
 * A file in direct mode, put together from an engine and memory: the same for the kernel's engines and for the simulated one.
 */
import { type FileParts, OpenFile } from './file.js';
import type { Slab } from './io/engine.js';
import { Ring } from './io/ring.js';
import { BLOCK_BYTES } from './memory/block-store.js';
import { FrameCache } from './memory/frame-cache.js';
import { Staging } from './memory/staging.js';
import type { MakeMemory } from './memory/tables.js';
import { MutationQueue } from './requests/mutation-queue.js';
import { RequestManager, type RequestSource } from './requests/request-manager.js';
import { Verification } from './requests/verification.js';
import { FileLink } from './unclosed.js';
import { DirectAccess } from './windows/direct-access.js';

/** What an opened file brings, whatever its mode. */
export interface FileBase
  extends Pick<FileParts, 'path' | 'writable' | 'geometry' | 'engine' | 'ground' | 'sizeNow' | 'watch' | 'readAhead' | 'collectable' | 'extents' | 'dispose'> {
  /** The engine's index of the file. */
  file: number;
}

export interface DirectFileOptions extends FileBase {
  features: FileParts['features'];
  cacheSize: number;
  /** Memory that nothing used for so long goes back to the system. Infinity: none. */
  idleMs: number;
  makeSlab: (bytes: number) => Slab;
  /** For tables of the cache. Default: the heap. */
  makeMemory?: MakeMemory;
  /** Alignments, in bytes, that memory, reads and writes keep. */
  transfer: { memory: number; read: number; write: number };
  mergeLimit: number;
  gapLimit: number;
  /** What is written is read back and compared before it counts. */
  verifyWrites: boolean;
  /** As in `RequestLimits`. Default false. */
  asyncTransfers?: boolean;
  /** Smaller pools, for tests. */
  slots?: number;
  slotBlocks?: number;
  /** Smaller areas to give back, for tests. */
  areaFrames?: number;
  /** Less memory for what is read back, for tests. */
  verifyBytes?: number;
}

export function directFile(options: DirectFileOptions): { file: OpenFile; manager: RequestManager; frames: FrameCache; access: DirectAccess } {
  const { engine, ground, path } = options;
  const alignment = Math.max(512, options.transfer.memory, options.transfer.read, options.transfer.write);
  const transferLimit = Math.max(BLOCK_BYTES, Math.floor(options.geometry.maxTransferSize / BLOCK_BYTES) * BLOCK_BYTES);
  const frames = new FrameCache(engine, options.makeSlab, options.cacheSize, options.idleMs, options.areaFrames, options.makeMemory);
  let staging: Staging | undefined;
  let verification: Verification | undefined;
  try {
    staging = new Staging(engine, options.makeSlab, options.writable ? undefined : 0);
    const sources = staging.slab === undefined ? frames.slabs : [...frames.slabs, staging.slab];
    if (options.writable && options.verifyWrites) verification = new Verification(engine, options.makeSlab, sources, path, alignment, options.verifyBytes);
  } catch (error) {
    staging?.close();
    frames.close();
    throw error;
  }
  const mutations = new MutationQueue();
  const self = new FileLink<OpenFile>();
  let access: DirectAccess | undefined;
  const source: RequestSource = {
    path,
    get committedSize() {
      return ground.committed;
    },
    sizeNow: () => {
      const size = options.sizeNow();
      self.file?.noticeSize(size);
      return size;
    },
    pressure: () => access?.pressure() ?? false,
    cacheFull: (caller) => (access as DirectAccess).cacheFull(caller),
    suspect: (result, settled) => self.file?.suspect(result, settled) ?? false,
    look: () => self.file?.lookHard(),
  };
  const limits = {
    slots: options.slots,
    slotBlocks: options.slotBlocks,
    transferLimit,
    mergeLimit: options.mergeLimit,
    gapLimit: options.gapLimit,
    alignment,
    asyncTransfers: options.asyncTransfers ?? false,
  };
  const manager = new RequestManager(new Ring(engine), frames, source, options.file, limits, verification);
  access = new DirectAccess({
    ground,
    manager,
    frames,
    mutations,
    kind: options.geometry.kind,
    writeAlignment: alignment,
    transferLimit,
    staging,
    depth: engine.depth,
    // FUSE hands O_DSYNC to a server that need not know it; fsync is a request of its own.
    durableWrites: options.asyncTransfers !== true,
    onInvalidate: (from, length) => self.file?.invalidated('truncate', from, length),
  });
  const file = new OpenFile({
    ...options,
    self,
    caching: 'direct',
    manager,
    mutations,
    access,
    capacity: frames.frames * BLOCK_BYTES,
    dispose: () => {
      verification?.close();
      options.dispose();
    },
  });
  return { file, manager, frames, access };
}
