/**
 * The Debian tools that make and inspect images: where they are, and why a test that needs them cannot be had here.
 *
 * Guarantees: also finds what lies in sbin, which is not in the PATH of an unprivileged user.
 */
import { accessSync, constants } from 'node:fs';
import { delimiter, join } from 'node:path';

const folders = [...new Set([...(process.env.PATH ?? '').split(delimiter), '/usr/local/sbin', '/usr/sbin', '/sbin', '/usr/bin', '/bin'])].filter(
  (folder) => folder !== '',
);

/** The path of a tool, undefined where it is not installed. */
export function tool(name: string): string | undefined {
  for (const folder of folders) {
    const path = join(folder, name);
    try {
      accessSync(path, constants.X_OK);
      return path;
    } catch {
      // Not in this one.
    }
  }
  return undefined;
}

/** Why a test that needs these tools is skipped: `needs mkfs.fat, mcopy`; undefined where all are there. */
export function without(...names: string[]): string | undefined {
  const missing = names.filter((name) => tool(name) === undefined);
  return missing.length === 0 ? undefined : `needs ${missing.join(', ')}`;
}
