/**
 * The smallest images that each kind of volume is recognised by, built by hand from the formats' descriptions: a corpus for fuzzing and for what no tool makes
 * on purpose. No file system that could be mounted.
 *
 * Guarantees: every checksum of a format is right, so that a changed byte is noticed; `superblocks` has one of each kind, small enough to be mutated by the
 * thousand. Offsets are written out here a second time, independently of `src/layout/volumes`.
 */
import { createHash } from 'node:crypto';
import { crc32 } from 'node:zlib';
import { crc32c } from '../../src/layout/crc32c.js';
import type { VolumeKind } from '../../src/layout/model.js';

const KIB = 1024;

/** An image of zeros to write into: numbers by width and byte order, text as bytes. */
export class Image {
  readonly bytes: Uint8Array;
  readonly view: DataView;

  constructor(size: number) {
    this.bytes = new Uint8Array(size);
    this.view = new DataView(this.bytes.buffer);
  }

  text(at: number, text: string): this {
    this.bytes.set(Buffer.from(text, 'latin1'), at);
    return this;
  }

  /** Little-endian; `[offset, bits, value]`. */
  le(at: number, ...fields: [number, 8 | 16 | 32 | 64, number | bigint][]): this {
    return this.#fields(at, true, fields);
  }

  /** Big-endian. */
  be(at: number, ...fields: [number, 8 | 16 | 32 | 64, number | bigint][]): this {
    return this.#fields(at, false, fields);
  }

  #fields(at: number, little: boolean, fields: [number, 8 | 16 | 32 | 64, number | bigint][]): this {
    for (const [offset, bits, value] of fields) {
      if (bits === 8) this.view.setUint8(at + offset, Number(value));
      else if (bits === 16) this.view.setUint16(at + offset, Number(value), little);
      else if (bits === 32) this.view.setUint32(at + offset, Number(value), little);
      else this.view.setBigUint64(at + offset, BigInt(value), little);
    }
    return this;
  }

  /** Sixteen bytes that are no zeros. */
  uuid(at: number): this {
    for (let i = 0; i < 16; i++) this.bytes[at + i] = 0xa0 + i;
    return this;
  }
}

export interface FatShape {
  bytesPerSector?: number;
  sectorsPerCluster?: number;
  reserved?: number;
  fats?: number;
  sectorsPerFat: number;
  rootEntries?: number;
  totalSectors: number;
  is32?: boolean;
}

/** A boot sector alone: of the rest nothing is read. */
export function fat(shape: FatShape): Uint8Array {
  const { bytesPerSector = 512, sectorsPerCluster = 4, reserved = 4, fats = 2, sectorsPerFat, rootEntries = 512, totalSectors, is32 = false } = shape;
  const image = new Image(8 * KIB);
  image.text(0, '\xeb\x3c\x90').text(3, 'mkfs.fat').text(510, '\x55\xaa');
  image.le(0, [11, 16, bytesPerSector], [13, 8, sectorsPerCluster], [14, 16, reserved], [16, 8, fats], [21, 8, 0xf8], [32, 32, totalSectors]);
  if (is32) image.le(0, [36, 32, sectorsPerFat], [44, 32, 2], [66, 8, 0x29], [67, 32, 0x1234abcd]).text(71, 'LABEL      FAT32   ');
  else image.le(0, [17, 16, rootEntries], [22, 16, sectorsPerFat], [38, 8, 0x29], [39, 32, 0x1234abcd]).text(43, 'LABEL      FAT16   ');
  return image.bytes;
}

export function exfat(): Uint8Array {
  const image = new Image(16 * KIB).text(0, '\xeb\x76\x90EXFAT   ').text(510, '\x55\xaa');
  image.le(0, [64, 64, 0], [72, 64, 65536], [80, 32, 2048], [84, 32, 64], [88, 32, 4096], [92, 32, 7680], [96, 32, 4], [100, 32, 0x1234abcd]);
  image.le(0, [104, 16, 0x100], [108, 8, 9], [109, 8, 3], [110, 8, 1]);
  for (let sector = 1; sector <= 8; sector++) image.le(sector * 512, [508, 32, 0xaa550000]);
  let sum = 0;
  for (let i = 0; i < 11 * 512; i++) if (i !== 106 && i !== 107 && i !== 112) sum = (((sum & 1) * 0x80000000 + (sum >>> 1) + image.bytes[i]) % 2 ** 32) >>> 0;
  for (let i = 0; i < 128; i++) image.le(11 * 512, [4 * i, 32, sum]);
  image.bytes.copyWithin(12 * 512, 0, 12 * 512);
  return image.bytes;
}

