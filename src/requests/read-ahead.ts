/**
 * Which readers of a file go through it in order, and how far ahead of each to read. Decides and counts; reads nothing itself.
 *
 *   recent   [ miss | miss | … ]                     the last runs of misses: where a new stream shows first
 *   stream   ······[ read ]|───── ahead ─────|·····   forward; backward streams are the same on a mirrored axis (x becomes -x)
 *                       position         frontier
 *                          |── window ──|            `window` bytes are wanted beyond the position; when less than half of them are left, the next piece is due
 *
 * A run of misses becomes a stream when it is three long, or is two that touch and make up the first piece; a miss right behind the last hit is one, too. From then on hits move it. Its window doubles when the reader waited
 * for bytes that were asked for since the last doubling, so that a reader that never waits keeps the smallest window that serves it; it is halved when bytes went
 * before they were used, and a stream whose window gets too small is given up. New streams start smaller after ones that read for nobody.
 *
 * Guarantees: nothing beyond the file or a declared end is asked for; all streams together are never ahead by more than the budget; nothing is allocated after construction; while no
 * stream is known a hit costs two stores, and a miss a look at the recent runs.
 * Leaves to others: reading the pieces, or not reading them (`windows/ahead-reader.ts`); whose memory they are in (`memory/`).
 */
/** Streams followed at once. */
export const STREAMS_MAX = 16;
/** Runs of misses that are remembered: between two misses of a stream there may be nearly as many others. */
const RECENT_MAX = 64;
/** Misses of others that a stream survives without being touched. */
const STALE_MISSES = 1024;
/** A run that is so long is a stream. */
const RUN_ACCESSES = 3;
/** How far a run's next miss may be off its end: the kernel brings in four pages where one was asked for, and readers ask out of order. Wider would make runs of chance in small files. */
const NEAR_LEAST = 16 * 1024;
const NEAR_MOST = 256 * 1024;
/** Misses up to this long find their run by its place; longer ones look at all. */
const SMALL_BYTES = 16 * 1024;
/** Ends of runs are found by these units: no less than a small miss and what it may be off. */
const PLACE_BYTES = 64 * 1024;
const PLACES = 512;
/** How far off its position an access still belongs to a stream. */
const REACH_LEAST = 128 * 1024;
/** The least window, unless the first one is smaller. */
const WINDOW_LEAST = 16 * 1024;
/** Pieces end on multiples of this, once windows are large enough. */
const UNIT_BYTES = 64 * 1024;
const BLOCK_BYTES = 4096;

export interface ReadAheadLimits {
  /** Bytes of the first piece; two steps of the reader where these are longer. */
  initial: number;
  /** Bytes that one stream is ahead at most; 0 switches everything off. */
  max: number;
  /** Bytes that all streams together are ahead at most. */
  budget: number;
}

/** A range that is to be read ahead. */
export interface Piece {
  offset: number;
  length: number;
}

export class ReadAhead {
  /** Streams that are followed. While it is 0 nobody needs to report hits. */
  active = 0;
  /** A piece is due: `next` has one, as far as can be told without looking. */
  due = false;
  /** Begin and end of the last hit, whether streams are known or not: written by whoever answers hits, cheaper than a call. */
  readonly last = new Float64Array(2);
  /** Bytes that streams were ahead of their readers when they were given up. */
  unused = 0;
  readonly #initial: number;
  readonly #max: number;
  readonly #budget: number;
  readonly #least: number;
  /** Window of the next stream. */
  #start: number;
  #misses = 0;

