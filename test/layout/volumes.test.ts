/** Reading volumes: what is recognised by hand-built superblocks, nested layers, ambiguity, damage, and bounds against hostile bytes. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { crc32c } from '../../src/layout/crc32c.js';
import type { ImageSource, Volume } from '../../src/layout/model.js';
import { tierOf, tiersOf } from '../../src/layout/tier.js';
import { readVolume } from '../../src/layout/volume.js';
import { VIEW_READ_MAX } from '../../src/layout/volumes/view.js';
import { btrfs, exfat, ext, fat, Image, luks1, luks2, lvm, lvmText, md, ntfs, superblocks, swap, within, xfs } from './superblocks.js';

const GIB = 1n << 30n;

/** Bytes, followed by zeros up to `size`, counting what is read. */
function source(bytes: Uint8Array, size = 64n * GIB): ImageSource & { bytesRead: number; reads: number } {
  return {
    size,
    bytesRead: 0,
    reads: 0,
    read(offset, length) {
      const there = offset >= this.size ? 0 : Number(this.size - offset < BigInt(length) ? this.size - offset : BigInt(length));
      this.bytesRead += there;
      this.reads++;
      const answer = new Uint8Array(there);
      if (offset < BigInt(bytes.length)) answer.set(bytes.subarray(Number(offset), Math.min(bytes.length, Number(offset) + there)));
      return answer;
    },
  };
}

/** Of an image of 64 GiB, or of just the bytes. */
function volumeOf(bytes: Uint8Array, size?: bigint): Volume | null {
  const image = source(bytes, size);
  return readVolume(image, { offset: 0n, size: image.size, partition: null, pages: [4096] });
}

function changed(bytes: Uint8Array, ...at: number[]): Uint8Array {
  const copy = new Uint8Array(bytes);
  for (const i of at) copy[i] ^= 0x01;
  return copy;
}

describe('A hand-built superblock', () => {
  for (const { name, kind, bytes } of superblocks) {
    it(`of ${name} is recognised as ${kind}, whole`, () => {
      const isAtEnd = name === 'md 0.90' || name === 'md 1.0';
      const volume = volumeOf(bytes, isAtEnd ? BigInt(bytes.length) : undefined);
      expect(volume?.kind).toBe(kind);
      expect(volume?.damaged).toBeUndefined();
      expect(volume?.details.alsoFound).toBeUndefined();
    });

    it(`of ${name} is read within ${VIEW_READ_MAX / 1024} KiB a volume`, () => {
      const image = source(bytes);
      const volume = readVolume(image, { offset: 0n, size: image.size, partition: null, pages: [4096] });
      expect(image.bytesRead).toBeLessThanOrEqual(VIEW_READ_MAX * (1 + (volume?.inside.length ?? 0)));
    });
  }
});

describe('The tier of a data area (rule R6)', () => {
  it('is guaranteed or impossible where clusters are whole pages', () => {
    expect(tierOf(1_048_576n, 4096, 4096)).toBe('guaranteed');
    expect(tierOf(1_098_240n, 4096, 4096)).toBe('impossible');
    expect(tierOf(4096n, 65536, 16384)).toBe('impossible');
  });

  it('is per-file or impossible where they are not', () => {
    expect(tierOf(83_968n, 2048, 4096)).toBe('per-file');
    expect(tierOf(512n, 2048, 4096)).toBe('impossible');
    expect(tierOf(0n, 4096, 16384)).toBe('per-file');
    expect(tierOf(4096n, 12288, 4096)).toBe('guaranteed');
    expect(tierOf(4096n, 12288, 8192)).toBe('per-file');
  });

  it('is what a look at every place of a cluster finds', () => {
    const sizes = fc.constantFrom(512, 1024, 1536, 2048, 4096, 8192, 12288, 16384, 65536);
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 4096 }), sizes, fc.constantFrom(4096, 16384), (sectors, unit, page) => {
        const x = sectors * 512;
        const onPages = Array.from({ length: page }, (_, n) => (x + n * unit) % page === 0);
        const expected = onPages.every(Boolean) ? 'guaranteed' : onPages.some(Boolean) && unit % page !== 0 ? 'per-file' : 'impossible';
        expect(tierOf(BigInt(x), unit, page)).toBe(expected);
      }),
    );
  });

  it('differs between the disk and the partition where the partition lies beside a page', () => {
    expect(tiersOf({ offset: 32256n, dataOffset: 0n, unit: 4096, opaque: false }, [4096])).toEqual({
      '4096': { absolute: 'impossible', relative: 'guaranteed' },
    });
  });

  it('is impossible for what is encrypted, wherever it lies', () => {
    expect(tiersOf({ offset: 0n, dataOffset: 1n << 24n, unit: 4096, opaque: true }, [4096])['4096']).toEqual({
      absolute: 'impossible',
      relative: 'impossible',
    });
  });

  it('refuses a cluster of no bytes', () => {
    expect(() => tierOf(0n, 0, 4096)).toThrowError(expect.objectContaining({ code: 'ERR_OUT_OF_RANGE' }));
  });
});

