/**
 * A range of a file into a `Writable` without a copy: the window itself is what is written.
 *
 * Of all consumers of streams only a `Writable` says when it is done with a chunk: it calls back. So a window is retained from `write` to that call, and no longer.
 *
 * Guarantees: one window is with the target at a time, the next is being read ahead; it is released when the target has called back, also after an abort; a window that was invalidated meanwhile is an error.
 * Leaves to others: targets that call back first and keep the chunk (`PassThrough`, anything that collects): they get `readable()`.
 */
import type { Writable } from 'node:stream';
import { abortError } from '../errors.js';
import { onAbort } from '../windows/abort-listeners.js';
import type { Window } from '../windows/window.js';

/** Resolves with the bytes written. On failure the target is destroyed, as `stream.pipeline` does: what it was given last may not be the file's. */
export async function sendTo(target: Writable, windows: AsyncIterable<Window>, signal: AbortSignal | undefined): Promise<number> {
  let sent = 0;
  let failure: Error | undefined;
  // A target without a listener of its own would end the process; whoever waits for the promise is told.
  const onError = (error: Error): void => {
    failure ??= error;
  };
  target.on('error', onError);
  try {
    for await (const window of windows) {
      for (const area of window.areas) await written(target, window, area, signal);
      sent += window.length;
    }
    target.off('error', onError);
    return sent;
  } catch (error) {
    const known = failure ?? (error as Error);
    target.destroy(known);
    throw known;
  }
}

function written(target: Writable, window: Window, area: Uint8Array, signal: AbortSignal | undefined): Promise<void> {
  return new Promise((resolve, reject) => {
    if (signal?.aborted) {
      reject(abortError(signal));
      return;
    }
    const settled = signal === undefined ? () => {} : onAbort(signal, () => reject(abortError(signal)));
    window.retain();
    target.write(area, (error) => {
      settled();
      try {
        window.check();
        if (error) reject(error);
        else resolve();
      } catch (gone) {
        reject(gone);
      } finally {
        window.release();
      }
    });
  });
}
