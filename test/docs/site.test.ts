/**
 * The site of the documents (typedoc.json) has all of them, and the guides in the order in which they are to be read.
 *
 * Leaves to others: whether it can be built (`npm run docs`, where warnings are errors), links (`links.test.ts`).
 */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';

const root = fileURLToPath(new URL('../../', import.meta.url));
const { projectDocuments: listed } = JSON.parse(readFileSync(join(root, 'typedoc.json'), 'utf8')) as { projectDocuments: string[] };

function documents(folder: string): string[] {
  return readdirSync(join(root, folder))
    .filter((name) => name.endsWith('.md'))
    .map((name) => `${folder}/${name}`);
}

function frontMatter(path: string): string {
  return /^---\n([\s\S]*?)\n---\n/.exec(readFileSync(join(root, path), 'utf8'))?.[1] ?? '';
}

describe('the site of the documents', () => {
  it('has each document once, and begins with Getting started', () => {
    expect([...listed].sort()).toEqual([...documents('docs'), ...documents('docs/guides'), 'docs/benchmarks/README.md'].sort());
    expect(listed[0]).toBe('docs/guides/getting-started.md');
  });

  it.each(listed)('has a title of its own for %s', (path) => {
    const titles = listed.map((each) => /^title: (.+)$/m.exec(frontMatter(each))?.[1]);
    const [title] = titles.splice(listed.indexOf(path), 1);
    expect(title).toBeDefined();
    expect(titles).not.toContain(title);
  });

  it('shows the guides as guides and the others as what is behind them', () => {
    for (const path of listed) {
      if (path.startsWith('docs/guides/')) expect(frontMatter(path)).not.toContain('category:');
      else expect(frontMatter(path)).toContain('category: How it works');
    }
  });
});
