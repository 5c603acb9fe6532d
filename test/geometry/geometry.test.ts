/** Sizes and alignments from made-up answers of the kernel: what is believed, what is replaced, what is told. */
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, describe, expect, it } from 'vitest';
import { judgeDirect } from '../../src/geometry/direct-io.js';
import { geometryFrom, usableOptimalIoSize } from '../../src/geometry/geometry.js';
import type { BlockDevice, QueueLimits } from '../../src/geometry/sysfs.js';
import { blockDevice, btrfsDevices } from '../../src/geometry/sysfs.js';
import type { NativeProbe } from '../../src/io/native.js';

const REFUSED = -25;
const EINVAL = -22;

function probe(changes: Partial<NativeProbe> = {}): NativeProbe {
  return {
    mode: 0o100644,
    size: 12345,
    dev: '259:1',
    rdev: '0:0',
    ino: '42',
    fsType: 0xef53,
    fsBlockSize: 4096,
    fsid: '',
    realtime: false,
    dioMemAlign: 0,
    dioOffsetAlign: 0,
    dioReadOffsetAlign: 0,
    dioReported: false,
    dioReadReported: false,
    logical: REFUSED,
    physical: REFUSED,
    ioMin: REFUSED,
    ioOpt: REFUSED,
    alignOff: REFUSED,
    deviceSize: REFUSED,
    rotational: REFUSED,
    maxSectors: REFUSED,
    readOnly: REFUSED,
    diskSeq: REFUSED,
    ...changes,
  };
}

function limits(changes: Partial<QueueLimits> = {}): QueueLimits {
  return {
    logicalBlockSize: 512,
    physicalBlockSize: 4096,
    minimumIoSize: 4096,
    optimalIoSize: 0,
    maxBytes: 1280 * 1024,
    maxHardwareBytes: 2048 * 1024,
    maxSegments: 168,
    maxSegmentSize: 65536,
    requests: 256,
    dmaAlignmentMask: 3,
    rotational: false,
    ...changes,
  };
}

function device(changes: Partial<BlockDevice> = {}, queue: Partial<QueueLimits> = {}): BlockDevice {
  return {
    name: 'nvme0n1p1',
    disk: 'nvme0n1',
    numbers: '259:1',
    partition: 1,
    startBytes: 1 << 20,
    sizeBytes: 1 << 30,
    alignmentOffset: 0,
    readOnly: false,
    diskSequence: 7,
    folder: '/sys/devices/nvme0n1/nvme0n1p1',
    diskFolder: '/sys/devices/nvme0n1',
    limits: limits(queue),
    ...changes,
  };
}

const direct = { real: true, reason: 'reported', alignment: { memory: 4, read: 512, write: 4096 } };

describe('optimal I/O size', () => {
  // What devices really report, as minimum / optimal / physical / logical, and what it is worth.
  it.each([
    ['none', 512, 0, 512, 512, 0],
    ['0xFFFF sectors of a USB bridge', 512, 33553920, 512, 512, 0],
    ['0xFFFF sectors of a USB bridge, 4K physical', 4096, 33553920, 4096, 512, 0],
    ['0xFFFF blocks of a 4Kn disk', 4096, 268431360, 4096, 4096, 0],
    ['32767 sectors', 512, 16776704, 512, 512, 0],
    ['32767 sectors, 4K physical', 4096, 16776704, 4096, 512, 0],
    ['a RAID5 stripe of three disks', 65536, 196608, 512, 512, 196608],
    ['a stripe of 64 MiB', 65536, 64 << 20, 512, 512, 64 << 20],
    ['a stripe of 256 MiB, over the cap', 65536, 256 << 20, 512, 512, 0],
    ['a saturated 32-bit multiple', 4096, 4294963200, 4096, 512, 0],
    ['one page, as compressed memory says', 4096, 4096, 4096, 4096, 4096],
    ['no multiple of the minimum', 65536, 98304, 512, 512, 0],
  ])('%s', (_name, minimum, optimal, physical, logical, expected) => {
    expect(usableOptimalIoSize(optimal, minimum, physical, logical)).toBe(expected);
  });
});

