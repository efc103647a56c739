/** What is shipped under `models/`: the SAE belongs to the model, and is as good as it was. */
import assert from "node:assert/strict";
import { directory } from "../core/files.ts";
import { CONCEPTS } from "../core/storybook.ts";
import { findConceptFeatures } from "../steer/concept_features.ts";
import {
  loadFeatureIndex,
  saeFingerprint,
} from "../steer/feature_index_file.ts";
import { readLabels } from "../steer/labels.ts";
import { Embedded, openTinyModel, openTinySae } from "./steer/embedded.ts";
import { runTask } from "./tasks/run_task.ts";

/** Storybooks that neither the model, nor the SAE, nor its labels have seen. */
const [FRESH, FRESH_TOO] = [9001, 9002];

Deno.test("the shipped SAE is of the shipped model and knows what its features do", async () => {
  const model = await openTinyModel();
  const sae = await openTinySae();
  assert.equal(sae.metadata.modelFingerprint, model.fingerprint);
  assert.equal(sae.metadata.hookPoint, "resid_post[3]");
  assert.deepEqual([sae.d_model, sae.d_sae], [model.config.d_model, 1536]);
  const featureMax = await sae.featureMax();
  assert.ok(featureMax, "strengths such as 2x need feature_max");
  assert.ok(featureMax.every((max) => max > 0), "no feature is dead");
  const labels = await readLabels(directory(sae.name), sae.d_sae);
  assert.deepEqual(
    [...labels.values()].map(({ label }) => label).sort(),
    CONCEPTS.map(({ concept }) => concept).sort(),
  );
  const index = await loadFeatureIndex(directory(sae.name), {
    d_sae: sae.d_sae,
    modelFingerprint: model.fingerprint,
    saeFingerprint: await saeFingerprint(sae),
  });
  for (const [feature, { label }] of labels) {
    const { max, contexts } = index.entry(feature);
    assert.ok(max > 0 && contexts.length > 0, `${label} has contexts`);
  }
});

Deno.test("the shipped labels name the best features of their concepts on documents that nobody has seen", async () => {
  using embedded = await Embedded.load();
  const { model, sae, saeFile, hookPoint } = embedded;
  const labels = await readLabels(directory(saeFile.name), saeFile.d_sae);
  const scores = await findConceptFeatures(
    model,
    sae,
    hookPoint,
    embedded.documents(FRESH, 100),
  );
  assert.equal(scores.length, CONCEPTS.length);
  const wrong = scores.filter(({ concept, feature }) =>
    labels.get(feature)?.label !== concept
  ).map(({ concept }) => concept);
  assert.ok(wrong.length <= 5, `others are better for ${wrong.join(", ")}`);
  const mean = scores.reduce((sum, { f1 }) => sum + f1, 0) / scores.length;
  assert.ok(mean > 0.5, `mean F1 ${mean}`);
});

Deno.test("the shipped SAE leaves less than 12 % of the variance of unseen documents unexplained", async () => {
  const words = [`--text=storybook:${FRESH_TOO}:100`, "--no-loss", "--json"];
  const run = await runTask(["eval", ...words]);
  assert.equal(run.code, 0, run.stderr);
  const { fvu, L0, nTokens } = JSON.parse(run.stdout).vectors;
  assert.ok(nTokens > 3000, `${nTokens} vectors`);
  assert.ok(fvu > 0 && fvu < 0.12, `FVU ${fvu}`);
  assert.ok(L0 > 5 && L0 < 50, `L0 ${L0}`);
});
