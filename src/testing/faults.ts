/**
 * What can go wrong on a simulated disk, how likely it is, and where it was planted.
 *
 * Guarantees: an operation gets one fault of its data at most; a planted fault waits for the first operation that it can befall and
 * is used up by it; chances are drawn from the operation's own random numbers, so that one rate does not shift what the others do.
 * Leaves to others: what a fault does to the bytes (`device.ts`).
 */
import { invalidValue, outOfRange } from '../errors.js';
import { OP_READ, OP_SYNC, OP_WRITE } from '../io/engine.js';
import type { Random } from './random.js';

/** Bytes of the sectors that `failSectors` and `plant` count in, on every disk (as in Linux). */
export const SECTOR_BYTES = 512;

/**
 * The faults that happen by chance ({@link SimulatedDisk.faults}) or by plan ({@link SimulatedDisk.plant}), each to one operation.
 * Names of results are errno codes; in a completion they are negative.
 *
 * Refused before the device sees it, nothing happened; the same operation may work the next time:
 * - `again`: any operation completes with EAGAIN.
 * - `noMemory`: any operation completes with ENOMEM.
 * - `interrupted`: any operation completes with EINTR.
 *
 * Failed by the device:
 * - `readError`: a read completes with EIO; its memory holds nothing of use.
 * - `writeError`: a write completes with EIO; nothing lands.
 * - `tornWrite`: a write of two sectors or more completes with EIO; some of its sectors land and some do not.
 * - `syncError`: a sync completes with EIO; what happens to unsynced bytes says {@link SimulatedDiskOptions.afterSyncError}.
 *
 * Done in part, as the count says:
 * - `shortRead`: a read of two sectors or more brings a whole number of sectors, one at least, less than asked.
 * - `shortWrite`: the same for a write: the first sectors land. {@link SimulatedDiskOptions.shortUnit} makes both end at any byte.
 *
 * Lies, reported as a full success; without checksums only reading back shows them:
 * - `silentTornWrite`: as `tornWrite`.
 * - `lostWrite`: nothing lands (a file still grows, as its size is the file system's).
 * - `misdirectedWrite`: all lands at another aligned place of the disk, or nowhere if there is none.
 * - `corruptedWrite`: all lands with one bit turned.
 *
 * Of time and of the queue; they go with any other fault:
 * - `slow`: takes 50 times as long as the latency says.
 * - `duplicateCompletion`: a second completion with the same handle and result comes after the first, as a cancel makes two.
 * - `strayCompletion`: some time after, a completion comes with the handle of an entry that completed long before, and ECANCELED.
 */
export type FaultKind =
  | 'again'
  | 'noMemory'
  | 'interrupted'
  | 'readError'
  | 'writeError'
  | 'tornWrite'
  | 'syncError'
  | 'shortRead'
  | 'shortWrite'
  | 'silentTornWrite'
  | 'lostWrite'
  | 'misdirectedWrite'
  | 'corruptedWrite'
  | 'slow'
  | 'duplicateCompletion'
  | 'strayCompletion';

/** The probability of each fault, for each operation that it can befall: 0 never, 1 always. */
export type FaultRates = Record<FaultKind, number>;

/** Where a planted fault strikes. */
export interface PlantOptions {
  /** How many operations that it could befall are let off first. Default 0. */
  skip?: number;
  /** How many operations it befalls after that. Default 1; Infinity for all. */
  times?: number;
  /** Only operations on the 512-byte sectors from this one on. Default: anywhere. */
  first?: number;
  /** How many sectors from `first`. Default 1. */
  count?: number;
}

/** Which operations a bad sector fails. */
export interface FailSectorsOptions {
  /** Default true. */
  reads?: boolean;
  /** Default true. */
  writes?: boolean;
  /** How many operations fail before the sectors are good again. Default Infinity. */
  times?: number;
}

/** What is drawn for an operation. `slow`, `duplicate` and `stray` go with any fault of the data. */
export interface DrawnFaults {
  data: FaultKind | 'badSector' | undefined;
  slow: boolean;
  duplicate: boolean;
  stray: boolean;
}

/** What the choice of a fault depends on. Positions and lengths in bytes; of a sync they are 0. */
export interface FaultSubject {
  readonly code: number;
  readonly position: number;
  readonly length: number;
  readonly random: Random;
}

type Applies = (subject: FaultSubject) => boolean;

const onAny: Applies = () => true;
const onRead: Applies = ({ code }) => code === OP_READ;
const onWrite: Applies = ({ code, length }) => code === OP_WRITE && length > 0;
const onSync: Applies = ({ code }) => code === OP_SYNC;

/** Refusals before the device come before its bad sectors, those before what it does to the bytes. */
const refusals = { again: onAny, noMemory: onAny, interrupted: onAny };
const dataFaults = {
  readError: onRead,
  writeError: onWrite,
  tornWrite: onWrite,
  syncError: onSync,
  shortRead: onRead,
  shortWrite: onWrite,
  silentTornWrite: onWrite,
  lostWrite: onWrite,
  misdirectedWrite: onWrite,
  corruptedWrite: onWrite,
};
const queueFaults = { slow: onAny, duplicateCompletion: onAny, strayCompletion: onAny };
const applies: Record<FaultKind, Applies> = { ...refusals, ...dataFaults, ...queueFaults };