/** With the features that make it ext2, ext3 or ext4; the last with a superblock checksum. */
export function ext(kind: 'ext2' | 'ext3' | 'ext4', shape: { logBlock?: number; logCluster?: number } = {}): Uint8Array {
  const { logBlock = 2, logCluster } = shape;
  const image = new Image(8 * KIB);
  const blocks = 8192;
  image.le(KIB, [0, 32, 2048], [4, 32, blocks], [20, 32, logBlock === 0 ? 1 : 0], [24, 32, logBlock], [28, 32, logCluster ?? logBlock], [32, 32, 8192]);
  image.le(KIB, [36, 32, 8192], [40, 32, 2048], [56, 16, 0xef53], [58, 16, 1], [76, 32, 1], [84, 32, 11], [88, 16, 256]);
  const journal = kind === 'ext2' ? 0 : 0x4;
  const bigalloc = logCluster === undefined ? 0 : 0x200;
  image.le(KIB, [92, 32, 0x38 | journal], [96, 32, kind === 'ext4' ? 0x2c2 : 0x2], [100, 32, kind === 'ext4' ? 0x46b | bigalloc : 0x3]);
  image
    .uuid(KIB + 104)
    .text(KIB + 120, 'label')
    .le(KIB, [254, 16, kind === 'ext4' ? 64 : 0]);
  if (kind === 'ext4') image.le(KIB, [373, 8, 1]).le(KIB, [1020, 32, ~crc32c(image.bytes.subarray(KIB, KIB + 1020)) >>> 0]);
  return image.bytes;
}

export function xfs(): Uint8Array {
  const image = new Image(8 * KIB).text(0, 'XFSB').uuid(32).text(108, 'label');
  image.be(0, [4, 32, 4096], [8, 64, 8192], [56, 64, 128], [84, 32, 4096], [88, 32, 2], [96, 32, 1368], [100, 16, 0xb4a5], [102, 16, 512], [104, 16, 512]);
  image.be(0, [106, 16, 8], [120, 8, 12], [121, 8, 9], [122, 8, 9], [123, 8, 3], [124, 8, 12], [184, 32, 4], [188, 32, 8]);
  image.le(0, [224, 32, crc32c(image.bytes.subarray(0, 512))]);
  return image.bytes;
}

/** `clusterByte` as byte 13 has it: sectors of a cluster, or 256 minus their logarithm. */
export function ntfs(shape: { clusterByte?: number; hidden?: number } = {}): Uint8Array {
  const { clusterByte = 8, hidden = 0 } = shape;
  const image = new Image(32 * KIB).text(0, '\xeb\x52\x90NTFS    ').text(510, '\x55\xaa');
  image.le(0, [11, 16, 512], [13, 8, clusterByte], [21, 8, 0xf8], [28, 32, hidden], [40, 64, 16383], [48, 64, 4], [56, 64, 1023]);
  image.le(0, [64, 8, 0xf6], [68, 8, 1], [72, 64, 0x0681e36f39baf436n]);
  const record = 4 * 4096 + 3 * KIB;
  image.text(record, 'FILE').le(record, [4, 16, 48], [6, 16, 3], [20, 16, 56], [48, 16, 1], [510, 16, 1], [KIB - 2, 16, 1]);
  image.le(record + 56, [0, 32, 0x60], [4, 32, 40], [16, 32, 10], [20, 16, 24]).text(record + 80, 'l\0a\0b\0e\0l\0');
  image.le(record + 96, [0, 32, 0xffffffff]);
  return image.bytes;
}

