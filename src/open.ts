/**
 * Opening: from a path to an `OpenFile` with its engine, memory and request manager.
 *
 * The steps are written once, as a generator of system calls; `open` runs each asynchronously, `openSync` blocking.
 *
 * Guarantees: arguments are checked before the first system call; whatever fails, descriptor, ring, slabs, words and claims are given
 * back, and a file that was created and could not be filled is removed.
 * Leaves to others: everything after (`file.ts`).
 */
import * as fs from 'node:fs';
import { dirname } from 'node:path';
import { directFile, type FileBase } from './direct-file.js';
import { abortError, SectorwiseError, systemError } from './errors.js';
import { type BlockFile, OpenFile } from './file.js';
import { type ExtentOrder, readExtentOrder, readExtents } from './geometry/extents.js';
import { type GeometryFacts, readGeometry } from './geometry/geometry.js';
import type { Feature } from './io/engine.js';
import { native } from './io/native.js';
import { openNativeEngine } from './io/native-engine.js';
import { Ring } from './io/ring.js';
import { BLOCK_BYTES } from './memory/block-store.js';
import { FILL_BYTES_MAX, FILL_BYTES_MIN } from './memory/fill-store.js';
import { armGuard } from './memory/guard.js';
import { createSlab } from './memory/slab.js';
import { ownMemory } from './memory/tables.js';
import { claimWord, freeWord, validity } from './memory/validity.js';
import { type CheckedOptions, checkOpenOptions, checkPath, MERGE_BYTES, type OpenOptions } from './options.js';
import { MutationQueue } from './requests/mutation-queue.js';
import { RequestManager, type RequestSource } from './requests/request-manager.js';
import { FileLink } from './unclosed.js';
import { type GroundListener, watchGround } from './unplug/ground-watch.js';
import { Ground } from './windows/ground.js';
import { MappedAccess } from './windows/mapped-access.js';

/** Gap that is read over where a seek is a movement, and where it is not. */
const GAP_BYTES_ROTATING = 128 * 1024;
const GAP_BYTES = 16 * 1024;
/** Extents beyond which their order is not looked up for submissions: the file's own order is good enough for a shredded file. */
const ORDERED_RUNS_MAX = 65536;

/** Times that a file which others create and remove meanwhile is looked for. */
const ATTEMPTS_MAX = 16;

/** A system call in its two forms. */
interface Call<T> {
  now(): T;
  later(): Promise<T>;
}

type Steps<T> = Generator<Call<unknown>, T, unknown>;

/**
 * Opens a regular file or a block device.
 *
 * The first `open` or `openSync` of a process, and of each of its worker threads, loads the library before it does anything else, at once and on the
 * calling thread: `import 'sectorwise'` brings the names alone. Where that pause would be in the way later, open something early; the benchmark group
 * `import` measures it.
 *
 * @param path what to open; it must exist unless `options.create`.
 * @returns the file; belongs to the calling thread, and is to be closed by `close` or `await using`.
 * @throws (rejects) the system error of the open in Node's form: ENOENT, EACCES, EISDIR, EAGAIN for a lock that is taken, ENOSPC and others; ERR_INVALID_ARG_TYPE,
 * ERR_INVALID_ARG_VALUE and ERR_OUT_OF_RANGE for options; ERR_SECTORWISE_FILE_TYPE for what is neither file nor block device; ERR_SECTORWISE_NO_DIRECT where the file system has
 * no O_DIRECT; ERR_SECTORWISE_READ_ONLY_DEVICE; ERR_SECTORWISE_ALREADY_OPEN for a second read-write direct open of one file in a process; ERR_SECTORWISE_ENGINE for a
 * forced engine that is not to be had; ERR_SECTORWISE_PAGE_SIZE on a machine whose pages are not 4096 bytes; ERR_SECTORWISE_NATIVE where the addon cannot be loaded;
 * ERR_SECTORWISE_SIGNAL_BLOCKED in page-cache mode where the calling thread blocks SIGBUS; ERR_SECTORWISE_UNSUPPORTED for an option that this release refuses; an AbortError.
 */
export async function open(path: string | URL, options?: OpenOptions): Promise<BlockFile> {
  const checked = checkOptions(options);
  const opening = openLater(openSteps(checkPath(path), checked));
  const { signal } = checked;
  if (signal === undefined) return opening;
  // A system call that is on its way cannot be called back: the steps find the signal aborted when it ends, and undo what was done.
  return new Promise((resolve, reject) => {
    const onAbort = (): void => reject(abortError(signal));
    if (signal.aborted) onAbort();
    else signal.addEventListener('abort', onAbort, { once: true });
    opening.then(resolve, reject).finally(() => signal.removeEventListener('abort', onAbort));
  });
}

