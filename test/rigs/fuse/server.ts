/**
 * The FUSE server's own process: opens /dev/fuse, mounts with it, and answers the kernel. One flat directory of files in memory.
 *
 * Run by `FuseServer` (fuse-server.ts) as a `Program`; its first argument is the folder to mount on.
 * Guarantees: when this process ends, however it does, so does the connection, whoever waits for an answer gets an error, and the mount is detached.
 * Leaves to others: unmounting in the ordinary case.
 */
import { spawn } from 'node:child_process';
import { openSync, read, readFileSync, write, writeSync } from 'node:fs';
import { answerQuestions } from '../answers.js';
import { fillPattern } from '../pattern.js';
import { type Behaviour, type Counts, normalBehaviour, type ServerOptions } from './behaviour.js';
import * as fuse from './protocol.js';

const ROOT = 1;
const FIRST_FILE = 2;
const MAX_WRITE_BYTES = 128 * 1024;
const S_IFDIR = 0o040000;
const S_IFREG = 0o100000;
/** A request of this length is answered by none, whatever it is. */
const SILENT = new Set<number>([fuse.OPCODE.FORGET, fuse.OPCODE.BATCH_FORGET]);

interface MemoryFile {
  name: string;
  node: number;
  bytes: Buffer;
  seed: number;
  changedMs: number;
}

const folder = process.argv[2];
let options: Required<ServerOptions>;
let behaviour: Behaviour = { ...normalBehaviour };
let device = -1;
const files: MemoryFile[] = [];
const counts: Counts = { reads: 0, readBytes: 0, writes: 0, failed: 0, interrupts: 0, waiting: 0 };
/** Requests that are not answered yet on purpose, and what would answer them. */
const waiting = new Map<bigint, { go: () => void; timer?: NodeJS.Timeout }>();

function send(bytes: Buffer): void {
  try {
    writeSync(device, bytes);
  } catch (error) {
    // ENOENT: it was interrupted or aborted meanwhile. ENODEV, ECONNABORTED: the connection is gone.
    if (!['ENOENT', 'ENODEV', 'ECONNABORTED'].includes((error as NodeJS.ErrnoException).code ?? '')) throw error;
  }
}

const answer = (request: fuse.Request, error: number, body?: Uint8Array): void => send(fuse.reply(request.unique, error, body));

function attributesOf(node: number): fuse.Attributes | undefined {
  if (node === ROOT) return { node, size: 4096, mode: S_IFDIR | 0o777, changedMs: 0 };
  const file = files[node - FIRST_FILE];
  return file && { node, size: file.bytes.length, mode: S_IFREG | 0o666, changedMs: file.changedMs };
}

function setSize(file: MemoryFile, size: number): void {
  const before = file.bytes;
  file.bytes = Buffer.alloc(size);
  file.bytes.set(before.subarray(0, size));
  if (size > before.length) fillPattern(file.bytes.subarray(before.length), before.length, file.seed);
  file.changedMs = Date.now();
}

/** Now, later, or when hanging ends. */
function inItsTime(request: fuse.Request, isRead: boolean, go: () => void): void {
  const hangs = behaviour.hang === 'all' || (isRead && behaviour.hang === 'reads');
  if (hangs || (isRead && behaviour.delayMs > 0)) {
    const { unique } = request;
    const done = (): void => {
      waiting.delete(unique);
      go();
    };
    waiting.set(unique, { go: done, timer: hangs ? undefined : setTimeout(done, behaviour.delayMs) });
  } else {
    go();
  }
}

function readFile(request: fuse.Request): void {
  const file = files[request.node - FIRST_FILE];
  const offset = Number(request.body.readBigUInt64LE(8));
  const size = request.body.readUInt32LE(16);
  counts.reads++;
  inItsTime(request, true, () => {
    const bad = behaviour.failPages.some((page) => page * 4096 < offset + size && (page + 1) * 4096 > offset);
    if (bad) counts.failed++;
    else counts.readBytes += size;
    answer(request, bad ? fuse.EIO : 0, file.bytes.subarray(offset, offset + size));
  });
}

