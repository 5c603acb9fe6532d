/**
 * A range of a file as a stream of the web platform, of bytes.
 *
 * Guarantees: a reader that brings its own memory (BYOB) has it filled from windows without a copy in between, as much at once as it brings; one that does not gets chunks of `step` bytes of its own.
 * A failed read, a closed file or an abort makes the stream fail with its error; `cancel` gives up the read that is on its way.
 */
import { abortError } from '../errors.js';
import { onAbort } from '../windows/abort-listeners.js';
import type { StreamRange, StreamSource } from './range.js';

/** `short` makes the error for a file that ends before the range does; without it the stream ends there. */
export function webStreamOf(file: StreamSource, { start, end, step, signal }: StreamRange, short?: (at: number) => Error): ReadableStream<Uint8Array> {
  const given = new AbortController();
  let at = start;
  let settled = (): void => {};
  return new ReadableStream({
    type: 'bytes',
    // Every pull brings memory: the reader's, or that of a chunk.
    autoAllocateChunkSize: step,
    start(controller) {
      if (signal === undefined) return;
      const stop = (): void => {
        const error = abortError(signal);
        given.abort(error);
        controller.error(error);
      };
      if (signal.aborted) stop();
      else settled = onAbort(signal, stop);
    },
    async pull(controller) {
      const request = controller.byobRequest as ReadableStreamBYOBRequest;
      const view = request.view as ArrayBufferView;
      try {
        const bytes = Math.min(view.byteLength, end - at);
        const count = bytes === 0 ? 0 : await file.read(new Uint8Array(view.buffer, view.byteOffset, bytes), at, { signal: given.signal });
        if (given.signal.aborted) return;
        if (count < bytes && short !== undefined) throw short(at + count);
        at += count;
        if (count === 0) {
          settled();
          controller.close();
        }
        request.respond(count);
      } catch (error) {
        settled();
        // The stream has failed or was cancelled by then.
        if (given.signal.aborted) return;
        throw error;
      }
    },
    cancel(reason) {
      settled();
      given.abort(reason);
    },
  });
}
