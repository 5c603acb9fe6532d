/**
 * Many requests with one signal: Node warns of a leak from the eleventh listener on, and a thousand windows with one signal are nothing unusual. So there is one for all.
 *
 * Guarantees: each callback runs once at most, in the order they came, and not after it was taken back; a signal that nobody waits for any more has no listener.
 */

interface Listening {
  readonly callbacks: Set<() => void>;
  readonly listener: () => void;
}

const listening = new WeakMap<AbortSignal, Listening>();

/** Runs `callback` when the signal fires, which it has not; answers with how to take it back. */
export function onAbort(signal: AbortSignal, callback: () => void): () => void {
  let known = listening.get(signal);
  if (known === undefined) {
    const callbacks = new Set<() => void>();
    const listener = (): void => {
      for (const each of callbacks) each();
      callbacks.clear();
    };
    known = { callbacks, listener };
    listening.set(signal, known);
    signal.addEventListener('abort', listener, { once: true });
  }
  const { callbacks, listener } = known;
  callbacks.add(callback);
  return () => {
    // With nobody left the signal is let go: it may live as long as the process.
    if (!callbacks.delete(callback) || callbacks.size > 0) return;
    signal.removeEventListener('abort', listener);
    if (listening.get(signal)?.callbacks === callbacks) listening.delete(signal);
  };
}
