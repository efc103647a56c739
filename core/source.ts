/**
 * Where bytes come from: ranged reads over memory, a Blob or a URL. Web APIs
 * only; files on disk are in `files.ts`.
 * @module
 */

/** Bytes that are read by range, so that a 30 GB file never lies in memory whole. */
export interface Source {
  /** What errors call it: a path, a URL, a file's name. */
  readonly name: string;
  /** Length in bytes. */
  readonly byteLength: number;
  /** Whether each read is a request over the network. */
  readonly isRemote?: boolean;
  /**
   * Reads the bytes [start, end) into an array of its own, at offset 0 of its
   * buffer, which therefore can be viewed as any element type.
   * @throws {RangeError} If the range is not inside the source, or the source ends early.
   */
  read(start: number, end: number): Promise<Uint8Array<ArrayBuffer>>;
}

/** Named sources under one root, such as the folder of a model. */
export interface Folder {
  /** What errors call it: a path or a URL. */
  readonly name: string;
  /** Whether there is a file of this name; the name is relative, with `/` between its parts. */
  has(file: string): Promise<boolean>;
  /**
   * Opens a file of the folder.
   * @throws {Error} If there is none: names the folder and the file.
   */
  open(file: string): Promise<Source>;
  /**
   * Names of the files directly in the folder, sorted.
   * @param options.deep Those in the folders below it too, but for hidden folders: relative names.
   * @throws {Error} If the folder cannot be listed (HTTP).
   */
  list(options?: { readonly deep?: boolean }): Promise<string[]>;
}

/** Text is held whole, so longer files are refused before they are read. */
const MAX_TEXT_BYTES = 256 * 2 ** 20;

/**
 * Checks the range [start, end) of a read; for implementations of `Source`.
 * @throws {RangeError} If it is not inside the source.
 */
export function checkRange(
  name: string,
  byteLength: number,
  start: number,
  end: number,
): void {
  const whole = Number.isSafeInteger(start) && Number.isSafeInteger(end);
  if (whole && start >= 0 && start <= end && end <= byteLength) return;
  throw new RangeError(
    `Cannot read bytes [${start}, ${end}) of "${name}": expected a range inside [0, ${byteLength}): the file may be truncated`,
  );
}

/**
 * Checks that a file name stays inside its folder; for implementations of `Folder`.
 * @throws {RangeError} If it is absolute, empty, or has a part `.` or `..`.
 */
export function checkFileName(folder: string, file: string): void {
  const parts = file.split("/");
  const unsafe = parts.some((part) =>
    part === "" || part === "." || part === ".."
  );
  // A backslash or a colon leads out of the folder on Windows.
  if (!unsafe && !/[\\:\0]/.test(file)) return;
  throw new RangeError(
    `Cannot open ${
      JSON.stringify(file)
    } in "${folder}": expected a file name inside the folder`,
  );
}

/** A source over bytes in memory; reads are copies. */
export function memorySource(name: string, bytes: Uint8Array): Source {
  return {
    name,
    byteLength: bytes.byteLength,
    read(start, end): Promise<Uint8Array<ArrayBuffer>> {
      try {
        checkRange(name, bytes.byteLength, start, end);
      } catch (error) {
        return Promise.reject(error);
      }
      return Promise.resolve(new Uint8Array(bytes.subarray(start, end)));
    },
  };
}

/** A source over a Blob, such as a file that was dropped on a page. */
export function blobSource(name: string, blob: Blob): Source {
  return {
    name,
    byteLength: blob.size,
    async read(start, end): Promise<Uint8Array<ArrayBuffer>> {
      checkRange(name, blob.size, start, end);
      return new Uint8Array(await blob.slice(start, end).arrayBuffer());
    },
  };
}

/**
 * A source over HTTP range requests; asks once for the length.
 * @throws {Error} If the server fails, or does not answer ranges with 206 and a content-range.
 */
export async function urlSource(url: string): Promise<Source> {
  const probe = await fetchRange(url, 0, 1);
  await probe.response.body?.cancel();
  const byteLength = probe.total;
  return {
    name: url,
    byteLength,
    isRemote: true,
    async read(start, end): Promise<Uint8Array<ArrayBuffer>> {
      checkRange(url, byteLength, start, end);
      if (start === end) return new Uint8Array(0);
      const { response, total } = await fetchRange(url, start, end);
      if (total !== byteLength) {
        await response.body?.cancel();
        throw new RangeError(
          `Cannot read "${url}": expected ${byteLength} bytes in total: got ${total}, so the file changed meanwhile`,
        );
      }
      return await readBody(url, response, end - start);
    },
  };
}

interface RangeAnswer {
  readonly response: Response;
  /** Length of the whole file, in bytes. */
  readonly total: number;
}

