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
  /** u32 `[T, 2]`: cache base and position of each token. */
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

/** Rows of logits that are computed at once. */
const LOGIT_ROWS = 512;

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
  const { gpu, config } = model;
  const lengths = sequences.map((ids) => ids.length);
  const runs = passes(lengths, options.tokensPerPass ?? 2048);
  const maxTokens = Math.max(
    ...runs.map(({ start, end }) => sum(lengths.slice(start, end))),
  );
  using owned = new DisposableStack();
  const work = owned.use(new Workspace(gpu, config, maxTokens));
  const cache = owned.use(
    new KvCache(gpu, config, {
      nSlots: maxTokens,
      nLayers: model.nLayers,
      isShared: true,
    }),
  );
  const normed = owned.use(
    gpu.tensor("final_norm", "f32", [maxTokens, config.d_model]),
  );
  const logits = owned.use(
    gpu.tensor("logits", "f32", [
      Math.min(LOGIT_ROWS, maxTokens),
      config.vocab_size,
    ]),
  );
  const targets = owned.use(gpu.tensor("targets", "u32", [maxTokens]));
  const nll = owned.use(gpu.tensor("nll", "f32", [maxTokens]));
  const results: Float32Array[] = [];
  for (const { start, end } of runs) {
    const part = sequences.slice(start, end);
    const batch = wholeSequences(config, part);
    const T = batch.ids.length;
    work.load(batch);
    targets.rows(0, T).write(
      successors(batch.ids, batch.places, config.vocab_size),
    );
    options.beforePass?.(start, part.length);
    gpu.record("score", (rec) => {
      const resid = model.forward(rec, work, cache, {
        hook: (rec, layer, resid) =>
          options.hook?.({
            rec,
            layer,
            resid,
            places: work.tokens.places,
            firstSequence: start,
          }),
      });
      model.finalNorm(rec, resid, normed.rows(0, T));
      for (let row = 0; row < T; row += LOGIT_ROWS) {
        const to = Math.min(row + LOGIT_ROWS, T);
        const some = logits.rows(0, to - row);
        model.logits(rec, normed.rows(row, to), some);
        crossEntropy.run(rec, {
          logits: some,
          targets: targets.rows(row, to),
          nll: nll.rows(row, to),
        });
      }
    });
    const values = await gpu.read(nll.rows(0, T));
    let at = 0;
    for (const ids of part) {
      results.push(values.slice(at, at + ids.length - 1));
      at += ids.length;
    }
  }
  return results;
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