describe('A volume in a partition', () => {
  it('is told from the partition and from the image', () => {
    const bytes = within(new Uint8Array(0), 32256, fat({ sectorsPerFat: 64, totalSectors: 65536, sectorsPerCluster: 8 }));
    const image = source(bytes);
    const volume = readVolume(image, { offset: 32256n, size: 65536n * 512n, partition: 1, pages: [4096, 16384] });
    const heap = BigInt((4 + 2 * 64 + 32) * 512);
    expect(volume).toMatchObject({ partition: 1, kind: 'fat16', offset: 32256n, dataOffset: heap, dataOffsetAbsolute: 32256n + heap });
    expect(volume?.tiers).toEqual({
      '4096': { absolute: 'impossible', relative: 'impossible' },
      '16384': { absolute: 'impossible', relative: 'impossible' },
    });
  });

  it('is not looked for before the image, behind it, or in no bytes', () => {
    for (const [offset, size] of [
      [-512n, 4096n],
      [1n << 60n, 4096n],
      [0n, 0n],
      [0n, -1n],
    ]) {
      expect(readVolume(source(ext('ext4')), { offset, size, partition: 1, pages: [4096] })).toBeNull();
    }
  });

  it('of an image that is cut off is read as far as there is one', () => {
    const image = source(swap(), 8192n);
    expect(readVolume(image, { offset: 0n, size: 1n << 30n, partition: 1, pages: [4096] })?.kind).toBe('swap');
  });

  it('says so where it claims more bytes than it was given', () => {
    const volume = readVolume(source(xfs()), { offset: 0n, size: 1n << 20n, partition: 1, pages: [4096] });
    expect(volume?.damaged).toBe('claims 33554432 bytes, 32505856 more than there are');
  });

  it('passes on what the source throws', () => {
    const image: ImageSource = {
      size: GIB,
      read() {
        throw Object.assign(new Error('EIO'), { code: 'EIO' });
      },
    };
    expect(() => readVolume(image, { offset: 0n, size: GIB, partition: null, pages: [4096] })).toThrowError(expect.objectContaining({ code: 'EIO' }));
  });
});

