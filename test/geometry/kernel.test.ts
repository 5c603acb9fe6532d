/** Geometry, extents, locks and claims of real files and devices. What needs root or a tool is skipped by name. */
import { execFileSync } from 'node:child_process';
import {
  closeSync,
  constants,
  copyFileSync,
  existsSync,
  fsyncSync,
  ftruncateSync,
  mkdtempSync,
  openSync,
  readFileSync,
  readSync,
  rmSync,
  statSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Worker } from 'node:worker_threads';
import { afterAll, afterEach, describe, expect, it } from 'vitest';
import type { Extent } from '../../src/geometry/extents.js';
import { readExtentOrder, readExtents } from '../../src/geometry/extents.js';
import { directSupport, readGeometry } from '../../src/geometry/geometry.js';
import { blockDevice } from '../../src/geometry/sysfs.js';
import type { NativeBinding } from '../../src/io/native.js';
import { native } from '../../src/io/native.js';
import { LoopDevices, noFileSystem, noLoopDevices } from './loop-devices.js';

const { O_RDWR, O_RDONLY, O_CREAT, O_DIRECT } = constants;
const MEBIBYTE = 1 << 20;

const lab = new LoopDevices();
const opened: number[] = [];
const made: string[] = [];
afterEach(() => {
  for (const fd of opened.splice(0)) closeSync(fd);
  for (const path of made.splice(0)) rmSync(path, { force: true });
});
afterAll(() => lab.dispose());

function open(path: string, flags = O_RDWR | O_CREAT): number {
  const fd = openSync(path, flags, 0o644);
  opened.push(fd);
  return fd;
}

function fill(fd: number, offset: number, bytes: number): void {
  const data = Buffer.alloc(bytes);
  for (let i = 0; i < bytes; i++) data[i] = (offset + i) * 31 + ((offset + i) >> 9);
  writeSync(fd, data, 0, bytes, offset);
}

/** The rules that hold for every answer. */
function covers(extents: Extent[], offset: number, end: number): void {
  let position = offset;
  for (const extent of extents) {
    expect(extent.offset).toBe(position);
    expect(extent.length).toBeGreaterThan(0);
    position += extent.length;
  }
  expect(position).toBe(end);
}

/** Compares the bytes of every mappable extent on the device with those of the file. */
function provesOnDevice(fd: number, device: string, extents: Extent[]): number {
  execFileSync('blockdev', ['--flushbufs', device]);
  const raw = open(device, O_RDONLY);
  let proved = 0;
  for (const extent of extents) {
    if (!extent.mappable) continue;
    const there = Buffer.alloc(extent.length);
    const here = Buffer.alloc(extent.length);
    readSync(raw, there, 0, extent.length, extent.sector! * 512 + (extent.offset % 512));
    readSync(fd, here, 0, extent.length, extent.offset);
    expect(there.equals(here)).toBe(true);
    proved += extent.length;
  }
  return proved;
}

const tempProbe = ((): { fsType: number; dev: string } => {
  const path = join(lab.folder, 'which');
  writeFileSync(path, 'x');
  const fd = openSync(path, 'r');
  const probe = native().probe(fd);
  closeSync(fd);
  return probe;
})();
const notExt4 = tempProbe.fsType === 0xef53 && blockDevice(tempProbe.dev) !== undefined ? undefined : 'the temp folder is not on an ext4 with a device';
const skipNote = (reason: string | undefined): string => (reason === undefined ? '' : ` [skipped: ${reason}]`);

