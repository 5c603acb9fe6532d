/** Flushes that become one. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { GroupCommit } from '../../src/requests/group-commit.js';
import { turn } from './manual-engine.js';

/** A group whose rounds end when the test says so. */
class Rounds {
  readonly log: string[] = [];
  readonly ends: ((error?: Error) => void)[] = [];
  readonly group = new GroupCommit((take, end) => {
    this.log.push('round');
    take();
    this.ends.push(end);
  });

  join(name: string, urgent = false): void {
    this.group.join((error) => this.log.push(error === undefined ? name : `${name}: ${error.message}`), urgent);
  }

  end(error?: Error): void {
    (this.ends.shift() as (error?: Error) => void)(error);
  }

  take(): string {
    return this.log.splice(0).join(' ');
  }
}

describe('a group', () => {
  it('answers with one round all that come before it begins, and with the next all that come while it is under way', async () => {
    const rounds = new Rounds();
    rounds.join('a');
    rounds.join('b');
    expect([rounds.take(), rounds.group.busy, rounds.group.active]).toEqual(['', true, false]);
    await turn();
    expect([rounds.take(), rounds.group.active]).toEqual(['round', true]);
    for (const name of ['c', 'd', 'e']) rounds.join(name);
    await turn();
    expect(rounds.take()).toBe('');
    rounds.end();
    expect(rounds.take()).toBe('a b');
    await turn();
    expect(rounds.take()).toBe('round');
    rounds.end();
    expect([rounds.take(), rounds.group.busy]).toEqual(['c d e', false]);
  });

  it('has those in the next round who await a write and flush again when they are told', async () => {
    const rounds = new Rounds();
    let told = 0;
    const caller = async (): Promise<void> => {
      for (let i = 0; i < 3; i++) {
        await Promise.resolve();
        await new Promise<void>((resolve) => rounds.group.join(() => resolve(), false));
        told++;
      }
    };
    const callers = Promise.all(Array.from({ length: 32 }, caller));
    for (let i = 0; i < 3; i++) {
      await turn();
      expect([rounds.group.rounds, told]).toEqual([i + 1, 32 * i]);
      rounds.end();
    }
    await callers;
    expect(rounds.group.rounds).toBe(3);
  });

  it('begins at once, and again at once, for whoever blocks the thread', () => {
    const rounds = new Rounds();
    rounds.join('a', true);
    rounds.join('b');
    rounds.join('c', true);
    expect(rounds.take()).toBe('round');
    rounds.end();
    expect(rounds.take()).toBe('a round');
    rounds.end();
    expect(rounds.take()).toBe('b c');
  });

  it('lets go on what must be alone once everybody was answered, and makes haste until then', async () => {
    const rounds = new Rounds();
    rounds.group.whenIdle(() => rounds.log.push('idle'));
    expect(rounds.take()).toBe('idle');
    rounds.join('a');
    rounds.group.whenIdle(() => rounds.log.push('idle'));
    expect(rounds.take()).toBe('round');
    rounds.join('b');
    rounds.end();
    expect(rounds.take()).toBe('a round');
    rounds.end();
    expect(rounds.take()).toBe('b idle');
    await turn();
    expect(rounds.take()).toBe('');
  });

  it('tells everybody who shared a round its error, and nobody else', async () => {
    const rounds = new Rounds();
    rounds.join('a');
    rounds.join('b');
    await turn();
    rounds.join('c');
    rounds.end(new Error('no'));
    await turn();
    rounds.end();
    expect(rounds.take()).toBe('round a: no b: no round c');
  });

  it('answers everybody once its ground is gone, and says nothing when a round ends after that', async () => {
    const rounds = new Rounds();
    rounds.join('a');
    await turn();
    rounds.join('b');
    rounds.group.whenIdle(() => rounds.log.push('idle'));
    rounds.group.fail(undefined);
    rounds.end(new Error('late'));
    await turn();
    expect([rounds.take(), rounds.group.busy]).toEqual(['round a b idle', false]);
    rounds.group.whenIdle(() => rounds.log.push('idle'));
    expect(rounds.take()).toBe('idle');
  });

  it('goes on where rounds end within their beginning', async () => {
    const told: number[] = [];
    const group = new GroupCommit((take, end) => {
      take();
      end();
    });
    for (let i = 0; i < 10; i++) group.join(() => told.push(i), i === 7);
    await turn();
    expect([told, group.busy]).toEqual([[0, 1, 2, 3, 4, 5, 6, 7, 8, 9], false]);
  });

  it('settles each call once, in order, by a round that began after it', async () => {
    const action = fc.constantFrom('join', 'urgent', 'turn', 'end', 'idle');
    await fc.assert(
      fc.asyncProperty(fc.array(action, { maxLength: 40 }), async (actions) => {
        const settled: number[] = [];
        const begunWhenAsked: number[] = [];
        const takenIn: number[] = [];
        let begun = 0;
        let idle = 0;
        let idleAsked = 0;
        let finish: ((error?: Error) => void) | undefined;
        const group = new GroupCommit((take, end) => {
          expect(finish).toBeUndefined();
          begun++;
          take();
          finish = end;
        });
        const end = (): void => {
          const now = finish;
          finish = undefined;
          now?.();
        };
        const join = (urgent: boolean): void => {
          const number = begunWhenAsked.push(begun) - 1;
          group.join(() => {
            settled.push(number);
            takenIn.push(begun);
          }, urgent);
        };
        for (const each of actions) {
          if (each === 'turn') await turn();
          else if (each === 'end') end();
          else if (each === 'idle') {
            idleAsked++;
            group.whenIdle(() => {
              idle++;
              expect(settled.length).toBe(begunWhenAsked.length);
            });
          } else join(each === 'urgent');
        }
        while (group.busy) {
          await turn();
          end();
        }
        expect(settled).toEqual(begunWhenAsked.map((_, i) => i));
        for (const [i, before] of begunWhenAsked.entries()) expect(takenIn[i]).toBeGreaterThan(before);
        expect(idle).toBe(idleAsked);
      }),
      { numRuns: 100 },
    );
  });
});
