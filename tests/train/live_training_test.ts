import { deepEqual, equal } from "node:assert/strict";
import { directory } from "../../core/files.ts";
import { openModelFolder } from "../../core/model_folder.ts";
import { memorySource } from "../../core/source.ts";
import type { Gpu } from "../../gpu/mod.ts";
import { CHECKPOINT_FILE } from "../../train/checkpoint.ts";
import { LiveRows } from "../../train/live_rows.ts";
import type { SaeRecipe } from "../../train/recipe.ts";
import { ResidualReader } from "../../train/residual_reader.ts";
import { testGpu } from "../gpu_for_tests.ts";
import { story } from "./numbered.ts";
import { smallRecipe, smallRun, sparseData } from "./small_run.ts";

const MODEL = new URL("../../models/tiny-olmo2", import.meta.url).pathname;
const TEXT = "storybook:101:12";

/** Batches of the tiny model on a text; what they need belongs to `owned`. */
async function openLive(
  gpu: Gpu,
  recipe: SaeRecipe,
  owned: DisposableStack,
): Promise<LiveRows> {
  const model = await openModelFolder(directory(MODEL));
  const reader = owned.use(
    await ResidualReader.load(gpu, model, {
      hookPoint: "resid_post[2]",
      maxTokens: 100,
    }),
  );
  return owned.use(
    await LiveRows.open({
      gpu,
      reader,
      text: TEXT,
      read: await story(TEXT),
      contextLength: 48,
      tokensPerPass: 100,
      pack: true,
      separator: true,
      skipFirst: 1,
      skipTokens: new Set([0]),
      batches: recipe,
    }),
  );
}

Deno.test("trainSae() straight from a model gives the same bits in 12 steps as in 6, a checkpoint and 6", async () => {
  const gpu = await testGpu();
  // Two batches a step: both are drawn, and the model may run, before the first is used.
  const recipe = smallRecipe({ steps: 12, accumulate: 2, bufferRows: 150 });
  const train = async (checkpoint?: Uint8Array) => {
    using owned = new DisposableStack();
    const batches = await openLive(gpu, recipe, owned);
    return await smallRun(gpu, sparseData(100, 50), recipe, {
      batches,
      checkpointEvery: 6,
      ...(checkpoint && {
        checkpoint: memorySource(CHECKPOINT_FILE, checkpoint),
      }),
    });
  };
  const straight = await train();
  const [half] = straight.checkpoints;
  const resumed = await train(half);
  equal(resumed.lines[0]!.step, 6);
  const file = "sae_weights.safetensors";
  deepEqual(resumed.files[file], straight.files[file]);
});
