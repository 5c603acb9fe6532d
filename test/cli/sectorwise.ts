/**
 * The command `sectorwise` as a child process, as it is now.
 *
 * Guarantees: the exit code, both streams in full; nothing of this process's terminal settings reaches it but what a test gives.
 */
import { type SpawnSyncOptions, spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { emitted } from '../rigs/emitted.js';

export interface Outcome {
  status: number | null;
  stdout: string;
  stderr: string;
}

/** The path of the program. */
export async function program(): Promise<string> {
  return join(await emitted(), 'src', 'cli', 'main.js');
}

/** `sectorwise ...args`, with the environment's colours and width left out. */
export async function sectorwise(args: readonly string[], options: SpawnSyncOptions = {}): Promise<Outcome> {
  const { NO_COLOR, COLUMNS, FORCE_COLOR, ...env } = process.env;
  const { status, stdout, stderr } = spawnSync(process.execPath, [await program(), ...args], {
    timeout: 100_000,
    maxBuffer: 64 * 1024 * 1024,
    ...options,
    env: { ...env, ...options.env },
  });
  return { status, stdout: String(stdout), stderr: String(stderr) };
}
