/** Bits of fe_flags (linux/fiemap.h): what an extent says of its own place. */
export const FIEMAP_EXTENT_LAST = 0x1;
export const FIEMAP_EXTENT_UNKNOWN = 0x2;
export const FIEMAP_EXTENT_DELALLOC = 0x4;
export const FIEMAP_EXTENT_ENCODED = 0x8;
export const FIEMAP_EXTENT_DATA_ENCRYPTED = 0x80;
export const FIEMAP_EXTENT_NOT_ALIGNED = 0x100;
export const FIEMAP_EXTENT_DATA_INLINE = 0x200;
export const FIEMAP_EXTENT_DATA_TAIL = 0x400;
export const FIEMAP_EXTENT_UNWRITTEN = 0x800;
/** Another file has these blocks too: fine to read, and nothing here writes past the file system. */
export const FIEMAP_EXTENT_SHARED = 0x2000;
/** With any of these fe_physical is not the place of the bytes. */
export const FIEMAP_NOT_IN_PLACE =
  FIEMAP_EXTENT_UNKNOWN |
  FIEMAP_EXTENT_DELALLOC |
  FIEMAP_EXTENT_ENCODED |
  FIEMAP_EXTENT_DATA_ENCRYPTED |
  FIEMAP_EXTENT_NOT_ALIGNED |
  FIEMAP_EXTENT_DATA_INLINE |
  FIEMAP_EXTENT_DATA_TAIL;
