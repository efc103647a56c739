import { deepEqual, equal, ok } from "node:assert/strict";
import { Rng } from "../../core/rng.ts";
import { Safetensors, safetensorsChunks } from "../../core/safetensors.ts";
import { memorySource } from "../../core/source.ts";
import { Batches } from "../../train/batches.ts";
import { initSae, type SaeParams } from "../../train/init.ts";
import type { SaeRecipe } from "../../train/recipe.ts";
import { resampleDead } from "../../train/resample.ts";
import { trainerConfig } from "../../train/train.ts";
import { SaeTrainer } from "../../train/trainer.ts";
import { assertClose } from "../assert_close.ts";
import { testGpu } from "../gpu_for_tests.ts";
import { D, smallRecipe, sparseData } from "./small_run.ts";

const D_SAE = 67;
/** Steps before features are pushed down and after, and the tokens of either. */
const STEPS = 6;
const TOKENS = STEPS * 32;
const VALUES = { lambda: 0.3, lr: 3e-3 };

/** Odd features are dead: they are pushed far down. */
const isPushed = (i: number): boolean => i % 2 === 1;

/** A trainer after a few steps, which gave all features moments, and as many after which some no longer fired. */
async function trained(
  fields: Partial<SaeRecipe>,
  pushed: (i: number) => boolean,
): Promise<{ trainer: SaeTrainer; batches: Batches; recipe: SaeRecipe }> {
  const gpu = await testGpu();
  const recipe = smallRecipe({ d_sae: D_SAE, ...fields });
  const batches = await Batches.open(sparseData(1000, 64), recipe);
  const { mean, inputScale } = batches.statistics;
  const start = initSae(
    mean.map((value) => value * inputScale),
    D_SAE,
    1,
    recipe.architecture,
    recipe.initThreshold,
  );
  // Lifted, so that they all fire on every batch.
  start.b_enc.forEach((b, i) => start.b_enc[i] = b + 3);
  const trainer = new SaeTrainer(
    gpu,
    trainerConfig(recipe, { d_model: D, inputScale }),
    start,
  );
  const train = async (): Promise<void> => {
    for (let step = 0; step < STEPS; step++) {
      trainer.step(await batches.next(), VALUES);
    }
  };
  await train();
  const params = await trainer.params();
  for (const i of params.b_enc.keys()) if (pushed(i)) params.b_enc[i] = -100;
  trainer.writeParams(params);
  await train();
  return { trainer, batches, recipe };
}

/** Bytes of everything that changes from step to step. */
async function stateOf(
  trainer: SaeTrainer,
): Promise<Map<string, Uint8Array[]>> {
  const stream = ReadableStream.from(safetensorsChunks(trainer.stateTensors()));
  const bytes = await new Response(stream).bytes();
  const file = await Safetensors.open(memorySource("state", bytes));
  const rows = new Map<string, Uint8Array[]>();
  for (const { name, shape } of trainer.stateTensors()) {
    const all = await file.bytes(name, 0, shape[0]!);
    const width = all.length / shape[0]!;
    rows.set(
      name,
      Array.from(
        { length: shape[0]! },
        (_, i) => all.slice(i * width, (i + 1) * width),
      ),
    );
  }
  return rows;
}

/** Resamples by batches without a repeated row, which those of a run may have. */
async function resample(
  { trainer, recipe }: Pick<
    Awaited<ReturnType<typeof trained>>,
    "trainer" | "recipe"
  >,
  seed = 3,
): Promise<{ readonly nReplaced: number; readonly nBatches: number }> {
  const rows = await sparseData(1000, 1000).read(0);
  let nBatches = 0;
  const nReplaced = await resampleDead({
    trainer,
    next: () => {
      const start = nBatches++ * 32 * D;
      return Promise.resolve(rows.slice(start, start + 32 * D));
    },
    deadAfter: TOKENS,
    initThreshold: recipe.initThreshold,
    rng: new Rng(seed),
  });
  return { nReplaced, nBatches };
}

function rowOf(W: Float32Array, i: number): Float32Array {
  return W.slice(i * D, (i + 1) * D);
}

function norm(row: Float32Array): number {
  return Math.hypot(...row);
}

/** Mean norm of the rows of the features that were not pushed. */
function meanLiveNorm(W: Float32Array): number {
  const live = Array.from({ length: D_SAE }, (_, i) => i)
    .filter((i) => !isPushed(i));
  return live.reduce((sum, i) => sum + norm(rowOf(W, i)), 0) / live.length;
}

const CASES: Partial<SaeRecipe>[] = [
  {},
  { moments: "q8" },
  // So wide a window that every threshold gets a gradient.
  { architecture: "jumprelu", initThreshold: 0.2, bandwidth: 20 },
];

