import assert from "node:assert/strict";
import { csvLine, readCsv } from "../../core/csv.ts";
import { memorySource, type Source } from "../../core/source.ts";
import { rejectsInOneLine } from "../rejects_in_one_line.ts";

const file = (text: string | Uint8Array): Source =>
  memorySource(
    "a.csv",
    typeof text === "string" ? new TextEncoder().encode(text) : text,
  );

async function rows(text: string): Promise<(readonly string[])[]> {
  const read = await Array.fromAsync(readCsv(file(text)));
  assert.deepEqual(
    read.map(({ number }) => number),
    [...read.keys()].map((i) => i + 1),
  );
  return read.map(({ fields }) => fields);
}

Deno.test("readCsv() reads quotes, line breaks in fields, and both kinds of line breaks", async () => {
  assert.deepEqual(await rows('a,b\r\n1,"x, ""y""\r\nz"\n,\n'), [
    ["a", "b"],
    ["1", 'x, "y"\r\nz'],
    ["", ""],
  ]);
  assert.deepEqual(await rows("a\n1"), [["a"], ["1"]]);
  assert.deepEqual(await rows('a\n""'), [["a"], [""]]);
  assert.deepEqual(await rows("a,b\n1,"), [["a", "b"], ["1", ""]]);
  assert.deepEqual(await rows(""), []);
  assert.deepEqual(await rows("\ufeffa\n"), [["a"]]);
});

Deno.test("readCsv() reads back what csvLine() writes, across chunks", async () => {
  const hostile = ['"', '""', ",", "\n", "\r\n", "é😀", "", " x ", '",\n"'];
  const long = 'é,"\n'.repeat(250_000); // 1.25 MB: chunks end inside quotes and characters
  const table = [["a", "b"], ...hostile.map((text) => [text, long])];
  const text = table.map((row) => csvLine(row) + "\r\n").join("");
  assert.deepEqual(await rows(text), table);
});

Deno.test("readCsv() refuses what is no CSV, naming the row", async () => {
  const cases: readonly (readonly [string, RegExp])[] = [
    ["a,b\n1\n", /row 2: expected 2 fields, as the heading has: got 1/],
    ["a,b\n1,2,3\n", /row 2: expected 2 fields, .+: got more/],
    ["a,b\n\n", /row 2: expected 2 fields, .+: got 1/],
    ['a\n"x', /row 2: expected a closing quote/],
    ['a\nx"y\n', /row 2: expected no quote inside a field without quotes/],
    ['a\n"x"y\n', /row 2: expected a comma or a line break after a closing/],
    ["a\rb\n", /row 1: expected a line break after a carriage return/],
    ["a\r", /row 1: expected a line break after a carriage return/],
    [",".repeat(5000), /RangeError.+expected at most 1024 columns: got more/],
    ['a\n"' + "x".repeat(2 ** 24 + 1), /RangeError.+a quote may be missing/],
  ];
  for (const [text, pattern] of cases) {
    await rejectsInOneLine(() => rows(text), pattern);
  }
  await rejectsInOneLine(
    () => Array.fromAsync(readCsv(file(Uint8Array.of(97, 0xff, 10)))),
    /^SyntaxError: Cannot read "a.csv": expected UTF-8/,
  );
});
