/**
 * The count of a test run, and its reporter: how many tests passed and failed, and which were skipped for what reason.
 *
 * Guarantees: a file that could not be run at all counts as one failure, and so does an error that escaped from every test; of several
 * runs only that is skipped which none of them ran.
 */
import type { Reporter, TestCase, TestModule } from 'vitest/node';

export interface Tally {
  passed: number;
  failed: number;
  /** Names of what ran, without what they say about their needs: those are in the name only where they are not met. */
  ran: string[];
  skipped: Array<{ name: string; reason: string }>;
}

export function emptyTally(): Tally {
  return { passed: 0, failed: 0, ran: [], skipped: [] };
}

export function addTally(sum: Tally, more: Tally): void {
  sum.passed += more.passed;
  sum.failed += more.failed;
  sum.ran.push(...more.ran);
  sum.skipped.push(...more.skipped);
  const ran = new Set(sum.ran);
  sum.skipped = sum.skipped.filter(({ name }) => !ran.has(withoutNeeds(name)));
}

/** The last line of `npm test`, and of the whole check. */
export function tallyLine(tally: Tally): string {
  return `${tally.passed} passed, ${tally.failed} failed, ${tally.skipped.length} skipped`;
}

/** A test or suite that depends on something says so in its name: `[skipped: needs root]`, `(needs zram)`. */
const needs = /\s*[[(](?:skipped: )?(needs [^\])]+)[\])]/;

function withoutNeeds(name: string): string {
  return name.replaceAll(new RegExp(needs, 'g'), '');
}

function nameOf(test: TestCase): string {
  return `${test.module.relativeModuleId} > ${test.fullName}`;
}

/** Counts into `tally` while the tests run. */
export function tallyReporter(tally: Tally): Reporter {
  const failuresIn = new Map<string, number>();
  return {
    onTestCaseResult(test: TestCase) {
      const result = test.result();
      if (result.state !== 'skipped') tally.ran.push(withoutNeeds(nameOf(test)));
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
            name: nameOf(test),
            reason: note ?? needs.exec(test.fullName)?.[1] ?? 'its condition does not hold here',
          });
        }
      }
      tally.failed += escaped.length;
    },
  };
}
