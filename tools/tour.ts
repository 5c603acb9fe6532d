/**
 * `npm start -- [file or device]`: a look at one file or device through the library, with every byte compared to node:fs.
 *
 * Says what the library found out (geometry, engine, kernel features), then reads it at random and from front to end: through windows over
 * the page cache, through windows over device-filled frames, and by node:fs, in one run, and prints what each took.
 * Guarantees: what was named is only read; exit code 0 only if every byte that was read was the one that node:fs reads.
 */
import { closeSync, openSync } from 'node:fs';
import { type BlockFile, type Caching, open } from '../src/index.js';
import { bytesText, figure, tableLines, wrap } from './bench/format.js';
import { percentile } from './bench/latencies.js';
import { cachedPercent, dropCached, readThrough, stateText, stateWord } from './bench/page-cache.js';
import { seededOrder } from './bench/pattern.js';
import {
  type Measured,
  RANDOM_BYTES,
  type RandomPlan,
  randomCallbacks,
  randomSync,
  randomTryWindows,
  randomWindows,
  type ScanPlan,
  scanCallbacks,
  scanStream,
  scanWindows,
} from './bench/workloads.js';
import { BadInput, parseTourArguments, type TourArguments, usage } from './tour/arguments.js';
import { startProgress } from './tour/progress.js';
import { makeSubject, namedSubject } from './tour/subject.js';
import { explainLines, geometryLines, subjectText } from './tour/words.js';

const depth = 32;
/** Each way of reading runs over this much, for this long, before anything is measured: else the first ones would pay for compiling the code. */
const warmUpBytes = 4 << 20;
const warmUpSeconds = 0.15;
/** Below this a run is over before its figures mean much. */
const tellingBytes = 32 << 20;

interface Row {
  name: string;
  /** What was in memory when it began. */
  state: string;
  measured: Measured;
  /** The row of node:fs that this one is compared to; undefined for node:fs itself. */
  against: Row | undefined;
}

/** What is read, and by what. A mode that this file or system does not allow has no opener. */
interface Subject {
  path: string;
  size: number;
  expected: Uint8Array;
  mapped: BlockFile | undefined;
  direct: BlockFile | undefined;
}

function say(...lines: string[]): void {
  process.stdout.write(`${lines.join('\n')}\n`);
}

/** Opens in one mode; a refusal by the library or the file system is told and the tour goes on without it. */
async function openIn(caching: Caching, path: string): Promise<BlockFile | undefined> {
  try {
    return await open(path, { caching });
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    if (code === 'ERR_SECTORWISE_NATIVE') throw new BadInput(message);
    if (!code?.startsWith('ERR_SECTORWISE_') && code !== 'EINVAL' && code !== 'EOPNOTSUPP') throw error;
    say(...wrap(`  ${caching} is not possible here: ${message}`, 2));
    return undefined;
  }
}

/** Compiles what will be measured. */
async function warmUp({ path, size, expected, mapped, direct }: Subject): Promise<void> {
  const scan: ScanPlan = { size: Math.min(size, warmUpBytes), expected };
  const random: RandomPlan = { order: seededOrder(Math.ceil(scan.size / RANDOM_BYTES), 2), size, depth, seconds: warmUpSeconds, repeat: true, expected };
  const fd = openSync(path, 'r');
  try {
    await randomCallbacks(fd, random);
    await randomSync(fd, random);
    if (mapped) await randomTryWindows(mapped, random);
    await scanStream(path, scan);
    await scanCallbacks(fd, scan);
    for (const file of [mapped, direct]) {
      if (!file) continue;
      await file.evict(0, size);
      await randomWindows(file, random);
      await scanWindows(file, scan);
    }
  } finally {
    closeSync(fd);
  }
}

/** Drops what the frames hold of the file; answers with the state that a run through them begins in. */
async function emptyFrames(direct: BlockFile, size: number): Promise<string> {
  await direct.evict(0, size);
  if (direct.geometry.memoryAlignment === 0) return 'buffered';
  const { cached } = direct.residency(0, size);
  return cached === 0 ? 'device' : `${cached} frames`;
}

async function withProgress(name: string, run: (onProgress: (fraction: number) => void) => Promise<Measured>): Promise<Measured> {
  const progress = startProgress(name, process.stdout);
  try {
    return await run(progress.update);
  } finally {
    progress.stop();
  }
}

