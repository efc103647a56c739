/**
 * The signatures of S3, version 4, made anew as a server does it, for tests.
 * @module
 */
import { createHash, createHmac } from "node:crypto";

/** What it takes for a signature. */
export const CREDENTIALS = {
  accessKeyId: "AKIDEXAMPLE",
  secretAccessKey: "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
  region: "eu-test-1",
} as const;

/**
 * Checks the signature in the query of a request.
 * @returns The code of what is wrong.
 */
export function wrongSignature(
  { method, headers, url }: Request,
  sessionToken: string | undefined,
): string | undefined {
  const { pathname, search, searchParams } = new URL(url);
  const get = (name: string): string => searchParams.get(`X-Amz-${name}`) ?? "";
  const [id, ...scope] = get("Credential").split("/");
  const [day, region] = scope;
  if (id !== CREDENTIALS.accessKeyId) return "InvalidAccessKeyId";
  if (get("Security-Token") !== (sessionToken ?? "")) return "InvalidToken";
  const canonicalQuery = search.slice(1).split("&")
    .filter((pair) => !pair.startsWith("X-Amz-Signature=")).sort().join("&");
  const signed = get("SignedHeaders").split(";");
  const canonical = [
    method,
    pathname,
    canonicalQuery,
    ...signed.map((name) => `${name}:${headers.get(name)}`),
    "",
    signed.join(";"),
    "UNSIGNED-PAYLOAD",
  ].join("\n");
  const hash = createHash("sha256").update(canonical).digest("hex");
  const text = `AWS4-HMAC-SHA256\n${get("Date")}\n${scope.join("/")}\n${hash}`;
  let key: string | Uint8Array = `AWS4${CREDENTIALS.secretAccessKey}`;
  for (const part of [day!, CREDENTIALS.region, "s3", "aws4_request", text]) {
    key = createHmac("sha256", key).update(part).digest();
  }
  const isRight = region === CREDENTIALS.region && signed.includes("host") &&
    new Uint8Array(key as Uint8Array).toHex() === get("Signature");
  return isRight ? undefined : "SignatureDoesNotMatch";
}
