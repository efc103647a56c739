/**
 * One training pass of every SAE architecture in float64, written for reading.
 *
 * pre = x·W_encᵀ + b_enc, x̂ = acts·W_dec + b_dec, mse = mean_t Σ_j (x̂ − x)², and
 * - relu: acts = relu(pre); loss = mse + λ·mean_t Σ_i acts_i·‖W_dec_i‖
 * - topk: the k largest of relu(pre) in each row, with all ties of the k-th; loss = mse
 * - batchtopk: the k·B largest of the whole batch; loss = mse
 * - jumprelu: acts_i = pre_i > θ_i ? pre_i : 0 with θ = exp(log_threshold); loss = mse + λ·mean_t Σ_i H(pre_i − θ_i),
 *   and thresholds learn by straight-through estimators (Rajamanoharan et al. 2024, equations 11 and 12)
 *
 * AuxK adds coefficient·mean_t ‖e − ê‖² / mean_t ‖e − mean_t e‖² with e = x − x̂ held constant, and
 * ê = Σ_i aux_i·W_dec_i over the largest of relu(pre) among dead features.
 * @module
 */
import {
  backward,
  l1Gradient,
  thresholdGradient,
} from "./sae_architecture_gradients.ts";
import { rowNorms, type SaeArrays, type SaeSizes } from "./sae_reference.ts";

/** Functions from pre-activations to activations. */
export type Architecture = "relu" | "topk" | "batchtopk" | "jumprelu";

/** Parameters or gradients. */
export interface ArchitectureArrays extends SaeArrays {
  /** log θ, `[d_sae]`; of jumprelu only. */
  readonly log_threshold?: Float64Array;
}

/** What the gradient does not flow through; given, it is not worked out anew. For finite differences, and to follow float32 at near-ties. */
export interface FixedParts {
  /** 1 where an activation is kept, `[B, d_sae]`. */
  readonly kept?: Uint8Array;
  /** 1 where AuxK keeps one, `[B, d_sae]`. */
  readonly auxKept?: Uint8Array;
  /** e = x − x̂, `[B, d_model]`. */
  readonly residual?: Float64Array;
  /** mean_t ‖e − mean_t e‖². */
  readonly residualVariance?: number;
}

/** What a pass is of. */
export interface ArchitectureOptions {
  readonly sizes: SaeSizes;
  readonly architecture: Architecture;
  /** λ of relu and jumprelu; 0 when absent. */
  readonly lambda?: number;
  /** Of topk and batchtopk. */
  readonly k?: number;
  /** ε of jumprelu. */
  readonly bandwidth?: number;
  /** AuxK; none when absent. */
  readonly aux?: {
    /** Not 0 where a feature counts as dead before the step, `[d_sae]`. */
    readonly dead: ArrayLike<number>;
    readonly auxK: number;
    readonly coefficient: number;
  };
  readonly fixed?: FixedParts;
}

/** AuxK's part of a pass. */
export interface AuxPass {
  /** Before the coefficient; 0 without dead features or variance. */
  readonly loss: number;
  /** `[B, d_sae]` */
  readonly acts: Float64Array;
  /** 1 where one is kept, `[B, d_sae]`. */
  readonly kept: Uint8Array;
  /** ê, `[B, d_model]`. */
  readonly reconstruction: Float64Array;
  /** mean_t ‖e − mean_t e‖². */
  readonly residualVariance: number;
}

/** Everything of one forward and backward pass. */
export interface ArchitecturePass {
  /** x·W_encᵀ + b_enc, `[B, d_sae]`. */
  readonly pre: Float64Array;
  /** `[B, d_sae]` */
  readonly acts: Float64Array;
  /** 1 where an activation is kept, `[B, d_sae]`. */
  readonly kept: Uint8Array;
  /** Least activation that is kept; undefined when none is. What the inference threshold averages. */
  readonly smallestKept: number | undefined;
  /** x̂, `[B, d_model]`. */
  readonly reconstruction: Float64Array;
  /** e = x − x̂, `[B, d_model]`. */
  readonly residual: Float64Array;
  readonly mse: number;
  /** What λ multiplies: mean_t Σ acts_i·‖W_dec_i‖ of relu, L0 of jumprelu, else 0. */
  readonly sparsity: number;
  readonly L0: number;
  /** Undefined without AuxK. */
  readonly aux: AuxPass | undefined;
  /** mse + λ·sparsity + coefficient·aux.loss */
  readonly loss: number;
  readonly grads: ArchitectureArrays;
  /** Over all parameters. */
  readonly gradNorm: number;
}

