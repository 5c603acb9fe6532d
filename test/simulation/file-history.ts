/**
 * What readers of a file may see while several callers change it at once.
 *
 *   base ── change 1 ── change 2 ── change 3 ──> now       in the order in which the library accepted them
 *     ^ all before it ended well                ^ what a call that is made now has to see
 *
 *   Observation   [ now when it was opened | + every state until it was frozen ]
 *                 each byte must have been the file's at one of those moments; so must the length
 *
 * Guarantees: a change that failed leaves its range unknown (it may have happened in part) until it is written again; one that was taken back leaves nothing;
 * a size that a failure left open is a range of sizes until somebody can say which it is.
 * Leaves to the driver: telling each acceptance and each end.
 */

/** A change of the file. Offsets and lengths in bytes. */
export type Change =
  | { kind: 'write'; from: number; bytes: Uint8Array }
  | { kind: 'truncate'; size: number }
  | { kind: 'allocate'; from: number; length: number }
  | { kind: 'zero'; from: number; length: number }
  /** Nobody can say what the range holds: discarded on a device. */
  | { kind: 'forget'; from: number; length: number }
  /** Given up after a failed flush: as `forget`, and where the file ended in it, it may end before it. */
  | { kind: 'lose'; from: number; length: number }
  /**
   * Somebody else made the file end at `size`, and it is not known whether the library has seen that. Until it has, what lies behind may be as it was, zeros, or not there; then (`taken`) what lies
   * behind the end that it saw, and was not changed since the last flush, is zeros, or not there. It sees a later end where it wrote behind the cut before it looked.
   */
  | { kind: 'cut'; size: number; taken: boolean; seen: number; flushedAt: number; most: number };

/** A change that was accepted. */
export interface Accepted {
  readonly change: Change;
  /** When it was accepted and when it ended, on the history's clock; Infinity before. */
  readonly acceptedAt: number;
  endedAt: number;
  /** When it became something for a flush to make durable. */
  stampedAt: number;
  /** First byte that it can change, and the first behind it. */
  readonly from: number;
  to: number;
  state: 'pending' | 'ended' | 'failed';
  /** Stored into a window and not marked: readers see it, no flush has to take it, and none that was called before may. */
  unmarked: boolean;
  /** Something else was written into its sectors: a flush of that takes it along. */
  escaped: boolean;
}

/** Compared at once where they are equal. */
const PAGE_BYTES = 4096;

type News = 'accepted' | 'marked' | 'failed' | 'withdrawn';

class FileState {
  readonly bytes: Uint8Array;
  /** 1 where the byte may be anything. */
  readonly unknown: Uint8Array;
  /** For each sector, when what changed it last was accepted. */
  readonly changedAt: Float64Array;
  readonly unit: number;
  /** When the library saw the last cut by others. */
  cutUntil = 0;
  /** The least that others cut it to. */
  cutFrom = Number.POSITIVE_INFINITY;
  least = 0;
  most = 0;

  constructor(capacity: number, unit: number) {
    this.bytes = new Uint8Array(capacity);
    this.unknown = new Uint8Array(capacity);
    this.changedAt = new Float64Array(Math.ceil(capacity / unit) + 1);
    this.unit = unit;
  }

  become(other: FileState): void {
    this.bytes.set(other.bytes);
    this.unknown.set(other.unknown);
    this.changedAt.set(other.changedAt);
    this.cutUntil = other.cutUntil;
    this.cutFrom = other.cutFrom;
    this.least = other.least;
    this.most = other.most;
  }

