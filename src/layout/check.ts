/**
 * The judge: is this image laid out so that it can be mapped page by page, and if not, which layer spoils it?
 *
 *   table (readTable) ─> each partition: start R1, zones, grain R3, end R4 ─> each volume (readVolume): where its clusters lie R6, and what is inside it
 *   findings of all layers, outermost first ─> exit code, one sentence
 *
 * Guarantees: reads at most 4 MiB of an image of any size; no image makes it throw: only bad options do, and a source whose first or last sectors cannot be read. What was
 * not looked at is a warning.
 * Leaves to others: the rules (`rules.ts`), files on a mounted system (rule R7, `src/cli`), showing.
 */
import { invalidType, invalidValue } from '../errors.js';
import { byteAndLba, FindingList, roundSize } from './findings.js';
import type { CheckOptions, ExitCode, Finding, ImageSource, Partition, Report, Severity, Table, Topology, Volume } from './model.js';
import {
  customaryGrain,
  endModulus,
  gcd,
  grain,
  grainFor,
  isPowerOfTwo,
  lcm,
  remainder,
  requiredAlignment,
  roundDown,
  roundUp,
  usableMinimumIo,
  usableOptimalIo,
} from './rules.js';
import { limitedSource } from './source.js';
import { readTable, sectorSizes } from './table.js';
import { version } from './version.js';
import { readVolume } from './volume.js';

/** What a volume is read with: `readVolume`, or in tests something that only looks like it. */
export type VolumeReader = typeof readVolume;

/** Of more partitions than Linux gives numbers to, the contents are not looked at. */
const volumesMax = 256;
const pagesMax = 8;
const pageMin = 512;
const pageMax = 1 << 30;
const physicalMax = 1 << 20;
/** Where nobody told: what disks of today have, not what they say. */
const physicalAssumed = 4096;

/**
 * Judges the layout of `source`, through all its layers.
 *
 * @throws `ERR_INVALID_ARG_TYPE`, `ERR_INVALID_ARG_VALUE` for options that mean nothing
 * @throws what `source.read` throws where the table lies; of a volume that cannot be read it is a finding, and exit code 4
 */
export function checkLayout(source: ImageSource, options: CheckOptions = {}, read: VolumeReader = readVolume): Report {
  const pages = checkedPages(options.pages);
  if (options.physical !== undefined) checkPower('options.physical', options.physical, pageMin, physicalMax);
  const limited = limitedSource(source);
  const table = readTable(limited, {
    sectorSize: options.sectorSize,
    deviceSectorSize: options.topology?.source === 'device' && sectorSizes.includes(options.topology.logical) ? options.topology.logical : undefined,
  });
  const topology = topologyOf(table, options);
  const device = new FindingList();
  const findings = new FindingList();

  judgeDevice(topology, device);
  const alignment = topology.alignmentOffset > 0 ? BigInt(topology.alignmentOffset) : 0n;
  const judged: Judged = { table, topology, pages, required: requiredAlignment(topology, pages), grain: grain(topology), offset: alignment, findings };
  for (const partition of table.partitions) judgePartition(partition, judged);
  const volumes = readVolumes(limited, judged, read);
  for (const volume of volumes) judgeVolume(volume, undefined, judged);

  // Outermost first. No code of a table is one of the others, so that each list counts its own.
  const all = [...device.all(), ...table.findings, ...findings.all()];
  const exit = exitOf(all, table, volumes, options.strict === true);
  return {
    schemaVersion: 1,
    tool: 'sectorwise',
    version,
    target: options.target ?? '',
    sectorSize: table.sectorSize,
    topology,
    table,
    volumes,
    findings: all,
    summary: { worst: worstOf(all), exit, verdict: verdictOf(exit, all, table, volumes, pages) },
  };
}

/** The exit code for several targets: that of highest precedence (64 > 4 > 2 > 3 > 1 > 0). */
export function combinedExit(codes: readonly ExitCode[]): ExitCode {
  return exitPrecedence.find((code) => codes.includes(code)) ?? 0;
}