export function btrfs(sum: 'crc32c' | 'sha256' = 'crc32c'): Uint8Array {
  const at = 64 * KIB;
  const image = new Image(at + 4 * KIB)
    .uuid(at + 32)
    .text(at + 64, '_BHRfS_M')
    .text(at + 299, 'label');
  image.le(at, [48, 64, at], [72, 64, 6], [112, 64, 128 << 20], [136, 64, 1], [144, 32, 4096], [148, 32, 16384], [196, 16, sum === 'crc32c' ? 0 : 2]);
  image.le(at, [201, 64, 1], [209, 64, 128 << 20]);
  const covered = image.bytes.subarray(at + 32);
  if (sum === 'crc32c') image.le(at, [0, 32, crc32c(covered)]);
  else image.bytes.set(createHash('sha256').update(covered).digest(), at);
  return image.bytes;
}

export function luks1(payloadSectors = 4096): Uint8Array {
  const image = new Image(8 * KIB).text(0, 'LUKS\xba\xbe').text(8, 'aes').text(40, 'xts-plain64').text(72, 'sha256');
  return image.be(0, [6, 16, 1], [104, 32, payloadSectors], [108, 32, 64]).text(168, '8cf399ac-be0b-4cf3-b909-7e042acec85c').bytes;
}

/** Both headers. `broken` of them have a checksum that is wrong, or are not there. */
export function luks2(shape: { offset?: string; size?: string; sectorSize?: number; json?: string } = {}): Uint8Array {
  const { offset = '16777216', size = 'dynamic', sectorSize = 4096 } = shape;
  const segment = { type: 'crypt', offset, size, iv_tweak: '0', encryption: 'aes-xts-plain64', sector_size: sectorSize };
  const json = shape.json ?? JSON.stringify({ keyslots: {}, tokens: {}, segments: { '0': segment }, digests: {}, config: { json_size: '12288' } });
  const header = 16 * KIB;
  const image = new Image(2 * header);
  for (const at of [0, header]) {
    image
      .text(at, at === 0 ? 'LUKS\xba\xbe' : 'SKUL\xba\xbe')
      .text(at + 24, 'label')
      .text(at + 72, 'sha256')
      .text(at + 4096, json);
    image.be(at, [6, 16, 2], [8, 64, header], [16, 64, 3], [256, 64, at]).text(at + 168, '215ac18e-49ed-4cdf-825e-7d02d11106f3');
    image.bytes.set(
      createHash('sha256')
        .update(image.bytes.subarray(at, at + header))
        .digest(),
      at + 448,
    );
  }
  return image.bytes;
}

const PV_ID = 'fO0QekrMg8acyamL3HXUZyk8v3cWwVC1';

export interface LogicalVolume {
  name: string;
  /** Device (`pv0` is this one), first extent there, extents. */
  segments: [string, number, number][];
  type?: string;
  stripes?: number;
}

/** Text of a volume group as lvmetad of yore and lvm write it. `extentSize` and `start` in sectors. */
export function lvmText(volumes: LogicalVolume[], shape: { extentSize?: number; start?: number; extents?: number } = {}): string {
  const { extentSize = 8192, start = 2048, extents = 15 } = shape;
  const id = 'fO0Qek-rMg8-acya-mL3H-XUZy-k8v3-cWwVC1';
  const logical = volumes.map(({ name, segments, type = 'striped', stripes = 1 }) => {
    let at = 0;
    const parts = segments.map(([device, extent, count], i) => {
      const list = Array.from({ length: stripes }, () => `"${device}", ${extent}`).join(',\n');
      const part = `segment${i + 1} {\nstart_extent = ${at}\nextent_count = ${count}\ntype = "${type}"\nstripe_count = ${stripes}\nstripes = [\n${list}\n]\n}\n`;
      at += count;
      return part;
    });
    return `${name} {\nid = "x"\nstatus = ["READ", "WRITE", "VISIBLE"]\nflags = []\nsegment_count = ${segments.length}\n${parts.join('')}}\n`;
  });
  return (
    `vg {\nid = "v"\nseqno = 3\nformat = "lvm2" # informational\nstatus = ["RESIZEABLE"]\nextent_size = ${extentSize}\nmax_lv = 0\n` +
    `physical_volumes {\npv0 {\nid = "${id}"\ndevice = "/dev/x{\\"}"\ndev_size = 131072\npe_start = ${start}\npe_count = ${extents}\n}\n}\n` +
    `logical_volumes {\n${logical.join('')}}\n}\n# Generated by LVM2\ncontents = "Text Format Volume Group"\nversion = 1\n\0`
  );
}

