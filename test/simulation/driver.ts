/**
 * Several callers, one disk that fails, is pulled, cut and comes back, and one file after the other on it: everything the library can be asked, at random, with every answer checked.
 *
 *   turn   [ some callers begin something | a signal fires | sectors go bad | a held window is looked at | the disk moves one step ]
 *             ^ between any two of them, and within a call that looks for completions: the disk is lost, or somebody else gives the file another size
 *
 * One thread, no clock, no chance but the seed's: a seed that fails fails again in the same way, and `simulate` runs it once more to tell what happened.
 *
 * Guarantees: each call is settled once, or named as hanging; at the end nothing is held, and what a flush acknowledged is on the medium.
 * Leaves to others: what one file may answer (`life.ts`), faults and broken rules of the ring (the simulated disk finds those itself), the plan (`configuration.ts`).
 */
import { Random, SimulatedDisk } from '../../src/testing/index.js';
import { type Configuration, drawConfiguration, lies } from './configuration.js';
import { idleTurnsMax, Life, messageOf, type SimulationCounts, turn, type World } from './life.js';

export type { SimulationCounts } from './life.js';

/** A seed that failed, with all that is needed to look at it. */
export class SimulationFailure extends Error {
  readonly seed: number;

  constructor(seed: number, message: string, cause: unknown) {
    super(message, { cause });
    this.name = 'SimulationFailure';
    this.seed = seed;
  }
}

/** Looks for completions in one turn of the driver: blocking calls on a disk that is gone need many. */
const looksMax = 500_000;
/** Turns of the driver in one seed; a usual one has some hundreds. */
const turnsMax = 100_000;
/** How likely an accident that was planned happens at one look for completions, so that it comes within any call. */
const accidentChance = 0.2;
const traceLength = 60;
const driverStream = 1;

/** Runs one seed. A failure is run again with a log, and told with it. */
export async function simulate(seed: number): Promise<SimulationCounts> {
  const first = await new Simulation(seed, false).guardedRun();
  if (first.error === undefined) return first.counts;
  const again = new Simulation(seed, true);
  const second = await again.guardedRun();
  const problem = second.error ?? new Error(`did not fail again (the first time: ${messageOf(first.error)}): something depends on more than the seed`);
  throw new SimulationFailure(seed, `${messageOf(problem)}\n\n${again.report()}\n\nReplay: npm run simulate -- --seeds 1 --from ${seed}`, problem);
}

class Simulation implements World {
  readonly seed: number;
  readonly random: Random;
  readonly configuration: Configuration;
  readonly disk: SimulatedDisk;
  readonly problems: unknown[] = [];
  readonly counts: SimulationCounts = { operations: 0, rejected: {}, losses: 0, cuts: 0, strays: 0, lies: 0 };
  inside = 0;
  turns = 0;
  readonly #trace: string[] | undefined;
  /** Every file so far; the last is the one that is used. */
  readonly #lives: Life[] = [];
  /** What is to happen to the disk at one of the next looks for completions. */
  #accident: (() => void) | undefined;
  #lossesLeft: number;
  #cutsLeft: number;
  /** Times that the library looked for completions since the driver's last turn. */
  #looks = 0;
  #idleTurns = 0;
  #submissions = 0;

  constructor(seed: number, log: boolean) {
    this.seed = seed;
    this.random = new Random(seed, driverStream);
    const configuration = drawConfiguration(new Random(seed), seed);
    this.configuration = configuration;
    this.#lossesLeft = configuration.losses;
    this.#cutsLeft = configuration.cuts;
    this.#trace = log ? [] : undefined;
    const { size, kind, sectorSize } = configuration;
    this.disk = new SimulatedDisk({
      size,
      kind,
      sectorSize,
      seed,
      latency: configuration.latency,
      reorder: configuration.reorder,
      shortUnit: configuration.shortUnit,
      afterSyncError: configuration.afterSyncError,
      faults: configuration.faults,
      checkOrdering: true,
      onViolation: 'collect',
      log: log ? 80 : 0,
    });
    const content = this.random.fill(new Uint8Array(size));
    if (size > 0) this.disk.write(0, content);
    // Before any file, so that the driver knows first.
    this.disk.watch({
      lost: (how) => this.#lives[this.#lives.length - 1].diskLost(how),
      resized: () => {},
      strayed: (position, length) => {
        this.counts.strays++;
        this.#lives[this.#lives.length - 1].strayed(position, length);
      },
    });
    this.#lives.push(new Life(this));
  }

