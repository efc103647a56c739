import { deepEqual, equal, ok, rejects } from "node:assert/strict";
import { memorySource } from "../../core/source.ts";
import { CHECKPOINT_FILE } from "../../train/checkpoint.ts";
import type { SaeRecipe } from "../../train/recipe.ts";
import { testGpu } from "../gpu_for_tests.ts";
import { smallRecipe, smallRun, sparseData, untimed } from "./small_run.ts";

/** No divisor of the 10 steps between updates of λ, nor of those between resamplings. */
const CHECKPOINT_EVERY = 7;

/** Trains 50 steps, goes on from checkpoints on the way, and wants the same bytes of everything. */
async function comesToTheSame(
  fields: Partial<SaeRecipe>,
  wants: { readonly resamples?: boolean; readonly steers?: boolean } = {},
): Promise<void> {
  const gpu = await testGpu();
  const recipe = smallRecipe({ steps: 50, ...fields });
  const data = sparseData(1000, 64);
  const options = { checkpointEvery: CHECKPOINT_EVERY, metricsEvery: 3 };
  const straight = await smallRun(gpu, data, recipe, options);
  equal(straight.checkpoints.length, 7);
  const lines = untimed(straight.lines);
  equal(lines.some(({ resampled = 0 }) => resampled > 0), !!wants.resamples);
  const last = lines.at(-1)!.lambda;
  equal(last !== recipe.lambda, !!wants.steers);
  for (const n of [0, 2, 4, 6]) {
    const bytes = straight.checkpoints[n]!;
    const checkpoint = memorySource("checkpoint", bytes);
    const resumed = await smallRun(gpu, data, recipe, {
      ...options,
      checkpoint,
    });
    const done = CHECKPOINT_EVERY * (n + 1);
    const after = lines.filter(({ step }) => step >= done);
    deepEqual(untimed(resumed.lines), after, `from step ${done}`);
    deepEqual(resumed.checkpoints, straight.checkpoints.slice(n + 1));
    deepEqual(
      resumed.files,
      n < 6 ? straight.files : without(straight.files, CHECKPOINT_FILE),
    );
  }
}

function without<T>(
  files: Record<string, T>,
  name: string,
): Record<string, T> {
  const { [name]: _, ...others } = files;
  return others;
}

Deno.test("trainSae() resumes to the bit with warm-ups, λ steered to an L0 and resampling", async () => {
  await comesToTheSame({
    targetL0: 2,
    lambdaWarmup: 0.2,
    lrWarmup: 0.1,
    resampleEvery: 8,
    resampleUntil: 0.9,
    accumulate: 2,
    lambda: 3,
  }, { resamples: true, steers: true });
});

Deno.test("trainSae() resumes topk with AuxK and resampling to the bit", async () => {
  await comesToTheSame({
    architecture: "topk",
    auxK: 4,
    deadAfter: 300,
    resampleEvery: 12,
    resampleUntil: 0.8,
    lambda: 0,
  }, { resamples: true });
});

Deno.test("trainSae() resumes batchtopk and jumprelu to the bit, λ steered", async () => {
  await comesToTheSame({ architecture: "batchtopk", lambda: 0 });
  await comesToTheSame({ architecture: "jumprelu", targetL0: 3 }, {
    steers: true,
  });
});

Deno.test("trainSae() resumes 8-bit moments to the bit, on data in memory or not", async () => {
  await comesToTheSame({ moments: "q8" });
  await comesToTheSame({ moments: "q8", bufferRows: 5000 });
});

Deno.test("trainSae() goes on the path of its checkpoint, whatever it is told then", async () => {
  const gpu = await testGpu();
  const data = sparseData(1000, 64);
  const recipe = smallRecipe();
  for (const path of ["dense", "sparse"] as const) {
    const straight = await smallRun(gpu, data, recipe, {
      path,
      checkpointEvery: 10,
    });
    const told: number[] = [];
    const resumed = await smallRun(gpu, data, recipe, {
      checkpoint: memorySource("checkpoint", straight.checkpoints[0]!),
      path: path === "dense" ? "sparse" : "auto",
      onPath: (entries) => told.push(entries),
    });
    deepEqual(told, [path === "dense" ? 0 : Infinity]);
    deepEqual(new Set(resumed.lines.map((line) => line.path)), new Set([path]));
    deepEqual(untimed(resumed.lines), untimed(straight.lines).slice(10));
  }
});

