import assert from "node:assert/strict";
import { contextText } from "../../steer/top_contexts.ts";
import { directory } from "../../core/files.ts";
import { Tokenizer } from "../../core/tokenizer.ts";

const MODEL = new URL("../../models/tiny-olmo2", import.meta.url).pathname;

/** The text of a context whose tokens fire where `fires` says, by the text of the token. */
async function textOf(
  text: string,
  fires: (token: string) => boolean,
  marks?: readonly [string, string],
): Promise<string> {
  const tokenizer = await Tokenizer.load(directory(MODEL));
  const ids = tokenizer.encode(text, { addSpecial: false });
  const acts = ids.map((id) => fires(tokenizer.token(id)) ? 1 : 0);
  const place = { document: "a", position: 0, activation: 1, start: 0 };
  return contextText({ ...place, ids, acts }, tokenizer, marks);
}

Deno.test("contextText() marks runs of tokens that fire, without the spaces before them", async () => {
  assert.equal(
    await textOf("The dog ran home.", (token) => / dog| ran/.test(token)),
    "The «dog ran» home.",
  );
  assert.equal(
    await textOf("The dog ran home.", (token) => !/ ran/.test(token)),
    "«The dog» ran «home.»",
  );
  assert.equal(
    await textOf("The dog ran.", (token) => / dog/.test(token), [
      "<b>",
      "</b>",
    ]),
    "The <b>dog</b> ran.",
  );
});

Deno.test("contextText() is one line without special tokens", async () => {
  assert.equal(
    await textOf("<|endoftext|>One.\n\nTwo  three.", () => false),
    "One. Two three.",
  );
});

Deno.test("contextText() keeps characters of several tokens whole", async () => {
  const text = "It is 🦕 now.";
  assert.equal(await textOf(text, () => false), text);
  const marked = await textOf(text, (token) => token.includes("\\x"));
  assert.equal(marked.replace(/[«»]/g, ""), text);
  assert.match(marked, /«🦕»/u);
});
