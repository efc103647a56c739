/**
 * The GPU memory of an SAE in training.
 * @module
 */
import { type Dtype, elementCount, type Gpu, type Tensor } from "../gpu/mod.ts";
import { type FeatureWindow, featureWindows } from "../core/sae.ts";
import { Q8_BLOCK } from "../kernels/adam_q8.ts";
import {
  makesTiles,
  resolveVariant,
  tileWidth,
  type VariantShape,
} from "../kernels/matmul.ts";
import { rowParts } from "../kernels/sae_rows.ts";
import { STATUS_WORDS } from "../kernels/sae_step_status.ts";
import {
  TOPK_BINS,
  type TopKTensors,
  topKTensors,
} from "../kernels/sae_topk.ts";
import { squareParts } from "../kernels/sum_squares.ts";
import { EntryLists, EntrySort, LARGEST_TILE } from "./entry_lists.ts";
import type { SaeParams } from "./init.ts";
import type { SaeRecipe } from "./recipe.ts";

/** Sizes and constants of a trainer. */
export interface TrainerConfig extends
  Pick<
    SaeRecipe,
    "d_sae" | "batch" | "clipNorm" | "betas" | "eps"
  >,
  Partial<
    Pick<
      SaeRecipe,
      | "architecture"
      | "k"
      | "bandwidth"
      | "auxK"
      | "auxCoefficient"
      | "deadAfter"
      | "accumulate"
      | "moments"
    >
  > {
  /** Size of the inputs. */
  readonly d_model: number;
  /** What packed rows are multiplied by. */
  readonly inputScale: number;
  /**
   * Most activations of a batch with which the sparse path is taken: where it gets as dear as the dense one.
   * 0 never takes it, Infinity whenever there is room; absent, a guess.
   */
  readonly sparseEntries?: number;
}

/** A config with every field. */
export type FullTrainerConfig = Required<TrainerConfig>;

/** Features that a window has at least, if there are as many. */
const LEAST_WINDOW = 64;

/** Features of the tiles that the encoder makes, at least; for plans. */
const SMALLEST_TILE = 16;

/** Share of all activations up to which the sparse path is taken where nothing was measured. */
const SPARSE_SHARE = 1 / 16;

/**
 * Fills in what a config leaves out.
 * @throws {RangeError} If the fields do not go together.
 */
export function fullConfig(config: TrainerConfig): FullTrainerConfig {
  const { batch, d_sae, d_model } = config;
  const guess = batch * d_sae * SPARSE_SHARE;
  const full: FullTrainerConfig = {
    architecture: "relu",
    k: 32,
    bandwidth: 0.3,
    auxK: 0,
    auxCoefficient: 1 / 32,
    deadAfter: 10_000_000,
    accumulate: 1,
    moments: "f32",
    ...config,
    sparseEntries: config.sparseEntries ?? guess,
  };
  const hasOddRows = d_model % 4 !== 0;
  if (hasOddRows && (full.auxK > 0 || full.moments === "q8")) {
    throw new RangeError(
      `Cannot train with ${
        full.auxK > 0 ? "AuxK" : "8-bit moments"
      }: expected a d_model that is a multiple of 4: got ${d_model}`,
    );
  }
  return hasOddRows ? { ...full, sparseEntries: 0 } : full;
}

/** Names of the parameters, in the order of their updates; the last is of jumprelu only. */
export const PARAMETERS: readonly (keyof SaeParams)[] = [
  "W_enc",
  "b_enc",
  "W_dec",
  "b_dec",
  "log_threshold",
];

/** A parameter with what Adam keeps of it. */
export interface Parameter {
  /** The values. */
  readonly W: Tensor;
  /** Gradient of the last step, before clipping; only rows that are touched hold one. */
  readonly grad: Tensor;
  /** First moment: f32 like W, or codes of 8 bits, four in a word. */
  readonly m: Tensor;
  /** Second moment, likewise. */
  readonly v: Tensor;
  /** f32 `[blocks, 2]`: largest |m| and v of each block of 8-bit codes; absent where moments are f32. */
  readonly scales: Tensor | undefined;
  /** u32 `[rows]`: 0 where no gradient of this step reached the row. */
  readonly touched: Tensor;
}

/** The parameters of an architecture, by name. */
export type Parameters =
  & Readonly<Record<Exclude<keyof SaeParams, "log_threshold">, Parameter>>
  & { readonly log_threshold?: Parameter };

/** One tensor, or a few for one purpose, in a plan of memory. */
export interface PlannedMemory {
  /** What for. */
  readonly what: string;
  /** Bytes on the GPU. */
  readonly bytes: number;
}