  // Streams 0…active-1, in no order. Positions are on the stream's own axis.
  readonly #direction = new Int8Array(STREAMS_MAX);
  readonly #position = new Float64Array(STREAMS_MAX);
  readonly #frontier = new Float64Array(STREAMS_MAX);
  /** Where reading ahead ends, on the stream's axis; Infinity unless declared. */
  readonly #end = new Float64Array(STREAMS_MAX);
  /** Where the end was found to be: reaching it is not tried again before a reader goes beyond. */
  readonly #limit = new Float64Array(STREAMS_MAX);
  /** 1 from when half of the window is left until all of it was asked for. */
  readonly #filling = new Uint8Array(STREAMS_MAX);
  readonly #window = new Float64Array(STREAMS_MAX);
  /** The longest access. */
  readonly #step = new Float64Array(STREAMS_MAX);
  /** The window grows again only for bytes from here on. */
  readonly #grownAt = new Float64Array(STREAMS_MAX);
  /** It shrinks again only when the reader is here. */
  readonly #shrunkAt = new Float64Array(STREAMS_MAX);
  /** Bytes that were read ahead for it so far. */
  readonly #asked = new Float64Array(STREAMS_MAX);
  readonly #touched = new Float64Array(STREAMS_MAX);
  readonly #id = new Float64Array(STREAMS_MAX);
  #ids = 0;
  /** Whose piece `next` answered with last. */
  #asking = 0;
  readonly #fields = [
    this.#direction,
    this.#position,
    this.#frontier,
    this.#end,
    this.#limit,
    this.#filling,
    this.#window,
    this.#step,
    this.#grownAt,
    this.#shrunkAt,
    this.#asked,
    this.#touched,
    this.#id,
  ];

  // Runs of misses: a ring.
  readonly #runStart = new Float64Array(RECENT_MAX).fill(-Infinity);
  readonly #runEnd = new Float64Array(RECENT_MAX).fill(-Infinity);
  readonly #runLength = new Uint8Array(RECENT_MAX);
  /** +1 forward, -1 backward, 0 not known yet. */
  readonly #runDirection = new Int8Array(RECENT_MAX);
  #runNext = 0;
  /** By a hash of where its two ends are: a run that may be there. What is found is looked at, so that another one in its place costs a run at worst. */
  readonly #placed = new Uint8Array(PLACES);

  constructor(limits: ReadAheadLimits) {
    this.#max = Math.min(limits.max, limits.budget);
    this.#budget = limits.budget;
    this.#initial = Math.min(Math.max(limits.initial, BLOCK_BYTES), this.#max);
    this.#least = Math.min(WINDOW_LEAST, this.#initial);
    this.#start = this.#initial;
  }

  /** Is anything ever read ahead? */
  get enabled(): boolean {
    return this.#max >= BLOCK_BYTES;
  }

  /** Bytes that all streams together are ahead of their readers. */
  get ahead(): number {
    let sum = 0;
    for (let stream = 0; stream < this.active; stream++) sum += this.#beyond(stream);
    return sum;
  }

  /** Bytes [offset, offset+length) were asked for and in memory. To be called while `active` is not 0. */
  hit(offset: number, length: number): void {
    const stream = this.#streamAt(offset, length);
    if (stream >= 0) this.#advance(stream, offset, length);
  }

  /** Bytes [offset, offset+length) were asked for and not in memory. `coming`: some of them are on their way. */
  miss(offset: number, length: number, coming: boolean): void {
    if (!this.enabled || length === 0) return;
    this.#misses++;
    if (this.#misses % STALE_MISSES === 0) this.#dropStale();
    const stream = this.#streamAt(offset, length);
    if (stream < 0) {
      this.#remember(offset, length);
      return;
    }
    const end = this.#direction[stream] > 0 ? offset + length : -offset;
    if (end > this.#position[stream]) {
      if (!coming && end <= this.#frontier[stream]) {
        // It was read ahead, and is gone.
        this.#frontier[stream] = end;
        if (!this.#shrink(stream)) return;
      } else if (end > this.#grownAt[stream]) {
        // Waiting for what was asked for with the window as it is, or not asked for yet: it is too small.
        this.#window[stream] = Math.min(2 * this.#window[stream], this.#max);
        this.#grownAt[stream] = Math.max(this.#frontier[stream], end);
      }
      if (end > this.#limit[stream]) this.#limit[stream] = Infinity;
    }
    this.#advance(stream, offset, length);
  }

  /**
   * Somebody said that they will read in order from `offset` on, to `end` at most: a stream from the beginning, with its largest window. Answers with its name for `undeclare`, 0 if there is none.
   */
  declare(offset: number, end: number): number {
    if (!this.enabled) return 0;
    const stream = this.#open(offset, 1, 0);
    this.#end[stream] = end;
    this.#window[stream] = this.#max;
    return this.#id[stream];
  }

  /** Whoever declared it reads no further. */
  undeclare(name: number): void {
    const stream = this.#find(name);
    if (stream >= 0) this.#drop(stream);
  }

  /**
   * The next piece to read, at most `most` bytes of a file that ends at `size`; false if none is due. The caller reads it and says so with `taken`, or does not
   * and is asked again later.
   */
  next(piece: Piece, most: number, size: number): boolean {
    if (!this.due) return false;
    const share = Math.max(Math.floor(this.#budget / Math.max(1, this.active)), this.#least);
    const left = this.#budget - this.ahead;
    for (let stream = 0; stream < this.active; stream++) {
      if (this.#filling[stream] === 0) continue;
      const window = Math.min(this.#window[stream], share);
      const from = Math.max(this.#frontier[stream], this.#position[stream]);
      const forward = this.#direction[stream] > 0;
      const end = Math.min(this.#end[stream], forward ? size : 0);
      const wanted = Math.min(this.#position[stream] + window, end);
      let to = Math.min(wanted, from + left, from + most);
      if (to < end && window >= 2 * UNIT_BYTES && to - from >= UNIT_BYTES) to = Math.floor(to / UNIT_BYTES) * UNIT_BYTES;
      if (to > from && to - from >= Math.min(BLOCK_BYTES, end - from)) {
        // 0 - to, as -to would be the negative zero at the start of a file.
        piece.offset = forward ? from : 0 - to;
        piece.length = to - from;
        this.#asking = this.#id[stream];
        return true;
      }
      this.#filling[stream] = 0;
      if (from >= end) this.#limit[stream] = end;
    }
    this.due = false;
    return false;
  }

  /** The piece that `next` answered with is being read, `bytes` of it from the device. */
  taken(piece: Piece, bytes: number): void {
    const stream = this.#find(this.#asking);
    // Taking memory for it may have cost a byte that was read ahead, and that may have ended the stream.
    if (stream < 0) return;
    this.#frontier[stream] = Math.max(this.#frontier[stream], this.#position[stream]) + piece.length;
    this.#asked[stream] += bytes;
  }

  /** A byte that was read ahead left memory before anybody used it. */
  lost(offset: number): void {
    for (let stream = 0; stream < this.active; stream++) {
      const at = this.#direction[stream] > 0 ? offset : -offset;
      if (at < this.#position[stream] - BLOCK_BYTES || at >= this.#frontier[stream] + BLOCK_BYTES) continue;
      this.#shrink(stream);
      return;
    }
  }

  /** Bytes [offset, offset+length) are not wanted in memory, or are no more: who is ahead into them stops. */
  drop(offset: number, length: number): void {
    for (let stream = this.active - 1; stream >= 0; stream--) {
      const forward = this.#direction[stream] > 0;
      const from = forward ? offset : -(offset + length);
      if (from < this.#frontier[stream] && from + length > this.#position[stream]) this.#drop(stream);
    }
    for (let run = 0; run < RECENT_MAX; run++) {
      if (this.#runStart[run] < offset + length && this.#runEnd[run] > offset) this.#runStart[run] = this.#runEnd[run] = -Infinity;
    }
  }

  /** The device does not give the byte at `offset`: who is ahead to there goes no further. */
  failed(offset: number): void {
    for (let stream = this.active - 1; stream >= 0; stream--) {
      const at = this.#direction[stream] > 0 ? offset : -offset;
      if (at >= this.#position[stream] - BLOCK_BYTES && at <= this.#frontier[stream]) this.#drop(stream);
    }
  }

  /** Nothing is read ahead until somebody reads in order again. */
  dropAll(): void {
    while (this.active > 0) this.#drop(this.active - 1);
  }

  #find(name: number): number {
    for (let stream = 0; stream < this.active; stream++) if (this.#id[stream] === name) return stream;
    return -1;
  }

  #beyond(stream: number): number {
    return Math.max(0, this.#frontier[stream] - this.#position[stream]);
  }

  /** The stream that the access is a step of, -1 if none. */
  #streamAt(offset: number, length: number): number {
    for (let stream = 0; stream < this.active; stream++) {
      const at = this.#direction[stream] > 0 ? offset : -(offset + length);
      const reach = Math.max(REACH_LEAST, 3 * Math.max(length, this.#step[stream]));
      const off = at - this.#position[stream];
      if (off <= reach && off >= -reach) return stream;
    }
    return -1;
  }

  #advance(stream: number, offset: number, length: number): void {
    this.#touched[stream] = this.#misses;
    if (length > this.#step[stream]) this.#step[stream] = length;
    const end = this.#direction[stream] > 0 ? offset + length : -offset;
    if (end <= this.#position[stream]) return;
    this.#position[stream] = end;
    if (2 * (this.#frontier[stream] - end) > this.#window[stream] || this.#frontier[stream] >= this.#limit[stream]) return;
    this.#filling[stream] = 1;
    this.due = true;
  }

  /** Half the window, unless that was done for these bytes already. False if that is the end of the stream. */
  #shrink(stream: number): boolean {
    if (this.#position[stream] < this.#shrunkAt[stream]) return true;
    this.#shrunkAt[stream] = Math.max(this.#frontier[stream], this.#position[stream] + 1);
    this.#grownAt[stream] = Math.max(this.#grownAt[stream], this.#frontier[stream]);
    this.#window[stream] = Math.floor(this.#window[stream] / 2);
    if (this.#window[stream] >= this.#least) return true;
    this.#drop(stream);
    this.#start = this.#least;
    return false;
  }

  /** A miss of no stream: the next of a run, or the first of one. */
  #remember(offset: number, length: number): void {
    const end = offset + length;
    const { last } = this;
    if (last[0] < last[1] && (last[1] === offset || last[0] === end)) {
      // The access before it was in memory and touches it: the kernel has been reading ahead for this reader, and fell behind.
      const forward = last[1] === offset;
      this.#open(forward ? end : offset, forward ? 1 : -1, length);
      return;
    }
    const near = Math.min(Math.max(NEAR_LEAST, 2 * length), Math.max(NEAR_MOST, length));
    if (length <= SMALL_BYTES) {
      // What a random miss costs: three looks into the table, not one at every run.
      const place = Math.floor(offset / PLACE_BYTES);
      if (this.#continues(this.#placed[placeOf(place)], offset, end, near)) return;
      if (this.#continues(this.#placed[placeOf(place - 1)], offset, end, near)) return;
      if (this.#continues(this.#placed[placeOf(place + 1)], offset, end, near)) return;
    } else {
      for (let run = 0; run < RECENT_MAX; run++) if (this.#continues(run, offset, end, near)) return;
    }
    this.#note(offset, end, 1, 0);
  }

  /** Is the miss a step of this run, or within it? Then all is done. */
  #continues(run: number, offset: number, end: number, near: number): boolean {
    const start = this.#runStart[run];
    const stop = this.#runEnd[run];
    if (offset - stop > near || start - end > near) return false;
    // Asked for twice: no step, and no new run.
    if (offset >= start && end <= stop) return true;
    const direction = this.#runDirection[run];
    const forth = direction >= 0 && end > stop && stop - offset <= near;
    const back = direction <= 0 && offset < start && end - start <= near;
    if (!forth && !back) return false;
    // Where both can be, the side whose edge is nearer.
    const forward = forth && (!back || Math.abs(offset - stop) <= Math.abs(end - start));
    const touches = forward ? offset <= stop : end >= start;
    const from = Math.min(start, offset);
    const to = Math.max(stop, end);
    const accesses = this.#runLength[run] + 1;
    this.#runStart[run] = this.#runEnd[run] = -Infinity;
    if (accesses >= RUN_ACCESSES || (touches && to - from >= this.#initial)) this.#open(forward ? to : from, forward ? 1 : -1, end - offset);
    else this.#note(from, to, accesses, forward ? 1 : -1);
    return true;
  }

  /** In the place of the oldest run. */
  #note(from: number, to: number, accesses: number, direction: number): void {
    const run = this.#runNext;
    this.#runNext = (run + 1) % RECENT_MAX;
    this.#runStart[run] = from;
    this.#runEnd[run] = to;
    this.#runLength[run] = accesses;
    this.#runDirection[run] = direction;
    this.#placed[placeOf(Math.floor(from / PLACE_BYTES))] = run;
    this.#placed[placeOf(Math.floor(to / PLACE_BYTES))] = run;
  }

  /** A new stream whose reader stands at `offset`. */
  #open(offset: number, direction: number, step: number): number {
    if (this.active === STREAMS_MAX) this.#drop(this.#oldest());
    const stream = this.active++;
    const position = direction > 0 ? offset : -offset;
    this.#direction[stream] = direction;
    this.#position[stream] = position;
    this.#frontier[stream] = position;
    this.#end[stream] = Infinity;
    this.#limit[stream] = Infinity;
    this.#filling[stream] = 1;
    this.due = true;
    // To be ahead by less than a step or two is no use, unless it was found that nobody wants even that.
    this.#window[stream] = this.#start < this.#initial ? this.#start : Math.min(Math.max(this.#start, 2 * step), this.#max);
    this.#step[stream] = step;
    this.#grownAt[stream] = position;
    this.#shrunkAt[stream] = position;
    this.#asked[stream] = 0;
    this.#touched[stream] = this.#misses;
    this.#id[stream] = ++this.#ids;
    return stream;
  }

  #oldest(): number {
    let oldest = 0;
    for (let stream = 1; stream < this.active; stream++) if (this.#touched[stream] < this.#touched[oldest]) oldest = stream;
    return oldest;
  }

  #dropStale(): void {
    for (let stream = this.active - 1; stream >= 0; stream--) {
      if (this.#misses - this.#touched[stream] >= STALE_MISSES) this.#drop(stream);
    }
  }

  /** The stream is over; the last one takes its place. */
  #drop(stream: number): void {
    const unused = Math.min(this.#beyond(stream), this.#asked[stream]);
    this.unused += unused;
    // Who said where to read is no sign of what others do.
    if (this.#end[stream] === Infinity && this.#asked[stream] > 0) {
      this.#start = 2 * unused > this.#asked[stream] ? Math.max(this.#least, Math.floor(this.#start / 2)) : Math.min(this.#initial, 2 * this.#start);
    }
    const last = --this.active;
    for (const field of this.#fields) field[stream] = field[last];
  }
}

/** Where a unit of the file is in the table of runs. */
function placeOf(unit: number): number {
  return Math.imul(unit | 0, 0x9e3779b1) >>> 23;
}
