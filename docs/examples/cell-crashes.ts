/**
 * Pulls the plug of a simulated disk after each operation of a workload, and asks what is left: `npm run build:ts && node dist/docs/examples/cell-crashes.js`.
 *
 * Guarantees: a seed that failed once fails again, in the same way: there is no clock and no chance but the seed's.
 */
import { pathToFileURL } from 'node:url';
import type { BlockFile } from 'sectorwise';
import { openSimulated, SimulatedDisk } from 'sectorwise/testing';
import { Cell } from './cell.js';

const VALUES = 6;

/** The value with this number, told apart from all others by its length and by each byte. */
function numbered(number: number): Uint8Array {
  return new Uint8Array(number === 0 ? 0 : 1000 + number * 100).fill(number);
}

/** The plug, and nothing else: an engine that fails for another reason has a bug of its own. */
function thePlug(error: unknown): void {
  const { code } = error as { code?: string };
  if (code !== 'ERR_SECTORWISE_UNPLUGGED' && code !== 'ERR_SECTORWISE_FLUSH_FAILED') throw error;
}

/** Writes values until the plug is pulled after `operations`, loses power, and looks at what survived; true if the plug came too late. */
export async function crash(seed: number, operations: number, openCell: (file: BlockFile) => Promise<Cell> = Cell.open): Promise<boolean> {
  const disk = new SimulatedDisk({ size: 8192, kind: 'block-device', seed, log: 20, faults: { again: 0.1, shortWrite: 0.2 } });
  let acknowledged = 0;
  let tried = 0;

  const file = openSimulated(disk, { access: 'read-write', cacheSize: 64 * 1024 });
  disk.unplugAfter(operations);
  try {
    const cell = await openCell(file);
    while (tried < VALUES) {
      tried++;
      await cell.replace(numbered(tried));
      acknowledged = tried;
    }
  } catch (error) {
    thePlug(error);
  }
  const late = acknowledged === VALUES;
  disk.unplugAfter(Number.POSITIVE_INFINITY); // once is enough
  disk.powerCut(); // each sector that was not synced survives or not, by seed
  await file.close().catch(thePlug);

  const reopened = openSimulated(disk, { access: 'read-write', cacheSize: 64 * 1024 });
  const found = (await openCell(reopened)).value;
  await reopened.close();
  const number = found.length === 0 ? 0 : found[0];
  const whole = Buffer.compare(found, numbered(number)) === 0;
  if (!whole || number < acknowledged || number > tried) {
    throw new Error(
      `seed ${seed}, ${operations} operations: ${acknowledged} was acknowledged, ${number} found${whole ? '' : ', and it is torn'}\n${disk.report()}`,
    );
  }
  return late;
}

/** Every moment of every seed. */
export async function crashEverywhere(seeds: number, openCell?: (file: BlockFile) => Promise<Cell>): Promise<number> {
  let crashes = 0;
  for (let seed = 1; seed <= seeds; seed++) {
    for (let operations = 1; !(await crash(seed, operations, openCell)); operations++) crashes++;
  }
  return crashes;
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) console.log(await crashEverywhere(20), 'crashes survived');
