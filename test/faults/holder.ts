/**
 * The program of the fault tests: holds windows on its main thread, in two workers at once, or as the input of Node's own calls that are running, and answers what it sees.
 *
 * The same script is the worker: there it answers its main thread instead of the test.
 */
import { fileURLToPath } from 'node:url';
import { isMainThread, parentPort, Worker } from 'node:worker_threads';
import { answerQuestions } from '../rigs/answers.js';
import { Calls, type CallsSeen } from './calls.js';
import { Holding, type HoldOptions, type Observation, type Range, type Thrown, thrown } from './holding.js';

export type Holder = 'main' | 'workers' | 'calls';

type Answers = Record<string, (...args: never[]) => unknown>;

let holding: Holding;
let calls: Calls | undefined;
/** The event loop's turns. */
let turns = 0;
let counting = false;

/** What one thread does. */
const own = {
  async hold(options: HoldOptions, callsPath?: string): Promise<void> {
    holding = await Holding.open(options);
    if (callsPath !== undefined) {
      calls = new Calls();
      await calls.start(holding.views, callsPath);
    }
  },
  ask: (kind: 'window' | 'read', range: Range) => holding.ask(kind, range),
  answers: () => holding.answers(),
  touch: (index: number, at: number, value?: number) => holding.touch(index, at, value),
  async noticed(gone: number[], withEvent = true): Promise<boolean> {
    calls?.mark();
    return await holding.noticed(gone, withEvent);
  },
  sized: (size: number) => holding.sized(size),
  observe: () => holding.observe(),
  async stopCalls(): Promise<CallsSeen[]> {
    const seen = (await calls?.stop()) ?? [];
    calls = undefined;
    return seen;
  },
  release: () => holding.release(),
  close: () => holding.close(),
  write: (bytes: Uint8Array, offset: number) => holding.file.write(bytes, offset).then(() => undefined, thrown),
  /** Turns of the event loop while the range is brought in, and what became of it. */
  async turnsDuring(
    what: 'window' | 'read' | 'batch' | 'prefetch',
    { offset, length }: Range,
  ): Promise<{ turns: number; delayed: boolean; immediate: boolean }> {
    const { file } = holding;
    const immediate = file.tryWindow(offset, length) !== undefined;
    turns = 0;
    counting = true;
    const turn = (): void => {
      turns++;
      if (counting) setImmediate(turn);
    };
    let delayed = true;
    setImmediate(turn);
    if (what === 'window') (await file.window(offset, length)).release();
    else if (what === 'read') await file.read(new Uint8Array(length), offset);
    else if (what === 'prefetch') await file.prefetch(offset, length);
    else {
      const batch = file.batch<void>((_window, _context, late) => {
        delayed = late;
      });
      batch.get(offset, length, undefined);
      await batch.end();
    }
    counting = false;
    return { turns, delayed, immediate };
  },
};

/** Everybody that holds: this thread, or its workers. Answers are one for each. */
let threads: Array<(question: string, ...args: unknown[]) => Promise<unknown>> = [];

async function startWorker(): Promise<(question: string, ...args: unknown[]) => Promise<unknown>> {
  const worker = new Worker(fileURLToPath(import.meta.url));
  const waiting = new Map<number, { resolve: (answer: unknown) => void; reject: (error: Error) => void }>();
  let count = 0;
  worker.on('message', ({ id, answer, error }) => {
    const waiter = waiting.get(id);
    waiting.delete(id);
    if (error === undefined) waiter?.resolve(answer);
    else waiter?.reject(new Error(error));
  });
  // What a worker throws outside of an answer ends the program, as it would end a user's.
  worker.on('error', (error) => {
    throw error;
  });
  return (question, ...args) =>
    new Promise((resolve, reject) => {
      const id = ++count;
      waiting.set(id, { resolve, reject });
      worker.postMessage({ id, question, args });
    });
}

const everybody = (question: string, ...args: unknown[]): Promise<unknown[]> => Promise.all(threads.map((ask) => ask(question, ...args)));

if (isMainThread) {
  const asked: Answers = {
    /** With several options, each worker has its own. */
    async start(options: HoldOptions | HoldOptions[], holder: Holder, callsPath: string): Promise<void> {
      const here = (question: string, ...args: unknown[]): Promise<unknown> => Promise.resolve((own as Answers)[question](...(args as never[])));
      threads = holder === 'workers' ? await Promise.all([startWorker(), startWorker()]) : [here];
      await Promise.all(threads.map((ask, i) => ask('hold', Array.isArray(options) ? options[i] : options, holder === 'calls' ? callsPath : undefined)));
    },
    /** Only of one thread. */
    of: (thread: number, question: string, ...args: unknown[]) => threads[thread](question, ...args),
    end() {
      // After the answer went out. Whatever is still open must not keep the process, nor crash it when it goes.
      setTimeout(() => process.exit(0), 10);
    },
  };
  for (const question of Object.keys(own)) if (question !== 'hold') asked[question] = (...args: never[]) => everybody(question, ...args);
  answerQuestions(asked);
} else {
  parentPort?.on('message', async ({ id, question, args }) => {
    try {
      parentPort?.postMessage({ id, answer: await (own as Answers)[question](...(args as never[])) });
    } catch (error) {
      parentPort?.postMessage({ id, error: (error as Error).stack ?? String(error) });
    }
  });
}

export type { Observation, Thrown };