async function fetchRange(
  url: string,
  start: number,
  end: number,
): Promise<RangeAnswer> {
  // A compressed answer would have other offsets; browsers set this themselves.
  const headers = {
    range: `bytes=${start}-${end - 1}`,
    "accept-encoding": "identity",
  };
  const response = await request(url, { headers });
  const contentRange = response.headers.get("content-range") ?? "";
  if (response.status === 416 && contentRange === "bytes */0") {
    return { response, total: 0 };
  }
  const [, first, last, total] =
    /^bytes (\d+)-(\d+)\/(\d+)$/.exec(contentRange) ?? [];
  const wanted = Math.min(end, Number(total)) - 1;
  if (
    response.status === 206 && Number(first) === start &&
    Number(last) === wanted && Number.isSafeInteger(Number(total))
  ) {
    return { response, total: Number(total) };
  }
  await response.body?.cancel();
  throw new Error(
    `Cannot read "${url}": expected status 206 with content-range bytes ${start}-${
      end - 1
    }: got ${response.status} with ${JSON.stringify(contentRange)}`,
  );
}

async function request(url: string, init: RequestInit): Promise<Response> {
  try {
    return await fetch(url, init);
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new Error(
      `Cannot read "${url}": ${reason.replace(/\s*\n\s*/g, " ")}`,
      { cause },
    );
  }
}

/** Reads a body of exactly n bytes; a longer one is not taken into memory. */
async function readBody(
  url: string,
  response: Response,
  n: number,
): Promise<Uint8Array<ArrayBuffer>> {
  const bytes = new Uint8Array(n);
  const reader = response.body?.getReader();
  let filled = 0;
  while (reader && filled <= n) {
    const { done, value } = await reader.read();
    if (done) break;
    if (filled + value.byteLength <= n) bytes.set(value, filled);
    filled += value.byteLength;
  }
  await reader?.cancel();
  if (filled === n) return bytes;
  throw new RangeError(
    `Cannot read "${url}": expected a body of ${n} bytes: got ${
      filled > n ? "more" : filled
    }`,
  );
}

/** A folder over files in memory. */
export function memoryFolder(
  name: string,
  files: Readonly<Record<string, Uint8Array>>,
): Folder {
  const entries = new Map(Object.entries(files));
  return {
    name,
    has: (file) => Promise.resolve(entries.has(file)),
    open(file): Promise<Source> {
      const bytes = entries.get(file);
      if (bytes) return Promise.resolve(memorySource(`${name}/${file}`, bytes));
      return Promise.reject(missingFile(name, file));
    },
    list: () => Promise.resolve([...entries.keys()].sort()),
  };
}

/** A folder over HTTP; its files are `baseUrl/file`. It cannot be listed. */
export function urlFolder(baseUrl: string): Folder {
  const base = baseUrl.replace(/\/+$/, "");
  const address = (file: string): string => {
    checkFileName(base, file);
    return `${base}/${file.split("/").map(encodeURIComponent).join("/")}`;
  };
  return {
    name: base,
    async has(file): Promise<boolean> {
      const response = await request(address(file), { method: "HEAD" });
      await response.body?.cancel();
      if (response.ok) return true;
      if (response.status === 404) return false;
      throw new Error(
        `Cannot read "${
          address(file)
        }": expected status 200 or 404: got ${response.status}`,
      );
    },
    // Async, so that a bad name rejects as it does in the other folders.
    open: async (file) => await urlSource(address(file)),
    list: () =>
      Promise.reject(
        new Error(`Cannot list "${base}": HTTP has no listing of a folder`),
      ),
  };
}

/** The error of every folder that lacks a file. */
export function missingFile(
  folder: string,
  file: string,
  fix = "put it there, or name another folder",
): Error {
  return new Error(
    `Cannot open "${file}": no such file in "${folder}": ${fix}`,
  );
}

/**
 * Reads a whole file as UTF-8; a byte order mark is dropped.
 * @throws {RangeError} If it has more than 256 MiB.
 * @throws {SyntaxError} If it is not UTF-8: names the file.
 */
export async function readText(source: Source): Promise<string> {
  if (source.byteLength > MAX_TEXT_BYTES) {
    throw new RangeError(
      `Cannot read "${source.name}" as text: expected at most ${MAX_TEXT_BYTES} bytes: got ${source.byteLength}`,
    );
  }
  const bytes = await source.read(0, source.byteLength);
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch (cause) {
    throw new SyntaxError(
      `Cannot read "${source.name}" as text: expected UTF-8: got other bytes: convert the file to UTF-8`,
      { cause },
    );
  }
}

/**
 * Reads a whole file as JSON.
 * @throws {SyntaxError} If it is not JSON: names the file.
 */
export async function readJson(source: Source): Promise<unknown> {
  const text = await readText(source);
  try {
    return JSON.parse(text);
  } catch (cause) {
    // V8 quotes the text in its message, line breaks and all.
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new SyntaxError(
      `Cannot read "${source.name}": expected JSON: ${
        reason.replace(/\s+/g, " ")
      }: correct the file, or fetch it again`,
      { cause },
    );
  }
}
