/**
 * What of a file the kernel's page cache holds, and how to empty it before a run.
 *
 * Guarantees: what is said about the state was asked of the kernel after the attempt; where the kernel does not tell, so is it said.
 */
import { spawnSync } from 'node:child_process';
import { closeSync, fdatasyncSync, openSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { type BlockFile, openSync as openBlockFile } from '../../src/index.js';

/** Per cent of the first `size` bytes that are in the page cache; undefined where the kernel does not say. */
export function cachedPercent(file: BlockFile, size: number): number | undefined {
  try {
    const { cached, pages } = file.residency(0, size);
    return pages === 0 ? 0 : (100 * cached) / pages;
  } catch {
    return undefined;
  }
}

/** Drops the file's pages; what is dirty is written first, since only clean ones can be. `file` is the page-cache opener whose own mapping would hold them; without one `dd` asks the kernel. */
export async function dropCached(file: BlockFile | undefined, path: string, size: number): Promise<number | undefined> {
  const fd = openSync(path, 'r');
  try {
    fdatasyncSync(fd);
  } finally {
    closeSync(fd);
  }
  if (!file) {
    spawnSync('dd', [`if=${path}`, 'iflag=nocache', 'count=0', 'status=none']);
    return undefined;
  }
  await file.evict(0, size);
  return cachedPercent(file, size);
}

/**
 * Brings the page cache into a state and proves it: throws if the kernel says otherwise, or does not say. Undefined leaves it as it is.
 * `file` is the page-cache opener, where there is one.
 */
export async function setCache(cache: 'cold' | 'warm' | undefined, path: string, size: number, file?: BlockFile): Promise<void> {
  if (cache === undefined) return;
  const asked = file ?? openBlockFile(path);
  try {
    if (cache === 'cold') await dropCached(asked, path, size);
    else await readThrough(path, size);
    const state = stateText(cachedPercent(asked, size));
    if (stateWord(state) !== cache) throw new Error(`the page cache should be ${cache}, but is ${state}`);
  } finally {
    if (!file) await asked.close();
  }
}

/** Reads the first `size` bytes through node:fs: into the page cache, and into `target` where the bytes are wanted. Answers with how many there were. */
export async function readThrough(path: string, size: number, target?: Uint8Array): Promise<number> {
  const step = 1 << 20;
  const buffer = target ?? Buffer.allocUnsafeSlow(step);
  const handle = await open(path, 'r');
  try {
    let position = 0;
    while (position < size) {
      const { bytesRead } = await handle.read(buffer, target ? position : 0, Math.min(step, size - position), position);
      if (bytesRead === 0) break;
      position += bytesRead;
    }
    return position;
  } finally {
    await handle.close();
  }
}

/** The word of a state, without its figure. */
export function stateWord(state: string): string {
  return state.split(' ')[0];
}

/** `cold 0%`, `warm 100%`, `mixed 37%`: the state in a word, and as it was measured. */
export function stateText(percent: number | undefined): string {
  if (percent === undefined) return 'unknown';
  const word = percent < 2 ? 'cold' : percent > 98 ? 'warm' : 'mixed';
  return `${word} ${Math.round(percent)}%`;
}
