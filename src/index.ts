/**
 * Zero-copy windows over the bytes of files and block devices, for storage engines on Node.js.
 *
 * The public names, and nothing else.
 *
 * @module sectorwise
 * @category API
 */
export { FlushError, SectorwiseError, VerifyError } from './error-classes.js';
export type { ErrorPlace, SectorwiseErrorCode } from './errors.js';
export type { BlockFile, Explanation, InvalidateReason, Residency, Stats } from './file.js';
export type { Extent } from './geometry/extents.js';
export type { Geometry } from './geometry/geometry.js';
export { open, openSync } from './open.js';
export type { Caching, EngineName, OpenOptions, WindowOptions } from './options.js';
export type { BlobOptions, FileBlob } from './streams/blob.js';
export type { StreamOptions } from './streams/range.js';
export type { InvalidateMessage, Latencies, TraceMessage } from './tracing.js';
export type { Batch } from './windows/batch.js';
export type { Window } from './windows/window.js';
