/** The order among changes of a file. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type Mutation, MutationQueue } from '../../src/requests/mutation-queue.js';

interface Probe extends Mutation {
  name: string;
  /** Ends it; only after it began. */
  end(error?: Error): void;
  begun: boolean;
}

function probe(name: string, log: string[], options: { from?: number; to?: number; grows?: number; sync?: boolean } = {}): Probe {
  let finish: ((error?: Error) => void) | undefined;
  return {
    name,
    from: options.from ?? 0,
    to: options.to ?? 0,
    begun: false,
    sizeAfter: (size) => size + (options.grows ?? 0),
    start(done) {
      this.begun = true;
      log.push(`start ${name}`);
      finish = done;
      if (options.sync === true) done();
    },
    settle: (error) => {
      log.push(`settle ${name}${error === undefined ? '' : ` ${error.message}`}`);
    },
    end: (error) => finish?.(error),
  };
}

describe('the queue of mutations', () => {
  it('runs one at a time, in the order of the calls', () => {
    const log: string[] = [];
    const queue = new MutationQueue();
    const [a, b] = [probe('a', log), probe('b', log)];
    queue.push(a);
    queue.push(b);
    expect([log.join(), queue.length, queue.last]).toEqual(['start a', 2, b]);
    a.end();
    expect(log.join()).toBe('start a,settle a,start b');
    b.end();
    expect([log.at(-1), queue.length, queue.last, a.ended, b.ended]).toEqual(['settle b', 0, undefined, true, true]);
  });

  it('goes on after one that failed', () => {
    const log: string[] = [];
    const queue = new MutationQueue();
    const [a, b] = [probe('a', log), probe('b', log)];
    queue.push(a);
    queue.push(b);
    a.end(new Error('no'));
    b.end();
    expect(log).toEqual(['start a', 'settle a no', 'start b', 'settle b']);
  });

  it('lets a follower go on when the mutation it waits for has ended, and not before', () => {
    const log: string[] = [];
    const queue = new MutationQueue();
    const [a, b] = [probe('a', log), probe('b', log)];
    queue.push(a);
    queue.push(b);
    queue.follow(b, () => log.push('after b'));
    queue.follow(a, () => log.push('after a'));
    a.end();
    expect(log).toEqual(['start a', 'settle a', 'after a', 'start b']);
    b.end();
    expect(log.slice(4)).toEqual(['settle b', 'after b']);
  });

  it('takes back what has not begun, and lets its followers go on', () => {
    const log: string[] = [];
    const queue = new MutationQueue();
    const [a, b, c] = [probe('a', log), probe('b', log), probe('c', log)];
    for (const mutation of [a, b, c]) queue.push(mutation);
    queue.follow(b, () => log.push('after b'));
    expect(queue.remove(a)).toBe(false);
    expect(queue.remove(b)).toBe(true);
    expect(queue.remove(b)).toBe(false);
    expect(log).toEqual(['start a', 'after b']);
    a.end();
    c.end();
    expect(log.slice(2)).toEqual(['settle a', 'start c', 'settle c']);
    expect(b.begun).toBe(false);
    expect(queue.remove(a)).toBe(false);
  });

  it('runs ten thousand that end at once without a stack as deep', () => {
    const log: string[] = [];
    const queue = new MutationQueue();
    const first = probe('first', log);
    queue.push(first);
    let deepest = 0;
    let depth = 0;
    for (let i = 0; i < 10_000; i++) {
      queue.push({
        from: 0,
        to: 0,
        sizeAfter: (size) => size,
        start: (done) => {
          depth++;
          deepest = Math.max(deepest, depth);
          done();
          depth--;
        },
        settle: () => {},
      });
    }
    first.end();
    expect([queue.length, deepest]).toEqual([0, 1]);
  });

  it('runs in order those that are pushed while another begins or ends', () => {
    const log: string[] = [];
    const queue = new MutationQueue();
    const late = probe('late', log, { sync: true });
    const last = probe('last', log, { sync: true });
    queue.push({
      ...probe('first', log),
      start: (done) => {
        log.push('start first');
        queue.push(late);
        done();
      },
      settle: () => {
        log.push('settle first');
        queue.push(last);
      },
    });
    expect(log).toEqual(['start first', 'settle first', 'start late', 'settle late', 'start last', 'settle last']);
  });

  it('says when it is empty: at once if it is, else once everything ended or was taken back', () => {
    const log: string[] = [];
    const queue = new MutationQueue();
    queue.whenEmpty(() => log.push('empty'));
    expect(log).toEqual(['empty']);
    const [a, b] = [probe('a', log), probe('b', log)];
    queue.push(a);
    queue.push(b);
    queue.whenEmpty(() => log.push('empty again'));
    queue.remove(b);
    expect(log.at(-1)).toBe('start a');
    a.end();
    expect(log.slice(-2)).toEqual(['settle a', 'empty again']);
  });

  it('says how large the file will be, and which change touches a range last', () => {
    const queue = new MutationQueue();
    const span = fc.tuple(fc.nat({ max: 40 }), fc.nat({ max: 10 }), fc.nat({ max: 5 }));
    const asked = fc.tuple(fc.nat({ max: 40 }), fc.integer({ min: 1, max: 10 }));
    fc.assert(
      fc.property(fc.array(span, { maxLength: 12 }), asked, fc.nat(), (spans, [from, length], size) => {
        const changes = spans.map(([start, bytes, grows], i) => probe(`${i}`, [], { from: start, to: start + bytes, grows }));
        for (const change of changes) queue.push(change);
        expect(queue.sizeAfter(size)).toBe(spans.reduce((sum, [, , grows]) => sum + grows, size));
        // A change that grows the file touches everything from the end before to the end after.
        let end = size;
        const touching = changes.filter((change, i) => {
          const before = end;
          end += spans[i][2];
          return (change.from < from + length && change.to > from) || (before < end && before < from + length && end > from);
        });
        expect(queue.lastTouching(from, from + length, size)).toBe(touching.at(-1));
        for (const change of changes) change.end();
        expect(queue.length).toBe(0);
      }),
    );
  });

  it('fails everything accepted, in order, and whatever comes after, once the ground is gone; what a running one still does is nobody’s business', () => {
    const log: string[] = [];
    const queue = new MutationQueue();
    const [a, b, c, d] = ['a', 'b', 'c', 'd'].map((name) => probe(name, log));
    queue.push(a);
    queue.push(b);
    queue.push(c);
    queue.follow(b, () => {
      log.push('follower of b');
      queue.push(d);
    });
    queue.whenEmpty(() => log.push('empty'));
    queue.fail(new Error('gone'));
    expect(log).toEqual(['start a', 'settle a gone', 'settle b gone', 'settle c gone', 'follower of b', 'settle d gone', 'empty']);
    expect([a, b, c, d].map(({ ended }) => ended)).toEqual([true, true, true, true]);
    expect([queue.length, queue.last]).toEqual([0, undefined]);
    a.end();
    a.end(new Error('late'));
    expect(queue.remove(b)).toBe(false);
    expect(log.length).toBe(7);
  });

  it('can fail while one of its mutations begins', () => {
    const log: string[] = [];
    const queue = new MutationQueue();
    const first = probe('first', log);
    const begin = first.start;
    first.start = (done) => {
      begin.call(first, done);
      queue.fail(new Error('gone'));
      done();
    };
    const blocker = probe('blocker', log);
    queue.push(blocker);
    queue.push(first);
    queue.push(probe('second', log));
    blocker.end();
    expect(log).toEqual(['start blocker', 'settle blocker', 'start first', 'settle first gone', 'settle second gone']);
    expect(queue.length).toBe(0);
  });

  it('says which bytes it has not changed yet: those of each, and between the ends where one moves the end', () => {
    const queue = new MutationQueue();
    const log: string[] = [];
    const end = (to: number): Probe => ({ ...probe('end', log, { from: 0, to: Number.MAX_SAFE_INTEGER }), sizeAfter: () => to });
    queue.push(probe('write', log, { from: 10, to: 30 }));
    queue.push(end(40));
    queue.push(probe('flush', log));
    queue.push(end(70));
    queue.push({ ...probe('look', log, { from: 5, to: Number.MAX_SAFE_INTEGER }), sizeAfter: (size) => size });
    expect(queue.pending(100)).toEqual([
      { offset: 10, length: 20 },
      { offset: 40, length: 60 },
      { offset: 40, length: 30 },
    ]);
    expect(queue.pending(40)).toEqual([
      { offset: 10, length: 20 },
      { offset: 40, length: 30 },
    ]);
  });
});
