/**
 * Which C library this Node.js runs on: a binary for one does not load on the other.
 *
 * Guarantees: asks the running program and not the file system, where a linker of the other kind may lie as well (Debian's package `musl`, Alpine's `gcompat`). Never throws.
 */
import { closeSync, openSync, readSync } from 'node:fs';

export type Libc = 'glibc' | 'musl';

/** The program's interpreter stands behind the headers at its beginning (ELF, PT_INTERP). */
const headBytes = 4096;

/** By the dynamic linker that the program names: asking `process.report` takes tens of milliseconds. */
export function libcOf(program: string): Libc {
  const head = Buffer.alloc(headBytes);
  try {
    const fd = openSync(program, 'r');
    try {
      readSync(fd, head, 0, headBytes, 0);
    } finally {
      closeSync(fd);
    }
  } catch {
    // A program that may be run and not read.
  }
  return head.includes('/ld-musl-') ? 'musl' : 'glibc';
}
