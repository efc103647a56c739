import assert from "node:assert/strict";
import { sideBySide, wrap } from "../../tasks/columns.ts";

const LEFT = { title: "unsteered", text: "one two three" };
const RIGHT = {
  title: "7=5x (ice hockey)",
  text: "word ".repeat(12).trimEnd() + "\n\nend",
};

Deno.test("sideBySide() writes two columns when the terminal is wide enough", () => {
  const bar = "─".repeat(36);
  const pad = (text: string) => text.padEnd(36);
  assert.equal(
    sideBySide(LEFT, RIGHT, 77),
    [
      `${pad("unsteered")}  │  7=5x (ice hockey)`,
      `${bar}  │  ${bar}`,
      `${pad("one two three")}  │  word word word word word word word`,
      `${pad("")}  │  word word word word word`,
      `${pad("")}  │  `,
      `${pad("")}  │  end\n`,
    ].join("\n"),
  );
  const lines = sideBySide(LEFT, RIGHT, 200).trimEnd().split("\n");
  assert.ok(lines.every((line) => line.length <= 200));
});

Deno.test("sideBySide() writes one after the other when the terminal is narrow or absent", () => {
  const want =
    `unsteered:\none two three\n\n7=5x (ice hockey):\n${RIGHT.text}\n`;
  assert.equal(sideBySide(LEFT, RIGHT, 76), want);
  assert.equal(sideBySide(LEFT, RIGHT, undefined), want);
});

Deno.test("wrap() loses nothing but the spaces at which it breaks", () => {
  assert.deepEqual(wrap("", 5), [""]);
  assert.deepEqual(wrap("abcde", 5), ["abcde"]);
  assert.deepEqual(wrap("ab cde fg", 6), ["ab cde", "fg"]);
  assert.deepEqual(wrap("abcdefghij k", 4), ["abcd", "efgh", "ij k"]);
  assert.deepEqual(wrap("a\n\nb", 4), ["a", "", "b"]);
});
