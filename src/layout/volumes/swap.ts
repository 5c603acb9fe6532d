/**
 * Swap, by the signature at the end of its first page. The page is that of the machine that made it, so all usual ones are tried.
 *
 * Guarantees: either byte order; what a hibernated machine left is told (`details.suspended`), with its signature.
 */
import { beyond, holds, type Recognised, text, uuid, type VolumeView } from './view.js';

const PAGES = [4096, 8192, 16384, 32768, 65536];
const SIGNATURE_BYTES = 10;
const SIGNATURES = ['SWAPSPACE2', 'SWAP-SPACE', 'S1SUSPEND', 'S2SUSPEND', 'ULSUSPEND', 'LINHIB0001'];
/** The header begins here (`union swap_header`, linux/swap.h): version, last page, bad pages, UUID, label. */
const HEADER = 1024n;
const HEADER_BYTES = 44;

export function recogniseSwap(view: VolumeView): Recognised | null {
  for (const page of PAGES) {
    const end = view.data(BigInt(page - SIGNATURE_BYTES), SIGNATURE_BYTES);
    if (end === undefined) return null;
    const signature = SIGNATURES.find((name) => holds(end, 0, name));
    if (signature === undefined) continue;
    const found = recogniseHeader(view, page, signature);
    if (found !== null) return found;
  }
  return null;
}

function recogniseHeader(view: VolumeView, page: number, signature: string): Recognised | null {
  const common = { kind: 'swap', dataOffset: BigInt(page), unit: page } as const;
  // The first format was a map of usable pages, without a header.
  if (signature === 'SWAP-SPACE') return { ...common, details: { pageSize: page, version: 0 } };
  const header = view.data(HEADER, HEADER_BYTES);
  if (header === undefined) return null;
  const little = header.getUint32(0, true) === 1;
  if (!little && header.getUint32(0) !== 1) return null;
  const lastPage = header.getUint32(4, little);
  if (lastPage === 0) return null;
  const size = (BigInt(lastPage) + 1n) * BigInt(page);
  return {
    ...common,
    size,
    label: text(header, 28, 16),
    uuid: uuid(header, 12),
    damaged: beyond(view, size),
    details: {
      pageSize: page,
      version: 1,
      lastPage,
      badPages: header.getUint32(8, little),
      ...(little ? {} : { byteOrder: 'big-endian' }),
      ...(signature === 'SWAPSPACE2' ? {} : { suspended: signature }),
    },
  };
}
