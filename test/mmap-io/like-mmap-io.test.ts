/** The interface beside mmap-io itself, 1.1.7: the same calls of both, and what comes of them. */
import { closeSync, constants, copyFileSync, fsyncSync, mkdtempSync, openSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import * as ours from '../../src/mmap-io/index.js';
import { installed } from '../fixtures/installed.js';
import { note } from '../fixtures/places.js';

type MmapIo = typeof ours;
const { missing, require } = installed('mmap-io', { 'mmap-io': '1.1.7' }, ['mmap-io']);
const theirs = (missing === undefined ? require('mmap-io') : {}) as MmapIo;

const PAGE = 4096;
const folder = mkdtempSync(join(tmpdir(), 'sectorwise-mmap-io-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const content = Buffer.from(Array.from({ length: 5 * PAGE + 100 }, (_, i) => (i * 7 + (i >> 8)) & 0xff));
let made = 0;

/** A file of its own, on stable storage. */
function fresh(): string {
  const path = join(folder, String(made++));
  writeFileSync(path, content);
  const fd = openSync(path, 'r');
  fsyncSync(fd);
  closeSync(fd);
  return path;
}

function withFd<T>(path: string, flags: string | number, use: (fd: number) => T): T {
  const fd = openSync(path, flags);
  try {
    return use(fd);
  } finally {
    closeSync(fd);
  }
}

/** What a call comes to: its value, or the error number of the system call, or that its arguments were refused. */
function outcome(call: () => unknown): unknown {
  try {
    return { value: call() };
  } catch (error) {
    const { errno, message } = error as NodeJS.ErrnoException;
    const named = /failed, (\d+)$/.exec(message);
    if (named !== null) return { errno: Number(named[1]) };
    return errno === undefined ? 'refused' : { errno: -errno };
  }
}

/** `scenario` with each of the two, on a file of its own. */
function both(scenario: (mmap: MmapIo, path: string) => unknown): [theirs: unknown, ours: unknown] {
  return [theirs, ours].map((mmap) => outcome(() => scenario(mmap, fresh()))) as [unknown, unknown];
}

const RO = 'r';
const RW = 'r+';

const maps: Array<[string, (mmap: MmapIo, path: string) => unknown]> = [
  ['a whole file, shared', (m, p) => withFd(p, RO, (fd) => copy(m.map(content.length, m.PROT_READ, m.MAP_SHARED, fd)))],
  ['a whole file, private', (m, p) => withFd(p, RO, (fd) => copy(m.map(content.length, m.PROT_READ, m.MAP_PRIVATE, fd)))],
  ['a part, with an offset and an advice', (m, p) => withFd(p, RO, (fd) => copy(m.map(100, m.PROT_READ, m.MAP_SHARED, fd, 2 * PAGE, m.MADV_SEQUENTIAL)))],
  ['with null for the offset and the advice', (m, p) => withFd(p, RO, (fd) => copy(m.map(100, m.PROT_READ, m.MAP_SHARED, fd, null, null)))],
  ['protections together', (m, p) => withFd(p, RO, (fd) => copy(m.map(100, m.PROT_READ | m.PROT_EXEC, m.MAP_SHARED, fd)))],
  ['PROT_EXEC alone', (m, p) => withFd(p, RO, (fd) => m.map(100, m.PROT_EXEC, m.MAP_SHARED, fd).length)],
  ['PROT_NONE', (m, p) => withFd(p, RO, (fd) => m.map(100, m.PROT_NONE, m.MAP_SHARED, fd).length)],
  ['PROT_WRITE alone, which can be read', (m, p) => withFd(p, RW, (fd) => copy(m.map(100, m.PROT_WRITE, m.MAP_SHARED, fd)))],
  ['populated, for reading', (m, p) => withFd(p, RO, (fd) => incoreOf(m, m.map(content.length, m.PROT_READ, m.MAP_SHARED | m.MAP_POPULATE, fd)))],
  ['populated, for writing', (m, p) => withFd(p, RW, (fd) => copy(m.map(content.length, m.PROT_WRITE, m.MAP_PRIVATE | m.MAP_POPULATE, fd)))],
  ['populated later, which is never', (m, p) => withFd(p, RO, (fd) => m.map(100, m.PROT_READ, m.MAP_SHARED | m.MAP_POPULATE | m.MAP_NONBLOCK, fd).length)],
  ['both kinds at once, which is a third', (m, p) => withFd(p, RW, (fd) => copy(m.map(100, m.PROT_WRITE, m.MAP_SHARED | m.MAP_PRIVATE, fd)))],
  ['neither kind', (m, p) => withFd(p, RO, (fd) => m.map(100, m.PROT_READ, 0, fd))],
  ['up to the end of the last page', (m, p) => withFd(p, RO, (fd) => copy(m.map(6 * PAGE, m.PROT_READ, m.MAP_SHARED, fd)))],
  ['beyond the end, untouched', (m, p) => withFd(p, RO, (fd) => m.map(100 * PAGE, m.PROT_READ, m.MAP_SHARED, fd).length)],
  ['from beyond the end', (m, p) => withFd(p, RO, (fd) => m.map(PAGE, m.PROT_READ, m.MAP_SHARED, fd, 64 * PAGE).length)],
  ['an empty file', (m, p) => [truncateSync(p, 0), withFd(p, RO, (fd) => m.map(PAGE, m.PROT_READ, m.MAP_SHARED, fd).length)]],
  ['nothing', (m, p) => withFd(p, RO, (fd) => m.map(0, m.PROT_READ, m.MAP_SHARED, fd))],
  ['from within a page', (m, p) => withFd(p, RO, (fd) => m.map(100, m.PROT_READ, m.MAP_SHARED, fd, 100))],
  ['a file that is open for reading, to write to', (m, p) => withFd(p, RO, (fd) => m.map(100, m.PROT_WRITE, m.MAP_SHARED, fd))],
  ['the same privately', (m, p) => withFd(p, RO, (fd) => copy(m.map(100, m.PROT_WRITE, m.MAP_PRIVATE, fd)))],
  ['a file that is open for writing, to read', (m, p) => withFd(p, constants.O_WRONLY, (fd) => m.map(100, m.PROT_READ, m.MAP_SHARED, fd))],
  ['a descriptor that is none', (m) => m.map(100, m.PROT_READ, m.MAP_SHARED, 987654)],
  ['a folder', (m) => withFd(folder, RO, (fd) => m.map(100, m.PROT_READ, m.MAP_SHARED, fd))],
  ['/dev/zero', (m) => withFd('/dev/zero', RO, (fd) => copy(m.map(100, m.PROT_READ, m.MAP_PRIVATE, fd)))],
  ['/dev/null', (m) => withFd('/dev/null', RO, (fd) => m.map(100, m.PROT_READ, m.MAP_SHARED, fd))],
  ['with an advice that there is not', (m, p) => withFd(p, RO, (fd) => m.map(100, m.PROT_READ, m.MAP_SHARED, fd, 0, 77))],
  ['a size that is no number', (m, p) => withFd(p, RO, (fd) => m.map('100' as never, m.PROT_READ, m.MAP_SHARED, fd))],
  ['a protection that is no number', (m, p) => withFd(p, RO, (fd) => m.map(100, undefined as never, m.MAP_SHARED, fd))],
  ['flags that are no number', (m, p) => withFd(p, RO, (fd) => m.map(100, m.PROT_READ, 'shared' as never, fd))],
  ['no descriptor', (m) => m.map(100, m.PROT_READ, m.MAP_SHARED, undefined as never)],
];

const uses: Array<[string, (mmap: MmapIo, map: Buffer, path: string) => unknown]> = [
  ['advise of a map', (m, b) => m.advise(b, m.MADV_RANDOM)],
  ['advise of a part', (m, b) => m.advise(b, PAGE, 2 * PAGE, m.MADV_WILLNEED)],
  ['advise of a part of the last page', (m, b) => m.advise(b, 5 * PAGE, 10, m.MADV_NORMAL)],
  ['advise of nothing', (m, b) => m.advise(b, 0, 0, m.MADV_NORMAL)],
  ['advise from within a page', (m, b) => m.advise(b, 10, PAGE, m.MADV_NORMAL)],
  ['advise that there is not', (m, b) => m.advise(b, 77)],
  ['advise of a part of the buffer', (m, b) => m.advise(b.subarray(PAGE), m.MADV_RANDOM)],
  ['advise of a part of the buffer from within a page', (m, b) => m.advise(b.subarray(10), m.MADV_RANDOM)],
  ['advise without an advice', (m, b) => (m.advise as (...a: unknown[]) => void)(b)],
  ['advise with three arguments', (m, b) => (m.advise as (...a: unknown[]) => void)(b, 0, PAGE)],
  ['advise of no buffer', (m) => m.advise(7 as never, m.MADV_RANDOM)],
  ['incore of what was read', (m, b) => [copy(b), m.incore(b)]],
  ['incore of a part', (m, b) => [copy(b), m.incore(b.subarray(PAGE, PAGE + 1))]],
  ['incore of a part from within a page', (m, b) => m.incore(b.subarray(1))],
  ['incore of no buffer', (m) => m.incore('map' as never)],
  ['sync', (m, b, p) => [b.write('stored', 50), m.sync(b), read(p)]],
  ['sync, blocking', (m, b, p) => [b.write('stored', 50), m.sync(b, true), read(p)]],
  ['sync, blocking and invalidating', (m, b, p) => [b.write('stored', 50), m.sync(b, true, true), read(p)]],
  ['sync of a part', (m, b, p) => [b.write('stored', PAGE), m.sync(b, PAGE, PAGE), read(p)]],
  ['sync of a part, blocking', (m, b, p) => [b.write('stored', PAGE), m.sync(b, PAGE, PAGE, true, false), read(p)]],
  ['sync of a part without length', (m, b, p) => [b.write('stored', 50), m.sync(b, 0, 0, true), read(p)]],
  ['sync with undefined for everything', (m, b, p) => [b.write('stored', 50), m.sync(b, undefined, undefined, undefined, undefined), read(p)]],
  ['sync from within a page', (m, b) => m.sync(b, 10, PAGE)],
  ['sync of a part of the buffer from within a page', (m, b) => m.sync(b.subarray(10))],
  ['sync of no buffer', (m) => m.sync(undefined as never)],
  ['stores at the end of the last page', (m, b, p) => [b.write('the end', content.length - 7), m.sync(b, true), read(p)]],
  ['MADV_DONTNEED of a shared map, which keeps what was stored', (m, b, p) => [b.write('stored', 50), m.advise(b, m.MADV_DONTNEED), [copy(b), read(p)]]],
];

function copy(buffer: Buffer): string {
  return buffer.toString('latin1');
}

function read(path: string): string {
  return readFileSync(path, 'latin1');
}

function incoreOf(mmap: MmapIo, buffer: Buffer): unknown {
  return [mmap.incore(buffer), copy(buffer)];
}

describe.skipIf(missing !== undefined)(`what mmap-io does${note(missing)}`, () => {
  it('has every name that mmap-io has, with the same value, and functions where it has functions', () => {
    const kinds = (mmap: MmapIo): unknown =>
      Object.fromEntries(Object.keys(theirs).map((name) => [name, typeof mmap[name as keyof MmapIo] === 'function' ? 'function' : mmap[name as keyof MmapIo]]));
    expect(Object.keys(theirs).length).toBeGreaterThan(17);
    expect(kinds(ours)).toEqual(kinds(theirs));
    expect(kinds(ours.default as MmapIo)).toEqual(kinds(theirs));
  });

  for (const [name, scenario] of maps) {
    it(`maps alike: ${name}`, () => {
      const [expected, found] = both(scenario);
      expect(found).toEqual(expected);
    });
  }

  for (const [name, use] of uses) {
    it(`does alike with a shared map: ${name}`, () => {
      const [expected, found] = both((mmap, path) => {
        const buffer = withFd(path, RW, (fd) => mmap.map(content.length, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_SHARED, fd));
        return use(mmap, buffer, path);
      });
      expect(found).toEqual(expected);
    });
  }

  it('keeps alike what is stored into a private map from the file, and forgets it with MADV_DONTNEED', () => {
    const [expected, found] = both((mmap, path) => {
      const buffer = withFd(path, RO, (fd) => mmap.map(content.length, mmap.PROT_WRITE, mmap.MAP_PRIVATE, fd));
      buffer.write('stored', 50);
      mmap.sync(buffer, true);
      const before = [copy(buffer), read(path)];
      mmap.advise(buffer, mmap.MADV_DONTNEED);
      return [before, copy(buffer), read(path)];
    });
    expect(found).toEqual(expected);
  });

  it('shows alike what others write to the file, through every kind of map', () => {
    const [expected, found] = both((mmap, path) => {
      const kinds = [
        withFd(path, RO, (fd) => mmap.map(content.length, mmap.PROT_READ, mmap.MAP_SHARED, fd)),
        withFd(path, RO, (fd) => mmap.map(content.length, mmap.PROT_READ, mmap.MAP_PRIVATE, fd)),
        withFd(path, RW, (fd) => mmap.map(content.length, mmap.PROT_WRITE, mmap.MAP_SHARED, fd)),
      ];
      const seen = kinds.map(copy);
      kinds[2].write('through the third map', PAGE - 5);
      withFd(path, RW, (fd) => writeFileSync(fd, 'by write(2)'));
      return [seen, kinds.map(copy)];
    });
    expect(found).toEqual(expected);
  });

  it('is one file for both: what is stored through the one is read through the other', () => {
    const path = fresh();
    const [one, other] = [theirs, ours].map((mmap) => withFd(path, RW, (fd) => mmap.map(content.length, mmap.PROT_WRITE, mmap.MAP_SHARED, fd)));
    one.write('stored by mmap-io', 3 * PAGE);
    other.write('stored by sectorwise', 4 * PAGE);
    expect(copy(one)).toBe(copy(other));
    copyFileSync(path, `${path}-copy`);
    expect(read(`${path}-copy`)).toBe(copy(other));
  });
});
