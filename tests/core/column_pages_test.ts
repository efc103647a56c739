import assert from "node:assert/strict";
import { gzipSync } from "fflate";
import { type LeafColumn, pagesOf, partsOf } from "../../core/column_pages.ts";
import { DECOMPRESSORS } from "../../core/decompress.ts";
import { decodeBinary, decodeLists } from "../../core/fixed_width.ts";
import { dataPageHeader } from "../../core/parquet_chunks.ts";
import { joined } from "../joined.ts";

const LISTS: LeafColumn = {
  path: ["residual_stream", "list", "element"],
  type: "INT32",
  isUint16: true,
  maxDefinition: 3,
  maxRepetition: 1,
};
const BINARY: LeafColumn = {
  path: ["residual"],
  type: "BYTE_ARRAY",
  isUint16: false,
  maxDefinition: 0,
  maxRepetition: 0,
};

/** Two lists of two: levels as runs and packed bits, with their lengths, then the values of 32 bits. */
function listPage(
  { starts = 0b1010, level = 3, values = [1, 2, 3, 4] }: {
    readonly starts?: number;
    readonly level?: number;
    readonly values?: readonly number[];
  } = {},
): Uint8Array<ArrayBuffer> {
  const levels = [2, 0, 0, 0, 3, starts, 2, 0, 0, 0, 8, level];
  const words = new Uint8Array(Int32Array.from(values).buffer);
  return joined([Uint8Array.from(levels), words]);
}

function withHeader(
  body: Uint8Array<ArrayBuffer>,
  n_values = 4,
  n_bytes = body.length,
): Uint8Array<ArrayBuffer> {
  return joined([dataPageHeader(n_values, n_bytes), body]);
}

function decoded(body: Uint8Array<ArrayBuffer>): number[] | undefined {
  const pages = pagesOf(withHeader(body), LISTS, "UNCOMPRESSED", 4);
  const bits = decodeLists(pages, 2);
  return bits && [...bits];
}

Deno.test("decodeLists() reads a page and does not know it when lists are of other widths or something is absent", () => {
  assert.deepEqual(decoded(listPage()), [1, 2, 3, 4]);
  assert.equal(decoded(listPage({ starts: 0b0110 })), undefined);
  assert.equal(decoded(listPage({ starts: 0b1110 })), undefined);
  assert.equal(decoded(listPage({ starts: 0b1011 })), undefined);
  assert.equal(decoded(listPage({ level: 2 })), undefined);
});

Deno.test("decodeLists() refuses a page when it has too few bytes, levels or values of 16 bits", () => {
  const page = listPage();
  assert.throws(() => decoded(page.slice(0, -1)), /^RangeError: .*4 values/);
  assert.throws(() => decoded(page.slice(0, 9)), /^RangeError: .*levels/);
  assert.throws(
    () => decoded(listPage({ values: [1, 65_536, 3, 4] })),
    /^RangeError: .*16 bits/,
  );
  assert.throws(
    () => decoded(listPage({ values: [1, -1, 3, 4] })),
    /^RangeError: .*16 bits/,
  );
  const longRun = page.slice();
  longRun[10] = 10; // five levels of four
  assert.throws(() => decoded(longRun), /^RangeError: .*4 encoded values/);
});

Deno.test("decodeLists() refuses indices when the dictionary has no such value", () => {
  const pages = (index: number) => {
    const runs = Uint8Array.from([2, 0, 0, 0, 3, 10, 2, 0, 0, 0, 8, 3]);
    const common = { hasRuns: true, codec: "UNCOMPRESSED" } as const;
    const words = new Uint8Array(Int32Array.from([7, 9]).buffer);
    const indices = Uint8Array.from([2, 3, index, 0]);
    const body = joined([runs, indices]);
    return {
      leaf: LISTS,
      n_values: 4,
      pages: [
        {
          ...{ ...common, kind: "dictionary", encoding: 0 } as const,
          ...{ n_values: 2, body: words, n_bytes: words.length },
        },
        {
          ...{ ...common, kind: "data", encoding: 8 } as const,
          ...{ n_values: 4, body, n_bytes: body.length },
        },
      ],
    };
  };
  assert.deepEqual([...decodeLists(pages(0b01000100), 2)!], [7, 9, 7, 9]);
  assert.throws(
    () => decodeLists(pages(0b11000100), 2),
    /^RangeError: .*indices below 2.*got 3/,
  );
});

Deno.test("decodeBinary() refuses a page when a value has another length", () => {
  const body = Uint8Array.from([2, 0, 0, 0, 1, 2, 2, 0, 0, 0, 3, 4]);
  const bits = (bytes: Uint8Array<ArrayBuffer>) =>
    decodeBinary(
      pagesOf(withHeader(bytes, 2), BINARY, "UNCOMPRESSED", 2),
      2,
    );
  assert.deepEqual([...bits(body)!], [0x0201, 0x0403]);
  assert.throws(
    () => bits(body.with(6, 1)),
    /^RangeError: .*of 2 bytes: got 1 in value 1/,
  );
  assert.throws(() => bits(body.slice(0, -1)), /^RangeError: .*of 2 bytes/);
});

Deno.test("decodeBinary() moves long values of several pages together where they are", () => {
  const rowBytes = 1024;
  const rows = new Uint8Array(7 * rowBytes).map((_, i) => i % 251);
  const row = (i: number) =>
    joined([
      new Uint8Array(Int32Array.of(rowBytes).buffer),
      rows.subarray(i * rowBytes, (i + 1) * rowBytes),
    ]);
  const file = joined([
    withHeader(joined([row(0), row(1), row(2)]), 3),
    withHeader(row(3), 1),
    withHeader(joined([row(4), row(5), row(6)]), 3),
  ]);
  const pages = pagesOf(file, BINARY, "UNCOMPRESSED", 7);
  const bits = decodeBinary(pages, rowBytes)!;
  assert.equal(bits.buffer, file.buffer);
  assert.deepEqual(bits, new Uint16Array(rows.buffer));
});

