/** How many pages are in memory: against what root's mincore says, for owners and strangers, on file systems of which each tells a lie of its own. */
import { chmodSync, closeSync, fsyncSync, mkdirSync, openSync, readSync, statfsSync, truncateSync, writeFileSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { type BlockFile, open } from '../../src/index.js';
import { native } from '../../src/io/native.js';
import { FileMapping } from '../../src/memory/mapping.js';
import { type CountPiece, countPages } from '../../src/memory/residency.js';
import { countResident, dropPages, evicted } from '../fixtures/cold.js';
import { note, type Place, Places, places } from '../fixtures/places.js';
import { isRoot, noLoopDevices } from '../geometry/loop-devices.js';
import { until } from '../unplug/until.js';

const PAGE = 4096;
const MIB = 1 << 20;
const GIB = 2 ** 30;
const CELL = 2 * MIB;
const EXT4_MAGIC = 0xef53;

const lab = new Places();
const opened: BlockFile[] = [];
afterAll(async () => {
  for (const file of opened) await file.close();
  lab.dispose();
});

async function opening(path: string, access: 'read' | 'read-write' = 'read'): Promise<BlockFile> {
  const file = await open(path, { access });
  opened.push(file);
  return file;
}

/** A file of `bytes` bytes, on its device. Its folder can be entered by everybody, it can be read by everybody. */
function filled(path: string, bytes: number): string {
  const fd = openSync(path, 'w', 0o644);
  // Page by page: what is written at once shares a folio, which leaves memory as a whole or not at all.
  for (let at = 0; at < bytes; at += PAGE) writeSync(fd, Buffer.alloc(Math.min(PAGE, bytes - at), 7), 0, Math.min(PAGE, bytes - at), at);
  for (let up = dirname(path); up !== tmpdir() && up !== '/dev/shm'; up = dirname(up)) chmodSync(up, 0o755);
  fsyncSync(fd);
  closeSync(fd);
  return path;
}

/** Brings just these pages into the page cache: a fault in a mapping that is advised random reads no neighbours. */
function readPages(path: string, bytes: number, pages: number[]): void {
  const fd = openSync(path, 'r');
  const mapping = new FileMapping({ fd, path, size: bytes, shared: false, trustMincore: false });
  let seen = 0;
  for (const page of pages) seen += new Uint8Array(mapping.at(page * PAGE, 1).buffer, page * PAGE, 1)[0];
  expect(seen).toBe(7 * pages.length);
  mapping.close();
  closeSync(fd);
}

function reasonOf(file: BlockFile, name: string): { used: boolean; reason: string } {
  const { used, reason } = file.explain().features.find((feature) => feature.name === name)!;
  return { used, reason };
}

/** Runs as an ordinary user who owns nothing. */
async function asStranger<T>(run: () => Promise<T>): Promise<T> {
  process.seteuid!(65534);
  try {
    return await run();
  } finally {
    process.seteuid!(0);
  }
}

const overlay: Place = {
  name: 'an overlayfs file',
  kind: 'file',
  missing: noLoopDevices ?? (statfsSync(tmpdir()).type === EXT4_MAGIC ? undefined : 'the temp folder is not on ext4'),
  make: () => {
    const base = lab.folder();
    for (const name of ['lower', 'upper', 'work']) mkdirSync(join(base, name));
    const options = `lowerdir=${join(base, 'lower')},upperdir=${join(base, 'upper')},workdir=${join(base, 'work')}`;
    return join(lab.loops.mount('overlay', '-t', 'overlay', '-o', options), 'file');
  },
};
const files = [...places.filter(({ kind }) => kind === 'file'), overlay];
/** From tmpfs nothing leaves; overlayfs passes on what is asked of it, or not. */
const canBeCold = ({ name }: Place): boolean => name !== 'a tmpfs file' && name !== overlay.name;
const ext4 = places.find(({ name }) => name === 'an ext4 file')!;

describe('counting pages', () => {
  /** Memory of which `isCached` says what is in it; each call takes `costMs`, as does each page. */
  function fakeMemory(isCached: (page: number) => boolean, pieceMax: number, costMs: number) {
    let time = 0;
    const asked: Array<[number, number]> = [];
    const count: CountPiece = (offset, length, sums) => {
      time += costMs;
      asked.push([offset, length]);
      let cached = 0;
      for (let page = offset / PAGE; page < (offset + length) / PAGE; page++) if (isCached(page)) cached++;
      if (cached > 0 && length > pieceMax) return false;
      sums.cached += cached;
      return true;
    };
    return { count, asked, now: () => time };
  }

  it('is exact while time is left, and looks at each page once', () => {
    const { count, asked, now } = fakeMemory((page) => page % 3 === 0, 8 * MIB, 0);
    expect(countPages(count, 5 * PAGE, 100 * MIB, now)).toEqual({ cached: 8533, dirty: 0, writeback: 0, evicted: 0 });
    expect(asked.reduce((sum, [, length]) => sum + length, 0)).toBe(100 * MIB);
  });

  it('passes over what is cold in ever larger steps, and comes back for what is not', () => {
    const { count, asked, now } = fakeMemory((page) => page === 3 * 65536 + 17, 8 * MIB, 0);
    expect(countPages(count, 0, GIB, now).cached).toBe(1);
    expect(asked.length).toBeLessThan(20);
  });

  it('estimates what is left once time is up, from a bounded number of samples within the range', () => {
    // A tenth of the file, in stretches of 5 MiB.
    const { count, asked, now } = fakeMemory((page) => Math.floor(page / 1280) % 10 === 4, 8 * MIB, 1);
    const { cached } = countPages(count, 7 * PAGE, 20 * GIB, now);
    const expected = (20 * GIB) / PAGE / 10;
    expect(Math.abs(cached - expected) / expected).toBeLessThan(0.3);
    expect(asked.length).toBeLessThan(530);
    for (const [offset, length] of asked) expect(offset >= 7 * PAGE && offset % PAGE === 0 && offset + length <= 7 * PAGE + 20 * GIB).toBe(true);
  });

  it('calls all of it cached, or nothing, where that is so', () => {
    for (const all of [true, false]) {
      const { count, now } = fakeMemory(() => all, 8 * MIB, 1);
      const { cached } = countPages(count, 0, 8 * GIB, now);
      expect(cached).toBe(all ? (8 * GIB) / PAGE : 0);
    }
  });
});

describe.each(files)('residency of $name', (place) => {
  it(`is what mincore says to root, of any range${note(place.missing)}`, { skip: place.missing !== undefined }, async () => {
    const path = filled(place.make(lab), 3 * MIB + 100);
    const file = await opening(path);
    if (canBeCold(place)) dropPages(path);
    readPages(path, 3 * MIB + 100, [0, 1, 2, 40, 300, 301, 767, 768]);
    for (const [offset, length] of [
      [0, 3 * MIB + 100],
      [1, PAGE],
      [PAGE - 1, 2],
      [2 * PAGE, 38 * PAGE + 1],
      [MIB, 17],
      [3 * MIB + 99, 1],
    ]) {
      const first = Math.floor(offset / PAGE);
      const pages = Math.ceil((offset + length) / PAGE) - first;
      const seen = file.residency(offset, length);
      expect(seen.pages).toBe(pages);
      expect(seen.cached).toBe(countResident(path, first * PAGE, pages * PAGE));
    }
    expect(file.residency().cached).toBe(countResident(path, 0, 3 * MIB + PAGE));
    expect(file.residency(4 * MIB, 100)).toEqual({ pages: 0, cached: 0, dirty: 0, writeback: 0, evicted: 0 });
    expect(reasonOf(file, 'mincore').used).toBe(true);
  });

  it(`counts pages that have to be written, where cachestat does, and says where it does not${note(place.missing)}`, {
    skip: place.missing !== undefined,
  }, async () => {
    const path = filled(place.make(lab), 64 * PAGE);
    const file = await opening(path);
    const writer = openSync(path, 'r+');
    const write = () => {
      writeSync(writer, Buffer.alloc(5 * PAGE, 1), 0, 5 * PAGE, 8 * PAGE);
      return file.residency();
    };
    let { cached, dirty, writeback } = write();
    const { used, reason } = reasonOf(file, 'cachestat');
    // Whoever syncs at that moment may have written some of them before they are counted.
    for (let tries = 0; tries < 20 && used && place.name !== 'a tmpfs file' && dirty + writeback < 5; tries++) ({ cached, dirty, writeback } = write());
    closeSync(writer);
    expect(cached).toBeGreaterThanOrEqual(5);
    if (place === overlay) {
      expect([used, dirty, writeback]).toEqual([false, 0, 0]);
      expect(reason).toContain('counts nothing on this file system');
    } else if (used) {
      // Memory is where the bytes of tmpfs live: there is nowhere to write them.
      expect(dirty + writeback).toBe(place.name === 'a tmpfs file' ? 0 : 5);
    } else {
      expect(reason).toMatch(/ENOSYS|EPERM/);
    }
  });

  const noStranger = place.missing ?? (isRoot ? undefined : 'needs root') ?? (native().pagemapScan() < 0 ? 'PAGEMAP_SCAN is refused here' : undefined);
  it(`is never overstated to who does not own the file, and counts what was touched${note(noStranger)}`, { skip: noStranger !== undefined }, async () => {
    const path = filled(place.make(lab), 64 * 16 * PAGE);
    const [whole, cold, touched] = await asStranger(async () => {
      const file = await open(path);
      const whole = file.residency();
      expect(reasonOf(file, 'mincore')).toMatchObject({ used: false, reason: expect.stringContaining('pretends') });
      expect(reasonOf(file, 'cachestat').used).toBe(false);
      process.seteuid!(0);
      if (canBeCold(place)) dropPages(path);
      process.seteuid!(65534);
      const cold = file.residency();
      let seen = 0;
      for (const at of [0, 20, 21, 900]) {
        const window = await file.window(at * PAGE, PAGE);
        seen += window.bytes[17];
        window.release();
      }
      expect(seen).toBe(28);
      // A page that the kernel is moving is in no page table for that moment.
      await until(() => file.residency().cached >= 4);
      const touched = file.residency();
      await file.close();
      return [whole, cold, touched];
    });
    // Nothing is mapped before the first window: all of it is in memory, and nothing of that is to be known.
    expect([whole.cached, cold.cached]).toEqual([0, 0]);
    expect(touched.cached).toBeLessThanOrEqual(countResident(path, 0, 64 * 16 * PAGE));
    expect([touched.pages, touched.dirty, touched.evicted]).toEqual([1024, 0, 0]);
  });
});

describe('mincore', () => {
  const skip = ext4.missing ?? (isRoot ? undefined : 'needs root');
  it(`is believed by owners and writers, and by no stranger${note(skip)}`, { skip: skip !== undefined }, async () => {
    const path = filled(ext4.make(lab), 5 * PAGE);
    const asked = async (): Promise<boolean> => {
      const file = await open(path);
      const { used } = reasonOf(file, 'mincore');
      await file.close();
      return used;
    };
    const all = [await asked(), await asStranger(asked)];
    chmodSync(path, 0o666);
    all.push(await asStranger(asked));
    expect(all).toEqual([true, false, true]);
  });
});

describe('a large sparse file', () => {
  it('is counted without being mapped, and evicted', async () => {
    const path = join(lab.folder(), 'sparse');
    writeFileSync(path, '');
    truncateSync(path, 100 * GIB);
    const file = await opening(path);
    expect(file.residency()).toEqual({ pages: (100 * GIB) / PAGE, cached: 0, dirty: 0, writeback: 0, evicted: 0 });
    await file.evict(0, 2 * GIB + 5);
    await file.evict(99 * GIB, GIB);
    const fd = openSync(path, 'r');
    readSync(fd, Buffer.alloc(1), 0, 1, 50 * GIB);
    closeSync(fd);
    // A hole that was read has pages like any other.
    expect(file.residency(50 * GIB, PAGE).cached).toBe(1);
  });
});

describe('evict', () => {
  it(`drops what no window is over, whether it was touched or not${note(ext4.missing)}`, { skip: ext4.missing !== undefined }, async () => {
    const size = 40 * CELL + 5 * PAGE + 12;
    const path = filled(ext4.make(lab), size);
    const file = await opening(path);
    let seen = 0;
    for (let at = 0; at + CELL <= size; at += 2 * CELL) {
      using window = await file.window(at, CELL);
      for (let page = 0; page < CELL; page += PAGE) seen += window.bytes[page];
    }
    expect(seen).toBe(20 * 512 * 7);
    const held = [await file.window(3 * CELL + 100, 50), await file.window(18 * CELL - 1, 2)];
    // Touched before each go, so that what is short of memory elsewhere cannot take them.
    const touch = (): void => {
      for (const { bytes } of held) for (const byte of bytes) expect(byte).toBe(7);
    };
    await evicted(file, 0, size, 3 * 512, touch);
    touch();
    expect(file.residency().cached).toBe(countResident(path, 0, size));
    for (const { offset, length } of held) {
      const { cached, pages } = file.residency(offset, length);
      expect(cached).toBe(pages);
    }
    for (const window of held) window.release();
    await evicted(file, 0, size);
  });

  it(`leaves the pages that its range only touches${note(ext4.missing)}`, { skip: ext4.missing !== undefined }, async () => {
    const path = filled(ext4.make(lab), 100 * PAGE);
    const file = await opening(path);
    await until(async () => {
      await file.evict(10 * PAGE + 1, 20 * PAGE);
      return file.residency(11 * PAGE, 19 * PAGE).cached === 0;
    });
    expect([file.residency(10 * PAGE, PAGE).cached, file.residency(30 * PAGE, PAGE).cached, file.residency(11 * PAGE, 19 * PAGE).cached]).toEqual([1, 1, 0]);
  });
});
