import assert from "node:assert/strict";
import { Rng } from "../../core/rng.ts";
import {
  foldSae,
  type SaeArchitecture,
  SaeFile,
  type SaeWeights,
  saveFeatureMeasurements,
  saveSae,
} from "../../core/sae_file.ts";
import { Safetensors } from "../../core/safetensors.ts";
import { assertRelativeError } from "../assert_close.ts";
import { architecturePass } from "../reference/sae_architectures.ts";
import { rowNorms } from "../reference/sae_reference.ts";
import {
  ARCHITECTURES,
  METADATA,
  randomWeights,
  savedSae,
  withArchitecture,
  writableFolder,
} from "./sae_for_tests.ts";

function copyOf(weights: SaeWeights): SaeWeights {
  const { W_enc, b_enc, W_dec, b_dec, threshold } = weights;
  return {
    ...weights,
    ...(threshold && { threshold: threshold.slice() }),
    W_enc: W_enc.slice(),
    b_enc: b_enc.slice(),
    W_dec: W_dec.slice(),
    b_dec: b_dec.slice(),
  };
}

/** Activations and reconstruction in float64. */
function run(
  { W_enc, b_enc, W_dec, b_dec, d_model, d_sae }: SaeWeights,
  x: readonly number[],
): { acts: number[]; xHat: number[] } {
  const xHat = Array.from(b_dec);
  const acts: number[] = [];
  for (let i = 0; i < d_sae; i++) {
    const pre = x.reduce(
      (sum, value, j) => sum + value * W_enc[i * d_model + j]!,
      b_enc[i]!,
    );
    acts.push(Math.max(pre, 0));
    for (let j = 0; j < d_model; j++) {
      xHat[j]! += acts[i]! * W_dec[i * d_model + j]!;
    }
  }
  return { acts, xHat };
}

Deno.test("foldSae() keeps raw-in/raw-out and gives unit decoder rows", () => {
  const scale = 0.37;
  const scaled = randomWeights(2, 7, 13);
  // A feature whose decoder row is 0 must not turn into NaN.
  scaled.W_dec.fill(0, 7 * 4, 7 * 5);
  const folded = copyOf(scaled);
  foldSae(folded, scale);
  const rng = new Rng(3);
  let nActive = 0;
  for (let k = 0; k < 20; k++) {
    const x = Array.from({ length: 7 }, () => 3 * rng.normal());
    const want = run(scaled, x.map((value) => value * scale));
    const got = run(folded, x);
    for (const [j, value] of want.xHat.entries()) {
      // Folded weights are rounded to f32 once or twice: 13 terms of 2⁻²³ relative error.
      const error = Math.abs(got.xHat[j]! - value / scale);
      assert.ok(error < 1e-4, `xHat[${j}] is off by ${error}`);
    }
    for (const [i, act] of want.acts.entries()) {
      assert.equal(got.acts[i]! > 1e-4, act > 1e-4, `feature ${i}`);
      if (act > 0) nActive++;
    }
  }
  assert.ok(nActive > 50);
  for (let i = 0; i < 13; i++) {
    const norm = Math.hypot(...folded.W_dec.subarray(i * 7, (i + 1) * 7));
    if (i === 4) assert.equal(norm, 0);
    else assert.ok(Math.abs(norm - 1) < 1e-6, `norm ${norm} of row ${i}`);
  }
});

Deno.test("foldSae() gives activations in units of the raw reconstruction", () => {
  // One feature of decoder norm 5 in scaled units: an activation of 2 writes 10/s.
  const weights: SaeWeights = {
    d_model: 2,
    d_sae: 1,
    W_enc: Float32Array.of(1, 0),
    b_enc: Float32Array.of(1),
    W_dec: Float32Array.of(3, 4),
    b_dec: Float32Array.of(1, 2),
  };
  foldSae(weights, 0.5);
  assert.deepEqual(run(weights, [2, 0]).acts, [20]);
  assert.deepEqual([...weights.b_dec], [2, 4]);
  assert.throws(() => foldSae(weights, 0), RangeError);
  assert.throws(() => foldSae(weights, NaN), RangeError);
});

/** One pass in float64 over x `[B, d_model]`. */
function pass(
  architecture: SaeArchitecture,
  weights: SaeWeights,
  x: Float64Array,
  k: number,
): { acts: Float64Array; reconstruction: Float64Array } {
  const { d_model, d_sae, threshold } = weights;
  const wide = (values: Float32Array) => Float64Array.from(values);
  const params = {
    W_enc: wide(weights.W_enc),
    b_enc: wide(weights.b_enc),
    W_dec: wide(weights.W_dec),
    b_dec: wide(weights.b_dec),
    ...(threshold && { log_threshold: wide(threshold).map(Math.log) }),
  };
  const sizes = { B: x.length / d_model, d_model, d_sae };
  return architecturePass(params, x, { sizes, architecture, k });
}

