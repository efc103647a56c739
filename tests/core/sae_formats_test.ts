import assert from "node:assert/strict";
import { directory } from "../../core/files.ts";
import { SaeFile } from "../../core/sae_file.ts";
import { safetensorsChunks } from "../../core/safetensors.ts";
import { type Folder, memoryFolder } from "../../core/source.ts";
import { rejectsInOneLine } from "../rejects_in_one_line.ts";
import {
  assertSame,
  type Encoded,
  formatFolder,
  jumpRelu,
  linear,
  norms,
  type RawWeights,
  rawWeights,
  reference,
  relu,
  topK,
} from "./sae_references.ts";
import { writableFolder } from "./sae_for_tests.ts";

const K = 3; // of all files with the k largest
const THRESHOLD = 0.8; // of all files with one threshold

/** exp(r_mag)·u + b_mag where that and u + b_gate are above 0; u is without biases. */
function gated(
  { r_mag, b_gate, b_enc }: RawWeights,
  u: number[],
): number[] {
  return u.map((value, i) =>
    value + b_gate[i]! > 0
      ? Math.max(Math.exp(r_mag[i]!) * value + b_enc[i]!, 0)
      : 0
  );
}

Deno.test("SaeFile gives the features of every class of dictionary_learning", async () => {
  const raw = await rawWeights();
  const { b_enc, b_dec, threshold } = raw;
  const plain = linear(raw, { bias: b_enc });
  const centered = linear(raw, { bias: b_enc, center: b_dec });
  const constant = new Float32Array(raw.d_sae).fill(THRESHOLD);
  const factor = norms(raw);
  const unit = linear(raw, { bias: b_enc, center: b_dec, factor });
  const cases: Record<string, Encoded> = {
    // load_dictionary moves the norms of the decoder into the activations.
    AutoEncoder: reference(raw, (x) => relu(unit(x)), { factor }),
    AutoEncoderNew: reference(raw, (x) => relu(plain(x))),
    AutoEncoderTopK: reference(raw, (x) => topK(centered(x), K)),
    BatchTopKSAE: reference(raw, (x) => jumpRelu(centered(x), constant)),
    "BatchTopKSAE-early": reference(raw, (x) => topK(centered(x), K)),
    GatedAutoEncoder: reference(
      raw,
      (x) => gated(raw, linear(raw, { center: b_dec })(x)),
    ),
    JumpReluAutoEncoder: reference(raw, (x) => jumpRelu(plain(x), threshold)),
    MatryoshkaBatchTopKSAE: reference(
      raw,
      (x) => jumpRelu(centered(x), constant),
    ),
  };
  for (const [name, want] of Object.entries(cases)) {
    const sae = await SaeFile.open(formatFolder(name));
    assert.equal(sae.layout, "dictionary-learning");
    await assertSame(sae, raw, want, name);
    const { hookPoint, modelName, contextLength } = sae.metadata;
    assert.deepEqual([modelName, contextLength], ["some/model", 128]);
    const places: Record<string, string | undefined> = {
      AutoEncoderNew: "resid_post[4]",
      GatedAutoEncoder: undefined,
    };
    assert.equal(hookPoint, name in places ? places[name] : "resid_post[3]");
  }
  const topk = await SaeFile.open(formatFolder("AutoEncoderTopK"));
  assert.equal(topk.metadata.inferenceThreshold, Math.fround(THRESHOLD));
  const placed = await SaeFile.open(formatFolder("GatedAutoEncoder"), {
    layer: 2,
  });
  assert.equal(placed.metadata.hookPoint, "resid_post[2]");
});

