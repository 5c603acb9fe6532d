/** The parts of the device lab that need no machine: what is loaded in which order, what a disk keeps after a power cut, what records prove. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, describe, expect, it } from 'vitest';
import { BadInput, parseLabArguments } from '../../tools/lab/arguments.js';
import { fillContent, firstDifference } from '../../tools/lab/content.js';
import { crc32 } from '../../tools/lab/crc32.js';
import { lineReader } from '../../tools/lab/messages.js';
import { loadOrder, moduleName, newestKernel } from '../../tools/lab/modules.js';
import { CELL_BYTES, CELLS, cellOf, faultOfCells, makeCell, makeRecord, scanRecords } from '../../tools/lab/records.js';
import { applyCut, LOG_SECTOR_BYTES, type LoggedWrite, readLog, survivors } from '../../tools/lab/write-log.js';

const folder = mkdtempSync(join(tmpdir(), 'sectorwise-lab-test-'));
afterAll(() => rmSync(folder, { recursive: true }));

describe('loadOrder', () => {
  const tables = {
    dep: [
      'kernel/fs/9p/9p.ko.xz: kernel/net/9p/9pnet.ko.xz kernel/fs/netfs/netfs.ko.xz',
      'kernel/net/9p/9pnet.ko.xz: kernel/fs/netfs/netfs.ko.xz',
      'kernel/fs/netfs/netfs.ko.xz:',
      'kernel/fs/ext4/ext4.ko.xz: kernel/fs/jbd2/jbd2.ko.xz',
      'kernel/fs/jbd2/jbd2.ko.xz:',
      'kernel/crypto/crc32c_generic.ko.xz:',
      'kernel/arch/x86/crypto/crc32c-intel.ko.xz:',
      'kernel/drivers/md/dm-flakey.ko.xz: kernel/drivers/md/dm-mod.ko.xz',
      'kernel/drivers/md/dm-mod.ko.xz:',
    ].join('\n'),
    softdep: '# a comment\nsoftdep ext4 pre: crypto-crc32c\nsoftdep 9p post: dm-mod\nsoftdep dm_mod pre: not-in-this-kernel',
    alias: 'alias crypto-crc32c crc32c_intel\nalias crypto-crc32c crc32c_generic',
    builtin: 'kernel/drivers/virtio/virtio_pci.ko',
  };

  it('puts everything after what it needs, once', () => {
    expect(loadOrder(['9p', '9pnet'], tables).map(moduleName)).toEqual(['netfs', '9pnet', '9p']);
  });

  it('loads what is wished for first, by its plainest implementation', () => {
    expect(loadOrder(['ext4'], tables).map(moduleName)).toEqual(['crc32c_generic', 'jbd2', 'ext4']);
  });

  it('takes - and _ for the same letter, and knows what is built in', () => {
    expect(loadOrder(['virtio-pci', 'dm_flakey'], tables).map(moduleName)).toEqual(['dm_mod', 'dm_flakey']);
  });

  it('names a module that the kernel does not have', () => {
    expect(() => loadOrder(['zfs'], tables)).toThrow(/'zfs'/);
  });

  it('puts everything after what it needs in any table without circles', () => {
    const graph = fc
      .integer({ min: 1, max: 20 })
      .chain((count) => fc.tuple(...Array.from({ length: count }, (_, module) => fc.uniqueArray(fc.nat(Math.max(0, module - 1)), { maxLength: module }))));
    fc.assert(
      fc.property(graph, (direct) => {
        const all = direct.map((needs) => new Set<number>(needs));
        for (const needs of all) for (const need of [...needs]) for (const further of all[need]) needs.add(further);
        const dep = all
          .map(
            (needs, module) =>
              `m${module}.ko: ${[...needs]
                .sort((a, b) => b - a)
                .map((need) => `m${need}.ko`)
                .join(' ')}`,
          )
          .join('\n');
        const order = loadOrder([`m${direct.length - 1}`], { dep, softdep: '', alias: '', builtin: '' });
        expect(new Set(order).size).toBe(order.length);
        for (const [place, path] of order.entries()) for (const need of all[Number(path.slice(1, -3))]) expect(order.slice(0, place)).toContain(`m${need}.ko`);
      }),
    );
  });
});

describe('newestKernel', () => {
  it('prefers the newest 6.12 to anything else, and no cloud, real-time, debug or meta package', () => {
    const names = ['6.1.0-50', '6.12.9+deb12', '6.12.117+deb12', '6.12.117+deb12-cloud', '6.12.118+deb12-rt', '6.16.3+deb13', '6.12'].map(
      (version) => `linux-image-${version}-amd64`,
    );
    expect(newestKernel([...names, 'linux-image-6.12.119+deb12-amd64-dbg', 'linux-image-amd64'])).toBe('linux-image-6.12.117+deb12-amd64');
  });

  it('takes the newest other one where there is no 6.12', () => {
    expect(newestKernel(['linux-image-6.1.0-9-amd64', 'linux-image-6.1.0-50-amd64', 'linux-image-5.10.0-99-amd64'])).toBe('linux-image-6.1.0-50-amd64');
    expect(newestKernel(['linux-image-amd64'])).toBeUndefined();
  });
});

describe('parseLabArguments', () => {
  const known = ['nvme-pull', 'power-cut'];

  it('runs everything unless something is named, and what is named in its own order', () => {
    expect(parseLabArguments([], known)).toMatchObject({ action: 'run', names: known, cuts: 20, accelerator: 'auto' });
    expect(parseLabArguments(['power-cut', 'nvme-pull', '--cuts', '3'], known)).toMatchObject({ names: known, cuts: 3 });
    expect(parseLabArguments(['power-cut'], known).names).toEqual(['power-cut']);
    expect(parseLabArguments(['shell', '--accel', 'tcg'], known)).toMatchObject({ action: 'shell', accelerator: 'tcg' });
  });

  it.each([
    [['nvme-pul'], /no scenario 'nvme-pul'/],
    [['shell', 'power-cut'], /stands alone/],
    [['--cuts', 'many'], /--cuts takes a whole number/],
    [['--cuts', '0'], /--cuts takes a whole number/],
    [['--accel', 'fast'], /--accel takes/],
    [['--quick'], /--help/],
  ])('says what is wrong with %j', (args, message) => {
    expect(() => parseLabArguments(args, known)).toThrow(BadInput);
    expect(() => parseLabArguments(args, known)).toThrow(message);
  });
});

describe('messages', () => {
  it('come whole, however the stream is cut', () => {
    fc.assert(
      fc.property(
        fc.array(fc.record({ text: fc.string({ unit: fc.constantFrom('a', '\n', '"') }) }), { maxLength: 5 }),
        fc.array(fc.nat(60)),
        (messages, cuts) => {
          const stream = messages.map((message) => `${JSON.stringify(message)}\n`).join('');
          const seen: unknown[] = [];
          const read = lineReader<unknown>((message) => seen.push(message));
          const places = [0, ...cuts.filter((cut) => cut < stream.length).sort((a, b) => a - b), stream.length];
          for (let index = 1; index < places.length; index++) read(stream.slice(places[index - 1], places[index]));
          expect(seen).toEqual(messages);
        },
      ),
    );
  });
});

describe('content', () => {
  it('of another place or seed, or zeroed, is seen', () => {
    const block = new Uint8Array(4096);
    fillContent(block, 8192, 3);
    expect(firstDifference(block, 8192, 3)).toBeUndefined();
    expect(firstDifference(block, 4096, 3)).toBeDefined();
    expect(firstDifference(block, 8192, 4)).toBeDefined();
    expect(block.some((_, index) => index % 4 === 0 && block.subarray(index, index + 4).every((byte) => byte === 0))).toBe(false);
    block[3000] ^= 1;
    expect(firstDifference(block, 8192, 3)).toBe(3000);
  });
});

describe('records', () => {
  it('have the check sum that the standard gives for "123456789"', () => {
    expect(crc32(Buffer.from('123456789'))).toBe(0xcbf43926);
  });

  it('are counted up to the first that is torn, missing or of an earlier round', () => {
    const log = [makeRecord(1, 0), makeRecord(2, 0), makeRecord(3, 2), makeRecord(4, 2)];
    const end = log[0].length + log[1].length + log[2].length;
    expect(scanRecords(Buffer.concat([...log, Buffer.alloc(100)]))).toMatchObject({ last: 4, round: 2 });
    const torn = Buffer.concat(log);
    torn[end + 30] ^= 1;
    expect(scanRecords(torn)).toEqual({ last: 3, round: 2, end });
    expect(scanRecords(Buffer.concat([log[0], log[2]])).last).toBe(1);
    expect(scanRecords(Buffer.concat([...log.slice(0, 3), makeRecord(4, 1)])).last).toBe(3);
    expect(scanRecords(Buffer.alloc(4096))).toEqual({ last: 0, round: 0, end: 0 });
    expect(scanRecords(Buffer.concat(log).subarray(0, end + 25)).last).toBe(3);
  });
});

describe('a disk after a power cut', () => {
  /** A log as QEMU writes it. */
  function logOf(entries: Array<{ sector?: number; bytes?: Buffer; flush?: boolean; fua?: boolean; discard?: number }>): Buffer {
    const superBlock = Buffer.alloc(LOG_SECTOR_BYTES);
    superBlock.writeBigUInt64LE(0x6a736677736872n, 0);
    const parts: Buffer[] = [superBlock];
    for (const { sector = 0, bytes, flush, fua, discard } of entries) {
      const entry = Buffer.alloc(LOG_SECTOR_BYTES);
      entry.writeBigUInt64LE(BigInt(sector), 0);
      entry.writeBigUInt64LE(BigInt(discard ?? (bytes?.length ?? 0) / LOG_SECTOR_BYTES), 8);
      entry.writeBigUInt64LE(BigInt((flush ? 1 : 0) | (fua ? 2 : 0) | (discard === undefined ? 0 : 4)), 16);
      parts.push(entry, bytes ?? Buffer.alloc(0));
    }
    return Buffer.concat([...parts, Buffer.alloc(4 * LOG_SECTOR_BYTES)]);
  }

  const sectors = (count: number, value: number): Buffer => Buffer.alloc(count * LOG_SECTOR_BYTES, value);

  it('has everything before the last flush, and what was forced after it', () => {
    const image = join(folder, 'image');
    const log = join(folder, 'log');
    writeFileSync(image, Buffer.alloc(16 * LOG_SECTOR_BYTES));
    writeFileSync(
      log,
      logOf([
        { sector: 0, bytes: sectors(2, 1) },
        { sector: 1, bytes: sectors(1, 2) },
        { flush: true },
        { sector: 4, bytes: sectors(1, 3) },
        { sector: 5, bytes: sectors(1, 4), fua: true },
        { sector: 6, discard: 4 },
      ]),
    );
    expect(applyCut(image, log, () => 0)).toEqual({ kept: 3, lucky: 0, torn: 0, lost: 1 });
    expect(readFileSync(image).equals(Buffer.concat([sectors(1, 1), sectors(1, 2), sectors(3, 0), sectors(1, 4), sectors(10, 0)]))).toBe(true);
  });

  it('may have a write after the last flush, or a part of it that ends at a sector', () => {
    const operations: LoggedWrite[] = [
      { offset: 0, length: 0, data: undefined, flush: true, fua: false },
      { offset: 0, length: 4096, data: 1024, flush: false, fua: false },
    ];
    const fates = new Set<string>();
    for (let step = 0; step < 400; step++) {
      // Every fate with every cut and either end.
      const chances = [(step % 20) / 20, (Math.floor(step / 20) % 10) / 10, step < 200 ? 0 : 0.9];
      const [survivor] = survivors(operations, () => chances.shift()!);
      fates.add(survivor === undefined ? 'lost' : survivor.to - survivor.from === 4096 ? 'whole' : 'torn');
      if (survivor === undefined) continue;
      expect(survivor.from % LOG_SECTOR_BYTES).toBe(0);
      expect(survivor.to % LOG_SECTOR_BYTES).toBe(0);
      expect(survivor.to).toBeGreaterThan(survivor.from);
    }
    expect(fates).toEqual(new Set(['lost', 'whole', 'torn']));
  });

  it('is not made of a log with a hole', () => {
    const log = logOf([{ sector: 0, bytes: sectors(1, 1) }, {}, { sector: 1, bytes: sectors(1, 2) }, { flush: true }]);
    expect(() => readLog((target, position) => log.copy(target, 0, position))).toThrow(/hole/);
  });

  it('is not made of something that is no log', () => {
    expect(() => readLog((target) => target.fill(7).length)).toThrow(/super block/);
  });
});

