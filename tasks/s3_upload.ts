/**
 * Objects that are uploaded: the server checks the MD5 of every body, and of an upload in parts
 * nothing is to be seen before it is complete, and nothing remains when it fails.
 * @module
 */
import { createHash } from "node:crypto";
import { RequestError } from "../core/retry.ts";
import { readS3Error, readXml, textsOf } from "../core/s3_answer.ts";
import type { S3Client, S3Request } from "../core/s3_client.ts";
import { headS3 } from "../core/s3_folder.ts";

/** As S3 has it. */
const MAX_PARTS = 10_000;
/** More keep the network busy, and take memory. */
const PARTS_IN_FLIGHT = 3;

/** What a server says of an object that was put there. */
export interface PutAnswer {
  readonly status: number;
  readonly etag: string | undefined;
}

/** Sends a body, whose MD5 the server checks. */
export async function putObject(
  client: S3Client,
  request: S3Request,
): Promise<PutAnswer> {
  const md5 = createHash("md5").update(request.body ?? "").digest("base64");
  const headers = { ...request.headers?.(), "content-md5": md5 };
  return await client.send(
    { ...request, headers: () => headers },
    ({ status, headers }) =>
      Promise.resolve({ status, etag: headers.get("etag") ?? undefined }),
  );
}

/** An upload in parts; disposing of one that is not complete removes its parts. */
export class S3Upload implements AsyncDisposable {
  readonly #client: S3Client;
  readonly #key: string;
  readonly #id: string;
  /** Of the parts, in order. */
  readonly #etags: string[] = [];
  #nParts = 0;
  readonly #flights = new Set<Promise<void>>();
  /** What failed first. */
  #failure: { readonly error: unknown } | undefined;
  #isComplete = false;

  private constructor(client: S3Client, key: string, id: string) {
    this.#client = client;
    this.#key = key;
    this.#id = id;
  }

  /** Starts one; what an upload of the same object that was killed has left is removed. */
  static async start(client: S3Client, key: string): Promise<S3Upload> {
    // They cannot be seen, but are paid for. Some may write and not list: then they stay.
    const left = await uploadsOf(client, key).catch(() => []);
    for (const id of left) {
      await new S3Upload(client, key, id)[Symbol.asyncDispose]();
    }
    const request = {
      verb: "write",
      method: "POST",
      key,
      query: { uploads: "" },
    } as const;
    const id = await client.send(request, async (response, progress) => {
      const xml = await readXml(client.nameOf(key), response, progress);
      const [id] = textsOf(xml, "UploadId");
      if (id) return id;
      throw new RequestError(
        "expected an upload in parts: got no number of it",
      );
    });
    return new S3Upload(client, key, id);
  }

  /** Sends the next part, which must stay as it is; returns when another one can be made. */
  async add(part: Uint8Array<ArrayBuffer>): Promise<void> {
    const number = ++this.#nParts;
    if (number > MAX_PARTS) {
      throw new RangeError(
        `Cannot write "${
          this.#client.nameOf(this.#key)
        }": expected at most ${MAX_PARTS} parts: got more: write shorter files`,
      );
    }
    const flight = this.#send(number, part)
      .catch((error: unknown) => {
        this.#failure ??= { error };
      }).finally(() => this.#flights.delete(flight));
    this.#flights.add(flight);
    while (this.#flights.size >= PARTS_IN_FLIGHT && !this.#failure) {
      await Promise.race(this.#flights);
    }
    if (this.#failure) throw this.#failure.error;
  }

  async #send(number: number, part: Uint8Array<ArrayBuffer>): Promise<void> {
    const { etag } = await putObject(this.#client, {
      verb: "write",
      method: "PUT",
      key: this.#key,
      query: { partNumber: String(number), uploadId: this.#id },
      body: part,
    });
    this.#etags[number - 1] = etag ?? "";
  }

  /** Makes the object of the parts. */
  async complete(): Promise<void> {
    await Promise.all(this.#flights);
    if (this.#failure) throw this.#failure.error;
    const parts = this.#etags.map((etag, i) =>
      `<Part><PartNumber>${i + 1}</PartNumber><ETag>${
        etag.replace(/["<>&]/g, (c) => `&#${c.charCodeAt(0)};`)
      }</ETag></Part>`
    );
    const request = {
      verb: "write",
      method: "POST",
      key: this.#key,
      query: { uploadId: this.#id },
      body: `<CompleteMultipartUpload>${
        parts.join("")
      }</CompleteMultipartUpload>`,
      answers: [404],
    } as const;
    const name = this.#client.nameOf(this.#key);
    await this.#client.send(request, async (response, progress) => {
      if (response.status === 404) {
        const { message } = await readS3Error(response);
        // An attempt before may have done it, and its answer was lost.
        if (await this.#isThere()) return;
        throw new RequestError(`the server answered 404${message}`);
      }
      // It answers 200 before it is done, and may fail after that.
      const xml = await readXml(name, response, progress);
      if (xml.includes("<CompleteMultipartUploadResult")) return;
      const [code = "no result"] = textsOf(xml, "Code");
      throw new RequestError(
        `the server could not put its parts together (${code}): try again later`,
        { mayPass: true },
      );
    });
    this.#isComplete = true;
  }

  /** Whether the object is there and made of these parts. */
  async #isThere(): Promise<boolean> {
    const hasher = createHash("md5");
    for (const etag of this.#etags) {
      hasher.update(etag.replaceAll('"', ""), "hex");
    }
    const head = await headS3(this.#client, this.#key);
    return head?.etag === `"${hasher.digest("hex")}-${this.#nParts}"`;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.#flights); // else a part could arrive after
    if (this.#isComplete) return;
    await this.#client.send({
      verb: "write",
      method: "DELETE",
      key: this.#key,
      query: { uploadId: this.#id },
      answers: [404],
    }, () => Promise.resolve()).catch(() => {}); // why it was not completed is to be told
  }
}

/** Uploads in parts of an object that were begun and neither completed nor removed. */
async function uploadsOf(client: S3Client, key: string): Promise<string[]> {
  const query = { uploads: "", prefix: key };
  const name = client.nameOf(key);
  const xml = await client.send(
    { verb: "list", method: "GET", key: "", query },
    (response, progress) => readXml(name, response, progress),
  );
  const uploads = Array.from(xml.matchAll(/<Upload>(.*?)<\/Upload>/gs));
  return uploads
    .filter(([, upload]) => textsOf(upload!, "Key")[0] === key)
    .flatMap(([, upload]) => textsOf(upload!, "UploadId"));
}