Deno.test("SaeFile reads classes of dictionary_learning by their tensors when there is no config", async () => {
  const raw = await rawWeights();
  for (
    const [name, architecture] of Object.entries({
      AutoEncoder: "relu",
      AutoEncoderNew: "relu",
      GatedAutoEncoder: "jumprelu",
      JumpReluAutoEncoder: "jumprelu",
      MatryoshkaBatchTopKSAE: "jumprelu",
    })
  ) {
    const folder = await without(formatFolder(name), "config.json");
    const sae = await SaeFile.open(folder);
    assert.equal(sae.architecture, architecture);
    assert.equal(sae.metadata.hookPoint, undefined);
    const full = await SaeFile.open(formatFolder(name));
    assert.deepEqual(await sae.weights(), await full.weights());
  }
  assert.equal(raw.d_sae, 10);
  const either = await without(formatFolder("BatchTopKSAE"), "config.json");
  await rejectsInOneLine(
    () => SaeFile.open(either),
    /^Error: .*ae.pt": expected config.json beside it/,
  );
});

/** The files of a folder in memory, but for one; others in place of its own. */
async function without(
  folder: Folder,
  left: string,
  files: Record<string, Uint8Array> = {},
): Promise<Folder> {
  const kept: Record<string, Uint8Array> = {};
  for (const name of await folder.list()) {
    const source = await folder.open(name);
    if (name !== left) kept[name] = await source.read(0, source.byteLength);
  }
  return memoryFolder(folder.name, { ...kept, ...files });
}

Deno.test("SaeFile refuses a config of dictionary_learning when it does not fit the weights", async () => {
  const folder = formatFolder("AutoEncoderTopK");
  const config = JSON.parse(
    new TextDecoder().decode(
      await (await folder.open("config.json")).read(0, 299),
    ),
  );
  const openWith = async (change: Record<string, unknown>) =>
    await SaeFile.open(
      await without(folder, "config.json", {
        "config.json": json({
          ...config,
          trainer: { ...config.trainer, ...change },
        }),
      }),
    );
  await rejectsInOneLine(
    () => openWith({ k: 4 }),
    /^RangeError: .*and 4 as its config has it: got 3/,
  );
  await rejectsInOneLine(
    () => openWith({ dict_class: "IdentityDict" }),
    /^SyntaxError: .*config.json": field "trainer.dict_class"/,
  );
  await rejectsInOneLine(
    () => openWith({ dict_class: "AutoEncoder" }),
    /^RangeError: .*no tensor "bias"/,
  );
});

function json(value: unknown): Uint8Array {
  return new TextEncoder().encode(JSON.stringify(value));
}

Deno.test("SaeFile gives the same from sae_final.pt as from the published safetensors", async () => {
  const folder = directory(
    new URL("../fixtures/ocs-checkpoint", import.meta.url).pathname,
  );
  const published = await SaeFile.open(folder);
  const final = await SaeFile.open(folder, { file: "sae_final.pt" });
  const alone = await SaeFile.open(
    await without(folder, "sae_config.json", {}).then((kept) =>
      without(kept, "sae_weights.safetensors")
    ),
  );
  for (const sae of [final, alone]) {
    assert.equal(sae.layout, "open-concept-steering");
    assert.deepEqual(await sae.weights(), await published.weights());
    assert.deepEqual(sae.metadata, published.metadata);
  }
  assert.equal(final.metadata.hookPoint, "final_norm@15");
  const placed = await SaeFile.open(folder, { file: "sae_final.pt", layer: 2 });
  assert.equal(placed.metadata.hookPoint, "final_norm@2");
});

Deno.test("SaeFile reads epoch checkpoints whatever their optimizer left, and views of one storage", async () => {
  const raw = await rawWeights();
  const pre = linear(raw, { bias: raw.b_enc });
  const want = reference(raw, (x) => relu(pre(x)));
  for (
    const file of [
      "sae_checkpoint_epoch_0.pt",
      "sae_checkpoint_epoch_1.pt",
      "shared.pt",
    ]
  ) {
    const sae = await SaeFile.open(formatFolder("ocs"), { file });
    assert.equal(sae.layout, "open-concept-steering");
    await assertSame(sae, raw, want, file);
  }
});