describe('geometry', () => {
  it('takes alignment from the partition and limits from its disk', () => {
    const facts = geometryFrom(probe(), [device({ alignmentOffset: 3584 })], direct, true);
    expect(facts.geometry).toEqual({
      kind: 'file',
      device: 'nvme0n1p1',
      logicalSectorSize: 512,
      physicalSectorSize: 4096,
      memoryAlignment: 4,
      readAlignment: 512,
      writeAlignment: 4096,
      minimumIoSize: 4096,
      optimalIoSize: 0,
      alignmentOffset: 3584,
      maxTransferSize: 168 * 4096,
      rotational: false,
      diskSequence: 7,
    });
    expect(facts).toMatchObject({ isDevice: false, size: 12345, inodeKey: 'inode 259:1 42', fsName: 'ext4', extentsAreOnDevice: true, queueRequests: 256 });
  });

  it('passes on that a stack cannot be aligned', () => {
    expect(geometryFrom(probe(), [device({ alignmentOffset: -1 })], direct, true).geometry.alignmentOffset).toBe(-1);
    expect(geometryFrom(probe({ mode: 0o060660, alignOff: -1 }), [], direct, true).geometry.alignmentOffset).toBe(-1);
    expect(geometryFrom(probe({ mode: 0o060660, alignOff: REFUSED }), [], direct, true).geometry.alignmentOffset).toBe(0);
  });

  it('assumes 4096-byte sectors and transfers of 1 MiB where no device can be named', () => {
    const facts = geometryFrom(probe({ dev: '0:27', fsType: 0x01021994 }), [], { real: false, reason: '', alignment: { memory: 0, read: 0, write: 0 } }, true);
    expect(facts.geometry).toMatchObject({
      device: undefined,
      logicalSectorSize: 4096,
      physicalSectorSize: 4096,
      minimumIoSize: 4096,
      maxTransferSize: 1 << 20,
    });
    expect(facts.geometry).toMatchObject({ memoryAlignment: 0, readAlignment: 0, writeAlignment: 0 });
    expect(facts).toMatchObject({ transfer: { memory: 512, read: 512, write: 512 }, extentsAreOnDevice: false, queueRequests: undefined });
  });

  it('asks the ioctls of a device that sysfs does not show', () => {
    const seen = probe({
      mode: 0o060660,
      rdev: '8:0',
      logical: 4096,
      physical: 4096,
      ioMin: 65536,
      ioOpt: 196608,
      alignOff: 0,
      deviceSize: 7 << 20,
      maxSectors: 256,
      rotational: 1,
      readOnly: 1,
      diskSeq: 9,
    });
    const facts = geometryFrom(seen, [], direct, false);
    expect(facts.geometry).toMatchObject({
      kind: 'block-device',
      logicalSectorSize: 4096,
      minimumIoSize: 65536,
      optimalIoSize: 196608,
      maxTransferSize: 131072,
      rotational: true,
    });
    expect(facts).toMatchObject({ size: 7 << 20, inodeKey: 'device 8:0', readOnlyDevice: true, deviceSize: 7 << 20 });
    expect(facts.geometry.diskSequence).toBe(9);
  });

  it('gives a transfer size between a page and 4 MiB, in whole pages, that fits the segments when frames are scattered', () => {
    fc.assert(
      fc.property(fc.option(fc.nat(2 ** 41)), fc.option(fc.nat(70000)), (maxBytes, maxSegments) => {
        const { geometry } = geometryFrom(probe(), [device({}, { maxBytes: maxBytes ?? undefined, maxSegments: maxSegments ?? undefined })], direct, true);
        expect(geometry.maxTransferSize % 4096).toBe(0);
        expect(geometry.maxTransferSize).toBeGreaterThanOrEqual(4096);
        expect(geometry.maxTransferSize).toBeLessThanOrEqual(4 << 20);
        if (maxSegments) expect(geometry.maxTransferSize).toBeLessThanOrEqual(maxSegments * 4096);
        if (maxBytes && maxBytes >= 4096) expect(geometry.maxTransferSize).toBeLessThanOrEqual(maxBytes);
      }),
    );
  });

  it('names no device for a file system on several, and takes the strictest limits of them', () => {
    const members = [device(), device({ name: 'sdb', disk: 'sdb' }, { logicalBlockSize: 4096, maxBytes: 131072, rotational: true, optimalIoSize: 1 << 20 })];
    const facts = geometryFrom(probe({ fsid: 'abc', fsType: 0x9123683e }), members, direct, true);
    expect(facts.geometry).toMatchObject({
      device: undefined,
      logicalSectorSize: 4096,
      maxTransferSize: 131072,
      rotational: true,
      optimalIoSize: 0,
      alignmentOffset: 0,
    });
    expect(facts.features[1].reason).toBe('the strictest of nvme0n1p1 on nvme0n1, sdb');
  });

  it('tells that an optimal I/O size was reported and not believed', () => {
    const { features } = geometryFrom(probe(), [device({}, { optimalIoSize: 33553920 })], direct, true);
    expect(features.find((feature) => feature.name === 'optimal I/O size')).toMatchObject({ used: false, reason: expect.stringContaining('33553920') });
  });

  it('never gives FIEMAP addresses of btrfs for sectors of a device', () => {
    expect(geometryFrom(probe({ fsid: 'abc', fsType: 0x9123683e }), [device()], direct, true)).toMatchObject({
      extentsAreOnDevice: false,
      geometry: { device: 'nvme0n1p1' },
    });
  });
});

