/**
 * What servers that speak S3 answer: XML, of which a few elements are read.
 * @module
 */

/** Longest answer in XML that is read: a page of a listing has at most 1000 names. */
const MAX_XML_BYTES = 16 * 2 ** 20;

/**
 * Reads an answer in XML.
 * @throws {RangeError} If it is far longer than such answers are.
 */
export async function readXml(
  name: string,
  response: Response,
  progress: (nBytes: number) => void,
): Promise<string> {
  const chunks: Uint8Array[] = [];
  let nBytes = 0;
  for await (const chunk of response.body ?? []) {
    nBytes += chunk.length;
    if (nBytes > MAX_XML_BYTES) {
      throw new RangeError(
        `Cannot read "${name}": expected an answer of at most ${MAX_XML_BYTES} bytes: got more`,
      );
    }
    chunks.push(chunk);
    progress(chunk.length);
  }
  return await new Blob(chunks as BlobPart[]).text();
}

/** Texts of the elements of a name, in order; they have no elements of their own. */
export function textsOf(xml: string, element: string): string[] {
  const pattern = new RegExp(`<${element}>([^<]*)</${element}>`, "g");
  return Array.from(xml.matchAll(pattern), ([, text]) => unescaped(text!));
}

const ENTITIES: Readonly<Record<string, string>> = {
  "&amp;": "&",
  "&lt;": "<",
  "&gt;": ">",
  "&quot;": '"',
  "&apos;": "'",
};

function unescaped(text: string): string {
  return text.replace(/&(?:#x?[0-9a-f]{1,6}|[a-z]{2,4});/gi, (entity) => {
    const digits = /^&#(x?)(.+);$/i.exec(entity);
    if (!digits) return ENTITIES[entity] ?? entity;
    const code = parseInt(digits[2]!, digits[1] === "" ? 10 : 16);
    return code <= 0x10ffff ? String.fromCodePoint(code) : entity;
  });
}

/** What a server says of a failure: its code, and all of it in a form for errors, `""` or ` (CODE: text)`. */
export async function readS3Error(
  response: Response,
): Promise<{ code: string | undefined; message: string }> {
  const xml = await readXml("error", response, () => {}).catch(() => "");
  const [code] = textsOf(xml, "Code");
  const [text] = textsOf(xml, "Message");
  const said = [code, text].filter((part) => part).join(": ")
    .replaceAll(/[\s\p{C}]+/gu, " ").slice(0, 200);
  return { code, message: said === "" ? "" : ` (${said})` };
}

/** One page of a listing. */
export interface ListPage {
  /** Keys of objects. */
  readonly keys: readonly string[];
  /** Where the next page begins; undefined at the end. */
  readonly next: string | undefined;
}

/**
 * Reads a page of a listing in version 2 of the request.
 * @throws {SyntaxError} If it is none.
 */
export function parseListPage(name: string, xml: string): ListPage {
  const isTruncated = textsOf(xml, "IsTruncated")[0] === "true";
  const [next] = textsOf(xml, "NextContinuationToken");
  if (!xml.includes("<ListBucketResult") || (isTruncated && !next)) {
    throw new SyntaxError(
      `Cannot list "${name}": expected a listing of S3: got another answer: check AWS_ENDPOINT_URL`,
    );
  }
  const isEncoded = textsOf(xml, "EncodingType")[0] === "url";
  const keys = textsOf(xml, "Key").map((key) =>
    isEncoded ? decodeKey(name, key) : key
  );
  return { keys, next: isTruncated ? next : undefined };
}

function decodeKey(name: string, key: string): string {
  try {
    return decodeURIComponent(key.replaceAll("+", " "));
  } catch (cause) {
    throw new SyntaxError(
      `Cannot list "${name}": expected names in URL encoding: got ${
        JSON.stringify(key)
      }`,
      { cause },
    );
  }
}