const exitPrecedence: readonly ExitCode[] = [64, 4, 2, 3, 1, 0];

interface Judged {
  table: Table;
  topology: Topology;
  pages: readonly number[];
  required: bigint;
  grain: bigint;
  /** alignment_offset, 0 where there is none to count with. */
  offset: bigint;
  findings: FindingList;
}

// Options, topology

function checkedPages(pages: readonly number[] | undefined): readonly number[] {
  if (pages === undefined) return [4096];
  if (!Array.isArray(pages)) throw invalidType('options.pages', 'an array of page sizes', pages);
  if (pages.length < 1 || pages.length > pagesMax) throw invalidValue('options.pages', `must hold 1 to ${pagesMax} page sizes`, pages);
  for (const page of pages) checkPower('options.pages', page, pageMin, pageMax);
  return [...new Set(pages)].sort((a, b) => a - b);
}

function checkPower(name: string, value: number, min: number, max: number): void {
  if (typeof value !== 'number') throw invalidType(name, 'of type number', value);
  if (!Number.isInteger(value) || value < min || value > max || !isPowerOfTwo(BigInt(value)))
    throw invalidValue(name, `must be a power of two from ${min} to ${max}`, value);
}

function topologyOf(table: Table, { topology, physical, sectorSize }: CheckOptions): Topology {
  const logical = table.sectorSize.value;
  if (topology !== undefined) {
    return {
      ...topology,
      logical: sectorSize ?? topology.logical,
      physical: physical ?? topology.physical,
      source: physical === undefined ? topology.source : 'option',
    };
  }
  const assumed = Math.max(physicalAssumed, logical);
  return {
    logical,
    physical: physical ?? assumed,
    minimumIo: 0,
    optimalIo: 0,
    alignmentOffset: 0,
    zone: 0,
    chunk: 0,
    source: physical === undefined ? 'assumed' : 'option',
  };
}

// The device

function judgeDevice(topology: Topology, findings: FindingList): void {
  const say = (severity: Severity, code: string, message: string, fix: string, value: number) =>
    findings.add({ severity, code, layer: 'device', partition: null, value: BigInt(Math.trunc(value)), message, fix });
  if (topology.alignmentOffset < 0) {
    const message = `alignment_offset is ${topology.alignmentOffset}: the devices under this one do not line up, so that no start is aligned on all of them`;
    say('error', 'E_STACK_MISALIGNED', message, 'align the members of the stack (partitions under RAID or LVM) to 1 MiB each', topology.alignmentOffset);
  }
  const optimal = usableOptimalIo(topology);
  if (optimal.reason !== undefined) {
    const whole = grain(topology);
    say('info', 'I_OPT_IGNORED', `${optimal.reason}; using ${roundSize(whole)}`, '', topology.optimalIo);
  }
  const minimum = usableMinimumIo(topology);
  if (minimum.reason !== undefined) say('info', 'I_MIN_IGNORED', `${minimum.reason}; starts need not be multiples of it`, '', topology.minimumIo);
}

// Partitions

