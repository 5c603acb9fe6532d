/**
 * One scenario, in a process of its own: `node run.js NAME SETTINGS`. Started by the agent.
 */
import type { Settings } from '../messages.js';
import { badSectors } from './bad-sectors.js';
import { powerCut } from './power-cut.js';
import { removal } from './removal.js';
import { sectorSizes } from './sector-sizes.js';
import { dmFlakey, nullBlk, scsiDebug } from './zoo.js';

const scenarios: Readonly<Record<string, (settings: Settings) => Promise<void>>> = { removal, sectorSizes, badSectors, powerCut, scsiDebug, dmFlakey, nullBlk };

const [, , name, settings] = process.argv;
await scenarios[name](JSON.parse(settings) as Settings);
await new Promise((resolve) => process.send!({ say: 'done' }, resolve));
// The channel to the agent would hold the loop; from here on only what the library left behind could.
process.disconnect();
