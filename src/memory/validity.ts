/**
 * Whether bytes are still the file's: one word for each 2 MiB cell of the mapping arena, then words for files and devices.
 *
 *   words   [ cell 0 | cell 1 | … | cell n-1 | word n | word n+1 | … ]     0 is valid, else one of the causes below
 *                                              claimed by files and devices
 *
 *   word of a cell   [ first page that is gone, of its 512 | cause, 8 bits ]     a page other than 0 only with CAUSE_TRUNCATE: what lies before it is still the file's
 *
 * One table for the process: written by whoever finds out (a resize, a close, a watcher, another thread's fault), read before and after a use.
 * Guarantees: a cell's word is 0 when the cell is mapped anew, a claimed word is 0 when it is handed out; a word keeps the first cause it got (`invalidate`).
 * Leaves to others: whom a cause concerns. A word speaks for a whole file, or for a cell from its first page that is gone.
 */
import { type ErrorPlace, SectorwiseError } from '../errors.js';
import { native } from '../io/native.js';

/** The bytes are the file's. */
export const CAUSE_NONE = 0;
/** The file was closed. */
export const CAUSE_CLOSE = 1;
/** The file was made shorter. */
export const CAUSE_TRUNCATE = 2;
/** The device is gone. */
export const CAUSE_UNPLUG = 3;
/** The file system was shut down under the file. */
export const CAUSE_SHUTDOWN = 4;
/** A page could not be brought in when it was touched. */
export const CAUSE_FAULT = 5;

const CAUSE_BITS = 8;
const CAUSE_MASK = (1 << CAUSE_BITS) - 1;

/** The cause that a word names. */
export function causeOf(word: number): number {
  return word & CAUSE_MASK;
}

/** The first page of the cell that is gone, 0 to 511. Only of a word that is not 0. */
export function firstDeadPage(word: number): number {
  return word >>> CAUSE_BITS;
}

/** The table as TypeScript sees it. */
export interface Validity {
  /** All words. Plain reads will do for a check: what is set meanwhile is seen by the next one. */
  readonly words: Int32Array;
  /** How many of them, from the first, belong to cells. */
  readonly cells: number;
}

let table: Validity | undefined;

/** The table of the process; reserves the arena when it is first asked for. */
export function validity(): Validity {
  if (table === undefined) {
    const { buffer, cells } = native().validity();
    table = { words: new Int32Array(buffer), cells };
  }
  return table;
}

/**
 * A word for a file or a device, valid until somebody says otherwise; its index in `words`. `freeWord` gives it back, as does the end of this thread.
 *
 * @throws SectorwiseError ERR_SECTORWISE_TOO_MANY_OPEN when all of them are in use.
 */
export function claimWord(): number {
  const index = native().claimWord();
  if (index < 0) {
    throw new SectorwiseError(
      'ERR_SECTORWISE_TOO_MANY_OPEN',
      'Every word of the validity table belongs to an open file or device. Close files that are no longer used.',
    );
  }
  return index;
}

/** Nobody may look at the word afterwards: it will mean something else. */
export function freeWord(index: number): void {
  native().freeWord(index);
}

/** Sets `cause` on `count` words from `first`, except where an earlier cause stands. One that stands for a part of a cell gives way. */
export function invalidate(first: number, count: number, cause: number): void {
  const { words } = validity();
  for (let index = first; index < first + count; index++) {
    let word = Atomics.compareExchange(words, index, CAUSE_NONE, cause);
    while (firstDeadPage(word) > 0) {
      const before = Atomics.compareExchange(words, index, word, cause);
      if (before === word) break;
      word = before;
    }
  }
}

/** Makes `count` words from `first` valid again where `cause` is what they say, of all or a part of the cell; any other cause stands. */
export function revalidate(first: number, count: number, cause: number): void {
  const { words } = validity();
  for (let index = first; index < first + count; index++) {
    let word = Atomics.load(words, index);
    while (word !== CAUSE_NONE && causeOf(word) === cause) {
      const before = Atomics.compareExchange(words, index, word, CAUSE_NONE);
      if (before === word) break;
      word = before;
    }
  }
}

/**
 * The error that a cause stands for: ERR_SECTORWISE_CLOSED, …_TRUNCATED, …_UNPLUGGED, …_SHUTDOWN or …_FAULT.
 *
 * @param cause - a CAUSE_… other than CAUSE_NONE.
 * @param place - the file and the range that is concerned.
 */
export function causeError(cause: number, place: ErrorPlace = {}): SectorwiseError {
  switch (cause) {
    case CAUSE_CLOSE:
      return new SectorwiseError('ERR_SECTORWISE_CLOSED', `${subject(place, 'The file')} was closed. Open it again, and take new windows from it.`, place);
    case CAUSE_TRUNCATE:
      return new SectorwiseError(
        'ERR_SECTORWISE_TRUNCATED',
        `${subject(place, 'The file')} was made shorter and no longer has these bytes. Ask for its size, and for a window within it.`,
        place,
      );
    case CAUSE_UNPLUG:
      return new SectorwiseError(
        'ERR_SECTORWISE_UNPLUGGED',
        `The device under ${subject(place, 'the file')} is gone. Close the file; open it again when the device is back.`,
        place,
      );
    case CAUSE_SHUTDOWN:
      return new SectorwiseError(
        'ERR_SECTORWISE_SHUTDOWN',
        `The file system of ${subject(place, 'the file')} was shut down. Close the file, repair and mount the file system, and open it again.`,
        place,
      );
    default:
      return new SectorwiseError(
        'ERR_SECTORWISE_FAULT',
        `A page of ${subject(place, 'the file')} could not be read when it was touched. Read the range with read() to learn the error of the device.`,
        place,
      );
  }
}

function subject(place: ErrorPlace, otherwise: string): string {
  return place.path === undefined ? otherwise : `'${place.path}'`;
}
