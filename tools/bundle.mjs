/**
 * Makes what users load, `dist/lib`, of `src`: a few files instead of a hundred, since Node.js takes about a millisecond for each.
 *
 *   src ──rolldown──> *.cjs, which share their common parts ──> *.js: the same names as ES modules
 *
 * Guarantees: one copy of each class, whichever entries a program imports; names and lines as in the sources, without comments, with source maps.
 * Leaves to others: the declarations (`tsc`), when to run (`build.mjs`). Plain JavaScript, since nothing is built yet.
 */
import { rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { rolldown } from 'rolldown';

const root = fileURLToPath(new URL('..', import.meta.url));
const lib = join(root, 'dist', 'lib');

/** Of the bundles, by their names: the source that each begins with. */
const bundles = {
  'error-classes': 'src/error-classes.ts',
  library: 'src/index.ts',
  testing: 'src/testing/index.ts',
  layout: 'src/layout/index.ts',
  'mmap-io': 'src/mmap-io/index.ts',
  'random-access': 'src/random-access/index.ts',
  cli: 'src/cli/main.ts',
};
/** What importing the package loads of them is one file. */
const groups = [{ name: 'errors', test: /src\/(errors|requests\/verify-error|windows\/flush-failed)\.ts$/ }];
/** Those that users import as they are, under the same name with `.js`. */
const modules = ['testing', 'layout', 'mmap-io', 'random-access'];

const common = {
  cwd: root,
  platform: 'node',
  // Dependencies stay what npm installs.
  external: /^[^./]/,
  resolve: { extensionAlias: { '.js': ['.ts'] } },
  transform: { target: 'es2022' },
  onLog: (level, log) => {
    if (level === 'warn') throw new Error(log.message);
  },
};

async function bundle(input, output) {
  const made = await rolldown({ ...common, ...input });
  const written = await made.write({ dir: lib, sourcemap: true, comments: false, ...output });
  await made.close();
  for (const { fileName, source } of written.output.filter(({ fileName }) => fileName.endsWith('.map'))) {
    // The sources are in the package, beside the bundles.
    writeFileSync(join(lib, fileName), JSON.stringify({ ...JSON.parse(source), sourcesContent: undefined }));
  }
  return written.output;
}

rmSync(lib, { recursive: true, force: true });
const chunks = await bundle(
  { input: bundles },
  { format: 'cjs', exports: 'named', entryFileNames: '[name].cjs', chunkFileNames: '[name].cjs', codeSplitting: { groups } },
);
await bundle({ input: { index: 'src/entry.ts' } }, { format: 'esm' });
for (const { name, exports } of chunks) {
  if (!modules.includes(name)) continue;
  const named = exports.filter((each) => each !== 'default').sort();
  writeFileSync(
    join(lib, `${name}.js`),
    [
      // An import of node:module takes longer: it makes an ES module of it.
      `const made = process.getBuiltinModule('node:module').createRequire(import.meta.url)('./${name}.cjs');`,
      ...(named.length > 0 ? [`export const { ${named.join(', ')} } = made;`] : []),
      ...(exports.includes('default') ? ['export default made.default;'] : []),
      '',
    ].join('\n'),
  );
}
