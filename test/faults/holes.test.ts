/** A store through a writable window into a hole, on a file system without space left: the kernel's answer is a signal, the library's a window that says so. */
import { execFileSync } from 'node:child_process';
import { truncateSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { note } from '../fixtures/places.js';
import { hasCommand, noFileSystem } from '../geometry/loop-devices.js';
import { holeWithoutSpace, noTmpfs, patternFile } from '../rigs/failing-places.js';
import { clearStage, expectAlive, expectDead, Holders, lab, MEBIBYTE, SEED } from './stage.js';

clearStage();

const noFallocate = hasCommand('fallocate') ? undefined : 'needs fallocate, to punch a hole';

const kinds = [
  { name: 'a tmpfs', missing: noTmpfs, holesNeedPages: true, make: () => lab().loops.mount('tmpfs', '-t', 'tmpfs', '-o', 'size=16m') },
  {
    name: 'an ext4',
    missing: noFileSystem('mkfs.ext4'),
    holesNeedPages: false,
    make: () => lab().loops.fileSystem(24 * MEBIBYTE, 'mkfs.ext4', '-q', '-m', '0').folder,
  },
];

for (const { name, missing, holesNeedPages, make } of kinds) {
  const reason = missing ?? noFallocate;
  describe.skipIf(reason !== undefined)(`${name} without space left${note(reason)}`, () => {
    it('is refused before a store could be lost', async () => {
      const path = holeWithoutSpace(make(), 4 * MEBIBYTE);
      const refused = Holders.start('main', { path, caching: 'page-cache', access: 'read-write', writable: true, windows: [{ offset: 0, length: 8192 }] });
      await expect(refused).rejects.toThrow(/ENOSPC/);
    });

    it('does not kill who stores where somebody else punched a hole', async () => {
      const folder = make();
      const path = patternFile(join(folder, 'file'), 4 * MEBIBYTE, SEED);
      const windows = [
        { offset: 8192, length: 50_000 },
        { offset: 3 * MEBIBYTE, length: 8192 },
      ];
      const held = await Holders.start('main', { path, caching: 'page-cache', access: 'read-write', writable: true, windows });
      execFileSync('fallocate', ['--punch-hole', '--offset', '8192', '--length', '65536', path]);
      // What the hole gave back is taken by somebody else.
      truncateSync(holeWithoutSpace(folder, 4096), 4096);
      await held.touch(0, 100, 9);
      await held.notice([0], false);
      for (const seen of await held.observe()) {
        expectDead(seen, 0, 'ERR_SECTORWISE_FAULT', 101);
        expectAlive(seen, 1);
        expect(seen.faults).toBeGreaterThan(0);
        // The store went nowhere. A mapped page of a hole is one of the file's own on tmpfs, also to read it, and there is none left: refused, not zeros.
        if (holesNeedPages) expect(seen.read[0]).toMatchObject({ error: { code: 'ERR_SECTORWISE_FAULT' } });
        else expect(seen.read[0]).toEqual({ length: 50_000, intact: 0 });
      }
      await held.release();
      // Nothing was marked, so nothing is lost that was promised.
      expect(await held.close()).toEqual([undefined]);
      await held.end();
    });
  });
}
