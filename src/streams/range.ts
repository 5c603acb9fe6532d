/**
 * Which bytes a stream or blob shows, and how they are taken: what the three kinds have in common.
 *
 * Bytes are copied out of windows by `BlockFile.read`, straight into the memory that the consumer keeps. Consumers of streams keep chunks for as long as they like, and no stream of Node or of the web
 * says when one is done with, while a window must be released: lent out, its bytes would change under the consumer. So nothing is lent here, no window outlives a copy, and `read` has proved for each copy
 * that the bytes were the file's. The one consumer that does say when it is done is a `Writable`, by the callback of `write`: for it there is `sendTo`, without a copy.
 *
 * Guarantees: chunks come in order and without gaps; one read is on its way at a time, asked for only when the consumer wants more (the file's read-ahead works meanwhile).
 */
import { outOfRange } from '../errors.js';
import { checkBytes, checkNames, checkSignalOption } from '../options.js';

/** Options of `BlockFile.readable` and `BlockFile.stream`. */
export interface StreamOptions {
  /** First byte. Default 0. */
  start?: number;
  /** The byte after the last one. Default: the end of the file, wherever it is by then. */
  end?: number;
  /** Bytes of one chunk, 1 to 64 MiB. Default 64 KiB, as of `fs.createReadStream`. */
  step?: number;
  /** Aborting ends the stream with an AbortError. */
  signal?: AbortSignal;
}

/** What streams need of a file. */
export interface StreamSource {
  readonly path: string;
  readonly size: number;
  read(target: Uint8Array, offset: number, options?: { signal?: AbortSignal }): Promise<number>;
}

export interface StreamRange {
  start: number;
  end: number;
  step: number;
  signal: AbortSignal | undefined;
}

const STEP_BYTES = 64 * 1024;
const STEP_BYTES_MAX = 64 * 1024 * 1024;

export function checkStreamOptions(options: StreamOptions | undefined): StreamRange {
  const given = checkNames('options', options, ['start', 'end', 'step', 'signal']) as StreamOptions;
  const start = given.start === undefined ? 0 : checkBytes('options.start', given.start);
  const end = given.end === undefined ? Number.MAX_SAFE_INTEGER : checkBytes('options.end', given.end);
  const step = given.step === undefined ? STEP_BYTES : checkBytes('options.step', given.step);
  if (step === 0 || step > STEP_BYTES_MAX) throw outOfRange('options.step', `>= 1 && <= ${STEP_BYTES_MAX}`, step);
  if (end < start) throw outOfRange('options.end', `>= options.start (${start})`, end);
  return { start, end, step, signal: checkSignalOption(given.signal === undefined ? undefined : { signal: given.signal }) };
}
