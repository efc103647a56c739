/** The embedded model with weights of 8 and 4 bits. */
import assert from "node:assert/strict";
import { directory } from "../../core/files.ts";
import { type ModelFolder, openModelFolder } from "../../core/model_folder.ts";
import { f32ToBf16 } from "../../core/dtype.ts";
import { Olmo2 } from "../../core/olmo2.ts";
import type { Olmo2Config } from "../../core/olmo2_config.ts";
import { modelShapes } from "../../core/olmo2_weights.ts";
import type { Checkpoint } from "../../core/safetensors.ts";
import { scoreSequences } from "../../core/score.ts";
import { storybook } from "../../core/storybook.ts";
import { tokenizeDocuments } from "../../core/tokenized_text.ts";
import { elementCount, type Gpu, type QuantizedDtype } from "../../gpu/mod.ts";
import { modelBytes } from "../../tasks/memory.ts";
import { OLMO2_SIZES } from "../../tasks/olmo2_sizes.ts";
import { assertClose, randomNormal } from "../assert_close.ts";
import { testGpu } from "../gpu_for_tests.ts";

/** Sizes of which none is a multiple of a block. */
const SMALL: Olmo2Config = {
  ...OLMO2_SIZES["1B"],
  d_model: 40,
  n_layers: 2,
  n_heads: 5,
  n_kv_heads: 5,
  d_head: 8,
  d_ffn: 50,
  vocab_size: 131,
  context_length: 64,
};

/** A checkpoint of random weights in memory, one of which may be NaN. */
function madeCheckpoint(
  config: Olmo2Config,
  dtype: "F32" | "BF16" | "F16",
  bad?: string,
): Checkpoint {
  const bits = (values: Float32Array<ArrayBuffer>): Uint8Array<ArrayBuffer> => {
    if (dtype === "F32") return new Uint8Array(values.buffer);
    if (dtype === "BF16") return new Uint8Array(f32ToBf16(values).buffer);
    return new Uint8Array(Float16Array.from(values).buffer);
  };
  const tensors = new Map(
    modelShapes(config).map(([name, shape], seed) => {
      const values = randomNormal(elementCount(shape), seed, 0.05);
      if (name === bad) values[values.length - 3] = NaN;
      const bytes = bits(values);
      const info = { name, dtype, shape, start: 0, end: bytes.byteLength };
      return [name, { info, bytes, values }];
    }),
  );
  return {
    name: "made weights",
    has: (name) => tensors.has(name),
    names: () => [...tensors.keys()],
    fileOf: () => "made weights",
    info: (name) => tensors.get(name)!.info,
    bytes: (name, first, last) => {
      const { info, bytes } = tensors.get(name)!;
      const row = bytes.byteLength / info.shape[0]!;
      return Promise.resolve(
        bytes.slice((first ?? 0) * row, (last ?? info.shape[0]!) * row),
      );
    },
    floats: (name) => Promise.resolve(tensors.get(name)!.values),
  };
}

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

/** Negative log-likelihoods of all tokens but the first ones, in nats. */
async function score(
  gpu: Gpu,
  sequences: readonly Uint32Array[],
  quantize?: QuantizedDtype,
): Promise<number[]> {
  using model = await Olmo2.load(gpu, folder.checkpoint, folder.config, {
    quantize,
  });
  const nll = (await scoreSequences(model, sequences))
    .flatMap((values) => [...values]);
  assert.ok(nll.every((nats) => Number.isFinite(nats)));
  return nll;
}

const mean = (values: readonly number[]): number =>
  values.reduce((sum, x) => sum + x, 0) / values.length;

Deno.test("Olmo2 in q8 has at most 1.01 and in q4 at most 1.1 times the perplexity of bf16", async () => {
  const gpu = await testGpu();
  const sequences = await heldOut(24);
  const bf16 = await score(gpu, sequences);
  const perplexity = Math.exp(mean(bf16));
  assert.ok(perplexity > 1 && perplexity < 3, `bf16 ${perplexity}`);
  // The model knows its texts so well that little is lost on the whole: single tokens tell more.
  for (
    const [type, most, apart] of [
      ["q8", 1.01, [2e-4, 6e-3]],
      ["q4", 1.1, [6e-3, 6e-2]],
    ] as const
  ) {
    const nll = await score(gpu, sequences, type);
    const ratio = Math.exp(mean(nll)) / perplexity;
    assert.ok(ratio <= most, `${type}: ${ratio} of the perplexity of bf16`);
    const nats = mean(nll.map((x, i) => Math.abs(x - bf16[i]!)));
    assert.ok(nats > apart[0] && nats < apart[1], `${type}: ${nats} nats`);
  }
});

Deno.test("Olmo2 in q8 and q4 gives the same with the kernels of graphics cards, and when matrices come in pieces", async () => {
  const gpu = await testGpu();
  using card = await testGpu({ isSoftware: false });
  // Embedding and head come in two pieces each.
  using narrow = await testGpu({ maxBindingBytes: 2 ** 20 });
  const sequences = (await heldOut(3)).map((ids) => ids.subarray(0, 40));
  for (const type of ["q8", "q4"] as const) {
    const want = await score(gpu, sequences, type);
    for (const other of [card, narrow]) {
      const got = await score(other, sequences, type);
      // Other tiles sum in another order.
      assertClose(got, want, { atol: 2e-5, label: `nll in ${type}` });
    }
  }
});

Deno.test("Olmo2.load() in q8 and q4 takes the bytes that their rows have, from f32 and with a tied head too", async () => {
  for (const dtype of ["F32", "BF16", "F16"] as const) {
    for (const tied_embeddings of [false, true]) {
      const config = { ...SMALL, tied_embeddings };
      for (const quantize of ["q8", "q4"] as const) {
        using gpu = await testGpu({});
        const checkpoint = madeCheckpoint(config, dtype);
        const seen: number[] = [];
        using model = await Olmo2.load(gpu, checkpoint, config, {
          quantize,
          onProgress: (done, total) => seen.push(done / total),
        });
        assert.equal(seen.at(-1), 1);
        const expected = modelBytes({ config, checkpoint, quantize });
        // And the word that tells of weights that are not finite.
        assert.equal(gpu.allocatedBytes, expected + 4);
        assert.ok(model.nLayers === config.n_layers);
      }
    }
  }
});

Deno.test("Olmo2.load() refuses to quantize a weight that is not finite, and names its tensor", async () => {
  const gpu = await testGpu();
  for (const dtype of ["F32", "BF16", "F16"] as const) {
    for (
      const name of [
        "model.layers.1.self_attn.v_proj.weight",
        "lm_head.weight",
      ]
    ) {
      const checkpoint = madeCheckpoint(SMALL, dtype, name);
      await assert.rejects(
        Olmo2.load(gpu, checkpoint, SMALL, { quantize: "q4" }),
        {
          name: "RangeError",
          message:
            `Cannot load "made weights": expected finite weights in tensor "${name}": got NaN or infinity: the file is damaged: fetch it again`,
        },
      );
    }
  }
});