function judgePartition(partition: Partition, judged: Judged): void {
  const { table, required, findings, offset, topology } = judged;
  const sector = table.sectorSize.value;
  const { number, start, size } = partition;
  const end = start + size;
  const at = (code: string, severity: Severity, value: bigint, modulus: bigint, message: string, fix: string) =>
    findings.add({ severity, code, layer: 'partition', partition: number, value, modulus, remainder: remainder(value, modulus), message, fix });

  const rest = remainder(start - offset, required);
  // A stack that cannot be aligned makes no start right.
  partition.aligned = rest === 0n && topology.alignmentOffset >= 0;
  const offZone = topology.zone > 0 && start % BigInt(topology.zone) !== 0n;
  const wanted = lcm(grainFor(size, judged.grain, required), required);
  if (rest !== 0n) {
    const next = roundUp(start - offset, wanted) + offset;
    const message = `starts at ${byteAndLba(start, sector)}, ${division(start, offset, required)}${whichAsks(judged, start)}`;
    const fix = next % BigInt(sector) === 0n ? `move to LBA ${next / BigInt(sector)}` : `no LBA of ${sector} bytes is aligned; use a device with other sectors`;
    if (partition.exempt) at('I_START', 'info', start - offset, required, `${message}; it holds no file system, so that this does not matter`, '');
    else at('E_START', 'error', start - offset, required, message, fix);
  } else if (!partition.exempt && remainder(start - offset, wanted) !== 0n && !offZone) {
    at(
      'I_GRAIN',
      'info',
      start - offset,
      wanted,
      `starts at ${byteAndLba(start, sector)}: on ${required}, but ${division(start, offset, wanted)}; that is allowed`,
      '',
    );
  }

  if (topology.zone > 0) {
    const zone = BigInt(topology.zone);
    const severity = partition.exempt ? 'info' : 'error';
    const code = partition.exempt ? 'I_ZONE' : 'E_ZONE';
    if (offZone)
      at(
        code,
        severity,
        start,
        zone,
        `starts at ${byteAndLba(start, sector)}, ${start} % ${zone} = ${start % zone}: not where a zone begins`,
        `move to LBA ${roundUp(start, zone) / BigInt(sector)}`,
      );
    if (size % zone !== 0n)
      at(
        code,
        severity,
        size,
        zone,
        `has ${size} bytes, ${size} % ${zone} = ${size % zone}: not a whole number of zones`,
        `make it ${roundDown(size, zone)} bytes long`,
      );
  }

  const modulus = endModulus(topology.logical);
  if (end % modulus !== 0n && !partition.exempt) {
    const shorter = roundDown(end, modulus) - start;
    const fix = shorter > 0n ? `make it ${shorter / BigInt(sector)} sectors (${shorter} bytes) long` : `make it at least ${modulus} bytes long`;
    at('W_END', 'warning', end, modulus, `ends at ${byteAndLba(end, sector)}, ${end} % ${modulus} = ${end % modulus}: LUKS2 and others refuse it`, fix);
  }
}

function division(start: bigint, offset: bigint, modulus: bigint): string {
  const rest = remainder(start - offset, modulus);
  return offset === 0n ? `${start} % ${modulus} = ${rest}` : `(${start} - alignment_offset ${offset}) % ${modulus} = ${rest}`;
}

/** Where more than 4096 is required: who requires it, and which pages the start is good for all the same. */
function whichAsks({ required, topology, pages, offset }: Judged, start: bigint): string {
  if (required <= 4096n) return '';
  const asking: string[] = [];
  if (BigInt(topology.physical) === required) asking.push('the physical sectors');
  if (usableMinimumIo(topology).value === required) asking.push('minimum_io_size');
  if (BigInt(pages[pages.length - 1]) === required) asking.push(`pages of ${required}`);
  const good = pages.filter((page) => remainder(start - offset, BigInt(page)) === 0n);
  return ` (${asking.join(', ')} ask${asking.length === 1 && !asking[0].endsWith('sectors') && !asking[0].startsWith('pages') ? 's' : ''} for it${good.length === 0 ? '' : `; good for pages of ${good.join(', ')}`})`;
}

// Volumes