  apply({ change, from, to, state, acceptedAt, endedAt, stampedAt }: Accepted): void {
    if (change.kind !== 'cut' && change.kind !== 'truncate') {
      // What was on its way when a cut was seen is written once more after it.
      const stamp = acceptedAt < this.cutUntil ? Math.max(stampedAt, this.cutUntil) : stampedAt;
      for (let sector = Math.floor(from / this.unit); sector * this.unit < to; sector++) this.changedAt[sector] = Math.max(this.changedAt[sector], stamp);
    }
    if (state === 'failed') {
      this.unknown.fill(1, from, to);
      if (change.kind === 'truncate') this.least = Math.min(this.least, change.size);
      if (change.kind === 'write' || change.kind === 'allocate' || change.kind === 'truncate') this.most = Math.max(this.most, endOf(change));
      return;
    }
    switch (change.kind) {
      case 'write':
        this.bytes.set(change.bytes, from);
        this.unknown.fill(0, from, to);
        this.#grow(to);
        // Written before the library saw the cut: it goes to the device by whole sectors, and the file ends behind the last.
        if (acceptedAt < this.cutUntil) {
          const end = Math.ceil(to / this.unit) * this.unit;
          this.most = Math.max(this.most, end);
          // What was in memory of these sectors goes with it.
          this.unknown.fill(1, Math.min(from, Math.max(this.cutFrom, Math.floor(from / this.unit) * this.unit)), from);
          this.unknown.fill(1, Math.max(to, this.cutFrom), end);
        }
        break;
      case 'truncate':
        this.bytes.fill(0, change.size);
        this.unknown.fill(0, change.size);
        this.least = change.size;
        this.most = change.size;
        break;
      case 'allocate':
        this.#grow(from + change.length);
        break;
      case 'zero':
        // Of what was written behind a cut that the library had not seen, nothing is left to write there.
        if (acceptedAt < this.cutUntil) this.least = Math.min(this.least, Math.max(this.cutFrom, from));
        this.bytes.fill(0, from, to);
        this.unknown.fill(0, from, to);
        break;
      case 'cut': {
        const unit = this.unit;
        for (let at = from; at < this.most; ) {
          const sector = Math.floor(at / unit);
          const end = Math.min(this.most, (sector + 1) * unit);
          if (change.taken && at >= change.seen && this.changedAt[sector] <= change.flushedAt) {
            this.bytes.fill(0, at, end);
            this.unknown.fill(0, at, end);
          } else {
            this.unknown.fill(1, at, end);
            if (change.taken) this.changedAt[sector] = Math.max(this.changedAt[sector], endedAt);
          }
          at = end;
        }
        this.cutUntil = Math.max(this.cutUntil, endedAt);
        this.cutFrom = Math.min(this.cutFrom, change.size);
        this.least = Math.min(this.least, change.size);
        if (change.taken) this.most = Math.max(change.size, Math.min(this.most, change.most));
        this.bytes.fill(0, this.most);
        this.unknown.fill(0, this.most);
        break;
      }
      case 'lose':
        this.unknown.fill(1, from, to);
        if (from + change.length >= this.least) this.least = Math.min(this.least, from);
        break;
      case 'forget':
        this.unknown.fill(1, from, to);
    }
  }

  #grow(size: number): void {
    this.least = Math.max(this.least, size);
    this.most = Math.max(this.most, size);
  }
}

/** The file as it must be, of known content up to `capacity` bytes. */
export class FileHistory {
  readonly capacity: number;
  readonly #unit: number;
  readonly #base: FileState;
  readonly #now: FileState;
  #pending: Accepted[] = [];
  readonly #observations = new Set<Observation>();
  /** Counts acceptances and ends: which of two came first. */
  clock = 0;
  /** When the last flush that succeeded was called. */
  flushedAt = 0;

  /** `unit`: bytes that go to the device together. */
  constructor(capacity: number, content: Uint8Array, unit: number) {
    this.capacity = capacity;
    this.#unit = unit;
    this.#base = new FileState(capacity, unit);
    this.#base.bytes.set(content);
    this.#base.least = content.length;
    this.#base.most = content.length;
    this.#now = new FileState(capacity, unit);
    this.#now.become(this.#base);
  }

  /** The size that every accepted change leads to; at most that, where a failure left it open. */
  get size(): number {
    return this.#now.most;
  }

  get leastSize(): number {
    return this.#now.least;
  }

