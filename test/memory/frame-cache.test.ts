/** Frames: what may be taken and what may not, counted against a recount. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { Engine, Slab } from '../../src/io/engine.js';
import { ABSENT, BLOCK_BYTES, BLOCK_SECTORS, HELD, PRESENT } from '../../src/memory/block-store.js';
import { FrameCache, RESERVED_FRAMES, SLAB_BYTES_MAX } from '../../src/memory/frame-cache.js';
import { createHeapSlab } from '../../src/testing/heap-slab.js';

/** Of an engine, a cache wants only that it knows the slabs. */
function slabCounter(): Engine {
  let slabs = 0;
  return { addSlab: () => slabs++, giveBack: () => true } as unknown as Engine;
}

/** As `cache`, in areas of two frames; what it gives back is put to `asked` before. */
function cacheOfAreas(frames: number, asked: (cache: FrameCache, first: number, count: number) => boolean): FrameCache {
  const engine = {
    addSlab: () => 0,
    giveBack: (_slab: number, offset: number, length: number) => asked(made, offset / BLOCK_BYTES, length / BLOCK_BYTES),
  } as unknown as Engine;
  const made = new FrameCache(engine, createHeapSlab, frames * BLOCK_BYTES, Number.POSITIVE_INFINITY, 2);
  return made;
}

function cache(frames: number, makeSlab: (bytes: number) => Slab = createHeapSlab): FrameCache {
  return new FrameCache(slabCounter(), makeSlab, frames * BLOCK_BYTES);
}

/** Memory for a block as the manager takes it, with all its sectors valid. */
function load(frames: FrameCache, block: number, count = 1): number {
  const got = frames.take(block, count);
  frames.began(block * BLOCK_SECTORS, got * BLOCK_SECTORS, false);
  frames.ended(block * BLOCK_SECTORS, got * BLOCK_SECTORS, false, true);
  return got;
}

/** Frames that could be taken: counted one by one. */
function recount(frames: FrameCache): number {
  let room = 0;
  for (let frame = 0; frame < frames.frames; frame++) {
    if (frames.pinsOf(frame) === 0 && frames.dirtyOf(frame) === 0 && !frames.isBusy(frame)) room++;
  }
  return room;
}

/** Everything that must hold between any two calls. */
function checkWhole(frames: FrameCache): void {
  expect(frames.room()).toBe(recount(frames));
  const seen = new Set<number>();
  let dirty = 0;
  let reservedFree = 0;
  for (let frame = 0; frame < frames.frames + RESERVED_FRAMES; frame++) {
    const block = frames.blockAt(frame);
    if (frames.dirtyOf(frame) !== 0) dirty++;
    if (block >= 0) {
      expect(seen.has(block)).toBe(false);
      seen.add(block);
      expect(frames.find(block)).toBe(frame);
    } else {
      expect([frames.validOf(frame), frames.dirtyOf(frame), frames.isBusy(frame)]).toEqual([0, 0, false]);
      if (frame >= frames.frames && frames.pinsOf(frame) === 0) reservedFree++;
    }
    expect(frames.pinsOf(frame)).toBeGreaterThanOrEqual(0);
  }
  expect(frames.dirtyCount).toBe(dirty);
  // A frame of the reserve that holds no block is free, and one that does is held by somebody.
  expect(frames.census().reserved).toBe(reservedFree);
}

