/**
 * Where the tour writes: plain lines, and on a terminal one block of lines that is drawn in place.
 *
 * Guarantees: without a terminal (or with TERM=dumb) no escape code is written, with NO_COLOR no colour; a frame is one write, no wider and no higher than the terminal, and
 * at most ten come in a second; the cursor, hidden while a block is live, comes back however the process ends short of SIGKILL. Whoever draws does so between
 * measurements: writing to a terminal is synchronous.
 */

import { processTerminal, type Terminal } from '../../src/cli/terminal.js';
import { LINE_COLUMNS, wrap } from '../bench/format.js';

const frameMs = 100;
/** Control sequences (ECMA-48 §8.3; hiding the cursor is DEC's): the cursor so many lines up, erase to the end of the line, erase what is below. */
const up = (lines: number): string => `\x1b[${lines}A\r`;
const eraseLine = '\x1b[K';
const eraseBelow = '\x1b[J';
const hideCursor = '\x1b[?25l';
const showCursor = '\x1b[?25h';

export class Screen {
  /** What is drawn moves. */
  readonly live: boolean;
  /** The terminal shows more than ASCII; without a word about it in the locale it is not tried. */
  readonly unicode: boolean;
  readonly #terminal: Terminal;
  readonly #output: NodeJS.WriteStream;
  /** Lines of the block above the cursor. */
  #drawn = 0;
  #open = false;
  #frameAt = Number.NEGATIVE_INFINITY;

  constructor(output: NodeJS.WriteStream, env: NodeJS.ProcessEnv) {
    this.#output = output;
    this.#terminal = processTerminal(false);
    this.live = output.isTTY === true && env.TERM !== 'dumb';
    this.unicode = /utf-?8/i.test(env.LC_ALL || env.LC_CTYPE || env.LANG || '');
    if (!this.live) return;
    process.on('exit', () => this.keep());
    // The lines of the last frame are elsewhere now: the next begins below them.
    output.on('resize', () => {
      this.#drawn = 0;
    });
    process.on('SIGTSTP', () => {
      this.keep();
      process.kill(process.pid, 'SIGSTOP');
    });
  }

  /** Columns of what is printed: 80, or less on a narrower terminal. */
  get columns(): number {
    return Math.min(LINE_COLUMNS, this.live ? this.#output.columns || LINE_COLUMNS : LINE_COLUMNS);
  }

  /** Lines as they are. */
  say(...lines: string[]): void {
    this.drop();
    this.#terminal.out(`${lines.join('\n')}\n`);
  }

  /** Text, broken at spaces; lines after the first begin with `indent` spaces. */
  tell(text: string, indent = 0): void {
    this.say(...wrap(text, indent, this.columns));
  }

  heading(text: string): void {
    this.say('', this.#terminal.paint('bold', text));
  }

  bold(text: string): string {
    return this.#terminal.paint('bold', text);
  }

  /** Draws the block, in place of the one before. Frames that come too soon are left out, except a `last` one. */
  draw(lines: readonly string[], last = false): void {
    if (!this.live) return;
    const now = performance.now();
    if (!last && now - this.#frameAt < frameMs) return;
    this.#frameAt = now;
    // A character in the last column would leave the cursor between two lines.
    const width = (this.#output.columns || LINE_COLUMNS) - 1;
    const fitting = lines.slice(0, Math.max(1, (this.#output.rows || 24) - 1));
    let frame = this.#open ? '' : hideCursor;
    if (this.#drawn > 0) frame += up(this.#drawn);
    for (const line of fitting) frame += `${this.#coloured(line.slice(0, width))}${eraseLine}\n`;
    this.#drawn = fitting.length;
    this.#open = true;
    this.#output.write(frame + eraseBelow);
  }

  /** The block stays as it is, and what comes next is below it. */
  keep(): void {
    if (this.#open) this.#output.write(showCursor);
    this.#open = false;
    this.#drawn = 0;
  }

  /** The block vanishes. */
  drop(): void {
    if (this.#open) this.#output.write((this.#drawn > 0 ? up(this.#drawn) : '') + eraseBelow + showCursor);
    this.#open = false;
    this.#drawn = 0;
  }

  /** Bars and pictures stand out. */
  #coloured(line: string): string {
    return line.replace(/█+|=+/g, (bar) => this.#terminal.paint('info', bar));
  }
}

/** A bar of `width` characters for a fraction from 0 to 1. */
export function barText(screen: Screen, fraction: number, width: number): string {
  const full = Math.round(Math.min(1, Math.max(0, fraction)) * width);
  return (screen.unicode ? '█' : '=').repeat(full) + ' '.repeat(width - full);
}

/** One bar with what it is for; without a terminal nothing. */
export function progressOf(screen: Screen, name: string): (fraction: number) => void {
  return (fraction) => screen.draw([`  ${name.padEnd(34)} ${barText(screen, fraction, 32)} ${`${Math.floor(fraction * 100)}%`.padStart(4)}`]);
}
