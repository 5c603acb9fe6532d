/**
 * Images that lie: tables and superblocks of every kind, mutated, and what must hold of a check of any of them.
 *
 *   input (seed, index) ─> one of the images below, 1 to 8 mutations, often with its CRCs made right again ─> checkLayout ─> promises
 *
 * Guarantees: the same seed and index give the same input on every machine; what fails is thrown as a `BrokenPromise` that names both.
 * Leaves to others: how many inputs, and a watch-dog for one that never ends (`tools/fuzz.ts`).
 */
import { crc32 } from 'node:zlib';
import { checkLayout } from '../../src/layout/check.js';
import { findingsOfOneCodeMax } from '../../src/layout/findings.js';
import type { CheckOptions, Report, Topology, Volume } from '../../src/layout/model.js';
import { checkBytesMax } from '../../src/layout/source.js';
import { TYPE_GUIDS } from '../../src/layout/types.js';
import { Random } from '../../src/testing/random.js';
import { type GptPartitionShape, MEBIBYTE, SparseImage, sealHeader, writeChain, writeGpt, writeMbr } from './corpus.js';
import { ext, fat, lvm, lvmText, md, ntfs, superblocks } from './superblocks.js';

/** Calls to the source of one check: a block of 2048 bytes each at worst, and no more blocks than fit into 4 MiB. */
const readsMax = checkBytesMax / 2048 + 16;
/** Codes that there are, with room for more. */
const codesMax = 64;

export class BrokenPromise extends Error {
  override readonly name = 'BrokenPromise';

  constructor(seed: number, index: number, what: string, cause?: unknown) {
    super(`seed ${seed}, input ${index}: ${what}`, { cause });
  }
}

/** What came out of many inputs: shows that they reach what they are meant to reach. */
export interface Tally {
  inputs: number;
  exits: Record<string, number>;
  tables: Record<string, number>;
  states: Record<string, number>;
  volumes: Record<string, number>;
  codes: Record<string, number>;
  /** The most of any input. */
  bytesRead: number;
  reads: number;
  findings: number;
}

export function emptyTally(): Tally {
  return { inputs: 0, exits: {}, tables: {}, states: {}, volumes: {}, codes: {}, bytesRead: 0, reads: 0, findings: 0 };
}

/** Checks one input; throws a `BrokenPromise` if a promise does not hold of it. */
export function fuzzOne(seed: number, index: number, tally: Tally): void {
  const random = new Random(seed, index);
  const image = mutated(random);
  const options = someOptions(random);
  let report: Report;
  try {
    report = checkLayout(image, options);
  } catch (error) {
    // Memory can be read, and the options are good: nothing may be thrown at all.
    throw new BrokenPromise(seed, index, `threw ${String(error)}`, error);
  }
  const broken = brokenPromise(report, image);
  if (broken !== undefined) throw new BrokenPromise(seed, index, broken);
  count(report, image, tally);
}

/** What of the report must not be; undefined where all is well. */
function brokenPromise(report: Report, image: SparseImage): string | undefined {
  const { findings, summary, table, volumes } = report;
  if (image.bytesRead > checkBytesMax) return `${image.bytesRead} bytes were read`;
  if (image.reads > readsMax) return `there were ${image.reads} reads`;
  if (findings.length > codesMax * (findingsOfOneCodeMax + 1)) return `there are ${findings.length} findings`;
  if (table.partitions.length > 4096) return `there are ${table.partitions.length} partitions`;
  const isDamaged = findings.some(({ severity, layer }) => severity === 'error' && layer === 'table');
  const isEmpty = table.partitions.length === 0 && volumes.length === 0;
  const hasError = findings.some(({ severity }) => severity === 'error');
  const expected = isDamaged ? 2 : isEmpty ? 3 : hasError ? 1 : 0;
  if (summary.exit !== expected) return `exit code ${summary.exit} where ${expected} belongs`;
  if (table.state.includes('ok') && (table.state.length > 1 || isDamaged)) return `state ${table.state.join(', ')} with a damaged table`;
  for (const { code, message, severity } of findings) {
    if (code[0] !== severity[0].toUpperCase()) return `${code} is an ${severity}`;
    if (message.length === 0 || message.length > 1000 || isControl(message)) return `${code} has the message ${JSON.stringify(message)}`;
  }
  if (summary.verdict.length === 0 || isControl(summary.verdict)) return `the verdict is ${JSON.stringify(summary.verdict)}`;
  for (const { start, size, number } of table.partitions)
    if (start < 0n || size <= 0n || number < 1) return `partition ${number} is from ${start} on, ${size} bytes`;
  return volumes.map(brokenVolume).find((each) => each !== undefined);
}

