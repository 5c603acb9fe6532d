/**
 * The sources as JavaScript, for programs that a test runs in processes and worker threads of their own: as they are now, not as they were last built.
 *
 *   <temp folder>/src, /test/rigs, /test/faults, /docs/examples   emitted file by file, types only stripped
 *   <temp folder>/build, /node_modules                             links to the checkout's
 *
 * Guarantees: nothing is written into the checkout (the user of a run may only be allowed to read it); the folder is removed when the tests of the file that asked end.
 * Leaves to others: types (`npm run typecheck`), the native part (taken as it is built).
 */
import { copyFileSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { transformWithOxc } from 'vite';
import { afterAll } from 'vitest';

const root = fileURLToPath(new URL('../../', import.meta.url));
const folders = ['src', 'test/rigs', 'test/faults', 'docs/examples'];

let made: Promise<string> | undefined;
let target: string | undefined;
afterAll(() => {
  if (target !== undefined) rmSync(target, { recursive: true, force: true });
});

/** The folder of the emitted package; made when it is first asked for. */
export function emitted(): Promise<string> {
  made ??= emit();
  return made;
}

async function emit(): Promise<string> {
  const folder = mkdtempSync(join(tmpdir(), 'sectorwise-emitted-'));
  target = folder;
  copyFileSync(join(root, 'package.json'), join(folder, 'package.json'));
  for (const link of ['build', 'node_modules']) symlinkSync(join(root, link), join(folder, link));
  for (const from of folders) await emitFolder(from, folder);
  return folder;
}

async function emitFolder(folder: string, target: string): Promise<void> {
  mkdirSync(join(target, folder), { recursive: true });
  for (const entry of readdirSync(join(root, folder), { withFileTypes: true })) {
    const path = join(folder, entry.name);
    if (entry.isDirectory()) {
      await emitFolder(path, target);
    } else if (entry.name.endsWith('.ts') && !entry.name.endsWith('.test.ts')) {
      const { code, map } = await transformWithOxc(readFileSync(join(root, path), 'utf8'), join(root, path), { sourcemap: true, target: 'es2022' });
      // The stack of a failure in a child names lines of the sources.
      const inline = Buffer.from(JSON.stringify(map)).toString('base64');
      const to = join(target, dirname(path), entry.name.replace(/\.ts$/, '.js'));
      writeFileSync(to, `${code}\n//# sourceMappingURL=data:application/json;base64,${inline}\n`);
    }
  }
}
