/**
 * With SECTORWISE_DEBUG=1 in the environment when the library is loaded: a warning for each window that was collected with references, with the stack that asked for it.
 *
 * Guarantees: without the variable `unreleased` is undefined, and a window costs a comparison with that.
 * Leaves to others: the memory under such a window. It stays pinned until the file is closed: that is what the warning is about.
 */
import type { Window } from './window.js';

interface Trace {
  path: string;
  offset: number;
  length: number;
  stack: string | undefined;
}

class Unreleased {
  readonly #traces = new WeakMap<Window, Trace>();
  readonly #registry = new FinalizationRegistry<Trace>(({ path, offset, length, stack }) => {
    process.emitWarning(
      `A window of '${path}' (offset ${offset}, length ${length}) was collected without having been released: release it, or declare it with \`using\`.`,
      {
        code: 'SECTORWISE_UNRELEASED_WINDOW',
        detail: stack,
      },
    );
  });

  made(window: Window, path: string): void {
    const trace = { path, offset: window.offset, length: window.length, stack: stackAbove(this.made) };
    this.#traces.set(window, trace);
    this.#registry.register(window, trace, window);
  }

  released(window: Window): void {
    this.#registry.unregister(window);
  }

  /** A window that is delayed is made from the event loop: its stack is that of whoever asked. */
  follow(file: { window(offset: number, length: number, options?: object): Promise<Window> }): void {
    const ask = file.window;
    const followed = (...given: Parameters<typeof ask>): Promise<Window> => {
      const stack = stackAbove(followed);
      return ask.apply(file, given).then((window) => {
        const trace = this.#traces.get(window);
        if (trace !== undefined) trace.stack = stack;
        return window;
      });
    };
    file.window = followed;
  }
}

/** The frames of whoever called `call`. */
function stackAbove(call: (...given: never[]) => unknown): string | undefined {
  const holder: { stack?: string } = {};
  Error.captureStackTrace(holder, call);
  return holder.stack?.replace(/^.*\n/, 'It was asked for\n');
}

export const unreleased = process.env.SECTORWISE_DEBUG === '1' ? new Unreleased() : undefined;
