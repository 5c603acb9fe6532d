/**
 * What one seed simulates: the disk, its faults, the sizes of everything. All of it is drawn from the seed.
 */
import { type FaultKind, type FaultRates, Random } from '../../src/testing/index.js';

export interface Configuration {
  kind: 'file' | 'block-device';
  sectorSize: 512 | 4096;
  /** Bytes at first, and the most that the callers let it grow to. */
  size: number;
  sizeMax: number;
  access: 'read' | 'read-write';
  frames: number;
  slots: number;
  slotBlocks: number;
  queueDepth: number;
  mergeLimit: number;
  gapLimit: number;
  maxTransferSize: number;
  /** Read-ahead: first piece and most, in bytes; 0 for none. */
  aheadInitial: number;
  aheadBytes: number;
  /** How likely a request goes on where one before it ended, so that there is somebody to read ahead for. */
  walks: number;
  latency: { min: number; max: number };
  reorder: boolean;
  shortUnit: 'sector' | 'byte';
  afterSyncError: 'keep' | 'forget';
  faults: Partial<FaultRates>;
  /** What is written is read back; only then does the disk lie. */
  verifyWrites: boolean;
  /** How likely it is, at each turn, that sectors go bad. */
  badSectors: number;
  callers: number;
  operations: number;
  /** Bytes of one request at most. */
  requestMax: number;
  /** Frames that windows may hold on to across other operations. */
  holdMax: number;
  /** How likely a request has a signal, and how likely, at each turn, one of those fires. */
  signals: number;
  aborts: number;
  /** Blocking calls among the others. */
  blocking: boolean;
  /** After how many operations the file is closed with everything pending; Infinity for never. */
  closeAfter: number;
  /** Times that the disk goes away at most, and what an unplugged one answers. */
  losses: number;
  unplugAnswer: 'ENODEV' | 'EIO' | 'end-of-file';
  /** Times that somebody else gives the file another size at most. */
  cuts: number;
  /** How the file finds out about either. */
  notice: 'event' | 'error' | 'late';
}

/** Losses and cuts are drawn from a stream of their own: what a seed without them does stays as it was. */
const accidentStream = 2;
/** So is who verifies, and which lies there are then. */
const lieStream = 3;

/** The faults that a disk admits to. */
const transient: FaultKind[] = ['again', 'noMemory', 'interrupted'];
const honest: FaultKind[] = ['readError', 'writeError', 'tornWrite', 'syncError'];
const partial: FaultKind[] = ['shortRead', 'shortWrite'];
const odd: FaultKind[] = ['slow', 'duplicateCompletion', 'strayCompletion'];
/** Without verifyWrites they need checksums, which this library leaves to the engines above it. */
export const lies: FaultKind[] = ['silentTornWrite', 'lostWrite', 'misdirectedWrite', 'corruptedWrite'];

const BLOCK_BYTES = 4096;

function pick<T>(random: Random, choices: readonly T[]): T {
  return choices[random.below(choices.length)];
}

export function drawConfiguration(random: Random, seed: number): Configuration {
  const accidents = new Random(seed, accidentStream);
  const kind = random.chance(0.65) ? 'file' : 'block-device';
  const sectorSize = random.chance(0.7) ? 512 : 4096;
  const frames = pick(random, [16, 16, 16, 17, 20, 24, 24, 32, 32, 48, 64, random.chance(0.3) ? 128 : 16]);
  const blocks = pick(random, [0, 1, 2, 5, 16, 33, frames >>> 1, frames, frames + 7, Math.min(96, frames * 2), frames < 64 ? frames * 2 : 40]);
  let size = blocks * BLOCK_BYTES;
  if (kind === 'block-device') size = Math.max(sectorSize, size + (sectorSize === 512 ? random.below(8) * 512 : 0));
  else if (random.chance(0.6)) size = Math.max(0, size + random.between(-600, 4200));
  const faulty = random.chance(0.6);
  const faults: Partial<FaultRates> = {};
  if (faulty) {
    for (const kinds of [transient, honest, partial, odd]) {
      if (random.chance(0.5)) continue;
      for (const fault of kinds) if (random.chance(0.6)) faults[fault] = pick(random, [0.01, 0.05, 0.2]);
    }
  }
  const liar = new Random(seed, lieStream);
  const verifyWrites = liar.chance(0.3);
  // Some verify on a disk that never lies: then nothing may be said to be wrong.
  if (verifyWrites && liar.chance(0.8)) for (const lie of lies) if (liar.chance(0.5)) faults[lie] = pick(liar, [0.01, 0.05, 0.2]);
  const operations = random.between(20, 110);
  const slotBlocks = random.between(4, 32);
  return {
    kind,
    sectorSize,
    size,
    sizeMax: kind === 'file' ? Math.max(size + 20_000, Math.min(64, frames * 2) * BLOCK_BYTES) : size,
    access: random.chance(0.05) ? 'read' : 'read-write',
    frames,
    slots: random.between(4, pick(random, [4, 8, 64])),
    slotBlocks,
    queueDepth: pick(random, [1, 2, 3, 4, 8, 16, 32]),
    mergeLimit: pick(random, [BLOCK_BYTES, 2 * BLOCK_BYTES, 8 * BLOCK_BYTES, 1024 * 1024]),
    gapLimit: pick(random, [0, BLOCK_BYTES, 4 * BLOCK_BYTES, 16 * BLOCK_BYTES]),
    maxTransferSize: pick(random, [BLOCK_BYTES, 3 * BLOCK_BYTES, 16 * BLOCK_BYTES, 1024 * 1024]),
    aheadInitial: pick(random, [0, BLOCK_BYTES, 2 * BLOCK_BYTES]),
    aheadBytes: pick(random, [0, 2 * BLOCK_BYTES, 8 * BLOCK_BYTES, 64 * BLOCK_BYTES]),
    latency: pick(random, [
      { min: 20, max: 200 },
      { min: 0, max: 0 },
      { min: 1, max: 5000 },
    ]),
    reorder: random.chance(0.8),
    shortUnit: kind === 'file' && random.chance(0.5) ? 'byte' : 'sector',
    afterSyncError: random.chance(0.5) ? 'keep' : 'forget',
    faults,
    verifyWrites,
    badSectors: faulty && random.chance(0.4) ? 0.05 : 0,
    callers: random.between(4, 8),
    operations,
    requestMax: pick(random, [BLOCK_BYTES, 4 * BLOCK_BYTES, Math.floor(frames / 4) * BLOCK_BYTES, Math.floor(frames / 2) * BLOCK_BYTES]),
    holdMax: pick(random, [0, frames >>> 3, frames >>> 2, frames >>> 1, frames * 2]),
    signals: random.chance(0.5) ? 0.3 : 0,
    aborts: pick(random, [0.05, 0.3]),
    blocking: random.chance(0.6),
    closeAfter: random.chance(0.2) ? random.below(operations) : Infinity,
    losses: accidents.chance(0.35) ? accidents.between(1, 4) : 0,
    unplugAnswer: pick(accidents, ['ENODEV', 'EIO', 'end-of-file'] as const),
    cuts: kind === 'file' && accidents.chance(0.25) ? accidents.between(1, 4) : 0,
    notice: pick(accidents, ['event', 'event', 'error', 'late'] as const),
    walks: pick(random, [0, 0.3, 0.7]),
  };
}
