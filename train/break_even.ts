/**
 * From how many activations on the sparse path is dearer than the dense one: measured on the adapter at hand.
 * @module
 */
import { Rng } from "../core/rng.ts";
import type { Gpu } from "../gpu/mod.ts";
import { encoderNorm, initSae } from "./init.ts";
import type { SaeTrainer } from "./trainer.ts";
import { isTopK } from "./training_tensors.ts";

/** Figures of which the least counts, after one that compiles the kernels. */
const REPEATS = 3;
/** Milliseconds that the steps of a figure take together, at least: Deno tells the end of work only every 10. */
const LEAST_MS = 60;
/** Steps of a figure, at most. */
const MOST_STEPS = 64;

/** Shares of the room in the lists with which the sparse path is timed. */
const SHARES = [0.1, 0.8] as const;

/**
 * The most activations of a batch for which the sparse path is taken: where both cost the same by a line through
 * two timings, no more than there is room for, or Infinity where it is always the cheaper one. Leaves the trainer with
 * parameters of its own: write others, and reset it.
 */
export async function measureBreakEven(
  gpu: Gpu,
  trainer: SaeTrainer,
): Promise<number> {
  const { room } = trainer;
  const { batch, d_sae, d_model, architecture } = trainer.config;
  const rng = new Rng(0).fork("break even");
  const x = Float32Array.from({ length: batch * d_model }, () => rng.normal());
  const params = initSae(new Float64Array(d_model), d_sae, 0, architecture);
  const spread = encoderNorm(architecture); // of pre-activations, since x is normal
  const threshold = Math.exp(params.log_threshold?.[0] ?? -Infinity);
  const timeWith = async (
    share: number,
    sparseEntries: number,
  ): Promise<{ ms: number; entries: number }> => {
    const bias = threshold + spread * normalQuantile(share);
    trainer.writeParams({ ...params, b_enc: params.b_enc.map(() => bias) });
    trainer.sparseEntries = sparseEntries;
    return await timeSteps(gpu, trainer, x);
  };
  const share = (part: number): number => part * room / (batch * d_sae);
  const dense = await timeWith(share(SHARES[0]), 0);
  const few = await timeWith(share(SHARES[0]), Infinity);
  if (isTopK(architecture)) {
    // The number of activations is given, and so is the better way.
    return few.ms < dense.ms ? Infinity : 0;
  }
  const many = await timeWith(share(SHARES[1]), Infinity);
  const slope = (many.ms - few.ms) / (many.entries - few.entries);
  const fixed = few.ms - slope * few.entries;
  // Where more entries do not cost more, the timings were too rough to tell.
  if (!(slope > 0)) return few.ms < dense.ms ? Infinity : 0;
  const even = Math.floor((dense.ms - fixed) / slope);
  return Math.max(0, Math.min(room, even));
}

async function timeSteps(
  gpu: Gpu,
  trainer: SaeTrainer,
  x: Float32Array<ArrayBuffer>,
): Promise<{ ms: number; entries: number }> {
  const { accumulate, batch } = trainer.config;
  const batches = Array.from({ length: accumulate }, () => x);
  const time = async (nSteps: number): Promise<number> => {
    const start = performance.now();
    for (let i = 0; i < nSteps; i++) {
      trainer.step(batches, { lambda: 0, lr: 0 }, { metrics: i === 0 });
    }
    await gpu.device.queue.onSubmittedWorkDone();
    return performance.now() - start;
  };
  await time(1);
  let nSteps = 1;
  let ms = await time(1);
  while (ms < LEAST_MS && nSteps < MOST_STEPS) ms = await time(nSteps *= 2);
  for (let i = 1; i < REPEATS; i++) ms = Math.min(ms, await time(nSteps));
  await trainer.settle();
  const { nEntries } = trainer.takeMetrics().at(-1)!;
  return { ms: ms / nSteps, entries: nEntries * batch };
}

/** The number that a normal variable exceeds with probability 1 − p. Source: Abramowitz and Stegun 26.2.23, to 4.5e-4. */
function normalQuantile(p: number): number {
  const tail = Math.max(1e-12, Math.min(p, 1 - p));
  const t = Math.sqrt(-2 * Math.log(tail));
  const z = t -
    (2.515517 + 0.802853 * t + 0.010328 * t * t) /
      (1 + 1.432788 * t + 0.189269 * t * t + 0.001308 * t * t * t);
  return p < 0.5 ? -z : z;
}
