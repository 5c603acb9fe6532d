/**
 * Geometry and `explain()` in sentences.
 *
 * Guarantees: says nothing that the library did not find out; what the system reports and is known to be wrong often (rotation of virtual disks) is told as its claim.
 */
import type { BlockFile, Extent, Geometry } from '../../src/index.js';
import { bytesText } from '../bench/format.js';

type Explained = ReturnType<BlockFile['explain']>;

/** What is toured: where it lies, and in how many pieces. `extents` is undefined where the file system does not tell. */
export function placeText(file: BlockFile, fsName: string, extents: readonly Extent[] | undefined): string {
  const { kind, device, rotational } = file.geometry;
  const claim = rotational ? ', which says that it rotates (virtual disks often say so)' : '';
  if (kind === 'block-device') return `It is a block device of ${bytesText(file.size)}${device === undefined ? '' : `, ${device}`}${claim}.`;
  const on = device === undefined ? `on ${fsName}, which names no block device below it` : `on ${fsName}, on the block device ${device}${claim}`;
  return `It is a file of ${bytesText(file.size)} ${on}.${file.size === 0 || device === undefined ? '' : piecesText(extents)}`;
}

function piecesText(extents: readonly Extent[] | undefined): string {
  if (extents === undefined) return ' The file system does not tell where its bytes lie.';
  let pieces = 0;
  let longest = 0;
  let holes = 0;
  let run = 0;
  let next: number | undefined;
  for (const { sector, length } of extents) {
    if (sector === undefined) {
      holes += length;
      continue;
    }
    if (sector !== next) {
      pieces++;
      run = 0;
    }
    run += length;
    longest = Math.max(longest, run);
    next = sector + length / 512;
  }
  const sparse = holes > 0 ? ` ${bytesText(holes)} of it have no place there: holes, or not written yet.` : '';
  if (pieces === 0) return sparse;
  return `${pieces === 1 ? ' It lies there in one piece.' : ` It lies there in ${pieces} pieces, the longest of ${bytesText(longest)}.`}${sparse}`;
}

/** The sizes that the device asks for. */
export function sectorText({ device, kind, logicalSectorSize: logical, physicalSectorSize: physical, alignmentOffset: offset }: Geometry): string {
  if (device === undefined && kind === 'file') return `What no device tells is assumed: sectors of ${physical} bytes.`;
  const same = logical === physical;
  const sizes = same ? `Its sectors are ${logical} bytes.` : `It is addressed in sectors of ${logical} bytes, and stores ${physical} at a time.`;
  if (offset < 0) return `${sizes} The layers below cannot be aligned with each other: small writes cost more.`;
  if (offset > 0) return `${sizes} It starts ${offset} bytes past such a unit: small writes cost more.`;
  return same ? sizes : `${sizes} It starts on such a unit: writes of whole ones need no reading first.`;
}

/** What O_DIRECT takes. */
export function directText({ memoryAlignment: memory, readAlignment: read, maxTransferSize, optimalIoSize }: Geometry): string {
  if (memory === 0) return 'Direct I/O is not possible here: the direct mode would read through the page cache.';
  const units =
    memory === read
      ? `memory, positions and lengths that are multiples of ${read} bytes`
      : `memory at multiples of ${memory}, positions and lengths of ${read} bytes`;
  const best = optimalIoSize > 0 ? `, best in ${bytesText(optimalIoSize)}` : '';
  return `Direct I/O (O_DIRECT) takes ${units}; one request moves up to ${bytesText(maxTransferSize)}${best}.`;
}

/** Does the kernel tell this process what of the file is in the page cache? To others it pretends (Linux 5.2). */
export function tellsResidency({ features }: Explained): boolean {
  return features.some(({ name, used }) => used && (name === 'mincore' || name === 'cachestat'));
}

/** The facts that matter most, one line each. */
export function factLines(mapped: Explained | undefined, direct: Explained | undefined): string[] {
  const explained = direct ?? mapped;
  if (!explained) return [];
  const used = (name: string): string | undefined => explained.features.find((feature) => feature.name === name && feature.used)?.reason;
  const ring = explained.features.find(({ name }) => name === 'io_uring');
  const facts = [
    explained.engine === 'io_uring'
      ? `I/O goes through io_uring: ${ring?.reason ?? 'in use'}.`
      : `I/O goes through threads of the library's own; io_uring: ${ring?.reason ?? 'not in use'}.`,
  ];
  if (explained.engine === 'io_uring') {
    const bytes = / of (\S+ \S+?)[;,]/.exec(used('registered buffers') ?? '')?.[1];
    const names = [used('registered file') && 'the file', used('registered ring') && 'the ring', bytes && `${bytes} of buffers (as they are first touched)`];
    const registered = names.filter((name) => name !== undefined);
    facts.push(
      registered.length === 0
        ? 'Nothing is registered with the ring; --explain says why.'
        : `Registered, so that no request looks them up again: ${registered.join(', ')}.`,
    );
  }
  if (mapped) {
    const scan = mapped.features.some((feature) => feature.name === 'PAGEMAP_SCAN' && feature.used);
    const proof = scan ? 'the page table (PAGEMAP_SCAN)' : tellsResidency(mapped) ? 'mincore' : undefined;
    facts.push(
      proof
        ? `tryWindow() asks ${proof} whether bytes are in memory before it hands them out.`
        : 'Nothing proves here that bytes are in memory: tryWindow() has no answer, window() has.',
    );
  }
  const watchers = [used('uevents') && 'uevents of the kernel', used('sysfs attributes') && 'sysfs', used('mount table') && 'the mount table'];
  const watching = watchers.filter((name) => name !== undefined);
  const device = used('watched device');
  if (device && watching.length > 0) facts.push(`If ${device} is pulled out, it is noticed by ${watching.join(', ')}.`);
  else facts.push('There is no device to watch: what is lost shows when it is read.');
  return facts;
}

/** All of `explain()`; each line is to be wrapped with an indent of 6. */
export function explainLines(explained: Explained): string[] {
  return [
    `  engine: ${explained.engine}`,
    ...explained.features.map(({ name, used, reason }) => `    ${used ? '+' : '-'} ${name}${reason ? `: ${reason}` : ''}`),
  ];
}
