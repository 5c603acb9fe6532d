/**
 * One scenario, in a process of its own: `node run.js NAME SETTINGS`. Started by the agent.
 */
import type { Settings, ToGuest, ToHost } from '../messages.js';
import { answered, connect } from './guest.js';
import { runScenario } from './scenarios.js';

function send(message: ToHost | { say: 'done' }): Promise<void> {
  return new Promise((resolve, reject) => process.send!(message, (error: Error | null) => (error === null ? resolve() : reject(error))));
}

process.on('message', (message: ToGuest) => answered(message));
connect(send);
const [, , name, settings] = process.argv;
await runScenario(name, JSON.parse(settings) as Settings);
await send({ say: 'done' });
// The channel to the agent would hold the loop; from here on only what the library left behind could.
process.disconnect();
