/**
 * One guest: a QEMU process with its disks, the port over which its agent speaks, and QMP.
 *
 *   this process ── socket ── virtio-serial port ── agent in the guest
 *                ── socket ── QMP
 *                <─ file ──── serial console (kernel messages)
 *
 * Guarantees: `end` kills the process and removes its sockets, whatever state the guest is in; a guest that dies settles everybody who waits for it.
 * Leaves to others: what the scenarios do (`scenarios/`, `guest/`).
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, openSync, readFileSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { join } from 'node:path';
import { lineReader, type ToGuest, type ToHost } from './messages.js';
import { searchPath } from './preparation.js';

/** A device behind a port of its own or on an AHCI controller, and what its bytes come from. */
export interface Disk {
  /** Device id in QEMU and the disk's serial number. */
  id: string;
  kind: 'nvme' | 'sata';
  image: string;
  /** Properties of the device, such as `logical_block_size=4096`. */
  properties?: string;
  /** Can be slowed down while it runs, so that requests pile up. */
  throttled?: boolean;
  /** A driver of QEMU between the device and its image. */
  filter?: { driver: string } & Record<string, unknown>;
}

export interface MachineOptions {
  /** Default 2. One is emulated faster. */
  cpus?: number;
  /** Kernel command line besides the lab's own. */
  options?: string;
}

export interface MachineFiles {
  kernel: string;
  initramfs: string;
  /** Sockets and the console's log. */
  folder: string;
}

/** Emulated, a guest is ready after 5 to 15 seconds; what is not there after this long does not come. */
const READY_MS = 120_000;
const MEMORY_MIB = 1024;
/** No mitigations, no self-tests, no random layout: nothing that is slow under emulation and proves nothing here. */
const KERNEL_OPTIONS = 'quiet panic=-1 mitigations=off nokaslr cryptomgr.notests audit=0 nowatchdog no_timer_check tsc=reliable random.trust_cpu=on';

let machines = 0;

/** Command line of a machine. `console` is what its serial port is joined to. */
export function qemuArguments(
  files: MachineFiles,
  disks: readonly Disk[],
  accelerator: 'tcg' | 'kvm',
  console: string,
  { cpus = 2, options = '' }: MachineOptions,
): string[] {
  const args = accelerator === 'kvm' ? ['-accel', 'kvm', '-cpu', 'host'] : ['-accel', 'tcg,thread=multi', '-cpu', 'max'];
  args.push('-M', 'q35', '-smp', String(cpus), '-m', String(MEMORY_MIB), '-nodefaults', '-no-user-config', '-display', 'none', '-no-reboot');
  args.push('-kernel', files.kernel, '-initrd', files.initramfs, '-append', `console=ttyS0 ${KERNEL_OPTIONS} ${options}`.trim());
  args.push('-serial', console);
  args.push('-fsdev', 'local,id=host,path=/,security_model=none,readonly=on,multidevs=remap', '-device', 'virtio-9p-pci,fsdev=host,mount_tag=host');
  args.push('-device', 'ich9-ahci,id=ahci');
  let port = 0;
  let sata = 0;
  for (const disk of disks) {
    const { id } = disk;
    let node: Record<string, unknown> = { driver: 'raw', file: { driver: 'file', filename: disk.image } };
    if (disk.filter !== undefined) node = { ...disk.filter, [disk.filter.driver === 'blkdebug' ? 'image' : 'file']: node };
    if (disk.throttled) {
      args.push('-object', `throttle-group,id=throttle-${id}`);
      node = { driver: 'throttle', 'throttle-group': `throttle-${id}`, file: node };
    }
    args.push('-blockdev', JSON.stringify({ ...node, 'node-name': `node-${id}` }));
    const properties = disk.properties === undefined ? '' : `,${disk.properties}`;
    if (disk.kind === 'sata') {
      args.push('-device', `ide-hd,id=${id},drive=node-${id},bus=ahci.${sata++},serial=${id}${properties}`);
    } else {
      port++;
      args.push('-device', `pcie-root-port,id=port-${id},chassis=${port},slot=${port}`);
      args.push('-device', nvmeDevice(disk));
    }
  }
  return args;
}

