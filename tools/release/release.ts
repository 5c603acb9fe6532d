/**
 * The release procedure: `npm run release`. Checks everything, makes the tarball, and stops before publishing: the last line says how that is done.
 *
 *   nothing uncommitted ─> one version everywhere ─> .ci/run ─> npm run package ─> tarball ─> "npm publish …", for a person to type
 *
 * Guarantees: stops at the first thing that is not as it should be; publishes nothing, tags nothing.
 */
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { version as layoutVersion } from '../../src/layout/version.js';
import { architectures, prebuildRefusal } from './prebuild.js';

const root = fileURLToPath(new URL('../../..', import.meta.url));

function stop(reason: string): never {
  console.error(`not released: ${reason}`);
  process.exit(1);
}

function ask(command: string, ...args: string[]): string {
  return execFileSync(command, args, { cwd: root, encoding: 'utf8' }).trim();
}

function run(command: string, ...args: string[]): void {
  console.log(`\n== ${command} ${args.join(' ')}`);
  try {
    execFileSync(command, args, { cwd: root, stdio: ['ignore', 'inherit', 'inherit'] });
  } catch {
    stop(`${command} ${args.join(' ')} failed`);
  }
}

const { version } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { version: string };
const changes = readFileSync(join(root, 'CHANGELOG.md'), 'utf8');

if (ask('git', 'status', '--porcelain') !== '') stop('there are changes that are not committed (git status)');
if (layoutVersion !== version) stop(`src/layout/version.ts says ${layoutVersion}, package.json ${version}`);
if (!changes.includes(`\n## ${version}\n`)) stop(`CHANGELOG.md has no section '## ${version}': what is under 'Unreleased' goes there`);
if (/\n## Unreleased\n/.test(changes)) stop("CHANGELOG.md still has a section 'Unreleased'");
if (ask('git', 'tag', '--list', `v${version}`) !== '') stop(`there is a tag v${version} already`);
for (const architecture of architectures) {
  const refused = prebuildRefusal(architecture);
  if (refused !== undefined) stop(`the binary for ${architecture} cannot be built here: ${refused}`);
}
run('bash', '.ci/run');
run('npm', 'run', 'package');
if (ask('git', 'status', '--porcelain') !== '') stop('the checks changed files (git status)');
const [{ filename }] = JSON.parse(ask('npm', 'pack', '--json', '--ignore-scripts')) as { filename: string }[];
console.log(
  `\nEverything passed. To publish ${version}, and then to tag it:\n\n  npm publish ${filename} --access public\n  git tag v${version} && git push --tags`,
);
