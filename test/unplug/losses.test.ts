/** Devices and file systems that go away under watched files, and what must not be taken for that. */
import { execFileSync, spawnSync } from 'node:child_process';
import { closeSync, constants, existsSync, openSync, readFileSync, truncateSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import { native, ROLE_MEMBER } from '../../src/io/native.js';
import { CAUSE_SHUTDOWN, CAUSE_UNPLUG, claimWord, freeWord, validity } from '../../src/memory/validity.js';
import { type Dependence, dependenceOf } from '../../src/unplug/devices.js';
import { type WatchedFile, watchFile } from '../../src/unplug/watcher.js';
import { note, Places } from '../fixtures/places.js';
import { hasCommand, isRoot, noFileSystem, noLoopDevices } from '../geometry/loop-devices.js';
import { until, untilBusy } from './until.js';

const MEBIBYTE = 1 << 20;
const EIO = 5;
const { O_RDONLY, O_RDWR, O_DIRECT } = constants;
const undo: Array<() => void> = [];
// One for each test: mkfs.btrfs looks at every mounted loop device, and stops at one that is dead.
let lab = new Places();
afterEach(() => {
  for (const step of undo.splice(0).reverse()) step();
  lab.dispose();
  lab = new Places();
});

const noXfsIo = hasCommand('xfs_io') ? undefined : 'needs xfs_io, to shut a file system down';
const noDeadDevice = noFileSystem('mkfs.xfs') ?? noXfsIo;
const noExt4 = noFileSystem('mkfs.ext4');
const noZram = !isRoot ? 'needs root' : existsSync('/sys/class/zram-control/hot_add') ? undefined : 'needs zram';
const makes = { ext4: 64, xfs: 400, btrfs: 256 };
type FileSystem = keyof typeof makes;

function run(command: string, ...args: string[]): string {
  return execFileSync(command, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] }).trim();
}

const shutDown = (folder: string): string => run('xfs_io', '-x', '-c', 'shutdown', folder);

/** A device whose every operation fails once `kill` was called: its image lies on an xfs that is shut down then. */
function mortalDevice(bytes: number): { device: string; image: string; kill: () => void } {
  const { folder } = lab.loops.fileSystem(Math.max(400 * MEBIBYTE, bytes * 2), 'mkfs.xfs', '-q');
  const image = join(folder, 'image');
  writeFileSync(image, '');
  truncateSync(image, bytes);
  return { device: lab.loops.attach(image), image, kill: () => shutDown(folder) };
}

interface Watching {
  watched: WatchedFile;
  told: unknown[];
  word: number;
  fd: number;
}

function watch(path: string, size: number, flags = O_RDONLY): Watching {
  const fd = openSync(path, flags);
  const word = claimWord();
  const told: unknown[] = [];
  const watched = watchFile(
    { fd, word, size },
    { lost: (cause) => told.push(['lost', cause]), sizeChanged: () => told.push('size'), faulted: () => told.push('fault') },
  );
  watched.setLive(1);
  undo.push(() => {
    watched.unwatch();
    freeWord(word);
    closeSync(fd);
  });
  return { watched, told, word, fd };
}

/** A watch of devices alone: with nothing open on them, they can be removed. */
function watchDevices(dependence: Dependence): { cause: () => number; signals: () => number } {
  expect(native().startWatching(() => {})).toBe(0);
  const [word, signal, live] = [claimWord(), claimWord(), claimWord()];
  const id = native().watch({ ...dependence, fd: -1, word, signal, live, size: 0, node: '', nodeMajor: 0, nodeMinor: 0 });
  expect(id).toBeGreaterThan(0);
  undo.push(() => {
    native().unwatch(id);
    for (const each of [word, signal, live]) freeWord(each);
  });
  const { words } = validity();
  return { cause: () => Atomics.load(words, word), signals: () => Atomics.load(words, signal) };
}

function dependenceOfPath(path: string): Dependence {
  const fd = openSync(path, O_RDONLY);
  try {
    return dependenceOf(native().probe(fd));
  } finally {
    closeSync(fd);
  }
}