describe('O_DIRECT', () => {
  it('is real where the kernel reports it, with a read alignment of its own', () => {
    const reported = probe({ dioReported: true, dioMemAlign: 4, dioOffsetAlign: 4096, dioReadReported: true, dioReadOffsetAlign: 512 });
    expect(judgeDirect(reported, false, limits(), undefined)).toMatchObject({ real: true, alignment: { memory: 4, read: 512, write: 4096 } });
  });

  it('is impossible where the kernel reports an alignment of 0, and in memory file systems', () => {
    expect(judgeDirect(probe({ dioReported: true }), false, limits(), () => 512)).toMatchObject({ real: false, alignment: { memory: 0, read: 0, write: 0 } });
    expect(judgeDirect(probe({ fsType: 0x01021994 }), false, undefined, () => 512)).toMatchObject({
      real: false,
      alignment: { write: 0 },
      reason: expect.stringContaining('tmpfs'),
    });
  });

  it('is not claimed for FUSE and network file systems, which take anything', () => {
    for (const fsType of [0x65735546, 0x6969]) {
      expect(judgeDirect(probe({ fsType }), false, undefined, () => 4096)).toMatchObject({ real: false, alignment: { memory: 4096, read: 4096, write: 4096 } });
    }
  });

  it('is kept real on btrfs by its own sector size, whatever the sectors of the device are', () => {
    expect(judgeDirect(probe({ fsType: 0x9123683e, fsid: 'a' }), false, limits(), () => 512)).toMatchObject({
      real: true,
      alignment: { memory: 4096, read: 4096, write: 4096 },
    });
  });

  it('is proved by a refused misaligned read where nothing is reported, and grows to what is taken', () => {
    const refusesBelow = (size: number) => (length: number) => (length < size ? EINVAL : length);
    expect(judgeDirect(probe(), false, limits(), refusesBelow(512))).toMatchObject({ real: true, alignment: { memory: 512, read: 512, write: 512 } });
    expect(judgeDirect(probe(), false, limits(), refusesBelow(4096))).toMatchObject({ real: true, alignment: { memory: 4096, read: 4096, write: 4096 } });
    expect(judgeDirect(probe(), false, limits(), refusesBelow(1 << 20))).toMatchObject({ real: false, alignment: { write: 0 } });
    expect(judgeDirect(probe(), false, limits(), (length) => length)).toMatchObject({ real: false, alignment: { write: 512 } });
  });

  it('takes the sector size of an older kernel’s block device, and its DMA alignment where that is larger', () => {
    expect(judgeDirect(probe({ mode: 0o060660 }), true, limits({ logicalBlockSize: 4096 }), undefined)).toMatchObject({
      real: true,
      alignment: { memory: 4096 },
    });
    expect(judgeDirect(probe({ mode: 0o060660 }), true, limits({ dmaAlignmentMask: 4095 }), undefined)).toMatchObject({ alignment: { memory: 4096 } });
    expect(judgeDirect(probe({ mode: 0o060660, logical: 512 }), true, undefined, undefined)).toMatchObject({ alignment: { memory: 512 } });
  });
});

