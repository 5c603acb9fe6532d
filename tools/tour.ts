/**
 * `npm start -- [file or device]`: a look at one file or device through the library, in about half a minute.
 *
 * Tells its geometry in words and shows what of it is in memory, compares every byte with node:fs, lets ways of reading race, cuts a file of its own under a window, and ends
 * with a table.
 * Guarantees: what was named is only read; nothing is compared while it is measured but small sums, by all in the same way; exit code 0 only if every byte was the one that
 * node:fs reads, and the cut file did what the library promises.
 */
import { closeSync, fdatasyncSync, openSync } from 'node:fs';
import { type FileHandle, open as openHandle } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as wait } from 'node:timers/promises';
import { shown } from '../src/cli/terminal.js';
import { readGeometry } from '../src/geometry/geometry.js';
import { type BlockFile, type Caching, type Extent, open } from '../src/index.js';
import { version } from '../src/layout/version.js';
import { bytesText, figure, tableLines } from './bench/format.js';
import { cachedPercent, dropCached, readThrough } from './bench/page-cache.js';
import { seededOrder } from './bench/pattern.js';
import { BadInput, parseTourArguments, type TourArguments, usage } from './tour/arguments.js';
import { BLOCK_BYTES, type Compared, compareAll, LOOK_BYTES } from './tour/compare.js';
import {
  type Contender,
  depth,
  type Material,
  randomCallbacks,
  randomSync,
  randomTryWindows,
  randomWindows,
  scanCallbacks,
  scanStream,
  scanSync,
  scanWindows,
  stepsAhead,
} from './tour/contenders.js';
import { stripLegend, stripLine, stripOf } from './tour/picture.js';
import { type RaceJob, type RaceResult, type Runner, race } from './tour/race.js';
import { progressOf, Screen } from './tour/screen.js';
import { makeSubject, namedSubject, temporaryFolder } from './tour/subject.js';
import { truncateUnderWindows } from './tour/truncate.js';
import { directText, explainLines, factLines, placeText, sectorText, tellsResidency } from './tour/words.js';

/** Below this a turn is over before its figures mean much. */
const tellingBytes = 32 << 20;
/** Windows that are read into the picture, and the longest of them. */
const holesFilled = 7;
const holeBytes = 8 << 20;
/** Page cache that should be empty may hold so much of the range (per cent), and one that should be full may lack it. */
const stateSlack = 2;
/** What does not go at once is dropped again, so often and after so long. */
const dropsMax = 20;
const dropAgainMs = 10;
/** The largest folio that the page cache has; they lie at multiples of their size. */
const folioBytes = 2 << 20;
/** Shorter ranges have too few steps for a scan. */
const scannedBytes = 8 << 20;

/** What is read, and by what. A mode that this file or system does not allow has no opener. */
interface Subject {
  path: string;
  size: number;
  /** What is dropped from memory: up to the next border of a page cache folio, since the kernel drops whole ones only. */
  dropped: number;
  mapped: BlockFile | undefined;
  direct: BlockFile | undefined;
  /** The kernel tells what of it is in the page cache. */
  told: boolean;
}

const screen = new Screen(process.stdout, process.env);

/** Opens in one mode; a refusal by the library or the file system is told and the tour goes on without it. */
async function openIn(caching: Caching, path: string): Promise<BlockFile | undefined> {
  try {
    return await open(path, { caching });
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    if (code === 'ERR_SECTORWISE_NATIVE') throw new BadInput(message);
    if (!code?.startsWith('ERR_SECTORWISE_') && code !== 'EINVAL' && code !== 'EOPNOTSUPP') throw error;
    screen.tell(`${caching} mode is not possible here: ${message}`);
    return undefined;
  }
}

async function extentsOf(file: BlockFile): Promise<Extent[] | undefined> {
  try {
    return await file.extents();
  } catch {
    return undefined;
  }
}

async function tellGeometry({ path, mapped, direct }: Subject, explain: boolean): Promise<void> {
  const file = direct ?? mapped;
  if (!file) return;
  screen.heading('Where it lies');
  const fd = openSync(path, 'r');
  let fsName: string;
  try {
    ({ fsName } = readGeometry(fd, { direct: false }));
  } finally {
    closeSync(fd);
  }
  screen.tell(`  ${placeText(file, fsName, await extentsOf(file))}`, 2);
  screen.tell(`  ${sectorText(file.geometry)}`, 2);
  screen.tell(`  ${directText(file.geometry)}`, 2);
  screen.heading('How it is read here');
  for (const fact of factLines(mapped?.explain(), direct?.explain())) screen.tell(`  - ${fact}`, 4);
  if (!explain) {
    screen.say('  (--explain lists every feature of the kernel, in use or not, and why)');
    return;
  }
  for (const opener of [mapped, direct]) {
    if (!opener) continue;
    screen.heading(opener === mapped ? 'explain(), page-cache mode' : 'explain(), direct mode');
    for (const line of explainLines(opener.explain())) screen.tell(line, 6);
  }
}

