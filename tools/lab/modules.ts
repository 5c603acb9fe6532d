/**
 * Which kernel modules a machine needs, in the order in which insmod takes them, and which kernel to take. Pure.
 *
 * modules.dep has one line for each module: `path: dependency dependency …`, all of them, direct or not, the one that is needed first standing last.
 * modules.softdep has `softdep NAME pre: NAME… post: NAME…`: what is to be there first although no symbol asks for it (ext4 wants a crc32c).
 * insmod looks at neither, which is why this does.
 *
 * Guarantees: everything comes after what it depends on, and once; a name that no file has is an error that says so, unless the kernel has it built in.
 */

export interface ModuleTables {
  /** modules.dep, modules.softdep, modules.alias and modules.builtin of one kernel, as text. */
  dep: string;
  softdep: string;
  alias: string;
  builtin: string;
}

/** `kernel/fs/ext4/ext4.ko.xz` → `ext4`. The kernel takes `-` and `_` for the same letter. */
export function moduleName(path: string): string {
  return path
    .slice(path.lastIndexOf('/') + 1)
    .replace(/\.ko(\.\w+)?$/, '')
    .replaceAll('-', '_');
}

/** Files of `names` and of all that they need, in the order to load them. */
export function loadOrder(names: readonly string[], tables: ModuleTables): string[] {
  const files = new Map<string, { path: string; needs: string[] }>();
  for (const line of tables.dep.split('\n')) {
    const [path, needs] = line.split(':');
    if (needs === undefined) continue;
    files.set(moduleName(path), {
      path,
      needs: needs
        .split(' ')
        .filter((need) => need !== '')
        .map(moduleName),
    });
  }
  const wishes = new Map<string, string[]>();
  for (const line of tables.softdep.split('\n')) {
    const found = /^softdep (\S+)(?:.*?)\bpre: (.*?)(?: post:.*)?$/.exec(line);
    if (found !== null) wishes.set(found[1].replaceAll('-', '_'), found[2].split(' '));
  }
  const builtin = new Set(tables.builtin.split('\n').map(moduleName));
  const order: string[] = [];
  const seen = new Set<string>();

  function add(name: string, wished: boolean): void {
    if (seen.has(name)) return;
    seen.add(name);
    const file = files.get(name);
    if (file === undefined) {
      if (builtin.has(name) || wished) return;
      throw new Error(`this kernel has no module '${name}'`);
    }
    for (const wish of wishes.get(name) ?? []) for (const meant of named(wish)) add(meant, true);
    for (const need of file.needs.toReversed()) add(need, false);
    order.push(file.path);
  }

  /** A soft dependency may name an alias (`crypto-crc32c`), behind which several modules stand: the plainest is enough, and the first in the table. */
  function named(wish: string): string[] {
    const name = wish.replaceAll('-', '_');
    if (files.has(name) || builtin.has(name)) return [name];
    const candidates = tables.alias
      .split('\n')
      .map((line) => /^alias (\S+) (\S+)$/.exec(line))
      .filter((found) => found?.[1] === wish)
      .map((found) => found![2]);
    return (candidates.find((candidate) => candidate.endsWith('_generic')) ?? candidates[0]) === undefined
      ? []
      : [candidates.find((candidate) => candidate.endsWith('_generic')) ?? candidates[0]];
  }

  for (const name of names) add(name.replaceAll('-', '_'), false);
  return order;
}

/** Of the packages that apt knows, the newest stock kernel for PCs, of the series 6.12 if there is one. */
export function newestKernel(packages: readonly string[]): string | undefined {
  const kernels = packages
    .map((name) => /^linux-image-(\d[\d.]*)((?:-\d+)?(?:\+[\w.~]+)?)-amd64$/.exec(name))
    .filter((found) => found !== null)
    // `linux-image-6.12-amd64` is a meta-package: nothing to unpack in it.
    .filter((found) => found[2] !== '' || found[1].split('.').length > 2)
    .map((found) => ({ name: found[0], version: `${found[1]}.${found[2].match(/\d+/)?.[0] ?? 0}`.split('.').map(Number) }));
  const preferred = kernels.filter(({ version }) => version[0] === 6 && version[1] === 12);
  return (preferred.length > 0 ? preferred : kernels).sort((a, b) => compareVersions(b.version, a.version))[0]?.name;
}

function compareVersions(a: readonly number[], b: readonly number[]): number {
  for (let index = 0; index < Math.max(a.length, b.length); index++) {
    const difference = (a[index] ?? 0) - (b[index] ?? 0);
    if (difference !== 0) return difference;
  }
  return 0;
}
