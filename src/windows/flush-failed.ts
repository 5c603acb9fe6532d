/**
 * The error of a flush that could not make everything durable. It stays until `acknowledgeLoss`, because the kernel reports a failed
 * sync once and then forgets it.
 */
import { SectorwiseError } from '../errors.js';
import type { Loss } from '../requests/write-back.js';

/** Ranges named in the message at most; `ranges` has them all. */
const NAMED_MAX = 4;

/** A failed flush: `ranges` names what is not on stable storage. */
export class FlushError extends SectorwiseError {
  /** What could not be made durable, in the order it failed; bytes. */
  readonly ranges: ReadonlyArray<{
    /** First byte of the range. */
    offset: number;
    /** Its bytes. */
    length: number;
    /** Why it could not be made durable. */
    error: Error;
  }>;

  /** @internal */
  constructor(path: string, losses: readonly Loss[]) {
    const named = losses.slice(0, NAMED_MAX).map(({ offset, length, error }) => `[${offset}, ${offset + length}) ${error.message}`);
    const more = losses.length > NAMED_MAX ? `; and ${losses.length - NAMED_MAX} more` : '';
    super(
      'ERR_SECTORWISE_FLUSH_FAILED',
      `Not on stable storage: ${named.join('; ')}${more}. What was not written stays readable and is tried again by the next flush, which keeps failing until acknowledgeLoss().`,
      { path, offset: losses[0].offset, length: losses[0].length, cause: losses[0].error },
    );
    this.ranges = losses.map((loss) => ({ ...loss }));
  }
}

export function flushFailed(path: string, losses: readonly Loss[]): FlushError {
  return new FlushError(path, losses);
}
