/**
 * What the types of partitions are called, and which of them never hold a file system (rule R5).
 *
 * Guarantees: GUIDs in lower case as UEFI prints them; types of an MBR as `0x83`. Sources: UEFI 2.10 table 5.7, the Discoverable Partitions Specification, util-linux'
 * list of MBR types; a type that is not here is simply unknown.
 * Leaves to others: what lies in a partition whatever its type says (`volume.ts`).
 */

/** A type by its short name. */
export type TypeShortName =
  | 'esp'
  | 'linux'
  | 'swap'
  | 'bios'
  | 'msr'
  | 'prep'
  | 'data'
  | 'lvm'
  | 'raid'
  | 'luks'
  | 'home'
  | 'srv'
  | 'var'
  | 'xbootldr'
  | 'root-x86'
  | 'root-x86-64'
  | 'root-arm'
  | 'root-arm64'
  | 'root-riscv64'
  | 'recovery';

/** GPT types, GUIDs in lower case, by the short names that `sectorwise plan` takes. */
export const TYPE_GUIDS: Readonly<Record<TypeShortName, string>> = {
  esp: 'c12a7328-f81f-11d2-ba4b-00a0c93ec93b',
  linux: '0fc63daf-8483-4772-8e79-3d69d8477de4',
  swap: '0657fd6d-a4ab-43c4-84e5-0933c84b4f4f',
  bios: '21686148-6449-6e6f-744e-656564454649',
  msr: 'e3c9e316-0b5c-4db8-817d-f92df00215ae',
  prep: '9e1a2d38-c612-4316-aa26-8b49521e5a8b',
  data: 'ebd0a0a2-b9e5-4433-87c0-68b6b72699c7',
  lvm: 'e6d6d379-f507-44c2-a23c-238f2a3df928',
  raid: 'a19d880f-05fc-4d3b-a006-743f0f84911e',
  luks: 'ca7d7ccb-63ed-4c53-861c-1742536059cc',
  home: '933ac7e1-2eb4-4f13-b844-0e14e2aef915',
  srv: '3b8f8425-20e0-4f3b-907f-1a25a76f98e8',
  var: '4d21b016-b534-45c2-a9fb-5c16e091fd2d',
  xbootldr: 'bc13c2ff-59e6-4262-a352-b275fd6f7172',
  'root-x86': '44479540-f297-41b2-9af7-d131d5f0458a',
  'root-x86-64': '4f68bce3-e8cd-4db1-96e7-fbcaf984b709',
  'root-arm': '69dad710-2ce4-4e3c-b16c-21a1d49abed3',
  'root-arm64': 'b921b045-1df0-41c3-af44-4c6f280d3fae',
  'root-riscv64': '72ec70a6-cf74-40e6-bd49-4bda08e8f224',
  recovery: 'de94bba4-06d1-4d40-a16a-bfd50179d6ac',
};

const guidNames: Record<TypeShortName, string> = {
  esp: 'EFI system',
  linux: 'Linux data',
  swap: 'Linux swap',
  bios: 'BIOS boot',
  msr: 'Microsoft reserved',
  prep: 'PowerPC PReP boot',
  data: 'Microsoft basic data',
  lvm: 'Linux LVM',
  raid: 'Linux RAID',
  luks: 'Linux LUKS',
  home: 'Linux home',
  srv: 'Linux server data',
  var: 'Linux variable data',
  xbootldr: 'Linux extended boot',
  'root-x86': 'Linux root (x86)',
  'root-x86-64': 'Linux root (x86-64)',
  'root-arm': 'Linux root (ARM)',
  'root-arm64': 'Linux root (ARM64)',
  'root-riscv64': 'Linux root (RISC-V 64)',
  recovery: 'Windows recovery',
};

const named = new Map<string, string>([
  ...Object.entries(TYPE_GUIDS).map(([short, guid]): [string, string] => [guid, guidNames[short as TypeShortName]]),
  ['48465300-0000-11aa-aa11-00306543ecac', 'Apple HFS+'],
  ['7c3457ef-0000-11aa-aa11-00306543ecac', 'Apple APFS'],
  ['516e7cb6-6ecf-11d6-8ff8-00022d09712b', 'FreeBSD UFS'],
  ['516e7cba-6ecf-11d6-8ff8-00022d09712b', 'FreeBSD ZFS'],
  ['83bd6b9d-7f41-11dc-be0b-001560b84f0f', 'FreeBSD boot'],
  ['6a898cc3-1dd2-11b2-99a6-080020736631', 'ZFS'],
  ['5808c8aa-7e8f-42e0-85d2-e1e90434cfb3', 'Microsoft LDM metadata'],
  ['af9b60a0-1431-4f62-bc68-3311714a69ad', 'Microsoft LDM data'],
  ['fe3a2a5d-4f32-41a7-b725-accc3285a309', 'ChromeOS kernel'],
  ['3cb8e202-3b7e-47dd-8a3c-7ff2a13cfcec', 'ChromeOS root'],
  ['0x01', 'FAT12'],
  ['0x04', 'FAT16 up to 32 MiB'],
  ['0x05', 'extended'],
  ['0x06', 'FAT16'],
  ['0x07', 'NTFS or exFAT'],
  ['0x0b', 'FAT32'],
  ['0x0c', 'FAT32 (LBA)'],
  ['0x0e', 'FAT16 (LBA)'],
  ['0x0f', 'extended (LBA)'],
  ['0x27', 'Windows recovery'],
  ['0x41', 'PowerPC PReP boot'],
  ['0x82', 'Linux swap'],
  ['0x83', 'Linux data'],
  ['0x85', 'Linux extended'],
  ['0x8e', 'Linux LVM'],
  ['0xa5', 'FreeBSD'],
  ['0xa8', 'Apple UFS'],
  ['0xab', 'Apple boot'],
  ['0xaf', 'Apple HFS+'],
  ['0xda', 'data without a file system'],
  ['0xe8', 'LUKS'],
  ['0xee', 'protective'],
  ['0xef', 'EFI system'],
  ['0xfd', 'Linux RAID'],
]);

const exempt = new Set<string>([TYPE_GUIDS.bios, TYPE_GUIDS.msr, TYPE_GUIDS.prep, '0x05', '0x0f', '0x85', '0x41', '0xee']);

/** What a type is called; undefined where nobody told. `type` as in `Partition.type`. */
export function typeNameOf(type: string): string | undefined {
  return named.get(type);
}

/** Never holds a file system's data, so that its place does not matter (R5). */
export function exemptType(type: string): boolean {
  return exempt.has(type);
}

/** The containers of logical partitions in an MBR. */
export function isExtendedType(type: number): boolean {
  return type === 0x05 || type === 0x0f || type === 0x85;
}