/** Most entries that the lists have room for; the binding of 16 bytes an entry sets an end. */
export function listCapacity(
  config: FullTrainerConfig,
  maxBindingBytes: number,
): number {
  const { batch, d_sae, sparseEntries } = config;
  const most = Math.min(batch * (d_sae + 3), Math.floor(maxBindingBytes / 16));
  return Math.max(4, Math.floor(Math.min(sparseEntries, most) / 4) * 4);
}

/** Entries of AuxK that there is room for: `auxK` of each row, filled up to a multiple of 4, and a few ties. */
function auxCapacityOf(batch: number, auxK: number): number {
  return auxK > 0 ? 4 * batch * Math.ceil(auxK / 4 + 1) : 0;
}

/** Vectors that a trainer can take at once where a binding has so many bytes: rows, tiles and AuxK's lists are bound whole. */
export function largestBatch(
  { d_model, d_sae, auxK = 0 }: Pick<
    TrainerConfig,
    "d_model" | "d_sae" | "auxK"
  >,
  maxBindingBytes: number,
): number {
  const bytesOfRow = [
    4 * d_model,
    4 * Math.min(LEAST_WINDOW, d_sae),
    4 * Math.ceil(d_sae / SMALLEST_TILE),
    16 * auxCapacityOf(1, auxK),
  ];
  return Math.floor(maxBindingBytes / Math.max(...bytesOfRow));
}

/** GPU memory that training takes, by purpose. */
export function trainingMemory(
  partial: TrainerConfig,
  maxBindingBytes = Infinity,
): readonly PlannedMemory[] {
  const config = fullConfig(partial);
  const { d_model, d_sae, batch, architecture, auxK } = config;
  const n = 2 * d_sae * d_model + d_sae + d_model +
    (architecture === "jumprelu" ? d_sae : 0);
  const large = 2 * d_sae * d_model;
  const capacity = listCapacity(config, maxBindingBytes);
  const auxCapacity = auxCapacityOf(batch, auxK);
  const windowRows = Math.min(
    d_sae,
    Math.floor(maxBindingBytes / (4 * batch) / 64) * 64 || d_sae,
    Math.floor(maxBindingBytes / (4 * d_model) / 64) * 64 || d_sae,
  );
  const moments = config.moments === "f32"
    ? 8 * n
    : 8 * (n - large) + large * (2 + 8 / Q8_BLOCK);
  const tiles = 12 * batch * Math.ceil(d_sae / SMALLEST_TILE);
  return [
    { what: "weights", bytes: 4 * n },
    { what: "gradients", bytes: 4 * n },
    { what: `moments (${config.moments})`, bytes: moments },
    {
      what: "activations",
      bytes: 4 * batch * (d_sae + windowRows) +
        (isTopK(architecture) ? 4 * batch * (TOPK_BINS + d_sae / 8) : 0),
    },
    {
      what: "sparse lists",
      bytes: tiles * (auxK > 0 ? 2 : 1) + 9 * (capacity + auxCapacity) +
        20 * Math.max(capacity, auxCapacity) + d_sae * batch / 8 + 20 * d_sae,
    },
    { what: "batch", bytes: (auxK > 0 ? 14 : 10) * batch * d_model },
  ];
}

/** Bytes of GPU memory that training takes. */
export function trainingBytes(
  config: TrainerConfig,
  maxBindingBytes = Infinity,
): number {
  return trainingMemory(config, maxBindingBytes)
    .reduce((sum, { bytes }) => sum + bytes, 0);
}

/** Whether activations are selected by rank. */
export function isTopK(
  architecture: FullTrainerConfig["architecture"],
): boolean {
  return architecture === "topk" || architecture === "batchtopk";
}

/** What AuxK needs besides. */
export interface AuxTensors {
  /** Its entries: activations of dead features. */
  readonly lists: EntryLists;
  /** The thresholds that select them. */
  readonly selection: TopKTensors;
  /** f32 `[B, d_model]`: u = ê − e, then its gradient. */
  readonly u: Tensor;
  /** f32 `[d_model]`: mean of err over the batch. */
  readonly mean: Tensor;
  /** f32 `[n, 4]`: parts of Σ err² and Σ u². */
  readonly squares: Tensor;
}

