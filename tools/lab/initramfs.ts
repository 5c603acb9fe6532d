/**
 * The guest's first file system: busybox, the modules that bring the disks and the host's root, and a script that changes over to it.
 *
 *   /bin/busybox   /modules/NN-name.ko   /init
 *
 * The host's root is shared read-only over 9p and becomes the guest's: the same node, the same libraries, the checkout's own dist/. What is written goes to /dev/shm, so
 * that /tmp stays the host's and the checkout may lie there. Module files are unpacked here: under emulation that takes the guest seconds.
 *
 * Measured (one scenario's node, emulated): 9p with cache=loose starts node in 0.5 s once it has been read, cache=mmap in 5 s, cache=none in 13 s. Nobody changes the share
 * meanwhile, so loose is also right.
 */
import { execFileSync } from 'node:child_process';
import { chmodSync, copyFileSync, mkdirSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { loadOrder } from './modules.js';
import { type Kernel, searchPath } from './preparation.js';

/** What every machine starts with. Others are loaded from the share by `modprobe -d` when a scenario asks for them. */
const modules = ['9p', '9pnet_virtio', 'nvme', 'ahci', 'sd_mod', 'ext4'];

/** nvme_core.io_timeout and friends are parameters of modules, which insmod takes from no command line but its own. */
const moduleOptions: Readonly<Record<string, string>> = {
  // Seconds without an answer after which the driver gives a controller up; its own default is 30.
  nvme_core: 'io_timeout=3 admin_timeout=3',
};

function initScript(checkout: string, node: string, kernelRoot: string, loads: readonly string[]): string {
  const quote = (text: string): string => `'${text.replaceAll("'", `'\\''`)}'`;
  return `#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
${loads.join('\n')}
mount -t 9p -o trans=virtio,version=9p2000.L,ro,msize=512000,cache=loose host /host || echo 'lab: the share of the host cannot be mounted'
mount --bind /proc /host/proc
mount --bind /sys /host/sys
mount --bind /dev /host/dev
mkdir -p /host/dev/shm /host/dev/pts
mount -t tmpfs tmpfs /host/dev/shm
mount -t devpts devpts /host/dev/pts
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/dev/shm TMPDIR=/dev/shm
export LAB_CHECKOUT=${quote(checkout)} LAB_NODE=${quote(node)} LAB_KERNEL=${quote(kernelRoot)}
ifconfig lo 127.0.0.1 up 2>/dev/null
case " $(cat /proc/cmdline) " in
*' lab.shell '*)
  echo "The lab's guest: $(uname -r). The checkout is $LAB_CHECKOUT (read-only); write below /dev/shm. 'exit' switches the machine off."
  echo "Modules: modprobe -d \\$LAB_KERNEL NAME. Removal: echo 1 > /sys/bus/pci/devices/…/remove"
  setsid cttyhack chroot /host /bin/sh -c 'cd "$LAB_CHECKOUT"; PS1="lab# " exec /bin/sh -i'
  ;;
*)
  chroot /host "$LAB_NODE" "$LAB_CHECKOUT/dist/tools/lab/guest/agent.js"
  echo "lab: the agent ended with $?"
  ;;
esac
poweroff -f
`;
}

/** Writes `folder/initramfs`; its path. */
export function makeInitramfs(folder: string, checkout: string, kernel: Kernel): string {
  const root = join(folder, 'initramfs-root');
  for (const made of ['bin', 'proc', 'sys', 'dev', 'host', 'modules']) mkdirSync(join(root, made), { recursive: true });
  copyFileSync('/bin/busybox', join(root, 'bin/busybox'));
  const loads: string[] = [];
  for (const path of loadOrder(modules, kernel.tables)) {
    const file = path.slice(path.lastIndexOf('/') + 1);
    copyFileSync(join(kernel.modules, path), join(root, 'modules', file));
    const name = file.replace(/\.ko.*$/, '');
    loads.push(`insmod /modules/${name}.ko ${moduleOptions[name.replaceAll('-', '_')] ?? ''}`.trim());
  }
  const packed = readdirSync(join(root, 'modules')).filter((file) => file.endsWith('.xz'));
  if (packed.length > 0) execFileSync('xz', ['-d', ...packed], { cwd: join(root, 'modules'), env: { ...process.env, PATH: searchPath } });
  writeFileSync(join(root, 'init'), initScript(checkout, process.execPath, kernel.root, loads));
  chmodSync(join(root, 'init'), 0o755);
  const names = execFileSync('find', ['.'], { cwd: root });
  const archive = execFileSync('cpio', ['-o', '-H', 'newc', '-R', '0:0', '--quiet'], {
    cwd: root,
    input: names,
    maxBuffer: 1 << 28,
    env: { ...process.env, PATH: searchPath },
  });
  const path = join(folder, 'initramfs');
  writeFileSync(path, archive);
  rmSync(root, { recursive: true });
  return path;
}
