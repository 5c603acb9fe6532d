/**
 * Files that nobody holds any more and nobody closed: a warning for each, and then they are closed.
 *
 *   whoever opened it ──> BlockFile ──> ring, watcher, memory, tables        strong
 *                             ^                    │
 *                             └───── FileLink ─────┘                         weak
 *
 * Ring, watcher and timers are held by the process for as long as the file is open, and have things to tell it. They do so through a `FileLink`, so that the object which the user holds can be
 * collected while all of that stays. What stays is then given a new file of its own, which is closed like any other: accepted writes are flushed, descriptor, ring, lock and memory go back.
 *
 * Guarantees: one warning for each file, code SECTORWISE_UNCLOSED_FILE; nothing is closed while a window of the file has references, or a call is on its way; keeps no process alive.
 * Leaves to others: when V8 collects, which may be never; what a process holds when it ends goes back to the kernel without this, and without a warning.
 */
import { setInterval } from 'node:timers';

/** How its parts reach a file without keeping it. */
export class FileLink<T extends object> {
  #ref: WeakRef<T> | undefined;

  /** Undefined before it is made and after it was collected. */
  get file(): T | undefined {
    return this.#ref?.deref();
  }

  set file(file: T) {
    this.#ref = new WeakRef(file);
  }
}

/** What stays of a collected file. Must not refer to the file itself. */
export interface Remains {
  path: string;
  /** A new file over it, so that windows that are still held go on being told of losses. */
  adopt(): Adopted;
}

interface Adopted {
  /** Somebody holds a window of it, or waits for something. */
  inUse(): boolean;
  close(): Promise<void>;
}

/** How often it is asked whether a collected file is still in use. */
const LOOK_MS = 250;

/** And their paths. */
const adopted = new Map<Adopted, string>();
let timer: NodeJS.Timeout | undefined;

const registry = new FinalizationRegistry<Remains>((remains) => {
  warn(
    `'${remains.path}' was collected without having been closed, and is closed now, as soon as no window of it has references: close it, or declare it with \`await using\`.`,
  );
  adopted.set(remains.adopt(), remains.path);
  look();
});

/** Warns, and closes what remains, if `file` is collected before `forgetUnclosed`. */
export function watchUnclosed(file: object, remains: Remains): void {
  registry.register(file, remains, file);
}

/** It was closed. */
export function forgetUnclosed(file: object): void {
  registry.unregister(file);
}

function look(): void {
  for (const [file, path] of adopted) {
    if (file.inUse()) continue;
    adopted.delete(file);
    file.close().catch((error) => warn(`'${path}', which was collected without having been closed, lost what was written to it: ${error}`));
  }
  if (adopted.size === 0) {
    clearInterval(timer);
    timer = undefined;
  } else {
    timer ??= setInterval(look, LOOK_MS).unref();
  }
}

function warn(message: string): void {
  process.emitWarning(message, { code: 'SECTORWISE_UNCLOSED_FILE' });
}
