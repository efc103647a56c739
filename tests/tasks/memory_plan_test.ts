import { deepEqual, equal, match, ok, throws } from "node:assert/strict";
import {
  checkPlan,
  describePlan,
  type MemoryBudget,
  type PlannedRun,
  planTraining,
  type TrainingPlan,
} from "../../tasks/memory_plan.ts";
import { parseRecipe, type SaeRecipe } from "../../train/recipe.ts";
import { trainingMemory } from "../../train/training_tensors.ts";

const CARD = { maxStorageBufferBindingSize: 2 ** 31 - 2 ** 16 };
const SOFTWARE = { maxStorageBufferBindingSize: 2 ** 27 };
const UNKNOWN: MemoryBudget = { isShared: false };

function planOf(
  changes: Partial<SaeRecipe>,
  budget: MemoryBudget = UNKNOWN,
  limits = CARD,
  nVectors = Infinity,
): TrainingPlan {
  const d_sae = 65_536;
  const recipe = parseRecipe({ d_sae, batch: 4096, ...changes }, "test");
  return planTraining(runOf(recipe, limits, nVectors), limits, budget);
}

function runOf(
  recipe: SaeRecipe,
  limits: typeof CARD,
  nVectors = Infinity,
): PlannedRun {
  const binding = limits.maxStorageBufferBindingSize;
  return {
    recipe,
    d_model: 4096,
    nVectors,
    memoryOf: (recipe) =>
      trainingMemory({ ...recipe, d_model: 4096, inputScale: 1 }, binding),
  };
}

/** The recipe that a change's flags make of another. */
function changed(recipe: SaeRecipe, flags: string): SaeRecipe {
  const names: Record<string, keyof SaeRecipe> = {
    "--moments": "moments",
    "--batch": "batch",
    "--accumulate": "accumulate",
    "--buffer-rows": "bufferRows",
    "--d-sae": "d_sae",
  };
  const words = flags.split(" ");
  const values = words.flatMap((word, i) =>
    i % 2 ? [] : [[
      names[word]!,
      word === "--moments" ? words[i + 1] : Number(words[i + 1]),
    ]]
  );
  return { ...recipe, ...Object.fromEntries(values) };
}

Deno.test("planTraining() finds that 65,536 × 4096 with f32 moments and batch 4096 takes at most 12 GB", () => {
  const { gpuBytes, rows, problem } = planOf({});
  const bytes = Object.fromEntries(
    rows.map(({ what, bytes }) => [what, bytes]),
  );
  const nWeights = 2 * 65_536 * 4096;
  ok(bytes["weights"]! >= 4 * nWeights && bytes["weights"]! < 2.16e9);
  ok(
    bytes["moments (f32)"]! >= 8 * nWeights && bytes["moments (f32)"]! < 4.31e9,
  );
  ok(bytes["activations"]! >= 4 * 4096 * 65_536);
  ok(gpuBytes > 10.7e9 && gpuBytes <= 12e9, String(gpuBytes));
  equal(problem, undefined);
});

Deno.test("planTraining() counts what of the data is in memory on the host", () => {
  const recipe = { bufferRows: 1000 };
  equal(planOf(recipe).hostBytes, 2 * 4096 * 1000);
  equal(planOf(recipe, UNKNOWN, CARD, 600).hostBytes, 2 * 4096 * 600);
});

Deno.test("planTraining() refuses nothing by a total that nobody knows", () => {
  equal(planOf({ d_sae: 2 ** 20 }).problem, undefined);
});

Deno.test("planTraining() refuses a batch that no binding holds, with the largest that fits", () => {
  const refused = planOf({ batch: 8193 }, UNKNOWN, SOFTWARE);
  match(
    refused.problem!,
    /expected a batch of at most 8,192 vectors, as this GPU binds 134 MB at once: got 8,193/,
  );
  equal(refused.changes[0]!.flags, "--batch 4097 --accumulate 2");
  equal(planOf({ batch: 8192 }, UNKNOWN, SOFTWARE).problem, undefined);
  // Activations of 64 features bind where vectors are narrow.
  const recipe = parseRecipe({ d_sae: 1536, batch: 600_000 }, "test");
  const { problem } = planTraining(
    { recipe, d_model: 4, nVectors: 1e6, memoryOf: () => [] },
    SOFTWARE,
    UNKNOWN,
  );
  match(problem!, /at most 349,525 vectors/);
  const tiny = { maxStorageBufferBindingSize: 4096 };
  const hopeless = planOf({}, UNKNOWN, tiny);
  match(hopeless.problem!, /expected a vector of f32 to fit into a binding/);
  deepEqual(hopeless.changes, []);
  throws(() => checkPlan(hopeless), /: no smaller batch.* helps: take another/);
});