  /** The library took the change: whoever asks from now on must see it. */
  accept(change: Change, unmarked = false): Accepted {
    const from = change.kind === 'truncate' || change.kind === 'cut' ? change.size : change.from;
    // What lies behind the end does not exist before and is zeros after: a truncation changes everything from its size on.
    const to = change.kind === 'truncate' || change.kind === 'cut' ? this.capacity : Math.min(this.capacity, endOf(change));
    const accepted: Accepted = {
      change,
      acceptedAt: ++this.clock,
      endedAt: Infinity,
      stampedAt: this.clock,
      from,
      to,
      state: 'pending',
      unmarked,
      escaped: false,
    };
    for (const earlier of this.#pending) if (earlier.unmarked && !earlier.escaped && this.#sharesSectors(earlier, accepted)) this.#escape(earlier);
    this.#pending.push(accepted);
    this.#now.apply(accepted);
    for (const observation of this.#observations) observation.changed(accepted, 'accepted', this.#now);
    return accepted;
  }

  /** It ended well. */
  end(accepted: Accepted): void {
    accepted.state = 'ended';
    accepted.endedAt = ++this.clock;
    this.#fold();
  }

  /** What was only stored is marked now: from here on it is a change like any other, and it ended. */
  mark(accepted: Accepted): void {
    accepted.unmarked = false;
    accepted.stampedAt = ++this.clock;
    this.#now.become(this.#base);
    for (const pending of this.#pending) this.#now.apply(pending);
    for (const observation of this.#observations) observation.changed(accepted, 'marked', this.#now);
    this.end(accepted);
  }

  #sharesSectors(left: Accepted, right: Accepted): boolean {
    const unit = this.#unit;
    const down = (at: number): number => at - (at % unit);
    return down(left.from) < right.to && down(right.from) < left.to;
  }

  #escape(accepted: Accepted): void {
    accepted.escaped = true;
    for (const observation of this.#observations) observation.changed(accepted, 'marked', this.#now);
  }

  /** Somebody else cut the file. `open`: the library may make it as long again as it believes it to be, before it sees the cut. */
  cut(size: number, open: boolean): Accepted {
    let most = open ? Math.max(size, this.#now.most) : size;
    const { changedAt } = this.#now;
    for (let sector = 0; sector < changedAt.length; sector++) if (changedAt[sector] > this.flushedAt) most = Math.max(most, (sector + 1) * this.#unit);
    // With changes of the library's own on their way, where the file ends depends on which came first.
    if (this.#pending.some(({ state }) => state === 'pending')) most = this.capacity;
    return this.accept({ kind: 'cut', size, taken: false, seen: size, flushedAt: this.flushedAt, most });
  }

  /** The library saw it, as an end at `seen`. */
  taken(accepted: Accepted, seen: number): void {
    const change = accepted.change as { taken: boolean; seen: number; size: number; most: number };
    change.taken = true;
    change.seen = Math.max(seen, change.size);
    change.most = Math.max(change.most, seen);
    accepted.state = 'ended';
    accepted.endedAt = ++this.clock;
    this.#rewrite(accepted, 'withdrawn');
  }

  /** What every accepted change has led to so far: bytes, and which of them nobody can say. */
  get state(): { bytes: Uint8Array; unknown: Uint8Array; least: number; most: number } {
    return { bytes: this.#now.bytes.slice(), unknown: this.#now.unknown.slice(), least: this.#now.least, most: this.#now.most };
  }

  /** It failed: perhaps it happened in part. */
  fail(accepted: Accepted): void {
    accepted.state = 'failed';
    accepted.endedAt = ++this.clock;
    this.#rewrite(accepted, 'failed');
  }

  /** It was aborted before its bytes were taken: it never was. */
  withdraw(accepted: Accepted): void {
    this.#pending.splice(this.#pending.indexOf(accepted), 1);
    this.#rewrite(accepted, 'withdrawn');
  }

  /** Does a change that has not ended touch [from, to)? */
  isUnsettled(from: number, to: number): boolean {
    return this.#pending.some((accepted) => accepted.state === 'pending' && accepted.from < to && accepted.to > from);
  }

  /** What was accepted and has not ended, and what stands behind that. */
  get pending(): Accepted[] {
    return [...this.#pending];
  }

  /** When the last change of the byte's sector was accepted. */
  changedAt(at: number): number {
    return this.#now.changedAt[Math.floor(at / this.#unit)];
  }

  /** Nothing is pending. */
  get settled(): boolean {
    return this.#pending.length === 0;
  }

  /** With nothing pending: the file says its size, which a failure may have left open. False if it cannot be. */
  confirmSize(size: number): boolean {
    if (size < this.#now.least || size > this.#now.most) return false;
    for (const state of [this.#now, this.#base]) {
      state.least = size;
      state.most = size;
      state.bytes.fill(0, size);
      // What was given up there may come back when the file grows again.
    }
    return true;
  }

  /** Looks at [from, from+length) from now until it is frozen; `durable`: at what a flush makes of it. */
  observe(from: number, length: number, durable = false): Observation {
    const unmarked = durable ? this.#pending.filter((accepted) => accepted.unmarked) : [];
    // This flush may take it along, and be over before those that were called earlier are looked at.
    for (const accepted of unmarked) this.#escape(accepted);
    const observation = new Observation(from, length, this.#now, this.#observations, () => this.clock, durable);
    for (const accepted of unmarked) observation.changed(accepted, 'failed', this.#now);
    this.#observations.add(observation);
    return observation;
  }

  /** Every state since the change was accepted was another one than it seemed: tells each to whoever looked at it. */
  #rewrite(accepted: Accepted, news: News): void {
    this.#now.become(this.#base);
    for (let i = 0; ; i++) {
      const next = this.#pending[i];
      for (const observation of this.#observations) {
        if (observation.spans(this.#pending[i - 1]?.acceptedAt ?? 0, next?.acceptedAt ?? Infinity)) observation.changed(accepted, news, this.#now);
      }
      if (next === undefined) break;
      this.#now.apply(next);
    }
    this.#fold();
  }

  #fold(): void {
    while (this.#pending.length > 0 && this.#pending[0].state !== 'pending') this.#base.apply(this.#pending.shift() as Accepted);
  }
}

/** A look at a range over a stretch of time. */
export class Observation {
  readonly from: number;
  readonly length: number;
  readonly #bytes: Uint8Array;
  /** Undefined while every byte is known. */
  #unknown: Uint8Array | undefined;
  readonly #others: { at: number; bytes: Uint8Array }[] = [];
  readonly #open: Set<Observation>;
  #least: number;
  #most: number;
  readonly #clock: () => number;
  readonly #durable: boolean;
  readonly #openedAt: number;
  #frozenAt = Infinity;

  constructor(
    from: number,
    length: number,
    now: { bytes: Uint8Array; unknown: Uint8Array; least: number; most: number },
    open: Set<Observation>,
    clock: () => number,
    durable: boolean,
  ) {
    this.#clock = clock;
    this.#durable = durable;
    this.#openedAt = clock();
    this.from = from;
    this.length = length;
    this.#bytes = now.bytes.slice(from, from + length);
    const unknown = now.unknown.subarray(from, from + length);
    this.#unknown = unknown.includes(1) ? unknown.slice() : undefined;
    this.#least = now.least;
    this.#most = now.most;
    this.#open = open;
  }

  /** From here on only the failure of what was already seen is news. */
  freeze(): void {
    this.#frozenAt = this.#clock();
  }

  /** Nothing is asked about [from, to) any more. */
  excuse(from: number, to: number): void {
    const start = Math.max(0, from - this.from);
    if (to - this.from > start) this.#forget().fill(1, start, to - this.from);
  }

  /** Was a state that was so from one moment to another ever looked at? */
  spans(from: number, to: number): boolean {
    return from <= this.#frozenAt && to > this.#openedAt;
  }

  /** Not to be told any more. */
  close(): void {
    this.#open.delete(this);
  }

  changed(accepted: Accepted, news: News, now: { bytes: Uint8Array; unknown: Uint8Array; least: number; most: number }): void {
    if (this.#frozenAt !== Infinity && (news === 'accepted' || news === 'marked')) return;
    if (this.#durable && accepted.unmarked && !accepted.escaped && news === 'accepted') return;
    if (!this.#durable && news === 'marked') return;
    this.#least = Math.min(this.#least, now.least);
    this.#most = Math.max(this.#most, now.most);
    const from = Math.max(accepted.from, this.from);
    const to = Math.min(accepted.to, this.from + this.#bytes.length);
    if (from >= to) return;
    if (news === 'failed') {
      this.#forget().fill(1, from - this.from, to - this.from);
      return;
    }
    this.#others.push({ at: from - this.from, bytes: now.bytes.slice(from, to) });
    if (!now.unknown.subarray(from, to).includes(1)) return;
    const unknown = this.#forget();
    for (let at = from; at < to; at++) if (now.unknown[at] === 1) unknown[at - this.from] = 1;
  }

  /** What is wrong with having got `actual`; undefined if nothing is. Bytes that are not asked about are those behind `actual`. */
  fault(actual: Uint8Array): string | undefined {
    const least = clip(this.#least, this.from, this.length);
    const most = clip(this.#most, this.from, this.length);
    if (actual.length < least || actual.length > most) {
      return `${actual.length} bytes of [${this.from}, ${this.from + this.length}), where ${least === most ? least : `${least} to ${most}`} are in the file`;
    }
    return this.faultOfBytes(actual);
  }

  /** As `fault`, without a look at the length. */
  faultOfBytes(actual: Uint8Array): string | undefined {
    if (Buffer.compare(actual, this.#bytes.subarray(0, actual.length)) === 0) return undefined;
    let first = -1;
    let wrong = 0;
    for (let at = 0; at < actual.length; at++) {
      if (
        at % PAGE_BYTES === 0 &&
        Buffer.compare(actual.subarray(at, at + PAGE_BYTES), this.#bytes.subarray(at, Math.min(actual.length, at + PAGE_BYTES))) === 0
      ) {
        at += PAGE_BYTES - 1;
        continue;
      }
      if (actual[at] === this.#bytes[at] || this.#unknown?.[at] === 1) continue;
      if (this.#others.some((other) => other.bytes[at - other.at] === actual[at])) continue;
      if (first < 0) first = at;
      wrong++;
    }
    if (first < 0) return undefined;
    const where = this.from + first;
    return `${wrong} wrong bytes in [${this.from}, ${this.from + actual.length}), the first at ${where} (block ${where >>> 12}, sector ${(where & 4095) >>> 9} of it): ${actual[first]}, not ${this.#bytes[first]}`;
  }

  #forget(): Uint8Array {
    this.#unknown ??= new Uint8Array(this.#bytes.length);
    return this.#unknown;
  }

  get leastSize(): number {
    return this.#least;
  }

  get mostSize(): number {
    return this.#most;
  }
}

function clip(size: number, from: number, length: number): number {
  return Math.max(0, Math.min(length, size - from));
}

function endOf(change: Change): number {
  if (change.kind === 'truncate' || change.kind === 'cut') return change.size;
  return change.from + (change.kind === 'write' ? change.bytes.length : change.length);
}
