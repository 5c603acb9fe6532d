/**
 * Processes that the benchmarks start and wait for.
 *
 * Guarantees: whatever ends this process ends them and their own children first, so that nothing holds a device that is to be taken down. A process that is killed (SIGKILL) ends nobody.
 */
import { spawn } from 'node:child_process';

const running = new Set<number>();

process.on('exit', () => {
  for (const pid of running) {
    try {
      process.kill(-pid, 'SIGKILL');
    } catch {
      // It has just ended by itself.
    }
  }
});

/** Thrown by `runChild`; `stderr` is what the child said. */
export class ChildFailed extends Error {
  readonly stderr: string;

  constructor(message: string, stderr: string) {
    super(message);
    this.stderr = stderr;
  }
}

/** Runs it to its end, in a process group of its own; answers with what it wrote. */
export function runChild(command: string, args: readonly string[], env: NodeJS.ProcessEnv = process.env, cwd?: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, { env, cwd, detached: true, stdio: ['ignore', 'pipe', 'pipe'] });
    const { pid } = child;
    if (pid !== undefined) running.add(pid);
    let stdout = '';
    let stderr = '';
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      stdout += text;
    });
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      stderr += text;
    });
    child.on('error', (error) => {
      if (pid !== undefined) running.delete(pid);
      reject(error);
    });
    child.on('close', (code, signal) => {
      if (pid !== undefined) running.delete(pid);
      if (code === 0) resolve(stdout);
      else
        reject(new ChildFailed(`${command} ${args[0] ?? ''}: ${signal ?? `exit code ${code}`}: ${stderr.trim().split('\n').slice(0, 12).join('\n')}`, stderr));
    });
  });
}
