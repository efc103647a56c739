import assert from "node:assert/strict";
import { directory } from "../../core/files.ts";
import { KvCache } from "../../core/kv_cache.ts";
import { openModelFolder, startTokenId } from "../../core/model_folder.ts";
import { Olmo2, Workspace } from "../../core/olmo2.ts";
import { Rng } from "../../core/rng.ts";
import { Sae } from "../../core/sae.ts";
import { storybook } from "../../core/storybook.ts";
import type { TextDocument } from "../../core/text.ts";
import { wholeSequences } from "../../core/token_batch.ts";
import {
  conceptsOfTokens,
  tokenizeDocuments,
} from "../../core/tokenized_text.ts";
import type { Tokenizer } from "../../core/tokenizer.ts";
import { gatherExamples } from "../../steer/examples.ts";
import { rankFeatures, searchFeatures } from "../../steer/search.ts";
import { assertClose } from "../assert_close.ts";
import { testGpu } from "../gpu_for_tests.ts";
import { sparse } from "./sparse_rows.ts";

const MODEL = new URL("../../models/tiny-olmo2", import.meta.url).pathname;

/** F1 of a detector of 5 % of all tokens. */
const f1 = (recall: number, falseRate: number): number =>
  2 * 0.05 * recall / (0.05 * recall + 0.95 * falseRate + 0.05);

Deno.test("rankFeatures() gives the numbers that are worked out by hand", () => {
  // Feature 0 fires on both examples and weakly on one of 4 other tokens, 1 on
  // everything, 2 on one token of one example, 3 on other text only.
  const positives = [
    sparse([[4, 2, 0, 0], [2, 2, 5, 0]]),
    sparse([[3, 2, 0, 0], [0, 2, 0, 0]]),
  ];
  const others = [
    sparse([[0, 2, 0, 1], [0, 2, 0, 1]]),
    sparse([[1, 2, 0, 0], [0, 2, 0, 0]]),
  ];
  const matches = rankFeatures(positives, [others], { d_sae: 4, limit: 9 });
  assert.deepEqual(matches.map(({ feature }) => feature), [0, 2, 1]);
  const [first, second, third] = matches;
  // Above 0.4 of the maximum 4 are 4, 2 and 3 on the examples, and not the 1 elsewhere.
  assert.equal(first!.threshold, 0.4);
  assertClose([first!.score], [f1(3 / 4, 0)], { rtol: 1e-12, label: "score" });
  assert.deepEqual([first!.recall, first!.falseRate], [3 / 4, 0]);
  assertClose([first!.difference], [9 / 16 - 1 / 16], {
    rtol: 1e-12,
    label: "difference",
  });
  assert.equal(first!.auroc, 1);
  assertClose([second!.score], [f1(1 / 4, 0)], { rtol: 1e-12, label: "score" });
  assert.equal(second!.auroc, 0.75);
  assertClose([third!.score], [f1(1, 1)], { rtol: 1e-12, label: "score" });
  assert.deepEqual([third!.difference, third!.auroc], [0, 0.5]);
});

Deno.test("rankFeatures() wants a feature silent on every group of other texts", () => {
  // Over all other tokens together feature 0 fires less often, but on all of the close group.
  const positives = [sparse([[1, 1]])];
  const far = Array.from({ length: 9 }, (_, i) => sparse([[0, i < 3 ? 1 : 0]]));
  const close = [sparse([[1, 0]])];
  const options = { d_sae: 2, limit: 2 };
  const best = (groups: Parameters<typeof rankFeatures>[1]) =>
    rankFeatures(positives, groups, options)[0]!;
  assert.equal(best([[...far, ...close]]).feature, 0);
  assert.equal(best([far, close]).feature, 1);
  assert.equal(best([far, close]).falseRate, 1 / 3);
});

Deno.test("rankFeatures() counts in units of the known maximum", () => {
  const positives = [sparse([[3]])];
  const others = [[sparse([[1]])]];
  const at = (maximum: number) =>
    rankFeatures(positives, others, {
      d_sae: 1,
      featureMax: Float32Array.of(maximum),
      limit: 1,
    })[0]!;
  assertClose([at(8).difference], [0.25], { atol: 1e-12, label: "of 8" });
  assert.equal(at(8).threshold, 0.2);
  assertClose([at(0).difference], [2 / 3], { rtol: 1e-7, label: "unknown" });
});

