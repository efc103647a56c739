/**
 * The directory of a zip file. The file comes from a stranger, so its entries are believed only where they lie
 * inside it, one behind the other.
 * Source: PKWARE's APPNOTE.TXT 6.3, sections 4.3 to 4.5.
 * @module
 */
import type { Source } from "./source.ts";

/** One file of the archive, as the directory tells it. */
export interface ZipEntry {
  /** Its path in the archive. */
  readonly name: string;
  /** Whether it is compressed with deflate; stored as it is otherwise. */
  readonly isCompressed: boolean;
  /** Bytes in the archive. */
  readonly storedBytes: number;
  /** Bytes of the file. */
  readonly byteLength: number;
  /** CRC-32 of the file's bytes. */
  readonly crc32: number;
  /** First byte of the header in front of it. */
  readonly headerStart: number;
  /** Where the next header or the directory begins. */
  readonly limit: number;
}

/** The header in front of an entry: its first four bytes, and how long it is without name and extra field. */
export const LOCAL_HEADER = { signature: 0x04034b50, bytes: 30 };
const DIRECTORY_ENTRY = { signature: 0x02014b50, bytes: 46 };
const END = { signature: 0x06054b50, bytes: 22 };
const END_64 = { signature: 0x06064b50, bytes: 56 };
const LOCATOR_64 = { signature: 0x07064b50, bytes: 20 };
/** The id of the extra field with the sizes that do not fit 32 bits. */
const SIZES_64 = 1;
const MAX_COMMENT_BYTES = 0xffff;
/** More than any checkpoint has. */
const MAX_DIRECTORY_BYTES = 2 ** 24;
/** How errors of damaged archives end. */
export const FIX = "the file is truncated or damaged: fetch it again";

function refuse(source: Source, what: string): SyntaxError {
  return new SyntaxError(`Cannot read "${source.name}": ${what}: ${FIX}`);
}

/** A name on one short line. */
export function quote(name: string): string {
  return JSON.stringify(name.length > 80 ? `${name.slice(0, 77)}...` : name);
}