describe('room', () => {
  it('is exactly what a recount finds, after anything', () => {
    const kinds = ['take', 'pin', 'unpin', 'dirty', 'clean', 'began', 'ended', 'drop', 'evict', 'gather', 'reserve', 'idle'] as const;
    const step = fc.record({
      kind: fc.constantFrom(...kinds),
      block: fc.nat({ max: 24 }),
      count: fc.integer({ min: 1, max: 5 }),
      mask: fc.integer({ min: 1, max: 255 }),
      write: fc.boolean(),
    });
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 12 }), fc.array(step, { maxLength: 120 }), (size, steps) => {
        const frames = cacheOfAreas(size, (all, first, count) => {
          for (let frame = first; frame < first + count; frame++) {
            expect([all.pinsOf(frame), all.dirtyOf(frame), all.isBusy(frame), frame < size]).toEqual([0, 0, false, true]);
          }
          return gives(first);
        });
        let refusing = 0;
        /** Now and then an engine refuses. */
        const gives = (first: number): boolean => (first + refusing++) % 5 !== 0;
        /** Pins that we hold, by frame: a block that is dropped while it is pinned leaves its frame to us. */
        const pinned: number[] = [];
        const operations: { start: number; sectors: number; write: boolean }[] = [];
        const underway = (block: number): boolean => {
          const touched = ({ start, sectors }: { start: number; sectors: number }): boolean =>
            start < (block + 1) * BLOCK_SECTORS && start + sectors > block * BLOCK_SECTORS;
          return operations.some(touched);
        };
        for (const { kind, block, count, mask, write } of steps) {
          const frame = frames.find(block);
          if (kind === 'take' || kind === 'reserve') {
            let absent = 0;
            while (absent < count && frames.find(block + absent) < 0) absent++;
            if (absent === 0) continue;
            frames.useReserve = kind === 'reserve';
            const room = frames.room();
            const got = frames.take(block, absent);
            frames.useReserve = false;
            expect(got > 0).toBe(room > 0);
            expect(got).toBeLessThanOrEqual(Math.min(absent, room));
            const first = frames.find(block);
            for (let i = 0; i < got; i++) {
              expect(frames.find(block + i)).toBe(first + i);
              if (i > 0) expect(frames.adjacent(first + i - 1, first + i)).toBe(true);
              expect(frames.validOf(first + i)).toBe(0);
            }
            if (got > 0) expect([frames.slab, frames.offset]).toEqual([frames.slabOf(first), frames.offsetOf(first)]);
            // A frame of the reserve is never held by nobody.
            if (first >= frames.frames) {
              frames.pinFrame(first);
              pinned.push(first);
            }
          } else if (kind === 'pin' && frame >= 0) {
            frames.pin(block);
            pinned.push(frame);
          } else if (kind === 'unpin' && pinned.length > 0) {
            frames.unpinFrame(pinned.splice(mask % pinned.length, 1)[0]);
          } else if (kind === 'dirty' && frame >= 0 && pinned.includes(frame)) {
            frames.markDirty(frame, mask);
          } else if (kind === 'clean' && frame >= 0) {
            frames.markClean(frame, mask);
          } else if (kind === 'began') {
            const sectors = count * BLOCK_SECTORS - (mask % BLOCK_SECTORS);
            const blocks = Array.from({ length: count }, (_, i) => block + i);
            if (blocks.some((one) => frames.find(one) < 0 || underway(one))) continue;
            frames.began(block * BLOCK_SECTORS, sectors, write);
            operations.push({ start: block * BLOCK_SECTORS, sectors, write });
          } else if (kind === 'ended' && operations.length > 0) {
            const [{ start, sectors, write: wrote }] = operations.splice(mask % operations.length, 1);
            frames.ended(start, sectors, wrote, write);
          } else if (kind === 'drop' && frame >= 0 && !frames.isBusy(frame)) {
            frames.drop(frame);
          } else if (kind === 'evict') {
            const held: number[] = [];
            for (let at = 0; at < frames.frames + RESERVED_FRAMES; at++) {
              if (frames.pinsOf(at) > 0 || frames.dirtyOf(at) !== 0 || frames.isBusy(at)) held.push(frames.blockAt(at));
            }
            frames.evictRange(block, write ? count : 1000);
            for (const one of held) if (one >= 0) expect(frames.find(one)).toBeGreaterThanOrEqual(0);
            if (frame >= 0 && frame < frames.frames && !held.includes(block)) expect(frames.find(block)).toBe(-1);
          } else if (kind === 'idle') {
            for (let looks = 0; looks < count * 2; looks++) frames.lookForIdle();
          } else if (kind === 'gather') {
            const blocks = Array.from({ length: count }, (_, i) => block + i);
            if (blocks.some((one) => frames.find(one) < 0)) continue;
            const before = blocks.map((one) => frames.find(one));
            for (const at of before) frames.pinFrame(at);
            for (const [i, at] of before.entries()) frames.bytesOf(at)[17] = i + 1;
            const first = frames.gather(block, count);
            const after = blocks.map((one) => frames.find(one));
            if (first >= 0) {
              expect(after).toEqual(blocks.map((_, i) => first + i));
              for (const at of before) expect(pinned.includes(at)).toBe(false);
            } else {
              expect(after).toEqual(before);
            }
            for (const [i, at] of after.entries()) expect(frames.bytesOf(at)[17]).toBe(i + 1);
            for (const at of after) frames.unpinFrame(at);
          }
          checkWhole(frames);
        }
        for (const { start, sectors, write } of operations.splice(0)) frames.ended(start, sectors, write, true);
        for (const frame of pinned.splice(0)) frames.unpinFrame(frame);
        for (let frame = 0; frame < frames.frames + RESERVED_FRAMES; frame++) frames.markClean(frame, 0xff);
        checkWhole(frames);
        expect(frames.census()).toEqual({ frames: size, pinned: 0, dirty: 0, busy: 0, room: size, reserved: RESERVED_FRAMES });
      }),
      { numRuns: 200 },
    );
  });
});

