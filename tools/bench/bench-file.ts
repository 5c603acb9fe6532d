/** The file that the groups read: seeded bytes, on the device, and removed when the process ends. */
import { mkdtempSync, rmSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { join } from 'node:path';
import { seededBytes } from './pattern.js';

/** Fills a file that it makes, or a device, with seeded bytes. */
export async function fillFile(path: string, size: number): Promise<void> {
  const next = seededBytes(1);
  const handle = await open(path, path.startsWith('/dev/') ? 'r+' : 'wx');
  try {
    for (let position = 0; position < size; ) position += (await handle.write(next(Math.min(1 << 20, size - position)))).bytesWritten;
    await handle.sync();
  } finally {
    await handle.close();
  }
}

/** One listener removes all of them. */
const made: string[] = [];
process.on('exit', () => {
  for (const own of made) rmSync(own, { recursive: true, force: true });
});

export async function makeBenchFile(folder: string, size: number): Promise<string> {
  const own = mkdtempSync(join(folder, 'sectorwise-bench-'));
  made.push(own);
  const path = join(own, 'bytes');
  await fillFile(path, size);
  return path;
}
