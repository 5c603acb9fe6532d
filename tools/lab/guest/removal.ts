/**
 * A disk goes away while it is being used, and comes back.
 *
 *   partition 1 ── 'direct' files, one with each engine: 32 reads in flight each, for ever new blocks
 *              └── a 'page-cache' file: 100 windows
 *   partition 2 ── ext4 ── a 'page-cache' file: 1,000 windows
 *
 * Shown: each read that was pending ends, with the right bytes or as unplugged; each window says that it is gone, its older view reads zeros; listeners were told why; the mount
 * point is free; `close` ends and nothing is left open; the disk that is plugged again is read by a new `open`, while what was open before stays dead.
 */
import { existsSync, openSync, readlinkSync, readSync, writeSync } from 'node:fs';
import { type BlockFile, type EngineName, type InvalidateReason, open, type Window } from '../../../src/index.js';
import { firstDifference } from '../content.js';
import { fileSystem, raw } from '../layout.js';
import type { Settings } from '../messages.js';
import { ask, becomes, check, codeOf, command, disk, mountPoint, note, openDescriptors, pciPath, tally, tell, until, within } from './guest.js';

const BLOCK = 4096;
const READS_IN_FLIGHT = 32;
const WINDOWS = 1000;
const RAW_WINDOWS = 100;
/** The drivers' own time limits are 3 seconds, and a controller is given up after a few of them; under emulation everything takes longer. */
const GONE_MS = 60_000;
/** Operations a second once all is set up: 64 reads then take longer than a turn of an emulated event loop, so that what is pulled is busy. */
const BUSY_IOPS = 50;
/** For all files together, from when the reads have ended: the library looks at its files every so often. */
const TOLD_MS = 20_000;
const unplugged = 'ERR_SECTORWISE_UNPLUGGED';
const shutdown = 'ERR_SECTORWISE_SHUTDOWN';

/** Ways to lose a disk. `away` ends when it is done on the outside, `back` plugs it again. */
interface Way {
  orderly: boolean;
  away(name: string): Promise<void>;
  back(): Promise<void>;
}

function wayOf(how: string, serial: string, name: string): Way {
  const { device, port } = pciPath(name);
  const rescan = (): Promise<void> => tell('/sys/bus/pci/rescan', '1');
  if (how === 'remove') return { orderly: true, away: () => tell(`/sys/bus/pci/devices/${device}/remove`, '1'), back: rescan };
  if (how === 'eject') {
    return {
      orderly: true,
      async away() {
        note(`device_del: ${await ask({ what: 'unplug', device: serial })}`);
      },
      async back() {
        await ask({ what: 'plug', device: serial });
      },
    };
  }
  if (how === 'delete') {
    const host = /host\d+/.exec(readlinkSync(`/sys/block/${name}`))![0];
    return { orderly: true, away: () => tell(`/sys/block/${name}/device/delete`, '1'), back: () => tell(`/sys/class/scsi_host/${host}/scan`, '- - -') };
  }
  // Nothing tells the kernel: from one moment to the next all that is read of the controller is ones, and what it was doing never ends.
  const power = slotPower(port);
  return {
    orderly: false,
    away: async () => power(false),
    async back() {
      // The driver gave it up, but its function is still known; a rescan would find that one.
      if (existsSync(`/sys/bus/pci/devices/${device}`)) await tell(`/sys/bus/pci/devices/${device}/remove`, '1');
      power(true);
      await rescan();
    },
  };
}

/**
 * Switches the power of the slot behind a root port: Slot Control of PCI Express, bit 10 (power controller, 1 is off) and bits 9:8 (power indicator, 01 is on). The indicator stays on:
 * with it off, QEMU takes that for the end of an orderly removal, lets the device finish what it is doing, and takes it out.
 */
