/**
 * An object store in memory that speaks S3, for tests: it checks signatures, honors conditions and
 * ranges, and fails as it is told.
 * @module
 */
import { createHash } from "node:crypto";
import type { S3Address } from "../../core/s3_client.ts";
import { escaped, failure, xml } from "./s3_answers.ts";
import { CREDENTIALS, wrongSignature } from "./s3_signature.ts";

/** The only bucket. */
export const BUCKET = "residuals";

interface StoredObject {
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly etag: string;
}

interface Upload {
  readonly key: string;
  readonly parts: Map<number, StoredObject>;
}

/** What a request is, for {@link S3Server.fail}. */
export interface SeenRequest {
  readonly method: string;
  /** Without the bucket; "" for it. */
  readonly key: string;
  readonly query: URLSearchParams;
  readonly headers: Headers;
}

/** How a request fails. */
export type Fault =
  /** The status, with a code. */
  | {
    readonly status: number;
    readonly code: string;
    readonly headers?: Record<string, string>;
  }
  /** The body ends after so many bytes. */
  | { readonly cutAt: number }
  /** Nothing is ever answered. */
  | "hang"
  /** It is done, and the answer is lost. */
  | "lose";

interface OrderedFault {
  readonly when: (request: SeenRequest) => boolean;
  readonly fault: Fault;
  nTimes: number;
}

/** A running server. */
export class S3Server implements AsyncDisposable {
  readonly objects = new Map<string, StoredObject>();
  readonly uploads = new Map<string, Upload>();
  /** Everything that was asked for, oldest first, as `METHOD key?name,name`. */
  readonly seen: string[] = [];
  /** Names in a page of a listing. */
  pageSize = 1000;
  /** The conditions of writes that are honored. */
  conditions = ["if-none-match", "if-match"];
  /** Called when a request hangs. */
  onHang = (): void => {};
  /** What the token of a session must be. */
  sessionToken: string | undefined;
  readonly #faults: OrderedFault[] = [];
  readonly #hanging = Promise.withResolvers<void>();
  readonly #server: Deno.HttpServer<Deno.NetAddr>;
  #nUploads = 0;