function brokenVolume(volume: Volume): string | undefined {
  if (volume.dataOffsetAbsolute !== volume.offset + volume.dataOffset) return `${volume.kind}: offsets do not add up`;
  if (!(volume.unit > 0)) return `${volume.kind}: a unit of ${volume.unit} bytes`;
  return volume.inside.map(brokenVolume).find((each) => each !== undefined);
}

function isControl(text: string): boolean {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: that is what is looked for
  return /[\u0000-\u001f\u007f]/.test(text);
}

function count({ findings, summary, table, volumes }: Report, image: SparseImage, tally: Tally): void {
  const one = (counts: Record<string, number>, key: string | number) => {
    counts[key] = (counts[key] ?? 0) + 1;
  };
  tally.inputs++;
  one(tally.exits, summary.exit);
  one(tally.tables, table.kind);
  for (const state of table.state) one(tally.states, state);
  for (const code of new Set(findings.map((finding) => finding.code))) one(tally.codes, code);
  const each = (volume: Volume) => {
    one(tally.volumes, volume.kind);
    volume.inside.forEach(each);
  };
  volumes.forEach(each);
  tally.bytesRead = Math.max(tally.bytesRead, image.bytesRead);
  tally.reads = Math.max(tally.reads, image.reads);
  tally.findings = Math.max(tally.findings, findings.length);
}

// Images

const imageBytes = 96 * MEBIBYTE;
let made: SparseImage[] | undefined;
let many: SparseImage | undefined;
/** One of so many inputs has 128 partitions, of which one check looks at no more than 4 MiB: slow, and rarely says more. */
const manyEvery = 500;

/** Whole ones, of every kind, to be copied. */
function images(): SparseImage[] {
  if (made !== undefined) return made;
  const image = (bytes = imageBytes) => new SparseImage(bytes);
  const all: SparseImage[] = [];
  const plain: GptPartitionShape[] = [
    { first: 2048, last: 34_815, type: TYPE_GUIDS.esp, name: 'efi' },
    { first: 34_816, last: 100_351, name: 'root' },
    { first: 100_352, last: 165_887, type: TYPE_GUIDS.lvm },
  ];
  const filled = (target: SparseImage, ...places: [number, Uint8Array][]) => {
    for (const [at, bytes] of places) target.write(at, bytes);
    return target;
  };
  const someFat = fat({ sectorsPerFat: 64, totalSectors: 32_768, sectorsPerCluster: 8 });
  all.push(filled(writeGpt(image(), { partitions: plain }), [2048 * 512, someFat], [34_816 * 512, ext('ext4')], [100_352 * 512, lvm()]));
  all.push(writeGpt(image(), { entryCount: 8, partitions: plain }));
  all.push(writeGpt(image(), { entryCount: 16, entryBytes: 256, partitions: plain }));
  all.push(writeGpt(image(), { partitions: plain, without: 'backup' }), writeGpt(image(), { partitions: plain, without: 'primary' }));
  all.push(filled(writeGpt(image(), { sectorSize: 4096, partitions: [{ first: 256, last: 8191 }] }), [256 * 4096, ntfs()]));
  all.push(writeGpt(image(), { partitions: plain, backupLba: 180_000n }));
  all.push(
    writeMbr(writeGpt(image(), { entryCount: 8, partitions: plain }), [
      { type: 0xee, start: 1, sectors: 2047 },
      { type: 0xc, start: 2048, sectors: 32_768, status: 0x80 },
    ]),
  );
  const ambiguous = writeGpt(image(), { sectorSize: 4096, entryCount: 8, partitions: [{ first: 256, last: 511 }] });
  all.push(ambiguous.write(512, writeGpt(image(), { entryCount: 8, partitions: plain }).read(512n, 512)));
  all.push(writeGpt(image(), { entryCount: 8, partitions: [...plain, { first: 90_000, last: 110_000 }] }));
  const primaries = [
    { type: 0x0c, start: 2048, sectors: 32_768 },
    { type: 0x83, start: 34_816, sectors: 32_768 },
    { type: 0x07, start: 67_584, sectors: 32_768 },
    { type: 0x82, start: 100_352, sectors: 32_768 },
  ];
  all.push(filled(writeMbr(image(), primaries), [2048 * 512, someFat], [34_816 * 512, ext('ext2', { logBlock: 0 })], [67_584 * 512, ntfs()]));
  const extended = [
    { type: 0x83, start: 63, sectors: 16_002 },
    { type: 5, start: 16_065, sectors: 150_000 },
  ];
  const links = Array.from({ length: 6 }, (_, index) => ({ ebr: 16_065 + index * 16_384, gap: 63, sectors: 16_000 }));
  all.push(filled(writeChain(writeMbr(image(), extended), 16_065, links), [63 * 512, someFat], [(16_065 + 63) * 512, ext('ext3')]));
  all.push(writeMbr(image(), [{ type: 0xee, start: 1, sectors: 196_607 }]));
  for (const { kind, bytes } of superblocks) {
    all.push(filled(image(kind === 'md' ? bytes.length : imageBytes), [0, bytes]));
    all.push(
      filled(writeGpt(image(), { entryCount: 8, partitions: [{ first: 2048, last: kind === 'md' ? 2047 + bytes.length / 512 : 165_887 }] }), [MEBIBYTE, bytes]),
    );
  }
  // Layers inside of layers, three deep.
  const volumes = lvmText([
    { name: 'root', segments: [['pv0', 0, 4]] },
    {
      name: 'two',
      segments: [
        ['pv0', 4, 1],
        ['pv0', 6, 1],
      ],
    },
  ]);
  all.push(filled(image(), [0, lvm(volumes)], [MEBIBYTE, lvm()], [2 * MEBIBYTE, someFat]));
  for (const version of ['0.90', '1.0', '1.1', '1.2'] as const) all.push(filled(image(MEBIBYTE), [0, ext('ext4')], [0, md({ version, size: 192 * 1024 })]));
  made = all;
  return all;
}

