/** What the documents say is so. */
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
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