function writeFile(request: fuse.Request): void {
  const file = files[request.node - FIRST_FILE];
  const offset = Number(request.body.readBigUInt64LE(8));
  const size = request.body.readUInt32LE(16);
  if (offset + size > file.bytes.length) setSize(file, offset + size);
  const bytes = request.body.subarray(40, 40 + size);
  if (behaviour.writes === 'done') file.bytes.set(bytes, offset);
  else if (behaviour.writes === 'torn') file.bytes.set(bytes.subarray(0, 4096), offset);
  else if (behaviour.writes === 'elsewhere') file.bytes.set(bytes, behaviour.strayTo * 4096);
  else if (behaviour.writes === 'changed') {
    file.bytes.set(bytes, offset);
    file.bytes[offset + size - 1] ^= 1;
  }
  file.changedMs = Date.now();
  counts.writes++;
  answer(request, 0, fuse.writeAnswer(size));
}

function readDirectory(request: fuse.Request): void {
  const offset = Number(request.body.readBigUInt64LE(8));
  const size = request.body.readUInt32LE(16);
  const parts: Buffer[] = [];
  let length = 0;
  for (let i = offset; i < files.length; i++) {
    const entry = fuse.directoryEntry(files[i].node, i + 1, S_IFREG >> 12, files[i].name);
    if (length + entry.length > size) break;
    parts.push(entry);
    length += entry.length;
  }
  answer(request, 0, Buffer.concat(parts));
}

const handlers: Record<number, (request: fuse.Request) => void> = {
  [fuse.OPCODE.INIT](request) {
    const wanted = fuse.INIT_ASYNC_READ | fuse.INIT_BIG_WRITES | fuse.INIT_MAX_PAGES;
    const readAheadBytes = Math.min(request.body.readUInt32LE(8), options.readAheadBytes);
    answer(request, 0, fuse.initAnswer(request.body.readUInt32LE(12) & wanted, readAheadBytes, MAX_WRITE_BYTES));
  },
  [fuse.OPCODE.LOOKUP](request) {
    const name = request.body.toString('utf8', 0, request.body.indexOf(0));
    const file = files.find((one) => one.name === name);
    if (file === undefined) answer(request, fuse.ENOENT);
    else answer(request, 0, fuse.entryAnswer(attributesOf(file.node) as fuse.Attributes, options.validMs));
  },
  [fuse.OPCODE.GETATTR](request) {
    const attributes = attributesOf(request.node);
    if (attributes === undefined) answer(request, fuse.ENOENT);
    else answer(request, 0, fuse.attributesAnswer(attributes, options.validMs));
  },
  [fuse.OPCODE.SETATTR](request) {
    const file = files[request.node - FIRST_FILE];
    if (file === undefined) {
      answer(request, fuse.EISDIR);
      return;
    }
    if ((request.body.readUInt32LE(0) & fuse.FATTR_SIZE) !== 0) setSize(file, Number(request.body.readBigUInt64LE(16)));
    answer(request, 0, fuse.attributesAnswer(attributesOf(file.node) as fuse.Attributes, options.validMs));
  },
  [fuse.OPCODE.OPEN](request) {
    answer(request, 0, fuse.openAnswer(request.node, (options.directIo ? fuse.FOPEN_DIRECT_IO : 0) | (options.keepCache ? fuse.FOPEN_KEEP_CACHE : 0)));
  },
  [fuse.OPCODE.READ]: readFile,
  [fuse.OPCODE.WRITE]: writeFile,
  [fuse.OPCODE.STATFS]: (request) => answer(request, 0, fuse.statfsAnswer()),
  [fuse.OPCODE.OPENDIR]: (request) => answer(request, 0, fuse.openAnswer(ROOT, 0)),
  [fuse.OPCODE.READDIR]: readDirectory,
  [fuse.OPCODE.RELEASE]: (request) => answer(request, 0),
  [fuse.OPCODE.RELEASEDIR]: (request) => answer(request, 0),
  [fuse.OPCODE.FLUSH]: (request) => answer(request, 0),
  [fuse.OPCODE.FSYNC]: (request) => answer(request, 0),
  [fuse.OPCODE.FSYNCDIR]: (request) => answer(request, 0),
  [fuse.OPCODE.ACCESS]: (request) => answer(request, 0),
  [fuse.OPCODE.DESTROY]: (request) => answer(request, 0),
};

function interrupt(request: fuse.Request): void {
  counts.interrupts++;
  const target = request.body.readBigUInt64LE(0);
  const waiter = waiting.get(target);
  if (waiter === undefined) return;
  // Who waits was killed, and cannot end before he is answered.
  clearTimeout(waiter.timer);
  waiting.delete(target);
  send(fuse.reply(target, fuse.EINTR));
}