/** The numbers in a run of bytes. */
export function view(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/**
 * Reads and checks the directory: all entries, in the order of their bytes.
 * @throws {SyntaxError} If it is no zip file, or one of a kind that is not read.
 * @throws {RangeError} If entries lie outside the file or over each other.
 */
export async function readDirectory(source: Source): Promise<ZipEntry[]> {
  const { start, end, nEntries } = await findDirectory(source);
  const entries = parseDirectory(
    source,
    await source.read(start, end),
    nEntries,
  );
  const names = new Set<string>();
  return entries.map((entry, i) => {
    const limit = entries[i + 1]?.headerStart ?? start;
    const least = entry.headerStart + LOCAL_HEADER.bytes + entry.storedBytes;
    if (least > limit) {
      throw new RangeError(
        `Cannot read "${source.name}": expected entry ${
          quote(entry.name)
        } to end before byte ${limit}, where the next part begins: got ${least}: ${FIX}`,
      );
    }
    if (names.has(entry.name)) {
      throw refuse(source, `got two entries ${quote(entry.name)}`);
    }
    names.add(entry.name);
    return { ...entry, limit };
  });
}

/** Where the directory lies, and how many entries it has. */
async function findDirectory(
  source: Source,
): Promise<{ start: number; end: number; nEntries: number }> {
  const { byteLength } = source;
  const tailStart = Math.max(
    0,
    byteLength - END.bytes - MAX_COMMENT_BYTES - LOCATOR_64.bytes,
  );
  const tail = view(await source.read(tailStart, byteLength));
  let at = tail.byteLength - END.bytes;
  const isEnd = (i: number): boolean =>
    tail.getUint32(i, true) === END.signature &&
    i + END.bytes + tail.getUint16(i + 20, true) === tail.byteLength;
  while (at >= 0 && !isEnd(at)) at--;
  if (at < 0) throw refuse(source, "expected a zip file: got no directory");
  let nEntries = tail.getUint16(at + 10, true);
  let size = tail.getUint32(at + 12, true);
  let start = tail.getUint32(at + 16, true);
  let end = tailStart + at;
  const locator = at - LOCATOR_64.bytes;
  if (
    locator >= 0 && tail.getUint32(locator, true) === LOCATOR_64.signature
  ) {
    end = Number(tail.getBigUint64(locator + 8, true));
    const record = view(await source.read(end, end + END_64.bytes));
    if (record.getUint32(0, true) !== END_64.signature) {
      throw refuse(source, `expected a zip64 directory end at byte ${end}`);
    }
    nEntries = Number(record.getBigUint64(32, true));
    size = Number(record.getBigUint64(40, true));
    start = Number(record.getBigUint64(48, true));
  }
  if (start + size !== end || size > MAX_DIRECTORY_BYTES) {
    throw refuse(
      source,
      `expected a zip directory of at most ${MAX_DIRECTORY_BYTES} bytes that ends at byte ${end}: got ${size} bytes from ${start}`,
    );
  }
  return { start, end, nEntries };
}

/** All entries, in the order of their bytes. */
function parseDirectory(
  source: Source,
  bytes: Uint8Array,
  nEntries: number,
): Omit<ZipEntry, "limit">[] {
  const entries: Omit<ZipEntry, "limit">[] = [];
  let at = 0;
  while (at < bytes.length) {
    const isWhole = at + DIRECTORY_ENTRY.bytes <= bytes.length &&
      view(bytes).getUint32(at, true) === DIRECTORY_ENTRY.signature;
    const fixed = view(bytes.subarray(at, at + DIRECTORY_ENTRY.bytes));
    const end = isWhole
      ? at + DIRECTORY_ENTRY.bytes + fixed.getUint16(28, true) +
        fixed.getUint16(30, true) + fixed.getUint16(32, true)
      : Infinity;
    if (end > bytes.length) {
      throw refuse(source, `expected ${nEntries} entries: got a part of one`);
    }
    entries.push(parseEntry(source, bytes.subarray(at, end)));
    at = end;
  }
  if (entries.length !== nEntries) {
    throw refuse(
      source,
      `expected ${nEntries} entries: got ${entries.length}`,
    );
  }
  return entries.sort((a, b) => a.headerStart - b.headerStart);
}

function parseEntry(
  source: Source,
  bytes: Uint8Array,
): Omit<ZipEntry, "limit"> {
  const fixed = view(bytes);
  const nameEnd = DIRECTORY_ENTRY.bytes + fixed.getUint16(28, true);
  const name = new TextDecoder().decode(
    bytes.subarray(DIRECTORY_ENTRY.bytes, nameEnd),
  );
  const flags = fixed.getUint16(8, true);
  const method = fixed.getUint16(10, true);
  if ((flags & 1) !== 0 || (method !== 0 && method !== 8)) {
    throw new SyntaxError(
      `Cannot read "${source.name}": expected entry ${
        quote(name)
      } stored or deflated: got ${
        (flags & 1) !== 0 ? "an encrypted one" : `method ${method}`
      }: save it again with the tool that made it`,
    );
  }
  const [byteLength, storedBytes, headerStart] = wideSizes(
    [20 + 4, 20, 42].map((i) => fixed.getUint32(i, true)),
    bytes.subarray(nameEnd, nameEnd + fixed.getUint16(30, true)),
  ) as [number, number, number];
  const isCompressed = method === 8;
  if (!isCompressed && storedBytes !== byteLength) {
    throw refuse(
      source,
      `expected ${byteLength} bytes of the stored entry ${
        quote(name)
      }: got ${storedBytes}`,
    );
  }
  return {
    name,
    isCompressed,
    storedBytes,
    byteLength,
    crc32: fixed.getUint32(16, true),
    headerStart,
  };
}

/** Sizes of a directory entry; those that are all ones stand in its extra field, 64 bits each. */
function wideSizes(sizes: readonly number[], extra: Uint8Array): number[] {
  const wide: number[] = [];
  for (let at = 0; at + 4 <= extra.length;) {
    const id = view(extra).getUint16(at, true);
    const end = at + 4 + view(extra).getUint16(at + 2, true);
    for (
      let i = at + 4;
      id === SIZES_64 && i + 8 <= Math.min(end, extra.length);
      i += 8
    ) {
      wide.push(Number(view(extra).getBigUint64(i, true)));
    }
    at = end;
  }
  // One that is missing stays as it is, and lies outside the file.
  return sizes.map((size) => size === 0xffffffff ? wide.shift() ?? size : size);
}
