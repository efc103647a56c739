/**
 * How good an SAE is on residual vectors. Each metric is defined once, here.
 * @module
 */
import { decodeWindow, type Sae, windowOf } from "../core/sae.ts";
import { SaeEncoder } from "../core/sae_encoder.ts";
import { type Gpu, ReadbackRing, type Tensor } from "../gpu/mod.ts";
import { saeFeatureStats } from "../kernels/sae_feature_stats.ts";
import { squareParts, sumSquares } from "../kernels/sum_squares.ts";
import { unpackBatch } from "../kernels/unpack_batch.ts";
import { RowSums } from "./row_sums.ts";
import { flat } from "./training_tensors.ts";

/** An SAE measured on vectors. */
export interface SaeEvaluation {
  /** Number of vectors; the window of all shares below. */
  readonly nTokens: number;
  /** Mean over tokens of the squared error summed over d_model, in raw units. */
  readonly mse: number;
  /** Fraction of variance unexplained, Σ(x − x̂)² / Σ(x − mean)² over all tokens and dimensions: 0 perfect, 1 no better than the mean of these vectors. */
  readonly fvu: number;
  /** Mean over tokens of the number of features with act > 0. */
  readonly L0: number;
  /** Share of features that fire on none of the `nTokens` tokens. */
  readonly deadShare: number;
  /** Share of tokens on which each feature fires, `[d_sae]`. */
  readonly density: Float32Array<ArrayBuffer>;
  /** Largest activation of each feature, `[d_sae]`. */
  readonly featureMax: Float32Array<ArrayBuffer>;
}

/** Tokens that are encoded at once. */
const TOKENS = 1024;
/** Activations that are held at once where all of a token's are needed together. */
const MAX_ACTS = 2 ** 26;
/** Batches that may be under way. */
const AHEAD = 4;

/**
 * Encodes and decodes vectors and compares.
 * @param rows Bits of bf16 `[n, d_model]`, raw, in runs of any length.
 * @throws {RangeError} If there is no vector, a run is not of whole vectors, or a reconstruction is not finite.
 */
export async function evaluateResiduals(
  gpu: Gpu,
  sae: Sae,
  rows: AsyncIterable<Uint16Array<ArrayBuffer>>,
): Promise<SaeEvaluation> {
  using pass = new EvaluationPass(gpu, sae);
  const { d_model } = sae;
  const sums = new RowSums(d_model);
  let squaredError = 0;
  const take = (): void => {
    for (const { bytes } of pass.errors.take()) {
      const partials = new Float32Array(bytes);
      for (let i = 0; i < partials.length; i++) squaredError += partials[i]!;
    }
  };
  for await (const run of rows) {
    if (run.length % d_model !== 0) {
      throw new RangeError(
        `Cannot evaluate the SAE: expected vectors of ${d_model} values: got a run of ${run.length} values`,
      );
    }
    sums.add(run);
    const step = pass.maxTokens * d_model;
    for (let at = 0; at < run.length; at += step) {
      pass.submit(run.subarray(at, at + step));
      await pass.errors.drain(AHEAD);
    }
    take();
  }
  const nTokens = sums.n;
  if (nTokens === 0) {
    throw new RangeError(
      "Cannot evaluate the SAE: expected vectors: got none: hold more out",
    );
  }
  await pass.errors.drain();
  take();
  if (!Number.isFinite(squaredError)) {
    throw new RangeError(
      `Cannot evaluate the SAE: expected finite reconstructions: got a squared error of ${squaredError}: check that the SAE fits the data`,
    );
  }
  const fired = await gpu.readInts(pass.nFired);
  const nFired = fired.reduce((sum, n) => sum + n, 0);
  return {
    nTokens,
    mse: squaredError / nTokens,
    fvu: squaredError / (nTokens * sums.variance()),
    L0: nFired / nTokens,
    deadShare: fired.filter((n) => n === 0).length / sae.d_sae,
    density: Float32Array.from(fired, (n) => n / nTokens),
    featureMax: await gpu.read(pass.maxAct),
  };
}

