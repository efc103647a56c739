/**
 * From how many activations on the sparse path is dearer than the dense one: measured on the adapter at hand.
 * @module
 */
import { Rng } from "../core/rng.ts";
import type { Gpu } from "../gpu/mod.ts";
import { encoderNorm, initSae } from "./init.ts";
import type { SaeTrainer } from "./trainer.ts";
import { isTopK } from "./training_tensors.ts";

/** Rounds in which the sides are timed in turn, so that what else the machine does counts for none; the least of a side counts. */
const ROUNDS = 4;
/** Milliseconds that the steps of a figure take together, at least: Deno tells the end of work only every 10. */
const LEAST_MS = 60;
/** Steps of a figure, at most. */
const MOST_STEPS = 64;

/** Shares of the room in the lists with which the sparse path is timed. */
const FEW = 0.1;
const MANY = 0.8;

/** What is timed: a path, with a number of activations. */
interface Side {
  readonly sparseEntries: number;
  /** Share of the room in the lists that activations take. */
  readonly share: number;
  /** Steps of a figure. */
  nSteps: number;
  /** Least time of a step, in milliseconds. */
  ms: number;
  /** Entries of a batch. */
  entries: number;
}

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
  const side = (sparseEntries: number, share: number): Side => ({
    sparseEntries,
    share,
    nSteps: 1,
    ms: Infinity,
    entries: 0,
  });
  const [dense, few, many] = [
    side(0, FEW),
    side(Infinity, FEW),
    side(Infinity, MANY),
  ];
  // The number of activations of topk is given, and so is the better way.
  const sides = isTopK(architecture) ? [dense, few] : [dense, few, many];
  for (let round = 0; round < ROUNDS; round++) {
    for (const side of sides) {
      const firing = normalQuantile(side.share * room / (batch * d_sae));
      const bias = threshold + spread * firing;
      trainer.writeParams({ ...params, b_enc: params.b_enc.map(() => bias) });
      trainer.sparseEntries = side.sparseEntries;
      await timeSteps(gpu, trainer, x, side, round === 0);
    }
  }
  if (isTopK(architecture)) return few.ms < dense.ms ? Infinity : 0;
  return evenOf(dense, few, many, room);
}

function evenOf(dense: Side, few: Side, many: Side, room: number): number {
  const slope = (many.ms - few.ms) / (many.entries - few.entries);
  // Where more entries do not cost more, the timings were too rough to tell.
  if (!(slope > 0)) return few.ms < dense.ms ? Infinity : 0;
  const even = few.entries + Math.floor((dense.ms - few.ms) / slope);
  return Math.max(0, Math.min(room, even));
}

/** Times steps of a side; the first call compiles the kernels, and finds out how many steps make a figure. */
async function timeSteps(
  gpu: Gpu,
  trainer: SaeTrainer,
  x: Float32Array<ArrayBuffer>,
  side: Side,
  isFirst: boolean,
): Promise<void> {
  const { accumulate, batch } = trainer.config;
  const batches = Array.from({ length: accumulate }, () => x);
  const time = async (): Promise<number> => {
    const start = performance.now();
    for (let i = 0; i < side.nSteps; i++) {
      trainer.step(batches, { lambda: 0, lr: 0 }, { metrics: i === 0 });
    }
    await gpu.device.queue.onSubmittedWorkDone();
    return performance.now() - start;
  };
  if (isFirst) {
    await time();
    while (await time() < LEAST_MS && side.nSteps < MOST_STEPS) {
      side.nSteps *= 2;
    }
  } else side.ms = Math.min(side.ms, await time() / side.nSteps);
  await trainer.settle();
  side.entries = Math.round(trainer.takeMetrics().at(-1)!.nEntries * batch);
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
