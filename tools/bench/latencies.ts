/**
 * What a run measured: how long each operation took, and the figures that are made of it.
 *
 * Guarantees: recording allocates nothing but a doubled array now and then; percentiles are of the recorded values themselves
 * (nearest rank), none is interpolated.
 */

/** Durations in microseconds, as they came. */
export class Latencies {
  #values = new Float64Array(1 << 14);
  #count = 0;

  get count(): number {
    return this.#count;
  }

  record(micros: number): void {
    if (this.#count === this.#values.length) {
      const larger = new Float64Array(this.#values.length * 2);
      larger.set(this.#values);
      this.#values = larger;
    }
    this.#values[this.#count++] = micros;
  }

  /** Values in ascending order; sorts in place, so record no more after it. */
  sorted(): Float64Array {
    return this.#values.subarray(0, this.#count).sort();
  }
}

/** Nearest rank: the smallest value that at least `percent` per cent of all are not above. NaN for none. */
export function percentile(sorted: ArrayLike<number>, percent: number): number {
  if (sorted.length === 0) return Number.NaN;
  const rank = Math.ceil((percent / 100) * sorted.length);
  return sorted[Math.min(sorted.length - 1, Math.max(0, rank - 1))];
}

/** The middle value; of an even number the mean of the two in the middle. NaN for none. */
export function median(values: readonly number[]): number {
  if (values.length === 0) return Number.NaN;
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}