for (const fields of CASES) {
  const name = `${fields.architecture ?? "relu"}, ${fields.moments ?? "f32"}`;
  Deno.test(`resampleDead() replaces the half that is dead, and nothing else (${name})`, async () => {
    const run = await trained(fields, isPushed);
    using trainer = run.trainer;
    const waited = await trainer.tokensSinceFired();
    deepEqual(
      [...waited].map((tokens) => tokens >= TOKENS),
      [...waited.keys()].map(isPushed),
    );
    const [before, old] = [await stateOf(trainer), await trainer.params()];
    const { nReplaced } = await resample(run);
    equal(nReplaced, Math.floor(D_SAE / 2));
    const [after, now] = [await stateOf(trainer), await trainer.params()];
    for (const [tensor, rows] of after) {
      for (const [i, row] of rows.entries()) {
        const isFeature = rows.length === D_SAE;
        if (isFeature && isPushed(i)) {
          checkReplaced(tensor, row, before.get(tensor)![i]!);
        } else if (tensor !== "tokens_since_fired") {
          deepEqual(row, before.get(tensor)![i], `${tensor} of ${i}`);
        }
      }
    }
    checkRows(old, now);
    if (now.log_threshold) {
      const pushed = now.log_threshold.filter((_, i) => isPushed(i));
      const want = pushed.map(() => Math.log(run.recipe.initThreshold));
      assertClose(pushed, want, { rtol: 1e-6, label: "log threshold" });
    }
    await trainsOn(run);
  });
}

/** What is kept of a replaced feature starts anew, as if it had just fired; scales of 0 make 8-bit codes of 0 moments of 0. */
function checkReplaced(
  tensor: string,
  row: Uint8Array,
  before: Uint8Array,
): void {
  if (/^[mv]\.|^scales\.|^tokens_since_fired$/.test(tensor)) {
    ok(row.every((byte) => byte === 0), tensor);
    ok(before.some((byte) => byte !== 0), `${tensor} was 0 before`);
  } else if (/^W_|^b_enc/.test(tensor)) {
    ok(row.some((byte, i) => byte !== before[i]), `${tensor} is the old one`);
  }
}

/** New rows point the same way, at the norms of live ones, and see centered inputs. */
function checkRows(old: SaeParams, now: SaeParams): void {
  const [encoder, decoder] = [
    0.2 * meanLiveNorm(old.W_enc),
    meanLiveNorm(old.W_dec),
  ];
  const directions = new Set<string>();
  for (let i = 0; i < D_SAE; i++) {
    if (!isPushed(i)) continue;
    const [reads, writes] = [rowOf(now.W_enc, i), rowOf(now.W_dec, i)];
    assertClose([norm(writes)], [decoder], { rtol: 1e-5, label: "decoder" });
    assertClose([norm(reads)], [encoder], { rtol: 1e-5, label: "encoder" });
    const ratio = encoder / decoder;
    assertClose(reads, writes.map((value) => value * ratio), {
      rtol: 1e-4,
      atol: 1e-7,
      label: "direction",
    });
    const dot = reads.reduce((sum, value, j) => sum + value * now.b_dec[j]!, 0);
    assertClose([now.b_enc[i]!], [-dot], { atol: 1e-5, label: "b_enc" });
    directions.add(writes.join());
  }
  equal(directions.size, Math.floor(D_SAE / 2), "inputs are drawn once");
}

/** The next step moves no parameter by more than Adam with moments of 0 can, and replaced features fire again. */
async function trainsOn(
  { trainer, batches }: Awaited<ReturnType<typeof trained>>,
): Promise<void> {
  const before = await trainer.params();
  trainer.step(await batches.next(), VALUES);
  const after = await trainer.params();
  for (const name of ["W_enc", "W_dec"] as const) {
    const moved = after[name].map((value, i) => value - before[name][i]!);
    const most = moved.reduce((most, x) => Math.max(most, Math.abs(x)), 0);
    ok(most > 0 && most < 10 * VALUES.lr, `${name} moved by ${most}`);
  }
  const waited = await trainer.tokensSinceFired();
  const nFired = waited.filter((tokens, i) => isPushed(i) && tokens < 32);
  ok(nFired.length > D_SAE / 4, `${nFired.length} of the replaced fire`);
}

Deno.test("resampleDead() touches nothing and draws nothing when no feature is dead", async () => {
  const run = await trained({}, () => false);
  using trainer = run.trainer;
  const before = await stateOf(trainer);
  deepEqual(await resample(run), { nReplaced: 0, nBatches: 0 });
  deepEqual(await stateOf(trainer), before);
});

Deno.test("resampleDead() draws the same for a seed, and others for another", async () => {
  const drawn: Map<string, Uint8Array[]>[] = [];
  for (const seed of [3, 3, 4]) {
    const run = await trained({}, isPushed);
    using trainer = run.trainer;
    await resample(run, seed);
    drawn.push(await stateOf(trainer));
  }
  deepEqual(drawn[0], drawn[1]);
  const [a, c] = [drawn[0]!.get("W_dec"), drawn[2]!.get("W_dec")];
  ok(a!.some((row, i) => row.some((byte, j) => byte !== c![i]![j])));
});

Deno.test("resampleDead() gives rows of finite norms when all features are dead", async () => {
  const run = await trained({}, () => true);
  using trainer = run.trainer;
  equal((await resample(run)).nReplaced, D_SAE);
  const { W_dec, W_enc, b_enc } = await trainer.params();
  for (const values of [W_dec, W_enc, b_enc]) ok(values.every(isFinite));
  for (let i = 0; i < D_SAE; i++) ok(norm(rowOf(W_dec, i)) > 0);
});
