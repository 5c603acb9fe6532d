/** What the documents say is so. */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';

const root = join(dirname(fileURLToPath(import.meta.url)), '..', '..');

describe('the README', () => {
  it('has an example that runs as it stands (needs the built project)', () => {
    const example = /```js\n([\s\S]*?)```/.exec(readFileSync(join(root, 'README.md'), 'utf8'))?.[1] ?? '';
    const { status, stdout, stderr } = spawnSync(process.execPath, ['--input-type=module', '-e', example], { cwd: root, encoding: 'utf8' });
    expect(stderr).toBe('');
    expect(stdout).toContain('4096 bytes, the first one is 35');
    expect(status).toBe(0);
  });
});

describe('the getting-started guide', () => {
  it('has a first program that finds at each run what the one before has put (needs the built project)', () => {
    const folder = mkdtempSync(join(tmpdir(), 'sectorwise-first-'));
    try {
      for (let run = 0; run < 2; run++) {
        const { status, stdout, stderr } = spawnSync(process.execPath, [join(root, 'dist/docs/examples/first-store.js'), folder], { encoding: 'utf8' });
        expect(stderr).toBe('');
        expect(stdout).toBe(
          [`this store was opened ${run} times before`, ...['ada', 'edsger', 'grace'].map((name) => `name/${name} = run ${run + 1}`), ''].join('\n'),
        );
        expect(status).toBe(0);
      }
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
});
