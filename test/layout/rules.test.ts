/** The rules of alignment: the table of values seen in the wild, and what holds of all values. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  customaryGrain,
  endModulus,
  flashGrain,
  gcd,
  grain,
  grainFor,
  isPowerOfTwo,
  lcm,
  remainder,
  requiredAlignment,
  roundDown,
  roundUp,
  stripeGrainCap,
  usableMinimumIo,
  usableOptimalIo,
} from '../../src/layout/rules.js';

const KIB = 1024;
const MIB = 1024 * KIB;

/** What devices report (min, opt, with logical and physical sectors) and the grain in sectors of 512 bytes that comes out. */
const wild: { says: string; logical: number; physical: number; minimumIo: number; optimalIo: number; sectors: number; why?: RegExp }[] = [
  { says: '512 / 0', logical: 512, physical: 512, minimumIo: 512, optimalIo: 0, sectors: 2048 },
  { says: '4096 / 0', logical: 512, physical: 4096, minimumIo: 4096, optimalIo: 0, sectors: 2048 },
  { says: '512 / 33553920', logical: 512, physical: 512, minimumIo: 512, optimalIo: 33553920, sectors: 2048, why: /65535 × 512, a placeholder/ },
  { says: '4096 / 33553920', logical: 512, physical: 4096, minimumIo: 4096, optimalIo: 33553920, sectors: 2048, why: /65535 × 512, a placeholder/ },
  { says: '4096 / 268431360 on 4Kn', logical: 4096, physical: 4096, minimumIo: 4096, optimalIo: 268431360, sectors: 2048, why: /65535 × 4096, a placeholder/ },
  { says: '512 / 16776704, physical 512', logical: 512, physical: 512, minimumIo: 512, optimalIo: 16776704, sectors: 2048, why: /32767 × 512, a placeholder/ },
  {
    says: '4096 / 16776704, physical 4096',
    logical: 512,
    physical: 4096,
    minimumIo: 4096,
    optimalIo: 16776704,
    sectors: 2048,
    why: /32767 × 512, a placeholder/,
  },
  { says: '65536 / 196608 (RAID5, 3 data)', logical: 512, physical: 512, minimumIo: 65536, optimalIo: 196608, sectors: 6144 },
  { says: '65536 / 64 MiB', logical: 512, physical: 512, minimumIo: 65536, optimalIo: 64 * MIB, sectors: 131072 },
  { says: '65536 / 256 MiB', logical: 512, physical: 512, minimumIo: 65536, optimalIo: 256 * MIB, sectors: 2048, why: /more than 67108864/ },
  { says: '4096 / 4294963200 (saturated)', logical: 512, physical: 4096, minimumIo: 4096, optimalIo: 4294963200, sectors: 2048, why: /overflow/ },
];

describe('values seen in the wild', () => {
  for (const { says, sectors, why, ...topology } of wild) {
    it(`makes a grain of ${sectors} sectors of ${says}${why === undefined ? '' : ', and says why it is ignored'}`, () => {
      expect(grain({ ...topology, zone: 0 })).toBe(BigInt(sectors) * 512n);
      const { value, reason } = usableOptimalIo(topology);
      if (why === undefined) {
        expect(reason).toBeUndefined();
        expect(value).toBe(BigInt(topology.optimalIo));
      } else {
        expect(value).toBe(0n);
        expect(reason).toMatch(why);
      }
    });
  }

  it('ignores a stripe that is no multiple of 4096, or not of the minimum', () => {
    expect(usableOptimalIo({ logical: 512, physical: 512, minimumIo: 512, optimalIo: 6144 }).reason).toBe(
      'optimal_io_size 6144 % 4096 = 2048: no multiple of what the device or a page needs',
    );
    expect(usableOptimalIo({ logical: 512, physical: 512, minimumIo: 65536, optimalIo: 98304 }).reason).toMatch(/98304 % 65536 = 32768/);
  });
});