function readVolumes(source: ReturnType<typeof limitedSource>, { table, pages, findings }: Judged, read: VolumeReader): Volume[] {
  const volumes: Volume[] = [];
  const places: { offset: bigint; size: bigint; partition: number | null }[] = table.partitions
    .filter(({ start }) => start < source.size)
    .map(({ start, size, number }) => ({ offset: start, size: start + size > source.size ? source.size - start : size, partition: number }));
  if (table.partitions.length === 0 && table.kind !== 'gpt' && table.kind !== 'pmbr-only') places.push({ offset: 0n, size: source.size, partition: null });
  let unread = Math.max(0, places.length - volumesMax);
  for (const place of places.slice(0, volumesMax)) {
    if (source.exhausted) {
      unread++;
      continue;
    }
    let volume: Volume | null = null;
    try {
      volume = read(source, { ...place, pages });
    } catch (error) {
      if (!isSystemError(error)) throw error;
      findings.add({
        severity: 'error',
        code: 'E_READ',
        layer: 'volume',
        partition: place.partition,
        value: place.offset,
        message: `could not be read: ${error.message}`,
        fix: 'check the device (dmesg, smartctl); what lies here is not judged',
      });
      continue;
    }
    // What was recognised from bytes that were withheld means nothing.
    if (source.exhausted) unread++;
    else if (volume !== null) volumes.push(volume);
  }
  if (unread > 0) {
    findings.add({
      severity: 'warning',
      code: 'W_NOT_READ',
      layer: 'volume',
      partition: null,
      message: `what lies in ${unread} of ${places.length} partitions was not looked at: a check reads no more than ${roundSize(source.bytesMax)}`,
      fix: 'check those partitions by their own nodes',
    });
  }
  // Where a table could be but is none, a volume explains the image.
  if (table.kind === 'none' && volumes.length > 0) {
    table.kind = 'superfloppy';
    if (table.state.length === 0) table.state.push('ok');
  }
  return volumes;
}

function isSystemError(error: unknown): error is Error {
  return error instanceof Error && typeof (error as NodeJS.ErrnoException).syscall === 'string';
}

function judgeVolume(volume: Volume, around: Volume | undefined, judged: Judged): void {
  const { table, findings, offset, pages, required } = judged;
  const { partition, kind } = volume;
  const sector = table.sectorSize.value;
  const exempt = partition !== null && table.partitions.find(({ number }) => number === partition)?.exempt === true;
  const name = volumeName(volume);
  const say = (
    severity: Severity,
    code: string,
    message: string,
    fix: string,
    layer: Finding['layer'] = 'volume',
    numbers: { value?: bigint; modulus?: bigint } = {},
  ) => {
    const { value, modulus } = numbers;
    const rest = value === undefined || modulus === undefined ? undefined : remainder(value, modulus);
    const isInfo = exempt && severity !== 'info';
    findings.add({
      severity: isInfo ? 'info' : severity,
      code: isInfo ? `I_${code.slice(2)}` : code,
      layer,
      partition,
      value,
      modulus,
      remainder: rest,
      message,
      fix,
    });
  };

  if (volume.damaged !== undefined)
    say('warning', 'W_VOLUME_DAMAGED', `${name} is damaged: ${volume.damaged}; its numbers are not to be trusted`, fsckOf(volume));
  const { alsoFound, unread, bySpecification } = volume.details;
  if (alsoFound !== undefined)
    say(
      'warning',
      'W_ALSO_FOUND',
      `${name} is not all that lies here: also ${alsoFound}; tools may take one for the other`,
      'wipefs shows and removes what is stale',
    );
  if (unread !== undefined) say('warning', 'W_NOT_READ', `${name}: ${unread}`, 'check them by their own nodes');
  if (bySpecification !== undefined) say('warning', 'W_FAT_TYPE', `${name}: ${bySpecification}`, fixOf(volume, pages[pages.length - 1]));

  const { hiddenSectors, bytesPerSector } = volume.details;
  if (kind === 'ntfs' && around === undefined && typeof hiddenSectors === 'number' && typeof bytesPerSector === 'number' && bytesPerSector > 0) {
    const lba = volume.offset / BigInt(bytesPerSector);
    if (BigInt(hiddenSectors) !== lba) {
      say(
        'info',
        'I_HIDDEN_SECTORS',
        `${name} says that ${hiddenSectors} sectors lie before it, where there are ${lba}: Windows does not boot from it`,
        `mkntfs -p ${lba}`,
      );
    }
  }

  // A volume without a partition begins where the device does: right only if the device itself begins on a boundary.
  if (partition === null && around === undefined && offset !== 0n && remainder(-offset, required) !== 0n) {
    say(
      'error',
      'E_START',
      `${name} starts at byte 0, ${division(0n, offset, required)}`,
      `the device begins off its own boundaries: put it into a partition at byte ${customaryGrain + offset}`,
      'device',
      {
        value: -offset,
        modulus: required,
      },
    );
  }

  if (volume.opaque) {
    say(
      'info',
      'I_OPAQUE',
      `${name} holds ciphertext from ${byteAndLba(volume.dataOffsetAbsolute, sector)} on: what is inside cannot be seen, and no page of it can be mapped whatever its place`,
      '',
    );
    const modulus = BigInt(pages[0]);
    if (volume.dataOffsetAbsolute % modulus !== 0n) {
      say(
        'warning',
        'W_PAYLOAD',
        `${name}: payload at ${byteAndLba(volume.dataOffsetAbsolute, sector)}, % ${modulus} = ${volume.dataOffsetAbsolute % modulus}: each write touches one sector more`,
        fixOf(volume, pages[0]),
        'volume',
        {
          value: volume.dataOffsetAbsolute,
          modulus,
        },
      );
    }
  } else if (kind !== 'swap') {
    for (const page of pages) judgePages(volume, around, page, judged, say);
  }
  for (const inner of volume.inside) judgeVolume(inner, volume, judged);
}

