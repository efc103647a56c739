import assert from "node:assert/strict";
import { directory } from "../../core/files.ts";
import { SaeFile } from "../../core/sae_file.ts";
import { type Folder, memoryFolder, memorySource } from "../../core/source.ts";
import { dictionaryLearningForm } from "../../core/sae_layouts/dictionary_learning.ts";
import { Safetensors } from "../../core/safetensors.ts";
import { rejectsInOneLine } from "../rejects_in_one_line.ts";
import {
  assertSame,
  type Encoded,
  formatFolder,
  gated,
  json,
  jumpRelu,
  linear,
  norms,
  rawWeights,
  reference,
  relu,
  safetensorsOf,
  topK,
} from "./sae_references.ts";

const K = 3; // of all files with the k largest
const THRESHOLD = 0.8; // of all files with one threshold

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
  await rejectsInOneLine(
    () => SaeFile.open(formatFolder("GatedAutoEncoder"), { layer: 2 }),
    /^RangeError: .*layer 2 as asked: got an SAE of mlp_out \(out\): leave/,
  );
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

Deno.test("SaeFile leaves the decoder of an AutoEncoder alone when its norms are next to 1, as load_dictionary does", async () => {
  const raw = await rawWeights();
  const { W_enc, b_enc, b_dec, d_model, d_sae } = raw;
  const factor = norms(raw);
  for (const off of [1e-6, 1e-3]) {
    const W_dec = raw.W_dec.map((value, i) => {
      const feature = Math.floor(i / d_model);
      return value / factor[feature]! * (feature === 2 ? 1 + off : 1);
    });
    const bytes = await safetensorsOf(
      {
        "encoder.weight": W_enc,
        "encoder.bias": b_enc,
        "decoder.weight": W_dec,
        bias: b_dec,
      },
      raw,
      ["decoder.weight"],
    );
    const form = await dictionaryLearningForm(
      await Safetensors.open(memorySource("ae", bytes)),
      undefined,
      "config.json",
    );
    const rows = await form.W_enc.rows(0, d_sae);
    const isSame = rows.every((value, i) => value === W_enc[i]);
    assert.equal(isSame, off < 1e-5);
  }
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

Deno.test("SaeFile.open() says what is missing when a file of weights has no config or no SAE", async () => {
  const raw = await rawWeights();
  const bytes = await safetensorsOf({ W_enc: raw.W_enc }, raw);
  const cases: [Record<string, Uint8Array>, string, RegExp][] = [
    [{ "a.safetensors": bytes }, "a.safetensors", /"cfg.json": no such file/],
    [
      { "a.bin": bytes },
      "a.bin",
      /ends in .safetensors, .pt or .npz: got .bin/,
    ],
    [
      { "a.safetensors": await safetensorsOf({ other: raw.x }, raw) },
      "a.safetensors",
      /^TypeError: .*got "other": name the file/,
    ],
    [
      {
        "final.safetensors": await safetensorsOf({
          "encoder.weight": raw.W_enc,
          "decoder.weight": raw.W_dec,
        }, raw),
      },
      "final.safetensors",
      /^TypeError: .*as Llama Scope has them: load it with SAELens/,
    ],
  ];
  for (const [files, file, pattern] of cases) {
    await rejectsInOneLine(
      () => SaeFile.open(memoryFolder("lone", files), { file }),
      pattern,
    );
  }
});
