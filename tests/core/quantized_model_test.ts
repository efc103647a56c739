/** The embedded model with weights of 8 and 4 bits. */
import assert from "node:assert/strict";
import { directory } from "../../core/files.ts";
import { type ModelFolder, openModelFolder } from "../../core/model_folder.ts";
import { Olmo2 } from "../../core/olmo2.ts";
import { scoreSequences } from "../../core/score.ts";
import { storybook } from "../../core/storybook.ts";
import { tokenizeDocuments } from "../../core/tokenized_text.ts";
import type { QuantizedDtype } from "../../gpu/mod.ts";
import { testGpu } from "../gpu_for_tests.ts";

const folder: ModelFolder = await openModelFolder(
  directory(new URL("../../models/tiny-olmo2", import.meta.url).pathname),
);

/** Token ids of held-out documents. */
async function heldOut(nDocuments: number): Promise<Uint32Array[]> {
  const documents = storybook(102).take(nDocuments).map(({ text }, i) => ({
    id: `${i}`,
    text,
  }));
  const sequences: Uint32Array[] = [];
  const options = { startTokenId: 0, contextLength: 512 };
  for await (
    const { ids } of tokenizeDocuments(documents, folder.tokenizer, options)
  ) sequences.push(ids);
  return sequences;
}

/** exp of the mean negative log-likelihood of a token. */
async function perplexity(
  sequences: readonly Uint32Array[],
  quantize?: QuantizedDtype,
  isSoftware?: boolean,
): Promise<number> {
  using gpu = await testGpu(isSoftware === undefined ? {} : { isSoftware });
  using model = await Olmo2.load(gpu, folder.checkpoint, folder.config, {
    quantize,
  });
  const nll = await scoreSequences(model, sequences);
  let [sum, n] = [0, 0];
  for (const values of nll) {
    for (const nats of values) {
      assert.ok(Number.isFinite(nats));
      sum += nats;
      n++;
    }
  }
  return Math.exp(sum / n);
}

Deno.test("Olmo2 in q8 has at most 1.01 and in q4 at most 1.1 times the perplexity of bf16", async () => {
  const sequences = await heldOut(40);
  const bf16 = await perplexity(sequences);
  const q8 = await perplexity(sequences, "q8");
  const q4 = await perplexity(sequences, "q4");
  console.log(bf16, q8 / bf16, q4 / bf16);
  assert.ok(bf16 > 1 && bf16 < 20, `bf16 ${bf16}`);
  assert.ok(q8 <= 1.01 * bf16, `q8 ${q8}, bf16 ${bf16}`);
  assert.ok(q4 <= 1.1 * bf16, `q4 ${q4}, bf16 ${bf16}`);
  // Not the same weights.
  assert.ok(Math.abs(q4 / bf16 - 1) > Math.abs(q8 / bf16 - 1));
});
