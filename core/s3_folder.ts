/**
 * Folders of an object store that speaks S3, for reading: ranged reads that go on where they
 * were cut off, and never mix two versions of a file. Web APIs only.
 * @module
 */
import { RequestError } from "./retry.ts";
import { parseListPage, readXml } from "./s3_answer.ts";
import type { S3Address, S3Client } from "./s3_client.ts";
import {
  checkFileName,
  checkRange,
  type Folder,
  missingFile,
  type Source,
} from "./source.ts";

/** Pages of one listing, of at most 1000 names each; more are refused. */
const MAX_PAGES = 10_000;

/** A folder of an object store. It needs not be there: then it has no files. */
export function s3Folder(
  client: S3Client,
  { prefix }: Pick<S3Address, "prefix">,
): Folder {
  const name = client.nameOf(prefix);
  const keyOf = (file: string): string => {
    checkFileName(name, file);
    return prefix === "" ? file : `${prefix}/${file}`;
  };
  return {
    name,
    has: async (file) => await headS3(client, keyOf(file)) !== undefined,
    async open(file): Promise<Source> {
      const source = await openS3File(client, keyOf(file));
      if (source) return source;
      throw missingFile(name, file);
    },
    list: ({ deep = false } = {}) =>
      listFolder(client, prefix === "" ? "" : `${prefix}/`, deep),
  };
}

/**
 * Opens an object, which must stay as it is while it is read.
 * @returns undefined if there is none.
 */
export async function openS3File(
  client: S3Client,
  key: string,
): Promise<Source | undefined> {
  const head = await headS3(client, key);
  if (!head) return undefined;
  const { byteLength } = head;
  const name = client.nameOf(key);
  return {
    name,
    byteLength,
    isRemote: true,
    async read(start, end): Promise<Uint8Array<ArrayBuffer>> {
      checkRange(name, byteLength, start, end);
      const bytes = new Uint8Array(end - start);
      if (start < end) await readInto(bytes, start, client, key, head);
      return bytes;
    },
  };
}

/** What is known of an object. */
export interface S3Head {
  readonly byteLength: number;
  /** Another content has another; undefined where the server gives none. */
  readonly etag: string | undefined;
}

/** Asks for an object's length and version; undefined if there is no such object. */
export async function headS3(
  client: S3Client,
  key: string,
): Promise<S3Head | undefined> {
  const request = {
    verb: "read",
    method: "HEAD",
    key,
    answers: [404],
  } as const;
  return await client.send(request, ({ status, headers }) => {
    if (status === 404) return Promise.resolve(undefined);
    const length = headers.get("content-length") ?? "";
    if (!/^\d{1,15}$/.test(length)) {
      throw new RequestError(
        `expected the length of the file: got ${JSON.stringify(length)}`,
      );
    }
    const etag = headers.get("etag") ?? undefined;
    return Promise.resolve({ byteLength: Number(length), etag });
  });
}

/** Fills an array with the bytes from `start` on; an attempt goes on where the last one ended. */
async function readInto(
  bytes: Uint8Array,
  start: number,
  client: S3Client,
  key: string,
  head: S3Head,
): Promise<void> {
  const end = start + bytes.length;
  let filled = 0;
  await client.send({
    verb: "read",
    method: "GET",
    key,
    headers: () => ({
      range: `bytes=${start + filled}-${end - 1}`,
      ...(head.etag !== undefined && { "if-match": head.etag }),
    }),
    answers: [404, 412, 416],
  }, async (response, progress) => {
    checkAnswer(client.nameOf(key), response, start + filled, end, head);
    for await (const chunk of response.body ?? []) {
      if (filled + chunk.length > bytes.length) {
        throw new RequestError(
          "expected the bytes that were asked for: got more",
        );
      }
      bytes.set(chunk, filled);
      filled += chunk.length;
      progress(chunk.length);
    }
    if (filled === bytes.length) return;
    throw new RequestError(
      `the answer ended at byte ${start + filled} of ${end}: try again later`,
      { mayPass: true },
    );
  });
}

/** Checks that an answer is the range of the version that was opened. */
function checkAnswer(
  name: string,
  { status, headers }: Response,
  start: number,
  end: number,
  { etag, byteLength }: S3Head,
): void {
  const range = headers.get("content-range");
  const isOther = etag !== undefined && headers.get("etag") !== etag;
  const [, total] = /\/(\d+)$/.exec(range ?? "") ?? [];
  if (status !== 200 && (isOther || Number(total) !== byteLength)) {
    throw new RangeError(
      `Cannot read "${name}": expected the file as it was opened: got another: it was changed or removed meanwhile: run the same command again`,
    );
  }
  if (status === 206 && range === `bytes ${start}-${end - 1}/${total}`) return;
  throw new RequestError(
    `expected status 206 with bytes ${start}-${end - 1}: got ${status} with ${
      JSON.stringify(range)
    }`,
  );
}

/** Names of the objects whose keys begin so, without that; but for a deep listing those without a further slash. Sorted. */
async function listFolder(
  client: S3Client,
  prefix: string,
  deep: boolean,
): Promise<string[]> {
  const names = new Set<string>();
  const where = client.nameOf(prefix);
  let token: string | undefined;
  for (let page = 0; page < MAX_PAGES; page++) {
    const query = {
      "list-type": "2",
      "encoding-type": "url",
      ...(!deep && { delimiter: "/" }),
      prefix,
      ...(token !== undefined && { "continuation-token": token }),
    };
    const { keys, next } = await client.send(
      { verb: "list", method: "GET", key: "", query },
      async (response, progress) =>
        parseListPage(where, await readXml(where, response, progress)),
    );
    for (const key of keys) {
      const name = key.slice(prefix.length);
      // Some programs mark a folder with an empty object of its name. Hidden folders are not looked into.
      const isFile = name !== "" && !/\/$|(^|\/)\.[^/]*\//.test(name);
      if (key.startsWith(prefix) && isFile) names.add(name);
    }
    if (next === undefined) return [...names].sort();
    token = next;
  }
  throw new RangeError(
    `Cannot list "${where}": expected at most ${MAX_PAGES} pages: got a listing without an end`,
  );
}
