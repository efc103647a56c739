/**
 * Where a folder is, in a form that can be sent to a worker.
 * @module
 */
import { directory } from "../core/files.ts";
import { type S3Address, S3Client } from "../core/s3_client.ts";
import { s3Folder } from "../core/s3_folder.ts";
import type { Folder } from "../core/source.ts";

/** A path of this machine, or a folder of an object store and the right to it. */
export type FolderAddress = string | S3Address;

/**
 * Opens a folder for reading.
 * @throws {Error} If a path leads to no folder; an object store tells it when it is read.
 */
export function openFolderAt(address: FolderAddress): Folder {
  return typeof address === "string"
    ? directory(address)
    : s3Folder(new S3Client(address), address);
}