/** As it was found, empty, a few windows, empty again. */
async function showResidency({ path, size, dropped, mapped, told }: Subject): Promise<void> {
  screen.heading('What of it is in the page cache');
  if (!mapped || !told) {
    const why = mapped ? 'The kernel tells this only to those who own the file or may write to it.' : 'Without page-cache mode there is no picture of it.';
    screen.tell(`  ${why} So it is not proved below that memory was empty or full before a race.`, 2);
    return;
  }
  const strip = stripOf(size, screen.columns);
  screen.say(stripLine(screen, 'as found', mapped, size, strip));
  await dropCached(mapped, path, dropped);
  screen.say(stripLine(screen, 'after evict()', mapped, size, strip));
  if ((cachedPercent(mapped, size) ?? 0) > stateSlack) {
    screen.say(stripLegend(screen, strip));
    screen.tell('  It cannot be dropped: it lies in memory (tmpfs), or somebody else holds it.', 2);
    return;
  }
  const windows = Math.min(holesFilled, strip.ranges);
  for (let index = 0; index < windows; index++) {
    const offset = Math.floor(((index + 0.5) * strip.ranges) / windows) * strip.rangeBytes;
    // Of every second range only a part, so that the picture has a grey.
    const length = index % 2 === 0 ? strip.rangeBytes : Math.ceil(strip.rangeBytes / 3);
    const window = await mapped.window(offset, Math.min(holeBytes, length, size - offset));
    window.release();
  }
  screen.say(stripLine(screen, `${windows} window${windows === 1 ? '' : 's'} read`, mapped, size, strip));
  await dropCached(mapped, path, dropped);
  screen.say(stripLine(screen, 'evict() again', mapped, size, strip), stripLegend(screen, strip));
}

async function compareSubject(handle: FileHandle, { path, size, mapped, direct }: Subject): Promise<Compared> {
  const modes = [...(mapped ? [{ name: 'page-cache mode', file: mapped }] : []), ...(direct ? [{ name: 'direct mode', file: direct }] : [])];
  const compared = await compareAll(handle, path, size, modes, progressOf(screen, 'comparing every byte with node:fs'));
  screen.drop();
  const front = `${size.toLocaleString('en-US')} ${size === 1 ? 'byte' : 'bytes'} front to end`;
  const result = compared.differences.length === 0 ? 'all are the same' : `${compared.differences.length} DIFFERENCES`;
  screen.tell(
    `  Compared with node:fs before any race: ${front} in ${modes.length === 2 ? 'both modes' : modes[0].name}, and ${compared.ranges.toLocaleString('en-US')} ranges that begin and end anywhere: ${result}.`,
    2,
  );
  return compared;
}

/** Drops until it is gone: what read-ahead of the turn before still brings comes after the first time. */
async function emptied(drop: () => Promise<unknown>, percent: () => number | undefined): Promise<number | undefined> {
  for (let tries = 1; ; tries++) {
    await drop();
    const left = percent();
    if (left === undefined || left <= stateSlack || tries === dropsMax) return left;
    await wait(dropAgainMs);
  }
}

/** Per cent of the range in the frames of the direct mode. */
function framesPercent(direct: BlockFile, size: number): number {
  const { cached, pages } = direct.residency(0, size);
  return (100 * cached) / Math.max(1, pages);
}

