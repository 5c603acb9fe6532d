/** Which binary of the package is looked for: that of the C library which this Node.js runs on. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { libcOf } from '../../src/io/libc.js';

const folder = mkdtempSync(join(tmpdir(), 'sectorwise-libc-'));
afterAll(() => rmSync(folder, { recursive: true }));

/** The head of a program as linkers make it: headers, then the interpreter's name, then everything else. */
function program(interpreter: string): string {
  const path = join(folder, 'program');
  writeFileSync(path, Buffer.concat([Buffer.from('\x7fELF'), Buffer.alloc(0x314), Buffer.from(`${interpreter}\0`), Buffer.alloc(100_000)]));
  return path;
}

describe('the C library of a program', () => {
  it('is the one whose linker it names, whatever else is installed on the machine', () => {
    expect(libcOf(program('/lib/ld-musl-x86_64.so.1'))).toBe('musl');
    expect(libcOf(program('/lib/ld-musl-aarch64.so.1'))).toBe('musl');
    expect(libcOf(program('/lib64/ld-linux-x86-64.so.2'))).toBe('glibc');
  });

  it('is that of this Node.js', () => {
    const { header } = process.report.getReport() as unknown as { header: { glibcVersionRuntime?: string } };
    expect(libcOf(process.execPath)).toBe(header.glibcVersionRuntime === undefined ? 'musl' : 'glibc');
  });

  it('is taken for glibc where the program cannot be read or is empty', () => {
    const empty = join(folder, 'empty');
    writeFileSync(empty, '');
    expect(libcOf(empty)).toBe('glibc');
    expect(libcOf(join(folder, 'missing'))).toBe('glibc');
  });
});
