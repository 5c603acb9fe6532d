/**
 * A live bar for each run where there is a terminal, else a plain line when it begins.
 */
import { SingleBar } from 'cli-progress';

export interface Progress {
  update(fraction: number): void;
  stop(): void;
}

/** `name` says what is running; the bar vanishes when it stops. */
export function startProgress(name: string, output: NodeJS.WriteStream): Progress {
  if (!output.isTTY) {
    output.write(`  ${name} …\n`);
    return { update: () => {}, stop: () => {} };
  }
  const bar = new SingleBar({
    format: `  {name} [{bar}] {percentage}%`,
    barsize: 24,
    barCompleteChar: '=',
    barIncompleteChar: ' ',
    clearOnComplete: true,
    hideCursor: true,
    // Runs that are answered from memory never return to the event loop: the bar must draw itself within `update`.
    synchronousUpdate: true,
    linewrap: null,
    stream: output,
  });
  bar.start(100, 0, { name: name.padEnd(44) });
  // The terminal gets its cursor back also when the process ends in the middle.
  const stop = (): void => bar.stop();
  process.on('exit', stop);
  return {
    update: (fraction) => bar.update(Math.min(100, Math.floor(fraction * 100))),
    stop: () => {
      process.off('exit', stop);
      bar.stop();
    },
  };
}
