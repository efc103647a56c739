import assert from "node:assert/strict";
import { parquetWriteBuffer } from "hyparquet-writer";
import { type Folder, memoryFolder } from "../../core/source.ts";
import { storybook } from "../../core/storybook.ts";
import {
  type CorpusDocument,
  type DocumentOptions,
  type OpenPath,
  readDocuments,
} from "../../core/text.ts";
import { rejectsInOneLine } from "../rejects_in_one_line.ts";

function bytes(text: string): Uint8Array {
  return new TextEncoder().encode(text);
}

/** Opens files of a folder by name, and the folder itself as ".". */
function opener(files: Readonly<Record<string, Uint8Array>>): OpenPath {
  const folder: Folder = memoryFolder("corpus", files);
  return (path) => path === "." ? Promise.resolve(folder) : folder.open(path);
}

function read(
  spec: string,
  files: Readonly<Record<string, Uint8Array>>,
  options?: DocumentOptions,
): Promise<CorpusDocument[]> {
  return Array.fromAsync(readDocuments(spec, opener(files), options));
}

Deno.test("readDocuments() reads the storybook", async () => {
  const documents = await read("storybook:101:3", {});
  const want = [...storybook(101).take(3)].map(({ text, spans }, i) => ({
    id: `storybook:101:${i}`,
    text,
    spans,
  }));
  assert.deepEqual(documents, want);
  const endless = readDocuments("storybook:101", opener({}));
  for (let i = 0; i < 10; i++) assert.ok(!(await endless.next()).done);
  for (
    const spec of [
      "storybook:",
      "storybook:x",
      "storybook:1:0",
      "storybook:1:2:3",
    ]
  ) {
    await rejectsInOneLine(
      () => read(spec, {}),
      /^SyntaxError: .*storybook:SEED:N/,
    );
  }
  await rejectsInOneLine(() => read("storybook:4294967296", {}), /^RangeError/);
});

Deno.test("readDocuments() splits .txt into paragraphs at blank lines", async () => {
  const text =
    "\uFEFFOne.\r\nStill one.\r\n \t\r\n\r\nTwö.\n\n\nThree \u{1F409}";
  assert.deepEqual(await read("a.txt", { "a.txt": bytes(text) }), [
    { id: "corpus/a.txt:1", text: "One.\nStill one." },
    { id: "corpus/a.txt:5", text: "Twö." },
    { id: "corpus/a.txt:8", text: "Three \u{1F409}" },
  ]);
});

Deno.test("readDocuments() reads lines that span chunks", async () => {
  // Chunks have 2^20 bytes: the long line has two borders inside, one of them in an "é".
  const long = "a" + "é".repeat(2 ** 20);
  const documents = await read("a.txt", {
    "a.txt": bytes(`${long}\n\nend`),
  });
  assert.equal(documents.length, 2);
  assert.ok("text" in documents[0]! && documents[0].text === long);
  assert.deepEqual(documents[1], { id: "corpus/a.txt:3", text: "end" });
});

Deno.test("readDocuments() reads texts, spans and messages from .jsonl", async () => {
  const spans = [{ start: 0, end: 3, concept: "dog" }];
  const messages = [{ role: "user", content: "Hi" }, {
    role: "assistant",
    content: "Hello",
  }];
  const lines = [{ text: "One" }, { text: "Two", spans, kind: "story" }, {
    messages,
  }];
  const file = lines.map((line) => JSON.stringify(line)).join("\n\n") + "\n";
  assert.deepEqual(await read("a.jsonl", { "a.jsonl": bytes(file) }), [
    { id: "corpus/a.jsonl:1", text: "One" },
    { id: "corpus/a.jsonl:3", text: "Two", spans },
    { id: "corpus/a.jsonl:5", messages },
  ]);
  const body = bytes('{"body":"B"}');
  assert.deepEqual(
    await read("a.jsonl", { "a.jsonl": body }, { textColumn: "body" }),
    [{ id: "corpus/a.jsonl:1", text: "B" }],
  );
});

Deno.test("readDocuments() names file and line of a bad .jsonl document", async () => {
  const cases: [string, RegExp][] = [
    ["{", /^SyntaxError: .*line 2: expected a JSON object/],
    ["[1]", /line 2: expected text in "text", or "messages": got 0/],
    ["null", /line 2: .*got neither/],
    ['{"body":"x"}', /line 2: .*got body/],
    ['{"text":" "}', /line 2: .*empty text/],
    ['{"text":"\\ud800"}', /line 2: .*half a character/],
    ['{"text":7}', /line 2: expected text/],
    ['{"messages":[]}', /line 2: field "messages"/],
    [
      '{"messages":[{"role":"robot","content":""}]}',
      /line 2: field "messages\.0\.role"/,
    ],
    ['{"text":"a","spans":[{"start":-1}]}', /line 2: field "spans\.0\.start"/],
  ];
  for (const [line, pattern] of cases) {
    const file = bytes(`{"text":"fine"}\n${line}\n`);
    await rejectsInOneLine(
      () => read("a.jsonl", { "a.jsonl": file }),
      /^SyntaxError: Cannot read "corpus\/a\.jsonl" line 2: /,
    );
    await rejectsInOneLine(() => read("a.jsonl", { "a.jsonl": file }), pattern);
  }
});

