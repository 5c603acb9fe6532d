/** The guide of errors against the source: each code that can be thrown is explained, and none that cannot. */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';

const root = fileURLToPath(new URL('../../', import.meta.url));
const guide = readFileSync(join(root, 'docs/guides/errors.md'), 'utf8');

function sources(folder: string): string[] {
  return readdirSync(folder, { withFileTypes: true }).flatMap((entry) => {
    const path = join(folder, entry.name);
    return entry.isDirectory() ? sources(path) : entry.name.endsWith('.ts') ? [path] : [];
  });
}

const thrown = new Map<string, string>();
for (const path of sources(join(root, 'src'))) {
  for (const [, code] of readFileSync(path, 'utf8').matchAll(/'(ERR_SECTORWISE_[A-Z_]+)'/g)) thrown.set(code, path);
}
const rows = [...guide.matchAll(/^\| `(ERR_SECTORWISE_[A-Z_]+)` \| (.+) \| (.+) \|$/gm)];

describe('the guide of errors', () => {
  it('explains every code that the source throws', () => {
    expect(thrown.size).toBeGreaterThan(20);
    expect([...thrown.keys()].filter((code) => !rows.some((row) => row[1] === code))).toEqual([]);
  });

  it('explains no code that the source never throws, and each once', () => {
    expect(rows.map((row) => row[1]).filter((code) => !thrown.has(code))).toEqual([]);
    expect(new Set(rows.map((row) => row[1])).size).toBe(rows.length);
  });

  it('says for each what it means and what to do', () => {
    for (const [, code, meaning, remedy] of rows) {
      expect(meaning.trim().length, code).toBeGreaterThan(10);
      expect(remedy.trim().length, code).toBeGreaterThan(5);
    }
  });
});
