import { deepEqual, equal, ok } from "node:assert/strict";
import { directory } from "../../core/files.ts";
import { Rng } from "../../core/rng.ts";
import type { CorpusDocument, NumberedDocument } from "../../core/text.ts";
import {
  comparePositions,
  type ContextOptions,
  type ContextTokenizer,
  type TextPosition,
  type TokenContext,
  tokenContexts,
} from "../../core/token_contexts.ts";
import { tokenizeDocuments } from "../../core/tokenized_text.ts";
import { Tokenizer } from "../../core/tokenizer.ts";
import { rejectsInOneLine } from "../rejects_in_one_line.ts";

const MODEL = new URL("../../models/tiny-olmo2", import.meta.url).pathname;
const START = 1;

/** A token a character, its code; "!" is the start token. */
const CHARACTERS: ContextTokenizer = {
  encode: (text) =>
    Array.from(text, (char) => char === "!" ? START : char.charCodeAt(0)),
  applyChatTemplate: (messages) =>
    messages.map(({ role, content }) => `!${role}${content}`).join(""),
};

const PACKED: ContextOptions = {
  contextLength: 8,
  pack: true,
  separator: true,
  skipFirst: 1,
  skipTokens: new Set([START]),
  startTokenId: START,
};

function documentsOf(texts: readonly string[]): CorpusDocument[] {
  return texts.map((text, i) => ({ id: `text:${i}`, text }));
}

async function contextsOf(
  documents: readonly CorpusDocument[],
  options: Partial<ContextOptions> = {},
  tokenizer = CHARACTERS,
  isOwn: (index: number) => boolean = () => true,
): Promise<TokenContext[]> {
  const numbered = async function* (): AsyncGenerator<NumberedDocument> {
    for (const [index, document] of documents.entries()) {
      if (isOwn(index)) yield await Promise.resolve({ index, document });
    }
  };
  const all = { ...PACKED, ...options };
  return await Array.fromAsync(tokenContexts(numbered(), tokenizer, all));
}

const spell = ({ ids }: TokenContext): string =>
  Array.from(ids, (id) => id === START ? "!" : String.fromCharCode(id)).join(
    "",
  );

Deno.test("tokenContexts() joins documents and cuts them where a context is full", async () => {
  const contexts = await contextsOf(documentsOf(["abc", "defghijklmn", "!op"]));
  deepEqual(contexts.map(spell), ["!abc!def", "ghijklmn", "!op"]);
  const [first, second, last] = contexts;
  deepEqual([...first!.documents], [0, 0, 0, 0, 1, 1, 1, 1]);
  deepEqual([...first!.positions], [0, 1, 2, 3, 4, 5, 6, 7]);
  // The first position and separators are masked.
  deepEqual([...first!.kept], [0, 1, 1, 1, 0, 1, 1, 1]);
  deepEqual([...second!.kept], [0, 1, 1, 1, 1, 1, 1, 1]);
  deepEqual(first!.start, { document: 0, token: 0 });
  deepEqual(first!.next, { document: 1, token: 4 });
  deepEqual(second!.start, first!.next);
  deepEqual(second!.next, { document: 2, token: 0 });
  deepEqual(last!.next, { document: 3, token: 0 });
});

Deno.test("tokenContexts() leaves separators out, or masks what it is told", async () => {
  const documents = documentsOf(["abc", "de!fgh"]);
  const plain = { separator: false, skipTokens: new Set<number>() };
  const contexts = await contextsOf(documents, { ...plain, skipFirst: 0 });
  deepEqual(contexts.map(spell), ["abcde!fg", "h"]);
  ok(contexts.every(({ kept }) => kept.every((one) => one === 1)));
  const skipTokens = new Set([START, 98]);
  const [masked] = await contextsOf(documents, { skipTokens, skipFirst: 0 });
  equal(spell(masked!), "!abc!de!");
  deepEqual([...masked!.kept], [0, 1, 0, 1, 0, 1, 1, 0]);
});