/** Four races; those from the disk only where memory can be emptied. */
async function runRaces(material: Material, { path, size, dropped, mapped, direct, told }: Subject, seconds: number): Promise<RaceResult[]> {
  const percent = (): number | undefined => (mapped && told ? cachedPercent(mapped, size) : undefined);
  const emptyCache = (): Promise<number | undefined> => emptied(() => (mapped ? mapped.evict(0, dropped) : dropCached(undefined, path, dropped)), percent);
  const emptyFrames = (): Promise<number | undefined> =>
    emptied(
      async () => direct?.evict(0, size),
      () => direct && framesPercent(direct, size),
    );
  const fullCache = async (): Promise<number | undefined> => percent();
  const runner = (prepare: Runner['prepare'], own: boolean, contender: Contender): Runner => ({ ...contender, own, prepare });
  const places = material.order.length;
  const common = { seconds, places };

  // A file may lie in memory, or be held there by others.
  const left = await emptyCache();
  const empties = left === undefined || left <= stateSlack;
  const past = direct && direct.geometry.memoryAlignment > 0 ? direct : undefined;
  const jobs: RaceJob[] = [];
  if (empties) {
    const random = [runner(emptyCache, true, randomCallbacks(material))];
    const scans = [runner(emptyCache, true, scanStream(material)), runner(emptyCache, true, scanCallbacks(material))];
    if (mapped) {
      random.push(runner(emptyCache, false, randomWindows('window(), page cache', mapped, material)));
      scans.push(runner(emptyCache, false, scanWindows('windows(), page cache', mapped, material)));
    }
    if (past) {
      random.push(runner(emptyFrames, false, randomWindows('window(), direct', past, material)));
      scans.push(runner(emptyFrames, false, scanWindows('windows(), direct', past, material)));
    }
    jobs.push(
      { ...common, title: `Random reads of 4 KiB from the disk, ${depth} at a time`, unit: 'reads/s', warm: false, runners: random },
      { ...common, title: 'Scan in steps of 1 MiB from the disk', unit: 'MiB/s', warm: false, runners: scans },
    );
  } else {
    screen.tell(`  No race from the disk: ${Math.round(left ?? 0)} % of it cannot be dropped from memory.`, 2);
  }
  const fromMemory = [runner(fullCache, true, randomSync(material))];
  const scansInMemory = [runner(fullCache, true, scanSync(material))];
  if (mapped) {
    fromMemory.push(runner(fullCache, false, randomTryWindows(mapped, material)));
    scansInMemory.push(runner(fullCache, false, scanWindows('windows(), page cache', mapped, material)));
    jobs.push(
      { ...common, title: 'Random reads of 4 KiB from memory', unit: 'reads/s', warm: true, runners: fromMemory },
      { ...common, title: 'Scan in steps of 1 MiB from memory', unit: 'MiB/s', warm: true, runners: scansInMemory },
    );
  }
  if (size < scannedBytes) screen.tell(`  No scans: that takes ${bytesText(scannedBytes)}, to have more than a few steps of 1 MiB.`, 2);
  const results: RaceResult[] = [];
  for (const job of jobs) {
    if (job.unit === 'MiB/s' && size < scannedBytes) continue;
    if (job.warm) await readThrough(path, size);
    results.push(await race(job, screen));
  }
  return results;
}

function stateWords({ job, cached }: RaceResult): string {
  if (!cached) return 'page cache not told';
  const [least, most] = cached.map((percent) => Math.round(percent));
  const expected = job.warm ? cached[0] >= 100 - stateSlack : cached[1] <= stateSlack;
  const range = least === most ? `${least} %` : `${least}-${most} %`;
  return expected ? `page cache ${range}` : `page cache ${range}: NOT ${job.warm ? 'full' : 'empty'}`;
}

function tableOf(results: readonly RaceResult[]): string[] {
  const head = ['', 'per second', 'p50 µs', 'p99 µs', 'CPU µs', 'vs node:fs'];
  const rows = results.flatMap(({ job, results: runners }) =>
    runners.map(({ name, rate, p50, p99, cpu, ratio }) => {
      const per = job.unit === 'reads/s' ? figure(rate) : `${figure(rate)} MiB`;
      return [`  ${name}`, per, figure(p50), figure(p99), figure(cpu), ratio === 1 ? '1' : `${figure(ratio)} x`];
    }),
  );
  const [top, ...lines] = tableLines([head, ...rows]);
  const out = [top];
  for (const [index, result] of results.entries()) {
    out.push(...(index === 0 ? [] : ['']), `${result.job.title} (${stateWords(result)})`, ...lines.splice(0, result.results.length));
  }
  return out;
}

function tellTable(results: readonly RaceResult[], size: number): void {
  screen.heading('The races');
  screen.say(...tableOf(results), '');
  const legend = [
    ['page cache', 'how much of it was there before each turn, as the kernel counts'],
    ['p50, p99', 'of a read of 4 KiB, or of a step of 1 MiB'],
    ['CPU', 'processor time of the whole process for one of them'],
    ['vs node:fs', 'speed, beside its fastest way in that race: median of the rounds'],
  ];
  for (const [name, meaning] of legend) screen.say(`  ${name.padEnd(12)}${meaning}`);
  const threads = process.env.UV_THREADPOOL_SIZE ?? '4';
  screen.tell(
    `All read the same blocks in the same order, in turns, look at one byte of every ${LOOK_BYTES} and check their sum. node:fs reads on ${threads} threads (UV_THREADPOOL_SIZE), scans ${stepsAhead} steps ahead with fs.read; direct reads begin with empty frames.`,
  );
  if (size < tellingBytes) screen.tell(`With less than ${bytesText(tellingBytes)} to read each turn is over at once: the figures say little.`);
}

