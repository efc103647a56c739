/**
 * Chunks of a file, as tests want them.
 * @module
 */

/** The chunks as one array. */
export function joined(
  chunks: Iterable<Uint8Array>,
): Uint8Array<ArrayBuffer> {
  const all = [...chunks];
  const bytes = new Uint8Array(
    all.reduce((sum, { length }) => sum + length, 0),
  );
  let at = 0;
  for (const chunk of all) {
    bytes.set(chunk, at);
    at += chunk.length;
  }
  return bytes;
}