Deno.test("rankFeatures() returns at most the limit, and nothing that is silent on the examples", () => {
  const positives = [sparse([[1, 2, 0]])];
  const others = [[sparse([[0, 0, 9]])]];
  const ranked = (limit: number) =>
    rankFeatures(positives, others, { d_sae: 3, limit }).map((m) => m.feature);
  assert.deepEqual(ranked(9), [0, 1]);
  assert.deepEqual(ranked(1), [0]);
});

Deno.test("rankFeatures() refuses groups without tokens", () => {
  const some = [sparse([[1]])];
  const options = { d_sae: 1, limit: 1 };
  for (const [positives, others] of [[[], [some]], [some, [[]]]] as const) {
    assert.throws(
      () => rankFeatures(positives, others, options),
      /^RangeError: Cannot rank features: expected tokens in /,
    );
  }
});

Deno.test("searchFeatures() finds the feature that reads a concept's mean from three of its words", async () => {
  const folder = await openModelFolder(directory(MODEL));
  const gpu = await testGpu();
  const { config, checkpoint, tokenizer } = folder;
  using model = await Olmo2.load(gpu, checkpoint, config, {
    nLayers: 4,
    withHead: false,
  });
  const documents = Array.from(
    storybook(5).take(150),
    ({ text, spans }, i) => ({ id: `${i}`, text, spans }),
  ).filter(({ spans }, i) =>
    i < 20 || spans.some(({ concept }) => concept === "baseball")
  );
  const { d_model } = config;
  const means = await meansOf(model, tokenizer, documents, "baseball");
  const rng = new Rng(1);
  const d_sae = 33;
  const planted = 20;
  const W = Float32Array.from({ length: d_sae * d_model }, () => rng.normal());
  const b_enc = new Float32Array(d_sae).fill(-30);
  // It fires on what is nearer to the mean of the concept than to that of all else.
  let middle = 0;
  for (let j = 0; j < d_model; j++) {
    const difference = means.inside[j]! - means.outside[j]!;
    W[planted * d_model + j] = difference;
    middle += difference * (means.inside[j]! + means.outside[j]!) / 2;
  }
  b_enc[planted] = -middle;
  const rows = (start: number, end: number) =>
    Promise.resolve(W.slice(start * d_model, end * d_model));
  using sae = await Sae.load(gpu, {
    d_model,
    d_sae,
    rowsOfEncoder: rows,
    rowsOfDecoder: rows,
    b_enc: () => Promise.resolve(b_enc),
    b_dec: () => Promise.resolve(new Float32Array(d_model)),
  });
  const words = ["baseball", "pitcher", "catcher"];
  const other = Array.from(storybook(6).take(400), ({ text }, i) => ({
    id: `${i}`,
    text,
  }));
  const matches = await searchFeatures(
    {
      model,
      tokenizer,
      startTokenId: startTokenId(folder),
      sae,
      hookPoint: "resid_post[3]",
    },
    await gatherExamples({ words }, other),
    { limit: 2 },
  );
  assert.equal(matches[0]!.feature, planted);
  assert.ok(matches[0]!.score > 2 * matches[1]!.score, JSON.stringify(matches));
  assert.ok(matches[0]!.auroc > 0.9, JSON.stringify(matches));
});

/** Means of resid_post[3] over the tokens of a concept, and over all others. */
async function meansOf(
  model: Olmo2,
  tokenizer: Tokenizer,
  documents: readonly TextDocument[],
  concept: string,
): Promise<{ inside: Float64Array; outside: Float64Array }> {
  const { gpu, config } = model;
  const sums = {
    inside: new Float64Array(config.d_model),
    outside: new Float64Array(config.d_model),
  };
  const n = { inside: 0, outside: 0 };
  const options = { startTokenId: 0, contextLength: 256 };
  const tokenized = tokenizeDocuments(documents, tokenizer, options);
  for await (const document of tokenized) {
    const T = document.ids.length;
    using work = new Workspace(gpu, config, T);
    const size = { nRows: 1, nLayers: 4, isShared: true };
    using cache = new KvCache(gpu, config, size);
    work.load(wholeSequences(config, [document.ids]));
    cache.fit([T]);
    gpu.record("read", (rec) => model.forward(rec, work, cache));
    const resid = await gpu.read(work.tokens.resid);
    for (const [t, of] of conceptsOfTokens(document).entries()) {
      if (t === 0) continue;
      const side = of === concept ? "inside" : "outside";
      n[side]++;
      for (let j = 0; j < config.d_model; j++) {
        sums[side][j]! += resid[t * config.d_model + j]!;
      }
    }
  }
  return {
    inside: sums.inside.map((sum) => sum / n.inside),
    outside: sums.outside.map((sum) => sum / n.outside),
  };
}
