/**
 * The two engines of the real world, both in the addon: the kernel's own ring, and our threads behind the same memory.
 *
 * Wraps a `NativeRing` into an `Engine`: typed arrays over its memory are made once, numbers become errors here.
 * Guarantees: what `SECTORWISE_ENGINE` or the caller forces is used or refused with every reason, never quietly replaced.
 * Leaves to others: what to submit and when (`requests/`), the simulated engine (`testing/`).
 */
import { assertionError, invalidValue, SectorwiseError, systemError } from '../errors.js';
import type { CompletionQueue, Engine, EngineName, Feature } from './engine.js';
import { type NativeRing, type NativeSlab, native } from './native.js';

/** Forces one engine for the whole process, over what `open` was asked for: `threads` or `io_uring`. */
const ENGINE_VARIABLE = 'SECTORWISE_ENGINE';

/** What a caller may ask for; `auto` is io_uring where a probe of it works, else threads. */
export interface NativeEngineOptions {
  engine: 'auto' | EngineName;
  /** Entries in flight at most, 1 to 32768. */
  depth: number;
}

/**
 * Opens a ring of its own.
 *
 * @throws ERR_INVALID_ARG_VALUE where `SECTORWISE_ENGINE` names no engine.
 * @throws ERR_SECTORWISE_ENGINE where an engine was forced and the kernel or the container refuses it, or no engine can be had.
 */
export function openNativeEngine(options: NativeEngineOptions): Engine {
  const engine = forcedEngine() ?? options.engine;
  const ring = native().createRing({ engine, depth: options.depth });
  if ('error' in ring) throw refused(engine, ring.error, ring.features);
  return wrap(ring);
}

function forcedEngine(): EngineName | undefined {
  const value = process.env[ENGINE_VARIABLE];
  if (value === undefined || value === '') return undefined;
  if (value !== 'threads' && value !== 'io_uring') throw invalidValue(`process.env.${ENGINE_VARIABLE}`, "must be 'threads' or 'io_uring', or not set", value);
  return value;
}

function refused(engine: string, error: number, features: Feature[]): SectorwiseError {
  const reasons = features.filter((feature) => !feature.used).map((feature) => `\n  ${feature.name}: ${feature.reason}`);
  const remedy =
    engine === 'io_uring'
      ? `Allow io_uring (kernel.io_uring_disabled=0, and in the container's seccomp profile), or use engine 'auto' or 'threads' and unset ${ENGINE_VARIABLE}.`
      : 'Check the limits on open files, memory and threads.';
  return new SectorwiseError('ERR_SECTORWISE_ENGINE', `The engine '${engine}' is not to be had here.${reasons.join('')}\n${remedy}`, {
    cause: systemError(error, engine === 'threads' ? 'eventfd' : 'io_uring_setup'),
  });
}

function wrap(ring: NativeRing): Engine {
  const queues = ring.queues.map(
    ({ buffer, tail, first, mask, head }): CompletionQueue => ({ words: new Int32Array(buffer, 0, buffer.byteLength >> 2), tail, first, mask, head }),
  );
  return {
    name: ring.engine,
    depth: ring.depth,
    entries: new Int32Array(ring.entries),
    control: new Int32Array(ring.control),
    queues,
    submit(count) {
      // Entries are refused one by one, by completions. The whole is refused only where the caller broke the rules of the ring.
      if (ring.submit(count) !== count) throw assertionError(`a submission of ${count} entries to a ring of ${ring.depth} that is closed or full`);
    },
    collect() {
      ring.collect();
    },
    wait() {
      const result = ring.wait();
      if (result < 0) throw assertionError(`waiting for a ring with nothing in flight or closed (${result})`);
    },
    listen: ring.listen,
    ref: ring.ref,
    unref: ring.unref,
    addFile(fd) {
      const index = ring.addFile(fd);
      if (index < 0) throw systemError(index, 'statx');
      return index;
    },
    addSlab(slab) {
      const index = ring.addSlab(slab as NativeSlab);
      if (index < 0) throw systemError(index, 'mmap');
      return index;
    },
    giveBack: (slab, offset, length) => ring.giveBack(slab, offset, length) === 0,
    isHuge: () => ring.isHuge() === 1,
    close: ring.close,
    features: ring.features,
  };
}
