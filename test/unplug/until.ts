/** Waiting for what the kernel or another thread does in its own time: generously, since the machine may be busy. */

const LIMIT_MS = 30_000;

/** Resolves when the condition holds; throws after half a minute. The event loop turns meanwhile. */
export async function until(holds: () => boolean | Promise<boolean>): Promise<void> {
  for (const end = performance.now() + LIMIT_MS; !(await holds()); ) {
    if (performance.now() >= end) throw new Error(`did not happen within ${LIMIT_MS / 1000} s: ${holds}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

/** The same without a turn of the event loop. */
export function untilBusy(holds: () => boolean): void {
  for (const end = performance.now() + LIMIT_MS; !holds(); ) {
    if (performance.now() >= end) throw new Error(`did not happen within ${LIMIT_MS / 1000} s: ${holds}`);
  }
}
