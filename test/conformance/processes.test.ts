/** The built package in processes, workers and copies: what must work at once, and what must survive an end at any moment. */
import { spawn } from 'node:child_process';
import { cpSync, existsSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { open } from '../../src/index.js';
import { Random } from '../../src/testing/random.js';
import { note, Places } from '../fixtures/places.js';

const root = fileURLToPath(new URL('../../', import.meta.url));
const child = fileURLToPath(new URL('./child.mjs', import.meta.url));
const notBuilt = existsSync(join(root, 'dist/src/index.js')) ? undefined : 'needs the built package: npm run build';

const lab = new Places();
const path = join(lab.folder(), 'file');
const BYTES = 4 * 2 ** 20 + 321;
beforeAll(() => writeFileSync(path, new Random(5).fill(new Uint8Array(BYTES))));
afterAll(() => lab.dispose());

function run(name: string, ...more: string[]): Promise<{ code: number | null; signal: string | null; out: string }> {
  return new Promise((resolve, reject) => {
    const started = spawn(process.execPath, [child, root, name, path, ...more], { stdio: ['ignore', 'pipe', 'pipe'] });
    let out = '';
    started.stdout.on('data', (data) => (out += data));
    started.stderr.on('data', (data) => (out += data));
    started.on('error', reject);
    started.on('close', (code, signal) => resolve({ code, signal, out }));
  });
}

describe.skipIf(notBuilt !== undefined)(`the built package${note(notBuilt)}`, () => {
  it('serves one file in four workers at once', async () => {
    expect(await run('workers')).toEqual({ code: 0, signal: null, out: '0 0 0 0\n' });
  });

  it('survives workers that are terminated with operations in flight and windows held', async () => {
    expect(await run('terminate')).toEqual({ code: 0, signal: null, out: 'survived\n' });
  });

  it('lets a process exit with operations in flight and windows open', async () => {
    for (let i = 0; i < 5; i++) expect(await run('exit')).toEqual({ code: 0, signal: null, out: '' });
  });

  it('lets a process end by itself with files and windows open', async () => {
    expect(await run('idle')).toEqual({ code: 0, signal: null, out: 'idle\n' });
  });

  it('works twice in a process, and both copies know of each other where it matters', async () => {
    const copy = lab.folder();
    for (const part of ['package.json', 'dist/src', 'build/Release', 'node_modules/sorted-btree']) {
      const from = join(root, part);
      cpSync(from, join(copy, part), { recursive: statSync(from).isDirectory(), dereference: true });
    }
    const outcome = await run('copies', copy);
    expect(outcome).toEqual({ code: 0, signal: null, out: 'ERR_SECTORWISE_ALREADY_OPEN ERR_SECTORWISE_ALREADY_OPEN\n' });
  });

  it.each(['page-cache', 'direct'] as const)('sees growth by another process without being opened again (%s)', async (caching) => {
    const file = await open(path, { caching });
    const before = file.size;
    expect((await file.window(before, 10)).length).toBe(0);
    expect((await run('grow', '12345')).out).toBe('grown\n');
    using window = await file.window(before - 5, 20_000);
    expect(window.length).toBe(12_350);
    expect(window.bytes.subarray(5).every((byte) => byte === 7)).toBe(true);
    expect(file.size).toBe(before + 12_345);
    await file.close();
  });
});
