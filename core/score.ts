import type { Recorder, Tensor } from "../gpu/mod.ts";
import { crossEntropy } from "../kernels/cross_entropy.ts";
import { KvCache } from "./kv_cache.ts";
import { type Olmo2, Workspace } from "./olmo2.ts";
import { wholeSequences } from "./token_batch.ts";

/** A pass that a hook acts in: its layer's residual stream, and where its tokens stand. */
export interface ScoringPass {
  /** Commands of the pass. */
  readonly rec: Recorder;
  /** The block that has just run, from 0. */
  readonly layer: number;
  /** f32 `[T, d_model]` */
  readonly resid: Tensor;
  /** u32 `[T, 2]`: row of the cache and position of each token. */
  readonly places: Tensor;
  /** Index of the pass's first sequence among all sequences. */
  readonly firstSequence: number;
}

/** Options of {@link scoreSequences}. */
export interface ScoreOptions {
  /** Tokens of one pass; 2048 when absent. */
  readonly tokensPerPass?: number;
  /** Called after every block; may change the residual stream in place. */
  readonly hook?: (pass: ScoringPass) => void;
  /** Called before each pass is recorded, for hooks that need host data of its sequences. */
  readonly beforePass?: (firstSequence: number, nSequences: number) => void;
}

/** Most rows of logits that are computed at once. */
const LOGIT_ROWS = 512;
/** Rows of logits come in multiples of this, so that they start at a binding's alignment. */
const ROW_STEP = 64;

/** Splits sequences into runs of at most `tokensPerPass` tokens, at least one sequence each. */
export function passes(
  lengths: readonly number[],
  tokensPerPass: number,
): { start: number; end: number }[] {
  const runs: { start: number; end: number }[] = [];
  let start = 0;
  let tokens = 0;
  for (const [i, length] of lengths.entries()) {
    if (i > start && tokens + length > tokensPerPass) {
      runs.push({ start, end: i });
      start = i;
      tokens = 0;
    }
    tokens += length;
  }
  if (lengths.length > start) runs.push({ start, end: lengths.length });
  return runs;
}

/**
 * Negative log-likelihood of every token given the ones before it, in nats.
 * Element i of sequence s's result is that of token i + 1, so it is one shorter than the sequence.
 * @throws {RangeError} If a sequence is longer than the model's context.
 */
export async function scoreSequences(
  model: Olmo2,
  sequences: readonly ArrayLike<number>[],
  options: ScoreOptions = {},
): Promise<Float32Array[]> {
  const lengths = sequences.map((ids) => ids.length);
  const runs = passes(lengths, options.tokensPerPass ?? 2048);
  const maxTokens = runs.reduce(
    (most, { start, end }) => Math.max(most, sum(lengths.slice(start, end))),
    0,
  );
  if (maxTokens === 0) return lengths.map(() => new Float32Array(0));
  using scorer = new Scorer(model, maxTokens);
  const results: Float32Array[] = [];
  for (const { start, end } of runs) {
    const part = sequences.slice(start, end);
    options.beforePass?.(start, part.length);
    const values = await scorer.run(part, (pass) => {
      options.hook?.({ ...pass, firstSequence: start });
    });
    let at = 0;
    for (const ids of part) {
      results.push(values.slice(at, at + ids.length - 1));
      at += ids.length;
    }
  }
  return results;
}

/** The GPU memory of the passes. */
class Scorer implements Disposable {
  readonly #model: Olmo2;
  readonly #owned: DisposableStack;
  readonly #work: Workspace;
  readonly #cache: KvCache;
  readonly #normed: Tensor; // f32 [maxTokens, d_model]
  readonly #logits: Tensor; // f32 [rows at once, vocab]
  readonly #targets: Tensor; // u32 [maxTokens]
  readonly #nll: Tensor; // f32 [maxTokens]

  constructor(model: Olmo2, maxTokens: number) {
    const { gpu, config } = model;
    using owned = new DisposableStack();
    const tensor = (label: string, dtype: "f32" | "u32", shape: number[]) =>
      owned.use(gpu.tensor(label, dtype, shape));
    const cache = {
      nRows: 1,
      nLayers: model.nLayers,
      isShared: true,
    };
    const bindable = gpu.limits.maxStorageBufferBindingSize /
      (4 * config.vocab_size);
    const rows = Math.floor(bindable / ROW_STEP) * ROW_STEP;
    this.#model = model;
    this.#work = owned.use(new Workspace(gpu, config, maxTokens));
    this.#cache = owned.use(new KvCache(gpu, config, cache));
    this.#normed = tensor("final_norm", "f32", [maxTokens, config.d_model]);
    this.#logits = tensor("logits", "f32", [
      Math.min(LOGIT_ROWS, maxTokens, Math.max(rows, ROW_STEP)),
      config.vocab_size,
    ]);
    this.#targets = tensor("targets", "u32", [maxTokens]);
    this.#nll = tensor("nll", "f32", [maxTokens]);
    this.#owned = owned.move();
  }

  /** One pass over whole sequences; the value of each sequence's last token is 0. */
  async run(
    sequences: readonly ArrayLike<number>[],
    hook: (pass: Omit<ScoringPass, "firstSequence">) => void,
  ): Promise<Float32Array> {
    const { gpu, config } = this.#model;
    const batch = wholeSequences(config, sequences);
    const T = batch.ids.length;
    this.#work.load(batch);
    this.#cache.fit(sequences.map((ids) => ids.length));
    this.#targets.rows(0, T).write(
      successors(batch.ids, batch.places, config.vocab_size),
    );
    const { places } = this.#work.tokens;
    gpu.record("score", (rec) => {
      const resid = this.#model.forward(rec, this.#work, this.#cache, {
        hook: (rec, layer, resid) => hook({ rec, layer, resid, places }),
      });
      this.#model.finalNorm(rec, resid, this.#normed.rows(0, T));
      const step = this.#logits.nRows;
      for (let row = 0; row < T; row += step) {
        const to = Math.min(row + step, T);
        const logits = this.#logits.rows(0, to - row);
        this.#model.logits(rec, this.#normed.rows(row, to), logits);
        crossEntropy.run(rec, {
          logits,
          targets: this.#targets.rows(row, to),
          nll: this.#nll.rows(row, to),
        });
      }
    });
    return await gpu.read(this.#nll.rows(0, T));
  }

  [Symbol.dispose](): void {
    this.#owned.dispose();
  }
}

/** Each token's successor in its sequence; `vocab` where there is none. */
function successors(
  ids: Uint32Array,
  places: Uint32Array,
  vocab: number,
): Uint32Array<ArrayBuffer> {
  const next = new Uint32Array(ids.length).fill(vocab);
  for (let t = 0; t + 1 < ids.length; t++) {
    if (places[2 * t] === places[2 * t + 2]) next[t] = ids[t + 1]!;
  }
  return next;
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}
