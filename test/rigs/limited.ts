/** A program whose limits its starter lowers while it writes: a file that may not grow is an error, not the end of the process. */
import { readFileSync, statSync } from 'node:fs';
import { type BlockFile, type Caching, open } from '../../src/index.js';
import { answerQuestions } from './answers.js';

let file: BlockFile;

interface Outcome {
  code: string;
  /** Codes of the ranges of a flush that failed. */
  ranges: string[];
}

/** How a call ended: 'done', or the code of its error. */
async function outcomeOf(act: () => unknown): Promise<Outcome> {
  try {
    await act();
    return { code: 'done', ranges: [] };
  } catch (error) {
    const { code, ranges } = error as { code: string; ranges?: { error: { code: string } }[] };
    return { code, ranges: ranges?.map((range) => range.error.code) ?? [] };
  }
}

answerQuestions({
  async open(path: string, caching: Caching) {
    file = await open(path, { caching, access: 'read-write', create: true, cacheSize: 1 << 20 });
  },
  write: (offset: number, length: number, value: number) => outcomeOf(() => file.write(Buffer.alloc(length, value), offset)),
  writeSync: (offset: number, length: number, value: number) => outcomeOf(() => file.writeSync(Buffer.alloc(length, value), offset)),
  flush: () => outcomeOf(() => file.flush()),
  flushSync: () => outcomeOf(() => file.flushSync()),
  resize: (size: number) => outcomeOf(() => file.resize(size)),
  allocate: (offset: number, length: number) => outcomeOf(() => file.allocate(offset, length)),
  acknowledge: () => file.acknowledgeLoss().length,
  size: () => file.size,
  close: () => outcomeOf(() => file.close()),
  sizeOnDisk: (path: string) => statSync(path).size,
  /** The values of the bytes of a range on the disk, each once. */
  values: (path: string, offset: number, length: number) => [...new Set(readFileSync(path).subarray(offset, offset + length))],
});
