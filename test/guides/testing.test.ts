/**
 * The guide for those who test an engine: its code is the code of docs/examples, that engine survives every crash, and the check finds what is broken on purpose.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { Cell } from '../../docs/examples/cell.js';
import { crash, crashEverywhere } from '../../docs/examples/cell-crashes.js';
import type { BlockFile } from '../../src/index.js';
import { openSimulated, SimulatedDisk } from '../../src/testing/index.js';

const root = fileURLToPath(new URL('../../', import.meta.url));

/** The file with some of its methods replaced. */
function changed(file: BlockFile, methods: Partial<BlockFile>): BlockFile {
  return new Proxy(file, {
    get(target, name) {
      const own = Reflect.get(methods, name) ?? Reflect.get(target, name, target);
      return typeof own === 'function' ? own.bind(target) : own;
    },
  });
}

describe('the guide for those who test an engine', () => {
  it.each(['cell.ts', 'cell-crashes.ts'])('shows the code that is tested here: %s', (name) => {
    const guide = readFileSync(join(root, 'docs/guides/testing-your-engine.md'), 'utf8');
    expect(guide).toContain(`\`\`\`ts\n${readFileSync(join(root, 'docs/examples', name), 'utf8')}\`\`\``);
  });

  it('names methods of the disk that exist', () => {
    const guide = readFileSync(join(root, 'docs/guides/testing-your-engine.md'), 'utf8');
    const table = guide.slice(guide.indexOf('\n## What the disk does'), guide.indexOf('\n## Determinism'));
    const named = [...table.matchAll(/`(?:disk\.)?(\w+)\(/g)].map((match) => match[1]);
    expect(named).toEqual(expect.arrayContaining(['powerCut', 'unplugAfter', 'failSectors', 'plant', 'snapshot']));
    const disk = new SimulatedDisk({ size: 4096 });
    for (const name of named) expect(typeof Reflect.get(disk, name), name).toBe('function');
  });
});

describe('the engine of the guide', () => {
  it('has the old or the new value after a crash at any moment', async () => {
    expect(await crashEverywhere(4)).toBeGreaterThan(40);
  });

  it('keeps the last value while writes fail, and goes on when they work again', async () => {
    const disk = new SimulatedDisk({ size: 8192, kind: 'block-device', seed: 5 });
    const file = openSimulated(disk, { access: 'read-write' });
    const cell = await Cell.open(file);
    await cell.replace(Buffer.from('one'));
    disk.failSectors(0, 16, { reads: false });
    for (let turn = 0; turn < 3; turn++) {
      await expect(cell.replace(Buffer.from('not yet'))).rejects.toMatchObject({ code: 'ERR_SECTORWISE_FLUSH_FAILED' });
      expect(Buffer.from(cell.value).toString()).toBe('one');
    }
    disk.heal();
    await cell.replace(Buffer.from('two'));
    await file.close();
    disk.powerCut({ drop: 'all' });
    const again = openSimulated(disk, { access: 'read-write' });
    expect(Buffer.from((await Cell.open(again)).value).toString()).toBe('two');
    await again.close();
  });
});

describe('the check of the guide', () => {
  it('finds an engine that does not flush', async () => {
    await expect(crashEverywhere(20, (file) => Cell.open(changed(file, { flush: async () => {} })))).rejects.toThrow(/was acknowledged, \d found/);
  });

  it('fails in the same way each time that a seed is run', async () => {
    const broken = (file: BlockFile) => Cell.open(changed(file, { flush: async () => {} }));
    const outcome = (seed: number) => crash(seed, 4, broken).then(String, (error: Error) => error.message);
    for (let seed = 1; seed <= 8; seed++) expect(await outcome(seed)).toBe(await outcome(seed));
  });

  it('lets no error pass that the plug did not cause', async () => {
    const broken = (file: BlockFile) => Cell.open(changed(file, { write: () => Promise.reject(new TypeError('a bug')) }));
    await expect(crash(1, 100, broken)).rejects.toThrow('a bug');
  });
});