Deno.test("planTraining() offers changes that fit, and of each kind the smallest", () => {
  for (const gigabytes of [11, 10, 8, 6, 4, 2, 1]) {
    const budget: MemoryBudget = { gpu: gigabytes * 1e9, isShared: false };
    const plan = planOf({}, budget);
    const recipe = parseRecipe({ d_sae: 65_536, batch: 4096 }, "test");
    ok(plan.problem !== undefined && plan.changes.length > 0);
    for (const { flags, gpuBytes } of plan.changes) {
      const again = planTraining(
        runOf(changed(recipe, flags), CARD),
        CARD,
        budget,
      );
      equal(again.problem, undefined, `${gigabytes} GB with ${flags}`);
      equal(again.gpuBytes, gpuBytes);
    }
    const features = plan.changes.at(-1)!.flags;
    const d_sae = Number(/--d-sae (\d+)/.exec(features)?.[1]);
    const more = features.replace(/--d-sae \d+/, `--d-sae ${d_sae + 1024}`);
    const refused = planTraining(
      runOf(changed(recipe, more), CARD),
      CARD,
      budget,
    );
    ok(refused.problem, `${gigabytes} GB with ${more}`);
  }
  const flagsAt = (gpu: number): string[] =>
    planOf({}, { gpu, isShared: false }).changes.map(({ flags }) => flags);
  deepEqual(flagsAt(10.5e9).slice(0, 2), [
    "--moments q8",
    "--batch 2048 --accumulate 2",
  ]);
  deepEqual(flagsAt(6e9)[0], "--moments q8 --batch 512 --accumulate 8");
});

Deno.test("checkPlan() says in one line what is too much and what to take", () => {
  const plan = planOf({}, { gpu: 9e9, isShared: false });
  throws(() => checkPlan(plan), {
    name: "RangeError",
    message:
      /^Cannot train: expected at most 9\.00 GB on the GPU: got 11\.\d GB, the most of it moments \(f32\) with 4\.30 GB: take --moments q8 \(GPU 8\.\d\d GB, host 8\.59 GB\) or .*--d-sae \d+ \([^\n]*\)$/,
  });
  checkPlan(planOf({}, { gpu: 12e9, isShared: false }));
});

Deno.test("planTraining() adds GPU and host where they share memory, and shrinks the buffer", () => {
  const budget: MemoryBudget = { host: 16e9, isShared: true };
  const plan = planOf({}, budget, SOFTWARE);
  match(plan.problem!, /at most 16\.0 GB of memory, which this GPU shares/);
  ok(plan.changes.some(({ flags }) => flags === "--buffer-rows 524288"));
  const apart = planOf({}, { host: 16e9, isShared: false }, SOFTWARE);
  equal(apart.problem, undefined);
  const narrow = planOf({}, { host: 5e9, isShared: false });
  match(narrow.problem!, /at most 5\.00 GB on the host: got 8\.59 GB/);
  equal(narrow.changes[0]!.flags, "--buffer-rows 524288");
});

Deno.test("describePlan() is a table with totals against the budget", () => {
  const table = describePlan(planOf({}, { gpu: 24e9, isShared: false }));
  match(table, /^memory +where +bytes\n/);
  match(table, /^gradients +GPU +2\.15 GB$/m);
  match(table, /^1,048,576 vectors to draw from +host +8\.59 GB$/m);
  match(table, /^total +GPU +11\.\d GB +of 24\.0 GB$/m);
  match(table, /^total +host +8\.59 GB$/m);
  const shared = describePlan(planOf({}, { host: 24e9, isShared: true }));
  match(shared, /^gradients +host, as GPU +2\.15 GB$/m);
  match(shared, /^total +host +20\.\d GB +of 24\.0 GB$/m);
});
