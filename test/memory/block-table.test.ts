/** Block number → frame, against a Map. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { BlockTable } from '../../src/memory/block-table.js';
import { FRAME_WORDS } from '../../src/memory/frame-record.js';

const frames = 48;

/** Blocks that are near, far, or alike in their low 32 bits. */
const block = fc.oneof(
  fc.nat({ max: 60 }),
  fc.nat({ max: 20 }).map((i) => i * 2 ** 32),
  fc.nat({ max: 20 }).map((i) => 5 + i * 2 ** 32),
  fc.nat({ max: 20 }).map((i) => 2 ** 41 - 1 - i),
  fc.nat({ max: 20 }).map((i) => 2 ** 31 - 10 + i),
);

describe('the table of blocks', () => {
  it('answers as a Map does, whatever collides', () => {
    const step = fc.record({ block, insert: fc.boolean(), which: fc.nat() });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 200 }), fc.array(block, { maxLength: 20 }), (steps, asked) => {
        const table = new BlockTable(new Int32Array(frames * FRAME_WORDS));
        const model = new Map<number, number>();
        const free = Array.from({ length: frames }, (_, i) => i);
        for (const { block, insert, which } of steps) {
          if (insert) {
            if (model.has(block) || free.length === 0) continue;
            const [frame] = free.splice(which % free.length, 1);
            table.insert(frame, block);
            model.set(block, frame);
          } else if (model.size > 0) {
            const [gone, frame] = [...model][which % model.size];
            table.remove(frame);
            free.push(frame);
            model.delete(gone);
          }
          for (const [known, frame] of model) expect(table.find(known)).toBe(frame);
        }
        for (const one of asked) expect(table.find(one)).toBe(model.get(one) ?? -1);
      }),
      { numRuns: 300 },
    );
  });

  it('keeps all its blocks when it is as full as it gets and they share few homes', () => {
    const table = new BlockTable(new Int32Array(frames * FRAME_WORDS));
    // Alike modulo eight: one place in each run of eight is the home of them all.
    for (let frame = 0; frame < frames; frame++) table.insert(frame, 7 + frame * 2 ** 32);
    for (let frame = 0; frame < frames; frame += 2) table.remove(frame);
    for (let frame = 0; frame < frames; frame++) expect(table.find(7 + frame * 2 ** 32)).toBe(frame % 2 === 0 ? -1 : frame);
    expect(table.find(7 + frames * 2 ** 32)).toBe(-1);
  });

  it('is of use for a single frame', () => {
    const table = new BlockTable(new Int32Array(FRAME_WORDS));
    expect(table.find(2 ** 40)).toBe(-1);
    table.insert(0, 2 ** 40);
    expect(table.find(2 ** 40)).toBe(0);
    table.remove(0);
    expect(table.find(2 ** 40)).toBe(-1);
  });
});
