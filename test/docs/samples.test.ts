/**
 * The samples of the guides run: every block of JavaScript (```js) in these guides, as it stands, in a folder with a file `data.db` of 8 MiB and the built package.
 * Where a line of a sample ends in `// ` and what it prints, that is what it prints.
 */
import { spawnSync } from 'node:child_process';
import { mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, describe, expect, it } from 'vitest';
import { Places } from '../fixtures/places.js';

const root = fileURLToPath(new URL('../../', import.meta.url));
const guides = ['page-cache-or-direct', 'windows-and-lifetimes', 'containers', 'testing-your-engine', 'worker-threads', 'moving-from'];

const lab = new Places();
afterAll(() => lab.dispose());

/** What the lines of a sample say that they print. */
function promised(code: string): string[] {
  return [...code.matchAll(/console\.log\(.*\);? \/\/ (.+)$/gm)].map((match) => match[1].trim());
}

describe.each(guides)('the guide %s', (name) => {
  const text = readFileSync(join(root, `docs/guides/${name}.md`), 'utf8');
  const samples = [...text.matchAll(/^```js\n([\s\S]*?)^```$/gm)].map((match) => match[1]);

  it('has samples', () => {
    expect(samples.length).toBeGreaterThan(0);
  });

  it.each(samples.map((code, index) => [index + 1, code] as const))(
    'has sample %i that runs as it stands, and prints what it says (needs the built project)',
    (_, code) => {
      const folder = lab.folder();
      mkdirSync(join(folder, 'node_modules'));
      symlinkSync(root, join(folder, 'node_modules/sectorwise'));
      writeFileSync(join(folder, 'data.db'), Buffer.alloc(8 << 20, 7));
      // A file, because samples with workers start themselves again.
      writeFileSync(join(folder, 'sample.mjs'), code);
      const { status, stdout, stderr } = spawnSync(process.execPath, ['sample.mjs'], { cwd: folder, encoding: 'utf8' });
      expect(stderr).toBe('');
      expect(status).toBe(0);
      const lines = stdout.split('\n');
      for (const line of promised(code)) expect(lines).toContain(line);
    },
  );
});