const settled = (watched: WatchedFile, errno: number): Promise<number> => new Promise((resolve) => watched.suspect(errno, resolve));

describe.each(['ext4', 'xfs'] as const)('a file system that is shut down (%s)', (kind) => {
  const missing = noFileSystem(`mkfs.${kind}`) ?? noXfsIo;
  const modes = [
    ['page-cache', O_RDWR],
    ['direct', O_RDWR | O_DIRECT],
  ] as const;

  it.skipIf(missing !== undefined).each(modes)(
    `is found by itself, also by a loop that never returns to its event loop (%s)${note(missing)}`,
    async (_, flags) => {
      const { folder } = lab.loops.fileSystem(makes[kind] * MEBIBYTE, `mkfs.${kind}`, '-q');
      const path = join(folder, 'file');
      writeFileSync(path, Buffer.alloc(MEBIBYTE, 3));
      run('sync', '-f', path);
      const { told, word, watched } = watch(path, MEBIBYTE, flags);
      const other = watch(path, MEBIBYTE, flags);
      expect(await settled(watched, EIO)).toBe(0);
      shutDown(folder);
      const { words } = validity();
      untilBusy(() => words[word] !== 0 && words[other.word] !== 0);
      expect([words[word], words[other.word]]).toEqual([CAUSE_SHUTDOWN, CAUSE_SHUTDOWN]);
      expect(told).toEqual([]);
      await until(() => told.length > 0 && other.told.length > 0);
      expect(told).toEqual([['lost', CAUSE_SHUTDOWN]]);
      expect(watched.check()).toBe(CAUSE_SHUTDOWN);
      expect(await settled(watched, EIO)).toBe(CAUSE_SHUTDOWN);
      expect(watched.suspectSync(EIO)).toBe(CAUSE_SHUTDOWN);
    },
  );

  it.skipIf(missing !== undefined)(`answers a suspicion of a file without live windows${note(missing)}`, async () => {
    const { folder } = lab.loops.fileSystem(makes[kind] * MEBIBYTE, `mkfs.${kind}`, '-q');
    const path = join(folder, 'file');
    writeFileSync(path, Buffer.alloc(MEBIBYTE, 3));
    run('sync', '-f', path);
    const first = watch(path, MEBIBYTE);
    const second = watch(path, MEBIBYTE);
    first.watched.setLive(0);
    second.watched.setLive(0);
    shutDown(folder);
    expect(await settled(first.watched, EIO)).toBe(CAUSE_SHUTDOWN);
    expect(second.watched.suspectSync(EIO)).toBe(CAUSE_SHUTDOWN);
    await until(() => first.told.length + second.told.length === 2);
  });
});

