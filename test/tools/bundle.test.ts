/** What users load of the built package: the same names as the sources, one copy of each class, and nothing before it is needed. */
import { execFileSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { describe, expect, it } from 'vitest';

const root = fileURLToPath(new URL('../../', import.meta.url));
const manifest = JSON.parse(readFileSync(`${root}package.json`, 'utf8')) as { exports: Record<string, { types: string; default: string }> };
const entries = Object.entries(manifest.exports).filter(([name]) => name !== './package.json');

/** Runs a module in a process of its own, where none of this is loaded yet, and answers with what it prints as JSON. */
function inChild(script: string): unknown {
  return JSON.parse(execFileSync(process.execPath, ['--input-type=module', '-e', script], { encoding: 'utf8', cwd: root }));
}

const url = (entry: string): string => JSON.stringify(pathToFileURL(root + entry).href);

describe('the bundles of the package', () => {
  it.each(entries)('%s has the names of its source', async (_, { types, default: built }) => {
    const source = (await import(`${root}${types.replace('./dist/', '').replace('.d.ts', '.ts')}`)) as object;
    expect(existsSync(root + types)).toBe(true);
    expect(inChild(`console.log(JSON.stringify(Object.keys(await import(${url(built)})).sort()))`)).toEqual(Object.keys(source).sort());
  });

  it('loads the library with the first file, not with the import', () => {
    const loaded = inChild(`
      import { createRequire } from 'node:module';
      const { cache } = createRequire(${url('dist/lib/index.js')});
      const files = () => Object.keys(cache).map((path) => path.split('/').at(-1));
      const { open } = await import(${url('dist/lib/index.js')});
      const before = files();
      await (await open('package.json')).close();
      console.log(JSON.stringify([before, files().includes('library.cjs')]));
    `);
    expect(loaded).toEqual([expect.not.arrayContaining(['library.cjs', 'sectorwise.node']), true]);
  });

  it('has each class once, by whatever entry it comes', () => {
    const built = readdirSync(`${root}dist/lib`)
      .filter((name) => /js$/.test(name))
      .map((name) => readFileSync(`${root}dist/lib/${name}`, 'utf8'));
    for (const name of ['SectorwiseError', 'VerifyError', 'FlushError', 'BlockTable']) {
      expect(built.flatMap((code) => code.match(new RegExp(`class ${name}\\b|var ${name} = class\\b`, 'g')) ?? [])).toHaveLength(1);
    }
    const same = inChild(`
      import { SectorwiseError, open } from ${url('dist/lib/index.js')};
      import { openSimulated, SimulatedDisk } from ${url('dist/lib/testing.js')};
      const files = [await open('package.json'), await openSimulated(new SimulatedDisk({ size: 1 << 20 }))];
      const thrown = [];
      for (const file of files) {
        await file.close();
        await file.window(0, 1).catch((error) => thrown.push(error instanceof SectorwiseError));
      }
      console.log(JSON.stringify(thrown));
    `);
    expect(same).toEqual([true, true]);
  });

  it('opens synchronously while the first open is on its way', () => {
    const sizes = inChild(`
      import { open, openSync } from ${url('dist/lib/index.js')};
      const later = open('package.json');
      const now = openSync('package.json');
      const file = await later;
      console.log(JSON.stringify([file.size === now.size, file.constructor === now.constructor]));
      now.closeSync();
      await file.close();
    `);
    expect(sizes).toEqual([true, true]);
  });

  it('names places in the sources, with source maps', () => {
    const stack = inChild(`
      process.setSourceMapsEnabled(true);
      const { openSync } = await import(${url('dist/lib/index.js')});
      try { openSync('package.json', { caching: 'none' }); } catch (error) { console.log(JSON.stringify(error.stack)); }
    `);
    expect(stack).toMatch(/src\/options\.ts:\d+:\d+/);
  });
});
