/**
 * What the simulated disk reports when the program above it breaks a rule that a real device could only punish by wrong bytes.
 */
import { SectorwiseError } from '../errors.js';
import { SECTOR_BYTES } from './faults.js';

/**
 * The rule that was broken:
 * - `alignment`: position, length or place in the slab is no multiple of the sector size. The operation also completes with EINVAL.
 * - `bad-entry`: an operation, file or slab that does not exist, or a range outside the slab. Also completes with EINVAL.
 * - `depth`: more entries in flight than the engine's depth, so that its queue could overflow.
 * - `unstable-write`: bytes of a write changed between its submission and its completion.
 * - `store-under-read`: somebody stored into the target of a read before it completed.
 * - `memory-reused`: two entries in flight share slab memory and one of them is a read.
 * - `ordering`: two entries in flight overlap on the disk and one of them changes it, so that nothing says which comes first.
 * - `closed-busy`: an engine was closed with entries in flight, or used after that.
 */
export type ViolationKind = 'alignment' | 'bad-entry' | 'depth' | 'unstable-write' | 'store-under-read' | 'memory-reused' | 'ordering' | 'closed-busy';

/** A broken rule, with the entry that broke it. Its `code` is ERR_SECTORWISE_VIOLATION. */
export class Violation extends SectorwiseError {
  /** Which rule. */
  readonly kind: ViolationKind;
  /** The entry's handle. */
  readonly handle: number;
  /** The 512-byte sector where it shows: the first changed one, or the entry's first. */
  readonly sector: number;

  /** Made by the simulated disk. */
  constructor(kind: ViolationKind, handle: number, position: number, length: number, what: string) {
    const sector = Math.floor(position / SECTOR_BYTES);
    super('ERR_SECTORWISE_VIOLATION', `${kind}: ${what} (handle ${handle}, sector ${sector})`, { offset: position, length });
    this.kind = kind;
    this.handle = handle;
    this.sector = sector;
  }
}