describe.skipIf(noDeadDevice !== undefined)(`a device that answers no more${note(noDeadDevice)}`, () => {
  it.each(['page-cache', 'direct'])('is found where it was opened itself (%s)', async (mode) => {
    const { device, kill } = mortalDevice(16 * MEBIBYTE);
    const one = watch(device, 16 * MEBIBYTE, mode === 'direct' ? O_RDWR | O_DIRECT : O_RDWR);
    const idle = watch(device, 16 * MEBIBYTE);
    idle.watched.setLive(0);
    expect(await settled(one.watched, EIO)).toBe(0);
    kill();
    await until(() => one.told.length > 0 && idle.told.length > 0);
    // All that is on it goes with it.
    expect([one.told, idle.told]).toEqual([[['lost', CAUSE_UNPLUG]], [['lost', CAUSE_UNPLUG]]]);
  });

  const kinds = (Object.keys(makes) as FileSystem[]).map((kind) => [kind, noFileSystem(`mkfs.${kind}`)] as const);
  for (const [kind, missing] of kinds) {
    it.skipIf(missing !== undefined)(`is found under a file of ${kind}${note(missing)}`, () => diesUnder(kind));
  }

  async function diesUnder(kind: FileSystem): Promise<void> {
    const { device, kill } = mortalDevice(makes[kind] * MEBIBYTE);
    run(`mkfs.${kind}`, '-q', device);
    const folder = lab.loops.mount(device);
    const path = join(folder, 'file');
    writeFileSync(path, Buffer.alloc(MEBIBYTE, 3));
    run('sync', '-f', path);
    const live = watch(path, MEBIBYTE);
    const idle = watch(path, MEBIBYTE);
    idle.watched.setLive(0);
    expect(await settled(live.watched, EIO)).toBe(0);
    kill();
    await until(() => live.told.length > 0 && idle.told.length > 0);
    expect([live.told, idle.told]).toEqual([[['lost', CAUSE_UNPLUG]], [['lost', CAUSE_UNPLUG]]]);
  }

  it('is found by who suspects it, at once', async () => {
    const { device, kill } = mortalDevice(64 * MEBIBYTE);
    run('mkfs.ext4', '-q', device);
    const path = join(lab.loops.mount(device), 'file');
    writeFileSync(path, Buffer.alloc(MEBIBYTE, 3));
    run('sync', '-f', path);
    const { watched } = watch(path, MEBIBYTE);
    watched.setLive(0);
    kill();
    expect(watched.suspectSync(EIO)).toBe(CAUSE_UNPLUG);
  });

  it('is found by direct reads of the file alone where its node may not be opened, of this file alone', async () => {
    const { device, kill } = mortalDevice(64 * MEBIBYTE);
    run('mkfs.ext4', '-q', device);
    const path = join(lab.loops.mount(device), 'file');
    writeFileSync(path, Buffer.alloc(MEBIBYTE, 3));
    run('sync', '-f', path);
    const fd = openSync(path, O_RDONLY);
    undo.push(() => closeSync(fd));
    expect(native().startWatching(() => {})).toBe(0);
    const begin = (bytes: number): { id: number; word: number } => {
      const [word, signal, live] = [claimWord(), claimWord(), claimWord()];
      const id = native().watch({ ...dependenceOfPath(path), fd, word, signal, live, size: bytes, node: '', nodeMajor: 0, nodeMinor: 0, devices: [] });
      undo.push(() => {
        native().unwatch(id);
        for (const each of [word, signal, live]) freeWord(each);
      });
      return { id, word };
    };
    const { id, word } = begin(MEBIBYTE);
    const untouched = begin(MEBIBYTE);
    expect(native().suspectSync(id, EIO)).toBe(0);
    kill();
    expect(native().suspectSync(id, EIO)).toBe(CAUSE_UNPLUG);
    const { words } = validity();
    expect([words[word], words[untouched.word]]).toEqual([CAUSE_UNPLUG, 0]);
  });
});

describe.skipIf(noLoopDevices !== undefined)(`a device with bad sectors${note(noLoopDevices)}`, () => {
  it('is there', async () => {
    const image = lab.loops.image(8 * MEBIBYTE);
    const device = lab.loops.attach(image);
    const { watched, told } = watch(device, 8 * MEBIBYTE);
    // The loop device keeps its size, and gives EIO for what its image has no bytes for: here the last place alone, then all but the first.
    for (const bytes of [6 * MEBIBYTE, 8192]) {
      truncateSync(image, bytes);
      expect(() => execFileSync('dd', [`if=${device}`, 'of=/dev/null', 'bs=4096', 'skip=2047', 'iflag=direct'], { stdio: 'pipe' })).toThrow();
      for (let i = 0; i < 20; i++) expect(await settled(watched, EIO)).toBe(0);
    }
    expect(told).toEqual([]);
    truncateSync(image, 0);
    expect(await settled(watched, EIO)).toBe(CAUSE_UNPLUG);
  });

  it.skipIf(noExt4 !== undefined)(`may have all of a file on them${note(noExt4)}`, async () => {
    const image = lab.loops.image(64 * MEBIBYTE);
    const device = lab.loops.attach(image);
    // Without a journal nothing at the end of the device is needed, and the file is put there.
    run('mkfs.ext4', '-q', '-O', '^has_journal', '-g', '8192', device);
    const folder = lab.loops.mount(device);
    const filler = join(folder, 'filler');
    const path = join(folder, 'file');
    run('fallocate', '-l', String(40 * MEBIBYTE), filler);
    writeFileSync(path, Buffer.alloc(MEBIBYTE, 3));
    run('sync', '-f', path);
    const fd = openSync(path, O_RDONLY);
    const { values } = native().fiemap(fd, 0, MEBIBYTE, true);
    closeSync(fd);
    const from = Math.min(...Array.from({ length: values.length / 4 }, (_, index) => values[index * 4 + 1]));
    const { watched, told } = watch(path, MEBIBYTE);
    watched.setLive(0);
    truncateSync(image, from);
    expect(() => execFileSync('dd', [`if=${path}`, 'of=/dev/null', 'bs=4096', 'iflag=direct'], { stdio: 'pipe' })).toThrow();
    expect(await settled(watched, EIO)).toBe(0);
    expect(told).toEqual([]);
    truncateSync(image, 64 * MEBIBYTE);
  });
});