describe.skipIf(notExt4)(`an ext4 file in the temp folder${skipNote(notExt4)}`, () => {
  const path = join(lab.folder, 'file');

  it('has the sizes of the device under it, and an O_DIRECT that the kernel answers for', () => {
    const fd = open(path);
    fill(fd, 0, 10_000);
    const facts = readGeometry(fd, { direct: false });
    const numbers = statSync(path).dev;
    expect(facts.geometry.kind).toBe('file');
    expect(facts.geometry.device).toBe(blockDevice(tempProbe.dev)!.name);
    expect(facts.deviceNumbers).toBe(`${(numbers >> 8) & 0xfff}:${(numbers & 0xff) | ((numbers >> 12) & 0xfff00)}`);
    expect(facts.size).toBe(10_000);
    expect(facts.geometry.physicalSectorSize).toBeGreaterThanOrEqual(facts.geometry.logicalSectorSize);
    expect(facts.geometry.writeAlignment).toBeGreaterThan(0);
    expect(facts.trustMincore).toBe(true);
    expect(facts.features.find((feature) => feature.name === 'O_DIRECT')).toMatchObject({ used: false });
    const again = open(path, O_RDWR | O_DIRECT);
    expect(readGeometry(again, { direct: true }).features.find((feature) => feature.name === 'O_DIRECT')).toMatchObject({ used: true });
    expect(directSupport(again, true).real).toBe(true);
  });

  it('takes direct reads at the alignment it names and refuses them below a sector', () => {
    const fd = open(path, O_RDWR | O_DIRECT);
    const { readAlignment } = readGeometry(fd, { direct: true }).geometry;
    expect(native().probeDirect(fd, readAlignment, readAlignment)).toBe(readAlignment);
    expect(native().probeDirect(fd, 256, 256)).toBe(-22);
  });

  it('shows holes, unwritten and written extents, and an odd tail, and covers any range exactly', async () => {
    const fd = open(join(lab.folder, 'holes'));
    fill(fd, 0, 65536);
    ftruncateSync(fd, 5 * MEBIBYTE);
    expect(await native().allocateAsync(fd, MEBIBYTE, MEBIBYTE)).toBe(0);
    fill(fd, 5 * MEBIBYTE, 4096 + 77);
    fsyncSync(fd);
    const size = 5 * MEBIBYTE + 4096 + 77;
    const facts = readGeometry(fd, { direct: false });
    const extents = await readExtents(fd, facts, 0, 100 * MEBIBYTE);
    covers(extents, 0, size);
    const at = (offset: number): Extent => extents.find((extent) => extent.offset <= offset && offset < extent.offset + extent.length)!;
    expect(at(0)).toMatchObject({ mappable: true, sector: expect.any(Number) });
    expect(at(512 * 1024)).toMatchObject({ mappable: false, sector: undefined });
    expect(at(MEBIBYTE)).toMatchObject({ mappable: false, sector: expect.any(Number) });
    expect(at(3 * MEBIBYTE)).toMatchObject({ mappable: false, sector: undefined });
    expect(at(size - 1)).toMatchObject({ mappable: true });
    covers(await readExtents(fd, facts, 4096, 1000), 4096, 5096);
    covers(await readExtents(fd, facts, 65535, MEBIBYTE), 65535, 65535 + MEBIBYTE);
    covers(await readExtents(fd, facts, size - 3, 4096), size - 3, size);
    expect(await readExtents(fd, facts, size, 4096)).toEqual([]);
    expect(await readExtents(fd, facts, 0, 0)).toEqual([]);
  });

  it('answers the same on this thread and off it, and in several batches', async () => {
    const fd = open(join(lab.folder, 'fragments'));
    for (let i = 0; i < 1500; i++) fill(fd, i * 8192, 4096);
    fsyncSync(fd);
    const here = native().fiemap(fd, 0, 1500 * 8192, false);
    const there = await native().fiemapAsync(fd, 0, 1500 * 8192, false);
    expect(here).toMatchObject({ status: 0, complete: true });
    expect(here.values.length).toBe(1500 * 4);
    expect(there).toEqual(here);
    const extents = await readExtents(fd, readGeometry(fd, { direct: false }), 0, 1500 * 8192);
    covers(extents, 0, 1500 * 8192 - 4096);
    expect(extents.length).toBe(1500 * 2 - 1);
    const order = await readExtentOrder(fd, readGeometry(fd, { direct: false }));
    for (const extent of extents) if (extent.sector !== undefined) expect(order.place(extent.offset / 512)).toBe(extent.sector);
  });

  it('is locked once, and shared as often as asked for', () => {
    const [first, second] = [open(path), open(path)];
    expect(native().lock(first, false)).toBe(0);
    expect(native().lock(second, false)).toBe(0);
    expect(native().lock(second, true)).toBe(-11);
    closeSync(opened.splice(opened.indexOf(first), 1)[0]);
    expect(native().lock(second, true)).toBe(0);
  });

  it('allocates blocks and grows', () => {
    const target = join(lab.folder, 'allocated');
    const fd = open(target);
    expect(native().fallocate(fd, 4096, 8192)).toBe(0);
    expect(statSync(target)).toMatchObject({ size: 12288, blocks: 16 });
    expect(native().fallocate(fd, 0, 0)).toBe(-22);
  });
});