Deno.test("tokenContexts() with pack off gives what tokenizeDocuments() gives", async () => {
  const tokenizer = await Tokenizer.load(directory(MODEL));
  const startTokenId = tokenizer.eosTokenIds[0]!;
  const documents: CorpusDocument[] = [
    ...documentsOf([
      "One dragon flew.",
      "<|endoftext|>Two",
      "long ".repeat(90),
    ]),
    { id: "chat:0", messages: [{ role: "user", content: "Tell me more." }] },
  ];
  const options = { startTokenId, contextLength: 40 };
  const contexts = await contextsOf(documents, {
    ...options,
    pack: false,
    skipFirst: 2,
    skipTokens: new Set(),
  }, tokenizer);
  const want = await Array.fromAsync(
    tokenizeDocuments(documents, tokenizer, options),
  );
  deepEqual(contexts.map(({ ids }) => ids), want.map(({ ids }) => ids));
  for (const [i, { documents, kept, next }] of contexts.entries()) {
    ok(documents.every((document) => document === i));
    ok(kept.every((one, position) => one === (position < 2 ? 0 : 1)));
    deepEqual(next, { document: i + 1, token: 0 });
  }
});

Deno.test("tokenContexts() packs conversations as the chat template writes them", async () => {
  const chats: CorpusDocument[] = ["a", "b"].map((content, i) => ({
    id: `chat:${i}`,
    messages: [{ role: "user", content }],
  }));
  const contexts = await contextsOf(chats);
  deepEqual(contexts.map(spell), ["!usera!u", "serb"]);
  const failing = {
    ...CHARACTERS,
    applyChatTemplate: () => {
      throw new Error("no template");
    },
  };
  await rejectsInOneLine(
    () => contextsOf(chats, {}, failing),
    /^Error: Cannot read chat:0: no template$/,
  );
});

/** Every token of a text with its place, from contexts or as the text has it. */
function tokensOf(contexts: readonly TokenContext[]): [number, number][] {
  return contexts.flatMap(({ ids, documents }) =>
    Array.from(ids, (id, i): [number, number] => [documents[i]!, id])
  );
}

Deno.test("tokenContexts() gives every token once and goes on exactly at any context, for random texts", async () => {
  const rng = new Rng(8);
  for (let round = 0; round < 60; round++) {
    const texts = Array.from(
      { length: 1 + rng.below(12) },
      () => "x".repeat(1 + rng.below(rng.below(3) === 0 ? 40 : 6)),
    ).map((text, i) => rng.below(5) === 0 ? `!${text}` : `${i}${text}`);
    const documents = documentsOf(texts);
    const count = 1 + rng.below(3);
    const index = rng.below(count);
    const isOwn = (document: number): boolean => document % count === index;
    const options = {
      contextLength: 2 + rng.below(12),
      pack: rng.below(4) > 0,
      separator: rng.below(2) === 0,
      skipFirst: rng.below(3),
    };
    const run = (start?: TextPosition): Promise<TokenContext[]> =>
      contextsOf(documents, { ...options, start }, CHARACTERS, isOwn);
    const whole = await run();
    if (options.pack) {
      const want = texts.flatMap((text, i): [number, number][] => {
        const ids = CHARACTERS.encode(text);
        if (options.separator && ids[0] !== START) ids.unshift(START);
        return isOwn(i) ? ids.map((id) => [i, id]) : [];
      });
      deepEqual(tokensOf(whole), want);
      for (const { ids } of whole.slice(0, -1)) {
        equal(ids.length, options.contextLength);
      }
    }
    for (const [i, { start, next }] of whole.entries()) {
      ok(comparePositions(start, next) < 0);
      deepEqual(await run(start), whole.slice(i));
      deepEqual(await run(next), whole.slice(i + 1));
    }
  }
});
