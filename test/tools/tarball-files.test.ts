/** What the check of the package finds in a tarball whose files do not belong together. */
import { describe, expect, it } from 'vitest';
import { mapsWithoutSource, staleDeclarations } from '../../tools/release/tarball-files.js';

const paths = [
  'package.json',
  'src/index.ts',
  'src/io/ring.ts',
  'dist/src/index.d.ts',
  'dist/src/index.d.ts.map',
  'dist/src/io/ring.d.ts',
  'dist/lib/index.js',
  'dist/lib/index.js.map',
];

describe('the files of a tarball', () => {
  it('have no declaration that outlived its source', () => {
    expect(staleDeclarations(paths)).toEqual([]);
    const more = [...paths, 'dist/src/io/old.d.ts', 'dist/src/io/old.d.ts.map', 'dist/src/ring.d.ts'];
    expect(staleDeclarations(more)).toEqual(['dist/src/io/old.d.ts', 'dist/src/io/old.d.ts.map', 'dist/src/ring.d.ts']);
  });

  it('have maps that lead to files of the tarball', () => {
    const sources: Record<string, string[]> = {
      'dist/src/index.d.ts.map': ['../../src/index.ts'],
      'dist/lib/index.js.map': ['../../src/index.ts', '../../src/io/ring.ts'],
    };
    expect(mapsWithoutSource(paths, (map) => sources[map])).toEqual([]);
    sources['dist/lib/index.js.map'].push('../../src/io/gone.ts', '../../node_modules/sorted-btree/b+tree.js');
    expect(mapsWithoutSource(paths, (map) => sources[map])).toEqual([
      'dist/lib/index.js.map -> src/io/gone.ts',
      'dist/lib/index.js.map -> node_modules/sorted-btree/b+tree.js',
    ]);
  });
});
