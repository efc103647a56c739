/**
 * How much of what a model knows an SAE's reconstruction keeps.
 * @module
 */
import { hookPlace, type HookPoint } from "../core/hook_point.ts";
import type { Olmo2 } from "../core/olmo2.ts";
import type { Sae } from "../core/sae.ts";
import { FIRST_POSITION, SaeSplice } from "../core/sae_splice.ts";
import { scoreSequences, type ScoringPass } from "../core/score.ts";
import type { Tensor } from "../gpu/mod.ts";
import { replaceRows } from "../kernels/replace_rows.ts";

/** Cross-entropies of a model with its residual stream replaced, in nats a token. */
export interface LossRecovered {
  /** Tokens that were predicted. */
  readonly nTokens: number;
  /** Of the model as it is. */
  readonly ceModel: number;
  /** With the SAE's reconstruction in place of the stream. */
  readonly ceSae: number;
  /** With zeros in place of the stream. */
  readonly ceZero: number;
  /** With the mean vector in place of the stream. */
  readonly ceMean: number;
  /** (ceZero − ceSae) / (ceZero − ceModel): 1 when nothing is lost, 0 when no better than zeros. */
  readonly recoveredFromZero: number;
  /** (ceMean − ceSae) / (ceMean − ceModel): 1 when nothing is lost, 0 when no better than the mean. */
  readonly recoveredFromMean: number;
}

/** Options of {@link lossRecovered}. */
export interface LossRecoveredOptions {
  /** The model, whole. */
  readonly model: Olmo2;
  readonly sae: Sae;
  /** Where the SAE reads and writes. */
  readonly hookPoint: HookPoint;
  /** Token ids of documents, each at least two. */
  readonly sequences: readonly ArrayLike<number>[];
  /** Mean of the vectors at the hook point, `[d_model]`. */
  readonly mean: ArrayLike<number>;
  /** Tokens of one pass; 1024 when absent. */
  readonly tokensPerPass?: number;
  /** Called before every pass; all four measurements together are 1. */
  readonly onProgress?: (share: number) => void;
  /** Stops before the next pass. */
  readonly signal?: AbortSignal;
}

/**
 * Scores sequences four times: as they are, and with the stream at the hook point
 * replaced by its reconstruction, zeros and the mean, at all positions but the first.
 * @throws {RangeError} If the hook point is no `resid_post`, sizes differ, or a cross-entropy is not finite.
 */
export async function lossRecovered(
  options: LossRecoveredOptions,
): Promise<LossRecovered> {
  const { model, sequences, onProgress, signal } = options;
  const { tokensPerPass = 1024 } = options;
  checkOptions(options);
  const longest = sequences.reduce(
    (most, { length }) => Math.max(most, length),
    0,
  );
  using rows = new Replacements(options, Math.max(tokensPerPass, longest));
  const kinds = ["model", "sae", "zero", "mean"] as const;
  const means: number[] = [];
  let nTokens = 0;
  for (const [i, kind] of kinds.entries()) {
    const nll = await scoreSequences(model, sequences, {
      tokensPerPass,
      hook: (pass) => rows.replace(kind, pass),
      beforePass: (first): void => {
        signal?.throwIfAborted();
        onProgress?.((i + first / sequences.length) / kinds.length);
      },
    });
    const total = sumOf(nll);
    nTokens = nll.reduce((n, { length }) => n + length, 0);
    if (!Number.isFinite(total)) {
      throw new RangeError(
        `Cannot measure the loss recovered at ${options.hookPoint}: expected a finite cross-entropy: got ${total} with the ${kind}`,
      );
    }
    means.push(total / nTokens);
  }
  onProgress?.(1);
  const [ceModel, ceSae, ceZero, ceMean] = means as [
    number,
    number,
    number,
    number,
  ];
  return {
    nTokens,
    ceModel,
    ceSae,
    ceZero,
    ceMean,
    recoveredFromZero: (ceZero - ceSae) / (ceZero - ceModel),
    recoveredFromMean: (ceMean - ceSae) / (ceMean - ceModel),
  };
}

function checkOptions(
  { model, sae, hookPoint, sequences, mean }: LossRecoveredOptions,
): void {
  const refuse = (expected: string, got: unknown): RangeError =>
    new RangeError(
      `Cannot measure the loss recovered: expected ${expected}: got ${got}`,
    );
  const { d_model } = model.config;
  const { site, layer } = hookPlace(hookPoint);
  if (site !== "resid_post" || layer >= model.nLayers) {
    throw refuse(
      `resid_post[0] to resid_post[${
        model.nLayers - 1
      }], where a reconstruction can take the stream's place`,
      hookPoint,
    );
  }
  for (const size of [sae.d_model, mean.length]) {
    if (size !== d_model) throw refuse(`vectors of ${d_model}`, size);
  }
  const short = sequences.find(({ length }) => length < 2);
  if (short || sequences.length === 0) {
    throw refuse("sequences of at least 2 tokens", short?.length ?? "none");
  }
}

function sumOf(values: readonly Float32Array[]): number {
  let sum = 0;
  for (const part of values) for (const value of part) sum += value;
  return sum;
}

/** What takes the place of the stream. */
class Replacements implements Disposable {
  readonly #layer: number;
  readonly #zero: Tensor; // f32 [1, d_model]
  readonly #mean: Tensor; // f32 [1, d_model]
  readonly #splice: SaeSplice;
  readonly #owned: DisposableStack;

  constructor(
    { model: { gpu }, sae, hookPoint, mean }: LossRecoveredOptions,
    maxTokens: number,
  ) {
    const { d_model } = sae;
    using owned = new DisposableStack();
    this.#layer = hookPlace(hookPoint).layer;
    this.#zero = owned.use(gpu.tensor("zero", "f32", [1, d_model]));
    this.#mean = owned.use(
      gpu.floats("mean", [1, d_model], Float32Array.from(mean)),
    );
    this.#splice = owned.use(new SaeSplice(sae, maxTokens));
    this.#owned = owned.move();
  }

  replace(
    kind: "model" | "sae" | "zero" | "mean",
    { rec, layer, resid, places }: ScoringPass,
  ): void {
    if (layer !== this.#layer || kind === "model") return;
    if (kind === "sae") return this.#splice.run(rec, places, resid);
    const source = { zero: this.#zero, mean: this.#mean }[kind];
    replaceRows.run(rec, { source, places, x: resid }, {
      first_position: FIRST_POSITION,
    });
  }

  [Symbol.dispose](): void {
    this.#owned.dispose();
  }
}
