/** A simulated disk that moves only when a test says so: what is on its way is brought to its end. */
import type { SimulatedEngine } from '../../src/testing/index.js';

/** One turn of the event loop. */
export const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

/** Moves the disk until the promise has settled; answers with what it resolves or rejects with. */
export async function settled<T>({ engine }: { engine: SimulatedEngine }, promise: Promise<T>): Promise<T> {
  let over = false;
  promise.then(
    () => (over = true),
    () => (over = true),
  );
  for (let turns = 0; !over; turns++) {
    if (turns > 1000) throw new Error('it never ends');
    await engine.step();
    await turn();
  }
  return promise;
}
