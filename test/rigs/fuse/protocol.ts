/**
 * What a FUSE server and the kernel say to each other over /dev/fuse: numbers and layouts of `linux/fuse.h`, protocol 7.31.
 *
 *   request    [ length 4 | opcode 4 | unique 8 | node 8 | uid 4 | gid 4 | pid 4 | padding 4 ] body
 *   reply      [ length 4 | -errno  4 | unique 8 ] body
 *   notice     [ length 4 | code    4 | 0      8 ] body
 *
 * All in the byte order of the machine, which is little-endian wherever this runs.
 */

export const PROTOCOL_MAJOR = 7;
/** Newer kernels speak as old as they are asked to. */
export const PROTOCOL_MINOR = 31;

export const OPCODE = {
  LOOKUP: 1,
  FORGET: 2,
  GETATTR: 3,
  SETATTR: 4,
  OPEN: 14,
  READ: 15,
  WRITE: 16,
  STATFS: 17,
  RELEASE: 18,
  FSYNC: 20,
  FLUSH: 25,
  INIT: 26,
  OPENDIR: 27,
  READDIR: 28,
  RELEASEDIR: 29,
  FSYNCDIR: 30,
  ACCESS: 34,
  INTERRUPT: 36,
  DESTROY: 38,
  BATCH_FORGET: 42,
} as const;

/** FUSE_NOTIFY_INVAL_INODE */
export const NOTICE_FORGET_PAGES = 2;

/** Flags of INIT. */
export const INIT_ASYNC_READ = 1 << 0;
export const INIT_BIG_WRITES = 1 << 5;
export const INIT_MAX_PAGES = 1 << 22;

/** Flags of OPEN. */
export const FOPEN_DIRECT_IO = 1 << 0;
export const FOPEN_KEEP_CACHE = 1 << 1;

/** SETATTR sets the size. */
export const FATTR_SIZE = 1 << 3;

export const ENOENT = 2;
export const EINTR = 4;
export const EIO = 5;
export const ENOSYS = 38;
export const EISDIR = 21;

export const REQUEST_HEADER_BYTES = 40;
const REPLY_HEADER_BYTES = 16;
const ATTR_BYTES = 88;

export interface Request {
  opcode: number;
  unique: bigint;
  node: number;
  pid: number;
  body: Buffer;
}

/** `body` is a view: it changes with the next request. */
export function parseRequest(buffer: Buffer, length: number): Request {
  return {
    opcode: buffer.readUInt32LE(4),
    unique: buffer.readBigUInt64LE(8),
    node: Number(buffer.readBigUInt64LE(16)),
    pid: buffer.readUInt32LE(32),
    body: buffer.subarray(REQUEST_HEADER_BYTES, length),
  };
}

/** `error` is an errno, 0 if it went well. */
export function reply(unique: bigint, error: number, body?: Uint8Array): Buffer {
  return message(-error, unique, error === 0 ? body : undefined);
}

function message(code: number, unique: bigint, body: Uint8Array | undefined): Buffer {
  const length = REPLY_HEADER_BYTES + (body?.length ?? 0);
  const out = Buffer.alloc(length);
  out.writeUInt32LE(length, 0);
  out.writeInt32LE(code, 4);
  out.writeBigUInt64LE(unique, 8);
  if (body !== undefined) out.set(body, REPLY_HEADER_BYTES);
  return out;
}

/** The pages of a range leave the page cache, mapped or not; also what was known of the node's attributes. */
export function forgetPages(node: number, offset: number, length: number): Buffer {
  const body = Buffer.alloc(24);
  body.writeBigUInt64LE(BigInt(node), 0);
  body.writeBigInt64LE(BigInt(offset), 8);
  body.writeBigInt64LE(BigInt(length), 16);
  return message(NOTICE_FORGET_PAGES, 0n, body);
}

