/** The FUSE rig itself: that it does what the fault tests take for granted, and that nothing it does hangs who uses it. */
import { existsSync } from 'node:fs';
import { afterEach, describe, expect, it } from 'vitest';
import { note } from '../fixtures/places.js';
import { isMounted } from './failing-places.js';
import type { ServerOptions } from './fuse/behaviour.js';
import { FuseServer, noFuse } from './fuse-server.js';
import { intactBytes } from './pattern.js';
import { Program } from './program.js';

const SIZE = 1 << 20;
const servers: FuseServer[] = [];
const programs: Program[] = [];

afterEach(async () => {
  for (const server of servers.splice(0)) server.dispose();
  for (const program of programs.splice(0)) {
    program.kill();
    await program.ended;
  }
});

async function serve(options: Partial<ServerOptions> = {}): Promise<{ server: FuseServer; user: Program; path: string }> {
  const server = await FuseServer.start({ files: [{ name: 'file', size: SIZE, seed: 3 }], ...options });
  servers.push(server);
  return { server, user: await startUser(), path: server.path('file') };
}

async function startUser(): Promise<Program> {
  const user = await Program.start('test/rigs/file-user');
  programs.push(user);
  return user;
}

async function until(holds: () => Promise<boolean>): Promise<void> {
  for (let i = 0; i < 500; i++) {
    if (await holds()) return;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  throw new Error('did not happen within 10 s');
}

describe.skipIf(noFuse !== undefined)(`the FUSE rig${note(noFuse)}`, () => {
  it('serves a folder of files that can be listed, read and written', async () => {
    const { server, user, path } = await serve();
    expect(await user.ask('list', server.folder)).toEqual(['file']);
    expect(await user.ask('room', server.folder)).toBe(4096);
    expect(await user.ask('open', path, 'r+')).toBe(SIZE);
    for (const [offset, length] of [
      [0, 10],
      [4095, 8194],
      [SIZE - 100, 100],
    ]) {
      expect(intactBytes(await user.ask<Uint8Array>('read', offset, length), offset, 3)).toBe(length);
    }
    expect((await user.ask<Uint8Array>('read', SIZE - 10, 100)).length).toBe(10);
    expect(await user.ask('write', Buffer.from('hello'), 5000)).toBe(5);
    expect(Buffer.from(await server.content('file', 5000, 5)).toString()).toBe('hello');
    expect(Buffer.from(await user.ask<Uint8Array>('read', 5000, 5)).toString()).toBe('hello');
    expect(await user.ask('write', Buffer.from('end'), SIZE)).toBe(3);
    expect(await user.ask('size')).toBe(SIZE + 3);
    expect(await user.ask('close')).toBeUndefined();
  });

  it('keeps pages when it is told to, and drops them when it is told to', async () => {
    const { server, user, path } = await serve();
    await user.ask('open', path, 'r');
    await user.ask('read', 0, 8192);
    const { reads } = await server.counts();
    expect(reads).toBeGreaterThan(0);
    await user.ask('close');
    await user.ask('open', path, 'r');
    await user.ask('read', 0, 8192);
    expect((await server.counts()).reads).toBe(reads);
    await server.forget('file', 4096, 4096);
    expect(intactBytes(await user.ask<Uint8Array>('read', 0, 8192), 0, 3)).toBe(8192);
    expect((await server.counts()).reads).toBe(reads + 1);
  });

  it('has every read come to the server with direct I/O', async () => {
    const { server, user, path } = await serve({ directIo: true });
    await user.ask('open', path, 'r');
    for (let i = 1; i <= 3; i++) {
      expect(intactBytes(await user.ask<Uint8Array>('read', 100, 50), 100, 3)).toBe(50);
      expect(await server.counts()).toMatchObject({ reads: i, readBytes: 50 * i });
    }
  });

  it('fails reads of chosen pages, and only those, until it is told otherwise', async () => {
    const { server, user, path } = await serve();
    await user.ask('open', path, 'r');
    await server.behave({ failPages: [10] });
    expect(await user.ask('read', 10 * 4096 + 100, 10)).toBe('EIO');
    expect(intactBytes(await user.ask<Uint8Array>('read', 9 * 4096, 4096), 9 * 4096, 3)).toBe(4096);
    expect(intactBytes(await user.ask<Uint8Array>('read', 11 * 4096, 4096), 11 * 4096, 3)).toBe(4096);
    await server.behave({});
    expect(intactBytes(await user.ask<Uint8Array>('read', 9 * 4096, 3 * 4096), 9 * 4096, 3)).toBe(3 * 4096);
  });

  it('delays reads without keeping others waiting', async () => {
    const { server, user, path } = await serve();
    await user.ask('open', path, 'r');
    await user.ask('read', 0, 4096);
    await server.behave({ delayMs: 300 });
    const late = user.ask<Uint8Array>('readLater', path, 8192, 4096);
    await until(async () => (await server.counts()).waiting > 0);
    // Resident, so it asks nobody but for attributes, which are not late.
    expect((await user.ask<Uint8Array>('read', 0, 4096)).length).toBe(4096);
    expect(intactBytes(await late, 8192, 3)).toBe(4096);
  });

  it('hangs until it is released', async () => {
    const { server, user, path } = await serve();
    await server.behave({ hang: 'reads' });
    const hung = user.ask<Uint8Array>('readLater', path, 0, 4096);
    await until(async () => (await server.counts()).waiting > 0);
    expect(await Promise.race([hung, new Promise((resolve) => setTimeout(resolve, 100, 'still'))])).toBe('still');
    await server.behave({});
    expect(intactBytes(await hung, 0, 3)).toBe(4096);
  });

  it('can hang with everything, and lets go of who is killed while it waits', async () => {
    const { server, user, path } = await serve();
    await server.behave({ hang: 'all' });
    const opening = user.ask('open', path, 'r').catch((error) => error);
    await until(async () => (await server.counts()).waiting > 0);
    user.kill();
    expect((await user.ended).signal).toBe('SIGKILL');
    await opening;
    expect((await server.counts()).interrupts).toBeGreaterThan(0);
  });

  it('changes the size of a file behind the kernel, which learns of it when it asks', async () => {
    const { server, user, path } = await serve();
    await user.ask('open', path, 'r');
    await server.resize('file', 5000);
    expect(await user.ask('size')).toBe(5000);
    expect((await user.ask<Uint8Array>('read', 4096, 4096)).length).toBe(904);
    await server.resize('file', 2 * SIZE);
    expect(await user.ask('size')).toBe(2 * SIZE);
    expect(intactBytes(await user.ask<Uint8Array>('read', SIZE, 4096), SIZE, 3)).toBe(4096);
  });

  it('is believed about attributes for as long as it says', async () => {
    const { server, user, path } = await serve({ validMs: 1_000_000 });
    await user.ask('open', path, 'r');
    await server.resize('file', 5000);
    expect(await user.ask('size')).toBe(SIZE);
    // Its own notice takes that back.
    await server.forget('file', 0, 0);
    expect(await user.ask('size')).toBe(5000);
  });

  it('aborts: who waits and who asks get errors, and the mount can be taken down', async () => {
    const { server, user, path } = await serve();
    await user.ask('open', path, 'r');
    await server.behave({ hang: 'reads' });
    const hung = user.ask('readLater', path, 0, 4096);
    await until(async () => (await server.counts()).waiting > 0);
    server.abort();
    expect(['ECONNABORTED', 'ENOTCONN', 'EIO']).toContain(await hung);
    expect(await user.ask('read', 8192, 10)).toBe('ENOTCONN');
    expect(() => server.unmount()).toThrow(/busy/);
    // What close asks of the server fails as well; the descriptor is given back all the same.
    expect(await user.ask('close')).toBe('ENOTCONN');
    server.unmount();
    expect(isMounted(server.folder)).toBe(false);
  });

  it('is gone after dispose, also while it hangs and is in use', async () => {
    const { server, user, path } = await serve();
    await user.ask('open', path, 'r');
    await server.behave({ hang: 'all' });
    const hung = user.ask('readLater', path, 0, 4096);
    await until(async () => (await server.counts()).waiting > 0);
    server.dispose();
    expect(await hung).toMatch(/^E[A-Z]+$/);
    expect(isMounted(server.folder)).toBe(false);
    expect(existsSync(server.folder)).toBe(false);
  });
});

describe.skipIf(noFuse !== undefined)(`a FUSE server that is killed${note(noFuse)}`, () => {
  it('leaves no mount behind', async () => {
    const { server, user, path } = await serve();
    await user.ask('open', path, 'r');
    server.kill();
    await until(async () => !isMounted(server.folder));
    expect(await user.ask('read', 0, 10)).toBe('ENOTCONN');
  });
});

describe('a program of a rig', () => {
  it('that dies rejects what was asked of it, with what it printed', async () => {
    const user = await startUser();
    await expect(user.ask('list', '/nowhere')).rejects.toThrow(/ENOENT/);
    const dying = user.ask('readLater', '/nowhere', 0, 1);
    user.kill();
    await expect(Promise.all([dying, user.ask('size')])).rejects.toThrow(/signal SIGKILL/);
    expect(await user.ended).toMatchObject({ code: null, signal: 'SIGKILL' });
    await expect(user.ask('size')).rejects.toThrow(/ended/);
  });
});