  constructor() {
    this.#server = Deno.serve(
      { port: 0, hostname: "127.0.0.1", onListen() {} },
      (request) => this.#answer(request),
    );
  }

  /** Where it is. */
  get endpoint(): string {
    return `http://127.0.0.1:${this.#server.addr.port}`;
  }

  /** A folder of it, with the right to it. */
  address(prefix: string): S3Address {
    return { ...CREDENTIALS, bucket: BUCKET, prefix, endpoint: this.endpoint };
  }

  /** Has the next requests of a kind fail. */
  fail(when: OrderedFault["when"], fault: Fault, nTimes = 1): void {
    this.#faults.push({ when, fault, nTimes });
  }

  /** Puts an object there. */
  put(key: string, content: Uint8Array<ArrayBuffer> | string): void {
    const bytes = new Uint8Array(
      typeof content === "string" ? new TextEncoder().encode(content) : content,
    );
    this.objects.set(key, { bytes, etag: `"${md5(bytes)}"` });
  }

  /** The text of an object; undefined where there is none. */
  text(key: string): string | undefined {
    const object = this.objects.get(key);
    return object && new TextDecoder().decode(object.bytes);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#hanging.resolve();
    await this.#server.shutdown();
  }

  async #answer(request: Request): Promise<Response> {
    const url = new URL(request.url);
    const body = new Uint8Array(await request.arrayBuffer());
    const [, bucket, ...parts] = url.pathname.split("/");
    const seen = {
      method: request.method,
      key: parts.map(decodeURIComponent).join("/"),
      query: url.searchParams,
      headers: request.headers,
    };
    const names = [...seen.query.keys()].filter((name) =>
      !name.startsWith("X-")
    );
    this.seen.push(
      `${seen.method} ${seen.key}${names.length ? `?${names.sort()}` : ""}`,
    );
    const wrong = wrongSignature(request, this.sessionToken);
    if (wrong !== undefined) return failure(403, wrong);
    if (bucket !== BUCKET) return failure(404, "NoSuchBucket");
    const ordered = this.#faults.find(({ when, nTimes }) =>
      nTimes > 0 && when(seen)
    );
    if (!ordered) return this.#do(seen, body);
    ordered.nTimes--;
    return await this.#fault(ordered.fault, seen, body);
  }

  async #fault(
    fault: Fault,
    seen: SeenRequest,
    body: Uint8Array<ArrayBuffer>,
  ): Promise<Response> {
    if (fault === "hang") {
      this.onHang();
      await this.#hanging.promise;
      return failure(500, "Closed");
    }
    if (fault === "lose") {
      this.#do(seen, body);
      return failure(500, "InternalError");
    }
    if ("status" in fault) {
      return failure(fault.status, fault.code, fault.headers);
    }
    const { status, headers, body: whole } = this.#do(seen, body);
    const bytes = await new Response(whole).bytes();
    // Its length is told, and the connection ends before that many have come.
    const cut = new ReadableStream<Uint8Array>({
      start(controller): void {
        controller.enqueue(bytes.subarray(0, fault.cutAt));
        controller.close();
      },
    });
    headers.set("content-length", String(bytes.length));
    return new Response(cut, { status, headers });
  }

  #do(seen: SeenRequest, body: Uint8Array<ArrayBuffer>): Response {
    const { method, key, query } = seen;
    const action = `${method} ${key === "" ? "bucket" : "object"}`;
    if (action === "GET bucket" && query.has("uploads")) {
      return this.#listUploads(query.get("prefix") ?? "");
    }
    if (action === "GET bucket") return this.#list(query);
    if (query.has("uploadId")) return this.#doUpload(seen, body);
    if (action === "POST object" && query.has("uploads")) {
      const id = `upload-${++this.#nUploads}`;
      this.uploads.set(id, { key, parts: new Map() });
      return xml(
        `<InitiateMultipartUploadResult><UploadId>${id}</UploadId></InitiateMultipartUploadResult>`,
      );
    }
    if (action === "PUT object") return this.#put(seen, body);
    if (action === "DELETE object") {
      this.objects.delete(key);
      return new Response(null, { status: 204 });
    }
    return this.#get(seen);
  }

  #get({ method, key, headers }: SeenRequest): Response {
    const object = this.objects.get(key);
    if (!object) return failure(404, "NoSuchKey");
    const { bytes, etag } = object;
    const wanted = headers.get("if-match");
    if (wanted !== null && wanted !== etag) {
      return failure(412, "PreconditionFailed");
    }
    const range = /^bytes=(\d+)-(\d+)$/.exec(headers.get("range") ?? "");
    if (!range) {
      const length = { "content-length": String(bytes.length) };
      return new Response(method === "HEAD" ? null : bytes, {
        headers: { etag, ...length },
      });
    }
    const [start, last] = [Number(range[1]), Number(range[2])];
    if (start >= bytes.length) return failure(416, "InvalidRange");
    const part = bytes.slice(start, last + 1);
    return new Response(part, {
      status: 206,
      headers: {
        etag,
        "content-range": `bytes ${start}-${
          start + part.length - 1
        }/${bytes.length}`,
      },
    });
  }

  #put(
    { key, headers }: SeenRequest,
    bytes: Uint8Array<ArrayBuffer>,
  ): Response {
    const before = this.objects.get(key);
    const [unwanted, wanted] = ["if-none-match", "if-match"].map((condition) =>
      this.conditions.includes(condition) ? headers.get(condition) : null
    );
    if (wanted !== null && !before) return failure(404, "NoSuchKey");
    if (
      (unwanted === "*" && before) ||
      (wanted !== null && wanted !== before?.etag)
    ) {
      return failure(412, "PreconditionFailed");
    }
    if (!isIntact(headers, bytes)) return failure(400, "BadDigest");
    this.put(key, bytes);
    return new Response(null, {
      headers: { etag: this.objects.get(key)!.etag },
    });
  }

  #doUpload(
    { method, key, query, headers }: SeenRequest,
    body: Uint8Array<ArrayBuffer>,
  ): Response {
    const id = query.get("uploadId")!;
    const upload = this.uploads.get(id);
    if (upload?.key !== key) return failure(404, "NoSuchUpload");
    if (method === "DELETE") {
      this.uploads.delete(id);
      return new Response(null, { status: 204 });
    }
    if (method === "PUT") {
      if (!isIntact(headers, body)) return failure(400, "BadDigest");
      const etag = `"${md5(body)}"`;
      upload.parts.set(Number(query.get("partNumber")), { bytes: body, etag });
      return new Response(null, { headers: { etag } });
    }
    const text = new TextDecoder().decode(body).replaceAll("&#34;", '"');
    const parts = Array.from(
      text.matchAll(/<PartNumber>(\d+)<\/PartNumber><ETag>(.*?)<\/ETag>/g),
      ([, number, etag]) => {
        const part = upload.parts.get(Number(number));
        return part?.etag === etag ? part : undefined;
      },
    );
    if (parts.length !== upload.parts.size || parts.includes(undefined)) {
      return failure(400, "InvalidPart");
    }
    const whole = concat(parts.map((part) => part!.bytes));
    const hashes = parts.map((part) =>
      Uint8Array.fromHex(part!.etag.slice(1, -1))
    );
    const etag = `"${md5(concat(hashes))}-${parts.length}"`;
    this.objects.set(key, { bytes: whole, etag });
    this.uploads.delete(id);
    return xml(
      "<CompleteMultipartUploadResult><ETag/></CompleteMultipartUploadResult>",
    );
  }

  #list(query: URLSearchParams): Response {
    const prefix = query.get("prefix") ?? "";
    const after = query.get("continuation-token") ?? "";
    const keys = [...this.objects.keys()].sort()
      .filter((key) => key.startsWith(prefix) && key > after)
      .filter((key) =>
        !query.has("delimiter") || !key.slice(prefix.length).includes("/")
      );
    const page = keys.slice(0, this.pageSize);
    const isTruncated = keys.length > page.length;
    const contents = page.map((key) =>
      `<Contents><Key>${
        encodeURIComponent(key).replaceAll("%20", "+")
      }</Key></Contents>`
    );
    return xml(
      `<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><EncodingType>url</EncodingType><IsTruncated>${isTruncated}</IsTruncated>${
        contents.join("")
      }${
        isTruncated
          ? `<NextContinuationToken>${
            escaped(page.at(-1)!)
          }</NextContinuationToken>`
          : ""
      }</ListBucketResult>`,
    );
  }

  #listUploads(prefix: string): Response {
    const uploads = [...this.uploads].filter(([, { key }]) =>
      key.startsWith(prefix)
    ).map(([id, { key }]) =>
      `<Upload><Key>${escaped(key)}</Key><UploadId>${id}</UploadId></Upload>`
    );
    return xml(
      `<ListMultipartUploadsResult>${
        uploads.join("")
      }</ListMultipartUploadsResult>`,
    );
  }
}

function md5(bytes: Uint8Array): string {
  return createHash("md5").update(bytes).digest("hex");
}

/** Whether a body has come as it was sent; one without its hash is taken for damaged. */
function isIntact(headers: Headers, bytes: Uint8Array): boolean {
  const got = createHash("md5").update(bytes).digest("base64");
  return headers.get("content-md5") === got;
}

function concat(chunks: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  const whole = new Uint8Array(
    chunks.reduce((sum, { length }) => sum + length, 0),
  );
  let at = 0;
  for (const chunk of chunks) {
    whole.set(chunk, at);
    at += chunk.length;
  }
  return whole;
}
