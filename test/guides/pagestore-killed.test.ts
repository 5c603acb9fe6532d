/** The page store of docs/examples under `kill -9`: every change that was acknowledged is there, whole and in order, and the next process goes on behind it. */
import { spawn } from 'node:child_process';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, describe, expect, it } from 'vitest';
import { Store } from '../../docs/examples/pagestore/store.js';
import { type BlockFile, type Caching, open } from '../../src/index.js';
import { Places } from '../fixtures/places.js';
import { emitted } from '../rigs/emitted.js';
import { checkState } from '../rigs/store-checks.js';

const lab = new Places();
afterAll(() => lab.dispose());

describe.each<Caching>(['page-cache', 'direct'])('a page store of a process that is killed (%s)', (caching) => {
  async function openUnlocked(path: string): Promise<BlockFile> {
    for (;;) {
      try {
        return await open(path, { caching, access: 'read-write', lock: 'exclusive', readAhead: false });
      } catch (error) {
        // What the killed process had on its way in the kernel ends some time later.
        if ((error as NodeJS.ErrnoException).code !== 'EAGAIN') throw error;
        await sleep(5);
      }
    }
  }

  it('has every change that was acknowledged, whole and in order', async () => {
    const folder = lab.folder();
    const lives: number[] = [];
    const program = join(await emitted(), 'test/rigs/store-user.js');
    for (let life = 0; life < 3; life++) {
      const first = lives.length + 1;
      const child = spawn(process.execPath, [program, folder, caching, String(first), String(life), '5'], { stdio: ['ignore', 'pipe', 'pipe'] });
      let out = '';
      let problem = '';
      child.stdout.on('data', (data) => {
        out += data;
        if (out.split('\n').length > 25 + life * 20) child.kill('SIGKILL');
      });
      child.stderr.on('data', (data) => (problem += data));
      const signal = await new Promise((resolve) => child.on('close', (_, by) => resolve(by)));
      expect([signal, problem]).toEqual(['SIGKILL', '']);
      const known = Math.max(...[...out.matchAll(/^a (\d+)$/gm)].map((match) => Number(match[1])));
      while (lives.length < known + 100) lives.push(life);
      const store = await Store.open(await openUnlocked(join(folder, 'pages')), await openUnlocked(join(folder, 'log')));
      const found = await checkState(store, lives);
      expect(found).toBeGreaterThanOrEqual(known);
      lives.length = found;
      await store.close();
    }
  });
});
