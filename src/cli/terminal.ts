/**
 * Where the command writes: how wide that is, whether it has colours, and what happens when nobody reads any more.
 *
 * Guarantees: colours only on a terminal, and there not if NO_COLOR is set (https://no-color.org) or `--no-color` is given; a reader that goes away (`| head`) ends the
 * process quietly, with the exit code known by then.
 */

export type Colour = 'error' | 'warning' | 'info' | 'good' | 'dim' | 'bold';

/** Select Graphic Rendition (ECMA-48 §8.3.117). */
const CODES: Record<Colour, string> = { error: '31', warning: '33', info: '36', good: '32', dim: '2', bold: '1' };

const COLUMNS_DEFAULT = 80;
const COLUMNS_MIN = 40;
const COLUMNS_MAX = 240;

export interface Terminal {
  out(text: string): void;
  err(text: string): void;
  /** Characters in a line: the terminal's, or COLUMNS, or 80. */
  readonly columns: number;
  paint(colour: Colour, text: string): string;
}

/** The process's own streams. */
export function processTerminal(colourRefused: boolean): Terminal {
  const { stdout, stderr, env } = process;
  for (const stream of [stdout, stderr]) {
    stream.on('error', (error: NodeJS.ErrnoException) => {
      if (error.code === 'EPIPE') process.exit(process.exitCode ?? 0);
      throw error;
    });
  }
  const coloured = stdout.isTTY === true && !colourRefused && !env.NO_COLOR && env.TERM !== 'dumb';
  return {
    out: (text) => void stdout.write(text),
    err: (text) => void stderr.write(text),
    columns: columnsOf(stdout.isTTY ? stdout.columns : undefined, env.COLUMNS),
    paint: (colour, text) => (coloured ? `\x1b[${CODES[colour]}m${text}\x1b[0m` : text),
  };
}

function columnsOf(width: number | undefined, variable: string | undefined): number {
  const told = width !== undefined && width > 0 ? width : /^\d{1,4}$/.test(variable ?? '') ? Number(variable) : COLUMNS_DEFAULT;
  return Math.min(COLUMNS_MAX, Math.max(COLUMNS_MIN, told));
}

/** A text that came from a medium or a file name, safe to show: control characters would drive the terminal. */
export function shown(text: string): string {
  return text.replace(/[\p{Cc}\p{Cf}\u2028\u2029]/gu, (character) => `\\u{${character.codePointAt(0)?.toString(16)}}`);
}