/** Rule R6 for one page size, in words. */
function judgePages(
  volume: Volume,
  around: Volume | undefined,
  page: number,
  { table }: Judged,
  say: (severity: Severity, code: string, message: string, fix: string, layer: Finding['layer'], numbers: { value: bigint; modulus: bigint }) => void,
): void {
  const tiers = volume.tiers[String(page)];
  if (tiers === undefined) return;
  const sector = table.sectorSize.value;
  const name = volumeName(volume);
  const what = spaceName(volume);
  const { unit, dataOffset, dataOffsetAbsolute } = volume;
  const modulus = BigInt(page);
  const sizes = `${roundSize(unit)} ${unitName(volume)}`;
  if (tiers.absolute === 'impossible') {
    const own = tiers.relative === 'impossible';
    const value = dataOffsetAbsolute;
    // Clusters that are no whole pages may lie anywhere on what both have in common: the remainder that spoils it is of that.
    const less = unit % page === 0 ? modulus : gcd(BigInt(unit), modulus);
    const lba = value / BigInt(sector);
    let message = `${name} ${what} at byte ${value}, % ${less} = ${value % less} with ${sizes}: no file page can be mapped (LBA ${lba})`;
    let fix = fixOf(volume, page);
    let layer: Finding['layer'] = 'volume';
    if (!own) {
      message += `, though within ${around === undefined ? 'its own device node' : `the ${volumeName(around)} around it`} it is ${tiers.relative} (byte ${dataOffset})`;
      const container = around !== undefined && around.dataOffsetAbsolute % modulus !== 0n;
      layer = around === undefined ? (volume.partition === null ? 'device' : 'partition') : 'volume';
      fix =
        around === undefined
          ? 'move the partition to a multiple of 1 MiB'
          : container
            ? fixOf(around, page)
            : `make the extents of the ${volumeName(around)} multiples of ${page}`;
    }
    say('error', 'E_HEAP', message, fix, layer, { value, modulus: less });
    return;
  }
  if (tiers.absolute === 'per-file') {
    say(
      'warning',
      'W_PERFILE',
      `${name} has ${sizes}: a file page of ${page} can be mapped only where its ${unitName(volume)} happen to lie together on a boundary`,
      fixOf(volume, page),
      'volume',
      {
        value: BigInt(unit),
        modulus,
      },
    );
  }
  if (tiers.relative === 'impossible') {
    const message = `${name} ${what} is ${tiers.absolute} on the whole device (byte ${dataOffsetAbsolute}), but impossible from its own device node: byte ${dataOffset}, % ${page} = ${dataOffset % modulus}`;
    say('warning', 'W_RELATIVE', message, `${fixOf(volume, page)}, and move the partition to a multiple of 1 MiB`, 'volume', { value: dataOffset, modulus });
  }
}

