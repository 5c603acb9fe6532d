/**
 * What host and guest say to each other: one line of JSON each, over a virtio-serial port, so that the kernel's own console stays apart.
 *
 *   host  {do: 'run', scenario, settings} ─────────────> guest
 *   host <──────── {say: 'proved' | 'failed' | 'note'} … guest
 *   host <──────────────────────── {say: 'ask', request} guest   the host does it to the machine …
 *   host  {do: 'answer', answer} ──────────────────────> guest   … and says how it went
 *   host <────────────────────────── {say: 'ended', how} guest
 */

/** What only the host can do to the machine; it names a device of the machine by its id. */
export type HostRequest =
  | { what: 'unplug' | 'plug'; device: string }
  /** Operations a second that the device does; 0 is as many as it can. */
  | { what: 'throttle'; device: string; iops: number }
  /** This record of the target's log is durable; with a lane, this version of that lane's cells. */
  | { what: 'flushed'; target: string; record: number; lane?: number };

export type ToHost =
  | { say: 'ready'; kernel: string; node: string; uptime: number }
  /** A sentence that was shown to hold. */
  | { say: 'proved'; text: string }
  /** A sentence that should hold and does not, and what was seen instead. */
  | { say: 'failed'; text: string; seen: string }
  | { say: 'note'; text: string }
  | { say: 'ask'; request: HostRequest }
  /** `how` is undefined if the scenario came to its end, else why not. */
  | { say: 'ended'; how?: string };

/** `inside`: in the agent's own process, which is faster and proves less. */
export type ToGuest = { do: 'run'; scenario: string; settings: Settings; inside?: boolean } | { do: 'answer'; answer?: string; error?: string };

/** What a scenario of the guest is told: which disk, which way. */
export type Settings = Readonly<Record<string, string | number | boolean>>;

/** Cuts a stream into messages. */
export function lineReader<T>(onMessage: (message: T) => void): (chunk: Buffer | string) => void {
  let rest = '';
  return (chunk) => {
    const lines = (rest + chunk.toString()).split('\n');
    rest = lines.pop() ?? '';
    for (const line of lines) if (line.trim() !== '') onMessage(JSON.parse(line) as T);
  };
}