/** Every fault, in the order in which they are drawn. */
export const faultKinds = Object.keys(applies) as FaultKind[];
const refusalKinds = Object.keys(refusals) as FaultKind[];
const dataKinds = Object.keys(dataFaults) as FaultKind[];

interface Plant {
  kind: FaultKind;
  skip: number;
  times: number;
  start: number;
  end: number;
}

interface BadSectors {
  start: number;
  end: number;
  reads: boolean;
  writes: boolean;
  times: number;
}

/** The faults of one disk. */
export class FaultPlan {
  readonly rates: FaultRates;
  readonly #sectorSize: number;
  readonly #shortUnit: number;
  #plants: Plant[] = [];
  #bad: BadSectors[] = [];

  constructor(rates: Partial<FaultRates>, sectorSize: number, shortUnit: number) {
    this.#sectorSize = sectorSize;
    this.#shortUnit = shortUnit;
    this.rates = Object.fromEntries(faultKinds.map((kind) => [kind, 0])) as FaultRates;
    for (const [kind, rate] of Object.entries(rates)) {
      checkKind('faults', kind);
      if (typeof rate !== 'number' || !(rate >= 0 && rate <= 1)) throw outOfRange(`faults.${kind}`, '>= 0 and <= 1', rate);
      this.rates[kind] = rate;
    }
  }

  plant(kind: FaultKind, options: PlantOptions): void {
    checkKind('kind', kind);
    const { skip = 0, times = 1, first, count = 1 } = options;
    const start = first === undefined ? 0 : first * SECTOR_BYTES;
    this.#plants.push({ kind, skip, times, start, end: first === undefined ? Infinity : start + count * SECTOR_BYTES });
  }

  failSectors(first: number, count: number, options: FailSectorsOptions): void {
    const { reads = true, writes = true, times = Infinity } = options;
    this.#bad.push({ start: first * SECTOR_BYTES, end: (first + count) * SECTOR_BYTES, reads, writes, times });
  }

  /** From here on nothing fails. */
  heal(): void {
    for (const kind of faultKinds) this.rates[kind] = 0;
    this.#plants = [];
    this.#bad = [];
  }

  /** Decides about one operation; once for each, when it is submitted. */
  draw(subject: FaultSubject): DrawnFaults {
    const slow = this.#strikes('slow', subject);
    const duplicate = this.#strikes('duplicateCompletion', subject);
    const stray = this.#strikes('strayCompletion', subject);
    const refusal = refusalKinds.find((kind) => this.#strikes(kind, subject));
    if (refusal !== undefined) return { data: refusal, slow, duplicate, stray };
    if (this.#hitsBadSector(subject)) return { data: 'badSector', slow, duplicate, stray };
    return { data: dataKinds.find((kind) => this.#strikes(kind, subject)), slow, duplicate, stray };
  }

  #strikes(kind: FaultKind, subject: FaultSubject): boolean {
    const { rates } = this;
    const planted = this.#plants.length > 0 && this.#usePlant(kind, subject);
    return (rates[kind] > 0 && subject.random.chance(rates[kind]) && this.#canBefall(kind, subject)) || planted;
  }

  #usePlant(kind: FaultKind, subject: FaultSubject): boolean {
    for (const plant of this.#plants) {
      if (plant.kind !== kind || !touches(subject, plant) || !this.#canBefall(kind, subject)) continue;
      if (plant.skip > 0) {
        plant.skip--;
        continue;
      }
      plant.times--;
      if (plant.times <= 0) this.#plants.splice(this.#plants.indexOf(plant), 1);
      return true;
    }
    return false;
  }

  #canBefall(kind: FaultKind, subject: FaultSubject): boolean {
    if (!applies[kind](subject)) return false;
    if (kind === 'shortRead' || kind === 'shortWrite') return subject.length > this.#shortUnit;
    if (kind === 'tornWrite' || kind === 'silentTornWrite') return subject.length > this.#sectorSize;
    return true;
  }

  #hitsBadSector(subject: FaultSubject): boolean {
    if (subject.code !== OP_READ && subject.code !== OP_WRITE) return false;
    const hit = this.#bad.find((bad) => (subject.code === OP_READ ? bad.reads : bad.writes) && touches(subject, bad));
    if (hit === undefined) return false;
    hit.times--;
    if (hit.times <= 0) this.#bad.splice(this.#bad.indexOf(hit), 1);
    return true;
  }
}

function touches(subject: FaultSubject, place: { start: number; end: number }): boolean {
  if (place.end === Infinity) return true;
  return subject.position < place.end && subject.position + subject.length > place.start;
}

function checkKind(name: string, kind: string): asserts kind is FaultKind {
  if (!Object.hasOwn(applies, kind))
    throw invalidValue(name === 'faults' ? `faults.${kind}` : name, `is no fault; the faults are ${faultKinds.join(', ')}`, kind);
}
