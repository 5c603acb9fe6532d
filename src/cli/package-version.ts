/** The version of this package, as its package.json has it. */
import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

let known: string | undefined;

export function packageVersion(): string {
  known ??= search();
  return known;
}

/** Upwards from this file: the sources and what is emitted of them lie at different depths. */
function search(): string {
  for (let folder = dirname(fileURLToPath(import.meta.url)); ; folder = dirname(folder)) {
    try {
      const { name, version } = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8'));
      if (name === 'sectorwise') return version;
    } catch {
      // No manifest in this folder.
    }
    if (dirname(folder) === folder) return '0.0.0';
  }
}