describe('what cannot be opened', () => {
  it('is refused by name: directories, devices of characters, bad descriptors', () => {
    expect(() => readGeometry(open('/', O_RDONLY), { direct: false })).toThrow(expect.objectContaining({ code: 'EISDIR' }));
    expect(() => readGeometry(open('/dev/null', O_RDONLY), { direct: false })).toThrow(expect.objectContaining({ code: 'ERR_SECTORWISE_FILE_TYPE' }));
    expect(() => readGeometry(99_999, { direct: false })).toThrow(expect.objectContaining({ code: 'EBADF', syscall: 'fstat' }));
  });
});

const noShm = existsSync('/dev/shm') ? undefined : 'needs /dev/shm';
describe.skipIf(noShm)(`a tmpfs file${skipNote(noShm)}`, () => {
  it('has no device, says that its O_DIRECT is none, and answers one extent without a place', async () => {
    const path = `/dev/shm/sectorwise-geometry-${process.pid}`;
    made.push(path);
    const fd = open(path);
    fill(fd, 0, 12_345);
    const facts = readGeometry(fd, { direct: true });
    expect(facts).toMatchObject({ fsName: 'tmpfs', directIsReal: false, extentsAreOnDevice: false, size: 12_345 });
    expect(facts.geometry).toMatchObject({ device: undefined, memoryAlignment: 0, readAlignment: 0, writeAlignment: 0, logicalSectorSize: 4096 });
    expect(facts.features.find((feature) => feature.name === 'O_DIRECT')).toMatchObject({ used: false, reason: expect.stringContaining('tmpfs') });
    expect(await readExtents(fd, facts, 100, 1 << 30)).toEqual([{ offset: 100, length: 12_245, sector: undefined, mappable: false }]);
    expect((await readExtentOrder(fd, facts)).place(17)).toBe(17);
  });
});

