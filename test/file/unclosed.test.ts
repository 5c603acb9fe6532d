/** Files that nobody holds any more and nobody closed, and windows that nobody released. */
import { readFileSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import type { Caching, OpenOptions } from '../../src/index.js';
import { Places } from '../fixtures/places.js';
import { Program } from '../rigs/program.js';

interface Warning {
  code: string;
  message: string;
  detail?: string;
}

const lab = new Places();
const folder = lab.folder();
afterAll(() => lab.dispose());

function filled(name: string): string {
  const path = join(folder, name);
  writeFileSync(path, Buffer.alloc(200_000, 7));
  return path;
}

const forgetful = (environment: NodeJS.ProcessEnv = {}): Promise<Program> => Program.start('test/rigs/forgetful', [], environment);
const forget = (program: Program, path: string, options: OpenOptions, use: string): Promise<void> => program.ask('forget', path, options, use);

describe.each<Caching>(['page-cache', 'direct'])('%s', (caching) => {
  it('a file that is collected unclosed is warned of once, and closed', async () => {
    const program = await forgetful();
    const uses = ['nothing', 'windows', 'listener'];
    const paths = uses.map((use) => filled(`${caching}-${use}`));
    for (const [i, use] of uses.entries()) await forget(program, paths[i], { caching }, use);
    const warnings = await program.ask<Warning[]>('warned', uses.length);
    for (const path of paths) {
      await program.ask('closed', path);
      expect(warnings.filter(({ code, message }) => code === 'SECTORWISE_UNCLOSED_FILE' && message.includes(`'${path}'`))).toHaveLength(1);
    }
    expect((await program.ask<Warning[]>('warned', 0)).length).toBe(uses.length);
    program.kill();
  });

  it('one that is closed, or held, is not warned of', async () => {
    const program = await forgetful();
    const [closed, held, lost] = ['closed', 'held', 'lost'].map((name) => filled(`${caching}-${name}`));
    await forget(program, closed, { caching }, 'close');
    await forget(program, held, { caching }, 'keep');
    await forget(program, lost, { caching }, 'nothing');
    const warnings = await program.ask<Warning[]>('warned', 1);
    await program.ask('closed', lost);
    expect(warnings.map(({ message }) => message)).toEqual([expect.stringContaining(lost)]);
    expect(await program.ask('keptSize')).toBe(200_000);
    expect(await program.ask('descriptors', held)).toBeGreaterThan(0);
    program.kill();
  });

  it('what was written to it and never flushed is flushed when it is closed', async () => {
    const program = await forgetful();
    const path = filled(`${caching}-written`);
    await forget(program, path, { caching, access: 'read-write' }, 'write');
    await program.ask('closed', path);
    expect(readFileSync(path, 'latin1').slice(5, 16)).toBe('not flushed');
    program.kill();
  });

  it('it stays open while a window of it is held, which is told of a truncation all the same', async () => {
    const program = await forgetful();
    const path = filled(`${caching}-window`);
    await forget(program, path, { caching }, 'window');
    await program.ask('warned', 1);
    expect(await program.ask('keptBytes', false)).toEqual(new Uint8Array(16).fill(7));
    truncateSync(path, 0);
    expect(await program.ask('keptBytes', true)).toBe('ERR_SECTORWISE_TRUNCATED');
    expect(await program.ask('descriptors', path)).toBeGreaterThan(0);
    await program.ask('release');
    await program.ask('closed', path);
    program.kill();
  });
});

describe('a window that is collected unreleased', () => {
  it('is warned of with SECTORWISE_DEBUG=1, with the stack that asked for it', async () => {
    const program = await forgetful({ SECTORWISE_DEBUG: '1' });
    const [path, good] = [filled('unreleased'), filled('released')];
    await forget(program, good, { caching: 'direct' }, 'windows');
    await forget(program, path, { caching: 'direct' }, 'unreleased');
    const warnings = await program.ask<Warning[]>('warned', 3);
    const found = warnings.filter(({ code }) => code === 'SECTORWISE_UNRELEASED_WINDOW');
    expect(found).toHaveLength(1);
    expect(found[0].message).toContain(`'${path}' (offset 8192, length 100)`);
    expect(found[0].detail).toMatch(/^It was asked for\n\s+at .*unreleased/);
    expect(found[0].detail).toContain('forgetful');
    program.kill();
  });

  it('is not without', async () => {
    const program = await forgetful({ SECTORWISE_DEBUG: '' });
    await forget(program, filled('untold'), {}, 'unreleased');
    expect((await program.ask<Warning[]>('warned', 1)).map(({ code }) => code)).toEqual(['SECTORWISE_UNCLOSED_FILE']);
    program.kill();
  });
});