/** fuse_init_out */
export function initAnswer(flags: number, maxReadAheadBytes: number, maxWriteBytes: number): Buffer {
  const body = Buffer.alloc(64);
  body.writeUInt32LE(PROTOCOL_MAJOR, 0);
  body.writeUInt32LE(PROTOCOL_MINOR, 4);
  body.writeUInt32LE(maxReadAheadBytes, 8);
  body.writeUInt32LE(flags >>> 0, 12);
  // Requests in the background (read-ahead): a delayed one must not keep the others from being sent.
  body.writeUInt16LE(256, 16);
  body.writeUInt16LE(192, 18);
  body.writeUInt32LE(maxWriteBytes, 20);
  body.writeUInt32LE(1, 24);
  body.writeUInt16LE(maxWriteBytes / 4096, 28);
  return body;
}

export interface Attributes {
  node: number;
  size: number;
  mode: number;
  changedMs: number;
}

function writeAttributes(out: Buffer, at: number, { node, size, mode, changedMs }: Attributes): void {
  out.writeBigUInt64LE(BigInt(node), at);
  out.writeBigUInt64LE(BigInt(size), at + 8);
  out.writeBigUInt64LE(BigInt(Math.ceil(size / 512)), at + 16);
  for (let i = 0; i < 3; i++) {
    out.writeBigUInt64LE(BigInt(Math.floor(changedMs / 1000)), at + 24 + 8 * i);
    out.writeUInt32LE((changedMs % 1000) * 1_000_000, at + 48 + 4 * i);
  }
  out.writeUInt32LE(mode, at + 60);
  out.writeUInt32LE(1, at + 64);
  out.writeUInt32LE(4096, at + 80);
}

/** fuse_entry_out; both answers hold for `validMs`. */
export function entryAnswer(attributes: Attributes, validMs: number): Buffer {
  const out = Buffer.alloc(40 + ATTR_BYTES);
  out.writeBigUInt64LE(BigInt(attributes.node), 0);
  for (let i = 0; i < 2; i++) {
    out.writeBigUInt64LE(BigInt(Math.floor(validMs / 1000)), 16 + 8 * i);
    out.writeUInt32LE((validMs % 1000) * 1_000_000, 32 + 4 * i);
  }
  writeAttributes(out, 40, attributes);
  return out;
}

/** fuse_attr_out */
export function attributesAnswer(attributes: Attributes, validMs: number): Buffer {
  const out = Buffer.alloc(16 + ATTR_BYTES);
  out.writeBigUInt64LE(BigInt(Math.floor(validMs / 1000)), 0);
  out.writeUInt32LE((validMs % 1000) * 1_000_000, 8);
  writeAttributes(out, 16, attributes);
  return out;
}

/** fuse_open_out */
export function openAnswer(handle: number, flags: number): Buffer {
  const out = Buffer.alloc(16);
  out.writeBigUInt64LE(BigInt(handle), 0);
  out.writeUInt32LE(flags, 8);
  return out;
}

/** fuse_write_out */
export function writeAnswer(bytes: number): Buffer {
  const out = Buffer.alloc(8);
  out.writeUInt32LE(bytes, 0);
  return out;
}

/** fuse_statfs_out: room, and names of 255 bytes. */
export function statfsAnswer(): Buffer {
  const out = Buffer.alloc(80);
  for (let i = 0; i < 5; i++) out.writeBigUInt64LE(1n << 20n, 8 * i);
  out.writeUInt32LE(4096, 40);
  out.writeUInt32LE(255, 44);
  out.writeUInt32LE(4096, 48);
  return out;
}

/** One fuse_dirent, padded to 8 bytes; `next` is where reading goes on after it. */
export function directoryEntry(node: number, next: number, type: number, name: string): Buffer {
  const bytes = Buffer.from(name);
  const out = Buffer.alloc(24 + Math.ceil(bytes.length / 8) * 8);
  out.writeBigUInt64LE(BigInt(node), 0);
  out.writeBigUInt64LE(BigInt(next), 8);
  out.writeUInt32LE(bytes.length, 16);
  out.writeUInt32LE(type, 20);
  out.set(bytes, 24);
  return out;
}
