/**
 * `export --to sae-bench` in this process, on an SAE of random directions.
 */
import assert from "node:assert/strict";
import { rejectsInOneLine } from "../rejects_in_one_line.ts";
import { exportScene, runExport } from "./export_scene.ts";
import { D_SAE } from "./made_sae.ts";

/** What a `core` result must have, by SAEBench's schema. */
const METRICS: Readonly<Record<string, readonly string[]>> = {
  model_behavior_preservation: [
    "kl_div_score",
    "kl_div_with_ablation",
    "kl_div_with_sae",
  ],
  model_performance_preservation: [
    "ce_loss_score",
    "ce_loss_with_ablation",
    "ce_loss_with_sae",
    "ce_loss_without_sae",
  ],
  reconstruction_quality: [
    "explained_variance",
    "explained_variance_legacy",
    "mse",
    "cossim",
  ],
  shrinkage: [
    "l2_norm_in",
    "l2_norm_out",
    "l2_ratio",
    "relative_reconstruction_bias",
  ],
  sparsity: ["l0", "l1"],
  token_stats: [
    "total_tokens_eval_reconstruction",
    "total_tokens_eval_sparsity_variance",
  ],
  misc_metrics: [
    "freq_over_1_percent",
    "freq_over_10_percent",
    "normalized_freq_over_1_percent",
    "normalized_freq_over_10_percent",
    "average_max_encoder_cosine_sim",
    "average_max_decoder_cosine_sim",
    "frac_alive",
  ],
};

Deno.test("export --to sae-bench writes a core result whose measures agree with each other", async () => {
  using scene = await exportScene();
  const args = ["--sae", scene.sae, "--to", "sae-bench", "--release", "mine"];
  const path = await runExport([
    ...[...args, "--out", `${scene.path}/out`],
    ...["--text", "storybook:1:3", "--batch-prompts", "2"],
  ]);
  assert.equal(path, `${scene.path}/out/mine_sae_eval_results.json`);
  const result = JSON.parse(await Deno.readTextFile(path));
  assert.equal(result.eval_type_id, "core");
  assert.match(result.eval_id, /^[0-9a-f-]{36}$/);
  assert.equal(result.sae_lens_id, "sae");
  assert.equal(result.sae_lens_release_id, "mine");
  assert.equal(result.eval_config.n_eval_reconstruction_batches, 2);
  assert.equal(result.sae_cfg_dict.d_sae, D_SAE);
  for (const [group, names] of Object.entries(METRICS)) {
    const measures = result.eval_result_metrics[group];
    assert.deepEqual(Object.keys(measures).sort(), names.toSorted(), group);
    const isNumber = (value: unknown) => typeof value === "number";
    assert.ok(Object.values(measures).every(isNumber), group);
  }
  const metrics = result.eval_result_metrics;
  const { model_performance_preservation: ce, sparsity, misc_metrics } =
    metrics;
  // 64 random directions keep next to nothing of the stream.
  assert.ok(ce.ce_loss_without_sae < ce.ce_loss_with_sae);
  assert.ok(metrics.model_behavior_preservation.kl_div_with_sae > 0);
  const details = result.eval_result_details;
  assert.deepEqual(details.map(({ index }: { index: number }) => index), [
    ...Array(D_SAE).keys(),
  ]);
  const sum = (name: string): number =>
    details.reduce(
      (n: number, row: Record<string, number>) => n + row[name]!,
      0,
    );
  assert.ok(Math.abs(sum("feature_density") - sparsity.l0) < 1e-6);
  const mostly = sum("max_decoder_cosine_sim") / D_SAE;
  assert.ok(
    Math.abs(mostly - misc_metrics.average_max_decoder_cosine_sim) < 1e-6,
  );
  // W_enc = W_dec, of norm 1.
  for (const row of details) {
    assert.ok(Math.abs(row.encoder_norm - 1) < 1e-6);
    assert.ok(Math.abs(row.encoder_decoder_cosine_sim - 1) < 1e-6);
    assert.equal(row.encoder_bias, -4);
    const isDead = row.feature_density === 0;
    assert.equal(row.consistent_activation_heuristic === -1, isDead);
  }
  const { fvu } = result.eval_result_unstructured.open_concept_steering;
  assert.ok(fvu > 0.1 && fvu < 2, String(fvu));
});

Deno.test("export --to sae-bench refuses an SAE whose reconstruction cannot take the stream's place", async () => {
  using scene = await exportScene({ metadata: { hookPoint: "final_norm@3" } });
  await rejectsInOneLine(
    () =>
      runExport([
        ...["--sae", scene.sae, "--to", "sae-bench"],
        ...["--out", `${scene.path}/out`],
      ]),
    /^RangeError: Cannot measure ".+" for SAEBench: expected an SAE of resid_post/,
  );
});
