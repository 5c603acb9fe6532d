/**
 * A member of a Linux software RAID (md), from its superblock (linux/raid/md_p.h).
 *
 *   0.90   [ data …                    | sb ·· ]     in the last 64 KiB that begin on 64 KiB
 *   1.0    [ data …                    | sb ·  ]     8 to 12 KiB before the end
 *   1.1    [ sb ····· | data …                 ]     at the start
 *   1.2    [ · sb ··· | data …                 ]     at 4 KiB
 *
 * Guarantees: the sum is checked. Of a mirror, an array of one device and the first device of a linear one the data is told as a run that can be followed;
 * of others `details.contents` says why not.
 */
import { both, hex, holds, type Recognised, text, uuid, type VolumeView } from './view.js';

const MAGIC = '\xfc\x4e\x2b\xa9';
const MAGIC_BIG = '\xa9\x2b\x4e\xfc';
const SECTOR = 512n;
const OLD_BYTES = 4096;
const OLD_RESERVED = 64n << 10n;
const NEW_BYTES = 256;
/** Devices whose roles fit the 4 KiB of a superblock. */
const ROLES_MAX = (4096 - NEW_BYTES) / 2;
/** Roles of devices that hold no data of the array: spare, faulty, journal. */
const ROLE_NONE = 0xfffd;
const LINEAR = -1;
const MIRROR = 1;
const NO_DATA = -5;
/** An array without chunks is one run; so its grain is the largest page there is, and only its place decides. */
const RUN = 65536;

export function recogniseMd(view: VolumeView): Recognised | null {
  // Those at the end first, as libblkid: what lies at the start may be the array's contents.
  const end = view.size - (view.size % SECTOR);
  const old = end >= OLD_RESERVED ? recogniseOld(view, end - (end % OLD_RESERVED) - OLD_RESERVED) : null;
  if (old !== null) return old;
  const atEnd = end >= 16n * SECTOR ? recogniseNew(view, end - (end % 4096n) - 16n * SECTOR, '1.0') : null;
  return atEnd ?? recogniseNew(view, 0n, '1.1') ?? recogniseNew(view, 4096n, '1.2');
}

function recogniseNew(view: VolumeView, at: bigint, version: string): Recognised | null {
  const data = view.data(at, NEW_BYTES);
  if (data === undefined || !holds(data, 0, MAGIC) || data.getUint32(4, true) !== 1) return null;
  // Each names its own place; one that does not was moved, or belongs to a device inside this one.
  if (data.getBigUint64(144, true) * SECTOR !== at) return null;
  const devices = data.getUint32(220, true);
  if (devices > ROLES_MAX) return null;
  const level = data.getInt32(72, true);
  const chunk = data.getUint32(88, true) * Number(SECTOR);
  const disks = data.getUint32(92, true);
  const dataOffset = data.getBigUint64(128, true) * SECTOR;
  const dataSize = data.getBigUint64(136, true) * SECTOR;
  const used = data.getBigUint64(80, true) * SECTOR;
  const number = data.getUint32(160, true);
  const whole = view.data(at, NEW_BYTES + 2 * devices);
  const role = whole !== undefined && number < devices ? whole.getUint16(NEW_BYTES + 2 * number, true) : 0xffff;
  const name = text(data, 32, 32);
  const size = level === MIRROR && used !== 0n && used < dataSize ? used : dataSize;
  // The kernel refuses it as well (super_1_load); followed, it would be found inside itself.
  const overlaps = version !== '1.0' && dataOffset < at + 4096n;
  return {
    ...(overlaps ? {} : contents({ level, disks, role, dataOffset, size, name })),
    kind: 'md',
    size: dataOffset + dataSize,
    dataOffset,
    unit: chunk === 0 ? RUN : chunk,
    label: name,
    uuid: uuid(data, 16),
    damaged: both(
      whole === undefined ? 'superblock not all there' : checksumNew(whole),
      overlaps ? `its data begins at byte ${dataOffset}, in its superblock` : undefined,
    ),
    details: {
      version,
      level: levelName(level),
      devices: disks,
      role: roleName(role),
      chunk,
      dataSize,
      superblock: at,
      ...why({ level, disks, role }),
    },
  };
}

