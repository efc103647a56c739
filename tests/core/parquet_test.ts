import assert from "node:assert/strict";
import type { CompressionCodec } from "hyparquet";
import { ByteWriter, ParquetWriter } from "hyparquet-writer";
import { ParquetFile } from "../../core/parquet.ts";
import { memorySource, type Source } from "../../core/source.ts";
import { joined } from "../joined.ts";
import { rejectsInOneLine } from "../rejects_in_one_line.ts";

/** A data page of one text: its header says how long the body becomes, whatever that is. */
function textPage(body: Uint8Array, n_bytes: number): Uint8Array<ArrayBuffer> {
  const header = new ByteWriter(64);
  const field = (value: number): void => {
    header.appendUint8(1 << 4 | 5);
    header.appendZigZag(value);
  };
  [0, n_bytes, body.length].forEach(field);
  header.appendUint8(2 << 4 | 12);
  [1, 0, 3, 3].forEach(field);
  header.appendBytes(Uint8Array.of(0, 0));
  return joined([new Uint8Array(header.getBuffer()), body]);
}

/** A file with a column of texts, one a page. */
function textFile(codec: CompressionCodec, pages: Uint8Array[]): Source {
  const writer = new ByteWriter();
  const file = new ParquetWriter({
    writer,
    schema: [
      { name: "root", num_children: 1 },
      { name: "text", type: "BYTE_ARRAY", repetition_type: "REQUIRED" },
    ],
  });
  const bytes = joined(pages);
  writer.appendBytes(bytes);
  const size = BigInt(bytes.length);
  const n = BigInt(pages.length);
  const meta_data = {
    type: "BYTE_ARRAY" as const,
    encodings: ["PLAIN" as const],
    path_in_schema: ["text"],
    codec,
    num_values: n,
    total_uncompressed_size: size,
    total_compressed_size: size,
    data_page_offset: 4n,
  };
  const columns = [{ file_offset: 0n, meta_data }];
  file.row_groups = [{ columns, total_byte_size: size, num_rows: n }];
  file.num_rows = n;
  file.finish();
  return memorySource("a.parquet", new Uint8Array(writer.getBuffer()));
}

const CAT = Uint8Array.of(3, 0, 0, 0, 99, 97, 116);

async function texts(source: Source): Promise<string[]> {
  const file = await ParquetFile.open(source);
  const values = await file.read("text", 0);
  return Array.from(
    values,
    (value) => new TextDecoder().decode(value as Uint8Array),
  );
}

Deno.test("ParquetFile gives a failure of its source as it is, and does not call the file damaged", async () => {
  const good = textFile("UNCOMPRESSED", [textPage(CAT, CAT.length)]);
  assert.deepEqual(await texts(good), ["cat"]);
  const stopped = new Error("stopped by SIGTERM");
  for (const nReads of [0, 1, 2]) {
    let n = 0;
    const failing: Source = {
      ...good,
      read: (start, end) =>
        n++ < nReads ? good.read(start, end) : Promise.reject(stopped),
    };
    await assert.rejects(texts(failing), (error) => error === stopped);
  }
});

Deno.test("ParquetFile refuses a column when its pages would take far more memory than the file", async () => {
  // Five pages of a few bytes that become 256 MiB each.
  const page = textPage(new Uint8Array(8), 2 ** 28);
  await rejectsInOneLine(
    () => texts(textFile("ZSTD", Array(5).fill(page))),
    /^RangeError: Cannot read "a\.parquet": expected at most 1073741824 bytes of column "text" in a row group: got 1342177280: write it with smaller row groups$/,
  );
});

Deno.test("ParquetFile refuses a compression that cannot be bounded, or is not known", async () => {
  for (const codec of ["BROTLI", "LZO"] as const) {
    await rejectsInOneLine(
      () => texts(textFile(codec, [textPage(new Uint8Array(8), 7)])),
      new RegExp(
        `^RangeError: Cannot read "a\\.parquet": expected column "text" compressed with SNAPPY, .* or nothing: got ${codec}: write`,
      ),
    );
  }
});