async function randomRows(subject: Subject, seconds: number): Promise<Row[]> {
  const { path, size, expected, mapped, direct } = subject;
  const plan = { order: seededOrder(Math.ceil(size / RANDOM_BYTES), 1), size, depth, seconds, expected };
  const rows: Row[] = [];
  const fd = openSync(path, 'r');
  try {
    let state = stateText(await dropCached(mapped, path, size));
    let measured = await withProgress('random, node:fs', (onProgress) => randomCallbacks(fd, { ...plan, onProgress }));
    const cold: Row = { name: `fs.read, ${depth} at a time`, state, measured, against: undefined };
    rows.push(cold);
    if (mapped) {
      state = stateText(await dropCached(mapped, path, size));
      measured = await withProgress('random, page cache', (onProgress) => randomWindows(mapped, { ...plan, onProgress }));
      rows.push({ name: 'window(), page cache', state, measured, against: cold });
    }
    if (direct) {
      state = await emptyFrames(direct, size);
      measured = await withProgress('random, direct', (onProgress) => randomWindows(direct, { ...plan, onProgress }));
      rows.push({ name: 'window(), direct', state, measured, against: cold });
    }
    await readThrough(path, size);
    state = stateText(mapped && cachedPercent(mapped, size));
    measured = await withProgress('random in memory, node:fs', (onProgress) => randomSync(fd, { ...plan, onProgress }));
    const warm: Row = { name: 'fs.readSync', state, measured, against: undefined };
    rows.push(warm);
    if (mapped) {
      measured = await withProgress('random in memory, page cache', (onProgress) => randomTryWindows(mapped, { ...plan, onProgress }));
      rows.push({ name: 'tryWindow(), page cache', state, measured, against: warm });
    }
  } finally {
    closeSync(fd);
  }
  return rows;
}

async function scanRows(subject: Subject): Promise<Row[]> {
  const { path, size, expected, mapped, direct } = subject;
  const plan: ScanPlan = { size, expected };
  const rows: Row[] = [];
  const fd = openSync(path, 'r');
  try {
    let state = stateText(await dropCached(mapped, path, size));
    let measured = await withProgress('scan, fs.createReadStream', (onProgress) => scanStream(path, { ...plan, onProgress }));
    rows.push({ name: 'fs.createReadStream', state, measured, against: undefined });
    state = stateText(await dropCached(mapped, path, size));
    measured = await withProgress('scan, fs.read', (onProgress) => scanCallbacks(fd, { ...plan, onProgress }));
    rows.push({ name: 'fs.read', state, measured, against: undefined });
    const cold = rate(rows[0]) > rate(rows[1]) ? rows[0] : rows[1];
    if (mapped) {
      state = stateText(await dropCached(mapped, path, size));
      measured = await withProgress('scan, page cache', (onProgress) => scanWindows(mapped, { ...plan, onProgress }));
      rows.push({ name: 'windows(), page cache', state, measured, against: cold });
    }
    if (direct) {
      state = await emptyFrames(direct, size);
      measured = await withProgress('scan, direct', (onProgress) => scanWindows(direct, { ...plan, onProgress }));
      rows.push({ name: 'windows(), direct', state, measured, against: cold });
    }
    await readThrough(path, size);
    state = stateText(mapped && cachedPercent(mapped, size));
    measured = await withProgress('scan in memory, fs.read', (onProgress) => scanCallbacks(fd, { ...plan, onProgress }));
    const warm: Row = { name: 'fs.read', state, measured, against: undefined };
    rows.push(warm);
    if (mapped) {
      measured = await withProgress('scan in memory, page cache', (onProgress) => scanWindows(mapped, { ...plan, onProgress }));
      rows.push({ name: 'windows(), page cache', state, measured, against: warm });
    }
  } finally {
    closeSync(fd);
  }
  return rows;
}

/** Bytes a second. */
function rate(row: Pick<Row, 'measured'>): number {
  return row.measured.bytes / row.measured.seconds;
}

