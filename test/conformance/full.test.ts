/** No space for the n-th write, for every n; the process's own limit on file sizes: an error that names what is missing, never a silence, and never the end of the process. */
import { execFileSync } from 'node:child_process';
import { closeSync, fsyncSync, ftruncateSync, openSync, readFileSync, statSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, afterEach, describe, expect, it } from 'vitest';
import { type BlockFile, type Caching, FlushError, open } from '../../src/index.js';
import { note, Places } from '../fixtures/places.js';
import { hasCommand, noFileSystem } from '../geometry/loop-devices.js';
import { noTmpfs } from '../rigs/failing-places.js';
import { Program } from '../rigs/program.js';

const MEBIBYTE = 2 ** 20;
const BLOCK = 4096;
const lab = new Places();
afterAll(() => lab.dispose());

/** What a test that failed left open, so that the file systems can be unmounted. */
const left: (() => unknown)[] = [];
afterEach(async () => {
  for (const give of left.splice(0)) await give();
});

async function opened(path: string, caching: Caching): Promise<BlockFile> {
  const file = await open(path, { caching, access: 'read-write', create: true, cacheSize: MEBIBYTE });
  left.push(() => file.close().catch(() => {}));
  return file;
}

/** Files to try it with, one after the other. */
const FILES = 20;

/** A file that takes all the space of a file system, and gives some of it back. */
class Filler {
  readonly #folder: string;
  readonly #fd: number;
  #bytes = 0;