Deno.test("SaeFile reads Gemma Scope's npz, compressed and column by column too", async () => {
  const raw = await rawWeights();
  const pre = linear(raw, { bias: raw.b_enc });
  const want = reference(raw, (x) => jumpRelu(pre(x), raw.threshold));
  for (const file of ["params.npz", "compressed.npz", "fortran.npz"]) {
    const sae = await SaeFile.open(formatFolder("npz"), { file });
    assert.equal(sae.layout, "gemma-scope");
    assert.equal(sae.metadata.hookPoint, undefined);
    await assertSame(sae, raw, want, file);
  }
  const source = await formatFolder("npz").open("params.npz");
  const folder = memoryFolder(
    "/hub/models--google--gemma-scope-2b-pt-res/snapshots/1/layer_20/width_16k/average_l0_71",
    { "params.npz": await source.read(0, source.byteLength) },
  );
  const sae = await SaeFile.open(folder);
  assert.equal(sae.metadata.hookPoint, "resid_post[20]");
});

/** Tensors of a safetensors file; matrices `[d_sae, d_model]` as they are or transposed. */
async function safetensors(
  tensors: Record<string, Float32Array>,
  { d_model, d_sae }: RawWeights,
  transposed: readonly string[] = [],
): Promise<Uint8Array> {
  const { files, write } = writableFolder();
  await write(
    "f",
    safetensorsChunks(
      Object.entries(tensors).map(([name, values]) => {
        const isMatrix = values.length === d_sae * d_model;
        const turned = transposed.includes(name);
        const stored = turned
          ? values.map((_, i) =>
            values[(i % d_sae) * d_model + Math.floor(i / d_sae)]!
          )
          : values;
        return {
          name,
          dtype: "F32" as const,
          shape: isMatrix
            ? (turned ? [d_model, d_sae] : [d_sae, d_model])
            : values.length === 1
            ? []
            : [values.length],
          bytes: new Uint8Array(stored.buffer),
        };
      }),
    ),
  );
  return files["f"]!;
}

Deno.test("SaeFile names file and feature when folded weights are not finite", async () => {
  const raw = await rawWeights();
  const { b_enc } = raw;
  const [r_mag, b_gate] = [raw.r_mag.slice(), raw.b_gate.slice()];
  [r_mag[4], b_gate[4]] = [1000, -1];
  const sae = await SaeFile.open(
    await saeLens(raw, { ...V6, architecture: "gated" }, {
      b_mag: b_enc,
      r_mag,
      b_gate,
    }),
  );
  await rejectsInOneLine(
    () => sae.rowsOfEncoder(3, 6),
    /^RangeError: .*"W_enc" of "saelens.*once all is folded: got -?Infinity for feature 4/,
  );
  await rejectsInOneLine(
    () => sae.b_enc(),
    /^RangeError: .*"W_enc" of "saelens.*feature 4/,
  );
  await rejectsInOneLine(
    () => sae.threshold(),
    /^RangeError: .*"saelens": expected finite values of threshold.*at \[4\]/,
  );
});

/** A folder of SAELens. */
async function saeLens(
  raw: RawWeights,
  config: Record<string, unknown>,
  tensors: Record<string, Float32Array>,
  files: Record<string, Uint8Array> = {},
): Promise<Folder> {
  const { d_model, d_sae, W_enc, W_dec, b_dec } = raw;
  return memoryFolder("saelens", {
    "cfg.json": json({ d_in: d_model, d_sae, ...config }),
    "sae_weights.safetensors": await safetensors(
      { W_enc, W_dec, b_dec, ...tensors },
      raw,
      ["W_enc"],
    ),
    ...files,
  });
}

const V6 = {
  metadata: {
    sae_lens_version: "6.18.0",
    hook_name: "blocks.7.hook_resid_post",
  },
  normalize_activations: "none",
  reshape_activations: "none",
};

