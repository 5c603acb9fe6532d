/**
 * Which areas of memory nobody used for a while, so that they can be given back.
 *
 *   touched  [ 7 0 6 … ]    epoch in which the area was last used; 0: it holds nothing
 *
 * Guarantees: an area is offered between `idleMs` and a quarter more after its last use, again after as long if it could not be given back; using one costs
 * a store; one is given back at a time.
 * Leaves to others: whether somebody still holds it, and giving it back (`frame-cache.ts`).
 */
import { EPOCHS_UNUSED, type IdleOwner, lookPeriodMs, unwatchIdle, watchIdle } from './idle-clock.js';

/** Epochs are 1 to this, round and round. */
const EPOCHS = 255;
/** Areas that are asked for at one look at most, where all of them are held. */
const ASKED_AT_ONCE = 16;
/** Until the next part of what is to be given back. */
const NEXT_MS = 1;

export class IdleAreas implements IdleOwner {
  /** Written by whoever uses an area that holds something: `touched[area] = epoch`. */
  readonly touched: Uint8Array;
  epoch = 1;
  readonly #periodMs: number;
  readonly #giveBack: (area: number) => boolean;
  /** Areas that hold something. */
  #active: number[] = [];
  /** Those of them that were found idle at this epoch. */
  #idle: number[] = [];

  /** `giveBack` empties an area, or answers false where somebody holds a part of it. `idleMs` may be Infinity: never. */
  constructor(areas: number, idleMs: number, giveBack: (area: number) => boolean) {
    this.touched = new Uint8Array(areas);
    this.#periodMs = lookPeriodMs(idleMs);
    this.#giveBack = giveBack;
  }

  /** The area is about to hold something. */
  fill(area: number): void {
    if (this.touched[area] === 0) {
      this.#active.push(area);
      if (this.#active.length === 1) watchIdle(this, this.#periodMs);
    }
    this.touched[area] = this.epoch;
  }

  look(): number {
    if (this.#idle.length === 0) this.#findIdle();
    for (let asked = 0; asked < ASKED_AT_ONCE; asked++) {
      const area = this.#idle.pop();
      if (area === undefined) break;
      if (!this.#isIdle(area)) continue;
      if (this.#giveBack(area)) {
        this.touched[area] = 0;
        this.#active.splice(this.#active.indexOf(area), 1);
        break;
      }
      // Held: that is a use.
      this.touched[area] = this.epoch;
    }
    if (this.#idle.length > 0) return NEXT_MS;
    return this.#active.length > 0 ? this.#periodMs : Number.POSITIVE_INFINITY;
  }

  /** Nothing is given back any more. */
  close(): void {
    unwatchIdle(this);
    this.#active.length = 0;
    this.#idle.length = 0;
  }

  #isIdle(area: number): boolean {
    return (this.epoch - this.touched[area] + EPOCHS) % EPOCHS >= EPOCHS_UNUSED;
  }

  #findIdle(): void {
    this.epoch = (this.epoch % EPOCHS) + 1;
    for (const area of this.#active) if (this.#isIdle(area)) this.#idle.push(area);
  }
}
