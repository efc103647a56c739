import assert from "node:assert/strict";
import { directory } from "../../core/files.ts";
import { type ChatMessage, Tokenizer } from "../../core/tokenizer.ts";
import { chatIds, fitConversation } from "../../tasks/conversation.ts";
import { MODEL } from "./made_sae.ts";

const turns = (n: number): ChatMessage[] =>
  Array.from({ length: n }, (_, i) => ({
    role: i % 2 === 0 ? "user" : "assistant",
    content: `message ${i} has some words`,
  }));

Deno.test("fitConversation() drops the oldest turns in pairs until the rest fits", async () => {
  const tokenizer = await Tokenizer.load(directory(MODEL));
  const system = "Be kind.";
  const all = turns(9);
  const lengthFrom = (first: number) =>
    chatIds(tokenizer, system, all.slice(first)).length;
  for (
    const [first, room] of [
      [0, lengthFrom(0)],
      [2, lengthFrom(0) - 1],
      [2, lengthFrom(2)],
      [8, lengthFrom(8)],
    ] as const
  ) {
    const fitted = fitConversation(tokenizer, system, all, room);
    assert.deepEqual(fitted.turns, all.slice(first));
    assert.equal(fitted.ids.length, lengthFrom(first));
    const text = tokenizer.decode(fitted.ids);
    assert.ok(text.includes("Be kind.") && text.endsWith("<|assistant|>\n"));
    assert.ok(text.includes(`message ${first} `));
    assert.ok(first === 0 || !text.includes(`message ${first - 1} `));
  }
});

Deno.test("fitConversation() refuses a message that does not fit alone", async () => {
  const tokenizer = await Tokenizer.load(directory(MODEL));
  const least = chatIds(tokenizer, undefined, turns(1)).length;
  assert.throws(
    () => fitConversation(tokenizer, undefined, turns(1), least - 1),
    new RegExp(
      `^RangeError: Cannot reply to a message of ${least} tokens: expected at most ${
        least - 1
      },`,
    ),
  );
  assert.throws(
    () => fitConversation(tokenizer, undefined, [], 100),
    /^RangeError: Cannot reply: expected a message: got none$/,
  );
});