describe('Damage', () => {
  const cases: [string, Uint8Array, RegExp][] = [
    ['ext4 superblock', changed(ext('ext4'), 1024 + 500), /superblock checksum 0x[0-9a-f]{8} where 0x[0-9a-f]{8} belongs/],
    ['XFS superblock', changed(xfs(), 400), /superblock checksum/],
    ['btrfs superblock', changed(btrfs(), 65536 + 3000), /superblock checksum/],
    ['btrfs superblock with SHA-256', changed(btrfs('sha256'), 65536 + 3000), /sha256/],
    ['LVM label', changed(lvm(), 512 + 300), /label checksum/],
    ['LVM metadata', changed(lvm(), 4096 + 1024 + 30), /metadata checksum/],
    ['LVM metadata area', changed(lvm(), 4096 + 300), /metadata area checksum/],
    ['exFAT boot region', changed(exfat(), 300), /boot region: checksum .*; its copy at sector 12: whole/],
    ['exFAT boot region with its copy', changed(exfat(), 300, 12 * 512 + 300), /its copy at sector 12: checksum/],
    ['md 1.2 superblock', changed(md({ version: '1.2' }), 4096 + 100), /superblock checksum/],
    ['LUKS2 with both headers', changed(luks2(), 300, 16384 + 300), /checksum \(sha256\) is wrong/],
  ];
  for (const [name, bytes, damaged] of cases) {
    it(`of the ${name} is told, and the volume all the same`, () => {
      const volume = volumeOf(bytes);
      expect(volume).not.toBeNull();
      expect(volume?.damaged).toMatch(damaged);
    });
  }

  it('of an md 0.90 superblock is told', () => {
    const bytes = md({ version: '0.90' });
    expect(volumeOf(changed(bytes, bytes.length - 65536 + 2000), BigInt(bytes.length))?.damaged).toMatch(/superblock checksum/);
  });

  it('is not what changes while exFAT is mounted', () => {
    expect(volumeOf(changed(exfat(), 106, 112))?.damaged).toBeUndefined();
  });

  it('of the first btrfs superblock is mended from the copy at 64 MiB, and told', () => {
    const at = 64 << 20;
    const copy = new Image(4096);
    copy.bytes.set(btrfs().subarray(65536));
    copy.le(0, [48, 64, at]);
    // The copy names its own place, so its sum is another.
    const bytes = within(changed(btrfs(), 65536 + 300), at, resealed(copy));
    expect(volumeOf(bytes)).toMatchObject({ kind: 'btrfs', unit: 4096, label: 'label', damaged: expect.stringContaining('read from the copy at 64 MiB') });
  });

  it('of a LUKS2 header is mended from the other', () => {
    const first = volumeOf(changed(luks2(), 300));
    expect(first).toMatchObject({ kind: 'luks2', dataOffset: 1n << 24n, details: { headers: 'first header: checksum (sha256) is wrong' } });
    expect(first?.damaged).toBeUndefined();
    const second = volumeOf(changed(luks2(), 16384 + 300));
    expect(second).toMatchObject({ dataOffset: 1n << 24n, details: { headers: 'second header: checksum (sha256) is wrong' } });
    const gone = volumeOf(luks2().fill(0, 0, 16384));
    expect(gone).toMatchObject({ kind: 'luks2', dataOffset: 1n << 24n, details: { headers: 'first header missing' } });
  });
});

function resealed(copy: Image): Uint8Array {
  const { bytes } = copy;
  copy.le(0, [0, 32, crc32c(bytes.subarray(32))]);
  return bytes;
}

