/**
 * Files of a tarball that do not belong together: `dist` is never cleaned, so that a declaration outlives its source there, and is packed.
 *
 * Paths are those of the tarball, relative to the package. Leaves to others: packing and what to do about it (`check-package.ts`).
 */
import { posix } from 'node:path';

/** Declarations, and their maps, whose source is not among the files: `dist/src/a.d.ts` comes from `src/a.ts`. */
export function staleDeclarations(paths: readonly string[]): string[] {
  const there = new Set(paths);
  return paths.filter((path) => {
    const source = /^dist\/(src\/.+)\.d\.ts(\.map)?$/.exec(path)?.[1];
    return source !== undefined && !there.has(`${source}.ts`);
  });
}

/** Maps that name sources which are not among the files: `map -> source` for each. `sourcesOf` answers with what a map names, relative to its own folder. */
export function mapsWithoutSource(paths: readonly string[], sourcesOf: (map: string) => readonly string[]): string[] {
  const there = new Set(paths);
  return paths
    .filter((path) => path.endsWith('.map'))
    .flatMap((map) =>
      sourcesOf(map)
        .map((source) => posix.join(posix.dirname(map), source))
        .filter((source) => !there.has(source))
        .map((source) => `${map} -> ${source}`),
    );
}