function rowCells(row: Row): string[] {
  const { operations, seconds, latencies } = row.measured;
  const sorted = latencies.sorted();
  return [
    `  ${row.name}`,
    row.state,
    figure(rate(row) / 1024 ** 2),
    figure(operations / seconds),
    figure(percentile(sorted, 50)),
    figure(percentile(sorted, 99)),
    ratioText(row),
  ];
}

/** A run that began with other bytes in memory than its peer's cannot be compared with it. */
function ratioText({ against, ...row }: Omit<Row, 'against'> & { against: Row | undefined }): string {
  if (!against) return '1';
  const past = row.state === 'device' || row.state === 'buffered';
  return past || stateWord(row.state) === stateWord(against.state) ? `${figure(rate(row) / rate(against))} x` : '-';
}

function heading(title: string): string[] {
  return [title, 'before', 'MiB/s', 'op/s', 'p50 µs', 'p99 µs', 'node:fs'];
}

async function tour(asked: TourArguments): Promise<boolean> {
  let path: string;
  if (asked.path === undefined) {
    const progress = startProgress(`making a file of ${bytesText(asked.size)}`, process.stdout);
    path = await makeSubject(asked.size, progress.update);
    progress.stop();
  } else {
    path = namedSubject(asked.path);
  }

  const mapped = await openIn('page-cache', path);
  const direct = await openIn('direct', path);
  const either = direct ?? mapped;
  if (!either) throw new BadInput(`${path} can be opened in neither mode`);
  try {
    if (either.size === 0) throw new BadInput(`${path} is empty: there is nothing to read`);
    const size = Math.min(asked.size, either.size);
    say(`${path}`, ...wrap(`  ${subjectText(either, size)}`, 2), '');
    say('Geometry', ...geometryLines(either.geometry), '');
    if (mapped) say('Opened over the page cache', ...explainLines(mapped.explain()), '');
    if (direct) say('Opened for direct I/O', ...explainLines(direct.explain()), '');

    const expected = Buffer.allocUnsafeSlow(size);
    if ((await readThrough(path, size, expected)) !== size) throw new BadInput(`${path} became shorter while it was read`);
    const subject = { path, size, expected, mapped, direct };
    await warmUp(subject);
    const random = await randomRows(subject, asked.seconds);
    const scans = await scanRows(subject);

    const table = tableLines([heading('Random 4 KiB reads'), ...random.map(rowCells), [''], heading('Scan in 1 MiB steps'), ...scans.map(rowCells)]);
    say('', ...table, '');
    say(
      ...wrap(
        'before: how much of the range was in the page cache when the run began; device: read past it, with empty frames. node:fs: throughput as a multiple of the row of node:fs above it (of a scan: the faster one). Each run includes comparing its bytes.',
        0,
      ),
      '',
    );
    if (size < tellingBytes) say(`With less than ${bytesText(tellingBytes)} to read each run is over at once: the figures say little.`, '');
    const rows = [...random, ...scans];
    const operations = rows.reduce((sum, row) => sum + row.measured.operations, 0);
    const mismatches = rows.reduce((sum, row) => sum + row.measured.mismatches, 0);
    for (const row of rows) if (row.measured.mismatches > 0) say(`MISMATCH: ${row.name} (${row.state}): ${row.measured.mismatches} reads differ from node:fs`);
    if (mismatches === 0) say(`All bytes of ${operations.toLocaleString('en-US')} reads were those that node:fs reads.`);
    else say('If nothing else wrote to it during the tour, this is a bug: please report it.');
    return mismatches === 0;
  } finally {
    await mapped?.close();
    await direct?.close();
  }
}

// An 'exit' listener removes the file that the tour made; a signal's default action would end the process without running it.
for (const [signal, number] of [
  ['SIGINT', 2],
  ['SIGTERM', 15],
  ['SIGHUP', 1],
] as const) {
  process.on(signal, () => process.exit(128 + number));
}

try {
  const asked = parseTourArguments(process.argv.slice(2));
  if (asked) process.exitCode = (await tour(asked)) ? 0 : 1;
  else say(usage);
} catch (error) {
  // What the kernel or the library refuses has a code, and a message that says what to do; what has none is a bug of the tour.
  if (!(error instanceof BadInput) && typeof (error as NodeJS.ErrnoException).code !== 'string') throw error;
  process.stderr.write(`sectorwise tour: ${(error as Error).message}\n`);
  process.exitCode = 2;
}
