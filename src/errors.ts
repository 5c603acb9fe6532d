/**
 * Every error of the library is made here.
 *
 * Three kinds, told apart by `code`: arguments (`ERR_OUT_OF_RANGE`, `ERR_INVALID_ARG_TYPE`, `ERR_INVALID_ARG_VALUE`, in Node's
 * own form: the argument's name and the value received), system calls (`EIO`, `ENOENT`, … with `errno`, `syscall`, `path`), and
 * states of the library (`ERR_SECTORWISE_…`, each message ending in what to do about it).
 *
 * Guarantees: a thrown value is an Error with a `code`; a range that failed is named by `offset` and `length` in bytes.
 */
import { getSystemErrorMap, inspect } from 'node:util';

/** The codes of the library's own errors. Each is documented where it is thrown and in the table of docs/guides/errors.md. */
export type SectorwiseErrorCode = `ERR_SECTORWISE_${string}`;

/** Where an error happened. All optional; offsets and lengths are bytes of the opened file or device. */
export interface ErrorPlace {
  /** The file or device, as it was opened. */
  path?: string;
  /** First byte of the range concerned. */
  offset?: number;
  /** Bytes in the range concerned. */
  length?: number;
  /** The error that led to this one. */
  cause?: unknown;
}

/** A state of the library that stands against what was asked; `code` says which, the message says what to do. */
export class SectorwiseError extends Error {
  /** Stable across releases; compare this, not the message. */
  readonly code: SectorwiseErrorCode;
  /** The file or device, as it was opened. */
  declare readonly path?: string;
  /** First byte of the range concerned. */
  declare readonly offset?: number;
  /** Bytes in the range concerned. */
  declare readonly length?: number;

  constructor(code: SectorwiseErrorCode, message: string, place: ErrorPlace = {}) {
    super(message, place.cause === undefined ? undefined : { cause: place.cause });
    this.code = code;
    if (place.path !== undefined) this.path = place.path;
    if (place.offset !== undefined) this.offset = place.offset;
    if (place.length !== undefined) this.length = place.length;
  }

  /** Always 'SectorwiseError'. */
  override get name(): string {
    return 'SectorwiseError';
  }
}

/** The error of a system call, in the form that Node's own have. */
export interface SystemError extends Error {
  code: string;
  errno: number;
  syscall: string;
  path?: string;
  offset?: number;
  length?: number;
}

const systemErrors = getSystemErrorMap();

/** `result` is -errno as a system call returned it. */
export function systemError(result: number, syscall: string, place: ErrorPlace = {}): SystemError {
  const [code, text] = systemErrors.get(result) ?? [`E${-result}`, 'unknown error'];
  const where = place.path === undefined ? '' : ` '${place.path}'`;
  const range = place.offset === undefined ? '' : ` (offset ${place.offset}, length ${place.length})`;
  const error = new Error(`${code}: ${text}, ${syscall}${where}${range}`, place.cause === undefined ? undefined : { cause: place.cause }) as SystemError;
  error.code = code;
  error.errno = result;
  error.syscall = syscall;
  if (place.path !== undefined) error.path = place.path;
  if (place.offset !== undefined) error.offset = place.offset;
  if (place.length !== undefined) error.length = place.length;
  return error;
}

/** RangeError in Node's form: `The value of "offset" is out of range. It must be … Received …`. */
export function outOfRange(name: string, expected: string, received: unknown): RangeError {
  const error = new RangeError(`The value of "${name}" is out of range. It must be ${expected}. Received ${show(received)}`);
  return withCode(error, 'ERR_OUT_OF_RANGE');
}

/** TypeError in Node's form. */
export function invalidType(name: string, expected: string, received: unknown): TypeError {
  const kind = name.includes('.') ? 'property' : 'argument';
  return withCode(new TypeError(`The "${name}" ${kind} must be ${expected}. Received ${describe(received)}`), 'ERR_INVALID_ARG_TYPE');
}

/** TypeError in Node's form, for a value of the right type that means nothing here. */
export function invalidValue(name: string, reason: string, received: unknown): TypeError {
  const kind = name.includes('.') ? 'property' : 'argument';
  return withCode(new TypeError(`The ${kind} '${name}' ${reason}. Received ${show(received)}`), 'ERR_INVALID_ARG_VALUE');
}

/** As Node's own: `name` AbortError, `code` ABORT_ERR, `cause` the signal's reason. */
export function abortError(signal: AbortSignal): Error {
  const error = new Error('The operation was aborted', { cause: signal.reason });
  error.name = 'AbortError';
  return withCode(error, 'ABORT_ERR');
}

/** An impossible state: a bug of this library, never of its caller. Thrown in production too, before anything is written over it. */
export function assertionError(what: string): SectorwiseError {
  return new SectorwiseError('ERR_SECTORWISE_ASSERTION', `Internal invariant broken: ${what}. Please report this; the file should be closed.`);
}

function withCode<E extends Error>(error: E, code: string): E {
  Object.defineProperty(error, 'code', { value: code, enumerable: true, writable: true, configurable: true });
  return error;
}

function show(value: unknown): string {
  if (typeof value === 'number' && Number.isInteger(value) && Math.abs(value) >= 1000) return value.toLocaleString('en-US').replaceAll(',', '_');
  if (typeof value === 'bigint') return `${value}n`;
  const text = inspect(value);
  return text.length > 128 ? `${text.slice(0, 128)}...` : text;
}

function describe(value: unknown): string {
  if (value === null || value === undefined) return String(value);
  if (typeof value === 'function') return `function ${value.name}`;
  if (typeof value === 'object') return value.constructor?.name ? `an instance of ${value.constructor.name}` : inspect(value, { depth: -1 });
  return `type ${typeof value} (${show(value)})`;
}
