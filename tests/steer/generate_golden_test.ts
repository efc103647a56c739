/** Generation against Hugging Face transformers. */
import assert from "node:assert/strict";
import { directory } from "../../core/files.ts";
import { Olmo2 } from "../../core/olmo2.ts";
import { readModelConfig } from "../../core/olmo2_config.ts";
import { openCheckpoint } from "../../core/safetensors.ts";
import { type ChatMessage, Tokenizer } from "../../core/tokenizer.ts";
import { generate, GREEDY } from "../../steer/generate.ts";
import { assertRelativeError } from "../assert_close.ts";
import chats from "../fixtures/tiny-olmo2/expected.json" with { type: "json" };
import { testGpu } from "../gpu_for_tests.ts";
import {
  FIXTURES,
  greedyCase,
  loadBank,
  loadModel,
  MHA,
  NO_STOP,
  openExpected,
  others,
  path,
} from "./fixture_models.ts";
import { fullPass, greedyByFullPasses } from "./full_pass.ts";

for (const fixture of FIXTURES) {
  Deno.test(`generate() gives Hugging Face's greedy tokens of ${fixture.name}, with and without a cache, alone and in a ragged batch`, async () => {
    using model = await loadModel(fixture);
    const { prompt, reply } = await greedyCase(fixture.name);
    assert.equal(reply.length, 12);
    const maxNewTokens = reply.length;
    const request = { prompt, sampling: GREEDY };
    const options = { maxNewTokens, ...NO_STOP };
    assert.deepEqual(await generate(model, [request], options), [reply]);
    assert.deepEqual(
      await greedyByFullPasses(model, prompt, maxNewTokens),
      reply,
    );
    const batch = others(GREEDY).toSpliced(3, 0, request);
    const replies = await generate(model, batch, options);
    assert.deepEqual(replies[3], reply);
    for (const [i, { prompt }] of batch.entries()) {
      assert.deepEqual(
        replies[i],
        await greedyByFullPasses(model, prompt, maxNewTokens),
        `prompt of ${prompt.length} tokens`,
      );
    }
  });

  for (const encoding of ["relu", "linear"] as const) {
    Deno.test(`SteeringBank steers ${fixture.name} as the reference does when the encoding is ${encoding}`, async () => {
      using model = await loadModel(fixture);
      using bank = await loadBank(fixture, encoding);
      const prefix = `steered.${encoding}.`;
      const { prompt, reply } = await greedyCase(fixture.name, prefix);
      const plain = await greedyCase(fixture.name);
      const options = {
        maxNewTokens: reply.length,
        ...NO_STOP,
        steering: bank,
      };
      const request = { prompt, sampling: GREEDY };
      const steered = { ...request, steeringSet: 0 };
      assert.deepEqual(
        await generate(model, [steered, request, steered], options),
        [reply, plain.reply, reply],
      );
      assert.deepEqual(
        await greedyByFullPasses(model, prompt, reply.length, {
          bank,
          fromPosition: 0,
        }),
        reply,
      );
      const { sequences, want } = await unmasked(
        fixture.name,
        `${prefix}logits`,
      );
      const got = await fullPass(model, sequences, { bank, fromPosition: 0 });
      assertRelativeError(got, want, 1e-5, `${prefix}logits`);
    });
  }
}

/** The sequences of a right-padded batch, and a tensor's rows at their tokens. */
async function unmasked(
  name: string,
  tensor: string,
): Promise<{ sequences: number[][]; want: Float32Array }> {
  const expected = await openExpected(name);
  const ids = await expected.ints("input_ids");
  const mask = await expected.ints("attention_mask");
  const [nRows, T, width] = expected.info(tensor).shape as [
    number,
    number,
    number,
  ];
  const values = await expected.floats(tensor);
  const kept = [...mask.keys()].filter((t) => mask[t] === 1);
  assert.ok(kept.length < mask.length, "the batch has padding");
  return {
    sequences: Array.from(
      { length: nRows },
      (_, row) =>
        kept.filter((t) => Math.floor(t / T) === row).map((t) => ids[t]!),
    ),
    want: Float32Array.from(
      kept.flatMap((t) => [...values.subarray(t * width, (t + 1) * width)]),
    ),
  };
}

Deno.test("generate() gives Hugging Face's greedy replies of the embedded model to chats", async () => {
  const folder = directory(path("../models/tiny-olmo2"));
  const tokenizer = await Tokenizer.load(folder);
  using model = await Olmo2.load(
    await testGpu(),
    await openCheckpoint(folder),
    await readModelConfig(folder),
  );
  const expected = await openExpected("tiny-olmo2");
  assert.equal(chats.cases.length, 2);
  const prompts = chats.cases.map(({ chat }) => {
    const text = tokenizer.applyChatTemplate(chat as ChatMessage[], {
      addGenerationPrompt: true,
    });
    return tokenizer.encode(text, { addSpecial: false });
  });
  const replies = await generate(
    model,
    prompts.map((prompt) => ({ prompt, sampling: GREEDY })),
    { maxNewTokens: 100 },
  );
  for (const [i, { greedy_text }] of chats.cases.entries()) {
    const ids = [...await expected.ints(`${i}.greedy`)];
    assert.equal(ids.pop(), 0, "the reference ends with <|endoftext|>");
    assert.deepEqual([...prompts[i]!, ...replies[i]!], ids);
    assert.equal(tokenizer.decode(replies[i]!), greedy_text);
  }
});

Deno.test("generate() leaves the prompt as it is when positions is generated", async () => {
  using model = await loadModel(MHA);
  using bank = await loadBank(MHA);
  const { prompt, reply: unsteered } = await greedyCase(MHA.name);
  const steered = { prompt, sampling: GREEDY, steeringSet: 0 };
  const maxNewTokens = unsteered.length;
  const by = async (positions: "all" | "generated") =>
    (await generate(model, [steered, { prompt, sampling: GREEDY }], {
      maxNewTokens,
      ...NO_STOP,
      steering: bank,
      positions,
    }))[0]!;
  const generated = await by("generated");
  assert.deepEqual(
    generated,
    await greedyByFullPasses(model, prompt, maxNewTokens, {
      bank,
      fromPosition: prompt.length,
    }),
  );
  assert.equal(generated[0], unsteered[0]);
  const all = await by("all");
  assert.notDeepEqual(all, generated);
  assert.notDeepEqual(all, unsteered);
});