/** Also what `device_add` takes to plug it again. */
function nvmeDevice(disk: Disk): string {
  return `nvme,id=${disk.id},drive=node-${disk.id},serial=${disk.id},bus=port-${disk.id}${disk.properties === undefined ? '' : `,${disk.properties}`}`;
}

export class Machine {
  readonly #process: ChildProcess;
  readonly #servers: Server[];
  readonly #port: Socket;
  readonly #qmp: Socket;
  readonly #disks: readonly Disk[];
  readonly #consolePath: string;
  readonly #answers: Array<{ resolve(value: unknown): void; reject(error: Error): void }> = [];
  readonly #events: Array<{ name: string; device: string; resolve(): void }> = [];
  /** Rejects when the process is gone. */
  readonly #gone: Promise<never>;
  #listener: ((message: ToHost) => void) | undefined;
  readonly #early: ToHost[] = [];

  private constructor(process: ChildProcess, servers: Server[], port: Socket, qmp: Socket, disks: readonly Disk[], consolePath: string) {
    this.#process = process;
    this.#servers = servers;
    this.#port = port;
    this.#qmp = qmp;
    this.#disks = disks;
    this.#consolePath = consolePath;
    this.#gone = once(process, 'exit').then(([code, signal]) => {
      throw new Error(`the machine went away (${signal ?? `exit code ${code}`})`);
    });
    // Who waits for something else races with it; nobody waiting is no error.
    this.#gone.catch(() => undefined);
    // A killed process resets its sockets.
    for (const socket of [port, qmp]) socket.on('error', () => undefined);
    port.on(
      'data',
      lineReader<ToHost>((message) => {
        if (this.#listener === undefined) this.#early.push(message);
        else this.#listener(message);
      }),
    );
    qmp.on(
      'data',
      lineReader<Record<string, unknown>>((message) => this.#onQmp(message)),
    );
  }

  /** Starts it and waits for its agent. Its kernel's messages end up in `files.folder`. */
  static async boot(files: MachineFiles, disks: readonly Disk[], accelerator: 'tcg' | 'kvm', options: MachineOptions = {}): Promise<Machine> {
    const number = ++machines;
    const paths = {
      port: join(files.folder, `port-${number}`),
      qmp: join(files.folder, `qmp-${number}`),
      console: join(files.folder, `console-${number}.log`),
    };
    const listening = await Promise.all([listen(paths.port), listen(paths.qmp)]);
    const args = qemuArguments(files, disks, accelerator, `file:${paths.console}`, options);
    args.push('-chardev', `socket,id=port,path=${paths.port}`, '-device', 'virtio-serial-pci', '-device', 'virtserialport,chardev=port,name=sectorwise.lab');
    args.push('-chardev', `socket,id=qmp,path=${paths.qmp}`, '-mon', 'chardev=qmp,mode=control');
    const errors = openSync(`${paths.console}.qemu`, 'w');
    // Whatever ends this process, its machines end with it.
    const process_ = spawn('setpriv', ['--pdeathsig', 'KILL', 'qemu-system-x86_64', ...args], {
      stdio: ['ignore', errors, errors],
      env: { ...process.env, PATH: searchPath },
    });
    closeSync(errors);
    const died = once(process_, 'exit').then(([code]) => {
      throw new Error(
        `QEMU ended with ${code} before the guest was up: ${readFileSync(`${paths.console}.qemu`, 'utf8').trim().split('\n').slice(-3).join(' | ')}`,
      );
    });
    died.catch(() => undefined);
    try {
      const [port, qmp] = await Promise.race([Promise.all(listening.map(({ connection }) => connection)), died]);
      const machine = new Machine(
        process_,
        listening.map(({ server }) => server),
        port,
        qmp,
        disks,
        paths.console,
      );
      await machine.qmp('qmp_capabilities');
      const ready = new Promise<void>((resolve) => machine.listen((message) => message.say === 'ready' && resolve()));
      await Promise.race([ready, machine.#gone, timeout(READY_MS, 'the guest did not get ready')]).catch(async (error: Error) => {
        await machine.end();
        throw new Error(`${error.message}; its console ends with: ${machine.console().slice(-5).join(' | ')}`);
      });
      return machine;
    } catch (error) {
      process_.kill('SIGKILL');
      for (const { server } of listening) server.close();
      throw error;
    }
  }

  /** Hands each message of the agent to `listener`, from now on. */
  listen(listener: (message: ToHost) => void): void {
    this.#listener = listener;
    for (const message of this.#early.splice(0)) listener(message);
  }

  send(message: ToGuest): void {
    this.#port.write(`${JSON.stringify(message)}\n`);
  }

  /** Never resolves; rejects when the machine is gone. */
  get gone(): Promise<never> {
    return this.#gone;
  }

  /** One command of QMP, e.g. `device_del`. */
  qmp(command: string, args: Record<string, unknown> = {}): Promise<unknown> {
    const answer = new Promise<unknown>((resolve, reject) => this.#answers.push({ resolve, reject }));
    this.#qmp.write(`${JSON.stringify({ execute: command, arguments: args })}\n`);
    return Promise.race([answer, this.#gone]);
  }

  /** Asks the guest to let go of a device, and waits until it is unplugged; tells how long that took. */
  async unplug(device: string, withinMs: number): Promise<string> {
    const began = performance.now();
    const deleted = new Promise<void>((resolve) => this.#events.push({ name: 'DEVICE_DELETED', device, resolve }));
    await this.qmp('device_del', { id: device });
    await Promise.race([deleted, this.#gone, timeout(withinMs, `the guest did not let go of ${device} within ${withinMs / 1000} s`)]);
    return `${Math.round(performance.now() - began)} ms`;
  }

  async plug(device: string): Promise<string> {
    const disk = this.#disks.find(({ id }) => id === device);
    if (disk === undefined) throw new Error(`no disk '${device}'`);
    const [driver, ...pairs] = nvmeDevice(disk).split(',');
    await this.qmp('device_add', { driver, ...Object.fromEntries(pairs.map((pair) => pair.split('='))) });
    return 'plugged';
  }

  /** Sets how many operations a second a device does; 0 is as many as it can. */
  async throttle(device: string, iops: number): Promise<string> {
    await this.qmp('qom-set', { path: `/objects/throttle-${device}`, property: 'limits', value: { 'iops-total': iops } });
    return `${iops} a second`;
  }

  /** Lines of the kernel's messages. */
  console(): string[] {
    return readFileSync(this.#consolePath, 'utf8').replaceAll('\r', '').trim().split('\n');
  }

  /** As pulling the plug: at once, with whatever is under way. */
  async end(): Promise<void> {
    if (this.#process.exitCode === null && this.#process.signalCode === null) {
      const exited = once(this.#process, 'exit');
      this.#process.kill('SIGKILL');
      await exited;
    }
    this.#port.destroy();
    this.#qmp.destroy();
    for (const server of this.#servers) server.close();
  }

  #onQmp(message: Record<string, unknown>): void {
    if ('return' in message) this.#answers.shift()?.resolve(message.return);
    else if ('error' in message) this.#answers.shift()?.reject(new Error((message.error as { desc: string }).desc));
    else if ('event' in message) {
      const { device } = (message.data ?? {}) as { device?: string };
      const index = this.#events.findIndex((waiting) => waiting.name === message.event && waiting.device === device);
      if (index >= 0) this.#events.splice(index, 1)[0].resolve();
    }
  }
}

async function listen(path: string): Promise<{ server: Server; connection: Promise<Socket> }> {
  const server = createServer();
  const connection = once(server, 'connection').then(([socket]) => socket as Socket);
  server.listen(path);
  await once(server, 'listening');
  return { server, connection };
}

export function timeout(ms: number, what: string): Promise<never> {
  return new Promise((_, reject) => setTimeout(() => reject(new Error(what)), ms).unref());
}
