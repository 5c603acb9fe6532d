/**
 * File systems and devices that go away under windows: shut down by ioctl, or dead underneath.
 *
 * Guarantees that are proved here: everything says why, nobody waits for ever, and the file system can be unmounted while the file is not closed.
 */
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import type { Caching } from '../../src/index.js';
import { note } from '../fixtures/places.js';
import { noFileSystem } from '../geometry/loop-devices.js';
import { dyingDevice, dyingFileSystem, isMounted, noDyingDevice, noShutdown, patternFile, shutDown, type UpperFileSystem } from '../rigs/failing-places.js';
import { fillPattern } from '../rigs/pattern.js';
import type { Holder } from './holder.js';
import type { Range } from './holding.js';
import { ALL, cachings, clearStage, expectLost, Holders, holders, lab, MEBIBYTE, SEED, SIZE, until, WINDOWS } from './stage.js';

clearStage();

interface Ground {
  path: string;
  size: number;
  windows: Range[];
  strike: () => void;
  /** Succeeds once nobody holds it. */
  free: () => Promise<void>;
}

async function unmounted(folder: string): Promise<void> {
  let refusal: unknown;
  await until(
    () => {
      try {
        lab().loops.unmount(folder);
        return true;
      } catch (error) {
        refusal = error;
        return false;
      }
    },
    `umount succeeds (${(refusal as Error | undefined)?.message})`,
  );
  expect(isMounted(folder)).toBe(false);
}

const MKFS_BYTES: Record<UpperFileSystem, number> = { ext4: 64 * MEBIBYTE, xfs: 320 * MEBIBYTE };

function onShutDown(kind: UpperFileSystem): Ground {
  const { folder } = lab().loops.fileSystem(MKFS_BYTES[kind], `mkfs.${kind}`, '-q');
  const path = patternFile(join(folder, 'file'), SIZE, SEED);
  return { path, size: SIZE, windows: WINDOWS, strike: () => shutDown(folder), free: () => unmounted(folder) };
}

function onDying(kind: UpperFileSystem): Ground {
  const { folder, kill } = dyingFileSystem(lab().loops, kind);
  const path = patternFile(join(folder, 'file'), SIZE, SEED);
  return { path, size: SIZE, windows: WINDOWS, strike: kill, free: () => unmounted(folder) };
}

function onDyingDevice(): Ground {
  const size = 8 * MEBIBYTE;
  const { loops } = lab();
  const { device, kill } = dyingDevice(loops, fillPattern(new Uint8Array(size), 0, SEED));
  const free = async (): Promise<void> => {
    loops.detach(device);
    await until(() => !loops.isAttached(device), 'the loop device is free');
  };
  const windows = [...WINDOWS.slice(0, -1), { offset: size - 70_000, length: 70_000 }];
  return { path: device, size, windows, strike: kill, free };
}

const shutdowns: Array<[string, UpperFileSystem]> = [
  ['an ext4 that is shut down', 'ext4'],
  ['an xfs that is shut down', 'xfs'],
];
const deaths: Array<[string, string | undefined, () => Ground]> = [
  ['an ext4 on a device that dies', noDyingDevice ?? noFileSystem('mkfs.ext4'), () => onDying('ext4')],
  ['an xfs on a device that dies', noDyingDevice, () => onDying('xfs')],
  ['a device that dies', noDyingDevice, onDyingDevice],
];
const losses = [
  ...shutdowns.map(([name, kind]) => ({
    name,
    missing: noShutdown(kind),
    make: () => onShutDown(kind),
    code: 'ERR_SECTORWISE_SHUTDOWN',
    cause: 'shutdown',
  })),
  ...deaths.map(([name, missing, make]) => ({ name, missing, make, code: 'ERR_SECTORWISE_UNPLUGGED', cause: 'unplug' })),
];

for (const { name, missing, make, code, cause } of losses) {
  describe.skipIf(missing !== undefined).each(cachings)(`${name}, %s${note(missing)}`, (caching) => {
    async function hold(holder: Holder, access: 'read' | 'read-write' = 'read'): Promise<Ground & { held: Holders }> {
      const ground = make();
      const held = await Holders.start(holder, { path: ground.path, caching: caching as Caching, windows: ground.windows, access });
      return { ...ground, held };
    }

    it.each(holders)(
      'ends every window and every request over it, and can be unmounted or detached before the file is closed (held %s)',
      async (_name, holder) => {
        const { held, strike, free, size } = await hold(holder);
        strike();
        await held.notice(ALL);
        for (const seen of await held.observe()) expectLost(seen, code, cause, size);
        await free();
        await held.finish();
      },
    );

    it('ends it for who asks while it goes away, in order', async () => {
      const { held, strike, size } = await hold('main');
      strike();
      // Not in memory, so each of them asks the device: before it is known to be gone, while it is found out, and after.
      for (let offset = 512 * 1024; offset < MEBIBYTE; offset += 65_536) {
        await held.ask('window', { offset, length: 4096 });
        await held.ask('read', { offset: offset + 8192, length: 4096 });
      }
      await held.notice(ALL);
      for (const { pending, ...seen } of await held.observe()) {
        expectLost({ ...seen, pending: [] }, code, cause, size);
        expect(pending.length).toBe(16);
        for (const outcome of pending) {
          // What is in memory already (read ahead when it was written) is still the file's until the loss is known; else why it failed is said.
          if (outcome.error === undefined) expect(outcome.intact).toBe(4096);
          else expect([code, 'EIO']).toContain(outcome.error.code);
        }
      }
      await held.finish();
    });

    it('says on close that what was not flushed is lost, and still frees everything', async () => {
      const { held, strike, free } = await hold('main', 'read-write');
      expect(await held.write(new Uint8Array(100_000).fill(1), 2 * MEBIBYTE)).toEqual([undefined]);
      strike();
      await held.notice(ALL);
      await held.release();
      const [error] = await held.close();
      expect(error).toMatchObject({ name: 'SectorwiseError' });
      expect([code, 'ERR_SECTORWISE_FLUSH_FAILED']).toContain(error?.code);
      await free();
      await held.end();
    });
  });
}