Deno.test("readDocuments() names file and line when text is not UTF-8", async () => {
  const file = Uint8Array.of(...bytes("fine\n\nbad "), 0xff, 0x0a);
  await rejectsInOneLine(
    () => read("a.txt", { "a.txt": file }),
    /^SyntaxError: Cannot read "corpus\/a\.txt" line 3: expected UTF-8/,
  );
});

function parquet(
  column: string,
  data: unknown[],
  type: "STRING" | "BYTE_ARRAY" | "JSON" = "STRING",
): Uint8Array {
  return new Uint8Array(parquetWriteBuffer({
    columnData: [
      { name: "other", data: data.map((_, i) => i), type: "INT32" },
      { name: column, data, type },
    ],
    rowGroupSize: 2,
  }));
}

Deno.test("readDocuments() reads .parquet row group by row group", async () => {
  const texts = ["One", "Twö", "Three", "One", "One"];
  assert.deepEqual(
    await read("a.parquet", { "a.parquet": parquet("text", texts) }),
    texts.map((text, i) => ({ id: `corpus/a.parquet:${i}`, text })),
  );
});

Deno.test("readDocuments() reads conversations from .parquet", async () => {
  const messages = [
    [{ role: "user", content: "Hi" }, { role: "assistant", content: "Hellö" }],
    [{ role: "user", content: "Bye" }],
  ];
  const text = { type: "BYTE_ARRAY", converted_type: "UTF8" } as const;
  const file = parquetWriteBuffer({
    columnData: [{ name: "messages", data: messages }],
    schema: [
      { name: "root", num_children: 1 },
      {
        name: "messages",
        repetition_type: "OPTIONAL",
        num_children: 1,
        converted_type: "LIST",
      },
      { name: "list", repetition_type: "REPEATED", num_children: 1 },
      { name: "element", repetition_type: "OPTIONAL", num_children: 2 },
      { name: "role", repetition_type: "OPTIONAL", ...text },
      { name: "content", repetition_type: "OPTIONAL", ...text },
    ],
  });
  assert.deepEqual(
    await read("a.parquet", { "a.parquet": new Uint8Array(file) }),
    messages.map((one, i) => ({ id: `corpus/a.parquet:${i}`, messages: one })),
  );
});

Deno.test("readDocuments() names file and row of a bad .parquet document", async () => {
  const bad = Uint8Array.of(0x61, 0xff);
  const cases: [Uint8Array, RegExp][] = [
    [parquet("text", ["a", "b", " "]), /^SyntaxError: .*row 2: .*empty text/],
    [parquet("text", ["a", null]), /^SyntaxError: .*row 1: expected text/],
    [
      parquet("text", [bytes("a"), bad], "BYTE_ARRAY"),
      /^SyntaxError: .*row 1: expected UTF-8/,
    ],
    [parquet("body", ["a"]), /^SyntaxError: .*"text".*got other, body/],
    [parquet("text", ["a"]).subarray(0, -3), /^SyntaxError: .*parquet file/],
  ];
  for (const [file, pattern] of cases) {
    await rejectsInOneLine(
      () => read("a.parquet", { "a.parquet": file }),
      pattern,
    );
    await rejectsInOneLine(
      () => read("a.parquet", { "a.parquet": file }),
      /"corpus\/a\.parquet"/,
    );
  }
});

Deno.test("readDocuments() reads a folder in the order of its names", async () => {
  const documents = await read(".", {
    "b.txt": bytes("B"),
    "a.jsonl": bytes('{"text":"A"}'),
    "README.md": bytes("not this"),
    "c.parquet": parquet("text", ["C"]),
  });
  assert.deepEqual(documents.map(({ id }) => id), [
    "corpus/a.jsonl:1",
    "corpus/b.txt:1",
    "corpus/c.parquet:0",
  ]);
});

Deno.test("readDocuments() refuses sources without text", async () => {
  await rejectsInOneLine(
    () => read("a.txt", { "a.txt": bytes("\n \n") }),
    /^RangeError: .*"corpus\/a\.txt": expected text: got none/,
  );
  await rejectsInOneLine(
    () => read(".", { "a.txt": bytes("A"), "b.jsonl": bytes("") }),
    /^RangeError: .*"corpus\/b\.jsonl"/,
  );
  await rejectsInOneLine(
    () => read(".", { "README.md": bytes("x") }),
    /^RangeError: .*txt, jsonl, parquet/,
  );
  await rejectsInOneLine(
    () => read("a.pdf", { "a.pdf": bytes("x") }),
    /^TypeError: .*"corpus\/a\.pdf"/,
  );
  await rejectsInOneLine(() => read("none.txt", {}), /^Error: .*"none\.txt"/);
});