/** The k-th largest of the values above 0; 0 when fewer than k are, so that all of those are at or above it. */
export function kthLargest(values: ArrayLike<number>, k: number): number {
  const positive = Array.from(values).filter((value) => value > 0);
  return positive.sort((a, b) => b - a)[k - 1] ?? 0;
}

/** The inference threshold after a step: first value as it is, decay 0.99. */
export function nextInferenceThreshold(
  previous: number | undefined,
  smallestKept: number | undefined,
): number | undefined {
  if (smallestKept === undefined) return previous;
  if (previous === undefined) return smallestKept;
  return 0.99 * previous + 0.01 * smallestKept;
}

/** One pass of a batch x `[B, d_model]`, scaled already, with gradients by hand. */
export function architecturePass(
  p: ArchitectureArrays,
  x: ArrayLike<number>,
  options: ArchitectureOptions,
): ArchitecturePass {
  const { sizes, architecture, lambda = 0, fixed = {} } = options;
  const { B, d_model, d_sae } = sizes;
  const pre = preActs(p, x, sizes);
  const kept = fixed.kept ?? keptMask(p, pre, options);
  const acts = pre.map((value, at) => kept[at] ? Math.max(value, 0) : 0);
  const reconstruction = decode(p.W_dec, acts, sizes, p.b_dec);
  const residual = fixed.residual ??
    reconstruction.map((value, at) => x[at]! - value);
  const aux = options.aux &&
    auxPass(p, pre, residual, { ...options, aux: options.aux });
  const mse = reconstruction.reduce(
    (sum, value, at) => sum + (value - x[at]!) ** 2 / B,
    0,
  );
  const L0 = acts.reduce((n, act) => n + (act > 0 ? 1 : 0), 0) / B;
  const norms = rowNorms(p.W_dec, d_model);
  const l1 = acts.reduce((sum, act, at) => sum + act * norms[at % d_sae]!, 0);
  const sparsity = { relu: l1 / B, jumprelu: L0, topk: 0, batchtopk: 0 }[
    architecture
  ];
  const dxHat = reconstruction.map((value, at) => 2 / B * (value - x[at]!));
  const grads = zeroGradients(p);
  for (let at = 0; at < dxHat.length; at++) {
    grads.b_dec[at % d_model]! += dxHat[at]!;
  }
  backward(p, x, { acts, kept, dOut: dxHat }, grads, sizes);
  if (architecture === "relu") l1Gradient(p, x, acts, lambda, grads, sizes);
  if (architecture === "jumprelu") {
    thresholdGradient(p, pre, dxHat, grads, options);
  }
  if (aux && aux.loss > 0) {
    const scale = 2 * options.aux!.coefficient / (B * aux.residualVariance);
    const dOut = aux.reconstruction.map((value, at) =>
      scale * (value - residual[at]!)
    );
    backward(p, x, { acts: aux.acts, kept: aux.kept, dOut }, grads, sizes);
  }
  return {
    pre,
    acts,
    kept,
    smallestKept: smallest(acts),
    reconstruction,
    residual,
    mse,
    sparsity,
    L0,
    aux,
    loss: mse + lambda * sparsity +
      (options.aux?.coefficient ?? 0) * (aux?.loss ?? 0),
    grads,
    gradNorm: Math.hypot(
      ...Object.values(grads).map((grad: Float64Array) => Math.hypot(...grad)),
    ),
  };
}

