/**
 * Layouts of disks, images and files: read, judged and planned, without native code and on bytes of any origin.
 *
 * The public names, and nothing else.
 *
 * @module sectorwise/layout
 * @category API
 */
export { checkLayout, combinedExit } from './check.js';
export { type FileExtent, filePages } from './file-pages.js';
export { gptRegions, type PlanRegion, sfdiskScript } from './gpt-writer.js';
export { type ImageFile, imageExtents, imageFile } from './image-files.js';
export { type MkfsTarget, mkfsLines, partitionNode } from './mkfs.js';
export type {
  CheckOptions,
  ExitCode,
  FilePages,
  FileReport,
  Finding,
  GptCopy,
  ImageSource,
  Partition,
  Report,
  SectorSize,
  Severity,
  Table,
  TableKind,
  TableState,
  Tier,
  Tiers,
  Topology,
  Volume,
  VolumeKind,
} from './model.js';
export {
  type Plan,
  type PlannedFileSystem,
  type PlannedMedia,
  type PlannedPart,
  type PlannedVolume,
  type PlanOptions,
  type PlanPartition,
  planLayout,
} from './plan.js';
export { endModulus, type GrainOptions, grain, requiredAlignment, type UsableIo, usableMinimumIo, usableOptimalIo } from './rules.js';
export { type SdCardProfile, sdCardProfile } from './sd-card.js';
export { bufferSource, type FileSource, type LimitedSource, limitedSource, openSource } from './source.js';
export { readTable, type TableOptions } from './table.js';
export { tierOf, tiersOf } from './tier.js';
export { exemptType, TYPE_GUIDS, type TypeShortName, typeNameOf } from './types.js';
export { readVolume } from './volume.js';
export type { Place } from './volumes/view.js';
export { type WriteOptions, type WriteReport, type WrittenRange, writePlan } from './write-plan.js';
