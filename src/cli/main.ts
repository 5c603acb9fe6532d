#!/usr/bin/env node
/**
 * The command `sectorwise`: which commands there are, and how it ends.
 *
 *   sectorwise align | plan | residency | extents
 *
 * Guarantees: exit code 64 for a mistake in the arguments, 4 for what the system refused, else the command's own; an error is one line on standard error.
 * A command's file is loaded when it is asked for and not before, so that checking an image loads no native code.
 * Leaves to others: everything that a command does.
 */
import { version } from '../layout/version.js';
import { type Command, nearest, parse, UsageError } from './command.js';
import { processTerminal } from './terminal.js';

const COMMANDS: Record<string, { summary: string; load(): Promise<{ command: Command }> }> = {
  align: { summary: 'is a device, image, file or directory laid out so that it can be mapped page by page', load: () => import('./align.js') },
  plan: { summary: 'an aligned layout for a disk or image: table, sfdisk script, mkfs lines', load: () => import('./plan.js') },
  residency: { summary: 'what of a file is in the page cache', load: () => import('./residency.js') },
  extents: { summary: 'where a file lies on its device', load: () => import('./extents.js') },
};

const HELP = `Usage: sectorwise <command> [options] ...

${Object.entries(COMMANDS)
  .map(([name, { summary }]) => `  ${name.padEnd(10)} ${summary}`)
  .join('\n')}

sectorwise <command> --help says more; sectorwise --version says which this is.
`;

const USAGE = 64;
const UNREADABLE = 4;
/** EX_SOFTWARE of sysexits.h: a bug is never taken for a verdict. */
const BUG = 70;

async function main(args: string[]): Promise<number> {
  const terminal = processTerminal(args.includes('--no-color'));
  try {
    const [first, ...rest] = args;
    if (first === undefined) throw new UsageError('which command? There are: ' + Object.keys(COMMANDS).join(', '));
    if (first === '--version' || first === '-V') {
      terminal.out(`${version}\n`);
      return 0;
    }
    const asked = first === 'help' ? rest[0] : first;
    if (first === '--help' || first === '-h' || asked === undefined) {
      terminal.out(HELP);
      return 0;
    }
    if (!Object.hasOwn(COMMANDS, asked)) {
      const near = nearest(asked, Object.keys(COMMANDS));
      const hint = near !== undefined ? `did you mean ${near}?` : `there are: ${Object.keys(COMMANDS).join(', ')}`;
      throw new UsageError(
        asked.startsWith('-') ? `an option before the command: ${asked}; the command comes first` : `there is no command '${asked}'; ${hint}`,
      );
    }
    const { command } = await COMMANDS[asked].load();
    const { values, operands } = first === 'help' ? { values: { help: true }, operands: [] } : parse(rest, command.options);
    if (values.help === true) {
      terminal.out(command.help);
      return 0;
    }
    return await command.run(values, operands, terminal);
  } catch (error) {
    if (error instanceof UsageError) {
      terminal.err(`sectorwise: ${error.message}\nsectorwise ${Object.hasOwn(COMMANDS, args[0]) ? `${args[0]} ` : ''}--help says how it is used.\n`);
      return USAGE;
    }
    const { code, message } = error as NodeJS.ErrnoException;
    // Whatever has a code was refused by the system or by the library; anything else is a bug, and its stack is wanted.
    if (code === undefined) {
      terminal.err(`${(error as Error).stack}\n`);
      return BUG;
    }
    terminal.err(`sectorwise: ${message}\n`);
    return UNREADABLE;
  }
}

void main(process.argv.slice(2)).then((code) => {
  process.exitCode = code;
});
