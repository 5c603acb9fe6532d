/**
 * A file system whose behaviour a test switches while it is in use: reads that are late, fail or never end, files that change behind the kernel's back, a server that goes away.
 *
 *   test process ── questions ─> server process ── /dev/fuse ─> kernel ─> whoever reads the files
 *
 * Guarantees: the test's process never touches the mount itself, so nothing here hangs with the server; `dispose` aborts first, which ends every
 * wait inside the kernel, and detaches the mount even if it is in use.
 * Leaves to others: what is served and how (`fuse/server.ts`). Whoever reads a hung file is not in this process: see program.ts.
 */
import { execFileSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll } from 'vitest';
import { hasCommand, isRoot } from '../geometry/loop-devices.js';
import type { Behaviour, Counts, ServerOptions } from './fuse/behaviour.js';
import { Program } from './program.js';

/** Why a FUSE server cannot be had here; undefined where it can. */
export const noFuse = !isRoot
  ? 'needs root'
  : !existsSync('/dev/fuse') || !/\bfuse$/m.test(readFileSync('/proc/filesystems', 'utf8'))
    ? 'needs FUSE in the kernel'
    : !hasCommand('mount')
      ? 'needs mount'
      : undefined;

const started = new Set<FuseServer>();
afterAll(() => {
  for (const server of [...started]) server.dispose();
});

export class FuseServer {
  /** Where it is mounted. */
  readonly folder: string;
  readonly #program: Program;
  #connection = -1;
  #mounted = false;

  private constructor(folder: string, program: Program) {
    this.folder = folder;
    this.#program = program;
  }

  static async start(options: ServerOptions): Promise<FuseServer> {
    const folder = mkdtempSync(join(tmpdir(), 'sectorwise-fuse-'));
    const server = new FuseServer(folder, await Program.start('test/rigs/fuse/server', [folder]));
    started.add(server);
    try {
      server.#mounted = true;
      server.#connection = await server.#program.ask<number>('start', options);
      return server;
    } catch (error) {
      server.dispose();
      throw error;
    }
  }

  path(name: string): string {
    return join(this.folder, name);
  }

  /** From now on, with everything that is not named as it normally is. */
  behave(behaviour: Partial<Behaviour>): Promise<void> {
    return this.#program.ask('behave', behaviour);
  }

  /** Behind the kernel's back: it learns of it when it asks (see `validMs`). */
  resize(name: string, size: number): Promise<void> {
    return this.#program.ask('resize', name, size);
  }

  /** Takes pages out of the page cache, from under mappings too; length 0 is up to the end. The next access asks the server. */
  forget(name: string, offset: number, length: number): Promise<void> {
    return this.#program.ask('forget', name, offset, length);
  }

  /** What the server has: what was written arrives here. */
  content(name: string, offset: number, length: number): Promise<Uint8Array> {
    return this.#program.ask('content', name, offset, length);
  }

  counts(): Promise<Counts> {
    return this.#program.ask('counts');
  }

  /** Ends the connection: who waits gets ECONNABORTED, who asks ENOTCONN. The mount stays. */
  abort(): void {
    // fusectl is rarely mounted where it belongs; any place will do.
    const control = mkdtempSync(join(tmpdir(), 'sectorwise-fusectl-'));
    try {
      execFileSync('mount', ['-t', 'fusectl', 'none', control], { stdio: ['ignore', 'ignore', 'pipe'] });
      try {
        writeFileSync(join(control, String(this.#connection), 'abort'), '1');
      } catch (error) {
        // Without an entry there is no connection (any more).
        if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
      } finally {
        execFileSync('umount', ['-i', control], { stdio: ['ignore', 'ignore', 'pipe'] });
      }
    } finally {
      rmdirSync(control);
    }
  }

  /** As a user does; throws while it is in use. */
  unmount(): void {
    execFileSync('umount', ['-i', '-c', this.folder], { stdio: ['ignore', 'ignore', 'pipe'] });
    this.#mounted = false;
  }

  /** The server's process dies at once. */
  kill(): void {
    this.#program.kill();
  }

  /** Never waits for anybody, and never throws. */
  dispose(): void {
    started.delete(this);
    const quietly = (act: () => void): void => {
      try {
        act();
      } catch {}
    };
    if (this.#mounted && this.#connection >= 0) quietly(() => this.abort());
    if (this.#mounted) quietly(() => execFileSync('umount', ['-i', '-c', '-l', this.folder], { stdio: 'ignore' }));
    this.#mounted = false;
    this.#program.kill();
    quietly(() => rmdirSync(this.folder));
  }
}
