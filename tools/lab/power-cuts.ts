/**
 * The host's half of the power cuts: switches the machine off at a moment of chance, works out what its disks hold, and switches it on again.
 *
 *   base image ── copy ──> work image ── machine writes, log of every operation ── SIGKILL
 *        ^                                                   │
 *        └────── what a disk with a volatile cache keeps <───┘   (`write-log.ts`)
 */
import { copyFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { type Disk, timeout } from './machine.js';
import type { ToHost } from './messages.js';
import { makeExt4 } from './scenarios.js';
import type { Session } from './session.js';
import { applyCut, LOG_SECTOR_BYTES } from './write-log.js';

const MEBIBYTE = 1 << 20;
const DISK_BYTES = 64 * MEBIBYTE;
/** Sparse; QEMU does not make it longer by itself. */
const LOG_BYTES = 1024 * MEBIBYTE;
/** Flushes of each target before a cut, at least. */
const FLUSHES_MIN = 2;
const MOMENTS_MS = 1500;
/** For what is on its way to the log to get there. */
const SETTLE_MS = 400;
const ROUND_MS = 120_000;
/** Of each target its log, its checkpoint and its cells. */
const CHECKS = 6;
const ids = ['cut-device', 'cut-ext4'] as const;
/**
 * ext4 commits by writes with FUA where the disk offers it, and QEMU's NVMe (seen with 7.2) offers it and does not honour it: nothing in the log says that such a write was forced, and no flush follows. AHCI disks have FUA switched off in Linux, so that the
 * kernel flushes after the commit instead. What the library itself asks for is a flush on either.
 */
const kinds = { 'cut-device': 'nvme', 'cut-ext4': 'sata' } as const;

function disksOf(folder: string): Disk[] {
  return ids.map((id) => {
    const image = join(folder, `${id}.work`);
    const log = join(folder, `${id}.log`);
    copyFileSync(join(folder, `${id}.base`), image);
    rmSync(log, { force: true });
    writeFileSync(log, '');
    truncateSync(log, LOG_BYTES);
    // Without flushes of its own the host's disk stays out of the measurement: nothing but SIGKILL happens to QEMU.
    const logNode = { driver: 'raw', cache: { 'no-flush': true }, file: { driver: 'file', filename: log } };
    return { id, kind: kinds[id], image, throttled: true, filter: { driver: 'blklogwrites', log: logNode, 'log-sector-size': LOG_SECTOR_BYTES } };
  });
}

export async function powerCuts(session: Session, cuts: number, seed: number): Promise<void> {
  const { folder } = session;
  for (const id of ids) {
    const base = join(folder, `${id}.base`);
    writeFileSync(base, '');
    truncateSync(base, DISK_BYTES);
  }
  makeExt4(join(folder, 'cut-ext4.base'), 0, DISK_BYTES);
  const chance = generator(seed);
  const flushed: Record<string, number> = { device: 0, ext4: 0 };
  const skipped = new Set<string>();

  for (let round = 0; round <= cuts; round++) {
    const last = round === cuts;
    const machine = await session.boot(disksOf(folder), { cpus: 1 });
    try {
      const counts: Record<string, number> = { device: 0, ext4: 0 };
      let checked = 0;
      const failures: string[] = [];
      const over = new Promise<void>((resolve, reject) => {
        machine.listen((message: ToHost) => {
          if (message.say === 'proved') checked++;
          else if (message.say === 'note' && message.text.startsWith('skipped:') && !skipped.has(message.text)) {
            skipped.add(message.text);
            session.note(message.text);
          } else if (message.say === 'failed') failures.push(`${message.text}: ${message.seen}`);
          else if (message.say === 'ended') {
            if (last && message.how === undefined) resolve();
            else reject(new Error(message.how ?? 'the writer ended by itself'));
          } else if (message.say === 'ask' && message.request.what === 'flushed') {
            const { target, record, lane } = message.request;
            flushed[lane === undefined ? target : `${target}-${lane}`] = record;
            if (lane === undefined) counts[target]++;
            machine.send({ do: 'answer' });
            if (Object.values(counts).every((count) => count >= FLUSHES_MIN)) resolve();
          }
        });
      });
      machine.send({ do: 'run', scenario: 'powerCut', settings: { round, last, ...flushed }, inside: true });
      await Promise.race([over, machine.gone, timeout(ROUND_MS, `round ${round}: no ${last ? 'end' : 'flush'} within ${ROUND_MS / 1000} s`)]);
      // Whatever is reported until the machine is dead counts: it was flushed before.
      if (!last) {
        await sleep(chance() * MOMENTS_MS);
        // An operation that QEMU is logging when it is killed would leave a hole in the log, behind which nothing can be found. So the disks stop taking operations first (flushes pass, and hold what they promise).
        await Promise.all(ids.map((id) => machine.throttle(id, 1)));
        await sleep(SETTLE_MS);
      }
      await machine.end();
      for (const failure of failures) session.fail(`after ${round} cuts: ${failure}`);
      if (failures.length === 0 && round > 0)
        session.prove(`cut ${round}: every flushed record is there, in order, and every flushed change in place, on the device and in the file on ext4`);
      if (checked < CHECKS && failures.length === 0) session.fail(`round ${round}: the guest made ${checked} of ${CHECKS} checks`);
    } finally {
      await machine.end();
    }
    if (last) break;
    const survived = ids.map((id) => applyCut(join(folder, `${id}.base`), join(folder, `${id}.log`), chance));
    const [device, ext4] = survived.map(
      ({ kept, lucky, torn, lost }) => `${kept} writes kept, of ${lucky + torn + lost} after the last flush ${lost} lost and ${torn} torn`,
    );
    session.note(`flushed up to ${flushed.device} and ${flushed.ext4}; device: ${device}; ext4: ${ext4}`);
  }
}

/** Mulberry32. */
function generator(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let value = Math.imul(state ^ (state >>> 15), state | 1);
    value ^= value + Math.imul(value ^ (value >>> 7), value | 61);
    return ((value ^ (value >>> 14)) >>> 0) / 2 ** 32;
  };
}
