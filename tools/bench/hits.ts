/**
 * What is in memory already: `tryWindow` and `release` of 4 KiB, in each mode, beside `fs.readSync` of the same bytes.
 *
 * "known" are page-cache windows whose residency was proved a moment ago; "proved" are those for which the page table is asked: each batch
 * visits every 64 KiB once, and waits beforehand until what is known of them is too old. Its pages are touched before that, as a reader's would be: without
 * it they are in the page cache, but not in the page table. Some machines take pages away that nobody touched for a while (DAMON): such misses are
 * counted, brought back outside the measured time, and an error once they are more than a few.
 */
import { closeSync, openSync, readSync } from 'node:fs';
import { setTimeout as pause } from 'node:timers/promises';
import { type BlockFile, open } from '../../src/index.js';
import { makeBenchFile } from './bench-file.js';
import { type Batch, batchContender } from './micro.js';
import { type Group, interleave, rowMedian, rowNamed } from './report.js';

const size = 256 * 1024 ** 2;
const blockBytes = 4096;
/** Blocks that a batch goes round: they fit into the frames of a direct file, and into 100 ms. */
const blocks = 1024;
/** Residency is known for this much at once, and for this long. */
const epochBytes = 64 * 1024;
const epochMs = 100;

/** Misses for each operation at most. */
const missesMax = 0.001;

const direct = 'direct: tryWindow, release';
const proved = 'page cache, proved: tryWindow, release';
const known = 'page cache, known: tryWindow, release';

type Hit = NonNullable<ReturnType<BlockFile['tryWindow']>>;

function hit(file: BlockFile, offset: number): Hit {
  const window = file.tryWindow(offset, blockBytes);
  if (!window) throw new Error(`a miss at ${offset} where everything should be in memory`);
  return window;
}

/** Every page of [0, end) is in memory and in the page table. */
async function touchAll(file: BlockFile, end: number): Promise<void> {
  let seen = 0;
  for (let offset = 0; offset < end; offset += epochBytes) {
    const window = file.tryWindow(offset, epochBytes) ?? (await file.window(offset, epochBytes));
    for (let page = 0; page < epochBytes; page += blockBytes) seen += window.bytes[page];
    window.release();
  }
  if (seen < 0) throw new Error('bytes are never negative');
}

function batchesOf(name: string, file: BlockFile): Batch[] {
  let seen = 0;
  return [
    {
      name,
      own: true,
      operations: blocks,
      run: () => {
        for (let block = 0; block < blocks; block++) hit(file, block * blockBytes).release();
      },
    },
    {
      name: `${name.replace('tryWindow, release', 'tryWindow, bytes[0], release')}`,
      own: true,
      operations: blocks,
      run: () => {
        for (let block = 0; block < blocks; block++) {
          const window = hit(file, block * blockBytes);
          seen += window.bytes[0];
          window.release();
        }
        if (seen < 0) throw new Error('bytes are never negative');
      },
    },
  ];
}

export const hits: Group = {
  name: 'hits',
  title: 'What is in memory already: 4 KiB',
  async run(settings) {
    const path = await makeBenchFile(settings.folder, size);
    const mapped = await open(path, { caching: 'page-cache' });
    const frames = await open(path, { caching: 'direct' });
    const fd = openSync(path, 'r');
    try {
      await touchAll(mapped, size);
      let asked = 0;
      let missed = 0;
      for (let block = 0; block < blocks; block++) (await frames.window(block * blockBytes, blockBytes)).release();
      const buffer = Buffer.allocUnsafeSlow(blockBytes);
      const batches: Batch[] = [
        {
          name: 'fs.readSync',
          operations: blocks,
          run: () => {
            for (let block = 0; block < blocks; block++) readSync(fd, buffer, 0, blockBytes, block * blockBytes);
          },
        },
        ...batchesOf(direct, frames),
        ...batchesOf(known, mapped).map((batch) => ({ ...batch, prepare: () => touchAll(mapped, blocks * blockBytes) })),
        {
          name: proved,
          own: true,
          operations: size / epochBytes,
          prepare: async () => {
            await touchAll(mapped, size);
            await pause(epochMs + 10);
          },
          run: () => {
            for (let offset = 0; offset < size; offset += epochBytes) {
              const window = mapped.tryWindow(offset, blockBytes);
              asked++;
              if (window) window.release();
              else missed++;
            }
          },
        },
      ];
      const contenders = batches.map((batch) => batchContender(batch, settings.seconds));
      const section = await interleave('ns for each', 'ns', contenders, settings);
      if (missed > 0) settings.log(`  ${missed} of ${asked} were not in memory any more: the kernel took them meanwhile`);
      if (missed > asked * missesMax) throw new Error('too many to call this a measurement of hits');
      return {
        sections: [section],
        targets: [
          { text: 'tryWindow on a direct frame', measured: rowMedian(rowNamed(section, direct)), unit: 'ns', atMost: 150 },
          { text: 'tryWindow in the page cache, with proof', measured: rowMedian(rowNamed(section, proved)), unit: 'ns', atMost: 1500 },
        ],
      };
    } finally {
      closeSync(fd);
      await mapped.close();
      await frames.close();
    }
  },
};
