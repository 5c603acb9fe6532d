/**
 * A range of a file as a stream of `node:stream`.
 *
 * Guarantees: each chunk is a Buffer of its own, which the consumer may keep and change; back-pressure is honoured; a failed read, a closed file or an abort destroys the stream with its error; a destroyed
 * stream gives up the read that is on its way.
 */
import { Readable } from 'node:stream';
import type { StreamRange, StreamSource } from './range.js';

export function readableOf(file: StreamSource, { start, end, step, signal }: StreamRange): Readable {
  const given = new AbortController();
  let at = start;
  return new Readable({
    highWaterMark: step,
    signal,
    read() {
      // Near the end no more is allocated than there is; at the end the file is asked whether there is more by now.
      const left = Math.min(end, at < file.size ? file.size : end) - at;
      if (left <= 0) {
        this.push(null);
        return;
      }
      const chunk = Buffer.allocUnsafeSlow(Math.min(step, left));
      file.read(chunk, at, { signal: given.signal }).then(
        (count) => {
          at += count;
          this.push(count === 0 ? null : chunk.subarray(0, count));
        },
        (error) => this.destroy(error),
      );
    },
    destroy(error, done) {
      given.abort(error);
      done(error);
    },
  });
}