describe('frames', () => {
  it('are taken in whole runs where there are any', () => {
    const frames = cache(16);
    for (let block = 0; block < 16; block++) load(frames, block * 10);
    // Two stay: between them there is a run of 9, and around the end one of 5.
    frames.pin(20);
    frames.pin(120);
    // The first round only takes second chances away, and nobody has any.
    expect(frames.take(1000, 9)).toBe(9);
    const first = frames.find(1000);
    expect([frames.find(20), frames.find(120)].every((held) => held < first || held >= first + 9)).toBe(true);
  });

  it('are taken in shorter runs where there is none as long, one at a time if it must be', () => {
    const frames = cache(8);
    for (let block = 0; block < 8; block++) load(frames, block);
    for (const block of [1, 3, 5, 7]) frames.pin(block);
    expect(frames.room()).toBe(4);
    expect(frames.take(100, 4)).toBe(1);
    expect(frames.take(101, 3)).toBe(1);
    expect([1, 3, 5, 7].every((block) => frames.find(block) >= 0)).toBe(true);
  });

  it('that were used twice stay, and the others go in the order they came in', () => {
    const frames = cache(20);
    const use = (block: number): void => {
      expect(frames.tryPin(block, 0xff, false)).toBeGreaterThanOrEqual(0);
      frames.unpin(block);
    };
    for (let block = 0; block < 10; block++) load(frames, block);
    for (const block of [0, 2]) use(block);
    load(frames, 10);
    for (const block of [0, 2]) use(block);
    for (let block = 11; block < 20; block++) load(frames, block);
    for (let block = 100; block < 104; block++) load(frames, block);
    expect([0, 1, 2, 3, 4, 5, 6].map((block) => frames.find(block) >= 0)).toEqual([true, false, true, false, false, false, true]);
    expect(frames.evictions).toBe(4);
  });

  it('that are pinned, dirty or under an operation are never taken', () => {
    const frames = cache(4);
    for (let block = 0; block < 4; block++) load(frames, block);
    frames.pin(0);
    frames.markDirty(frames.find(1), 1);
    frames.began(16, 8, true);
    expect(frames.room()).toBe(1);
    for (let block = 10; block < 20; block++) expect(load(frames, block)).toBe(1);
    expect([0, 1, 2].map((block) => frames.state(block, 0xff, false))).toEqual([PRESENT, PRESENT, PRESENT]);
    frames.pin(19);
    expect([frames.room(), frames.take(20, 1)]).toEqual([0, 0]);
    expect(frames.find(20)).toBe(-1);
  });

  it('are present for a reader while they are written, and held for a store', () => {
    const frames = cache(2);
    load(frames, 0);
    frames.began(0, 4, true);
    expect([frames.state(0, 0xff, false), frames.state(0, 0xff, true), frames.state(1, 1, false)]).toEqual([PRESENT, HELD, ABSENT]);
    expect([frames.isBusy(frames.find(0)), frames.tryPin(0, 1, true)]).toEqual([true, -1]);
    frames.ended(0, 4, true, true);
    expect([frames.isBusy(frames.find(0)), frames.state(0, 0xff, true)]).toEqual([false, PRESENT]);
  });

  it('become valid sector by sector, and only where the read was good', () => {
    const frames = cache(4);
    frames.take(0, 2);
    frames.began(3, 9, false);
    frames.began(12, 2, false);
    expect(frames.state(0, 0, false)).toBe(PRESENT);
    frames.ended(3, 9, false, true);
    frames.ended(12, 2, false, false);
    expect([frames.validOf(frames.find(0)), frames.validOf(frames.find(1))]).toEqual([0b11111000, 0b00001111]);
    expect([frames.state(0, 0b1000, false), frames.state(0, 0b100, false)]).toEqual([PRESENT, HELD]);
    expect(frames.locate(1)).toBe(0b1111);
  });
});