describe.skipIf(noLoopDevices !== undefined)(`the size of a device${note(noLoopDevices)}`, () => {
  it('is told when it becomes smaller, and larger', async () => {
    const image = lab.loops.image(8 * MEBIBYTE);
    const device = lab.loops.attach(image);
    const { watched, told } = watch(device, 8 * MEBIBYTE);
    truncateSync(image, 4 * MEBIBYTE);
    run('losetup', '-c', device);
    await until(() => told.length === 1);
    truncateSync(image, 16 * MEBIBYTE);
    run('losetup', '-c', device);
    await until(() => told.length === 2);
    expect(told).toEqual(['size', 'size']);
    expect(watched.check()).toBe(0);
  });

  it('of no bytes at all is the loss of it', async () => {
    const image = lab.loops.image(8 * MEBIBYTE);
    const device = lab.loops.attach(image);
    const { told } = watch(device, 8 * MEBIBYTE);
    truncateSync(image, 0);
    run('losetup', '-c', device);
    await until(() => told.length === 1);
    expect(told).toEqual([['lost', CAUSE_UNPLUG]]);
  });
});

describe.skipIf(noZram !== undefined)(`a device that is removed${note(noZram)}`, () => {
  function zram(): { device: string; remove: () => void } {
    const id = readFileSync('/sys/class/zram-control/hot_add', 'utf8').trim();
    writeFileSync(`/sys/block/zram${id}/disksize`, String(8 * MEBIBYTE));
    let there = true;
    const remove = (): void => {
      if (!there) return;
      there = false;
      writeFileSync(`/sys/block/zram${id}/reset`, '1');
      writeFileSync('/sys/class/zram-control/hot_remove', id);
    };
    undo.push(remove);
    return { device: `/dev/zram${id}`, remove };
  }

  it('ends every file on it, with or without live windows', () => {
    const { device, remove } = zram();
    const watches = [watchDevices(dependenceOfPath(device)), watchDevices(dependenceOfPath(device))];
    expect(watches.map(({ cause }) => cause())).toEqual([0, 0]);
    remove();
    untilBusy(() => watches.every(({ cause }) => cause() !== 0));
    expect(watches.map(({ cause }) => cause())).toEqual([CAUSE_UNPLUG, CAUSE_UNPLUG]);
  });

  it('is only looked into where it was one of several below', async () => {
    const { device, remove } = zram();
    const dependence = dependenceOfPath(device);
    const member = watchDevices({ ...dependence, devices: dependence.devices.map((each) => ({ ...each, role: ROLE_MEMBER })) });
    const own = watchDevices(dependence);
    remove();
    await until(() => own.cause() !== 0);
    expect([own.cause(), member.cause()]).toEqual([CAUSE_UNPLUG, 0]);
  });

  it('is gone for whoever watches it too late', () => {
    const { device, remove } = zram();
    const dependence = dependenceOfPath(device);
    const first = watchDevices(dependence);
    remove();
    untilBusy(() => first.cause() !== 0);
    expect(watchDevices(dependence).cause()).toBe(CAUSE_UNPLUG);
  });

  it('is gone for the first who watches it, too', () => {
    const { device, remove } = zram();
    const dependence = dependenceOfPath(device);
    remove();
    expect(watchDevices(dependence).cause()).toBe(CAUSE_UNPLUG);
  });
});

