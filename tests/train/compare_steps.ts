/**
 * Steps of a trainer beside the same steps in float64.
 * @module
 */
import { equal } from "node:assert/strict";
import type { Gpu } from "../../gpu/mod.ts";
import type { SaeParams } from "../../train/init.ts";
import {
  PARAMETERS,
  SaeTrainer,
  type TrainerConfig,
} from "../../train/trainer.ts";
import {
  assertClose,
  assertRelativeError,
  randomNormal,
} from "../assert_close.ts";
import {
  type ArchitectureArrays,
  architecturePass,
  nextInferenceThreshold,
} from "../reference/sae_architectures.ts";
import { adamStep } from "../reference/sae_reference.ts";

/** What is compared. */
export interface ComparedSteps {
  readonly config: TrainerConfig;
  /** Steps; 3 when absent. */
  readonly steps?: number;
  /** The way that every step is expected to take. */
  readonly path: "dense" | "sparse";
  /** λ of the first step; each next one has as much more. */
  readonly lambda?: number;
  /** Seed of parameters and batches. */
  readonly seed?: number;
  /** Changes the parameters before they are used. */
  readonly prepare?: (params: SaeParams) => void;
  /** Largest relative error; 1e-5 when absent: f32 sums of some hundred terms, and the errors of earlier steps. */
  readonly limit?: number;
}

/** A config of a trainer with little in it. */
export function smallConfig(
  sizes: {
    readonly B: number;
    readonly d_model: number;
    readonly d_sae: number;
  },
  more: Partial<TrainerConfig> = {},
): TrainerConfig {
  return {
    d_model: sizes.d_model,
    d_sae: sizes.d_sae,
    batch: sizes.B,
    inputScale: 1,
    clipNorm: 1,
    betas: [0.9, 0.999],
    eps: 1e-8,
    ...more,
  };
}

/** Free decoder norms, untied, with features that fire and some that do not. */
export function randomParams(
  { d_model, d_sae, architecture }: Pick<
    TrainerConfig,
    "d_model" | "d_sae" | "architecture"
  >,
  seed = 1,
): SaeParams {
  return {
    W_enc: randomNormal(d_sae * d_model, seed, 0.3),
    b_enc: randomNormal(d_sae, seed + 1, 0.3),
    W_dec: randomNormal(d_sae * d_model, seed + 2, 0.3),
    b_dec: randomNormal(d_model, seed + 3),
    ...(architecture === "jumprelu" && {
      log_threshold: randomNormal(d_sae, seed + 4, 0.3),
    }),
  };
}

/** The same values in float64. */
export function wide(params: SaeParams): ArchitectureArrays {
  const entries = Object.entries(params)
    .map(([name, values]) => [name, Float64Array.from(values)]);
  return Object.fromEntries(entries) as ArchitectureArrays;
}

/** Trains a few steps and compares activations, losses, gradients and parameters of each with float64. */
export async function compareSteps(
  gpu: Gpu,
  compared: ComparedSteps,
): Promise<void> {
  const { config, steps = 3, path, lambda = 0.5, seed = 1 } = compared;
  const { limit = 1e-5 } = compared;
  const { architecture = "relu", accumulate = 1, auxK = 0 } = config;
  const { d_model, d_sae, batch, deadAfter = 10_000_000 } = config;
  const params = randomParams(config, seed);
  compared.prepare?.(params);
  using trainer = new SaeTrainer(gpu, config, params);
  const want = wide(params);
  const names = PARAMETERS.filter((name) => want[name] !== undefined);
  const [m, v] = [wide(params), wide(params)];
  for (const name of names) {
    for (const moments of [m, v]) moments[name]!.fill(0);
  }
  const B = batch * accumulate;
  let waited = new Uint32Array(d_sae);
  let threshold: number | undefined;
  for (let t = 1; t <= steps; t++) {
    const x = randomNormal(B * d_model, seed + 10 + t);
    const values = { lambda: lambda * t, lr: 0.01 };
    const batches = Array.from(
      { length: accumulate },
      (_, i) => x.slice(i * batch * d_model, (i + 1) * batch * d_model),
    );
    trainer.step(batches, values, { metrics: true, deadWindow: deadAfter });
    const pass = architecturePass(want, x, {
      sizes: { B, d_model, d_sae },
      architecture,
      lambda: values.lambda,
      ...(config.k === undefined ? {} : { k: config.k }),
      ...(config.bandwidth === undefined
        ? {}
        : { bandwidth: config.bandwidth }),
      ...(auxK > 0 && {
        aux: {
          dead: waited.map((tokens) => Number(tokens >= deadAfter)),
          auxK,
          coefficient: config.auxCoefficient ?? 1 / 32,
        },
      }),
    });
    const { acts, reconstruction } = await trainer.activations();
    const tail = (values: Float64Array, width: number): Float64Array =>
      values.subarray((B - batch) * width);
    assertRelativeError(acts, tail(pass.acts, d_sae), limit, `acts ${t}`);
    assertRelativeError(
      reconstruction,
      tail(pass.reconstruction, d_model),
      limit,
      `x̂ ${t}`,
    );
    const grads = await trainer.gradients();
    const clip = Math.min(1, config.clipNorm / (pass.gradNorm + 1e-6));
    for (const name of names) {
      assertRelativeError(
        grads[name]!,
        pass.grads[name]!,
        limit,
        `d${name} ${t}`,
      );
      const options = { clip, lr: values.lr, t };
      adamStep(want[name]!, m[name]!, v[name]!, pass.grads[name]!, options);
    }
    const got = await trainer.params();
    for (const name of names) {
      assertRelativeError(got[name]!, want[name]!, limit, `${name} ${t}`);
    }
    waited = aged(waited, pass.acts, { B, batch, d_sae });
    equal((await trainer.tokensSinceFired()).join(), waited.join());
    const selects = architecture === "topk" || architecture === "batchtopk";
    // It follows the last batch of a step.
    if (selects && accumulate === 1) {
      threshold = nextInferenceThreshold(threshold, pass.smallestKept);
      assertClose([(await trainer.smallestKept())!], [threshold!], {
        rtol: 1e-5,
        label: "smallest kept",
      });
    }
    await trainer.settle();
    const [metrics] = trainer.takeMetrics();
    equal(metrics!.path, path, `path of step ${t}`);
    equal(
      metrics!.nDead,
      waited.filter((tokens) => tokens >= deadAfter).length,
      `dead after step ${t}`,
    );
    const scalars = ["loss", "mse", "L0", "gradNorm"] as const;
    for (const name of scalars) {
      assertClose([metrics![name]], [pass[name]], {
        rtol: limit,
        label: `${name} ${t}`,
      });
    }
    assertClose([metrics!.auxLoss], [pass.aux?.loss ?? 0], {
      rtol: 10 * limit, // a variance is a difference of sums
      label: `auxLoss ${t}`,
    });
  }
}

/** Tokens since each feature fired, after the batches of a step. */
function aged(
  before: Uint32Array,
  acts: Float64Array,
  { B, batch, d_sae }: { B: number; batch: number; d_sae: number },
): Uint32Array<ArrayBuffer> {
  const waited = Uint32Array.from(before);
  for (let start = 0; start < B; start += batch) {
    for (let i = 0; i < d_sae; i++) {
      let fired = false;
      for (let b = start; b < start + batch; b++) {
        fired ||= acts[b * d_sae + i]! > 0;
      }
      waited[i] = fired ? 0 : waited[i]! + batch;
    }
  }
  return waited;
}
