/**
 * What the lab was asked for: its options, checked, with one line for each way to get them wrong.
 */
import { parseArgs } from 'node:util';

export interface LabArguments {
  action: 'run' | 'shell' | 'list' | 'help';
  /** Scenarios to run, in the lab's own order. */
  names: string[];
  /** Power cuts. */
  cuts: number;
  /** Of the moments of the power cuts, and of what survives them. */
  seed: number;
  accelerator: 'auto' | 'tcg' | 'kvm';
  /** Leave images and logs behind. */
  keep: boolean;
}

/** A mistake of the caller's: shown as one line, exit code 2. */
export class BadInput extends Error {}

const CUTS = 20;
const CUTS_MAX = 10_000;
const accelerators = ['auto', 'tcg', 'kvm'] as const;

/** `known` are the names of all scenarios. */
export function parseLabArguments(args: readonly string[], known: readonly string[]): LabArguments {
  let parsed: ReturnType<typeof parse>;
  try {
    parsed = parse(args);
  } catch (error) {
    throw new BadInput(`${(error as Error).message.split(/\.?\n|\. /)[0]}; --help lists the options`);
  }
  const { values, positionals } = parsed;
  const cuts = wholeNumber('--cuts', values.cuts, CUTS, 1, CUTS_MAX);
  const seed = wholeNumber('--seed', values.seed, 1, 0, 2 ** 32 - 1);
  const accelerator = accelerators.find((name) => name === (values.accel ?? 'auto'));
  if (accelerator === undefined) throw new BadInput(`--accel takes ${accelerators.join(', ')}, not '${values.accel}'`);
  const common = { cuts, seed, accelerator, keep: values.keep ?? false };
  if (values.help) return { action: 'help', names: [], ...common };
  if (values.list) return { action: 'list', names: [], ...common };
  if (positionals.includes('shell')) {
    if (positionals.length > 1) throw new BadInput("'shell' stands alone");
    return { action: 'shell', names: [], ...common };
  }
  const unknown = positionals.filter((name) => !known.includes(name));
  if (unknown.length > 0) throw new BadInput(`no scenario '${unknown[0]}'; --list lists them`);
  return { action: 'run', names: positionals.length === 0 ? [...known] : known.filter((name) => positionals.includes(name)), ...common };
}

function parse(args: readonly string[]) {
  return parseArgs({
    args: [...args],
    allowPositionals: true,
    options: {
      list: { type: 'boolean' },
      cuts: { type: 'string' },
      seed: { type: 'string' },
      accel: { type: 'string' },
      keep: { type: 'boolean' },
      help: { type: 'boolean', short: 'h' },
    },
  });
}

function wholeNumber(name: string, text: string | undefined, otherwise: number, least: number, most: number): number {
  if (text === undefined) return otherwise;
  const value = Number(text);
  if (!Number.isInteger(value) || value < least || value > most || text.trim() === '')
    throw new BadInput(`${name} takes a whole number from ${least} to ${most}, not '${text}'`);
  return value;
}