Deno.test("trainSae() stops at a signal with a checkpoint that leads to the same SAE", async () => {
  const gpu = await testGpu();
  const data = sparseData(1000, 64);
  const recipe = smallRecipe();
  const controller = new AbortController();
  const stopped = await smallRun(gpu, data, recipe, {
    signal: controller.signal,
    onProgress: () => controller.abort(),
  });
  equal(stopped.result.isDone, false);
  ok(stopped.result.step < 20, `${stopped.result.step} steps`);
  deepEqual(Object.keys(stopped.files), [CHECKPOINT_FILE]);
  const checkpoint = memorySource(
    "checkpoint",
    stopped.files[CHECKPOINT_FILE]!,
  );
  const resumed = await smallRun(gpu, data, recipe, { checkpoint });
  const straight = await smallRun(gpu, data, recipe);
  deepEqual(resumed.files, straight.files);
});

Deno.test("trainSae() refuses the checkpoint of another recipe or other data, naming what differs", async () => {
  const gpu = await testGpu();
  const data = sparseData(1000, 64);
  const recipe = smallRecipe();
  const { checkpoints, files } = await smallRun(gpu, data, recipe, {
    checkpointEvery: 10,
  });
  const checkpoint = memorySource("checkpoint", checkpoints[0]!);
  const others: [Partial<SaeRecipe>, RegExp][] = [
    [{ lambda: 2 }, /expected lambda 0\.3, .*: got 2: choose another/],
    [{ d_sae: 41 }, /expected d_sae 40, .*: got 41: /],
    [{ architecture: "topk" }, /expected architecture "relu", .*: got "topk"/],
    [{ moments: "q8" }, /expected moments "f32", .*: got "q8": /],
    [{ betas: [0.8, 0.999] }, /expected betas \[0\.9,0\.999\], .*\[0\.8,0\.9/],
  ];
  for (const [fields, message] of others) {
    const run = smallRun(gpu, data, smallRecipe(fields), { checkpoint });
    await rejects(run, message);
    await rejects(run, /^RangeError: Cannot resume from "checkpoint": /);
  }
  await rejects(
    smallRun(gpu, sparseData(1001, 64), recipe, { checkpoint }),
    /expected n 950, with which it was trained: got 951/,
  );
  const weights = files["sae_weights.safetensors"]!;
  await rejects(
    smallRun(gpu, data, recipe, { checkpoint: memorySource("w", weights) }),
    /^SyntaxError: Cannot resume from "w": .*: remove it to begin anew$/,
  );
  const cut = memorySource("cut", checkpoints[0]!.slice(0, -1));
  await rejects(
    smallRun(gpu, data, recipe, { checkpoint: cut }),
    /^SyntaxError: Cannot resume from "cut": it is damaged/,
  );
});

Deno.test("trainSae() keeps its last checkpoint when the disk is full, and when the GPU is lost", async () => {
  const data = sparseData(1000, 64);
  const recipe = smallRecipe({ steps: 40 });
  for (const end of ["full disk", "lost GPU"] as const) {
    using gpu = await testGpu({});
    const straight = await smallRun(gpu, data, recipe, { checkpointEvery: 10 });
    const kept: Uint8Array<ArrayBuffer>[] = [];
    const broken = smallRun(gpu, data, recipe, {
      checkpointEvery: 10,
      write: async (_file, content) => {
        const chunks = content as AsyncIterable<Uint8Array>;
        if (end === "full disk" && kept.length === 2) {
          for await (const _ of chunks) throw new Error("Cannot write: full");
        }
        kept.push(await new Response(ReadableStream.from(chunks)).bytes());
      },
      onProgress: ({ step }) => {
        if (end === "lost GPU" && step === 25) gpu.device.destroy();
      },
    });
    await rejects(
      broken,
      end === "full disk" ? /Cannot write: full/ : { name: "GpuLostError" },
    );
    deepEqual(kept, straight.checkpoints.slice(0, 2));
    using another = await testGpu({});
    const resumed = await smallRun(another, data, recipe, {
      checkpoint: memorySource("checkpoint", kept[1]!),
    });
    deepEqual(
      resumed.files,
      without(straight.files, CHECKPOINT_FILE),
    );
  }
});
