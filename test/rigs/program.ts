/**
 * A program in a process of its own, spoken to by messages: so that a process that dies is a failed test, and one that hangs is an ended one.
 *
 *   test ── { question, id } ─> program          `Program.ask`
 *   test <─ { id, answer | error } ─ program     `answer` in the program
 *
 * Guarantees: a question is answered, or rejected once the process has ended or its time is over; the process is killed when its time is over, and ends when the test's process does.
 * Leaves to others: what is asked.
 */
import { type ChildProcess, fork } from 'node:child_process';
import { join } from 'node:path';
import { afterAll } from 'vitest';
import { emitted } from './emitted.js';

/** How a process ended, and what it printed. */
export interface Ending {
  code: number | null;
  signal: NodeJS.Signals | null;
  output: string;
}

interface Reply {
  id: number;
  answer?: unknown;
  error?: string;
}

/** More than any of these programs needs on a busy machine, and less than a test may take; only a hang takes as long. */
const LIFETIME_MS = 110_000;

const programs = new Set<Program>();
afterAll(endPrograms);

/** Kills those that still run: what they hold open or mapped is free afterwards. */
export async function endPrograms(): Promise<void> {
  for (const program of programs) program.kill();
  await Promise.all([...programs].map(({ ended }) => ended));
}

export class Program {
  readonly ended: Promise<Ending>;
  readonly #process: ChildProcess;
  readonly #waiting = new Map<number, { resolve: (answer: unknown) => void; reject: (error: Error) => void }>();
  readonly #script: string;
  #output = '';
  #over: Ending | undefined;
  #count = 0;

  /** Starts `script` (a path within the package, without its ending). */
  static async start(script: string, args: string[] = [], environment: NodeJS.ProcessEnv = {}): Promise<Program> {
    return new Program(await emitted(), script, args, environment);
  }

  private constructor(folder: string, script: string, args: string[], environment: NodeJS.ProcessEnv) {
    this.#script = script;
    this.#process = fork(join(folder, `${script}.js`), args, {
      cwd: folder,
      execArgv: ['--enable-source-maps', '--expose-gc'],
      env: { ...process.env, ...environment },
      stdio: ['ignore', 'pipe', 'pipe', 'ipc'],
      serialization: 'advanced',
    });
    programs.add(this);
    for (const stream of [this.#process.stdout, this.#process.stderr]) stream?.on('data', (data) => (this.#output += data));
    const limit = setTimeout(() => {
      this.#output += '\n(killed: its time was over)';
      this.kill();
    }, LIFETIME_MS);
    this.ended = new Promise((resolve) => {
      this.#process.on('error', (error) => (this.#output += String(error)));
      this.#process.on('close', (code, signal) => {
        clearTimeout(limit);
        programs.delete(this);
        this.#over = { code, signal, output: this.#output };
        for (const { reject } of this.#waiting.values()) reject(this.#gone());
        this.#waiting.clear();
        resolve(this.#over);
      });
    });
    this.#process.on('message', (message) => {
      const { id, answer, error } = message as Reply;
      const waiter = this.#waiting.get(id);
      this.#waiting.delete(id);
      if (error !== undefined) waiter?.reject(new Error(`${script}: ${error}`));
      else waiter?.resolve(answer);
    });
  }

  get pid(): number {
    return this.#process.pid as number;
  }

  /** What the program answers to `question`. */
  ask<T>(question: string, ...args: unknown[]): Promise<T> {
    if (this.#over !== undefined) return Promise.reject(this.#gone());
    const id = ++this.#count;
    return new Promise<T>((resolve, reject) => {
      this.#waiting.set(id, { resolve: resolve as (answer: unknown) => void, reject });
      // A process that has just ended is told by `close`, with what it printed.
      this.#process.send({ id, question, args }, () => {});
    });
  }

  kill(): void {
    this.#process.kill('SIGKILL');
  }

  #gone(): Error {
    return new Error(`${this.#script} ended (exit code ${this.#over?.code}, signal ${this.#over?.signal}). It printed:\n${this.#over?.output}`);
  }
}
