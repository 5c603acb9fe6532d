/**
 * Geometry and `explain()` in plain words, 80 columns wide.
 */
import type { BlockFile, Geometry } from '../../src/index.js';
import { bytesText, wrap } from '../bench/format.js';

function alignmentText(geometry: Geometry): string {
  const { memoryAlignment, readAlignment, writeAlignment } = geometry;
  if (memoryAlignment === 0) return 'not possible here';
  return `memory at multiples of ${memoryAlignment}, reads of ${readAlignment}, writes of ${writeAlignment} bytes`;
}

/** What is toured, and how much of it. */
export function subjectText(file: BlockFile, size: number): string {
  const kind = file.geometry.kind === 'file' ? 'a file' : 'a block device';
  return `${kind} of ${bytesText(file.size)}, of which this tour reads ${size === file.size ? 'all' : `the first ${bytesText(size)}`}`;
}

function startText({ device, alignmentOffset: offset }: Geometry): string {
  if (device === undefined) return 'no device, so nothing to be aligned with';
  if (offset === 0) return 'the device starts on a physical sector';
  if (offset < 0) return 'the layers of this device cannot be aligned with each other';
  return `the device starts ${offset} bytes past a physical sector: small writes cost more`;
}

export function geometryLines(geometry: Geometry): string[] {
  const where =
    geometry.device === undefined ? 'no block device (memory, network or layered)' : `${geometry.device}, ${geometry.rotational ? 'rotating' : 'not rotating'}`;
  const facts: Array<[string, string]> = [
    ['lies on', geometry.kind === 'file' ? where : `itself: ${where}`],
    ['sectors', `${geometry.logicalSectorSize} bytes logical, ${geometry.physicalSectorSize} physical`],
    ['direct I/O', alignmentText(geometry)],
    [
      'good sizes',
      `at least ${bytesText(geometry.minimumIoSize)}, ${geometry.optimalIoSize ? `best ${bytesText(geometry.optimalIoSize)}` : 'no best size reported'}, at most ${bytesText(geometry.maxTransferSize)} in one go`,
    ],
    ['alignment', startText(geometry)],
  ];
  return facts.flatMap(([name, text]) => wrap(`  ${name.padEnd(11)} ${text}`, 14));
}

export function explainLines(explained: ReturnType<BlockFile['explain']>): string[] {
  const lines = wrap(`  engine      ${explained.engine}`, 14);
  for (const { name, used, reason } of explained.features) lines.push(...wrap(`    ${used ? '+' : '-'} ${name}${reason ? `: ${reason}` : ''}`, 6));
  return lines;
}
