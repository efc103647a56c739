/**
 * gzip, with a limit on what comes out of it.
 * @module
 */
import { memorySource, type Source } from "./source.ts";

/** Unpacked files are held whole. */
const MAX_UNPACKED_BYTES = 256 * 2 ** 20;
const CHUNK_BYTES = 2 ** 20;

/** Packs bytes; the same bytes give the same result. */
export async function gzip(
  bytes: Uint8Array<ArrayBuffer>,
): Promise<Uint8Array<ArrayBuffer>> {
  const packed = new Blob([bytes]).stream()
    .pipeThrough(new CompressionStream("gzip"));
  return new Uint8Array(await new Response(packed).arrayBuffer());
}

/**
 * Unpacks a file into memory, which errors call by the packed file's name.
 * @throws {RangeError} If more than `maxBytes` come out, 256 MiB without it.
 * @throws {SyntaxError} If it is no gzip, damaged or cut off.
 */
export async function gunzip(
  source: Source,
  maxBytes = MAX_UNPACKED_BYTES,
): Promise<Source> {
  const { name } = source;
  const parts: Uint8Array<ArrayBuffer>[] = [];
  let n = 0;
  try {
    for await (const part of unpacked(source)) {
      n += part.length;
      if (n > maxBytes) break;
      parts.push(part);
    }
  } catch (cause) {
    if (!(cause instanceof TypeError)) throw cause;
    throw new SyntaxError(
      `Cannot unpack "${name}": expected gzip: got other or damaged bytes: fetch it again`,
      { cause },
    );
  }
  if (n > maxBytes) {
    throw new RangeError(
      `Cannot unpack "${name}": expected at most ${maxBytes} bytes in it: got more`,
    );
  }
  return memorySource(
    name,
    new Uint8Array(await new Blob(parts).arrayBuffer()),
  );
}

function unpacked(source: Source): ReadableStream<Uint8Array<ArrayBuffer>> {
  let offset = 0;
  const packed = new ReadableStream<Uint8Array<ArrayBuffer>>({
    async pull(controller): Promise<void> {
      const end = Math.min(offset + CHUNK_BYTES, source.byteLength);
      if (end === offset) return controller.close();
      controller.enqueue(await source.read(offset, end));
      offset = end;
    },
  });
  return packed.pipeThrough(new DecompressionStream("gzip"));
}
