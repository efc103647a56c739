import assert from "node:assert/strict";
import { directory } from "../../core/files.ts";
import { type Folder, memoryFolder } from "../../core/source.ts";
import { type ChatMessage, Tokenizer } from "../../core/tokenizer.ts";
import expected from "../fixtures/tiny-olmo2/expected.json" with {
  type: "json",
};

const MODEL = new URL("../../models/tiny-olmo2", import.meta.url).pathname;

/** Texts whose characters take 1 to 4 bytes, and what breaks naive offsets. */
const ODD_TEXTS = [
  ...expected.tokenizer.map(({ text }) => text),
  "🙂🙂 é日a\u0301👩‍🚀",
  "\ufeffmark",
  // Every byte that UTF-8 can have, but for the last planes.
  String.fromCharCode(...Array.from({ length: 0x800 }, (_, i) => i)),
  "<|user|>\r\n\r\n  <|endoftext|> 日<|pad|>",
  "a\ud800b\udc00", // lone surrogates, which UTF-8 cannot hold
];

const load = (): Promise<Tokenizer> => Tokenizer.load(directory(MODEL));

/** The embedded model's files, some of them changed. */
async function changedFolder(
  changes: Record<string, (json: Record<string, unknown>) => unknown>,
): Promise<Folder> {
  const files: Record<string, Uint8Array> = {};
  for (const file of ["tokenizer.json", "tokenizer_config.json"]) {
    const json = JSON.parse(await Deno.readTextFile(`${MODEL}/${file}`));
    const changed = changes[file] ? changes[file](json) : json;
    files[file] = new TextEncoder().encode(JSON.stringify(changed));
  }
  return memoryFolder("m", files);
}

Deno.test("Tokenizer.encode() gives the ids of Hugging Face", async () => {
  const tokenizer = await load();
  assert.ok(expected.tokenizer.length > 0);
  for (const { text, ids } of expected.tokenizer) {
    assert.deepEqual(tokenizer.encode(text), ids, JSON.stringify(text));
    assert.equal(tokenizer.decode(ids), text);
  }
});

Deno.test("Tokenizer.applyChatTemplate() gives the text of Hugging Face", async () => {
  const tokenizer = await load();
  assert.ok(expected.cases.length > 0);
  for (const { chat, text } of expected.cases) {
    const messages = chat as ChatMessage[];
    assert.equal(
      tokenizer.applyChatTemplate(messages, { addGenerationPrompt: true }),
      text,
    );
    assert.equal(
      tokenizer.applyChatTemplate(messages) + "<|assistant|>\n",
      text,
    );
  }
});

Deno.test("Tokenizer names its special tokens", async () => {
  const tokenizer = await load();
  assert.equal(tokenizer.bosToken, "<|endoftext|>");
  assert.deepEqual(tokenizer.eosTokenIds, [0]);
  assert.equal(tokenizer.vocabSize, 4096);
});

Deno.test("Tokenizer.encodeWithOffsets() starts each token at the character of its first byte", async () => {
  const tokenizer = await load();
  const utf8 = new TextEncoder();
  for (const text of ODD_TEXTS) {
    const { ids, starts } = tokenizer.encodeWithOffsets(text);
    assert.deepEqual(ids, tokenizer.encode(text));
    // The character of every byte, the slow way.
    const unitOfByte: number[] = [];
    let unit = 0;
    for (const char of text) {
      for (const _ of utf8.encode(char)) unitOfByte.push(unit);
      unit += char.length;
    }
    let byte = 0;
    for (const [i, id] of ids.entries()) {
      assert.equal(starts[i], unitOfByte[byte], JSON.stringify(text));
      const piece = tokenizer.token(id).replaceAll(/\\x[0-9A-F]{2}/g, "?");
      byte += utf8.encode(piece).length;
    }
    assert.equal(byte, unitOfByte.length);
  }
});

Deno.test("Tokenizer.encodeWithOffsets() refuses a tokenizer that changes the text", async () => {
  const folder = await changedFolder({
    "tokenizer.json": (json) => ({ ...json, normalizer: { type: "NFC" } }),
  });
  const tokenizer = await Tokenizer.load(folder);
  assert.deepEqual(tokenizer.encodeWithOffsets("a b").starts, [0, 1]);
  assert.throws(() => tokenizer.encodeWithOffsets("a e\u0301"), {
    name: "RangeError",
    message: /^Cannot place the tokens of a text: .+: got others at " ?e/,
  });
});

Deno.test("Tokenizer.streamDecoder() never gives half a character and gives the whole text", async () => {
  const tokenizer = await load();
  for (const text of ODD_TEXTS) {
    const stream = tokenizer.streamDecoder();
    const pieces = tokenizer.encode(text).map((id) => stream.push(id));
    const whole = text.toWellFormed();
    for (const piece of pieces) {
      if (!whole.includes("\ufffd")) assert.ok(!piece.includes("\ufffd"));
      assert.ok(piece.isWellFormed());
    }
    assert.equal(pieces.join("") + stream.end(), whole);
  }
  const [first] = tokenizer.encode("🙂");
  const stream = tokenizer.streamDecoder();
  assert.deepEqual([stream.push(first!), stream.end()], ["", "\ufffd"]);
});

Deno.test("Tokenizer.decode() leaves special tokens out when asked, and ids without a token always", async () => {
  const tokenizer = await load();
  const ids = [0, ...tokenizer.encode("a 日"), 1, 4096, 1e9];
  assert.equal(tokenizer.decode(ids), "<|endoftext|>a 日<|pad|>");
  assert.equal(tokenizer.decode(ids, { skipSpecial: true }), "a 日");
  assert.equal(tokenizer.decode([]), "");
  for (const id of [-1, 0.5, NaN]) {
    assert.throws(() => tokenizer.decode([id]), {
      name: "RangeError",
      message: `Cannot decode a token: expected an id ≥ 0: got ${id}`,
    });
  }
});

