/**
 * A disk that fails on demand, for testing a storage engine without a device, without root and without waiting.
 *
 * Pure TypeScript: nothing that is imported from here loads the native part.
 *
 * @module sectorwise/testing
 * @category API
 */
export {
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
  type EngineName,
  type Feature,
  FLAG_ASYNC,
  FLAG_DURABLE,
  OP_ALLOCATE,
  OP_DISCARD,
  OP_EVICT,
  OP_READ,
  OP_SYNC,
  OP_TRUNCATE,
  OP_WRITE,
  type Slab,
} from '../io/engine.js';
export type { DiskCounts, DiskEvent, DiskWatcher, UnplugAnswer } from './device.js';
export type { FailSectorsOptions, FaultKind, FaultRates, PlantOptions } from './faults.js';
export { faultKinds } from './faults.js';
export { createHeapSlab } from './heap-slab.js';
export type { DiskSnapshot, PowerCutReport } from './medium.js';
export { openSimulated, type SimulatedOpenOptions } from './open.js';
export { Random } from './random.js';
export { type LatencyRange, SimulatedDisk, type SimulatedDiskOptions } from './simulated-disk.js';
export type { SimulatedEngine, SimulatedEngineOptions } from './simulated-engine.js';
export { Violation, type ViolationKind } from './violation.js';
