/** The other end of `Program`: what a program that was started by one does with questions. */

/** Answers each question by the function of its name. The process lives until it is told to end, or until who started it is gone. */
export function answerQuestions(answers: Record<string, (...args: never[]) => unknown>): void {
  process.on('message', async (message) => {
    const { id, question, args } = message as { id: number; question: string; args: never[] };
    try {
      const answer = await answers[question](...args);
      process.send?.({ id, answer });
    } catch (error) {
      process.send?.({ id, error: error instanceof Error ? (error.stack ?? error.message) : String(error) });
    }
  });
  process.on('disconnect', () => {
    // No tidy end: a thread of Node's pool may be inside a call that never returns.
    process.kill(process.pid, 'SIGKILL');
  });
}