for (const architecture of ARCHITECTURES) {
  Deno.test(`foldSae() and saveSae() keep what fires, and the reconstruction, of ${architecture}`, async () => {
    const [B, d_model, d_sae, scale] = [40, 7, 26, 0.37];
    const { weights, k = 0 } = withArchitecture(
      architecture,
      randomWeights(2, d_model, d_sae),
    );
    const trained = copyOf(weights);
    const rng = new Rng(3);
    const x = Float64Array.from(
      { length: B * d_model },
      () => 3 * rng.normal(),
    );
    const want = pass(
      architecture,
      trained,
      x.map((value) => value * scale),
      k,
    );

    foldSae(weights, scale, architecture);
    const { folder, write } = writableFolder();
    const extra = architecture === "topk" ? { k, inferenceThreshold: 0.7 } : {};
    const metadata = { ...METADATA, architecture, inputScale: scale, ...extra };
    await saveSae(write, { weights, metadata });
    const file = await SaeFile.open(folder());
    assert.deepEqual(file.metadata, metadata);
    const read = await file.weights();
    assert.deepEqual(read, weights);

    const got = pass(architecture, read, x, k);
    const norms = rowNorms(trained.W_dec, d_model);
    const wantActs = want.acts.map((act, at) =>
      // Activations move to raw units and, but for topk, take the decoder's norm.
      act * (architecture === "topk" ? 1 : norms[at % d_sae]!) / scale
    );
    const wantReconstruction = want.reconstruction.map((v) => v / scale);
    // Weights are rounded to f32 once or twice.
    assertRelativeError(got.acts, wantActs, 1e-6, "acts");
    const { reconstruction } = got;
    assertRelativeError(reconstruction, wantReconstruction, 1e-6, "x̂");
    const fires = (acts: Float64Array) => acts.map((act) => act > 0 ? 1 : 0);
    assert.deepEqual(fires(got.acts), fires(want.acts));
    const nFired = want.acts.filter((act) => act > 0).length;
    assert.ok(nFired > B && nFired < B * d_sae / 1.5, `${nFired} fire`);
  });
}

Deno.test("saveSae() writes topk and jumprelu as SAELens 6 reads them", async () => {
  const saved = async (architecture: SaeArchitecture) => {
    const { weights, k } = withArchitecture(
      architecture,
      randomWeights(2, 3, 5),
    );
    foldSae(weights, 1, architecture);
    const { files, folder, write } = writableFolder();
    const metadata = { ...METADATA, architecture, ...(k && { k }) };
    await saveSae(write, { weights, metadata });
    const { architecture: name, ...config } = JSON.parse(
      new TextDecoder().decode(files["cfg.json"]),
    );
    const file = await Safetensors.open(
      await folder().open("sae_weights.safetensors"),
    );
    return { name, config, file };
  };
  const topk = await saved("topk");
  assert.equal(topk.name, "topk");
  assert.equal(topk.config.k, 4);
  assert.equal(topk.config.rescale_acts_by_decoder_norm, false);
  assert.ok(!topk.file.tensors.has("threshold"));
  const jumprelu = await saved("jumprelu");
  assert.equal(jumprelu.name, "jumprelu");
  assert.ok(!("k" in jumprelu.config));
  assert.deepEqual(jumprelu.file.info("threshold").shape, [5]);
});

Deno.test("saveSae() refuses thresholds where there are none to have, and the other way round", async () => {
  for (const architecture of ARCHITECTURES) {
    const weights = randomWeights(2, 3, 5);
    foldSae(weights, 1);
    const isJump = architecture === "jumprelu";
    const wrong = isJump
      ? weights
      : { ...weights, threshold: new Float32Array(5) };
    const { files, write } = writableFolder();
    await assert.rejects(
      saveSae(write, {
        weights: wrong,
        metadata: { ...METADATA, architecture, k: 2 },
      }),
      /^TypeError: Cannot save the SAE: expected thresholds for jumprelu/,
    );
    assert.deepEqual(files, {});
  }
});