Deno.test("SaeFile gives the features of every architecture of SAELens", async () => {
  const raw = await rawWeights();
  const { b_enc, b_dec, threshold, r_mag, b_gate } = raw;
  const factor = norms(raw);
  const constant = new Float32Array(raw.d_sae).fill(THRESHOLD);
  const centers = { true: b_dec, false: new Float32Array(raw.d_model) };
  for (const [applied, center] of Object.entries(centers)) {
    const pre = linear(raw, { bias: b_enc, center });
    const rescaled = linear(raw, { bias: b_enc, center, factor });
    const u = linear(raw, { center });
    const cases: [
      Record<string, unknown>,
      Record<string, Float32Array>,
      Encoded,
    ][] = [
      [
        { architecture: "standard" },
        { b_enc },
        reference(raw, (x) => relu(pre(x))),
      ],
      [
        { architecture: "topk", k: K },
        { b_enc },
        reference(raw, (x) => topK(pre(x), K)),
      ],
      [
        { architecture: "topk", k: K, rescale_acts_by_decoder_norm: true },
        { b_enc },
        reference(raw, (x) => topK(rescaled(x), K), { factor }),
      ],
      [
        { architecture: "jumprelu" },
        { b_enc, threshold },
        reference(raw, (x) => jumpRelu(pre(x), threshold)),
      ],
      [
        { architecture: "gated" },
        { b_mag: b_enc, r_mag, b_gate },
        reference(raw, (x) => gated(raw, u(x))),
      ],
      [
        {
          architecture: "batchtopk",
          k: 2.5,
          rescale_acts_by_decoder_norm: true,
        },
        { b_enc, topk_threshold: Float32Array.of(THRESHOLD) },
        reference(raw, (x) => jumpRelu(rescaled(x), constant), { factor }),
      ],
    ];
    for (const [config, tensors, want] of cases) {
      const settings = { ...config, apply_b_dec_to_input: applied === "true" };
      const sae = await SaeFile.open(
        await saeLens(raw, { ...V6, ...settings }, tensors),
      );
      await assertSame(sae, raw, want, JSON.stringify(settings));
      assert.equal(sae.metadata.hookPoint, "resid_post[7]");
    }
  }
});

Deno.test("SaeFile folds the input scale of a SAELens checkpoint, and refuses to guess it", async () => {
  const raw = await rawWeights();
  const { b_enc, b_dec } = raw;
  const scale = 0.37;
  const config = {
    ...V6,
    architecture: "standard",
    normalize_activations: "expected_average_only_in",
  };
  const pre = linear(raw, { bias: b_enc, center: b_dec });
  const sae = await SaeFile.open(
    await saeLens(raw, config, { b_enc }, {
      "activation_scaler.json": json({ scaling_factor: scale }),
    }),
  );
  const want = reference(raw, (x) => relu(pre(x)), { scale });
  await assertSame(sae, raw, want, "scaled");
  assert.equal(sae.metadata.inputScale, scale);
  const unknown = await saeLens(raw, config, { b_enc });
  await rejectsInOneLine(
    () => SaeFile.open(unknown),
    /"activation_scaler.json": no such file/,
  );
  const zero = await saeLens(raw, config, { b_enc }, {
    "activation_scaler.json": json({ scaling_factor: 0 }),
  });
  await rejectsInOneLine(
    () => SaeFile.open(zero),
    /activation_scaler.json": field "scaling_factor"/,
  );
});

