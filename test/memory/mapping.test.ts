/**
 * Standing mappings on the real kernel: the right bytes in the right segment, residency that is never claimed falsely, cuts, and an arena that is not reused early.
 */
import { spawnSync } from 'node:child_process';
import { closeSync, fsyncSync, ftruncateSync, mkdtempSync, openSync, readSync, rmSync, statfsSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Worker } from 'node:worker_threads';
import { afterAll, afterEach, describe, expect, it, vi } from 'vitest';
import { native } from '../../src/io/native.js';
import { CELL_BYTES, FileMapping, SEGMENT_BYTES_MAX, SEGMENT_STRIDE, WINDOW_BYTES_MAX } from '../../src/memory/mapping.js';
import { CAUSE_CLOSE, CAUSE_NONE, CAUSE_TRUNCATE, CAUSE_UNPLUG, validity } from '../../src/memory/validity.js';
import { dropPages } from '../fixtures/cold.js';

const PAGE = 4096;
const UNIT = 65536;
const MIB = 1024 * 1024;
const TMPFS_MAGIC = 0x01021994;
const OVERLAYFS_MAGIC = 0x794c7630;

const addon = fileURLToPath(new URL('../../build/Release/sectorwise.node', import.meta.url));
const folder = mkdtempSync(join(tmpdir(), 'sectorwise-mapping-'));
const folderType = statfsSync(folder).type;
const cannotBeCold = folderType === TMPFS_MAGIC || folderType === OVERLAYFS_MAGIC;
const scanRefused = native().pagemapScan() < 0;
const isRoot = process.getuid?.() === 0;
const needsCold = cannotBeCold ? ' (skipped: the temp folder is on tmpfs or overlayfs, whose pages do not leave memory on request)' : '';
const needsColdAndScan = needsCold !== '' || !scanRefused ? needsCold : ' (skipped: PAGEMAP_SCAN is refused here)';

const open: Array<() => void> = [];
let files = 0;

