/**
 * A folder in memory that can be written.
 * @module
 */
import { createHash } from "node:crypto";
import { memoryFolder } from "../../core/source.ts";
import type { Store } from "../../core/store.ts";

/** What tests see and disturb of a {@link memoryStore}. */
export interface MemoryStoreOptions {
  /** Called before a file is written; what it throws is what the write throws. */
  readonly beforeWrite?: (file: string) => void;
}

/** A store over files, which it writes to. */
export function memoryStore(
  files: Record<string, Uint8Array>,
  { beforeWrite }: MemoryStoreOptions = {},
): Store {
  const locks = new Set<string>();
  const folder = () => memoryFolder("residuals", files);
  return {
    name: "residuals",
    has: (file) => folder().has(file),
    open: (file) => folder().open(file),
    list: () => folder().list(),
    async write(file, content) {
      beforeWrite?.(file);
      const chunks: Uint8Array[] = [];
      const parts = typeof content === "string"
        ? [new TextEncoder().encode(content)]
        : content instanceof Uint8Array
        ? [content]
        : content;
      for await (const part of parts) chunks.push(part.slice());
      const bytes = new Uint8Array(
        await new Blob(chunks as BlobPart[]).bytes(),
      );
      files[file] = bytes;
      const sha256 = createHash("sha256").update(bytes).digest("hex");
      return { bytes: bytes.length, sha256 };
    },
    remove(file) {
      delete files[file];
      return Promise.resolve();
    },
    lock(name) {
      if (locks.has(name)) {
        return Promise.reject(new Error(`Cannot lock "${name}": taken`));
      }
      locks.add(name);
      return Promise.resolve({
        [Symbol.asyncDispose](): Promise<void> {
          locks.delete(name);
          return Promise.resolve();
        },
      });
    },
  };
}
