/**
 * Folders that are written: the one form that output takes, whether it goes to
 * this machine or to an object store.
 * @module
 */
import type { Folder } from "./source.ts";

/** What was written. */
export interface WrittenFile {
  /** Length in bytes. */
  readonly bytes: number;
  /** SHA-256, hexadecimal. */
  readonly sha256: string;
}

/** A folder that can be written: of this machine, or of an object store. */
export interface Store extends Folder {
  /**
   * Writes a file whole or not at all; its hash is taken while it is written.
   * @throws {Error} If it cannot be written, or the content fails: then the old file, if any, is as it was.
   */
  write(
    file: string,
    content:
      | Uint8Array
      | string
      | Iterable<Uint8Array>
      | AsyncIterable<Uint8Array>,
  ): Promise<WrittenFile>;
  /** Removes a file; nothing happens where there is none. */
  remove(file: string): Promise<void>;
  /**
   * Takes `name` for this process until it is disposed of.
   * @throws {Error} If another process has it: names folder, process and host.
   */
  lock(name: string): Promise<AsyncDisposable>;
}