const names: Record<Volume['kind'], string> = {
  fat12: 'FAT12',
  fat16: 'FAT16',
  fat32: 'FAT32',
  exfat: 'exFAT',
  ext2: 'ext2',
  ext3: 'ext3',
  ext4: 'ext4',
  xfs: 'XFS',
  ntfs: 'NTFS',
  btrfs: 'btrfs',
  luks1: 'LUKS1',
  luks2: 'LUKS2',
  lvm2: 'LVM',
  md: 'md array',
  swap: 'swap',
};

function volumeName({ kind, name }: Volume): string {
  return name === undefined ? names[kind] : `${names[kind]} in ${name}`;
}

function isFat({ kind }: Volume): boolean {
  return kind === 'fat12' || kind === 'fat16' || kind === 'fat32' || kind === 'exfat';
}

function isLayer({ kind }: Volume): boolean {
  return kind === 'luks1' || kind === 'luks2' || kind === 'lvm2' || kind === 'md';
}

function spaceName(volume: Volume): string {
  return isFat(volume) ? 'cluster heap' : isLayer(volume) ? 'data area' : 'blocks';
}

function unitName(volume: Volume): string {
  return isFat(volume) || volume.kind === 'ntfs' ? 'clusters' : volume.kind === 'lvm2' ? 'extents' : volume.kind === 'md' ? 'chunks' : 'blocks';
}

/** How to make the volume anew so that pages of `page` bytes lie right in it. */
function fixOf(volume: Volume, page: number): string {
  const unit = Math.max(page, volume.unit);
  switch (volume.kind) {
    case 'fat12':
    case 'fat16':
    case 'fat32': {
      const sector = typeof volume.details.bytesPerSector === 'number' && volume.details.bytesPerSector > 0 ? volume.details.bytesPerSector : 512;
      const perCluster = Math.max(1, Math.ceil(unit / sector));
      // mkfs.fat rounds the heap up to a whole cluster, but not on volumes of up to 8192 sectors.
      const small = volume.size !== undefined && volume.size <= 8192n * 512n;
      const line = `mkfs.fat -s ${perCluster} -F ${volume.kind.slice(3)}`;
      return perCluster > 128 || small ? `reformat with the line that sectorwise plan gives (${line} -a -R ...)` : `reformat: ${line}`;
    }
    case 'exfat':
      return `reformat: mkfs.exfat -c ${unit} -b 1M`;
    case 'ext2':
    case 'ext3':
    case 'ext4':
      return page > 4096 ? `reformat: mke2fs -b ${Math.min(page, 65536)} (mountable only where pages are as large)` : 'reformat: mke2fs -b 4096';
    case 'xfs':
      return `reformat: mkfs.xfs -b size=${Math.min(unit, 65536)}`;
    case 'ntfs':
      return `reformat: mkntfs -c ${Math.min(unit, 65536)}`;
    case 'btrfs':
      return `reformat: mkfs.btrfs -s ${Math.min(unit, 65536)}`;
    case 'luks1':
    case 'luks2':
      return 'cryptsetup reencrypt or luksFormat with --offset 32768 (16 MiB in sectors of 512)';
    case 'lvm2':
      return 'make it anew: pvcreate --dataalignment 1m';
    case 'md':
      return 'make it anew: mdadm --create --data-offset=1M';
    case 'swap':
      return '';
  }
}

