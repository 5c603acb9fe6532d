/**
 * What the tour was asked for: its options, checked, with one line for each way to get them wrong.
 */
import { parseArgs } from 'node:util';
import { bytesText, parseBytes } from '../bench/format.js';

export const usage = `Usage: npm start -- [options] [file or block device]

Opens it in both modes, says what the library found out about it, reads it at
random and from front to end beside the same work by node:fs, and compares every
byte. Only reads; without a path it makes a file in the temp folder, and removes it.

  --size BYTES     how much to read, from the start (default 256M; K, M, G)
  --seconds N      end each random run after this long (default 3)
  --help           this text

Exit code: 0 if every byte matched, 1 if one did not, 2 if it could not be read.`;

/** All bytes are kept for comparison, in one buffer. */
const sizeMax = 2 * 1024 ** 3;

export interface TourArguments {
  path: string | undefined;
  size: number;
  seconds: number;
}

/** A mistake of the caller's: shown as one line, exit code 2. */
export class BadInput extends Error {}

/** Undefined if help was asked for. */
export function parseTourArguments(args: readonly string[]): TourArguments | undefined {
  let parsed: { values: { size?: string; seconds?: string; help?: boolean }; positionals: string[] };
  try {
    parsed = parseArgs({
      args: [...args],
      allowPositionals: true,
      options: { size: { type: 'string' }, seconds: { type: 'string' }, help: { type: 'boolean', short: 'h' } },
    });
  } catch (error) {
    throw new BadInput(`${(error as Error).message.split(/\.?\n|\. /)[0]}; --help lists the options`);
  }
  const { values, positionals } = parsed;
  if (values.help) return undefined;
  if (positionals.length > 1) throw new BadInput(`one file or device at a time, not ${positionals.length}: ${positionals.join(' ')}`);
  const size = values.size === undefined ? 256 * 1024 ** 2 : parseBytes(values.size);
  if (size === undefined) throw new BadInput(`--size takes bytes such as 64M or 1G, not '${values.size}'`);
  if (size > sizeMax) throw new BadInput(`--size is at most ${bytesText(sizeMax)} (all of it is kept in memory to compare with)`);
  const seconds = values.seconds === undefined ? 3 : Number(values.seconds);
  if (!(seconds > 0 && seconds <= 3600)) throw new BadInput(`--seconds takes a number above 0 and up to 3600, not '${values.seconds}'`);
  return { path: positionals[0], size, seconds };
}