describe('sysfs', () => {
  const sysfs = mkdtempSync(join(tmpdir(), 'sectorwise-sysfs-'));
  afterAll(() => rmSync(sysfs, { recursive: true }));

  const put = (folder: string, attributes: Record<string, string | number>): void => {
    mkdirSync(join(sysfs, folder), { recursive: true });
    for (const [name, value] of Object.entries(attributes)) writeFileSync(join(sysfs, folder, name), `${value}\n`);
  };
  const link = (from: string, to: string): void => {
    mkdirSync(join(sysfs, from, '..'), { recursive: true });
    symlinkSync(join(sysfs, to), join(sysfs, from));
  };
  put('devices/nvme0n1', { dev: '259:0', size: 8192, alignment_offset: 0, ro: 0 });
  put('devices/nvme0n1/queue', {
    logical_block_size: 4096,
    physical_block_size: 4096,
    max_sectors_kb: 128,
    max_segments: 127,
    rotational: 0,
    nr_requests: 1023,
  });
  put('devices/nvme0n1/nvme0n1p2', { dev: '259:2', partition: 2, start: 2048, size: 4096, alignment_offset: -1, ro: 1 });
  put('devices/cciss!c0d0', { dev: '104:0', size: 16 });
  link('dev/block/259:0', 'devices/nvme0n1');
  link('dev/block/259:2', 'devices/nvme0n1/nvme0n1p2');
  link('dev/block/104:0', 'devices/cciss!c0d0');
  link('fs/btrfs/f5/devices/nvme0n1p2', 'devices/nvme0n1/nvme0n1p2');

  it('gives a partition its own start, size, alignment and write protection, and the queue of its disk', () => {
    expect(blockDevice('259:2', sysfs)).toMatchObject({
      name: 'nvme0n1p2',
      disk: 'nvme0n1',
      partition: 2,
      startBytes: 1 << 20,
      sizeBytes: 2 << 20,
      alignmentOffset: -1,
      readOnly: true,
      limits: { logicalBlockSize: 4096, maxBytes: 131072, maxSegments: 127, requests: 1023, rotational: false, optimalIoSize: undefined },
    });
  });

  it('writes the slash that sysfs cannot, and knows what is missing', () => {
    expect(blockDevice('104:0', sysfs)).toMatchObject({
      name: 'cciss/c0d0',
      disk: 'cciss/c0d0',
      alignmentOffset: undefined,
      limits: { logicalBlockSize: undefined },
    });
    expect(blockDevice('1:1', sysfs)).toBeUndefined();
  });

  it('finds the devices of a btrfs by its name', () => {
    expect(btrfsDevices('f5', sysfs).map((each) => each.name)).toEqual(['nvme0n1p2']);
    expect(btrfsDevices('no', sysfs)).toEqual([]);
  });
});
