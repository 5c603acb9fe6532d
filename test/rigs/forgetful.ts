/** A program that forgets to close files and to release windows, and tells what the process was warned of. */
import { readdirSync, readlinkSync } from 'node:fs';
import { type BlockFile, type OpenOptions, open, type Window } from '../../src/index.js';
import { answerQuestions } from './answers.js';

interface Told extends Error {
  code?: string;
  detail?: string;
}

const warnings: Told[] = [];
process.on('warning', (warning) => warnings.push(warning));

let kept: Window | undefined;
let keptFile: BlockFile | undefined;

const turn = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, 5));

/** Collects until something comes of it; V8 says when. */
async function until(done: () => boolean): Promise<void> {
  while (!done()) {
    await turn();
    gc?.();
  }
}

const descriptorsOf = (path: string): number =>
  readdirSync('/proc/self/fd').filter((fd) => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`) === path;
    } catch {
      return false;
    }
  }).length;

const useOf = {
  nothing: () => {},
  windows: async (file: BlockFile) => {
    for await (const window of file.windows({ step: 65536 })) window.check();
    (await file.window(0, 4096)).release();
    await file.read(new Uint8Array(10_000), 77);
  },
  listener: (file: BlockFile) => void file.on('invalidate', () => file.size),
  write: async (file: BlockFile) => void (await file.write(Buffer.from('not flushed'), 5)),
  window: async (file: BlockFile) => {
    kept = await file.window(0, 4096);
  },
  unreleased: async (file: BlockFile) => void (await file.window(8192, 100)),
  close: (file: BlockFile) => file.close(),
  keep: (file: BlockFile) => {
    keptFile = file;
  },
};

answerQuestions({
  /** Opens, uses, and lets go of everything but what the use keeps. */
  async forget(path: string, options: OpenOptions, use: keyof typeof useOf) {
    await useOf[use](await open(path, options));
  },
  /** Once there are so many warnings. */
  async warned(count: number) {
    await until(() => warnings.length >= count);
    return warnings.map(({ code, message, detail }) => ({ code, message, detail }));
  },
  closed: (path: string) => until(() => descriptorsOf(path) === 0),
  descriptors: (path: string) => descriptorsOf(path),
  /** Once the kept window is no longer valid, or at once. */
  async keptBytes(invalid: boolean) {
    if (invalid) await until(() => kept?.valid === false);
    try {
      return kept?.bytes.slice(0, 16);
    } catch (error) {
      return (error as Told).code;
    }
  },
  release: () => kept?.release(),
  keptSize: () => keptFile?.size,
});
