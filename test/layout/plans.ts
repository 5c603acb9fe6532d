/**
 * Random plans: disks from less than a MiB to 8 TiB, one to many partitions, topologies as devices report them (bogus ones too). Most fit, some do not.
 */
import fc from 'fast-check';
import type { PlannedMedia, PlanOptions } from '../../src/layout/plan.js';
import { TYPE_GUIDS } from '../../src/layout/types.js';
import type { Places } from '../fixtures/places.js';

const KIBIBYTE = 1024;
const MEBIBYTE = 1024 * KIBIBYTE;

/** Values of optimal_io_size seen in the wild, and some that make a stripe. */
const optimalSizes = [0, 33_553_920, 268_431_360, 16_776_704, 196_608, 64 * MEBIBYTE, 256 * MEBIBYTE, 4_294_963_200, 65_536, MEBIBYTE, 1_310_720, 524_288];

/** Bytes of a disk, as many small ones as large. */
function diskSize(sectorSize: number): fc.Arbitrary<bigint> {
  return fc.tuple(fc.integer({ min: 20, max: 43 }), fc.bigInt({ min: 0n, max: (1n << 20n) - 1n }), fc.boolean()).map(([bits, mantissa, whole]) => {
    const base = 1n << BigInt(bits);
    const size = base + (base * mantissa) / (1n << 20n);
    return whole ? (size / BigInt(MEBIBYTE)) * BigInt(MEBIBYTE) : (size / BigInt(sectorSize)) * BigInt(sectorSize);
  });
}

const names = fc.oneof(
  fc.constantFrom('efi', 'root', 'a "quoted" \\ name', 'größe', '磁盘', "it's, so"),
  fc.string({ unit: 'binary-ascii', maxLength: 36 }).map(printable),
  fc.constant(undefined),
);

function printable(text: string): string {
  return [...text].filter((letter) => letter >= ' ' && letter !== '\x7f').join('');
}

function parts(size: bigint): fc.Arbitrary<PlanOptions['parts']> {
  return fc.integer({ min: 1, max: 9 }).chain((count) =>
    fc
      .tuple(
        fc.array(fc.record({ name: names, type: fc.constantFrom(...Object.keys(TYPE_GUIDS)), share: fc.integer({ min: 1, max: 1000 }), odd: fc.boolean() }), {
          minLength: count,
          maxLength: count,
        }),
        fc.option(fc.nat(count - 1)),
      )
      .map(([each, open]) =>
        each.map(({ name, type, share, odd }, index) => {
          const fair = (size * BigInt(share)) / BigInt(1100 * count);
          const bytes = odd ? fair : (fair / BigInt(MEBIBYTE)) * BigInt(MEBIBYTE);
          return { type, ...(name === undefined ? {} : { name }), ...(index === open ? {} : { size: bytes > 0n ? bytes : 1n }) };
        }),
      ),
  );
}

/** Options of plans without file systems. */
export function planOptions(sectorSize = 512): fc.Arbitrary<PlanOptions> {
  return diskSize(sectorSize).chain((size) =>
    fc
      .record({
        parts: parts(size),
        physical: fc.constantFrom(undefined, 4096, Math.max(512, sectorSize), 16_384),
        pages: fc.constantFrom(undefined, [4096], [4096, 16_384, 65_536]),
        minimumIo: fc.constantFrom(undefined, 0, 512, 4096, 65_536, 196_608),
        optimalIo: fc.constantFrom(undefined, ...optimalSizes),
        grain: fc.constantFrom(undefined, undefined, 3 * MEBIBYTE, 4096, 8 * MEBIBYTE),
        zone: fc.constantFrom(undefined, undefined, undefined, 256 * MEBIBYTE),
        media: fc.constantFrom<PlannedMedia | undefined>(undefined, 'disk', 'flash', 'sd'),
      })
      .map((options) => ({ size, sectorSize, diskId: '01234567-89ab-4def-8123-456789abcdef', ...defined(options) })),
  );
}

function defined<T extends object>(options: T): T {
  return Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined)) as T;
}

/** For images that are synced often: in memory where that can be had. */
export function memoryFolder(lab: Places): string {
  try {
    return lab.folder('/dev/shm');
  } catch {
    return lab.folder();
  }
}
