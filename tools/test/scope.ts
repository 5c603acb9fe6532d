/**
 * Which test files need not be in every run of `npm test`.
 *
 *   pure          asks no kernel anything                                          once, by anybody
 *   once          neither engine nor rights matter, but some of it needs root       once, by root where there is one
 *   engineless    rights matter, no engine does, or the file takes each by itself   once for each user
 *   all others                                                                     for each user with each engine
 *
 * Paths are folders, with all that is in them, or files.
 */
import { existsSync } from 'node:fs';
import { join } from 'node:path';

export const pure = [
  'test/requests',
  'test/simulation',
  'test/testing',
  'test/file/loss.test.ts',
  'test/guides/pagestore.test.ts',
  'test/guides/testing.test.ts',
  'test/io/libc.test.ts',
  'test/layout/file-pages.test.ts',
  'test/layout/fuzz.test.ts',
  'test/layout/plan.test.ts',
  'test/layout/rules.test.ts',
  'test/layout/source.test.ts',
  'test/layout/table.test.ts',
  'test/layout/volumes.test.ts',
  'test/memory/block-table.test.ts',
  'test/memory/cell-use.test.ts',
  'test/memory/fill-store.test.ts',
  'test/memory/frame-cache.test.ts',
  'test/memory/page-locks.test.ts',
  'test/windows/batch.test.ts',
  'test/windows/cuts.test.ts',
  'test/windows/window.test.ts',
  'test/windows/window-iterator.test.ts',
];

export const once = [
  'test/tools',
  'test/docs',
  'test/errors/codes.test.ts',
  'test/errors/elsewhere.test.ts',
  'test/faults/guide.test.ts',
  'test/guides/containers.test.ts',
  'test/layout/check.test.ts',
  'test/layout/image-files.test.ts',
  'test/layout/plan-mkfs.test.ts',
  'test/layout/plan-tools.test.ts',
  'test/layout/plan-write.test.ts',
  'test/layout/table-images.test.ts',
  'test/layout/volumes-images.test.ts',
  'test/mmap-io/like-mmap-io.test.ts',
  'test/random-access/like-random-access-file.test.ts',
];

export const engineless = [
  'test/cli',
  'test/geometry',
  'test/rigs',
  'test/unplug',
  'test/errors/form.test.ts',
  'test/options/options.test.ts',
  'test/memory/guard.test.ts',
  'test/memory/mapping.test.ts',
  'test/memory/residency.test.ts',
  'test/memory/slab.test.ts',
  'test/memory/validity.test.ts',
  'test/mmap-io/mmap-io.test.ts',
  // With each engine by themselves.
  'test/file/idle.test.ts',
  'test/file/read-ahead.test.ts',
  'test/io',
];

/** What of these is not in the project: moved, or misspelt, so that it runs more often than it says here. */
export function missingFrom(root: string): string[] {
  return [...pure, ...once, ...engineless].filter((path) => !existsSync(join(root, path)));
}