describe('the reserve', () => {
  it('is for blocking calls alone, and comes back with the last pin', () => {
    const frames = cache(1);
    load(frames, 0);
    frames.pin(0);
    expect([frames.room(), frames.take(1, 1)]).toEqual([0, 0]);
    frames.useReserve = true;
    expect(frames.room()).toBe(RESERVED_FRAMES);
    expect(frames.take(1, 5)).toBe(1);
    frames.pin(1);
    frames.pin(1);
    expect(frames.room()).toBe(RESERVED_FRAMES - 1);
    frames.unpin(1);
    expect(frames.find(1)).toBeGreaterThanOrEqual(0);
    frames.unpin(1);
    expect([frames.find(1), frames.room()]).toEqual([-1, RESERVED_FRAMES]);
  });

  it('comes back too when its block was dirty, or is dropped, held or not', () => {
    const frames = cache(1);
    load(frames, 0);
    frames.pin(0);
    frames.useReserve = true;
    for (const way of ['clean', 'drop', 'drop while pinned'] as const) {
      frames.take(1, 1);
      frames.pin(1);
      const frame = frames.find(1);
      frames.markDirty(frame, 0xff);
      if (way === 'drop while pinned') frames.drop(frame);
      frames.unpinFrame(frame);
      if (way === 'clean') frames.markClean(frame, 0xff);
      if (way === 'drop') frames.drop(frame);
      frames.drop(frame);
      expect([way, frames.find(1), frames.room(), frames.dirtyCount]).toEqual([way, -1, RESERVED_FRAMES, 0]);
    }
    expect(frames.census().room).toBe(0);
  });

  it('is no neighbour of the frames before it', () => {
    const frames = cache(4);
    expect([frames.adjacent(2, 3), frames.adjacent(3, 4), frames.adjacent(4, 5), frames.adjacent(3, 2), frames.adjacent(2, 2)]).toEqual([
      true,
      false,
      true,
      false,
      false,
    ]);
  });
});

