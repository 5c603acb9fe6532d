/** A program that uses files by node:fs alone, where a call may hang or fail: its process can be killed, the test's must not be. */
import { closeSync, fstatSync, type OpenMode, openSync, promises, readdirSync, readSync, statfsSync, writeSync } from 'node:fs';
import { answerQuestions } from './answers.js';

let fd = -1;

/** The code of the error, where there is one. */
const codeOf = (act: () => unknown): unknown => {
  try {
    return act();
  } catch (error) {
    return (error as NodeJS.ErrnoException).code;
  }
};

answerQuestions({
  open(path: string, flags: OpenMode) {
    fd = openSync(path, flags);
    return fstatSync(fd).size;
  },
  size: () => codeOf(() => fstatSync(fd).size),
  list: (path: string) => readdirSync(path).sort(),
  room: (path: string) => statfsSync(path).bsize,
  read(offset: number, length: number) {
    return codeOf(() => {
      const target = new Uint8Array(length);
      return target.subarray(0, readSync(fd, target, 0, length, offset));
    });
  },
  /** In Node's pool; answers meanwhile. */
  async readLater(path: string, offset: number, length: number) {
    let file: promises.FileHandle | undefined;
    try {
      file = await promises.open(path);
      const { buffer, bytesRead } = await file.read(new Uint8Array(length), 0, length, offset);
      return buffer.subarray(0, bytesRead);
    } catch (error) {
      return (error as NodeJS.ErrnoException).code;
    } finally {
      await file?.close().catch(() => {});
    }
  },
  write: (bytes: Uint8Array, offset: number) => codeOf(() => writeSync(fd, bytes, 0, bytes.length, offset)),
  close: () => codeOf(() => closeSync(fd)),
});