function preActs(
  p: SaeArrays,
  x: ArrayLike<number>,
  { B, d_model, d_sae }: SaeSizes,
): Float64Array {
  return Float64Array.from({ length: B * d_sae }, (_, at) => {
    const [b, i] = [Math.floor(at / d_sae), at % d_sae];
    let sum = p.b_enc[i]!;
    for (let j = 0; j < d_model; j++) {
      sum += x[b * d_model + j]! * p.W_enc[i * d_model + j]!;
    }
    return sum;
  });
}

/** 1 where an activation is kept. */
function keptMask(
  p: ArchitectureArrays,
  pre: Float64Array,
  { architecture, sizes: { B, d_sae }, k = 0 }: ArchitectureOptions,
): Uint8Array {
  switch (architecture) {
    case "relu":
      return Uint8Array.from(pre, (value) => value > 0 ? 1 : 0);
    case "jumprelu":
      return Uint8Array.from(
        pre,
        (value, at) => value > Math.exp(p.log_threshold![at % d_sae]!) ? 1 : 0,
      );
    case "topk":
      return largestOfRows(pre, d_sae, k);
    case "batchtopk":
      return largestOfRows(pre, pre.length, k * B);
  }
}

/** 1 at the k largest values above 0 of each row, and at all ties of the k-th. */
function largestOfRows(
  values: Float64Array,
  width: number,
  k: number,
): Uint8Array {
  const kept = new Uint8Array(values.length);
  for (let row = 0; row < values.length; row += width) {
    const threshold = kthLargest(values.subarray(row, row + width), k);
    for (let at = row; at < row + width; at++) {
      kept[at] = values[at]! > 0 && values[at]! >= threshold ? 1 : 0;
    }
  }
  return kept;
}

/** acts·W_dec, plus a bias where there is one. */
function decode(
  W_dec: Float64Array,
  acts: Float64Array,
  { B, d_model, d_sae }: SaeSizes,
  bias?: Float64Array,
): Float64Array {
  return Float64Array.from({ length: B * d_model }, (_, at) => {
    const [b, j] = [Math.floor(at / d_model), at % d_model];
    let sum = bias?.[j] ?? 0;
    for (let i = 0; i < d_sae; i++) {
      sum += acts[b * d_sae + i]! * W_dec[i * d_model + j]!;
    }
    return sum;
  });
}

function auxPass(
  p: ArchitectureArrays,
  pre: Float64Array,
  residual: Float64Array,
  { sizes, aux: { dead, auxK }, fixed = {} }: ArchitectureOptions & {
    aux: NonNullable<ArchitectureOptions["aux"]>;
  },
): AuxPass {
  const { B, d_model, d_sae } = sizes;
  const ofDead = pre.map((value, at) => dead[at % d_sae] ? value : 0);
  const kept = fixed.auxKept ?? largestOfRows(ofDead, d_sae, auxK);
  const acts = pre.map((value, at) => kept[at] ? Math.max(value, 0) : 0);
  const reconstruction = decode(p.W_dec, acts, sizes);
  const residualVariance = fixed.residualVariance ??
    varianceOf(residual, d_model);
  const squares = residual.reduce(
    (sum, value, at) => sum + (value - reconstruction[at]!) ** 2 / B,
    0,
  );
  const counts = residualVariance > 0 && Array.from(dead).some(Boolean);
  const loss = counts ? squares / residualVariance : 0;
  return { loss, acts, kept, reconstruction, residualVariance };
}

/** mean_t ‖e_t − mean e‖² */
function varianceOf(residual: Float64Array, d_model: number): number {
  const B = residual.length / d_model;
  const mean = new Float64Array(d_model);
  residual.forEach((value, at) => mean[at % d_model]! += value / B);
  return residual.reduce(
    (sum, value, at) => sum + (value - mean[at % d_model]!) ** 2 / B,
    0,
  );
}

function zeroGradients(p: ArchitectureArrays): ArchitectureArrays {
  const zeros = Object.entries(p).map(([name, values]) => [
    name,
    new Float64Array(values.length),
  ]);
  return Object.fromEntries(zeros) as ArchitectureArrays;
}

function smallest(acts: Float64Array): number | undefined {
  const least = acts.reduce(
    (min, act) => act > 0 && act < min ? act : min,
    Infinity,
  );
  return Number.isFinite(least) ? least : undefined;
}
