/**
 * Keeps the guard in its place: the handler that turns a SIGBUS under a window into zero pages and a word that says why (`native/guard.h`).
 *
 * Guarantees: from the first opening in page-cache mode on, SIGBUS within a mapping of ours ends no process, also when the program adds or removes listeners for SIGBUS in
 * the thread that opened.
 * Leaves to others: handlers that native code installs later (every mapping made arms the guard again, and so does whoever watches), and what a fault means (`validity.ts`).
 */
import { SectorwiseError, systemError } from '../errors.js';
import { native } from '../io/native.js';

const EPERM = -1;

let listening = false;

/**
 * Installs the handler if it is not there; before a file is mapped.
 *
 * @param path - the file that is to be mapped, for the error; none where only its descriptor is known.
 * @throws SectorwiseError ERR_SECTORWISE_SIGNAL_BLOCKED where this thread blocks SIGBUS; the error of `sigaction`.
 */
export function armGuard(path?: string): void {
  const result = native().guardArm();
  if (result === EPERM) {
    throw new SectorwiseError(
      'ERR_SECTORWISE_SIGNAL_BLOCKED',
      'SIGBUS is blocked in this thread: if the file were made shorter, touching its windows would end the process. ' +
        "Unblock the signal (native code blocked it), or open the file with { caching: 'direct' }.",
      { path },
    );
  }
  if (result < 0) throw systemError(result, 'sigaction', { path });
  if (listening) return;
  listening = true;
  // Node's own listeners for these came first: libuv's handler is in place already, or taken away again.
  process.on('newListener', rearm);
  process.on('removeListener', rearm);
}

/** libuv's handler alone would answer a fault by writing to a pipe and faulting again, for ever. */
function rearm(event: string | symbol): void {
  if (event === 'SIGBUS') native().guardArm();
}
