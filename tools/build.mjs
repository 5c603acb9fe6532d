/**
 * Builds what is missing or older than its sources: the addon, then the JavaScript. Runs before `npm start`, `npm test` and the like, and does nothing where nothing changed.
 *
 * Not a `prepare` script: npm 12 refuses to install a package that has one (`--strict-allow-scripts`), though it would not run it. Plain JavaScript, since nothing is built yet.
 */
import { execFileSync } from 'node:child_process';
import { existsSync, readdirSync, statSync, utimesSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));

/** When the newest of the files was changed, those of folders included; 0 for what is not there. */
function changed(...paths) {
  let newest = 0;
  for (const path of paths) {
    const place = join(root, path);
    if (!existsSync(place)) continue;
    const about = statSync(place);
    newest = Math.max(newest, about.mtimeMs);
    if (about.isDirectory()) newest = Math.max(newest, changed(...readdirSync(place).map((name) => join(path, name))));
  }
  return newest;
}

function run(command, ...args) {
  execFileSync(join(root, 'node_modules', '.bin', command), args, { cwd: root, stdio: ['ignore', 'inherit', 'inherit'] });
}

/** Builds unless what the stamp says was built after the last change. */
function build(what, stamp, sources, make) {
  if (changed(stamp) >= changed(...sources) && changed(stamp) > 0) return;
  console.log(`building ${what}`);
  const begun = new Date();
  make();
  // What changed while it was built is not in it.
  if (!existsSync(join(root, stamp))) writeFileSync(join(root, stamp), '');
  utimesSync(join(root, stamp), begun, begun);
}

build('the addon', 'build/Release/sectorwise.node', ['native', 'CMakeLists.txt'], () => run('cmake-js', 'compile', '--out', 'build', '--log-level', 'warn'));
build('the JavaScript', 'dist/.built', ['src', 'tools', 'test', 'docs/examples', 'tsconfig.json', 'package.json'], () => {
  run('tsc', '-p', 'tsconfig.json');
  execFileSync(process.execPath, [join(root, 'tools', 'bundle.mjs')], { cwd: root, stdio: 'inherit' });
});
