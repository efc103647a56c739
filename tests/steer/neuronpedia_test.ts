import assert from "node:assert/strict";
import { FeatureIndexBuilder } from "../../steer/feature_index.ts";
import type { LogitLens } from "../../steer/logit_lens.ts";
import { neuronpediaFiles } from "../../steer/neuronpedia.ts";
import { sparse } from "./sparse_rows.ts";

Deno.test("neuronpediaFiles() writes no file without rows, which Neuronpedia does not import", async () => {
  const d_sae = 1025; // one more than a batch
  const source = { modelFingerprint: "m", saeFingerprint: "s", text: "made" };
  const builder = new FeatureIndexBuilder(source, d_sae);
  const ids = Uint32Array.of(0, 5);
  builder.add({ id: "a", ids }, sparse([[0, 2]]));
  async function* lenses(): AsyncGenerator<LogitLens> {
    const histogram = { heights: [], values: [] };
    for (let feature = 0; feature < d_sae; feature++) {
      yield await Promise.resolve({ feature, top: [], bottom: [], histogram });
    }
  }
  const files = await Array.fromAsync(neuronpediaFiles({
    names: {
      modelId: "m",
      model: {
        instruct: false,
        dimension: 1,
        layers: 1,
        neuronsPerLayer: 1,
        owner: "",
      },
      layer: 3,
      hookName: null,
      sourceSet: "res",
      description: "",
      release: { name: "r", title: "r", urls: [] },
      creatorName: "",
      creatorId: "",
      contextLength: null,
      hfRepoId: null,
      hfFolderId: null,
      createdAt: "2025-01-01T00:00:00.000Z",
      idPrefix: "0".repeat(16),
    },
    index: builder.finish(),
    labels: new Map(),
    tokenizer: { decode: () => "x" },
    lenses: lenses(),
  }));
  assert.deepEqual(
    files.map(({ path }) => path.slice("m/3-res/".length))
      .filter((path) => path.includes("/")),
    [
      "features/batch-0.jsonl.gz",
      "activations/batch-0.jsonl.gz",
      "features/batch-1.jsonl.gz",
    ],
  );
});