describe.skipIf(noLoopDevices !== undefined)(`another disk under the same numbers${note(noLoopDevices)}`, () => {
  it('is the loss of the one before, and well itself', async () => {
    const first = lab.loops.image(8 * MEBIBYTE);
    const second = lab.loops.image(8 * MEBIBYTE);
    // Between the two images anybody who asks for a free loop device may be given this one: then with another one.
    const attached = new Set<string>();
    undo.push(() => {
      for (const each of attached) run('losetup', '-d', each);
    });
    const attach = (image: string, device?: string): string => {
      const made = device ?? run('losetup', '-f', '--show', image);
      if (device !== undefined) run('losetup', device, image);
      attached.add(made);
      return made;
    };
    const detach = (device: string): void => {
      run('losetup', '-d', device);
      attached.delete(device);
    };
    for (let tries = 1; ; tries++) {
      const device = attach(first);
      const before = dependenceOfPath(device);
      if (before.sequence < 0) return;
      const old = watchDevices(before);
      detach(device);
      try {
        attach(second, device);
      } catch (error) {
        if (tries === 10) throw error;
        continue;
      }
      await until(() => old.cause() === CAUSE_UNPLUG);
      const after = dependenceOfPath(device);
      expect(after.devices[0]).toMatchObject({ folder: before.devices[0].folder, numbers: before.devices[0].numbers });
      expect(after.sequence).toBeGreaterThan(before.sequence);
      const successor = watchDevices(after);
      const { watched, told } = watch(device, 8 * MEBIBYTE);
      expect(await settled(watched, EIO)).toBe(0);
      expect([successor.cause(), told.length]).toEqual([0, 0]);
      return;
    }
  });
});

describe.skipIf(noLoopDevices !== undefined)(`the mount table${note(noLoopDevices)}`, () => {
  it('makes every file be looked at when it changes, live or not', async () => {
    const path = join(lab.folder(), 'file');
    writeFileSync(path, Buffer.alloc(1000));
    const { watched, told } = watch(path, 1000);
    watched.setLive(0);
    truncateSync(path, 10);
    const folder = lab.folder();
    run('mount', '-t', 'tmpfs', 'tmpfs', folder);
    run('umount', folder);
    await until(() => told.length > 0);
    expect(told).toEqual(['size']);
  });
});

describe.skipIf(noExt4 !== undefined)(`a file that is unwatched${note(noExt4)}`, () => {
  it('keeps no mount busy, in the middle of direct reads', () => {
    const device = lab.loops.attach(lab.loops.image(64 * MEBIBYTE));
    run('mkfs.ext4', '-q', device);
    const folder = lab.folder();
    let unmountedAtOnce = 0;
    for (let i = 0; i < 30; i++) {
      run('mount', device, folder);
      const path = join(folder, basename(device));
      if (i === 0) writeFileSync(path, Buffer.alloc(MEBIBYTE, 1));
      const fd = openSync(path, O_RDONLY);
      const word = claimWord();
      const watched = watchFile({ fd, word, size: MEBIBYTE }, { lost: () => {}, sizeChanged: () => {}, faulted: () => {} });
      closeSync(fd);
      watched.suspect(EIO, () => {});
      // On a busy machine a read may take longer than `unwatch` waits for it: then the mount is free when it has ended.
      const inTime = watched.unwatch();
      freeWord(word);
      if (inTime) {
        run('umount', folder);
        unmountedAtOnce++;
      } else {
        untilBusy(() => spawnSync('umount', [folder]).status === 0);
      }
    }
    expect(unmountedAtOnce).toBeGreaterThan(0);
  });
});