Deno.test("Tokenizer.token() shows text, and bytes that are no character", async () => {
  const tokenizer = await load();
  const pieces = tokenizer.encode(" café\n").map((id) => tokenizer.token(id));
  assert.deepEqual(pieces, [" c", "af", "\\xC3", "\\xA9", "\n"]);
  assert.equal(tokenizer.token(0), "<|endoftext|>");
  assert.equal(tokenizer.token(5000), "<no token 5000>");
});

Deno.test("Tokenizer.encode() adds special tokens unless told not to", async () => {
  const bos = { id: "<|endoftext|>", ids: [0], tokens: ["<|endoftext|>"] };
  const folder = await changedFolder({
    "tokenizer.json": (json) => ({
      ...json,
      post_processor: {
        type: "TemplateProcessing",
        single: [
          { SpecialToken: { id: "<|endoftext|>", type_id: 0 } },
          { Sequence: { id: "A", type_id: 0 } },
        ],
        pair: [],
        special_tokens: { "<|endoftext|>": bos },
      },
    }),
  });
  const tokenizer = await Tokenizer.load(folder);
  const plain = (await load()).encode("It's");
  assert.deepEqual(tokenizer.encode("It's"), [0, ...plain]);
  assert.deepEqual(tokenizer.encode("It's", { addSpecial: false }), plain);
  assert.deepEqual(tokenizer.encodeWithOffsets("It's"), {
    ids: plain,
    starts: [0, 2],
  });
});

Deno.test("Tokenizer.load() takes named templates, chat_template.jinja and special tokens as objects", async () => {
  const messages: ChatMessage[] = [{ role: "user", content: "hi" }];
  const named = await changedFolder({
    "tokenizer_config.json": () => ({
      bos_token: { content: "<|pad|>", special: true },
      eos_token: null,
      chat_template: [{ name: "default", template: "{{ bos_token }}A" }],
    }),
  });
  const tokenizer = await Tokenizer.load(named);
  assert.equal(tokenizer.applyChatTemplate(messages), "<|pad|>A");
  assert.deepEqual(tokenizer.eosTokenIds, []);
  const template = new TextEncoder().encode("{{ messages[0].content }}!");
  const withFile: Folder = {
    ...named,
    has: (file) => Promise.resolve(file !== "other"),
    open: (file) =>
      file === "chat_template.jinja"
        ? memoryFolder("m", { [file]: template }).open(file)
        : named.open(file),
  };
  assert.equal(
    (await Tokenizer.load(withFile)).applyChatTemplate(messages),
    "hi!",
  );
});

Deno.test("Tokenizer.applyChatTemplate() says in one line why it cannot", async () => {
  const templates: [unknown, RegExp][] = [
    [
      undefined,
      /^Cannot chat with "m": expected a chat_template in .+: got none/,
    ],
    [
      "{{ raise_exception('no system\nrole.') }}",
      /^Cannot apply the chat template of "m": no system role$/,
    ],
    ["{% if %}", /^Cannot apply the chat template of "m": .+$/],
  ];
  for (const [chat_template, message] of templates) {
    const folder = await changedFolder({
      "tokenizer_config.json": (json) => ({ ...json, chat_template }),
    });
    const tokenizer = await Tokenizer.load(folder);
    assert.throws(() => tokenizer.applyChatTemplate([]), { message });
  }
});

Deno.test("Tokenizer.load() refuses damaged and foreign files in one line", async () => {
  const model =
    (changed: Record<string, unknown>) =>
    (json: Record<string, unknown>): unknown => ({
      ...json,
      model: { ...json["model"] as object, ...changed },
    });
  const refused: [(json: Record<string, unknown>) => unknown, RegExp][] = [
    [() => null, /expected object/],
    [() => ({}), /field "model"/],
    [model({ type: "Unigram" }), /field "model.type": expected "BPE"/],
    [
      model({ vocab: { a: 4e9 } }),
      /field "model.vocab": expected texts with ids/,
    ],
    [model({ vocab: { a: -1 } }), /field "model.vocab"/],
    [model({ vocab: { a: 1, b: 1 } }), /field "model.vocab"/],
    [model({ vocab: null }), /field "model.vocab"/],
    [
      model({ merges: ["ab"] }),
      /field "model.merges": expected pairs of texts/,
    ],
    [model({ merges: [["a", 1]] }), /field "model.merges"/],
    [
      (json) => ({ ...json, decoder: { type: "WordPiece" } }),
      /field "decoder.type": expected "ByteLevel"/,
    ],
    [
      (json) => ({
        ...json,
        added_tokens: [{ id: 1e9, content: "x", special: true }],
      }),
      /field "added_tokens.0.id"/,
    ],
    [(json) => ({ ...json, pre_tokenizer: { type: "Nonsense" } }), /Nonsense/],
    [
      (json) => ({
        ...json,
        pre_tokenizer: {
          type: "Split",
          pattern: { Regex: "(" },
          behavior: "Isolated",
        },
      }),
      /./,
    ],
  ];
  for (const [change, message] of refused) {
    const folder = await changedFolder({ "tokenizer.json": change });
    await assert.rejects(Tokenizer.load(folder), (error: Error) => {
      assert.match(error.message, message);
      assert.match(
        error.message,
        /^Cannot (read|load) "m\/tokenizer.json": .+[^.]$/,
      );
      return true;
    });
  }
  await assert.rejects(Tokenizer.load(memoryFolder("m", {})), {
    message:
      'Cannot open "tokenizer.json": no such file in "m": put it there, or name another folder',
  });
});
