/**
 * A disk cut into what both pictures show, front to end: the table, unused space, partitions.
 *
 *   #|1 efi==|2 root==========!3 data=====....#
 *   ^ table   ^ partition     ^ its start is misaligned   ^ unused, table
 *
 * Guarantees: pieces are in order, cover the disk, and none is empty; there are at most a few more than partitions. What overlaps is cut where the one before it ends, and says so.
 * Leaves to others: drawing (`map.ts`, `svg.ts`).
 */
import type { Partition, Report } from '../layout/model.js';

export interface Piece {
  kind: 'table' | 'unused' | 'partition' | 'several';
  start: bigint;
  end: bigint;
  partition?: Partition;
  /** The partition begins where it should not. */
  startMisaligned: boolean;
  endMisaligned: boolean;
  /** It begins before the one before it ends. */
  overlaps: boolean;
}

/** What of a report the pictures need; a plan has it too. */
export type Drawn = Pick<Report, 'table' | 'findings'>;

/** `size` is the disk's bytes; what the table says beyond them is drawn too. */
export function piecesOf({ table, findings }: Drawn, size: bigint): Piece[] {
  const crookedEnds = new Set(findings.filter(({ code }) => code === 'W_END').map(({ partition }) => partition));
  const sorted = [...table.partitions].sort((a, b) => (a.start < b.start ? -1 : a.start > b.start ? 1 : a.number - b.number));
  const pieces: Piece[] = [];
  let reached = 0n;
  const add = (kind: Piece['kind'], to: bigint, more: Partial<Piece> = {}): void => {
    if (to <= reached) return;
    pieces.push({ kind, start: reached, end: to, startMisaligned: false, endMisaligned: false, overlaps: false, ...more });
    reached = to;
  };

  const copy = table.primary?.valid ? table.primary : table.backup?.valid ? table.backup : undefined;
  const first = sorted[0]?.start ?? size;
  // A table's own sectors: up to the first usable byte, or one sector of an MBR.
  const head = copy !== undefined ? copy.firstUsable : table.kind === 'mbr' ? BigInt(table.sectorSize.value) : 0n;
  add('table', head < first ? head : first);
  const tail = copy === undefined ? size : copy.lastUsable + BigInt(table.sectorSize.value);

  const unusedUpTo = (to: bigint): void => {
    if (tail > reached && tail < to && to === size) add('unused', tail);
    else add('unused', to);
  };
  for (const partition of sorted) {
    const overlaps = partition.start < reached;
    unusedUpTo(partition.start);
    const end = partition.start + partition.size;
    add('partition', end, { partition, startMisaligned: !partition.aligned && !partition.exempt, endMisaligned: crookedEnds.has(partition.number), overlaps });
  }
  unusedUpTo(size);
  if (copy !== undefined) add('table', size);
  return pieces;
}

/**
 * How many of `columns` each piece gets: to scale, but none less than its `least`, and all together exactly `columns`. Undefined where even the least do not fit.
 */
export function shares(pieces: readonly Piece[], columns: number, least: (piece: Piece) => number): number[] | undefined {
  const minimum = pieces.map(least);
  const total = pieces.reduce((sum, { start, end }) => sum + Number(end - start), 0);
  if (minimum.reduce((sum, width) => sum + width, 0) > columns || total === 0) return undefined;
  // Those that would get less than their least get just that, and the others share what is left; which those are changes as they do.
  const widened = new Set<number>();
  for (;;) {
    let left = columns;
    let bytes = 0;
    for (const [index, { start, end }] of pieces.entries()) {
      if (widened.has(index)) left -= minimum[index];
      else bytes += Number(end - start);
    }
    const ideal = pieces.map(({ start, end }, index) => (widened.has(index) ? minimum[index] : (Number(end - start) / bytes) * left));
    const short = pieces.findIndex((_, index) => !widened.has(index) && ideal[index] < minimum[index]);
    if (short < 0) return rounded(ideal, minimum, columns);
    for (const [index, width] of ideal.entries()) if (width < minimum[index]) widened.add(index);
  }
}

/** Whole numbers with the same sum: edges are rounded, so that the error of one does not add to the next. */
function rounded(ideal: readonly number[], minimum: readonly number[], columns: number): number[] {
  const widths: number[] = [];
  let at = 0;
  let edge = 0;
  for (const [index, width] of ideal.entries()) {
    at += width;
    const next = index === ideal.length - 1 ? columns : Math.round(at);
    widths.push(next - edge);
    edge = next;
  }
  // Rounding may have taken a column from one that has its least: the widest gives it back.
  for (const [index, width] of widths.entries()) {
    for (let lacking = minimum[index] - width; lacking > 0; lacking--) {
      const widest = widths.reduce((best, each, other) => (each - minimum[other] > widths[best] - minimum[best] ? other : best), 0);
      widths[widest]--;
      widths[index]++;
    }
  }
  return widths;
}

/** Neighbours joined, smallest first, until no more than `most` are left. */
export function joined(pieces: readonly Piece[], most: number): Piece[] {
  const left = [...pieces];
  while (left.length > most) {
    let best = 0;
    for (let index = 1; index + 1 < left.length; index++) {
      if (left[index + 1].end - left[index].start < left[best + 1].end - left[best].start) best = index;
    }
    const [a, b] = [left[best], left[best + 1]];
    left.splice(best, 2, {
      kind: 'several',
      start: a.start,
      end: b.end,
      startMisaligned: a.startMisaligned || b.startMisaligned,
      endMisaligned: a.endMisaligned || b.endMisaligned,
      overlaps: a.overlaps || b.overlaps,
    });
  }
  return left;
}