function slotPower(port: string): (on: boolean) => void {
  const fd = openSync(`/sys/bus/pci/devices/${port}/config`, 'r+');
  const config = Buffer.alloc(256);
  readSync(fd, config, 0, 256, 0);
  let capability = config[0x34];
  while (capability !== 0 && config[capability] !== 0x10) capability = config[capability + 1];
  if (capability === 0) throw new Error(`${port} is no PCI Express port`);
  const control = capability + 0x18;
  return (on) => {
    const value = Buffer.alloc(2);
    value.writeUInt16LE((config.readUInt16LE(control) & ~0x0700) | (on ? 0x0100 : 0x0500));
    writeSync(fd, value, 0, 2, control);
  };
}

/** What one file went through. */
interface Watched {
  title: string;
  file: BlockFile;
  invalidated: Array<{ reason: InvalidateReason; ms: number }>;
  windows: Window[];
  /** Taken before, as a program holds them. */
  views: Uint8Array[];
}

interface Read {
  title: string;
  inFlight: boolean;
  /** How the reads that were pending when the disk went ended, and those after. */
  ends: string[];
  wrong: number;
  count: number;
}

/** Reads blocks nobody asked for before, one after the other, until one fails. */
async function readOn(file: BlockFile, read: Read, lane: number, gone: () => boolean): Promise<void> {
  const target = Buffer.alloc(BLOCK);
  const blocks = raw.bytes / BLOCK;
  for (let index = lane; ; index += READS_IN_FLIGHT) {
    // A large odd step: neighbours in time are no neighbours on the disk, so nothing merges and the small cache never has it.
    const offset = ((index * 2_654_435_761) % blocks) * BLOCK;
    read.inFlight = true;
    const begunBefore = !gone();
    try {
      const length = await file.read(target, offset);
      read.inFlight = false;
      read.count++;
      const different = length === BLOCK ? firstDifference(target, offset, raw.seed) : 0;
      if (different !== undefined) {
        read.wrong++;
        read.ends.push(length === BLOCK ? 'wrong bytes' : `a count of ${length}`);
        return;
      }
      if (gone() && begunBefore) read.ends.push('right bytes');
    } catch (error) {
      read.inFlight = false;
      read.ends.push(codeOf(error));
      return;
    }
  }
}

function watch(title: string, file: BlockFile): Watched {
  const watched: Watched = { title, file, invalidated: [], windows: [], views: [] };
  file.on('invalidate', (reason) => watched.invalidated.push({ reason, ms: performance.now() }));
  return watched;
}

async function takeWindows(watched: Watched, count: number, seed: number): Promise<void> {
  const blocks = Math.floor(watched.file.size / BLOCK);
  const wanted = Array.from({ length: count }, (_, index) => ((index * 7919) % blocks) * BLOCK);
  watched.windows = await Promise.all(wanted.map((offset) => watched.file.window(offset, BLOCK)));
  watched.views = watched.windows.map((window) => window.bytes);
  const wrong = watched.windows.filter((window, index) => firstDifference(watched.views[index], window.offset, seed) !== undefined).length;
  if (wrong > 0) throw new Error(`${wrong} of ${count} windows of ${watched.title} have wrong bytes before anything happened`);
}

async function partitions(name: string): Promise<[string, string]> {
  const infix = /\d$/.test(name) ? 'p' : '';
  const paths: [string, string] = [`/dev/${name}${infix}1`, `/dev/${name}${infix}2`];
  await until(10_000, `partitions of ${name}`, () => paths.every((path) => existsSync(path)));
  return paths;
}

