/**
 * Answers of a server that speaks S3, for tests.
 * @module
 */

/** Text inside of XML. */
export function escaped(text: string): string {
  return text.replace(/[&<>]/g, (c) => `&#x${c.charCodeAt(0).toString(16)};`);
}

/** An answer in XML. */
export function xml(text: string): Response {
  return new Response(`<?xml version="1.0" encoding="UTF-8"?>\n${text}`, {
    headers: { "content-type": "application/xml" },
  });
}

/** An answer that tells of a failure. */
export function failure(
  status: number,
  code: string,
  headers: Record<string, string> = {},
): Response {
  const body =
    `<Error><Code>${code}</Code><Message>As the test\nordered.</Message></Error>`;
  return new Response(body, {
    status,
    headers: { "content-type": "application/xml", ...headers },
  });
}
