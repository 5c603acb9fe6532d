/**
 * What the guest can run, by the name that the host gives. Each is loaded when it is run: under emulation every module counts.
 */
import type { Settings } from '../messages.js';

type Run = (settings: Settings) => Promise<void>;

const scenarios: Readonly<Record<string, () => Promise<Run>>> = {
  removal: async () => (await import('./removal.js')).removal,
  sectorSizes: async () => (await import('./sector-sizes.js')).sectorSizes,
  badSectors: async () => (await import('./bad-sectors.js')).badSectors,
  scsiDebug: async () => (await import('./zoo.js')).scsiDebug,
  dmFlakey: async () => (await import('./zoo.js')).dmFlakey,
  nullBlk: async () => (await import('./zoo.js')).nullBlk,
  verifiedWrites: async () => (await import('./verified-writes.js')).verifiedWrites,
  powerCut: async () => (await import('./power-cut.js')).powerCut,
};

export async function runScenario(name: string, settings: Settings): Promise<void> {
  const run = await scenarios[name]();
  await run(settings);
}
