/**
 * Which cells (2 MiB) of a file windows are over, and which were not used for so long that their pages need not stay mapped.
 *
 *   users    [ 2 0 0 1 … ]    live windows over the cell
 *   touched  [ 7 6 0 2 … ]    epoch in which it was last used; 0: nothing of it was mapped since it was last given back
 *   active   0 1 3            cells that are not 0
 *
 * An epoch is a quarter of `idleMs`. A cell without users that was last used five epochs ago is given back: between `idleMs` and a quarter more after its last use.
 *
 * Guarantees: a cell under a window is never given back; using a cell costs a store for each, no clock, no list; what a look does is bounded, and
 * nothing is looked at while nothing is mapped.
 * Leaves to others: giving back (`mapping.ts`), when to look (`idle-clock.ts`).
 */
import { EPOCHS_UNUSED, type IdleOwner, lookPeriodMs, unwatchIdle, watchIdle } from './idle-clock.js';

/** Epochs are 1 to this, round and round. */
const EPOCHS = 255;
/** Given back at once at most: 64 MiB, some 0.5 ms if every page of it is mapped. */
const CELLS_AT_ONCE = 32;
/** Until the next part of what is to be given back. */
const NEXT_MS = 1;

export class CellUse implements IdleOwner {
  readonly #periodMs: number;
  readonly #giveBack: (first: number, count: number) => void;
  #users = new Uint32Array(16);
  #touched = new Uint8Array(16);
  #epoch = 1;
  #active: number[] = [];
  /** Found idle, ascending, from the last to the first; given back from the end. */
  #idle: number[] = [];

  /** `giveBack` unmaps the cells [first, first+count). `idleMs` may be Infinity: never. */
  constructor(idleMs: number, giveBack: (first: number, count: number) => void) {
    this.#periodMs = lookPeriodMs(idleMs);
    this.#giveBack = giveBack;
  }

  /** Is a live window over the cell? */
  used(cell: number): boolean {
    return cell < this.#users.length && this.#users[cell] > 0;
  }

  /** A window over cells first…last was made. */
  begin(first: number, last: number): void {
    this.touch(first, last);
    for (let cell = first; cell <= last; cell++) this.#users[cell]++;
  }

  /** It was released. */
  end(first: number, last: number): void {
    for (let cell = first; cell <= last; cell++) {
      this.#users[cell]--;
      this.#touched[cell] = this.#epoch;
    }
  }

  /** Pages of cells first…last are about to be mapped. */
  touch(first: number, last: number): void {
    if (last >= this.#users.length) this.#extend(last + 1);
    for (let cell = first; cell <= last; cell++) {
      if (this.#touched[cell] === 0) this.#activate(cell);
      this.#touched[cell] = this.#epoch;
    }
  }

  look(): number {
    if (this.#idle.length === 0) this.#findIdle();
    this.#giveSomeBack();
    if (this.#idle.length > 0) return NEXT_MS;
    return this.#active.length > 0 ? this.#periodMs : Number.POSITIVE_INFINITY;
  }

  /** Nothing is given back any more. */
  close(): void {
    unwatchIdle(this);
    this.#active.length = 0;
    this.#idle.length = 0;
  }

  #activate(cell: number): void {
    this.#active.push(cell);
    if (this.#active.length === 1) watchIdle(this, this.#periodMs);
  }

  #extend(cells: number): void {
    const length = Math.max(cells, this.#users.length * 2);
    const users = new Uint32Array(length);
    users.set(this.#users);
    this.#users = users;
    const touched = new Uint8Array(length);
    touched.set(this.#touched);
    this.#touched = touched;
  }

  #isIdle(cell: number): boolean {
    return this.#users[cell] === 0 && (this.#epoch - this.#touched[cell] + EPOCHS) % EPOCHS >= EPOCHS_UNUSED;
  }

  /** A new epoch begins; what was not used for long enough goes from the active cells to the idle ones. */
  #findIdle(): void {
    this.#epoch = (this.#epoch % EPOCHS) + 1;
    const active = this.#active;
    let kept = 0;
    for (const cell of active) {
      if (this.#isIdle(cell)) {
        this.#idle.push(cell);
        continue;
      }
      // A window that lives for many epochs is a use in each.
      if (this.#users[cell] > 0) this.#touched[cell] = this.#epoch;
      active[kept++] = cell;
    }
    active.length = kept;
    this.#idle.sort((one, other) => other - one);
  }

  #giveSomeBack(): void {
    let first = -1;
    let count = 0;
    for (let taken = 0; taken < CELLS_AT_ONCE; taken++) {
      const cell = this.#idle.pop();
      if (cell === undefined) break;
      if (!this.#isIdle(cell)) {
        // Used since it was found.
        this.#active.push(cell);
        continue;
      }
      this.#touched[cell] = 0;
      if (cell === first + count) {
        count++;
        continue;
      }
      if (count > 0) this.#giveBack(first, count);
      first = cell;
      count = 1;
    }
    if (count > 0) this.#giveBack(first, count);
  }
}