describe.skipIf(noLoopDevices)(`loop devices${skipNote(noLoopDevices)}`, () => {
  it.each([512, 4096])('with %i-byte sectors say so, and are their own extent', async (sectorSize) => {
    const device = lab.attach(lab.image(8 * MEBIBYTE), sectorSize);
    const fd = open(device, O_RDWR | O_DIRECT);
    const facts = readGeometry(fd, { direct: true });
    expect(facts).toMatchObject({ isDevice: true, size: 8 * MEBIBYTE, readOnlyDevice: false, directIsReal: true, deviceSize: 8 * MEBIBYTE });
    expect(facts.geometry).toMatchObject({
      kind: 'block-device',
      device: basename(device),
      logicalSectorSize: sectorSize,
      readAlignment: sectorSize,
      writeAlignment: sectorSize,
    });
    expect(native().probeDirect(fd, sectorSize, sectorSize)).toBe(sectorSize);
    expect(native().probeDirect(fd, sectorSize / 2, sectorSize / 2)).toBe(-22);
    expect(await readExtents(fd, facts, 8192, 1 << 30)).toEqual([{ offset: 8192, length: 8 * MEBIBYTE - 8192, sector: 16, mappable: true }]);
  });

  const noPartitions = existsSync('/usr/bin/addpart') ? undefined : 'needs addpart';
  it.skipIf(noPartitions)(`take size and alignment of the very partition, and limits of the disk${skipNote(noPartitions)}`, () => {
    const device = lab.attach(lab.image(64 * MEBIBYTE));
    const odd = lab.partition(device, 1, 63, 20480);
    const even = lab.partition(device, 2, 32768, 65536);
    for (const [node, start, sectors] of [
      [odd, 63, 20480],
      [even, 32768, 65536],
    ] as const) {
      const facts = readGeometry(open(node, O_RDWR), { direct: false });
      const attribute = (name: string): number => Number(readFileSync(`/sys/class/block/${basename(node)}/${name}`, 'latin1'));
      expect(facts.size).toBe(sectors * 512);
      expect(facts.geometry).toMatchObject({ device: basename(node), alignmentOffset: attribute('alignment_offset') });
      expect(facts.features.find((feature) => feature.name === 'device limits')?.reason).toBe(`of ${basename(node)} on ${basename(device)}`);
      expect(blockDevice(facts.deviceNumbers)).toMatchObject({ startBytes: start * 512, partition: node === odd ? 1 : 2, disk: basename(device) });
      expect(facts.geometry.maxTransferSize).toBe(readGeometry(open(device, O_RDWR), { direct: false }).geometry.maxTransferSize);
    }
  });

  const noFileSystemInPartition = noPartitions ?? noFileSystem('mkfs.ext4');
  it.skipIf(noFileSystemInPartition)(`give the sectors of a file relative to the partition that it is on${skipNote(noFileSystemInPartition)}`, async () => {
    const device = lab.attach(lab.image(64 * MEBIBYTE));
    const partition = lab.partition(device, 1, 2048, 65536);
    execFileSync('mkfs.ext4', ['-q', '-F', partition]);
    const folder = lab.mount(partition);
    const fd = open(join(folder, 'file'));
    fill(fd, 0, 300_000);
    fsyncSync(fd);
    const facts = readGeometry(fd, { direct: false });
    expect(facts.geometry.device).toBe(basename(partition));
    expect(provesOnDevice(fd, partition, await readExtents(fd, facts, 0, MEBIBYTE))).toBe(300_000);
  });

  it('know that they are read-only', () => {
    const device = lab.attach(lab.image(MEBIBYTE));
    lab.protect(device);
    expect(readGeometry(open(device, O_RDONLY), { direct: false }).readOnlyDevice).toBe(true);
  });
});

const noExt4 = noFileSystem('mkfs.ext4');
describe.skipIf(noExt4)(`ext4 on a loop device${skipNote(noExt4)}`, () => {
  it('keeps small files inline: they have no sector', async () => {
    const { folder } = lab.fileSystem(32 * MEBIBYTE, 'mkfs.ext4', '-q', '-F', '-I', '256', '-O', 'inline_data');
    const fd = open(join(folder, 'small'));
    fill(fd, 0, 60);
    fsyncSync(fd);
    expect(await readExtents(fd, readGeometry(fd, { direct: false }), 0, 4096)).toEqual([{ offset: 0, length: 60, sector: undefined, mappable: false }]);
  });
});

const noXfs = noFileSystem('mkfs.xfs');
describe.skipIf(noXfs)(`xfs on a loop device${skipNote(noXfs)}`, () => {
  it('names the sectors where the device has the bytes', async () => {
    const { device, folder } = lab.fileSystem(320 * MEBIBYTE, 'mkfs.xfs', '-q', '-f');
    const fd = open(join(folder, 'file'), O_RDWR | O_CREAT);
    fill(fd, 0, 100_000);
    fill(fd, MEBIBYTE, 50_001);
    fsyncSync(fd);
    const facts = readGeometry(fd, { direct: false });
    expect(facts).toMatchObject({ fsName: 'xfs', directIsReal: true, geometry: { device: basename(device) } });
    const extents = await readExtents(fd, facts, 0, 2 * MEBIBYTE);
    covers(extents, 0, MEBIBYTE + 50_001);
    expect(provesOnDevice(fd, device, extents)).toBeGreaterThanOrEqual(150_001);
  });
});