export async function removal(settings: Settings): Promise<void> {
  const serial = String(settings.disk);
  const how = String(settings.how);
  const name = await disk(serial);
  const way = wayOf(how, serial, name);
  const [first, second] = await partitions(name);
  const mounted = mountPoint(`mount-${serial}`);
  await command('mount', '-t', 'ext4', second, mounted);

  const engines: EngineName[] = ['io_uring', 'threads'];
  const direct: Watched[] = [];
  for (const engine of engines) {
    direct.push(watch(`direct, ${engine}`, await open(first, { caching: 'direct', engine, cacheSize: 1 << 20, readAhead: false })));
  }
  const device = watch('page cache of the device', await open(first, { readAhead: false }));
  const file = watch('page cache of an ext4', await open(`${mounted}/${fileSystem.file}`));
  const all = [...direct, device, file];
  await takeWindows(device, RAW_WINDOWS, raw.seed);
  await takeWindows(file, WINDOWS, fileSystem.seed);
  for (const watched of direct) await takeWindows(watched, 8, raw.seed);

  await ask({ what: 'throttle', device: serial, iops: BUSY_IOPS });
  let goneAt: number | undefined;
  const reads: Read[] = [];
  const lanes: Array<Promise<void>> = [];
  for (const watched of direct) {
    for (let lane = 0; lane < READS_IN_FLIGHT; lane++) {
      const read: Read = { title: watched.title, inFlight: false, ends: [], wrong: 0, count: 0 };
      reads.push(read);
      lanes.push(readOn(watched.file, read, lane, () => goneAt !== undefined));
    }
  }
  await until(60_000, 'two reads of each lane', () => reads.every(({ count }) => count >= 2) || reads.some(({ ends }) => ends.length > 0));
  const early = reads.filter(({ ends }) => ends.length > 0);
  if (early.length > 0) throw new Error(`reads failed before anything happened: ${tally(early.flatMap(({ ends }) => ends))}`);
  const pending = reads.filter(({ inFlight }) => inFlight).length;
  const sequences = all.map(({ file: { geometry } }) => (geometry as { diskSequence?: number }).diskSequence);

  goneAt = performance.now();
  const going = way.away(name).then(
    () => undefined,
    (error: Error) => error,
  );
  const ended = await becomes(GONE_MS, () => reads.every(({ inFlight }) => !inFlight));
  const endedMs = Math.round(performance.now() - goneAt);
  const awayError = await within(GONE_MS, 'the removal itself', going);
  if (awayError !== undefined) throw awayError;
  note(
    `${pending} reads in flight when it went; /sys/block/${name} ${existsSync(`/sys/block/${name}`) ? 'is still there' : 'is gone'}; reads over after ${endedMs} ms`,
  );

  for (const { title } of direct) {
    const own = reads.filter((read) => read.title === title);
    const hanging = own.filter(({ inFlight }) => inFlight).length;
    const ends = own.flatMap((read) => read.ends);
    const seen = `${tally(ends)}${hanging > 0 ? `; ${hanging} still pending after ${GONE_MS / 1000} s` : ''}`;
    const good = ends.filter((end) => end === 'right bytes').length;
    // Removed in order, the kernel waits for what the device is doing, and those reads are good; so are those that had just ended when the power went. The next one of that lane is not.
    const fine = ends.filter((end) => end === unplugged).length === READS_IN_FLIGHT && ends.length === READS_IN_FLIGHT + good;
    check(ended && hanging === 0 && fine, `${title}: ${READS_IN_FLIGHT} reads in flight, each lane ended as ${unplugged} (${seen})`, seen);
  }

  const cutOff = pending - reads.filter(({ ends }) => ends.includes('right bytes')).length;
  if (!way.orderly)
    check(cutOff > 0, `${cutOff} of the ${pending} reads in flight were cut off in the middle`, 'none was: the disk was faster than the removal');

  const toldBy = performance.now() + TOLD_MS;
  for (const watched of all) {
    const told = await becomes(toldBy - performance.now(), () => watched.invalidated.length > 0 && watched.windows.every((window) => !window.valid));
    const causes = tally(watched.invalidated.map(({ reason }) => reason.cause));
    const afterMs = watched.invalidated.length > 0 ? `first after ${Math.round(watched.invalidated[0].ms - goneAt)} ms` : 'never';
    const causeFine = watched.invalidated.some(({ reason: { cause } }) => cause === 'unplug' || (cause === 'shutdown' && watched === file));
    check(told && causeFine, `${watched.title}: 'invalidate' came (${causes}, ${afterMs})`, `${causes}, ${afterMs}`);
    const codes = watched.windows.map((window) => {
      if (window.valid) return 'still valid';
      try {
        return `bytes given (${window.bytes.length})`;
      } catch (error) {
        return codeOf(error);
      }
    });
    const allowed = watched === file ? [unplugged, shutdown] : [unplugged];
    check(
      codes.every((code) => allowed.includes(code)),
      `${watched.title}: ${codes.length} windows are invalid and say why (${tally(codes)})`,
      tally(codes),
    );
    const alive = watched.views.filter((view) => view.some((byte) => byte !== 0)).length;
    check(alive === 0, `${watched.title}: ${watched.views.length} older views read zeros`, `${alive} of ${watched.views.length} still show bytes`);
    const later = await within(TOLD_MS, 'a later window', watched.file.window(0, BLOCK)).then(
      () => 'a window',
      (error) => codeOf(error),
    );
    check(allowed.includes(later), `${watched.title}: a later window() is refused (${later})`, later);
  }

  // The library's own descriptor must not hold the mount point: nobody may have closed the file yet.
  let umounted: string;
  try {
    await until(10_000, 'umount', () =>
      command('umount', mounted).then(
        () => true,
        (error: Error) => {
          umounted = error.message;
          return false;
        },
      ),
    );
    umounted = 'done';
  } catch {
    umounted ??= 'it does not end';
  }
  check(umounted === 'done', 'the mount point can be unmounted while the file is still open', umounted);

  // One stays open, to see that it stays dead when the disk is back.
  const [old, ...others] = all;
  for (const { title, file: opened } of others) await closeIt(title, opened);
  if (umounted !== 'done') {
    const again = await command('umount', mounted).then(
      () => 'done',
      (error: Error) => error.message,
    );
    note(`unmounting once everything is closed: ${again}`);
  }

  await ask({ what: 'throttle', device: serial, iops: 0 });
  await way.back();
  const anew = await disk(serial, 60_000);
  const [firstAnew, secondAnew] = await partitions(anew);
  await command('mount', '-t', 'ext4', secondAnew, mounted);
  for (const [title, path, { seed }, caching] of [
    ['direct', firstAnew, raw, 'direct'],
    ['page cache of an ext4', `${mounted}/${fileSystem.file}`, fileSystem, 'page-cache'],
  ] as const) {
    const opened = await open(path, { caching });
    let wrong = 0;
    for (let block = 0; block < 64; block++) {
      const window = await opened.window(block * 3 * BLOCK, BLOCK);
      if (firstDifference(window.bytes, window.offset, seed) !== undefined) wrong++;
      window.release();
    }
    check(wrong === 0, `plugged again as /dev/${anew} and opened anew, ${title}: right bytes`, `${wrong} of 64 blocks are wrong`);
    const sequence = (opened.geometry as { diskSequence?: number }).diskSequence;
    const before = caching === 'direct' ? sequences[0] : sequences[3];
    if (sequence === undefined) note(`${title}: geometry.diskSequence is undefined`);
    else
      check(
        before !== undefined && sequence > before,
        `${title}: another diskSequence (${before} before, ${sequence} now)`,
        `${before} before, ${sequence} now`,
      );
    await opened.close();
  }
  const revived = await within(TOLD_MS, 'a window of the old file', old.file.window(0, BLOCK)).then(
    () => 'a window',
    (error) => codeOf(error),
  );
  check(
    revived === unplugged && old.windows.every((window) => !window.valid),
    `what was open before stays dead (${revived})`,
    `window(): ${revived}; ${old.windows.filter((window) => window.valid).length} windows valid`,
  );
  await closeIt(old.title, old.file);
  for (const { windows } of all) for (const window of windows) window.release();
  await command('umount', mounted);

  const left = openDescriptors().filter((target) => target.includes(name) || target.includes(anew) || target.startsWith(mounted));
  check(left.length === 0, 'no descriptor of the disk or its files is left', left.join(', '));
}

async function closeIt(title: string, file: BlockFile): Promise<void> {
  const how = await within(TOLD_MS, `close of ${title}`, file.close()).then(
    () => 'done',
    (error) => codeOf(error),
  );
  check(how === 'done' || how === unplugged, `${title}: close() ends (${how})`, how);
}
