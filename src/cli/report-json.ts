/**
 * Reports as JSON: docs/schemas/align-1.json, and nothing else.
 *
 * Guarantees: offsets and sizes are numbers up to 2^53 and decimal strings above, where a number would lie; fields keep their order; what is not known is null, not missing.
 * Volumes inside of others (a logical volume, an array) follow the one that holds them, with the same partition.
 */
import type { FileReport, GptCopy, Partition, Report, Volume } from '../layout/model.js';
import type { DirectoryReport } from './directory-check.js';

const EXACT = 1n << 53n;

/** A number where it is exact, else decimal digits. */
export function exact(value: bigint): number | string {
  return value > EXACT || value < -EXACT ? value.toString() : Number(value);
}

function exactOrNull(value: bigint | undefined): number | string | null {
  return value === undefined ? null : exact(value);
}

/** One target's report as a plain object. */
export function reportObject(report: Report, directory?: DirectoryReport): Record<string, unknown> {
  const { table, topology } = report;
  return {
    schemaVersion: report.schemaVersion,
    tool: report.tool,
    version: report.version,
    target: report.target,
    sectorSize: { value: report.sectorSize.value, source: report.sectorSize.source },
    topology: {
      logical: topology.logical,
      physical: topology.physical,
      minimumIo: topology.minimumIo,
      optimalIo: topology.optimalIo,
      alignmentOffset: topology.alignmentOffset,
      zone: topology.zone,
      chunk: topology.chunk,
      source: topology.source,
    },
    table: { kind: table.kind, state: table.state, primary: copyObject(table.primary), backup: copyObject(table.backup) },
    partitions: table.partitions.map(partitionObject),
    volumes: flat(report.volumes).map(volumeObject),
    ...(report.file === undefined ? {} : { file: fileObject(report.file) }),
    ...(directory === undefined ? {} : { directory: directoryObject(directory) }),
    findings: report.findings.map((finding) => ({
      severity: finding.severity,
      code: finding.code,
      layer: finding.layer,
      partition: finding.partition,
      value: exactOrNull(finding.value),
      modulus: exactOrNull(finding.modulus),
      remainder: exactOrNull(finding.remainder),
      message: finding.message,
      fix: finding.fix,
    })),
    summary: { worst: report.summary.worst, exit: report.summary.exit },
  };
}

/** Each volume followed by those inside of it. */
export function flat(volumes: readonly Volume[]): Volume[] {
  return volumes.flatMap((volume) => [volume, ...flat(volume.inside)]);
}

function copyObject(copy: GptCopy | undefined): Record<string, unknown> | null {
  if (copy === undefined) return null;
  return {
    header: exact(copy.header),
    entries: exact(copy.entries),
    entryCount: copy.entryCount,
    entryBytes: copy.entryBytes,
    firstUsable: exact(copy.firstUsable),
    lastUsable: exact(copy.lastUsable),
    valid: copy.valid,
    ...(copy.reason === undefined ? {} : { reason: copy.reason }),
  };
}

function partitionObject(partition: Partition): Record<string, unknown> {
  return {
    number: partition.number,
    start: exact(partition.start),
    size: exact(partition.size),
    type: partition.type,
    ...(partition.name === undefined ? {} : { name: partition.name }),
    aligned: partition.aligned,
  };
}

function volumeObject(volume: Volume): Record<string, unknown> {
  return {
    partition: volume.partition,
    kind: volume.kind,
    dataOffset: exact(volume.dataOffset),
    dataOffsetAbsolute: exact(volume.dataOffsetAbsolute),
    unit: volume.unit,
    tiers: volume.tiers,
  };
}

function fileObject(file: FileReport): Record<string, unknown> {
  const pages = Object.entries(file.pages).map(([page, found]) => [
    page,
    {
      mappable: exact(found.mappable),
      total: exact(found.total),
      longestRun: { pages: exact(found.longestRun.pages), offset: exact(found.longestRun.offset) },
      firstFailing:
        found.firstFailing === undefined
          ? null
          : { page: exact(found.firstFailing.page), offset: exact(found.firstFailing.offset), cause: found.firstFailing.cause },
      tail: found.tail,
    },
  ]);
  return { path: file.path, size: exact(file.size), fileSystem: file.fileSystem, pages: Object.fromEntries(pages) };
}

function directoryObject(directory: DirectoryReport): Record<string, unknown> {
  return {
    path: directory.path,
    fileSystem: directory.fileSystem,
    files: directory.files,
    bytes: exact(directory.bytes),
    aligned: directory.aligned,
    short: directory.short,
    misaligned: directory.misaligned,
    unplaced: directory.unplaced,
    empty: directory.empty,
    unreadable: directory.unreadable,
    skipped: directory.skipped,
    pages: Object.fromEntries(Object.entries(directory.pages).map(([page, { mappable, total }]) => [page, { mappable: exact(mappable), total: exact(total) }])),
    worst: directory.worst.map((file) => ({
      path: file.path,
      page: file.page,
      mappable: exact(file.mappable),
      total: exact(file.total),
      cause: file.cause,
    })),
    errors: directory.errors,
  };
}
