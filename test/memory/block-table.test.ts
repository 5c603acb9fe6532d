/** Block number → frame, against a Map. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { BlockTable } from '../../src/memory/block-table.js';

const frames = 48;

/** Blocks that are near, far, or alike in their low 32 bits, which is all that is hashed. */
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
        const blockOf = new Float64Array(frames).fill(-1);
        const table = new BlockTable(blockOf);
        const model = new Map<number, number>();
        const free = Array.from({ length: frames }, (_, i) => i);
        for (const { block, insert, which } of steps) {
          if (insert) {
            if (model.has(block) || free.length === 0) continue;
            const [frame] = free.splice(which % free.length, 1);
            blockOf[frame] = block;
            table.insert(frame);
            model.set(block, frame);
          } else if (model.size > 0) {
            const [gone, frame] = [...model][which % model.size];
            table.remove(frame);
            blockOf[frame] = -1;
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

  it('keeps all its blocks when it is as full as it gets and they all have one home', () => {
    const blockOf = new Float64Array(frames);
    for (let frame = 0; frame < frames; frame++) blockOf[frame] = 7 + frame * 2 ** 32;
    const table = new BlockTable(blockOf);
    for (let frame = 0; frame < frames; frame++) table.insert(frame);
    for (let frame = 0; frame < frames; frame += 2) table.remove(frame);
    for (let frame = 0; frame < frames; frame++) expect(table.find(7 + frame * 2 ** 32)).toBe(frame % 2 === 0 ? -1 : frame);
    expect(table.find(7 + frames * 2 ** 32)).toBe(-1);
  });

  it('is of use for a single frame', () => {
    const blockOf = Float64Array.of(2 ** 40);
    const table = new BlockTable(blockOf);
    expect(table.find(2 ** 40)).toBe(-1);
    table.insert(0);
    expect(table.find(2 ** 40)).toBe(0);
    table.remove(0);
    expect(table.find(2 ** 40)).toBe(-1);
  });
});
