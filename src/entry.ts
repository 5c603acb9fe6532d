/**
 * What `import 'sectorwise'` loads of the built package: the names. The library itself comes with the first file that is opened, so that a program pays for
 * it when it uses it; `tools/bundle.mjs` puts this beside the bundles that it names.
 *
 * Guarantees: the same names and classes as `index.ts` (test/tools/bundle.test.ts).
 */
import type * as errors from './error-classes.js';
import type * as library from './index.js';

// Bundles are CommonJS: the only modules that both `openSync` and `open` can load at any moment, also while the other's load is on its way.
// (An import of node:module takes longer: it makes an ES module of it.)
const load = process.getBuiltinModule('node:module').createRequire(import.meta.url);
const whole = (): typeof library => load('./library.cjs');

export const { FlushError, SectorwiseError, VerifyError }: typeof errors = load('./error-classes.cjs');
export const open: typeof library.open = async (...given) => whole().open(...given);
export const openSync: typeof library.openSync = (...given) => whole().openSync(...given);