function serve(request: fuse.Request): void {
  if (SILENT.has(request.opcode)) return;
  if (request.opcode === fuse.OPCODE.INTERRUPT) {
    interrupt(request);
    return;
  }
  const handler = handlers[request.opcode];
  // The kernel remembers ENOSYS for most opcodes and does without.
  if (handler === undefined) answer(request, fuse.ENOSYS);
  else if (request.opcode === fuse.OPCODE.READ || request.opcode === fuse.OPCODE.INIT) handler(request);
  else if (behaviour.hang === 'all') inItsTime(keep(request), false, () => handler(request));
  else handler(request);
}

/** With a body of its own: the buffer is read into again before it is answered. */
function keep(request: fuse.Request): fuse.Request {
  request.body = Buffer.from(request.body);
  return request;
}

/** A blocking read in a thread of Node's pool; one is always on its way. */
function listen(): void {
  const buffer = Buffer.alloc(MAX_WRITE_BYTES + 8192);
  const next = (): void => {
    read(device, buffer, 0, buffer.length, null, (error, length) => {
      if (error === null) serve(fuse.parseRequest(buffer, length));
      // EPERM: not mounted yet, and mounting goes on only once this process answers.
      else if (error.code === 'EPERM') setTimeout(next, 2);
      // ENOENT: the request was interrupted before it was read. ENODEV: unmounted or aborted.
      if (error === null || ['EINTR', 'EAGAIN', 'ENOENT'].includes(error.code ?? '')) next();
    });
  };
  next();
}

/** Detaches the mount once this process is gone, however it went: its end of the pipe closes. Does nothing if that was done before. */
function watchOver(path: string): void {
  const script = 'read -r never; umount -i -c -l "$0" && rmdir "$0"';
  spawn('sh', ['-c', script, path], { stdio: ['pipe', 'ignore', 'ignore'], detached: true }).unref();
}

function mounted(): Promise<number> {
  const how = `fd=3,rootmode=40000,user_id=0,group_id=0,allow_other`;
  // Not waiting for it: it asks for the root's attributes, and this process answers.
  const mount = spawn('mount', ['-i', '-t', 'fuse', '-o', how, 'sectorwise-rig', folder], { stdio: ['ignore', 'ignore', 'pipe', device] });
  let problem = '';
  mount.stderr?.on('data', (data) => (problem += data));
  return new Promise((resolve, reject) => {
    mount.on('error', reject);
    mount.on('close', (code) => {
      if (code === 0) resolve(connectionOf(folder));
      else reject(new Error(`mount ended with ${code}: ${problem}`));
    });
  });
}

/** The name of the connection under fusectl: the minor number of the file system's device. */
function connectionOf(path: string): number {
  for (const line of readFileSync('/proc/self/mountinfo', 'utf8').split('\n')) {
    const fields = line.split(' ');
    if (fields[4] === path) return Number(fields[2].split(':')[1]);
  }
  throw new Error(`${path} is not mounted`);
}

answerQuestions({
  async start(wanted: ServerOptions) {
    options = { directIo: false, keepCache: true, validMs: 0, readAheadBytes: 0, ...wanted };
    for (const { name, size, seed } of options.files) {
      files.push({ name, node: FIRST_FILE + files.length, bytes: fillPattern(Buffer.alloc(size), 0, seed), seed, changedMs: Date.now() });
    }
    watchOver(folder);
    device = openSync('/dev/fuse', 'r+');
    listen();
    return await mounted();
  },
  behave(wanted: Partial<Behaviour>) {
    behaviour = { ...normalBehaviour, ...wanted };
    // What hung is released into whatever holds now; what is only delayed keeps its time.
    if (behaviour.hang === 'none') for (const { go, timer } of [...waiting.values()]) if (timer === undefined) go();
  },
  resize(name: string, size: number) {
    setSize(fileNamed(name), size);
  },
  /** Waits for the pages' locks, so not in this thread: who holds them may be waiting for an answer. */
  forget(name: string, offset: number, length: number) {
    return new Promise<void>((resolve, reject) => {
      // ENOENT: the kernel does not know the node (any more), so it has no pages of it.
      write(device, fuse.forgetPages(fileNamed(name).node, offset, length), (error) => (error && error.code !== 'ENOENT' ? reject(error) : resolve()));
    });
  },
  content(name: string, offset: number, length: number) {
    return fileNamed(name).bytes.subarray(offset, offset + length);
  },
  counts(): Counts {
    return { ...counts, waiting: waiting.size };
  },
});

function fileNamed(name: string): MemoryFile {
  const file = files.find((one) => one.name === name);
  if (file === undefined) throw new Error(`no file ${name} is served`);
  return file;
}