describe('Where several superblocks are left,', () => {
  it('a layer comes before a file system, which is told', () => {
    const volume = volumeOf(within(lvm(), 1024, ext('ext4').subarray(1024, 2048)));
    expect(volume).toMatchObject({ kind: 'lvm2', details: { alsoFound: 'ext4' } });
  });

  it('what is whole comes before what is damaged', () => {
    const both = within(xfs(), 1024, ext('ext4').subarray(1024, 2048));
    expect(volumeOf(both)).toMatchObject({ kind: 'xfs', details: { alsoFound: 'ext4' } });
    const volume = volumeOf(changed(both, 400));
    expect(volume).toMatchObject({ kind: 'ext4', details: { alsoFound: expect.stringMatching(/^xfs \(damaged: superblock checksum/) } });
    expect(volume?.damaged).toBeUndefined();
  });

  it('the file system in a mirror whose superblock is at the end is not a second one', () => {
    const size = 64 << 20;
    const bytes = within(md({ version: '1.0', size }), 0, ext('ext4'));
    const volume = volumeOf(bytes, BigInt(size));
    expect(volume).toMatchObject({ kind: 'md', inside: [{ kind: 'ext4', offset: 0n, name: 'host:array' }] });
    expect(volume?.details.alsoFound).toBeUndefined();
  });
});

describe('FAT', () => {
  it("is told by the kernel's rule, and where the specification disagrees", () => {
    const volume = volumeOf(fat({ sectorsPerFat: 80, totalSectors: 81920, sectorsPerCluster: 8, reserved: 32, is32: true }));
    expect(volume).toMatchObject({ kind: 'fat32', details: { bySpecification: '10216 clusters: fat16 to mtools and Windows, fat32 to Linux' } });
  });

  it('rounds a root directory that is no whole sector up', () => {
    const volume = volumeOf(fat({ sectorsPerFat: 2, totalSectors: 8192, rootEntries: 100, bytesPerSector: 4096, sectorsPerCluster: 1, reserved: 1 }));
    expect(volume?.dataOffset).toBe(BigInt((1 + 2 * 2 + 1) * 4096));
  });

  it('is not the boot code of a partition table, nor what has too many clusters for its kind', () => {
    const table = new Image(8192).text(0, '\xeb\x63\x90').text(510, '\x55\xaa');
    expect(volumeOf(table.bytes)).toBeNull();
    expect(volumeOf(fat({ sectorsPerFat: 255, totalSectors: 70000, sectorsPerCluster: 1 }))).toBeNull();
  });

  it('with a FAT that is too short for its clusters is damaged', () => {
    expect(volumeOf(fat({ sectorsPerFat: 10, totalSectors: 65536 }))?.damaged).toMatch(/the FAT is too short for \d+ clusters/);
  });
});

describe('NTFS', () => {
  it('reads a cluster byte above 0x80 as a power of two', () => {
    expect(volumeOf(ntfs({ clusterByte: 0xf4 }))?.unit).toBe(4096 * 512);
    expect(volumeOf(ntfs({ clusterByte: 0x80 }))?.unit).toBe(128 * 512);
    expect(volumeOf(ntfs({ clusterByte: 0x81 }))).toBeNull();
  });

  it('says where its hidden sectors are not its place', () => {
    const at = 2048n * 512n;
    const place = { offset: at, size: 1n << 30n, partition: 1, pages: [4096] };
    const right = readVolume(source(within(new Uint8Array(0), Number(at), ntfs({ hidden: 2048 }))), place);
    expect(right).toMatchObject({ label: 'label', details: { hiddenSectors: 2048 } });
    expect(right?.details.hiddenMismatch).toBeUndefined();
    const wrong = readVolume(source(within(new Uint8Array(0), Number(at), ntfs())), place);
    expect(wrong?.details.hiddenMismatch).toBe('hidden sectors say byte 0, the volume lies at byte 1048576');
  });
});

describe('Swap', () => {
  it('is told by its page, its byte order, and whether a machine sleeps in it', () => {
    for (const page of [4096, 8192, 16384, 32768, 65536]) expect(volumeOf(swap(page))).toMatchObject({ kind: 'swap', unit: page, dataOffset: BigInt(page) });
    expect(volumeOf(swap(65536, 'SWAPSPACE2', 'be'))).toMatchObject({ label: 'label', size: 256n * 65536n, details: { byteOrder: 'big-endian' } });
    expect(volumeOf(swap(4096, 'S1SUSPEND'))?.details.suspended).toBe('S1SUSPEND');
  });
});

describe('LUKS', () => {
  it('is opaque, at its payload', () => {
    expect(volumeOf(luks1(8))).toMatchObject({ kind: 'luks1', dataOffset: 4096n, opaque: true, inside: [], details: { cipher: 'aes-xts-plain64' } });
    expect(volumeOf(luks2({ sectorSize: 512, offset: '8388608' }))).toMatchObject({ dataOffset: 8388608n, unit: 512, opaque: true });
  });

  it('with sectors of 4096 bytes says where the device is no multiple of them', () => {
    const image = source(luks2());
    const volume = readVolume(image, { offset: 0n, size: (64n << 20n) + 512n, partition: 1, pages: [4096] });
    expect(volume?.details.deviceSize).toContain('% 4096-byte sectors = 512');
    expect(volumeOf(luks2())?.details.deviceSize).toBeUndefined();
  });

  it('without a segment in its JSON is damaged', () => {
    for (const json of ['', '{', '{"segments":[]}', '{"segments":{"0":{"offset":-1}}}', '[['.repeat(5000), '{"segments":{"0":{"offset":"9","size":"x"}}}']) {
      expect(volumeOf(luks2({ json }))?.damaged).toBe('no data segment in its JSON');
    }
  });
});

describe('LVM', () => {
  const inside = (text: string, shape?: Parameters<typeof lvm>[1]): Volume | null => {
    const bytes = lvm(text, shape);
    return volumeOf(within(within(bytes, (64 + 8) * 512, ext('ext4')), (64 + 8 * 3) * 512, xfs()));
  };
  const shape = { start: 64, extentSize: 8 };

  it('adds the offset of the extents to what is in a logical volume', () => {
    const text = lvmText(
      [
        {
          name: 'one',
          segments: [
            ['pv0', 1, 1],
            ['pv0', 2, 1],
          ],
        },
        { name: 'two', segments: [['pv0', 3, 2]] },
      ],
      shape,
    );
    expect(inside(text)).toMatchObject({
      ...{ kind: 'lvm2', dataOffset: 32768n, unit: 4096, label: 'vg' },
      inside: [
        { kind: 'ext4', name: 'one', offset: 36864n },
        { kind: 'xfs', name: 'two', offset: 45056n, dataOffsetAbsolute: 45056n },
      ],
    });
  });

  it('reads a text that goes round the end of its area', () => {
    const text = lvmText([{ name: 'one', segments: [['pv0', 1, 1]] }], shape);
    expect(inside(text, { ringAt: 16384 - 100 })).toMatchObject({ inside: [{ kind: 'ext4', name: 'one' }] });
  });

  it('is found in any of the first four sectors', () => {
    for (let labelSector = 0; labelSector < 4; labelSector++)
      expect(volumeOf(lvm(undefined, { labelSector }))).toMatchObject({ kind: 'lvm2', details: { labelSector } });
  });

  const refused: [string, Parameters<typeof lvmText>[0][number], string][] = [
    [
      'in pieces',
      {
        name: 'lv',
        segments: [
          ['pv0', 1, 1],
          ['pv0', 3, 1],
        ],
      },
      'in pieces',
    ],
    ['on another device', { name: 'lv', segments: [['pv1', 1, 1]] }, 'on another device'],
    [
      'that goes on on another device',
      {
        name: 'lv',
        segments: [
          ['pv0', 1, 1],
          ['pv1', 0, 1],
        ],
      },
      'goes on on another device',
    ],
    ['striped', { name: 'lv', segments: [['pv0', 1, 1]], stripes: 2 }, 'striped'],
    ['thin', { name: 'lv', segments: [['pv0', 1, 1]], type: 'thin' }, 'type thin'],
    ['beyond the device', { name: 'lv', segments: [['pv0', 1, 100]] }, 'reaches beyond the device'],
  ];
  for (const [name, volume, reason] of refused) {
    it(`does not follow a logical volume ${name}, and says so`, () => {
      const found = inside(lvmText([volume], shape));
      expect(found).toMatchObject({ inside: [], details: { logicalVolumes: `lv: not followed, ${reason}` } });
    });
  }

  it('takes pe_start from the header where there is no text', () => {
    for (const text of ['', '}', 'vg {', 'vg { a = "x', 'a = [ 1, 2', '{}', 'x { '.repeat(40), '#'.repeat(5000), '"'.repeat(999)]) {
      const volume = volumeOf(lvm(text));
      expect(volume).toMatchObject({ kind: 'lvm2', dataOffset: 1n << 20n, unit: 4 << 20 });
    }
  });

  it('looks at 32 volumes at most', () => {
    const volumes = Array.from({ length: 60 }, (_, i) => ({ name: `lv${i}`, segments: [['pv0', 1, 1]] as [string, number, number][] }));
    const text = lvmText(volumes, shape);
    expect(text.length).toBeLessThan(16384);
    const volume = inside(text);
    expect(volume?.inside).toHaveLength(31);
    expect(volume?.details.unread).toBe('29 volumes inside were not looked at');
  });
});

describe('md', () => {
  it('follows a mirror, an array of one device, and the first of a linear one', () => {
    const file = 16384;
    for (const shape of [{ level: 1 }, { level: 0, disks: 1, chunk: 65536 }, { level: -1 }]) {
      const volume = volumeOf(within(md({ version: '1.2', ...shape, size: 64 << 20 }), file, ext('ext4')));
      expect(volume).toMatchObject({ kind: 'md', inside: [{ kind: 'ext4', offset: BigInt(file), name: 'host:array' }] });
    }
  });

  it('follows no stripes, no spare, and no later device of a linear array, and says why', () => {
    for (const [shape, why] of [
      [{ level: 5, disks: 3, chunk: 65536 }, 'spread over 3 devices'],
      [{ level: 1, role: 0xffff }, 'this device is no active member'],
      [{ level: -1, role: 1 }, 'the array begins on another device'],
    ] as const) {
      expect(volumeOf(md({ version: '1.2', ...shape }))).toMatchObject({ inside: [], details: { contents: `not followed: ${why}` } });
    }
  });

  it('whose data begins in its own superblock is damaged, and not followed into itself', () => {
    expect(volumeOf(md({ version: '1.1', dataOffset: 0 }))).toMatchObject({ inside: [], damaged: 'its data begins at byte 0, in its superblock' });
  });

  it('is followed through eight layers, no further', () => {
    let bytes = ext('ext4');
    for (let depth = 0; depth < 12; depth++) bytes = within(md({ version: '1.1', size: 16384 + bytes.length, dataOffset: 16384 }), 16384, bytes);
    let volume = volumeOf(bytes);
    let depth = 0;
    for (; volume !== null && volume.inside.length > 0; depth++) [volume] = volume.inside;
    expect(depth).toBe(7);
    expect(volume?.details.unread).toBe('1 volumes inside were not looked at');
  });
});

describe('Layers inside each other', () => {
  it('add up: partition, data offset of md, first extent of LVM, logical extents, heap of FAT', () => {
    const heap = (4 + 2 * 64 + 32) * 512;
    const boot = fat({ sectorsPerFat: 64, totalSectors: 65536, sectorsPerCluster: 8 });
    const text = lvmText([{ name: 'esp', segments: [['pv0', 3, 20_000]] }], { start: 64, extentSize: 8, extents: 30_000 });
    const inLvm = within(lvm(text), 64 * 512 + 3 * 4096, boot);
    const inMd = within(md({ version: '1.2', size: 128 << 20, dataOffset: 1 << 20 }), 1 << 20, inLvm);
    const at = 63 * 512;
    const volume = readVolume(source(within(new Uint8Array(0), at, inMd)), { offset: BigInt(at), size: 128n << 20n, partition: 3, pages: [4096] });
    const inner = volume?.inside[0]?.inside[0];
    const start = at + (1 << 20) + 64 * 512 + 3 * 4096;
    expect(inner).toMatchObject({
      partition: 3,
      kind: 'fat16',
      name: 'esp',
      offset: BigInt(start),
      dataOffset: BigInt(heap),
      dataOffsetAbsolute: BigInt(start + heap),
    });
    expect(inner?.tiers['4096']).toEqual({ absolute: (start + heap) % 4096 === 0 ? 'guaranteed' : 'impossible', relative: 'impossible' });
  });
});

describe('Labels', () => {
  it('are shown without what would move a cursor or turn the line', () => {
    const image = new Image(8192);
    image.bytes.set(xfs());
    image.text(108, 'a\x1b[2Jb\x07');
    expect(volumeOf(image.bytes)?.label).toBe('a?[2Jb?');
  });
});

describe('Any bytes', () => {
  const pages = [4096];

  it('in a superblock are read within bounds, and throw nothing', () => {
    fc.assert(
      fc.property(
        fc.constantFrom(...superblocks),
        fc.array(fc.tuple(fc.nat(), fc.oneof(fc.constantFrom(0, 0x7f, 0x80, 0xff), fc.nat(255))), { minLength: 1, maxLength: 8 }),
        ({ bytes }, changes) => {
          const copy = new Uint8Array(bytes);
          for (const [at, value] of changes) copy[at % copy.length] = value;
          const image = source(copy, BigInt(copy.length));
          const volume = readVolume(image, { offset: 0n, size: image.size, partition: 1, pages });
          expect(image.bytesRead).toBeLessThanOrEqual(VIEW_READ_MAX * 32);
          if (volume !== null) expect(volume.tiers['4096'].absolute).toMatch(/^(guaranteed|per-file|impossible)$/);
        },
      ),
      { numRuns: 2000 },
    );
  });

  it('of no kind are none', () => {
    fc.assert(
      fc.property(fc.uint8Array({ minLength: 0, maxLength: 70000 }), (bytes) => {
        expect(volumeOf(bytes, BigInt(bytes.length))).toBeNull();
      }),
      { numRuns: 50 },
    );
  });
});
