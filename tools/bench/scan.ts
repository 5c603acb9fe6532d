/**
 * One scan of a cold 1 GiB file from front to end, in steps of 1 MiB, by `windows()` and by `fs.createReadStream`: how fast, and at what cost to the processor.
 *
 * Everyone looks at one byte of each page of 4096 bytes. Before each run the page cache is emptied of the file, and the kernel asked whether it is (less than 2 % of it left);
 * a direct run begins with empty frames, and has to read every byte from the device.
 */
import { makeBenchFile } from './bench-file.js';
import { runFigures, runReader } from './peers.js';
import type { ReaderJob } from './reader.js';
import { compared, type Figures, type Group, interleaveMany, type ManyContender } from './report.js';

const size = 1024 ** 3;

const stream = 'fs.createReadStream, 1 MiB';
const own = 'windows(), page cache';
const direct = 'windows(), direct';

async function figuresOf(job: ReaderJob): Promise<Figures[]> {
  const result = await runReader(job);
  const { bytes, cpu } = result;
  const milliseconds = 1000 * (1024 ** 3 / bytes);
  const notes = { user: cpu.user * milliseconds, system: cpu.system * milliseconds, ioUringWorkers: cpu.workers * milliseconds };
  return [runFigures(result, 'MiB/s'), { value: notes.user + notes.system, notes }];
}

export const scan: Group = {
  name: 'scan',
  title: 'Cold scan of a 1 GiB file in steps of 1 MiB',
  async run(settings) {
    const path = await makeBenchFile(settings.folder, size);
    const job: ReaderJob = { path, size, direct: false, cache: 'cold', touch: true, kind: 'scan-stream' };
    const contenders: ManyContender[] = [
      { name: stream, peer: 'node', run: () => figuresOf(job) },
      { name: 'fs.read, 1 MiB', peer: 'node', run: () => figuresOf({ ...job, kind: 'scan-callbacks' }) },
      { name: own, own: true, run: () => figuresOf({ ...job, kind: 'scan-windows' }) },
      { name: direct, own: true, run: () => figuresOf({ ...job, kind: 'scan-windows', direct: true, cache: undefined }) },
    ];
    const heads = [
      { title: 'how fast', unit: 'MiB/s' as const },
      { title: 'processor time for 1 GiB, all threads', unit: 'ms' as const },
    ];
    const [speed, cpu] = await interleaveMany(heads, contenders, settings);
    return {
      sections: [speed, cpu],
      targets: [
        { text: 'windows() through the page cache to fs.createReadStream: speed', measured: compared(speed, own, stream), unit: 'times', atLeast: 1.5 },
        { text: 'windows() through the page cache to fs.createReadStream: processor time', measured: compared(cpu, own, stream), unit: 'times', atMost: 0.5 },
      ],
    };
  },
};