describe('cells that are changed in place', () => {
  /** A lane after its first `versions` changes, but for those of the cells in `without`. */
  function lane(versions: number, without: number[] = []): Buffer {
    const cells = Buffer.alloc(CELLS * CELL_BYTES);
    for (let version = 1; version <= versions; version++) if (!without.includes(version)) makeCell(3, version).copy(cells, cellOf(version) * CELL_BYTES);
    return cells;
  }

  it('are at the version that was flushed, or later', () => {
    expect(faultOfCells(lane(200), 3, 200)).toBeUndefined();
    expect(faultOfCells(lane(260), 3, 200)).toBeUndefined();
    expect(faultOfCells(lane(0), 3, 0)).toBeUndefined();
  });

  it('show a change that is missing, one that is torn, and one that is in another place', () => {
    expect(faultOfCells(lane(200, [200]), 3, 200)).toContain('200 was flushed');
    const torn = lane(200);
    torn[cellOf(200) * CELL_BYTES + 300] ^= 1;
    expect(faultOfCells(torn, 3, 200)).toContain('what nobody wrote');
    const moved = lane(0);
    makeCell(3, 1).copy(moved, ((cellOf(1) + 1) % CELLS) * CELL_BYTES);
    expect(faultOfCells(moved, 3, 0)).toContain('belongs elsewhere');
    expect(faultOfCells(lane(200), 2, 0)).toContain('what nobody wrote');
  });
});