  get #life(): Life {
    return this.#lives[this.#lives.length - 1];
  }

  /** Calls that wait, of every file. */
  get #running(): number {
    return this.#lives.reduce((sum, life) => sum + life.running, 0);
  }

  /** Runs, and catches what escapes: an assertion of the library in a microtask is nobody's to catch but the process's. */
  async guardedRun(): Promise<{ error: unknown; counts: SimulationCounts }> {
    const names = ['uncaughtException', 'unhandledRejection'] as const;
    const before = names.map((name) => process.listeners(name as 'uncaughtException'));
    const catcher = (error: unknown): void => {
      this.problems.push(error);
    };
    for (const name of names) {
      process.removeAllListeners(name);
      process.on(name, catcher);
    }
    let error: unknown;
    try {
      await this.#run();
      await turn();
      this.checkRules();
    } catch (problem) {
      // What came first is nearer to the cause.
      error = this.problems[0] ?? problem;
    } finally {
      names.forEach((name, i) => {
        process.removeAllListeners(name);
        for (const listener of before[i]) process.on(name as 'uncaughtException', listener);
      });
    }
    return { error, counts: this.counts };
  }

  report(): string {
    return [
      `seed ${this.seed}: ${JSON.stringify(this.configuration)}`,
      ...this.#lives.map((life, i) => `file ${i + 1}: ${life.report()}`),
      ...(this.#trace ?? []).slice(-traceLength),
      this.disk.report(),
    ].join('\n');
  }

  note(text: string): void {
    this.#trace?.push(`  ${this.disk.now} µs ${text}`);
  }

  checkRules(): void {
    if (this.problems.length > 0) throw this.problems[0];
    if (this.disk.violations.length > 0) throw this.disk.violations[0];
  }

  look(): void {
    // A blocking call that never ends would end this process's patience, not its own.
    if (++this.#looks > looksMax) throw new Error('somebody looks for completions for ever');
    if (this.#accident === undefined || !this.random.chance(accidentChance)) return;
    const accident = this.#accident;
    this.#accident = undefined;
    accident();
  }

  async #run(): Promise<void> {
    const { operations, callers, closeAfter, badSectors, aborts } = this.configuration;
    const { random } = this;
    while (this.counts.operations < operations || this.#running > 0) {
      while (this.counts.operations < operations && this.#life.callersBusy < callers && random.chance(0.6)) {
        this.counts.operations++;
        this.#life.begin();
      }
      if (this.configuration.losses > 0) this.#loseOrReturn();
      if (this.#cutsLeft > 0 && random.chance(0.05)) this.#cutByOthers();
      if (this.counts.operations >= closeAfter && this.#life.closing === undefined) {
        this.#life.close();
        this.counts.operations = operations;
      }
      if (random.chance(badSectors)) this.#life.spoil();
      if (random.chance(aborts)) this.#life.fireSignal();
      for (const life of this.#lives) {
        life.lookAtHeld();
        if (!life.engineClosed) life.checkRoom();
      }
      await this.#move();
      if ((this.counts.operations >= operations || this.#life.callersBusy >= callers) && this.#running > 0) await this.#awaitProgress();
      if (this.counts.operations >= operations && this.#running === 0) this.#buryLast();
    }
    for (const life of this.#lives) life.releaseAll();
    for (let i = 0; i < 5; i++) await this.#move();
    if (this.#life.gone === undefined && this.#life.closing === undefined) await this.#life.finish();
    for (const life of this.#lives) await life.checkNothingLeft();
    for (const lie of lies) this.counts.lies += this.disk.counts.faults[lie];
  }

  /** What is dead by the end is put away too. */
  #buryLast(): void {
    this.#accident = undefined;
    this.disk.unplugAfter(Number.POSITIVE_INFINITY);
    if (this.#life.gone !== undefined && !this.#life.buried) this.#life.bury();
  }

  /** The disk goes away now, or at some moment soon, within a call or between two; what went away comes back, and a new file is opened on it. */
  #loseOrReturn(): void {
    const { random, disk } = this;
    if (this.#life.gone !== undefined) {
      if (this.counts.operations >= this.configuration.operations || !random.chance(0.1)) return;
      if (!this.#life.buried) this.#life.bury();
      if (!disk.present) disk.replug();
      this.note('opened again');
      // What is there is there for good: what the new file loses is its own.
      const { size } = disk;
      disk.write(0, disk.read(0, size));
      disk.resize(size);
      this.#accident = undefined;
      this.#lives.push(new Life(this));
      return;
    }
    if (this.#lossesLeft === 0 || !random.chance(0.04)) return;
    this.#lossesLeft--;
    this.counts.losses++;
    const { unplugAnswer } = this.configuration;
    const how = random.below(6);
    const lose = (): void => {
      this.note(`the disk is lost: ${how < 3 ? unplugAnswer : how < 5 ? 'shutdown' : 'power cut'}`);
      if (how < 3) disk.unplug(unplugAnswer);
      else if (how < 5) disk.shutdown();
      else disk.powerCut();
    };
    const when = random.below(4);
    if (when === 0) this.#within(lose);
    else if (when < 3) this.#accident = lose;
    else disk.unplugAfter(random.between(1, 20), unplugAnswer);
  }

  #cutByOthers(): void {
    const life = this.#life;
    this.#cutsLeft--;
    const cut = (): void => {
      const { size } = this.disk;
      if (life.gone !== undefined || life.engineClosed || size === 0) return;
      const near = size - this.random.below(Math.min(size, 3 * 4096)) - 1;
      this.#within(() => life.cutByOthers(this.random.chance(0.6) ? near : this.random.below(size)));
    };
    if (this.random.chance(0.5)) cut();
    else this.#accident ??= cut;
  }

  /** Nobody may be told anything within a call. */
  #within(act: () => void): void {
    this.inside++;
    act();
    this.inside--;
  }

  /** The disk does something, or the event loop at least turns. */
  async #move(): Promise<void> {
    this.#countTurn();
    if (this.random.chance(0.8)) await this.#stepAll();
    else await turn();
    this.checkRules();
  }

  #countTurn(): void {
    this.#looks = 0;
    if (++this.turns > turnsMax) throw new Error(`it never ends, and ${this.#running} calls wait`);
  }

  async #stepAll(): Promise<number> {
    let completions = 0;
    for (const life of [...this.#lives]) if (!life.engineClosed) completions += await life.engine.step();
    return completions;
  }

  /** One step of the disk. Did anything happen since the last? Operations that take no time come and go within a turn. */
  async step(): Promise<boolean> {
    this.#countTurn();
    const completions = await this.#stepAll();
    if (completions === 0) await turn();
    const { reads, writes, syncs, truncates, allocates, discards, evicts } = this.disk.counts;
    const submissions = reads + writes + syncs + truncates + allocates + discards + evicts;
    const moved = completions > 0 || this.disk.inFlight > 0 || submissions !== this.#submissions;
    this.#submissions = submissions;
    return moved;
  }

  async #awaitProgress(): Promise<void> {
    if (await this.step()) {
      this.#idleTurns = 0;
      return;
    }
    // Windows that stay held may be what the others wait for.
    if (this.#life.held.length > 0) this.#life.release(0);
    else if (++this.#idleTurns > idleTurnsMax) throw new Error(`nothing moves any more, and ${this.#running} calls wait`);
  }
}
