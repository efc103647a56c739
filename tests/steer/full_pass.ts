/**
 * The model without a cache of past tokens: the reference for generation.
 * @module
 */
import { KvCache } from "../../core/kv_cache.ts";
import { type Olmo2, Workspace } from "../../core/olmo2.ts";
import { wholeSequences } from "../../core/token_batch.ts";
import type { SteeringBank } from "../../steer/interventions.ts";

/** Which tokens of a sequence are steered, by the first set of a bank. */
export interface PassSteering {
  readonly bank: SteeringBank;
  /** Positions before it are left alone. */
  readonly fromPosition: number;
  /** Tokens before the reply, for schedules; all when absent. */
  readonly nPrompt?: number;
}

/** Logits of all tokens of whole sequences, f32 `[T, vocab]`, tokens one after the other. */
export async function fullPass(
  model: Olmo2,
  sequences: readonly (readonly number[])[],
  steering?: PassSteering,
): Promise<Float32Array> {
  const { gpu, config, nLayers } = model;
  const batch = wholeSequences(config, sequences);
  const T = batch.ids.length;
  using work = new Workspace(gpu, config, T);
  using cache = new KvCache(gpu, config, {
    nRows: sequences.length,
    nLayers,
    isShared: true,
  });
  using normed = gpu.tensor("normed", "f32", [T, config.d_model]);
  using logits = gpu.tensor("logits", "f32", [T, config.vocab_size]);
  steering?.bank.loadPass(sequences.flatMap((ids) =>
    ids.map((_, i) => ({
      set: i >= steering.fromPosition ? 0 : undefined,
      n: Math.max(0, i + 1 - (steering.nPrompt ?? i + 1)),
    }))
  ));
  work.load(batch);
  cache.fit(sequences.map((ids) => ids.length));
  gpu.record("full pass", (rec) => {
    const resid = model.forward(rec, work, cache, {
      hook: (rec, layer, resid) => steering?.bank.run(rec, layer, resid),
    });
    model.finalNorm(rec, resid, normed);
    model.logits(rec, normed, logits);
  });
  return await gpu.read(logits);
}

/** `n` likeliest tokens after a prompt, with one pass over the whole sequence for each. */
export async function greedyByFullPasses(
  model: Olmo2,
  prompt: readonly number[],
  n: number,
  steering?: PassSteering,
): Promise<number[]> {
  const ids = [...prompt];
  for (let i = 0; i < n; i++) {
    const logits = await fullPass(model, [ids], steering);
    const last = logits.subarray(-model.config.vocab_size);
    ids.push(last.indexOf(last.reduce((most, x) => Math.max(most, x))));
  }
  return ids.slice(prompt.length);
}