afterEach(() => {
  for (const close of open.splice(0).reverse()) close();
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

interface Made {
  path: string;
  fd: number;
}

/** A file of `size` bytes whose pages each begin with their own number. */
function numbered(size: number): Made {
  const bytes = Buffer.alloc(size);
  for (let at = 0; at + 4 <= size; at += PAGE) bytes.writeUInt32LE(at / PAGE + 1, at);
  const made = empty();
  writeSync(made.fd, bytes, 0, size, 0);
  fsyncSync(made.fd);
  return made;
}

function empty(): Made {
  const path = join(folder, `file-${files++}`);
  const fd = openSync(path, 'w+');
  open.push(() => closeSync(fd));
  return { path, fd };
}

function map(made: Made, size: number, options: { shared?: boolean; trustMincore?: boolean } = {}): FileMapping {
  const mapping = new FileMapping({ ...made, size, shared: options.shared ?? false, trustMincore: options.trustMincore ?? true });
  open.push(() => mapping.close());
  return mapping;
}

function bytesAt(mapping: FileMapping, offset: number, length: number): Uint8Array {
  const segment = mapping.at(offset, length);
  return new Uint8Array(segment.buffer, offset - segment.start, length);
}

function numberAt(mapping: FileMapping, offset: number): number {
  const segment = mapping.at(offset, 4);
  return new DataView(segment.buffer).getUint32(offset - segment.start, true);
}

function wordAt(mapping: FileMapping, offset: number): number {
  const segment = mapping.at(offset, 1);
  return validity().words[segment.firstCell + Math.floor((offset - segment.start) / CELL_BYTES)];
}

/** What is known is so for 100 ms: where the machine took longer than that from `begin` on, it is tried again. */
function whileKnown<T>(attempt: (begin: () => void) => T): T {
  for (let tries = 0; tries < 50; tries++) {
    let begun = 0;
    const answer = attempt(() => {
      begun = monotonic();
    });
    if (monotonic() - begun < 80) return answer;
  }
  throw new Error('the machine is too busy to look at what is known for 100 ms');
}

/** Taken before a test puts another one in its place. */
const nanoseconds = process.hrtime.bigint;
const monotonic = (): number => Number(nanoseconds() / 1_000_000n);

describe('a segment', () => {
  it('shows the bytes of the file at their offsets, with room behind its end', () => {
    const mapping = map(numbered(3 * MIB + 100), 3 * MIB + 100);
    const segment = mapping.at(0, 100);
    expect(segment).toMatchObject({ start: 0, length: 68 * MIB, end: 68 * MIB, cells: 34 });
    expect(segment.buffer.byteLength).toBe(segment.length);
    for (let page = 0; page < 768; page++) expect(numberAt(mapping, page * PAGE)).toBe(page + 1);
    expect(mapping.at(2 * MIB, MIB)).toBe(segment);
  });

  it('is made for an empty file too, and shows what is appended without being mapped anew', () => {
    const made = empty();
    const mapping = map(made, 0);
    const segment = mapping.at(0, 0);
    writeSync(made.fd, Buffer.from('appended'), 0, 8, 0);
    mapping.grow(8);
    expect(mapping.at(0, 8)).toBe(segment);
    expect(Buffer.from(bytesAt(mapping, 0, 8)).toString()).toBe('appended');
  });

  it('is replaced by one at least twice as long when the file outgrows it, and the views of the old one stay the file', () => {
    const made = numbered(8 * PAGE);
    const mapping = map(made, 8 * PAGE);
    const old = mapping.at(0, PAGE);
    const view = new Uint8Array(old.buffer, PAGE, 4);
    const size = 100 * MIB;
    ftruncateSync(made.fd, size);
    writeSync(made.fd, Buffer.from('end!'), 0, 4, size - 4);
    mapping.grow(size);
    expect(Buffer.from(bytesAt(mapping, size - 4, 4)).toString()).toBe('end!');
    const grown = mapping.at(0, PAGE);
    expect(grown).not.toBe(old);
    expect(grown.length).toBeGreaterThanOrEqual(2 * old.length);
    writeSync(made.fd, Buffer.from([9]), 0, 1, PAGE);
    expect(view[0]).toBe(9);
  });

  it('keeps a store into a read mapping out of the file, and brings one into a shared mapping to it', () => {
    const made = numbered(4 * PAGE);
    const back = Buffer.alloc(1);
    bytesAt(map(made, 4 * PAGE), 100, 1)[0] = 200;
    readSync(made.fd, back, 0, 1, 100);
    expect(back[0]).toBe(0);
    bytesAt(map(made, 4 * PAGE, { shared: true }), 100, 1)[0] = 201;
    readSync(made.fd, back, 0, 1, 100);
    expect(back[0]).toBe(201);
  });

  it('holds every window of 64 MiB in one segment across the 4 GiB boundaries of a 5 GiB sparse file', () => {
    const size = 5 * 1024 ** 3 + 123;
    const made = empty();
    ftruncateSync(made.fd, size);
    const places = [0, SEGMENT_STRIDE - 8, SEGMENT_STRIDE, SEGMENT_BYTES_MAX - 8, SEGMENT_BYTES_MAX - 4, SEGMENT_BYTES_MAX, size - 8];
    const payload = (offset: number) => `p${String(offset % 9973).padStart(3, '0')}`.slice(0, 4);
    for (const offset of places) writeSync(made.fd, Buffer.from(payload(offset)), 0, 4, offset);
    const mapping = map(made, size);
    for (const offset of places) {
      for (const start of [offset, Math.max(0, offset - WINDOW_BYTES_MAX + 4), Math.max(0, offset - 10 * MIB)]) {
        const length = Math.min(WINDOW_BYTES_MAX, size - start);
        const segment = mapping.at(start, length);
        expect(start).toBeGreaterThanOrEqual(segment.start);
        expect(start + length).toBeLessThanOrEqual(segment.end);
        expect(Buffer.from(segment.buffer, offset - segment.start, 4).toString()).toBe(payload(offset));
      }
      expect(mapping.resident(offset, 4)).toBe(true);
    }
    expect(mapping.at(SEGMENT_STRIDE - 1, WINDOW_BYTES_MAX)).toBe(mapping.at(0, 1));
    expect(mapping.at(SEGMENT_STRIDE, 1).start).toBe(SEGMENT_STRIDE);
  });

  it('reports the error of mmap with the path', () => {
    const fd = openSync(folder, 'r');
    open.push(() => closeSync(fd));
    const mapping = map({ path: folder, fd }, PAGE);
    expect(() => mapping.at(0, PAGE)).toThrowError(expect.objectContaining({ code: 'ENODEV', syscall: 'mmap', path: folder }));
  });

  it('reads zeros after close with CAUSE_CLOSE in its words, and refuses new questions', () => {
    const mapping = map(numbered(16 * PAGE), 16 * PAGE);
    const segment = mapping.at(0, PAGE);
    const view = new Uint8Array(segment.buffer, 0, 16 * PAGE);
    expect(view[0]).toBe(1);
    mapping.close();
    mapping.close();
    expect(view.every((byte) => byte === 0)).toBe(true);
    view[0] = 1;
    expect(validity().words[segment.firstCell]).toBe(CAUSE_CLOSE);
    expect(() => mapping.at(0, PAGE)).toThrowError(expect.objectContaining({ code: 'ERR_SECTORWISE_CLOSED' }));
    expect(() => mapping.resident(0, PAGE)).toThrowError(expect.objectContaining({ code: 'ERR_SECTORWISE_CLOSED' }));
  });
});

describe('residency', () => {
  it('is true for a warm file, by the page table and by mincore', () => {
    const size = 4 * MIB + 100;
    const made = numbered(size);
    const mapping = map(made, size);
    expect(mapping.resident(0, size)).toBe(true);
    expect(mapping.resident(size - 1, 1)).toBe(true);
    expect(mapping.missing(0, size, new Float64Array(8))).toBe(0);
    const strict = map(made, size, { trustMincore: false });
    for (let at = 0; at < size; at += PAGE) bytesAt(strict, at, 1)[0].toString();
    expect(strict.resident(0, size)).toBe(!scanRefused);
  });

  it(`is false for a cold file, and asking brings nothing in${needsCold}`, { skip: cannotBeCold }, () => {
    const made = numbered(4 * MIB);
    dropPages(made.path);
    const mapping = map(made, 4 * MIB);
    for (let round = 0; round < 20; round++) expect(mapping.resident(round * UNIT, PAGE)).toBe(false);
    const runs = new Float64Array(8);
    expect(mapping.missing(100, 3 * MIB, runs)).toBe(1);
    expect([...runs.subarray(0, 2)]).toEqual([0, 3 * MIB + PAGE]);
  });

  it(`names exactly the runs that are absent, and merges them when there is no room${needsCold}`, { skip: cannotBeCold }, () => {
    const made = numbered(4 * MIB);
    dropPages(made.path);
    const mapping = map(made, 4 * MIB);
    // By a fault, which reads no neighbours: what is on its way could come between the two looks below.
    expect(numberAt(map(made, 4 * MIB, { trustMincore: false }), 256 * PAGE)).toBe(257);
    const core = new Uint8Array(1024);
    const segment = native().mapSegment(made.fd, 0, 4 * MIB, false);
    if (typeof segment === 'number') throw new Error(`mapSegment: ${segment}`);
    expect(segment.mincore(0, 4 * MIB, core)).toBe(0);
    segment.close();
    const expected: number[] = [];
    for (let page = 0; page < 1024; page++) {
      if ((core[page] & 1) !== 0) continue;
      if (page > 0 && (core[page - 1] & 1) === 0) expected[expected.length - 1] += PAGE;
      else expected.push(page * PAGE, PAGE);
    }
    const runs = new Float64Array(64);
    const count = mapping.missing(0, 4 * MIB, runs);
    expect([...runs.subarray(0, 2 * count)]).toEqual(expected);
    expect(core[256] & 1).toBe(1);
    const one = new Float64Array(2);
    expect(mapping.missing(0, 4 * MIB, one)).toBe(1);
    expect(one[0] + one[1]).toBe(expected.at(-2)! + expected.at(-1)!);
  });

  it(`is proved for one page in a unit without claiming its neighbours${needsColdAndScan}`, { skip: cannotBeCold || scanRefused }, () => {
    const made = numbered(4 * MIB);
    dropPages(made.path);
    const mapping = map(made, 4 * MIB, { trustMincore: false });
    const pages = 1024;
    // MADV_RANDOM: one page comes in for each touch (or few, where the file system uses larger ones).
    expect(numberAt(mapping, 40 * PAGE)).toBe(41);
    for (let round = 0; round < 2; round++) {
      expect(mapping.resident(40 * PAGE, PAGE)).toBe(true);
      expect(mapping.resident(40 * PAGE + 17, 100)).toBe(true);
      expect(mapping.resident(0, pages * PAGE)).toBe(false);
    }
  });

  it(`is proved for a whole cell at once when many of its units are asked about${scanRefused ? ' (skipped: PAGEMAP_SCAN is refused here)' : ''}`, {
    skip: scanRefused,
  }, () => {
    const size = 4 * MIB;
    /** Proves one page of each of the first `units` of the first cell, then takes all pages away: only what is known without asking is left. */
    const knownAfter = (units: number): boolean[] =>
      whileKnown((begin) => {
        const made = numbered(size);
        const mapping = map(made, size, { trustMincore: false });
        for (let page = 0; page < size / PAGE; page++) numberAt(mapping, page * PAGE);
        begin();
        for (let unit = 0; unit < units; unit++) expect(mapping.resident(unit * UNIT, PAGE)).toBe(true);
        ftruncateSync(made.fd, 0);
        return [20, 31, 32].map((unit) => mapping.resident(unit * UNIT, PAGE));
      });
    expect(knownAfter(7)).toEqual([false, false, false]);
    expect(knownAfter(8)).toEqual([true, true, false]);
  });

  it(`is proved for the units of a cell before the first page that is missing${needsColdAndScan}`, { skip: cannotBeCold || scanRefused }, () => {
    const made = numbered(2 * MIB);
    dropPages(made.path);
    const mapping = map(made, 2 * MIB, { trustMincore: false });
    for (let unit = 0; unit < 16; unit++) {
      for (let page = 0; page < 16; page++) numberAt(mapping, unit * UNIT + page * PAGE);
    }
    for (let round = 0; round < 3; round++) {
      for (let unit = 0; unit < 16; unit++) expect(mapping.resident(unit * UNIT, PAGE)).toBe(true);
      expect(mapping.resident(31 * UNIT, PAGE)).toBe(false);
    }
  });

  it('is known for 100 ms after markResident, and not after forget, nor later', () => {
    const made = empty();
    ftruncateSync(made.fd, 8 * UNIT + 1000);
    const mapping = map(made, 8 * UNIT + 1000, { trustMincore: false });
    expect(mapping.resident(UNIT, PAGE)).toBe(false);
    const answers = whileKnown((begin) => {
      begin();
      mapping.markResident(UNIT, 3 * UNIT);
      const marked = [mapping.resident(UNIT, 3 * UNIT), mapping.resident(UNIT, 3 * UNIT + 1), mapping.resident(UNIT - 1, PAGE)];
      mapping.forget(2 * UNIT + 5, 1);
      return [...marked, mapping.resident(UNIT, UNIT), mapping.resident(2 * UNIT, 1)];
    });
    expect(answers).toEqual([true, false, false, true, false]);
    const until = Date.now() + 250;
    while (Date.now() < until);
    expect(mapping.resident(UNIT, PAGE)).toBe(false);
  });

  it('marks a unit that was read in part only where the file ends in it, and forgets it when the file grows', () => {
    const made = empty();
    const size = 2 * UNIT + 1000;
    const answers = whileKnown((begin) => {
      ftruncateSync(made.fd, size);
      const mapping = map(made, size, { trustMincore: false });
      begin();
      mapping.markResident(100, UNIT - 100);
      const part = mapping.resident(100, 1);
      mapping.markResident(0, 2 * UNIT + 4096);
      const whole = mapping.resident(0, size);
      ftruncateSync(made.fd, 4 * UNIT);
      mapping.grow(4 * UNIT);
      return [part, whole, mapping.resident(2 * UNIT, 1), mapping.resident(3 * UNIT, 1), mapping.resident(0, 2 * UNIT)];
    });
    expect(answers).toEqual([false, true, false, false, true]);
  });

  it('does not depend on a clock that tests may have faked', () => {
    const made = empty();
    ftruncateSync(made.fd, UNIT);
    const mapping = map(made, UNIT, { trustMincore: false });
    vi.useFakeTimers({ now: 0 });
    try {
      const known = whileKnown((begin) => {
        mapping.at(0, UNIT);
        begin();
        mapping.markResident(0, UNIT);
        return mapping.resident(0, PAGE);
      });
      expect(known).toBe(true);
    } finally {
      vi.useRealTimers();
    }
    const until = Date.now() + 250;
    while (Date.now() < until);
    expect(mapping.resident(0, PAGE)).toBe(false);
  });

  const title = 'is never claimed for cold pages to a process that does not own the file';
  const skip = cannotBeCold || scanRefused || !isRoot;
  it(`${title}${isRoot ? needsColdAndScan : ' (skipped: needs root)'}`, { skip }, () => {
    const made = numbered(2 * MIB);
    dropPages(made.path);
    // Read-only: with a writable descriptor mincore would still tell the truth.
    const fd = openSync(made.path, 'r');
    open.push(() => closeSync(fd));
    const mapping = map({ path: made.path, fd }, 2 * MIB, { trustMincore: false });
    const runs = new Float64Array(8);
    process.seteuid!(65534);
    let lie: number;
    try {
      for (let at = 0; at < 2 * MIB; at += UNIT) expect(mapping.resident(at, PAGE)).toBe(false);
      expect(mapping.missing(0, 2 * MIB, runs)).toBe(1);
      lie = map({ path: made.path, fd }, 2 * MIB).missing(0, 2 * MIB, new Float64Array(8));
      expect(numberAt(mapping, 20 * PAGE)).toBe(21);
      expect(mapping.resident(20 * PAGE, PAGE)).toBe(true);
    } finally {
      process.seteuid!(0);
    }
    expect([...runs.subarray(0, 2)]).toEqual([0, 2 * MIB]);
    // Why mincore may not be trusted then: it says that nothing is missing.
    expect(lie).toBe(0);
  });

  it('undoes stores into a read window when it is proved', () => {
    const made = numbered(64 * PAGE);
    const mapping = map(made, 64 * PAGE);
    const view = bytesAt(mapping, 0, 64 * PAGE);
    for (const page of [0, 3, 4, 17, 63]) view[page * PAGE + 9] = 99;
    writeSync(made.fd, Buffer.from([5]), 0, 1, 3 * PAGE + 10);
    expect([view[3 * PAGE + 9], view[3 * PAGE + 10]]).toEqual([99, 0]);
    expect(mapping.resident(0, 64 * PAGE)).toBe(true);
    for (const page of [0, 3, 4, 17, 63]) expect(view[page * PAGE + 9]).toBe(0);
    expect(view[3 * PAGE + 10]).toBe(5);
  });

  it('keeps what was stored into a shared window when it is proved', () => {
    const made = numbered(8 * PAGE);
    const mapping = map(made, 8 * PAGE, { shared: true });
    const view = bytesAt(mapping, 0, 8 * PAGE);
    view[PAGE + 9] = 99;
    expect(mapping.resident(0, 8 * PAGE)).toBe(true);
    expect(view[PAGE + 9]).toBe(99);
  });

  it('comes without PAGEMAP_SCAN by mincore, with stores undone (needs root: a process that changed its user)', { skip: !isRoot }, () => {
    const made = numbered(16 * PAGE);
    const child = spawnSync(
      process.execPath,
      [
        '-e',
        `const native = require(${JSON.stringify(addon)}); const fd = require('node:fs').openSync(${JSON.stringify(made.path)}, 'r+');
         process.setuid(65534);
         const segment = native.mapSegment(fd, 0, 16 * 4096, false);
         const view = new Uint8Array(segment.buffer);
         view[5 * 4096] = 99;
         const answer = segment.scan(0, 16 * 4096);
         const core = new Uint8Array(16);
         console.log(answer < -1, view[5 * 4096], segment.mincore(0, 16 * 4096, core), core.every((page) => page & 1));`,
      ],
      { encoding: 'utf8' },
    );
    expect(child.stderr).toBe('');
    expect(child.stdout.trim()).toBe('true 6 0 true');
  });
});

describe('a cut', () => {
  it('puts zeros under the pages beyond it and marks the cells beyond it, and regrow shows the file again', () => {
    for (const shared of [false, true]) {
      const size = 9 * MIB;
      const made = numbered(size);
      const mapping = map(made, size, { shared });
      const view = bytesAt(mapping, 0, size);
      const newSize = 3 * MIB + 5000;
      mapping.cut(size, newSize);
      ftruncateSync(made.fd, newSize);
      const boundary = 3 * MIB + 2 * PAGE;
      expect(mapping.size).toBe(newSize);
      expect(new DataView(view.buffer).getUint32(boundary - PAGE, true)).toBe(boundary / PAGE);
      expect(view.subarray(newSize).every((byte) => byte === 0)).toBe(true);
      view[boundary + 1] = 7;
      const { words } = validity();
      const cell = mapping.at(0, 1).firstCell;
      expect([...words.subarray(cell, cell + 6)]).toEqual([CAUSE_NONE, CAUSE_NONE, CAUSE_TRUNCATE, CAUSE_TRUNCATE, CAUSE_TRUNCATE, CAUSE_NONE]);

      ftruncateSync(made.fd, 7 * MIB);
      writeSync(made.fd, Buffer.from('again'), 0, 5, 5 * MIB);
      mapping.regrow(newSize, 7 * MIB);
      expect(mapping.size).toBe(7 * MIB);
      expect(Buffer.from(view.subarray(5 * MIB, 5 * MIB + 5)).toString()).toBe('again');
      expect(view[boundary + 1]).toBe(0);
      expect([...words.subarray(cell, cell + 5)]).toEqual([CAUSE_NONE, CAUSE_NONE, CAUSE_NONE, CAUSE_NONE, CAUSE_TRUNCATE]);

      ftruncateSync(made.fd, size);
      writeSync(made.fd, Buffer.from('whole'), 0, 5, size - 5);
      // Growth by others is learned from a request beyond the end.
      expect(Buffer.from(bytesAt(mapping, size - 5, 5)).toString()).toBe('whole');
      expect(wordAt(mapping, size - 1)).toBe(CAUSE_NONE);
    }
  });

  it('reaches every segment, also one that was replaced, above 4 GiB too', () => {
    const made = numbered(4 * MIB);
    const mapping = map(made, 4 * MIB);
    const old = new Uint8Array(mapping.at(0, 1).buffer, 2 * MIB, 4);
    expect(old[0]).not.toBe(0);
    const size = 5 * 1024 ** 3;
    ftruncateSync(made.fd, size);
    writeSync(made.fd, Buffer.from('high'), 0, 4, size - 4);
    mapping.grow(size);
    const high = bytesAt(mapping, size - 4, 4);
    const low = bytesAt(mapping, 2 * MIB, 4);
    expect(Buffer.from(high).toString()).toBe('high');
    mapping.cut(size, MIB);
    ftruncateSync(made.fd, MIB);
    expect([...old, ...low, ...high].every((byte) => byte === 0)).toBe(true);
    ftruncateSync(made.fd, size);
    writeSync(made.fd, Buffer.from('back'), 0, 4, size - 4);
    mapping.regrow(MIB, size);
    expect(Buffer.from(high).toString()).toBe('back');
    expect(wordAt(mapping, size - 1)).toBe(CAUSE_NONE);
  });

  it('forgets what was resident beyond it, and lets a worse cause stand', () => {
    const size = 6 * MIB;
    const made = empty();
    ftruncateSync(made.fd, size);
    const mapping = map(made, size, { trustMincore: false });
    const cell = mapping.at(0, 1).firstCell;
    mapping.markResident(0, size);
    validity().words[cell + 2] = CAUSE_UNPLUG;
    mapping.cut(size, MIB);
    mapping.regrow(MIB, size);
    expect(validity().words[cell + 2]).toBe(CAUSE_UNPLUG);
    expect(mapping.resident(0, MIB)).toBe(true);
    expect(mapping.resident(2 * MIB, PAGE)).toBe(false);
  });
});

describe('the arena', () => {
  const script = (code: string) => {
    const made = numbered(4 * MIB);
    const prelude = `const fs = require('node:fs'); const native = require(${JSON.stringify(addon)}); const fd = fs.openSync(${JSON.stringify(made.path)}, 'r+');
      const collect = async () => { for (let round = 0; round < 5; round++) { gc(); await new Promise((resolve) => setImmediate(resolve)); } };`;
    const child = spawnSync(
      process.execPath,
      ['--expose-gc', '-e', `${prelude}(async () => { ${code} })().catch((error) => { console.error(error); process.exit(9); });`],
      {
        encoding: 'utf8',
      },
    );
    expect({ status: child.status, signal: child.signal, stderr: child.stderr }).toEqual({ status: 0, signal: null, stderr: '' });
    return child.stdout.trim();
  };

  it('hands a cell out again only after the buffer over it was collected', () => {
    const out = script(`
      let view;
      const cell = (() => { const segment = native.mapSegment(fd, 0, 2 << 20, false); view = new Uint8Array(segment.buffer); segment.close(); return segment.firstCell; })();
      const seen = [];
      for (let round = 0; round < 10; round++) {
        (() => { for (let each = 0; each < 10; each++) { const segment = native.mapSegment(fd, 0, 2 << 20, false); seen.push(segment.firstCell); segment.close(); } })();
        await collect();
      }
      const early = seen.includes(cell);
      const sum = view[0] + view[4096];
      view = undefined;
      await collect();
      const late = (() => { const cells = []; for (let each = 0; each < 30; each++) cells.push(native.mapSegment(fd, 0, 2 << 20, false).firstCell); return cells.includes(cell); })();
      console.log(early, sum, late);`);
    expect(out).toBe('false 0 true');
  });

  it('stays within bounds through 3,000 mappings', () => {
    const out = script(`
      const size = () => Number(/VmSize:\\s+(\\d+)/.exec(fs.readFileSync('/proc/self/status', 'utf8'))[1]) * 1024;
      const areas = () => fs.readFileSync('/proc/self/maps', 'utf8').split('\\n').length;
      native.mapSegment(fd, 0, 3 << 20, false).close();
      await collect();
      const before = size();
      const areasBefore = areas();
      let highest = 0;
      for (let round = 0; round < 3000; round++) {
        const segment = native.mapSegment(fd, 0, 3 << 20, round % 2 === 1);
        highest = Math.max(highest, segment.firstCell);
        if (round % 10 === 0 && new Uint8Array(segment.buffer)[4096] !== 2) throw new Error('wrong byte');
        segment.close();
        if (round % 200 === 199) await collect();
      }
      await collect();
      console.log(highest < 4000, size() - before < 4 * 2 ** 30, areas() - areasBefore < 50);`);
    expect(out).toBe('true true true');
  });

  it('leaves views safe when everything else about a mapping was collected', () => {
    const out = script(`
      const closed = (() => { const segment = native.mapSegment(fd, 0, 4 << 20, false); const view = new Uint8Array(segment.buffer); segment.close(); return view; })();
      const dropped = (() => new Uint8Array(native.mapSegment(fd, 0, 4 << 20, false).buffer))();
      await collect();
      (() => { for (let round = 0; round < 50; round++) native.mapSegment(fd, 0, 4 << 20, false).close(); })();
      await collect();
      closed.fill(3);
      console.log(closed[4096], dropped[4096], dropped[8192]);`);
    expect(out).toBe('3 2 3');
  });

  it('serves several workers at once, also ones that are terminated in the middle', async () => {
    const made = numbered(4 * MIB);
    const code = `
      const { parentPort, workerData } = require('node:worker_threads');
      const native = require(workerData.addon);
      const fd = require('node:fs').openSync(workerData.path, 'r');
      const turn = () => new Promise((resolve) => setImmediate(resolve));
      (async () => {
        for (let round = 0; workerData.endless || round < 500; round++) {
          const first = (round * 7) % 512;
          const segment = native.mapSegment(fd, first * 4096, (1 + (round % 400)) * 4096, false);
          const view = new Int32Array(segment.buffer);
          view[1] = 12345;
          for (let page = 0; page < segment.buffer.byteLength / 4096; page += 50) if (view[page * 1024] !== first + page + 1) throw new Error('wrong byte');
          if (segment.scan(0, 4096) < -1) throw new Error('scan');
          segment.close();
          if (view[0] !== 0) throw new Error('not zero after close');
          if (round % 50 === 0) await turn();
          if (round === 20) parentPort.postMessage('working');
        }
      })();`;
    const start = (endless: boolean) => new Worker(code, { eval: true, workerData: { addon, path: made.path, endless } });
    const endless = [start(true), start(true)];
    const finite = [start(false), start(false), start(false)];
    const ended = finite.map(
      (worker) =>
        new Promise<number>((resolve, reject) => {
          worker.on('error', reject);
          worker.on('exit', resolve);
        }),
    );
    await Promise.all(endless.map((worker) => new Promise((resolve, reject) => worker.once('message', resolve).once('error', reject))));
    await Promise.all(endless.map((worker) => worker.terminate()));
    expect(await Promise.all(ended)).toEqual([0, 0, 0]);
    expect(numberAt(map(made, 4 * MIB), 9 * PAGE)).toBe(10);
  });
});
