/**
 * How tests run: each file in a process of its own, since the addon keeps state for the process. `npm test` (tools/test.ts) says with which engine.
 */
import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    pool: 'forks',
    // A default import of a CommonJS package is what Node makes of it, not what bundlers do.
    deps: { interopDefault: false },
    // Real devices and thousands of simulated runs: a test that hangs still ends, a slow machine does not fail.
    testTimeout: 120_000,
    hookTimeout: 60_000,
    coverage: { include: ['src/**'], reporter: ['text', 'html'] },
  },
});
