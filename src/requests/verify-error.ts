/**
 * The error of a write that is not on the device as it was sent. In a file of its own, so that its class is there before the machinery that raises it is loaded.
 */
import { SectorwiseError } from '../errors.js';

/** What was read back of a write is not what was sent, or could not be read back. */
export class VerifyError extends SectorwiseError {
  /** The first byte of the file or device that differs; undefined where the range could not be read back (`cause` says why). */
  readonly differsAt: number | undefined;

  /** @internal */
  constructor(message: string, place: { path: string; offset: number; length: number; cause?: Error }, differsAt?: number) {
    super('ERR_SECTORWISE_VERIFY', message, place);
    this.differsAt = differsAt;
  }
}