/** Owns the tensors of one trainer. */
export class TrainingTensors implements Disposable {
  /** Parameters by name. */
  readonly parameters: Parameters;
  /** The runs of features that are worked on at once. */
  readonly windows: readonly FeatureWindow[];
  /** bf16 `[B, d_model]`: a batch as shards store it. */
  readonly rows: Tensor;
  /** f32 `[B, d_model]`: the batch, scaled. */
  readonly x: Tensor;
  /** f32 `[B, d_model]`: x̂ − x. */
  readonly err: Tensor;
  /** f32 `[B, window]`, one for each window. */
  readonly acts: readonly Tensor[];
  /** f32 `[B · largest window]`: gradient of the pre-activations; the windows take turns. */
  readonly dpre: Tensor;
  /** f32 `[d_sae]`: ‖W_dec_i‖. */
  readonly norms: Tensor;
  /** f32 `[d_sae]`: factor of W_dec_i in the gradient of the L1 term. */
  readonly l1Coef: Tensor;
  /** f32 `[d_sae]`: thresholds of jumprelu. */
  readonly thresholds: Tensor | undefined;
  /** u32 `[d_sae]`: what the gradients of a feature hold; see `sae_column_sums`. */
  readonly touched: Tensor;
  /** u32 `[d_sae]` */
  readonly tokensSinceFired: Tensor;
  /** u32 `[1]`: features that count as dead, where they were counted. */
  readonly dead: Tensor;
  /** How the encoder's product is made, and whether it marks entries on the way. */
  readonly encoder: {
    readonly variant: VariantShape;
    readonly hasTiles: boolean;
  };
  /** Entries of the batch. */
  readonly lists: EntryLists;
  /** Where entries are sorted by feature. */
  readonly sort: EntrySort;
  /** Thresholds of topk and batchtopk. */
  readonly selection: TopKTensors | undefined;
  /** f32 `[1]`: moving average of the smallest activation that the selection keeps. */
  readonly smallestKept: Tensor;
  /** f32 `[4]`: factor of AuxK's gradient, and its loss. */
  readonly auxValues: Tensor;
  /** The rest of AuxK. */
  readonly aux: AuxTensors | undefined;
  /** f32 `[n_partials, 4]`: parts of gradient², err², sparsity and the number of entries. */
  readonly partials: Tensor;
  /** u32 `[12]`, of `sae_step_status`. */
  readonly status: Tensor;
  readonly #gpu: Gpu;
  readonly #config: FullTrainerConfig;
  readonly #owned: DisposableStack;