async function openLater(steps: Steps<BlockFile>): Promise<BlockFile> {
  let step = steps.next();
  while (!step.done) {
    let value: unknown;
    try {
      value = await step.value.later();
    } catch (error) {
      step = steps.throw(error);
      continue;
    }
    step = steps.next(value);
  }
  return step.value;
}

/**
 * The same, blocking, for engines that are synchronous by nature. Throws what `open` rejects with.
 *
 * If it is the first opening of its thread, it loads the library, as `open` does.
 */
export function openSync(path: string | URL, options?: Omit<OpenOptions, 'signal'>): BlockFile {
  const steps = openSteps(checkPath(path), checkOptions(options));
  let step = steps.next();
  while (!step.done) {
    let value: unknown;
    try {
      value = step.value.now();
    } catch (error) {
      step = steps.throw(error);
      continue;
    }
    step = steps.next(value);
  }
  return step.value;
}

function checkOptions(options: OpenOptions | undefined): CheckedOptions {
  const checked = checkOpenOptions(options);
  if (process.platform !== 'linux') {
    throw new SectorwiseError('ERR_SECTORWISE_UNSUPPORTED', `sectorwise works on Linux; this is ${process.platform}. Use node:fs here.`);
  }
  return checked;
}

function* openSteps(path: string, options: CheckedOptions): Steps<BlockFile> {
  if (native().pageSize() !== BLOCK_BYTES && options.caching === 'page-cache') {
    throw new SectorwiseError(
      'ERR_SECTORWISE_PAGE_SIZE',
      `Windows of the page cache need pages of 4096 bytes, and here they have ${native().pageSize()}; open the file with { caching: 'direct' }.`,
      { path },
    );
  }
  throwIfAborted(options.signal);
  const { fd, created } = yield* openDescriptor(path, options);
  // What `close` gives back, and what only a failed opening undoes; both from the last to the first.
  const held: Release[] = [() => closeDescriptor(fd)];
  const undo: Release[] = created ? [() => fs.unlinkSync(path)] : [];
  try {
    if (created) yield* fillCreated(path, fd, options.size ?? 0);
    throwIfAborted(options.signal);
    return assemble(path, fd, options, held, undo);
  } catch (error) {
    for (const step of undo.reverse()) step();
    for (const step of held.reverse()) step();
    throw error;
  }
}

type Release = () => void;

/** The descriptor is free whatever `close` answers; what it may say (a server of FUSE that is gone, a quota of NFS) was said by the flush, or is nobody's loss. */
function closeDescriptor(fd: number): void {
  try {
    fs.closeSync(fd);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EBADF') throw error;
  }
}

function throwIfAborted(signal: AbortSignal | undefined): void {
  if (signal?.aborted) throw abortError(signal);
}

/** Opens what is there, or creates it. A pipe or a character device is refused before it is opened: opening alone may block or do something. */
function* openDescriptor(path: string, options: CheckedOptions): Steps<{ fd: number; created: boolean }> {
  const { O_RDONLY, O_RDWR, O_CREAT, O_EXCL, O_DIRECT } = fs.constants;
  const flags = (options.access === 'read' ? O_RDONLY : O_RDWR) | (options.caching === 'direct' ? O_DIRECT : 0);
  for (let attempt = 1; ; attempt++) {
    let stat: fs.Stats | undefined;
    try {
      stat = yield* call(
        () => fs.statSync(path),
        () => fs.promises.stat(path),
      );
    } catch (error) {
      if (!options.create || (error as NodeJS.ErrnoException).code !== 'ENOENT') throw renamed(error, 'open', path);
    }
    if (stat !== undefined) checkType(stat, path);
    try {
      const create = stat === undefined;
      const fd = yield* call(
        () => fs.openSync(path, create ? flags | O_CREAT | O_EXCL : flags, 0o666),
        () => openDescriptorLater(path, create ? flags | O_CREAT | O_EXCL : flags),
      );
      return { fd, created: create };
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      // Somebody else created it in between, or removed it: look again. A symbolic link to nothing is there and missing for ever.
      if (attempt < ATTEMPTS_MAX && stat === undefined && code === 'EEXIST') continue;
      if (attempt < ATTEMPTS_MAX && stat !== undefined && options.create && code === 'ENOENT') continue;
      if (code === 'EINVAL' && options.caching === 'direct') {
        throw new SectorwiseError('ERR_SECTORWISE_NO_DIRECT', "The file system refuses O_DIRECT; open the file with { caching: 'page-cache' }.", {
          path,
          cause: error,
        });
      }
      throw error;
    }
  }
}

function checkType(stat: fs.Stats, path: string): void {
  if (stat.isFile() || stat.isBlockDevice()) return;
  if (stat.isDirectory()) throw systemError(EISDIR, 'open', { path });
  const kind = stat.isFIFO() ? 'a pipe' : stat.isSocket() ? 'a socket' : 'a character device';
  throw new SectorwiseError('ERR_SECTORWISE_FILE_TYPE', `This is ${kind}; open a regular file or a block device.`, { path });
}

