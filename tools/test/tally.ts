/**
 * The count of a test run, and its reporter: how many tests passed and failed, and which were skipped for what reason.
 *
 * Guarantees: a file that could not be run at all counts as one failure, and so does an error that escaped from every test.
 */
import type { Reporter, TestCase, TestModule } from 'vitest/node';

export interface Tally {
  passed: number;
  failed: number;
  skipped: Array<{ name: string; reason: string }>;
}

export function emptyTally(): Tally {
  return { passed: 0, failed: 0, skipped: [] };
}

export function addTally(sum: Tally, more: Tally): void {
  sum.passed += more.passed;
  sum.failed += more.failed;
  sum.skipped.push(...more.skipped);
}

/** The last line of `npm test`, and of the whole check. */
export function tallyLine(tally: Tally): string {
  return `${tally.passed} passed, ${tally.failed} failed, ${tally.skipped.length} skipped`;
}

/** Counts into `tally` while the tests run. */
export function tallyReporter(tally: Tally): Reporter {
  const failuresIn = new Map<string, number>();
  return {
    onTestCaseResult(test: TestCase) {
      const result = test.result();
      if (result.state === 'passed') {
        tally.passed++;
      } else if (result.state === 'failed') {
        tally.failed++;
        failuresIn.set(test.module.moduleId, (failuresIn.get(test.module.moduleId) ?? 0) + 1);
      }
    },
    onTestRunEnd(modules: readonly TestModule[], escaped) {
      for (const module of modules) {
        if (module.state() === 'failed' && !failuresIn.has(module.moduleId)) tally.failed++;
        // Tests of a suite that is skipped as a whole get no result of their own while running: they are asked for at the end.
        for (const test of module.children.allTests('skipped')) {
          const result = test.result();
          const note = result.state === 'skipped' ? result.note : undefined;
          tally.skipped.push({
            name: `${module.relativeModuleId} > ${test.fullName}`,
            reason: note ?? (test.options.mode === 'todo' ? 'not written yet' : 'its condition does not hold here'),
          });
        }
      }
      tally.failed += escaped.length;
    },
  };
}
