/**
 * Links in the documents lead somewhere: every relative link of README.md and docs/ names a file or folder of the project, and where it names a heading, one that is there.
 *
 * Leaves to others: links into the API (`{@link …}`), which typedoc checks, and addresses of the web, which no test asks.
 */
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';

const root = fileURLToPath(new URL('../../', import.meta.url));
/** What typedoc makes; not in the repository. */
const MADE = join(root, 'docs/api');

function documents(folder: string): string[] {
  return readdirSync(folder, { withFileTypes: true }).flatMap((entry) => {
    const path = join(folder, entry.name);
    if (path === MADE) return [];
    return entry.isDirectory() ? documents(path) : entry.name.endsWith('.md') ? [path] : [];
  });
}

/** The text without code, whose brackets are no links. */
function prose(text: string): string {
  return text.replace(/^(```+|~~~+)[\s\S]*?^\1\s*$/gm, '').replace(/(`+)(?!`)[\s\S]*?[^`]\1(?!`)/g, 'code');
}

/** What `#…` of a link may be, in the manner of GitHub and typedoc. */
function anchors(path: string): Set<string> {
  const headings = readFileSync(path, 'utf8')
    .replace(/^(```+|~~~+)[\s\S]*?^\1\s*$/gm, '')
    .matchAll(/^#{1,6} +(.+?) *$/gm);
  const seen = new Map<string, number>();
  const names = new Set<string>();
  for (const [, heading] of headings) {
    const plain = heading
      .replace(/\[([^\]]*)\]\([^)]*\)/g, '$1')
      .toLowerCase()
      .replace(/[^\p{L}\p{N} _-]/gu, '')
      .replaceAll(' ', '-');
    const times = seen.get(plain) ?? 0;
    seen.set(plain, times + 1);
    names.add(times === 0 ? plain : `${plain}-${times}`);
  }
  return names;
}

/** Links of a document that lead nowhere. */
function broken(path: string): string[] {
  const text = prose(readFileSync(path, 'utf8'));
  const targets = [
    ...[...text.matchAll(/\]\(\s*<?([^)\s>]+)>?(?:\s+"[^"]*")?\s*\)/g)].map((match) => match[1]),
    ...[...text.matchAll(/^\[[^\]]+\]:\s*(\S+)/gm)].map((match) => match[1]),
    ...[...text.matchAll(/<(?:img|a)\b[^>]*?\b(?:src|href)="([^"]+)"/g)].map((match) => match[1]),
  ];
  return targets.filter((target) => {
    if (/^[a-z][a-z+.-]*:/i.test(target)) return false;
    const [file, anchor] = target.split('#');
    const named = file === '' ? path : join(dirname(path), decodeURIComponent(file));
    if (!existsSync(named)) return true;
    return anchor !== undefined && statSync(named).isFile() && named.endsWith('.md') && !anchors(named).has(anchor);
  });
}

describe('links of the documents', () => {
  const all = [join(root, 'README.md'), ...documents(join(root, 'docs'))];

  it.each(all.map((path) => relative(root, path)))('lead to something: %s', (path) => {
    expect(broken(join(root, path))).toEqual([]);
  });
});
