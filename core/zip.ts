/**
 * Zip files that hold tensors: those of PyTorch and NumPy. Stored entries are read by range; compressed ones are
 * inflated whole, into no more memory than the directory claims and deflate can give.
 * @module
 */
import {
  FIX,
  LOCAL_HEADER,
  quote,
  readDirectory,
  view,
  type ZipEntry,
} from "./zip_directory.ts";
import { crc32 } from "./gunzip.ts";
import { checkRange, memorySource, type Source } from "./source.ts";

/** What one byte of deflate can become, at most. */
const MAX_EXPANSION = 1032;
/** A compressed entry is held in memory; larger ones are refused. */
const MAX_INFLATED_BYTES = 2 ** 31;

/** An open archive. Only its directory is in memory. */
export class ZipFile {
  /** The file. */
  readonly source: Source;
  /** All entries by name, in the order of their bytes. */
  readonly entries: ReadonlyMap<string, ZipEntry>;

  private constructor(source: Source, entries: readonly ZipEntry[]) {
    this.source = source;
    this.entries = new Map(entries.map((entry) => [entry.name, entry]));
  }

  /**
   * Reads and checks the directory.
   * @throws {SyntaxError} If it is no zip file, or one of a kind that is not read.
   * @throws {RangeError} If entries lie outside the file or over each other.
   */
  static async open(source: Source): Promise<ZipFile> {
    const entries = await readDirectory(source);
    return new ZipFile(source, entries);
  }

  /**
   * Opens a file of the archive. A compressed one is inflated first, and checked.
   * @throws {RangeError} If there is none, it is damaged, or inflates to more than 2 GiB.
   */
  async open(name: string): Promise<Source> {
    const entry = this.#entry(name);
    const start = await this.#dataStart(entry);
    const title = `${this.source.name}" ("${name})`;
    if (entry.isCompressed) {
      return memorySource(title, await this.bytes(name, MAX_INFLATED_BYTES));
    }
    const { source } = this;
    return {
      name: title,
      byteLength: entry.byteLength,
      async read(from, to): Promise<Uint8Array<ArrayBuffer>> {
        checkRange(title, entry.byteLength, from, to);
        return await source.read(start + from, start + to);
      },
    };
  }

  /**
   * A file of the archive whole, its checksum checked.
   * @throws {RangeError} If there is none, it is larger than `limit`, or damaged.
   */
  async bytes(name: string, limit: number): Promise<Uint8Array<ArrayBuffer>> {
    const entry = this.#entry(name);
    if (entry.byteLength > limit) {
      throw this.#damaged(
        entry,
        `expected at most ${limit} bytes: got ${entry.byteLength}`,
        "save it uncompressed, or fetch it again",
      );
    }
    const start = await this.#dataStart(entry);
    const bytes = entry.isCompressed
      ? await this.#inflate(entry, start, entry.byteLength)
      : await this.source.read(start, start + entry.storedBytes);
    const sum = crc32(bytes);
    if (sum === entry.crc32) return bytes;
    throw this.#damaged(
      entry,
      `expected bytes of checksum ${hex(entry.crc32)}: got ${hex(sum)}`,
    );
  }

  /** The first bytes of a file of the archive, `n` or as many as there are; their checksum is not known. */
  async head(name: string, n: number): Promise<Uint8Array<ArrayBuffer>> {
    const entry = this.#entry(name);
    const start = await this.#dataStart(entry);
    const end = Math.min(n, entry.byteLength);
    return entry.isCompressed
      ? await this.#inflate(entry, start, end)
      : await this.source.read(start, start + end);
  }

  #entry(name: string): ZipEntry {
    const entry = this.entries.get(name);
    if (entry) return entry;
    throw new RangeError(
      `Cannot read "${this.source.name}": no entry ${quote(name)}: ${FIX}`,
    );
  }

  /** First byte behind the header in front of an entry. */
  async #dataStart(entry: ZipEntry): Promise<number> {
    const { headerStart } = entry;
    const { signature, bytes } = LOCAL_HEADER;
    const header = view(
      await this.source.read(headerStart, headerStart + bytes),
    );
    if (header.getUint32(0, true) !== signature) {
      throw this.#damaged(entry, `expected its header at byte ${headerStart}`);
    }
    const start = headerStart + bytes + header.getUint16(26, true) +
      header.getUint16(28, true);
    if (start + entry.storedBytes <= entry.limit) return start;
    throw this.#damaged(
      entry,
      `expected it to end before byte ${entry.limit}: got ${
        start + entry.storedBytes
      }`,
    );
  }

  /** The first `n` bytes of a compressed entry; of all of them, checks that there are no more. */
  async #inflate(
    entry: ZipEntry,
    start: number,
    n: number,
  ): Promise<Uint8Array<ArrayBuffer>> {
    if (entry.byteLength > entry.storedBytes * MAX_EXPANSION) {
      throw this.#damaged(
        entry,
        `expected at most ${MAX_EXPANSION} times its ${entry.storedBytes} compressed bytes: got ${entry.byteLength}`,
      );
    }
    const bytes = new Uint8Array(n);
    let filled = 0;
    try {
      for await (const chunk of inflated(this.source, entry, start)) {
        const rest = chunk.subarray(0, n - filled);
        bytes.set(rest, filled);
        filled += chunk.length;
        if (filled > n || (filled === n && n < entry.byteLength)) break;
      }
    } catch (cause) {
      const reason = cause instanceof Error ? cause.message : String(cause);
      throw this.#damaged(entry, reason.replace(/\s+/g, " "));
    }
    if (filled === n || (filled > n && n < entry.byteLength)) return bytes;
    throw this.#damaged(
      entry,
      `expected ${entry.byteLength} bytes: got ${filled > n ? "more" : filled}`,
    );
  }

  #damaged(entry: ZipEntry, what: string, fix = FIX): RangeError {
    return new RangeError(
      `Cannot read entry ${
        quote(entry.name)
      } of "${this.source.name}": ${what}: ${fix}`,
    );
  }
}

function hex(value: number): string {
  return value.toString(16).padStart(8, "0");
}

const INFLATE_CHUNK_BYTES = 2 ** 20;

/** What a compressed entry holds, a chunk at a time. */
async function* inflated(
  source: Source,
  { storedBytes }: ZipEntry,
  start: number,
): AsyncGenerator<Uint8Array> {
  let at = 0;
  const compressed = new ReadableStream<Uint8Array<ArrayBuffer>>({
    async pull(controller): Promise<void> {
      if (at >= storedBytes) return controller.close();
      const end = Math.min(at + INFLATE_CHUNK_BYTES, storedBytes);
      controller.enqueue(await source.read(start + at, start + end));
      at = end;
    },
  });
  yield* compressed.pipeThrough(new DecompressionStream("deflate-raw"));
}