// Mutations

const sizes = [
  0n,
  1n,
  63n,
  64n,
  511n,
  512n,
  4095n,
  4096n,
  65_535n,
  65_536n,
  1n << 20n,
  1n << 31n,
  (1n << 31n) - 1n,
  1n << 32n,
  (1n << 32n) - 1n,
  1n << 53n,
  1n << 63n,
  (1n << 64n) - 1n,
];

function mutated(random: Random): SparseImage {
  const all = images();
  many ??= writeGpt(new SparseImage(imageBytes), {
    partitions: Array.from({ length: 128 }, (_, index) => ({ first: 2048 + index * 256, last: 2303 + index * 256 })),
  });
  const whole = random.below(manyEvery) === 0 ? many : all[random.below(all.length)];
  const image = whole.copy();
  const mutations = random.chance(0.02) ? 0 : 1 + random.below(random.chance(0.5) ? 2 : 8);
  for (let mutation = 0; mutation < mutations; mutation++) mutate(random, image, whole, all);
  if (random.chance(0.6)) sealGpt(image);
  // What the mutations read does not count.
  image.reads = 0;
  image.bytesRead = 0;
  return image;
}

function mutate(random: Random, image: SparseImage, whole: SparseImage, all: readonly SparseImage[]): void {
  const at = somewhere(random, whole);
  switch (random.below(12)) {
    case 0:
      change(image, at, 1, (bytes) => {
        bytes[0] ^= 1 << random.below(8);
      });
      break;
    case 1:
      image.write(at, Uint8Array.of(random.below(256)));
      break;
    case 2:
    case 3:
    case 4:
      image.write(at, someNumber(random));
      break;
    case 5:
      image.write(at, new Uint8Array(1 + random.below(512)));
      break;
    case 6:
      image.write(
        at,
        Uint8Array.from({ length: 1 + random.below(64) }, () => random.below(256)),
      );
      break;
    case 7:
      image.write(at, image.read(somewhere(random, whole), 1 + random.below(512)));
      break;
    case 8: {
      // A sector of another image, in its place there or elsewhere.
      const other = all[random.below(all.length)];
      const from = somewhere(random, other) & ~511n;
      image.write(random.chance(0.5) ? from : at & ~511n, other.read(from, 512 << random.below(4)));
      break;
    }
    case 9:
      // A number a little off, which is how boundaries are missed.
      change(image, at, 4, (bytes) => {
        const view = new DataView(bytes.buffer, bytes.byteOffset, 4);
        view.setUint32(0, (view.getUint32(0, true) + random.between(-2, 2)) >>> 0, true);
      });
      break;
    case 10:
      mutateEntry(random, image);
      break;
    default:
      image.size = random.chance(0.7) ? image.size + BigInt(random.between(-9000, 9000)) : sizes[random.below(sizes.length)];
      if (image.size < 0n) image.size = 0n;
  }
}

