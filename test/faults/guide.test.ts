/** The guide of faults against the tests: what it names as proof is there, and every row of its table has one. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { HEALTH_PERIOD_MS, PRESENCE_PERIOD_MS, SETTLE_MS } from '../../src/unplug/watcher.js';

const root = fileURLToPath(new URL('../../', import.meta.url));
const guide = readFileSync(join(root, 'docs/guides/unplug-and-faults.md'), 'utf8');
const table = guide.slice(guide.indexOf('\n## Causes'), guide.indexOf('\n## Cause by cause'));
const sections = new Map(
  guide
    .slice(guide.indexOf('\n## Cause by cause'), guide.indexOf('\n## How a loss'))
    .split('\n### ')
    .slice(1)
    .map((section) => [section.slice(0, section.indexOf('\n')), section]),
);
/** As headings are linked to. */
const anchorOf = (heading: string): string =>
  heading
    .toLowerCase()
    .replaceAll(/[^\w\s-]/g, '')
    .replaceAll(' ', '-');

const proofsIn = (section: string): RegExpMatchArray[] => [...section.matchAll(/^- `(test\/[^`]+)`: "(.+)"$/gm)];

describe('the guide of faults', () => {
  it('names tests that exist', () => {
    const proofs = proofsIn(guide);
    expect(proofs.length).toBeGreaterThan(20);
    for (const [, path, name] of proofs) expect(readFileSync(join(root, path), 'utf8'), path).toContain(`'${name}'`);
  });

  it('links each row of its table to a section with proof, and has no other', () => {
    const links = [...table.matchAll(/\]\(#([^)]+)\)/g)].map((match) => match[1]);
    expect(links.filter((link) => link !== 'what-is-not-noticed').sort()).toEqual([...sections.keys()].map(anchorOf).sort());
    for (const [heading, section] of sections) expect(proofsIn(section).length, heading).toBeGreaterThan(0);
  });

  it('says the periods that the source has', () => {
    expect(guide).toContain(`| every ${HEALTH_PERIOD_MS} ms |`);
    expect(guide).toContain(`| every ${PRESENCE_PERIOD_MS / 1000} s |`);
    expect(guide).toContain(`| within ${SETTLE_MS} ms |`);
  });
});
