/**
 * The rules of alignment as pure functions: what a start must be a multiple of (R1), which optimal I/O size is to be believed (R2), what starts had better be multiples of
 * (R3), what ends must be multiples of (R4).
 *
 * Guarantees: all in bytes and bigint, so that nothing is rounded whatever a table or a device says; no value of a device can make a function throw or divide by zero.
 * Leaves to others: applying them to a table (`check.ts`) and to a plan (`plan.ts`); where clusters lie (R6, `tier.ts`); files (R7, `src/cli`).
 */
import type { Topology } from './model.js';

const KIBIBYTE = 1024n;
const MEBIBYTE = 1024n * KIBIBYTE;
/** What every tool has aligned to since 2009, and no device disagrees with. */
export const customaryGrain = MEBIBYTE;
/** Erase blocks are not reported by anyone: 4 MiB is what parted's manual and image builders advise for flash. */
export const flashGrain = 4n * MEBIBYTE;
/** A minimum_io_size above this is a wish about throughput, not a boundary. */
const minimumIoCap = MEBIBYTE;
/** A grain above this loses more room than alignment to a stripe gains. */
export const stripeGrainCap = 64n * MEBIBYTE;
/** The kernel keeps optimal_io_size in 32 bits; the least common multiple of a stack's members saturates just below. */
const saturated = (1n << 32n) - 65536n;
/** The smallest page, and the sector that LUKS2 and others choose. */
const leastPage = 4096n;

export function gcd(a: bigint, b: bigint): bigint {
  let [x, y] = [a < 0n ? -a : a, b < 0n ? -b : b];
  while (y !== 0n) [x, y] = [y, x % y];
  return x;
}

/** 0 if one of them is. */
export function lcm(a: bigint, b: bigint): bigint {
  return a === 0n || b === 0n ? 0n : (a / gcd(a, b)) * b;
}

/** `value % modulus` as arithmetic has it, never negative: a start may lie before the first aligned place. */
export function remainder(value: bigint, modulus: bigint): bigint {
  const rest = value % modulus;
  return rest < 0n ? rest + modulus : rest;
}

export function roundUp(value: bigint, modulus: bigint): bigint {
  const rest = remainder(value, modulus);
  return rest === 0n ? value : value - rest + modulus;
}

export function roundDown(value: bigint, modulus: bigint): bigint {
  return value - remainder(value, modulus);
}

export function isPowerOfTwo(value: bigint): boolean {
  return value > 0n && (value & (value - 1n)) === 0n;
}

/** R1: what the start of a partition must be a multiple of, counted from alignment_offset: the largest of physical sector, pages, and minimum_io_size where it is usable. */
export function requiredAlignment(topology: Pick<Topology, 'physical' | 'minimumIo'>, pages: readonly number[] = [4096]): bigint {
  const { value } = usableMinimumIo(topology);
  return [topology.physical, ...pages].map(BigInt).reduce((most, each) => (each > most ? each : most), value > 1n ? value : 1n);
}

/** An I/O size that a device reports, judged. */
export interface UsableIo {
  /** In bytes; 0 where none is usable. */
  value: bigint;
  /** Why a reported one is not. */
  reason?: string;
}

/** The minimum_io_size if it is a boundary (a power of two up to 1 MiB), else 0 and, where the device reports one at all, why not. */
export function usableMinimumIo({ minimumIo }: Pick<Topology, 'minimumIo'>): UsableIo {
  if (!(minimumIo > 0)) return { value: 0n };
  const value = BigInt(Math.trunc(minimumIo));
  if (!isPowerOfTwo(value)) return { value: 0n, reason: `minimum_io_size ${value} is no power of two` };
  if (value > minimumIoCap) return { value: 0n, reason: `minimum_io_size ${value} is more than ${minimumIoCap}` };
  return { value };
}

/**
 * R2: the optimal_io_size if it is a stripe to align to, else 0 and, where the device reports one at all, why it is ignored. Bridges and drivers report the largest
 * transfer they can do (a count of sectors of all ones) or what is left of an overflow.
 */
export function usableOptimalIo(topology: Pick<Topology, 'logical' | 'physical' | 'minimumIo' | 'optimalIo'>): UsableIo {
  if (!(topology.optimalIo > 0)) return { value: 0n };
  const value = BigInt(Math.trunc(topology.optimalIo));
  const logical = BigInt(topology.logical > 0 ? topology.logical : 512);
  const sectors = value / logical;
  const ignored = (why: string) => ({ value: 0n, reason: `optimal_io_size ${value} ${why}` });
  if (sectors >= 0x7fffn && (sectors & (sectors + 1n)) === 0n) return ignored(`= ${sectors} × ${logical}, a placeholder`);
  if (value >= saturated) return ignored('is what is left of an overflow of 32 bits');
  const unit = [BigInt(topology.physical), BigInt(Math.trunc(topology.minimumIo)), leastPage].reduce((most, each) => (each > most ? each : most), 0n);
  const rest = value % unit;
  if (rest !== 0n) return ignored(`% ${unit} = ${rest}: no multiple of what the device or a page needs`);
  const whole = lcm(value, customaryGrain);
  if (whole > stripeGrainCap) return ignored(`and 1 MiB meet only every ${whole} bytes, which is more than ${stripeGrainCap}`);
  return { value };
}

/** What else a grain shall be a multiple of. */
export interface GrainOptions {
  /** In bytes, by the user's wish. */
  grain?: bigint;
  /** Flash cards and sticks: at least 4 MiB, for the erase blocks that they do not report. */
  flash?: boolean;
}

/** R3: what starts had better be multiples of. */
export function grain(topology: Pick<Topology, 'logical' | 'physical' | 'minimumIo' | 'optimalIo' | 'zone'>, options: GrainOptions = {}): bigint {
  const { value } = usableOptimalIo(topology);
  let whole = customaryGrain;
  for (const each of [value, options.grain ?? 0n, topology.zone > 0 ? BigInt(topology.zone) : 0n, options.flash ? flashGrain : 0n]) {
    if (each > 0n) whole = lcm(whole, each);
  }
  return whole;
}

/** R3 for one partition: a grain larger than the partition is not worth its room, so 1 MiB, and then only what is required. */
export function grainFor(size: bigint, whole: bigint, required: bigint): bigint {
  if (size >= whole) return whole;
  const customary = required > customaryGrain ? required : customaryGrain;
  return size >= customary ? customary : required;
}

/** R4: what the end of a partition must be a multiple of: LUKS2 and others refuse a device whose size is no multiple of 4096. */
export function endModulus(logical: number): bigint {
  return BigInt(logical) > leastPage ? BigInt(logical) : leastPage;
}
