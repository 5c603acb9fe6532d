/**
 * The classes that errors of this library are of: a part of the public names that loads nothing else, since `instanceof` may be asked before any file is opened.
 */
export { SectorwiseError } from './errors.js';
export { VerifyError } from './requests/verify-error.js';
export { FlushError } from './windows/flush-failed.js';