const noBtrfs = noFileSystem('mkfs.btrfs');
describe.skipIf(noBtrfs)(`btrfs on a loop device${skipNote(noBtrfs)}`, () => {
  it('names its device though st_dev does not, keeps direct reads aligned to its own sectors, and no sector for any byte', async () => {
    const { device, folder } = lab.fileSystem(300 * MEBIBYTE, 'mkfs.btrfs', '-q', '-f');
    const path = join(folder, 'file');
    const fd = open(path);
    fill(fd, 0, 500_000);
    fsyncSync(fd);
    const direct = open(path, O_RDWR | O_DIRECT);
    const facts = readGeometry(direct, { direct: true });
    expect(facts).toMatchObject({ fsName: 'btrfs', directIsReal: true, transfer: { memory: 4096, read: 4096, write: 4096 } });
    expect(facts.geometry).toMatchObject({ device: basename(device), logicalSectorSize: 512, writeAlignment: 4096 });
    expect(facts.features[0].reason).toMatch(/silently buffers/);
    expect(await readExtents(fd, facts, 0, MEBIBYTE)).toEqual([{ offset: 0, length: 500_000, sector: undefined, mappable: false }]);
    expect((await readExtentOrder(fd, facts)).runs).toBeGreaterThan(0);
  });
});

const noOverlay = noLoopDevices ?? (readFileSync('/proc/filesystems', 'latin1').includes('overlay') ? undefined : 'needs overlayfs');
describe.skipIf(noOverlay)(`overlayfs${skipNote(noOverlay)}`, () => {
  it('passes direct I/O through, names no device, and orders by the places of the layer below', async () => {
    const [lower, upper, work] = ['lower', 'upper', 'work'].map((name) => mkdtempSync(join(lab.folder, `${name}-`)));
    const folder = lab.mount('overlay', '-t', 'overlay', '-o', `lowerdir=${lower},upperdir=${upper},workdir=${work}`);
    const fd = open(join(folder, 'file'), O_RDWR | O_CREAT | O_DIRECT);
    expect(native().fallocate(fd, 0, 65536)).toBe(0);
    const facts = readGeometry(fd, { direct: true });
    expect(facts.fsName).toBe('overlay');
    expect(facts.geometry.device).toBeUndefined();
    expect(await readExtents(fd, facts, 0, MEBIBYTE)).toEqual([{ offset: 0, length: 65536, sector: undefined, mappable: false }]);
    const below = open(join(upper, 'file'), O_RDWR | O_DIRECT);
    const support = directSupport(below, true);
    expect(facts).toMatchObject({ directIsReal: support.real, transfer: support.alignment });
    expect((await readExtentOrder(fd, facts)).place(0)).toBe((await readExtentOrder(below, readGeometry(below, { direct: true }))).place(0));
  });
});

const ZRAM = '/sys/block/zram0/disksize';
const noZram = !existsSync(ZRAM)
  ? 'needs zram0'
  : process.geteuid?.() !== 0
    ? 'needs root'
    : readFileSync(ZRAM, 'latin1').trim() !== '0'
      ? 'zram0 is in use'
      : undefined;
describe.skipIf(noZram)(`zram0${skipNote(noZram)}`, () => {
  it('has 4096-byte sectors and transfers no longer than its queue takes', () => {
    writeFileSync(ZRAM, String(16 * MEBIBYTE));
    try {
      const fd = open('/dev/zram0', O_RDWR | O_DIRECT);
      const facts = readGeometry(fd, { direct: true });
      expect(facts.geometry).toMatchObject({ device: 'zram0', logicalSectorSize: 4096, readAlignment: 4096, writeAlignment: 4096, rotational: false });
      expect(facts.geometry.maxTransferSize).toBeLessThanOrEqual(blockDevice(facts.deviceNumbers)!.limits.maxBytes!);
      closeSync(opened.pop()!);
    } finally {
      writeFileSync('/sys/block/zram0/reset', '1');
    }
  });
});

