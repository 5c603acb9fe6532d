/**
 * What of the file is in the page cache, as one strip of characters.
 *
 *     as found        ████████▓░······   one character for each range of the file
 *
 * Guarantees: reads nothing; what is drawn is what the kernel counted.
 */
import type { BlockFile } from '../../src/index.js';
import { bytesText } from '../bench/format.js';
import type { Screen } from './screen.js';

const page = 4096;
const labelColumns = 17;
const tailColumns = 6;

export interface Strip {
  /** Bytes of one character. */
  rangeBytes: number;
  ranges: number;
}

export function stripOf(size: number, columns: number): Strip {
  const pages = Math.max(1, Math.ceil(size / page));
  const pagesEach = Math.ceil(pages / Math.max(8, Math.min(56, columns - labelColumns - tailColumns)));
  return { rangeBytes: pagesEach * page, ranges: Math.ceil(pages / pagesEach) };
}

/** The strip as it is now, with its label before it and per cent behind it. */
export function stripLine(screen: Screen, label: string, file: BlockFile, size: number, { rangeBytes }: Strip): string {
  const [all, most, some, none] = signs(screen);
  let strip = '';
  let pages = 0;
  let cached = 0;
  for (let offset = 0; offset < size; offset += rangeBytes) {
    const range = file.residency(offset, Math.min(rangeBytes, size - offset));
    pages += range.pages;
    cached += range.cached;
    strip += range.cached === 0 ? none : range.cached >= range.pages ? all : range.cached * 2 >= range.pages ? most : some;
  }
  return `  ${label.padEnd(labelColumns - 2)}${strip}${percentText(cached, pages)}`;
}

function percentText(cached: number, pages: number): string {
  const percent = Math.round((100 * cached) / Math.max(1, pages));
  // Neither something nor nearly everything is rounded away.
  return `${cached > 0 && percent === 0 ? '<1' : cached < pages && percent === 100 ? 99 : percent} %`.padStart(tailColumns);
}

export function stripLegend(screen: Screen, { rangeBytes }: Strip): string {
  const [all, most, some, none] = signs(screen);
  return `  ${all} all in memory  ${most} half or more  ${some} less  ${none} nothing; one character: ${bytesText(rangeBytes)}`;
}

function signs(screen: Screen): readonly [string, string, string, string] {
  return screen.unicode ? ['█', '▓', '░', '·'] : ['#', '+', '-', '.'];
}