Deno.test("pagesOf() refuses sizes and counts that the column cannot have", () => {
  const page = listPage();
  const pages = (bytes: Uint8Array<ArrayBuffer>, n_values = 4) => () =>
    pagesOf(bytes, LISTS, "UNCOMPRESSED", n_values);
  assert.equal(pages(withHeader(page))().pages.length, 1);
  assert.throws(pages(withHeader(page, 4, page.length + 1)), /0 to 28 in fie/);
  assert.throws(pages(withHeader(page, 4, -1)), /^RangeError: .*got -1/);
  assert.throws(pages(withHeader(page, 2 ** 30)), /0 to 16777216 in field 1/);
  assert.throws(pages(withHeader(page), 5), /expected 5 values .*: got 4/);
  assert.throws(pages(withHeader(page), 3), /expected 3 values .*: got 4/);
  assert.throws(pages(withHeader(page).slice(0, 7)), /header is cut off/);
});

Deno.test("pagesOf() refuses a page when it says that it is longer than its bytes, which are not compressed", () => {
  const bytes = withHeader(listPage());
  assert.equal(bytes[3], 56); // 28 bytes, as zigzag has it
  const larger = bytes.with(3, 58);
  assert.throws(
    () => pagesOf(larger, LISTS, "UNCOMPRESSED", 4),
    /^RangeError: .*a page of 28 bytes/,
  );
  // Compressed, it may be longer, and then it must decompress to as much.
  const { pages: [page] } = pagesOf(larger, LISTS, "SNAPPY", 4);
  assert.throws(() => partsOf(page!, LISTS), Error);
  // Not as long as 2000 bytes, which four values of 32 bits and their levels cannot have.
  const size = Uint8Array.from([0xa0, 31]);
  const huge = joined([bytes.slice(0, 3), size, bytes.slice(4)]);
  assert.throws(
    () => pagesOf(huge, LISTS, "SNAPPY", 4),
    /^RangeError: .*0 to 1088 in field 2 .*got 2000/,
  );
});

Deno.test("DECOMPRESSORS refuse bytes that would become more than the page has", () => {
  const { SNAPPY, ZSTD } = DECOMPRESSORS;
  assert.throws(
    () => SNAPPY!(new Uint8Array(100), 2 ** 27),
    /^RangeError: .*at most 2264 bytes in a page of 100/,
  );
  assert.throws(() => ZSTD!(new Uint8Array(100), 2 ** 30), /^RangeError: /);
  const magic = [0x28, 0xb5, 0x2f, 0xfd];
  // A block of 7 times 5, the last one.
  const frame = [...magic, 0x20, 7, (7 << 3) | 3, 0, 0, 5];
  assert.deepEqual([...ZSTD!(Uint8Array.from(frame), 7)], Array(7).fill(5));
  const refuses = (bytes: number[], n: number, pattern: RegExp): void =>
    assert.throws(() => ZSTD!(Uint8Array.from(bytes), n), pattern);
  refuses(frame, 8, /^RangeError: .*of 8 bytes: got 7/);
  refuses(frame, 6, /^RangeError: .*of 6 bytes: got more/);
  refuses([...frame, ...frame], 14, /^RangeError: .*one frame/);
  // A frame that says it has, or looks back, 1 GiB.
  refuses([...magic, 0xa0, 0, 0, 0, 64, 3, 0, 0], 7, /window of 1073741824/);
  refuses([...magic, 0, 20 << 3, 3, 0, 0], 7, /window of 1073741824/);
});

Deno.test("DECOMPRESSORS refuse pages that become shorter than they say, or are cut off", () => {
  const page = Uint8Array.from(
    { length: 3000 },
    (_, i) => i * i % 251 ^ i >> 4,
  );
  const { GZIP, LZ4, LZ4_RAW } = DECOMPRESSORS;
  // One run of literals: 15, then 11 times 255, then the rest.
  const block = [0xf0, ...Array(11).fill(255), 3000 - 15 - 11 * 255, ...page];
  // Then 5 and 4 bytes of before, and the last literal.
  const repeating = [0x51, 1, 2, 3, 4, 5, 5, 0, 0x10, 9];
  const frame = [0, 0, 0, 11, 0, 0, 0, repeating.length, ...repeating];
  const repeated = [1, 2, 3, 4, 5, 1, 2, 3, 4, 5, 9];
  const members = [...gzipSync(page.slice(0, 9)), ...gzipSync(page.slice(9))];
  const wholes: [typeof GZIP, number[], number[]][] = [
    [GZIP, [...gzipSync(page)], [...page]],
    [GZIP, members, [...page]],
    [LZ4_RAW, block, [...page]],
    [LZ4_RAW, repeating, repeated],
    [LZ4, repeating, repeated],
    [LZ4, [...frame, ...frame], [...repeated, ...repeated]],
  ];
  for (const [decompress, bytes, want] of wholes) {
    const run = (n: number, n_bytes: number): Uint8Array =>
      decompress!(Uint8Array.from(bytes.slice(0, n)), n_bytes);
    assert.deepEqual([...run(bytes.length, want.length)], want);
    assert.throws(() => run(bytes.length, want.length + 1), /^RangeError: /);
    assert.throws(() => run(bytes.length, want.length - 1), /^RangeError: /);
    for (const n of [bytes.length >> 1, bytes.length - 9, 5, 3]) {
      assert.throws(() => run(n, want.length), Error, `${n} bytes`);
    }
  }
});