describe('claims of inodes', () => {
  const binary = fileURLToPath(new URL('../../build/Release/sectorwise.node', import.meta.url));
  const noBinary = existsSync(binary) ? undefined : 'needs build/Release';
  const claimer = `
    const { parentPort, workerData } = require('node:worker_threads');
    const addon = require(workerData.binary);
    parentPort.on('message', ([call, key]) => parentPort.postMessage(addon[call](key) ?? null));`;
  const ask = (worker: Worker, call: 'claimInode' | 'freeInode', key: string): Promise<unknown> =>
    new Promise((resolve) => {
      worker.once('message', resolve);
      worker.postMessage([call, key]);
    });

  it.skipIf(noBinary)(`hold for all workers of the process, and end with the worker that made them${skipNote(noBinary)}`, async () => {
    const [one, two] = [0, 0].map(() => new Worker(claimer, { eval: true, workerData: { binary } }));
    try {
      expect(await ask(one, 'claimInode', 'a')).toBe(true);
      expect(await ask(one, 'claimInode', 'a')).toBe(false);
      expect(await ask(two, 'claimInode', 'a')).toBe(false);
      expect(native().claimInode('a')).toBe(false);
      expect(await ask(two, 'claimInode', 'b')).toBe(true);
      await ask(two, 'freeInode', 'a');
      expect(await ask(two, 'claimInode', 'a')).toBe(false);
      await ask(one, 'freeInode', 'a');
      expect(await ask(two, 'claimInode', 'a')).toBe(true);
      await two.terminate();
      expect(await ask(one, 'claimInode', 'a')).toBe(true);
      expect(native().claimInode('b')).toBe(true);
      native().freeInode('b');
    } finally {
      await Promise.all([one.terminate(), two.terminate()]);
    }
  });

  it.skipIf(noBinary)(`and calls off the main thread do not outlive a worker that is terminated${skipNote(noBinary)}`, async () => {
    const path = join(lab.folder, 'terminated');
    const fd = open(path);
    const busy = `
      const { parentPort, workerData } = require('node:worker_threads');
      const addon = require(workerData.binary);
      for (let i = 0; i < 200; i++) {
        addon.allocateAsync(workerData.fd, i * 65536, 4096);
        addon.fiemapAsync(workerData.fd, 0, 1 << 30, true);
      }
      parentPort.postMessage('started');`;
    for (let round = 0; round < 5; round++) {
      const worker = new Worker(busy, { eval: true, workerData: { binary, fd } });
      await new Promise((resolve) => worker.once('message', resolve));
      await worker.terminate();
    }
    expect(await native().fiemapAsync(fd, 0, 1 << 30, false)).toMatchObject({ status: 0 });
  });

  const glibc = (process.report?.getReport() as { header?: { glibcVersionRuntime?: string } } | undefined)?.header?.glibcVersionRuntime;
  const noCopies = noBinary ?? (glibc === undefined ? 'unique symbols are glibc’s' : undefined);
  it.skipIf(noCopies)(`hold for a second copy of the addon${skipNote(noCopies)}`, () => {
    const copy = join(mkdtempSync(join(tmpdir(), 'sectorwise-copy-')), 'sectorwise.node');
    copyFileSync(binary, copy);
    try {
      const second = createRequire(import.meta.url)(copy) as NativeBinding;
      expect(native().claimInode('copies')).toBe(true);
      expect(second.claimInode('copies')).toBe(false);
      second.freeInode('copies');
      expect(second.claimInode('copies')).toBe(false);
      native().freeInode('copies');
      expect(second.claimInode('copies')).toBe(true);
      second.freeInode('copies');
    } finally {
      rmSync(join(copy, '..'), { recursive: true });
    }
  });
});