Deno.test("SaeFile.threshold() takes what is below 0 for 0, as SAELens does", async () => {
  const weights = {
    ...randomWeights(2, 3, 4),
    threshold: Float32Array.of(-1, 0, 2, 1e-3),
  };
  foldSae(weights, 1);
  const { folder, write } = writableFolder();
  const metadata = { ...METADATA, architecture: "jumprelu" } as const;
  await saveSae(write, { weights, metadata });
  const threshold = await (await SaeFile.open(folder())).threshold();
  assert.deepEqual(threshold, weights.threshold.map((t) => Math.max(t, 0)));
});

Deno.test("saveSae() round-trips weights and metadata, and writes the config last", async () => {
  const { files, folder, weights } = await savedSae();
  assert.deepEqual(Object.keys(files), ["sae_weights.safetensors", "cfg.json"]);
  const sae = await SaeFile.open(folder());
  assert.equal(sae.layout, "saelens");
  assert.deepEqual(sae.metadata, METADATA);
  assert.deepEqual(await sae.weights(), weights);
  assert.equal(await sae.featureMax(), undefined);
  assert.equal(await sae.logDensity(), undefined);
});

Deno.test("saveSae() writes what SAELens 6 reads", async () => {
  const { files, folder, weights } = await savedSae();
  const config = JSON.parse(new TextDecoder().decode(files["cfg.json"]));
  const { open_concept_steering: _, ...metadata } = config.metadata;
  assert.deepEqual({ ...config, metadata }, {
    architecture: "standard",
    d_in: 5,
    d_sae: 11,
    dtype: "float32",
    device: "cpu",
    apply_b_dec_to_input: false,
    normalize_activations: "none",
    reshape_activations: "none",
    metadata: {
      sae_lens_version: "6.0.0",
      sae_lens_training_version: null,
      model_name: "tiny-olmo2",
      hook_name: "blocks.3.hook_resid_post",
      hook_head_index: null,
      context_size: 256,
      prepend_bos: true,
      dataset_path: "storybook:101:3000",
    },
  });
  const file = await Safetensors.open(
    await folder().open("sae_weights.safetensors"),
  );
  assert.deepEqual([...file.tensors.keys()].sort(), [
    "W_dec",
    "W_enc",
    "b_dec",
    "b_enc",
  ]);
  assert.deepEqual(file.info("W_enc").shape, [5, 11]);
  const W_enc = await file.floats("W_enc");
  assert.equal(W_enc[2 * 11 + 7], weights.W_enc[7 * 5 + 2]);
});

Deno.test("saveSae() writes nothing when the weights cannot be used", async () => {
  const cases: [RegExp, (weights: SaeWeights) => SaeWeights][] = [
    [/RangeError: .*norm 1 or 0.*feature 6: fold it first$/, (weights) => {
      weights.W_dec[6 * 5] = 3;
      return weights;
    }],
    [/RangeError: .*finite values of b_enc: got NaN at 2$/, (weights) => {
      weights.b_enc[2] = NaN;
      return weights;
    }],
    [/TypeError: .*11 values of b_enc: got 5$/, (weights) => ({
      ...weights,
      b_enc: weights.b_dec,
    })],
  ];
  for (const [pattern, spoil] of cases) {
    const weights = randomWeights(4, 5, 11);
    foldSae(weights, 1);
    const { files, write } = writableFolder();
    await assert.rejects(
      saveSae(write, { weights: spoil(weights), metadata: METADATA }),
      pattern,
    );
    assert.deepEqual(files, {});
  }
  const { files, write } = writableFolder();
  await assert.rejects(
    saveSae(write, {
      weights: (await savedSae()).weights,
      metadata: { ...METADATA, inputScale: NaN },
    }),
    /SyntaxError: .*inputScale/,
  );
  assert.deepEqual(files, {});
});

Deno.test("saveFeatureMeasurements() adds maxima and log densities", async () => {
  const { folder, write } = await savedSae(2, 3);
  const featureMax = Float32Array.of(0, 1.5, 20);
  const density = Float32Array.of(0, 1, 0.01);
  await saveFeatureMeasurements(write, { featureMax, density });
  const sae = await SaeFile.open(folder());
  assert.deepEqual(await sae.featureMax(), featureMax);
  const logDensity = Array.from((await sae.logDensity())!, Math.round);
  assert.deepEqual(logDensity, [-10, 0, -2]);
  for (const wrong of [NaN, -1, Infinity]) {
    await assert.rejects(
      saveFeatureMeasurements(write, {
        featureMax: Float32Array.of(0, wrong, 0),
        density,
      }),
      /RangeError: .*featureMax.*feature 1$/,
    );
  }
  await assert.rejects(
    saveFeatureMeasurements(write, {
      featureMax,
      density: new Float32Array(2),
    }),
    TypeError,
  );
});