const size = fc.integer({ min: 0, max: 2 ** 33 });
const sector = fc.constantFrom(512, 1024, 2048, 4096);
const page = fc.constantFrom(4096, 8192, 16384, 65536);
const topologies = fc.record({
  logical: sector,
  physical: sector,
  minimumIo: fc.oneof(size, fc.constantFrom(0, 512, 4096, 65536, MIB, 2 * MIB)),
  optimalIo: fc.oneof(
    size,
    fc.integer({ min: 0, max: 70000 }).map((chunks) => chunks * 65536),
    fc.integer({ min: 0, max: 20000 }).map((chunks) => chunks * 4096),
  ),
  zone: fc.constantFrom(0, 0, 256 * MIB, 96 * MIB),
});
const places = fc.bigInt({ min: 0n, max: 1n << 72n });
const moduli = fc.bigInt({ min: 1n, max: 1n << 40n });

describe('any value', () => {
  it('has a required alignment that is a power of two, a multiple of sector and pages, and of no minimum above 1 MiB', () => {
    fc.assert(
      fc.property(topologies, fc.array(page, { minLength: 1, maxLength: 3 }), (topology, pages) => {
        const required = requiredAlignment(topology, pages);
        expect(isPowerOfTwo(required)).toBe(true);
        for (const each of [topology.physical, ...pages]) expect(required % BigInt(each)).toBe(0n);
        expect(required).toBeLessThanOrEqual(BigInt(MIB));
        const { value, reason } = usableMinimumIo(topology);
        if (value > 0n) expect(required % value).toBe(0n);
        expect(reason === undefined).toBe(value > 0n || topology.minimumIo === 0);
      }),
    );
  });

  it('is a usable stripe only if pages, sectors and 1 MiB fit it, and is ignored with a reason else', () => {
    fc.assert(
      fc.property(topologies, (topology) => {
        const { value, reason } = usableOptimalIo(topology);
        expect(value === 0n || value === BigInt(topology.optimalIo)).toBe(true);
        expect(reason === undefined).toBe(value > 0n || topology.optimalIo === 0);
        if (value === 0n) return;
        expect(value % 4096n).toBe(0n);
        expect(value % BigInt(topology.physical)).toBe(0n);
        expect(lcm(value, customaryGrain)).toBeLessThanOrEqual(stripeGrainCap);
        const sectors = value / BigInt(topology.logical);
        expect(sectors >= 0x7fffn && isPowerOfTwo(sectors + 1n)).toBe(false);
      }),
      { numRuns: 1000 },
    );
  });

  it('has a grain that all asked for divides, at least 1 MiB, for flash at least 4 MiB', () => {
    fc.assert(
      fc.property(topologies, fc.boolean(), fc.option(moduli, { nil: undefined }), (topology, flash, wish) => {
        const whole = grain(topology, { flash, grain: wish });
        for (const each of [customaryGrain, usableOptimalIo(topology).value, BigInt(topology.zone), wish ?? 0n, flash ? flashGrain : 0n]) {
          if (each > 0n) expect(whole % each).toBe(0n);
        }
      }),
    );
  });

  it('falls back to 1 MiB and then to what is required where a partition is smaller than the grain', () => {
    expect(grainFor(64n << 20n, 64n << 20n, 4096n)).toBe(64n << 20n);
    expect(grainFor(63n << 20n, 64n << 20n, 4096n)).toBe(1n << 20n);
    expect(grainFor(1000n, 64n << 20n, 4096n)).toBe(4096n);
  });

  it('ends on whole pages, or on whole sectors where those are larger', () => {
    expect([512, 2048, 4096, 8192].map(endModulus)).toEqual([4096n, 4096n, 4096n, 8192n]);
  });

  it('is rounded to the nearest multiple on either side, also below zero', () => {
    fc.assert(
      fc.property(fc.bigInt({ min: -(1n << 72n), max: 1n << 72n }), moduli, (value, modulus) => {
        const [down, up] = [roundDown(value, modulus), roundUp(value, modulus)];
        expect(down <= value && value <= up).toBe(true);
        expect(up - down).toBe(value % modulus === 0n ? 0n : modulus);
        expect(down % modulus).toBe(0n);
        expect(value - down).toBe(remainder(value, modulus));
      }),
    );
  });

  it('has the least common multiple that the greatest common divisor says', () => {
    fc.assert(
      fc.property(places, places, (a, b) => {
        expect(lcm(a, b) * gcd(a, b)).toBe(a * b);
        if (b !== 0n) expect(gcd(a, b) === 0n ? 0n : a % gcd(a, b)).toBe(0n);
      }),
    );
  });
});
