import assert from "node:assert/strict";
import { directory } from "../../core/files.ts";
import { storybook } from "../../core/storybook.ts";
import {
  conceptsOfTokens,
  tokenizeDocuments,
} from "../../core/tokenized_text.ts";
import { Tokenizer } from "../../core/tokenizer.ts";

const START = 0; // <|endoftext|> of the embedded model
const tokenizer = await Tokenizer.load(
  directory(new URL("../../models/tiny-olmo2", import.meta.url).pathname),
);

Deno.test("tokenizeDocuments() starts every document with the start token and cuts it", async () => {
  const documents = [
    { id: "a", text: "The dog barked. ".repeat(40) },
    { id: "b", text: "Hi." },
    { id: "c", text: "<|endoftext|>Hi." },
  ];
  const options = { startTokenId: START, contextLength: 16 };
  const [a, b, c] = await Array.fromAsync(
    tokenizeDocuments(documents, tokenizer, options),
  );
  const ids = tokenizer.encode(documents[0]!.text, { addSpecial: false });
  assert.deepEqual([...a!.ids], [START, ...ids.slice(0, 15)]);
  assert.deepEqual([...a!.starts.slice(0, 3)], [-1, 0, 3]);
  assert.equal(a!.starts.length, 16);
  assert.deepEqual([...b!.ids].slice(0, 1), [START]);
  assert.deepEqual(c!.ids, b!.ids);
  assert.equal(c!.starts[0], 0);
  assert.deepEqual([a!, b!, c!].map(({ index, id }) => [index, id]), [
    [0, "a"],
    [1, "b"],
    [2, "c"],
  ]);
});

Deno.test("tokenizeDocuments() writes conversations with the chat template", async () => {
  const messages = [
    { role: "user", content: "Hi?" },
    { role: "assistant", content: "Hello." },
  ] as const;
  const [chat] = await Array.fromAsync(
    tokenizeDocuments([{ id: "a", messages }], tokenizer, {
      startTokenId: START,
      contextLength: 512,
    }),
  );
  assert.equal(chat!.text, tokenizer.applyChatTemplate(messages));
  const ids = tokenizer.encode(chat!.text, { addSpecial: false });
  assert.deepEqual([...chat!.ids], ids);
  assert.equal(ids.filter((id) => id === START).length, 2);
});

Deno.test("conceptsOfTokens() labels a token by the span of its first character", () => {
  const spans = [
    { start: 0, end: 4, concept: "dog" },
    { start: 5, end: 9, concept: "farm" },
  ];
  const starts = Int32Array.of(-1, 0, 3, 4, 5, 8, 9);
  assert.deepEqual(conceptsOfTokens({ starts, spans }), [
    undefined,
    "dog",
    "dog",
    undefined,
    "farm",
    "farm",
    undefined,
  ]);
  assert.deepEqual(conceptsOfTokens({ starts: Int32Array.of(0) }), [undefined]);
});

Deno.test("tokenizeDocuments() gives as many tokens as the reference run of the embedded model had", async () => {
  // models/tiny-olmo2/README.md: 3,000 documents, cut at 256, all tokens but the first of each.
  const documents = storybook(101).take(3000).map(({ text }) => ({
    id: "",
    text,
  }));
  const options = { startTokenId: START, contextLength: 256 };
  let nTokens = 0;
  for await (
    const { ids } of tokenizeDocuments(documents, tokenizer, options)
  ) {
    nTokens += ids.length - 1;
  }
  assert.equal(nTokens, 176_727);
});