function fsckOf({ kind }: Volume): string {
  if (kind === 'fat12' || kind === 'fat16' || kind === 'fat32') return 'fsck.fat -n says what is wrong';
  if (kind === 'exfat') return 'fsck.exfat -n says what is wrong';
  if (kind === 'ext2' || kind === 'ext3' || kind === 'ext4') return 'e2fsck -n says what is wrong';
  if (kind === 'xfs') return 'xfs_repair -n says what is wrong';
  if (kind === 'ntfs') return 'ntfsfix -n says what is wrong';
  if (kind === 'btrfs') return 'btrfs check says what is wrong';
  return '';
}

// Summary

function exitOf(findings: readonly Finding[], table: Table, volumes: readonly Volume[], strict: boolean): ExitCode {
  if (findings.some(({ code }) => code === 'E_READ')) return 4;
  if (findings.some(({ severity, layer }) => severity === 'error' && layer === 'table')) return 2;
  if (table.partitions.length === 0 && volumes.length === 0) return 3;
  return findings.some(({ severity }) => severity === 'error' || (strict && severity === 'warning')) ? 1 : 0;
}

function worstOf(findings: readonly Finding[]): Severity | null {
  return (['error', 'warning', 'info'] as const).find((each) => findings.some(({ severity }) => severity === each)) ?? null;
}

const layers = ['device', 'table', 'partition', 'volume', 'file'] as const;

/** The finding that the verdict is about: the worst, of the outermost layer. */
function spoiler(findings: readonly Finding[], severity: Severity): Finding | undefined {
  for (const layer of layers) {
    const found = findings.find((finding) => finding.severity === severity && finding.layer === layer);
    if (found !== undefined) return found;
  }
  return undefined;
}

function verdictOf(exit: ExitCode, findings: readonly Finding[], table: Table, volumes: readonly Volume[], pages: readonly number[]): string {
  const error = spoiler(findings, 'error');
  const warning = spoiler(findings, 'warning');
  switch (exit) {
    case 4: {
      const unread = findings.find(({ code }) => code === 'E_READ')!;
      return `Not all of it could be read: ${placeOf(unread, volumes)} ${unread.message}.`;
    }
    case 2: {
      const broken = findings.find(({ severity, layer }) => severity === 'error' && layer === 'table')!;
      return `The partition table is not to be trusted: ${broken.partition === null ? '' : `partition ${broken.partition} `}${broken.message}.`;
    }
    case 3:
      return table.kind === 'none' || table.kind === 'superfloppy'
        ? 'Nothing to judge: there is no partition table and no known file system.'
        : 'Nothing to judge: the partition table is empty.';
  }
  const asked = `pages of ${pages.join(', ')} bytes`;
  if (error !== undefined) return `Not laid out for ${asked}: the ${error.layer} layer spoils it: ${placeOf(error, volumes)} ${error.message}.`;
  if (warning !== undefined)
    return `${exit === 0 ? 'Aligned' : 'Aligned, but strictly not good enough'} for ${asked}, with a warning about the ${warning.layer} layer: ${placeOf(warning, volumes)} ${warning.message}.`;
  const opaque = anyOpaque(volumes) ? '; encrypted content cannot be judged' : '';
  const held = volumes.length === 0 ? 'no known volume in them' : `${volumes.length} ${volumes.length === 1 ? 'volume' : 'volumes'}`;
  const parts = table.partitions.length;
  return parts === 0
    ? `Aligned for ${asked}: a volume without a partition table${opaque}.`
    : `Aligned for ${asked}: ${parts} ${parts === 1 ? 'partition' : 'partitions'}, ${held}${opaque}.`;
}

function placeOf({ layer, partition }: Finding, volumes: readonly Volume[]): string {
  if (partition !== null) return `partition ${partition}:`;
  return layer === 'volume' && volumes.length > 0 ? 'the whole image:' : `the ${layer}:`;
}

function anyOpaque(volumes: readonly Volume[]): boolean {
  return volumes.some(({ opaque, inside }) => opaque || anyOpaque(inside));
}
