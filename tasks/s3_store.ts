/**
 * Folders of an object store that are written: small files in one request, long ones in parts,
 * so that memory is bounded. An object appears when all of it is there.
 * @module
 */
import { createHash } from "node:crypto";
import type { S3Address, S3Client } from "../core/s3_client.ts";
import { s3Folder } from "../core/s3_folder.ts";
import { checkFileName } from "../core/source.ts";
import type { Store, WrittenFile } from "../core/store.ts";
import { lockS3 } from "./s3_lock.ts";
import { putObject, S3Upload } from "./s3_upload.ts";

/** What a store of objects can be given. */
export interface S3StoreOptions {
  /** Length of parts; 5 MiB at least, but for the last one, at most servers. */
  readonly partBytes?: number;
  /** Called once where a lock has to be watched, to see whether its process still lives. */
  readonly onWait?: (owner: string) => void;
}

/** At most 10,000 of them make a file. */
const PART_BYTES = 8 * 2 ** 20;

/**
 * A folder of an object store. Locks are objects that their process renews: see `lockS3`.
 * @throws {Error} From its methods: in one line, with the object and what to do.
 */
export function s3Store(
  client: S3Client,
  address: Pick<S3Address, "prefix">,
  { partBytes = PART_BYTES, onWait = () => {} }: S3StoreOptions = {},
): Store {
  const folder = s3Folder(client, address);
  const { name } = folder;
  const { prefix } = address;
  /** Why nothing may be written any more. */
  let lost: Error | undefined;
  const keyOf = (file: string): string => {
    checkFileName(name, file);
    return prefix === "" ? file : `${prefix}/${file}`;
  };
  return {
    ...folder,
    async write(file, content): Promise<WrittenFile> {
      const key = keyOf(file);
      if (lost) throw lost;
      return await writeObject(client, key, content, partBytes);
    },
    async remove(file): Promise<void> {
      const key = keyOf(file);
      if (lost) throw lost;
      await removeObject(client, key);
    },
    lock: async (lock) =>
      await lockS3(client, keyOf(`.${lock}.lock`), {
        folder: name,
        onWait,
        onLost(error): void {
          lost ??= error;
        },
      }),
  };
}

/** Removes an object; nothing happens where there is none. */
async function removeObject(
  client: S3Client,
  key: string,
): Promise<void> {
  await client.send(
    { verb: "remove", method: "DELETE", key, answers: [404] },
    () => Promise.resolve(),
  );
}

async function writeObject(
  client: S3Client,
  key: string,
  content: Parameters<Store["write"]>[1],
  partBytes: number,
): Promise<WrittenFile> {
  const hasher = createHash("sha256");
  let bytes = 0;
  const parts = partsOf(content, partBytes);
  const next = async (): Promise<Uint8Array<ArrayBuffer> | undefined> => {
    const { value } = await parts.next();
    if (!value) return undefined;
    hasher.update(value);
    bytes += value.length;
    return value;
  };
  const first = await next() ?? new Uint8Array();
  const second = await next();
  if (!second) {
    await putObject(client, { verb: "write", method: "PUT", key, body: first });
  } else {
    await using upload = await S3Upload.start(client, key);
    await upload.add(first);
    for (let part: typeof second | undefined = second; part;) {
      await upload.add(part);
      part = await next();
    }
    await upload.complete();
  }
  return { bytes, sha256: hasher.digest("hex") };
}

/** The content in arrays of one length, each its own; the last one may be shorter. */
async function* partsOf(
  content: Parameters<Store["write"]>[1],
  partBytes: number,
): AsyncGenerator<Uint8Array<ArrayBuffer>, undefined> {
  const chunks = typeof content === "string"
    ? [new TextEncoder().encode(content)]
    : content instanceof Uint8Array
    ? [content]
    : content;
  let part = new Uint8Array(0);
  let filled = 0;
  for await (const chunk of chunks) {
    for (let at = 0; at < chunk.length;) {
      if (filled === part.length) {
        if (filled > 0) yield part;
        part = new Uint8Array(partBytes);
        filled = 0;
      }
      const piece = chunk.subarray(at, at + part.length - filled);
      part.set(piece, filled);
      filled += piece.length;
      at += piece.length;
    }
  }
  if (filled > 0) yield part.subarray(0, filled);
}
