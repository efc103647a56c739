/**
 * A part of a file as a Blob that is read when it is wanted, for requests that send gigabytes.
 * @module
 */
import { told } from "../core/files.ts";

const CHUNK_BYTES = 256 * 1024;

/** Bytes `[start, end)` of a file. */
export class FileBlob extends Blob {
  readonly #path: string;
  readonly #start: number;
  readonly #end: number;
  readonly #onRead: (nBytes: number) => void;

  private constructor(
    path: string,
    start: number,
    end: number,
    onRead: (nBytes: number) => void = () => {},
  ) {
    super();
    this.#path = path;
    this.#start = start;
    this.#end = end;
    this.#onRead = onRead;
  }

  /**
   * A whole file, as long as it is now.
   * @throws {Error} If there is none.
   */
  static async open(path: string): Promise<FileBlob> {
    const { size } = await told("open", path, () => Deno.stat(path));
    return new FileBlob(path, 0, size);
  }

  /** The same bytes; `onRead` is told of those that are read of this one. */
  counted(onRead: (nBytes: number) => void): FileBlob {
    return new FileBlob(this.#path, this.#start, this.#end, onRead);
  }

  /** Number of bytes. */
  override get size(): number {
    return this.#end - this.#start;
  }

  /** Bytes [start, end) of these. */
  override slice(start = 0, end = this.size): FileBlob {
    return new FileBlob(
      this.#path,
      Math.min(this.#start + start, this.#end),
      Math.min(this.#start + end, this.#end),
    );
  }

  /** The bytes, as they are read; fails where the file has become shorter. */
  override stream(): ReadableStream<Uint8Array<ArrayBuffer>> {
    const path = this.#path;
    let file: Deno.FsFile | undefined;
    let left = this.size;
    const close = (): void => {
      file?.close();
      file = undefined;
    };
    return new ReadableStream({
      start: async () => {
        file = await told("open", path, () => Deno.open(path));
        await file.seek(this.#start, Deno.SeekMode.Start);
      },
      pull: async (controller) => {
        const chunk = new Uint8Array(Math.min(CHUNK_BYTES, left));
        const n = left === 0 ? 0 : await file!.read(chunk);
        if (n === null) {
          close();
          throw new Error(`Cannot read "${path}": it has become shorter`);
        }
        left -= n;
        if (n > 0) controller.enqueue(chunk.subarray(0, n));
        this.#onRead(n);
        if (left > 0) return;
        close();
        controller.close();
      },
      cancel: close,
    });
  }

  /** All bytes at once. */
  override async arrayBuffer(): Promise<ArrayBuffer> {
    return await new Response(this.stream()).arrayBuffer();
  }

  /** All bytes as text. */
  override async text(): Promise<string> {
    return await new Response(this.stream()).text();
  }
}