describe('stray stores', () => {
  /** A slab whose private mapping remembers what was restored. */
  function scribbledSlab(repairs: [number, number][]): (bytes: number) => Slab {
    return (bytes) => ({
      ...createHeapSlab(bytes),
      repair: (offset, length) => {
        repairs.push([offset / BLOCK_BYTES, length / BLOCK_BYTES]);
        return 0;
      },
    });
  }

  it('are looked for before an exposed frame gets another block, once for its whole neighbourhood where many of that are exposed', () => {
    const repairs: [number, number][] = [];
    const frames = cache(300, scribbledSlab(repairs));
    for (let block = 0; block < 300; block++) load(frames, block);
    frames.expose(3, 20);
    frames.expose(100, 30);
    frames.expose(280, 2);
    for (let block = 1000; block < 1300; block++) load(frames, block);
    expect(repairs.sort(([one], [other]) => one - other)).toEqual([
      [0, 256],
      [280, 1],
      [281, 1],
    ]);
    for (let block = 2000; block < 2300; block++) load(frames, block);
    expect(repairs.length).toBe(3);
  });

  it('are looked for in all of a huge page at once, however few of it are exposed', () => {
    const repairs: [number, number][] = [];
    const engine = { ...slabCounter(), isHuge: () => true };
    const frames = new FrameCache(engine, scribbledSlab(repairs), 1200 * BLOCK_BYTES);
    for (let block = 0; block < 1200; block++) load(frames, block);
    frames.expose(3, 2);
    frames.expose(500, 20);
    frames.expose(1100, 1);
    for (let block = 2000; block < 3200; block++) load(frames, block);
    expect(repairs.sort(([one], [other]) => one - other)).toEqual([
      [0, 512],
      [512, 512],
      [1024, 1200 + RESERVED_FRAMES - 1024],
    ]);
  });

  it('are looked for again in frames that somebody still held at the time', () => {
    const repairs: [number, number][] = [];
    const frames = cache(60, scribbledSlab(repairs));
    for (let block = 0; block < 60; block++) load(frames, block);
    const held = frames.find(1);
    frames.expose(0, 60);
    frames.pin(1);
    load(frames, 1000);
    expect(repairs).toEqual([[0, 60 + RESERVED_FRAMES]]);
    frames.unpin(1);
    for (let block = 2000; frames.find(1) >= 0; block++) load(frames, block);
    expect(repairs.slice(1)).toEqual([[held, 1]]);
  });

  it('are looked for before blocks are moved into exposed frames', () => {
    const repairs: [number, number][] = [];
    const frames = cache(6, scribbledSlab(repairs));
    for (const block of [0, 9, 1, 20, 21, 22]) load(frames, block);
    frames.expose(frames.find(20), 2);
    frames.pin(0);
    frames.pin(1);
    const first = frames.gather(0, 2);
    expect(first).toBeGreaterThanOrEqual(0);
    expect([frames.find(0), frames.find(1)]).toEqual([first, first + 1]);
    expect(repairs).toEqual([
      [first, 1],
      [first + 1, 1],
    ]);
  });
});

describe('slabs', () => {
  it('hold 1 GiB at most, and no run of frames straddles two', () => {
    const perSlab = SLAB_BYTES_MAX / BLOCK_BYTES;
    const sizes: number[] = [];
    // Nothing touches the bytes, so the memory need not be there.
    const frames = cache(perSlab + 6, (bytes) => {
      sizes.push(bytes / BLOCK_BYTES);
      return { ...createHeapSlab(BLOCK_BYTES), bytes };
    });
    expect(sizes).toEqual([perSlab, 6 + RESERVED_FRAMES]);
    expect([frames.slabOf(perSlab - 1), frames.slabOf(perSlab), frames.offsetOf(perSlab), frames.offsetOf(perSlab + 1)]).toEqual([0, 1, 0, BLOCK_BYTES]);
    expect(frames.adjacent(perSlab - 1, perSlab)).toBe(false);
    for (let block = 0; block < perSlab - 2; ) block += frames.take(block, perSlab - 2 - block);
    // Two frames are left in the first slab: four neighbours go to the second.
    expect(frames.take(2 ** 40, 4)).toBe(4);
    expect(frames.find(2 ** 40)).toBe(perSlab);
    expect([frames.slab, frames.offset]).toEqual([1, 0]);
  });

  it('are given back when one of them cannot be had', () => {
    const closed: number[] = [];
    let made = 0;
    const failing = (): Slab => {
      if (made === 2) throw new Error('no memory');
      const number = made++;
      return { ...createHeapSlab(BLOCK_BYTES), close: () => closed.push(number) };
    };
    expect(() => cache((3 * SLAB_BYTES_MAX) / BLOCK_BYTES, failing)).toThrow('no memory');
    expect(closed).toEqual([0, 1]);
  });
});