/** An entry of the MBR, of an EBR, or of a GPT's array: where contradictions come from. */
function mutateEntry(random: Random, image: SparseImage): void {
  const lba = () => (random.chance(0.3) ? Number(sizes[random.below(sizes.length)] & 0xffffffffn) : random.below(200_000));
  if (random.chance(0.5)) {
    const places = [
      0,
      0,
      ...image
        .written()
        .filter((block) => block > 8)
        .map((block) => block * 4096),
    ];
    const entry = new Uint8Array(16);
    const view = new DataView(entry.buffer);
    entry[0] = random.chance(0.9) ? 0 : random.below(256);
    entry[4] = [0, 5, 0x0f, 0x83, 0xee, random.below(256)][random.below(6)];
    view.setUint32(8, lba(), true);
    view.setUint32(12, lba(), true);
    image.write(places[random.below(places.length)] + 446 + 16 * random.below(4), entry);
  } else {
    const bytes = new Uint8Array(16);
    const view = new DataView(bytes.buffer);
    const first = random.chance(0.2) ? sizes[random.below(sizes.length)] : BigInt(lba());
    view.setBigUint64(0, first, true);
    view.setBigUint64(8, random.chance(0.2) ? sizes[random.below(sizes.length)] : BigInt.asUintN(64, first + BigInt(random.between(-10, 100_000))), true);
    image.write(1024 + 128 * random.below(16) + 32, bytes);
  }
}

function change(image: SparseImage, at: bigint, length: number, act: (bytes: Uint8Array) => void): void {
  const bytes = image.read(at, length).slice();
  if (bytes.length < length) return;
  act(bytes);
  image.write(at, bytes);
}

/** Bytes of the whole images that are not zero, where mutations mean something. */
const telling = new WeakMap<SparseImage, bigint[]>();

function tellingBytes(image: SparseImage): bigint[] {
  let places = telling.get(image);
  if (places !== undefined) return places;
  places = [];
  for (const block of image.written()) {
    const at = BigInt(block) * 4096n;
    for (const [index, byte] of image.read(at, 4096).entries()) if (byte !== 0) places.push(at + BigInt(index));
  }
  telling.set(image, places);
  return places;
}

/** A byte where something is written in `whole`, mostly one that is not zero or a little before it, where its field begins. */
function somewhere(random: Random, whole: SparseImage): bigint {
  if (random.chance(0.2)) {
    const written = whole.written();
    return BigInt(written[random.below(written.length)]) * 4096n + BigInt(random.below(4096));
  }
  const places = tellingBytes(whole);
  const at = places[random.below(places.length)] - BigInt(random.below(4));
  return at < 0n ? 0n : at;
}

function someNumber(random: Random): Uint8Array {
  const bytes = new Uint8Array(1 << random.below(4));
  const view = new DataView(new ArrayBuffer(8));
  const number = random.chance(0.8) ? sizes[random.below(sizes.length)] : BigInt(random.next());
  const isLittle = random.chance(0.7);
  view.setBigUint64(0, number, isLittle);
  bytes.set(new Uint8Array(view.buffer, isLittle ? 0 : 8 - bytes.length, bytes.length));
  return bytes;
}

/** Makes the CRCs of a GPT right again, so that a lie is believed. */
function sealGpt(image: SparseImage): void {
  for (const sectorSize of [512, 4096]) {
    const unit = BigInt(sectorSize);
    for (const at of [unit, (image.size / unit) * unit - unit]) {
      const header = image.read(at, sectorSize).slice();
      if (header.length < sectorSize || Buffer.compare(header.subarray(0, 8), Buffer.from('EFI PART')) !== 0) continue;
      const view = new DataView(header.buffer, header.byteOffset, header.byteLength);
      const bytes = view.getUint32(80, true) * view.getUint32(84, true);
      if (bytes <= MEBIBYTE) view.setUint32(88, crc32(image.read(view.getBigUint64(72, true) * unit, bytes)), true);
      sealHeader(header);
      image.write(at, header);
    }
  }
}

// Options

function someOptions(random: Random): CheckOptions {
  const options: CheckOptions = {};
  if (random.chance(0.2)) options.pages = [[4096, 16384], [65536], [512, 4096, 65536]][random.below(3)];
  if (random.chance(0.1)) options.sectorSize = 512 << random.below(4);
  if (random.chance(0.1)) options.physical = 512 << random.below(6);
  if (random.chance(0.2)) options.topology = someTopology(random);
  return options;
}

function someTopology(random: Random): Topology {
  const some = () => (random.chance(0.3) ? 0 : random.chance(0.5) ? 512 << random.below(20) : random.next());
  return {
    logical: 512 << random.below(5),
    physical: 512 << random.below(8),
    minimumIo: some(),
    optimalIo: some(),
    alignmentOffset: random.chance(0.5) ? 0 : random.between(-1, 65536),
    zone: random.chance(0.7) ? 0 : some(),
    chunk: some(),
    source: random.chance(0.5) ? 'device' : 'option',
  };
}
