/**
 * Files that grow while a run goes on.
 * @module
 */
import { fileError } from "../core/files.ts";

/** A file that is only added to, at once, so that a killed run has what it logged. */
export class AppendFile implements Disposable {
  readonly #path: string;
  readonly #file: Deno.FsFile;
  #isClosed = false;

  /**
   * @param options What to do with the file: `append` goes on with it, `createNew` refuses one that is there.
   * @throws {Error} If it cannot be opened.
   */
  constructor(path: string, options: { append?: true; createNew?: true }) {
    this.#path = path;
    try {
      this.#file = Deno.openSync(path, { write: true, ...options });
    } catch (cause) {
      // Callers look for another name where this one is taken.
      if (cause instanceof Deno.errors.AlreadyExists) throw cause;
      throw fileError("write", path, cause);
    }
  }

  /**
   * Adds bytes, all of them.
   * @throws {Error} If they cannot be written, as on a full disk.
   */
  write(bytes: Uint8Array): void {
    try {
      for (let written = 0; written < bytes.length;) {
        written += this.#file.writeSync(bytes.subarray(written));
      }
    } catch (cause) {
      throw fileError("write", this.#path, cause);
    }
  }

  /** Closes the file; again does nothing. */
  [Symbol.dispose](): void {
    if (!this.#isClosed) this.#file.close();
    this.#isClosed = true;
  }
}
