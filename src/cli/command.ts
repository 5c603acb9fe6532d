/**
 * What a command of the command line is made of, and how its arguments are read.
 *
 * Guarantees: a mistake of the caller is a `UsageError`, which `main.ts` shows as one or two lines and ends with exit code 64; nothing was read or written by then.
 * Leaves to others: which commands there are (`main.ts`).
 */
import { type ParseArgsConfig, parseArgs } from 'node:util';
import type { ExitCode } from '../layout/model.js';
import { parseSize } from './sizes.js';
import type { Terminal } from './terminal.js';

/** A mistake in the arguments. */
export class UsageError extends Error {
  override readonly name = 'UsageError';
}

export type Options = NonNullable<ParseArgsConfig['options']>;
export type Values = Record<string, string | boolean | Array<string | boolean> | undefined>;

/** One command, in a file of its own that is only loaded when it is asked for. */
export interface Command {
  readonly help: string;
  readonly options: Options;
  run(values: Values, operands: string[], terminal: Terminal): Promise<ExitCode>;
}

const COMMON: Options = { help: { type: 'boolean', short: 'h' }, 'no-color': { type: 'boolean' } };

/** Options and operands. @throws UsageError for what is not known, naming what is. */
export function parse(args: readonly string[], options: Options): { values: Values; operands: string[] } {
  const known = { ...options, ...COMMON };
  try {
    const { values, positionals } = parseArgs({ args: [...args], options: known, allowPositionals: true, strict: true });
    return { values: values as Values, operands: positionals };
  } catch (error) {
    const { code, message } = error as Error & { code?: string };
    if (code === 'ERR_PARSE_ARGS_UNKNOWN_OPTION') {
      const given = /'(-[^']*)'/.exec(message)?.[1] ?? '';
      const near = nearest(given.replace(/^-+/, ''), Object.keys(known));
      throw new UsageError(`there is no option ${given}${near === undefined ? '' : `; did you mean --${near}?`}`);
    }
    throw new UsageError(
      message
        .split('\n')[0]
        .replace(/\.$/, '')
        .replace(/^Option /, 'option '),
    );
  }
}

/** The one of `names` that `word` is a misspelling of: at most two letters off, and not most of it. */
export function nearest(word: string, names: readonly string[]): string | undefined {
  let best: string | undefined;
  let least = Math.min(3, Math.max(2, Math.ceil(word.length / 2)));
  for (const name of names) {
    const steps = distance(word, name);
    if (steps < least) [best, least] = [name, steps];
  }
  return best;
}

/** Letters left out, put in, changed or swapped with their neighbour (optimal string alignment). */
function distance(a: string, b: string): number {
  if (Math.abs(a.length - b.length) > 3) return 4;
  let before: number[] = [];
  let row = Array.from({ length: b.length + 1 }, (_, index) => index);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      const same = a[i - 1] === b[j - 1];
      let least = Math.min(next[j - 1] + 1, row[j] + 1, row[j - 1] + (same ? 0 : 1));
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]) least = Math.min(least, before[j - 2] + 1);
      next.push(least);
    }
    [before, row] = [row, next];
  }
  return row[b.length];
}

/** A text option that was given at most once. */
export function textOf(values: Values, name: string): string | undefined {
  const value = values[name];
  if (value === '') throw new UsageError(`--${name} must not be empty`);
  return typeof value === 'string' ? value : undefined;
}

/** A size option in bytes. */
export function sizeOf(values: Values, name: string): bigint | undefined {
  const text = textOf(values, name);
  if (text === undefined) return undefined;
  const bytes = parseSize(text);
  if (bytes === undefined || bytes === 0n) throw new UsageError(`--${name} takes bytes such as 512M, 64G or 4096, not '${text}'`);
  return bytes;
}

/** A sector size. */
export function sectorSizeOf(values: Values, name: string): number | undefined {
  const bytes = sizeOf(values, name);
  if (bytes === undefined) return undefined;
  if (![512n, 1024n, 2048n, 4096n].includes(bytes)) throw new UsageError(`--${name} is 512, 1024, 2048 or 4096, not ${bytes}`);
  return Number(bytes);
}

/** A power of two between `least` and `most`. */
export function powerOfTwo(text: string, name: string, least: number, most: number): number {
  const bytes = parseSize(text);
  if (bytes === undefined || bytes < BigInt(least) || bytes > BigInt(most) || (bytes & (bytes - 1n)) !== 0n) {
    throw new UsageError(`--${name} takes powers of two from ${least} to ${most}, not '${text}'`);
  }
  return Number(bytes);
}