function recogniseOld(view: VolumeView, at: bigint): Recognised | null {
  const data = view.data(at, OLD_BYTES);
  if (data === undefined) return null;
  const little = holds(data, 0, MAGIC);
  if (!little && !holds(data, 0, MAGIC_BIG)) return null;
  const word = (index: number): number => data.getUint32(index * 4, little);
  if (word(1) !== 0 || word(2) !== 90) return null;
  const level = word(7) | 0;
  const disks = word(10);
  const role = word(992 + 3);
  const chunk = word(65);
  const size = BigInt(word(8)) * 1024n;
  return {
    ...contents({ level, disks, role, dataOffset: 0n, size: size === 0n ? at : size }),
    kind: 'md',
    size: at,
    dataOffset: 0n,
    unit: chunk === 0 ? RUN : chunk,
    uuid: oldUuid([word(5), word(13), word(14), word(15)]),
    damaged: checksumOld(data, little),
    details: {
      version: '0.90',
      level: levelName(level),
      devices: disks,
      role: roleName(role),
      chunk,
      dataSize: size,
      superblock: at,
      ...(little ? {} : { byteOrder: 'big-endian' }),
      ...why({ level, disks, role }),
    },
  };
}

interface Member {
  level: number;
  disks: number;
  role: number;
}

/** The run that holds what the array holds, where this member has it in one piece from the array's first byte on. */
function contents(member: Member & { dataOffset: bigint; size: bigint; name?: string }): Pick<Recognised, 'contents'> {
  if (refusal(member) !== undefined) return {};
  return { contents: [{ offset: member.dataOffset, size: member.size, name: member.name }] };
}

function why(member: Member): { contents?: string } {
  const reason = refusal(member);
  return reason === undefined ? {} : { contents: `not followed: ${reason}` };
}

function refusal({ level, disks, role }: Member): string | undefined {
  if (role >= ROLE_NONE || role >= disks) return 'this device is no active member';
  if (level <= NO_DATA) return 'a container';
  if (level === MIRROR || disks === 1) return undefined;
  if (level === LINEAR) return role === 0 ? undefined : 'the array begins on another device';
  return `spread over ${disks} devices`;
}

function levelName(level: number): string {
  if (level === LINEAR) return 'linear';
  if (level === -4) return 'multipath';
  return level < 0 ? `level ${level}` : `raid${level}`;
}

function roleName(role: number): number | string {
  if (role === 0xffff) return 'spare';
  if (role === 0xfffe) return 'faulty';
  return role === ROLE_NONE ? 'journal' : role;
}

/** As libblkid writes it: the four words in big-endian order. */
function oldUuid(words: number[]): string | undefined {
  const bytes = new DataView(new ArrayBuffer(16));
  for (const [i, word] of words.entries()) bytes.setUint32(4 * i, word);
  return uuid(bytes, 0);
}

/** The sum of all words with its own as 0; what overflows is added once more (drivers/md/md.c, calc_sb_1_csum). */
function checksumNew(data: DataView): string | undefined {
  let sum = 0;
  let at = 0;
  for (; at + 4 <= data.byteLength; at += 4) if (at !== 216) sum += data.getUint32(at, true);
  if (at + 2 <= data.byteLength) sum += data.getUint16(at, true);
  return told(data.getUint32(216, true), folded(sum));
}

function checksumOld(data: DataView, little: boolean): string | undefined {
  let sum = 0;
  for (let at = 0; at < OLD_BYTES; at += 4) if (at !== 4 * 38) sum += data.getUint32(at, little);
  return told(data.getUint32(4 * 38, little), folded(sum));
}

function folded(sum: number): number {
  return ((sum % 2 ** 32) + Math.floor(sum / 2 ** 32)) >>> 0;
}

function told(stored: number, sum: number): string | undefined {
  return stored === sum ? undefined : `superblock checksum ${hex(stored)} where ${hex(sum)} belongs`;
}
