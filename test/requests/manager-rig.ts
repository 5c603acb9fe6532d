/**
 * A request manager with a real cache of frames over a `ManualEngine`, and callers that remember how they were settled.
 */
import { Ring } from '../../src/io/ring.js';
import { ALL_SECTORS, BLOCK_BYTES, SECTOR_BYTES } from '../../src/memory/block-store.js';
import { FrameCache } from '../../src/memory/frame-cache.js';
import { type Caller, RequestManager } from '../../src/requests/request-manager.js';
import { Verification } from '../../src/requests/verification.js';
import { createHeapSlab } from '../../src/testing/heap-slab.js';
import { contentAt, ManualEngine, type Sent, turn } from './manual-engine.js';

export const KIB = 1024;

export interface RigOptions {
  frames?: number;
  slots?: number;
  slotBlocks?: number;
  depth?: number;
  transferLimit?: number;
  mergeLimit?: number;
  gapLimit?: number;
  alignment?: number;
  /** Bytes of the file. */
  size?: number;
  /** Memory for what is read back; without it nothing is. */
  verifyBytes?: number;
}

/** A caller, and what became of it. */
export interface Asked extends Caller {
  /** Times that it was settled. */
  settled: number;
  error: Error | undefined;
}

export interface Need {
  needFirst?: number;
  needMiddle?: number;
  needLast?: number;
  store?: boolean;
  blocking?: boolean;
  /** It is never abandoned. */
  direct?: boolean;
  /** Behind the last byte that it asks for. */
  end?: number;
}

export class Rig {
  readonly engine: ManualEngine;
  readonly frames: FrameCache;
  readonly manager: RequestManager;
  readonly verification: Verification | undefined;
  /** Callers in the order in which they were settled. */
  readonly order: Asked[] = [];
  committedSize: number;
  pressure = false;
  /** What is said of an operation that ended as on a lost device, and of a blocking call that asks. */
  suspect: (result: number, settled: () => void) => boolean = () => false;
  look: () => void = () => {};

  constructor(options: RigOptions = {}) {
    this.engine = new ManualEngine(options.depth);
    this.frames = new FrameCache(this.engine, createHeapSlab, (options.frames ?? 256) * BLOCK_BYTES);
    this.committedSize = options.size ?? 2 ** 50;
    const self = this;
    const { verifyBytes, alignment = SECTOR_BYTES } = options;
    this.verification =
      verifyBytes === undefined ? undefined : new Verification(this.engine, createHeapSlab, this.frames.slabs, '/a/file', alignment, verifyBytes);
    this.manager = new RequestManager(
      new Ring(this.engine),
      this.frames,
      {
        path: '/a/file',
        get committedSize() {
          return self.committedSize;
        },
        sizeNow: () => self.committedSize,
        pressure: () => self.pressure,
        suspect: (result, settled) => self.suspect(result, settled),
        look: () => self.look(),
        cacheFull: () => Object.assign(new Error('cache full'), { code: 'ERR_SECTORWISE_CACHE_FULL' }),
      },
      0,
      {
        slots: options.slots ?? 64,
        slotBlocks: options.slotBlocks ?? 64,
        transferLimit: options.transferLimit ?? 512 * KIB,
        mergeLimit: options.mergeLimit ?? 512 * KIB,
        gapLimit: options.gapLimit ?? 0,
        alignment,
        asyncTransfers: false,
      },
      this.verification,
    );
  }

  caller(first: number, count = 1, need: Need = {}): Asked {
    const order = this.order;
    return {
      first,
      count,
      needFirst: need.needFirst ?? ALL_SECTORS,
      needMiddle: need.needMiddle ?? ALL_SECTORS,
      needLast: need.needLast ?? ALL_SECTORS,
      store: need.store ?? false,
      blocking: need.blocking ?? false,
      direct: need.direct ?? false,
      end: need.end,
      handle: 0,
      waiting: false,
      settled: 0,
      error: undefined,
      settle(error) {
        this.settled++;
        this.error = error;
        order.push(this as Asked);
      },
    };
  }

  /** Asks; nothing is sent before the next `turn`. */
  ask(first: number, count = 1, need: Need = {}): Asked {
    const caller = this.caller(first, count, need);
    this.manager.request(caller);
    return caller;
  }

  /** Asks, and lets it be sent. */
  async askNow(first: number, count = 1, need: Need = {}): Promise<Asked> {
    const caller = this.ask(first, count, need);
    await turn();
    return caller;
  }

  /** What is in flight, as blocks: `first+count`. Only for operations of whole blocks. */
  get inFlight(): string[] {
    return this.engine.sent.map(({ position, length }) => `${position / BLOCK_BYTES}+${length / BLOCK_BYTES}`);
  }

  /** Completes these (default: all that is in flight now) well, and wakes the event loop. */
  async complete(entries: Sent[] = [...this.engine.sent], result?: number): Promise<void> {
    for (const entry of entries) this.engine.complete(entry, result);
    await this.engine.wake();
  }

  /** Completes whatever is in flight, again and again, as `result` says (bytes or -errno), until nothing is. */
  async run(result: (entry: Sent) => number = (entry) => entry.length): Promise<void> {
    await turn();
    for (let round = 0; this.engine.sent.length > 0; round++) {
      if (round === 10_000) throw new Error('this never ends');
      for (const entry of [...this.engine.sent]) this.engine.complete(entry, result(entry));
      await this.engine.wake();
    }
  }

  /** Do the caller's frames hold what the device holds? */
  holdsContent(caller: Caller): boolean {
    for (let i = 0; i < caller.count; i++) {
      const frame = this.frames.find(caller.first + i);
      if (frame < 0) return false;
      const bytes = this.frames.bytesOf(frame);
      const start = (caller.first + i) * BLOCK_BYTES;
      for (let at = 0; at < BLOCK_BYTES; at += SECTOR_BYTES) {
        const expected = start + at >= this.committedSize ? 0 : contentAt(start + at);
        if (bytes[at] !== expected || (start + at + 511 < this.committedSize && bytes[at + 511] !== expected)) return false;
      }
    }
    return true;
  }

  /** Gives a settled caller's pins back, as its owner would. */
  release(caller: Caller): void {
    for (let i = 0; i < caller.count; i++) this.frames.unpin(caller.first + i);
    if (this.manager.waiting > 0) this.manager.schedule();
  }

  /** What is left when everybody has gone: undefined if nothing is. */
  get leak(): string | undefined {
    const { pinned, busy, room, reserved } = this.frames.census();
    const { slots, operations } = this.manager;
    if (pinned !== 0) return `${pinned} frames pinned`;
    if (busy !== 0) return `${busy} frames busy`;
    if (room !== this.frames.frames) return `room for ${room} of ${this.frames.frames}`;
    if (reserved !== 64) return `${reserved} reserved frames`;
    if (slots.freeCount !== slots.slots) return `${slots.slots - slots.freeCount} slots`;
    if (operations.count !== 0) return `${operations.count} operations`;
    if (!this.manager.idle) return 'the manager is not idle';
    return undefined;
  }
}