async function tellTruncate(): Promise<boolean> {
  screen.heading('A file cut under an open window');
  screen.tell('  A program in C that touches mapped bytes which are gone dies of SIGBUS. Here, on a file that the tour makes in the temp folder:', 2);
  try {
    const { lines, kept } = await truncateUnderWindows(join(temporaryFolder(), 'cut'));
    for (const line of lines) screen.tell(`  - ${line}`, 4);
    if (!kept) screen.tell('  This is NOT what the library promises. Please report it.', 2);
    return kept;
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    if (code === undefined) throw error;
    screen.tell(`  Left out: ${message}`, 2);
    return true;
  }
}

function tellNext(device: string | undefined): void {
  screen.heading('Next');
  screen.say(
    '  docs/guides/getting-started.md          a page store on it, step by step',
    '  docs/guides/page-cache-or-direct.md     which mode for which engine, measured',
    '  docs/guides/windows-and-lifetimes.md    what a window promises, and until when',
    `  npx sectorwise align ${device === undefined ? '<your disk>' : `/dev/${device}`}`,
  );
}

async function tour(asked: TourArguments): Promise<boolean> {
  screen.say(`${screen.bold(`sectorwise ${version}`)}: the bytes of files and block devices, without copying them.`);
  let path: string;
  if (asked.path === undefined) {
    screen.tell(
      `This reads a file of ${bytesText(asked.size)} that it makes in the temp folder, and removes. Name your own: npm start -- /path/of/file-or-device (it is only read).`,
    );
    path = await makeSubject(asked.size, progressOf(screen, `making a file of ${bytesText(asked.size)}`));
    screen.drop();
  } else {
    path = namedSubject(asked.path);
    screen.tell(`This reads ${shown(path)}, and only reads it.`);
  }

  const mapped = await openIn('page-cache', path);
  const direct = await openIn('direct', path);
  const either = direct ?? mapped;
  if (!either) throw new BadInput(`${path} can be opened in neither mode`);
  const handle = await openHandle(path, 'r');
  try {
    const size = Math.min(asked.size, either.size);
    const dropped = Math.min(either.size, Math.ceil(size / folioBytes) * folioBytes);
    const subject: Subject = { path, size, dropped, mapped, direct, told: mapped !== undefined && tellsResidency(mapped.explain()) };
    if (size < either.size) screen.say(`Of its ${bytesText(either.size)} the first ${bytesText(size)} are read (--size).`);
    await tellGeometry(subject, asked.explain);
    let compared: Compared | undefined;
    let results: RaceResult[] = [];
    if (size === 0) {
      screen.say('', 'It is empty: nothing to read, nothing to race for.');
    } else {
      await showResidency(subject);
      screen.heading('Reads racing node:fs');
      // Dirty pages cannot be dropped.
      fdatasyncSync(handle.fd);
      compared = await compareSubject(handle, subject);
      const order = seededOrder(Math.ceil(size / BLOCK_BYTES), 1);
      results = await runRaces({ path, fd: handle.fd, size, sums: compared.sums, order }, subject, asked.seconds);
    }
    const kept = await tellTruncate();
    if (results.length > 0) tellTable(results, size);
    const same = tellSame(compared, results);
    tellNext(either.geometry.device);
    return same && kept;
  } finally {
    await handle.close();
    await mapped?.close();
    await direct?.close();
  }
}

function tellSame(compared: Compared | undefined, results: readonly RaceResult[]): boolean {
  if (!compared) return true;
  const runners = results.flatMap((result) => result.results);
  const differences = [
    ...compared.differences.slice(0, 5),
    ...runners.filter(({ wrong }) => wrong > 0).map(({ name, wrong }) => `${name}: ${wrong} timed reads`),
  ];
  screen.say('');
  if (differences.length === 0) {
    const timed = runners.reduce((sum, { operations }) => sum + operations, 0);
    screen.tell(
      `All bytes were those that node:fs reads: ${compared.bytes.toLocaleString('en-US')} compared one by one, ${timed.toLocaleString('en-US')} timed reads by their sums.`,
    );
    return true;
  }
  for (const difference of differences) screen.tell(`MISMATCH: ${difference} differ from node:fs`, 2);
  screen.tell('If nothing else wrote to it during the tour, this is a bug: please report it.');
  return false;
}

// An 'exit' listener removes what the tour made and gives the cursor back; a signal's default action would end the process without running it.
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
  else screen.say(usage);
} catch (error) {
  screen.keep();
  // What the kernel or the library refuses has a code, and a message that says what to do; what has none is a bug of the tour.
  if (!(error instanceof BadInput) && typeof (error as NodeJS.ErrnoException).code !== 'string') throw error;
  process.stderr.write(`sectorwise tour: ${(error as Error).message}\n`);
  process.exitCode = 2;
}
