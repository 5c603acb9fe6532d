/**
 * How the disks that are pulled are laid out: what the host writes and the guest expects.
 *
 *   0        1 MiB                    40 MiB              104 MiB   112 MiB
 *   | MBR    | partition 1: content   | partition 2: ext4 | nothing |
 *                                        `windows`: content
 */
const MEBIBYTE = 1 << 20;

export const diskBytes = 112 * MEBIBYTE;
export const raw = { start: MEBIBYTE, bytes: 32 * MEBIBYTE, seed: 1 };
export const fileSystem = { start: 40 * MEBIBYTE, bytes: 64 * MEBIBYTE, file: 'windows', fileBytes: 8 * MEBIBYTE, seed: 2 };
