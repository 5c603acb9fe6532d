/**
 * An engine over a simulated disk: the ring of io/engine.ts in ordinary memory, driven by virtual time.
 *
 *   submit ─> device.accept ─> timeline [ effect … completion … ] ─> queue ─> onWake ─ microtasks ─> onSettled
 *
 * Guarantees: what every engine does (io/engine.ts), exactly once for each entry however many faults it met; completions that do not
 * fit the queue wait until there is room, as the kernel's do; no callback runs inside a call of the engine.
 * Leaves to others: what becomes of an operation (`device.ts`).
 */
import { constants } from 'node:os';
import { outOfRange, SectorwiseError } from '../errors.js';
import {
  COMPLETION_WORDS,
  CONTROL_ARMED,
  type CompletionQueue,
  ENTRY_FILE,
  ENTRY_HANDLE,
  ENTRY_LENGTH,
  ENTRY_OPERATION,
  ENTRY_POSITION_HIGH,
  ENTRY_POSITION_LOW,
  ENTRY_SLAB,
  ENTRY_SLAB_OFFSET,
  ENTRY_WORDS,
  type Engine,
  type Feature,
  FLAG_DURABLE,
  OP_ALLOCATE,
  OP_DISCARD,
  OP_EVICT,
  OP_READ,
  OP_WRITE,
  type Slab,
} from '../io/engine.js';
import { batchStream, type Device, type Operation, type Request } from './device.js';
import { Random } from './random.js';

const depthDefault = 128;
/** IORING_MAX_ENTRIES of linux/io_uring. */
const depthMax = 32_768;
/** Handles of completed entries from which a stray completion takes its own. */
const recentHandlesMax = 64;

/** What memory that was given back reads as. */
const givenBackByte = 0xdb;

const TWO_POW_32 = 0x1_0000_0000;
const headWord = 1;
const controlWords = 4;
/** The tail has a little room of its own before the completions. */
const tailWord = 0;
const firstCompletion = COMPLETION_WORDS;

/** How a simulated engine is made. */
export interface SimulatedEngineOptions {
  /** Entries in flight at most, 1 to 32768. Default 128. */
  depth?: number;
  /**
   * 'automatic' (default): completions come through `setImmediate` while entries are in flight and somebody listens.
   * 'manual': they come when `step` or `run` is called, so that a test can look at every state in between.
   */
  drive?: 'automatic' | 'manual';
}

/** An {@link Engine} over a {@link SimulatedDisk}; made by {@link SimulatedDisk.engine}. */
export class SimulatedEngine implements Engine {
  /** Always 'simulated'. */
  readonly name = 'simulated';
  /** Entries in flight at most. */
  readonly depth: number;
  /** Room for `depth` entries. */
  readonly entries: Int32Array;
  /** The armed word and the published head. */
  readonly control = new Int32Array(controlWords);
  /** One queue, with room for twice `depth` completions. */
  readonly queues: readonly [CompletionQueue];

  readonly #device: Device;
  readonly #drive: 'automatic' | 'manual';
  readonly #words: Int32Array;
  /** The generation of the disk in which each file was added. */
  readonly #files: number[] = [];
  readonly #slabs: Slab[] = [];
  readonly #inFlight = new Set<Operation>();
  readonly #recentHandles: number[] = [];
  readonly #random: Random;
  #overflow: Array<{ handle: number; result: number }> = [];
  /** Duplicate and stray completions that are still to come. */
  #extras = 0;
  #published = 0;
  #onWake: (() => void) | undefined;
  #onSettled: (() => void) | undefined;
  #referenced = false;
  #immediates: NodeJS.Immediate[] = [];
  /** A completion was published while the armed word was 1, and nobody has been told. */
  #wakeOwed = false;
  #woken = false;
  #closed = false;