/** Node's own message, as if the call had been `syscall`. */
function renamed(error: unknown, syscall: string, path: string): unknown {
  const { errno } = error as NodeJS.ErrnoException;
  return errno === undefined ? error : systemError(errno, syscall, { path });
}

function openDescriptorLater(path: string, flags: number): Promise<number> {
  return new Promise((resolve, reject) => {
    fs.open(path, flags, 0o666, (error, fd) => {
      if (error === null) resolve(fd);
      else reject(error);
    });
  });
}

/** Allocates a new file and makes its directory entry durable. */
function* fillCreated(path: string, fd: number, size: number): Steps<void> {
  if (size > 0) {
    const result = yield* call(
      () => native().fallocate(fd, 0, size),
      () => native().allocateAsync(fd, 0, size),
    );
    if (result < 0) throw systemError(result, 'fallocate', { path, offset: 0, length: size });
  }
  yield* call(
    () => fs.fsyncSync(fd),
    () => settled((done) => fs.fsync(fd, done)),
  );
  const folder = yield* call(
    () => fs.openSync(dirname(path), fs.constants.O_RDONLY),
    () => openDescriptorLater(dirname(path), fs.constants.O_RDONLY),
  );
  try {
    yield* call(
      () => fs.fsyncSync(folder),
      () => settled((done) => fs.fsync(folder, done)),
    );
  } finally {
    fs.closeSync(folder);
  }
}

function settled(start: (done: (error: Error | null) => void) => void): Promise<void> {
  return new Promise((resolve, reject) => {
    start((error) => {
      if (error === null) resolve();
      else reject(error);
    });
  });
}

function* call<T>(now: () => T, later: () => Promise<T>): Generator<Call<T>, T, unknown> {
  return (yield { now, later }) as T;
}

function assemble(path: string, fd: number, options: CheckedOptions, held: Release[], undo: Release[]): BlockFile {
  const direct = options.caching === 'direct';
  const writable = options.access === 'read-write';
  const facts = placed(path, () => readGeometry(fd, { direct }));
  if (direct) checkDirect(path, facts);
  if (writable && facts.readOnlyDevice) {
    throw new SectorwiseError(
      'ERR_SECTORWISE_READ_ONLY_DEVICE',
      "The device is write-protected; open it with { access: 'read' }, or remove the protection (blockdev --setrw).",
      { path },
    );
  }
  if (options.lock !== undefined) {
    const result = native().lock(fd, options.lock === 'exclusive');
    if (result < 0) throw systemError(result, 'flock', { path });
    // A process that is just being started has a copy of the descriptor until its program begins.
    held.push(() => native().unlock(fd));
  }
  if (direct && writable) {
    if (!native().claimInode(facts.inodeKey)) {
      throw new SectorwiseError(
        'ERR_SECTORWISE_ALREADY_OPEN',
        "The file is open for direct reading and writing in this process already, and two caches would not see each other; share that BlockFile, or open this one with { access: 'read' }.",
        { path },
      );
    }
    held.push(() => native().freeInode(facts.inodeKey));
  }
  const depth = direct ? Math.max(1, Math.min(options.queueDepth, facts.queueRequests ?? options.queueDepth)) : options.queueDepth;
  const engine = openNativeEngine({ engine: options.engine, depth });
  undo.push(() => engine.close());
  const word = claimWord();
  held.push(() => freeWord(word));
  const sizeNow = (): number => (facts.isDevice ? native().probe(fd).deviceSize : fs.fstatSync(fd).size);
  const listeners: GroundListener[] = [];
  const watch = placed(path, () =>
    watchGround(
      { fd, word, size: facts.size },
      {
        lost: (cause) => listeners.forEach((listener) => void listener.lost(cause)),
        sizeChanged: () => listeners.forEach((listener) => void listener.sizeChanged()),
        faulted: () => listeners.forEach((listener) => void listener.faulted()),
      },
    ),
  );
  held.push(() => watch.close());
  const base: FileBase = {
    path,
    writable,
    geometry: facts.geometry,
    engine,
    file: placed(path, () => engine.addFile(fd)),
    ground: new Ground(path, facts.size, validity().words, word),
    sizeNow,
    watch: (listener) => {
      listeners.push(listener);
      return watch;
    },
    readAhead: options.readAhead,
    collectable: true,
    extents: (offset, length) => readExtents(fd, facts, offset, length),
    dispose: () => {
      for (const step of held.reverse()) step();
    },
  };
  if (!direct) return mappedFile(base, fd, facts, options.idleMs);
  const gapLimit = options.gapLimit ?? (facts.geometry.rotational ? GAP_BYTES_ROTATING : GAP_BYTES);
  const file = directFile({
    ...base,
    features: facts.features,
    cacheSize: options.cacheSize,
    idleMs: options.idleMs,
    makeSlab: createSlab,
    makeMemory: ownMemory,
    transfer: facts.transfer,
    mergeLimit: options.mergeLimit,
    gapLimit,
    verifyWrites: options.verifyWrites,
    // io_uring would wait for the server of a file system in user space within the submission.
    asyncTransfers: facts.isServed,
  });
  if (facts.geometry.rotational && !facts.isDevice) orderByPlace(file.manager, fd, facts);
  return file.file;
}

