/**
 * Where a typed folder is: on this machine, or in an object store, as `s3://bucket/folder`.
 * @module
 */
import { basename, dirname, resolve } from "node:path";
import { directory } from "../core/files.ts";
import { type S3Address, S3Client } from "../core/s3_client.ts";
import { openS3File, s3Folder } from "../core/s3_folder.ts";
import { checkFileName, type Folder, type Source } from "../core/source.ts";
import type { Store } from "../core/store.ts";
import { type FolderAddress, openFolderAt } from "../train/folder_address.ts";
import { isFolder } from "./hub_folder.ts";
import { localStore } from "./local_store.ts";
import { s3Store } from "./s3_store.ts";

/** Whether what was typed is in an object store. */
export function isRemote(typed: string): boolean {
  return typed.startsWith("s3://");
}

/**
 * A path as a person typed it: relative to the folder where they typed it.
 * @throws {TypeError} If it is in an object store: then nothing but {@link openPath}, {@link openFolder} and {@link openStore} takes it.
 */
export function userPath(path: string): string {
  if (!isRemote(path)) return resolve(Deno.env.get("INIT_CWD") ?? ".", path);
  throw new TypeError(
    `Cannot use "${path}" here: expected a path of this machine: got one of an object store: copy it here, or name another`,
  );
}

/**
 * Opens a typed folder for writing.
 * @param note Says where something is waited for.
 * @throws {Error} If it is a file, or credentials are missing.
 */
export async function openStore(
  typed: string,
  note: (text: string) => void = () => {},
): Promise<Store> {
  if (!isRemote(typed)) return await localStore(userPath(typed));
  const address = s3Address(typed);
  const onWait = (owner: string): void =>
    note(`${typed}: locked by ${owner}: seeing whether it lives, for a minute`);
  return s3Store(new S3Client(address), address, { onWait });
}

/**
 * Opens a typed folder for reading.
 * @throws {Error} If there is none, it is a file, or credentials are missing.
 */
export function openFolder(typed: string): Folder {
  return openFolderAt(folderAddress(typed));
}

/**
 * Where a typed folder is.
 * @throws {Error} If credentials are missing.
 */
export function folderAddress(typed: string): FolderAddress {
  return isRemote(typed) ? s3Address(typed) : userPath(typed);
}

/**
 * Opens what was typed as the file or folder it is.
 * @throws {Error} If there is neither, or credentials are missing.
 */
export async function openPath(typed: string): Promise<Source | Folder> {
  if (isRemote(typed)) return await openObjects(typed);
  const path = userPath(typed);
  return isFolder(path)
    ? directory(path)
    : await directory(dirname(path)).open(basename(path));
}

async function openObjects(typed: string): Promise<Source | Folder> {
  const address = s3Address(typed);
  const client = new S3Client(address);
  const file = address.prefix !== "" &&
    await openS3File(client, address.prefix);
  if (file) return file;
  const folder = s3Folder(client, address);
  if ((await folder.list()).length > 0) return folder;
  throw new Error(
    `Cannot open "${folder.name}": expected a file or a folder with files: got neither: check its name`,
  );
}

/**
 * Address and credentials of a folder that was typed as `s3://bucket/folder`; the latter are taken
 * from the variables that programs of AWS take them from.
 * @throws {TypeError} If it is no such address.
 * @throws {Error} If a variable is missing, or may not be read.
 */
export function s3Address(
  typed: string,
  env: (name: string) => string | undefined = permittedEnv,
): S3Address {
  const [, bucket, rest = ""] =
    /^s3:\/\/([a-z0-9][a-z0-9._-]{1,62})(?:\/(.*))?$/i.exec(typed) ?? [];
  if (bucket === undefined) {
    throw new TypeError(
      `Cannot open ${
        JSON.stringify(typed)
      }: expected s3://BUCKET/FOLDER, such as s3://data/run1`,
    );
  }
  const prefix = rest.replace(/\/+$/, "");
  if (prefix !== "") checkFileName(`s3://${bucket}`, prefix);
  const get = (...names: string[]): string | undefined =>
    names.map(env).find((value) => value !== undefined && value !== "");
  const needed = (name: string): string => {
    const value = get(name);
    if (value !== undefined) return value;
    throw new Error(
      `Cannot open "${typed}": expected credentials in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY: got no ${name}: set both, and AWS_ENDPOINT_URL for another server than that of AWS`,
    );
  };
  const region = get("AWS_REGION", "AWS_DEFAULT_REGION") ?? "us-east-1";
  const sessionToken = get("AWS_SESSION_TOKEN");
  const endpoint = get("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL") ??
    `https://s3.${region}.amazonaws.com`;
  if (!/^https?:$/.test(URL.parse(endpoint)?.protocol ?? "")) {
    throw new TypeError(
      `Cannot open "${typed}": expected AWS_ENDPOINT_URL to be a URL, such as http://localhost:9000: got ${
        JSON.stringify(endpoint)
      }`,
    );
  }
  return {
    bucket,
    prefix,
    endpoint,
    region,
    accessKeyId: needed("AWS_ACCESS_KEY_ID"),
    secretAccessKey: needed("AWS_SECRET_ACCESS_KEY"),
    ...(sessionToken !== undefined && { sessionToken }),
  };
}

/** A variable; without asking, where a task has no permission for it. */
function permittedEnv(variable: string): string | undefined {
  const { state } = Deno.permissions.querySync({ name: "env", variable });
  if (state === "granted") return Deno.env.get(variable);
  throw new Error(
    `Cannot read ${variable}: not permitted: run with --allow-env=${variable}, or with a task that opens s3://`,
  );
}