Deno.test("SaeFile reads configs of SAELens from before version 6 as SAELens migrates them", async () => {
  const raw = await rawWeights();
  const { b_enc, b_dec } = raw;
  const pre = linear(raw, { bias: b_enc, center: b_dec });
  const old = {
    hook_point: "blocks.2.hook_resid_post",
    model_name: "gpt2-small",
    context_size: 64,
    normalize_activations: false,
  };
  // Without a version the input is centered by b_dec.
  const relus = await SaeFile.open(
    await saeLens(raw, { ...old, activation_fn_str: "relu" }, {
      b_enc,
      scaling_factor: new Float32Array(raw.d_sae).fill(1),
    }),
  );
  await assertSame(relus, raw, reference(raw, (x) => relu(pre(x))), "relu");
  assert.deepEqual(relus.metadata, {
    architecture: "relu",
    inputScale: 1,
    hookPoint: "resid_post[2]",
    modelName: "gpt2-small",
    contextLength: 64,
  });
  const topk = await SaeFile.open(
    await saeLens(raw, {
      ...old,
      activation_fn_str: "topk",
      activation_fn_kwargs: { k: K },
      sae_lens_version: "5.3.0",
    }, { b_enc }),
  );
  await assertSame(topk, raw, reference(raw, (x) => topK(pre(x), K)), "topk");
  const refused: [Record<string, unknown>, RegExp][] = [
    [{ normalize_activations: true }, /activation_scaler.json/],
    [
      { normalize_activations: "layer_norm" },
      /normalize_activations": expected none or expected_average_only_in, as the others scale every vector/,
    ],
    [{ activation_fn_str: "tanh-relu" }, /field "activation_fn_str"/],
    [{ hook_point: "blocks.1.attn.hook_z" }, /field "reshape_activations"/],
  ];
  for (const [change, pattern] of refused) {
    const folder = await saeLens(raw, { ...old, ...change }, { b_enc });
    await rejectsInOneLine(() => SaeFile.open(folder), pattern);
  }
  const tuned = await saeLens(raw, old, {
    b_enc,
    scaling_factor: new Float32Array(raw.d_sae).fill(1.5),
  });
  await rejectsInOneLine(
    () => SaeFile.open(tuned),
    /expected a scaling_factor of ones: got 1.5/,
  );
});

Deno.test("SaeFile gives the features of sparsify, and refuses what is no SAE of it", async () => {
  const raw = await rawWeights();
  const { d_model, d_sae, W_enc, W_dec, b_enc, b_dec, x } = raw;
  const config = {
    activation: "topk",
    expansion_factor: 32,
    normalize_decoder: true,
    num_latents: d_sae,
    k: K,
    multi_topk: false,
    skip_connection: false,
    transcode: false,
    d_in: d_model,
  };
  const bytes = await safetensors({
    "encoder.weight": W_enc,
    "encoder.bias": b_enc,
    W_dec,
    b_dec,
  }, raw);
  const open = (change: Record<string, unknown>, folder = "run/layers.10") =>
    SaeFile.open(memoryFolder(folder, {
      "cfg.json": json({ ...config, ...change }),
      "sae.safetensors": bytes,
    }));
  const pre = linear(raw, { bias: b_enc, center: b_dec });
  const want = reference(raw, (x) => topK(pre(x), K));
  const sae = await open({});
  assert.equal(sae.layout, "sparsify");
  assert.equal(sae.metadata.hookPoint, "resid_post[10]");
  await assertSame(sae, raw, want, "sparsify");
  assert.equal(x.length % d_model, 0);
  const elsewhere = await open({}, "layers.10.mlp");
  assert.equal(elsewhere.metadata.hookPoint, undefined);
  const refused: [Record<string, unknown>, RegExp][] = [
    [{ transcode: true }, /"transcode": expected false, as a transcoder/],
    [{ skip_connection: true }, /"skip_connection": expected false/],
    [{ signed: true }, /"signed": expected false/],
    [{ activation: "groupmax" }, /"activation": expected topk, as the feat/],
    [{ k: 11 }, /"num_latents"/],
    [{ num_latents: 0 }, /^TypeError: .*"encoder.weight".*\[192, 6\]/],
  ];
  for (const [change, pattern] of refused) {
    await rejectsInOneLine(() => open(change), pattern);
  }
});

Deno.test("SaeFile.open() says what is missing when a file of weights has no config or no SAE", async () => {
  const raw = await rawWeights();
  const bytes = await safetensors({ W_enc: raw.W_enc }, raw);
  const cases: [Record<string, Uint8Array>, string, RegExp][] = [
    [{ "a.safetensors": bytes }, "a.safetensors", /"cfg.json": no such file/],
    [
      { "a.bin": bytes },
      "a.bin",
      /ends in .safetensors, .pt or .npz: got .bin/,
    ],
    [
      { "a.safetensors": await safetensors({ other: raw.x }, raw) },
      "a.safetensors",
      /^TypeError: .*got "other": name the file/,
    ],
  ];
  for (const [files, file, pattern] of cases) {
    await rejectsInOneLine(
      () => SaeFile.open(memoryFolder("lone", files), { file }),
      pattern,
    );
  }
});