/** One bar of a histogram. */
export interface DensityBin {
  /** Lower end, log10 of the share of tokens; inclusive. */
  readonly from: number;
  /** Upper end; exclusive, but for a share of 1. */
  readonly to: number;
  /** Number of features. */
  readonly nFeatures: number;
}

/** Features by log10 of their density, four bars a decade from 1 in `nTokens` to 1; dead ones are left out. */
export function densityHistogram(
  density: ArrayLike<number>,
  nTokens: number,
): DensityBin[] {
  const lowest = Math.floor(-Math.log10(nTokens)) * 4;
  const counts = new Array<number>(Math.max(1, -lowest)).fill(0);
  for (let i = 0; i < density.length; i++) {
    if (!(density[i]! > 0)) continue;
    const bar = Math.floor(Math.log10(density[i]!) * 4) - lowest;
    counts[Math.min(Math.max(bar, 0), counts.length - 1)]!++;
  }
  return counts.map((nFeatures, bar) => ({
    from: (lowest + bar) / 4,
    to: (lowest + bar + 1) / 4,
    nFeatures,
  }));
}

/** Tensors of the passes over batches of at most `maxTokens` vectors. */
class EvaluationPass implements Disposable {
  readonly maxTokens: number;
  /** u32 `[d_sae]` */
  readonly nFired: Tensor;
  /** f32 `[d_sae]` */
  readonly maxAct: Tensor;
  /** Partial sums of the squared error of each batch. */
  readonly errors: ReadbackRing<void>;
  readonly #gpu: Gpu;
  readonly #sae: Sae;
  readonly #rows: Tensor;
  readonly #x: Tensor;
  readonly #err: Tensor;
  readonly #encoder: SaeEncoder;
  readonly #partials: Tensor;
  readonly #owned = new DisposableStack();

  constructor(gpu: Gpu, sae: Sae) {
    const { d_model, d_sae } = sae;
    const T = sae.architecture === "topk"
      ? Math.min(TOKENS, Math.max(64, Math.floor(MAX_ACTS / d_sae)))
      : TOKENS;
    this.maxTokens = T;
    this.#gpu = gpu;
    this.#sae = sae;
    const own = (
      label: string,
      shape: readonly number[],
      dtype: "f32" | "u32" | "bf16" = "f32",
    ): Tensor => this.#owned.use(gpu.tensor(label, dtype, shape));
    this.nFired = own("n_fired", [d_sae], "u32");
    this.maxAct = own("max_act", [d_sae]);
    this.#rows = own("rows", [T, d_model], "bf16");
    this.#x = own("x", [T, d_model]);
    this.#err = own("err", [T, d_model]);
    this.#encoder = this.#owned.use(new SaeEncoder(sae, T));
    this.#partials = own("partials", [squareParts(T * d_model), 4]);
    this.errors = this.#owned.use(new ReadbackRing(gpu, this.#partials));
  }

  /** Submits a batch of packed rows. */
  submit(packed: Uint16Array<ArrayBuffer>): void {
    const sae = this.#sae;
    const T = packed.length / sae.d_model;
    const [rows, x, err] = [this.#rows, this.#x, this.#err]
      .map((tensor) => tensor.rows(0, T)) as [Tensor, Tensor, Tensor];
    const partials = this.#partials;
    // A last odd half word belongs to a row that is not there; it is padded.
    rows.write(packed);
    this.#gpu.record("evaluate SAE", (rec) => {
      unpackBatch.run(rec, { rows, x }, { scale: 1 });
      this.#encoder.encode(rec, x, (acts, window) => {
        decodeWindow(rec, sae, acts, err, window, x);
        saeFeatureStats.run(rec, {
          acts,
          n_fired: windowOf(this.nFired, window),
          max_act: windowOf(this.maxAct, window),
        });
      });
      const values = flat(err);
      rec.clear(partials);
      sumSquares.run(rec, { values, partials }, {
        n_parts: squareParts(values.nRows),
        slot: 0,
        column: 0,
      });
      this.errors.copy(rec);
    });
  }

  [Symbol.dispose](): void {
    this.#owned.dispose();
  }
}