/** A physical volume with that text, which begins `ringAt` bytes into its area of 16 KiB and goes on at the area's start where it must. */
export function lvm(
  text = lvmText([{ name: 'root', segments: [['pv0', 0, 4]] }]),
  shape: { ringAt?: number; size?: number; labelSector?: number } = {},
): Uint8Array {
  const { ringAt = 1024, size = 24 * KIB, labelSector = 1 } = shape;
  const image = new Image(size);
  const label = labelSector * 512;
  const area = 4096;
  const areaBytes = 16 * KIB;
  image
    .text(label, 'LABELONE')
    .le(label, [8, 64, labelSector], [20, 32, 32])
    .text(label + 24, 'LVM2 001')
    .text(label + 32, PV_ID);
  image.le(label, [64, 64, 64 << 20], [72, 64, 1 << 20], [104, 64, area], [112, 64, areaBytes]);
  image.le(label, [16, 32, lvmCrc(image.bytes.subarray(label + 20, label + 512))]);
  const bytes = Buffer.from(text, 'latin1');
  for (let i = 0; i < bytes.length; i++) {
    const at = ringAt + i;
    image.bytes[area + (at < areaBytes ? at : 512 + at - areaBytes)] = bytes[i];
  }
  image.text(area + 4, ' LVM2 x[5A%r0N*>').le(area, [20, 32, 1], [24, 64, area], [32, 64, areaBytes], [40, 64, ringAt], [48, 64, bytes.length]);
  image.le(area, [56, 32, lvmCrc(bytes)]).le(area, [0, 32, lvmCrc(image.bytes.subarray(area + 4, area + 512))]);
  return image.bytes;
}

function lvmCrc(bytes: Uint8Array): number {
  return ~crc32(bytes, ~0xf597a6cf >>> 0) >>> 0;
}

export interface MdShape {
  version: '0.90' | '1.0' | '1.1' | '1.2';
  level?: number;
  disks?: number;
  role?: number;
  /** Bytes. */
  chunk?: number;
  dataOffset?: number;
  size?: number;
}

/** One member of an array. Its data begins at `dataOffset`, where there is room for something. */
export function md(shape: MdShape): Uint8Array {
  const { version, level = 1, disks = 2, role = 0, chunk = 0, size = 192 * KIB } = shape;
  const image = new Image(size);
  if (version === '0.90') {
    const at = size - (size % (64 * KIB)) - 64 * KIB;
    image.le(at, [0, 32, 0xa92b4efc], [8, 32, 90], [20, 32, 0xaabbccdd], [28, 32, level >>> 0], [32, 32, at / KIB], [36, 32, disks], [40, 32, disks]);
    image.le(at, [4 * 65, 32, chunk], [4 * 992, 32, role], [4 * 995, 32, role]);
    return image.le(at, [4 * 38, 32, wordSum(image.view, at, 4096)]).bytes;
  }
  const at = version === '1.0' ? size - (size % 4096) - 8192 : version === '1.1' ? 0 : 4096;
  const dataOffset = version === '1.0' ? 0 : (shape.dataOffset ?? 16 * KIB);
  const dataSize = version === '1.0' ? at : size - dataOffset;
  image.le(at, [0, 32, 0xa92b4efc], [4, 32, 1], [72, 32, level >>> 0], [80, 64, dataSize / 512], [88, 32, chunk / 512], [92, 32, disks]).uuid(at + 16);
  image.le(at, [128, 64, dataOffset / 512], [136, 64, dataSize / 512], [144, 64, at / 512], [160, 32, 0], [220, 32, 4]).text(at + 32, 'host:array');
  image.le(at, [256, 16, role], [258, 16, role === 0 ? 1 : 0], [260, 16, 0xffff], [262, 16, 0xffff]);
  return image.le(at, [216, 32, wordSum(image.view, at, 256 + 8)]).bytes;
}

