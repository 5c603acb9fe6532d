/**
 * Which sectors (of 512 bytes) of a disk with faults are bad. Known to the host, which injects the errors, and to the guest, which runs into them.
 */
export const badRead: readonly number[] = [8 * 300 + 3, 8 * 320, 8 * 321 + 7];
export const badWrite = 8 * 600 + 5;
/** Of the disk's content. */
export const seed = 3;
export const bytes = 16 << 20;

/** QEMU's blkdebug: an error on each of them, for ever. */
export const blkdebug = {
  driver: 'blkdebug',
  'inject-error': [
    ...badRead.map((sector) => ({ event: 'none', iotype: 'read', errno: 5, sector, once: false, immediately: true })),
    { event: 'none', iotype: 'write', errno: 5, sector: badWrite, once: false, immediately: true },
  ],
};
