/**
 * What the guest can run, by the name that the host gives.
 */
import type { Settings } from '../messages.js';
import { badSectors } from './bad-sectors.js';
import { powerCut } from './power-cut.js';
import { removal } from './removal.js';
import { sectorSizes } from './sector-sizes.js';
import { dmFlakey, nullBlk, scsiDebug } from './zoo.js';

export const guestScenarios: Readonly<Record<string, (settings: Settings) => Promise<void>>> = {
  removal,
  sectorSizes,
  badSectors,
  powerCut,
  scsiDebug,
  dmFlakey,
  nullBlk,
};