function checkDirect(path: string, facts: GeometryFacts): void {
  const { memory, read, write } = facts.transfer;
  const most = Math.max(memory, read, write);
  if (most <= BLOCK_BYTES) return;
  throw new SectorwiseError(
    'ERR_SECTORWISE_NO_DIRECT',
    `Direct I/O needs alignments of ${most} bytes here, and frames have ${BLOCK_BYTES}; open the file with { caching: 'page-cache' }.`,
    {
      path,
    },
  );
}

function mappedFile(base: FileBase, fd: number, facts: GeometryFacts, idleMs: number): BlockFile {
  const { ground, engine, path } = base;
  armGuard(path);
  const mutations = new MutationQueue();
  const self = new FileLink<OpenFile>();
  const access = new MappedAccess({
    fd,
    ground,
    engine,
    kind: base.geometry.kind,
    sectorBytes: base.geometry.logicalSectorSize,
    trustMincore: facts.trustMincore,
    sizeNow: base.sizeNow,
    device: facts.deviceNumbers,
    idleMs,
    onInvalidate: (from, length) => self.file?.invalidated('truncate', from, length),
  });
  const source: RequestSource = {
    path,
    get committedSize() {
      return ground.committed;
    },
    sizeNow: () => {
      const size = base.sizeNow();
      self.file?.noticeSize(size);
      return size;
    },
    suspect: (result, settled) => self.file?.suspect(result, settled) ?? false,
    look: () => self.file?.lookHard(),
    pressure: () => false,
    cacheFull: () => access.cacheFull(),
  };
  const manager = new RequestManager(new Ring(engine), access.fillStore, source, base.file, {
    transferLimit: FILL_BYTES_MAX,
    // Nobody waits for more than this because others asked for its neighbours in the same turn; nobody waits for what is read ahead, and in large pieces it costs less.
    mergeLimit: MERGE_BYTES,
    spareLimit: FILL_BYTES_MAX,
    // The pages of a gap would be read for nobody.
    gapLimit: 0,
    alignment: BLOCK_BYTES,
    asyncTransfers: true,
    fillFrom: FILL_BYTES_MIN,
  });
  access.attach(manager);
  if (facts.geometry.rotational && !facts.isDevice) orderByPlace(manager, fd, facts);
  return new OpenFile({
    ...base,
    self,
    caching: 'page-cache',
    features: [...facts.features, pagemapFeature()],
    manager,
    mutations,
    access,
    capacity: Number.MAX_SAFE_INTEGER,
  });
}

function pagemapFeature(): Feature {
  const result = native().pagemapScan();
  if (result === 0) return { name: 'PAGEMAP_SCAN', used: true, reason: 'residency is proved from the page table' };
  const { code } = systemError(result, 'ioctl');
  const why = code === 'ENOENT' || code === 'EACCES' ? '/proc/self/pagemap cannot be opened' : 'it came with Linux 6.7, and containers may forbid it';
  return {
    name: 'PAGEMAP_SCAN',
    used: false,
    reason: `refused with ${code} (${why}); residency is asked of mincore where that tells the truth, else every window is read in`,
  };
}

/** Submissions of one turn go out in the order of their places on a disk that has to move for them. Until the extents are known, and where they cannot be, the file's own order holds. */
function orderByPlace(manager: RequestManager, fd: number, facts: GeometryFacts): void {
  readExtentOrder(fd, facts).then(
    (order: ExtentOrder) => {
      if (order.runs > 1 && order.runs <= ORDERED_RUNS_MAX) manager.placeOf = (sector) => order.place(sector);
    },
    // An order is a convenience; the reads themselves say what is wrong with the device.
    () => undefined,
  );
}

/** Errors of parts that do not know the path. */
function placed<T>(path: string, run: () => T): T {
  try {
    return run();
  } catch (error) {
    if (error instanceof SectorwiseError && error.path === undefined) throw new SectorwiseError(error.code, error.message, { path, cause: error.cause });
    const { errno, syscall, path: known } = error as NodeJS.ErrnoException;
    if (errno !== undefined && syscall !== undefined && known === undefined) throw systemError(errno, syscall, { path });
    throw error;
  }
}

const EISDIR = -21;
