/**
 * Training runs in memory, on small sparse data.
 * @module
 */
import { f32ToBf16 } from "../../core/dtype.ts";
import { Rng } from "../../core/rng.ts";
import type { Gpu } from "../../gpu/mod.ts";
import { Batches, type RowGroups } from "../../train/batches.ts";
import type { MetricsLine } from "../../train/metrics_line.ts";
import { parseRecipe, type SaeRecipe } from "../../train/recipe.ts";
import {
  type TrainOptions,
  type TrainResult,
  trainSae,
} from "../../train/train.ts";

/** Size of the vectors. */
export const D = 16;
/** Directions that they are sums of. */
export const N_TRUE = 24;

/** Vectors that are sums of 2 of 24 directions, around a mean, like what an SAE is for. */
export function sparseData(nRows: number, groupRows: number): RowGroups {
  const rng = new Rng(5);
  const normals = (n: number): Float64Array =>
    Float64Array.from({ length: n }, () => rng.normal());
  const directions = Array.from({ length: N_TRUE }, () => normals(D));
  const mean = normals(D);
  const rows = new Float32Array(nRows * D);
  for (let t = 0; t < nRows; t++) {
    for (let j = 0; j < D; j++) rows[t * D + j] = 3 * mean[j]!;
    for (let k = 0; k < 2; k++) {
      const direction = directions[rng.below(N_TRUE)]!;
      const strength = 2 + rng.uniform();
      for (let j = 0; j < D; j++) rows[t * D + j]! += strength * direction[j]!;
    }
  }
  const bits = f32ToBf16(rows);
  const sizes: number[] = [];
  for (let at = 0; at < nRows; at += groupRows) {
    sizes.push(Math.min(groupRows, nRows - at));
  }
  return {
    name: "sparse",
    d_model: D,
    sizes,
    read: (group) =>
      Promise.resolve(
        bits.slice(
          group * groupRows * D,
          (group * groupRows + sizes[group]!) * D,
        ),
      ),
  };
}

/** A recipe of a second, with some fields changed. */
export function smallRecipe(fields: Partial<SaeRecipe> = {}): SaeRecipe {
  return parseRecipe({
    d_sae: 40,
    steps: 20,
    batch: 32,
    lr: 3e-3,
    lambda: 0.3,
    k: 3,
    bufferRows: 200,
    holdOut: 50,
    seed: 1,
    ...fields,
  }, "recipe");
}

/** What a run left. */
export interface SmallRun {
  /** Files as they were written last. */
  readonly files: Record<string, Uint8Array<ArrayBuffer>>;
  /** Every checkpoint, oldest first. */
  readonly checkpoints: Uint8Array<ArrayBuffer>[];
  readonly lines: MetricsLine[];
  readonly result: TrainResult;
}

/** Trains in memory; metrics of every step where the options say nothing. */
export async function smallRun(
  gpu: Gpu,
  data: RowGroups,
  recipe: SaeRecipe,
  options: Partial<TrainOptions> = {},
): Promise<SmallRun> {
  const files: SmallRun["files"] = {};
  const checkpoints: SmallRun["checkpoints"] = [];
  const lines: MetricsLine[] = [];
  const result = await trainSae({
    gpu,
    batches: await Batches.open(data, recipe),
    recipe,
    metadata: { hookPoint: "resid_post[3]", modelName: "tiny" },
    write: async (file, content) => {
      const stream =
        typeof content === "string" || content instanceof Uint8Array
          ? content as BodyInit
          : ReadableStream.from(content);
      files[file] = await new Response(stream).bytes();
      if (file.startsWith("checkpoint")) checkpoints.push(files[file]);
    },
    metricsEvery: 1,
    ...options,
    onProgress: (line) => {
      lines.push(line);
      options.onProgress?.(line);
    },
  });
  return { files, checkpoints, lines, result };
}

/** Lines without what depends on the clock. */
export function untimed(
  lines: readonly MetricsLine[],
): Omit<MetricsLine, "ms" | "tokensPerSecond">[] {
  return lines.map(({ ms: _ms, tokensPerSecond: _rate, ...line }) => line);
}