  /**
   * Takes the memory; parameters and moments are 0.
   * @throws {RangeError} If the activations of 64 features exceed a binding.
   */
  constructor(gpu: Gpu, config: FullTrainerConfig) {
    using owned = new DisposableStack();
    const { d_model, d_sae, batch, architecture, auxK } = config;
    const own = (
      label: string,
      shape: readonly number[],
      dtype: Dtype = "f32",
    ): Tensor => owned.use(gpu.tensor(label, dtype, shape));
    const selection = (k: number, isBatch: boolean): TopKTensors =>
      topKTensors((label, dtype, shape) => own(label, shape, dtype), {
        T: batch,
        windows: sizes,
        k,
        isBatch,
      });
    this.#gpu = gpu;
    this.#config = config;
    this.touched = own("touched", [d_sae], "u32");
    this.parameters = this.#makeParameters(own);
    this.windows = featureWindows(gpu, this.parameters.W_enc.W, batch);
    const sizes = this.windows.map(({ start, end }) => end - start);
    this.rows = own("rows", [batch, d_model], "bf16");
    this.x = own("x", [batch, d_model]);
    this.err = own("err", [batch, d_model]);
    this.acts = sizes.map((size) => own("acts", [batch, size]));
    this.dpre = own("dpre", [batch * Math.max(...sizes)]);
    this.norms = own("norms", [d_sae]);
    this.l1Coef = own("l1_coef", [d_sae]);
    this.thresholds = architecture === "jumprelu"
      ? own("thresholds", [d_sae])
      : undefined;
    this.tokensSinceFired = own("tokens_since_fired", [d_sae], "u32");
    this.dead = own("dead", [1], "u32");
    const capacity = listCapacity(
      config,
      gpu.limits.maxStorageBufferBindingSize,
    );
    const auxCapacity = auxCapacityOf(batch, auxK);
    const binding = gpu.limits.maxStorageBufferBindingSize;
    if (16 * auxCapacity > binding) {
      throw new RangeError(
        `Cannot train with AuxK on ${batch} vectors at once: expected at most ${
          Math.floor(binding / (16 * auxCapacityOf(1, auxK)))
        } with ${auxK} dead features each, as the adapter binds ${binding} bytes: take smaller batches`,
      );
    }
    const variant = resolveVariant(gpu, {
      layout: "mk,nk",
      aType: "f32",
      bType: "f32",
      M: batch,
      N: sizes[0]!,
      K: d_model,
    });
    // What a selection takes away is no entry: then tiles come after it.
    const hasTiles = !isTopK(architecture) && makesTiles(variant);
    this.encoder = { variant, hasTiles };
    const lists = (capacity: number, tile: number): EntryLists =>
      owned.use(
        new EntryLists(gpu, { batch, windows: this.windows, capacity, tile }),
      );
    this.lists = lists(
      config.sparseEntries === 0 ? 4 : capacity,
      hasTiles ? tileWidth(variant) : LARGEST_TILE,
    );
    this.sort = owned.use(
      new EntrySort(gpu, {
        batch,
        d_sae,
        windows: this.windows,
        capacity: Math.max(this.lists.capacity, auxCapacity),
      }),
    );
    this.selection = isTopK(architecture)
      ? selection(config.k, architecture === "batchtopk")
      : undefined;
    this.smallestKept = own("smallest_kept", [1]);
    this.auxValues = own("aux", [4]);
    this.aux = auxK === 0 ? undefined : {
      lists: lists(auxCapacity, LARGEST_TILE),
      selection: selection(auxK, false),
      u: own("u", [batch, d_model]),
      mean: own("err_mean", [d_model]),
      squares: own("aux_squares", [
        Math.max(rowParts(batch), 2 * squareParts(batch * d_model)),
        4,
      ]),
    };
    this.partials = own("partials", [this.#countPartials(), 4]);
    this.status = own("status", [STATUS_WORDS], "u32");
    this.#owned = owned.move();
  }

  /** The parameters that this architecture has, with their names. */
  named(): (readonly [keyof SaeParams, Parameter])[] {
    return PARAMETERS.flatMap((name) => {
      const parameter = this.parameters[name];
      return parameter ? [[name, parameter] as const] : [];
    });
  }

  #makeParameters(
    own: (label: string, shape: readonly number[], dtype?: Dtype) => Tensor,
  ): Parameters {
    const { d_model, d_sae, architecture, moments } = this.#config;
    const ones = own("touched.b_dec", [1], "u32");
    ones.write(Uint32Array.of(1));
    const parameter = (
      name: string,
      shape: readonly number[],
      touched: Tensor = this.touched,
    ): Parameter => {
      const W = own(name, shape);
      const grad = own(`grad.${name}`, shape);
      if (moments === "f32" || shape.length === 1) {
        const [m, v] = [own(`m.${name}`, shape), own(`v.${name}`, shape)];
        return { W, grad, m, v, scales: undefined, touched };
      }
      const codes = [shape[0]!, shape[1]! / 4];
      return {
        W,
        grad,
        m: own(`m.${name}`, codes, "u32"),
        v: own(`v.${name}`, codes, "u32"),
        scales: own(`scales.${name}`, [
          shape[0]!,
          2 * Math.ceil(shape[1]! / Q8_BLOCK),
        ]),
        touched,
      };
    };
    return {
      W_enc: parameter("W_enc", [d_sae, d_model]),
      b_enc: parameter("b_enc", [d_sae]),
      W_dec: parameter("W_dec", [d_sae, d_model]),
      b_dec: parameter("b_dec", [d_model], ones),
      ...(architecture === "jumprelu" && {
        log_threshold: parameter("log_threshold", [d_sae]),
      }),
    };
  }

  #countPartials(): number {
    const { batch, accumulate } = this.#config;
    let n = accumulate * (rowParts(batch) + squareParts(flatSize(this.err)));
    for (const [, { grad }] of this.named()) {
      for (const { tensor } of grad.windows()) {
        n += squareParts(flatSize(tensor));
      }
    }
    return n;
  }

  /** Sets all that changes from step to step to 0 but the parameters. */
  clearState(): void {
    this.#gpu.record("clear the trainer", (rec) => {
      for (const [, { m, v, scales }] of this.named()) {
        for (const tensor of [m, v, ...(scales ? [scales] : [])]) {
          rec.clear(tensor);
        }
      }
      for (
        const tensor of [this.tokensSinceFired, this.smallestKept, this.status]
      ) rec.clear(tensor);
    });
  }

  /** Frees the memory. */
  [Symbol.dispose](): void {
    this.#owned.dispose();
  }
}

function flatSize(tensor: Tensor): number {
  return elementCount(tensor.shape);
}

/** A bindable tensor as one row of numbers. */
export function flat(tensor: Tensor): Tensor {
  return tensor.reshape([flatSize(tensor)]);
}
