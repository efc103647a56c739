import assert from "node:assert/strict";
import { memorySource, type Source } from "../../core/source.ts";
import { ZipFile } from "../../core/zip.ts";
import { rejectsInOneLine } from "../rejects_in_one_line.ts";
import { latin1, type Packed, zip } from "./zip_for_tests.ts";

const HELLO = latin1("hello, hello, hello, hello, hello");

function open(bytes: Uint8Array): Promise<ZipFile> {
  return ZipFile.open(memorySource("a.zip", bytes));
}

Deno.test("ZipFile reads stored and compressed entries, with and without zip64, behind a comment", async () => {
  const files: Packed[] = [
    { name: "a", bytes: HELLO },
    { name: "b/c", bytes: HELLO, deflate: true },
    { name: "empty", bytes: new Uint8Array(0) },
  ];
  for (const wide of [false, true]) {
    const archive = await open(zip(files, { wide, comment: "PK\x05\x06" }));
    assert.deepEqual([...archive.entries.keys()], ["a", "b/c", "empty"]);
    for (const { name, bytes } of files) {
      assert.deepEqual(await archive.bytes(name, 100), bytes);
      const source = await archive.open(name);
      assert.equal(source.byteLength, bytes.length);
      assert.deepEqual(await archive.head(name, 7), bytes.slice(0, 7));
    }
    const source = await archive.open("b/c");
    assert.deepEqual(await source.read(7, 12), latin1("hello"));
  }
});

Deno.test("ZipFile reads a stored entry by range, no more than is asked", async () => {
  const bytes = zip([{ name: "a", bytes: new Uint8Array(10 ** 5).fill(7) }]);
  const ranges: number[] = [];
  const source: Source = {
    ...memorySource("a.zip", bytes),
    read(start, end) {
      ranges.push(end - start);
      return memorySource("a.zip", bytes).read(start, end);
    },
  };
  const entry = await (await ZipFile.open(source)).open("a");
  ranges.length = 0;
  assert.deepEqual(await entry.read(5, 8), Uint8Array.of(7, 7, 7));
  assert.deepEqual(ranges, [3]);
});

Deno.test("ZipFile.open() refuses what is no zip file, or a directory that does not fit it", async () => {
  const one = (change: Partial<Packed>): Uint8Array =>
    zip([{ name: "a", bytes: HELLO, ...change }, { name: "b", bytes: HELLO }]);
  const good = zip([{ name: "a", bytes: HELLO }]);
  const cases: [string, Uint8Array, RegExp][] = [
    ["nothing", new Uint8Array(0), /^SyntaxError: .*got no directory/],
    ["noise", HELLO, /^SyntaxError: .*got no directory/],
    ["cut off", good.slice(0, -1), /^SyntaxError: .*got no directory/],
    ["its start", good.slice(9), /^SyntaxError: .*zip directory of at most/],
    ["encrypted", one({ flags: 1 }), /^SyntaxError: .*got an encrypted one/],
    ["another method", one({ method: 12 }), /^SyntaxError: .*got method 12/],
    [
      "two lengths",
      one({ byteLength: 99 }),
      /^SyntaxError: .*expected 99 bytes of the stored entry "a": got 33/,
    ],
    [
      "over the next",
      one({ storedBytes: 60, byteLength: 60 }),
      /^RangeError: .*entry "a" to end before byte 64, where the next part/,
    ],
    [
      "behind the end",
      one({ headerStart: 2 ** 31 }),
      /^RangeError: .*entry "a" to end before byte/,
    ],
    [
      "twice the same bytes",
      zip([{ name: "a", bytes: HELLO }, {
        name: "b",
        bytes: HELLO,
        headerStart: 0,
      }]),
      /^RangeError: .*to end before byte 0/,
    ],
    [
      "one name",
      zip([{ name: "a", bytes: HELLO }, { name: "a", bytes: HELLO }]),
      /^SyntaxError: .*got two entries "a"/,
    ],
    [
      "too few",
      zip([{ name: "a", bytes: HELLO }], { nEntries: 2 }),
      /^SyntaxError: .*expected 2 entries: got 1/,
    ],
  ];
  for (const [label, bytes, pattern] of cases) {
    await rejectsInOneLine(() => open(bytes), pattern).catch((error) => {
      throw new Error(label, { cause: error });
    });
  }
});

Deno.test("ZipFile refuses entries that inflate to more, less or other than they claim, before it takes the memory", async () => {
  const bomb = new Uint8Array(10 ** 6);
  const cases: [Partial<Packed>, RegExp][] = [
    [{ crc: 1 }, /expected bytes of checksum 00000001: got/],
    [{ byteLength: 10 ** 6 - 1 }, /expected 999999 bytes: got more/],
    [{ byteLength: 10 ** 6 + 1 }, /expected 1000001 bytes: got 1000000/],
    [{ byteLength: 2 ** 30 }, /expected at most 1032 times its \d+ compressed/],
    [{ byteLength: 2 ** 31 + 1 }, /expected at most 2147483648 bytes: got/],
    [{ deflate: false, method: 8, storedBytes: 0 }, /at most 1032 times its 0/],
  ];
  for (const [change, pattern] of cases) {
    const bytes = zip([{ name: "a", bytes: bomb, deflate: true, ...change }]);
    const archive = await open(bytes);
    await rejectsInOneLine(() => archive.open("a"), pattern);
  }
  const noise = zip([{
    name: "a",
    bytes: HELLO,
    method: 8,
    byteLength: 34,
  }]);
  const damaged = await open(noise);
  await rejectsInOneLine(
    () => damaged.open("a"),
    /^RangeError: Cannot read entry "a" of "a.zip": .*damaged/,
  );
  const big = await open(zip([{ name: "a", bytes: HELLO }]));
  await rejectsInOneLine(
    () => big.bytes("a", 32),
    /expected at most 32 bytes: got 33/,
  );
  await rejectsInOneLine(() => big.open("b"), /no entry "b"/);
});

Deno.test("ZipFile refuses an entry whose own header is another, or pushes it over the next", async () => {
  const bytes = zip([{ name: "a", bytes: HELLO }, { name: "b", bytes: HELLO }]);
  const noHeader = bytes.slice();
  noHeader[0] = 0;
  await rejectsInOneLine(
    async () => (await open(noHeader)).open("a"),
    /expected its header at byte 0/,
  );
  const pushed = bytes.slice();
  pushed[28] = 5; // length of the extra field
  await rejectsInOneLine(
    async () => (await open(pushed)).open("a"),
    /expected it to end before byte 64: got 69/,
  );
});