  /** @internal */
  constructor(device: Device, options: SimulatedEngineOptions) {
    const { depth = depthDefault, drive = 'automatic' } = options;
    if (!Number.isInteger(depth) || depth < 1 || depth > depthMax) throw outOfRange('depth', `an integer >= 1 and <= ${depthMax}`, depth);
    this.depth = depth;
    this.#device = device;
    this.#drive = drive;
    this.#random = new Random(device.settings.seed, batchStream);
    this.entries = new Int32Array(depth * ENTRY_WORDS);
    const capacity = 2 ** Math.ceil(Math.log2(depth * 2));
    this.#words = new Int32Array(firstCompletion + capacity * COMPLETION_WORDS);
    this.queues = [{ words: this.#words, tail: tailWord, first: firstCompletion, mask: capacity - 1, head: headWord }];
  }

  /** Entries that were submitted and have not completed. */
  get inFlight(): number {
    return this.#inFlight.size;
  }

  /** Hands over entries 0…count-1. With violations thrown, throws the first one that these entries made, after taking all of them. */
  submit(count: number): void {
    for (let index = 0; index < count; index++) this.#accept(index * ENTRY_WORDS);
    this.#schedule();
    this.#device.throwViolation();
  }

  /** Publishes what is due now: of zero latency, or held back because the queue was full. */
  collect(): void {
    this.#device.timeline.runUntil(this.#device.timeline.now);
    this.#flushOverflow();
  }

  /**
   * Moves virtual time on until a completion is visible. Runs no callback; if completions are left unread, the wake-up for them comes later.
   *
   * @throws SectorwiseError ERR_SECTORWISE_SIMULATION if nothing is in flight: a real engine would wait for ever.
   */
  wait(): void {
    this.collect();
    while (this.#unread() === 0) {
      if (!this.#device.timeline.runNext())
        throw new SectorwiseError('ERR_SECTORWISE_SIMULATION', 'wait() with nothing in flight would never return. Submit first.');
    }
    this.#schedule();
    this.#device.throwViolation();
  }

  /** `onWake` runs for a batch of completions, with the armed word back at 0, then microtasks, then `onSettled`. */
  listen(onWake: () => void, onSettled: () => void): void {
    this.#onWake = onWake;
    this.#onSettled = onSettled;
    this.#schedule();
  }

  /** Keeps the event loop alive while a wake-up is to come. */
  ref(): void {
    this.#referenced = true;
    for (const immediate of this.#immediates) immediate.ref();
  }

  /** Lets the event loop end although a wake-up is to come. */
  unref(): void {
    this.#referenced = false;
    for (const immediate of this.#immediates) immediate.unref();
  }

  /** Opens the disk: answers with the file's index for entries. The descriptor is not looked at. After a replug or a power cut a file added before fails for ever; add another. */
  addFile(_fd: number): number {
    return this.#files.push(this.#device.generation) - 1;
  }

  /** Makes a slab known; its index for entries. */
  addSlab(slab: Slab): number {
    return this.#slabs.push(slab) - 1;
  }

  /** The bytes are 0xdb from now on, so that a use of them is seen. With an entry in flight over them a violation is reported. */
  giveBack(slab: number, offset: number, length: number): boolean {
    const { shared } = this.#slabs[slab];
    for (const operation of this.#inFlight) {
      const { memory } = operation;
      if (memory.buffer === shared && memory.byteOffset < offset + length && memory.byteOffset + memory.byteLength > offset)
        this.#device.violate('memory-reused', operation, `memory of #${operation.sequence} was given back while it was in flight. Wait for it`);
    }
    new Uint8Array(shared, offset, length).fill(givenBackByte);
    this.#device.throwViolation();
    return true;
  }

  /** Gives the ring up; only with nothing in flight, else a violation is reported. Completions that are still to come are dropped. */
  close(): void {
    if (this.#closed) return;
    for (const operation of this.#inFlight)
      this.#device.violate('closed-busy', operation, `the engine was closed while #${operation.sequence} was in flight. Wait for it`);
    this.#closed = true;
    for (const immediate of this.#immediates) clearImmediate(immediate);
    this.#immediates = [];
    this.#device.throwViolation();
  }

  /** Says that this is a simulation, and of which seed. */
  features(): Feature[] {
    return [{ name: 'simulated', used: true, reason: `seed ${this.#device.settings.seed}` }];
  }

  /**
   * Manual drive: makes the next batch of completions visible, calls `onWake`, lets microtasks run, calls `onSettled`, lets microtasks run.
   *
   * @returns how many completions became visible; 0 when nothing was in flight.
   * @throws SectorwiseError ERR_SECTORWISE_SIMULATION if the engine is driven automatically; ERR_SECTORWISE_VIOLATION (rejects).
   */
  async step(): Promise<number> {
    if (this.#drive === 'automatic')
      throw new SectorwiseError('ERR_SECTORWISE_SIMULATION', "This engine delivers by itself. Make it with { drive: 'manual' } to step.");
    const before = this.#published;
    if (!this.#wakeOwed) this.#advance();
    if (this.#wakeOwed) {
      this.#wake();
      await eventLoopTurn();
      this.#settle();
      await eventLoopTurn();
    }
    this.#device.throwViolation();
    return this.#published - before;
  }

  /** Manual drive: steps until nothing is in flight and nobody is to be woken. Answers with how many completions became visible. */
  async run(): Promise<number> {
    let completions = await this.step();
    while (this.#busy()) completions += await this.step();
    return completions;
  }

  #accept(at: number): void {
    const request = this.#parse(at);
    const device = this.#device;
    if (this.#closed) {
      device.violate('closed-busy', request, 'an entry was submitted to an engine that is closed. It will not complete');
      return;
    }
    if (this.#inFlight.size >= this.depth) device.violate('depth', request, `more than ${this.depth} entries in flight. Wait for completions`);
    const { operation, effectAt, completesAt } = device.accept(request);
    this.#inFlight.add(operation);
    device.timeline.at(effectAt, () => device.perform(operation));
    device.timeline.at(completesAt, () => this.#complete(operation));
  }

  #parse(at: number): Request {
    const words = this.entries;
    const code = words[at + ENTRY_OPERATION] & 0xff;
    const slabOffset = words[at + ENTRY_SLAB_OFFSET] >>> 0;
    const length = words[at + ENTRY_LENGTH] >>> 0;
    const position = words[at + ENTRY_POSITION_LOW] >>> 0;
    const request: Request = {
      code,
      handle: words[at + ENTRY_HANDLE],
      position: position + (words[at + ENTRY_POSITION_HIGH] >>> 0) * TWO_POW_32,
      length: 0,
      memory: new Uint8Array(0),
      slabOffset: 0,
      generation: this.#files[words[at + ENTRY_FILE]] ?? 0,
      durable: (words[at + ENTRY_OPERATION] & FLAG_DURABLE) !== 0,
      invalid: undefined,
    };
    if (code < OP_READ || code > OP_EVICT) request.invalid = `operation ${code} does not exist`;
    else if (request.durable && code !== OP_WRITE) request.invalid = `operation ${code} knows no FLAG_DURABLE`;
    else if (this.#files[words[at + ENTRY_FILE]] === undefined) request.invalid = `file ${words[at + ENTRY_FILE]} was never added`;
    else if (request.position > Number.MAX_SAFE_INTEGER) request.invalid = `position ${request.position} is beyond 2^53 - 1`;
    else if (code === OP_ALLOCATE || code === OP_DISCARD || code === OP_EVICT) request.length = length + slabOffset * TWO_POW_32;
    else if (code === OP_READ || code === OP_WRITE) this.#parseMemory(request, words[at + ENTRY_SLAB], slabOffset, length);
    return request;
  }

  #parseMemory(request: Request, index: number, slabOffset: number, length: number): void {
    const slab = this.#slabs[index];
    if (slab === undefined) {
      request.invalid = `slab ${index} was never added`;
    } else if (slabOffset + length > slab.bytes) {
      request.invalid = `slab range ${slabOffset} + ${length} is beyond the slab's ${slab.bytes} bytes`;
    } else {
      request.length = length;
      request.slabOffset = slabOffset;
      request.memory = new Uint8Array(slab.shared, slabOffset, length);
    }
  }

  #complete(operation: Operation): void {
    const device = this.#device;
    device.finish(operation);
    this.#inFlight.delete(operation);
    const { handle, result, random, drawn } = operation;
    if (drawn.stray && this.#recentHandles.length > 0) {
      const stale = this.#recentHandles[random.below(this.#recentHandles.length)];
      this.#publishLater('strayCompletion', stale, -constants.errno.ECANCELED, device.latency(random));
    }
    if (drawn.duplicate) this.#publishLater('duplicateCompletion', handle, result, device.latency(random));
    if (this.#recentHandles.push(handle) > recentHandlesMax) this.#recentHandles.shift();
    this.#publish(handle, result);
  }

  #publishLater(kind: 'duplicateCompletion' | 'strayCompletion', handle: number, result: number, delay: number): void {
    this.#extras++;
    this.#device.timeline.at(this.#device.timeline.now + delay, () => {
      this.#extras--;
      // An entry in flight with the same handle would be forged by it: that no device does.
      for (const operation of this.#inFlight) if (operation.handle === handle) return;
      this.#device.noteExtraCompletion(kind, handle, result);
      this.#publish(handle, result);
    });
  }

  #publish(handle: number, result: number): void {
    if (this.#closed) return;
    this.#overflow.push({ handle, result });
    this.#flushOverflow();
  }

  #flushOverflow(): void {
    const words = this.#words;
    const { mask } = this.queues[0];
    while (this.#overflow.length > 0 && this.#unread() <= mask) {
      const { handle, result } = this.#overflow.shift()!;
      const tail = words[tailWord];
      const at = firstCompletion + (tail & mask) * COMPLETION_WORDS;
      words[at] = handle;
      words[at + 1] = 0;
      words[at + 2] = result;
      words[at + 3] = 0;
      Atomics.store(words, tailWord, (tail + 1) | 0);
      this.#published++;
      if (this.control[CONTROL_ARMED] === 1) this.#wakeOwed = true;
    }
  }

  #unread(): number {
    return (this.#words[tailWord] - this.control[headWord]) | 0;
  }

  #busy(): boolean {
    const heldBack = this.#overflow.length > 0 && this.#unread() <= this.queues[0].mask;
    return this.#inFlight.size > 0 || this.#extras > 0 || this.#wakeOwed || heldBack;
  }

  /** Virtual time moves on to the next completion, and now and then some way further, so that batches have all sizes. */
  #advance(): void {
    const { timeline, settings } = this.#device;
    const before = this.#published;
    this.collect();
    while (this.#published === before && (this.#inFlight.size > 0 || this.#extras > 0) && timeline.runNext());
    if (this.#random.chance(0.5)) timeline.runUntil(timeline.now + this.#random.below(settings.latency.max));
  }

  /** Two immediates made together run one after the other in one turn of the event loop, with all microtasks in between. */
  #schedule(): void {
    if (this.#drive === 'manual' || this.#closed || this.#immediates.length > 0 || this.#onWake === undefined || !this.#busy()) return;
    this.#immediates = [setImmediate(() => this.#tick()), setImmediate(() => this.#endTick())];
    if (!this.#referenced) this.unref();
  }

  #tick(): void {
    if (!this.#wakeOwed) this.#advance();
    if (this.#wakeOwed) this.#wake();
    this.#device.throwViolation();
  }

  #endTick(): void {
    this.#immediates = [];
    try {
      this.#settle();
    } finally {
      this.#schedule();
    }
  }

  #wake(): void {
    this.#wakeOwed = false;
    // As the native engines: where every completion was seen meanwhile and the next one is waited for, there is nothing to tell; else the arming is used up.
    if (this.control[CONTROL_ARMED] === 1 && this.#unread() === 0) return;
    this.control[CONTROL_ARMED] = 0;
    this.#woken = true;
    this.#onWake?.();
  }

  #settle(): void {
    const woken = this.#woken;
    this.#woken = false;
    if (woken && !this.#closed) this.#onSettled?.();
  }
}

function eventLoopTurn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}
