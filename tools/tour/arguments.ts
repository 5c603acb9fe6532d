/**
 * What the tour was asked for: its options, checked, with one line for each way to get them wrong.
 */
import { parseArgs } from 'node:util';
import { bytesText, parseBytes } from '../bench/format.js';

export const usage = `Usage: npm start -- [options] [file or block device]

A look at it through the library, in about half a minute: its geometry, what of
it is in memory, reads racing those of node:fs, and every byte compared with
node:fs. Only reads; without a path it makes a file in the temp folder, and
removes it. A second file of its own there is cut under a window.

  --size BYTES     how much to read, from the start (default 256M; K, M, G)
  --seconds N      how long each contender of a race reads, in all (default 2)
  --explain        all that the library says about the kernel's features
  --help           this text

Exit code: 0 if every byte matched, 1 if one did not, 2 if it could not be read.`;

/** Beyond this the tour is long rather than telling. */
const sizeMax = 16 * 1024 ** 3;

export interface TourArguments {
  path: string | undefined;
  size: number;
  seconds: number;
  explain: boolean;
}

/** A mistake of the caller's: shown as one line, exit code 2. */
export class BadInput extends Error {}

/** Undefined if help was asked for. */
export function parseTourArguments(args: readonly string[]): TourArguments | undefined {
  let parsed: { values: { size?: string; seconds?: string; explain?: boolean; help?: boolean }; positionals: string[] };
  try {
    parsed = parseArgs({
      args: [...args],
      allowPositionals: true,
      options: { size: { type: 'string' }, seconds: { type: 'string' }, explain: { type: 'boolean' }, help: { type: 'boolean', short: 'h' } },
    });
  } catch (error) {
    throw new BadInput(`${(error as Error).message.split(/\.?\n|\. /)[0]}; --help lists the options`);
  }
  const { values, positionals } = parsed;
  if (values.help) return undefined;
  if (positionals.length > 1) throw new BadInput(`one file or device at a time, not ${positionals.length}: ${positionals.join(' ')}`);
  const size = values.size === undefined ? 256 * 1024 ** 2 : parseBytes(values.size);
  if (size === undefined) throw new BadInput(`--size takes bytes such as 64M or 1G, not '${values.size}'`);
  if (size > sizeMax) throw new BadInput(`--size is at most ${bytesText(sizeMax)}`);
  const seconds = values.seconds === undefined ? 2 : Number(values.seconds);
  if (!(seconds > 0 && seconds <= 3600)) throw new BadInput(`--seconds takes a number above 0 and up to 3600, not '${values.seconds}'`);
  return { path: positionals[0], size, seconds, explain: values.explain === true };
}
