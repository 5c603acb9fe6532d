/**
 * The tables of docs/guides/alignment.md, measured: `npm run build:ts && node dist/docs/examples/alignment.js`, as root for the first one.
 *
 *   partition   LBA 63 or 2048      what is read and written, 4 KiB at a time, by O_DIRECT
 *   upper loop  sectors of 512      a disk that says 512 ...
 *   lower loop  sectors of 4096     ... over a medium that has 4096: its own counters (/sys/block/../stat) say what reached it
 *
 * Guarantees: counts, not times, so that a busy machine gives the same table; what it made is taken down again.
 */
import { execFileSync } from 'node:child_process';
import { closeSync, constants, fsyncSync, mkdtempSync, openSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { open } from '../../src/index.js';
import { imageFile } from '../../src/layout/image-files.js';
import { mkfsLines, openSource, planLayout, readVolume } from '../../src/layout/index.js';

const MEBIBYTE = 1 << 20;
const BLOCK = 4096;
/** Of the disk; each operation has a block of its own, so that none finds what another one brought into memory. */
const DISK_BYTES = 256 * MEBIBYTE;
const OPERATIONS = 2000;

/** What reached the medium, in blocks of 4096 bytes. */
export interface Traffic {
  blocksRead: number;
  blocksWritten: number;
}

function run(command: string, ...args: string[]): string {
  const env = { ...process.env, PATH: `${process.env.PATH}:/usr/sbin:/sbin`, MTOOLS_SKIP_CHECK: '1' };
  return execFileSync(command, args, { encoding: 'utf8', env, stdio: ['ignore', 'pipe', 'pipe'] }).trim();
}

/** Documentation/block/stat.rst: reads, merged, sectors of 512, ms, writes, merged, sectors. */
function traffic(device: string): Traffic {
  const [, , readSectors, , , , writtenSectors] = readFileSync(`/sys/block/${basename(device)}/stat`, 'latin1')
    .trim()
    .split(/ +/)
    .map(Number);
  return { blocksRead: readSectors / 8, blocksWritten: writtenSectors / 8 };
}

/** Blocks of the partition in an order without neighbours: 7919 is prime, so that every block comes once. */
function* blocks(count: number, among: number): Generator<number> {
  for (let i = 0; i < count; i++) yield ((i * 7919) % among) * BLOCK;
}

/** `OPERATIONS` reads or writes of 4 KiB to a partition that begins at `lba`: what reached the medium. */
export async function straddle(folder: string, lba: number, act: 'read' | 'write'): Promise<Traffic> {
  const image = join(folder, `medium-${lba}-${act}`);
  writeFileSync(image, '');
  truncateSync(image, DISK_BYTES);
  const undo: Array<() => void> = [];
  try {
    const medium = run('losetup', '--find', '--show', '--sector-size', '4096', image);
    undo.push(() => run('losetup', '--detach', medium));
    // What nobody asked for is not to be counted.
    run('blockdev', '--setra', '0', medium);
    const disk = run('losetup', '--find', '--show', '--sector-size', '512', medium);
    undo.push(() => run('losetup', '--detach', disk));
    const sectors = DISK_BYTES / 512 - 4096;
    run('addpart', disk, '1', String(lba), String(sectors));
    undo.push(() => run('delpart', disk, '1'));
    run('blockdev', '--flushbufs', medium);

    const file = await open(`${disk}p1`, { caching: 'direct', access: act === 'read' ? 'read' : 'read-write' });
    const before = traffic(medium);
    const bytes = new Uint8Array(BLOCK).fill(7);
    for (const offset of blocks(OPERATIONS, Math.floor((sectors * 512) / BLOCK) - 1)) {
      if (act === 'read') await file.read(bytes, offset);
      else {
        await file.write(bytes, offset);
        await file.flush();
      }
    }
    await file.close();
    const fd = openSync(disk, constants.O_RDONLY);
    fsyncSync(fd);
    closeSync(fd);
    const after = traffic(medium);
    return { blocksRead: after.blocksRead - before.blocksRead, blocksWritten: after.blocksWritten - before.blocksWritten };
  } finally {
    for (const step of undo.reverse()) step();
    rmSync(image);
  }
}

/** A FAT made by default and one made as planned, with the same file in each: pages of it that can be mapped. */
export function fatPages(folder: string, mebibytes: number): Array<{ how: string; heap: bigint; unit: number; mappable: bigint; total: bigint }> {
  const payload = join(folder, 'payload');
  writeFileSync(payload, new Uint8Array(MEBIBYTE).fill(1));
  const bytes = BigInt(mebibytes) * BigInt(MEBIBYTE);
  const kind = mebibytes < 16 ? ('fat12' as const) : ('fat16' as const);
  const plan = planLayout({ size: bytes + 2n * BigInt(MEBIBYTE), parts: [{ type: 'data', size: bytes, fs: kind }] });
  const results: ReturnType<typeof fatPages> = [];
  for (const how of ['mkfs.fat', 'planned']) {
    const image = join(folder, `${how}-${mebibytes}.img`);
    writeFileSync(image, '');
    truncateSync(image, Number(plan.size));
    const start = plan.partitions[0].start;
    if (how === 'planned') for (const line of mkfsLines(plan, { image })) run('sh', '-c', line);
    else run('mkfs.fat', '-F', kind.slice(3), '--offset', String(start / 512n), image, String(Number(bytes) / 1024));
    run('mcopy', '-i', `${image}@@${start}`, payload, '::/DATA.BIN');
    const source = openSource(image);
    try {
      const volume = readVolume(source, { offset: start, size: bytes, partition: 1, pages: [BLOCK] });
      if (volume === null) throw new Error(`no file system in ${image}`);
      const { mappable, total } = imageFile(source, volume, '/data.bin').pages[String(BLOCK)];
      results.push({ how, heap: volume.dataOffset, unit: volume.unit, mappable, total });
    } finally {
      source.close();
    }
  }
  return results;
}

function trafficRow(name: string, { blocksRead, blocksWritten }: Traffic): string {
  return `| ${name} | ${blocksRead} | ${blocksWritten} |`;
}

async function main(): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), 'sectorwise-alignment-'));
  try {
    if (process.geteuid?.() === 0) {
      console.log(`${OPERATIONS} operations of 4 KiB each, O_DIRECT, on a disk of 512-byte sectors over a medium of 4096-byte sectors\n`);
      console.log('| partition at | blocks read from the medium | blocks written |\n|---|--:|--:|');
      for (const act of ['read', 'write'] as const) {
        for (const lba of [2048, 63]) console.log(trafficRow(`LBA ${lba}, ${act}s`, await straddle(folder, lba, act)));
      }
    } else console.log('The first table needs root, for loop devices.');
    console.log('\n| FAT of | made | clusters begin at byte | clusters | pages of 4 KiB that can be mapped |\n|---|---|--:|--:|--:|');
    for (const mebibytes of [8, 32, 100]) {
      for (const { how, heap, unit, mappable, total } of fatPages(folder, mebibytes)) {
        console.log(`| ${mebibytes} MiB | ${how} | ${heap} (% 4096 = ${heap % 4096n}) | ${unit} | ${mappable} of ${total} |`);
      }
    }
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

if (process.argv[1] !== undefined && import.meta.url === pathToFileURL(process.argv[1]).href) await main();
