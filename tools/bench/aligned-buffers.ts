/** Page-aligned memory for node:fs with O_DIRECT, which asks for it and Buffer does not give it. */
import { loadPeers } from './peer-packages.js';

/** The part of the standard WebAssembly object that is used here; @types/node 20 leaves it to the browser's types. */
declare const WebAssembly: { Memory: new (limits: { initial: number }) => { readonly buffer: ArrayBuffer } };

/** Buffers of @ronomon/direct-io, or parts of the memory of a WebAssembly instance, which begins on a page. */
export function alignedBuffers(count: number, bytes: number, whose?: 'ronomon'): Uint8Array[] {
  if (whose === 'ronomon') {
    const { directIo, refusals } = loadPeers();
    if (!directIo) throw new Error(refusals['@ronomon/direct-io']);
    return Array.from({ length: count }, () => directIo.getAlignedBuffer(bytes, 4096));
  }
  const room = Math.max(4096, bytes);
  const memory = new WebAssembly.Memory({ initial: Math.ceil((count * room) / 65536) });
  return Array.from({ length: count }, (_, index) => new Uint8Array(memory.buffer, index * room, bytes));
}
