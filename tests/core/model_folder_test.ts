import assert from "node:assert/strict";
import { directory } from "../../core/files.ts";
import { openModelFolder } from "../../core/model_folder.ts";
import { type Folder, memorySource, readText } from "../../core/source.ts";
import { rejectsInOneLine } from "../rejects_in_one_line.ts";

const TINY = directory(
  new URL("../../models/tiny-olmo2", import.meta.url).pathname,
);

/** The embedded model's folder with another vocab_size in its config.json. */
async function withVocabSize(vocab_size: number): Promise<Folder> {
  const config = JSON.parse(await readText(await TINY.open("config.json")));
  const text = JSON.stringify({ ...config, vocab_size });
  const bytes = new TextEncoder().encode(text);
  return {
    ...TINY,
    open: (file) =>
      file === "config.json"
        ? Promise.resolve(memorySource(`${TINY.name}/config.json`, bytes))
        : TINY.open(file),
  };
}

Deno.test("openModelFolder() refuses a tokenizer with more tokens than the embedding has rows", async () => {
  const { tokenizer } = await openModelFolder(TINY);
  assert.equal(tokenizer.vocabSize, 4096);
  await openModelFolder(await withVocabSize(4160)); // padded, as published ones are
  const folder = await withVocabSize(4095);
  await rejectsInOneLine(
    () => openModelFolder(folder),
    /^RangeError: Cannot load ".*": expected a tokenizer of at most vocab_size=4095 tokens, .*: got 4096: take /,
  );
});