  constructor(folder: string) {
    this.#folder = folder;
    this.#fd = openSync(join(folder, 'filler'), 'w');
    // Entries of a directory and inodes need space too: before it is gone.
    for (let i = 0; i < FILES; i++) writeFileSync(join(folder, `file-${i}`), '');
    left.push(() => closeSync(this.#fd));
  }

  fill(): void {
    // What was freed is there after a commit of the journal.
    execFileSync('sync', ['-f', this.#folder]);
    for (let size = MEBIBYTE; size >= BLOCK; ) {
      try {
        this.#bytes += writeSync(this.#fd, Buffer.alloc(size, 1), 0, size, this.#bytes);
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== 'ENOSPC') throw error;
        size /= 2;
      }
    }
    fsyncSync(this.#fd);
  }

  free(bytes: number): void {
    this.#bytes -= bytes;
    ftruncateSync(this.#fd, this.#bytes);
    fsyncSync(this.#fd);
    execFileSync('sync', ['-f', this.#folder]);
  }
}

interface Small {
  name: string;
  caching: Caching;
  missing: string | undefined;
  make(): string;
}

const ext4 = (): string => lab.loops.fileSystem(16 * MEBIBYTE, 'mkfs.ext4', '-q', '-m', '0').folder;
const xfs = (): string => lab.loops.fileSystem(320 * MEBIBYTE, 'mkfs.xfs', '-q').folder;
const smalls: Small[] = [
  { name: 'ext4, direct', caching: 'direct', missing: noFileSystem('mkfs.ext4'), make: ext4 },
  { name: 'ext4, page-cache', caching: 'page-cache', missing: noFileSystem('mkfs.ext4'), make: ext4 },
  { name: 'xfs, direct', caching: 'direct', missing: noFileSystem('mkfs.xfs'), make: xfs },
  { name: 'tmpfs, page-cache', caching: 'page-cache', missing: noTmpfs, make: () => lab.loops.mount('tmpfs', '-t', 'tmpfs', '-o', 'size=4m') },
];

/** Places far apart in a hole, so that each needs a block of its own and is a write of its own. */
const WRITES = 6;
const placeOf = (i: number): number => 10 * BLOCK + i * 16 * BLOCK + 100;
const PIECE = 3000;
const BASE = 2 * BLOCK + 77;

describe.each(smalls)('a full disk ($name)', ({ caching, missing, make }) => {
  /** Blocks of `path` that hold all of what was written to place `i`. */
  const isThere = (path: string, i: number): boolean =>
    readFileSync(path)
      .subarray(placeOf(i), placeOf(i) + PIECE)
      .every((byte) => byte === 10 + i) && statSync(path).size >= placeOf(i) + PIECE;

  /** Writes to every place and flushes; the places that were refused, by the write or by name in the flush. */
  async function writeAll(file: BlockFile): Promise<{ refused: Set<number>; failure: FlushError | undefined }> {
    const refused = new Set<number>();
    const outcomes = await Promise.allSettled(Array.from({ length: WRITES }, (_, i) => file.write(Buffer.alloc(PIECE, 10 + i), placeOf(i))));
    for (const [i, outcome] of outcomes.entries()) {
      if (outcome.status === 'fulfilled') continue;
      expect(outcome.reason).toMatchObject({ code: 'ENOSPC', syscall: 'write' });
      refused.add(i);
    }
    const failure = await file.flush().then(
      () => undefined,
      (error) => error as FlushError,
    );
    if (failure !== undefined) {
      expect(failure).toBeInstanceOf(FlushError);
      expect(failure.ranges.length).toBeGreaterThan(0);
      for (const { offset, length, error } of failure.ranges) {
        expect(error).toMatchObject({ code: 'ENOSPC' });
        for (let i = 0; i < WRITES; i++) if (offset < placeOf(i) + PIECE && offset + length > placeOf(i)) refused.add(i);
      }
    }
    return { refused, failure };
  }

  it.skipIf(missing !== undefined)(`refuses by name what finds no space, keeps all else, and takes it once there is space${note(missing)}`, async () => {
    const folder = make();
    const filler = new Filler(folder);
    filler.fill();
    const seen = new Set<number>();
    for (let free = 0; free < FILES && !seen.has(0); free++) {
      filler.free((free + 4) * BLOCK);
      const path = join(folder, `file-${free}`);
      const file = await opened(path, caching);
      const acknowledged = await Promise.all([file.write(Buffer.alloc(BASE, 7), 0), file.flush()]).then(
        () => true,
        () => false,
      );
      if (!acknowledged) {
        // Not even that much was free: nothing was promised.
        file.acknowledgeLoss();
        await file.close();
        filler.fill();
        continue;
      }
      const { refused, failure } = await writeAll(file);
      seen.add(refused.size);
      expect(readFileSync(path).subarray(0, BASE).equals(Buffer.alloc(BASE, 7))).toBe(true);
      for (let i = 0; i < WRITES; i++) if (!refused.has(i)) expect(isThere(path, i)).toBe(true);
      if (failure !== undefined) {
        // Nobody passes over it by trying again, and what was refused can still be read.
        await expect(file.flush()).rejects.toMatchObject({ code: 'ERR_SECTORWISE_FLUSH_FAILED' });
        const target = Buffer.alloc(PIECE);
        for (const i of refused) {
          await file.read(target, placeOf(i));
          expect(target.equals(Buffer.alloc(PIECE, 10 + i))).toBe(true);
        }
      }
      filler.free(20 * BLOCK);
      if (failure !== undefined) {
        // It is tried again with each flush, and rejects until it was acknowledged.
        await expect(file.flush()).rejects.toMatchObject({ code: 'ERR_SECTORWISE_FLUSH_FAILED' });
        expect(file.acknowledgeLoss().length).toBe(failure.ranges.length);
      } else {
        for (const i of refused) await file.write(Buffer.alloc(PIECE, 10 + i), placeOf(i));
      }
      await file.flush();
      for (let i = 0; i < WRITES; i++) expect(isThere(path, i)).toBe(true);
      await file.close();
      filler.fill();
    }
    // Every place of the failure was met, from nearly all refused to none.
    expect(seen.has(0)).toBe(true);
    expect(seen.size).toBeGreaterThanOrEqual(4);
  });

  it.skipIf(missing !== undefined)(`gives up by acknowledgeLoss what found no space, and only that${note(missing)}`, async () => {
    const folder = make();
    const filler = new Filler(folder);
    filler.fill();
    const path = join(folder, 'file-0');
    const file = await opened(path, caching);
    // Just enough for what is to be acknowledged.
    for (let tries = 0; ; tries++) {
      filler.free(BLOCK);
      await file.write(Buffer.alloc(BASE, 7), 0).catch((error) => expect(error.code).toBe('ENOSPC'));
      if ((await file.flush().catch(() => file.acknowledgeLoss().length)) === undefined && file.size === BASE) break;
      expect(tries).toBeLessThan(40);
    }
    const { refused, failure } = await writeAll(file);
    expect(refused.size).toBeGreaterThan(0);
    if (failure !== undefined)
      expect(file.acknowledgeLoss().map(({ offset, length }) => [offset, length])).toEqual(failure.ranges.map(({ offset, length }) => [offset, length]));
    await file.flush();
    await file.close();
    expect(readFileSync(path).subarray(0, BASE).equals(Buffer.alloc(BASE, 7))).toBe(true);
    for (let i = 0; i < WRITES; i++) if (!refused.has(i)) expect(isThere(path, i)).toBe(true);
  });

  it.skipIf(missing !== undefined)(`leaves a file as it was that cannot be allocated or resized${note(missing)}`, async () => {
    const folder = make();
    const path = join(folder, 'file');
    const file = await opened(path, caching);
    await file.write(Buffer.alloc(BASE, 7), 0);
    await file.flush();
    await expect(file.allocate(0, 2 ** 31)).rejects.toMatchObject({ code: 'ENOSPC', syscall: 'fallocate', path });
    expect(file.size).toBe(BASE);
    // A hole needs no space; how long a file may be is the file system's affair.
    const refusal = await file.resize(2 ** 53 - 1).catch((error) => error);
    if (refusal !== undefined) {
      expect(refusal).toMatchObject({ code: 'EFBIG', syscall: 'ftruncate', path });
      expect(() => file.resizeSync(2 ** 53 - 1)).toThrow(expect.objectContaining({ code: 'EFBIG', path }));
      expect(file.size).toBe(BASE);
    }
    // What an allocation that failed has added (ext4) is cut off by the flush in direct mode; in page-cache mode it is there, as zeros.
    if (refusal === undefined || caching === 'page-cache') await file.resize(BASE);
    await file.flush();
    await file.close();
    expect(readFileSync(path).equals(Buffer.alloc(BASE, 7))).toBe(true);
  });
});

const noPrlimit = hasCommand('prlimit') ? undefined : 'needs prlimit';

describe.skipIf(noPrlimit !== undefined).each<Caching>(['page-cache', 'direct'])(`the limit on file sizes (%s)${note(noPrlimit)}`, (caching) => {
  const limit = (program: Program, bytes: number | 'unlimited'): void => {
    execFileSync('prlimit', ['--pid', String(program.pid), `--fsize=${bytes}:`]);
  };

  interface Outcome {
    code: string;
    ranges: string[];
  }

  // The second is no whole number of sectors.
  it.each([16 * BLOCK, 16 * BLOCK + 1001])('is EFBIG of what goes past it, and of nothing else, and the process lives: %i bytes', async (bytes) => {
    const path = join(lab.folder(), 'file');
    const program = await Program.start('test/rigs/limited');
    await program.ask('open', path, caching);
    expect(await program.ask('write', 0, 10_000, 1)).toEqual({ code: 'done', ranges: [] });
    expect(await program.ask('flush')).toEqual({ code: 'done', ranges: [] });
    limit(program, bytes);
    for (const [write, flush] of [
      ['write', 'flush'],
      ['writeSync', 'flushSync'],
    ]) {
      const wrote = await program.ask<Outcome>(write, bytes - 5000, 20_000, 2);
      const flushed = await program.ask<Outcome>(flush);
      if (caching === 'page-cache') {
        expect(wrote.code).toBe('EFBIG');
        expect(flushed.code).toBe('done');
      } else {
        expect(wrote.code).toBe('done');
        expect(flushed).toEqual({ code: 'ERR_SECTORWISE_FLUSH_FAILED', ranges: expect.arrayContaining(['EFBIG']) });
        expect(await program.ask('flush')).toMatchObject({ code: 'ERR_SECTORWISE_FLUSH_FAILED' });
      }
    }
    expect(await program.ask<Outcome>('resize', bytes + 100_000)).toMatchObject({ code: 'EFBIG' });
    expect(await program.ask<Outcome>('allocate', 0, bytes + 100_000)).toMatchObject({ code: 'EFBIG' });
    expect(await program.ask('values', path, 0, 10_000)).toEqual([1]);
    expect(await program.ask<number>('sizeOnDisk', path)).toBeLessThanOrEqual(bytes);
    // With the limit gone all of it is taken.
    limit(program, 'unlimited');
    await program.ask('acknowledge');
    expect(await program.ask('write', bytes - 5000, 20_000, 3)).toEqual({ code: 'done', ranges: [] });
    expect(await program.ask('flush')).toEqual({ code: 'done', ranges: [] });
    expect(await program.ask('close')).toEqual({ code: 'done', ranges: [] });
    expect(await program.ask('values', path, bytes - 5000, 20_000)).toEqual([3]);
    expect(await program.ask('sizeOnDisk', path)).toBe(bytes + 15_000);
    program.kill();
  });
});
