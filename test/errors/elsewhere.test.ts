/** On systems that are not Linux everything can be imported, and opening says what is the matter. */
import { execFileSync } from 'node:child_process';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { emitted } from '../rigs/emitted.js';

describe.each(['darwin', 'win32'])('on %s', (platform) => {
  it('every entry is imported, and open and openSync fail with an error that says so, before anything native is loaded', async () => {
    const root = await emitted();
    const script = `
      Object.defineProperty(process, 'platform', { value: ${JSON.stringify(platform)} });
      process.dlopen = () => { throw new Error('something native was loaded'); };
      const at = (entry) => import(${JSON.stringify(join(root, 'src'))} + '/' + entry + 'index.js');
      const { open, openSync } = await at('');
      for (const entry of ['testing/', 'layout/', 'mmap-io/', 'random-access/']) await at(entry);
      const said = [];
      await open('file').catch((error) => said.push([error.code, error.message]));
      try { openSync('file'); } catch (error) { said.push([error.code, error.message]); }
      console.log(JSON.stringify(said));`;
    const said = JSON.parse(execFileSync(process.execPath, ['--input-type=module', '-e', script], { encoding: 'utf8' }));
    const wanted = ['ERR_SECTORWISE_UNSUPPORTED', `sectorwise works on Linux; this is ${platform}. Use node:fs here.`];
    expect(said).toEqual([wanted, wanted]);
  });
});
