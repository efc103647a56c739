import assert from "node:assert/strict";
import { directory } from "../../core/files.ts";
import { Rng } from "../../core/rng.ts";
import { Tokenizer } from "../../core/tokenizer.ts";
import { ReplyText } from "../../steer/reply_text.ts";

/** A decoder whose tokens are UTF-16 code units. */
const letters = () => ({
  push: (id: number) => String.fromCharCode(id),
  end: () => "",
});

/** All that comes of a text, and how many letters of it were taken. */
function read(text: string, stops: readonly string[]): [string, number] {
  const reply = new ReplyText(letters(), stops);
  let shown = "";
  let n = 0;
  while (n < text.length && !reply.isStopped) {
    shown += reply.push(text.charCodeAt(n++));
    assert.ok(text.startsWith(shown));
  }
  return [shown + reply.end(), n];
}

Deno.test("ReplyText ends exactly before the first stop string", () => {
  assert.deepEqual(read("one two three", ["two"]), ["one ", 7]);
  assert.deepEqual(read("one two three", ["three", " t"]), ["one", 5]);
  assert.deepEqual(read("aab", ["ab"]), ["a", 3]);
  assert.deepEqual(read("ababac", ["abac"]), ["ab", 6]);
  assert.deepEqual(read("abc", ["abc", "b"]), ["a", 2]);
  assert.deepEqual(read("stop", ["stop"]), ["", 4]);
});

Deno.test("ReplyText gives all of the text when no stop string comes, or only begins", () => {
  assert.deepEqual(read("one two", ["three"]), ["one two", 7]);
  assert.deepEqual(read("one twothre", ["three"]), ["one twothre", 11]);
  assert.deepEqual(read("one two", []), ["one two", 7]);
  assert.deepEqual(read("", ["x"]), ["", 0]);
});

Deno.test("ReplyText holds back no more than may begin a stop string", () => {
  const reply = new ReplyText(letters(), ["\n\nUser:"]);
  const pieces = [..."Hi\n\nUs no\n"].map((letter) =>
    reply.push(letter.charCodeAt(0))
  );
  assert.deepEqual(pieces, [
    "H",
    "i",
    "",
    "",
    "",
    "",
    "\n\nUs ",
    "n",
    "o",
    "",
  ]);
  assert.equal(reply.end(), "\n");
});

Deno.test("ReplyText agrees with a search of the whole text, on random texts and stops", () => {
  const rng = new Rng(11);
  for (let i = 0; i < 2000; i++) {
    const word = (most: number) =>
      Array.from({ length: 1 + rng.below(most) }, () => "ab"[rng.below(2)])
        .join("");
    const text = word(12);
    const stops = Array.from({ length: 1 + rng.below(3) }, () => word(4));
    // The stop that is complete first; of those that end together, the longest.
    let want = text;
    for (let n = 1; n <= text.length && want === text; n++) {
      const ended = stops.filter((stop) => text.slice(0, n).endsWith(stop));
      if (ended.length > 0) {
        want = text.slice(0, n - Math.max(...ended.map((s) => s.length)));
      }
    }
    assert.equal(read(text, stops)[0], want, `${text} at ${stops}`);
  }
});

Deno.test("ReplyText finds a stop string across tokens that split a character", async () => {
  const folder = new URL("../../models/tiny-olmo2", import.meta.url).pathname;
  const tokenizer = await Tokenizer.load(directory(folder));
  const text = "Ein Drache 🐉 fliegt";
  const reply = new ReplyText(tokenizer.streamDecoder(), ["🐉"]);
  let shown = "";
  for (const id of tokenizer.encode(text, { addSpecial: false })) {
    shown += reply.push(id);
  }
  assert.equal(shown + reply.end(), "Ein Drache ");
  assert.ok(reply.isStopped);
  assert.throws(
    () => new ReplyText(tokenizer.streamDecoder(), [""]),
    /^RangeError: Cannot stop at a string: expected at least one character/,
  );
});
