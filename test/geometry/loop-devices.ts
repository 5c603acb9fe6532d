/**
 * Real block devices for tests: images attached as loop devices, partitions on them, file systems mounted from them.
 *
 * Guarantees: `dispose` takes everything down again in reverse order, also after a failed test.
 */
import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';

export const isRoot = process.geteuid?.() === 0;

export function hasCommand(name: string): boolean {
  return ['/usr/sbin', '/sbin', '/usr/bin', '/bin', '/usr/local/bin'].some((folder) => existsSync(join(folder, name)));
}

/** Why loop devices cannot be had here; undefined where they can. */
export const noLoopDevices = !isRoot ? 'needs root' : !existsSync('/dev/loop-control') || !hasCommand('losetup') ? 'needs loop devices' : undefined;

export function noFileSystem(make: string): string | undefined {
  return noLoopDevices ?? (hasCommand(make) ? undefined : `needs ${make}`);
}

function run(command: string, ...args: string[]): string {
  return execFileSync(command, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] }).trim();
}

/** The kernel gives back the files of an io_uring some time after its process has ended. */
function patiently(act: () => void): void {
  for (let tries = 1; ; tries++) {
    try {
      act();
      return;
    } catch (error) {
      if (tries === 50) throw error;
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 100);
    }
  }
}

export class LoopDevices {
  readonly folder = mkdtempSync(join(tmpdir(), 'sectorwise-geometry-'));
  readonly #undo: Array<() => void> = [];
  /** Those that were taken down before their time. */
  readonly #gone = new Set<string>();
  #count = 0;

  /** A sparse image of so many bytes; its path. */
  image(bytes: number): string {
    const path = join(this.folder, `image-${++this.#count}`);
    writeFileSync(path, '');
    truncateSync(path, bytes);
    return path;
  }

  /** Attaches an image; the path of the device. */
  attach(image: string, sectorSize = 512): string {
    const device = run('losetup', '-f', '--show', '-b', String(sectorSize), image);
    this.#gone.delete(device);
    this.#undo.push(() => {
      if (!this.#gone.delete(device)) run('losetup', '-d', device);
    });
    // The kernel keeps partitions that a tool told it of on the node beyond the image: an earlier user of this one may have left some.
    spawnSync('partx', ['--delete', device], { stdio: 'ignore' });
    return device;
  }

  /** Write-protects a device. The kernel keeps this on the node beyond the image, so it is taken back first. */
  protect(device: string): void {
    run('blockdev', '--setro', device);
    this.#undo.push(() => run('blockdev', '--setrw', device));
  }

  /** Adds a partition without a table in the image, so that it also works on kernels that read none; the path of its node. */
  partition(device: string, number: number, startSector: number, sectors: number): string {
    patiently(() => run('addpart', device, String(number), String(startSector), String(sectors)));
    this.#undo.push(() => run('delpart', device, String(number)));
    return `${device}p${number}`;
  }

  /** Mounts a device or another source; the folder. */
  mount(source: string, ...options: string[]): string {
    const folder = join(this.folder, `mount-${++this.#count}`);
    mkdirSync(folder);
    run('mount', ...options, source, folder);
    this.#undo.push(() => {
      if (this.#gone.has(folder)) return;
      try {
        patiently(() => run('umount', folder));
      } catch (error) {
        // Told as a failure, but not left to the machine.
        run('umount', '-l', folder);
        throw error;
      }
    });
    return folder;
  }

  /** Unmounts it now. Throws while it is in use. */
  unmount(folder: string): void {
    run('umount', folder);
    this.#gone.add(folder);
  }

  /** Detaches it now; while it is in use, the kernel does so once it is not. */
  detach(device: string): void {
    run('losetup', '-d', device);
    this.#gone.add(device);
  }

  /** Is one of our images on it? */
  isAttached(device: string): boolean {
    try {
      return readFileSync(`/sys/block/${basename(device)}/loop/backing_file`, 'utf8').startsWith(this.folder);
    } catch {
      return false;
    }
  }

  /** Makes a file system and mounts it; the device and the folder. */
  fileSystem(bytes: number, make: string, ...options: string[]): { device: string; folder: string } {
    const device = this.attach(this.image(bytes));
    run(make, ...options, device);
    return { device, folder: this.mount(device) };
  }

  dispose(): void {
    const failures: unknown[] = [];
    for (const undo of this.#undo.splice(0).reverse()) {
      try {
        undo();
      } catch (error) {
        failures.push(error);
      }
    }
    // With something still mounted in it, removing the folder would empty that instead.
    if (failures.length > 0) throw new AggregateError(failures, `left behind in ${this.folder}`);
    rmSync(this.folder, { recursive: true, force: true });
  }
}