function wordSum(view: DataView, at: number, length: number): number {
  let sum = 0n;
  for (let i = 0; i < length; i += 4) sum += BigInt(view.getUint32(at + i, true));
  return Number(((sum & 0xffffffffn) + (sum >> 32n)) & 0xffffffffn);
}

export function swap(page = 4096, signature = 'SWAPSPACE2', order: 'le' | 'be' = 'le'): Uint8Array {
  const image = new Image(page)
    .text(page - 10, signature)
    .uuid(1036)
    .text(1052, 'label');
  return image[order](1024, [0, 32, 1], [4, 32, 255]).bytes;
}

/** `inner` at byte `at` of `outer`, which grows if it must. */
export function within(outer: Uint8Array, at: number, inner: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(Math.max(outer.length, at + inner.length));
  bytes.set(outer);
  bytes.set(inner, at);
  return bytes;
}

/** One of each kind, and its variants: a name, the kind it is recognised as, and the bytes. */
export const superblocks: readonly { name: string; kind: VolumeKind; bytes: Uint8Array }[] = [
  { name: 'FAT12', kind: 'fat12', bytes: fat({ sectorsPerFat: 12, totalSectors: 16384 }) },
  { name: 'FAT16', kind: 'fat16', bytes: fat({ sectorsPerFat: 64, totalSectors: 65536 }) },
  { name: 'FAT32', kind: 'fat32', bytes: fat({ sectorsPerFat: 600, totalSectors: 614376, sectorsPerCluster: 8, reserved: 32, rootEntries: 0, is32: true }) },
  { name: 'exFAT', kind: 'exfat', bytes: exfat() },
  { name: 'ext2', kind: 'ext2', bytes: ext('ext2', { logBlock: 0 }) },
  { name: 'ext3', kind: 'ext3', bytes: ext('ext3') },
  { name: 'ext4', kind: 'ext4', bytes: ext('ext4') },
  { name: 'ext4 with bigalloc', kind: 'ext4', bytes: ext('ext4', { logCluster: 6 }) },
  { name: 'XFS', kind: 'xfs', bytes: xfs() },
  { name: 'NTFS', kind: 'ntfs', bytes: ntfs() },
  { name: 'NTFS with clusters of 1 MiB', kind: 'ntfs', bytes: ntfs({ clusterByte: 256 - 11 }) },
  { name: 'btrfs', kind: 'btrfs', bytes: btrfs() },
  { name: 'btrfs with SHA-256', kind: 'btrfs', bytes: btrfs('sha256') },
  { name: 'LUKS1', kind: 'luks1', bytes: luks1() },
  { name: 'LUKS2', kind: 'luks2', bytes: luks2() },
  { name: 'LVM', kind: 'lvm2', bytes: lvm() },
  {
    name: 'LVM with ext4 in a logical volume',
    kind: 'lvm2',
    bytes: within(lvm(lvmText([{ name: 'root', segments: [['pv0', 1, 2]] }], { start: 64, extentSize: 8 })), 36 * KIB, ext('ext4')),
  },
  { name: 'md 0.90', kind: 'md', bytes: md({ version: '0.90', level: 5, disks: 3, chunk: 64 * KIB }) },
  { name: 'md 1.0', kind: 'md', bytes: md({ version: '1.0' }) },
  { name: 'md 1.1', kind: 'md', bytes: md({ version: '1.1' }) },
  { name: 'md 1.2', kind: 'md', bytes: md({ version: '1.2', level: 0, disks: 3, chunk: 512 * KIB }) },
  { name: 'md 1.2 mirror with XFS', kind: 'md', bytes: within(md({ version: '1.2' }), 16 * KIB, xfs()) },
  { name: 'swap', kind: 'swap', bytes: swap() },
  { name: 'swap with pages of 64 KiB', kind: 'swap', bytes: swap(65536) },
];
