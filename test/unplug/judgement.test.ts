/** The verdict from what was read and what was refused: what ends a file, and what never may. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { native } from '../../src/io/native.js';
import { CAUSE_NONE, CAUSE_SHUTDOWN, CAUSE_UNPLUG } from '../../src/memory/validity.js';

const UNKNOWN = 0;
const ALIVE = 1;
const DEAD = 2;
const EIO = 5;
const ENXIO = 6;
const ENODEV = 19;

interface Signs {
  isDevice?: boolean;
  asked?: number;
  failed?: number;
  raw?: number;
  refused?: boolean;
  reported?: number;
}

function judge({ isDevice = false, asked = 0, failed = 0, raw = UNKNOWN, refused = false, reported = 0 }: Signs): { cause: number; wholeDevice: boolean } {
  return native().judgePresence(isDevice, asked, failed, raw, refused, reported);
}

describe('the verdict', () => {
  it('is none where everything answers', () => {
    expect(judge({ asked: 3 })).toEqual({ cause: CAUSE_NONE, wholeDevice: false });
    expect(judge({ asked: 3, isDevice: true })).toEqual({ cause: CAUSE_NONE, wholeDevice: false });
  });

  it('is an unplug where every place of a file failed and its device cannot be asked, of this file alone', () => {
    expect(judge({ asked: 3, failed: 3 })).toEqual({ cause: CAUSE_UNPLUG, wholeDevice: false });
    expect(judge({ asked: 2, failed: 2 })).toEqual({ cause: CAUSE_UNPLUG, wholeDevice: false });
  });

  it('is an unplug of all files where every place of the device failed', () => {
    expect(judge({ asked: 3, failed: 3, isDevice: true })).toEqual({ cause: CAUSE_UNPLUG, wholeDevice: true });
    expect(judge({ asked: 1, failed: 1, raw: DEAD })).toEqual({ cause: CAUSE_UNPLUG, wholeDevice: true });
    expect(judge({ raw: DEAD, refused: true })).toEqual({ cause: CAUSE_UNPLUG, wholeDevice: true });
  });

  it('is none where all places of a file are bad sectors of a device that answers', () => {
    expect(judge({ asked: 3, failed: 3, raw: ALIVE }).cause).toBe(CAUSE_NONE);
  });

  it('is none after one place, whatever it said', () => {
    expect(judge({ asked: 1, failed: 1, reported: EIO }).cause).toBe(CAUSE_NONE);
    expect(judge({ asked: 1, failed: 1, isDevice: true, reported: EIO }).cause).toBe(CAUSE_NONE);
  });

  it('believes ENODEV and ENXIO of an operation where no place could be read', () => {
    expect(judge({ reported: ENODEV }).cause).toBe(CAUSE_UNPLUG);
    expect(judge({ reported: ENXIO }).cause).toBe(CAUSE_UNPLUG);
    expect(judge({ reported: EIO }).cause).toBe(CAUSE_NONE);
    expect(judge({ asked: 2, failed: 0, reported: ENODEV }).cause).toBe(CAUSE_NONE);
  });

  it('is a shutdown where the file system refuses and no device was seen dead', () => {
    expect(judge({ refused: true })).toEqual({ cause: CAUSE_SHUTDOWN, wholeDevice: false });
    expect(judge({ refused: true, asked: 3, failed: 3 }).cause).toBe(CAUSE_SHUTDOWN);
    expect(judge({ refused: true, asked: 3, failed: 3, raw: ALIVE }).cause).toBe(CAUSE_SHUTDOWN);
  });

  it('is never an unplug while any place of the file answers, or any of its device', () => {
    const signs = fc.record({
      isDevice: fc.boolean(),
      asked: fc.integer({ min: 0, max: 3 }),
      failed: fc.integer({ min: 0, max: 3 }),
      raw: fc.constantFrom(UNKNOWN, ALIVE, DEAD),
      refused: fc.boolean(),
      reported: fc.constantFrom(0, EIO, ENXIO, ENODEV),
    });
    fc.assert(
      fc.property(signs, (made) => {
        fc.pre(made.failed <= made.asked);
        if (judge(made).cause === CAUSE_UNPLUG) {
          expect(made.failed).toBe(made.asked);
          expect(made.raw).not.toBe(ALIVE);
        }
      }),
    );
  });
});