describe('areas', () => {
  const looks = (frames: FrameCache, count: number): void => {
    for (let i = 0; i < count; i++) frames.lookForIdle();
  };

  it('go back with all their blocks when nobody used any of them, and are taken again', () => {
    const given: number[] = [];
    const frames = cacheOfAreas(8, (_cache, first) => given.push(first) > 0);
    for (let block = 0; block < 8; block++) load(frames, block);
    looks(frames, 4);
    expect(given).toEqual([]);
    const [one, other] = [frames.find(2), frames.find(7)];
    frames.tryPin(2, 0xff, false);
    frames.unpin(2);
    frames.touch(other);
    looks(frames, 4);
    expect(given.length).toBe(2);
    expect(given).not.toContain(one - (one % 2));
    expect(given).not.toContain(other - (other % 2));
    expect([0, 1, 2, 3, 4, 5, 6, 7].filter((block) => frames.find(block) >= 0).length).toBe(4);
    expect([frames.room(), frames.evictions]).toEqual([8, 0]);
    looks(frames, 10);
    expect([given.length, frames.lookForIdle()]).toEqual([4, Number.POSITIVE_INFINITY]);
    for (let block = 20; block < 28; block++) load(frames, block);
    checkWhole(frames);
    looks(frames, 20);
    expect(given.length).toBe(8);
  });

  it.each(['pinned', 'dirty', 'busy'] as const)('stay whole while one frame of theirs is %s', (how) => {
    const given: number[] = [];
    const frames = cacheOfAreas(4, (_cache, first) => given.push(first) > 0);
    for (let block = 0; block < 4; block++) load(frames, block);
    const frame = frames.find(3);
    if (how === 'pinned') frames.pinFrame(frame);
    if (how === 'dirty') frames.markDirty(frame, 1);
    if (how === 'busy') frames.began(3 * BLOCK_SECTORS, 1, true);
    looks(frames, 600);
    expect(given.length).toBe(1);
    expect(frames.find(3)).toBe(frame);
    if (how === 'pinned') frames.unpinFrame(frame);
    if (how === 'dirty') frames.markClean(frame, 1);
    if (how === 'busy') frames.ended(3 * BLOCK_SECTORS, 1, true, true);
    looks(frames, 10);
    expect(given.length).toBe(2);
    expect(frames.find(3)).toBe(-1);
  });

  it('of the reserve stay, and so does one that reaches into it', () => {
    const given: number[] = [];
    const frames = cacheOfAreas(3, (_cache, first) => given.push(first) > 0);
    for (let block = 0; block < 3; block++) load(frames, block);
    frames.useReserve = true;
    for (let block = 0; block < 3; block++) frames.pin(block);
    load(frames, 10);
    frames.useReserve = false;
    for (let block = 0; block < 3; block++) frames.unpin(block);
    looks(frames, 100);
    expect(given).toEqual([0]);
  });

  it('that the engine keeps stay as they are', () => {
    const frames = cacheOfAreas(4, () => false);
    for (let block = 0; block < 4; block++) load(frames, block);
    looks(frames, 100);
    for (let block = 0; block < 4; block++) expect(frames.tryPin(block, 0xff, false)).toBeGreaterThanOrEqual(0);
  });
});
